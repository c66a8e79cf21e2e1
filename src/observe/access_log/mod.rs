//! Where access lines go (`logging.access.to`). What a line says is decided by who writes it.
//!
//! A thread that serves appends finished lines to a buffer of its own, behind a lock that only the writer thread ever
//! contends, and for the moment of a swap. So a line costs no system call and wakes nobody, except the first one after
//! a silence. The writer sleeps when nothing comes; once woken it collects every buffer every 30 ms until a
//! round finds nothing.
//!
//! A slow disk or a full pipe never holds a request: what does not fit into [`LIMIT`] is dropped and counted in
//! `hostler_access_log_dropped_total`. Lines reach the target whole and, of one thread, in their order.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::config::AccessTarget;

mod writer;

/// Bytes that one thread may have waiting for the writer.
pub const LIMIT: usize = 4 << 20;

/// The access log of the process. Clones are handles to the same log.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

/// The end of the access log that belongs to one thread.
pub struct Sink {
    shared: Arc<Shared>,
    pending: Arc<Pending>,
}

type Pending = Mutex<Vec<u8>>;

struct Shared {
    /// Whether anybody wants lines.
    on: AtomicBool,
    /// The writer is collecting, or has been told to.
    awake: AtomicBool,
    sinks: Mutex<Vec<Arc<Pending>>>,
    orders: Mutex<Orders>,
    /// Wakes the writer.
    ordered: Condvar,
    /// Wakes those who wait for the writer.
    done: Condvar,
    dropped: IntCounter,
    limit: usize,
}

/// What the writer is to do besides writing, and what it has done.
#[derive(Default)]
struct Orders {
    target: Option<AccessTarget>,
    /// Replaces the output after the lines that came before it.
    switch: Option<Option<Output>>,
    /// Rounds asked for and rounds finished by [`AccessLog::flush`].
    flush_asked: u64,
    flush_done: u64,
    /// Write what is left, at most until then, and end.
    stop: Option<Instant>,
    stopped: bool,
}

/// An open target.
struct Output {
    name: String,
    to: Box<dyn Write + Send>,
}

impl AccessLog {
    /// Opens the target and starts the writer. Lines that are lost are counted in `dropped`. Without a target the log
    /// is off until [`AccessLog::retarget`].
    ///
    /// # Errors
    /// The target cannot be opened, or no thread started; the message names the target.
    pub fn start(target: Option<AccessTarget>, dropped: IntCounter) -> io::Result<Self> {
        let output = target.as_ref().map(Output::open).transpose()?;
        let log = Self::with_output(output, LIMIT, dropped)?;
        lock(&log.shared.orders).target = target;
        Ok(log)
    }

    fn with_output(output: Option<Output>, limit: usize, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            on: AtomicBool::new(output.is_some()),
            awake: AtomicBool::new(true),
            sinks: Mutex::default(),
            orders: Mutex::default(),
            ordered: Condvar::new(),
            done: Condvar::new(),
            dropped,
            limit,
        });
        let writer = writer::Writer::new(Arc::clone(&shared), output);
        std::thread::Builder::new()
            .name("access-log".into())
            .stack_size(256 << 10)
            .spawn(move || writer.run())
            .map_err(|error| named("cannot start the access log's thread", &error))?;
        Ok(Self { shared })
    }

    /// Whether lines are wanted. When not, the caller need not format any.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// A sink for the calling thread. Lines outlive it: what it holds when it is dropped is still written.
    #[must_use]
    pub fn sink(&self) -> Sink {
        let pending = Arc::new(Pending::default());
        lock(&self.shared.sinks).push(Arc::clone(&pending));
        Sink { shared: Arc::clone(&self.shared), pending }
    }

    /// Opens the file again under its name, after somebody has moved it away. Does nothing for stdout and stderr.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let target = lock(&self.shared.orders).target.clone();
        match target {
            Some(AccessTarget::File(_)) => self.switch(target),
            _ => Ok(()),
        }
    }

    /// Writes to another target from now on, or with `None` nowhere. The same target stays as it is.
    ///
    /// # Errors
    /// The target cannot be opened; nothing has changed.
    pub fn retarget(&self, target: Option<AccessTarget>) -> io::Result<()> {
        if lock(&self.shared.orders).target == target {
            return Ok(());
        }
        self.switch(target)
    }

    fn switch(&self, target: Option<AccessTarget>) -> io::Result<()> {
        let output = target.as_ref().map(Output::open).transpose()?;
        self.switch_to(target, output);
        Ok(())
    }

    fn switch_to(&self, target: Option<AccessTarget>, output: Option<Output>) {
        let mut orders = lock(&self.shared.orders);
        self.shared.on.store(output.is_some() && orders.stop.is_none(), Ordering::Relaxed);
        orders.target = target;
        orders.switch = Some(output);
        self.shared.wake(&orders);
    }

    /// Waits, at most until `deadline`, until every line appended before this call has been written or counted as
    /// lost. Blocks; not for the threads that serve. Returns whether that is so.
    #[must_use]
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut orders = lock(&self.shared.orders);
        orders.flush_asked += 1;
        let asked = orders.flush_asked;
        self.shared.wake(&orders);
        self.wait(orders, deadline, |orders| orders.flush_done >= asked || orders.stopped)
    }

    /// Turns the log off, writes what is left and ends the writer, at most until `deadline`. Blocks; not for the
    /// threads that serve. Returns whether everything was written or counted as lost.
    pub fn flush_and_stop(&self, deadline: Instant) -> bool {
        let mut orders = lock(&self.shared.orders);
        self.shared.on.store(false, Ordering::Relaxed);
        orders.stop = Some(deadline);
        self.shared.wake(&orders);
        self.wait(orders, deadline, |orders| orders.stopped)
    }

    fn wait(&self, mut orders: MutexGuard<'_, Orders>, deadline: Instant, is_done: impl Fn(&Orders) -> bool) -> bool {
        loop {
            if is_done(&orders) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            orders = self.shared.done.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// Wakes the writer. The orders' lock, held by the caller, keeps it from falling asleep in between.
    fn wake(&self, _held: &MutexGuard<'_, Orders>) {
        self.awake.store(true, Ordering::Relaxed);
        self.ordered.notify_one();
    }
}

impl Sink {
    /// Whether lines are wanted. When not, the caller need not format any.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Ordering::Relaxed)
    }

    /// Appends one line. `line` writes it at the end of the buffer, without a line break; what it must not do is touch
    /// what is already there. If it panics, nothing is appended. Never waits for the target.
    pub fn append(&self, line: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_on() {
            return;
        }
        if !self.push(line) {
            self.shared.dropped.inc();
        }
        // The writer stores `awake = false` before it looks into the buffers a last time. Had that look missed our
        // line, then our lock came after its lock, and we see the store: relaxed is enough.
        if !self.shared.awake.load(Ordering::Relaxed) {
            self.shared.wake(&lock(&self.shared.orders));
        }
    }

    fn push(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut pending = lock(&self.pending);
        if pending.len() >= self.shared.limit {
            return false;
        }
        let mut unfinished = Unfinished { start: pending.len(), buffer: &mut pending };
        line(unfinished.buffer);
        unfinished.buffer.push(b'\n');
        if unfinished.buffer.len() > self.shared.limit {
            return false;
        }
        unfinished.start = unfinished.buffer.len();
        true
    }
}

/// Takes a line back that was not finished.
struct Unfinished<'a> {
    start: usize,
    buffer: &'a mut Vec<u8>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.start);
    }
}

impl Output {
    fn open(target: &AccessTarget) -> io::Result<Self> {
        let name = match target {
            AccessTarget::Stdout => "stdout".to_owned(),
            AccessTarget::Stderr => "stderr".to_owned(),
            AccessTarget::File(path) => path.display().to_string(),
        };
        // Descriptors of our own: std's handles take a lock and flush at every line.
        let opened = match target {
            AccessTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            AccessTarget::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
            AccessTarget::File(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path),
        };
        let file = opened.map_err(|error| named(&format!("cannot open the access log {name}"), &error))?;
        Ok(Self { name, to: Box::new(file) })
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Locks; a panic elsewhere while it was held leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
