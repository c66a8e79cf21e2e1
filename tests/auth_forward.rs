//! `auth.forward`: another service says who may use a route, a scripted one and the app itself.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::client::get;
use crate::support::h2::request;
use crate::support::worker::{Protocol, Received, Transport};
use crate::support::{Client, Gateway, Gunicorn, Response, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PASS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nRemote-User: ann\r\nRemote-Groups: staff\r\n\
                    Set-Cookie: fresh=1\r\n\r\nwelcome";

/// An app, the service that is asked, and what this says of its upstream and of the route.
fn config(app: &str, auth: &str, upstream: &str, route: &str) -> String {
    format!(
        "upstreams:\n  app: {{ endpoints: [\"{app}\"], workers: 2 }}\n  \
         auth: {{ endpoints: [\"{auth}\"], workers: 1, {upstream} }}\n\
         sites:\n  - routes:\n      - {{ path: /open/, proxy: app }}\n      - {{ path: /, proxy: app, {route} }}\n"
    )
}

const FORWARD: &str = "auth: { forward: { upstream: auth, path: /verify, headers: [Remote-User, Remote-Groups] } }";

fn app() -> Worker {
    Worker::answering(Transport::Unix, OK)
}

/// A service that answers by the cookie `want`: with a status, or what else stands here.
fn verdicts() -> Worker {
    Worker::unix(|visit| {
        while let Some(received) = visit.request() {
            let cookie = received.header("cookie").unwrap_or_default();
            visit.send(match cookie.strip_prefix("want=").unwrap_or_default() {
                "401" => {
                    "HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n\
                     Content-Type: text/x-login\r\n\r\nlog in,\r\n"
                }
                "302" => {
                    "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: https://login.example/?a=b\r\n\
                     Set-Cookie: back=%2F\r\nSet-Cookie: state=x\r\n\r\n"
                }
                "403" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
                "404" => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
                "garbage" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
                _ => PASS,
            });
        }
    })
}

fn ask(client: &mut Client, method: &str, path: &str, fields: &str) -> Response {
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"));
    client.response(method)
}

fn cookies(response: &Response) -> Vec<&str> {
    response.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str()).collect()
}

const FORGED: &[(&str, &str)] = &[
    ("remote-user", "forged"),
    ("remote-groups", "forged"),
    ("x-forwarded-uri", "/forged"),
    ("x-forwarded-method", "FORGED"),
    ("x-original-uri", "/forged"),
    ("x-original-url", "https://forged.example/"),
    ("x-original-method", "FORGED"),
];

#[test]
fn who_passes_is_named_to_the_app_and_no_client_can_name_himself() {
    let (app, auth) = (app(), verdicts());
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", FORWARD));
    let fields: String = FORGED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (mut client, h2) = (gateway.client(), gateway.h2());
    client.send(format!("POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\n{fields}Content-Length: 4\r\n\r\nbody"));
    let answers = [client.response("POST"), h2.send(request("POST", "/a?b=c", FORGED), b"body")];
    for (answer, asked) in answers.iter().zip(1..) {
        assert_eq!((answer.status, answer.text(), cookies(answer)), (200, "ok", vec!["fresh=1"]), "{answer:?}");
        let Received { head, body, .. } = auth.wait_requests(asked);
        assert!(head.starts_with("GET /verify HTTP/1.1\r\n") && body.is_empty(), "{head}");
        for (name, value) in [
            ("x-forwarded-method", "POST"),
            ("x-forwarded-uri", "/a?b=c"),
            ("x-original-method", "POST"),
            ("x-original-uri", "/a?b=c"),
            ("x-original-url", "http://shop.example/a?b=c"),
            ("x-forwarded-for", "127.0.0.1"),
            ("host", "shop.example"),
            ("x-request-id", answer.id()),
        ] {
            assert!(head.contains(&format!("\r\n{name}: {value}\r\n")), "{name}: {value} in {head}");
        }
        assert!(!head.to_lowercase().contains("forged") && !head.contains("content-length"), "{head}");
        let received = app.wait_requests(asked);
        assert_eq!((received.line(), &received.body[..]), ("POST /a?b=c HTTP/1.1", &b"body"[..]));
        assert_eq!(received.header("remote-user").as_deref(), Some("ann"));
        assert_eq!(received.header("remote-groups").as_deref(), Some("staff"));
        assert_eq!(received.header("x-request-id").as_deref(), Some(answer.id()));
        assert!(!received.head.to_lowercase().contains("forged"), "{}", received.head);
        assert!(!received.head.contains("x-original"), "{}", received.head);
        let line = gateway.access_of(answer);
        assert!(line["auth"].as_f64().is_some_and(|auth| auth > 0.0) && line["reason"].is_null(), "{line}");
        assert_eq!(line["endpoint"], app.endpoint());
    }
    // A route that asks nobody is no way round.
    let open = ask(&mut client, "GET", "/open/", &fields);
    assert_eq!((open.status, cookies(&open)), (200, vec![]));
    let received = app.wait_requests(3);
    for (name, _) in FORGED {
        assert_eq!(received.all(name), Vec::<String>::new(), "{name}");
    }
    assert!(gateway.access_of(&open)["auth"].is_null());
    assert_eq!(auth.requests().len(), 2);
    // One worker's time each, as for any request.
    gateway.wait_metric("hostler_worker_seconds_count{upstream=\"auth\"}", 2.0);
    gateway.wait_metric("hostler_in_flight{upstream=\"auth\"}", 0.0);
}

#[test]
fn a_verdict_is_the_clients_as_it_is_and_the_connection_goes_on() {
    let (app, auth) = (app(), verdicts());
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", FORWARD));
    let (mut client, h2) = (gateway.client(), gateway.h2());
    let mut both = |method: &str, want: &str| {
        let cookie = format!("want={want}");
        let over_h2 = h2.send(request(method, "/page", &[("cookie", &cookie)]), b"");
        [ask(&mut client, method, "/page", &format!("Cookie: {cookie}\r\n")), over_h2]
    };
    for answer in both("GET", "401") {
        assert_eq!((answer.status, answer.text()), (401, "log in,\r\n"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"x\""));
        assert_eq!((answer.header("content-type"), answer.header("proxy-status")), (Some("text/x-login"), None));
        let line = gateway.access_of(&answer);
        assert_eq!((&line["reason"], &line["endpoint"]), (&"unauthorized".into(), &auth.endpoint().into()), "{line}");
    }
    for answer in both("HEAD", "401") {
        assert_eq!((answer.status, &answer.body[..]), (401, &b""[..]));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"x\""));
    }
    for answer in both("GET", "302") {
        assert_eq!((answer.status, answer.header("location")), (302, Some("https://login.example/?a=b")));
        assert_eq!(cookies(&answer), ["back=%2F", "state=x"]);
        assert_eq!(gateway.access_of(&answer)["reason"], "unauthorized");
    }
    for answer in both("GET", "403") {
        assert_eq!((answer.status, answer.text()), (403, "no"));
        assert_eq!(gateway.access_of(&answer)["reason"], "forbidden");
    }
    // It has not been asked properly, or does not answer properly: that is for the operator.
    for want in ["404", "garbage"] {
        for answer in both("GET", want) {
            assert_eq!((answer.status, answer.header("location")), (503, None), "{want}");
            assert_eq!(gateway.access_of(&answer)["reason"], "auth_unavailable");
        }
    }
    let event = gateway.log_event("no verdict", |event| event["reason"] == "auth_unavailable");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("GET /verify from upstream auth") && message.contains("404"), "{message}");
    assert_eq!(app.connections(), 0, "nobody has passed");
    for answer in both("GET", "") {
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
}

#[test]
fn without_an_answer_nobody_passes() {
    let app = app();
    let gateway = Gateway::start(&config(&app.endpoint(), "unix:@folder@/nobody.sock", "hold: 0s", FORWARD));
    for method in ["GET", "DELETE"] {
        let answer = ask(&mut gateway.client(), method, "/", "");
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
        assert_eq!(gateway.access_of(&answer)["reason"], "auth_unavailable");
    }
    assert_eq!(ask(&mut gateway.client(), "GET", "/open/", "").status, 200);
    assert_eq!((gateway.failures("", "auth_unavailable"), app.requests().len()), (2.0, 1));
    assert!(gateway.failures("auth", "socket_missing") >= 1.0);
}

#[test]
fn a_service_that_is_too_slow_is_not_waited_for_and_keeps_its_slot() {
    let (app, (auth, latch)) = (app(), Worker::held(PASS));
    let route = FORWARD.replace("path:", "timeout: 100ms, path:");
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", &route));
    let answer = ask(&mut gateway.client(), "GET", "/", "");
    assert_eq!(answer.status, 503);
    let line = gateway.access_of(&answer);
    assert_eq!((&line["reason"], &line["endpoint"]), (&"auth_unavailable".into(), &auth.endpoint().into()), "{line}");
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"auth\"}"), 1.0);
    latch.open();
    gateway.wait_metric("hostler_in_flight{upstream=\"auth\"}", 0.0);
    assert_eq!(ask(&mut gateway.client(), "GET", "/", "").status, 200);
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn the_time_of_the_route_holds_for_the_question_too() {
    let (app, (auth, latch)) = (app(), Worker::held(PASS));
    let route = format!("timeout: 100ms, {FORWARD}");
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", &route));
    let answer = ask(&mut gateway.client(), "GET", "/", "");
    assert_eq!((answer.status, &gateway.access_of(&answer)["reason"]), (504, &"route_timeout".into()));
    latch.open();
    gateway.wait_metric("hostler_in_flight{upstream=\"auth\"}", 0.0);
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_full_waiting_room_is_told_as_it_is() {
    let (app, (auth, latch)) = (app(), Worker::held(PASS));
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "waiting_room: { limit: 0 }", FORWARD));
    let mut first = gateway.client();
    first.send(get("/"));
    auth.wait_requests(1);
    let answer = ask(&mut gateway.client(), "GET", "/", "");
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    assert_eq!(gateway.access_of(&answer)["reason"], "queue_full");
    latch.open();
    assert_eq!(first.response("GET").status, 200);
    assert_eq!((gateway.failures("auth", "queue_full"), gateway.failures("", "queue_full")), (1.0, 0.0));
}

#[test]
fn nothing_of_an_upload_is_received_before_it_may_pass() {
    let (app, auth) = (app(), verdicts());
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", FORWARD));
    let mut client = gateway.client();
    let head = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
    client.send(format!("{head}Cookie: want=401\r\n\r\n"));
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.interim.len(), answer.text()), (401, 0, "log in,\r\n"));
    let h2 = gateway.h2();
    let stream = h2.open(request("POST", "/", &[("cookie", "want=302")]), false);
    assert_eq!(stream.response().status, 302);
    assert_eq!((app.connections(), auth.requests().len()), (0, 2));
    // Who passes is asked for it.
    let mut client = gateway.client();
    client.send(format!("{head}\r\n"));
    assert_eq!(client.head().map(|(status, _)| status), Some(100));
    assert_eq!(app.connections(), 0);
    client.send("body");
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(app.wait_requests(1).body, b"body");
    assert_eq!(auth.wait_requests(3).header("expect"), None);
}

#[test]
fn answers_of_any_size_are_passed_on_or_left_alone() {
    let page = "x".repeat(300_000);
    let refusal = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let large = format!("HTTP/1.1 200 OK\r\nRemote-User: ann\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let endless = format!("HTTP/1.1 200 OK\r\nX-Large: {page}\r\nContent-Length: 0\r\n\r\n");
    for (answer, status, length) in [(refusal, 403, 300_000), (large, 200, 2), (endless, 503, 0)] {
        let (app, auth) = (app(), Worker::answering(Transport::Unix, answer));
        let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", FORWARD));
        let mut client = gateway.client();
        for _ in 0..2 {
            let answer = ask(&mut client, "GET", "/", "");
            assert_eq!(answer.status, status);
            assert!(answer.body.len() == length || status == 503, "{} bytes", answer.body.len());
        }
        gateway.wait_metric("hostler_in_flight{upstream=\"auth\"}", 0.0);
        gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    }
}

#[test]
fn a_client_that_leaves_while_it_is_asked_about_never_reaches_the_app() {
    let (app, (auth, latch)) = (app(), Worker::held(PASS));
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", FORWARD));
    let mut client = gateway.client();
    client.send(get("/left"));
    auth.wait_requests(1);
    drop(client);
    let line = gateway.access_of_path("/left");
    assert_eq!((&line["status"], &line["phase"]), (&499.into(), &"authorizing".into()), "{line}");
    assert!(line["worker"].as_f64().is_some() && line["endpoint"] == auth.endpoint().as_str(), "{line}");
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"auth\"}"), 1.0, "the worker is not done");
    latch.open();
    gateway.wait_metric("hostler_in_flight{upstream=\"auth\"}", 0.0);
    assert_eq!(app.connections(), 0);
}

#[test]
fn the_other_kinds_of_auth_hold_as_well_and_come_first() {
    let (app, auth) = (app(), verdicts());
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let route = format!(
        "rate_limit: {{ rate: 4/h }}, cors: {{ origins: ['https://app.example'] }}, \
         auth: {{ basic: {{ users: \"{}\" }}, forward: {{ upstream: auth, path: /verify, headers: [Remote-Groups] }} }}",
        users.display()
    );
    std::fs::write(&users, format!("bob:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint(), "", &route));
    let mut client = gateway.client();
    let preflight = "Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n";
    assert_eq!(ask(&mut client, "OPTIONS", "/", preflight).status, 204);
    assert_eq!(ask(&mut client, "GET", "/", "").status, 401);
    assert_eq!(auth.connections(), 0, "neither a preflight nor a stranger is worth a question");
    let right = "Authorization: Basic Ym9iOnNlY3JldA==\r\nOrigin: https://app.example\r\n";
    assert_eq!(ask(&mut client, "GET", "/", right).status, 200);
    let asked = auth.wait_requests(1);
    assert_eq!((asked.header("remote-user").as_deref(), asked.header("authorization")), (Some("bob"), None));
    let received = app.wait_requests(1);
    assert_eq!(received.header("remote-user").as_deref(), Some("bob"));
    assert_eq!(received.header("remote-groups").as_deref(), Some("staff"));
    let refused = ask(&mut client, "GET", "/", &format!("{right}Cookie: want=403\r\n"));
    assert_eq!((refused.status, refused.text()), (403, "no"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(refused.header("ratelimit").is_some());
    assert_eq!(ask(&mut client, "GET", "/", right).status, 200);
    assert_eq!(ask(&mut client, "GET", "/", right).status, 429);
    assert_eq!(auth.requests().len(), 3);
}

#[test]
fn a_service_that_speaks_uwsgi_is_asked_the_same() {
    let vars = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&vars);
    let auth = Worker::unix(move |visit| {
        let Some(packet) = visit.packet() else { return };
        seen.lock().unwrap().push(packet);
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRemote-User: ann\r\n\r\n");
    });
    let app = app();
    let gateway = Gateway::start(&config(&app.endpoint(), &auth.endpoint_in(Protocol::Uwsgi), "", FORWARD));
    assert_eq!(ask(&mut gateway.client(), "PUT", "/a%20b?c", "Content-Length: 0\r\n").status, 200);
    let vars = vars.lock().unwrap();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/verify"),
        ("HTTP_X_FORWARDED_METHOD", "PUT"),
        ("HTTP_X_FORWARDED_URI", "/a%20b?c"),
        ("HTTP_X_ORIGINAL_URI", "/a%20b?c"),
    ] {
        assert_eq!(vars[0].get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(app.wait_requests(1).header("remote-user").as_deref(), Some("ann"));
}

#[test]
fn what_is_asked_changes_with_a_reload() {
    let (app, auth) = (app(), verdicts());
    let text = config(&app.endpoint(), &auth.endpoint(), "", FORWARD);
    let gateway = Gateway::start(&text);
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    gateway.reload(&text.replace("/verify", "/other?x=y").replace(", Remote-Groups", ""));
    let forged = "Remote-Groups: admin\r\n";
    assert_eq!(ask(&mut client, "GET", "/", forged).status, 200);
    assert_eq!(auth.wait_requests(2).line(), "GET /other?x=y HTTP/1.1");
    let received = app.wait_requests(2);
    assert_eq!(received.header("remote-user").as_deref(), Some("ann"));
    assert_eq!(received.header("remote-groups").as_deref(), Some("admin"), "it is nobody's name any more");
}

/// Logs in at the shop. The cookie of the session.
fn log_in(client: &mut Client) -> String {
    client.send("GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let form = client.response("GET");
    let token = form.text().split("csrfmiddlewaretoken\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let body = format!("csrfmiddlewaretoken={}&name=Ada", token.unwrap_or_else(|| panic!("no form: {form:?}")));
    let cookie = |response: &Response, name: &str| {
        let found = cookies(response).into_iter().find(|cookie| cookie.starts_with(name)).map(str::to_owned);
        found.and_then(|cookie| cookie.split(';').next().map(str::to_owned)).unwrap_or_else(|| panic!("{response:?}"))
    };
    let fields = format!(
        "Cookie: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        cookie(&form, "csrftoken="),
        body.len()
    );
    client.send(format!("POST /login HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}"));
    let response = client.response("POST");
    assert_eq!(response.status, 302, "{response:?}");
    cookie(&response, "sessionid=")
}

#[test]
fn one_worker_of_the_app_says_who_may_pass_and_serves_them_through_a_restart() {
    let mut gunicorn = Gunicorn::start(1);
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - hosts: [localhost]\n    routes:\n      \
         - {{ path: /login, proxy: app }}\n      \
         - {{ path: /, proxy: app, auth: {{ forward: {{ upstream: app, path: /may-pass, headers: [Remote-User] }} }} }}\n",
        gunicorn.endpoint()
    ));
    let localhost = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let mut client = gateway.client();
    client.send(localhost("/environ", "Remote-User: root\r\n"));
    let stranger = client.response("GET");
    assert_eq!((stranger.status, stranger.header("location")), (302, Some("/login")), "{stranger:?}");
    let session = log_in(&mut gateway.client());
    let known = format!("Cookie: {session}\r\nRemote-User: root\r\nREMOTE_USER: root\r\n");
    client.send(localhost("/environ", &known));
    let environ = client.response("GET");
    assert_eq!(environ.status, 200, "{environ:?}");
    let environ: Value = serde_json::from_str(environ.text()).unwrap();
    assert_eq!((&environ["HTTP_REMOTE_USER"], environ.get("HTTP_X_ORIGINAL_URI")), (&"Ada".into(), None));
    // More at once than there are workers: each of them needs one twice, and none keeps one while it waits for the other.
    let mut clients: Vec<Client> = (0..12).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| client.send(localhost("/work?ms=1", &known)));
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    gateway.wait_idle();
    // A deploy: nobody is refused because nobody can be asked.
    gunicorn.stop();
    client.send(localhost("/work?ms=1", &known));
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    gunicorn.start_again();
    assert_eq!(client.response("GET").status, 200);
    let body = "x".repeat(100_000);
    let length = format!("Content-Length: {}\r\n", body.len());
    client.send(localhost("/work?ms=1", &(known + &length)).replacen("GET", "POST", 1) + &body);
    assert_eq!(client.response("POST").status, 200);
}
