//! The text of one item to the item: which members there are, and what a value of each type looks like.
//!
//! The counterpart of `writer`. Members may come in any order: where each value begins is noted first, then the type
//! says how to read them.

use super::base64;
use super::parser::{Parser, Token};
use super::text::BASE64_PREFIX;
use crate::assemble::{self, Encoding, ListBuilder, Refusal, StreamBuilder, StreamCounters};
use crate::dataset::{Attributes, Entry, Item};
use crate::double;
use crate::encoding::canonical_int;
use crate::encoding::stream::StreamId;
use crate::error::{Damage, Problem};
use crate::rdb::record::ModuleId;
use crate::rdb::type_code;
use crate::value::{
    HashField, Idempotence, ModuleValue, PendingEntry, SetMember, SketchValue, StreamConsumer,
    StreamGroup, StreamProducer, Value,
};
use std::borrow::Cow;
use std::collections::HashMap;

/// Why a text is no item; offsets count from its start.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) damage: Damage,
}

impl From<Damage> for Refused {
    fn from(damage: Damage) -> Self {
        Refused { key: None, damage }
    }
}

/// Members of an item, in the order of `NAMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Db,
    Key,
    Type,
    Encoding,
    Value,
    Document,
    ExpireAtMs,
    IdleS,
    Freq,
    Sticky,
    MemcachedFlags,
    MetaClasses,
    Aux,
    Function,
    ModuleAux,
    Module,
    Version,
    When,
    Sketch,
}

const NAMES: [&str; 19] = [
    "db",
    "key",
    "type",
    "encoding",
    "value",
    "document",
    "expire_at_ms",
    "idle_s",
    "freq",
    "sticky",
    "memcached_flags",
    "meta_classes",
    "aux",
    "function",
    "module_aux",
    "module",
    "version",
    "when",
    "sketch",
];

/// What every entry may have beside its value.
const OF_ENTRIES: [Name; 9] = [
    Name::Db,
    Name::Key,
    Name::Type,
    Name::ExpireAtMs,
    Name::IdleS,
    Name::Freq,
    Name::Sticky,
    Name::MemcachedFlags,
    Name::MetaClasses,
];

/// The members that there are, each as a parser that stands before its value.
struct Members<'a> {
    found: [Option<Parser<'a>>; NAMES.len()],
    end: Parser<'a>,
}

impl<'a> Members<'a> {
    fn of(text: &'a [u8]) -> Result<Self, Damage> {
        const READING: &str = "item";
        let mut found = [const { None }; NAMES.len()];
        let mut parser = Parser::new(text);
        parser.object(READING, &NAMES, |parser, index| {
            parser.blank();
            found[index] = Some(parser.clone());
            parser.skip(READING)
        })?;
        let end = parser.clone();
        parser.finish(READING)?;
        Ok(Members { found, end })
    }

    fn get(&self, name: Name) -> Option<Parser<'a>> {
        self.found[name as usize].clone()
    }

    fn need(&self, name: Name, wanted: &'static str) -> Result<Parser<'a>, Damage> {
        self.get(name).ok_or_else(|| {
            let found = b"none".to_vec();
            let problem = Problem::Text { wanted, found };
            Damage::new(self.end.offset(), "item", problem)
        })
    }

    /// What is read from the member, if it is there.
    fn read<T>(
        &self,
        name: Name,
        read: impl FnOnce(&mut Parser<'a>) -> Result<T, Damage>,
    ) -> Result<Option<T>, Damage> {
        self.get(name)
            .map(|mut parser| read(&mut parser))
            .transpose()
    }

    /// No members but these.
    fn only(&self, reading: &'static str, allowed: &[&[Name]]) -> Result<(), Damage> {
        let allowed = |index: usize| {
            allowed
                .iter()
                .any(|names| names.iter().any(|n| *n as usize == index))
        };
        let mut found = self.found.iter().enumerate();
        match found.find(|(index, parser)| parser.is_some() && !allowed(*index)) {
            Some((index, Some(parser))) => {
                let wanted = "a member that it may have";
                let found = NAMES[index].as_bytes().to_vec();
                let problem = Problem::Text { wanted, found };
                Err(Damage::new(parser.offset(), reading, problem))
            }
            _ => Ok(()),
        }
    }
}

/// The item that `text` is, which is one object and nothing else.
pub(crate) fn item_of(text: &[u8]) -> Result<Item, Refused> {
    let members = Members::of(text)?;
    if members.get(Name::Aux).is_some() {
        return Ok(aux(&members)?);
    }
    if let Some(mut code) = members.get(Name::Function) {
        members.only("function", &[&[Name::Function]])?;
        let code = bytes(&mut code, "function")?.into_owned();
        return Ok(Item::Function { code });
    }
    if members.get(Name::ModuleAux).is_some() {
        return Ok(module_aux(&members)?);
    }
    let mut key = members.need(Name::Key, "a member key, aux, function or module_aux")?;
    let key = bytes(&mut key, "key")?.into_owned();
    match entry(&members) {
        Ok((db, attributes, value)) => Ok(Item::Entry(Entry {
            db,
            key,
            attributes,
            value,
        })),
        Err(damage) => Err(Refused {
            key: Some(key),
            damage,
        }),
    }
}

/// The value that `text` is: an object with a type, without a key.
#[cfg(feature = "serde")]
pub(crate) fn value_of(text: &[u8]) -> Result<Value, Damage> {
    let members = Members::of(text)?;
    value(&members, &[Name::Type])
}

/// The id that `text` is, in quotes.
#[cfg(feature = "serde")]
pub(crate) fn stream_id(text: &[u8]) -> Result<StreamId, Damage> {
    let mut parser = Parser::new(text);
    let id = id(&mut parser)?;
    parser.finish("stream id")?;
    Ok(id)
}

fn entry(members: &Members<'_>) -> Result<(u32, Attributes, Value), Damage> {
    let db = members.read(Name::Db, |p| p.integer("db", "a number of 32 bits"))?;
    let attributes = Attributes {
        expire_at_ms: members.read(Name::ExpireAtMs, |p| millis(p, "expire_at_ms"))?,
        idle_s: members.read(Name::IdleS, |p| p.integer("idle_s", "seconds"))?,
        freq: members.read(Name::Freq, |p| p.integer("freq", "a number up to 255"))?,
        sticky: members
            .read(Name::Sticky, |p| p.boolean("sticky"))?
            .unwrap_or(false),
        memcached_flags: members.read(Name::MemcachedFlags, |p| {
            p.integer("memcached_flags", "a number of 32 bits")
        })?,
        meta_classes: members
            .read(Name::MetaClasses, |p| {
                p.integer("meta_classes", "a number of 32 bits")
            })?
            .unwrap_or(0),
    };
    let value = value(members, &OF_ENTRIES)?;
    Ok((db.unwrap_or(0), attributes, value))
}

fn aux(members: &Members<'_>) -> Result<Item, Damage> {
    members.only("aux", &[&[Name::Aux, Name::Value]])?;
    let mut name = members.need(Name::Aux, "aux")?;
    let mut value = members.need(Name::Value, "a value")?;
    Ok(Item::Aux {
        name: bytes(&mut name, "aux name")?.into_owned(),
        value: bytes(&mut value, "aux value")?.into_owned(),
    })
}

fn module_aux(members: &Members<'_>) -> Result<Item, Damage> {
    const READING: &str = "module aux";
    let names = [Name::ModuleAux, Name::Version, Name::When, Name::Value];
    members.only(READING, &[&names])?;
    let module = module_id(members, Name::ModuleAux)?;
    let mut when = members.need(Name::When, "a member when")?;
    let when = when.integer(READING, "1 (before the keys) or 2 (after them)")?;
    let mut raw = members.need(Name::Value, "a member value")?;
    let at = raw.offset();
    let raw = bytes(&mut raw, READING)?;
    assemble::module_aux(module, when, &raw).map_err(|refusal| refused(at, refusal))
}

// Values.

fn value(members: &Members<'_>, others: &[Name]) -> Result<Value, Damage> {
    let mut type_name = members.need(Name::Type, "a member type")?;
    let start = type_name.clone();
    let type_name = type_name.string("type")?;
    match &*type_name {
        "module" => return module(members, others),
        "json" => return document(members, others),
        "sketch" => return sketch(members, others),
        _ => {}
    }
    members.only("entry", &[others, &[Name::Encoding, Name::Value]])?;
    let encoding = members.read(Name::Encoding, |parser| {
        let start = parser.clone();
        let name = parser.string("encoding")?;
        Encoding::parse(name.as_bytes())
            .ok_or_else(|| start.unwanted("encoding", "a name that OBJECT ENCODING gives"))
    })?;
    let mut parser = members.need(Name::Value, "a member value")?;
    let at = parser.offset();
    let parser = &mut parser;
    let assembled = match &*type_name {
        "string" => Ok(Value::String(bytes(parser, "string")?.into_owned())),
        "list" => list(parser)?,
        "set" => assemble::set(set(parser)?, encoding),
        "hash" => assemble::hash(hash(parser)?, encoding),
        "zset" => assemble::zset(zset(parser)?, encoding),
        "stream" => stream(parser)?,
        _ => {
            let wanted = "string, list, set, hash, zset, stream, module, json or sketch";
            return Err(start.unwanted("type", wanted));
        }
    };
    assembled.map_err(|refusal| refused(at, refusal))
}

fn refused(at: u64, (reading, problem): Refusal) -> Damage {
    Damage::new(at, reading, problem)
}

fn list(parser: &mut Parser<'_>) -> Result<Result<Value, Refusal>, Damage> {
    let mut list = ListBuilder::default();
    parser.elements("list", |parser| {
        list.push(&bytes(parser, "list element")?);
        Ok(())
    })?;
    Ok(list.finish())
}

fn set(parser: &mut Parser<'_>) -> Result<Vec<SetMember>, Damage> {
    let mut members = Vec::new();
    parser.elements("set", |parser| {
        let (member, expire_at_ms) = expiring(parser, "set member")?;
        members.push(SetMember {
            member: member.into_owned(),
            expire_at_ms,
        });
        Ok(())
    })?;
    Ok(members)
}

fn hash(parser: &mut Parser<'_>) -> Result<Vec<HashField>, Damage> {
    let mut fields = Vec::new();
    parser.members("hash", |parser, name| {
        let field = name_bytes(parser, name, "hash field")?;
        let (value, expire_at_ms) = expiring(parser, "hash value")?;
        fields.push(HashField {
            field: field.into_owned(),
            value: value.into_owned(),
            expire_at_ms,
        });
        Ok(())
    })?;
    Ok(fields)
}

fn zset(parser: &mut Parser<'_>) -> Result<Vec<(Vec<u8>, f64)>, Damage> {
    let mut members = Vec::new();
    parser.members("zset", |parser, name| {
        let member = name_bytes(parser, name, "zset member")?;
        members.push((member.into_owned(), score(parser)?));
        Ok(())
    })?;
    Ok(members)
}

/// A number, or one as a string, as clients write it: `"inf"` is one.
fn score(parser: &mut Parser<'_>) -> Result<f64, Damage> {
    const READING: &str = "zset score";
    parser.blank();
    let start = parser.clone();
    let number = match parser.peek(READING)? {
        Token::Number => {
            let number = parser.number(READING)?.parse().ok();
            number.filter(|number: &f64| number.is_finite())
        }
        Token::String => double::parse(parser.string(READING)?.as_bytes()),
        _ => None,
    };
    number.ok_or_else(|| start.unwanted(READING, "a number, \"inf\" or \"-inf\""))
}

// Modules and documents.

fn module_id(members: &Members<'_>, name: Name) -> Result<ModuleId, Damage> {
    const READING: &str = "module";
    let mut parser = members.need(name, "the name of a module")?;
    let start = parser.clone();
    let name = parser.string(READING)?;
    let version = members.read(Name::Version, |p| {
        p.integer(READING, "an encoding version up to 1023")
    })?;
    let version = version.unwrap_or(ModuleId::REJSON_3.encoding_version());
    let id = <[u8; 9]>::try_from(name.as_bytes()).map(|name| ModuleId::new(&name, version));
    match id {
        Ok(id) if id.name() == *name && id.encoding_version() == version => Ok(id),
        _ => {
            let wanted = "nine letters, digits, - or _, and a version up to 1023";
            Err(start.unwanted(READING, wanted))
        }
    }
}

/// Stored bytes that are of this module, and whole.
fn raw_module(members: &Members<'_>, id: ModuleId) -> Result<ModuleValue, Damage> {
    const READING: &str = "module value";
    let mut parser = members.need(Name::Value, "a member value")?;
    let at = parser.offset();
    let raw = bytes(&mut parser, READING)?;
    let value = assemble::module(&raw).map_err(|refusal| refused(at, refusal))?;
    if value.id != id {
        let (wanted, found) = (id.0, value.id.0);
        return Err(Damage::new(at, READING, Problem::Differs { wanted, found }));
    }
    Ok(value)
}

/// Stored bytes; without them the document says what they are.
fn module(members: &Members<'_>, others: &[Name]) -> Result<Value, Damage> {
    let own = [Name::Module, Name::Version, Name::Value, Name::Document];
    members.only("module value", &[others, &own])?;
    let id = module_id(members, Name::Module)?;
    match members.get(Name::Document) {
        Some(mut document) if members.get(Name::Value).is_none() => {
            if id != ModuleId::REJSON_3 {
                let wanted = "a value, as only ReJSON-RL version 3 can be made from a document";
                return Err(document.unwanted("module value", wanted));
            }
            let text = document.raw("document")?;
            Ok(Value::Module(ModuleValue::of_json(text)))
        }
        _ => raw_module(members, id).map(Value::Module),
    }
}

fn document(members: &Members<'_>, others: &[Name]) -> Result<Value, Damage> {
    const READING: &str = "json";
    members.only(READING, &[others, &[Name::Value, Name::Document]])?;
    if let Some(mut document) = members.get(Name::Document) {
        if let Some(value) = members.get(Name::Value) {
            return Err(value.unwanted(READING, "a document or a value, not both"));
        }
        return Ok(Value::Json(document.raw(READING)?.to_vec()));
    }
    let mut parser = members.need(Name::Value, "a member document or value")?;
    let start = parser.clone();
    match bytes(&mut parser, READING)? {
        text if text.is_empty() => Err(start.unwanted(READING, "a text that is not empty")),
        text => Ok(Value::Json(text.into_owned())),
    }
}

fn sketch(members: &Members<'_>, others: &[Name]) -> Result<Value, Damage> {
    const READING: &str = "sketch";
    members.only(READING, &[others, &[Name::Sketch, Name::Value]])?;
    let mut parser = members.need(Name::Sketch, "a member sketch")?;
    let start = parser.clone();
    let name = parser.string(READING)?;
    let mut codes = type_code::BLOOM..=type_code::CUCKOO;
    let type_code = codes
        .find(|code| type_code::name(*code) == name)
        .ok_or_else(|| start.unwanted(READING, "the name of a sketch"))?;
    let mut parser = members.need(Name::Value, "a member value")?;
    let raw = bytes(&mut parser, READING)?.into_owned();
    Ok(Value::Sketch(SketchValue { type_code, raw }))
}

// Streams.

fn stream(parser: &mut Parser<'_>) -> Result<Result<Value, Refusal>, Damage> {
    const READING: &str = "stream";
    const NAMES: [&str; 8] = [
        "entries",
        "length",
        "last_id",
        "first_id",
        "max_deleted_id",
        "entries_added",
        "groups",
        "idempotence",
    ];
    let mut stream = StreamBuilder::default();
    let mut counters = StreamCounters::default();
    let mut groups = Vec::new();
    let mut known = None;
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => parser.elements("stream entries", |parser| stream_entry(parser, &mut stream))?,
            1 => counters.length = Some(parser.integer(READING, "a number")?),
            2 => counters.last_id = Some(id(parser)?),
            3 => counters.first_id = Some(id(parser)?),
            4 => counters.max_deleted_id = Some(id(parser)?),
            5 => counters.entries_added = Some(parser.integer(READING, "a number")?),
            6 => parser.elements("stream groups", |parser| {
                groups.push(stream_group(parser)?);
                Ok(())
            })?,
            _ => known = Some(Box::new(idempotence(parser)?)),
        }
        Ok(())
    })?;
    Ok(stream.finish(&counters, groups, known))
}

fn idempotence(parser: &mut Parser<'_>) -> Result<Idempotence, Damage> {
    const READING: &str = "stream, idempotence";
    const NAMES: [&str; 5] = [
        "duration_s",
        "entries_max",
        "added",
        "duplicates",
        "producers",
    ];
    let mut known = Idempotence::default();
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => known.duration_s = parser.integer(READING, "seconds")?,
            1 => known.entries_max = parser.integer(READING, "a number")?,
            2 => known.added = parser.integer(READING, "a number")?,
            3 => known.duplicates = parser.integer(READING, "a number")?,
            _ => parser.elements("stream producers", |parser| {
                known.producers.push(producer(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    Ok(known)
}

fn producer(parser: &mut Parser<'_>) -> Result<StreamProducer, Damage> {
    const READING: &str = "stream producer";
    parser.blank();
    let start = parser.clone();
    let (mut name, mut entries) = (None, Vec::new());
    parser.object(READING, &["id", "entries"], |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, producer id")?.into_owned()),
            _ => parser.elements("stream producer, entries", |parser| {
                entries.push(producer_entry(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    let id = name.ok_or_else(|| start.unwanted(READING, "a member id"))?;
    Ok(StreamProducer { id, entries })
}

/// The id that was chosen, and that of the entry.
fn producer_entry(parser: &mut Parser<'_>) -> Result<(Vec<u8>, StreamId), Damage> {
    const READING: &str = "stream producer, entry";
    parser.blank();
    let start = parser.clone();
    let (mut chosen, mut became, mut count) = (None, None, 0);
    parser.elements(READING, |parser| {
        count += 1;
        match count {
            1 => chosen = Some(bytes(parser, READING)?.into_owned()),
            2 => became = Some(id(parser)?),
            _ => return Err(parser.unwanted(READING, "an id and that of the entry, no more")),
        }
        Ok(())
    })?;
    chosen
        .zip(became)
        .ok_or_else(|| start.unwanted(READING, "an id and that of the entry"))
}

fn stream_entry(parser: &mut Parser<'_>, stream: &mut StreamBuilder) -> Result<(), Damage> {
    const READING: &str = "stream entry";
    parser.blank();
    let start = parser.clone();
    let (mut at, mut texts) = (None, None);
    parser.object(READING, &["id", "fields"], |parser, index| {
        match index {
            0 => at = Some(id(parser)?),
            _ => {
                let mut found = Vec::new();
                parser.elements("stream entry, fields", |parser| {
                    found.push(bytes(parser, "stream entry, field or value")?);
                    Ok(())
                })?;
                texts = Some(found);
            }
        }
        Ok(())
    })?;
    let (Some(id), Some(texts)) = (at, texts) else {
        return Err(start.unwanted(READING, "an id and fields"));
    };
    let pushed = stream.push(id, &texts);
    pushed.map_err(|refusal| refused(start.offset(), refusal))
}

fn stream_group(parser: &mut Parser<'_>) -> Result<StreamGroup, Damage> {
    const READING: &str = "stream group";
    const NAMES: [&str; 5] = ["name", "last_id", "entries_read", "consumers", "pending"];
    const UNKNOWN: i64 = -1;
    parser.blank();
    let start = parser.clone();
    let mut name = None;
    let mut group = StreamGroup {
        name: Vec::new(),
        last_id: StreamId::MIN,
        entries_read: UNKNOWN,
        pending: Vec::new(),
        consumers: Vec::new(),
    };
    // Pending entries may come before the consumers that they name.
    let mut pending = Vec::new();
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, group name")?.into_owned()),
            1 => group.last_id = id(parser)?,
            2 => group.entries_read = parser.integer(READING, "a number, -1 = unknown")?,
            3 => parser.elements("stream consumers", |parser| {
                group.consumers.push(consumer(parser)?);
                Ok(())
            })?,
            _ => parser.elements("stream group, pending entries", |parser| {
                pending.push(pending_entry(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    group.name = name.ok_or_else(|| start.unwanted(READING, "a member name"))?;
    let consumers: HashMap<&[u8], u32> = (0..)
        .zip(&group.consumers)
        .map(|(index, consumer)| (&consumer.name[..], index))
        .collect();
    group.pending.reserve(pending.len());
    for (at, owner, mut entry) in pending {
        let owner = consumers.get(&owner[..]).copied();
        entry.consumer = owner.ok_or_else(|| {
            let wanted = "a consumer of the group that owns it";
            let found = entry.id.to_string().into_bytes();
            let problem = Problem::Text { wanted, found };
            Damage::new(at, "stream group, pending entry", problem)
        })?;
        group.pending.push(entry);
    }
    Ok(group)
}

fn consumer(parser: &mut Parser<'_>) -> Result<StreamConsumer, Damage> {
    const READING: &str = "stream consumer";
    const NEVER: i64 = -1;
    parser.blank();
    let start = parser.clone();
    let (mut name, mut seen_at_ms, mut active_at_ms) = (None, 0, NEVER);
    let names = ["name", "seen_at_ms", "active_at_ms"];
    parser.object(READING, &names, |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, consumer name")?.into_owned()),
            1 => seen_at_ms = millis(parser, READING)?,
            _ => active_at_ms = millis(parser, READING)?,
        }
        Ok(())
    })?;
    Ok(StreamConsumer {
        name: name.ok_or_else(|| start.unwanted(READING, "a member name"))?,
        seen_at_ms,
        active_at_ms,
    })
}

/// Where it begins, its consumer's name, and the entry, nobody's yet.
fn pending_entry<'a>(
    parser: &mut Parser<'a>,
) -> Result<(u64, Cow<'a, [u8]>, PendingEntry), Damage> {
    const READING: &str = "stream group, pending entry";
    const NAMES: [&str; 4] = ["id", "consumer", "delivered_at_ms", "deliveries"];
    parser.blank();
    let start = parser.clone();
    let (mut at, mut owner, mut delivered_at_ms, mut deliveries) = (None, None, 0, 1);
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => at = Some(id(parser)?),
            1 => owner = Some(bytes(parser, "stream, consumer name")?),
            2 => delivered_at_ms = millis(parser, READING)?,
            _ => deliveries = parser.integer(READING, "a number")?,
        }
        Ok(())
    })?;
    let (Some(id), Some(owner)) = (at, owner) else {
        return Err(start.unwanted(READING, "an id and a consumer"));
    };
    let entry = PendingEntry {
        id,
        delivered_at_ms,
        deliveries,
        consumer: u32::MAX,
    };
    Ok((start.offset(), owner, entry))
}

/// `ms-seq`
fn id(parser: &mut Parser<'_>) -> Result<StreamId, Damage> {
    parser.blank();
    let start = parser.clone();
    let text = parser.string("stream id")?;
    let number = |text: &str| -> Option<u64> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let parsed = text.split_once('-').and_then(|(ms, seq)| {
        let (ms, seq) = (number(ms)?, number(seq)?);
        Some(StreamId { ms, seq })
    });
    parsed.ok_or_else(|| start.unwanted("stream id", "two numbers, as in \"1700000000000-0\""))
}

// Pieces.

fn millis(parser: &mut Parser<'_>, reading: &'static str) -> Result<i64, Damage> {
    parser.integer(reading, "Unix milliseconds")
}

/// A string in any of its forms; an integer stands for its digits.
fn bytes<'a>(parser: &mut Parser<'a>, reading: &'static str) -> Result<Cow<'a, [u8]>, Damage> {
    match plain(parser, reading)? {
        Some(bytes) => Ok(bytes),
        None => marked(parser, reading, false).map(|(bytes, _)| bytes),
    }
}

/// A string in any of its forms, or one with an expiry.
fn expiring<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
) -> Result<(Cow<'a, [u8]>, Option<i64>), Damage> {
    match plain(parser, reading)? {
        Some(bytes) => Ok((bytes, None)),
        None => marked(parser, reading, true),
    }
}

/// None: an object, which says what it is.
fn plain<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
) -> Result<Option<Cow<'a, [u8]>>, Damage> {
    parser.blank();
    let start = parser.clone();
    match parser.peek(reading)? {
        Token::String => Ok(Some(into_bytes(parser.string(reading)?))),
        Token::Object => Ok(None),
        Token::Number => {
            let number = parser.number(reading)?.as_bytes();
            match canonical_int(number) {
                Some(_) => Ok(Some(Cow::Borrowed(number))),
                None => Err(start.unwanted(reading, "a string, or an integer")),
            }
        }
        _ => Err(start.unwanted(reading, "a string, an integer, or {\"base64\":…}")),
    }
}

/// `{"base64":…}`, `{"pieces":[…]}`, or `{"value":…,"expire_at_ms":…}` where something may expire.
fn marked<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
    may_expire: bool,
) -> Result<(Cow<'a, [u8]>, Option<i64>), Damage> {
    const NAMES: [&str; 4] = ["base64", "pieces", "value", "expire_at_ms"];
    let start = parser.clone();
    let names = if may_expire { &NAMES[..] } else { &NAMES[..2] };
    let (mut found, mut forms, mut expire_at_ms, mut has_value) = (None, 0, None, false);
    parser.object(reading, names, |parser, index| {
        forms += u32::from(index != 3);
        match index {
            0 => found = Some(Cow::Owned(base64_text(parser, reading)?)),
            1 => found = Some(Cow::Owned(pieces(parser, reading)?)),
            2 => {
                found = Some(bytes(parser, reading)?);
                has_value = true;
            }
            _ => expire_at_ms = Some(millis(parser, reading)?),
        }
        Ok(())
    })?;
    match found {
        Some(bytes) if forms == 1 && (has_value || expire_at_ms.is_none()) => {
            Ok((bytes, expire_at_ms))
        }
        _ => Err(start.unwanted(
            reading,
            "either base64, or pieces, or a value with its expiry",
        )),
    }
}

fn base64_text(parser: &mut Parser<'_>, reading: &'static str) -> Result<Vec<u8>, Damage> {
    parser.blank();
    let start = parser.clone();
    let text = parser.string(reading)?;
    base64::decode(text.as_bytes()).ok_or_else(|| start.unwanted(reading, "base64 with padding"))
}

/// A string whose pieces stand one by one; they have no pieces themselves.
fn pieces(parser: &mut Parser<'_>, reading: &'static str) -> Result<Vec<u8>, Damage> {
    let mut whole = Vec::new();
    parser.elements(reading, |parser| {
        match plain(parser, reading)? {
            Some(piece) => whole.extend_from_slice(&piece),
            None => {
                let start = parser.clone();
                let mut piece = None;
                parser.object(reading, &["base64"], |parser, _| {
                    piece = Some(base64_text(parser, reading)?);
                    Ok(())
                })?;
                let piece = piece.ok_or_else(|| start.unwanted(reading, "a member base64"))?;
                whole.extend_from_slice(&piece);
            }
        }
        Ok(())
    })?;
    Ok(whole)
}

/// What a name stands for.
fn name_bytes<'a>(
    parser: &Parser<'a>,
    name: Cow<'a, str>,
    reading: &'static str,
) -> Result<Cow<'a, [u8]>, Damage> {
    let Some(text) = name.as_bytes().strip_prefix(BASE64_PREFIX) else {
        return Ok(into_bytes(name));
    };
    base64::decode(text).map(Cow::Owned).ok_or_else(|| {
        let wanted = "base64 with padding behind base64:";
        let found = name.as_bytes().to_vec();
        Damage::new(parser.offset(), reading, Problem::Text { wanted, found })
    })
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
