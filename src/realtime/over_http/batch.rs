//! What is to be said to the app, in order: events gather while a request is out, and go together in the next one.
//!
//! | the app has taken | |
//! |---|---|
//! | all (it says nothing of it) | it is forgotten |
//! | so many bytes of contents (`Content-Bytes-Accepted`) | the rest goes again, before what has come meanwhile; `Content-Bytes-Replayed` says how much of it that is |
//!
//! An app that has taken a part waits for more: the rest alone is not sent at once, but with the next message, with the
//! end, or when the app is asked anyway.

use bytes::Bytes;

use crate::realtime::events::{self, Kind};

/// Events on their way to the app.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Those that have not been sent, or are to be sent again.
    body: Vec<u8>,
    /// Bytes of their contents.
    content: usize,
    /// How many of these bytes have been sent before.
    replayed: usize,
    /// Whether there are any that have not.
    is_news: bool,
    /// Those that have been sent and have no answer.
    out: Option<Out>,
}

#[derive(Debug)]
struct Out {
    body: Bytes,
    content: usize,
    /// Whether the last of them ends the connection.
    is_end: bool,
}

/// What is sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sending {
    /// The events.
    pub(super) body: Bytes,
    /// Bytes of contents that the app has had before.
    pub(super) replayed: usize,
}

/// The app has taken more than there was, or nothing where there will be no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAccepted {
    pub(super) offered: usize,
    pub(super) accepted: u64,
}

impl Batch {
    /// Appends an event.
    pub(super) fn push(&mut self, kind: Kind, content: &[u8]) {
        events::write(&mut self.body, kind, content);
        self.content += content.len();
        self.is_news = true;
    }

    /// Bytes that wait, those included that are out.
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.out.as_ref().map_or(0, |out| out.body.len())
    }

    /// Whether anything waits that the app has not had.
    pub(super) fn is_news(&self) -> bool {
        self.is_news
    }

    /// Whether nothing waits, and nothing is out.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty() && self.out.is_none()
    }

    /// Whether a request is out.
    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether the end of the connection is among what is out.
    pub(super) fn is_end_out(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.is_end)
    }

    /// Takes all that waits, even if that is nothing.
    pub(super) fn take(&mut self, is_end: bool) -> Sending {
        let body = Bytes::from(std::mem::take(&mut self.body));
        let (content, replayed) = (std::mem::take(&mut self.content), std::mem::take(&mut self.replayed));
        self.is_news = false;
        self.out = Some(Out { body: body.clone(), content, is_end });
        Sending { body, replayed }
    }

    /// The app has answered: it has taken so many bytes of contents, or all. While `room` bytes wait nothing more comes, so that what
    /// is left goes again at once.
    ///
    /// # Errors
    /// [`NotAccepted`]; what was out is forgotten then as well.
    pub(super) fn accepted(&mut self, accepted: Option<u64>, room: usize) -> Result<(), NotAccepted> {
        let Some(out) = self.out.take() else { return Ok(()) };
        let Some(accepted) = accepted else { return Ok(()) };
        let fault = NotAccepted { offered: out.content, accepted };
        let taken = usize::try_from(accepted).ok().filter(|taken| *taken <= out.content).ok_or(fault)?;
        if taken == out.content {
            return Ok(());
        }
        if out.is_end && taken == 0 {
            return Err(fault);
        }
        // An empty message is taken with what is before it, and not by taking nothing.
        let mut again = if taken == 0 { out.body.to_vec() } else { rest(&out.body, taken) };
        again.append(&mut self.body);
        self.body = again;
        self.content += out.content - taken;
        self.replayed = out.content - taken;
        let is_full = self.body.len() >= room;
        if is_full && taken == 0 {
            // It waits for more, and no more can come.
            self.clear();
            return Err(fault);
        }
        self.is_news |= out.is_end || is_full;
        Ok(())
    }

    /// Nothing of it is to be said any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Events without the first so many bytes of their contents. What is left of one that is taken in part is one by itself.
fn rest(body: &Bytes, taken: usize) -> Vec<u8> {
    let mut left = taken;
    let mut is_before = true;
    let mut rest = Vec::with_capacity(body.len() - taken.min(body.len()));
    // Written here.
    for event in events::decode_unchecked(body) {
        let skip = left.min(event.content.len());
        left -= skip;
        is_before &= skip == event.content.len();
        if !is_before {
            events::write(&mut rest, event.kind, &event.content[skip..]);
        }
    }
    rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }

    #[test]
    fn the_rest_of_a_message_goes_again_with_the_next_one() {
        let mut batch = Batch::default();
        batch.push(Kind::Text, b"[foo][hello");
        let sent = batch.take(false);
        assert_eq!((text(&sent.body).as_str(), sent.replayed), ("TEXT b\\r\\n[foo][hello\\r\\n", 0));
        batch.accepted(Some(5), 1000).unwrap();
        assert!(!batch.is_news() && !batch.is_empty());
        batch.push(Kind::Text, b" world]");
        let sent = batch.take(false);
        let expected = "TEXT 6\\r\\n[hello\\r\\nTEXT 7\\r\\n world]\\r\\n";
        assert_eq!((text(&sent.body).as_str(), sent.replayed), (expected, 6));
        batch.accepted(None, 1000).unwrap();
        assert!(batch.is_empty());
        assert_eq!(batch.len(), 0);
    }

    #[test]
    fn an_app_cannot_take_more_than_there_is_or_leave_the_end() {
        let mut batch = Batch::default();
        batch.push(Kind::Text, b"abc");
        batch.take(false);
        assert_eq!(batch.accepted(Some(4), 1000), Err(NotAccepted { offered: 3, accepted: 4 }));
        batch.push(Kind::Text, b"abc");
        batch.push(Kind::Close, b"\x03\xe8");
        batch.take(true);
        assert_eq!(batch.accepted(Some(0), 1000), Err(NotAccepted { offered: 5, accepted: 0 }));
        batch.push(Kind::Text, b"abc");
        batch.push(Kind::Close, b"\x03\xe8");
        batch.take(true);
        batch.accepted(Some(3), 1000).unwrap();
        assert!(batch.is_news(), "the end is sent again at once");
        assert_eq!(text(&batch.take(true).body), "CLOSE 2\\r\\n\\x03\\xe8\\r\\n");
    }

    #[test]
    fn events_without_content_are_taken_with_what_is_before_them() {
        let mut batch = Batch::default();
        for (kind, content) in [(Kind::Text, &b""[..]), (Kind::Text, b"ab"), (Kind::Binary, b""), (Kind::Text, b"cd")] {
            batch.push(kind, content);
        }
        batch.take(false);
        batch.accepted(Some(2), 1000).unwrap();
        assert_eq!(text(&batch.take(false).body), "TEXT 2\\r\\ncd\\r\\n");
    }

    #[test]
    fn an_empty_message_is_not_taken_by_taking_nothing() {
        let mut batch = Batch::default();
        batch.push(Kind::Text, b"");
        batch.push(Kind::Text, b"ab");
        batch.take(false);
        batch.accepted(Some(0), 1000).unwrap();
        assert_eq!(text(&batch.take(false).body), "TEXT 0\\r\\n\\r\\nTEXT 2\\r\\nab\\r\\n");
    }

    #[test]
    fn an_app_that_waits_for_more_where_no_more_can_come_does_wrong() {
        let mut batch = Batch::default();
        batch.push(Kind::Text, &[b'x'; 2000]);
        batch.take(false);
        batch.accepted(Some(1), 1000).unwrap();
        assert!(batch.is_news(), "what is left goes again at once");
        batch.take(false);
        assert_eq!(batch.accepted(Some(0), 1000), Err(NotAccepted { offered: 1999, accepted: 0 }));
        batch.push(Kind::Text, &[b'x'; 2000]);
        batch.take(false);
        batch.accepted(Some(1900), 1000).unwrap();
        assert!(!batch.is_news(), "there is room again");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_at_a_time_every_byte_arrives_once_and_in_order(
            contents in proptest::collection::vec("[a-z]{0,6}", 1..8), steps in proptest::collection::vec(0_usize..5, 1..30)
        ) {
            let (mut batch, mut arrived, mut contents_left) = (Batch::default(), String::new(), contents.iter());
            for step in steps.into_iter().chain(std::iter::repeat_n(100, 10)) {
                if let Some(content) = contents_left.next() {
                    batch.push(Kind::Text, content.as_bytes());
                }
                let sending = batch.take(false);
                let events = events::decode(&sending.body).unwrap();
                let all: String = events.iter().map(|event| std::str::from_utf8(&event.content).unwrap()).collect();
                let taken = step.min(all.len());
                arrived.push_str(&all[..taken]);
                batch.accepted(Some(taken as u64), 1000).unwrap();
            }
            prop_assert!(batch.is_empty());
            prop_assert_eq!(arrived, contents.concat());
        }
    }
}
