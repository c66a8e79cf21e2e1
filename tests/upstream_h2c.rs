//! `h2c://` endpoints: HTTP/2 by prior knowledge, with the reasons and retries of HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;

use crate::support::client::post;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2_worker::{H2Worker, Received, answer, send};
use crate::support::worker::Transport;
use crate::support::{Gateway, Latch};

fn before(worker: &H2Worker, more: &str) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1{more}", worker.endpoint()))
}

fn field<'a>(received: &'a Received, name: &str) -> Option<&'a str> {
    received.head.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn requests_and_bodies_of_every_size_pass_over_one_connection() {
    let worker = H2Worker::start(|received, respond| async move {
        answer(respond, received.body).await;
        false
    });
    let gateway = before(&worker, ", keepalive: { idle: 30s }");
    let mut client = gateway.client();
    for size in [0, 1, 100_000, 3_000_000] {
        let body: String = (0..size).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
        client.send(post("/a?b=1", &body));
        let response = client.response("POST");
        assert!(response.status == 200 && response.text() == body, "{size}: {}", response.status);
        gateway.wait_idle();
    }
    client.send("GET /x HTTP/1.1\r\nHost: shop.example\r\nCookie: a=1\r\nX-Forwarded-For: 6.6.6.6\r\nTE: gzip\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response("HEAD").status, 200);
    let received = worker.requests();
    assert!(received.iter().all(|received| received.connection == 0), "one connection");
    let get = &received[4];
    assert_eq!(get.head.uri().to_string(), "http://shop.example/x");
    assert_eq!(
        (field(get, "cookie"), field(get, "x-forwarded-for"), field(get, "te")),
        (Some("a=1"), Some("127.0.0.1"), None)
    );
    assert_eq!(field(get, "x-forwarded-host"), Some("shop.example"));
    assert_eq!(field(&received[3], "content-length"), Some("3000000"));
}

#[test]
fn a_refused_stream_is_sent_again_whatever_the_method() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let worker = H2Worker::start(|_, mut respond| async move {
        if SEEN.fetch_add(1, Ordering::SeqCst) == 0 {
            respond.send_reset(Reason::REFUSED_STREAM);
            return false;
        }
        answer(respond, "ok").await;
        false
    });
    let gateway = before(&worker, "");
    let mut client = gateway.client();
    client.send(post("/", "order"));
    let response = client.response("POST");
    assert_eq!(response.text(), "ok");
    assert_eq!(gateway.access_of(&response)["retries"], 1);
}

#[test]
fn a_stream_that_was_reset_is_sent_again_only_when_that_does_no_harm() {
    let worker = H2Worker::start(|_, mut respond| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
        false
    });
    let gateway = before(&worker, ", retry: { attempts: 1 }");
    let mut client = gateway.client();
    client.send(post("/", "order"));
    let response = client.response("POST");
    assert_eq!((response.status, worker.requests().len()), (502, 1));
    assert_eq!(gateway.access_of(&response)["reason"], "reset_before_head");
    assert_eq!((client.get("/").status, worker.requests().len()), (502, 3));
    gateway.wait_idle();
}

#[test]
fn a_connection_that_says_goodbye_is_not_used_again() {
    let worker = H2Worker::start(|_, respond| async move {
        answer(respond, "ok").await;
        true
    });
    let gateway = before(&worker, ", keepalive: { idle: 30s }");
    let mut client = gateway.client();
    for count in 1..=3 {
        client.send(post("/", "order"));
        let response = client.response("POST");
        assert_eq!((response.text(), worker.requests().len()), ("ok", count));
        gateway.wait_idle();
    }
    assert_eq!(gateway.failures("app", "reset_before_head"), 0.0);
}

#[test]
fn a_body_that_is_cut_is_not_taken_for_whole() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = H2Worker::start(move |_, mut respond| {
        let wait = wait.clone();
        async move {
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            send(&mut stream, Bytes::from_static(b"half"), false).await;
            // Frames that wait are thrown away by a reset.
            tokio::task::spawn_blocking(move || wait.wait()).await.unwrap();
            stream.send_reset(Reason::INTERNAL_ERROR);
            false
        }
    });
    let gateway = before(&worker, "");
    let mut client = gateway.client();
    client.send(crate::support::client::get("/"));
    let (status, _) = client.head().expect("a head");
    assert_eq!((status, client.peek(1).is_empty()), (200, false));
    latch.open();
    gateway.wait_failures("app", "eof_in_body", 1.0);
    assert_eq!(gateway.access_of_path("/")["reason"], "eof_in_body");
    gateway.wait_idle();
}

#[test]
fn a_silent_worker_ends_as_504_and_keeps_its_slot_until_it_has_answered() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = H2Worker::start(move |_, respond| {
        let wait = wait.clone();
        async move {
            tokio::task::spawn_blocking(move || wait.wait()).await.unwrap();
            answer(respond, "late").await;
            false
        }
    });
    let gateway = before(&worker, ", timeouts: { head: 300ms }");
    let response = gateway.client().get("/");
    assert_eq!(response.status, 504);
    assert_eq!(gateway.access_of(&response)["reason"], "head_timeout");
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 1.0);
    latch.open();
    gateway.wait_idle();
}

#[test]
fn a_stream_whose_client_has_left_is_reset_and_its_slot_comes_back() {
    let (sender, told) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let worker = H2Worker::start(move |_, mut respond| {
        let sender = sender.lock().unwrap().clone();
        async move {
            let head = http::Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            send(&mut stream, Bytes::from_static(b"data: 1\n\n"), false).await;
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            sender.send(reason.map(|reason| reason == Reason::CANCEL).unwrap_or(false)).unwrap();
            false
        }
    });
    let gateway = before(&worker, ", abandon: 20s");
    let mut client = gateway.client();
    client.send(crate::support::client::get("/events"));
    assert_eq!(client.head().expect("a head").0, 200);
    assert!(!client.peek(1).is_empty());
    drop(client);
    assert!(told.recv_timeout(crate::support::LIMIT).unwrap(), "the stream was reset as cancelled");
    gateway.wait_idle();
}

#[test]
fn gunicorn_is_reached_over_http2() {
    let gunicorn = Plan::new(Kind::Gthread { threads: 2 }, 1, Transport::Tcp)
        .argument("--http-protocols=h2,h1")
        .argument("--http2-cleartext=prior-knowledge")
        .argument("--forwarded-allow-ips=*")
        .variable("SHOP_ALLOWED_HOSTS", "shop.example")
        .start();
    let endpoint = gunicorn.endpoint().replace("http://", "h2c://");
    let gateway = Gateway::before(&format!("endpoints: [\"{endpoint}\"], workers: 2"));
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/environ");
        assert_eq!(response.status, 200, "{response:?}");
        let environ: serde_json::Value = serde_json::from_str(response.text()).unwrap();
        assert_eq!(environ["HTTP_X_FORWARDED_FOR"], "127.0.0.1", "{environ:#}");
        assert_eq!(environ["HTTP_HOST"], "shop.example", "{environ:#}");
    }
    let response = client.get("/stream?chunks=3&delay=0");
    assert_eq!((response.status, response.cut), (200, None));
    gateway.wait_idle();
}
