//! Both ends over pairs of sockets, with paused time: how long what is waited for.

use std::cell::Cell;

use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::frames::tests::frame;
use super::*;
use crate::http::ClientStream;
use crate::http1::client::HTTP1;
use crate::runtime::{Socket, Stream, paused};

/// The gateway's end of a client. Tells whether it was shut in order, and is told whether the client has closed its side.
struct Io(DuplexStream, Rc<Cell<bool>>, Rc<Cell<bool>>, Rc<Cell<bool>>);

impl ClientStream for Io {
    fn poll_gather(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.2.get() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn is_left(&self) -> bool {
        self.3.get()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1.set(true);
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A tunnel that runs, and both who use it.
struct Stage {
    client: DuplexStream,
    worker: UnixStream,
    running: tokio::task::JoinHandle<(Option<Reason>, Duration)>,
    is_shut: Rc<Cell<bool>>,
    has_left: Rc<Cell<bool>>,
    is_left: Rc<Cell<bool>>,
}

impl Stage {
    fn new(ping: Option<Duration>) -> Self {
        let (client, theirs) = tokio::io::duplex(1 << 10);
        let (worker, ours) = UnixStream::pair().unwrap();
        let connection = Connection::boxed(Stream::Plain(Socket::Unix(ours)), &HTTP1);
        let (is_shut, has_left) = <(Rc<Cell<bool>>, Rc<Cell<bool>>)>::default();
        let is_left = Rc::default();
        let io = Io(theirs, Rc::clone(&is_shut), Rc::clone(&has_left), Rc::clone(&is_left));
        let mut pass = Pass::new(Box::new(io), connection, ping);
        let begun = Instant::now();
        let running = tokio::task::spawn_local(async move {
            let result = poll_fn(|cx| pass.poll(cx)).await;
            (result.err().map(|error| error.reason), begun.elapsed())
        });
        Self { client, worker, running, is_shut, has_left, is_left }
    }

    async fn heard(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.client.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// How it ended, and after how many seconds.
    async fn end(self) -> (Option<Reason>, u64, bool) {
        let Self { client: _client, worker: _worker, running, is_shut, .. } = self;
        let (reason, took) = running.await.unwrap();
        (reason, took.as_secs(), is_shut.get())
    }
}

const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];
const AT_ONCE: drain::Ending = drain::Ending { spread: Duration::ZERO, patience: Duration::from_secs(5) };

#[test]
fn silence_is_no_reason_to_end() {
    paused(async || {
        let mut stage = Stage::new(None);
        for _ in 0..3 {
            sleep(Duration::from_secs(24 * 3600)).await;
            stage.worker.write_all(&frame(1, false, b"x")).await.unwrap();
            assert_eq!(stage.heard(3).await, frame(1, false, b"x"));
        }
        assert!(!stage.running.is_finished());
    });
}

#[test]
fn who_is_told_of_a_drain_has_some_time_to_say_goodbye() {
    paused(async || {
        let mut stage = Stage::new(None);
        sleep(Duration::from_secs(60)).await;
        drain::begin(AT_ONCE);
        assert_eq!(stage.heard(4).await, GOING_AWAY);
        // The worker talks on, to nobody.
        stage.worker.write_all(&frame(1, false, b"x")).await.unwrap();
        let (reason, seconds, is_shut) = stage.end().await;
        assert_eq!((reason, is_shut), (Some(Reason::ShuttingDown), true));
        assert!((65..67).contains(&seconds), "{seconds}");
    });
}

#[test]
fn not_all_hear_of_a_drain_at_once_and_who_has_not_heard_yet_goes_on() {
    paused(async || {
        let mut last = Stage::new(Some(Duration::from_secs(2)));
        let stages: Vec<Stage> = (0..40).map(|_| Stage::new(None)).collect();
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        drain::begin(drain::Ending { spread: Duration::from_secs(40), patience: Duration::from_secs(3) });
        let heard = stages.into_iter().map(|mut stage| {
            tokio::task::spawn_local(async move {
                let word = stage.heard(4).await;
                (word, begun.elapsed().as_secs(), stage.end().await)
            })
        });
        let heard: Vec<_> = heard.collect();
        // Until its turn has come it is pinged as ever, and hears its worker.
        let mut frame = [0; 2];
        loop {
            last.client.read_exact(&mut frame).await.unwrap();
            if frame != [0x89, 0] {
                break;
            }
            last.client.write_all(&self::frame(10, true, b"")).await.unwrap();
            last.worker.write_all(&self::frame(2, false, b"x")).await.unwrap();
            assert_eq!(last.heard(3).await, self::frame(2, false, b"x"));
        }
        assert_eq!(frame, GOING_AWAY[..2]);
        let mut seconds = Vec::new();
        for heard in heard {
            let (word, at, (reason, over, is_shut)) = heard.await.unwrap();
            assert_eq!((&word[..], reason, is_shut), (&GOING_AWAY[..], Some(Reason::ShuttingDown), true));
            assert!(at <= 41 && (at + 3..at + 6).contains(&over), "{at} {over}");
            seconds.push(at);
        }
        let at_most = |most: u64| seconds.iter().filter(|at| **at <= most).count();
        assert!((1..40).contains(&at_most(20)) && at_most(41) == 40, "{seconds:?}");
    });
}

#[test]
fn what_a_drain_says_waits_for_the_end_of_the_frame_at_hand() {
    paused(async || {
        let mut stage = Stage::new(None);
        let frame = frame(2, false, &[b'x'; 100]);
        stage.worker.write_all(&frame[..50]).await.unwrap();
        assert_eq!(stage.heard(50).await, frame[..50]);
        drain::begin(AT_ONCE);
        sleep(Duration::from_secs(1)).await;
        stage.worker.write_all(&[&frame[50..], &self::frame(1, false, b"for nobody")].concat()).await.unwrap();
        assert_eq!(stage.heard(frame.len() - 50 + 4).await, [&frame[50..], &GOING_AWAY].concat());
        assert_eq!(stage.end().await.0, Some(Reason::ShuttingDown));
    });
}

#[test]
fn a_frame_that_never_ends_does_not_hold_a_drain_up() {
    paused(async || {
        let mut stage = Stage::new(None);
        let begun = &frame(1, false, &[b'x'; 100])[..50];
        stage.worker.write_all(begun).await.unwrap();
        assert_eq!(stage.heard(50).await, begun);
        drain::begin(AT_ONCE);
        let (reason, seconds, is_shut) = stage.end().await;
        assert_eq!((reason, is_shut), (Some(Reason::ShuttingDown), false), "nothing can be said within a frame");
        assert!((5..7).contains(&seconds), "{seconds}");
    });
}

#[test]
fn half_a_tunnel_lives_as_long_as_something_comes() {
    paused(async || {
        let mut stage = Stage::new(None);
        stage.client.shutdown().await.unwrap();
        let mut end = [0];
        assert_eq!(stage.worker.read(&mut end).await.unwrap(), 0);
        for _ in 0..3 {
            sleep(LINGER - Duration::from_secs(2)).await;
            stage.worker.write_all(&frame(2, false, b"x")).await.unwrap();
            assert_eq!(stage.heard(3).await, frame(2, false, b"x"));
        }
        let (reason, seconds, is_shut) = stage.end().await;
        assert_eq!((reason, is_shut), (Some(Reason::ClientGone), true));
        assert!((34..36).contains(&seconds), "{seconds}");
    });
}

#[test]
fn a_worker_that_has_said_goodbye_and_stays_is_left() {
    paused(async || {
        let mut stage = Stage::new(None);
        let close = frame(8, false, &[3, 0xe8]);
        stage.worker.write_all(&close).await.unwrap();
        assert_eq!(stage.heard(4).await, close);
        stage.client.write_all(&frame(8, true, &[3, 0xe8])).await.unwrap();
        let (reason, seconds, is_shut) = stage.end().await;
        assert_eq!((reason, is_shut), (None, true));
        assert!((10..12).contains(&seconds), "{seconds}");
    });
}

#[test]
fn a_silent_client_hears_three_pings_and_one_that_answers_any_number() {
    paused(async || {
        let every = Duration::from_secs(25);
        let mut stage = Stage::new(Some(every));
        for _ in 0..10 {
            assert_eq!(stage.heard(2).await, [0x89, 0]);
            stage.client.write_all(&frame(10, true, b"")).await.unwrap();
        }
        for _ in 0..UNANSWERED {
            assert_eq!(stage.heard(2).await, [0x89, 0]);
        }
        let (reason, seconds, is_shut) = stage.end().await;
        assert_eq!((reason, is_shut), (Some(Reason::PingTimeout), false));
        // An answer is looked for with the next ping.
        assert!((14 * 25..=24 * 26).contains(&seconds), "{seconds}");
    });
}

#[test]
fn who_does_not_read_is_not_asked_and_so_owes_no_answer() {
    paused(async || {
        let mut stage = Stage::new(Some(Duration::from_secs(1)));
        // More than the client's buffer takes.
        let message = frame(2, false, &[7; 4000]);
        stage.worker.write_all(&message).await.unwrap();
        sleep(Duration::from_secs(600)).await;
        assert!(!stage.running.is_finished());
        assert!(stage.heard(message.len()).await == message);
        assert_eq!(stage.heard(2).await, [0x89, 0]);
    });
}

/// Says so much that the worker, who does not read, has it all in its socket and more is in between.
async fn fill(client: &mut DuplexStream) {
    let message = frame(2, true, &[7; 4096]);
    while tokio::time::timeout(Duration::from_millis(100), client.write_all(&message)).await.is_ok() {}
}

#[test]
fn a_client_whose_worker_does_not_read_owes_no_answer_to_pings() {
    paused(async || {
        let mut stage = Stage::new(Some(Duration::from_secs(1)));
        fill(&mut stage.client).await;
        sleep(Duration::from_secs(600)).await;
        assert!(!stage.running.is_finished());
    });
}

#[test]
fn a_client_that_leaves_behind_what_its_worker_does_not_read_is_not_waited_for_for_ever() {
    paused(async || {
        let mut stage = Stage::new(None);
        fill(&mut stage.client).await;
        sleep(Duration::from_secs(3600)).await;
        assert!(!stage.running.is_finished(), "it is there");
        stage.has_left.set(true);
        // Something wakes the tunnel, as the socket would.
        stage.worker.write_all(&frame(2, false, b"x")).await.unwrap();
        let (reason, seconds, _) = stage.end().await;
        assert_eq!(reason, Some(Reason::ClientGone));
        assert!((3610..3625).contains(&seconds), "{seconds}");
    });
}

#[test]
fn where_nobody_tells_that_a_client_has_left_it_is_looked_for_now_and_then() {
    for ping in [None, Some(Duration::from_secs(7))] {
        paused(async move || {
            let mut stage = Stage::new(ping);
            fill(&mut stage.client).await;
            sleep(Duration::from_secs(3600)).await;
            assert!(!stage.running.is_finished(), "it is there");
            stage.is_left.set(true);
            let (reason, seconds, _) = stage.end().await;
            assert_eq!(reason, Some(Reason::ClientGone));
            assert!((3610..3625).contains(&seconds), "{seconds}");
        });
    }
}

#[test]
fn a_worker_that_reads_again_after_a_look_gets_all_of_it() {
    paused(async || {
        let mut stage = Stage::new(None);
        fill(&mut stage.client).await;
        sleep(LOOK * 3).await;
        stage.client.shutdown().await.unwrap();
        let mut all = Vec::new();
        stage.worker.read_to_end(&mut all).await.unwrap();
        assert!(all.len() > 4096);
        sleep(LOOK / 2).await;
        assert!(!stage.running.is_finished());
    });
}

#[test]
fn what_a_client_is_slow_to_read_behind_a_goodbye_has_more_time() {
    paused(async || {
        let mut stage = Stage::new(None);
        let last = [frame(2, false, &[7; 3000]), frame(8, false, &[3, 0xe8])].concat();
        stage.worker.write_all(&last).await.unwrap();
        sleep(LINGER * 3).await;
        assert!(stage.heard(last.len()).await == last);
        let stalled = Stage::new(None);
        let Stage { client, mut worker, running, is_shut, .. } = stalled;
        worker.write_all(&last).await.unwrap();
        let (reason, took) = running.await.unwrap();
        assert_eq!((reason, is_shut.get()), (Some(Reason::ClientStalled), false));
        assert!((60..62).contains(&took.as_secs()), "{took:?}");
        drop(client);
    });
}

#[test]
fn half_a_tunnel_hears_of_a_drain_as_well() {
    paused(async || {
        let mut stage = Stage::new(None);
        stage.client.shutdown().await.unwrap();
        let mut end = [0];
        assert_eq!(stage.worker.read(&mut end).await.unwrap(), 0);
        drain::begin(AT_ONCE);
        assert_eq!(stage.heard(4).await, GOING_AWAY);
    });
}

#[test]
fn one_direction_that_never_rests_does_not_keep_the_other_from_its_turn() {
    paused(async || {
        let stage = Stage::new(None);
        let (mut worker_reads, mut worker_writes) = stage.worker.into_split();
        let flood = tokio::task::spawn_local(async move {
            let message = frame(2, false, &[7; 60_000]);
            while worker_writes.write_all(&message).await.is_ok() {}
        });
        let (mut reads, mut writes) = tokio::io::split(stage.client);
        let drained = tokio::task::spawn_local(async move {
            let mut piece = vec![0; 1 << 10];
            while reads.read(&mut piece).await.is_ok_and(|read| read > 0) {}
        });
        writes.write_all(&frame(1, true, b"stop")).await.unwrap();
        let mut heard = [0; 10];
        worker_reads.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard[..], frame(1, true, b"stop"));
        flood.abort();
        drained.abort();
        stage.running.abort();
    });
}
