//! How the gateway starts to serve, changes and ends, seen from the exchanges in between.

use crate::support::client::{End, get};
use crate::support::gateway::Signal;
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Latch, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A worker that answers each request once the latch is open.
fn slow_worker() -> (Worker, Latch) {
    let done = Latch::default();
    let wait = done.clone();
    let worker = Worker::unix(move |visit| {
        while visit.request().is_some() {
            wait.wait();
            visit.send(OK);
        }
    });
    (worker, done)
}

fn config(worker: &Worker, more: &str) -> String {
    let upstream = format!("endpoints: [\"{}\"], workers: 2", worker.endpoint());
    format!("{more}\n{}", crate::support::gateway::before(&upstream))
}

fn says(gateway: &Gateway, what: &str) {
    gateway.log_event(what, |event| event["message"].as_str().is_some_and(|message| message.starts_with(what)));
}

#[test]
fn what_is_in_flight_at_sigterm_is_answered_and_nothing_is_cut() {
    let (worker, done) = slow_worker();
    let gateway = Gateway::start(&config(&worker, ""));
    let (mut idle, mut busy, h2) = (gateway.client(), gateway.client(), gateway.h2());
    busy.send(get("/h1"));
    let stream = h2.open(request("GET", "/h2", &[]), true);
    worker.wait_requests(2);
    gateway.signal(Signal::TERM);
    says(&gateway, "stopping: no more connections");
    assert_eq!(idle.end(), End::Closed, "an idle connection is not waited for");
    done.open();
    let response = busy.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("ok", Some("close")));
    assert_eq!(busy.end(), End::Closed);
    assert_eq!(stream.response().text(), "ok");
    assert!(h2.end().is_none(), "GOAWAY without an error");
    let ended = gateway.ended();
    assert!(ended.status.success() && ended.access.len() == 2, "{ended:?}");
    assert!(ended.log.last().unwrap().contains("everything in flight has ended"), "{ended:?}");
}

#[test]
fn what_does_not_end_in_time_is_cut_and_said() {
    let (worker, _done) = slow_worker();
    let gateway = Gateway::start(&config(&worker, "shutdown: { timeout: 500ms }"));
    let mut busy = gateway.client();
    busy.send(get("/"));
    worker.wait_requests(1);
    let ended = gateway.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.log.last().unwrap().contains("1 connections still had an exchange in flight"), "{ended:?}");
    assert!(busy.try_response("GET").is_none());
}

#[test]
fn ready_says_no_while_the_delay_lasts_and_requests_are_still_served() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&config(&worker, "shutdown: { delay: 1h }"));
    assert_eq!((gateway.admin_get("/ready").status, gateway.admin_get("/live").status), (200, 200));
    gateway.signal(Signal::TERM);
    says(&gateway, "stopping: /ready says no");
    assert_eq!((gateway.admin_get("/ready").status, gateway.admin_get("/live").status), (503, 200));
    let response = gateway.client().get("/");
    assert_eq!((response.text(), response.header("connection")), ("ok", None));
    gateway.signal(Signal::INT);
    assert!(gateway.ended().status.success(), "SIGINT after it ends at once");
}

#[test]
fn a_reload_is_in_force_on_connections_that_were_open_before() {
    let site = |text: &str| format!("sites:\n  - routes: [{{ path: /, respond: {{ status: 200, body: {text} }} }}]\n");
    let gateway = Gateway::start(&site("first"));
    let (mut h1, h2) = (gateway.client(), gateway.h2());
    assert_eq!((h1.get("/").text(), h2.get("/").text()), ("first", "first"));
    gateway.reload(&site("second"));
    assert_eq!((h1.get("/").text(), h2.get("/").text()), ("second", "second"));
    gateway.wait_metric("hostler_config_generation", 2.0);
}

#[test]
fn a_reload_lets_exchanges_end_and_workers_stay_taken() {
    let (worker, done) = slow_worker();
    let gateway = Gateway::start(&config(&worker, ""));
    let mut busy = gateway.client();
    busy.send(get("/before"));
    worker.wait_requests(1);
    let upstream = format!("endpoints: [\"{}\"], workers: 1", worker.endpoint());
    gateway.reload(&crate::support::gateway::before(&upstream));
    let mut next = gateway.client();
    next.send(get("/after"));
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    assert_eq!(worker.requests().len(), 1, "the one worker there is now is still at the request from before");
    done.open();
    assert_eq!((busy.response("GET").text(), next.response("GET").text()), ("ok", "ok"));
    gateway.wait_idle();
}

#[test]
fn a_broken_file_changes_nothing() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&config(&worker, ""));
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "ok");
    gateway.rewrite("sites: [{ routes: [{ path: /, proxy: nobody }] }]\n");
    gateway.signal(Signal::HUP);
    says(&gateway, "not reloaded");
    assert_eq!((client.get("/").text(), gateway.client().get("/").text()), ("ok", "ok"));
    gateway.wait_metric("hostler_config_reloads_total{result=\"failed\"}", 1.0);
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let site = "sites:\n  - routes: [{ path: /, respond: { status: 200, body: ok } }]\n";
    let listeners = |binds: &[&str]| {
        let lines: Vec<String> = binds.iter().map(|bind| format!("  - {{ bind: \"{bind}\" }}\n")).collect();
        format!("listeners:\n{}{site}", lines.concat())
    };
    let gateway = Gateway::start(&listeners(&["unix:@folder@/a.sock", "unix:@folder@/b.sock"]));
    let socket = |name: &str| crate::support::Address::Unix(gateway.folder().join(name));
    let mut kept = Client::connect(&socket("a.sock"));
    let mut closing = Client::connect(&socket("b.sock"));
    assert_eq!((kept.get("/").text(), closing.get("/").text()), ("ok", "ok"));
    gateway.reload(&listeners(&["unix:@folder@/a.sock", "unix:@folder@/c.sock"]));
    assert_eq!(Client::connect(&socket("c.sock")).get("/").text(), "ok");
    assert_eq!((kept.get("/").text(), closing.get("/").text()), ("ok", "ok"), "open connections live on");
    says(&gateway, "no longer listening");
    assert!(socket("b.sock").connect().is_err());
}

#[test]
fn the_access_log_is_opened_anew_on_sigusr1() {
    let gateway = Gateway::start(
        "logging: { format: json, access: { to: ./access.log } }\nsites:\n  - routes: [{ path: /, respond: { status: 200, body: ok } }]\n",
    );
    let (log, old) = (gateway.folder().join("access.log"), gateway.folder().join("access.log.1"));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let mut client = gateway.client();
    client.get("/");
    assert!(look_until(|| (lines(&log) == 1).then_some(())).is_some());
    std::fs::rename(&log, &old).unwrap();
    gateway.signal(Signal::USR1);
    says(&gateway, "the access log was opened anew");
    // Lines that are on their way meanwhile go to the old file; none is lost, and soon they come to the new one.
    let mut requests = 1;
    let moved = look_until(|| {
        client.get("/");
        requests += 1;
        (lines(&log) > 0).then_some(())
    });
    assert!(moved.is_some(), "{requests} lines went to the old file");
    assert!(look_until(|| (lines(&log) + lines(&old) == requests).then_some(())).is_some());
}
