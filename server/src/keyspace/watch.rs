//! Keys that connections watch for their next EXEC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;

use super::DbIndex;
use super::blob::Blob;

/// Set when a watched key has changed. One for each connection, shared with the shards of its keys.
pub type Dirty = Arc<AtomicBool>;

/// The watched keys of one shard.
#[derive(Default)]
pub struct WatchTable {
    by_key: HashMap<(DbIndex, Blob), Vec<Dirty>>,
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

    /// Sets `dirty` when this key changes.
    pub fn watch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty) {
        let watchers = self.by_key.entry((db, Blob::new(key))).or_default();
        if !watchers.iter().any(|watcher| Arc::ptr_eq(watcher, dirty)) {
            watchers.push(dirty.clone());
        }
    }

    /// Undoes [`WatchTable::watch`].
    pub fn unwatch(&mut self, db: DbIndex, key: &[u8], dirty: &Dirty) {
        let key = (db, Blob::new(key));
        if let Some(watchers) = self.by_key.get_mut(&key) {
            watchers.retain(|watcher| !Arc::ptr_eq(watcher, dirty));
            if watchers.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// These keys have changed.
    pub fn mark(&self, touched: &[(DbIndex, Blob)]) {
        if self.by_key.is_empty() {
            return;
        }
        for key in touched {
            for watcher in self.by_key.get(key).into_iter().flatten() {
                watcher.store(true, Ordering::Release);
            }
        }
    }

    /// All keys of a database have gone or changed places. `existed` tells which keys were there, or are now.
    pub fn mark_database(&self, db: DbIndex, existed: impl Fn(&[u8]) -> bool) {
        for ((watched_db, key), watchers) in &self.by_key {
            if *watched_db == db && existed(key) {
                for watcher in watchers {
                    watcher.store(true, Ordering::Release);
                }
            }
        }
    }
}
