//! In which file of a set that our server wrote a key is: the shards of the server are the files, and the manifest has the seed of
//! the hash that chose among them.
//!
//! The server has the same hash in a form of its own (`keyspace::hash`), and a test that holds both to each other.

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use std::hash::{BuildHasher, Hasher};

/// How a server with some seed and some shards places keys.
#[derive(Debug, Clone)]
pub struct Placement {
    state: SeedableRandomState,
    shards: usize,
}

impl Placement {
    /// Takes some fifty bytes that are not given back: the hash wants a part of its seed to outlive everything.
    pub fn new(seed: u64, shards: usize) -> Self {
        let shared = Box::leak(Box::new(SharedSeed::from_u64(seed.rotate_left(32))));
        Placement {
            state: SeedableRandomState::with_seed(seed, shared),
            shards,
        }
    }

    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> usize {
        // The low half: tables order by the high bits.
        ((u64::from(self.hash(key) as u32) * self.shards as u64) >> 32) as usize
    }
}
