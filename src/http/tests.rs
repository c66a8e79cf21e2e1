//! Claims about whatever a client may send: targets, hosts and field names, against a second, slower reading of each.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::fields::{self, Dropped};
use super::{Host, Target};

/// The decoded path, by a decoder that shares no line with the one under test. `None`: broken encoding.
fn decoded(path: &str) -> Option<Vec<u8>> {
    let mut parts = path.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

/// The path that the rules at the head of `path.rs` let through.
fn allowed(raw: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(raw).ok().filter(|text| text.chars().all(|c| c.is_ascii_graphic() && c != '#'))?;
    if text == "*" {
        return Some(b"*".to_vec());
    }
    let (raw_path, query) = text.split_once('?').unwrap_or((text, ""));
    if raw_path.contains(['<', '>', '`']) || query.contains(['"', '<', '>']) {
        return None;
    }
    let path = decoded(raw_path)?;
    let mut segments = path.split(|b| *b == b'/');
    let is_rooted = text.starts_with('/');
    let is_plain = segments.all(|segment| segment != b"." && segment != b"..");
    (is_rooted && is_plain && !path.contains(&b'\\') && !path.contains(&0)).then_some(path)
}

fn raw_target() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "/", "/", ".", "..", "%2e", "%2E%2e", "%2F", "%5C", "\\", "%00", "%", "%4", "%zz", "%+1", "%25", "2e", "a",
        "é", "?", "#", ";", "*", " ", "\r\n", "%0d%0a", "%ff", "~", "<", ">", "`", "\"",
    ];
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..8);
    let pieces = (prop::bool::weighted(0.9), pieces)
        .prop_map(|(rooted, pieces)| [if rooted { "/" } else { "" }, &pieces.concat()].concat().into_bytes());
    prop_oneof![3 => pieces, 1 => prop::collection::vec(any::<u8>(), 0..20), 1 => "/[!-~]{0,20}".prop_map(String::into_bytes)]
}

fn raw_host() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zA-Z0-9_.-]{0,12}(:[0-9]{0,6})?".prop_map(String::into_bytes),
        "[a-c]{1,2}[!-~][a-c]{1,2}".prop_map(String::into_bytes),
        "\\[[0-9a-fA-F:.%\\[\\]]{0,20}\\](:[0-9]{0,6})?".prop_map(String::into_bytes),
        any::<[u16; 8]>().prop_map(|groups| format!("[{}]", std::net::Ipv6Addr::from(groups)).into_bytes()),
        "[ -~]{0,12}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
        "[a.]{250,270}".prop_map(String::into_bytes),
    ]
}

/// Names that only the edge may use, as a WSGI server spells their variables.
const FORGED: &[&str] = &[
    "X_FORWARDED_FOR",
    "X_FORWARDED_PROTO",
    "X_FORWARDED_SSL",
    "X_FORWARDED_PREFIX",
    "FORWARDED",
    "X_REAL_IP",
    "X_REQUEST_ID",
    "X_REQUEST_START",
    "X_ACCEL_REDIRECT",
    "X_SENDFILE",
    "GRIP_SIG",
    "REMOTE_USER",
    "CLIENT_CERT",
    "X_CLIENT_CERT_SUBJECT",
    "SCRIPT_NAME",
    "PATH_INFO",
    "PROXY",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_target_is_taken_exactly_when_its_path_has_one_reading(raw in raw_target()) {
        let target = Target::parse(Bytes::copy_from_slice(&raw));
        let expected = allowed(&raw);
        prop_assert_eq!(target.as_ref().ok().map(|target| target.path().to_vec()), expected);
        if let Ok(target) = target {
            prop_assert_eq!(target.as_str().as_bytes(), &raw, "sent as received");
            prop_assert_eq!([target.raw_path(), target.query_with_mark()].concat().into_bytes(), raw);
        }
    }

    #[test]
    fn a_host_we_take_holds_nothing_but_a_name_and_a_port(raw in raw_host()) {
        let Ok(host) = Host::parse(Bytes::copy_from_slice(&raw)) else { return Ok(()) };
        prop_assert_eq!(host.as_str().as_bytes(), raw);
        let (name, rest) = host.as_str().split_at(host.name().len());
        prop_assert_eq!(name, host.name());
        match name.strip_prefix('[') {
            Some(literal) => {
                let literal = literal.strip_suffix(']').unwrap_or_default();
                prop_assert!(!literal.is_empty() && literal.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)));
            }
            None => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                let is_name = name.split('.').all(|label| !label.is_empty() && label.chars().all(is_plain));
                prop_assert!(is_name, "{}", name);
            }
        }
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        let port = rest.strip_prefix(':').filter(|digits| !digits.is_empty());
        prop_assert!(rest.is_empty() || rest.starts_with(':'));
        prop_assert_eq!(port.map(|digits| digits.parse().ok()), host.port().map(Some));
    }

    #[test]
    fn no_spelling_of_a_forged_name_reaches_the_app(
        name in prop::sample::select(FORGED),
        changes in prop::collection::vec(any::<(bool, bool)>(), 24),
    ) {
        let spell = |(c, (hyphen, lower)): (char, &(bool, bool))| match c {
            '_' if *hyphen => '-',
            c if *lower => c.to_ascii_lowercase(),
            c => c,
        };
        let spelt: String = name.chars().zip(&changes).map(spell).collect();
        let header = HeaderName::from_bytes(spelt.as_bytes()).unwrap();
        prop_assert!(!matches!(fields::request_field(&header), None | Some(Dropped::Hop)), "{}", spelt);
    }

    #[test]
    fn connection_names_away_what_it_lists_and_nothing_that_matters(
        lines in prop::collection::vec("[ ,\ta-zé-]{0,12}(,host|,Content-Length|,x-mine| , Cookie)?[ ,]{0,3}", 0..4),
    ) {
        let mut headers = HeaderMap::new();
        for line in &lines {
            headers.append("connection", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let named = fields::named_by_connection(&headers);
        for kept in ["host", "content-length", "cookie", "transfer-encoding", "connection"] {
            prop_assert!(!named.iter().any(|name| name == kept), "{}", kept);
        }
        let lists_mine = lines.iter().any(|line| line.split(',').any(|token| token.trim() == "x-mine"));
        prop_assert_eq!(named.iter().any(|name| name == "x-mine"), lists_mine);
    }
}
