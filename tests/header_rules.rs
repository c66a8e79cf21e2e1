//! `headers`: what a route adds to requests and answers, and what it takes away.

use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Gateway, Worker};

const APP: &str = "HTTP/1.1 200 OK\r\nServer: gunicorn\r\nX-Frame-Options: DENY\r\nX-Debug: 1\r\nX-Debug: 2\r\n\
                   Cache-Control: private\r\nContent-Length: 2\r\n\r\nok";

fn start(listener: &str, app: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
listeners: [{{ bind: "127.0.0.1:0"{listener} }}]
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
            [Some("other"), Some("https://x.example/"), Some("a=b"), Some("br")]
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
