//! What instructions are read as.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::realtime::hub::{Filters, Subscription};

/// `Name: value` lines.
fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}

fn read(lines: &[&str]) -> Instruct {
    Instruct::of_fields(&headers(lines)).unwrap_or_else(|fault| panic!("{lines:?}: {fault}"))
}

fn on(channel: &str, filters: &[&str], position: Option<&str>) -> Subscription {
    Subscription {
        channel: channel.into(),
        filters: Filters::named(filters.iter().copied()),
        position: position.map(Box::from),
    }
}

fn seconds(count: u64) -> std::time::Duration {
    std::time::Duration::from_secs(count)
}

#[test]
fn what_django_eventstream_says_is_understood() {
    let instruct = read(&[
        "Content-Type: text/event-stream",
        "Grip-Hold: stream",
        "Grip-Channel: events-room%201; prev-id=1; filter=build-id; filter=skip-users, user-anonymous; filter=require-sub",
        "Grip-Keep-Alive: event: keep-alive\\ndata:\\n\\n; format=cstring; timeout=20",
        "Grip-Set-Meta: id_format=\"room%%201:%(events-room%201)s\", user=\"anonymous\"",
        "Grip-Link: </ev/?link=next&recover=true&es-meta=eyJhbGciOiJIUzI1NiJ9.e30.x-_y>; rel=next",
    ]);
    assert_eq!(instruct.hold, Some(HoldMode::Stream));
    let channels =
        [on("events-room%201", &["build-id", "skip-users"], Some("1")), on("user-anonymous", &["require-sub"], None)];
    assert_eq!(instruct.channels, channels);
    let keep_alive = KeepAlive {
        data: Bytes::from_static(b"event: keep-alive\ndata:\n\n"),
        every: seconds(20),
        mode: KeepAliveMode::Idle,
    };
    assert_eq!(instruct.keep_alive, Some(keep_alive));
    let meta = [("id_format", "room%%201:%(events-room%201)s"), ("user", "anonymous")];
    assert_eq!(instruct.meta, meta.map(|(name, value)| (Box::from(name), Box::from(value))));
    let url = "/ev/?link=next&recover=true&es-meta=eyJhbGciOiJIUzI1NiJ9.e30.x-_y".to_owned();
    assert_eq!(instruct.next, Some(Next { url, timeout: seconds(120) }));
}

#[test]
fn times_have_their_defaults_and_bounds() {
    for (line, timeout) in
        [("x: y", 55), ("Grip-Timeout: 20", 20), ("Grip-Timeout: 0", 5), ("Grip-Timeout: 99999999", 86_400)]
    {
        assert_eq!(read(&["Grip-Hold: response", line]).timeout, seconds(timeout), "{line}");
    }
    for (value, every, mode) in [
        ("x", 55, KeepAliveMode::Idle),
        ("x; timeout=0", 1, KeepAliveMode::Idle),
        ("x; mode=interval; timeout=7", 7, KeepAliveMode::Interval),
    ] {
        let keep_alive = read(&[&format!("Grip-Keep-Alive: {value}")]).keep_alive.unwrap();
        assert_eq!((&keep_alive.data[..], keep_alive.every, keep_alive.mode), (&b"x"[..], seconds(every), mode));
    }
    for (value, timeout) in
        [("</n>; rel=next", 120), ("</n>; rel=next; timeout=0", 1), ("</n>; timeout=9; rel=next", 9)]
    {
        assert_eq!(read(&[&format!("Grip-Link: {value}")]).next.unwrap().timeout, seconds(timeout), "{value}");
    }
}

#[test]
fn keep_alives_are_written_in_three_ways_and_with_the_quirks_of_the_libraries() {
    for (value, data) in [
        ("a, b\\n", &b"a, b\\n"[..]),
        ("a\\n\\r\\\\\\x41; format=cstring", b"a\n\r\\A"),
        // One backslash too many, as django-grip makes it: a\b.
        ("a\\\\\\b; format=cstring", b"a\\b"),
        ("\\x4; format=cstring", b"x4"),
        ("\\; format=cstring", b""),
        ("/wA=; format=base64", b"\xff\0"),
        ("/wA; format=base64", b"\xff\0"),
        // A Python that shows its bytes.
        ("b'/wA='; format=base64; timeout=20", b"\xff\0"),
    ] {
        let result = Instruct::of_fields(&headers(&[&format!("Grip-Keep-Alive: {value}")]));
        match data {
            b"" => assert!(result.is_err(), "{value}"),
            data => assert_eq!(result.unwrap().keep_alive.unwrap().data, data, "{value}"),
        }
    }
}

#[test]
fn channels_may_stand_in_several_lines_and_further_ones_are_cut_off() {
    let instruct = read(&["Grip-Channel: a=b", "Grip-Channel: c; PREV-ID=x y; filter=nonsense"]);
    assert_eq!(instruct.channels, [on("a=b", &[], None), on("c", &[], Some("x y"))]);
    let many: Vec<String> = (0..30).map(|at| format!("c{at}")).collect();
    assert_eq!(read(&[&format!("Grip-Channel: {}", many.join(", "))]).channels.len(), 20);
    // As a WSGI server writes what is beyond ASCII.
    let mut latin = HeaderMap::new();
    latin.insert("grip-channel", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    assert_eq!(&*Instruct::of_fields(&latin).unwrap().channels[0].channel, "caf\u{e9}");
}

#[test]
fn json_says_the_same_and_what_the_client_gets() {
    let mut instruct = read(&["Content-Type: application/grip-instruct"]);
    let body = br#"{"hold":{"timeout":20,"channels":[{"name":"c","prev-id":"3","filters":["skip-self"]}],
        "keep-alive":{"content-bin":"Cg==","timeout":30,"mode":"interval"},"meta":{"user":"7"}},
        "response":{"code":201,"reason":"Made","headers":[["X","y"],["X","z"]],"body-bin":"W10="}}"#;
    instruct.read_json(StatusCode::OK, body).unwrap();
    assert_eq!((instruct.hold, instruct.timeout), (Some(HoldMode::Response), seconds(20)));
    assert_eq!(instruct.channels, [on("c", &["skip-self"], Some("3"))]);
    let keep_alive = instruct.keep_alive.as_ref().unwrap();
    assert_eq!((&keep_alive.data[..], keep_alive.mode), (&b"\n"[..], KeepAliveMode::Interval));
    let response = instruct.response.as_ref().unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (201, &b"[]"[..]));
    assert_eq!(response.headers.get_all("x").iter().count(), 2);
    // Nothing but an answer.
    let mut instruct = read(&["Content-Type: application/grip-instruct"]);
    instruct.read_json(StatusCode::OK, b"{}").unwrap();
    assert_eq!((instruct.hold, instruct.response.unwrap().status), (None, StatusCode::OK));
}

#[test]
fn who_asks_for_a_head_alone_is_not_held() {
    let instruct = read(&["Grip-Hold: stream"]);
    assert_eq!(instruct.holds(&Method::GET), Some(HoldMode::Stream));
    assert_eq!(instruct.holds(&Method::HEAD), None);
    assert!(!Instruct::is_in(&headers(&["Content-Type: text/html", "X-Grip-Hold: stream"])));
    assert!(Instruct::is_in(&headers(&["Grip-Status: 304"])));
    assert!(Instruct::is_in(&headers(&["Content-Type: Application/Grip-Instruct; charset=utf-8"])));
}

proptest! {
    #[test]
    fn no_field_does_harm(
        name in "(hold|channel|timeout|keep-alive|link|status|set-meta|expose-headers)",
        value in "[-a-c0-9=;,<>\" \\\\/'x%]{0,80}",
    ) {
        let mut fields = HeaderMap::new();
        let name = HeaderName::from_bytes(format!("grip-{name}").as_bytes()).unwrap();
        fields.append(name.clone(), HeaderValue::from_str(value.trim()).unwrap());
        match Instruct::of_fields(&fields) {
            Ok(instruct) => {
                prop_assert!(instruct.channels.len() <= 20);
                prop_assert!(instruct.channels.iter().all(|channel| !channel.channel.is_empty()));
            }
            Err(fault) => {
                let named = fault.to_string().to_ascii_lowercase();
                prop_assert!(named.starts_with(name.as_str()), "{}: {}", name, fault);
            }
        }
    }

    #[test]
    fn no_json_does_harm(body in r#"[\[\]{}":, a-c0-9\\.-]{0,80}"#) {
        let mut instruct = Instruct::default();
        let _ = instruct.read_json(StatusCode::OK, body.as_bytes());
    }

    #[test]
    fn no_value_under_a_known_key_does_harm(
        key in "(mode|channels|timeout|keep-alive|meta|code|reason|headers|body|body-bin)",
        value in r#"(null|true|1|-1|1e99|"x"|"stream"|\[\]|\[1\]|\[\["a","b"\]\]|\[\{"name":"a"\}\]|\{\}|\{"a":"b"\}|\{"a":1\})"#,
    ) {
        let body = format!(r#"{{"hold":{{"channels":[],"{key}":{value}}},"response":{{"{key}":{value}}}}}"#);
        let mut instruct = Instruct::default();
        if let Err(fault) = instruct.read_json(StatusCode::OK, body.as_bytes()) {
            prop_assert!(fault.to_string().contains(&key), "{}", fault);
        }
    }
}
