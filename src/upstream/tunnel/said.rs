//! What the edge itself says to a client in the middle of what the worker says: at the end of a frame, never within one.

use super::frames::{CLOSE, Frames, PING};

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A ping without a payload. Its pong goes on to the worker, which passes over a pong that it has not asked for (RFC 6455,
    /// 5.5.3).
    Ping,
    /// A close frame with this code, behind which the worker is not heard any more.
    Close(u16),
}

impl Word {
    /// The whole frame, as a server sends it.
    fn append(self, out: &mut Vec<u8>) {
        match self {
            Self::Ping => out.extend_from_slice(&[0x80 | PING, 0]),
            Self::Close(code) => {
                out.extend_from_slice(&[0x80 | CLOSE, 2]);
                out.extend_from_slice(&code.to_be_bytes());
            }
        }
    }
}

/// The way from a worker to its client.
#[derive(Debug, Default)]
pub(super) struct Said {
    frames: Frames,
    /// What is to be said where the next frame ends.
    word: Option<Word>,
    /// Whether the last word was ours.
    has_closed: bool,
}

impl Said {
    /// Asks for a word. A close takes the place of what has not been said yet; behind a close nothing is said.
    pub(super) fn say(&mut self, word: Word) {
        if !self.is_closed() && !matches!(self.word, Some(Word::Close(_))) {
            self.word = Some(word);
        }
    }

    /// Whether a word waits for the end of a frame.
    pub(super) fn has_word(&self) -> bool {
        self.word.is_some() && !self.is_closed()
    }

    /// Whether a close frame has been said, by whomever.
    pub(super) fn is_closed(&self) -> bool {
        self.has_closed || self.frames.has_closed()
    }

    /// Whether what has been said so far ends with a frame.
    pub(super) fn is_between(&self) -> bool {
        self.frames.is_between()
    }

    /// Appends what is to be said and can be said now, while nothing is on its way.
    pub(super) fn speak(&mut self, out: &mut Vec<u8>) {
        if self.frames.is_between()
            && !self.frames.has_closed()
            && let Some(word) = self.word.take()
        {
            self.has_closed = matches!(word, Word::Close(_));
            word.append(out);
        }
    }

    /// `bytes` are what the worker says next: puts into them what is to be said, and takes away what comes behind our last
    /// word.
    pub(super) fn pass(&mut self, bytes: &mut Vec<u8>) {
        if self.has_closed {
            bytes.clear();
            return;
        }
        if self.word.is_none() {
            self.frames.follow(bytes);
            return;
        }
        let end = if self.frames.is_between() { 0 } else { self.frames.step(bytes) };
        if !self.frames.is_between() {
            return;
        }
        let rest = bytes.split_off(end);
        self.speak(bytes);
        if !self.has_closed {
            self.frames.follow(&rest);
            bytes.extend_from_slice(&rest);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::frames::tests::{frame, some_frames};
    use super::*;

    const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 233];

    /// What comes of `bytes` in pieces, when `word` is asked for before the piece at `when`.
    fn passed(bytes: &[u8], cut: usize, when: usize, word: Word) -> Vec<u8> {
        let (mut said, mut out) = (Said::default(), Vec::new());
        for (at, piece) in bytes.chunks(cut).enumerate() {
            if at == when {
                said.say(word);
            }
            said.speak(&mut out);
            let mut piece = piece.to_vec();
            said.pass(&mut piece);
            out.extend(piece);
        }
        said.speak(&mut out);
        out
    }

    proptest! {
        #[test]
        fn a_word_stands_between_two_frames_and_changes_nothing_else(
            all in some_frames(), cut in 1..3000_usize, when in 0..40_usize,
        ) {
            let bytes = all.concat();
            let when = when % bytes.len().div_ceil(cut);
            // The first frame that ends where or behind where it was asked for.
            let ends: Vec<usize> = all.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let asked = when * cut;
            let end = if asked == 0 { 0 } else { *ends.iter().find(|end| **end >= asked).unwrap() };
            let expected = [&bytes[..end], &[0x89, 0], &bytes[end..]].concat();
            prop_assert!(passed(&bytes, cut, when, Word::Ping) == expected);
            let expected = [&bytes[..end], &GOING_AWAY].concat();
            prop_assert!(passed(&bytes, cut, when, Word::Close(1001)) == expected);
        }
    }

    #[test]
    fn behind_a_close_nothing_is_said() {
        let mut said = Said::default();
        let mut bytes = frame(CLOSE, false, &[3, 232]);
        let whole = bytes.clone();
        said.pass(&mut bytes);
        assert!(bytes == whole && said.is_closed());
        let mut out = Vec::new();
        for word in [Word::Ping, Word::Close(1001)] {
            said.say(word);
            said.speak(&mut out);
        }
        assert!(out.is_empty(), "{out:?}");
    }

    #[test]
    fn a_close_of_the_worker_that_comes_first_is_the_last_word() {
        let (mut said, close) = (Said::default(), frame(CLOSE, false, &[3, 232]));
        let mut out = close[..2].to_vec();
        said.pass(&mut out);
        said.say(Word::Close(1001));
        let mut rest = close[2..].to_vec();
        said.pass(&mut rest);
        said.speak(&mut rest);
        assert_eq!([out, rest].concat(), close);
        assert!(!said.has_word(), "nobody waits for a word that will not be said");
    }

    #[test]
    fn a_close_takes_the_place_of_a_ping_and_not_the_other_way_round() {
        let mut said = Said::default();
        said.say(Word::Ping);
        said.say(Word::Close(1001));
        said.say(Word::Ping);
        let mut out = Vec::new();
        said.speak(&mut out);
        assert_eq!(out, GOING_AWAY);
        let mut late = frame(1, false, b"late");
        said.pass(&mut late);
        assert!(late.is_empty(), "{late:?}");
    }
}
