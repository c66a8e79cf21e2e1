//! `path`, `path_exact` and `path_regex`, `mount` and `strip_prefix`: which requests are a route's, and what is before its
//! app's own path.

use crate::config::decode::{Decoder, Fields};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{PathPattern, PathRegex};

/// The path as written, as compared, and its entry.
pub(super) fn decode<'n>(decoder: &mut Decoder<'_>, fields: &Fields<'n>) -> Option<(String, PathPattern, &'n Entry)> {
    let entry = one_entry(decoder, fields)?;
    let key = entry.key.text.as_str();
    if key == "path_regex" {
        let text = decoder.scalar(key, &entry.value, "a regular expression")?;
        let regex = decoder.fault(&entry.value.span, regex(&text))?;
        return Some((text, PathPattern::Regex(regex), entry));
    }
    let text = decoder.scalar(key, &entry.value, "a path")?;
    decoder.fault(&entry.value.span, check_path(&text))?;
    let is_prefix = key == "path";
    if is_prefix && text.ends_with('*') {
        decoder
            .warning(&entry.value.span, "the `*` at the end stands for itself")
            .help(format!("`path` takes everything below it: write {}", text.trim_end_matches('*')));
    }
    let pattern = if is_prefix { PathPattern::Prefix(text.clone()) } else { PathPattern::Exact(text.clone()) };
    Some((text, pattern, entry))
}

const KEYS: [&str; 3] = ["path", "path_exact", "path_regex"];

/// The one of the three that is written.
fn one_entry<'n>(decoder: &mut Decoder<'_>, fields: &Fields<'n>) -> Option<&'n Entry> {
    let written: Vec<&'n Entry> = KEYS.iter().filter_map(|key| fields.entry(key)).collect();
    match written[..] {
        [entry] => return Some(entry),
        [] if KEYS.iter().any(|key| fields.means(key)) => {}
        [] => {
            decoder
                .error(&fields.span, "this route has no path")
                .help("write path: / for everything, or path_exact: /up for one path");
        }
        [first, second, ..] => {
            decoder
                .error(&second.key.span, format!("a route has either `{}` or `{}`", first.key.text, second.key.text))
                .also(&first.key.span, "the other one")
                .help("`path` takes everything below it, `path_exact` that one path, `path_regex` what it is found in; write two routes for both");
        }
    }
    None
}

/// nginx's `~` and `~*` before it say what the key says already.
fn regex(text: &str) -> Result<PathRegex, Fault> {
    let written = match text.split_once(' ') {
        Some(("~", pattern)) => Some(pattern.trim_start().to_owned()),
        Some(("~*", pattern)) => Some(format!("(?i){}", pattern.trim_start())),
        _ => None,
    };
    match written {
        Some(pattern) => Err(Fault::new(
            format!("{} is written as for nginx", quoted(text)),
            format!("write path_regex: '{pattern}'"),
        )),
        None => PathRegex::parse(text),
    }
}

/// Paths are compared with the decoded path of a request, in which none of these can appear.
pub(in crate::config::schema) fn check_path(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("the path {} {message}", quoted(text)), help));
    if text.starts_with(['~', '^']) {
        return fault(
            "looks like a regular expression",
            format!("write path_regex: '{}'", text.trim_start_matches(['~', '*', ' '])),
        );
    }
    if !text.starts_with('/') {
        return fault("does not begin with `/`", format!("write /{text}"));
    }
    if let Some(at) = text.find(['?', '#']) {
        return fault(
            "holds a query or a fragment",
            format!("write {}: routes are chosen by the path alone", &text[..at]),
        );
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return fault(
            "holds a `.` or `..` segment",
            "write it without: clients' paths are resolved before they are compared".into(),
        );
    }
    if text.chars().any(char::is_control) {
        return fault("holds a control character", "take it out".into());
    }
    let escapes =
        |at: usize| text.as_bytes().get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if text.match_indices('%').any(|(at, _)| escapes(at)) {
        return fault("is percent-encoded", "write the characters themselves (/café, not /caf%C3%A9)".into());
    }
    Ok(())
}

/// The prefix that the app lives under, without a slash at its end. The route's path must be within it.
pub(super) fn mount(
    decoder: &mut Decoder<'_>,
    node: &Node,
    path: Option<&(String, PathPattern, &Entry)>,
) -> Option<String> {
    prefix(decoder, "mount", node, path, |mount| {
        format!("write path: {mount}/ if the app lives there; the app sees what follows as its path")
    })
}

/// The prefix that is taken away, without a slash at its end. The route's path must be within it.
pub(super) fn strip_prefix(
    decoder: &mut Decoder<'_>,
    fields: &Fields<'_>,
    path: Option<&(String, PathPattern, &Entry)>,
) -> Option<String> {
    let entry = fields.entry("strip_prefix")?;
    if let Some(mount) = fields.entry("mount") {
        decoder
            .error(&entry.key.span, "a route has either `mount` or `strip_prefix`")
            .also(&mount.key.span, "the other one")
            .help(
                "with `mount` the app knows the prefix, and puts it before its links; with `strip_prefix` it does not",
            );
        return None;
    }
    prefix(decoder, "strip_prefix", &entry.value, path, |prefix| {
        format!("write path: {prefix}/ for what is below it; the app sees what follows as its path")
    })
}

fn prefix(
    decoder: &mut Decoder<'_>,
    key: &str,
    node: &Node,
    path: Option<&(String, PathPattern, &Entry)>,
    help: impl FnOnce(&str) -> String,
) -> Option<String> {
    let text = decoder.scalar(key, node, "a path")?;
    decoder.fault(&node.span, check_path(&text).and_then(|()| check_prefix(key, &text)))?;
    let prefix = text.trim_end_matches('/');
    let (path, pattern, entry) = path?;
    if let PathPattern::Regex(_) = pattern {
        decoder
            .error(&node.span, format!("`{key}` does not go with `path_regex`"))
            .also(&entry.key.span, "this may match anywhere")
            .help(format!("write path: {prefix}/, and a route for each prefix"));
        return None;
    }
    if !is_within(path, prefix) {
        decoder
            .error(&node.span, format!("the path of this route is not within {}", quoted(prefix)))
            .also(&entry.value.span, "the path")
            .help(help(prefix));
        return None;
    }
    Some(prefix.to_owned())
}

/// It goes into a header as it is, and apps put it before every link they write.
fn check_prefix(key: &str, text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("the {key} {} {message}", quoted(text)), help));
    if text.trim_end_matches('/').is_empty() {
        return fault("says nothing", &format!("take it out: an app without `{key}` lives at /"));
    }
    if text.contains("//") {
        return fault("holds two slashes in a row", "write one: at the start of a link two mean another host");
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"/-._~!$&'()*+,;=:@".contains(*c)) {
        return fault(
            &format!("holds {}, which a URL cannot have as it is", quoted(&bad.to_string())),
            "write letters, digits, `-`, `.`, `_` and `~`",
        );
    }
    Ok(())
}

/// On segment boundaries.
fn is_within(path: &str, mount: &str) -> bool {
    path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_a_decoded_request_can_have() {
        for text in ["/", "/static/", "/a/b.txt", "/café", "/100%", "/a b", "/..a/"] {
            assert_eq!(check_path(text), Ok(()), "{text}");
        }
        for text in ["", "static", "/a?b", "/a#b", "/a/../b", "/.", "/caf%C3%A9", "/a\nb", "~ ^/x", "^/x"] {
            assert!(check_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_of_nginx_is_told_how_it_is_written_here() {
        assert!(regex("^/a").is_ok());
        assert_eq!(regex("~ ^/a").unwrap_err().help, "write path_regex: '^/a'");
        assert_eq!(regex("~*  \\.php$").unwrap_err().help, "write path_regex: '(?i)\\.php$'");
        assert_eq!(check_path("~ ^/x").unwrap_err().help, "write path_regex: '^/x'");
    }

    #[test]
    fn a_mount_is_a_plain_prefix_on_segment_boundaries() {
        for text in ["/api", "/api/", "/a/b-c.d_e~", "/@x"] {
            assert_eq!(check_prefix("mount", text), Ok(()), "{text}");
        }
        for text in ["/", "//", "//evil.example", "/a//b", "/café", "/a b", "/a<b", "/100%", "/a^b"] {
            assert!(check_prefix("mount", text).is_err(), "{text}");
        }
        for (path, is_inside) in [("/api", true), ("/api/", true), ("/api/x", true), ("/apix", false), ("/", false)] {
            assert_eq!(is_within(path, "/api"), is_inside, "{path}");
        }
    }
}
