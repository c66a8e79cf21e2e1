//! The cache as the process has it: one, shared by its threads.

use std::sync::Arc;

use super::backoff::Backoff;
use super::clock::Clock;
use super::coalesce::Flights;
use super::landing::Outcome;
use super::purge::Wide;
use super::store::Store;

/// What is one for the process.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    flights: Arc<Flights<Outcome>>,
    backoff: Backoff,
    outages: Backoff,
    loners: Backoff,
    loners_with_cookies: Backoff,
    wide: Wide,
}

impl Cache {
    /// Of a store that is open. Requests that are asked for another one are not in flight here.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            flights: Flights::new(),
            backoff: Backoff::default(),
            outages: Backoff::default(),
            loners: Backoff::default(),
            loners_with_cookies: Backoff::default(),
            wide: Wide::default(),
        })
    }

    /// Where answers are.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What is being asked for.
    #[must_use]
    pub const fn flights(&self) -> &Arc<Flights<Outcome>> {
        &self.flights
    }

    /// What is not refreshed for a while.
    #[must_use]
    pub const fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// What the app has just failed to answer: what is stale stands in without another try, where it may.
    #[must_use]
    pub const fn outages(&self) -> &Backoff {
        &self.outages
    }

    /// Under which labels that are no URL's own there may be answers.
    #[must_use]
    pub const fn wide(&self) -> &Wide {
        &self.wide
    }

    /// What several in a row have waited for, and none could use what another got: nobody waits for it for a while.
    #[must_use]
    pub const fn loners(&self) -> &Backoff {
        &self.loners
    }

    /// The same where it was their cookies: those without any wait for each other all the same.
    #[must_use]
    pub const fn loners_with_cookies(&self) -> &Backoff {
        &self.loners_with_cookies
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.store.clock()
    }
}
