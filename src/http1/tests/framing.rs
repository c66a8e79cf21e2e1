//! Where heads and chunks end.

use proptest::prelude::*;

use super::generate;
use crate::http1::chunked::{Decoder, Malformed, Step};
use crate::http1::head::find_end;

/// The first empty line, looked for the slow way.
fn first_empty_line(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len()).find(|end| bytes[..*end].ends_with(b"\n\n") || bytes[..*end].ends_with(b"\n\r\n"))
}

/// What the decoder makes of a size line and the 64 bytes after it: how many of them are data.
fn data_after(line: &[u8]) -> Result<usize, Malformed> {
    let input = [line, &[b'x'; 64]].concat();
    match Decoder::default().step(&input)? {
        Step::Data { skip, data } if skip == line.len() => Ok(data),
        Step::More { .. } | Step::End { .. } | Step::Data { .. } => Err(Malformed),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_head_ends_at_its_first_empty_line_however_it_arrives(
        bytes in prop_oneof![generate::noise(), generate::request(), generate::damaged(generate::request())],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let expected = first_empty_line(&bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut scanned = 0;
        for here in cuts.into_iter().chain([bytes.len()]) {
            let found = find_end(&bytes[..here], &mut scanned);
            prop_assert_eq!(found, expected.filter(|end| *end <= here), "with {} bytes here", here);
            if found.is_some() {
                break;
            }
        }
    }

    #[test]
    fn a_chunk_size_is_read_as_httparse_reads_it(line in "[0-9a-fA-F]{0,17}[ \t;x]{0,2}[!-~]{0,4}\r?\n?") {
        let line = format!("{line}\r\n");
        if let Ok(data) = data_after(line.as_bytes()) {
            let read = httparse::parse_chunk_size(line.as_bytes());
            let Ok(httparse::Status::Complete((used, size))) = read else {
                return Err(TestCaseError::fail(format!("{line:?}: {read:?}")));
            };
            prop_assert_eq!((used, size.min(64)), (line.len(), data as u64));
        }
    }

    #[test]
    fn a_chunk_size_that_httparse_takes_and_we_do_not_is_of_a_known_class(
        line in "[0-9a-fA-F]{1,17}[ \t]{0,2}(;[ -~]{0,8})?",
    ) {
        let line = format!("{line}\r\n");
        let is_taken = matches!(httparse::parse_chunk_size(line.as_bytes()), Ok(httparse::Status::Complete((_, 1..))));
        let digits = line.bytes().take_while(u8::is_ascii_hexdigit).count();
        let has_open_quote = line.replace("\\\\", "").replace("\\\"", "").matches('"').count() % 2 == 1;
        let is_known = digits > 15 || line[digits..].starts_with([' ', '\t']) || has_open_quote || line.contains('\\');
        prop_assert!(data_after(line.as_bytes()).is_ok() || !is_taken || is_known, "{:?}", line);
    }

    #[test]
    fn no_bytes_make_the_chunk_decoder_panic_or_step_too_far(bytes in generate::noise()) {
        let mut decoder = Decoder::default();
        let mut rest = &bytes[..];
        while let Ok(Step::Data { skip, data }) = decoder.step(rest) {
            prop_assert!(data > 0 && skip + data <= rest.len());
            rest = &rest[skip + data..];
        }
    }
}

#[test]
fn where_we_are_stricter_with_chunk_sizes() {
    for (line, why) in [
        ("3 \r\n", "space behind a size is no grammar, and some take it for part of the size"),
        ("3\t\r\n", "the same"),
        (
            "3 ;a\r\n",
            "the RFC allows it before an extension, to be read and never written; nobody honest sends extensions",
        ),
        ("0000000000000003\r\n", "16 digits: readers with 64 bits are at their limit"),
        ("3;a=\"\r\n", "a line that ends within quotes goes on for some"),
    ] {
        let read = httparse::parse_chunk_size(line.as_bytes());
        assert_eq!(read, Ok(httparse::Status::Complete((line.len(), 3))), "{line:?}");
        assert_eq!(data_after(line.as_bytes()), Err(Malformed), "{line:?}: {why}");
    }
}
