//! The method PURGE, for clients in `cache.purge`: as Varnish, nginx Plus and Squid have it.
//!
//! | request | strikes |
//! |---|---|
//! | `PURGE /page?n=1` | what is stored for this URL, with http and https, in all variants |
//! | `PURGE /blog/*` | what is stored for URLs that begin so |
//! | with `Surrogate-Key` or `Cache-Tag` | what has any of these tags, wherever it is |
//! | with `Soft-Purge: 1`, or Fastly's `Fastly-Soft-Purge: 1` | the same, but it is made stale, and may still stand in |
//!
//! Without `cache.purge` the method is one like others, for the app. With it, whoever is not in there gets 403: a client whose proxy
//! is not believed counts as nobody, because the address is the proxy's, and so does a web page, which a browser of this network
//! may have been led to.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::cache::purge::{Order, What};
use crate::cache::store::{Manner, Store};
use crate::config::AllowedClients;
use crate::error::{Error, Reason};
use crate::http::{Body, Request, Response};

static TAGS: [HeaderName; 2] = [HeaderName::from_static("surrogate-key"), HeaderName::from_static("cache-tag")];
static SOFT: [HeaderName; 2] = [HeaderName::from_static("soft-purge"), HeaderName::from_static("fastly-soft-purge")];

/// Answers a request with the method PURGE. `None`: nobody may purge so, and it is the app's.
pub(super) async fn asked(
    purgers: &AllowedClients,
    store: &Arc<Store>,
    request: &Request,
) -> Option<Result<Response, Error>> {
    if purgers.is_empty() {
        return None;
    }
    if let Some(why) = fault(purgers, request) {
        return Some(Err(Error::new(Reason::Forbidden).detail(why)));
    }
    let order = match order(request) {
        Ok(order) => order,
        Err(sentence) => return Some(Ok(answer(StatusCode::BAD_REQUEST, sentence))),
    };
    Some(Ok(match order.carry_out(store).await {
        Ok(count) => answer(StatusCode::OK, format!("Purged: {count}")),
        Err(failed) => answer(StatusCode::INTERNAL_SERVER_ERROR, failed.to_string()),
    }))
}

/// What keeps a request from purging.
fn fault(purgers: &AllowedClients, request: &Request) -> Option<&'static str> {
    if request.is_unnamed() {
        return Some("a proxy that is not in trusted_proxies has sent PURGE for somebody: nobody knows for whom");
    }
    if !purgers.has(request.exchange.client.get()) {
        return Some("the client is not in cache.purge");
    }
    let is_page = request.headers.contains_key(header::ORIGIN) || request.headers.contains_key("sec-fetch-site");
    is_page.then_some("a web page may not purge")
}

fn order(request: &Request) -> Result<Order, String> {
    let lines = || TAGS.iter().flat_map(|name| request.headers.get_all(name)).map(HeaderValue::as_bytes);
    let what = match lines().next() {
        Some(_) => What::tags(lines())?,
        None => What::asked(request.exchange.host.as_ref(), &request.target),
    };
    Ok(Order { what, manner: if is_soft(&request.headers) { Manner::Soft } else { Manner::Hard } })
}

fn is_soft(headers: &HeaderMap) -> bool {
    SOFT.iter().any(|name| headers.get(name).is_some_and(|value| value == "1"))
}

fn answer(status: StatusCode, sentence: String) -> Response {
    let mut response = Response::new(Body::Full(Bytes::from(sentence + "\n")));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use http::Method;

    use super::*;
    use crate::cache::key::Key;
    use crate::cache::store::{Meta, Settings};
    use crate::http::{ConnectionInfo, Exchange, Host, Protocol, Target};

    fn purgers(purge: &str) -> AllowedClients {
        let text = format!(
            "cache: {{ purge: {purge} }}\nupstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:1\"], workers: 1 }} }}\n\
             sites: [{{ routes: [{{ path: /, proxy: app, cache: true }}] }}]\n"
        );
        let loaded = crate::config::load_str(&text, "f", std::path::Path::new("/"), &|_| None);
        loaded.unwrap_or_else(|report| panic!("{report}")).config.cache.purge
    }

    fn request(client: &str, target: &str, fields: &[(&str, &str)]) -> Request {
        let target = Target::parse(Bytes::copy_from_slice(target.as_bytes())).unwrap();
        let method = Method::from_bytes(b"PURGE").unwrap();
        let connection = ConnectionInfo::new("80").between(Some(client.parse().unwrap()), None);
        let host = Host::parse(Bytes::from_static(b"Shop.example:8080")).ok();
        let exchange = Exchange::new(Rc::new(connection), Protocol::Http11, method.clone(), target.bytes(), host, None);
        let field =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let headers = fields.iter().map(field).collect();
        Request { method, target, headers, body: Body::Empty, exchange: Rc::new(exchange), refused: None }
    }

    fn store() -> Arc<Store> {
        let settings = Settings { memory: 8 << 20, max_object: 1 << 20, variants: 4, open_files: 0, disk: None };
        Store::open(&settings).unwrap()
    }

    /// Stores an answer of the host `shop.example`.
    async fn put(store: &Arc<Store>, number: u8, path: &str, tags: &[&[u8]]) {
        let meta = Meta {
            status: StatusCode::OK,
            fields: &HeaderMap::new(),
            facts: b"",
            host: b"shop.example",
            path: path.as_bytes(),
            tags,
            since: store.moment(),
            primary: None,
            length: Some(0),
        };
        let key = Key::from_bytes([number; Key::LENGTH]);
        store.writer(&key, &meta).unwrap().finish().await.unwrap();
    }

    /// The status, and the number that were struck.
    async fn purged(store: &Arc<Store>, request: &Request) -> (u16, String) {
        let response = asked(&purgers("[127.0.0.1, 10.0.0.0/8]"), store, request).await.unwrap().unwrap();
        let Body::Full(text) = response.body() else { panic!() };
        (response.status().as_u16(), String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_path_a_prefix_and_tags_are_purged_and_counted() {
        for (target, fields, count) in [
            ("/a?b=1", &[][..], 1),
            ("/a", &[], 0),
            ("/a*", &[], 3),
            ("/*", &[("soft-purge", "1")], 4),
            ("/a?b=*", &[], 2),
            ("/none", &[("surrogate-key", "red blue")], 2),
            ("/", &[("cache-tag", "red,green"), ("surrogate-key", "blue")], 2),
        ] {
            let store = store();
            put(&store, 1, "/a?b=1", &[b"red"]).await;
            put(&store, 2, "/a?b=2", &[b"blue", b"red"]).await;
            put(&store, 3, "/ab", &[]).await;
            put(&store, 4, "/c", &[]).await;
            let told = purged(&store, &request("127.0.0.1:5", target, fields)).await;
            assert_eq!(told, (200, format!("Purged: {count}\n")), "{target} {fields:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_tag_is_refused() {
        let (status, sentence) = purged(&store(), &request("127.0.0.1:5", "/", &[("cache-tag", " ")])).await;
        assert_eq!((status, &*sentence), (400, "there is no tag in it\n"));
    }

    #[tokio::test]
    async fn nobody_else_purges() {
        let store = store();
        put(&store, 1, "/a", &[]).await;
        let purgers = purgers("[127.0.0.1, 10.0.0.0/8]");
        for (client, fields) in [
            ("192.0.2.1:5", &[][..]),
            ("127.0.0.1:5", &[("origin", "http://evil.example")]),
            ("10.1.2.3:5", &[("sec-fetch-site", "same-origin")]),
            // The address is a proxy's that is not trusted.
            ("127.0.0.1:5", &[("x-forwarded-for", "203.0.113.9")]),
            ("127.0.0.1:5", &[("x-real-ip", "203.0.113.9")]),
            ("127.0.0.1:5", &[("x-forwarded-proto", "https")]),
            ("127.0.0.1:5", &[("forwarded", "for=203.0.113.9")]),
        ] {
            let error = asked(&purgers, &store, &request(client, "/a", fields)).await.unwrap().unwrap_err();
            assert_eq!(error.reason, Reason::Forbidden, "{client} {fields:?}");
        }
        assert_eq!(store.numbers().memory_objects, 1);
    }

    #[tokio::test]
    async fn where_nobody_may_it_is_a_method_of_the_app() {
        assert!(asked(&AllowedClients::default(), &store(), &request("127.0.0.1:5", "/a", &[])).await.is_none());
    }
}
