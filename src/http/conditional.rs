//! Preconditions: `If-Match` and its kin against what is there now (RFC 9110, 8.8 and 13). Pure.
//!
//! Static files and stored responses answer with it. [`evaluate`] asks in the order of 13.2.2; [`range_applies`] is If-Range,
//! which is asked last, by whoever is about to send a part.
//!
//! | the field | becomes |
//! |---|---|
//! | `If-Match`, `If-None-Match`: a tag that breaks the grammar, and whatever follows it | matches nothing |
//! | more than [`MAX_TAGS`] tags | those beyond match nothing |
//! | `*` beside others | as any tag that breaks the grammar: matches nothing |
//! | `If-Modified-Since`, `If-Unmodified-Since`: no date, two lines, or nothing to compare it with | ignored (13.1.3, 13.1.4) |
//! | `If-Range`: neither tag nor date, or two lines | does not hold: the whole is sent |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Tags of a list that are looked at. Browsers send one, and caches one for each variant that they have.
pub const MAX_TAGS: usize = 64;

/// A tag as it stands in `ETag` (RFC 9110, 8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// What is between the quotes.
    opaque: &'a [u8],
    is_weak: bool,
}

impl<'a> EntityTag<'a> {
    /// Reads a value that is one tag and nothing else.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::first_of(value)?;
        rest.is_empty().then_some(tag)
    }

    /// The tag at the beginning, and what follows it.
    fn first_of(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match text {
            [b'W', b'/', quoted @ ..] => (true, quoted),
            quoted => (false, quoted),
        };
        let [b'"', inside @ ..] = quoted else { return None };
        let end = inside.iter().position(|byte| *byte == b'"')?;
        let opaque = &inside[..end];
        let is_clean = opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7E | 0x80..));
        is_clean.then_some((Self { opaque, is_weak }, &inside[end + 1..]))
    }

    /// Whether it stands for bytes that may differ where the difference does not matter.
    #[must_use]
    pub const fn is_weak(self) -> bool {
        self.is_weak
    }

    /// Whether both stand for the same bytes (8.8.3.2).
    #[must_use]
    pub fn matches_strongly(self, other: EntityTag<'_>) -> bool {
        !self.is_weak && self.matches_weakly(other) && !other.is_weak
    }

    /// Whether one may stand for the other.
    #[must_use]
    pub fn matches_weakly(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// What a representation can be told by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// Its `ETag`.
    pub tag: Option<EntityTag<'a>>,
    /// Its `Last-Modified`, in seconds since 1970.
    pub modified: Option<u64>,
    /// Whether it cannot have changed twice within that second (8.8.2.2).
    pub modified_is_strong: bool,
}

impl<'a> Validators<'a> {
    /// Those of a response. Its date is strong if it was a second old or more when the response was made (`Date`).
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let date = |name| date_of(headers, &name);
        let modified = date(header::LAST_MODIFIED);
        let modified_is_strong = modified.zip(date(header::DATE)).is_some_and(|(modified, made)| modified < made);
        let tag = headers.get(header::ETAG).and_then(|value| EntityTag::parse(value.as_bytes()));
        Self { tag, modified, modified_is_strong }
    }
}

/// What becomes of a request by its preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Proceed,
    /// 304: the client has it already.
    NotModified,
    /// 412: what is there is not what the client believes.
    PreconditionFailed,
}

/// Asks the preconditions of a request for something that exists.
#[must_use]
pub fn evaluate(method: &Method, headers: &HeaderMap, validators: &Validators<'_>) -> Verdict {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if headers.contains_key(header::IF_MATCH) {
        if !lists(headers, &header::IF_MATCH, validators.tag, |ours, tag| ours.matches_strongly(tag)) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some((modified, since)) = validators.modified.zip(date_of(headers, &header::IF_UNMODIFIED_SINCE))
        && modified > since
    {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists(headers, &header::IF_NONE_MATCH, validators.tag, |ours, tag| ours.matches_weakly(tag)) {
            return if reads { Verdict::NotModified } else { Verdict::PreconditionFailed };
        }
    } else if reads
        && let Some((modified, since)) = validators.modified.zip(date_of(headers, &header::IF_MODIFIED_SINCE))
        && modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a request with Range gets a part: there is no `If-Range`, or what it names is still there (13.1.5).
#[must_use]
pub fn range_applies(headers: &HeaderMap, validators: &Validators<'_>) -> bool {
    let mut lines = headers.get_all(header::IF_RANGE).iter();
    let Some(value) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    if let Some(tag) = EntityTag::parse(value.as_bytes()) {
        return validators.tag.is_some_and(|ours| ours.matches_strongly(tag));
    }
    // To the second: another date, earlier or later, is that of another representation.
    validators.modified_is_strong && validators.modified.is_some() && parse_date(value) == validators.modified
}

/// Whether a list of tags has one that fits ours, or is `*`.
fn lists(
    headers: &HeaderMap,
    name: &HeaderName,
    ours: Option<EntityTag<'_>>,
    fits: impl Fn(EntityTag<'_>, EntityTag<'_>) -> bool,
) -> bool {
    let lines = headers.get_all(name);
    let mut one = lines.iter();
    if let (Some(value), None) = (one.next(), one.next())
        && trim(value.as_bytes()) == b"*"
    {
        return true;
    }
    let Some(ours) = ours else { return false };
    let mut left = MAX_TAGS;
    for value in &lines {
        let mut text = value.as_bytes();
        loop {
            while let [b' ' | b'\t' | b',', rest @ ..] = text {
                text = rest;
            }
            let Some((tag, rest)) = EntityTag::first_of(text).filter(|_| left > 0) else { break };
            left -= 1;
            text = rest;
            // A tag ends where its element does.
            while let [b' ' | b'\t', rest @ ..] = text {
                text = rest;
            }
            if !matches!(text, [] | [b',', ..]) {
                return false;
            }
            if fits(ours, tag) {
                return true;
            }
        }
        if !text.is_empty() {
            return false;
        }
    }
    false
}

/// The date of the only line of a field, in seconds since 1970.
fn date_of(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?;
    if lines.next().is_some() { None } else { parse_date(value) }
}

/// Reads a date in any of its three forms (RFC 9110, 5.6.7), in seconds since 1970.
#[must_use]
pub fn parse_date(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// A date as it is sent; `None`: there is no such year.
#[must_use]
pub fn date_value(seconds: u64) -> Option<HeaderValue> {
    // The last second of 9999: years have four digits.
    const LAST: u64 = 253_402_300_799;
    if seconds > LAST {
        return None;
    }
    let date: SystemTime = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    HeaderValue::try_from(httpdate::fmt_http_date(date)).ok()
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use Verdict::{NotModified, PreconditionFailed, Proceed};
    use proptest::prelude::*;

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const SECONDS: u64 = 784_111_777;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        headers
    }

    /// Of something with the tag `"a"`, last modified [`THEN`].
    fn verdict(method: &Method, fields: &[(&str, &str)]) -> Verdict {
        evaluate(method, &headers(fields), &strong())
    }

    fn strong() -> Validators<'static> {
        Validators { tag: EntityTag::parse(b"\"a\""), modified: Some(SECONDS), modified_is_strong: true }
    }

    #[test]
    fn a_tag_is_quoted_and_may_be_weak() {
        let tag = |opaque: &'static str, is_weak| Some(EntityTag { opaque: opaque.as_bytes(), is_weak });
        for (text, expected) in [
            ("\"a\"", tag("a", false)),
            ("W/\"a\"", tag("a", true)),
            ("\"\"", tag("", false)),
            ("\"a,b;c'\\\"", tag("a,b;c'\\", false)),
            ("\"é\"", tag("é", false)),
            ("", None),
            ("a", None),
            ("\"a", None),
            ("a\"", None),
            ("w/\"a\"", None),
            ("W \"a\"", None),
            ("W/a", None),
            ("\"a\" ", None),
            ("\"a b\"", None),
            ("\"a\"\"b\"", None),
            ("\"a\u{7f}\"", None),
            ("*", None),
        ] {
            assert_eq!(EntityTag::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn tags_compare_as_the_table_of_rfc_9110_says() {
        for (one, other, strongly, weakly) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "W/\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let [one, other] = [one, other].map(|text| EntityTag::parse(text.as_bytes()).unwrap());
            assert_eq!((one.matches_strongly(other), one.matches_weakly(other)), (strongly, weakly));
        }
    }

    #[test]
    fn what_a_request_asks_for_is_decided_in_order() {
        let get: &[(&[(&str, &str)], Verdict)] = &[
            (&[], Proceed),
            (&[("if-match", "\"a\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", " * ")], Proceed),
            (&[("if-match", "\"b\", \"a\"")], Proceed),
            (&[("if-match", "\"b\""), ("if-match", ",,\"a\" ,")], Proceed),
            (&[("if-match", "\"b\"")], PreconditionFailed),
            (&[("if-match", "W/\"a\"")], PreconditionFailed),
            (&[("if-match", "")], PreconditionFailed),
            (&[("if-match", "a")], PreconditionFailed),
            (&[("if-match", "*, \"a\"")], PreconditionFailed),
            (&[("if-match", "\"b\", *")], PreconditionFailed),
            (&[("if-match", "\"b\" \"a\"")], PreconditionFailed),
            (&[("if-match", "b, \"a\"")], PreconditionFailed),
            (&[("if-none-match", "\"a\"")], NotModified),
            (&[("if-none-match", "W/\"a\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"b\",W/\"a\"")], NotModified),
            (&[("if-none-match", "\"b\"")], Proceed),
            (&[("if-none-match", "a")], Proceed),
            (&[("if-none-match", "")], Proceed),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", BEFORE)], Proceed),
            (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
            (&[("if-modified-since", "Sun Nov  6 08:49:37 1994")], NotModified),
            (&[("if-modified-since", "yesterday")], Proceed),
            (&[("if-modified-since", "784111777")], Proceed),
            (&[("if-modified-since", THEN), ("if-modified-since", THEN)], Proceed),
            (&[("if-unmodified-since", THEN)], Proceed),
            (&[("if-unmodified-since", AFTER)], Proceed),
            (&[("if-unmodified-since", BEFORE)], PreconditionFailed),
            (&[("if-unmodified-since", "tomorrow")], Proceed),
            // What is said by tags is not asked of dates.
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Proceed),
            (&[("if-none-match", "\"b\""), ("if-modified-since", AFTER)], Proceed),
            (&[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)], NotModified),
            // What must hold is asked before what the client has.
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], PreconditionFailed),
            (&[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)], PreconditionFailed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
        ];
        for (fields, expected) in get {
            assert_eq!(verdict(&Method::GET, fields), *expected, "{fields:?}");
            assert_eq!(verdict(&Method::HEAD, fields), *expected, "{fields:?}");
        }
        for (fields, expected) in [
            ([("if-none-match", "*")], PreconditionFailed),
            ([("if-none-match", "\"a\"")], PreconditionFailed),
            ([("if-none-match", "\"b\"")], Proceed),
            ([("if-modified-since", AFTER)], Proceed),
            ([("if-match", "\"b\"")], PreconditionFailed),
            ([("if-unmodified-since", BEFORE)], PreconditionFailed),
        ] {
            assert_eq!(verdict(&Method::PUT, &fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_has_no_validator_is_told_by_none() {
        let nothing = Validators::default();
        for (fields, expected) in [
            ([("if-match", "\"a\"")], PreconditionFailed),
            ([("if-match", "*")], Proceed),
            ([("if-none-match", "\"a\"")], Proceed),
            ([("if-none-match", "*")], NotModified),
            ([("if-modified-since", AFTER)], Proceed),
            ([("if-unmodified-since", BEFORE)], Proceed),
        ] {
            assert_eq!(evaluate(&Method::GET, &headers(&fields), &nothing), expected, "{fields:?}");
        }
        assert!(range_applies(&headers(&[]), &nothing));
        assert!(!range_applies(&headers(&[("if-range", THEN)]), &nothing));
    }

    #[test]
    fn a_part_is_sent_only_of_what_the_client_has_the_rest_of() {
        for (fields, expected) in [
            (&[][..], true),
            (&[("if-range", "\"a\"")], true),
            (&[("if-range", THEN)], true),
            (&[("if-range", "\"b\"")], false),
            (&[("if-range", "W/\"a\"")], false),
            (&[("if-range", BEFORE)], false),
            (&[("if-range", AFTER)], false),
            (&[("if-range", "*")], false),
            (&[("if-range", "")], false),
            (&[("if-range", "\"a\", \"b\"")], false),
            (&[("if-range", "\"a\""), ("if-range", "\"a\"")], false),
        ] {
            assert_eq!(range_applies(&headers(fields), &strong()), expected, "{fields:?}");
        }
        let fresh = Validators { modified_is_strong: false, ..strong() };
        assert!(!range_applies(&headers(&[("if-range", THEN)]), &fresh), "it may change within the second");
        let weak = Validators { tag: EntityTag::parse(b"W/\"a\""), ..strong() };
        assert!(!range_applies(&headers(&[("if-range", "W/\"a\"")]), &weak));
    }

    #[test]
    fn validators_are_read_from_a_response() {
        let response = headers(&[("etag", "W/\"x\""), ("last-modified", THEN), ("date", AFTER)]);
        let read = Validators::of(&response);
        assert_eq!((read.tag.unwrap().is_weak(), read.modified, read.modified_is_strong), (true, Some(SECONDS), true));
        let made_then = headers(&[("etag", "x"), ("last-modified", THEN), ("date", THEN)]);
        let read = Validators::of(&made_then);
        assert_eq!((read.tag, read.modified, read.modified_is_strong), (None, Some(SECONDS), false));
    }

    #[test]
    fn of_a_long_list_the_beginning_counts() {
        let list = |before: usize| format!("{}\"a\"", "\"x\", ".repeat(before));
        assert_eq!(verdict(&Method::GET, &[("if-none-match", &list(MAX_TAGS - 1))]), NotModified);
        assert_eq!(verdict(&Method::GET, &[("if-none-match", &list(MAX_TAGS))]), Proceed);
    }

    #[test]
    fn dates_have_four_digits_for_the_year() {
        assert_eq!(date_value(SECONDS).unwrap(), THEN);
        assert_eq!(date_value(253_402_300_799).unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(date_value(253_402_300_800), None);
        assert_eq!(date_value(u64::MAX), None);
    }

    /// The same decision, written again from the text of 13.2.2.
    fn by_the_book(
        match_: Option<bool>,
        unmodified: Option<bool>,
        none: Option<bool>,
        modified: Option<bool>,
    ) -> Verdict {
        let first = match_.or(unmodified).unwrap_or(true);
        let second = none.or(modified).unwrap_or(true);
        match (first, second) {
            (false, _) => PreconditionFailed,
            (true, false) => NotModified,
            (true, true) => Proceed,
        }
    }

    proptest! {
        #[test]
        fn every_mixture_is_decided_by_the_book(
            match_: Option<bool>, unmodified: Option<bool>, none: Option<bool>, modified: Option<bool>,
        ) {
            let mut fields = Vec::new();
            fields.extend(match_.map(|holds| ("if-match", if holds { "\"a\"" } else { "\"b\"" })));
            fields.extend(unmodified.map(|holds| ("if-unmodified-since", if holds { THEN } else { BEFORE })));
            fields.extend(none.map(|holds| ("if-none-match", if holds { "\"b\"" } else { "\"a\"" })));
            fields.extend(modified.map(|holds| ("if-modified-since", if holds { BEFORE } else { THEN })));
            prop_assert_eq!(verdict(&Method::GET, &fields), by_the_book(match_, unmodified, none, modified));
        }

        #[test]
        fn a_tag_is_found_wherever_it_stands(
            before in prop::collection::vec("[!#-~]{0,6}", 0..8), after in prop::collection::vec("[!#-~]{0,6}", 0..8), weak: bool,
        ) {
            let quote = |tags: &[String]| tags.iter().map(|tag| format!("\"{tag}\"")).collect::<Vec<_>>();
            let ours = if weak { "W/\"a\"" } else { "\"a\"" };
            let list = [quote(&before), vec![ours.to_owned()], quote(&after)].concat().join(" , ");
            prop_assert_eq!(verdict(&Method::GET, &[("if-none-match", &list)]), NotModified);
        }

        #[test]
        fn no_bytes_match_what_they_do_not_hold(value in "[*W/\", ab\u{e9}]{0,24}") {
            let is_said = value.contains("\"a\"");
            if verdict(&Method::GET, &[("if-none-match", &value)]) == NotModified {
                prop_assert!(is_said || value.trim() == "*", "{:?}", value);
            }
            if verdict(&Method::GET, &[("if-match", &value)]) == Proceed {
                prop_assert!(is_said || value.trim() == "*", "{:?}", value);
            }
            let _ = range_applies(&headers(&[("if-range", &value), ("if-modified-since", &value)]), &strong());
        }

        #[test]
        fn dates_are_read_back(seconds in 0..253_402_300_800_u64) {
            prop_assert_eq!(parse_date(&date_value(seconds).unwrap()), Some(seconds));
        }
    }
}
