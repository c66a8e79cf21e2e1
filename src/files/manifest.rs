//! `immutable: manifest`: the files that Django's `ManifestStaticFilesStorage` has given a name with a hash in it, by its own
//! word (`staticfiles.json`).
//!
//! A value of `paths` is such a name, and nothing else is: a file whose name looks so is not believed to be one. Where a value
//! is its own key the storage had no hash for it. The file is read again when it has changed, looked at once a second at
//! most. One that cannot be read as such, and one that has gone (Django removes it before it writes the next), changes nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FileType;
use serde::Deserialize;
use tokio::time::Instant;

use super::beneath::{self, READ};
use super::stamp::Stamp;
use crate::config::Symlinks;

/// What Django calls it.
const NAME: &[u8] = b"staticfiles.json";
/// Room for a hundred thousand files.
const LARGEST: u64 = 16 << 20;
/// How often it is looked at, at most.
const EVERY: Duration = Duration::from_secs(1);

/// The manifest of one root, for all threads. Locked only where waiting is allowed.
#[derive(Debug, Default)]
pub(super) struct Manifest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    names: HashSet<Box<[u8]>>,
    /// As it was when it was read last, whether or not it could be used.
    read: Option<Stamp>,
    looked: Option<Instant>,
}

/// As Django writes it; what else is in it is of no interest.
#[derive(Deserialize)]
struct Written {
    paths: HashMap<String, String>,
}

impl Manifest {
    /// Whether it names this file as the hashed form of another. Looks at the manifest when it is time. Blocks.
    pub(super) fn has(&self, root: BorrowedFd<'_>, symlinks: Symlinks, path: &[u8], now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_due(now) {
            state.looked = Some(now);
            state.look(root, symlinks);
        }
        state.names.contains(path)
    }

    /// The same if nobody has to look, nor to wait. `None`: somebody has to.
    pub(super) fn has_for_sure(&self, path: &[u8], now: Instant) -> Option<bool> {
        let state = self.0.try_lock().ok()?;
        (!state.is_due(now)).then(|| state.names.contains(path))
    }
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= EVERY)
    }

    fn look(&mut self, root: BorrowedFd<'_>, symlinks: Symlinks) {
        let Ok(file) = beneath::open(root, NAME, symlinks, READ) else { return };
        let Ok((stamp, FileType::RegularFile)) = Stamp::of(&file) else { return };
        if self.read == Some(stamp) {
            return;
        }
        self.read = Some(stamp);
        match read(file.into()) {
            Ok(names) => {
                tracing::debug!(names = names.len(), "staticfiles.json was read");
                self.names = names;
            }
            Err(why) => tracing::warn!(
                "staticfiles.json in the root of a route's `files` cannot be used: {why}; what it said before stays in force, and is looked at again when the file has changed"
            ),
        }
    }
}

fn read(file: File) -> Result<HashSet<Box<[u8]>>, String> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err("it is larger than 16 MiB".into());
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<HashSet<Box<[u8]>>, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let hashed = written.paths.into_iter().filter(|(name, hashed)| name != hashed);
    Ok(hashed.map(|(_, hashed)| hashed.into_bytes().into()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::fs::OFlags;

    use super::*;

    const DJANGO: &str = r#"{"paths": {"css/a.css": "css/a.0123456789ab.css", "robots.txt": "robots.txt", "é.js": "é.aaaaaaaaaaaa.js"}, "version": "1.1", "hash": "x"}"#;

    #[test]
    fn the_values_of_paths_are_hashed_names() {
        let names = parse(DJANGO.as_bytes()).unwrap();
        assert!(names.contains(&b"css/a.0123456789ab.css"[..]) && names.contains("é.aaaaaaaaaaaa.js".as_bytes()));
        assert!(!names.contains(&b"css/a.css"[..]) && !names.contains(&b"robots.txt"[..]));
        assert!(parse(br#"{"paths": {}}"#).unwrap().is_empty());
        let deep = "[".repeat(100_000);
        for broken in
            ["", "{", "[]", "{}", r#"{"paths": []}"#, r#"{"paths": {"a": 1}}"#, r#"{"paths": {"a": "b"}"#, &deep]
        {
            assert!(parse(broken.as_bytes()).is_err(), "{broken:.40}");
        }
    }

    struct Folder(tempfile::TempDir, Manifest, Instant);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap(), Manifest::default(), Instant::now())
        }

        fn write(&self, text: &str) {
            std::fs::write(self.0.path().join("new"), text).unwrap();
            std::fs::rename(self.0.path().join("new"), self.0.path().join("staticfiles.json")).unwrap();
        }

        fn has(&mut self, later: Duration, name: &str) -> bool {
            self.2 += later;
            let root = beneath::open_root(self.0.path(), beneath::LOOK | OFlags::DIRECTORY).unwrap();
            self.1.has(root.as_fd(), Symlinks::Inside, name.as_bytes(), self.2)
        }
    }

    #[test]
    fn a_manifest_is_read_again_when_it_has_changed() {
        let mut folder = Folder::new();
        assert!(!folder.has(EVERY, "b"), "there is none");
        folder.write(r#"{"paths": {"a": "b"}}"#);
        assert!(folder.has(EVERY, "b"));
        assert_eq!(folder.1.has_for_sure(b"b", folder.2), Some(true));
        assert_eq!(folder.1.has_for_sure(b"b", folder.2 + EVERY), None, "it may have changed");
        folder.write(r#"{"paths": {"a": "c"}}"#);
        assert!(folder.has(EVERY / 2, "b"), "not looked at yet");
        assert!(folder.has(EVERY, "c") && !folder.has(Duration::ZERO, "b"));
        for broken in ["", "{\"paths\"", "no JSON at all"] {
            folder.write(broken);
            assert!(folder.has(EVERY, "c"), "{broken:?}: what was said before");
        }
        std::fs::remove_file(folder.0.path().join("staticfiles.json")).unwrap();
        assert!(folder.has(EVERY, "c"), "Django removes it before it writes the next");
        folder.write(r#"{"paths": {"a": "d"}}"#);
        assert!(folder.has(EVERY, "d") && !folder.has(EVERY, "c"));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let mut folder = Folder::new();
        let path = folder.0.path().join("staticfiles.json");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert!(!folder.has(EVERY, "a"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_than_with_words(text in "[\\[\\]{}:,\"a-d ]{0,60}") {
            match parse(text.as_bytes()) {
                Ok(names) => prop_assert!(names.iter().all(|name| !name.is_empty() || text.contains("\"\""))),
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }
    }
}
