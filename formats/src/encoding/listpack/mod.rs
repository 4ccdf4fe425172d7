//! Listpack: a list of strings and integers in one run of bytes.
//!
//! The keyspace keeps small lists, hashes, sets and sorted sets in it, and every stream node; the readers and
//! writers of dumps copy it whole.
//!
//! ```text
//! total u32 LE | count u16 LE, 65535 = unknown | entry* | 0xFF
//! entry = encoding and data | backlen
//! 0xxxxxxx                 0..=127             1110nnnn + 1     string, 12-bit length, high part first
//! 10nnnnnn                 string of n <= 63   F0 + u32 LE      string
//! 110xxxxx + 1             13-bit signed       F1 F2 F3 F4      i16, i24, i32, i64 LE
//! ```
//! backlen = size of encoding and data, base 128, most significant group first; all but its first byte have the top
//! bit set. Its width has its own limits (see `backlen_width`), which are not those of 7-bit groups.
//!
//! Invariants
//! - `bytes` is a sound listpack: total, count, every backlen and the end mark agree.
//! - What this type writes is what Redis writes: the shortest form, and text that is the canonical decimal of an i64
//!   as an integer. Packs from outside may hold longer forms; they stay as they came.

mod entry;
mod view;

use super::{BlobError, canonical_int, size_class};
use entry::{decode, encode, entry_before, entry_len};

pub use entry::check;
pub use view::{Checking, Packed};

const HEADER: usize = 6;
const END: u8 = 0xFF;
const COUNT_UNKNOWN: u16 = u16::MAX;

/// One element. Integers stand for their decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element<'a> {
    Str(&'a [u8]),
    Int(i64),
}

impl<'a> Element<'a> {
    /// The element that `text` is stored as.
    pub fn parse(text: &'a [u8]) -> Self {
        canonical_int(text).map_or(Element::Str(text), Element::Int)
    }

    /// The text of the element; `buffer` is where an integer is printed.
    pub fn text<'b>(self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Element::Str(bytes) => bytes,
            Element::Int(number) => buffer.format(number).as_bytes(),
        }
    }

    pub fn to_vec(self) -> Vec<u8> {
        self.text(&mut itoa::Buffer::new()).to_vec()
    }

    pub fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(&mut itoa::Buffer::new()));
    }

    /// Whether `text` is the text of this element, however it is stored.
    pub fn eq_bytes(self, text: &[u8]) -> bool {
        match self {
            Element::Str(bytes) => bytes == text,
            Element::Int(number) => canonical_int(text) == Some(number),
        }
    }

    /// Length of the text in bytes.
    pub fn text_len(self) -> usize {
        match self {
            Element::Str(bytes) => bytes.len(),
            Element::Int(number) => itoa::Buffer::new().format(number).len(),
        }
    }

    /// The element as a number, also when a foreign writer left a canonical number as text.
    pub fn as_int(self) -> Option<i64> {
        match self {
            Element::Str(bytes) => canonical_int(bytes),
            Element::Int(number) => Some(number),
        }
    }
}

/// A place in one listpack: of an element, or the end. Any change of the pack at or before it makes it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(u32);

impl Pos {
    fn at(self) -> usize {
        self.0 as usize
    }
}

fn pos(offset: usize) -> Pos {
    Pos(offset as u32)
}

/// A list of strings and integers whose bytes are the stored form.
///
/// ```
/// use dfsnap_formats::encoding::listpack::{Element, Listpack};
/// let mut pack = Listpack::new();
/// pack.push_back(Element::parse(b"apple"));
/// pack.push_back(Element::parse(b"42"));
/// assert_eq!(pack.get(-1), Some(Element::Int(42)));
/// let copy = Listpack::from_bytes(pack.as_bytes().to_vec()).unwrap();
/// assert_eq!(copy, pack);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listpack {
    bytes: Vec<u8>,
}

impl Default for Listpack {
    fn default() -> Self {
        Listpack::new()
    }
}

impl Listpack {
    /// Largest pack that grows further; Redis keeps the same limit.
    pub const BYTES_MAX: usize = 1 << 30;
    /// Size of a pack without elements.
    pub const EMPTY_BYTES: usize = HEADER + 1;

    pub fn new() -> Self {
        Listpack::with_capacity(Self::EMPTY_BYTES)
    }

    pub fn with_capacity(bytes: usize) -> Self {
        let mut pack = Vec::with_capacity(bytes.max(Self::EMPTY_BYTES));
        pack.extend_from_slice(&[7, 0, 0, 0, 0, 0, END]);
        Listpack { bytes: pack }
    }

    /// Takes bytes from outside after checking all of them.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BlobError> {
        check(&bytes)?;
        Ok(Listpack { bytes })
    }

    /// Takes bytes that a `Listpack` of this process gave out, unchanged.
    pub fn from_own_bytes(bytes: Vec<u8>) -> Self {
        debug_assert_eq!(check(&bytes).err(), None, "own bytes are sound");
        Listpack { bytes }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Size of the stored form.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Number of elements; walks the pack from 65535 on.
    pub fn len(&self) -> usize {
        match self.count() {
            COUNT_UNKNOWN => self.iter().count(),
            count => count as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes[HEADER] == END
    }

    /// Whether `element` may still be added.
    pub fn has_room(&self, element: Element) -> bool {
        self.bytes.len() + entry_len(element) <= Self::BYTES_MAX
    }

    /// By how many bytes `element` makes a pack longer.
    pub fn entry_len(element: Element) -> usize {
        entry_len(element)
    }

    // Reading.

    /// The same elements, without the means to change them.
    pub fn as_packed(&self) -> Packed<'_> {
        Packed::of_checked(&self.bytes)
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter {
            bytes: &self.bytes,
            front: HEADER,
            back: self.bytes.len() - 1,
        }
    }

    /// The elements from `start` on.
    pub fn iter_from(&self, start: Pos) -> Iter<'_> {
        Iter {
            bytes: &self.bytes,
            front: start.at(),
            back: self.bytes.len() - 1,
        }
    }

    /// The element at `index`; negative counts from the end, -1 being the last.
    pub fn get(&self, index: i64) -> Option<Element<'_>> {
        self.seek(index).map(|place| self.at(place))
    }

    /// The place of the element at `index`; negative counts from the end. Walks from the nearer end.
    pub fn seek(&self, index: i64) -> Option<Pos> {
        let mut index = index;
        if self.count() != COUNT_UNKNOWN {
            let count = i64::from(self.count());
            if index >= count || index < -count {
                return None;
            }
            if index >= 0 && index > count / 2 {
                index -= count;
            } else if index < 0 && -index > count / 2 {
                index += count;
            }
        }
        if index >= 0 {
            let mut place = self.first()?;
            for _ in 0..index {
                place = self.next(place)?;
            }
            Some(place)
        } else {
            let mut place = self.last()?;
            for _ in 1..index.unsigned_abs() {
                place = self.prev(place)?;
            }
            Some(place)
        }
    }

    pub fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then_some(pos(HEADER))
    }

    pub fn last(&self) -> Option<Pos> {
        self.prev(self.end())
    }

    /// The place behind the last element, where `insert` appends.
    pub fn end(&self) -> Pos {
        pos(self.bytes.len() - 1)
    }

    /// The place after the element at `place`, or none if that was the last one.
    pub fn next(&self, place: Pos) -> Option<Pos> {
        if place == self.end() {
            return None;
        }
        let after = self.after(place);
        (after != self.end()).then_some(after)
    }

    /// The place before `place`, which may be the end.
    pub fn prev(&self, place: Pos) -> Option<Pos> {
        (place.at() > HEADER).then(|| pos(entry_before(&self.bytes, place.at())))
    }

    /// The element at `place`, which must not be the end.
    pub fn at(&self, place: Pos) -> Element<'_> {
        decode(&self.bytes, place.at()).0
    }

    /// The first element whose text is `text`, looking at every `stride`-th element from `start` on.
    pub fn find(&self, start: Pos, text: &[u8], stride: usize) -> Option<Pos> {
        let wanted_int = canonical_int(text);
        let end = self.bytes.len() - 1;
        let mut offset = start.at();
        let mut skip = 0;
        while offset < end {
            let (element, size) = decode(&self.bytes, offset);
            if skip == 0 {
                let hit = match element {
                    Element::Str(bytes) => bytes == text,
                    Element::Int(number) => wanted_int == Some(number),
                };
                if hit {
                    return Some(pos(offset));
                }
                skip = stride;
            }
            skip -= 1;
            offset += size;
        }
        None
    }

    // Changing.

    pub fn push_back(&mut self, element: Element) {
        self.insert(self.end(), element);
    }

    pub fn push_front(&mut self, element: Element) {
        self.insert(pos(HEADER), element);
    }

    /// Puts `element` before the one at `place` (or last, at the end); the new element is then at `place`.
    pub fn insert(&mut self, place: Pos, element: Element) {
        let size = entry_len(element);
        self.open(place.at(), 0, size);
        encode(&mut self.bytes[place.at()..place.at() + size], element);
        self.add_count(1);
    }

    /// Puts `element` in the place of the one at `place`.
    pub fn replace(&mut self, place: Pos, element: Element) {
        let old = decode(&self.bytes, place.at()).1;
        let new = entry_len(element);
        self.open(place.at(), old, new);
        encode(&mut self.bytes[place.at()..place.at() + new], element);
    }

    /// Removes the element at `place` and says where the next one is now.
    pub fn delete(&mut self, place: Pos) -> Option<Pos> {
        self.delete_at(place, 1)
    }

    /// Removes up to `count` elements from `place` on and says where the next one is now.
    pub fn delete_at(&mut self, place: Pos, count: usize) -> Option<Pos> {
        let mut stop = place;
        let mut removed = 0;
        while removed < count && stop != self.end() {
            stop = self.after(stop);
            removed += 1;
        }
        self.open(place.at(), stop.at() - place.at(), 0);
        self.sub_count(removed);
        (place != self.end()).then_some(place)
    }

    /// Removes up to `count` elements from `index` on; a negative index counts from the end.
    pub fn delete_range(&mut self, index: i64, count: usize) {
        if let Some(place) = self.seek(index) {
            self.delete_at(place, count);
        }
    }

    /// Keeps the first `index` elements and returns the others.
    pub fn split_off(&mut self, index: usize) -> Listpack {
        let Some(place) = i64::try_from(index).ok().and_then(|index| self.seek(index)) else {
            return Listpack::new();
        };
        let moved = &self.bytes[place.at()..self.bytes.len() - 1];
        let mut tail = Listpack {
            bytes: Vec::with_capacity(HEADER + moved.len() + 1),
        };
        tail.bytes.extend_from_slice(&[0; HEADER]);
        tail.bytes.extend_from_slice(moved);
        tail.bytes.push(END);
        let count = self.len();
        self.open(place.at(), tail.bytes.len() - Self::EMPTY_BYTES, 0);
        tail.write_total();
        self.write_count(index);
        tail.write_count(count - index);
        tail
    }

    /// Adds the elements of `other` behind those of this pack.
    pub fn append(&mut self, other: &Listpack) {
        let moved = &other.bytes[HEADER..other.bytes.len() - 1];
        let count = self.len() + other.len();
        let end = self.end().at();
        self.open(end, 0, moved.len());
        self.bytes[end..end + moved.len()].copy_from_slice(moved);
        self.write_count(count);
    }

    /// Gives back memory that the pack holds beyond its size.
    pub fn shrink(&mut self) {
        self.bytes
            .shrink_to(size_class(self.bytes.len()).min(self.bytes.capacity()));
    }

    // The bytes.

    fn after(&self, place: Pos) -> Pos {
        pos(place.at() + decode(&self.bytes, place.at()).1)
    }

    fn count(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    fn write_count(&mut self, count: usize) {
        let stored = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[4..6].copy_from_slice(&stored.to_le_bytes());
    }

    /// An unknown count stays unknown.
    fn add_count(&mut self, added: usize) {
        if self.count() != COUNT_UNKNOWN {
            self.write_count(self.count() as usize + added);
        }
    }

    fn sub_count(&mut self, removed: usize) {
        if self.count() != COUNT_UNKNOWN {
            self.write_count(self.count() as usize - removed);
        } else if self.is_empty() {
            self.write_count(0);
        }
    }

    fn write_total(&mut self) {
        let total = u32::try_from(self.bytes.len()).expect("a pack stays below 4 GB");
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
    }

    /// Makes the `old` bytes at `offset` a gap of `new` bytes, and sets the total.
    fn open(&mut self, offset: usize, old: usize, new: usize) {
        let len = self.bytes.len();
        if new > old {
            let grown = len + (new - old);
            assert!(
                grown <= u32::MAX as usize,
                "listpack of {len} bytes: {new} more do not fit"
            );
            if grown > self.bytes.capacity() {
                self.bytes.reserve_exact(size_class(grown) - len);
            }
            self.bytes.resize(grown, 0);
            self.bytes.copy_within(offset + old..len, offset + new);
        } else if new < old {
            self.bytes.copy_within(offset + old.., offset + new);
            self.bytes.truncate(len - (old - new));
            if self.bytes.len() * 2 < self.bytes.capacity() {
                self.shrink();
            }
        }
        self.write_total();
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Element<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> FromIterator<&'a [u8]> for Listpack {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(texts: I) -> Self {
        let mut pack = Listpack::new();
        for text in texts {
            pack.push_back(Element::parse(text));
        }
        pack
    }
}

/// The elements of a listpack, from either end.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
}

impl<'a> Iter<'a> {
    /// Where the next element is.
    pub fn pos(&self) -> Pos {
        pos(self.front)
    }

    /// Passes `count` elements, or those that are left.
    pub(crate) fn pass(&mut self, count: usize) {
        for _ in 0..count {
            if self.front >= self.back {
                return;
            }
            self.front += match self.bytes[self.front] {
                0..0x80 => 2,
                first @ 0x80..0xC0 => usize::from(first & 0x3F) + 2,
                0xC0..0xE0 => 3,
                _ => decode(self.bytes, self.front).1,
            };
        }
    }

    // Two functions, as what each returns fits in registers: elements that come by way of memory are waited for.

    #[inline(never)]
    fn next_long_text(&mut self) -> &'a [u8] {
        let (element, size) = decode(self.bytes, self.front);
        self.front += size;
        match element {
            Element::Str(text) => text,
            Element::Int(_) => unreachable!("an integer begins otherwise"),
        }
    }

    #[inline(never)]
    fn next_long_int(&mut self) -> i64 {
        if let Some((number, size)) = entry::long_int(&self.bytes[self.front..]) {
            self.front += size + 1;
            return number;
        }
        let (element, size) = decode(self.bytes, self.front);
        self.front += size;
        match element {
            Element::Int(number) => number,
            Element::Str(_) => unreachable!("a text begins otherwise"),
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        // Small integers and strings below 64 bytes are most of what there is.
        match self.bytes.get(self.front..self.back)? {
            [number @ 0..0x80, ..] => {
                self.front += 2;
                Some(Element::Int(i64::from(*number)))
            }
            [first @ 0x80..0xC0, text @ ..] => {
                let text = text.get(..usize::from(first & 0x3F))?;
                self.front += text.len() + 2;
                Some(Element::Str(text))
            }
            [] => None,
            [0xE0..=0xF0, ..] => Some(Element::Str(self.next_long_text())),
            _ => Some(Element::Int(self.next_long_int())),
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = entry_before(self.bytes, self.back);
        Some(decode(self.bytes, self.back).0)
    }
}

#[cfg(test)]
mod tests;
