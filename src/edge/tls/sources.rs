//! Where the TLS of one listener comes from, and that it follows its files without a reload: certificates are renewed
//! more often than configurations.
//!
//! Each certificate, each OCSP response and the clients' authorities are watched for themselves: one that cannot be used
//! stays as it was, and does not keep the others from being renewed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use super::by_name::{ByName, Local};
use super::files::{self, Pair};
use super::in_force::{Clients, InForce, Shown};
use super::settle::{Look, Watched};
use super::{TlsError, TlsShared};
use crate::config::{Certificate, ClientAuth, Tls};
use crate::x509::{CertificateFacts, NotStapled, Staple};

/// The TLS of a listener, for many threads.
pub struct ServerTls {
    tls: Tls,
    http2: bool,
    shared: TlsShared,
    in_force: ArcSwap<InForce>,
    sources: Mutex<Sources>,
}

/// What a look at the files of a listener has shown.
#[derive(Debug, Default)]
pub struct Looked {
    /// What has happened, for the operator.
    pub changes: Vec<Change>,
    /// Whether files are being written: the next look should be soon.
    pub is_moving: bool,
}

/// What has happened to the files of a listener.
#[derive(Debug)]
pub enum Change {
    /// A new certificate is shown from now on.
    Certificate(Shown),
    /// A new OCSP response is shown from now on, or one that was there already holds for the new certificate.
    Stapled {
        /// Its file.
        ocsp: PathBuf,
        /// When it is over, if it says so.
        until: Option<SystemTime>,
    },
    /// No OCSP response is shown from now on.
    NotStapled {
        /// Its file.
        ocsp: PathBuf,
        /// Why.
        why: String,
    },
    /// Clients' certificates are judged by new authorities from now on.
    Authorities(PathBuf),
    /// A file has changed and cannot be used; what was in force stays so.
    Refused(TlsError),
}

/// What was read.
struct Sources {
    pairs: Vec<Source>,
    clients: Option<ClientSource>,
    local: Option<LocalSource>,
    /// Something was read that is not in force, and not because it was refused.
    is_dirty: bool,
}

/// The authorities of clients' certificates.
struct ClientSource {
    authorities: Watched<RootCertStore>,
    is_required: bool,
}

/// A certificate and its OCSP response.
struct Source {
    files: Certificate,
    pair: Watched<Pair>,
    ocsp: Option<Ocsp>,
}

struct Ocsp {
    path: PathBuf,
    /// `Err`: why it could not be read when the listener began.
    response: Watched<Result<Vec<u8>, String>>,
    /// What was made of it; `None`: nothing yet.
    judged: Option<Result<Staple, String>>,
    /// The last that was good: shown for as long as it holds, whatever else has come after it, short of bad news.
    good: Option<Vec<u8>>,
}

/// What the local CA has made.
struct LocalSource {
    key: Arc<CertifiedKey>,
    facts: CertificateFacts,
    subdomains: Arc<Local>,
}

impl ServerTls {
    /// Reads the files. Not for the threads that serve.
    ///
    /// # Errors
    /// What is wrong with which file. An OCSP response is none of the reasons: the first [`Self::look`] tells what is wrong
    /// with it.
    pub fn read(tls: &Tls, http2: bool, shared: &TlsShared) -> Result<Self, TlsError> {
        let mut sources = Sources::read(tls, shared)?;
        sources.judge(SystemTime::now());
        let in_force = ArcSwap::from_pointee(sources.assemble(tls, http2, shared)?);
        // Nobody has been told what was made of the responses.
        sources.forget_judged();
        Ok(Self { tls: tls.clone(), http2, shared: shared.clone(), in_force, sources: Mutex::new(sources) })
    }

    /// What a handshake that begins now goes by.
    #[must_use]
    pub fn current(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Looks at the files, and puts in force what has changed and stands still. Handshakes that have begun end with what
    /// they began with. Reads files, so it is not for the threads that serve.
    pub fn look(&self, now: Instant, clock: SystemTime) -> Looked {
        let mut looked = Looked::default();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = sources.look(&mut looked, &self.shared, now);
        // What could not be put together before may go with what has changed since.
        is_new |= sources.is_dirty && !looked.changes.is_empty();
        let judged = sources.judge(clock);
        is_new |= !judged.is_empty();
        looked.changes.extend(judged);
        if is_new {
            sources.is_dirty = true;
            match sources.assemble(&self.tls, self.http2, &self.shared) {
                Ok(in_force) => {
                    self.in_force.store(Arc::new(in_force));
                    sources.is_dirty = false;
                }
                Err(error) => looked.changes.push(Change::Refused(error)),
            }
        }
        looked
    }
}

impl Sources {
    fn read(tls: &Tls, shared: &TlsShared) -> Result<Self, TlsError> {
        let pairs = tls.certificates.iter().map(|files| Source::read(files, shared)).collect::<Result<_, _>>()?;
        let clients = tls.client_auth.as_ref().map(ClientSource::read).transpose()?;
        let local = if tls.local { Some(LocalSource::read(shared)?) } else { None };
        Ok(Self { pairs, clients, local, is_dirty: false })
    }

    /// Reads what has changed. Whether anything of it is new, OCSP responses apart.
    fn look(&mut self, looked: &mut Looked, shared: &TlsShared, now: Instant) -> bool {
        let mut is_new = false;
        for source in &mut self.pairs {
            if looked.takes(source.pair.look(now, || Pair::read(&source.files, &shared.provider))) {
                is_new = true;
                looked.changes.push(Change::Certificate(source.shown()));
            }
            if let Some(ocsp) = &mut source.ocsp {
                // What it says is judged whether it is new or not.
                if looked.takes(ocsp.response.look(now, || files::response(&ocsp.path).map(Ok))) {
                    ocsp.judged = None;
                }
            }
        }
        if let Some(ClientSource { authorities, .. }) = &mut self.clients {
            let path = authorities.path().to_owned();
            if looked.takes(authorities.look(now, || files::authorities(&path))) {
                is_new = true;
                looked.changes.push(Change::Authorities(path));
            }
        }
        is_new
    }

    /// Judges every OCSP response anew: it may have come to its end. What has become different.
    fn judge(&mut self, clock: SystemTime) -> Vec<Change> {
        let judge = |source: &mut Source| {
            let serial = &source.pair.value().facts.serial;
            source.ocsp.as_mut()?.judge(serial, clock)
        };
        self.pairs.iter_mut().filter_map(judge).collect()
    }

    fn forget_judged(&mut self) {
        self.pairs.iter_mut().filter_map(|source| source.ocsp.as_mut()).for_each(|ocsp| ocsp.judged = None);
    }

    fn assemble(&self, tls: &Tls, http2: bool, shared: &TlsShared) -> Result<InForce, TlsError> {
        let (mut names, mut shown) = (ByName::default(), Vec::new());
        for source in &self.pairs {
            names.add(Arc::new(source.key()), &source.pair.value().facts.dns_names);
            shown.push(source.shown());
        }
        if let Some(local) = &self.local {
            names.add(Arc::clone(&local.key), &local.facts.dns_names);
            names.add_local(Arc::clone(&local.subdomains));
            shown.push(local.shown());
        }
        let clients = self.clients.as_ref().map(ClientSource::in_force);
        InForce::new(tls, http2, shared, names, clients, shown)
    }
}

impl Looked {
    /// Notes what a look has shown. Whether there is a new value.
    fn takes(&mut self, look: Look) -> bool {
        match look {
            Look::Same => {}
            Look::Moving => self.is_moving = true,
            Look::New => return true,
            Look::Refused(error) => self.changes.push(Change::Refused(error)),
        }
        false
    }
}

impl ClientSource {
    fn read(auth: &ClientAuth) -> Result<Self, TlsError> {
        let authorities = Watched::read(vec![auth.ca.clone()], || files::authorities(&auth.ca))?;
        Ok(Self { authorities, is_required: auth.is_required })
    }

    fn in_force(&self) -> Clients<'_> {
        Clients { authorities: self.authorities.value(), is_required: self.is_required }
    }
}

impl Source {
    fn read(files: &Certificate, shared: &TlsShared) -> Result<Self, TlsError> {
        let paths = vec![files.cert.clone(), files.private_key.clone()];
        let pair = Watched::read(paths, || Pair::read(files, &shared.provider))?;
        let ocsp = files.ocsp.as_deref().map(Ocsp::read).transpose()?;
        Ok(Self { files: files.clone(), pair, ocsp })
    }

    fn key(&self) -> CertifiedKey {
        let mut key = self.pair.value().key.clone();
        key.ocsp = self.ocsp.as_ref().and_then(Ocsp::shown);
        key
    }

    fn shown(&self) -> Shown {
        let facts = &self.pair.value().facts;
        let name = facts.name().unwrap_or_else(|| self.files.cert.display().to_string());
        Shown { name, cert: Some(self.files.cert.clone()), not_after: facts.not_after }
    }
}

impl Ocsp {
    fn read(path: &Path) -> Result<Self, TlsError> {
        // A response is made by somebody who needs the certificate first: that it is not there yet is no reason not to serve.
        let read = || Ok(files::response(path).map_err(|error| error.to_string()));
        let response = Watched::read(vec![path.to_owned()], read)?;
        Ok(Self { path: path.to_owned(), response, judged: None, good: None })
    }

    fn judge(&mut self, serial: &[u8], clock: SystemTime) -> Option<Change> {
        let (judged, is_bad_news) = match self.response.value() {
            Ok(bytes) => match Staple::judge(bytes, serial, clock) {
                Ok(staple) => {
                    self.good = Some(bytes.clone());
                    (Ok(staple), false)
                }
                Err(why) => (Err(why.to_string()), why == NotStapled::Revoked),
            },
            Err(why) => (Err(why.clone()), false),
        };
        let holds = |bytes: &Vec<u8>| !is_bad_news && Staple::judge(bytes, serial, clock).is_ok();
        let had_good = self.good.is_some();
        self.good = self.good.take().filter(holds);
        if self.judged.as_ref() == Some(&judged) && had_good == self.good.is_some() {
            return None;
        }
        let ocsp = self.path.clone();
        let change = match &judged {
            Ok(staple) => Change::Stapled { ocsp, until: staple.until },
            Err(why) => {
                let still = if self.good.is_some() { "; the one before is shown for as long as it holds" } else { "" };
                Change::NotStapled { ocsp, why: format!("{why}{still}") }
            }
        };
        self.judged = Some(judged);
        Some(change)
    }

    /// The bytes that go out.
    fn shown(&self) -> Option<Vec<u8>> {
        self.good.clone()
    }
}

impl LocalSource {
    fn read(shared: &TlsShared) -> Result<Self, TlsError> {
        let issued = shared.local_ca().and_then(|ca| ca.localhost(SystemTime::now())).map_err(TlsError::Local)?;
        let key = CertifiedKey::from_der(vec![issued.certificate], issued.private_key, &shared.provider);
        let key = Arc::new(key.map_err(TlsError::Crypto)?);
        Ok(Self { key, facts: issued.facts, subdomains: Arc::new(Local::new(issued.subdomains)) })
    }

    fn shown(&self) -> Shown {
        let name = self.facts.name().unwrap_or_default();
        Shown { name, cert: None, not_after: self.facts.not_after }
    }
}
