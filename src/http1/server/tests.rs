//! The server's deadlines, over a socket pair with paused time and a stub for the stack.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::time::Instant;

use super::body::CONTINUE;
use super::connection::Connection;
use super::{Entry, Limits, Terms, respond, serve};
use crate::config::MinRate;
use crate::http::{Body, ConnectionInfo, Exchange, Protocol, Request, Response, Service};
use crate::http1::head::HeadLimits;
use crate::runtime::buffers::Buffer;
use crate::runtime::deadline::Spare;
use crate::runtime::{Socket, Stream, deadline};

const LIMITS: Limits = Limits {
    head: HeadLimits { size: 1024, count: 10 },
    header_timeout: Duration::from_secs(30),
    idle_timeout: Duration::from_secs(75),
    body_rate: MinRate { min: 500, after: Duration::from_secs(20) },
    read_rate: MinRate { min: 500, after: Duration::from_secs(60) },
};

/// Reads the body and answers with the reason of what went wrong, or with a large page.
struct Stub;

impl Service for Stub {
    type Error = Infallible;

    async fn call(&self, request: Box<Request>) -> Result<Response, Infallible> {
        let mut body = request.body;
        let mut failed = request.refused;
        while let Some(data) = body.data().await {
            failed = failed.or(data.err());
            if failed.is_some() {
                break;
            }
        }
        let text = failed.map_or_else(|| Bytes::from(vec![b'x'; 4 << 20]), |error| error.reason.as_str().into());
        Ok(Response::new(Body::Full(text)))
    }
}

struct Door;

impl Entry for Door {
    type Stack = Stub;

    fn current(&self) -> Rc<Stub> {
        Rc::new(Stub)
    }
}

/// Serves one end of a pair until the connection ends; hands the other end to `client`.
async fn with<T>(client: impl AsyncFnOnce(UnixStream) -> T) -> (T, Duration) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    serving(Socket::Unix(ours), client(theirs)).await
}

/// The same over TCP, with buffers that hold a small part of the large page.
async fn with_tcp<T>(client: impl AsyncFnOnce(TcpStream) -> T) -> (T, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let (theirs, accepted) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
    let (ours, _) = accepted.unwrap();
    socket2::SockRef::from(&ours).set_send_buffer_size(256 << 10).unwrap();
    serving(Socket::Tcp(ours), client(theirs.unwrap())).await
}

async fn serving<T>(ours: Socket, client: impl Future<Output = T>) -> (T, Duration) {
    let info = ConnectionInfo::new("test");
    let serving = async {
        let begun = Instant::now();
        serve(Stream::Plain(ours), Buffer::take(), Rc::new(info), LIMITS, &Door).await;
        begun.elapsed()
    };
    tokio::select! {
        () = deadline::sweep() => unreachable!("it never ends"),
        both = async { tokio::join!(biased; client, serving) } => both,
    }
}

async fn all_of(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn about(took: Duration, wanted: u64) -> bool {
    let slack = 3 * deadline::TICK;
    took >= Duration::from_secs(wanted) && took <= Duration::from_secs(wanted) + slack
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go_without_a_word() {
    let (text, took) = with(all_of).await;
    assert!(text.is_empty() && about(took, 30), "{took:?}: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_with_its_reason() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a").await.unwrap();
        all_of(stream).await
    })
    .await;
    assert!(text.ends_with("header_timeout"), "{text}");
    assert!(took >= Duration::from_secs(30) && took <= Duration::from_secs(33), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        all_of(stream).await
    })
    .await;
    assert!(text.starts_with("HTTP/1.1 200 ") && about(took, 75), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_on_an_idle_connection_is_no_beginning() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n\r\n").await.unwrap();
        all_of(stream).await
    })
    .await;
    assert!(!text.contains("408") && !text.contains("header_timeout") && about(took, 75), "{took:?} {text}");
}

#[tokio::test(start_paused = true)]
async fn as_many_empty_lines_are_stepped_over_however_they_arrive() {
    for (lines, is_refused) in [(4, false), (5, true)] {
        let (text, _) = with(async |mut stream| {
            for _ in 0..lines {
                stream.write_all(b"\r\n").await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // Whoever is refused may have closed already.
            let _ = stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            all_of(stream).await
        })
        .await;
        assert_eq!(text.ends_with("bad_request_line"), is_refused, "{lines}: {text}");
    }
}

/// Sends a body of 100 kB, so many bytes every so many seconds, until there is an answer. That, and when.
async fn upload(bytes: usize, every: u64) -> (String, Duration) {
    with(async |stream| {
        let (mut from, mut to) = stream.into_split();
        let mut text = String::new();
        let sending = async {
            to.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n")
                .await
                .unwrap();
            let mut left = 100_000;
            while left > 0 {
                tokio::time::sleep(Duration::from_secs(every)).await;
                let piece = vec![b'x'; bytes.min(left)];
                if to.write_all(&piece).await.is_err() {
                    break;
                }
                left -= piece.len();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sending => unreachable!("it never ends"),
            read = from.read_to_string(&mut text) => { read.unwrap(); }
        }
        text
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up_when_its_allowance_is_used_up() {
    let (text, took) = upload(1, 1000).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("body_timeout"), "{text}");
    // Twenty seconds, and two of a lingering close.
    assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(24), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_dribbles_is_given_up_and_one_that_keeps_up_the_rate_is_not() {
    for (bytes, every) in [(1, 1), (100, 5), (1000, 15)] {
        let (text, took) = upload(bytes, every).await;
        assert!(text.ends_with("body_timeout"), "{bytes} bytes every {every} s");
        assert!(took >= Duration::from_secs(20) && took < Duration::from_secs(34), "{took:?}");
    }
    for (bytes, every) in [(600, 1), (9_000, 15)] {
        let (text, took) = upload(bytes, every).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with('x'), "{bytes} bytes every {every} s");
        assert!(took >= Duration::from_secs(150), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_response_is_cut_off() {
    let (received, took) = with(async |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(70)).await;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received.len()
    })
    .await;
    assert!(received < 4 << 20, "{received} bytes");
    assert!(about(took, 60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_little_now_and_then_gets_all() {
    let (received, _) = with(async |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut received = 0;
        let mut piece = vec![0; 256 << 10];
        loop {
            tokio::time::sleep(Duration::from_secs(50)).await;
            match stream.read(&mut piece).await.unwrap() {
                0 => return received,
                read => received += read,
            }
        }
    })
    .await;
    assert!(received > 4 << 20, "{received} bytes");
}

/// Takes the large page with this many bytes every so many seconds. How many came, and for how long.
async fn download(bytes: usize, every: u64) -> (usize, Duration) {
    with_tcp(async |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let (mut received, mut piece) = (0, vec![0; bytes]);
        loop {
            tokio::time::sleep(Duration::from_secs(every)).await;
            match stream.read(&mut piece).await {
                Ok(read @ 1..) => received += read,
                Ok(0) | Err(_) => return received,
            }
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_enough_gets_all_though_its_socket_has_no_room_for_minutes() {
    let (received, took) = download(16 << 10, 10).await;
    assert!(received > 4 << 20, "{received} bytes in {took:?}");
    assert!(took >= Duration::from_secs(1800), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_too_little_is_cut_off() {
    let (received, took) = download(1 << 10, 10).await;
    assert!(received < 1 << 20, "{received} bytes");
    assert!(took >= Duration::from_secs(60) && took < Duration::from_secs(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_gives_way_at_once_and_a_request_that_has_arrived_does_not() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 512];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(deadline::evict(Spare::Idle));
        all_of(stream).await
    })
    .await;
    assert!(text.is_empty() && took < Duration::from_secs(2), "{took:?}: {text}");
    let (text, _) = with(async |mut stream| {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 512];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // It is in the socket before the connection is asked to leave, and nobody has looked.
        assert_eq!(stream.try_write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").unwrap(), 49);
        assert!(deadline::evict(Spare::Idle));
        all_of(stream).await
    })
    .await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nconnection: close") && body.len() == 4 << 20,
        "{head}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_in_the_middle_of_something_is_not_asked_to_leave() {
    let (text, _) = with(async |mut stream| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!deadline::evict(Spare::Idle), "it is new");
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost:").await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!deadline::evict(Spare::Idle), "a head is on its way");
        stream.write_all(b" a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!deadline::evict(Spare::Idle), "a body is on its way");
        stream.write_all(b"ab").await.unwrap();
        all_of(stream).await
    })
    .await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_gives_way_after_five_seconds_however_it_goes_on() {
    for first in ["", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let (text, took) = with(async |mut stream| {
            stream.write_all(first.as_bytes()).await.unwrap();
            for byte in *b"GET / " {
                stream.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(deadline::evict(Spare::Idle), "a byte a second does not keep its place");
            all_of(stream).await
        })
        .await;
        assert!(text.contains(" 200 ") && text.ends_with("header_timeout"), "{text}");
        assert!(took < Duration::from_secs(8), "it does not linger: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_whose_rest_has_arrived_does_not_give_way() {
    let (text, _) = with(async |mut stream| {
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost:").await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        // It is in the socket before the connection is asked to leave, and nobody has looked.
        assert_eq!(stream.try_write(b" a\r\n\r\n").unwrap(), 6);
        assert!(deadline::evict(Spare::Idle));
        all_of(stream).await
    })
    .await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\r\nconnection: close"), "{text}");
    assert!(!text.contains("header_timeout"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn when_room_is_short_a_stall_ends_soon() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!deadline::evict(Spare::Stalled), "it is soon yet");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(deadline::evict(Spare::Stalled));
        all_of(stream).await
    })
    .await;
    assert!(text.ends_with("body_timeout") && took < Duration::from_secs(7), "{took:?}: {text}");
    let (received, took) = with(async |mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert!(deadline::evict(Spare::Stalled));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received.len()
    })
    .await;
    assert!(received < 4 << 20 && took < Duration::from_secs(14), "{took:?}: {received}");
}

#[test]
fn a_client_that_goes_on_sending_after_its_answer_costs_nothing_meanwhile() {
    // Time passes only when nothing is to be done: with a loop that never rests it would stand still.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        crate::runtime::paused(async || {
            let (text, took) = with_tcp(async |mut stream| {
                let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
                stream.write_all(head).await.unwrap();
                let (mut from, mut to) = stream.split();
                // More than is read behind the answer.
                let sending = async { while to.write_all(&[b'x'; 64 << 10]).await.is_ok() {} };
                let mut text = Vec::new();
                let _ = tokio::join!(sending, from.read_to_end(&mut text));
                String::from_utf8_lossy(&text).into_owned()
            })
            .await;
            tell.send((text, took)).unwrap();
        });
    });
    let (text, took) = told.recv_timeout(Duration::from_secs(20)).expect("the clock moves on");
    assert!(text.ends_with("bad_chunk") && took <= Duration::from_secs(3), "{took:?}: {text}");
}

/// How long a connection lives on after the answer to a request that said it was the last, when the client does not close.
async fn lingers_for(request: &str) -> Duration {
    let (mut ended, took) = with(async |mut stream| {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("connection: close\r\n"), "{text}");
        // Whoever serves goes on for as long as this end is open.
        stream
    })
    .await;
    assert_eq!(ended.read(&mut [0]).await.unwrap(), 0);
    took
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_that_it_sends_no_more_is_not_waited_for() {
    for request in ["HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n"] {
        let took = lingers_for(request).await;
        assert!(took < Duration::from_secs(1), "{took:?} after {request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_sent_more_all_the_same_has_time_to_read_its_answer() {
    let took = lingers_for("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\r\n").await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn an_answer_comes_behind_the_rest_of_a_100_that_has_begun_and_instead_of_one_that_has_not() {
    for (left, rest) in [(CONTINUE, &b""[..]), (&CONTINUE[10..], &CONTINUE[10..]), (b"", b"")] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(Stream::Plain(Socket::Unix(ours)), Buffer::take());
        connection.interim.set(left);
        let info = Rc::new(ConnectionInfo::new("test"));
        let exchange = Exchange::new(info, Protocol::Http11, Method::POST, Bytes::new(), None, None);
        let terms = Terms { protocol: Protocol::Http11, is_head: false, keep_alive: false, is_last: true };
        let response = Response::new(Body::Full(Bytes::from_static(b"no")));
        respond::write(&connection, &LIMITS, &exchange, response, terms).await;
        assert_eq!(connection.interim.get(), b"", "nothing of it follows");
        drop(connection);
        let all = all_of(theirs).await;
        let expected = [rest, b"HTTP/1.1 200 OK\r\n"].concat();
        assert!(all.as_bytes().starts_with(&expected) && all.ends_with("\r\n\r\nno"), "{all}");
    }
}
