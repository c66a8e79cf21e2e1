//! The bottom of a route: what answers there.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderName;

use super::Means;
use crate::config;
use crate::error::{Error, Reason};
use crate::files::{self, Files};
use crate::http::{Handovers, Request, Response, Service, Upgrade};
use crate::middleware::answer::Answer;
use crate::middleware::proxy::Proxy;
use crate::middleware::redirect::Redirect;
use crate::realtime::over_http::OverHttp;
use crate::upstream::spool::Budget;

/// What answers at the bottom of a route.
pub enum Action {
    /// A worker.
    Proxy(Proxy),
    /// A worker, to which WebSockets come as requests, too.
    Sockets(Box<(Proxy, OverHttp)>),
    /// A folder.
    Files(Box<Files>),
    /// The edge.
    Answer(Answer),
    /// The edge, with something of the request.
    Redirect(Redirect),
    /// A fixed answer that cannot be written, which the configuration's checks do not let pass.
    Broken,
}

impl Action {
    /// The action of one route. `folder` is the route's, if it has files; `sockets` takes WebSockets, if it has them end here.
    #[must_use]
    pub(super) fn compile(
        route: &config::Route,
        handovers: Handovers,
        budget: &Arc<Budget>,
        identity_names: &Arc<[HeaderName]>,
        folder: Option<&Arc<files::Folder>>,
        sockets: Option<OverHttp>,
        means: &Means<'_>,
    ) -> Self {
        let answer = match &route.action {
            config::Action::Proxy(upstream) => {
                let client = Rc::clone(&means.clients[*upstream]);
                let (budget, identity_names) = (Arc::clone(budget), Arc::clone(identity_names));
                let proxy = Proxy::compile(route, handovers, client, budget, identity_names);
                return match sockets {
                    Some(sockets) => Self::Sockets(Box::new((proxy, sockets))),
                    None => Self::Proxy(proxy),
                };
            }
            config::Action::Files(files) => {
                let Some(folder) = folder else { return Self::Broken };
                let (folder, cache) = (Arc::clone(folder), Rc::clone(means.cache));
                return Self::Files(Box::new(Files::compile(route, files, folder, cache, means.redispatch.clone())));
            }
            config::Action::Redirect { to, status } => match to.fixed() {
                Some(to) => Answer::redirect(to, *status),
                None => return Redirect::compile(to, *status, &route.path).map_or(Self::Broken, Self::Redirect),
            },
            config::Action::Respond { status, body } => Answer::text(*status, body),
        };
        answer.map_or(Self::Broken, Self::Answer)
    }
}

impl Service for Action {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        match self {
            Self::Proxy(proxy) => proxy.call(request).await,
            Self::Sockets(both) => match request.exchange.upgrade.get() {
                // Boxed: other requests need no room for it.
                Some(Upgrade::WebSocket(handshake)) => Box::pin(both.1.open(request, handshake)).await,
                _ => {
                    OverHttp::clean(&mut request.headers)?;
                    both.0.call(request).await
                }
            },
            Self::Files(files) => files.call(request).await,
            Self::Answer(answer) => answer.call(request).await,
            Self::Redirect(redirect) => redirect.call(request).await,
            Self::Broken => Err(Error::new(Reason::Internal)),
        }
    }
}
