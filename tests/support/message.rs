//! A response as a client got it, whichever protocol it came by.

/// A response as a client got it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Statuses of the interim responses before it.
    pub(crate) interim: Vec<u16>,
    /// The body ended before its framing said so: how.
    pub(crate) cut: Option<String>,
}

impl Response {
    /// The one field of this name; panics when there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let first = found.next();
        assert!(found.next().is_none(), "several fields {name}: {:?}", self.headers);
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The name of the exchange, as in the access log.
    pub(crate) fn id(&self) -> &str {
        self.header("x-request-id").expect("every response has an x-request-id")
    }
}

/// The field lines of a head, the start line first.
pub(super) fn split_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    (start, fields.collect())
}

/// Where the head ends, its empty line included.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}
