//! An entry as a record of an RDB file, and back.
//!
//! Compact values are stored as they are in memory, so saving and loading them is a copy. Everything else takes the oldest
//! form that holds it: version 10, which Redis 7.0 loads; fields with an expiry of their own need version 12.

use std::sync::atomic::{AtomicBool, Ordering};

use dfsnap_formats::encoding::listpack::{Element, Listpack};
use dfsnap_formats::encoding::stream::StreamId as StoredId;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::rdb::{type_code, writer};
use dfsnap_formats::value as stored;

use crate::keyspace::blob::Blob;
use crate::keyspace::entry::Entry;
use crate::keyspace::value::hash::Hash;
use crate::keyspace::value::list::{List, NodeRef};
use crate::keyspace::value::set::Set;
use crate::keyspace::value::stream::{Consumer, Counters, Group, Pending, Stream, StreamId};
use crate::keyspace::value::zset::ZSet;
use crate::keyspace::value::{Limits, Value};

/// Whether this process has ever held a field with an expiry of its own: then what it writes may need version 12.
static HAS_FIELD_EXPIRY: AtomicBool = AtomicBool::new(false);

/// Notes that fields may have an expiry from now on.
pub fn note_field_expiry() {
    HAS_FIELD_EXPIRY.store(true, Ordering::Relaxed);
}

/// The RDB version that holds everything in memory and loads in as old a server as possible.
pub fn version_needed() -> u16 {
    if HAS_FIELD_EXPIRY.load(Ordering::Relaxed) {
        12
    } else {
        10
    }
}

/// What goes with a key about its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Nothing.
    None,
    /// Seconds since the last use, under an LRU policy. Holds the clock, Unix ms.
    Idle(i64),
    /// The LFU counter, under an LFU policy. Holds the clock, Unix ms, and the decay time in minutes.
    Frequency(i64, u32),
}

/// How entries are written.
#[derive(Clone, Debug)]
pub struct Format {
    /// `rdbcompression`
    pub compresses: bool,
    /// What goes with keys.
    pub usage: Usage,
}

/// Appends an entry with its expiry.
pub fn entry(out: &mut Vec<u8>, entry: &Entry, format: &Format, lzf: &mut LzfEncoder) {
    if let Some(at_ms) = entry.expire_at_ms() {
        writer::expire_ms(out, at_ms);
    }
    match format.usage {
        Usage::None => {}
        Usage::Idle(now_ms) => writer::idle(out, u64::from(entry.access().idle_s(now_ms))),
        Usage::Frequency(now_ms, decay) => {
            writer::freq(out, entry.access().lfu_counter(now_ms, decay))
        }
    }
    let mut lzf = format.compresses.then_some(lzf);
    writer::key(
        out,
        type_code_of(entry.value()),
        entry.key(),
        lzf.as_deref_mut(),
    );
    value(out, entry.value(), lzf);
}

/// The type under which a value is stored.
pub fn type_code_of(value: &Value) -> u8 {
    match value {
        Value::Int(_) | Value::Str(_) | Value::Raw(_) => type_code::STRING,
        Value::List(_) => type_code::LIST_QUICKLIST_2,
        Value::Set(set) => match &**set {
            Set::Ints(_) => type_code::SET_INTSET,
            Set::Packed(_) | Set::Large(_) => type_code::SET,
        },
        Value::ZSet(zset) if zset.as_pack().is_some() => type_code::ZSET_LISTPACK,
        Value::ZSet(_) => type_code::ZSET_2,
        Value::Hash(hash) if hash.as_pack().is_some() => type_code::HASH_LISTPACK,
        Value::Hash(hash) if hash.timed_len() > 0 => type_code::HASH_METADATA,
        Value::Hash(_) => type_code::HASH,
        Value::Stream(_) => type_code::STREAM_2,
    }
}

/// Appends a value in the form that [`type_code_of`] names.
pub fn value(out: &mut Vec<u8>, value: &Value, mut lzf: Option<&mut LzfEncoder>) {
    match value {
        Value::Int(number) => writer::string_int(out, *number),
        Value::Str(bytes) => writer::string(out, bytes, lzf),
        Value::Raw(bytes) => writer::string(out, bytes, lzf),
        Value::List(list) => put_list(out, list, lzf),
        Value::Set(set) => match &**set {
            Set::Ints(ints) => writer::raw_string(out, ints.as_bytes(), lzf),
            Set::Packed(_) | Set::Large(_) => {
                writer::len(out, set.len() as u64);
                for member in set.iter() {
                    put_element(out, member, lzf.as_deref_mut());
                }
            }
        },
        Value::ZSet(zset) => match zset.as_pack() {
            Some(pack) => writer::raw_string(out, pack.as_bytes(), lzf),
            None => put_large_zset(out, zset, lzf),
        },
        Value::Hash(hash) => match hash.as_pack() {
            Some(pack) => writer::raw_string(out, pack.as_bytes(), lzf),
            None if hash.timed_len() > 0 => put_timed_hash(out, hash, lzf),
            None => {
                writer::len(out, hash.len() as u64);
                for (field, value) in hash.iter() {
                    put_element(out, field, lzf.as_deref_mut());
                    put_element(out, value, lzf.as_deref_mut());
                }
            }
        },
        Value::Stream(stream) => put_stream(out, stream, lzf),
    }
}

fn put_element(out: &mut Vec<u8>, element: Element<'_>, lzf: Option<&mut LzfEncoder>) {
    match element {
        Element::Int(number) => writer::string_int(out, number),
        Element::Str(bytes) => writer::string(out, bytes, lzf),
    }
}

/// Containers of quicklist nodes.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;

fn put_list(out: &mut Vec<u8>, list: &List, mut lzf: Option<&mut LzfEncoder>) {
    writer::len(out, list.node_count() as u64);
    for node in (0..list.node_count()).filter_map(|index| list.node(index)) {
        match node {
            NodeRef::Packed(pack) => {
                writer::len(out, NODE_PACKED);
                writer::raw_string(out, pack.as_bytes(), lzf.as_deref_mut());
            }
            NodeRef::Plain(bytes) => {
                writer::len(out, NODE_PLAIN);
                writer::raw_string(out, bytes, lzf.as_deref_mut());
            }
        }
    }
}

fn put_large_zset(out: &mut Vec<u8>, zset: &ZSet, mut lzf: Option<&mut LzfEncoder>) {
    writer::len(out, zset.len() as u64);
    // Highest score first, as servers write it: then loading inserts at the head.
    for (member, score) in zset.iter().rev() {
        put_element(out, member, lzf.as_deref_mut());
        writer::double(out, score);
    }
}

fn put_timed_hash(out: &mut Vec<u8>, hash: &Hash, mut lzf: Option<&mut LzfEncoder>) {
    let min = hash
        .iter_timed()
        .filter_map(|(_, _, at)| at)
        .min()
        .unwrap_or(0);
    writer::millis(out, min);
    writer::len(out, hash.len() as u64);
    for (field, value, at) in hash.iter_timed() {
        // 0 = none, else the distance from the earliest, plus one.
        writer::len(out, at.map_or(0, |at| (at - min + 1) as u64));
        put_element(out, field, lzf.as_deref_mut());
        put_element(out, value, lzf.as_deref_mut());
    }
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    writer::len(out, id.ms);
    writer::len(out, id.seq);
}

fn put_stream(out: &mut Vec<u8>, stream: &Stream, mut lzf: Option<&mut LzfEncoder>) {
    let nodes = stream.nodes();
    writer::len(out, nodes.len() as u64);
    for node in nodes {
        writer::raw_string(out, &node.id.to_be_bytes(), None);
        writer::raw_string(out, node.pack().as_bytes(), lzf.as_deref_mut());
    }
    writer::len(out, stream.len());
    put_id(out, stream.last_id());
    put_id(out, stream.first_id());
    put_id(out, stream.max_deleted_id);
    writer::len(out, stream.entries_added);
    writer::len(out, stream.groups.len() as u64);
    for (name, group) in &stream.groups {
        writer::string(out, name, lzf.as_deref_mut());
        put_id(out, group.last_id);
        // -1 = unknown, in two's complement.
        writer::len(out, group.entries_read.unwrap_or(u64::MAX));
        writer::len(out, group.pending().len() as u64);
        for (id, pending) in group.pending() {
            writer::stream_id(out, id.ms, id.seq);
            writer::millis(out, pending.delivered_at_ms);
            writer::len(out, pending.delivery_count);
        }
        writer::len(out, group.consumers().len() as u64);
        for consumer in group.consumers() {
            writer::string(out, consumer.name(), lzf.as_deref_mut());
            writer::millis(out, consumer.seen_at_ms);
            writer::len(out, consumer.pending().len() as u64);
            for id in consumer.pending() {
                writer::stream_id(out, id.ms, id.seq);
            }
        }
    }
}

/// The value in memory of one that was read, in the forms that `limits` ask for. `Err` names what this server does not hold.
pub fn from_stored(value: stored::Value, limits: &Limits) -> Result<Value, String> {
    Ok(match value {
        stored::Value::String(bytes) => Value::string(&bytes),
        stored::Value::List(nodes) => {
            let nodes = nodes.into_iter().map(|node| match node {
                stored::ListNode::Packed(pack) => Ok(pack),
                stored::ListNode::Plain(bytes) => Err(bytes.into_boxed_slice()),
            });
            Value::List(Box::new(List::from_nodes(nodes, limits)))
        }
        stored::Value::Set(set) => Value::Set(Box::new(match set {
            stored::SetValue::Intset(ints) => Set::from_ints(ints, limits),
            stored::SetValue::Listpack(pack) => Set::from_pack(pack, limits),
            stored::SetValue::Members(members) => {
                let mut set = Set::new();
                for member in members {
                    set.insert(&member, limits);
                }
                set
            }
            stored::SetValue::Expiring(_) => {
                return Err("a set whose members expire, which only Dragonfly has".to_owned());
            }
        })),
        stored::Value::ZSet(zset) => Value::ZSet(Box::new(match zset {
            stored::ZSetValue::Listpack(pack) => ZSet::from_pack(pack, limits),
            stored::ZSetValue::Members(members) => {
                let mut zset = ZSet::new();
                for (member, score) in members {
                    zset.insert(&member, score, limits);
                }
                zset
            }
        })),
        stored::Value::Hash(hash) => Value::Hash(Box::new(hash_from_stored(hash, limits))),
        stored::Value::Stream(stream) => Value::Stream(Box::new(stream_from_stored(stream))),
        stored::Value::Module(module) => {
            return Err(format!(
                "a value of module {}, which this server does not have",
                module.id.name()
            ));
        }
        stored::Value::Json(_) => {
            return Err("a JSON document, which this server does not have".to_owned());
        }
        stored::Value::Sketch(sketch) => {
            return Err(format!(
                "a {} of Dragonfly, which this server does not have",
                type_code::name(sketch.type_code)
            ));
        }
    })
}

fn hash_from_stored(hash: stored::HashValue, limits: &Limits) -> Hash {
    if let stored::HashValue::Listpack(pack) = hash {
        return Hash::from_pack(pack, limits);
    }
    let mut result = Hash::new();
    for field in hash.fields() {
        let (name, value) = (field.field.to_vec(), field.value.to_vec());
        result.insert(&name, &value, limits);
        if field.expire_at_ms.is_some() {
            note_field_expiry();
            result.set_expire_at_ms(&name, field.expire_at_ms);
        }
    }
    result
}

fn id(id: StoredId) -> StreamId {
    StreamId::new(id.ms, id.seq)
}

fn stream_from_stored(stored: stored::StreamValue) -> Stream {
    let counters = Counters {
        len: stored.length,
        last_id: id(stored.last_id),
        max_deleted_id: id(stored.max_deleted_id),
        entries_added: stored.entries_added,
    };
    let nodes: Vec<(StreamId, Listpack)> = stored
        .nodes
        .into_iter()
        .map(|(node, pack)| (id(node), pack))
        .collect();
    let mut stream = Stream::from_parts(nodes, counters);
    for group in stored.groups {
        let mut made = Group::new(id(group.last_id), u64::try_from(group.entries_read).ok());
        let mut consumers = Vec::with_capacity(group.consumers.len());
        for consumer in &group.consumers {
            let Some(handle) = made.create(&consumer.name, consumer.seen_at_ms) else {
                continue;
            };
            let kept: &mut Consumer = made.consumer_mut(handle);
            kept.active_at_ms = consumer.active_at_ms;
            consumers.push(handle);
        }
        for pending in group.pending {
            if let Some(&consumer) = consumers.get(pending.consumer as usize) {
                let kept = Pending {
                    consumer,
                    delivered_at_ms: pending.delivered_at_ms,
                    delivery_count: pending.deliveries,
                };
                made.assign(id(pending.id), kept);
            }
        }
        stream.groups.insert(Blob::new(&group.name), made);
    }
    stream
}
