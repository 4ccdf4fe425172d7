//! What formats for machines get: bytes as bytes, numbers as numbers, nothing that has to be looked at to know what it is.
//!
//! The types here are the shape; their order of fields and variants is what formats without names rely on, so that new
//! ones go to the end.

use crate::assemble::{self, Encoding, ListBuilder, Refusal, StreamBuilder, StreamCounters};
use crate::dataset::{Attributes, Entry, Item};
use crate::encoding::listpack::Element;
use crate::encoding::stream::StreamId;
use crate::error::Problem;
use crate::rdb::record::ModuleId;
use crate::rdb::type_code;
use crate::value::{
    HashField, Idempotence, PendingEntry, SetMember, SetValue, SketchValue, StreamConsumer,
    StreamGroup, StreamProducer, StreamValue, Value, list_elements,
};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

pub(super) fn error<E: serde::de::Error>((reading, problem): Refusal) -> E {
    E::custom(format!("{reading}: {problem}"))
}

/// Bytes, which serde's own impls would take for a list of numbers.
pub(super) struct Bytes<'a>(Cow<'a, [u8]>);

impl<'a> Bytes<'a> {
    fn of(element: Element<'a>) -> Self {
        Bytes(match element {
            Element::Str(bytes) => Cow::Borrowed(bytes),
            number => Cow::Owned(number.to_vec()),
        })
    }

    fn owned(self) -> Vec<u8> {
        self.0.into_owned()
    }
}

impl<'a> From<&'a Vec<u8>> for Bytes<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Bytes(Cow::Borrowed(bytes))
    }
}

impl AsRef<[u8]> for Bytes<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_byte_buf(BytesVisitor)
            .map(|bytes| Bytes(Cow::Owned(bytes)))
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Item")]
pub(super) enum ItemForm<'a> {
    Entry(EntryForm<'a>),
    Aux {
        name: Bytes<'a>,
        value: Bytes<'a>,
    },
    Function(Bytes<'a>),
    ModuleAux {
        module: u64,
        when: u64,
        raw: Bytes<'a>,
    },
}

impl<'a> ItemForm<'a> {
    pub(super) fn of(item: &'a Item) -> Self {
        match item {
            Item::Entry(entry) => ItemForm::Entry(EntryForm::of(entry)),
            Item::Aux { name, value } => ItemForm::Aux {
                name: name.into(),
                value: value.into(),
            },
            Item::Function { code } => ItemForm::Function(code.into()),
            Item::ModuleAux { module, when, raw } => ItemForm::ModuleAux {
                module: module.0,
                when: *when,
                raw: raw.into(),
            },
        }
    }

    pub(super) fn item(self) -> Result<Item, Refusal> {
        Ok(match self {
            ItemForm::Entry(entry) => Item::Entry(entry.entry()?),
            ItemForm::Aux { name, value } => Item::Aux {
                name: name.owned(),
                value: value.owned(),
            },
            ItemForm::Function(code) => Item::Function { code: code.owned() },
            ItemForm::ModuleAux { module, when, raw } => {
                assemble::module_aux(ModuleId(module), when, &raw.0)?
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Entry")]
pub(super) struct EntryForm<'a> {
    db: u32,
    key: Bytes<'a>,
    expire_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
    sticky: bool,
    memcached_flags: Option<u32>,
    meta_classes: u32,
    value: ValueForm<'a>,
}

impl<'a> EntryForm<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let Attributes {
            expire_at_ms,
            idle_s,
            freq,
            sticky,
            memcached_flags,
            meta_classes,
        } = entry.attributes;
        EntryForm {
            db: entry.db,
            key: (&entry.key).into(),
            expire_at_ms,
            idle_s,
            freq,
            sticky,
            memcached_flags,
            meta_classes,
            value: ValueForm::of(&entry.value),
        }
    }

    pub(super) fn entry(self) -> Result<Entry, Refusal> {
        Ok(Entry {
            db: self.db,
            key: self.key.owned(),
            attributes: Attributes {
                expire_at_ms: self.expire_at_ms,
                idle_s: self.idle_s,
                freq: self.freq,
                sticky: self.sticky,
                memcached_flags: self.memcached_flags,
                meta_classes: self.meta_classes,
            },
            value: self.value.value()?,
        })
    }
}

/// The form that a value was stored in, by its name.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored(String);

impl Stored {
    fn of(value: &Value) -> Option<Stored> {
        Encoding::of(value).map(|encoding| Stored(encoding.name().to_owned()))
    }

    fn encoding(stored: Option<Stored>) -> Result<Option<Encoding>, Refusal> {
        let Some(Stored(name)) = stored else {
            return Ok(None);
        };
        let wanted = "a name that OBJECT ENCODING gives";
        match Encoding::parse(name.as_bytes()) {
            None => {
                let found = name.into_bytes();
                Err(("encoding", Problem::Text { wanted, found }))
            }
            known => Ok(known),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Value")]
pub(super) enum ValueForm<'a> {
    String(Bytes<'a>),
    List(Vec<Bytes<'a>>),
    /// Members, each with its expiry.
    Set(Option<Stored>, Vec<(Bytes<'a>, Option<i64>)>),
    /// Fields, each with its value and its expiry.
    Hash(Option<Stored>, Vec<(Bytes<'a>, Bytes<'a>, Option<i64>)>),
    ZSet(Option<Stored>, Vec<(Bytes<'a>, f64)>),
    Stream(StreamForm<'a>),
    Module(Bytes<'a>),
    Json(Bytes<'a>),
    Sketch {
        type_code: u8,
        raw: Bytes<'a>,
    },
}

impl<'a> ValueForm<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        let stored = Stored::of(value);
        match value {
            Value::String(bytes) => ValueForm::String(bytes.into()),
            Value::List(nodes) => ValueForm::List(list_elements(nodes).map(Bytes::of).collect()),
            Value::Set(SetValue::Expiring(members)) => {
                let members = members.iter().map(|m| ((&m.member).into(), m.expire_at_ms));
                ValueForm::Set(stored, members.collect())
            }
            Value::Set(set) => {
                let members = set.members().map(|member| (Bytes::of(member), None));
                ValueForm::Set(stored, members.collect())
            }
            Value::Hash(hash) => {
                let fields = hash.fields();
                let fields =
                    fields.map(|f| (Bytes::of(f.field), Bytes::of(f.value), f.expire_at_ms));
                ValueForm::Hash(stored, fields.collect())
            }
            Value::ZSet(zset) => {
                let members = zset.members();
                let members = members.map(|(member, score)| (Bytes::of(member), score));
                ValueForm::ZSet(stored, members.collect())
            }
            Value::Stream(stream) => ValueForm::Stream(StreamForm::of(stream)),
            Value::Module(module) => ValueForm::Module((&module.raw).into()),
            Value::Json(text) => ValueForm::Json(text.into()),
            Value::Sketch(sketch) => ValueForm::Sketch {
                type_code: sketch.type_code,
                raw: (&sketch.raw).into(),
            },
        }
    }

    pub(super) fn value(self) -> Result<Value, Refusal> {
        Ok(match self {
            ValueForm::String(bytes) => Value::String(bytes.owned()),
            ValueForm::List(elements) => {
                let mut list = ListBuilder::default();
                elements.iter().for_each(|element| list.push(&element.0));
                list.finish()?
            }
            ValueForm::Set(stored, members) => {
                let members = members.into_iter().map(|(member, expire_at_ms)| SetMember {
                    member: member.owned(),
                    expire_at_ms,
                });
                assemble::set(members.collect(), Stored::encoding(stored)?)?
            }
            ValueForm::Hash(stored, fields) => {
                let fields = fields.into_iter();
                let fields = fields.map(|(field, value, expire_at_ms)| HashField {
                    field: field.owned(),
                    value: value.owned(),
                    expire_at_ms,
                });
                assemble::hash(fields.collect(), Stored::encoding(stored)?)?
            }
            ValueForm::ZSet(stored, members) => {
                let members = members.into_iter();
                let members = members.map(|(member, score)| (member.owned(), score));
                assemble::zset(members.collect(), Stored::encoding(stored)?)?
            }
            ValueForm::Stream(stream) => stream.value()?,
            ValueForm::Module(raw) => Value::Module(assemble::module(&raw.0)?),
            ValueForm::Json(text) if text.0.is_empty() => {
                let (wanted, found) = (1, 0);
                return Err(("json", Problem::Differs { wanted, found }));
            }
            ValueForm::Json(text) => Value::Json(text.owned()),
            ValueForm::Sketch { type_code, raw } => sketch(type_code, raw.owned())?,
        })
    }
}

fn sketch(code: u8, raw: Vec<u8>) -> Result<Value, Refusal> {
    match code {
        type_code::BLOOM..=type_code::CUCKOO => Ok(Value::Sketch(SketchValue {
            type_code: code,
            raw,
        })),
        found => {
            let (wanted, found) = ("the type of a sketch", u64::from(found));
            Err(("sketch", Problem::Number { wanted, found }))
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Stream")]
pub(super) struct StreamForm<'a> {
    /// Field, value, … of each entry.
    entries: Vec<(StreamId, Vec<Bytes<'a>>)>,
    length: u64,
    last_id: StreamId,
    first_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    groups: Vec<GroupForm<'a>>,
    idempotence: Option<IdempotenceForm<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Idempotence")]
pub(super) struct IdempotenceForm<'a> {
    duration_s: u64,
    entries_max: u64,
    added: u64,
    duplicates: u64,
    /// Id, and the ids it chose with those of the entries they became.
    producers: Vec<(Bytes<'a>, Vec<(Bytes<'a>, StreamId)>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Group")]
pub(super) struct GroupForm<'a> {
    name: Bytes<'a>,
    last_id: StreamId,
    entries_read: i64,
    /// Name, last attempt to read, last read.
    consumers: Vec<(Bytes<'a>, i64, i64)>,
    /// Id, time and number of deliveries, index of the consumer.
    pending: Vec<(StreamId, i64, u64, u32)>,
}

impl<'a> StreamForm<'a> {
    fn of(stream: &'a StreamValue) -> Self {
        let entries = stream.entries().map(|entry| {
            let texts = entry
                .pairs()
                .flat_map(|(f, v)| [Bytes::of(f), Bytes::of(v)]);
            (entry.id, texts.collect())
        });
        StreamForm {
            entries: entries.collect(),
            length: stream.length,
            last_id: stream.last_id,
            first_id: stream.first_id,
            max_deleted_id: stream.max_deleted_id,
            entries_added: stream.entries_added,
            groups: stream.groups.iter().map(GroupForm::of).collect(),
            idempotence: stream.idempotence.as_deref().map(IdempotenceForm::of),
        }
    }

    fn value(self) -> Result<Value, Refusal> {
        let mut stream = StreamBuilder::default();
        for (id, texts) in &self.entries {
            stream.push(*id, texts)?;
        }
        let counters = StreamCounters {
            length: Some(self.length),
            last_id: Some(self.last_id),
            first_id: Some(self.first_id),
            max_deleted_id: Some(self.max_deleted_id),
            entries_added: Some(self.entries_added),
        };
        let groups = self.groups.into_iter().map(GroupForm::group);
        let known = self.idempotence.map(|known| Box::new(known.idempotence()));
        stream.finish(&counters, groups.collect(), known)
    }
}

impl<'a> IdempotenceForm<'a> {
    fn of(known: &'a Idempotence) -> Self {
        let producers = known.producers.iter().map(|producer| {
            let entries = producer.entries.iter();
            let entries = entries.map(|(chosen, became)| (chosen.into(), *became));
            ((&producer.id).into(), entries.collect())
        });
        IdempotenceForm {
            duration_s: known.duration_s,
            entries_max: known.entries_max,
            added: known.added,
            duplicates: known.duplicates,
            producers: producers.collect(),
        }
    }

    fn idempotence(self) -> Idempotence {
        let producers = self.producers.into_iter().map(|(id, entries)| {
            let entries = entries.into_iter();
            StreamProducer {
                id: id.owned(),
                entries: entries
                    .map(|(chosen, became)| (chosen.owned(), became))
                    .collect(),
            }
        });
        Idempotence {
            duration_s: self.duration_s,
            entries_max: self.entries_max,
            added: self.added,
            duplicates: self.duplicates,
            producers: producers.collect(),
        }
    }
}

impl<'a> GroupForm<'a> {
    fn of(group: &'a StreamGroup) -> Self {
        let consumers = group.consumers.iter();
        let pending = group.pending.iter();
        GroupForm {
            name: (&group.name).into(),
            last_id: group.last_id,
            entries_read: group.entries_read,
            consumers: consumers
                .map(|c| ((&c.name).into(), c.seen_at_ms, c.active_at_ms))
                .collect(),
            pending: pending
                .map(|p| (p.id, p.delivered_at_ms, p.deliveries, p.consumer))
                .collect(),
        }
    }

    fn group(self) -> StreamGroup {
        let consumers = self.consumers.into_iter();
        let pending = self.pending.into_iter();
        StreamGroup {
            name: self.name.owned(),
            last_id: self.last_id,
            entries_read: self.entries_read,
            pending: pending
                .map(|(id, delivered_at_ms, deliveries, consumer)| PendingEntry {
                    id,
                    delivered_at_ms,
                    deliveries,
                    consumer,
                })
                .collect(),
            consumers: consumers
                .map(|(name, seen_at_ms, active_at_ms)| StreamConsumer {
                    name: name.owned(),
                    seen_at_ms,
                    active_at_ms,
                })
                .collect(),
        }
    }
}
