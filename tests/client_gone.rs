//! Clients that leave before they have their answer: what the worker sees of it, and when its slot is free.

use std::sync::{Mutex, mpsc};

use crate::support::client::{get, post};
use crate::support::gateway::Signal;
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Gateway, LIMIT, Latch, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const IN_FLIGHT: &str = "hostler_in_flight{upstream=\"app\"}";
const WAITING: &str = "hostler_waiting{upstream=\"app\"}";

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Closing,
    Resetting,
    /// One stream of HTTP/2.
    Stream,
    /// The connection with all its streams.
    H2Connection,
}

const WAYS: [Leaves; 4] = [Leaves::Closing, Leaves::Resetting, Leaves::Stream, Leaves::H2Connection];

/// Sends a request, waits for `until`, and leaves.
fn send_and_leave(gateway: &Gateway, way: Leaves, path: &str, until: impl Fn()) {
    match way {
        Leaves::Closing | Leaves::Resetting => {
            let mut client = gateway.client();
            client.send(get(path));
            until();
            if matches!(way, Leaves::Resetting) {
                client.reset();
            }
        }
        Leaves::Stream | Leaves::H2Connection => {
            let h2 = gateway.h2();
            let stream = h2.open(request("GET", path, &[]), true);
            until();
            if matches!(way, Leaves::Stream) {
                stream.reset(h2::Reason::CANCEL);
                // The reset is read before the next request.
                gateway.access_of_path(path);
            }
        }
    }
}

fn before(worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
}

fn check_gone(gateway: &Gateway, path: &str, phase: &str) {
    let line = gateway.access_of_path(path);
    let told = (line["status"].as_u64(), line["reason"].as_str(), line["phase"].as_str());
    assert_eq!(told, (Some(499), Some("client_gone"), Some(phase)), "{line}");
}

#[test]
fn a_worker_never_hears_of_an_upload_that_its_client_broke_off() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = before(&worker);
    let sized = "POST /sized HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\nbegin";
    let chunked = "POST /chunked HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";
    for (bytes, path) in [(sized, "/sized"), (chunked, "/chunked")] {
        let mut client = gateway.client();
        client.send(bytes);
        drop(client);
        check_gone(&gateway, path, "receiving");
    }
    // A reset takes along what has not been read yet, at either end: the gateway has to have begun.
    let has_begun = || gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 1024.0);
    let mut client = gateway.client();
    client.send(sized.replace("/sized", "/reset"));
    has_begun();
    client.reset();
    check_gone(&gateway, "/reset", "receiving");
    let h2 = gateway.h2();
    let mut stream = h2.open(request("POST", "/stream", &[]), false);
    stream.send(b"begin", false);
    has_begun();
    stream.reset(h2::Reason::CANCEL);
    check_gone(&gateway, "/stream", "receiving");
    // Without an error code it is still no end of a body.
    let mut stream = h2.open(request("POST", "/no-error", &[]), false);
    stream.send(b"begin", false);
    has_begun();
    stream.reset(h2::Reason::NO_ERROR);
    check_gone(&gateway, "/no-error", "receiving");
    let mut stream = h2.open(request("POST", "/connection", &[]), false);
    stream.send(b"begin", false);
    has_begun();
    drop(h2);
    check_gone(&gateway, "/connection", "receiving");
    drop(stream);
    assert_eq!(worker.connections(), 0);
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    gateway.wait_failures("", "client_gone", 6.0);
}

#[test]
fn a_request_on_a_connection_reset_before_it_was_accepted_reaches_nobody() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = before(&worker);
    gateway.signal(Signal::STOP);
    let mut client = gateway.client();
    client.send(get("/gone"));
    client.reset();
    let mut next = gateway.client();
    next.send(get("/next"));
    gateway.signal(Signal::CONT);
    assert_eq!(next.response("GET").text(), "ok");
    gateway.wait_idle();
    // Its address can be asked for no more, and a request without one passes for the machine's own.
    let lines: Vec<String> = worker.requests().iter().map(|received| received.line().to_owned()).collect();
    assert_eq!(lines, ["GET /next HTTP/1.1"]);
}

#[test]
fn an_upload_over_http2_that_is_not_as_long_as_it_said_never_reaches_a_worker() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = before(&worker);
    for (path, length) in [("/short", "10"), ("/long", "3")] {
        let h2 = gateway.h2();
        let mut stream = h2.open(request("POST", path, &[("content-length", length)]), false);
        stream.send(b"begin", true);
        assert!(stream.try_response().is_err(), "{path}");
        let line = gateway.access_of_path(path);
        assert_eq!((&line["reason"], &line["status"]), (&"body_length_mismatch".into(), &400.into()), "{line}");
    }
    assert_eq!(gateway.h2().get("/next").text(), "ok");
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn a_worker_whose_client_has_gone_keeps_its_slot_until_it_is_done() {
    for way in WAYS {
        let (worker, done) = Worker::held(OK);
        let gateway = before(&worker);
        send_and_leave(&gateway, way, "/gone", || {
            worker.wait_requests(1);
        });
        check_gone(&gateway, "/gone", "working");
        assert_eq!(gateway.metric(IN_FLIGHT), 1.0, "{way:?}: the worker is still at it");
        let mut next = gateway.client();
        next.send(get("/next"));
        gateway.wait_metric(WAITING, 1.0);
        assert_eq!(worker.requests().len(), 1, "{way:?}: the busy worker is given nothing more");
        done.open();
        assert_eq!(next.response("GET").text(), "ok", "{way:?}");
        gateway.wait_idle();
        assert_eq!(worker.connections(), 1, "{way:?}: the connection of the abandoned exchange is whole");
    }
}

#[test]
fn a_worker_that_never_ends_gives_its_slot_back_after_abandon() {
    let worker = Worker::unix(|visit| {
        visit.request();
        visit.wait_closed();
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, abandon: 500ms", worker.endpoint()));
    send_and_leave(&gateway, Leaves::Closing, "/gone", || {
        worker.wait_requests(1);
    });
    worker.wait_ended(1);
    gateway.wait_idle();
}

#[test]
fn a_worker_that_waits_for_the_rest_of_an_abandoned_request_is_freed() {
    let (tell, freed) = mpsc::channel();
    let tell = Mutex::new(tell);
    let left = Latch::default();
    let gone = left.clone();
    let worker = Worker::unix(move |visit| {
        visit.head();
        visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n");
        gone.wait();
        visit.wait_closed();
        let _ = tell.lock().unwrap().send(());
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, abandon: 60s", worker.endpoint()));
    let mut client = gateway.client();
    client.send(post("/gone", &"x".repeat(4 << 20)));
    assert_eq!(client.head().map(|head| head.0), Some(200));
    client.reset();
    left.open();
    freed.recv_timeout(LIMIT).expect("the worker waits no longer");
    assert_eq!(gateway.metric(IN_FLIGHT), 1.0, "it may still be at it");
}

#[test]
fn a_client_that_leaves_while_it_waits_gives_its_place_up_at_once() {
    for way in WAYS {
        let (worker, done) = Worker::held(OK);
        let gateway = before(&worker);
        let mut working = gateway.client();
        working.send(get("/working"));
        worker.wait_requests(1);
        send_and_leave(&gateway, way, "/gone", || gateway.wait_metric(WAITING, 1.0));
        check_gone(&gateway, "/gone", "waiting");
        gateway.wait_metric(WAITING, 0.0);
        assert_eq!(gateway.metric(IN_FLIGHT), 1.0, "{way:?}");
        done.open();
        assert_eq!(working.response("GET").text(), "ok");
        gateway.wait_idle();
        assert_eq!(worker.requests().len(), 1, "{way:?}: nobody waits for the answer any more");
    }
}

#[test]
fn an_answer_that_nobody_reads_any_more_frees_the_worker() {
    for way in WAYS {
        let half = Latch::default();
        let wait = half.clone();
        let worker = Worker::unix(move |visit| {
            while visit.request().is_some() {
                visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
                wait.wait();
                visit.send("6\r\nsecond\r\n0\r\n\r\n");
            }
        });
        let gateway = before(&worker);
        match way {
            Leaves::Closing | Leaves::Resetting => {
                let mut client = gateway.client();
                client.send(get("/gone"));
                assert_eq!(client.head().unwrap().0, 200);
                client.peek(5);
                if matches!(way, Leaves::Resetting) {
                    client.reset();
                }
            }
            Leaves::Stream | Leaves::H2Connection => {
                let h2 = gateway.h2();
                let (status, body) = h2.open(request("GET", "/gone", &[]), true).head();
                assert_eq!(status, 200);
                drop(body);
                if matches!(way, Leaves::Stream) {
                    gateway.access_of_path("/gone");
                }
            }
        }
        let line = gateway.access_of_path("/gone");
        let told = (line["status"].as_u64(), line["reason"].as_str(), line["phase"].as_str());
        assert_eq!(told, (Some(200), Some("client_gone"), Some("responding")), "{way:?}: {line}");
        assert_eq!(gateway.metric(IN_FLIGHT), 1.0, "{way:?}: it still writes");
        half.open();
        gateway.wait_idle();
        let next = gateway.client().get("/next");
        assert_eq!((next.text(), worker.connections()), ("firstsecond", 1), "{way:?}: read to its end, and used again");
    }
}

#[test]
fn the_worker_of_an_event_stream_is_told_at_once_when_its_client_leaves() {
    for way in WAYS {
        let worker = Worker::unix(|visit| {
            visit.request();
            visit.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            // Waits while nobody takes more, and ends only with an error.
            while visit.send([b'.'; 4096]) {}
        });
        let gateway = before(&worker);
        match way {
            Leaves::Closing | Leaves::Resetting => {
                let mut client = gateway.client();
                client.send(get("/gone"));
                assert_eq!(client.head().unwrap().0, 200);
                if matches!(way, Leaves::Resetting) {
                    client.reset();
                }
            }
            Leaves::Stream | Leaves::H2Connection => {
                let h2 = gateway.h2();
                let (_, body) = h2.open(request("GET", "/gone", &[]), true).head();
                drop(body);
                if matches!(way, Leaves::Stream) {
                    gateway.access_of_path("/gone");
                }
            }
        }
        worker.wait_ended(1);
        gateway.wait_idle();
    }
}

#[test]
fn a_client_that_says_it_will_send_no_more_has_left() {
    // Its end of the connection is all that a client that leaves shows, too.
    let (worker, done) = Worker::held(OK);
    let gateway = before(&worker);
    let mut client = gateway.client();
    client.send(get("/gone"));
    worker.wait_requests(1);
    client.finish();
    check_gone(&gateway, "/gone", "working");
    done.open();
    gateway.wait_idle();
}

#[test]
fn a_client_that_pipelines_while_its_request_is_worked_on_has_not_left() {
    let (worker, done) = Worker::held(OK);
    let gateway = before(&worker);
    let mut client = gateway.client();
    client.send(get("/first"));
    worker.wait_requests(1);
    client.send(get("/second"));
    done.open();
    assert_eq!((client.response("GET").text(), client.response("GET").text()), ("ok", "ok"));
}
