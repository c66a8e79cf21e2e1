//! A scripted worker that speaks HTTP/2 by prior knowledge.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A request whose body has been read.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: http::Request<()>,
    pub(crate) body: Vec<u8>,
    /// On which connection, counted from 0.
    pub(crate) connection: usize,
}

/// What the script does about a request; `true`: the connection says that it takes no further one.
pub(crate) type Script =
    dyn Fn(Received, SendResponse<Bytes>) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

/// A scripted worker. Ends when it is dropped.
pub(crate) struct H2Worker {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    _stop: oneshot::Sender<()>,
}

impl H2Worker {
    /// `script` is called for every request once its body is here.
    pub(crate) fn start<F, O>(script: F) -> Self
    where
        F: Fn(Received, SendResponse<Bytes>) -> O + Send + Sync + 'static,
        O: Future<Output = bool> + Send + 'static,
    {
        let script: Arc<Script> = Arc::new(move |received, respond| Box::pin(script(received, respond)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel::<()>();
        let keep = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut connection = 0;
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, connection, Arc::clone(&script), Arc::clone(&keep)));
                    connection += 1;
                }
            });
            // An error is the end of the test.
            let _ = runtime.block_on(stopped);
        });
        Self { address, seen, _stop: stop }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// The whole requests it has had.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: tokio::net::TcpStream, index: usize, script: Arc<Script>, seen: Arc<Mutex<Vec<Received>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        let mut answering = tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            let Some(body) = read(&mut body).await else { return false };
            let received = Received { head: http::Request::from_parts(parts, ()), body, connection: index };
            seen.lock().unwrap().push(received.clone());
            script(received, respond).await
        });
        let is_last = poll_fn(|cx| {
            let _ = connection.poll_closed(cx);
            Pin::new(&mut answering).poll(cx)
        });
        if is_last.await.unwrap_or(true) {
            connection.graceful_shutdown();
        }
    }
}

async fn read(body: &mut RecvStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        all.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    Some(all)
}

/// Answers with this status and body.
pub(crate) async fn answer(mut respond: SendResponse<Bytes>, body: impl Into<Bytes>) {
    let body = body.into();
    let head = http::Response::builder().header("content-length", body.len()).body(()).unwrap();
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    send(&mut stream, body, true).await;
}

/// Sends a piece as the window allows.
pub(crate) async fn send(stream: &mut h2::SendStream<Bytes>, mut body: Bytes, is_last: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(granted)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = body.split_to(granted.min(body.len()));
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
    // An error is a gateway that has left.
    let _ = stream.send_data(Bytes::new(), is_last);
}
