//! A file of users in force.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::checks::{Checks, Overloaded, Tag};
use super::watch::Watch;
use crate::credentials::{self, Users};

/// How long a password that was found right is remembered, at least; at most twice as long.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many are remembered: two generations of so many.
const MOST_REMEMBERED: usize = 4096;

/// One file, for all routes that name it.
pub struct UserFile {
    path: PathBuf,
    in_force: ArcSwap<InForce>,
    watch: Mutex<Watch>,
    is_failing: AtomicBool,
}

/// What a file said, and whose passwords were found right by it: what is remembered goes with the file.
struct InForce {
    users: Arc<Users>,
    right: Mutex<Right>,
}

impl InForce {
    fn new(users: Arc<Users>) -> Arc<Self> {
        Arc::new(Self { users, right: Mutex::default() })
    }
}

impl UserFile {
    /// A file that has just been read.
    #[must_use]
    pub fn new(path: PathBuf, users: Arc<Users>) -> Self {
        Self {
            path,
            in_force: ArcSwap::new(InForce::new(users)),
            watch: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether these users are in force.
    #[must_use]
    pub fn has(&self, users: &Users) -> bool {
        *self.in_force.load().users == *users
    }

    /// Whether the file could not be used when it was read last.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether there is such a user with such a password. Nothing that takes time tells whether there is such a user.
    ///
    /// # Errors
    /// [`Overloaded`]
    pub async fn admits(&self, checks: &Checks, name: &str, password: &str) -> Result<bool, Overloaded> {
        let in_force = self.in_force.load_full();
        let known = in_force.users.get(name);
        let hash = known.unwrap_or_else(|| in_force.users.stand_in(checks.number(name)));
        let tag = checks.tag(name, password, hash);
        let is_remembered = || known.is_some() && in_force.right().has(&tag, Instant::now());
        if is_remembered() {
            return Ok(true);
        }
        // Browsers ask for twenty things at once: the first of them finds out for all.
        let verdict = checks.check(Arc::clone(hash), password, is_remembered).await?;
        let is_right = verdict.is_right && known.is_some();
        if is_right {
            in_force.right().add(tag, Instant::now());
        }
        Ok(is_right)
    }

    /// Reads the file again if it has changed, and puts it in force if it can be used. Blocks.
    pub fn look(&self) {
        if !self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_due(&self.path) {
            return;
        }
        let read = credentials::read(&self.path, "the users");
        let read = read.and_then(|contents| Users::parse(&contents.bytes, &self.path));
        self.is_failing.store(read.is_err(), Ordering::Relaxed);
        match read {
            Ok(users) if self.has(&users) => {}
            Ok(users) => {
                let count = users.count();
                self.in_force.store(InForce::new(Arc::new(users)));
                tracing::info!(file = %self.path.display(), users = count, "the users were read anew");
            }
            Err(unusable) => tracing::error!("{unusable}: the users from before stay in force"),
        }
    }
}

impl InForce {
    fn right(&self) -> std::sync::MutexGuard<'_, Right> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passwords that were found right, of late and before that. When the young generation is full or old enough it takes the
/// place of the old one, so that there is an end to both.
#[derive(Default)]
struct Right {
    young: HashSet<Tag>,
    old: HashSet<Tag>,
    /// When the young generation began.
    since: Option<Instant>,
}

impl Right {
    fn has(&mut self, tag: &Tag, now: Instant) -> bool {
        self.turn(now);
        self.young.contains(tag) || self.old.contains(tag)
    }

    fn add(&mut self, tag: Tag, now: Instant) {
        self.turn(now);
        if self.young.len() >= MOST_REMEMBERED {
            self.old = std::mem::take(&mut self.young);
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.young.insert(tag);
    }

    fn turn(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        let age = now.saturating_duration_since(since);
        if age < REMEMBERED {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age >= 2 * REMEMBERED {
            self.old = HashSet::new();
        }
        // Without a young one the old generation is over at its second turn.
        self.since = (!self.old.is_empty()).then_some(now);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(name: &str, password: &str) -> String {
        format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn file(path: &Path) -> UserFile {
        let contents = credentials::read(path, "the users").unwrap();
        UserFile::new(path.to_owned(), Arc::new(Users::parse(&contents.bytes, path).unwrap()))
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_until_the_file_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, line("ann", "secret")).unwrap();
        let (file, checks) = (file(&path), Checks::of_a_test());
        for (name, password, expected) in [
            ("ann", "secret", true),
            ("ann", "secret", true),
            ("ann", "Secret", false),
            ("bob", "secret", false),
            ("bob", "secret", false),
        ] {
            assert_eq!(file.admits(&checks, name, password).await, Ok(expected), "{name} {password}");
        }
        assert_eq!(file.in_force.load().right().young.len(), 1);
        std::fs::write(&path, line("ann", "changed") + &line("bob", "secret")).unwrap();
        file.look();
        file.look();
        assert_eq!(file.admits(&checks, "ann", "secret").await, Ok(false));
        assert_eq!(file.admits(&checks, "ann", "changed").await, Ok(true));
        assert_eq!(file.admits(&checks, "bob", "secret").await, Ok(true));
    }

    #[tokio::test]
    async fn twenty_requests_of_one_page_are_one_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, line("ann", "secret")).unwrap();
        let (file, checks) = (Arc::new(file(&path)), Arc::new(Checks::of_a_test()));
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (file, checks) = (Arc::clone(&file), Arc::clone(&checks));
            asked.spawn(async move { file.admits(&checks, "ann", "secret").await });
        }
        assert!(asked.join_all().await.into_iter().all(|admitted| admitted == Ok(true)));
        assert_eq!(checks.made(), 1);
        // What is wrong is found out each time, and what nobody has is as much work.
        for (name, password) in [("ann", "wrong"), ("ann", "wrong"), ("bob", "secret")] {
            assert_eq!(file.admits(&checks, name, password).await, Ok(false));
        }
        assert_eq!(checks.made(), 4);
    }

    #[tokio::test]
    async fn a_bad_new_file_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let good = line("ann", "secret");
        std::fs::write(&path, &good).unwrap();
        let (file, checks) = (file(&path), Checks::of_a_test());
        let look = async |what: &str| {
            file.look();
            file.look();
            assert_eq!(file.admits(&checks, "ann", "secret").await, Ok(true), "{what}");
            assert!(file.is_failing(), "{what}");
        };
        for (what, text) in [
            ("empty", String::new()),
            ("broken", format!("{good}bob:$apr1$x$y\n")),
            ("huge", "#".repeat(credentials::LARGEST as usize + 1)),
            ("binary", "ann:\0\u{1}".into()),
        ] {
            std::fs::write(&path, text).unwrap();
            look(what).await;
        }
        std::fs::remove_file(&path).unwrap();
        look("gone").await;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        look("a pipe").await;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, line("bob", "secret")).unwrap();
        file.look();
        file.look();
        assert_eq!(file.admits(&checks, "ann", "secret").await, Ok(false), "a good one again");
        assert!(!file.is_failing());
    }

    #[test]
    fn what_is_remembered_has_an_end_in_time_and_in_number() {
        let (mut right, begun) = (Right::default(), Instant::now());
        let tag = |number: usize| {
            let mut tag = Tag::default();
            tag[..8].copy_from_slice(&number.to_be_bytes());
            tag
        };
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        right.add(tag(0), at(0));
        assert!(right.has(&tag(0), at(299)) && !right.has(&tag(1), at(299)));
        assert!(right.has(&tag(0), at(599)), "in the old generation");
        assert!(!right.has(&tag(0), at(900)));
        assert!(right.young.is_empty() && right.old.is_empty());
        right.add(tag(0), at(1000));
        assert!(!right.has(&tag(0), at(2000)), "nobody has asked for long");
        for number in 0..4 * MOST_REMEMBERED {
            right.add(tag(number), at(3000));
        }
        assert!(right.young.len() + right.old.len() <= 2 * MOST_REMEMBERED);
        assert!(right.has(&tag(4 * MOST_REMEMBERED - 1), at(3000)));
    }
}
