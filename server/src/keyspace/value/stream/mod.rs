//! Streams: entries ordered by id, in nodes as Redis stores them, with consumer groups.
//!
//! Invariants
//! - Nodes are kept under the id of their first entry; ids ascend within and across nodes; a node has a live entry.
//! - `len` is the number of live entries (a dump of Redis 5.0's release candidates may say otherwise).
//! - `last_id` is at least every id there ever was; `first_id` is that of the first live entry, 0-0 if there is none.

mod group;
mod id;
mod node;

use std::collections::BTreeMap;

use dfsnap_formats::encoding::listpack::Listpack;

use super::Limits;
use crate::keyspace::blob::Blob;

pub use group::{Consumer, ConsumerId, Group, Pending};
pub use id::{StreamId, part as id_part};
pub use node::{Entry, Node};

/// Entries ordered by id.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    nodes: BTreeMap<StreamId, Node>,
    /// Live entries.
    len: u64,
    last_id: StreamId,
    first_id: StreamId,
    /// The highest id that XDEL removed.
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
    /// Consumer groups by name.
    pub groups: BTreeMap<Blob, Group>,
    /// Bytes of the nodes' packs.
    node_bytes: usize,
}

/// The counters of a stream that is read from a dump.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// What XLEN answers.
    pub len: u64,
    /// The highest id there ever was.
    pub last_id: StreamId,
    /// The highest id that XDEL removed.
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
}

/// What XADD was told about the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewId {
    /// `*`
    Auto,
    /// `ms-*`
    AutoSeq(u64),
    /// All of it.
    Given(StreamId),
}

/// Why an entry cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddError {
    /// The stream has had this id or a higher one.
    TooSmall,
    /// 0-0, which no entry may have.
    Zero,
    /// The highest id there can be was used.
    Exhausted,
}

/// How far to trim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// Keep this many entries.
    Len(u64),
    /// Keep entries from this id on.
    Id(StreamId),
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// The stream of a dump: checked nodes in order, and counters.
    pub fn from_parts(
        nodes: impl IntoIterator<Item = (StreamId, Listpack)>,
        counters: Counters,
    ) -> Stream {
        let nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|(id, pack)| (id, Node::from_pack(id, pack)))
            .collect();
        let mut stream = Stream {
            node_bytes: nodes.values().map(|node| node.pack().heap_bytes()).sum(),
            nodes,
            len: counters.len,
            last_id: counters.last_id,
            max_deleted_id: counters.max_deleted_id,
            entries_added: counters.entries_added,
            ..Stream::default()
        };
        stream.first_id = stream.find_first_id();
        stream
    }

    /// Number of live entries.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none. An empty stream stays a stream.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest id there ever was.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The id of the first live entry, 0-0 if there is none.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// Sets the highest id, as XSETID does.
    pub fn set_last_id(&mut self, id: StreamId) {
        self.last_id = id;
    }

    /// Nodes in order, to save them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// Nodes in order after the one with this id: to save a stream in slices.
    pub fn nodes_after(&self, id: StreamId) -> impl Iterator<Item = &Node> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.nodes
            .range((Excluded(id), Unbounded))
            .map(|(_, node)| node)
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        // B-tree nodes are two thirds full on average.
        let keys = self.nodes.len() * (size_of::<StreamId>() + size_of::<Node>()) * 3 / 2;
        let groups: usize = self
            .groups
            .iter()
            .map(|(name, group)| name.heap_bytes() + 200 + group.heap_bytes())
            .sum();
        keys + self.node_bytes + groups
    }

    /// The id that an entry added now would get.
    pub fn next_id(&self, wanted: NewId, now_ms: i64) -> Result<StreamId, AddError> {
        let last = self.last_id;
        let id = match wanted {
            NewId::Auto => {
                let now = StreamId::new(u64::try_from(now_ms).unwrap_or(0), 0);
                if now > last {
                    now
                } else {
                    last.next().ok_or(AddError::Exhausted)?
                }
            }
            NewId::AutoSeq(ms) if ms > last.ms => StreamId::new(ms, 0),
            NewId::AutoSeq(ms) if ms == last.ms => {
                StreamId::new(ms, last.seq.checked_add(1).ok_or(AddError::TooSmall)?)
            }
            NewId::AutoSeq(_) => return Err(AddError::TooSmall),
            NewId::Given(id) => id,
        };
        if id == StreamId::MIN {
            // `0-*` on a new stream.
            return match wanted {
                NewId::AutoSeq(_) => Ok(StreamId::new(0, 1)),
                _ => Err(AddError::Zero),
            };
        }
        if last == StreamId::MAX {
            return Err(AddError::Exhausted);
        }
        if id <= last {
            Err(AddError::TooSmall)
        } else {
            Ok(id)
        }
    }

    /// Adds an entry whose id came from [`Stream::next_id`].
    pub fn add(&mut self, id: StreamId, fields: &[(&[u8], &[u8])], limits: &Limits) {
        assert!(id > self.last_id, "entry {id} after {}", self.last_id);
        let bytes: usize = fields
            .iter()
            .map(|(field, value)| field.len() + value.len())
            .sum();
        let last = self.nodes.values_mut().next_back().filter(|node| {
            let is_long = limits.stream_node_bytes > 0
                && node.pack().byte_len() + bytes >= limits.stream_node_bytes;
            let entries = node.live() + node.deleted();
            let is_full =
                limits.stream_node_entries > 0 && entries >= limits.stream_node_entries as u64;
            // What no pack can hold starts another, too.
            !is_long && !is_full && node.pack().byte_len() + bytes < Listpack::BYTES_MAX
        });
        match last {
            Some(node) => {
                self.node_bytes -= node.pack().heap_bytes();
                node.push(id, fields);
                self.node_bytes += node.pack().heap_bytes();
            }
            None => {
                let node = Node::new(id, fields, bytes.min(limits.stream_node_bytes));
                self.node_bytes += node.pack().heap_bytes();
                self.nodes.insert(id, node);
            }
        }
        self.len += 1;
        self.entries_added += 1;
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
    }

    /// Live entries with ids in `from..=to`, ascending.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let first = self
            .nodes
            .range(..=from)
            .next_back()
            .map_or(from, |(id, _)| *id);
        self.nodes
            .range(first..)
            .take_while(move |(id, _)| **id <= to)
            .flat_map(move |(_, node)| node.range(from, to))
    }

    /// Live entries with ids in `from..=to`, descending.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let first = self
            .nodes
            .range(..=from)
            .next_back()
            .map_or(from, |(id, _)| *id);
        let nodes = if first <= to {
            Some(self.nodes.range(first..=to).rev())
        } else {
            None
        };
        nodes
            .into_iter()
            .flatten()
            .flat_map(move |(_, node)| node.range_back(from, to))
    }

    /// The live entry with this id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// Removes an entry, as XDEL does; false if it is not there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&key, node)) = self.nodes.range_mut(..=id).next_back() else {
            return false;
        };
        let Some(entry) = node.find(id) else {
            return false;
        };
        if node.live() == 1 {
            self.remove_node(key);
        } else {
            self.node_bytes -= node.pack().heap_bytes();
            node.delete(entry);
            self.node_bytes += node.pack().heap_bytes();
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id {
            self.first_id = self.find_first_id();
        }
        true
    }

    /// Trims, as XTRIM does, and says how many entries went. `approximately` whole nodes only, and of those as many as
    /// have at most `limit` entries together (0 = no limit).
    pub fn trim(&mut self, to: Trim, approximately: bool, limit: u64) -> u64 {
        let mut gone = 0;
        while let Some((&key, node)) = self.nodes.iter_mut().next() {
            let live = node.live();
            let is_over = match to {
                Trim::Len(keep) if self.len <= keep => break,
                Trim::Len(keep) => self.len - live >= keep,
                Trim::Id(id) => node.last().is_some_and(|last| last.id < id),
            };
            if approximately && limit > 0 && gone + live > limit {
                break;
            }
            if is_over {
                self.remove_node(key);
                self.len -= live;
                gone += live;
                continue;
            }
            if !approximately {
                let mut over = match to {
                    Trim::Len(keep) => self.len - keep,
                    Trim::Id(_) => u64::MAX,
                };
                self.node_bytes -= node.pack().heap_bytes();
                let deleted = node.delete_while(|id| {
                    let goes = over > 0 && !matches!(to, Trim::Id(keep) if id >= keep);
                    over -= u64::from(goes);
                    goes
                });
                self.node_bytes += node.pack().heap_bytes();
                self.len -= deleted;
                gone += deleted;
                // All live entries may be below an id although a deleted one is not.
                if node.live() == 0 {
                    self.remove_node(key);
                }
            }
            break;
        }
        if gone > 0 {
            self.first_id = self.find_first_id();
        }
        gone
    }

    fn remove_node(&mut self, key: StreamId) {
        let node = self.nodes.remove(&key).expect("a node of this stream");
        self.node_bytes -= node.pack().heap_bytes();
    }

    fn find_first_id(&self) -> StreamId {
        self.range(StreamId::MIN, StreamId::MAX)
            .next()
            .map_or(StreamId::MIN, |entry| entry.id)
    }

    /// Whether an entry with an id above `id` was deleted, as far as the highest deleted id tells.
    pub fn has_gap_after(&self, id: StreamId) -> bool {
        self.len > 0
            && self.max_deleted_id > StreamId::MIN
            && self.first_id <= self.max_deleted_id
            && id <= self.max_deleted_id
    }

    /// How many entries there ever were up to `id`, if that can be told.
    pub fn entries_up_to(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if id > StreamId::MIN && id < self.max_deleted_id {
            return None;
        }
        if id == self.last_id {
            return Some(self.entries_added);
        }
        if id > self.last_id {
            return None;
        }
        if self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id {
            if id < self.first_id {
                return Some(self.entries_added.saturating_sub(self.len));
            }
            if id == self.first_id {
                return Some(self.entries_added.saturating_sub(self.len) + 1);
            }
        }
        None
    }

    /// How many entries a group has not been given yet, if that can be told. Below zero if XSETID has set the count too low.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        let read = match group.entries_read {
            Some(read) if !self.has_gap_after(group.last_id) => Some(read),
            _ => self.entries_up_to(group.last_id),
        };
        Some(self.entries_added as i64 - read? as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::encoding::listpack::Element;
    use proptest::prelude::*;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn add(stream: &mut Stream, id: StreamId, fields: &Fields, limits: &Limits) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(field, value)| (field.as_slice(), value.as_slice()))
            .collect();
        stream.add(id, &fields, limits);
    }

    fn owned(entry: Entry) -> (StreamId, Fields) {
        (
            entry.id,
            entry
                .fields()
                .map(|(field, value)| (field.to_vec(), value.to_vec()))
                .collect(),
        )
    }

    #[test]
    fn node_has_the_layout_that_redis_stores() {
        let mut stream = Stream::new();
        stream.add(
            StreamId::new(5, 1),
            &[(b"f", b"1"), (b"g", b"x")],
            &Limits::default(),
        );
        stream.add(
            StreamId::new(7, 0),
            &[(b"f", b"2"), (b"g", b"y")],
            &Limits::default(),
        );
        stream.add(StreamId::new(7, 3), &[(b"h", b"3")], &Limits::default());
        assert!(stream.delete(StreamId::new(7, 0)));
        let node = stream.nodes().next().unwrap();
        let texts: Vec<String> = node
            .pack()
            .iter()
            .map(|element| String::from_utf8(element.to_vec()).unwrap())
            .collect();
        let want = "2 1 2 f g 0  2 0 0 1 x 5  3 2 -1 2 y 5  0 2 2 1 h 3 6";
        assert_eq!(texts.join(" "), want.replace("  ", " "));
    }

    #[test]
    fn ids_follow_the_rules_of_xadd() {
        let mut stream = Stream::new();
        stream.add(StreamId::new(10, 5), &[(b"f", b"v")], &Limits::default());
        let rows = [
            ("clock ahead", NewId::Auto, 20, Ok(StreamId::new(20, 0))),
            ("clock behind", NewId::Auto, 3, Ok(StreamId::new(10, 6))),
            (
                "same millisecond",
                NewId::AutoSeq(10),
                0,
                Ok(StreamId::new(10, 6)),
            ),
            (
                "later millisecond",
                NewId::AutoSeq(11),
                0,
                Ok(StreamId::new(11, 0)),
            ),
            (
                "earlier millisecond",
                NewId::AutoSeq(9),
                0,
                Err(AddError::TooSmall),
            ),
            (
                "same id",
                NewId::Given(StreamId::new(10, 5)),
                0,
                Err(AddError::TooSmall),
            ),
            ("zero", NewId::Given(StreamId::MIN), 0, Err(AddError::Zero)),
            (
                "higher",
                NewId::Given(StreamId::new(10, 7)),
                0,
                Ok(StreamId::new(10, 7)),
            ),
        ];
        for (name, wanted, now_ms, want) in rows {
            assert_eq!(stream.next_id(wanted, now_ms), want, "{name}");
        }
        assert_eq!(
            Stream::new().next_id(NewId::AutoSeq(0), 0),
            Ok(StreamId::new(0, 1))
        );
        stream.set_last_id(StreamId::MAX);
        assert_eq!(stream.next_id(NewId::Auto, 0), Err(AddError::Exhausted));
    }

    #[test]
    fn approximate_trim_takes_whole_nodes() {
        let limits = Limits {
            stream_node_entries: 10,
            ..Limits::default()
        };
        let mut stream = Stream::new();
        for ms in 1..=95 {
            stream.add(StreamId::new(ms, 0), &[(b"f", b"v")], &limits);
        }
        assert_eq!(stream.trim(Trim::Len(50), true, 0), 40);
        assert_eq!(stream.trim(Trim::Id(StreamId::new(75, 0)), true, 20), 20);
        assert_eq!(
            stream.trim(Trim::Id(StreamId::new(75, 0)), true, 5),
            0,
            "the limit is below one node"
        );
        assert_eq!(
            (stream.len(), stream.first_id()),
            (35, StreamId::new(61, 0))
        );
        assert_eq!(stream.trim(Trim::Len(30), false, 0), 5);
        assert_eq!(
            stream.nodes().map(Node::deleted).collect::<Vec<_>>(),
            [5, 0, 0, 0]
        );
    }

    #[test]
    fn lag_is_known_where_it_can_be_told() {
        let mut stream = Stream::new();
        for ms in 1..=10 {
            stream.add(StreamId::new(ms, 0), &[(b"f", b"v")], &Limits::default());
        }
        let group = |ms, read| Group::new(StreamId::new(ms, 0), read);
        assert_eq!(stream.lag(&group(0, Some(0))), Some(10));
        assert_eq!(stream.lag(&group(0, None)), Some(10));
        assert_eq!(stream.lag(&group(1, None)), Some(9));
        assert_eq!(stream.lag(&group(5, None)), None);
        assert_eq!(stream.lag(&group(5, Some(5))), Some(5));
        assert_eq!(stream.lag(&group(10, None)), Some(0));
        stream.delete(StreamId::new(7, 0));
        assert_eq!(
            stream.lag(&group(5, Some(5))),
            None,
            "one of the five is gone"
        );
        assert_eq!(stream.lag(&group(8, Some(8))), Some(2));
        stream.trim(Trim::Len(0), false, 0);
        assert_eq!(stream.lag(&group(9, None)), Some(0));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Add(u64, u64, Fields),
        Delete(usize),
        TrimLen(usize),
        TrimId(usize),
    }

    fn fields() -> impl Strategy<Value = Fields> {
        let text = || {
            prop_oneof![
                (0u8..4).prop_map(|n| vec![b'a' + n]),
                prop::collection::vec(any::<u8>(), 0..30)
            ]
        };
        prop_oneof![
            3 => (0u8..9).prop_map(|n| vec![(b"f".to_vec(), vec![n]), (b"2".to_vec(), b"-17".to_vec())]),
            1 => prop::collection::vec((text(), text()), 1..5),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0u64..3, 0u64..3, fields()).prop_map(|(ms, seq, fields)| Op::Add(ms, seq, fields)),
            3 => any::<usize>().prop_map(Op::Delete),
            1 => (0usize..40).prop_map(Op::TrimLen),
            1 => any::<usize>().prop_map(Op::TrimId),
        ]
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_map(
            ops in prop::collection::vec(op(), 0..150),
            node_bytes in prop_oneof![Just(0usize), Just(200), Just(4096)],
            node_entries in prop_oneof![Just(0usize), Just(5), Just(100)],
            start in prop_oneof![Just(StreamId::MIN), Just(StreamId::new(3, u64::MAX - 4))],
        ) {
            let limits = Limits { stream_node_bytes: node_bytes, stream_node_entries: node_entries, ..Limits::default() };
            let (mut stream, mut model) = (Stream::new(), BTreeMap::new());
            stream.set_last_id(start);
            for op in ops {
                let ids: Vec<StreamId> = model.keys().copied().collect();
                match op {
                    Op::Add(ms, seq, fields) => {
                        let mut id = stream.last_id().next().unwrap();
                        id.ms += ms;
                        id.seq = if ms > 0 { seq } else { id.seq.saturating_add(seq) };
                        add(&mut stream, id, &fields, &limits);
                        model.insert(id, fields);
                    }
                    Op::Delete(at) if !ids.is_empty() => {
                        let id = ids[at % ids.len()];
                        prop_assert!(stream.delete(id) && !stream.delete(id));
                        model.remove(&id);
                    }
                    Op::TrimLen(keep) => {
                        let over = ids.len().saturating_sub(keep);
                        prop_assert_eq!(stream.trim(Trim::Len(keep as u64), false, 0), over as u64);
                        ids[..over].iter().for_each(|id| drop(model.remove(id)));
                    }
                    Op::TrimId(at) if !ids.is_empty() => {
                        let at = at % ids.len();
                        prop_assert_eq!(stream.trim(Trim::Id(ids[at]), false, 0), at as u64);
                        ids[..at].iter().for_each(|id| drop(model.remove(id)));
                    }
                    _ => {}
                }
                prop_assert_eq!(stream.first_id(), model.keys().next().copied().unwrap_or_default());
            }
            prop_assert_eq!(stream.len(), model.len() as u64);
            let ids: Vec<StreamId> = model.keys().copied().collect();
            let middle = ids.get(ids.len() / 2).copied().unwrap_or_default();
            let end = StreamId::MAX;
            for (from, to) in [(StreamId::MIN, end), (middle, end), (StreamId::MIN, middle), (middle, middle)] {
                let want: Vec<_> = model.range(from..=to).map(|(id, fields)| (*id, fields.clone())).collect();
                prop_assert_eq!(stream.range(from, to).map(owned).collect::<Vec<_>>(), want.clone());
                let mut back: Vec<_> = stream.range_back(from, to).map(owned).collect();
                back.reverse();
                prop_assert_eq!(back, want);
            }
            let nodes: Vec<_> = stream.nodes().map(|node| (node.id, node.pack().clone())).collect();
            for (_, pack) in &nodes {
                let live = pack.get(0).and_then(Element::as_int);
                prop_assert!(live > Some(0));
            }
            let bytes = stream.nodes().map(|node| node.pack().heap_bytes()).sum::<usize>();
            prop_assert_eq!(stream.node_bytes, bytes);
            let counters = Counters { len: stream.len(), last_id: stream.last_id(), ..Counters::default() };
            let again = Stream::from_parts(nodes, counters);
            prop_assert!(again.range(StreamId::MIN, end).map(owned).eq(model));
        }
    }
}
