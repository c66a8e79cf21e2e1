//! Stale responses: RFC 5861, and what forbids them (RFC 9111, 4.2.4).

use super::*;

#[test]
fn what_is_stale_is_served_while_it_is_asked_for_as_long_as_it_says() {
    let get = "GET";
    check(
        &Rules::default(),
        &[
            (get, "200 | cache-control: max-age=10, stale-while-revalidate=20", "", 9, "hit", "RFC 5861, 3"),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20",
                "",
                10,
                "stale, refreshed",
                "RFC 5861, 3",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20",
                "",
                30,
                "stale, refreshed",
                "RFC 5861, 3",
            ),
            (get, "200 | cache-control: max-age=10, stale-while-revalidate=20", "", 31, "revalidate", "RFC 5861, 3"),
            (get, "200 | cache-control: max-age=10, stale-while-revalidate=x", "", 11, "revalidate", "unreadable"),
            (get, "200 | cache-control: max-age=10, stale-while-revalidate", "", 11, "revalidate", "unreadable"),
            (get, "200 | cache-control: max-age=10, stale-while-revalidate=0", "", 10, "revalidate", "RFC 5861, 3"),
            (
                get,
                "200 | cache-control: max-age=0, stale-while-revalidate=20",
                "",
                0,
                "stale, refreshed",
                "RFC 5861, 3",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=5, stale-while-revalidate=20",
                "",
                16,
                "revalidate",
                "the shorter",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-if-error=20",
                "",
                11,
                "revalidate",
                "RFC 5861, 4: only on failure",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20, must-revalidate",
                "",
                11,
                "revalidate",
                "5.2.2.2",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20, must-revalidate=1",
                "",
                11,
                "revalidate",
                "5.2.2.2",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20, proxy-revalidate",
                "",
                11,
                "revalidate",
                "5.2.2.8",
            ),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=20, no-cache | etag: \"a\"",
                "",
                1,
                "revalidate: no-cache",
                "5.2.2.4",
            ),
            (
                get,
                "200 | cache-control: s-maxage=10, stale-while-revalidate=20",
                "",
                11,
                "stale, refreshed",
                "5.2.2.10 and RFC 5861: explicit",
            ),
            (
                get,
                "200 | cdn-cache-control: max-age=10, stale-while-revalidate=20",
                "",
                11,
                "stale, refreshed",
                "RFC 9213",
            ),
            (get, "200 | surrogate-control: max-age=10+20", "", 11, "stale, refreshed", "Edge Architecture"),
            (get, "200 | surrogate-control: max-age=10+20", "", 31, "revalidate", "Edge Architecture"),
            (
                get,
                "200 | x-accel-expires: 10 | cache-control: stale-while-revalidate=20",
                "",
                11,
                "stale, refreshed",
                "nginx",
            ),
            (
                get,
                "200 | expires: {10} | cache-control: stale-while-revalidate=20",
                "",
                11,
                "stale, refreshed",
                "RFC 5861, 3",
            ),
            (
                get,
                "200 | cache-control: immutable, max-age=10, stale-while-revalidate=20",
                "",
                11,
                "stale, refreshed",
                "RFC 8246",
            ),
        ],
    );
}

#[test]
fn the_routes_window_is_for_what_says_nothing_of_it() {
    let rules = Rules { stale_while_revalidate: Duration::from_secs(20), ..micro(10) };
    let get = "GET";
    check(
        &rules,
        &[
            (get, "200", "", 11, "stale, refreshed", "default"),
            (get, "200", "", 31, "revalidate", "default"),
            (get, "200 | cache-control: max-age=10", "", 30, "stale, refreshed", "default"),
            (get, "200 | cache-control: max-age=10, stale-while-revalidate=5", "", 16, "revalidate", "its own word"),
            (
                get,
                "200 | cache-control: max-age=10, stale-while-revalidate=60",
                "",
                60,
                "stale, refreshed",
                "its own word",
            ),
            (get, "200 | cache-control: max-age=10, must-revalidate", "", 11, "revalidate", "5.2.2.2"),
            (get, "200 | cache-control: max-age=10, proxy-revalidate", "", 11, "revalidate", "5.2.2.8"),
            (get, "200 | cache-control: s-maxage=10", "", 11, "revalidate", "5.2.2.10"),
            (get, "200 | cache-control: no-cache, max-age=10 | etag: \"a\"", "", 1, "revalidate: no-cache", "5.2.2.4"),
            // A default for browsers' sake changes nothing of that.
            (get, "200 | cache-control: s-maxage=10, max-age=0", "", 11, "revalidate", "5.2.2.10"),
        ],
    );
}

#[test]
fn something_stale_stands_in_for_a_failure_as_long_as_it_may() {
    let default = Rules { stale_if_error: Duration::from_secs(20), ..Rules::default() };
    let none = Rules::default();
    for (rules, control, after, is_good, section) in [
        (&none, "max-age=10", 5, true, "it is fresh"),
        (&none, "max-age=10", 10, false, "4.2.4"),
        (&none, "max-age=10, stale-if-error=20", 30, true, "RFC 5861, 4"),
        (&none, "max-age=10, stale-if-error=20", 31, false, "RFC 5861, 4"),
        (&none, "max-age=10, stale-while-revalidate=20", 30, true, "as good as before it was asked for"),
        (&none, "max-age=10, stale-while-revalidate=20, stale-if-error=5", 30, true, "the longer"),
        (&none, "max-age=10, stale-if-error=x", 11, false, "unreadable"),
        (&none, "max-age=10, stale-if-error=20, must-revalidate", 11, false, "5.2.2.2"),
        (&none, "max-age=10, stale-if-error=20, proxy-revalidate", 11, false, "5.2.2.8"),
        (&none, "max-age=10, stale-if-error=20, no-cache", 1, false, "5.2.2.4"),
        (&none, "s-maxage=10, stale-if-error=20", 11, true, "5.2.2.10 and RFC 5861: explicit"),
        (&none, "s-maxage=10", 11, false, "5.2.2.10"),
        (&default, "max-age=10", 30, true, "default"),
        (&default, "max-age=10", 31, false, "default"),
        (&default, "max-age=10, stale-if-error=5", 16, false, "its own word"),
        (&default, "max-age=10, must-revalidate", 11, false, "5.2.2.2"),
        (&default, "s-maxage=10", 11, false, "5.2.2.10"),
    ] {
        let stored = stored(&format!("200 | etag: \"a\" | cache-control: {control}"), rules).stored;
        assert_eq!(
            stored.may_replace_failure(rules, STEADY + after * 1000),
            is_good,
            "{control} after {after}: {section}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn a_prohibition_is_never_overruled(
        control in proptest::collection::vec(0_usize..8, 0..6), forbidden in 0_usize..3, after in 0_u64..100, windows: bool,
    ) {
        const MORE: [&str; 8] = [
            "public", "immutable", "stale-while-revalidate=1000", "stale-if-error=1000", "s-maxage=10", "max-age=20",
            "no-transform", "must-understand",
        ];
        let mut list: Vec<&str> = control.iter().map(|at| MORE[*at]).collect();
        list.insert(list.len() / 2, ["must-revalidate", "proxy-revalidate", "no-cache"][forbidden]);
        let window = Duration::from_secs(if windows { 1000 } else { 0 });
        let rules = Rules { stale_while_revalidate: window, stale_if_error: window, ..obedient() };
        let stored = stored(&format!("200 | etag: \"a\" | cache-control: max-age=30, {}", list.join(", ")), &rules).stored;
        let now = STEADY + after * 1000;
        let (method, headers) = request("GET | cache-control: max-stale");
        let asked = Asked::of(&method, &headers, Context::default(), &rules);
        let is_served = matches!(serve(Some(&stored), &asked, &rules, now), Serve::Hit | Serve::Stale { .. });
        proptest::prop_assert!(!is_served || stored.is_fresh(now), "{:?}", list);
        proptest::prop_assert!(!stored.may_replace_failure(&rules, now) || stored.is_fresh(now), "{:?}", list);
    }
}
