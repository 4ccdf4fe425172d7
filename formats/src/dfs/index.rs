//! Which runs of a shard file may have a key, so that whoever wants one key reads little else.
//!
//! `writer` notes the keys of each run, the manifest keeps the notes. A run's keys are noted in a sieve, as of Bloom: a key that is
//! there passes it, and of others one in three hundred.
//!
//! ```text
//! hash = CRC-64/XZ of the key, times 0x9E3779B97F4A7C15, mod 2^64
//! bit i = ((high half of the hash + i * (low half | 1)) mod 2^32) * bits of the sieve / 2^32, for i from 0 to 7
//! ```
//! Bits count from the lowest of the first byte.
//!
//! Invariants
//! - A run without a sieve may have any key: who looks for one reads it.

use crate::checksum::xz_crc;

/// A stretch of a shard file that begins with the choice of its database and holds whole records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// In the file.
    pub from: u64,
    pub bytes: u64,
    /// None: not noted.
    pub keys: Option<Sieve>,
}

impl Run {
    pub fn end(&self) -> u64 {
        self.from.saturating_add(self.bytes)
    }

    pub fn may_have(&self, key: &[u8]) -> bool {
        self.keys.as_ref().is_none_or(|sieve| sieve.passes(key))
    }
}

/// Some keys, by bits.
///
/// ```
/// use dfsnap_formats::dfs::index::{Sieve, key_hash};
/// let keys: Vec<u64> = (0..1000).map(|n| key_hash(format!("key:{n}").as_bytes())).collect();
/// let sieve = Sieve::of(&keys);
/// assert!(sieve.passes(b"key:7"));
/// let others = (0..1000).filter(|n| sieve.passes(format!("other:{n}").as_bytes()));
/// assert!(others.count() < 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sieve {
    bits: Vec<u8>,
}

const BITS_A_KEY: usize = 12;
const BYTES_MIN: usize = 8;
const PROBES: u32 = 8;

/// What sieves keep of a key.
pub fn key_hash(key: &[u8]) -> u64 {
    // A checksum leaves its low bits to the last bytes alone.
    xz_crc(key).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Sieve {
    /// For keys of these hashes.
    pub fn of(hashes: &[u64]) -> Self {
        let mut bits = vec![0; Sieve::bytes_for(hashes.len())];
        for hash in hashes {
            for at in places(*hash, bits.len()) {
                bits[at / 8] |= 1 << (at % 8);
            }
        }
        Sieve { bits }
    }

    /// What a sieve for so many keys takes.
    pub fn bytes_for(keys: usize) -> usize {
        (keys * BITS_A_KEY).div_ceil(8).max(BYTES_MIN)
    }

    /// None: no sieve has this size.
    pub fn of_bytes(bits: Vec<u8>) -> Option<Self> {
        let fits = bits.len() >= BYTES_MIN && u32::try_from(bits.len()).is_ok_and(|n| n < 1 << 29);
        fits.then_some(Sieve { bits })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// False: the key is not among them.
    pub fn passes(&self, key: &[u8]) -> bool {
        let mut places = places(key_hash(key), self.bits.len());
        places.all(|at| self.bits[at / 8] & 1 << (at % 8) != 0)
    }
}

fn places(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (first, step) = ((hash >> 32) as u32, hash as u32 | 1);
    (0..PROBES).map(move |probe| {
        let mixed = first.wrapping_add(probe.wrapping_mul(step));
        ((u64::from(mixed) * (bytes as u64 * 8)) >> 32) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_pass_and_few_others_do() {
        for count in [0, 1, 7, 5000] {
            let key = |n: usize| format!("{}:user:{n}", n % 7).into_bytes();
            let hashes: Vec<u64> = (0..count).map(|n| key_hash(&key(n))).collect();
            let sieve = Sieve::of(&hashes);
            assert!((0..count).all(|n| sieve.passes(&key(n))), "{count}");
            let wrong = (count..count + 20_000).filter(|n| sieve.passes(&key(*n)));
            let wrong = wrong.count();
            assert!(wrong < 120, "{count} keys: {wrong} of 20000 others pass");
            assert_eq!(sieve.as_bytes().len(), Sieve::bytes_for(count));
        }
    }

    #[test]
    fn a_run_without_a_sieve_may_have_any_key() {
        let run = |keys| Run {
            from: 5,
            bytes: 7,
            keys,
        };
        assert!(run(None).may_have(b"k"));
        assert!(!run(Some(Sieve::of(&[]))).may_have(b"k"));
        assert_eq!(run(None).end(), 12);
        assert!(Sieve::of_bytes(vec![0; 7]).is_none());
    }
}
