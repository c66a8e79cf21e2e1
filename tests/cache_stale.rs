//! Answers that are no longer fresh: asked for again, used meanwhile, used instead of a failure; and what a POST undoes.
//!
//! Nothing here waits until something is stale: a soft purge makes it so.

use crate::support::Client;
use crate::support::cached::{
    Cached, FRESH, Setup, WORKERS, bytes, cache_status, is_hit, is_stored, run_of, seen, told, with,
};

/// A page that can be made stale.
fn tagged(id: &str, more: &[(&str, &str)]) -> String {
    let tag = format!("Surrogate-Key: {id}");
    told(id, &[&[("f", FRESH), ("f", tag.as_str())][..], more].concat())
}

/// A site that keeps this page, which is stale.
fn stale(setup: &Setup<'_>, id: &str, more: &[(&str, &str)]) -> (Cached, String) {
    let (site, target) = (setup.start(), tagged(id, more));
    assert_eq!(run_of(&site.get(&target)), 1);
    assert!(is_hit(&site.get(&target)));
    site.make_stale(id);
    (site, target)
}

const NEVER: Setup<'_> = Setup { cache: "true", route: "", upstream: "", more: "" };
const WHILE_REVALIDATE: Setup<'_> = Setup { cache: "{ stale_while_revalidate: 1h }", ..NEVER };
const IF_ERROR: Setup<'_> = Setup { cache: "{ stale_if_error: 1h }", ..NEVER };

#[test]
fn what_is_stale_is_asked_for_again_by_its_tag_and_freshened_by_a_304() {
    let (site, target) = stale(&NEVER, "page", &[("tag", "\"v1\"")]);
    let renewed = site.get(&target);
    // The body is that of the first run: the second has said that it is still good.
    assert_eq!((run_of(&renewed), site.runs("page")), (1, 2));
    let status = cache_status(&renewed);
    assert!(status.starts_with("hostler; fwd=stale; fwd-status=304") && status.contains("; stored"), "{status}");
    let after = site.get(&target);
    assert!(is_hit(&after) && run_of(&after) == 1, "{after:?}");
    assert_eq!(site.runs("page"), 2);
    // A client's own condition is answered from what was freshened.
    site.make_stale("page");
    let known = site.ask("GET", &target, &["If-None-Match: \"v1\""]);
    assert_eq!((known.status, site.runs("page")), (304, 3));
}

#[test]
fn what_is_stale_and_has_changed_is_replaced() {
    let (site, target) = stale(&NEVER, "page", &[]);
    assert_eq!((run_of(&site.get(&target)), site.runs("page")), (2, 2));
    let after = site.get(&target);
    assert!(is_hit(&after) && run_of(&after) == 2);
}

#[test]
fn stale_is_used_while_one_request_fetches_a_new_one_in_the_background() {
    let (site, target) = stale(&WHILE_REVALIDATE, "page", &[]);
    for turn in 0..20 {
        let response = site.get(&target);
        assert!(is_hit(&response), "turn {turn}: {response:?}");
        if run_of(&response) == 2 {
            break;
        }
        let status = cache_status(&response);
        // It is in the second of the purge that it has no time left.
        let has_no_time = ["; ttl=-", "; ttl=0;"].iter().any(|ttl| status.contains(ttl));
        assert!(status.contains("detail=stale") && has_no_time, "{status}");
    }
    site.wait_runs("page", 2);
    let renewed = crate::support::look_until(|| Some(site.get(&target)).filter(|response| run_of(response) == 2));
    assert!(renewed.is_some_and(|response| is_hit(&response)));
    assert_eq!(site.runs("page"), 2, "one fetch for all who came");
    assert!(site.verdicts("stale") >= 1.0);
}

#[test]
fn a_page_says_itself_how_long_it_may_be_used_stale() {
    let site = Cached::start("{ stale_while_revalidate: 1h, stale_if_error: 1h }");
    for (id, control, is_used) in [
        ("said", "max-age=3600, stale-while-revalidate=600", true),
        ("must", "max-age=3600, must-revalidate", false),
        ("proxy", "max-age=3600, proxy-revalidate", false),
        ("shared", "s-maxage=3600", false),
        ("none", "max-age=3600, stale-while-revalidate=0", false),
    ] {
        let fields = [format!("Cache-Control: {control}"), format!("Surrogate-Key: {id}")];
        let target = with(id, &fields.each_ref().map(String::as_str));
        assert!(is_stored(&site.get(&target)), "{control}");
        site.make_stale(id);
        let response = site.get(&target);
        assert_eq!((is_hit(&response), run_of(&response)), (is_used, if is_used { 1 } else { 2 }), "{control}");
    }
}

#[test]
fn stale_stands_in_for_an_app_that_fails() {
    for (plan, id) in
        [("200,500", "fails"), ("200,503", "is-full"), ("200,502", "has-no-answer"), ("200,504", "is-late")]
    {
        let (site, target) = stale(&IF_ERROR, id, &[("plan", plan)]);
        for _ in 0..2 {
            let response = site.get(&target);
            assert_eq!(run_of(&response), 1, "{plan}");
            assert!(cache_status(&response).contains("detail="), "{response:?}");
        }
        // Not where the app says what there is.
        let gone = format!("{id}-gone");
        let target = tagged(&gone, &[("plan", "200,404")]);
        assert_eq!(run_of(&site.get(&target)), 1);
        site.make_stale(&gone);
        assert_eq!(site.get(&target).status, 404, "a page that is gone is gone");
    }
    let (site, target) = stale(&NEVER, "page", &[("plan", "200,500")]);
    assert_eq!(site.get(&target).status, 500, "no window, no stale answer");
}

#[test]
fn stale_stands_in_for_an_app_that_is_not_there() {
    let setup = Setup { upstream: ", hold: 0s", ..IF_ERROR };
    let (mut site, target) = stale(&setup, "page", &[]);
    let other = with("other", &[FRESH]);
    assert!(is_stored(&site.get(&other)));
    site.gunicorn.stop();
    let response = site.get(&target);
    assert_eq!((run_of(&response), response.status), (1, 200), "{response:?}");
    assert!(is_hit(&site.get(&other)), "what is fresh does not need the app");
    assert_eq!(site.get(&with("third", &[FRESH])).status, 502);
    site.gunicorn.start_again();
    let back = crate::support::look_until(|| Some(site.get(&target)).filter(|response| run_of(response) == 2));
    assert!(back.is_some(), "and is renewed when it is there again");
}

#[test]
fn stale_is_used_where_there_is_no_place_in_the_waiting_room() {
    let setup = Setup { upstream: ", waiting_room: { limit: 1 }", ..IF_ERROR };
    let (site, target) = stale(&setup, "page", &[]);
    // All workers are busy, and the one place is taken.
    let busy = told("busy", &[("gate", "busy"), ("f", "Cache-Control: no-store")]);
    let ask = |number: u32| {
        let mut client = site.gateway.client();
        client.send(bytes("GET", &format!("{busy}&n={number}"), &[]));
        client
    };
    let mut clients: Vec<Client> = (0..WORKERS).map(ask).collect();
    site.wait_runs("busy", WORKERS as usize);
    clients.push(ask(WORKERS));
    site.gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    let response = site.get(&target);
    assert_eq!((run_of(&response), site.runs("page")), (1, 1), "{response:?}");
    let new = site.get(&with("new", &[FRESH]));
    assert_eq!(new.status, 503, "{new:?}");
    site.open("busy");
    for mut client in clients {
        assert_eq!(client.response("GET").status, 200);
    }
}

#[test]
fn a_post_that_is_done_undoes_what_was_kept_for_its_url() {
    let site = Cached::start("true");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let id = format!("page-{method}");
        let target = with(&id, &[FRESH]);
        assert_eq!(run_of(&site.get(&target)), 1);
        assert!(is_hit(&site.get(&target)));
        let posted = site.ask(method, &target, &["Content-Length: 0"]);
        assert_eq!((posted.status, seen(&posted)["method"].as_str()), (200, Some(method)));
        assert!(cache_status(&posted).contains("fwd=method"), "{posted:?}");
        let after = site.get(&target);
        assert_eq!((is_hit(&after), run_of(&after)), (false, 3), "{method}");
    }
}

#[test]
fn one_that_failed_and_what_changes_nothing_leave_it() {
    let site = Cached::start("true");
    let target = told("page", &[("f", FRESH), ("plan", "200,500,200")]);
    assert_eq!(run_of(&site.get(&target)), 1);
    assert_eq!(site.ask("POST", &target, &["Content-Length: 0"]).status, 500);
    assert!(is_hit(&site.get(&target)), "RFC 9111, 4.4: an error has changed nothing");
    assert_eq!(site.ask("OPTIONS", &target, &[]).status, 200);
    assert!(is_hit(&site.get(&target)));
}

#[test]
fn a_post_undoes_what_it_names_on_its_own_host() {
    let site = Cached::start("true");
    let list = with("list", &[FRESH]);
    let elsewhere = ["Host: other.example"];
    for location in [format!("Location: {list}"), format!("Content-Location: {list}")] {
        assert!(site.get(&list).status == 200 && is_hit(&site.get(&list)));
        site.ask("GET", &list, &elsewhere);
        assert!(is_hit(&site.ask("GET", &list, &elsewhere)));
        site.ask("POST", &told("form", &[("f", &location)]), &["Content-Length: 0"]);
        assert!(!is_hit(&site.get(&list)), "{location}");
        assert!(is_hit(&site.ask("GET", &list, &elsewhere)), "{location}: another host's is nobody's to undo");
        let far = format!("{}://other.example{list}", "http");
        site.ask("POST", &told("far", &[("f", &format!("Location: {far}"))]), &["Content-Length: 0"]);
        assert!(is_hit(&site.ask("GET", &list, &elsewhere)), "{location}: nor by its name");
    }
}
