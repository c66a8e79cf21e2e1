//! What goes on while the gateway changes: slots stay taken, and no line of the log is lost.

use crate::support::client::get;
use crate::support::gateway::Signal;
use crate::support::{Gateway, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn says(gateway: &Gateway, what: &str) {
    gateway.log_event(what, |event| event["message"].as_str().is_some_and(|message| message.starts_with(what)));
}

#[test]
fn a_reload_lets_exchanges_end_and_workers_stay_taken() {
    let (worker, done) = Worker::held(OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
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
