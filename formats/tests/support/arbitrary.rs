//! Items of every kind for property tests, and what two values must share to mean the same.
#![allow(dead_code, reason = "each test binary uses its part")]

use dfsnap_formats::assemble::{self, Encoding, ListBuilder, StreamBuilder, StreamCounters};
use dfsnap_formats::dataset::{Attributes, Entry, Item};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::rdb::record::ModuleId;
use dfsnap_formats::rdb::{type_code, writer};
use dfsnap_formats::value::{
    HashField, Idempotence, ModuleValue, PendingEntry, SetMember, SetValue, SketchValue,
    StreamConsumer, StreamGroup, StreamProducer, Value, list_elements,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What stands for `value` when its form does not matter.
#[derive(Debug, PartialEq)]
pub enum Meaning {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(BTreeMap<Vec<u8>, Option<i64>>),
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>),
    ZSet(BTreeMap<Vec<u8>, u64>),
    Stream(
        Vec<(StreamId, Vec<Vec<u8>>)>,
        StreamCounters,
        Vec<StreamGroup>,
        Option<Box<Idempotence>>,
    ),
    Other(Value),
}

pub fn meaning(value: &Value) -> Meaning {
    match value {
        Value::String(bytes) => Meaning::String(bytes.clone()),
        Value::List(nodes) => Meaning::List(list_elements(nodes).map(|e| e.to_vec()).collect()),
        Value::Set(SetValue::Expiring(members)) => Meaning::Set(
            members
                .iter()
                .map(|m| (m.member.clone(), m.expire_at_ms))
                .collect(),
        ),
        Value::Set(set) => Meaning::Set(set.members().map(|m| (m.to_vec(), None)).collect()),
        Value::Hash(hash) => Meaning::Hash(
            hash.fields()
                .map(|f| (f.field.to_vec(), (f.value.to_vec(), f.expire_at_ms)))
                .collect(),
        ),
        Value::ZSet(zset) => Meaning::ZSet(
            zset.members()
                .map(|(member, score)| (member.to_vec(), score.to_bits()))
                .collect(),
        ),
        Value::Stream(stream) => Meaning::Stream(
            stream
                .entries()
                .map(|entry| {
                    let texts = entry.pairs().flat_map(|(f, v)| [f.to_vec(), v.to_vec()]);
                    (entry.id, texts.collect())
                })
                .collect(),
            StreamCounters {
                length: Some(stream.length),
                last_id: Some(stream.last_id),
                first_id: Some(stream.first_id),
                max_deleted_id: Some(stream.max_deleted_id),
                entries_added: Some(stream.entries_added),
            },
            stream.groups.clone(),
            stream.idempotence.clone(),
        ),
        other => Meaning::Other(other.clone()),
    }
}

/// Whether two items say the same; forms of values do not matter.
pub fn same(a: &Item, b: &Item) -> bool {
    match (a, b) {
        (Item::Entry(a), Item::Entry(b)) => {
            (a.db, &a.key, a.attributes) == (b.db, &b.key, b.attributes)
                && meaning(&a.value) == meaning(&b.value)
        }
        (a, b) => a == b,
    }
}

pub fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => vec(any::<u8>(), 0..20),
        3 => any::<String>().prop_map(String::into_bytes),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => "[a-z]{0,12}".prop_map(String::into_bytes),
        1 => "base64:[A-Za-z+/=]{0,8}".prop_map(String::into_bytes),
        1 => "[{}\\[\\]\":,\\\\\n\t]{1,9}".prop_map(String::into_bytes),
        1 => (any::<u8>(), 60usize..200).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn expiry() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => Just(None), 2 => (1i64..1 << 46).prop_map(Some), 1 => any::<i64>().prop_map(Some)]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("a number", |score| !score.is_nan()),
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("a number", |score| !score.is_nan()),
        any::<i32>().prop_map(|number| f64::from(number) / 100.0),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            5e-324,
            0.1 + 0.2,
            1e17,
            2f64.powi(63)
        ]),
    ]
}

/// In one of the forms, if it can have it, else in that which is chosen by default.
fn form<T: Clone>(
    elements: T,
    stored: Encoding,
    make: impl Fn(T, Option<Encoding>) -> Result<Value, assemble::Refusal>,
) -> Value {
    make(elements.clone(), Some(stored)).unwrap_or_else(|_| make(elements, None).unwrap())
}

fn set() -> impl Strategy<Value = Value> {
    let stored = prop::sample::select(vec![
        Encoding::Intset,
        Encoding::Listpack,
        Encoding::Hashtable,
        Encoding::DenseSet,
    ]);
    let number = any::<i32>().prop_map(|number| number.to_string().into_bytes());
    let members = prop_oneof![
        btree_map(number, Just(None), 1..40),
        btree_map(text(), Just(None), 1..40),
        btree_map(text(), expiry(), 1..20),
    ];
    (members, stored).prop_map(|(members, stored)| {
        let members = members.into_iter().map(|(member, expire_at_ms)| SetMember {
            member,
            expire_at_ms,
        });
        form(members.collect::<Vec<_>>(), stored, assemble::set)
    })
}

fn hash() -> impl Strategy<Value = Value> {
    let stored = prop::sample::select(vec![
        Encoding::Listpack,
        Encoding::ListpackEx,
        Encoding::Hashtable,
    ]);
    let fields = prop_oneof![
        btree_map(text(), (text(), Just(None)), 1..30),
        btree_map(text(), (text(), expiry()), 1..30),
    ];
    (fields, stored).prop_map(|(fields, stored)| {
        let fields = fields
            .into_iter()
            .map(|(field, (value, expire_at_ms))| HashField {
                field,
                value,
                expire_at_ms,
            });
        form(fields.collect::<Vec<_>>(), stored, assemble::hash)
    })
}

fn zset() -> impl Strategy<Value = Value> {
    let stored = prop::sample::select(vec![Encoding::Listpack, Encoding::Skiplist]);
    (btree_map(text(), score(), 1..30), stored).prop_map(|(members, stored)| {
        let members: Vec<_> = members.into_iter().collect();
        form(members, stored, assemble::zset)
    })
}

fn list() -> impl Strategy<Value = Value> {
    vec(text(), 1..30).prop_map(|texts| {
        let mut list = ListBuilder::default();
        texts.iter().for_each(|text| list.push(text));
        list.finish().unwrap()
    })
}

fn id() -> impl Strategy<Value = StreamId> {
    prop_oneof![
        (0u64..50, 0u64..5).prop_map(|(ms, seq)| StreamId::new(ms, seq)),
        any::<(u64, u64)>().prop_map(|(ms, seq)| StreamId::new(ms, seq)),
    ]
}

fn group() -> impl Strategy<Value = StreamGroup> {
    let consumers = btree_map(text(), any::<(i64, i64)>(), 0..4);
    let pending = btree_map(id(), any::<(i64, u64, prop::sample::Index)>(), 0..8);
    (text(), id(), any::<i64>(), consumers, pending).prop_map(
        |(name, last_id, entries_read, consumers, pending)| {
            let count = consumers.len();
            let pending = pending.into_iter().filter(|_| count > 0);
            StreamGroup {
                name,
                last_id,
                entries_read,
                pending: pending
                    .map(|(id, (delivered_at_ms, deliveries, owner))| PendingEntry {
                        id,
                        delivered_at_ms,
                        deliveries,
                        consumer: owner.index(count) as u32,
                    })
                    .collect(),
                consumers: consumers
                    .into_iter()
                    .map(|(name, (seen_at_ms, active_at_ms))| StreamConsumer {
                        name,
                        seen_at_ms,
                        active_at_ms,
                    })
                    .collect(),
            }
        },
    )
}

fn idempotence() -> impl Strategy<Value = Box<Idempotence>> {
    let producer = (text(), vec((text(), id()), 0..3));
    let producer = producer.prop_map(|(id, entries)| StreamProducer { id, entries });
    (any::<[u64; 4]>(), vec(producer, 0..3)).prop_map(|(n, producers)| {
        Box::new(Idempotence {
            duration_s: n[0],
            entries_max: n[1],
            producers,
            added: n[2],
            duplicates: n[3],
        })
    })
}

fn stream() -> impl Strategy<Value = Value> {
    let pairs = vec(
        (prop::sample::select(vec!["temp", "hum", ""]), text()),
        0..4,
    );
    let entries = btree_map(id(), pairs, 0..12);
    let groups = btree_map(text(), group(), 0..3);
    (
        entries,
        groups,
        any::<[bool; 5]>(),
        any::<u64>(),
        [id(), id(), id()],
        prop::option::weighted(0.2, idempotence()),
    )
        .prop_map(|(entries, groups, told, number, ids, known)| {
            let any = !entries.is_empty();
            let mut stream = StreamBuilder::default();
            for (id, pairs) in entries {
                let texts = pairs
                    .into_iter()
                    .flat_map(|(f, v)| [f.as_bytes().to_vec(), v]);
                stream.push(id, &texts.collect::<Vec<_>>()).unwrap();
            }
            let counters = StreamCounters {
                length: (told[0] && any).then_some(number),
                last_id: told[1].then_some(ids[0]),
                first_id: told[2].then_some(ids[1]),
                max_deleted_id: told[3].then_some(ids[2]),
                entries_added: told[4].then_some(number),
            };
            let groups = groups
                .into_iter()
                .map(|(name, group)| StreamGroup { name, ..group });
            stream.finish(&counters, groups.collect(), known).unwrap()
        })
}

const DOCUMENTS: [&str; 6] = [
    r#"{"a":[1,2.50,"x\n"],"a":null}"#,
    "1",
    "\"\"",
    "{\"a\":\n1}",
    " true",
    "no json",
];

fn module() -> impl Strategy<Value = ModuleValue> {
    prop_oneof![
        prop::sample::select(&DOCUMENTS[..]).prop_map(|text| ModuleValue::of_json(text.as_bytes())),
        (any::<u64>(), any::<f64>(), text()).prop_map(|(number, double, text)| {
            let id = ModuleId::new(b"test-type", (number % 1024) as u16);
            let mut raw = Vec::new();
            for number in [id.0, 2, number, 4] {
                writer::len(&mut raw, number);
            }
            writer::double(&mut raw, double);
            writer::len(&mut raw, 5);
            writer::string(&mut raw, &text, None);
            writer::len(&mut raw, 0);
            ModuleValue { id, raw }
        }),
    ]
}

pub fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::String),
        list(),
        set(),
        hash(),
        zset(),
        stream(),
        module().prop_map(Value::Module),
        prop::sample::select(&DOCUMENTS[..]).prop_map(|text| Value::Json(text.into())),
        (type_code::BLOOM..=type_code::CUCKOO, text())
            .prop_map(|(type_code, raw)| Value::Sketch(SketchValue { type_code, raw })),
    ]
}

pub fn attributes() -> impl Strategy<Value = Attributes> {
    let option = prop::option::of::<BoxedStrategy<i64>>;
    (
        option(any::<i64>().boxed()),
        any::<Option<u64>>(),
        any::<Option<u8>>(),
        any::<bool>(),
        any::<Option<u32>>(),
        prop_oneof![3 => Just(0), 1 => any::<u32>()],
    )
        .prop_map(
            |(expire_at_ms, idle_s, freq, sticky, memcached_flags, meta_classes)| Attributes {
                expire_at_ms,
                idle_s,
                freq,
                sticky,
                memcached_flags,
                meta_classes,
            },
        )
}

pub fn entry() -> impl Strategy<Value = Entry> {
    (any::<u32>(), text(), attributes(), value()).prop_map(|(db, key, attributes, value)| Entry {
        db,
        key,
        attributes,
        value,
    })
}

pub fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        8 => entry().prop_map(Item::Entry),
        1 => (text(), text()).prop_map(|(name, value)| Item::Aux { name, value }),
        1 => text().prop_map(|code| Item::Function { code }),
        1 => (1u64..3, text()).prop_map(|(when, text)| {
            let module = ModuleId::new(b"test-type", 7);
            let mut raw = Vec::new();
            for number in [module.0, 2, when, 5] {
                writer::len(&mut raw, number);
            }
            writer::string(&mut raw, &text, None);
            writer::len(&mut raw, 0);
            Item::ModuleAux { module, when, raw }
        }),
    ]
}

/// Several items, whose keys may repeat.
pub fn items() -> impl Strategy<Value = Vec<Item>> {
    vec(item(), 0..6)
}

/// Ids in order.
pub fn ids() -> impl Strategy<Value = Vec<StreamId>> {
    btree_set(id(), 0..300).prop_map(|ids| ids.into_iter().collect())
}
