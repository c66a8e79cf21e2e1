//! The origin of the comparison bench: answers every GET and POST as fast as one thread can.
//!
//! It listens on a TCP port that the system chooses and on the unix socket named by its one argument, and prints
//! `ready PORT`. An answer is 1 KiB, 10 MiB below `/large/`, or 100 KiB of JSON below `/json/`; that of a POST comes when
//! its body, which needs a Content-Length, has been read to the end. Below `/cached/` an answer may be kept for a day, and
//! is 1 KiB, or 100 KiB at `/cached/102400`. Below `/ws/` it takes a WebSocket, sends every message
//! back, and counts each as a request. `GET /served` answers with the number of requests
//! answered so far, itself not counted: that is how the bench knows how much work went through a proxy in a stretch of
//! time, or that none did. Heads are not checked beyond what framing needs; this is no server for anything else.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;

const SMALL: usize = 1 << 10;
const LARGE: usize = 10 << 20;
const MEDIUM: usize = 100 << 10;
const HEAD_MOST: usize = 64 << 10;
const READ_AT_ONCE: usize = 64 << 10;

fn main() -> io::Result<()> {
    let Some(socket) = env::args_os().nth(1) else {
        return Err(io::Error::other("usage: bench-origin UNIX_SOCKET"));
    };
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let unix = UnixListener::bind(socket)?;
        println!("ready {}", tcp.local_addr()?.port());
        let origin = Arc::new(Origin::new());
        tokio::try_join!(accept_tcp(tcp, origin.clone()), accept_unix(unix, origin))?;
        Ok(())
    })
}

async fn accept_tcp(listener: TcpListener, origin: Arc<Origin>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, origin.clone()));
    }
}

async fn accept_unix(listener: UnixListener, origin: Arc<Origin>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, origin.clone()));
    }
}

/// One keep-alive connection, until the other side closes it or sends what is not understood here.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, origin: Arc<Origin>) {
    let mut input = Vec::with_capacity(READ_AT_ONCE);
    let mut body_left = None;
    while let Ok(1..) = stream.read_buf(&mut input).await {
        let mut taken = 0;
        while let Some(request) = next_request(&input, &mut taken, &mut body_left) {
            let written = match request {
                Request::Small => stream.write_all(origin.small()).await,
                Request::Large => stream.write_all(origin.large()).await,
                Request::Json => stream.write_all(origin.json()).await,
                Request::CachedSmall => stream.write_all(origin.cached_small()).await,
                Request::CachedMedium => stream.write_all(origin.cached_medium()).await,
                Request::Served => stream.write_all(&origin.served()).await,
                Request::WebSocket(head) => {
                    input.drain(..taken);
                    if stream.write_all(&head).await.is_ok() {
                        echo(stream, input, &origin).await;
                    }
                    return;
                }
                Request::NotUnderstood => return,
            };
            if written.is_err() {
                return;
            }
        }
        input.drain(..taken);
        if input.len() > HEAD_MOST {
            return;
        }
    }
}

/// A WebSocket, until the other side closes it. Messages come whole, in one frame of less than 126 bytes each, masked as a
/// client's are.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mut input: Vec<u8>, origin: &Origin) {
    let mut output = Vec::with_capacity(READ_AT_ONCE);
    loop {
        let mut taken = 0;
        while let [opcode, length, rest @ ..] = &input[taken..] {
            let length = usize::from(length & 0x7f);
            let Some((mask, payload)) = rest.split_first_chunk::<4>() else { break };
            let Some(payload) = payload.get(..length) else { break };
            output.extend([*opcode, payload.len() as u8]);
            output.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            origin.served.fetch_add(1, Ordering::Relaxed);
            taken += 6 + length;
        }
        input.drain(..taken);
        if stream.write_all(&output).await.is_err() || !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
        output.clear();
    }
}

enum Request {
    /// With the head that takes it.
    WebSocket(Vec<u8>),
    Small,
    Large,
    Json,
    CachedSmall,
    CachedMedium,
    Served,
    NotUnderstood,
}

/// The next request that has arrived whole, behind the `taken` bytes of `input`. What is there of a body is taken and
/// forgotten; `body_left` is how much of it is to come, None between requests.
fn next_request(input: &[u8], taken: &mut usize, body_left: &mut Option<usize>) -> Option<Request> {
    if body_left.is_none() {
        let length = memmem::find(&input[*taken..], b"\r\n\r\n")?;
        let head = &input[*taken..*taken + length];
        *taken += length + 4;
        if !head.starts_with(b"POST ") {
            return Some(asked(head));
        }
        let Some(length) = content_length(head) else { return Some(Request::NotUnderstood) };
        *body_left = Some(length);
    }
    let left = body_left.as_mut()?;
    let here = (input.len() - *taken).min(*left);
    *taken += here;
    *left -= here;
    if *left > 0 {
        return None;
    }
    *body_left = None;
    Some(Request::Small)
}

fn asked(head: &[u8]) -> Request {
    if head.starts_with(b"GET /ws/") {
        field(head, b"sec-websocket-key:").map_or(Request::NotUnderstood, |key| Request::WebSocket(switching(key)))
    } else if head.starts_with(b"GET /served ") {
        Request::Served
    } else if head.starts_with(b"GET /large/") {
        Request::Large
    } else if head.starts_with(b"GET /json/") {
        Request::Json
    } else if head.starts_with(b"GET /cached/102400 ") {
        Request::CachedMedium
    } else if head.starts_with(b"GET /cached/") {
        Request::CachedSmall
    } else if head.starts_with(b"GET ") {
        Request::Small
    } else {
        Request::NotUnderstood
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    str::from_utf8(field(head, b"content-length:")?).ok()?.parse().ok()
}

/// The value of a field; `name` with its colon.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let is_it = |line: &&[u8]| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name);
    let line = head.split(|&byte| byte == b'\n').find(is_it)?;
    Some(line[name.len()..].trim_ascii())
}

/// The head that takes a WebSocket (RFC 6455, 4.2.2).
fn switching(key: &[u8]) -> Vec<u8> {
    let key = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let accept = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &key));
    let fields = format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n");
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").into_bytes()
}

struct Origin {
    served: AtomicU64,
    small: Vec<u8>,
    large: Vec<u8>,
    json: Vec<u8>,
    cached_small: Vec<u8>,
    cached_medium: Vec<u8>,
}

impl Origin {
    fn new() -> Self {
        let plain = |size| answer("Content-Type: text/plain", &vec![b'x'; size]);
        // As an app's page has it. The date is that of the start: caches tell by it how old a page is.
        let date = httpdate::fmt_http_date(SystemTime::now());
        let fields = format!("Content-Type: text/plain\r\nDate: {date}\r\nETag: \"1\"\r\nCache-Control: max-age=86400");
        let cached = |size| answer(&fields, &vec![b'x'; size]);
        Self {
            served: AtomicU64::new(0),
            small: plain(SMALL),
            large: plain(LARGE),
            json: answer("Content-Type: application/json", &orders(MEDIUM)),
            cached_small: cached(SMALL),
            cached_medium: cached(MEDIUM),
        }
    }

    /// One more request has been answered.
    fn counted<'a>(&self, answer: &'a [u8]) -> &'a [u8] {
        self.served.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn small(&self) -> &[u8] {
        self.counted(&self.small)
    }

    fn large(&self) -> &[u8] {
        self.counted(&self.large)
    }

    fn json(&self) -> &[u8] {
        self.counted(&self.json)
    }

    fn cached_small(&self) -> &[u8] {
        self.counted(&self.cached_small)
    }

    fn cached_medium(&self) -> &[u8] {
        self.counted(&self.cached_medium)
    }

    fn served(&self) -> Vec<u8> {
        answer("Content-Type: text/plain", self.served.load(Ordering::Relaxed).to_string().as_bytes())
    }
}

/// An answer with these fields.
fn answer(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// JSON as a shop's API has it, `size` bytes of it, always the same: field names and words repeat, numbers
/// hardly do. What is one too many is cut off.
fn orders(size: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "blue", "teapot", "large", "cotton", "shirt", "with", "garden", "chair", "and", "oak", "table", "of", "glass",
        "small", "lamp", "red",
    ];
    let mut state = 1_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = String::from("[");
    for id in 1.. {
        let name: Vec<_> = (0..4 + next(8)).map(|_| WORDS[next(16) as usize]).collect();
        let (cents, stock, day, uuid) = (next(100_000), next(500), 1 + next(28), next(1 << 31) << 20 | next(1 << 20));
        text += &format!(
            "{{\"id\":{id},\"uuid\":\"{uuid:013x}\",\"name\":\"{}\",\"price\":\"{}.{:02}\",\"currency\":\"EUR\",\
             \"in_stock\":{stock},\"created\":\"2026-11-{day:02}T{:02}:{:02}:00Z\",\"url\":\"https://shop.example/api/items/{id}/\"}},",
            name.join(" "),
            cents / 100,
            cents % 100,
            next(24),
            next(60),
        );
        if text.len() >= size {
            break;
        }
    }
    text.truncate(size - 1);
    text.push(']');
    text.into_bytes()
}
