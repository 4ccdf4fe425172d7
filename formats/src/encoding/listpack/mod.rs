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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(texts: &[&[u8]]) -> Listpack {
        texts.iter().copied().collect()
    }

    fn texts(pack: &Listpack) -> Vec<Vec<u8>> {
        pack.iter().map(Element::to_vec).collect()
    }

    #[test]
    fn entry_has_the_bytes_that_redis_writes() {
        let rows: &[(&str, &[u8], &[u8])] = &[
            ("0", b"0", &[0, 1]),
            ("127", b"127", &[0x7F, 1]),
            ("128 is 13 bit", b"128", &[0xC0, 0x80, 2]),
            ("-1 is 13 bit", b"-1", &[0xDF, 0xFF, 2]),
            ("-4096 is 13 bit", b"-4096", &[0xD0, 0, 2]),
            ("4095 is 13 bit", b"4095", &[0xCF, 0xFF, 2]),
            ("4096 is 16 bit", b"4096", &[0xF1, 0, 0x10, 3]),
            ("-32768 is 16 bit", b"-32768", &[0xF1, 0, 0x80, 3]),
            ("32768 is 24 bit", b"32768", &[0xF2, 0, 0x80, 0, 4]),
            ("-8388608 is 24 bit", b"-8388608", &[0xF2, 0, 0, 0x80, 4]),
            ("8388608 is 32 bit", b"8388608", &[0xF3, 0, 0, 0x80, 0, 5]),
            (
                "2^31 is 64 bit",
                b"2147483648",
                &[0xF4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9],
            ),
            ("text", b"ab", &[0x82, b'a', b'b', 3]),
            ("empty text", b"", &[0x80, 1]),
            ("-0 is text", b"-0", &[0x82, b'-', b'0', 3]),
            ("007 is text", b"007", &[0x83, b'0', b'0', b'7', 4]),
        ];
        for (name, text, entry) in rows {
            let pack = pack(&[text]);
            assert_eq!(
                &pack.as_bytes()[HEADER..pack.byte_len() - 1],
                *entry,
                "{name}"
            );
            assert_eq!(texts(&pack), [text.to_vec()], "{name}");
        }
    }

    #[test]
    fn backlen_width_is_strict_at_its_limits() {
        // 5 bytes of header make an entry of len + 5 bytes.
        let rows: &[(usize, &[u8])] = &[
            (16382, &[0x7F, 0xFE]),
            (16383, &[0x00, 0xFF, 0xFF]),
            (16384, &[0x01, 0x80, 0x80]),
            (2_097_150, &[0x7F, 0xFF, 0xFE]),
            (2_097_151, &[0x00, 0xFF, 0xFF, 0xFF]),
        ];
        for (size, backlen) in rows {
            let text = vec![b'x'; size - 5];
            let mut pack = pack(&[b"before", &text]);
            assert!(
                pack.as_bytes().ends_with(&[*backlen, &[END]].concat()),
                "{size}"
            );
            assert_eq!(check(pack.as_bytes()), Ok(2), "{size}");
            assert_eq!(pack.get(-2), Some(Element::Str(b"before")), "{size}");
            pack.delete_range(-1, 1);
            assert_eq!(texts(&pack), [b"before".to_vec()], "{size}");
        }
    }

    #[test]
    fn count_is_unknown_from_65535_on_and_known_again_when_split() {
        let mut pack = Listpack::new();
        for number in 0..65534 {
            pack.push_back(Element::Int(number));
        }
        assert_eq!(pack.count(), 65534);
        pack.push_back(Element::Int(65534));
        assert_eq!((pack.count(), pack.len()), (COUNT_UNKNOWN, 65535));
        pack.push_back(Element::Int(65535));
        assert_eq!(pack.get(65535), Some(Element::Int(65535)));
        assert_eq!(pack.get(-65536), Some(Element::Int(0)));
        assert_eq!((pack.get(65536), pack.get(-65537)), (None, None));
        pack.delete_range(0, 6);
        assert_eq!((pack.count(), pack.len()), (COUNT_UNKNOWN, 65530));
        assert_eq!(check(pack.as_bytes()), Ok(65530));
        let tail = pack.split_off(30);
        assert_eq!((pack.count(), tail.count()), (30, 65500));
        pack.delete_range(0, 30);
        assert_eq!(pack, Listpack::new());
    }

    #[test]
    fn damage_is_an_error_with_both_numbers() {
        let sound = pack(&[b"ab", b"300"]).into_bytes();
        let rows: &[(&str, usize, u8, &str)] = &[
            (
                "total",
                0,
                15,
                "offset 0: listpack total bytes: wanted 14, found 15",
            ),
            ("count", 4, 3, "offset 4: listpack count: wanted 2, found 3"),
            (
                "length",
                6,
                0x90,
                "offset 6: listpack element bytes: wanted 18, found 7",
            ),
            (
                "encoding",
                6,
                0xF5,
                "offset 6: listpack encoding byte, at most: wanted 244, found 245",
            ),
            (
                "backlen",
                9,
                4,
                "offset 9: listpack backlen: wanted 3, found 4",
            ),
            (
                "backlen bit",
                9,
                0x83,
                "offset 9: listpack backlen byte: wanted 3, found 131",
            ),
            (
                "end",
                13,
                0,
                "offset 13: listpack end byte: wanted 255, found 0",
            ),
        ];
        assert_eq!(sound.len(), 14);
        for (name, at, byte, message) in rows {
            let mut bytes = sound.clone();
            bytes[*at] = *byte;
            let error = Listpack::from_bytes(bytes).unwrap_err();
            assert_eq!(error.to_string(), *message, "{name}");
        }
        for len in 0..sound.len() {
            assert!(
                Listpack::from_bytes(sound[..len].to_vec()).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn find_looks_only_at_its_stride() {
        let pack = pack(&[b"a", b"b", b"b", b"7", b"7", b"x"]);
        let first = pack.first().unwrap();
        let place = pack.find(first, b"b", 2).unwrap();
        assert_eq!(
            pack.prev(place).map(|place| pack.at(place)),
            Some(Element::Str(b"b"))
        );
        let place = pack.find(first, b"7", 2).unwrap();
        assert_eq!(
            pack.next(place).map(|place| pack.at(place)),
            Some(Element::Str(b"x"))
        );
        assert_eq!(pack.find(first, b"x", 2), None);
        assert_eq!(pack.find(first, b"07", 1), None);
        assert!(pack.find(first, b"x", 1).is_some());
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Delete(usize, usize),
        SplitAppend(usize),
        SplitFront(usize),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            (any::<i64>(), 0u32..64)
                .prop_map(|(number, shift)| (number >> shift).to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..80),
            (4000usize..17000).prop_map(|len| vec![b'v'; len]),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Insert(at, text)),
            2 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Replace(at, text)),
            2 => (any::<usize>(), 0usize..4).prop_map(|(at, count)| Op::Delete(at, count)),
            1 => any::<usize>().prop_map(Op::SplitAppend),
            1 => any::<usize>().prop_map(Op::SplitFront),
        ]
    }

    fn apply(op: &Op, pack: &mut Listpack, model: &mut Vec<Vec<u8>>) {
        let len = model.len();
        match op {
            Op::Insert(at, text) => {
                let at = at % (len + 1);
                let place = pack.seek(at as i64).unwrap_or(pack.end());
                pack.insert(place, Element::parse(text));
                model.insert(at, text.clone());
            }
            Op::Replace(at, text) if len > 0 => {
                let at = at % len;
                pack.replace(
                    pack.seek(at as i64 - len as i64).unwrap(),
                    Element::parse(text),
                );
                model[at] = text.clone();
            }
            Op::Delete(at, count) if len > 0 => {
                let at = at % len;
                pack.delete_range(at as i64, *count);
                model.drain(at..len.min(at + count));
            }
            Op::SplitAppend(at) => {
                let tail = pack.split_off(at % (len + 1));
                pack.append(&tail);
            }
            Op::SplitFront(at) => {
                let at = at % (len + 1);
                let mut tail = pack.split_off(at);
                tail.append(pack);
                *pack = tail;
                model.rotate_left(at);
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_vector(ops in prop::collection::vec(op(), 0..40)) {
            let mut pack = Listpack::new();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for op in &ops {
                apply(op, &mut pack, &mut model);
                prop_assert_eq!(check(pack.as_bytes()), Ok(model.len()));
            }
            prop_assert_eq!(texts(&pack), model.clone());
            prop_assert_eq!(pack.len(), model.len());
            let backwards: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
            prop_assert!(backwards.iter().eq(model.iter().rev()));
            for (index, text) in model.iter().enumerate() {
                prop_assert!(pack.get(index as i64).unwrap().eq_bytes(text));
                prop_assert_eq!(pack.get(index as i64 - model.len() as i64).unwrap().text_len(), text.len());
            }
            // The same elements pushed in order are the same bytes: there is one form for each list.
            let again: Listpack = model.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(again, pack);
        }

        #[test]
        fn any_bytes_are_refused_or_readable(mut bytes in prop::collection::vec(any::<u8>(), 7..60)) {
            let total = bytes.len() as u32;
            bytes[..4].copy_from_slice(&total.to_le_bytes());
            bytes[4..6].copy_from_slice(&[0xFF, 0xFF]);
            *bytes.last_mut().unwrap() = END;
            if let Ok(pack) = Listpack::from_bytes(bytes) {
                let forwards = texts(&pack);
                let mut backwards: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
                backwards.reverse();
                prop_assert_eq!(forwards, backwards);
            }
        }

        #[test]
        fn any_damaged_byte_is_refused_or_readable(elements in prop::collection::vec(text(), 1..6), at in any::<usize>(), byte in any::<u8>()) {
            let pack: Listpack = elements.iter().map(Vec::as_slice).collect();
            let mut bytes = pack.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(pack) = Listpack::from_bytes(bytes) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
            }
        }
    }
}
