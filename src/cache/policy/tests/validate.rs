//! Asking whether what is stored is still good (4.3), and what a 304 changes of it (3.2, 4.3.4).

use super::*;

/// What is stored, the answer a minute later, and what it means. `kept` tells when what is fresh again ends, in seconds from
/// then.
fn outcome(rules: &Rules, first: &str, second: &str) -> (String, Vec<String>) {
    outcome_for("GET", rules, first, second)
}

/// The same for another client than an anonymous one.
fn outcome_for(client: &str, rules: &Rules, first: &str, second: &str) -> (String, Vec<String>) {
    let storable = stored(first, rules);
    let (status, headers) = answer(second);
    let later = STEADY + 60_000;
    let times = Times { requested: later, received: later, wall: WALL + 60 };
    let (method, fields) = request(client);
    let asked = Asked::of(&method, &fields, Context::default(), rules);
    match validated(&asked, status, &headers, (&storable.stored, &storable.fields), &times, rules) {
        Validated::Fresh { fields, first, stored } => {
            let kept = match stored {
                Ok(stored) => format!("kept for {}", stored.ttl(later)),
                Err(refusal) => format!("dropped: {}", refusal.as_str()),
            };
            let first = if first.is_empty() { String::new() } else { format!(", first: {}", lines(&first).join("; ")) };
            (kept + &first, lines(&fields))
        }
        Validated::Once { fields, first } => {
            let first =
                if first.is_empty() { String::new() } else { format!(", first: {}", super::lines(&first).join("; ")) };
            (format!("once{first}"), super::lines(&fields))
        }
        Validated::Other => ("other".into(), vec![]),
        Validated::Failed => ("stale instead".into(), vec![]),
        Validated::Passed => ("passed on".into(), vec![]),
        Validated::New(Ok(_)) => ("new".into(), vec![]),
        Validated::New(Err(refusal)) => (format!("new, not stored: {}", refusal.as_str()), vec![]),
    }
}

#[test]
fn the_app_is_asked_by_all_that_is_known() {
    let asks = |text: &str| {
        let fields = conditions(&fields_of(text));
        fields
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>()
    };
    for (stored, expected) in [
        ("", &[][..]),
        ("etag: \"a\"", &["if-none-match: \"a\""]),
        ("etag: W/\"a\"", &["if-none-match: W/\"a\""]),
        ("etag: a", &[]),
        ("last-modified: Sun, 06 Nov 1994 08:49:37 GMT", &["if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"]),
        ("last-modified: yesterday", &[]),
        (
            "last-modified: Sun, 06 Nov 1994 08:49:37 GMT | etag: \"a\"",
            &["if-none-match: \"a\"", "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"],
        ),
    ] {
        assert_eq!(asks(stored), expected, "4.3.1: {stored}");
    }
}

#[test]
fn an_answer_is_about_what_is_stored_or_about_something_else() {
    let rules = Rules::default();
    for (first, second, expected, section) in [
        ("etag: \"a\"", "304 | etag: \"a\"", "kept for 10", "4.3.4"),
        ("etag: \"a\"", "304 | etag: \"b\"", "other", "4.3.4"),
        ("etag: \"a\"", "304 | etag: W/\"a\"", "kept for 10", "4.3.4: weak"),
        ("etag: W/\"a\"", "304 | etag: W/\"a\"", "kept for 10", "4.3.4: weak"),
        ("etag: W/\"a\"", "304 | etag: \"a\"", "kept for 10", "4.3.4: strong wants strong, and changes no field"),
        ("etag: a", "304 | etag: a", "kept for 10", "without quotes"),
        ("etag: a", "304 | etag: b", "other", "without quotes"),
        ("last-modified: {-60}", "304 | last-modified: {-60}", "kept for 10", "4.3.4"),
        ("last-modified: {-60}", "304 | last-modified: {-50}", "other", "4.3.4"),
        ("last-modified: {-60}", "304 | etag: \"a\"", "other", "4.3.4"),
        (
            "etag: \"a\" | last-modified: {-60}",
            "304 | etag: \"a\" | last-modified: {-50}",
            "kept for 10",
            "the tag goes first",
        ),
        ("etag: \"a\"", "304", "kept for 10", "4.3.3: there is only one"),
        ("x: 1", "304", "kept for 10", "4.3.4: none has any"),
        ("etag: \"a\"", "200 | cache-control: max-age=5", "new", "4.3.3"),
        ("etag: \"a\"", "200", "new, not stored: no-freshness", "4.3.3"),
        ("etag: \"a\"", "200 | cache-control: no-store", "new, not stored: no-store", "4.3.3"),
        ("etag: \"a\"", "404 | cache-control: max-age=5", "new", "4.3.3"),
        ("etag: \"a\"", "410", "new, not stored: no-freshness", "4.3.3"),
        ("etag: \"a\"", "501", "new, not stored: no-freshness", "RFC 5861, 4: not among them"),
        ("etag: \"a\"", "500", "passed on", "4.3.3"),
        ("etag: \"a\"", "503", "passed on", "4.3.3"),
        ("etag: \"a\"", "504 | cache-control: max-age=5", "passed on", "4.3.3"),
    ] {
        let first = format!("200 | cache-control: max-age=10 | {first}");
        assert_eq!(outcome(&rules, &first, second).0, expected, "{section}: {first} -> {second}");
    }
    for (control, status, expected) in [
        ("max-age=10, stale-if-error=60", 500, "stale instead"),
        ("max-age=10, stale-if-error=60", 502, "stale instead"),
        ("max-age=10, stale-if-error=60", 503, "stale instead"),
        ("max-age=10, stale-if-error=60", 504, "stale instead"),
        ("max-age=10, stale-if-error=60", 501, "new, not stored: no-freshness"),
        ("max-age=10, stale-if-error=60", 404, "new, not stored: no-freshness"),
        ("max-age=10, stale-if-error=49", 503, "passed on"),
        ("max-age=10, stale-if-error=60, must-revalidate", 503, "passed on"),
        ("no-cache, stale-if-error=60", 503, "passed on"),
    ] {
        let first = format!("200 | etag: \"a\" | cache-control: {control}");
        assert_eq!(outcome(&rules, &first, &status.to_string()).0, expected, "RFC 5861, 4: {control} {status}");
    }
}

#[test]
fn a_304_is_a_new_word_on_how_long_it_is_good() {
    let rules = Rules::default();
    let tag = "etag: \"a\"";
    for (first, second, expected) in [
        ("cache-control: max-age=10", "", "kept for 10"),
        ("cache-control: max-age=10", "cache-control: max-age=99", "kept for 99"),
        ("cache-control: max-age=10", "cache-control: max-age=10 | age: 4", "kept for 6"),
        ("cache-control: max-age=10", "date: {57}", "kept for 7"),
        ("expires: {10}", "expires: {90}", "kept for 30"),
        ("expires: {10}", "date: {60} | expires: {90}", "kept for 30"),
        // Expires stays where it is: it is past.
        ("expires: {10}", "", "kept for 0"),
        ("cache-control: max-age=10", "cache-control: no-store", "dropped: no-store"),
        ("cache-control: max-age=10", "cache-control: private", "dropped: private"),
        ("cache-control: max-age=10", "cache-control: no-cache", "kept for 0"),
        ("cache-control: max-age=10", "vary: accept", "dropped: vary-changed"),
        ("cache-control: max-age=10 | vary: accept", "vary: Accept", "kept for 10"),
        ("cache-control: max-age=10 | vary: accept", "", "kept for 10"),
        ("cache-control: max-age=10 | vary: accept", "vary: *", "dropped: vary-changed"),
        ("cache-control: max-age=10 | vary: accept, cookie", "vary: cookie", "kept for 10"),
        ("cache-control: max-age=10 | vary: cookie", "vary: cookie, accept", "dropped: vary-changed"),
        (
            "x-accel-expires: 10 | cache-control: private",
            "x-accel-expires: @1 | cache-control: private",
            "dropped: private",
        ),
        ("cache-control: max-age=10", "set-cookie: a=1", "dropped: set-cookie, first: set-cookie: a=1"),
        (
            "cache-control: max-age=10",
            "cache-control: max-age=20, no-cache=\"set-cookie\" | set-cookie: a=1",
            "kept for 20, first: set-cookie: a=1",
        ),
        ("cache-control: max-age=10, private=\"x-a\" | x-a: 1", "x-a: 2", "kept for 10, first: x-a: 2"),
        // What was said to the edge alone still counts, because it is not stored.
        ("x-accel-expires: 10", "", "kept for 10"),
        ("x-accel-expires: 10 | cache-control: private", "cache-control: private", "kept for 10"),
        ("x-accel-expires: 10", "x-accel-expires: 20", "kept for 20"),
        ("x-accel-expires: 10", "x-accel-expires: 0", "dropped: x-accel-expires"),
        ("x-accel-expires: @1800000010", "", "kept for 0"),
        ("x-accel-expires: 10", "cdn-cache-control: max-age=30", "kept for 30"),
        ("surrogate-control: max-age=10 | cache-control: max-age=3600", "", "kept for 10"),
        ("surrogate-control: max-age=10", "surrogate-control: max-age=20", "kept for 20"),
        ("surrogate-control: max-age=10 | cache-control: max-age=3600", "cache-control: max-age=50", "kept for 10"),
    ] {
        let outcome = outcome(&rules, &format!("200 | {tag} | {first}"), &format!("304 | {tag} | {second}"));
        assert_eq!(outcome.0, expected, "4.3.4: {first} -> {second}");
    }
    // What has nothing to be told by changes no field, and is obeyed where it forbids.
    for (second, expected) in [
        ("304 | cache-control: max-age=99", "kept for 10"),
        ("304 | cache-control: no-store", "dropped: no-store"),
        ("304 | cache-control: private", "dropped: private"),
        ("304 | set-cookie: a=1", "dropped: set-cookie, first: set-cookie: a=1"),
        ("304 | x-accel-expires: 0", "dropped: x-accel-expires"),
    ] {
        let outcome = outcome(&rules, &format!("200 | {tag} | cache-control: max-age=10"), second);
        assert_eq!(outcome.0, expected, "4.3.4: {second}");
    }
    let micro = micro(10);
    assert_eq!(outcome(&micro, &format!("200 | {tag}"), &format!("304 | {tag}")).0, "kept for 10");
}

#[test]
fn a_304_replaces_fields_but_those_of_the_bytes() {
    let rules = Rules::default();
    let first = "200 | cache-control: max-age=10 | etag: W/\"a\" | date: {0} | content-type: text/plain | content-encoding: gzip \
                 | content-length: 5 | content-digest: x | x-stays: 1 | x-goes: 1 | x-goes: 2 | last-modified: {-60}";
    let second = "304 | cache-control: max-age=20 | etag: W/\"a\" | date: {60} | content-type: text/html | content-encoding: br \
                  | content-length: 0 | content-digest: y | x-goes: 3 | x-new: 4 | connection: x-hop | x-hop: 5 | set-cookie2: a";
    let (kept, lines) = outcome(&rules, first, second);
    assert_eq!(kept, "kept for 20");
    assert_eq!(
        lines,
        [
            "cache-control: max-age=20",
            "content-digest: x",
            "content-encoding: gzip",
            "content-type: text/html",
            "date: Fri, 15 Jan 2027 08:01:00 GMT",
            "etag: W/\"a\"",
            "last-modified: Fri, 15 Jan 2027 07:59:00 GMT",
            "x-goes: 3",
            "x-new: 4",
            "x-stays: 1",
        ]
    );
    // What has nothing to be told by changes nothing (4.3.4: MUST NOT), and is still a word of the app.
    let (kept, lines) =
        outcome(&rules, "200 | cache-control: max-age=10 | etag: \"a\" | date: {0} | x-a: 1", "304 | x-a: 2");
    assert_eq!(kept, "kept for 10");
    assert_eq!(lines, ["cache-control: max-age=10", "date: Fri, 15 Jan 2027 08:00:00 GMT", "etag: \"a\"", "x-a: 1"]);
}

#[test]
fn what_somebody_is_told_is_told_to_nobody_else() {
    let rules = public();
    let first = "200 | etag: \"a\" | cache-control: public, max-age=10 | x-user: nobody";
    for (client, second, expected, user) in [
        ("GET | cookie: sessionid=bob", "304 | etag: \"a\" | x-user: bob", "once", "nobody"),
        ("GET | authorization: bob", "304 | etag: \"a\" | x-user: bob", "once", "nobody"),
        (
            "GET | cookie: sessionid=bob",
            "304 | etag: \"a\" | set-cookie: a=1",
            "once, first: set-cookie: a=1",
            "nobody",
        ),
        (
            "GET | cookie: sessionid=bob",
            "304 | etag: \"a\" | cache-control: public, max-age=10 | set-cookie: a=1",
            "once, first: set-cookie: a=1",
            "nobody",
        ),
        ("GET | cookie: sessionid=bob", "304 | etag: \"a\" | cache-control: private", "once", "nobody"),
        ("GET | cache-control: no-store", "304 | etag: \"a\" | x-user: secret", "once", "nobody"),
        (
            "GET | cookie: sessionid=bob",
            "304 | etag: \"a\" | cache-control: public, max-age=10 | x-user: all",
            "kept for 10",
            "all",
        ),
        ("GET", "304 | etag: \"a\" | x-user: all", "kept for 10", "all"),
        ("GET | cookie: sessionid=bob", "200 | x-user: bob", "new, not stored: credentials", ""),
        ("GET | cookie: sessionid=bob", "200 | set-cookie: a=1", "new, not stored: credentials", ""),
    ] {
        let (outcome, fields) = outcome_for(client, &rules, first, second);
        assert_eq!(outcome, expected, "{client}: {second}");
        let told = fields.iter().find_map(|line| line.strip_prefix("x-user: ")).unwrap_or("");
        assert_eq!(told, user, "{client}: {second}");
    }
    assert!(!Refusal::Credentials.is_of_the_response() && !Refusal::VaryChanged.is_of_the_response());
}

#[test]
fn a_soft_purge_does_not_shorten_what_the_edge_was_told() {
    let rules = Rules::default();
    let storable = stored("200 | etag: \"a\" | x-accel-expires: 100", &rules);
    let purged = storable.stored.expired(STEADY + 5000);
    let later = STEADY + 60_000;
    let times = Times { requested: later, received: later, wall: WALL + 60 };
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    let (status, headers) = answer("304 | etag: \"a\"");
    match validated(&asked, status, &headers, (&purged, &storable.fields), &times, &rules) {
        Validated::Fresh { stored: Ok(stored), .. } => assert_eq!(stored.ttl(later), 100),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_to_head_tells_whether_it_is_another_one() {
    let kept = fields_of("etag: \"a\" | last-modified: {-60}");
    for (text, expected) in [
        ("200", Head::Same),
        ("200 | etag: \"a\"", Head::Same),
        ("200 | etag: \"b\"", Head::Changed),
        ("200 | last-modified: {-60}", Head::Same),
        ("200 | last-modified: {-50}", Head::Changed),
        ("200 | etag: \"a\" | content-length: 5", Head::Same),
        ("200 | etag: \"a\" | content-length: 6", Head::Changed),
        ("200 | content-length: x", Head::Same),
        ("410 | etag: \"b\"", Head::Nothing),
        ("500", Head::Nothing),
        ("304 | etag: \"b\"", Head::Nothing),
    ] {
        let (status, headers) = answer(text);
        assert_eq!(head(status, &headers, &kept, Some(5)), expected, "4.3.5: {text}");
    }
    let (status, headers) = answer("200 | content-length: 6");
    assert_eq!(head(status, &headers, &kept, None), Head::Same, "not yet known");
}
