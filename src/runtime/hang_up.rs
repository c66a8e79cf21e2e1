//! Telling the other end of a unix socket that nothing more is taken, and learning when it is done.
//!
//! From shutdown(SHUT_RD) on a socket counts as read to its end for ever, and no poll(2) tells what the other end does
//! short of a close. gunicorn lingers before that: it shuts its side, and waits for ours for two seconds. But the kernel
//! announces each change (`sk_state_change` in af_unix.c), and an edge-triggered epoll of our own hears of it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::Socket;

/// How often one looks who cannot be told.
const LOOK: Duration = Duration::from_millis(50);

/// The wait for the other end, which can write no more.
pub struct HangUp<'a> {
    socket: &'a Socket,
    /// `None`: there is no descriptor for it.
    watch: Option<OwnedFd>,
    /// It was done before.
    is_done: bool,
}

impl<'a> HangUp<'a> {
    /// Makes every further write of the other end fail. `None`: the system can do that with unix sockets only.
    #[must_use]
    pub fn begin(socket: &'a Socket) -> Option<Self> {
        let Socket::Unix(stream) = socket else { return None };
        let is_done = socket.has(PollFlags::RDHUP);
        // Before it, since the other end may be done at once.
        let watch = watch(stream).ok();
        shutdown(stream, Shutdown::Read).ok()?;
        if let Some(watch) = &watch {
            // Our own shutdown is a change, too. Should the other end's have come already, its close will tell.
            take_event(watch);
        }
        Some(Self { socket, watch, is_done })
    }

    /// Resolves when the other end has closed, or has said that it writes no more.
    pub async fn seen(self) {
        let Self { socket, watch, is_done } = self;
        let is_closed = || socket.has(PollFlags::empty());
        if is_done {
            return;
        }
        if let Some(watch) = watch.and_then(observed)
            && (is_closed() || watch.readable().await.is_ok())
        {
            return;
        }
        while !is_closed() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn watch(stream: &UnixStream) -> Result<OwnedFd, Errno> {
    let watch = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&watch, stream, EventData::new_u64(0), EventFlags::RDHUP | EventFlags::ET)?;
    Ok(watch)
}

#[allow(unsafe_code)]
fn observed(watch: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and it lives as long as the `AsyncFd` that
    // owns it: nobody takes it out.
    unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }.ok()
}

fn take_event(watch: &OwnedFd) {
    let mut events: [Event; 1] = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
    // There is nothing to be done about an event that cannot be taken: the wait is over too early then.
    let _ = epoll::wait(watch, &mut events[..], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown as Side;
    use std::os::unix::net::UnixStream as Other;

    use super::*;

    fn pair() -> (Socket, Other) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        (Socket::Unix(ours), theirs)
    }

    async fn is_pending(seen: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        tokio::time::timeout(Duration::from_millis(20), seen).await.is_err()
    }

    #[tokio::test]
    async fn the_other_ends_write_fails_and_its_word_that_it_is_done_is_heard() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"answer").unwrap();
        let mut seen = Box::pin(HangUp::begin(&ours).unwrap().seen());
        assert!(is_pending(&mut seen).await, "it has done nothing yet");
        assert!(theirs.write_all(b"more").is_err());
        assert!(is_pending(&mut seen).await, "a failed write is not its end: it may clean up for long");
        theirs.shutdown(Side::Write).unwrap();
        seen.await;
        drop(ours);
        assert!(!matches!(theirs.read(&mut [0; 10]), Ok(1..)), "the end, or a reset for what we have not read");
    }

    #[tokio::test]
    async fn a_close_is_heard_with_a_watch_and_without_one() {
        for has_watch in [true, false] {
            let (ours, theirs) = pair();
            let mut hang_up = HangUp::begin(&ours).unwrap();
            hang_up.watch = hang_up.watch.filter(|_| has_watch);
            let mut seen = Box::pin(hang_up.seen());
            assert!(is_pending(&mut seen).await);
            drop(theirs);
            seen.await;
        }
    }

    #[tokio::test]
    async fn an_end_that_is_done_already_is_not_waited_for() {
        let (ours, theirs) = pair();
        drop(theirs);
        HangUp::begin(&ours).unwrap().seen().await;
        let (ours, theirs) = pair();
        theirs.shutdown(Side::Write).unwrap();
        HangUp::begin(&ours).unwrap().seen().await;
    }
}
