//! Who the client is: `trusted_proxies`.
//!
//! A sender that is trusted is believed what it says in `X-Forwarded-*`, `Forwarded` and `X-Request-Start`; of everybody else
//! these fields are dropped when the head is written for the worker, and the operator gets a hint, whatever became of the
//! request. First in the stack: log, metrics and waiting room go by the client that is found here.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::{Network, TrustedProxies};
use crate::http::forwarded::Claims;
use crate::http::{ConnectionInfo, Request, Response, Service};

/// Hints of one configuration: clients can make us write no more lines than these.
const MOST_HINTS: usize = 16;

/// Adds [`ClientIps`].
#[derive(Debug, Clone)]
pub struct ClientIpLayer {
    trusted: Arc<TrustedProxies>,
    hints: Arc<Hints>,
}

impl ClientIpLayer {
    /// For one configuration; `hints` are shared by its threads.
    #[must_use]
    pub fn new(trusted: Arc<TrustedProxies>, hints: Arc<Hints>) -> Self {
        Self { trusted, hints }
    }
}

/// Finds the client of each exchange.
#[derive(Debug)]
pub struct ClientIps<S> {
    policy: ClientIpLayer,
    inner: S,
}

impl<S> tower::Layer<S> for ClientIpLayer {
    type Service = ClientIps<S>;

    fn layer(&self, inner: S) -> ClientIps<S> {
        ClientIps { policy: self.clone(), inner }
    }
}

impl<S: Service> Service for ClientIps<S> {
    type Error = S::Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, S::Error> {
        let exchange = Rc::clone(&request.exchange);
        let trusted = &self.policy.trusted;
        if exchange.connection.is_trusted(trusted) {
            let now = exchange.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let claims = Claims::read(&request.headers, now, |address| trusted.is_trusted(Some(address)));
            if claims.client.is_some() {
                exchange.client.set(claims.client);
            } else if claims.is_contradictory {
                self.policy.hints.give(&exchange.connection, Hint::Contradiction);
            }
            // Nobody has set it before: this is the first layer.
            let _ = exchange.claims.set(claims);
            return self.inner.call(request).await;
        }
        // Not only where a head is written for a worker: all clients of a proxy that is not believed are one client, who may be
        // turned away (`auth.allow`, `rate_limit`), let in where only the proxy should be, or redirected in a circle.
        if self.policy.hints.are_wanted() && Claims::are_made(&request.headers) {
            exchange.is_disbelieved.set(true);
        }
        let response = self.inner.call(request).await;
        if exchange.is_disbelieved.get() {
            self.policy.hints.give(&exchange.connection, Hint::Disbelieved);
        }
        response
    }
}

/// What the operator is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Hint {
    /// Somebody who is not trusted speaks as a proxy does.
    Disbelieved,
    /// A trusted proxy names two clients.
    Contradiction,
}

/// What was said, of which listener and network.
type Given = (Hint, Arc<str>, Option<Network>);

/// Which networks the operator has been told of, by listener.
#[derive(Debug, Default)]
pub struct Hints {
    given: Mutex<HashSet<Given>>,
    is_full: AtomicBool,
}

impl Hints {
    /// Whether any can still be given. What is only looked for to give one need not be looked for otherwise.
    fn are_wanted(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Tells once of each network (IPv4 /24, IPv6 /64).
    fn give(&self, connection: &ConnectionInfo, hint: Hint) {
        if !self.are_wanted() || !self.is_new(connection, hint) {
            return;
        }
        let source = connection.source().map(|source| source.ip().to_canonical());
        let network = source.map_or_else(|| "unix".into(), |source| Network::around(source, 24, 64).to_string());
        let peer = source.map_or_else(|| "a unix socket".into(), |source| source.to_string());
        match hint {
            Hint::Contradiction => tracing::warn!(
                listener = %connection.listener,
                peer,
                "X-Forwarded-For and Forwarded of a trusted proxy do not name the same client: neither was believed, and the proxy itself \
                 is taken for the client. Let it overwrite or remove the one that it does not write: it passes on what clients send"
            ),
            Hint::Disbelieved => tracing::warn!(
                listener = %connection.listener,
                peer,
                "X-Forwarded-* of a peer that is not in `trusted_proxies` was dropped. If it is your proxy or load balancer, write \
                 trusted_proxies: [\"{network}\"], or its own network: else the app takes it for the client and our scheme for the \
                 client's. If it is a client, nothing is wrong"
            ),
        }
    }

    fn is_new(&self, connection: &ConnectionInfo, hint: Hint) -> bool {
        let network = connection.source().map(|source| Network::around(source.ip(), 24, 64));
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = given.insert((hint, Arc::clone(&connection.listener), network));
        if given.len() >= MOST_HINTS {
            self.is_full.store(true, Ordering::Relaxed);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};
    use tower::Layer as _;

    use super::*;
    use crate::http::forwarded::Scheme;
    use crate::http::{Body, Exchange, Protocol, Sender, Target};

    /// The service below: keeps nothing, and tells whether the client was found before it was called.
    struct Bottom;

    impl Service for Bottom {
        type Error = Infallible;

        async fn call(&self, request: Box<Request>) -> Result<Response, Infallible> {
            let client = request.exchange.client.get().map_or_else(|| "none".into(), |client| client.to_string());
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert("client", HeaderValue::from_str(&client).unwrap());
            Ok(response)
        }
    }

    fn connection(peer: Option<&str>, sender: Sender) -> ConnectionInfo {
        ConnectionInfo::new("80").between(peer.map(|peer| peer.parse().unwrap()), None).sent_by(sender)
    }

    fn behind(source: &str) -> Sender {
        Sender::Behind { source: source.parse().unwrap(), destination: "192.0.2.80:443".parse().unwrap(), tls: false }
    }

    async fn found(connection: ConnectionInfo, fields: &[(&'static str, &'static str)]) -> (String, Rc<Exchange>) {
        let text = "trusted_proxies: [10.0.0.0/8, unix]\nsites: [{ routes: [{ path: /, respond: {} }] }]";
        let loaded = crate::config::load_str(text, "f", std::path::Path::new("/"), &|_| None).unwrap();
        let layer = ClientIpLayer::new(Arc::new(loaded.config.trusted_proxies), Arc::default());
        let exchange =
            Rc::new(Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), None, None));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let request = Request {
            method: Method::GET,
            target: Target::from_static("/"),
            headers,
            body: Body::Empty,
            exchange: Rc::clone(&exchange),
            refused: None,
        };
        let Ok(response) = layer.layer(Bottom).call(Box::new(request)).await;
        (response.headers()["client"].to_str().unwrap().to_owned(), exchange)
    }

    #[tokio::test]
    async fn only_whoever_has_written_the_request_is_believed() {
        for (peer, sender, client, scheme) in [
            (Some("10.0.0.1:5"), Sender::Peer, "192.0.2.7", Scheme::Https),
            (Some("[::ffff:10.0.0.1]:5"), Sender::Peer, "192.0.2.7", Scheme::Https),
            (None, Sender::Peer, "192.0.2.7", Scheme::Https),
            (Some("11.0.0.1:5"), Sender::Peer, "11.0.0.1", Scheme::Http),
            // A trusted balancer that passes on the bytes of others.
            (Some("10.0.0.1:5"), behind("203.0.113.9:1"), "203.0.113.9", Scheme::Http),
            (Some("10.0.0.1:5"), behind("10.0.0.9:1"), "192.0.2.7", Scheme::Https),
            (Some("10.0.0.1:5"), Sender::Hidden, "10.0.0.1", Scheme::Http),
            (None, Sender::Hidden, "none", Scheme::Http),
        ] {
            let fields = [("x-forwarded-for", "1.1.1.1, 192.0.2.7, 10.0.0.2"), ("x-forwarded-proto", "https")];
            let (found, exchange) = found(connection(peer, sender), &fields).await;
            assert_eq!((found.as_str(), exchange.scheme()), (client, scheme), "{peer:?} {sender:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_names_two_clients_is_told_of_and_not_believed() {
        let peer = || connection(Some("10.0.0.1:5"), Sender::Peer);
        let (agreed, _) = found(peer(), &[("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7")]).await;
        assert_eq!(agreed, "192.0.2.7");
        let fields = [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.8"), ("x-forwarded-proto", "https")];
        let (client, exchange) = found(peer(), &fields).await;
        assert_eq!((client.as_str(), exchange.scheme()), ("10.0.0.1", Scheme::Https));
        let hints = Hints::default();
        assert!(hints.is_new(&peer(), Hint::Disbelieved) && hints.is_new(&peer(), Hint::Contradiction));
        assert!(!hints.is_new(&peer(), Hint::Contradiction));
    }

    #[tokio::test]
    async fn the_port_is_the_clients() {
        let to = |port: &str| -> ConnectionInfo {
            let local = format!("10.0.0.80:{port}").parse().ok();
            ConnectionInfo::new("80").between("10.0.0.1:5".parse().ok(), local)
        };
        for (fields, port) in [
            (&[][..], 8080),
            (&[("x-forwarded-proto", "https")], 443),
            (&[("x-forwarded-proto", "http")], 80),
            (&[("x-forwarded-port", "8443")], 8443),
            (&[("x-forwarded-proto", "https"), ("x-forwarded-port", "0")], 443),
        ] {
            assert_eq!(found(to("8080"), fields).await.1.port(), port, "{fields:?}");
        }
        assert_eq!(found(connection(Some("10.0.0.1:5"), behind("203.0.113.9:1")), &[]).await.1.port(), 443);
    }

    #[tokio::test]
    async fn a_proxy_without_a_word_is_the_client_itself() {
        let (client, exchange) = found(connection(Some("10.0.0.1:5"), Sender::Peer), &[]).await;
        assert_eq!((client.as_str(), exchange.scheme()), ("10.0.0.1", Scheme::Http));
    }

    #[test]
    fn a_network_is_told_of_once_and_not_every_network() {
        let hints = Hints::default();
        let from = |peer: &str| connection(Some(peer), Sender::Peer);
        assert!(
            hints.is_new(&from("192.0.2.1:1"), Hint::Disbelieved)
                && !hints.is_new(&from("192.0.2.2:1"), Hint::Disbelieved)
        );
        assert!(
            hints.is_new(&from("[2001:db8::1]:1"), Hint::Disbelieved)
                && !hints.is_new(&from("[2001:db8::2]:1"), Hint::Disbelieved)
        );
        assert!(
            hints.is_new(&connection(None, Sender::Peer), Hint::Disbelieved)
                && !hints.is_new(&connection(None, Sender::Peer), Hint::Disbelieved)
        );
        for net in 0..20 {
            hints.give(&from(&format!("198.51.{net}.1:1")), Hint::Disbelieved);
        }
        assert!(!hints.are_wanted());
        assert_eq!(hints.given.lock().unwrap().len(), MOST_HINTS);
    }
}
