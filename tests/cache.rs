//! The cache before an app on gunicorn: what is answered without it, and what is not. Runs of the app are counted by the app.

use serde_json::json;

use crate::support::cached::{Asks, Cached, FRESH, Setup, cache_status, is_hit, is_stored, run_of, seen, told, with};
use crate::support::coding::decoded;
use crate::support::{Client, H2, Response};

/// The body of a page of this size.
fn pattern(size: usize) -> Vec<u8> {
    b"hostler\n".iter().copied().cycle().take(size).collect()
}

/// The first answer to this, which is stored, and the second, which comes from the cache.
fn twice(site: &Cached, target: &str) -> [Response; 2] {
    let answers = [site.get(target), site.get(target)];
    assert!(is_stored(&answers[0]) && is_hit(&answers[1]), "{answers:?}");
    answers
}

#[test]
fn a_page_is_made_once_and_then_told_how_old_it_is() {
    let site = Cached::start("true");
    let target = with("page", &[FRESH, "X-Own: 1"]);
    let [first, second] = twice(&site, &target);
    assert_eq!((run_of(&first), run_of(&second)), (1, 1));
    assert!(cache_status(&first).starts_with("hostler; fwd=uri-miss"), "{first:?}");
    assert!(cache_status(&second).contains("; ttl=3"), "an hour less a moment: {second:?}");
    assert_eq!((first.header("age"), first.body == second.body), (None, true));
    assert!(second.header("age").unwrap().parse::<u64>().unwrap() < 60, "{second:?}");
    for name in ["date", "content-type", "content-length", "cache-control", "x-own"] {
        assert_eq!(first.header(name), second.header(name), "{name}");
    }
    assert_ne!(first.id(), second.id());
    assert_eq!(site.runs("page"), 1);
    assert_eq!((site.verdicts("miss"), site.verdicts("hit")), (1.0, 1.0));
    assert_eq!(site.gateway.access_of(&first)["cache"], "miss");
    assert_eq!(site.gateway.access_of(&second)["cache"], "hit");
}

#[test]
fn a_route_without_a_cache_says_nothing_of_one() {
    let site = Cached::start("false");
    let target = with("page", &[FRESH]);
    for run in 1..3 {
        let response = site.get(&target);
        assert_eq!((run_of(&response), response.header("cache-status")), (run, None));
        assert!(site.gateway.access_of(&response)["cache"].is_null());
    }
}

#[test]
fn what_an_app_does_not_give_to_everybody_is_not_kept() {
    let site = Cached::start("{ default_ttl: 1h }");
    for (number, fields) in [
        &["Cache-Control: no-store"][..],
        &["Cache-Control: private, max-age=60"],
        &["Cache-Control: max-age=60", "Set-Cookie: mine=1"],
        &["Set-Cookie: mine=1"],
        &["Cache-Control: max-age=60", "Vary: *"],
        &["Cache-Control: max-age=0"],
        &["X-Accel-Expires: 0", "Cache-Control: max-age=60"],
        &["Surrogate-Control: no-store", "Cache-Control: max-age=60"],
        &["CDN-Cache-Control: no-store", "Cache-Control: max-age=60"],
        &["Expires: 0"],
        &["Content-Type: text/event-stream"],
    ]
    .into_iter()
    .enumerate()
    {
        let target = with(&format!("page-{number}"), fields);
        for run in 1..4 {
            let response = site.get(&target);
            assert_eq!((seen(&response)["run"].as_u64(), is_stored(&response)), (Some(run), false), "{fields:?}");
        }
    }
    for status in ["201", "206", "307", "403", "500", "503"] {
        let target = told(&format!("status-{status}"), &[("plan", status)]);
        assert!([site.get(&target), site.get(&target)].iter().all(|answer| !is_stored(answer)), "{status}");
        assert_eq!(site.runs(&format!("status-{status}")), 2, "{status}");
    }
}

#[test]
fn what_an_app_says_nothing_of_is_kept_as_long_as_the_route_says() {
    let site = Cached::start("{ default_ttl: 1h }");
    let [_, second] = twice(&site, &with("page", &[]));
    assert!(cache_status(&second).contains("; ttl=3"), "{second:?}");
    assert_eq!(site.runs("page"), 1);
    // Without it, nothing is.
    let site = Cached::start("true");
    let target = with("page", &[]);
    assert!(!is_stored(&site.get(&target)) && !is_hit(&site.get(&target)));
    assert_eq!(site.runs("page"), 2);
}

#[test]
fn what_is_for_the_edge_alone_stays_there() {
    let site = Cached::start("{ tags: [Surrogate-Key] }");
    let fields = ["X-Accel-Expires: 3600", "Surrogate-Control: max-age=3600", "Cache-Control: no-cache"];
    for response in twice(&site, &with("page", &fields)) {
        assert_eq!(response.header("cache-control"), Some("no-cache"));
        for name in ["x-accel-expires", "surrogate-control"] {
            assert_eq!(response.header(name), None, "{name}");
        }
    }
}

#[test]
fn a_head_is_answered_from_a_get_and_never_the_other_way_round() {
    let site = Cached::start("true");
    let target = with("page", &[FRESH]);
    let head = site.ask("HEAD", &target, &[]);
    assert_eq!((head.status, is_stored(&head)), (200, false));
    let [get, _] = twice(&site, &target);
    let h1 = site.ask("HEAD", &target, &[]);
    let h2 = site.ask_h2("HEAD", &target, &[]);
    for head in [h1, h2] {
        assert!(is_hit(&head) && head.body.is_empty(), "{head:?}");
        for name in ["content-length", "content-type", "date"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
    }
    assert_eq!(site.runs("page"), 2);
}

#[test]
fn parts_are_cut_out_of_what_is_kept_and_the_app_is_asked_for_all_of_it() {
    let site = Cached::start("true");
    let target = told("page", &[("f", FRESH), ("size", "10000"), ("tag", "\"v1\"")]);
    // The very first client wants a part, and the whole is kept.
    let first = site.ask("GET", &target, &["Range: bytes=100-199"]);
    let page = pattern(10_000);
    assert_eq!((first.status, first.header("content-range")), (206, Some("bytes 100-199/10000")));
    assert!(first.body == page[100..200] && is_stored(&first), "{first:?}");
    site.wait_kept(1);
    for (range, status, said, body) in [
        ("bytes=0-0", 206, Some("bytes 0-0/10000"), &page[..1]),
        ("bytes=9990-", 206, Some("bytes 9990-9999/10000"), &page[9990..]),
        ("bytes=-10", 206, Some("bytes 9990-9999/10000"), &page[9990..]),
        ("bytes=0-99999", 206, Some("bytes 0-9999/10000"), &page[..]),
        ("lines=1-2", 200, None, &page[..]),
    ] {
        for response in
            [site.ask("GET", &target, &[&format!("Range: {range}")]), site.ask_h2("GET", &target, &[("range", range)])]
        {
            assert_eq!((response.status, response.header("content-range")), (status, said), "{range}");
            assert!(response.body == body && is_hit(&response), "{range}: {response:?}");
            assert_eq!(response.header("etag"), Some("\"v1\""));
        }
    }
    let beyond = site.ask("GET", &target, &["Range: bytes=10000-"]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10000")));
    assert!(cache_status(&beyond).starts_with("hostler; hit"), "{beyond:?}");
    let several = site.ask("GET", &target, &["Range: bytes=0-1,9998-9999"]);
    let kind = several.header("content-type").unwrap().to_owned();
    assert_eq!((several.status, kind.starts_with("multipart/byteranges; boundary=")), (206, true), "{several:?}");
    assert_eq!(several.text().matches("Content-Range: bytes ").count(), 2);
    let renewed = site.ask("GET", &target, &["Range: bytes=0-1", "If-Range: \"v0\""]);
    assert_eq!((renewed.status, renewed.body == page), (200, true), "the rest of another one is no use");
    assert_eq!(site.runs("page"), 1);
}

#[test]
fn who_has_it_already_is_told_so_without_the_app() {
    let site = Cached::start("true");
    let target = told("page", &[("f", FRESH), ("tag", "\"v1\"")]);
    // The very first client has it, and the app is not told so: what it says is kept.
    let first = site.ask("GET", &target, &["If-None-Match: \"v1\""]);
    assert_eq!((first.status, is_stored(&first)), (304, true), "{first:?}");
    site.wait_kept(1);
    for lines in [&["If-None-Match: \"v1\""][..], &["If-None-Match: W/\"v1\""], &["If-None-Match: \"v0\", \"v1\""]] {
        let response = site.ask("GET", &target, lines);
        assert_eq!((response.status, is_hit(&response), response.body.len()), (304, true, 0), "{response:?}");
        assert_eq!((response.header("etag"), response.header("content-length")), (Some("\"v1\""), None));
    }
    let whole = site.ask("GET", &target, &["If-None-Match: \"v0\""]);
    assert_eq!((run_of(&whole), is_hit(&whole)), (1, true));
    assert!(seen(&whole)["fields"]["HTTP_IF_NONE_MATCH"].is_null(), "the app was asked for all of it");
    // What must hold before something is done is for the app alone.
    let if_match = site.ask("GET", &target, &["If-Match: \"v1\""]);
    assert_eq!(run_of(&if_match), 2);
    assert!(cache_status(&if_match).contains("fwd=bypass; ") && cache_status(&if_match).contains("precondition"));
}

#[test]
fn one_execution_is_compressed_for_each_as_he_takes_it() {
    let site = Setup { route: ", compress: true", ..Setup::default() }.start();
    let target = told("page", &[("f", FRESH), ("size", "20000"), ("tag", "\"v1\"")]);
    for (turn, coding) in ["gzip", "br", "zstd", "gzip", "br"].into_iter().enumerate() {
        let response = site.ask("GET", &target, &[&format!("Accept-Encoding: {coding}")]);
        assert_eq!(response.header("content-encoding"), Some(coding));
        assert_eq!(is_hit(&response), turn > 0, "{response:?}");
        assert!(decoded(&response) == pattern(20_000), "{coding}");
        let tag = response.header("etag").unwrap().to_owned();
        let again =
            site.ask("GET", &target, &[&format!("Accept-Encoding: {coding}"), &format!("If-None-Match: {tag}")]);
        assert_eq!((again.status, is_hit(&again)), (304, true), "{again:?}");
    }
    let plain = site.get(&target);
    assert!(plain.header("content-encoding").is_none() && plain.body == pattern(20_000) && is_hit(&plain));
    assert_eq!(site.runs("page"), 1);
}

#[test]
fn what_an_app_codes_itself_is_kept_as_it_is_for_those_who_asked_so() {
    let site = Setup { route: ", compress: false", ..Setup::default() }.start();
    let target = with("page", &[FRESH, "Content-Encoding: gzip", "Vary: Accept-Encoding"]);
    let ask = |coding: &str| site.ask("GET", &target, &[&format!("Accept-Encoding: {coding}")]);
    let first = ask("gzip, br");
    assert_eq!((first.header("content-encoding"), is_stored(&first)), (Some("gzip"), true));
    for same in ["br, gzip", "gzip;q=1.0, br", "GZIP,br"] {
        let response = ask(same);
        assert!(is_hit(&response) && response.body == first.body, "{same} means the same: {response:?}");
    }
    let other = ask("zstd");
    assert!(!is_hit(&other) && cache_status(&other).contains("vary-miss"), "{other:?}");
    assert!(is_hit(&ask("zstd")) && is_hit(&ask("gzip, br")), "both are kept");
    assert_eq!(site.runs("page"), 2);
}

#[test]
fn http_2_over_tls_hits_and_shares_nothing_with_plain_text() {
    let gunicorn = crate::support::cached::app("cache_app").start();
    let setup = Setup {
        more: "listeners:\n  - { bind: \"127.0.0.1:0\", tls: { local: true } }\n  - { bind: \"127.0.0.2:0\" }\n",
        ..Setup::default()
    };
    let site = setup.start_before(gunicorn);
    let host = format!("localhost:{}", site.gateway.address().port());
    let target = with("page", &[FRESH]);
    let h2 = H2::tls(site.gateway.address(), "localhost", &site.gateway.root());
    let ask = || {
        let request = http::Request::get(format!("https://{host}{target}")).body(()).unwrap();
        h2.send(request, b"")
    };
    let (first, second) = (ask(), ask());
    assert!(is_stored(&first) && is_hit(&second) && first.body == second.body, "{second:?}");
    let mut h1 = Client::tls(site.gateway.address(), "localhost", &site.gateway.root());
    let host_line = format!("Host: {host}");
    let third = h1.ask("GET", &target, &[host_line.as_str()]);
    assert!(is_hit(&third) && third.body == first.body, "{third:?}");
    // An app that sends plain text on to https would do so for everybody.
    let plain = Client::connect(site.gateway.listener("127.0.0.2:0")).ask("GET", &target, &[host_line.as_str()]);
    assert_eq!((is_hit(&plain), run_of(&plain)), (false, 2), "{plain:?}");
    assert_eq!((&seen(&first)["scheme"], &seen(&plain)["scheme"]), (&json!("https"), &json!("http")));
}

#[test]
fn a_reload_keeps_what_is_there() {
    let gunicorn = crate::support::cached::app("cache_app").start();
    let before = Setup { cache: "{ stale_if_error: 1m }", ..Setup::default() };
    let config = before.config(&gunicorn);
    let site = before.start_before(gunicorn);
    let target = with("page", &[FRESH]);
    twice(&site, &target);
    site.gateway.reload(&config);
    assert!(is_hit(&site.get(&target)), "the same configuration");
    let more = "cache: { memory: 32MiB, purge: [127.0.0.1/32] }\n";
    let after = Setup { cache: "{ stale_if_error: 1h, default_ttl: 5s }", more, ..Setup::default() };
    site.gateway.reload(&after.config(&site.gunicorn));
    assert!(is_hit(&site.get(&target)), "another time, and another size");
    site.gateway.reload(&Setup { cache: "false", ..after.clone() }.config(&site.gunicorn));
    assert_eq!(site.get(&target).header("cache-status"), None, "none");
    site.gateway.reload(&after.config(&site.gunicorn));
    assert_eq!(site.get(&target).status, 200);
}

#[test]
fn an_answer_that_is_cut_short_is_nobody_elses() {
    let site = Setup { upstream: ", retry: { attempts: 0 }", ..Setup::default() }.start();
    let size = 300_000;
    let target = told("page", &[("f", FRESH), ("size", &size.to_string()), ("plan", "cut,cut,200")]);
    for run in 1..3 {
        let cut = site.get(&target);
        assert!(cut.cut.is_some() && cut.body.len() < size, "run {run}: {} bytes", cut.body.len());
    }
    let whole = site.get(&target);
    assert!(whole.cut.is_none() && whole.body == pattern(size) && is_stored(&whole));
    assert!(is_hit(&site.get(&target)));
    assert_eq!(site.runs("page"), 3);
}

#[test]
fn nothing_but_what_is_kept_is_answered_where_only_that_is_asked_for() {
    let site = Cached::start("true");
    let target = with("page", &[FRESH]);
    let only = ["Cache-Control: only-if-cached"];
    let nothing = site.ask("GET", &target, &only);
    assert_eq!((nothing.status, site.runs("page")), (504, 0), "{nothing:?}");
    assert!(cache_status(&nothing).contains("only-if-cached"), "{nothing:?}");
    twice(&site, &target);
    assert!(is_hit(&site.ask("GET", &target, &only)));
}

#[test]
fn clients_cannot_have_the_app_asked_unless_the_route_lets_them() {
    for (cache, obeys) in [("true", false), ("{ obey_clients: true }", true)] {
        let site = Cached::start(cache);
        let target = with("page", &[FRESH]);
        twice(&site, &target);
        for line in ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"] {
            assert_eq!(is_hit(&site.ask("GET", &target, &[line])), !obeys, "{cache}: {line}");
        }
        // To have nothing of it kept is anybody's right, and takes nothing away.
        let other = with("other", &[FRESH]);
        assert!(!is_stored(&site.ask("GET", &other, &["Cache-Control: no-store"])), "{cache}");
        assert!(!is_hit(&site.get(&other)), "{cache}");
    }
}

#[test]
fn large_answers_go_to_disk_and_come_back_whole_and_in_parts() {
    let more = "cache: { memory: 8MiB, disk: { path: \"@folder@/cache\", size: 128MiB }, max_object: 32MiB }\n";
    let site = Setup { more, ..Setup::default() }.start();
    let size = 12_000_000;
    let target = told("page", &[("f", FRESH), ("size", &size.to_string())]);
    let page = pattern(size);
    let first = site.get(&target);
    assert!(first.body == page && is_stored(&first));
    // It is there when the last of it is written.
    site.gateway.wait_metric("hostler_cache_objects{where=\"disk\"}", 1.0);
    for response in [site.get(&target), site.ask_h2("GET", &target, &[])] {
        assert!(is_hit(&response) && response.cut.is_none() && response.body == page, "{}", response.body.len());
    }
    let part = site.ask("GET", &target, &["Range: bytes=7000000-7000099"]);
    assert!(part.status == 206 && is_hit(&part) && part.body == page[7_000_000..7_000_100]);
    // Larger than what is kept: it passes.
    let huge = told("huge", &[("f", FRESH), ("size", "40000000")]);
    for _ in 0..2 {
        let response = site.get(&huge);
        assert!(response.body == pattern(40_000_000) && !is_hit(&response) && response.cut.is_none());
    }
    assert_eq!((site.runs("page"), site.runs("huge")), (1, 2));
}
