//! Consumer groups of a stream.
//!
//! Invariants
//! - An id is pending for exactly one consumer of its group: `pending` names that consumer, whose own set has the id.
//! - A consumer's number does not change while it is in the group.

use std::collections::{BTreeMap, BTreeSet};

use super::StreamId;
use crate::keyspace::blob::Blob;

/// The number of a consumer in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsumerId(u32);

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The id of the entry delivered last.
    pub last_id: StreamId,
    /// How many entries were delivered since the stream began, if that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    names: BTreeMap<Blob, ConsumerId>,
    next_consumer: u32,
}

/// An entry that was delivered and not yet acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// To whom.
    pub consumer: ConsumerId,
    /// When last, Unix milliseconds.
    pub delivered_at_ms: i64,
    /// How often.
    pub delivery_count: u64,
}

/// A consumer of a group.
#[derive(Debug, Clone)]
pub struct Consumer {
    name: Blob,
    /// When it last asked, Unix milliseconds.
    pub seen_at_ms: i64,
    /// When it last got something, Unix milliseconds; -1 if never.
    pub active_at_ms: i64,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &Blob {
        &self.name
    }

    /// The ids that it has not acknowledged.
    pub fn pending(&self) -> &BTreeSet<StreamId> {
        &self.pending
    }
}

impl Group {
    /// A group that has got all entries up to `last_id`.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Group {
        Group {
            last_id,
            entries_read,
            ..Group::default()
        }
    }

    /// All pending entries of the group.
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// Consumers by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.names.values().map(|id| &self.consumers[id])
    }

    /// The number of the consumer of this name.
    pub fn find(&self, name: &[u8]) -> Option<ConsumerId> {
        self.names.get(name).copied()
    }

    /// A consumer of this group.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[&id]
    }

    /// A consumer of this group, to set its times.
    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.consumers
            .get_mut(&id)
            .expect("a consumer of this group")
    }

    /// Adds a consumer; `None` if the name is taken.
    pub fn create(&mut self, name: &[u8], seen_at_ms: i64) -> Option<ConsumerId> {
        if self.names.contains_key(name) {
            return None;
        }
        let id = ConsumerId(self.next_consumer);
        self.next_consumer = self
            .next_consumer
            .checked_add(1)
            .expect("four thousand million consumers");
        let name = Blob::new(name);
        self.names.insert(name.clone(), id);
        self.consumers.insert(
            id,
            Consumer {
                name,
                seen_at_ms,
                active_at_ms: -1,
                pending: BTreeSet::new(),
            },
        );
        Some(id)
    }

    /// Removes a consumer with its pending entries, and says how many those were.
    pub fn remove(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.names.remove(name)?;
        let gone = self
            .consumers
            .remove(&id)
            .expect("a name stands for a consumer");
        for id in &gone.pending {
            self.pending.remove(id);
        }
        Some(gone.pending.len())
    }

    /// Makes an entry pending for a consumer, whoever had it.
    pub fn assign(&mut self, id: StreamId, pending: Pending) {
        if let Some(old) = self.pending.insert(id, pending)
            && old.consumer != pending.consumer
        {
            self.consumer_mut(old.consumer).pending.remove(&id);
        }
        self.consumer_mut(pending.consumer).pending.insert(id);
    }

    /// Forgets a pending entry; `None` if it was not pending.
    pub fn acknowledge(&mut self, id: StreamId) -> Option<Pending> {
        let gone = self.pending.remove(&id)?;
        self.consumer_mut(gone.consumer).pending.remove(&id);
        Some(gone)
    }

    /// Bytes of heap memory, estimated from the numbers of items.
    pub fn heap_bytes(&self) -> usize {
        let consumers: usize = self
            .consumers
            .values()
            .map(|consumer| 2 * consumer.name.heap_bytes() + 160)
            .sum();
        // B-tree nodes are two thirds full on average; an id is in two trees.
        let pending = size_of::<StreamId>() * 2 + size_of::<Pending>();
        consumers + self.pending.len() * pending * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_pending_for_one_consumer() {
        let mut group = Group::new(StreamId::MIN, None);
        let (a, b) = (
            group.create(b"a", 1).unwrap(),
            group.create(b"b", 2).unwrap(),
        );
        assert_eq!(group.create(b"a", 3), None);
        let id = StreamId::new(1, 0);
        let pending = |consumer| Pending {
            consumer,
            delivered_at_ms: 5,
            delivery_count: 1,
        };
        group.assign(id, pending(a));
        group.assign(id, pending(b));
        assert!(group.consumer(a).pending().is_empty());
        assert_eq!(group.remove(b"b"), Some(1));
        assert!(group.pending().is_empty());
        group.assign(id, pending(a));
        assert_eq!(group.acknowledge(id).map(|gone| gone.consumer), Some(a));
        assert_eq!(group.acknowledge(id), None);
        assert_eq!(group.remove(b"b"), None);
        assert_eq!(
            group
                .consumers()
                .map(|consumer| consumer.name().to_vec())
                .collect::<Vec<_>>(),
            [b"a".to_vec()]
        );
    }
}
