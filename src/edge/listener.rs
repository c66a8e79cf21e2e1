//! Listening sockets: one per thread and TCP address, so that the kernel spreads connections over the threads; unix
//! sockets are shared by all.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};

use super::inherited::Inherited;
use crate::config::Bind;
use crate::runtime::Socket;

/// What the kernel may hold for us to accept.
const BACKLOG: i32 = 4096;
/// Silence on a connection after which the kernel asks whether the other end is there, and how often it asks then.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// One thread's listening socket.
#[derive(Debug)]
pub enum Listening {
    /// With SO_REUSEPORT; one that was passed to us, the same in every thread.
    Tcp(std::net::TcpListener),
    /// The same socket in every thread.
    Unix(UnixListener),
}

impl Listening {
    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
            Self::Unix(_) => true,
        }
    }

    /// The same socket on this thread's event queue.
    ///
    /// # Errors
    /// What the system said.
    pub fn into_acceptor(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(socket) => Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Acceptor::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }
}

/// A connection that has been accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// The other end; `None` on unix sockets.
    pub peer: Option<SocketAddr>,
}

/// A listening socket on the event queue of its thread.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// Unix.
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// The connection's own errors, and those of the process (no descriptors left).
    pub async fn accept(&self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Closes the socket. Returns the connections that the kernel has already accepted for us: asked of the kernel
    /// itself, because what the event queue knows may be a turn old. Not more than it can hold: others may go on to listen
    /// on the same socket, and clients to come.
    #[must_use]
    pub fn into_queued(self) -> Vec<Accepted> {
        let mut queued = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return queued };
                for (stream, peer) in (0..BACKLOG).map_while(|_| listener.accept().ok()) {
                    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
                    queued.extend(stream.map(|stream| Accepted { socket: Socket::Tcp(stream), peer: Some(peer) }));
                }
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return queued };
                for (stream, _) in (0..BACKLOG).map_while(|_| listener.accept().ok()) {
                    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
                    queued.extend(stream.map(|stream| Accepted { socket: Socket::Unix(stream), peer: None }));
                }
            }
        }
        queued
    }

    /// The next connection, or nothing if none waits.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => ready!(listener.poll_accept(cx))
                .map(|(stream, peer)| Accepted { socket: Socket::Tcp(stream), peer: Some(peer) }),
            Self::Unix(listener) => ready!(listener.poll_accept(cx))
                .map(|(stream, _)| Accepted { socket: Socket::Unix(stream), peer: None }),
        })
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// As the operator wrote it.
    pub address: String,
    /// What the system said, in our words where those help.
    pub message: String,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.message)
    }
}

impl std::error::Error for BindError {}

/// Opens an address for `threads` threads, or takes what was passed. Returns the sockets, as many for each thread, and the
/// addresses that were bound: one, which tells the port where 0 was asked for, or those of the sockets that were passed.
///
/// # Errors
/// `address_in_use` when anybody, another Hostler included, listens there; no socket of that name was passed.
pub fn bind(bind: &Bind, inherited: &Inherited, threads: usize) -> Result<(Vec<Listening>, Vec<String>), BindError> {
    open(bind, inherited, threads, None)
}

/// The same, for one thread; a unix socket can be opened by its owner alone.
///
/// # Errors
/// As above.
pub fn bind_private(bind: &Bind, inherited: &Inherited) -> Result<(Vec<Listening>, Vec<String>), BindError> {
    open(bind, inherited, 1, Some(Permissions::from_mode(0o600)))
}

/// The same; a unix socket can be opened by its group as well.
///
/// # Errors
/// As above.
pub fn bind_for_group(bind: &Bind, inherited: &Inherited) -> Result<(Vec<Listening>, Vec<String>), BindError> {
    open(bind, inherited, 1, Some(Permissions::from_mode(0o660)))
}

fn open(
    bind: &Bind,
    inherited: &Inherited,
    threads: usize,
    permissions: Option<Permissions>,
) -> Result<(Vec<Listening>, Vec<String>), BindError> {
    let opened = match bind {
        Bind::Any(port) => any(*port, threads),
        Bind::Tcp(address) => tcp(*address, threads),
        Bind::Unix(path) => unix(path, threads, permissions),
        Bind::Systemd(name) => return inherited.open(name, threads),
    };
    let (sockets, address) =
        opened.map_err(|error| BindError { address: bind.to_string(), message: explain(&error) })?;
    Ok((sockets, vec![address]))
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE) => "address_in_use: something listens there: another process (stop it, or choose another `bind`), or, on a reload, a \
             listener of ours whose address overlaps (restart instead)"
                .into(),
        Some(Errno::ACCESS) => {
            "permission denied: ports below 1024 need CAP_NET_BIND_SERVICE, a unix socket a folder that this user may write to".into()
        }
        Some(Errno::ADDRNOTAVAIL) => "no interface of this machine has that address".into(),
        _ => error.to_string(),
    }
}

/// Every address, IPv4 and IPv6; IPv4 alone where the system has no IPv6.
fn any(port: u16, threads: usize) -> io::Result<(Vec<Listening>, String)> {
    match tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), threads) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {
            tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), threads)
        }
        result => result,
    }
}

fn tcp(address: SocketAddr, threads: usize) -> io::Result<(Vec<Listening>, String)> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    claim(&first)?;
    let mut sockets = vec![Listening::Tcp(first.into())];
    while sockets.len() < threads {
        let next = socket(bound)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        next.listen(BACKLOG)?;
        sockets.push(Listening::Tcp(next.into()));
    }
    Ok((sockets, bound.to_string()))
}

/// Listens on a socket that is bound, and lets our own further ones join it. SO_REUSEPORT would let a second instance in as
/// well: it is asked for when this one listens. Binding alone does not tell of another that is bound and does not listen yet.
fn claim(first: &socket2::Socket) -> io::Result<()> {
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!matches!(address, SocketAddr::V6(all) if all.ip().is_unspecified()))?;
    }
    prepare(&socket)?;
    Ok(socket)
}

/// What every TCP socket that we listen on is like. Accepted connections inherit it: no waiting for acknowledgements, and an
/// end to those whose client is gone without a word.
pub(super) fn prepare(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
    socket.set_nonblocking(true)
}

fn unix(path: &Path, threads: usize, permissions: Option<Permissions>) -> io::Result<(Vec<Listening>, String)> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens.
    if let Some(permissions) = permissions {
        std::fs::set_permissions(path, permissions)?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from(socket);
    let mut sockets = Vec::with_capacity(threads);
    for _ in 1..threads {
        sockets.push(Listening::Unix(listener.try_clone()?));
    }
    sockets.push(Listening::Unix(listener));
    Ok((sockets, format!("unix:{}", path.display())))
}

/// Removes a socket that nobody listens on any more. Anything else at the path stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is not a socket is at this path"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(Errno::ADDRINUSE.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn open(address: &Bind, threads: usize) -> Result<(Vec<Listening>, String), BindError> {
        let (sockets, mut addresses) = bind(address, &Inherited::default(), threads)?;
        Ok((sockets, addresses.remove(0)))
    }

    fn loopback() -> Bind {
        Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    #[test]
    fn every_thread_has_a_socket_on_the_same_port() {
        let (sockets, address) = open(&loopback(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            let Listening::Tcp(socket) = socket else { panic!("not TCP") };
            assert_eq!(socket.local_addr().unwrap().to_string(), address);
        }
    }

    #[test]
    fn a_second_instance_on_the_same_address_fails() {
        let (_held, address) = open(&loopback(), 2).unwrap();
        let error = open(&Bind::parse(&address).unwrap(), 2).unwrap_err();
        assert!(error.message.starts_with("address_in_use"), "{error}");
    }

    #[test]
    fn of_two_instances_that_have_both_bound_an_address_one_gets_it() {
        let late = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        late.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = late.local_addr().unwrap().as_socket().unwrap();
        let held = tcp(address, 2).unwrap();
        assert_eq!(held.0.len(), 2);
        assert_eq!(Errno::from_io_error(&claim(&late).unwrap_err()), Some(Errno::ADDRINUSE));
    }

    #[test]
    fn an_address_within_one_that_somebody_has_is_in_use() {
        let (_held, address) = open(&loopback(), 1).unwrap();
        let port = address.rsplit_once(':').unwrap().1;
        // All addresses, by which one more of this machine's own is asked for.
        let error = open(&Bind::parse(port).unwrap(), 2).unwrap_err();
        assert!(error.message.starts_with("address_in_use"), "{error}");
    }

    #[test]
    fn a_bare_port_is_listened_on_for_both_families() {
        let (sockets, address) = open(&Bind::parse("0").unwrap(), 1).unwrap();
        let port = address.parse::<SocketAddr>().unwrap().port();
        let Listening::Tcp(listener) = &sockets[0] else { panic!("not TCP") };
        listener.set_nonblocking(false).unwrap();
        // There are systems without IPv6.
        let v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok().map(|_| IpAddr::from(Ipv6Addr::LOCALHOST));
        for client in std::iter::once(IpAddr::from(Ipv4Addr::LOCALHOST)).chain(v6) {
            let connected = std::net::TcpStream::connect((client, port));
            let connected = connected.unwrap_or_else(|error| panic!("{client} on {address}: {error}"));
            let (_, peer) = listener.accept().unwrap();
            assert_eq!((peer.ip().to_canonical(), peer.port()), (client, connected.local_addr().unwrap().port()));
        }
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = Bind::Unix(folder.path().join("s"));
        let held = open(&path, 2).unwrap();
        assert!(open(&path, 1).unwrap_err().message.starts_with("address_in_use"));
        drop(held);
        open(&path, 1).unwrap();
    }

    #[test]
    fn a_private_unix_socket_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _held = bind_private(&Bind::Unix(path.clone()), &Inherited::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn a_file_at_the_path_of_a_unix_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(open(&Bind::Unix(path.clone()), 1).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "data");
    }
}
