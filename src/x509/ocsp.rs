//! An OCSP response (RFC 6960) as a server needs it that shows it beside its certificate: whether it speaks well of that
//! certificate, and until when. Its signature is for the client to check.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::der::{Der, ENUMERATED, GENERALIZED_TIME, INTEGER, Malformed, OCTET_STRING, OID, SEQUENCE};

/// Bytes of the largest response that is shown: it goes out with every handshake.
pub const LARGEST_RESPONSE: usize = 64 << 10;

/// How far the clock of whoever signs may be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

/// id-pkix-ocsp-basic: 1.3.6.1.5.5.7.48.1.1
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
const EXPLICIT_0: u8 = 0xa0;
const RESPONDER_BY_NAME: u8 = 0xa1;
const RESPONDER_BY_KEY: u8 = 0xa2;
/// `CertStatus`, implicit tags.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
const UNKNOWN: u8 = 0x82;

/// A response that may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staple {
    /// When it is over (`nextUpdate`); `None`: it does not say.
    pub until: Option<SystemTime>,
}

/// Why a response is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStapled {
    /// It is not a response as RFC 6960 has it.
    Malformed(Malformed),
    /// It has more than [`LARGEST_RESPONSE`].
    TooLarge,
    /// The responder could not or would not answer; its `OCSPResponseStatus`.
    Unsuccessful(u8),
    /// It speaks of other certificates only.
    OfAnother,
    /// The certificate is revoked.
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
    /// It is over (`nextUpdate`).
    Expired,
    /// It does not hold yet (`thisUpdate`).
    NotYet,
}

impl fmt::Display for NotStapled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "it is not an OCSP response in DER: {why}"),
            Self::TooLarge => write!(f, "it has more than {} KiB", LARGEST_RESPONSE >> 10),
            Self::Unsuccessful(status) => {
                let status = match status {
                    1 => "malformedRequest",
                    2 => "internalError",
                    3 => "tryLater",
                    5 => "sigRequired",
                    6 => "unauthorized",
                    _ => "an unknown status",
                };
                write!(f, "the responder has not answered the question ({status})")
            }
            Self::OfAnother => f.write_str("it is not about this certificate"),
            Self::Revoked => f.write_str("it says that the certificate is revoked"),
            Self::Unknown => f.write_str("the responder does not know the certificate"),
            Self::Expired => f.write_str("it has expired"),
            Self::NotYet => f.write_str("it is not valid yet"),
        }
    }
}

impl std::error::Error for NotStapled {}

impl From<Malformed> for NotStapled {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Staple {
    /// Judges a response in DER about the certificate with this serial number.
    ///
    /// # Errors
    /// Why it is not to be shown.
    pub fn judge(response: &[u8], serial: &[u8], now: SystemTime) -> Result<Self, NotStapled> {
        if response.len() > LARGEST_RESPONSE {
            return Err(NotStapled::TooLarge);
        }
        let mut singles = Der::new(responses(response)?);
        while !singles.is_empty() {
            let mut single = Der::new(singles.expect(SEQUENCE)?);
            if serial_of(single.expect(SEQUENCE)?)? == serial {
                return Self::of(&mut single, now);
            }
        }
        Err(NotStapled::OfAnother)
    }

    /// What follows the `CertID` of a `SingleResponse`.
    fn of(single: &mut Der<'_>, now: SystemTime) -> Result<Self, NotStapled> {
        match single.any()?.0 {
            GOOD => {}
            REVOKED => return Err(NotStapled::Revoked),
            UNKNOWN => return Err(NotStapled::Unknown),
            _ => return Err(Malformed("a certificate in it has a status that is not known").into()),
        }
        if single.time()? > now + SKEW {
            return Err(NotStapled::NotYet);
        }
        let until = single.optional(EXPLICIT_0)?.map(|time| Der::new(time).time()).transpose()?;
        if until.is_some_and(|until| until <= now) { Err(NotStapled::Expired) } else { Ok(Self { until }) }
    }
}

/// The `responses` of a `BasicOCSPResponse`.
fn responses(response: &[u8]) -> Result<&[u8], NotStapled> {
    let mut outer = Der::new(response);
    let mut response = Der::new(outer.expect(SEQUENCE)?);
    outer.end()?;
    match response.expect(ENUMERATED)? {
        [0] => {}
        [status] => return Err(NotStapled::Unsuccessful(*status)),
        _ => return Err(Malformed("its status is none").into()),
    }
    let mut bytes = Der::new(Der::new(response.expect(EXPLICIT_0)?).expect(SEQUENCE)?);
    if bytes.expect(OID)? != BASIC {
        return Err(Malformed("it is of a kind other than id-pkix-ocsp-basic").into());
    }
    let mut basic = Der::new(Der::new(bytes.expect(OCTET_STRING)?).expect(SEQUENCE)?);
    let mut data = Der::new(basic.expect(SEQUENCE)?);
    data.optional(EXPLICIT_0)?; // version
    if data.optional(RESPONDER_BY_NAME)?.is_none() {
        data.expect(RESPONDER_BY_KEY)?;
    }
    data.expect(GENERALIZED_TIME)?; // producedAt
    Ok(data.expect(SEQUENCE)?)
}

fn serial_of(id: &[u8]) -> Result<&[u8], Malformed> {
    let mut id = Der::new(id);
    id.expect(SEQUENCE)?; // hash algorithm
    id.expect(OCTET_STRING)?; // issuer's name
    id.expect(OCTET_STRING)?; // issuer's key
    id.expect(INTEGER)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let length =
            if length < 0x80 { vec![length as u8] } else { vec![0x82, (length >> 8) as u8, (length & 0xff) as u8] };
        // The long form of two bytes is the shortest one from 256 on.
        let length = if (0x80..0x100).contains(&contents.len()) { vec![0x81, contents.len() as u8] } else { length };
        [&[tag], &length[..], contents].concat()
    }

    /// `YYYYMMDDHHMMSSZ` of a moment.
    fn time(at: SystemTime) -> Vec<u8> {
        let date = httpdate::HttpDate::from(at).to_string(); // Sun, 06 Nov 1994 08:49:37 GMT
        let words: Vec<&str> = date.split([' ', ':']).collect();
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = 1 + months.iter().position(|month| *month == words[2]).unwrap();
        let text = format!("{}{month:02}{}{}{}{}Z", words[3], words[1], words[4], words[5], words[6]);
        element(GENERALIZED_TIME, text.as_bytes())
    }

    /// A response about the certificate with this serial number, with a signature of nobody.
    pub(crate) fn response(serial: &[u8], status: &[u8], from: SystemTime, until: Option<SystemTime>) -> Vec<u8> {
        let algorithm = element(SEQUENCE, &element(OID, &[0x2b, 0x0e, 0x03, 0x02, 0x1a]));
        let hash = element(OCTET_STRING, &[7; 20]);
        let id = element(SEQUENCE, &[&algorithm[..], &hash, &hash, &element(INTEGER, serial)].concat());
        let until = until.map(|until| element(EXPLICIT_0, &time(until))).unwrap_or_default();
        let single = element(SEQUENCE, &[&id[..], status, &time(from), &until].concat());
        let by_key = element(RESPONDER_BY_KEY, &hash);
        let data = element(SEQUENCE, &[&by_key[..], &time(from), &element(SEQUENCE, &single)].concat());
        let basic = element(SEQUENCE, &[&data[..], &algorithm, &element(0x03, &[0, 1, 2, 3])].concat());
        let bytes = element(SEQUENCE, &[element(OID, BASIC), element(OCTET_STRING, &basic)].concat());
        element(SEQUENCE, &[element(ENUMERATED, &[0]), element(EXPLICIT_0, &bytes)].concat())
    }

    fn judged(status: &[u8], from: u64, until: Option<u64>) -> Result<Staple, NotStapled> {
        Staple::judge(&response(&[1, 2], status, at(from), until.map(at)), &[1, 2], at(NOW))
    }

    #[test]
    fn a_good_response_is_shown_until_its_next_update() {
        assert_eq!(judged(&[GOOD, 0], NOW - 10, Some(NOW + 10)), Ok(Staple { until: Some(at(NOW + 10)) }));
        assert_eq!(judged(&[GOOD, 0], NOW - 10, None), Ok(Staple { until: None }));
        assert_eq!(judged(&[GOOD, 0], NOW + 299, None), Ok(Staple { until: None }), "clocks differ");
    }

    #[test]
    fn what_does_not_speak_well_of_the_certificate_is_not_shown() {
        let revoked = element(REVOKED, &time(at(NOW - 100)));
        assert_eq!(judged(&revoked, NOW - 10, Some(NOW + 10)), Err(NotStapled::Revoked));
        assert_eq!(judged(&[UNKNOWN, 0], NOW - 10, Some(NOW + 10)), Err(NotStapled::Unknown));
        assert!(matches!(judged(&[0x83, 0], NOW - 10, Some(NOW + 10)), Err(NotStapled::Malformed(_))));
        assert_eq!(judged(&[GOOD, 0], NOW - 10, Some(NOW)), Err(NotStapled::Expired));
        assert_eq!(judged(&[GOOD, 0], NOW + 301, Some(NOW + 900)), Err(NotStapled::NotYet));
        let of_another = Staple::judge(&response(&[9], &[GOOD, 0], at(NOW), None), &[1, 2], at(NOW));
        assert_eq!(of_another, Err(NotStapled::OfAnother));
        assert_eq!(Staple::judge(&[0x30, 3, 0x0a, 1, 3], &[1], at(NOW)), Err(NotStapled::Unsuccessful(3)));
        assert_eq!(Staple::judge(&vec![0; LARGEST_RESPONSE + 1], &[1], at(NOW)), Err(NotStapled::TooLarge));
        assert!(matches!(Staple::judge(b"-----BEGIN", &[1], at(NOW)), Err(NotStapled::Malformed(_))));
    }

    #[test]
    fn a_response_that_is_cut_is_not_shown() {
        let whole = response(&[1, 2], &[GOOD, 0], at(NOW), Some(at(NOW + 10)));
        assert!(Staple::judge(&whole, &[1, 2], at(NOW)).is_ok());
        for end in 0..whole.len() {
            let judged = Staple::judge(&whole[..end], &[1, 2], at(NOW));
            assert!(matches!(judged, Err(NotStapled::Malformed(_))), "{end}: {judged:?}");
        }
    }

    proptest! {
        #[test]
        fn no_changed_byte_makes_it_panic(index in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = response(&[1, 2], &[GOOD, 0], at(NOW), Some(at(NOW + 10)));
            let index = index.index(bytes.len());
            bytes[index] = byte;
            let _ = Staple::judge(&bytes, &[1, 2], at(NOW));
        }
    }
}
