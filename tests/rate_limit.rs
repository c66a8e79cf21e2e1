//! `rate_limit`: who asks too often is told so, and when to come back.

use crate::support::gateway::before;
use crate::support::message::Response;
use crate::support::tool::{curl, h2load};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One route with this limit that answers itself.
fn limited(keys: &str) -> String {
    format!("sites: [{{ routes: [{{ path: /, respond: {{ body: ok }}, rate_limit: {{ {keys} }} }}] }}]\n")
}

fn statuses(client: &mut Client, count: usize) -> Vec<u16> {
    (0..count).map(|_| client.get("/").status).collect()
}

fn fields<'r>(response: &'r Response, names: [&str; 3]) -> [&'r str; 3] {
    names.map(|name| response.header(name).unwrap_or(""))
}

const FIELDS: [&str; 3] = ["ratelimit-policy", "ratelimit", "retry-after"];

#[test]
fn one_too_many_gets_429_and_no_worker_hears_of_it() {
    let worker = Worker::answering(Transport::Unix, OK);
    let config = before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let gateway = Gateway::start(&config.replace("proxy: app }", "proxy: app, rate_limit: { rate: 2/h } }"));
    let mut client = gateway.client();
    let first = client.get("/first");
    assert_eq!((first.status, fields(&first, FIELDS)), (200, ["\"default\";q=2;w=3600", "\"default\";r=1;t=1800", ""]));
    assert_eq!(client.get("/second").status, 200);
    let refused = client.get("/third");
    let [policy, state, retry] = fields(&refused, FIELDS);
    assert_eq!((refused.status, policy), (429, "\"default\";q=2;w=3600"), "{refused:?}");
    assert_eq!(state, format!("\"default\";r=0;t={retry}"), "RateLimit and Retry-After name the same time");
    assert!((1_700..=1_800).contains(&retry.parse::<u32>().unwrap()), "{retry}");
    assert!(refused.text().contains("reason: rate_limited"), "{refused:?}");
    assert_eq!(refused.header("proxy-status").unwrap(), "hostler; error=http_request_denied; details=\"rate_limited\"");
    assert_eq!(gateway.access_of(&refused)["reason"], "rate_limited");
    assert_eq!(worker.requests().len(), 2);
    gateway.wait_metric("hostler_rate_limited_total{outcome=\"refused\",route=\"/\"}", 1.0);
    gateway.wait_failures("", "rate_limited", 1.0);
    assert_eq!(client.get("/fourth").status, 429, "the connection stays open");
}

#[test]
fn an_answer_that_comes_of_a_failure_tells_the_limit_too() {
    let config = before("endpoints: [\"unix:./nobody.sock\"], workers: 1, hold: 0s");
    let gateway = Gateway::start(&config.replace("proxy: app }", "proxy: app, rate_limit: { rate: 10/h } }"));
    let failed = gateway.client().get("/");
    assert_eq!((failed.status, failed.header("ratelimit")), (502, Some("\"default\";r=9;t=360")), "{failed:?}");
}

#[test]
fn threads_connections_and_streams_together_get_exactly_the_burst() {
    for protocol in [&[][..], &["--h1"]] {
        let gateway = Gateway::start(&format!("runtime: {{ threads: 2 }}\n{}", limited("rate: 1/h, burst: 57")));
        let url = format!("http://{}/", gateway.address());
        let output = h2load(&[protocol, &["-n", "400", "-c", "8", "-m", "4", &url]].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains("status codes: 57 2xx, 0 3xx, 343 4xx, 0 5xx"), "{}", output.stdout);
    }
}

#[test]
fn curl_comes_back_when_it_was_told_and_is_let_in() {
    let gateway = Gateway::start(&limited("rate: 15/m, burst: 1"));
    let url = format!("http://{}/", gateway.address());
    let page = gateway.folder().join("page").display().to_string();
    let ask = || curl(&["--output", &page, "--write-out", "%{http_code}", "--retry", "5", &url]).stdout;
    assert_eq!([ask(), ask()], ["200", "200"]);
    // It has waited for as long as Retry-After says: sooner it would have been refused again.
    gateway.wait_metric("hostler_rate_limited_total{outcome=\"refused\",route=\"/\"}", 1.0);
}

#[test]
fn each_client_behind_a_trusted_proxy_has_its_own_and_the_proxy_has_none() {
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.0/8]\n{}", limited("rate: 1/h")));
    let mut proxy = gateway.client();
    let mut status_for = |client: &str| {
        let forwarded = if client.is_empty() { String::new() } else { format!("X-Forwarded-For: {client}\r\n") };
        proxy.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{forwarded}\r\n"));
        proxy.response("GET").status
    };
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("6.6.6.6, 192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::1", 200),
        ("", 200),
        ("", 200),
    ] {
        assert_eq!(status_for(client), status, "{client}");
    }
}

#[test]
fn nobody_gets_around_it_with_an_address_of_his_choice() {
    let gateway = Gateway::start(&limited("rate: 1/h"));
    let status_with = |field: &str| {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\n{field}\r\n\r\n"));
        client.response("GET").status
    };
    assert_eq!(status_with("X-Forwarded-For: 192.0.2.1"), 200);
    for field in ["X-Forwarded-For: 192.0.2.2", "X-Real-IP: 192.0.2.3", "Forwarded: for=192.0.2.4", "A: b"] {
        assert_eq!(status_with(field), 429, "{field}");
    }
    assert_eq!(Client::connect_from([127, 0, 0, 9], gateway.address()).get("/").status, 200, "another client");
}

#[test]
fn a_dry_run_lets_everybody_in_and_tells_what_it_would_do() {
    let gateway = Gateway::start(&limited("rate: 1/h, dry_run: true"));
    let mut client = gateway.client();
    let first = client.get("/");
    assert_eq!(fields(&first, FIELDS), ["", "", ""]);
    assert_eq!(statuses(&mut client, 3), [200; 3]);
    gateway.wait_metric("hostler_rate_limited_total{outcome=\"dry_run\",route=\"/\"}", 3.0);
    let told = gateway.log_event("the dry run", |event| event["message"].as_str().unwrap_or("").contains("dry_run"));
    assert_eq!((&told["client"], &told["route"]), (&"127.0.0.1".into(), &"/".into()), "{told}");
}

#[test]
fn a_reload_forgives_nobody_and_a_new_rule_holds_at_once() {
    let gateway = Gateway::start(&limited("rate: 1/h"));
    let mut client = gateway.client();
    assert_eq!(statuses(&mut client, 2), [200, 429]);
    gateway.reload(&format!("{}limits: {{ streams: 64 }}\n", limited("rate: 1/h")));
    assert_eq!(statuses(&mut client, 1), [429]);
    gateway.reload(&limited("rate: 1000000/s, burst: 1000"));
    // What it owed under the rule before is no more than what it can owe under this one: a millisecond.
    client.get("/");
    assert_eq!(statuses(&mut client, 20), [200; 20]);
    gateway.reload("sites: [{ routes: [{ path: /, respond: { body: ok } }] }]\n");
    let free = client.get("/");
    assert_eq!((free.status, free.header("ratelimit")), (200, None));
}

#[test]
fn routes_count_for_themselves() {
    let gateway = Gateway::start(
        "sites:\n  - routes:\n      - { path: /login, respond: { body: ok }, rate_limit: { rate: 1/h } }\n\
         \x20     - { path: /search, respond: { body: ok }, rate_limit: { rate: 2/h, by: \"header:X-Api-Key\" } }\n\
         \x20     - { path: /, respond: { body: ok } }\n",
    );
    let mut client = gateway.client();
    let mut get = |path: &str, key: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nX-Api-Key: {key}\r\n\r\n"));
        client.response("GET").status
    };
    assert_eq!([get("/login", "a"), get("/login", "b")], [200, 429]);
    assert_eq!([get("/search", "a"), get("/search", "a"), get("/search", "a")], [200, 200, 429]);
    assert_eq!([get("/search", "b"), get("/", "a"), get("/", "a")], [200, 200, 200]);
}
