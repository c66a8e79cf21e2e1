//! How many frames of each kind a client may send before its connection ends.
//!
//! Every kind has a credit that begins full, refills with time, and is earned by what gives honest clients reason to
//! send such frames: WINDOW_UPDATE by the bytes we have sent, RST_STREAM by answers, PING by DATA frames, PRIORITY by
//! requests. A browser at its busiest stays far below; a flood ends within some hundred frames. No clock is read here:
//! the caller says what time it is, once for all frames of a read.
//!
//! Two things are strict here because `h2` names them otherwise than RFC 9113 or takes them: a client that does not begin
//! with SETTINGS (3.4), and frames of a fixed size that have another one (4.2).

use std::time::Duration;

use super::frames::{Frame, Frames, flag, kind};
use crate::observe::metrics::Http2Refusal;

/// Bytes of the connection preface (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// What a client puts into one frame at most, unless we allow more (RFC 9113, 6.5.2).
const FRAME_SIZE: u32 = 16 << 10;
/// CONTINUATION frames of one head that do not end it: fewer than `h2` takes, so that it is counted here.
const MIN_CONTINUATIONS: u32 = 4;
/// DATA frames with less than this cost something.
const SMALL: u32 = 16;
/// What a WINDOW_UPDATE costs, of which each byte sent earns one.
const WINDOW_UPDATE: u32 = 32;

/// The credit of one kind.
struct Terms {
    refusal: Http2Refusal,
    full: u32,
    per_second: u32,
}

const fn terms(refusal: Http2Refusal, full: u32, per_second: u32) -> Terms {
    Terms { refusal, full, per_second }
}

const RESETS: usize = 0;
const PROVOKED: usize = 1;
const REFUSED: usize = 2;
const EMPTY: usize = 3;
const SMALL_DATA: usize = 4;
const SETTINGS: usize = 5;
const PINGS: usize = 6;
const PRIORITIES: usize = 7;
const WINDOW_UPDATES: usize = 8;
const UNKNOWN: usize = 9;
const LATE: usize = 10;
const REQUESTS: usize = 11;
const MESSAGES: usize = 12;

/// In the order of the constants above.
const TERMS: [Terms; 13] = [
    // A page that is left resets all that it had asked for.
    terms(Http2Refusal::Resets, 256, 8),
    terms(Http2Refusal::ProvokedResets, 64, 4),
    // Until our settings have arrived, a client does not know the limit.
    terms(Http2Refusal::RefusedStreams, 256, 8),
    terms(Http2Refusal::EmptyData, 64, 8),
    terms(Http2Refusal::SmallData, 64 << 10, 4 << 10),
    terms(Http2Refusal::Settings, 32, 1),
    terms(Http2Refusal::Pings, 128, 8),
    terms(Http2Refusal::Priorities, 256, 16),
    // Who acknowledges each event of a stream, for the stream and the connection.
    terms(Http2Refusal::WindowUpdates, 2048 * WINDOW_UPDATE, 400 * WINDOW_UPDATE),
    terms(Http2Refusal::UnknownFrames, 256, 16),
    // `h2` steps over what comes for a stream that it has reset, uncounted.
    terms(Http2Refusal::LateFrames, 256, 8),
    // And over requests behind our last goodbye.
    terms(Http2Refusal::Requests, 16 << 10, 256),
    // Small DATA frames of WebSockets: a message each. A pointer that is followed says a thousand a second, and there may be
    // several on a page; more earns whoever is answered.
    terms(Http2Refusal::SmallData, 64 << 10, 8 << 10),
];

/// Watches the frames of one connection, in both directions.
#[derive(Debug)]
pub struct Budgets {
    incoming: Frames,
    outgoing: Frames,
    credit: [u32; TERMS.len()],
    refilled: Duration,
    /// CONTINUATION frames of the head that is being received.
    continuations: Option<u32>,
    most_continuations: u32,
    /// Heads that have begun.
    heads: u64,
    /// The latest stream that the client has opened.
    latest: u32,
    has_begun: bool,
    /// How many clients one has to reckon with.
    clients: u32,
    /// Streams that are WebSockets.
    websockets: Vec<u32>,
}

/// What is behind a proxy that is trusted: a cancel of one client's is not to cost all others their connection.
const CLIENTS: u32 = 64;

impl Budgets {
    /// For a server's end, from the preface on. `header_list` is the limit in bytes that `h2` holds heads to, `now` the
    /// coarse clock.
    #[must_use]
    pub fn new(header_list: u32, now: Duration) -> Self {
        Self {
            incoming: Frames::behind(PREFACE),
            outgoing: Frames::behind(0),
            credit: std::array::from_fn(|kind| TERMS[kind].full),
            refilled: now,
            continuations: None,
            most_continuations: (header_list / FRAME_SIZE).max(MIN_CONTINUATIONS),
            heads: 0,
            latest: 0,
            has_begun: false,
            clients: 1,
            websockets: Vec::new(),
        }
    }

    /// For a peer that speaks for many clients.
    #[must_use]
    pub fn of_many(mut self) -> Self {
        self.clients = CLIENTS;
        self.credit = std::array::from_fn(|kind| TERMS[kind].full * CLIENTS);
        self
    }

    /// A stream is a WebSocket from now on, or is not any more.
    pub fn websocket(&mut self, stream: u32, is_one: bool) {
        self.websockets.retain(|known| *known != stream);
        if is_one {
            self.websockets.push(stream);
        }
    }

    /// Gives what time gives, by whole seconds.
    pub fn refill(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.refilled).as_secs();
        if seconds == 0 {
            return;
        }
        self.refilled += Duration::from_secs(seconds);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        for (kind, terms) in TERMS.iter().enumerate() {
            self.earn(kind, terms.per_second.saturating_mul(self.clients).saturating_mul(seconds));
        }
    }

    /// Looks at what the client has sent.
    ///
    /// # Errors
    /// The kind of which there were too many. Nothing behind it was looked at.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<(), Http2Refusal> {
        while let Some(frame) = self.incoming.next(&mut bytes) {
            self.judge(&frame)?;
        }
        Ok(())
    }

    /// Looks at what we send. `tell` hears of each stream that is refused, and of the end of the connection.
    ///
    /// # Errors
    /// The client has made us refuse too much.
    pub fn sent(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Http2Refusal)) -> Result<(), Http2Refusal> {
        let mut result = Ok(());
        while let Some(frame) = self.outgoing.next(&mut bytes) {
            let refusal = self.account(&frame);
            if let Some(refusal) = refusal {
                tell(refusal);
            }
            let spent = match refusal {
                Some(Http2Refusal::StreamRefused) => self.spend(REFUSED, 1),
                Some(refusal) if refusal.scope() == "stream" => self.spend(PROVOKED, 1),
                _ => Ok(()),
            };
            result = result.and(spent);
        }
        result
    }

    /// The number of the head that has begun and is not complete.
    #[must_use]
    pub fn open_head(&self) -> Option<u64> {
        let is_open = self.continuations.is_some()
            || matches!(self.incoming.incomplete(), Some(kind::HEADERS | kind::CONTINUATION));
        is_open.then_some(self.heads)
    }

    fn judge(&mut self, frame: &Frame) -> Result<(), Http2Refusal> {
        if !std::mem::replace(&mut self.has_begun, true) && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err(Http2Refusal::Preface);
        }
        if !has_its_size(frame) {
            return Err(Http2Refusal::ConnectionFrameSize);
        }
        match frame.kind {
            kind::DATA => self.judge_data(frame),
            kind::HEADERS => self.judge_headers(frame),
            kind::CONTINUATION => self.judge_continuation(frame),
            kind::PRIORITY => self.spend(PRIORITIES, 1),
            kind::RST_STREAM => self.spend(RESETS, 1),
            kind::SETTINGS => self.spend(SETTINGS, 1),
            kind::PING => self.spend(PINGS, 1),
            kind::WINDOW_UPDATE => self.spend(WINDOW_UPDATES, WINDOW_UPDATE),
            _ => self.spend(UNKNOWN, 1 + frame.length / 1024),
        }
    }

    fn judge_headers(&mut self, frame: &Frame) -> Result<(), Http2Refusal> {
        self.heads += 1;
        self.continuations = (!frame.has(flag::END_HEADERS)).then_some(0);
        // Trailers, or something for a stream that is no more.
        if frame.stream <= self.latest {
            return self.spend(LATE, 1);
        }
        self.latest = frame.stream;
        self.spend(REQUESTS, 1)?;
        self.earn(LATE, 1);
        self.earn(PRIORITIES, 4);
        self.earn(UNKNOWN, 4);
        self.earn(WINDOW_UPDATES, 2 * WINDOW_UPDATE);
        Ok(())
    }

    fn judge_data(&mut self, frame: &Frame) -> Result<(), Http2Refusal> {
        let content = frame.content();
        // A stream has only one last frame, whatever is in it.
        if frame.has(flag::END_STREAM) {
            return self.spend(LATE, 1);
        }
        if content == 0 {
            return self.spend(EMPTY, 1);
        }
        self.earn(SMALL_DATA, content.saturating_sub(SMALL));
        if content < SMALL && self.websockets.contains(&frame.stream) {
            return self.spend(MESSAGES, 1);
        }
        self.spend(SMALL_DATA, SMALL.saturating_sub(content))
    }

    fn judge_continuation(&mut self, frame: &Frame) -> Result<(), Http2Refusal> {
        // Without a head it belongs to, it ends the connection anyway.
        let Some(before) = self.continuations else { return Ok(()) };
        if frame.has(flag::END_HEADERS) {
            self.continuations = None;
            return Ok(());
        }
        self.continuations = Some(before + 1);
        if before < self.most_continuations { Ok(()) } else { Err(Http2Refusal::Continuations) }
    }

    /// What a frame of ours earns the client, or says of what it has sent.
    fn account(&mut self, frame: &Frame) -> Option<Http2Refusal> {
        match frame.kind {
            kind::DATA => {
                self.earn(WINDOW_UPDATES, frame.length);
                self.earn(PINGS, 1);
                if self.websockets.contains(&frame.stream) {
                    // An answer to a message, which may be acknowledged as an answer to a request is.
                    self.earn(MESSAGES, 1);
                    self.earn(WINDOW_UPDATES, 2 * WINDOW_UPDATE);
                }
            }
            kind::RST_STREAM => {
                self.earn(REQUESTS, 1);
                return frame.code().and_then(Http2Refusal::of_stream);
            }
            kind::GOAWAY => return frame.code().and_then(Http2Refusal::of_connection),
            _ => {}
        }
        if matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.has(flag::END_STREAM) {
            self.earn(RESETS, 1);
            self.earn(REFUSED, 1);
            self.earn(REQUESTS, 1);
            self.earn(WINDOW_UPDATES, 2 * WINDOW_UPDATE);
        }
        None
    }

    fn earn(&mut self, kind: usize, credit: u32) {
        self.credit[kind] = self.credit[kind].saturating_add(credit).min(TERMS[kind].full * self.clients);
    }

    fn spend(&mut self, kind: usize, cost: u32) -> Result<(), Http2Refusal> {
        let left = self.credit[kind].checked_sub(cost).ok_or(TERMS[kind].refusal)?;
        self.credit[kind] = left;
        Ok(())
    }
}

/// Whether a frame of a fixed size has that size (RFC 9113, 6.3 to 6.9).
fn has_its_size(frame: &Frame) -> bool {
    match frame.kind {
        kind::PRIORITY => frame.length == 5,
        kind::RST_STREAM | kind::WINDOW_UPDATE => frame.length == 4,
        kind::SETTINGS if frame.has(flag::ACK) => frame.length == 0,
        kind::SETTINGS => frame.length.is_multiple_of(6),
        kind::PING => frame.length == 8,
        kind::GOAWAY => frame.length >= 8,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: usize = 100_000;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn on(stream: u32, mut frame: Vec<u8>) -> Vec<u8> {
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        frame
    }

    fn budgets() -> Budgets {
        let mut budgets = Budgets::new(64 << 10, Duration::ZERO);
        budgets.received(&opening()).unwrap();
        budgets
    }

    /// The preface and the first SETTINGS.
    fn opening() -> Vec<u8> {
        [&[b'P'; PREFACE][..], &frame(kind::SETTINGS, 0, &[])].concat()
    }

    /// How many of these come through, and what ends it.
    fn flood(budgets: &mut Budgets, bytes: &[u8]) -> (usize, Option<Http2Refusal>) {
        for count in 0..MANY {
            if let Err(refusal) = budgets.received(bytes) {
                return (count, Some(refusal));
            }
        }
        (MANY, None)
    }

    #[test]
    fn every_flood_ends_within_some_hundred_frames() {
        let part = frame(kind::CONTINUATION, 0, &[0; 10]);
        for (bytes, most, refusal) in [
            (frame(kind::RST_STREAM, 0, &[0; 4]), 256, Http2Refusal::Resets),
            (frame(kind::DATA, 0, &[]), 64, Http2Refusal::EmptyData),
            (frame(kind::DATA, flag::PADDED, &[2, 0, 0]), 64, Http2Refusal::EmptyData),
            (frame(kind::DATA, 0, &[1]), 5000, Http2Refusal::SmallData),
            (frame(kind::SETTINGS, 0, &[]), 32, Http2Refusal::Settings),
            (frame(kind::SETTINGS, flag::ACK, &[]), 32, Http2Refusal::Settings),
            (frame(kind::PING, 0, &[0; 8]), 128, Http2Refusal::Pings),
            (frame(kind::PRIORITY, 0, &[0; 5]), 256, Http2Refusal::Priorities),
            (frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1]), 2048, Http2Refusal::WindowUpdates),
            (frame(kind::DATA, flag::END_STREAM, &[]), 256, Http2Refusal::LateFrames),
            (frame(kind::DATA, flag::END_STREAM, &[0; 100]), 256, Http2Refusal::LateFrames),
            (frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, &[0; 9]), 257, Http2Refusal::LateFrames),
            (frame(0x10, 0, &[]), 256, Http2Refusal::UnknownFrames),
            (frame(0xbe, 0, &[0; 16 << 10]), 256 / 16, Http2Refusal::UnknownFrames),
            (frame(kind::GOAWAY, 0, &[0; 8]), 256, Http2Refusal::UnknownFrames),
        ] {
            let (count, ended) = flood(&mut budgets(), &bytes);
            assert_eq!(ended, Some(refusal));
            assert!(count <= most, "{refusal:?}: {count}");
        }
        let mut budgets = budgets();
        budgets.received(&frame(kind::HEADERS, 0, &[0; 10])).unwrap();
        assert_eq!(flood(&mut budgets, &part), (4, Some(Http2Refusal::Continuations)));
    }

    #[test]
    fn a_client_begins_with_its_settings() {
        for first in [frame(kind::PING, 0, &[0; 8]), frame(kind::SETTINGS, flag::ACK, &[])] {
            let mut budgets = Budgets::new(64 << 10, Duration::ZERO);
            budgets.received(&[b'P'; PREFACE]).unwrap();
            assert_eq!(budgets.received(&first), Err(Http2Refusal::Preface));
        }
    }

    #[test]
    fn a_frame_of_another_size_than_its_own_is_refused() {
        for (kind, flags, length) in [
            (kind::PRIORITY, 0, 4),
            (kind::RST_STREAM, 0, 5),
            (kind::SETTINGS, 0, 7),
            (kind::SETTINGS, flag::ACK, 6),
            (kind::PING, 0, 0),
            (kind::GOAWAY, 0, 7),
            (kind::WINDOW_UPDATE, 0, 3),
        ] {
            let refused = budgets().received(&frame(kind, flags, &vec![0; length]));
            assert_eq!(refused, Err(Http2Refusal::ConnectionFrameSize), "{kind} of {length}");
        }
    }

    #[test]
    fn a_larger_head_may_have_more_parts() {
        let mut budgets = Budgets::new(256 << 10, Duration::ZERO);
        budgets.received(&opening()).unwrap();
        budgets.received(&frame(kind::HEADERS, 0, &[])).unwrap();
        assert_eq!(flood(&mut budgets, &frame(kind::CONTINUATION, 0, &[])).0, 16);
    }

    #[test]
    fn what_is_refused_on_the_way_out_is_told_and_counted() {
        for (code, refusal, ended) in [
            (1, Http2Refusal::StreamProtocol, Http2Refusal::ProvokedResets),
            (3, Http2Refusal::StreamFlowControl, Http2Refusal::ProvokedResets),
            (5, Http2Refusal::StreamClosed, Http2Refusal::ProvokedResets),
            (7, Http2Refusal::StreamRefused, Http2Refusal::RefusedStreams),
        ] {
            let (mut budgets, mut told) = (budgets(), Vec::new());
            let reset = frame(kind::RST_STREAM, 0, &[0, 0, 0, code]);
            let end = (0..MANY).find_map(|_| budgets.sent(&reset, |refusal| told.push(refusal)).err());
            assert_eq!(end, Some(ended));
            assert!(told.len() <= 257 && told.iter().all(|each| *each == refusal), "{told:?}");
        }
        let mut told = Vec::new();
        let goaway = frame(kind::GOAWAY, 0, &[0, 0, 0, 0, 0, 0, 0, 9]);
        budgets().sent(&goaway, |refusal| told.push(refusal)).unwrap();
        assert_eq!(told, [Http2Refusal::ConnectionCompression]);
    }

    #[test]
    fn our_own_resets_are_not_the_clients_fault() {
        let mut budgets = budgets();
        for code in [0, 2, 8] {
            let reset = frame(kind::RST_STREAM, 0, &[0, 0, 0, code]);
            for _ in 0..MANY {
                budgets.sent(&reset, |refusal| panic!("{refusal:?}")).unwrap();
            }
        }
    }

    #[test]
    fn honest_clients_are_never_in_the_way() {
        let mut browser = budgets();
        let data = frame(kind::DATA, 0, &[0; 8 << 10]);
        for number in 0..MANY as u32 / 10 {
            // A request with its priority, an answer of 16 KiB taken in steps of 1 KiB, a ping for each frame.
            let head = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, &[0; 90]);
            browser.received(&on(2 * number + 1, head)).unwrap();
            browser.received(&frame(kind::PRIORITY, 0, &[0; 5])).unwrap();
            browser.received(&frame(0x10, 0, b"u=1")).unwrap();
            for flags in [0, flag::END_STREAM] {
                let mut sent = data.clone();
                sent[4] = flags;
                browser.sent(&sent, |refusal| panic!("{refusal:?}")).unwrap();
                browser.received(&frame(kind::PING, 0, &[0; 8])).unwrap();
                for _ in 0..16 {
                    browser.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 4, 0])).unwrap();
                }
            }
            // Each is answered; the next one is not wanted any more.
            browser.received(&frame(kind::RST_STREAM, 0, &[0; 4])).unwrap();
        }
        let mut uploader = budgets();
        assert_eq!(flood(&mut uploader, &frame(kind::DATA, 0, &[0; 16])), (MANY, None));
    }

    #[test]
    fn messages_of_websockets_are_counted_by_themselves_and_bounded() {
        let message = frame(kind::DATA, 0, &[0; 7]);
        let (mut upload, mut chat) = (budgets(), budgets());
        chat.websocket(1, true);
        assert_eq!(flood(&mut upload, &message).0, (64 << 10) / 9);
        assert_eq!(flood(&mut chat, &message), (64 << 10, Some(Http2Refusal::SmallData)));
        chat.refill(Duration::from_secs(1));
        assert_eq!(flood(&mut chat, &message).0, 8 << 10);
        // Each that is answered earns one more, with the frames that acknowledge the answer.
        for _ in 0..MANY {
            chat.sent(&frame(kind::DATA, 0, &[0; 3]), |refusal| panic!("{refusal:?}")).unwrap();
            chat.received(&message).unwrap();
            chat.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 3])).unwrap();
            chat.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 3])).unwrap();
        }
        // Frames without anything in them are nobody's messages.
        assert_eq!(flood(&mut chat, &frame(kind::DATA, 0, &[])).0, 64);
        chat.websocket(1, false);
        chat.refill(Duration::from_secs(1000));
        assert_eq!(flood(&mut chat, &message).0, (64 << 10) / 9);
    }

    #[test]
    fn uploads_end_their_streams_and_have_trailers() {
        let mut uploader = budgets();
        for number in 0..MANY as u32 / 10 {
            let stream = 2 * number + 1;
            let body = [
                on(stream, frame(kind::HEADERS, flag::END_HEADERS, &[0; 30])),
                on(stream, frame(kind::DATA, 0, &[0; 30])),
                on(stream, frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, &[0; 9])),
            ];
            uploader.received(&body.concat()).unwrap();
            let answer = on(stream, frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, &[0; 9]));
            uploader.sent(&answer, |refusal| panic!("{refusal:?}")).unwrap();
        }
    }

    #[test]
    fn requests_that_are_never_answered_are_counted() {
        let mut requests = budgets();
        let ask = |number: u32| on(2 * number + 1, frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, &[0; 9]));
        let end = (0..MANY as u32).find_map(|number| requests.received(&ask(number)).err());
        assert_eq!(end, Some(Http2Refusal::Requests));
    }

    #[test]
    fn a_peer_that_speaks_for_many_has_more_of_everything() {
        let reset = frame(kind::RST_STREAM, 0, &[0; 4]);
        let mut many = Budgets::new(64 << 10, Duration::ZERO).of_many();
        many.received(&opening()).unwrap();
        assert_eq!(flood(&mut many, &reset), (256 * 64, Some(Http2Refusal::Resets)));
        many.refill(Duration::from_secs(1));
        assert_eq!(flood(&mut many, &reset).0, 8 * 64);
    }

    #[test]
    fn small_answers_may_be_acknowledged_one_by_one() {
        let mut events = budgets();
        for second in 1..1000 {
            for _ in 0..250 {
                events.sent(&frame(kind::DATA, 0, &[0; 20]), |refusal| panic!("{refusal:?}")).unwrap();
                // For the stream, and for the connection.
                events.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 20])).unwrap();
                events.received(&frame(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 20])).unwrap();
            }
            events.refill(Duration::from_secs(second));
        }
    }

    #[test]
    fn time_gives_back_what_it_gives_and_no_more() {
        let ping = frame(kind::PING, 0, &[0; 8]);
        let mut budgets = budgets();
        assert_eq!(flood(&mut budgets, &ping).0, 128);
        budgets.refill(Duration::from_millis(900));
        assert_eq!(flood(&mut budgets, &ping).0, 0, "less than a second");
        budgets.refill(Duration::from_millis(2100));
        assert_eq!(flood(&mut budgets, &ping).0, 16);
        budgets.refill(Duration::from_secs(u64::MAX));
        assert_eq!(flood(&mut budgets, &ping).0, 128);
    }

    #[test]
    fn a_head_is_open_from_its_first_bytes_to_its_last() {
        let mut budgets = budgets();
        assert_eq!(budgets.open_head(), None);
        let head = frame(kind::HEADERS, 0, &[0; 30]);
        budgets.received(&head[..12]).unwrap();
        assert!(budgets.open_head().is_some());
        budgets.received(&head[12..]).unwrap();
        assert_eq!(budgets.open_head(), Some(1), "it goes on in another frame");
        budgets.received(&frame(kind::CONTINUATION, flag::END_HEADERS, &[])).unwrap();
        assert_eq!(budgets.open_head(), None);
        budgets.received(&frame(kind::HEADERS, flag::END_HEADERS, &[0; 30])[..20]).unwrap();
        assert_eq!(budgets.open_head(), Some(2), "another head has a time of its own");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(0..12_u8, 0..4000), cut in 1..50_usize) {
            let (mut whole, mut pieces) = (budgets(), budgets());
            let told = std::cell::RefCell::new((Vec::new(), Vec::new()));
            let first = (whole.received(&bytes), whole.sent(&bytes, |refusal| told.borrow_mut().0.push(refusal)));
            let received = bytes.chunks(cut).try_for_each(|piece| pieces.received(piece));
            let mut sent = Ok(());
            for piece in bytes.chunks(cut) {
                sent = sent.and(pieces.sent(piece, |refusal| told.borrow_mut().1.push(refusal)));
            }
            prop_assert_eq!(first, (received, sent));
            prop_assert_eq!(&told.borrow().0, &told.borrow().1);
        }
    }
}
