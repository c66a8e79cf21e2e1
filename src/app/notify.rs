//! What systemd is told of the state of this process (sd_notify(3)): `Type=notify` waits for it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Where to tell; nothing where nobody has asked (`NOTIFY_SOCKET`).
#[derive(Debug, Default)]
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// As the environment says. A socket that cannot be used is told in the log: the service manager would wait in vain.
    pub(super) fn from_environment() -> Self {
        let Some(place) = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
            return Self::default();
        };
        Self::to(&place).unwrap_or_else(|error| {
            tracing::warn!("the service manager cannot be told of our state at {}: {error}", place.display());
            Self::default()
        })
    }

    fn to(place: &OsStr) -> io::Result<Self> {
        let address = match place.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(place)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Every listener is open, after the start or a reload.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", line(status)));
    }

    /// The configuration is about to be read again. [`Self::ready`] ends it, whatever comes of it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reads its configuration again"));
    }

    /// It ends.
    pub(super) fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\n{}", line(status)));
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!("the service manager was not told `{}`: {error}", state.lines().next().unwrap_or_default());
        }
    }
}

/// What `systemctl status` shows: one line.
fn line(status: &str) -> String {
    format!("STATUS={}", status.lines().next().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        notifier.ready("Serves 2 listeners\nand more");
        assert_eq!(received(&manager), "READY=1\nSTATUS=Serves 2 listeners");
        notifier.reloading();
        let text = received(&manager);
        let micros = text.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(text.starts_with("RELOADING=1\n") && micros.parse::<u64>().unwrap() > 0, "{text}");
        notifier.stopping("Drains");
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=Drains");
    }

    #[test]
    fn an_abstract_name_is_reached_too() {
        let name = format!("hostler-notify-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::to(OsStr::new(&format!("@{name}"))).unwrap().ready("");
        assert_eq!(received(&manager), "READY=1\nSTATUS=");
    }

    #[test]
    fn nobody_who_listens_is_no_failure() {
        assert!(Notifier::to(OsStr::new("vsock:2:1234")).is_err());
        let folder = tempfile::tempdir().unwrap();
        Notifier::to(folder.path().join("gone").as_os_str()).unwrap().ready("");
        Notifier::default().ready("");
    }
}
