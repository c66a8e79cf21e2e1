//! A client of HTTP/1.1 that sends exactly the bytes it is given, over TCP, unix sockets or TLS.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::message::{head_end, split_head};
use super::{Address, Response, Stream};

/// One connection of a client.
pub(crate) struct Client {
    io: Io,
    /// The socket below.
    socket: Stream,
    /// Read and not yet used.
    unread: Vec<u8>,
}

enum Io {
    Plain(Stream),
    Tls(Box<StreamOwned<ClientConnection, Stream>>),
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

impl Client {
    pub(crate) fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// The same where nobody may listen any more.
    pub(crate) fn try_connect(address: &Address) -> io::Result<Self> {
        let socket = address.connect()?;
        Ok(Self { io: Io::Plain(socket.again()), socket, unread: Vec::new() })
    }

    /// From an address of this machine's that is not the one it would take: another client to the gateway.
    pub(crate) fn connect_from(source: [u8; 4], address: &Address) -> Self {
        let socket = address.connect_from(source).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self { io: Io::Plain(socket.again()), socket, unread: Vec::new() }
    }

    /// HTTP/1.1 over TLS. `root` signs for the name.
    pub(crate) fn tls(address: &Address, name: &str, root: &Path) -> Self {
        Self::tls_as(b"", b"http/1.1", address, name, root)
    }

    /// TLS in which this protocol is offered, for bytes that are to be written by hand.
    pub(crate) fn tls_speaking(protocol: &[u8], address: &Address, name: &str, root: &Path) -> Self {
        Self::tls_as(b"", protocol, address, name, root)
    }

    /// The same after these bytes in plain text.
    pub(crate) fn tls_after(preamble: &[u8], address: &Address, name: &str, root: &Path) -> Self {
        Self::tls_as(preamble, b"http/1.1", address, name, root)
    }

    fn tls_as(preamble: &[u8], protocol: &[u8], address: &Address, name: &str, root: &Path) -> Self {
        let mut socket = address.connect().unwrap();
        socket.write_all(preamble).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(tls_config(root, &[protocol]), name).unwrap();
        let stream = StreamOwned::new(session, socket.again());
        Self { io: Io::Tls(Box::new(stream)), socket, unread: Vec::new() }
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the gateway takes what is sent");
    }

    /// The same where the gateway may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.io {
            Io::Plain(stream) => stream.write_all(bytes.as_ref()),
            Io::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        }
    }

    /// `GET` and its response.
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(get(path));
        self.response("GET")
    }

    /// The response to a request with this method, read to where its framing says that it ends.
    pub(crate) fn response(&mut self, method: &str) -> Response {
        self.try_response(method).expect("a response")
    }

    /// The same, `None` when the connection ends before a whole head.
    pub(crate) fn try_response(&mut self, method: &str) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.head()?;
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let mut response = Response { status, headers, interim, ..Response::default() };
            self.body(method, &mut response);
            return Some(response);
        }
    }

    /// The next head, interim or final. `None` when the connection ends before it is whole.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = head_end(&self.unread) {
                break end;
            }
            if !self.fill().is_ok_and(|read| read > 0) {
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let (start, headers) = split_head(&head);
        let status = start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        Some((status.unwrap_or_else(|| panic!("not a status line: {start:?}")), headers))
    }

    fn body(&mut self, method: &str, response: &mut Response) {
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return;
        }
        let cut = if response.header("transfer-encoding") == Some("chunked") {
            self.chunks(&mut response.body)
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap();
            self.exactly(length, &mut response.body)
        } else {
            self.until_close(&mut response.body)
        };
        response.cut = cut.err().map(|error| error.to_string());
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            self.exactly(size, body)?;
            if !self.line()?.is_empty() {
                panic!("a chunk of {size} bytes does not end with an empty line");
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// The data of the next chunk of a body in chunks; `None` at its end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line().expect("a chunk size"), 16).expect("a chunk size");
        let data = self.take(size).expect("a whole chunk");
        assert_eq!(self.line().expect("the end of a chunk"), "");
        (size > 0).then_some(data)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.must_fill()?;
        }
    }

    fn exactly(&mut self, mut left: usize, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let here = left.min(self.unread.len());
            body.extend(self.unread.drain(..here));
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.must_fill()?;
        }
    }

    fn until_close(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            body.append(&mut self.unread);
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    fn must_fill(&mut self) -> io::Result<()> {
        if self.fill()? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; 64 << 10];
        let read = match &mut self.io {
            Io::Plain(stream) => stream.read(&mut piece),
            Io::Tls(stream) => stream.read(&mut piece),
        };
        if let Err(error) = &read {
            let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            assert!(!timed_out, "nothing came in time; read so far: {:?}", String::from_utf8_lossy(&self.unread));
        }
        let read = read?;
        self.unread.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    /// At least so many of the next bytes, left unread.
    pub(crate) fn peek(&mut self, count: usize) -> &[u8] {
        while self.unread.len() < count {
            self.must_fill().expect("more bytes");
        }
        &self.unread
    }

    /// Exactly so many of the next bytes; `None` when the connection ends before.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut taken = Vec::with_capacity(count);
        self.exactly(count, &mut taken).ok().map(|()| taken)
    }

    /// Reads whatever comes up to the end of the connection. How many bytes that were, and how it ended.
    pub(crate) fn drain(&mut self) -> (usize, End) {
        let mut count = 0;
        loop {
            count += std::mem::take(&mut self.unread).len();
            match self.fill() {
                Ok(0) => return (count, End::Closed),
                Ok(_) => {}
                // TLS: closed without a close_notify.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return (count, End::Closed),
                Err(_) => return (count, End::Reset),
            }
        }
    }

    /// Waits for the gateway's end of the connection. Fails when bytes come before it.
    pub(crate) fn end(&mut self) -> End {
        assert!(self.unread.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.unread));
        match self.fill() {
            Ok(0) => End::Closed,
            Ok(_) => panic!("more came: {:?}", String::from_utf8_lossy(&self.unread)),
            // TLS: closed without a close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::Closed,
            Err(_) => End::Reset,
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.socket.shutdown(Shutdown::Write);
    }

    /// Leaves with a reset.
    pub(crate) fn reset(self) {
        self.socket.reset_on_close();
    }
}

/// What a server shows in a handshake without anybody's ticket, in DER; after a request that was answered with 200.
pub(crate) fn certificate_shown(address: &Address, name: &str, root: &Path) -> io::Result<Vec<u8>> {
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(tls_config(root, &[b"http/1.1"]), server).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, address.connect()?);
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.expect("a certificate").to_vec())
}

/// A plain GET.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

/// A POST with Content-Length.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Trusts this root and nothing else.
pub(super) fn tls_config(root: &Path, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}
