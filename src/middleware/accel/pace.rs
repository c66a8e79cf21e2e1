//! `X-Accel-Limit-Rate`: a body that goes out no faster than so many bytes a second.
//!
//! As in nginx the rate is counted from the first byte on, over all of the answer: what a client could not take in time it
//! may take faster later. What goes at once is an eighth of a second's worth, 64 KiB at most; less than half of that is not
//! worth a frame of its own: clients of HTTP/2 take many small ones for an attack.

use std::cell::Cell;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use crate::error::Error;
use crate::http::{Body, Source};
use crate::runtime::Span;

/// The most that goes at once.
const MOST: u64 = 64 << 10;
/// Stretches of files that are shorter are read: sending them from where they lie is not worth its system calls.
const LEAST_SPAN: u64 = 16 << 10;

/// The same body at `rate` bytes a second.
pub(super) fn at(rate: NonZeroU64, body: Body) -> Body {
    if body.remaining() == Some(0) {
        return body;
    }
    Body::Stream(Box::new(Paced { body, rate, begun: Cell::new(None), gone: 0, held: Bytes::new(), sleep: None }))
}

struct Paced {
    body: Body,
    rate: NonZeroU64,
    /// When it was first asked for anything.
    begun: Cell<Option<Instant>>,
    /// Bytes that have gone.
    gone: u64,
    /// Bytes that may not go yet.
    held: Bytes,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn burst(&self) -> u64 {
        (self.rate.get() / 8).clamp(1, MOST)
    }

    fn begun(&self) -> Instant {
        let begun = self.begun.get().unwrap_or_else(Instant::now);
        self.begun.set(Some(begun));
        begun
    }

    /// Bytes that may go now.
    fn allowed(&self) -> u64 {
        let passed = self.begun().elapsed().as_nanos();
        let earned = passed.saturating_mul(u128::from(self.rate.get())) / 1_000_000_000;
        let allowed = earned.saturating_add(u128::from(self.burst())).saturating_sub(u128::from(self.gone));
        u64::try_from(allowed).unwrap_or(u64::MAX)
    }

    /// When so many bytes more may go.
    fn when(&self, more: u64) -> Instant {
        let earned = self.gone.saturating_add(more).saturating_sub(self.burst());
        let nanos = (u128::from(earned) * 1_000_000_000).div_ceil(u128::from(self.rate.get()));
        // Some five hundred years: longer than anybody waits.
        let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let begun = self.begun();
        begun.checked_add(after).unwrap_or(begun + Duration::from_secs(1 << 30))
    }

    /// Sees to it that something is held, or tells how the body has ended.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Option<Result<Bytes, Error>>>> {
        if self.held.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.held = data,
                end => return Poll::Ready(Some(end)),
            }
        }
        Poll::Ready(None)
    }

    /// Waits until something may go that is worth it.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        let left = self.body.remaining().map_or(u64::MAX, |left| left + self.held.len() as u64);
        let worth = self.burst().min(left).max(1);
        loop {
            let allowed = self.allowed();
            if allowed >= worth.div_ceil(2) {
                self.sleep = None;
                return Poll::Ready(allowed);
            }
            let until = self.when(worth);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
    }
}

impl Source for Paced {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        // The end is not waited for; nor is it known, where the length is not, before it has come.
        if matches!(self.body.remaining(), None | Some(0))
            && let Some(end) = ready!(self.poll_held(cx))
        {
            return Poll::Ready(end);
        }
        let allowed = ready!(self.poll_allowed(cx));
        if let Some(end) = ready!(self.poll_held(cx)) {
            return Poll::Ready(end);
        }
        let length = usize::try_from(allowed).unwrap_or(usize::MAX).min(self.held.len());
        let piece = self.held.split_to(length);
        self.gone += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining().map(|left| left + self.held.len() as u64)
    }

    fn span(&self) -> Option<Span> {
        if !self.held.is_empty() {
            return None;
        }
        let mut span = self.body.span()?;
        let allowed = self.allowed();
        if allowed < span.length as u64 {
            if allowed < LEAST_SPAN {
                return None;
            }
            span.length = usize::try_from(allowed).unwrap_or(span.length);
        }
        Some(span)
    }

    fn sent(&mut self, bytes: u64) {
        self.body.sent(bytes);
        self.gone += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Reason;

    /// Pieces of a body, one behind the other.
    struct Pieces(Vec<usize>);

    impl Source for Pieces {
        fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            Poll::Ready((!self.0.is_empty()).then(|| Ok(Bytes::from(vec![7; self.0.remove(0)]))))
        }

        fn remaining(&self) -> Option<u64> {
            Some(self.0.iter().map(|length| *length as u64).sum())
        }
    }

    fn paced(rate: u64, pieces: &[usize]) -> Body {
        at(NonZeroU64::new(rate).unwrap(), Body::Stream(Box::new(Pieces(pieces.to_vec()))))
    }

    /// When how many bytes had come, in milliseconds.
    async fn taken(mut body: Body) -> Vec<(u64, u64)> {
        let begun = Instant::now();
        let (mut all, mut times) = (0, Vec::new());
        while let Some(data) = body.data().await {
            all += data.unwrap().len() as u64;
            times.push((u64::try_from(begun.elapsed().as_millis()).unwrap(), all));
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_their_rate_and_the_last_one_when_it_is_due() {
        let times = taken(paced(8000, &[3000, 5000, 9000])).await;
        for (at, all) in &times {
            assert!(*all <= 1000 + at * 8, "{all} bytes after {at} ms");
        }
        assert_eq!(times.first(), Some(&(0, 1000)), "an eighth of a second at once");
        // 17,000 bytes, 1000 of them at once.
        assert_eq!(times.last(), Some(&(2000, 17_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_a_byte_a_second_is_one() {
        assert_eq!(taken(paced(1, &[3])).await, [(0, 1), (1000, 2), (2000, 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_rate_of_a_moment_goes_in_pieces_of_64_kib() {
        let times = taken(paced(64 << 20, &[1 << 20])).await;
        let (at, all) = *times.last().unwrap();
        // 1 MiB less the 64 KiB that go at once, in steps of a millisecond of the clock.
        assert_eq!(all, 1 << 20);
        assert!((15..=16).contains(&at), "{at}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_not_take_it_in_time_may_take_it_faster_later() {
        let mut body = paced(1000, &[5000]);
        assert_eq!(body.data().await.unwrap().unwrap().len(), 125);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(body.data().await.unwrap().unwrap().len(), 3000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_earned_since_a_moment_ago_is_no_piece_of_its_own() {
        let mut body = paced(4_000_000, &[65_536; 46]);
        let mut pieces = 0;
        while let Some(data) = body.data().await {
            assert!(!data.unwrap().is_empty());
            pieces += 1;
            // As long as a turn of a busy thread takes.
            tokio::time::advance(Duration::from_micros(50)).await;
        }
        assert!(pieces <= 2 * 46 + 1, "{pieces}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_an_empty_body_are_passed_on() {
        struct Failing;
        impl Source for Failing {
            fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
                Poll::Ready(Some(Err(Error::new(Reason::EofInBody))))
            }
            fn remaining(&self) -> Option<u64> {
                None
            }
        }
        let rate = NonZeroU64::MIN;
        let mut body = at(rate, Body::Stream(Box::new(Failing)));
        assert_eq!(body.remaining(), None);
        assert_eq!(body.data().await.unwrap().unwrap_err().reason, Reason::EofInBody);
        assert!(matches!(at(rate, Body::Empty), Body::Empty));
    }

    /// A file, all of which is in memory.
    struct InFile(Arc<File>, u64, u64);

    impl Source for InFile {
        fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
            let length = (self.2 - self.1).min(10_000);
            self.1 += length;
            Poll::Ready((length > 0).then(|| Ok(Bytes::from(vec![7; usize::try_from(length).unwrap()]))))
        }

        fn remaining(&self) -> Option<u64> {
            Some(self.2 - self.1)
        }

        fn span(&self) -> Option<Span> {
            Span::at_hand(&self.0, self.1, self.2)
        }

        fn sent(&mut self, bytes: u64) {
            self.1 += bytes;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_from_a_file_is_paced_as_well() {
        let (rate, length) = (200_000, 1_000_000_u64);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1_000_000]).unwrap();
        let mut body = at(NonZeroU64::new(rate).unwrap(), Body::Stream(Box::new(InFile(Arc::new(file), 0, length))));
        let begun = Instant::now();
        let (mut gone, mut sent) = (0, 0);
        while gone < length {
            // As the writer does: from the file where that may be, else by reading.
            match body.span() {
                Some(span) => {
                    body.sent(span.length as u64);
                    gone += span.length as u64;
                    sent += span.length as u64;
                }
                None => gone += body.data().await.unwrap().unwrap().len() as u64,
            }
            let passed = u64::try_from(begun.elapsed().as_millis()).unwrap();
            assert!(gone <= 25_000 + passed * 200, "{gone} bytes after {passed} ms");
            assert_eq!(body.remaining(), Some(length - gone));
        }
        assert!(sent > 0);
        assert_eq!(begun.elapsed().as_millis(), 4875);
    }

    proptest! {
        #[test]
        fn all_bytes_come_never_early(rate in 1..100_000_u64, pieces in prop::collection::vec(0..5000_usize, 1..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let all: usize = pieces.iter().sum();
            let times = runtime.block_on(taken(paced(rate, &pieces)));
            prop_assert_eq!(times.last().map_or(0, |(_, all)| *all), all as u64);
            for (at, all) in times {
                prop_assert!(all * 1000 <= (rate / 8).max(1) * 1000 + at * rate + rate, "{} after {}", all, at);
            }
        }
    }
}
