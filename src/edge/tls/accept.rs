//! The server's side of a handshake, and why it comes to nothing.

use std::fmt;
use std::io;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::ServerTls;
use crate::observe::metrics::HandshakeResult;
use crate::x509;

/// A fatal alert `unrecognized_name` (RFC 8446, 5.1 and 6), in plain text as nothing has been agreed on yet.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// A handshake that has succeeded.
pub struct Accepted<IO> {
    /// What comes and goes over it.
    pub stream: TlsStream<IO>,
    /// The subject of the client's certificate (RFC 4514), where one was asked for and shown.
    pub client_subject: Option<Box<str>>,
}

/// Why a handshake has failed.
#[derive(Debug)]
pub enum Refused {
    /// The client has asked for a name without a certificate, or for none (`strict_sni`).
    Name(Option<Box<str>>),
    /// The client has shown no certificate, or one that is not good.
    ClientCertificate(String),
    /// Anything else, of either side.
    Other(io::Error),
}

impl Refused {
    /// What is counted.
    #[must_use]
    pub const fn result(&self) -> HandshakeResult {
        match self {
            Self::Name(_) => HandshakeResult::UnrecognizedName,
            Self::ClientCertificate(_) => HandshakeResult::ClientCertificate,
            Self::Other(_) => HandshakeResult::Failed,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(Some(name)) => write!(f, "there is no certificate for {name} (strict_sni)"),
            Self::Name(None) => f.write_str("the client names no server (strict_sni)"),
            Self::ClientCertificate(why) => write!(f, "the client's certificate: {why}"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(why @ (rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_))) => {
                Self::ClientCertificate(why.to_string())
            }
            _ => Self::Other(error),
        }
    }
}

/// Shakes hands with whoever is at the other end.
///
/// # Errors
/// Why there is no connection; the client has heard of it as far as TLS has words for it.
pub async fn accept<IO>(tls: &ServerTls, io: IO) -> Result<Accepted<IO>, Refused>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let in_force = tls.current();
    let config = in_force.config().clone();
    let stream = if in_force.is_strict() {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        if !name.as_deref().is_some_and(|name| in_force.has(name)) {
            let mut io = start.io;
            // An error is a client that has left.
            let _ = io.write_all(UNRECOGNIZED_NAME).await;
            let _ = io.shutdown().await;
            return Err(Refused::Name(name.map(String::into_boxed_str)));
        }
        start.into_stream(config).await?
    } else {
        TlsAcceptor::from(config).accept(io).await?
    };
    let client_subject = client_subject(&stream)?;
    Ok(Accepted { stream, client_subject })
}

/// Who the client is by its certificate, which has been found good.
fn client_subject<IO>(stream: &TlsStream<IO>) -> Result<Option<Box<str>>, Refused> {
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    match x509::subject(certificate) {
        Ok(subject) => Ok(Some(subject.into_boxed_str())),
        Err(why) => Err(Refused::ClientCertificate(why.to_string())),
    }
}
