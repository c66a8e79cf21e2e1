//! The parser of `Cache-Control`.

use proptest::prelude::*;

use super::*;
use crate::cache::policy::cache_control::{Flags, MAX_NAMES, MAX_SECONDS};

/// A line as it is read.
fn read(line: &str) -> String {
    CacheControl::parse(line.as_bytes()).to_string()
}

#[test]
fn a_list_is_read_as_it_is_meant() {
    for (line, expected) in [
        ("", ""),
        (",, ,", ""),
        ("no-store", "no-store"),
        ("NO-STORE ,Private", "no-store, private"),
        ("max-age=1,s-maxage=2", "max-age=1, s-maxage=2"),
        ("public,max-age=60,immutable", "public, immutable, max-age=60"),
        ("stale-if-error=1, stale-while-revalidate=2", "stale-while-revalidate=2, stale-if-error=1"),
        ("no-cache=\"Set-Cookie, x-a\"", "no-cache=\"set-cookie, x-a\""),
        ("no-cache=\"a\", no-cache=\"b\"", "no-cache=\"a, b\""),
        ("no-cache=\" , a ,,b\"", "no-cache=\"a, b\""),
        ("private=x-a", "private=\"x-a\""),
        ("private=\"x\\-a\"", "private=\"x-a\""),
        ("private=\"a;b\"", "private"),
        ("private = \"x-a\"", "private, ;"),
        ("private=\"x-a\" y", "private, ;"),
        ("max-age=1, max-age", "max-age=0"),
        ("max-age=9999999999", "max-age=2147483648"),
        ("must-revalidate", "must-revalidate"),
        ("must-revalidate=x", "must-revalidate=0"),
        ("must-revalidate=x, must-revalidate", "must-revalidate"),
        ("public=\"\"", ""),
        ("a=\"no-store\"", ""),
        ("a=\"\\\", no-store\"", ""),
        ("a=\"b\\", ";"),
        ("a=\"b, no-store", "no-store, ;"),
        ("a=b\"c, no-store\"", "no-store, ;"),
        ("=, =no-store, no-store=", "no-store, ;"),
        ("private; max-age=5", "private, ;"),
        ("max-age=5; No-Store", "no-store, ;, max-age=0"),
        ("max-age=\"5\" no-cache", "no-cache, ;, max-age=0"),
        ("no-store private", "no-store, private, ;"),
        ("x-private; y", ";"),
        ("a-directive-that-is-longer-than-any-that-is-known=1, no-store", "no-store"),
        ("proxy-revalidate, no-transform, must-understand", "proxy-revalidate, must-understand, no-transform"),
    ] {
        assert_eq!(read(line), expected, "{line}");
    }
    let bytes = CacheControl::parse(b"\xff\xfe, no-store, \x80=\"\xff\"");
    assert_eq!(bytes.to_string(), "no-store, ;", "what is no text hides nothing");
}

#[test]
fn lines_are_one_list_but_a_quote_ends_with_its_line() {
    let of = |lines: &[&'static str]| {
        let lines: Vec<HeaderValue> = lines.iter().map(|line| HeaderValue::from_static(line)).collect();
        CacheControl::of(&lines).to_string()
    };
    assert_eq!(of(&["max-age=5", "max-age=3, public"]), "public, max-age=3");
    assert_eq!(of(&["a=\"", "no-store", "\""]), "no-store, ;");
}

#[test]
fn names_have_an_end() {
    let list = |count: usize| (0..count).map(|at| format!("x-{at}")).collect::<Vec<_>>().join(",");
    let parse = |count| CacheControl::parse(format!("private=\"{}\"", list(count)).as_bytes());
    assert_eq!(parse(MAX_NAMES).private.len(), MAX_NAMES);
    assert!(parse(MAX_NAMES + 1).flags.has(Flags::PRIVATE), "all of it");
    let twice = CacheControl::parse(format!("private=\"{}\", private=a", list(MAX_NAMES)).as_bytes());
    assert!(twice.flags.has(Flags::PRIVATE));
}

fn directive() -> impl Strategy<Value = String> {
    prop_oneof![
        "(no-store|no-cache|private|public|must-revalidate|proxy-revalidate|must-understand|no-transform|immutable)",
        "(max-age|s-maxage|stale-while-revalidate|stale-if-error)=\"?[0-9]{0,12}\"?",
        "(private|no-cache)=\"[a-c, -]{0,8}\"",
        "[-a-zA-Z=;\" \\\\]{0,16}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm_and_what_is_read_is_read_again(line: Vec<u8>) {
        let control = CacheControl::parse(&line);
        prop_assert_eq!(CacheControl::parse(control.to_string().as_bytes()), control);
    }

    #[test]
    fn what_is_written_is_read_back(line in proptest::collection::vec(directive(), 0..8)) {
        let control = CacheControl::parse(line.join(", ").as_bytes());
        prop_assert_eq!(CacheControl::parse(control.to_string().as_bytes()), control.clone());
        for seconds in [control.max_age, control.s_maxage, control.stale_if_error].into_iter().flatten() {
            prop_assert!(seconds <= MAX_SECONDS);
        }
    }

    #[test]
    fn the_most_restrictive_of_two_lines_counts(
        one in proptest::collection::vec(directive(), 0..5), other in proptest::collection::vec(directive(), 0..5),
    ) {
        let value = |list: &[String]| HeaderValue::from_str(&list.join(",")).unwrap();
        let lines = [value(&one), value(&other)];
        let both = CacheControl::of(&lines);
        let [one, other] = lines.map(|line| CacheControl::parse(line.as_bytes()));
        for flag in [Flags::NO_STORE, Flags::NO_CACHE, Flags::PRIVATE, Flags::MUST_REVALIDATE, Flags::PROXY_REVALIDATE] {
            prop_assert!(both.flags.has(flag) || !(one.flags.has(flag) || other.flags.has(flag)));
        }
        let least = |one: Option<u32>, other: Option<u32>| one.into_iter().chain(other).min();
        prop_assert_eq!(both.max_age, least(one.max_age, other.max_age));
        prop_assert_eq!(both.s_maxage, least(one.s_maxage, other.s_maxage));
        prop_assert_eq!(both.stale_if_error, least(one.stale_if_error, other.stale_if_error));
        for name in one.private.iter().chain(&other.private) {
            prop_assert!(both.private.contains(name) || both.flags.has(Flags::PRIVATE));
        }
    }

    #[test]
    fn a_word_that_is_added_never_makes_something_storable(
        list in proptest::collection::vec(directive(), 0..6), at in 0_usize..6, word in 0_usize..2,
    ) {
        let mut list = list.into_iter().filter(|directive| !directive.contains(['"', '\\'])).collect::<Vec<_>>();
        list.retain(|directive| !directive.contains("must-understand"));
        list.insert(at.min(list.len()), ["no-store", "private"][word].to_owned());
        let response = format!("200 | cache-control: max-age=60, {}", list.join(", "));
        prop_assert!(outcome(&micro(10), "GET", &response, "GET", 0).starts_with("not stored"), "{}", response);
    }
}
