//! Content codings, and which of them a client takes (RFC 9110, 8.4.1 and 12.5.3). Pure.

use http::header::{self, HeaderMap, HeaderValue};

use crate::config::ContentCoding;

/// A coding that answers can be sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coding {
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them, the one that makes the smallest answers first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The same as the value of a field.
    #[must_use]
    pub const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

impl From<ContentCoding> for Coding {
    fn from(named: ContentCoding) -> Self {
        match named {
            ContentCoding::Brotli => Self::Brotli,
            ContentCoding::Zstd => Self::Zstd,
            ContentCoding::Gzip => Self::Gzip,
        }
    }
}

/// Bytes of an Accept-Encoding that are read: all that browsers send is shorter than 100.
const MAX_LENGTH: usize = 1024;

/// How gladly a client takes each coding, in thousandths; 0: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codings {
    weights: [u16; 3],
    /// Of the body as it is. The least that a client says nothing of.
    identity: u16,
}

impl Codings {
    /// Of a client that takes none.
    pub const NONE: Self = Self { weights: [0; 3], identity: 1 };

    /// What a request says of them. Without the field, and when it cannot be read, nothing but the body as it is.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes).peekable();
        if lines.peek().is_none() { Self::NONE } else { Self::read(lines).unwrap_or(Self::NONE) }
    }

    fn read<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut named, mut identity, mut others) = ([None; 3], None, None);
        let mut length = 0;
        for line in lines {
            length += line.len();
            if length > MAX_LENGTH {
                return None;
            }
            for element in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if element.is_empty() {
                    continue;
                }
                let (name, weight) = element_of(element)?;
                let slot = match name {
                    name if name.eq_ignore_ascii_case(b"br") => &mut named[0],
                    name if name.eq_ignore_ascii_case(b"zstd") => &mut named[1],
                    name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => &mut named[2],
                    name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                    b"*" => &mut others,
                    _ => continue,
                };
                slot.get_or_insert(weight);
            }
        }
        let others: Option<u16> = others;
        Some(Self {
            weights: named.map(|weight| weight.or(others).unwrap_or(0)),
            // What is not excluded is acceptable, after all that is asked for.
            identity: identity.unwrap_or(if others == Some(0) { 0 } else { 1 }),
        })
    }

    /// How gladly it takes this one, 0 to 1000; 0: not at all.
    #[must_use]
    pub fn weight(self, coding: Coding) -> u16 {
        self.weights[coding as usize]
    }

    /// Whether it takes any of them.
    #[must_use]
    pub fn has_any(self) -> bool {
        self.weights != [0; 3]
    }

    /// The one of those offered that the client likes best; of two that it likes as much, the first. `None`: the body as it
    /// is, which is also sent to a client that says it takes nothing that there is (as RFC 9110 allows).
    #[must_use]
    pub fn best(self, offered: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best: Option<(Coding, u16)> = None;
        for coding in offered {
            let weight = self.weight(coding);
            if weight > 0 && weight >= self.identity && best.is_none_or(|(_, known)| weight > known) {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// A name and its weight; `None`: it breaks the grammar.
fn element_of(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = element.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next()?;
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return None;
    }
    let weight = match parts.next() {
        None => 1000,
        Some([b'q' | b'Q', b'=', value @ ..]) => thousandths(value)?,
        Some(_) => return None,
    };
    Some((name, weight))
}

/// `qvalue` (RFC 9110, 12.4.2).
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let fraction = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    match (whole, fraction) {
        (b'0', fraction) => Some(fraction),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codings(lines: &[&str]) -> Codings {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        Codings::of(&headers)
    }

    #[test]
    fn what_a_client_likes_best_of_what_there_is() {
        use Coding::{Brotli, Gzip, Zstd};
        for (value, offered, best) in [
            ("gzip, deflate, br, zstd", &Coding::ALL[..], Some(Brotli)),
            ("gzip, deflate, br, zstd", &[Zstd, Gzip], Some(Zstd)),
            ("gzip;q=1.0, br;q=0.9", &Coding::ALL, Some(Gzip)),
            ("br;q=0.001", &Coding::ALL, Some(Brotli)),
            ("br;q=0, gzip", &Coding::ALL, Some(Gzip)),
            ("x-gzip", &Coding::ALL, Some(Gzip)),
            ("GZIP ; Q=0.5", &Coding::ALL, Some(Gzip)),
            ("*", &[Zstd, Gzip], Some(Zstd)),
            ("*;q=0.5, zstd;q=0", &[Zstd, Gzip], Some(Gzip)),
            ("identity, gzip;q=0.5", &Coding::ALL, None),
            ("identity;q=0.5, gzip;q=0.5", &Coding::ALL, Some(Gzip)),
            ("identity;q=0", &Coding::ALL, None),
            ("*;q=0", &Coding::ALL, None),
            ("deflate, compress", &Coding::ALL, None),
            ("", &Coding::ALL, None),
            (" , gzip,, ", &Coding::ALL, Some(Gzip)),
            ("gzip", &[], None),
            // What cannot be read says nothing.
            ("gzip;q=2", &Coding::ALL, None),
            ("gzip;q=0.5000", &Coding::ALL, None),
            ("gzip;level=1", &Coding::ALL, None),
            ("gzip br", &Coding::ALL, None),
            ("gzip;q=", &Coding::ALL, None),
            ("gzip;q=1.001", &Coding::ALL, None),
        ] {
            assert_eq!(codings(&[value]).best(offered.iter().copied()), best, "{value:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(codings(&["br", "gzip;q=0.5"]), codings(&["br, gzip;q=0.5"]));
        assert_eq!(codings(&[]), Codings::NONE);
        assert!(!Codings::NONE.has_any() && codings(&["zstd"]).has_any());
        let long = format!("gzip{}", ", x".repeat(MAX_LENGTH));
        assert_eq!(codings(&[&long]), Codings::NONE);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_choose_what_is_not_named(value in "[a-z*;=, q0-9.]{0,40}") {
            let best = codings(&[&value]).best(Coding::ALL);
            if let Some(coding) = best {
                prop_assert!(value.contains(coding.as_str()) || value.contains('*'), "{:?}", value);
            }
        }
    }
}
