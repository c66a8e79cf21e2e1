//! An app whose pages say whose they are, in which version, and what the sum of their bytes is: whoever reads one can tell
//! whether it is whole, whether it is the one that was asked for, and how old it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use crate::support::worker::Transport;
use crate::support::{Response, Visit, Worker};

/// Tags are shared out among the pages.
pub(super) const TAGS: usize = 7;

/// A page, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page(pub(super) usize);

/// What the app does about a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may be kept for an hour.
    Kept,
    /// It may be kept, and the app wants to be asked each time: it confirms every second time.
    Confirmed,
    /// As the first, but the app dies in the middle of every second one.
    Torn,
}

impl Page {
    pub(super) fn kind(self) -> Kind {
        match self.0 % 10 {
            3 => Kind::Confirmed,
            7 => Kind::Torn,
            _ => Kind::Kept,
        }
    }

    pub(super) fn path(self) -> String {
        format!("/page/{}", self.0)
    }

    pub(super) fn tag(self) -> String {
        format!("t{}", self.0 % TAGS)
    }

    fn etag(self, version: u64) -> String {
        format!("\"{}-{version}\"", self.0)
    }

    /// Bytes after the first line. Most pages are small; some are written to disk as they come.
    fn length(self, version: u64) -> usize {
        let some = (version % 997) as usize;
        match self.0 % 8 {
            0 => (1 << 20) + some * 2000,
            1 | 2 => 100_000 + some * 500,
            _ => 100 + some * 20,
        }
    }

    fn is_torn(self, version: u64) -> bool {
        self.kind() == Kind::Torn && version.is_multiple_of(2)
    }

    /// `/page/17 1234 89abcdef`, and bytes that are only this version's, of which that is the sum.
    fn content(self, version: u64) -> Vec<u8> {
        let noise = noise();
        let (length, first) = (self.length(version), (version as usize * 7919 + self.0 * 104_729) % noise.len());
        let mut rest = Vec::with_capacity(length);
        while rest.len() < length {
            let from = (first + rest.len()) % noise.len();
            let to = noise.len().min(from + length - rest.len());
            rest.extend_from_slice(&noise[from..to]);
        }
        let line = format!("{} {version} {:08x}\n", self.path(), crc32fast::hash(&rest));
        [line.as_bytes(), &rest].concat()
    }

    /// The version of a whole answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(self, answer: &Response) -> Result<u64, String> {
        let version = self.version(&answer.body).ok_or("its first line is not the page's")?;
        let (_, rest) = split_line(&answer.body).ok_or("no line")?;
        let line = format!("{} {version} {:08x}", self.path(), crc32fast::hash(rest));
        if rest.len() != self.length(version) || !answer.body.starts_with(line.as_bytes()) {
            return Err(format!("version {version} has other bytes: {} of {}", rest.len(), self.length(version)));
        }
        let etag = answer.header("etag").unwrap_or_default();
        if etag != self.etag(version) {
            return Err(format!("version {version} has the head of {etag}"));
        }
        if self.is_torn(version) {
            return Err(format!("version {version} was cut by the app, and is whole here"));
        }
        Ok(version)
    }

    /// What there is of an answer that was cut.
    ///
    /// # Errors
    /// It is no beginning of the page.
    pub(super) fn read_beginning(self, answer: &Response) -> Result<(), String> {
        let Some(version) = self.version(&answer.body) else { return Ok(()) };
        if self.content(version).starts_with(&answer.body) {
            return Ok(());
        }
        Err(format!("the {} bytes of version {version} before the cut are others", answer.body.len()))
    }

    /// Whether a cut answer is one that the app itself has cut.
    pub(super) fn was_torn(self, answer: &Response) -> bool {
        self.version(&answer.body).map_or(self.kind() == Kind::Torn, |version| self.is_torn(version))
    }

    fn version(self, body: &[u8]) -> Option<u64> {
        let (line, _) = split_line(body)?;
        line.strip_prefix(&*self.path())?.strip_prefix(' ')?.split(' ').next()?.parse().ok()
    }
}

fn split_line(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().take(100).position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&body[..end]).ok()?, &body[end + 1..]))
}

/// Bytes of which no part is like another.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(word).take(1 << 17).flatten().collect()
    })
}

/// The app. Ends when it is dropped.
pub(super) struct App {
    worker: Worker,
    pub(super) book: Arc<Book>,
}

/// What the app has given out.
pub(super) struct Book {
    /// The last version, of whichever page.
    version: AtomicU64,
    /// By page: up to this version none is confirmed, because somebody is about to purge it.
    refused: Vec<AtomicU64>,
    asked: AtomicUsize,
}

impl Book {
    /// The last version that was given out.
    pub(super) fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    /// How often the app was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// From now on the app confirms none of the versions of these pages that it has given out. The last of them.
    pub(super) fn refuse(&self, pages: impl Iterator<Item = Page>) -> u64 {
        let version = self.version();
        pages.for_each(|page| {
            self.refused[page.0].fetch_max(version, SeqCst);
        });
        version
    }

    /// The version that a request asks about, if the app confirms it.
    fn confirmed(&self, page: Page, head: &str) -> Option<u64> {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("if-none-match:"))?;
        let version: u64 = line.rsplit('-').next()?.trim().trim_end_matches('"').parse().ok()?;
        let is_good = line.ends_with(&page.etag(version)) && version > self.refused[page.0].load(SeqCst);
        (is_good && self.asked().is_multiple_of(2)).then_some(version)
    }
}

impl App {
    /// With so many pages.
    pub(super) fn start(pages: usize) -> Self {
        let book = Arc::new(Book {
            version: AtomicU64::new(0),
            refused: (0..pages).map(|_| AtomicU64::new(0)).collect(),
            asked: AtomicUsize::new(0),
        });
        let known = Arc::clone(&book);
        let worker = Worker::start(Transport::Unix, move |visit| while answer(visit, &known).is_some() {});
        Self { worker, book }
    }

    /// As `endpoints` in a configuration has it.
    pub(super) fn endpoint(&self) -> String {
        self.worker.endpoint()
    }
}

/// One request. `None`: the connection is over.
fn answer(visit: &mut Visit, book: &Book) -> Option<()> {
    let head = visit.head()?;
    let target = head.split(' ').nth(1).unwrap_or_default();
    let page = Page(target.strip_prefix("/page/").and_then(|number| number.parse().ok()).expect(target));
    book.asked.fetch_add(1, SeqCst);
    let confirmed = book.confirmed(page, &head);
    let version = confirmed.unwrap_or_else(|| book.version.fetch_add(1, SeqCst) + 1);
    let control = if page.kind() == Kind::Confirmed { "no-cache" } else { "max-age=3600" };
    let fields =
        format!("ETag: {}\r\nCache-Control: {control}\r\nSurrogate-Key: {}\r\n", page.etag(version), page.tag());
    if confirmed.is_some() {
        return visit.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n")).then_some(());
    }
    let body = page.content(version);
    let is_in_chunks = page.0.is_multiple_of(3);
    let framing =
        if is_in_chunks { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", body.len()) };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n{fields}{framing}\r\n\r\n");
    let (before, behind) =
        if is_in_chunks { (format!("{:x}\r\n", body.len()), "\r\n0\r\n\r\n") } else { (String::new(), "") };
    let whole = [head.as_bytes(), before.as_bytes(), &body, behind.as_bytes()].concat();
    if page.is_torn(version) {
        visit.send(&whole[..whole.len() - body.len() / 2]);
        return None;
    }
    visit.send(whole).then_some(())
}

#[test]
fn a_page_that_is_not_whole_not_its_own_or_of_two_versions_is_told_from_one_that_is() {
    let of = |body: Vec<u8>, version| Response {
        headers: vec![("etag".into(), Page(9).etag(version))],
        body,
        ..Response::default()
    };
    let right = Page(9).content(5);
    assert_eq!(Page(9).read(&of(right.clone(), 5)), Ok(5));
    assert!(Page(9).read_beginning(&of(right[..70_000].to_vec(), 5)).is_ok());
    let mut flipped = right.clone();
    flipped[80_000] ^= 1;
    let mut mixed = right.clone();
    mixed[70_000..].copy_from_slice(&Page(9).content(6)[70_000..right.len()]);
    for body in [right[..80_000].to_vec(), [&*right, b"x"].concat(), flipped, mixed, Page(17).content(5), Vec::new()] {
        assert!(Page(9).read(&of(body.clone(), 5)).is_err());
        assert_eq!(
            Page(9).read_beginning(&of(body.clone(), 5)).is_ok(),
            right.starts_with(&body) || body.starts_with(b"/page/17")
        );
    }
    assert!(Page(9).read(&of(right, 6)).is_err(), "the head of another version");
    assert!(
        Page(7)
            .read(&Response {
                headers: vec![("etag".into(), Page(7).etag(4))],
                body: Page(7).content(4),
                ..Response::default()
            })
            .is_err()
    );
}
