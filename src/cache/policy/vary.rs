//! Variants: which fields of a request tell them apart (`Vary`: RFC 9110, 12.5.5 and RFC 9111, 4.1), and how requests that mean
//! the same are made to meet.
//!
//! | field | counts as |
//! |---|---|
//! | `Accept-Encoding` | the set of `br`, `deflate`, `gzip`, `zstd` that is taken; with others, `*` or one that is refused (some apps do not read weights): as it stands |
//! | `Accept-Language` | in lower case, without the usual space behind `,` and `;`; with other spaces: as it stands |
//! | `Cookie` | the cookies that are not ignored, in the order of their names: see [`super`] |
//! | others | the lines without the spaces at their ends, in their order |
//!
//! A field that is not there is another thing than one that is empty. One that the client's own `Connection` names is not there: it
//! does not reach the app.
//!
//! What never reaches an app cannot change its answer, and what the edge itself writes it writes from what is in the key
//! already: those names are left out of a list. What it writes of a client or of one request (`X-Forwarded-For`,
//! `X-Request-ID`, `Remote-User`) makes every answer another: as `*`.
//!
//! The names of one key only ever grow ([`union`]), so that an app that says `Vary` on some of its answers and forgets it on
//! others never makes the cache forget it, too.

use http::header::{self, HeaderMap, HeaderName};

use super::cookies;
use super::rules::Rules;
use super::storable::Refusal;
use crate::cache::key::{Framed, Key};
use crate::http::fields::{self, Dropped};

/// Cookies that are put in order; more than these count in the order in which they stand.
const MAX_SORTED: usize = 64;

/// Bytes of an `Accept-Language` that servers surely read to its end: Django stops at 500.
const MAX_LANGUAGE: usize = 400;

/// The names that a response varies by, in order, each once. Empty: there is one variant.
///
/// What the app has coded is for those alone who take the coding, also where the app forgets to say so.
///
/// # Errors
/// [`Refusal::VaryAny`] for `*` and what is as good as that, also for what is no name; [`Refusal::VaryNames`] for more than
/// there may be.
pub fn names(headers: &HeaderMap, rules: &Rules) -> Result<Box<[HeaderName]>, Refusal> {
    let mut names: Vec<HeaderName> = Vec::new();
    for line in headers.get_all(header::VARY) {
        for text in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|text| !text.is_empty())
        {
            let name = HeaderName::from_bytes(text).map_err(|_| Refusal::VaryAny)?;
            match weight(&name, rules) {
                Weight::Everything => return Err(Refusal::VaryAny),
                Weight::Nothing => {}
                Weight::Counts if names.contains(&name) => {}
                Weight::Counts if names.len() >= rules.max_vary_names => return Err(Refusal::VaryNames),
                Weight::Counts => names.push(name),
            }
        }
    }
    if is_coded(headers) && !names.contains(&header::ACCEPT_ENCODING) {
        if names.len() >= rules.max_vary_names {
            return Err(Refusal::VaryNames);
        }
        names.push(header::ACCEPT_ENCODING);
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(names.into())
}

fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|line| {
        let mut codings = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
    })
}

/// All names of both, in order: what a key varies by when it has had one rule and a response brings another.
///
/// # Errors
/// [`Refusal::VaryNames`] for more than `limit`.
pub fn union(known: &[HeaderName], new: &[HeaderName], limit: usize) -> Result<Box<[HeaderName]>, Refusal> {
    let mut names = known.to_vec();
    names.extend(new.iter().filter(|name| !known.contains(name)).cloned());
    if names.len() > limit {
        return Err(Refusal::VaryNames);
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(names.into())
}

enum Weight {
    Nothing,
    Counts,
    Everything,
}

fn weight(name: &HeaderName, rules: &Rules) -> Weight {
    // What the edge tells of who asks is not what the client has sent by that name.
    if *name == "*" || rules.identity.contains(name) {
        return Weight::Everything;
    }
    match fields::request_field(name) {
        None => Weight::Counts,
        Some(Dropped::Hop | Dropped::Underscore) => Weight::Nothing,
        Some(Dropped::Forwarded) => match name.as_str() {
            // The scheme is in every key, the prefix is the route's. The port is in none, and the host not in all.
            "x-forwarded-proto"
            | "x-forwarded-protocol"
            | "x-forwarded-scheme"
            | "x-forwarded-ssl"
            | "x-forwarded-prefix"
            | "front-end-https" => Weight::Nothing,
            _ => Weight::Everything,
        },
        Some(Dropped::Traced | Dropped::Internal | Dropped::Identity) => Weight::Everything,
    }
}

/// The key of the variant that a request is answered with. Without names it is that of all of them.
///
/// `scratch` is memory that is used again: nothing is left in it that matters.
#[must_use]
pub fn variant(all: Key, names: &[HeaderName], headers: &HeaderMap, rules: &Rules, scratch: &mut Vec<u8>) -> Key {
    if names.is_empty() { all } else { variant_of(all, names.iter().cloned(), headers, rules, scratch) }
}

/// The same for names that there are.
#[must_use]
pub fn variant_of(
    all: Key,
    names: impl Iterator<Item = HeaderName>,
    headers: &HeaderMap,
    rules: &Rules,
    scratch: &mut Vec<u8>,
) -> Key {
    let mut framed = Framed::new(scratch, b"variant");
    framed.put(all.as_bytes());
    let unsent = unsent(headers);
    for name in names {
        framed.put(name.as_str().as_bytes());
        if unsent.contains(&name) {
            missing(&mut framed, &name);
        } else {
            value(&mut framed, &name, headers, rules);
        }
    }
    framed.key()
}

/// Fields that the client's `Connection` names: the edge does not send them on. Almost always none.
pub(crate) fn unsent(headers: &HeaderMap) -> Vec<HeaderName> {
    if fields::has(headers, &header::CONNECTION) { fields::named_by_connection(headers) } else { Vec::new() }
}

/// The same as [`value`] of a request without the field.
fn missing(framed: &mut Framed<'_>, name: &HeaderName) {
    if *name == header::ACCEPT_ENCODING {
        framed.put(&[0]);
    } else {
        framed.list(|_| {});
    }
}

/// The value of one field as it counts.
fn value(framed: &mut Framed<'_>, name: &HeaderName, headers: &HeaderMap, rules: &Rules) {
    match *name {
        header::ACCEPT_ENCODING if let Some(set) = Codings::of(headers) => framed.put(&[set.0]),
        header::ACCEPT_LANGUAGE => framed.list(|framed| {
            for line in headers.get_all(name) {
                language(framed, line.as_bytes().trim_ascii());
            }
        }),
        header::COOKIE => framed.list(|framed| cookie(framed, headers, rules)),
        _ => framed.list(|framed| {
            for line in headers.get_all(name) {
                framed.put(line.as_bytes().trim_ascii());
            }
        }),
    }
}

/// A line that every server reads in the same way, in one spelling: in lower case, without the one space that may stand behind `,`
/// and `;`. Others (`d e`, `Q=0.5`, one that is so long that some cut it off) are what they are.
fn language(framed: &mut Framed<'_>, line: &[u8]) {
    let is_usual = |at: usize, byte: u8| match byte {
        b' ' => at > 0 && matches!(line[at - 1], b',' | b';'),
        b'Q' => false,
        byte => byte.is_ascii_alphanumeric() || b"-*,;=.".contains(&byte),
    };
    if line.len() > MAX_LANGUAGE || !line.iter().enumerate().all(|(at, byte)| is_usual(at, *byte)) {
        framed.put(line);
        return;
    }
    framed.put_all(line.iter().filter(|byte| **byte != b' ').map(u8::to_ascii_lowercase));
}

/// Cookies by their names. Those of one name stay in their order: servers take the first or the last.
fn cookie(framed: &mut Framed<'_>, headers: &HeaderMap, rules: &Rules) {
    let mut sorted: [&[u8]; MAX_SORTED] = [&[]; MAX_SORTED];
    let mut count = 0;
    for piece in cookies::counting(headers, rules) {
        if let Some(place) = sorted.get_mut(count) {
            *place = piece;
        }
        count += 1;
    }
    match sorted.get_mut(..count) {
        Some(few) => {
            insert_in_order(few);
            few.iter().for_each(|piece| framed.put(piece));
        }
        None => cookies::counting(headers, rules).for_each(|piece| framed.put(piece)),
    }
}

/// Stable, and without memory of its own: there are a handful.
fn insert_in_order(pieces: &mut [&[u8]]) {
    for at in 1..pieces.len() {
        let mut place = at;
        while place > 0 && cookies::name_of(pieces[place - 1]) > cookies::name_of(pieces[place]) {
            pieces.swap(place - 1, place);
            place -= 1;
        }
    }
}

/// Codings that a client takes, one bit each, and what else there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codings(u8);

impl Codings {
    const NAMES: [(&'static [u8], u8); 5] =
        [(b"br", 1), (b"zstd", 1 << 1), (b"gzip", 1 << 2), (b"x-gzip", 1 << 2), (b"deflate", 1 << 3)];
    /// There is such a field.
    const THERE: u8 = 1 << 7;

    /// `None`: it has others, or cannot be read, and counts as it stands.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut taken = 0;
        for line in headers.get_all(header::ACCEPT_ENCODING) {
            taken |= Self::THERE;
            let elements = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            for element in elements.filter(|element| !element.is_empty()) {
                let mut parts = element.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
                let name = parts.next()?;
                let is_taken = match parts.next() {
                    None => true,
                    Some([b'q' | b'Q', b'=', weight @ ..]) => takes(weight)?,
                    Some(_) => return None,
                };
                // Django's GZipMiddleware finds `gzip` in `gzip;q=0`.
                if !is_taken {
                    return None;
                }
                match Self::NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
                    Some((_, bit)) => taken |= bit,
                    None if name.eq_ignore_ascii_case(b"identity") => {}
                    None => return None,
                }
            }
        }
        Some(Self(taken))
    }
}

/// Whether a weight (RFC 9110, 12.4.2) is more than nothing. `None`: it is none.
fn takes(weight: &[u8]) -> Option<bool> {
    let (whole, fraction) = match weight {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let is_number = fraction.iter().all(u8::is_ascii_digit);
    is_number.then(|| *whole == b'1' || fraction.iter().any(|digit| *digit != b'0'))
}

/// A variant that is stored beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// It was stored for a client with cookies that count, and varies by them.
    pub is_of_cookies: bool,
    /// When it was used last: whatever grows.
    pub used: u64,
}

/// What becomes of a variant that is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is room.
    Beside,
    /// Instead of this one.
    InsteadOf(usize),
    /// It is not stored.
    Refused,
}

/// Whether the variant of a request varies by cookies that it has.
#[must_use]
pub fn is_of_cookies(names: &[HeaderName], has_cookies: bool) -> bool {
    has_cookies && names.contains(&header::COOKIE)
}

/// Whether there is room for one more variant of a key, among at most `limit`.
///
/// Those of cookies have a quarter of the room, and push out nothing but each other: whoever sends a thousand different cookies does
/// not push out what clients without cookies share. Of the others the one used longest ago goes.
#[must_use]
pub fn admit(known: &[Variant], is_of_cookies: bool, limit: usize) -> Admission {
    let oldest = |of_cookies: bool| {
        let all = known.iter().enumerate().filter(|(_, variant)| variant.is_of_cookies == of_cookies);
        all.min_by_key(|(_, variant)| variant.used).map(|(at, _)| at)
    };
    let instead = |at: Option<usize>| at.map_or(Admission::Refused, Admission::InsteadOf);
    let of_cookies = known.iter().filter(|variant| variant.is_of_cookies).count();
    let is_full = known.len() >= limit;
    if is_of_cookies && (is_full || of_cookies >= (limit / 4).max(1)) {
        return instead(oldest(true));
    }
    match is_full {
        false if limit > 0 => Admission::Beside,
        false => Admission::Refused,
        true => instead(oldest(true).or_else(|| oldest(false))),
    }
}

/// Whether a response varies by nothing that another one does not vary by, too: Django forgets what a middleware has not run for.
pub(super) fn is_within(new: &HeaderMap, known: &HeaderMap, rules: &Rules) -> bool {
    match (names(new, rules), names(known, rules)) {
        (Ok(new), Ok(known)) => new.iter().all(|name| known.contains(name)),
        _ => false,
    }
}
