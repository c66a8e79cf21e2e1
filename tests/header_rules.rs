//! `headers`: what a route adds to requests and answers, and what it takes away.

use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker};

const APP: &str = "HTTP/1.1 200 OK\r\nServer: gunicorn\r\nX-Frame-Options: DENY\r\nX-Debug: 1\r\nX-Debug: 2\r\n\
                   Cache-Control: private\r\nContent-Length: 2\r\n\r\nok";

/// With these further keys of its listener.
fn start(listener: &str, app: &str) -> Gateway {
    start_trusting("127.0.0.3", listener, app)
}

/// The same where this proxy is believed.
fn start_trusting(proxy: &str, listener: &str, app: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
listeners: [{{ bind: "127.0.0.1:0"{listener} }}]
trusted_proxies: [{proxy}]
upstreams:
  app: {{ endpoints: ["{app}"], workers: 4 }}
  gone: {{ endpoints: ["unix:./nobody.sock"], workers: 1, hold: 0s }}
sites:
  - routes:
      - path: /rules/
        proxy: app
        headers:
          request: {{ set: {{ X-Tenant: shop, Accept-Encoding: identity }}, remove: [Referer, Cookie] }}
          response: {{ set: {{ X-Served-By: edge, Cache-Control: no-cache }}, remove: [Server, X-Debug], security: true }}
      - path: /gone/
        proxy: gone
        headers: {{ response: {{ set: {{ X-Served-By: edge, Cache-Control: public }}, security: true }} }}
      - {{ path: /, proxy: app }}
"#
    ))
}

#[test]
fn the_app_gets_what_is_set_and_not_what_is_removed() {
    let worker = Worker::answering(Transport::Unix, APP);
    let gateway = start("", &worker.endpoint());
    let url = format!("http://{}", gateway.address());
    let fields = ["X-Tenant: other", "Referer: https://x.example/", "Cookie: a=b", "Accept-Encoding: br"];
    let headers: Vec<&str> = fields.iter().flat_map(|field| ["--header", field]).collect();
    for (path, count) in [("/rules/", 1), ("/", 2)] {
        let output = curl(&[&headers[..], &[&format!("{url}{path}")]].concat());
        assert_eq!(output.stdout, "ok", "{output:?}");
        let received = worker.wait_requests(count);
        let seen = ["x-tenant", "referer", "cookie", "accept-encoding"].map(|name| received.header(name));
        let seen = seen.each_ref().map(Option::as_deref);
        let expected = if path == "/" {
            // What is compressed at the edge is not asked of the app.
            [Some("other"), Some("https://x.example/"), Some("a=b"), None]
        } else {
            [Some("shop"), None, None, Some("identity")]
        };
        assert_eq!(seen, expected, "{path}");
    }
}

#[test]
fn a_client_cannot_name_away_what_is_set_for_the_app() {
    let worker = Worker::answering(Transport::Unix, APP);
    let gateway = start("", &worker.endpoint());
    let mut client = gateway.client();
    client.send("GET /rules/ HTTP/1.1\r\nHost: shop.example\r\nConnection: x-tenant, x-own\r\nX-Own: 1\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    let received = worker.wait_requests(1);
    assert_eq!((received.header("x-tenant").as_deref(), received.header("x-own")), (Some("shop"), None));
}

#[test]
fn the_client_gets_what_is_set_and_what_browsers_protect_a_site_by() {
    let worker = Worker::answering(Transport::Unix, APP);
    for listener in ["", ", tls: { local: true }"] {
        let gateway = start(listener, &worker.endpoint());
        let root = gateway.root();
        let port = gateway.address().port();
        let scheme = if listener.is_empty() { "http" } else { "https" };
        let asked = |path: &str| {
            let url = format!("{scheme}://localhost:{port}{path}");
            let names =
                ["server", "x-debug", "x-frame-options", "cache-control", "x-served-by", "x-content-type-options"];
            let more = ["referrer-policy", "strict-transport-security"];
            let format: String = names.iter().chain(&more).map(|name| format!("%header{{{name}}}|")).collect();
            let to_v4 = format!("localhost:{port}:127.0.0.1");
            let mut arguments = vec!["--output", "/dev/null", "--resolve", &to_v4, "--write-out", &format, &url];
            if scheme == "https" {
                arguments.extend(["--cacert", root.to_str().unwrap()]);
            }
            let output = curl(&arguments);
            assert_eq!(output.code, Some(0), "{output:?}");
            output.stdout
        };
        let hsts = if scheme == "https" { "max-age=31536000" } else { "" };
        let usual = format!("nosniff|strict-origin-when-cross-origin|{hsts}|");
        assert_eq!(asked("/rules/"), format!("||DENY|no-cache|edge|{usual}"));
        assert_eq!(asked("/gone/"), format!("||SAMEORIGIN|no-store|edge|{usual}"));
        assert_eq!(asked("/"), "gunicorn|1|DENY|private|||||");
    }
}

#[test]
fn hsts_goes_by_how_the_client_speaks_to_the_outermost_proxy_that_is_trusted() {
    let worker = Worker::answering(Transport::Unix, APP);
    let gateway = start_trusting("127.0.0.1", "", &worker.endpoint());
    let hsts = |from: u8, fields: &str| {
        let mut client = Client::connect_from([127, 0, 0, from], gateway.address());
        client.send(format!("GET /rules/ HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"));
        client.response("GET").header("strict-transport-security").is_some()
    };
    for (from, fields, is_told) in [
        (1, "X-Forwarded-Proto: https\r\n", true),
        (1, "Forwarded: for=192.0.2.7;proto=https\r\n", true),
        (1, "X-Forwarded-Proto: http\r\n", false),
        (1, "", false),
        (9, "X-Forwarded-Proto: https\r\n", false),
    ] {
        assert_eq!(hsts(from, fields), is_told, "127.0.0.{from} {fields}");
    }
}

#[test]
fn a_redirect_to_the_slash_that_is_missing_is_an_answer_of_its_route() {
    let gateway = Gateway::start(
        r#"
upstreams:
  app: { endpoints: ["unix:./nobody.sock"], workers: 4, hold: 0s }
sites:
  - hosts: [shop.example]
    routes:
      - path: /rules/
        proxy: app
        auth: { allow: [unix] }
        cors: { origins: ["https://app.example"] }
        headers: { response: { set: { X-Served-By: edge, Cache-Control: no-store }, security: true } }
      - { path: /plain/, proxy: app }
"#,
    );
    let mut client = gateway.client();
    let mut ask = |method: &str, host: &str, path: &str, fields: &str| {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://app.example\r\n{fields}\r\n"));
        client.response(method)
    };
    let redirect = ask("GET", "shop.example", "/rules?a=b", "");
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/rules/?a=b")));
    for (name, value) in [
        ("x-served-by", "edge"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "https://app.example"),
        ("vary", "Origin"),
    ] {
        assert_eq!(redirect.header(name), Some(value), "{name}");
    }
    // Browsers take no redirect for an answer to this.
    let preflight = ask("OPTIONS", "shop.example", "/rules", "Access-Control-Request-Method: PUT\r\n");
    assert_eq!((preflight.status, preflight.header("location")), (204, None));
    let plain = ask("GET", "shop.example", "/plain", "");
    assert_eq!((plain.status, plain.header("location")), (308, Some("/plain/")));
    assert!(plain.header("x-served-by").is_none() && plain.header("vary").is_none());
    // What no route has taken has no rules.
    for (host, status) in [("shop.example", 404), ("other.example", 421)] {
        let answer = ask("GET", host, "/nothing", "");
        assert_eq!((answer.status, answer.header("x-served-by"), answer.header("vary")), (status, None, None));
    }
}
