//! `path`, `path_exact` and `mount`: which requests are a route's, and under which prefix its app lives.

use crate::config::PathPattern;
use crate::config::decode::{Decoder, Fields};
use crate::config::node::{Entry, Node};
use crate::config::report::quoted;
use crate::config::values::Fault;

/// The path as written, as compared, and its entry.
pub(super) fn decode<'n>(decoder: &mut Decoder<'_>, fields: &Fields<'n>) -> Option<(String, PathPattern, &'n Entry)> {
    let entry = match (fields.entry("path"), fields.entry("path_exact")) {
        (Some(entry), None) | (None, Some(entry)) => entry,
        (Some(prefix), Some(exact)) => {
            decoder
                .error(&exact.key.span, "a route has either `path` or `path_exact`")
                .also(&prefix.key.span, "the other one")
                .help("`path` takes everything below it, `path_exact` that one path; write two routes for both");
            return None;
        }
        (None, None) if ["path", "path_exact", "path_regex"].iter().any(|key| fields.means(key)) => return None,
        (None, None) => {
            decoder
                .error(&fields.span, "this route has no path")
                .help("write path: / for everything, or path_exact: /up for one path");
            return None;
        }
    };
    let key = entry.key.text.as_str();
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

/// Paths are compared with the decoded path of a request, in which none of these can appear.
fn check_path(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("the path {} {message}", quoted(text)), help));
    if text.starts_with(['~', '^']) {
        return fault(
            "looks like a regular expression",
            "they are not available in this version: write the prefix".into(),
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
    let text = decoder.scalar("mount", node, "a path")?;
    decoder.fault(&node.span, check_path(&text).and_then(|()| check_mount(&text)))?;
    let mount = text.trim_end_matches('/');
    let (path, _, entry) = path?;
    if !is_within(path, mount) {
        decoder
            .error(&node.span, format!("the path of this route is not within {}", quoted(mount)))
            .also(&entry.value.span, "the path")
            .help(format!("write path: {mount}/ if the app lives there; the app sees what follows as its path"));
        return None;
    }
    Some(mount.to_owned())
}

/// It goes into a header as it is, and apps put it before every link they write.
fn check_mount(text: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("the mount {} {message}", quoted(text)), help));
    if text.trim_end_matches('/').is_empty() {
        return fault("says nothing", "take it out: an app without `mount` lives at /");
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
    fn a_mount_is_a_plain_prefix_on_segment_boundaries() {
        for text in ["/api", "/api/", "/a/b-c.d_e~", "/@x"] {
            assert_eq!(check_mount(text), Ok(()), "{text}");
        }
        for text in ["/", "//", "//evil.example", "/a//b", "/café", "/a b", "/a<b", "/100%", "/a^b"] {
            assert!(check_mount(text).is_err(), "{text}");
        }
        for (path, is_inside) in [("/api", true), ("/api/", true), ("/api/x", true), ("/apix", false), ("/", false)] {
            assert_eq!(is_within(path, "/api"), is_inside, "{path}");
        }
    }
}
