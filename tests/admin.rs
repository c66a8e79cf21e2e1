//! The operator's listener: who may ask, and who may control.

use crate::support::message::Response;
use crate::support::{Client, Gateway};

const CONTROL: &str = "X-Hostler-Control: 1\r\n";

/// Two upstreams that nobody serves; one endpoint is in both. `admin` has these keys.
fn gateway(admin: &str) -> Gateway {
    Gateway::start(&format!(
        "admin: {{ {admin} }}\n\
         upstreams:\n\
         \x20 app: {{ endpoints: [\"unix:./app.sock\", \"http://127.0.0.1:9\"], workers: 1 }}\n\
         \x20 api: {{ endpoints: [\"http://127.0.0.1:9\"], workers: 1 }}\n\
         sites: [{{ routes: [{{ path: /api/, proxy: api }}, {{ path: /, proxy: app }}] }}]\n"
    ))
}

/// Sends `line` (method and target) with these fields, Host among them, and this body.
fn ask(gateway: &Gateway, line: &str, fields: &str, body: &str) -> Response {
    let mut client = Client::connect(gateway.admin());
    let length = body.len();
    client.send(format!("{line} HTTP/1.1\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"));
    client.response(line.split(' ').next().unwrap())
}

fn is_paused(gateway: &Gateway, field: &str) -> bool {
    let status = ask(gateway, "GET /status", &format!("Host: localhost\r\n{field}"), "");
    let status: serde_json::Value = serde_json::from_str(status.text()).unwrap();
    status["upstreams"][0]["paused"].as_bool().unwrap()
}

#[test]
fn who_does_not_bring_the_token_learns_nothing_and_changes_nothing() {
    let gateway = gateway("bind: \"127.0.0.254:0\", token: 0123456789abcdef");
    let ask = |line: &str, field: &str| ask(&gateway, line, &format!("Host: shop.example\r\n{field}"), "");
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    for line in [
        "GET /metrics",
        "GET /live",
        "GET /ready",
        "GET /status",
        "GET /other",
        "POST /pause?upstream=app",
        "POST /purge?all=1",
        "POST /reload",
    ] {
        for field in ["", CONTROL, "Authorization: Bearer 0123456789abcdee\r\n"] {
            let refused = ask(line, field);
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{line} {field}");
        }
    }
    assert!(!is_paused(&gateway, right));
    assert_eq!(ask("GET /live", right).status, 200);
    assert!(ask("GET /metrics", right).text().contains("hostler_"));
    assert_eq!(ask("POST /pause?upstream=app", right).status, 200);
    assert!(is_paused(&gateway, right));
}

#[test]
fn no_web_page_in_the_operators_browser_controls() {
    let gateway = gateway("bind: \"127.0.0.254:0\"");
    let local = "Host: localhost\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for fields in [
        // A form that a page sends by itself.
        format!("{local}Origin: http://shop.example\r\n{form}"),
        format!("{local}Origin: null\r\n{form}"),
        format!("{local}{form}"),
        // As a script would, had the browser let it.
        format!("{local}{CONTROL}Origin: http://shop.example\r\n"),
        format!("{local}{CONTROL}Sec-Fetch-Site: cross-site\r\n"),
        // A page whose own name has been pointed here.
        format!("Host: shop.example\r\n{CONTROL}"),
    ] {
        let refused = ask(&gateway, "POST /pause", &fields, "upstream=app");
        assert_eq!(refused.status, 403, "{fields}: {refused:?}");
        assert!(refused.text().len() > 20, "it says why: {refused:?}");
    }
    for path in ["/pause?upstream=app", "/resume?upstream=app", "/drain?endpoint=unix:/a", "/purge?all=1", "/reload"] {
        let refused = ask(&gateway, &format!("GET {path}"), &format!("{local}{CONTROL}"), "");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")), "{path}");
    }
    assert!(!is_paused(&gateway, ""));
    let done = ask(&gateway, "POST /pause", &format!("{local}{CONTROL}"), "upstream=app");
    assert_eq!(done.status, 200);
    let event = gateway.log_event("the pause", |event| event["by"].is_string());
    assert_eq!((&event["upstream"], &event["level"]), (&"app".into(), &"INFO".into()), "{event}");
    assert!(event["by"].as_str().unwrap().starts_with("127.0.0."), "{event}");
}

#[test]
fn an_order_that_cannot_be_meant_is_refused_with_what_can() {
    let gateway = gateway("bind: \"unix:@folder@/admin.sock\"");
    let app = format!("unix:{}", gateway.folder().join("app.sock").display());
    let post =
        |target: &str, body: &str| ask(&gateway, &format!("POST {target}"), &format!("Host: x\r\n{CONTROL}"), body);
    let long = "upstream=".to_owned() + &"a".repeat(5000);
    for (target, body, status, said) in [
        ("/pause?upstream=apx", "", 404, "app, api"),
        ("/drain?endpoint=unix:/nobody", "", 404, "app.sock"),
        ("/drain?endpoint=unix:/nobody&upstream=api", "", 404, "http://127.0.0.1:9\n"),
        ("/drain?endpoint=http://127.0.0.1:9/", "", 409, "app and of api: say which with upstream=NAME"),
        ("/drain?endpoint=app", "", 400, "`app` is not an endpoint"),
        ("/drain", "upstream=app", 400, "endpoint=ADDRESS"),
        ("/pause", "", 400, "upstream=NAME"),
        ("/resume", "", 400, "upstream=NAME"),
        ("/pause?endpoint=unix:/a", "upstream=app", 400, "/drain"),
        ("/pause?upstream=app", "upstream=app", 400, "comes twice"),
        ("/pause?upstrem=app", "", 400, "`upstrem`"),
        ("/reload?upstream=app", "", 400, "no parameters"),
        ("/pause", &long, 413, "4096"),
    ] {
        let refused = post(target, body);
        assert_eq!(refused.status, status, "{target} {body}: {}", refused.text());
        assert!(refused.text().contains(said), "{target} {body}: {}", refused.text());
    }
    assert_eq!(ask(&gateway, "POST /status", "Host: x\r\n", "").status, 405);
    let drain = |body: &str| {
        let done = post("/drain", body);
        let report: serde_json::Value = serde_json::from_str(done.text()).unwrap_or_else(|_| panic!("{done:?}"));
        let conditions = |report: &serde_json::Value| {
            let endpoints = report["upstream"]["endpoints"].as_array().unwrap();
            endpoints.iter().map(|endpoint| endpoint["condition"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        (report["changed"].as_bool().unwrap(), report["upstream"]["name"].clone(), conditions(&report))
    };
    let first_drained = vec!["drained".to_owned(), "up".to_owned()];
    assert_eq!(drain(&format!("endpoint={app}")), (true, "app".into(), first_drained.clone()));
    assert_eq!(drain(&format!("endpoint={app}")), (false, "app".into(), first_drained), "as often as one likes");
    assert_eq!(drain("endpoint=http://127.0.0.1:9&upstream=api"), (true, "api".into(), vec!["drained".into()]));
}

#[test]
fn an_order_to_purge_says_one_thing_and_is_told_what_came_of_it() {
    let gateway = gateway("bind: \"unix:@folder@/admin.sock\"");
    let post = |fields: &str, body: &str| ask(&gateway, "POST /purge", &format!("Host: x\r\n{CONTROL}{fields}"), body);
    for (body, said) in [
        ("", "say what is to be purged: url=URL"),
        ("url=/page", "`url`: `/page` has no host"),
        ("host=https://shop.example/", "`host`: `https://shop.example/` is not a host"),
        ("url=shop.example/a?b=1&c=2", "`c` is not a parameter"),
        ("all=1&tag=a", "one order is for one of"),
        ("tag=", "`tag`: there is no tag in it"),
    ] {
        let refused = post("", body);
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.text().contains(said), "{body}: {}", refused.text());
    }
    let long = "tag=".to_owned() + &"a,".repeat(40_000);
    assert_eq!(post("", &long).status, 413);
    let done = post("", "url=https://shop.example/page&soft=1");
    assert_eq!((done.status, done.text()), (200, "{\"purged\":0,\"soft\":true,\"indexed\":true}\n"));
    let event = gateway.log_event("the purge", |event| event["what"].is_string());
    assert_eq!((&event["what"], &event["objects"]), (&"shop.example/page".into(), &0.into()), "{event}");
    let told = post("Accept: text/plain\r\n", "all=1");
    assert_eq!(told.text(), "purged: 0 objects; no route has a cache\n");
}

#[test]
fn no_page_whose_name_points_here_reads_what_the_gateway_does() {
    let gateway = gateway("bind: \"127.0.0.254:0\"");
    for path in ["/status", "/metrics"] {
        let status = |fields: &str| ask(&gateway, &format!("GET {path}"), fields, "").status;
        for fields in ["Host: shop.example\r\n", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"] {
            assert_eq!(status(fields), 403, "{path} {fields}");
        }
        for host in ["localhost:9180", "127.0.0.254", "[::1]:9180"] {
            assert_eq!(status(&format!("Host: {host}\r\n")), 200, "{path} {host}");
        }
    }
    for path in ["/live", "/ready"] {
        assert_eq!(ask(&gateway, &format!("GET {path}"), "Host: probe.example\r\n", "").status, 200, "{path}");
    }
}

#[test]
fn more_connections_than_the_listener_keeps_wait_for_one_to_end() {
    const LIVE: &str = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let gateway = gateway("bind: \"127.0.0.254:0\"");
    let mut kept: Vec<Client> = (0..64).map(|_| Client::connect(gateway.admin())).collect();
    for client in &mut kept {
        client.send(LIVE);
        assert_eq!(client.response("GET").status, 200);
    }
    let mut waiting = Client::connect(gateway.admin());
    waiting.send(
        "POST /pause?upstream=app HTTP/1.1\r\nHost: localhost\r\nX-Hostler-Control: 1\r\nContent-Length: 0\r\n\r\n",
    );
    kept[0].send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let status: serde_json::Value = serde_json::from_str(kept[0].response("GET").text()).unwrap();
    assert_eq!(status["upstreams"][0]["paused"], false, "nobody has heard of it");
    kept.pop();
    assert_eq!(waiting.response("POST").status, 200);
}
