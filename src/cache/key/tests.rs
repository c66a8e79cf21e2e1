//! Keys: that nothing makes two requests meet that are not the same.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn base(route: [&str; 2], upstream: &str) -> &'static Base {
    Box::leak(Box::new(Base::new(route, upstream)))
}

fn parts<'a>(headers: &'a HeaderMap) -> Parts<'a> {
    Parts {
        base: base(["shop.example", "/"], "app"),
        is_secure: true,
        host: b"shop.example",
        path: "/a",
        query: "?b=c",
        headers,
    }
}

fn key(by: &By, parts: &Parts<'_>) -> Key {
    by.key(parts, &mut Vec::new())
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn requests_for_the_same_have_the_same_key_and_others_another() {
    let none = HeaderMap::new();
    let first = parts(&none);
    let by = By::default();
    let same = Parts { host: b"SHOP.example", ..first };
    assert_eq!(key(&by, &same), key(&by, &first), "hosts have no case");
    let with_cookie = headers(&[("cookie", "a=1"), ("x-a", "1")]);
    assert_eq!(
        key(&by, &Parts { headers: &with_cookie, ..first }),
        key(&by, &first),
        "what is not named does not count"
    );
    for other in [
        Parts { path: "/A", ..first },
        Parts { path: "/%61", ..first },
        Parts { path: "/a/", ..first },
        Parts { path: "/a?b=c", query: "", ..first },
        Parts { path: "/a?", query: "b=c", ..first },
        Parts { query: "", ..first },
        Parts { query: "?", ..first },
        Parts { query: "?b=C", ..first },
        Parts { query: "?c&b", ..first },
        Parts { host: b"shop.example:8443", ..first },
        Parts { host: b"shop.example.", ..first },
        Parts { host: b"shop.exampl", path: "e/a", ..first },
        Parts { is_secure: false, ..first },
        Parts { base: base(["shop.example", "/"], "other"), ..first },
        Parts { base: base(["shop.example", "/a"], "app"), ..first },
        Parts { base: base(["any", "/"], "app"), ..first },
        Parts { base: base(["shop.example/", ""], "app"), ..first },
    ] {
        assert_ne!(key(&by, &other), key(&by, &first), "{other:?}");
    }
}

#[test]
fn a_key_is_the_same_in_every_process() {
    // What lies on a disk is found again by it.
    let none = HeaderMap::new();
    let key = key(&By::default(), &parts(&none));
    assert_eq!(Key::from_bytes(*key.as_bytes()), key);
    assert_eq!(format!("{key:?}"), "fe990a8fa4fbfcf3bafa897d1a164ed68d3e8d049bea3f4b2e8314101438b11b");
}

#[test]
fn parts_that_are_named_count_and_no_others() {
    let by = By::new(vec![
        Part::Path,
        Part::Parameter("page".into()),
        Part::Header("x-beta".parse().unwrap()),
        Part::cookie("lang"),
    ]);
    let none = HeaderMap::new();
    let first = parts(&none);
    let of =
        |query: &str, fields: &[(&'static str, &str)]| key(&by, &Parts { query, headers: &headers(fields), ..first });
    let plain = of("?page=1", &[]);
    for (query, fields, is_same) in [
        ("?page=1&utm_source=x", &[][..], true),
        ("?utm_source=x&page=1", &[], true),
        ("?page=1", &[("cookie", "a=1; xlang=2")], true),
        ("?page=1", &[("x-other", "1")], true),
        ("?page=2", &[], false),
        ("?", &[], false),
        ("?page", &[], false),
        ("?page=", &[], false),
        ("?Page=1", &[], false),
        ("?page=1&page=2", &[], false),
        ("?page=1&%70age=2", &[], false),
        ("?page=1&p%61ge=2", &[], false),
        ("?page=1&a=1;page=2", &[], false),
        ("?page=1;a=2", &[], false),
        ("?page=1", &[("x-beta", "")], false),
        ("?page=1", &[("x-beta", "1")], false),
        ("?page=1", &[("cookie", "lang=de")], false),
        ("?page=1", &[("cookie", "a=1,lang=de")], false),
        ("?page=1", &[("cookie", "a=1; lang =de")], false),
    ] {
        assert_eq!(of(query, fields) == plain, is_same, "{query} {fields:?}");
    }
    assert_ne!(of("", &[("x-beta", "1"), ("x-beta", "2")]), of("", &[("x-beta", "1, 2")]));
    assert_ne!(of("", &[("x-beta", "1"), ("x-beta", "2")]), of("", &[("x-beta", "2"), ("x-beta", "1")]));
    // What the client's Connection names does not reach the app.
    assert_eq!(of("", &[("x-beta", "1"), ("connection", "x-beta")]), of("", &[]));
    assert_ne!(of("", &[("x-beta", "1"), ("connection", "x-other")]), of("", &[]));
    assert_eq!(of("", &[("cookie", "lang=de; a=1")]), of("", &[("cookie", "b=2; lang=de")]));
    assert_ne!(
        of("", &[("cookie", "lang=de; lang=en")]),
        of("", &[("cookie", "lang=en; lang=de")]),
        "servers take either"
    );
}

#[test]
fn another_configuration_of_a_route_has_other_keys() {
    let none = HeaderMap::new();
    let first = Parts { query: "", ..parts(&none) };
    let all = [
        By::new(vec![]),
        By::new(vec![Part::Path]),
        By::new(vec![Part::Host, Part::Path]),
        By::new(vec![Part::Path, Part::Host]),
        By::default(),
        By::new(vec![Part::Host, Part::Path, Part::Parameter("a".into())]),
        By::new(vec![Part::Host, Part::Path, Part::Parameter("b".into())]),
        By::new(vec![Part::Host, Part::Path, Part::Header("a".parse().unwrap())]),
        By::new(vec![Part::Host, Part::Path, Part::cookie("a")]),
    ];
    let keys: std::collections::HashSet<Key> = all.iter().map(|by| key(by, &first)).collect();
    assert_eq!(keys.len(), all.len());
}

#[test]
fn a_configuration_is_compiled_part_by_part() {
    let written = [
        CacheBy::Host,
        CacheBy::Path,
        CacheBy::Query,
        CacheBy::Parameter("a".into()),
        CacheBy::Header("x-a".into()),
        CacheBy::Cookie("c".into()),
    ];
    let by_hand = By::new(vec![
        Part::Host,
        Part::Path,
        Part::Query,
        Part::Parameter("a".into()),
        Part::Header("x-a".parse().unwrap()),
        Part::cookie("c"),
    ]);
    let headers = headers(&[("x-a", "1"), ("cookie", "c=2")]);
    let request = Parts { query: "?a=1", ..parts(&headers) };
    assert_eq!(key(&By::compile(&written), &request), key(&by_hand, &request));
    let default = crate::config::RouteCache::default();
    assert_eq!(key(&By::compile(&default.by), &request), key(&By::default(), &request));
}

#[test]
fn memory_that_was_used_before_leaves_nothing_behind() {
    let none = HeaderMap::new();
    let first = parts(&none);
    let by = By::default();
    let mut scratch = b"something else that is longer than it needs to be".repeat(10);
    assert_eq!(by.key(&first, &mut scratch), key(&by, &first));
    let capacity = scratch.capacity();
    let _ = by.key(&first, &mut scratch);
    assert_eq!(scratch.capacity(), capacity, "nothing is allocated the second time");
}

/// What was framed, read back: only one thing can have made these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    List(Vec<Piece>),
}

fn write(framed: &mut Framed<'_>, piece: &Piece) {
    match piece {
        Piece::Bytes(bytes) => framed.put(bytes),
        Piece::List(pieces) => framed.list(|framed| pieces.iter().for_each(|piece| write(framed, piece))),
    }
}

fn read(bytes: &[u8]) -> (Piece, &[u8]) {
    let (length, mut rest) = bytes.split_first_chunk::<4>().unwrap();
    let length = u32::from_le_bytes(*length);
    if length & LIST == 0 {
        let (bytes, rest) = rest.split_at(length as usize);
        return (Piece::Bytes(bytes.to_vec()), rest);
    }
    let mut pieces = Vec::new();
    for _ in 0..length & !LIST {
        let (piece, after) = read(rest);
        pieces.push(piece);
        rest = after;
    }
    (Piece::List(pieces), rest)
}

fn piece() -> impl Strategy<Value = Piece> {
    let leaf = proptest::collection::vec(any::<u8>(), 0..6).prop_map(Piece::Bytes);
    leaf.prop_recursive(3, 16, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Piece::List))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_framed_can_be_read_back(pieces in proptest::collection::vec(piece(), 0..5)) {
        let mut bytes = Vec::new();
        let mut framed = Framed::new(&mut bytes, b"test");
        pieces.iter().for_each(|piece| write(&mut framed, piece));
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (piece, after) = read(rest);
            found.push(piece);
            rest = after;
        }
        prop_assert_eq!(&found[2..], &pieces[..]);
    }

    #[test]
    fn keys_are_the_same_when_all_parts_are(
        one in ("[ab/]{0,3}", "[ab/]{0,3}", "[ab/?]{0,3}", "[ab/&=?]{0,3}", any::<bool>()),
        other in ("[ab/]{0,3}", "[ab/]{0,3}", "[ab/?]{0,3}", "[ab/&=?]{0,3}", any::<bool>()),
    ) {
        let none = HeaderMap::new();
        let of = |(upstream, host, path, query, is_secure): &(String, String, String, String, bool)| {
            key(&By::default(), &Parts { base: base(["s", "r"], upstream), host: host.as_bytes(), path, query, is_secure: *is_secure, headers: &none })
        };
        prop_assert_eq!(of(&one) == of(&other), one == other);
    }

    #[test]
    fn no_spelling_of_a_named_parameter_goes_unseen(value in "[a-z]{1,4}", others in "[a-z=&;]{0,8}", escape in 0_usize..4) {
        let none = HeaderMap::new();
        let by = By::new(vec![Part::Path, Part::Parameter("page".into())]);
        let name: String = "page".bytes().enumerate().map(|(at, byte)| {
            if at == escape { format!("%{byte:02X}") } else { char::from(byte).to_string() }
        }).collect();
        let (without, with) = (format!("?{others}"), format!("?{others}&{name}={value}"));
        let of = |query: &str| key(&by, &Parts { query, ..parts(&none) });
        prop_assert_ne!(of(&without), of(&with));
    }
}
