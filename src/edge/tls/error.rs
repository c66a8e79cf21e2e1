//! Why a listener's TLS cannot be set up, in words for the operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;

use super::files::LARGEST_FILE;
use crate::edge::local_ca::LocalCaError;
use crate::x509::{BadBundle, Malformed};

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
    /// A file is too large to be what it should be.
    TooLarge(PathBuf),
    /// A path leads to something that is not a file.
    NotAFile(PathBuf),
    /// A file for `client_ca` holds no certificate that can be trusted as an authority.
    NoAuthority(PathBuf),
    /// A file for `client_ca` has an entry that cannot be used.
    BadAuthorities {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: BadBundle,
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
            Self::TooLarge(path) => {
                write!(f, "{} has more than {} KiB, which no such file has", path.display(), LARGEST_FILE >> 10)
            }
            Self::NotAFile(path) => write!(f, "{} is not a file", path.display()),
            Self::BadAuthorities { path, source } => {
                write!(f, "the authorities in {} cannot be used: {source}", path.display())
            }
            Self::NoAuthority(path) => write!(
                f,
                "{} holds no certificate of an authority; it must hold those in PEM that sign the clients' certificates",
                path.display()
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
            Self::BadAuthorities { source, .. } => Some(source),
            Self::NoCertificate(_)
            | Self::NoKey(_)
            | Self::EncryptedKey(_)
            | Self::Mismatch { .. }
            | Self::TooLarge(_)
            | Self::NotAFile(_)
            | Self::NoAuthority(_)
            | Self::NothingToShow => None,
        }
    }
}
