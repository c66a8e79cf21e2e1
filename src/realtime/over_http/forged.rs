//! What clients send that an app may take for the edge's: requests of their own to a route whose WebSockets end at the edge.
//!
//! An app knows a WebSocket by the media type, the connection by `Connection-Id`, and what it has noted of it itself by `Meta-*`. It
//! believes all of that, so that no client may say it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::realtime::events::MEDIA_TYPE;

/// Whether a request says that it is events, in whatever spelling: apps trim and fold more than HTTP does (U+00A0, for one).
pub(super) fn claims_events(headers: &HeaderMap) -> bool {
    let names_it = |value: &HeaderValue| {
        let mut windows = value.as_bytes().windows(MEDIA_TYPE.len());
        windows.any(|part| part.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()))
    };
    headers.get_all(header::CONTENT_TYPE).iter().any(names_it)
}

/// Takes away what only the edge may say.
pub(super) fn take_away(headers: &mut HeaderMap) {
    let is_of_edge = |name: &&HeaderName| {
        let text = name.as_str();
        text.starts_with("meta-") || matches!(text, "connection-id" | "content-bytes-replayed")
    };
    let forged: Vec<HeaderName> = headers.keys().filter(is_of_edge).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_the_media_type_passes() {
        for (value, is_claim) in [
            (&b"application/websocket-events"[..], true),
            (b"Application/WebSocket-Events; charset=utf-8", true),
            (b"\xa0application/websocket-events\x85", true),
            (b"text/plain, application/websocket-events", true),
            (b"application/websocket-event", false),
            (b"application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.append(header::CONTENT_TYPE, HeaderValue::from_bytes(value).unwrap());
            assert_eq!(claims_events(&headers), is_claim, "{}", value.escape_ascii());
        }
        assert!(!claims_events(&HeaderMap::new()));
    }

    #[test]
    fn what_only_the_edge_says_is_taken_away() {
        let mut headers = HeaderMap::new();
        for name in ["meta-user", "connection-id", "content-bytes-replayed", "metadata", "cookie"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("2"));
        }
        take_away(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "metadata"]);
    }
}
