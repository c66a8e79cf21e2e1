//! TLS towards workers (`https://` endpoints): whom we believe, which name we ask for, and the handshake.
//!
//! TLS 1.2 and 1.3 through rustls on aws-lc-rs, named explicitly as towards clients. All threads share the tickets for
//! resumption of an endpoint. Early data is off.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::config::{Authority, UpstreamTls};
use crate::error::{Error, Reason};
use crate::runtime::{Socket, Stream};

/// How an endpoint's TLS is spoken.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the certificates of those who may have signed the endpoint's.
    pub(super) fn compile(config: &UpstreamTls, host: &str) -> Result<Self, TlsError> {
        let name = config.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName(name.to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Crypto)?;
        let builder = if config.verify {
            builder.with_root_certificates(match &config.ca {
                Authority::System => system_roots()?,
                Authority::File(path) => roots_of(path)?,
            })
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// What the worker does to the connection meanwhile is told apart from what is wrong with its TLS: that passes.
    pub(super) async fn handshake(&self, socket: Socket) -> Result<Stream, Error> {
        match self.connector.connect(self.name.clone(), socket).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(TlsStream::Client(stream)))),
            Err(source) if source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Err(Error::new(Reason::TlsFailed).source(source))
            }
            Err(source) => {
                let is_end = source.kind() == io::ErrorKind::UnexpectedEof;
                let reason = if is_end { Reason::EofBeforeHead } else { Reason::ResetBeforeHead };
                Err(Error::new(reason).detail("in the TLS handshake").source(source))
            }
        }
    }
}

/// Whom the system trusts. Single certificates that cannot be read are common there, and left out.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots(found.errors.first().map(ToString::to_string)));
    }
    Ok(roots)
}

fn roots_of(path: &PathBuf) -> Result<RootCertStore, TlsError> {
    let bytes = std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.clone(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|source| TlsError::BadPem { path: path.clone(), source })?;
        roots.add(certificate).map_err(|source| TlsError::BadCertificate { path: path.clone(), source })?;
    }
    if roots.is_empty() { Err(TlsError::NoCertificate(path.clone())) } else { Ok(roots) }
}

/// `verify: false`: whoever answers is believed, as long as it has the key to the certificate that it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why an upstream's TLS cannot be set up.
#[derive(Debug)]
pub enum TlsError {
    /// Neither a host name nor an address.
    BadName(String),
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
    /// A certificate in a file cannot be used.
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A file has no certificate in it.
    NoCertificate(PathBuf),
    /// The system trusts nobody; why, where that is known.
    NoSystemRoots(Option<String>),
    /// The crypto library.
    Crypto(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => {
                write!(f, "a certificate cannot be for the name `{name}`; set tls.server_name to the one that it has")
            }
            Self::Unreadable { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::BadPem { path, source } => write!(f, "{} is broken PEM: {source}", path.display()),
            Self::BadCertificate { path, source } => {
                write!(f, "a certificate in {} cannot be used: {source}", path.display())
            }
            Self::NoCertificate(path) => write!(f, "{} holds no certificate; it must hold PEM", path.display()),
            Self::NoSystemRoots(why) => {
                f.write_str(
                    "no certificate authority is installed (Debian: ca-certificates); set tls.ca to a PEM file",
                )?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::Crypto(error) => write!(f, "the crypto library refuses: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::BadPem { source, .. } => Some(source),
            Self::BadCertificate { source, .. } | Self::Crypto(source) => Some(source),
            Self::BadName(_) | Self::NoCertificate(_) | Self::NoSystemRoots(_) => None,
        }
    }
}
