//! The same behaviour in front of every server that serves WSGI: {HTTP/1.1, HTTP/2} × servers × {http, uwsgi} ×
//! {tcp, unix}.
//!
//! One test a row of the table below, which starts its server once.

use serde_json::Value;

use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2::request;
use crate::support::server::AT_ONCE;
use crate::support::worker::Transport::{self, Tcp, Unix};
use crate::support::{Client, Gateway, Gunicorn, H2, Response, Server, Uwsgi};

/// A row: the claim's name, the server, and what it is known for.
macro_rules! rows {
    ($($name:ident = $start:expr, $traits:expr;)*) => {
        $(#[test]
        fn $name() {
            let app = $start;
            check(&app.endpoint(), $traits);
        })*
    };
}

rows! {
    gunicorn_sync_over_tcp = gunicorn(Kind::Sync, Tcp), Traits { keeps_alive: false, ..GUNICORN };
    gunicorn_sync_over_unix = gunicorn(Kind::Sync, Unix), Traits { keeps_alive: false, remote: "", ..GUNICORN };
    gunicorn_gthread_over_tcp = gunicorn(Kind::Gthread { threads: 2 }, Tcp), GUNICORN;
    gunicorn_gthread_over_unix = gunicorn(Kind::Gthread { threads: 2 }, Unix), Traits { remote: "", ..GUNICORN };
    gunicorn_gevent_over_tcp = gunicorn(Kind::Gevent, Tcp), GUNICORN;
    gunicorn_gevent_over_unix = gunicorn(Kind::Gevent, Unix), Traits { remote: "", ..GUNICORN };
    waitress_over_tcp = Server::waitress(Tcp), WAITRESS;
    waitress_over_unix = Server::waitress(Unix), WAITRESS;
    uvicorn_over_tcp = Server::uvicorn(Tcp), UVICORN;
    uvicorn_over_unix = Server::uvicorn(Unix), UVICORN;
    mod_wsgi_over_tcp = Server::mod_wsgi(), MOD_WSGI;
    uwsgi_over_tcp = Uwsgi::shop(Tcp, BUFFER_SIZE), UWSGI;
    uwsgi_over_unix = Uwsgi::shop(Unix, BUFFER_SIZE), UWSGI;
    gunicorn_sync_in_uwsgi_over_tcp = gunicorn_in_uwsgi(Kind::Sync, Tcp), IN_UWSGI;
    gunicorn_sync_in_uwsgi_over_unix = gunicorn_in_uwsgi(Kind::Sync, Unix), Traits { remote: "", ..IN_UWSGI };
    gunicorn_gthread_in_uwsgi_over_tcp = gunicorn_in_uwsgi(Kind::Gthread { threads: 2 }, Tcp), IN_UWSGI;
    gunicorn_gthread_in_uwsgi_over_unix =
        gunicorn_in_uwsgi(Kind::Gthread { threads: 2 }, Unix), Traits { remote: "", ..IN_UWSGI };
}

/// What a server can know and do.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// A connection is used again after a response whose length is known.
    keeps_alive: bool,
    /// REMOTE_ADDR, when the client is [`CLIENT`].
    remote: &'static str,
    /// A stream's first piece leaves before the second is made.
    streams: bool,
    /// The shop sees the forwarded fields themselves.
    shows_forwarded: bool,
}

/// Where the client is whose address the app is asked for: not where the gateway is.
const CLIENT: [u8; 4] = [127, 0, 0, 9];

/// It tells the app its own peer, and over a unix socket nobody.
const GUNICORN: Traits = Traits { keeps_alive: true, remote: "127.0.0.1", streams: true, shows_forwarded: true };

/// The others tell the app the client, once they are told to believe the gateway.
const BELIEVING: Traits = Traits { remote: "127.0.0.9", ..GUNICORN };

/// It removes what it has believed.
const WAITRESS: Traits = Traits { shows_forwarded: false, ..BELIEVING };

/// Django collects a synchronous stream whole under ASGI.
const UVICORN: Traits = Traits { streams: false, ..BELIEVING };

const MOD_WSGI: Traits = BELIEVING;

/// One request a connection is the protocol's own, whoever serves. gunicorn takes no client from it.
const IN_UWSGI: Traits = Traits { keeps_alive: false, ..GUNICORN };

/// Its app is told what the gateway says, of the client too.
const UWSGI: Traits = Traits { keeps_alive: false, ..BELIEVING };

/// What uWSGI takes of a request's variables, in bytes, and the gateway is told so: 4096 is the default of both.
const BUFFER_SIZE: u32 = 32768;

fn gunicorn_in_uwsgi(kind: Kind, transport: Transport) -> Gunicorn {
    Plan::new(kind, 2, transport).uwsgi().start()
}

fn gunicorn(kind: Kind, transport: Transport) -> Gunicorn {
    Plan::new(kind, 2, transport).start()
}

fn check(endpoint: &str, traits: Traits) {
    let settings = match endpoint.starts_with("uwsgi") {
        true => format!(", uwsgi: {{ buffer_size: {BUFFER_SIZE} }}"),
        false => String::new(),
    };
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n  - {{ bind: \"127.0.0.2:0\" }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: {AT_ONCE}{settings} }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    ));
    for way in [Way::H1, Way::H2] {
        let cell = Cell { gateway: &gateway, way, traits };
        cell.pages();
        cell.uploads();
        cell.truth();
        cell.headers();
        cell.errors();
        cell.reuse();
        cell.streams();
    }
    if traits.streams {
        check_first_pieces(&gateway);
    }
    gateway.wait_idle();
    let failures = gateway.admin_get("/metrics");
    let failures: Vec<&str> =
        failures.text().lines().filter(|line| line.starts_with("hostler_failures_total{")).collect();
    // A stream was left before its end, and nothing else was amiss.
    assert!(failures.iter().all(|line| line.contains("client_gone")), "{failures:#?}");
}

/// The first piece of a stream is here while the app has still to make the second. Both protocols at once: one wait.
fn check_first_pieces(gateway: &Gateway) {
    gateway.wait_idle();
    let (path, listener) = ("/stream?chunks=2&delay=3", gateway.listener("127.0.0.2:0"));
    let mut client = Client::connect(listener);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let mut request = request("GET", path, &[]);
    *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
    let h2 = H2::connect(listener);
    let over_h2 = h2.open(request, true);
    assert_eq!(client.head().expect("a head").0, 200);
    assert!(!client.peek(1).is_empty());
    let (status, piece, _rest) = over_h2.first_piece();
    assert_eq!((status, piece.is_empty()), (200, false));
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 2.0, "the second pieces are yet to come");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    H1,
    H2,
}

struct Cell<'a> {
    gateway: &'a Gateway,
    way: Way,
    traits: Traits,
}

impl Cell<'_> {
    fn host(&self) -> String {
        format!("localhost:{}", self.gateway.address().port())
    }

    /// One request on a connection of its own, over TLS. `body` has its length said, or comes in chunks.
    fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8], is_chunked: bool) -> Response {
        let (host, root, length) = (self.host(), self.gateway.root(), body.len().to_string());
        let mut fields = fields.to_vec();
        if !body.is_empty() && !is_chunked {
            fields.push(("content-length", &length));
        }
        if self.way == Way::H2 {
            let h2 = H2::tls(self.gateway.address(), "localhost", &root);
            let mut request = request(method, path, &fields);
            *request.uri_mut() = format!("https://{host}{path}").parse().unwrap();
            return h2.send(request, body);
        }
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let mut bytes = head.into_bytes();
        if is_chunked {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for piece in body.chunks(100_000) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(body);
        }
        let mut client = Client::tls(self.gateway.address(), "localhost", &root);
        client.send(bytes);
        client.response(method)
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"", false)
    }

    fn pages(&self) {
        let page = self.get("/bytes/1000");
        assert_eq!((page.status, page.header("content-length")), (200, Some("1000")), "{self}");
        assert_eq!(page.body, b"hostler\n".repeat(125), "{self}");
        let large = self.get("/page?size=3000000");
        assert_eq!((large.status, large.body.len(), large.cut), (200, 3_000_000, None), "{self}");
        let head = self.ask("HEAD", "/bytes/1000", &[], b"", false);
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1000"), 0), "{self}");
        for status in [204, 304] {
            let response = self.get(&format!("/status/{status}"));
            assert_eq!((response.status, response.body.len()), (status, 0), "{self}: {response:?}");
        }
    }

    fn uploads(&self) {
        /// SHA-256 of 2^17 times `hostler\n`.
        const DIGEST: &str = "43e883518638480614f1e04da48131f827e63ec8b616cd0adb1994a2715c724a";
        let body = b"hostler\n".repeat(1 << 17);
        for is_chunked in [false, true] {
            let response = self.ask("POST", "/upload", &[("content-type", "text/plain")], &body, is_chunked);
            assert_eq!(response.status, 200, "{self}: {response:?}");
            let told: Value = serde_json::from_str(response.text()).unwrap();
            assert_eq!((&told["size"], &told["sha256"]), (&(1 << 20).into(), &DIGEST.into()), "{self} {is_chunked}");
            assert_eq!(told["content_length"], "1048576", "{self}: the app is told the length");
        }
        let empty = self.ask("POST", "/work?ms=0&id=empty", &[("content-length", "0")], b"", false);
        assert_eq!(empty.status, 200, "{self}: {empty:?}");
    }

    /// Scheme, host and client as the app sees them. The client's own address is tried in plain text, where it can
    /// have one that is not the gateway's as well.
    fn truth(&self) {
        let environ = |response: &Response| -> Value { serde_json::from_str(response.text()).unwrap() };
        let secure = environ(&self.get("/environ?a=1"));
        assert_eq!(secure["HTTP_HOST"], self.host(), "{self}: {secure:#}");
        for (name, value) in
            [("wsgi.url_scheme", "https"), ("PATH_INFO", "/environ"), ("SCRIPT_NAME", ""), ("QUERY_STRING", "a=1")]
        {
            // There is no environ in ASGI; Django makes up what it needs.
            if !secure[name].is_null() {
                assert_eq!(secure[name], value, "{self}: {name} in {secure:#}");
            }
        }
        let plain = match self.way {
            Way::H1 => {
                let mut client = Client::connect_from(CLIENT, self.gateway.listener("127.0.0.2:0"));
                client.send("GET /environ HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
                client.response("GET")
            }
            Way::H2 => {
                let mut request = request("GET", "/environ", &[("x-forwarded-for", "6.6.6.6")]);
                *request.uri_mut() = "http://localhost/environ".parse().unwrap();
                H2::connect_from(CLIENT, self.gateway.listener("127.0.0.2:0")).send(request, b"")
            }
        };
        assert_eq!(plain.status, 200, "{self}: {plain:?}");
        let plain = environ(&plain);
        assert_eq!(plain["REMOTE_ADDR"], self.traits.remote, "{self}: {plain:#}");
        assert!(plain["wsgi.url_scheme"].is_null() || plain["wsgi.url_scheme"] == "http", "{self}: {plain:#}");
        if self.traits.shows_forwarded {
            assert_eq!(plain["HTTP_X_FORWARDED_FOR"], "127.0.0.9", "{self}: {plain:#}");
            assert_eq!(plain["HTTP_X_FORWARDED_PROTO"], "http", "{self}: {plain:#}");
        }
    }

    fn headers(&self) {
        let cookie = format!("a={}", "c".repeat(8000));
        let response = self.ask("GET", "/environ", &[("cookie", &cookie), ("x-two", "1")], b"", false);
        assert_eq!(response.status, 200, "{self}: {response:?}");
        let environ: Value = serde_json::from_str(response.text()).unwrap();
        assert_eq!((&environ["HTTP_COOKIE"], &environ["HTTP_X_TWO"]), (&cookie.into(), &"1".into()), "{self}");
        let response = self.get("/header/16000");
        assert_eq!(response.header("x-large").map(str::len), Some(16000), "{self}: {}", response.status);
    }

    fn errors(&self) {
        let response = self.get("/failure");
        assert_eq!((response.status, response.header("proxy-status")), (500, None), "{self}: {response:?}");
        assert!(response.text().contains("Server Error"), "{self}: the app's own page: {response:?}");
        assert_eq!(self.get("/status/503").text(), "This is a 503.\n", "{self}");
    }

    /// The gateway goes on with a connection that the server keeps, and does not mind one that it closes.
    fn reuse(&self) {
        let connects = [(); 3].map(|()| {
            let response = self.get("/bytes/10");
            assert_eq!(response.body.len(), 10, "{self}");
            self.gateway.access_of(&response)["connect"].as_f64().unwrap()
        });
        // No time at all is what a connection takes that is there.
        let reused = connects[1..].iter().all(|connect| *connect == 0.0);
        let opened = connects[1..].iter().all(|connect| *connect > 0.0);
        assert!(if self.traits.keeps_alive { reused } else { opened }, "{self}: {connects:?}");
    }

    fn streams(&self) {
        let response = self.get("/stream?chunks=3&delay=0");
        assert_eq!(response.text(), "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n", "{self}");
        assert_eq!(response.header("content-length"), None, "{self}: nobody knew its length");
    }
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.way, self.traits)
    }
}
