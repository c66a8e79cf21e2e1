//! Who may use a route: `auth`.
//!
//! Below `cors`, because a preflight brings no credentials, and below `rate_limit`; above whatever receives a body. All that
//! is asked for must hold, in this order: `allow`, `basic`, `jwt`, `forward`. Whoever has no credentials, or wrong ones, gets
//! 401 and is told which are wanted; whoever comes from elsewhere gets 403. The app is told who it is by fields that no client
//! can send.

mod basic;
mod forward;
mod token;

use std::rc::Rc;
use std::sync::Arc;

use http::header;

use self::basic::Passwords;
pub use self::forward::Forward;
use self::token::Tokens;
use crate::access::{Checks, Gathering};
use crate::config::{self, AllowedClients};
use crate::error::{Error, Reason};
use crate::http::{Request, Response, Service};

/// What a route asks for: one for all threads.
pub struct Policy {
    allow: Option<AllowedClients>,
    basic: Option<Passwords>,
    jwt: Option<Tokens>,
}

impl Policy {
    /// Compiles. Users and keys are taken from `sources`, or put there.
    #[must_use]
    pub fn compile(auth: &config::Auth, checks: &Arc<Checks>, sources: &mut Gathering<'_>) -> Self {
        let basic = auth.basic.as_ref();
        let jwt = auth.jwt.as_ref();
        Self {
            allow: auth.allow.clone(),
            basic: basic.map(|basic| Passwords::compile(basic, sources.users(basic), Arc::clone(checks))),
            jwt: jwt.map(|jwt| Tokens::compile(jwt, sources.keys(jwt))),
        }
    }

    /// Lets the request pass, with what the app is told of who asks, or refuses it.
    async fn admit(&self, request: &mut Request) -> Result<(), Error> {
        if let Some(basic) = &self.basic {
            basic.admit(request).await?;
        }
        if let Some(jwt) = &self.jwt {
            jwt.admit(request).await?;
        }
        Ok(())
    }

    fn is_allowed(&self, request: &Request) -> bool {
        let Some(allow) = &self.allow else { return true };
        !request.is_unnamed() && allow.has(request.exchange.client.get())
    }

    fn has_credentials(&self) -> bool {
        self.basic.is_some() || self.jwt.is_some()
    }
}

/// Adds [`Authorized`].
pub struct AuthLayer {
    policy: Option<Arc<Policy>>,
    forward: Option<Rc<Forward>>,
}

impl AuthLayer {
    /// The layer of one route; without a `policy` it asks nobody. `forward` is the calling thread's own part of it.
    #[must_use]
    pub fn new(policy: Option<Arc<Policy>>, forward: Option<Forward>) -> Self {
        Self { policy, forward: forward.map(Rc::new) }
    }
}

/// Lets through whom the route is for.
pub struct Authorized<S> {
    inner: S,
    policy: Option<Arc<Policy>>,
    forward: Option<Rc<Forward>>,
}

impl<S> tower::Layer<S> for AuthLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, policy: self.policy.clone(), forward: self.forward.clone() }
    }
}

impl<S: Service<Error = Error>> Service for Authorized<S> {
    type Error = Error;

    async fn call(&self, mut request: Box<Request>) -> Result<Response, Error> {
        if let Some(policy) = &self.policy {
            if !policy.is_allowed(&request) {
                return Err(Error::new(Reason::Forbidden).detail("the client is not in auth.allow"));
            }
            if policy.has_credentials() {
                // Boxed: most routes ask nobody, and need no room for how it is done.
                Box::pin(policy.admit(&mut request)).await?;
                // Others have had their turn meanwhile.
                request.exchange.tick();
            }
            if let Some(forward) = &self.forward
                && let Some(refusal) = Box::pin(forward.admit(&request)).await?
            {
                return Ok(refusal);
            }
        }
        self.inner.call(request).await
    }
}

/// A refusal, and the credentials that are wanted.
fn unauthorized(request: &Request, challenge: &http::HeaderValue, detail: &'static str) -> Error {
    request.exchange.answer_fields.set(header::WWW_AUTHENTICATE, challenge.clone());
    Error::new(Reason::Unauthorized).detail(detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
