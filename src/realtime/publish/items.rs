//! What an app publishes, as JSON: `{"items": [{"channel": …, "http-stream": {…}}, …]}`.
//!
//! Formats stand at the top of an item, as the Python libraries put them, or below `formats`, as others do.
//!
//! | format | actions | else |
//! |---|---|---|
//! | `http-response` | `send`, `hint` | `code`, `reason`, `headers`, `body`, `body-bin` or `body-patch` |
//! | `http-stream` | `send`, `hint`, `close` | `content` or `content-bin` |
//! | `ws-message` | `send`, `close`, `refresh` | `type`, `content` or `content-bin`; of a close `code` and `reason` |
//!
//! What ends in `-bin` is base64. Keys that are not known are left alone. All items of a request are read before the first one is
//! published: one that is malformed keeps all of them back, and the error says which it is.

use bytes::Bytes;
use http::HeaderName;
use serde_json::{Map, Value};

use crate::realtime::grip::Fault;
use crate::realtime::grip::json::{check_patch, content, object, read_response, shown, string, strings, whole};
use crate::realtime::hub::{
    Content, Filters, Item, Kind, Message, MessagePart, Meta, Reply, ReplyBody, ResponsePart, StreamPart, limits,
};

/// Items of one request.
pub const MOST_ITEMS: usize = 1_000;

const FORMATS: [&str; 3] = ["http-response", "http-stream", "ws-message"];

const GRIP_EXPOSE_HEADERS: HeaderName = HeaderName::from_static("grip-expose-headers");

fn fault<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(message.into()))
}

/// The items of a request.
///
/// # Errors
/// What is wrong, in which item, and under which key.
pub fn read(body: &[u8]) -> Result<Vec<Item>, Fault> {
    let document: Value =
        serde_json::from_slice(body).map_err(|error| Fault(format!("the body is no JSON: {error}")))?;
    let Value::Object(document) = document else {
        return fault(r#"the body is no object: write {"items": [...]}"#);
    };
    let items = match document.get("items") {
        Some(Value::Array(items)) => items,
        Some(_) => return fault("`items` is no list"),
        None => return fault(r#"`items` is missing: write {"items": [...]}"#),
    };
    if items.len() > MOST_ITEMS {
        return fault(format!("`items` has more than {MOST_ITEMS} items"));
    }
    let read = |(at, value): (usize, &Value)| {
        let within = format!("items[{at}]");
        match value {
            Value::Object(item) => read_item(item, &within),
            _ => fault(format!("{within} is no object")),
        }
    };
    items.iter().enumerate().map(read).collect()
}

fn read_item(item: &Map<String, Value>, place: &str) -> Result<Item, Fault> {
    let within = format!("{place}.");
    let channel = match string(item, &within, "channel")? {
        None | Some("") => return fault(format!("{within}channel is missing, or empty")),
        Some(name) if name.len() > limits::CHANNEL => {
            return fault(format!("{within}channel is longer than {} bytes", limits::CHANNEL));
        }
        Some(name) => name,
    };
    let formats = object(item, &within, "formats")?;
    let mut read = Item {
        channel: channel.into(),
        id: id(item, &within, "id")?,
        prev_id: id(item, &within, "prev-id")?,
        is_unsequenced: flag(item, &within, "no-seq")?,
        meta: meta(item, &within)?,
        ..Item::default()
    };
    for name in FORMATS {
        let (value, place) = match (item.get(name), formats.and_then(|formats| formats.get(name))) {
            (Some(value), _) => (value, format!("{within}{name}")),
            (None, Some(value)) => (value, format!("{within}formats.{name}")),
            (None, None) => continue,
        };
        let Value::Object(format) = value else { return fault(format!("{place} is no object")) };
        match name {
            "http-response" => read.response = Some(response(format, &place)?),
            "http-stream" => read.stream = Some(stream(format, &place)?),
            _ => read.message = Some(message(format, &place)?),
        }
    }
    if read.response.is_none() && read.stream.is_none() && read.message.is_none() {
        return fault(format!("{place} has none of the formats {}", FORMATS.join(", ")));
    }
    Ok(read)
}

/// A text; a number is taken for one.
fn id(item: &Map<String, Value>, within: &str, name: &str) -> Result<Option<Box<str>>, Fault> {
    let id: Box<str> = match item.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        Some(_) => return fault(format!("{within}{name} is no text")),
    };
    if id.len() > limits::ID {
        return fault(format!("{within}{name} is longer than {} bytes", limits::ID));
    }
    Ok(Some(id))
}

fn flag(item: &Map<String, Value>, within: &str, name: &str) -> Result<bool, Fault> {
    match item.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => fault(format!("{within}{name} is neither true nor false")),
    }
}

fn meta(item: &Map<String, Value>, within: &str) -> Result<Meta, Fault> {
    let Some(pairs) = object(item, within, "meta")? else { return Ok(Meta::new()) };
    if pairs.len() > limits::META {
        return fault(format!("{within}meta has more than {} names", limits::META));
    }
    let pair = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return fault(format!("{within}meta.{} is no text", shown(name))),
        };
        if name.len() + value.len() > limits::META_TEXT {
            return fault(format!("{within}meta.{} is longer than {} bytes", shown(name), limits::META_TEXT));
        }
        Ok((name.as_str().into(), value.into()))
    };
    pairs.iter().map(pair).collect()
}

fn filters(format: &Map<String, Value>, within: &str) -> Result<Option<Filters>, Fault> {
    if format.get("content-filters").is_none_or(Value::is_null) {
        return Ok(None);
    }
    let names = strings(format, within, "content-filters")?;
    if names.len() > limits::FILTERS {
        return fault(format!("{within}content-filters has more than {} filters", limits::FILTERS));
    }
    Ok(Some(Filters::of_item(names)))
}

/// The action, which is one of these.
fn action<'a>(format: &'a Map<String, Value>, place: &str, known: &[&str]) -> Result<&'a str, Fault> {
    let action = string(format, &format!("{place}."), "action")?.unwrap_or("send");
    if known.contains(&action) {
        return Ok(action);
    }
    fault(format!("{place}.action is {}, and this says `{}`", known.join(" or "), shown(action)))
}

fn response(format: &Map<String, Value>, place: &str) -> Result<Content<ResponsePart>, Fault> {
    let within = format!("{place}.");
    if action(format, place, &["send", "hint"])? == "hint" {
        return Ok(Content { filters: None, part: ResponsePart::Hint });
    }
    let mut part = read_response(format, place)?;
    let mut exposed: Vec<Box<str>> = Vec::new();
    for line in part.headers.get_all(GRIP_EXPOSE_HEADERS) {
        let names = line.to_str().unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        exposed.extend(names.map(|name| name.to_ascii_lowercase().into()));
    }
    let own: Vec<HeaderName> = part.headers.keys().filter(|name| name.as_str().starts_with("grip-")).cloned().collect();
    for name in own {
        part.headers.remove(name);
    }
    let has = |name: &str| format.get(name).is_some_and(|value| !value.is_null());
    let body = match format.get("body-patch") {
        Some(Value::Array(changes)) if !has("body") && !has("body-bin") => {
            check_patch(changes).map_err(|why| Fault(format!("{within}{why}")))?;
            let text = serde_json::to_vec(changes).map_err(|error| Fault(format!("{within}body-patch: {error}")))?;
            ReplyBody::Patch(text.into())
        }
        None | Some(Value::Null | Value::Array(_)) => {
            if !has("body") && !has("body-bin") {
                return fault(format!("{place} has none of body, body-bin and body-patch"));
            }
            ReplyBody::Whole(part.body)
        }
        Some(_) => return fault(format!("{within}body-patch is no list")),
    };
    let reply = Reply { status: part.status, headers: part.headers, exposed, body };
    Ok(Content { filters: filters(format, &within)?, part: ResponsePart::Send(reply) })
}

fn stream(format: &Map<String, Value>, place: &str) -> Result<Content<StreamPart>, Fault> {
    let within = format!("{place}.");
    let part = match action(format, place, &["send", "hint", "close"])? {
        "hint" => StreamPart::Hint,
        "close" => StreamPart::Close,
        _ => match content(format, &within, "content", "content-bin")? {
            Some(content) => StreamPart::Send(content),
            None => return fault(format!("{place} has neither content nor content-bin")),
        },
    };
    Ok(Content { filters: filters(format, &within)?, part })
}

fn message(format: &Map<String, Value>, place: &str) -> Result<Content<MessagePart>, Fault> {
    let within = format!("{place}.");
    let part = match action(format, place, &["send", "close", "refresh"])? {
        "refresh" => MessagePart::Refresh,
        "close" => close(format, &within)?,
        _ => MessagePart::Send(sent(format, place)?),
    };
    Ok(Content { filters: filters(format, &within)?, part })
}

fn sent(format: &Map<String, Value>, place: &str) -> Result<Message, Fault> {
    /// RFC 6455, 5.5.
    const LARGEST_CONTROL: usize = 125;
    let within = format!("{place}.");
    let is_binary = format.get("content-bin").is_some_and(|value| !value.is_null());
    let kind = match string(format, &within, "type")? {
        None if is_binary => Kind::Binary,
        None | Some("text") => Kind::Text,
        Some("binary") => Kind::Binary,
        Some("ping") => Kind::Ping,
        Some("pong") => Kind::Pong,
        Some(other) => {
            return fault(format!("{within}type is text, binary, ping or pong, and this says `{}`", shown(other)));
        }
    };
    let is_control = matches!(kind, Kind::Ping | Kind::Pong);
    let payload = match content(format, &within, "content", "content-bin")? {
        Some(payload) => payload,
        None if is_control => Bytes::new(),
        None => return fault(format!("{place} has neither content nor content-bin")),
    };
    if is_control && payload.len() > LARGEST_CONTROL {
        return fault(format!("{place}: a ping or a pong has {LARGEST_CONTROL} bytes at most"));
    }
    if kind == Kind::Text && std::str::from_utf8(&payload).is_err() {
        return fault(format!("{within}content-bin is no UTF-8, and the type is text"));
    }
    Ok(Message::new(kind, payload))
}

/// RFC 6455, 5.5.1 and 7.4.
fn close(format: &Map<String, Value>, within: &str) -> Result<MessagePart, Fault> {
    const LONGEST_REASON: usize = 123;
    let code = match whole(format, within, "code")? {
        None | Some(0) => None,
        Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => u16::try_from(code).ok(),
        Some(code) => return fault(format!("{within}code cannot be sent with a close: {code}")),
    };
    let reason = string(format, within, "reason")?.unwrap_or_default();
    if reason.len() > LONGEST_REASON {
        return fault(format!("{within}reason is longer than {LONGEST_REASON} bytes"));
    }
    Ok(MessagePart::Close(code, if code.is_some() { reason.into() } else { Box::default() }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(body: &str) -> String {
        match read(body.as_bytes()) {
            Ok(items) => panic!("taken: {body}: {items:?}"),
            Err(fault) => fault.to_string(),
        }
    }

    fn items(body: &str) -> Vec<Item> {
        read(body.as_bytes()).unwrap_or_else(|fault| panic!("{body}: {fault}"))
    }

    #[test]
    fn what_is_malformed_is_told_with_its_item_and_key() {
        let in_item = |item: &str| format!(r#"{{"items":[{{"channel":"a","http-stream":{{"content":"x"}}}},{item}]}}"#);
        let c = |format: &str| in_item(&format!(r#"{{"channel":"c",{format}}}"#));
        let long = "x".repeat(1_025);
        for (body, told) in [
            (String::new(), "the body is no JSON"),
            ("{".into(), "the body is no JSON"),
            ("\u{0}".into(), "the body is no JSON"),
            ("[]".into(), "the body is no object"),
            ("{}".into(), "`items` is missing"),
            (r#"{"items":{}}"#.into(), "`items` is no list"),
            (in_item("1"), "items[1] is no object"),
            (in_item("{}"), "items[1].channel is missing, or empty"),
            (in_item(r#"{"channel":""}"#), "items[1].channel is missing, or empty"),
            (in_item(r#"{"channel":1}"#), "items[1].channel is no text"),
            (in_item(&format!(r#"{{"channel":"{long}"}}"#)), "items[1].channel is longer than 1024 bytes"),
            (in_item(r#"{"channel":"c"}"#), "items[1] has none of the formats http-response, http-stream, ws-message"),
            (c(r#""formats":{"smoke-signal":{}}"#), "items[1] has none of the formats"),
            (c(r#""formats":[]"#), "items[1].formats is no object"),
            (c(r#""http-stream":"x""#), "items[1].http-stream is no object"),
            (c(r#""formats":{"http-stream":1}"#), "items[1].formats.http-stream is no object"),
            (c(r#""http-stream":{}"#), "items[1].http-stream has neither content nor content-bin"),
            (c(r#""http-stream":{"content":1}"#), "items[1].http-stream.content is no text"),
            (c(r#""http-stream":{"content-bin":"%"}"#), "items[1].http-stream.content-bin is no base64"),
            (
                c(r#""http-stream":{"action":"refresh"}"#),
                "items[1].http-stream.action is send or hint or close, and this says `refresh`",
            ),
            (c(r#""http-stream":{"action":1}"#), "items[1].http-stream.action is no text"),
            (
                c(r#""http-stream":{"content":"x","content-filters":"build-id"}"#),
                "items[1].http-stream.content-filters is no list of texts",
            ),
            (
                c(r#""http-stream":{"content":"x","content-filters":["a","b","c","d","e","f"]}"#),
                "content-filters has more than 5 filters",
            ),
            (c(r#""http-response":{}"#), "items[1].http-response has none of body, body-bin and body-patch"),
            (c(r#""http-response":{"action":"close"}"#), "items[1].http-response.action is send or hint"),
            (
                c(r#""http-response":{"code":99,"body":""}"#),
                "items[1].http-response.code is 200 to 599, and this says 99",
            ),
            (c(r#""http-response":{"code":"x","body":""}"#), "items[1].http-response.code is no whole number"),
            (c(r#""http-response":{"code":-1,"body":""}"#), "items[1].http-response.code is no whole number"),
            (
                c(r#""http-response":{"headers":1,"body":""}"#),
                "items[1].http-response.headers is neither an object nor a list of pairs",
            ),
            (
                c(r#""http-response":{"headers":[["a"]],"body":""}"#),
                "items[1].http-response.headers[0] is no list of two texts",
            ),
            (c(r#""http-response":{"headers":{"a":1},"body":""}"#), "items[1].http-response.headers.a is no text"),
            (
                c(r#""http-response":{"headers":{"a b":"c"},"body":""}"#),
                "items[1].http-response.headers has a field that cannot be one: `a b`",
            ),
            (
                c(r#""http-response":{"headers":{"a":"b\r\nc: d"},"body":""}"#),
                "items[1].http-response.headers has a field that cannot be one",
            ),
            (c(r#""http-response":{"body-patch":{}}"#), "items[1].http-response.body-patch is no list"),
            (
                c(r#""http-response":{"body-patch":[{"op":"x","path":""}]}"#),
                "items[1].http-response.body-patch[0]: there is no `op`",
            ),
            (c(r#""http-response":{"body":1}"#), "items[1].http-response.body is no text"),
            (c(r#""http-response":{"body-bin":"é"}"#), "items[1].http-response.body-bin is no base64"),
            (c(r#""ws-message":{}"#), "items[1].ws-message has neither content nor content-bin"),
            (
                c(r#""ws-message":{"type":"smoke","content":""}"#),
                "items[1].ws-message.type is text, binary, ping or pong",
            ),
            (c(r#""ws-message":{"action":"hint"}"#), "items[1].ws-message.action is send or close or refresh"),
            (c(r#""ws-message":{"type":"text","content-bin":"/wA="}"#), "items[1].ws-message.content-bin is no UTF-8"),
            (
                c(&format!(r#""ws-message":{{"type":"ping","content":"{}"}}"#, &long[..126])),
                "a ping or a pong has 125 bytes at most",
            ),
            (
                c(r#""ws-message":{"action":"close","code":1005}"#),
                "items[1].ws-message.code cannot be sent with a close: 1005",
            ),
            (
                c(&format!(r#""ws-message":{{"action":"close","code":1000,"reason":"{}"}}"#, &long[..124])),
                "items[1].ws-message.reason is longer than 123 bytes",
            ),
            (c(r#""id":{},"http-stream":{"content":"x"}"#), "items[1].id is no text"),
            (
                c(&format!(r#""prev-id":"{long}","http-stream":{{"content":"x"}}"#)),
                "items[1].prev-id is longer than 1024 bytes",
            ),
            (c(r#""no-seq":1,"http-stream":{"content":"x"}"#), "items[1].no-seq is neither true nor false"),
            (c(r#""meta":[],"http-stream":{"content":"x"}"#), "items[1].meta is no object"),
            (c(r#""meta":{"a":[]},"http-stream":{"content":"x"}"#), "items[1].meta.a is no text"),
        ] {
            let refusal = refusal(&body);
            assert!(refusal.contains(told), "{body}\n{refusal}");
        }
        let many = vec![r#"{"channel":"c","http-stream":{"content":""}}"#; MOST_ITEMS + 1].join(",");
        assert!(refusal(&format!(r#"{{"items":[{many}]}}"#)).contains("more than 1000 items"));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(refusal(&deep).contains("no JSON"));
    }

    #[test]
    fn both_spellings_are_taken_and_what_is_not_known_is_left_alone() {
        for body in [
            r#"{"items":[{"channel":"c","id":"2","prev-id":"1","meta":{"skip_users":7},"http-stream":{"content":"x\n","content-filters":["build-id"]},"size":3}]}"#,
            r#"{"items":[{"channel":"c","id":2,"prev-id":1,"meta":{"skip_users":"7"},"formats":{"http-stream":{"content-bin":"eAo=","content-filters":["build-id"],"other":1},"fax":{}}}],"more":1}"#,
        ] {
            let all = items(body);
            let item = &all[0];
            assert_eq!((&*item.channel, item.id.as_deref(), item.prev_id.as_deref()), ("c", Some("2"), Some("1")));
            assert_eq!(item.meta("skip_users"), Some("7"));
            let content = item.stream.as_ref().unwrap();
            assert_eq!(content.filters, Some(Filters::named(["build-id"])));
            assert!(matches!(&content.part, StreamPart::Send(bytes) if bytes == "x\n"), "{content:?}");
        }
        assert!(items(r#"{"items":[]}"#).is_empty());
    }

    #[test]
    fn an_answer_has_what_the_libraries_write() {
        let all = items(
            r#"{"items":[{"channel":"c","http-response":{"code":"201","reason":"Made","headers":{"A":"b","Grip-Expose-Headers":"A, X-B","Content-Length":"9"},"body-bin":"eQ=="}},
               {"channel":"c","http-response":{"headers":[["Set-Cookie","a=1"],["Set-Cookie","b=2"]],"body":""}},
               {"channel":"c","http-response":{"body-patch":[{"op":"add","path":"/a","value":1}]}},
               {"channel":"c","http-response":{"action":"hint"}}]}"#,
        );
        let reply = |at: usize| match &all[at].response.as_ref().unwrap().part {
            ResponsePart::Send(reply) => reply,
            ResponsePart::Hint => panic!(),
        };
        assert_eq!(reply(0).status, 201);
        assert_eq!(reply(0).exposed, ["a".into(), "x-b".into()] as [Box<str>; 2]);
        assert_eq!(reply(0).headers.len(), 1, "neither length nor what is for the edge");
        assert!(matches!(&reply(0).body, ReplyBody::Whole(body) if body == "y"));
        assert_eq!(reply(1).headers.get_all("set-cookie").iter().count(), 2);
        assert!(matches!(&reply(2).body, ReplyBody::Patch(_)));
        assert!(matches!(all[3].response.as_ref().unwrap().part, ResponsePart::Hint));
    }

    #[test]
    fn messages_have_the_type_of_their_content() {
        for (format, expected) in [
            (r#"{"content":"x"}"#, "Text x"),
            (r#"{"content-bin":"eA=="}"#, "Binary x"),
            (r#"{"content-bin":"eA","type":"text"}"#, "Text x"),
            (r#"{"type":"ping"}"#, "Ping "),
            (r#"{"type":"pong","content":"a"}"#, "Pong a"),
            (r#"{"action":"close"}"#, "close None "),
            (r#"{"action":"close","code":0,"reason":"x"}"#, "close None "),
            (r#"{"action":"close","code":4001,"reason":"bye"}"#, "close Some(4001) bye"),
            (r#"{"action":"refresh"}"#, "refresh"),
        ] {
            let all = items(&format!(r#"{{"items":[{{"channel":"c","ws-message":{format}}}]}}"#));
            let told = match &all[0].message.as_ref().unwrap().part {
                MessagePart::Send(message) => {
                    format!("{:?} {}", message.kind, std::str::from_utf8(&message.payload).unwrap())
                }
                MessagePart::Close(code, reason) => format!("close {code:?} {reason}"),
                MessagePart::Refresh => "refresh".into(),
            };
            assert_eq!(told, expected, "{format}");
        }
    }

    proptest! {
        #[test]
        fn no_body_does_harm(body in r#"[\[\]{}":, a-c0-9\\.-]{0,80}"#) {
            let _ = read(body.as_bytes());
        }

        #[test]
        fn no_value_of_any_key_does_harm(
            key in "(channel|id|prev-id|meta|formats|no-seq|http-stream|http-response|ws-message)",
            value in r#"(null|true|1|-1|1e99|"x"|""|\[\]|\[1\]|\{\}|\{"content":"x"\}|\{"content":1\}|\{"action":"close"\}|\{"body":"x"\})"#,
        ) {
            let body = format!(r#"{{"items":[{{"channel":"c","{key}":{value}}}]}}"#);
            if let Err(fault) = read(body.as_bytes()) {
                prop_assert!(fault.to_string().contains("items[0]"), "{}", fault);
            }
        }
    }
}
