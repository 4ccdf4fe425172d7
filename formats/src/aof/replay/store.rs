//! Values while commands change them, and the way to and from `value::Value`.
//!
//! Maps are ordered, so that the same commands give the same bytes.

use super::stream_nodes;
use super::streams::Stream;
use super::{Stop, WRONG_TYPE, kept};
use crate::dataset::Attributes;
use crate::double::DoubleText;
use crate::encoding::intset::Intset;
use crate::encoding::listpack::{Element, Listpack};
use crate::value::{
    HashField, HashValue, Kind, ListNode, SetValue, Value, ZSetValue, list_elements,
};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The keys of one database.
pub type Db = BTreeMap<Vec<u8>, Slot>;

#[derive(Debug, Clone)]
pub struct Slot {
    pub attributes: Attributes,
    pub data: Data,
}

/// A value that commands can change.
#[derive(Debug, Clone)]
pub enum Data {
    String(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    ZSet(ZSet),
    Hash(BTreeMap<Vec<u8>, Field>),
    Stream(Box<Stream>),
    /// What no command of the servers changes: values of modules, and what only Dragonfly has.
    Kept(Value),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub value: Vec<u8>,
    /// Absolute Unix milliseconds.
    pub expire_at_ms: Option<i64>,
}

/// A score; never NaN. -0 equals 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(pub f64);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Members by name and by score; both maps hold the same.
#[derive(Debug, Clone, Default)]
pub struct ZSet {
    scores: BTreeMap<Vec<u8>, f64>,
    order: BTreeSet<(Score, Vec<u8>)>,
}

impl ZSet {
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    pub fn insert(&mut self, member: &[u8], score: f64) {
        if let Some(old) = self.scores.insert(member.to_vec(), score) {
            self.order.remove(&(Score(old), member.to_vec()));
        }
        self.order.insert((Score(score), member.to_vec()));
    }

    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.scores.remove(member) {
            Some(score) => self.order.remove(&(Score(score), member.to_vec())),
            None => false,
        }
    }

    /// By score, then by member.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> + ExactSizeIterator {
        self.order
            .iter()
            .map(|(score, member)| (&member[..], score.0))
    }

    /// From this score on.
    pub fn iter_from(&self, score: f64) -> impl Iterator<Item = (&[u8], f64)> {
        let from = (Score(score), Vec::new());
        self.order
            .range(from..)
            .map(|(score, member)| (&member[..], score.0))
    }
}

impl<'a> FromIterator<(&'a [u8], f64)> for ZSet {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], f64)>>(members: I) -> Self {
        let mut zset = ZSet::default();
        for (member, score) in members {
            zset.insert(member, score);
        }
        zset
    }
}

impl Data {
    /// A collection without elements, which is no value; a stream may be empty.
    pub fn is_empty(&self) -> bool {
        match self {
            Data::String(_) | Data::Stream(_) | Data::Kept(_) => false,
            Data::List(list) => list.is_empty(),
            Data::Set(set) => set.is_empty(),
            Data::ZSet(zset) => zset.len() == 0,
            Data::Hash(hash) => hash.is_empty(),
        }
    }

    pub fn string(&mut self) -> Result<&mut Vec<u8>, Stop> {
        match self {
            Data::String(bytes) => Ok(bytes),
            other => Err(other.is_not(Kind::String)),
        }
    }

    pub fn list(&mut self) -> Result<&mut VecDeque<Vec<u8>>, Stop> {
        match self {
            Data::List(list) => Ok(list),
            other => Err(other.is_not(Kind::List)),
        }
    }

    pub fn set(&mut self) -> Result<&mut BTreeSet<Vec<u8>>, Stop> {
        match self {
            Data::Set(set) => Ok(set),
            other => Err(other.is_not(Kind::Set)),
        }
    }

    pub fn zset(&mut self) -> Result<&mut ZSet, Stop> {
        match self {
            Data::ZSet(zset) => Ok(zset),
            other => Err(other.is_not(Kind::ZSet)),
        }
    }

    pub fn hash(&mut self) -> Result<&mut BTreeMap<Vec<u8>, Field>, Stop> {
        match self {
            Data::Hash(hash) => Ok(hash),
            other => Err(other.is_not(Kind::Hash)),
        }
    }

    pub fn stream(&mut self) -> Result<&mut Stream, Stop> {
        match self {
            Data::Stream(stream) => Ok(stream),
            other => Err(other.is_not(Kind::Stream)),
        }
    }

    fn is_not(&self, wanted: Kind) -> Stop {
        match self {
            Data::Kept(value) => kept(value, wanted),
            _ => WRONG_TYPE,
        }
    }

    pub fn of_value(value: Value) -> Data {
        match value {
            Value::String(bytes) => Data::String(bytes),
            Value::List(nodes) => Data::List(list_elements(&nodes).map(Element::to_vec).collect()),
            Value::Set(SetValue::Expiring(members))
                if members.iter().any(|member| member.expire_at_ms.is_some()) =>
            {
                Data::Kept(Value::Set(SetValue::Expiring(members)))
            }
            Value::Set(set) => Data::Set(set.members().map(Element::to_vec).collect()),
            Value::ZSet(zset) => {
                let mut members = ZSet::default();
                for (member, score) in zset.members() {
                    members.insert(&member.to_vec(), score);
                }
                Data::ZSet(members)
            }
            Value::Hash(hash) => {
                let fields = hash.fields().map(|field| {
                    let value = Field {
                        value: field.value.to_vec(),
                        expire_at_ms: field.expire_at_ms,
                    };
                    (field.field.to_vec(), value)
                });
                Data::Hash(fields.collect())
            }
            Value::Stream(stream) => Data::Stream(Box::new(stream_nodes::of_value(&stream))),
            value @ (Value::Module(_) | Value::Json(_) | Value::Sketch(_)) => Data::Kept(value),
        }
    }

    /// In the forms that servers choose with their default settings.
    pub fn into_value(self) -> Value {
        match self {
            Data::String(bytes) => Value::String(bytes),
            Data::List(list) => Value::List(list_nodes(list)),
            Data::Set(set) => Value::Set(set_value(set)),
            Data::ZSet(zset) => Value::ZSet(zset_value(zset)),
            Data::Hash(hash) => Value::Hash(hash_value(hash)),
            Data::Stream(stream) => Value::Stream(stream_nodes::into_value(*stream)),
            Data::Kept(value) => value,
        }
    }
}

/// Bytes of a list's node.
const NODE_BYTES_MAX: usize = 8 << 10;
const INTSET_LEN_MAX: usize = 512;
const PACK_LEN_MAX: usize = 128;
const PACK_TEXT_MAX: usize = 64;

fn list_nodes(list: VecDeque<Vec<u8>>) -> Vec<ListNode> {
    let mut nodes = Vec::new();
    let mut pack = Listpack::new();
    for text in list {
        let element = Element::parse(&text);
        let is_large = Listpack::entry_len(element) > NODE_BYTES_MAX;
        if !pack.is_empty()
            && (is_large || pack.byte_len() + Listpack::entry_len(element) > NODE_BYTES_MAX)
        {
            nodes.push(ListNode::Packed(std::mem::take(&mut pack)));
        }
        match is_large {
            true => nodes.push(ListNode::Plain(text)),
            false => pack.push_back(element),
        }
    }
    if !pack.is_empty() {
        nodes.push(ListNode::Packed(pack));
    }
    nodes
}

fn set_value(set: BTreeSet<Vec<u8>>) -> SetValue {
    let number = |text: &Vec<u8>| Element::parse(text).as_int();
    if set.len() <= INTSET_LEN_MAX && set.iter().all(|member| number(member).is_some()) {
        let mut numbers = Intset::new();
        for member in set.iter().filter_map(number) {
            numbers.insert(member);
        }
        return SetValue::Intset(numbers);
    }
    if set.len() <= PACK_LEN_MAX && set.iter().all(|member| member.len() <= PACK_TEXT_MAX) {
        return SetValue::Listpack(set.iter().map(Vec::as_slice).collect());
    }
    SetValue::Members(set.into_iter().collect())
}

/// Packs know no -0.
fn zset_value(zset: ZSet) -> ZSetValue {
    let is_small = zset.len() <= PACK_LEN_MAX
        && zset.scores.iter().all(|(member, score)| {
            member.len() <= PACK_TEXT_MAX && (*score != 0.0 || score.is_sign_positive())
        });
    if is_small {
        let mut pack = Listpack::new();
        for (member, score) in zset.iter() {
            pack.push_back(Element::parse(member));
            let text = DoubleText::full(score);
            pack.push_back(Element::parse(text.as_bytes()));
        }
        return ZSetValue::Listpack(pack);
    }
    let members = zset.order.into_iter();
    ZSetValue::Members(members.map(|(score, member)| (member, score.0)).collect())
}

fn hash_value(hash: BTreeMap<Vec<u8>, Field>) -> HashValue {
    let is_small = hash.len() <= PACK_LEN_MAX
        && hash
            .iter()
            .all(|(name, field)| name.len().max(field.value.len()) <= PACK_TEXT_MAX);
    let expires = hash.values().any(|field| field.expire_at_ms.is_some());
    if is_small && !expires {
        let texts = hash
            .iter()
            .flat_map(|(name, field)| [&name[..], &field.value]);
        return HashValue::Listpack(texts.collect());
    }
    let fields = hash.into_iter().map(
        |(
            field,
            Field {
                value,
                expire_at_ms,
            },
        )| HashField {
            field,
            value,
            expire_at_ms,
        },
    );
    HashValue::Fields(fields.collect())
}
