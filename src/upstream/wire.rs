//! What is spoken to a worker, behind one face: HTTP/1.1 (plain or over TLS), uwsgi (whose answers
//! read like it) or HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::h2c;
use crate::config::EndpointProtocol;
use crate::error::{Error, Reason};
use crate::http::Body;
use crate::http1::client::{self, Expect, Patience, Withhold};
use crate::runtime::{Deadline, Stream};
use crate::uwsgi;

/// A connection to a worker, between exchanges or in one.
pub(super) enum Connection {
    Http1(Box<client::Connection>),
    H2c(Box<h2c::Connection>),
}

/// A response whose body is still on the connection.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ResponseBody,
    /// Interim responses that came before it.
    pub(super) interim: u32,
    /// Whether the worker has sent the `100 Continue` that it was asked for.
    pub(super) continued: bool,
}

/// The body of a response, and the connection it is read from.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one, and is moved, not stored")]
pub(super) enum ResponseBody {
    Http1(client::ResponseBody),
    H2c(Box<h2c::ResponseBody>),
}

/// An exchange that brought no response.
pub(super) struct Failed {
    /// The reason by phase, with the verdict on sending the request again.
    pub(super) error: Error,
    /// After a deadline: the connection, whose worker may still be busy with the request.
    pub(super) busy: Option<Connection>,
}

/// What is to be known of a request that must not run twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Once {
    /// It may, in truth (RFC 9110, 9.2.2).
    pub(super) may_run_twice: bool,
    /// How a worker on TCP is asked for a 100 before it gets the body; `None`: it is not asked.
    pub(super) expect: Option<Expect>,
}

/// What becomes of a connection after an exchange.
pub(super) enum End {
    /// It can serve another exchange.
    Reusable(Connection),
    /// The worker closes it when it is done with the request.
    Closing(Connection),
    /// To be closed at once.
    Useless,
}

impl Connection {
    /// On a stream that has just been opened.
    ///
    /// # Errors
    /// It has ended already; nothing of a request has been sent.
    pub(super) async fn open(stream: Stream, protocol: EndpointProtocol) -> Result<Self, Error> {
        match protocol {
            EndpointProtocol::H2c => {
                // Boxed: it is far larger than the other.
                Box::pin(h2c::Connection::open(stream)).await.map(|connection| Self::H2c(Box::new(connection)))
            }
            EndpointProtocol::Uwsgi => Ok(Self::Http1(client::Connection::boxed(stream, &uwsgi::DIALECT))),
            EndpointProtocol::Http | EndpointProtocol::Https => {
                Ok(Self::Http1(client::Connection::boxed(stream, &client::HTTP1)))
            }
        }
    }

    /// Whether, between exchanges, it is as good as it was. `surely` asks the kernel.
    pub(super) fn is_quiet(&mut self, surely: bool) -> bool {
        match self {
            Self::Http1(connection) => connection.is_quiet(surely),
            Self::H2c(connection) => connection.is_quiet(surely),
        }
    }

    /// The next request asks for another protocol. Only HTTP/1.1 has another one to offer.
    pub(super) fn may_switch(&mut self) {
        if let Self::Http1(connection) = self {
            connection.may_switch();
        }
    }

    /// Sends a request, whose `head` is that of HTTP/1.1, and reads the head of its response.
    ///
    /// # Errors
    /// What kept the worker from answering.
    pub(super) async fn exchange(
        self,
        head: &[u8],
        body: Body,
        method: &Method,
        once: Once,
        patience: Patience,
    ) -> Result<Response, Failed> {
        match self {
            Self::Http1(connection) => {
                let withhold = if once.may_run_twice { Withhold::Nothing } else { connection.withhold(once.expect) };
                match connection.exchange(head, body, method, withhold, patience).await {
                    Ok(client::Response { head, body, interim, continued }) => {
                        let body = ResponseBody::Http1(body);
                        Ok(Response { status: head.status, headers: head.headers, body, interim, continued })
                    }
                    Err(client::Failed { error, busy }) => Err(Failed { error, busy: busy.map(Self::Http1) }),
                }
            }
            Self::H2c(connection) => match Box::pin(connection.exchange(head, body, method, patience)).await {
                Ok(h2c::Response { status, headers, body, interim }) => {
                    Ok(Response { status, headers, body: ResponseBody::H2c(Box::new(body)), interim, continued: false })
                }
                Err(h2c::Failed { error, busy }) => {
                    Err(Failed { error, busy: busy.map(|connection| Self::H2c(Box::new(connection))) })
                }
            },
        }
    }

    /// Waits until the worker is done with the request, at most for `limit`.
    pub(super) async fn closed(self, limit: Duration) {
        match self {
            Self::Http1(connection) => connection.closed(limit).await,
            // Boxed: its state is far larger than the other's.
            Self::H2c(connection) => Box::pin(connection.closed(limit)).await,
        }
    }
}

/// Leaving a worker in the middle of an answer.
impl Connection {
    /// The rest of the answer is for nobody, and no request will follow: lets the worker come to its end, and waits until
    /// it has closed, at most for `limit`.
    pub(super) async fn done_with(self, limit: Duration) {
        match self {
            Self::Http1(connection) => connection.done_with(limit).await,
            // What ends there is the stream.
            Self::H2c(connection) => Box::pin(connection.closed(limit)).await,
        }
    }

    /// Tells the worker, and waits until it has closed, at most for `limit`.
    pub(super) async fn abandoned(self, limit: Duration) {
        match self {
            Self::Http1(connection) => connection.abandoned(limit).await,
            Self::H2c(connection) => Box::pin(connection.abandoned(limit)).await,
        }
    }
}

impl ResponseBody {
    /// The bytes still to come, where the framing tells.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Http1(body) => body.remaining(),
            Self::H2c(body) => body.remaining(),
        }
    }

    /// All of the rest, when it has been read together with the head.
    pub(super) fn take_here(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(body) => body.take_here(),
            Self::H2c(body) => body.is_end().then(Bytes::new),
        }
    }

    /// The next piece, `None` at the end.
    ///
    /// # Errors
    /// What cut the body short.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Http1(body) => body.data().await,
            Self::H2c(body) => body.data().await,
        }
    }

    /// Reads what is left for nobody, and waits until the worker is done with the request, at most for `limit` in all.
    /// The connection, if it can serve again.
    pub(super) async fn finish(mut self, limit: Duration) -> Option<Connection> {
        let finished = async {
            loop {
                match self.data().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // It may be asleep in the middle of its answer.
                    Err(error) if error.reason == Reason::IdleTimeout => {
                        self.into_busy().closed(limit).await;
                        return None;
                    }
                    Err(_) => return None,
                }
            }
            match self.into_end() {
                End::Reusable(connection) => Some(connection),
                End::Closing(connection) => {
                    connection.closed(limit).await;
                    None
                }
                End::Useless => None,
            }
        };
        Deadline::new().bound(limit, finished).await.ok().flatten()
    }

    /// The connection to a worker that is still busy with the request.
    pub(super) fn into_busy(self) -> Connection {
        match self {
            Self::Http1(body) => Connection::Http1(body.into_busy()),
            Self::H2c(body) => Connection::H2c(Box::new(body.into_busy())),
        }
    }

    /// What becomes of the connection after the end of the body.
    pub(super) fn into_end(self) -> End {
        match self {
            Self::Http1(body) => match body.into_end() {
                client::End::Reusable(connection) => End::Reusable(Connection::Http1(connection)),
                client::End::Closing(connection) => End::Closing(Connection::Http1(connection)),
                client::End::Useless => End::Useless,
            },
            Self::H2c(body) => {
                body.into_end().map_or(End::Useless, |connection| End::Reusable(Connection::H2c(Box::new(connection))))
            }
        }
    }
}
