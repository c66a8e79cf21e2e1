//! What is on disk, asked for: read once for all who ask at the same time, by a thread that may wait for the disk.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Key;
use super::admit::PER_MARKER;
use super::counters::count;
use super::disk::{Loaded, is_bad};
use super::index::{Hit, Value};
use super::object::{Names, Object};
use super::record::Kind;
use super::stale::StaleFrom;
use super::{Found, Store};

/// How long somebody waits for a disk: beyond that the app is as fast.
const PATIENCE: Duration = Duration::from_secs(1);

type Waiter = oneshot::Sender<Option<Value>>;

/// What is being read, since when, and who waits for it.
#[derive(Default)]
pub(super) struct Opening(Mutex<HashMap<Key, (Instant, Vec<Waiter>)>>);

/// Whoever wants to wait for a key.
enum Joined {
    /// Has to have it read.
    First,
    /// Waits with others.
    With,
    /// Has come when others had waited for too long.
    Not,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

impl Opening {
    /// Waits for a key.
    fn join(&self, key: Key, waiter: Waiter) -> Joined {
        let mut opening = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, waiters) = opening.entry(key).or_insert_with(|| (Instant::now(), Vec::new()));
        if begun.elapsed() >= PATIENCE {
            return Joined::Not;
        }
        waiters.push(waiter);
        if waiters.len() == 1 { Joined::First } else { Joined::With }
    }

    /// All who wait; whoever comes from now on does not wait with them.
    fn end(&self, key: &Key) -> Vec<Waiter> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        ended.map_or_else(Vec::new, |(_, waiters)| waiters)
    }
}

/// Something that has to be read first.
#[derive(Debug)]
pub struct OnDisk {
    store: Arc<Store>,
    key: Key,
    /// Which object it is, and since when it is stale. `None`: it may be there.
    known: Option<(u64, StaleFrom)>,
}

impl OnDisk {
    /// Reads it. `None`: it is not there, not as it was written, or the disk has too much to do, or hangs.
    pub fn open(self) -> impl Future<Output = Option<Found>> + Send + use<> {
        let Self { store, key, known } = self;
        let (told, answer) = oneshot::channel();
        let done = store.disk.as_ref().map_or(0, |disk| disk.threads.done());
        let asked = store.ask_disk(key, known, told);
        async move {
            if !asked {
                return None;
            }
            let Ok(answer) = timeout(PATIENCE, answer).await else {
                if let Some(disk) = &store.disk {
                    disk.note_hung(done);
                }
                return None;
            };
            match answer.ok()?? {
                Value::Object(object) => Some(Found::Object(object)),
                Value::Vary(names) => Some(Found::Vary(names)),
                Value::Uncacheable(_) => None,
            }
        }
    }
}

impl Store {
    pub(super) fn on_disk(self: &Arc<Self>, key: Key, known: Option<(u64, StaleFrom)>) -> OnDisk {
        OnDisk { store: Arc::clone(self), key, known }
    }

    /// Whether the disk takes the question.
    fn ask_disk(
        self: &Arc<Self>,
        key: Key,
        known: Option<(u64, StaleFrom)>,
        told: oneshot::Sender<Option<Value>>,
    ) -> bool {
        let Some(disk) = self.disk.as_ref().filter(|disk| !disk.hangs()) else {
            count(&self.counters.reads_skipped);
            return false;
        };
        match self.opening.join(key, told) {
            Joined::First => {}
            Joined::With => return true,
            Joined::Not => {
                count(&self.counters.reads_skipped);
                return false;
            }
        }
        let store = Arc::clone(self);
        let asked = disk.threads.read(move || {
            let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.load(&key, known)));
            let waiters = store.opening.end(&key);
            // Some may have come after a purge that was answered for while this was read. No others come now.
            let value = value.unwrap_or_default().filter(|value| store.stands(value));
            for waiter in waiters {
                // Who has left is told nothing.
                let _ = waiter.send(value.clone());
            }
        });
        if asked.is_err() {
            count(&self.counters.reads_skipped);
            self.opening.end(&key);
        }
        asked.is_ok()
    }

    /// Whether something may be given out: no purge has struck it. One that was struck softly is stale.
    fn stands(&self, value: &Value) -> bool {
        let Value::Object(object) = value else { return true };
        let fate = self.rules().verdict(object.since(), object.host(), object.path(), object.tags());
        fate.stays().inspect(|from| object.mark_stale(*from)).is_some()
    }

    /// Reads what is under a key. Blocks.
    fn load(self: &Arc<Self>, key: &Key, known: Option<(u64, StaleFrom)>) -> Option<Value> {
        let disk = self.disk.as_ref()?;
        // The id of what is not known is given when it is.
        let id = known.map_or(0, |(id, _)| id);
        let loaded = match self.read_file(disk, key, id) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                if let Some(gone) = self.index.remove(key, |there| there == id) {
                    self.expel(gone);
                }
                return None;
            }
            Err(error) => {
                // Another may have found it meanwhile.
                let id = known.map(|(id, _)| id).or_else(|| Some(self.index.look(key)?.0)).unwrap_or(0);
                self.found_bad(key, id, &error);
                if known.is_none() && is_bad(&error) {
                    self.remove_file(disk, key);
                }
                self.complain("a response cannot be read", &error);
                return None;
            }
        };
        let found = match known {
            // It may have been replaced, or marked, while it was read.
            Some((id, before)) => {
                let stale_from = self.index.stale_from(key, id);
                stale_from.map(|now| (id, now.min(before).min(loaded.prelude.stale_from)))
            }
            None => self.enter_found(disk, &loaded.prelude, &loaded.record),
        };
        let Some((id, stale_from)) = found else { return self.in_passing(loaded) };
        if loaded.record.kind() == Kind::Vary {
            let weight = loaded.record.as_bytes().len() as u64;
            let names = Value::Vary(Arc::new(Names(loaded.record)));
            self.index.set_value(key, id, names.clone(), weight + PER_MARKER);
            return Some(names);
        }
        let content = loaded.content.with_id(id);
        let object = Arc::new(Object::new(id, loaded.prelude.since, loaded.record, content));
        object.mark_stale(stale_from);
        self.keep_open(key, &object);
        Some(Value::Object(object))
    }

    /// What was read while somebody else found it, or stored another: it is given out, but not kept.
    fn in_passing(&self, loaded: Loaded) -> Option<Value> {
        let Loaded { prelude, record, content } = loaded;
        if let Some(Hit::Memory(value)) = self.index.get(&prelude.key) {
            return Some(value);
        }
        let fate = self.rules().verdict(prelude.since, record.host(), record.path(), record.tags());
        let (id, has_file) = self.index.look(&prelude.key)?;
        let purged = fate.stays().filter(|_| has_file)?;
        if record.kind() == Kind::Vary {
            return Some(Value::Vary(Arc::new(Names(record))));
        }
        // Should it prove not to be as it was written, what was found is dropped: it is the same, if it is not younger.
        let id = if self.index.is_younger(&prelude.key, prelude.since) { 0 } else { id };
        let object = Object::new(id, prelude.since, record, content.with_id(id));
        object.mark_stale(purged.min(prelude.stale_from.told(self.steady.steady())));
        Some(Value::Object(Arc::new(object)))
    }
}
