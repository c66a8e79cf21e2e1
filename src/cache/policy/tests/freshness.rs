//! How long a response is fresh, and whose word counts.

use super::*;

const OK: &str = "GET";

#[test]
fn a_response_is_fresh_until_its_time_is_over() {
    check(
        &Rules::default(),
        &[
            (OK, "200 | cache-control: max-age=60", "", 0, "hit", "4.2.1"),
            (OK, "200 | cache-control: max-age=60", "", 59, "hit", "4.2.1"),
            (OK, "200 | cache-control: max-age=60 | etag: \"a\"", "", 60, "revalidate", "4.2"),
            (OK, "200 | cache-control: max-age=60 | etag: \"a\"", "", 61, "revalidate", "4.2"),
            (OK, "200 | cache-control: max-age=60", "", 61, "revalidate", "4.2"),
            (OK, "200 | cache-control: max-age=0 | etag: \"a\"", "", 0, "revalidate", "4.2.1"),
            (OK, "200 | cache-control: max-age=0", "", 0, "not stored: stale", "3"),
            (OK, "200 | expires: {60} | date: {0}", "", 59, "hit", "5.3"),
            (OK, "200 | expires: {60} | date: {0}", "", 60, "revalidate", "5.3"),
            (OK, "200 | expires: {60}", "", 59, "hit", "5.3: without Date"),
            (OK, "200 | expires: {0} | date: {0}", "", 0, "not stored: stale", "5.3"),
            (OK, "200 | expires: {-60} | date: {0}", "", 0, "not stored: stale", "5.3"),
            (OK, "200 | expires: 0 | etag: \"a\"", "", 0, "revalidate", "5.3"),
            (OK, "200 | expires: -1 | etag: \"a\"", "", 0, "revalidate", "5.3"),
            (OK, "200 | expires: 60 | etag: \"a\"", "", 0, "revalidate", "5.3"),
            (OK, "200 | expires: never | etag: \"a\"", "", 0, "revalidate", "5.3"),
            // Both clocks of the app are wrong in the same way.
            (OK, "200 | expires: {3660} | date: {3600}", "", 59, "hit", "4.2.1"),
            (OK, "200 | expires: {3660} | date: {3600}", "", 60, "revalidate", "4.2.1"),
            // Nobody says anything.
            (OK, "200", "", 0, "not stored: no-freshness", "3"),
            (OK, "200 | etag: \"a\"", "", 0, "not stored: no-freshness", "3"),
            (OK, "200 | last-modified: {-86400}", "", 0, "not stored: no-freshness", "4.2.2, off"),
            (OK, "200 | cache-control: public", "", 0, "not stored: no-freshness", "5.2.2.9"),
            (OK, "200 | cache-control: no-transform", "", 0, "not stored: no-freshness", "3"),
        ],
    );
}

#[test]
fn the_first_word_that_is_there_counts() {
    check(
        &Rules::default(),
        &[
            (OK, "200 | cache-control: max-age=60 | expires: {10}", "", 30, "hit", "5.3: max-age goes before Expires"),
            (OK, "200 | cache-control: max-age=60 | expires: {-10}", "", 30, "hit", "5.3"),
            (OK, "200 | cache-control: max-age=10 | expires: {60}", "", 30, "revalidate", "5.3"),
            (OK, "200 | cache-control: max-age=0 | expires: {60} | etag: \"a\"", "", 0, "revalidate", "5.3"),
            (OK, "200 | cache-control: max-age=60 | expires: 0", "", 30, "hit", "5.3"),
            (
                OK,
                "200 | cache-control: s-maxage=60, max-age=1",
                "",
                30,
                "hit",
                "5.2.2.10: s-maxage goes before max-age",
            ),
            (OK, "200 | cache-control: max-age=60, s-maxage=1", "", 30, "revalidate", "5.2.2.10"),
            (OK, "200 | cache-control: max-age=60, s-maxage=0 | etag: \"a\"", "", 0, "revalidate", "5.2.2.10"),
            (OK, "200 | cache-control: s-maxage=60 | expires: {-10}", "", 30, "hit", "5.2.2.10"),
            (OK, "200 | cdn-cache-control: max-age=60 | cache-control: max-age=1", "", 30, "hit", "RFC 9213, 2.2"),
            (
                OK,
                "200 | cdn-cache-control: max-age=1 | cache-control: max-age=60",
                "",
                30,
                "revalidate",
                "RFC 9213, 2.2",
            ),
            (OK, "200 | cdn-cache-control: max-age=60 | cache-control: s-maxage=1", "", 30, "hit", "RFC 9213, 2.2"),
            (OK, "200 | cdn-cache-control: max-age=60 | expires: {-1}", "", 30, "hit", "RFC 9213, 2.2"),
            (
                OK,
                "200 | cdn-cache-control: max-age=60 | surrogate-control: max-age=1",
                "",
                30,
                "hit",
                "CDN-Cache-Control first",
            ),
            (
                OK,
                "200 | surrogate-control: max-age=60 | cache-control: max-age=1",
                "",
                30,
                "hit",
                "Surrogate-Control first",
            ),
            (
                OK,
                "200 | surrogate-control: max-age=1 | cache-control: s-maxage=60",
                "",
                30,
                "revalidate",
                "Surrogate-Control first",
            ),
            (OK, "200 | x-accel-expires: 60 | cdn-cache-control: max-age=1", "", 30, "hit", "X-Accel-Expires first"),
            (OK, "200 | x-accel-expires: 60 | surrogate-control: max-age=1", "", 30, "hit", "X-Accel-Expires first"),
            (OK, "200 | x-accel-expires: 60 | cache-control: max-age=1", "", 30, "hit", "X-Accel-Expires first"),
            (OK, "200 | x-accel-expires: 60 | expires: {-1}", "", 30, "hit", "X-Accel-Expires first"),
            (OK, "200 | x-accel-expires: 1 | cache-control: max-age=60", "", 30, "revalidate", "X-Accel-Expires first"),
            // Nobody says how long in the field that counts.
            (
                OK,
                "200 | cdn-cache-control: public | cache-control: max-age=60",
                "",
                0,
                "not stored: no-freshness",
                "RFC 9213, 2.2",
            ),
        ],
    );
}

#[test]
fn nginxs_field_is_read_as_nginx_reads_it_and_what_it_cannot_read_is_no() {
    check(
        &Rules::default(),
        &[
            (OK, "200 | x-accel-expires: 60", "", 59, "hit", "nginx"),
            (OK, "200 | x-accel-expires: 60", "", 60, "revalidate", "nginx"),
            (OK, "200 | x-accel-expires: @1800000060", "", 59, "hit", "nginx"),
            (OK, "200 | x-accel-expires: @1800000060", "", 60, "revalidate", "nginx"),
            (OK, "200 | x-accel-expires: @1799999999", "", 0, "not stored: stale", "nginx"),
            (OK, "200 | x-accel-expires: 0 | cache-control: max-age=60", "", 0, "not stored: x-accel-expires", "nginx"),
            (
                OK,
                "200 | x-accel-expires: off | cache-control: max-age=60",
                "",
                0,
                "not stored: x-accel-expires",
                "nginx",
            ),
            (
                OK,
                "200 | x-accel-expires: -1 | cache-control: max-age=60",
                "",
                0,
                "not stored: x-accel-expires",
                "unreadable",
            ),
            (
                OK,
                "200 | x-accel-expires: 1m | cache-control: max-age=60",
                "",
                0,
                "not stored: x-accel-expires",
                "unreadable",
            ),
            (
                OK,
                "200 | x-accel-expires: | cache-control: max-age=60",
                "",
                0,
                "not stored: x-accel-expires",
                "unreadable",
            ),
            (
                OK,
                "200 | x-accel-expires: @ | cache-control: max-age=60",
                "",
                0,
                "not stored: x-accel-expires",
                "unreadable",
            ),
            (OK, "200 | x-accel-expires: 99999999999999999999999", "", 2_000_000_000, "hit", "1.2.2"),
            (OK, "200 | x-accel-expires: 60 | x-accel-expires: 10", "", 30, "revalidate", "the shorter"),
            (OK, "200 | x-accel-expires: 60 | x-accel-expires: 0", "", 0, "not stored: x-accel-expires", "the shorter"),
            // What is said to browsers does not count then.
            (OK, "200 | x-accel-expires: 60 | cache-control: no-store", "", 30, "hit", "nginx"),
            (OK, "200 | x-accel-expires: 60 | cache-control: no-cache", "", 30, "hit", "nginx"),
            (OK, "200 | x-accel-expires: 60 | cache-control: private, max-age=0", "", 30, "hit", "nginx"),
            // What makes a response somebody's does.
            (OK, "200 | x-accel-expires: 60 | set-cookie: a=1", "", 0, "not stored: set-cookie", "nginx"),
            (OK, "200 | x-accel-expires: 60 | vary: *", "", 0, "not stored: vary", "nginx"),
            ("GET | authorization: x", "200 | x-accel-expires: 60", "", 0, "not stored: credentials", "3.5"),
        ],
    );
}

#[test]
fn a_time_that_is_over_sets_no_prohibition_aside() {
    let rules = Rules { stale_if_error: Duration::from_secs(60), ..Rules::default() };
    let private = "200 | etag: \"a\" | x-accel-expires: @1799999999 | cache-control: private";
    check(
        &rules,
        &[
            (OK, private, "", 0, "not stored: private", "5.2.2.7"),
            (OK, "200 | x-accel-expires: 3600 | x-accel-expires: @1800000001", "", 2, "revalidate", "the shorter"),
            (OK, "200 | x-accel-expires: @1800003600 | x-accel-expires: 1", "", 2, "revalidate", "the shorter"),
        ],
    );
}

#[test]
fn what_the_edge_decides_is_counted_from_the_arrival() {
    let rules = micro(1);
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    // A page that takes a second and a half, of an app whose clock is behind.
    let slow = Times { requested: STEADY - 1500, received: STEADY, wall: WALL };
    for (text, is_kept) in [
        ("200 | date: {-3}", true),
        ("200 | x-accel-expires: 1 | date: {-3}", true),
        ("200 | cache-control: max-age=1", false),
    ] {
        let (status, headers) = answer(text);
        match storable(&asked, status, &headers, &slow, &rules) {
            Ok(storable) => {
                assert!(is_kept, "{text}");
                assert!(storable.stored.is_fresh(STEADY + 999) && !storable.stored.is_fresh(STEADY + 1000));
                assert!(storable.stored.age_seconds(STEADY) >= 1, "its age is told as it is");
            }
            Err(refusal) => {
                assert!(!is_kept, "{text}: {refusal:?}");
                assert!(!refusal.is_of_the_response(), "the next one may be quicker");
            }
        }
    }
}

#[test]
fn the_default_is_for_anonymous_clients_and_what_says_nothing() {
    let no = "not stored: no-freshness";
    check(
        &micro(10),
        &[
            (OK, "200", "", 9, "hit", "default_ttl"),
            (OK, "200", "", 10, "revalidate", "default_ttl"),
            (OK, "301", "", 9, "hit", "nginx: 200, 301, 302"),
            (OK, "302", "", 9, "hit", "nginx: 200, 301, 302"),
            (OK, "200", "HEAD", 9, "hit", "4: HEAD from GET"),
            (OK, "204", "", 0, no, "nginx: 200, 301, 302"),
            (OK, "307", "", 0, no, "nginx: 200, 301, 302"),
            (OK, "404", "", 0, no, "nginx: 200, 301, 302"),
            (OK, "500", "", 0, no, "nginx: 200, 301, 302"),
            (OK, "200 | cache-control: max-age=60", "", 30, "hit", "what is said goes first"),
            (OK, "200 | cache-control: max-age=1", "", 5, "revalidate", "what is said goes first"),
            (OK, "200 | expires: 0", "", 0, "not stored: stale", "what is said goes first"),
            (OK, "404 | cache-control: max-age=60", "", 30, "hit", "what is said goes first"),
            (OK, "200 | cache-control: no-store", "", 0, "not stored: no-store", "5.2.2.5"),
            (OK, "200 | cache-control: private", "", 0, "not stored: private", "5.2.2.7"),
            (OK, "200 | cache-control: no-cache", "", 0, no, "5.2.2.4"),
            (OK, "200 | cache-control: no-cache | etag: \"a\"", "", 0, "revalidate: no-cache", "5.2.2.4"),
            (OK, "200 | pragma: no-cache", "", 0, no, "says no in old words"),
            (OK, "200 | set-cookie: a=1", "", 0, "not stored: set-cookie", "nginx"),
            (OK, "200 | set-cookie: a=1 | cache-control: no-cache=\"set-cookie\"", "", 0, no, "never with Set-Cookie"),
            (OK, "200 | vary: *", "", 0, "not stored: vary", "4.1"),
            (OK, "200 | vary: accept-language", "", 9, "hit", "4.1"),
            (OK, "200 | cache-control: must-revalidate", "", 9, "hit", "says not how long"),
            (OK, "200 | content-type: text/event-stream", "", 0, "not stored: stream", "no end"),
            (OK, "200 | content-type: Multipart/X-Mixed-Replace; boundary=a", "", 0, "not stored: stream", "no end"),
            ("GET | authorization: x", "200", "", 0, "not stored: credentials", "3.5"),
            ("GET | cookie: sessionid=1", "200", "", 0, "not stored: credentials", "bypass_cookies"),
            (OK, "200", "GET | cookie: sessionid=1", 0, "bypass: credentials", "bypass_cookies"),
            (OK, "200", "GET | authorization: x", 0, "bypass: credentials", "3.5"),
            ("POST", "200", "", 0, "not stored: method", "3"),
            ("HEAD", "200", "", 0, "not stored: method", "3"),
        ],
    );
    check(
        &micro(10),
        &[
            (OK, "200 | cdn-cache-control: foo | cache-control: private", "", 0, no, "5.2.2.7"),
            (OK, "200 | cdn-cache-control: public | cache-control: no-store", "", 0, no, "5.2.2.5"),
            (OK, "200 | cache-control: public; foo", "", 0, no, "nobody knows what was meant"),
        ],
    );
    let rules = Rules { shares_public: true, ..micro(10) };
    check(
        &rules,
        &[
            (
                "GET | authorization: x",
                "200 | cache-control: must-revalidate",
                "",
                0,
                "not stored: credentials",
                "anonymous",
            ),
            ("GET | authorization: x", "200 | cache-control: public", "", 0, "not stored: credentials", "anonymous"),
        ],
    );
    // An answer that was handed over to a file, or that holds its client, says itself how long.
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &micro(10)).handed_on();
    let handed_on = |text: &str| {
        let (status, headers) = answer(text);
        storable(&asked, status, &headers, &AT_ONCE, &micro(10)).err()
    };
    assert_eq!(handed_on("200"), Some(Refusal::Unsaid));
    assert_eq!(handed_on("200 | cache-control: max-age=5"), None);
    // Shorter than a second is a time, too.
    let rules = Rules { default_ttl: Some(Duration::from_millis(500)), ..Rules::default() };
    let short = stored("200", &rules).stored;
    assert!(short.is_fresh(STEADY + 499) && !short.is_fresh(STEADY + 500));
    let none = Rules { default_ttl: Some(Duration::ZERO), ..Rules::default() };
    check(&none, &[(OK, "200", "", 0, no, "off")]);
}

#[test]
fn a_part_of_its_age_keeps_a_response_fresh_where_the_route_wants_it() {
    let rules = Rules { heuristic_percent: 10, ..Rules::default() };
    let no = "not stored: no-freshness";
    check(
        &rules,
        &[
            (OK, "200 | last-modified: {-1000}", "", 99, "hit", "4.2.2"),
            (OK, "200 | last-modified: {-1000}", "", 100, "revalidate", "4.2.2"),
            (OK, "200 | last-modified: {-1000} | date: {-500}", "", 0, "revalidate", "4.2.2: a tenth of 500"),
            (OK, "200 | last-modified: {-100000000}", "", 86_399, "hit", "4.2.2: a day at most"),
            (OK, "200 | last-modified: {-100000000}", "", 86_400, "revalidate", "4.2.2: a day at most"),
            (OK, "200 | last-modified: {5}", "", 0, no, "4.2.2"),
            (OK, "200 | last-modified: {-5}", "", 0, no, "4.2.2: less than a second"),
            (OK, "200", "", 0, no, "4.2.2"),
            (OK, "404 | last-modified: {-1000}", "", 99, "hit", "RFC 9110, 15.1"),
            (OK, "410 | last-modified: {-1000}", "", 99, "hit", "RFC 9110, 15.1"),
            (OK, "302 | last-modified: {-1000}", "", 0, no, "RFC 9110, 15.1"),
            (OK, "403 | last-modified: {-1000}", "", 0, no, "RFC 9110, 15.1"),
            (OK, "302 | last-modified: {-1000} | cache-control: public", "", 99, "hit", "4.2.2: public"),
            (
                OK,
                "200 | last-modified: {-1000} | cache-control: max-age=1",
                "",
                50,
                "revalidate",
                "4.2.2: MUST NOT beside explicit",
            ),
            (OK, "200 | last-modified: {-1000} | cache-control: no-cache", "", 0, "revalidate: no-cache", "5.2.2.4"),
            (
                "GET | cookie: a=1",
                "200 | last-modified: {-1000}",
                "",
                0,
                "not stored: cookies",
                "said nothing of cookies",
            ),
        ],
    );
}

#[test]
fn dates_are_read_in_every_form_and_case_and_in_no_other() {
    let lifetime = |expires: &str| {
        let (_, headers) = answer(&format!("200 | date: Sun, 06 Nov 1994 08:49:37 GMT | expires: {expires}"));
        said::Said::of(&headers, WALL).lifetime.unwrap().1
    };
    for (expires, seconds) in [
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("sun, 06 nov 1994 08:50:37 gmt", 60),
        ("SUN, 06 NOV 1994 08:50:37 GMT", 60),
        ("sUnDaY, 06-nOv-94 08:50:37 gMt", 60),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1 << 31),
        ("Sun, 06 Nov 1994 08:50:37 UTC", 0),
        ("Sun, 06 Nov 1994 08:50:37 PST", 0),
        ("Sun, 06 Nov 1994 08:50:37 +0000", 0),
        ("Sun, 06 Nov 94 08:50:37 GMT", 0),
        ("Sun 06 Nov 1994 08:50:37 GMT", 0),
        ("Sun, 06  Nov  1994 08:50:37 GMT", 0),
        ("Sun, 06-Nov-1994 08:50:37 GMT", 0),
        ("Sun, 06 Nov 1994 08.50.37 GMT", 0),
        ("Sun, 06 Nov 1994 8:50:37 GMT", 0),
        ("Sun, 06 Nov 1994 08:50:37 GMT | expires: Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sun, 06 Nov 1994 08:50:37 GMT | expires: 0", 0),
        ("Sun, 06 Nov 1994 08:50:37 GMT, Sun, 06 Nov 1994 08:50:37 GMT", 0),
        ("", 0),
    ] {
        assert_eq!(lifetime(expires), seconds, "{expires}");
    }
}
