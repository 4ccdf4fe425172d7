//! From a stored value to data, with every check that the format allows.
//!
//! Loaders and `verify` use it on the values that `reader` hands out. Packed forms stay packed where they are sound, so
//! that decoding them is a check and a copy; forms that servers no longer keep (ziplist, zipmap) become listpacks.
//!
//! Servers check less by default: a damaged pack loads there and kills the server when it is read.

use super::stored::{Encoding, container, counted_expiry, not_a_score, score, valkey_expiry};
use super::{Flavor, type_code};
use crate::encoding::intset::Intset;
use crate::encoding::listpack::{Element, Listpack};
use crate::encoding::unique::first_duplicate;
use crate::encoding::ziplist::Ziplist;
use crate::encoding::zipmap::Zipmap;
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Text};
use crate::value::{
    HashField, HashValue, ListNode, ModuleValue, SetValue, SketchValue, Value, ZSetValue,
    list_elements, score_of,
};
use std::borrow::Cow;

/// How values are built.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Bytes of a list node built from single elements; larger elements stand alone.
    pub list_node_bytes: usize,
    /// Look for members and fields that are there twice. A loader whose own tables notice can spare it for
    /// collections that are not packed; packs are always checked.
    pub check_duplicates: bool,
}

impl DecodeLimits {
    const DEFAULT: DecodeLimits = DecodeLimits {
        list_node_bytes: 8192,
        check_duplicates: true,
    };
}

impl Default for DecodeLimits {
    fn default() -> Self {
        DecodeLimits::DEFAULT
    }
}

/// Old packs beyond this become members or fields of their own instead of one huge listpack.
const CONVERTED_PACK_MAX: usize = 1 << 20;
/// A list node with more elements is more than servers can handle.
const NODE_ELEMENTS_MAX: usize = 65535;

/// The value stored in `raw`, which holds exactly that. None: an empty collection, left behind by an old bug; servers
/// skip the key. Offsets in errors count from the start of `raw`.
///
/// ```
/// use dfsnap_formats::rdb::{Flavor, decode::{DecodeLimits, decode}, type_code};
/// let limits = DecodeLimits::default();
/// assert_eq!(decode(Flavor::Redis, type_code::SET, &[0], &limits), Ok(None));
/// let error = decode(Flavor::Redis, type_code::SET, &[2, 1, b'a', 1, b'a'], &limits).unwrap_err();
/// assert_eq!(error.to_string(), "offset 0: set: \"a\" is there twice");
/// ```
pub fn decode(
    flavor: Flavor,
    type_code: u8,
    raw: &[u8],
    limits: &DecodeLimits,
) -> Result<Option<Value>, Damage> {
    let mut decoder = Decoder {
        cursor: Cursor::new(raw),
        limits,
    };
    let value = decoder.value(flavor, type_code)?;
    decoder.cursor.finish("bytes behind the value")?;
    Ok(value)
}

pub(super) struct Decoder<'a, 'l> {
    pub(super) cursor: Cursor<'a>,
    limits: &'l DecodeLimits,
}

impl<'a> Decoder<'a, 'static> {
    /// For what follows the pieces of a value that were opened one by one.
    pub(super) fn at(raw: &'a [u8]) -> Self {
        Decoder {
            cursor: Cursor::new(raw),
            limits: &DecodeLimits::DEFAULT,
        }
    }
}

impl<'a> Decoder<'a, '_> {
    fn value(&mut self, flavor: Flavor, code: u8) -> Result<Option<Value>, Damage> {
        Ok(match code {
            type_code::STRING => Some(Value::String(self.cursor.string("string")?)),
            type_code::LIST => self.list()?,
            type_code::LIST_ZIPLIST => self.list_ziplists(1)?,
            type_code::LIST_QUICKLIST => {
                let count = self.cursor.count(1, "list nodes")?;
                self.list_ziplists(count)?
            }
            type_code::LIST_QUICKLIST_2 => self.quicklist()?,
            type_code::SET => self.set()?,
            type_code::SET_INTSET => self.set_intset()?,
            type_code::SET_LISTPACK => self.set_listpack()?,
            type_code::ZSET | type_code::ZSET_2 => self.zset(code)?,
            type_code::ZSET_ZIPLIST => self.zset_ziplist()?,
            type_code::ZSET_LISTPACK => {
                let (start, pack) = self.listpack("zset, listpack")?;
                self.zset_pack(start, pack)?
            }
            type_code::HASH => self.hash()?,
            type_code::HASH_ZIPMAP => self.hash_zipmap()?,
            type_code::HASH_ZIPLIST => self.hash_ziplist()?,
            type_code::HASH_LISTPACK => {
                let (start, pack) = self.listpack("hash, listpack")?;
                self.hash_pack(start, pack)?
            }
            type_code::HASH_22 => match flavor {
                Flavor::Redis | Flavor::Dragonfly => self.hash_pre_ga()?,
                Flavor::Valkey => self.hash_valkey()?,
            },
            type_code::HASH_METADATA => self.hash_metadata()?,
            type_code::HASH_LISTPACK_EX_PRE_GA => self.hash_listpack_ex()?,
            type_code::HASH_LISTPACK_EX => {
                // The lowest expiry: a hint for servers, and zero from some of them.
                self.cursor.i64_le("hash, lowest expiry")?;
                self.hash_listpack_ex()?
            }
            type_code::STREAM => Some(Value::Stream(self.stream(1)?)),
            type_code::STREAM_2 => Some(Value::Stream(self.stream(2)?)),
            type_code::STREAM_3 => Some(Value::Stream(self.stream(3)?)),
            type_code::STREAM_4 => Some(Value::Stream(self.stream(4)?)),
            type_code::JSON if flavor == Flavor::Dragonfly => Some(self.json()?),
            type_code::HASH_EXPIRING if flavor == Flavor::Dragonfly => self.hash_expiring()?,
            type_code::SET_EXPIRING if flavor == Flavor::Dragonfly => self.set_expiring()?,
            type_code::BLOOM..=type_code::CUCKOO if flavor == Flavor::Dragonfly => {
                Some(Value::Sketch(SketchValue::read(code, &mut self.cursor)?))
            }
            type_code::MODULE_2 => Some(Value::Module(ModuleValue::read(&mut self.cursor)?)),
            code => {
                let wanted = "a type of value";
                let found = u64::from(code);
                let problem = Problem::Number { wanted, found };
                return Err(self.cursor.damage("type", problem));
            }
        })
    }

    // Lists.

    fn list(&mut self) -> Result<Option<Value>, Damage> {
        let mut nodes = NodeBuilder::new(self.limits.list_node_bytes);
        let mut scratch = Vec::new();
        for _ in 0..self.cursor.count(1, "list")? {
            match self.text("list element")? {
                (_, Text::Plain(bytes)) => nodes.push(Element::parse(bytes)),
                (_, Text::Int(number)) => nodes.push(Element::Int(i64::from(number))),
                (start, text) => {
                    scratch.clear();
                    expand(start, "list element", text, &mut scratch)?;
                    nodes.push(Element::parse(&scratch));
                }
            }
        }
        Ok(list_value(nodes.finish()))
    }

    fn list_ziplists(&mut self, count: usize) -> Result<Option<Value>, Damage> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            let (start, blob) = self.blob("list, ziplist")?;
            let list = Ziplist::new(&blob).map_err(in_blob(start, "list, ziplist"))?;
            let whole = list.byte_len() <= CONVERTED_PACK_MAX && list.len() <= NODE_ELEMENTS_MAX;
            if whole && !list.is_empty() {
                nodes.push(ListNode::Packed(pack_of(list)));
            } else {
                let mut parts = NodeBuilder::new(self.limits.list_node_bytes);
                list.iter().for_each(|element| parts.push(element));
                nodes.append(&mut parts.finish());
            }
        }
        Ok(list_value(nodes))
    }

    fn quicklist(&mut self) -> Result<Option<Value>, Damage> {
        let mut nodes = Vec::new();
        for _ in 0..self.cursor.count(2, "list nodes")? {
            match container(&mut self.cursor)? {
                Encoding::Plain => {
                    let start = self.cursor.clone();
                    let element = self.cursor.string("list, plain node")?;
                    if element.is_empty() {
                        let problem = Problem::Differs {
                            wanted: 1,
                            found: 0,
                        };
                        return Err(start.damage("list, plain node", problem));
                    }
                    nodes.push(ListNode::Plain(element));
                }
                _ => {
                    let (_, pack) = self.listpack("list, node")?;
                    if pack.len() > NODE_ELEMENTS_MAX {
                        let mut parts = NodeBuilder::new(self.limits.list_node_bytes);
                        pack.iter().for_each(|element| parts.push(element));
                        nodes.append(&mut parts.finish());
                    } else if !pack.is_empty() {
                        nodes.push(ListNode::Packed(pack));
                    }
                }
            }
        }
        Ok(list_value(nodes))
    }

    // Sets.

    fn set(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(1, "set")?;
        // A member takes at least one byte of the file, but 24 here: grow with what is really read.
        let mut members = Vec::with_capacity(count.min(self.cursor.left() / 4));
        for _ in 0..count {
            members.push(self.cursor.string("set member")?);
        }
        self.unique("set", members.iter().map(|m| Element::Str(m)), count)?;
        Ok((count > 0).then_some(Value::Set(SetValue::Members(members))))
    }

    fn set_intset(&mut self) -> Result<Option<Value>, Damage> {
        let (start, blob) = self.blob("set, intset")?;
        let set = Intset::from_bytes(blob.into_owned()).map_err(in_blob(start, "set, intset"))?;
        if set.is_empty() {
            let problem = Problem::Differs {
                wanted: 1,
                found: 0,
            };
            return Err(Damage::new(start, "set, intset", problem));
        }
        Ok(Some(Value::Set(SetValue::Intset(set))))
    }

    fn set_listpack(&mut self) -> Result<Option<Value>, Damage> {
        let (start, pack) = self.listpack("set, listpack")?;
        unique(start, "set, listpack", pack.iter(), pack.len())?;
        Ok((!pack.is_empty()).then_some(Value::Set(SetValue::Listpack(pack))))
    }

    // Sorted sets.

    fn zset(&mut self, code: u8) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(2, "zset")?;
        let mut members = Vec::with_capacity(count.min(self.cursor.left() / 8));
        for _ in 0..count {
            let member = self.cursor.string("zset member")?;
            members.push((member, score(&mut self.cursor, code)?));
        }
        let names = members.iter().map(|(member, _)| Element::Str(member));
        self.unique("zset", names, count)?;
        Ok((count > 0).then_some(Value::ZSet(ZSetValue::Members(members))))
    }

    fn zset_ziplist(&mut self) -> Result<Option<Value>, Damage> {
        let (start, blob) = self.blob("zset, ziplist")?;
        let list = Ziplist::new(&blob).map_err(in_blob(start, "zset, ziplist"))?;
        if list.byte_len() <= CONVERTED_PACK_MAX {
            return self.zset_pack(start, pack_of(list));
        }
        let (pairs, count) = (Pairs(list.iter()), list.len() / 2);
        even(start, "zset, ziplist", list.len())?;
        unique(start, "zset, ziplist", pairs.clone().map(|(m, _)| m), count)?;
        let members = scored(start, pairs)?;
        Ok(Some(Value::ZSet(ZSetValue::Members(members))))
    }

    fn zset_pack(&self, start: u64, pack: Listpack) -> Result<Option<Value>, Damage> {
        const READING: &str = "zset, listpack";
        let len = pack.len();
        even(start, READING, len)?;
        let pairs = Pairs(pack.iter());
        unique(start, READING, pairs.clone().map(|(m, _)| m), len / 2)?;
        let mut before: Option<(f64, Element)> = None;
        let mut in_order = true;
        for (member, score) in pairs.clone() {
            let score = score_of(score)
                .ok_or_else(|| Damage::new(start, READING, not_a_score(&score.to_vec())))?;
            in_order &= before.is_none_or(|before| follows(before, (score, member)));
            before = Some((score, member));
        }
        if len == 0 {
            return Ok(None);
        }
        let zset = if in_order {
            ZSetValue::Listpack(pack)
        } else {
            ZSetValue::Members(scored(start, pairs)?)
        };
        Ok(Some(Value::ZSet(zset)))
    }

    // Hashes.

    fn hash(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(2, "hash")?;
        self.fields(count, |decoder| {
            let field = decoder.cursor.string("hash field")?;
            let value = decoder.cursor.string("hash value")?;
            Ok((field, value, None))
        })
    }

    fn hash_zipmap(&mut self) -> Result<Option<Value>, Damage> {
        let (start, blob) = self.blob("hash, zipmap")?;
        let map = Zipmap::new(&blob).map_err(in_blob(start, "hash, zipmap"))?;
        let names = map.iter().map(|(field, _)| Element::Str(field));
        unique(start, "hash, zipmap", names, map.len())?;
        if blob.len() <= CONVERTED_PACK_MAX {
            let texts = map.iter().flat_map(|(field, value)| [field, value]);
            return Ok(Some(Value::Hash(HashValue::Listpack(texts.collect()))));
        }
        let fields = map.iter().map(|(field, value)| HashField {
            field: field.to_vec(),
            value: value.to_vec(),
            expire_at_ms: None,
        });
        Ok(Some(Value::Hash(HashValue::Fields(fields.collect()))))
    }

    fn hash_ziplist(&mut self) -> Result<Option<Value>, Damage> {
        let (start, blob) = self.blob("hash, ziplist")?;
        let list = Ziplist::new(&blob).map_err(in_blob(start, "hash, ziplist"))?;
        if list.byte_len() <= CONVERTED_PACK_MAX {
            return self.hash_pack(start, pack_of(list));
        }
        even(start, "hash, ziplist", list.len())?;
        let (pairs, count) = (Pairs(list.iter()), list.len() / 2);
        unique(start, "hash, ziplist", pairs.clone().map(|(f, _)| f), count)?;
        let fields = pairs.map(|(field, value)| HashField {
            field: field.to_vec(),
            value: value.to_vec(),
            expire_at_ms: None,
        });
        Ok(Some(Value::Hash(HashValue::Fields(fields.collect()))))
    }

    fn hash_pack(&self, start: u64, pack: Listpack) -> Result<Option<Value>, Damage> {
        let len = pack.len();
        even(start, "hash, listpack", len)?;
        let fields = pack.iter().step_by(2);
        unique(start, "hash, listpack", fields, len / 2)?;
        Ok((len > 0).then_some(Value::Hash(HashValue::Listpack(pack))))
    }

    /// Type 22 of a release candidate of 7.4.
    fn hash_pre_ga(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(3, "hash")?;
        self.fields(count, |decoder| {
            let expiry = counted_expiry(&mut decoder.cursor, 0)?;
            let field = decoder.cursor.string("hash field")?;
            let value = decoder.cursor.string("hash value")?;
            Ok((field, value, expiry))
        })
    }

    /// Type 22 of Valkey 9.
    fn hash_valkey(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(10, "hash")?;
        self.fields(count, |decoder| {
            let field = decoder.cursor.string("hash field")?;
            let value = decoder.cursor.string("hash value")?;
            Ok((field, value, valkey_expiry(&mut decoder.cursor)?))
        })
    }

    /// Type 24: expiries count from the lowest.
    fn hash_metadata(&mut self) -> Result<Option<Value>, Damage> {
        let lowest = self.cursor.i64_le("hash, lowest expiry")?;
        let count = self.cursor.count(3, "hash")?;
        self.fields(count, |decoder| {
            let expiry = counted_expiry(&mut decoder.cursor, lowest.wrapping_sub(1))?;
            let field = decoder.cursor.string("hash field")?;
            let value = decoder.cursor.string("hash value")?;
            Ok((field, value, expiry))
        })
    }

    pub(super) fn fields(
        &mut self,
        count: usize,
        mut next: impl FnMut(&mut Self) -> Result<(Vec<u8>, Vec<u8>, Option<i64>), Damage>,
    ) -> Result<Option<Value>, Damage> {
        let mut fields = Vec::with_capacity(count.min(self.cursor.left() / 16));
        for _ in 0..count {
            let (field, value, expire_at_ms) = next(self)?;
            fields.push(HashField {
                field,
                value,
                expire_at_ms,
            });
        }
        let names = fields.iter().map(|field| Element::Str(&field.field));
        self.unique("hash", names, count)?;
        Ok((count > 0).then_some(Value::Hash(HashValue::Fields(fields))))
    }

    fn hash_listpack_ex(&mut self) -> Result<Option<Value>, Damage> {
        const READING: &str = "hash, listpack with expiry";
        let (start, pack) = self.listpack(READING)?;
        let len = pack.len();
        if !len.is_multiple_of(3) {
            let wanted = "a multiple of three elements";
            let found = len as u64;
            return Err(Damage::new(
                start,
                READING,
                Problem::Number { wanted, found },
            ));
        }
        unique(start, READING, pack.iter().step_by(3), len / 3)?;
        let mut before = 0;
        let mut in_order = true;
        for expiry in pack.iter().skip(2).step_by(3) {
            let Element::Int(at_ms @ 0..) = expiry else {
                let wanted = "an expiry in milliseconds, or 0";
                let found = expiry.to_vec();
                return Err(Damage::new(start, READING, Problem::Text { wanted, found }));
            };
            // No expiry sorts last.
            let rank = if at_ms == 0 { i64::MAX } else { at_ms };
            in_order &= before <= rank;
            before = rank;
        }
        if len == 0 {
            return Ok(None);
        }
        let hash = HashValue::ListpackEx(pack);
        let hash = match in_order {
            true => hash,
            false => HashValue::Fields(
                hash.fields()
                    .map(|field| HashField {
                        field: field.field.to_vec(),
                        value: field.value.to_vec(),
                        expire_at_ms: field.expire_at_ms,
                    })
                    .collect(),
            ),
        };
        Ok(Some(Value::Hash(hash)))
    }

    // Pieces.

    pub(super) fn text(&mut self, reading: &'static str) -> Result<(u64, Text<'a>), Damage> {
        let start = self.cursor.offset();
        Ok((start, self.cursor.text(reading)?))
    }

    /// A string of any form, borrowed where it is stored plainly, and where it starts.
    fn blob(&mut self, reading: &'static str) -> Result<(u64, Cow<'a, [u8]>), Damage> {
        match self.text(reading)? {
            (start, Text::Plain(bytes)) => Ok((start, Cow::Borrowed(bytes))),
            (start, text) => {
                let mut out = Vec::new();
                expand(start, reading, text, &mut out)?;
                Ok((start, Cow::Owned(out)))
            }
        }
    }

    pub(super) fn listpack(&mut self, reading: &'static str) -> Result<(u64, Listpack), Damage> {
        let (start, blob) = self.blob(reading)?;
        let pack = Listpack::from_bytes(blob.into_owned()).map_err(in_blob(start, reading))?;
        Ok((start, pack))
    }

    /// For collections of single elements.
    pub(super) fn unique<'e>(
        &self,
        reading: &'static str,
        elements: impl Iterator<Item = Element<'e>> + Clone,
        count: usize,
    ) -> Result<(), Damage> {
        match self.limits.check_duplicates {
            true => unique(0, reading, elements, count),
            false => Ok(()),
        }
    }
}

/// Builds list nodes of limited size from elements.
pub(crate) struct NodeBuilder {
    nodes: Vec<ListNode>,
    pack: Listpack,
    count: usize,
    bytes_max: usize,
}

impl NodeBuilder {
    pub(crate) fn new(bytes_max: usize) -> Self {
        NodeBuilder {
            nodes: Vec::new(),
            pack: Listpack::new(),
            count: 0,
            bytes_max,
        }
    }

    pub(crate) fn push(&mut self, element: Element<'_>) {
        let bytes = Listpack::entry_len(element);
        let full = self.pack.byte_len() + bytes > self.bytes_max;
        if self.count > 0 && (full || self.count == NODE_ELEMENTS_MAX) {
            self.close();
        }
        if Listpack::EMPTY_BYTES + bytes > self.bytes_max {
            self.nodes.push(ListNode::Plain(element.to_vec()));
        } else {
            self.pack.push_back(element);
            self.count += 1;
        }
    }

    fn close(&mut self) {
        if self.count > 0 {
            self.pack.shrink();
            self.nodes
                .push(ListNode::Packed(std::mem::take(&mut self.pack)));
            self.count = 0;
        }
    }

    pub(crate) fn finish(mut self) -> Vec<ListNode> {
        self.close();
        self.nodes
    }
}

fn list_value(nodes: Vec<ListNode>) -> Option<Value> {
    let any = list_elements(&nodes).next().is_some();
    any.then_some(Value::List(nodes))
}

/// A listpack with the elements of `list`, which is at most `CONVERTED_PACK_MAX` bytes.
fn pack_of(list: Ziplist<'_>) -> Listpack {
    let mut pack = Listpack::with_capacity(list.byte_len());
    for element in list.iter() {
        pack.push_back(match element {
            Element::Str(text) => Element::parse(text),
            number => number,
        });
    }
    pack.shrink();
    pack
}

/// Elements two by two.
#[derive(Clone)]
struct Pairs<I>(I);

impl<'e, I: Iterator<Item = Element<'e>>> Iterator for Pairs<I> {
    type Item = (Element<'e>, Element<'e>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

fn scored<'e>(
    start: u64,
    pairs: impl Iterator<Item = (Element<'e>, Element<'e>)>,
) -> Result<Vec<(Vec<u8>, f64)>, Damage> {
    pairs
        .map(|(member, score)| match score_of(score) {
            Some(number) => Ok((member.to_vec(), number)),
            None => {
                let problem = not_a_score(&score.to_vec());
                Err(Damage::new(start, "zset score", problem))
            }
        })
        .collect()
}

/// Whether `next` may stand behind `before` in a sorted set.
fn follows(before: (f64, Element<'_>), next: (f64, Element<'_>)) -> bool {
    before.0 < next.0
        || before.0 == next.0 && {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            before.1.text(&mut a) < next.1.text(&mut b)
        }
}

fn even(start: u64, reading: &'static str, len: usize) -> Result<(), Damage> {
    if len.is_multiple_of(2) {
        return Ok(());
    }
    let wanted = "an even number of elements";
    let found = len as u64;
    Err(Damage::new(
        start,
        reading,
        Problem::Number { wanted, found },
    ))
}

pub(super) fn unique<'e>(
    start: u64,
    reading: &'static str,
    elements: impl Iterator<Item = Element<'e>> + Clone,
    count: usize,
) -> Result<(), Damage> {
    match first_duplicate(elements, count) {
        None => Ok(()),
        Some(twice) => Err(Damage::new(start, reading, Problem::Duplicate(twice))),
    }
}

fn expand(
    start: u64,
    reading: &'static str,
    text: Text<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Damage> {
    text.append_to(out)
        .map_err(|lzf| Damage::new(start, reading, Problem::Lzf(lzf)))
}

fn in_blob(start: u64, reading: &'static str) -> impl Fn(crate::encoding::BlobError) -> Damage {
    move |error| Damage::new(start, reading, Problem::Blob(error))
}
