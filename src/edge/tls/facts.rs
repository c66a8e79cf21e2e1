//! What a certificate says of itself: for which names and addresses, and for how long.
//!
//! The TLS library validates certificates of others and does not tell the contents of our own. So this walks the DER of
//! RFC 5280 to the two places needed, strictly, and interprets nothing else.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

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
}

/// Why a certificate cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
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
        let mut outer = Der(der);
        let mut certificate = Der(outer.expect(SEQUENCE)?);
        outer.end()?;
        let mut tbs = Der(certificate.expect(SEQUENCE)?);
        tbs.optional(VERSION)?;
        tbs.expect(INTEGER)?; // serial number
        tbs.expect(SEQUENCE)?; // signature algorithm
        tbs.expect(SEQUENCE)?; // issuer
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.end()?;
        tbs.expect(SEQUENCE)?; // subject
        tbs.expect(SEQUENCE)?; // public key
        tbs.optional(ISSUER_ID)?;
        tbs.optional(SUBJECT_ID)?;
        let mut facts = Self { dns_names: Vec::new(), addresses: Vec::new(), not_before, not_after };
        if let Some(extensions) = tbs.optional(EXTENSIONS)? {
            facts.read_extensions(extensions)?;
        }
        tbs.end()?;
        Ok(facts)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Result<(), Malformed> {
        let mut outer = Der(extensions);
        let mut list = Der(outer.expect(SEQUENCE)?);
        outer.end()?;
        while !list.0.is_empty() {
            let mut extension = Der(list.expect(SEQUENCE)?);
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
        let mut outer = Der(value);
        let mut names = Der(outer.expect(SEQUENCE)?);
        outer.end()?;
        while !names.0.is_empty() {
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

/// What is left of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and contents.
    fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        const CUT: Malformed = Malformed("its encoding is cut short");
        const LENGTH: Malformed = Malformed("its encoding has a length that DER does not allow");
        let (&tag, rest) = self.0.split_first().ok_or(CUT)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed("its encoding has a tag that no certificate has"));
        }
        let (&first, mut rest) = rest.split_first().ok_or(CUT)?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let width = usize::from(first & 0x7f);
            if !(1..=3).contains(&width) {
                return Err(LENGTH); // indefinite, or 16 MiB and more
            }
            let (bytes, after) = rest.split_at_checked(width).ok_or(CUT)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            if length < 0x80 || bytes[0] == 0 {
                return Err(LENGTH); // not the shortest form
            }
            rest = after;
        }
        let (contents, rest) = rest.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok((tag, contents))
    }

    fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.any().map(|(_, contents)| Some(contents)) } else { Ok(None) }
    }

    fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        self.optional(tag)?.ok_or(Malformed("its encoding is not that of a certificate"))
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("its encoding has more than a certificate has")) }
    }

    fn time(&mut self) -> Result<SystemTime, Malformed> {
        const TIME: Malformed = Malformed("one of its dates is not a date");
        let (tag, text) = self.any()?;
        let (year, rest) = match tag {
            // Two digits: 1950 to 2049.
            UTC_TIME => text.split_at_checked(2).and_then(|(yy, rest)| {
                let yy = number(yy)?;
                Some((if yy < 50 { 2000 + yy } else { 1900 + yy }, rest))
            }),
            GENERALIZED_TIME => text.split_at_checked(4).and_then(|(yyyy, rest)| Some((number(yyyy)?, rest))),
            _ => None,
        }
        .ok_or(TIME)?;
        let rest = rest.strip_suffix(b"Z").filter(|rest| rest.len() == 10).ok_or(TIME)?;
        let part = |at: usize| number(&rest[at..at + 2]).ok_or(TIME);
        let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return Err(TIME);
        }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        time.ok_or(TIME)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
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
    fn dates_before_1970_and_the_century_of_two_digits_are_understood() {
        let time = |tag: u8, text: &str| Der(&[&[tag, text.len() as u8], text.as_bytes()].concat()).time();
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(unix(0)));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(SystemTime::UNIX_EPOCH - Duration::from_secs(631_152_000)));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(unix(2_524_607_999)));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Ok(unix(253_402_300_799)));
        for text in ["701301000000Z", "700100000000Z", "7001010000Z", "700101000000+0100", "70010100000xZ", ""] {
            assert!(time(UTC_TIME, text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_cut_or_has_more_is_refused() {
        let der = certificate(&["shop.example"], |_| {});
        for end in 0..der.len() {
            assert!(CertificateFacts::of(&der[..end]).is_err(), "{end} of {}", der.len());
        }
        assert!(CertificateFacts::of(&[&der[..], b"\0"].concat()).is_err());
    }

    #[test]
    fn lengths_that_der_does_not_allow_are_refused() {
        for bytes in
            [&[0x30, 0x80, 0, 0][..], &[0x30, 0x81, 0x01, 0], &[0x30, 0x82, 0, 0x80], &[0x30, 0x84, 0, 0, 0, 0]]
        {
            assert!(Der(bytes).any().is_err(), "{bytes:?}");
        }
        assert!(Der(&[0x3f, 0x01, 0x00]).any().is_err());
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
