//! The app's workers come and go under open WebSockets with messages on their way: none is dropped, and no message is lost,
//! doubled or out of its order.
//!
//! `make bench-websocket-restarts` runs the same with more sockets, and with the seconds between two restarts that a deploy has.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::websocket::{CLOSE, TEXT};
use crate::support::worker::Transport;
use crate::support::{H2, WebSocket, look_for};
use crate::websocket_over_http::{SOCKETS, Site, Way, config};

/// A number of the environment's, or a default.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// A socket, and what it has sent and got.
struct Talker {
    name: String,
    socket: WebSocket,
    sent: u32,
    got: u32,
    /// It has been closed with this code.
    closed: Option<u16>,
}

impl Talker {
    /// Sends the next number.
    fn say(&mut self) {
        if self.closed.is_none() {
            self.sent += 1;
            self.socket.send_bytes_if_open(&crate::support::websocket::Frame::new(TEXT, self.word(self.sent)).masked());
        }
    }

    /// Waits until all of its numbers have come back, in order, or it is closed.
    fn hear(&mut self) {
        while self.closed.is_none() && self.got < self.sent {
            let frame = self.socket.frame().unwrap_or_else(|| panic!("{}: dropped behind {}", self.name, self.got));
            if frame.opcode == CLOSE {
                self.closed = Some(frame.code().expect("a code"));
                return;
            }
            self.got += 1;
            assert_eq!(String::from_utf8(frame.payload).unwrap(), self.word(self.got));
        }
    }

    fn word(&self, number: u32) -> String {
        format!("{} {number}", self.name)
    }
}

fn talkers(site: &Site, count: usize) -> (Vec<Talker>, Vec<H2>) {
    const STREAMS: usize = 50;
    let mut connections = Vec::new();
    let talkers = (0..count).map(|at| {
        let socket = match at % 4 {
            0 => {
                if (at / 4) % STREAMS == 0 {
                    connections.push(H2::tls(site.secure(), "localhost", &site.gateway.root()));
                }
                WebSocket::over_h2(connections.last().unwrap(), "/numbers", &[])
            }
            1 => site.open_by(Way::Tls, "/numbers", &[]),
            _ => site.open("/numbers"),
        };
        Talker { name: format!("s{at}"), socket, sent: 0, got: 0, closed: None }
    });
    let talkers = talkers.collect();
    (talkers, connections)
}

/// Everybody talks until `is_done`, two numbers at a time.
fn talk_until(talkers: &mut [Talker], mut is_done: impl FnMut() -> bool) {
    loop {
        talkers.iter_mut().for_each(Talker::say);
        talkers.iter_mut().for_each(Talker::say);
        talkers.iter_mut().for_each(Talker::hear);
        if is_done() {
            return;
        }
    }
}

/// How often the app has had each word, and whether those of each socket came in their order.
fn check(site: &Site, talkers: &[Talker]) {
    let mut had: HashMap<String, Vec<u32>> = HashMap::new();
    for noted in site.noted().into_iter().filter(|noted| noted.event == "TEXT") {
        let word = String::from_utf8(noted.content).unwrap();
        let (name, number) = word.split_once(' ').unwrap();
        had.entry(name.to_owned()).or_default().push(number.parse().unwrap());
    }
    for talker in talkers {
        let numbers = had.remove(&talker.name).unwrap_or_default();
        let expected: Vec<u32> = (1..=numbers.len() as u32).collect();
        assert_eq!(numbers, expected, "{} {:?}", talker.name, talker.closed);
        assert!(numbers.len() as u32 >= talker.got, "{}: {} of {}", talker.name, numbers.len(), talker.got);
        if talker.closed.is_none() {
            assert_eq!((numbers.len() as u32, talker.got), (talker.sent, talker.sent), "{}", talker.name);
        }
    }
}

#[test]
fn no_socket_is_dropped_and_no_message_lost_while_workers_are_replaced() {
    let sockets = usize::try_from(number("HOSTLER_SOCKETS", 60)).unwrap();
    let restarts = number("HOSTLER_RESTARTS", 5);
    let every = Duration::from_secs(number("HOSTLER_RESTART_EVERY", 0));
    const WORKERS: usize = 2;
    let site = Site::start(WORKERS as u32);
    let (mut talkers, _connections) = talkers(&site, sockets);
    talk_until(&mut talkers, || true);
    for _ in 0..restarts {
        let (before, begun) = (site.gunicorn.worker_pids().len(), Instant::now());
        kill_process(Pid::from_raw(site.gunicorn.pid() as i32).unwrap(), Signal::HUP).unwrap();
        talk_until(&mut talkers, || site.gunicorn.worker_pids().len() >= before + WORKERS && begun.elapsed() >= every);
    }
    talk_until(&mut talkers, || true);
    let dropped: Vec<_> = talkers.iter().filter(|talker| talker.closed.is_some()).map(|talker| &talker.name).collect();
    assert!(dropped.is_empty(), "{dropped:?} of {sockets}");
    let messages: u32 = talkers.iter().map(|talker| talker.sent).sum();
    println!("{sockets} sockets, {restarts} restarts, {messages} messages");
    check(&site, &talkers);
    for talker in talkers {
        talker.socket.close(1000);
    }
}

/// Over TCP nobody can know whether a worker that has gone had read what was sent to it.
#[test]
fn over_tcp_only_those_end_whose_message_a_dying_worker_had() {
    const KILLS: usize = 5;
    let site = Site::start_with(2, Transport::Tcp, SOCKETS, "", &[]);
    let (mut talkers, _connections) = talkers(&site, usize::try_from(number("HOSTLER_SOCKETS", 24)).unwrap());
    talk_until(&mut talkers, || true);
    for _ in 0..KILLS {
        talkers.iter_mut().for_each(Talker::say);
        let running = |pid: &&i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        site.gunicorn.kill_worker(*site.gunicorn.worker_pids().iter().rev().find(running).unwrap());
        talkers.iter_mut().for_each(Talker::hear);
    }
    let before = site.gunicorn.worker_pids().len();
    kill_process(Pid::from_raw(site.gunicorn.pid() as i32).unwrap(), Signal::HUP).unwrap();
    talk_until(&mut talkers, || site.gunicorn.worker_pids().len() >= before + 2);
    let closed: Vec<_> = talkers.iter().filter_map(|talker| talker.closed).collect();
    assert!(closed.len() <= KILLS + 2 && closed.iter().all(|code| *code == 1011), "{closed:?}");
    check(&site, &talkers);
}

#[test]
fn reloads_under_traffic_drop_no_socket_and_lose_nothing() {
    const RELOADS: usize = 5;
    let site = Site::start(2);
    let (mut talkers, _connections) = talkers(&site, usize::try_from(number("HOSTLER_SOCKETS", 40)).unwrap());
    for turn in 0..RELOADS {
        talkers.iter_mut().for_each(Talker::say);
        let upstream = if turn % 2 == 0 { ", waiting_room: { limit: 50 }" } else { "" };
        site.gateway.reload(&config(&site.gunicorn, 2, SOCKETS, upstream));
        talk_until(&mut talkers, || true);
    }
    assert!(talkers.iter().all(|talker| talker.closed.is_none()));
    check(&site, &talkers);
    for talker in talkers {
        talker.socket.close(1000);
    }
}

#[test]
fn a_worker_that_is_killed_takes_only_the_sockets_whose_message_it_had() {
    const KILLS: usize = 5;
    let site = Site::start(2);
    let (mut talkers, _connections) = talkers(&site, 24);
    talk_until(&mut talkers, || true);
    for _ in 0..KILLS {
        talkers.iter_mut().for_each(Talker::say);
        let pids = site.gunicorn.worker_pids();
        let running = |pid: &&i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        site.gunicorn.kill_worker(*pids.iter().rev().find(running).unwrap());
        talkers.iter_mut().for_each(Talker::hear);
    }
    talk_until(&mut talkers, || true);
    let closed: Vec<_> = talkers.iter().filter_map(|talker| talker.closed).collect();
    assert!(closed.len() <= KILLS, "{closed:?}: a worker has one message at a time");
    assert!(closed.iter().all(|code| *code == 1011), "{closed:?}");
    check(&site, &talkers);
    let ends = || site.noted().iter().filter(|noted| noted.event == "DISCONNECT").count();
    assert_eq!(
        look_for(Duration::from_secs(20), || (ends() == closed.len()).then_some(())),
        Some(()),
        "the app has heard of each"
    );
}
