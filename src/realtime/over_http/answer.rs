//! What the app answers to events: its fields and its body, read whole and checked before anything of it is done.
//!
//! | field | |
//! |---|---|
//! | `Content-Type: application/websocket-events` | with status 200; anything else is no answer to events |
//! | `Content-Bytes-Accepted` | how much of the contents it has taken; without it: all |
//! | `Keep-Alive-Interval` | seconds after which it wants to be asked without a message; 0: not any more. Not less than [`SHORTEST_INTERVAL`] |
//! | `Set-Meta-NAME` | comes back as `Meta-NAME` in every request; empty: forgotten |
//! | `Sec-WebSocket-Extensions: grip` | with OPEN: it has things to say to the edge; `message-prefix` is what messages begin with |

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Reason, Retry};
use crate::http::{Body, Response, fields};
use crate::realtime::events::{self, Event, MEDIA_TYPE};
use crate::realtime::websocket::close;

/// Bytes of an answer, as Pushpin takes.
pub(super) const MAX_BODY: usize = 1_000_000;
/// The app is asked no more often than that.
pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);
/// Longer than that is never.
const LONGEST_INTERVAL: u64 = 86_400;
/// What messages begin with where the app does not say.
const PREFIX: &[u8] = b"m:";

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) events: Vec<Event>,
    /// Bytes of contents; `None`: all.
    pub(super) accepted: Option<u64>,
    /// `Some(None)`: not any more.
    pub(super) interval: Option<Option<Duration>>,
    /// By the names under which they come back. `None`: forgotten.
    pub(super) meta: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// For the operator.
    pub(super) detail: String,
    /// What the client is told.
    pub(super) code: u16,
    /// Whether it has been counted under the upstream's name.
    pub(super) is_counted: bool,
}

impl Failure {
    /// The app has done something wrong.
    pub(super) fn of_app(reason: Reason, detail: String) -> Self {
        Self { reason, detail, code: close::INTERNAL_ERROR, is_counted: false }
    }

    /// The rest of its answer has not come in time.
    pub(super) fn late(patience: Duration) -> Self {
        let detail = format!("its answer has begun, and is not whole after {patience:?} (timeouts.head)");
        Self::of_app(Reason::IdleTimeout, detail)
    }

    /// There was no answer at all.
    pub(super) fn of(error: &Error, is_counted: bool) -> Self {
        // Nothing has been sent of what was only waited for.
        let is_only_late = error.reason == Reason::RouteTimeout && error.retry == Retry::Unsent;
        let code =
            if is_only_late || is_overload(error.reason) { close::TRY_AGAIN_LATER } else { close::INTERNAL_ERROR };
        Self { reason: error.reason, detail: error.to_string(), code, is_counted }
    }
}

/// Whether there was only too much to do, so that nothing has been sent.
pub(super) fn is_overload(reason: Reason) -> bool {
    use Reason as R;
    matches!(reason, R::QueueFull | R::QueueTimeout | R::BacklogFull | R::SpoolFull | R::NoDescriptors)
}

/// Whether this is the answer to events at all, by its head.
pub(super) fn is_events(status: StatusCode, headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    status == StatusCode::OK && media_type.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
}

/// The whole body, up to [`MAX_BODY`].
pub(super) async fn body(mut body: Body) -> Result<Bytes, Failure> {
    let too_large = || Failure::of_app(Reason::BadEvents, format!("its answer is larger than {MAX_BODY} bytes"));
    if body.remaining().is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let mut whole = Bytes::new();
    let mut gathered = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| Failure::of(&error, true))?;
        if whole.len() + gathered.len() + piece.len() > MAX_BODY {
            return Err(too_large());
        }
        // One piece is the rule, and need not be copied.
        if whole.is_empty() && gathered.is_empty() {
            whole = piece;
        } else {
            gathered.extend_from_slice(&std::mem::take(&mut whole));
            gathered.extend_from_slice(&piece);
        }
    }
    Ok(if gathered.is_empty() { whole } else { gathered.freeze() })
}

/// What a response to events says.
pub(super) async fn read(response: Response) -> Result<Answer, Failure> {
    let (parts, content) = response.into_parts();
    if !is_events(parts.status, &parts.headers) {
        return Err(refused(parts.status, &parts.headers));
    }
    let content = body(content).await?;
    parse(&parts.headers, &content)
}

/// The answer is no answer to events.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let media_type = headers.get(header::CONTENT_TYPE).map_or("none", |value| value.to_str().unwrap_or("?"));
    let detail =
        format!("its answer is {} with Content-Type {media_type}, and not 200 with {MEDIA_TYPE}", status.as_u16());
    Failure::of_app(Reason::BadEvents, detail)
}

/// The same of its fields and its body.
pub(super) fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Answer, Failure> {
    let bad = |detail: String| Failure::of_app(Reason::BadEvents, detail);
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(bad("its answer has a Content-Encoding: do not compress events".to_owned()));
    }
    let events = events::decode(body).map_err(|malformed| bad(malformed.to_string()))?;
    let number = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().ok()?.trim().parse::<u64>().ok());
    let accepted = match number("content-bytes-accepted") {
        Some(None) => return Err(bad("its Content-Bytes-Accepted is no number".to_owned())),
        Some(number) => number,
        None => None,
    };
    // What is no number turns it off, as in Pushpin.
    let interval = number("keep-alive-interval").map(|seconds| seconds.and_then(interval));
    Ok(Answer { events, accepted, interval, meta: meta(headers) })
}

fn interval(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.min(LONGEST_INTERVAL)).max(SHORTEST_INTERVAL))
}

fn meta(headers: &HeaderMap) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let set = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().strip_prefix("set-")?;
        let is_named = name.strip_prefix("meta-").is_some_and(|rest| !rest.is_empty());
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| is_named)?;
        Some((name, (!value.is_empty()).then(|| value.clone())))
    };
    headers.iter().filter_map(set).collect()
}

/// With which words messages for the client begin; `None`: the app has nothing else to say.
pub(super) fn prefix(headers: &HeaderMap) -> Option<Bytes> {
    for extension in fields::tokens(headers, &header::SEC_WEBSOCKET_EXTENSIONS) {
        let mut parts = extension.split(';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case("grip")) {
            continue;
        }
        let value = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("message-prefix").then_some(value.trim())
        });
        return Some(value.map_or(Bytes::from_static(PREFIX), |value| Bytes::from(unquoted(value))));
    }
    None
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut is_escaped = false;
    inner
        .chars()
        .filter(|character| {
            is_escaped = *character == '\\' && !is_escaped;
            !is_escaped
        })
        .collect()
}

/// What the client gets of the answer to OPEN beside the handshake's own fields.
pub(super) fn for_client(headers: &HeaderMap) -> HeaderMap {
    let is_for_edge = |name: &HeaderName| {
        let text = name.as_str();
        text.starts_with("content-")
            || text.starts_with("set-meta-")
            || text.starts_with("grip-")
            || matches!(*name, header::SEC_WEBSOCKET_EXTENSIONS | header::SEC_WEBSOCKET_ACCEPT)
            || text == "keep-alive-interval"
    };
    let mut passing = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_for_edge(name)) {
        passing.append(name, value.clone());
    }
    passing
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::realtime::events::Kind;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_answer_of_django_grip_is_read() {
        let lines = [
            ("content-type", "application/websocket-events"),
            ("sec-websocket-extensions", "grip"),
            ("set-meta-user", "bob"),
            ("set-meta-old", ""),
            ("set-meta-", "x"),
        ];
        let answer = parse(&headers(&lines), &Bytes::from_static(b"OPEN\r\nTEXT 3\r\nm:a\r\n")).unwrap();
        assert_eq!(answer.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [Kind::Open, Kind::Text]);
        assert_eq!((answer.accepted, answer.interval), (None, None));
        let meta = [("meta-user", Some("bob")), ("meta-old", None)];
        let read: Vec<_> = answer
            .meta
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref().map(|v| v.to_str().unwrap())))
            .collect();
        assert_eq!(read, meta);
    }

    #[test]
    fn the_interval_has_a_shortest_one_and_an_end() {
        for (value, expected) in [
            ("30", Some(Duration::from_secs(30))),
            ("1", Some(SHORTEST_INTERVAL)),
            ("0", None),
            ("-1", None),
            ("soon", None),
            ("99999999999", Some(Duration::from_secs(LONGEST_INTERVAL))),
        ] {
            let lines = headers(&[("keep-alive-interval", value)]);
            assert_eq!(parse(&lines, &Bytes::new()).unwrap().interval, Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_answer_to_events_says_what_it_is() {
        for (lines, body, words) in [
            (&[("content-bytes-accepted", "x")][..], &b""[..], "no number"),
            (&[("content-encoding", "gzip")], b"", "Content-Encoding"),
            (&[], b"<html>", "the event at byte 0"),
        ] {
            let failure = parse(&headers(lines), &Bytes::from_static(body)).unwrap_err();
            assert_eq!((failure.reason, failure.code), (Reason::BadEvents, 1011));
            assert!(failure.detail.contains(words), "{}", failure.detail);
        }
        assert!(parse(&headers(&[("content-encoding", "identity")]), &Bytes::new()).is_ok());
    }

    #[test]
    fn the_media_type_may_have_parameters_and_the_status_is_200() {
        let of = |value| headers(&[("content-type", value)]);
        assert!(is_events(StatusCode::OK, &of("application/websocket-events")));
        assert!(is_events(StatusCode::OK, &of("Application/WebSocket-Events; charset=utf-8")));
        assert!(!is_events(StatusCode::OK, &of("application/websocket-eventsx")));
        assert!(!is_events(StatusCode::OK, &HeaderMap::new()));
        assert!(!is_events(StatusCode::FORBIDDEN, &of("application/websocket-events")));
        let detail = refused(StatusCode::INTERNAL_SERVER_ERROR, &of("text/html")).detail;
        assert!(detail.contains("500 with Content-Type text/html"), "{detail}");
    }

    #[test]
    fn the_prefix_is_what_the_app_says() {
        for (value, expected) in [
            ("grip", Some("m:")),
            ("GRIP; message-prefix=\"\"", Some("")),
            ("permessage-deflate, grip; message-prefix=\"x\\\"y\"", Some("x\"y")),
            ("grip; message-prefix=p", Some("p")),
            ("permessage-deflate", None),
        ] {
            let prefix = prefix(&headers(&[("sec-websocket-extensions", value)]));
            assert_eq!(prefix.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        assert_eq!(body(Body::Empty).await.unwrap(), Bytes::new());
        assert_eq!(body(Body::Full(Bytes::from(vec![b'x'; MAX_BODY]))).await.unwrap().len(), MAX_BODY);
        let failure = body(Body::Full(Bytes::from(vec![b'x'; MAX_BODY + 1]))).await.unwrap_err();
        assert_eq!(failure.reason, Reason::BadEvents);
    }

    #[test]
    fn the_client_gets_cookies_and_its_protocol_and_nothing_that_is_for_the_edge() {
        let all = headers(&[
            ("content-type", "application/websocket-events"),
            ("content-length", "6"),
            ("content-bytes-accepted", "0"),
            ("keep-alive-interval", "20"),
            ("set-meta-user", "bob"),
            ("grip-hold", "stream"),
            ("grip-channel", "a"),
            ("sec-websocket-extensions", "grip"),
            ("sec-websocket-protocol", "chat"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        let expected = headers(&[("sec-websocket-protocol", "chat"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        assert_eq!(for_client(&all), expected);
    }
}
