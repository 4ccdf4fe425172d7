//! The heaviest prefixes of keys, in memory that does not grow with their number.
//!
//! A prefix ends behind a separator: `user:17:name` is of `user:` and of `user:17:`. Each has a counter; when there are
//! too many, the lighter half goes, and what comes back later may have lost as much as the heaviest of those that went.
//!
//! Invariants
//! - What a counter tells is never too much.
//! - It is at most `missed_at_most` too little.

use serde::Serialize;
use std::collections::HashMap;

pub const SEPARATOR: u8 = b':';

/// Counters that are kept.
const COUNTERS_MAX: usize = 16_384;
/// Longer prefixes are counted with their parents alone.
const PREFIX_BYTES_MAX: usize = 256;

/// What the keys of a prefix come to.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Prefix {
    /// With the separator behind it, and backslashes where it is not printable ASCII.
    pub prefix: String,
    /// Separators in it.
    pub depth: usize,
    pub keys: u64,
    pub bytes: u64,
    pub memory: u64,
    /// Memory of keys that may have been forgotten.
    pub missed_at_most: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    keys: u64,
    bytes: u64,
    memory: u64,
    missed: u64,
}

#[derive(Debug)]
pub struct Prefixes {
    depth_max: usize,
    counters: HashMap<Box<[u8]>, Counter, foldhash::fast::RandomState>,
    /// Memory of the heaviest counter that went.
    floor: u64,
}

impl Prefixes {
    pub fn new(depth_max: usize) -> Self {
        Prefixes {
            depth_max,
            counters: HashMap::default(),
            floor: 0,
        }
    }

    /// Counts a key that stands for `weight` keys, each of so many bytes.
    pub fn add(&mut self, key: &[u8], weight: u64, bytes: u64, memory: u64) {
        let ends = key
            .iter()
            .enumerate()
            .take(PREFIX_BYTES_MAX)
            .filter(|(_, byte)| **byte == SEPARATOR)
            .map(|(at, _)| at + 1)
            .take(self.depth_max);
        for end in ends {
            let prefix = &key[..end];
            if !self.counters.contains_key(prefix) {
                self.make_room();
                let missed = self.floor;
                let counter = Counter {
                    missed,
                    ..Counter::default()
                };
                self.counters.insert(prefix.into(), counter);
            }
            if let Some(counter) = self.counters.get_mut(prefix) {
                counter.keys += weight;
                counter.bytes = counter.bytes.saturating_add(weight.saturating_mul(bytes));
                counter.memory = counter.memory.saturating_add(weight.saturating_mul(memory));
            }
        }
    }

    fn make_room(&mut self) {
        if self.counters.len() < COUNTERS_MAX {
            return;
        }
        let mut weights: Vec<u64> = self.counters.values().map(Counter::weight).collect();
        let (_, middle, _) = weights.select_nth_unstable(COUNTERS_MAX / 2);
        let middle = *middle;
        self.counters.retain(|_, counter| counter.weight() > middle);
        self.floor = self.floor.max(middle);
    }

    /// The heaviest, heaviest first.
    pub fn top(&self, count: usize) -> Vec<Prefix> {
        let mut all: Vec<_> = self.counters.iter().collect();
        all.sort_by(|(a, of_a), (b, of_b)| of_b.memory.cmp(&of_a.memory).then_with(|| a.cmp(b)));
        let shown = all.into_iter().take(count).map(|(prefix, counter)| Prefix {
            prefix: crate::report::key(prefix),
            depth: prefix.iter().filter(|byte| **byte == SEPARATOR).count(),
            keys: counter.keys,
            bytes: counter.bytes,
            memory: counter.memory,
            missed_at_most: counter.missed,
        });
        shown.collect()
    }
}

impl Counter {
    /// As heavy as it may be: what was forgotten counts, so that a light start is no disadvantage.
    fn weight(&self) -> u64 {
        self.memory.saturating_add(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_for_each_prefix_up_to_the_depth() {
        let mut prefixes = Prefixes::new(2);
        prefixes.add(b"a:b:c:d", 1, 10, 100);
        prefixes.add(b"a:x", 2, 1, 5);
        prefixes.add(b"none", 1, 1, 1);
        let top = prefixes.top(10);
        let shown: Vec<_> = top
            .iter()
            .map(|p| (p.prefix.as_str(), p.depth, p.keys, p.bytes, p.memory))
            .collect();
        assert_eq!(shown, [("a:", 1, 3, 12, 110), ("a:b:", 2, 1, 10, 100)]);
    }

    #[test]
    fn a_heavy_prefix_is_found_among_many_light_ones() {
        let mut prefixes = Prefixes::new(1);
        let mut heavy = 0;
        for i in 0..100_000 {
            prefixes.add(format!("{i}:x").as_bytes(), 1, 1, 60);
            if i % 10 == 0 {
                prefixes.add(b"heavy:x", 1, 1, 60);
                heavy += 60;
            }
        }
        assert!(prefixes.counters.len() <= COUNTERS_MAX);
        let top = &prefixes.top(1)[0];
        assert_eq!(top.prefix, "heavy:");
        assert!(top.memory <= heavy && top.memory + top.missed_at_most >= heavy);
    }
}
