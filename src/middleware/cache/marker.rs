//! What is remembered of answers that are not to be stored: who asks for the same does not wait for another then.

use std::time::Duration;

use http::StatusCode;

use super::caching::Caching;
use crate::cache::key::Key;
use crate::cache::policy::{Asked, Refusal};
use crate::cache::store::{Found, Moment};

/// For how long.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Whether others would very likely be answered so that it is not stored, too. What an app refuses says nothing of the page: one odd
/// client (an odd field, a body in a GET) must change nothing for the others. A failure passes.
pub(super) fn is_worth_remembering(asked: &Asked, status: StatusCode, refusal: Refusal) -> bool {
    let is_of_the_page = !status.is_client_error() && !status.is_server_error();
    is_of_the_page && asked.is_anonymous() && refusal.is_of_the_response()
}

/// Remembers it. What is stored goes, unless it came later. `since`: when the app was asked.
pub(super) fn remember(caching: &Caching, primary: &Key, key: &Key, since: Moment) {
    put(caching, primary, key, since, REMEMBERED);
}

/// What is stored goes, unless it came later, and nothing is remembered.
pub(super) fn drop_stored(caching: &Caching, primary: &Key, key: &Key, since: Moment) {
    put(caching, primary, key, since, Duration::ZERO);
}

fn put(caching: &Caching, primary: &Key, key: &Key, since: Moment, time: Duration) {
    // What tells variants apart has been learnt meanwhile: a marker in its place would have it forgotten.
    if key == primary && matches!(caching.store().get(primary), Some(Found::Vary(_))) {
        return;
    }
    caching.store().put_uncacheable(key, time, since);
}
