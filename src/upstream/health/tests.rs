//! Probes in paused time, with a stub for what endpoints answer.

use std::collections::HashMap;
use std::path::Path;

use super::super::room::{Permit, Seek};
use super::super::{Condition, Connector};
use super::*;
use crate::config;
use crate::error::Retry;
use crate::observe::metrics::Metrics;
use crate::runtime::paused;

/// What endpoints answer to probes, by name.
#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    Refused,
    BacklogFull,
    /// The time is over, and the worker never ends.
    Late,
    /// 200, from a worker that goes on until it is let go.
    Lingering,
}

#[derive(Default)]
struct Script {
    answers: RefCell<HashMap<String, Answer>>,
    asked: RefCell<Vec<String>>,
    let_go: Rc<Notify>,
}

struct Stage {
    metrics: Arc<Metrics>,
    script: Rc<Script>,
    probers: Probers,
    config: Config,
    upstream: Arc<Upstream>,
}

const HEALTH: &str = "health: { path: /up, interval: 10s, fall: 3, rise: 2 }";

fn configured(upstream: &str) -> Config {
    let text = format!(
        "upstreams: {{ app: {{ {upstream} }} }}\nsites: [{{ hosts: [\"*.a.example\", shop.example], routes: [{{ path: /, proxy: app }}] }}]"
    );
    config::load_str(&text, "hostler.yaml", Path::new("/"), &|_| None).unwrap().config
}

fn connectors(config: &Config) -> Vec<Connector> {
    let upstream = &config.upstreams[0];
    upstream.endpoints.iter().map(|endpoint| Connector::compile(upstream, endpoint).unwrap()).collect()
}

impl Stage {
    fn new(upstream: &str) -> Self {
        let metrics = Metrics::new();
        let script = Rc::new(Script::default());
        let config = configured(upstream);
        let compiled =
            Arc::new(Upstream::compile(&config.upstreams[0], connectors(&config), None, metrics.upstream("app")));
        let ask = {
            let script = Rc::clone(&script);
            Rc::new(move |aim: Rc<Aim>| {
                let outcome = script.ask(aim.endpoint.name());
                Box::pin(std::future::ready(outcome)) as Pin<Box<dyn Future<Output = Outcome>>>
            })
        };
        let probers = Probers { watched: Vec::new(), ask, random: 0.5 };
        let mut stage = Self { metrics, script, probers, config, upstream: compiled };
        stage.in_force();
        stage
    }

    fn in_force(&mut self) {
        self.upstream.put_in_force();
        self.probers.follow(&self.config, &[Arc::clone(&self.upstream)]);
    }

    fn reload(&mut self, upstream: &str) {
        self.config = configured(upstream);
        let metrics = self.metrics.upstream("app");
        self.upstream = Arc::new(Upstream::compile(
            &self.config.upstreams[0],
            connectors(&self.config),
            Some(&self.upstream),
            metrics,
        ));
        self.in_force();
    }

    fn answers(&self, name: &str, answer: Answer) {
        self.script.answers.borrow_mut().insert(format!("unix:/nowhere/{name}"), answer);
    }

    /// How often this endpoint has been asked since the last time.
    fn asked(&self, name: &str) -> usize {
        let mut asked = self.script.asked.borrow_mut();
        let before = asked.len();
        asked.retain(|other| *other != format!("unix:/nowhere/{name}"));
        before - asked.len()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.upstream.endpoints().iter().map(|endpoint| endpoint.state.condition()).collect()
    }

    async fn enter(&self) -> Result<Permit, Error> {
        self.upstream.room.enter(&self.upstream.balance, Seek::default()).await
    }

    fn probes(&self, name: &str, result: &str) -> u64 {
        let series =
            format!("hostler_probes_total{{endpoint=\"unix:/nowhere/{name}\",result=\"{result}\",upstream=\"app\"}} ");
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().unwrap())
    }
}

impl Script {
    fn ask(&self, name: &str) -> Outcome {
        self.asked.borrow_mut().push(name.to_owned());
        let failed = |reason| Outcome { seen: Err(Error::new(reason).retry(Retry::Unsent)), rest: None };
        match self.answers.borrow().get(name).copied().unwrap_or(Answer::Status(200)) {
            Answer::Status(status) => Outcome { seen: Ok(StatusCode::from_u16(status).unwrap()), rest: None },
            Answer::Refused => failed(Reason::ConnectRefused),
            Answer::BacklogFull => failed(Reason::BacklogFull),
            Answer::Lingering => {
                let let_go = Rc::clone(&self.let_go);
                let end = Box::pin(async move { let_go.notified().await });
                Outcome { seen: Ok(StatusCode::OK), rest: Some(Rest { is_late: false, end }) }
            }
            Answer::Late => {
                let rest = Rest { is_late: true, end: Box::pin(std::future::pending()) };
                Outcome { rest: Some(rest), ..failed(Reason::HeadTimeout) }
            }
        }
    }
}

/// So many intervals of [`HEALTH`]: with a probe of each endpoint in each of them.
async fn intervals(count: u32) {
    tokio::time::sleep(Duration::from_secs(10) * count).await;
}

const TWO: &str = "endpoints: [\"unix:/nowhere/a\", \"unix:/nowhere/b\"], workers: 4";
const ONE: &str = "endpoints: [\"unix:/nowhere/a\"], workers: 1";

#[test]
fn bad_probes_take_an_endpoint_out_and_good_ones_bring_it_back() {
    paused(async || {
        let stage = Stage::new(&format!("{TWO}, {HEALTH}"));
        stage.answers("a", Answer::Status(503));
        intervals(2).await;
        assert_eq!((stage.conditions(), stage.asked("a")), (vec![Condition::Up; 2], 2));
        intervals(1).await;
        assert_eq!(stage.conditions(), [Condition::Unhealthy, Condition::Up]);
        for _ in 0..3 {
            assert_eq!(stage.enter().await.unwrap().endpoint().name(), "unix:/nowhere/b");
        }
        stage.answers("a", Answer::Status(204));
        intervals(1).await;
        assert_eq!(stage.conditions()[0], Condition::Unhealthy, "one is not two");
        intervals(1).await;
        assert_eq!(stage.conditions()[0], Condition::Up);
        assert_eq!((stage.probes("a", "failed"), stage.probes("a", "good"), stage.probes("b", "good")), (3, 2, 5));
    });
}

#[test]
fn the_last_endpoint_that_is_called_down_is_held_and_not_failed() {
    paused(async || {
        let stage = Stage::new(&format!("{ONE}, hold: 60s, {HEALTH}"));
        stage.answers("a", Answer::Status(500));
        intervals(3).await;
        assert_eq!(stage.conditions(), [Condition::Unhealthy]);
        let waiting = {
            let upstream = Arc::clone(&stage.upstream);
            tokio::task::spawn_local(async move {
                upstream.room.enter(&upstream.balance, Seek::default()).await.map(drop).map_err(|error| error.reason)
            })
        };
        intervals(1).await;
        assert!(!waiting.is_finished());
        stage.answers("a", Answer::Status(200));
        intervals(2).await;
        assert_eq!(waiting.await.unwrap(), Ok(()), "it goes on when probes succeed");
        stage.answers("a", Answer::Status(500));
        intervals(3).await;
        let begun = Instant::now();
        let error = stage.enter().await.err().unwrap();
        assert_eq!((error.reason, error.retry_after), (Reason::NoEndpoint, Some(5)));
        assert!((50..62).contains(&begun.elapsed().as_secs()), "after `hold`: {:?}", begun.elapsed());
        assert_eq!(stage.enter().await.err().unwrap().reason, Reason::NoEndpoint, "and then at once");
        stage.answers("a", Answer::Status(200));
        intervals(2).await;
        assert!(stage.enter().await.is_ok());
    });
}

#[test]
fn a_probe_never_takes_the_last_free_worker() {
    paused(async || {
        let stage = Stage::new(&format!("{ONE}, {HEALTH}"));
        stage.answers("a", Answer::Status(500));
        intervals(2).await;
        assert_eq!(stage.asked("a"), 2, "an idle upstream is asked");
        let held = stage.enter().await.unwrap();
        intervals(5).await;
        assert_eq!((stage.asked("a"), stage.probes("a", "skipped")), (0, 5));
        assert_eq!(stage.conditions(), [Condition::Up], "skipped probes say nothing");
        held.endpoint().state.served();
        intervals(1).await;
        assert_eq!(stage.probes("a", "served"), 1);
        drop(held);
        intervals(2).await;
        assert_eq!(stage.conditions(), [Condition::Up], "what was served counts as a good probe");
        intervals(1).await;
        assert_eq!(stage.conditions(), [Condition::Unhealthy]);
    });
}

#[test]
fn one_of_several_free_workers_is_left_to_users() {
    paused(async || {
        let stage = Stage::new("endpoints: [\"unix:/nowhere/a\"], workers: 3, health: { path: /up, interval: 10s }");
        stage.answers("a", Answer::Late);
        let first = stage.enter().await.unwrap();
        intervals(1).await;
        assert_eq!((stage.asked("a"), stage.upstream.room.status().in_flight), (1, 2));
        assert!(stage.enter().await.is_ok(), "the third is free");
        drop(first);
    });
}

#[test]
fn the_last_slot_of_the_upstream_is_left_to_users_as_well() {
    paused(async || {
        let stage = Stage::new(&format!("{}, {HEALTH}", TWO.replace("workers: 4", "workers: 2")));
        let _one = stage.enter().await.unwrap();
        intervals(2).await;
        assert_eq!((stage.asked("a"), stage.asked("b")), (0, 0), "whichever endpoint is idle");
    });
}

#[test]
fn who_waits_for_the_worker_that_a_probe_has_is_let_through_at_its_end() {
    paused(async || {
        let stage = Stage::new(
            "endpoints: [{ address: \"unix:/nowhere/a\", workers: 1 }, \"unix:/nowhere/b\"], workers: 1, \
             health: { path: /up, interval: 10s, fall: 1, rise: 1 }",
        );
        stage.answers("a", Answer::Status(500));
        intervals(1).await;
        let at_b = stage.enter().await.unwrap();
        stage.answers("a", Answer::Lingering);
        intervals(1).await;
        assert_eq!((stage.conditions()[0], stage.upstream.endpoints()[0].state.in_flight()), (Condition::Up, 1));
        stage.upstream.drain(&stage.upstream.endpoints()[1], true);
        drop(at_b);
        let upstream = Arc::clone(&stage.upstream);
        let waiting = tokio::task::spawn_local(async move {
            upstream
                .room
                .enter(&upstream.balance, Seek::default())
                .await
                .map(|permit| permit.endpoint().name().to_owned())
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        let begun = Instant::now();
        stage.script.let_go.notify_one();
        assert_eq!(waiting.await.unwrap().unwrap(), "unix:/nowhere/a");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    });
}

#[test]
fn an_endpoint_that_is_out_is_asked_however_busy_the_others_are() {
    paused(async || {
        let stage = Stage::new(&format!("endpoints: [\"unix:/nowhere/a\", \"unix:/nowhere/b\"], workers: 2, {HEALTH}"));
        stage.answers("a", Answer::Status(500));
        intervals(3).await;
        let _all = [stage.enter().await.unwrap(), stage.enter().await.unwrap()];
        stage.asked("a");
        stage.answers("a", Answer::Late);
        intervals(2).await;
        assert_eq!((stage.asked("a"), stage.upstream.room.status().in_flight), (2, 2), "not at the users' expense");
        assert_eq!(stage.upstream.endpoints()[0].state.in_flight(), 1, "the one before is given up");
        stage.answers("a", Answer::Status(200));
        intervals(2).await;
        assert_eq!((stage.conditions()[0], stage.upstream.endpoints()[0].state.in_flight()), (Condition::Up, 0));
    });
}

#[test]
fn a_worker_that_hangs_has_one_probe_at_most() {
    paused(async || {
        let stage = Stage::new(&format!("{TWO}, {HEALTH}"));
        stage.answers("a", Answer::Late);
        intervals(2).await;
        assert_eq!((stage.asked("a"), stage.probes("a", "failed"), stage.conditions()[0]), (1, 2, Condition::Up));
        assert_eq!(stage.upstream.room.status().in_flight, 1);
        intervals(1).await;
        assert_eq!(stage.conditions()[0], Condition::Unhealthy, "silence goes on counting");
        stage.answers("a", Answer::Status(200));
        intervals(2).await;
        assert_eq!((stage.conditions()[0], stage.upstream.room.status().in_flight), (Condition::Up, 0));
    });
}

#[test]
fn a_restart_is_no_illness_and_a_full_backlog_is_none_either() {
    paused(async || {
        let stage = Stage::new(&format!("{TWO}, {HEALTH}"));
        stage.answers("a", Answer::Refused);
        stage.answers("b", Answer::BacklogFull);
        intervals(5).await;
        assert_eq!(stage.conditions(), [Condition::Silent, Condition::Up]);
        assert_eq!((stage.asked("a"), stage.probes("b", "skipped")), (1, 5));
        assert!(!stage.upstream.endpoints()[0].state.has(Mark::Unhealthy));
    });
}

#[test]
fn a_reload_keeps_what_is_known_and_obeys_what_is_written() {
    paused(async || {
        let mut stage = Stage::new(&format!("{TWO}, {HEALTH}"));
        stage.answers("a", Answer::Status(500));
        intervals(2).await;
        let three = "endpoints: [\"unix:/nowhere/c\", \"unix:/nowhere/a\"], workers: 4";
        stage.reload(&format!("{three}, {HEALTH}"));
        intervals(1).await;
        assert_eq!(stage.conditions(), [Condition::Up, Condition::Unhealthy], "the third bad one in a row");
        assert_eq!((stage.asked("b"), stage.asked("c")), (2, 1), "one has gone, one has come");
        stage.reload(&format!("{three}, health: {{ path: /up, interval: 1s, expect: 500, rise: 1 }}"));
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(stage.conditions()[1], Condition::Up, "the new interval holds at once");
        stage.reload(&format!("{three}, {HEALTH}"));
        intervals(3).await;
        assert_eq!(stage.conditions()[1], Condition::Unhealthy);
        stage.reload(three);
        assert_eq!(stage.conditions(), [Condition::Up; 2], "nobody would call it up any more");
        stage.asked("a");
        intervals(3).await;
        assert_eq!(stage.asked("a"), 0);
    });
}

#[test]
fn an_upstream_that_goes_leaves_nobody_waiting_for_probes() {
    paused(async || {
        let mut stage = Stage::new(&format!("{ONE}, {HEALTH}"));
        stage.answers("a", Answer::Status(500));
        intervals(3).await;
        let upstream = Arc::clone(&stage.upstream);
        let waiting = tokio::task::spawn_local(async move {
            upstream.room.enter(&upstream.balance, Seek::default()).await.map(drop).is_ok()
        });
        tokio::task::yield_now().await;
        stage.probers.follow(&stage.config, &[]);
        assert!(waiting.await.unwrap());
    });
}

#[test]
fn drained_endpoints_are_asked_and_paused_upstreams_are_not() {
    paused(async || {
        let stage = Stage::new(&format!("{TWO}, {HEALTH}"));
        stage.upstream.drain(&stage.upstream.endpoints()[0], true);
        intervals(2).await;
        assert_eq!((stage.asked("a"), stage.asked("b")), (2, 2));
        stage.upstream.pause();
        intervals(2).await;
        assert_eq!((stage.asked("a"), stage.asked("b")), (0, 0));
        stage.upstream.resume();
        intervals(1).await;
        assert_eq!((stage.asked("a"), stage.asked("b")), (1, 1));
    });
}

#[test]
fn what_is_not_written_of_a_probe_is_taken_from_sites_and_listeners() {
    let config = configured(&format!("{ONE}, {HEALTH}"));
    assert_eq!((request::host(&config, 0).as_str(), request::scheme(&config, 0)), ("shop.example", Scheme::Http));
    let config = configured(&format!("{ONE}, host: api.internal, {HEALTH}"));
    assert_eq!(request::host(&config, 0), "api.internal");
    let own = HEALTH.replace("/up", "/up, host: own.example, scheme: https");
    let config = configured(&format!("{ONE}, host: api.internal, {own}"));
    assert_eq!((request::host(&config, 0).as_str(), request::scheme(&config, 0)), ("own.example", Scheme::Https));
    let mut config = configured(&format!("{ONE}, {HEALTH}"));
    assert_eq!(config.mount_of(0), None);
    config.sites[0].routes[0].mount = Some("/shop".into());
    config.sites[0].hosts.clear();
    assert_eq!(config.mount_of(0), Some("/shop"));
    assert_eq!(request::host(&config, 0), "localhost");
}
