//! A small client of the admin listener: one request, one answer, one connection, each with an end in sight.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{Admin, Bind};
use crate::http1::head::{Framing, find_end};
use crate::http1::response;

/// For a connection to this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// For everything after that: a reload reads certificates and opens sockets.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer, head included.
const LONGEST: usize = 4 << 20;

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
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Sends `method target` to the listener and reads the whole answer, as text for a terminal or as JSON.
pub(super) fn ask(admin: &Admin, method: &Method, target: &str, is_json: bool) -> Result<Answer, NoAnswer> {
    let (address, host) = place(&admin.bind).map_err(NoAnswer::Unreachable)?;
    let mut socket = connect(&address).map_err(NoAnswer::Unreachable)?;
    let request = request(method, target, &host, admin.token.as_deref(), is_json);
    let deadline = Instant::now() + ANSWER;
    let sent = socket.set_write_timeout(Some(ANSWER)).and_then(|()| socket.write_all(request.as_bytes()));
    sent.map_err(NoAnswer::Lost)?;
    receive(&mut socket, method, |socket| {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { socket.set_read_timeout(Some(left)) }
    })
}

/// Where to connect, and what to call it.
fn place(bind: &Bind) -> io::Result<(SockAddr, String)> {
    let address = match bind {
        Bind::Unix(path) => return Ok((SockAddr::unix(path)?, "localhost".into())),
        Bind::Any(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
        Bind::Tcp(address) if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        Bind::Tcp(address) => *address,
    };
    if address.port() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "port 0 is another one at every start: write a port"));
    }
    Ok((address.into(), address.to_string()))
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect_timeout(address, CONNECT)?;
    Ok(socket)
}

fn request(method: &Method, target: &str, host: &str, token: Option<&str>, is_json: bool) -> String {
    let accept = if is_json { "application/json" } else { "text/plain" };
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nX-Hostler-Control: 1\r\n{authorization}\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// Reads an answer. `prepare` comes before each read.
fn receive<R: Read>(
    from: &mut R,
    method: &Method,
    mut prepare: impl FnMut(&mut R) -> io::Result<()>,
) -> Result<Answer, NoAnswer> {
    let (mut bytes, mut scanned, mut piece) = (Vec::new(), 0, [0; 16 << 10]);
    let mut more = |bytes: &mut Vec<u8>| {
        if bytes.len() > LONGEST {
            return Err(NoAnswer::Foreign("what answers there says more than Hostler would"));
        }
        let read = prepare(from).and_then(|()| from.read(&mut piece)).map_err(NoAnswer::Lost)?;
        bytes.extend_from_slice(&piece[..read]);
        if read == 0 { Err(NoAnswer::Lost(io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
    };
    let head_end = loop {
        match find_end(&bytes, &mut scanned) {
            Some(end) => break end,
            None => more(&mut bytes)?,
        }
    };
    let foreign = || NoAnswer::Foreign("what answers there does not speak as Hostler does");
    let head = response::parse(&Bytes::copy_from_slice(&bytes[..head_end]), method).map_err(|_| foreign())?;
    let Framing::Length(length) = head.framing else { return Err(foreign()) };
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST).ok_or_else(foreign)?;
    while bytes.len() - head_end < length {
        more(&mut bytes)?;
    }
    let body = bytes[head_end..head_end + length].to_vec();
    Ok(Answer { status: head.status.as_u16(), body: String::from_utf8(body).map_err(|_| foreign())? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(mut bytes: &[u8]) -> Result<Answer, NoAnswer> {
        receive(&mut bytes, &Method::GET, |_| Ok(()))
    }

    #[test]
    fn an_answer_is_read_to_its_length() {
        let answer = received(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "abc".into() });
    }

    #[test]
    fn what_is_cut_or_foreign_is_told_apart() {
        for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc"] {
            assert!(matches!(received(cut.as_bytes()), Err(NoAnswer::Lost(_))), "{cut:?}");
        }
        for foreign in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ] {
            assert!(matches!(received(foreign.as_bytes()), Err(NoAnswer::Foreign(_))), "{foreign:?}");
        }
        assert!(matches!(received(&vec![b'a'; LONGEST + (64 << 10)]), Err(NoAnswer::Foreign(_))));
    }

    #[test]
    fn every_address_of_the_listener_is_reached_from_here() {
        let place = |text: &str| place(&Bind::parse(text).unwrap());
        for (text, host) in [
            ("9180", "127.0.0.1:9180"),
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::1]:9180", "[::1]:9180"),
            ("10.0.0.5:9180", "10.0.0.5:9180"),
            ("unix:/run/admin.sock", "localhost"),
        ] {
            assert_eq!(place(text).unwrap().1, host, "{text}");
        }
        assert!(place("127.0.0.1:0").is_err());
    }

    #[test]
    fn the_token_is_sent_when_there_is_one() {
        let request = |token| request(&Method::POST, "/pause?upstream=app", "localhost", token, false);
        assert!(request(Some("abc")).contains("\r\nAuthorization: Bearer abc\r\n"));
        assert!(!request(None).contains("Authorization"));
        assert!(request(None).starts_with("POST /pause?upstream=app HTTP/1.1\r\nHost: localhost\r\n"));
        assert!(request(None).ends_with("\r\n\r\n"));
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
