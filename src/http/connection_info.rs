//! One connection of a client: its ends, whose bytes come over it, and what that says of where the client has connected to.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::forwarded::Scheme;
use crate::config::TrustedProxies;

/// What all exchanges of a connection have in common.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The listener's address as the operator wrote it.
    pub listener: Arc<str>,
    /// The other end of the socket; `None` on unix sockets.
    pub peer: Option<SocketAddr>,
    /// Our end of the socket; `None` on unix sockets.
    pub local: Option<SocketAddr>,
    /// Whose bytes they are that come over it.
    pub sender: Sender,
    /// Whether the client's bytes come over TLS.
    pub tls: bool,
    /// The subject of the certificate that the client has shown (RFC 4514, printable ASCII), and that was found good.
    pub client_subject: Option<Box<str>>,
    /// Set on a listener that only redirects: the port where https is served.
    pub redirect_https: Option<u16>,
    /// What [`Self::source_text`] has written.
    source_text: OnceCell<Box<str>>,
}

impl ConnectionInfo {
    /// A connection of plain HTTP on this listener, whose ends have no address: as over a unix socket.
    #[must_use]
    pub fn new(listener: impl Into<Arc<str>>) -> Self {
        Self {
            listener: listener.into(),
            peer: None,
            local: None,
            sender: Sender::Peer,
            tls: false,
            client_subject: None,
            redirect_https: None,
            source_text: OnceCell::new(),
        }
    }

    /// The same between these ends of a socket.
    #[must_use]
    pub fn between(mut self, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        (self.peer, self.local) = (peer, local);
        self
    }

    /// The same with TLS, or without it.
    #[must_use]
    pub fn over_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// The same with somebody else's bytes.
    #[must_use]
    pub fn sent_by(mut self, sender: Sender) -> Self {
        self.sender = sender;
        self
    }

    /// Who speaks over it: the peer, or whom the peer has named for himself. `None` on unix sockets.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self.sender {
            Sender::Behind { source, .. } => Some(source),
            Sender::Peer | Sender::Hidden => self.peer,
        }
    }

    /// The address of who speaks, as text: written once for all the requests of a connection.
    #[must_use]
    pub fn source_text(&self) -> Option<&str> {
        let source = self.source()?;
        Some(self.source_text.get_or_init(|| source.ip().to_canonical().to_string().into()))
    }

    /// Whether the one who speaks is trusted: not the peer, when that only passes bytes on.
    #[must_use]
    pub fn is_trusted(&self, trusted: &TrustedProxies) -> bool {
        match self.sender {
            Sender::Peer => trusted.is_trusted(self.peer.map(|peer| peer.ip())),
            Sender::Behind { source, .. } => trusted.is_trusted(Some(source.ip())),
            Sender::Hidden => false,
        }
    }

    /// Where the one who speaks has connected to. `None` on unix sockets.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.sender {
            Sender::Behind { destination, .. } => Some(destination),
            Sender::Peer | Sender::Hidden => self.local,
        }
    }

    /// What it is itself, whatever is said of the client: https where TLS ends here, or where whoever passes its bytes on
    /// has said that it ended there.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        let ended_before = matches!(self.sender, Sender::Behind { tls: true, .. });
        if self.tls || ended_before { Scheme::Https } else { Scheme::Http }
    }

    /// The port that was connected to; the scheme's own on a unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.destination().map_or_else(|| self.scheme().default_port(), |to| to.port())
    }
}

/// Whose bytes come over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sender {
    /// The one at the other end of the socket.
    #[default]
    Peer,
    /// Somebody whom a trusted peer has named in a PROXY header.
    Behind {
        /// His address.
        source: SocketAddr,
        /// Where he has connected to.
        destination: SocketAddr,
        /// Whether he has done so over TLS, as far as the peer says.
        tls: bool,
    },
    /// Somebody whom a trusted peer cannot name.
    Hidden,
}
