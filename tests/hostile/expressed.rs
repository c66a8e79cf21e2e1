//! A request of HTTP/1.1 said in HTTP/2, with whatever is wrong about it.

use crate::support::frames::{self, END_HEADERS, END_STREAM, Frames, Outcome, block};

const MAX_FRAME_SIZE: usize = 16 << 10;

/// A header list and a body.
pub(super) struct Expressed {
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Expressed {
    /// The same request line, fields and body. The first Host becomes `:authority`.
    pub(super) fn of(bytes: &[u8], scheme: &str) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let (head, body) = bytes.split_at(end);
        let mut lines = lines(head).into_iter();
        let line = lines.next().unwrap_or_default();
        let is_space = |byte: &u8| *byte == b' ';
        let first = line.iter().position(is_space).unwrap_or(line.len());
        let last = line.iter().rposition(is_space).filter(|last| *last > first).unwrap_or(line.len());
        let target = line.get(first + 1..last).unwrap_or_default();
        let (mut authority, mut others) = (None, Vec::new());
        for (name, value) in lines.map(field) {
            if name == "host" && authority.is_none() { authority = Some(value) } else { others.push((name, value)) }
        }
        let pseudo = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let mut fields = vec![pseudo(":method", &line[..first]), pseudo(":scheme", scheme.as_bytes())];
        fields.extend(authority.map(|authority| (":authority".to_owned(), authority)));
        fields.push(pseudo(":path", target));
        fields.append(&mut others);
        Self { fields, body: body.to_vec() }
    }

    /// Sends it as the first stream, named in its User-Agent, and reads what becomes of it.
    pub(super) fn send(&self, frames: &mut Frames, name: &str) -> Outcome {
        let mut list: Vec<(&str, &[u8])> = self.fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        list.push(("user-agent", name.as_bytes()));
        let end = if self.body.is_empty() { END_STREAM } else { 0 };
        // A connection that ends before all is sent tells its outcome, too.
        if send_head(frames, end, &block(&list)) && !self.body.is_empty() {
            frames.send(frames::DATA, END_STREAM, 1, &self.body);
        }
        frames.outcome(1)
    }
}

/// In frames of the size that everybody takes (RFC 9113, 4.2). Whether the gateway still took them.
fn send_head(frames: &mut Frames, end: u8, block: &[u8]) -> bool {
    let count = block.chunks(MAX_FRAME_SIZE).count();
    block.chunks(MAX_FRAME_SIZE).enumerate().all(|(at, part)| {
        let last = if at + 1 == count { END_HEADERS } else { 0 };
        let (kind, flags) = if at == 0 { (frames::HEADERS, end | last) } else { (frames::CONTINUATION, last) };
        frames.send(kind, flags, 1, part)
    })
}

fn lines(head: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        if at > 0 {
            lines.push(&rest[..at]);
        }
        rest = &rest[at + 2..];
    }
    lines
}

fn field(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
    let (name, value) = if line[0] == b':' {
        (&line[..0], &line[1..])
    } else {
        (&line[..colon], line.get(colon + 1..).unwrap_or_default())
    };
    // One byte a character, and back again when it is sent: what is no text stays as it is.
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().take_while(|byte| is_space(byte)).count();
    let end = value.len() - value[start..].iter().rev().take_while(|byte| is_space(byte)).count();
    (name, value[start..end].to_vec())
}
