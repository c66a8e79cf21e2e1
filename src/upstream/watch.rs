//! Looks after an upstream while one of its endpoints does not answer: one probe at a time, until all answer again.
//!
//! A probe connects and closes, which costs a worker nothing that it would notice. Requests that wait are let through
//! the moment one succeeds, as many as there are workers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::endpoint::{Endpoint, Mark};
use super::room::{Room, Rules};
use crate::error::Reason;

/// The first pause between two rounds of probes; each is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(5);
/// The longest while requests are held.
const LONGEST_HELD: Duration = Duration::from_millis(50);
/// The longest while they fail at once, or while other endpoints answer.
const LONGEST: Duration = Duration::from_secs(1);

/// Watches from now on, in a task of the calling thread, for as long as somebody uses the upstream.
pub(super) fn spawn(room: &Arc<Room>) {
    let watching = Watching(Arc::downgrade(room));
    tokio::task::spawn_local(async move { watch(&watching).await });
}

/// Says when nobody watches any more, however that came.
struct Watching(Weak<Room>);

impl Drop for Watching {
    fn drop(&mut self) {
        let Some(room) = self.0.upgrade() else { return };
        // When its thread is ending, the process is.
        if room.unwatched() && tokio::runtime::Handle::try_current().is_ok() {
            spawn(&room);
        }
    }
}

async fn watch(watching: &Watching) {
    let mut pause = SHORTEST;
    loop {
        let Some(room) = watching.0.upgrade() else { return };
        let Some((rules, outage)) = room.watched() else { return };
        if tokio::time::timeout(pause, room.alarm.notified()).await.is_ok() {
            pause = SHORTEST;
        }
        let is_held = outage.is_some_and(|lasted| lasted < rules.hold);
        pause = (pause * 2).min(if is_held { LONGEST_HELD } else { LONGEST });
        for endpoint in &rules.balance.endpoints {
            if endpoint.state.has(Mark::Silent) {
                probe(&room, &rules, endpoint).await;
                room.end_hold();
            }
        }
        // An endpoint that was left out for a while may be back.
        room.changed(None);
        room.end_hold();
    }
}

async fn probe(room: &Arc<Room>, rules: &Rules, endpoint: &Endpoint) {
    match endpoint.connector.knock(rules.connect_timeout.min(LONGEST)).await {
        Ok(()) => {}
        // It listens, and is busy; or closes what it does not want.
        Err(error) if matches!(error.reason, Reason::BacklogFull | Reason::ResetBeforeHead) => {}
        // What will not change by waiting is told to whoever asks.
        Err(error) if error.reason == Reason::SocketPermission => {}
        Err(_) => return,
    }
    endpoint.state.set(Mark::Silent, false);
    tracing::info!(upstream = %room.name, endpoint = endpoint.name(), "the endpoint answers again");
    room.changed(None);
}
