//! The names by which an app is told who asks: they are the edge's from then on, whatever route is asked.

use crate::config::report::quoted;
use crate::config::schema::key::is_token;
use crate::config::values::Fault;

/// Names that mean something to the message, to the connection, or to somebody else's knowledge of it.
const TAKEN: [&str; 28] = [
    "accept",
    "authorization",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "location",
    "origin",
    "path-info",
    "proxy",
    "range",
    "referer",
    "remote-addr",
    "script-name",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "user-agent",
    "x-real-ip",
    "x-queue-start",
    "x-script-name",
];
const TAKEN_BEGINNINGS: [&str; 13] = [
    "accept-",
    "client-cert",
    "content-",
    "grip-",
    "if-",
    "proxy-",
    "sec-",
    "x-accel-",
    "x-client-cert",
    "x-forwarded",
    "x-original-",
    "x-request-",
    "x-sendfile",
];

/// A field that only the edge may send from now on.
pub(super) fn identity_name(text: &str) -> Result<String, Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if !is_token(text) {
        return fault("is not the name of a header", "names have letters, digits and `-`: X-User".into());
    }
    if text.contains('_') {
        return fault("has an underscore, and servers drop such names", format!("write {}", text.replace('_', "-")));
    }
    let name = text.to_ascii_lowercase();
    if TAKEN.contains(&name.as_str()) || TAKEN_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
        return fault("has a meaning of its own", "write another name: Remote-User, X-User".into());
    }
    Ok(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_under_no_name_that_means_something_already() {
        for text in ["Remote-User", "X-User", "X-Remote-User", "X-Auth-Request-Email"] {
            assert_eq!(identity_name(text), Ok(text.to_ascii_lowercase()));
        }
        for text in [
            "",
            "X User",
            "X_User",
            "Host",
            "Cookie",
            "Content-Length",
            "X-Forwarded-For",
            "X-Request-ID",
            "X-Original-URI",
            "TE",
            "é",
        ] {
            assert!(identity_name(text).is_err(), "{text}");
        }
    }
}
