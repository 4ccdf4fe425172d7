//! The text of one item to the item: which members there are, and what a value of each type looks like.
//!
//! The counterpart of `writer`. Members may come in any order: where each value begins is noted first, then the type
//! says how to read them.

use super::item_stream::stream;
use super::parser::{Parser, Token};
use super::piece::{bytes, expiring, millis, name_bytes};
use crate::assemble::{self, Encoding, ListBuilder, Refusal};
use crate::dataset::{Attributes, Entry, Item};
use crate::double;
use crate::error::{Damage, Problem};
use crate::rdb::record::ModuleId;
use crate::rdb::type_code;
use crate::value::{HashField, ModuleValue, SetMember, SketchValue, Value};

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
    Damaged,
}

const NAMES: [&str; 20] = [
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
    "damaged",
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
    if let Some(damaged) = members.get(Name::Damaged) {
        let damage = damaged.unwanted("item", "a value that its writer could read to its end");
        let key = Some(key);
        return Err(Refused { key, damage });
    }
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
pub(crate) fn value_of(text: &[u8]) -> Result<Value, Damage> {
    let members = Members::of(text)?;
    value(&members, &[Name::Type])
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

pub(super) fn refused(at: u64, (reading, problem): Refusal) -> Damage {
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
