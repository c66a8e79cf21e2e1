//! Every row of `responses.txt`, in HTTP and uwsgi, to clients of both protocols.

use std::collections::BTreeMap;

use serde_json::Value;

use super::table::{self, Outcome, Response};
use crate::support::worker::{LINKS, Protocol, Transport};
use crate::support::{Gateway, Response as Answer};
use crate::wire_responses::{Link, Wire, before, worker};

/// The rows that workers of this link may say, by their path.
fn rows(link: Link) -> Vec<(String, Response)> {
    let rows = table::responses().into_iter().filter(|row| row.is_in(link.0));
    rows.map(|row| (format!("/{}", row.name), row)).collect()
}

/// What a worker does for each: in uwsgi there is one request a connection, and who stays is busy.
fn script(link: Link, rows: &[(String, Response)]) -> crate::support::Worker {
    let script = rows.iter().map(|(path, row)| {
        let is_good = matches!(row.outcome, Outcome::Whole { .. });
        (path.clone(), row.bytes.clone(), if is_good { row.then.after_good(link.0) } else { row.then })
    });
    worker(link, script.collect())
}

/// What a client got.
fn check(response: &Answer, row: &Response, what: &str) {
    let status = match &row.outcome {
        Outcome::Whole { status, body } => {
            assert_eq!((&response.body, response.cut.as_deref()), (body, None), "{what}");
            assert!(response.interim.is_empty(), "interim answers are for the edge: {what}");
            status
        }
        Outcome::Failed { status, reason } => {
            assert_eq!(response.cut, None, "{what}: {response:?}");
            let named = response.header("proxy-status").is_some_and(|value| value.contains(&reason[..]));
            assert!(named && response.text().contains(&reason[..]), "{what}: {response:?}");
            status
        }
        Outcome::Cut { status, .. } => {
            assert!(response.cut.is_some(), "{what}: {response:?}");
            assert!("hello".starts_with(response.text()) || response.text() == "data", "{what}: {response:?}");
            status
        }
    };
    assert_eq!(response.status, *status, "{what}: {response:?}");
    assert!(response.header("x-request-id").is_some() && response.header("date").is_some(), "{what}: {response:?}");
}

/// What stands in the log.
fn check_line(line: &Value, row: &Response, what: &str) {
    let (status, reason, phase) = match &row.outcome {
        Outcome::Whole { status, .. } => (status, Value::Null, Value::Null),
        Outcome::Failed { status, reason } => (status, reason.as_str().into(), Value::Null),
        Outcome::Cut { status, reason } => (status, reason.as_str().into(), "responding".into()),
    };
    assert_eq!((&line["status"], &line["reason"], &line["phase"]), (&(*status).into(), &reason, &phase), "{what}");
}

#[test]
fn every_answer_reaches_the_client_whole_or_not_as_a_whole_one() {
    for link in LINKS {
        let rows = rows(link);
        let worker = script(link, &rows);
        let gateway = before(link, &worker);
        let mut answered = Vec::new();
        for mut wire in Wire::both(&gateway) {
            for (path, row) in &rows {
                let what = format!("{path} over {} and {link:?}", wire.name());
                let response = wire.ask(&row.method, path);
                check(&response, row, &what);
                wire.check_next(&what);
                answered.push((response, row, what));
            }
        }
        for (response, row, what) in &answered {
            check_line(&gateway.access_of(response), row, what);
        }
        gateway.wait_idle();
        let mut reasons = BTreeMap::new();
        for (_, row) in &rows {
            if let Outcome::Failed { reason, .. } | Outcome::Cut { reason, .. } = &row.outcome {
                *reasons.entry(&reason[..]).or_insert(0.0) += 2.0;
            }
        }
        for (reason, count) in reasons {
            gateway.wait_failures("app", reason, count);
        }
    }
}

#[test]
fn a_connection_is_used_again_after_those_answers_alone_that_leave_nothing_in_doubt() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let link = (Protocol::Http1, transport);
        let rows = rows(link);
        let worker = script(link, &rows);
        let upstream = format!("endpoints: [\"{}\"], workers: 1, keepalive: {{ idle: 30s }}", worker.endpoint());
        let gateway = Gateway::before(&upstream);
        for mut wire in Wire::both(&gateway) {
            wire.check_next("the start");
            for (path, row) in &rows {
                gateway.wait_idle();
                let connections = worker.connections();
                wire.ask(&row.method, path);
                gateway.wait_idle();
                wire.check_next(path);
                let opened = worker.connections() - connections;
                let expected = usize::from(!row.is_reused);
                assert_eq!(opened, expected, "{path} over {}: more connections", wire.name());
            }
        }
    }
}
