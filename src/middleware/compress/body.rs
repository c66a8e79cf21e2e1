//! A body that is compressed as it is read.
//!
//! - It reads when it is read, and never more than it compresses: whoever takes it slowly slows down its source.
//! - What has come is sent on when nothing more comes: events, rows and pages that are written bit by bit arrive as they are
//!   written. Before that it looks once whether more is in the sockets, so that pieces which only the way has made do not each
//!   cost a flush.
//! - It has turns like every task of the thread: after [`TURN`] bytes the others are next. A body larger than [`LARGE`] is
//!   compressed beside the event loop, a [`BATCH`] at a time.
//! - A body that is cut is cut: what has come is sent on, and no end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::compressor::{Compressor, Room};
use super::encoder::{Broken, Encoder};
use crate::error::{Error, Reason};
use crate::http::{Body, Coding, Source};
use crate::observe::metrics::CodingMetrics;

/// Bytes that are compressed in one turn: one or two milliseconds.
const TURN: usize = LARGE as usize;
/// Larger bodies leave the event loop. Others are compressed in one turn where all of them has come: were those of many
/// clients done bit by bit, each would wait for all.
pub(super) const LARGE: u64 = 128 << 10;
/// Bytes that leave it together.
const BATCH: usize = 256 << 10;
/// Fewer bytes are not handed on before a flush: the beginning of a coding is none of the body.
const LEAST: usize = 4 << 10;

/// An encoder at work.
pub(super) struct Press {
    encoder: Encoder,
    coding: Coding,
    /// Counted for as long as the encoder is there, wherever that is.
    _room: Room,
}

impl Press {
    /// For a body of this length, where it is known. `None`: there is no memory for it.
    pub(super) fn take(compressor: &Arc<Compressor>, coding: Coding, length: Option<u64>) -> Option<Self> {
        let room = compressor.room(coding)?;
        let encoder = Encoder::take(coding, length).ok()?;
        Some(Self { encoder, coding, _room: room })
    }

    /// All of a body that is here.
    pub(super) fn whole(mut self, body: &Bytes, metrics: &CodingMetrics) -> Result<Bytes, Error> {
        let mut out = Vec::with_capacity(body.len() / 2);
        let pressed = self.press(std::slice::from_ref(body), Then::End, &mut out);
        self.encoder.keep();
        pressed.map_err(failed)?;
        metrics.bytes_in.inc_by(body.len() as u64);
        metrics.bytes_out.inc_by(out.len() as u64);
        Ok(out.into())
    }

    fn press(&mut self, pieces: &[Bytes], then: Then, out: &mut Vec<u8>) -> Result<(), Broken> {
        for piece in pieces {
            self.encoder.push(piece, out)?;
        }
        match then {
            Then::More => Ok(()),
            Then::Flush => self.encoder.flush(out),
            Then::End => self.encoder.finish(out),
        }
    }
}

/// What comes behind some pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// More.
    More,
    /// Nothing for now: what is here goes out.
    Flush,
    /// Nothing at all.
    End,
}

/// The compressed body.
pub(super) struct Compressing {
    body: Body,
    work: Work,
    compressor: Arc<Compressor>,
    metrics: CodingMetrics,
    /// Whether it is known to be a large one.
    is_large: bool,
    /// Bytes that have come.
    read: u64,
    /// … of those, in this turn.
    spent: usize,
    /// Whether some have come since the last flush.
    is_behind: bool,
    /// What has been compressed and is too little to be handed on.
    kept: Vec<u8>,
    /// Whether it has been looked if more is there.
    has_looked: bool,
    /// How the body has ended, to be told behind its bytes.
    end: Option<Result<(), Error>>,
}

/// Where the encoder is.
enum Work {
    Here(Press),
    /// Beside the event loop.
    Away(Away),
    Over,
}

/// `None`: it has come to grief.
type Away = Pin<Box<dyn Future<Output = Option<Done>>>>;

/// What comes back.
struct Done {
    press: Press,
    /// Let go of in the thread that they came from, which keeps their memory.
    pieces: Vec<Bytes>,
    then: Then,
    out: Vec<u8>,
    pressed: Result<(), Broken>,
}

/// What there is to compress.
struct Gathered {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Compressing {
    pub(super) fn new(body: Body, press: Press, compressor: &Arc<Compressor>) -> Self {
        Self {
            is_large: body.remaining().is_some_and(|length| length > LARGE),
            body,
            metrics: compressor.metrics.of(press.coding).clone(),
            work: Work::Here(press),
            compressor: Arc::clone(compressor),
            read: 0,
            spent: 0,
            is_behind: false,
            kept: Vec::new(),
            has_looked: false,
            end: None,
        }
    }

    /// Reads what is here, up to what is compressed at once.
    fn gather(&mut self, cx: &mut Context<'_>) -> Gathered {
        let mut gathered = Gathered { pieces: Vec::new(), length: 0 };
        let most = if self.is_large { BATCH } else { TURN };
        while gathered.length < most {
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    gathered.length += piece.len();
                    gathered.pieces.push(piece);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.end = Some(Err(error));
                    break;
                }
                Poll::Ready(None) => {
                    self.end = Some(Ok(()));
                    break;
                }
                Poll::Pending => break,
            }
        }
        if gathered.length > 0 {
            self.read += gathered.length as u64;
            self.is_large |= self.read > LARGE;
            (self.is_behind, self.has_looked) = (true, false);
            self.metrics.bytes_in.inc_by(gathered.length as u64);
        }
        gathered
    }

    /// What is to be done behind what was gathered; `None`: something else has to happen first.
    fn then(&mut self, gathered: &Gathered, cx: &mut Context<'_>) -> Option<Then> {
        match &self.end {
            Some(Ok(())) => return Some(Then::End),
            Some(Err(_)) => return Some(Then::Flush),
            None => {}
        }
        if gathered.length > 0 {
            return Some(Then::More);
        }
        self.spent = 0;
        if !self.is_behind {
            return None;
        }
        if !std::mem::replace(&mut self.has_looked, true) {
            step_aside(cx);
            return None;
        }
        self.is_behind = false;
        Some(Then::Flush)
    }

    /// Compresses here, or has it done elsewhere. What has come of it.
    fn press(&mut self, mut press: Press, gathered: Gathered, then: Then) -> Option<Result<Bytes, Error>> {
        let Gathered { pieces, length } = gathered;
        if self.is_large && length >= TURN {
            let out = std::mem::take(&mut self.kept);
            self.work = Work::Away(away(press, pieces, then, out, &self.compressor));
            return None;
        }
        self.spent += length;
        let mut out = std::mem::take(&mut self.kept);
        out.reserve(length / 2);
        let pressed = press.press(&pieces, then, &mut out);
        self.pressed(Done { press, pieces, then, out, pressed })
    }

    /// What to hand on, if there is something.
    fn pressed(&mut self, done: Done) -> Option<Result<Bytes, Error>> {
        let Done { press, pieces, then, out, pressed } = done;
        drop(pieces);
        if let Err(broken) = pressed {
            self.work = Work::Over;
            return Some(Err(failed(broken)));
        }
        self.work = Work::Here(press);
        if then == Then::More && out.len() < LEAST {
            self.kept = out;
            return None;
        }
        self.metrics.bytes_out.inc_by(out.len() as u64);
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

impl Source for Compressing {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let came = match std::mem::replace(&mut self.work, Work::Over) {
                Work::Over => return Poll::Ready(None),
                Work::Away(mut away) => match away.as_mut().poll(cx) {
                    Poll::Ready(Some(done)) => self.pressed(done),
                    Poll::Ready(None) => return Poll::Ready(Some(Err(Error::new(Reason::Internal)))),
                    Poll::Pending => {
                        self.work = Work::Away(away);
                        return Poll::Pending;
                    }
                },
                Work::Here(press) => {
                    if let Some(end) = self.end.take() {
                        press.encoder.keep();
                        return Poll::Ready(end.err().map(Err));
                    }
                    if self.spent >= TURN {
                        self.spent = 0;
                        self.work = Work::Here(press);
                        step_aside(cx);
                        return Poll::Pending;
                    }
                    let gathered = self.gather(cx);
                    let Some(then) = self.then(&gathered, cx) else {
                        self.work = Work::Here(press);
                        return Poll::Pending;
                    };
                    self.press(press, gathered, then)
                }
            };
            if came.is_some() {
                return Poll::Ready(came);
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl Drop for Compressing {
    fn drop(&mut self) {
        // What was left in the middle of a body can begin another one.
        if let Work::Here(press) = std::mem::replace(&mut self.work, Work::Over) {
            press.encoder.keep();
        }
    }
}

/// Compresses beside the event loop, when it is its turn. Whoever leaves meanwhile does not end it, nor give its turn or its
/// memory to others before.
fn away(mut press: Press, pieces: Vec<Bytes>, then: Then, mut out: Vec<u8>, compressor: &Arc<Compressor>) -> Away {
    let turns = Arc::clone(&compressor.turns);
    Box::pin(async move {
        // Never closed.
        let turn = turns.acquire_owned().await.ok()?;
        let work = move || {
            let pressed = press.press(&pieces, then, &mut out);
            drop(turn);
            Done { press, pieces, then, out, pressed }
        };
        // An error is a panic, or the end of the runtime.
        tokio::task::spawn_blocking(work).await.ok()
    })
}

/// Lets the others of the thread run, and the sockets be looked at, before this is polled again.
fn step_aside(cx: &mut Context<'_>) {
    // Its first poll asks for the next one.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

fn failed(broken: Broken) -> Error {
    Error::new(Reason::Internal).detail(broken.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::super::encoder::decoding;
    use super::*;
    use crate::observe::metrics::Metrics;
    use crate::runtime::paused;

    /// What a source does when it is asked.
    #[derive(Debug, Clone)]
    enum Step {
        Piece(Vec<u8>),
        /// Nothing is here, and something is at once.
        Wait,
        /// Nothing is here before the test says so.
        Hold,
        Fail,
    }

    struct Script {
        steps: VecDeque<Step>,
        length: Option<u64>,
        asked: Rc<Cell<usize>>,
        go_on: Rc<Cell<bool>>,
    }

    impl Source for Script {
        fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            self.asked.set(self.asked.get() + 1);
            match self.steps.front() {
                Some(Step::Hold) if !self.go_on.get() => return Poll::Pending,
                Some(Step::Wait) => {
                    self.steps.pop_front();
                    step_aside(cx);
                    return Poll::Pending;
                }
                _ => {}
            }
            Poll::Ready(match self.steps.pop_front() {
                Some(Step::Piece(piece)) => Some(Ok(piece.into())),
                Some(Step::Fail) => Some(Err(Reason::EofInBody.into())),
                Some(Step::Hold | Step::Wait) => return self.poll_data(cx),
                None => None,
            })
        }

        fn remaining(&self) -> Option<u64> {
            self.length
        }
    }

    struct Running {
        body: Compressing,
        compressor: Arc<Compressor>,
        asked: Rc<Cell<usize>>,
        go_on: Rc<Cell<bool>>,
    }

    fn compress(coding: Coding, steps: impl IntoIterator<Item = Step>, length: Option<u64>) -> Running {
        let compressor = Compressor::new(2, Metrics::new().compression());
        let (asked, go_on) = (Rc::default(), Rc::default());
        let script =
            Script { steps: steps.into_iter().collect(), length, asked: Rc::clone(&asked), go_on: Rc::clone(&go_on) };
        let press = Press::take(&compressor, coding, length).unwrap();
        let body = Compressing::new(Body::Stream(Box::new(script)), press, &compressor);
        Running { body, compressor, asked, go_on }
    }

    /// The next piece, unless nothing comes although everything has been looked at.
    async fn next(body: &mut Compressing) -> Option<Option<Result<Bytes, Error>>> {
        let next = poll_fn(|cx| body.poll_data(cx));
        tokio::time::timeout(std::time::Duration::from_secs(1), next).await.ok()
    }

    async fn read_all(body: &mut Compressing) -> (Vec<u8>, Option<Reason>) {
        let mut all = Vec::new();
        loop {
            match next(body).await.expect("an end") {
                Some(Ok(piece)) => {
                    assert!(!piece.is_empty());
                    all.extend_from_slice(&piece);
                }
                Some(Err(error)) => return (all, Some(error.reason)),
                None => return (all, None),
            }
        }
    }

    fn text(length: usize) -> Vec<u8> {
        (0_u32..)
            .flat_map(|n| format!("row {n}: {:x}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .take(length)
            .collect()
    }

    #[test]
    fn what_has_come_is_sent_on_when_nothing_more_comes() {
        paused(async || {
            for coding in Coding::ALL {
                let event = |text: &str| [Step::Piece(text.into()), Step::Hold];
                let steps = event("data: one\n\n").into_iter().chain(event("data: two\n\n"));
                let mut running = compress(coding, steps, None);
                let first = next(&mut running.body).await.expect("the first event").unwrap().unwrap();
                assert_eq!(decoding::beginning(coding, &first), b"data: one\n\n", "{coding:?}");
                assert!(next(&mut running.body).await.is_none(), "nothing has come, and nothing is sent");
                running.go_on.set(true);
                let (rest, error) = read_all(&mut running.body).await;
                assert_eq!(error, None);
                let all = [&first[..], &rest].concat();
                assert_eq!(decoding::whole(coding, &all).unwrap(), b"data: one\n\ndata: two\n\n");
            }
        });
    }

    #[test]
    fn pieces_that_only_the_way_has_made_cost_no_flush() {
        paused(async || {
            for coding in Coding::ALL {
                let page = text(60_000);
                let apart = page.chunks(1_000).flat_map(|piece| [Step::Piece(piece.into()), Step::Wait]);
                let (apart, _) = read_all(&mut compress(coding, apart, None).body).await;
                let (at_once, _) = read_all(&mut compress(coding, [Step::Piece(page.clone())], None).body).await;
                assert_eq!(decoding::whole(coding, &apart).unwrap(), page);
                assert!(apart.len() < at_once.len() + 600, "{coding:?}: {} and {}", apart.len(), at_once.len());
            }
        });
    }

    #[test]
    fn a_body_that_is_cut_has_no_end_and_all_that_had_come() {
        paused(async || {
            for coding in Coding::ALL {
                for length in [10, 100_000, 400_000] {
                    let page = text(length);
                    let steps = page.chunks(30_000).map(|piece| Step::Piece(piece.into())).chain([Step::Fail]);
                    let mut running = compress(coding, steps, Some(1 << 20));
                    let (cut, error) = read_all(&mut running.body).await;
                    assert_eq!(error, Some(Reason::EofInBody));
                    assert_eq!(decoding::whole(coding, &cut), None, "{coding:?}: no end");
                    assert!(decoding::beginning(coding, &cut) == page, "{coding:?} of {length}");
                }
            }
        });
    }

    #[test]
    fn others_have_their_turn_while_a_body_is_compressed() {
        paused(async || {
            let turns = Rc::new(Cell::new(0));
            let counted = Rc::clone(&turns);
            let other = tokio::task::spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let steps = (0..64).map(|_| Step::Piece(text(16 << 10)));
            let (all, _) = read_all(&mut compress(Coding::Gzip, steps, None).body).await;
            assert_eq!(decoding::whole(Coding::Gzip, &all).unwrap().len(), 1 << 20);
            // One for each turn before it is known to be large, one for each batch after that.
            assert!(turns.get() >= 4, "{}", turns.get());
            other.abort();
        });
    }

    #[test]
    fn no_more_is_read_than_is_taken() {
        paused(async || {
            let steps = (0..100).map(|_| Step::Piece(text(16 << 10)));
            let mut running = compress(Coding::Gzip, steps, Some(1_600 << 10));
            let first = next(&mut running.body).await.unwrap().unwrap().unwrap();
            assert!(!first.is_empty());
            assert!(running.asked.get() <= BATCH / (16 << 10), "{} pieces", running.asked.get());
            assert_eq!(running.compressor.memory(), Encoder::memory(Coding::Gzip));
            drop(running.body);
            assert_eq!(running.compressor.memory(), 0);
        });
    }

    #[test]
    fn whoever_leaves_in_the_middle_gives_memory_and_turn_back() {
        paused(async || {
            let steps = (0..100).map(|_| Step::Piece(text(64 << 10)));
            let mut running = compress(Coding::Brotli, steps, Some(6_400 << 10));
            // The first poll has a batch compressed elsewhere.
            let is_away = poll_fn(|cx| Poll::Ready(running.body.poll_data(cx).is_pending())).await;
            assert!(is_away && matches!(running.body.work, Work::Away(_)));
            drop(running.body);
            while running.compressor.memory() > 0 || running.compressor.turns.available_permits() < 2 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn beyond_its_memory_nothing_is_compressed() {
        let metrics = Metrics::new();
        let compressor = Compressor::new(1, metrics.compression());
        let mut all = Vec::new();
        while let Some(room) = compressor.room(Coding::Brotli) {
            all.push(room);
            assert!(all.len() < 10_000);
        }
        assert!(all.len() >= 16, "{}", all.len());
        assert!(Press::take(&compressor, Coding::Gzip, None).is_none() || compressor.room(Coding::Brotli).is_none());
        assert!(metrics.compression().skipped.get() >= 1);
        all.pop();
        assert!(Press::take(&compressor, Coding::Brotli, None).is_some());
        drop(all);
        assert_eq!(compressor.memory(), 0);
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..40_000_usize).prop_map(|length| Step::Piece(text(length))),
            2 => prop::collection::vec(any::<u8>(), 1..2_000).prop_map(Step::Piece),
            2 => Just(Step::Wait),
            1 => Just(Step::Piece(Vec::new())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_decoded_is_what_was_sent(steps in prop::collection::vec(step(), 0..30), is_known: bool) {
            let sent: Vec<u8> = steps
                .iter()
                .flat_map(|step| if let Step::Piece(piece) = step { piece.clone() } else { Vec::new() })
                .collect();
            paused(async || {
                for coding in Coding::ALL {
                    let mut running = compress(coding, steps.clone(), is_known.then_some(sent.len() as u64));
                    let (all, error) = read_all(&mut running.body).await;
                    assert_eq!(error, None);
                    assert!(decoding::whole(coding, &all).as_deref() == Some(&*sent), "{coding:?}");
                    drop(running.body);
                    assert_eq!(running.compressor.memory(), 0);
                }
            });
        }
    }
}
