//! Values as data: what a key holds, in compact form where it was stored in one.
//!
//! `rdb::decode` makes them from stored bytes, `rdb::encode` stores them again, and reports, comparisons and the
//! server's loader walk them through the iterators here, which look the same whatever the form.
//!
//! Invariants of values made by `decode`
//! - No member and no field is there twice, no score is NaN, no collection but a stream is empty.
//! - Packs of sorted sets are in order; packs of hashes with expiry are in order of expiry, those without last.
//! - Every pending entry of a stream group belongs to exactly one of its consumers.

use crate::double;
use crate::encoding::intset::Intset;
use crate::encoding::listpack::{self, Element, Listpack};
use crate::encoding::stream::{Entries, Entry, StreamId};
use crate::error::{Damage, Problem};
use crate::input::Cursor;
use crate::rdb::record::ModuleId;
use crate::rdb::writer;

/// What a key holds.
///
/// ```
/// use dfsnap_formats::rdb::{Flavor, decode::{DecodeLimits, decode}, type_code};
/// use dfsnap_formats::value::{Kind, Value};
/// let stored = [2, 1, b'a', 0xC0, 7];
/// let value = decode(Flavor::Redis, type_code::SET, &stored, &DecodeLimits::default()).unwrap().unwrap();
/// assert_eq!((value.kind(), value.count()), (Kind::Set, 2));
/// let Value::Set(set) = &value else { unreachable!() };
/// assert!(set.members().any(|member| member.eq_bytes(b"7")));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(Vec<u8>),
    List(Vec<ListNode>),
    Set(SetValue),
    Hash(HashValue),
    ZSet(ZSetValue),
    Stream(StreamValue),
    Module(ModuleValue),
    /// A document of Dragonfly, as text. Redis' own JSON is a module's value: see [`ModuleValue::json`].
    Json(Vec<u8>),
    Sketch(SketchValue),
}

/// The types that clients know. The numbers are those of DEBUG DIGEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    ZSet = 3,
    Hash = 4,
    Module = 5,
    Stream = 6,
}

impl Kind {
    /// As the TYPE command says it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::ZSet => "zset",
            Kind::Hash => "hash",
            Kind::Module => "module",
            Kind::Stream => "stream",
        }
    }
}

impl Value {
    pub fn kind(&self) -> Kind {
        match self {
            Value::String(_) => Kind::String,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::ZSet(_) => Kind::ZSet,
            Value::Stream(_) => Kind::Stream,
            Value::Module(_) | Value::Json(_) | Value::Sketch(_) => Kind::Module,
        }
    }

    /// Elements; for a string its bytes, for a stream its live entries, for a module 1.
    pub fn count(&self) -> usize {
        match self {
            Value::String(bytes) => bytes.len(),
            Value::List(nodes) => nodes.iter().map(ListNode::len).sum(),
            Value::Set(set) => set.len(),
            Value::Hash(hash) => hash.len(),
            Value::ZSet(zset) => zset.len(),
            Value::Stream(stream) => stream.entries().count(),
            Value::Module(_) | Value::Json(_) | Value::Sketch(_) => 1,
        }
    }
}

/// A piece of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum ListNode {
    Packed(Listpack),
    /// One element that is too large for a pack.
    Plain(Vec<u8>),
}

impl ListNode {
    pub fn len(&self) -> usize {
        match self {
            ListNode::Packed(pack) => pack.len(),
            ListNode::Plain(_) => 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn elements(&self) -> impl Iterator<Item = Element<'_>> + Clone {
        match self {
            ListNode::Packed(pack) => Either::A(pack.iter()),
            ListNode::Plain(bytes) => Either::B(std::iter::once(Element::Str(bytes))),
        }
    }
}

/// The elements of a list, head to tail.
pub fn list_elements(nodes: &[ListNode]) -> impl Iterator<Item = Element<'_>> + Clone {
    nodes.iter().flat_map(ListNode::elements)
}

#[derive(Debug, Clone, PartialEq)]
pub enum SetValue {
    Intset(Intset),
    Listpack(Listpack),
    Members(Vec<Vec<u8>>),
    /// Dragonfly: members may expire.
    Expiring(Vec<SetMember>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMember {
    pub member: Vec<u8>,
    /// Absolute Unix milliseconds.
    pub expire_at_ms: Option<i64>,
}

impl SetValue {
    pub fn len(&self) -> usize {
        match self {
            SetValue::Intset(set) => set.len(),
            SetValue::Listpack(pack) => pack.len(),
            SetValue::Members(members) => members.len(),
            SetValue::Expiring(members) => members.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Members in stored order.
    pub fn members(&self) -> impl Iterator<Item = Element<'_>> {
        match self {
            SetValue::Intset(set) => Either::A(Either::A(set.iter().map(Element::Int))),
            SetValue::Listpack(pack) => Either::A(Either::B(pack.iter())),
            SetValue::Members(members) => {
                Either::B(Either::A(members.iter().map(|member| Element::Str(member))))
            }
            SetValue::Expiring(members) => Either::B(Either::B(
                members.iter().map(|member| Element::Str(&member.member)),
            )),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum HashValue {
    /// field, value, …
    Listpack(Listpack),
    /// field, value, expiry, … in order of expiry; 0 = none, and these last.
    ListpackEx(Listpack),
    Fields(Vec<HashField>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashField {
    pub field: Vec<u8>,
    pub value: Vec<u8>,
    /// Absolute Unix milliseconds.
    pub expire_at_ms: Option<i64>,
}

/// A field of a hash in any form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    pub field: Element<'a>,
    pub value: Element<'a>,
    /// Absolute Unix milliseconds.
    pub expire_at_ms: Option<i64>,
}

impl HashValue {
    pub fn len(&self) -> usize {
        match self {
            HashValue::Listpack(pack) => pack.len() / 2,
            HashValue::ListpackEx(pack) => pack.len() / 3,
            HashValue::Fields(fields) => fields.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fields in stored order.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        match self {
            HashValue::Listpack(pack) => Either::A(packed_fields(pack.iter(), false)),
            HashValue::ListpackEx(pack) => Either::A(packed_fields(pack.iter(), true)),
            HashValue::Fields(fields) => Either::B(fields.iter().map(|field| FieldRef {
                field: Element::Str(&field.field),
                value: Element::Str(&field.value),
                expire_at_ms: field.expire_at_ms,
            })),
        }
    }

    pub fn has_field_expiry(&self) -> bool {
        match self {
            HashValue::Listpack(_) => false,
            _ => self.fields().any(|field| field.expire_at_ms.is_some()),
        }
    }
}

fn packed_fields(
    mut elements: listpack::Iter<'_>,
    with_expiry: bool,
) -> impl Iterator<Item = FieldRef<'_>> {
    std::iter::from_fn(move || {
        let field = elements.next()?;
        let value = elements.next()?;
        let expire_at_ms = match with_expiry {
            true => elements.next()?.as_int().filter(|at_ms| *at_ms != 0),
            false => None,
        };
        Some(FieldRef {
            field,
            value,
            expire_at_ms,
        })
    })
}

#[derive(Debug, Clone, PartialEq)]
pub enum ZSetValue {
    /// member, score, … in order of score, then of member.
    Listpack(Listpack),
    /// In any order.
    Members(Vec<(Vec<u8>, f64)>),
}

impl ZSetValue {
    pub fn len(&self) -> usize {
        match self {
            ZSetValue::Listpack(pack) => pack.len() / 2,
            ZSetValue::Members(members) => members.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Members and scores in stored order.
    pub fn members(&self) -> impl Iterator<Item = (Element<'_>, f64)> {
        match self {
            ZSetValue::Listpack(pack) => Either::A(packed_scores(pack)),
            ZSetValue::Members(members) => {
                Either::B(members.iter().map(|(m, score)| (Element::Str(m), *score)))
            }
        }
    }
}

/// Members and scores of a pack whose scores were checked.
fn packed_scores(pack: &Listpack) -> impl Iterator<Item = (Element<'_>, f64)> {
    let mut elements = pack.iter();
    std::iter::from_fn(move || {
        let member = elements.next()?;
        Some((member, score_of(elements.next()?)?))
    })
}

/// The score that an element of a pack stands for; None if it is no number.
pub fn score_of(element: Element<'_>) -> Option<f64> {
    match element {
        Element::Int(number) => Some(number as f64),
        Element::Str(text) => double::parse(text),
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamValue {
    /// Node id and entries, ascending.
    pub nodes: Vec<(StreamId, Listpack)>,
    /// What XLEN answers. Release candidates of 5.0 wrote others than the number of live entries.
    pub length: u64,
    pub last_id: StreamId,
    /// Id of the first live entry; 0-0 if there is none.
    pub first_id: StreamId,
    /// Highest id ever deleted.
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
    pub groups: Vec<StreamGroup>,
    /// Redis from RDB version 13 on: what keeps an entry from being added twice.
    pub idempotence: Option<Box<Idempotence>>,
}

/// How a stream recognizes entries that producers add again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idempotence {
    /// For how long ids are remembered, in seconds.
    pub duration_s: u64,
    /// How many ids are remembered of each producer.
    pub entries_max: u64,
    pub producers: Vec<StreamProducer>,
    /// Entries that were added, and those that were there already.
    pub added: u64,
    pub duplicates: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamProducer {
    pub id: Vec<u8>,
    /// The ids it chose, and the entries they became.
    pub entries: Vec<(Vec<u8>, StreamId)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamGroup {
    pub name: Vec<u8>,
    pub last_id: StreamId,
    /// Entries that the group has read; -1 = unknown.
    pub entries_read: i64,
    /// Delivered and not acknowledged, ascending by id.
    pub pending: Vec<PendingEntry>,
    pub consumers: Vec<StreamConsumer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingEntry {
    pub id: StreamId,
    pub delivered_at_ms: i64,
    pub deliveries: u64,
    /// Index into the group's consumers.
    pub consumer: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    pub name: Vec<u8>,
    /// Last attempt to read.
    pub seen_at_ms: i64,
    /// Last successful read; -1 = never.
    pub active_at_ms: i64,
}

impl StreamValue {
    /// Live entries in order of id.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.nodes
            .iter()
            .flat_map(|(master, pack)| Entries::new(*master, pack.as_packed()))
    }
}

/// A probabilistic structure of Dragonfly, as it is stored: a filter or sketch that only its own hash functions can
/// use, so that it can be copied but not converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SketchValue {
    /// One of `type_code::BLOOM` to `type_code::CUCKOO`.
    pub type_code: u8,
    pub raw: Vec<u8>,
}

/// A module's value, as it is stored; it can be copied and compared without the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleValue {
    pub id: ModuleId,
    /// All of the stored value, from the id to the end mark.
    pub raw: Vec<u8>,
}

/// A piece of a module's value.
#[derive(Debug, Clone, PartialEq)]
pub enum ModuleOp {
    SignedInt(i64),
    UnsignedInt(u64),
    Float(f32),
    Double(f64),
    String(Vec<u8>),
}

impl ModuleValue {
    /// The value that starts at `cursor`, which is moved behind its end mark.
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Damage> {
        let (whole, start) = (cursor.rest(), cursor.offset());
        let id = ModuleId(cursor.len("module id")?);
        while next_op(cursor)?.is_some() {}
        let raw = whole[..(cursor.offset() - start) as usize].to_vec();
        Ok(ModuleValue { id, raw })
    }

    /// A document as RedisJSON stores it, in the version that Redis 7 and 8 write.
    pub fn of_json(text: &[u8]) -> Self {
        let mut raw = Vec::with_capacity(text.len() + 16);
        writer::len(&mut raw, ModuleId::REJSON_3.0);
        writer::len(&mut raw, MODULE_STRING);
        writer::raw_string(&mut raw, text, None);
        writer::len(&mut raw, MODULE_END);
        ModuleValue {
            id: ModuleId::REJSON_3,
            raw,
        }
    }

    /// The document in a RedisJSON value whose version stores it as text. None: another module, or another version.
    pub fn json(&self) -> Option<Vec<u8>> {
        if self.id != ModuleId::REJSON_3 {
            return None;
        }
        match <[ModuleOp; 1]>::try_from(self.ops().ok()?) {
            Ok([ModuleOp::String(text)]) => Some(text),
            _ => None,
        }
    }

    /// The pieces of the value.
    pub fn ops(&self) -> Result<Vec<ModuleOp>, Damage> {
        let mut cursor = Cursor::new(&self.raw);
        cursor.len("module id")?;
        std::iter::from_fn(|| next_op(&mut cursor).transpose()).collect()
    }
}

const MODULE_END: u64 = 0;
const MODULE_STRING: u64 = 5;

/// None: the end mark.
fn next_op(cursor: &mut Cursor<'_>) -> Result<Option<ModuleOp>, Damage> {
    let start = cursor.clone();
    Ok(Some(match cursor.len("module opcode")? {
        0 => return Ok(None),
        1 => ModuleOp::SignedInt(cursor.len("module integer")? as i64),
        2 => ModuleOp::UnsignedInt(cursor.len("module integer")?),
        3 => ModuleOp::Float(cursor.f32_le("module float")?),
        4 => ModuleOp::Double(cursor.f64_le("module double")?),
        5 => ModuleOp::String(cursor.string("module string")?),
        found => {
            let wanted = "a module opcode (0..5)";
            let problem = Problem::Number { wanted, found };
            return Err(start.damage("module opcode", problem));
        }
    }))
}

/// Two iterators over the same items.
#[derive(Debug, Clone)]
enum Either<A, B> {
    A(A),
    B(B),
}

impl<A: Iterator, B: Iterator<Item = A::Item>> Iterator for Either<A, B> {
    type Item = A::Item;

    fn next(&mut self) -> Option<A::Item> {
        match self {
            Either::A(items) => items.next(),
            Either::B(items) => items.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Either::A(items) => items.size_hint(),
            Either::B(items) => items.size_hint(),
        }
    }
}
