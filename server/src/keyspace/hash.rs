//! The hash of keys: one for the choice of the shard, the order of the tables and the names of locks.
//!
//! Invariants
//! - The seed is chosen once in a process, by the first hash or before it.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// Hash of a key: the same for every table of this process, different in the next process unless that takes over the seed.
#[inline]
pub fn of(key: &[u8]) -> u64 {
    static STATE: OnceLock<SeedableRandomState> = OnceLock::new();
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    let seeded = || {
        let shared = SHARED.get_or_init(|| SharedSeed::from_u64(seed().rotate_left(32)));
        SeedableRandomState::with_seed(seed(), shared)
    };
    STATE.get_or_init(seeded).hash_one(ByteKey(key))
}

static SEED: OnceLock<u64> = OnceLock::new();

/// What [`of`] is seeded with, at random unless [`adopt_seed`] came first. Who knows it can make keys that collide: it is as secret
/// as the data.
pub fn seed() -> u64 {
    *SEED.get_or_init(|| getrandom::u64().expect("the system has random numbers"))
}

/// Takes over the seed of another process, so that what it wrote in the order of its table comes in the order of ours. Does nothing
/// once a key was hashed.
pub fn adopt_seed(seed: u64) {
    let _ = SEED.set(seed);
}

/// Hashes bytes without the length prefix that `[u8]` adds; a table holds only keys of one kind.
struct ByteKey<'a>(&'a [u8]);

impl std::hash::Hash for ByteKey<'_> {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}
