//! Where frames begin and end in what a client sends, by their lengths alone: between two messages nothing is held that could not
//! be let go.

/// The longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST: usize = 14;

/// Follows the frames.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    head: [u8; LONGEST],
    /// Bytes of the next head that are here.
    have: usize,
    /// Bytes of the frame that are still to come.
    left: u64,
    /// A message has begun that has not ended.
    is_within: bool,
    largest: u64,
}

impl Boundary {
    /// More has come.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == needed(&self.head[..self.have]) {
                self.begin();
            }
        }
    }

    /// A head is whole.
    fn begin(&mut self) {
        let big_endian = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        self.left = match self.head[1] & 0x7f {
            126 => big_endian(&self.head[2..4]),
            127 => big_endian(&self.head[2..10]),
            length => length.into(),
        };
        if self.head[0] & 0x08 == 0 {
            self.is_within = self.head[0] & 0x80 == 0;
        }
        self.largest = self.largest.max(self.left);
        self.have = 0;
    }

    /// Whether all that has come are whole messages.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.is_within
    }

    /// Bytes of the largest frame so far.
    pub(super) fn largest(&self) -> u64 {
        self.largest
    }
}

/// How long a head is that begins so.
fn needed(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, is_masked: bool, length: usize) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; if is_masked { 4 } else { 0 } + length]);
        frame
    }

    proptest! {
        #[test]
        fn it_is_between_messages_exactly_behind_the_last_byte_of_one(
            lengths in proptest::collection::vec((prop_oneof![0_usize..130, 65_530_usize..65_540], any::<bool>(), any::<bool>()), 1..6),
            cut in any::<proptest::sample::Index>()
        ) {
            let (mut all, mut ends, mut is_within) = (Vec::new(), vec![0], false);
            for (length, is_masked, fin) in lengths {
                let opcode = if is_within { 0 } else { 2 };
                all.extend(frame(opcode | if fin { 0x80 } else { 0 }, is_masked, length));
                is_within = !fin;
                // A ping within a message ends nothing.
                if is_within {
                    all.extend(frame(0x89, true, 3));
                } else {
                    ends.push(all.len());
                }
            }
            let at = cut.index(all.len() + 1);
            let mut boundary = Boundary::default();
            all[..at].chunks(7).for_each(|piece| boundary.feed(piece));
            prop_assert_eq!(boundary.is_between(), ends.contains(&at), "{} of {:?}", at, ends);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut boundary = Boundary::default();
            boundary.feed(&bytes);
        }
    }
}
