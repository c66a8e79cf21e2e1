//! What a certificate says of itself: for which names and addresses, and for how long.

use std::net::IpAddr;
use std::time::SystemTime;

use super::der::{BOOLEAN, Der, INTEGER, Malformed, OCTET_STRING, OID, SEQUENCE};

/// The contents of a certificate that matter to a server that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names of the subject's alternative names, in lower case, wildcards as written.
    pub dns_names: Vec<String>,
    /// Addresses of the subject's alternative names.
    pub addresses: Vec<IpAddr>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// The serial number, as it is encoded.
    pub serial: Vec<u8>,
}

const VERSION: u8 = 0xa0;
const ISSUER_ID: u8 = 0x81;
const SUBJECT_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;
/// `dNSName` and `iPAddress` within `GeneralName`.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

impl CertificateFacts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is not a certificate as RFC 5280 has it.
    pub fn of(der: &[u8]) -> Result<Self, Malformed> {
        let mut outer = Der::new(der);
        let mut certificate = Der::new(outer.expect(SEQUENCE)?);
        outer.end()?;
        let mut tbs = Der::new(certificate.expect(SEQUENCE)?);
        tbs.optional(VERSION)?;
        let serial = tbs.expect(INTEGER)?.to_vec();
        tbs.expect(SEQUENCE)?; // signature algorithm
        tbs.expect(SEQUENCE)?; // issuer
        let mut validity = Der::new(tbs.expect(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.end()?;
        tbs.expect(SEQUENCE)?; // subject
        tbs.expect(SEQUENCE)?; // public key
        tbs.optional(ISSUER_ID)?;
        tbs.optional(SUBJECT_ID)?;
        let mut facts = Self { dns_names: Vec::new(), addresses: Vec::new(), not_before, not_after, serial };
        if let Some(extensions) = tbs.optional(EXTENSIONS)? {
            facts.read_extensions(extensions)?;
        }
        tbs.end()?;
        Ok(facts)
    }

    /// What it goes by in logs and metrics: its first name, or else its first address.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let address = || self.addresses.first().map(ToString::to_string);
        self.dns_names.first().cloned().or_else(address)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Result<(), Malformed> {
        let mut outer = Der::new(extensions);
        let mut list = Der::new(outer.expect(SEQUENCE)?);
        outer.end()?;
        while !list.is_empty() {
            let mut extension = Der::new(list.expect(SEQUENCE)?);
            let id = extension.expect(OID)?;
            extension.optional(BOOLEAN)?; // critical
            let value = extension.expect(OCTET_STRING)?;
            extension.end()?;
            if id == SUBJECT_ALT_NAME {
                self.read_alt_names(value)?;
            }
        }
        Ok(())
    }

    fn read_alt_names(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let mut outer = Der::new(value);
        let mut names = Der::new(outer.expect(SEQUENCE)?);
        outer.end()?;
        while !names.is_empty() {
            match names.any()? {
                (DNS_NAME, name) => self.dns_names.push(dns_name(name)?),
                (IP_ADDRESS, address) => self.addresses.push(ip_address(address)?),
                _ => {} // e-mail addresses, URIs and the like name no server
            }
        }
        Ok(())
    }
}

fn dns_name(bytes: &[u8]) -> Result<String, Malformed> {
    let is_name = !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_graphic());
    let name = std::str::from_utf8(bytes).ok().filter(|_| is_name);
    name.map(str::to_ascii_lowercase).ok_or(Malformed("one of its DNS names is not ASCII"))
}

fn ip_address(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).map_err(|_| Malformed("one of its addresses has the wrong length"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    fn certificate(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn unix(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn names_addresses_and_dates_are_told() {
        let der = certificate(&["Shop.Example", "*.shop.example", "127.0.0.1", "::1"], |params| {
            params.subject_alt_names.push(SanType::Rfc822Name("ops@shop.example".try_into().unwrap()));
            params.not_before = date_time_ymd(2024, 2, 29);
            params.not_after = date_time_ymd(2050, 1, 1); // beyond UTCTime
        });
        let facts = CertificateFacts::of(&der).unwrap();
        assert_eq!(facts.dns_names, ["shop.example", "*.shop.example"]);
        assert_eq!(facts.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!((facts.not_before, facts.not_after), (unix(1_709_164_800), unix(2_524_608_000)));
    }

    #[test]
    fn a_certificate_without_extensions_has_no_names() {
        let facts = CertificateFacts::of(&certificate(&[], |_| {})).unwrap();
        assert!(facts.dns_names.is_empty() && facts.addresses.is_empty());
    }

    #[test]
    fn what_is_cut_or_has_more_is_refused() {
        let der = certificate(&["shop.example"], |_| {});
        for end in 0..der.len() {
            assert!(CertificateFacts::of(&der[..end]).is_err(), "{end} of {}", der.len());
        }
        assert!(CertificateFacts::of(&[&der[..], b"\0"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = CertificateFacts::of(&bytes);
        }

        #[test]
        fn no_changed_byte_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut der = certificate(&["shop.example", "::1"], |_| {});
            let at = at.index(der.len());
            der[at] = byte;
            let _ = CertificateFacts::of(&der);
        }
    }
}
