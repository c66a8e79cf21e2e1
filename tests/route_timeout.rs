//! A route's `timeout`: from the whole request to the head of the answer, and nothing else.

use crate::support::client::{get, post};
use crate::support::gateway::before;
use crate::support::{Gateway, Latch, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn gateway(worker: &Worker, workers: u32) -> Gateway {
    let config = before(&format!("endpoints: [\"{}\"], workers: {workers}", worker.endpoint()));
    Gateway::start(&config.replace("proxy: app }", "proxy: app, timeout: 2s }"))
}

#[test]
fn a_silent_worker_is_not_waited_for_and_keeps_its_slot() {
    let (worker, done) = Worker::held(OK);
    let gateway = gateway(&worker, 1);
    let late = gateway.client().get("/late");
    assert_eq!(late.status, 504);
    let line = gateway.access_of(&late);
    assert_eq!((&line["reason"], line["phase"].as_str()), (&"route_timeout".into(), None), "{line}");
    assert!(line["head"].as_f64().unwrap() > 0.0, "what it cost its worker until then: {line}");
    gateway.wait_failures("", "route_timeout", 1.0);
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 1.0, "the worker is still at it");
    let waited = gateway.client().get("/waits");
    assert_eq!(waited.status, 504, "waiting is included");
    let line = gateway.access_of(&waited);
    assert!(line["wait"].as_f64().unwrap() > 0.0 && line["head"].as_f64().unwrap() == 0.0, "{line}");
    done.open();
    gateway.wait_idle();
    assert_eq!(gateway.client().get("/next").text(), "ok");
    let seen: Vec<String> = worker.requests().iter().map(|received| received.line().to_owned()).collect();
    assert_eq!(seen, ["GET /late HTTP/1.1", "GET /next HTTP/1.1"], "who waited in vain never reached it");
}

#[test]
fn neither_a_slow_upload_nor_a_slow_answer_is_cut() {
    let (rest, go_on) = (Latch::default(), Latch::default());
    let (hold, held) = (rest.clone(), go_on.clone());
    let worker = Worker::unix(move |visit| {
        while let Some(request) = visit.request() {
            match request.line() {
                "GET /clock HTTP/1.1" => held.wait(),
                "GET /slow HTTP/1.1" => {
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
                    hold.wait();
                }
                _ => {}
            }
            visit.send(if request.line() == "GET /slow HTTP/1.1" { "ok" } else { OK });
        }
    });
    let gateway = gateway(&worker, 3);
    let whole = post("/upload", "0123456789");
    let (first, last) = whole.split_at(whole.len() - 5);
    let mut upload = gateway.client();
    upload.send(first);
    let mut slow = gateway.client();
    slow.send(get("/slow"));
    assert_eq!(slow.head().unwrap().0, 200);
    // Once this one is given up, both have taken longer than it.
    assert_eq!(gateway.client().get("/clock").status, 504);
    upload.send(last);
    assert_eq!(upload.response("POST").text(), "ok");
    rest.open();
    assert_eq!(slow.take(4).unwrap(), b"okok");
    go_on.open();
    gateway.wait_idle();
}
