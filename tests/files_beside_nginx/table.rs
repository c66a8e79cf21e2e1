//! The table: one row a line, fields between ` | `.

use crate::hostile::table::unescape;

/// A row of `requests.txt`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    /// The method and the target, then fields.
    lines: Vec<String>,
    body: String,
    /// What Hostler's answer has, by name.
    pub(super) expected: Vec<(String, String)>,
    /// What nginx's has instead, where it differs; in the order of the names.
    pub(super) differences: Vec<(String, String)>,
}

/// Fields that make an answer depend on what the client has.
const CONDITIONS: [&str; 6] =
    ["if-match:", "if-none-match:", "if-modified-since:", "if-unmodified-since:", "if-range:", "range:"];

impl Row {
    pub(super) fn method(&self) -> &str {
        self.lines[0].split(' ').next().unwrap_or_default()
    }

    /// The bytes to send, with what stands for the server's own validators filled in.
    pub(super) fn request(&self, placeholders: &[(&str, String)]) -> Vec<u8> {
        let fields: String = self.lines[1..].iter().map(|field| format!("{field}\r\n")).collect();
        let (first, body) = (&self.lines[0], &self.body);
        let text = format!("{first} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{fields}\r\n{body}");
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
        unescape(&placeholders.iter().fold(text, fill))
    }

    pub(super) fn has_placeholders(&self) -> bool {
        self.lines.iter().any(|line| line.contains("@etag@") || line.contains("@date@"))
    }

    /// The same request by a client that has nothing yet.
    pub(super) fn unconditional(&self) -> Self {
        let is_condition = |line: &String| CONDITIONS.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
        let mut row = self.clone();
        row.lines.retain(|line| !is_condition(line));
        row
    }
}

pub(super) fn rows() -> Vec<Row> {
    let lines = include_str!("requests.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let parts: Vec<&str> = line.split(" | ").collect();
    let [name, request, ours, theirs, _why] = parts[..] else { panic!("not 5 fields: {line}") };
    let (request, body) = request.split_once(r"\n\n").unwrap_or((request, ""));
    Row {
        name: name.to_owned(),
        body: body.to_owned(),
        lines: request.split(r"\n").map(str::to_owned).collect(),
        expected: facts(ours),
        differences: if theirs == "same" { Vec::new() } else { facts(theirs) },
    }
}

/// `404 ; vary -`: a status, where one is said, and values by name.
fn facts(text: &str) -> Vec<(String, String)> {
    let fact = |text: &str| match text.split_once(' ') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => ("status".to_owned(), text.to_owned()),
    };
    text.split(" ; ").map(fact).collect()
}

/// As it would stand in the table.
pub(super) fn in_words(facts: &[(String, String)]) -> String {
    let word = |(name, value): &(String, String)| match &**name {
        "status" => value.clone(),
        name => format!("{name} {value}"),
    };
    if facts.is_empty() { "same".to_owned() } else { facts.iter().map(word).collect::<Vec<_>>().join(" ; ") }
}
