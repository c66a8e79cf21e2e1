//! What requests are told apart by: where the same client, field or cookie is to meet the same fate.

use std::net::IpAddr;

use http::header;

use super::Request;
use crate::config::KeyBy;

/// What one request has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// The address of the client.
    Client(IpAddr),
    /// The value of a field or a cookie, as received: whoever sends it chooses it.
    Value(&'a [u8]),
}

/// The key of a request. `None`: it has no such thing.
#[must_use]
pub fn key<'a>(by: &KeyBy, request: &'a Request) -> Option<Key<'a>> {
    match by {
        KeyBy::Client => request.exchange.client.get().map(Key::Client),
        KeyBy::Header(name) => request.headers.get(name).map(|value| Key::Value(value.as_bytes())),
        KeyBy::Cookie(name) => cookie(request, name).map(Key::Value),
    }
}

/// The value of the first cookie of this name (RFC 6265, 4.2.1), over all its lines.
fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a [u8]> {
    let lines = request.headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii));
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::super::{Body, ConnectionInfo, Exchange, Protocol, Target};
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Request {
        let connection = ConnectionInfo::new("80").between("192.0.2.7:5".parse().ok(), None);
        let exchange = Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let (method, target, exchange) = (Method::GET, Target::from_static("/"), Rc::new(exchange));
        Request { method, target, headers, body: Body::Empty, exchange, refused: None }
    }

    #[test]
    fn the_key_is_the_clients_or_what_it_sends() {
        let header = || KeyBy::Header("x-user".into());
        let cookie = || KeyBy::Cookie("id".into());
        let address = "192.0.2.7".parse().unwrap();
        for (by, fields, found) in [
            (KeyBy::Client, &[][..], Some(Key::Client(address))),
            (header(), &[], None),
            (header(), &[("x-user", "ann"), ("x-user", "bob")], Some(Key::Value(b"ann"))),
            (cookie(), &[("cookie", "xid=1; idx=2; ID=3")], None),
            (cookie(), &[("cookie", "a=1;id=\"2\" ; id=3")], Some(Key::Value(b"\"2\""))),
            (cookie(), &[("cookie", "a=1"), ("cookie", "id=a=b")], Some(Key::Value(b"a=b"))),
            (cookie(), &[("cookie", "id=")], Some(Key::Value(b""))),
        ] {
            assert_eq!(key(&by, &request(fields)), found, "{by:?} {fields:?}");
        }
    }
}
