//! A connection over a socket pair with paused time, and a stub for the stack.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::{Limits, serve};
use crate::config::MinRate;
use crate::http::{Body, ConnectionInfo, Request, Response, Service};
use crate::http1::server::Entry;
use crate::observe::metrics::Metrics;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Socket, Stream, paused};

const PAGE: usize = 60_000;
const LIMITS: Limits = Limits {
    streams: 10,
    is_proxy: false,
    header_size: 4096,
    header_count: 10,
    header_timeout: Duration::from_secs(30),
    idle_timeout: Duration::from_secs(1),
    body_rate: MinRate { min: 500, after: Duration::from_secs(20) },
    read_rate: MinRate { min: 500, after: Duration::from_secs(60) },
    websockets: false,
};

struct Stub;

impl Service for Stub {
    type Error = Infallible;

    async fn call(&self, _: Box<Request>) -> Result<Response, Infallible> {
        Ok(Response::new(Body::Full(Bytes::from(vec![b'x'; PAGE]))))
    }
}

#[derive(Clone)]
struct Door;

impl Entry for Door {
    type Stack = Stub;

    fn current(&self) -> Rc<Stub> {
        Rc::new(Stub)
    }
}

fn info() -> Rc<ConnectionInfo> {
    Rc::new(ConnectionInfo::new("test"))
}

#[test]
fn an_answer_that_the_socket_does_not_take_yet_keeps_the_connection_alive() {
    paused(async || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // A part of the page: the rest lies with us when the stream has handed over its last byte.
        socket2::SockRef::from(&ours).set_send_buffer_size(16 << 10).unwrap();
        let stream = Stream::Plain(Socket::Unix(ours));
        tokio::task::spawn_local(serve(stream, Buffer::take(), info(), LIMITS, Metrics::new(), Door));
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
        let (mut sender, mut connection) = builder.handshake::<_, Bytes>(theirs).await.unwrap();
        let request = http::Request::builder().uri("http://a/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        // The request leaves, and then nobody reads for far longer than a connection may be idle.
        poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut connection).poll(cx).is_ready())).await;
        sleep(Duration::from_secs(20)).await;
        tokio::task::spawn_local(connection);
        let mut body = response.await.unwrap().into_body();
        let mut received = 0;
        while let Some(data) = body.data().await {
            received += data.unwrap().len();
        }
        assert_eq!(received, PAGE);
    });
}
