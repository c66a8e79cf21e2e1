//! A folder whose files are served, and what is found in it. One for all threads; everything here may wait for a disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use tokio::time::Instant;

use super::beneath::{self, LOOK, READ};
use super::document::{Document, Loaded, Stamps};
use super::hashed::is_hashed;
use super::listing;
use super::manifest::Manifest;
use super::media_type::media_type;
use super::path::Relative;
use super::stamp::Stamp;
use crate::config::{self, Immutable, PathPattern, Symlinks};
use crate::error::{Error, Reason};
use crate::http::Coding;
use crate::observe::throttle::Throttle;

/// How often a file is opened again that was changed while it was read.
const TRIES: usize = 3;
/// Seconds that a file in another coding may be older than its original: both were copied, in any order.
const OLDER: i64 = 2;

/// A folder whose files are served.
#[derive(Debug)]
pub struct Folder {
    /// Tells its files from those of others in what is kept of both.
    id: u64,
    root: PathBuf,
    /// Who names it in the configuration.
    key: Key,
    /// Whether the root may be a file itself.
    may_be_file: bool,
    symlinks: Symlinks,
    index: Option<Box<[u8]>>,
    /// In which codings files may lie beside themselves.
    siblings: Box<[Coding]>,
    rule: Rule,
    browse: bool,
}

/// What names a folder in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Files,
    Sendfile,
}

impl Key {
    fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files.root",
            Self::Sendfile => "sendfile.roots",
        }
    }

    /// What to do about a link that is not followed.
    fn advice_on_links(self) -> &'static str {
        match self {
            Self::Files => "`symlinks: follow` would follow it",
            Self::Sendfile => {
                "write the folder to which it leads into `sendfile.roots` as well, and let the app name the file by its \
                 place in there"
            }
        }
    }
}

/// Which files never change.
#[derive(Debug)]
enum Rule {
    Manifest(Manifest),
    Hashed,
    None,
}

/// What there is.
#[derive(Debug)]
pub(super) enum Looked {
    /// What was known.
    Same {
        is_immutable: bool,
    },
    File {
        document: Box<Document>,
        is_immutable: bool,
    },
    /// A folder, asked for without its slash.
    Folder,
    /// The page of what is in a folder.
    Listing(Bytes),
    Missing,
    /// Not to be had: why, for the operator.
    Forbidden(String),
}

/// What opening has led to.
enum Opened {
    File(File, Stamp),
    Folder,
    Missing,
    Forbidden(String),
}

impl Folder {
    /// That of a route.
    #[must_use]
    pub fn compile(files: &config::Files, path: &PathPattern) -> Self {
        let rule = match files.immutable {
            Immutable::Manifest => Rule::Manifest(Manifest::default()),
            Immutable::Hashed => Rule::Hashed,
            Immutable::Off => Rule::None,
        };
        Self {
            may_be_file: matches!(path, PathPattern::Exact(_)),
            index: files.index.as_ref().map(|name| name.as_bytes().into()),
            siblings: files.precompressed.iter().copied().map(Coding::from).collect(),
            rule,
            browse: files.browse,
            key: Key::Files,
            ..Self::bare(&files.root, files.symlinks)
        }
    }

    /// One from which an app names files: nothing but the files themselves.
    #[must_use]
    pub fn bare(root: &Path, symlinks: Symlinks) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: COUNT.fetch_add(1, Ordering::Relaxed),
            root: root.to_owned(),
            key: Key::Sendfile,
            may_be_file: false,
            symlinks,
            index: None,
            siblings: Box::default(),
            rule: Rule::None,
            browse: false,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn symlinks(&self) -> Symlinks {
        self.symlinks
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks for what is at a path. `known` is what was there at the last look. Blocks.
    ///
    /// # Errors
    /// [`Reason::RootMissing`], [`Reason::NoDescriptors`], or what the system said when it failed.
    pub(super) fn look(&self, path: &Relative<'_>, known: Option<Stamps>, now: Instant) -> Result<Looked, Error> {
        // Opened each time: a deploy may have put another folder in its place, or a link to another one.
        let root = match beneath::open_root(&self.root, LOOK | OFlags::DIRECTORY) {
            Ok(root) => root,
            Err(Errno::NOTDIR) if self.may_be_file && path.as_bytes().is_empty() => return self.look_at_root(known),
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
                let detail = format!("{} {}", self.key.as_str(), self.root.display());
                return Err(Error::new(Reason::RootMissing).detail(detail).source(error.into()));
            }
            Err(error) => return Ok(Looked::of(self.refused(b"", error)?)),
        };
        let look = Look { folder: self, root: root.as_fd(), known, now };
        if path.is_folder() { look.folder(path) } else { look.file(path) }
    }

    /// What is at a path, as far as the kernel can tell from memory: that it is what was `known`, a folder, or nothing.
    /// `None`: somebody has to look. Never blocks.
    pub(super) fn peek(&self, path: &Relative<'_>, known: Option<Stamps>, now: Instant) -> Option<Looked> {
        let root = beneath::peek_root(&self.root)?;
        let peek = |path: &[u8]| beneath::peek(root.as_fd(), path, self.symlinks, LOOK);
        let index;
        let name = match (path.is_folder(), &self.index) {
            (false, _) => path.as_bytes(),
            (true, _) if self.browse => return None,
            (true, None) => return Some(Looked::Missing),
            (true, Some(file)) => {
                index = within(path.as_bytes(), file);
                &index
            }
        };
        // Whether it is served goes by another file as well, which may have come.
        if self.original_of(name).is_some() {
            return None;
        }
        let opened = match peek(name)? {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Some(Looked::Missing),
            Err(_) => return None,
        };
        let original = match Stamp::at_hand(opened).ok()? {
            (stamp, FileType::RegularFile) => stamp,
            (_, FileType::Directory) if !path.is_folder() => return Some(Looked::Folder),
            _ => return None,
        };
        let known = known.filter(|known| known.original == original)?;
        for (coding, known) in Coding::ALL.into_iter().zip(known.siblings) {
            if original.size == 0 || !self.siblings.contains(&coding) {
                continue;
            }
            let found = peek(&[name, ending(coding).as_bytes()].concat())?;
            let found = found.and_then(Stamp::at_hand).ok().filter(|(_, kind)| *kind == FileType::RegularFile);
            if found.map(|(stamp, _)| stamp) != known {
                return None;
            }
        }
        let is_immutable = match &self.rule {
            Rule::Manifest(manifest) => manifest.has_for_sure(name, now)?,
            Rule::Hashed => is_hashed(name),
            Rule::None => false,
        };
        Some(Looked::Same { is_immutable })
    }

    /// The root itself, which is a file.
    fn look_at_root(&self, known: Option<Stamps>) -> Result<Looked, Error> {
        let name = self.root.file_name().map_or(&b""[..], |name| name.as_bytes());
        let open = || match beneath::open_root(&self.root, READ) {
            Ok(file) => self.opened(b"", file.into()),
            Err(error) => self.refused(b"", error),
        };
        self.read(open, |_| [const { None }; 3], name, known, || self.is_immutable_alone(name))
    }

    fn is_immutable_alone(&self, name: &[u8]) -> bool {
        matches!(self.rule, Rule::Hashed) && is_hashed(name)
    }

    /// Reads what `open` opens, once more if it is changed meanwhile, and what `siblings` finds beside it.
    fn read(
        &self,
        open: impl Fn() -> Result<Opened, Error>,
        siblings: impl Fn(&Stamp) -> [Option<(File, Stamp)>; 3],
        name: &[u8],
        known: Option<Stamps>,
        is_immutable: impl Fn() -> bool,
    ) -> Result<Looked, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (file, original) = match open()? {
                Opened::File(file, stamp) => (file, stamp),
                other => return Ok(Looked::of(other)),
            };
            let siblings = siblings(&original);
            let stamps =
                Stamps { original, siblings: siblings.each_ref().map(|found| found.as_ref().map(|(_, stamp)| *stamp)) };
            if known == Some(stamps) {
                return Ok(Looked::Same { is_immutable: is_immutable() });
            }
            let failed = |error: io::Error| Error::new(Reason::FileFailed).detail(self.shown(name)).source(error);
            let mut loaded = vec![Loaded::read(None, file, original).map_err(failed)?];
            for (coding, found) in Coding::ALL.into_iter().zip(siblings) {
                let Some((file, stamp)) = found.filter(|(_, stamp)| self.is_of_use(name, coding, stamp, &original))
                else {
                    continue;
                };
                loaded.push(Loaded::read(Some(coding), file, stamp).map_err(failed)?);
            }
            if tries < TRIES && !loaded.iter().all(|loaded| loaded.is_whole) {
                continue;
            }
            let document = Document::new(stamps, &media_type(name), loaded, wall_clock());
            return Ok(Looked::File { document: Box::new(document), is_immutable: is_immutable() });
        }
    }

    /// Whether a file in another coding can stand for its original.
    fn is_of_use(&self, name: &[u8], coding: Coding, stamp: &Stamp, original: &Stamp) -> bool {
        if stamp.modified.0.saturating_add(OLDER) < original.modified.0 {
            static THROTTLE: Throttle = Throttle::new();
            if let Some(left_out) = THROTTLE.pass() {
                let (name, ending) = (self.shown(name), ending(coding));
                tracing::warn!(
                    left_out,
                    "{name}{ending} is older than {name}, and is not sent for it: make it anew, or remove it"
                );
            }
            return false;
        }
        stamp.size < original.size
    }

    fn opened(&self, path: &[u8], file: File) -> Result<Opened, Error> {
        match Stamp::of(&file) {
            Ok((stamp, FileType::RegularFile)) => Ok(Opened::File(file, stamp)),
            Ok((_, FileType::Directory)) => Ok(Opened::Folder),
            Ok(_) => Ok(Opened::Forbidden(format!("{} is neither a file nor a folder", self.shown(path)))),
            Err(error) => self.refused(path, error),
        }
    }

    /// What it means that something cannot be opened.
    fn refused(&self, path: &[u8], error: Errno) -> Result<Opened, Error> {
        let forbidden = |why: String| Ok(Opened::Forbidden(format!("{} {why}", self.shown(path))));
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Ok(Opened::Missing),
            Errno::XDEV => forbidden(format!(
                "lies behind a symbolic link that leads out of the root, or is not relative; {}",
                self.key.advice_on_links()
            )),
            Errno::LOOP if self.symlinks == Symlinks::Never => {
                forbidden("lies behind a symbolic link, and `symlinks: never` follows none".into())
            }
            Errno::LOOP => forbidden("lies behind symbolic links that cannot be followed".into()),
            Errno::NXIO | Errno::NODEV => forbidden("is neither a file nor a folder".into()),
            Errno::ACCESS | Errno::PERM => {
                let trouble = config::read_trouble(&self.path_of(path));
                let trouble = trouble.unwrap_or_else(|| format!("{} may not be read", self.shown(path)));
                Ok(Opened::Forbidden(trouble))
            }
            Errno::MFILE | Errno::NFILE => {
                Err(Error::new(Reason::NoDescriptors).detail(self.shown(path)).source(error.into()))
            }
            _ => Err(Error::new(Reason::FileFailed).detail(self.shown(path)).source(error.into())),
        }
    }

    fn path_of(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(std::ffi::OsStr::from_bytes(path)) }
    }

    /// A path for the log.
    fn shown(&self, path: &[u8]) -> String {
        self.path_of(path).to_string_lossy().escape_debug().to_string()
    }

    /// Whether a name is that of a file in another coding, and of which.
    pub(super) fn original_of<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let original = self.siblings.iter().find_map(|coding| name.strip_suffix(ending(*coding).as_bytes()))?;
        (!original.is_empty() && !original.ends_with(b"/")).then_some(original)
    }
}

impl Looked {
    fn of(opened: Opened) -> Self {
        match opened {
            Opened::Folder => Self::Folder,
            Opened::Forbidden(why) => Self::Forbidden(why),
            Opened::Missing | Opened::File(..) => Self::Missing,
        }
    }
}

/// One look.
struct Look<'a> {
    folder: &'a Folder,
    root: BorrowedFd<'a>,
    known: Option<Stamps>,
    now: Instant,
}

impl Look<'_> {
    fn file(&self, path: &Relative<'_>) -> Result<Looked, Error> {
        let path = path.as_bytes();
        // What is sent for another file is not sent for itself.
        if self.folder.original_of(path).is_some_and(|original| self.kind_of(original) == Some(FileType::RegularFile)) {
            return Ok(Looked::Missing);
        }
        self.read(path)
    }

    fn folder(&self, path: &Relative<'_>) -> Result<Looked, Error> {
        let folder = path.as_bytes();
        if let Some(index) = &self.folder.index {
            match self.read(&within(folder, index))? {
                Looked::Missing | Looked::Folder => {}
                found => return Ok(found),
            }
        }
        if !self.folder.browse {
            return Ok(Looked::Missing);
        }
        match beneath::open(self.root, folder, self.folder.symlinks, READ | OFlags::DIRECTORY) {
            Ok(opened) => listing::page(self.folder, self.root, path, opened)
                .map(Looked::Listing)
                .map_err(|error| Error::new(Reason::FileFailed).detail(self.folder.shown(folder)).source(error.into())),
            Err(error) => self.folder.refused(folder, error).map(Looked::of),
        }
    }

    fn read(&self, path: &[u8]) -> Result<Looked, Error> {
        let is_immutable = || match &self.folder.rule {
            Rule::Manifest(manifest) => manifest.has(self.root, self.folder.symlinks, path, self.now),
            Rule::Hashed => is_hashed(path),
            Rule::None => false,
        };
        self.folder.read(|| self.open(path), |original| self.siblings(path, original), path, self.known, is_immutable)
    }

    fn open(&self, path: &[u8]) -> Result<Opened, Error> {
        match beneath::open(self.root, path, self.folder.symlinks, READ) {
            Ok(file) => self.folder.opened(path, file.into()),
            // A folder may be passed through by whoever may not read it.
            Err(Errno::ACCESS) if self.kind_of(path) == Some(FileType::Directory) => Ok(Opened::Folder),
            Err(error) => self.folder.refused(path, error),
        }
    }

    /// What kind of file is at a path, where it can be reached.
    fn kind_of(&self, path: &[u8]) -> Option<FileType> {
        let opened = beneath::open(self.root, path, self.folder.symlinks, LOOK).ok()?;
        Stamp::of(opened).ok().map(|(_, kind)| kind)
    }

    /// The files beside one that hold the same in other codings.
    fn siblings(&self, path: &[u8], original: &Stamp) -> [Option<(File, Stamp)>; 3] {
        Coding::ALL.map(|coding| {
            if original.size == 0 || !self.folder.siblings.contains(&coding) {
                return None;
            }
            let name = [path, ending(coding).as_bytes()].concat();
            let file = beneath::open(self.root, &name, self.folder.symlinks, READ).ok()?;
            match Stamp::of(&file) {
                Ok((stamp, FileType::RegularFile)) => Some((file.into(), stamp)),
                _ => None,
            }
        })
    }
}

/// The path of a file in a folder.
fn within(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// What the name of a file in a coding ends with.
fn ending(coding: Coding) -> &'static str {
    match coding {
        Coding::Brotli => ".br",
        Coding::Zstd => ".zst",
        Coding::Gzip => ".gz",
    }
}

/// Seconds since 1970.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_of_a_failure_is_told_of_the_key_that_is_written() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        let served = Folder::compile(&config::Files::of(root.clone()), &PathPattern::Prefix("/".into()));
        let sent = Folder::bare(&root, Symlinks::Inside);
        let look = |folder: &Folder| folder.look(&Relative::parse(b"link").unwrap(), None, Instant::now());
        for (folder, key) in [(&served, "files.root"), (&sent, "sendfile.roots")] {
            let error = look(folder).unwrap_err();
            assert_eq!((error.reason, &*error.detail), (Reason::RootMissing, &*format!("{key} {}", root.display())));
        }
        std::fs::create_dir(&root).unwrap();
        std::fs::write(outside.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("../file", root.join("link")).unwrap();
        for (folder, advice) in [(&served, "symlinks: follow"), (&sent, "into `sendfile.roots`")] {
            let Looked::Forbidden(why) = look(folder).unwrap() else { panic!() };
            assert!(why.contains(advice), "{why}");
            assert_eq!(why.contains("symlinks:"), folder.key == Key::Files, "{why}");
        }
    }
}
