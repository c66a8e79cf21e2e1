//! Answers that an app hands over to the edge, from scripted workers: the worker is free at the head, whatever it announces,
//! and what it says is done. Real servers and files are in `downloads`.

use crate::support::client::{get, post};
use crate::support::h2_worker::{H2Worker, send};
use crate::support::worker::{LINKS, Protocol, Transport};
use crate::support::{Gateway, Latch, Response, Visit, Worker};

/// `routes` stand before everything that is asked of the app.
fn site(endpoint: &str, upstream: &str, routes: &str) -> String {
    format!(
        "upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 1, {upstream} }}\nsites:\n  - routes:\n{routes}      \
         - {{ path: /, proxy: app }}\n"
    )
}

/// The app may lead to `/protected/`.
const PROTECTED: &str = "      - { path: /protected/, internal: true, respond: { body: the file } }\n";

fn before(endpoint: &str) -> Gateway {
    Gateway::start(&site(endpoint, "abandon: 20s", PROTECTED))
}

/// An answer that leads to `/protected/a`, with these further lines of its head.
fn leading(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /protected/a\r\nContent-Type: application/pdf\r\n{lines}\r\n")
}

/// What a worker does after the head of its answer.
type After = fn(&mut Visit);

/// The gateway's end of the connection, not before the other side has said that it will ask no more.
fn no_more(visit: &mut Visit) {
    visit.wait_closed();
}

const AFTER: &[(&str, &str, After)] = &[
    ("django-sendfile2 on a sync worker", "Content-Length: 100000\r\nConnection: close\r\n", Visit::leave),
    ("the same on a worker that waits for the next request", "Content-Length: 100000\r\n", no_more),
    ("a body that comes all the same", "Content-Length: 3000000\r\n", |visit| {
        visit.send(vec![b'x'; 3_000_000]);
        visit.wait_closed();
    }),
    ("a part of it", "Content-Length: 100000\r\n", |visit| {
        visit.send("part");
        visit.leave();
    }),
    ("a reset in the middle", "Content-Length: 100000\r\n", |visit| {
        visit.send("part");
        visit.reset();
    }),
    ("an empty body", "Content-Length: 0\r\nConnection: close\r\n", Visit::leave),
    ("chunks", "Transfer-Encoding: chunked\r\nConnection: close\r\n", |visit| {
        visit.send("3\r\nabc\r\n0\r\n\r\n");
        visit.wait_closed();
    }),
    ("chunks that never come", "Transfer-Encoding: chunked\r\n", no_more),
    ("a body as long as the connection", "", |visit| {
        visit.send("abc");
        visit.leave();
    }),
    ("a stream", "X-Accel-Buffering: no\r\n", no_more),
];

#[test]
fn a_worker_is_free_at_the_head_whatever_it_announces() {
    for (protocol, transport) in LINKS {
        for (what, lines, after) in AFTER {
            // uWSGI knows no chunks.
            if protocol == Protocol::Uwsgi && lines.contains("chunked") {
                continue;
            }
            let (lines, after) = (*lines, *after);
            let worker = Worker::start(transport, move |visit| {
                while visit.whole(protocol).is_some() {
                    visit.send(leading(lines));
                    after(visit);
                }
            });
            let gateway = before(&worker.endpoint_in(protocol));
            let mut client = gateway.client();
            for _ in 0..3 {
                let response = client.get("/download");
                let told = (response.status, response.text(), response.header("content-type"));
                assert_eq!(told, (200, "the file", Some("application/pdf")), "{what} {protocol:?} {transport:?}");
                gateway.wait_idle();
            }
            assert_eq!(gateway.metric("hostler_failures_total"), 0.0);
            let log = gateway.log();
            assert!(!log.iter().any(|line| line.contains("WARN")), "{what}: {log:?}");
        }
    }
}

#[test]
fn a_request_with_a_body_becomes_a_get_without() {
    let worker = Worker::unix(|visit| {
        while let Some(request) = visit.request() {
            let leads = request.line().starts_with("POST");
            visit.send(if leads {
                "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /inner/export?of=1\r\nContent-Length: 0\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ninner"
            });
        }
    });
    let inner = "      - { path: /inner/, internal: true, proxy: app }\n";
    let gateway = Gateway::start(&site(&worker.endpoint(), "", inner));
    let mut client = gateway.client();
    client.send(post("/export", "what to export"));
    assert_eq!(client.response("POST").text(), "inner");
    let [asked, handed_on] = &worker.requests()[..] else { panic!("two requests") };
    assert_eq!(asked.body, b"what to export");
    assert_eq!((handed_on.line(), handed_on.body.len()), ("GET /inner/export?of=1 HTTP/1.1", 0));
    assert!(handed_on.all("content-length").is_empty() && handed_on.all("content-type").is_empty());
}

#[test]
fn a_connection_whose_answer_is_not_whole_serves_nobody_again() {
    for (lines, connections) in [("Content-Length: 100\r\n", 3), ("Content-Length: 0\r\n", 1)] {
        let worker = Worker::unix(move |visit| {
            while visit.request().is_some() {
                visit.send(leading(lines));
            }
        });
        let keepalive = site(&worker.endpoint(), "keepalive: { idle: 30s }", PROTECTED);
        let gateway = Gateway::start(&keepalive);
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/download").text(), "the file");
            gateway.wait_idle();
        }
        assert_eq!((worker.connections(), worker.requests().len()), (connections, 3), "{lines}");
    }
}

#[test]
fn a_worker_that_does_not_close_keeps_its_slot_for_a_while_and_nobody_else_waits_for_it() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        if visit.request().is_some() {
            visit.send(leading("Content-Length: 100\r\n"));
            wait.wait();
        }
    });
    let gateway = Gateway::start(&site(&worker.endpoint(), "abandon: 1s", PROTECTED));
    assert_eq!(gateway.client().get("/download").text(), "the file");
    gateway.wait_idle();
    // Given up by the gateway, not by the worker.
    latch.open();
    assert_eq!(gateway.failures("app", "idle_timeout"), 0.0);
}

#[test]
fn over_http2_the_head_is_enough_as_well() {
    for ends in [true, false] {
        let latch = Latch::default();
        let wait = latch.clone();
        let worker = H2Worker::start(move |_, mut respond| {
            let wait = wait.clone();
            async move {
                let head = http::Response::builder()
                    .header("x-accel-redirect", "/protected/a")
                    .header("content-length", "100000")
                    .body(());
                let mut stream = respond.send_response(head.unwrap(), false).unwrap();
                if ends {
                    send(&mut stream, bytes::Bytes::new(), true).await;
                } else {
                    tokio::task::spawn_blocking(move || wait.wait()).await.unwrap();
                    send(&mut stream, bytes::Bytes::from(vec![7; 100_000]), true).await;
                }
                false
            }
        });
        let gateway = before(&worker.endpoint());
        let mut client = gateway.client();
        for _ in 0..2 {
            let response = client.get("/download");
            assert_eq!((response.status, response.text()), (200, "the file"), "{ends}");
            latch.open();
            gateway.wait_idle();
        }
        assert_eq!(gateway.failures("app", "eof_in_body"), 0.0);
    }
}

#[test]
fn who_leads_in_circles_is_told_so() {
    let worker = Worker::answering(
        Transport::Unix,
        "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /inner/again\r\nContent-Length: 0\r\n\r\n",
    );
    let inner = "      - { path: /inner/, internal: true, proxy: app }\n";
    let gateway = Gateway::start(&site(&worker.endpoint(), "", inner));
    let response = gateway.client().get("/download");
    assert_eq!((response.status, worker.requests().len()), (500, 11));
    assert_eq!(gateway.access_of(&response)["reason"], "too_many_hops");
    gateway
        .log_event("the circle", |event| event["message"].as_str().is_some_and(|text| text.contains("/inner/again")));
    gateway.wait_idle();
}

/// An answer of `GET /` when the app says this.
fn said(fields: &'static str, routes: &str) -> (Response, Gateway, Worker) {
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    let worker = Worker::answering(Transport::Unix, answer);
    let gateway = Gateway::start(&site(&worker.endpoint(), "", routes));
    (gateway.client().get("/download?token=secret"), gateway, worker)
}

fn log_of(gateway: &Gateway, parts: &[&str]) {
    gateway.log_event(&parts.join(" "), |event| {
        let text = event.to_string();
        parts.iter().all(|part| text.contains(part))
    });
}

#[test]
fn what_leads_nowhere_has_a_reason_and_the_log_names_both_ends() {
    for (fields, status, reason, parts) in [
        ("X-Accel-Redirect: /protected/a\r\n", 404, "no_route", &["/protected/a", "/download", "no_route"][..]),
        ("X-Accel-Redirect: @media\r\n", 502, "accel_refused", &["@media", "/download", "named locations"]),
        ("X-Accel-Redirect: /hidden/../a\r\n", 502, "accel_refused", &["/hidden/../a", "/download", "two ways"]),
        ("X-Accel-Redirect: https://x.example/\r\n", 502, "accel_refused", &["x.example", "begin with a slash"]),
    ] {
        let routes = "      - { path: /hidden/, internal: true, respond: { body: ok } }\n      \
                      - { path: /download, proxy: app }\n      - { path: /none, proxy: app }\n";
        // No route takes the rest.
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}Set-Cookie: s=1\r\nContent-Length: 0\r\n\r\n");
        let worker = Worker::answering(Transport::Unix, answer);
        let config = site(&worker.endpoint(), "", routes).replace("      - { path: /, proxy: app }\n", "");
        let gateway = Gateway::start(&config);
        let response = gateway.client().get("/download?token=secret");
        assert_eq!((response.status, response.header("set-cookie")), (status, Some("s=1")), "{fields}");
        assert_eq!(gateway.access_of(&response)["reason"], reason, "{fields}");
        log_of(&gateway, parts);
        assert!(!gateway.log().iter().any(|line| line.contains("secret")), "a query is nobody's to read");
    }
}

#[test]
fn a_download_that_no_route_follows_is_told_with_what_to_write() {
    for (fields, routes, parts) in [
        ("X-Accel-Redirect: /protected/a\r\n", "", &["/protected/a", "internal: true"][..]),
        ("X-Sendfile: /srv/media/a\r\n", PROTECTED, &["/srv/media/a", "sendfile: { roots:"]),
        ("X-LIGHTTPD-send-file: /srv/media/a\r\n", "", &["/srv/media/a", "sendfile: { roots:"]),
    ] {
        let (response, gateway, _worker) = said(fields, routes);
        assert_eq!((response.status, response.text()), (200, ""), "{fields}");
        let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!names.iter().any(|name| name.starts_with("x-accel") || name.contains("send")), "{names:?}");
        log_of(&gateway, parts);
    }
}

#[test]
fn a_field_that_stands_there_twice_is_told_and_the_first_counts() {
    let (response, gateway, _worker) =
        said("X-Accel-Redirect: /protected/a\r\nX-Accel-Redirect: @nobody\r\n", PROTECTED);
    assert_eq!(response.text(), "the file");
    log_of(&gateway, &["x-accel-redirect", "more than once"]);
}

#[test]
fn no_client_leads_anywhere() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp");
    let gateway = before(&worker.endpoint());
    let mut client = gateway.client();
    for (name, value) in [
        ("X-Accel-Redirect", "/protected/a"),
        ("X-Sendfile", "/etc/passwd"),
        ("X-LIGHTTPD-send-file", "/etc/passwd"),
        ("X-Sendfile-Type", "X-Accel-Redirect"),
        ("X-Accel-Mapping", "/=/protected/"),
    ] {
        client.send(get("/a").replace("\r\n\r\n", &format!("\r\n{name}: {value}\r\n\r\n")));
        assert_eq!(client.response("GET").text(), "app");
        let request = worker.requests().pop().unwrap();
        assert!(request.all(&name.to_ascii_lowercase()).is_empty(), "{}", request.head);
    }
    // What is internal is not there for clients: the next route is asked.
    assert_eq!(client.get("/protected/a").text(), "app");
    assert_eq!(worker.requests().pop().unwrap().line(), "GET /protected/a HTTP/1.1");
    assert_eq!(client.get("/protected").text(), "app", "not even redirected");
}

#[test]
fn a_redirect_of_the_target_reaches_the_client_with_the_apps_cookies() {
    let routes =
        "      - { path: /protected/, internal: true, redirect: { to: 'https://cdn.example{path}', status: 302 } }\n";
    let (response, ..) =
        said("X-Accel-Redirect: /protected/a\r\nSet-Cookie: s=1\r\nCache-Control: private\r\n", routes);
    assert_eq!(
        (response.status, response.header("location"), response.header("set-cookie"), response.header("cache-control")),
        (302, Some("https://cdn.example/protected/a"), Some("s=1"), Some("private"))
    );
}

#[test]
fn an_app_that_says_so_is_read_ahead_where_the_route_is_not() {
    const SIZE: usize = 16 << 20;
    for (buffering, is_read_ahead) in [("yes", true), ("YES", true), ("no", false), ("off", false)] {
        let worker = Worker::unix(move |visit| {
            while visit.request().is_some() {
                visit.send(format!(
                    "HTTP/1.1 200 OK\r\nX-Accel-Buffering: {buffering}\r\nContent-Length: {SIZE}\r\n\r\n"
                ));
                visit.send(vec![b'x'; SIZE]);
            }
        });
        let streams = "      - { path: /stream, proxy: app, buffer: { response: false } }\n";
        let gateway = Gateway::start(&site(&worker.endpoint(), "", streams));
        let mut client = gateway.client();
        client.send(get("/stream"));
        assert_eq!(client.head().expect("a head").0, 200);
        let streams = gateway.metric("hostler_streams{upstream=\"app\"}");
        assert_eq!(streams, if is_read_ahead { 0.0 } else { 1.0 }, "{buffering}");
        assert_eq!(client.take(SIZE).expect("the body").len(), SIZE);
        gateway.wait_idle();
    }
}
