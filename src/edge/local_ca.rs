//! A certificate authority of one's own, for development (`tls.local: true`): HTTPS on localhost without warnings.
//!
//! The root is made once and kept, because people tell their browsers to trust it; the certificate for localhost is
//! made anew when a third of its life is left. The root can vouch for nothing but localhost and the names below it, so
//! that a stolen key opens no other site of those who trust it.
//!
//! In the folder (only its owner may enter):
//!
//! | file            | what                                                       |
//! |-----------------|------------------------------------------------------------|
//! | `root.crt`      | the root, to be trusted                                    |
//! | `ca.pem`        | the same with its key                                      |
//! | `localhost.pem` | the certificate for localhost with its key                 |
//! | `lock`          | held by the one process that changes anything              |
//!
//! A key and its certificate share a file, and files are replaced as a whole: whoever reads finds a pair that fits.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;

use super::tls::provider;
use crate::x509::CertificateFacts;

mod folder;
mod issue;
#[cfg(test)]
mod tests;

pub use issue::{Signed, Subdomains};

use folder::{Folder, Pair};

const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// Browsers take at most 398 days. Long, because a process that is never restarted nor reloaded renews nothing.
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
/// With less left than this, the certificate for localhost is made anew.
const LEAF_RENEWAL: Duration = DAY.saturating_mul(397 / 3);
/// Certificates are valid from a while ago on, for clients whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(3600);

const LOCALHOST: &str = "localhost";
const ADDRESSES: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

const CA: &str = "ca.pem";
const LEAF: &str = "localhost.pem";
const ROOT: &str = "root.crt";

/// The local CA in its folder.
#[derive(Debug)]
pub struct LocalCa {
    folder: Folder,
}

/// The certificate for localhost, signed by the root.
pub struct Issued {
    /// The certificate; there are no intermediate ones.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub private_key: PrivateKeyDer<'static>,
    /// What it says.
    pub facts: CertificateFacts,
    /// More of them, for `shop.localhost` and the like.
    pub subdomains: Subdomains,
}

impl LocalCa {
    /// The local CA in the [`state_folder`] of the user who runs this. Touches nothing yet.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn in_state_folder() -> Result<Self, LocalCaError> {
        state_folder().map(|folder| Self::below(&folder))
    }

    /// The local CA in the folder `local-ca` of a state folder. Touches nothing yet.
    #[must_use]
    pub fn below(state_folder: &Path) -> Self {
        Self { folder: Folder::new(state_folder.join("local-ca")) }
    }

    /// Where the root is, for `curl --cacert` and for trust stores. It exists once [`LocalCa::localhost`] has run.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.folder.path(ROOT)
    }

    /// The certificate for localhost; makes what is missing or has run out.
    ///
    /// # Errors
    /// A file is damaged, or the folder cannot be used.
    pub fn localhost(&self, now: SystemTime) -> Result<Issued, LocalCaError> {
        if let Some(issued) = self.usable(now)? {
            return Ok(issued);
        }
        let _lock = self.folder.lock()?;
        match self.usable(now)? {
            Some(issued) => Ok(issued), // another process was faster
            None => self.make(now),
        }
    }

    /// What is in the folder, when all of it is there, belongs together and lasts.
    fn usable(&self, now: SystemTime) -> Result<Option<Issued>, LocalCaError> {
        let Some(ca) = self.read(CA)? else { return Ok(None) };
        let Some(leaf) = self.read(LEAF)? else { return Ok(None) };
        let is_complete = self.folder.holds(ROOT, ca.certificate_pem().as_bytes());
        let is_usable = is_complete && is_ca_fresh(&ca, now) && is_leaf_fresh(&leaf, &ca, now);
        is_usable.then(|| issued(&ca, leaf)).transpose()
    }

    fn make(&self, now: SystemTime) -> Result<Issued, LocalCaError> {
        let ca = match self.read(CA)? {
            Some(ca) if is_ca_fresh(&ca, now) => ca,
            found => {
                let ca = issue::ca(now).map_err(LocalCaError::Crypto)?;
                self.folder.write(CA, ca.pem().as_bytes(), 0o600)?;
                let root = self.root_path();
                let why = if found.is_some() { "the old one has run out" } else { "there was none" };
                tracing::warn!("made a root for the local CA ({why}): let your browser trust {}", root.display());
                ca
            }
        };
        self.folder.write(ROOT, ca.certificate_pem().as_bytes(), 0o644)?;
        let leaf = issue::leaf(&ca, now).map_err(LocalCaError::Crypto)?;
        if !is_leaf_fresh(&leaf, &ca, now) {
            return Err(self.damaged(CA, "it signs nothing that its certificate vouches for"));
        }
        self.folder.write(LEAF, leaf.pem().as_bytes(), 0o600)?;
        issued(&ca, leaf)
    }

    fn read(&self, name: &'static str) -> Result<Option<Pair>, LocalCaError> {
        let Some(bytes) = self.folder.read_secret(name)? else { return Ok(None) };
        Pair::parse(&bytes).map(Some).map_err(|why| self.damaged(name, why))
    }

    fn damaged(&self, name: &str, why: &'static str) -> LocalCaError {
        LocalCaError::Damaged { path: self.folder.path(name), why, is_root: name == CA }
    }
}

/// A root must outlive what it signs. Its beginning does not count: a clock that is behind must not cost the trust.
fn is_ca_fresh(ca: &Pair, now: SystemTime) -> bool {
    ca.facts.not_after >= now + LEAF_LIFE
}

fn is_leaf_fresh(leaf: &Pair, ca: &Pair, now: SystemTime) -> bool {
    let is_named = leaf.facts.dns_names.iter().any(|name| name == LOCALHOST);
    let has_addresses = ADDRESSES.iter().all(|address| leaf.facts.addresses.contains(address));
    is_named && has_addresses && leaf.facts.not_after >= now + LEAF_RENEWAL && is_signed(leaf, ca, now)
}

fn is_signed(leaf: &Pair, ca: &Pair, now: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    let (Ok(()), Ok(leaf)) = (roots.add(ca.certificate.clone()), ParsedCertificate::try_from(&leaf.certificate)) else {
        return false;
    };
    let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let algorithms = provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(now);
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms).is_ok()
}

fn issued(ca: &Pair, leaf: Pair) -> Result<Issued, LocalCaError> {
    let subdomains = Subdomains::new(ca).map_err(LocalCaError::Crypto)?;
    Ok(Issued { certificate: leaf.certificate, private_key: leaf.private_key, facts: leaf.facts, subdomains })
}

/// Where Hostler keeps what it makes for the user that runs it: `$HOSTLER_STATE_DIR`, else `$XDG_STATE_HOME/hostler`,
/// else `~/.local/state/hostler`, else, for root without a home, `/var/lib/hostler`.
///
/// # Errors
/// None of these is there.
pub fn state_folder() -> Result<PathBuf, LocalCaError> {
    let is_root = rustix::process::geteuid().is_root();
    state_folder_from(|name| std::env::var_os(name), is_root).ok_or(LocalCaError::NoFolder)
}

fn state_folder_from(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A relative XDG_STATE_HOME is to be ignored, says its specification.
    let absolute = |name: &str| folder(name).filter(|path| path.is_absolute());
    folder("HOSTLER_STATE_DIR")
        .or_else(|| absolute("XDG_STATE_HOME").map(|path| path.join("hostler")))
        .or_else(|| absolute("HOME").map(|path| path.join(".local/state/hostler")))
        .or_else(|| is_root.then(|| PathBuf::from("/var/lib/hostler")))
}

/// Why there is no certificate for localhost.
#[derive(Debug)]
pub enum LocalCaError {
    /// No folder to keep anything in.
    NoFolder,
    /// The system refuses.
    Io {
        /// What was to be done: `read`, `write` …
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is there and is not what was written once.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
        /// Whether it is the root, which people have told their browsers to trust.
        is_root: bool,
    },
    /// The crypto library.
    Crypto(rcgen::Error),
}

impl fmt::Display for LocalCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFolder => f.write_str("there is no folder to keep it in; set HOSTLER_STATE_DIR"),
            Self::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}; HOSTLER_STATE_DIR names another folder", path.display())
            }
            Self::Damaged { path, why, is_root } => {
                let path = path.display();
                write!(f, "{path} is damaged ({why}); remove it, and a new one is made at the next start")?;
                if *is_root {
                    f.write_str(", which browsers must then be told to trust")?;
                }
                Ok(())
            }
            Self::Crypto(source) => write!(f, "the crypto library refuses: {source}"),
        }
    }
}

impl std::error::Error for LocalCaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Crypto(source) => Some(source),
            Self::NoFolder | Self::Damaged { .. } => None,
        }
    }
}
