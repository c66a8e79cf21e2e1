//! Answers that begin early: before the worker has the whole request, and before it has made the rest of them.

use crate::support::client::{get, post};
use crate::support::h2::request;
use crate::support::worker::{LINKS, Protocol};
use crate::support::{Gateway, Latch, Visit, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn before(protocol: Protocol, worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint_in(protocol)))
}

/// Reads only the head of an upload, and answers.
fn answers_early(
    protocol: Protocol,
    then: impl Fn(&mut Visit) + Send + Sync + 'static,
) -> impl Fn(&mut Visit) + Send + Sync + 'static {
    move |visit| {
        while let Some(opening) = visit.opening(protocol) {
            if opening.method == "GET" {
                visit.send(OK);
                if protocol == Protocol::Uwsgi {
                    return;
                }
                continue;
            }
            visit.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nearly!!");
            return then(visit);
        }
    }
}

#[test]
fn an_early_answer_reaches_the_client_while_the_body_is_still_being_sent() {
    const LENGTH: usize = 8 << 20;
    for (protocol, transport) in LINKS {
        // One worker closes at once, one waits for the rest of the body as if nothing had happened.
        let closes = Worker::start(transport, answers_early(protocol, |_| {}));
        let reads = Worker::start(transport, answers_early(protocol, |visit| drop(visit.body(LENGTH))));
        for worker in [&closes, &reads] {
            let gateway = Gateway::before(&format!(
                "endpoints: [\"{}\"], workers: 1, abandon: 60s",
                worker.endpoint_in(protocol)
            ));
            let body = vec![b'b'; LENGTH];
            let mut client = gateway.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n", body.len()));
            client.send(&body);
            let response = client.response("POST");
            assert_eq!((response.status, response.text()), (403, "early!!"), "{protocol:?} {transport:?}");
            let response = gateway.h2().send(request("POST", "/", &[]), &body);
            assert_eq!((response.status, response.text()), (403, "early!!"), "{protocol:?} {transport:?}");
            assert_eq!(client.get("/next").text(), "ok");
            gateway.wait_idle();
        }
    }
}

#[test]
fn a_worker_that_begins_its_answer_while_it_reads_gets_all_of_the_body() {
    let length = 3 << 20;
    for (protocol, transport) in LINKS {
        let worker = Worker::start(transport, move |visit| {
            visit.opening(protocol);
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbegun");
            let body = visit.body(length);
            visit.send(format!("{:07}", body.len()));
        });
        let gateway = before(protocol, &worker);
        let mut client = gateway.client();
        client.send(post("/", &"x".repeat(length)));
        let response = client.response("POST");
        assert_eq!((response.text(), &response.cut), ("begun3145728", &None), "{protocol:?} {transport:?}");
        gateway.wait_idle();
    }
}

#[test]
fn a_worker_that_answered_early_keeps_its_slot_until_it_closes() {
    for (protocol, transport) in LINKS {
        let busy = Latch::default();
        let wait = busy.clone();
        let worker = Worker::start(transport, answers_early(protocol, move |_| wait.wait()));
        let gateway = before(protocol, &worker);
        let mut client = gateway.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n", 8 << 20));
        client.send(vec![b'b'; 8 << 20]);
        let response = client.response("POST");
        assert_eq!(response.text(), "early!!", "{protocol:?} {transport:?}");
        gateway.access_of(&response);
        assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 1.0);
        busy.open();
        gateway.wait_idle();
    }
}

#[test]
fn bytes_of_an_answer_go_on_as_they_come() {
    for (protocol, transport) in LINKS {
        for kind in ["text/event-stream", "text/html"] {
            let more = Latch::default();
            let wait = more.clone();
            let worker = Worker::start(transport, move |visit| {
                visit.whole(protocol);
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\nfirst"));
                wait.wait();
                visit.send(" second");
            });
            let gateway = before(protocol, &worker);
            let mut client = gateway.client();
            client.send(get("/"));
            assert_eq!(client.head().unwrap().0, 200);
            assert!(client.peek(10).starts_with(b"5\r\nfirst\r\n"), "the first piece does not wait for the second");
            more.open();
            assert!(client.peek(27).ends_with(b" second\r\n0\r\n\r\n"));
        }
    }
}
