//! Which fields are stored (3.1).

use super::*;

#[test]
fn what_is_for_one_connection_or_one_client_is_not_stored() {
    let storable = stored(
        "200 | cache-control: max-age=60, private=\"x-p\", no-cache=\"x-n\" | content-type: text/html | content-length: 5 | age: 1 \
         | connection: close, x-hop | x-hop: 1 | keep-alive: 1 | proxy-connection: x | te: x | trailer: x | upgrade: x \
         | transfer-encoding: chunked | proxy-authenticate: x | proxy-authorization: x | proxy-authentication-info: x \
         | proxy-status: up | authentication-info: x | x-accel-expires: 60 | x-accel-buffering: no | x-sendfile: /x \
         | surrogate-control: max-age=60 | surrogate-key: a b | grip-hold: x | x-request-id: 7 | x-p: 1 | x-n: 1 | x-kept: 1 | x-kept: 2 \
         | cdn-cache-control: max-age=5, private=\"x-p\", no-cache=\"x-n\" | etag: \"a\" | cache-status: app; hit",
        &Rules::default(),
    );
    assert_eq!(
        lines(&storable.fields),
        [
            "cache-control: max-age=60, private=\"x-p\", no-cache=\"x-n\"",
            "cache-status: app; hit",
            "cdn-cache-control: max-age=5, private=\"x-p\", no-cache=\"x-n\"",
            "content-type: text/html",
            "date: Fri, 15 Jan 2027 08:00:00 GMT",
            "etag: \"a\"",
            "proxy-status: up",
            "surrogate-key: a b",
            "x-kept: 1",
            "x-kept: 2",
        ]
    );
}

#[test]
fn a_cookie_that_is_the_first_clients_alone_is_left_out() {
    let storable = stored(
        "200 | cache-control: max-age=60, no-cache=\"Set-Cookie\" | set-cookie: a=1 | date: {-5}",
        &Rules::default(),
    );
    assert_eq!(
        lines(&storable.fields),
        ["cache-control: max-age=60, no-cache=\"Set-Cookie\"", "date: Fri, 15 Jan 2027 07:59:55 GMT"]
    );
}

#[test]
fn a_304_has_what_tells_of_the_response_and_nothing_of_its_content() {
    for (name, is_there) in [
        ("cache-control", true),
        ("content-location", true),
        ("date", true),
        ("etag", true),
        ("expires", true),
        ("vary", true),
        ("access-control-allow-origin", true),
        ("content-security-policy", true),
        ("x-frame-options", true),
        ("last-modified", false),
        ("content-type", false),
        ("content-encoding", false),
        ("content-language", false),
        ("content-range", false),
        ("content-disposition", false),
        ("accept-ranges", false),
    ] {
        assert_eq!(super::super::fields::is_of_304(&HeaderName::from_static(name), true), is_there, "{name}");
    }
    assert!(super::super::fields::is_of_304(&HeaderName::from_static("last-modified"), false));
}
