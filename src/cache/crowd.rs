//! Those who follow a body that is being fetched, at their own pace.
//!
//! As long as the body is stored nobody waits for anybody: who is behind reads what is kept. Of a body that is not stored, because
//! it has grown too large, only the last of it is kept; then the fetch goes as fast as the slowest who follows, but for anybody
//! alone among others only for so long ([`ALLOWANCE`]): one slow client neither stops the others nor, unless it is as slow as
//! that, loses its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::store::Follower;
use crate::error::Error;
use crate::http::Source;

/// How far behind one may be while the body is not stored, in bytes: a part of what is kept of it.
pub const BEHIND: u64 = 256 << 10;
/// For how long, in all, one may hold the others up.
const ALLOWANCE: Duration = Duration::from_secs(10);

/// Who follows one body.
#[derive(Debug, Default)]
pub struct Crowd {
    members: Mutex<Vec<Option<Member>>>,
    moved: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    /// Bytes it has.
    at: u64,
    /// For how long it may yet hold up others.
    allowance: Duration,
}

/// Nobody follows any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Deserted;

impl Crowd {
    /// The body as somebody has it who follows.
    #[must_use]
    pub fn join(self: &Arc<Self>, follower: Follower) -> Following {
        let mut members = self.lock();
        let member = Some(Member { at: 0, allowance: ALLOWANCE });
        let slot = members.iter().position(Option::is_none).unwrap_or_else(|| {
            members.push(None);
            members.len() - 1
        });
        members[slot] = member;
        drop(members);
        Following { follower, crowd: Arc::clone(self), slot }
    }

    /// Whether nobody follows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().iter().all(Option::is_none)
    }

    /// Waits until nobody is more than `behind` bytes behind `length` who may hold the others up.
    ///
    /// # Errors
    /// Nobody follows.
    pub async fn keep_together(&self, length: u64, behind: u64) -> Result<(), Deserted> {
        loop {
            let moved = self.moved.notified();
            let Some(wait) = self.wait(length.saturating_sub(behind))? else { return Ok(()) };
            let begun = Instant::now();
            // Either way it is looked again.
            let _ = timeout(wait, moved).await;
            self.charge(length.saturating_sub(behind), begun.elapsed());
        }
    }

    /// For how long those who are behind are waited for now. `None`: for nobody.
    fn wait(&self, due: u64) -> Result<Option<Duration>, Deserted> {
        let members = self.lock();
        let all = members.iter().flatten();
        match all.clone().count() {
            0 => Err(Deserted),
            // Whoever is alone is what the body is for: the edge's own limits are for clients that stall.
            1 => Ok(all.clone().any(|member| member.at < due).then_some(Duration::from_secs(60))),
            _ => Ok(all
                .filter(|member| member.at < due)
                .map(|member| member.allowance)
                .filter(|left| !left.is_zero())
                .min()),
        }
    }

    fn charge(&self, due: u64, waited: Duration) {
        let mut members = self.lock();
        if members.iter().flatten().count() > 1 {
            for member in members.iter_mut().flatten().filter(|member| member.at < due) {
                member.allowance = member.allowance.saturating_sub(waited);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of somebody who follows.
#[derive(Debug)]
pub struct Following {
    follower: Follower,
    crowd: Arc<Crowd>,
    slot: usize,
}

impl Source for Following {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let polled = self.follower.poll_data(cx);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            if let Some(member) = &mut self.crowd.lock()[self.slot] {
                member.at += data.len() as u64;
            }
            self.crowd.moved.notify_waiters();
        }
        polled
    }

    fn remaining(&self) -> Option<u64> {
        self.follower.remaining()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.crowd.lock()[self.slot] = None;
        self.crowd.moved.notify_waiters();
    }
}
