//! A stored response that was found good (304): its fields and its facts change, its body does not (RFC 9111, 4.3.4).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::HeaderMap;
use rustix::fs::copy_file_range;

use super::disk::layout::PRELUDE;
use super::disk::{Disk, NotWritten, OnFile, parse};
use super::key::Key;
use super::object::{Content, Object};
use super::record::Record;
use super::writer::{Meta, NotStored};
use super::{Moment, Store};

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
        let record = meta.record().ok_or(NotStored::TooLarge)?;
        let (record, content) = match object.content() {
            Content::Behind => {
                let old = object.record();
                let block = [record.as_bytes(), &old.block()[old.end()..]].concat();
                (record.with(parse::shared(&block)), Content::Behind)
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
        if file.is_being_copied.swap(true, Relaxed) {
            return Err(NotStored::Disk);
        }
        let (store, old) = (Arc::clone(self), Arc::clone(file));
        let (since, primary) = (update.since.0, update.primary);
        let weight = record.end() as u64 + file.weight();
        let job = move || {
            let Some(disk) = &store.disk else { return };
            if let Err(why) = store.copy(disk, since, primary, &record, &old) {
                store.note_unwritten(disk, &why);
            }
            old.is_being_copied.store(false, Relaxed);
        };
        disk.threads.write(weight, job).map_err(|_| {
            file.is_being_copied.store(false, Relaxed);
            NotStored::Disk
        })
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
        let prelude = parse::prelude(old.key, primary, since, record, old.length, &old.sums, false);
        let _taken = self.take_disk(disk, prelude.file(), 0)?;
        let unfinished = self.create_file(disk)?;
        let copied = copy_body(old, &unfinished.file, (PRELUDE + record.end()) as u64).map_err(NotWritten::Failed);
        let handle = Arc::clone(&unfinished.file);
        let done = copied.and_then(|()| {
            let on_file = |id| Content::File(self.on_file(&prelude, id, handle, old.sums.clone()));
            let is_there = || self.index.is_stale(&old.key, old.id).is_some();
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

/// By the kernel, which shares the blocks where it can.
fn copy_body(old: &OnFile, to: &std::fs::File, to_at: u64) -> io::Result<()> {
    let (mut from, mut to_at, end) = (old.at, to_at, old.at + old.length);
    while from < end {
        let wanted = usize::try_from(end - from).unwrap_or(usize::MAX).min(16 << 20);
        if copy_file_range(&*old.file, Some(&mut from), to, Some(&mut to_at), wanted)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
