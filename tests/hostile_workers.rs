//! Workers that go away in every phase of an exchange: the reason, how often it is tried, and nothing left over.
//!
//! What they may answer is in `wire_responses`; this is about when they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Gateway, Response, Visit, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Unix];
const LARGE: usize = 2 << 20;

/// Up to where the worker comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Accepted.
    Accepted,
    /// One byte of the head has been read.
    InHead,
    /// The head has been read.
    Head,
    /// Half of the body has been read.
    HalfBody,
    /// All has been read.
    Whole,
    /// And a part of the answer's head has been sent.
    InAnswerHead,
    /// And the answer's head and a part of its body.
    InAnswerBody,
}

use Phase::{Accepted, HalfBody, Head, InAnswerBody, InAnswerHead, InHead, Whole};

/// How it ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closes,
    Resets,
}

/// What is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Get,
    Post(usize),
}

const PHASES: [Phase; 7] = [Accepted, InHead, Head, HalfBody, Whole, InAnswerHead, InAnswerBody];

fn misbehave(visit: &mut Visit, phase: Phase, end: End, length: usize) {
    match phase {
        Accepted => {}
        InHead => visit.touch(),
        Head => drop(visit.head()),
        HalfBody => {
            visit.head();
            visit.body(length / 2);
        }
        Whole | InAnswerHead | InAnswerBody => {
            visit.head();
            visit.body(length);
        }
    }
    match phase {
        InAnswerHead => drop(visit.send("HTTP/1.1 200 OK\r\nContent-Le")),
        InAnswerBody => drop(visit.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")),
        _ => {}
    }
    match end {
        End::Closes => visit.leave(),
        End::Resets => visit.reset(),
    }
}

/// Reasons that may be named, and how often the request may have been sent.
fn expected(
    transport: Transport,
    phase: Phase,
    end: End,
    asked: Asked,
) -> (&'static [&'static str], std::ops::RangeInclusive<usize>) {
    const RESET: &[&str] = &["reset_before_head"];
    const EOF: &[&str] = &["eof_before_head"];
    const EITHER: &[&str] = &["reset_before_head", "eof_before_head"];
    let is_unix = transport == Transport::Unix;
    // A GET is sent three times whatever has become of it, until an answer begins.
    let tries = |is_unsent: bool| if is_unsent || asked == Asked::Get { 3..=3 } else { 1..=1 };
    match phase {
        // The kernel may have taken the head before the worker left, or not. On TCP the second is proven, the first not.
        Accepted if is_unix => (EITHER, tries(true)),
        // And connect may meet the reset already, which is no matter of this connection.
        Accepted => (&["reset_before_head", "eof_before_head", "connect_failed"], 1..=3),
        InHead => (RESET, tries(is_unix)),
        // Only a TCP worker can reset what it has read. Of a body there may be something unread, which resets as well.
        Head if asked == Asked::Get => (if end == End::Resets && !is_unix { RESET } else { EOF }, tries(false)),
        Head | HalfBody => (EITHER, tries(false)),
        Whole => (if end == End::Resets && !is_unix { RESET } else { EOF }, tries(false)),
        InAnswerHead => (&["eof_in_head"], 1..=1),
        InAnswerBody => (&["eof_in_body"], 1..=1),
    }
}

fn ask(gateway: &Gateway, asked: Asked, over_h2: bool) -> Response {
    let (method, length) = match asked {
        Asked::Get => ("GET", 0),
        Asked::Post(length) => ("POST", length),
    };
    let body = vec![b'b'; length];
    if over_h2 {
        return gateway.h2().send(request(method, "/", &[]), &body);
    }
    let mut client = gateway.client();
    client.send(format!("{method} / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n"));
    client.send(&body);
    client.response(method)
}

/// All failures that were counted.
fn failures(gateway: &Gateway) -> f64 {
    let reasons = ["reset_before_head", "eof_before_head", "eof_in_head", "eof_in_body", "connect_failed"];
    reasons.iter().map(|reason| gateway.failures("app", reason)).sum()
}

#[test]
fn a_worker_that_goes_away_in_any_phase_has_its_reason_and_leaves_nothing_behind() {
    for transport in TRANSPORTS {
        for asked in [Asked::Get, Asked::Post(9), Asked::Post(LARGE)] {
            for (phase, end) in PHASES.into_iter().flat_map(|phase| [(phase, End::Closes), (phase, End::Resets)]) {
                if phase == HalfBody && asked == Asked::Get {
                    continue;
                }
                check(transport, asked, phase, end);
            }
        }
    }
}

fn check(transport: Transport, asked: Asked, phase: Phase, end: End) {
    let length = if let Asked::Post(length) = asked { length } else { 0 };
    let is_bad = Arc::new(AtomicBool::new(true));
    let bad = Arc::clone(&is_bad);
    let worker = Worker::start(transport, move |visit| {
        if bad.load(Ordering::SeqCst) {
            return misbehave(visit, phase, end, length);
        }
        visit.request();
        visit.send(OK);
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let (reasons, tries) = expected(transport, phase, end, asked);
    let mut connections = 0;
    for over_h2 in [false, true] {
        let what = format!("{transport:?} {asked:?} {phase:?} {end:?} h2: {over_h2}");
        is_bad.store(true, Ordering::SeqCst);
        let response = ask(&gateway, asked, over_h2);
        if phase == InAnswerBody {
            assert!(response.status == 200 && response.cut.is_some(), "{what}: {response:?}");
        } else {
            assert_eq!((response.status, response.cut.as_deref()), (502, None), "{what}: {response:?}");
        }
        let line = gateway.access_of(&response);
        assert!(reasons.iter().any(|reason| line["reason"] == *reason), "{what}: {line}");
        gateway.wait_idle();
        let tried = worker.connections() - connections;
        assert!(tries.contains(&tried), "{what}: sent {tried} times");
        is_bad.store(false, Ordering::SeqCst);
        let next = ask(&gateway, asked, over_h2);
        assert_eq!((next.status, next.text()), (200, "ok"), "after {what}");
        connections = worker.connections();
        gateway.wait_idle();
    }
    // Each attempt that failed was counted, and nothing else.
    assert_eq!(failures(&gateway), (connections - 2) as f64, "{transport:?} {asked:?} {phase:?} {end:?}");
}
