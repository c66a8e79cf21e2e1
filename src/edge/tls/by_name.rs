//! Which certificate a client is shown.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::edge::local_ca::Subdomains;

/// Names below localhost that are remembered. Who asks for more only makes us work: this is for development.
const LOCAL_NAMES: usize = 256;

/// Certificates by the name that the client asks for (SNI): the exact name, else `*.` and the name without its first
/// label, else one of the local CA where the name is below localhost, else the certificate that was added first. Several for one name, say ECDSA and RSA: the first whose signature
/// the client understands.
#[derive(Default)]
pub(super) struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Without the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Option<Arc<CertifiedKey>>,
    local: Option<Arc<Local>>,
}

/// Certificates for names below localhost, made at their first use.
pub(super) struct Local {
    subdomains: Subdomains,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl ByName {
    /// Adds a certificate under its names, which are in lower case.
    pub(super) fn add(&mut self, key: Arc<CertifiedKey>, names: &[String]) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.to_owned()).or_default().push(Arc::clone(&key));
        }
        self.first.get_or_insert(key);
    }

    /// Makes certificates for names below localhost as they are asked for.
    pub(super) fn add_local(&mut self, local: Arc<Local>) {
        self.local = Some(local);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether there is a certificate for this name, or one can be made.
    pub(super) fn has(&self, name: &str) -> bool {
        self.named(name).is_some() || self.local.as_ref().is_some_and(|local| local.get(name).is_some())
    }

    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent)
    }

    pub(super) fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let Some(keys) = name.and_then(|name| self.named(name)) else {
            let local = || self.local.as_ref()?.get(name?);
            return local().or_else(|| self.first.clone());
        };
        let understood = keys.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        understood.or(keys.first()).cloned()
    }
}

impl Local {
    pub(super) fn new(subdomains: Subdomains) -> Self {
        Self { subdomains, made: Mutex::default() }
    }

    fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = made.get(name) {
            return Some(Arc::clone(key));
        }
        let (certificate, private_key) = match self.subdomains.make(name, SystemTime::now())? {
            Ok(signed) => signed,
            Err(error) => {
                tracing::warn!("the local CA cannot make a certificate for {name}: {error}");
                return None;
            }
        };
        let key = Arc::new(CertifiedKey::from_der(vec![certificate], private_key, &provider()).ok()?);
        if made.len() >= LOCAL_NAMES {
            made.clear();
        }
        made.insert(name.to_owned(), Arc::clone(&key));
        Some(key)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        self.pick(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName")
            .field("exact", &self.exact.keys())
            .field("wildcard", &self.wildcard.keys())
            .finish_non_exhaustive()
    }
}
