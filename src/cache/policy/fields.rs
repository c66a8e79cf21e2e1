//! Which fields of a response are stored (RFC 9111, 3.1), and which of those a 304 has.
//!
//! | not stored | because |
//! |---|---|
//! | what belongs to a connection, what `Connection` names, `Proxy-*` but `Proxy-Status` | 3.1 |
//! | `X-Accel-*`, `X-Sendfile`, `Grip-*`, `Surrogate-Control`, `X-Request-ID` | said to the edge alone, or by it |
//! | `Set-Cookie`, `Authentication-Info`, what `no-cache="…"` and `private="…"` name | for the first client alone |
//! | `Age`, `Content-Length` | written anew, from what is known |
//!
//! A response without `Date` gets one: that of its arrival (RFC 9110, 6.6.1).

use http::header::{self, HeaderMap, HeaderName};

use super::cache_control::CacheControl;
use crate::http::conditional::date_value;
use crate::http::fields;

/// The fields to store. `date`: see [`Said::date`](super::said::Said::date).
#[must_use]
pub fn stored(headers: &HeaderMap, control: &CacheControl, date: u64) -> HeaderMap {
    let named = fields::named_by_connection(headers);
    let mut kept = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        if is_stored(name) && !named.contains(name) && !control.keeps_back(name) {
            kept.append(name, value.clone());
        }
    }
    if !headers.contains_key(header::DATE)
        && let Some(value) = date_value(date)
    {
        kept.insert(header::DATE, value);
    }
    kept
}

/// Whether a field by this name is ever stored.
#[must_use]
pub fn is_stored(name: &HeaderName) -> bool {
    let text = name.as_str();
    let is_dropped = match text.as_bytes()[0] {
        b'a' => matches!(text, "age" | "authentication-info"),
        b'c' => text == "content-length",
        b'p' => text.starts_with("proxy-") && text != "proxy-status",
        b's' => matches!(text, "set-cookie" | "set-cookie2" | "surrogate-control"),
        _ => false,
    };
    !is_dropped && !fields::response_field_is_dropped(name)
}

/// Whether a 304 has a field by this name of the response that it stands for (RFC 9110, 15.4.5): all but what describes content
/// that does not follow. `Last-Modified` is left out where there is an `ETag`.
#[must_use]
pub fn is_of_304(name: &HeaderName, has_tag: bool) -> bool {
    match *name {
        header::LAST_MODIFIED => !has_tag,
        header::CONTENT_LOCATION | header::CONTENT_SECURITY_POLICY | header::CONTENT_SECURITY_POLICY_REPORT_ONLY => {
            true
        }
        header::ACCEPT_RANGES => false,
        _ => !name.as_str().starts_with("content-"),
    }
}

/// Whether what is stored of a field stays when a 304 brings another (RFC 9111, 3.2): what describes the bytes that are stored, of
/// which the 304 has none. An `ETag` that compares equal may be the weak one of the two.
#[must_use]
pub fn is_of_the_bytes(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_ENCODING | header::CONTENT_RANGE | header::ETAG)
        || matches!(name.as_str(), "content-digest" | "repr-digest" | "digest" | "content-md5")
}
