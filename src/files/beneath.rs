//! Opening what lies below a folder, and nothing else: the kernel holds to it (openat2(2)), whatever is renamed meanwhile.
//!
//! | `symlinks` | a link is followed |
//! |---|---|
//! | `inside` | if it is relative and leads nowhere but below the folder |
//! | `follow` | always |
//! | `never` | never |
//!
//! Links of /proc that are no paths ("magic links") are never followed. Where the kernel, or a sandbox, has no openat2 (Linux
//! before 5.6), the path is walked folder by folder, and `inside` follows no link at all.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::config::Symlinks;

/// To read. Neither a pipe without a writer nor a device keeps the caller waiting, and none becomes our terminal.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// To look at. Needs no right to read.
pub(super) const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// How often the kernel is asked again that could not tell, because something was being renamed just then.
const TRIES: usize = 16;

/// Whether there is no openat2. Found out once.
static IS_WITHOUT: AtomicBool = AtomicBool::new(false);

/// Opens the folder itself, which the operator has named: however it is reached.
pub(super) fn open_root(root: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, root, flags, Mode::empty())
}

/// Opens what lies at `path` below `root`; an empty one is the root. `path` has no `.` and `..`, and does not begin with a slash.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], symlinks: Symlinks, flags: OFlags) -> Result<OwnedFd, Errno> {
    debug_assert!(!path.starts_with(b"/") && !path.split(|byte| *byte == b'/').any(|part| part == b".."));
    let path = if path.is_empty() { b"." } else { path };
    if IS_WITHOUT.load(Ordering::Relaxed) {
        return by_steps(root, path, symlinks, flags);
    }
    let resolve = resolve(symlinks);
    for _ in 0..TRIES {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) if is_without(root) => {
                IS_WITHOUT.store(true, Ordering::Relaxed);
                tracing::warn!(
                    "this kernel, or the sandbox, has no openat2: files are looked for folder by folder, and `symlinks: inside` follows no link"
                );
                return by_steps(root, path, symlinks, flags);
            }
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// The same as far as the kernel can tell from memory, without asking a disk or a server. `None`: it cannot.
pub(super) fn peek(
    root: BorrowedFd<'_>,
    path: &[u8],
    symlinks: Symlinks,
    flags: OFlags,
) -> Option<Result<OwnedFd, Errno>> {
    let path = if path.is_empty() { b"." } else { path };
    peek_at(root, path, flags, resolve(symlinks))
}

/// The same for the folder itself.
pub(super) fn peek_root(root: &Path) -> Option<OwnedFd> {
    peek_at(CWD, root, LOOK | OFlags::DIRECTORY, ResolveFlags::empty())?.ok()
}

fn peek_at(
    from: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Option<Result<OwnedFd, Errno>> {
    if IS_WITHOUT.load(Ordering::Relaxed) {
        return None;
    }
    match openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED) {
        // Linux before 5.12 does not know of it (EINVAL).
        Err(Errno::AGAIN | Errno::INTR | Errno::INVAL | Errno::NOSYS | Errno::PERM) => None,
        result => Some(result),
    }
}

fn resolve(symlinks: Symlinks) -> ResolveFlags {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match symlinks {
        Symlinks::Inside => inside,
        Symlinks::Follow => ResolveFlags::NO_MAGICLINKS,
        Symlinks::Never => inside | ResolveFlags::NO_SYMLINKS,
    }
}

/// Whether it is the call that fails, and not what was asked for.
fn is_without(root: BorrowedFd<'_>) -> bool {
    let probe = openat2(root, ".", LOOK, Mode::empty(), ResolveFlags::BENEATH);
    matches!(probe, Err(Errno::NOSYS | Errno::PERM))
}

/// The same without openat2. What is renamed meanwhile is another folder that was opened, or one that was not.
fn by_steps(root: BorrowedFd<'_>, path: &[u8], symlinks: Symlinks, flags: OFlags) -> Result<OwnedFd, Errno> {
    if symlinks == Symlinks::Follow {
        return openat(root, path, flags, Mode::empty());
    }
    let mut folder: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let from = folder.as_ref().map_or(root, std::os::fd::AsFd::as_fd);
        let Some(slash) = memchr::memchr(b'/', rest) else {
            return openat(from, rest, flags | OFlags::NOFOLLOW, Mode::empty());
        };
        let flags = LOOK | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        folder = Some(openat(from, &rest[..slash], flags, Mode::empty())?);
        rest = &rest[slash + 1..];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with files, folders and links of every kind, beside a folder that nobody may get into.
    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("root/a/b")).unwrap();
        fs::create_dir(path("outside")).unwrap();
        fs::write(path("outside/secret"), "secret").unwrap();
        fs::write(path("root/a/file"), "file").unwrap();
        fs::write(path("root/a/b/deep"), "deep").unwrap();
        symlink("file", path("root/a/link")).unwrap();
        symlink("../a/b", path("root/a/folder")).unwrap();
        symlink("../../root/a/file", path("root/a/out_and_in")).unwrap();
        symlink(path("root/a/file"), path("root/absolute")).unwrap();
        symlink("../outside/secret", path("root/escape")).unwrap();
        symlink("../outside", path("root/escapes")).unwrap();
        symlink("loop", path("root/loop")).unwrap();
        symlink("/proc/self/root", path("root/magic")).unwrap();
        folder
    }

    type Open = fn(BorrowedFd<'_>, &[u8], Symlinks, OFlags) -> Result<OwnedFd, Errno>;

    fn content(open: Open, folder: &tempfile::TempDir, path: &str, symlinks: Symlinks) -> Result<String, Errno> {
        let root = open_root(&folder.path().join("root"), LOOK | OFlags::DIRECTORY).unwrap();
        let mut text = String::new();
        fs::File::from(open(root.as_fd(), path.as_bytes(), symlinks, READ)?).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn links_are_followed_as_far_as_the_operator_lets_them() {
        use Symlinks::{Follow, Inside, Never};
        let folder = tree();
        for (path, inside, follow, never) in [
            ("a/file", Ok("file"), Ok("file"), Ok("file")),
            ("a/b/deep", Ok("deep"), Ok("deep"), Ok("deep")),
            ("a/link", Ok("file"), Ok("file"), Err(Errno::LOOP)),
            ("a/folder/deep", Ok("deep"), Ok("deep"), Err(Errno::LOOP)),
            ("a/out_and_in", Err(Errno::XDEV), Ok("file"), Err(Errno::LOOP)),
            ("absolute", Err(Errno::XDEV), Ok("file"), Err(Errno::LOOP)),
            ("escape", Err(Errno::XDEV), Ok("secret"), Err(Errno::LOOP)),
            ("escapes/secret", Err(Errno::XDEV), Ok("secret"), Err(Errno::LOOP)),
            ("escapes/none", Err(Errno::XDEV), Err(Errno::NOENT), Err(Errno::LOOP)),
            ("loop", Err(Errno::LOOP), Err(Errno::LOOP), Err(Errno::LOOP)),
            ("magic/etc/passwd", Err(Errno::XDEV), Err(Errno::LOOP), Err(Errno::LOOP)),
            ("none", Err(Errno::NOENT), Err(Errno::NOENT), Err(Errno::NOENT)),
            ("a/file/x", Err(Errno::NOTDIR), Err(Errno::NOTDIR), Err(Errno::NOTDIR)),
            ("a\0b", Err(Errno::INVAL), Err(Errno::INVAL), Err(Errno::INVAL)),
        ] {
            for (symlinks, expected) in [(Inside, inside), (Follow, follow), (Never, never)] {
                let found = content(open, &folder, path, symlinks);
                assert_eq!(found.as_deref().map_err(|error| *error), expected, "{path} {symlinks:?}");
            }
        }
    }

    #[test]
    fn without_openat2_no_link_is_followed_but_where_all_are() {
        let folder = tree();
        for symlinks in [Symlinks::Inside, Symlinks::Never] {
            for path in ["a/file", "a/b/deep"] {
                assert!(content(by_steps, &folder, path, symlinks).is_ok(), "{path}");
            }
            for path in
                ["a/link", "a/folder/deep", "absolute", "escape", "escapes/secret", "loop", "magic/etc/passwd", "none"]
            {
                assert!(content(by_steps, &folder, path, symlinks).is_err(), "{path}");
            }
        }
        assert_eq!(content(by_steps, &folder, "escape", Symlinks::Follow).unwrap(), "secret");
    }

    #[test]
    fn what_the_kernel_remembers_is_told_without_a_disk() {
        let folder = tree();
        let root = open_root(&folder.path().join("root"), LOOK | OFlags::DIRECTORY).unwrap();
        let peeked = |path: &[u8]| peek(root.as_fd(), path, Symlinks::Inside, LOOK).map(|found| found.map(drop));
        // Looked for a moment ago; there may be no memory for it all the same.
        for path in ["a/file", "none", "escape"] {
            let found = open(root.as_fd(), path.as_bytes(), Symlinks::Inside, READ).map(drop);
            assert!(peeked(path.as_bytes()).is_none_or(|peeked| peeked == found), "{path}");
        }
        assert!(peek_root(&folder.path().join("nowhere")).is_none());
    }

    #[test]
    fn neither_pipe_nor_socket_keeps_anybody_waiting() {
        let folder = tree();
        let root = folder.path().join("root");
        rustix::fs::mknodat(CWD, root.join("pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let opened = open_root(&root, LOOK | OFlags::DIRECTORY).unwrap();
        assert!(open(opened.as_fd(), b"pipe", Symlinks::Inside, READ).is_ok());
        assert_eq!(open(opened.as_fd(), b"socket", Symlinks::Inside, READ).unwrap_err(), Errno::NXIO);
        assert!(open(opened.as_fd(), b"socket", Symlinks::Inside, LOOK).is_ok());
    }
}
