//! The subject of a certificate as text (RFC 4514): what apps compare.
//!
//! The text is printable ASCII, so that it fits into a header field: every other byte is written as `\` and two hex digits,
//! which RFC 4514 allows for any. Names of attributes are those of RFC 4514 and 4519, and `emailAddress` as OpenSSL has it;
//! others are written in numbers, with their value as `#` and the hex digits of its encoding.

use std::fmt;

use super::der::{Der, INTEGER, Malformed, OID, SEQUENCE, SET};

/// Bytes of the longest subject that is passed on. uWSGI takes 4 KiB for all the fields of a request.
pub const LONGEST_SUBJECT: usize = 2048;

/// Why a certificate's subject cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectError {
    /// It is not a certificate as RFC 5280 has it.
    Malformed(Malformed),
    /// It is longer than [`LONGEST_SUBJECT`].
    TooLong,
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => why.fmt(f),
            Self::TooLong => write!(f, "its subject has more than {LONGEST_SUBJECT} bytes as text"),
        }
    }
}

impl std::error::Error for SubjectError {}

impl From<Malformed> for SubjectError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

const VERSION: u8 = 0xa0;

const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;

/// 2.5.4.x
const SHORT_NAMES: [(u8, &str); 17] = [
    (3, "CN"),
    (4, "SN"),
    (5, "serialNumber"),
    (6, "C"),
    (7, "L"),
    (8, "ST"),
    (9, "STREET"),
    (10, "O"),
    (11, "OU"),
    (12, "title"),
    (17, "postalCode"),
    (20, "telephoneNumber"),
    (42, "givenName"),
    (43, "initials"),
    (44, "generationQualifier"),
    (45, "x500UniqueIdentifier"),
    (46, "dnQualifier"),
];
/// 2.5.4
const ATTRIBUTES: &[u8] = &[0x55, 0x04];
/// 0.9.2342.19200300.100.1.1 and .25
const UID: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01];
const DC: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19];
/// 1.2.840.113549.1.9.1
const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

/// The subject of a certificate in DER, its most specific part first: `CN=till-7,OU=Tills,O=Shop`. Empty where the
/// certificate has none.
///
/// # Errors
/// It is no certificate, or its subject is longer than what is passed on.
pub fn subject(der: &[u8]) -> Result<String, SubjectError> {
    let mut certificate = Der::new(Der::new(der).expect(SEQUENCE)?);
    let mut tbs = Der::new(certificate.expect(SEQUENCE)?);
    tbs.optional(VERSION)?;
    tbs.expect(INTEGER)?; // serial number
    tbs.expect(SEQUENCE)?; // signature algorithm
    tbs.expect(SEQUENCE)?; // issuer
    tbs.expect(SEQUENCE)?; // validity
    let text = text(tbs.expect(SEQUENCE)?)?;
    if text.len() > LONGEST_SUBJECT { Err(SubjectError::TooLong) } else { Ok(text) }
}

/// The sets of a name, the last one first (RFC 4514, 2.1).
fn text(name: &[u8]) -> Result<String, Malformed> {
    let mut sets = Vec::new();
    let mut rest = Der::new(name);
    while !rest.is_empty() {
        sets.push(rest.expect(SET)?);
    }
    let mut text = String::new();
    for (i, set) in sets.into_iter().rev().enumerate() {
        if i > 0 {
            text.push(',');
        }
        append_set(&mut text, set)?;
    }
    Ok(text)
}

/// `type=value`, with `+` between several (RFC 4514, 2.2).
fn append_set(text: &mut String, set: &[u8]) -> Result<(), Malformed> {
    let mut attributes = Der::new(set);
    loop {
        let mut attribute = Der::new(attributes.expect(SEQUENCE)?);
        let id = attribute.expect(OID)?;
        let encoded = attribute.rest();
        let (tag, value) = attribute.any()?;
        attribute.end()?;
        let name = short_name(id);
        match name {
            Some(name) => text.push_str(name),
            None => append_numbers(text, id)?,
        }
        text.push('=');
        match string(tag, value).filter(|_| name.is_some()) {
            Some(value) => append_escaped(text, &value),
            None => append_hex(text, encoded),
        }
        if attributes.is_empty() {
            return Ok(());
        }
        text.push('+');
    }
}

fn short_name(id: &[u8]) -> Option<&'static str> {
    match id {
        UID => Some("UID"),
        DC => Some("DC"),
        EMAIL => Some("emailAddress"),
        _ => match id.strip_prefix(ATTRIBUTES)? {
            [last] => SHORT_NAMES.iter().find(|(number, _)| number == last).map(|(_, name)| *name),
            _ => None,
        },
    }
}

/// An object identifier in numbers with dots between (X.690, 8.19).
fn append_numbers(text: &mut String, id: &[u8]) -> Result<(), Malformed> {
    const OBJECT: Malformed = Malformed("one of its object identifiers is none");
    let (mut number, mut is_first, mut is_whole) = (0_u64, true, false);
    for byte in id {
        number = number.checked_mul(128).ok_or(OBJECT)? | u64::from(byte & 0x7f);
        is_whole = byte & 0x80 == 0;
        if !is_whole {
            continue;
        }
        if is_first {
            let root = (number / 40).min(2);
            text.push_str(&format!("{root}.{}", number - root * 40));
        } else {
            text.push_str(&format!(".{number}"));
        }
        (number, is_first) = (0, false);
    }
    if is_whole { Ok(()) } else { Err(OBJECT) }
}

/// The characters of a string; `None`: it is none that is known, or not what its kind allows.
fn string(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8_STRING => std::str::from_utf8(value).ok().map(str::to_owned),
        // Teletex has characters of its own; senders mean Latin-1 by them, or something else.
        NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING | TELETEX_STRING => {
            value.is_ascii().then(|| value.iter().copied().map(char::from).collect())
        }
        BMP_STRING => {
            let (units, rest) = value.as_chunks::<2>();
            let characters = units.iter().map(|unit| char::from_u32(u16::from_be_bytes(*unit).into()));
            characters.collect::<Option<_>>().filter(|_| rest.is_empty())
        }
        UNIVERSAL_STRING => {
            let (units, rest) = value.as_chunks::<4>();
            let characters = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            characters.collect::<Option<_>>().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// A value as RFC 4514, 2.4 has it.
fn append_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_special = matches!(byte, b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\')
            || (byte == b' ' && (at == 0 || at == last))
            || (byte == b'#' && at == 0);
        match byte {
            b' '..=b'~' if is_special => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
}

fn append_hex(text: &mut String, encoded: &[u8]) {
    text.push('#');
    encoded.iter().for_each(|byte| text.push_str(&format!("{byte:02X}")));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    fn of(attributes: Vec<(DnType, DnValue)>) -> Result<String, SubjectError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        attributes.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        subject(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn common(name: &str) -> Result<String, SubjectError> {
        of(vec![(DnType::CommonName, name.into())])
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let subject = of(vec![
            (DnType::CountryName, "DE".into()),
            (DnType::OrganizationName, "Shop".into()),
            (DnType::OrganizationalUnitName, "Tills".into()),
            (DnType::CommonName, "till 7".into()),
        ]);
        assert_eq!(subject.unwrap(), "CN=till 7,OU=Tills,O=Shop,C=DE");
        assert_eq!(of(vec![]).unwrap(), "", "a certificate may have none");
    }

    #[test]
    fn what_means_something_in_the_text_is_escaped() {
        for (value, text) in [
            ("a,O=Admin", r"CN=a\,O=Admin"),
            ("#1", r"CN=\#1"),
            ("a#1", "CN=a#1"),
            (" a b ", r"CN=\ a b\ "),
            (" ", r"CN=\ "),
            ("", "CN="),
            (r#""+;<>\"#, r#"CN=\"\+\;\<\>\\"#),
            ("a\r\nX-Admin: 1", r"CN=a\0D\0AX-Admin: 1"),
            ("nul\0", r"CN=nul\00"),
            ("Zoë", r"CN=Zo\C3\AB"),
            ("a=b", "CN=a=b"),
        ] {
            assert_eq!(common(value).unwrap(), text, "{value:?}");
        }
    }

    #[test]
    fn strings_of_every_kind_are_read() {
        let bmp = DnValue::BmpString("Zoë".parse().unwrap());
        assert_eq!(of(vec![(DnType::CommonName, bmp)]).unwrap(), r"CN=Zo\C3\AB");
        let printable = DnValue::PrintableString("till".try_into().unwrap());
        assert_eq!(of(vec![(DnType::CommonName, printable)]).unwrap(), "CN=till");
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        let address = DnValue::Ia5String("ops@shop.example".try_into().unwrap());
        assert_eq!(of(vec![(email, address)]).unwrap(), "emailAddress=ops@shop.example");
    }

    #[test]
    fn attributes_without_a_name_are_written_in_numbers() {
        let odd = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999, 2]);
        assert_eq!(of(vec![(odd, "hi".into())]).unwrap(), "1.3.6.1.4.1.99999.2=#0C026869");
    }

    #[test]
    fn several_attributes_of_one_set_are_joined() {
        let attribute = |last: u8, value: &[u8]| {
            let value = [&[UTF8_STRING, value.len() as u8], value].concat();
            let contents = [&[OID, 3, 0x55, 4, last], &value[..]].concat();
            [&[SEQUENCE, contents.len() as u8], &contents[..]].concat()
        };
        let set = [attribute(3, b"till"), attribute(5, b"7")].concat();
        let name = [&[SET, set.len() as u8], &set[..]].concat();
        assert_eq!(text(&name).unwrap(), "CN=till+serialNumber=7");
    }

    #[test]
    fn a_subject_that_no_field_should_carry_is_refused() {
        assert!(common(&"a".repeat(LONGEST_SUBJECT - 3)).is_ok());
        assert_eq!(common(&"a".repeat(LONGEST_SUBJECT - 2)), Err(SubjectError::TooLong));
    }

    proptest! {
        #[test]
        fn a_subject_is_printable_ascii_whatever_is_in_it(value in any::<String>()) {
            let mut text = String::new();
            append_escaped(&mut text, &value);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = subject(&bytes);
            let _ = text(&bytes);
        }
    }
}
