//! From data to a stored value, as servers of the target version write it.
//!
//! Converters and DUMP use it. Packs are copied as they are where the target knows them, and become ziplists where it
//! knows only these.

use super::loss::{self, Loss};
use super::stored::VALKEY_NO_EXPIRY;
use super::target::{Feature, Target};
use super::{Flavor, type_code, writer};
use crate::double::DoubleText;
use crate::encoding::listpack::{Element, Listpack};
use crate::encoding::ziplist;
use crate::lzf::LzfEncoder;
use crate::value::{HashValue, ListNode, ModuleValue, SetValue, StreamValue, Value, ZSetValue};

/// The target cannot hold the value. See [`loss::without`] for what it can hold of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{target} cannot hold {loss}")]
pub struct EncodeError {
    pub target: Target,
    pub loss: Loss,
}

/// A list of version 6 that is short and small is one ziplist; the limits are those of servers of that time.
const SMALL_LIST_ELEMENTS: usize = 512;
const SMALL_LIST_BYTES: usize = 8192;

/// The type that `value` is stored as for `target`. A value of which data would be lost is refused.
pub fn type_code(value: &Value, target: Target) -> Result<u8, EncodeError> {
    if let Some(loss) = loss::of_value(value, target)
        .into_iter()
        .find(|loss| loss.is_data())
        && loss != Loss::ExpiryPrecision
    {
        return Err(EncodeError { target, loss });
    }
    let either = |feature, yes, no| if target.knows(feature) { yes } else { no };
    let is_dragonfly = target.flavor() == Flavor::Dragonfly;
    Ok(match value {
        Value::String(_) => type_code::STRING,
        Value::List(_) if target.knows(Feature::Listpacks) => type_code::LIST_QUICKLIST_2,
        Value::List(_) if target.knows(Feature::Quicklist) => type_code::LIST_QUICKLIST,
        Value::List(nodes) => match nodes.as_slice() {
            [ListNode::Packed(pack)]
                if pack.len() <= SMALL_LIST_ELEMENTS && pack.byte_len() <= SMALL_LIST_BYTES =>
            {
                type_code::LIST_ZIPLIST
            }
            _ => type_code::LIST,
        },
        Value::Set(SetValue::Intset(_)) => type_code::SET_INTSET,
        Value::Set(SetValue::Listpack(_)) => either(
            Feature::SetListpacks,
            type_code::SET_LISTPACK,
            type_code::SET,
        ),
        Value::Set(SetValue::Expiring(members))
            if members.iter().any(|member| member.expire_at_ms.is_some()) =>
        {
            type_code::SET_EXPIRING
        }
        Value::Set(_) => type_code::SET,
        Value::ZSet(ZSetValue::Listpack(_)) => either(
            Feature::Listpacks,
            type_code::ZSET_LISTPACK,
            type_code::ZSET_ZIPLIST,
        ),
        Value::ZSet(ZSetValue::Members(_)) => {
            either(Feature::BinaryScores, type_code::ZSET_2, type_code::ZSET)
        }
        Value::Hash(HashValue::Listpack(_)) => either(
            Feature::Listpacks,
            type_code::HASH_LISTPACK,
            type_code::HASH_ZIPLIST,
        ),
        Value::Hash(hash) if !hash.has_field_expiry() => type_code::HASH,
        Value::Hash(_) if is_dragonfly => type_code::HASH_EXPIRING,
        Value::Hash(_) if target.flavor() == Flavor::Valkey => type_code::HASH_22,
        Value::Hash(HashValue::ListpackEx(_)) => type_code::HASH_LISTPACK_EX,
        Value::Hash(HashValue::Fields(_)) => type_code::HASH_METADATA,
        Value::Stream(_) if target.knows(Feature::ConsumerActivity) => type_code::STREAM_3,
        Value::Stream(_) => either(
            Feature::StreamCounters,
            type_code::STREAM_2,
            type_code::STREAM,
        ),
        Value::Module(_) | Value::Json(_) if is_dragonfly => type_code::JSON,
        Value::Module(_) | Value::Json(_) => type_code::MODULE_2,
        Value::Sketch(sketch) => sketch.type_code,
    })
}

/// Appends `value` as servers of the target store it, without type and key, and returns its type. Strings and blobs
/// are compressed where an encoder is given.
///
/// ```
/// use dfsnap_formats::rdb::{Flavor, decode::decode, encode::encode, target::Target, type_code};
/// use dfsnap_formats::value::Value;
/// let value = Value::String(b"12".to_vec());
/// let mut stored = Vec::new();
/// assert_eq!(encode(&value, Target::default(), &mut stored, None), Ok(type_code::STRING));
/// assert_eq!(stored, [0xC0, 12]);
/// assert_eq!(decode(Flavor::Redis, type_code::STRING, &stored, &Default::default()), Ok(Some(value)));
/// ```
pub fn encode(
    value: &Value,
    target: Target,
    out: &mut Vec<u8>,
    lzf: Option<&mut LzfEncoder>,
) -> Result<u8, EncodeError> {
    let code = type_code(value, target)?;
    let mut encoder = Encoder { out, lzf };
    match value {
        Value::String(bytes) => encoder.string(bytes),
        Value::List(nodes) => encoder.list(nodes, code),
        Value::Set(set) => encoder.set(set, code),
        Value::ZSet(zset) => encoder.zset(zset, code),
        Value::Hash(hash) => encoder.hash(hash, code),
        Value::Stream(stream) => encoder.stream(stream, code),
        Value::Module(module) => match module.json() {
            Some(text) if code == type_code::JSON => encoder.blob(&text),
            _ => encoder.out.extend_from_slice(&module.raw),
        },
        Value::Json(text) if code == type_code::JSON => encoder.blob(text),
        Value::Json(text) => {
            let module = ModuleValue::of_json(text);
            encoder.out.extend_from_slice(&module.raw);
        }
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

    /// A pack as it is, or as a ziplist.
    fn pack(&mut self, pack: &Listpack, is_ziplist: bool) {
        match is_ziplist {
            true => self.blob(&ziplist::pack(pack)),
            false => self.blob(pack.as_bytes()),
        }
    }

    fn element(&mut self, element: Element<'_>) {
        self.string(element.text(&mut itoa::Buffer::new()));
    }

    fn list(&mut self, nodes: &[ListNode], code: u8) {
        match (code, nodes) {
            (type_code::LIST_QUICKLIST_2, nodes) => self.quicklist(nodes),
            (type_code::LIST_ZIPLIST, [ListNode::Packed(pack)]) => self.pack(pack, true),
            (type_code::LIST_QUICKLIST, nodes) => {
                let stored = nodes.iter().filter(|node| !node.is_empty());
                writer::len(self.out, stored.clone().count() as u64);
                stored.for_each(|node| self.blob(&ziplist::pack(node.elements())));
            }
            (_, nodes) => {
                let count: usize = nodes.iter().map(ListNode::len).sum();
                writer::len(self.out, count as u64);
                let elements = nodes.iter().flat_map(ListNode::elements);
                elements.for_each(|element| self.element(element));
            }
        }
    }

    fn quicklist(&mut self, nodes: &[ListNode]) {
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
        match (set, code) {
            (SetValue::Intset(set), _) => self.blob(set.as_bytes()),
            (SetValue::Listpack(pack), type_code::SET_LISTPACK) => self.pack(pack, false),
            (SetValue::Expiring(members), type_code::SET_EXPIRING) => {
                writer::len(self.out, members.len() as u64);
                for member in members {
                    self.string(&member.member);
                    writer::dragonfly_expiry(self.out, member.expire_at_ms);
                }
            }
            (set, _) => {
                writer::len(self.out, set.len() as u64);
                set.members().for_each(|member| self.element(member));
            }
        }
    }

    fn zset(&mut self, zset: &ZSetValue, code: u8) {
        if let ZSetValue::Listpack(pack) = zset {
            return self.pack(pack, code == type_code::ZSET_ZIPLIST);
        }
        writer::len(self.out, zset.len() as u64);
        for (member, score) in zset.members() {
            self.element(member);
            match code {
                type_code::ZSET_2 => writer::double(self.out, score),
                _ => self.double_text(score),
            }
        }
    }

    fn double_text(&mut self, score: f64) {
        const POSITIVE: u8 = 254;
        const NEGATIVE: u8 = 255;
        if score.is_infinite() {
            return self.out.push(if score > 0.0 { POSITIVE } else { NEGATIVE });
        }
        let text = DoubleText::full(score);
        self.out.push(text.as_bytes().len() as u8);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn hash(&mut self, hash: &HashValue, code: u8) {
        let expiries = || hash.fields().filter_map(|field| field.expire_at_ms);
        let lowest = expiries().min().unwrap_or(0);
        match (hash, code) {
            (HashValue::Listpack(pack), _) => self.pack(pack, code == type_code::HASH_ZIPLIST),
            (HashValue::ListpackEx(pack), type_code::HASH_LISTPACK_EX) => {
                writer::millis(self.out, lowest);
                self.blob(pack.as_bytes());
            }
            (hash, code) => {
                if code == type_code::HASH_METADATA {
                    writer::millis(self.out, lowest);
                }
                writer::len(self.out, hash.len() as u64);
                for field in hash.fields() {
                    if code == type_code::HASH_METADATA {
                        let after = field.expire_at_ms.map(|at_ms| at_ms.abs_diff(lowest) + 1);
                        writer::len(self.out, after.unwrap_or(0));
                    }
                    self.element(field.field);
                    self.element(field.value);
                    match code {
                        type_code::HASH_22 => {
                            let at_ms = field.expire_at_ms.unwrap_or(VALKEY_NO_EXPIRY);
                            writer::millis(self.out, at_ms);
                        }
                        type_code::HASH_EXPIRING => {
                            writer::dragonfly_expiry(self.out, field.expire_at_ms);
                        }
                        _ => {}
                    }
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
        for number in [stream.length, stream.last_id.ms, stream.last_id.seq] {
            writer::len(self.out, number);
        }
        if code != type_code::STREAM {
            for number in [
                stream.first_id.ms,
                stream.first_id.seq,
                stream.max_deleted_id.ms,
                stream.max_deleted_id.seq,
                stream.entries_added,
            ] {
                writer::len(self.out, number);
            }
        }
        writer::len(self.out, stream.groups.len() as u64);
        for group in &stream.groups {
            self.string(&group.name);
            writer::len(self.out, group.last_id.ms);
            writer::len(self.out, group.last_id.seq);
            if code != type_code::STREAM {
                writer::len(self.out, group.entries_read as u64);
            }
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
    use crate::encoding::stream::StreamId;
    use crate::parts::Part;
    use crate::rdb::Flavor;
    use crate::rdb::decode::{DecodeLimits, decode};
    use crate::rdb::decode_dragonfly::EXPIRY_EPOCH_S;
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
                idempotence: None,
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

    fn redis(version: u16) -> Target {
        Target::of_version(version).unwrap()
    }

    /// All that two forms of a value must agree on: its parts, in order where there is one.
    fn shown(value: &Value) -> Vec<String> {
        let mut shown = Vec::new();
        let text = |element: Element<'_>| element.to_vec().escape_ascii().to_string();
        let done: Result<(), ()> = value.for_each_part(|part| {
            shown.push(match part {
                Part::Bytes(bytes) => bytes.escape_ascii().to_string(),
                Part::ListElement(element) => text(element),
                Part::SetMember { member, .. } => text(member),
                Part::HashField(field) => {
                    let first = EXPIRY_EPOCH_S;
                    let in_range = first..=first + i64::from(u32::MAX);
                    let expiry = field.expire_at_ms.map(|at_ms| {
                        ((at_ms + 999) / 1000).clamp(*in_range.start(), *in_range.end())
                    });
                    format!("{} {} {expiry:?}", text(field.field), text(field.value))
                }
                Part::ZSetMember { member, score } => format!("{} {score:e}", text(member)),
                Part::StreamEntry(entry) => {
                    let pairs = entry.pairs();
                    let pairs: Vec<_> = pairs.map(|(f, v)| (text(f), text(v))).collect();
                    format!("{} {pairs:?}", entry.id)
                }
                Part::StreamEnd(stream) => {
                    let groups = stream.groups.iter().map(|group| {
                        let consumers = group.consumers.iter().map(|c| (&c.name, c.seen_at_ms));
                        let consumers: Vec<_> = consumers.collect();
                        (&group.name, group.last_id, &group.pending, consumers)
                    });
                    let groups: Vec<_> = groups.collect();
                    format!("{} {} {groups:?}", stream.length, stream.last_id)
                }
                Part::Whole(value) => format!("{value:?}"),
            });
            Ok(())
        });
        done.unwrap();
        if !matches!(value, Value::List(_)) {
            shown.sort();
        }
        shown
    }

    proptest! {
        #[test]
        fn values_come_back(value in value(), compress in any::<bool>()) {
            let mut lzf = LzfEncoder::new();
            let mut stored = Vec::new();
            let lzf = compress.then_some(&mut lzf);
            let code = encode(&value, redis(12), &mut stored, lzf).unwrap();
            let back = decode(Flavor::Redis, code, &stored, &DecodeLimits::default()).unwrap();
            prop_assert_eq!(back, Some(value));
        }

        #[test]
        fn every_target_gets_all_that_it_can_hold(value in value()) {
            for name in Target::names() {
                let target = Target::by_name(name).unwrap();
                let losses = loss::of_value(&value, target);
                let Some(kept) = loss::without(&value, target) else {
                    let lost = losses.iter().any(|loss| matches!(loss, Loss::Key(_)));
                    prop_assert!(lost, "{}: {:?}", name, losses);
                    prop_assert!(encode(&value, target, &mut Vec::new(), None).is_err());
                    continue;
                };
                let mut stored = Vec::new();
                let code = encode(&kept, target, &mut stored, None).unwrap();
                let back = decode(target.flavor(), code, &stored, &DecodeLimits::default());
                let back = back.map_err(|damage| TestCaseError::fail(format!("{name}: {damage}")))?;
                prop_assert_eq!(shown(&back.unwrap()), shown(&kept), "{}, type {}", name, code);
                if losses.is_empty() {
                    prop_assert_eq!(shown(&kept), shown(&value));
                }
            }
        }

        #[test]
        fn damaged_values_give_a_value_or_an_error(value in value(), at in any::<usize>(), byte in any::<u8>()) {
            let mut stored = Vec::new();
            let code = encode(&value, redis(12), &mut stored, None).unwrap();
            let at = at % stored.len();
            stored[at] = byte;
            // Whatever it still is can be walked and stored again.
            if let Ok(Some(value)) = decode(Flavor::Redis, code, &stored, &DecodeLimits::default()) {
                value.count();
                let again = encode(&value, redis(12), &mut Vec::new(), None);
                prop_assert!(again.is_ok());
            }
            prop_assert!(decode(Flavor::Redis, code, &stored[..at], &DecodeLimits::default()).is_err());
        }
    }

    #[test]
    fn target_chooses_the_type_or_refuses() {
        let texts: Listpack = [&b"a"[..], b"2"].into_iter().collect();
        let mut with_expiry = texts.clone();
        with_expiry.push_back(Element::Int(5));
        let list = Value::List(vec![ListNode::Packed(texts.clone())]);
        let set = Value::Set(SetValue::Listpack(texts.clone()));
        let zset = Value::ZSet(ZSetValue::Listpack(texts.clone()));
        let scores = Value::ZSet(ZSetValue::Members(vec![(b"a".to_vec(), 0.5)]));
        let hash = Value::Hash(HashValue::Listpack(texts.clone()));
        let expiring = Value::Hash(HashValue::ListpackEx(with_expiry));
        let stream = Value::Stream(StreamValue::default());
        let json = Value::Json(b"{}".to_vec());
        let mut lasting = texts.clone();
        lasting.push_back(Element::Int(0));
        let lasting = Value::Hash(HashValue::ListpackEx(lasting));
        let refused = |version, loss| {
            let target = redis(version);
            Err(EncodeError { target, loss })
        };
        let rows = [
            ("list, 6", &list, 6, Ok(type_code::LIST_ZIPLIST)),
            ("list, 7", &list, 7, Ok(type_code::LIST_QUICKLIST)),
            ("list, 10", &list, 10, Ok(type_code::LIST_QUICKLIST_2)),
            ("set, 10", &set, 10, Ok(type_code::SET)),
            ("set, 11", &set, 11, Ok(type_code::SET_LISTPACK)),
            ("zset, 9", &zset, 9, Ok(type_code::ZSET_ZIPLIST)),
            ("zset, 10", &zset, 10, Ok(type_code::ZSET_LISTPACK)),
            ("scores, 7", &scores, 7, Ok(type_code::ZSET)),
            ("scores, 8", &scores, 8, Ok(type_code::ZSET_2)),
            ("hash, 9", &hash, 9, Ok(type_code::HASH_ZIPLIST)),
            ("stream, 8", &stream, 8, refused(8, Loss::Key("stream"))),
            ("stream, 9", &stream, 9, Ok(type_code::STREAM)),
            ("stream, 10", &stream, 10, Ok(type_code::STREAM_2)),
            ("stream, 11", &stream, 11, Ok(type_code::STREAM_3)),
            ("expiry, 11", &expiring, 11, refused(11, Loss::FieldExpiry)),
            ("expiry, 12", &expiring, 12, Ok(type_code::HASH_LISTPACK_EX)),
            ("expiry, 80", &expiring, 80, Ok(type_code::HASH_22)),
            ("no expiry in use, 10", &lasting, 10, Ok(type_code::HASH)),
            ("json, 7", &json, 7, refused(7, Loss::Key("JSON document"))),
            ("json, 8", &json, 8, Ok(type_code::MODULE_2)),
        ];
        for (name, value, version, want) in rows {
            let got = encode(value, redis(version), &mut Vec::new(), None);
            assert_eq!(got, want, "{name}");
        }
    }
}
