//! `https://` endpoints: whom the gateway believes, and what the worker hears of it.

use crate::support::Gateway;
use crate::support::client::post;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::tls_worker::{After, Ca, Greeting, LONG, TlsWorker, closing, serve_one};
use crate::support::worker::Transport;

fn before(endpoint: &str, tls: &str, more: &str) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{endpoint}\"], workers: 1, tls: {{ {tls} }}{more}"))
}

fn ca(ca: &Ca) -> String {
    format!("ca: \"{}\"", ca.file().display())
}

#[test]
fn a_worker_whose_certificate_is_signed_for_its_host_is_believed() {
    let authority = Ca::new();
    for (host, sni) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let worker = TlsWorker::start(authority.server(host), After::Next);
        let gateway = before(&worker.endpoint(host), &ca(&authority), "");
        assert_eq!(gateway.client().get("/").text(), "ok");
        let expected = Greeting { sni: sni.map(str::to_owned), alpn: Some("http/1.1".to_owned()), is_resumed: false };
        assert_eq!(worker.greetings(), [expected]);
    }
}

#[test]
fn server_name_stands_for_the_host_in_sni_and_certificate() {
    let authority = Ca::new();
    let worker = TlsWorker::start(authority.server("api.internal"), After::Next);
    let tls = format!("{}, server_name: api.internal", ca(&authority));
    let gateway = before(&worker.endpoint("127.0.0.1"), &tls, "");
    assert_eq!(gateway.client().get("/").text(), "ok");
    assert_eq!(worker.greetings()[0].sni.as_deref(), Some("api.internal"));
}

#[test]
fn a_certificate_that_proves_nothing_ends_as_tls_failed_and_says_why() {
    let (authority, stranger) = (Ca::new(), Ca::new());
    for (config, why) in [
        (authority.server("other.example"), "not valid for name"),
        (stranger.server("localhost"), "UnknownIssuer"),
        (authority.expired_server("localhost"), "expired"),
    ] {
        let worker = TlsWorker::start(config, After::Next);
        let gateway = before(&worker.endpoint("localhost"), &ca(&authority), "");
        let mut client = gateway.client();
        client.send(post("/", "order"));
        let response = client.response("POST");
        assert_eq!(response.status, 502, "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], "tls_failed");
        let event = gateway.log_event(why, |event| event["reason"] == "tls_failed");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains(why) && message.contains("https://localhost"), "{message}");
    }
    let worker = TlsWorker::start(stranger.server("localhost"), After::Next);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint("localhost")));
    assert_eq!(gateway.client().get("/").status, 502, "the system does not trust the CA of a test");
}

#[test]
fn a_certificate_that_has_signed_itself_is_its_own_authority() {
    let authority = Ca::new();
    let (config, file) = authority.alone("localhost");
    let worker = TlsWorker::start(config, After::Next);
    let gateway = before(&worker.endpoint("localhost"), &format!("ca: \"{}\"", file.display()), "");
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn without_verification_anybody_is_believed() {
    let worker = TlsWorker::start(Ca::new().expired_server("other.example"), After::Next);
    let gateway = before(&worker.endpoint("localhost"), "verify: false", "");
    assert_eq!(gateway.client().get("/").text(), "ok");
}

#[test]
fn an_idle_connection_is_used_again_in_spite_of_what_tls_itself_has_to_say() {
    let authority = Ca::new();
    for after in [After::Next, After::Rekey] {
        let worker = TlsWorker::start(authority.server("localhost"), after);
        let gateway = before(&worker.endpoint("localhost"), &ca(&authority), ", keepalive: { idle: 30s }");
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "ok");
            gateway.wait_idle();
            client.send(post("/", "order"));
            assert_eq!(client.response("POST").text(), "ok");
            gateway.wait_idle();
        }
        assert_eq!(worker.greetings().len(), 1);
    }
}

#[test]
fn a_connection_the_worker_has_cut_is_not_used_again_and_the_next_resumes_its_session() {
    let authority = Ca::new();
    let worker = TlsWorker::start(authority.server("localhost"), After::Cut);
    let gateway = before(&worker.endpoint("localhost"), &ca(&authority), ", keepalive: { idle: 30s }");
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
        gateway.wait_idle();
    }
    let resumed: Vec<bool> = worker.greetings().iter().map(|greeting| greeting.is_resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}

#[test]
fn what_came_in_the_last_record_of_an_answer_is_not_lost_sight_of() {
    let authority = Ca::new();
    for (after, length) in [(After::Surplus, LONG), (After::Goodbye, 2)] {
        let worker = TlsWorker::start(authority.server("localhost"), after);
        let gateway = before(&worker.endpoint("localhost"), &ca(&authority), ", keepalive: { idle: 30s }");
        let mut client = gateway.client();
        for _ in 0..3 {
            client.send(post("/", "order"));
            let response = client.response("POST");
            assert_eq!((response.status, response.text().len()), (200, length));
            gateway.wait_idle();
        }
        assert_eq!(worker.greetings().len(), 3);
    }
}

#[test]
fn a_handshake_has_longer_than_a_connection_and_the_log_tells_which_was_missing() {
    let authority = Ca::new();
    // Connections wait in its backlog, as they do while gunicorn's workers boot.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let gateway = before(&endpoint, &ca(&authority), ", timeouts: { connect: 100ms, head: 1s }");
    let mut client = gateway.client();
    client.send(post("/", "order"));
    let response = client.response("POST");
    assert_eq!(response.status, 504, "{response:?}");
    assert_eq!(gateway.access_of(&response)["reason"], "connect_timeout");
    let event = gateway.log_event("handshake", |event| event["reason"] == "connect_timeout");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("connected, but no answer to the TLS handshake"), "{message}");
}

#[test]
fn a_worker_that_boots_behind_an_open_port_is_waited_for() {
    let authority = Ca::new();
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = |of: &std::net::TcpListener| format!("https://localhost:{}", of.local_addr().unwrap().port());
    let (booting, silent) = (listen(), listen());
    let patient = before(&endpoint(&booting), &ca(&authority), ", timeouts: { connect: 100ms, head: 60s }");
    let mut client = patient.client();
    client.send(post("/", "order"));
    let (stream, _) = booting.accept().unwrap();
    // Another gateway's end of patience is the event after which the first has passed its time to connect.
    let hasty = before(&endpoint(&silent), &ca(&authority), ", timeouts: { connect: 1s, head: 1s }");
    assert_eq!(hasty.client().get("/").status, 504);
    serve_one(stream, authority.server("localhost"));
    assert_eq!(client.response("POST").text(), "ok");
}

#[test]
fn a_worker_that_closes_in_the_handshake_has_seen_nothing_of_the_request() {
    let authority = Ca::new();
    let gateway = before(&format!("https://localhost:{}", closing().port()), &ca(&authority), "");
    let mut client = gateway.client();
    client.send(post("/", "order"));
    let response = client.response("POST");
    assert_eq!(response.status, 502, "{response:?}");
    let line = gateway.access_of(&response);
    let reason = line["reason"].as_str().unwrap();
    assert!(["eof_before_head", "reset_before_head"].contains(&reason), "{line}");
    assert_eq!(line["retries"], 2, "{line}");
}

#[test]
fn an_authority_that_cannot_be_read_does_not_start() {
    let (code, said) = Gateway::refuse(&crate::support::gateway::before(
        "endpoints: [\"https://localhost\"], workers: 1, tls: { ca: ./missing.pem }",
    ));
    assert!(code != Some(0) && said.contains("missing.pem"), "{code:?} {said}");
}

#[test]
fn gunicorn_is_reached_over_tls() {
    let authority = Ca::new();
    let (cert, key) = authority.files("shop.internal");
    for kind in [Kind::Sync, Kind::Gthread { threads: 2 }] {
        let gunicorn = Plan::new(kind, 1, Transport::Tcp)
            .argument(&format!("--certfile={}", cert.display()))
            .argument(&format!("--keyfile={}", key.display()))
            .variable("SHOP_ALLOWED_HOSTS", "shop.example")
            .start();
        let tls = format!("{}, server_name: shop.internal", ca(&authority));
        let endpoint = gunicorn.endpoint().replace("http://", "https://");
        let gateway = before(&endpoint, &tls, "");
        let mut client = gateway.client();
        for _ in 0..3 {
            let response = client.get("/environ");
            assert_eq!(response.status, 200, "{response:?}");
        }
        let chunks = client.get("/stream?chunks=3&delay=0");
        assert_eq!((chunks.status, chunks.cut), (200, None));
        gateway.wait_idle();
        let warnings: Vec<String> = gateway.log().into_iter().filter(|line| line.contains("WARN")).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
