//! Variants: what tells requests apart (4.1), and how many there may be.

use proptest::prelude::*;

use super::*;
use crate::cache::policy::vary::{Admission, Variant, admit, is_of_cookies, names, union, variant};

fn with(vary: &str) -> String {
    format!("200 | cache-control: max-age=60 | vary: {vary}")
}

#[test]
fn a_request_gets_what_was_said_to_one_like_it() {
    let foo = with("foo");
    let two = with("foo, bar");
    let miss = "vary-miss";
    check(
        &Rules::default(),
        &[
            ("GET | foo: 1", &foo, "GET | foo: 1", 0, "hit", "4.1"),
            ("GET | foo: 1", &foo, "GET | foo: 2", 0, miss, "4.1"),
            ("GET | foo: 1", &foo, "GET", 0, miss, "4.1: not there"),
            ("GET", &foo, "GET | foo: 1", 0, miss, "4.1: not there"),
            ("GET", &foo, "GET", 0, "hit", "4.1: in neither"),
            ("GET | foo: ", &foo, "GET", 0, miss, "4.1: empty is there"),
            ("GET | foo: 1", &foo, "GET | foo:  1 ", 0, "hit", "4.1: whitespace"),
            ("GET | foo: 1", &foo, "GET | foo: 1 | other: 2", 0, "hit", "4.1"),
            ("GET | foo: 1 | foo: 2", &foo, "GET | foo: 1 | foo: 2", 0, "hit", "4.1: lines"),
            ("GET | foo: 1 | foo: 2", &foo, "GET | foo: 2 | foo: 1", 0, miss, "4.1: their order"),
            ("GET | foo: 1", &with("Foo"), "GET | FOO: 1", 0, "hit", "names have no case"),
            ("GET | foo: a", &foo, "GET | foo: A", 0, miss, "values have a case"),
            ("GET | foo: 1 | bar: 2", &two, "GET | bar: 2 | foo: 1", 0, "hit", "4.1"),
            ("GET | foo: 1 | bar: 2", &two, "GET | foo: 1 | bar: 3", 0, miss, "4.1: all of them"),
            ("GET | foo: 1 | bar: 2", &two, "GET | foo: 2 | bar: 1", 0, miss, "4.1"),
            ("GET | foo: 1 | bar: 2", &with("foo | vary: bar"), "GET | foo: 1 | bar: 3", 0, miss, "4.1: two lines"),
            ("GET | foo: 1", &with(", foo ,,"), "GET | foo: 2", 0, miss, "RFC 9110, 5.6.1"),
            ("GET", &with("*"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with("*, *"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with("foo, *"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with("*, foo"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with("foo | vary: *"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with(" | vary: *"), "GET", 0, "not stored: vary", "4.1"),
            ("GET", &with("foo bar"), "GET", 0, "not stored: vary", "no name"),
            ("GET", &with("foo;bar"), "GET", 0, "not stored: vary", "no name"),
            ("GET | origin: https://a", &with("origin"), "GET | origin: https://b", 0, miss, "CORS"),
        ],
    );
}

#[test]
fn what_is_coded_goes_to_those_who_take_it_also_where_the_app_does_not_say_so() {
    let coded = "200 | cache-control: max-age=60 | content-encoding: gzip";
    let gzip = "GET | accept-encoding: gzip";
    check(
        &Rules::default(),
        &[
            (gzip, coded, gzip, 0, "hit", "4.1"),
            (gzip, coded, "GET", 0, "vary-miss", "takes none"),
            (gzip, coded, "GET | accept-encoding: br", 0, "vary-miss", "takes another"),
            (gzip, &format!("{coded} | vary: accept-encoding"), "GET", 0, "vary-miss", "says so"),
            (gzip, &coded.replace("gzip", "identity"), "GET", 0, "hit", "not coded"),
        ],
    );
    let (_, headers) = answer(&format!("{coded} | vary: x-a"));
    assert_eq!(
        *names(&headers, &Rules::default()).unwrap(),
        [http::header::ACCEPT_ENCODING, HeaderName::from_static("x-a")]
    );
    let one = Rules { max_vary_names: 1, ..Rules::default() };
    assert_eq!(names(&headers, &one), Err(Refusal::VaryNames));
}

#[test]
fn requests_that_mean_the_same_meet() {
    let coding = with("accept-encoding");
    let language = with("accept-language");
    let miss = "vary-miss";
    let get = |value: &str| format!("GET | accept-encoding: {value}");
    let lang = |value: &str| format!("GET | accept-language: {value}");
    check(
        &Rules::default(),
        &[
            (&get("gzip, deflate, br, zstd"), &coding, &get("br,gzip , deflate;q=0.5, ZSTD"), 0, "hit", "the same set"),
            (&get("gzip"), &coding, &get("gzip;q=0.1"), 0, "hit", "taken"),
            (&get("gzip"), &coding, &get("x-gzip"), 0, "hit", "RFC 9110, 8.4.1.3"),
            (&get("gzip"), &coding, &get("gzip, br;q=0"), 0, miss, "some apps do not read weights"),
            (&get("gzip"), &coding, &get("gzip, identity"), 0, "hit", "always taken"),
            (&get("gzip"), &coding, &get("gzip, identity;q=0"), 0, miss, "RFC 9110, 12.5.3"),
            (&get("gzip"), &coding, &get("gzip, deflate"), 0, miss, "an app may choose it"),
            (&get("gzip"), &coding, &get("br"), 0, miss, "another set"),
            (&get("gzip"), &coding, &get("gzip, compress"), 0, miss, "what else there is"),
            (&get("gzip, dcb"), &coding, &get("gzip, dcb"), 0, "hit", "as it stands"),
            (&get("gzip, dcb"), &coding, &get("dcb, gzip"), 0, miss, "as it stands"),
            (&get("gzip"), &coding, &get("*"), 0, miss, "as it stands"),
            (&get("gzip"), &coding, &get("gzip;q=2"), 0, miss, "as it stands"),
            (&get("gzip, gzip;q=0"), &coding, &get("gzip"), 0, miss, "as it stands"),
            (&get(""), &coding, "GET", 0, miss, "RFC 9110, 12.5.3: nothing, or anything"),
            ("GET", &coding, &get("gzip"), 0, miss, "4.1"),
            (&lang("de-DE, en;q=0.5"), &language, &lang("DE-de,en; q=0.5"), 0, "hit", "RFC 9110, 12.5.4"),
            (&lang("de"), &language, &lang("en"), 0, miss, "4.1"),
            (&lang("de, en"), &language, &lang("en, de"), 0, miss, "their order counts for some"),
            (&lang("de"), &language, "GET", 0, miss, "4.1"),
            (&lang("de"), &language, &lang("d e"), 0, miss, "no language at all"),
            (&lang("de;q=0.5"), &language, &lang("de;q= 0.5"), 0, miss, "as it stands"),
            (&lang("de;q=0.5"), &language, &lang("de;Q=0.5"), 0, miss, "as it stands"),
            (&lang("de,en"), &language, &lang("de,  en"), 0, miss, "as it stands"),
            (&get("gzip;q=0"), &coding, &get(""), 0, miss, "some apps do not read weights"),
            (&get("gzip;q=0"), &coding, &get("identity"), 0, miss, "some apps do not read weights"),
        ],
    );
}

#[test]
fn what_never_reaches_the_app_does_not_count_and_what_differs_each_time_is_all() {
    for name in
        ["x-forwarded-proto", "X-Forwarded-Scheme", "x-forwarded-ssl", "x-forwarded-prefix", "connection", "te", "a_b"]
    {
        let response = with(name);
        check(
            &Rules::default(),
            &[(
                &format!("GET | {name}: 1"),
                &response,
                &format!("GET | {name}: 2"),
                0,
                "hit",
                "what clients send is dropped",
            )],
        );
    }
    for name in [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "x-request-start",
        "remote-user",
        "grip-sig",
    ] {
        check(&Rules::default(), &[("GET", &with(name), "GET", 0, "not stored: vary", "another each time")]);
    }
}

#[test]
fn a_line_that_a_server_may_cut_off_counts_as_it_stands() {
    let language = with("accept-language");
    let long = |end: &str| format!("GET | accept-language: {}{end}", "en,".repeat(150));
    check(&Rules::default(), &[(&long("de"), &language, &long(" de"), 0, "vary-miss", "as it stands")]);
}

#[test]
fn a_field_that_the_clients_connection_names_is_not_there() {
    for (name, value) in [("accept-language", "de"), ("accept-encoding", "gzip"), ("x-a", "1")] {
        let response = with(name);
        let named = format!("GET | {name}: {value} | connection: close, {name}");
        let plain = format!("GET | {name}: {value}");
        check(
            &Rules::default(),
            &[
                (&named, &response, &plain, 0, "vary-miss", "the app has not seen it"),
                (&plain, &response, &named, 0, "vary-miss", "the app would not see it"),
                (&named, &response, "GET", 0, "hit", "the same to the app"),
            ],
        );
    }
    // What is for every recipient cannot be named away.
    check(
        &Rules::default(),
        &[(
            "GET | cookie: a=1 | connection: cookie",
            &with("cookie"),
            "GET | cookie: a=1",
            0,
            "hit",
            "RFC 9110, 7.6.1",
        )],
    );
}

#[test]
fn what_the_edge_tells_of_who_asks_makes_every_answer_another() {
    let rules = Rules { identity: [HeaderName::from_static("x-groups")].into(), ..public() };
    check(&rules, &[("GET", &with("x-groups"), "GET", 0, "not stored: vary", "it is not what the client sends")]);
    check(&public(), &[("GET", &with("x-groups"), "GET", 0, "hit", "4.1")]);
}

#[test]
fn a_list_of_names_has_an_end() {
    let list = |count: usize| (0..count).map(|at| format!("x-{at}")).collect::<Vec<_>>().join(",");
    let names = |text: &str| names(&fields_of(&format!("vary: {text}")), &Rules::default());
    assert_eq!(names(&list(8)).unwrap().len(), 8);
    assert_eq!(names(&list(9)), Err(Refusal::VaryNames));
    assert_eq!(names(&[list(8), list(8)].join(",")).unwrap().len(), 8, "each once");
    assert_eq!(names(&[list(9), "*".into()].join(",")), Err(Refusal::VaryNames));
    assert_eq!(names("b, a, B").unwrap()[..], [HeaderName::from_static("a"), HeaderName::from_static("b")]);
    check(&Rules::default(), &[("GET", &with(&list(9)), "GET", 0, "not stored: vary-too-long", "bounded")]);
}

#[test]
fn the_names_of_a_key_only_grow() {
    let list = |text: &str| names(&fields_of(&format!("vary: {text}")), &Rules::default()).unwrap();
    let both = union(&list("cookie"), &list("accept-language, cookie"), 8).unwrap();
    assert_eq!(both, list("accept-language, cookie"));
    assert_eq!(union(&list("cookie"), &list(""), 8).unwrap(), list("cookie"), "a page that forgets it");
    assert_eq!(union(&list("a, b"), &list("c"), 2), Err(Refusal::VaryNames));
}

#[test]
fn a_thousand_cookies_do_not_push_out_what_the_others_share() {
    let mut known: Vec<Variant> = Vec::new();
    let store = |known: &mut Vec<Variant>, is_of_cookies, used| match admit(known, is_of_cookies, 16) {
        Admission::Beside => known.push(Variant { is_of_cookies, used }),
        Admission::InsteadOf(at) => known[at] = Variant { is_of_cookies, used },
        Admission::Refused => {}
    };
    store(&mut known, false, 0);
    for used in 1..1000 {
        store(&mut known, true, used);
    }
    let count = |known: &[Variant], of_cookies| known.iter().filter(|known| known.is_of_cookies == of_cookies).count();
    assert_eq!((count(&known, false), count(&known, true)), (1, 4));
    assert_eq!(known[0], Variant { is_of_cookies: false, used: 0 });
    assert!(known[1..].iter().all(|variant| variant.used >= 996), "of cookies the oldest goes");
    // Languages have all the room that is left, and then that of cookies, and then each other's.
    for used in 1000..1012 {
        store(&mut known, false, used);
    }
    assert_eq!((count(&known, false), count(&known, true)), (13, 3));
    for used in 1012..1100 {
        store(&mut known, false, used);
    }
    assert_eq!((count(&known, false), count(&known, true)), (16, 0));
    assert!(known.iter().all(|variant| variant.used >= 1084));
    assert_eq!(admit(&known, true, 16), Admission::Refused);
    assert_eq!(admit(&[], false, 0), Admission::Refused);
    assert_eq!(admit(&[], true, 1), Admission::Beside);
    assert_eq!(admit(&[Variant { is_of_cookies: true, used: 1 }], false, 1), Admission::InsteadOf(0));
}

#[test]
fn a_variant_is_of_cookies_when_both_sides_say_so() {
    let names = |text: &str| names(&fields_of(&format!("vary: {text}")), &Rules::default()).unwrap();
    assert!(is_of_cookies(&names("cookie"), true));
    assert!(!is_of_cookies(&names("cookie"), false));
    assert!(!is_of_cookies(&names("accept"), true));
}

fn key_of(names: &[HeaderName], headers: &HeaderMap) -> Key {
    variant(Key::from_bytes([1; 32]), names, headers, &Rules::default(), &mut Vec::new())
}

#[test]
fn more_cookies_than_are_put_in_order_count_as_they_stand() {
    let line = |from: usize, to: usize| (from..to).map(|at| format!("a{at:03}=1")).collect::<Vec<_>>().join("; ");
    let headers = |line: String| fields_of(&format!("cookie: {line}"));
    let names = [HeaderName::from_static("cookie")];
    let key = |line: String| key_of(&names, &headers(line));
    assert_eq!(key(line(0, 64)), key([line(32, 64), line(0, 32)].join(";")));
    assert_ne!(key(line(0, 65)), key([line(32, 65), line(0, 32)].join(";")));
    assert_ne!(key(line(0, 65)), key(line(0, 64)));
    assert_eq!(key(line(0, 65)), key(line(0, 65)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_requests_that_differ_in_a_plain_field_meet(
        one in proptest::collection::vec(("[ab]", "[a-c, ]{0,4}"), 0..5), other in proptest::collection::vec(("[ab]", "[a-c, ]{0,4}"), 0..5),
    ) {
        let map = |list: &[(String, String)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value.trim()).unwrap());
            }
            headers
        };
        let (one, other) = (map(&one), map(&other));
        let names = [HeaderName::from_static("a"), HeaderName::from_static("b")];
        let lines = |headers: &HeaderMap| {
            names.iter().map(|name| headers.get_all(name).iter().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        prop_assert_eq!(key_of(&names, &one) == key_of(&names, &other), lines(&one) == lines(&other));
    }

    #[test]
    fn cookies_meet_when_they_are_the_same_set(order in Just(vec!["a=1", "b=2", "c=3", "csrftoken=x"]).prop_shuffle(), added in "[a-z]{1,4}") {
        let names = [HeaderName::from_static("cookie")];
        let key = |line: String| key_of(&names, &fields_of(&format!("cookie: {line}")));
        let first = key("a=1; b=2; c=3; csrftoken=x".into());
        prop_assert_eq!(key(order.join("; ")), first);
        prop_assert_ne!(key(format!("{}; {added}=9", order.join(";"))), first);
        prop_assert_ne!(key(order[1..].join("; ")), first);
    }

    #[test]
    fn no_value_is_that_of_a_request_without_it(name in "(accept-encoding|accept-language|cookie|x)", value in "[-a-z=;,*q.0-9\" \u{e9}]{0,40}") {
        let headers = fields_of(&format!("{name}: {}", value.replace('|', "")));
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let names = [name.clone()];
        let counts = name != "cookie" || Asked::of(&Method::GET, &headers, Context::default(), &Rules::default()).has_cookies();
        prop_assert_eq!(key_of(&names, &headers) != key_of(&names, &HeaderMap::new()), counts);
    }
}
