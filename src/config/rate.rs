//! How often something may happen: `10/s`, `300/m`, `5/h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of times in a unit of time, as written: `60/m` is not `1/s`, which lets nobody come twice in a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often. At least 1.
    pub count: u32,
    /// In how long: a second, a minute or an hour.
    pub per: Duration,
}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

/// Why a text is no rate, and what to write instead: for whoever reads the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotARate(pub &'static str);

impl FromStr for Rate {
    type Err = NotARate;

    /// Reads a whole number, a slash and a unit, and nothing else.
    fn from_str(text: &str) -> Result<Self, NotARate> {
        const FORM: NotARate = NotARate("write a whole number and a unit of time: 10/s, 300/m or 5/h");
        let (digits, unit) = text.split_once('/').ok_or(FORM)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(FORM);
        }
        let Some((_, seconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(NotARate("the units are s, m (minute) and h (hour): 10/s, 300/m, 5/h"));
        };
        match digits.parse() {
            Ok(0) => Err(NotARate("a rate of 0 lets nobody through: write 1/h or more")),
            Ok(count) => Ok(Self { count, per: Duration::from_secs(*seconds) }),
            Err(_) => Err(NotARate("the number is too large")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| self.per == Duration::from_secs(*seconds));
        write!(f, "{}/{}", self.count, unit.map_or("?", |(unit, _)| unit))
    }
}

impl fmt::Display for NotARate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotARate {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_is_written() {
        for (text, count, seconds) in
            [("10/s", 10, 1), ("300/m", 300, 60), ("5/h", 5, 3_600), ("1/s", 1, 1), ("4294967295/h", u32::MAX, 3_600)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate { count, per: Duration::from_secs(seconds) }, "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_ne!("60/m".parse::<Rate>(), "1/s".parse::<Rate>());
    }

    #[test]
    fn whatever_is_not_a_rate_is_told_what_one_is() {
        for text in ["", "10", "/s", "10/", "10s", "10 /s", "10/ s", "10/s/s", "-1/s", "+1/s", "1.5/s", "é/s", "10r/s"]
        {
            assert!(text.parse::<Rate>().unwrap_err().0.contains("10/s"), "{text}");
        }
        for text in ["10/d", "10/S", "10/sec", "10/minute"] {
            assert!(text.parse::<Rate>().unwrap_err().0.starts_with("the units are"), "{text}");
        }
        assert!("0/s".parse::<Rate>().unwrap_err().0.contains("nobody"));
        assert_eq!("4294967296/s".parse::<Rate>(), Err(NotARate("the number is too large")));
    }
}
