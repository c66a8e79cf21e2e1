//! The layer over stubs: an app that says something, a router that notes who comes, folders with a few files.

use std::cell::RefCell;

use bytes::Bytes;
use tower::Layer as _;

use super::*;
use crate::http::{ConnectionInfo, Dispatch, Dispatched, MAX_HOPS, Protocol};

/// Fields by name and value.
type Fields = &'static [(&'static str, &'static str)];

/// An app that says the same each time. As the upstream does, it gives back what was asked where it hands over.
struct App {
    fields: Fields,
    body: Body,
    handovers: Handovers,
}

fn response(status: u16, fields: Fields, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

impl Service for App {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        request.exchange.phase.set(Phase::Working);
        request.exchange.working_since.set(Some(tokio::time::Instant::now()));
        let body = match &self.body {
            Body::Full(bytes) => Body::Full(bytes.clone()),
            _ => Body::Empty,
        };
        let mut response = response(200, self.fields, body);
        if let Some(mut told) = Told::by(response.headers()) {
            if told.handover(self.handovers).is_some() {
                told.asked = Some(Asked { method: request.method, headers: request.headers });
            }
            response.extensions_mut().insert(told);
        }
        Ok(response)
    }
}

/// Answers what is handed on, and notes it.
#[derive(Default)]
struct Router {
    seen: RefCell<Vec<String>>,
    fails: Option<Reason>,
}

impl Dispatch for Router {
    fn dispatch(&self, request: Box<Request>, onward: Onward) -> Dispatched<'_> {
        assert_eq!(onward, Onward::Internal);
        let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        assert!(matches!(request.body, Body::Empty));
        assert_eq!(at(&request.exchange), (Phase::Responding, None), "no worker has it any more");
        self.seen.borrow_mut().push(format!("{} {} {names:?}", request.method, request.target.as_str()));
        Box::pin(async move {
            match self.fails {
                Some(reason) => Err(Error::new(reason)),
                None => Ok(response(
                    206,
                    &[("etag", "\"file\""), ("content-type", "text/plain; charset=utf-8")],
                    Body::Full(Bytes::from_static(b"of the route")),
                )),
            }
        })
    }
}

/// How far an exchange has come, and since when a worker has it.
fn at(exchange: &Exchange) -> (Phase, Option<tokio::time::Instant>) {
    (exchange.phase.get(), exchange.working_since.get())
}

/// A folder that has these files, and closed ones.
struct Folder(&'static [&'static str]);

impl SendFile for Folder {
    async fn send(&self, request: &Request, path: &Path) -> Result<Response, Error> {
        let path = path.to_str().unwrap();
        assert_eq!(at(&request.exchange), (Phase::Responding, None));
        if !self.0.contains(&path) {
            let reason = if path.starts_with("closed") { Reason::FileForbidden } else { Reason::FileNotFound };
            return Err(Error::new(reason).detail(path.to_owned()));
        }
        let body = format!("{} {path}", request.method);
        Ok(response(200, &[("content-type", "text/plain")], Body::Full(body.into())))
    }
}

const BOTH: Handovers = Handovers { to_routes: true, to_files: true };
const NONE: Handovers = Handovers { to_routes: false, to_files: false };

struct Site {
    accel: Accel<App, Folder>,
    router: Rc<Router>,
}

fn site(handovers: Handovers, fields: Fields, router: Router) -> Site {
    site_saying(handovers, fields, Body::Empty, router)
}

fn site_saying(handovers: Handovers, fields: Fields, body: Body, router: Router) -> Site {
    let (redispatch, router) = (Redispatch::default(), Rc::new(router));
    redispatch.connect(&router);
    let roots = vec![
        Root { path: "/srv".into(), files: Folder(&["a", "media/a", "media/old"]) },
        Root { path: "/srv/media".into(), files: Folder(&["a", "my file", "closed file", "\u{e9}"]) },
    ];
    let layer = AccelLayer::compile(handovers, roots, &redispatch);
    Site { accel: layer.layer(App { fields, body, handovers }), router }
}

fn request_of(method: &Method) -> Box<Request> {
    let connection = Rc::new(ConnectionInfo::new("80"));
    let target = Bytes::from_static(b"/download/1");
    let exchange = Exchange::new(connection, Protocol::Http11, method.clone(), target, None, None);
    let mut headers = HeaderMap::new();
    for (name, value) in [("range", "bytes=1-"), ("cookie", "a=1"), ("content-type", "text/x"), ("content-length", "3")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Box::new(Request {
        method: method.clone(),
        target: Target::from_static("/download/1"),
        headers,
        body: Body::Full(Bytes::from_static(b"abc")),
        exchange: Rc::new(exchange),
        refused: None,
    })
}

async fn ask(site: &Site, method: &Method) -> Result<Response, Error> {
    site.accel.call(request_of(method)).await
}

async fn text(response: Response) -> String {
    let mut all = Vec::new();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn an_answer_that_says_nothing_passes() {
    let site = site_saying(BOTH, &[("server", "app")], Body::Full(Bytes::from_static(b"page")), Router::default());
    let response = ask(&site, &Method::GET).await.unwrap();
    assert_eq!((response.status(), &response.headers()["server"]), (StatusCode::OK, &HeaderValue::from_static("app")));
    assert_eq!(text(response).await, "page");
}

#[tokio::test]
async fn a_redirect_is_a_get_without_body_for_whoever_takes_its_path() {
    for (method, asked) in [(Method::GET, "GET"), (Method::HEAD, "HEAD"), (Method::POST, "GET")] {
        let fields: Fields = &[
            ("x-accel-redirect", "/protected/my file.pdf?v=1"),
            ("content-type", "application/pdf"),
            ("set-cookie", "s=1"),
            ("etag", "\"app\""),
            ("server", "app"),
        ];
        let site = site(BOTH, fields, Router::default());
        let response = ask(&site, &method).await.unwrap();
        let headers = response.headers();
        assert_eq!(response.status().as_u16(), 206);
        assert_eq!(
            (&headers["content-type"], &headers["set-cookie"], &headers["etag"]),
            (
                &HeaderValue::from_static("application/pdf"),
                &HeaderValue::from_static("s=1"),
                &HeaderValue::from_static("\"file\"")
            )
        );
        assert!(!headers.contains_key("server"));
        assert_eq!(text(response).await, "of the route");
        let seen = site.router.seen.take();
        assert_eq!(seen, [format!("{asked} /protected/my%20file.pdf?v=1 [\"cookie\", \"range\"]")]);
    }
}

#[tokio::test]
async fn a_target_that_is_none_is_refused_and_nobody_is_asked() {
    for value in ["@media", "http://other.example/a", "/../etc/passwd", "", "/a%00"] {
        let fields: Fields = Box::leak(Box::new([("x-accel-redirect", value), ("set-cookie", "s=1")]));
        let site = site(BOTH, fields, Router::default());
        let request = request_of(&Method::GET);
        let exchange = Rc::clone(&request.exchange);
        let error = site.accel.call(request).await.unwrap_err();
        assert_eq!(error.reason, Reason::AccelRefused, "{value}");
        assert!(!error.detail.is_empty() && site.router.seen.borrow().is_empty(), "{value}");
        let mut page = HeaderMap::new();
        exchange.answer_fields.apply(&mut page);
        assert_eq!(page["set-cookie"], "s=1", "cookies survive");
    }
}

#[tokio::test]
async fn what_fails_at_the_target_fails() {
    let site = site(
        BOTH,
        &[("x-accel-redirect", "/protected/a")],
        Router { fails: Some(Reason::NoRoute), ..Router::default() },
    );
    assert_eq!(ask(&site, &Method::GET).await.unwrap_err().reason, Reason::NoRoute);
}

#[tokio::test]
async fn a_request_is_handed_on_ten_times_at_most() {
    let site = site(BOTH, &[("x-accel-redirect", "/protected/a")], Router::default());
    let request = request_of(&Method::GET);
    request.exchange.hops.set(MAX_HOPS);
    assert_eq!(site.accel.call(request).await.unwrap_err().reason, Reason::TooManyHops);
    assert!(site.router.seen.borrow().is_empty());
}

#[tokio::test]
async fn a_file_is_sent_from_the_longest_root_that_has_it_alone() {
    for (value, expected) in [
        ("/srv/media/a", Ok("GET a")),
        ("/srv/a", Ok("GET a")),
        ("/srv/x/../media/./a", Ok("GET a")),
        ("/srv/media/my%20file", Ok("GET my file")),
        ("/srv/media/my file", Ok("GET my file")),
        ("=?utf-8?q?/srv/media/=C3=A9?=", Ok("GET \u{e9}")),
        // The shorter root has it, but the longer one is where it belongs.
        ("/srv/media/old", Err(Reason::FileNotFound)),
        ("/srv/media/none", Err(Reason::FileNotFound)),
        // It is there by this name, and no other file is sent in its place.
        ("/srv/media/closed%20file", Err(Reason::FileForbidden)),
        ("/srv/media/../../etc/passwd", Err(Reason::SendfileRefused)),
        ("/srv/media%2f..%2f..%2fetc/passwd", Err(Reason::FileNotFound)),
        ("/srvx/a", Err(Reason::SendfileRefused)),
        ("/etc/passwd", Err(Reason::SendfileRefused)),
        ("/srv", Err(Reason::SendfileRefused)),
        ("media/a", Err(Reason::SendfileRefused)),
        ("", Err(Reason::SendfileRefused)),
    ] {
        let fields: Fields = Box::leak(Box::new([("x-sendfile", value), ("server", "app"), ("content-length", "9")]));
        let site = site(BOTH, fields, Router::default());
        let result = ask(&site, &Method::GET).await;
        match (result, expected) {
            (Ok(response), Ok(expected)) => {
                assert_eq!(response.headers()["server"], "app", "{value}");
                assert!(!response.headers().contains_key("content-length"), "{value}");
                assert_eq!(text(response).await, expected, "{value}");
            }
            (result, expected) => {
                assert_eq!(result.map(|_| ()).map_err(|error| error.reason), expected.map(|_| ()), "{value}")
            }
        }
        assert!(site.router.seen.borrow().is_empty());
    }
}

#[tokio::test]
async fn what_is_not_allowed_passes_as_the_app_has_sent_it() {
    for fields in [&[("x-accel-redirect", "/p/a")] as Fields, &[("x-sendfile", "/srv/a")]] {
        for body in [Body::Empty, Body::Full(Bytes::from_static(b"its own"))] {
            let length = body.remaining();
            let site = site_saying(NONE, fields, body, Router::default());
            let response = ask(&site, &Method::GET).await.unwrap();
            assert_eq!((response.status(), response.body().remaining()), (StatusCode::OK, length));
            assert!(site.router.seen.borrow().is_empty());
        }
    }
}

#[tokio::test]
async fn a_charset_is_put_on_what_comes_of_it() {
    for (fields, expected) in [
        (&[("x-accel-redirect", "/p/a"), ("x-accel-charset", "koi8-r")] as Fields, "text/plain; charset=koi8-r"),
        (&[("x-accel-redirect", "/p/a"), ("x-accel-charset", "off")], "text/plain"),
        (&[("x-accel-charset", "koi8-r"), ("content-type", "text/html; charset=utf-8")], "text/html; charset=koi8-r"),
        (&[("x-accel-charset", "off"), ("content-type", "text/html; charset=utf-8")], "text/html; charset=utf-8"),
    ] {
        let response = ask(&site(BOTH, fields, Router::default()), &Method::GET).await.unwrap();
        assert_eq!(response.headers()["content-type"], expected, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_for_what_comes_of_it() {
    let begun = tokio::time::Instant::now();
    let limited = site(BOTH, &[("x-accel-redirect", "/p/a"), ("x-accel-limit-rate", "1")], Router::default());
    assert_eq!(text(ask(&limited, &Method::GET).await.unwrap()).await, "of the route");
    assert_eq!(begun.elapsed().as_secs(), 11, "twelve bytes, the first at once");
    let own = Body::Full(Bytes::from_static(b"own"));
    let limited = site_saying(NONE, &[("x-accel-limit-rate", "1")], own, Router::default());
    assert_eq!(text(ask(&limited, &Method::GET).await.unwrap()).await, "own");
    assert_eq!(begun.elapsed().as_secs(), 13);
    let free = site(BOTH, &[("x-accel-redirect", "/p/a"), ("x-accel-limit-rate", "off")], Router::default());
    assert_eq!(text(ask(&free, &Method::GET).await.unwrap()).await, "of the route");
    assert_eq!(begun.elapsed().as_secs(), 13);
}
