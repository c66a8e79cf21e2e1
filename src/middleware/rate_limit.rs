//! How often the same client may ask: `routes[].rate_limit`. Whoever asks more often gets 429 with Retry-After.
//!
//! Above whatever costs something: who is refused is not asked for a password, and no body of his is received. A client is an
//! IPv4 address or an IPv6 /64, or whoever brings the same field or cookie. A trusted proxy that names nobody speaks for many,
//! and is let pass; so is who has no address.
//!
//! Every answer of the route tells where its client stands, in `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10): the burst and the time in which it comes back, how many more may be sent at
//! once, and in how long all of it is back, or, of a refusal, the next one. A dry run counts, tells the operator, and changes
//! no answer.

mod gcra;
mod table;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use prometheus::IntCounter;

use self::gcra::{Gcra, Verdict};
use self::table::Table;
use crate::config::{self, KeyBy};
use crate::error::{Error, Reason};
use crate::http::{Exchange, Key, Request, Response, RouteLabel, Sender, Service, key, network};
use crate::observe::throttle::Throttle;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Adds [`RateLimited`].
#[derive(Clone)]
pub struct RateLimitLayer(Option<Arc<RateLimit>>);

/// Refuses whoever asks too often.
pub struct RateLimited<S> {
    inner: S,
    limit: Option<Arc<RateLimit>>,
}

impl RateLimitLayer {
    /// The layer of a route with this limit, or with none.
    #[must_use]
    pub fn new(limit: Option<Arc<RateLimit>>) -> Self {
        Self(limit)
    }
}

impl<S> tower::Layer<S> for RateLimitLayer {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { inner, limit: self.0.clone() }
    }
}

impl<S: Service<Error = Error>> Service for RateLimited<S> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        if let Some(limit) = &self.limit {
            limit.admit(&request)?;
        }
        self.inner.call(request).await
    }
}

/// The limit of one route, of all threads together.
pub struct RateLimit {
    by: KeyBy,
    rule: Gcra,
    is_dry_run: bool,
    table: Arc<Table>,
    /// The value of `RateLimit-Policy`.
    policy: HeaderValue,
    label: Arc<RouteLabel>,
    /// Of the requests that were, or in a dry run would have been, refused.
    limited: IntCounter,
    throttle: Throttle,
}

/// Who asks.
#[derive(Hash)]
enum Who<'a> {
    /// By [`network`].
    Client(u64),
    Value(&'a [u8]),
}

impl RateLimit {
    /// The limit of one route. Who has taken how much is known from `previous`, if that went by the same.
    #[must_use]
    pub fn compile(
        config: &config::RateLimit,
        label: Arc<RouteLabel>,
        limited: IntCounter,
        previous: Option<&Self>,
    ) -> Arc<Self> {
        let known = previous.filter(|previous| previous.by == config.by).map(|previous| Arc::clone(&previous.table));
        let rule = Gcra::new(config.rate, config.burst);
        let policy = format!("\"default\";q={};w={}", config.burst, seconds(rule.span()));
        Arc::new(Self {
            by: config.by.clone(),
            rule,
            is_dry_run: config.dry_run,
            table: known.unwrap_or_else(|| Arc::new(Table::new())),
            policy: HeaderValue::from_maybe_shared(policy).unwrap_or(HeaderValue::from_static("\"default\"")),
            label,
            limited,
            throttle: Throttle::new(),
        })
    }

    fn admit(&self, request: &Request) -> Result<(), Error> {
        let exchange = &request.exchange;
        let Some(who) = self.who(request) else { return Ok(()) };
        let verdict = self.table.take(who, &self.rule, exchange.now());
        if matches!(verdict, Verdict::Refused { .. }) {
            self.limited.inc();
        }
        if self.is_dry_run {
            self.tell(verdict, exchange);
            return Ok(());
        }
        let (remaining, until) = match verdict {
            Verdict::Granted { remaining, full_in } => (remaining, seconds(full_in)),
            Verdict::Refused { retry_in } => (0, seconds(retry_in)),
        };
        exchange.answer_fields.set(POLICY.clone(), self.policy.clone());
        if let Ok(state) = HeaderValue::from_maybe_shared(format!("\"default\";r={remaining};t={until}")) {
            exchange.answer_fields.set(STATE.clone(), state);
        }
        match verdict {
            Verdict::Granted { .. } => Ok(()),
            Verdict::Refused { .. } => Err(Error::new(Reason::RateLimited).retry_after(until)),
        }
    }

    /// Whose request it is; `None`: of somebody who is not held to a limit.
    fn who<'a>(&self, request: &'a Request) -> Option<Who<'a>> {
        let of_client = || client(&request.exchange).map(Who::Client);
        match key(&self.by, request) {
            Some(Key::Value(value)) => Some(Who::Value(value)),
            Some(Key::Client(_)) | None => of_client(),
        }
    }

    /// What a dry run would have done.
    fn tell(&self, verdict: Verdict, exchange: &Exchange) {
        if let Verdict::Refused { .. } = verdict
            && let Some(left_out) = self.throttle.pass()
        {
            let client = exchange.client.get().map_or_else(|| "unix".to_owned(), |client| client.to_string());
            tracing::info!(
                site = %self.label.site,
                route = %self.label.route,
                client,
                left_out,
                "rate_limit: this request would be refused, were it not for dry_run"
            );
        }
    }
}

/// The client by its [`network`], unless it speaks for others.
fn client(exchange: &Exchange) -> Option<u64> {
    let address = exchange.client.get()?;
    let connection = &exchange.connection;
    // One whose fields contradict each other, as a client behind it can make them, does not get away with it: all of these
    // share the proxy's own place.
    let speaks_for_others = exchange.claims.get().is_some_and(|claims| !claims.is_contradictory);
    let is_proxy = speaks_for_others && connection.source().is_some_and(|s| s.ip().to_canonical() == address);
    (!is_proxy && connection.sender != Sender::Hidden).then(|| network(address))
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use tokio::time::advance;
    use tower::Layer as _;

    use super::*;
    use crate::http::forwarded::Claims;
    use crate::http::{Body, ConnectionInfo, Protocol, Target};

    /// Answers everything.
    struct Bottom;

    impl Service for Bottom {
        type Error = Error;

        async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
            Ok(Response::new(Body::Empty))
        }
    }

    fn compile(keys: &str, previous: Option<&RateLimit>) -> Arc<RateLimit> {
        let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, rate_limit: {{ {keys} }} }}] }}]");
        let config = config::load_str(&text, "f", std::path::Path::new("/"), &|_| None).unwrap().config;
        let limited = IntCounter::new("limited", "for the test").unwrap();
        let label = Arc::new(RouteLabel { index: 1, site: "any".into(), route: "/".into() });
        RateLimit::compile(config.sites[0].routes[0].rate_limit.as_ref().unwrap(), label, limited, previous)
    }

    fn request(client: Option<&str>, fields: &[(&'static str, &'static str)]) -> Box<Request> {
        request_over(connection(client), fields)
    }

    fn connection(client: Option<&str>) -> ConnectionInfo {
        ConnectionInfo::new("80").between(client.map(|client| client.parse().unwrap()), None)
    }

    fn request_over(connection: ConnectionInfo, fields: &[(&'static str, &'static str)]) -> Box<Request> {
        let exchange = Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), None, None);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let (method, target, exchange) = (Method::GET, Target::from_static("/"), Rc::new(exchange));
        Box::new(Request { method, target, headers, body: Body::Empty, exchange, refused: None })
    }

    /// What becomes of it, with `RateLimit` and, of a refusal, Retry-After.
    async fn ask(limit: &Arc<RateLimit>, request: Box<Request>) -> (Option<u32>, String) {
        let exchange = Rc::clone(&request.exchange);
        let result = RateLimitLayer::new(Some(Arc::clone(limit))).layer(Bottom).call(request).await;
        let mut fields = HeaderMap::new();
        exchange.answer_fields.apply(&mut fields);
        let state = fields.get(&STATE).map_or("", |value| value.to_str().unwrap()).to_owned();
        assert_eq!(fields.contains_key(&POLICY), !state.is_empty());
        let refused = result.err().map(|error| {
            assert_eq!(error.reason, Reason::RateLimited);
            error.retry_after.unwrap()
        });
        (refused, state)
    }

    async fn is_let_in(limit: &Arc<RateLimit>, request: Box<Request>) -> bool {
        ask(limit, request).await.0.is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_where_it_stands_and_let_in_again_when_it_was_told() {
        let limit = compile("rate: 10/m, burst: 2", None);
        assert_eq!(limit.policy, "\"default\";q=2;w=12");
        let one = || request(Some("192.0.2.1:1"), &[]);
        assert_eq!(ask(&limit, one()).await, (None, "\"default\";r=1;t=6".into()));
        assert_eq!(ask(&limit, one()).await, (None, "\"default\";r=0;t=12".into()));
        assert_eq!(ask(&limit, one()).await, (Some(6), "\"default\";r=0;t=6".into()));
        advance(Duration::from_millis(5_900)).await;
        assert_eq!(ask(&limit, one()).await, (Some(1), "\"default\";r=0;t=1".into()));
        advance(Duration::from_millis(100)).await;
        assert_eq!(ask(&limit, one()).await, (None, "\"default\";r=0;t=12".into()));
        assert!(is_let_in(&limit, request(Some("192.0.2.2:1"), &[])).await, "another client");
        assert_eq!(limit.limited.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_burst_as_many_may_come_at_once_as_the_rate_counts() {
        let limit = compile("rate: 5/h", None);
        for _ in 0..5 {
            assert!(is_let_in(&limit, request(Some("192.0.2.1:1"), &[])).await);
        }
        assert!(!is_let_in(&limit, request(Some("192.0.2.1:1"), &[])).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_client_is_its_64() {
        let limit = compile("rate: 1/h", None);
        assert!(is_let_in(&limit, request(Some("[2001:db8::1]:1"), &[])).await);
        assert!(!is_let_in(&limit, request(Some("[2001:db8::ffff]:1"), &[])).await);
        assert!(is_let_in(&limit, request(Some("[2001:db8:0:1::1]:1"), &[])).await);
        assert!(is_let_in(&limit, request(Some("192.0.2.1:1"), &[])).await);
        assert!(!is_let_in(&limit, request(Some("[::ffff:192.0.2.1]:1"), &[])).await, "as a listener of both sees it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_for_many_or_has_no_address_is_not_held_to_it() {
        let limit = compile("rate: 1/h", None);
        for _ in 0..3 {
            assert!(is_let_in(&limit, request(None, &[])).await, "a unix socket");
            let of_proxy = request(Some("10.0.0.1:1"), &[]);
            of_proxy.exchange.claims.set(Claims::default()).unwrap();
            assert!(is_let_in(&limit, of_proxy).await, "a trusted proxy that names nobody");
            let of_hidden = request_over(connection(Some("10.0.0.1:1")).sent_by(Sender::Hidden), &[]);
            assert!(is_let_in(&limit, of_hidden).await, "somebody whom a balancer cannot name: its address is not his");
        }
        let named = || {
            let request = request(Some("10.0.0.1:1"), &[]);
            request.exchange.claims.set(Claims::default()).unwrap();
            request.exchange.client.set("192.0.2.1".parse().ok());
            request
        };
        assert!(is_let_in(&limit, named()).await);
        assert!(!is_let_in(&limit, named()).await, "whom it names is held to it");
        let contradictory = || {
            let request = request(Some("10.0.0.1:1"), &[]);
            request.exchange.claims.set(Claims { is_contradictory: true, ..Claims::default() }).unwrap();
            request
        };
        assert!(is_let_in(&limit, contradictory()).await);
        assert!(!is_let_in(&limit, contradictory()).await, "a client can make its proxy contradict itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_field_or_a_cookie_tells_apart_who_has_it_and_the_address_who_has_not() {
        for (by, ann, bob) in [
            ("header:X-Key", ("x-key", "ann"), ("x-key", "bob")),
            ("cookie:id", ("cookie", "a=1; id=ann"), ("cookie", "id=bob")),
        ] {
            let limit = compile(&format!("rate: 1/h, by: '{by}'"), None);
            assert!(is_let_in(&limit, request(Some("192.0.2.1:1"), &[ann])).await);
            assert!(!is_let_in(&limit, request(Some("192.0.2.9:1"), &[ann])).await, "{by}: from wherever it comes");
            assert!(is_let_in(&limit, request(Some("192.0.2.1:1"), &[bob])).await);
            assert!(is_let_in(&limit, request(Some("192.0.2.1:1"), &[])).await);
            assert!(
                !is_let_in(&limit, request(Some("192.0.2.1:1"), &[])).await,
                "{by}: leaving it out is no way around"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dry_run_counts_and_changes_nothing() {
        let limit = compile("rate: 1/h, dry_run: true", None);
        for _ in 0..4 {
            assert_eq!(ask(&limit, request(Some("192.0.2.1:1"), &[])).await, (None, String::new()));
        }
        assert_eq!(limit.limited.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_is_known_after_a_reload_and_the_new_rule_holds() {
        let one = || request(Some("192.0.2.1:1"), &[]);
        let before = compile("rate: 1/h", None);
        assert!(is_let_in(&before, one()).await && !is_let_in(&before, one()).await);
        let same = compile("rate: 1/h", Some(&before));
        assert!(!is_let_in(&same, one()).await);
        let faster = compile("rate: 10/s, burst: 1", Some(&same));
        assert_eq!(ask(&faster, one()).await.0, Some(1), "the bucket is empty, and nobody waits for an hour");
        advance(Duration::from_millis(100)).await;
        assert!(is_let_in(&faster, one()).await);
        let other = compile("rate: 10/s, burst: 1, by: 'header:X-Key'", Some(&faster));
        assert!(is_let_in(&other, one()).await, "what goes by something else begins anew");
    }
}
