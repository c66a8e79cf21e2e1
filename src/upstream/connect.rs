//! Opening a connection to an endpoint, and the reason when that fails.
//!
//! A [`Connector`] is compiled once per endpoint and shared by all threads: the parsed address or the name's answers, the
//! TLS configuration with its tickets, and what is said before the first byte of HTTP.

mod names;
mod preamble;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use self::names::Name;
use self::tls::Tls;
pub use self::tls::TlsError;
use crate::config::{self, ClientAddress, EndpointProtocol, Place};
use crate::error::{Error, Reason, Retry};
use crate::http::Exchange;
use crate::runtime::{Deadline, Socket, Stream};

/// The way to one endpoint.
pub struct Connector {
    name: String,
    protocol: EndpointProtocol,
    way: Way,
    tls: Option<Tls>,
    preamble: Option<preamble::Version>,
    /// How long a TLS handshake may take: a server listens before its workers have booted, and only those answer it.
    handshake: Duration,
}

enum Way {
    Unix(PathBuf),
    /// Known without asking anybody; tried in this order.
    Fixed(Vec<SocketAddr>),
    Name(Arc<Name>),
}

impl Connector {
    /// Compiles one endpoint of an upstream. Reads the certificates of those who may have signed its own, so it is not
    /// for the threads that serve.
    ///
    /// # Errors
    /// What is wrong with `tls`.
    pub fn compile(config: &config::Upstream, endpoint: &config::Endpoint) -> Result<Self, TlsError> {
        let protocol = endpoint.address.protocol;
        let tls = match &endpoint.address.place {
            Place::Tcp { host, .. } if protocol == EndpointProtocol::Https => Some(Tls::compile(&config.tls, host)?),
            _ => None,
        };
        let way = match &endpoint.address.place {
            Place::Unix(path) => Way::Unix(path.clone()),
            Place::Tcp { host, port } => match without_lookup(host, *port) {
                Some(addresses) => Way::Fixed(addresses),
                None => Way::Name(Arc::new(Name::new(host, *port, config.resolve))),
            },
        };
        let preamble = match config.client_address {
            // uwsgi has a variable for it.
            _ if protocol == EndpointProtocol::Uwsgi => None,
            ClientAddress::Headers => None,
            ClientAddress::ProxyV1 => Some(preamble::Version::V1),
            ClientAddress::ProxyV2 => Some(preamble::Version::V2),
        };
        let handshake = config.timeouts.head;
        Ok(Self { name: endpoint.address.to_string(), protocol, way, tls, preamble, handshake })
    }

    /// One for plain HTTP/1.1.
    #[cfg(test)]
    pub(super) fn plain(address: &config::EndpointAddress) -> Self {
        let way = match &address.place {
            Place::Unix(path) => Way::Unix(path.clone()),
            Place::Tcp { host, port } => Way::Fixed(without_lookup(host, *port).unwrap_or_default()),
        };
        let handshake = Duration::ZERO;
        Self { name: address.to_string(), protocol: address.protocol, way, tls: None, preamble: None, handshake }
    }

    /// The endpoint as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is spoken on its connections.
    #[must_use]
    pub fn protocol(&self) -> EndpointProtocol {
        self.protocol
    }

    /// Whether a connection may serve another exchange. Not when it has begun with one client's address, and uwsgi
    /// knows no second exchange.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.preamble.is_none() && self.protocol != EndpointProtocol::Uwsgi
    }

    /// Appends what goes before the head of the first request, to be sent in the same write. Nothing where nothing is
    /// wanted, and where [`Self::connect`] has sent it, because something else comes between them (TLS, HTTP/2).
    pub fn preamble(&self, exchange: Option<&Exchange>, out: &mut Vec<u8>) {
        if let (Some(version), EndpointProtocol::Http) = (self.preamble, self.protocol) {
            preamble::append(out, version, exchange);
        }
    }

    /// Whether [`Self::preamble`] appends anything.
    #[must_use]
    pub fn has_preamble(&self) -> bool {
        self.preamble.is_some() && self.protocol == EndpointProtocol::Http
    }

    /// Connects within `timeout`, name lookup included. `exchange` is whose connection it becomes; its TLS handshake has
    /// as long as an answer (`timeouts.head`). `None` for one of our own, such as a probe, which has `timeout` for all.
    ///
    /// # Errors
    /// Nothing of a request has been sent, so that every failure may be retried. [`Reason::SocketPermission`],
    /// [`Reason::NameNotResolved`] and [`Reason::TlsFailed`] are not worth waiting for.
    pub async fn connect(&self, exchange: Option<&Exchange>, timeout: Duration) -> Result<Stream, Error> {
        let begun = Instant::now();
        let greet = async |socket| {
            if self.preamble.is_none() && self.tls.is_none() {
                return Ok(Stream::Plain(socket));
            }
            let left = timeout.saturating_sub(begun.elapsed());
            let patience = if exchange.is_some() { self.handshake.max(left) } else { left };
            match Deadline::new().bound(patience, self.greet(socket, exchange)).await {
                Ok(greeted) => greeted,
                Err(_) => {
                    Err(Error::new(Reason::ConnectTimeout).detail("connected, but no answer to the TLS handshake"))
                }
            }
        };
        self.open(timeout, greet).await
    }

    /// Whether anybody answers within `timeout`: connects and closes, which costs a worker nothing.
    ///
    /// # Errors
    /// As [`Self::connect`], but for what comes after the connection.
    pub async fn knock(&self, timeout: Duration) -> Result<(), Error> {
        self.open(timeout, async |_| Ok(())).await
    }

    /// A socket within `timeout`, and what is done with it.
    async fn open<T>(&self, timeout: Duration, then: impl AsyncFnOnce(Socket) -> Result<T, Error>) -> Result<T, Error> {
        let connected = match &self.way {
            // It connects at once, and nothing is waited for behind it.
            Way::Unix(path) => unix(path).map(Socket::Unix),
            Way::Fixed(addresses) => within(timeout, addresses, 0).await,
            Way::Name(name) => {
                let begun = Instant::now();
                match name.addresses(timeout).await {
                    Ok((addresses, first)) => within(timeout.saturating_sub(begun.elapsed()), &addresses, first).await,
                    Err(error) => Err(error),
                }
            }
        };
        let opened = match connected {
            Ok(socket) => then(socket).await,
            Err(error) => Err(error),
        };
        opened.map_err(|error| {
            let detail =
                if error.detail.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, error.detail) };
            error.retry(Retry::Unsent).detail(detail)
        })
    }

    /// What stands between the connection and HTTP.
    async fn greet(&self, mut socket: Socket, exchange: Option<&Exchange>) -> Result<Stream, Error> {
        if let (Some(version), EndpointProtocol::Https | EndpointProtocol::H2c) = (self.preamble, self.protocol) {
            let mut preamble = Vec::with_capacity(preamble::MAX);
            preamble::append(&mut preamble, version, exchange);
            let gone = |source| Error::new(Reason::ResetBeforeHead).source(source);
            socket.write_all(&preamble).await.map_err(gone)?;
        }
        match &self.tls {
            Some(tls) => tls.handshake(socket).await,
            None => Ok(Stream::Plain(socket)),
        }
    }
}

/// The addresses of a host for which nobody need be asked: literals, and `localhost` (RFC 6761, 6.3).
fn without_lookup(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    let bare = host.strip_suffix('.').unwrap_or(host);
    let is_local = bare.eq_ignore_ascii_case("localhost")
        || bare.len() > 10 && bare.as_bytes()[bare.len() - 10..].eq_ignore_ascii_case(b".localhost");
    is_local.then(|| vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
}

/// A unix socket connects at once or not at all, so that nobody waits for an event.
fn unix(path: &Path) -> Result<UnixStream, Error> {
    let connect = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        UnixStream::from_std(socket.into())
    };
    connect().map_err(|error| failure(error, true))
}

async fn within(timeout: Duration, addresses: &[SocketAddr], first: usize) -> Result<Socket, Error> {
    match Deadline::new().bound(timeout, one_of(addresses, first, timeout)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Reason::ConnectTimeout)),
    }
}

/// The first address, counted from `first`, that takes the connection. One that is silent leaves time for the others.
/// Where none does, the error that says most of the worker.
async fn one_of(addresses: &[SocketAddr], first: usize, timeout: Duration) -> Result<Socket, Error> {
    if let [address] = addresses {
        return tcp(*address).await;
    }
    let begun = Instant::now();
    let mut told: Option<Error> = None;
    let in_turn = addresses.iter().cycle().skip(first).take(addresses.len());
    for (left, address) in (1..=u32::try_from(addresses.len()).unwrap_or(u32::MAX)).rev().zip(in_turn) {
        let share = timeout.saturating_sub(begun.elapsed()) / left;
        let error = match Deadline::new().bound(share, tcp(*address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => error,
            Err(_) => Error::new(Reason::ConnectTimeout),
        };
        if told.as_ref().is_none_or(|told| weight(told) <= weight(&error)) {
            told = Some(error.detail(address.to_string()));
        }
    }
    Err(told.unwrap_or_else(|| Error::new(Reason::NameNotResolved).detail("it has no address")))
}

/// How much a failure at one address says of the worker. A host that has no IPv6 says so of `::1`, whatever happens to
/// who listens on 127.0.0.1.
fn weight(error: &Error) -> u8 {
    let errno = error.source.as_ref().and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error);
    match (error.reason, errno) {
        (Reason::ConnectRefused | Reason::ResetBeforeHead, _) => 3,
        (Reason::ConnectTimeout, _) => 2,
        (_, Some(Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::AFNOSUPPORT)) => 0,
        _ => 1,
    }
}

async fn tcp(address: SocketAddr) -> Result<Socket, Error> {
    let stream = TcpStream::connect(address).await.map_err(|error| failure(error, false))?;
    // Fails only on a socket that is dead already, which the first write will tell.
    let _ = stream.set_nodelay(true);
    unless_own(Socket::Tcp(stream), address)
}

/// Where nobody listens on a port of this machine's ephemeral range, connect may be given that very port, and TCP opens
/// the connection to itself (RFC 9293, 3.5: simultaneous open). It would keep the port from who is to listen there.
fn unless_own(socket: Socket, address: SocketAddr) -> Result<Socket, Error> {
    if let Socket::Tcp(stream) = &socket
        && address.ip().is_loopback()
        && stream.local_addr().is_ok_and(|local| local == address)
    {
        socket.reset_on_close();
        return Err(failure(Errno::CONNREFUSED.into(), false));
    }
    Ok(socket)
}

fn failure(source: io::Error, is_unix: bool) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => Reason::ConnectRefused,
        Some(Errno::NOENT | Errno::NOTDIR) => Reason::SocketMissing,
        Some(Errno::ACCESS | Errno::PERM) => Reason::SocketPermission,
        // On a unix socket: the listen backlog. On TCP: no local port is left.
        Some(Errno::AGAIN) if is_unix => Reason::BacklogFull,
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout,
        Some(Errno::MFILE | Errno::NFILE) => Reason::NoDescriptors,
        // It was opened, and closed again before we saw that.
        Some(Errno::CONNRESET) => Reason::ResetBeforeHead,
        _ => Reason::ConnectFailed,
    };
    Error::new(reason).source(source)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn nobody_is_asked_for_literals_and_localhost() {
        let local: Vec<SocketAddr> = vec!["127.0.0.1:8000".parse().unwrap(), "[::1]:8000".parse().unwrap()];
        for host in ["localhost", "LocalHost", "localhost.", "app.localhost"] {
            assert_eq!(without_lookup(host, 8000).as_ref(), Some(&local), "{host}");
        }
        for host in ["10.0.0.1", "::1"] {
            assert_eq!(without_lookup(host, 1).unwrap(), [SocketAddr::new(host.parse().unwrap(), 1)]);
        }
        for host in ["app", "localhost.example", ".localhost", "notlocalhost"] {
            assert_eq!(without_lookup(host, 1), None, "{host}");
        }
    }

    #[test]
    fn the_failure_that_says_most_of_the_worker_is_told() {
        let of = |errno: Errno| failure(errno.into(), false);
        let in_order = [
            vec![of(Errno::ADDRNOTAVAIL), of(Errno::NETUNREACH), of(Errno::HOSTUNREACH), of(Errno::AFNOSUPPORT)],
            vec![of(Errno::MFILE), of(Errno::ACCESS)],
            vec![of(Errno::TIMEDOUT), Error::new(Reason::ConnectTimeout)],
            vec![of(Errno::CONNREFUSED), of(Errno::CONNRESET)],
        ];
        for (expected, errors) in in_order.iter().enumerate() {
            for error in errors {
                assert_eq!(usize::from(weight(error)), expected, "{error}");
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_this_host_cannot_reach_does_not_hide_one_that_refuses() {
        let refusing = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
        // A link-local address without its interface.
        let unreachable: SocketAddr = "[fe80::1]:1".parse().unwrap();
        for first in 0..2 {
            let error = one_of(&[refusing, unreachable], first, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!((error.reason, &*error.detail), (Reason::ConnectRefused, &*refusing.to_string()));
        }
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_nobody_listening() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let own = socket.connect(address).await.unwrap();
        assert_eq!(unless_own(Socket::Tcp(own), address).unwrap_err().reason, Reason::ConnectRefused);
        TcpListener::bind(address).await.expect("the port is free again");
    }

    #[tokio::test]
    async fn an_address_that_refuses_leads_on_to_the_next() {
        let refusing = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [refusing, listener.local_addr().unwrap()];
        for first in 0..2 {
            let socket = one_of(&addresses, first, Duration::from_secs(5)).await.unwrap();
            let Socket::Tcp(stream) = socket else { panic!("not TCP") };
            assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        }
        let error = one_of(&[refusing, refusing], 1, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!((error.reason, &*error.detail), (Reason::ConnectRefused, &*refusing.to_string()));
    }
}
