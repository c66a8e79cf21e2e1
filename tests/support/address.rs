//! TCP and unix addresses, and streams to either.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::LIMIT;
use super::worker::Protocol;

/// Where somebody listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// `127.0.0.1:80` or `unix:/path`, as logs and configurations have them.
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text.split_once("://").map_or(text, |(_, rest)| rest).parse().expect(text)),
        }
    }

    /// As `endpoints` in a configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The same for who speaks uwsgi there.
    pub(crate) fn uwsgi_endpoint(&self) -> String {
        match self {
            Self::Tcp(address) => format!("uwsgi://{address}"),
            Self::Unix(path) => format!("uwsgi+unix:{}", path.display()),
        }
    }

    /// The same for who speaks this.
    pub(crate) fn endpoint_in(&self, protocol: Protocol) -> String {
        match protocol {
            Protocol::Http1 => self.endpoint(),
            Protocol::Uwsgi => self.uwsgi_endpoint(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp(address) => address.port(),
            Self::Unix(path) => panic!("{} has no port", path.display()),
        }
    }

    pub(crate) fn connect(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(address) => Stream::Tcp(TcpStream::connect(address)?),
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.prepare();
        Ok(stream)
    }

    /// TCP from one of this machine's own addresses.
    pub(crate) fn connect_from(&self, source: [u8; 4]) -> io::Result<Stream> {
        let Self::Tcp(address) = self else { panic!("{self} is not TCP") };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&(*address).into())?;
        let stream = Stream::Tcp(socket.into());
        stream.prepare();
        Ok(stream)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection, either end. Reads and writes fail after [`LIMIT`].
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn prepare(&self) {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
            }
        }
    }

    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }

    /// An error means that the other side has gone already.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Waits until there is something to be read, or the end.
    pub(crate) fn peek(&self) {
        let (mut byte, flags) = ([0_u8], rustix::net::RecvFlags::PEEK);
        // An error is an end as well.
        let _ = match self {
            Self::Tcp(stream) => rustix::net::recv(stream, &mut byte[..], flags),
            Self::Unix(stream) => rustix::net::recv(stream, &mut byte[..], flags),
        };
    }

    /// The next close of this socket sends RST instead of FIN. Unix sockets reset when unread bytes are left.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
