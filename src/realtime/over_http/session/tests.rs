//! Every rule of the table, without any input or output.

use std::task::{Context, Waker};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A session with a client and an app that do as they are told.
struct Stage {
    session: Session,
    out: Outbox,
    now: Duration,
}

/// A frame as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Close(Option<u16>, String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// What a client has to take.
const RATE: MinRate = MinRate { min: 10, after: Duration::from_secs(60) };

fn rules() -> Rules {
    Rules { is_grip: true, buffer: 1000, ping: Some(25 * SECOND), read_rate: RATE }
}

fn answer(body: &str) -> Answer {
    Answer { events: events::decode(&Bytes::copy_from_slice(body.as_bytes())).unwrap(), ..Answer::default() }
}

/// A text as the app and the edge write it to each other.
fn event(words: &str) -> String {
    format!("TEXT {:x}\r\n{words}\r\n", words.len())
}

/// An answer that takes so many bytes of what was sent, and says nothing.
fn accepted(bytes: u64) -> Answer {
    Answer { accepted: Some(bytes), ..Answer::default() }
}

fn failure(reason: Reason) -> Failure {
    Failure::of(&crate::error::Error::new(reason), true)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Stage {
    /// Opened by an app that has said this.
    fn opened(rules: Rules, first: Answer, prefix: Option<&'static [u8]>) -> Self {
        let now = Duration::from_secs(1000);
        let mut stage = Self { session: Session::new(Rc::new(rules), now), out: Outbox::default(), now };
        stage.session.opened(first, prefix.map(Bytes::from_static), now, &mut stage.out);
        stage
    }

    /// Opened by an app that speaks GRIP with messages that begin with `m:`.
    fn grip() -> Self {
        Self::opened(rules(), answer("OPEN\r\n"), Some(b"m:"))
    }

    /// Opened by an app that does not.
    fn plain() -> Self {
        Self::opened(rules(), answer("OPEN\r\n"), None)
    }

    /// The client has said this, and its app is being asked.
    fn asking(mut self, words: &str) -> Self {
        self.says(words);
        assert_eq!(self.asks().unwrap(), event(words));
        self
    }

    fn says(&mut self, words: &str) {
        self.gets(Received::Text(Bytes::copy_from_slice(words.as_bytes())));
    }

    fn gets(&mut self, received: Received) {
        self.session.received(received, self.now, &mut self.out);
    }

    fn closes(&mut self, code: u16, reason: &str) {
        self.gets(Received::Close(Some(code), reason.to_owned()));
    }

    /// The next request.
    fn request(&mut self) -> Option<Sending> {
        self.session.next_request(self.now, &self.out)
    }

    /// Its body.
    fn asks(&mut self) -> Option<String> {
        Some(text(&self.request()?.body))
    }

    fn answers(&mut self, body: &str) {
        self.answered(answer(body));
    }

    fn answered(&mut self, answer: Answer) {
        self.session.answered(Ok(answer), self.now, &mut self.out);
    }

    fn fails(&mut self, reason: Reason) {
        self.session.answered(Err(failure(reason)), self.now, &mut self.out);
    }

    fn publishes(&mut self, frame: &'static [u8]) {
        self.session.published(Bytes::from_static(frame), self.now, &mut self.out);
    }

    /// The client has sent something, whatever it is.
    fn heard(&mut self) {
        self.session.heard(self.now);
    }

    /// The client takes so many bytes of what waits for it.
    fn wrote(&mut self, bytes: usize) {
        self.session.wrote(bytes, self.now, &self.out);
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
        self.session.time(self.now, &mut self.out);
    }

    /// What the client has got since the last look.
    fn seen(&mut self) -> Vec<Seen> {
        let mut bytes = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.out.poll_write(&mut bytes, &mut cx).is_ready());
        self.wrote(1);
        let (mut seen, mut rest) = (Vec::new(), &bytes[..]);
        while let [first, length, after @ ..] = rest {
            let (length, after) = match length {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                length => (usize::from(*length), after),
            };
            let payload = after[..length].to_vec();
            rest = &after[length..];
            seen.push(match first {
                0x81 => Seen::Text(text(&payload)),
                0x82 => Seen::Binary(payload),
                0x88 if payload.is_empty() => Seen::Close(None, String::new()),
                0x88 => Seen::Close(Some(u16::from_be_bytes([payload[0], payload[1]])), text(&payload[2..])),
                0x89 => Seen::Ping(payload),
                0x8a => Seen::Pong(payload),
                other => panic!("{other:x}"),
            });
        }
        seen
    }

    fn reason(&self) -> Option<Reason> {
        self.session.cause().map(|cause| cause.reason)
    }

    /// What the app hears once the client's side is over.
    fn farewell(&mut self) -> Option<String> {
        self.session.leave();
        self.asks()
    }
}

fn said(words: &str) -> Vec<Seen> {
    vec![Seen::Text(words.to_owned())]
}

fn closed(code: u16) -> Vec<Seen> {
    vec![Seen::Close(Some(code), String::new())]
}

#[test]
fn one_request_is_out_at_a_time_and_what_comes_meanwhile_goes_together() {
    let mut stage = Stage::plain();
    assert_eq!(stage.asks(), None);
    stage.says("a");
    assert_eq!(stage.asks().unwrap(), "TEXT 1\r\na\r\n");
    stage.says("b");
    stage.gets(Received::Binary(Bytes::from_static(b"c")));
    stage.says("");
    assert_eq!(stage.asks(), None);
    stage.answers("TEXT 1\r\nA\r\n");
    assert_eq!(stage.seen(), said("A"));
    assert_eq!(stage.asks().unwrap(), "TEXT 1\r\nb\r\nBINARY 1\r\nc\r\nTEXT 0\r\n\r\n");
    stage.answers("");
    assert_eq!(stage.asks(), None);
    assert_eq!(stage.session.take_counts(), (4, 1));
}

#[test]
fn what_stands_behind_open_is_said_at_once() {
    let control = event(r#"c:{"type":"subscribe","channel":"room one"}"#);
    let first = answer(&format!("OPEN\r\n{control}{}", event("m:hello")));
    let mut stage = Stage::opened(rules(), first, Some(b"m:"));
    assert_eq!(stage.seen(), said("hello"));
    let wishes = stage.session.take_wishes();
    assert_eq!(wishes, [Wish::Subscribe { channel: "room one".into(), filters: vec![] }]);
}

#[test]
fn without_grip_everything_is_for_the_client() {
    let rules = Rules { is_grip: false, ..rules() };
    let mut stage = Stage::opened(rules, answer("OPEN\r\nTEXT 3\r\nm:a\r\n"), Some(b"m:"));
    assert_eq!(stage.seen(), said("m:a"));
    stage.says("x");
    stage.asks();
    stage.answers("TEXT 13\r\nc:{\"type\":\"detach\"}\r\n");
    assert_eq!(stage.seen(), said("c:{\"type\":\"detach\"}"));
}

#[test]
fn what_is_for_neither_the_client_nor_the_edge_is_dropped() {
    let mut stage = Stage::grip().asking("x");
    stage.answers("TEXT 1\r\na\r\nTEXT 3\r\nm:b\r\nBINARY 3\r\nm:c\r\nBINARY 3\r\nc:d\r\nTEXT 6\r\nc:nope\r\nPING 1\r\np\r\nPONG\r\n");
    let expected = [Seen::Text("b".into()), Seen::Binary(b"c".to_vec()), Seen::Ping(b"p".to_vec()), Seen::Pong(vec![])];
    assert_eq!(stage.seen(), expected);
}

#[test]
fn the_clients_close_is_the_apps_and_its_answer_the_clients() {
    for (answer, code, reason) in [
        ("CLOSE 2\r\n\u{b}\u{c}\r\n", Some(1011), ""),
        ("CLOSE 5\r\n\u{3}\u{e}end\r\n", Some(1011), "end"),
        ("CLOSE\r\n", Some(1000), ""),
        ("CLOSE 2\r\n\0\0\r\n", Some(1000), ""),
        ("", Some(1000), "bye"),
    ] {
        let mut stage = Stage::plain();
        stage.says("a");
        stage.closes(1000, "bye");
        assert!(!stage.session.wants_input());
        let sent = stage.request().unwrap().body;
        assert_eq!(&sent[..], b"TEXT 1\r\na\r\nCLOSE 5\r\n\x03\xe8bye\r\n");
        assert_eq!((stage.seen(), stage.session.over()), (vec![], None));
        stage.answers(answer);
        assert_eq!(stage.seen(), [Seen::Close(code, reason.to_owned())], "{answer:?}");
        assert_eq!((stage.session.over(), stage.reason()), (Some(true), None));
        assert_eq!(stage.farewell(), None, "it has been told");
    }
}

#[test]
fn messages_of_the_app_go_before_its_close_and_none_behind_it() {
    let mut stage = Stage::plain();
    stage.gets(Received::Close(None, String::new()));
    assert_eq!(stage.asks().unwrap(), "CLOSE\r\n");
    stage.answers("TEXT 1\r\na\r\nCLOSE\r\nTEXT 1\r\nb\r\n");
    assert_eq!(stage.seen(), [Seen::Text("a".into()), Seen::Close(None, String::new())]);
}

#[test]
fn a_client_that_closes_does_not_wait_long_for_its_app() {
    let mut stage = Stage::plain().asking("a");
    stage.says("b");
    stage.closes(1001, "");
    stage.later(CLOSE_PATIENCE - SECOND);
    assert_eq!(stage.session.over(), None);
    stage.later(SECOND);
    assert_eq!((stage.seen(), stage.session.over()), (closed(1001), Some(true)));
    // The app hears of it all the same, when it has answered.
    stage.session.leave();
    assert_eq!(stage.asks(), None);
    stage.answers("TEXT 1\r\nA\r\n");
    let sent = stage.request().unwrap().body;
    assert_eq!(&sent[..], b"TEXT 1\r\nb\r\nCLOSE 2\r\n\x03\xe9\r\n");
    stage.answers("");
    assert_eq!((stage.asks(), stage.seen()), (None, vec![]));
}

#[test]
fn the_apps_close_is_the_clients_and_the_clients_answer_the_apps() {
    let mut stage = Stage::plain().asking("a");
    stage.answers("CLOSE 5\r\n\u{3}\u{c}end\r\nTEXT 1\r\nb\r\n");
    assert_eq!(stage.seen(), [Seen::Close(Some(1011), "end".into())], "780 is no code");
    stage.says("too late");
    assert!(stage.session.wants_input(), "its Close is waited for");
    assert_eq!(stage.asks(), None);
    stage.closes(1011, "");
    assert_eq!(stage.session.over(), Some(true));
    let sent = stage.request().unwrap().body;
    assert_eq!(&sent[..], b"CLOSE 2\r\n\x03\xf3\r\n");
    stage.answers("CLOSE\r\n");
    assert_eq!((stage.farewell(), stage.seen()), (None, vec![]));
}

#[test]
fn a_client_that_does_not_answer_a_close_is_dropped() {
    let mut stage = Stage::plain().asking("a");
    stage.answers("CLOSE\r\n");
    assert_eq!(stage.seen(), [Seen::Close(None, String::new())]);
    stage.later(CLOSE_PATIENCE);
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), None));
    assert_eq!(stage.farewell().unwrap(), "DISCONNECT\r\n");
}

#[test]
fn the_apps_disconnect_drops_the_client_and_is_not_told_to_it() {
    let mut stage = Stage::plain().asking("a");
    stage.answers("TEXT 1\r\nA\r\nDISCONNECT\r\n");
    assert_eq!((stage.session.over(), stage.farewell()), (Some(false), None));
}

#[test]
fn a_client_that_breaks_the_rules_is_told_so_and_its_app_hears_of_what_came_before() {
    for (code, reason) in
        [(1002, Reason::WebsocketProtocol), (1007, Reason::WebsocketProtocol), (1009, Reason::WebsocketTooBig)]
    {
        let mut stage = Stage::plain();
        stage.says("a");
        stage.gets(Received::Broken(Broken { code, reason, detail: String::new() }));
        assert_eq!((stage.seen(), stage.session.over(), stage.reason()), (closed(code), Some(true), Some(reason)));
        assert_eq!(stage.farewell().unwrap(), "TEXT 1\r\na\r\nDISCONNECT\r\n");
    }
}

#[test]
fn an_app_hears_of_a_client_that_has_vanished_behind_what_it_has_said() {
    let mut stage = Stage::plain().asking("a");
    stage.says("b");
    stage.gets(Received::Gone);
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), Some(Reason::ClientGone)));
    assert_eq!(stage.farewell(), None, "one request is out");
    stage.answers("TEXT 1\r\nA\r\nCLOSE\r\n");
    assert_eq!(stage.asks().unwrap(), "TEXT 1\r\nb\r\nDISCONNECT\r\n");
    stage.answers("");
    assert_eq!((stage.asks(), stage.seen()), (None, vec![]));
}

#[test]
fn an_app_that_fails_ends_the_socket_and_gets_nothing_twice() {
    for (reason, code) in [
        (Reason::EofBeforeHead, 1011),
        (Reason::HeadTimeout, 1011),
        (Reason::RouteTimeout, 1011),
        (Reason::ConnectRefused, 1011),
        (Reason::QueueFull, 1013),
        (Reason::QueueTimeout, 1013),
    ] {
        let mut stage = Stage::plain().asking("a");
        stage.says("b");
        stage.fails(reason);
        assert_eq!((stage.seen(), stage.session.over(), stage.reason()), (closed(code), Some(true), Some(reason)));
        assert_eq!(stage.farewell().unwrap(), "DISCONNECT\r\n", "{reason}");
    }
}

#[test]
fn a_farewell_that_fails_is_said_once() {
    let mut stage = Stage::plain();
    stage.gets(Received::Gone);
    assert_eq!(stage.farewell().unwrap(), "DISCONNECT\r\n");
    stage.fails(Reason::EofBeforeHead);
    assert_eq!(stage.asks(), None);
    // What was out before it is another matter.
    let mut stage = Stage::plain().asking("a");
    stage.says("b");
    stage.gets(Received::Gone);
    assert_eq!(stage.farewell(), None);
    stage.fails(Reason::EofBeforeHead);
    assert_eq!(stage.asks().unwrap(), "DISCONNECT\r\n");
    stage.fails(Reason::EofBeforeHead);
    assert_eq!(stage.asks(), None);
}

#[test]
fn an_answer_that_makes_no_sense_ends_the_socket() {
    for what in ["OPEN\r\n", "TEXT 1\r\na\r\nOPEN\r\n"] {
        let mut stage = Stage::plain().asking("a");
        stage.answers(what);
        assert_eq!(stage.seen().pop(), closed(1011).pop());
        assert_eq!(stage.reason(), Some(Reason::BadEvents));
    }
    let mut stage = Stage::plain().asking("a");
    stage.answered(accepted(2));
    assert_eq!((stage.seen(), stage.reason()), (closed(1011), Some(Reason::BadEvents)));
    assert_eq!(stage.session.cause().unwrap().detail, "Content-Bytes-Accepted is 2 of 1");
}

#[test]
fn a_farewell_that_is_answered_with_nonsense_is_said_once() {
    let mut stage = Stage::plain();
    stage.says("a");
    stage.gets(Received::Gone);
    assert_eq!(stage.farewell().unwrap(), "TEXT 1\r\na\r\nDISCONNECT\r\n");
    stage.answered(accepted(2));
    assert_eq!(stage.asks(), None);
}

#[test]
fn an_app_that_takes_nothing_of_a_full_buffer_ends_the_socket() {
    for (taken, reason) in [(0, Some(Reason::BadEvents)), (1, None)] {
        let mut stage = Stage::plain().asking(&"x".repeat(1200));
        assert!(!stage.session.wants_input());
        stage.answered(accepted(taken));
        assert_eq!(stage.reason(), reason, "{taken}");
        assert_eq!(stage.asks().is_some(), reason.is_none(), "what is left goes again at once");
    }
}

#[test]
fn a_slow_client_has_what_was_sent_before_a_close_has_its_time() {
    let mut stage = Stage::plain().asking("a");
    stage.answers(&format!("TEXT 3e8\r\n{}\r\nCLOSE\r\n", "x".repeat(1000)));
    for _ in 0..10 {
        stage.wrote(500);
        stage.later(50 * SECOND);
        assert_eq!(stage.session.over(), None, "it is still taking");
    }
    assert_eq!(stage.seen().len(), 2);
    stage.later(CLOSE_PATIENCE - SECOND);
    assert_eq!(stage.session.over(), None);
    stage.later(SECOND);
    assert_eq!(stage.session.over(), Some(false));
}

#[test]
fn an_app_that_detaches_with_its_last_answer_hears_nothing_more() {
    let mut stage = Stage::grip().asking("a");
    stage.gets(Received::Gone);
    assert_eq!(stage.farewell(), None);
    stage.answers("TEXT 13\r\nc:{\"type\":\"detach\"}\r\n");
    assert_eq!(stage.asks(), None);
}

#[test]
fn a_drain_waits_a_moment_for_the_answer_that_is_on_its_way() {
    for is_answered in [true, false] {
        let mut stage = Stage::plain().asking("a");
        stage.session.drain(stage.now, 2 * SECOND);
        stage.later(Duration::ZERO);
        assert_eq!(stage.seen(), []);
        if is_answered {
            stage.answers("TEXT 1\r\nA\r\n");
            assert_eq!(stage.seen(), [Seen::Text("A".into()), Seen::Close(Some(1001), String::new())]);
        } else {
            stage.later(2 * SECOND);
            assert_eq!(stage.seen(), closed(1001));
        }
        assert_eq!(stage.reason(), Some(Reason::ShuttingDown));
    }
}

#[test]
fn keep_alives_do_not_pile_up_before_a_client_that_takes_nothing() {
    let mut stage = Stage::grip().asking("x");
    let keep_alive = event(r#"c:{"type":"keep-alive","content":"k","timeout":1,"mode":"interval"}"#);
    stage.answers(&[keep_alive, event("m:a")].concat());
    for _ in 0..20 {
        stage.later(SECOND);
    }
    assert_eq!(stage.seen(), said("a"));
    stage.later(SECOND);
    assert_eq!(stage.seen(), said("k"));
}

#[test]
fn what_the_app_has_not_taken_goes_with_the_next_message() {
    let mut stage = Stage::plain().asking("abc");
    stage.answered(accepted(1));
    assert_eq!(stage.asks(), None, "nothing new");
    stage.says("d");
    let sending = stage.request().unwrap();
    assert_eq!((text(&sending.body).as_str(), sending.replayed), ("TEXT 2\r\nbc\r\nTEXT 1\r\nd\r\n", 2));
}

#[test]
fn a_detached_app_hears_nothing_more_and_what_is_published_still_comes() {
    let mut stage = Stage::grip().asking("a");
    stage.says("b");
    stage.answers("TEXT 13\r\nc:{\"type\":\"detach\"}\r\nTEXT 3\r\nm:x\r\n");
    assert_eq!(stage.seen(), said("x"));
    stage.says("c");
    assert_eq!(stage.asks(), None);
    stage.publishes(b"\x81\x01p");
    assert_eq!(stage.seen(), said("p"));
    stage.closes(1000, "");
    assert_eq!((stage.seen(), stage.session.over()), (closed(1000), Some(true)));
    assert_eq!(stage.farewell(), None);
}

#[test]
fn an_app_that_wants_to_be_asked_is_asked_when_nothing_else_is() {
    let mut stage = Stage::plain().asking("a");
    let interval = Answer { interval: Some(Some(30 * SECOND)), ..Answer::default() };
    stage.answered(interval);
    assert_eq!(stage.session.next_time(&stage.out), Some(stage.now + 25 * SECOND), "that is a ping");
    stage.later(29 * SECOND);
    assert_eq!(stage.asks(), None);
    stage.later(SECOND);
    assert_eq!(stage.asks().unwrap(), "");
    stage.later(60 * SECOND);
    assert_eq!(stage.asks(), None, "one is out");
    stage.answers("");
    stage.heard();
    stage.later(30 * SECOND);
    assert_eq!(stage.asks().unwrap(), "");
    let off = Answer { interval: Some(None), ..Answer::default() };
    stage.answered(off);
    stage.later(90 * SECOND);
    assert_eq!(stage.asks(), None);
}

#[test]
fn a_time_at_which_the_app_cannot_be_asked_is_none_to_wake_for() {
    let mut stage = Stage::plain().asking("a");
    let full = answer(&event(&"x".repeat(1000)));
    let interval = Answer { interval: Some(Some(5 * SECOND)), ..full };
    stage.answered(interval);
    stage.wrote(0);
    stage.later(5 * SECOND);
    assert_eq!(stage.asks(), None, "1000 bytes wait for the client");
    assert_eq!(stage.session.next_time(&stage.out), Some(stage.now + 20 * SECOND), "that is a ping");
    assert_eq!(stage.seen().len(), 1);
    assert_eq!(stage.session.next_time(&stage.out), Some(stage.now), "it is due");
    assert_eq!(stage.asks().unwrap(), "");
}

#[test]
fn it_may_be_published_that_the_app_wants_to_be_asked() {
    let mut stage = Stage::grip();
    stage.session.published_refresh();
    assert_eq!(stage.asks().unwrap(), "");
    stage.session.published_refresh();
    assert_eq!(stage.asks(), None);
    stage.answers("");
    assert_eq!(stage.asks().unwrap(), "");
}

#[test]
fn a_silent_client_is_pinged_and_dropped_after_two_pings_without_an_answer() {
    let mut stage = Stage::plain();
    stage.later(25 * SECOND);
    assert_eq!(stage.seen(), [Seen::Ping(vec![])]);
    stage.later(25 * SECOND);
    assert_eq!(stage.seen(), [Seen::Ping(vec![])]);
    stage.heard();
    for _ in 0..2 {
        stage.later(25 * SECOND);
        assert_eq!(stage.seen(), [Seen::Ping(vec![])]);
    }
    stage.later(24 * SECOND);
    assert_eq!(stage.session.over(), None);
    stage.later(SECOND);
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), Some(Reason::PingTimeout)));
    assert_eq!(stage.farewell().unwrap(), "DISCONNECT\r\n");
}

#[test]
fn a_client_to_which_nobody_listens_is_not_called_silent() {
    let mut stage = Stage::plain().asking(&"x".repeat(600));
    stage.says(&"x".repeat(600));
    assert!(!stage.session.wants_input(), "1000 bytes wait for the app");
    for _ in 0..10 {
        stage.later(25 * SECOND);
    }
    assert_eq!((stage.session.over(), stage.seen()), (None, vec![]));
    stage.answers("");
    assert!(stage.session.wants_input());
}

#[test]
fn a_client_that_is_still_taking_what_was_sent_is_not_asked_whether_it_is_there() {
    let mut stage = Stage::plain().asking("a");
    stage.answers(&event(&"x".repeat(500)));
    for _ in 0..10 {
        stage.wrote(250);
        stage.later(25 * SECOND);
    }
    assert_eq!((stage.seen().len(), stage.session.over()), (1, None), "no ping among it");
    stage.wrote(1);
    stage.later(25 * SECOND);
    assert_eq!(stage.seen(), [Seen::Ping(vec![])]);
}

#[test]
fn pings_may_be_off() {
    let mut stage = Stage::opened(Rules { ping: None, ..rules() }, answer("OPEN\r\n"), None);
    assert_eq!(stage.session.next_time(&stage.out), None);
    stage.heard();
    stage.later(1000 * SECOND);
    assert_eq!((stage.seen(), stage.session.over()), (vec![], None));
}

#[test]
fn a_client_that_takes_nothing_holds_the_app_up_and_is_given_up() {
    let mut stage = Stage::plain().asking("a");
    stage.answers(&event(&"x".repeat(1000)));
    stage.wrote(0);
    stage.says("b");
    assert_eq!(stage.asks(), None, "1000 bytes wait for the client");
    assert!(!stage.session.wants_published(&stage.out));
    stage.now += 20 * SECOND;
    stage.heard();
    stage.now += 20 * SECOND;
    stage.wrote(400);
    stage.heard();
    stage.later(20 * SECOND);
    stage.heard();
    stage.wrote(0);
    stage.later(20 * SECOND);
    stage.heard();
    stage.later(19 * SECOND);
    assert_eq!(stage.session.over(), None);
    stage.later(SECOND);
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), Some(Reason::ClientStalled)));
    assert_eq!(stage.farewell().unwrap(), "TEXT 1\r\nb\r\nDISCONNECT\r\n");
}

#[test]
fn a_byte_now_and_then_is_not_enough() {
    let mut stage = Stage::plain().asking("a");
    stage.answers(&event(&"x".repeat(1000)));
    for _ in 0..3 {
        assert_eq!(stage.session.over(), None);
        stage.wrote(1);
        stage.heard();
        stage.later(25 * SECOND);
    }
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), Some(Reason::ClientStalled)));
}

#[test]
fn who_takes_all_in_the_end_may_be_slow_each_time() {
    let mut stage = Stage::plain().asking("a");
    for _ in 0..100 {
        stage.answers(&event("b"));
        stage.wrote(0);
        stage.later(50 * SECOND);
        assert_eq!(stage.session.over(), None);
        stage.seen();
        stage.says("a");
        stage.asks();
    }
}

#[test]
fn a_client_that_goes_on_taking_is_asked_for_again() {
    let mut stage = Stage::plain().asking("a");
    stage.answers(&event(&"x".repeat(1000)));
    stage.wrote(0);
    stage.says("b");
    stage.seen();
    stage.wrote(1);
    assert_eq!(stage.asks().unwrap(), "TEXT 1\r\nb\r\n");
    stage.session.heard(stage.now + 100 * SECOND);
    stage.later(100 * SECOND);
    assert_eq!(stage.session.over(), None);
}

#[test]
fn more_than_is_taken_of_what_is_published_drops_the_client() {
    let mut stage = Stage::grip();
    stage.session.overflowed();
    assert_eq!((stage.session.over(), stage.reason()), (Some(false), Some(Reason::HoldOverflow)));
}

#[test]
fn a_drain_says_going_away_at_its_time_and_tells_the_app() {
    for answers in [true, false] {
        let mut stage = Stage::plain();
        stage.says("a");
        stage.session.drain(stage.now + SECOND, 2 * SECOND);
        stage.later(SECOND);
        assert_eq!((stage.seen(), stage.reason()), (closed(1001), Some(Reason::ShuttingDown)));
        let expected: &[u8] = match answers {
            true => {
                stage.closes(1001, "");
                assert_eq!(stage.session.over(), Some(true));
                b"TEXT 1\r\na\r\nCLOSE 2\r\n\x03\xe9\r\n"
            }
            false => {
                stage.later(2 * SECOND);
                assert_eq!(stage.session.over(), Some(false));
                b"TEXT 1\r\na\r\nDISCONNECT\r\n"
            }
        };
        stage.session.leave();
        let sent = stage.request().unwrap().body;
        assert_eq!(&sent[..], expected);
    }
}

#[test]
fn what_is_published_comes_in_order_with_what_the_app_says() {
    let mut stage = Stage::grip();
    stage.publishes(b"\x81\x011");
    stage.says("x");
    stage.asks();
    stage.answers("TEXT 3\r\nm:2\r\n");
    stage.publishes(b"\x81\x013");
    let seen: Vec<_> = stage.seen();
    assert_eq!(seen, ["1", "2", "3"].map(|name| Seen::Text(name.into())));
    stage.session.published_close(Some(4001), "kicked", &mut stage.out);
    stage.publishes(b"\x81\x014");
    assert_eq!(stage.seen(), [Seen::Close(Some(4001), "kicked".into())]);
}

#[test]
fn delayed_messages_come_at_their_time_one_at_a_time() {
    let mut stage = Stage::grip().asking("x");
    let delayed =
        |content: &str| event(&format!("c:{{\"type\":\"send-delayed\",\"content\":\"{content}\",\"timeout\":10}}"));
    stage.answers(&[delayed("a"), delayed("b")].concat());
    assert_eq!(stage.seen(), said("a"), "the second sends the first");
    stage.later(9 * SECOND);
    assert_eq!(stage.seen(), []);
    stage.later(SECOND);
    assert_eq!(stage.seen(), said("b"));
    stage.says("x");
    stage.asks();
    stage.answers(&[&delayed("c"), "TEXT 1a\r\nc:{\"type\":\"flush-delayed\"}\r\n"].concat());
    assert_eq!(stage.seen(), said("c"));
    stage.heard();
    stage.later(20 * SECOND);
    assert_eq!(stage.seen(), []);
}

#[test]
fn the_apps_keep_alive_is_sent_when_nothing_else_is_or_always() {
    for (mode, at_20) in [("idle", vec![]), ("interval", said("k"))] {
        let mut stage = Stage::grip().asking("x");
        let json = format!("c:{{\"type\":\"keep-alive\",\"content\":\"k\",\"timeout\":10,\"mode\":\"{mode}\"}}");
        stage.answers(&event(&json));
        stage.later(10 * SECOND);
        assert_eq!(stage.seen(), said("k"));
        stage.later(5 * SECOND);
        stage.publishes(b"\x81\x01p");
        assert_eq!(stage.seen(), said("p"));
        stage.later(5 * SECOND);
        assert_eq!(stage.seen(), at_20, "{mode}");
        stage.heard();
        stage.later(5 * SECOND);
        assert_eq!(stage.seen().len(), usize::from(mode == "idle"));
    }
}

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    /// The client says the next word.
    Say(usize),
    /// The app is asked, if it can be.
    Ask,
    /// It takes so much of what it has, in hundredths, and says something.
    Answer(usize),
    /// It fails, and may have done it or not.
    Fail(bool),
    /// Time passes.
    Wait(u64),
    /// The client takes what is there.
    Take,
    Close,
    Vanish,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..40).prop_map(Step::Say),
        6 => Just(Step::Ask),
        6 => prop_oneof![3 => Just(100), 1 => 0_usize..100].prop_map(Step::Answer),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (0_u64..20).prop_map(Step::Wait),
        3 => Just(Step::Take),
        1 => Just(Step::Close),
        1 => Just(Step::Vanish),
        1 => Just(Step::Drain),
    ]
}

/// An app that notes what it has taken, in order.
#[derive(Default)]
struct App {
    /// The contents that it has taken for good.
    taken: String,
    /// What it may have taken besides, from a request that has no answer.
    perhaps: String,
    ends: usize,
    is_cut: bool,
}

impl App {
    fn contents(body: &Bytes) -> String {
        let messages = events::decode_unchecked(body).filter(|event| event.kind == Kind::Text);
        messages.map(|event| text(&event.content)).collect()
    }

    fn ends(body: &Bytes) -> usize {
        events::decode_unchecked(body).filter(|event| matches!(event.kind, Kind::Close | Kind::Disconnect)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whichever order: what the app has taken is the beginning of what the client has said, once; it is all
    /// of it if nothing has failed; what was out at a failure is never sent again; and the app hears of one end.
    #[test]
    fn nothing_that_is_acknowledged_is_lost_doubled_or_reordered(steps in proptest::collection::vec(step(), 1..60)) {
        let mut stage = Stage::plain();
        let (mut said, mut app, mut out, mut next) = (String::new(), App::default(), None::<Sending>, 0_u32);
        let mut replies = (Vec::new(), Vec::new());
        let ask = |stage: &mut Stage, out: &mut Option<Sending>, app: &App| -> Result<(), TestCaseError> {
            if let Some(sending) = stage.request() {
                prop_assert!(out.is_none(), "two are out");
                prop_assert_eq!(app.is_cut && !App::contents(&sending.body).is_empty(), false, "sent behind a failure");
                *out = Some(sending);
            }
            Ok(())
        };
        let mut accept = |stage: &mut Stage, out: &mut Option<Sending>, app: &mut App, part: usize, replies: &mut Vec<String>| {
            let Some(sending) = out.take() else { return };
            let contents = App::contents(&sending.body);
            let all: usize = events::decode_unchecked(&sending.body).map(|event| event.content.len()).sum();
            // Who takes nothing for ever is another matter.
            let taken = if App::ends(&sending.body) > 0 { all } else { all * part / 100 };
            app.taken.push_str(&contents[..taken.min(contents.len())]);
            app.ends += App::ends(&sending.body);
            next += 1;
            let word = format!("reply {next}");
            let events = vec![Event { kind: Kind::Text, content: Bytes::from(word.clone()) }];
            let answer = Answer { events, accepted: Some(taken as u64), ..Answer::default() };
            let was_speaking = stage.session.is_speaking();
            stage.answered(answer);
            if was_speaking {
                replies.push(word);
            }
        };
        let mut is_orderly = true;
        for step in steps {
            if stage.session.over().is_some() {
                break;
            }
            match step {
                Step::Say(length) => {
                    if stage.session.wants_input() {
                        let word: String = (0..length).map(|at| char::from(b'a' + ((said.len() + at) % 26) as u8)).collect();
                        if stage.session.stage == super::Stage::Open {
                            said.push_str(&word);
                        }
                        stage.says(&word);
                    }
                }
                Step::Ask => ask(&mut stage, &mut out, &app)?,
                Step::Answer(part) => accept(&mut stage, &mut out, &mut app, part, &mut replies.0),
                Step::Fail(is_done) => {
                    if let Some(sending) = out.take() {
                        if is_done {
                            app.perhaps = App::contents(&sending.body);
                            app.ends += App::ends(&sending.body);
                        }
                        app.is_cut = true;
                        stage.fails(Reason::EofBeforeHead);
                    }
                }
                Step::Wait(seconds) => stage.later(Duration::from_secs(seconds)),
                Step::Take => {
                    replies.1.extend(stage.seen());
                    stage.heard();
                    stage.wrote(1);
                }
                Step::Close if stage.session.wants_input() => stage.closes(1000, ""),
                Step::Vanish if stage.session.wants_input() => {
                    is_orderly = false;
                    stage.gets(Received::Gone);
                }
                Step::Drain => stage.session.drain(stage.now, SECOND),
                Step::Close | Step::Vanish => {}
            }
        }
        replies.1.extend(stage.seen());
        stage.session.leave();
        for _ in 0..4 {
            ask(&mut stage, &mut out, &app)?;
            accept(&mut stage, &mut out, &mut app, 100, &mut Vec::new());
        }
        prop_assert!(said.starts_with(&app.taken), "{} is not the beginning of {}", app.taken, said);
        prop_assert!(said[app.taken.len()..].starts_with(&app.perhaps) || app.perhaps.is_empty());
        if !app.is_cut {
            prop_assert_eq!(&app.taken, &said);
            prop_assert_eq!(app.ends, 1);
        }
        let heard: Vec<_> = replies.1.into_iter().filter_map(|seen| match seen { Seen::Text(text) => Some(text), _ => None }).collect();
        prop_assert!(replies.0.starts_with(&heard));
        if is_orderly && !matches!(stage.session.over(), Some(false)) {
            prop_assert_eq!(replies.0, heard);
        }
    }
}
