//! `compress`: true, false, or what is to be otherwise than usual.

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{Compress, ContentCoding, MediaRange};

pub(in crate::config::schema) static COMPRESS: Section = Section {
    name: "routes[].compress",
    keys: &["codings", "types", "min_size"],
    later: &[],
    elsewhere: &[
        ("encodings", "codings"),
        ("algorithms", "codings"),
        ("encoding", "codings"),
        ("gzip_types", "types"),
        ("mime_types", "types"),
        ("content_types", "types"),
        ("min_length", "min_size"),
        ("minimum_length", "min_size"),
        ("gzip_min_length", "min_size"),
    ],
};

/// The largest smallest answer.
const LARGEST_MIN_SIZE: u64 = 1 << 30;

/// `None`: answers go out as they are.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Compress> {
    if !matches!(node.value, Value::Map(_) | Value::List(_)) {
        return decoder.boolean("compress", node).unwrap_or(true).then(Compress::default);
    }
    let default = Compress::default();
    let Some(fields) = decoder.fields(node, &COMPRESS) else { return Some(default) };
    let types = fields.get("types").map_or_else(Vec::new, |node| {
        let items = decoder.list("types", node).unwrap_or_default();
        items.iter().filter_map(|item| media_range(decoder, item)).collect()
    });
    Some(Compress {
        codings: codings(decoder, &fields).unwrap_or(default.codings),
        types,
        min_size: fields.size(decoder, "min_size", 0..=LARGEST_MIN_SIZE, default.min_size),
    })
}

fn codings(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<Vec<ContentCoding>> {
    let items = decoder.list("codings", fields.get("codings")?)?;
    let words = ContentCoding::ALL.map(|coding| (coding.as_str(), coding));
    let mut codings = Vec::with_capacity(items.len());
    for item in items {
        let Some(coding) = decoder.choice("codings", item, &words) else { continue };
        if codings.contains(&coding) {
            decoder
                .error(&item.span, format!("{} stands here twice", quoted(coding.as_str())))
                .help("keep one of them");
        } else {
            codings.push(coding);
        }
    }
    Some(codings)
}

fn media_range(decoder: &mut Decoder<'_>, node: &Node) -> Option<MediaRange> {
    let text = decoder.scalar("types", node, "a media type")?;
    decoder.fault(&node.span, read_media_range(&text))
}

fn read_media_range(text: &str) -> Result<MediaRange, Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if text.contains(';') {
        return fault("has more than a media type", "leave out what stands behind the type, such as its charset");
    }
    let is_token = |part: &str| {
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_token_byte)
    };
    match text.split_once('/') {
        Some(("*", _)) => {
            fault("would compress again what is compressed, images and archives", "name the types, or type/*")
        }
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && (subtype == "*" || !text.contains('*')) => {
            let subtype = (subtype != "*").then(|| subtype.to_ascii_lowercase());
            Ok(MediaRange { kind: kind.to_ascii_lowercase(), subtype })
        }
        _ => fault("is not a media type", "write it like application/pdf, or application/* for all of them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_range_is_a_type_and_a_subtype_or_any() {
        let range =
            |kind: &str, subtype: Option<&str>| MediaRange { kind: kind.into(), subtype: subtype.map(str::to_owned) };
        for (text, expected) in [
            ("application/pdf", range("application", Some("pdf"))),
            ("Application/X-Protobuf", range("application", Some("x-protobuf"))),
            ("text/event-stream", range("text", Some("event-stream"))),
            ("font/*", range("font", None)),
        ] {
            assert_eq!(read_media_range(text).ok(), Some(expected), "{text}");
        }
        for text in
            ["*/*", "*", "", "pdf", "/pdf", "application/", "a/b/c", "text/html; charset=utf-8", "a b/c", "te*t/x"]
        {
            assert!(read_media_range(text).is_err(), "{text}");
        }
    }
}
