//! What handshakes begin with: made of what was read, as a whole, for many threads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::by_name::ByName;
use super::{TlsError, TlsShared};
use crate::config::{Tls, TlsVersion};

/// A certificate that clients are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its first name or address, or else its file.
    pub name: String,
    /// Its file; `None`: it is one of the local CA.
    pub cert: Option<PathBuf>,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

/// How clients' certificates are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clients<'a> {
    pub(super) authorities: &'a RootCertStore,
    /// Whether there is no connection without one.
    pub(super) is_required: bool,
}

/// The TLS of a listener as it is now.
pub struct InForce {
    config: Arc<ServerConfig>,
    names: Arc<ByName>,
    is_strict: bool,
    shown: Vec<Shown>,
}

impl InForce {
    pub(super) fn new(
        tls: &Tls,
        http2: bool,
        shared: &TlsShared,
        names: ByName,
        clients: Option<Clients<'_>>,
        shown: Vec<Shown>,
    ) -> Result<Self, TlsError> {
        if names.is_empty() {
            return Err(TlsError::NothingToShow);
        }
        let names = Arc::new(names);
        let config = server_config(tls, http2, shared, &names, clients)?;
        Ok(Self { config: Arc::new(config), names, is_strict: tls.strict_sni, shown })
    }

    /// What the TLS library goes by.
    #[must_use]
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether whoever asks for a name without a certificate, or for none, is refused.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether there is a certificate for this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.has(name)
    }

    /// The OCSP response that goes out with the certificate for a name.
    #[cfg(test)]
    pub(super) fn ocsp_of(&self, name: &str) -> Option<Vec<u8>> {
        self.names.pick(Some(name), &[])?.ocsp.clone()
    }

    /// What clients are shown.
    #[must_use]
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce").field("shown", &self.shown).finish_non_exhaustive() // no keys in logs
    }
}

fn server_config(
    tls: &Tls,
    http2: bool,
    shared: &TlsShared,
    names: &Arc<ByName>,
    clients: Option<Clients<'_>>,
) -> Result<ServerConfig, TlsError> {
    let verifier = match clients {
        Some(Clients { authorities, is_required }) => {
            let authorities = Arc::new(authorities.clone());
            let builder = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&shared.provider));
            let builder = if is_required { builder } else { builder.allow_unauthenticated() };
            builder.build().map_err(|error| TlsError::Crypto(rustls::Error::General(error.to_string())))?
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&shared.provider))
        .with_protocol_versions(versions(tls.min_version))
        .map_err(TlsError::Crypto)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(names) as _);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    match clients {
        None => config.ticketer = Arc::clone(&shared.ticketer),
        // A ticket would outlive the certificate, the authority, and the listener's wish to see one. Those of other
        // listeners cannot be read here either.
        Some(_) => config.send_tls13_tickets = 0,
    }
    Ok(config)
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_2[..1],
    }
}
