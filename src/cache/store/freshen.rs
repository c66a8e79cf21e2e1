//! A stored response that was found good (304): its fields and its facts change, its body does not (RFC 9111, 4.3.4).

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::HeaderMap;
use rustix::io::Errno;

use super::Key;
use super::disk::layout::PRELUDE;
use super::disk::{Disk, NotWritten, OnFile, parse};
use super::object::{Content, Object};
use super::record::Record;
use super::stale::StaleFrom;
use super::writer::{Meta, NotStored};
use super::{Moment, Store};

/// Files that are copied at once, at most: each takes a thread for as long as that takes, and others want to read.
const MOST_COPIES: usize = 2;

/// What is new of a stored response.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// All of its fields, as they are now.
    pub fields: &'a HeaderMap,
    /// All of its facts, as they are now.
    pub facts: &'a [u8],
    /// When the app was asked.
    pub since: Moment,
    /// The key under which it was looked for first, if it is a variant.
    pub primary: Option<Key>,
}

impl Store {
    /// Stores a response anew, with the body that it has. Whoever is being given the old one is not disturbed. Of one that is on
    /// disk alone, the file is copied by a thread of the disk: until then the old one is found.
    ///
    /// # Errors
    /// A purge has come since the app was asked, the response is not the stored one any more, the new head is too large, or the
    /// disk has too much to do.
    pub fn freshen(self: &Arc<Self>, key: &Key, object: &Arc<Object>, update: &Update<'_>) -> Result<(), NotStored> {
        let tags: Vec<&[u8]> = object.tags().collect();
        let meta = Meta {
            status: object.status(),
            fields: update.fields,
            facts: update.facts,
            host: object.host(),
            path: object.path(),
            tags: &tags,
            since: update.since,
            primary: update.primary,
            length: Some(object.length()),
        };
        let record = meta.record(&self.blocks).ok_or(NotStored::TooLarge)?;
        let (record, content) = match object.content() {
            Content::Behind => {
                let old = object.record();
                let block = [record.as_bytes(), &old.block()[old.end()..]].concat();
                (record.with(self.blocks.of(block)), Content::Behind)
            }
            Content::Pieces(pieces, length) => {
                let pieces: Vec<Bytes> = pieces.to_vec();
                (record, Content::Pieces(pieces.into(), *length))
            }
            Content::File(file) => return self.copy_later(update, record, file),
        };
        // Whoever has stored another, or taken it out, meanwhile, was right.
        self.admit(key, update.primary, update.since.0, record, content, Some(object.id())).map(drop)
    }

    fn copy_later(self: &Arc<Self>, update: &Update<'_>, record: Record, file: &Arc<OnFile>) -> Result<(), NotStored> {
        let disk = self.disk.as_ref().ok_or(NotStored::Disk)?;
        let copying = Copying::begin(self, disk, file).ok_or(NotStored::Disk)?;
        let (since, primary) = (update.since.0, update.primary);
        let weight = record.end() as u64 + file.weight();
        let job = move || {
            let Copying { store, file } = &copying;
            let Some(disk) = &store.disk else { return };
            if let Err(why) = store.copy(disk, since, primary, &record, file) {
                store.note_unwritten(disk, &why);
            }
        };
        disk.threads.write(weight, job).map_err(|_| NotStored::Disk)
    }

    /// Writes the file of an object anew behind another record. Blocks.
    fn copy(
        self: &Arc<Self>,
        disk: &Disk,
        since: u64,
        primary: Option<Key>,
        record: &Record,
        old: &OnFile,
    ) -> Result<(), NotWritten> {
        // Pieces are held against their checksums when they are read: the copy has the same.
        let prelude = parse::prelude(old.key, primary, since, record, old.length, &old.sums, StaleFrom::NEVER);
        let _taken = self.take_disk(disk, prelude.file(), 0)?;
        let unfinished = self.create_file(disk)?;
        let copied =
            copy_body(disk, old, &unfinished.file, (PRELUDE + record.end()) as u64).map_err(NotWritten::Failed);
        let handle = Arc::clone(&unfinished.file);
        let done = copied.and_then(|()| {
            let on_file = |id| Content::File(self.on_file(&prelude, id, handle, old.sums.clone()));
            let is_there = || self.index.stale_from(&old.key, old.id).is_some();
            let enter = || self.enter_streamed(&prelude, record.clone(), Some(old.id), on_file);
            self.publish_streamed(disk, &unfinished, &prelude, record, &old.sums, is_there, enter)
        });
        self.discard_file(disk, &unfinished);
        let object = done?;
        if object.is_purged() {
            self.mark_file(disk, &old.key, object.id());
        }
        Ok(())
    }
}

/// A file that is being copied, or will be.
struct Copying {
    store: Arc<Store>,
    file: Arc<OnFile>,
}

impl Copying {
    /// `None`: it is being copied already, or as many others are as may be.
    fn begin(store: &Arc<Store>, disk: &Disk, file: &Arc<OnFile>) -> Option<Self> {
        if file.is_being_copied.swap(true, Relaxed) {
            return None;
        }
        let copying = Self { store: Arc::clone(store), file: Arc::clone(file) };
        (disk.copies.fetch_add(1, Relaxed) < MOST_COPIES).then_some(copying)
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(disk) = &self.store.disk {
            disk.copies.fetch_sub(1, Relaxed);
        }
        self.file.is_being_copied.store(false, Relaxed);
    }
}

/// By the kernel, which shares the blocks where it can; by hand, where it cannot copy at all.
fn copy_body(disk: &Disk, old: &OnFile, to: &File, to_at: u64) -> io::Result<()> {
    match disk.medium.copy(&old.file, old.at, to, to_at, old.length) {
        Err(error) if is_unheard_of(&error) => copy_by_hand(disk, old, to, to_at),
        copied => copied,
    }
}

/// Whether the system cannot do this, or may not: some file systems, and some sandboxes.
fn is_unheard_of(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::PERM))
}

fn copy_by_hand(disk: &Disk, old: &OnFile, to: &File, to_at: u64) -> io::Result<()> {
    const PART: u64 = 256 << 10;
    let mut room = vec![0; PART.min(old.length) as usize];
    let mut done = 0;
    while done < old.length {
        let part = &mut room[..PART.min(old.length - done) as usize];
        disk.medium.read_at(&old.file, part, old.at + done)?;
        disk.medium.write_at(to, part, to_at + done)?;
        done += part.len() as u64;
    }
    Ok(())
}
