//! Passwords are checked beside the event loop, a few at a time: each check takes a processor for a good part of a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::credentials::htpasswd::Hash;

/// How many may wait for their turn: some seconds of work, after which a client would have left.
const MOST_WAITING: usize = 64;

/// What a password that was found right is remembered by: it says nothing without the key of this process.
pub(super) type Tag = [u8; 32];

/// One for the process.
#[derive(Debug)]
pub struct Checks {
    turns: Arc<Semaphore>,
    places: Arc<AtomicUsize>,
    key: hmac::Key,
    /// Counts the checks that were made.
    made: IntCounter,
}

/// Too many passwords are to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

impl Checks {
    /// For a machine with so many processors: half of them may check, and one at least. `made` counts the checks. `None`:
    /// the system has no random numbers.
    #[must_use]
    pub fn new(processors: usize, made: IntCounter) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { turns: Arc::new(Semaphore::new((processors / 2).max(1))), places: Arc::default(), key, made })
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) fn of_a_test() -> Self {
        Self::new(1, IntCounter::new("made", "made").unwrap()).unwrap()
    }

    #[cfg(test)]
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// What this password of this user is remembered by, as long as the file has this hash for him.
    pub(super) fn tag(&self, name: &str, password: &str, hash: &Hash) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // With their lengths, so that no two are written alike.
        for part in [name, password, hash.as_str()] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// The same number for the same name, which nobody can foresee.
    pub(super) fn number(&self, name: &str) -> u64 {
        let tag = hmac::sign(&self.key, name.as_bytes());
        tag.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Checks a password, unless `is_known` says that it has been found right while this waited for its turn. The turn
    /// is over when the verdict is dropped: what is to be known to the next is to be noted before.
    pub(super) async fn check(
        &self,
        hash: Arc<Hash>,
        password: &str,
        is_known: impl Fn() -> bool,
    ) -> Result<Verdict, Overloaded> {
        let place = Place::take(&self.places).ok_or(Overloaded)?;
        // Never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Overloaded)?;
        drop(place);
        if is_known() {
            return Ok(Verdict { is_right: true, _turn: turn });
        }
        self.made.inc();
        let password = password.to_owned();
        let check = tokio::task::spawn_blocking(move || {
            // A client that leaves does not end the work, nor give its turn to the next before.
            Verdict { is_right: hash.is_of(password.as_bytes()), _turn: turn }
        });
        // Only a panic, or the end of the runtime.
        check.await.map_err(|_| Overloaded)
    }
}

/// Whether a password is right.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) is_right: bool,
    _turn: OwnedSemaphorePermit,
}

/// A place among those who wait.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(places));
        // Counted before it is compared: whoever is one too many gives it back.
        (places.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::credentials::Users;

    fn hash() -> Arc<Hash> {
        let text = format!("ann:{}", bcrypt::hash("secret", 4).unwrap());
        Arc::clone(Users::parse(text.as_bytes(), Path::new("f")).unwrap().get("ann").unwrap())
    }

    #[tokio::test]
    async fn so_many_wait_and_the_next_is_told_at_once() {
        let checks = Checks::of_a_test();
        let turn = Arc::clone(&checks.turns).acquire_owned().await.unwrap();
        let is_right = async |password: &'static str, is_known: bool| {
            checks.check(hash(), password, || is_known).await.map(|verdict| verdict.is_right)
        };
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(is_right("secret", false))).collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.iter_mut().all(|check| check.as_mut().poll(&mut context).is_pending()));
        assert_eq!(is_right("secret", false).await, Err(Overloaded));
        waiting.truncate(1);
        drop(turn);
        assert_eq!(waiting.remove(0).await, Ok(true));
        assert_eq!(is_right("Secret", false).await, Ok(false));
        assert_eq!(is_right("Secret", true).await, Ok(true), "somebody else has found it right");
        assert_eq!(checks.places.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_tag_is_of_one_name_one_password_one_hash_and_one_process() {
        let (checks, other) = (Checks::of_a_test(), Checks::of_a_test());
        let (one, another) = (hash(), hash());
        let tag = checks.tag("ann", "secret", &one);
        assert_eq!(tag, checks.tag("ann", "secret", &one));
        for different in [
            checks.tag("ann", "secret", &another),
            checks.tag("anns", "ecret", &one),
            checks.tag("bob", "secret", &one),
            checks.tag("ann", "Secret", &one),
            other.tag("ann", "secret", &one),
        ] {
            assert_ne!(different, tag);
        }
        assert_eq!(checks.number("ann"), checks.number("ann"));
        assert_ne!(checks.number("ann"), other.number("ann"));
    }
}
