//! The addresses of an endpoint that has a name, looked up again and again: in the background, one lookup at a time for
//! all threads.
//!
//! The system's resolver does not tell how long its answer holds, so that `resolve: ttl` stands for [`TTL`], which is
//! below what any name server of a platform that moves endpoints about says. An answer that has become old serves on
//! while the next is looked up and when no name server answers. One that is far older is not used before that is known:
//! it waits for a lookup that fails, and once for half of the time to connect where name servers are silent.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Resolve;
use crate::error::{Error, Reason};
use crate::runtime::Deadline;

/// How long an answer holds that does not say it.
const TTL: Duration = Duration::from_secs(5);
/// After this time beyond its own an answer may be that of another week: the upstream was idle.
const FAR: Duration = Duration::from_secs(60);
/// Between two lookups when the first has failed.
const RETRY: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;
/// Asks the system.
type Ask = Box<dyn Fn(&str, u16) -> Answer + Send + Sync>;

/// A name, and what is known of it.
pub(super) struct Name {
    host: Box<str>,
    port: u16,
    holds: Duration,
    ask: Ask,
    known: Mutex<Known>,
    /// Told at the end of every lookup.
    changed: Notify,
    /// Where the next connection begins: addresses take turns.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    addresses: Option<(Arc<[SocketAddr]>, Instant)>,
    failed: Option<(Arc<str>, Instant)>,
    is_looking: bool,
    /// Somebody has waited in vain; until a lookup succeeds nobody else does who can do with an old answer.
    is_silent: bool,
}

impl Name {
    pub(super) fn new(host: &str, port: u16, resolve: Resolve) -> Self {
        let ask = |host: &str, port| -> Answer {
            let host = host.to_owned();
            // On a thread of its own: it may take as long as a name server is silent.
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        };
        Self::asking(host, port, resolve, Box::new(ask))
    }

    fn asking(host: &str, port: u16, resolve: Resolve, ask: Ask) -> Self {
        let holds = match resolve {
            Resolve::Ttl => TTL,
            Resolve::After(time) => time,
        };
        let turn = AtomicUsize::new(0);
        Self { host: host.into(), port, holds, ask, known: Mutex::default(), changed: Notify::new(), turn }
    }

    /// All addresses, at least one, and which of them is next.
    pub(super) async fn addresses(self: &Arc<Self>, timeout: Duration) -> Result<(Arc<[SocketAddr]>, usize), Error> {
        let arrived = Instant::now();
        let looked_up = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(known) = self.look(arrived) {
                    return known;
                }
                changed.await;
            }
        };
        // Where an old answer is known, time is left to connect to it.
        let patience = if self.known().addresses.is_some() { timeout / 2 } else { timeout };
        let addresses = match Deadline::new().bound(patience, looked_up).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(why)) => return Err(Error::new(Reason::NameNotResolved).detail(why.to_string())),
            Err(_) => self.in_vain()?,
        };
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
        Ok((addresses, first))
    }

    /// What serves somebody who has waited for a lookup that did not end.
    fn in_vain(&self) -> Result<Arc<[SocketAddr]>, Error> {
        let mut known = self.known();
        let Some(addresses) = known.addresses.as_ref().map(|(addresses, _)| Arc::clone(addresses)) else {
            return Err(Error::new(Reason::NameNotResolved).detail("no name server has answered in time"));
        };
        known.is_silent = true;
        Ok(addresses)
    }

    /// What serves somebody who came at `arrived`; `None`: a lookup is under way and has to be waited for. Starts one
    /// where it is time.
    fn look(self: &Arc<Self>, arrived: Instant) -> Option<Result<Arc<[SocketAddr]>, Arc<str>>> {
        let mut known = self.known();
        let answer = known.addresses.as_ref().map(|(addresses, since)| (Arc::clone(addresses), since.elapsed()));
        if let Some((addresses, age)) = &answer
            && *age < self.holds
        {
            return Some(Ok(Arc::clone(addresses)));
        }
        let failure = known.failed.as_ref().filter(|(_, at)| *at >= arrived || at.elapsed() < RETRY).cloned();
        if failure.is_none() && !known.is_looking {
            known.is_looking = true;
            tokio::task::spawn_local(look_up(Looking(Arc::clone(self))));
        }
        match (answer, failure) {
            (Some((addresses, age)), None) if known.is_silent || age < self.holds.saturating_add(FAR) => {
                Some(Ok(addresses))
            }
            // Better old than nothing.
            (Some((addresses, _)), Some(_)) => Some(Ok(addresses)),
            (None, Some((why, _))) => Some(Err(why)),
            (_, None) => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lookup that is under way; over when it is dropped, however that comes.
struct Looking(Arc<Name>);

async fn look_up(looking: Looking) {
    let name = &looking.0;
    let result = (name.ask)(&name.host, name.port).await;
    let mut known = name.known();
    match result {
        Ok(addresses) if !addresses.is_empty() => {
            known.addresses = Some((addresses.into(), Instant::now()));
            known.failed = None;
            known.is_silent = false;
        }
        Ok(_) => known.failed = Some(("the name has no address".into(), Instant::now())),
        Err(error) => known.failed = Some((error.to_string().into(), Instant::now())),
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.known().is_looking = false;
        self.0.changed.notify_waiters();
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({}:{})", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    /// Answers in turn with these addresses, or fails where there are none. Counts how often it was asked.
    fn name(answers: &'static [&'static [&'static str]], asked: &Arc<AtomicUsize>) -> Arc<Name> {
        let asked = Arc::clone(asked);
        let ask = move |_: &str, port| -> Answer {
            let index = asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let addresses: Vec<_> =
                    answers[index].iter().map(|text| SocketAddr::new(text.parse().unwrap(), port)).collect();
                if addresses.is_empty() { Err(io::Error::other("server failure")) } else { Ok(addresses) }
            })
        };
        Arc::new(Name::asking("app", 80, Resolve::Ttl, Box::new(ask)))
    }

    async fn first(name: &Arc<Name>) -> Result<String, String> {
        match name.addresses(Duration::from_secs(5)).await {
            Ok((addresses, first)) => Ok(addresses[first].ip().to_string()),
            Err(error) => {
                assert_eq!(error.reason, Reason::NameNotResolved);
                Err(error.detail.into_owned())
            }
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_take_turns_and_one_lookup_serves_all() {
        LocalSet::new()
            .run_until(async {
                let asked = Arc::default();
                let name = name(&[&["10.0.0.1", "10.0.0.2", "10.0.0.3"]], &asked);
                let (a, b) = tokio::join!(first(&name), first(&name));
                let turns = [a.unwrap(), b.unwrap(), first(&name).await.unwrap(), first(&name).await.unwrap()];
                assert_eq!(turns, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
                assert_eq!(asked.load(Ordering::Relaxed), 1);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_serves_while_the_next_is_looked_up() {
        LocalSet::new()
            .run_until(async {
                let asked = Arc::default();
                let name = name(&[&["10.0.0.1"], &["10.0.0.2"], &["10.0.0.3"]], &asked);
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
                pass(4).await;
                assert_eq!((first(&name).await.unwrap().as_str(), asked.load(Ordering::Relaxed)), ("10.0.0.1", 1));
                pass(2).await;
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1", "the old one, at once");
                pass(1).await;
                assert_eq!((first(&name).await.unwrap().as_str(), asked.load(Ordering::Relaxed)), ("10.0.0.2", 2));
                pass(3600).await;
                assert_eq!(first(&name).await.unwrap(), "10.0.0.3", "one from an hour ago is not used unseen");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_serves_when_no_name_server_answers() {
        LocalSet::new()
            .run_until(async {
                let asked = Arc::default();
                let name = name(&[&["10.0.0.1"], &[], &[], &["10.0.0.2"]], &asked);
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
                pass(3600).await;
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1", "after the lookup has failed");
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
                assert_eq!(asked.load(Ordering::Relaxed), 2, "it is not asked again at once");
                pass(2).await;
                assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
                pass(2).await;
                assert_eq!(first(&name).await.unwrap(), "10.0.0.2");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_serves_when_name_servers_are_silent() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ask = move |_: &str, port| -> Answer {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            Box::pin(async move {
                if is_first {
                    Ok(vec![SocketAddr::new([10, 0, 0, 1].into(), port)])
                } else {
                    std::future::pending().await
                }
            })
        };
        let name = Arc::new(Name::asking("app", 80, Resolve::Ttl, Box::new(ask)));
        let looks = async {
            assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
            pass(3600).await;
            let timeout = Duration::from_secs(5);
            let begun = Instant::now();
            assert!(name.addresses(timeout).await.is_ok());
            assert!(begun.elapsed() < timeout, "time is left to connect");
            let begun = Instant::now();
            assert_eq!(first(&name).await.unwrap(), "10.0.0.1");
            assert_eq!(begun.elapsed(), Duration::ZERO, "one has waited for all");
            assert_eq!(asked.load(Ordering::Relaxed), 2);
        };
        let local = LocalSet::new();
        tokio::select! {
            () = local.run_until(looks) => {}
            () = crate::runtime::deadline::sweep() => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_fails_and_is_asked_for_again() {
        LocalSet::new()
            .run_until(async {
                let asked = Arc::default();
                let name = name(&[&[], &["10.0.0.1"]], &asked);
                assert_eq!(first(&name).await.unwrap_err(), "server failure");
                assert_eq!(first(&name).await.unwrap_err(), "server failure", "known from just before");
                pass(2).await;
                assert_eq!((first(&name).await.unwrap().as_str(), asked.load(Ordering::Relaxed)), ("10.0.0.1", 2));
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_goes_on_when_those_who_wait_for_it_have_left() {
        LocalSet::new()
            .run_until(async {
                let asked = Arc::default();
                let name = name(&[&["10.0.0.1"]], &asked);
                let early = tokio::time::timeout(Duration::from_millis(1), first(&name)).await;
                assert!(early.is_err());
                assert_eq!((first(&name).await.unwrap().as_str(), asked.load(Ordering::Relaxed)), ("10.0.0.1", 1));
            })
            .await;
    }
}
