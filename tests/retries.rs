//! What becomes of a request whose worker goes away: sent again if the app cannot have begun it, and never if it can.

use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::support::client::post;
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, LIMIT, Latch, Response, Visit, Worker, message};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// How a worker leaves.
type Leave = fn(&mut Visit);

fn before(worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
}

/// In front of a worker that is asked for a 100.
fn expecting(worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, retry: {{ expect: true }}", worker.endpoint()))
}

/// One worker misbehaves on its first connection, and serves on those that follow.
fn first_time(
    transport: Transport,
    misbehave: impl Fn(&mut Visit) + Send + Sync + 'static,
    serve: impl Fn(&mut Visit) + Send + Sync + 'static,
) -> Worker {
    Worker::start(transport, move |visit| if visit.index == 0 { misbehave(visit) } else { serve(visit) })
}

fn serve(visit: &mut Visit) {
    while visit.request().is_some() {
        visit.send(OK);
    }
}

fn ask(gateway: &Gateway, method: &str, body: &str) -> Response {
    let mut client = gateway.client();
    client.send(post("/order", body).replacen("POST", method, 1));
    client.response(method)
}

fn check_sent_again_once(gateway: &Gateway, worker: &Worker, response: &Response, body: &str) {
    assert_eq!((response.status, response.text()), (200, "ok"), "{:?}", gateway.log());
    assert_eq!(gateway.access_of(response)["retries"], 1);
    gateway.wait_metric("hostler_retries_total{reason=\"reset_before_head\",upstream=\"app\"}", 1.0);
    let bodies: Vec<Vec<u8>> = worker.requests().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies, [body.as_bytes()], "it arrives exactly once");
    gateway.wait_idle();
}

fn check_not_sent_again(gateway: &Gateway, worker: &Worker, response: &Response, reasons: &[&str]) {
    let line = gateway.access_of(response);
    assert_eq!((response.status, &line["retries"]), (502, &Value::Null), "{line}");
    assert!(reasons.iter().any(|reason| line["reason"] == *reason), "{line}");
    assert_eq!(worker.connections(), 1);
    gateway.wait_idle();
}

/// Waits until somebody is in the backlog.
fn wait_for_backlog(listener: &UnixListener) {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let limit = Timespec::try_from(LIMIT).unwrap();
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "nobody has connected");
}

#[test]
fn a_post_in_the_backlog_of_a_worker_that_dies_is_sent_again_and_arrives_once() {
    let (folder, body) = (tempfile::tempdir().unwrap(), "one order");
    let (path, next_path) = (folder.path().join("app.sock"), folder.path().join("next.sock"));
    let dying = UnixListener::bind(&path).unwrap();
    let gateway = Gateway::before(&format!("endpoints: [\"unix:{}\"], workers: 1", path.display()));
    let mut client = gateway.client();
    client.send(post("/order", body));
    wait_for_backlog(&dying);
    // The new worker is there before the old one has gone, as with a socket that is handed over.
    let next = UnixListener::bind(&next_path).unwrap();
    std::fs::rename(&next_path, &path).unwrap();
    drop(dying);
    let (mut stream, _) = next.accept().unwrap();
    let received = read_request(&mut stream, body.len());
    assert!(received.ends_with(body.as_bytes()), "{}", String::from_utf8_lossy(&received));
    std::io::Write::write_all(&mut stream, OK.as_bytes()).unwrap();
    let response = client.response("POST");
    assert_eq!(response.text(), "ok");
    assert_eq!(gateway.access_of(&response)["retries"], 1);
    gateway.wait_metric("hostler_retries_total{reason=\"reset_before_head\",upstream=\"app\"}", 1.0);
    gateway.wait_idle();
    next.set_nonblocking(true).unwrap();
    assert!(next.accept().is_err(), "nothing came a second time");
}

fn read_request(stream: &mut impl std::io::Read, body: usize) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if message::head_end(&all).is_some_and(|end| all.len() >= end + body) {
            return all;
        }
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "it ends within the request");
        all.extend_from_slice(&piece[..read]);
    }
}

#[test]
fn a_request_whose_head_was_not_read_is_sent_again_whatever_its_method() {
    // Not a byte of it, or not all of it.
    let ways: [Leave; 2] = [|visit| visit.wait_readable(), Visit::touch];
    for leave in ways {
        for (method, body) in [("POST", "one order"), ("POST", ""), ("PATCH", "a change"), ("DELETE", "")] {
            let worker = first_time(Transport::Unix, leave, serve);
            let gateway = before(&worker);
            let response = ask(&gateway, method, body);
            check_sent_again_once(&gateway, &worker, &response, body);
        }
    }
}

#[test]
fn a_large_post_whose_head_was_not_read_is_sent_again_whole() {
    for over_h2 in [false, true] {
        let body = "0123456789".repeat(150_000);
        let worker = first_time(Transport::Unix, Visit::touch, serve);
        let gateway = before(&worker);
        let response = if over_h2 {
            gateway.h2().send(request("POST", "/order", &[]), body.as_bytes())
        } else {
            ask(&gateway, "POST", &body)
        };
        check_sent_again_once(&gateway, &worker, &response, &body);
    }
}

#[test]
fn a_post_whose_head_was_read_is_not_sent_again() {
    for transport in TRANSPORTS {
        // All of it was read: the end is a plain one.
        for body in ["one order", ""] {
            let worker = Worker::start(transport, |visit| drop(visit.request()));
            let gateway = before(&worker);
            let response = ask(&gateway, "POST", body);
            check_not_sent_again(&gateway, &worker, &response, &["eof_before_head"]);
        }
        // With the body on its way to a worker that has the head, the end may be either; what counts is the head.
        let worker = Worker::start(transport, |visit| drop(visit.head()));
        let gateway = before(&worker);
        let response = ask(&gateway, "POST", &"x".repeat(1 << 20));
        check_not_sent_again(&gateway, &worker, &response, &["eof_before_head", "reset_before_head"]);
    }
}

#[test]
fn a_worker_that_dies_in_the_middle_of_a_body_has_its_reason_and_the_post_is_not_sent_again() {
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, |visit| {
            visit.head();
            visit.body(100_000);
            visit.wait_readable();
            visit.reset();
        });
        let gateway = before(&worker);
        let response = ask(&gateway, "POST", &"x".repeat(4 << 20));
        check_not_sent_again(&gateway, &worker, &response, &["reset_before_head"]);
    }
}

#[test]
fn over_tcp_a_reset_alone_proves_nothing() {
    let worker = || {
        Worker::tcp(|visit| {
            visit.touch();
            visit.reset();
        })
    };
    for body in ["one order", ""] {
        let worker = worker();
        let gateway = before(&worker);
        let response = ask(&gateway, "POST", body);
        check_not_sent_again(&gateway, &worker, &response, &["reset_before_head"]);
    }
    let worker = worker();
    let response = before(&worker).client().get("/");
    assert_eq!((response.status, worker.connections()), (502, 3), "a GET is sent again either way");
}

/// Tells what came with the head of its request, and serves.
fn head_then_body(visit: &mut Visit, told: &Mutex<mpsc::Sender<(bool, String)>>, length: usize) {
    let Some(head) = visit.head() else { return };
    told.lock().unwrap().send((visit.is_drained(), head)).unwrap();
    visit.body(length);
    visit.send(OK);
}

#[test]
fn on_a_unix_socket_the_body_follows_when_the_head_has_been_read() {
    let (tell, told) = mpsc::channel();
    let (begin, tell) = (Latch::default(), Mutex::new(tell));
    let wait = begin.clone();
    let worker = Worker::unix(move |visit| {
        visit.wait_readable();
        wait.wait();
        head_then_body(visit, &tell, 9);
    });
    let gateway = before(&worker);
    let mut client = gateway.client();
    client.send(post("/order", "one order"));
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 1.0);
    begin.open();
    let (alone, head) = told.recv_timeout(LIMIT).unwrap();
    assert!(alone && !head.contains("expect"), "{head}");
    assert_eq!(client.response("POST").text(), "ok");
    gateway.wait_idle();
}

#[test]
fn no_post_of_many_waits_for_a_wake_up_that_does_not_come() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()));
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for count in 0..500 {
        let body = format!("order {count}");
        for client in &mut clients {
            client.send(post("/order", &body));
        }
        for client in &mut clients {
            assert_eq!(client.response("POST").text(), "ok");
        }
    }
    assert_eq!(worker.requests().len(), 2000);
    gateway.wait_idle();
}

#[test]
fn a_worker_that_reads_the_head_too_late_finds_the_whole_request() {
    let late = Latch::default();
    let wait = late.clone();
    let worker = Worker::unix(move |visit| {
        visit.wait_readable();
        wait.wait();
        serve(visit);
    });
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\"], workers: 1, timeouts: {{ head: 500ms }}, abandon: 60s",
        worker.endpoint()
    ));
    let response = ask(&gateway, "POST", "one order");
    assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (504, &"head_timeout".into()));
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 1.0, "it may still begin");
    late.open();
    assert_eq!(worker.wait_requests(1).body, b"one order");
    assert_eq!(worker.connections(), 1, "what a worker may begin is not sent to another");
}

#[test]
fn with_expect_the_body_follows_the_workers_100() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let worker = Worker::tcp(move |visit| {
        let head = visit.head().unwrap();
        tell.lock().unwrap().send((visit.is_drained(), head)).unwrap();
        visit.send(CONTINUE);
        assert_eq!(visit.body(9), b"one order");
        visit.send(OK);
    });
    let gateway = expecting(&worker);
    for response in
        [ask(&gateway, "POST", "one order"), gateway.h2().send(request("POST", "/order", &[]), b"one order")]
    {
        let (alone, head) = told.recv_timeout(LIMIT).unwrap();
        assert!(alone && head.contains("\r\nexpect: 100-continue\r\n\r\n"), "{head}");
        assert_eq!(response.text(), "ok");
        assert!(response.interim.is_empty());
    }
    gateway.wait_idle();
    assert_eq!(gateway.metric("hostler_informational_total{upstream=\"app\"}"), 0.0, "it was asked for");
}

#[test]
fn a_worker_that_never_says_100_gets_the_body_all_the_same() {
    let worker = Worker::answering(Transport::Tcp, OK);
    let gateway = expecting(&worker);
    let response = ask(&gateway, "POST", "one order");
    assert_eq!((response.text(), worker.wait_requests(1).body.as_slice()), ("ok", &b"one order"[..]));
    gateway.wait_idle();
}

#[test]
fn a_100_is_asked_for_only_where_it_proves_something() {
    for (transport, method, body, field) in [
        (Transport::Tcp, "GET", "", ""),
        (Transport::Tcp, "PUT", "a change", ""),
        (Transport::Tcp, "POST", "", ""),
        (Transport::Tcp, "POST", "one order", "Idempotency-Key: 1\r\n"),
        (Transport::Unix, "POST", "one order", ""),
    ] {
        let worker = Worker::answering(transport, OK);
        let gateway = expecting(&worker);
        let mut client = gateway.client();
        let text = post("/order", body).replacen("POST", method, 1);
        client.send(text.replacen("\r\n", &format!("\r\n{field}"), 1));
        assert_eq!(client.response(method).text(), "ok");
        assert_eq!(worker.wait_requests(1).header("expect"), None, "{transport:?} {method} {body:?}");
    }
}

#[test]
fn a_key_that_is_kept_from_the_app_proves_nothing() {
    let worker = Worker::answering(Transport::Tcp, OK);
    let gateway = expecting(&worker);
    let mut client = gateway.client();
    let fields = "\r\nConnection: idempotency-key\r\nIdempotency-Key: 1\r\n";
    client.send(post("/order", "one order").replacen("\r\n", fields, 1));
    assert_eq!(client.response("POST").text(), "ok");
    let asked = worker.wait_requests(1);
    assert_eq!((asked.header("expect").as_deref(), asked.header("idempotency-key")), (Some("100-continue"), None));
}

#[test]
fn an_answer_instead_of_a_100_reaches_the_client_and_the_body_is_not_sent() {
    let refused = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!";
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let worker = Worker::tcp(move |visit| {
        visit.head();
        visit.send(refused);
        visit.wait_closed();
        tell.lock().unwrap().send(visit.is_drained()).unwrap();
    });
    let gateway = expecting(&worker);
    let response = ask(&gateway, "POST", "one order");
    assert_eq!((response.status, response.text()), (413, "no!"));
    assert!(told.recv_timeout(LIMIT).unwrap(), "nothing of the body came");
    gateway.wait_idle();
}

#[test]
fn with_expect_a_reset_before_the_100_proves_that_nothing_has_begun() {
    let worker = first_time(
        Transport::Tcp,
        |visit| {
            visit.touch();
            visit.reset();
        },
        |visit| {
            visit.send(CONTINUE);
            serve(visit);
        },
    );
    let gateway = expecting(&worker);
    let response = ask(&gateway, "POST", "one order");
    check_sent_again_once(&gateway, &worker, &response, "one order");
}

#[test]
fn with_expect_an_end_before_the_100_or_after_it_proves_nothing() {
    let ways: [(Leave, &str); 3] = [
        (|visit| drop(visit.head()), "eof_before_head"),
        (
            |visit| {
                visit.head();
                visit.send(CONTINUE);
                visit.wait_readable();
                visit.reset();
            },
            "reset_before_head",
        ),
        (
            |visit| {
                visit.head();
                visit.send(CONTINUE);
                visit.body(9);
            },
            "eof_before_head",
        ),
    ];
    for (leave, reason) in ways {
        let worker = Worker::tcp(leave);
        let gateway = expecting(&worker);
        let response = ask(&gateway, "POST", "one order");
        check_not_sent_again(&gateway, &worker, &response, &[reason]);
    }
}
