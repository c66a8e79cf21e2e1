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

/// Far more than any chain.
const LARGEST_FILE: u64 = 1 << 20;

/// Notes what is wrong with a pair, at the value that names the file.
pub(super) fn inspect(decoder: &mut Decoder<'_>, pair: &Certificate, cert_at: &Span, key_at: &Span) {
    let chain = decoder.fault(cert_at, read(&pair.cert, "certificate").and_then(|pem| chain(&pair.cert, &pem)));
    let key =
        decoder.fault(key_at, read(&pair.private_key, "private key").and_then(|pem| key(&pair.private_key, &pem)));
    let Some(chain) = chain else { return };
    if let Some(leaf) = chain.first() {
        warn_about_dates(decoder, leaf, cert_at);
    }
    let Some(key) = key else { return };
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
}

/// Notes what is wrong with a file of authorities, at the value that names it.
pub(super) fn inspect_authorities(decoder: &mut Decoder<'_>, path: &Path, at: &Span) {
    let pem = read(path, "certificates of the authority");
    let Some(certificates) = decoder.fault(at, pem.and_then(|pem| authorities(path, &pem))) else { return };
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

fn authorities(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates = certificates(path, pem)?;
    if certificates.is_empty() {
        let help = "name the file with the authority's certificate, `-----BEGIN CERTIFICATE-----`, or write ca: system";
        return Err(Fault::new(format!("{} holds no certificate in PEM form", path.display()), help));
    }
    Ok(certificates)
}

/// The bytes of a file; in words when there are none.
fn read(path: &Path, what: &str) -> Result<Vec<u8>, Fault> {
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
        return Err(Fault::new(format!("{} is not a file", path.display()), "name the PEM file itself"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(Fault::new(format!("{} is too large for a {what}", path.display()), "name a PEM file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| cannot(&error))?;
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(|error| cannot(&error))?;
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

fn warn_about_dates(decoder: &mut Decoder<'_>, leaf: &CertificateDer<'_>, at: &Span) {
    let Some((from, until)) = validity(leaf) else { return };
    let now = SystemTime::now();
    if now > until {
        let days = days(now.duration_since(until).unwrap_or_default());
        decoder.warning(at, format!("this certificate expired {days} ago")).help("renew it: browsers refuse it");
    } else if now < from {
        let days = days(from.duration_since(now).unwrap_or_default());
        decoder
            .warning(at, format!("this certificate is valid only in {days}"))
            .help("check the clock of this machine");
    }
}

fn days(time: Duration) -> String {
    super::report::counted(usize::try_from(time.as_secs() / 86_400).unwrap_or(usize::MAX), "day")
}

/// When a certificate is valid (RFC 5280, 4.1.2.5). `None`: not to be told.
fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, body, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, after_first) = element(body)?;
    // serial, signature algorithm, issuer; before them a version, unless it is 1
    let mut rest = if tag == VERSION { after_first } else { body };
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (from_tag, from, rest) = element(validity)?;
    let (until_tag, until, _) = element(rest)?;
    Some((time(from_tag, from)?, time(until_tag, until)?))
}

/// One DER element: tag, content, what follows. Lengths of up to 3 bytes; no multi-byte tags.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` (UTCTime, 1950 to 2049) or `YYYYMMDDHHMMSSZ` (GeneralizedTime).
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(&digits[..2]) + if digits[0] < b'5' { 2000 } else { 1900 }, &digits[2..]),
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let parts: Vec<u64> = rest.chunks(2).map(number).collect();
    let [month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=60] = parts[..] else {
        return None;
    };
    let seconds = ((days_since_1970(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Days of the Gregorian calendar. Years before 1970 count as 1970: all of them are over.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    if year < 1970 {
        return Some(0);
    }
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let before_month = BEFORE_MONTH.get(usize::try_from(month - 1).ok()?)? + u64::from(is_leap && month > 2);
    Some((year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + before_month + day - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn unix(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2051, 12, 31);
        let certificate = params.self_signed(&key).unwrap();
        let (from, until) = validity(certificate.der()).unwrap();
        assert_eq!((unix(from), unix(until)), (1_709_164_800, 2_587_593_600));
    }

    #[test]
    fn der_that_ends_early_has_no_dates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der();
        assert!(validity(der).is_some());
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None, "{end}");
        }
    }

    #[test]
    fn only_whole_dates_are_dates() {
        assert_eq!(time(0x17, b"700101000000Z").map(unix), Some(0));
        assert_eq!(time(0x18, b"20000301000000Z").map(unix), Some(951_868_800));
        for text in [&b"700101000000"[..], b"701301000000Z", b"700100000000Z", b"7001010000Z", b"70010100000aZ", b"Z"] {
            assert_eq!(time(0x17, text), None);
        }
    }
}
