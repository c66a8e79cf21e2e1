//! A small client of the admin listener: one request, one answer, one connection, each with an end in sight.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use http::{Method, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Bind, Secret};
use crate::runtime::block_on;

/// For a connection to this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// For everything after that: a reload reads certificates and opens sockets.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest body of an answer.
const LONGEST: u64 = 4 << 20;

/// What the listener said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 200 to 599.
    pub(super) status: u16,
    pub(super) body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nobody is there.
    Unreachable(io::Error),
    /// It was there, and left or fell silent.
    Lost(io::Error),
    /// Somebody else is there.
    Foreign(&'static str),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Lost(error) if is_timeout(error) => write!(f, "no answer within {ANSWER:?}"),
            Self::Lost(error) => write!(f, "the connection was lost: {error}"),
            Self::Foreign(what) => f.write_str(what),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

/// A request as hyper takes it.
type Request = http::Request<String>;

/// Where the listener is.
#[derive(Debug)]
enum Place<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

/// A door of the gateway, and what opens it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door<'a> {
    pub(super) bind: &'a Bind,
    pub(super) secret: Option<&'a Secret>,
}

/// Sends `method target` with a body to the door and reads the whole answer, as text for a terminal or as JSON.
pub(super) fn ask(
    door: Door<'_>,
    method: &Method,
    target: &str,
    body: String,
    is_json: bool,
) -> Result<Answer, NoAnswer> {
    let (place, host) = place(door.bind).map_err(NoAnswer::Unreachable)?;
    let request = request(method, target, &host, door.secret.map(Secret::expose), body, is_json).map_err(|error| {
        let cause = format!("the request cannot be written: {error}");
        NoAnswer::Unreachable(io::Error::new(io::ErrorKind::InvalidInput, cause))
    })?;
    block_on(async {
        match place {
            Place::Tcp(address) => exchange(connect(TcpStream::connect(address)).await?, request).await,
            Place::Unix(path) => exchange(connect(UnixStream::connect(path)).await?, request).await,
        }
    })
    .map_err(NoAnswer::Unreachable)?
}

/// Where to connect, and what to call it.
fn place(bind: &Bind) -> io::Result<(Place<'_>, String)> {
    let address = match bind {
        Bind::Unix(path) => return Ok((Place::Unix(path), "localhost".into())),
        Bind::Systemd(_) => {
            let message = "systemd has opened it, and only its socket unit says where: ask with curl";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Bind::Any(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        Bind::Tcp(address) if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        Bind::Tcp(address) => *address,
    };
    if address.port() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "port 0 is another one at every start: write a port"));
    }
    Ok((Place::Tcp(address), address.to_string()))
}

async fn connect<S>(connecting: impl Future<Output = io::Result<S>>) -> Result<S, NoAnswer> {
    let connected = timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(NoAnswer::Unreachable)
}

fn request(
    method: &Method,
    target: &str,
    host: &str,
    token: Option<&str>,
    body: String,
    is_json: bool,
) -> http::Result<Request> {
    let accept = if is_json { "application/json" } else { "text/plain" };
    let mut request = http::Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, host)
        .header(header::ACCEPT, accept)
        .header("x-hostler-control", "1")
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(body)
}

/// Sends the request and reads the answer to its end.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: S, request: Request) -> Result<Answer, NoAnswer> {
    let answer = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
        let mut connection = pin!(connection);
        let mut answer = pin!(async { receive(sender.send_request(request).await.map_err(no_answer)?).await });
        let mut ended = None;
        poll_fn(|cx| {
            if ended.is_none() {
                ended = match connection.as_mut().poll(cx) {
                    Poll::Ready(Err(error)) => Some(Some(no_answer(error))),
                    Poll::Ready(Ok(())) => Some(None),
                    Poll::Pending => None,
                };
            }
            // Who speaks before being asked ends the connection, which knows why.
            let answer = ready!(answer.as_mut().poll(cx));
            Poll::Ready(answer.map_err(|error| ended.take().flatten().unwrap_or(error)))
        })
        .await
    };
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(NoAnswer::Lost(io::ErrorKind::TimedOut.into())))
}

async fn receive(response: http::Response<Incoming>) -> Result<Answer, NoAnswer> {
    const FOREIGN: NoAnswer = NoAnswer::Foreign("what answers there does not speak as Hostler does");
    let (head, mut body) = response.into_parts();
    // Hostler says how long its answers are, so that none is cut unseen.
    if body.size_hint().exact().is_none_or(|length| length > LONGEST) || !(200..600).contains(&head.status.as_u16()) {
        return Err(FOREIGN);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(frame.map_err(no_answer)?.data_ref().ok_or(FOREIGN)?);
    }
    Ok(Answer { status: head.status.as_u16(), body: String::from_utf8(bytes).map_err(|_| FOREIGN)? })
}

fn no_answer(error: hyper::Error) -> NoAnswer {
    if error.is_incomplete_message() || error.is_closed() {
        NoAnswer::Lost(io::ErrorKind::UnexpectedEof.into())
    } else if is_lost(&error) {
        NoAnswer::Lost(io::Error::new(io::ErrorKind::ConnectionReset, error))
    } else {
        NoAnswer::Foreign("what answers there does not speak as Hostler does")
    }
}

/// Whether the connection has failed, and not who is at its other end.
fn is_lost(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let is_by_system = source.is_some_and(|source| source.is::<io::Error>());
    let cause = source.and_then(|source| source.downcast_ref::<hyper::Error>());
    is_by_system || error.is_closed() || cause.map_or(error.is_canceled(), is_lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn received(bytes: &[u8]) -> Result<Answer, NoAnswer> {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let request = request(&Method::GET, "/status", "localhost", None, String::new(), true).unwrap();
        block_on(async {
            let speaking = async {
                assert!(theirs.read(&mut [0; 4 << 10]).await.unwrap() > 0);
                // An error is a client that has heard enough.
                let _ = theirs.write_all(bytes).await;
                let _ = theirs.shutdown().await;
                let _ = theirs.read_to_end(&mut Vec::new()).await;
            };
            tokio::join!(exchange(ours, request), speaking).0
        })
        .unwrap()
    }

    #[test]
    fn an_answer_is_read_to_its_length() {
        let answer = received(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "abc".into() });
    }

    #[test]
    fn what_is_cut_or_foreign_is_told_apart() {
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        ] {
            assert!(matches!(received(cut.as_bytes()), Err(NoAnswer::Lost(_))), "{cut:?}");
        }
        for foreign in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        ] {
            assert!(matches!(received(foreign.as_bytes()), Err(NoAnswer::Foreign(_))), "{foreign:?}");
        }
        assert!(matches!(received(&vec![b'a'; 1 << 20]), Err(NoAnswer::Foreign(_))));
    }

    #[test]
    fn every_address_of_the_listener_is_reached_from_here() {
        let host = |text: &str| place(&Bind::parse(text).unwrap()).map(|(_, host)| host);
        for (text, expected) in [
            ("9180", "127.0.0.1:9180"),
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::1]:9180", "[::1]:9180"),
            ("10.0.0.5:9180", "10.0.0.5:9180"),
            ("unix:/run/admin.sock", "localhost"),
        ] {
            assert_eq!(host(text).unwrap(), expected, "{text}");
        }
        assert!(host("127.0.0.1:0").is_err());
    }

    #[test]
    fn the_token_is_sent_when_there_is_one() {
        let request =
            |token| request(&Method::POST, "/pause?upstream=app", "localhost", token, String::new(), false).unwrap();
        assert_eq!(request(Some("abc")).headers()[header::AUTHORIZATION], "Bearer abc");
        assert!(!request(None).headers().contains_key(header::AUTHORIZATION));
        assert_eq!(
            (request(None).uri().to_string(), request(None).method().as_str()),
            ("/pause?upstream=app".into(), "POST")
        );
        assert_eq!(request(None).headers()[header::HOST], "localhost");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall(head in "HTTP/1.1 [0-9]{3} OK\r\n(Content-Length: [0-9]{1,3}\r\n)?\r\n", body in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [head.as_bytes(), &body].concat();
            let _ = received(&bytes);
            let _ = received(&body);
        }
    }
}
