//! Where the frames of a WebSocket end (RFC 6455, 5.2): found in one direction of its bytes, without looking at what is in
//! them. Judges nothing: what is no WebSocket has no frame that ends.

/// Opcodes (RFC 6455, 5.2).
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;

/// The longest header: its two bytes, a length of eight and a mask of four.
const HEADER: usize = 14;

/// Follows one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of a header that has begun.
    have: usize,
    /// What is still to come of the payload at hand.
    payload: u64,
    is_in_payload: bool,
    has_closed: bool,
}

impl Frames {
    /// Follows `bytes` to the end of the frame at hand, or to their own end. How many that were; the frame has ended if
    /// [`Self::is_between`] says so then.
    pub(super) fn step(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        if !self.is_in_payload && !self.read_header(&mut rest) {
            return bytes.len();
        }
        let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(rest.len());
        self.payload -= taken as u64;
        rest = &rest[taken..];
        if self.payload == 0 {
            self.is_in_payload = false;
            self.has_closed |= self.header[0] & 0x0f == CLOSE;
        }
        bytes.len() - rest.len()
    }

    /// Follows all of `bytes`.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Whether no frame has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        !self.is_in_payload && self.have == 0
    }

    /// Whether there was a close frame, behind which nothing more may be said.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether the header is whole now, which is taken from the front of `bytes`.
    fn read_header(&mut self, bytes: &mut &[u8]) -> bool {
        loop {
            let wanted = self.header_length();
            let count = (wanted - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at(count);
            self.header[self.have..self.have + count].copy_from_slice(now);
            self.have += count;
            *bytes = rest;
            if self.have < wanted {
                return false;
            }
            // The second byte tells how long it is.
            if wanted == self.header_length() {
                break;
            }
        }
        self.payload = self.payload_length();
        self.have = 0;
        self.is_in_payload = true;
        true
    }

    /// As far as is known.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn payload_length(&self) -> u64 {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.header;
        match second & 0x7f {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length => length.into(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One frame, masked or not.
    pub(in crate::upstream::tunnel) fn frame(opcode: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            length @ 126..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if is_masked {
            bytes.extend([0, 0, 0, 0]);
        }
        bytes.extend(payload);
        bytes
    }

    /// Frames of all lengths that have a header of their own.
    pub(in crate::upstream::tunnel) fn some_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let length = prop_oneof![0..10_usize, 120..130_usize, Just(0xffff_usize), Just(0x1_0000_usize)];
        let one = (prop_oneof![0..3_u8, 9..11_u8], any::<bool>(), length);
        let frame = one.prop_map(|(opcode, is_masked, length)| frame(opcode, is_masked, &vec![b'x'; length]));
        prop::collection::vec(frame, 1..6)
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(all in some_frames(), cut in 1..5000_usize) {
            let mut frames = Frames::default();
            let (mut at, mut ends) = (0, Vec::new());
            for mut piece in all.concat().chunks(cut) {
                while !piece.is_empty() {
                    let taken = frames.step(piece);
                    prop_assert!(taken > 0);
                    at += taken;
                    if frames.is_between() {
                        ends.push(at);
                    } else {
                        prop_assert_eq!(taken, piece.len());
                    }
                    piece = &piece[taken..];
                }
            }
            let expected: Vec<usize> = all.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            prop_assert_eq!(ends, expected);
            prop_assert!(!frames.has_closed());
            frames.follow(&frame(CLOSE, false, &[3, 232]));
            prop_assert!(frames.has_closed() && frames.is_between());
        }

        #[test]
        fn nothing_is_too_much_for_it(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1..20_usize) {
            let (mut whole, mut pieces) = (Frames::default(), Frames::default());
            whole.follow(&bytes);
            bytes.chunks(cut).for_each(|piece| pieces.follow(piece));
            prop_assert_eq!(whole.is_between(), pieces.is_between());
            prop_assert_eq!(whole.has_closed(), pieces.has_closed());
        }
    }

    #[test]
    fn a_close_frame_counts_when_it_has_ended() {
        let mut frames = Frames::default();
        let close = frame(CLOSE, false, &[3, 232]);
        frames.follow(&close[..3]);
        assert!(!frames.has_closed() && !frames.is_between());
        frames.follow(&close[3..]);
        assert!(frames.has_closed() && frames.is_between());
    }
}
