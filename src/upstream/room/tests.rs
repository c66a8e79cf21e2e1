//! The room with stubs for time and for endpoints: nothing is connected anywhere.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;

use super::super::endpoint::{Mark, test_endpoint};
use super::*;
use crate::observe::metrics::Metrics;
use crate::runtime::paused;

struct Stage {
    room: Arc<Room>,
    balance: Arc<Balance>,
    metrics: Arc<Metrics>,
}

impl Stage {
    fn new(workers: u32) -> Self {
        Self::with(workers, &[("unix:/nowhere/a.sock", None)], |rules| rules)
    }

    fn with(workers: u32, endpoints: &[(&str, Option<u32>)], change: impl FnOnce(Rules) -> Rules) -> Self {
        let endpoints = endpoints.iter().map(|(name, workers)| test_endpoint(name, 1, *workers, false)).collect();
        let balance = Arc::new(Balance::new(endpoints, &config::Balance::LeastBusy, Duration::ZERO));
        let metrics = Metrics::new();
        let room = Arc::new(Room::new("app", metrics.upstream("app")));
        let rules = Rules {
            balance: Arc::clone(&balance),
            limit: 100,
            timeout: Duration::from_secs(30),
            hold: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        };
        let stage = Self { room, balance, metrics };
        stage.room.configure(Workers::Count(workers), 1, change(rules));
        stage
    }

    async fn enter(&self, client: u64) -> Result<Permit, Error> {
        let mut permit = self.room.enter(&self.balance, Seek { client, ..Seek::default() }).await?;
        permit.used();
        Ok(permit)
    }

    /// A task that waits for a slot, tells `log` when it has it, and holds it for `service`.
    fn visitor(&self, client: u64, service: Duration, log: &Log) -> tokio::task::JoinHandle<()> {
        let (room, balance, log) = (Arc::clone(&self.room), Arc::clone(&self.balance), Rc::clone(log));
        tokio::task::spawn_local(async move {
            let result = room.enter(&balance, Seek { client, ..Seek::default() }).await;
            log.borrow_mut().push((client, result.as_ref().err().map(|error| error.reason)));
            if let Ok(mut permit) = result {
                permit.used();
                tokio::time::sleep(service).await;
            }
        })
    }

    fn gauge(&self, name: &str) -> String {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("hostler_{name}{{upstream=\"app\"}}")));
        line.and_then(|line| line.split(' ').next_back()).unwrap_or_default().to_owned()
    }
}

type Log = Rc<RefCell<Vec<(u64, Option<Reason>)>>>;

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn no_more_than_the_workers_are_let_through() {
    paused(async || {
        let stage = Stage::new(2);
        let first = stage.enter(1).await.unwrap();
        let _second = stage.enter(1).await.unwrap();
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        settle().await;
        assert_eq!((log.borrow().len(), stage.room.status().in_flight, stage.room.status().waiting), (0, 2, 1));
        assert_eq!((stage.gauge("in_flight"), stage.gauge("waiting")), ("2".into(), "1".into()));
        drop(first);
        settle().await;
        assert_eq!(*log.borrow(), [(1, None)]);
        assert_eq!((stage.room.status().in_flight, stage.gauge("waiting")), (1, "0".into()));
    });
}

#[test]
fn clients_take_turns() {
    paused(async || {
        let stage = Stage::new(1);
        let first = stage.enter(9).await.unwrap();
        let log = Log::default();
        for client in [1, 1, 1, 1, 2] {
            stage.visitor(client, Duration::from_secs(1), &log);
        }
        settle().await;
        drop(first);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let order: Vec<_> = log.borrow().iter().map(|(client, _)| *client).collect();
        assert_eq!(order, [1, 2, 1, 1, 1]);
    });
}

#[test]
fn who_leaves_gives_up_the_place_at_once() {
    paused(async || {
        let stage = Stage::new(1);
        let first = stage.enter(1).await.unwrap();
        let log = Log::default();
        let gone = stage.visitor(1, Duration::ZERO, &log);
        stage.visitor(2, Duration::ZERO, &log);
        settle().await;
        gone.abort();
        settle().await;
        assert_eq!((stage.room.status().waiting, stage.gauge("waiting")), (1, "1".into()));
        drop(first);
        settle().await;
        assert_eq!(*log.borrow(), [(2, None)]);
        assert_eq!((stage.room.status().in_flight, stage.gauge("in_flight")), (0, "0".into()));
    });
}

#[test]
fn a_slot_handed_to_somebody_who_has_just_left_goes_to_the_next() {
    paused(async || {
        let stage = Stage::new(1);
        let first = stage.enter(1).await.unwrap();
        let log = Log::default();
        let gone = stage.visitor(1, Duration::ZERO, &log);
        stage.visitor(2, Duration::ZERO, &log);
        settle().await;
        // The permit is in its hands before it runs again, and it never does.
        drop(first);
        gone.abort();
        settle().await;
        assert_eq!(*log.borrow(), [(2, None)]);
        assert_eq!(stage.room.status().in_flight, 0);
    });
}

#[test]
fn the_room_is_bounded_in_length_and_time() {
    paused(async || {
        let stage = Stage::with(1, &[("unix:/nowhere/a.sock", None)], |rules| Rules { limit: 1, ..rules });
        let _first = stage.enter(1).await.unwrap();
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        settle().await;
        let full = stage.enter(1).await.err().unwrap();
        assert_eq!((full.reason, full.retry_after), (Reason::QueueFull, Some(5)));
        assert_eq!(stage.room.refusal(Seek { client: 1, ..Seek::default() }).unwrap().reason, Reason::QueueFull);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(*log.borrow(), [(1, Some(Reason::QueueTimeout))]);
        assert_eq!(stage.room.status().waiting, 0);
        assert!(stage.room.refusal(Seek::default()).is_none());
    });
}

#[test]
fn a_client_that_fills_the_room_gives_way_to_others() {
    paused(async || {
        let stage = Stage::with(1, &[("unix:/nowhere/a.sock", None)], |rules| Rules { limit: 3, ..rules });
        let first = stage.enter(1).await.unwrap();
        let log = Log::default();
        for client in [1, 1, 1, 2, 3] {
            stage.visitor(client, Duration::ZERO, &log);
            settle().await;
        }
        assert_eq!(*log.borrow(), [(1, Some(Reason::QueueFull)), (1, Some(Reason::QueueFull))]);
        assert_eq!((stage.room.status().waiting, stage.gauge("waiting")), (3, "3".into()));
        assert!(stage.room.refusal(Seek { client: 4, ..Seek::default() }).is_some(), "all have one");
        drop(first);
        settle().await;
        assert_eq!(log.borrow()[2..], [(1, None), (2, None), (3, None)]);
        assert_eq!(stage.gauge("waiting"), "0");
    });
}

#[test]
fn a_hopeless_request_is_refused_at_once_with_the_time_it_would_take() {
    paused(async || {
        let rules = |rules| Rules { limit: 10_000, timeout: Duration::from_secs(10), ..rules };
        let stage = Stage::with(1, &[("unix:/nowhere/a.sock", None)], rules);
        let log = Log::default();
        for client in 0..60 {
            stage.visitor(client, Duration::from_millis(500), &log);
        }
        // Two a second: after eight seconds 44 wait, which takes 22.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let refused = stage.room.refusal(Seek { client: 100, ..Seek::default() }).unwrap();
        assert_eq!(refused.reason, Reason::QueueFull);
        assert!((15..30).contains(&refused.retry_after.unwrap()), "{:?}", refused.retry_after);
        let urgent = stage.room.refusal(Seek { priority: 10, client: 100, ..Seek::default() });
        assert!(urgent.is_none(), "who goes first has hope");
    });
}

#[test]
fn an_endpoint_s_own_number_holds_beside_the_upstream_s() {
    paused(async || {
        let endpoints = [("unix:/nowhere/a.sock", Some(1)), ("unix:/nowhere/b.sock", Some(1))];
        let stage = Stage::with(3, &endpoints, |rules| rules);
        let first = stage.enter(1).await.unwrap();
        let second = stage.enter(1).await.unwrap();
        assert_ne!(first.endpoint().id, second.endpoint().id);
        let log = Log::default();
        stage.visitor(7, Duration::ZERO, &log);
        settle().await;
        assert_eq!((log.borrow().len(), stage.room.status().in_flight), (0, 2));
        drop(second);
        settle().await;
        assert_eq!(*log.borrow(), [(7, None)]);
    });
}

#[test]
fn an_outage_shorter_than_hold_loses_nobody_however_long_they_wait() {
    paused(async || {
        let rules = |rules| Rules { timeout: Duration::from_secs(5), hold: Duration::from_secs(20), ..rules };
        let stage = Stage::with(2, &[("unix:/nowhere/a.sock", None)], rules);
        let permit = stage.enter(1).await.unwrap();
        let endpoint = Arc::clone(permit.endpoint());
        stage.room.silent(&endpoint, Reason::SocketMissing);
        let log = Log::default();
        stage.visitor(2, Duration::ZERO, &log);
        let back = tokio::task::spawn_local(permit.rejoin());
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!((log.borrow().len(), stage.room.status().waiting), (0, 2));
        endpoint.state.set(Mark::Silent, false);
        stage.room.changed(None);
        settle().await;
        assert_eq!(*log.borrow(), [(2, None)]);
        drop(back.await.unwrap().unwrap());
        assert_eq!((stage.room.status().in_flight, stage.room.status().outage.is_none()), (0, true));
    });
}

#[test]
fn an_outage_longer_than_hold_fails_fast_until_somebody_answers() {
    paused(async || {
        let rules = |rules| Rules { hold: Duration::from_secs(10), ..rules };
        let stage = Stage::with(2, &[("unix:/nowhere/a.sock", None)], rules);
        let endpoint = Arc::clone(&stage.balance.endpoints[0]);
        stage.room.silent(&endpoint, Reason::ConnectRefused);
        let log = Log::default();
        stage.visitor(2, Duration::ZERO, &log);
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(*log.borrow(), [(2, Some(Reason::ConnectRefused))]);
        let before = Instant::now();
        let error = stage.enter(3).await.err().unwrap();
        assert_eq!(
            (error.reason, error.retry_after, before.elapsed()),
            (Reason::ConnectRefused, Some(5), Duration::ZERO)
        );
        assert!(stage.room.status().is_failing);
        endpoint.state.set(Mark::Silent, false);
        stage.room.changed(None);
        assert!(stage.enter(3).await.is_ok());
    });
}

#[test]
fn a_deploy_loses_nobody_who_comes_during_it_or_after_it() {
    paused(async || {
        let rules = |rules| Rules { limit: 100, ..rules };
        let stage = Stage::with(4, &[("unix:/nowhere/a.sock", None)], rules);
        let endpoint = Arc::clone(&stage.balance.endpoints[0]);
        let (log, every) = (Log::default(), Duration::from_millis(40));
        // 25 a second, of a tenth of a second each: four workers can do 40. Out for ten seconds in the middle.
        for client in 0..1500 {
            match client {
                250 => stage.room.silent(&endpoint, Reason::SocketMissing),
                500 => {
                    endpoint.state.set(Mark::Silent, false);
                    stage.room.changed(None);
                }
                _ => {}
            }
            stage.visitor(client, Duration::from_millis(100), &log);
            tokio::time::sleep(every).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let failed: Vec<_> = log.borrow().iter().filter(|(_, reason)| reason.is_some()).copied().collect();
        assert_eq!((log.borrow().len(), failed), (1500, Vec::new()));
        assert!(!stage.room.lock().is_recovering, "the usual limit holds again");
    });
}

#[test]
fn a_burst_after_a_slow_time_is_not_called_hopeless() {
    paused(async || {
        let rules = |rules| Rules { timeout: Duration::from_secs(20), ..rules };
        let stage = Stage::with(2, &[("unix:/nowhere/a.sock", None)], rules);
        let log = Log::default();
        for client in 0..14 {
            stage.visitor(client, Duration::from_millis(2500), &log);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        for client in 0..90 {
            stage.visitor(client, Duration::from_millis(50), &log);
            settle().await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(log.borrow().iter().filter(|(_, reason)| reason.is_some()).count(), 0);
        assert_eq!(log.borrow().len(), 104);
    });
}

#[test]
fn nobody_is_held_for_longer_than_a_hold_that_is_changed_meanwhile() {
    paused(async || {
        let stage = Stage::with(1, &[("unix:/nowhere/a.sock", None)], |rules| Rules { hold: Duration::ZERO, ..rules });
        stage.room.silent(&stage.balance.endpoints[0], Reason::SocketMissing);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let rules = Arc::clone(&stage.room.lock().rules);
        let longer = Rules { balance: Arc::clone(&rules.balance), hold: Duration::from_secs(8), ..*rules };
        stage.room.configure(Workers::Count(1), 1, longer);
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(log.borrow().len(), 0, "held");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(*log.borrow(), [(1, Some(Reason::SocketMissing))]);
    });
}

#[test]
fn who_waits_when_the_process_ends_is_told() {
    paused(async || {
        let stage = Stage::new(1);
        let _first = stage.enter(1).await.unwrap();
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        settle().await;
        stage.room.close();
        settle().await;
        assert_eq!(
            (log.borrow()[..].to_vec(), stage.gauge("waiting")),
            (vec![(1, Some(Reason::ShuttingDown))], "0".into())
        );
        assert_eq!(stage.enter(2).await.err().unwrap().reason, Reason::ShuttingDown);
    });
}

#[test]
fn the_slot_of_an_endpoint_that_is_left_goes_to_who_waits_for_it() {
    paused(async || {
        let endpoints = [("unix:/nowhere/a.sock", Some(1)), ("unix:/nowhere/b.sock", Some(1))];
        let stage = Stage::with(3, &endpoints, |rules| rules);
        let (mut first, second) = (stage.enter(1).await.unwrap(), stage.enter(1).await.unwrap());
        let log = Log::default();
        stage.visitor(7, Duration::from_secs(100), &log);
        settle().await;
        assert!(!first.move_on(&stage.balance), "the other is busy");
        drop(second);
        settle().await;
        assert_eq!(*log.borrow(), [(7, None)]);
        stage.visitor(8, Duration::ZERO, &log);
        settle().await;
        assert!(!first.move_on(&stage.balance), "the other is busy again");
        drop(first);
        settle().await;
        assert_eq!(log.borrow().len(), 2);
    });
}

#[test]
fn an_upstream_that_is_gone_is_not_watched_any_more() {
    paused(async || {
        let stage = Stage::new(1);
        stage.room.silent(&stage.balance.endpoints[0], Reason::SocketMissing);
        let room = Arc::downgrade(&stage.room);
        drop(stage);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(room.upgrade().is_none());
    });
}

#[test]
fn who_met_a_closed_door_goes_before_everybody_else() {
    paused(async || {
        let stage = Stage::new(1);
        let permit = stage.enter(1).await.unwrap();
        let endpoint = Arc::clone(permit.endpoint());
        let log = Log::default();
        stage.visitor(2, Duration::ZERO, &log);
        settle().await;
        stage.room.silent(&endpoint, Reason::SocketMissing);
        let again = Rc::clone(&log);
        tokio::task::spawn_local(async move {
            let _permit = permit.rejoin().await.unwrap();
            again.borrow_mut().push((1, None));
        });
        settle().await;
        endpoint.state.set(Mark::Silent, false);
        stage.room.changed(None);
        settle().await;
        assert_eq!(*log.borrow(), [(1, None), (2, None)]);
    });
}

#[test]
fn a_paused_upstream_lets_nobody_through_until_it_goes_on() {
    paused(async || {
        let stage = Stage::new(2);
        assert!(stage.room.pause(true) && !stage.room.pause(true));
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        settle().await;
        assert_eq!((log.borrow().len(), stage.room.status().waiting), (0, 1));
        assert!(stage.room.pause(false));
        settle().await;
        assert_eq!(*log.borrow(), [(1, None)]);
        drop(stage.enter(1).await.unwrap());
    });
}

#[test]
fn fewer_workers_after_a_reload_wait_for_those_in_flight() {
    paused(async || {
        let stage = Stage::new(3);
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(stage.enter(1).await.unwrap());
        }
        let rules = Arc::clone(&stage.room.lock().rules);
        let again = Rules { balance: Arc::clone(&rules.balance), ..*rules };
        stage.room.configure(Workers::Count(1), 1, again);
        let log = Log::default();
        stage.visitor(1, Duration::ZERO, &log);
        permits.truncate(1);
        settle().await;
        assert_eq!((log.borrow().len(), stage.room.status().in_flight), (0, 1));
        permits.clear();
        settle().await;
        assert_eq!(log.borrow().len(), 1);
    });
}

#[test]
fn streams_have_a_number_of_their_own() {
    paused(async || {
        let stage = Stage::new(4);
        let (first, second) = (stage.enter(1).await.unwrap(), stage.enter(1).await.unwrap());
        let pin = first.pin().unwrap();
        assert!(second.pin().is_none());
        drop(pin);
        assert!(second.pin().is_some());
    });
}

#[test]
fn those_without_room_have_half_of_the_streams_and_never_the_last_worker() {
    paused(async || {
        for (workers, streams, expected) in [(4, 3, 2), (4, 1, 1), (2, 1, 1), (1, 1, 0), (8, 7, 4), (3, 8, 2)] {
            let stage = Stage::new(workers);
            stage.room.streams_max.store(streams, Ordering::Relaxed);
            let permit = stage.enter(1).await.unwrap();
            let pins: Vec<_> = std::iter::from_fn(|| permit.pin_without_room()).collect();
            assert_eq!(pins.len(), expected, "{workers} workers, {streams} streams");
            assert_eq!(permit.pin().is_some(), pins.len() < streams as usize);
        }
    });
}

/// Counts who is inside, also when dropped in the middle, and how many there were.
struct Inside<'a>(&'a AtomicUsize, usize);

impl<'a> Inside<'a> {
    fn new(now: &'a AtomicUsize) -> Self {
        Self(now, 1 + now.fetch_add(1, Ordering::SeqCst))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn permits_are_exact_whatever_the_number_of_threads() {
    let stage = Stage::with(3, &[("unix:/nowhere/a.sock", Some(2)), ("unix:/nowhere/b.sock", Some(2))], |rules| rules);
    let (now, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (room, balance, now, most, done) = (&stage.room, &stage.balance, &now, &most, &done);
            scope.spawn(move || {
                crate::runtime::block_on(async {
                    let visit = async |round: u64| {
                        let seek = Seek { client: thread * 10 + round % 3, ..Seek::default() };
                        let _permit = room.enter(balance, seek).await.unwrap();
                        let inside = Inside::new(now);
                        most.fetch_max(inside.1, Ordering::SeqCst);
                        if round.is_multiple_of(7) {
                            tokio::task::yield_now().await;
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                    };
                    for round in 0..3000 {
                        // Some leave while they wait.
                        let two = async { tokio::join!(visit(round), visit(round + 1)) };
                        tokio::select! { biased; _ = two => {}, () = tokio::task::yield_now(), if round.is_multiple_of(5) => {} }
                    }
                })
                .unwrap();
            });
        }
    });
    assert!(most.into_inner() <= 3 && done.into_inner() > 1000);
    let status = stage.room.status();
    assert_eq!((status.in_flight, status.waiting), (0, 0));
    assert!(stage.balance.endpoints.iter().all(|endpoint| endpoint.state.in_flight() == 0));
    assert_eq!(stage.room.state.load(Ordering::SeqCst), 0, "nobody is said to wait");
}
