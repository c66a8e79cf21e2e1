//! SIGTERM: nothing that has begun is lost, and what could not end in time is told.

use crate::support::client::get;
use crate::support::gateway::Signal;
use crate::support::h2::request;
use crate::support::{Gateway, Worker, look_until};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn gateway(worker: &Worker, shutdown: &str) -> Gateway {
    Gateway::start(&format!(
        "shutdown: {{ {shutdown} }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\n\
         sites:\n  - routes: [{{ path_exact: /up, respond: {{ body: ok }} }}, {{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ))
}

#[test]
fn exchanges_in_flight_end_and_idle_connections_close() {
    let (worker, let_go) = Worker::held(ANSWER);
    let gateway = gateway(&worker, "timeout: 15s");
    let mut idle = gateway.client();
    assert_eq!(idle.get("/up").status, 200);
    let (mut busy, h2) = (gateway.client(), gateway.h2());
    busy.send(get("/work"));
    let stream = h2.open(request("GET", "/work", &[]), true);
    worker.wait_requests(2);
    gateway.signal(Signal::TERM);
    idle.end();
    assert!(look_until(|| gateway.address().connect().err()).is_some(), "it does not accept any more");
    let_go.open();
    let response = busy.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("close")));
    let response = stream.response();
    assert_eq!((response.status, response.text()), (200, "hello"));
    let ended = gateway.ended();
    assert!(ended.status.success());
    assert!(ended.log.iter().any(|line| line.contains("everything in flight has ended")), "{:#?}", ended.log);
    assert_eq!(ended.access.len(), 3);
}

#[test]
fn connections_without_a_request_neither_lose_one_nor_hold_up_the_end() {
    let (worker, let_go) = Worker::held(ANSWER);
    let_go.open();
    let gateway = gateway(&worker, "timeout: 15s");
    let (mut silent, mut begun, mut late) = (gateway.client(), gateway.client(), gateway.client());
    begun.send("GET /never HTTP/1.1\r\nHost: shop.ex");
    // Both are accepted and looked at: connections are counted once they are.
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"h1\"}", 1.0);
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"new\"}", 2.0);
    gateway.signal(Signal::TERM);
    gateway.log_event("stopping", |event| event["message"].as_str().is_some_and(|text| text.starts_with("stopping")));
    late.send(get("/on-its-way"));
    let response = late.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("close")));
    silent.end();
    assert!(begun.response("GET").text().contains("header_timeout"));
    let ended = gateway.ended();
    assert!(ended.log.iter().any(|line| line.contains("everything in flight has ended")), "{:#?}", ended.log);
}

#[test]
fn what_does_not_end_in_time_is_cut_and_told() {
    let (worker, _let_go) = Worker::held(ANSWER);
    let gateway = gateway(&worker, "timeout: 300ms");
    let mut busy = gateway.client();
    busy.send(get("/work"));
    worker.wait_requests(1);
    let ended = gateway.stop();
    assert!(ended.status.success());
    assert!(ended.log.iter().any(|line| line.contains("1 exchanges") && line.contains("cut")), "{:#?}", ended.log);
}

#[test]
fn before_the_drain_ready_says_no_and_requests_are_served() {
    let (worker, _let_go) = Worker::held(ANSWER);
    let gateway = gateway(&worker, "delay: 10s");
    assert_eq!(gateway.admin_get("/ready").status, 200);
    gateway.signal(Signal::TERM);
    assert!(look_until(|| (gateway.admin_get("/ready").status == 503).then_some(())).is_some());
    assert_eq!(gateway.admin_get("/live").status, 200);
    assert_eq!(gateway.client().get("/up").status, 200);
    // Twice is at once.
    gateway.signal(Signal::INT);
    let ended = gateway.ended();
    assert!(ended.log.iter().any(|line| line.contains("stopped at once")), "{:#?}", ended.log);
}
