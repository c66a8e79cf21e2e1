//! What of a stored response is sent (4.3.2; RFC 9110, 13 and 14).

use super::*;
use crate::cache::policy::conditional::{Part, part};
use crate::http::range::ByteRange;

fn sent(first: &str, asked: &str) -> String {
    let (status, stored) = answer(first);
    let (method, headers) = request(asked);
    match part(&method, &headers, status, &stored, Some(100)) {
        Part::Whole => "whole".into(),
        Part::NotModified => "304".into(),
        Part::One(ByteRange { first, last }) => format!("{first}-{last}"),
        Part::Many(parts) => format!("{} parts", parts.len()),
        Part::Unsatisfiable => "416".into(),
    }
}

#[test]
fn a_client_that_has_it_is_told_so_and_one_that_wants_a_part_gets_it() {
    let tagged = "200 | date: {0} | etag: \"a\"";
    let dated = "200 | date: {0} | last-modified: {-60}";
    let both = "200 | date: {0} | etag: \"a\" | last-modified: {-60}";
    for (first, asked, expected, section) in [
        (tagged, "GET", "whole", "4"),
        (tagged, "GET | if-none-match: \"a\"", "304", "4.3.2"),
        (tagged, "HEAD | if-none-match: \"a\"", "304", "4.3.2"),
        (tagged, "GET | if-none-match: W/\"a\"", "304", "RFC 9110, 13.1.2"),
        (tagged, "GET | if-none-match: \"b\", \"a\", \"c\"", "304", "RFC 9110, 13.1.2"),
        (tagged, "GET | if-none-match: \"b\" | if-none-match: \"a\"", "304", "RFC 9110, 13.1.2"),
        (tagged, "GET | if-none-match: *", "304", "RFC 9110, 13.1.2"),
        (tagged, "GET | if-none-match: \"b\"", "whole", "RFC 9110, 13.1.2"),
        (tagged, "GET | if-none-match: a", "whole", "RFC 9110, 8.8.3"),
        ("200 | etag: W/\"a\"", "GET | if-none-match: \"a\"", "304", "RFC 9110, 13.1.2"),
        ("200", "GET | if-none-match: \"a\"", "whole", "RFC 9110, 13.1.2"),
        (both, "GET | if-none-match: \"b\" | if-modified-since: {0}", "whole", "RFC 9110, 13.1.3: the tag goes first"),
        (both, "GET | if-none-match: \"a\" | if-modified-since: {-99}", "304", "RFC 9110, 13.1.3"),
        (dated, "GET | if-modified-since: {-60}", "304", "4.3.2"),
        (dated, "GET | if-modified-since: {-59}", "304", "4.3.2"),
        (dated, "GET | if-modified-since: {-61}", "whole", "4.3.2"),
        (dated, "GET | if-modified-since: yesterday", "whole", "RFC 9110, 13.1.3"),
        (tagged, "GET | if-modified-since: {0}", "304", "4.3.2: Date in place of Last-Modified"),
        (tagged, "GET | if-modified-since: {-1}", "whole", "4.3.2: Date in place of Last-Modified"),
        ("404 | etag: \"a\"", "GET | if-none-match: \"a\"", "whole", "RFC 9110, 13.2.1"),
        ("301 | last-modified: {-60}", "GET | if-modified-since: {0}", "whole", "RFC 9110, 13.2.1"),
        (tagged, "GET | range: bytes=0-9", "0-9", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=90-", "90-99", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=-10", "90-99", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=0-0,9-9", "2 parts", "RFC 9110, 14.6"),
        ("200 | content-encoding: gzip", "GET | range: bytes=0-0,9-9", "whole", "of what is coded no parts"),
        ("200 | content-encoding: gzip", "GET | range: bytes=0-9", "0-9", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=100-", "416", "RFC 9110, 15.5.17"),
        (tagged, "GET | range: lines=1-2", "whole", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=5-2", "whole", "RFC 9110, 14.1.1"),
        (tagged, "GET | range: bytes=0-1 | range: bytes=2-3", "whole", "two lines"),
        (tagged, "HEAD | range: bytes=0-9", "whole", "RFC 9110, 14.2"),
        ("404", "GET | range: bytes=0-9", "whole", "RFC 9110, 14.2"),
        (tagged, "GET | range: bytes=0-9 | if-none-match: \"a\"", "304", "RFC 9110, 13.2.2"),
        (tagged, "GET | range: bytes=0-9 | if-range: \"a\"", "0-9", "RFC 9110, 13.1.5"),
        (tagged, "GET | range: bytes=0-9 | if-range: \"b\"", "whole", "RFC 9110, 13.1.5"),
        (tagged, "GET | range: bytes=0-9 | if-range: W/\"a\"", "whole", "RFC 9110, 13.1.5: strong"),
        ("200 | etag: W/\"a\"", "GET | range: bytes=0-9 | if-range: W/\"a\"", "whole", "RFC 9110, 13.1.5: strong"),
        (dated, "GET | range: bytes=0-9 | if-range: {-60}", "0-9", "RFC 9110, 13.1.5"),
        (dated, "GET | range: bytes=0-9 | if-range: {-59}", "whole", "RFC 9110, 13.1.5: exactly"),
        (tagged, "GET | range: bytes=0-9 | if-range: {0}", "whole", "Date is no validator"),
    ] {
        assert_eq!(sent(first, asked), expected, "{section}: {first} -> {asked}");
    }
}

#[test]
fn no_part_is_cut_out_of_what_is_still_coming() {
    let (status, stored) = answer("200 | etag: \"a\"");
    let (method, headers) = request("GET | range: bytes=0-9");
    assert_eq!(part(&method, &headers, status, &stored, None), Part::Whole);
    assert_eq!(part(&method, &headers, status, &stored, Some(0)), Part::Unsatisfiable);
}
