//! Which names keys have got: so that no two of the source become one.
//!
//! `Passage` asks for every key that it lets through. Before a stream begins, whoever follows it tells all keys that are there
//! (`cmd::migrate::names`); so what was there and is gone by now comes in the stream, and is met there.
//!
//! Names are compared by 64-bit hashes that nobody outside can foresee; 16 to 36 bytes for each key.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

/// By database of the target.
pub struct Names {
    hasher: RandomState,
    /// Databases of the source may come together: then a key of another database is another key.
    tells_db: bool,
    /// From what a key became to what it was.
    taken: BTreeMap<u32, HashMap<u64, u64>>,
}

impl Names {
    pub fn new(tells_db: bool) -> Self {
        Names {
            hasher: RandomState::new(),
            tells_db,
            taken: BTreeMap::new(),
        }
    }

    /// False: another key has that name.
    pub fn take(&mut self, (db, key): (u32, &[u8]), (new_db, name): (u32, &[u8])) -> bool {
        let origin_db = if self.tells_db { db } else { 0 };
        let origin = self.hasher.hash_one((origin_db, key));
        let taken = self.taken.entry(new_db).or_default();
        *taken.entry(self.hasher.hash_one(name)).or_insert(origin) == origin
    }

    /// The key that had the name is gone.
    pub fn forget(&mut self, new_db: u32, name: &[u8]) {
        if let Some(taken) = self.taken.get_mut(&new_db) {
            taken.remove(&self.hasher.hash_one(name));
        }
    }

    pub fn clear(&mut self) {
        self.taken.clear();
    }

    pub fn clear_db(&mut self, new_db: u32) {
        self.taken.remove(&new_db);
    }

    /// Two databases changed places.
    pub fn swap(&mut self, a: u32, b: u32) {
        let (was_a, was_b) = (self.taken.remove(&a), self.taken.remove(&b));
        let moved = [(b, was_a), (a, was_b)];
        self.taken.extend(
            moved
                .into_iter()
                .filter_map(|(db, names)| Some((db, names?))),
        );
    }
}
