//! Many who ask at once for what nobody has yet: the app is asked once, or as often as it has to be, and nobody waits in line for
//! an answer that is not for him. Held against what the app has counted, never against a clock.

use crate::support::cached::{
    Cached, FRESH, Setup, WORKERS, bytes, cache_status, is_hit, is_stored, run_of, seen, told, with,
};
use crate::support::h2::{OpenStream, request};
use crate::support::journal::most_at_once;
use crate::support::{Client, H2, Response};

const HERE: [u8; 4] = [127, 0, 0, 1];
const THERE: [u8; 4] = [127, 0, 0, 2];

/// A site with room for everybody.
const ROOMY: Setup<'_> =
    Setup { cache: "true", route: "", upstream: ", waiting_room: { limit: 2000 }", more: "runtime: { threads: 2 }\n" };

/// Each on a connection of its own, from two addresses in turn. All have asked when this returns.
fn crowd(site: &Cached, target: &str, count: usize) -> Vec<Client> {
    let ask = |number: usize| {
        let source = if number.is_multiple_of(2) { HERE } else { THERE };
        let mut client = Client::connect_from(source, site.gateway.address());
        client.send(bytes("GET", target, &[]));
        client
    };
    (0..count).map(ask).collect()
}

fn answers(clients: Vec<Client>) -> Vec<Response> {
    clients.into_iter().map(|mut client| client.response("GET")).collect()
}

/// The same on the streams of two connections of HTTP/2.
fn streams(site: &Cached, target: &str, count: usize) -> (Vec<H2>, Vec<OpenStream>) {
    let connections = Vec::from([HERE, THERE].map(|source| H2::connect_from(source, site.gateway.address())));
    let open = |number: usize| connections[number % 2].open(request("GET", target, &[]), true);
    let streams = (0..count).map(open).collect();
    (connections, streams)
}

/// Everybody has the page that the app has made in this run.
fn assert_all_have(answers: &[Response], run: u64) {
    for answer in answers {
        assert_eq!(run_of(answer), run, "{answer:?}");
    }
}

fn collapsed(answers: &[Response]) -> usize {
    answers.iter().filter(|answer| cache_status(answer).contains("; collapsed")).count()
}

#[test]
fn a_thousand_clients_of_two_addresses_have_the_app_run_once() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("ms", "1000")]);
    let all = answers(crowd(&site, &target, 1_000));
    assert_all_have(&all, 1);
    assert_eq!((all.len(), site.runs("page")), (1_000, 1));
    assert!(collapsed(&all) > 0 && all.iter().filter(|answer| cache_status(answer).contains("uri-miss")).count() > 0);
    site.gateway.wait_idle();
}

#[test]
fn the_streams_of_http_2_have_it_run_once_as_well() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("ms", "1000")]);
    let (_connections, streams) = streams(&site, &target, 150);
    let others = crowd(&site, &target, 50);
    let mut all: Vec<Response> = streams.into_iter().map(OpenStream::response).collect();
    all.extend(answers(others));
    assert_all_have(&all, 1);
    assert_eq!((all.len(), site.runs("page")), (200, 1));
}

#[test]
fn who_follows_gets_the_bytes_as_they_come() {
    let site = ROOMY.start();
    let size = 200_000;
    let target = told("page", &[("f", FRESH), ("size", &size.to_string()), ("half", "second")]);
    let mut all = crowd(&site, &target, 6);
    all.push({
        let mut client = site.gateway.client();
        client.send(bytes("GET", &target, &["Range: bytes=0-99"]));
        client
    });
    let part = all.pop().unwrap().response("GET");
    assert_eq!((part.status, part.body.len()), (206, 100), "the part is there before the whole is: {part:?}");
    for client in &mut all {
        // Each has its head and half of the body while the app holds the rest back.
        let (status, fields) = client.head().unwrap();
        assert_eq!(
            (status, fields.iter().find(|(name, _)| name == "content-length").unwrap().1.as_str()),
            (200, "200000")
        );
        assert_eq!(client.take(size / 2).map(|half| half.len()), Some(size / 2));
    }
    site.open("second");
    for client in &mut all {
        assert_eq!(client.take(size / 2).map(|half| half.len()), Some(size / 2));
    }
    assert_eq!(site.runs("page"), 1);
}

#[test]
fn a_leader_whose_client_leaves_goes_on_for_the_others() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("gate", "page")]);
    let mut leader = site.gateway.client();
    leader.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    let others = crowd(&site, &target, 100);
    leader.reset();
    site.gateway.access_line("the leader has left", |line| line["status"] == 499);
    site.open("page");
    assert_all_have(&answers(others), 1);
    assert!(is_hit(&site.get(&target)));
    assert_eq!(site.runs("page"), 1, "nobody had it run again");
}

#[test]
fn a_leader_whose_client_leaves_in_the_middle_of_the_body_goes_on_for_the_others() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("size", "200000"), ("half", "second")]);
    let mut leader = site.gateway.client();
    leader.send(bytes("GET", &target, &[]));
    leader.peek(1_000);
    let others = crowd(&site, &target, 50);
    leader.reset();
    site.gateway.access_line("the leader has left", |line| line["reason"] == "client_gone" || line["status"] == 499);
    site.open("second");
    for answer in answers(others) {
        assert_eq!((answer.status, answer.cut.as_deref(), answer.body.len()), (200, None, 200_000));
    }
    assert_eq!(site.runs("page"), 1);
}

#[test]
fn a_leader_that_nobody_waits_for_is_not_run_twice_for_the_next_one() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("gate", "page")]);
    let mut only = site.gateway.client();
    only.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    only.reset();
    site.gateway.access_line("it has left", |line| line["status"] == 499);
    site.open("page");
    site.gateway.wait_idle();
    let next = site.get(&target);
    assert_eq!(next.status, 200);
    assert!(site.runs("page") <= 2);
}

/// The first run fails in this way while a crowd waits for it. Nobody is left to wait, and the app is not run for each of them:
/// they hear of the failure, or of what came after it. Whoever asks next gets the page.
fn check_failing(plan: &str) {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("gate", "first"), ("plan", plan)]);
    let mut leader = site.gateway.client();
    leader.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    let crowd = crowd(&site, &target, 200);
    let (_connections, streams) = streams(&site, &target, 50);
    site.open("first");
    let mut all = answers(crowd);
    all.extend(streams.into_iter().map(OpenStream::response));
    all.push(leader.response("GET"));
    for answer in &all {
        assert!(answer.status >= 500 || run_of(answer) > 1, "{plan}: {answer:?}");
    }
    let runs = site.runs("page");
    assert!(runs <= 1 + WORKERS as usize, "{plan}: {runs} runs");
    let next = [site.get(&target), site.get(&target)];
    assert!(run_of(&next[0]) > 1 && is_hit(&next[1]), "{plan}: {next:?}");
    assert!(site.runs("page") <= runs + 1, "{plan}");
    site.gateway.wait_idle();
}

#[test]
fn where_the_leader_fails_nobody_waits_on_and_the_app_is_not_run_for_each() {
    for plan in ["500,200", "503,200", "kill,200"] {
        check_failing(plan);
    }
}

#[test]
fn where_the_leader_is_cut_nobody_takes_its_half_for_a_whole() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("size", "200000"), ("gate", "first"), ("plan", "cut,200")]);
    let mut leader = site.gateway.client();
    leader.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    let others = crowd(&site, &target, 40);
    site.open("first");
    let mut all = answers(others);
    all.push(leader.response("GET"));
    for answer in &all {
        assert_eq!((answer.status, answer.body.len() == 200_000), (200, answer.cut.is_none()), "{answer:?}");
    }
    let whole = site.get(&target);
    assert_eq!((whole.cut.as_deref(), whole.body.len()), (None, 200_000));
    assert!(is_hit(&site.get(&target)));
    assert!(site.runs("page") <= 1 + WORKERS as usize, "{} runs", site.runs("page"));
}

/// What the app gives to nobody else: everybody has one of his own, all workers work at it, and never more than those.
fn check_uncacheable(plan: &str, count: usize) {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("ms", "10"), ("plan", plan)]);
    let all = answers(crowd(&site, &target, count));
    let mut runs: Vec<u64> = all.iter().map(run_of).collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=count as u64).collect::<Vec<_>>(), "{plan}: each has his own");
    assert!(all.iter().all(|answer| !is_stored(answer)), "{plan}");
    let runs = site.gunicorn.journal().runs();
    assert_eq!(most_at_once(&runs), WORKERS as usize, "{plan}: they do not wait for each other");
}

#[test]
fn what_proves_uncacheable_is_made_for_each_and_nobody_waits_for_another() {
    check_uncacheable("private", 120);
    check_uncacheable("nostore", 120);
    check_uncacheable("cookie", 120);
    check_uncacheable("vary", 120);
}

#[test]
fn that_something_was_uncacheable_is_remembered() {
    let site = ROOMY.start();
    // `gate` counts in the key: the same page is asked for twice, first without anybody who waits.
    let target = told("page", &[("f", FRESH), ("plan", "private"), ("gate", "page")]);
    let mut first = site.gateway.client();
    first.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    let early = crowd(&site, &target, 3);
    site.open("page");
    run_of(&first.response("GET"));
    let mut runs: Vec<u64> = answers(early).iter().map(run_of).collect();
    std::fs::remove_file(site.gunicorn.counter().with_file_name("gate-page")).unwrap();
    let late = crowd(&site, &target, WORKERS as usize);
    // All of them are at work at the same time: none waits for the first.
    site.wait_runs("page", 4 + WORKERS as usize);
    site.open("page");
    runs.extend(answers(late).iter().map(run_of));
    runs.sort_unstable();
    assert_eq!(runs, (2..=4 + u64::from(WORKERS)).collect::<Vec<_>>());
}

#[test]
fn a_page_that_turns_uncacheable_and_back_is_kept_again() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("plan", "private,200")]);
    assert!(!is_stored(&site.get(&target)));
    let second = site.get(&target);
    assert!(is_stored(&second), "{second:?}");
    assert!(is_hit(&site.get(&target)));
    assert_eq!(site.runs("page"), 2);
}

#[test]
fn variants_do_not_wait_for_each_other_and_each_is_made_once() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("f", "Vary: X-Kind"), ("ms", "50")]);
    // The first shows that there are variants.
    assert!(is_stored(&site.get(&target)));
    let ask = |number: usize| {
        let mut client = site.gateway.client();
        client.send(bytes("GET", &target, &[&format!("X-Kind: {}", number % 3)]));
        client
    };
    let all = answers((0..60).map(ask).collect());
    for (number, answer) in all.iter().enumerate() {
        assert_eq!(seen(answer)["fields"]["HTTP_X_KIND"], (number % 3).to_string(), "{answer:?}");
    }
    assert_eq!(site.runs("page"), 4);
}

#[test]
fn who_is_somebody_neither_leads_nor_follows() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("gate", "page")]);
    let ask = |line: &str| {
        let mut client = site.gateway.client();
        client.send(bytes("GET", &target, &[line]));
        client
    };
    let ada = ask("Cookie: sessionid=ada");
    site.wait_runs("page", 1);
    let nobody = ask("X-Own: 1");
    site.wait_runs("page", 2);
    let bob = ask("Authorization: Basic Ym9iOmJvYg==");
    site.wait_runs("page", 3);
    site.open("page");
    let all = answers(vec![ada, nobody, bob]);
    assert_eq!(seen(&all[0])["fields"]["HTTP_COOKIE"], "sessionid=ada");
    assert!(seen(&all[1])["fields"]["HTTP_COOKIE"].is_null());
    assert_eq!(seen(&all[2])["fields"]["HTTP_AUTHORIZATION"], "Basic Ym9iOmJvYg==");
    assert!(is_stored(&all[1]) && !is_stored(&all[0]) && !is_stored(&all[2]));
    let kept = site.get(&target);
    assert!(is_hit(&kept) && kept.body == all[1].body);
}

#[test]
fn a_purge_that_comes_while_it_is_made_strikes_it() {
    let site = ROOMY.start();
    let target = told("page", &[("f", FRESH), ("f", "Surrogate-Key: page"), ("gate", "page")]);
    let mut leader = site.gateway.client();
    leader.send(bytes("GET", &target, &[]));
    site.wait_runs("page", 1);
    site.purge("tag=page");
    // Whoever comes after the purge does not get what was begun before it.
    let late = crowd(&site, &target, 1);
    site.open("page");
    run_of(&leader.response("GET"));
    assert_all_have(&answers(late), 2);
    assert_eq!(run_of(&site.get(&target)), 2);
}

#[test]
fn what_is_not_asked_for_twice_is_not_shared_with_what_looks_like_it() {
    let site = ROOMY.start();
    let targets = ["page-1", "page-2"].map(|id| with(id, &[FRESH]));
    let mut all = Vec::new();
    for target in &targets {
        all.push((target, crowd(&site, target, 20)));
    }
    for (target, crowd) in all {
        for answer in answers(crowd) {
            assert!(target.ends_with(seen(&answer)["query"].as_str().unwrap()), "{answer:?}");
        }
    }
    assert_eq!((site.runs("page-1"), site.runs("page-2")), (1, 1));
}
