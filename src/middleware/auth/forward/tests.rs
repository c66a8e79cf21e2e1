use std::cell::RefCell;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tower::Layer as _;

use super::super::{AuthLayer, Policy};
use super::*;
use crate::access::{Checks, Sources};
use crate::http::{ConnectionInfo, Protocol, Service};
use crate::observe::metrics::Metrics;
use crate::upstream::spool::Budget;
use crate::upstream::{Connector, Upstream};

/// The app: whoever comes so far is let in.
struct Bottom;

impl Service for Bottom {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        assert_ne!(request.exchange.phase.get(), Phase::Authorizing);
        let mut response = Response::new(Body::Empty);
        response.headers_mut().insert("x-app", HeaderValue::from_static("here"));
        Ok(response)
    }
}

/// What came of a request.
struct Asked {
    result: Result<Response, Error>,
    exchange: Rc<Exchange>,
    /// The head of each request that the auth service has got.
    heard: Vec<String>,
}

impl Asked {
    /// `app`, the status of the answer that the client gets, or why it gets none.
    fn end(&self) -> String {
        match &self.result {
            Ok(response) if response.headers().contains_key("x-app") => "app".into(),
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => error.reason.to_string(),
        }
    }

    fn told(&self) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.exchange.identity.fields().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }
}

const CONFIG: &str = "
upstreams:
  app: { endpoints: ['unix:/run/app.sock'], workers: 4 }
  auth: { endpoints: ['unix:SOCKET'], workers: 1, MORE }
sites: [{ routes: [{ path: /, proxy: app, auth: { forward: { upstream: auth, path: '/verify?x=1', headers: [Remote-User, Remote-Groups] } } }] }]
";

/// A request with these fields, where the auth service answers with these bytes; without any it says nothing.
async fn asked(answer: &'static str, more: &str, method: Method, fields: &[(&'static str, &'static str)]) -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("auth.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let service = tokio::task::spawn_local(serve(listener, answer, Rc::clone(&heard)));
    let text = CONFIG.replace("SOCKET", socket.to_str().unwrap()).replace("MORE", more);
    let config = crate::config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap().config;
    let layer = layer(&config);
    let connection = ConnectionInfo::new("443").over_tls(true).between("192.0.2.7:5".parse().ok(), None);
    let host = Host::parse(Bytes::from_static(b"shop.example")).unwrap();
    let target = Target::parse(Bytes::from_static(b"/a%20b?c=d")).unwrap();
    let exchange =
        Rc::new(Exchange::new(Rc::new(connection), Protocol::Http2, method.clone(), target.bytes(), Some(host), None));
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("shop.example"));
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let request = Request { method, target, headers, body: Body::Empty, exchange: Rc::clone(&exchange), refused: None };
    let open = crate::http::open_exchanges();
    let result = layer.call(Box::new(request)).await;
    assert_eq!(crate::http::open_exchanges(), open);
    service.abort();
    Asked { result, exchange, heard: heard.take() }
}

fn layer(config: &config::Config) -> super::super::Authorized<Bottom> {
    let (metrics, settings) = (Metrics::new(), &config.upstreams[1]);
    let connectors =
        settings.endpoints.iter().map(|endpoint| Connector::compile(settings, endpoint).unwrap()).collect();
    let upstream = Arc::new(Upstream::compile(settings, connectors, None, metrics.upstream("auth")));
    upstream.put_in_force();
    let client = Rc::new(Client::new(upstream, Budget::new(&config::Spool::default()), metrics));
    let route = &config.sites[0].routes[0];
    let auth = route.auth.as_ref().unwrap();
    let names: Vec<HeaderName> = route.identity_names().map(|name| name.parse().unwrap()).collect();
    let forward = Forward::compile(auth.forward.as_ref().unwrap(), route, client, None, names.into());
    let policy = Policy::compile(auth, &Arc::new(Checks::of_a_test()), &mut Sources::following(None));
    AuthLayer::new(Some(Arc::new(policy)), Some(forward)).layer(Bottom)
}

async fn serve(listener: UnixListener, answer: &'static str, heard: Rc<RefCell<Vec<String>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap() == 0 {
                break;
            }
        }
        heard.borrow_mut().push(String::from_utf8(head).unwrap());
        if answer.is_empty() {
            std::future::pending::<()>().await;
        }
        // A cut answer is no failure of the test.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

const PASS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRemote-User: ann\r\nRemote-Groups: staff\r\n\
                    Remote-Groups: ops\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Other: x\r\n\r\nok";

#[test]
fn the_auth_service_is_asked_in_a_way_that_no_client_can_forge() {
    crate::runtime::paused(async || {
        let asked = asked(
            PASS,
            "",
            Method::POST,
            &[
                ("cookie", "session=1"),
                ("cookie", "other=2"),
                ("authorization", "Bearer x"),
                ("accept", "text/html"),
                ("content-length", "10"),
                ("content-type", "text/plain"),
                ("expect", "100-continue"),
                ("range", "bytes=0-1"),
                ("if-none-match", "\"x\""),
                ("idempotency-key", "1"),
                ("connection", "keep-alive, x-hop"),
                ("x-hop", "forged"),
                ("upgrade", "websocket"),
                ("remote-user", "forged"),
                ("remote-groups", "forged"),
                ("x-forwarded-uri", "/forged"),
                ("x-forwarded-method", "FORGED"),
                ("x-forwarded-for", "203.0.113.66"),
                ("x-original-uri", "/forged"),
                ("x-original-url", "https://forged.example/"),
                ("x-original-method", "FORGED"),
                ("x_original_url", "https://forged.example/"),
            ],
        )
        .await;
        assert_eq!(asked.end(), "app");
        let [head] = &asked.heard[..] else { panic!("{:?}", asked.heard) };
        let mut lines: Vec<&str> = head.split("\r\n").filter(|line| !line.is_empty()).collect();
        let start = lines.iter().position(|line| line.starts_with("x-request-start: t=")).unwrap();
        lines.remove(start);
        assert_eq!(lines.remove(0), "GET /verify?x=1 HTTP/1.1");
        lines.sort_unstable();
        let expected = [
            "accept: text/html",
            "authorization: Bearer x",
            "cookie: session=1; other=2",
            "host: shop.example",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: shop.example",
            "x-forwarded-method: POST",
            "x-forwarded-port: 443",
            "x-forwarded-proto: https",
            "x-forwarded-uri: /a%20b?c=d",
            "x-original-method: POST",
            "x-original-uri: /a%20b?c=d",
            "x-original-url: https://shop.example/a%20b?c=d",
            "x-real-ip: 192.0.2.7",
        ];
        assert_eq!(lines, expected);
    });
}

#[test]
fn who_passes_is_told_to_the_app_and_gets_the_cookies() {
    crate::runtime::paused(async || {
        let asked = asked(PASS, "", Method::GET, &[]).await;
        assert_eq!(asked.end(), "app");
        let told = [("remote-user", "ann"), ("remote-groups", "staff, ops")];
        assert_eq!(asked.told(), told.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut headers = HeaderMap::from_iter([(header::SET_COOKIE, HeaderValue::from_static("app=0"))]);
        asked.exchange.answer_fields.apply(&mut headers);
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().collect::<Vec<_>>(), ["app=0", "a=1", "b=2"]);
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert_eq!((asked.exchange.reason.get(), asked.exchange.endpoint.borrow().clone()), (None, None));
    });
}

#[test]
fn a_name_that_the_answer_does_not_have_is_not_told() {
    crate::runtime::paused(async || {
        let answer = "HTTP/1.1 204 No Content\r\nRemote-User:\r\nRemote-Groups: \r\nRemote-Groups: ops\r\n\r\n";
        let asked = asked(answer, "", Method::GET, &[("remote-user", "forged")]).await;
        assert_eq!((asked.end(), asked.told()), ("app".into(), vec![("remote-groups".into(), "ops".into())]));
    });
}

#[test]
fn a_verdict_goes_to_the_client_and_nothing_else_lets_a_request_pass() {
    crate::runtime::paused(async || {
        for (answer, end, reason) in [
            ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nWWW-Authenticate: x\r\n\r\nno", "401", "unauthorized"),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403", "forbidden"),
            ("HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\nRetry-After: 9\r\n\r\nno", "429", "rate_limited"),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /login\r\n\r\n", "302", "unauthorized"),
            ("HTTP/1.1 307 X\r\nContent-Length: 0\r\nLocation: https://login.example/\r\n\r\n", "307", "unauthorized"),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "auth_unavailable", ""),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", "auth_unavailable", ""),
            ("HTTP/1.1 300 X\r\nContent-Length: 0\r\nLocation: /a\r\n\r\n", "auth_unavailable", ""),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "auth_unavailable", ""),
            ("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno", "auth_unavailable", ""),
            ("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "auth_unavailable", ""),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno", "auth_unavailable", ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "auth_unavailable", ""),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "auth_unavailable", ""),
            ("HTTP/1.1 200", "auth_unavailable", ""),
            ("hello\r\n\r\n", "auth_unavailable", ""),
        ] {
            let asked = asked(answer, "retry: { attempts: 0 }", Method::GET, &[]).await;
            let failed = asked.exchange.reason.get().map_or("", Reason::as_str);
            assert_eq!((asked.end().as_str(), failed), (end, reason), "{answer}");
            assert!(asked.exchange.endpoint.borrow().is_some(), "{answer}");
            if let Err(error) = &asked.result {
                assert!(error.to_string().contains("GET /verify?x=1 from upstream auth"), "{error}");
            }
        }
    });
}

#[test]
fn who_is_not_answered_in_time_does_not_pass() {
    crate::runtime::paused(async || {
        let begun = tokio::time::Instant::now();
        let asked = asked("", "timeouts: { head: 65s }", Method::GET, &[]).await;
        assert_eq!(asked.end(), "auth_unavailable");
        let error = asked.result.unwrap_err().to_string();
        assert!(error.ends_with("no answer within 5s (auth.forward.timeout)"), "{error}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(7), "{took:?}");
        assert!(asked.exchange.timings.get().auth >= Duration::from_secs(5));
    });
}

#[test]
fn fields_that_are_about_another_request_do_not_pass() {
    let headers = HeaderMap::from_iter(
        ["accept", "cookie", "content-type", "content-encoding", "if-match", "range", "te", "x-role", "expect", "host"]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))),
    );
    let passing = super::passing(&headers, &[HeaderName::from_static("x-role")]);
    let mut names: Vec<&str> = passing.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "cookie", "host"]);
}

#[test]
fn what_another_service_has_said_before_is_not_told_under_names_of_this_one() {
    let connection = Rc::new(ConnectionInfo::new("80"));
    let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, Bytes::new(), None, None);
    let [role, user, other] = ["x-role", "x-user", "x-other"].map(HeaderName::from_static);
    for name in [&role, &user, &other] {
        exchange.identity.tell(name.clone(), HeaderValue::from_static("before"));
    }
    let answer = HeaderMap::from_iter([(user.clone(), HeaderValue::from_static("ann"))]);
    tell(&exchange, &[role, user.clone()], &answer);
    let told = [(user, HeaderValue::from_static("ann")), (other, HeaderValue::from_static("before"))];
    assert_eq!(*exchange.identity.fields(), told);
}
