//! The value of `Age`, which stands on every hit: up to 16 minutes nothing is allocated for it.

use http::HeaderValue;

/// Numbers from here on are written as they come.
const WRITTEN: usize = 1000;

/// Those below it, with three digits each.
static DIGITS: [u8; 3 * WRITTEN] = digits();

const fn digits() -> [u8; 3 * WRITTEN] {
    let mut digits = [b'0'; 3 * WRITTEN];
    let mut number = 0;
    while number < WRITTEN {
        digits[3 * number] += (number / 100) as u8;
        digits[3 * number + 1] += (number / 10 % 10) as u8;
        digits[3 * number + 2] += (number % 10) as u8;
        number += 1;
    }
    digits
}

/// So many seconds.
pub(super) fn value(seconds: u64) -> HeaderValue {
    small(seconds).unwrap_or_else(|| HeaderValue::from(seconds))
}

fn small(seconds: u64) -> Option<HeaderValue> {
    let number = usize::try_from(seconds).ok().filter(|number| *number < WRITTEN)?;
    let zeros = match number {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let text = std::str::from_utf8(&DIGITS[3 * number + zeros..3 * number + 3]).ok()?;
    Some(HeaderValue::from_static(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_numbers_do() {
        for seconds in (0..2_000).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(value(seconds), seconds.to_string());
        }
    }
}
