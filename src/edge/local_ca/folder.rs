//! The files of the local CA: read, written as a whole, and for their owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::LocalCaError;
use crate::edge::tls::provider;
use crate::x509::CertificateFacts;

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Exclusive among processes; the system releases it at the latest when the process ends.
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder if need be and waits for the lock.
    pub(super) fn lock(&self) -> Result<Lock, LocalCaError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed("make", &self.path))?;
        restrict(&self.path, 0o700)?;
        let path = self.path("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Lock { _file: file })
    }

    /// A file that only its owner may read; `None` when there is none. One that others may read is taken from them.
    pub(super) fn read_secret(&self, name: &str) -> Result<Option<Vec<u8>>, LocalCaError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => restrict(&path, 0o600).map(|()| Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Whether a file has exactly these contents.
    pub(super) fn holds(&self, name: &str, contents: &[u8]) -> bool {
        fs::read(self.path(name)).is_ok_and(|found| found == contents)
    }

    /// Puts a file in place that is complete at every moment, also after a crash. The caller holds the lock.
    pub(super) fn write(&self, name: &str, contents: &[u8], mode: u32) -> Result<(), LocalCaError> {
        let (path, unfinished) = (self.path(name), self.path(&format!(".{name}.new")));
        let write = || {
            remove_if_there(&unfinished)?; // of a process that was killed here
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes away what others may do with it.
fn restrict(path: &Path, mode: u32) -> Result<(), LocalCaError> {
    let found = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode();
    if found & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("restrict the permissions of", path))?;
    }
    Ok(())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalCaError {
    move |source| LocalCaError::Io { doing, path: path.to_owned(), source }
}

/// A certificate and its key, as they share a file.
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) private_key: PrivateKeyDer<'static>,
    pub(super) facts: CertificateFacts,
    pem: String,
}

impl Pair {
    /// Reads a pair; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let pem = std::str::from_utf8(bytes).map_err(|_| "it is not text")?.to_owned();
        let certificate = CertificateDer::from_pem_slice(bytes).map_err(|_| "it holds no certificate")?;
        let private_key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| "it holds no private key")?;
        let facts = CertificateFacts::of(&certificate).map_err(|_| "its certificate cannot be read")?;
        CertifiedKey::from_der(vec![certificate.clone()], private_key.clone_key(), &provider())
            .map_err(|_| "its key is not that of its certificate")?;
        Ok(Self { certificate, private_key, facts, pem })
    }

    /// Everything, as it is kept.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate alone, for everybody.
    pub(super) fn certificate_pem(&self) -> &str {
        self.pem.find("-----BEGIN CERTIFICATE-----").map_or("", |at| &self.pem[at..])
    }
}
