//! The files of a listener's TLS, read and understood: certificates with their keys, OCSP responses, authorities of clients.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::config::Certificate;
use crate::x509::{self, BadBundle, CertificateFacts, LARGEST_RESPONSE, Malformed};

/// Bytes of the largest file that is read: far more than any chain, less than the authorities of the whole web.
pub(super) const LARGEST_FILE: u64 = 1 << 20;

/// A certificate with its key, and what it says.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    pub(super) facts: CertificateFacts,
}

impl Pair {
    pub(super) fn read(files: &Certificate, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = certificates(&files.cert)?;
        let bad = |source| TlsError::BadCertificate { path: files.cert.clone(), source };
        let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate(files.cert.clone()))?;
        let facts = CertificateFacts::of(leaf).map_err(bad)?;
        let key = private_key(&files.private_key)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { cert: files.cert.clone(), private_key: files.private_key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => bad(Malformed("it is not an X.509 version 3 certificate")),
            source => TlsError::BadKey { path: files.private_key.clone(), source },
        })?;
        Ok(Self { key, facts })
    }
}

/// The authorities that sign clients' certificates: all that the file has, because nobody would hear of those left out.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let bad = |source| match source {
        BadBundle::Empty => TlsError::NoAuthority(path.to_owned()),
        source => TlsError::BadAuthorities { path: path.to_owned(), source },
    };
    let mut roots = RootCertStore::empty();
    // It has been seen that all of them can be.
    roots.add_parsable_certificates(x509::authorities(&read(path)?).map_err(bad)?);
    Ok(roots)
}

/// An OCSP response, whatever it says. One byte more than is taken tells that it is too large.
pub(super) fn response(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_to(path, LARGEST_RESPONSE as u64 + 1)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
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
    let bytes = read_to(path, LARGEST_FILE + 1)?;
    if bytes.len() as u64 > LARGEST_FILE { Err(TlsError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn read_to(path: &Path, limit: u64) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source: io::Error| TlsError::Unreadable { path: path.to_owned(), source };
    // Opening a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(TlsError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}
