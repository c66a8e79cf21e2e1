//! Reading a file of credentials: never more than a limit, and never from what could keep the reader waiting.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Far more than any such file has.
pub const LARGEST: u64 = 1 << 20;

/// Why a file cannot be used, and what to do: for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong, with the name of the file and the line where there is one. Nothing secret is repeated.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl Unusable {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, " ({})", self.help) }
    }
}

impl std::error::Error for Unusable {}

/// What tells one state of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds: of the content, and of everything else about the file.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// As the file is now; links are followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file that was read.
#[derive(Debug)]
pub struct Contents {
    /// Its bytes: [`LARGEST`] at most.
    pub bytes: Vec<u8>,
    /// What it was when it was opened.
    pub stamp: Stamp,
}

/// Reads a file of at most [`LARGEST`] bytes. Blocks for as long as the disk takes. A pipe, a device or a folder is refused
/// and not waited for. `what` names it in words: "the users".
///
/// # Errors
/// Why it cannot be read.
pub fn read(path: &Path, what: &str) -> Result<Contents, Unusable> {
    let cannot = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path; a relative one starts at the folder of the configuration",
            io::ErrorKind::PermissionDenied => {
                "let the user that Hostler runs as read the file, and enter every folder above it"
            }
            _ => "",
        };
        let said = error.to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        Unusable::new(format!("cannot read {what} in {}: {said}", path.display()), help)
    };
    // Opening a pipe would wait for whoever writes into it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| cannot(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        let message = format!("{} is not a file", path.display());
        return Err(Unusable::new(message, format!("name the file with {what}")));
    }
    let mut bytes = Vec::new();
    (&file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("{} is larger than 1 MiB", path.display());
        return Err(Unusable::new(message, format!("is it the file with {what}?")));
    }
    Ok(Contents { bytes, stamp: Stamp::from(&metadata) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_a_sane_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let message = |path: &Path| read(path, "the users").unwrap_err().message;
        assert!(message(&path).ends_with("No such file or directory"), "{}", message(&path));
        assert!(message(folder.path()).ends_with(" is not a file"));
        assert!(message(Path::new("/dev/zero")).ends_with(" is not a file"));
        std::fs::write(&path, vec![b'#'; LARGEST as usize]).unwrap();
        assert_eq!(read(&path, "the users").unwrap().bytes.len() as u64, LARGEST);
        std::fs::write(&path, vec![b'#'; LARGEST as usize + 1]).unwrap();
        assert!(message(&path).ends_with(" is larger than 1 MiB"));
    }

    #[test]
    fn a_pipe_without_a_writer_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(read(&path, "the users").unwrap_err().message.ends_with(" is not a file"));
    }

    #[test]
    fn a_file_that_was_replaced_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("f"), folder.path().join("new"));
        std::fs::write(&path, "a").unwrap();
        let stamp = Stamp::of(&path).unwrap();
        assert_eq!((Stamp::of(&path).unwrap(), read(&path, "it").unwrap().stamp), (stamp, stamp));
        std::fs::write(&new, "a").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), stamp);
    }
}
