//! What bytes of files go through: the system, or a test that makes it fail.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;
use rustix::io::{ReadWriteFlags, preadv2};

use super::super::Key;
use super::folder::{Folder, Temporary};

/// Writes and reads files, names and removes them.
pub(in super::super) trait Medium: Send + Sync + fmt::Debug {
    /// Writes all of it.
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// Fills all of it.
    fn read_at(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        file.read_exact_at(bytes, at)
    }

    /// The same, if it is in the page cache, all of it. Whatever else hinders it is told to the thread that waits for it.
    fn read_cached(&self, file: &File, bytes: &mut [u8], at: u64) -> bool {
        let wanted = bytes.len();
        preadv2(file, &mut [IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT) == Ok(wanted)
    }

    /// Gives a file its name, in the place of whatever had it.
    fn publish(&self, folder: &Folder, name: Temporary, key: &Key) -> io::Result<()> {
        folder.publish(name, key)
    }

    /// Removes the file of a key, if there is one.
    fn remove(&self, folder: &Folder, key: &Key) -> io::Result<()> {
        folder.remove(key)
    }

    /// Copies so many bytes from one file to another, within the kernel.
    fn copy(&self, from: &File, mut from_at: u64, to: &File, mut to_at: u64, length: u64) -> io::Result<()> {
        let end = from_at + length;
        while from_at < end {
            let wanted = usize::try_from(end - from_at).unwrap_or(usize::MAX).min(16 << 20);
            if copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), wanted)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Writes whatever the system has not written yet, of the whole file system.
    fn sync(&self, folder: &Folder) -> io::Result<()> {
        folder.sync()
    }
}

/// The system's own.
#[derive(Debug)]
pub(in super::super) struct System;

impl Medium for System {}
