//! `upstreams.*.balance`: which endpoint is next.

use super::sent::is_token;
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::values::{Fault, nearest};
use crate::config::{Balance, HashBy};

pub(in crate::config::schema) static BALANCE: Section = Section {
    name: "upstreams.*.balance",
    keys: &["hash"],
    later: &[],
    elsewhere: &[("by", "hash"), ("key", "hash"), ("consistent_hash", "hash")],
};

const HASH_HELP: &str = "write { hash: client }, { hash: header:NAME } or { hash: cookie:NAME }";
/// The same in other servers' words.
const ELSEWHERE: [(&str, &str); 6] = [
    ("least_conn", "least_busy"),
    ("leastconn", "least_busy"),
    ("least_connections", "least_busy"),
    ("ip_hash", "{ hash: client }"),
    ("source", "{ hash: client }"),
    ("sticky", "{ hash: cookie:NAME }"),
];

/// `least_busy`, `round_robin` or `{ hash: … }`.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<Balance> {
    if let Value::Map(_) = &node.value {
        let node = decoder.fields(node, &BALANCE)?.required(decoder, "hash", HASH_HELP)?;
        let text = decoder.scalar("hash", node, "client, header:NAME or cookie:NAME")?;
        return decoder.fault(&node.span, hash_by(&text)).map(Balance::Hash);
    }
    let text = decoder.scalar("balance", node, "least_busy, round_robin or { hash: client }")?;
    match text.as_str() {
        "least_busy" => Some(Balance::LeastBusy),
        "round_robin" => Some(Balance::RoundRobin),
        word => {
            let help = balance_help(word);
            decoder.error(&node.span, format!("{} is not a value of `balance`", quoted(word))).help(help);
            None
        }
    }
}

fn balance_help(word: &str) -> String {
    if hash_by(word).is_ok() {
        return format!("write balance: {{ hash: {word} }}");
    }
    if word == "hash" {
        return HASH_HELP.into();
    }
    let ours = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
    match ours.or_else(|| nearest(word, ["least_busy", "round_robin"])) {
        Some(ours) => format!("write balance: {ours}"),
        None => "it can be least_busy, round_robin, or { hash: client }".into(),
    }
}

/// `client`, `header:NAME` or `cookie:NAME`.
fn hash_by(text: &str) -> Result<HashBy, Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if text == "client" {
        return Ok(HashBy::Client);
    }
    let Some((kind @ ("header" | "cookie"), name)) = text.split_once(':') else {
        return fault("is not a value of `hash`", "it can be client, header:NAME or cookie:NAME");
    };
    if !is_token(name) {
        let help = format!("write {kind}:NAME; names have letters, digits and any of !#$%&'*+-.^_`|~");
        return fault(&format!("has no valid name of a {kind}"), &help);
    }
    if kind == "cookie" {
        return Ok(HashBy::Cookie(name.to_owned()));
    }
    if name.contains('_') {
        let help = format!("did you mean header:{}?", name.replace('_', "-"));
        return fault("never arrives: header names with an underscore are removed", &help);
    }
    Ok(HashBy::Header(name.to_ascii_lowercase()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_the_client_a_header_or_a_cookie() {
        assert_eq!(hash_by("client"), Ok(HashBy::Client));
        assert_eq!(hash_by("header:X-User"), Ok(HashBy::Header("x-user".into())));
        assert_eq!(hash_by("cookie:SessionID"), Ok(HashBy::Cookie("SessionID".into())));
        assert_eq!(hash_by("cookie:my_id"), Ok(HashBy::Cookie("my_id".into())));
        for text in [
            "",
            "Client",
            "header",
            "header:",
            "header: x",
            "cookie:a=b",
            "cookie:é",
            "query:x",
            "header:a:b",
            "header:x_user",
            "client:",
        ] {
            assert!(hash_by(text).is_err(), "{text}");
        }
        assert_eq!(hash_by("header:X_User").unwrap_err().help, "did you mean header:X-User?");
    }

    #[test]
    fn words_of_other_servers_are_understood() {
        for (word, meant) in [
            ("least_conn", "write balance: least_busy"),
            ("ip_hash", "write balance: { hash: client }"),
            ("client", "write balance: { hash: client }"),
            ("header:x-user", "write balance: { hash: header:x-user }"),
            ("roundrobin", "write balance: round_robin"),
        ] {
            assert_eq!(balance_help(word), meant);
        }
        assert_eq!(balance_help("hash"), HASH_HELP);
        assert!(balance_help("zzz").starts_with("it can be"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_taken_names_a_token(text in "(header|cookie|client)?:?\\PC{0,12}") {
            match hash_by(&text) {
                Ok(HashBy::Client) => prop_assert_eq!(text, "client"),
                Ok(HashBy::Header(name)) => {
                    prop_assert!(is_token(&name) && text.to_ascii_lowercase() == ["header:", &name].concat());
                }
                Ok(HashBy::Cookie(name)) => prop_assert!(is_token(&name) && text == ["cookie:", &name].concat()),
                Err(fault) => prop_assert!(!fault.message.is_empty() && !fault.help.is_empty()),
            }
        }
    }
}
