//! Entity tags of compressed answers (RFC 9110, 8.8.3 and 13.1). Pure.
//!
//! A strong tag says that two answers are the same byte for byte. What is compressed is not what the app has tagged, so its
//! tag becomes a weak one, with a mark within: `"abc"` becomes `W/"abc-hostler"`. The mark tells our weak tags from those of
//! the app's own, which stay as they are both ways.
//!
//! | from the client | to the app |
//! |---|---|
//! | `If-None-Match`, `If-Match` with a marked tag | with the app's own strong tag: it has never heard of the other, and of weak ones `If-Match` takes none |
//! | `If-Range` with a marked tag | without it and without `Range`: a part of the plain answer does not continue a compressed one (13.1.5) |
//!
//! A 304 has the tag that its client holds.

use std::ops::Range;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// At the end of the opaque part.
const MARK: &[u8] = b"-hostler";

/// Gives a compressed answer its weak tag. What is no tag is taken away: it would stand for two answers that differ.
pub(super) fn weaken(headers: &mut HeaderMap) {
    let Some(value) = headers.get(header::ETAG) else { return };
    match Tag::read(value.as_bytes()) {
        Some((Tag { is_weak: true, .. }, [])) => {}
        Some((tag, [])) => {
            if let Some(marked) = tag.marked() {
                headers.insert(header::ETAG, marked);
            }
        }
        _ => drop(headers.remove(header::ETAG)),
    }
}

/// What a client has said with marked tags, kept for the answer. Nothing, for most requests.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<HeaderValue>);

/// Puts the app's own tags where a request has marked ones.
pub(super) fn restore(headers: &mut HeaderMap) -> Held {
    let mut held = Held::default();
    if headers.get(header::IF_RANGE).is_some_and(|value| has_mark(value.as_bytes())) {
        headers.remove(header::IF_RANGE);
        headers.remove(header::RANGE);
    }
    let is_condition = |name: &HeaderName| *name == header::IF_NONE_MATCH || *name == header::IF_MATCH;
    if !headers.contains_key(header::IF_NONE_MATCH) && !headers.contains_key(header::IF_MATCH) {
        return held;
    }
    for (name, value) in headers.iter_mut().filter(|(name, value)| is_condition(name) && has_mark(value.as_bytes())) {
        let Ok(restored) = HeaderValue::from_bytes(&without_marks(value.as_bytes())) else { continue };
        let marked = std::mem::replace(value, restored);
        if *name == header::IF_NONE_MATCH {
            held.0.push(marked);
        }
    }
    held
}

impl Held {
    /// A 304 speaks of what its client holds: where that is a compressed answer, of that one's tag.
    pub(super) fn answer(&self, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        let tag = headers.get(header::ETAG).and_then(|value| Tag::read(value.as_bytes()));
        let Some(marked) = tag.and_then(|(tag, _)| if tag.is_weak { None } else { tag.marked() }) else { return };
        let is_held = |value: &HeaderValue| {
            Tags::of(value.as_bytes()).any(|(_, place)| value.as_bytes()[place] == *marked.as_bytes())
        };
        if self.0.iter().any(is_held) {
            headers.insert(header::ETAG, marked);
        }
    }
}

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag<'a> {
    is_weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The one that a text begins with, and what comes behind it.
    fn read(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        Some((Self { is_weak, opaque: &inner[..end] }, &inner[end + 1..]))
    }

    fn marked(self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&[b"W/\"", self.opaque, MARK, b"\""].concat()).ok()
    }

    /// The opaque part of the app's own tag, if this is a marked one.
    fn unmarked(self) -> Option<&'a [u8]> {
        self.opaque.strip_suffix(MARK).filter(|_| self.is_weak)
    }
}

/// Whether there is a marked tag: a look that costs little for others.
fn has_mark(value: &[u8]) -> bool {
    memchr::memmem::find(value, MARK).is_some() && Tags::of(value).any(|(tag, _)| tag.unmarked().is_some())
}

/// The same list with the app's own tags. Everything else stays to the byte.
fn without_marks(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut written = 0;
    for (tag, place) in Tags::of(value) {
        let Some(opaque) = tag.unmarked() else { continue };
        out.extend_from_slice(&value[written..place.start]);
        for part in [b"\"", opaque, b"\""] {
            out.extend_from_slice(part);
        }
        written = place.end;
    }
    out.extend_from_slice(&value[written..]);
    out
}

/// The tags of a list, and where they stand. What is none is passed over to the next comma.
struct Tags<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Tags<'a> {
    const fn of(value: &'a [u8]) -> Self {
        Self { value, at: 0 }
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = (Tag<'a>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.value[self.at..];
            match rest.first()? {
                b' ' | b'\t' | b',' => self.at += 1,
                _ => match Tag::read(rest) {
                    Some((tag, behind)) => {
                        let place = self.at..self.value.len() - behind.len();
                        self.at = place.end;
                        return Some((tag, place));
                    }
                    None => self.at += rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len()),
                },
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn told<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn a_strong_tag_becomes_a_marked_weak_one_and_a_weak_one_stays() {
        for (app, sent) in [
            ("\"abc\"", Some("W/\"abc-hostler\"")),
            ("\"\"", Some("W/\"-hostler\"")),
            ("\"a,b\"", Some("W/\"a,b-hostler\"")),
            ("\"abc-hostler\"", Some("W/\"abc-hostler-hostler\"")),
            ("W/\"abc\"", Some("W/\"abc\"")),
            // No tags.
            ("abc", None),
            ("\"abc", None),
            ("\"abc\" x", None),
            ("w/\"abc\"", None),
            ("", None),
        ] {
            let mut headers = headers(&[(header::ETAG, app)]);
            weaken(&mut headers);
            assert_eq!(told(&headers, &header::ETAG), sent.into_iter().collect::<Vec<_>>(), "{app}");
        }
    }

    #[test]
    fn an_app_is_asked_with_its_own_tags() {
        for (client, app) in [
            ("W/\"abc-hostler\"", "\"abc\""),
            ("W/\"abc-hostler-hostler\"", "\"abc-hostler\""),
            ("W/\"abc-hostler\", \"def\", W/\"ghi\"", "\"abc\", \"def\", W/\"ghi\""),
            ("\"def\",W/\"a,b-hostler\"", "\"def\",\"a,b\""),
            // Not ours.
            ("*", "*"),
            ("W/\"abc\"", "W/\"abc\""),
            ("\"abc-hostler\"", "\"abc-hostler\""),
            ("W/\"-hostler-x\"", "W/\"-hostler-x\""),
            ("\"W/\", \"x-hostler\"", "\"W/\", \"x-hostler\""),
            ("abc-hostler", "abc-hostler"),
            ("W/\"abc-hostler", "W/\"abc-hostler"),
            // What cannot be read does not hide what can.
            ("abc, W/\"x-hostler\"", "abc, \"x\""),
        ] {
            for name in [header::IF_NONE_MATCH, header::IF_MATCH] {
                let mut headers = headers(&[(name.clone(), client)]);
                restore(&mut headers);
                assert_eq!(told(&headers, &name), [app], "{name}: {client}");
            }
        }
        let mut lines =
            headers(&[(header::IF_NONE_MATCH, "W/\"a-hostler\""), (header::IF_NONE_MATCH, "W/\"b-hostler\"")]);
        restore(&mut lines);
        assert_eq!(told(&lines, &header::IF_NONE_MATCH), ["\"a\"", "\"b\""]);
    }

    #[test]
    fn a_part_of_the_plain_answer_does_not_continue_a_compressed_one() {
        for (tag, is_left) in [
            ("W/\"abc-hostler\"", false),
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("Sun, 29 Nov 2026 00:00:00 GMT", true),
        ] {
            let mut headers = headers(&[(header::IF_RANGE, tag), (header::RANGE, "bytes=5-")]);
            restore(&mut headers);
            let left = (headers.contains_key(header::RANGE), headers.contains_key(header::IF_RANGE));
            assert_eq!(left, (is_left, is_left), "{tag}");
        }
    }

    #[test]
    fn a_304_has_the_tag_that_its_client_holds() {
        for (client, app, sent) in [
            ("W/\"abc-hostler\"", "\"abc\"", "W/\"abc-hostler\""),
            ("\"x\", W/\"abc-hostler\"", "\"abc\"", "W/\"abc-hostler\""),
            ("\"abc\"", "\"abc\"", "\"abc\""),
            ("W/\"old-hostler\", \"abc\"", "\"abc\"", "\"abc\""),
            ("W/\"abc\"", "W/\"abc\"", "W/\"abc\""),
            ("W/\"abc-hostler\"", "abc", "abc"),
        ] {
            let mut request = headers(&[(header::IF_NONE_MATCH, client)]);
            let held = restore(&mut request);
            let mut answer = headers(&[(header::ETAG, app)]);
            held.answer(&mut answer);
            assert_eq!(told(&answer, &header::ETAG), [sent], "{client} {app}");
        }
        let mut silent = HeaderMap::new();
        restore(&mut headers(&[(header::IF_NONE_MATCH, "W/\"abc-hostler\"")])).answer(&mut silent);
        assert!(silent.is_empty());
    }

    proptest! {
        #[test]
        fn what_was_marked_comes_back_as_it_was(opaque in "[!#-~]{0,20}", others in "[!#-~ ,\"]{0,20}") {
            let mut answer = headers(&[(header::ETAG, &format!("\"{opaque}\""))]);
            weaken(&mut answer);
            let marked = told(&answer, &header::ETAG)[0].to_owned();
            prop_assert!(marked.starts_with("W/"));
            let mut request = headers(&[(header::IF_NONE_MATCH, &marked), (header::IF_MATCH, &marked)]);
            restore(&mut request);
            prop_assert_eq!(told(&request, &header::IF_NONE_MATCH), [format!("\"{}\"", opaque)]);
            prop_assert_eq!(told(&request, &header::IF_MATCH), [format!("\"{}\"", opaque)]);
            // Whatever else stands there, nothing is made of it but what can stand in a field.
            let list = format!("{others}, {marked}");
            let restored = without_marks(list.as_bytes());
            prop_assert!(restored.len() <= list.len() && HeaderValue::from_bytes(&restored).is_ok());
        }
    }
}
