//! What methods that change things undo (4.4).

use proptest::prelude::*;

use super::*;
use crate::cache::policy::invalidate::{Origin, invalidates, targets};

#[test]
fn what_is_not_known_to_be_safe_and_does_not_fail_invalidates() {
    for (method, status, does) in [
        ("POST", 200, true),
        ("PUT", 201, true),
        ("DELETE", 204, true),
        ("PATCH", 200, true),
        ("M-SEARCH", 200, true),
        ("post", 200, true),
        ("POST", 302, true),
        ("POST", 303, true),
        ("POST", 400, false),
        ("POST", 404, false),
        ("DELETE", 500, false),
        ("PUT", 503, false),
        ("GET", 200, false),
        ("HEAD", 200, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
        ("PROPFIND", 207, false),
        ("QUERY", 200, false),
    ] {
        let method_ = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(invalidates(&method_, StatusCode::from_u16(status).unwrap()), does, "4.4: {method} {status}");
    }
}

#[test]
fn what_an_answer_names_on_its_own_origin_is_invalid_and_nothing_elsewhere() {
    let origin = Origin { is_secure: true, host: "Shop.example", path: "/cart/add" };
    for (location, expected) in [
        ("/items/7", Some("/items/7")),
        ("/items/7?a=b#c", Some("/items/7?a=b")),
        ("items", Some("/cart/items")),
        ("./items", Some("/cart/items")),
        ("../items", Some("/items")),
        ("../../../items/", Some("/items/")),
        (".", Some("/cart/")),
        ("..", Some("/")),
        ("?page=2", Some("/cart/add?page=2")),
        ("#top", None),
        ("", None),
        ("/a/./b/../c", Some("/a/c")),
        ("/?q=/../x", Some("/?q=/../x")),
        ("https://shop.example/a", Some("/a")),
        ("HTTPS://SHOP.EXAMPLE/a", Some("/a")),
        ("https://shop.example:443/a", Some("/a")),
        ("https://shop.example", Some("/")),
        ("https://shop.example?a", Some("/?a")),
        ("//shop.example/a", Some("/a")),
        // Another origin (MUST NOT).
        ("http://shop.example/a", None),
        ("https://shop.example:8443/a", None),
        ("https://other.example/a", None),
        ("//other.example/a", None),
        ("https://shop.example.evil/a", None),
        ("https://shop.example@evil/a", None),
        ("https://evil@shop.example/a", None),
        ("mailto:a@shop.example", None),
        ("https:/a", None),
        ("\u{e9}", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_bytes(location.as_bytes()).unwrap());
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(targets(&origin, &headers), expected, "4.4: {location}");
    }
    let nowhere = Origin { path: "", ..origin };
    assert_eq!(targets(&nowhere, &fields_of("location: a")), ["/a"]);
    let both = fields_of("location: /a | content-location: /b");
    assert_eq!(targets(&origin, &both), ["/a", "/b"]);
    assert_eq!(targets(&origin, &fields_of("location: /a | content-location: /a")), ["/a"]);
    let plain = Origin { is_secure: false, host: "shop.example:80", path: "/" };
    assert_eq!(targets(&plain, &fields_of("location: http://shop.example/a")), ["/a"]);
    assert_eq!(targets(&plain, &fields_of("location: b")), ["/b"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_named_begins_with_a_slash_and_has_no_dots(
        location in "(https?:|//|/|shop\\.example|\\.|\\?|#|a|:80|@|%2e){0,10}", path in "/[a/.]{0,8}", is_secure: bool,
    ) {
        let origin = Origin { is_secure, host: "shop.example", path: &path };
        for target in targets(&origin, &fields_of(&format!("location: {location}"))) {
            let named = target.split('?').next().unwrap();
            prop_assert!(named.starts_with('/'), "{target}");
            // The path of the request itself is as it was.
            prop_assert!(named == path || named.split('/').all(|segment| segment != "." && segment != ".."), "{target}");
        }
    }
}
