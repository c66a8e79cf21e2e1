//! The accept loop of a listener beside those of the sites: the operator's, or the one through which apps publish.
//!
//! It speaks plain HTTP/1.1 in one thread, and has few places: whoever finds all of them taken waits in the kernel's queue until
//! somebody leaves, or gives way because he has nothing under way.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listener::Listening;
use crate::config::MinRate;
use crate::http::{ConnectionInfo, Service};
use crate::http1::head::HeadLimits;
use crate::http1::server::{self, Entry, Limits};
use crate::observe::throttle::Throttle;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Socket, Stream, deadline};

/// Between two tries where something is short: a place, or what the system needs to accept.
const PAUSE: Duration = Duration::from_millis(200);

/// A listener that is no site's.
#[derive(Debug, Clone, Copy)]
pub struct SideDoor {
    /// The listener's name in what is known of a connection.
    pub listener: &'static str,
    /// What the log calls it.
    pub called: &'static str,
    /// Open connections at a time. More wait to be accepted.
    pub places: usize,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Duration,
}

impl SideDoor {
    /// Accepts on the socket for ever. `desk` makes what answers a connection: of each its own, which knows whose it is.
    pub async fn listen<S>(self, socket: Listening, desk: impl Fn(&Socket) -> S)
    where
        S: Service<Error = Infallible> + 'static,
    {
        let called = self.called;
        let acceptor = match socket.into_acceptor() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!("{called} cannot be served: {error}");
                return;
            }
        };
        let places = Arc::new(Semaphore::new(self.places));
        let throttle = Throttle::default();
        loop {
            let place = place(&places).await;
            match acceptor.accept().await {
                Ok(accepted) => {
                    let desk = Desk(Rc::new(desk(&accepted.socket)));
                    tokio::task::spawn_local(async move {
                        self.serve(accepted.socket, desk).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    deadline::make_room();
                    if let Some(left_out) = throttle.pass() {
                        tracing::warn!(left_out, "{called} cannot accept: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve<S: Service<Error = Infallible>>(self, socket: Socket, desk: Desk<S>) {
        let info = Rc::new(ConnectionInfo::new(self.listener));
        server::serve(Stream::Plain(socket), Buffer::take(), info, self.limits(), &desk).await;
    }

    const fn limits(self) -> Limits {
        Limits {
            head: HeadLimits { size: 16 << 10, count: 100 },
            header_timeout: Duration::from_secs(10),
            idle_timeout: self.idle_timeout,
            body_rate: MinRate { min: 500, after: Duration::from_secs(30) },
            read_rate: MinRate { min: 500, after: Duration::from_secs(30) },
        }
    }
}

/// A place for one more connection, once there is one.
async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    loop {
        // It is never closed.
        if let Ok(Ok(place)) = tokio::time::timeout(PAUSE, Arc::clone(places).acquire_owned()).await {
            return place;
        }
        // Whoever keeps a connection for later does not keep others out.
        deadline::make_room();
    }
}

/// Where all requests of one connection are answered: no reload changes that.
struct Desk<S>(Rc<S>);

impl<S: Service<Error = Infallible>> Entry for Desk<S> {
    type Stack = S;

    fn current(&self) -> Rc<S> {
        Rc::clone(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use bytes::Bytes;
    use socket2::{Domain, Type};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};
    use tokio::time::Instant;

    use super::*;
    use crate::http::{Body, Request, Response};
    use crate::runtime::paused;

    const DOOR: SideDoor =
        SideDoor { listener: "side", called: "the side door", places: 2, idle_timeout: Duration::from_secs(75) };

    /// Says which connection it is, by the number that it was given, and on which listener.
    struct Numbered(usize);

    impl Service for Numbered {
        type Error = Infallible;

        async fn call(&self, request: Box<Request>) -> Result<Response, Infallible> {
            let text = format!("{} of {}", self.0, request.exchange.connection.listener);
            Ok(Response::new(Body::Full(Bytes::from(text))))
        }
    }

    /// Opens the door at this socket while `test` lasts.
    async fn open(socket: Listening, test: impl Future<Output = ()>) {
        let accepted = Cell::new(0);
        let number = |_: &Socket| {
            accepted.set(accepted.get() + 1);
            Numbered(accepted.get())
        };
        tokio::select! {
            () = DOOR.listen(socket, number) => panic!("it never ends"),
            () = test => {}
        }
    }

    /// The same at a unix socket.
    fn at_unix(test: impl AsyncFnOnce(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        paused(async || open(Listening::Unix(listener), test(&path)).await);
    }

    /// What is answered to one more request; empty at the end of the connection.
    async fn asks(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(" of side") {
            let mut part = [0; 1024];
            let count = client.read(&mut part).await.unwrap();
            if count == 0 {
                return answer;
            }
            answer.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    #[test]
    fn a_connection_is_answered_at_one_desk_of_its_own() {
        at_unix(async |path| {
            let mut first = UnixStream::connect(path).await.unwrap();
            let mut second = UnixStream::connect(path).await.unwrap();
            assert_eq!(asks(&mut first).await, "1 of side");
            assert_eq!(asks(&mut second).await, "2 of side");
            assert_eq!(asks(&mut first).await, "1 of side");
        });
    }

    #[test]
    fn who_comes_when_all_places_are_taken_gets_that_of_one_who_is_idle() {
        at_unix(async |path| {
            let mut kept = Vec::new();
            for _ in 0..DOOR.places {
                let mut client = UnixStream::connect(path).await.unwrap();
                asks(&mut client).await;
                kept.push(client);
                // By the coarse clock the first is idle for longer.
                tokio::time::sleep(2 * deadline::TICK).await;
            }
            let begun = Instant::now();
            let mut late = UnixStream::connect(path).await.unwrap();
            assert_eq!(asks(&mut late).await, "3 of side");
            assert!(begun.elapsed() < DOOR.idle_timeout / 10, "{:?}", begun.elapsed());
            assert_eq!(
                kept[0].read(&mut [0; 1]).await.unwrap(),
                0,
                "the one that was idle for the longest time is closed"
            );
            assert_eq!(asks(&mut kept[1]).await, "2 of side");
        });
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        at_unix(async |path| {
            for number in 1..=3 * DOOR.places {
                let begun = Instant::now();
                let mut client = UnixStream::connect(path).await.unwrap();
                assert_eq!(asks(&mut client).await, format!("{number} of side"));
                assert!(begun.elapsed() < PAUSE, "nobody has to give way: {:?}", begun.elapsed());
            }
        });
    }

    #[test]
    fn a_door_that_cannot_accept_goes_on_trying() {
        // Nobody can be accepted before it listens.
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let early = Listening::Tcp(socket.try_clone().unwrap().into());
        let other = Listening::Tcp(socket.try_clone().unwrap().into());
        paused(async || {
            assert!(other.into_acceptor().unwrap().accept().await.is_err());
            open(early, async {
                tokio::time::sleep(10 * PAUSE).await;
                socket.listen(8).unwrap();
                let mut client = TcpStream::connect(address).await.unwrap();
                assert_eq!(asks(&mut client).await, "1 of side");
            })
            .await;
        });
    }
}
