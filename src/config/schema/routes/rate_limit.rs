//! `rate_limit`: how often the same client may ask.

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::schema::key::key_by;
use crate::config::values::Fault;
use crate::config::{KeyBy, Rate, RateLimit};

pub(in crate::config::schema) static RATE_LIMIT: Section = Section {
    name: "routes[].rate_limit",
    keys: &["rate", "burst", "by", "dry_run"],
    later: &["shared"],
    elsewhere: &[
        ("zone", "by"),
        ("key", "by"),
        ("limit_req", "rate"),
        ("average", "rate"),
        ("limit_req_dry_run", "dry_run"),
    ],
};

/// More at once is no limit.
const LARGEST_BURST: u32 = 1_000_000;

/// The section; `None`: it cannot be used.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<RateLimit> {
    let fields = decoder.fields(node, &RATE_LIMIT)?;
    let rate = fields.required(decoder, "rate", "write rate: 10/s").and_then(|node| rate(decoder, node));
    let burst = burst(decoder, &fields);
    let by = fields.get("by").map_or(Some(KeyBy::Client), |node| {
        let text = decoder.scalar("by", node, "client, header:NAME or cookie:NAME")?;
        decoder.fault(&node.span, key_by("by", &text))
    });
    let dry_run = fields.boolean(decoder, "dry_run", false);
    let rate = rate?;
    Some(RateLimit { rate, burst: burst.unwrap_or(rate.count.min(LARGEST_BURST)), by: by?, dry_run })
}

fn rate(decoder: &mut Decoder<'_>, node: &Node) -> Option<Rate> {
    let text = decoder.scalar("rate", node, "a rate")?;
    let rate = text.parse::<Rate>().map_err(|fault| Fault::new(format!("{} is not a rate", quoted(&text)), fault.0));
    decoder.fault(&node.span, rate)
}

fn burst(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<u32> {
    const HELP: &str =
        "`burst` can be 1 to 1000000, the requests that may come at once: 1 is what nginx does without its burst";
    let node = fields.get("burst")?;
    let text = decoder.scalar("burst", node, "a whole number")?;
    let number = decoder.number_or("burst", &node.span, &text, 1..=u64::from(LARGEST_BURST), HELP)?;
    u32::try_from(number).ok()
}
