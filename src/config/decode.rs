//! From nodes to values, under the guidance of the schema. Every error is noted with its place and decoding goes on,
//! so that one reading of a file finds all of them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::node::{Entry, Node, Span, Value};
use super::report::{Finding, Severity, quoted};
use super::values::{self, Fault};

/// What decoding needs beside the nodes, and what it finds.
pub(super) struct Decoder<'a> {
    /// Relative paths start here. Absolute.
    base: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) findings: Vec<Finding>,
}

/// A kind of mapping: its name for the operator and the keys it may have.
pub(super) struct Section {
    /// As in `upstreams.*.timeouts`.
    pub(super) name: &'static str,
    /// The keys of this version.
    pub(super) keys: &'static [&'static str],
    /// Keys that have a meaning, but not in this version.
    pub(super) later: &'static [&'static str],
    /// Words for the same thing in other servers' files: `(theirs, ours)`.
    pub(super) elsewhere: &'static [(&'static str, &'static str)],
}

/// A mapping whose keys have been checked.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    /// Where to point when a key is missing.
    pub(super) span: Span,
    section: &'static Section,
    /// What unknown keys were probably meant to be, and keys of later versions: what they stand for is not missing.
    meant: Vec<&'static str>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { base, env, findings: Vec::new() }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }

    /// How many errors there are so far.
    pub(super) fn error_count(&self) -> usize {
        self.findings.iter().filter(|f| f.severity == Severity::Error).count()
    }

    /// Notes an error; the caller adds label, help and further places.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.note(Severity::Error, span, message.into())
    }

    /// Notes a warning.
    pub(super) fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.note(Severity::Warning, span, message.into())
    }

    fn note(&mut self, severity: Severity, span: &Span, message: String) -> &mut Finding {
        let at = self.findings.len();
        self.findings.push(Finding::new(severity, Some(span.clone()), message));
        &mut self.findings[at]
    }

    /// Notes a fault as an error and goes on without the value.
    pub(super) fn fault<T>(&mut self, span: &Span, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                self.error(span, fault.message).help(fault.help);
                None
            }
        }
    }

    /// A mapping with the keys of `section`. Nothing at all is a mapping without keys.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, section: &'static Section) -> Option<Fields<'n>> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let (keys, kind) = (section.keys.join(", "), other.kind());
                let first = section.keys.first().copied().unwrap_or_default();
                self.error(&node.span, format!("{} takes a mapping, not {kind}", section.place()))
                    .label("expected `key: value`")
                    .help(format!(
                        "write {{ {first}: ... }}, or `{first}: ...` on a line of its own; the keys are {keys}"
                    ));
                return None;
            }
        };
        let meant = self.refuse_unknown_keys(entries, section);
        self.refuse_duplicate_keys(entries);
        Some(Fields { entries, span: node.span.clone(), section, meant })
    }

    /// Returns what the unknown keys were probably meant to be.
    fn refuse_unknown_keys(&mut self, entries: &[Entry], section: &'static Section) -> Vec<&'static str> {
        let mut meant = Vec::new();
        for key in entries.iter().map(|entry| &entry.key) {
            let word = key.text.as_str();
            if section.keys.contains(&word) {
                continue;
            }
            if let Some(later) = section.later.iter().find(|later| **later == word) {
                self.error(&key.span, format!("`{word}` is not available in this version")).help("take it out for now");
                meant.push(*later);
                continue;
            }
            let guess = super::schema::guess(word, section);
            meant.extend(guess);
            let help = super::schema::help_for_unknown(word, guess, section);
            self.error(&key.span, format!("unknown key {} in {}", quoted(word), section.place())).help(help);
        }
        meant
    }

    pub(super) fn refuse_duplicate_keys(&mut self, entries: &[Entry]) {
        let mut seen: HashMap<&str, &Span> = HashMap::new();
        for key in entries.iter().map(|entry| &entry.key) {
            if let Some(first) = seen.get(key.text.as_str()) {
                self.error(&key.span, format!("the key {} stands here twice", quoted(&key.text)))
                    .label("again")
                    .also(first, "first here")
                    .help("keep one of them");
            } else {
                seen.insert(&key.text, &key.span);
            }
        }
    }

    /// A mapping whose keys are names that the operator chooses, at least one of them. `form` shows one.
    pub(super) fn mapping<'n>(&mut self, key: &str, node: &'n Node, form: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                self.refuse_duplicate_keys(entries);
                return Some(entries);
            }
            Value::Map(_) | Value::Null => {
                self.error(&node.span, format!("`{key}` is empty"))
                    .help("write at least one entry, or take the key out");
            }
            other => {
                let kind = other.kind();
                self.error(&node.span, format!("`{key}` takes a mapping, not {kind}")).help(format!("write {form}"));
            }
        }
        None
    }

    /// A list with at least one entry.
    pub(super) fn list<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if !items.is_empty() => return Some(items),
            Value::List(_) | Value::Null => {
                self.error(&node.span, format!("`{key}` is empty"))
                    .help("write at least one entry, or take the key out");
            }
            Value::Map(_) => {
                self.error(&node.span, format!("`{key}` takes a list, not a mapping"))
                    .help("put `- ` before each entry, even if there is only one");
            }
            other => {
                let help = match other {
                    Value::Text(text) if text.len() <= 60 => format!("write {key}: [{text:?}]"),
                    _ => format!("write {key}: [...]"),
                };
                let kind = other.kind();
                self.error(&node.span, format!("`{key}` takes a list, not {kind}")).help(help);
            }
        }
        None
    }

    /// A scalar as text, with the environment put in. `form` says what is wanted: "a duration".
    pub(super) fn scalar(&mut self, key: &str, node: &Node, form: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => {
                let expanded = values::expand(text, self.env);
                self.fault(&node.span, expanded).map(std::borrow::Cow::into_owned)
            }
            Value::Number(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null => {
                self.error(&node.span, format!("`{key}` has no value"))
                    .label(format!("expected {form}"))
                    .help("write a value, or take the line out");
                None
            }
            Value::List(_) | Value::Map(_) => {
                let kind = node.value.kind();
                self.error(&node.span, format!("`{key}` takes {form}, not {kind}"))
                    .help("write one value, without brackets");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str, node: &Node) -> Option<bool> {
        let text = self.scalar(key, node, "true or false")?;
        match text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                let help = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "1" | "y" | "true" => "write true",
                    "no" | "off" | "0" | "n" | "false" => "write false",
                    _ => "",
                };
                self.error(&node.span, format!("`{key}` takes true or false, not {}", quoted(&text))).help(help);
                None
            }
        }
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, key: &str, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.scalar(key, node, "a whole number")?;
        self.number_from(key, &node.span, &text, range)
    }

    /// The same for text that has been read already.
    pub(super) fn number_from(&mut self, key: &str, at: &Span, text: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let help = format!("`{key}` can be {} to {}", range.start(), range.end());
        self.number_or(key, at, text, range, &help)
    }

    /// The same with other words for what can be written.
    pub(super) fn number_or(
        &mut self,
        key: &str,
        at: &Span,
        text: &str,
        range: RangeInclusive<u64>,
        help: &str,
    ) -> Option<u64> {
        let is_number = !text.is_empty() && text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
        match values::whole_number(text) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) => self.error(at, format!("`{key}` is out of range: {}", quoted(text))),
            Err(_) if is_number => self.error(at, format!("`{key}` is out of range: {}", quoted(text))),
            Err(fault) => self.error(at, fault.message),
        }
        .help(help);
        None
    }

    /// A duration within a range.
    pub(super) fn duration(&mut self, key: &str, node: &Node, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.scalar(key, node, "a duration")?;
        let value = self.fault(&node.span, values::duration(&text))?;
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = (values::write_duration(*range.start()), values::write_duration(*range.end()));
        self.error(&node.span, format!("`{key}` is out of range: {}", quoted(&text)))
            .help(format!("`{key}` can be {least} to {most}"));
        None
    }

    /// A size in bytes within a range.
    pub(super) fn size(&mut self, key: &str, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.scalar(key, node, "a size")?;
        let value = self.fault(&node.span, values::size(&text))?;
        if range.contains(&value) {
            return Some(value);
        }
        let (least, most) = (values::write_size(*range.start()), values::write_size(*range.end()));
        let least = if *range.start() < 1024 { counted_bytes(*range.start()) } else { least };
        self.error(&node.span, format!("`{key}` is out of range: {}", quoted(&text)))
            .help(format!("`{key}` can be {least} to {most}"));
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, node: &Node, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = self.scalar(key, node, &names.join(", "))?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let help = match values::nearest(&text, names.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("it can be {}", names.join(", ")),
        };
        self.error(&node.span, format!("{} is not a value of `{key}`", quoted(&text))).help(help);
        None
    }

    /// A path of the file system, absolute.
    pub(super) fn path(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        let text = self.scalar(key, node, "a path")?;
        self.path_from(key, &node.span, Path::new(&text))
    }

    /// Makes a path absolute: it starts at the file's folder.
    pub(super) fn path_from(&mut self, key: &str, at: &Span, path: &Path) -> Option<PathBuf> {
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() {
            self.error(at, format!("`{key}` is an empty path")).help("write a path");
            return None;
        }
        if bytes.iter().any(u8::is_ascii_control) {
            self.error(at, format!("the path in `{key}` holds a control character"));
            return None;
        }
        if bytes == b"~" || bytes.starts_with(b"~/") {
            self.error(at, format!("`~` is not expanded in `{key}`")).help("write the whole path, or ${HOME}/...");
            return None;
        }
        Some(super::load::resolve(self.base, path))
    }
}

fn counted_bytes(n: u64) -> String {
    super::report::counted(usize::try_from(n).unwrap_or(usize::MAX), "byte")
}

impl Section {
    /// The name, for messages.
    fn place(&self) -> String {
        if self.name.is_empty() { "the top level of the file".into() } else { format!("`{}`", self.name) }
    }
}

impl<'n> Fields<'n> {
    /// The value of a key; the first, when there are two.
    pub(super) fn get(&self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The key itself, and its value.
    pub(super) fn entry(&self, key: &'static str) -> Option<&'n Entry> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not in the table of {}", self.section.name);
        self.entries.iter().find(|entry| entry.key.text == key)
    }

    /// Whether an unknown key, or one of a later version, stands for `key`: then it is not missing as well.
    pub(super) fn means(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, decoder: &mut Decoder<'_>, key: &'static str, help: &str) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && !self.means(key) {
            decoder.error(&self.span, format!("`{key}` is missing in {}", self.section.place())).help(help);
        }
        found
    }

    /// A duration, or what it is when not written.
    pub(super) fn duration(
        &self,
        decoder: &mut Decoder<'_>,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.get(key).and_then(|node| decoder.duration(key, node, range)).unwrap_or(default)
    }

    /// A size, or what it is when not written.
    pub(super) fn size(
        &self,
        decoder: &mut Decoder<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.get(key).and_then(|node| decoder.size(key, node, range)).unwrap_or(default)
    }

    /// A number, or what it is when not written.
    pub(super) fn number<N: Copy + TryInto<u64> + TryFrom<u64>>(
        &self,
        decoder: &mut Decoder<'_>,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: N,
    ) -> N {
        let written = self.get(key).and_then(|node| decoder.number(key, node, range));
        written.and_then(|value| N::try_from(value).ok()).unwrap_or(default)
    }

    /// A boolean, or what it is when not written.
    pub(super) fn boolean(&self, decoder: &mut Decoder<'_>, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|node| decoder.boolean(key, node)).unwrap_or(default)
    }
}

/// A range of durations.
pub(super) fn seconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(least)..=Duration::from_secs(most)
}
