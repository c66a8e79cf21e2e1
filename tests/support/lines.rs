//! What a process writes, line by line, for any number of readers to wait on.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::LIMIT;

/// The lines written so far. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `from` to its end on a thread of its own.
    pub(crate) fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                writer.0.written.lock().unwrap().lines.push(text);
                writer.0.changed.notify_all();
                line.clear();
            }
            writer.0.written.lock().unwrap().ended = true;
            writer.0.changed.notify_all();
        });
        lines
    }

    /// The first line, written or yet to come, in which `look` finds something. `None` after [`LIMIT`], or when
    /// nothing more can come.
    pub(crate) fn find<T>(&self, look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.find_from(0, look)
    }

    /// The same from the line with this number on.
    pub(crate) fn find_from<T>(&self, first: usize, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        let mut seen = first;
        let mut written = self.0.written.lock().unwrap();
        loop {
            while seen < written.lines.len() {
                if let Some(found) = look(&written.lines[seen]) {
                    return Some(found);
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if written.ended || left.is_zero() {
                return None;
            }
            written = self.0.changed.wait_timeout(written, left).unwrap().0;
        }
    }

    /// How many there are now.
    pub(crate) fn count(&self) -> usize {
        self.0.written.lock().unwrap().lines.len()
    }

    /// All there are now.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.written.lock().unwrap().lines.clone()
    }

    /// Waits until the writer has closed its end.
    pub(crate) fn to_end(&self) -> Vec<String> {
        self.find(|_| None::<()>);
        self.all()
    }
}
