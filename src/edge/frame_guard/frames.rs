//! The frame headers of an HTTP/2 byte stream (RFC 9113, 4.1), found without copying what lies between them.
//!
//! Judges nothing: lengths, types and flags are told as they stand there. The same frames are found however the bytes
//! are cut into pieces.

/// Bytes of a frame header.
const HEADER: usize = 9;
/// Bytes of a payload that a frame is told with: as far as GOAWAY's code.
const PREFIX: usize = 8;

/// Frame types (RFC 9113, 6).
pub mod kind {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (RFC 9113, 6).
pub mod flag {
    /// Of DATA and HEADERS: nothing of this stream follows.
    pub const END_STREAM: u8 = 1;
    /// Of SETTINGS and PING: an answer to ours.
    pub const ACK: u8 = 1;
    /// Of HEADERS and CONTINUATION: the header block is complete.
    pub const END_HEADERS: u8 = 4;
    /// Of DATA and HEADERS: the first byte of the payload is the length of the padding.
    pub const PADDED: u8 = 8;
}

/// A frame, told when its header and the beginning of its payload are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its type: see [`kind`].
    pub kind: u8,
    /// Its flags: see [`flag`].
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// Bytes of its payload.
    pub length: u32,
    prefix: [u8; PREFIX],
}

impl Frame {
    /// Whether it has this flag.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of a DATA frame that are neither padding nor its length (RFC 9113, 6.1). 0 where the padding is too long.
    #[must_use]
    pub fn content(&self) -> u32 {
        if !self.has(flag::PADDED) {
            return self.length;
        }
        self.length.saturating_sub(1 + u32::from(self.prefix[0]))
    }

    /// The error code of RST_STREAM and GOAWAY; `None` where the frame is too short for it.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.prefix.get(at..at + 4).filter(|_| self.length as usize >= at + 4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }
}

/// Finds the frames of one direction.
#[derive(Debug)]
pub struct Frames {
    /// Bytes to step over: the connection preface, or the rest of a payload.
    skip: usize,
    /// The beginning of a frame that is not complete yet.
    bytes: [u8; HEADER + PREFIX],
    have: usize,
    /// The type of the frame whose payload is stepped over.
    current: u8,
}

impl Frames {
    /// The first frame begins behind `preface` bytes.
    #[must_use]
    pub fn behind(preface: usize) -> Self {
        Self { skip: preface, bytes: [0; HEADER + PREFIX], have: 0, current: u8::MAX }
    }

    /// The next frame of `bytes`, which are taken from its front. `None`: all of them are used up.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        if self.skip > 0 {
            return None;
        }
        if !self.collect(bytes, HEADER) {
            return None;
        }
        let length = u32::from_be_bytes([0, self.bytes[0], self.bytes[1], self.bytes[2]]);
        let told = (length as usize).min(PREFIX);
        if !self.collect(bytes, HEADER + told) {
            return None;
        }
        self.have = 0;
        self.skip = length as usize - told;
        Some(self.frame(length, told))
    }

    /// The type of a frame of which not all has come, where it is known.
    #[must_use]
    pub fn incomplete(&self) -> Option<u8> {
        match (self.have, self.skip) {
            (4.., _) => Some(self.bytes[3]),
            (0, 1..) => Some(self.current),
            _ => None,
        }
    }

    /// Whether there are `wanted` bytes of a frame's beginning.
    fn collect(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let count = wanted.saturating_sub(self.have).min(bytes.len());
        let (now, rest) = bytes.split_at(count);
        self.bytes[self.have..self.have + count].copy_from_slice(now);
        self.have += count;
        *bytes = rest;
        self.have >= wanted
    }

    fn frame(&mut self, length: u32, told: usize) -> Frame {
        let [_, _, _, kind, flags, a, b, c, d, ..] = self.bytes;
        self.current = kind;
        let mut prefix = [0; PREFIX];
        prefix[..told].copy_from_slice(&self.bytes[HEADER..HEADER + told]);
        // The first bit is reserved (RFC 9113, 4.1).
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        Frame { kind, flags, stream, length, prefix }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn all<'a>(frames: &mut Frames, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = frames.next(&mut piece) {
                found.push(frame);
            }
            assert!(piece.is_empty());
        }
        found
    }

    #[test]
    fn a_frame_is_told_with_what_decides_about_it() {
        let goaway = bytes_of(kind::GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11, b'w', b'h', b'y']);
        let reset = bytes_of(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]);
        let padded = bytes_of(kind::DATA, flag::PADDED, 5, &[2, b'a', 0, 0]);
        let bytes = [&b"preface"[..], &goaway, &reset, &padded].concat();
        let found = all(&mut Frames::behind(7), [&bytes[..]]);
        assert_eq!(found.iter().map(|frame| (frame.kind, frame.stream)).collect::<Vec<_>>(), [(7, 0), (3, 3), (0, 5)]);
        assert_eq!((found[0].code(), found[1].code(), found[2].code()), (Some(11), Some(8), None));
        assert_eq!((found[2].content(), found[2].length), (1, 4));
    }

    #[test]
    fn what_is_too_short_for_its_type_has_no_code_and_no_content() {
        let bytes = [bytes_of(kind::RST_STREAM, 0, 1, &[0, 0]), bytes_of(kind::DATA, flag::PADDED, 1, &[9])].concat();
        let found = all(&mut Frames::behind(0), [&bytes[..]]);
        assert_eq!((found[0].code(), found[1].content()), (None, 0));
    }

    #[test]
    fn the_reserved_bit_is_no_part_of_the_stream() {
        let bytes = bytes_of(kind::PING, 0, 1 << 31, &[0; 8]);
        assert_eq!(all(&mut Frames::behind(0), [&bytes[..]])[0].stream, 0);
    }

    #[test]
    fn what_is_at_hand_is_known_from_its_fourth_byte_to_its_last() {
        let bytes = bytes_of(kind::HEADERS, 0, 1, &[0; 20]);
        let mut frames = Frames::behind(0);
        for end in 0..bytes.len() {
            let expected = (end >= 4).then_some(kind::HEADERS);
            assert_eq!(frames.incomplete(), expected, "after {end} bytes");
            all(&mut frames, [&bytes[end..=end]]);
        }
        assert_eq!(frames.incomplete(), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            contents in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>(), 0..40_usize), 0..20),
            cut in 1..30_usize,
            preface in 0..30_usize,
        ) {
            let mut bytes = vec![b'p'; preface];
            for (kind, flags, stream, length) in &contents {
                bytes.extend(bytes_of(*kind, *flags, *stream, &vec![7; *length]));
            }
            let whole = all(&mut Frames::behind(preface), [&bytes[..]]);
            let pieces = all(&mut Frames::behind(preface), bytes.chunks(cut));
            prop_assert_eq!(&whole, &pieces);
            prop_assert_eq!(whole.len(), contents.len());
            for (frame, (kind, flags, stream, length)) in whole.iter().zip(&contents) {
                prop_assert_eq!((frame.kind, frame.flags), (*kind, *flags));
                prop_assert_eq!((frame.stream, frame.length as usize), (stream & (u32::MAX >> 1), *length));
            }
        }

        #[test]
        fn no_bytes_make_it_fall(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1..20_usize) {
            let whole = all(&mut Frames::behind(0), [&bytes[..]]);
            prop_assert_eq!(whole, all(&mut Frames::behind(0), bytes.chunks(cut)));
        }
    }
}
