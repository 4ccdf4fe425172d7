//! An entry as a record of an RDB file, and back.
//!
//! Compact values are stored as they are in memory, so saving and loading them is a copy. Everything else takes the oldest
//! form that holds it: version 10, which Redis 7.0 loads; fields with an expiry of their own need version 12.

use std::sync::atomic::{AtomicBool, Ordering};

use dfsnap_formats::encoding::listpack::Listpack;
use dfsnap_formats::encoding::stream::StreamId as StoredId;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::rdb::{type_code, writer};
use dfsnap_formats::value as stored;

use super::walk::{Style, ValueWalk};
use crate::keyspace::blob::Blob;
use crate::keyspace::entry::Entry;
use crate::keyspace::value::hash::Hash;
use crate::keyspace::value::list::List;
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

/// For whom entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Redis and its kin, in the oldest types that hold what there is.
    Rdb,
    /// Dragonfly, in the types of DFS files. Expiries of fields are in whole seconds there.
    Dragonfly,
}

/// How entries are written.
#[derive(Clone, Debug)]
pub struct Format {
    /// For whom.
    pub dialect: Dialect,
    /// `rdbcompression`
    pub compresses: bool,
    /// What goes with keys.
    pub usage: Usage,
}

impl Format {
    fn lzf<'a>(&self, lzf: &'a mut LzfEncoder) -> Option<&'a mut LzfEncoder> {
        self.compresses.then_some(lzf)
    }

    /// The style of values.
    pub fn style<'a>(&self, lzf: &'a mut LzfEncoder) -> Style<'a> {
        Style {
            dialect: self.dialect,
            lzf: self.lzf(lzf),
        }
    }
}

/// Appends a whole entry with its expiry.
pub fn entry(out: &mut Vec<u8>, entry: &Entry, format: &Format, lzf: &mut LzfEncoder) {
    entry_head(out, entry, format, lzf);
    value(out, entry.value(), format.dialect, format.lzf(lzf));
}

/// Appends what stands before an entry's value: expiry, use, type and key.
pub fn entry_head(out: &mut Vec<u8>, entry: &Entry, format: &Format, lzf: &mut LzfEncoder) {
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
    let code = type_code_of(entry.value(), format.dialect);
    writer::key(out, code, entry.key(), format.lzf(lzf));
}

/// The type under which a value is stored.
pub fn type_code_of(value: &Value, dialect: Dialect) -> u8 {
    let is_rdb = dialect == Dialect::Rdb;
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
        Value::Hash(hash) if hash.timed_len() > 0 && is_rdb => type_code::HASH_METADATA,
        Value::Hash(hash) if hash.timed_len() > 0 => type_code::HASH_EXPIRING,
        Value::Hash(_) => type_code::HASH,
        Value::Stream(_) if is_rdb => type_code::STREAM_2,
        Value::Stream(_) => type_code::STREAM_3,
    }
}

/// Appends a whole value in the form that [`type_code_of`] names.
pub fn value(out: &mut Vec<u8>, value: &Value, dialect: Dialect, lzf: Option<&mut LzfEncoder>) {
    let is_through = ValueWalk::default().step(value, &mut Style { dialect, lzf }, out, usize::MAX);
    assert!(is_through, "a walk without a limit goes to the end");
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
