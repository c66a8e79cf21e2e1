//! `format: combined`, which every log analyser reads, as Apache httpd and nginx write it:
//!
//! ```text
//! 192.0.2.7 - alice [28/Nov/2026:21:30:00 +0000] "GET /a?b HTTP/1.1" 200 512 "https://shop.example/" "curl/8.5.0"
//! ```
//!
//! The time is UTC. What is not known is `-`; a client without an address is `unix:`. In what a client has sent, `"`, `\`
//! and every byte that is not printable ASCII is written as `\xHH`: no field can end itself, its line or the one before.

use std::time::UNIX_EPOCH;

use super::{status, told};
use crate::http::text::{append_address, append_decimal};
use crate::http::{Exchange, Protocol};
use crate::observe::clf;

/// Appends the line of an exchange that has ended.
pub(super) fn write(line: &mut Vec<u8>, exchange: &Exchange, query: bool) {
    match exchange.client.get() {
        Some(client) => append_address(line, client),
        None => line.extend_from_slice(b"unix:"),
    }
    line.extend_from_slice(b" - ");
    match exchange.identity.user() {
        Some(user) => clf::word(line, user.as_bytes()),
        None => line.push(b'-'),
    }
    line.extend_from_slice(b" [");
    let received = exchange.received_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    clf::time(line, received.as_secs());
    line.extend_from_slice(b"] \"");
    request_line(line, exchange, query);
    line.extend_from_slice(b"\" ");
    append_decimal(line, u64::from(status(exchange)));
    line.push(b' ');
    append_decimal(line, exchange.bytes_out.get());
    line.extend_from_slice(b" \"");
    clf::field(line, exchange.referer.get().map_or(&[][..], |referer| told(referer.as_bytes(), query)));
    line.extend_from_slice(b"\" \"");
    clf::field(line, exchange.user_agent.as_ref().map_or(&[][..], |agent| agent.as_bytes()));
    line.push(b'"');
}

/// Empty when the request line was refused.
fn request_line(line: &mut Vec<u8>, exchange: &Exchange, query: bool) {
    if exchange.target.is_empty() {
        return line.push(b'-');
    }
    clf::field(line, exchange.method.as_str().as_bytes());
    line.push(b' ');
    clf::field(line, told(&exchange.target, query));
    line.push(b' ');
    line.extend_from_slice(match exchange.protocol {
        // What readers of this format know it by.
        Protocol::Http2 => b"HTTP/2.0",
        other => other.as_str().as_bytes(),
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderValue, Method};

    use super::*;
    use crate::http::ConnectionInfo;
    use crate::http::identity::REMOTE_USER;

    fn exchange(peer: Option<&str>, target: &'static str) -> Exchange {
        let connection = ConnectionInfo::new("80").between(peer.map(|peer| peer.parse().unwrap()), None);
        let mut exchange =
            Exchange::new(Rc::new(connection), Protocol::Http2, Method::GET, Bytes::from(target), None, None);
        exchange.received_at = UNIX_EPOCH;
        exchange
    }

    fn line(exchange: &Exchange) -> String {
        let mut line = Vec::new();
        write(&mut line, exchange, true);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn who_has_logged_in_stands_in_the_third_column_and_is_one_word() {
        let exchange = exchange(Some("192.0.2.7:5"), "/a?b");
        let time = "[01/Jan/1970:00:00:00 +0000]";
        assert_eq!(line(&exchange), format!("192.0.2.7 - - {time} \"GET /a?b HTTP/2.0\" 499 0 \"-\" \"-\""));
        exchange.identity.tell(REMOTE_USER, HeaderValue::from_static("ann \"x\" [y]"));
        let begun = format!("192.0.2.7 - ann\\x20\\x22x\\x22\\x20[y] {time} ");
        assert!(line(&exchange).starts_with(&begun), "{}", line(&exchange));
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_a_client_without_an_address_is_unix() {
        assert!(
            line(&exchange(None, "")).starts_with("unix: - - [01/Jan/1970:00:00:00 +0000] \"-\" 499 0 \"-\" \"-\"")
        );
    }
}
