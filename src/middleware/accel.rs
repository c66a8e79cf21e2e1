//! What the app has told the edge about its answer is done: `X-Accel-Redirect` and `X-Sendfile` are followed (`internal`,
//! `sendfile`), `X-Accel-Limit-Rate` and `X-Accel-Charset` obeyed.
//!
//! Just above the action: the upstream has read the fields ([`Told`]), and has let the worker go where the answer is handed
//! over. What comes of it passes the layers above as if the app had sent it. Every failure is told here, with what the app
//! has asked for, and has the reason of what failed, or `accel_refused` or `sendfile_refused` where nobody was asked.
//!
//! What of the app's answer survives is told in [`fields`]; how a value becomes a target in [`target`], a file in [`path`].

mod charset;
mod fields;
mod pace;
mod path;
mod target;
mod word;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use self::fields::Heir;
use crate::error::{Error, Reason, Side};
use crate::http::{
    Asked, Body, Exchange, Handover, Handovers, Onward, Phase, Redispatch, Request, Response, Service, Target, Told,
};
use crate::observe::throttle::{Throttle, Throttles};

/// Sends the files of one folder.
pub trait SendFile {
    /// Answers with the file at `path` in it, which has neither `.` nor `..`.
    ///
    /// # Errors
    /// Why there is no such file for anybody.
    fn send(&self, request: &Request, path: &Path) -> impl Future<Output = Result<Response, Error>>;
}

/// A folder whose files the app may name.
#[derive(Debug)]
pub struct Root<F> {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// What sends them.
    pub files: F,
}

/// Adds [`Accel`].
pub struct AccelLayer<F> {
    terms: Rc<Terms<F>>,
}

/// Follows where the app leads.
pub struct Accel<S, F> {
    inner: S,
    terms: Rc<Terms<F>>,
}

struct Terms<F> {
    handovers: Handovers,
    /// The longest first.
    roots: Vec<Root<F>>,
    redispatch: Redispatch,
}

impl<F> AccelLayer<F> {
    /// The layer of one route. Where no app is asked, nothing is ever told.
    #[must_use]
    pub fn compile(handovers: Handovers, mut roots: Vec<Root<F>>, redispatch: &Redispatch) -> Self {
        roots.sort_by_key(|root| std::cmp::Reverse(root.path.components().count()));
        Self { terms: Rc::new(Terms { handovers, roots, redispatch: redispatch.clone() }) }
    }
}

impl<S, F> tower::Layer<S> for AccelLayer<F> {
    type Service = Accel<S, F>;

    fn layer(&self, inner: S) -> Accel<S, F> {
        Accel { inner, terms: Rc::clone(&self.terms) }
    }
}

impl<S: Service<Error = Error>, F: SendFile> Service for Accel<S, F> {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let exchange = Rc::clone(&request.exchange);
        let mut response = self.inner.call(request).await?;
        match response.extensions_mut().remove::<Box<Told>>() {
            None => Ok(response),
            // Boxed: hardly any answer says anything.
            Some(told) => Box::pin(self.terms.obey(response, *told, exchange)).await,
        }
    }
}

impl<F: SendFile> Terms<F> {
    async fn obey(&self, answer: Response, mut told: Told, exchange: Rc<Exchange>) -> Result<Response, Error> {
        if let Some((name, why)) = &told.doubt {
            hint(&exchange, &format!("the app's field {name} {why}"));
        }
        let mut names_type = true;
        let mut response = match told.asked.take() {
            Some(asked) => {
                names_type = answer.headers().contains_key(header::CONTENT_TYPE);
                self.hand_over(answer.headers(), &told, asked, &exchange).await?
            }
            None => {
                unheeded(&answer, &told, &exchange);
                answer
            }
        };
        if let Some(charset) = &told.charset {
            charset::apply(response.headers_mut(), charset, names_type);
        }
        if let Some(rate) = told.limit_rate {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = pace::at(rate, body);
        }
        Ok(response)
    }

    /// The answer of whomever the app has named, with what survives of its own.
    async fn hand_over(
        &self,
        app: &HeaderMap,
        told: &Told,
        asked: Asked,
        exchange: &Rc<Exchange>,
    ) -> Result<Response, Error> {
        let request = request(asked, exchange);
        // The worker is done: what is looked for now is no time of its.
        exchange.phase.set(Phase::Responding);
        exchange.working_since.set(None);
        if let Some(media_type) = app.get(header::CONTENT_TYPE) {
            // Of an app that has been led to by another one, the first one's counts.
            let _ = exchange.media_type.set(Box::new(media_type.clone()));
        }
        let (heir, name, value, result) = match told.handover(self.handovers) {
            Some(Handover::Route(value)) => {
                (Heir::Route, "X-Accel-Redirect", value, self.to_route(value, request).await)
            }
            Some(Handover::File(value)) => (Heir::File, "X-Sendfile", value, self.to_file(value, &request).await),
            None => return Err(Error::new(Reason::Internal).detail("an answer was handed over to nobody")),
        };
        let value = shown(value.as_bytes());
        match result {
            Ok(mut response) => {
                if has_failed(response.status()) {
                    let how = response.status().as_u16();
                    warn(
                        exchange,
                        exchange.reason.get(),
                        &format!("the app's {name} to {value} was answered with {how}"),
                    );
                }
                fields::inherit(&mut response, app, heir);
                Ok(response)
            }
            Err(error) => {
                if shows_a_fault(error.reason) {
                    warn(exchange, Some(error.reason), &format!("the app's {name} to {value} has failed: {error}"));
                }
                for cookie in app.get_all(header::SET_COOKIE) {
                    exchange.answer_fields.add(header::SET_COOKIE, cookie.clone());
                }
                Err(error)
            }
        }
    }

    async fn to_route(&self, value: &HeaderValue, mut request: Box<Request>) -> Result<Response, Error> {
        request.target = target::read(value).map_err(|why| Error::new(Reason::AccelRefused).detail(why))?;
        self.redispatch.call(request, Onward::Internal).await
    }

    async fn to_file(&self, value: &HeaderValue, request: &Request) -> Result<Response, Error> {
        let mut first = None;
        for path in path::spellings(value.as_bytes()) {
            let place = self.roots.iter().find_map(|root| Some((root, path.strip_prefix(&root.path).ok()?)));
            let Some((root, within)) = place.filter(|(_, within)| !within.as_os_str().is_empty()) else { continue };
            match root.files.send(request, within).await {
                Ok(response) => return Ok(response),
                // Of several spellings the plainest is the one to tell of. What is there and cannot be had is the answer.
                Err(error) if error.reason != Reason::FileNotFound => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| self.outside()))
    }

    fn outside(&self) -> Error {
        let mut detail = String::from("it is no absolute path of a file below");
        for root in &self.roots {
            // Writing to a String cannot fail.
            let _ = write!(detail, " {}", root.path.display());
        }
        detail.push_str(" (sendfile.roots)");
        Error::new(Reason::SendfileRefused).detail(detail)
    }
}

/// What the client has asked, for somebody else to answer: a GET without a body, whatever it was.
fn request(asked: Asked, exchange: &Rc<Exchange>) -> Box<Request> {
    let Asked { method, mut headers } = asked;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let method = if method == Method::HEAD { method } else { Method::GET };
    let target = Target::from_static("/");
    Box::new(Request { method, target, headers, body: Body::Empty, exchange: Rc::clone(exchange), refused: None })
}

/// Whether a failure is the app's or the configuration's, and has not been told where every answer becomes a page.
fn shows_a_fault(reason: Reason) -> bool {
    let is_missing =
        matches!(reason, Reason::NoRoute | Reason::FileNotFound | Reason::FileForbidden | Reason::Forbidden);
    is_missing || reason.side() == Side::Upstream
}

/// Whether an answer shows that the app leads to what is not there.
fn has_failed(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE)
}

/// A download that nobody here follows is an empty answer to the client.
fn unheeded(answer: &Response, told: &Told, exchange: &Exchange) {
    let (name, value, advice) = match (&told.redirect, &told.file) {
        (Some(value), _) => (
            "X-Accel-Redirect",
            value,
            "is followed only in sites that have a route with `internal: true`: write one for that path, such as \
             { path: /protected/, internal: true, files: { root: /srv/media } }",
        ),
        (None, Some(value)) => (
            "X-Sendfile",
            value,
            "is followed only on routes that name the folders of such files: write sendfile: { roots: [/srv/media] } \
             into this one",
        ),
        (None, None) => return,
    };
    let value = shown(value.as_bytes());
    if matches!(answer.body(), Body::Full(bytes) if !bytes.is_empty()) {
        // It has an answer of its own for those who do not follow.
        tracing::debug!(request_id = id(exchange), "the app's {name}, {value}, {advice}");
        return;
    }
    hint(exchange, &format!("the app's {name}, {value}, {advice}. Until then clients get an empty or a broken answer"));
}

/// What goes wrong for as long as nobody changes app or configuration.
fn hint(exchange: &Exchange, what: &str) {
    static THROTTLE: Throttle = Throttle::new();
    let Some(left_out) = THROTTLE.pass() else { return };
    let route = exchange.route.get();
    let (site, route) = route.map_or(("", ""), |label| (&*label.site, &*label.route));
    tracing::warn!(request_id = id(exchange), site, route, left_out, "{what}");
}

/// What has gone wrong once. `reason` is `None` for an answer that is not the edge's.
fn warn(exchange: &Exchange, reason: Option<Reason>, what: &str) {
    static THROTTLES: Throttles = Throttles::new();
    static OF_APPS: Throttle = Throttle::new();
    let Some(left_out) = reason.map_or_else(|| OF_APPS.pass(), |reason| THROTTLES.pass(reason)) else { return };
    let path = shown(&exchange.target);
    tracing::warn!(request_id = id(exchange), %path, reason = reason.map(Reason::as_str), left_out, "{what}");
}

/// For the log: without the query, which may hold secrets.
fn shown(target: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(target.split(|byte| *byte == b'?').next().unwrap_or_default())
}

fn id(exchange: &Exchange) -> String {
    exchange.id.get().as_ref().map_or_else(String::new, |id| id.as_str().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
