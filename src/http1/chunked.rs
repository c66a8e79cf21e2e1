//! The chunked coding (RFC 9112, 7.1), decoded strictly and without IO.
//!
//! The decoder is fed whatever bytes are there and says how many of them to step over and how many are data. It keeps
//! a few words of state, so that any split of the same bytes gives the same result. Chunk extensions are legal and are
//! stepped over within a limit; trailers are stepped over within a limit and dropped.

/// Bytes of one chunk-size line, extensions included.
const MAX_LINE: usize = 4 << 10;
/// Bytes of all chunk extensions of one body: without a bound a body of one-byte chunks could carry anything.
const MAX_EXTENSIONS: usize = 64 << 10;
/// Bytes of the trailer section.
const MAX_TRAILERS: usize = 16 << 10;

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// After `skip` bytes of framing come `data` bytes of body.
    Data {
        /// Bytes to step over.
        skip: usize,
        /// Bytes of body after them, all of them in the input.
        data: usize,
    },
    /// All `skip` bytes (the whole input) are framing; more is needed.
    More {
        /// Bytes to step over.
        skip: usize,
    },
    /// After `skip` bytes the message is over.
    End {
        /// Bytes to step over.
        skip: usize,
    },
}

/// The bytes are not chunked coding, or exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The state between two inputs.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    /// Bytes of the current size line or of the trailer section so far.
    line: usize,
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the size; whether it has a digit yet.
    Size {
        value: u64,
        digits: u32,
    },
    /// Within an extension, where anything printable may stand.
    Extension {
        value: u64,
        quote: Quote,
    },
    /// After the CR of the size line.
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    /// Within the name of a trailer field.
    TrailerName,
    /// Behind its colon.
    Trailer,
    TrailerLf,
    /// After the CR of the final empty line.
    EndLf,
    End,
}

/// Where in an extension a byte stands. A line must not end within quotes: there are readers for whom it goes on then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

impl Quote {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Outside, b'"') | (Self::Escaped, _) => Self::Inside,
            (Self::Inside, b'"') => Self::Outside,
            (Self::Inside, b'\\') => Self::Escaped,
            (same, _) => same,
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, line: 0, extensions: 0 }
    }
}

impl Decoder {
    /// Whether the last chunk and its trailers have been read.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Looks at the next bytes. The caller steps over `skip` bytes, takes `data` bytes, and asks again with the rest.
    ///
    /// # Errors
    /// [`Malformed`]; the decoder must not be used after it.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        let mut skip = 0;
        loop {
            match self.state {
                State::End => return Ok(Step::End { skip }),
                State::Data { left } => {
                    let here = input.len() - skip;
                    if here == 0 {
                        return Ok(Step::More { skip });
                    }
                    let data = usize::try_from(left).map_or(here, |left| left.min(here));
                    let left = left - data as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Step::Data { skip, data });
                }
                _ => {
                    let Some(&byte) = input.get(skip) else { return Ok(Step::More { skip }) };
                    skip += 1;
                    self.state = self.framing(byte)?;
                }
            }
        }
    }

    fn framing(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        let is_trailer = matches!(
            self.state,
            State::TrailerStart | State::TrailerName | State::Trailer | State::TrailerLf | State::EndLf
        );
        if self.line > if is_trailer { MAX_TRAILERS } else { MAX_LINE } {
            return Err(Malformed);
        }
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                // 15 digits leave room for no overflow, and for no body that anybody could send.
                if digits == 15 {
                    Err(Malformed)
                } else {
                    Ok(State::Size { value: value << 4 | digit, digits: digits + 1 })
                }
            }
            (State::Size { value, digits: 1.. }, b'\r') => Ok(State::SizeLf { value }),
            (State::Size { value, digits: 1.. }, b';') => Ok(State::Extension { value, quote: Quote::Outside }),
            (State::Extension { value, quote: Quote::Outside }, b'\r') => Ok(State::SizeLf { value }),
            (State::Extension { value, quote }, b'\t' | 0x20..=0x7E | 0x80..) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Malformed);
                }
                Ok(State::Extension { value, quote: quote.after(byte) })
            }
            (State::SizeLf { value }, b'\n') => {
                self.line = 0;
                Ok(if value == 0 { State::TrailerStart } else { State::Data { left: value } })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size { value: 0, digits: 0 })
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if super::head::is_tchar(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::Trailer, b'\t' | 0x20..=0x7E | 0x80..) => Ok(State::Trailer),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and how many bytes the message took; `Ok(None)` when more bytes are needed.
    fn decode(pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
        let (mut decoder, mut body, mut used) = (Decoder::default(), Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match decoder.step(rest)? {
                    Step::Data { skip, data } => {
                        body.extend_from_slice(&rest[skip..skip + data]);
                        rest = &rest[skip + data..];
                        used += skip + data;
                    }
                    Step::More { skip } => {
                        used += skip;
                        break;
                    }
                    Step::End { skip } => return Ok(Some((body, used + skip))),
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn legal_bodies_are_read() {
        for (text, body) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("00a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("3;x=\"y;\\\"\";z\r\nabc\r\n0;l\r\nTrailer: a\r\nB:\r\n\r\n", "abc"),
            ("1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n"),
        ] {
            let tail = format!("{text}GET");
            assert_eq!(decode(&[tail.as_bytes()]), Ok(Some((body.as_bytes().to_vec(), text.len()))), "{text:?}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "3\nabc",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "-1\r\n",
            "+1\r\n",
            "0x3\r\nabc\r\n",
            "1000000000000000\r\n",
            ";x\r\n",
            "0\r\n\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\nA\nB\r\n\r\n",
            "3;\0\r\n",
            "3;a\nb\r\n",
            "3;a=\"\r\nabc\r\n",
            "3;a=\"\\\"\r\nabc\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\n: a\r\n\r\n",
        ] {
            assert_eq!(decode(&[text.as_bytes()]), Err(Malformed), "{text:?}");
        }
        let long = format!("3;{}\r\n", "x".repeat(MAX_LINE));
        assert_eq!(decode(&[long.as_bytes()]), Err(Malformed));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        assert_eq!(decode(&[trailers.as_bytes()]), Err(Malformed));
        let sum = format!("1;{}\r\nx\r\n", "x".repeat(4000)).repeat(17);
        assert_eq!(decode(&[sum.as_bytes()]), Err(Malformed));
    }

    #[test]
    fn trailers_are_bounded_however_short_their_lines() {
        let body = |lines: usize| format!("0\r\n{}\r\n", "a:\r\n".repeat(lines));
        assert!(matches!(decode(&[body(MAX_TRAILERS / 4 - 1).as_bytes()]), Ok(Some(_))));
        assert_eq!(decode(&[body(MAX_TRAILERS / 4 + 1).as_bytes()]), Err(Malformed));
        assert_eq!(decode(&[&b"0\r\n"[..], &b"a:\r\n".repeat(MAX_TRAILERS)]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_split_of_the_same_bytes_agrees(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..5),
        ) {
            let whole = decode(&[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(decode(&pieces), whole);
        }

        #[test]
        fn what_is_encoded_is_decoded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&[&wire]), Ok(Some((chunks.concat(), wire.len()))));
        }
    }
}
