//! The request target: one reading for the router, the worker and the log.
//!
//! A WSGI server decodes the path before the app sees it (`PATH_INFO`), so that `/a%2Fb` and `/a/b` are the same path
//! to the app. Routes are therefore matched against the decoded path, and the raw one is sent on untouched. What would
//! still be read in two ways is refused:
//!
//! | in the path | rule |
//! |---|---|
//! | bytes outside 0x21-0x7E, `#`, `\` (raw or `%5C`), `%` without two hex digits, `%00` | refused |
//! | `<`, `>` and backtick, raw | refused, as in HTTP/2: RFC 3986 has no place for them, and browsers encode them |
//! | `.` and `..` segments, raw or encoded | refused: clients resolve them before they send |
//! | `%2F`, `//`, `;`, `%25`, overlong UTF-8, encoded line ends | kept; routed as the app sees them, sent as received |
//!
//! The query is only held to the first rule's byte range, without `"`, `<` and `>`, which browsers encode there, and is never
//! decoded.

use bytes::Bytes;

use crate::error::Reason;

/// Path and query of a request, as received and as the app will see it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    raw: Bytes,
    path_len: usize,
    /// Only when the path has percent-encoding.
    decoded: Option<Box<[u8]>>,
}

impl Target {
    /// Reads an origin-form target, or `*` for the OPTIONS method (RFC 9112, 3.2).
    ///
    /// # Errors
    /// [`Reason::BadTarget`] for whatever could be read in two ways.
    pub fn parse(raw: Bytes) -> Result<Self, Reason> {
        if raw[..] == *b"*" {
            return Ok(Self { path_len: 1, raw, decoded: None });
        }
        if raw.first() != Some(&b'/') {
            return Err(Reason::BadTarget);
        }
        let path_len = memchr::memchr(b'?', &raw).unwrap_or(raw.len());
        if !raw.iter().all(|b| matches!(b, 0x21..=0x7E) && *b != b'#') {
            return Err(Reason::BadTarget);
        }
        let (path, query) = raw.split_at(path_len);
        if path.iter().any(|b| matches!(b, b'<' | b'>' | b'`')) || query.iter().any(|b| matches!(b, b'"' | b'<' | b'>'))
        {
            return Err(Reason::BadTarget);
        }
        let decoded = decode(path)?;
        let path = decoded.as_deref().unwrap_or(&raw[..path_len]);
        if path.contains(&b'\\') || path.contains(&0) || has_dot_segment(path) {
            return Err(Reason::BadTarget);
        }
        Ok(Self { raw, path_len, decoded })
    }

    /// A path that is known to be good.
    #[must_use]
    pub fn from_static(path: &'static str) -> Self {
        Self { raw: Bytes::from_static(path.as_bytes()), path_len: path.len(), decoded: None }
    }

    /// Path and query as received: what is sent to the worker. Printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.raw).unwrap_or("/")
    }

    /// The same, as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The same, shared.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.raw.clone()
    }

    /// The path as received.
    #[must_use]
    pub fn raw_path(&self) -> &str {
        &self.as_str()[..self.path_len]
    }

    /// The path as received, and the query with its `?`, or nothing.
    #[must_use]
    pub fn raw_parts(&self) -> (&str, &str) {
        self.as_str().split_at(self.path_len)
    }

    /// The path as the app sees it: decoded, any bytes.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.decoded.as_deref().unwrap_or(&self.raw[..self.path_len])
    }

    /// How many bytes of the raw path make the first `decoded` bytes of the decoded one.
    #[must_use]
    pub fn raw_length(&self, decoded: usize) -> usize {
        let raw = self.raw_path().as_bytes();
        (0..decoded).fold(0, |at, _| at + if raw.get(at) == Some(&b'%') { 3 } else { 1 }).min(raw.len())
    }

    /// The same without a prefix that is spelled in some way at its beginning and ends where a segment does. What is left
    /// begins with a slash. `None`: the path does not have it.
    ///
    /// # Errors
    /// [`Reason::BadTarget`] when the rest could be read in two ways; of a target that could not be, no rest can.
    pub fn without_prefix(&self, prefix: &str) -> Result<Option<Self>, Reason> {
        let Some(rest @ ([] | [b'/', ..])) = self.path().strip_prefix(prefix.as_bytes()) else { return Ok(None) };
        let raw = &self.as_str()[self.raw_length(prefix.len())..];
        let target = match (rest, raw.strip_prefix('/')) {
            (_, Some(after)) => ["/", after],
            ([], None) => ["/", raw],
            // The slash was written as %2F.
            (_, None) => ["/", raw.get(3..).unwrap_or_default()],
        };
        Self::parse(Bytes::from(target.concat())).map(Some)
    }

    /// `?` and the query, or nothing.
    #[must_use]
    pub fn query_with_mark(&self) -> &str {
        &self.as_str()[self.path_len..]
    }
}

/// The decoded path, or `None` when there is nothing to decode.
fn decode(path: &[u8]) -> Result<Option<Box<[u8]>>, Reason> {
    let Some(first) = memchr::memchr(b'%', path) else { return Ok(None) };
    let mut decoded = Vec::with_capacity(path.len());
    decoded.extend_from_slice(&path[..first]);
    let mut rest = &path[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(Reason::BadTarget) };
        let value = hex(*high).zip(hex(*low)).map(|(h, l)| h << 4 | l).ok_or(Reason::BadTarget)?;
        decoded.push(value);
        rest = tail;
    }
    Ok(Some(decoded.into_boxed_slice()))
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn has_dot_segment(path: &[u8]) -> bool {
    memchr::memchr_iter(b'.', path).any(|at| {
        let before = at == 0 || path[at - 1] == b'/' || (path[at - 1] == b'.' && (at < 2 || path[at - 2] == b'/'));
        before && matches!(path.get(at + 1), None | Some(b'/'))
    })
}

/// A path that begins with a slash, with its `.` and `..` resolved (RFC 3986, 5.2.4).
#[must_use]
pub fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                if is_last {
                    out.push("");
                }
            }
            segment => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, Reason> {
        Target::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_is_routed_is_what_the_app_decodes() {
        for (raw, seen) in [
            ("/", "/"),
            ("/a%2Fb", "/a/b"),
            ("/a//b;c=1", "/a//b;c=1"),
            ("/caf%C3%A9?x=%zz", "/café"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a.b/c..d/", "/a.b/c..d/"),
            ("/a/.../b", "/a/.../b"),
            ("*", "*"),
            ("/\"{|}^[]", "/\"{|}^[]"),
            ("/%3Ca%3E%60?`%3C", "/<a>`"),
        ] {
            let target = parse(raw).unwrap();
            assert_eq!(target.path(), seen.as_bytes(), "{raw}");
            assert_eq!(target.as_str(), raw);
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for raw in [
            "",
            "a",
            "http://x/",
            "/a b",
            "/é",
            "/a#b",
            "/a\\b",
            "/%5c",
            "/%00",
            "/%",
            "/%4",
            "/%g1",
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/a",
            "/a/%2E",
            "/a%2f..",
            "/a\u{7f}",
            "/a\tb",
            "**",
            "/<",
            "/a>",
            "/`a",
            "/a?b=\"c\"",
            "/a?<",
            "/a?b=>",
        ] {
            assert_eq!(parse(raw).map(|t| t.as_str().to_owned()), Err(Reason::BadTarget), "{raw}");
        }
    }

    #[test]
    fn a_prefix_is_taken_away_however_it_is_spelled() {
        for (raw, rest) in [
            ("/api/x?q=/api", Some("/x?q=/api")),
            ("/api/", Some("/")),
            ("/api", Some("/")),
            ("/api?q", Some("/?q")),
            ("/%61pi/%78", Some("/%78")),
            ("/%61p%69%2Fx", Some("/x")),
            ("/api%2fx%2Fy", Some("/x%2Fy")),
            ("/api//x", Some("//x")),
            ("/api/api/x", Some("/api/x")),
            ("/apix", None),
            ("/ap", None),
            ("/x/api/", None),
            ("*", None),
        ] {
            let rest_of = |target: Target| target.without_prefix("/api").unwrap().map(|rest| rest.as_str().to_owned());
            assert_eq!(rest_of(parse(raw).unwrap()).as_deref(), rest, "{raw}");
        }
        assert_eq!(parse("/caf%C3%A9/x").unwrap().without_prefix("/café").unwrap().unwrap().as_str(), "/x");
    }

    #[test]
    fn the_query_keeps_its_mark() {
        let target = parse("/a?b=/../c").unwrap();
        assert_eq!((target.raw_path(), target.query_with_mark()), ("/a", "?b=/../c"));
    }
}
