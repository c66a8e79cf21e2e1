//! TLS towards clients (`listeners[].tls`): from certificate files to the configuration of a handshake.
//!
//! TLS 1.2 and 1.3 through rustls on aws-lc-rs, named explicitly everywhere: a process default would depend on what
//! other crates of the tree enable. Resumption is by ticket alone, with one ticket key for the process
//! ([`TlsShared`]), so that it outlives reloads and holds on every thread and costs no memory per client. Early data is
//! off: a replayed request would reach the app. Once clients can be asked for certificates, such listeners must give
//! no tickets, because a resumed handshake looks at no certificate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, SupportedProtocolVersion};

use super::local_ca::{LocalCa, LocalCaError};
use crate::config::{Certificate, Tls, TlsVersion};
use crate::observe::metrics::{HandshakeResult, HandshakeVersion};

mod by_name;
pub mod facts;
mod in_force;
#[cfg(test)]
mod tests;

use by_name::ByName;
use facts::{CertificateFacts, Malformed};
pub use in_force::ServerTls;

/// What all TLS listeners share for the life of the process, over reloads.
#[derive(Clone)]
pub struct TlsShared {
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    state_folder: Option<PathBuf>,
}

impl TlsShared {
    /// One per process; makes the first ticket key.
    ///
    /// # Errors
    /// The system's random source fails.
    pub fn new() -> Result<Self, TlsError> {
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Crypto)?;
        Ok(Self { provider: provider(), ticketer, state_folder: None })
    }

    /// The same with another folder for the local CA than [`super::local_ca::state_folder`] tells.
    #[must_use]
    pub fn with_state_folder(mut self, folder: PathBuf) -> Self {
        self.state_folder = Some(folder);
        self
    }

    fn local_ca(&self) -> Result<LocalCa, LocalCaError> {
        match &self.state_folder {
            Some(folder) => Ok(LocalCa::below(folder)),
            None => LocalCa::in_state_folder(),
        }
    }
}

/// The one crypto provider, never taken from the process' default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Reads the certificates and builds what a `TlsAcceptor` takes.
///
/// # Errors
/// What is wrong with which file.
fn server_config(tls: &Tls, http2: bool, shared: &TlsShared) -> Result<Arc<ServerConfig>, TlsError> {
    let mut certificates = ByName::default();
    for certificate in &tls.certificates {
        let (key, facts) = load(certificate, &shared.provider)?;
        certificates.add(Arc::new(key), &facts.dns_names);
    }
    if tls.local {
        add_local(&mut certificates, shared)?;
    }
    if certificates.is_empty() {
        return Err(TlsError::NothingToShow);
    }
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&shared.provider))
        .with_protocol_versions(versions(tls.min_version))
        .map_err(TlsError::Crypto)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(&shared.ticketer);
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_2[..1],
    }
}

fn add_local(certificates: &mut ByName, shared: &TlsShared) -> Result<(), TlsError> {
    let issued = shared.local_ca().and_then(|ca| ca.localhost(SystemTime::now())).map_err(TlsError::Local)?;
    let key = CertifiedKey::from_der(vec![issued.certificate], issued.private_key, &shared.provider);
    certificates.add(Arc::new(key.map_err(TlsError::Crypto)?), &issued.facts.dns_names);
    certificates.add_local(issued.subdomains);
    Ok(())
}

fn load(files: &Certificate, provider: &CryptoProvider) -> Result<(CertifiedKey, CertificateFacts), TlsError> {
    let chain = chain(&files.cert)?;
    let bad = |source| TlsError::BadCertificate { path: files.cert.clone(), source };
    let facts = CertificateFacts::of(chain.first().ok_or_else(|| TlsError::NoCertificate(files.cert.clone()))?);
    let facts = facts.map_err(bad)?;
    let key = private_key(&files.private_key)?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: files.cert.clone(), private_key: files.private_key.clone() }
        }
        rustls::Error::InvalidCertificate(_) => bad(Malformed("it is not an X.509 version 3 certificate")),
        source => TlsError::BadKey { path: files.private_key.clone(), source },
    })?;
    Ok((key, facts))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::BadPem { path: path.to_owned(), source })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| match source {
        pem::Error::NoItemsFound if is_encrypted(&bytes) => TlsError::EncryptedKey(path.to_owned()),
        pem::Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        _ if is_encrypted(&bytes) => TlsError::EncryptedKey(path.to_owned()),
        source => TlsError::BadPem { path: path.to_owned(), source },
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| memchr::memmem::find(pem, mark).is_some())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// What to count of a handshake that has succeeded.
#[must_use]
pub fn handshake_outcome(connection: &rustls::CommonState) -> (HandshakeVersion, HandshakeResult) {
    let result = match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => HandshakeResult::Resumed,
        _ => HandshakeResult::Full,
    };
    (negotiated(connection.protocol_version()), result)
}

/// The version as metrics name it; in logs [`HandshakeVersion::as_str`] of it.
#[must_use]
pub fn negotiated(version: Option<ProtocolVersion>) -> HandshakeVersion {
    match version {
        Some(ProtocolVersion::TLSv1_2) => HandshakeVersion::V1_2,
        Some(ProtocolVersion::TLSv1_3) => HandshakeVersion::V1_3,
        _ => HandshakeVersion::Unknown,
    }
}

/// Why a listener's TLS cannot be set up.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is broken PEM.
    BadPem {
        /// The file.
        path: PathBuf,
        /// What is broken.
        source: pem::Error,
    },
    /// A file has no certificate in it.
    NoCertificate(PathBuf),
    /// The first certificate of a file cannot be understood.
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Malformed,
    },
    /// A file has no private key in it.
    NoKey(PathBuf),
    /// A private key is protected by a passphrase.
    EncryptedKey(PathBuf),
    /// A private key is of a kind that cannot be used.
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        private_key: PathBuf,
    },
    /// Neither a certificate nor the local CA is configured.
    NothingToShow,
    /// The local CA.
    Local(LocalCaError),
    /// The crypto library.
    Crypto(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "cannot read {}: {source}", path.display())?;
                if source.kind() == io::ErrorKind::PermissionDenied {
                    f.write_str(
                        "; the user that Hostler runs as needs read permission on it and on the folders above",
                    )?;
                }
                Ok(())
            }
            Self::BadPem { path, source } => write!(f, "{} is broken PEM: {source}", path.display()),
            Self::NoCertificate(path) => {
                write!(
                    f,
                    "{} holds no certificate; it must hold the chain in PEM, the site's own first",
                    path.display()
                )
            }
            Self::BadCertificate { path, source } => {
                write!(f, "the first certificate in {} cannot be used: {source}", path.display())
            }
            Self::NoKey(path) => {
                write!(f, "{} holds no private key; it must hold one in PEM (PKCS#8, PKCS#1 or SEC1)", path.display())
            }
            Self::EncryptedKey(path) => {
                let path = path.display();
                write!(
                    f,
                    "the private key in {path} has a passphrase; remove it with `openssl pkey -in {path} -out FILE`"
                )
            }
            Self::BadKey { path, source } => {
                write!(f, "the private key in {} cannot be used: {source}", path.display())
            }
            Self::Mismatch { cert, private_key } => write!(
                f,
                "the private key in {} is not that of the first certificate in {}; name the files of one pair, and put \
                 the site's own certificate before the intermediate ones",
                private_key.display(),
                cert.display()
            ),
            Self::NothingToShow => f.write_str("there is no certificate; set `certificates`, or `local: true`"),
            Self::Local(error) => write!(f, "local CA: {error}"),
            Self::Crypto(error) => write!(f, "the crypto library refuses: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::BadPem { source, .. } => Some(source),
            Self::BadCertificate { source, .. } => Some(source),
            Self::BadKey { source, .. } | Self::Crypto(source) => Some(source),
            Self::Local(source) => Some(source),
            Self::NoCertificate(_)
            | Self::NoKey(_)
            | Self::EncryptedKey(_)
            | Self::Mismatch { .. }
            | Self::NothingToShow => None,
        }
    }
}
