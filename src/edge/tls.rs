//! TLS towards clients (`listeners[].tls`): from certificate files to the configuration of a handshake.
//!
//! TLS 1.2 and 1.3 through rustls on aws-lc-rs, named explicitly everywhere: a process default would depend on what
//! other crates of the tree enable. Resumption is by ticket alone, with one ticket key for the process
//! ([`TlsShared`]), so that it outlives reloads and holds on every thread and costs no memory per client. Early data is
//! off: a replayed request would reach the app. Listeners that ask clients for certificates give no tickets, because a
//! resumed handshake looks at no certificate.
//!
//! Files may change at any time ([`ServerTls::look`]): what can be used is shown from the next handshake on, without a
//! reload; what cannot leaves in force what was there.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::{HandshakeKind, ProtocolVersion};

use super::local_ca::{LocalCa, LocalCaError};
use crate::observe::metrics::{HandshakeResult, HandshakeVersion};

mod accept;
mod by_name;
mod error;
mod files;
mod in_force;
mod settle;
mod sources;
#[cfg(test)]
mod tests;

pub use accept::{Accepted, Refused, accept};
pub use error::TlsError;
pub use in_force::{InForce, Shown};
pub use sources::{Change, Looked, ServerTls};

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
