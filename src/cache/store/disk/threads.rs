//! The threads that wait for the disk of the store, and nobody else's.
//!
//! What waits for them is bounded, so that a disk that hangs costs the store its disk, and nothing else: who wants to read
//! hears that it is busy, who wants to write does without. The next piece of a body that has been begun waits as long as its
//! client does. Only what has to be done (a file to be closed or discarded) is always taken: of that there is no more than
//! there are open files.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// How many there are.
const THREADS: usize = 4;
/// How many wait to read at most.
const MOST_READS: usize = 256;
/// How many wait to write at most, however little it is.
const MOST_WRITES: usize = 4096;
/// For how long all of them may be at one job each, before who has begun to read a body is cut.
const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Waiting {
    reads: VecDeque<Job>,
    /// Each as long as somebody holds its other end.
    pieces: VecDeque<(Weak<()>, Job)>,
    writes: VecDeque<(u64, Job)>,
    sure: VecDeque<Job>,
    /// Bytes that wait to be written.
    write_bytes: u64,
    at_work: usize,
    /// When a job was begun last.
    begun: Option<Instant>,
    is_closing: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    called: Condvar,
    idle: Condvar,
    done: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. They end, with what they have, when this is dropped.
pub(in super::super) struct Threads {
    shared: Arc<Shared>,
    most_write_bytes: AtomicU64,
}

/// The disk has as much to do as may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Busy;

impl Threads {
    /// Starts them. So many bytes may wait to be written.
    pub(in super::super) fn start(most_write_bytes: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            called: Condvar::new(),
            idle: Condvar::new(),
            done: AtomicU64::new(0),
        });
        let threads = Self { shared, most_write_bytes: AtomicU64::new(most_write_bytes) };
        for number in 0..THREADS {
            let shared = Arc::clone(&threads.shared);
            thread::Builder::new().name(format!("cache-disk-{number}")).spawn(move || work(&shared, number))?;
        }
        Ok(threads)
    }

    /// So many bytes may wait to be written from now on.
    pub(in super::super) fn set_most_write_bytes(&self, bytes: u64) {
        self.most_write_bytes.store(bytes, Relaxed);
    }

    /// Somebody waits for this.
    pub(in super::super) fn read(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut waiting = self.shared.lock();
        if waiting.reads.len() >= MOST_READS {
            return Err(Busy);
        }
        waiting.reads.push_back(Box::new(job));
        self.shared.called.notify_one();
        Ok(())
    }

    /// Nobody waits for this, which holds so many bytes until it is done.
    pub(in super::super) fn write(&self, bytes: u64, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut waiting = self.shared.lock();
        let is_full = waiting.write_bytes + bytes > self.most_write_bytes.load(Relaxed) && waiting.write_bytes > 0;
        if is_full || waiting.writes.len() >= MOST_WRITES {
            return Err(Busy);
        }
        waiting.write_bytes += bytes;
        waiting.writes.push_back((bytes, Box::new(job)));
        self.shared.called.notify_one();
        Ok(())
    }

    /// The next part of something that is being written, whose bytes are counted elsewhere.
    pub(in super::super) fn write_on(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut waiting = self.shared.lock();
        if waiting.writes.len() >= MOST_WRITES {
            return Err(Busy);
        }
        waiting.writes.push_back((0, Box::new(job)));
        self.shared.called.notify_one();
        Ok(())
    }

    /// Somebody waits for this piece of a body, as long as he holds `wanted`.
    pub(in super::super) fn piece(&self, wanted: &Arc<()>, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let mut waiting = self.shared.lock();
        if waiting.at_work == THREADS && waiting.begun.is_some_and(|begun| begun.elapsed() > LONG) {
            return Err(Busy);
        }
        waiting.pieces.push_back((Arc::downgrade(wanted), Box::new(job)));
        self.shared.called.notify_one();
        Ok(())
    }

    /// Somebody does not want his piece any more: a disk that hangs would keep the job, with its file, for as long.
    pub(in super::super) fn forget_unwanted(&self) {
        let mut waiting = self.shared.lock();
        let all = std::mem::take(&mut waiting.pieces);
        let is_wanted = |(wanted, _): &(Weak<()>, Job)| wanted.strong_count() > 0;
        let (wanted, unwanted): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(is_wanted);
        waiting.pieces = wanted;
        drop(waiting);
        // Files may be closed with these, which takes its time.
        drop(unwanted);
    }

    /// This is done, however long it takes.
    pub(in super::super) fn surely(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().sure.push_back(Box::new(job));
        self.shared.called.notify_one();
    }

    /// Jobs that are done.
    pub(in super::super) fn done(&self) -> u64 {
        self.shared.done.load(Relaxed)
    }

    /// Waits until there is nothing to do, so long at most. Whether there is nothing.
    pub(in super::super) fn wait_until_idle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut waiting = self.shared.lock();
        loop {
            let is_idle = waiting.at_work == 0
                && waiting.reads.is_empty()
                && waiting.pieces.is_empty()
                && waiting.writes.is_empty()
                && waiting.sure.is_empty();
            let left = until.saturating_duration_since(Instant::now());
            if is_idle || left.is_zero() {
                return is_idle;
            }
            let woken = self.shared.idle.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
impl Threads {
    /// How many wait: to read, for pieces, to write, and what has to be done; and how many are at work.
    pub(in super::super) fn queued(&self) -> ([usize; 4], usize) {
        let waiting = self.shared.lock();
        let queued = [waiting.reads.len(), waiting.pieces.len(), waiting.writes.len(), waiting.sure.len()];
        (queued, waiting.at_work)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.shared.lock();
        write!(f, "Threads({} to read, {} to write)", waiting.reads.len(), waiting.writes.len())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Nobody waits for them: one may hang.
        self.shared.lock().is_closing = true;
        self.shared.called.notify_all();
    }
}

fn work(shared: &Shared, number: usize) {
    loop {
        let (bytes, job) = {
            let mut waiting = shared.lock();
            loop {
                if let Some(next) = waiting.next(number) {
                    waiting.at_work += 1;
                    waiting.begun = Some(Instant::now());
                    break next;
                }
                if waiting.is_closing {
                    return;
                }
                waiting = shared.called.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        };
        // A job that panics costs itself.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        shared.done.fetch_add(1, Relaxed);
        let mut waiting = shared.lock();
        waiting.at_work -= 1;
        waiting.write_bytes -= bytes;
        shared.idle.notify_all();
    }
}

impl Waiting {
    fn next(&mut self, number: usize) -> Option<(u64, Job)> {
        let sure = |waiting: &mut Self| waiting.sure.pop_front().map(|job| (0, job));
        let write = |waiting: &mut Self| waiting.writes.pop_front();
        let read = |waiting: &mut Self| waiting.reads.pop_front().map(|job| (0, job));
        let piece = |waiting: &mut Self| {
            let wanted =
                std::iter::from_fn(|| waiting.pieces.pop_front()).find(|(wanted, _)| wanted.strong_count() > 0);
            wanted.map(|(_, job)| (0, job))
        };
        // Each kind has one of them that looks for it first, so that nothing waits for ever.
        match number {
            0 => write(self).or_else(|| sure(self)).or_else(|| piece(self)).or_else(|| read(self)),
            1 => sure(self).or_else(|| read(self)).or_else(|| piece(self)).or_else(|| write(self)),
            2 => piece(self).or_else(|| read(self)).or_else(|| sure(self)).or_else(|| write(self)),
            _ => read(self).or_else(|| piece(self)).or_else(|| sure(self)).or_else(|| write(self)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Keeps all threads busy until the sender is dropped.
    fn hang(threads: &Threads) -> Vec<mpsc::Sender<()>> {
        let (told, begun) = mpsc::channel();
        (0..THREADS)
            .map(|_| {
                let (hold, held) = mpsc::channel::<()>();
                let told = told.clone();
                threads.surely(move || {
                    told.send(()).unwrap();
                    let _ = held.recv();
                });
                begun.recv().unwrap();
                hold
            })
            .collect()
    }

    #[test]
    fn a_disk_that_hangs_is_waited_for_by_few() {
        let threads = Threads::start(100).unwrap();
        let held = hang(&threads);
        let reads = (0..10_000).filter(|_| threads.read(|| ()).is_ok()).count();
        let writes = (0..10_000).filter(|_| threads.write(10, || ()).is_ok()).count();
        assert_eq!((reads, writes), (MOST_READS, 10));
        assert!(!threads.wait_until_idle(Duration::from_millis(1)));
        drop(held);
        assert!(threads.wait_until_idle(Duration::from_secs(60)));
        assert!(threads.read(|| ()).is_ok() && threads.write(100, || ()).is_ok());
        assert!(threads.wait_until_idle(Duration::from_secs(60)));
        assert_eq!(threads.done(), (THREADS + MOST_READS + 10 + 2) as u64);
    }

    #[test]
    fn what_has_to_be_done_is_done_though_there_always_is_more_to_read_and_to_write() {
        let threads = Arc::new(Threads::start(u64::MAX).unwrap());
        let (told, done) = mpsc::channel();
        let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        // Each queues the next before it ends.
        fn again(threads: &Arc<Threads>, is_over: &Arc<std::sync::atomic::AtomicBool>, reads: bool) {
            if is_over.load(Relaxed) {
                return;
            }
            let (next, over) = (Arc::clone(threads), Arc::clone(is_over));
            let job = move || again(&next, &over, reads);
            let _ = if reads { threads.read(job) } else { threads.write(0, job) };
        }
        for number in 0..64 {
            again(&threads, &is_over, number % 2 == 0);
        }
        threads.surely(move || told.send(()).unwrap());
        assert!(done.recv_timeout(Duration::from_secs(60)).is_ok());
        is_over.store(true, Relaxed);
        assert!(threads.wait_until_idle(Duration::from_secs(60)));
    }

    #[test]
    fn a_piece_that_nobody_wants_any_more_leaves_the_queue() {
        let threads = Threads::start(100).unwrap();
        let held = hang(&threads);
        let (kept, dropped, file) = (Arc::new(()), Arc::new(()), Arc::new(()));
        for wanted in [&kept, &dropped] {
            let file = Arc::clone(&file);
            threads.piece(wanted, move || drop(file)).unwrap();
        }
        assert_eq!(Arc::strong_count(&file), 3);
        drop(dropped);
        threads.forget_unwanted();
        assert_eq!((Arc::strong_count(&file), threads.queued().0), (2, [0, 1, 0, 0]));
        drop(held);
        assert!(threads.wait_until_idle(Duration::from_secs(60)));
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn what_is_larger_than_all_that_may_wait_is_written_alone() {
        let threads = Threads::start(100).unwrap();
        let _held = hang(&threads);
        assert_eq!(threads.write(1000, || ()), Ok(()));
        assert_eq!(threads.write(1, || ()), Err(Busy));
    }

    #[test]
    fn what_was_taken_is_done_though_the_threads_are_let_go_of_and_a_panic_ends_none() {
        let (told, done) = mpsc::channel();
        let threads = Threads::start(100).unwrap();
        for number in 0..20 {
            let told = told.clone();
            threads.surely(move || {
                told.send(number).unwrap();
                assert!(number % 2 == 0, "as expected");
            });
        }
        drop((threads, told));
        assert_eq!(done.iter().count(), 20);
    }
}
