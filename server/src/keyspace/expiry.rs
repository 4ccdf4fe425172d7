//! Which entries of a database expire, ordered by when.
//!
//! Keeps only hashes of keys: the entry itself holds the exact time, and an index entry is good only if both agree.

use std::collections::BTreeSet;

use hashbrown::HashMap;

/// The expiring entries of one database of one shard, soonest first.
#[derive(Debug, Default)]
pub struct ExpiryIndex {
    /// (when in Unix ms, hash of the key)
    by_time: BTreeSet<(i64, u64)>,
    /// Sum of all times, for the average.
    sum_ms: i128,
}

impl ExpiryIndex {
    /// Number of entries with an expiry.
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether no entry expires.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Notes that the entry of this hash changed its expiry from `old` to `new`.
    pub fn change(&mut self, hash: u64, old: Option<i64>, new: Option<i64>) {
        if old == new {
            return;
        }
        if let Some(at) = old
            && self.by_time.remove(&(at, hash))
        {
            self.sum_ms -= i128::from(at);
        }
        if let Some(at) = new
            && self.by_time.insert((at, hash))
        {
            self.sum_ms += i128::from(at);
        }
    }

    /// The entry that expires first: when, and the hash of its key.
    pub fn first(&self) -> Option<(i64, u64)> {
        self.by_time.first().copied()
    }

    /// All of them: when, and the hash of the key.
    pub fn iter(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.by_time.iter().copied()
    }

    /// Those from a random time on. Keys that expire close together are less likely to be met than lone ones.
    pub fn random(
        &self,
        random: &mut fastrand::Rng,
    ) -> Option<impl Iterator<Item = (i64, u64)> + '_> {
        let (first, last) = (self.by_time.first()?.0, self.by_time.last()?.0);
        let from = (random.i64(first..=last), random.u64(..));
        let later = self.by_time.range(from..);
        Some(later.chain(self.by_time.range(..from)).copied())
    }

    /// Average time to live in ms, 0 if nothing expires.
    pub fn average_ttl_ms(&self, now_ms: i64) -> i64 {
        match self.by_time.len() {
            0 => 0,
            n => (self.sum_ms / n as i128 - i128::from(now_ms)).max(0) as i64,
        }
    }

    /// Bytes of heap memory, estimated: a B-tree is about three quarters full.
    pub fn heap_bytes(&self) -> usize {
        self.by_time.len() * (size_of::<(i64, u64)>() * 4 / 3)
    }
}

/// Which hashes of a database have fields that expire, by a time that is not after the first of them.
///
/// A hint: commands change fields without telling, so what stands here may be too early, or about a key that has
/// become something else. It is never too late.
#[derive(Debug, Default)]
pub struct FieldExpiryIndex {
    /// (not after the first field, hash of the key)
    by_time: BTreeSet<(i64, u64)>,
    by_key: HashMap<u64, i64>,
}

impl FieldExpiryIndex {
    /// A field of this key's hash expires at `at`, or all do not before.
    pub fn note(&mut self, hash: u64, at: i64) {
        let known = self.by_key.entry(hash).or_insert(i64::MAX);
        if at < *known {
            self.by_time.remove(&(*known, hash));
            self.by_time.insert((at, hash));
            *known = at;
        }
    }

    /// The key has gone, or its fields stay.
    pub fn forget(&mut self, hash: u64) {
        if let Some(at) = self.by_key.remove(&hash) {
            self.by_time.remove(&(at, hash));
        }
    }

    /// Whether there is no such hash.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The soonest: not after when, and the hash of its key.
    pub fn first(&self) -> Option<(i64, u64)> {
        self.by_time.first().copied()
    }
}
