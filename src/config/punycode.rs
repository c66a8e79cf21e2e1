//! From the letters of a host to what stands for it in the DNS (RFC 3492, RFC 5890): `café` is `xn--caf-dma`.

/// The name with each part outside ASCII as its A-label, in lower case. `None` when that cannot be told for certain: letters
/// that are written of several characters are to be composed first, which takes tables that we do not have.
#[must_use]
pub fn to_ascii(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let labels: Option<Vec<String>> = lower.split('.').map(label).collect();
    labels.map(|labels| labels.join("."))
}

fn label(label: &str) -> Option<String> {
    if label == "*" {
        return Some(label.to_owned());
    }
    let is_plain = |c: char| if c.is_ascii() { c.is_ascii_alphanumeric() || c == '-' } else { is_composed_letter(c) };
    let ascii = || if label.is_ascii() { label.to_owned() } else { format!("xn--{}", encode(label)) };
    label.chars().all(is_plain).then(ascii)
}

/// Whether a character stands for itself. ß and ς were once read as other letters, and marks belong to the letter before.
fn is_composed_letter(c: char) -> bool {
    let is_compatible =
        matches!(c, '\u{f900}'..='\u{faff}' | '\u{fb00}'..='\u{fdff}' | '\u{fe70}'..='\u{ffef}' | 'ª' | 'º');
    let is_mark = matches!(c, '\u{300}'..='\u{36f}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}');
    c.is_alphanumeric() && !is_compatible && !is_mark && !matches!(c, 'ß' | 'ς')
}

const BASE: u32 = 36;
const FIRST_THRESHOLD: u32 = 1;
const LAST_THRESHOLD: u32 = 26;

/// RFC 3492, 6.3. A label is short: the sums below stay far from the limits of their type.
fn encode(label: &str) -> String {
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).unwrap_or(u32::MAX);
    if basic > 0 {
        out.push('-');
    }
    let (mut next, mut delta, mut bias, mut handled) = (128_u32, 0_u32, 72_u32, basic);
    let code_points: Vec<u32> = label.chars().map(u32::from).collect();
    while let Some(smallest) = code_points.iter().copied().filter(|point| *point >= next).min() {
        delta = delta.saturating_add((smallest - next).saturating_mul(handled + 1));
        next = smallest;
        for point in &code_points {
            if *point < next {
                delta = delta.saturating_add(1);
            } else if *point == next {
                append_number(&mut out, delta, bias);
                bias = adapted(delta, handled + 1, handled == basic);
                (delta, handled) = (0, handled + 1);
            }
        }
        (delta, next) = (delta.saturating_add(1), next + 1);
    }
    out
}

/// A number of variable length: its last digit is below the threshold of its place.
fn append_number(out: &mut String, mut number: u32, bias: u32) {
    let mut place = BASE;
    loop {
        let threshold = place.saturating_sub(bias).clamp(FIRST_THRESHOLD, LAST_THRESHOLD);
        if number < threshold {
            out.push(digit(number));
            return;
        }
        out.push(digit(threshold + (number - threshold) % (BASE - threshold)));
        number = (number - threshold) / (BASE - threshold);
        place += BASE;
    }
}

/// `a` to `z`, then `0` to `9`.
fn digit(value: u32) -> char {
    char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[value as usize % 36])
}

/// RFC 3492, 6.1.
fn adapted(delta: u32, handled: u32, is_first: bool) -> u32 {
    const DAMP: u32 = 700;
    const SKEW: u32 = 38;
    let mut delta = if is_first { delta / DAMP } else { delta / 2 };
    delta += delta / handled;
    let mut place = 0;
    while delta > (BASE - FIRST_THRESHOLD) * LAST_THRESHOLD / 2 {
        delta /= BASE - FIRST_THRESHOLD;
        place += BASE;
    }
    place + (BASE - FIRST_THRESHOLD + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_the_standard_and_of_the_street() {
        for (name, ascii) in [
            ("café.example", "xn--caf-dma.example"),
            ("Bücher.Example", "xn--bcher-kva.example"),
            ("münchen.de", "xn--mnchen-3ya.de"),
            ("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("*.café.example", "*.xn--caf-dma.example"),
            // RFC 3492, 7.1 (B) and (L).
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("shop.example", "shop.example"),
        ] {
            assert_eq!(to_ascii(name).as_deref(), Some(ascii), "{name}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_left_to_the_operator() {
        for name in ["cafe\u{301}.example", "straße.de", "ﬁ.example", "a b.é", "é/x", "☃.example", "\u{ff21}.example"]
        {
            assert_eq!(to_ascii(name), None, "{name}");
        }
    }
}
