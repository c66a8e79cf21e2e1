//! What bytes of files go through: the system, or a test that makes it fail.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::key::Key;
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

    /// Gives a file its name, in the place of whatever had it.
    fn publish(&self, folder: &Folder, name: Temporary, key: &Key) -> io::Result<()> {
        folder.publish(name, key)
    }

    /// Removes the file of a key, if there is one.
    fn remove(&self, folder: &Folder, key: &Key) -> io::Result<()> {
        folder.remove(key)
    }
}

/// The system's own.
#[derive(Debug)]
pub(in super::super) struct System;

impl Medium for System {}
