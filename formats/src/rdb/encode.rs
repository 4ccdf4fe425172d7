//! From data to a stored value, in the oldest form that suffices.
//!
//! Converters and DUMP use it. Packs are copied as they are where the target version knows them.

use super::{type_code, writer};
use crate::encoding::listpack::Listpack;
use crate::lzf::LzfEncoder;
use crate::value::{HashValue, ListNode, ModuleValue, SetValue, StreamValue, Value, ZSetValue};

/// Oldest version that is written: Redis 7.0.
pub const VERSION_MIN: u16 = 10;
/// Sets as listpacks, and the active time of stream consumers: Redis 7.2.
const VERSION_SET_LISTPACK: u16 = 11;
/// Expiry of hash fields: Redis 7.4.
const VERSION_FIELD_EXPIRY: u16 = 12;

/// Why a value cannot be stored for the version that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("RDB version {version} is not written: wanted {VERSION_MIN} or later")]
    Version { version: u16 },
    #[error(
        "a hash whose fields expire needs RDB version {VERSION_FIELD_EXPIRY}, but {version} was asked for"
    )]
    FieldExpiry { version: u16 },
    #[error("{what} is known to Dragonfly alone")]
    Foreign { what: &'static str },
}

/// The type that `value` is stored as in a file of this version.
pub fn type_code(value: &Value, version: u16) -> Result<u8, EncodeError> {
    if version < VERSION_MIN {
        return Err(EncodeError::Version { version });
    }
    Ok(match value {
        Value::String(_) => type_code::STRING,
        Value::List(_) => type_code::LIST_QUICKLIST_2,
        Value::Set(SetValue::Intset(_)) => type_code::SET_INTSET,
        Value::Set(SetValue::Listpack(_)) if version >= VERSION_SET_LISTPACK => {
            type_code::SET_LISTPACK
        }
        Value::Set(SetValue::Expiring(_)) => {
            let what = "a set whose members expire";
            return Err(EncodeError::Foreign { what });
        }
        Value::Set(_) => type_code::SET,
        Value::ZSet(ZSetValue::Listpack(_)) => type_code::ZSET_LISTPACK,
        Value::ZSet(ZSetValue::Members(_)) => type_code::ZSET_2,
        Value::Hash(HashValue::Listpack(_)) => type_code::HASH_LISTPACK,
        Value::Hash(hash) if !hash.has_field_expiry() => type_code::HASH,
        Value::Hash(_) if version < VERSION_FIELD_EXPIRY => {
            return Err(EncodeError::FieldExpiry { version });
        }
        Value::Hash(HashValue::ListpackEx(_)) => type_code::HASH_LISTPACK_EX,
        Value::Hash(HashValue::Fields(_)) => type_code::HASH_METADATA,
        Value::Stream(_) if version >= VERSION_SET_LISTPACK => type_code::STREAM_3,
        Value::Stream(_) => type_code::STREAM_2,
        Value::Module(_) | Value::Json(_) => type_code::MODULE_2,
        Value::Sketch(sketch) => {
            let what = type_code::name(sketch.type_code);
            return Err(EncodeError::Foreign { what });
        }
    })
}

/// Appends `value` as a file of this version stores it, without type and key, and returns its type. Strings and blobs
/// are compressed where an encoder is given.
///
/// ```
/// use dfsnap_formats::rdb::{Flavor, decode::decode, encode::encode, type_code};
/// use dfsnap_formats::value::Value;
/// let value = Value::String(b"12".to_vec());
/// let mut stored = Vec::new();
/// assert_eq!(encode(&value, 10, &mut stored, None), Ok(type_code::STRING));
/// assert_eq!(stored, [0xC0, 12]);
/// assert_eq!(decode(Flavor::Redis, type_code::STRING, &stored, &Default::default()), Ok(Some(value)));
/// ```
pub fn encode(
    value: &Value,
    version: u16,
    out: &mut Vec<u8>,
    lzf: Option<&mut LzfEncoder>,
) -> Result<u8, EncodeError> {
    let code = type_code(value, version)?;
    let mut encoder = Encoder { out, lzf };
    match value {
        Value::String(bytes) => encoder.string(bytes),
        Value::List(nodes) => encoder.list(nodes),
        Value::Set(set) => encoder.set(set, code),
        Value::ZSet(ZSetValue::Listpack(pack)) => encoder.blob(pack.as_bytes()),
        Value::ZSet(zset) => {
            writer::len(encoder.out, zset.len() as u64);
            for (member, score) in zset.members() {
                encoder.string(member.text(&mut itoa::Buffer::new()));
                writer::double(encoder.out, score);
            }
        }
        Value::Hash(hash) => encoder.hash(hash, code),
        Value::Stream(stream) => encoder.stream(stream, code),
        Value::Module(module) => encoder.out.extend_from_slice(&module.raw),
        Value::Json(text) => encoder
            .out
            .extend_from_slice(&ModuleValue::of_json(text).raw),
        Value::Sketch(sketch) => encoder.out.extend_from_slice(&sketch.raw),
    }
    Ok(code)
}

struct Encoder<'o, 'l> {
    out: &'o mut Vec<u8>,
    lzf: Option<&'l mut LzfEncoder>,
}

impl Encoder<'_, '_> {
    fn string(&mut self, bytes: &[u8]) {
        writer::string(self.out, bytes, self.lzf.as_deref_mut());
    }

    fn blob(&mut self, bytes: &[u8]) {
        writer::raw_string(self.out, bytes, self.lzf.as_deref_mut());
    }

    fn list(&mut self, nodes: &[ListNode]) {
        const PLAIN: u64 = 1;
        const PACKED: u64 = 2;
        // A plain node holds no empty element; a pack does.
        let empty: Listpack = [&b""[..]].into_iter().collect();
        let stored = nodes.iter().filter(|node| !node.is_empty());
        writer::len(self.out, stored.clone().count() as u64);
        for node in stored {
            match node {
                ListNode::Plain(bytes) if bytes.is_empty() => {
                    writer::len(self.out, PACKED);
                    self.blob(empty.as_bytes());
                }
                ListNode::Plain(bytes) => {
                    writer::len(self.out, PLAIN);
                    self.blob(bytes);
                }
                ListNode::Packed(pack) => {
                    writer::len(self.out, PACKED);
                    self.blob(pack.as_bytes());
                }
            }
        }
    }

    fn set(&mut self, set: &SetValue, code: u8) {
        match set {
            SetValue::Intset(set) => self.blob(set.as_bytes()),
            SetValue::Listpack(pack) if code == type_code::SET_LISTPACK => {
                self.blob(pack.as_bytes());
            }
            set => {
                writer::len(self.out, set.len() as u64);
                for member in set.members() {
                    self.string(member.text(&mut itoa::Buffer::new()));
                }
            }
        }
    }

    fn hash(&mut self, hash: &HashValue, code: u8) {
        let expiries = || hash.fields().filter_map(|field| field.expire_at_ms);
        let lowest = expiries().min().unwrap_or(0);
        match (hash, code) {
            (HashValue::Listpack(pack), _) => self.blob(pack.as_bytes()),
            (HashValue::ListpackEx(pack), type_code::HASH_LISTPACK_EX) => {
                writer::millis(self.out, lowest);
                self.blob(pack.as_bytes());
            }
            (hash, code) => {
                let with_expiry = code == type_code::HASH_METADATA;
                if with_expiry {
                    writer::millis(self.out, lowest);
                }
                writer::len(self.out, hash.len() as u64);
                for field in hash.fields() {
                    if with_expiry {
                        let after = field.expire_at_ms.map(|at_ms| at_ms.abs_diff(lowest) + 1);
                        writer::len(self.out, after.unwrap_or(0));
                    }
                    self.string(field.field.text(&mut itoa::Buffer::new()));
                    self.string(field.value.text(&mut itoa::Buffer::new()));
                }
            }
        }
    }

    fn stream(&mut self, stream: &StreamValue, code: u8) {
        writer::len(self.out, stream.nodes.len() as u64);
        for (id, pack) in &stream.nodes {
            writer::raw_string(self.out, &id.to_bytes(), None);
            self.blob(pack.as_bytes());
        }
        for number in [
            stream.length,
            stream.last_id.ms,
            stream.last_id.seq,
            stream.first_id.ms,
            stream.first_id.seq,
            stream.max_deleted_id.ms,
            stream.max_deleted_id.seq,
            stream.entries_added,
            stream.groups.len() as u64,
        ] {
            writer::len(self.out, number);
        }
        for group in &stream.groups {
            self.string(&group.name);
            writer::len(self.out, group.last_id.ms);
            writer::len(self.out, group.last_id.seq);
            writer::len(self.out, group.entries_read as u64);
            writer::len(self.out, group.pending.len() as u64);
            let mut owned: Vec<Vec<u8>> = vec![Vec::new(); group.consumers.len()];
            for entry in &group.pending {
                let id = entry.id.to_bytes();
                self.out.extend_from_slice(&id);
                writer::millis(self.out, entry.delivered_at_ms);
                writer::len(self.out, entry.deliveries);
                owned[entry.consumer as usize].extend_from_slice(&id);
            }
            writer::len(self.out, group.consumers.len() as u64);
            for (consumer, ids) in group.consumers.iter().zip(&owned) {
                self.string(&consumer.name);
                writer::millis(self.out, consumer.seen_at_ms);
                if code == type_code::STREAM_3 {
                    writer::millis(self.out, consumer.active_at_ms);
                }
                writer::len(self.out, ids.len() as u64 / 16);
                self.out.extend_from_slice(ids);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::intset::Intset;
    use crate::encoding::listpack::Element;
    use crate::encoding::stream::StreamId;
    use crate::rdb::Flavor;
    use crate::rdb::decode::{DecodeLimits, decode};
    use crate::value::{HashField, PendingEntry, StreamConsumer, StreamGroup};
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..30),
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            (0u8..3, 30usize..200).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    fn pack<'a>(texts: impl IntoIterator<Item = &'a Vec<u8>>) -> Listpack {
        texts.into_iter().map(Vec::as_slice).collect()
    }

    fn expiry() -> impl Strategy<Value = Option<i64>> {
        prop::option::of(1i64..1 << 46)
    }

    fn set() -> impl Strategy<Value = Value> {
        prop_oneof![
            btree_set(any::<i64>(), 1..40).prop_map(|numbers| {
                let mut set = Intset::new();
                for number in numbers {
                    set.insert(number);
                }
                SetValue::Intset(set)
            }),
            btree_set(text(), 1..40).prop_map(|texts| SetValue::Listpack(pack(&texts))),
            btree_set(text(), 1..40)
                .prop_map(|texts| SetValue::Members(texts.into_iter().collect())),
        ]
        .prop_map(Value::Set)
    }

    fn hash() -> impl Strategy<Value = Value> {
        prop_oneof![
            btree_map(text(), text(), 1..30).prop_map(|fields| {
                let texts = fields.iter().flat_map(|(field, value)| [field, value]);
                HashValue::Listpack(pack(texts))
            }),
            btree_map(text(), (text(), expiry()), 1..30).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(field, (value, expire_at_ms))| HashField {
                        field,
                        value,
                        expire_at_ms,
                    });
                HashValue::Fields(fields.collect())
            }),
            btree_map(text(), (text(), 1i64..1 << 46), 1..30).prop_map(|fields| {
                let mut fields: Vec<_> = fields.into_iter().collect();
                fields.sort_by_key(|(_, (_, at_ms))| *at_ms);
                let mut pack = Listpack::new();
                for (field, (value, at_ms)) in &fields {
                    pack.push_back(Element::parse(field));
                    pack.push_back(Element::parse(value));
                    pack.push_back(Element::Int(*at_ms));
                }
                HashValue::ListpackEx(pack)
            }),
        ]
        .prop_map(Value::Hash)
    }

    fn zset() -> impl Strategy<Value = Value> {
        let score = any::<f64>().prop_filter("a number", |score| !score.is_nan());
        btree_map(text(), score, 1..30)
            .prop_map(|members| Value::ZSet(ZSetValue::Members(members.into_iter().collect())))
    }

    fn list() -> impl Strategy<Value = Value> {
        let node = prop_oneof![
            vec(text(), 1..20).prop_map(|texts| ListNode::Packed(pack(&texts))),
            vec(any::<u8>(), 1..300).prop_map(ListNode::Plain),
        ];
        vec(node, 1..6).prop_map(Value::List)
    }

    fn stream() -> impl Strategy<Value = Value> {
        let ids = btree_set((any::<u64>(), any::<u64>()), 0..8);
        let owners = vec(0u32..3, 8);
        (ids, owners, any::<[u64; 5]>(), any::<[i64; 5]>()).prop_map(|(ids, owners, n, i)| {
            let ids: Vec<_> = ids
                .iter()
                .map(|(ms, seq)| StreamId::new(*ms, *seq))
                .collect();
            let node = |id: &StreamId| {
                let texts = ["1", "0", "1", "f", "0", "2", "0", "0", "v", "4"];
                (
                    *id,
                    texts
                        .iter()
                        .map(|text| text.as_bytes())
                        .collect::<Listpack>(),
                )
            };
            let pending = ids.iter().zip(owners).map(|(id, consumer)| PendingEntry {
                id: *id,
                delivered_at_ms: i[0],
                deliveries: n[0],
                consumer,
            });
            let consumers = ["a", "b", "c"].map(|name| StreamConsumer {
                name: name.into(),
                seen_at_ms: i[1],
                active_at_ms: i[2],
            });
            Value::Stream(StreamValue {
                nodes: ids.iter().map(node).collect(),
                length: ids.len() as u64,
                last_id: StreamId::new(n[1], n[2]),
                first_id: ids.first().copied().unwrap_or_default(),
                max_deleted_id: StreamId::new(n[3], n[4]),
                entries_added: n[0],
                groups: vec![StreamGroup {
                    name: b"group".to_vec(),
                    last_id: StreamId::new(n[4], n[3]),
                    entries_read: i[3],
                    pending: pending.collect(),
                    consumers: consumers.to_vec(),
                }],
            })
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            text().prop_map(Value::String),
            list(),
            set(),
            hash(),
            zset(),
            stream(),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back(value in value(), compress in any::<bool>()) {
            let mut lzf = LzfEncoder::new();
            let mut stored = Vec::new();
            let code = encode(&value, 12, &mut stored, compress.then_some(&mut lzf)).unwrap();
            let back = decode(Flavor::Redis, code, &stored, &DecodeLimits::default()).unwrap();
            prop_assert_eq!(back, Some(value));
        }

        #[test]
        fn damaged_values_give_a_value_or_an_error(value in value(), at in any::<usize>(), byte in any::<u8>()) {
            let mut stored = Vec::new();
            let code = encode(&value, 12, &mut stored, None).unwrap();
            let at = at % stored.len();
            stored[at] = byte;
            // Whatever it still is can be walked and stored again.
            if let Ok(Some(value)) = decode(Flavor::Redis, code, &stored, &DecodeLimits::default()) {
                value.count();
                let again = encode(&value, 12, &mut Vec::new(), None);
                prop_assert!(again.is_ok());
            }
            prop_assert!(decode(Flavor::Redis, code, &stored[..at], &DecodeLimits::default()).is_err());
        }
    }

    #[test]
    fn target_version_chooses_the_type_or_refuses() {
        let texts: Listpack = [&b"a"[..], b"b"].into_iter().collect();
        let mut with_expiry = texts.clone();
        with_expiry.push_back(Element::Int(5));
        let set = Value::Set(SetValue::Listpack(texts.clone()));
        let expiring = Value::Hash(HashValue::ListpackEx(with_expiry));
        let stream = Value::Stream(StreamValue::default());
        let mut lasting = texts.clone();
        lasting.push_back(Element::Int(0));
        let lasting = Value::Hash(HashValue::ListpackEx(lasting));
        let rows = [
            ("set, 10", &set, 10, Ok(type_code::SET)),
            ("set, 11", &set, 11, Ok(type_code::SET_LISTPACK)),
            ("stream, 10", &stream, 10, Ok(type_code::STREAM_2)),
            ("stream, 11", &stream, 11, Ok(type_code::STREAM_3)),
            ("expiry, 12", &expiring, 12, Ok(type_code::HASH_LISTPACK_EX)),
            (
                "expiry, 11",
                &expiring,
                11,
                Err(EncodeError::FieldExpiry { version: 11 }),
            ),
            ("no expiry in use, 10", &lasting, 10, Ok(type_code::HASH)),
            ("too old", &set, 9, Err(EncodeError::Version { version: 9 })),
        ];
        for (name, value, version, want) in rows {
            assert_eq!(
                encode(value, version, &mut Vec::new(), None),
                want,
                "{name}"
            );
        }
    }
}
