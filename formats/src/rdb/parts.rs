//! Stored values as parts: the last of the three levels, with packs opened and checked.
//!
//! Whoever must not hold a whole value (printers, digests, comparisons, reports) walks it with `PartWalk`. The checks
//! are those of `decode`, which makes values to be kept. Members that are there twice are found by their hashes, eight
//! bytes each, as far as the caller grants memory for that.

use super::decode::Decoder;
use super::decode_stream::NodeChain;
use super::stored::{
    Encoding, Pieces, Scratch, Stored, bytes, container, element, encoding_of, not_a_score, score,
};
use super::{Flavor, type_code};
use crate::encoding::intset;
use crate::encoding::listpack::{Checking, Element};
use crate::encoding::stream::CheckingEntries;
use crate::encoding::unique::Hashes;
use crate::encoding::ziplist::Ziplist;
use crate::encoding::zipmap::Zipmap;
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Text};
use crate::lzf;
use crate::parts::Part;
use crate::value::{FieldRef, Value, score_of};

/// How far members and fields are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Found in collections of at most so many members; eight bytes each. Larger ones pass unchecked.
    FindUpTo(usize),
    /// Found in all, whatever the memory.
    Find,
}

impl Default for Duplicates {
    /// Half a million members: four megabytes of hashes, and eight while they are compared.
    fn default() -> Self {
        Duplicates::FindUpTo(1 << 19)
    }
}

/// Walks values part by part. Memory is kept from one value to the next.
///
/// ```
/// use dfsnap_formats::error::Damage;
/// use dfsnap_formats::parts::Part;
/// use dfsnap_formats::rdb::{Flavor, type_code};
/// use dfsnap_formats::rdb::parts::PartWalk;
/// let mut walk = PartWalk::default();
/// let mut total = 0.0;
/// let raw = b"\x02\x01a\0\0\0\0\0\0\xf0\x3f\x01b\0\0\0\0\0\0\0\x40"; // a sorted set with the scores 1 and 2
/// walk.value(Flavor::Redis, type_code::ZSET_2, raw, |part| {
///     if let Part::ZSetMember { score, .. } = part {
///         total += score;
///     }
///     Ok::<(), Damage>(())
/// }).unwrap();
/// assert_eq!(total, 3.0);
/// ```
#[derive(Debug, Default)]
pub struct PartWalk {
    pub(super) scratch: Scratch,
    pub(super) opening: Opening,
}

impl PartWalk {
    pub fn new(duplicates: Duplicates) -> Self {
        PartWalk {
            scratch: Scratch::default(),
            opening: Opening {
                duplicates,
                ..Opening::default()
            },
        }
    }

    /// Gives the parts of the value stored in `raw`, which holds exactly that. No part at all: an empty collection,
    /// which servers skip. Offsets in damage count from the start of `raw`.
    pub fn value<E: From<Damage>>(
        &mut self,
        flavor: Flavor,
        type_code: u8,
        raw: &[u8],
        mut take: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.opening.only_checks = false;
        self.walk(flavor, type_code, raw, &mut take)
    }

    /// All checks of `value`, and what they came to. Text that no check looks at is not unpacked, which is most of what there is.
    ///
    /// ```
    /// use dfsnap_formats::rdb::parts::{Counts, PartWalk};
    /// use dfsnap_formats::rdb::{Flavor, type_code};
    /// let raw = b"\x02\x01a\x01b"; // a list of two elements
    /// let counts = PartWalk::default().check(Flavor::Redis, type_code::LIST, raw).unwrap();
    /// assert_eq!(counts, Counts { parts: 2, ..Counts::default() });
    /// ```
    pub fn check(&mut self, flavor: Flavor, type_code: u8, raw: &[u8]) -> Result<Counts, Damage> {
        let mut counts = Counts::default();
        self.opening.only_checks = true;
        self.walk(flavor, type_code, raw, &mut |part| {
            counts.take(&part);
            Ok::<(), Damage>(())
        })?;
        counts.parts += self.opening.entries;
        counts.stream_entries += self.opening.entries;
        Ok(counts)
    }

    #[inline]
    fn walk<E: From<Damage>>(
        &mut self,
        flavor: Flavor,
        type_code: u8,
        raw: &[u8],
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = Cursor::new(raw);
        self.opening.begin(flavor, type_code);
        let PartWalk { scratch, opening } = self;
        if opening.loose(&mut cursor, scratch, take)? {
            cursor.finish("bytes behind the value")?;
            return Ok(opening.finish()?);
        }
        let mut pieces = Pieces::new(flavor, type_code)?;
        pieces.all(&mut cursor, scratch, &mut |piece, start| {
            opening.open(piece, start, take, E::from)
        })?;
        cursor.finish("bytes behind the value")?;
        Ok(self.opening.finish()?)
    }
}

/// What the parts of a value came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub parts: u64,
    pub stream_entries: u64,
    /// The length that a stream says it has.
    pub stream_length: Option<u64>,
}

impl Counts {
    #[inline]
    pub fn take(&mut self, part: &Part<'_>) {
        self.parts += 1;
        match part {
            Part::StreamEntry(_) => self.stream_entries += 1,
            Part::StreamEnd(stream) => self.stream_length = Some(stream.length),
            _ => {}
        }
    }
}

/// What has to be remembered from piece to piece of one value.
#[derive(Debug, Default)]
pub(super) struct Opening {
    duplicates: Duplicates,
    /// Nobody wants to see the parts: the text of packed strings is there only where it is compared, and the entries of a stream are counted.
    pub only_checks: bool,
    /// Of a stream, with `only_checks`: entries that were no parts.
    entries: u64,
    flavor: Option<Flavor>,
    code: u8,
    hashes: Hashes,
    /// Members that were hashed, and those that no longer were.
    members: u64,
    nodes: NodeChain,
}

impl Opening {
    pub fn begin(&mut self, flavor: Flavor, code: u8) {
        self.flavor = Some(flavor);
        self.code = code;
        self.hashes.clear();
        self.members = 0;
        self.entries = 0;
        self.nodes = NodeChain::default();
    }

    /// The parts of a value of the types that are one string, one pack, or a number of nodes or loose elements and nothing else. Most values
    /// of most dumps are, so that they take no way through pieces. False: another type, of which nothing was taken.
    #[inline]
    fn loose<E: From<Damage>>(
        &mut self,
        cursor: &mut Cursor<'_>,
        scratch: &mut Scratch,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let only_checks = self.only_checks;
        match self.code {
            type_code::STRING => {
                let element = passing(cursor, &mut scratch.first, "string", only_checks)?;
                take(Part::Bytes(element.text(&mut itoa::Buffer::new())))?;
            }
            type_code::LIST => {
                for _ in 0..cursor.len("list")? {
                    let element = match cursor.short_text() {
                        Some(bytes) => Element::Str(bytes),
                        None => passing(cursor, &mut scratch.first, "list element", only_checks)?,
                    };
                    take(Part::ListElement(element))?;
                }
            }
            type_code::SET => {
                for _ in 0..cursor.len("set")? {
                    let member = match cursor.short_text() {
                        Some(bytes) => Element::Str(bytes),
                        None => element(cursor, &mut scratch.first, "set member")?,
                    };
                    self.note(member);
                    take(Part::SetMember {
                        member,
                        expire_at_ms: None,
                    })?;
                }
            }
            type_code::ZSET_2 => {
                for _ in 0..cursor.len("zset2")? {
                    let member = match cursor.short_text() {
                        Some(bytes) => Element::Str(bytes),
                        None => element(cursor, &mut scratch.first, "zset member")?,
                    };
                    let score = score(cursor, type_code::ZSET_2)?;
                    self.note(member);
                    take(Part::ZSetMember { member, score })?;
                }
            }
            type_code::HASH => {
                for _ in 0..cursor.len("hash")? {
                    let field = match cursor.short_text() {
                        Some(bytes) => Element::Str(bytes),
                        None => element(cursor, &mut scratch.first, "hash field")?,
                    };
                    let value = match cursor.short_text() {
                        Some(bytes) => Element::Str(bytes),
                        None => passing(cursor, &mut scratch.second, "hash value", only_checks)?,
                    };
                    self.note(field);
                    take(Part::HashField(FieldRef {
                        field,
                        value,
                        expire_at_ms: None,
                    }))?;
                }
            }
            type_code::LIST_QUICKLIST_2 => {
                for _ in 0..cursor.len(type_code::name(self.code))? {
                    let start = cursor.offset();
                    let encoding = container(cursor)?;
                    let node = bytes(cursor, &mut scratch.first, "list, node")?;
                    self.pack(encoding, node, start, take, E::from)?;
                }
            }
            code => {
                let Some(encoding) = encoding_of(code) else {
                    return Ok(false);
                };
                let pack = bytes(cursor, &mut scratch.first, type_code::name(code))?;
                self.pack(encoding, pack, 0, take, E::from)?;
            }
        }
        Ok(true)
    }

    /// Takes loose items whose strings are short and plain, as most are, one after another and at most `most`. It stops before the first that
    /// is another, is damaged, or is not here as a whole. The answer is how many were taken.
    #[inline]
    pub fn short_items<E>(
        &mut self,
        cursor: &mut Cursor<'_>,
        most: u64,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> (u64, Result<(), E>) {
        match self.code {
            type_code::LIST => each(
                cursor,
                most,
                |cursor| cursor.short_text(),
                |element| take(Part::ListElement(Element::Str(element))),
            ),
            type_code::SET => each(
                cursor,
                most,
                |cursor| cursor.short_text(),
                |member| {
                    let member = Element::Str(member);
                    self.note(member);
                    take(Part::SetMember {
                        member,
                        expire_at_ms: None,
                    })
                },
            ),
            type_code::ZSET_2 => each(
                cursor,
                most,
                |cursor| {
                    let member = cursor.short_text()?;
                    let score = cursor.f64_le("zset score").ok()?;
                    (!score.is_nan()).then_some((member, score))
                },
                |(member, score)| {
                    let member = Element::Str(member);
                    self.note(member);
                    take(Part::ZSetMember { member, score })
                },
            ),
            type_code::HASH => each(
                cursor,
                most,
                |cursor| Some((cursor.short_text()?, cursor.short_text()?)),
                |(field, value)| {
                    let (field, value) = (Element::Str(field), Element::Str(value));
                    self.note(field);
                    take(Part::HashField(FieldRef {
                        field,
                        value,
                        expire_at_ms: None,
                    }))
                },
            ),
            _ => (0, Ok(())),
        }
    }

    /// The parts of one piece, which starts at `start`. `damaged` makes the error for what is wrong with it.
    #[inline]
    pub fn open<E>(
        &mut self,
        piece: Stored<'_>,
        start: u64,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
        damaged: impl Fn(Damage) -> E,
    ) -> Result<(), E> {
        match piece {
            Stored::String(element) => take(Part::Bytes(element.text(&mut itoa::Buffer::new()))),
            Stored::ListElement(element) => take(Part::ListElement(element)),
            Stored::SetMember {
                member,
                expire_at_ms,
            } => {
                self.note(member);
                take(Part::SetMember {
                    member,
                    expire_at_ms,
                })
            }
            Stored::ZSetMember { member, score } => {
                self.note(member);
                take(Part::ZSetMember { member, score })
            }
            Stored::HashField(field) => {
                self.note(field.field);
                take(Part::HashField(field))
            }
            Stored::Pack { encoding, bytes } => self.pack(encoding, bytes, start, take, damaged),
            Stored::StreamNode { master, pack } => {
                if self.only_checks {
                    self.entries += self.nodes.add(master, pack, start).map_err(damaged)?;
                    return Ok(());
                }
                self.nodes.begin(master, start).map_err(&damaged)?;
                let in_node = |(reading, problem)| damaged(Damage::new(start, reading, problem));
                let mut entries = CheckingEntries::new(master, pack).map_err(in_node)?;
                while let Some(entry) = entries.next_live().map_err(in_node)? {
                    take(Part::StreamEntry(entry))?;
                }
                let ended = self.nodes.end(entries.finish(), start);
                ended.map(|_| ()).map_err(&damaged)
            }
            Stored::StreamTail { version, raw } => {
                let mut decoder = Decoder::at(raw);
                let tail = decoder
                    .stream_tail(version, &self.nodes)
                    .and_then(|tail| decoder.cursor.finish("stream").map(|()| tail))
                    .map_err(|damage| damaged(damage.moved(start)))?;
                take(Part::StreamEnd(&tail))
            }
            Stored::Whole(value) => {
                check_whole(&value).map_err(|damage| damaged(damage.moved(start)))?;
                take(Part::Whole(&value))
            }
        }
    }

    #[inline]
    fn note(&mut self, member: Element<'_>) {
        self.members += 1;
        match self.duplicates {
            Duplicates::FindUpTo(most) if self.hashes.len() >= most => {}
            _ => self.hashes.add(member),
        }
    }

    /// The end of a value: no member may have been there twice.
    pub fn finish(&mut self) -> Result<(), Damage> {
        let count = self.members;
        if self.hashes.len() as u64 == count && self.hashes.repeat() {
            let reading = type_code::name(self.code);
            return Err(Damage::new(0, reading, Problem::DuplicateAmong { count }));
        }
        Ok(())
    }

    fn pack<E>(
        &mut self,
        encoding: Encoding,
        bytes: &[u8],
        start: u64,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
        damaged: impl Fn(Damage) -> E,
    ) -> Result<(), E> {
        let reading = type_code::name(self.code);
        match encoding {
            Encoding::Plain if bytes.is_empty() => {
                let (wanted, found) = (1, 0);
                let problem = Problem::Differs { wanted, found };
                Err(damaged(Damage::new(start, "list, plain node", problem)))
            }
            Encoding::Plain => take(Part::ListElement(Element::Str(bytes))),
            Encoding::Intset => {
                let members = intset::members(bytes)
                    .map_err(in_blob(start, reading))
                    .map_err(&damaged)?;
                if members.len() == 0 {
                    let (wanted, found) = (1, 0);
                    let problem = Problem::Differs { wanted, found };
                    return Err(damaged(Damage::new(start, reading, problem)));
                }
                // In ascending order: none can be there twice.
                members.map(set_member).try_for_each(take)
            }
            Encoding::Zipmap => {
                let map = Zipmap::new(bytes)
                    .map_err(in_blob(start, reading))
                    .map_err(damaged)?;
                map.iter().try_for_each(|(field, value)| {
                    self.note(Element::Str(field));
                    take(Part::HashField(FieldRef {
                        field: Element::Str(field),
                        value: Element::Str(value),
                        expire_at_ms: None,
                    }))
                })
            }
            Encoding::Ziplist => {
                let list = Ziplist::new(bytes)
                    .map_err(in_blob(start, reading))
                    .map_err(&damaged)?;
                match self.elements(list.iter(), take, |problem| {
                    damaged(Damage::new(start, reading, problem))
                })? {
                    true => Ok(()),
                    false => Err(damaged(self.broken_group(start))),
                }
            }
            Encoding::Listpack => {
                let pack = Checking::new(bytes);
                let mut pack = pack.map_err(in_blob(start, reading)).map_err(&damaged)?;
                let is_whole = self.elements(&mut pack, take, |problem| {
                    damaged(Damage::new(start, reading, problem))
                })?;
                let ended = pack.finish().map_err(in_blob(start, reading));
                match ended.map_err(&damaged) {
                    Ok(()) if !is_whole => Err(damaged(self.broken_group(start))),
                    ended => ended,
                }
            }
        }
    }

    /// The elements of a list in packed form, by what they mean in this type. False: they ended inside a group of those
    /// that belong together.
    #[inline]
    fn elements<'e, E>(
        &mut self,
        mut elements: impl Iterator<Item = Element<'e>>,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
        damage: impl Fn(Problem) -> E,
    ) -> Result<bool, E> {
        match self.code {
            type_code::SET_LISTPACK => {
                for member in elements {
                    self.note(member);
                    take(Part::SetMember {
                        member,
                        expire_at_ms: None,
                    })?;
                }
            }
            type_code::ZSET_ZIPLIST | type_code::ZSET_LISTPACK => {
                while let Some(member) = elements.next() {
                    let Some(score) = elements.next() else {
                        return Ok(false);
                    };
                    self.note(member);
                    let Some(number) = score_of(score) else {
                        return Err(damage(not_a_score(&score.to_vec())));
                    };
                    take(Part::ZSetMember {
                        member,
                        score: number,
                    })?;
                }
            }
            type_code::HASH_ZIPLIST | type_code::HASH_LISTPACK => {
                while let Some(field) = elements.next() {
                    let Some(value) = elements.next() else {
                        return Ok(false);
                    };
                    self.note(field);
                    take(Part::HashField(FieldRef {
                        field,
                        value,
                        expire_at_ms: None,
                    }))?;
                }
            }
            type_code::HASH_LISTPACK_EX | type_code::HASH_LISTPACK_EX_PRE_GA => {
                while let Some(field) = elements.next() {
                    let (Some(value), Some(expiry)) = (elements.next(), elements.next()) else {
                        return Ok(false);
                    };
                    self.note(field);
                    let expire_at_ms = packed_expiry(expiry).map_err(&damage)?;
                    take(Part::HashField(FieldRef {
                        field,
                        value,
                        expire_at_ms,
                    }))?;
                }
            }
            _ => {
                for element in elements {
                    take(Part::ListElement(element))?;
                }
            }
        }
        Ok(true)
    }

    /// The damage of a pack whose elements end inside a group.
    fn broken_group(&self, start: u64) -> Damage {
        let (wanted, size) = match self.code {
            type_code::HASH_LISTPACK_EX | type_code::HASH_LISTPACK_EX_PRE_GA => {
                ("a multiple of three elements", 3)
            }
            _ => ("an even number of elements", 2),
        };
        let found = self.members * size + 1;
        let reading = type_code::name(self.code);
        Damage::new(start, reading, Problem::Number { wanted, found })
    }
}

/// Reads items as long as `read` knows them, at most `most`, and moves the cursor behind each; how many it was.
#[inline(always)]
fn each<'c, T, E>(
    cursor: &mut Cursor<'c>,
    most: u64,
    read: impl Fn(&mut Cursor<'c>) -> Option<T>,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> (u64, Result<(), E>) {
    let mut count = 0;
    while count < most {
        let mut next = cursor.clone();
        let Some(item) = read(&mut next) else { break };
        *cursor = next;
        count += 1;
        if let Err(error) = take(item) {
            return (count, Err(error));
        }
    }
    (count, Ok(()))
}

/// An element that is not compared with others. With `only_checks` a packed one is checked and comes without its text.
#[inline(always)]
fn passing<'c: 's, 's>(
    cursor: &mut Cursor<'c>,
    scratch: &'s mut Vec<u8>,
    reading: &'static str,
    only_checks: bool,
) -> Result<Element<'s>, Damage> {
    let start = cursor.clone();
    match cursor.text(reading)? {
        Text::Plain(bytes) => Ok(Element::Str(bytes)),
        Text::Int(number) => Ok(Element::Int(i64::from(number))),
        Text::Packed(bytes, len) if only_checks => match lzf::check(bytes, len) {
            Ok(()) => Ok(Element::Str(&[])),
            Err(error) => Err(start.damage(reading, Problem::Lzf(error))),
        },
        Text::Packed(bytes, len) => {
            scratch.clear();
            match lzf::expand(bytes, len, scratch) {
                Ok(()) => Ok(Element::Str(scratch)),
                Err(error) => Err(start.damage(reading, Problem::Lzf(error))),
            }
        }
    }
}

fn set_member(number: i64) -> Part<'static> {
    Part::SetMember {
        member: Element::Int(number),
        expire_at_ms: None,
    }
}

/// The expiry of a field in a pack: an integer, 0 = none.
fn packed_expiry(element: Element<'_>) -> Result<Option<i64>, Problem> {
    match element {
        Element::Int(0) => Ok(None),
        Element::Int(at_ms @ 1..) => Ok(Some(at_ms)),
        other => {
            let wanted = "an expiry in milliseconds, or 0";
            let found = other.to_vec();
            Err(Problem::Text { wanted, found })
        }
    }
}

/// Values without pieces are opened by those who know them; here only what `decode` checks as well.
fn check_whole(value: &Value) -> Result<(), Damage> {
    match value {
        Value::Json(text) if text.is_empty() => {
            let (wanted, found) = (1, 0);
            Err(Damage::new(0, "json", Problem::Differs { wanted, found }))
        }
        _ => Ok(()),
    }
}

fn in_blob(start: u64, reading: &'static str) -> impl Fn(crate::encoding::BlobError) -> Damage {
    move |error| Damage::new(start, reading, Problem::Blob(error))
}
