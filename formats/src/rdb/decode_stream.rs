//! Streams: nodes, counters and consumer groups of all three versions.
//!
//! A part of `decode`. Who owns a pending entry is checked here: servers load one without an owner and crash later.

use super::decode::{Decoder, unique};
use crate::encoding::listpack::Element;
use crate::encoding::stream::{NodeDamage, NodeSummary, StreamId, check_node};
use crate::error::{Damage, Problem};
use crate::value::{
    Idempotence, PendingEntry, StreamConsumer, StreamGroup, StreamProducer, StreamValue,
};

/// Of a pending entry whose consumer has not been read yet.
const NOBODY: u32 = u32::MAX;
/// `entries_read` that cannot be known.
const UNKNOWN: i64 = -1;

/// What the nodes of a stream add up to, checked one after another.
#[derive(Debug, Default)]
pub(super) struct NodeChain {
    first_live: Option<StreamId>,
    last_node: Option<StreamId>,
}

impl NodeChain {
    /// Checks a node that starts at `start` and its place behind those before. How many of its entries are live.
    pub fn add(&mut self, id: StreamId, pack: &[u8], start: u64) -> Result<u64, Damage> {
        self.begin(id, start)?;
        self.end(check_node(id, pack), start)
    }

    /// A node with this id begins; `end` comes behind its entries.
    pub fn begin(&mut self, id: StreamId, start: u64) -> Result<(), Damage> {
        if self.last_node.is_some_and(|before| before >= id) {
            let wanted = "an id above the node before";
            let found = id.to_string().into_bytes();
            let problem = Problem::Text { wanted, found };
            return Err(Damage::new(start, "stream, node id", problem));
        }
        self.last_node = Some(id);
        Ok(())
    }

    /// How many of its entries were live.
    pub fn end(
        &mut self,
        summary: Result<NodeSummary, NodeDamage>,
        start: u64,
    ) -> Result<u64, Damage> {
        let summary = summary.map_err(|(reading, problem)| Damage::new(start, reading, problem))?;
        if summary.live + summary.deleted == 0 {
            let (wanted, found) = (1, 0);
            let problem = Problem::Differs { wanted, found };
            return Err(Damage::new(start, "stream node, entries", problem));
        }
        self.first_live = self.first_live.or(summary.first_live);
        Ok(summary.live)
    }
}

impl Decoder<'_, '_> {
    pub(super) fn stream(&mut self, version: u8) -> Result<StreamValue, Damage> {
        let mut nodes = Vec::new();
        let mut entries = NodeChain::default();
        for _ in 0..self.cursor.count(17, "stream nodes")? {
            let start = self.cursor.offset();
            let master = self.cursor.string("stream, node id")?;
            let id = <[u8; 16]>::try_from(&master[..]).map_err(|_| {
                let (wanted, found) = (16, master.len() as u64);
                Damage::new(start, "stream, node id", Problem::Differs { wanted, found })
            })?;
            let id = StreamId::from_bytes(id);
            let (start, pack) = self.listpack("stream node")?;
            entries.add(id, pack.as_bytes(), start)?;
            nodes.push((id, pack));
        }
        let tail = self.stream_tail(version, &entries)?;
        Ok(StreamValue { nodes, ..tail })
    }

    /// What follows the nodes, which were `entries`.
    pub(super) fn stream_tail(
        &mut self,
        version: u8,
        entries: &NodeChain,
    ) -> Result<StreamValue, Damage> {
        let mut stream = StreamValue::default();
        self.stream_counters(version, entries.first_live, &mut stream)?;
        if stream.length > 0 && entries.last_node.is_none() {
            let (wanted, found) = (stream.length, 0);
            let problem = Problem::Differs { wanted, found };
            return Err(self.cursor.damage("stream, entries", problem));
        }
        let start = self.cursor.offset();
        for _ in 0..self.cursor.count(4, "stream groups")? {
            let group = self.group(version, &stream)?;
            stream.groups.push(group);
        }
        let names = stream.groups.iter().map(|group| Element::Str(&group.name));
        unique(start, "stream groups", names, stream.groups.len())?;
        if version >= 4 {
            stream.idempotence = Some(Box::new(self.idempotence()?));
        }
        Ok(stream)
    }

    fn idempotence(&mut self) -> Result<Idempotence, Damage> {
        let mut idempotence = Idempotence {
            duration_s: self.cursor.len("stream, duration of ids")?,
            entries_max: self.cursor.len("stream, number of ids")?,
            ..Idempotence::default()
        };
        for _ in 0..self.cursor.count(2, "stream producers")? {
            let mut producer = StreamProducer {
                id: self.cursor.string("stream, producer")?,
                entries: Vec::new(),
            };
            for _ in 0..self.cursor.count(3, "stream producer, ids")? {
                let chosen = self.cursor.string("stream producer, id")?;
                let entry = self.id("stream producer, entry")?;
                producer.entries.push((chosen, entry));
            }
            idempotence.producers.push(producer);
        }
        idempotence.added = self.cursor.len("stream, entries added by producers")?;
        idempotence.duplicates = self.cursor.len("stream, entries added again")?;
        Ok(idempotence)
    }

    fn stream_counters(
        &mut self,
        version: u8,
        first_live: Option<StreamId>,
        stream: &mut StreamValue,
    ) -> Result<(), Damage> {
        stream.length = self.cursor.len("stream, length")?;
        stream.last_id = self.id("stream, last id")?;
        if version >= 2 {
            stream.first_id = self.id("stream, first id")?;
            stream.max_deleted_id = self.id("stream, highest deleted id")?;
            stream.entries_added = self.cursor.len("stream, entries added")?;
        } else {
            stream.first_id = first_live.unwrap_or_default();
            stream.entries_added = stream.length;
        }
        Ok(())
    }

    /// An id as two lengths.
    fn id(&mut self, reading: &'static str) -> Result<StreamId, Damage> {
        Ok(StreamId {
            ms: self.cursor.len(reading)?,
            seq: self.cursor.len(reading)?,
        })
    }

    /// An id as 16 bytes.
    fn raw_id(&mut self, reading: &'static str) -> Result<StreamId, Damage> {
        Ok(StreamId {
            ms: self.cursor.u64_be(reading)?,
            seq: self.cursor.u64_be(reading)?,
        })
    }

    fn group(&mut self, version: u8, stream: &StreamValue) -> Result<StreamGroup, Damage> {
        let name = self.cursor.string("stream, group name")?;
        let last_id = self.id("stream group, last id")?;
        let entries_read = match version {
            1 => entries_read(stream, last_id),
            _ => self.cursor.len("stream group, entries read")? as i64,
        };
        let mut group = StreamGroup {
            name,
            last_id,
            entries_read,
            pending: self.pending()?,
            consumers: Vec::new(),
        };
        let start = self.cursor.offset();
        for _ in 0..self.cursor.count(10, "stream consumers")? {
            self.consumer(version, &mut group)?;
        }
        let names = group.consumers.iter().map(|c| Element::Str(&c.name));
        unique(start, "stream consumers", names, group.consumers.len())?;
        match group.pending.iter().find(|entry| entry.consumer == NOBODY) {
            None => Ok(group),
            Some(entry) => {
                let wanted = "a consumer that owns it";
                let found = entry.id.to_string().into_bytes();
                let problem = Problem::Text { wanted, found };
                Err(Damage::new(start, "stream group, pending entry", problem))
            }
        }
    }

    /// The pending entries of a group, nobody's yet.
    fn pending(&mut self) -> Result<Vec<PendingEntry>, Damage> {
        const READING: &str = "stream group, pending entries";
        let start = self.cursor.offset();
        let count = self.cursor.count(25, READING)?;
        let mut pending = Vec::with_capacity(count);
        for _ in 0..count {
            pending.push(PendingEntry {
                id: self.raw_id(READING)?,
                delivered_at_ms: self.cursor.i64_le(READING)?,
                deliveries: self.cursor.len(READING)?,
                consumer: NOBODY,
            });
        }
        pending.sort_unstable_by_key(|entry| entry.id);
        match pending.windows(2).find(|pair| pair[0].id == pair[1].id) {
            None => Ok(pending),
            Some(pair) => {
                let twice = pair[0].id.to_string().into_bytes();
                Err(Damage::new(start, READING, Problem::Duplicate(twice)))
            }
        }
    }

    fn consumer(&mut self, version: u8, group: &mut StreamGroup) -> Result<(), Damage> {
        const READING: &str = "stream consumer, pending entry";
        let name = self.cursor.string("stream, consumer name")?;
        let seen_at_ms = self.cursor.i64_le("stream consumer, seen time")?;
        let active_at_ms = match version {
            1 | 2 => seen_at_ms,
            _ => self.cursor.i64_le("stream consumer, active time")?,
        };
        let index = group.consumers.len() as u32;
        for _ in 0..self.cursor.count(16, READING)? {
            let start = self.cursor.clone();
            let id = self.raw_id(READING)?;
            let damage = |wanted| {
                let found = id.to_string().into_bytes();
                Err(start.damage(READING, Problem::Text { wanted, found }))
            };
            let Ok(at) = group.pending.binary_search_by_key(&id, |entry| entry.id) else {
                return damage("an entry that is pending in the group");
            };
            if group.pending[at].consumer != NOBODY {
                return damage("an entry that no other consumer owns");
            }
            group.pending[at].consumer = index;
        }
        group.consumers.push(StreamConsumer {
            name,
            seen_at_ms,
            active_at_ms,
        });
        Ok(())
    }
}

/// How many entries a group has read, as far as that follows from its last id. The first version did not store it.
pub(super) fn entries_read(stream: &StreamValue, last_id: StreamId) -> i64 {
    let added = stream.entries_added as i64;
    if added == 0 {
        0
    } else if stream.length == 0 && last_id <= stream.last_id || last_id == stream.last_id {
        added
    } else if last_id < stream.first_id {
        added - stream.length as i64
    } else if last_id == stream.first_id {
        added - stream.length as i64 + 1
    } else {
        UNKNOWN
    }
}
