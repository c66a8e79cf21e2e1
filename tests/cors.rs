//! CORS as the Fetch standard has it: a table of what browsers ask, and what they are told.

use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Gateway, Response, Worker};

/// The app's own opinion, which does not count.
const APP: &str = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.example\r\nAccess-Control-Allow-Credentials: \
                   true\r\nAccess-Control-Expose-Headers: X-Secret\r\nVary: Cookie\r\nContent-Length: 2\r\n\r\nok";

fn start(app: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
upstreams:
  app: {{ endpoints: ["{app}"], workers: 4 }}
  gone: {{ endpoints: ["unix:./nobody.sock"], workers: 1, hold: 0s }}
sites:
  - routes:
      - {{ path: /plain/, proxy: app, cors: {{ origins: ["https://app.example", "http://localhost:3000"] }} }}
      - path: /cookies/
        proxy: app
        cors: {{ origins: ["https://app.example"], credentials: true, methods: [GET, PUT], headers: [X-Api-Key], expose: [X-Total, ETag], max_age: 1h }}
      - {{ path: /public/, proxy: app, cors: {{ origins: ["*"], headers: ["*"], expose: ["*"], max_age: 0s }} }}
      - {{ path: /null/, proxy: app, cors: {{ origins: ["null"] }} }}
      - {{ path: /gone/, proxy: gone, cors: {{ origins: ["https://app.example"] }} }}
      - {{ path: /fixed/, respond: {{ body: fixed }}, cors: {{ origins: ["https://app.example"] }} }}
      - {{ path: /small/, proxy: app, body_limit: 1B, cors: {{ origins: ["https://app.example"] }} }}
      - {{ path: /, proxy: app }}
"#
    ))
}

/// Asks with these fields, written `name: value`.
fn ask(gateway: &Gateway, method: &str, path: &str, fields: &[&str]) -> Response {
    let mut client = gateway.client();
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"));
    client.response(method)
}

/// What an answer says of CORS, in the order of names and without the common beginning of them; every `Vary` is one.
fn told(response: &Response) -> String {
    let mut told: Vec<String> = Vec::new();
    for (name, value) in &response.headers {
        match name.strip_prefix("access-control-") {
            Some(name) => told.push(format!("{name}={value}")),
            None if name == "vary" => told.push(format!("vary={value}")),
            None => {}
        }
    }
    told.sort();
    told.join(" | ")
}

const ORIGIN: &str = "Origin: https://app.example";
const METHOD: &str = "Access-Control-Request-Method: PUT";
const PREFLIGHT_VARY: &str = "vary=Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
const METHODS: &str = "allow-methods=GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "allow-headers=accept, authorization, content-type, x-csrftoken, x-requested-with";

#[test]
fn a_preflight_is_answered_by_the_edge() {
    let worker = Worker::answering(Transport::Unix, APP);
    let gateway = start(&worker.endpoint());
    let plain =
        |origin: &str| format!("{HEADERS} | {METHODS} | allow-origin={origin} | max-age=600 | {PREFLIGHT_VARY}");
    let app = plain("https://app.example");
    let cookies = format!(
        "allow-credentials=true | allow-headers=x-api-key | allow-methods=GET, PUT | \
         allow-origin=https://app.example | max-age=3600 | {PREFLIGHT_VARY}"
    );
    let public = |headers: &str| format!("{headers}{METHODS} | allow-origin=* | max-age=0 | {PREFLIGHT_VARY}");
    let refused = PREFLIGHT_VARY.to_owned();
    for (path, fields, expected) in [
        ("/plain/", &[ORIGIN, METHOD][..], app.clone()),
        ("/plain/x?y", &[ORIGIN, "Access-Control-Request-Method: GET"], app.clone()),
        ("/plain/", &[ORIGIN, "Access-Control-Request-Method: BREW"], app.clone()),
        ("/plain/", &[ORIGIN, METHOD, "Access-Control-Request-Headers: x-other"], app.clone()),
        ("/plain/", &[ORIGIN, METHOD, "Cookie: sessionid=1", "Authorization: Bearer x"], app.clone()),
        ("/plain/", &["Origin: http://localhost:3000", METHOD], plain("http://localhost:3000")),
        // Another origin, though it looks alike.
        ("/plain/", &["Origin: https://evil.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: http://app.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://app.example:444", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://app.example.evil.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://evil-app.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://App.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://app.example/", METHOD], refused.clone()),
        ("/plain/", &["Origin: null", METHOD], refused.clone()),
        ("/plain/", &["Origin: *", METHOD], refused.clone()),
        ("/plain/", &["Origin:", METHOD], refused.clone()),
        ("/plain/", &["Origin: https://app.example https://evil.example", METHOD], refused.clone()),
        ("/plain/", &[ORIGIN, "Origin: https://evil.example", METHOD], refused.clone()),
        ("/plain/", &["Origin: http://localhost", METHOD], refused.clone()),
        ("/cookies/", &[ORIGIN, METHOD, "Access-Control-Request-Headers: x-api-key"], cookies.clone()),
        ("/cookies/", &[ORIGIN, "Access-Control-Request-Method: DELETE"], cookies.clone()),
        ("/cookies/", &["Origin: https://evil.example", METHOD], refused.clone()),
        ("/public/", &["Origin: https://anybody.example", METHOD], public("")),
        ("/public/", &["Origin: null", METHOD], public("")),
        ("/public/", &[ORIGIN, METHOD, "Access-Control-Request-Headers: x-a,x-b"], public("allow-headers=x-a,x-b | ")),
        ("/public/", &[ORIGIN, METHOD, "Access-Control-Request-Headers: a b"], public("")),
        ("/public/", &[ORIGIN, METHOD, "Access-Control-Request-Headers: x-a;q=1"], public("")),
        ("/null/", &["Origin: null", METHOD], plain("null")),
        ("/null/", &[ORIGIN, METHOD], refused.clone()),
        ("/gone/", &[ORIGIN, METHOD], app.clone()),
        ("/fixed/", &[ORIGIN, METHOD], app.clone()),
        ("/small/", &[ORIGIN, METHOD], app.clone()),
    ] {
        let response = ask(&gateway, "OPTIONS", path, fields);
        assert_eq!((response.status, told(&response)), (204, expected), "{path} {fields:?}");
        assert!(response.body.is_empty() && response.header("content-length").is_none());
    }
    assert!(worker.requests().is_empty(), "no worker was asked");
    let over_h2 = crate::support::h2::request(
        "OPTIONS",
        "/plain/",
        &[("origin", "https://app.example"), ("access-control-request-method", "PUT")],
    );
    assert_eq!(told(&gateway.h2().send(over_h2, b"")), app);
}

#[test]
fn an_answer_says_who_may_read_it() {
    let worker = Worker::answering(Transport::Unix, APP);
    let gateway = start(&worker.endpoint());
    let own = "vary=Cookie | vary=Origin";
    let with = |fields: &str| format!("{fields} | {own}");
    let app = with("allow-origin=https://app.example");
    let cookies = with("allow-credentials=true | allow-origin=https://app.example | expose-headers=x-total, etag");
    let public = with("allow-origin=* | expose-headers=*");
    let untouched =
        "allow-credentials=true | allow-origin=https://evil.example | expose-headers=X-Secret | vary=Cookie";
    for (method, path, fields, status, expected) in [
        ("GET", "/plain/", &[ORIGIN][..], 200, app.as_str()),
        ("HEAD", "/plain/", &[ORIGIN], 200, &app),
        ("POST", "/plain/", &[ORIGIN, "Content-Length: 0"], 200, &app),
        ("GET", "/plain/", &["Origin: http://localhost:3000"], 200, &with("allow-origin=http://localhost:3000")),
        ("GET", "/plain/", &[], 200, own),
        ("GET", "/plain/", &["Origin: https://evil.example"], 200, own),
        ("GET", "/plain/", &["Origin: null"], 200, own),
        ("GET", "/plain/", &[ORIGIN, ORIGIN], 200, own),
        // Not a preflight: the app's own OPTIONS.
        ("OPTIONS", "/plain/", &[ORIGIN], 200, &app),
        ("OPTIONS", "/plain/", &[METHOD], 200, own),
        ("GET", "/plain/", &[ORIGIN, METHOD], 200, &app),
        ("GET", "/cookies/", &[ORIGIN], 200, &cookies),
        ("GET", "/cookies/", &["Origin: https://evil.example"], 200, own),
        ("GET", "/cookies/", &[], 200, own),
        ("GET", "/public/", &["Origin: https://anybody.example"], 200, &public),
        ("GET", "/public/", &[], 200, &public),
        ("GET", "/null/", &["Origin: null"], 200, &with("allow-origin=null")),
        ("GET", "/null/", &["Origin: NULL"], 200, own),
        ("GET", "/fixed/", &[ORIGIN], 200, "allow-origin=https://app.example | vary=Origin"),
        // Refusals of the edge.
        ("GET", "/gone/", &[ORIGIN], 502, "allow-origin=https://app.example | vary=Origin"),
        ("GET", "/gone/", &["Origin: https://evil.example"], 502, "vary=Origin"),
        ("POST", "/small/", &[ORIGIN, "Content-Length: 9"], 413, "allow-origin=https://app.example | vary=Origin"),
        (
            "GET",
            "/plain/",
            &[ORIGIN, "Upgrade: websocket", "Connection: upgrade"],
            501,
            "allow-origin=https://app.example | vary=Origin",
        ),
        // A route without the key.
        ("GET", "/", &[ORIGIN], 200, untouched),
        ("OPTIONS", "/", &[ORIGIN, METHOD], 200, untouched),
    ] {
        let response = ask(&gateway, method, path, fields);
        assert_eq!((response.status, told(&response).as_str()), (status, expected), "{method} {path} {fields:?}");
    }
}

#[test]
fn curl_sees_a_preflight_while_every_worker_is_busy() {
    let (worker, latch) = Worker::held(APP);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 1 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, cors: {{ origins: [\"https://app.example\"] }} }}] }}]\n",
        worker.endpoint()
    ));
    let mut busy = gateway.client();
    busy.send(crate::support::client::get("/"));
    worker.wait_requests(1);
    let url = format!("http://{}/", gateway.address());
    let (origin, method) = ("Origin: https://app.example", "Access-Control-Request-Method: PUT");
    let arguments = ["--request", "OPTIONS", "--header", origin, "--header", method, "--write-out"];
    let output = curl(&[&arguments[..], &["%{http_code} %header{access-control-allow-origin}", &url]].concat());
    assert_eq!(output.stdout, "204 https://app.example", "{output:?}");
    latch.open();
    assert_eq!(busy.response("GET").status, 200);
}
