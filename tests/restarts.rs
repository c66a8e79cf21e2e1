//! gunicorn stops, starts and dies under load: no request is lost that need not be, and none runs twice.

use crate::support::gunicorn::{Kind, Plan};
use crate::support::storm::unserved;
use crate::support::worker::Transport;
use crate::support::{Ask, Gateway, Gunicorn, Outcome, Storm, look_for, look_until};

const WORKERS: u32 = 4;
const CLIENTS: usize = 12;
const RESTARTS: usize = 3;
const KILLS: usize = 6;

fn before(gunicorn: &Gunicorn, keys: &str) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: {WORKERS}{keys}", gunicorn.endpoint()))
}

/// GET and POST in turns, the POSTs with bodies of these sizes.
fn mixed(bodies: &[usize]) -> impl Fn(usize, usize) -> Ask + Sync {
    move |client, turn| {
        let id = format!("{client}-{turn}");
        match (client + turn) % (bodies.len() + 1) {
            0 => Ask::get(id, 20),
            kind => Ask::post(id, 20, bodies[kind - 1]),
        }
    }
}

/// Waits until the storm has so many answers more.
fn go_on(storm: &Storm, count: usize) {
    let before = storm.answered();
    let went_on = look_until(|| (storm.answered() >= before + count).then_some(()));
    assert!(went_on.is_some(), "{} answers and no more", storm.answered());
}

/// Stops gunicorn and starts it again, several times, each time for as long as it takes until every client waits: at
/// most a second, as a deploy.
fn restarts(storm: &Storm, gunicorn: &mut Gunicorn, gateway: &Gateway) {
    for _ in 0..RESTARTS {
        go_on(storm, 60);
        gunicorn.stop();
        look_for(std::time::Duration::from_secs(1), || {
            let at = |gauge: &str| gateway.metric(&format!("hostler_{gauge}{{upstream=\"app\"}}"));
            (at("in_flight") + at("waiting") >= 12.0).then_some(())
        });
        gunicorn.start_again();
    }
    go_on(storm, 60);
}

fn restart_storm(transport: Transport, keys: &str, bodies: &[usize]) -> (Gunicorn, Gateway, Vec<Outcome>) {
    let mut gunicorn = Plan::new(Kind::Sync, WORKERS, transport).start();
    let gateway = before(&gunicorn, keys);
    let outcomes = Storm::during(gateway.address(), CLIENTS, mixed(bodies), |storm| {
        restarts(storm, &mut gunicorn, &gateway);
    });
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    (gunicorn, gateway, outcomes)
}

/// Every POST that was answered ran once, every other one at most once. `outcomes` are all there were.
fn check_posts(gunicorn: &Gunicorn, outcomes: &[Outcome]) {
    let times = gunicorn.journal().times_run();
    for outcome in outcomes.iter().filter(|outcome| outcome.ask.method == "POST") {
        let times = times.get(&outcome.ask.id).copied().unwrap_or(0);
        let is_right = if outcome.is_served() { times == 1 } else { times <= 1 };
        assert!(is_right, "ran {times} times: {outcome:?}");
    }
}

#[test]
fn restarts_on_a_unix_socket_lose_nothing_and_run_nothing_twice() {
    let (gunicorn, _gateway, outcomes) = restart_storm(Transport::Unix, "", &[0, 100, 300 << 10]);
    assert_eq!(unserved(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    check_posts(&gunicorn, &outcomes);
}

#[test]
fn restarts_on_tcp_lose_no_get_and_run_no_post_twice() {
    let (gunicorn, gateway, outcomes) = restart_storm(Transport::Tcp, "", &[0, 100, 300 << 10]);
    check_posts(&gunicorn, &outcomes);
    let lost: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_served()).collect();
    for outcome in &lost {
        // The kernel had shaken hands for a gunicorn that never accepted, and nothing tells that from one that did.
        let told = (outcome.ask.method, outcome.answer.as_ref().map(|answer| answer.status), outcome.reason());
        assert_eq!(told, ("POST", Some(502), Some("reset_before_head")), "{outcome:?}");
    }
    assert!(gateway.failures("app", "reset_before_head") >= lost.len() as f64);
}

#[test]
fn with_expect_restarts_on_tcp_lose_no_post_that_has_a_body() {
    let (gunicorn, _gateway, outcomes) =
        restart_storm(Transport::Tcp, ", retry: { expect: true }", &[100, 100 << 10, 300 << 10]);
    assert_eq!(unserved(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    check_posts(&gunicorn, &outcomes);
}

#[test]
fn a_killed_worker_takes_along_what_it_had_in_hand_and_nothing_else_over_unix() {
    kill_storm(Transport::Unix);
}

#[test]
fn a_killed_worker_takes_along_what_it_had_in_hand_and_nothing_else_over_tcp() {
    kill_storm(Transport::Tcp);
}

fn kill_storm(transport: Transport) {
    let gunicorn = Plan::new(Kind::Sync, WORKERS, transport).start();
    let gateway = before(&gunicorn, "");
    let outcomes = Storm::during(gateway.address(), CLIENTS, mixed(&[0, 100, 300 << 10]), |storm| {
        let mut killed = Vec::new();
        for turn in 0..KILLS {
            go_on(storm, 20);
            let alive: Vec<i32> = gunicorn.worker_pids().into_iter().filter(|pid| !killed.contains(pid)).collect();
            let pid = alive[turn * 7 % alive.len()];
            gunicorn.kill_worker(pid);
            killed.push(pid);
        }
        go_on(storm, 20);
    });
    gateway.wait_idle();
    check_posts(&gunicorn, &outcomes);
    let lost: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_served()).collect();
    assert!(lost.len() <= KILLS, "{transport:?}: {:?}", unserved(&outcomes));
    for outcome in &lost {
        // A GET is sent to another worker.
        let told = (outcome.ask.method, outcome.answer.as_ref().map(|answer| answer.status));
        assert_eq!(told, ("POST", Some(502)), "{outcome:?}");
        let reason = outcome.reason().unwrap();
        assert!(matches!(reason, "eof_before_head" | "reset_before_head"), "{outcome:?}");
    }
}

#[test]
fn an_outage_longer_than_hold_fails_fast_until_somebody_answers_again() {
    let mut gunicorn = Plan::new(Kind::Sync, 1, Transport::Unix).start();
    let gateway = before(&gunicorn, ", hold: 1s");
    gunicorn.stop();
    let ask = |id: &str| {
        let mut client = gateway.client();
        client.send(Ask::post(id, 0, 100).bytes());
        client
    };
    // The first ones are held until the second is over, whenever they came; who comes later is told at once.
    let held: Vec<_> = (0..3).map(|index| ask(&format!("held-{index}"))).collect();
    for mut client in held {
        let response = client.response("POST");
        assert_eq!(response.status, 502, "{response:?}");
        assert!(response.header("retry-after").is_some(), "{response:?}");
    }
    let response = ask("late").response("POST");
    assert_eq!(gateway.access_of(&response)["reason"], "socket_missing");
    gunicorn.start_again();
    let mut index = 0;
    let served = look_until(|| {
        index += 1;
        (ask(&format!("again-{index}")).response("POST").status == 200).then_some(())
    });
    assert!(served.is_some(), "nobody notices that it is back");
    let times = gunicorn.journal().times_run();
    assert!(times.keys().all(|id| id.starts_with("again-")), "who was told of a failure reached nobody: {times:?}");
}
