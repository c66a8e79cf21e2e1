//! Whether an answer is compressed, and in which coding. Pure.
//!
//! | an answer | becomes |
//! |---|---|
//! | of a type that is not compressed, or of none | as it is |
//! | with a Content-Encoding, with `no-transform`, with a sum of its bytes or a signature | as it is: the app has seen to it |
//! | without content of its own (1xx, 204, 205, 304), or a part of one (206, Content-Range) | as it is, and `Vary` |
//! | smaller than `min_size`; for a client that asks for a range or takes no coding | as it is, and `Vary` |
//! | the rest, whatever its status | compressed, and `Vary` |

use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};

use crate::config;
use crate::http::{Coding, Codings};

/// What a route compresses, and how.
#[derive(Debug)]
pub(super) struct Rules {
    /// In the order of preference.
    codings: Box<[Coding]>,
    /// Beside what always is.
    types: Box<[config::MediaRange]>,
    min_size: u64,
}

impl Rules {
    pub(super) fn compile(compress: &config::Compress) -> Self {
        Self {
            codings: compress.codings.iter().copied().map(Coding::from).collect(),
            types: compress.types.clone().into(),
            min_size: compress.min_size,
        }
    }
}

/// What a request says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// What its client takes.
    pub(super) codings: Codings,
    /// Whether it asks for a part: of the answer as it is, which it may have begun to load.
    pub(super) is_for_range: bool,
    pub(super) is_head: bool,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the same for every client.
    Untouched,
    /// It goes out as it is, but another client, or another answer from there, may be compressed.
    Plain,
    /// It is compressed.
    Compressed(Coding),
}

/// `length` is that of the body, where it is known.
pub(super) fn decide(
    rules: &Rules,
    asked: Asked,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Verdict {
    let fields = Fields::of(headers);
    let is_ours = match fields.content_type {
        Some(value) => is_compressed(value.as_bytes(), &rules.types),
        // It stands for an answer whose type is not told.
        None => status == StatusCode::NOT_MODIFIED,
    };
    if !is_ours || fields.is_fixed {
        return Verdict::Untouched;
    }
    let length = length.or(fields.content_length.filter(|_| asked.is_head));
    let is_small = length.is_some_and(|length| length < rules.min_size.max(1));
    if !has_whole_content(status) || fields.is_part || is_small || asked.is_for_range {
        return Verdict::Plain;
    }
    asked.codings.best(rules.codings.iter().copied()).map_or(Verdict::Plain, Verdict::Compressed)
}

/// What an answer's fields say of it: found in one pass, which costs less than to ask for each name.
#[derive(Debug, Default)]
struct Fields<'a> {
    content_type: Option<&'a HeaderValue>,
    content_length: Option<u64>,
    /// Its bytes are to stay as they are.
    is_fixed: bool,
    is_part: bool,
}

impl<'a> Fields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "content-type" => fields.content_type = fields.content_type.or(Some(value)),
                "content-length" => fields.content_length = value.to_str().ok().and_then(|text| text.parse().ok()),
                "content-range" => fields.is_part = true,
                // Sums of the bytes (RFC 9530 and what was before it) and what signs them (RFC 9421): a coding changes them.
                "content-encoding" | "content-digest" | "repr-digest" | "digest" | "content-md5"
                | "signature-input" => {
                    fields.is_fixed = true;
                }
                "cache-control" => fields.is_fixed |= has_no_transform(value.as_bytes()),
                _ => {}
            }
        }
        fields
    }
}

/// RFC 9111, 5.2.2.6.
fn has_no_transform(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether what comes is all of something.
fn has_whole_content(status: StatusCode) -> bool {
    !(status.is_informational() || matches!(status.as_u16(), 204 | 205 | 206 | 304))
}

/// Whether a Content-Type is of what gets smaller: text, and what is written in it; fonts and images that are not packed.
/// Not event streams, each of which would keep a compressor for as long as it is open.
fn is_compressed(content_type: &[u8], further: &[config::MediaRange]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some(slash) = essence.iter().position(|byte| *byte == b'/') else { return false };
    let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
    let is_any_of = |names: &[&str]| names.iter().any(|name| subtype.eq_ignore_ascii_case(name.as_bytes()));
    let is_written_in = |suffix: &str| {
        let start = subtype.len().checked_sub(suffix.len());
        start.is_some_and(|start| subtype[start..].eq_ignore_ascii_case(suffix.as_bytes()))
    };
    let is_usual = match kind {
        kind if kind.eq_ignore_ascii_case(b"text") => !is_any_of(&["event-stream"]),
        kind if kind.eq_ignore_ascii_case(b"application") => is_any_of(&APPLICATIONS),
        kind if kind.eq_ignore_ascii_case(b"image") => is_any_of(&IMAGES),
        kind if kind.eq_ignore_ascii_case(b"font") => is_any_of(&FONTS),
        _ => false,
    };
    let is_further = |range: &config::MediaRange| {
        kind.eq_ignore_ascii_case(range.kind.as_bytes())
            && range.subtype.as_ref().is_none_or(|wanted| subtype.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    is_usual || is_written_in("+json") || is_written_in("+xml") || further.iter().any(is_further)
}

const APPLICATIONS: [&str; 17] = [
    "json",
    "javascript",
    "x-javascript",
    "ecmascript",
    "xml",
    "xml-dtd",
    "wasm",
    "x-ndjson",
    "ndjson",
    "jsonl",
    "json-seq",
    "yaml",
    "toml",
    "sql",
    "rtf",
    "vnd.ms-fontobject",
    "x-font-ttf",
];
const IMAGES: [&str; 4] = ["x-icon", "vnd.microsoft.icon", "bmp", "x-ms-bmp"];
const FONTS: [&str; 4] = ["ttf", "otf", "collection", "sfnt"];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderName, header};
    use proptest::prelude::*;

    use super::*;
    use crate::config::ContentCoding;

    fn rules(keys: config::Compress) -> Rules {
        Rules::compile(&keys)
    }

    fn codings(value: &str) -> Codings {
        Codings::of(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap())]))
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.extend(fields.iter().map(field).map(|(name, value): (_, HeaderValue)| (name, value)));
        headers
    }

    fn verdict(accept: &str, status: u16, fields: &[(&str, &str)], length: Option<u64>) -> Verdict {
        let asked = Asked { codings: codings(accept), is_for_range: false, is_head: false };
        let status = StatusCode::from_u16(status).unwrap();
        decide(&rules(config::Compress::default()), asked, status, &headers(fields), length)
    }

    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
    const BROWSER: &str = "gzip, deflate, br, zstd";

    #[test]
    fn an_answer_is_compressed_only_where_nothing_speaks_against_it() {
        use Verdict::{Compressed, Plain, Untouched};
        let best = Compressed(Coding::Zstd);
        for (accept, status, fields, length, expected) in [
            (BROWSER, 200, &[HTML][..], Some(5_000), best),
            (BROWSER, 200, &[HTML], None, best),
            ("gzip", 200, &[HTML], Some(1024), Compressed(Coding::Gzip)),
            ("zstd, gzip", 200, &[HTML], Some(1024), Compressed(Coding::Zstd)),
            ("br;q=0.5, gzip", 200, &[HTML], None, Compressed(Coding::Gzip)),
            // Whatever the status, if there is content.
            (BROWSER, 404, &[HTML], Some(5_000), best),
            (BROWSER, 500, &[HTML], Some(5_000), best),
            (BROWSER, 302, &[HTML], Some(5_000), best),
            (BROWSER, 201, &[("content-type", "application/json")], Some(5_000), best),
            // Small, empty, or not all of it.
            (BROWSER, 200, &[HTML], Some(1023), Plain),
            (BROWSER, 200, &[HTML], Some(0), Plain),
            (BROWSER, 204, &[HTML], None, Plain),
            (BROWSER, 205, &[HTML], Some(5_000), Plain),
            (BROWSER, 206, &[HTML, ("content-range", "bytes 0-4999/9000")], Some(5_000), Plain),
            (BROWSER, 416, &[HTML, ("content-range", "bytes */9000")], Some(5_000), Plain),
            (BROWSER, 304, &[HTML], Some(0), Plain),
            (BROWSER, 304, &[], Some(0), Plain),
            (BROWSER, 304, &[("content-type", "image/png")], Some(0), Untouched),
            // The client takes none, or likes it better as it is.
            ("identity", 200, &[HTML], Some(5_000), Plain),
            ("deflate", 200, &[HTML], Some(5_000), Plain),
            ("br;q=0", 200, &[HTML], Some(5_000), Plain),
            ("identity, gzip;q=0.5", 200, &[HTML], Some(5_000), Plain),
            ("identity;q=0", 200, &[HTML], Some(5_000), Plain),
            // The app has seen to it.
            (BROWSER, 200, &[HTML, ("content-encoding", "gzip")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("content-encoding", "identity")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("cache-control", "no-transform")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("cache-control", "public,No-Transform , max-age=5")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("cache-control", "max-age=5"), ("cache-control", "no-transform")], None, Untouched),
            (BROWSER, 200, &[HTML, ("cache-control", "no-transformation")], None, best),
            (BROWSER, 200, &[HTML, ("content-digest", "sha-256=:AA==:")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("repr-digest", "sha-256=:AA==:")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("digest", "sha-256=AA==")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("content-md5", "AA==")], Some(5_000), Untouched),
            (BROWSER, 200, &[HTML, ("signature-input", "sig=()")], Some(5_000), Untouched),
            // Not of a type that gets smaller.
            (BROWSER, 200, &[("content-type", "image/png")], Some(5_000), Untouched),
            (BROWSER, 200, &[], Some(5_000), Untouched),
        ] {
            assert_eq!(verdict(accept, status, fields, length), expected, "{accept} {status} {fields:?} {length:?}");
        }
    }

    #[test]
    fn a_head_is_answered_as_its_get_would_be() {
        let (rules, codings) = (rules(config::Compress::default()), codings(BROWSER));
        let asked = Asked { codings, is_for_range: false, is_head: true };
        for (fields, expected) in [
            (&[HTML, ("content-length", "5000")][..], Verdict::Compressed(Coding::Zstd)),
            (&[HTML, ("content-length", "1023")], Verdict::Plain),
            (&[HTML], Verdict::Compressed(Coding::Zstd)),
        ] {
            assert_eq!(decide(&rules, asked, StatusCode::OK, &headers(fields), None), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_part_is_asked_for_of_the_answer_as_it_is() {
        let asked = Asked { codings: codings(BROWSER), is_for_range: true, is_head: false };
        let rules = rules(config::Compress::default());
        assert_eq!(decide(&rules, asked, StatusCode::OK, &headers(&[HTML]), None), Verdict::Plain);
    }

    #[test]
    fn a_route_has_codings_types_and_a_size_of_its_own() {
        let range = |kind: &str, subtype: Option<&str>| config::MediaRange {
            kind: kind.into(),
            subtype: subtype.map(str::to_owned),
        };
        let rules = rules(config::Compress {
            codings: vec![ContentCoding::Gzip, ContentCoding::Zstd],
            types: vec![range("text", Some("event-stream")), range("model", None)],
            min_size: 0,
        });
        let asked = Asked { codings: codings(BROWSER), is_for_range: false, is_head: false };
        for (content_type, length, expected) in [
            ("text/html", Some(1), Verdict::Compressed(Coding::Gzip)),
            ("text/html", Some(0), Verdict::Plain),
            ("text/event-stream", None, Verdict::Compressed(Coding::Gzip)),
            ("model/gltf-binary", None, Verdict::Compressed(Coding::Gzip)),
            ("application/pdf", None, Verdict::Untouched),
        ] {
            let headers = headers(&[("content-type", content_type)]);
            assert_eq!(decide(&rules, asked, StatusCode::OK, &headers, length), expected, "{content_type}");
        }
    }

    #[test]
    fn types_that_get_smaller_and_types_that_do_not() {
        for content_type in [
            "text/html",
            "TEXT/HTML;charset=utf-8",
            "text/css",
            "text/plain ; charset=x",
            "text/javascript",
            "text/csv",
            "application/json",
            "application/problem+json",
            "application/ld+JSON",
            "application/javascript",
            "application/xhtml+xml",
            "application/atom+xml",
            "application/wasm",
            "application/manifest+json",
            "application/x-ndjson",
            "image/svg+xml",
            "image/x-icon",
            "image/vnd.microsoft.icon",
            "font/ttf",
            "font/otf",
            "application/vnd.ms-fontobject",
            "model/gltf+json",
        ] {
            assert!(is_compressed(content_type.as_bytes(), &[]), "{content_type}");
        }
        for content_type in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "image/png",
            "image/jpeg",
            "image/webp",
            "image/avif",
            "video/mp4",
            "audio/mpeg",
            "font/woff",
            "font/woff2",
            "application/zip",
            "application/gzip",
            "application/pdf",
            "application/octet-stream",
            "application/grpc",
            "multipart/byteranges; boundary=x",
            "application/jsonx",
            "json",
            "text",
            "",
            "/",
            "+json",
        ] {
            assert!(!is_compressed(content_type.as_bytes(), &[]), "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_does_not_take_is_never_chosen(
            accept in "(br|gzip|zstd|\\*|identity)(;q=[01](\\.[0-9]{1,3})?)?(, ?(br|gzip|zstd|\\*|identity)(;q=[01](\\.[0-9]{1,3})?)?){0,3}",
            status in 200..600_u16,
            length in prop::option::of(0..3000_u64),
        ) {
            let chosen = verdict(&accept, status, &[HTML], length);
            if let Verdict::Compressed(coding) = chosen {
                prop_assert!(codings(&accept).weight(coding) > 0);
                prop_assert!(length.is_none_or(|length| length >= 1024));
                prop_assert!(![204, 205, 206, 304].contains(&status));
            } else {
                prop_assert_eq!(chosen, Verdict::Plain);
            }
        }
    }
}
