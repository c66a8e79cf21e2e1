//! What is said when the text is not YAML, or more than a configuration can be. One finding: after such an error
//! nothing that follows can be trusted.

use serde_saphyr::Error;

use super::node::{Span, Unread};
use super::report::{Finding, Severity, quoted};

/// The finding for a text that could not be read.
pub(super) fn explain(unread: &Unread, source: &str) -> Finding {
    match unread {
        Unread::Key(span) => {
            let mut finding = error(span.clone(), "a key must be a word");
            finding.help("write `key: value`; a list or a mapping cannot be a key");
            finding
        }
        Unread::Yaml(yaml) => explain_yaml(yaml.without_snippet(), source),
    }
}

fn error(span: Span, message: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, Some(span), message)
}

fn explain_yaml(yaml: &Error, source: &str) -> Finding {
    let at = offset_of(yaml, source);
    if let Some(finding) = known_trap(at, source) {
        return finding;
    }
    let said = said_by_parser(yaml);
    let (message, help) = match yaml {
        Error::MultipleDocuments { .. } => several_documents(),
        Error::Budget { .. } if said.contains("Documents") => several_documents(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => too_much(),
        _ if said.contains("recursion limit") => too_much(),
        Error::UnknownAnchor { .. } => (
            "this reference has no anchor".to_owned(),
            "`*name` needs a `&name` before it; a text that begins with `*` needs quotes",
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            ("this anchor contains itself".to_owned(), "take the reference out")
        }
        Error::UnsupportedTag { .. } => ("YAML tags have no meaning here".to_owned(), "take the `!...` out"),
        _ => in_plain_words(&said),
    };
    let mut finding = error(mark(at, source), message);
    finding.help(help);
    finding
}

fn several_documents() -> (String, &'static str) {
    ("a second YAML document begins here".to_owned(), "one file is one configuration: take the `---` line out")
}

fn too_much() -> (String, &'static str) {
    (
        "this is more than a configuration can hold".to_owned(),
        "nesting goes 32 levels deep, a file holds 100000 values, and aliases count as what they stand for",
    )
}

/// What newcomers write and YAML reads as something else. Looked for on the line of the error only.
fn known_trap(at: usize, source: &str) -> Option<Finding> {
    let (line, start) = line_at(at, source);
    let indent = &line[..line.len() - line.trim_start().len()];
    if let Some(tab) = indent.find('\t') {
        let mut finding = error(start + tab..start + tab + 1, "a tab is used for indentation");
        finding.label("this is a tab").help("indent with spaces: two for each level");
        return Some(finding);
    }
    if source[at..].starts_with('*') {
        let word = token(&source[at..], &[',', ']', '}', ' ', '\t', '\r', '\n']);
        if word.contains('.') || word == "*" {
            let mut finding = error(at..at + word.len(), format!("`{word}` must stand in quotes"));
            finding.help(format!("write \"{word}\": without quotes YAML takes a leading `*` for a reference"));
            return Some(finding);
        }
    }
    for (opening, form) in [("${", "${NAME}"), ("[::", "[::]:443")] {
        if let Some(found) = unquoted(line, opening) {
            let rest = &line[found..];
            let word = match rest.find('}') {
                Some(end) if opening == "${" => &rest[..=end],
                _ => token(rest, &[',', ' ', '\t', '\r', '\n']),
            };
            let mut finding =
                error(start + found..start + found + word.len(), format!("{} must stand in quotes here", quoted(word)));
            finding.help(format!("write \"{form}\": without quotes YAML takes the brackets for its own"));
            return Some(finding);
        }
    }
    None
}

/// Where `opening` stands outside of quotes and comments.
fn unquoted(line: &str, opening: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return None,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, _) if line[at..].starts_with(opening) => return Some(at),
            _ => {}
        }
    }
    None
}

/// What the parser says, in words for people who do not write parsers, and what to do.
fn in_plain_words(said: &str) -> (String, &'static str) {
    const KNOWN: [(&str, &str, &str); 7] = [
        (
            "mapping values are not allowed",
            "a `:` stands where no key can be",
            "check the indentation of this line and the one above; a value that holds `: ` needs quotes",
        ),
        (
            "did not find expected key",
            "this line does not fit in here",
            "the keys of one mapping begin in the same column; what belongs to a key is indented more than the key",
        ),
        ("unclosed", "", "it is opened here and never closed"),
        ("mismatched", "", "close what is opened here before what is around it"),
        (
            "flow",
            "",
            "put a comma between entries, close every bracket, and put quotes around values that hold brackets or commas",
        ),
        ("unexpected character", "", "a value that begins with this character needs quotes"),
        ("escape", "", "within \"double quotes\" a backslash begins an escape: double it, or use 'single quotes'"),
    ];
    let known = KNOWN.iter().find(|(part, ..)| said.contains(part));
    match known {
        Some((_, "", help)) => (format!("this is not valid YAML: {said}"), help),
        Some((_, message, help)) => ((*message).to_owned(), help),
        None => (format!("this is not valid YAML: {said}"), ""),
    }
}

/// The parser's own words, without the place.
fn said_by_parser(yaml: &Error) -> String {
    let text = yaml.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.rsplit_once(" at line ").map_or(line, |(said, _)| said).to_owned()
}

/// The byte the error stands at.
fn offset_of(yaml: &Error, source: &str) -> usize {
    let Some(location) = yaml.location() else { return 0 };
    let exact = location.span().byte_offset().map(to_usize);
    if let Some(at) = exact.filter(|at| *at > 0 && source.is_char_boundary(*at)) {
        return at;
    }
    let (line, column) = (to_usize(location.line()), to_usize(location.column()));
    let start = source.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let rest = source.get(start..).unwrap_or_default();
    let within = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
    start + within
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// One character at `at`.
fn mark(at: usize, source: &str) -> Span {
    at..at + source[at..].chars().next().map_or(0, char::len_utf8)
}

/// The line that holds a byte, and where it starts.
fn line_at(at: usize, source: &str) -> (&str, usize) {
    let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = source[at..].find('\n').map_or(source.len(), |newline| at + newline);
    (&source[start..end], start)
}

/// The text up to the first of `ends`.
fn token<'a>(text: &'a str, ends: &[char]) -> &'a str {
    &text[..text.find(ends).unwrap_or(text.len())]
}
