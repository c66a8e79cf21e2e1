//! `files`: a folder, and how it is served.

use std::time::Duration;

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Span, Value};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{ContentCoding, Fallback, Files, Immutable, Symlinks};

pub(in crate::config::schema) static FILES: Section = Section {
    name: "routes[].files",
    keys: &["root", "index", "fallback", "not_found", "precompressed", "immutable", "max_age", "browse", "symlinks"],
    later: &[],
    elsewhere: &[
        ("alias", "root"),
        ("path", "root"),
        ("dir", "root"),
        ("directory", "root"),
        ("folder", "root"),
        ("try_files", "fallback"),
        ("error_page", "not_found"),
        ("autoindex", "browse"),
        ("indexes", "browse"),
        ("gzip_static", "precompressed"),
        ("brotli_static", "precompressed"),
        ("expires", "max_age"),
        ("cache_control", "max_age"),
        ("disable_symlinks", "symlinks"),
        ("follow_symlinks", "symlinks"),
    ],
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The files of a route, which is `internal` or not.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, internal: bool) -> Option<Files> {
    let of = if internal { Files::for_app } else { Files::of };
    if matches!(node.value, Value::Text(_)) {
        return decoder.path("files", node).map(of);
    }
    let fields = decoder.fields(node, &FILES)?;
    let root = fields.required(decoder, "root", "write files: { root: ./staticfiles }");
    let root = root.and_then(|node| decoder.path("root", node));
    let default = of(root.clone().unwrap_or_default());
    let files = Files {
        index: fields.get("index").map_or(default.index, |node| index(decoder, node)),
        fallback: fields.get("fallback").and_then(|node| fallback(decoder, node)).unwrap_or(default.fallback),
        not_found: fields.get("not_found").and_then(|node| below_root(decoder, "not_found", node)),
        precompressed: fields.get("precompressed").map_or(default.precompressed, |node| precompressed(decoder, node)),
        immutable: fields.get("immutable").and_then(|node| immutable(decoder, node)).unwrap_or(default.immutable),
        max_age: fields.duration(decoder, "max_age", Duration::ZERO..=YEAR, default.max_age),
        browse: fields.boolean(decoder, "browse", default.browse),
        symlinks: fields.get("symlinks").and_then(|node| symlinks(decoder, node)).unwrap_or(default.symlinks),
        root: default.root,
    };
    hint(decoder, &fields, &files);
    root.map(|_| files)
}

/// Where the root is written.
pub(super) fn root_span(node: &Node) -> &Span {
    let Value::Map(entries) = &node.value else { return &node.span };
    entries.iter().find(|entry| entry.key.text == "root").map_or(&node.span, |entry| &entry.value.span)
}

/// Keys that have no say beside others.
fn hint(decoder: &mut Decoder<'_>, fields: &Fields<'_>, files: &Files) {
    if let (Some(entry), false) = (fields.entry("not_found"), files.fallback == Fallback::Nobody) {
        decoder
            .warning(&entry.key.span, "`not_found` says nothing here: `fallback` answers where there is no file")
            .help("take one of them out");
    }
}

/// A name within any folder.
fn index(decoder: &mut Decoder<'_>, node: &Node) -> Option<String> {
    if matches!(node.value, Value::Bool(false)) {
        return None;
    }
    let text = decoder.scalar("index", node, "the name of a file")?;
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(&text)), help));
    let checked = match text.as_str() {
        "false" => return None,
        "true" | "" | "." | ".." => fault("is not the name of a file", "write index: index.html, or index: false"),
        "off" | "none" | "no" => fault("would be the name of a file", "write index: false"),
        name if name.contains('/') => {
            fault("is a path", "write the name alone: it is looked for in whichever folder is asked for")
        }
        name if name.chars().any(char::is_control) => fault("holds a control character", "take it out"),
        name => Ok(name.to_owned()),
    };
    decoder.fault(&node.span, checked)
}

fn fallback(decoder: &mut Decoder<'_>, node: &Node) -> Option<Fallback> {
    if matches!(node.value, Value::Bool(false)) {
        return Some(Fallback::Nobody);
    }
    let text = decoder.scalar("fallback", node, "next, or a file")?;
    match text.as_str() {
        "next" => Some(Fallback::Next),
        "false" => Some(Fallback::Nobody),
        _ => decoder.fault(&node.span, check_below_root("fallback", &text).map(Fallback::File)),
    }
}

fn below_root(decoder: &mut Decoder<'_>, key: &'static str, node: &Node) -> Option<String> {
    if matches!(node.value, Value::Bool(false)) {
        return None;
    }
    let text = decoder.scalar(key, node, "a file below the root")?;
    decoder.fault(&node.span, check_below_root(key, &text))
}

/// A file below the root, without the slash.
fn check_below_root(key: &str, text: &str) -> Result<String, Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    let Some(path) = text.strip_prefix('/') else {
        let bare = text.trim_start_matches("./");
        let also = if key == "fallback" { "`next` for the next route, or " } else { "" };
        return fault(
            &format!("is not a value of `{key}`"),
            format!(
                "it is {also}a file below `root`, written from there: /{}",
                if bare.is_empty() { "404.html" } else { bare }
            ),
        );
    };
    if path.chars().any(char::is_control) {
        return fault("holds a control character", "take it out".into());
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return fault(
            "does not name a file below the root",
            "write it as /folder/page.html, without `.` and `..`".into(),
        );
    }
    Ok(path.to_owned())
}

fn precompressed(decoder: &mut Decoder<'_>, node: &Node) -> Vec<ContentCoding> {
    match &node.value {
        Value::Bool(false) => return Vec::new(),
        Value::Bool(true) => return ContentCoding::ALL.to_vec(),
        Value::List(items) if items.is_empty() => return Vec::new(),
        _ => {}
    }
    let mut codings = Vec::new();
    for item in decoder.list("precompressed", node).unwrap_or_default() {
        let Some(text) = decoder.scalar("precompressed", item, "br, zstd or gzip") else { continue };
        let Some(coding) = decoder.fault(&item.span, coding(&text)) else { continue };
        if codings.contains(&coding) {
            decoder
                .error(&item.span, format!("{} stands here twice", quoted(&text)))
                .help("keep one of them: what a client likes best is sent, whatever the order");
            continue;
        }
        codings.push(coding);
    }
    codings
}

fn coding(text: &str) -> Result<ContentCoding, Fault> {
    let meant = match text {
        "br" => return Ok(ContentCoding::Brotli),
        "zstd" => return Ok(ContentCoding::Zstd),
        "gzip" => return Ok(ContentCoding::Gzip),
        "brotli" | ".br" => "did you mean `br`?",
        "zst" | ".zst" => "did you mean `zstd`?",
        "gz" | ".gz" => "did you mean `gzip`?",
        _ => "it can be br (name.br), zstd (name.zst) and gzip (name.gz); `false`: none",
    };
    Err(Fault::new(format!("{} is not a coding of files that lie ready", quoted(text)), meant))
}

fn immutable(decoder: &mut Decoder<'_>, node: &Node) -> Option<Immutable> {
    if matches!(node.value, Value::Bool(false)) {
        return Some(Immutable::Off);
    }
    decoder.choice(
        "immutable",
        node,
        &[("manifest", Immutable::Manifest), ("hashed", Immutable::Hashed), ("false", Immutable::Off)],
    )
}

fn symlinks(decoder: &mut Decoder<'_>, node: &Node) -> Option<Symlinks> {
    decoder.choice(
        "symlinks",
        node,
        &[("inside", Symlinks::Inside), ("follow", Symlinks::Follow), ("never", Symlinks::Never)],
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_below_the_root_is_written_from_there() {
        assert_eq!(check_below_root("not_found", "/404.html").unwrap(), "404.html");
        assert_eq!(check_below_root("not_found", "/errors/404.html").unwrap(), "errors/404.html");
        for text in ["", "/", "404.html", "./404.html", "//404.html", "/a/", "/../a", "/a/./b", "/a\n", "next"] {
            assert!(check_below_root("not_found", text).is_err(), "{text}");
        }
        assert!(check_below_root("not_found", "./404.html").unwrap_err().help.ends_with(": /404.html"));
        assert!(check_below_root("fallback", "nxt").unwrap_err().help.contains("`next`"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_names_a_file_above_the_root(text in "[/.a\\PC]{0,12}") {
            if let Ok(path) = check_below_root("fallback", &text) {
                prop_assert!(!path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
