//! Workers that go away in every phase of an exchange, over either protocol and transport: the reason, how often it is
//! tried, and nothing left over.
//!
//! What they may answer is in `wire_responses`; this is about when they end.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use crate::support::h2::request;
use crate::support::worker::{Protocol, Transport};
use crate::support::{Gateway, Response, Visit, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const LARGE: usize = 2 << 20;

/// Up to where the worker comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Accepted.
    Accepted,
    /// One byte of the head, or of the packet, has been read.
    InHead,
    /// The head has been read, or the packet.
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

impl Asked {
    /// Of the body, in bytes.
    fn length(self) -> usize {
        match self {
            Self::Get => 0,
            Self::Post(length) => length,
        }
    }
}

const PHASES: [Phase; 7] = [Accepted, InHead, Head, HalfBody, Whole, InAnswerHead, InAnswerBody];

/// What is asked of the worker now, and what it does.
#[derive(Debug, Clone, Copy)]
struct Case {
    asked: Asked,
    phase: Phase,
    end: End,
}

fn misbehave(visit: &mut Visit, protocol: Protocol, case: Case) {
    let length = case.asked.length();
    match case.phase {
        Accepted => {}
        InHead => visit.touch(),
        Head => drop(visit.opening(protocol)),
        HalfBody => {
            visit.opening(protocol);
            visit.body(length / 2);
        }
        Whole | InAnswerHead | InAnswerBody => drop(visit.whole(protocol)),
    }
    match case.phase {
        InAnswerHead => drop(visit.send("HTTP/1.1 200 OK\r\nContent-Le")),
        InAnswerBody => drop(visit.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")),
        _ => {}
    }
    match case.end {
        End::Closes => visit.leave(),
        End::Resets => visit.reset(),
    }
}

/// Reasons that may be named, and how often the request may have been sent.
fn expected(transport: Transport, case: Case) -> (&'static [&'static str], RangeInclusive<usize>) {
    const RESET: &[&str] = &["reset_before_head"];
    const EOF: &[&str] = &["eof_before_head"];
    const EITHER: &[&str] = &["reset_before_head", "eof_before_head"];
    let Case { asked, phase, end } = case;
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
    let (method, length) = (if asked == Asked::Get { "GET" } else { "POST" }, asked.length());
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

/// A row for each protocol and transport: one worker and one gateway for all that happens there.
macro_rules! links {
    ($($name:ident = $protocol:ident, $transport:ident;)*) => {
        $(#[test]
        fn $name() {
            Link::start(Protocol::$protocol, Transport::$transport).check_all();
        })*
    };
}

links! {
    a_worker_that_goes_away_in_any_phase_leaves_nothing_behind_in_http_over_tcp = Http1, Tcp;
    a_worker_that_goes_away_in_any_phase_leaves_nothing_behind_in_http_over_unix = Http1, Unix;
    a_worker_that_goes_away_in_any_phase_leaves_nothing_behind_in_uwsgi_over_tcp = Uwsgi, Tcp;
    a_worker_that_goes_away_in_any_phase_leaves_nothing_behind_in_uwsgi_over_unix = Uwsgi, Unix;
}

struct Link {
    protocol: Protocol,
    transport: Transport,
    /// `None` while the worker behaves.
    case: Arc<Mutex<Option<Case>>>,
    worker: Worker,
    gateway: Gateway,
}

impl Link {
    fn start(protocol: Protocol, transport: Transport) -> Self {
        let case = Arc::new(Mutex::new(None));
        let now = Arc::clone(&case);
        let worker = Worker::start(transport, move |visit| {
            let case = *now.lock().unwrap();
            if let Some(case) = case {
                return misbehave(visit, protocol, case);
            }
            visit.whole(protocol);
            visit.send(OK);
        });
        let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint_in(protocol)));
        Self { protocol, transport, case, worker, gateway }
    }

    fn check_all(&self) {
        for asked in [Asked::Get, Asked::Post(9), Asked::Post(LARGE)] {
            for (phase, end) in PHASES.into_iter().flat_map(|phase| [(phase, End::Closes), (phase, End::Resets)]) {
                if phase == HalfBody && asked == Asked::Get {
                    continue;
                }
                for over_h2 in [false, true] {
                    self.check(Case { asked, phase, end }, over_h2);
                }
            }
        }
    }

    fn check(&self, case: Case, over_h2: bool) {
        let (gateway, what) =
            (&self.gateway, format!("{:?} {:?} {case:?} h2: {over_h2}", self.protocol, self.transport));
        let (reasons, tries) = expected(self.transport, case);
        let (connections, failed) = (self.worker.connections(), failures(gateway));
        *self.case.lock().unwrap() = Some(case);
        let response = ask(gateway, case.asked, over_h2);
        if case.phase == InAnswerBody {
            assert!(response.status == 200 && response.cut.is_some(), "{what}: {response:?}");
        } else {
            assert_eq!((response.status, response.cut.as_deref()), (502, None), "{what}: {response:?}");
        }
        let line = gateway.access_of(&response);
        assert!(reasons.iter().any(|reason| line["reason"] == *reason), "{what}: {line}");
        gateway.wait_idle();
        let tried = self.worker.connections() - connections;
        assert!(tries.contains(&tried), "{what}: sent {tried} times");
        // Each attempt that failed was counted, and nothing else.
        assert_eq!(failures(gateway) - failed, tried as f64, "{what}");
        *self.case.lock().unwrap() = None;
        let next = ask(gateway, case.asked, over_h2);
        assert_eq!((next.status, next.text()), (200, "ok"), "after {what}");
        gateway.wait_idle();
    }
}
