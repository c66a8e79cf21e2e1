//! What a scalar can say: durations, sizes, numbers, and `${NAME}` from the environment. Pure functions over text.

use std::borrow::Cow;
use std::time::Duration;

use super::report::quoted;

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `500ms 30s 5m 1h 7d`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let fault = |help: &str| Fault::new(format!("{} is not a duration", quoted(text)), help);
    let (digits, unit) = split_number(text);
    if digits.is_empty() {
        return Err(fault("write a whole number and its unit: 500ms, 30s, 5m, 1h or 7d"));
    }
    if unit.is_empty() {
        return Err(fault(&format!("the unit is missing: write {digits}s for seconds, {digits}ms for milliseconds")));
    }
    if unit.starts_with(['.', ',']) {
        return Err(fault(
            "only whole numbers: write 1500ms for one and a half seconds, 90s for one and a half minutes",
        ));
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(fault("the units are ms, s, m (minutes), h and d (days): 500ms, 30s, 5m, 1h, 7d"));
    };
    let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
    millis.map(Duration::from_millis).ok_or_else(|| fault("the number is too large"))
}

/// The shortest way to write a duration: what [`duration`] reads.
pub(super) fn write_duration(value: Duration) -> String {
    let millis = value.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    let mut largest = DURATION_UNITS.iter().rev();
    let fits = largest.find(|(_, factor)| millis.is_multiple_of(u128::from(*factor)));
    fits.map_or_else(String::new, |(unit, factor)| format!("{}{unit}", millis / u128::from(*factor)))
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `64KiB 10MiB 1GB`, or bytes.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let fault = |help: String| Fault::new(format!("{} is not a size", quoted(text)), help);
    let (digits, unit) = split_number(text);
    if digits.is_empty() || unit.starts_with(['.', ',']) {
        return Err(fault("write a whole number and its unit: 64KiB, 10MiB or 1GB".into()));
    }
    let factor = match unit {
        "" => 1,
        unit => match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None => return Err(fault(size_help(digits, unit))),
        },
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes.ok_or_else(|| fault("the number is too large".into()))
}

/// `10m`, `10 MiB`, `10mib`: what was meant.
fn size_help(digits: &str, unit: &str) -> String {
    let unit = unit.trim().to_ascii_uppercase();
    let meant = SIZE_UNITS.iter().map(|(name, _)| *name).find(|name| {
        let name = name.to_ascii_uppercase();
        name == unit || name == format!("{unit}IB")
    });
    match meant {
        Some(meant) => format!("write {digits}{meant}"),
        None => "the units are KiB, MiB, GiB, TiB (1024) and KB, MB, GB, TB (1000)".into(),
    }
}

/// The shortest way to write a size.
pub(super) fn write_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().rev().find(|(name, factor)| name.ends_with("iB") && bytes.is_multiple_of(*factor));
    match binary {
        Some((unit, factor)) if bytes > 0 => format!("{}{unit}", bytes / factor),
        _ => bytes.to_string(),
    }
}

/// A whole number, decimal.
pub(super) fn whole_number(text: &str) -> Result<u64, Fault> {
    let is_decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = if is_decimal { text.parse().ok() } else { None };
    value.ok_or_else(|| Fault::new(format!("{} is not a whole number", quoted(text)), ""))
}

/// A share of the whole: `1`, `0.25`, `0`.
pub(super) fn share(key: &str, text: &str) -> Result<f64, Fault> {
    let help = format!("`{key}` can be 0 to 1: 1 is all of them, 0.1 every tenth");
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>().ok().filter(|_| is_decimal) {
        Some(value) if value <= 1.0 => Ok(value),
        Some(_) => Err(Fault::new(format!("`{key}` is out of range: {}", quoted(text)), help)),
        None => Err(Fault::new(format!("{} is not a number from 0 to 1", quoted(text)), help)),
    }
}

/// The leading digits, and what follows.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` is a literal `${`. An empty variable counts as unset where there
/// is a default. Nothing in a value that came from the environment is replaced again.
pub(super) fn expand<'a>(text: &'a str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'a, str>, Fault> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((inside, after)) = rest[at + 2..].split_once('}') else {
            return Err(Fault::new("`${` is not closed", "write ${NAME}, ${NAME:-default}, or $${ for a literal ${"));
        };
        out.push_str(&variable(inside, env)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// What stands for `NAME` or `NAME:-default`.
fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !is_name {
        let message = format!("{} is not the name of an environment variable", quoted(name));
        return Err(Fault::new(message, "write ${NAME}, ${NAME:-default}, or $${ for a literal ${"));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Fault::new("a default cannot hold another `${`", "write the default out: ${NAME:-value}"));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault::new(
            format!("the environment variable `{name}` is not set"),
            format!("set it where Hostler is started, or give a default: ${{{name}:-value}}"),
        )),
    }
}

/// The candidate that a word was most likely meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let word = fold(word);
    let near = candidates.into_iter().filter(|c| c.len() <= LONGEST).filter_map(|candidate| {
        let folded = fold(candidate);
        let distance = distance(&word, &folded);
        let (shorter, longer) = if word.len() < folded.len() { (&word, &folded) } else { (&folded, &word) };
        let is_beginning = shorter.len() > 2 && longer.starts_with(shorter);
        (is_beginning || distance <= (longer.len() / 3).max(1)).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Case and dashes do not make a word another one.
fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        for (text, millis) in [("500ms", 500), ("0s", 0), ("30s", 30_000), ("5m", 300_000), ("7d", 604_800_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", "1h30m", "1 s", "1S", "99999999999999999999s", "9999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("30").unwrap_err().help.contains("30s"));
    }

    #[test]
    fn sizes_have_a_whole_number_and_perhaps_a_unit() {
        for (text, bytes) in [("0", 0), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GB", 1_000_000_000), ("7B", 7)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "1.5GiB", "-1", "1 MiB", "10m", "10Mb", "0x10", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for (text, meant) in [("10m", "10MiB"), ("10 MiB", "10MiB"), ("5mb", "5MB"), ("8k", "8KiB")] {
            assert_eq!(size(text).unwrap_err().help, format!("write {meant}"));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000, 86_400_001] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&write_duration(value)), Ok(value));
        }
        for bytes in [0, 1, 1_000, 1_024, 5 << 20, 10 << 40, u64::MAX] {
            assert_eq!(size(&write_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn whole_numbers_are_decimal_and_unsigned() {
        assert_eq!(whole_number("07"), Ok(7));
        for text in ["", "-1", "+1", "1.0", "1e3", "0x10", "1_000", " 1", "18446744073709551616"] {
            assert!(whole_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_decimal_number_from_0_to_1() {
        for (text, value) in [("1", 1.0), ("1.0", 1.0), ("0.25", 0.25), (".5", 0.5), ("0", 0.0), ("0.", 0.0)] {
            assert_eq!(share("sample", text), Ok(value), "{text}");
        }
        for text in ["", ".", "1.1", "2", "-0.5", "+1", "1e-3", "NaN", "inf", "10%", "1/4", "0,5", "1.0.0"] {
            assert!(share("sample", text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_environment_is_read_once() {
        let env = |name: &str| match name {
            "HOST" => Some("shop.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        };
        for (text, value) in [
            ("${HOST}", "shop.example"),
            ("a.${HOST}/${HOST}", "a.shop.example/shop.example"),
            ("${NONE:-x}", "x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$${HOST}", "${HOST}"),
            ("$HOST $ {", "$HOST $ {"),
            ("${TRICK}", "${HOST}"),
        ] {
            assert_eq!(expand(text, &env).unwrap(), value, "{text}");
        }
        for text in ["${NONE}", "${", "${HOST", "${}", "${1A}", "${A B}", "${A:-${HOST}}"] {
            assert!(expand(text, &env).is_err(), "{text}");
        }
        assert!(expand("${NONE}", &env).unwrap_err().message.contains("`NONE`"));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["endpoints", "workers", "timeouts", "path_exact"];
        assert_eq!(nearest("endpionts", words), Some("endpoints"));
        assert_eq!(nearest("Path-Exact", words), Some("path_exact"));
        assert_eq!(nearest("worker", words), Some("workers"));
        assert_eq!(nearest("zzz", words), None);
        assert_eq!(nearest("", words), None);
    }
}
