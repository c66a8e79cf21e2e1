//! What the handshakes of one listener begin with. It may change while connections come, without a reload: certificates
//! are renewed more often than configurations.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::{TlsError, TlsShared, server_config};
use crate::config::Tls;

/// The TLS of a listener, for many threads.
pub struct ServerTls {
    tls: Tls,
    http2: bool,
    in_force: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Reads the certificates. Reads files, so it is not for the threads that serve.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn read(tls: &Tls, http2: bool, shared: &TlsShared) -> Result<Self, TlsError> {
        let in_force = ArcSwap::new(server_config(tls, http2, shared)?);
        Ok(Self { tls: tls.clone(), http2, in_force })
    }

    /// Reads the same files again. Handshakes that have begun end with what they began with.
    ///
    /// # Errors
    /// What is wrong with which file; nothing has changed then.
    pub fn read_again(&self, shared: &TlsShared) -> Result<(), TlsError> {
        self.in_force.store(server_config(&self.tls, self.http2, shared)?);
        Ok(())
    }

    /// What a handshake that begins now goes by.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.in_force.load_full()
    }
}
