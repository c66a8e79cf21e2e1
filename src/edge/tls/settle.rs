//! Files that are written by somebody else, and are to be read again once they have changed.
//!
//! Whoever renews a certificate replaces several files one after the other, and none of them need be whole at once. So
//! what has changed is read when it has been the same for two looks, and what cannot be used is not complained of before
//! it has been so for a while: the other half may be on its way.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::TlsError;

/// How long files may be in a state that is of no use before anybody is told.
const PATIENCE: Duration = Duration::from_secs(2);
/// What could not be used is tried again without any change: there may have been no descriptor to read it with.
const RETRY: Duration = Duration::from_secs(10);

/// What tells one state of a file from another. The time of the last change of status tells even of rights; links are
/// followed, so that another target is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file, or it cannot be looked at.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

type Stamps = Vec<Option<Stamp>>;

/// Some files that are read together, and what was last read of them that is of use.
#[derive(Debug)]
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    settling: Settling<Stamps>,
    value: T,
}

/// What a look at them has shown.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing new.
    Same,
    /// They change: the next look should be soon.
    Moving,
    /// They were read, and there is a new value.
    New,
    /// They have been of no use for a while; told once for each state.
    Refused(TlsError),
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    pub(super) fn read(paths: Vec<PathBuf>, read: impl FnOnce() -> Result<T, TlsError>) -> Result<Self, TlsError> {
        // Before reading: a change in between is seen by the first look.
        let settling = Settling::new(stamps(&paths));
        Ok(Self { paths, settling, value: read()? })
    }

    pub(super) fn value(&self) -> &T {
        &self.value
    }

    /// The first of the files.
    pub(super) fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Looks whether the files have changed, and reads them when it is time.
    pub(super) fn look(&mut self, now: Instant, read: impl FnOnce() -> Result<T, TlsError>) -> Look {
        let before = stamps(&self.paths);
        match self.settling.step(before.clone(), now) {
            Step::Rest => return Look::Same,
            Step::Wait => return Look::Moving,
            Step::Read => {}
        }
        let result = read();
        if stamps(&self.paths) != before {
            // They may have been read half before and half after.
            return Look::Moving;
        }
        match result {
            Ok(value) => {
                self.value = value;
                self.settling.is_read(before);
                Look::New
            }
            Err(error) if self.settling.is_refused(now) => Look::Refused(error),
            Err(_) => Look::Same,
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    paths.iter().map(|path| Stamp::of(path)).collect()
}

/// When to read what changes.
#[derive(Debug)]
struct Settling<S> {
    /// The state that was read last and was of use.
    read: S,
    changed: Option<Changed<S>>,
}

#[derive(Debug)]
struct Changed<S> {
    state: S,
    since: Instant,
    last_try: Option<Instant>,
    is_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Rest,
    Wait,
    Read,
}

impl<S: PartialEq> Settling<S> {
    const fn new(read: S) -> Self {
        Self { read, changed: None }
    }

    fn step(&mut self, state: S, now: Instant) -> Step {
        if state == self.read {
            self.changed = None;
            return Step::Rest;
        }
        let Some(changed) = self.changed.as_mut().filter(|changed| changed.state == state) else {
            self.changed = Some(Changed { state, since: now, last_try: None, is_told: false });
            return Step::Wait;
        };
        let is_due = match changed.last_try {
            None => true,
            Some(_) if !changed.is_told => now.saturating_duration_since(changed.since) >= PATIENCE,
            Some(last) => now.saturating_duration_since(last) >= RETRY,
        };
        if !is_due {
            return Step::Rest;
        }
        changed.last_try = Some(now);
        Step::Read
    }

    fn is_read(&mut self, state: S) {
        (self.read, self.changed) = (state, None);
    }

    /// Whether it is time to say that this state is of no use: once.
    fn is_refused(&mut self, now: Instant) -> bool {
        let Some(changed) = &mut self.changed else { return false };
        let is_due = !changed.is_told && now.saturating_duration_since(changed.since) >= PATIENCE;
        changed.is_told |= is_due;
        is_due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(250);

    /// What is done at each look, with the state that it finds; reading is of use for `good` states.
    fn played(states: &[u32], good: &[u32]) -> Vec<String> {
        let mut settling = Settling::new(0);
        let begun = Instant::now();
        let look = |(i, state): (usize, &u32)| {
            let now = begun + LOOK * i as u32;
            match settling.step(*state, now) {
                Step::Rest => "rest".to_owned(),
                Step::Wait => "wait".to_owned(),
                Step::Read if good.contains(state) => {
                    settling.is_read(*state);
                    format!("read {state}")
                }
                Step::Read if settling.is_refused(now) => format!("refuse {state}"),
                Step::Read => format!("try {state}"),
            }
        };
        states.iter().enumerate().map(look).collect()
    }

    #[test]
    fn what_has_changed_is_read_once_it_stands_still() {
        assert_eq!(played(&[0, 1, 2, 2, 2], &[1, 2]), ["rest", "wait", "wait", "read 2", "rest"]);
    }

    #[test]
    fn what_goes_back_to_what_it_was_is_not_read() {
        assert_eq!(played(&[0, 1, 0, 0], &[]), ["rest", "wait", "rest", "rest"]);
    }

    #[test]
    fn half_of_a_pair_is_not_complained_of_when_the_other_half_comes() {
        assert_eq!(
            played(&[0, 1, 1, 1, 2, 2, 2], &[2]),
            ["rest", "wait", "try 1", "rest", "wait", "read 2", "rest"],
            "1 is the new certificate with the old key"
        );
    }

    #[test]
    fn what_stays_of_no_use_is_told_once_and_tried_again_now_and_then() {
        let steps = played(&[1; 100], &[]);
        let count = |what: &str| steps.iter().filter(|step| *step == what).count();
        assert_eq!((count("wait"), count("refuse 1")), (1, 1));
        assert_eq!(steps.iter().position(|step| step == "refuse 1"), Some(8), "after two seconds");
        assert_eq!(count("try 1"), 1 + 2, "at first, and every ten seconds of twenty-five");
    }

    #[test]
    fn every_new_state_of_no_use_is_told() {
        let states: Vec<u32> = [[1; 20], [2; 20]].concat();
        let steps = played(&states, &[]);
        assert!(steps.contains(&"refuse 1".into()) && steps.contains(&"refuse 2".into()), "{steps:?}");
    }

    #[test]
    fn rights_and_targets_of_links_count_as_changes() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("link"));
        std::fs::write(&one, "same").unwrap();
        std::fs::write(&two, "same").unwrap();
        symlink(&one, &link).unwrap();
        let first = Stamp::of(&link);
        assert!(first.is_some() && first == Stamp::of(&one));
        std::fs::remove_file(&link).unwrap();
        assert_eq!(Stamp::of(&link), None);
        symlink(&two, &link).unwrap();
        assert_ne!(Stamp::of(&link), first);
        let before = Stamp::of(&two);
        // The clock of a file system may stand still for some milliseconds.
        let is_noticed = || {
            std::fs::set_permissions(&two, std::fs::Permissions::from_mode(0o600)).unwrap();
            Stamp::of(&two) != before
        };
        assert!((0..100_000).any(|_| is_noticed()));
    }
}
