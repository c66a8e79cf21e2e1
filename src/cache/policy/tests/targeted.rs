//! `CDN-Cache-Control` and `Surrogate-Control`.

use proptest::prelude::*;

use super::*;
use crate::cache::policy::targeted::dictionary;

#[test]
fn a_dictionary_is_read_strictly() {
    for (text, expected) in [
        ("max-age=60", Some("max-age=60")),
        ("max-age=60, public;a=b;c, must-revalidate", Some("public, must-revalidate, max-age=60")),
        ("max-age=60;x=\"y\"", Some("max-age=60")),
        ("no-store, max-age=99999999999", Some("no-store, max-age=2147483648")),
        ("max-age=1, max-age=60", Some("max-age=60")),
        ("max-age=-1", Some("max-age=0")),
        ("no-store, no-store=?0", Some("")),
        ("no-cache=\"set-cookie\"", Some("no-cache=\"set-cookie\"")),
        ("no-cache=set-cookie", Some("no-cache=\"set-cookie\"")),
        ("private=\"a, b\"", Some("private=\"a, b\"")),
        ("private=\"a b\"", Some("private")),
        ("private=\"a\\\"b\"", Some("private")),
        ("private=\"a\", private", Some("private")),
        ("private, private=?0", Some("")),
        ("  max-age=60  ", Some("max-age=60")),
        ("a=1.5, b=:YQ==:, c=@5, d=(1 2;x \"a\"), e=%\"x\", f=?1, max-age=60", Some("max-age=60")),
        ("unheard-of", Some("")),
        // Ignored whole.
        ("", None),
        ("max-age=60,", None),
        ("max-age=60,,public", None),
        ("max-age =60", None),
        ("max-age= 60", None),
        ("Max-Age=60", None),
        ("max-age=10000, &&&&&", None),
        ("max-age=\"10000\"", None),
        ("max-age=60.0", None),
        ("max-age=abc", None),
        ("max-age", None),
        ("max-age=1234567890123456", None),
        ("max-age=60 public", None),
        ("max-age=60; ", None),
        ("no-store=1", None),
        ("no-store=\"\"", None),
        ("no-cache=1", None),
        ("private=\"a", None),
        ("private=\"a\\n\"", None),
        ("a=(1", None),
        ("a=(1\"b\")", None),
        ("a=?2", None),
        ("a=@1.5", None),
        ("a=:b", None),
        ("a=1.", None),
        ("a=1.2345", None),
        ("a=-", None),
        ("max-age=60\u{e9}", None),
    ] {
        assert_eq!(dictionary(text.as_bytes()).map(|control| control.to_string()).as_deref(), expected, "{text:?}");
    }
    assert_eq!(dictionary(&b"a, ".repeat(2000)), None, "longer than any that is meant");
}

#[test]
fn one_that_is_not_valid_is_as_if_it_were_not_there() {
    let get = "GET";
    check(
        &Rules::default(),
        &[
            (get, "200 | cdn-cache-control: max-age=60", "", 30, "hit", "RFC 9213, 3"),
            (get, "200 | cdn-cache-control: max-age=60 | cache-control: no-store", "", 30, "hit", "RFC 9213, 2.2"),
            (get, "200 | cdn-cache-control: max-age=60 | cache-control: private", "", 30, "hit", "RFC 9213, 2.2"),
            (
                get,
                "200 | cdn-cache-control: no-store | cache-control: max-age=60",
                "",
                0,
                "not stored: no-store",
                "RFC 9213, 2.2",
            ),
            (
                get,
                "200 | cdn-cache-control: private | cache-control: max-age=60 | expires: {60}",
                "",
                0,
                "not stored: private",
                "RFC 9213, 2.2",
            ),
            (
                get,
                "200 | cdn-cache-control: no-cache | cache-control: max-age=60 | etag: \"a\"",
                "",
                0,
                "revalidate: no-cache",
                "RFC 9213, 2.2",
            ),
            (
                get,
                "200 | cdn-cache-control: max-age=0 | cache-control: max-age=60",
                "",
                0,
                "not stored: stale",
                "RFC 9213, 2.2",
            ),
            (
                get,
                "200 | cdn-cache-control: max-age=60, &&& | cache-control: no-store",
                "",
                0,
                "not stored: no-store",
                "RFC 9213, 2.1",
            ),
            (
                get,
                "200 | cdn-cache-control: max-age=\"60\" | cache-control: no-store",
                "",
                0,
                "not stored: no-store",
                "RFC 9213, 2.1",
            ),
            (
                get,
                "200 | cdn-cache-control: max-age =60 | cache-control: max-age=1",
                "",
                30,
                "revalidate",
                "RFC 9213, 2.1",
            ),
            (get, "200 | cdn-cache-control: | cache-control: max-age=60", "", 30, "hit", "RFC 9213, 2.2: empty"),
            (get, "200 | cdn-cache-control: max-age=60 | cdn-cache-control: public", "", 30, "hit", "two lines"),
            (
                get,
                "200 | cdn-cache-control: max-age=60 | cdn-cache-control: &",
                "",
                0,
                "not stored: no-freshness",
                "two lines",
            ),
            (get, "200 | cdn-cache-control: max-age=3600 | age: 7200 | etag: \"a\"", "", 0, "revalidate", "4.2.3"),
            (get, "200 | cdn-cache-control: max-age=60 | set-cookie: a=1", "", 0, "not stored: set-cookie", "7.3"),
            (get, "200 | surrogate-control: max-age=60", "", 30, "hit", "Edge Architecture"),
            (get, "200 | surrogate-control: max-age=60 | cache-control: no-store", "", 30, "hit", "Edge Architecture"),
            (
                get,
                "200 | surrogate-control: no-store | cache-control: max-age=60",
                "",
                0,
                "not stored: no-store",
                "Edge Architecture",
            ),
            (get, "200 | surrogate-control: no-store, max-age=60", "", 0, "not stored: no-store", "Edge Architecture"),
            (
                get,
                "200 | surrogate-control: content=\"ESI/1.0\" | cache-control: max-age=60",
                "",
                30,
                "hit",
                "ESI is another's",
            ),
            (get, "200 | surrogate-control: content=\"ESI/1.0, no-store\", max-age=60", "", 30, "hit", "in quotes"),
            (get, "200 | surrogate-control: no-store-remote, max-age=60", "", 30, "hit", "near the app"),
            (
                get,
                "200 | surrogate-control: max-age=1;other | cache-control: max-age=60",
                "",
                30,
                "hit",
                "aimed at another",
            ),
            (get, "200 | surrogate-control: max-age=60, max-age=1", "", 30, "revalidate", "the shorter"),
            (get, "200 | surrogate-control: max-age=x, no-x | etag: \"a\"", "", 0, "revalidate", "unreadable"),
            (get, "200 | surrogate-control: max-age=60+x | etag: \"a\"", "", 0, "revalidate", "unreadable"),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(text: Vec<u8>) {
        let _ = dictionary(&text);
    }

    #[test]
    fn what_is_read_strictly_is_read_leniently_as_well(text in "(max-age=[0-9]{1,9}|public|no-store|private|x=[a-z]{0,3}|, |;a|=|\"| ){0,8}") {
        // Where no name stands there twice, which counts differently.
        let names: Vec<&str> = text.split(',').map(|member| member.trim().split(['=', ';']).next().unwrap()).collect();
        let is_plain = !text.contains(';') && names.iter().all(|name| names.iter().filter(|other| other == &name).count() == 1);
        if let Some(control) = dictionary(text.as_bytes()).filter(|_| is_plain) {
            prop_assert_eq!(control, CacheControl::parse(text.as_bytes()));
        }
    }
}
