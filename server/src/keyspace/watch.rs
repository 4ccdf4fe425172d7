//! Keys that connections watch for their next EXEC.
//!
//! A key whose time had come when it was watched is as good as gone: that it goes changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;

use super::DbIndex;
use super::blob::Blob;

/// Set when a watched key has changed. One for each connection, shared with the shards of its keys.
pub type Dirty = Arc<AtomicBool>;

/// A key in a database, to one who watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not there.
    Absent,
    /// It is there, and its time has come.
    Expired,
    /// It is there.
    Live,
}

struct Watcher {
    dirty: Dirty,
    /// The key was there with its time past, and has not gone yet.
    was_expired: bool,
}

/// The watched keys of one shard.
#[derive(Default)]
pub struct WatchTable {
    by_key: HashMap<(DbIndex, Blob), Vec<Watcher>>,
}

impl WatchTable {
    /// Whether nobody watches anything here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Number of watched keys.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Sets `dirty` when this key changes. `was_expired`: its time has come already.
    pub fn watch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty, was_expired: bool) {
        let watchers = self.by_key.entry((db, Blob::new(key))).or_default();
        if !watchers
            .iter()
            .any(|watcher| Arc::ptr_eq(&watcher.dirty, dirty))
        {
            watchers.push(Watcher {
                dirty: dirty.clone(),
                was_expired,
            });
        }
    }

    /// Whether a watched key was there with its time past, and has not gone since; `None` if it is not watched here.
    pub fn was_expired(&self, db: DbIndex, key: &[u8], dirty: &Dirty) -> Option<bool> {
        let watchers = self.by_key.get(&(db, Blob::new(key)))?;
        watchers
            .iter()
            .find(|watcher| Arc::ptr_eq(&watcher.dirty, dirty))
            .map(|watcher| watcher.was_expired)
    }

    /// Undoes [`WatchTable::watch`].
    pub fn unwatch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty) {
        let key = (db, Blob::new(key));
        if let Some(watchers) = self.by_key.get_mut(&key) {
            watchers.retain(|watcher| !Arc::ptr_eq(&watcher.dirty, dirty));
            if watchers.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// These keys have changed; `exists` tells which are there now.
    pub fn mark(&mut self, touched: &[(DbIndex, Blob)], exists: impl Fn(DbIndex, &[u8]) -> bool) {
        if self.by_key.is_empty() {
            return;
        }
        for key in touched {
            let Some(watchers) = self.by_key.get_mut(key) else {
                continue;
            };
            let is_there = exists(key.0, &key.1);
            for watcher in watchers {
                if watcher.was_expired && !is_there {
                    watcher.was_expired = false;
                } else {
                    watcher.dirty.store(true, Ordering::Release);
                }
            }
        }
    }

    /// All keys of a database have gone or changed places: what each was, and what it is now.
    pub fn mark_database(
        &mut self,
        db: DbIndex,
        before: impl Fn(&[u8]) -> Presence,
        after: impl Fn(&[u8]) -> Presence,
    ) {
        for ((watched_db, key), watchers) in &mut self.by_key {
            if *watched_db != db {
                continue;
            }
            let (before, after) = (before(key), after(key));
            if before == Presence::Absent && after == Presence::Absent {
                continue;
            }
            for watcher in watchers {
                match after {
                    Presence::Absent if watcher.was_expired => watcher.was_expired = false,
                    Presence::Expired if watcher.was_expired => {}
                    Presence::Expired if before == Presence::Absent => watcher.was_expired = true,
                    _ => watcher.dirty.store(true, Ordering::Release),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_key_may_go_but_not_come_back() {
        let db = DbIndex(0);
        let touched = [(db, Blob::new(b"k"))];
        for (was_expired, is_there, want) in [
            (false, false, true),
            (false, true, true),
            (true, false, false),
            (true, true, true),
        ] {
            let (mut table, dirty) = (WatchTable::default(), Dirty::default());
            table.watch(db, b"k", &dirty, was_expired);
            table.mark(&touched, |_, _| is_there);
            let name = format!("expired {was_expired}, there {is_there}");
            assert_eq!(dirty.load(Ordering::Relaxed), want, "{name}");
            table.mark(&touched, |_, _| true);
            assert!(dirty.load(Ordering::Relaxed), "{name}: it came back");
        }
    }

    #[test]
    fn databases_change_places() {
        use Presence::*;
        let db = DbIndex(0);
        for (was_expired, before, after, want) in [
            (false, Absent, Absent, false),
            (false, Live, Absent, true),
            (false, Absent, Live, true),
            (false, Absent, Expired, false),
            (true, Expired, Absent, false),
            (true, Expired, Expired, false),
            (true, Expired, Live, true),
        ] {
            let (mut table, dirty) = (WatchTable::default(), Dirty::default());
            table.watch(db, b"k", &dirty, was_expired);
            table.mark_database(db, |_| before, |_| after);
            let name = format!("expired {was_expired}, {before:?} to {after:?}");
            assert_eq!(dirty.load(Ordering::Relaxed), want, "{name}");
        }
    }
}
