//! Credentials and cookies: whose answers are stored, and who is answered from the store (3.5).

use super::*;

const PAGE: &str = "200 | cache-control: max-age=60";
const PUBLIC: &str = "200 | cache-control: public, max-age=60";

#[test]
fn who_is_somebody_neither_reads_nor_writes() {
    for somebody in ["GET | authorization: Basic x", "GET | cookie: sessionid=1", "GET | cookie: a=1; messages=x"] {
        check(
            &Rules::default(),
            &[
                (somebody, PAGE, "GET", 0, "not stored: credentials", "3.5"),
                (somebody, PUBLIC, "GET", 0, "not stored: credentials", "the route does not allow it"),
                (
                    somebody,
                    "200 | cache-control: s-maxage=60",
                    "GET",
                    0,
                    "not stored: credentials",
                    "the route does not allow it",
                ),
                ("GET", PAGE, somebody, 0, "bypass: credentials", "3.5"),
                ("GET", PUBLIC, somebody, 0, "bypass: credentials", "the route does not allow it"),
            ],
        );
        check(
            &micro(60),
            &[
                (somebody, "200", "GET", 0, "not stored: credentials", "default_ttl is for anonymous clients"),
                ("GET", "200", somebody, 0, "bypass: credentials", "default_ttl is for anonymous clients"),
            ],
        );
    }
}

#[test]
fn what_says_that_it_is_for_everybody_is_where_the_route_allows_it() {
    let with = |control: &str| format!("200 | cache-control: {control}");
    for (control, by_authorization, by_cookie, section) in [
        ("max-age=60", false, false, "3.5"),
        ("public, max-age=60", true, true, "5.2.2.9"),
        ("s-maxage=60", true, false, "5.2.2.10"),
        ("must-revalidate, max-age=60", true, false, "5.2.2.2"),
        ("proxy-revalidate, max-age=60", false, false, "5.2.2.8"),
        ("public=1, max-age=60", false, false, "malformed"),
        ("must-revalidate=1, max-age=60", false, false, "malformed"),
        ("immutable, max-age=60", false, false, "3.5"),
    ] {
        for (somebody, is_stored) in
            [("GET | authorization: x", by_authorization), ("GET | cookie: sessionid=1", by_cookie)]
        {
            let (stores, serves) =
                if is_stored { ("hit", "hit") } else { ("not stored: credentials", "bypass: credentials") };
            check(
                &public(),
                &[
                    (somebody, &with(control), "GET", 30, stores, section),
                    ("GET", &with(control), somebody, 30, serves, section),
                ],
            );
        }
        let both = "GET | authorization: x | cookie: sessionid=1";
        let expected = if by_cookie { "hit" } else { "bypass: credentials" };
        check(&public(), &[("GET", &with(control), both, 30, expected, "both must be allowed")]);
    }
    check(
        &public(),
        &[
            (
                "GET | cookie: sessionid=1",
                "200 | cache-control: public, private, max-age=60",
                "GET",
                0,
                "not stored: credentials",
                "5.2.2.7",
            ),
            (
                "GET | cookie: sessionid=1",
                "200 | cache-control: public, max-age=60 | set-cookie: a=1",
                "GET",
                0,
                "not stored: credentials",
                "7.3",
            ),
            // What an app says to the edge alone says nothing of whom it is for.
            ("GET | cookie: sessionid=1", "200 | x-accel-expires: 60", "GET", 0, "not stored: credentials", "3.5"),
            (
                "GET | cookie: sessionid=1",
                "200 | surrogate-control: max-age=60",
                "GET",
                0,
                "not stored: credentials",
                "3.5",
            ),
            ("GET | authorization: x", "200 | cdn-cache-control: public, max-age=60", "GET", 30, "hit", "RFC 9213"),
            (
                "GET | authorization: x",
                "200 | cdn-cache-control: max-age=60 | cache-control: public",
                "GET",
                0,
                "not stored: credentials",
                "RFC 9213, 2.2",
            ),
            // Two sessions: each has what it may have.
            (
                "GET | cookie: sessionid=1",
                "200 | cache-control: public, max-age=60 | vary: cookie",
                "GET | cookie: sessionid=2",
                0,
                "vary-miss",
                "4.1",
            ),
            (
                "GET | cookie: sessionid=1",
                "200 | cache-control: public, max-age=60 | vary: cookie",
                "GET",
                0,
                "vary-miss",
                "4.1",
            ),
        ],
    );
}

#[test]
fn djangos_default_pages_are_neither_leaked_nor_useless() {
    let page = "200 | vary: cookie | cache-control: max-age=60";
    let of = |cookies: &str| format!("GET | cookie: {cookies}");
    let (ann, bob) = (of("csrftoken=ann"), of("csrftoken=bob"));
    check(
        &Rules::default(),
        &[
            // One variant for all that have no cookies, or none that count.
            ("GET", page, "GET", 0, "hit", "one variant"),
            ("GET", page, &of("_ga=GA1.2.3; _gid=4"), 0, "hit", "analytics do not count"),
            (&of("_ga=GA1.2.3"), page, "GET", 0, "hit", "analytics do not count"),
            ("GET | cookie:", page, "GET", 0, "hit", "no cookies"),
            // A token is somebody's alone.
            (&ann, page, &ann, 0, "hit", "its own variant"),
            (&ann, page, &bob, 0, "vary-miss", "another's token"),
            (&ann, page, "GET", 0, "vary-miss", "another's token"),
            ("GET", page, &ann, 0, "vary-miss", "another's token"),
            (&of("csrftoken=ann; _ga=1"), page, &ann, 0, "hit", "analytics do not count"),
            (&of("theme=dark; csrftoken=ann"), page, &of("csrftoken=ann; theme=dark"), 0, "hit", "in any order"),
            (&of("a=1; a=2"), page, &of("a=2; a=1"), 0, "vary-miss", "of two by one name the order counts"),
            (&of("a=1"), page, "GET | cookie: a=1 | cookie: ", 0, "hit", "over lines"),
            (&of("a=1; b=2"), page, "GET | cookie: b=2 | cookie: a=1", 0, "hit", "over lines"),
            (&of("a=1"), page, &of("a=1;"), 0, "hit", "an empty one"),
            (&of("a=1"), page, &of("A=1"), 0, "vary-miss", "names have a case"),
            (&of("a=1"), page, &of("a = 1"), 0, "vary-miss", "as it stands"),
            // Setting it makes the page somebody's.
            (
                "GET",
                "200 | vary: cookie | cache-control: max-age=60 | set-cookie: csrftoken=x",
                "GET",
                0,
                "not stored: set-cookie",
                "7.3",
            ),
            // A session.
            ("GET", page, &of("csrftoken=ann; sessionid=1"), 0, "bypass: credentials", "bypass_cookies"),
            (&of("sessionid=1"), page, "GET", 0, "not stored: credentials", "bypass_cookies"),
            (&of("messages=x"), page, "GET", 0, "not stored: credentials", "bypass_cookies"),
            (&of("django_language=de"), page, "GET", 0, "not stored: credentials", "bypass_cookies"),
        ],
    );
    check(
        &micro(60),
        &[
            ("GET", "200 | vary: cookie", "GET", 0, "hit", "one variant"),
            (&ann, "200 | vary: cookie", &ann, 0, "hit", "its own variant"),
            (&ann, "200 | vary: cookie", &bob, 0, "vary-miss", "another's token"),
            (&of("theme=dark"), "200", "GET", 0, "not stored: cookies", "the app has promised nothing"),
            (
                &of("theme=dark"),
                "200 | vary: accept-encoding",
                "GET",
                0,
                "not stored: cookies",
                "the app has promised nothing",
            ),
            (&of("theme=dark"), "200 | vary: cookie", "GET", 0, "vary-miss", "4.1"),
            (&of("_ga=1"), "200", "GET", 0, "hit", "analytics do not count"),
            ("GET", "200", &of("theme=dark"), 0, "hit", "it is anonymous"),
            (&of("theme=dark"), "200 | cache-control: max-age=60", "GET", 0, "hit", "the app says so"),
        ],
    );
}

#[test]
fn a_token_counts_whatever_the_configuration_says() {
    let rules =
        Rules { ignore_cookies: Patterns::new(&["csrftoken", "_xsrf", "c*", "_ga", "sessionid"]), ..Rules::default() };
    let page = "200 | vary: cookie | cache-control: max-age=60";
    check(
        &rules,
        &[
            ("GET | cookie: csrftoken=a", page, "GET | cookie: csrftoken=b", 0, "vary-miss", "never ignored"),
            ("GET | cookie: csrftoken=a", page, "GET", 0, "vary-miss", "never ignored"),
            ("GET | cookie: _xsrf=a", page, "GET", 0, "vary-miss", "never ignored"),
            ("GET | cookie: cx=a", page, "GET", 0, "hit", "ignored"),
            ("GET", page, "GET | cookie: sessionid=a", 0, "bypass: credentials", "stands for somebody all the same"),
        ],
    );
    // Should the configuration have a session's cookie in both lists, it stands for somebody, and tells variants apart.
    let rules = Rules { shares_public: true, ..rules };
    let page = "200 | vary: cookie | cache-control: public, max-age=60";
    check(
        &rules,
        &[("GET | cookie: sessionid=1", page, "GET | cookie: sessionid=2", 0, "vary-miss", "counts all the same")],
    );
}
