//! `listeners`: types and defaults.

use std::path::PathBuf;

use super::Bind;

/// One `listeners` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// The address as the operator wrote it: the listener's name in logs and metrics.
    pub name: String,
    /// Where to listen.
    pub bind: Bind,
    /// Absent: plain HTTP/1.1 and prior-knowledge HTTP/2.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is offered (by ALPN with TLS, by prior knowledge without). Default true.
    pub http2: bool,
    /// Whether every connection begins with a PROXY header, which trusted peers alone may send. Default false.
    pub proxy_protocol: bool,
    /// When set, every request of a known host is answered with a redirect to https on this port.
    pub redirect_https: Option<u16>,
}

/// `listeners[].tls`. At least one of `certificates` and `local` is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Chosen by SNI; the first one also serves clients without a matching name.
    pub certificates: Vec<Certificate>,
    /// Certificates for localhost from Hostler's own local CA, for development.
    pub local: bool,
    /// The oldest version accepted. Default TLS 1.2.
    pub min_version: TlsVersion,
    /// Whether clients are asked for certificates. Default: they are not.
    pub client_auth: Option<ClientAuth>,
    /// Whether a handshake is refused that asks for a name without a certificate, or for none. Default false: it gets the
    /// first certificate.
    pub strict_sni: bool,
}

/// `client_ca` and `client_auth`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// The authorities that sign clients' certificates, in PEM.
    pub ca: PathBuf,
    /// `client_auth: require`, the default: without a good certificate there is no connection. `request`: without any there
    /// is one, and a bad one is refused all the same.
    pub is_required: bool,
}

/// A certificate chain and its key, both PEM files that were readable and matched when the file was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key of the leaf (PKCS#8, PKCS#1 or SEC1).
    pub private_key: PathBuf,
    /// An OCSP response about the leaf, in DER, that somebody else keeps fresh. It need not be there yet.
    pub ocsp: Option<PathBuf>,
}

/// `listeners[].tls.min_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}
