//! `upstreams.*.balance`: which endpoint is next.

use crate::config::Balance;
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::schema::key::key_by;
use crate::config::values::nearest;

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
        return decoder.fault(&node.span, key_by("hash", &text)).map(Balance::Hash);
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
    if key_by("hash", word).is_ok() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
