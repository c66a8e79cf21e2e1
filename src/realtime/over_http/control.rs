//! Messages of the app to the edge (GRIP): a TEXT that begins with `c:` and goes on in JSON.
//!
//! | `type` | |
//! |---|---|
//! | `subscribe` (`channel`, `filters`), `unsubscribe` (`channel`) | what is published there reaches the client |
//! | `set-meta` (`name`, `value`; without one: forgotten) | what filters go by |
//! | `detach` | the app wants to hear nothing more; what is published still reaches the client |
//! | `keep-alive` (`content` or `content-bin`, `message-type`, `timeout`, `mode`: `idle` or `interval`; without content: none) | sent to the client when nothing else is |
//! | `send-delayed` (`content` or `content-bin`, `message-type`, `timeout`) | sent to the client then, as it is; one at a time: the next sends the last at once |
//! | `flush-delayed` | sent now |
//!
//! What is not known is left out, as Pushpin does, and so is what cannot be read: the log says so.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::realtime::hub::limits;
use crate::realtime::websocket::Opcode;

/// How such a message begins.
pub(super) const PREFIX: &[u8] = b"c:";

/// Seconds of a keep-alive that says none.
const KEEP_ALIVE: Duration = Duration::from_secs(55);
/// The longest time that means anything.
const LONGEST: u64 = 86_400;

/// What the app wants of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Control {
    Subscribe { channel: String, filters: Vec<String> },
    Unsubscribe { channel: String },
    SetMeta { name: String, value: Option<String> },
    Detach,
    KeepAlive(Option<KeepAlive>),
    SendDelayed { message: Message, after: Duration },
    FlushDelayed,
}

/// A message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) opcode: Opcode,
    pub(super) content: Bytes,
}

/// What is sent when nothing else is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeepAlive {
    pub(super) message: Message,
    pub(super) every: Duration,
    /// Whether it is sent whatever else is.
    pub(super) is_interval: bool,
}

/// What stands behind [`PREFIX`]. `Ok(None)`: a type that is not known here.
///
/// # Errors
/// What is wrong with it, for the operator.
pub(super) fn parse(json: &[u8]) -> Result<Option<Control>, String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("no JSON: {error}"))?;
    let kind = text(&value, "type").ok_or("it has no `type`")?;
    let control = match kind.as_str() {
        "subscribe" => {
            Control::Subscribe { channel: name(&value, "channel", limits::CHANNEL)?, filters: filters(&value)? }
        }
        "unsubscribe" => Control::Unsubscribe { channel: name(&value, "channel", limits::CHANNEL)? },
        "set-meta" => {
            let value_of = text(&value, "value");
            if value_of.as_ref().is_some_and(|value| value.len() > limits::META_TEXT) {
                return Err(format!("`value` is longer than {} bytes", limits::META_TEXT));
            }
            Control::SetMeta { name: name(&value, "name", limits::META_TEXT)?, value: value_of }
        }
        "detach" => Control::Detach,
        "keep-alive" => Control::KeepAlive(keep_alive(&value)?),
        "send-delayed" => {
            let message = message(&value)?.ok_or("send-delayed has no content")?;
            Control::SendDelayed { message, after: seconds(&value).unwrap_or_default() }
        }
        "flush-delayed" => Control::FlushDelayed,
        _ => return Ok(None),
    };
    Ok(Some(control))
}

/// A text, or a number as one: meta values may be either.
fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn name(value: &Value, key: &str, longest: usize) -> Result<String, String> {
    let name = text(value, key).filter(|name| !name.is_empty()).ok_or_else(|| format!("it has no `{key}`"))?;
    if name.len() > longest { Err(format!("`{key}` is longer than {longest} bytes")) } else { Ok(name) }
}

fn filters(value: &Value) -> Result<Vec<String>, String> {
    let Some(filters) = value.get("filters") else { return Ok(Vec::new()) };
    let filters = filters.as_array().ok_or("`filters` is no list")?;
    if filters.len() > limits::FILTERS {
        return Err(format!("a channel has at most {} filters", limits::FILTERS));
    }
    let filter = |filter: &Value| filter.as_str().map(str::to_owned).ok_or_else(|| "a filter is no text".to_owned());
    filters.iter().map(filter).collect()
}

fn keep_alive(value: &Value) -> Result<Option<KeepAlive>, String> {
    let Some(message) = message(value)? else { return Ok(None) };
    let every = seconds(value).filter(|every| !every.is_zero()).unwrap_or(KEEP_ALIVE);
    Ok(Some(KeepAlive { message, every, is_interval: text(value, "mode").as_deref() == Some("interval") }))
}

/// `None`: there is no content.
fn message(value: &Value) -> Result<Option<Message>, String> {
    let (content, usual) = match (text(value, "content"), text(value, "content-bin")) {
        (Some(content), _) => (Bytes::from(content), "text"),
        (None, Some(coded)) => {
            let content = STANDARD.decode(coded).map_err(|_| "`content-bin` is not base64")?;
            (Bytes::from(content), "binary")
        }
        (None, None) => return Ok(None),
    };
    let opcode = match text(value, "message-type").as_deref().unwrap_or(usual) {
        "text" => Opcode::Text,
        "binary" => Opcode::Binary,
        "ping" => Opcode::Ping,
        "pong" => Opcode::Pong,
        other => return Err(format!("there is no `message-type` {other:?}")),
    };
    if opcode == Opcode::Text && std::str::from_utf8(&content).is_err() {
        return Err("a text that is not UTF-8".to_owned());
    }
    Ok(Some(Message { opcode, content }))
}

fn seconds(value: &Value) -> Option<Duration> {
    value.get("timeout")?.as_u64().map(|seconds| Duration::from_secs(seconds.min(LONGEST)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_gripcontrol_writes_is_understood() {
        let control = |json: &str| parse(json.as_bytes()).unwrap();
        let channel = || "room/1 ü".to_owned();
        for (json, expected) in [
            (
                r#"{"channel": "room/1 \u00fc", "type": "subscribe"}"#,
                Some(Control::Subscribe { channel: channel(), filters: vec![] }),
            ),
            (
                r#"{"type":"subscribe","channel":"room/1 ü","filters":["skip-self","x"]}"#,
                Some(Control::Subscribe { channel: channel(), filters: vec!["skip-self".into(), "x".into()] }),
            ),
            (
                r#"{"channel": "room/1 \u00fc", "type": "unsubscribe"}"#,
                Some(Control::Unsubscribe { channel: channel() }),
            ),
            (r#"{"type": "detach"}"#, Some(Control::Detach)),
            (
                r#"{"type":"set-meta","name":"user","value":"7"}"#,
                Some(Control::SetMeta { name: "user".into(), value: Some("7".into()) }),
            ),
            (r#"{"type":"set-meta","name":"user"}"#, Some(Control::SetMeta { name: "user".into(), value: None })),
            (r#"{"type":"flush-delayed"}"#, Some(Control::FlushDelayed)),
            (r#"{"type":"session","id":"S"}"#, None),
        ] {
            assert_eq!(control(json), expected, "{json}");
        }
    }

    #[test]
    fn messages_for_later_have_their_kind_and_time() {
        let control = |json: &str| parse(json.as_bytes()).unwrap().unwrap();
        let message = |opcode, content: &'static [u8]| Message { opcode, content: Bytes::from_static(content) };
        let ping =
            KeepAlive { message: message(Opcode::Ping, b""), every: Duration::from_secs(30), is_interval: false };
        let json = r#"{"type":"keep-alive","message-type":"ping","content":"","timeout":30,"mode":"idle"}"#;
        assert_eq!(control(json), Control::KeepAlive(Some(ping)));
        let bytes = KeepAlive { message: message(Opcode::Binary, b"\xff"), every: KEEP_ALIVE, is_interval: true };
        let json = r#"{"type":"keep-alive","content-bin":"/w==","timeout":0,"mode":"interval"}"#;
        assert_eq!(control(json), Control::KeepAlive(Some(bytes)));
        assert_eq!(control(r#"{"type":"keep-alive"}"#), Control::KeepAlive(None));
        let json = r#"{"type":"send-delayed","content":"m:later","timeout":1}"#;
        let delayed =
            Control::SendDelayed { message: message(Opcode::Text, b"m:later"), after: Duration::from_secs(1) };
        assert_eq!(control(json), delayed);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (json, why) in [
            ("", "no JSON"),
            ("[]", "it has no `type`"),
            (r#"{"type":"subscribe"}"#, "it has no `channel`"),
            (r#"{"type":"subscribe","channel":""}"#, "it has no `channel`"),
            (r#"{"type":"subscribe","channel":"a","filters":"x"}"#, "`filters` is no list"),
            (r#"{"type":"subscribe","channel":"a","filters":[1]}"#, "a filter is no text"),
            (r#"{"type":"subscribe","channel":"a","filters":["1","2","3","4","5","6"]}"#, "at most 5 filters"),
            (r#"{"type":"set-meta"}"#, "it has no `name`"),
            (r#"{"type":"send-delayed"}"#, "send-delayed has no content"),
            (r#"{"type":"send-delayed","content-bin":"?"}"#, "not base64"),
            (r#"{"type":"send-delayed","content-bin":"/w==","message-type":"text"}"#, "not UTF-8"),
            (r#"{"type":"keep-alive","content":"x","message-type":"pop"}"#, "no `message-type` \"pop\""),
        ] {
            let error = parse(json.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn names_and_values_are_no_longer_than_the_hub_takes() {
        let long = |length: usize| "x".repeat(length);
        for (json, is_good) in [
            (format!(r#"{{"type":"subscribe","channel":"{}"}}"#, long(limits::CHANNEL)), true),
            (format!(r#"{{"type":"subscribe","channel":"{}"}}"#, long(limits::CHANNEL + 1)), false),
            (format!(r#"{{"type":"set-meta","name":"a","value":"{}"}}"#, long(limits::META_TEXT)), true),
            (format!(r#"{{"type":"set-meta","name":"a","value":"{}"}}"#, long(limits::META_TEXT + 1)), false),
            (format!(r#"{{"type":"set-meta","name":"{}"}}"#, long(limits::META_TEXT + 1)), false),
        ] {
            assert_eq!(parse(json.as_bytes()).is_ok(), is_good, "{} bytes", json.len());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_be_refused(json in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&json);
        }
    }
}
