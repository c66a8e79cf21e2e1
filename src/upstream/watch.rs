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
    let watching = Watching { room: Arc::downgrade(room), is_done: false };
    tokio::task::spawn_local(watch(watching));
}

/// Says when nobody watches any more although there is a reason to: a task that ended otherwise than by its own will.
struct Watching {
    room: Weak<Room>,
    is_done: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let (false, Some(room)) = (self.is_done, self.room.upgrade()) {
            room.unwatched();
        }
    }
}

async fn watch(mut watching: Watching) {
    let mut pause = SHORTEST;
    loop {
        let Some(room) = watching.room.upgrade() else { return };
        let Some((rules, outage)) = room.watched() else {
            watching.is_done = true;
            return;
        };
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
