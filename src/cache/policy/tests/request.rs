//! What clients may ask for (5.2.1, 5.4).

use super::*;

const FRESH: &str = "200 | cache-control: max-age=100 | etag: \"a\"";

#[test]
fn wishes_of_clients_make_the_app_work_only_where_the_route_says_so() {
    check(
        &Rules::default(),
        &[
            ("GET", FRESH, "GET | cache-control: no-cache", 50, "hit", "5.2.1: advice"),
            ("GET", FRESH, "GET | cache-control: max-age=0", 50, "hit", "5.2.1: advice"),
            ("GET", FRESH, "GET | cache-control: max-age=10", 50, "hit", "5.2.1: advice"),
            ("GET", FRESH, "GET | cache-control: min-fresh=99", 50, "hit", "5.2.1: advice"),
            ("GET", FRESH, "GET | pragma: no-cache", 50, "hit", "5.4"),
            ("GET", FRESH, "GET | cache-control: no-store", 50, "hit", "5.2.1.5: of storing alone"),
            ("GET", FRESH, "GET | cache-control: max-stale", 150, "revalidate", "5.2.1: advice"),
            ("GET", FRESH, "GET | cache-control: only-if-cached", 50, "hit", "5.2.1.7"),
            ("GET", FRESH, "GET | cache-control: only-if-cached", 150, "504", "5.2.1.7"),
            ("GET", FRESH, "HEAD | cache-control: only-if-cached", 150, "504", "5.2.1.7"),
            ("GET", FRESH, "GET | cache-control: only-if-cached | authorization: x", 50, "504", "5.2.1.7"),
            ("GET", FRESH, "POST | cache-control: only-if-cached", 50, "bypass: method", "5.2.1.7"),
            (
                "GET | accept: a",
                "200 | cache-control: max-age=9 | vary: accept",
                "GET | cache-control: only-if-cached",
                0,
                "504",
                "5.2.1.7",
            ),
            (
                "GET",
                "200 | cache-control: max-age=9, stale-while-revalidate=9",
                "GET | cache-control: only-if-cached",
                10,
                "stale, refreshed",
                "5.2.1.7",
            ),
            ("GET", FRESH, "GET | if-match: \"a\"", 50, "bypass: precondition", "4.3.2"),
            ("GET", FRESH, "GET | if-unmodified-since: {0}", 50, "bypass: precondition", "4.3.2"),
            ("GET", FRESH, "GET | if-none-match: \"a\"", 50, "hit", "4.3.2"),
            ("GET", FRESH, "GET | range: bytes=0-0", 50, "hit", "RFC 9110, 14.2"),
        ],
    );
}

#[test]
fn an_obedient_route_takes_them_at_their_word() {
    let same = "revalidate: request";
    check(
        &obedient(),
        &[
            ("GET", FRESH, "GET", 50, "hit", "4"),
            ("GET", FRESH, "GET | cache-control: no-cache", 50, same, "5.2.1.4"),
            ("GET", FRESH, "GET | cache-control: No-Cache", 50, same, "5.2"),
            ("GET", FRESH, "GET | cache-control: no-cache=x", 50, same, "most restrictive"),
            ("GET", FRESH, "GET | cache-control: max-age=0", 1, same, "5.2.1.1"),
            ("GET", FRESH, "GET | cache-control: max-age=49", 50, same, "5.2.1.1"),
            ("GET", FRESH, "GET | cache-control: max-age=50", 50, "hit", "5.2.1.1"),
            ("GET", FRESH, "GET | cache-control: max-age=x", 50, same, "unreadable"),
            ("GET", FRESH, "GET | cache-control: max-age=99, max-age=10", 50, same, "most restrictive"),
            ("GET", FRESH, "GET | cache-control: max-age=1000", 150, "revalidate", "5.2.1.1"),
            ("GET", FRESH, "GET | cache-control: min-fresh=50", 50, "hit", "5.2.1.3"),
            ("GET", FRESH, "GET | cache-control: min-fresh=51", 50, same, "5.2.1.3"),
            ("GET", FRESH, "GET | cache-control: min-fresh=10, min-fresh=60", 50, same, "most restrictive"),
            (
                "GET",
                "200 | age: 30 | cache-control: max-age=100",
                "GET | cache-control: min-fresh=51",
                20,
                same,
                "5.2.1.3",
            ),
            (
                "GET",
                "200 | age: 30 | cache-control: max-age=100",
                "GET | cache-control: max-age=40",
                20,
                same,
                "5.2.1.1",
            ),
            ("GET", FRESH, "GET | pragma: no-cache", 50, same, "5.4"),
            ("GET", FRESH, "GET | pragma: x, No-Cache", 50, same, "5.4"),
            (
                "GET",
                FRESH,
                "GET | pragma: no-cache | cache-control: max-age=99",
                50,
                "hit",
                "5.4: Cache-Control goes first",
            ),
            ("GET", FRESH, "GET | cache-control: max-age=99 | pragma: no-cache", 50, "hit", "5.4: in any order"),
            ("GET", FRESH, "GET | cache-control: max-stale", 500, "stale", "5.2.1.2"),
            ("GET", FRESH, "GET | cache-control: max-stale=50", 150, "stale", "5.2.1.2"),
            ("GET", FRESH, "GET | cache-control: max-stale=49", 150, "revalidate", "5.2.1.2"),
            ("GET", FRESH, "GET | cache-control: max-stale=x", 150, "revalidate", "unreadable"),
            ("GET", FRESH, "GET | cache-control: max-stale, max-stale=10", 150, "revalidate", "most restrictive"),
            ("GET", FRESH, "GET | cache-control: max-stale, no-cache", 150, "revalidate", "most restrictive"),
            ("GET", FRESH, "GET | cache-control: max-stale, min-fresh=1", 150, "revalidate", "most restrictive"),
            (
                "GET",
                FRESH,
                "GET | cache-control: max-stale=60, max-age=50",
                150,
                "revalidate",
                "5.2.1.2: older than both",
            ),
            ("GET", FRESH, "GET | cache-control: max-stale=60, max-age=100", 150, "stale", "5.2.1.2"),
            (
                "GET",
                "200 | age: 100 | cache-control: max-age=50 | etag: \"a\"",
                "GET | cache-control: max-stale=60",
                0,
                "stale",
                "5.2.1.2",
            ),
            (
                "GET",
                "200 | cache-control: must-revalidate, max-age=100",
                "GET | cache-control: max-stale",
                150,
                "revalidate",
                "5.2.2.2",
            ),
            (
                "GET",
                "200 | cache-control: proxy-revalidate, max-age=100",
                "GET | cache-control: max-stale",
                150,
                "revalidate",
                "5.2.2.8",
            ),
            (
                "GET",
                "200 | cache-control: s-maxage=100",
                "GET | cache-control: max-stale",
                150,
                "revalidate",
                "5.2.2.10",
            ),
            (
                "GET",
                "200 | cache-control: no-cache | etag: \"a\"",
                "GET | cache-control: max-stale",
                0,
                "revalidate: no-cache",
                "5.2.2.4",
            ),
            ("GET", FRESH, "GET | cache-control: only-if-cached, max-stale", 150, "stale", "5.2.1.7"),
            ("GET", FRESH, "GET | cache-control: only-if-cached, no-cache", 50, "504", "5.2.1.7"),
            (
                "GET",
                "200 | cache-control: max-age=100, immutable",
                "GET | cache-control: max-age=0",
                50,
                "hit",
                "RFC 8246, 2: reload",
            ),
            (
                "GET",
                "200 | cache-control: max-age=100, immutable",
                "GET | cache-control: no-cache",
                50,
                same,
                "RFC 8246, 2: forced",
            ),
            (
                "GET",
                "200 | cache-control: max-age=100, immutable",
                "GET | cache-control: max-age=0",
                150,
                "revalidate",
                "RFC 8246, 2",
            ),
            (
                "GET",
                "200 | cache-control: max-age=9, stale-while-revalidate=9",
                "GET | cache-control: no-cache",
                10,
                "revalidate",
                "5.2.1.4",
            ),
        ],
    );
}

#[test]
fn only_an_anonymous_get_has_others_wait_for_its_answer() {
    let rules = public();
    for (text, may_lead) in [
        ("GET", true),
        ("GET | cookie: a=1", true),
        ("HEAD", false),
        ("POST", false),
        ("GET | authorization: x", false),
        ("GET | cookie: sessionid=1", false),
        ("GET | cache-control: no-store", false),
    ] {
        let (method, headers) = request(text);
        assert_eq!(Asked::of(&method, &headers, Context::default(), &rules).may_lead(), may_lead, "{text}");
    }
}

#[test]
fn nothing_stored_is_a_miss_or_504() {
    let rules = Rules::default();
    for (text, expected) in [
        ("GET", Serve::Miss),
        ("HEAD", Serve::Miss),
        ("GET | cache-control: only-if-cached", Serve::Unavailable),
        ("GET | authorization: x", Serve::Bypass(Bypass::Credentials)),
        ("POST", Serve::Bypass(Bypass::Method)),
    ] {
        let (method, headers) = request(text);
        let asked = Asked::of(&method, &headers, Context::default(), &rules);
        assert_eq!(serve(None, &asked, &rules, STEADY), expected, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_request_does_harm(control in "[-a-z=,\" 0-9\\\\]{0,40}", cookie in "[-a-zA-Z_=;,\" 0-9\\\\\u{e9}]{0,40}", honours: bool) {
        let rules = Rules { honours_clients: honours, ..Rules::default() };
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", HeaderValue::from_bytes(control.as_bytes()).unwrap());
        headers.insert("cookie", HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        let asked = Asked::of(&Method::GET, &headers, Context::default(), &rules);
        let stored = stored(FRESH, &rules).stored;
        let served = serve(Some(&stored), &asked, &rules, STEADY);
        proptest::prop_assert!(honours || !matches!(served, Serve::Revalidate(_)));
    }
}
