//! What an app tells the edge in the head of its answer: `X-Accel-*`, as nginx has them, and `X-Sendfile`, as Apache and
//! lighttpd have it. None of these fields reaches a client: see [`super::fields`].
//!
//! Whoever has the head first reads them, because an app that hands its answer over may announce a body that never comes.
//! The layer that acts on them finds them among the answer's extensions.
//!
//! | field | value | otherwise |
//! |---|---|---|
//! | `X-Accel-Redirect` | a path, percent-encoded, and a query | read where it is followed |
//! | `X-Sendfile`, `X-LIGHTTPD-send-file` | an absolute path | read where it is followed |
//! | `X-Accel-Buffering` | `yes`, `no` in any case | nothing |
//! | `X-Accel-Limit-Rate` | bytes a second; `0`, `off`: no limit | nothing, with a word in the log |
//! | `X-Accel-Charset` | a name; `off` | nothing, with a word in the log |
//! | `X-Accel-Expires` | for a cache | nothing |
//!
//! Of a field that stands there twice the first line counts, with a word in the log.

use std::num::NonZeroU64;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Bytes of a charset's name: the longest that is registered has 45.
const MAX_CHARSET: usize = 64;

/// Which of its answers the app of a route may hand over to the edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handovers {
    /// To another route of its site (`X-Accel-Redirect`).
    pub to_routes: bool,
    /// To a file (`X-Sendfile`).
    pub to_files: bool,
}

/// To whom an app hands its answer over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover<'a> {
    /// To whatever route takes this.
    Route(&'a HeaderValue),
    /// To the file that is called so.
    File(&'a HeaderValue),
}

/// What an app says of the charset of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charset {
    /// A name: letters, digits and a few signs.
    Named(Box<str>),
    /// The edge is to add none.
    Off,
}

/// What is left of a request whose answer the app has handed over.
#[derive(Debug, Clone)]
pub struct Asked {
    /// As received.
    pub method: Method,
    /// As the app got them.
    pub headers: HeaderMap,
}

/// What the head of one answer says.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// `X-Accel-Redirect`.
    pub redirect: Option<HeaderValue>,
    /// `X-Sendfile`, or lighttpd's name for it.
    pub file: Option<HeaderValue>,
    /// `X-Accel-Buffering`: whether the answer is to be read ahead.
    pub buffering: Option<bool>,
    /// `X-Accel-Limit-Rate`: bytes a second. `None`: as fast as it goes.
    pub limit_rate: Option<NonZeroU64>,
    /// `X-Accel-Charset`.
    pub charset: Option<Charset>,
    /// A field that was not taken as it stands there, and why, for the log.
    pub doubt: Option<(HeaderName, &'static str)>,
    /// Set where the answer has been handed over: its worker is free, and it has no body.
    pub asked: Option<Asked>,
}

impl Told {
    /// What these fields say; `None`, almost always: nothing. One look at each name.
    #[must_use]
    pub fn by(headers: &HeaderMap) -> Option<Box<Self>> {
        headers.keys().any(is_for_the_edge).then(|| Box::new(Self::read(headers)))
    }

    #[cold]
    fn read(headers: &HeaderMap) -> Self {
        let mut told = Self::default();
        for name in headers.keys().filter(|name| is_for_the_edge(name)) {
            let mut lines = headers.get_all(name).iter();
            let Some(value) = lines.next() else { continue };
            if lines.next().is_some() {
                told.doubt = Some((name.clone(), "stands there more than once: the first one counts"));
            }
            match name.as_str() {
                "x-accel-redirect" => told.redirect = Some(value.clone()),
                // The usual name wins.
                "x-sendfile" => told.file = Some(value.clone()),
                "x-lighttpd-send-file" => told.file = told.file.or_else(|| Some(value.clone())),
                "x-accel-buffering" => told.buffering = yes_or_no(value),
                "x-accel-limit-rate" => match rate(value) {
                    Some(rate) => told.limit_rate = NonZeroU64::new(rate),
                    None => told.doubt = Some((name.clone(), "is no number of bytes a second: ignored")),
                },
                "x-accel-charset" => match charset(value) {
                    Some(charset) => told.charset = Some(charset),
                    None => told.doubt = Some((name.clone(), "is no name of a charset: ignored")),
                },
                _ => {}
            }
        }
        told
    }

    /// To whom the answer is handed over, where `allowed` lets it be. nginx's way goes before Apache's.
    #[must_use]
    pub fn handover(&self, allowed: Handovers) -> Option<Handover<'_>> {
        let to_route = self.redirect.as_ref().filter(|_| allowed.to_routes).map(Handover::Route);
        to_route.or_else(|| self.file.as_ref().filter(|_| allowed.to_files).map(Handover::File))
    }
}

fn is_for_the_edge(name: &HeaderName) -> bool {
    let Some(rest) = name.as_str().strip_prefix("x-") else { return false };
    rest.starts_with("accel-") || matches!(rest, "sendfile" | "lighttpd-send-file")
}

fn yes_or_no(value: &HeaderValue) -> Option<bool> {
    match value.as_bytes() {
        value if value.eq_ignore_ascii_case(b"yes") => Some(true),
        value if value.eq_ignore_ascii_case(b"no") => Some(false),
        _ => None,
    }
}

/// Zero: no limit.
fn rate(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    if text.eq_ignore_ascii_case("off") {
        return Some(0);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn charset(value: &HeaderValue) -> Option<Charset> {
    let text = value.to_str().ok()?;
    if text.eq_ignore_ascii_case("off") {
        return Some(Charset::Off);
    }
    // RFC 2978, 2.3, without what would have to be quoted in a parameter.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-^_`~.".contains(&byte);
    let fits = !text.is_empty() && text.len() <= MAX_CHARSET;
    (fits && text.bytes().all(is_name)).then(|| Charset::Named(text.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(fields: &[(&'static str, &str)]) -> Option<Told> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Told::by(&headers).map(|told| *told)
    }

    #[test]
    fn an_answer_without_such_fields_says_nothing() {
        assert!(told(&[]).is_none());
        let plain = [("content-type", "text/html"), ("x-frame-options", "DENY"), ("x-sendfile-type", "X-Sendfile")];
        assert!(told(&plain).is_none());
        assert!(told(&[("x-accel-expires", "10")]).is_some_and(|told| told.doubt.is_none()));
    }

    #[test]
    fn only_what_a_route_allows_is_handed_over_and_nginxs_way_goes_first() {
        let both = told(&[("x-sendfile", "/srv/a"), ("x-accel-redirect", "/p/a")]).unwrap();
        let old = told(&[("x-lighttpd-send-file", "/srv/b"), ("x-sendfile", "/srv/a")]).unwrap();
        let (route, file) = (HeaderValue::from_static("/p/a"), HeaderValue::from_static("/srv/a"));
        for (told, to_routes, to_files, handover) in [
            (&both, true, true, Some(Handover::Route(&route))),
            (&both, true, false, Some(Handover::Route(&route))),
            (&both, false, true, Some(Handover::File(&file))),
            (&both, false, false, None),
            (&old, true, true, Some(Handover::File(&file))),
            (&old, true, false, None),
        ] {
            assert_eq!(told.handover(Handovers { to_routes, to_files }), handover);
        }
    }

    #[test]
    fn values_are_read_as_nginx_reads_them() {
        for (value, buffering) in
            [("yes", Some(true)), ("YES", Some(true)), ("no", Some(false)), ("No", Some(false)), ("off", None)]
        {
            assert_eq!(told(&[("x-accel-buffering", value)]).unwrap().buffering, buffering, "{value}");
        }
        for (value, rate, is_doubted) in [
            ("1000", Some(1000), false),
            ("0", None, false),
            ("off", None, false),
            ("10k", None, true),
            ("-1", None, true),
            ("", None, true),
            ("99999999999999999999999", None, true),
        ] {
            let told = told(&[("x-accel-limit-rate", value)]).unwrap();
            assert_eq!((told.limit_rate.map(NonZeroU64::get), told.doubt.is_some()), (rate, is_doubted), "{value}");
        }
        for (value, charset, is_doubted) in [
            ("utf-8", Some(Charset::Named("utf-8".into())), false),
            ("off", Some(Charset::Off), false),
            ("", None, true),
            ("utf-8; x=y", None, true),
            ("\"utf-8\"", None, true),
        ] {
            let told = told(&[("x-accel-charset", value)]).unwrap();
            assert_eq!((told.charset, told.doubt.is_some()), (charset, is_doubted), "{value}");
        }
    }

    #[test]
    fn the_first_of_two_lines_counts_and_that_is_told() {
        let told = told(&[("x-accel-redirect", "/a"), ("x-accel-redirect", "/b")]).unwrap();
        assert_eq!(told.redirect.unwrap(), "/a");
        assert_eq!(told.doubt.unwrap().0, "x-accel-redirect");
    }

    proptest! {
        #[test]
        fn no_value_does_harm(value in "[ -~\u{e9}]{0,80}") {
            for name in ["x-accel-redirect", "x-sendfile", "x-accel-buffering", "x-accel-limit-rate", "x-accel-charset"] {
                let told = told(&[(name, value.trim())]).unwrap();
                if let Some(Charset::Named(name)) = told.charset {
                    prop_assert!(!name.contains([' ', ';', ',', '"', '=', '\\']));
                }
            }
        }
    }
}
