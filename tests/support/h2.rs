//! A client of HTTP/2, frame by frame where a test wants it.

use std::future::poll_fn;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::tls_config;
use super::{Address, LIMIT, Response};

/// One connection. Its frames move on a thread of its own, so that tests need not be async.
pub(crate) struct H2 {
    sender: SendRequest<Bytes>,
    connection: Option<JoinHandle<Result<(), h2::Error>>>,
    runtime: Running,
}

/// One stream whose response has not been read.
pub(crate) struct OpenStream {
    response: ResponseFuture,
    send: SendStream<Bytes>,
    handle: Handle,
}

/// A stream that has left HTTP: bytes both ways.
pub(crate) struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    handle: Handle,
}

/// A runtime on a thread of its own, for as long as this lives.
struct Running {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Running {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            // An error is the end of the client.
            let _ = runtime.block_on(stopped);
        });
        Self { handle, _stop: stop }
    }
}

/// A future's result, or a failed test.
fn within<T>(handle: &Handle, what: &str, future: impl Future<Output = T>) -> T {
    handle
        .block_on(async { tokio::time::timeout(LIMIT, future).await })
        .unwrap_or_else(|_| panic!("{what}: nothing came in time"))
}

impl H2 {
    /// With prior knowledge, in plain text.
    pub(crate) fn connect(address: &Address) -> Self {
        let runtime = Running::start();
        let address = address.clone();
        match &address {
            Address::Tcp(to) => {
                let stream = within(&runtime.handle, "connect", TcpStream::connect(to)).unwrap();
                stream.set_nodelay(true).unwrap();
                Self::over(runtime, stream)
            }
            Address::Unix(path) => {
                let stream = within(&runtime.handle, "connect", UnixStream::connect(path)).unwrap();
                Self::over(runtime, stream)
            }
        }
    }

    /// In plain text, from an address of this machine's that is not the one it would take.
    pub(crate) fn connect_from(source: [u8; 4], address: &Address) -> Self {
        let runtime = Running::start();
        let Address::Tcp(to) = *address else { panic!("{address} is not TCP") };
        let stream = within(&runtime.handle, "connect", async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(to).await
        });
        Self::over(runtime, stream.unwrap())
    }

    /// Over TLS, where the gateway has to choose `h2`.
    pub(crate) fn tls(address: &Address, name: &str, root: &Path) -> Self {
        let runtime = Running::start();
        let Address::Tcp(to) = address else { panic!("TLS over TCP only") };
        let connector = tokio_rustls::TlsConnector::from(tls_config(root, &[b"h2", b"http/1.1"]));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = within(&runtime.handle, "handshake", async {
            let stream = TcpStream::connect(to).await?;
            connector.connect(name, stream).await
        });
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(runtime, stream)
    }

    fn over(runtime: Running, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = within(&runtime.handle, "preface", async {
            // The connection's window is larger than a stream's: one that is not read leaves room for others.
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
            builder.handshake::<_, Bytes>(io).await.unwrap()
        });
        let connection = runtime.handle.spawn(connection);
        Self { sender, connection: Some(connection), runtime }
    }

    /// `GET` and its response.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.open(request("GET", path, &[]), true).response()
    }

    /// A whole request and its response.
    pub(crate) fn send(&self, request: http::Request<()>, body: &[u8]) -> Response {
        if body.is_empty() {
            return self.open(request, true).response();
        }
        let mut stream = self.open(request, false);
        stream.send(body, true);
        stream.response()
    }

    /// Opens a stream.
    pub(crate) fn open(&self, request: http::Request<()>, is_whole: bool) -> OpenStream {
        self.try_open(request, is_whole).expect("a stream")
    }

    /// The same where the gateway may have closed the connection.
    pub(crate) fn try_open(&self, request: http::Request<()>, is_whole: bool) -> Result<OpenStream, h2::Error> {
        let handle = &self.runtime.handle;
        let mut sender = within(handle, "a free stream", self.sender.clone().ready())?;
        let (response, send) = sender.send_request(request, is_whole)?;
        Ok(OpenStream { response, send, handle: handle.clone() })
    }

    /// Whether the gateway has said that WebSockets may come over this connection (RFC 8441), as far as is known.
    pub(crate) fn takes_websockets(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Opens a stream by an extended CONNECT for this protocol, once the gateway has said that it takes such.
    pub(crate) fn connect_for(&self, protocol: &'static str, path: &str, fields: &[(&str, &str)]) -> OpenStream {
        super::look_until(|| self.takes_websockets().then_some(())).expect("SETTINGS_ENABLE_CONNECT_PROTOCOL");
        let mut request = request("CONNECT", path, fields);
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        self.open(request, false)
    }

    /// Reads a body to its end. How many bytes that were.
    pub(crate) fn drain(&self, mut body: RecvStream) -> Result<usize, h2::Error> {
        let mut rest = Vec::new();
        within(&self.runtime.handle, "the body", read(&mut body, &mut rest)).map(|()| rest.len())
    }

    /// Waits for the end of the connection: `None` without an error.
    pub(crate) fn end(mut self) -> Option<h2::Error> {
        let connection = self.connection.take().unwrap();
        within(&self.runtime.handle, "the end of the connection", connection).unwrap().err()
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}

impl OpenStream {
    /// Sends a piece of the body, waiting for the gateway's window.
    pub(crate) fn send(&mut self, mut body: &[u8], is_last: bool) {
        let handle = self.handle.clone();
        while !body.is_empty() {
            self.send.reserve_capacity(body.len());
            let granted = within(&handle, "a window", poll_fn(|cx| self.send.poll_capacity(cx)));
            let Some(Ok(granted)) = granted else { return };
            let (now, later) = body.split_at(granted.min(body.len()));
            body = later;
            if self.send.send_data(Bytes::copy_from_slice(now), is_last && body.is_empty()).is_err() {
                return;
            }
        }
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.send.send_reset(reason);
        drop(self.response);
        // The frame leaves before the connection is looked at again.
        self.handle.block_on(async { tokio::time::sleep(Duration::ZERO).await });
    }

    /// The response, to its end.
    pub(crate) fn response(self) -> Response {
        self.try_response().expect("a response")
    }

    /// The same, or why the stream has none.
    pub(crate) fn try_response(self) -> Result<Response, h2::Error> {
        let Self { response, handle, send: _send } = self;
        let response = within(&handle, "a response head", response)?;
        let (head, mut body) = response.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let mut whole = Response { status: head.status.as_u16(), headers: headers.collect(), ..Response::default() };
        whole.cut = within(&handle, "the body", read(&mut body, &mut whole.body)).err().map(|error| error.to_string());
        Ok(whole)
    }

    /// The stream, when it has left HTTP with 200, and the fields of that; else the response.
    pub(crate) fn tunnel(self) -> Result<(Tunnel, Vec<(String, String)>), Response> {
        let Self { response, handle, send } = self;
        let response = within(&handle, "a response head", response).expect("a response");
        let (head, mut recv) = response.into_parts();
        let headers = head.headers.iter();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        if head.status == 200 {
            return Ok((Tunnel { send, recv, handle }, headers));
        }
        let mut whole = Response { status: head.status.as_u16(), headers, ..Response::default() };
        whole.cut = within(&handle, "the body", read(&mut recv, &mut whole.body)).err().map(|error| error.to_string());
        Err(whole)
    }

    /// Waits for the head of the response and leaves the body where it is.
    pub(crate) fn head(self) -> (u16, RecvStream) {
        let response = within(&self.handle, "a response head", self.response).unwrap();
        (response.status().as_u16(), response.into_body())
    }

    /// Waits for the head and the first piece of the body, and leaves the rest where it is.
    pub(crate) fn first_piece(self) -> (u16, Bytes, RecvStream) {
        let handle = self.handle.clone();
        let (status, mut body) = self.head();
        let piece = within(&handle, "a piece of the body", body.data()).expect("a body").unwrap();
        (status, piece, body)
    }
}

impl Tunnel {
    /// Sends bytes, as the gateway's window allows; each piece of them is a DATA frame.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Result<(), h2::Error> {
        let handle = self.handle.clone();
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let granted = match self.send.capacity() {
                0 => match within(&handle, "a window", poll_fn(|cx| self.send.poll_capacity(cx))) {
                    Some(granted) => granted?,
                    None => return Err(Reason::STREAM_CLOSED.into()),
                },
                granted => granted,
            };
            let (now, later) = bytes.split_at(granted.min(bytes.len()));
            self.send.send_data(Bytes::copy_from_slice(now), false)?;
            bytes = later;
        }
        Ok(())
    }

    /// How many bytes the gateway lets be sent within this time, of so many.
    pub(crate) fn send_what_goes(&mut self, count: usize, patience: Duration) -> usize {
        let handle = self.handle.clone();
        let mut sent = 0;
        while sent < count {
            self.send.reserve_capacity(count - sent);
            let granted = match self.send.capacity() {
                0 => {
                    let more = poll_fn(|cx| self.send.poll_capacity(cx));
                    match handle.block_on(async { tokio::time::timeout(patience, more).await }) {
                        Ok(Some(Ok(granted))) => granted,
                        _ => return sent,
                    }
                }
                granted => granted,
            };
            let piece = Bytes::from(vec![0; granted.min(count - sent).min(16 << 10)]);
            sent += piece.len();
            self.send.send_data(piece, false).unwrap();
        }
        sent
    }

    /// The bytes of the next DATA frames. `None`: the gateway has ended its side.
    pub(crate) fn read(&mut self) -> Option<Result<Bytes, h2::Error>> {
        loop {
            let data = within(&self.handle, "bytes", self.recv.data())?;
            if let Ok(data) = &data {
                let _ = self.recv.flow_control().release_capacity(data.len());
                // The frame that ends a stream may be empty.
                if data.is_empty() {
                    continue;
                }
            }
            return Some(data);
        }
    }

    /// Carries bytes between the stream and a socket, until both sides have ended or one is broken off.
    pub(crate) fn carry(self, socket: std::net::TcpStream) {
        let Self { mut send, mut recv, handle } = self;
        socket.set_nonblocking(true).unwrap();
        handle.clone().spawn(async move {
            let (mut read, mut write) = TcpStream::from_std(socket).unwrap().into_split();
            let to_gateway = async {
                let mut bytes = vec![0; 64 << 10];
                loop {
                    let count = read.read(&mut bytes).await.unwrap_or(0);
                    if count == 0 {
                        return send.send_data(Bytes::new(), true);
                    }
                    let mut left = &bytes[..count];
                    while !left.is_empty() {
                        send.reserve_capacity(left.len());
                        let granted = match send.capacity() {
                            0 => poll_fn(|cx| send.poll_capacity(cx)).await.ok_or(Reason::STREAM_CLOSED)??,
                            granted => granted,
                        };
                        let (now, later) = left.split_at(granted.min(left.len()));
                        send.send_data(Bytes::copy_from_slice(now), false)?;
                        left = later;
                    }
                }
            };
            let to_client = async {
                while let Some(Ok(data)) = recv.data().await {
                    let _ = recv.flow_control().release_capacity(data.len());
                    if write.write_all(&data).await.is_err() {
                        break;
                    }
                }
                let _ = write.shutdown().await;
            };
            // Errors are ends.
            let _ = tokio::join!(to_gateway, to_client);
        });
    }

    /// Ends our side.
    pub(crate) fn finish(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
        drop(self.recv);
        // The frame leaves before the connection is looked at again.
        self.handle.block_on(async { tokio::time::sleep(Duration::ZERO).await });
    }
}

async fn read(body: &mut RecvStream, into: &mut Vec<u8>) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        into.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(())
}

/// A request to shop.example.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> http::Request<()> {
    let mut builder = http::Request::builder().method(method).uri(format!("http://shop.example{path}"));
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}
