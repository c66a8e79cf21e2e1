//! Connections to workers between exchanges: used again while they are good, given up when they are not, and what
//! becomes of a request that met one that had just ended.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::client::post;
use crate::support::worker::Transport;
use crate::support::{Gateway, Latch, Visit, Worker};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn before(worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
}

#[test]
fn bytes_that_come_later_unasked_are_for_nobody() {
    for transport in TRANSPORTS {
        let (late, sent) = (Latch::default(), Arc::new(Mutex::new(mpsc::channel())));
        let told = sent.lock().unwrap().0.clone();
        let (wait, told) = (late.clone(), Mutex::new(told));
        let worker = Worker::start(transport, move |visit| {
            let mut count = 0;
            while visit.request().is_some() {
                visit.send(OK);
                count += 1;
                if visit.index == 0 && count == 1 {
                    wait.wait();
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse");
                    told.lock().unwrap().send(()).unwrap();
                }
            }
        });
        let gateway = before(&worker);
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "ok");
        gateway.wait_idle();
        late.open();
        sent.lock().unwrap().1.recv_timeout(crate::support::LIMIT).unwrap();
        assert_eq!(client.get("/").text(), "ok");
        assert_eq!(worker.connections(), 2, "a connection that talks unasked is not used again");
    }
}

#[test]
fn a_connection_idle_for_longer_than_keepalive_is_closed_and_not_used_again() {
    for transport in TRANSPORTS {
        let worker = Worker::answering(transport, OK);
        let gateway = Gateway::before(&format!(
            "endpoints: [\"{}\"], workers: 1, keepalive: {{ idle: 300ms }}",
            worker.endpoint()
        ));
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "ok");
        worker.wait_ended(1);
        assert_eq!(client.get("/").text(), "ok");
        assert_eq!(worker.connections(), 2);
    }
}

#[test]
fn a_connection_the_worker_has_closed_meanwhile_is_not_used_even_for_a_post() {
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, |visit| {
            visit.request();
            visit.send(OK);
        });
        let gateway = before(&worker);
        let mut client = gateway.client();
        for count in 1..=3 {
            client.send(post("/", "once"));
            let response = client.response("POST");
            assert_eq!(response.text(), "ok");
            worker.wait_ended(count);
            assert_eq!(gateway.access_of(&response)["retries"], serde_json::Value::Null);
        }
        assert_eq!(worker.requests().len(), 3);
    }
}

/// The second request of its first connection is read and not answered: the worker's keep-alive had just run out.
fn forgets_the_second(visit: &mut Visit) {
    visit.request();
    visit.send(OK);
    while visit.request().is_some() && visit.index > 0 {
        visit.send(OK);
    }
}

#[test]
fn a_get_that_met_a_stale_connection_is_sent_again_once() {
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, forgets_the_second);
        let gateway =
            Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, keepalive: {{ idle: 30s }}", worker.endpoint()));
        let mut client = gateway.client();
        assert_eq!(client.get("/first").text(), "ok");
        gateway.wait_idle();
        let response = client.get("/second");
        assert_eq!(response.text(), "ok");
        let line = gateway.access_of(&response);
        assert_eq!((&line["retries"], &line["reason"]), (&1.into(), &serde_json::Value::Null));
        gateway.wait_metric("hostler_retries_total{reason=\"eof_before_head\",upstream=\"app\"}", 1.0);
        let lines: Vec<String> = worker.requests().iter().map(|received| received.line().to_owned()).collect();
        assert_eq!(lines, ["GET /first HTTP/1.1", "GET /second HTTP/1.1", "GET /second HTTP/1.1"]);
        gateway.wait_idle();
    }
}

#[test]
fn a_post_that_a_worker_may_have_seen_is_never_sent_again() {
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, forgets_the_second);
        let gateway =
            Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, keepalive: {{ idle: 30s }}", worker.endpoint()));
        let mut client = gateway.client();
        assert_eq!(client.get("/first").text(), "ok");
        gateway.wait_idle();
        client.send(post("/second", "order"));
        let response = client.response("POST");
        assert_eq!((response.status, worker.requests().len()), (502, 2), "{response:?}");
        let line = gateway.access_of(&response);
        assert_eq!((&line["reason"], &line["retries"]), (&"eof_before_head".into(), &serde_json::Value::Null));
        client.send("POST /third HTTP/1.1\r\nHost: shop.example\r\nIdempotency-Key: 1\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response("POST").text(), "ok");
    }
}

#[test]
fn an_upload_that_may_be_repeated_is_sent_again_whole() {
    const LENGTH: usize = 1_500_000;
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, |visit| {
            if visit.index == 0 {
                visit.head();
                visit.body(100_000);
                return visit.reset();
            }
            visit.request();
            visit.send(OK);
        });
        let gateway = before(&worker);
        let body: Vec<u8> = (0..LENGTH).map(|n| (n % 241) as u8).collect();
        let mut client = gateway.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {LENGTH}\r\n\r\n"));
        client.send(&body);
        assert_eq!(client.response("PUT").text(), "ok", "{transport:?}");
        assert!(worker.wait_requests(1).body == body);
    }
}

#[test]
fn a_get_is_given_up_after_the_attempts_that_are_configured() {
    let worker = Worker::unix(|visit| {
        visit.request();
    });
    for (attempts, sent) in [(0, 1), (1, 3), (2, 6)] {
        let gateway = Gateway::before(&format!(
            "endpoints: [\"{}\"], workers: 1, retry: {{ attempts: {attempts} }}",
            worker.endpoint()
        ));
        let response = gateway.client().get("/");
        assert_eq!((response.status, worker.requests().len()), (502, sent));
        gateway.wait_failures("app", "eof_before_head", f64::from(attempts + 1));
    }
}

#[test]
fn a_connection_that_answered_head_is_not_used_again() {
    // waitress sends the body that a HEAD must not have, in a second write. Who gets the connection next would read it
    // as the beginning of his own answer.
    for transport in TRANSPORTS {
        let worker = Worker::start(transport, |visit| {
            while let Some(received) = visit.request() {
                if received.line().starts_with("HEAD ") {
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n");
                    if visit.request().is_some() {
                        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse");
                    }
                } else {
                    visit.send(OK);
                }
            }
        });
        let gateway = before(&worker);
        let mut client = gateway.client();
        client.send("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(client.response("HEAD").status, 200);
        assert_eq!(client.get("/next").text(), "ok", "{transport:?}");
    }
}
