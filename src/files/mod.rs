//! The action `files`: what lies in a folder, below the prefix of its route.
//!
//! 1. The prefix of the route is taken away; what is left names a file or a folder ([`Relative`]). Names with a dot at the
//!    beginning are hidden.
//! 2. What is kept of it ([`Cache`]) answers at once, and what the kernel remembers of it. Else another thread looks
//!    ([`Folder`]): it opens the file, which the kernel keeps below the root, looks beside it for the same in other codings,
//!    and reads what is small.
//! 3. Preconditions and ranges decide what of it is sent ([`respond`]).
//! 4. Where there is nothing, `fallback` and `not_found` answer, or 404.
//!
//! Its bytes are sent by [`body`]. Failures are [`Reason::FileNotFound`] and its neighbours.

mod beneath;
pub mod body;
mod cache;
mod document;
mod folder;
mod hashed;
mod listing;
mod manifest;
mod media_type;
mod path;
mod respond;
mod stamp;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

pub use self::cache::{Cache, Room};
use self::cache::{Entry, Found};
use self::document::Stamps;
pub use self::folder::Folder;
use self::folder::Looked;
pub use self::media_type::media_type;
pub use self::path::Relative;
use self::respond::Caching;
use crate::config::{self, Fallback, PathPattern, Symlinks};
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Onward, Redispatch, Request, Response, Service, Target, fields};
use crate::observe::throttle::Throttle;

/// What may be done with a file.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Answers with the files of a folder. One for each route and thread.
pub struct Files {
    folder: Arc<Folder>,
    cache: Rc<Cache>,
    prefix: Prefix,
    fallback: Fallback,
    not_found: Option<Box<[u8]>>,
    caching: Caching,
    redispatch: Redispatch,
    /// Whether only other routes lead here: then no redirect of ours may lead a client here.
    is_internal: bool,
}

/// What of a request's path is not the file's.
enum Prefix {
    /// These bytes.
    Text(Box<[u8]>),
    /// All of it.
    Whole,
    /// Nothing.
    None,
}

impl Files {
    /// The action of one route, for the calling thread. `folder` is the route's, for all threads.
    #[must_use]
    pub fn compile(
        route: &config::Route,
        files: &config::Files,
        folder: Arc<Folder>,
        cache: Rc<Cache>,
        redispatch: Redispatch,
    ) -> Self {
        let prefix = match &route.path {
            PathPattern::Prefix(prefix) => Prefix::Text(prefix.as_bytes().into()),
            PathPattern::Exact(_) => Prefix::Whole,
            PathPattern::Regex(_) => Prefix::None,
        };
        let caching =
            if route.internal { Caching::unsaid() } else { Caching::new(files.max_age, route.auth.is_none()) };
        Self {
            folder,
            cache,
            prefix,
            fallback: files.fallback.clone(),
            not_found: files.not_found.as_ref().map(|page| page.as_bytes().into()),
            caching,
            redispatch,
            is_internal: route.internal,
        }
    }

    /// Files that an app names by their absolute path (`X-Sendfile`), below `root`: the files as they are, and nothing
    /// else. Names with a dot are the app's to choose.
    #[must_use]
    pub fn named_by_app(root: &Path, symlinks: Symlinks, cache: Rc<Cache>) -> Self {
        Self {
            folder: Arc::new(Folder::bare(root, symlinks)),
            cache,
            prefix: Prefix::None,
            fallback: Fallback::Nobody,
            not_found: None,
            caching: Caching::unsaid(),
            redispatch: Redispatch::default(),
            is_internal: true,
        }
    }

    /// Where the files are.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// Answers with the file at a path, by the method and the fields of `request`: all of it or a part, 304, 412 or 416. Of
    /// `request` neither target nor body is looked at. A method other than HEAD gets what GET gets.
    ///
    /// # Errors
    /// [`Reason::FileNotFound`], [`Reason::FileForbidden`], [`Reason::PreconditionFailed`],
    /// [`Reason::RangeNotSatisfiable`], and whatever is wrong with the root or the disk.
    pub async fn answer(&self, request: &Request, path: &Relative<'_>) -> Result<Response, Error> {
        let entry = self.find(path, &request.exchange).await?;
        match &entry.found {
            Found::File(_) => self.send(request, path, entry).await,
            Found::Forbidden => Err(Error::new(Reason::FileForbidden)),
            Found::Folder | Found::Listing(_) | Found::Missing => Err(Error::new(Reason::FileNotFound)),
        }
    }

    /// What the path of a request names. `None`: nothing, or what is hidden.
    fn relative<'t>(&self, target: &'t Target) -> Option<Relative<'t>> {
        let path = target.path();
        let rest = match &self.prefix {
            Prefix::Text(prefix) => match path.strip_prefix(&**prefix)? {
                rest if rest.is_empty() || rest.starts_with(b"/") || prefix.ends_with(b"/") => rest,
                _ => return None,
            },
            Prefix::Whole => b"",
            Prefix::None => path,
        };
        Relative::parse(rest).filter(|path| !path.is_hidden())
    }

    /// What is at a path: what is kept of it, or what another thread finds.
    async fn find(&self, path: &Relative<'_>, exchange: &Exchange) -> Result<Rc<Entry>, Error> {
        let now = exchange.now();
        match self.cache.get(self.folder.id(), path) {
            Some(entry) if entry.is_fresh(now) => Ok(entry),
            // Boxed: most requests need no room for how it is looked for.
            known => Box::pin(self.look(path, known, exchange)).await,
        }
    }

    async fn look(
        &self,
        path: &Relative<'_>,
        known: Option<Rc<Entry>>,
        exchange: &Exchange,
    ) -> Result<Rc<Entry>, Error> {
        let now = exchange.now();
        let stamps = known.as_ref().and_then(|entry| entry.stamps());
        let looked = match self.folder.peek(path, stamps, now) {
            Some(looked) => looked,
            None => {
                let _looking = known.as_ref().map(Entry::looking);
                let looked = self.look_elsewhere(path, stamps, now).await;
                exchange.tick();
                looked.inspect_err(|_| self.cache.remove(self.folder.id(), path))?
            }
        };
        let (found, is_immutable) = match (looked, known) {
            (Looked::Same { is_immutable }, Some(entry)) => {
                entry.confirm(is_immutable, now);
                return Ok(entry);
            }
            (Looked::File { document, is_immutable }, _) => (Found::File(document), is_immutable),
            (Looked::Folder, _) => (Found::Folder, false),
            (Looked::Listing(page), _) => (Found::Listing(page), false),
            (Looked::Missing | Looked::Same { .. }, _) => (Found::Missing, false),
            (Looked::Forbidden(why), _) => {
                tell_forbidden(&why, exchange);
                (Found::Forbidden, false)
            }
        };
        let entry = Entry::new(found, is_immutable, now);
        self.cache.put(self.folder.id(), path, &entry);
        Ok(entry)
    }

    /// Looks in a thread that may wait for a disk.
    async fn look_elsewhere(&self, path: &Relative<'_>, known: Option<Stamps>, now: Instant) -> Result<Looked, Error> {
        let (folder, path) = (Arc::clone(&self.folder), path.clone().into_owned());
        let looked = tokio::task::spawn_blocking(move || folder.look(&path, known, now)).await;
        looked.unwrap_or_else(|join| Err(Error::new(Reason::Internal).detail(join.to_string())))
    }

    /// Sends a file that was found.
    async fn send(&self, request: &Request, path: &Relative<'_>, entry: Rc<Entry>) -> Result<Response, Error> {
        if let Found::File(document) = &entry.found {
            let form = respond::form(request, document)?;
            if !form.has_changed() {
                return respond::file(request, document, form, self.caching.of(entry.is_immutable()));
            }
        }
        // It was opened for others, and has changed since. What is there now is not asked again.
        let entry = Box::pin(self.look(path, None, &request.exchange)).await?;
        match &entry.found {
            Found::File(document) => {
                let form = respond::form(request, document)?;
                respond::file(request, document, form, self.caching.of(entry.is_immutable()))
            }
            Found::Forbidden => Err(Error::new(Reason::FileForbidden)),
            Found::Folder | Found::Listing(_) | Found::Missing => Err(Error::new(Reason::FileNotFound)),
        }
    }

    /// Where there is no file.
    async fn nothing(&self, request: Box<Request>) -> Result<Response, Error> {
        match &self.fallback {
            Fallback::Next => self.redispatch.call(request, Onward::Next).await,
            Fallback::File(page) if is_read(&request.method) => {
                let page = Relative::parse(page.as_bytes()).ok_or(Error::new(Reason::FileNotFound))?;
                self.answer(&request, &page).await
            }
            _ => {
                if let Some(page) = self.not_found.as_deref().and_then(Relative::parse) {
                    let entry = self.find(&page, &request.exchange).await?;
                    if let Found::File(document) = &entry.found {
                        request.exchange.fail(Reason::FileNotFound);
                        return Ok(respond::page(&request, document, StatusCode::NOT_FOUND));
                    }
                }
                Err(Error::new(Reason::FileNotFound))
            }
        }
    }

    /// Whether there is anything behind the slash that a folder was asked for without.
    async fn shows(&self, path: &Relative<'_>, exchange: &Exchange) -> Result<bool, Error> {
        let entry = Box::pin(self.find(&path.as_folder(), exchange)).await?;
        Ok(!matches!(entry.found, Found::Missing))
    }

    /// Whether a method that does not read may be another route's business.
    fn hands_on(&self) -> bool {
        self.fallback == Fallback::Next
    }
}

impl Service for Files {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        let reads = is_read(&request.method);
        if !reads && !self.hands_on() {
            return refuse_method(&request);
        }
        let Some(path) = self.relative(&request.target) else { return Box::pin(self.nothing(request)).await };
        let entry = match self.find(&path, &request.exchange).await {
            Err(error) if error.reason == Reason::RootMissing && self.hands_on() => {
                tell_missing(&error, &request.exchange);
                return Box::pin(self.nothing(request)).await;
            }
            found => found?,
        };
        match &entry.found {
            Found::Missing => Box::pin(self.nothing(request)).await,
            Found::Forbidden => Err(Error::new(Reason::FileForbidden)),
            Found::File(_) if !reads => refuse_method(&request),
            _ if !reads => Box::pin(self.nothing(request)).await,
            Found::File(_) => {
                let answer = self.send(&request, &path, entry).await;
                fields::give_map(std::mem::take(&mut request.headers));
                answer
            }
            Found::Listing(page) => Ok(respond::listing(&request, page)),
            Found::Folder if self.hands_on() && !self.shows(&path, &request.exchange).await? => {
                Box::pin(self.nothing(request)).await
            }
            Found::Folder if self.is_internal => Err(Error::new(Reason::FileNotFound)),
            Found::Folder => to_folder(&request.target),
        }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// OPTIONS is told what there is (RFC 9110, 9.3.7); everybody else that this is not it.
fn refuse_method(request: &Request) -> Result<Response, Error> {
    if request.method != Method::OPTIONS {
        request.exchange.answer_fields.set(header::ALLOW, ALLOW);
        return Err(Error::new(Reason::MethodNotAllowed));
    }
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOW);
    Ok(response)
}

/// The same with a slash, so that what the page links to is found below it. 308 keeps the method (RFC 9110, 15.4.9).
fn to_folder(target: &Target) -> Result<Response, Error> {
    // Two slashes at the beginning of a link would be another host.
    let path = target.raw_path().trim_start_matches('/');
    let location = HeaderValue::from_str(&format!("/{path}/{}", target.query_with_mark()));
    let location = location.map_err(|_| Error::new(Reason::BadTarget))?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The operator hears that there is no root, though the next route answers, once a second at most.
fn tell_missing(error: &Error, exchange: &Exchange) {
    static THROTTLE: Throttle = Throttle::new();
    tell(&THROTTLE, error.reason, &error.to_string(), exchange);
}

/// The operator hears which right is missing, once a second at most.
fn tell_forbidden(why: &str, exchange: &Exchange) {
    static THROTTLE: Throttle = Throttle::new();
    tell(&THROTTLE, Reason::FileForbidden, why, exchange);
}

fn tell(throttle: &Throttle, reason: Reason, why: &str, exchange: &Exchange) {
    if let Some(left_out) = throttle.pass() {
        let id = exchange.id.get();
        let request_id = id.as_ref().map_or("", |id| id.as_str());
        tracing::warn!(request_id, reason = reason.as_str(), left_out, "{why}");
    }
}
