//! The bytes of a file as a body: all of it, a part, or several parts in one ([`multipart`](crate::http::multipart)).
//!
//! A body holds its file open and promises a length. What is in the page cache is read where the body is polled, or sent
//! from where it lies ([`Span`]); what the kernel has to fetch from the disk is another thread's work ([`PieceReader`]). A
//! file that gets shorter meanwhile cuts its answer ([`Reason::FileChanged`]); one that grows sends what was promised.
//!
//! Closing a file costs no wait for a disk, but for one: who closes the last handle of a large file that has been removed, or
//! replaced, waits until its blocks have been given back. That is another thread's work ([`let_go`]).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use rustix::fs::fstat;
use tokio::runtime::Handle;

use crate::error::{Error, Reason};
use crate::http::multipart::{self, Multipart};
use crate::http::range::ByteRange;
use crate::http::{Body, Source};
use crate::observe::throttle::Throttles;
use crate::runtime::{PieceReader, Span};

/// All of a file that has `length` bytes.
#[must_use]
pub fn whole(file: Arc<File>, length: u64) -> Body {
    stretch(file, 0, length)
}

/// A part of a file, which has it.
#[must_use]
pub fn part(file: Arc<File>, range: ByteRange) -> Body {
    stretch(file, range.first, range.last.saturating_add(1))
}

fn stretch(file: Arc<File>, at: u64, end: u64) -> Body {
    if at == end {
        return Body::Full(Bytes::new());
    }
    Body::Stream(Box::new(Stretch::new(file, at, end)))
}

/// Parts of a file that has `length` bytes, in the order of `ranges`. `content_type` is the file's own.
#[must_use]
pub fn multipart(file: Arc<File>, ranges: &[ByteRange], length: u64, content_type: Option<&HeaderValue>) -> Multipart {
    let file = Kept(Some(file));
    let part = move |range| file.0.as_ref().map_or(Body::Empty, |file| part(Arc::clone(file), range));
    multipart::multipart(ranges, length, content_type, part)
}

/// A file that is let go of when it is no longer needed.
struct Kept(Option<Arc<File>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            let_go(file);
        }
    }
}

/// From this size on, giving the blocks of a file back takes longer than a way to another thread: on ext4 0.7 ms for 16 MiB,
/// and 60 ms for 1 GiB.
const LONG_TO_CLOSE: i64 = 16 << 20;

/// Drops a handle, and has another thread close the file if that may take long.
pub(super) fn let_go(file: Arc<File>) {
    let Some(file) = Arc::into_inner(file) else { return };
    let takes_long = fstat(&file).is_ok_and(|stat| stat.st_nlink == 0 && stat.st_size >= LONG_TO_CLOSE);
    // Without a runtime the process is ending.
    if let Some(runtime) = takes_long.then(|| Handle::try_current().ok()).flatten() {
        drop(runtime.spawn_blocking(move || drop(file)));
    }
}

/// Bytes of a file, up to `end`.
struct Stretch {
    file: Kept,
    at: u64,
    end: u64,
    pieces: PieceReader,
}

impl Stretch {
    fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file: Kept(Some(file)), at, end, pieces: PieceReader::in_batches() }
    }
}

impl Source for Stretch {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(file) = self.file.0.as_ref().filter(|_| self.at < self.end) else { return Poll::Ready(None) };
        let piece = ready!(self.pieces.poll(file, self.at, self.end, cx));
        Poll::Ready(Some(match piece {
            Ok(piece) => {
                self.at += piece.len() as u64;
                Ok(piece)
            }
            Err(error) => Err(failed(file, error)),
        }))
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.end - self.at)
    }

    fn span(&self) -> Option<Span> {
        self.pieces.span(self.file.0.as_ref()?, self.at, self.end)
    }

    fn sent(&mut self, bytes: u64) {
        self.at += bytes;
    }
}

/// Why an answer is cut. Told here, where the file is known.
fn failed(file: &File, source: io::Error) -> Error {
    static THROTTLES: Throttles = Throttles::new();
    let name = name(file);
    let error = if source.kind() == io::ErrorKind::UnexpectedEof {
        let detail = format!(
            "{name} is shorter than when its answer began, which is cut: \
             let new versions of a file be written beside it, then renamed"
        );
        Error::new(Reason::FileChanged).detail(detail)
    } else {
        Error::new(Reason::FileFailed).detail(format!("{name} could not be read to its end")).source(source)
    };
    if let Some(left_out) = THROTTLES.pass(error.reason) {
        tracing::warn!(left_out, reason = error.reason.as_str(), "{error}");
    }
    error
}

/// What the file is called now, for the operator.
fn name(file: &File) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;
    use crate::http::multipart::multipart_bytes;
    use crate::runtime::buffers::PIECE;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|number| (number % 251) as u8).collect()
    }

    fn file(content: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Arc::new(file)
    }

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    /// All of it, and that it never is mistaken about what is left.
    async fn read(body: &mut Body) -> Result<Vec<u8>, Reason> {
        let (mut all, length) = (Vec::new(), body.remaining().unwrap());
        while let Some(piece) = body.data().await {
            all.extend_from_slice(&piece.map_err(|error| error.reason)?);
            assert_eq!(body.remaining(), Some(length - all.len() as u64));
        }
        assert_eq!(all.len() as u64, length);
        Ok(all)
    }

    fn uncached(file: &Arc<File>, at: u64, end: u64) -> Body {
        let mut stretch = Stretch::new(Arc::clone(file), at, end);
        stretch.pieces = PieceReader::in_batches().uncached();
        Body::Stream(Box::new(stretch))
    }

    #[tokio::test]
    async fn a_file_is_sent_whole_or_in_part_from_the_page_cache_and_without_it() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 9 * PIECE + 7] {
            let content = content(length);
            let (file, end) = (file(&content), length as u64);
            assert_eq!(read(&mut whole(Arc::clone(&file), end)).await.unwrap(), content, "{length}");
            assert_eq!(read(&mut uncached(&file, 0, end)).await.unwrap(), content, "{length}, uncached");
            for (first, last) in [(0, 0), (0, end / 2), (end / 3, end.saturating_sub(1))] {
                if last < end && first <= last {
                    let part = read(&mut part(Arc::clone(&file), range(first, last))).await.unwrap();
                    assert_eq!(part, content[first as usize..=last as usize], "{first}-{last} of {length}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_sent_from_the_file_and_what_is_read_are_one_sequence() {
        let content = content(2 << 20);
        let file = file(&content);
        let bodies = [
            whole(Arc::clone(&file), content.len() as u64),
            multipart(Arc::clone(&file), &[range(0, 700_000), range(800_000, 2_000_000)], 2 << 20, None).body,
        ];
        for mut body in bodies {
            let (mut all, mut spans) = (Vec::new(), 0);
            let length = body.remaining().unwrap();
            for turn in 0.. {
                if let Some(span) = body.span().filter(|_| turn % 3 != 0) {
                    // A socket takes what it has room for.
                    let count = span.length - turn % 2 * 1000;
                    all.extend_from_slice(&content[span.start as usize..][..count]);
                    body.sent(count as u64);
                    spans += 1;
                } else if let Some(piece) = body.data().await {
                    all.extend_from_slice(&piece.unwrap());
                } else {
                    break;
                }
                assert_eq!(body.remaining(), Some(length - all.len() as u64));
            }
            assert!(spans > 2, "{spans}");
            assert!(all.starts_with(&content[..100]) || all.starts_with(b"--"));
            assert_eq!(all.len() as u64, length);
        }
    }

    #[tokio::test]
    async fn a_file_that_gets_shorter_cuts_its_answer_and_is_never_padded() {
        for left in [0, 10, PIECE, PIECE + 5] {
            for is_cached in [true, false] {
                let file = file(&content(3 * PIECE));
                let end = 3 * PIECE as u64;
                let mut body = if is_cached { whole(Arc::clone(&file), end) } else { uncached(&file, 0, end) };
                file.set_len(left as u64).unwrap();
                let mut sent = 0;
                let reason = loop {
                    match body.data().await.unwrap() {
                        Ok(piece) => sent += piece.len(),
                        Err(error) => break error.reason,
                    }
                };
                assert_eq!(reason, Reason::FileChanged, "{left} bytes left");
                assert!(sent <= left, "{sent} bytes of {left}");
                assert!(body.span().is_none(), "nothing is there to be sent");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_grows_sends_what_was_promised() {
        let file = file(&content(100));
        let mut body = whole(Arc::clone(&file), 100);
        file.write_all_at(&content(1 << 20), 100).unwrap();
        assert_eq!(read(&mut body).await.unwrap(), content(100));
    }

    /// Nobody else closes it, so that it is still open behind a pool of one thread that has other work.
    #[test]
    fn a_large_file_without_a_name_is_closed_by_another_thread() {
        for (length, is_elsewhere) in [(LONG_TO_CLOSE, true), (LONG_TO_CLOSE - 1, false)] {
            let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
            runtime.block_on(async {
                let file = tempfile::tempfile().unwrap();
                file.set_len(length.unsigned_abs()).unwrap();
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let name = std::fs::read_link(&link).unwrap();
                // Another test may be given the number of a file that was closed, and its inode.
                let is_it = || std::fs::metadata(&link).is_ok_and(|now| now.len() == length.unsigned_abs());
                let is_open = || std::fs::read_link(&link).is_ok_and(|now| now == name) && is_it();
                let (go, wait) = std::sync::mpsc::channel::<()>();
                let busy = tokio::task::spawn_blocking(move || wait.recv());
                let body = whole(Arc::new(file), length.unsigned_abs());
                drop(body);
                assert_eq!(is_open(), is_elsewhere, "{length}");
                go.send(()).unwrap();
                busy.await.unwrap().unwrap();
                tokio::task::spawn_blocking(|| ()).await.unwrap();
                assert!(!is_open(), "{length}");
            });
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_has_a_reason() {
        let folder = Arc::new(File::open("/").unwrap());
        for mut body in [whole(Arc::clone(&folder), 10), uncached(&folder, 0, 10)] {
            assert!(body.span().is_none());
            let error = body.data().await.unwrap().unwrap_err();
            assert_eq!(error.reason, Reason::FileFailed);
            assert!(error.detail.starts_with("/ "), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_of_more_than_4_gib_has_its_bytes_where_they_are() {
        let length = (5_u64 << 30) + 3;
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(b"boundary", (4 << 30) - 4).unwrap();
        file.write_all_at(b"end", length - 3).unwrap();
        let file = Arc::new(file);
        let across = range((4 << 30) - 6, (4 << 30) + 5);
        assert_eq!(read(&mut part(Arc::clone(&file), across)).await.unwrap(), b"\0\0boundary\0\0");
        let last = range(length - 3, length - 1);
        assert_eq!(read(&mut part(Arc::clone(&file), last)).await.unwrap(), b"end");
        assert_eq!(whole(Arc::clone(&file), length).remaining(), Some(length));
        let mut both = multipart(Arc::clone(&file), &[last, across], length, None);
        assert_eq!(both.body.remaining(), Some(both.length));
        let text = read(&mut both.body).await.unwrap();
        let parts = parts(&both.content_type, &text);
        assert_eq!(parts[0].1, b"end");
        assert_eq!(
            parts[1],
            (format!("Content-Range: bytes 4294967290-4294967301/{length}"), b"\0\0boundary\0\0".to_vec())
        );
    }

    /// Heads and bodies of the parts, as RFC 2046 has them, and nothing else.
    fn parts(content_type: &HeaderValue, body: &[u8]) -> Vec<(String, Vec<u8>)> {
        let boundary = content_type.to_str().unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert!((1..=70).contains(&boundary.len()), "{boundary}");
        let delimiter = format!("\r\n--{boundary}");
        let all = [b"\r\n", body].concat();
        let mut pieces = Vec::new();
        let mut rest = &all[..];
        while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter.as_bytes()) {
            pieces.push(&rest[..at]);
            rest = &rest[at + delimiter.len()..];
        }
        assert_eq!((pieces[0], rest), (&b""[..], &b"--\r\n"[..]), "nothing before, nothing behind");
        let part = |piece: &&[u8]| {
            let piece = piece.strip_prefix(b"\r\n").unwrap();
            let end = piece.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            (String::from_utf8(piece[..end].to_vec()).unwrap(), piece[end + 4..].to_vec())
        };
        pieces[1..].iter().map(part).collect()
    }

    #[tokio::test]
    async fn each_answer_has_a_boundary_of_its_own_and_its_parts_a_type() {
        let content = content(100);
        let (bytes, ranges) = (Bytes::from(content.clone()), [range(0, 0), range(50, 99)]);
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut from_file = multipart(file(&content), &ranges, 100, Some(&text));
        let mut from_memory = multipart_bytes(&bytes, &ranges, Some(&text));
        assert_ne!(from_file.content_type, from_memory.content_type);
        assert_eq!(from_file.length, from_memory.length);
        for multipart in [&mut from_file, &mut from_memory] {
            let body = read(&mut multipart.body).await.unwrap();
            assert_eq!(body.len() as u64, multipart.length);
            let head =
                |range: &str| format!("Content-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/100");
            let expected = [(head("0-0"), content[..1].to_vec()), (head("50-99"), content[50..].to_vec())];
            assert_eq!(parts(&multipart.content_type, &body), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_parts_they_are_read_as_they_are(
            content in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), any::<u8>()], 1..400),
            cuts in prop::collection::btree_set(0..400_u64, 2..20),
            is_reversed in any::<bool>(),
        ) {
            let length = content.len() as u64;
            let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut < length).collect();
            let mut ranges: Vec<ByteRange> = cuts.chunks_exact(2).map(|pair| range(pair[0], pair[1])).collect();
            if is_reversed {
                ranges.reverse();
            }
            prop_assume!(!ranges.is_empty());
            let bytes = Bytes::from(content.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for mut multipart in [multipart(file(&content), &ranges, length, None), multipart_bytes(&bytes, &ranges, None)] {
                let body = runtime.block_on(read(&mut multipart.body)).unwrap();
                prop_assert_eq!(body.len() as u64, multipart.length);
                let read = parts(&multipart.content_type, &body);
                prop_assert_eq!(read.len(), ranges.len());
                for ((head, part), range) in read.iter().zip(&ranges) {
                    prop_assert_eq!(head, &format!("Content-Range: bytes {}-{}/{length}", range.first, range.last));
                    prop_assert_eq!(&part[..], &content[range.first as usize..=range.last as usize]);
                }
            }
        }
    }
}
