//! A gateway that keeps what an app on sync workers of gunicorn answers: `tests/python/cache_app.py`, which answers as the
//! request tells it to, or another.

use std::fmt::Write as _;

use serde_json::Value;

use super::gunicorn::{Kind, Plan};
use super::h2::request;
use super::worker::Transport;
use super::{Client, Gateway, Gunicorn, H2, Response};

/// As many as the machine has.
pub(crate) const WORKERS: u32 = 4;
/// What nearly all answers say.
pub(crate) const FRESH: &str = "Cache-Control: max-age=3600";

/// The app, and the gateway before it.
pub(crate) struct Cached {
    pub(crate) gateway: Gateway,
    pub(crate) gunicorn: Gunicorn,
}

/// A configuration in which everything goes to one app, and which has a cache.
#[derive(Clone)]
pub(crate) struct Setup<'a> {
    /// The value of the route's `cache`.
    pub(crate) cache: &'a str,
    /// More keys of the route, each behind a comma.
    pub(crate) route: &'a str,
    /// More keys of the upstream, each behind a comma.
    pub(crate) upstream: &'a str,
    /// More sections, in lines. The section `cache` is there if it is not among them.
    pub(crate) more: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { cache: "true", route: "", upstream: "", more: "" }
    }
}

impl Setup<'_> {
    pub(crate) fn config(&self, gunicorn: &Gunicorn) -> String {
        let Self { cache, route, upstream, more } = self;
        let of_all = if more.contains("cache:") { "" } else { "cache: { memory: 64MiB, purge: [127.0.0.1/32] }\n" };
        format!(
            "{of_all}{more}upstreams:\n  app: {{ endpoints: [\"{}\"], workers: {WORKERS}{upstream} }}\n\
             sites:\n  - routes: [{{ path: /, proxy: app, cache: {cache}{route} }}]\n",
            gunicorn.endpoint()
        )
    }

    /// Starts the app that answers as it is told, and the gateway.
    pub(crate) fn start(&self) -> Cached {
        self.start_before(app("cache_app").start())
    }

    /// Starts the gateway before this one.
    pub(crate) fn start_before(&self, gunicorn: Gunicorn) -> Cached {
        Cached { gateway: Gateway::start(&self.config(&gunicorn)), gunicorn }
    }
}

/// Sync workers that serve a module of `tests/python`.
pub(crate) fn app(module: &'static str) -> Plan {
    Plan::new(Kind::Sync, WORKERS, Transport::Unix).serving(module)
}

impl Cached {
    /// With this as the route's `cache`.
    pub(crate) fn start(cache: &str) -> Self {
        Setup { cache, ..Setup::default() }.start()
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.ask("GET", target, &[])
    }

    /// On a connection of its own, with these lines beside `Host: shop.example`, unless one of them is another.
    pub(crate) fn ask(&self, method: &str, target: &str, lines: &[&str]) -> Response {
        self.gateway.client().ask(method, target, lines)
    }

    /// The same over HTTP/2.
    pub(crate) fn ask_h2(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        self.gateway.h2().ask(method, target, fields)
    }

    /// How often the app has run a request of this name.
    pub(crate) fn runs(&self, id: &str) -> usize {
        self.gunicorn.journal().times_run().get(id).copied().unwrap_or(0)
    }

    /// Waits until the app has begun a request of this name so often.
    pub(crate) fn wait_runs(&self, id: &str, count: usize) {
        let found = super::look_until(|| (self.runs(id) >= count).then_some(()));
        assert!(found.is_some(), "{id}: {} runs, not {count}", self.runs(id));
    }

    /// Opens a gate of the app's.
    pub(crate) fn open(&self, gate: &str) {
        std::fs::write(self.gunicorn.counter().with_file_name(format!("gate-{gate}")), "").unwrap();
    }

    /// `POST /purge` on the admin listener, with this form: `tag=news&soft=1`. Its answer.
    pub(crate) fn purge(&self, form: &str) -> Response {
        let mut client = Client::connect(self.gateway.admin());
        client.send(format!(
            "POST /purge HTTP/1.1\r\nHost: localhost\r\nX-Hostler-Control: 1\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            form.len()
        ));
        client.response("POST")
    }

    /// The same, which strikes so many.
    pub(crate) fn purged(&self, form: &str, count: u64) {
        let answer = self.purge(form);
        let told: Value = serde_json::from_str(answer.text()).unwrap_or_default();
        assert_eq!((answer.status, &told["purged"]), (200, &count.into()), "{form}: {answer:?}");
    }

    /// Makes the one page that has this tag stale.
    pub(crate) fn make_stale(&self, tag: &str) {
        self.purged(&format!("tag={tag}&soft=1"), 1);
    }

    /// Waits until so many answers are kept in memory: of whoever was content with a part, or with less, the rest comes later.
    pub(crate) fn wait_kept(&self, count: u32) {
        self.gateway.wait_metric("hostler_cache_objects{where=\"memory\"}", count.into());
    }

    /// How often the route's cache has come to this verdict.
    pub(crate) fn verdicts(&self, verdict: &str) -> f64 {
        self.gateway.metric(&verdicts_of(verdict))
    }

    /// Waits until it has come to it so often.
    pub(crate) fn wait_verdicts(&self, verdict: &str, wanted: f64) {
        self.gateway.wait_metric(&verdicts_of(verdict), wanted);
    }
}

fn verdicts_of(verdict: &str) -> String {
    format!("hostler_cache_requests_total{{route=\"/\",verdict=\"{verdict}\"}}")
}

/// A request that the app is told how to answer: `id`, and more of its query as pairs.
pub(crate) fn told(id: &str, more: &[(&str, &str)]) -> String {
    let mut target = format!("/told?id={id}");
    for (name, value) in more {
        let _ = write!(target, "&{name}={}", encoded(value));
    }
    target
}

/// The same for an answer with these fields.
pub(crate) fn with(id: &str, fields: &[&str]) -> String {
    told(id, &fields.iter().map(|field| ("f", *field)).collect::<Vec<_>>())
}

/// As it has to be in a query, or in a form.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.,".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What the app has seen of the request that it answered so.
pub(crate) fn seen(response: &Response) -> Value {
    serde_json::from_str(response.text()).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// Which run of the app has made it.
pub(crate) fn run_of(response: &Response) -> u64 {
    assert_eq!((response.status, response.cut.as_deref()), (200, None), "{response:?}");
    seen(response)["run"].as_u64().unwrap()
}

/// The edge's member of `Cache-Status`.
pub(crate) fn cache_status(response: &Response) -> &str {
    response.header("cache-status").unwrap_or_else(|| panic!("no Cache-Status: {response:?}"))
}

/// Whether it was answered from the cache, without the app.
pub(crate) fn is_hit(response: &Response) -> bool {
    response.header("cache-status").is_some_and(|status| status.starts_with("hostler; hit"))
}

/// Whether it was stored.
pub(crate) fn is_stored(response: &Response) -> bool {
    response.header("cache-status").is_some_and(|status| status.contains("; stored"))
}

/// Whoever can ask for something.
pub(crate) trait Asks<Field> {
    fn ask(&mut self, method: &str, target: &str, fields: &[Field]) -> Response;
}

impl Asks<&str> for Client {
    fn ask(&mut self, method: &str, target: &str, lines: &[&str]) -> Response {
        self.send(bytes(method, target, lines));
        self.response(method)
    }
}

impl Asks<(&str, &str)> for H2 {
    fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        self.send(request(method, target, fields), b"")
    }
}

/// A request without a body, as it is sent over HTTP/1.1.
pub(crate) fn bytes(method: &str, target: &str, lines: &[&str]) -> String {
    let has_host = lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let host = if has_host { "" } else { "Host: shop.example\r\n" };
    let lines = lines.iter().fold(String::new(), |all, line| all + line + "\r\n");
    format!("{method} {target} HTTP/1.1\r\n{host}{lines}\r\n")
}
