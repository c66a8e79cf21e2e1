//! Which endpoints can be used: `health` (active) and `ejection` (passive).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::sent;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::Node;
use crate::config::report::quoted;
use crate::config::schema::process::{DAY, HOUR, timeout};
use crate::config::values::{Fault, write_duration};
use crate::config::{Ejection, Health, Scheme};

pub(in crate::config::schema) static HEALTH: Section = Section {
    name: "upstreams.*.health",
    keys: &["path", "interval", "timeout", "fall", "rise", "host", "scheme", "expect"],
    later: &[],
    elsewhere: &[
        ("uri", "path"),
        ("url", "path"),
        ("fails", "fall"),
        ("unhealthy_threshold", "fall"),
        ("passes", "rise"),
        ("healthy_threshold", "rise"),
        ("status", "expect"),
        ("match", "expect"),
    ],
};
pub(in crate::config::schema) static EJECTION: Section = Section {
    name: "upstreams.*.ejection",
    keys: &["failures", "window", "for"],
    later: &[],
    elsewhere: &[("max_fails", "failures"), ("fail_timeout", "for"), ("duration", "for")],
};

/// Final statuses.
const STATUSES: RangeInclusive<u16> = 200..=599;

/// Active probes. `None` when something is wrong that has no default.
pub(super) fn health(decoder: &mut Decoder<'_>, node: &Node) -> Option<Health> {
    const SCHEMES: [(&str, Scheme); 2] = [("http", Scheme::Http), ("https", Scheme::Https)];
    let fields = decoder.fields(node, &HEALTH)?;
    let path_node = fields.required(decoder, "path", "write what to ask for: health: { path: /healthz }");
    let path = path_node.and_then(|node| sent::target(decoder, "path", node));
    let (interval, timeout) = times(decoder, &fields);
    let expect = fields.get("expect").and_then(|node| expect(decoder, node));
    let health = Health {
        path: path.clone().unwrap_or_default(),
        interval,
        timeout,
        fall: fields.number(decoder, "fall", 1..=100, 3),
        rise: fields.number(decoder, "rise", 1..=100, 2),
        host: fields.get("host").and_then(|node| sent::host(decoder, node)),
        scheme: fields.get("scheme").and_then(|node| decoder.choice("scheme", node, &SCHEMES)),
        expect: expect.unwrap_or_else(|| vec![(200, 399)]),
    };
    path.map(|_| health)
}

/// Interval and timeout. A probe ends before the next begins; the default of the timeout obeys that by itself.
fn times(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> (Duration, Duration) {
    let interval = Duration::from_millis(10)..=Duration::from_secs(HOUR);
    let interval = fields.duration(decoder, "interval", interval, Duration::from_secs(5));
    let default = Duration::from_secs(2).min(interval / 2);
    let time = fields.duration(decoder, "timeout", timeout(HOUR), default);
    if let Some(node) = fields.get("timeout").filter(|_| time >= interval) {
        let message = format!("a probe may take {}, but the next one begins after {}", said(time), said(interval));
        let finding = decoder.error(&node.span, message);
        if let Some(interval) = fields.get("interval") {
            finding.also(&interval.span, "the interval");
        }
        finding.help("make `timeout` shorter than `interval`, whose default is 5s");
    }
    (interval, time)
}

fn said(time: Duration) -> String {
    write_duration(time)
}

fn expect(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<(u16, u16)>> {
    let text = decoder.scalar("expect", node, "statuses")?;
    decoder.fault(&node.span, statuses(&text))
}

/// `204`, `200-399` or `"200,204,300-399"`: ranges with both ends, in order, none touching another.
fn statuses(text: &str) -> Result<Vec<(u16, u16)>, Fault> {
    let mut ranges = text.split(',').map(|part| range(part.trim())).collect::<Result<Vec<_>, _>>()?;
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Ok(merged)
}

/// One status, or two with `-` between.
fn range(text: &str) -> Result<(u16, u16), Fault> {
    const FORMS: &str = "write a status (204), a range (200-399), or several in quotes (\"200,204,300-399\")";
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim(), last.trim());
    let status = |text: &str| (text.len() == 3).then(|| text.parse::<u16>().ok()).flatten();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(first) || !is_digits(last) {
        let family = text.strip_suffix("xx").filter(|digit| is_digits(digit) && digit.len() == 1);
        let help = family.map_or_else(|| FORMS.to_owned(), |digit| format!("write {digit}00-{digit}99"));
        return Err(Fault::new(format!("{} is not a status or a range of them", quoted(text)), help));
    }
    match status(first).zip(status(last)) {
        Some((first, last)) if !STATUSES.contains(&first) || !STATUSES.contains(&last) => {
            Err(Fault::new(format!("{} is not an answer's status", quoted(text)), "statuses are 200 to 599"))
        }
        Some((first, last)) if first > last => {
            Err(Fault::new(format!("the range {} begins after its end", quoted(text)), format!("write {last}-{first}")))
        }
        Some(range) => Ok(range),
        None => Err(Fault::new(format!("{} is not an answer's status", quoted(text)), "statuses are 200 to 599")),
    }
}

/// Leaving out an endpoint that fails.
pub(super) fn ejection(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Ejection {
    let default = Ejection::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &EJECTION)) else { return default };
    Ejection {
        failures: fields.number(decoder, "failures", 0..=10_000, default.failures),
        window: fields.duration(decoder, "window", timeout(HOUR), default.window),
        duration: fields.duration(decoder, "for", timeout(DAY), default.duration),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        for (text, ranges) in [
            ("204", vec![(204, 204)]),
            ("200-399", vec![(200, 399)]),
            ("200,204,300-399", vec![(200, 200), (204, 204), (300, 399)]),
            ("300 - 399, 200-299", vec![(200, 399)]),
            ("200-300,250", vec![(200, 300)]),
            ("599,200", vec![(200, 200), (599, 599)]),
        ] {
            assert_eq!(statuses(text), Ok(ranges), "{text}");
        }
        for text in [
            "",
            ",",
            "200,",
            "2xx",
            "ok",
            "-",
            "200-",
            "-200",
            "399-200",
            "100",
            "199-200",
            "600",
            "0200",
            "20",
            "+200",
            "200-300-400",
            "200;204",
            "99999999999999999999",
        ] {
            assert!(statuses(text).is_err(), "{text}");
        }
        assert_eq!(statuses("2xx").unwrap_err().help, "write 200-299");
        assert_eq!(statuses("399-200").unwrap_err().help, "write 200-399");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_status_is_good_if_and_only_if_it_was_written(
            written in prop::collection::vec((200_u16..=599, 0_u16..50).prop_map(|(a, n)| (a, (a + n).min(599))), 1..20),
        ) {
            let text: Vec<String> = written.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let ranges = statuses(&text.join(",")).unwrap();
            for status in 0..=999 {
                let holds = |ranges: &[(u16, u16)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&status));
                prop_assert_eq!(holds(&ranges), holds(&written), "{}", status);
            }
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ranges);
        }

        #[test]
        fn no_text_is_more_than_statuses(text in "[0-9,x \\-]{0,20}|\\PC{0,20}") {
            if let Ok(ranges) = statuses(&text) {
                let is_sound = |(first, last): &(u16, u16)| first <= last && *first >= 200 && *last <= 599;
                prop_assert!(!ranges.is_empty() && ranges.iter().all(is_sound));
            }
        }
    }
}
