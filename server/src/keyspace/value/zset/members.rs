//! The members of a large sorted set with their scores, found by member.
//!
//! A member is stored once, in a slot; the index and the order know it by the slot's number. Slots are dense: the
//! last one moves into a gap, so memory comes back as members go.
//!
//! The index is linear hashing over small hash tables: one of them splits at a time, so growth never pauses. Which table
//! holds a member is decided by the first bits of its hash, so a cursor is a hash position, as in the keyspace's table.
//!
//! Invariants
//! - Slots 0..len are in use, in chunks that are full but for the last.
//! - Every slot's number is in exactly one part of the index, the one that its member's hash names.

use hashbrown::HashTable;

use crate::keyspace::blob::Blob;
use crate::keyspace::hash;
use crate::keyspace::table::Cursor;

const CHUNK_SLOTS: usize = 128;
/// Mean number of members of a part of the index: seven eighths of a table of 64.
const PART_MEMBERS: usize = 56;

/// The number of a slot. The last slot's member changes its number when another member goes.
pub type SlotId = u32;

#[derive(Debug, Clone)]
struct Slot {
    member: Blob,
    score: f64,
}

/// Members with scores; see the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Members {
    chunks: Vec<Vec<Slot>>,
    len: usize,
    index: Vec<HashTable<SlotId>>,
    index_bytes: usize,
    /// Heap bytes of all members.
    member_bytes: usize,
}

impl Members {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Vec<Slot>>()
            + self
                .chunks
                .iter()
                .map(|chunk| chunk.capacity())
                .sum::<usize>()
                * size_of::<Slot>()
            + self.index.capacity() * size_of::<HashTable<SlotId>>()
            + self.index_bytes
            + self.member_bytes
    }

    #[inline]
    fn slot(&self, id: SlotId) -> &Slot {
        &self.chunks[id as usize / CHUNK_SLOTS][id as usize % CHUNK_SLOTS]
    }

    #[inline]
    pub fn member(&self, id: SlotId) -> &[u8] {
        &self.slot(id).member
    }

    #[inline]
    pub fn score(&self, id: SlotId) -> f64 {
        self.slot(id).score
    }

    pub fn set_score(&mut self, id: SlotId, score: f64) {
        self.chunks[id as usize / CHUNK_SLOTS][id as usize % CHUNK_SLOTS].score = score;
    }

    pub fn find(&self, member: &[u8]) -> Option<SlotId> {
        let hash = hash::of(member);
        let part = self.index.get(part_of(hash, self.index.len()))?;
        part.find(in_part(hash), |&id| self.member(id) == member)
            .copied()
    }

    /// Adds a member that is not there, in the slot after the last.
    pub fn push(&mut self, member: &[u8], score: f64) -> SlotId {
        assert!(
            self.len < SlotId::MAX as usize,
            "a sorted set of 2^32 members"
        );
        let id = self.len as SlotId;
        if self.len.is_multiple_of(CHUNK_SLOTS) {
            self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
        }
        let member = Blob::new(member);
        self.member_bytes += member.heap_bytes();
        let hash = hash::of(&member);
        let chunk = self.chunks.last_mut().expect("a chunk with room");
        chunk.push(Slot { member, score });
        self.len += 1;
        if self.len > self.index.len() * PART_MEMBERS {
            self.split_part();
        }
        self.index_insert(hash, id);
        id
    }

    /// Takes a member out; the last slot's member then has its number.
    pub fn swap_remove(&mut self, id: SlotId) {
        let last = (self.len - 1) as SlotId;
        self.index_remove(id);
        let chunk = self.chunks.last_mut().expect("a member to take out");
        let slot = chunk.pop().expect("the last chunk is not empty");
        let is_empty = chunk.is_empty();
        let gone = if id == last {
            slot
        } else {
            let hash = hash::of(&slot.member);
            let at = part_of(hash, self.index.len());
            let part = &mut self.index[at];
            *part
                .find_mut(in_part(hash), |&other| other == last)
                .expect("every slot is in the index") = id;
            std::mem::replace(
                &mut self.chunks[id as usize / CHUNK_SLOTS][id as usize % CHUNK_SLOTS],
                slot,
            )
        };
        if is_empty {
            self.chunks.pop();
            shrink(&mut self.chunks);
        }
        self.member_bytes -= gone.member.heap_bytes();
        self.len -= 1;
        if self.index.len() > 1 && self.len < (self.index.len() - 1) * PART_MEMBERS / 2 {
            self.join_part();
        }
    }

    /// One step of a walk; see `Table::scan`.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(&[u8], f64)) -> Option<Cursor> {
        let part = part_of(cursor.0, self.index.len());
        let depth = depth_of(part, self.index.len());
        for &id in self.index.get(part)? {
            let slot = self.slot(id);
            if hash::of(&slot.member) >= cursor.0 {
                visit(&slot.member, slot.score);
            }
        }
        let width = 64u32.checked_sub(depth).filter(|&width| width < 64)?;
        let start = cursor.0 >> width << width;
        start.checked_add(1 << width).map(Cursor)
    }

    fn index_insert(&mut self, hash: u64, id: SlotId) {
        let at = part_of(hash, self.index.len());
        let mut part = std::mem::take(&mut self.index[at]);
        self.index_bytes -= part.allocation_size();
        part.insert_unique(in_part(hash), id, |&id| in_part(self.hash_of(id)));
        self.index_bytes += part.allocation_size();
        self.index[at] = part;
    }

    fn index_remove(&mut self, id: SlotId) {
        let hash = self.hash_of(id);
        let at = part_of(hash, self.index.len());
        self.index[at]
            .find_entry(in_part(hash), |&at| at == id)
            .expect("every slot is in the index")
            .remove();
    }

    fn hash_of(&self, id: SlotId) -> u64 {
        hash::of(self.member(id))
    }

    /// Adds a part to the index and gives it its members, all from one other part.
    fn split_part(&mut self) {
        let parts = self.index.len() + 1;
        self.index.push(HashTable::new());
        if parts > 1 {
            // The new part's number without its top bit: the part it splits off from.
            let from = (parts - 1) & !(1 << (parts - 1).ilog2());
            self.redistribute(from);
        }
    }

    /// Takes the last part of the index away and gives its members back to the part it came from.
    fn join_part(&mut self) {
        let gone = self.index.pop().expect("at least two parts");
        self.index_bytes -= gone.allocation_size();
        shrink(&mut self.index);
        for id in gone {
            self.index_insert(self.hash_of(id), id);
        }
    }

    fn redistribute(&mut self, from: usize) {
        let old = std::mem::take(&mut self.index[from]);
        self.index_bytes -= old.allocation_size();
        for id in old {
            self.index_insert(self.hash_of(id), id);
        }
    }
}

/// Gives memory back once three quarters of it are unused.
fn shrink<T>(items: &mut Vec<T>) {
    if items.len() * 4 < items.capacity() {
        items.shrink_to(items.len() * 2);
    }
}

/// The part of `parts` that holds a hash: its first bits, the very first one lowest.
#[inline]
fn part_of(hash: u64, parts: usize) -> usize {
    let bits = hash.reverse_bits() as usize;
    let mask = parts.next_power_of_two() - 1;
    let part = bits & mask;
    if part < parts {
        part
    } else {
        part & (mask >> 1)
    }
}

/// How many first bits of the hash all members of a part share.
fn depth_of(part: usize, parts: usize) -> u32 {
    let full = parts.next_power_of_two();
    let half = full / 2;
    if part >= half || part + half < parts {
        full.ilog2()
    } else {
        half.ilog2()
    }
}

/// The hash that a part uses: other bits than those that choose the part.
#[inline]
fn in_part(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn member(n: u32) -> Vec<u8> {
        format!("member:{n}").into_bytes()
    }

    fn walk(members: &Members) -> Vec<Vec<u8>> {
        let (mut seen, mut cursor) = (Vec::new(), Some(Cursor::START));
        while let Some(at) = cursor {
            cursor = members.scan(at, |member, _| seen.push(member.to_vec()));
        }
        seen
    }

    proptest! {
        #[test]
        fn members_agree_with_a_map(ops in prop::collection::vec((any::<bool>(), 0u32..400), 1..1500)) {
            let mut members = Members::default();
            let mut model = BTreeMap::new();
            for (add, n) in ops {
                let name = member(n);
                let found = members.find(&name);
                prop_assert_eq!(found.map(|id| members.score(id)), model.get(&name).copied());
                match found {
                    None if add => {
                        members.push(&name, f64::from(n));
                        model.insert(name, f64::from(n));
                    }
                    Some(id) if !add => {
                        members.swap_remove(id);
                        model.remove(&name);
                    }
                    _ => {}
                }
                prop_assert_eq!(members.len(), model.len());
            }
            let mut seen = walk(&members);
            seen.sort();
            prop_assert!(seen.iter().eq(model.keys()));
            let bytes: usize = members.index.iter().map(HashTable::allocation_size).sum();
            prop_assert_eq!(members.index_bytes, bytes);
        }

        #[test]
        fn walk_returns_what_stays_exactly_once(waves in prop::collection::vec((any::<bool>(), 1u32..5000), 1..10)) {
            let mut members = Members::default();
            for n in 0..300 {
                members.push(&member(n), 0.0);
            }
            let mut waves = waves.into_iter().cycle();
            let mut seen = BTreeMap::<Vec<u8>, u32>::new();
            let (mut cursor, mut steps) = (Some(Cursor::START), 0);
            while let Some(at) = cursor {
                cursor = members.scan(at, |member, _| *seen.entry(member.to_vec()).or_default() += 1);
                steps += 1;
                if steps % 3 == 0 && steps < 60 {
                    let (grow, upto) = waves.next().expect("a cycle");
                    for n in 300..300 + upto {
                        match members.find(&member(n)) {
                            None if grow => drop(members.push(&member(n), 0.0)),
                            Some(id) if !grow => members.swap_remove(id),
                            _ => {}
                        }
                    }
                }
            }
            for n in 0..300 {
                prop_assert_eq!(seen.get(&member(n)), Some(&1), "member {}", n);
            }
        }
    }
}
