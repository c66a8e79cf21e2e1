//! A second reading of heads and chunked bodies: slow, naive, byte by byte from the grammar of RFC 9110 and 9112, with the rules
//! that this project adds, and nothing shared with the parsers that it is held against. It uses the standard library alone, so
//! that fuzz targets can include it as well.

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// There is none.
    Nowhere,
    /// After so many bytes.
    After(u64),
    /// With the last chunk.
    WithChunks,
    /// With the connection.
    WithConnection,
}

/// Names in lower case and values without the space around them, in the order received.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// A request head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as they are sent on.
    pub(crate) target: String,
    /// The path as an app sees it.
    pub(crate) path: Vec<u8>,
    pub(crate) is_1_1: bool,
    pub(crate) fields: Fields,
    pub(crate) host: Option<String>,
    pub(crate) ends: Ends,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

/// A response head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) ends: Ends,
    pub(crate) keep_alive: bool,
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `HTAB / SP / VCHAR / obs-text`
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte == b' ' || (0x21..=0x7e).contains(&byte) || byte >= 0x80
}

/// The lines of a head, each ended by CRLF, the last one empty and the only one that is.
fn lines(head: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < head.len() {
        match head[at] {
            b'\r' if head.get(at + 1) == Some(&b'\n') => {
                lines.push(std::mem::take(&mut line));
                at += 2;
            }
            b'\r' | b'\n' => return None,
            byte => {
                line.push(byte);
                at += 1;
            }
        }
    }
    let is_ended = line.is_empty() && lines.last().is_some_and(Vec::is_empty);
    let empty = lines.iter().filter(|line| line.is_empty()).count();
    lines.pop();
    (is_ended && empty == 1).then_some(lines)
}

/// `field-name ":" OWS field-value OWS`
fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut name = String::new();
    let mut at = 0;
    while line[at] != b':' {
        if !is_tchar(line[at]) {
            return None;
        }
        name.push(char::from(line[at].to_ascii_lowercase()));
        at += 1;
        if at == line.len() {
            return None;
        }
    }
    if name.is_empty() {
        return None;
    }
    let mut value = line[at + 1..].to_vec();
    if !value.iter().all(|byte| is_text(*byte)) {
        return None;
    }
    while value.last().is_some_and(|byte| b" \t".contains(byte)) {
        value.pop();
    }
    while value.first().is_some_and(|byte| b" \t".contains(byte)) {
        value.remove(0);
    }
    Some((name, value))
}

fn named<'a>(fields: &'a Fields, wanted: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice()).collect()
}

/// Whether a list has this element, in any case.
fn lists(fields: &Fields, name: &str, wanted: &str) -> bool {
    let elements = named(fields, name).into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    elements.into_iter().any(|element| element.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// `None` for what has two readings. `Ends::Nowhere` stands for neither field.
fn ends(fields: &Fields, is_1_1: bool) -> Option<Ends> {
    match (&named(fields, "content-length")[..], &named(fields, "transfer-encoding")[..]) {
        ([], []) => Some(Ends::Nowhere),
        ([length], []) => {
            let is_number = !length.is_empty() && length.len() <= 19 && length.iter().all(u8::is_ascii_digit);
            let number = String::from_utf8_lossy(length).parse();
            is_number.then(|| Ends::After(number.unwrap_or(u64::MAX)))
        }
        ([], [coding]) => (is_1_1 && coding.eq_ignore_ascii_case(b"chunked")).then_some(Ends::WithChunks),
        _ => None,
    }
}

fn keep_alive(fields: &Fields, is_1_1: bool) -> bool {
    !lists(fields, "connection", "close") && (is_1_1 || lists(fields, "connection", "keep-alive"))
}

/// A whole request head with at most so many field lines, if it may be passed on.
pub(crate) fn request(head: &[u8], most: usize) -> Option<Request> {
    let lines = lines(head)?;
    let (first, rest) = lines.split_first()?;
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return None };
    let is_method = (1..=32).contains(&method.len()) && method.iter().all(|b| is_tchar(*b) && !b.is_ascii_lowercase());
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    if !is_method || matches!(method, b"CONNECT" | b"TRACE") || rest.len() > most {
        return None;
    }
    let mut fields = rest.iter().map(|line| field(line)).collect::<Option<Fields>>()?;
    let (authority, target) = split_target(target, method == b"OPTIONS")?;
    let path = path(&target)?;
    let host = match (&named(&fields, "host")[..], &authority) {
        ([], None) if !is_1_1 => None,
        ([], Some(authority)) if !is_1_1 => Some(authority.clone().into_bytes()),
        ([host], None) => Some(host.to_vec()),
        ([host], Some(authority)) if host.eq_ignore_ascii_case(authority.as_bytes()) => Some(host.to_vec()),
        _ => return None,
    };
    let host = match host {
        Some(host) => Some(String::from_utf8(host).ok().filter(|host| is_host(host))?),
        None => None,
    };
    if let (Some(host), true) = (&host, named(&fields, "host").is_empty()) {
        fields.push(("host".into(), host.clone().into_bytes()));
    }
    let hops = named(&fields, "connection").into_iter().flat_map(|line| line.split(|byte| *byte == b','));
    let hops: Vec<&[u8]> = hops.map(|name| name.trim_ascii()).filter(|name| names_a_field(name)).collect();
    if hops.len() > 32 || hops.into_iter().any(is_for_every_recipient) {
        return None;
    }
    let has_one = |value: &&[u8]| value.iter().any(|byte| !b", \t".contains(byte));
    let expectations: Vec<&[u8]> = named(&fields, "expect").into_iter().filter(has_one).collect();
    let expects = is_1_1 && !expectations.is_empty();
    if named(&fields, "content-type").len() > 1
        || expects && !expectations.iter().all(|value| value.eq_ignore_ascii_case(b"100-continue"))
    {
        return None;
    }
    Some(Request {
        method: String::from_utf8(method.to_vec()).ok()?,
        target,
        path,
        is_1_1,
        host,
        ends: ends(&fields, is_1_1)?,
        keep_alive: keep_alive(&fields, is_1_1),
        expects_continue: expects,
        fields,
    })
}

/// Whether an element of `Connection` is more than a word about the connection itself. What is no text is no name.
fn names_a_field(element: &[u8]) -> bool {
    let words: [&[u8]; 2] = [b"close", b"keep-alive"];
    !element.is_empty()
        && std::str::from_utf8(element).is_ok()
        && !words.iter().any(|word| word.eq_ignore_ascii_case(element))
}

/// What `Connection` must not name: what routes, frames and identifies a request, and what proxies alone may say.
fn is_for_every_recipient(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "host",
        "cookie",
        "authorization",
        "content-type",
        "content-length",
        "transfer-encoding",
        "forwarded",
        "front-end-https",
        "x-real-ip",
        "x-request-id",
        "x-request-start",
        "x-queue-start",
        "remote-user",
        "remote-addr",
        "client-cert",
        "client-cert-chain",
        "x-client-cert-subject",
        "script-name",
        "path-info",
        "proxy",
        "x-remote-user",
        "x-script-name",
        "x-lighttpd-send-file",
    ];
    const BEGINNINGS: &[&str] = &["x-forwarded", "x-accel-", "x-sendfile", "grip-"];
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // Names with an underscore are dropped, whoever names them.
    let is_name = !name.is_empty() && name.bytes().all(|byte| is_tchar(byte) && byte != b'_');
    is_name && (NAMES.contains(&name.as_str()) || BEGINNINGS.iter().any(|start| name.starts_with(start)))
}

/// Authority and origin-form of a target, `*` for OPTIONS.
fn split_target(target: &[u8], is_options: bool) -> Option<(Option<String>, String)> {
    let text = std::str::from_utf8(target).ok()?;
    if text.starts_with('/') || (text == "*" && is_options) {
        return Some((None, text.into()));
    }
    let (scheme, rest) = text.split_once("://")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let slash = if rest[end..].starts_with('/') { "" } else { "/" };
    Some((Some(rest[..end].into()), format!("{slash}{}", &rest[end..])))
}

/// The decoded path, where it has one reading.
pub(crate) fn path(target: &str) -> Option<Vec<u8>> {
    if !target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#') {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.contains(['<', '>', '`']) || query.contains(['"', '<', '>']) {
        return None;
    }
    let mut decoded = Vec::new();
    let mut bytes = target.bytes().take_while(|byte| *byte != b'?');
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
        decoded.push(u8::try_from(value).ok()?);
    }
    let has_dots = decoded.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..");
    let is_plain = !has_dots && !decoded.contains(&b'\\') && !decoded.contains(&0);
    is_plain.then_some(decoded)
}

/// A name, an IPv4 address or an IPv6 one in brackets, and a port after a colon, which may be left out.
pub(crate) fn is_host(text: &str) -> bool {
    let (name, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = match name.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.strip_suffix('.').unwrap_or(name).split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        }),
    };
    let is_port = match port.strip_prefix(':') {
        Some("") => true,
        Some(digits) => {
            digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => port.is_empty(),
    };
    is_name && is_port && (1..=262).contains(&text.len())
}

/// A whole response head with at most so many field lines, to a method that is HEAD or another, if it may be passed on.
pub(crate) fn response(head: &[u8], is_to_head: bool, most: usize) -> Option<Response> {
    let lines = lines(head)?;
    let (first, rest) = lines.split_first()?;
    let is_1_1 = first.starts_with(b"HTTP/1.1 ");
    if !is_1_1 && !first.starts_with(b"HTTP/1.0 ") {
        return None;
    }
    let code = first.get(9..12).filter(|code| code.iter().all(u8::is_ascii_digit) && code[0] != b'0')?;
    let phrase = &first[12..];
    if !(phrase.is_empty() || (phrase[0] == b' ' && phrase.iter().all(|byte| is_text(*byte)))) || rest.len() > most {
        return None;
    }
    let fields = rest.iter().map(|line| field(line)).collect::<Option<Fields>>()?;
    let status = String::from_utf8_lossy(code).parse().ok()?;
    let said = ends(&fields, is_1_1)?;
    let ends = match (status, said) {
        (100..=199 | 204 | 304, _) => Ends::Nowhere,
        _ if is_to_head => Ends::Nowhere,
        (_, Ends::Nowhere) => Ends::WithConnection,
        (_, said) => said,
    };
    Some(Response { status, keep_alive: keep_alive(&fields, is_1_1), fields, ends })
}

/// What a chunked body is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// The body, and how many bytes it took.
    Whole(Vec<u8>, usize),
    /// More is needed.
    Cut,
    /// It can become none.
    Malformed,
}

/// Why reading has ended early.
enum Stop {
    Cut,
    Malformed,
}

struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
    extensions: usize,
}

/// Bytes of a size line with its end, of all extensions after their semicolons, of the trailers with all ends.
const LINE: usize = 4 << 10;
const EXTENSIONS: usize = 64 << 10;
const TRAILERS: usize = 16 << 10;

impl Chunks<'_> {
    /// The next byte.
    fn next(&mut self) -> Result<u8, Stop> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::Cut)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Stop> {
        if self.next()? == wanted { Ok(()) } else { Err(Stop::Malformed) }
    }

    /// `1*15HEXDIG [ ";" *text ] CRLF`
    fn size(&mut self) -> Result<usize, Stop> {
        let start = self.at;
        let mut text = String::new();
        loop {
            match self.next()? {
                byte if byte.is_ascii_hexdigit() && text.len() < 15 => text.push(char::from(byte)),
                b'\r' if !text.is_empty() => break,
                b';' if !text.is_empty() => {
                    self.extension(start)?;
                    break;
                }
                _ => return Err(Stop::Malformed),
            }
        }
        if self.at - start >= LINE {
            // The line feed is beyond the limit, once it is here.
            self.next()?;
            return Err(Stop::Malformed);
        }
        self.expect(b'\n')?;
        usize::from_str_radix(&text, 16).map_err(|_| Stop::Malformed)
    }

    /// Up to the CR, which must not stand within quotes.
    fn extension(&mut self, start: usize) -> Result<(), Stop> {
        let (mut is_quoted, mut is_escaped) = (false, false);
        loop {
            let byte = self.next()?;
            if self.at - start > LINE {
                return Err(Stop::Malformed);
            }
            match byte {
                b'\r' if !is_quoted => return Ok(()),
                byte if is_text(byte) => {
                    if byte == b'"' && !is_escaped {
                        is_quoted = !is_quoted;
                    }
                    is_escaped = byte == b'\\' && is_quoted && !is_escaped;
                    self.extensions += 1;
                    if self.extensions > EXTENSIONS {
                        return Err(Stop::Malformed);
                    }
                }
                _ => return Err(Stop::Malformed),
            }
        }
    }

    /// `*( 1*tchar ":" *text CRLF ) CRLF`
    fn trailers(&mut self) -> Result<(), Stop> {
        let start = self.at;
        let mut line = Vec::new();
        loop {
            let byte = self.next()?;
            if self.at - start > TRAILERS {
                return Err(Stop::Malformed);
            }
            let has_colon = line.contains(&b':');
            match byte {
                b'\r' if line.is_empty() || has_colon => {
                    let beyond = self.at - start >= TRAILERS;
                    self.expect(b'\n')?;
                    if beyond {
                        return Err(Stop::Malformed);
                    }
                    if line.is_empty() {
                        return Ok(());
                    }
                    line.clear();
                }
                b':' if !line.is_empty() => line.push(byte),
                byte if is_tchar(byte) || (has_colon && is_text(byte)) => line.push(byte),
                _ => return Err(Stop::Malformed),
            }
        }
    }

    fn body(&mut self) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let size = self.size()?;
            if size == 0 {
                self.trailers()?;
                return Ok(body);
            }
            for _ in 0..size {
                body.push(self.next()?);
            }
            self.expect(b'\r')?;
            self.expect(b'\n')?;
        }
    }
}

/// A chunked body from its first byte.
pub(crate) fn chunked(bytes: &[u8]) -> Chunked {
    let mut chunks = Chunks { bytes, at: 0, extensions: 0 };
    match chunks.body() {
        Ok(body) => Chunked::Whole(body, chunks.at),
        Err(Stop::Cut) => Chunked::Cut,
        Err(Stop::Malformed) => Chunked::Malformed,
    }
}
