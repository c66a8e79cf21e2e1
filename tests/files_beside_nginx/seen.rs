//! What is to be compared of an answer.

use std::fmt;

use super::table::in_words;
use super::tree::Tree;
use crate::support::Response;

/// Fields that a client goes by. What an entity tag is differs; how strong it is need not.
const OF_CONTENT: &[&str] = &[
    "allow",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "last-modified",
    "vary",
];
/// Last-Modified is of no use beside an entity tag there (RFC 9110, 15.4.5).
const OF_NOT_MODIFIED: &[&str] = &["cache-control", "vary"];
const OF_REDIRECT: &[&str] = &["location"];
/// Pages about failures are each server's own.
const OF_ERROR: &[&str] = &["allow", "content-range"];

/// By name, in the order of the names, the status first. `-`: there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen(Vec<(String, String)>);

impl Seen {
    pub(super) fn new(method: &str, response: &Response, tree: &Tree) -> Self {
        let names = match response.status {
            200..300 => OF_CONTENT,
            304 => OF_NOT_MODIFIED,
            300..400 => OF_REDIRECT,
            _ => OF_ERROR,
        };
        let field = |name: &str| match (name, response.header(name).unwrap_or("-")) {
            // Names of fields have no case.
            ("vary", value) => value.to_ascii_lowercase(),
            (_, value) => value.to_owned(),
        };
        let mut facts = vec![("status".to_owned(), response.status.to_string())];
        if response.status < 300 {
            facts.push(("body".to_owned(), body(method, response, tree)));
        }
        facts.extend(names.iter().map(|name| ((*name).to_owned(), field(name))));
        if response.status == 200 {
            // A part is proof enough.
            facts.push(("accept-ranges".to_owned(), field("accept-ranges")));
        }
        if response.status < 300 || response.status == 304 {
            facts.push(("etag".to_owned(), strength(response.header("etag")).to_owned()));
        }
        for (name, value) in &mut facts {
            // How long it is depends on the boundary; that it is as long as it says has been seen.
            if value.starts_with("multipart/byteranges") || (name == "content-length" && is_multipart(response)) {
                "multipart/byteranges".clone_into(value);
            }
        }
        facts[1..].sort();
        Self(facts)
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("-", |(_, value)| value)
    }

    /// What the other has where it differs. Of an answer with another status, that, and the body of a 200.
    pub(super) fn differences(&self, other: &Self) -> Vec<(String, String)> {
        let is_of_another_kind = self.get("status") != other.get("status");
        let is_compared = |name: &str| match name {
            "status" => true,
            "body" if is_of_another_kind => other.get("status") == "200",
            _ => !is_of_another_kind,
        };
        let differs = |(name, value): &&(String, String)| is_compared(name) && self.get(name) != value;
        other.0.iter().filter(differs).cloned().collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_words(&self.0))
    }
}

fn strength(etag: Option<&str>) -> &'static str {
    match etag {
        None => "-",
        Some(etag) if etag.starts_with("W/") => "weak",
        Some(_) => "strong",
    }
}

fn is_multipart(response: &Response) -> bool {
    response.header("content-type").is_some_and(|value| value.starts_with("multipart/byteranges"))
}

/// Which file, or which parts of it.
fn body(method: &str, response: &Response, tree: &Tree) -> String {
    if let Some(cut) = &response.cut {
        return format!("cut ({cut})");
    }
    if method != "GET" {
        return format!("of {} bytes", response.body.len());
    }
    if is_multipart(response) {
        return parts(response, tree);
    }
    let range = response.header("content-range").and_then(range);
    tree.name_of(&response.body, range).unwrap_or_else(|| "unknown".to_owned())
}

/// `bytes 0-1/3`
fn range(value: &str) -> Option<(u64, u64)> {
    let (first, rest) = value.strip_prefix("bytes ")?.split_once('-')?;
    let (_, length) = rest.split_once('/')?;
    Some((first.parse().ok()?, length.parse().ok()?))
}

/// Each part of `multipart/byteranges` as the file it is of, and where it stands.
fn parts(response: &Response, tree: &Tree) -> String {
    let content_type = response.header("content-type").unwrap_or_default();
    let Some((_, boundary)) = content_type.split_once("boundary=") else { return "without a boundary".to_owned() };
    let delimiter = format!("\r\n--{boundary}");
    // The first may stand at the very beginning.
    let body = [b"\r\n", &response.body[..]].concat();
    let pieces = split(&body, delimiter.as_bytes());
    let Some(([_, parts @ ..], end)) = pieces.split_last().map(|(end, pieces)| (pieces, end)) else {
        return "in one piece".to_owned();
    };
    if !end.starts_with(b"--") {
        return "without an end".to_owned();
    }
    parts.iter().map(|part| one_part(part, tree)).collect::<Vec<_>>().join(", ")
}

fn one_part(part: &[u8], tree: &Tree) -> String {
    let Some(end) = part.windows(4).position(|four| four == b"\r\n\r\n") else { return "without a head".to_owned() };
    let head = String::from_utf8_lossy(&part[..end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("-").trim().to_owned();
    let value = field("content-range:");
    let name = tree.name_of(&part[end + 4..], range(&value)).unwrap_or_else(|| "unknown".to_owned());
    format!("{name} {value} {}", field("content-type:"))
}

fn split<'a>(mut bytes: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(at) = bytes.windows(delimiter.len()).position(|window| window == delimiter) {
        pieces.push(&bytes[..at]);
        bytes = &bytes[at + delimiter.len()..];
    }
    pieces.push(bytes);
    pieces
}
