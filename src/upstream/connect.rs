//! Opening a connection to an endpoint, and the reason when that fails.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{EndpointAddress, Place};
use crate::error::{Error, Reason, Retry};
use crate::runtime::{Deadline, Socket};

/// Connects within `timeout`. Nothing has been sent, so that every failure may be retried.
pub(super) async fn connect(address: &EndpointAddress, timeout: Duration) -> Result<Socket, Error> {
    let connected = async {
        match &address.place {
            Place::Unix(path) => unix(path).map(Socket::Unix).map_err(|error| failure(error, true)),
            Place::Tcp { host, port } => tcp(host, *port).await,
        }
    };
    let result = match Deadline::new().bound(timeout, connected).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Reason::ConnectTimeout)),
    };
    result.map_err(|error| error.retry(Retry::Unsent).detail(address.to_string()))
}

/// A unix socket connects at once or not at all, so that nobody waits for an event.
fn unix(path: &Path) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    UnixStream::from_std(socket.into())
}

async fn tcp(host: &str, port: u16) -> Result<Socket, Error> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| Error::new(Reason::NameNotResolved).source(source))?
        .collect();
    let mut last = Error::new(Reason::NameNotResolved);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Fails only on a socket that is dead already, which the first write will tell.
                let _ = stream.set_nodelay(true);
                return Ok(Socket::Tcp(stream));
            }
            Err(error) => last = failure(error, false),
        }
    }
    Err(last)
}

fn failure(source: io::Error, is_unix: bool) -> Error {
    let reason = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNREFUSED) => Reason::ConnectRefused,
        Some(Errno::NOENT | Errno::NOTDIR) => Reason::SocketMissing,
        Some(Errno::ACCESS | Errno::PERM) => Reason::SocketPermission,
        // On a unix socket: the listen backlog. On TCP: no local port is left.
        Some(Errno::AGAIN) if is_unix => Reason::BacklogFull,
        Some(Errno::TIMEDOUT) => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    };
    Error::new(reason).source(source)
}
