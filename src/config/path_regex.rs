//! `path_regex`: a regular expression over the bytes of a decoded path.
//!
//! It is searched for, as nginx's `~` does: without `^` it may match anywhere. Letters, `\d` and `\w` are ASCII; `.` is any
//! byte, line ends included, so that an encoded one slips past no pattern. Letters outside ASCII are themselves; a class of
//! them stands in `(?u:[éè])`. Matching takes time in proportion to the path, whatever the pattern (there are no backreferences and no look-around).

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::report::quoted;
use super::values::Fault;

/// Bytes of a compiled pattern. Far more than any route needs; it bounds what one match of a long path may cost.
const LARGEST: usize = 64 << 10;

/// A regular expression, compiled. Two are the same when they are written the same.
#[derive(Debug, Clone)]
pub struct PathRegex(Regex);

impl PathRegex {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let built = RegexBuilder::new(text).unicode(false).dot_matches_new_line(true).size_limit(LARGEST).build();
        built.map(Self).map_err(|error| fault(text, &error))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is found in this path.
    #[must_use]
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.0.is_match(path)
    }

    /// What its groups have matched in this path.
    #[must_use]
    pub fn captures<'p>(&self, path: &'p [u8]) -> Option<Captures<'p>> {
        self.0.captures(path)
    }

    /// The number of its groups.
    pub(super) fn groups(&self) -> usize {
        self.0.captures_len() - 1
    }

    /// The number of the group by this name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.names().find(|(known, _)| *known == name).map(|(_, at)| at)
    }

    /// The groups that have names.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.capture_names().enumerate().filter_map(|(at, name)| Some((name?, at)))
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PathRegex {}

fn fault(text: &str, error: &regex::Error) -> Fault {
    let message = |what: &str| format!("the regular expression {} {what}", quoted(text));
    if matches!(error, regex::Error::CompiledTooBig(_)) {
        return Fault::new(
            message("is too large"),
            "repeat less: x{1,1000} counts a thousand times, and so does what it holds",
        );
    }
    // The parser draws the place under the pattern; its last line says what is wrong.
    let told = error.to_string();
    let what = told.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
    let help = if text.is_ascii() {
        "it is searched for in the decoded path, as nginx does: begin with ^/ to bind it to the start"
    } else {
        "a class is one of bytes here: write (?u:[éè]) for letters outside ASCII"
    };
    Fault::new(message(&format!("cannot be read: {what}")), help)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_searched_for_in_the_decoded_bytes() {
        for (pattern, path, is_found) in [
            ("^/a/\\d+$", "/a/12", true),
            ("^/a/\\d+$", "/a/12/", false),
            ("\\.php$", "/x/y.php", true),
            ("a", "/bab", true),
            ("(?i)^/ADMIN", "/admin/x", true),
            ("^/ADMIN", "/admin/x", false),
            ("^/a/.*$", "/a/\n", true),
            ("^/café$", "/café", true),
            ("^/caf(?u:[éè])+$", "/cafèé", true),
            ("\\d", "/\u{663}", false),
            ("", "/", true),
        ] {
            assert_eq!(PathRegex::parse(pattern).unwrap().is_match(path.as_bytes()), is_found, "{pattern} {path}");
        }
        assert!(PathRegex::parse("^/[^/]$").unwrap().is_match(b"/\xff"));
    }

    #[test]
    fn groups_have_numbers_and_perhaps_names() {
        let regex = PathRegex::parse("^/(\\d+)/(?P<slug>[a-z]+)(x)?").unwrap();
        assert_eq!((regex.groups(), regex.group("slug"), regex.group("id")), (3, Some(2), None));
        let captures = regex.captures(b"/12/abc").unwrap();
        let group = |at| captures.get(at).map(|group| group.as_bytes());
        assert_eq!((group(1), group(2), group(3)), (Some(&b"12"[..]), Some(&b"abc"[..]), None));
    }

    #[test]
    fn what_is_wrong_with_a_pattern_is_said_in_a_line() {
        for (pattern, what) in [
            ("^/(", "unclosed group"),
            ("[a", "unclosed character class"),
            ("a{1,9999999}", "too large"),
            ("(a{100}){100}", "too large"),
            ("(?=a)", "look-around"),
            ("(a)\\1", "backreferences"),
            ("[é]", "Unicode not allowed"),
            ("*", "repetition operator missing expression"),
        ] {
            let fault = PathRegex::parse(pattern).unwrap_err();
            assert!(fault.message.contains(what), "{pattern}: {}", fault.message);
            assert!(!fault.message.contains('\n'), "{pattern}: {}", fault.message);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_pattern_and_no_path_do_harm(pattern in "[\\^$/ab()\\[\\]{}?*+|\\\\d.,0-9é-]{0,24}", path: Vec<u8>) {
            match PathRegex::parse(&pattern) {
                Ok(regex) => prop_assert_eq!(regex.is_match(&path), regex.captures(&path).is_some()),
                Err(fault) => prop_assert!(!fault.message.is_empty() && !fault.help.is_empty()),
            }
        }
    }
}
