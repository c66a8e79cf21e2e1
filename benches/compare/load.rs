//! The load of the comparison bench that opens a connection for every request, or speaks WebSocket, which wrk and h2load
//! do not.
//!
//!     bench-load plain|full|resumed|websocket|websocket-tls ADDRESS PATH CONNECTIONS SECONDS
//!
//! `plain` is TCP alone, `full` a TLS 1.3 handshake with everything in it, `resumed` one with a ticket from the client's
//! connection before. Each of CONNECTIONS clients connects, sends a GET with `Connection: close`, reads to the end of
//! the connection, closes, and begins again: the proxy closes first, as it is told to. Answers must be 200 with 1 KiB.
//!
//! `websocket` and `websocket-tls` open one WebSocket for each of CONNECTIONS clients, which sends a message of 64 bytes, waits
//! for the same back, and sends the next: those are what is counted and timed.
//!
//! At the end one line of JSON says how many there were, of which kind, and how long they took.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const BODY: usize = 1024;
/// What opens a WebSocket.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let Some(plan) = Plan::read(env::args().skip(1)) else {
        return Err(io::Error::other(
            "usage: bench-load plain|full|resumed|websocket|websocket-tls ADDRESS PATH CONNECTIONS SECONDS",
        ));
    };
    let tally = Builder::new_current_thread().enable_all().build()?.block_on(run(Arc::new(plan)));
    println!("{}", tally.json());
    Ok(())
}

/// What the command line asks for.
struct Plan {
    /// None: no TLS. Else whether tickets are used.
    resume: Option<bool>,
    is_websocket: bool,
    address: SocketAddr,
    request: String,
    connections: usize,
    time: Duration,
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let how = words.next()?;
        let is_websocket = how.starts_with("websocket");
        let resume = match how.as_str() {
            "plain" | "websocket" => None,
            "full" | "websocket-tls" => Some(false),
            "resumed" => Some(true),
            _ => return None,
        };
        let address = words.next()?.parse().ok()?;
        let path = words.next()?;
        let fields = if is_websocket { HANDSHAKE } else { "Connection: close\r\n" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let connections = words.next()?.parse().ok()?;
        let time = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
        Some(Self { resume, is_websocket, address, request, connections, time })
    }
}

async fn run(plan: Arc<Plan>) -> Tally {
    let until = Instant::now() + plan.time;
    let mut clients = JoinSet::new();
    for _ in 0..plan.connections {
        clients.spawn(client(plan.clone(), until));
    }
    let mut sum = Tally::default();
    while let Some(Ok(one)) = clients.join_next().await {
        sum.add(one);
    }
    sum
}

/// One client: with `resumed`, its tickets are its own, and only its first handshake is a full one.
async fn client(plan: Arc<Plan>, until: Instant) -> Tally {
    let tls = plan.resume.map(connector);
    let mut tally = Tally::default();
    if plan.is_websocket {
        if let Err(error) = converse(&plan, tls.as_ref(), until, &mut tally).await {
            tally.count(Duration::ZERO, Err(error));
        }
        return tally;
    }
    while Instant::now() < until {
        let begin = Instant::now();
        let outcome = timeout(PATIENCE, exchange(&plan, tls.as_ref())).await;
        tally.count(begin.elapsed(), outcome.unwrap_or_else(|late| Err(late.into())));
    }
    tally
}

async fn exchange(plan: &Plan, tls: Option<&TlsConnector>) -> io::Result<Option<HandshakeKind>> {
    let stream = TcpStream::connect(plan.address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        get(stream, &plan.request).await?;
        return Ok(None);
    };
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut stream = tls.connect(name, stream).await?;
    get(&mut stream, &plan.request).await?;
    Ok(stream.get_ref().1.handshake_kind())
}

/// One WebSocket, until it is time.
async fn converse(plan: &Plan, tls: Option<&TlsConnector>, until: Instant, tally: &mut Tally) -> io::Result<()> {
    let stream = TcpStream::connect(plan.address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => echo(stream, plan, until, tally).await,
        Some(tls) => {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            echo(tls.connect(name, stream).await?, plan, until, tally).await
        }
    }
}

async fn echo<S>(mut stream: S, plan: &Plan, until: Instant, tally: &mut Tally) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(plan.request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    while memchr::memmem::find(&answer, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") || !answer.ends_with(b"\r\n\r\n") {
        return Err(io::Error::other(format!("not the answer: {}", answer[..answer.len().min(60)].escape_ascii())));
    }
    // A text of 64 bytes, masked with zeroes, and as it comes back.
    let (asked, expected) = ([b"\x81\xc0\0\0\0\0", &[b'x'; 64][..]].concat(), [b"\x81\x40", &[b'x'; 64][..]].concat());
    let mut heard = vec![0; expected.len()];
    while Instant::now() < until {
        let begin = Instant::now();
        stream.write_all(&asked).await?;
        timeout(PATIENCE, stream.read_exact(&mut heard)).await.map_err(io::Error::from)??;
        if heard != expected {
            return Err(io::Error::other(format!("not the message: {}", heard.escape_ascii())));
        }
        tally.count(begin.elapsed(), Ok(None));
    }
    // A goodbye with 1000, so that the proxy ends it in order.
    stream.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    match stream.read_to_end(&mut answer).await {
        // TLS without its goodbye: the length below says whether the answer is whole.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        other => drop(other?),
    }
    let head = memchr::memmem::find(&answer, b"\r\n\r\n").map(|at| at + 4);
    if answer.starts_with(b"HTTP/1.1 200 ") && head.is_some_and(|head| answer.len() - head == BODY) {
        return Ok(());
    }
    Err(io::Error::other(format!("not the answer: {}", answer[..answer.len().min(60)].escape_ascii())))
}

/// TLS 1.3 with X25519, which all peers know; whose certificate it is does not matter here.
fn connector(resume: bool) -> TlsConnector {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is built in")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = if resume { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    TlsConnector::from(Arc::new(config))
}

/// Believes everybody: the load must not be slower than it has to be.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// What came of the exchanges.
#[derive(Default)]
struct Tally {
    micros: Vec<u128>,
    full: u64,
    resumed: u64,
    failed: u64,
    why: Option<String>,
}

impl Tally {
    fn count(&mut self, took: Duration, outcome: io::Result<Option<HandshakeKind>>) {
        match outcome {
            Ok(kind) => {
                self.micros.push(took.as_micros());
                self.full += u64::from(kind.is_some_and(|kind| kind != HandshakeKind::Resumed));
                self.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
            }
            Err(error) => {
                self.failed += 1;
                self.why.get_or_insert(error.to_string());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.full += other.full;
        self.resumed += other.resumed;
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
    }

    fn json(mut self) -> String {
        self.micros.sort_unstable();
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        let why: String = self.why.unwrap_or_default().chars().filter(|&c| c != '"' && c != '\\').collect();
        format!(
            r#"{{"requests": {}, "failed": {}, "full": {}, "resumed": {}, "p50_us": {p50}, "p99_us": {p99}, "why": "{why}"}}"#,
            self.micros.len(),
            self.failed,
            self.full,
            self.resumed,
        )
    }

    /// The nearest rank of the sorted times; 0 of nothing.
    fn percentile(&self, percent: usize) -> u128 {
        let rank = (self.micros.len() * percent).div_ceil(100);
        self.micros.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}
