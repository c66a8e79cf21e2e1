//! Every row of `requests.txt` before real gunicorn and uWSGI, with an app that counts what it gets and shows it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::requests::{client, config};
use super::strict::{Message, OWN};
use super::table::{self, Deed, Request};
use crate::support::client::get;
use crate::support::lines::Lines;
use crate::support::shop::python;
use crate::support::{Gateway, Response, look_until};

/// A server with one worker and `tests/python/mirror.py`. Ends when it is dropped.
struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    fn gunicorn() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bind = format!("unix:{}", folder.path().join("http.sock").display());
        let arguments = ["-m", "gunicorn", "mirror", "--no-control-socket", "--workers", "1", "--bind", &bind];
        Self::run(&arguments, folder, "Booting worker with pid")
    }

    /// Its two protocols, with one worker for both.
    fn uwsgi() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = |name: &str| folder.path().join(name).display().to_string();
        let (uwsgi, http) = (socket("uwsgi.sock"), socket("http.sock"));
        let run = ["-c", "import pyuwsgi; pyuwsgi.run()", "--master", "--processes", "1", "--module", "mirror"];
        let arguments = [&run[..], &["--socket", &uwsgi, "--http-socket", &http]].concat();
        Self::run(&arguments, folder, "spawned uWSGI worker 1")
    }

    fn run(arguments: &[&str], folder: TempDir, is_up: &str) -> Self {
        let mut command = Command::new(python());
        command.args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let found = log.find(|line| line.contains(is_up).then_some(()));
        assert!(found.is_some(), "it does not start:\n{}", log.all().join("\n"));
        Self { child, folder }
    }

    fn endpoint(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}unix:{}", self.folder.path().join(name).display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The quick shutdown of both takes the worker with it. Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        if look_until(|| self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A gateway before one of them.
struct Stage {
    gateway: Gateway,
    /// As the table calls it.
    server: &'static str,
    /// Requests that the app has had.
    count: u64,
}

impl Stage {
    fn new(server: &'static str, endpoint: &str) -> Self {
        Self { gateway: Gateway::start(&config(endpoint)), server, count: 0 }
    }

    fn row(&mut self, row: &Request, scheme: &str) {
        let what = format!("{} over {scheme} to {}", row.name, self.server);
        let answer = row.answers.iter().find(|(name, _)| name == self.server).map(|(_, status)| *status);
        let mut client = client(&self.gateway, scheme);
        client.send(&row.bytes);
        for deed in &row.deeds {
            let response = client.try_response("GET").unwrap_or_else(|| panic!("{what}: no answer"));
            match (deed, answer) {
                (Deed::Refused { status, reason, .. }, _) => {
                    assert_eq!((response.status, response.text().contains(&reason[..])), (*status, true), "{what}");
                }
                (Deed::Forwarded { .. }, Some(status)) => assert_eq!(response.status, status, "{what}: {response:?}"),
                (Deed::Forwarded { before, after }, None) => {
                    assert_eq!(response.status, 200, "{what}: {response:?}");
                    let wanted = Message::read(&[&before[..], after].concat()).unwrap();
                    self.check_view(&what, &response, &wanted, scheme);
                }
            }
        }
    }

    /// The app has had one request more, and it is the one that was sent.
    fn check_view(&mut self, what: &str, response: &Response, wanted: &Message, scheme: &str) {
        let seen: Value = serde_json::from_str(response.text()).unwrap();
        self.count += 1;
        assert_eq!(seen["count"], self.count, "{what}: a request that nobody sent");
        let environ = &seen["environ"];
        let plain = |name: &str| environ[name].as_str().unwrap_or_default().to_owned();
        let (path, query) = wanted.target.split_once('?').unwrap_or((&wanted.target, ""));
        assert_eq!(plain("REQUEST_METHOD"), wanted.method, "{what}");
        assert_eq!((plain("PATH_INFO"), plain("QUERY_STRING")), (decoded(path), query.to_owned()), "{what}");
        assert_eq!((plain("SCRIPT_NAME"), plain("wsgi.url_scheme")), (String::new(), scheme.to_owned()), "{what}");
        assert_eq!(seen["body"], latin_1(&wanted.body), "{what}");
        assert_eq!(plain("HTTP_X_FORWARDED_FOR"), "127.0.0.1", "{what}");
        assert_eq!(variables(environ), expected(wanted), "{what}");
    }

    fn check_end(mut self) {
        let mut client = client(&self.gateway, "http");
        client.send(get("/last"));
        let seen: Value = serde_json::from_str(client.response("GET").text()).unwrap();
        self.count += 1;
        assert_eq!(seen["count"], self.count, "{}: a request that nobody sent came late", self.server);
    }
}

/// `HTTP_*` as the app has them, but for those that the edge adds.
fn variables(environ: &Value) -> BTreeMap<String, String> {
    let own: Vec<String> = OWN.iter().map(|name| variable(name)).collect();
    let all = environ.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("HTTP_") && !own.contains(name));
    // Some join with a comma, some with a comma and a space.
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap().replace(", ", ","))).collect()
}

fn expected(wanted: &Message) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let has_none = ["content-length", "content-type"];
    for (name, value) in wanted.fields.iter().filter(|(name, _)| !has_none.contains(&&name[..])) {
        let value = latin_1(value).replace(", ", ",");
        all.entry(variable(name)).and_modify(|before| *before = format!("{before},{value}")).or_insert(value);
    }
    all
}

fn variable(name: &str) -> String {
    format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// One character a byte, as WSGI has its strings.
fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn decoded(path: &str) -> String {
    let mut bytes = path.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| char::from(byte.unwrap()).to_digit(16).unwrap() as u8;
        out.push(if byte == b'%' { hex(bytes.next()) << 4 | hex(bytes.next()) } else { byte });
    }
    latin_1(&out)
}

fn run(mut stage: Stage) {
    let rows = table::requests();
    for scheme in ["http", "https"] {
        for row in &rows {
            stage.row(row, scheme);
        }
    }
    stage.check_end();
}

#[test]
fn gunicorn_runs_the_app_once_for_each_request_that_is_sent_on() {
    let server = Server::gunicorn();
    run(Stage::new("gunicorn", &server.endpoint("", "http.sock")));
}

#[test]
fn uwsgi_runs_the_app_once_for_each_request_that_is_sent_on() {
    let server = Server::uwsgi();
    run(Stage::new("uwsgi", &server.endpoint("uwsgi+", "uwsgi.sock")));
}

#[test]
fn uwsgi_over_http_runs_the_app_once_for_each_request_that_is_sent_on() {
    let server = Server::uwsgi();
    run(Stage::new("uwsgi-http", &server.endpoint("", "http.sock")));
}
