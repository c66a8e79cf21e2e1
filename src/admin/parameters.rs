//! What a control request is about: `upstream` and `endpoint`, from the query or from a form in the body.
//!
//! Percent-encoding is decoded; `+` is a plus, because addresses have it (`uwsgi+unix:`), and `/` and `:` need no
//! encoding, so that an address can be written as it is. Where there are no addresses, it is a space, as forms have it.

/// The longest query or form.
pub(super) const LONGEST: usize = 4 << 10;

/// What a control request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The name of an upstream.
    pub upstream: Option<String>,
    /// The address of an endpoint.
    pub endpoint: Option<String>,
}

impl Parameters {
    /// Reads `name=value` pairs with `&` between them, from all `pieces` together.
    ///
    /// # Errors
    /// A sentence that says what is wrong: an unknown name, one that comes twice, one without a value, and what cannot be
    /// decoded to text without control characters.
    pub fn parse(pieces: &[&[u8]]) -> Result<Self, String> {
        let mut parameters = Self::default();
        for (name, value) in pairs(pieces, b'+') {
            let place = match name {
                b"upstream" => &mut parameters.upstream,
                b"endpoint" => &mut parameters.endpoint,
                _ => {
                    let name = String::from_utf8_lossy(&name[..name.len().min(64)]);
                    return Err(format!(
                        "`{}` is not a parameter: there are `upstream` and `endpoint`",
                        name.escape_debug()
                    ));
                }
            };
            let name = if name == b"upstream" { "upstream" } else { "endpoint" };
            let value = value.ok_or_else(|| format!("the value of `{name}` cannot be read"))?;
            if value.is_empty() {
                return Err(format!("`{name}` has no value"));
            }
            if place.replace(value).is_some() {
                return Err(format!("`{name}` comes twice"));
            }
        }
        Ok(parameters)
    }
}

/// The pairs of all pieces together: names as they stand, and values decoded, in which `+` is a `plus`. `None`: one that cannot be.
pub(super) fn pairs<'p>(pieces: &'p [&'p [u8]], plus: u8) -> impl Iterator<Item = (&'p [u8], Option<String>)> {
    let pairs = pieces.iter().flat_map(|piece| piece.split(|byte| *byte == b'&')).filter(|pair| !pair.is_empty());
    pairs.map(move |pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..end], decode(pair.get(end + 1..).unwrap_or_default(), plus))
    })
}

/// `None`: a `%` without two hex digits, no UTF-8, or a control character.
fn decode(value: &[u8], plus: u8) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(&byte) = rest.next() {
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        match byte {
            b'%' => decoded.push(u8::try_from(digit()? << 4 | digit()?).ok()?),
            b'+' => decoded.push(plus),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<(Option<String>, Option<String>), String> {
        Parameters::parse(&[text.as_bytes()]).map(|parameters| (parameters.upstream, parameters.endpoint))
    }

    #[test]
    fn an_address_can_be_written_as_it_is() {
        let both = |upstream: &str, endpoint: &str| Ok((Some(upstream.into()), Some(endpoint.into())));
        assert_eq!(parsed("upstream=app&endpoint=uwsgi+unix:/run/a.sock"), both("app", "uwsgi+unix:/run/a.sock"));
        assert_eq!(parsed("&endpoint=http%3A%2f%2F[::1]:80&&upstream=app"), both("app", "http://[::1]:80"));
        assert_eq!(parsed("endpoint=unix:/a%20b=c").unwrap().1.as_deref(), Some("unix:/a b=c"));
        assert_eq!(parsed(""), Ok((None, None)));
        let pieces = Parameters::parse(&[b"upstream=app", b"endpoint=unix:/a"]).unwrap();
        assert_eq!((pieces.upstream.as_deref(), pieces.endpoint.as_deref()), (Some("app"), Some("unix:/a")));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, said) in [
            ("upstrem=app", "`upstrem` is not a parameter"),
            ("\u{1b}[1m", "is not a parameter"),
            ("upstream=a&upstream=a", "`upstream` comes twice"),
            ("upstream", "`upstream` has no value"),
            ("endpoint=", "`endpoint` has no value"),
            ("endpoint=%", "cannot be read"),
            ("endpoint=%4", "cannot be read"),
            ("endpoint=%+1", "cannot be read"),
            ("endpoint=%ff", "cannot be read"),
            ("endpoint=a%00", "cannot be read"),
            ("endpoint=a\n", "cannot be read"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(said) && !error.contains('\u{1b}'), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn encoded_values_read_back(value in "[^\\p{Cc}]{1,40}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(parsed(&format!("endpoint={encoded}")), Ok((None, Some(value))));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(parameters) = Parameters::parse(&[&bytes]) {
                for value in parameters.upstream.iter().chain(&parameters.endpoint) {
                    prop_assert!(!value.is_empty() && !value.contains(char::is_control));
                }
            }
        }
    }
}
