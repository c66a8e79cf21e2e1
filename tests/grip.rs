//! Clients that are held for synchronous apps (GRIP): django-grip, django-eventstream and gripcontrol as they are on PyPI, on
//! gunicorn's sync workers, and apps that say whatever a script says.

use std::net::TcpListener;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{End, get, post};
use crate::support::gateway::Signal;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2::request;
use crate::support::tool::{Output, Tool};
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Gunicorn, H2, LIMIT, Worker, look_until, shop};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const RESPONSES: &str = "hostler_holds{kind=\"response\"}";
const STREAMS: &str = "hostler_holds{kind=\"stream\"}";

/// A site whose clients are held, and where one publishes to them.
struct Site {
    gateway: Gateway,
    publish: Address,
}

/// A port of this machine's that is free: an app has to know it before the gateway is there.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.66:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn config(publish: &str, realtime: &str, upstream: &str, listeners: &str) -> String {
    format!(
        "{listeners}realtime: {{ publish: {{ bind: \"{publish}\" }}{realtime} }}\n\
         upstreams:\n  app: {{ {upstream} }}\n\
         sites:\n  - routes:\n      - {{ path_exact: /up, respond: {{ body: ok }} }}\n      - {{ path: /, proxy: app, grip: true }}\n"
    )
}

impl Site {
    /// In front of an upstream with these keys. `realtime` has further keys of that, with a comma before them.
    fn before(upstream: &str, realtime: &str) -> Self {
        Self::start(&free_address(), upstream, realtime, "")
    }

    fn start(publish: &str, upstream: &str, realtime: &str, listeners: &str) -> Self {
        let gateway = Gateway::start(&config(publish, realtime, upstream, listeners));
        Self { gateway, publish: Address::parse(publish) }
    }

    /// In front of a scripted app.
    fn of(worker: &Worker) -> Self {
        Self::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()), "")
    }

    /// What the publish door answers to a POST with this body.
    fn ask(&self, path: &str, body: &str) -> (u16, String) {
        let mut client = Client::connect(&self.publish);
        client.send(post(path, body).replace("Host: shop.example", "Host: localhost"));
        let response = client.response("POST");
        (response.status, response.text().to_owned())
    }

    /// Publishes items.
    fn publish(&self, items: &str) {
        assert_eq!(self.ask("/publish/", &format!("{{\"items\":[{items}]}}")), (200, "Published\n".to_owned()));
    }

    fn say(&self, channel: &str, text: &str) {
        self.publish(&format!(r#"{{"channel":"{channel}","http-stream":{{"content":"{text}"}}}}"#));
    }

    /// A client whose answer goes on; its head and its first piece.
    fn stream(&self, path: &str) -> (Client, String) {
        let mut client = self.gateway.client();
        client.send(get(path));
        let (status, headers) = client.head().unwrap();
        assert_eq!(status, 200, "{headers:?}");
        let first = text(&mut client);
        (client, first)
    }

    fn wait_held(&self, kind: &str, count: usize) {
        self.gateway.wait_metric(kind, count as f64);
    }
}

/// The next chunk.
fn text(client: &mut Client) -> String {
    String::from_utf8(client.chunk().expect("another chunk")).unwrap()
}

/// Chunks up to the one in which this stands.
fn text_with(client: &mut Client, wanted: &str) -> String {
    let mut all = String::new();
    while !all.contains(wanted) {
        all.push_str(&text(client));
    }
    all
}

/// An answer with these fields and this body.
fn answer(fields: &str, body: &str) -> String {
    let fields: String = fields.split_terminator('|').map(|field| format!("{}\r\n", field.trim())).collect();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// An app that answers so.
fn app(answer: String) -> Worker {
    Worker::answering(Transport::Unix, answer)
}

// What apps say by hand.

#[test]
fn a_long_poll_gets_what_is_published_merged_over_the_apps_answer() {
    let worker = app(answer(
        "Grip-Hold: response | Grip-Channel: a; filter=skip-self, b | Grip-Set-Meta: user=\"7\" | X-Kept: yes | X-Replaced: no | Content-Type: text/html | Set-Cookie: a=1",
        "nothing",
    ));
    let site = Site::of(&worker);
    let mut client = site.gateway.client();
    client.send(get("/"));
    site.wait_held(RESPONSES, 1);
    // Not for it: its own, another format, another channel, nobody's.
    site.publish(r#"{"channel":"a","meta":{"sender":"7"},"http-response":{"body":"own"}}, {"channel":"a","http-stream":{"content":"x"}}, {"channel":"nobody","http-response":{"body":"x"}}"#);
    site.publish(r#"{"channel":"b","formats":{"http-response":{"code":201,"headers":{"X-Replaced":"yes","Content-Type":"text/plain"},"body":"news"}}}"#);
    let response = client.response("GET");
    assert_eq!((response.status, response.text()), (201, "news"));
    assert_eq!((response.header("x-kept"), response.header("x-replaced")), (Some("yes"), Some("yes")));
    assert_eq!((response.header("content-type"), response.header("set-cookie")), (Some("text/plain"), Some("a=1")));
    assert_eq!(response.header("content-length"), Some("4"));
    assert!(!response.headers.iter().any(|(name, _)| name.starts_with("grip-")), "{:?}", response.headers);
    site.wait_held(RESPONSES, 0);
    // The connection is as good as before.
    client.send(get("/"));
    site.wait_held(RESPONSES, 1);
    site.publish(r#"{"channel":"b","http-response":{"body-bin":"/wA="}}"#);
    assert_eq!(client.response("GET").body, [0xff, 0]);
    site.gateway.wait_metric("hostler_deliveries_total", 2.0);
}

#[test]
fn a_long_poll_in_vain_gets_the_apps_answer_when_its_time_is_over() {
    let worker =
        app(answer("Grip-Hold: response | Grip-Channel: a | Grip-Timeout: 1 | Grip-Status: 202 Later", "nothing"));
    let site = Site::of(&worker);
    let began = std::time::Instant::now();
    let response = site.gateway.client().get("/");
    assert_eq!((response.status, response.text()), (202, "nothing"));
    assert!(began.elapsed().as_secs() >= 5, "five seconds are the least");
    let line = site.gateway.access_of(&response);
    assert_eq!(line["reason"], Value::Null, "{line}");
}

#[test]
fn a_patch_changes_the_json_of_the_apps_answer() {
    let worker =
        app(answer("Grip-Hold: response | Grip-Channel: a | Content-Type: application/json", r#"{"items":[1]}"#));
    let site = Site::of(&worker);
    for (patch, expected) in [
        (r#"[{"op":"add","path":"/items/-","value":2}]"#, Some(r#"{"items":[1,2]}"#)),
        (r#"[{"op":"test","path":"/items/0","value":9}]"#, None),
    ] {
        let mut client = site.gateway.client();
        client.send(get("/"));
        site.wait_held(RESPONSES, 1);
        site.publish(&format!(r#"{{"channel":"a","http-response":{{"body-patch":{patch}}}}}"#));
        let response = client.response("GET");
        match expected {
            Some(body) => assert_eq!((response.status, response.text()), (200, body)),
            None => assert!(response.status == 502 && response.text().contains("grip_invalid"), "{response:?}"),
        }
    }
}

#[test]
fn instructions_may_be_json_and_then_are_the_whole_answer() {
    let body = r#"{"hold":{"mode":"stream","channels":[{"name":"a","filters":["var-subst"]}],"keep-alive":{"content":"tick\n","timeout":1},"meta":{"name":"ann"}},"response":{"headers":{"X-Held":"yes","Content-Type":"text/plain"},"body":"[%(name)s]\n"}}"#;
    let worker = app(answer("Content-Type: application/grip-instruct | X-App: no", body));
    let site = Site::of(&worker);
    let mut client = site.gateway.client();
    client.send(get("/"));
    let (status, headers) = client.head().unwrap();
    let has = |name: &str| headers.iter().any(|(known, _)| known == name);
    assert!(status == 200 && has("x-held") && !has("x-app"), "{headers:?}");
    assert_eq!(text(&mut client), "[ann]\n");
    site.say("a", "hello %(name)s\\n");
    assert_eq!(text_with(&mut client, "hello ann\n").replace("tick\n", ""), "hello ann\n");
    assert_eq!(text(&mut client), "tick\n", "kept alive");
}

#[test]
fn instructions_that_cannot_be_followed_are_a_502_that_names_the_field() {
    let json = |body: &str| answer("Content-Type: application/grip-instruct", body);
    let long = format!("Grip-Channel: {}", "x".repeat(1_025));
    let rows: Vec<(String, &str)> = vec![
        (answer("Grip-Hold: forever", ""), "Grip-Hold is `response` or `stream`, and this says `forever`"),
        (answer("Grip-Hold: Response", ""), "Grip-Hold is"),
        (answer("Grip-Hold: stream | Grip-Channel: ; prev-id=1", ""), "Grip-Channel names no channel"),
        (
            answer(
                "Grip-Hold: stream | Grip-Channel: a; filter=1; filter=2; filter=3; filter=4; filter=5; filter=6",
                "",
            ),
            "more than 5 filters",
        ),
        (answer(&format!("Grip-Hold: stream | {long}"), ""), "longer than 1024 bytes"),
        (
            answer("Grip-Hold: response | Grip-Channel: a | Grip-Timeout: soon", ""),
            "Grip-Timeout is a whole number of seconds",
        ),
        (
            answer("Grip-Hold: response | Grip-Channel: a | Grip-Timeout: -1", ""),
            "Grip-Timeout is a whole number of seconds",
        ),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Keep-Alive: ; timeout=1", ""),
            "Grip-Keep-Alive has no data",
        ),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Keep-Alive: x; format=zip", ""),
            "format is `raw`, `cstring` or `base64`",
        ),
        (answer("Grip-Hold: stream | Grip-Channel: a | Grip-Keep-Alive: %; format=base64", ""), "is no base64"),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Keep-Alive: x; mode=often", ""),
            "mode is `idle` or `interval`",
        ),
        (answer("Grip-Hold: stream | Grip-Channel: a | Grip-Keep-Alive: x; timeout=x", ""), "Grip-Keep-Alive: timeout"),
        (
            answer("Grip-Hold: stream | Grip-Channel: a; prev-id=1", ""),
            "has a prev-id, and there is no Grip-Link with rel=next",
        ),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Link: /next; rel=next", ""),
            "Grip-Link is `<url>; rel=next`",
        ),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Link: <http://other.example/>; rel=next", ""),
            "leads to another site",
        ),
        (
            answer("Grip-Hold: response | Grip-Channel: a | Grip-Link: <//other.example/>; rel=gone", ""),
            "leads to another site",
        ),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Link: </n>; rel=next; timeout=x", ""),
            "Grip-Link: timeout",
        ),
        (answer("Grip-Status: 99", ""), "Grip-Status is 200 to 599"),
        (answer("Grip-Status: fine", ""), "Grip-Status is 200 to 599"),
        (answer("Grip-Hold: stream | Grip-Channel: a | Content-Encoding: gzip", "x"), "nothing can be added to it"),
        (
            answer("Grip-Hold: stream | Grip-Channel: a | Grip-Set-Meta: =x", ""),
            "Grip-Set-Meta has a value without a name",
        ),
        (answer("Grip-Hold: response | Grip-Channel: a", &"x".repeat(100_001)), "more than 100000 bytes"),
        (json(""), "is no JSON"),
        (json("[]"), "is no object"),
        (json(r#"{"hold":1}"#), "hold is no object"),
        (json(r#"{"hold":{}}"#), "hold.channels is a list"),
        (json(r#"{"hold":{"mode":"x","channels":[]}}"#), "hold.mode is `response` or `stream`"),
        (json(r#"{"hold":{"channels":[1]}}"#), "hold.channels[0] is no object"),
        (json(r#"{"hold":{"channels":[{}]}}"#), "hold.channels[0].name has to be there"),
        (json(r#"{"hold":{"channels":[{"name":"a","filters":[1]}]}}"#), "hold.channels[0].filters is no list of texts"),
        (json(r#"{"hold":{"channels":[],"timeout":"x"}}"#), "hold.timeout is no whole number"),
        (json(r#"{"hold":{"channels":[],"meta":{"a":1}}}"#), "hold.meta.a is no text"),
        (
            json(r#"{"hold":{"channels":[],"keep-alive":{"content-bin":"%"}}}"#),
            "hold.keep-alive.content-bin is no base64",
        ),
        (json(r#"{"response":{"code":42}}"#), "response.code is 200 to 599"),
        (json(r#"{"response":{"headers":{"a b":"c"}}}"#), "response.headers has a field that cannot be one"),
        (
            answer("Content-Type: application/grip-instruct", "{}").replace("200 OK", "201 Created"),
            "has the status 200",
        ),
    ];
    for (answer, told) in rows {
        let worker = app(answer.clone());
        let site = Site::of(&worker);
        let response = site.gateway.client().get("/page?secret");
        assert_eq!(response.status, 502, "{answer}");
        assert!(response.text().contains("grip_invalid"), "{}", response.text());
        let event = site.gateway.log_event(told, |event| event["reason"] == "grip_invalid");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains(told) && event["path"] == "/page", "{event}\n{told}");
        assert_eq!(site.gateway.client().get("/up").status, 200, "nothing else is disturbed");
    }
}

#[test]
fn the_app_sees_who_asks_and_clients_cannot_say_so_themselves() {
    let worker = app(answer("Grip-Nothing: at-all | Grip-Status: 203", "x"));
    let site = Site::of(&worker);
    let mut client = site.gateway.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: shop.example\r\nGrip-Sig: forged\r\nGrip-Last: c; last-id=1\r\nGrip-Feature: all\r\nAccept-Encoding: gzip\r\n\r\n",
    );
    let response = client.response("GET");
    assert_eq!(response.status, 203);
    assert!(!response.headers.iter().any(|(name, _)| name.starts_with("grip-")), "{:?}", response.headers);
    let seen = worker.wait_requests(1);
    let signature = seen.header("grip-sig").unwrap();
    assert_eq!(signature.split('.').count(), 3, "{signature}");
    assert!(seen.header("grip-feature").unwrap().starts_with("status, link:next, link:gone, filter:skip-self"));
    assert_eq!((seen.all("grip-last").len(), seen.all("accept-encoding").len()), (0, 0));
    // A route without the key: nobody is told, nothing is held, and nothing of it reaches the client.
    let plain = Gateway::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()));
    let response = plain.client().get("/");
    assert_eq!((response.status, response.text()), (200, "x"));
    assert!(!response.headers.iter().any(|(name, _)| name.starts_with("grip-")));
    assert_eq!(worker.wait_requests(2).all("grip-sig").len(), 0);
}

#[test]
fn only_the_fields_that_the_app_exposes_reach_the_client_and_a_head_is_not_held() {
    let worker = app(answer(
        "Grip-Hold: stream | Grip-Channel: a | Grip-Expose-Headers: X-A, content-type | X-A: 1 | X-B: 2 | Content-Type: text/plain",
        "x",
    ));
    let site = Site::of(&worker);
    let mut client = site.gateway.client();
    client.send(get("/"));
    let (_, headers) = client.head().unwrap();
    let has = |name: &str| headers.iter().any(|(known, _)| known == name);
    assert!(has("x-a") && has("content-type") && !has("x-b"), "{headers:?}");
    let mut client = site.gateway.client();
    client.send("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response("HEAD").status, 200);
    site.wait_held(STREAMS, 1);
}

#[test]
fn streams_over_every_protocol_get_the_same_and_end_with_a_close() {
    let worker = app(answer("Grip-Hold: stream | Grip-Channel: a | Content-Type: text/plain", "[open]\n"));
    let listeners = "listeners:\n  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let site = Site::start(&free_address(), &upstream, "", listeners);
    let secure = site.gateway.listener("127.0.0.2:0");
    let (mut h1, first) = site.stream("/");
    assert_eq!(first, "[open]\n");
    let mut tls = Client::tls(secure, "localhost", &site.gateway.root());
    tls.send(get("/").replace("\r\n\r\n", "\r\nAccept-Encoding: gzip, br\r\n\r\n"));
    assert_eq!(tls.head().unwrap().0, 200);
    assert_eq!(text(&mut tls), "[open]\n");
    let (plain, encrypted) = (site.gateway.h2(), H2::tls(secure, "localhost", &site.gateway.root()));
    let streams = [plain.open(request("GET", "/", &[]), true), encrypted.open(request("GET", "/", &[]), true)];
    site.wait_held(STREAMS, 4);
    site.say("a", "one\\n");
    assert_eq!((text(&mut h1), text(&mut tls)), ("one\n".into(), "one\n".into()));
    site.publish(r#"{"channel":"a","http-stream":{"action":"close"}}"#);
    assert!(h1.chunk().is_none() && tls.chunk().is_none());
    for stream in streams {
        let response = stream.response();
        assert_eq!((response.status, response.text(), response.cut.clone()), (200, "[open]\none\n", None));
    }
    site.wait_held(STREAMS, 0);
    // Their connections are as good as before.
    assert_eq!(h1.get("/up").text(), "ok");
}

#[test]
fn a_client_that_leaves_is_noticed_and_the_app_is_told_where_it_wants_to_be() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let held = if request.line().contains("/poll") { "response" } else { "stream" };
            visit.send(answer(&format!("Grip-Hold: {held} | Grip-Channel: a | Grip-Link: <bye?who=7>; rel=gone"), "x"));
        }
    });
    let site = Site::of(&worker);
    let (stream, _) = site.stream("/rooms/1");
    let mut poll = site.gateway.client();
    poll.send(get("/poll"));
    let h2 = site.gateway.h2();
    let open = h2.open(request("GET", "/rooms/2", &[("cookie", "session=1")]), true);
    site.wait_held(STREAMS, 2);
    site.wait_held(RESPONSES, 1);
    drop((stream, poll));
    open.reset(h2::Reason::CANCEL);
    site.wait_held(STREAMS, 0);
    site.wait_held(RESPONSES, 0);
    worker.wait_requests(6);
    let mut told: Vec<String> = worker.requests().iter().skip(3).map(|request| request.line().to_owned()).collect();
    told.sort();
    assert_eq!(told, ["POST /bye?who=7 HTTP/1.1", "POST /rooms/bye?who=7 HTTP/1.1", "POST /rooms/bye?who=7 HTTP/1.1"]);
    let with_cookie =
        worker.requests().into_iter().skip(3).filter(|request| request.header("cookie").is_some()).count();
    assert_eq!(with_cookie, 1, "it is asked with the client's own fields");
    assert!(worker.requests().iter().all(|request| request.header("grip-sig").is_some()));
    let line = site.gateway.access_of_path("/poll");
    assert_eq!((&line["reason"], &line["phase"]), (&"client_gone".into(), &"holding".into()), "{line}");
}

#[test]
fn what_a_client_has_missed_is_asked_for_and_comes_once_and_in_order() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let fields = "Grip-Hold: stream | Content-Type: text/plain | Grip-Link: </next>; rel=next";
            visit.send(match request.line() {
                "GET /next HTTP/1.1" => {
                    let last = request.header("grip-last").unwrap();
                    let at: u32 = last.rsplit('=').next().unwrap().parse().unwrap();
                    assert_eq!(last, format!("a; last-id={at}"));
                    // Everything up to 5 is there.
                    let missed: String = (at + 1..=5).map(|id| format!("({id})")).collect();
                    answer(&format!("{fields} | Grip-Channel: a; prev-id=5"), &missed)
                }
                _ => answer(&format!("{fields} | Grip-Channel: a; prev-id=1"), "[1]"),
            });
        }
    });
    let site = Site::of(&worker);
    let (mut client, first) = site.stream("/");
    assert_eq!(first, "[1]");
    let item = |id: u32, before: u32| {
        format!(r#"{{"channel":"a","id":"{id}","prev-id":"{before}","http-stream":{{"content":"({id})"}}}}"#)
    };
    site.publish(&item(2, 1));
    assert_eq!(text(&mut client), "(2)");
    site.publish(&item(2, 1));
    // 3 and 4 have been lost; after five seconds nobody waits for them any more.
    site.publish(&format!("{},{}", item(6, 5), item(5, 4)));
    assert_eq!(text(&mut client), "(3)(4)(5)");
    assert_eq!(text(&mut client), "(6)");
    site.publish(&item(7, 6));
    assert_eq!(text(&mut client), "(7)");
    let lines: Vec<String> = worker.requests().iter().map(|request| request.line().to_owned()).collect();
    assert_eq!(lines, ["GET / HTTP/1.1", "GET /next HTTP/1.1"]);
    // A publisher that has been away: everybody asks.
    assert_eq!(site.ask("/recover", "").0, 200);
    worker.wait_requests(3);
    assert!(worker.requests()[2].header("grip-last").unwrap().ends_with("last-id=7"));
}

#[test]
fn quiet_streams_are_asked_for_by_few_and_what_was_not_published_comes_by_that() {
    let is_news = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let news = std::sync::Arc::clone(&is_news);
    let worker = Worker::unix(move |visit| {
        while let Some(request) = visit.request() {
            let fields = "Grip-Hold: stream | Content-Type: text/plain | Grip-Link: </next>; rel=next; timeout=1";
            let has_news = news.load(std::sync::atomic::Ordering::SeqCst);
            visit.send(match request.line() {
                "GET /next HTTP/1.1" if has_news => {
                    let is_behind = request.header("grip-last").unwrap().ends_with("last-id=1");
                    let missed = if is_behind { "(2)" } else { "" };
                    answer(&format!("{fields} | Grip-Channel: a; prev-id=2"), missed)
                }
                "GET /next HTTP/1.1" => answer(&format!("{fields} | Grip-Channel: a; prev-id=1"), ""),
                _ => answer(&format!("{fields} | Grip-Channel: a; prev-id=1"), "[1]"),
            });
        }
    });
    let site = Site::of(&worker);
    let mut held: Vec<Client> = (0..30).map(|_| site.stream("/").0).collect();
    // Each would have been asked for five times.
    let skipped = "hostler_grip_links_total{outcome=\"skipped\"}";
    assert!(look_until(|| (site.gateway.metric(skipped) >= 150.0).then_some(())).is_some());
    let asked = site.gateway.metric("hostler_grip_links_total{outcome=\"asked\"}");
    assert!(asked >= 1.0 && asked <= site.gateway.metric(skipped) / 5.0, "{asked} asked");
    is_news.store(true, std::sync::atomic::Ordering::SeqCst);
    for client in &mut held {
        assert_eq!(text(client), "(2)");
    }
    site.publish(r#"{"channel":"a","id":"3","prev-id":"2","http-stream":{"content":"(3)"}}"#);
    for client in &mut held {
        assert_eq!(text(client), "(3)");
    }
}

#[test]
fn a_history_comes_page_by_page_and_then_what_is_published() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            visit.send(match request.line() {
                "GET / HTTP/1.1" => {
                    answer("Content-Type: text/plain | Grip-Link: </p2>; rel=next | Grip-Channel: a; prev-id=1", "[1]")
                }
                "GET /p2 HTTP/1.1" => answer("Grip-Link: <p3>; rel=next", "[2]"),
                "GET /p3 HTTP/1.1" => answer("Grip-Hold: stream | Grip-Channel: b | Grip-Link: </p4>; rel=next", "[3]"),
                _ => answer("", "[end]"),
            });
        }
    });
    let site = Site::of(&worker);
    let (mut client, first) = site.stream("/");
    assert_eq!(first + &text_with(&mut client, "[3]"), "[1][2][3]");
    site.say("a", "not held there");
    site.say("b", "here");
    assert_eq!(text(&mut client), "here");
    // News at the app, which has no more to say and does not hold the client: that is the end.
    site.publish(r#"{"channel":"b","http-stream":{"action":"hint"}}"#);
    assert_eq!(text(&mut client), "[end]");
    assert!(client.chunk().is_none());
}

#[test]
fn a_hint_has_the_long_poll_asked_again_unseen() {
    let worker = Worker::unix(|visit| {
        let mut asked = 0;
        while let Some(request) = visit.request() {
            asked += 1;
            let held = "Grip-Hold: response | Grip-Channel: a; prev-id=1";
            visit.send(match request.header("grip-last").as_deref() {
                None => answer(held, "first"),
                Some("a; last-id=1") => answer("X-News: yes", "news"),
                Some(other) => panic!("{other} {asked}"),
            });
        }
    });
    let site = Site::of(&worker);
    let mut client = site.gateway.client();
    client.send(get("/news?q=1").replace("\r\n\r\n", "\r\nCookie: session=1\r\n\r\n"));
    site.wait_held(RESPONSES, 1);
    site.publish(r#"{"channel":"a","http-response":{"action":"hint"}}"#);
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("x-news")), ("news", Some("yes")));
    let again = &worker.requests()[1];
    assert_eq!((again.line(), again.header("cookie").as_deref()), ("GET /news?q=1 HTTP/1.1", Some("session=1")));
    // One that had a body cannot be asked again: its client does it.
    let mut client = site.gateway.client();
    client.send(post("/news", "body"));
    site.wait_held(RESPONSES, 1);
    site.publish(r#"{"channel":"a","http-response":{"action":"hint"}}"#);
    assert_eq!(client.response("POST").text(), "first");
}

#[test]
fn who_takes_nothing_is_given_up_with_a_reason_and_costs_no_more_than_its_buffer() {
    let worker = app(answer("Grip-Hold: stream | Grip-Channel: a | Content-Type: text/plain", "[open]\n"));
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let site = Site::before(&upstream, ", buffer: 64KiB");
    let mut stalled: Vec<Client> = (0..20).map(|_| site.stream("/stalled").0).collect();
    let h2 = site.gateway.h2();
    let (_, _, _unread) = h2.open(request("GET", "/h2", &[]), true).first_piece();
    let (mut reads, _) = site.stream("/reads");
    let before = site.gateway.rss_kib();
    let piece = "x".repeat(30_000);
    for _ in 0..400 {
        site.say("a", &piece);
        let mut left = piece.len();
        while left > 0 {
            left -= text(&mut reads).len();
        }
    }
    site.wait_held(STREAMS, 1);
    site.gateway.wait_metric("hostler_hold_losses_total{reason=\"buffer_full\"}", 21.0);
    let grown = site.gateway.rss_kib().saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} KiB for 21 clients");
    for path in ["/stalled", "/h2"] {
        let line = site.gateway.access_of_path(path);
        assert_eq!(line["reason"], "hold_overflow", "{line}");
    }
    // What it has not taken is not the whole: it is told by a reset.
    assert_eq!(stalled.remove(0).drain().1, End::Reset);
    site.say("a", "still here");
    assert_eq!(text(&mut reads), "still here");
}

#[test]
fn one_sync_worker_serves_pages_while_two_hundred_clients_are_held() {
    let gunicorn = flask(&free_address()).start();
    let address = free_address();
    drop(gunicorn);
    let gunicorn = flask(&address).start();
    let upstream = format!("endpoints: [\"{}\"], workers: 1", gunicorn.endpoint());
    let site = Site::start(&address, &upstream, &format!(", grip: {{ secret: {SECRET} }}"), "");
    let mut held: Vec<Client> = (0..200).map(|_| site.stream("/fields").0).collect();
    site.wait_held(STREAMS, 200);
    site.gateway.wait_idle();
    let mut client = site.gateway.client();
    for _ in 0..20 {
        assert_eq!(client.get("/say?text=hello").text(), "said");
    }
    for client in &mut held {
        let mut all = String::new();
        while all.len() < 100 {
            all.push_str(&text(client));
        }
        assert_eq!(all, "hello".repeat(20));
    }
    site.gateway.wait_metric("hostler_deliveries_total", 4_000.0);
}

#[test]
fn a_drain_ends_streams_cleanly_and_long_polls_with_the_apps_answer() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let held = if request.line().contains("/poll") { "response" } else { "stream" };
            visit.send(answer(&format!("Grip-Hold: {held} | Grip-Channel: a | Content-Type: text/plain"), "[app]"));
        }
    });
    let site = Site::of(&worker);
    let (mut stream, _) = site.stream("/");
    let mut poll = site.gateway.client();
    poll.send(get("/poll"));
    let h2 = site.gateway.h2();
    let open = h2.open(request("GET", "/", &[]), true);
    site.wait_held(STREAMS, 2);
    site.wait_held(RESPONSES, 1);
    site.gateway.signal(Signal::TERM);
    assert!(stream.chunk().is_none(), "a whole body");
    let response = poll.response("GET");
    assert_eq!((response.status, response.text(), response.header("connection")), (200, "[app]", Some("close")));
    assert_eq!(open.response().cut, None);
    let ended = site.gateway.ended();
    assert!(ended.log.iter().any(|line| line.contains("everything in flight has ended")), "{:#?}", ended.log);
}

#[test]
fn a_reload_ends_nobody_and_what_is_published_then_comes() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let held = if request.line().contains("/poll") { "response" } else { "stream" };
            visit.send(answer(&format!("Grip-Hold: {held} | Grip-Channel: a | Content-Type: text/plain"), "[app]"));
        }
    });
    let address = free_address();
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let site = Site::start(&address, &upstream, "", "");
    let (mut old, _) = site.stream("/");
    let mut poll = site.gateway.client();
    poll.send(get("/poll"));
    site.wait_held(RESPONSES, 1);
    site.gateway.reload(&config(&address, ", buffer: 1MiB", &upstream, ""));
    let (mut new, _) = site.stream("/");
    site.publish(r#"{"channel":"a","http-stream":{"content":"x"},"http-response":{"body":"y"}}"#);
    assert_eq!((text(&mut old), text(&mut new), poll.response("GET").text()), ("x".into(), "x".into(), "y"));
}

#[test]
fn an_event_stream_of_which_the_app_says_nothing_is_kept_alive_by_comments() {
    let worker = app(answer(
        "Grip-Hold: stream | Grip-Channel: a | Content-Type: text/event-stream; charset=utf-8",
        "data: x\n\n",
    ));
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let site = Site::before(&upstream, ", keep_alive: 1s");
    let (mut client, _) = site.stream("/");
    assert_eq!((text(&mut client), text(&mut client)), (":\n\n".into(), ":\n\n".into()));
}

#[test]
fn every_thread_brings_what_is_published_to_its_own_clients() {
    let worker = app(answer("Grip-Hold: stream | Grip-Channel: a | Content-Type: text/plain", "[open]"));
    let publish = free_address();
    let text_of = config(&publish, "", &format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()), "");
    let gateway = Gateway::start(&format!("runtime: {{ threads: 3 }}\n{text_of}"));
    let site = Site { gateway, publish: Address::parse(&publish) };
    let mut held: Vec<Client> = (0..30).map(|_| site.stream("/").0).collect();
    for at in 0..20 {
        site.say("a", &format!("({at})"));
    }
    let whole: String = (0..20).map(|at| format!("({at})")).collect();
    for client in &mut held {
        assert_eq!(text_with(client, "(19)"), whole);
    }
    site.gateway.wait_metric("hostler_deliveries_total", 600.0);
}

#[test]
fn links_start_from_the_address_that_the_app_has_seen() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            visit.send(match request.line() {
                line if line.contains("/list?") => answer("Grip-Link: <more>; rel=next", "[1]"),
                _ => answer("", "[end]"),
            });
        }
    });
    for (keys, path, asked) in [
        ("mount: /app", "/app/list?a", ["GET /app/list?a HTTP/1.1", "GET /app/more HTTP/1.1"]),
        ("strip_prefix: /app", "/app/list?a", ["GET /list?a HTTP/1.1", "GET /more HTTP/1.1"]),
    ] {
        let before = worker.requests().len();
        let gateway = Gateway::start(
            &config("127.0.0.1:0", "", &format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()), "")
                .replace("path: /, proxy: app", &format!("path: /app/, {keys}, proxy: app")),
        );
        let response = gateway.client().get(path);
        assert_eq!((response.status, response.text()), (200, "[1][end]"), "{keys}");
        let lines: Vec<String> = worker.requests()[before..].iter().map(|one| one.line().to_owned()).collect();
        assert_eq!(lines, asked, "{keys}");
    }
}

#[test]
fn over_uwsgi_the_app_is_told_the_same() {
    let signatures = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&signatures);
    let worker = Worker::unix(move |visit| {
        let Some(vars) = visit.packet() else { return };
        seen.lock().unwrap().push((vars.get("HTTP_GRIP_SIG").cloned(), vars.get("HTTP_GRIP_LAST").cloned()));
        let fields = "Grip-Hold: stream | Grip-Channel: a; prev-id=1 | Grip-Link: </next>; rel=next";
        visit.send(answer(fields, if vars["REQUEST_URI"] == "/next" { "[2]" } else { "[1]" }));
    });
    let site = Site::before(&format!("endpoints: [\"{}\"], workers: 4", worker.uwsgi_endpoint()), "");
    let (mut client, first) = site.stream("/");
    assert_eq!(first, "[1]");
    site.publish(r#"{"channel":"a","http-stream":{"action":"hint"}}"#);
    assert_eq!(text(&mut client), "[2]");
    let seen = signatures.lock().unwrap();
    assert!(seen[0].0.is_some() && seen[0].1.is_none(), "{seen:?}");
    assert!(seen[1].0.is_some() && seen[1].1.as_deref() == Some("a; last-id=1"), "{seen:?}");
}

// The publish door.

#[test]
fn bad_requests_to_publish_are_told_and_disturb_nothing() {
    let worker = app(answer("Grip-Hold: stream | Grip-Channel: a | Content-Type: text/plain", "[open]"));
    let site = Site::of(&worker);
    let (mut client, _) = site.stream("/");
    let good = r#"{"channel":"a","http-stream":{"content":"no"}}"#;
    for (path, body, status, told) in [
        ("/publish/", "", 400, "the body is no JSON"),
        ("/publish", "[1", 400, "the body is no JSON"),
        ("/publish/", r#"{"items":1}"#, 400, "`items` is no list"),
        ("/publish/", &format!(r#"{{"items":[{good},{{"channel":"a"}}]}}"#), 400, "items[1] has none of the formats"),
        (
            "/publish/",
            &format!(r#"{{"items":[{good},{{"channel":"","http-stream":{{}}}}]}}"#),
            400,
            "items[1].channel is missing",
        ),
        ("/publish/", &"x".repeat((1 << 20) + 1), 413, "larger than 1048576 bytes"),
        ("/publish/more", "{}", 404, "here are /publish/ and /recover"),
        ("/", "{}", 404, "here are"),
    ] {
        let (got, text) = site.ask(path, body);
        assert!(got == status && text.contains(told), "{path} {got} {text}");
    }
    let mut door = Client::connect(&site.publish);
    door.send("GET /publish/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let response = door.response("GET");
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    door.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(door.response("GET").status, 200);
    for field in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        let mut door = Client::connect(&site.publish);
        door.send(format!(
            "POST /publish/ HTTP/1.1\r\nHost: localhost\r\n{field}\r\nContent-Length: 12\r\n\r\n{{\"items\":[]}}"
        ));
        assert_eq!(door.response("POST").status, 403, "{field}");
    }
    let mut door = Client::connect(&site.publish);
    door.send(post("/publish/", r#"{"items":[]}"#));
    assert_eq!(door.response("POST").status, 403, "by a name that is none of this machine");
    let mut door = Client::connect(&site.publish);
    door.send("POST /publish/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"items\":[]}\r\n0\r\n\r\n");
    assert_eq!(door.response("POST").text(), "{\"message\":\"Published\"}\n");
    site.publish(r#"{"channel":"nobody","http-stream":{"content":"x"}}"#);
    site.say("a", "yes");
    assert_eq!(text(&mut client), "yes", "and nothing of the requests that were refused");
    assert!(site.gateway.metric("hostler_published_total{outcome=\"refused\"}") >= 12.0);
}

#[test]
fn pubcontrol_publishes_in_every_way_that_it_has() {
    let worker = app(answer("Grip-Hold: stream | Grip-Channel: a | Content-Type: text/plain", "[open]"));
    let address = free_address();
    let gateway = Gateway::start(
        &config(&address, "", &format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()), "")
            .replace("\" } }", &format!("\", secret: {SECRET} }} }}")),
    );
    let site = Site { gateway, publish: Address::parse(&address) };
    let (mut client, _) = site.stream("/");
    let uri = format!("http://{address}");
    for way in ["grip-url", "grip-url-base64", "grip-url-key", "basic", "bearer", "jwt"] {
        let output = python("publish.py", &[&uri, way, SECRET, "a", &format!("{way}.")]);
        assert_eq!(output.code, Some(0), "{way}: {}", output.stderr);
        assert_eq!(text(&mut client), format!("{way}."));
    }
    for (way, secret) in
        [("nothing", SECRET), ("expired", SECRET), ("jwt", "another"), ("basic", "another"), ("bearer", "another")]
    {
        let output = python("publish.py", &[&uri, way, secret, "a", "never"]);
        assert!(output.code == Some(1) && output.stderr.contains("401"), "{way}: {}", output.stderr);
    }
    let output = site.gateway.cli(&["publish", "a", "--format", "sse", "by hand"]);
    assert_eq!((output.code, output.stdout.trim()), (Some(0), "Published"), "{}", output.stderr);
    assert_eq!(text(&mut client), "data: by hand\n\n");
}

#[test]
fn the_door_is_a_unix_socket_where_that_is_wanted() {
    let worker = app(answer("Grip-Hold: response | Grip-Channel: a", "nothing"));
    let upstream = format!("endpoints: [\"{}\"], workers: 4", worker.endpoint());
    let gateway = Gateway::start(&config("unix:@folder@/publish.sock", "", &upstream, ""));
    let mut client = gateway.client();
    client.send(get("/"));
    gateway.wait_metric(RESPONSES, 1.0);
    let output = gateway.cli(&["publish", "a", "hello"]);
    assert_eq!((output.code, output.stdout.trim()), (Some(0), "Published"), "{}", output.stderr);
    assert_eq!(client.response("GET").text(), "hello");
    let output = gateway.cli(&["publish", ""]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("items[0].channel is missing"), "{}", output.stderr);
}

fn python(script: &str, arguments: &[&str]) -> Output {
    let script = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
    Tool::start(shop::python().to_str().unwrap(), &[&[script.as_str()], arguments].concat()).output()
}

// Apps as they are.

fn grip_url(publish: &str) -> String {
    format!("http://{publish}/?key={SECRET}&iss=pushpin")
}

fn flask(publish: &str) -> Plan {
    Plan::new(Kind::Sync, 1, Transport::Unix).serving("grip_flask:application").variable("GRIP_URL", &grip_url(publish))
}

/// The Django site on sync workers, behind a gateway that signs and wants to be shown the secret.
struct Django {
    site: Site,
    _gunicorn: Gunicorn,
    _folder: TempDir,
}

impl Django {
    fn start(workers: u32) -> Self {
        let (folder, publish) = (tempfile::tempdir().unwrap(), free_address());
        let plan = Plan::new(Kind::Sync, workers, Transport::Unix).serving("grip_django:application");
        let database = folder.path().join("events.db").display().to_string();
        let plan =
            plan.argument("--preload").variable("GRIP_DATABASE", &database).variable("GRIP_URL", &grip_url(&publish));
        let gunicorn = plan.start();
        let listeners =
            "listeners:\n  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";
        let upstream = format!("endpoints: [\"{}\"], workers: {workers}", gunicorn.endpoint());
        let config = config(&publish, &format!(", grip: {{ secret: {SECRET} }}"), &upstream, listeners)
            .replace(&format!("{publish}\" }}"), &format!("{publish}\", secret: {SECRET} }}"));
        let gateway = Gateway::start(&config);
        Self { site: Site { gateway, publish: Address::parse(&publish) }, _gunicorn: gunicorn, _folder: folder }
    }

    fn ask(&self, path: &str) -> String {
        let response = self.site.gateway.client().get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text().to_owned()
    }

    fn events(&self, channel: &str, last: Option<&str>) -> Client {
        let mut client = self.site.gateway.client();
        client.send(events_request(channel, last));
        let (status, headers) = client.head().unwrap();
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        client
    }
}

/// A name that has to be encoded wherever it stands.
const ROOM: &str = "room%201";

fn events_request(channel: &str, last: Option<&str>) -> String {
    let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
    let fields = "Accept: text/event-stream\r\nAccept-Encoding: gzip, br\r\n";
    format!("GET /events/{channel}/ HTTP/1.1\r\nHost: shop.example\r\n{fields}{last}\r\n")
}

/// As it comes to the client.
fn event(channel: &str, id: u32, text: &str) -> String {
    format!("event: message\nid: {channel}:{id}\ndata: {{\"text\": \"{text}\"}}\n\n")
}

#[test]
fn django_grip_sees_that_it_is_asked_by_the_gateway() {
    let django = Django::start(1);
    let said: Value = serde_json::from_str(&django.ask("/quick/")).unwrap();
    assert_eq!((&said["proxied"], &said["signed"]), (&true.into(), &true.into()), "{said}");
    assert!(said["features"].as_array().unwrap().contains(&"link:next".into()), "{said}");
}

#[test]
fn django_long_polls_and_streams_are_held_by_one_sync_worker() {
    let django = Django::start(1);
    let site = &django.site;
    let mut poll = site.gateway.client();
    poll.send(get("/poll/"));
    site.wait_held(RESPONSES, 1);
    let (mut stream, first) = site.stream("/stream/?tick");
    assert_eq!(first, "[open]\n");
    assert_eq!(django.ask("/answer/?text=hello"), "answered");
    let response = poll.response("GET");
    assert_eq!((response.status, response.text()), (201, "hello"));
    assert_eq!((response.header("x-kept"), response.header("x-replaced")), (Some("yes"), Some("yes")));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(django.ask("/say/?text=hello"), "said");
    let all = text_with(&mut stream, "hello\n");
    assert_eq!(all.replace("tick\n", ""), "hello\n");
    assert_eq!(text(&mut stream), "tick\n");
    assert_eq!(site.gateway.client().get("/poll/?timeout=5").text(), "{\"news\": []}");
}

#[test]
fn django_eventstream_works_unmodified_over_every_protocol() {
    let django = Django::start(2);
    let site = &django.site;
    let mut plain = django.events("hall", None);
    let opened = text_with(&mut plain, "event: stream-open\ndata:\n\n");
    assert!(opened.starts_with(&format!(":{}", " ".repeat(2048))), "{opened}");
    let secure = site.gateway.listener("127.0.0.2:0");
    let mut tls = Client::tls(secure, "localhost", &site.gateway.root());
    tls.send(events_request("hall", None));
    assert_eq!(tls.head().unwrap().0, 200);
    text_with(&mut tls, "event: stream-open\ndata:\n\n");
    let h2 = H2::tls(secure, "localhost", &site.gateway.root());
    let h2 = h2.open(request("GET", "/events/hall/", &[("accept", "text/event-stream")]), true);
    site.wait_held(STREAMS, 3);
    // A percent sign, which is one of the library's own directives.
    django.ask("/send/hall/?text=100%25");
    django.ask("/send/hall/?text=two&skip=anonymous");
    django.ask("/send/hall/?text=three");
    for client in [&mut plain, &mut tls] {
        assert_eq!(
            text_with(client, "three"),
            event("hall", 1, "100%") + &event("hall", 3, "three"),
            "two is for others"
        );
    }
    // Kicked: told, and ended.
    django.ask("/kick/hall/");
    let last = text_with(&mut plain, "Permission denied");
    assert!(last.starts_with("event: stream-error\nid: error\n"), "{last}");
    assert!(plain.chunk().is_none());
    let response = h2.response();
    assert!(response.text().contains(&(event("hall", 1, "100%") + &event("hall", 3, "three"))), "{}", response.text());
    assert_eq!(response.cut, None);
    site.wait_held(STREAMS, 0);
}

#[test]
fn an_event_that_was_not_published_comes_all_the_same_and_once() {
    let django = Django::start(2);
    let mut client = django.events(ROOM, None);
    text_with(&mut client, "stream-open");
    django.ask("/send/room%201/?text=one");
    assert_eq!(text_with(&mut client, "one"), event(ROOM, 1, "one"));
    django.ask("/lose/room%201/?text=two");
    django.ask("/send/room%201/?text=three");
    django.ask("/send/room%201/?text=four");
    let all = text_with(&mut client, "four");
    assert_eq!(all, event(ROOM, 2, "two") + &event(ROOM, 3, "three") + &event(ROOM, 4, "four"));
    assert!(django.site.gateway.metric("hostler_grip_links_total{outcome=\"asked\"}") >= 1.0);
    // Who comes back says where it was.
    let mut again = django.events(ROOM, Some("room%201:2"));
    let missed = text_with(&mut again, "four");
    assert!(missed.ends_with(&(event(ROOM, 3, "three") + &event(ROOM, 4, "four"))), "{missed}");
    // More than the library gives at once: page by page.
    for at in 0..150 {
        django.ask(&format!("/lose/room%201/?text=n{at}"));
    }
    let mut again = django.events(ROOM, Some("room%201:4"));
    let missed = text_with(&mut again, "n149");
    let ids: Vec<&str> = missed.lines().filter_map(|line| line.strip_prefix("id: room%201:")).collect();
    assert_eq!(ids.len(), 150, "{}", ids.join(" "));
    django.ask("/send/room%201/?text=after");
    assert_eq!(text_with(&mut again, "after"), event(ROOM, 155, "after"));
}

#[test]
fn flask_holds_by_json_and_by_fields() {
    let publish = free_address();
    let gunicorn = flask(&publish).start();
    let upstream = format!("endpoints: [\"{}\"], workers: 1", gunicorn.endpoint());
    let site = Site::start(&publish, &upstream, &format!(", grip: {{ secret: {SECRET} }}"), "");
    let mut poll = site.gateway.client();
    poll.send(get("/poll"));
    let (mut json, mut fields) = (site.stream("/stream").0, site.stream("/fields").0);
    site.wait_held(RESPONSES, 1);
    assert_eq!(site.gateway.client().get("/say?text=hello").text(), "said");
    let response = poll.response("GET");
    assert_eq!((response.text(), response.header("x-held")), ("hello", Some("yes")));
    assert_eq!((text(&mut json), text(&mut fields)), ("hello".into(), "hello".into()));
    assert_eq!(site.gateway.client().get("/poll").text(), "nothing\n");
    assert!(look_until(|| (site.gateway.metric(RESPONSES) == 0.0).then_some(())).is_some(), "within {LIMIT:?}");
}
