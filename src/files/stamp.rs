//! What tells one state of a file from the next without reading it.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, StatxTimestamp, fstat, major, minor, statx};
use rustix::io::Errno;

/// A file whose content has changed this long ago or less may change again without a sign: some file systems keep times to two
/// seconds.
const SETTLES: i64 = 2;

/// One state of a file. Two files, and two states of one, have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: (u32, u32),
    inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds: of the content, and of everything else about the file.
    pub(super) modified: (i64, u32),
    pub(super) changed: (i64, u32),
}

impl Stamp {
    /// Of an open file, and what kind of file that is.
    pub(super) fn of(file: impl AsFd) -> Result<(Self, FileType), Errno> {
        Self::ask(file, AtFlags::empty())
    }

    /// The same as far as it is known without asking a disk or a server.
    pub(super) fn at_hand(file: impl AsFd) -> Result<(Self, FileType), Errno> {
        Self::ask(file, AtFlags::STATX_DONT_SYNC)
    }

    fn ask(file: impl AsFd, how: AtFlags) -> Result<(Self, FileType), Errno> {
        match statx(&file, "", AtFlags::EMPTY_PATH | how, StatxFlags::BASIC_STATS) {
            Ok(stat) => {
                let time = |at: StatxTimestamp| (at.tv_sec, at.tv_nsec);
                let stamp = Self {
                    device: (stat.stx_dev_major, stat.stx_dev_minor),
                    inode: stat.stx_ino,
                    size: stat.stx_size,
                    modified: time(stat.stx_mtime),
                    changed: time(stat.stx_ctime),
                };
                Ok((stamp, FileType::from_raw_mode(stat.stx_mode.into())))
            }
            // Sandboxes without statx.
            Err(Errno::NOSYS | Errno::PERM) => fstat(file).map(|stat| Self::from_stat(&stat)),
            Err(error) => Err(error),
        }
    }

    #[allow(clippy::unnecessary_cast, reason = "what the fields are differs between processors")]
    fn from_stat(stat: &Stat) -> (Self, FileType) {
        let stamp = Self {
            device: (major(stat.st_dev as u64), minor(stat.st_dev as u64)),
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        };
        (stamp, FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether an open file is still what it was, as far as that is known without asking a disk or a server.
    pub(super) fn is_still_of(&self, file: &File) -> bool {
        Self::at_hand(file).is_ok_and(|(now, _)| now == *self)
    }

    /// Whether its content has been as it is for so long, at `now` in seconds since 1970, that it cannot change any more
    /// without another stamp.
    pub(super) fn is_settled(&self, now: i64) -> bool {
        !(0..=SETTLES).contains(&now.saturating_sub(self.modified.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_has_changed_is_known() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one").unwrap();
        let (stamp, kind) = Stamp::of(&file).unwrap();
        assert_eq!((stamp.size, kind), (3, FileType::RegularFile));
        assert!(stamp.is_still_of(&file));
        file.write_all(b"two").unwrap();
        assert!(!stamp.is_still_of(&file));
        assert_ne!(Stamp::of(&file).unwrap().0, stamp);
        assert_eq!(Stamp::of(&file), Ok(Stamp::from_stat(&fstat(&file).unwrap())), "however it is asked");
    }

    #[test]
    fn a_file_settles() {
        let file = tempfile::tempfile().unwrap();
        let (stamp, _) = Stamp::of(&file).unwrap();
        let written = stamp.modified.0;
        let settled = [0, 2, 3, 100].map(|later| stamp.is_settled(written + later));
        assert_eq!(settled, [false, false, true, true]);
        assert!(stamp.is_settled(written - 10), "a clock that goes wrong elsewhere");
    }
}
