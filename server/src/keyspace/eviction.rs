//! Which key goes when memory is short.
//!
//! As in Redis: a few keys are drawn at random, the best of them join a small pool of candidates, and the best of the pool goes.
//! So the choice nears the exact order (least recently used, least often used) at the price of a few looks. The soonest to
//! expire is known exactly.
//!
//! `command::eviction` asks and removes; nothing here changes an entry.

use super::blob::Blob;
use super::entry::Entry;
use super::settings::Settings;
use super::{DbIndex, Key, Keyspace, hash};
use crate::config::words::MaxmemoryPolicy;

/// Candidates that are kept from one choice to the next.
const POOL_LEN: usize = 16;

/// Candidates, worst first: the last goes first.
#[derive(Default)]
pub struct Pool {
    candidates: Vec<Candidate>,
    /// Where the random policies go on.
    next_db: u32,
}

struct Candidate {
    /// How good it is to evict: idle seconds, or how seldom it was used.
    score: u64,
    db: DbIndex,
    key: Blob,
}

impl Pool {
    fn offer(&mut self, score: u64, db: DbIndex, key: &Blob) {
        let is_known = |known: &Candidate| known.db == db && known.key == *key;
        if self.candidates.iter().any(is_known) {
            return;
        }
        let mut at = self.candidates.partition_point(|known| known.score < score);
        if self.candidates.len() == POOL_LEN {
            if at == 0 {
                return;
            }
            self.candidates.remove(0);
            at -= 1;
        }
        let candidate = Candidate {
            score,
            db,
            key: key.clone(),
        };
        self.candidates.insert(at, candidate);
        debug_assert!(self.candidates.is_sorted_by_key(|known| known.score));
    }
}

impl Keyspace {
    /// The key that should go next, if there is one that may go. `may_go` is asked about each candidate.
    pub fn choose_victim(
        &mut self,
        settings: &Settings,
        now_ms: i64,
        random: &mut fastrand::Rng,
        may_go: impl Fn(&Keyspace, DbIndex, Key<'_>) -> bool,
    ) -> Option<(DbIndex, Blob)> {
        let policy = settings.eviction_policy;
        match policy {
            MaxmemoryPolicy::NoEviction => None,
            MaxmemoryPolicy::VolatileTtl => self.soonest_to_expire(may_go),
            MaxmemoryPolicy::AllkeysRandom | MaxmemoryPolicy::VolatileRandom => {
                self.any_key(policy.is_volatile(), random, may_go)
            }
            MaxmemoryPolicy::AllkeysLru
            | MaxmemoryPolicy::VolatileLru
            | MaxmemoryPolicy::AllkeysLfu
            | MaxmemoryPolicy::VolatileLfu => {
                // Twice: all in the pool may have gone, or be held.
                (0..2).find_map(|_| {
                    self.fill_pool(settings, now_ms, random);
                    self.best_of_pool(policy.is_volatile(), &may_go)
                })
            }
        }
    }

    fn soonest_to_expire(
        &self,
        may_go: impl Fn(&Keyspace, DbIndex, Key<'_>) -> bool,
    ) -> Option<(DbIndex, Blob)> {
        let mut soonest: Option<(i64, DbIndex, &Entry)> = None;
        for (n, database) in self.databases.iter().enumerate() {
            let db = DbIndex(n as u32);
            // The first few, should others hold the very first.
            for (at, hash) in database.expiry.iter().take(POOL_LEN) {
                if soonest.as_ref().is_some_and(|(best, ..)| *best <= at) {
                    break;
                }
                let entry = self.expiring(db, at, hash);
                if may_go(self, db, Key::new(entry.key())) {
                    soonest = Some((at, db, entry));
                    break;
                }
            }
        }
        soonest.map(|(_, db, entry)| (db, entry.key().clone()))
    }

    fn any_key(
        &mut self,
        is_volatile: bool,
        random: &mut fastrand::Rng,
        may_go: impl Fn(&Keyspace, DbIndex, Key<'_>) -> bool,
    ) -> Option<(DbIndex, Blob)> {
        let count = self.database_count();
        for _ in 0..count {
            let db = DbIndex(self.eviction.next_db % count);
            self.eviction.next_db = (db.0 + 1) % count;
            let found = self.draw(db, is_volatile, POOL_LEN, random);
            let victim = found
                .iter()
                .find(|entry| may_go(self, db, Key::new(entry.key())));
            if let Some(entry) = victim {
                return Some((db, entry.key().clone()));
            }
        }
        None
    }

    fn fill_pool(&mut self, settings: &Settings, now_ms: i64, random: &mut fastrand::Rng) {
        let is_volatile = settings.eviction_policy.is_volatile();
        let mut pool = std::mem::take(&mut self.eviction);
        for db in (0..self.database_count()).map(DbIndex) {
            for entry in self.draw(db, is_volatile, settings.eviction_samples, random) {
                let access = entry.access();
                let score = if settings.lfu {
                    255 - u64::from(access.lfu_counter(now_ms, settings.lfu_decay_time))
                } else {
                    u64::from(access.idle_s(now_ms))
                };
                pool.offer(score, db, entry.key());
            }
        }
        self.eviction = pool;
    }

    fn best_of_pool(
        &mut self,
        is_volatile: bool,
        may_go: impl Fn(&Keyspace, DbIndex, Key<'_>) -> bool,
    ) -> Option<(DbIndex, Blob)> {
        while let Some(Candidate { db, key, .. }) = self.eviction.candidates.pop() {
            if db.0 >= self.database_count() {
                continue;
            }
            let known = Key::new(&key);
            let entry = self.get(db, known);
            let is_there =
                entry.is_some_and(|entry| !is_volatile || entry.expire_at_ms().is_some());
            if is_there && may_go(self, db, known) {
                return Some((db, key));
            }
        }
        None
    }

    /// Up to `count` entries of a database, drawn at random; only those that expire if `is_volatile`.
    fn draw(
        &self,
        db: DbIndex,
        is_volatile: bool,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<&Entry> {
        let database = self.database(db);
        let mut drawn = Vec::with_capacity(count);
        let candidates = if is_volatile {
            database.expiry.len()
        } else {
            database.entries.len()
        };
        if candidates == 0 {
            return drawn;
        }
        // Where one key in four or more expires, drawing from all finds enough of them.
        let is_dense = candidates * 4 >= database.entries.len();
        let mut draws = if is_dense { count * 4 } else { 0 };
        while draws > 0 && drawn.len() < count {
            draws -= 1;
            let entry = database.entries.random(|| random.u64(..));
            drawn.extend(entry.filter(|entry| !is_volatile || entry.expire_at_ms().is_some()));
        }
        if drawn.is_empty() && is_volatile {
            let from = database.expiry.random(random);
            let near = from.into_iter().flatten().take(count);
            drawn.extend(near.map(|(at, hash)| self.expiring(db, at, hash)));
        }
        drawn
    }

    /// The entry that an element of the expiry index names.
    fn expiring(&self, db: DbIndex, at: i64, hash: u64) -> &Entry {
        let entry = self.database(db).entries.find_by_hash(hash, |entry| {
            entry.expire_at_ms() == Some(at) && hash::of(entry.key()) == hash
        });
        entry.expect("the expiry index names an entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::NoObserver;
    use crate::keyspace::entry::Access;
    use crate::keyspace::value::Value;

    const NOW_MS: i64 = 1_700_000_000_000;
    const DB: DbIndex = DbIndex(0);

    /// A hundred keys, `k0` the least recently and least often used; every third expires, `k99` first.
    fn keyspace(lfu: bool) -> Keyspace {
        let mut keyspace = Keyspace::new(2, Box::new(NoObserver));
        for n in 0..100i64 {
            let access = if lfu {
                Access(Access::new_lfu(NOW_MS).0 & !0xff | (n as u32 + 1))
            } else {
                Access::at(NOW_MS - (100 - n) * 1000)
            };
            let name = format!("k{n}");
            let key = Key::new(name.as_bytes());
            let mut entry = keyspace.insert(DB, key, Value::Int(n), access);
            if n % 3 == 0 {
                entry.set_expire_at_ms(Some(NOW_MS + (1000 - n) * 1000));
            }
        }
        keyspace
    }

    fn evicted(policy: MaxmemoryPolicy, count: usize) -> Vec<i64> {
        let settings = Settings {
            eviction_policy: policy,
            eviction_samples: 10,
            lfu: policy.is_lfu(),
            ..Settings::default()
        };
        let mut keyspace = keyspace(policy.is_lfu());
        let mut random = fastrand::Rng::with_seed(3);
        let mut gone = Vec::new();
        while gone.len() < count {
            let victim = keyspace.choose_victim(&settings, NOW_MS, &mut random, |_, _, _| true);
            let Some((db, key)) = victim else { break };
            let entry = keyspace.remove(db, Key::new(&key)).expect("it was chosen");
            let Value::Int(n) = entry.value() else {
                panic!("the values are numbers")
            };
            gone.push(*n);
        }
        gone
    }

    #[test]
    fn those_used_longest_ago_or_least_often_go_first() {
        use MaxmemoryPolicy::*;
        for (policy, is_volatile) in [
            (AllkeysLru, false),
            (AllkeysLfu, false),
            (VolatileLru, true),
            (VolatileLfu, true),
        ] {
            let gone = evicted(policy, 20);
            let average = gone.iter().sum::<i64>() as f64 / gone.len() as f64;
            assert_eq!(gone.len(), 20, "{policy:?}");
            // In exact order it would be 9.5 of all, 28.5 of those that expire; by chance 49.5.
            let bound = if is_volatile { 35.0 } else { 20.0 };
            assert!(average < bound, "{policy:?}: {average} {gone:?}");
            assert!(!is_volatile || gone.iter().all(|n| n % 3 == 0), "{gone:?}");
        }
    }

    #[test]
    fn the_soonest_to_expire_goes_first_and_no_other() {
        let gone = evicted(MaxmemoryPolicy::VolatileTtl, 100);
        let want: Vec<i64> = (0..100).rev().filter(|n| n % 3 == 0).collect();
        assert_eq!(gone, want);
    }

    #[test]
    fn random_policies_reach_every_key_that_may_go() {
        let mut gone = evicted(MaxmemoryPolicy::AllkeysRandom, 200);
        gone.sort_unstable();
        assert!(gone.into_iter().eq(0..100));
        let mut gone = evicted(MaxmemoryPolicy::VolatileRandom, 200);
        gone.sort_unstable();
        assert!(gone.into_iter().eq((0..100).filter(|n| n % 3 == 0)));
        assert!(evicted(MaxmemoryPolicy::NoEviction, 1).is_empty());
    }

    #[test]
    fn a_key_that_is_held_stays() {
        let settings = Settings {
            eviction_policy: MaxmemoryPolicy::AllkeysLru,
            ..Settings::default()
        };
        let mut random = fastrand::Rng::with_seed(3);
        let victim = keyspace(false).choose_victim(&settings, NOW_MS, &mut random, |_, _, _| false);
        assert_eq!(victim, None);
    }
}
