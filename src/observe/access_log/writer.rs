//! The thread that brings the lines to the target.
//!
//! It outlives every trouble of the target: a full disk or a closed pipe costs the lines at hand, which are counted,
//! and a message in the operator's log at most once a second. A line of which a part has been written is finished
//! before anything else is.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Output, Pending, Shared, lock};

/// Between two collections while lines keep coming.
pub(super) const ROUND: Duration = Duration::from_millis(30);
/// Between two attempts on a target that takes no more bytes for now (a non-blocking pipe).
const FULL: Duration = Duration::from_millis(10);
/// Between two complaints.
const COMPLAINT: Duration = Duration::from_secs(1);
/// A buffer that grew beyond this in a burst is not kept.
const KEEP: usize = 256 << 10;

pub(super) struct Writer {
    shared: Arc<Shared>,
    output: Option<Output>,
    /// Swapped against the buffer of one sink after the other.
    spare: Vec<u8>,
    /// The rest of the line in which the last failed write ended.
    torn: Vec<u8>,
    trouble: Trouble,
}

/// What has gone wrong since the last complaint.
#[derive(Default)]
struct Trouble {
    lost: u64,
    told: Option<Instant>,
    lasting: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, output: Option<Output>) -> Self {
        Self { shared, output, spare: Vec::new(), torn: Vec::new(), trouble: Trouble::default() }
    }

    pub(super) fn run(mut self) {
        loop {
            let (asked, mut switch, stop) = {
                let mut orders = lock(&self.shared.orders);
                (orders.flush_asked, orders.switch.take(), orders.stop)
            };
            // Lines in the buffers came before the order, so they belong to the old target, if there was one.
            if self.output.is_none() {
                self.replace(switch.take());
            }
            let found = self.collect();
            self.replace(switch);
            let out_of_time = stop.is_some_and(|deadline| deadline <= Instant::now());
            let ended = stop.is_some() && (!found || out_of_time);
            self.report(asked, ended);
            if ended {
                return;
            }
            self.rest(found);
        }
    }

    /// Writes what is in the buffers; false when there was nothing.
    fn collect(&mut self) -> bool {
        let sinks: Vec<Arc<Pending>> = {
            let mut sinks = lock(&self.shared.sinks);
            sinks.retain(|sink| Arc::strong_count(sink) > 1 || !lock(sink).is_empty());
            sinks.clone()
        };
        let mut found = false;
        for sink in sinks {
            std::mem::swap(&mut *lock(&sink), &mut self.spare);
            if !self.spare.is_empty() {
                found = true;
                self.write();
            }
        }
        found
    }

    /// Waits for the next round; without lines, until there is one.
    fn rest(&mut self, found: bool) {
        let shared = &self.shared;
        if found {
            let orders = lock(&shared.orders);
            if !orders.waiting() {
                drop(shared.ordered.wait_timeout(orders, ROUND));
            }
            return;
        }
        shared.awake.store(false, Ordering::Relaxed);
        if lock(&shared.sinks).iter().any(|sink| !lock(sink).is_empty()) {
            shared.awake.store(true, Ordering::Relaxed);
            return;
        }
        let mut orders = lock(&shared.orders);
        while !shared.awake.load(Ordering::Relaxed) && !orders.waiting() {
            orders = shared.ordered.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
        shared.awake.store(true, Ordering::Relaxed);
    }

    fn report(&self, flushed: u64, stopped: bool) {
        let mut orders = lock(&self.shared.orders);
        orders.flush_done = flushed;
        orders.stopped = stopped;
        self.shared.done.notify_all();
    }

    fn replace(&mut self, switch: Option<Option<Output>>) {
        let Some(output) = switch else { return };
        if !self.torn.is_empty() {
            self.torn.clear(); // its beginning stays in the old target
            self.shared.dropped.inc();
        }
        self.output = output;
        self.trouble.lasting = false;
    }

    /// Writes the lines in `spare` and empties it.
    fn write(&mut self) {
        let mut lines = std::mem::take(&mut self.spare);
        let (written, result) = match self.finish_torn() {
            Ok(()) => self.write_all(&lines),
            Err(error) => (0, Err(error)),
        };
        match result {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&lines, written, &error),
        }
        lines.clear();
        lines.shrink_to(KEEP);
        self.spare = lines;
    }

    fn finish_torn(&mut self) -> io::Result<()> {
        let torn = std::mem::take(&mut self.torn);
        let (written, result) = self.write_all(&torn);
        self.torn.extend_from_slice(&torn[written..]);
        result
    }

    /// Writes; returns how many bytes the target took, and why not all.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let Some(output) = &mut self.output else { return (bytes.len(), Ok(())) };
        let mut written = 0;
        while written < bytes.len() {
            match output.to.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.shared.may_wait() => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Keeps the rest of the line in which the target stopped; the lines after it are lost.
    fn failed(&mut self, lines: &[u8], written: usize, error: &io::Error) {
        let (taken, rest) = lines.split_at(written);
        let within = taken.last().is_some_and(|byte| *byte != b'\n');
        let torn = if within { memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1) } else { 0 };
        let (torn, lost) = rest.split_at(torn);
        self.torn.extend_from_slice(torn);
        let lost = memchr::memchr_iter(b'\n', lost).count() as u64;
        self.shared.dropped.inc_by(lost);
        self.trouble.lost += lost;
        self.trouble.lasting = true;
        if self.trouble.told.is_none_or(|told| told.elapsed() >= COMPLAINT) {
            self.trouble.told = Some(Instant::now());
            let lost = std::mem::take(&mut self.trouble.lost);
            let target = self.output.as_ref().map_or("", |output| &output.name);
            tracing::error!("cannot write the access log {target}: {error}; {lost} lines lost");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.trouble.lasting) {
            let lost = std::mem::take(&mut self.trouble.lost);
            let target = self.output.as_ref().map_or("", |output| &output.name);
            tracing::info!("the access log {target} is written again; {lost} more lines were lost");
        }
    }
}

impl Shared {
    /// Waits a moment for a target that is full; false when something more urgent is ordered.
    fn may_wait(&self) -> bool {
        let orders = lock(&self.orders);
        let urgent = orders.switch.is_some() || orders.stop.is_some_and(|deadline| deadline <= Instant::now());
        if urgent {
            return false;
        }
        drop(self.ordered.wait_timeout(orders, FULL));
        true
    }
}

impl super::Orders {
    fn waiting(&self) -> bool {
        self.switch.is_some() || self.stop.is_some() || self.flush_asked != self.flush_done
    }
}
