//! What requests ask for the same: the key of what is stored.
//!
//! A key is made of the **names** of the route and the upstream, the scheme, and the parts that the route is configured with
//! (`by`: by default host, path and query). Names, not places in the configuration: a reload, another order of the routes or a
//! restart over the same folder never mixes the pages of two. The scheme is always in it, because apps redirect by it.
//!
//! The parts are framed: each with its length before it, each list with its count, so that no byte in one of them can look like the
//! end of it ([`Framed`]). What is framed is hashed with SHA-256, all 256 bits of it. Clients choose most of the bytes, and whoever could
//! make two requests meet would choose what others get: only a hash for which nobody can find two such inputs will do.
//! It needs no secret, which would have to lie beside the disk store, and two machines come to the same. The bytes themselves
//! would be as safe, and a hundred or thousands of them instead of 32. What was hashed a moment ago is not hashed again ([`memo`](self)).
//!
//! What a client sends is in the key as the app will get it: path and query undecoded, the whole Host in lower case with its port. What is
//! named (`query:NAME`, `cookie:NAME`) is found however it is spelled, so that no spelling is seen by the app and not by the key.

mod memo;

use std::cell::RefCell;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{HeaderMap, HeaderName};

use self::memo::Memo;
use super::policy::cookies::{self, Patterns};
use super::policy::vary::unsent;
use crate::config::CacheBy;
use crate::http::query;

thread_local! {
    static MEMO: RefCell<Memo> = RefCell::new(Memo::new());
}

/// The key of what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; Self::LENGTH]);

impl Key {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    /// A key that was one before.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Its bytes: those of a hash, each as good as the others.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A part of requests by which they are told apart.
#[derive(Debug, Clone)]
pub enum Part {
    /// Host, with its port, in lower case.
    Host,
    /// The path.
    Path,
    /// All of the query.
    Query,
    /// The values of one parameter of the query.
    Parameter(Box<str>),
    /// The lines of a field.
    Header(HeaderName),
    /// A cookie.
    Cookie(Cookie),
}

impl Part {
    /// `cookie:NAME`; a `*` at the end stands for any end.
    #[must_use]
    pub fn cookie(name: &str) -> Self {
        Self::Cookie(Cookie { name: name.into(), pattern: Patterns::new(&[name]) })
    }
}

/// A cookie that is looked for.
#[derive(Debug, Clone)]
pub struct Cookie {
    name: Box<str>,
    pattern: Patterns,
}

/// The beginning of all keys of a route: its names, framed once. Of requests without TLS, and of those with it.
#[derive(Debug, Clone)]
pub struct Base([Box<[u8]>; 2]);

impl Base {
    /// Of the name of the site and that of the route, and the name of the upstream.
    #[must_use]
    pub fn new(route: [&str; 2], upstream: &str) -> Self {
        Self([false, true].map(|is_secure| {
            let mut bytes = Vec::new();
            let mut framed = Framed::new(&mut bytes, b"request");
            for name in route {
                framed.put(name.as_bytes());
            }
            framed.put(upstream.as_bytes());
            framed.put(&[u8::from(is_secure)]);
            bytes.into()
        }))
    }
}

/// What a request has of the parts.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// That of its route.
    pub base: &'a Base,
    /// Whether the client speaks TLS to the edge, or to a proxy before it that is trusted.
    pub is_secure: bool,
    /// Host, as the app will be told.
    pub host: &'a [u8],
    /// The path, as received.
    pub path: &'a str,
    /// The query with its `?`, or nothing.
    pub query: &'a str,
    /// All fields.
    pub headers: &'a HeaderMap,
}

/// What tells requests apart (`by`).
#[derive(Debug, Clone)]
pub struct By(Box<[Part]>);

impl Default for By {
    fn default() -> Self {
        Self([Part::Host, Part::Path, Part::Query].into())
    }
}

impl By {
    /// Of parts, in this order. Parameters of the query that are named beside the whole of it add nothing.
    #[must_use]
    pub fn new(parts: Vec<Part>) -> Self {
        Self(parts.into())
    }

    /// Of a route's configuration, which has refused what is no name.
    #[must_use]
    pub fn compile(parts: &[CacheBy]) -> Self {
        let part = |part: &CacheBy| match part {
            CacheBy::Host => Some(Part::Host),
            CacheBy::Path => Some(Part::Path),
            CacheBy::Query => Some(Part::Query),
            CacheBy::Parameter(name) => Some(Part::Parameter(name.as_str().into())),
            CacheBy::Header(name) => name.parse().ok().map(Part::Header),
            CacheBy::Cookie(name) => Some(Part::cookie(name)),
        };
        Self(parts.iter().filter_map(part).collect())
    }

    /// The key of a request.
    ///
    /// `scratch` is memory that is used again: nothing is left in it that matters.
    #[must_use]
    pub fn key(&self, parts: &Parts<'_>, scratch: &mut Vec<u8>) -> Key {
        let mut framed = Framed::on(scratch, &parts.base.0[usize::from(parts.is_secure)]);
        self.frame(parts, &mut framed);
        framed.key()
    }

    fn frame(&self, parts: &Parts<'_>, framed: &mut Framed<'_>) {
        // What the client's Connection names does not reach the app.
        let unsent = unsent(parts.headers);
        for part in &self.0 {
            match part {
                Part::Host => {
                    framed.put(b"host");
                    framed.put_lowercase(parts.host);
                }
                Part::Path => {
                    framed.put(b"path");
                    framed.put(parts.path.as_bytes());
                }
                Part::Query => {
                    framed.put(b"query");
                    framed.put(parts.query.as_bytes());
                }
                Part::Parameter(name) => {
                    framed.put(b"parameter");
                    framed.put(name.as_bytes());
                    framed.list(|framed| parameter(framed, name, parts.query));
                }
                Part::Header(name) => {
                    framed.put(b"header");
                    framed.put(name.as_str().as_bytes());
                    framed.list(|framed| {
                        for line in parts.headers.get_all(name).iter().filter(|_| !unsent.contains(name)) {
                            framed.put(line.as_bytes().trim_ascii());
                        }
                    });
                }
                Part::Cookie(cookie) => {
                    framed.put(b"cookie");
                    framed.put(cookie.name.as_bytes());
                    framed.list(|framed| {
                        // The whole piece, because readers differ in where it begins and ends.
                        cookies::pieces(parts.headers)
                            .filter(|piece| cookie.pattern.is_in(piece))
                            .for_each(|piece| framed.put(piece));
                    });
                }
            }
        }
    }
}

/// The pairs of a parameter, as they stand, in their order. Some servers (Python before 3.9.2) also take `;` for the end of a pair: a
/// piece in which they would see the name counts as well.
fn parameter(framed: &mut Framed<'_>, name: &str, all: &str) {
    for piece in all.strip_prefix('?').unwrap_or(all).split('&') {
        if piece.split(';').any(|piece| query::pairs(piece).any(|(key, _)| query::is(key, name))) {
            framed.put(piece.as_bytes());
        }
    }
}

/// Pieces of bytes one after the other, so that other pieces never make the same bytes: a piece is its length and itself, a list how
/// many pieces it has, marked by the highest bit.
pub(super) struct Framed<'a> {
    bytes: &'a mut Vec<u8>,
    /// Pieces since the beginning of the list.
    count: u32,
}

/// What a piece's length never has.
const LIST: u32 = 1 << 31;

impl<'a> Framed<'a> {
    /// `kind`: what the key is of.
    pub(super) fn new(bytes: &'a mut Vec<u8>, kind: &[u8]) -> Self {
        bytes.clear();
        let mut framed = Self { bytes, count: 0 };
        // Another version of this file may frame otherwise, and a disk is read by the next one.
        framed.put(b"hostler cache 1");
        framed.put(kind);
        framed
    }

    /// Behind what was framed before.
    fn on(bytes: &'a mut Vec<u8>, before: &[u8]) -> Self {
        bytes.clear();
        bytes.extend_from_slice(before);
        Self { bytes, count: 0 }
    }

    pub(super) fn put(&mut self, piece: &[u8]) {
        // A head is far from 2 GiB.
        let length = u32::try_from(piece.len()).unwrap_or(LIST - 1);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(piece);
        self.count += 1;
    }

    fn put_lowercase(&mut self, piece: &[u8]) {
        self.put(piece);
        let at = self.bytes.len() - piece.len();
        self.bytes[at..].make_ascii_lowercase();
    }

    pub(super) fn put_all(&mut self, piece: impl Iterator<Item = u8>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend(piece);
        let length = u32::try_from(self.bytes.len() - at - 4).unwrap_or(LIST - 1);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
    }

    pub(super) fn list(&mut self, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        let outer = std::mem::take(&mut self.count);
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        self.bytes[at..at + 4].copy_from_slice(&(LIST | self.count).to_le_bytes());
        self.count = outer + 1;
    }

    pub(super) fn key(self) -> Key {
        MEMO.with_borrow_mut(|memo| memo.key(self.bytes, sha256))
    }
}

fn sha256(bytes: &[u8]) -> Key {
    let mut key = [0; Key::LENGTH];
    key.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Key(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
