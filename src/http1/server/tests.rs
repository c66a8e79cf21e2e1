//! The server's deadlines, over a socket pair with paused time and a stub for the stack.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{Entry, Limits, serve};
use crate::http::{Body, ConnectionInfo, Request, Response, Service};
use crate::http1::head::HeadLimits;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Socket, Stream, deadline};

const LIMITS: Limits = Limits {
    head: HeadLimits { size: 1024, count: 10 },
    header_timeout: Duration::from_secs(30),
    idle_timeout: Duration::from_secs(75),
    stall_timeout: Duration::from_secs(60),
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
    let info =
        ConnectionInfo { listener: Arc::from("test"), peer: None, local: None, tls: false, redirect_https: None };
    let serving = async {
        let begun = Instant::now();
        serve(Stream::Plain(Socket::Unix(ours)), Buffer::take(), Rc::new(info), LIMITS, &Door).await;
        begun.elapsed()
    };
    tokio::select! {
        () = deadline::sweep() => unreachable!("it never ends"),
        both = async { tokio::join!(client(theirs), serving) } => both,
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

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up_after_a_minute() {
    let (text, took) = with(async |mut stream| {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
        tokio::time::sleep(Duration::from_secs(40)).await;
        stream.write_all(b"d").await.unwrap();
        all_of(stream).await
    })
    .await;
    assert!(text.ends_with("body_timeout"), "{text}");
    assert!(took >= Duration::from_secs(100), "each byte gives it a minute more: {took:?}");
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
