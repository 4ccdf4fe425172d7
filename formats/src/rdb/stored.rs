//! Values as they are stored, piece by piece: strings unpacked, packs still closed.
//!
//! This is the middle of three levels. `reader` hands out the bytes of a value (raw), here they come as elements and
//! packs (stored), `parts` opens the packs (data). Converters that keep encodings and reports about encodings use
//! this one. Pieces are found one at a time, so that a value need not be in memory as a whole.
//!
//! ```text
//! value = head, items × item, tail        head: what stands before the number of items, and that number
//! value = item                            types that are one string
//! ```

use super::decode_dragonfly::relative_expiry;
use super::shape::{self, Part as Shape, Walk};
use super::{Flavor, type_code};
use crate::encoding::listpack::Element;
use crate::encoding::stream::StreamId;
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Text};
use crate::value::{FieldRef, ModuleValue, SketchValue, Value, score_of};

/// A piece of a stored value.
#[derive(Debug, Clone)]
pub enum Stored<'a> {
    String(Element<'a>),
    ListElement(Element<'a>),
    SetMember {
        member: Element<'a>,
        /// Absolute Unix milliseconds.
        expire_at_ms: Option<i64>,
    },
    ZSetMember {
        member: Element<'a>,
        score: f64,
    },
    HashField(FieldRef<'a>),
    /// A whole collection, or a node of a list. Nothing in it has been looked at.
    Pack {
        encoding: Encoding,
        bytes: &'a [u8],
    },
    /// Entries of a stream: the id they count from, and a listpack that has not been looked at.
    StreamNode {
        master: StreamId,
        pack: &'a [u8],
    },
    /// Counters and groups of a stream, in the form of version 1 to 4.
    StreamTail {
        version: u8,
        raw: &'a [u8],
    },
    /// A value that has no pieces.
    Whole(Value),
}

/// How a pack is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Ziplist,
    Listpack,
    Intset,
    Zipmap,
    /// Not packed: the bytes are one element of a list.
    Plain,
}

/// Gives the pieces of the value stored in `raw`, which holds exactly that. Offsets in damage count from its start.
///
/// ```
/// use dfsnap_formats::error::Damage;
/// use dfsnap_formats::rdb::{Flavor, type_code};
/// use dfsnap_formats::rdb::stored::{Encoding, Stored, for_each_stored};
/// let raw = b"\x01\x02\x0b\x0b\0\0\0\x01\0\x82hi\x03\xff"; // a list of one node with one element
/// let mut seen = Vec::new();
/// for_each_stored(Flavor::Redis, type_code::LIST_QUICKLIST_2, raw, |piece| {
///     if let Stored::Pack { encoding, bytes } = piece {
///         seen.push((encoding, bytes.len()));
///     }
///     Ok::<(), Damage>(())
/// }).unwrap();
/// assert_eq!(seen, [(Encoding::Listpack, 11)]);
/// ```
pub fn for_each_stored<E: From<Damage>>(
    flavor: Flavor,
    type_code: u8,
    raw: &[u8],
    mut take: impl FnMut(Stored<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut pieces = Pieces::new(flavor, type_code)?;
    let mut cursor = Cursor::new(raw);
    pieces.all(&mut cursor, &mut Scratch::default(), &mut |piece, _| {
        take(piece)
    })?;
    Ok(cursor.finish("bytes behind the value")?)
}

/// Where strings are unpacked; one each for the strings of a piece.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub first: Vec<u8>,
    pub second: Vec<u8>,
}

/// Where a walk over the pieces of a value stands.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    flavor: Flavor,
    code: u8,
    state: State,
    /// Hash with field expiry, type 24: what expiries count from.
    lowest_expiry: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Items { left: u64 },
    Tail,
    Done,
}

pub(super) enum Step<'a> {
    Piece(Stored<'a>),
    /// Something was passed that is no piece.
    Moved,
    Done,
}

impl Pieces {
    /// For a type whose structure is known; see `shape`.
    pub fn new(flavor: Flavor, code: u8) -> Result<Self, Damage> {
        if shape::of_value(flavor, code).is_none() {
            let (wanted, found) = ("a type of value", u64::from(code));
            return Err(Damage::new(0, "type", Problem::Number { wanted, found }));
        }
        Ok(Pieces {
            flavor,
            code,
            state: State::Head,
            lowest_expiry: 0,
        })
    }

    /// Whether the next step gives an item, which ends where its own bytes say.
    #[inline]
    pub fn is_at_item(&self) -> bool {
        matches!(self.state, State::Items { left: 1.. })
    }

    /// Items that are to come.
    #[inline]
    pub fn items_left(&self) -> u64 {
        match self.state {
            State::Items { left } => left,
            _ => 0,
        }
    }

    /// So many items were taken by another way.
    #[inline]
    pub fn pass_items(&mut self, count: u64) {
        if let State::Items { left } = &mut self.state {
            *left -= count;
        }
    }

    /// Sets `walk` on what the next step needs to be there as a whole.
    pub fn arm(&self, walk: &mut Walk) {
        let layout = Layout::of(self.flavor, self.code);
        match (self.state, layout.item) {
            (State::Head, None) => walk.start(layout.head),
            (State::Head, Some(_)) => {
                walk.start(&[Shape::Len]);
                walk.push(layout.head, 1);
            }
            (State::Items { left: 1.. }, Some(item)) => walk.start(item),
            (State::Tail, _) => walk.start(layout.tail),
            _ => walk.start(&[]),
        }
    }

    /// Sets `walk` on everything that is left.
    pub fn arm_rest(&self, walk: &mut Walk) {
        let layout = Layout::of(self.flavor, self.code);
        match (self.state, layout.item) {
            (State::Head, _) => {
                walk.start(shape::of_value(self.flavor, self.code).unwrap_or_default());
            }
            (State::Items { left }, Some(item)) => {
                walk.start(layout.tail);
                walk.push(item, left);
            }
            (State::Tail, _) => walk.start(layout.tail),
            _ => walk.start(&[]),
        }
    }

    /// Takes all pieces of a value that is here, each with the offset of its start.
    #[inline]
    pub fn all<E: From<Damage>>(
        &mut self,
        cursor: &mut Cursor<'_>,
        scratch: &mut Scratch,
        take: &mut impl FnMut(Stored<'_>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let start = cursor.offset();
            match self.step(cursor, scratch)? {
                Step::Piece(piece) => take(piece, start)?,
                Step::Moved => {}
                Step::Done => return Ok(()),
            }
        }
    }

    #[inline]
    pub fn step<'c: 's, 's>(
        &mut self,
        cursor: &mut Cursor<'c>,
        scratch: &'s mut Scratch,
    ) -> Result<Step<'s>, Damage> {
        match self.state {
            State::Items { left: 1.. } => {
                if let State::Items { left } = &mut self.state {
                    *left -= 1;
                }
                self.item(cursor, scratch).map(Step::Piece)
            }
            State::Items { left: 0 } => {
                self.state = match Layout::of(self.flavor, self.code).tail {
                    [] => State::Done,
                    _ => State::Tail,
                };
                Ok(Step::Moved)
            }
            State::Head => self.head(cursor, scratch),
            State::Tail => {
                self.state = State::Done;
                let raw = cursor.rest();
                cursor.take(raw.len() as u64, "stream, counters and groups")?;
                let version = stream_version(self.code);
                Ok(Step::Piece(Stored::StreamTail { version, raw }))
            }
            State::Done => Ok(Step::Done),
        }
    }

    fn head<'c: 's, 's>(
        &mut self,
        cursor: &mut Cursor<'c>,
        scratch: &'s mut Scratch,
    ) -> Result<Step<'s>, Damage> {
        if Layout::of(self.flavor, self.code).item.is_none() {
            self.state = State::Done;
            return self.single(cursor, scratch).map(Step::Piece);
        }
        if self.code == type_code::HASH_METADATA {
            self.lowest_expiry = cursor.i64_le("hash, lowest expiry")?;
        }
        let left = cursor.len(type_code::name(self.code))?;
        self.state = State::Items { left };
        Ok(Step::Moved)
    }

    /// The one piece of a type that has no items.
    fn single<'c: 's, 's>(
        &self,
        cursor: &mut Cursor<'c>,
        scratch: &'s mut Scratch,
    ) -> Result<Stored<'s>, Damage> {
        let encoding = match self.code {
            type_code::STRING => {
                return element(cursor, &mut scratch.first, "string").map(Stored::String);
            }
            type_code::MODULE_2 => {
                let module = ModuleValue::read(cursor)?;
                return Ok(Stored::Whole(Value::Module(module)));
            }
            type_code::JSON => {
                let text = cursor.string("json")?;
                return Ok(Stored::Whole(Value::Json(text)));
            }
            type_code::HASH_LISTPACK_EX => {
                cursor.i64_le("hash, lowest expiry")?;
                Encoding::Listpack
            }
            code => match encoding_of(code) {
                Some(encoding) => encoding,
                None => {
                    let sketch = SketchValue::read(code, cursor)?;
                    return Ok(Stored::Whole(Value::Sketch(sketch)));
                }
            },
        };
        let bytes = bytes(cursor, &mut scratch.first, type_code::name(self.code))?;
        Ok(Stored::Pack { encoding, bytes })
    }

    #[inline]
    fn item<'c: 's, 's>(
        &self,
        cursor: &mut Cursor<'c>,
        scratch: &'s mut Scratch,
    ) -> Result<Stored<'s>, Damage> {
        let Scratch { first, second } = scratch;
        Ok(match self.code {
            type_code::LIST => Stored::ListElement(element(cursor, first, "list element")?),
            type_code::SET => Stored::SetMember {
                member: element(cursor, first, "set member")?,
                expire_at_ms: None,
            },
            type_code::SET_EXPIRING => Stored::SetMember {
                member: element(cursor, first, "set member")?,
                expire_at_ms: relative_expiry(cursor, "set member expiry")?,
            },
            type_code::ZSET | type_code::ZSET_2 => Stored::ZSetMember {
                member: element(cursor, first, "zset member")?,
                score: score(cursor, self.code)?,
            },
            type_code::LIST_QUICKLIST => Stored::Pack {
                encoding: Encoding::Ziplist,
                bytes: bytes(cursor, first, "list, ziplist")?,
            },
            type_code::LIST_QUICKLIST_2 => Stored::Pack {
                encoding: container(cursor)?,
                bytes: bytes(cursor, first, "list, node")?,
            },
            type_code::STREAM | type_code::STREAM_2 | type_code::STREAM_3 | type_code::STREAM_4 => {
                Stored::StreamNode {
                    master: node_id(cursor, second)?,
                    pack: bytes(cursor, first, "stream node")?,
                }
            }
            type_code::HASH => Stored::HashField(FieldRef {
                field: element(cursor, first, "hash field")?,
                value: element(cursor, second, "hash value")?,
                expire_at_ms: None,
            }),
            _ => Stored::HashField(self.field(cursor, first, second)?),
        })
    }

    /// A field of any hash that is not packed; the place of its expiry differs.
    fn field<'c: 's, 's>(
        &self,
        cursor: &mut Cursor<'c>,
        first: &'s mut Vec<u8>,
        second: &'s mut Vec<u8>,
    ) -> Result<FieldRef<'s>, Damage> {
        const EXPIRY: &str = "hash field expiry";
        let before = match (self.code, self.flavor) {
            (type_code::HASH_METADATA, _) => {
                counted_expiry(cursor, self.lowest_expiry.wrapping_sub(1))?
            }
            (type_code::HASH_22, Flavor::Redis | Flavor::Dragonfly) => counted_expiry(cursor, 0)?,
            _ => None,
        };
        let field = element(cursor, first, "hash field")?;
        let value = element(cursor, second, "hash value")?;
        let expire_at_ms = match (self.code, self.flavor) {
            (type_code::HASH_22, Flavor::Valkey) => valkey_expiry(cursor)?,
            (type_code::HASH_EXPIRING, _) => relative_expiry(cursor, EXPIRY)?,
            _ => before,
        };
        Ok(FieldRef {
            field,
            value,
            expire_at_ms,
        })
    }
}

/// Of the types that are one pack and nothing else.
#[inline]
pub(super) fn encoding_of(code: u8) -> Option<Encoding> {
    Some(match code {
        type_code::HASH_ZIPMAP => Encoding::Zipmap,
        type_code::SET_INTSET => Encoding::Intset,
        type_code::LIST_ZIPLIST | type_code::ZSET_ZIPLIST | type_code::HASH_ZIPLIST => {
            Encoding::Ziplist
        }
        type_code::HASH_LISTPACK
        | type_code::ZSET_LISTPACK
        | type_code::SET_LISTPACK
        | type_code::HASH_LISTPACK_EX_PRE_GA => Encoding::Listpack,
        _ => return None,
    })
}

/// Instead of an expiry, in type 22 of Valkey 9.
pub(super) const VALKEY_NO_EXPIRY: i64 = -1;

/// How a type is built: `shape`'s parts, around the first that repeats.
struct Layout {
    head: &'static [Shape],
    item: Option<&'static [Shape]>,
    tail: &'static [Shape],
}

impl Layout {
    fn of(flavor: Flavor, code: u8) -> Layout {
        let parts = shape::of_value(flavor, code).unwrap_or_default();
        let repeats = |part: &Shape| matches!(part, Shape::Repeat(_));
        match parts.iter().position(repeats) {
            Some(at) if !is_sketch(code) => Layout {
                head: &parts[..at],
                item: match &parts[at] {
                    Shape::Repeat(item) => Some(item),
                    _ => None,
                },
                tail: &parts[at + 1..],
            },
            _ => Layout {
                head: parts,
                item: None,
                tail: &[],
            },
        }
    }
}

/// Whether values of the type are a number of items that end where their own bytes say.
pub(super) fn has_items(flavor: Flavor, code: u8) -> bool {
    Layout::of(flavor, code).item.is_some()
}

fn is_sketch(code: u8) -> bool {
    (type_code::BLOOM..=type_code::CUCKOO).contains(&code)
}

fn stream_version(code: u8) -> u8 {
    match code {
        type_code::STREAM => 1,
        type_code::STREAM_2 => 2,
        type_code::STREAM_3 => 3,
        _ => 4,
    }
}

/// A string of any form; `scratch` is where a packed one is unpacked.
#[inline(always)]
pub(super) fn element<'c: 's, 's>(
    cursor: &mut Cursor<'c>,
    scratch: &'s mut Vec<u8>,
    reading: &'static str,
) -> Result<Element<'s>, Damage> {
    let start = cursor.offset();
    Ok(match cursor.text(reading)? {
        Text::Plain(bytes) => Element::Str(bytes),
        Text::Int(number) => Element::Int(i64::from(number)),
        text => {
            scratch.clear();
            text.append_to(scratch)
                .map_err(|lzf| Damage::new(start, reading, Problem::Lzf(lzf)))?;
            Element::Str(scratch)
        }
    })
}

/// A string of any form as bytes.
#[inline]
pub(super) fn bytes<'c: 's, 's>(
    cursor: &mut Cursor<'c>,
    scratch: &'s mut Vec<u8>,
    reading: &'static str,
) -> Result<&'s [u8], Damage> {
    let start = cursor.offset();
    Ok(match cursor.text(reading)? {
        Text::Plain(bytes) => bytes,
        text => {
            scratch.clear();
            text.append_to(scratch)
                .map_err(|lzf| Damage::new(start, reading, Problem::Lzf(lzf)))?;
            scratch
        }
    })
}

pub(super) fn node_id<'c: 's, 's>(
    cursor: &mut Cursor<'c>,
    scratch: &'s mut Vec<u8>,
) -> Result<StreamId, Damage> {
    const READING: &str = "stream, node id";
    let start = cursor.offset();
    let id = bytes(cursor, scratch, READING)?;
    <[u8; 16]>::try_from(id)
        .map(StreamId::from_bytes)
        .map_err(|_| {
            let (wanted, found) = (16, id.len() as u64);
            Damage::new(start, READING, Problem::Differs { wanted, found })
        })
}

/// What a node of a list holds.
pub(super) fn container(cursor: &mut Cursor<'_>) -> Result<Encoding, Damage> {
    const PLAIN: u64 = 1;
    const PACKED: u64 = 2;
    let start = cursor.clone();
    match cursor.len("list, container")? {
        PLAIN => Ok(Encoding::Plain),
        PACKED => Ok(Encoding::Listpack),
        found => {
            let wanted = "container 1 (plain) or 2 (packed)";
            Err(start.damage("list, container", Problem::Number { wanted, found }))
        }
    }
}

/// The score of a member of type 3 or 5.
#[inline]
pub(super) fn score(cursor: &mut Cursor<'_>, code: u8) -> Result<f64, Damage> {
    let start = cursor.clone();
    let score = match code {
        type_code::ZSET_2 => cursor.f64_le("zset score")?,
        _ => match cursor.u8("zset score")? {
            253 => f64::NAN,
            254 => f64::INFINITY,
            255 => f64::NEG_INFINITY,
            len => {
                let text = cursor.take(u64::from(len), "zset score")?;
                score_of(Element::Str(text))
                    .ok_or_else(|| start.damage("zset score", not_a_score(text)))?
            }
        },
    };
    match score.is_nan() {
        false => Ok(score),
        true => Err(start.damage("zset score", not_a_score(b"nan"))),
    }
}

pub(super) fn not_a_score(text: &[u8]) -> Problem {
    Problem::Text {
        wanted: "a number",
        found: text.to_vec(),
    }
}

/// Milliseconds, never negative, or -1 = none.
pub(super) fn valkey_expiry(cursor: &mut Cursor<'_>) -> Result<Option<i64>, Damage> {
    let start = cursor.clone();
    match cursor.i64_le("hash field expiry")? {
        VALKEY_NO_EXPIRY => Ok(None),
        at_ms @ 0.. => Ok(Some(at_ms)),
        found => {
            let wanted = "a time of 0 or more, or -1";
            let found = found as u64;
            Err(start.damage("hash field expiry", Problem::Number { wanted, found }))
        }
    }
}

/// A number, 0 = none, and `base` before it. Expiries of fields are never negative.
pub(super) fn counted_expiry(cursor: &mut Cursor<'_>, base: i64) -> Result<Option<i64>, Damage> {
    let start = cursor.clone();
    let found = cursor.len("hash field expiry")?;
    if found == 0 {
        return Ok(None);
    }
    match base.checked_add_unsigned(found) {
        Some(at_ms) if at_ms >= 0 => Ok(Some(at_ms)),
        _ => {
            let wanted = "a time that fits 63 bits";
            let problem = Problem::Number { wanted, found };
            Err(start.damage("hash field expiry", problem))
        }
    }
}
