//! `cors`: origins, and what their pages may ask.

use std::time::Duration;

use super::when::check_method;
use crate::config::decode::{Decoder, Section};
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::schema::field_name;
use crate::config::values::Fault;
use crate::config::{Cors, Origins, punycode};

pub(in crate::config::schema) static CORS: Section = Section {
    name: "routes[].cors",
    keys: &["origins", "methods", "headers", "expose", "credentials", "max_age"],
    later: &[],
    elsewhere: &[
        ("allow_origins", "origins"),
        ("allowed_origins", "origins"),
        ("origin", "origins"),
        ("allow_methods", "methods"),
        ("allow_headers", "headers"),
        ("expose_headers", "expose"),
        ("allow_credentials", "credentials"),
    ],
};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
const HEADERS: [&str; 5] = ["accept", "authorization", "content-type", "x-csrftoken", "x-requested-with"];
const MAX_AGE: Duration = Duration::from_secs(600);
/// What browsers keep at most.
const LONGEST_AGE: Duration = Duration::from_secs(86_400);

/// `None`: there is something wrong with it, which has been told.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Cors> {
    let fields = decoder.fields(node, &CORS)?;
    let origins_node = fields.required(decoder, "origins", "write cors: { origins: [\"https://app.example\"] }");
    let origins = origins_node.and_then(|node| origins(decoder, node));
    let methods = fields.get("methods").map(|node| list(decoder, "methods", node, "a method", method));
    let headers = fields.get("headers").map(|node| list(decoder, "headers", node, "a header", any_or_name));
    let expose_node = fields.get("expose");
    let expose = expose_node.map(|node| list(decoder, "expose", node, "a header", any_or_name)).unwrap_or_default();
    let credentials = fields.boolean(decoder, "credentials", false);
    let max_age = fields.duration(decoder, "max_age", Duration::ZERO..=LONGEST_AGE, MAX_AGE);
    if credentials {
        refuse_for_credentials(decoder, origins.as_ref(), origins_node, &expose, expose_node);
    }
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let headers = headers.unwrap_or_else(|| owned(&HEADERS));
    Some(Cors {
        origins: origins?,
        methods: methods.unwrap_or_else(|| owned(&METHODS)),
        headers: (!headers.iter().any(|name| name == "*")).then_some(headers),
        expose,
        credentials,
        max_age,
    })
}

/// Browsers refuse `*` together with credentials; and `null` is the origin of every page in a sandbox, whoever wrote it.
fn refuse_for_credentials(
    decoder: &mut Decoder<'_>,
    origins: Option<&Origins>,
    origins_node: Option<&Node>,
    expose: &[String],
    expose_node: Option<&Node>,
) {
    if let Some(node) = origins_node {
        match origins {
            Some(Origins::Any) => {
                decoder
                    .error(&node.span, "`credentials` does not go with any origin")
                    .label("every page of the web could act as its visitor")
                    .help("write the origins out: [\"https://app.example\"]");
            }
            Some(Origins::Listed(listed)) if listed.iter().any(|origin| origin == "null") => {
                decoder
                    .error(&node.span, "`credentials` does not go with the origin `null`")
                    .label("any page can have it, in a sandboxed frame")
                    .help("take `null` out, or `credentials`");
            }
            _ => {}
        }
    }
    if let (Some(node), true) = (expose_node, expose.iter().any(|name| name == "*")) {
        decoder
            .error(&node.span, "with `credentials` browsers take `*` for a name")
            .help("write the names of the fields that scripts may read");
    }
}

fn origins(decoder: &mut Decoder<'_>, node: &Node) -> Option<Origins> {
    let errors = decoder.error_count();
    let listed = list(decoder, "origins", node, "an origin", origin);
    if decoder.error_count() > errors {
        return None;
    }
    let is_any = listed.iter().any(|origin| origin == "*");
    if is_any && listed.len() > 1 {
        decoder.error(&node.span, "`*` is every origin already").help("write [\"*\"] alone, or take it out");
        return None;
    }
    Some(if is_any { Origins::Any } else { Origins::Listed(listed) })
}

fn list(
    decoder: &mut Decoder<'_>,
    key: &'static str,
    node: &Node,
    form: &str,
    read: impl Fn(&str) -> Result<String, Fault>,
) -> Vec<String> {
    let items = decoder.list(key, node).unwrap_or_default();
    let mut item = |item: &Node| {
        let text = decoder.scalar(key, item, form)?;
        decoder.fault(&item.span, read(&text))
    };
    items.iter().filter_map(&mut item).collect()
}

fn method(text: &str) -> Result<String, Fault> {
    if text == "*" {
        return Err(Fault::new("`*` is not a method", "write them out: [GET, HEAD, POST, PUT, PATCH, DELETE]"));
    }
    check_method(text).map(|()| text.to_owned())
}

fn any_or_name(text: &str) -> Result<String, Fault> {
    if text == "*" { Ok("*".into()) } else { field_name::any(text) }
}

/// An origin as browsers write it, letter by letter: they are compared so (Fetch, CORS check).
pub(super) fn origin(text: &str) -> Result<String, Fault> {
    let fault = |message: &str, help: String| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if matches!(text, "*" | "null") {
        return Ok(text.to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return fault("is not an origin", format!("write its scheme as well: https://{text}"));
    };
    if let Some(at) = rest.find(['/', '?', '#']) {
        return fault("has more than an origin", format!("write {scheme}://{}: browsers send no path", &rest[..at]));
    }
    if !text.is_ascii() {
        let help = punycode::to_ascii(rest).map(|host| format!("write {scheme}://{host}"));
        return fault("is not written in ASCII", help.unwrap_or_else(|| "write the host in its xn-- form".into()));
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return fault("is not in lower case", format!("write {}", text.to_ascii_lowercase()));
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'[' | b']' | b':');
    if host.contains('*') {
        return fault("has a wildcard", "write each origin out, or \"*\" alone for all".into());
    }
    if !is_scheme || host.is_empty() || !host.bytes().all(is_host_byte) || !port.is_none_or(is_port) {
        return fault("is not an origin", "write it like https://app.example or http://localhost:3000".into());
    }
    if matches!((scheme, port), ("https", Some("443")) | ("http", Some("80"))) {
        return fault(
            "names the port that goes without saying",
            format!("write {scheme}://{host}: browsers leave it out"),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "*",
            "null",
            "https://app.example",
            "http://localhost:3000",
            "https://xn--caf-dma.example",
            "http://[::1]:8080",
            "https://[2001:db8::1]",
            "chrome-extension://abcdefgh",
            "http://app.example:443",
        ] {
            assert_eq!(origin(text).as_deref(), Ok(text), "{text}");
        }
        for (text, help) in [
            ("app.example", "write its scheme as well: https://app.example"),
            ("https://app.example/", "write https://app.example: browsers send no path"),
            ("https://app.example/x?y", "write https://app.example: browsers send no path"),
            ("https://App.example", "write https://app.example"),
            ("https://café.example", "write https://xn--caf-dma.example"),
            ("https://app.example:443", "write https://app.example: browsers leave it out"),
            ("http://app.example:80", "write http://app.example: browsers leave it out"),
            ("https://*.app.example", "write each origin out, or \"*\" alone for all"),
            ("https://", "write it like https://app.example or http://localhost:3000"),
            ("https://a b", "write it like https://app.example or http://localhost:3000"),
            ("https://a:b", "write it like https://app.example or http://localhost:3000"),
            ("https://a:99999", "write it like https://app.example or http://localhost:3000"),
            ("https://user@a", "write it like https://app.example or http://localhost:3000"),
            ("://a", "write it like https://app.example or http://localhost:3000"),
            ("https://a\r\nb", "write it like https://app.example or http://localhost:3000"),
        ] {
            assert_eq!(origin(text).unwrap_err().help, help, "{text}");
        }
    }
}
