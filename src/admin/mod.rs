//! The operator's listener: `/metrics`, `/live`, `/ready`. Served by the control thread, so that it answers whatever
//! the threads that serve are busy with.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::config;
use crate::edge::listener::Listening;
use crate::http::{Body, ConnectionInfo, Request, Response, Service};
use crate::http1::head::HeadLimits;
use crate::http1::server::{self, Entry, Limits};
use crate::observe::metrics::Metrics;
use crate::runtime::buffers::Buffer;
use crate::runtime::{Socket, Stream};
use crate::upstream::spool::Budget;

const LIMITS: Limits = Limits {
    head: HeadLimits { size: 16 << 10, count: 100 },
    header_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    stall_timeout: Duration::from_secs(30),
};

/// What the operator's listener can tell.
#[derive(Clone)]
pub struct Admin {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Read when metrics are.
    pub budget: Arc<Budget>,
    /// Brings the gauges of upstreams up to date: called when metrics are read.
    pub report: Rc<dyn Fn()>,
    /// Whether new requests are welcome; no longer from the first SIGTERM on.
    pub ready: Arc<AtomicBool>,
    /// What every request must bring as `Authorization: Bearer` (RFC 6750, 2.1); `None`: nothing.
    pub token: Option<Arc<str>>,
}

/// Accepts on the operator's socket for ever.
pub async fn listen(socket: Listening, admin: Admin) {
    let admin = Rc::new(admin);
    let info = Rc::new(ConnectionInfo {
        listener: Arc::from("admin"),
        peer: None,
        local: None,
        tls: false,
        redirect_https: None,
    });
    let acceptor = match socket.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!("the admin listener cannot be served: {error}");
            return;
        }
    };
    loop {
        match acceptor.accept().await {
            Ok(socket) => {
                let (admin, info) = (Rc::clone(&admin), Rc::clone(&info));
                tokio::task::spawn_local(async move { serve(socket, info, admin).await });
            }
            Err(error) => {
                tracing::warn!("the admin listener cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve(socket: Socket, info: Rc<ConnectionInfo>, admin: Rc<Admin>) {
    server::serve(Stream::Plain(socket), Buffer::take(), info, LIMITS, &Door(admin)).await;
}

struct Door(Rc<Admin>);

impl Entry for Door {
    type Stack = Admin;

    fn current(&self) -> Rc<Admin> {
        Rc::clone(&self.0)
    }
}

impl Service for Admin {
    type Error = Infallible;

    async fn call(&self, request: Request) -> Result<Response, Infallible> {
        if let Some(error) = request.refused {
            return Ok(text(StatusCode::BAD_REQUEST, format!("{}\n", error.reason)));
        }
        if self.token.as_ref().is_some_and(|token| !brings(&request.headers, token)) {
            let mut response = text(StatusCode::UNAUTHORIZED, "write `Authorization: Bearer` and admin.token\n".into());
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Ok(response);
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        Ok(match request.target.path() {
            b"/metrics" => self.metrics(),
            b"/live" => text(StatusCode::OK, "live\n".into()),
            b"/ready" if self.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ready\n".into()),
            b"/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into()),
            _ => text(StatusCode::NOT_FOUND, "here are /metrics, /live and /ready\n".into()),
        })
    }
}

impl Admin {
    fn metrics(&self) -> Response {
        (self.report)();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.spool_memory.set(gauge(self.budget.memory_used()));
        self.metrics.spool_disk.set(gauge(self.budget.disk_used()));
        let mut response = text(StatusCode::OK, self.metrics.render());
        let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}

/// Whether the one `Authorization` field holds the token. The time it takes does not tell how much of it was right.
fn brings(headers: &HeaderMap, token: &str) -> bool {
    const SCHEME: &[u8] = b"bearer ";
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, brought)) = field.split_at_checked(SCHEME.len()) else { return false };
    let differences = brought.iter().zip(token.as_bytes()).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    scheme.eq_ignore_ascii_case(SCHEME) && brought.len() == token.len() && differences == 0
}

fn text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::Full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Opens the operator's socket.
///
/// # Errors
/// Why it cannot be listened on.
pub fn bind(admin: &config::Admin) -> Result<(Listening, String), crate::edge::listener::BindError> {
    let (mut sockets, address) = crate::edge::listener::bind(&admin.bind, 1)?;
    let socket = sockets.pop().ok_or_else(|| crate::edge::listener::BindError {
        address: address.clone(),
        message: "no socket was opened".into(),
    })?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        const TOKEN: &str = "0123456789abcdef";
        let brings = |fields: &[&str]| {
            let name = || header::AUTHORIZATION;
            let fields = fields.iter().filter_map(|field| Some((name(), HeaderValue::from_str(field).ok()?)));
            super::brings(&fields.collect(), TOKEN)
        };
        assert!(brings(&["Bearer 0123456789abcdef"]));
        assert!(brings(&["bearer 0123456789abcdef"]));
        for fields in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdee"],
            &["Bearer 0123456789abcdeff"],
            &["Basic  0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            assert!(!brings(fields), "{fields:?}");
        }
    }
}
