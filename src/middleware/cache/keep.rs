//! Storing an answer while it passes on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::response::Parts;

use super::fetch::{After, Aim, Begun, Brought, Fresh, Shared, refused};
use super::marker;
use super::pump::Pump;
use crate::cache::crowd::Crowd;
use crate::cache::key::Key;
use crate::cache::landing::{Content, Landing};
use crate::cache::policy::targeted::SURROGATE_CONTROL;
use crate::cache::policy::vary::union;
use crate::cache::policy::{Refusal, Storable, Stored, Times};
use crate::cache::purge;
use crate::cache::store::{Finish, Found, Meta, NotStored, Writer};
use crate::http::{Body, Response, fields};

/// An answer that may be stored, and where.
struct Keep<'a> {
    aim: &'a Aim,
    begun: &'a Begun,
    received: u64,
    stored: Stored,
    /// Its fields, as they are stored.
    fields: HeaderMap,
    names: Box<[HeaderName]>,
    key: Key,
    /// All else of it.
    parts: Parts,
}

/// Stores an answer while it passes on.
pub(super) fn keep(aim: &Aim, response: Response, storable: Storable, begun: &Begun, times: &Times) -> Brought {
    let Storable { stored, vary, fields } = storable;
    let (names, key) = match destination(aim, &vary) {
        Ok(found) => found,
        Err(Some(refusal)) => return refused(aim, &aim.asked, response, refusal, begun),
        Err(None) => return Brought::Passed(response, None),
    };
    let (parts, body) = response.into_parts();
    let keep = Keep { aim, begun, received: times.received, stored, fields, names, key, parts };
    match keep.writer(body.remaining()) {
        Ok(writer) => keep.write(writer, body),
        Err(_) => {
            keep.remember();
            keep.pass(body)
        }
    }
}

/// Where an answer is stored that differs by these fields of requests; what differed before is not forgotten.
fn destination(aim: &Aim, vary: &[HeaderName]) -> Result<(Box<[HeaderName]>, Key), Option<Refusal>> {
    let most = aim.caching.rules().max_vary_names;
    let mut names = union(&aim.names, vary, most).map_err(Some)?;
    // Others may have learnt more meanwhile.
    if let Some(Found::Vary(known)) = aim.caching.store().get(&aim.primary) {
        names = union(&known.iter().collect::<Vec<_>>(), &names, most).map_err(Some)?;
    }
    if *names == *aim.names {
        return Ok((names, aim.key));
    }
    let headers = aim.headers.as_ref().ok_or(None)?;
    let key = aim.caching.variant(aim.primary, &names, headers);
    if aim.caching.store().put_vary(&aim.primary, names.iter(), b"") { Ok((names, key)) } else { Err(None) }
}

impl Keep<'_> {
    fn writer(&self, length: Option<u64>) -> Result<Writer, NotStored> {
        let headers = &self.parts.headers;
        let lines = self.aim.caching.tags().iter().flat_map(|name| headers.get_all(name));
        let tags: Vec<&[u8]> = lines.flat_map(|line| purge::tags(line.as_bytes())).collect();
        let meta = Meta {
            status: self.parts.status,
            fields: &self.fields,
            facts: &self.stored.to_bytes(),
            host: self.aim.host.as_bytes(),
            path: self.aim.path.as_bytes(),
            tags: &tags,
            since: self.begun.since,
            primary: (self.key != self.aim.primary).then_some(self.aim.primary),
            length,
        };
        self.aim.caching.store().writer(&self.key, &meta)
    }

    fn write(self, mut writer: Writer, body: Body) -> Brought {
        let bytes = match body {
            Body::Empty => Bytes::new(),
            Body::Full(bytes) => bytes,
            Body::Takeover(_) => return self.pass(body),
            Body::Stream(_) => return self.pump(writer, body),
        };
        writer.push(&bytes);
        let feed = writer.feed();
        let own = Some(Body::Full(bytes.clone()));
        let (content, is_stored, shared, after) = match writer.finish() {
            Finish::Now(Ok(object)) => (Content::Object(object), true, Shared::All, After::Nothing),
            Finish::Now(Err(NotStored::Purged | NotStored::Overtaken)) => {
                (Content::Whole(bytes, feed), false, Shared::Overtaken, After::Nothing)
            }
            Finish::Now(Err(why)) => {
                if why == NotStored::TooLarge {
                    self.remember();
                }
                (Content::Whole(bytes, feed), false, Shared::All, After::Nothing)
            }
            later => (Content::Whole(bytes, feed), true, Shared::All, After::Finish(later)),
        };
        self.landed((content, own), is_stored, shared, after)
    }

    /// A body that is still coming.
    fn pump(self, writer: Writer, body: Body) -> Brought {
        let crowd = Arc::new(Crowd::default());
        let (feed, is_stored) = (writer.feed(), writer.is_stored());
        // Whatever is purged meanwhile: this client has asked before.
        let own = feed.follow_since(self.begun.since);
        let own = own.map(|follower| Body::Stream(Box::new(crowd.join(follower))));
        let content = Content::Coming(feed, Arc::clone(&crowd));
        let place = (Arc::clone(&self.aim.caching), self.aim.primary, self.key, self.begun.since);
        let pump = Pump::new(body, writer, crowd, place);
        self.landed((content, own), is_stored, Shared::All, After::Pump(Box::new(pump)))
    }

    fn landed(self, (content, own): (Content, Option<Body>), is_stored: bool, shared: Shared, after: After) -> Brought {
        let first = of_first(&self.parts.headers, &self.fields);
        let landing = Arc::new(Landing {
            primary: self.aim.primary,
            names: self.names,
            key: self.key,
            status: self.parts.status,
            fields: self.fields,
            stored: self.stored,
            received: self.received,
            overtaken: (shared == Shared::Overtaken).then_some(self.begun.since),
            content,
        });
        let fresh = Fresh { landing, body: own, first, is_validated: false, is_stored, refusal: None };
        Brought::Landed(Box::new(fresh), shared, after)
    }

    fn pass(self, body: Body) -> Brought {
        Brought::Passed(Response::from_parts(self.parts, body), None)
    }

    fn remember(&self) {
        marker::remember(&self.aim.caching, &self.aim.primary, &self.key, self.begun.since);
    }
}

/// What of an answer its own client gets, and nobody else.
fn of_first(headers: &HeaderMap, kept: &HeaderMap) -> HeaderMap {
    let mut first = HeaderMap::new();
    let named = fields::named_by_connection(headers);
    for (name, value) in headers {
        let is_dropped = fields::response_field_is_dropped(name)
            || named.contains(name)
            || *name == header::CONTENT_LENGTH
            || *name == SURROGATE_CONTROL;
        if !is_dropped && !kept.contains_key(name) {
            first.append(name.clone(), value.clone());
        }
    }
    first
}
