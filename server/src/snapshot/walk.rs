//! A value as the bytes of its record, a slice at a time.
//!
//! The serializer runs a walk to its end in one go; the saver takes a large value in slices, between which its shard does other
//! things. The value must not change between two slices of one walk: the saver sees to that.
//!
//! Invariants
//! - All slices together are the value as one call to the end writes it.
//! - A slice ends at the first element behind its limit. Strings and large list elements are cut inside; an element of a hash, a set
//!   or a sorted set is not.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::rdb::writer;

use super::serializer::Dialect;
use crate::keyspace::blob::Blob;
use crate::keyspace::table::Cursor;
use crate::keyspace::value::Value;
use crate::keyspace::value::hash::Hash;
use crate::keyspace::value::list::{List, NodeRef};
use crate::keyspace::value::set::Set;
use crate::keyspace::value::stream::{Group, Stream, StreamId};
use crate::keyspace::value::zset::ZSet;

/// A value of more bytes than this is saved in slices.
pub const LARGE_BYTES: usize = 128 * 1024;
/// More bytes than this are stored as they are: to compress them would hold up the shard.
const COMPRESSED_BYTES_MAX: usize = LARGE_BYTES;
/// Containers of quicklist nodes.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;
/// Members of a sorted set between two looks at the limit.
const RUN: usize = 64;

/// Whether a value is saved in slices. Cheap: it counts nodes and members, not bytes of each.
pub fn is_large(value: &Value) -> bool {
    match value {
        Value::Int(_) => false,
        Value::Str(bytes) => bytes.len() > LARGE_BYTES,
        Value::Raw(bytes) => bytes.len() > LARGE_BYTES,
        // Few nodes may still be long ones.
        Value::List(list) if list.node_count() <= 64 => list.heap_bytes() > LARGE_BYTES,
        Value::List(_) => true,
        Value::Set(set) => set.heap_bytes() > LARGE_BYTES,
        Value::ZSet(zset) => zset.heap_bytes() > LARGE_BYTES,
        Value::Hash(hash) => hash.heap_bytes() > LARGE_BYTES,
        Value::Stream(stream) => stream.heap_bytes() > LARGE_BYTES,
    }
}

/// Where a walk stands.
#[derive(Debug, Default)]
enum At {
    /// Nothing is written.
    #[default]
    Start,
    /// Bytes of a string.
    Text(usize),
    /// A node of a list, and bytes of it.
    Nodes(usize, usize),
    /// A bucket of a set.
    Members(Cursor),
    /// Members of a sorted set that are left, from the lowest.
    Ranks(usize),
    /// A bucket of a hash, while the earliest expiry of a field is looked for, and the earliest so far.
    Earliest(Cursor, i64),
    /// A bucket of a hash; the earliest expiry, if fields have one.
    Fields(Cursor, Option<i64>),
    /// Behind this node of a stream.
    StreamNodes(Option<StreamId>),
    /// A group, and the part of it.
    Groups(Blob, GroupPart),
    /// Everything is written.
    End,
}

/// Where a walk stands in a consumer group.
#[derive(Clone, Copy, Debug)]
enum GroupPart {
    Head,
    /// Behind this pending entry.
    Pending(Option<StreamId>),
    /// The number of a consumer. With an id, its head is written and so are its pending ids up to that one.
    Consumer(usize, Option<StreamId>),
}

/// How a value is written.
pub struct Style<'a> {
    /// For whom.
    pub dialect: Dialect,
    /// Compresses strings, if they are to be.
    pub lzf: Option<&'a mut LzfEncoder>,
}

impl Style<'_> {
    fn element(&mut self, out: &mut Vec<u8>, element: Element<'_>) {
        match element {
            Element::Int(number) => writer::string_int(out, number),
            Element::Str(bytes) => writer::string(out, bytes, self.lzf_for(bytes.len())),
        }
    }

    fn blob(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        writer::raw_string(out, bytes, self.lzf_for(bytes.len()));
    }

    fn lzf_for(&mut self, bytes: usize) -> Option<&mut LzfEncoder> {
        self.lzf
            .as_deref_mut()
            .filter(|_| bytes <= COMPRESSED_BYTES_MAX)
    }
}

/// The way through one value.
#[derive(Debug, Default)]
pub struct ValueWalk {
    at: At,
}

impl ValueWalk {
    /// Appends more of the value, until `out` has `limit` bytes or the value is through: then the answer is true.
    pub fn step(
        &mut self,
        value: &Value,
        style: &mut Style<'_>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> bool {
        loop {
            let at = std::mem::replace(&mut self.at, At::End);
            self.at = match value {
                Value::Int(number) => {
                    writer::string_int(out, *number);
                    At::End
                }
                Value::Str(bytes) => text(at, bytes, style, out, limit),
                Value::Raw(bytes) => text(at, bytes, style, out, limit),
                Value::List(list) => nodes(at, list, style, out, limit),
                Value::Set(set) => members(at, set, style, out),
                Value::ZSet(zset) => ranks(at, zset, style, out),
                Value::Hash(hash) => fields(at, hash, style, out),
                Value::Stream(stream) => stream_parts(at, stream, style, out),
            };
            if matches!(self.at, At::End) {
                return true;
            }
            if out.len() >= limit || matches!(self.at, At::Earliest(..)) && limit != usize::MAX {
                return false;
            }
        }
    }
}

fn text(at: At, bytes: &[u8], style: &mut Style<'_>, out: &mut Vec<u8>, limit: usize) -> At {
    let from = match at {
        At::Text(from) => from,
        _ if bytes.len() <= COMPRESSED_BYTES_MAX => {
            style.element(out, Element::Str(bytes));
            return At::End;
        }
        _ => {
            writer::len(out, bytes.len() as u64);
            0
        }
    };
    match cut(bytes, from, out, limit) {
        Some(next) => At::Text(next),
        None => At::End,
    }
}

/// Appends what there is room for; the answer is where to go on.
fn cut(bytes: &[u8], from: usize, out: &mut Vec<u8>, limit: usize) -> Option<usize> {
    let room = limit.saturating_sub(out.len()).max(1);
    let to = bytes.len().min(from.saturating_add(room));
    out.extend_from_slice(&bytes[from..to]);
    (to < bytes.len()).then_some(to)
}

fn nodes(at: At, list: &List, style: &mut Style<'_>, out: &mut Vec<u8>, limit: usize) -> At {
    let (index, from) = match at {
        At::Nodes(index, from) => (index, from),
        _ => {
            writer::len(out, list.node_count() as u64);
            (0, 0)
        }
    };
    match list.node(index) {
        None => return At::End,
        Some(NodeRef::Packed(pack)) => {
            writer::len(out, NODE_PACKED);
            style.blob(out, pack.as_bytes());
        }
        Some(NodeRef::Plain(bytes)) if bytes.len() <= COMPRESSED_BYTES_MAX => {
            writer::len(out, NODE_PLAIN);
            style.blob(out, bytes);
        }
        Some(NodeRef::Plain(bytes)) => {
            if from == 0 {
                writer::len(out, NODE_PLAIN);
                writer::len(out, bytes.len() as u64);
            }
            if let Some(next) = cut(bytes, from, out, limit) {
                return At::Nodes(index, next);
            }
        }
    }
    At::Nodes(index + 1, 0)
}

fn members(at: At, set: &Set, style: &mut Style<'_>, out: &mut Vec<u8>) -> At {
    if let Set::Ints(ints) = set {
        style.blob(out, ints.as_bytes());
        return At::End;
    }
    let cursor = match at {
        At::Members(cursor) => cursor,
        _ => {
            writer::len(out, set.len() as u64);
            Cursor::START
        }
    };
    set.scan(cursor, |member| style.element(out, member))
        .map_or(At::End, At::Members)
}

fn ranks(at: At, zset: &ZSet, style: &mut Style<'_>, out: &mut Vec<u8>) -> At {
    if let Some(pack) = zset.as_pack() {
        style.blob(out, pack.as_bytes());
        return At::End;
    }
    let end = match at {
        At::Ranks(end) => end,
        _ => {
            writer::len(out, zset.len() as u64);
            zset.len()
        }
    };
    let start = end.saturating_sub(RUN);
    // Highest score first, as servers write it: then loading inserts at the head.
    for (member, score) in zset.range(start..end).rev() {
        style.element(out, member);
        writer::double(out, score);
    }
    if start == 0 {
        At::End
    } else {
        At::Ranks(start)
    }
}

fn fields(at: At, hash: &Hash, style: &mut Style<'_>, out: &mut Vec<u8>) -> At {
    if let Some(pack) = hash.as_pack() {
        style.blob(out, pack.as_bytes());
        return At::End;
    }
    let is_timed = hash.timed_len() > 0;
    let (cursor, earliest) = match at {
        At::Fields(cursor, earliest) => (cursor, earliest),
        At::Earliest(cursor, mut earliest) => {
            let next = hash.scan_timed(cursor, |_, _, at_ms| {
                earliest = earliest.min(at_ms.unwrap_or(i64::MAX));
            });
            if let Some(next) = next {
                return At::Earliest(next, earliest);
            }
            writer::millis(out, earliest);
            writer::len(out, hash.len() as u64);
            (Cursor::START, Some(earliest))
        }
        _ if is_timed && style.dialect == Dialect::Rdb => {
            return At::Earliest(Cursor::START, i64::MAX);
        }
        _ => {
            writer::len(out, hash.len() as u64);
            (Cursor::START, None)
        }
    };
    let is_dragonfly = is_timed && style.dialect == Dialect::Dragonfly;
    let next = hash.scan_timed(cursor, |field, value, at_ms| {
        if let Some(earliest) = earliest {
            // 0 = none, else the distance from the earliest, plus one.
            writer::len(out, at_ms.map_or(0, |at_ms| (at_ms - earliest + 1) as u64));
        }
        style.element(out, field);
        style.element(out, value);
        if is_dragonfly {
            writer::dragonfly_expiry(out, at_ms);
        }
    });
    next.map_or(At::End, |next| At::Fields(next, earliest))
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    writer::len(out, id.ms);
    writer::len(out, id.seq);
}

fn stream_parts(at: At, stream: &Stream, style: &mut Style<'_>, out: &mut Vec<u8>) -> At {
    let behind = match at {
        At::Groups(name, part) => return group_part(stream, name, part, style, out),
        At::StreamNodes(behind) => behind,
        _ => {
            writer::len(out, stream.nodes().len() as u64);
            None
        }
    };
    let node = match behind {
        None => stream.nodes().next(),
        Some(id) => stream.nodes_after(id).next(),
    };
    if let Some(node) = node {
        writer::raw_string(out, &node.id.to_be_bytes(), None);
        style.blob(out, node.pack().as_bytes());
        return At::StreamNodes(Some(node.id));
    }
    writer::len(out, stream.len());
    put_id(out, stream.last_id());
    put_id(out, stream.first_id());
    put_id(out, stream.max_deleted_id);
    writer::len(out, stream.entries_added);
    writer::len(out, stream.groups.len() as u64);
    next_group(stream, None)
}

/// Ids and consumers between two looks at the limit.
const IDS: usize = 256;

fn group_part(
    stream: &Stream,
    name: Blob,
    part: GroupPart,
    style: &mut Style<'_>,
    out: &mut Vec<u8>,
) -> At {
    let group = &stream.groups[&name];
    let next = match part {
        GroupPart::Head => {
            style.element(out, Element::Str(&name));
            put_id(out, group.last_id);
            // -1 = unknown, in two's complement.
            writer::len(out, group.entries_read.unwrap_or(u64::MAX));
            writer::len(out, group.pending().len() as u64);
            Some(GroupPart::Pending(None))
        }
        GroupPart::Pending(after) => Some(pending(group, after, out)),
        GroupPart::Consumer(number, after) => consumers(group, number, after, style, out),
    };
    match next {
        Some(part) => At::Groups(name, part),
        None => next_group(stream, Some(&name)),
    }
}

fn next_group(stream: &Stream, after: Option<&Blob>) -> At {
    match stream.groups.range::<Blob, _>(behind(after)).next() {
        Some((name, _)) => At::Groups(name.clone(), GroupPart::Head),
        None => At::End,
    }
}

/// The ids behind one, or all.
fn behind<T>(id: Option<T>) -> (std::ops::Bound<T>, std::ops::Bound<T>) {
    use std::ops::Bound::{Excluded, Unbounded};
    (id.map_or(Unbounded, Excluded), Unbounded)
}

fn pending(group: &Group, after: Option<StreamId>, out: &mut Vec<u8>) -> GroupPart {
    let mut last = None;
    for (id, pending) in group.pending().range(behind(after)).take(IDS) {
        writer::stream_id(out, id.ms, id.seq);
        writer::millis(out, pending.delivered_at_ms);
        writer::len(out, pending.delivery_count);
        last = Some(*id);
    }
    match last {
        Some(id) => GroupPart::Pending(Some(id)),
        None => {
            writer::len(out, group.consumers().len() as u64);
            GroupPart::Consumer(0, None)
        }
    }
}

fn consumers(
    group: &Group,
    number: usize,
    mut after: Option<StreamId>,
    style: &mut Style<'_>,
    out: &mut Vec<u8>,
) -> Option<GroupPart> {
    let mut room = IDS;
    for (number, consumer) in group.consumers().enumerate().skip(number) {
        if room == 0 {
            return Some(GroupPart::Consumer(number, None));
        }
        room -= 1;
        let after = after.take();
        if after.is_none() {
            style.element(out, Element::Str(consumer.name()));
            writer::millis(out, consumer.seen_at_ms);
            if style.dialect == Dialect::Dragonfly {
                writer::millis(out, consumer.active_at_ms);
            }
            writer::len(out, consumer.pending().len() as u64);
        }
        for id in consumer.pending().range(behind(after)) {
            writer::stream_id(out, id.ms, id.seq);
            room = room.saturating_sub(1);
            if room == 0 {
                return Some(GroupPart::Consumer(number, Some(*id)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::value::Limits;
    use crate::keyspace::value::list::End;
    use crate::keyspace::value::stream::Pending;
    use dfsnap_formats::rdb::Flavor;
    use dfsnap_formats::rdb::decode::{DecodeLimits, decode};

    fn list(count: usize, bytes: usize) -> Value {
        let mut list = List::new();
        for i in 0..count {
            let mut element = format!("element {i} ").into_bytes();
            element.resize(element.len().max(bytes), b'x');
            list.push(End::Right, &element, &Limits::default());
        }
        Value::List(Box::new(list))
    }

    fn hash(count: usize, is_timed: bool) -> Value {
        let mut hash = Hash::new();
        for i in 0..count {
            let name = format!("field {i}").into_bytes();
            hash.insert(&name, &vec![b'v'; i % 90], &Limits::default());
            if is_timed && i % 3 == 0 {
                hash.set_expire_at_ms(&name, Some(1_900_000_000_000 + i as i64));
            }
        }
        Value::Hash(Box::new(hash))
    }

    fn stream() -> Value {
        let mut stream = Stream::new();
        for i in 1..=2_000 {
            let text = format!("{i}");
            let fields = [(&b"field"[..], text.as_bytes())];
            stream.add(StreamId::new(i, 0), &fields, &Limits::default());
        }
        for (name, consumers) in [("a", 700), ("b", 1), ("c", 0)] {
            let mut group = Group::new(StreamId::new(2_000, 0), Some(2_000));
            for c in 0..consumers {
                let consumer = group
                    .create(format!("consumer {c}").as_bytes(), 7)
                    .expect("a new name");
                let ids = if consumers == 1 { 1..1_500 } else { c..c + 2 };
                for id in ids {
                    let pending = Pending {
                        consumer,
                        delivered_at_ms: 5,
                        delivery_count: 1,
                    };
                    group.assign(StreamId::new(id + 1, 0), pending);
                }
            }
            stream.groups.insert(Blob::new(name.as_bytes()), group);
        }
        Value::Stream(Box::new(stream))
    }

    fn rows() -> Vec<(&'static str, Value)> {
        let limits = Limits::default();
        let (mut set, mut zset) = (Set::new(), ZSet::new());
        for i in 0..9_000 {
            set.insert(format!("member {i}").as_bytes(), &limits);
            zset.insert(format!("member {i}").as_bytes(), f64::from(i % 77), &limits);
        }
        vec![
            ("number", Value::Int(-7)),
            ("short string", Value::string(b"short")),
            ("long string", Value::string(&vec![b'l'; 1 << 20])),
            ("grown string", Value::Raw(Box::new(vec![b'r'; 300_001]))),
            ("small list", list(3, 4)),
            ("long list", list(20_000, 20)),
            ("list of long elements", list(3, 500_000)),
            ("small set", {
                let mut set = Set::new();
                set.insert(b"one", &limits);
                Value::Set(Box::new(set))
            }),
            ("large set", Value::Set(Box::new(set))),
            ("large sorted set", Value::ZSet(Box::new(zset))),
            ("small hash", hash(3, false)),
            ("large hash", hash(6_000, false)),
            ("hash with expiries", hash(6_000, true)),
            ("stream with groups", stream()),
        ]
    }

    #[test]
    fn slices_of_any_size_make_the_value_and_it_decodes() {
        for (name, value) in rows() {
            for dialect in [Dialect::Rdb, Dialect::Dragonfly] {
                let mut whole = Vec::new();
                super::super::serializer::value(&mut whole, &value, dialect, None);
                for limit in [1, 4_000, 65_536] {
                    let (mut walk, mut all, mut slice) = (ValueWalk::default(), Vec::new(), vec![]);
                    loop {
                        slice.clear();
                        let mut style = Style { dialect, lzf: None };
                        let is_through = walk.step(&value, &mut style, &mut slice, limit);
                        all.extend_from_slice(&slice);
                        if is_through {
                            break;
                        }
                    }
                    assert!(all == whole, "{name}, {dialect:?}, {limit}");
                }
                let code = super::super::serializer::type_code_of(&value, dialect);
                let flavor = match dialect {
                    Dialect::Rdb => Flavor::Redis,
                    Dialect::Dragonfly => Flavor::Dragonfly,
                };
                let decoded = decode(flavor, code, &whole, &DecodeLimits::default());
                assert!(matches!(decoded, Ok(Some(_))), "{name}, {dialect:?}");
            }
        }
    }

    #[test]
    fn large_is_what_takes_more_than_a_slice() {
        for (name, value) in rows() {
            let mut whole = Vec::new();
            super::super::serializer::value(&mut whole, &value, Dialect::Rdb, None);
            assert_eq!(
                is_large(&value),
                whole.len() > LARGE_BYTES / 2,
                "{name}: {} bytes",
                whole.len()
            );
        }
    }
}
