//! All of a stored response but its body, in one block of bytes: the same in memory and on disk.
//!
//! ```text
//! kind u8 | facts u8 | status u16 | host u16 | path u16 | tags u16 | fields u16      little-endian lengths and counts
//! facts | host | path | tags: (length u16, bytes)… | fields: (name u8, [length u16, name], length u32, value)…
//! ```
//! A field's name is a number where it is one of [`KNOWN`], and is spelled out after a 0 otherwise: most names cost a byte,
//! and none of those has to be looked up again when the response is given out.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// The most that a record may have, in bytes. A head that is larger is not stored.
pub const LARGEST: usize = 256 << 10;
/// The most tags of one response.
pub const MOST_TAGS: usize = 1024;
/// The fixed part.
const FIXED: usize = 12;

/// What names have a number, from 1 on. Part of the format: only ever longer.
static KNOWN: [HeaderName; 40] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::DATE,
    header::SERVER,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::EXPIRES,
    header::VARY,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_SECURITY_POLICY_REPORT_ONLY,
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::AGE,
    header::ALLOW,
    header::ALT_SVC,
    header::LINK,
    header::LOCATION,
    header::PRAGMA,
    header::REFERRER_POLICY,
    header::REFRESH,
    header::RETRY_AFTER,
    header::STRICT_TRANSPORT_SECURITY,
    header::VIA,
    header::WARNING,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_DNS_PREFETCH_CONTROL,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
    HeaderName::from_static("cross-origin-opener-policy"),
];

/// What a record says of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A response.
    Object,
    /// The names of the fields by which the responses of a primary key differ.
    Vary,
}

/// What is written into a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) kind: Kind,
    pub(super) status: u16,
    pub(super) facts: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) tags: &'a [&'a [u8]],
}

/// A record that has been read, or written, and holds what it promises.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The record, and whatever lies behind it.
    bytes: Bytes,
    tags_at: u32,
    fields_at: u32,
    end: u32,
}

/// Writes one. `None`: something is larger than a record has room for.
pub(super) fn write<'f>(
    parts: &Parts<'_>,
    fields: impl Iterator<Item = (&'f HeaderName, &'f HeaderValue)>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(match parts.kind {
        Kind::Object => 0,
        Kind::Vary => 1,
    });
    bytes.push(u8::try_from(parts.facts.len()).ok()?);
    bytes.extend(parts.status.to_le_bytes());
    bytes.extend(u16::try_from(parts.host.len()).ok()?.to_le_bytes());
    bytes.extend(u16::try_from(parts.path.len()).ok()?.to_le_bytes());
    bytes.extend(u16::try_from(parts.tags.len()).ok().filter(|_| parts.tags.len() <= MOST_TAGS)?.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend_from_slice(parts.facts);
    bytes.extend_from_slice(parts.host);
    bytes.extend_from_slice(parts.path);
    for tag in parts.tags {
        bytes.extend(u16::try_from(tag.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(tag);
    }
    let mut count = 0_u16;
    for (name, value) in fields {
        write_field(&mut bytes, name, value)?;
        count = count.checked_add(1)?;
        if bytes.len() > LARGEST {
            return None;
        }
    }
    bytes[10..FIXED].copy_from_slice(&count.to_le_bytes());
    (bytes.len() <= LARGEST).then_some(bytes)
}

fn write_field(bytes: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) -> Option<()> {
    match (1..).zip(&KNOWN).find(|(_, known)| *known == name) {
        Some((number, _)) => bytes.push(number),
        None => {
            bytes.push(0);
            bytes.extend(u16::try_from(name.as_str().len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(name.as_str().as_bytes());
        }
    }
    bytes.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    Some(())
}

/// Takes bytes off the front of others.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?)))
    }

    fn u32(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    /// A field: what tells its name, and where its value lies.
    fn field(&mut self) -> Option<(Name<'a>, usize, usize)> {
        let name = match usize::from(self.u8()?) {
            0 => {
                let length = self.u16()?;
                Name::Spelled(self.take(length)?)
            }
            number => Name::Known(KNOWN.get(number - 1)?),
        };
        let length = self.u32()?;
        let start = self.at;
        self.take(length)?;
        Some((name, start, self.at))
    }
}

enum Name<'a> {
    Known(&'static HeaderName),
    Spelled(&'a [u8]),
}

impl Name<'_> {
    fn get(&self) -> Option<HeaderName> {
        match self {
            Self::Known(name) => Some((*name).clone()),
            Self::Spelled(name) => HeaderName::from_bytes(name).ok(),
        }
    }
}

impl Record {
    /// Reads the record that takes exactly the first `length` of the bytes. `None`: they are not one.
    pub(super) fn read(bytes: Bytes, length: usize) -> Option<Self> {
        let block = bytes.get(..length).filter(|_| length <= LARGEST)?;
        let mut cursor = Cursor { bytes: block, at: 0 };
        if cursor.u8()? > 1 {
            return None;
        }
        let facts = usize::from(cursor.u8()?);
        StatusCode::from_u16(u16::try_from(cursor.u16()?).ok()?).ok()?;
        let (host, path) = (cursor.u16()?, cursor.u16()?);
        let (tags, fields) = (cursor.u16()?, cursor.u16()?);
        cursor.take(facts + host + path)?;
        let tags_at = cursor.at;
        if tags > MOST_TAGS {
            return None;
        }
        for _ in 0..tags {
            let length = cursor.u16()?;
            cursor.take(length)?;
        }
        let fields_at = cursor.at;
        for _ in 0..fields {
            let (name, start, end) = cursor.field()?;
            name.get()?;
            HeaderValue::from_bytes(&block[start..end]).ok()?;
        }
        let offset = |at: usize| u32::try_from(at).ok();
        let (tags_at, fields_at, end) = (offset(tags_at)?, offset(fields_at)?, offset(cursor.at)?);
        (cursor.at == length).then_some(Self { bytes, tags_at, fields_at, end })
    }

    /// The record, as it is on disk.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.end as usize]
    }

    /// The record, and what lies behind it.
    pub(super) fn block(&self) -> &Bytes {
        &self.bytes
    }

    /// Where it ends in [`Self::block`].
    pub(super) fn end(&self) -> usize {
        self.end as usize
    }

    /// The same record, which these bytes begin with, and what else they are behind it.
    pub(super) fn with(&self, block: Bytes) -> Self {
        // Its values are given out without another look at them.
        assert!(block.starts_with(self.as_bytes()), "another record");
        Self { bytes: block, ..self.clone() }
    }

    fn length(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    pub(super) fn kind(&self) -> Kind {
        if self.bytes[0] == 0 { Kind::Object } else { Kind::Vary }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(u16::from_le_bytes([self.bytes[2], self.bytes[3]])).unwrap_or_default()
    }

    pub(super) fn facts(&self) -> &[u8] {
        &self.bytes[FIXED..][..usize::from(self.bytes[1])]
    }

    pub(super) fn host(&self) -> &[u8] {
        &self.bytes[FIXED + usize::from(self.bytes[1])..][..self.length(4)]
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.bytes[FIXED + usize::from(self.bytes[1]) + self.length(4)..][..self.length(6)]
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut at = self.tags_at as usize;
        (0..self.length(8)).map(move |_| {
            let length = self.length(at);
            at += 2 + length;
            &self.bytes[at - length..at]
        })
    }

    /// The fields, in their order. Values share the record's bytes.
    pub(super) fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut cursor = Cursor { bytes: self.as_bytes(), at: self.fields_at as usize };
        std::iter::from_fn(move || {
            let (name, start, end) = cursor.field()?;
            Some((name.get()?, self.value(start, end)))
        })
    }

    /// The value that [`Cursor::field`] has found there.
    fn value(&self, start: usize, end: usize) -> HeaderValue {
        let value = self.bytes.slice(start..end);
        // SAFETY: the bytes must be what `HeaderValue::from_bytes` takes. A record is made by `read` alone, which has had it take the
        // bytes between the same two places of each field, and by `with`, of bytes that are the same. Nobody writes to them.
        #[allow(unsafe_code)]
        unsafe {
            HeaderValue::from_maybe_shared_unchecked(value)
        }
    }

    pub(super) fn tag_count(&self) -> usize {
        self.length(8)
    }

    pub(super) fn field_count(&self) -> usize {
        self.length(10)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn parts<'a>(tags: &'a [&'a [u8]]) -> Parts<'a> {
        Parts { kind: Kind::Object, status: 203, facts: b"facts", host: b"shop.example", path: b"/a?b=c", tags }
    }

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_record_says_what_was_written_and_shares_its_bytes() {
        let map = map(&[("content-type", "text/html"), ("x-own", "1"), ("x-own", ""), ("vary", "accept")]);
        let tags: [&[u8]; 2] = [b"one", b""];
        let bytes = write(&parts(&tags), map.iter()).unwrap();
        let length = bytes.len();
        let record = Record::read([bytes, b"a body".to_vec()].concat().into(), length).unwrap();
        assert_eq!((record.kind(), record.status().as_u16(), record.facts()), (Kind::Object, 203, &b"facts"[..]));
        assert_eq!((record.host(), record.path()), (&b"shop.example"[..], &b"/a?b=c"[..]));
        assert!(record.tags().eq(tags));
        let read: HeaderMap = record.fields().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        });
        assert_eq!(read, map);
        assert_eq!((record.field_count(), &record.block()[record.end()..]), (4, &b"a body"[..]));
    }

    #[test]
    fn the_names_that_have_a_number_are_named_once() {
        let names: std::collections::HashSet<_> = KNOWN.iter().collect();
        assert_eq!(names.len(), KNOWN.len());
    }

    #[test]
    fn a_record_that_no_value_could_be_given_out_of_is_none() {
        let good = write(&parts(&[]), map(&[("x-own", "a\u{e9} b")]).iter()).unwrap();
        let is_one = |bytes: &[u8]| Record::read(bytes.to_vec().into(), bytes.len()).is_some();
        assert!(is_one(&good), "bytes beyond ASCII may stand in a value");
        for bad in [b'\r', b'\n', 0, 0x7F] {
            let mut bytes = good.clone();
            *bytes.last_mut().unwrap() = bad;
            assert!(!is_one(&bytes), "{bad:#x}");
        }
    }

    #[test]
    #[should_panic = "another record"]
    fn a_record_does_not_take_the_bytes_of_another() {
        let read = |value| {
            let bytes = write(&parts(&[]), map(&[("x-own", value)]).iter()).unwrap();
            let length = bytes.len();
            Record::read(bytes.into(), length).unwrap()
        };
        let other = read("other").block().clone();
        let _ = read("value").with(other);
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let large = "x".repeat(LARGEST);
        assert!(write(&parts(&[]), map(&[("x-large", &large)]).iter()).is_none());
        let tags = vec![&b"t"[..]; MOST_TAGS + 1];
        assert!(write(&parts(&tags), HeaderMap::new().iter()).is_none());
        assert!(write(&parts(&tags[1..]), HeaderMap::new().iter()).is_some());
        let path = vec![b'/'; 1 << 16];
        let parts = Parts { path: &path, ..parts(&[]) };
        assert!(write(&parts, HeaderMap::new().iter()).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_that_can_be_asked_or_none(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), sets_counts in any::<bool>(),
        ) {
            // Random counts are nearly always too large to get any further.
            if sets_counts && bytes.len() >= FIXED {
                bytes[0] %= 2;
                bytes[1] %= 8;
                bytes[2..4].copy_from_slice(&200_u16.to_le_bytes());
                for at in [4, 6, 8, 10] {
                    (bytes[at], bytes[at + 1]) = (bytes[at] % 4, 0);
                }
            }
            let length = bytes.len();
            if let Some(record) = Record::read(bytes.into(), length) {
                prop_assert!(record.tags().map(<[u8]>::len).sum::<usize>() <= length);
                prop_assert_eq!(record.fields().count(), record.field_count());
                let all = record.facts().len() + record.host().len() + record.path().len();
                prop_assert!(all <= length);
            }
        }
    }
}
