//! Who may use a route: `auth`, with the tools that make users and tokens.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::tls_worker::Ca;
use crate::support::tool::{Tool, curl};
use crate::support::uwsgi::Program;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, LIMIT, Response, Uwsgi, Worker, look_until};

/// A folder for users and keys.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// With the file that it makes itself.
    fn htpasswd(&self, arguments: &[&str]) {
        let output = Tool::start("htpasswd", arguments).output();
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    /// Ann with the password `secret`.
    fn with_ann() -> Self {
        let files = Self::new();
        files.htpasswd(&["-c", "-b", "-B", "-C", "5", files.path("users").to_str().unwrap(), "ann", "secret"]);
        files
    }
}

/// One upstream, a route with this `auth` and one without.
fn config(endpoint: &str, auth: &str) -> String {
    format!(
        "upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\n\
         sites:\n  - routes:\n      - {{ path: /open/, proxy: app }}\n      - {{ path: /, proxy: app, auth: {auth} }}\n"
    )
}

fn basic(path: &Path) -> String {
    format!("{{ basic: {{ realm: Staff only, users: \"{}\" }} }}", path.display())
}

fn ask(client: &mut Client, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    client.response("GET")
}

fn password(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

fn environ(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text()).unwrap()
}

#[test]
fn the_app_gets_the_user_of_an_htpasswd_file_and_not_the_password() {
    let files = Files::with_ann();
    let (gunicorn, uwsgi) = (Gunicorn::start(1), Uwsgi::start(Program::Uwsgi, Transport::Unix));
    for endpoint in [gunicorn.endpoint(), uwsgi.endpoint()] {
        let gateway = Gateway::start(&config(&endpoint, &basic(&files.path("users"))));
        let url = format!("http://{}/environ", gateway.address());
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let forged = ["-H", "Remote-User: root", "-H", "REMOTE_USER: root", "-H", "X-Remote-User: root"];
            let output = curl(&[&[version, "--user", "ann:secret", "--fail", &url], &forged[..]].concat());
            assert_eq!(output.code, Some(0), "{output:?}");
            let environ: Value = serde_json::from_str(&output.stdout).unwrap();
            assert_eq!(environ["HTTP_REMOTE_USER"], "ann", "{environ:#}");
            if endpoint.starts_with("uwsgi") {
                assert_eq!(environ["REMOTE_USER"], "ann", "{environ:#}");
            }
            assert!(environ.get("HTTP_AUTHORIZATION").is_none(), "{environ:#}");
            assert!(!output.stdout.contains("root"), "{environ:#}");
            for user in ["ann:wrong", "bob:secret", "ann:", ":"] {
                let output =
                    curl(&[version, "--user", user, "--output", "/dev/null", "--write-out", "%{http_code}", &url]);
                assert_eq!(output.stdout, "401", "{user} {output:?}");
            }
        }
    }
}

#[test]
fn a_request_that_is_handed_on_passes_the_password_of_both_routes_and_the_app_does_not_see_it() {
    let files = Files::with_ann();
    let (gunicorn, uwsgi) = (Gunicorn::start(1), Uwsgi::start(Program::Uwsgi, Transport::Unix));
    for endpoint in [gunicorn.endpoint(), uwsgi.endpoint()] {
        let auth = basic(&files.path("users"));
        let gateway = Gateway::start(&format!(
            "upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 2 }}\n\
             sites:\n  - routes:\n\
             \x20     - {{ path: /, files: {{ root: \"{}\", fallback: next }}, auth: {auth} }}\n\
             \x20     - {{ path: /, proxy: app, auth: {auth} }}\n",
            files.0.path().display()
        ));
        let mut client = gateway.client();
        let environ = environ(&ask(&mut client, "/environ", &password("ann", "secret")));
        assert_eq!(environ["HTTP_REMOTE_USER"], "ann", "{environ:#}");
        assert!(environ.get("HTTP_AUTHORIZATION").is_none(), "{environ:#}");
        assert_eq!(ask(&mut client, "/environ", &password("ann", "wrong")).status, 401);
        assert_eq!(ask(&mut client, "/environ", "").status, 401);
    }
}

#[test]
fn a_stranger_is_told_what_is_wanted_and_asks_no_app() {
    let files = Files::with_ann();
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(&config(&worker.endpoint(), &basic(&files.path("users"))));
    let mut client = gateway.client();
    for fields in [
        "",
        "Authorization: Bearer x\r\n",
        "Authorization: Basic %%%\r\n",
        &password("ann", "no"),
        &password("eve", "secret"),
    ] {
        let response = ask(&mut client, "/", fields);
        assert_eq!(response.status, 401, "{fields}");
        assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"Staff only\", charset=\"UTF-8\""));
        assert_eq!(
            response.header("proxy-status"),
            Some("hostler; error=http_request_denied; details=\"unauthorized\"")
        );
        assert_eq!(gateway.access_of(&response)["reason"], "unauthorized");
    }
    // What a stranger sends is not received.
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response("POST");
    assert_eq!((response.status, response.interim.len()), (401, 0));
    assert_eq!(worker.connections(), 0);
    let mut client = gateway.client();
    assert_eq!(ask(&mut client, "/", &password("ann", "secret")).status, 200);
    assert_eq!(ask(&mut client, "/open/", "").status, 200);
    gateway.wait_failures("", "unauthorized", 6.0);
}

#[test]
fn users_are_swapped_when_the_file_changes_and_a_bad_file_changes_nothing() {
    let files = Files::with_ann();
    let users = files.path("users");
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(&config(&worker.endpoint(), &basic(&users)));
    let status = |name: &str, secret: &str| ask(&mut gateway.client(), "/", &password(name, secret)).status;
    assert_eq!((status("ann", "secret"), status("bob", "hunter2")), (200, 401));
    // Until when it was not so, for requests that were begun then.
    let took = |name: &str, secret: &str, expected: u16| {
        let (changed, mut last) = (Instant::now(), Duration::ZERO);
        let is_so = look_until(|| {
            let begun = changed.elapsed();
            let is_so = status(name, secret) == expected;
            last = if is_so { last } else { begun };
            is_so.then_some(())
        });
        assert!(is_so.is_some(), "{name} does not get {expected}");
        last
    };
    files.htpasswd(&["-b", "-B", "-C", "5", users.to_str().unwrap(), "bob", "hunter2"]);
    let let_in = took("bob", "hunter2", 200);
    assert_eq!(status("ann", "secret"), 200);
    files.htpasswd(&["-D", users.to_str().unwrap(), "ann"]);
    // Password remembered or not.
    let kept_out = took("ann", "secret", 401);
    // The gateway takes half of this; the other half is for a machine with much to do, which may not be enough once.
    assert!(let_in.min(kept_out) < Duration::from_secs(2), "{let_in:?} and {kept_out:?}");
    // MD5, as htpasswd makes it when it is not told otherwise.
    files.htpasswd(&["-b", "-m", users.to_str().unwrap(), "eve", "secret"]);
    let event = gateway.log_event("the bad file", |event| event["level"] == "ERROR");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("line 2 of ") && message.contains("MD5 (apr1)"), "{message}");
    assert!(message.contains("htpasswd -B") && message.ends_with("the users from before stay in force"), "{message}");
    assert_eq!((status("bob", "hunter2"), status("eve", "secret")), (200, 401));
    assert_eq!(gateway.metric("hostler_auth_sources_failing"), 1.0);
    // With a file like that it does not start, nor is it put in force by a reload.
    let config = config(&worker.endpoint(), &basic(&users));
    let (code, said) = Gateway::refuse(&config);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2 of ") && said.contains("hostler.yaml:"), "{said}");
}

/// Of a password that nobody knows; to check another one takes a processor for a good part of a second.
const SLOW: &str = "ann:$2y$14$abcdefghijklmnopqrstuuCZ2kS1u2oP9fV0x3mQyRZtH5wLdEi7K\n";

#[test]
fn passwords_are_checked_beside_the_event_loop_and_so_many_at_a_time() {
    /// What may wait for its turn.
    const WAITING: usize = 64;
    let files = Files::new();
    files.write("users", SLOW);
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    // One thread serves: whatever holds it up holds up everybody.
    let gateway = Gateway::start(&config(&worker.endpoint(), &basic(&files.path("users"))));
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", password("ann", "wrong"));
    let mut checked = gateway.client();
    checked.send(&request);
    gateway.wait_metric("hostler_password_checks_total", 1.0);
    let open = ask(&mut gateway.client(), "/open/", "");
    assert_eq!(open.status, 200);
    assert_eq!(checked.response("GET").status, 401);
    // More than half of the processors check, some more are through by the time that the last one asks.
    let turns = std::thread::available_parallelism().map_or(1, usize::from);
    let mut crowd: Vec<Client> = (0..WAITING + turns + 4).map(|_| gateway.client()).collect();
    for client in &mut crowd {
        client.send(&request);
    }
    let told = crowd.last_mut().unwrap().response("GET");
    assert_eq!((told.status, told.header("retry-after").is_some()), (503, true), "{told:?}");
    assert_eq!(gateway.access_of(&told)["reason"], "auth_overloaded");
    // Who leaves is not checked any more.
    drop(crowd);
    let again = look_until(|| (ask(&mut gateway.client(), "/", &password("ann", "wrong")).status == 401).then_some(()));
    assert!(again.is_some(), "there is time again");
    // The first two have come to their ends in this order.
    let ended = gateway.stop();
    let first: Vec<&Value> = ended.access[..2].iter().map(|line| &line["status"]).collect();
    assert_eq!(first, [200, 401], "who needs no password does not wait for one to be checked");
}

/// Who makes tokens.
struct Issuer {
    key: Ed25519KeyPair,
    id: &'static str,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap(), id }
    }

    fn set(&self) -> String {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{}","x":"{x}"}}]}}"#, self.id)
    }

    /// One with these claims beside those that are always there. `expires` is from now.
    fn token(&self, expires: i64, claims: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.id));
        let claims = format!(r#"{{"iss":"https://login.example","aud":"shop","exp":{},{claims}}}"#, now + expires);
        let message = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token(600, r#""sub":"ann""#))
    }
}

fn jwt(jwks: &str, more: &str) -> String {
    format!(
        "{{ jwt: {{ jwks: \"{jwks}\", issuer: https://login.example, audience: shop, algorithms: [EdDSA]{more} }} }}"
    )
}

#[test]
fn a_good_token_lets_in_and_its_claims_are_the_apps_alone_to_get() {
    let (files, issuer) = (Files::new(), Issuer::new("1"));
    files.write("jwks.json", &issuer.set());
    let gunicorn = Gunicorn::start(1);
    let claims = ", claims: { sub: Remote-User, groups: X-Groups, email: X-Email }";
    let auth = jwt(&files.path("jwks.json").display().to_string(), claims);
    let gateway = Gateway::start(&config(&gunicorn.endpoint(), &auth));
    let mut client = gateway.client();
    let token = issuer.token(600, r#""sub":"ann","groups":["staff","ops"]"#);
    let forged = "Remote-User: root\r\nX-Groups: admin\r\nX-Email: root@shop.example\r\n";
    let environ = environ(&ask(&mut client, "/environ", &format!("Authorization: Bearer {token}\r\n{forged}")));
    assert_eq!((&environ["HTTP_REMOTE_USER"], &environ["HTTP_X_GROUPS"]), (&"ann".into(), &"staff,ops".into()));
    assert!(environ.get("HTTP_X_EMAIL").is_none(), "the token has none: {environ:#}");
    assert_eq!(environ["HTTP_AUTHORIZATION"], "(hidden)", "the app has it, and does not show it");
    // Nor on a route that asks nobody: the app would believe it there as well.
    let open = ask(&mut client, "/open/environ", forged);
    assert_eq!(open.status, 404, "{open:?}");
    for (fields, challenge) in [
        (String::new(), "Bearer realm=\"Restricted\"".to_owned()),
        (password("ann", "secret"), "Bearer realm=\"Restricted\"".to_owned()),
        (
            format!("Authorization: Bearer {}\r\n", issuer.token(-600, r#""sub":"ann""#)),
            "Bearer realm=\"Restricted\", error=\"invalid_token\", error_description=\"the token has expired\"".to_owned(),
        ),
        (
            Issuer::new("1").bearer(),
            "Bearer realm=\"Restricted\", error=\"invalid_token\", error_description=\"the signature of the token is wrong\""
                .to_owned(),
        ),
        (
            Issuer::new("2").bearer(),
            "Bearer realm=\"Restricted\", error=\"invalid_token\", \
             error_description=\"the token is signed with an unknown key\""
                .to_owned(),
        ),
        (
            format!("Authorization: Bearer {}\r\n", issuer.token(600, r#""sub":{"name":"ann"}"#)),
            "Bearer realm=\"Restricted\", error=\"invalid_token\", \
             error_description=\"a claim of the token is missing or malformed\""
                .to_owned(),
        ),
    ] {
        let response = ask(&mut client, "/environ", &fields);
        assert_eq!(response.status, 401, "{fields}");
        assert_eq!(response.header("www-authenticate"), Some(challenge.as_str()), "{fields}");
    }
}

#[test]
fn what_clients_say_of_claims_is_removed_on_every_route() {
    let (files, issuer) = (Files::new(), Issuer::new("1"));
    files.write("jwks.json", &issuer.set());
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let auth = jwt(&files.path("jwks.json").display().to_string(), ", from: 'cookie:session', claims: { sub: X-User }");
    let gateway = Gateway::start(&config(&worker.endpoint(), &auth));
    let mut client = gateway.client();
    let forged = "X-User: root\r\nRemote-User: root\r\n";
    assert_eq!(ask(&mut client, "/open/", forged).status, 200);
    let received = worker.wait_requests(1);
    assert_eq!((received.all("x-user"), received.all("remote-user")), (Vec::<String>::new(), Vec::new()));
    let cookie = format!("Cookie: a=b; session={}\r\n{forged}", issuer.token(600, r#""sub":"ann""#));
    assert_eq!(ask(&mut client, "/", &cookie).status, 200);
    let received = worker.wait_requests(2);
    assert_eq!((received.all("x-user"), received.all("remote-user")), (vec!["ann".to_owned()], Vec::new()));
    assert_eq!(ask(&mut client, "/", &issuer.bearer()).status, 401, "a token is taken from one place");
    gateway.wait_metric("hostler_headers_dropped_total{kind=\"identity\"}", 4.0);
}

/// A server of keys over TLS, which answers what it is told to.
struct KeyServer {
    port: u16,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<u32>>,
}

impl KeyServer {
    fn start(ca: &Ca) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(0)));
        let config = Arc::new(ca.server("localhost"));
        let shared = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(session, stream);
                let mut head = Vec::new();
                let mut piece = [0; 1024];
                // An error is a client that does not like the certificate.
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
                        _ => break,
                    }
                }
                *shared.1.lock().unwrap() += 1;
                let answer = shared.0.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { port, answer, asked }
    }

    fn answers(&self, status: &str, body: &str) {
        *self.answer.lock().unwrap() = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/jwks.json", self.port)
    }

    fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

#[test]
fn keys_are_fetched_over_tls_and_those_from_before_outlive_what_comes_after() {
    let (ca, old, new) = (Ca::new(), Issuer::new("old"), Issuer::new("new"));
    let server = KeyServer::start(&ca);
    server.answers("503 Service Unavailable", "busy");
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = config(&worker.endpoint(), &jwt(&server.url(), ", refresh: 10s"));
    let trust = |command: &mut std::process::Command| {
        command.env("SSL_CERT_FILE", ca.file());
    };
    let gateway = Gateway::start_with(&config, trust);
    let status = |issuer: &Issuer| ask(&mut gateway.client(), "/", &issuer.bearer()).status;
    // Nobody is let in unasked; who brings nothing is told so all the same.
    let response = ask(&mut gateway.client(), "/", &old.bearer());
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(gateway.access_of(&response)["reason"], "auth_unavailable");
    assert!(response.header("retry-after").is_some());
    assert_eq!(ask(&mut gateway.client(), "/", "").status, 401);
    let event = gateway.log_event("no keys", |event| event["level"] == "ERROR");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("the answer is 503") && message.contains("nobody with a token is let in"), "{message}");
    server.answers("200 OK", &old.set());
    assert!(look_until(|| (status(&old) == 200).then_some(())).is_some(), "the keys have come");
    assert_eq!(status(&new), 401);
    // They change: at the latest when their time has come.
    server.answers("200 OK", &new.set());
    assert!(look_until(|| (status(&new) == 200).then_some(())).is_some(), "the new keys have come");
    assert_eq!(status(&old), 401);
    let asked = server.asked();
    server.answers("200 OK", "<html>maintenance</html>");
    assert!(look_until(|| (server.asked() > asked).then_some(())).is_some());
    gateway.log_event("bad keys", |event| {
        event["message"].as_str().is_some_and(|message| message.contains("those from before stay in force"))
    });
    assert_eq!(status(&new), 200);
    gateway.wait_metric("hostler_auth_sources_failing", 1.0);
    // A reload keeps them, with nobody there to fetch them from.
    gateway.reload(&config.replace("workers: 2", "workers: 3"));
    assert_eq!(status(&new), 200);
}

#[test]
fn keys_from_whoever_is_not_trusted_are_none() {
    let (ca, issuer) = (Ca::new(), Issuer::new("1"));
    let server = KeyServer::start(&ca);
    server.answers("200 OK", &issuer.set());
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let other = Ca::new();
    let gateway = Gateway::start_with(&config(&worker.endpoint(), &jwt(&server.url(), "")), |command| {
        command.env("SSL_CERT_FILE", other.file());
    });
    let event = gateway.log_event("no keys", |event| event["level"] == "ERROR");
    assert!(event["message"].as_str().unwrap().contains("the TLS handshake failed"), "{event}");
    assert_eq!(ask(&mut gateway.client(), "/", &issuer.bearer()).status, 503);
}

#[test]
fn clients_come_from_where_they_may() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(&format!(
        "listeners:\n  - bind: 127.0.0.1:0\n  - bind: unix:@folder@/edge.sock\n\
         \x20 - {{ bind: \"127.0.0.2:0\", proxy_protocol: true }}\ntrusted_proxies: [127.0.0.6/31]\n{}",
        config(&worker.endpoint(), "{ allow: [127.0.0.8/32, 127.0.0.6/32, 203.0.113.0/24] }")
    ));
    for (from, fields, expected) in [
        ([127, 0, 0, 8], "", 200),
        ([127, 0, 0, 9], "", 403),
        // A proxy that nobody has named is not its clients.
        ([127, 0, 0, 8], "X-Forwarded-For: 198.51.100.5\r\n", 403),
        ([127, 0, 0, 8], "X-Real-IP: 198.51.100.5\r\n", 403),
        ([127, 0, 0, 9], "X-Forwarded-For: 203.0.113.5\r\n", 403),
        ([127, 0, 0, 7], "X-Forwarded-For: 203.0.113.5\r\n", 200),
        ([127, 0, 0, 7], "X-Forwarded-For: 198.51.100.5\r\n", 403),
        ([127, 0, 0, 7], "", 403),
        ([127, 0, 0, 6], "", 200),
        ([127, 0, 0, 6], "X-Forwarded-For: 198.51.100.5\r\nForwarded: for=203.0.113.5\r\n", 403),
        ([127, 0, 0, 6], "X-Forwarded-For: unknown\r\n", 403),
        ([127, 0, 0, 6], "Forwarded: for=_hidden\r\n", 403),
    ] {
        let response = ask(&mut Client::connect_from(from, gateway.address()), "/", fields);
        assert_eq!(response.status, expected, "{from:?} {fields}");
        if expected == 403 {
            assert_eq!(gateway.access_of(&response)["reason"], "forbidden");
        }
    }
    let unix = gateway.listener(&format!("unix:{}/edge.sock", gateway.folder().display())).clone();
    assert_eq!(ask(&mut Client::connect(&unix), "/", "").status, 403);
    // A balancer that may come in itself passes on the bytes of others: those it cannot name are not let in as if they were it.
    let over_unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8"[..], &[0; 216]].concat();
    for (preamble, expected) in [
        (&b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"[..], 200),
        (b"PROXY TCP4 203.0.113.5 198.51.100.80 1 80\r\n", 200),
        (b"PROXY TCP4 198.51.100.5 198.51.100.80 1 80\r\n", 403),
        (b"PROXY UNKNOWN\r\n", 403),
        (b"PROXY UNKNOWN 203.0.113.5 198.51.100.80 1 80\r\n", 403),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00", 403),
        (&over_unix, 403),
    ] {
        let mut balancer = Client::connect_from([127, 0, 0, 6], gateway.listener("127.0.0.2:0"));
        balancer.send(preamble);
        let response = ask(&mut balancer, "/", "");
        assert_eq!(response.status, expected, "{preamble:?}");
    }
}

#[test]
fn no_password_and_no_token_gets_into_a_log() {
    let (files, issuer) = (Files::with_ann(), Issuer::new("1"));
    files.write("jwks.json", &issuer.set());
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let auth = format!(
        "{{ basic: {{ users: \"{}\" }}, jwt: {{ jwks: \"{}\", issuer: https://login.example, audience: shop, \
         algorithms: [EdDSA], from: 'cookie:t', claims: {{ sub: X-User }} }} }}",
        files.path("users").display(),
        files.path("jwks.json").display()
    );
    let logging = "logging: { level: debug, format: json, access: { to: stdout } }\n";
    let gateway = Gateway::start(&(config(&worker.endpoint(), &auth) + logging));
    let (good, bad) = (issuer.token(600, r#""sub":"ann""#), Issuer::new("1").token(600, r#""sub":"ann""#));
    let right = password("ann", "secret");
    for (fields, expected) in [
        (format!("{right}Cookie: t={good}\r\n"), 200),
        (format!("{right}Cookie: t={bad}\r\n"), 401),
        (right.clone(), 401),
        (format!("Cookie: t={good}\r\n"), 401),
        (format!("{}Cookie: t={good}\r\n", password("ann", "hunter2")), 401),
        (format!("{}Cookie: t={good}\r\n", password("ann", "hunter2\n")), 401),
    ] {
        assert_eq!(ask(&mut gateway.client(), "/", &fields).status, expected, "{fields}");
    }
    let ended = gateway.stop();
    let all = ended.log.join("\n") + &ended.access.iter().map(Value::to_string).collect::<String>();
    assert!(all.contains("a wrong password"), "{all}");
    let in_base64 = |text: &str| BASE64_STANDARD.encode(text);
    let (_, signature) = good.rsplit_once('.').unwrap();
    for secret in ["hunter2", &in_base64("ann:secret"), &in_base64("ann:hunter2"), &good, signature, "$2y$"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}
