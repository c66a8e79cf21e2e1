//! A new one of what is stale, in the background: one at a time for a key, behind everybody who waits for a worker, and not again at
//! once after it has failed.

use std::rc::Rc;
use std::sync::Arc;

use super::caching::Caching;
use super::lead;
use super::lookup::Looked;
use crate::cache::policy::Asked;
use crate::error::Error;
use crate::http::{Request, Service};

/// Begins one, unless it is under way, or was a moment ago. Who may not lead others does not begin one for them.
pub(super) fn begin<S: Service<Error = Error> + 'static>(
    inner: &Rc<S>,
    caching: &Arc<Caching>,
    request: &Request,
    asked: Asked,
    looked: &Looked,
) {
    let cache = caching.cache();
    if !asked.may_lead() || cache.backoff().has(&looked.key) || cache.outages().has(&looked.key) {
        return;
    }
    if let Some(lead) = cache.flights().lead_quietly(&looked.key) {
        lead::refresh(inner, caching, (request, asked), looked, lead);
    }
}
