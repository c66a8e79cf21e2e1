//! Asking the app for a client that is held: where a link leads, and a request of our own to it.
//!
//! It goes through the waiting room like any other, with the client's name and address, behind the requests of those who wait in
//! front of a screen. How many of them go at a time is bounded for each route, so that thousands of held clients cannot take the
//! workers from everybody else.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::FEATURES;
use super::instruct::{Fault, Instruct, LARGEST, shown};
use super::layer::Terms;
use super::links::PageRoom;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, ExchangeGuard, Finish, Host, Request, Response, Target, without_dots};
use crate::observe::metrics::LinkOutcome;
use crate::runtime::Deadline;
use crate::upstream::Outgoing;

pub(super) const GRIP_SIG: HeaderName = HeaderName::from_static("grip-sig");
pub(super) const GRIP_FEATURE: HeaderName = HeaderName::from_static("grip-feature");
pub(super) const GRIP_LAST: HeaderName = HeaderName::from_static("grip-last");

/// Bytes of what a link leads to.
pub(super) const LARGEST_PAGE: usize = 4 << 20;

/// How long a page may take, its turn included.
const LONGEST_QUESTION: Duration = Duration::from_secs(120);

/// What a client has asked for: what links start from, and what can be asked again.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// As the app has seen it.
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    /// It cannot be asked again: its body is gone.
    pub(super) has_body: bool,
}

/// A request for a client that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The client waits for its answer.
    Again,
    /// The client misses something.
    Recover,
    /// Perhaps the client misses something.
    Poll,
    /// The client has left.
    Gone,
}

/// What an app knows its site by.
#[derive(Debug, Clone, Copy, Default)]
struct Site<'a> {
    /// As the client has named it: Host, or X-Forwarded-Host where the next one is sent.
    host: Option<&'a Host>,
    /// The upstream's `host`.
    own_host: Option<&'a str>,
    /// The upstream's `prefix`. The app has been asked with it, writes its links with it, and will be asked with it again.
    prefix: Option<&'a str>,
}

impl Site<'_> {
    fn is(self, authority: &str) -> bool {
        let host = |text: &str| Host::parse(Bytes::copy_from_slice(text.as_bytes())).ok();
        let Some(named) = host(authority) else { return false };
        let is_it = |host: &Host| named.name().eq_ignore_ascii_case(host.name());
        self.host.is_some_and(is_it) || self.own_host.and_then(host).as_ref().is_some_and(is_it)
    }
}

/// Where a link leads.
///
/// # Errors
/// It leads to another site, or nowhere.
fn resolve(base: &Target, site: Site<'_>, url: &str) -> Result<Target, Fault> {
    let url = &encoded(url.split('#').next().unwrap_or_default());
    let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
    let scheme = ["http://", "https://", "//"].into_iter().find(|scheme| lower.starts_with(scheme));
    let local = match scheme {
        None => url,
        Some(scheme) => {
            let rest = &url[scheme.len()..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, local) = rest.split_at(end);
            if !site.is(authority) {
                return Err(Fault(format!("Grip-Link leads to another site: `{}`", shown(url))));
            }
            local
        }
    };
    let path = base.raw_path();
    let joined = match local.as_bytes().first() {
        Some(b'/') => local.to_owned(),
        _ if scheme.is_some() => format!("/{local}"),
        Some(b'?') => format!("{path}{local}"),
        None => base.as_str().to_owned(),
        Some(_) => format!("{}{local}", &path[..=path.rfind('/').unwrap_or(0)]),
    };
    let (path, query) = joined.split_at(joined.find('?').unwrap_or(joined.len()));
    let target = format!("{}{query}", without_dots(path));
    let no_address = |_| Fault(format!("Grip-Link is no address: `{}`", shown(url)));
    let target = Target::parse(target.into()).map_err(no_address)?;
    // A relative one starts from what was asked, which has none.
    let is_absolute = scheme.is_some() || local.starts_with('/');
    let below = match site.prefix.filter(|_| is_absolute) {
        Some(prefix) => target.without_prefix(prefix).map_err(no_address)?,
        None => None,
    };
    Ok(below.unwrap_or(target))
}

/// With percent signs for what cannot stand in a URL: Django's `request.path` is decoded, and django-eventstream makes its links of
/// that.
fn encoded(url: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'`');
    if url.bytes().all(is_plain) {
        return Cow::Borrowed(url);
    }
    let mut out = String::with_capacity(url.len() + 16);
    for byte in url.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

/// `Grip-Last`: where a client is, for its app. A channel that cannot be written into a field is left out, and no other.
pub(super) fn grip_last(positions: &[(Rc<str>, Box<str>)]) -> Option<HeaderValue> {
    let written = |(channel, id): &(Rc<str>, Box<str>)| {
        let text = format!("{channel}; last-id={id}");
        let is_writable = HeaderValue::from_bytes(text.as_bytes()).is_ok();
        if !is_writable {
            tracing::debug!(channel = %shown(channel), "a channel cannot be written into Grip-Last, and is left out");
        }
        is_writable.then_some(text)
    };
    let last: Vec<String> = positions.iter().filter_map(written).collect();
    (!last.is_empty()).then(|| HeaderValue::from_bytes(last.join(", ").as_bytes()).ok()).flatten()
}

impl Terms {
    /// Where a link of the app leads, for a client that has asked so.
    ///
    /// # Errors
    /// Those of [`resolve`].
    pub(super) fn lead(&self, base: &Target, exchange: &Exchange, url: &str) -> Result<Target, Fault> {
        let client = self.client();
        let (host, config) = (exchange.host.as_ref(), client.config());
        resolve(base, Site { host, own_host: config.host.as_deref(), prefix: config.prefix.as_deref() }, url)
    }

    /// Says to the app that it is the gateway that asks, and what it can do.
    pub(super) fn sign(&self, exchange: &Exchange) {
        if let Some(signature) = self.signer.signature(exchange.wall_clock()) {
            exchange.identity.tell(GRIP_SIG, signature);
            exchange.identity.tell(GRIP_FEATURE, HeaderValue::from_static(FEATURES));
        }
    }

    /// Takes that back: another route's app is not told.
    pub(super) fn unsign(exchange: &Exchange) {
        exchange.identity.forget(&GRIP_SIG);
        exchange.identity.forget(&GRIP_FEATURE);
    }

    /// Asks the app. What comes is a head, and a body that is still on its way.
    pub(super) async fn ask(
        &self,
        exchange: &Exchange,
        asked: &Asked,
        target: Target,
        last: Option<HeaderValue>,
        question: Question,
    ) -> Result<Response, Error> {
        let _turn = self.links.turn(question).await;
        self.ask_now(exchange, asked, target, last, question).await
    }

    async fn ask_now(
        &self,
        exchange: &Exchange,
        asked: &Asked,
        target: Target,
        last: Option<HeaderValue>,
        question: Question,
    ) -> Result<Response, Error> {
        let method = match question {
            Question::Again => asked.method.clone(),
            Question::Recover | Question::Poll => Method::GET,
            Question::Gone => Method::POST,
        };
        let own = Rc::new(exchange.beside_now(method.clone(), target.bytes()));
        // However it ends: a client that leaves meanwhile leaves it as well.
        let guard = ExchangeGuard(Rc::clone(&own));
        for (name, value) in exchange.identity.fields().iter() {
            own.identity.tell(name.clone(), value.clone());
        }
        own.tick();
        self.sign(&own);
        if let Some(last) = last {
            own.identity.tell(GRIP_LAST, last);
        }
        let headers = match question {
            Question::Again => asked.headers.clone(),
            Question::Recover | Question::Poll | Question::Gone => passing(&asked.headers),
        };
        let request = Request { method, target, headers, body: Body::Empty, exchange: Rc::clone(&own), refused: None };
        let terms = match question {
            Question::Again | Question::Recover => &self.asking,
            Question::Poll | Question::Gone => &self.polling,
        };
        let outgoing = Outgoing { request: Box::new(request), body: None, terms: Rc::clone(terms) };
        let answer = self.client().send(outgoing).await;
        own.finish(Finish::Complete);
        drop(guard);
        answer
    }

    /// Asks what a link leads to, and reads all of it. `None`: it need not be asked, for its turn has come after that of another
    /// client, whose answer says that nothing was missed within [`Lookup::age`].
    pub(super) async fn page(&self, lookup: Lookup) -> Result<Option<Page>, Error> {
        Deadline::new().bound(LONGEST_QUESTION, self.page_in_time(lookup)).await.unwrap_or_else(|_| {
            let detail = format!("Grip-Link: no whole answer within {} seconds", LONGEST_QUESTION.as_secs());
            Err(Error::new(Reason::HeadTimeout).detail(detail))
        })
    }

    async fn page_in_time(&self, lookup: Lookup) -> Result<Option<Page>, Error> {
        let Lookup { exchange, asked, target, positions, age, question } = lookup;
        let _turn = self.links.turn(question).await;
        let metrics = self.local.channels().metrics();
        if question == Question::Poll && self.local.are_confirmed(&positions, age) {
            metrics.link(LinkOutcome::Skipped);
            return Ok(None);
        }
        metrics.link(LinkOutcome::Asked);
        let response = self.ask_now(&exchange, &asked, target.clone(), grip_last(&positions), question).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let detail = format!("Grip-Link: {} answers {}", shown(target.raw_path()), head.status.as_u16());
            return Err(Error::new(Reason::GripInvalid).detail(detail));
        }
        let limit = if Instruct::is_json(&head.headers) { LARGEST } else { LARGEST_PAGE };
        let mut body = collect(body, limit).await?;
        let invalid = |fault: Fault| Error::new(Reason::GripInvalid).detail(format!("Grip-Link: {fault}"));
        let mut instruct = Instruct::of_fields(&head.headers).map_err(invalid)?;
        if Instruct::is_json(&head.headers) {
            instruct.read_json(head.status, &body).map_err(invalid)?;
            body = instruct.response.take().map_or_else(Bytes::new, |response| response.body);
        }
        let Some(room) = self.links.page(body.len()) else {
            let detail =
                "Grip-Link: its answer is dropped, for clients of this route have not taken those that came before";
            return Err(Error::new(Reason::HoldOverflow).detail(detail));
        };
        Ok(Some(Page { target, instruct, body, room }))
    }
}

/// What is asked for a client that is held with a stream: where a link leads from where it is.
pub(super) struct Lookup {
    pub(super) exchange: Rc<Exchange>,
    pub(super) asked: Asked,
    pub(super) target: Target,
    /// Where the client is.
    pub(super) positions: Vec<(Rc<str>, Box<str>)>,
    /// How long ago it may have been that another client's answer has told as much.
    pub(super) age: Duration,
    pub(super) question: Question,
}

/// What a link has led to.
#[derive(Debug)]
pub(super) struct Page {
    /// Where it led.
    pub(super) target: Target,
    pub(super) instruct: Instruct,
    pub(super) body: Bytes,
    /// For the body, until the client has it.
    pub(super) room: PageRoom,
}

/// Whether an answer can be one for a client that is held: for one that is asked again.
pub(super) fn is_usable(status: StatusCode) -> bool {
    !status.is_server_error()
}

/// All of a body that is no larger than that.
///
/// # Errors
/// It is larger: [`Reason::GripInvalid`]. Or what cut it short.
pub(super) async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let too_large = || {
        let detail = format!("an answer with instructions for holding its client has more than {limit} bytes");
        Error::new(Reason::GripInvalid).detail(detail)
    };
    if body.remaining().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let Some(first) = body.data().await else { return Ok(Bytes::new()) };
    let first = first?;
    let Some(second) = body.data().await else {
        return if first.len() > limit { Err(too_large()) } else { Ok(first) };
    };
    let mut all = [first, second?].concat();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data?);
        if all.len() > limit {
            break;
        }
    }
    if all.len() > limit { Err(too_large()) } else { Ok(all.into()) }
}

/// The client's fields that mean the same on a request for something else, of which the whole answer is wanted.
fn passing(headers: &HeaderMap) -> HeaderMap {
    let passes = |name: &HeaderName| {
        let text = name.as_str();
        !(text.starts_with("content-")
            || text.starts_with("if-")
            || matches!(text, "range" | "idempotency-key" | "last-event-id" | "transfer-encoding"))
            && *name != header::ACCEPT_ENCODING
    };
    headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn led(base: &str, url: &str) -> Result<String, String> {
        let base = Target::parse(Bytes::copy_from_slice(base.as_bytes())).unwrap();
        let host = Host::parse(Bytes::from_static(b"shop.example:8443")).ok();
        let site = Site { host: host.as_ref(), own_host: Some("api.internal:8000"), prefix: Some("/stage") };
        resolve(&base, site, url).map(|target| target.as_str().to_owned()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_link_is_absolute_or_relative_to_what_was_asked() {
        for (base, url, target) in [
            ("/ev/?a=1", "/next?x=2", "/next?x=2"),
            ("/ev/?a=1", "?link=next&recover=true", "/ev/?link=next&recover=true"),
            ("/ev/?a=1", "", "/ev/?a=1"),
            ("/ev/list?a=1", "more", "/ev/more"),
            ("/ev/list", "more/?x", "/ev/more/?x"),
            ("/ev/list", "../top", "/top"),
            ("/ev/a/list", "./b/./c/..", "/ev/a/b/"),
            ("/list", "../../x", "/x"),
            ("/ev/", "https://shop.example/x#part", "/x"),
            ("/ev/", "HTTP://SHOP.example:8443/x?y", "/x?y"),
            ("/ev/", "//shop.example?y", "/?y"),
            ("/ev/", "http://shop.example", "/"),
            ("/ev/room%201/", "/ev/room 1/caf\u{e9}?link=next", "/ev/room%201/caf%C3%A9?link=next"),
            ("/ev/", "/a?u=http://other.example/..", "/a?u=http://other.example/.."),
            // As an app writes it that is asked under another name and below a prefix.
            ("/ev/", "/stage/ev/?link=next", "/ev/?link=next"),
            ("/ev/", "http://api.internal/stage/x", "/x"),
            ("/ev/", "https://shop.example/stage", "/"),
            ("/ev/", "/stages/x", "/stages/x"),
            ("/ev/", "stage/x", "/ev/stage/x"),
        ] {
            assert_eq!(led(base, url).as_deref(), Ok(target), "{base} {url}");
        }
    }

    #[test]
    fn a_channel_that_no_field_can_have_is_left_out_of_grip_last_alone() {
        let last = |positions: &[(&str, &str)]| {
            let positions: Vec<_> = positions.iter().map(|(channel, id)| ((*channel).into(), (*id).into())).collect();
            grip_last(&positions).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(last(&[("a", "1"), ("b\n", "2"), ("c", "3")]).as_deref(), Some("a; last-id=1, c; last-id=3"));
        assert_eq!(last(&[("b\n", "2")]), None);
    }

    #[test]
    fn a_link_to_another_site_leads_nowhere() {
        for (url, why) in [
            ("http://other.example/x", "leads to another site"),
            ("//other.example/x", "leads to another site"),
            ("https://shop.example@other.example/", "leads to another site"),
            ("http:///x", "leads to another site"),
            ("/a\\b", "is no address"),
            ("/%00", "is no address"),
        ] {
            let told = led("/ev/", url).unwrap_err();
            assert!(told.contains(why), "{url}: {told}");
        }
    }

    proptest! {
        #[test]
        fn no_link_does_harm(url in "[-a-c./?#:@%é \\\\]{0,40}", base in "(/[a.]{1,3}x){1,3}") {
            if let Ok(target) = led(&base, &url) {
                prop_assert!(target.starts_with('/'));
                prop_assert!(Target::parse(target.into()).is_ok());
            }
        }
    }
}
