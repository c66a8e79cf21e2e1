//! Looks after an upstream while one of its endpoints does not answer: one probe at a time, until all answer again.
//!
//! A probe connects and closes, which costs a worker nothing that it would notice. Requests that wait are let through
//! the moment one succeeds, as many as there are workers.

use std::sync::Arc;
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

/// Watches from now on, in a task of the calling thread.
pub(super) fn spawn(room: Arc<Room>) {
    tokio::task::spawn_local(watch(room));
}

async fn watch(room: Arc<Room>) {
    let mut pause = SHORTEST;
    while let Some((rules, outage)) = room.watched() {
        tokio::time::sleep(pause).await;
        let is_held = outage.is_some_and(|lasted| lasted < rules.hold);
        pause = (pause * 2).min(if is_held { LONGEST_HELD } else { LONGEST });
        for endpoint in &rules.balance.endpoints {
            if endpoint.state.has(Mark::Silent) {
                probe(&room, &rules, endpoint).await;
            }
        }
        // An endpoint that was left out for a while may be back.
        room.changed(None);
        room.end_hold();
    }
}

async fn probe(room: &Arc<Room>, rules: &Rules, endpoint: &Endpoint) {
    let error = endpoint.connector.knock(rules.connect_timeout.min(LONGEST)).await.err();
    let still = |reason| matches!(reason, Reason::ConnectRefused | Reason::SocketMissing | Reason::ConnectTimeout);
    if error.is_some_and(|error| still(error.reason)) {
        return;
    }
    endpoint.state.set(Mark::Silent, false);
    tracing::info!(upstream = %room.name, endpoint = endpoint.name(), "the endpoint answers again");
}
