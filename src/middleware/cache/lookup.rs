//! What is stored for a request.

use std::sync::Arc;

use http::HeaderName;

use super::caching::Caching;
use crate::cache::key::Key;
use crate::cache::policy::{Asked, Serve, Stored, serve};
use crate::cache::store::{Found, Names, Object};
use crate::http::{Exchange, Request};

/// What is stored under the key of a request.
#[derive(Debug, Clone)]
pub(super) enum Stock {
    Nothing,
    Response(Arc<Object>, Stored),
    /// It is known that answers are not to be stored.
    Uncacheable,
}

/// Where a request's answer belongs, and what is there.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// The key of all variants.
    pub(super) primary: Key,
    /// By which fields they differ, if they do.
    pub(super) names: Option<Arc<Names>>,
    /// The key of this request's.
    pub(super) key: Key,
    pub(super) stock: Stock,
}

impl Looked {
    /// What the request is answered with.
    pub(super) fn serve(&self, caching: &Caching, asked: &Asked, now: u64) -> Serve {
        let stored = match &self.stock {
            Stock::Response(_, stored) => Some(stored),
            Stock::Nothing | Stock::Uncacheable => None,
        };
        serve(stored, asked, caching.rules(), now)
    }

    /// Whether something is known for its target, if not for the request.
    pub(super) fn is_known(&self) -> bool {
        self.names.is_some()
    }

    /// By which fields of requests the variants differ.
    pub(super) fn names(&self) -> Vec<HeaderName> {
        self.names.iter().flat_map(|names| names.iter()).collect()
    }

    pub(super) fn is_uncacheable(&self) -> bool {
        matches!(self.stock, Stock::Uncacheable)
    }

    pub(super) fn response(&self) -> Option<(&Arc<Object>, &Stored)> {
        match &self.stock {
            Stock::Response(object, stored) => Some((object, stored)),
            Stock::Nothing | Stock::Uncacheable => None,
        }
    }
}

/// Looks. What is on disk is read first; that takes time, which the exchange ticks.
pub(super) async fn look(caching: &Caching, request: &Request) -> Looked {
    let (primary, exchange) = (caching.key(request), &request.exchange);
    let mut looked = Looked { primary, names: None, key: primary, stock: Stock::Nothing };
    let mut found = read(caching.store().get(&primary), exchange).await;
    if let Some(Found::Vary(names)) = found {
        looked.key = caching.variant_of(primary, names.iter(), &request.headers);
        looked.names = Some(names);
        found = read(caching.store().get(&looked.key), exchange).await;
    }
    looked.stock = match found {
        Some(Found::Object(object)) => match caching.stored(&object, caching.now(exchange)) {
            Some(stored) => Stock::Response(object, stored),
            None => Stock::Nothing,
        },
        Some(Found::Uncacheable(_)) => Stock::Uncacheable,
        Some(Found::Vary(_) | Found::OnDisk(_)) | None => Stock::Nothing,
    };
    looked
}

async fn read(found: Option<Found>, exchange: &Exchange) -> Option<Found> {
    match found {
        Some(Found::OnDisk(place)) => {
            // Boxed: what is in memory needs no room for it.
            let found = Box::pin(place.open()).await;
            exchange.tick();
            found
        }
        found => found,
    }
}

/// Looks once more for what was looked for, at what is in memory alone: nothing is waited for.
pub(super) fn look_again(caching: &Caching, looked: &Looked, now: u64) -> Looked {
    let mut again = looked.clone();
    if let Some(Found::Object(object)) = caching.store().get(&looked.key)
        && let Some(stored) = caching.stored(&object, now)
    {
        again.stock = Stock::Response(object, stored);
    }
    again
}
