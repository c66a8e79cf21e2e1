use std::io::Read;
use std::sync::mpsc;

use super::*;

/// Longer than anything here takes: reached only by a test that fails.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn counter() -> IntCounter {
    IntCounter::new("dropped", "for the test").unwrap()
}

fn file(path: &std::path::Path) -> Option<AccessTarget> {
    Some(AccessTarget::File(path.to_owned()))
}

fn append(sink: &Sink, line: &str) {
    sink.append(|out| out.extend_from_slice(line.as_bytes()));
}

/// A target that hands what it gets to a script.
struct Scripted<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Scripted<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn scripted(script: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> Option<Output> {
    Some(Output { name: "script".into(), to: Box::new(Scripted(script)) })
}

#[test]
fn lines_of_a_thread_arrive_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::start(file(&path), counter()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let log = log.clone();
            std::thread::spawn(move || {
                let sink = log.sink();
                (0..5000).for_each(|n| append(&sink, &format!("{thread} {n} {}", "x".repeat(n % 90))));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(log.flush_and_stop(soon()));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut next = [0; 4];
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (thread, n): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        assert_eq!((n, words[2].len()), (next[thread], n % 90));
        next[thread] += 1;
    }
    assert_eq!(next, [5000; 4]);
}

#[test]
fn a_line_after_a_silence_wakes_the_writer() {
    let (sender, lines) = mpsc::channel();
    let output = scripted(move |bytes| {
        sender.send(bytes.to_vec()).ok();
        Ok(bytes.len())
    });
    let log = AccessLog::with_output(output, LIMIT, counter()).unwrap();
    let sink = log.sink();
    for _ in 0..50 {
        while log.shared.awake.load(Ordering::Relaxed) {
            std::thread::yield_now(); // until the writer has gone to sleep
        }
        append(&sink, "a");
        assert_eq!(lines.recv_timeout(Duration::from_secs(20)).unwrap(), b"a\n");
    }
}

#[test]
fn a_target_that_takes_a_few_bytes_at_a_time_gets_all_of_them() {
    let (sender, bytes) = mpsc::channel();
    let mut turn = 0;
    let output = scripted(move |bytes| {
        turn += 1;
        match turn % 4 {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1 => Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                let n = bytes.len().min(7);
                sender.send(bytes[..n].to_vec()).ok();
                Ok(n)
            }
        }
    });
    let dropped = counter();
    let log = AccessLog::with_output(output, LIMIT, dropped.clone()).unwrap();
    let sink = log.sink();
    append(&sink, "the first line");
    append(&sink, "the second");
    assert!(log.flush(soon()));
    assert_eq!(bytes.try_iter().flatten().collect::<Vec<_>>(), b"the first line\nthe second\n");
    assert_eq!(dropped.get(), 0);
}

#[test]
fn a_target_that_is_stuck_holds_nobody_and_what_does_not_fit_is_counted() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let output = Some(Output { name: "pipe".into(), to: Box::new(pipe) });
    let dropped = counter();
    let limit = 100_000;
    let log = AccessLog::with_output(output, limit, dropped.clone()).unwrap();
    let sink = log.sink();
    // Nobody reads: the pipe's 64 KiB, what the writer has in hand, and the buffer fill up.
    let mut sent = 0;
    while dropped.get() < 10 {
        append(&sink, &format!("{sent:09}"));
        sent += 1;
        assert!(lock(&sink.pending).len() <= limit);
    }
    assert!(!log.flush(Instant::now()), "a stuck target cannot have been flushed");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert!(log.flush_and_stop(soon()));
    let text = reading.join().unwrap().unwrap();
    assert_eq!(text.lines().count() as u64, sent - dropped.get());
    assert!(text.lines().all(|line| line.len() == 9));
    assert!(text.lines().is_sorted());
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let dropped = counter();
    let log = AccessLog::start(file("/dev/full".as_ref()), dropped.clone()).unwrap();
    let sink = log.sink();
    append(&sink, "lost");
    append(&sink, "lost too");
    assert!(log.flush(soon()));
    assert_eq!(dropped.get(), 2);
    log.retarget(file(&path)).unwrap();
    assert!(log.flush(soon()));
    append(&sink, "kept");
    assert!(log.flush_and_stop(soon()));
    assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), dropped.get()), ("kept\n", 2));
}

#[test]
fn a_line_cut_by_a_failure_is_finished_before_the_next() {
    let (sender, bytes) = mpsc::channel();
    let mut room = 8; // of the disk, until somebody clears it up
    let mut failures = 0;
    let output = scripted(move |bytes| {
        if room == 0 && failures == 0 {
            failures += 1;
            room = usize::MAX;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = bytes.len().min(room);
        room -= n;
        sender.send(bytes[..n].to_vec()).ok();
        Ok(n)
    });
    let dropped = counter();
    let log = AccessLog::with_output(output, LIMIT, dropped.clone()).unwrap();
    let sink = log.sink();
    {
        // One chunk, whatever the writer does meanwhile.
        let _paused = lock(&log.shared.sinks);
        ["12345", "abcdef", "lost", "lost"].iter().for_each(|line| append(&sink, line));
    }
    assert!(log.flush(soon()));
    append(&sink, "after");
    assert!(log.flush(soon()));
    assert_eq!(String::from_utf8(bytes.try_iter().flatten().collect()).unwrap(), "12345\nabcdef\nafter\n");
    assert_eq!(dropped.get(), 2);
}

#[test]
fn reopen_follows_the_name_and_keeps_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let log = AccessLog::start(file(&path), counter()).unwrap();
    let sink = log.sink();
    append(&sink, "before");
    std::fs::rename(&path, &moved).unwrap_or_else(|error| panic!("the file is opened at start: {error}"));
    log.reopen().unwrap();
    assert!(log.flush(soon()));
    append(&sink, "after");
    assert!(log.flush_and_stop(soon()));
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "before\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
}

#[test]
fn a_target_that_cannot_be_opened_changes_nothing_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let missing = dir.path().join("no/such/access.log");
    assert!(AccessLog::start(file(&missing), counter()).is_err());
    let log = AccessLog::start(file(&path), counter()).unwrap();
    let error = log.retarget(file(&missing)).unwrap_err();
    assert!(error.to_string().contains("no/such/access.log"), "{error}");
    append(&log.sink(), "still here");
    assert!(log.flush_and_stop(soon()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "still here\n");
}

#[test]
fn off_formats_nothing_and_can_be_turned_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let dropped = counter();
    let log = AccessLog::start(None, dropped.clone()).unwrap();
    let sink = log.sink();
    assert!(!log.is_on() && !sink.is_on());
    sink.append(|_| panic!("formatted while off"));
    log.retarget(file(&path)).unwrap();
    assert!(sink.is_on());
    append(&sink, "on");
    assert!(log.flush(soon()));
    log.retarget(None).unwrap();
    sink.append(|_| panic!("formatted while off"));
    assert!(log.flush_and_stop(soon()));
    assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), dropped.get()), ("on\n", 0));
}

#[test]
fn a_line_that_panics_leaves_no_half_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::start(file(&path), counter()).unwrap();
    let sink = log.sink();
    append(&sink, "one");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        sink.append(|out| {
            out.extend_from_slice(b"half");
            panic!("a fault in the formatting");
        });
    }));
    assert!(panicked.is_err());
    append(&sink, "two");
    assert!(log.flush_and_stop(soon()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}

#[test]
fn sinks_of_ended_threads_are_forgotten_once_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let log = AccessLog::start(file(&path), counter()).unwrap();
    append(&log.sink(), "from a thread that ended");
    assert!(log.flush(soon()) && log.flush(soon()));
    assert!(lock(&log.shared.sinks).is_empty());
    assert!(log.flush_and_stop(soon()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "from a thread that ended\n");
}
