//! Names of header fields in the file: which ones a rule or a condition can be about.

use super::key::is_token;
use crate::config::report::quoted;
use crate::config::values::Fault;

/// What a field is for, where a route can say nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserved {
    /// It belongs to one connection or to the framing of the message (RFC 9110, 7.6.1).
    Hop,
    /// The edge alone writes it; what a client sends by this name is removed.
    Edge,
    /// The app says it to the edge, and to nobody else.
    Internal,
    /// A name with an underscore is removed.
    Underscore,
}

/// `name` is in lower case.
fn reserved(name: &str) -> Option<Reserved> {
    const HOP: [&str; 12] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "expect",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
    ];
    const EDGE: [&str; 16] = [
        "client-cert",
        "client-cert-chain",
        "forwarded",
        "front-end-https",
        "path-info",
        "proxy",
        "remote-addr",
        "remote-user",
        "script-name",
        "x-client-cert-subject",
        "x-queue-start",
        "x-real-ip",
        "x-remote-user",
        "x-request-id",
        "x-request-start",
        "x-script-name",
    ];
    const INTERNAL: [&str; 4] = ["grip-", "x-accel-", "x-sendfile", "x-lighttpd-send-file"];
    if HOP.contains(&name) {
        return Some(Reserved::Hop);
    }
    if name.contains('_') {
        return Some(Reserved::Underscore);
    }
    if EDGE.contains(&name) || name.starts_with("x-forwarded") {
        return Some(Reserved::Edge);
    }
    INTERNAL.iter().any(|start| name.starts_with(start)).then_some(Reserved::Internal)
}

/// Any field, in lower case.
pub(super) fn any(text: &str) -> Result<String, Fault> {
    if is_token(text) {
        return Ok(text.to_ascii_lowercase());
    }
    let help = match text.strip_suffix(':') {
        Some(name) if is_token(name) => format!("write the name without the colon: {name}"),
        _ => "names have letters, digits and any of !#$%&'*+-.^_`|~".into(),
    };
    Err(Fault::new(format!("{} is not the name of a header field", quoted(text)), help))
}

/// A field of a request that a condition can ask for, in lower case.
pub(super) fn of_condition(text: &str) -> Result<String, Fault> {
    let name = any(text)?;
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    match reserved(&name) {
        None => Ok(name),
        Some(Reserved::Hop) => fault("is between the client and the edge alone", "ask for another field"),
        Some(Reserved::Underscore) => {
            let help = format!("did you mean {}?", name.replace('_', "-"));
            fault("is removed from every request: names with an underscore are", &help)
        }
        Some(Reserved::Edge | Reserved::Internal) => fault(
            "is not taken from clients: any of them could write it",
            "ask for another field, such as one of your own: x-beta",
        ),
    }
}

/// A field that a route can add to a request or take away, in lower case.
pub(super) fn of_request_rule(text: &str) -> Result<String, Fault> {
    let name = any(text)?;
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    match reserved(&name) {
        Some(Reserved::Hop) => fault(
            "belongs to the connection or to the framing of the message",
            "the edge writes it for each connection itself: take it out",
        ),
        Some(Reserved::Underscore) => {
            let help = format!("no header with an underscore reaches an app; did you mean {}?", name.replace('_', "-"));
            fault("is removed from every request", &help)
        }
        Some(Reserved::Edge) => {
            fault("is the edge's own", "it is removed from what clients send, and written anew: take it out")
        }
        Some(Reserved::Internal) => {
            fault("never reaches an app", "what clients send by this name is removed: take it out")
        }
        None if name == "host" => {
            fault("is where the request goes", "write host: NAME in the upstream to send another one")
        }
        None => Ok(name),
    }
}

/// A field that a route can add to an answer or take away, in lower case.
pub(super) fn of_response_rule(text: &str) -> Result<String, Fault> {
    let name = any(text)?;
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    match reserved(&name) {
        Some(Reserved::Hop) => fault(
            "belongs to the connection or to the framing of the message",
            "the edge writes it for each connection itself: take it out",
        ),
        Some(Reserved::Internal) => fault("never reaches a client", "it is what an app says to the edge: take it out"),
        _ if name == "x-request-id" => {
            fault("is the edge's own", "every answer has it, with the name in the logs: take it out")
        }
        _ if name == "set-cookie" => fault("would take the app's cookies away", "let the app set it"),
        _ => Ok(name),
    }
}

/// What the value of a field can be.
pub(super) fn check_value(text: &str) -> Result<(), Fault> {
    let fault = |message: String, help: &str| Err(Fault::new(message, help));
    if let Some(bad) = text.chars().find(|c| !matches!(c, ' '..='~' | '\t')) {
        let what = if bad.is_control() { "a control character".into() } else { quoted(&bad.to_string()) };
        return fault(format!("{} holds {what}, which no header field has", quoted(text)), "write it in ASCII");
    }
    if text.trim_matches([' ', '\t']) != text {
        return fault(
            format!("{} has a space at an end", quoted(text)),
            "it is no part of a header field: take it out",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::http::fields;

    #[test]
    fn a_condition_asks_for_what_a_client_may_say() {
        for (text, name) in [("X-Beta", "x-beta"), ("cookie", "cookie"), ("Host", "host"), ("range", "range")] {
            assert_eq!(of_condition(text).as_deref(), Ok(name));
        }
        for text in
            ["", "a b", "x-beta:", "x_beta", "Connection", "x-forwarded-for", "X-Accel-Redirect", "Remote-User", "é"]
        {
            assert!(of_condition(text).is_err(), "{text}");
        }
        assert_eq!(of_condition("x-beta:").unwrap_err().help, "write the name without the colon: x-beta");
        assert_eq!(of_condition("X_Beta").unwrap_err().help, "did you mean x-beta?");
    }

    #[test]
    fn a_rule_is_about_what_passes_from_one_side_to_the_other() {
        for name in ["x-a", "authorization", "cookie", "user-agent", "accept-encoding"] {
            assert_eq!(of_request_rule(name).as_deref(), Ok(name));
        }
        for name in ["server", "x_a", "cache-control", "x-frame-options", "remote-user", "access-control-allow-origin"]
        {
            assert_eq!(of_response_rule(name).as_deref(), Ok(name));
        }
        for name in
            ["", "a b", "connection", "content-length", "host", "x-forwarded-for", "remote-user", "x_a", "grip-sig"]
        {
            assert!(of_request_rule(name).is_err(), "{name}");
        }
        for name in
            ["", "é", "Transfer-Encoding", "content-length", "x-accel-redirect", "x-request-id", "Set-Cookie", "te"]
        {
            assert!(of_response_rule(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_reserved_here_is_what_is_dropped_on_the_way() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "content-length",
            "expect",
            "http2-settings",
            "proxy-authenticate",
            "proxy-authorization",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded",
            "forwarded",
            "front-end-https",
            "x-real-ip",
            "x-request-id",
            "x-request-start",
            "x-queue-start",
            "remote-user",
            "remote-addr",
            "script-name",
            "path-info",
            "proxy",
            "client-cert",
            "client-cert-chain",
            "x-client-cert-subject",
            "x-remote-user",
            "x-script-name",
            "x-lighttpd-send-file",
            "x-accel-redirect",
            "x-sendfile",
            "x-sendfile-type",
            "grip-sig",
            "x_a",
            "host",
            "cookie",
            "authorization",
            "origin",
            "x-beta",
            "content-type",
            "via",
            "forwarded-for",
            "x-grip",
            "remote",
            "server",
        ] {
            let is_dropped = fields::request_field(&HeaderName::from_static(name)).is_some();
            assert_eq!(reserved(name).is_some(), is_dropped, "{name}");
        }
    }

    #[test]
    fn a_value_is_ascii_without_spaces_at_its_ends() {
        for text in ["", "1", "a b", "max-age=0, \"x\"", "a\tb"] {
            assert_eq!(check_value(text), Ok(()), "{text:?}");
        }
        for text in ["é", "a\r\nb", " a", "a\t", "\0", "\u{7f}"] {
            assert!(check_value(text).is_err(), "{text:?}");
        }
    }
}
