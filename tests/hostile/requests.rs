//! Every row of `requests.txt` before a worker that records what it gets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::expressed::Expressed;
use super::strict::{Message, OWN};
use super::table::{self, Deed, Over2, Request};
use crate::support::client::{End, get};
use crate::support::frames::{Frames, Outcome};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Response, Worker, look_until};

/// RFC 9113, 7.
const PROTOCOL_ERROR: u32 = 1;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How the gateway is reached: the scheme of each listener.
const SCHEMES: [&str; 2] = ["http", "https"];

/// A configuration in which one upstream serves shop.example, over both schemes.
pub(super) fn config(endpoint: &str) -> String {
    format!(
        "listeners:
  - {{ bind: \"127.0.0.1:0\" }}
  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}
upstreams:
  app: {{ endpoints: [\"{endpoint}\"], workers: 4, keepalive: {{ idle: 0s }} }}
sites:
  - hosts: [shop.example]
    routes:
      - {{ path: /small/, proxy: app, body_limit: 10 }}
      - {{ path: /, proxy: app }}
"
    )
}

/// A client of HTTP/1.1.
pub(super) fn client(gateway: &Gateway, scheme: &str) -> Client {
    match scheme {
        "http" => Client::connect(gateway.listener("127.0.0.1:0")),
        _ => Client::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root()),
    }
}

fn frames(gateway: &Gateway, scheme: &str) -> Frames {
    match scheme {
        "http" => Frames::connect(gateway.listener("127.0.0.1:0")),
        _ => Frames::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root()),
    }
}

/// A gateway before a worker that keeps every byte. Each request has a connection of its own there, so that whatever follows
/// one is seen.
struct Stage {
    worker: Worker,
    gateway: Gateway,
    scheme: &'static str,
    /// Requests that the worker has had.
    seen: usize,
    /// How often each reason was given.
    refused: BTreeMap<String, u32>,
    /// How often HTTP/2 itself has ended a stream or a connection.
    reset: BTreeMap<&'static str, u32>,
    /// What was refused over HTTP/1.1, for a look at the log: it is written now and then.
    answered: Vec<(String, Response, u16, String)>,
}

impl Stage {
    fn new(scheme: &'static str) -> Self {
        let worker = Worker::start(Transport::Unix, |visit| {
            if visit.request().is_some() {
                visit.send(OK);
                visit.wait_closed();
            }
        });
        let gateway = Gateway::start(&config(&worker.endpoint()));
        Self {
            worker,
            gateway,
            scheme,
            seen: 0,
            refused: BTreeMap::new(),
            reset: BTreeMap::new(),
            answered: Vec::new(),
        }
    }

    /// The one request that has reached the worker since the last look.
    fn arrived(&mut self, what: &str) -> (Vec<u8>, Message) {
        self.worker.wait_ended(self.seen + 1);
        let bytes = self.worker.bytes(self.seen);
        self.seen += 1;
        let message = Message::read(&bytes);
        (bytes, message.unwrap_or_else(|error| panic!("{what}: {error}")))
    }

    fn check_nothing_else_arrived(&self, what: &str) {
        let count = self.worker.connections();
        if count > self.seen {
            let bytes = self.worker.bytes(self.seen);
            panic!("{what}: more reached the worker: {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    fn refused(&mut self, what: &str, line: &Value, status: u16, reason: &str) {
        assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some(reason), Some(status.into())), "{what}");
        *self.refused.entry(reason.to_owned()).or_default() += 1;
    }

    /// The row over HTTP/1.1, on a connection of its own, in pieces of at most so many bytes.
    fn row(&mut self, row: &Request, piece: usize) {
        let what = format!("{} over {}", row.name, self.scheme);
        let mut client = client(&self.gateway, self.scheme);
        row.bytes.chunks(piece).for_each(|piece| client.send(piece));
        let mut is_open = true;
        for deed in &row.deeds {
            match deed {
                Deed::Forwarded { before, after } => {
                    let response = client.response("GET");
                    assert_eq!((response.status, response.text()), (200, "ok"), "{what}");
                    let (bytes, message) = self.arrived(&what);
                    self.check_bytes(&what, &response, &bytes, (before, after));
                    self.check_own(&what, &message);
                    is_open = response.header("connection") != Some("close");
                }
                Deed::Refused { status, reason, stays } => {
                    // Whoever is refused in the middle of sending goes on for a while, and reads the answer all the same.
                    // An error says that the gateway has stopped listening, which it may.
                    let _ = if *stays { Ok(()) } else { client.try_send(vec![b'x'; 100 << 10]) };
                    let response = client.try_response("GET").unwrap_or_else(|| panic!("{what}: no answer"));
                    check_page(&what, &response, (*status, reason), *stays);
                    self.answered.push((what.clone(), response, *status, reason.clone()));
                    is_open = *stays;
                }
            }
        }
        if is_open {
            client.send(get("/next"));
            assert_eq!(client.response("GET").text(), "ok", "{what}: the next request");
            assert_eq!(self.arrived(&what).1.target, "/next", "{what}");
        } else {
            assert_eq!(client.end(), End::Closed, "{what}");
        }
        self.check_nothing_else_arrived(&what);
    }

    /// To the byte, but for the fields of the edge.
    fn check_bytes(&self, what: &str, response: &Response, bytes: &[u8], (before, after): (&[u8], &[u8])) {
        let shown = String::from_utf8_lossy(bytes);
        let own = bytes.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        let own = own.unwrap_or_else(|| panic!("{what}: {shown:?}, not {:?}", String::from_utf8_lossy(before)));
        let own = String::from_utf8_lossy(own);
        let names: Vec<&str> = own.split_terminator("\r\n").filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        assert_eq!(names, OWN, "{what}: {shown:?}");
        assert!(own.contains(&format!("x-request-id: {}\r\n", response.id())), "{what}: {shown:?}");
    }

    fn check_own(&self, what: &str, message: &Message) {
        let own: Vec<&str> = OWN[..4].iter().chain(&OWN[7..]).map(|name| message.one(name)).collect();
        assert_eq!(own, ["127.0.0.1", "127.0.0.1", self.scheme, message.one("host"), "close"], "{what}");
        assert!(message.one("x-request-start").starts_with("t="), "{what}");
    }

    /// The row as a request of HTTP/2, on a connection of its own.
    fn row_over_2(&mut self, row: &Request) {
        let what = format!("{} over HTTP/2 and {}", row.name, self.scheme);
        let name = format!("{}/{}", row.name, self.scheme);
        let expected = match &row.over2 {
            Over2::Unsaid => return,
            Over2::Kept => None,
            Over2::Deed(deed) => Some(deed),
        };
        let mut frames = frames(&self.gateway, self.scheme);
        let outcome = Expressed::of(&row.bytes, self.scheme).send(&mut frames, &name);
        match expected {
            None => self.check_kept(&what, &name, outcome),
            Some(Deed::Refused { status, reason, .. }) => {
                assert!(matches!(outcome, Outcome::Answered { .. }), "{what}: {outcome:?}");
                let line = self.gateway.access_line(&what, |line| line["user_agent"] == name.as_str());
                self.refused(&what, &line, *status, reason);
            }
            Some(Deed::Forwarded { before, after }) => {
                assert_eq!(outcome, Outcome::Answered { status: 200 }, "{what}");
                let (_, message) = self.arrived(&what);
                let wanted = Message::read(&[&before[..], after].concat()).unwrap();
                assert_eq!((&message.method, &message.target), (&wanted.method, &wanted.target), "{what}");
                assert_eq!((&message.body, message.of_the_client()), (&wanted.body, wanted.of_the_client()), "{what}");
                self.check_own(&what, &message);
            }
        }
        self.check_nothing_else_arrived(&what);
    }

    /// Refused with a reason, or by HTTP/2 itself as the protocol error that it is.
    fn check_kept(&mut self, what: &str, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Answered { status } => {
                assert!((400..500).contains(&status) || [501, 505].contains(&status), "{what}: {status}");
                let line = self.gateway.access_line(what, |line| line["user_agent"] == name);
                let reason = line["reason"].as_str().unwrap_or_else(|| panic!("{what}: {line}")).to_owned();
                self.refused(what, &line, status, &reason);
            }
            Outcome::Reset(PROTOCOL_ERROR) => *self.reset.entry("stream").or_default() += 1,
            Outcome::GoAway(PROTOCOL_ERROR) => *self.reset.entry("connection").or_default() += 1,
            _ => panic!("{what}: {outcome:?}"),
        }
    }

    /// Nothing has come late, and what was refused is counted.
    fn check_end(&mut self) {
        for (what, response, status, reason) in std::mem::take(&mut self.answered) {
            let line = self.gateway.access_of(&response);
            self.refused(&what, &line, status, &reason);
        }
        self.gateway.wait_idle();
        self.check_nothing_else_arrived("in the end");
        for (reason, count) in &self.refused {
            let series = format!("hostler_failures_total{{reason=\"{reason}\",upstream=\"\"}}");
            self.gateway.wait_metric(&series, f64::from(*count));
        }
    }
}

fn check_page(what: &str, response: &Response, (status, reason): (u16, &str), stays: bool) {
    assert_eq!((response.status, response.cut.as_deref()), (status, None), "{what}: {response:?}");
    assert!(response.text().contains(&format!("reason: {reason}\n")), "{what}: {response:?}");
    let named = response.header("proxy-status").is_some_and(|value| value.contains(reason));
    assert!(named, "{what}: {response:?}");
    assert_eq!(response.header("connection"), (!stays).then_some("close"), "{what}");
}

#[test]
fn every_request_is_refused_with_its_reason_or_reaches_the_worker_in_one_form() {
    for scheme in SCHEMES {
        let mut stage = Stage::new(scheme);
        let rows = table::requests();
        for row in &rows {
            stage.row(row, usize::MAX);
        }
        stage.check_end();
        let underscores: usize = rows.iter().map(underscores).sum();
        let dropped = "hostler_headers_dropped_total{kind=\"underscore\"}";
        stage.gateway.wait_metric(dropped, underscores as f64);
    }
}

#[test]
fn it_makes_no_difference_how_the_bytes_of_a_request_arrive() {
    let mut stage = Stage::new("http");
    for row in table::requests().iter().filter(|row| row.bytes.len() < 400) {
        stage.row(row, 1);
    }
    stage.check_end();
}

#[test]
fn every_request_that_http2_can_say_is_refused_or_reaches_the_worker_in_one_form() {
    for scheme in SCHEMES {
        let mut stage = Stage::new(scheme);
        for row in &table::requests() {
            stage.row_over_2(row);
        }
        // What HTTP/2 itself resets may have been refused with a reason besides, and the other way round.
        let reasons = std::mem::take(&mut stage.refused);
        let resets = std::mem::take(&mut stage.reset);
        let series = reasons
            .into_iter()
            .map(|(reason, count)| (format!("hostler_failures_total{{reason=\"{reason}\",upstream=\"\"}}"), count));
        let of_http2 = resets.into_iter().map(|(scope, count)| {
            (format!("hostler_http2_refused_total{{kind=\"protocol_error\",scope=\"{scope}\"}}"), count)
        });
        for (series, count) in series.chain(of_http2) {
            let is_counted = || (stage.gateway.metric(&series) >= f64::from(count)).then_some(());
            assert!(look_until(is_counted).is_some(), "{series} is less than {count}");
        }
        stage.check_end();
    }
}

/// How many names with an underscore are dropped from what is sent on.
fn underscores(row: &Request) -> usize {
    if !row.deeds.iter().any(|deed| matches!(deed, Deed::Forwarded { .. })) {
        return 0;
    }
    let text = String::from_utf8_lossy(&row.bytes);
    text.split("\r\n").filter(|line| line.split_once(": ").is_some_and(|(name, _)| name.contains('_'))).count()
}
