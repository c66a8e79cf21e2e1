use std::path::Path;
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower::Layer as _;

use super::*;
use crate::access::Sources;
use crate::http::{Body, ConnectionInfo, Exchange, Protocol, Target};

/// The app: whoever comes so far is let in.
struct Bottom;

impl Service for Bottom {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let mut response = Response::new(Body::Empty);
        if let Some(field) = request.headers.get(header::AUTHORIZATION) {
            response.headers_mut().insert(header::AUTHORIZATION, field.clone());
        }
        Ok(response)
    }
}

fn layer(folder: &Path, auth: &str) -> Authorized<Bottom> {
    let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, auth: {auth} }}] }}]");
    let loaded = config::load_str(&text, "f", folder, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    let auth = loaded.config.sites[0].routes[0].auth.clone().unwrap();
    let checks = Arc::new(Checks::of_a_test());
    let policy = Policy::compile(&auth, &checks, &mut Sources::following(None));
    AuthLayer::new(Some(Arc::new(policy)), None).layer(Bottom)
}

/// Ann with the password `secret`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    folder
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

struct Asked {
    result: Result<Response, Error>,
    exchange: Rc<Exchange>,
}

impl Asked {
    fn reason(&self) -> Option<Reason> {
        self.result.as_ref().err().map(|error| error.reason)
    }

    /// What rescue would put on whatever answer there is.
    fn challenge(&self) -> Option<String> {
        let mut headers = HeaderMap::new();
        self.exchange.answer_fields.apply(&mut headers);
        Some(headers.get(header::WWW_AUTHENTICATE)?.to_str().unwrap().to_owned())
    }
}

async fn ask<S: Service<Error = Error>>(layer: &Authorized<S>, peer: Option<&str>, fields: &[(&str, &str)]) -> Asked {
    let connection = ConnectionInfo::new("80").between(peer.map(|peer| peer.parse().unwrap()), None);
    let exchange = Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), None, None);
    let exchange = Rc::new(exchange);
    let field =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    let request = Request {
        method: Method::GET,
        target: Target::from_static("/"),
        headers: fields.iter().map(field).collect(),
        body: Body::Empty,
        exchange: Rc::clone(&exchange),
        refused: None,
    };
    Asked { result: layer.call(Box::new(request)).await, exchange }
}

#[tokio::test]
async fn a_client_comes_from_where_it_may() {
    let layer = layer(Path::new("/"), "{ allow: [private, 203.0.113.0/24, '2001:db8::/32'] }");
    for (peer, expected) in [
        (Some("127.0.0.1:5"), None),
        (Some("10.1.2.3:5"), None),
        (Some("[::ffff:10.1.2.3]:5"), None),
        (Some("203.0.113.9:5"), None),
        (Some("[2001:db8::9]:5"), None),
        (Some("203.0.114.9:5"), Some(Reason::Forbidden)),
        (Some("[2001:db9::9]:5"), Some(Reason::Forbidden)),
        (None, Some(Reason::Forbidden)),
    ] {
        let asked = ask(&layer, peer, &[]).await;
        assert_eq!((asked.reason(), asked.challenge()), (expected, None), "{peer:?}");
    }
    let unix = self::layer(Path::new("/"), "{ allow: [unix] }");
    assert_eq!(ask(&unix, None, &[]).await.reason(), None);
    assert_eq!(ask(&unix, Some("127.0.0.1:5"), &[]).await.reason(), Some(Reason::Forbidden));
}

#[tokio::test]
async fn whoever_has_the_password_is_the_user_and_the_app_does_not_see_it() {
    let folder = folder();
    let layer = layer(folder.path(), "{ basic: { realm: Staff, users: ./users } }");
    let right = ask(&layer, None, &[("authorization", &basic("ann", "secret"))]).await;
    assert_eq!(right.exchange.identity.user(), Some(HeaderValue::from_static("ann")));
    assert!(!right.result.unwrap().headers().contains_key(header::AUTHORIZATION));
    for wrong in [&basic("ann", "Secret"), &basic("bob", "secret"), &basic("ann", ""), &basic("", ""), "Bearer x", "x"]
    {
        let asked = ask(&layer, None, &[("authorization", wrong)]).await;
        assert_eq!(asked.reason(), Some(Reason::Unauthorized), "{wrong}");
        assert_eq!(asked.challenge().unwrap(), "Basic realm=\"Staff\", charset=\"UTF-8\"");
        assert_eq!(asked.exchange.identity.user(), None);
    }
    let two = [("authorization", &*basic("ann", "secret")), ("authorization", &*basic("ann", "secret"))];
    assert_eq!(ask(&layer, None, &two).await.reason(), Some(Reason::Unauthorized));
    assert_eq!(ask(&layer, None, &[]).await.reason(), Some(Reason::Unauthorized));
}

/// A route that hands on to another: what `RequestHeadersLayer` has set for its app goes with it.
struct HandsOn<S>(S, Option<&'static str>);

impl<S: Service<Error = Error>> Service for HandsOn<S> {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        assert!(!request.headers.contains_key(header::AUTHORIZATION), "the password is for nobody below");
        if let Some(value) = self.1 {
            request.headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        self.0.call(request).await
    }
}

#[tokio::test]
async fn both_routes_of_a_handover_may_ask_for_the_password_and_no_app_sees_it() {
    let folder = folder();
    std::fs::write(folder.path().join("others"), format!("bob:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let outer = |inner, sets| {
        let policy = layer(folder.path(), "{ basic: { users: ./users } }").policy;
        AuthLayer::new(policy, None).layer(HandsOn(inner, sets))
    };
    for (second, sets, expected) in [
        ("{ basic: { users: ./users } }", None, None),
        ("{ basic: { users: ./users } }", Some("Bearer of-the-app"), None),
        ("{ basic: { users: ./others } }", None, Some(Reason::Unauthorized)),
    ] {
        let both = outer(layer(folder.path(), second), sets);
        let fields = [("authorization", &*basic("ann", "secret"))];
        let asked = ask(&both, None, &fields).await;
        assert_eq!(asked.reason(), expected, "{second} {sets:?}");
        if let Ok(response) = asked.result {
            assert_eq!(asked.exchange.identity.user(), Some(HeaderValue::from_static("ann")));
            assert!(!response.headers().contains_key(header::AUTHORIZATION), "{second} {sets:?}");
        }
        let wrong = ask(&both, None, &[("authorization", &*basic("ann", "wrong"))]).await;
        assert_eq!(wrong.reason(), Some(Reason::Unauthorized));
    }
}

#[tokio::test]
async fn all_that_is_asked_for_must_hold() {
    let folder = folder();
    let layer = layer(folder.path(), "{ allow: [10.0.0.0/8], basic: { users: ./users } }");
    let (right, wrong) = (basic("ann", "secret"), basic("ann", "wrong"));
    for (peer, password, expected) in [
        ("10.0.0.1:5", &right, None),
        ("10.0.0.1:5", &wrong, Some(Reason::Unauthorized)),
        ("192.0.2.1:5", &right, Some(Reason::Forbidden)),
        ("192.0.2.1:5", &wrong, Some(Reason::Forbidden)),
    ] {
        let asked = ask(&layer, Some(peer), &[("authorization", password)]).await;
        assert_eq!(asked.reason(), expected, "{peer} {password}");
    }
}

#[tokio::test]
async fn a_route_that_asks_nobody_lets_everybody_pass() {
    let layer = AuthLayer::new(None, None).layer(Bottom);
    let asked = ask(&layer, None, &[("authorization", "Basic x")]).await;
    assert!(asked.result.unwrap().headers().contains_key(header::AUTHORIZATION), "it is the app's");
}
