//! A WebSocket whose app knows of it: however the client's side ends, its app hears of that.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::answer::{self, Answer, Failure};
use super::asker::{Asker, Asking, Opened, Opening};
use super::session::Session;
use crate::realtime::websocket::Outbox;
use crate::runtime::deadline::awake;
use crate::runtime::drain::Errand;

/// What is left of it without its client.
pub(super) struct Held {
    pub(super) session: Session,
    pub(super) asker: Asker,
    /// Until the app has said whether it is open.
    pub(super) opening: Option<Opening>,
    /// The request that is out.
    pub(super) asking: Option<Asking>,
}

impl Held {
    /// The app has answered the request that was out, or could not.
    pub(super) fn answered(&mut self, mut answer: Result<Answer, Failure>, now: Duration, out: &mut Outbox) {
        if let Ok(known) = &mut answer
            && let Err(failure) = self.asker.set_meta(std::mem::take(&mut known.meta))
        {
            answer = Err(failure);
        }
        self.session.answered(answer, now, out);
    }
}

/// Sees to it, when it is dropped, that the app hears of the end. Nobody waits for that, but a drain does.
pub(super) struct Care(Option<Box<Held>>);

impl Care {
    pub(super) fn new(held: Held) -> Self {
        Self(Some(Box::new(held)))
    }

    /// The app has not taken it: there is nothing to tell.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Deref for Care {
    type Target = Held;

    #[allow(clippy::expect_used, reason = "it is taken only when it is dropped, or forgotten by value")]
    fn deref(&self) -> &Held {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Care {
    #[allow(clippy::expect_used, reason = "as above")]
    fn deref_mut(&mut self) -> &mut Held {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let Some(held) = self.0.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            let errand = Errand::new();
            tokio::task::spawn_local(async move {
                farewell(held).await;
                drop(errand);
            });
        }
    }
}

/// Waits for what is out, and tells the rest: what the client has said before it went, and that it went.
async fn farewell(mut held: Box<Held>) {
    let mut nobody = Outbox::default();
    if let Some(opening) = held.opening.take() {
        // What no worker has seen yet nobody needs to see.
        if !opening.has_begun() {
            return;
        }
        let Ok(Opened::Taken(mut answer, headers)) = opening.await else { return };
        // What is too much of it is of no more use.
        let _ = held.asker.set_meta(std::mem::take(&mut answer.meta));
        held.session.opened_for_nobody(&answer, answer::prefix(&headers));
    }
    held.session.leave();
    loop {
        if let Some(asking) = held.asking.take() {
            let answer = asking.await;
            held.answered(answer, awake(), &mut nobody);
        }
        let Some(sending) = held.session.next_request(awake(), &nobody) else { return };
        held.asking = Some(held.asker.tell(sending));
    }
}
