//! Requests that want to leave HTTP (RFC 9110, 7.8): where an app would be asked, WebSocket is refused.
//!
//! The lowest layer of a route: nothing of the body is received for a request that will not be sent.

use http::header;

use crate::config;
use crate::error::{Error, Reason};
use crate::http::{Request, Response, Service, fields};

/// Adds [`Upgrades`].
#[derive(Debug, Clone, Copy)]
pub struct UpgradeLayer {
    refuses: bool,
}

/// Turns back whoever wants to upgrade.
#[derive(Debug)]
pub struct Upgrades<S> {
    inner: S,
    refuses: bool,
}

impl UpgradeLayer {
    /// The layer of one route. What the edge answers itself is the same for everybody.
    #[must_use]
    pub const fn compile(route: &config::Route) -> Self {
        Self { refuses: matches!(route.action, config::Action::Proxy(_)) }
    }
}

impl<S> tower::Layer<S> for UpgradeLayer {
    type Service = Upgrades<S>;

    fn layer(&self, inner: S) -> Upgrades<S> {
        Upgrades { inner, refuses: self.refuses }
    }
}

impl<S: Service<Error = Error>> Service for Upgrades<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        // The app behind a WSGI server cannot take one; said plainly instead of as a 404 of its own.
        if self.refuses && fields::has_token(&request.headers, &header::UPGRADE, "websocket") {
            return Err(Error::new(Reason::UpgradeRefused));
        }
        self.inner.call(request).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};
    use tower::Layer as _;

    use super::*;
    use crate::http::{Body, ConnectionInfo, Exchange, Protocol, Target};

    struct Bottom;

    impl Service for Bottom {
        type Error = Error;

        async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
            Ok(Response::new(Body::Empty))
        }
    }

    async fn refusal(action: &str, upgrade: &'static str) -> Option<Reason> {
        let text = format!(
            "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }} }}\n\
             sites: [{{ routes: [{{ path: /, {action} }}] }}]"
        );
        let config = config::load_str(&text, "f", std::path::Path::new("/"), &|_| None).unwrap().config;
        let connection = Rc::new(ConnectionInfo::new("80"));
        let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let request = Request {
            method: Method::GET,
            target: Target::from_static("/"),
            headers: HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static(upgrade))]),
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        };
        let layer = UpgradeLayer::compile(&config.sites[0].routes[0]);
        layer.layer(Bottom).call(Box::new(request)).await.err().map(|error| error.reason)
    }

    #[tokio::test]
    async fn a_websocket_is_refused_where_an_app_would_be_asked() {
        for (action, upgrade, reason) in [
            ("proxy: app", "websocket", Some(Reason::UpgradeRefused)),
            ("proxy: app", "h2c, WebSocket", Some(Reason::UpgradeRefused)),
            ("proxy: app", "h2c", None),
            ("respond: { body: ok }", "websocket", None),
        ] {
            assert_eq!(refusal(action, upgrade).await, reason, "{action} {upgrade}");
        }
    }
}
