//! What survives of the app's answer where somebody else gives it.
//!
//! | field of the app | `X-Accel-Redirect`, as nginx has it | `X-Sendfile`, as Apache and lighttpd have it |
//! |---|---|---|
//! | `Set-Cookie` | beside the other's | stays |
//! | `Content-Type`, `Content-Disposition`, `Accept-Ranges` | instead of the other's | stays |
//! | `Cache-Control`, `Expires` | instead of both of the other's | stay, instead of both of the file's |
//! | `Content-Length`, `Content-Range`, `Content-Encoding`, `ETag`, `Last-Modified`, `Location` | dropped: they are the other's | dropped: they are the file's |
//! | any other | dropped | stays |
//!
//! The status is the other's. Of an answer that says that there is nothing, only cookies are added to.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::Response;

/// Who gives the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heir {
    /// A route of the site.
    Route,
    /// A file.
    File,
}

/// What nginx lets survive beside cookies and what caches go by.
const OF_CONTENT: [HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_DISPOSITION, header::ACCEPT_RANGES];
/// What says how long an answer is good.
const OF_CACHES: [HeaderName; 2] = [header::CACHE_CONTROL, header::EXPIRES];
/// What only whoever sends the bytes can say.
const OF_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_ENCODING,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LOCATION,
];

/// Puts what survives of `app` on an answer.
pub(super) fn inherit(response: &mut Response, app: &HeaderMap, heir: Heir) {
    append(response.headers_mut(), app, &header::SET_COOKIE);
    if response.status().is_client_error() || response.status().is_server_error() {
        return;
    }
    let headers = response.headers_mut();
    if OF_CACHES.iter().any(|name| app.contains_key(name)) {
        OF_CACHES.iter().for_each(|name| drop(headers.remove(name)));
    }
    for name in &OF_CACHES {
        append(headers, app, name);
    }
    for name in &OF_CONTENT {
        let is_of_parts = *name == header::CONTENT_TYPE && headers.get(name).is_some_and(is_multipart);
        if app.contains_key(name) && !is_of_parts {
            headers.remove(name);
            append(headers, app, name);
        }
    }
    if heir == Heir::File {
        let is_left = |name: &&HeaderName| {
            **name != header::SET_COOKIE
                && !OF_CACHES.contains(name)
                && !OF_CONTENT.contains(name)
                && !OF_BYTES.contains(name)
        };
        for name in app.keys().filter(is_left) {
            // A list that both add to.
            if *name != header::VARY {
                headers.remove(name);
            }
            append(headers, app, name);
        }
    }
}

fn append(headers: &mut HeaderMap, app: &HeaderMap, name: &HeaderName) {
    for value in app.get_all(name) {
        headers.append(name, value.clone());
    }
}

/// Whether a type is that of several parts of a file, each of which has the file's own.
fn is_multipart(value: &HeaderValue) -> bool {
    value.as_bytes().get(..20).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/byteranges"))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::http::Body;

    const APP: &[(&str, &str)] = &[
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-type", "application/pdf"),
        ("content-disposition", "attachment"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private"),
        ("cache-control", "max-age=5"),
        ("content-length", "1000"),
        ("content-range", "bytes 0-1/2"),
        ("content-encoding", "gzip"),
        ("etag", "\"app\""),
        ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("location", "/elsewhere"),
        ("x-content-type-options", "nosniff"),
        ("content-language", "de"),
        ("vary", "Cookie"),
    ];
    const OTHER: &[(&str, &str)] = &[
        ("set-cookie", "c=3"),
        ("content-type", "text/plain"),
        ("cache-control", "max-age=600"),
        ("expires", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("etag", "\"file\""),
        ("vary", "Accept-Encoding"),
        ("x-content-type-options", "other"),
    ];

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        map.extend(fields.iter().map(field));
        map
    }

    fn inherited(app: &HeaderMap, status: StatusCode, other: HeaderMap, heir: Heir) -> Vec<String> {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = other;
        inherit(&mut response, app, heir);
        assert_eq!(response.status(), status);
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<_> = response.headers().iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn of_a_route_nginxs_list_survives_and_nothing_else() {
        let lines = inherited(&map(APP), StatusCode::OK, map(OTHER), Heir::Route);
        assert_eq!(
            lines,
            [
                "accept-ranges: bytes",
                "cache-control: max-age=5",
                "cache-control: private",
                "content-disposition: attachment",
                "content-type: application/pdf",
                "etag: \"file\"",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "set-cookie: c=3",
                "vary: Accept-Encoding",
                "x-content-type-options: other",
            ]
        );
    }

    #[test]
    fn of_a_file_all_survives_that_is_not_the_files_own() {
        let lines = inherited(&map(APP), StatusCode::OK, map(OTHER), Heir::File);
        assert_eq!(
            lines,
            [
                "accept-ranges: bytes",
                "cache-control: max-age=5",
                "cache-control: private",
                "content-disposition: attachment",
                "content-language: de",
                "content-type: application/pdf",
                "etag: \"file\"",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "set-cookie: c=3",
                "vary: Accept-Encoding",
                "vary: Cookie",
                "x-content-type-options: nosniff",
            ]
        );
    }

    #[test]
    fn what_the_app_does_not_say_is_the_others() {
        for heir in [Heir::Route, Heir::File] {
            let mut expected = inherited(&HeaderMap::new(), StatusCode::OK, map(OTHER), heir);
            assert_eq!(expected.len(), OTHER.len());
            let expires = map(&[("expires", "0")]);
            expected.retain(|line| !line.starts_with("cache-control") && !line.starts_with("expires"));
            expected.push("expires: 0".to_owned());
            expected.sort();
            assert_eq!(inherited(&expires, StatusCode::OK, map(OTHER), heir), expected);
        }
    }

    #[test]
    fn a_page_that_says_there_is_nothing_is_not_what_the_app_described() {
        for status in [StatusCode::NOT_FOUND, StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::BAD_GATEWAY] {
            for heir in [Heir::Route, Heir::File] {
                let lines = inherited(&map(APP), status, map(&[("content-type", "text/html")]), heir);
                assert_eq!(lines, ["content-type: text/html", "set-cookie: a=1", "set-cookie: b=2"]);
            }
        }
    }

    #[test]
    fn parts_keep_the_type_that_tells_where_each_ends() {
        let other = map(&[("content-type", "multipart/byteranges; boundary=x")]);
        let lines = inherited(&map(APP), StatusCode::PARTIAL_CONTENT, other, Heir::Route);
        assert!(lines.contains(&"content-type: multipart/byteranges; boundary=x".to_owned()), "{lines:?}");
        assert!(lines.iter().filter(|line| line.starts_with("content-type")).count() == 1);
    }
}
