//! What a message may show of a file: everything but the secrets that are written in it.
//!
//! Messages quote the lines they are about, and a reload puts them into the log. So the text that is quoted is masked before
//! anything is known of its structure: a file with a token may be no YAML at all.

/// Keys whose values nobody but the operator should read.
const SECRET: [&str; 4] = ["token", "secret", "password", "client_secret"];

/// The same text with an asterisk for each byte of a secret: every place in it stays where it was. What only names a
/// variable is no secret.
pub(super) fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for key in SECRET {
        for (at, _) in text.match_indices(key) {
            if let Some((start, end)) = value_after(text, at, at + key.len()) {
                bytes[start..end].fill(b'*');
            }
        }
    }
    // Only whole values were replaced, by ASCII.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Where the value of the key at `start..end` stands, if that is a key and the value a secret.
fn value_after(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let before = text[..start].chars().next_back();
    if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        return None;
    }
    let after =
        text[end..].strip_prefix(['"', '\'']).unwrap_or(&text[end..]).trim_start_matches(' ').strip_prefix(':')?;
    let value = after.trim_start_matches([' ', '\t']);
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let value = quote.map_or(value, |quote| &value[quote.len_utf8()..]);
    let at = text.len() - value.len();
    let length = match quote {
        Some(quote) => quoted_end(value, quote),
        None => plain_end(value, is_in_braces(&text[..start])),
    };
    let secret = value[..length].trim_end();
    (!secret.is_empty() && !only_names_a_variable(secret)).then_some((at, at + secret.len()))
}

/// To the closing quote, which has an even number of backslashes before it, or to the end of the line.
fn quoted_end(value: &str, quote: char) -> usize {
    let is_end = |at: usize| {
        let before = value[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        quote == '\'' || before.is_multiple_of(2)
    };
    let line = value.find('\n').unwrap_or(value.len());
    value[..line].match_indices(quote).map(|(at, _)| at).find(|at| is_end(*at)).unwrap_or(line)
}

/// To the end of the line or a comment, and within braces to what ends an entry there.
fn plain_end(value: &str, is_in_braces: bool) -> usize {
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        let is_comment = c == '#' && matches!(before, ' ' | '\t');
        if matches!(c, '\n' | '\r') || is_comment || (is_in_braces && matches!(c, ',' | '}')) {
            return at;
        }
        before = c;
    }
    value.len()
}

/// Whether the line of a key has an open brace before it.
fn is_in_braces(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    line.matches('{').count() > line.matches('}').count()
}

/// A default beside the name is a value like any other.
fn only_names_a_variable(secret: &str) -> bool {
    secret.starts_with("${") && secret.split_once(":-").is_none_or(|(_, default)| default.starts_with('}'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_of_a_secret_is_masked_however_it_is_written() {
        for (text, masked) in [
            ("admin: { bind: 9180, token: abc }", "admin: { bind: 9180, token: *** }"),
            ("  token: \"a, b} #c\" # mine", "  token: \"********\" # mine"),
            ("  'token' : 'abc'", "  'token' : '***'"),
            ("token: abc # mine", "token: *** # mine"),
            ("token: \"unclosed\nbind: 80", "token: \"********\nbind: 80"),
            ("secret: é", "secret: **"),
            ("client_secret: a", "client_secret: *"),
            ("a: {token: x,password: yy}", "a: {token: *,password: **}"),
            ("token: abc#def", "token: *******"),
            ("token: a,b}c", "token: *****"),
            ("token: \"a\\\"b\"", "token: \"****\""),
            ("token: ${TOKEN:-default}", "token: *****************"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "token: \"${HOSTLER_ADMIN_TOKEN}\"",
            "token: ${TOKEN:-}",
            "token:",
            "token: \"\"",
            "tokens: 1",
            "mytoken: 1",
            "# the token of the admin listener",
            "path: /token",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_place_stays_where_it_was(text in "(token|secret|: |:|\"|'|\\PC|\n|[{},#$ é]){0,40}") {
            let masked = mask(&text);
            prop_assert_eq!(masked.len(), text.len());
            let lines = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(lines(&masked), lines(&text));
        }
    }
}
