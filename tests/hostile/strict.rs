//! The strictest reading of what a worker got: one request, in one form, and nothing of what a client must not say.

/// A request that has one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case, in the order they came.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// What the edge says to the worker, in this order.
pub(super) const OWN: [&str; 8] = [
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-request-id",
    "x-request-start",
    "connection",
];

/// Names of which none may reach a worker.
const NEVER: [&str; 10] = [
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "expect",
    "proxy",
];

impl Message {
    /// Reads all of `bytes` as one request.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no empty line")?;
        let mut lines = split(&bytes[..end]);
        let line = std::str::from_utf8(lines.remove(0)).map_err(|_| "the request line is not ASCII")?;
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("not a request line: {line:?}")) };
        let has_form = target.starts_with('/') || (target == "*" && method == "OPTIONS");
        if !has_form || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(format!("not origin-form: {target:?}"));
        }
        let fields = lines.into_iter().map(field).collect::<Result<Vec<_>, _>>()?;
        let message =
            Self { method: method.to_owned(), target: target.to_owned(), fields, body: bytes[end + 4..].to_vec() };
        message.is_plain().map(|()| message)
    }

    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &value[..]).collect()
    }

    /// The one value of a field, as text.
    pub(super) fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {self:?}");
        std::str::from_utf8(all[0]).unwrap()
    }

    /// The fields but those that the edge has added and one that the test has, in an order that does not tell the protocol.
    pub(super) fn of_the_client(&self) -> Vec<(String, Vec<u8>)> {
        let is_its_own = |name: &str| name != "user-agent" && !OWN.contains(&name);
        let mut fields: Vec<_> = self.fields.iter().filter(|(name, _)| is_its_own(name)).cloned().collect();
        fields.sort();
        fields
    }

    fn is_plain(&self) -> Result<(), String> {
        if self.all("host").len() != 1 {
            return Err(format!("{} Hosts", self.all("host").len()));
        }
        if let Some((name, _)) = self.fields.iter().find(|(name, _)| NEVER.contains(&&name[..]) || name.contains('_')) {
            return Err(format!("{name} reached the worker"));
        }
        if self.all("connection").iter().any(|value| *value != b"close") {
            return Err("a Connection that is not the edge's".to_owned());
        }
        let length = match self.all("content-length")[..] {
            [] => 0,
            [digits] => std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or("a bad length")?,
            _ => return Err("several lengths".to_owned()),
        };
        if self.body.len() == length {
            Ok(())
        } else {
            Err(format!("{} bytes behind the head, not {length}", self.body.len()))
        }
    }
}

fn split(head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("no colon: {:?}", shown()))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_name =
        |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    let value = value.strip_prefix(b" ").ok_or_else(|| format!("no space behind the colon: {:?}", shown()))?;
    if name.is_empty()
        || !name.iter().all(is_name)
        || value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(format!("not a field: {:?}", shown()));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}
