//! Where the lines of the operator's log wait for stderr.
//!
//! Whoever says something leaves the finished line in a buffer; a thread brings it to stderr. A terminal that is stopped or
//! a pipe that nobody reads holds that thread and nobody else. What does not fit into [`LIMIT`] is dropped and counted
//! (`hostler_log_dropped_total`), and the log tells how much was once it is written again.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait.
pub(super) const LIMIT: usize = 1 << 20;
/// Between two attempts on a target that takes no more bytes for now (a non-blocking pipe).
const FULL: Duration = Duration::from_millis(10);

/// The end for those who say something. Clones are handles to the same buffer.
#[derive(Clone)]
pub(super) struct LineWriter(Arc<Shared>);

struct Shared {
    lines: Mutex<Lines>,
    /// Wakes the thread that writes.
    came: Condvar,
    /// Wakes those who wait for it.
    went: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines lost since the log told of it last.
    lost: u64,
    /// Lines lost before there was a counter.
    uncounted: u64,
    counter: Option<IntCounter>,
}

impl LineWriter {
    /// Starts the thread, which writes to `target` for as long as the process lives.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_limit(target, LIMIT)
    }

    fn with_limit(target: impl Write + Send + 'static, limit: usize) -> io::Result<Self> {
        let shared = Shared { lines: Mutex::default(), came: Condvar::new(), went: Condvar::new(), limit };
        let writer = Self(Arc::new(shared));
        let shared = Arc::clone(&writer.0);
        let body = move || shared.write_for_ever(target);
        std::thread::Builder::new().name("log".into()).stack_size(256 << 10).spawn(body)?;
        Ok(writer)
    }

    /// Counts lost lines there, those from before included.
    pub(super) fn count_into(&self, counter: IntCounter) {
        let mut lines = self.0.lock();
        counter.inc_by(std::mem::take(&mut lines.uncounted));
        lines.counter = Some(counter);
    }

    /// Waits, at most until `deadline`, until all that was said before has been written or lost.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut lines = self.0.lock();
        while lines.is_writing || !lines.waiting.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            lines = self.0.went.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A panic elsewhere leaves nothing half done behind this lock.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut lines = self.lock();
        if lines.waiting.len() + line.len() > self.limit {
            lines.lose(1);
            return;
        }
        lines.waiting.extend_from_slice(line);
        if !lines.is_writing {
            self.came.notify_one();
        }
    }

    fn write_for_ever(&self, mut target: impl Write) {
        let mut taken = Vec::new();
        loop {
            {
                let mut lines = self.lock();
                lines.is_writing = false;
                self.went.notify_all();
                while lines.waiting.is_empty() {
                    lines = self.came.wait(lines).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut taken, &mut lines.waiting);
                lines.is_writing = true;
            }
            let written = write_all(&mut target, &taken);
            let unwritten = &taken[written..];
            let lost = memchr::memchr_iter(b'\n', unwritten).count() as u64;
            let told = {
                let mut lines = self.lock();
                lines.lose(lost);
                // While nothing can be written nobody would read it.
                if lost == 0 { std::mem::take(&mut lines.lost) } else { 0 }
            };
            if told > 0 {
                tracing::warn!(lines = told, "the log has lost lines: stderr was full or could not be written");
            }
            taken.clear();
        }
    }
}

impl Lines {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        match &self.counter {
            Some(counter) => counter.inc_by(lines),
            None => self.uncounted += lines,
        }
    }
}

/// Returns how many bytes the target took; fewer than all when it failed.
fn write_all(target: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match target.write(&bytes[written..]) {
            Ok(0) => return written,
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL),
            Err(_) => return written,
        }
    }
    written
}

impl Write for &LineWriter {
    /// Takes one whole line, or loses it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn say(mut writer: &LineWriter, line: &str) {
        writer.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_and_what_does_not_fit_is_counted() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::with_limit(pipe, 10_000).unwrap();
        let counter = IntCounter::new("lost", "for the test").unwrap();
        writer.count_into(counter.clone());
        let mut said = 0;
        while counter.get() < 10 {
            say(&writer, &format!("{said:09}"));
            said += 1;
            assert!(writer.0.lock().waiting.len() <= 10_000);
        }
        writer.flush(Instant::now());
        let wanted = (said - counter.get()) as usize * 10;
        let mut text = vec![0; wanted];
        reader.read_exact(&mut text).unwrap();
        writer.flush(soon());
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.len() == 9) && text.lines().is_sorted());
        say(&writer, "and goes on");
        let mut rest = [0; 12];
        reader.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"and goes on\n");
    }

    #[test]
    fn lines_lost_before_there_is_a_counter_are_counted_later() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let writer = LineWriter::start(pipe).unwrap();
        say(&writer, "into the void");
        writer.flush(soon());
        let counter = IntCounter::new("lost", "for the test").unwrap();
        writer.count_into(counter.clone());
        assert_eq!(counter.get(), 1);
        say(&writer, "again");
        writer.flush(soon());
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn a_flush_waits_for_all_that_was_said_and_not_for_ever() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::start(pipe).unwrap();
        for n in 0..1_000 {
            say(&writer, &n.to_string());
        }
        writer.flush(soon());
        drop(writer);
        let mut some = vec![0; 3_890];
        reader.read_exact(&mut some).unwrap();
        assert!(some.ends_with(b"\n999\n"));
    }
}
