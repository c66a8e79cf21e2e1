//! Work that outlives whoever asked for it: a worker is busy until *it* is done.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::http::{Exchange, Phase};
use crate::runtime::Deadline;

/// Runs inside the future that awaits it. When that is dropped while a worker is at work, the rest runs as a task of its
/// own, at most for `grace`, so that what it holds (the worker's slot) is held as long as that is true. Before a byte
/// has been sent there is nothing to see to its end.
pub(super) struct Detachable<T: 'static> {
    work: Option<Pin<Box<dyn Future<Output = T>>>>,
    exchange: Rc<Exchange>,
    grace: Duration,
}

impl<T> Detachable<T> {
    pub(super) fn new(work: impl Future<Output = T> + 'static, exchange: Rc<Exchange>, grace: Duration) -> Self {
        Self { work: Some(Box::pin(work)), exchange, grace }
    }
}

impl<T> Future for Detachable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let result = work.as_mut().poll(cx);
        if result.is_ready() {
            self.work = None;
        }
        result
    }
}

impl<T> Drop for Detachable<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the work ends with it.
        if let Some(work) = self.work.take()
            && self.exchange.phase.get() == Phase::Working
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let grace = self.grace;
            tokio::task::spawn_local(async move {
                // Its result is for nobody; its end is what counts.
                let _ = Deadline::new().bound(grace, work).await;
            });
        }
    }
}
