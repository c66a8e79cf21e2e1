//! A file with the certificates of authorities in PEM: all of it or nothing.
//!
//! Of a bundle that is taken in part nobody hears who is missing, until somebody is refused who should not be. So an entry
//! that cannot be read is a fault of the whole, and so is one of another kind: a revocation list, which is not looked at, or a
//! certificate in a form that PEM readers step over (`TRUSTED CERTIFICATE`). Keys and text between the entries mean nothing.

use std::fmt;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why a bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBundle {
    /// It has no entry at all.
    Empty,
    /// One of its entries cannot be used.
    Entry {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for BadBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it holds no certificate"),
            Self::Entry { number, why } => {
                write!(f, "entry {number} of it is not the certificate of an authority: {why}")
            }
        }
    }
}

impl std::error::Error for BadBundle {}

/// The certificates, in their order.
///
/// # Errors
/// What is wrong with the first entry that cannot be used.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadBundle> {
    for (label, number) in labels(pem).zip(1..) {
        if label != b"CERTIFICATE" {
            let why = format!("it is a {}", String::from_utf8_lossy(label));
            return Err(BadBundle::Entry { number, why });
        }
    }
    let mut certificates = Vec::new();
    let mut store = RootCertStore::empty();
    for (entry, number) in CertificateDer::pem_slice_iter(pem).zip(1..) {
        let bad = |why: String| BadBundle::Entry { number, why };
        let certificate: CertificateDer<'static> = entry.map_err(|error| bad(error.to_string()))?;
        store.add(certificate.clone()).map_err(|_| bad("it cannot be read".into()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(BadBundle::Empty) } else { Ok(certificates) }
}

/// What the entries call themselves that have to do with certificates.
fn labels(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let labels = lines.filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"));
    let is_meant =
        |label: &&[u8]| [&b"CERTIFICATE"[..], b"CRL"].iter().any(|word| memchr::memmem::find(label, word).is_some());
    labels.filter(is_meant)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pem(label: &str, contents: &str) -> String {
        format!("-----BEGIN {label}-----\n{contents}\n-----END {label}-----\n")
    }

    fn certificate() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec!["ca.example".into()]).unwrap().self_signed(&key).unwrap().pem()
    }

    fn why(text: &str) -> String {
        authorities(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_bundle_is_taken_whole_or_not_at_all() {
        let (one, two) = (certificate(), certificate());
        let commented = format!("# ours\n{one}\r\nTheirs\r\n{two}{}", pem("PRIVATE KEY", "AAAA"));
        assert_eq!(authorities(commented.as_bytes()).unwrap().len(), 2);
        assert!(why(&format!("{one}{}", pem("CERTIFICATE", "AAAA"))).starts_with("entry 2 of it"));
        assert!(why(&format!("{}{one}", pem("CERTIFICATE", "!"))).starts_with("entry 1 of it"));
        assert!(why(&format!("{one}-----BEGIN CERTIFICATE-----\nAAAA\n")).starts_with("entry 2 of it"));
        for (label, entry) in [("X509 CRL", 2), ("TRUSTED CERTIFICATE", 2), ("CERTIFICATE REQUEST", 2)] {
            let said = why(&format!("{one}{}{two}", pem(label, "AAAA")));
            assert_eq!(said, format!("entry {entry} of it is not the certificate of an authority: it is a {label}"));
        }
        for text in ["", "no PEM", &pem("PRIVATE KEY", "AAAA")] {
            assert_eq!(authorities(text.as_bytes()), Err(BadBundle::Empty), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_fall(text in "(-----(BEGIN|END) (X509 )?(CERTIFICATE|CRL)-----\n|[A-Za-z0-9+/=]{0,64}\n|\\PC{0,10}\n){0,8}") {
            let _ = authorities(text.as_bytes());
        }
    }
}
