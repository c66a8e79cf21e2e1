//! Orders to purge: what the doors (the admin listener, the command line, the method PURGE) read, and what the store is told of
//! them; and under which host and path what is stored can be purged ([`Labels`]).
//!
//! Whoever purges knows the URL that a page has for its readers, and not how its route is cached. So a URL strikes all that
//! can have been answered for it: http and https, whatever the port, all variants, and what the route keeps once for several hosts or
//! several queries, because its `by` leaves them out. That is purged for the other URLs as well: it is the same object. And a URL
//! strikes what was asked for in another spelling of it ([`spelling`]).

mod spelling;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use self::spelling::{of_beginning, of_target};
use super::Cache;
use super::store::{Manner, NotDurable, Purge, Store};
use crate::config::{self, CacheBy};
use crate::http::{Host, Target};
use crate::runtime::drain::Errand;

/// Bytes of the longest URL or host in an order.
const LONGEST_URL: usize = 8 << 10;
/// Bytes of the longest tag. Of an answer's tags, longer ones are left out.
pub const LONGEST_TAG: usize = 255;
/// The most tags in one order.
pub const MOST_TAGS: usize = 256;

/// The host of what is stored for any of them. No request has it.
const ANY_HOST: &str = "";
/// The end of the path of what is stored for any query.
const ANY_QUERY: &str = "?*";

/// The names under which the answers of a route can be purged by URL, prefix and host.
///
/// The host is the one that the client has asked for, in lower case and without its port: readers do not know the port of an
/// edge behind a balancer. The path, with its query, is [spelled](spelling) in one way, however it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    has_host: bool,
    has_query: bool,
}

impl Labels {
    /// Of a route with these parts of a key.
    #[must_use]
    pub fn compile(by: &[CacheBy]) -> Self {
        Self { has_host: by.contains(&CacheBy::Host), has_query: by.contains(&CacheBy::Query) }
    }

    /// The host of an answer.
    #[must_use]
    pub fn host<'h>(&self, host: Option<&'h Host>) -> Cow<'h, str> {
        match host {
            Some(host) if self.has_host => host.compared(),
            _ => Cow::Borrowed(ANY_HOST),
        }
    }

    /// The path of an answer, with its query if that tells pages apart.
    #[must_use]
    pub fn path<'t>(&self, target: &'t Target) -> Cow<'t, str> {
        if self.has_query {
            of_target(target.as_str())
        } else {
            Cow::Owned(of_any_query(&of_target(target.raw_path())))
        }
    }
}

/// Which labels that are no URL's own there may be in a store: those of any route that there has been.
#[derive(Debug, Default)]
pub struct Wide {
    any_host: AtomicBool,
    any_query: AtomicBool,
}

impl Wide {
    /// There may be such labels from now on.
    pub fn add(&self, labels: Labels) {
        self.any_host.fetch_or(!labels.has_host, Relaxed);
        self.any_query.fetch_or(!labels.has_query, Relaxed);
    }

    /// There may be any: a folder has what was stored by configurations that nobody knows any more.
    pub fn add_all(&self) {
        self.add(Labels { has_host: false, has_query: false });
    }

    /// Those of [`addresses`] under which anything can have been stored.
    fn addresses<'a>(&self, host: &'a str, target: &'a str) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let (any_host, any_query) = (self.any_host.load(Relaxed), self.any_query.load(Relaxed));
        let may_be = move |at: &str, path: &str| (any_host || at == host) && (any_query || path == target);
        addresses(host, target).filter(move |(at, path)| may_be(at, path))
    }
}

/// The path of what is stored for any query of it.
fn of_any_query(target: &str) -> String {
    [path_of(target), ANY_QUERY].concat()
}

fn path_of(target: &str) -> &str {
    &target[..memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len())]
}

/// Every host and path under which an answer for this URL may be stored. `target`: path and query, as they are spelled here.
pub fn addresses<'a>(host: &'a str, target: &'a str) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
    hosts(host)
        .flat_map(move |host| [(host, Cow::Borrowed(target)), (host, Cow::Owned(of_any_query(target)))].into_iter())
}

fn hosts(host: &str) -> impl Iterator<Item = &str> {
    std::iter::once(host).chain((host != ANY_HOST).then_some(ANY_HOST))
}

/// Makes what is stored for a URL invalid, as an unsafe request does (RFC 9111, 4.4): see [`Store::invalidate`]. It is in force when
/// this returns, and done when what this returns is ready or dropped. How many were struck.
pub fn invalidate(
    cache: &Cache,
    host: Option<&Host>,
    target: &str,
    manner: Manner,
) -> impl Future<Output = u64> + use<> {
    let (host, target) = (host.map_or(Cow::Borrowed(ANY_HOST), Host::compared), of_target(target));
    let strike =
        |(host, path): (&str, Cow<'_, str>)| cache.store().invalidate(host.as_bytes(), path.as_bytes(), manner);
    let begun: Vec<_> = cache.wide().addresses(&host, &target).map(strike).collect();
    async move {
        let mut count = 0;
        for one in begun {
            count += one.await;
        }
        count
    }
}

/// The tags in a line of `Surrogate-Key` (spaces between them) or `Cache-Tag` (commas), letter for letter.
pub fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_between = |byte: &u8| matches!(byte, b',' | b' ' | b'\t');
    line.split(is_between).filter(|tag| !tag.is_empty() && tag.len() <= LONGEST_TAG)
}

/// What is to be purged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: What,
    /// How.
    pub manner: Manner,
}

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// One URL, with its query.
    Url(Address),
    /// Every URL that begins so.
    Prefix(Address),
    /// All of a host.
    Host(Box<str>),
    /// All that has any of these tags.
    Tags(Vec<Box<[u8]>>),
    /// Everything.
    All,
}

/// Where something is, whatever scheme and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As it is compared: see [`Host::compared`].
    pub host: Box<str>,
    /// Path and query, [spelled](spelling) as what is stored has them.
    pub target: Box<str>,
}

impl What {
    /// One URL: `https://shop.example/page?n=1`. Scheme and port do not count, and need not be there.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn url(text: &str) -> Result<Self, String> {
        Address::parse(text, of_target).map(Self::Url)
    }

    /// The URL of a request; with a `*` at the end, how URLs begin.
    #[must_use]
    pub fn asked(host: Option<&Host>, target: &Target) -> Self {
        let of = host.map_or(Cow::Borrowed(ANY_HOST), Host::compared);
        let address = |target: Cow<'_, str>| Address { host: of.into(), target: target.into() };
        match target.as_str().strip_suffix('*') {
            Some(beginning) => Self::Prefix(address(of_beginning(beginning))),
            None => Self::Url(address(of_target(target.as_str()))),
        }
    }

    /// How URLs begin: `https://shop.example/blog/`. A `*` at the end says no more.
    ///
    /// # Errors
    /// As above.
    pub fn prefix(text: &str) -> Result<Self, String> {
        Address::parse(text.strip_suffix('*').unwrap_or(text), of_beginning).map(Self::Prefix)
    }

    /// A host: `shop.example`.
    ///
    /// # Errors
    /// As above.
    pub fn host(text: &str) -> Result<Self, String> {
        host(text).map(Self::Host)
    }

    /// Tags, several in each text where there are spaces or commas between them.
    ///
    /// # Errors
    /// As above.
    pub fn tags<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Result<Self, String> {
        let mut all: Vec<Box<[u8]>> = Vec::new();
        for text in texts {
            if text.split(|byte| matches!(byte, b',' | b' ' | b'\t')).any(|tag| tag.len() > LONGEST_TAG) {
                return Err(format!("a tag is longer than {LONGEST_TAG} bytes: nothing can have it"));
            }
            all.extend(tags(text).map(Box::from));
            if all.len() > MOST_TAGS {
                return Err(format!("these are more than {MOST_TAGS} tags: purge them in several orders"));
            }
        }
        if all.is_empty() { Err("there is no tag in it".into()) } else { Ok(Self::Tags(all)) }
    }

    /// What the store is told.
    #[must_use]
    pub fn purges(&self) -> Vec<Purge> {
        match self {
            Self::Url(Address { host, target }) => {
                addresses(host, target).map(|(host, path)| url(host, &path)).collect()
            }
            Self::Prefix(Address { host, target }) => {
                let mut purges: Vec<Purge> =
                    hosts(host).map(|host| Purge::Prefix { host: bytes(host), path: bytes(target) }).collect();
                // What is stored for any query begins otherwise.
                if target.contains('?') {
                    purges.extend(hosts(host).map(|host| url(host, &of_any_query(target))));
                }
                purges
            }
            Self::Host(host) => hosts(host).map(|host| Purge::Host(bytes(host))).collect(),
            Self::Tags(tags) => tags.iter().cloned().map(Purge::Tag).collect(),
            Self::All => vec![Purge::All],
        }
    }
}

fn url(host: &str, path: &str) -> Purge {
    Purge::Url { host: bytes(host), path: bytes(path) }
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(Address { host, target }) => write!(f, "{host}{target}"),
            Self::Prefix(Address { host, target }) => write!(f, "{host}{target}*"),
            Self::Host(host) => write!(f, "all of {host}"),
            Self::Tags(tags) => {
                f.write_str("tags ")?;
                tags.iter()
                    .enumerate()
                    .try_for_each(|(at, tag)| write!(f, "{}{}", if at == 0 { "" } else { ", " }, tag.escape_ascii()))
            }
            Self::All => f.write_str("everything"),
        }
    }
}

impl Order {
    /// Purges; answers with the number of objects that were struck. All of it is in force before the first is waited for, and it
    /// is done to its end, whether anybody waits for it or not: a purge that many objects have makes clients lose patience.
    ///
    /// # Errors
    /// It is done, but the disk could not be told.
    pub async fn carry_out(&self, store: &Arc<Store>) -> Result<u64, NotDurable> {
        let purges = self.what.purges().into_iter();
        let under_way: Vec<_> = purges.map(|purge| store.purge(purge, self.manner)).collect();
        let errand = Errand::new();
        let task = tokio::spawn(async move {
            let result = all(under_way).await;
            drop(errand);
            result
        });
        match task.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// Waits for them all.
async fn all(purges: Vec<impl Future<Output = Result<u64, NotDurable>>>) -> Result<u64, NotDurable> {
    let (mut count, mut failed) = (0, None);
    for purge in purges {
        match purge.await {
            Ok(struck) => count += struck,
            Err(error) => {
                count += error.count;
                failed = Some(error);
            }
        }
    }
    match failed {
        None => Ok(count),
        Some(mut error) => {
            error.count = count;
            Err(error)
        }
    }
}

impl Address {
    /// Reads a URL, or how URLs begin: `spelled` says which.
    fn parse(text: &str, spelled: fn(&str) -> Cow<'_, str>) -> Result<Self, String> {
        let text = checked(text)?;
        let rest = without_scheme(text)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.is_empty() {
            return Err(format!("`{}` has no host: write the whole URL, as in https://shop.example/page", shown(text)));
        }
        let host = host(authority)?;
        // What is behind it is never sent.
        let local = rest.split('#').next().unwrap_or_default();
        let target = if local.starts_with('/') { as_sent(local) } else { as_sent(&["/", local].concat()) };
        if Target::parse(Bytes::copy_from_slice(target.as_bytes())).is_err() {
            return Err(format!("no request can have the path of `{}`", shown(text)));
        }
        Ok(Self { host, target: spelled(&target).into() })
    }
}

/// A host as it is compared. A port does not count.
fn host(text: &str) -> Result<Box<str>, String> {
    let text = checked(text)?;
    let is_no_host = |help: &str| Err(format!("`{}` is not a host: {help}", shown(text)));
    if text.contains('@') {
        return is_no_host("write it without a name and password");
    }
    if text.contains('*') {
        return is_no_host("it has to be a whole one; what belongs together on several hosts can have a tag");
    }
    // A port that is not written is a slip: `https:/shop.example`.
    if text.contains('/') || text.ends_with(':') {
        return is_no_host("write its name alone, as in shop.example");
    }
    let ascii = if text.is_ascii() { Some(Cow::Borrowed(text)) } else { with_ascii_name(text).map(Cow::Owned) };
    let Some(ascii) = ascii else { return is_no_host("write it as browsers send it, as in xn--caf-dma.example") };
    match Host::parse(Bytes::copy_from_slice(ascii.as_bytes())) {
        Ok(host) => Ok(host.compared().into()),
        Err(_) => is_no_host("it has letters, digits, hyphens and dots, and perhaps a port"),
    }
}

/// With an A-label for each part outside ASCII.
fn with_ascii_name(text: &str) -> Option<String> {
    let (name, port) = text.split_at(text.rfind(':').unwrap_or(text.len()));
    Some([&*config::host_to_ascii(name)?, port].concat())
}

fn checked(text: &str) -> Result<&str, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("nothing is named".into());
    }
    if text.len() > LONGEST_URL {
        return Err(format!("it is longer than {LONGEST_URL} bytes"));
    }
    Ok(text)
}

fn without_scheme(text: &str) -> Result<&str, String> {
    match text.split_once("://") {
        // Anything else before it is part of a path or a query.
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            let is_known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
            if is_known { Ok(rest) } else { Err(format!("`{}` is neither http nor https", shown(text))) }
        }
        _ => Ok(text.strip_prefix("//").unwrap_or(text)),
    }
}

/// Path and query as a request can have them: what none can is encoded.
fn as_sent(local: &str) -> String {
    let mut sent = String::with_capacity(local.len());
    for byte in local.bytes() {
        match byte {
            0x21..=0x7E if !b"\"<>`".contains(&byte) => sent.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => drop(write!(sent, "%{byte:02X}")),
        }
    }
    sent
}

/// The beginning of what somebody has written, for a sentence about it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", short.escape_debug())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
