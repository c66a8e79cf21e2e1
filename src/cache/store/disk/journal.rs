//! The purges whose work is not done: so that nothing comes back that was purged, however the process ends.
//!
//! A purge is written here, and synced, before anybody hears that it is done; its files are removed afterwards. Whoever takes
//! the folder next purges again what is written here, of all files that are older. A record is a length, a checksum of that, a
//! checksum of what follows, and that many bytes: one that is cut short was never answered for. Anything else that is not as it
//! was written may have hidden a purge.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, fdatasync, openat};

use super::super::rules::{Fate, MANY, Purge, Rule};
use super::super::stale::StaleFrom;
use super::folder::Folder;

const NAME: &str = "purges";
/// Beyond this it is emptied, once the work is done. In tests, while they are under load.
const LARGE: u64 = if cfg!(test) { 256 } else { 16 << 10 };
/// Where nobody can tell what was purged, because there is more than this, everything was.
const LARGEST: u64 = 64 << 20;
/// Bytes before what is told of a purge.
const HEAD: usize = 12;
/// The manner of a soft purge of which nobody knows when it was: so they were written at first.
const SOFT: u8 = 0;
const HARD: u8 = 1;
/// The manner of a soft purge behind whose kind its moment stands, in milliseconds. Who does not know it takes the journal for
/// damaged, and everything for purged.
const SOFT_AT: u8 = 2;

#[derive(Debug)]
pub(in super::super) struct Journal {
    file: Mutex<File>,
    /// Of the file. Whoever changes it holds that.
    length: AtomicU64,
}

impl Journal {
    /// Opens that of a folder, or makes it. Where nobody can tell what was purged, everything was, that is older than `now`.
    pub(super) fn open(folder: &Folder, now: u64) -> io::Result<(Self, Vec<Rule>)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = openat(folder.root(), NAME, flags, Mode::RUSR | Mode::WUSR)?.into();
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(LARGEST + 1).read_to_end(&mut bytes)?;
        let (mut rules, length) = match parse(&bytes) {
            Some(read) => read,
            None => Self::strike_all(&file, now)?,
        };
        // Two that came at once may have been written in any order.
        rules.sort_by_key(|rule| rule.at);
        // What was cut short is overwritten later.
        file.set_len(length)?;
        fdatasync(&file)?;
        Ok((Self { file: Mutex::new(file), length: AtomicU64::new(length) }, rules))
    }

    /// Has a journal that is damaged say that everything was purged. What is not yet cut off behind that is damaged still.
    fn strike_all(file: &File, now: u64) -> io::Result<(Vec<Rule>, u64)> {
        tracing::error!("the cache's journal of purges is damaged: everything on disk counts as purged");
        let all = Rule { at: now, what: Purge::All, fate: Fate::Gone };
        let bytes = record(&all);
        file.write_all_at(&bytes, 0)?;
        Ok((vec![all], bytes.len() as u64))
    }

    /// Adds some. They outlive the process when this returns, and the system as well if they are synced.
    pub(super) fn append(&self, rules: &[Rule], is_synced: bool) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.length.load(Relaxed);
        if length > LARGEST {
            // As it is, it says that everything was purged.
            return Ok(());
        }
        let records: Vec<u8> = rules.iter().flat_map(record).collect();
        let written = file.write_all_at(&records, length);
        let written = written.and_then(|()| if is_synced { Ok(fdatasync(&*file)?) } else { Ok(()) });
        match written {
            Ok(()) => self.length.store(length + records.len() as u64, Relaxed),
            // A part of it would hide what comes behind it.
            Err(_) => file.set_len(length)?,
        }
        written
    }

    /// How long it is, if it is worth to be emptied.
    pub(super) fn length(&self, at_any_rate: bool) -> Option<u64> {
        let length = self.length.load(Relaxed);
        (length > 0 && (at_any_rate || length >= LARGE)).then_some(length)
    }

    /// Empties it, if it is as long as it was.
    pub(super) fn clear(&self, expected: u64) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if self.length.load(Relaxed) != expected {
            return Ok(());
        }
        file.set_len(0)?;
        self.length.store(0, Relaxed);
        Ok(fdatasync(&*file)?)
    }
}

fn record(rule: &Rule) -> Vec<u8> {
    let mut body = rule.at.to_le_bytes().to_vec();
    let (manner, moment) = match rule.fate {
        Fate::Gone => (HARD, None),
        Fate::Stays(from) => (SOFT_AT, Some(from.milliseconds().unwrap_or(0))),
    };
    body.push(manner);
    let (kind, first, second): (u8, &[u8], &[u8]) = match &rule.what {
        Purge::Url { host, path } => (0, host, path),
        Purge::Prefix { host, path } => (1, host, path),
        Purge::Host(host) => (2, host, b""),
        Purge::Tag(tag) => (3, tag, b""),
        Purge::All => (4, b"", b""),
    };
    body.push(kind);
    body.extend(moment.map(u64::to_le_bytes).into_iter().flatten());
    body.extend((first.len() as u32).to_le_bytes());
    body.extend_from_slice(first);
    body.extend_from_slice(second);
    let length = (body.len() as u32).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(crc32fast::hash(&length).to_le_bytes());
    record.extend(crc32fast::hash(&body).to_le_bytes());
    record.extend(body);
    record
}

/// The rules, and how many bytes they are. `None`: it is damaged.
fn parse(mut bytes: &[u8]) -> Option<(Vec<Rule>, u64)> {
    let all = bytes.len();
    if all as u64 > LARGEST {
        return None;
    }
    let mut rules = Vec::new();
    // A system that went down may have left zeros where nothing had been synced.
    while bytes.len() >= HEAD && bytes.iter().any(|byte| *byte != 0) {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (length, sum) = (number(0) as usize, number(8));
        if crc32fast::hash(&bytes[..4]) != number(4) {
            return None;
        }
        // It is the last one, and was cut short.
        let Some(body) = bytes.get(HEAD..HEAD + length) else { break };
        rules.push(rule(body).filter(|_| crc32fast::hash(body) == sum && rules.len() < MANY)?);
        bytes = &bytes[HEAD + length..];
    }
    Some((rules, (all - bytes.len()) as u64))
}

fn rule(body: &[u8]) -> Option<Rule> {
    let (at, rest) = body.split_at_checked(8)?;
    let (&[manner, kind], rest) = rest.split_first_chunk::<2>()?;
    let (fate, rest) = match manner {
        SOFT => (Fate::Stays(StaleFrom::EVER), rest),
        HARD => (Fate::Gone, rest),
        SOFT_AT => {
            let (moment, rest) = rest.split_first_chunk::<8>()?;
            (Fate::Stays(StaleFrom::at(u64::from_le_bytes(*moment))), rest)
        }
        _ => return None,
    };
    let (first, rest) = rest.split_at_checked(4)?;
    let length = u32::from_le_bytes(first.try_into().ok()?) as usize;
    let (first, second) = rest.split_at_checked(length)?;
    let what = match kind {
        0 => Purge::Url { host: first.into(), path: second.into() },
        1 => Purge::Prefix { host: first.into(), path: second.into() },
        2 => Purge::Host(first.into()),
        3 => Purge::Tag(first.into()),
        4 => Purge::All,
        _ => return None,
    };
    Some(Rule { at: u64::from_le_bytes(at.try_into().ok()?), what, fate })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Vec<Rule> {
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        let all = [
            Purge::Url { host: bytes("shop"), path: bytes("/a?b") },
            Purge::Prefix { host: bytes("shop"), path: bytes("") },
            Purge::Host(bytes("shop")),
            Purge::Tag(bytes("t")),
            Purge::All,
        ];
        let fate = |at: u64| match at % 2 {
            0 => Fate::Stays(StaleFrom::at(at << 40)),
            _ => Fate::Gone,
        };
        (0..).zip(all).map(|(at, what)| Rule { at, what, fate: fate(at) }).collect()
    }

    fn written(rules: &[Rule]) -> Vec<u8> {
        rules.iter().flat_map(record).collect()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_short_was_never_answered_for() {
        let (rules, bytes) = (rules(), written(&rules()));
        for length in 0..=bytes.len() {
            let whole = (0..=rules.len()).rev().find(|count| written(&rules[..*count]).len() <= length).unwrap();
            let cut = &bytes[..length];
            let zeros = [&bytes[..written(&rules[..whole]).len()], &[0; 100]].concat();
            for read in [parse(cut), parse(&zeros)] {
                let expected = (rules[..whole].to_vec(), written(&rules[..whole]).len() as u64);
                assert_eq!(read, Some(expected), "{length}");
            }
        }
    }

    /// As soft purges were written at first.
    fn without_moment(at: u64) -> Vec<u8> {
        let body = [&at.to_le_bytes()[..], &[SOFT, 3], &1_u32.to_le_bytes(), b"t"].concat();
        let length = (body.len() as u32).to_le_bytes();
        let [of_length, of_body] = [&length[..], &body].map(|bytes| crc32fast::hash(bytes).to_le_bytes());
        [&length[..], &of_length, &of_body, &body].concat()
    }

    #[test]
    fn a_journal_without_moments_is_read_and_stays_as_it_is_and_its_purges_were_at_any_time() {
        let path = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::take(path.path()).unwrap();
        let old: Vec<u8> = (1..100).flat_map(without_moment).collect();
        let cut = [&old[..], &without_moment(100)[..20]].concat();
        std::fs::write(path.path().join(NAME), cut).unwrap();
        let rule = |at| Rule { at, what: Purge::Tag(b"t".as_slice().into()), fate: Fate::Stays(StaleFrom::EVER) };
        let (journal, found) = Journal::open(&folder, 200).unwrap();
        assert_eq!(found, (1..100).map(rule).collect::<Vec<_>>());
        assert_eq!(std::fs::read(path.path().join(NAME)).unwrap(), old, "written anew it could be cut short");
        journal.append(&rules(), true).unwrap();
        assert_eq!(Journal::open(&folder, 200).unwrap().1.len(), 99 + rules().len());
    }

    #[test]
    fn a_record_that_is_not_as_it_was_written_is_noticed() {
        let bytes = written(&rules());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(parse(&changed), None, "bit {bit} of {at}");
            }
        }
        assert_eq!(parse(&vec![0; LARGEST as usize + 1]), None, "more than there may be");
    }

    #[test]
    fn a_journal_keeps_what_it_was_told_until_it_is_emptied() {
        let path = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::take(path.path()).unwrap();
        let open = || Journal::open(&folder, 99).unwrap();
        let (journal, found) = open();
        assert_eq!(found, []);
        journal.append(&rules()[..2], false).unwrap();
        journal.append(&rules()[2..], false).unwrap();
        let file = std::fs::OpenOptions::new().append(true).open(path.path().join(NAME)).unwrap();
        std::io::Write::write_all(&mut &file, &record(&rules()[0])[..9]).unwrap();
        let (journal, found) = open();
        assert_eq!(found, rules(), "and what was cut short is gone");
        let last = Rule { at: 9, ..rules()[0].clone() };
        journal.append(std::slice::from_ref(&last), true).unwrap();
        assert_eq!(open().1, [rules(), vec![last]].concat());
        assert_eq!(journal.length(false), None, "it is small");
        let length = journal.length(true).unwrap();
        journal.clear(length - 1).unwrap();
        assert_ne!(open().1, [], "something has come");
        journal.clear(length).unwrap();
        assert_eq!(open().1, []);
    }

    #[test]
    fn where_nobody_can_tell_what_was_purged_everything_was() {
        let path = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::take(path.path()).unwrap();
        std::fs::write(path.path().join(NAME), [1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let all = [Rule { at: 99, what: Purge::All, fate: Fate::Gone }];
        assert_eq!(Journal::open(&folder, 99).unwrap().1, all);
        assert_eq!(Journal::open(&folder, 100).unwrap().1, all, "whoever comes next hears of it");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
            let _ = rule(&bytes);
        }
    }
}
