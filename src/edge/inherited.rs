//! Listening sockets that somebody else has opened for this process (sd_listen_fds(3)): `bind: systemd:NAME`.
//!
//! systemd keeps them open while the service restarts, so that no connection is refused meanwhile, and opens ports below
//! 1024 with its own rights. They are taken once, when the process starts, and kept to its end: a reload may leave a
//! listener out and take it up again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, SockRef, Type};

use super::listener::{BindError, Listening, prepare};

/// SD_LISTEN_FDS_START
const FIRST: RawFd = 3;
/// More than anybody passes.
const MOST: RawFd = 1024;
/// What systemd calls a socket whose unit gives it no name.
const UNNAMED: &str = "unknown";

/// The sockets that this process was started with.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Passed>);

/// One of them.
#[derive(Debug)]
struct Passed {
    name: String,
    socket: Result<Listening, String>,
}

impl Inherited {
    /// Takes them, as the environment tells (`LISTEN_FDS`, `LISTEN_FDNAMES`, and `LISTEN_PID`, which says for whom they are).
    /// To be called before this process opens anything itself; there is nothing to take a second time.
    #[must_use]
    pub fn take() -> Self {
        static IS_TAKEN: AtomicBool = AtomicBool::new(false);
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let is_for_us = number("LISTEN_PID") == Some(std::process::id());
        if IS_TAKEN.swap(true, Ordering::Relaxed) || !is_for_us {
            return Self::default();
        }
        let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0).min(MOST);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self::named(&names, (FIRST..FIRST + count).map(|descriptor| own(descriptor).and_then(understood)))
    }

    fn named(names: &str, sockets: impl IntoIterator<Item = Result<Listening, String>>) -> Self {
        let mut names = names.split(':');
        let passed = sockets.into_iter().map(|socket| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or(UNNAMED).to_owned();
            Passed { name, socket }
        });
        Self(passed.collect())
    }

    /// All sockets of this name, each for `threads` threads, and their addresses.
    ///
    /// # Errors
    /// There is none of this name, or one is not a stream socket that listens.
    pub fn open(&self, name: &str, threads: usize) -> Result<(Vec<Listening>, Vec<String>), BindError> {
        let failed = |message: String| BindError { address: format!("systemd:{name}"), message };
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for passed in self.0.iter().filter(|passed| passed.name == name) {
            let socket = passed.socket.as_ref().map_err(|why| failed(why.clone()))?;
            let again = |error: io::Error| failed(format!("the socket cannot be used: {error}"));
            addresses.push(socket.address().map_err(again)?);
            for _ in 0..threads {
                sockets.push(socket.try_clone().map_err(again)?);
            }
        }
        if sockets.is_empty() { Err(failed(self.missing())) } else { Ok((sockets, addresses)) }
    }

    /// What was passed instead.
    fn missing(&self) -> String {
        if self.0.is_empty() {
            return "this process was started without sockets: start it by its socket unit (systemctl start hostler.socket), \
                    with FileDescriptorName= as its name, or write a port"
                .into();
        }
        let mut counts = BTreeMap::<&str, usize>::new();
        self.0.iter().for_each(|passed| *counts.entry(&passed.name).or_default() += 1);
        let mut message = "systemd has passed no socket of that name. Those that it has passed:".to_owned();
        for (i, (name, count)) in counts.into_iter().enumerate() {
            // Writing to memory does not fail.
            let _ = write!(message, "{} {name}", if i > 0 { "," } else { "" });
            if count > 1 {
                let _ = write!(message, " ({count} times)");
            }
        }
        message.push_str(". Names are set with FileDescriptorName= in the socket unit");
        message
    }
}

/// Makes a descriptor that was passed to this process its own.
fn own(descriptor: RawFd) -> Result<OwnedFd, String> {
    let what = std::fs::read_link(format!("/proc/self/fd/{descriptor}"));
    if !what.is_ok_and(|what| what.as_os_str().as_encoded_bytes().starts_with(b"socket:")) {
        return Err(format!("descriptor {descriptor}, which LISTEN_FDS counts, is not a socket"));
    }
    // SAFETY: it is open, as the system has just said. Nobody else in this process owns it: LISTEN_PID says that it was
    // opened for this process before it began, `Inherited::take` runs before anything else is opened, and comes here once
    // for each descriptor in the life of the process.
    #[allow(unsafe_code)]
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)
        .map_err(|error| format!("descriptor {descriptor} cannot be kept: {error}"))?;
    Ok(owned)
}

fn understood(descriptor: OwnedFd) -> Result<Listening, String> {
    let reference = SockRef::from(&descriptor);
    let is_stream = reference.r#type().is_ok_and(|kind| kind == Type::STREAM);
    let domain = reference.domain().ok().filter(|_| is_stream);
    match domain {
        Some(Domain::UNIX) => usable(Listening::Unix(UnixListener::from(descriptor))),
        Some(Domain::IPV4 | Domain::IPV6) => usable(Listening::Tcp(TcpListener::from(descriptor))),
        _ => Err("what systemd has passed is not a stream socket of TCP or of unix (ListenStream=)".into()),
    }
}

/// A socket that listens, set up as those are that we open.
fn usable(socket: Listening) -> Result<Listening, String> {
    let cannot = |error: io::Error| format!("what systemd has passed cannot be set up: {error}");
    let reference = match &socket {
        Listening::Tcp(socket) => SockRef::from(socket),
        Listening::Unix(socket) => SockRef::from(socket),
    };
    if !reference.is_listener().map_err(cannot)? {
        return Err("what systemd has passed is a connection, not a socket that listens: Accept= must be no".into());
    }
    match &socket {
        Listening::Tcp(_) => prepare(&reference).map_err(cannot)?,
        Listening::Unix(_) => reference.set_nonblocking(true).map_err(cannot)?,
    }
    Ok(socket)
}

impl Listening {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(TcpListener::try_clone(socket)?),
            Self::Unix(socket) => Self::Unix(UnixListener::try_clone(socket)?),
        })
    }

    /// Where it listens, as `bind` is written.
    fn address(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(socket) => socket.local_addr()?.to_string(),
            Self::Unix(socket) => match socket.local_addr()?.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => "unix:".into(),
            },
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn tcp() -> Listening {
        Listening::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    #[test]
    fn every_thread_has_every_socket_of_a_name() {
        let inherited = Inherited::named("web:admin:web", [usable(tcp()), usable(tcp()), usable(tcp())]);
        let (sockets, addresses) = inherited.open("web", 3).unwrap();
        assert_eq!((sockets.len(), addresses.len()), (6, 2));
        let (sockets, _) = inherited.open("admin", 1).unwrap();
        assert_eq!(sockets.len(), 1);
        assert_eq!(inherited.open("web", 3).unwrap().1, addresses, "a reload may take them again");
    }

    #[test]
    fn a_name_that_was_not_passed_is_told_with_those_that_were() {
        let inherited = Inherited::named("web::web", [usable(tcp()), usable(tcp()), usable(tcp()), usable(tcp())]);
        let error = inherited.open("https", 1).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on systemd:https: "), "{error}");
        assert!(error.contains("unknown (2 times), web (2 times)."), "{error}");
        let error = Inherited::default().open("https", 1).unwrap_err();
        assert!(error.message.contains("was started without sockets"), "{error}");
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let passed = understood(OwnedFd::from(connection));
        let inherited = Inherited::named("web", [passed]);
        let error = inherited.open("web", 1).unwrap_err();
        assert!(error.message.contains("Accept= must be no"), "{error}");
        let datagrams = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(understood(datagrams).unwrap_err().contains("not a stream socket"));
    }

    #[test]
    fn what_is_passed_is_tcp_or_unix() {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("s")).unwrap();
        let tcp = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        assert!(matches!(understood(OwnedFd::from(unix)), Ok(Listening::Unix(_))));
        assert!(matches!(understood(OwnedFd::from(tcp)), Ok(Listening::Tcp(_))));
    }

    #[test]
    fn a_descriptor_that_is_no_socket_is_left_alone() {
        let file = tempfile::tempfile().unwrap();
        assert!(own(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap_err().contains("is not a socket"));
        assert!(own(RawFd::MAX).is_err());
    }
}
