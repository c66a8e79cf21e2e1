//! What is stored (3), and what directives of the response make of it (5.2.2).

use super::*;

#[test]
fn directives_of_a_response_are_obeyed() {
    let get = "GET";
    check(
        &Rules::default(),
        &[
            (get, "200 | cache-control: no-store", "", 0, "not stored: no-store", "5.2.2.5"),
            (get, "200 | cache-control: nO-StOrE", "", 0, "not stored: no-store", "5.2"),
            (
                get,
                "200 | cache-control: no-store, max-age=60 | expires: {60}",
                "",
                0,
                "not stored: no-store",
                "5.2.2.5",
            ),
            (
                get,
                "200 | cache-control: max-age=60 | cache-control: no-store",
                "",
                0,
                "not stored: no-store",
                "5.2: two lines",
            ),
            (get, "200 | cache-control: no-store=1, max-age=60", "", 0, "not stored: no-store", "most restrictive"),
            (
                get,
                "200 | cache-control: no-store, public, max-age=60",
                "",
                0,
                "not stored: no-store",
                "most restrictive",
            ),
            (get, "200 | cache-control: private, max-age=60", "", 0, "not stored: private", "5.2.2.7"),
            (get, "200 | cache-control: private, s-maxage=60", "", 0, "not stored: private", "5.2.2.7"),
            (get, "200 | cache-control: public, private, max-age=60", "", 0, "not stored: private", "most restrictive"),
            (get, "200 | cache-control: private=\"x-a\", max-age=60", "", 30, "hit", "5.2.2.7: a field"),
            (get, "200 | cache-control: private=\"\", max-age=60", "", 0, "not stored: private", "names nothing"),
            (get, "200 | cache-control: private=\"a b\", max-age=60", "", 0, "not stored: private", "no name"),
            (
                get,
                "200 | cache-control: private=\"x-a\", private, max-age=60",
                "",
                0,
                "not stored: private",
                "most restrictive",
            ),
            (get, "200 | cache-control: no-cache | etag: \"a\"", "", 0, "revalidate: no-cache", "5.2.2.4"),
            (
                get,
                "200 | cache-control: No-CaChE, max-age=60 | expires: {60}",
                "",
                0,
                "not stored: stale",
                "5.2.2.4: for nothing",
            ),
            (get, "200 | cache-control: no-cache, max-age=60 | etag: \"a\"", "", 0, "revalidate: no-cache", "5.2.2.4"),
            (
                get,
                "200 | cache-control: no-cache, max-age=60 | last-modified: {-60}",
                "",
                0,
                "revalidate: no-cache",
                "5.2.2.4",
            ),
            (get, "200 | cache-control: no-cache=\"x-a\", max-age=60", "", 30, "hit", "5.2.2.4: a field"),
            (get, "200 | cache-control: no-cache=x-a, max-age=60", "", 30, "hit", "5.2: either form"),
            (
                get,
                "200 | cache-control: no-cache=\"\", max-age=60 | etag: \"a\"",
                "",
                0,
                "revalidate: no-cache",
                "names nothing",
            ),
            (
                get,
                "200 | cache-control: no-cache=\"x-a, max-age=60 | etag: \"a\"",
                "",
                0,
                "revalidate: no-cache",
                "an open quote",
            ),
            (
                get,
                "200 | cache-control: ext=\"a, no-store, max-age=60",
                "",
                0,
                "not stored: no-store",
                "an open quote hides nothing",
            ),
            (get, "200 | cache-control: ext=\"a, no-store\", max-age=60", "", 30, "hit", "5.2.3: a closed one does"),
            (get, "200 | cache-control: must-revalidate, max-age=60", "", 30, "hit", "5.2.2.2"),
            (get, "200 | cache-control: immutable, max-age=60", "", 30, "hit", "RFC 8246"),
            (
                get,
                "200 | cache-control: immutable, max-age=60 | etag: \"a\"",
                "",
                60,
                "revalidate",
                "RFC 8246: only while fresh",
            ),
            (get, "200 | cache-control: immutable", "", 0, "not stored: no-freshness", "RFC 8246"),
            (get, "200 | cache-control: max-age=60, unheard-of, x=\"y\"", "", 30, "hit", "5.2.3"),
            (get, "200 | cache-control: max-age=60 | pragma: no-cache", "", 30, "hit", "5.4: of requests alone"),
            (get, "200 | cache-control: max-age=60 | warning: 110 - \"x\"", "", 30, "hit", "5.5"),
            (
                get,
                "200 | cache-control: max-age=60 | set-cookie: a=1",
                "",
                0,
                "not stored: set-cookie",
                "7.3, as nginx",
            ),
            (
                get,
                "200 | cache-control: public, max-age=60 | set-cookie: a=1",
                "",
                0,
                "not stored: set-cookie",
                "7.3, as nginx",
            ),
            (
                get,
                "200 | cache-control: max-age=60, no-cache=\"set-cookie\" | set-cookie: a=1",
                "",
                30,
                "hit",
                "5.2.2.4",
            ),
            (
                get,
                "200 | cache-control: max-age=60, private=\"Set-Cookie\" | set-cookie: a=1",
                "",
                30,
                "hit",
                "5.2.2.7",
            ),
            (
                get,
                "200 | cache-control: max-age=60, private=\"set-cookie\" | set-cookie2: a=1",
                "",
                0,
                "not stored: set-cookie",
                "old words",
            ),
            (
                get,
                "200 | cache-control: max-age=60 | content-type: text/event-stream",
                "",
                0,
                "not stored: stream",
                "no end",
            ),
            (get, "200 | cache-control: max-age=60 | content-disposition: attachment", "", 30, "hit", "4.2"),
        ],
    );
}

#[test]
fn a_prohibition_in_a_list_that_is_none_is_obeyed() {
    let get = "GET";
    check(
        &micro(10),
        &[
            (
                get,
                "200 | expires: {60} | cache-control: private; max-age=600",
                "",
                0,
                "not stored: private",
                "most restrictive",
            ),
            (get, "200 | cache-control: max-age=600; private", "", 0, "not stored: private", "most restrictive"),
            (get, "200 | cache-control: max-age=600 no-store", "", 0, "not stored: no-store", "most restrictive"),
            (
                get,
                "200 | expires: {60} | cache-control: \"no-store\"",
                "",
                0,
                "not stored: no-store",
                "most restrictive",
            ),
            (get, "200 | expires: {60} | cache-control: foo;bar", "", 30, "hit", "5.2.3"),
        ],
    );
}

#[test]
fn seconds_are_read_strictly_and_what_cannot_be_read_is_stale() {
    for (value, expected, section) in [
        ("max-age=3600", "hit", "1.2.2"),
        ("max-age=\"3600\"", "hit", "5.2: either form"),
        ("max-age=\"36\\00\"", "hit", "RFC 9110, 5.6.4"),
        ("MAX-AGE=3600", "hit", "5.2"),
        ("max-age=003600", "hit", "1.2.2"),
        ("max-age=2147483647", "hit", "1.2.2"),
        ("max-age=2147483648", "hit", "1.2.2"),
        ("max-age=4294967296", "hit", "1.2.2: more than 32 bits"),
        ("max-age=99999999999999999999999", "hit", "1.2.2"),
        (",, max-age=3600 ,,", "hit", "RFC 9110, 5.6.1"),
        ("foobar, max-age=3600", "hit", "5.2.3"),
        ("max-age=3600, foobar=\"a, b\"", "hit", "5.2.3"),
        ("max-age=3600\t", "hit", "RFC 9110, 5.6.3"),
        ("max-age='3600'", "revalidate", "4.2.1"),
        ("max-age=3600.0", "revalidate", "4.2.1"),
        ("max-age=3600.5", "revalidate", "4.2.1"),
        ("max-age=a3600", "revalidate", "4.2.1"),
        ("max-age=3600a", "revalidate", "4.2.1"),
        ("max-age=-3600", "revalidate", "4.2.1"),
        ("max-age=+3600", "revalidate", "4.2.1"),
        ("max-age=0x10", "revalidate", "4.2.1"),
        ("max-age=3600;a", "revalidate", "4.2.1"),
        ("max-age=36 00", "revalidate", "4.2.1"),
        ("max-age=", "revalidate", "4.2.1"),
        ("max-age=\"\"", "revalidate", "4.2.1"),
        ("max-age", "revalidate", "4.2.1"),
        ("max-age =3600", "revalidate", "a space about ="),
        ("max-age= 3600", "revalidate", "a space about ="),
        ("max-age=\"3600", "revalidate", "an open quote"),
        ("max-age=\"3600\"x", "revalidate", "behind the quote"),
        ("max-age=3600, max-age=1", "revalidate", "the shorter"),
        ("max-age=1, max-age=3600", "revalidate", "the shorter"),
        ("max-age=3600 | cache-control: max-age=1", "revalidate", "the shorter"),
        ("max-age=1 | cache-control: max-age=3600", "revalidate", "the shorter"),
        ("s-maxage=x, max-age=3600", "revalidate", "4.2.1"),
        ("extension=\"max-age=3600\", max-age=1", "revalidate", "5.2.3"),
        ("max-age=1, extension=\"max-age=3600\"", "revalidate", "5.2.3"),
        ("x\"max-age=3600\"", "not stored: no-freshness", "5.2.3"),
        ("xmax-age=3600", "not stored: no-freshness", "5.2.3"),
        ("max-age:3600", "not stored: no-freshness", "5.2.3"),
    ] {
        check(
            &Rules::default(),
            &[("GET", &format!("200 | etag: \"a\" | cache-control: {value}"), "", 100, expected, section)],
        );
    }
}

#[test]
fn only_what_was_asked_for_by_a_plain_get_is_stored() {
    let fresh = "200 | cache-control: max-age=60";
    let rules = Rules::default();
    check(
        &rules,
        &[
            ("GET", fresh, "", 0, "hit", "3"),
            ("GET", fresh, "HEAD", 0, "hit", "4, RFC 9110, 9.3.2"),
            ("HEAD", fresh, "GET", 0, "not stored: method", "3"),
            ("POST", fresh, "GET", 0, "not stored: method", "RFC 9110, 9.3.3: optional, not done"),
            ("PUT", fresh, "GET", 0, "not stored: method", "RFC 9110, 9.3.4"),
            ("DELETE", fresh, "GET", 0, "not stored: method", "RFC 9110, 9.3.5"),
            ("OPTIONS", fresh, "GET", 0, "not stored: method", "RFC 9110, 9.3.7"),
            ("PATCH", fresh, "GET", 0, "not stored: method", "RFC 5789, 2"),
            ("FOO", fresh, "GET", 0, "not stored: method", "3"),
            ("get", fresh, "GET", 0, "not stored: method", "methods have a case"),
            ("GET", fresh, "POST", 0, "bypass: method", "4"),
            ("GET", fresh, "OPTIONS", 0, "bypass: method", "4"),
            ("GET", fresh, "DELETE", 0, "bypass: method", "4"),
            ("GET | cache-control: no-store", fresh, "", 0, "not stored: request-no-store", "5.2.1.5"),
            ("GET | if-match: \"a\"", fresh, "", 0, "not stored: method", "4.3.2"),
        ],
    );
    let (status, headers) = answer(fresh);
    for (context, refusal, serve_as) in [
        (Context { has_body: true, ..Context::default() }, Refusal::Body, Bypass::Body),
        (Context { is_identified: true, ..Context::default() }, Refusal::Credentials, Bypass::Credentials),
        (Context { is_upgrade: true, ..Context::default() }, Refusal::Method, Bypass::Upgrade),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let asked = Asked::of(&method, &HeaderMap::new(), context, &rules);
            assert_eq!(storable(&asked, status, &headers, &AT_ONCE, &rules).unwrap_err(), refusal);
            let stored = stored(fresh, &rules).stored;
            assert_eq!(serve(Some(&stored), &asked, &rules, STEADY), Serve::Bypass(serve_as));
        }
    }
}

#[test]
fn every_final_status_that_is_about_what_is_there_is_stored_when_it_says_how_long() {
    for status in [
        200, 201, 202, 203, 204, 205, 299, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 410, 414, 451,
        499, 500, 501, 502, 503, 504, 599,
    ] {
        let response = format!("{status} | cache-control: max-age=60");
        check(
            &Rules::default(),
            &[("GET", &response, "", 30, "hit", "3"), ("GET", &response, "", 60, "revalidate", "4.2")],
        );
    }
    for status in [100, 101, 103, 206, 304, 407, 408, 412, 413, 416, 417, 421, 425, 426, 428, 429, 431, 511] {
        let response = format!("{status} | cache-control: public, max-age=60");
        check(&micro(60), &[("GET", &response, "", 0, "not stored: status", "3, 3.3, RFC 6585")]);
    }
}

#[test]
fn who_understands_a_status_need_not_mind_the_word_for_those_that_do_not() {
    check(
        &Rules::default(),
        &[
            ("GET", "200 | cache-control: no-store, must-understand, max-age=60", "", 30, "hit", "5.2.2.3"),
            ("GET", "404 | cache-control: must-understand, max-age=60, no-store", "", 30, "hit", "5.2.2.3"),
            (
                "GET",
                "599 | cache-control: no-store, must-understand, max-age=60",
                "",
                0,
                "not stored: status",
                "5.2.2.3",
            ),
            ("GET", "299 | cache-control: must-understand, max-age=60", "", 0, "not stored: status", "3"),
            (
                "GET",
                "200 | cache-control: no-store, must-understand=1, max-age=60",
                "",
                0,
                "not stored: no-store",
                "malformed",
            ),
            (
                "GET",
                "200 | cache-control: private, must-understand, max-age=60",
                "",
                0,
                "not stored: private",
                "5.2.2.7",
            ),
        ],
    );
}

#[test]
fn one_client_cannot_have_it_remembered_that_something_is_not_stored() {
    let rules = micro(10);
    for (first, response, is_remembered) in [
        ("GET", "200 | cache-control: no-store", true),
        ("GET", "200 | set-cookie: a=1", true),
        ("GET", "200 | vary: *", true),
        ("GET", "404", true),
        ("GET | authorization: x", "200 | cache-control: private", false),
        ("GET | cookie: sessionid=1", "200 | set-cookie: a=1", false),
        ("GET | cache-control: no-store", "200 | cache-control: private", false),
        ("HEAD", "200 | cache-control: private", false),
        ("GET | authorization: x", "200", false),
        ("GET | cookie: sessionid=1", "200", false),
        ("GET | cookie: theme=dark", "200", false),
        ("GET | cache-control: no-store", "200", false),
        ("HEAD", "200", false),
        ("GET", "206 | content-range: bytes 0-0/1", false),
        ("GET", "429", false),
    ] {
        let (method, fields) = request(first);
        let asked = Asked::of(&method, &fields, Context::default(), &rules);
        let (status, headers) = answer(response);
        let refusal = storable(&asked, status, &headers, &AT_ONCE, &rules).unwrap_err();
        assert_eq!(refusal.is_of_the_response(), is_remembered, "{first} -> {response}: {refusal:?}");
    }
    // Where somebody may write, too.
    let (method, fields) = request("GET | cookie: sessionid=1");
    let asked = Asked::of(&method, &fields, Context::default(), &public());
    let (status, headers) = answer("200 | cache-control: private");
    assert_eq!(storable(&asked, status, &headers, &AT_ONCE, &public()).unwrap_err(), Refusal::Credentials);
}

#[test]
fn what_can_still_be_used_is_not_taken_for_useless() {
    let rules = Rules { stale_if_error: Duration::from_secs(60), ..Rules::default() };
    let stored = stored("200 | cache-control: max-age=60", &rules).stored;
    assert_eq!(stored.ends(&rules), STEADY + 120_000);
    assert_eq!(stored.ends(&Rules::default()), STEADY + 60_000);
    let aged = super::stored("200 | cache-control: max-age=60 | age: 20", &rules).stored;
    assert_eq!(aged.ends(&rules), STEADY + 100_000);
    // Stale at once, and good for failures.
    check(&rules, &[("GET", "200 | cache-control: max-age=0", "", 0, "revalidate", "RFC 5861, 4")]);
    check(&rules, &[("GET", "200 | cache-control: max-age=0, must-revalidate", "", 0, "not stored: stale", "5.2.2.2")]);
}
