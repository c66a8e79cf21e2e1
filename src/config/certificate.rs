//! Certificates and keys, looked at while the file is read: a pair that cannot be served is found before it is needed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Certificate;
use super::decode::Decoder;
use super::node::Span;
use super::values::Fault;
use crate::x509::{self, BadBundle, CertificateFacts};

/// Far more than any chain.
const LARGEST_FILE: u64 = 1 << 20;

/// A certificate with less left than this is worth a warning: most are renewed with 30 days left.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// Notes what is wrong with a pair, at the value that names the file. What the certificate says.
pub(super) fn inspect(
    decoder: &mut Decoder<'_>,
    pair: &Certificate,
    cert_at: &Span,
    key_at: &Span,
) -> Option<CertificateFacts> {
    let chain = decoder.fault(cert_at, read(&pair.cert, "certificate").and_then(|pem| chain(&pair.cert, &pem)));
    let key =
        decoder.fault(key_at, read(&pair.private_key, "private key").and_then(|pem| key(&pair.private_key, &pem)));
    let chain = chain?;
    let facts = chain_facts(decoder, &chain, cert_at)?;
    let key = key?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            decoder
                .error(key_at, "this key does not belong to the certificate")
                .also(cert_at, "the certificate")
                .help("name the key the certificate was issued for; the certificate of the site itself comes first in its file");
        }
        Err(rustls::Error::InvalidCertificate(why)) => {
            decoder
                .error(cert_at, format!("this certificate cannot be read: {why:?}"))
                .help("check it with: openssl x509 -noout -text -in FILE");
        }
        Err(why) => {
            decoder
                .error(key_at, format!("this key cannot be used: {why}"))
                .help("RSA keys of 2048 to 8192 bits, ECDSA P-256, P-384 and P-521, and Ed25519 can");
        }
    }
    Some(facts)
}

/// What the site's own certificate says; with a word on the dates of each in its chain.
fn chain_facts(decoder: &mut Decoder<'_>, chain: &[CertificateDer<'_>], at: &Span) -> Option<CertificateFacts> {
    let mut all = chain.iter().map(|certificate| CertificateFacts::of(certificate));
    let leaf = match all.next()? {
        Ok(facts) => facts,
        Err(why) => {
            decoder
                .error(at, format!("this certificate cannot be read: {why}"))
                .help("check it with: openssl x509 -noout -text -in FILE");
            return None;
        }
    };
    warn_about_dates(decoder, "this certificate", &leaf, at);
    for (facts, number) in all.zip(2..) {
        // One that cannot be read may be of use to whoever is shown it.
        if let Ok(facts) = facts {
            warn_about_dates(decoder, &format!("certificate {number} of this chain"), &facts, at);
        }
    }
    Some(leaf)
}

/// Notes what is wrong with an OCSP response: it is not shown then, which is no reason not to serve.
pub(super) fn inspect_response(decoder: &mut Decoder<'_>, path: &Path, facts: &CertificateFacts, at: &Span) {
    let limit = x509::LARGEST_RESPONSE as u64 + 1;
    let (message, help) = match read_to(path, "OCSP response", limit) {
        Ok(bytes) => match x509::Staple::judge(&bytes, &facts.serial, SystemTime::now()) {
            Ok(_) => return,
            Err(why) => (
                format!("this OCSP response will not be shown: {why}"),
                "look whether what fetches it still runs".into(),
            ),
        },
        Err(fault) => (fault.message, fault.help),
    };
    decoder.warning(at, message).help(help);
}

/// Notes what is wrong with `client_ca`, at the value that names it.
pub(super) fn inspect_client_authorities(decoder: &mut Decoder<'_>, path: &Path, at: &Span) {
    let bundle = read(path, "certificates of the authority").and_then(|pem| {
        x509::authorities(&pem).map_err(|bad| match bad {
            BadBundle::Empty => Fault::new(
                format!("{} holds no certificate in PEM form", path.display()),
                "name the file with the certificates that sign the clients' ones, `-----BEGIN CERTIFICATE-----`",
            ),
            BadBundle::Entry { .. } => Fault::new(
                format!("{} cannot be used: {bad}", path.display()),
                "write the file anew, from its source: whoever that entry is for could not come in",
            ),
        })
    });
    let Some(certificates) = decoder.fault(at, bundle) else { return };
    let all = certificates.iter().map(|certificate| CertificateFacts::of(certificate));
    for (facts, number) in all.zip(1..) {
        if let Ok(facts) = facts {
            warn_about_dates(decoder, &format!("authority {number} of this file"), &facts, at);
        }
    }
}

/// Notes what is wrong with a file of authorities, at the value that names it.
pub(super) fn inspect_authorities(decoder: &mut Decoder<'_>, path: &Path, at: &Span) {
    let help = "name the file with the authority's certificate, `-----BEGIN CERTIFICATE-----`, or write ca: system";
    let pem = read(path, "certificates of the authority");
    let Some(certificates) = decoder.fault(at, pem.and_then(|pem| authorities(path, &pem, help))) else { return };
    let (usable, unusable) = rustls::RootCertStore::empty().add_parsable_certificates(certificates);
    if usable == 0 {
        decoder
            .error(at, format!("{} holds no certificate that can be trusted as an authority", path.display()))
            .help("check it with: openssl x509 -noout -text -in FILE");
    } else if unusable > 0 {
        let unusable = super::report::counted(unusable, "certificate");
        decoder
            .warning(at, format!("{unusable} of {} cannot be read and will be left out", path.display()))
            .help("write the file anew, from its source");
    }
}

fn authorities(path: &Path, pem: &[u8], help: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates = certificates(path, pem)?;
    if certificates.is_empty() {
        return Err(Fault::new(format!("{} holds no certificate in PEM form", path.display()), help));
    }
    Ok(certificates)
}

/// The bytes of a PEM file; in words when there are none.
fn read(path: &Path, what: &str) -> Result<Vec<u8>, Fault> {
    let bytes = read_to(path, what, LARGEST_FILE + 1)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Fault::new(format!("{} is too large for a {what}", path.display()), "name a PEM file"));
    }
    Ok(bytes)
}

/// At most so many bytes of a file.
fn read_to(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>, Fault> {
    let cannot = |error: &io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path; a relative one starts at the folder of this file",
            io::ErrorKind::PermissionDenied => {
                "let the user that Hostler runs as read the file, and enter every folder above it"
            }
            _ => "",
        };
        Fault::new(format!("cannot read the {what} {}: {}", path.display(), said_by_system(error)), help)
    };
    let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        return Err(Fault::new(format!("{} is not a file", path.display()), "name the file itself"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| cannot(&error))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| cannot(&error))?;
    Ok(bytes)
}

/// The system's words without their number.
pub(super) fn said_by_system(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Every certificate of a PEM file.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|why| {
        Fault::new(format!("{} is broken: {why}", path.display()), "write the file anew, from its source")
    })
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain = certificates(path, pem)?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    let help = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => "it holds a private key: do `cert` and `private_key` stand the wrong way round?",
        Err(_) => "it should hold `-----BEGIN CERTIFICATE-----`; a DER file becomes PEM with: openssl x509 -inform der",
    };
    Err(Fault::new(format!("{} holds no certificate in PEM form", path.display()), help))
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    if is_encrypted(pem) {
        let help =
            "Hostler starts without asking for a password: decrypt it with: openssl pkey -in FILE -out FILE.plain";
        return Err(Fault::new(format!("the private key {} is encrypted", path.display()), help));
    }
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem) {
        return Ok(key);
    }
    let help = match CertificateDer::from_pem_slice(pem) {
        Ok(_) => "it holds a certificate: do `cert` and `private_key` stand the wrong way round?",
        Err(_) => "it should hold `-----BEGIN PRIVATE KEY-----`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`",
    };
    Err(Fault::new(format!("{} holds no private key in PEM form", path.display()), help))
}

/// PKCS#8 says it in its title, the older forms in a header.
fn is_encrypted(pem: &[u8]) -> bool {
    let holds = |mark: &[u8]| memchr::memmem::find(pem, mark).is_some();
    holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED")
}

/// Notes what is wrong with the dates of what `what` calls it: `this certificate`.
fn warn_about_dates(decoder: &mut Decoder<'_>, what: &str, facts: &CertificateFacts, at: &Span) {
    let now = SystemTime::now();
    let CertificateFacts { not_before, not_after, .. } = facts;
    match (not_after.duration_since(now), not_before.duration_since(now)) {
        (Err(since), _) => {
            let days = days(since.duration());
            decoder.warning(at, format!("{what} expired {days} ago")).help("renew it: whoever is shown it refuses it");
        }
        (Ok(_), Ok(until)) if !until.is_zero() => {
            let days = days(until);
            decoder.warning(at, format!("{what} is valid only in {days}")).help("check the clock of this machine");
        }
        (Ok(left), _) if left < CERTIFICATE_WARNING => {
            let days = days(left);
            decoder
                .warning(at, format!("{what} expires in {days}"))
                .help("renew it; a new file is taken without a reload. Look whether what renews it still runs");
        }
        _ => {}
    }
}

fn days(time: Duration) -> String {
    if time.as_secs() < 86_400 {
        return "less than a day".into();
    }
    super::report::counted(usize::try_from(time.as_secs() / 86_400).unwrap_or(usize::MAX), "day")
}
