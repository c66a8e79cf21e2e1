//! Workers that are spoken to in uwsgi: uWSGI, gunicorn, and one that lies.

use std::path::Path;
use std::sync::mpsc;

use serde_json::Value;

use crate::support::client::{End, get, post};
use crate::support::h2::request;
use crate::support::uwsgi::Program;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, H2, Response, Uwsgi, Worker};

const SERVERS: [(Program, Transport); 4] = [
    (Program::Uwsgi, Transport::Tcp),
    (Program::Uwsgi, Transport::Unix),
    (Program::Gunicorn, Transport::Tcp),
    (Program::Gunicorn, Transport::Unix),
];

fn before(endpoint: &str) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{endpoint}\"], workers: 2"))
}

/// Each server and a gateway in front of it.
fn each(check: impl Fn(Program, &Uwsgi, &Gateway)) {
    for (server, transport) in SERVERS {
        let app = Uwsgi::start(server, transport);
        let gateway = before(&app.endpoint());
        check(server, &app, &gateway);
        gateway.wait_idle();
    }
}

/// The same request over both of the protocols that clients speak.
fn both(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)]) -> [Response; 2] {
    let mut client = gateway.client();
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n"));
    [client.response(method), gateway.h2().send(request(method, path, fields), b"")]
}

fn environ(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text()).unwrap()
}

#[test]
fn the_app_sees_the_request_as_it_was_made() {
    each(|server, _, gateway| {
        // gunicorn decodes a path that is decoded already, as latin-1: only ASCII without `%` comes out of that unharmed.
        let (path, path_info) = match server {
            Program::Uwsgi => ("/a%2Fb/caf%C3%A9%20au%25lait?q=%2F+1&empty=", "/a/b/caf\u{c3}\u{a9} au%lait"),
            Program::Gunicorn => ("/a%2Fb/coffee%20with%3Bmilk?q=%2F+1&empty=", "/a/b/coffee with;milk"),
        };
        for (response, protocol) in
            both(gateway, "PUT", path, &[("accept", "a"), ("x-custom", "1")]).iter().zip(["HTTP/1.1", "HTTP/2.0"])
        {
            let environ = environ(response);
            let mut expected = vec![
                ("REQUEST_METHOD", "PUT"),
                // Bytes as latin-1, as PEP 3333 has them.
                ("PATH_INFO", path_info),
                ("QUERY_STRING", "q=%2F+1&empty="),
                ("SCRIPT_NAME", ""),
                ("CONTENT_LENGTH", "0"),
                ("wsgi.url_scheme", "http"),
                ("HTTP_HOST", "shop.example"),
                ("HTTP_ACCEPT", "a"),
                ("HTTP_X_CUSTOM", "1"),
                ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
                ("HTTP_X_REAL_IP", "127.0.0.1"),
                ("HTTP_X_FORWARDED_PROTO", "http"),
                ("HTTP_X_FORWARDED_HOST", "shop.example"),
                ("HTTP_X_REQUEST_ID", response.id()),
            ];
            let port = gateway.address().port().to_string();
            // gunicorn takes these from the connection, which is ours.
            if server == Program::Uwsgi {
                expected.extend([("REMOTE_ADDR", "127.0.0.1"), ("SERVER_NAME", "shop.example")]);
                expected.extend([("SERVER_PORT", &*port), ("SERVER_PROTOCOL", protocol), ("REQUEST_URI", path)]);
            }
            for (name, value) in expected {
                assert_eq!(environ[name], value, "{server:?}: {name} in {environ:#}");
            }
            assert!(environ.get("HTTPS").is_none(), "{environ:#}");
        }
    });
}

#[test]
fn a_path_that_gunicorn_would_decode_twice_is_refused() {
    each(|server, _, gateway| {
        for path in ["/%2561dmin/", "/a%25%36%31/b?c", "/%25252e/"] {
            for response in both(gateway, "GET", path, &[]) {
                assert_eq!(response.status, 400, "{server:?}: {path}");
                assert_eq!(gateway.access_of(&response)["reason"], "bad_target", "{server:?}: {path}");
            }
        }
        let told = |event: &Value| event.to_string().contains("servers that speak uwsgi read it in two ways");
        gateway.log_event("why it was refused", told);
        for path in ["/100%25", "/%25/a", "/%25zz", "/a?b=%2561"] {
            assert!(
                both(gateway, "GET", path, &[]).iter().all(|response| response.status == 200),
                "{server:?}: {path}"
            );
        }
    });
}

#[test]
fn nothing_forged_reaches_the_app() {
    let fields = [
        ("x-forwarded-for", "forged"),
        ("x-forwarded-proto", "forged"),
        ("x-forwarded-ssl", "on, forged"),
        ("x_forwarded_proto", "forged"),
        ("remote_addr", "forged"),
        ("uwsgi_file", "forged"),
        ("script-name", "forged"),
        ("script_name", "forged"),
        ("proxy", "forged"),
        ("forwarded", "for=forged"),
    ];
    each(|_, _, gateway| {
        for response in both(gateway, "GET", "/", &fields) {
            let environ = environ(&response);
            let values = environ.as_object().unwrap().values().filter_map(Value::as_str);
            assert_eq!(values.filter(|value| value.contains("forged")).count(), 0, "{environ:#}");
            assert_eq!((&environ["wsgi.url_scheme"], &environ["QUERY_STRING"]), (&"http".into(), &"".into()));
        }
    });
}

#[test]
fn over_tls_the_app_knows_that_it_is_https() {
    for (server, transport) in SERVERS {
        let app = Uwsgi::start(server, transport);
        let gateway = Gateway::start(&format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
             upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
            app.endpoint()
        ));
        let mut client = Client::tls(gateway.address(), "localhost", &gateway.root());
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: http\r\n\r\n");
        let h2 = H2::tls(gateway.address(), "localhost", &gateway.root());
        let over_h2 = h2.send(http::Request::get("https://localhost/").body(()).unwrap(), b"");
        for response in [client.response("GET"), over_h2] {
            let environ = environ(&response);
            assert_eq!(environ["wsgi.url_scheme"], "https", "{server:?}: {environ:#}");
            assert_eq!(environ["HTTP_X_FORWARDED_PROTO"], "https");
        }
        gateway.wait_idle();
    }
}

#[test]
fn bodies_arrive_whole_whatever_framing_they_came_in() {
    let body: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    each(|server, _, gateway| {
        let mut client = gateway.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        let sized = client.response("POST");
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(300_000) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        let chunked = client.response("POST");
        let over_h2 = gateway.h2().send(request("POST", "/echo", &[]), &body);
        for response in [sized, chunked, over_h2] {
            assert!(response.status == 200 && response.cut.is_none(), "{server:?}: {}", response.status);
            assert!(response.body == body, "{server:?}: {} bytes came back", response.body.len());
        }
    });
}

#[test]
fn an_answer_of_unknown_length_ends_with_the_workers_connection() {
    each(|server, _, gateway| {
        let mut client = gateway.client();
        for _ in 0..2 {
            // The client's own connection lives on.
            let response = client.get("/unframed");
            assert!(response.text() == "as long as it takes" && response.cut.is_none(), "{server:?}: {response:?}");
        }
        assert_eq!(gateway.h2().get("/unframed").text(), "as long as it takes", "{server:?}");
        client.send("HEAD /unframed HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("HEAD").status, 200);
        assert_eq!(client.get("/unframed").text(), "as long as it takes", "after HEAD");
    });
}

#[test]
fn an_answer_to_a_body_that_the_app_has_not_read_is_whole_over_a_unix_socket() {
    for server in [Program::Uwsgi, Program::Gunicorn] {
        let app = Uwsgi::start(server, Transport::Unix);
        let gateway = before(&app.endpoint());
        for length in [10, 60_000, 1 << 20] {
            // What has not been read when the worker closes, the kernel tells by a reset.
            let mut client = gateway.client();
            client.send(post("/unframed", &"b".repeat(length)));
            let over_h2 = gateway.h2().send(request("POST", "/unframed", &[]), &vec![b'b'; length]);
            for response in [client.response("POST"), over_h2] {
                assert!(response.text() == "as long as it takes" && response.cut.is_none(), "{server:?}: {response:?}");
            }
        }
        gateway.wait_idle();
    }
}

#[test]
fn an_answer_to_a_body_that_the_app_has_not_read_is_whole_or_cut_over_tcp() {
    for server in [Program::Uwsgi, Program::Gunicorn] {
        let app = Uwsgi::start(server, Transport::Tcp);
        let gateway = before(&app.endpoint());
        for length in [10, 60_000, 1 << 20, 8 << 20] {
            let mut client = gateway.client();
            client.send(post("/unframed", &"b".repeat(length)));
            let over_h2 = gateway.h2().send(request("POST", "/unframed", &[]), &vec![b'b'; length]);
            for response in [client.response("POST"), over_h2] {
                let is_whole = response.text() == "as long as it takes";
                assert!(is_whole || response.cut.is_some() || response.status == 502, "{server:?}: {response:?}");
            }
        }
        gateway.wait_idle();
    }
}

#[test]
fn a_reset_over_tcp_is_a_cut_and_the_log_says_what_helps() {
    let worker = Worker::tcp(|visit| {
        visit.packet();
        visit.send("HTTP/1.1 200 OK\r\n\r\nall but the last wo");
        visit.reset();
    });
    let gateway = before(&worker.uwsgi_endpoint());
    let mut client = gateway.client();
    client.send(post("/", &"b".repeat(60_000)));
    let response = client.response("POST");
    assert!(response.status == 200 && response.cut.is_some(), "{response:?}");
    let event = gateway.log_event("eof_in_body", |event| event["reason"] == "eof_in_body");
    assert!(event["message"].as_str().unwrap().contains("post-buffering"), "{event}");
    gateway.wait_idle();
}

#[test]
fn a_reset_without_a_body_to_leave_unread_is_a_cut() {
    let worker = Worker::tcp(|visit| {
        visit.packet();
        visit.send("HTTP/1.1 200 OK\r\n\r\npart");
        visit.reset();
    });
    let gateway = before(&worker.uwsgi_endpoint());
    for response in both(&gateway, "GET", "/", &[]) {
        assert!(response.status == 200 && response.cut.is_some(), "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], "eof_in_body");
    }
    gateway.wait_idle();
}

#[test]
fn a_cut_answer_is_cut_for_the_client_too() {
    each(|server, _, gateway| {
        for response in both(gateway, "GET", "/cut", &[]) {
            assert!(response.status == 200 && response.cut.is_some(), "{server:?}: {response:?}");
            assert_eq!(gateway.access_of(&response)["reason"], "eof_in_body");
        }
    });
}

#[test]
fn an_app_that_fails_before_its_head_leaves_a_named_reason() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let app = Uwsgi::start(Program::Uwsgi, transport);
        let gateway = before(&app.endpoint());
        let mut client = gateway.client();
        client.send(post("/fail", ""));
        let response = client.response("POST");
        assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (502, &"eof_before_head".into()));
        let event = gateway.log_event("eof_before_head", |event| event["reason"] == "eof_before_head");
        let message = event["message"].as_str().unwrap();
        for cause in ["raised before start_response", "harakiri", "buffer-size"] {
            assert!(message.contains(cause), "{message}");
        }
        app.wait_log("RuntimeError: before the head");
        gateway.wait_idle();
    }
}

#[test]
fn a_head_that_does_not_fit_is_refused_with_the_name_of_what_is_too_large() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let app = Uwsgi::start(Program::Uwsgi, transport);
        let gateway = before(&app.endpoint());
        let cookie = format!("session={}", "c".repeat(5_000));
        for response in both(&gateway, "GET", "/", &[("accept", "*/*"), ("cookie", &cookie)]) {
            assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (431, &"vars_too_large".into()));
        }
        let event = gateway.log_event("vars_too_large", |event| event["reason"] == "vars_too_large");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("the header `cookie` with 5008 bytes"), "{message}");
        gateway.wait_failures("app", "vars_too_large", 2.0);
        // As large as fits: the limit is uWSGI's own.
        let fits = format!("session={}", "c".repeat(3_000));
        for response in both(&gateway, "GET", "/", &[("cookie", &fits)]) {
            assert_eq!(environ(&response)["HTTP_COOKIE"], fits);
        }
        gateway.wait_idle();
    }
}

#[test]
fn no_connection_to_a_worker_is_used_twice() {
    let worker = Worker::unix(|visit| {
        while visit.packet().is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok");
            visit.leave();
        }
    });
    let gateway = before(&worker.uwsgi_endpoint());
    let mut client = gateway.client();
    for count in 1..=3 {
        assert_eq!(client.get("/").text(), "ok");
        gateway.wait_idle();
        assert_eq!(worker.connections(), count);
    }
}

#[test]
fn heads_in_the_manner_of_cgi_are_answers_too() {
    for transport in [Transport::Tcp, Transport::Unix] {
        for (answer, status, text) in [
            ("Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnot here", 404, "not here"),
            ("Location: /elsewhere\r\n\r\n", 302, ""),
            ("Content-Type: text/plain\r\n\r\nplain", 200, "plain"),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
            // No framing here: the bytes are the app's.
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "2\r\nok\r\n0\r\n\r\n"),
        ] {
            let worker = Worker::start(transport, move |visit| {
                visit.packet();
                visit.send(answer);
            });
            let gateway = before(&worker.uwsgi_endpoint());
            for response in both(&gateway, "GET", "/", &[]) {
                assert_eq!((response.status, response.text()), (status, text), "{answer:?}");
                assert!(response.cut.is_none() && response.header("status").is_none(), "{response:?}");
            }
            gateway.wait_idle();
        }
    }
}

#[test]
fn an_app_that_frames_its_body_itself_has_its_bytes_passed_on_as_they_are() {
    let app = Uwsgi::start(Program::Uwsgi, Transport::Unix);
    let gateway = before(&app.endpoint());
    for response in both(&gateway, "GET", "/chunked", &[]) {
        assert_eq!(response.text(), "2\r\nok\r\n0\r\n\r\n");
    }
    gateway.wait_idle();
}

#[test]
fn a_worker_that_does_not_keep_to_the_protocol_is_found_out() {
    for transport in [Transport::Tcp, Transport::Unix] {
        for (answer, reason) in [
            ("", "eof_before_head"),
            ("HTTP/1.1 200 OK\r\nContent-", "eof_in_head"),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", "bad_head"),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "bad_head"),
            ("Status: twohundred\r\n\r\n", "bad_head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "bad_head"),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "bad_head"),
        ] {
            let worker = Worker::start(transport, move |visit| {
                visit.packet();
                visit.send(answer);
            });
            let gateway = before(&worker.uwsgi_endpoint());
            let mut client = gateway.client();
            client.send(post("/", ""));
            let response = client.response("POST");
            assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (502, &reason.into()), "{answer:?}");
            assert_eq!(worker.connections(), 1, "a POST is not sent twice");
            gateway.wait_idle();
        }
    }
}

#[test]
fn a_reset_before_the_head_names_the_likely_causes() {
    let worker = Worker::tcp(|visit| {
        visit.packet();
        visit.reset();
    });
    let gateway = before(&worker.uwsgi_endpoint());
    let mut client = gateway.client();
    client.send(post("/", ""));
    let response = client.response("POST");
    assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (502, &"reset_before_head".into()));
    let event = gateway.log_event("reset_before_head", |event| event["reason"] == "reset_before_head");
    assert!(event["message"].as_str().unwrap().contains("buffer-size"), "{event}");
    gateway.wait_idle();
}

#[test]
fn a_body_is_sent_only_when_it_is_whole() {
    let (arrived, arrivals) = mpsc::channel();
    let worker = Worker::unix(move |visit| {
        if let Some(vars) = visit.packet() {
            let length = vars["CONTENT_LENGTH"].parse().unwrap();
            let body = visit.body(length);
            arrived.send((length, body.len())).unwrap();
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = before(&worker.uwsgi_endpoint());
    let mut leaves = gateway.client();
    leaves.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    leaves.finish();
    assert_eq!(leaves.end(), End::Closed);
    let mut client = gateway.client();
    client.send(post("/", "whole"));
    assert_eq!(client.response("POST").text(), "ok");
    assert_eq!((arrivals.recv().unwrap(), worker.connections()), ((5, 5), 1), "nothing came of the other");
    gateway.wait_idle();
}

#[test]
fn an_endpoint_of_each_protocol_gets_its_own_head() {
    let app = Uwsgi::start(Program::Uwsgi, Transport::Unix);
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhttp");
    let gateway = Gateway::before(&format!(
        "endpoints: [\"unix:./nobody.sock\", \"{}\", \"{}\"], workers: 2, balance: round_robin",
        app.endpoint(),
        worker.endpoint()
    ));
    let mut client = gateway.client();
    let mut answers = Vec::new();
    for _ in 0..6 {
        client.send(get("/"));
        let response = client.response("GET");
        assert_eq!(response.status, 200, "{response:?}");
        answers.push(response.text() == "http");
    }
    assert!(answers.contains(&true) && answers.contains(&false), "{answers:?}");
    gateway.wait_idle();
}

#[test]
fn the_settings_in_deploy_serve() {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/uwsgi.ini");
    let app = Uwsgi::with_settings(&settings);
    // The upstream that they name.
    let gateway =
        Gateway::before(&format!("endpoints: [\"{}\"], workers: 4, uwsgi: {{ buffer_size: 32768 }}", app.endpoint()));
    let cookie = format!("wide={}", "c".repeat(20_000));
    for response in both(&gateway, "GET", "/environ?a=b", &[("cookie", &cookie)]) {
        let environ = environ(&response);
        assert_eq!((&environ["QUERY_STRING"], &environ["HTTP_COOKIE"]), (&"a=b".into(), &cookie.as_str().into()));
    }
    gateway.wait_idle();
}

/// An app under `/api`, at this endpoint.
fn mounted(endpoint: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\n\
         sites:\n  - routes: [{{ path: /api/, proxy: app, mount: /api }}]\n"
    ))
}

#[test]
fn an_app_under_a_prefix_knows_it_over_either_protocol() {
    let uwsgi = Uwsgi::start(Program::Uwsgi, Transport::Unix);
    let gunicorn = Gunicorn::start(1);
    for endpoint in [uwsgi.endpoint(), gunicorn.endpoint()] {
        let gateway = mounted(&endpoint);
        for path in ["/api/environ?a=b", "/%61pi/environ?a=b", "/api%2Fenviron?a=b"] {
            let mut client = gateway.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let environ = environ(&client.response("GET"));
            for (name, value) in [
                ("SCRIPT_NAME", "/api"),
                ("PATH_INFO", "/environ"),
                ("QUERY_STRING", "a=b"),
                ("HTTP_X_FORWARDED_PREFIX", "/api"),
            ] {
                assert_eq!(environ[name], value, "{name} of {path} at {endpoint}: {environ:#}");
            }
        }
        gateway.wait_idle();
    }
}

#[test]
fn host_and_prefix_of_the_upstream_replace_the_clients() {
    let app = Uwsgi::start(Program::Uwsgi, Transport::Unix);
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let to = |endpoint: &str| {
        Gateway::before(&format!("endpoints: [\"{endpoint}\"], workers: 2, host: api.internal, prefix: /stage"))
    };
    let gateway = to(&app.endpoint());
    for response in both(&gateway, "GET", "/a%20b?c", &[]) {
        let environ = environ(&response);
        for (name, value) in [
            ("HTTP_HOST", "api.internal"),
            ("HTTP_X_FORWARDED_HOST", "shop.example"),
            ("PATH_INFO", "/stage/a b"),
            ("REQUEST_URI", "/stage/a%20b?c"),
            ("SCRIPT_NAME", ""),
        ] {
            assert_eq!(environ[name], value, "{name} in {environ:#}");
        }
    }
    let gateway = to(&worker.endpoint());
    both(&gateway, "GET", "/a%20b?c", &[]);
    for received in worker.requests() {
        assert_eq!(received.line(), "GET /stage/a%20b?c HTTP/1.1");
        assert_eq!(
            (received.all("host"), received.all("x-forwarded-host")),
            (vec!["api.internal".into()], vec!["shop.example".into()])
        );
    }
    gateway.wait_idle();
}
