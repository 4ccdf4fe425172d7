//! Values from loose elements: what readers of text forms make of members, fields and entries that come one by one.
//!
//! `json`, `serde_form` and whoever else has elements instead of stored bytes go through here, so that every value keeps
//! what `value` promises: no element twice, no score that is NaN, packs in order, an owner for each pending entry.
//!
//! The form is that which a server with default settings would choose, unless the one it was stored in is told. A
//! list is always cut into nodes of 8 KB, a stream into nodes of 4 KB or 100 entries.

use crate::dataset::Item;
use crate::double::DoubleText;
use crate::encoding::canonical_int;
use crate::encoding::intset::Intset;
use crate::encoding::listpack::{Element, Listpack};
use crate::encoding::stream::{FLAG_SAME_FIELDS, StreamId};
use crate::encoding::unique::first_duplicate;
use crate::error::{Damage, Problem};
use crate::input::Cursor;
use crate::rdb::decode::NodeBuilder;
use crate::rdb::record::ModuleId;
use crate::value::{
    HashField, HashValue, Idempotence, ModuleOp, ModuleValue, SetMember, SetValue, StreamGroup,
    StreamValue, Value, ZSetValue,
};

/// What was being read, and what is wrong with it.
pub type Refusal = (&'static str, Problem);

/// The form in which a value is stored, by the name that OBJECT ENCODING gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Int,
    Embstr,
    Raw,
    Quicklist,
    Intset,
    Listpack,
    ListpackEx,
    Hashtable,
    Skiplist,
    Stream,
    /// Dragonfly: a set whose members may expire.
    DenseSet,
}

/// Longest string that servers keep in one piece with its header.
const EMBSTR_MAX: usize = 44;

impl Encoding {
    pub const ALL: [Encoding; 11] = [
        Encoding::Int,
        Encoding::Embstr,
        Encoding::Raw,
        Encoding::Quicklist,
        Encoding::Intset,
        Encoding::Listpack,
        Encoding::ListpackEx,
        Encoding::Hashtable,
        Encoding::Skiplist,
        Encoding::Stream,
        Encoding::DenseSet,
    ];

    /// ```
    /// use dfsnap_formats::assemble::Encoding;
    /// assert_eq!(Encoding::ListpackEx.name(), "listpackex");
    /// assert_eq!(Encoding::parse(b"listpackex"), Some(Encoding::ListpackEx));
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Int => "int",
            Encoding::Embstr => "embstr",
            Encoding::Raw => "raw",
            Encoding::Quicklist => "quicklist",
            Encoding::Intset => "intset",
            Encoding::Listpack => "listpack",
            Encoding::ListpackEx => "listpackex",
            Encoding::Hashtable => "hashtable",
            Encoding::Skiplist => "skiplist",
            Encoding::Stream => "stream",
            Encoding::DenseSet => "dense_set",
        }
    }

    pub fn parse(name: &[u8]) -> Option<Self> {
        let mut all = Encoding::ALL.into_iter();
        all.find(|encoding| encoding.name().as_bytes() == name)
    }

    /// The form that `value` has, and a server that loads it as it is. None: of a module, a document, a sketch.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::String(bytes) if canonical_int(bytes).is_some() => Encoding::Int,
            Value::String(bytes) if bytes.len() <= EMBSTR_MAX => Encoding::Embstr,
            Value::String(_) => Encoding::Raw,
            Value::List(_) => Encoding::Quicklist,
            Value::Set(SetValue::Intset(_)) => Encoding::Intset,
            Value::Set(SetValue::Listpack(_)) => Encoding::Listpack,
            Value::Set(SetValue::Members(_)) => Encoding::Hashtable,
            Value::Set(SetValue::Expiring(_)) => Encoding::DenseSet,
            Value::Hash(HashValue::Listpack(_)) => Encoding::Listpack,
            Value::Hash(HashValue::ListpackEx(_)) => Encoding::ListpackEx,
            Value::Hash(HashValue::Fields(_)) => Encoding::Hashtable,
            Value::ZSet(ZSetValue::Listpack(_)) => Encoding::Listpack,
            Value::ZSet(ZSetValue::Members(_)) => Encoding::Skiplist,
            Value::Stream(_) => Encoding::Stream,
            Value::Module(_) | Value::Json(_) | Value::Sketch(_) => return None,
        })
    }
}

// Lists.

/// A list whose elements come one by one.
pub struct ListBuilder {
    nodes: NodeBuilder,
}

impl Default for ListBuilder {
    fn default() -> Self {
        ListBuilder {
            nodes: NodeBuilder::new(LIST_NODE_BYTES_MAX),
        }
    }
}

impl ListBuilder {
    pub fn push(&mut self, element: &[u8]) {
        self.nodes.push(Element::parse(element));
    }

    pub fn finish(self) -> Result<Value, Refusal> {
        let nodes = self.nodes.finish();
        not_empty("list", nodes.len())?;
        Ok(Value::List(nodes))
    }
}

// Sets.

/// A set of `members`, in the form of a Dragonfly set if one of them expires.
pub fn set(members: Vec<SetMember>, stored: Option<Encoding>) -> Result<Value, Refusal> {
    const READING: &str = "set";
    not_empty(READING, members.len())?;
    let names = members.iter().map(|member| Element::Str(&member.member));
    unique(READING, names.clone(), members.len())?;
    if members.iter().any(|member| member.expire_at_ms.is_some()) {
        return match stored {
            None | Some(Encoding::DenseSet) => Ok(Value::Set(SetValue::Expiring(members))),
            Some(other) => Err(wrong("dense_set, as members expire", other)),
        };
    }
    let numbers = || members.iter().all(|m| canonical_int(&m.member).is_some());
    let small = || members.len() <= SET_LISTPACK_ENTRIES_MAX && all_short(names.clone());
    let chosen = stored.unwrap_or_else(|| {
        if members.len() <= INTSET_ENTRIES_MAX && numbers() {
            Encoding::Intset
        } else if small() {
            Encoding::Listpack
        } else {
            Encoding::Hashtable
        }
    });
    Ok(Value::Set(match chosen {
        Encoding::Intset => SetValue::Intset(intset(&members)?),
        Encoding::Listpack if fits_pack(names.clone()) => {
            SetValue::Listpack(pack(names.map(parsed)))
        }
        Encoding::Listpack | Encoding::Hashtable => {
            SetValue::Members(members.into_iter().map(|m| m.member).collect())
        }
        Encoding::DenseSet => SetValue::Expiring(members),
        other => return Err(wrong("intset, listpack, hashtable or dense_set", other)),
    }))
}

/// Sorted first: inserting in order only appends.
fn intset(members: &[SetMember]) -> Result<Intset, Refusal> {
    let mut numbers = Vec::with_capacity(members.len());
    for member in members {
        numbers.push(canonical_int(&member.member).ok_or_else(|| {
            let wanted = "an integer, as in every intset";
            let found = member.member.clone();
            ("set", Problem::Text { wanted, found })
        })?);
    }
    numbers.sort_unstable();
    let mut set = Intset::new();
    for number in numbers {
        set.insert(number);
    }
    Ok(set)
}

// Hashes.

pub fn hash(mut fields: Vec<HashField>, stored: Option<Encoding>) -> Result<Value, Refusal> {
    const READING: &str = "hash";
    not_empty(READING, fields.len())?;
    let names = fields.iter().map(|field| Element::Str(&field.field));
    unique(READING, names, fields.len())?;
    let expiring = fields.iter().any(|field| field.expire_at_ms.is_some());
    // Zero says "none" in a pack.
    let packable = |field: &HashField| field.expire_at_ms.is_none_or(|at_ms| at_ms > 0);
    let packable = !expiring || fields.iter().all(packable);
    let small = fields.len() <= HASH_LISTPACK_ENTRIES_MAX && all_short(texts(&fields));
    let chosen = stored.unwrap_or(match (small && packable, expiring) {
        (true, false) => Encoding::Listpack,
        (true, true) => Encoding::ListpackEx,
        (false, _) => Encoding::Hashtable,
    });
    let fits = fits_pack(texts(&fields));
    Ok(Value::Hash(match chosen {
        Encoding::Listpack if expiring => {
            return Err(wrong("listpackex or hashtable, as fields expire", chosen));
        }
        Encoding::ListpackEx if !packable => {
            return Err(wrong("hashtable, for an expiry of zero or less", chosen));
        }
        Encoding::Listpack if fits => HashValue::Listpack(pack(texts(&fields).map(parsed))),
        Encoding::ListpackEx if fits => {
            fields.sort_by_key(|field| field.expire_at_ms.unwrap_or(i64::MAX));
            HashValue::ListpackEx(pack(fields.iter().flat_map(|field| {
                [
                    Element::parse(&field.field),
                    Element::parse(&field.value),
                    Element::Int(field.expire_at_ms.unwrap_or(0)),
                ]
            })))
        }
        Encoding::Listpack | Encoding::ListpackEx | Encoding::Hashtable => {
            HashValue::Fields(fields)
        }
        other => return Err(wrong("listpack, listpackex or hashtable", other)),
    }))
}

/// field, value, …
fn texts(fields: &[HashField]) -> impl Iterator<Item = Element<'_>> + Clone {
    let fields = fields.iter();
    fields.flat_map(|field| [Element::Str(&field.field), Element::Str(&field.value)])
}

// Sorted sets.

pub fn zset(mut members: Vec<(Vec<u8>, f64)>, stored: Option<Encoding>) -> Result<Value, Refusal> {
    const READING: &str = "zset";
    not_empty(READING, members.len())?;
    let names = members.iter().map(|(member, _)| Element::Str(member));
    unique(READING, names.clone(), members.len())?;
    if members.iter().any(|(_, score)| score.is_nan()) {
        let wanted = "a number";
        let found = b"nan".to_vec();
        return Err(("zset score", Problem::Text { wanted, found }));
    }
    let small = members.len() <= ZSET_LISTPACK_ENTRIES_MAX && all_short(names.clone());
    let chosen = stored.unwrap_or(match small {
        true => Encoding::Listpack,
        false => Encoding::Skiplist,
    });
    let fits = fits_pack(names);
    Ok(Value::ZSet(match chosen {
        Encoding::Listpack if fits => {
            // Zeros of both signs are equal.
            members.sort_by(|a, b| {
                (a.1 + 0.0)
                    .total_cmp(&(b.1 + 0.0))
                    .then_with(|| a.0.cmp(&b.0))
            });
            let mut pack = Listpack::new();
            for (member, score) in &members {
                pack.push_back(Element::parse(member));
                pack.push_back(Element::parse(DoubleText::score(*score).as_bytes()));
            }
            pack.shrink();
            ZSetValue::Listpack(pack)
        }
        Encoding::Listpack | Encoding::Skiplist => ZSetValue::Members(members),
        other => return Err(wrong("listpack or skiplist", other)),
    }))
}

// Streams.

/// A stream whose entries come one by one.
#[derive(Default)]
pub struct StreamBuilder {
    nodes: Vec<(StreamId, Listpack)>,
    /// Entries and master fields of the last node, which is open.
    in_node: usize,
    master_fields: Vec<Vec<u8>>,
    live: u64,
    first_id: StreamId,
    last_id: Option<StreamId>,
}

/// What a stream says about itself; what is left out follows from its entries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StreamCounters {
    pub length: Option<u64>,
    pub last_id: Option<StreamId>,
    pub first_id: Option<StreamId>,
    pub max_deleted_id: Option<StreamId>,
    pub entries_added: Option<u64>,
}

impl StreamBuilder {
    /// The next entry: field, value, …
    pub fn push(&mut self, id: StreamId, texts: &[impl AsRef<[u8]>]) -> Result<(), Refusal> {
        const READING: &str = "stream entry";
        if self.last_id.is_some_and(|before| before >= id) {
            let wanted = "an id above that of the entry before";
            let found = id.to_string().into_bytes();
            return Err(("stream entry, id", Problem::Text { wanted, found }));
        }
        let count = texts.len() as u64;
        if !count.is_multiple_of(2) {
            let wanted = "a value for each field";
            let found = count;
            return Err((READING, Problem::Number { wanted, found }));
        }
        let elements = texts.iter().map(|text| Element::Str(text.as_ref()));
        if !fits_pack(elements.clone()) {
            let wanted = "an entry that fits a node of 1 GB";
            let found = elements.map(|element| element.text_len() as u64).sum();
            return Err((READING, Problem::Number { wanted, found }));
        }
        let bytes: usize = elements.map(Listpack::entry_len).sum();
        let full = self.nodes.last().is_none_or(|(_, pack)| {
            self.in_node >= STREAM_NODE_ENTRIES_MAX
                || pack.byte_len() + bytes >= STREAM_NODE_BYTES_MAX
        });
        if full {
            self.open(id, texts);
        }
        self.append(id, texts);
        self.in_node += 1;
        if self.last_id.is_none() {
            self.first_id = id;
        }
        (self.last_id, self.live) = (Some(id), self.live + 1);
        Ok(())
    }

    /// A new node whose fields are those of its first entry.
    fn open(&mut self, id: StreamId, texts: &[impl AsRef<[u8]>]) {
        self.close();
        let fields = texts.iter().step_by(2).map(|text| text.as_ref().to_vec());
        self.master_fields = fields.collect();
        let mut pack = Listpack::new();
        let count = self.master_fields.len() as i64;
        for number in [0, 0, count] {
            pack.push_back(Element::Int(number));
        }
        for field in &self.master_fields {
            pack.push_back(Element::parse(field));
        }
        pack.push_back(Element::Int(0));
        self.nodes.push((id, pack));
        self.in_node = 0;
    }

    /// Writes the number of live entries, which stands first, into the open node.
    fn close(&mut self) {
        if let Some((_, pack)) = self.nodes.last_mut()
            && let Some(first) = pack.first()
        {
            pack.replace(first, Element::Int(self.in_node as i64));
            pack.shrink();
        }
    }

    fn append(&mut self, id: StreamId, texts: &[impl AsRef<[u8]>]) {
        let Some((master, pack)) = self.nodes.last_mut() else {
            return;
        };
        let fields = texts.iter().step_by(2).map(AsRef::as_ref);
        let same = fields.eq(self.master_fields.iter().map(Vec::as_slice));
        pack.push_back(Element::Int(if same { FLAG_SAME_FIELDS } else { 0 }));
        pack.push_back(Element::Int(id.ms.wrapping_sub(master.ms) as i64));
        pack.push_back(Element::Int(id.seq.wrapping_sub(master.seq) as i64));
        let elements = if same {
            let values = texts.iter().skip(1).step_by(2);
            values.for_each(|value| pack.push_back(Element::parse(value.as_ref())));
            texts.len() / 2 + 3
        } else {
            pack.push_back(Element::Int(texts.len() as i64 / 2));
            let all = texts.iter();
            all.for_each(|text| pack.push_back(Element::parse(text.as_ref())));
            texts.len() + 4
        };
        pack.push_back(Element::Int(elements as i64));
    }

    pub fn finish(
        mut self,
        counters: &StreamCounters,
        groups: Vec<StreamGroup>,
        idempotence: Option<Box<Idempotence>>,
    ) -> Result<Value, Refusal> {
        self.close();
        let length = counters.length.unwrap_or(self.live);
        if length > 0 && self.live == 0 {
            let (wanted, found) = (length, 0);
            return Err(("stream, entries", Problem::Differs { wanted, found }));
        }
        let last_id = self.last_id.unwrap_or_default();
        let mut stream = StreamValue {
            nodes: self.nodes,
            length,
            last_id: counters.last_id.unwrap_or(last_id),
            first_id: counters.first_id.unwrap_or(self.first_id),
            max_deleted_id: counters.max_deleted_id.unwrap_or_default(),
            entries_added: counters.entries_added.unwrap_or(length),
            groups,
            idempotence,
        };
        let names = stream.groups.iter().map(|group| Element::Str(&group.name));
        unique("stream groups", names, stream.groups.len())?;
        stream.groups.iter_mut().try_for_each(check_group)?;
        Ok(Value::Stream(stream))
    }
}

/// Puts the pending entries in order and checks that each is there once, with an owner.
fn check_group(group: &mut StreamGroup) -> Result<(), Refusal> {
    const READING: &str = "stream group, pending entry";
    let names = group.consumers.iter().map(|c| Element::Str(&c.name));
    unique("stream consumers", names, group.consumers.len())?;
    group.pending.sort_unstable_by_key(|entry| entry.id);
    let mut pairs = group.pending.windows(2);
    if let Some(pair) = pairs.find(|pair| pair[0].id == pair[1].id) {
        let twice = pair[0].id.to_string().into_bytes();
        return Err((READING, Problem::Duplicate(twice)));
    }
    let consumers = group.consumers.len();
    let mut pending = group.pending.iter();
    match pending.find(|entry| entry.consumer as usize >= consumers) {
        None => Ok(()),
        Some(entry) => {
            let wanted = "a consumer that owns it";
            let found = entry.id.to_string().into_bytes();
            Err((READING, Problem::Text { wanted, found }))
        }
    }
}

// Modules.

/// A module's value from all of its stored bytes, which must be whole.
pub fn module(raw: &[u8]) -> Result<ModuleValue, Refusal> {
    let refusal = |damage: Damage| (damage.reading, damage.problem);
    let mut cursor = Cursor::new(raw);
    let value = ModuleValue::read(&mut cursor).map_err(refusal)?;
    cursor
        .finish("bytes behind the module value")
        .map_err(refusal)?;
    Ok(value)
}

/// Data of a module beside the keys, from all of its stored bytes, which begin with the module and `when`.
pub fn module_aux(module_id: ModuleId, when: u64, raw: &[u8]) -> Result<Item, Refusal> {
    const READING: &str = "module aux";
    let value = module(raw)?;
    if value.id != module_id {
        let (wanted, found) = (module_id.0, value.id.0);
        return Err((READING, Problem::Differs { wanted, found }));
    }
    let ops = value.ops().map_err(|damage| (READING, damage.problem))?;
    let found = match ops.first() {
        Some(ModuleOp::UnsignedInt(found)) => *found,
        _ => 0,
    };
    if found != when {
        let wanted = when;
        return Err((READING, Problem::Differs { wanted, found }));
    }
    Ok(Item::ModuleAux {
        module: module_id,
        when,
        raw: value.raw,
    })
}

// Pieces.

fn pack<'a>(elements: impl Iterator<Item = Element<'a>>) -> Listpack {
    let mut pack = Listpack::new();
    elements.for_each(|element| pack.push_back(element));
    pack.shrink();
    pack
}

/// The form in which a pack stores it.
fn parsed(element: Element<'_>) -> Element<'_> {
    match element {
        Element::Str(text) => Element::parse(text),
        number => number,
    }
}

fn all_short<'a>(mut elements: impl Iterator<Item = Element<'a>>) -> bool {
    elements.all(|element| element.text_len() <= LISTPACK_VALUE_BYTES_MAX)
}

/// Whether `elements` and a number beside each surely fit a pack.
fn fits_pack<'a>(elements: impl Iterator<Item = Element<'a>>) -> bool {
    let bytes: usize = elements
        .map(|element| element.text_len() + ELEMENT_OVERHEAD_MAX)
        .sum();
    bytes < Listpack::BYTES_MAX / 2
}

fn not_empty(reading: &'static str, count: usize) -> Result<(), Refusal> {
    match count {
        0 => {
            let wanted = "at least one element";
            Err((reading, Problem::Number { wanted, found: 0 }))
        }
        _ => Ok(()),
    }
}

fn unique<'a>(
    reading: &'static str,
    elements: impl Iterator<Item = Element<'a>> + Clone,
    count: usize,
) -> Result<(), Refusal> {
    match first_duplicate(elements, count) {
        None => Ok(()),
        Some(twice) => Err((reading, Problem::Duplicate(twice))),
    }
}

fn wrong(wanted: &'static str, found: Encoding) -> Refusal {
    let found = found.name().as_bytes().to_vec();
    ("encoding", Problem::Text { wanted, found })
}

// What servers keep packed with default settings.
const LIST_NODE_BYTES_MAX: usize = 8192;
const INTSET_ENTRIES_MAX: usize = 512;
const SET_LISTPACK_ENTRIES_MAX: usize = 128;
const HASH_LISTPACK_ENTRIES_MAX: usize = 512;
const ZSET_LISTPACK_ENTRIES_MAX: usize = 128;
const LISTPACK_VALUE_BYTES_MAX: usize = 64;
const STREAM_NODE_BYTES_MAX: usize = 4096;
const STREAM_NODE_ENTRIES_MAX: usize = 100;

/// Bytes that an element takes beside its text, and a score or an expiry behind it.
const ELEMENT_OVERHEAD_MAX: usize = 10 + 30;
