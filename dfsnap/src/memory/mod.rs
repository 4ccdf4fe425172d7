//! How much memory a stored value takes in a server, as MEMORY USAGE with SAMPLES 0 tells it after loading.
//!
//! `Meter` is fed the stored bytes of one value, whole or in pieces, and walks over them by the tables of
//! `formats::rdb::shape`. It looks at lengths alone: packed strings stay packed, packs closed. `model` knows the
//! structures of Redis 7.0 and its allocator; `tree` the nodes of its radix trees.
//!
//! Invariants
//! - Memory does not grow with the value, but for the groups of a stream, which are read as a whole.
//! - Damage is an error or a wrong number, never a panic: the reader, not the meter, is who checks.

mod model;
mod tree;

use dfsnap_formats::encoding::canonical_int;
use dfsnap_formats::error::Damage;
use dfsnap_formats::input::Cursor;
use dfsnap_formats::rdb::length::{self, Length, Prefix};
use dfsnap_formats::rdb::shape::{self, Part as Shape};
use dfsnap_formats::rdb::{Flavor, type_code};
use model::{Sum, Text};

pub use model::{EXPIRY_BYTES, bucket_bytes, key_bytes};

/// Walks over one stored value and adds up what it takes.
#[derive(Debug)]
pub struct Meter {
    flavor: Flavor,
    code: u8,
    /// The parts of an item, and the one that is next.
    item: &'static [Shape],
    at: usize,
    /// Items that have not been passed; None before their number was read.
    left: Option<u64>,
    /// Bytes of a string that are still to go by.
    skip: u64,
    /// Bytes in front of the items.
    head: u64,
    /// What was fed and is not yet whole, or the groups of a stream.
    carry: Vec<u8>,
    fed: u64,
    sum: Sum,
}

/// Strings up to this length are looked at: they may be numbers.
const LOOKED_AT: u64 = 20;

impl Meter {
    pub fn new() -> Self {
        Meter {
            flavor: Flavor::Redis,
            code: type_code::STRING,
            item: &[],
            at: 0,
            left: None,
            skip: 0,
            head: 0,
            carry: Vec::new(),
            fed: 0,
            sum: Sum::default(),
        }
    }

    /// Memory of a value that is here as a whole, without its key.
    pub fn value(&mut self, flavor: Flavor, code: u8, raw: &[u8]) -> Result<u64, Damage> {
        self.begin(flavor, code);
        self.feed(raw)?;
        self.finish()
    }

    /// The next value begins.
    pub fn begin(&mut self, flavor: Flavor, code: u8) {
        self.flavor = flavor;
        self.code = code;
        self.at = 0;
        self.skip = 0;
        self.head = 0;
        self.fed = 0;
        self.carry.clear();
        self.sum.clear(code);
        let parts = shape::of_value(flavor, code).unwrap_or_default();
        (self.item, self.left) = (parts, Some(1));
        match parts {
            _ if is_opaque(flavor, code) => self.left = Some(0),
            [Shape::Repeat(item), ..] => (self.item, self.left) = (item, None),
            [Shape::Raw(bytes), Shape::Repeat(item)] => {
                self.head = u64::from(*bytes);
                (self.item, self.left) = (item, None);
            }
            _ => {}
        }
    }

    /// The next stored bytes of the value.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        self.fed += bytes.len() as u64;
        if is_opaque(self.flavor, self.code) {
            return Ok(());
        }
        if self.carry.is_empty() {
            let used = self.walk(bytes)?;
            self.carry.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.carry);
        joined.extend_from_slice(bytes);
        let used = self.walk(&joined)?;
        joined.drain(..used);
        self.carry = joined;
        Ok(())
    }

    /// Memory of the value that was fed.
    pub fn finish(&mut self) -> Result<u64, Damage> {
        if is_opaque(self.flavor, self.code) {
            return Ok(model::opaque(self.fed));
        }
        let groups = match self.sum.is_stream() {
            true => model::stream_groups(self.code, &self.carry)?,
            false => 0,
        };
        Ok(self.sum.bytes() + groups)
    }

    /// Elements of the value that was fed, or bytes of a string. None: only its packs know.
    pub fn elements(&self) -> Option<u64> {
        match self.sum.is_stream() {
            true => Cursor::new(&self.carry).len("stream, length").ok(),
            false => self.sum.elements(),
        }
    }

    /// Passes what is whole and gives the number of bytes passed.
    fn walk(&mut self, bytes: &[u8]) -> Result<usize, Damage> {
        let mut cursor = Cursor::new(bytes);
        let pass = |cursor: &mut Cursor<'_>, count: &mut u64| {
            let here = (*count).min(cursor.left() as u64);
            *count -= here;
            cursor.take(here, "value").map(|_| ())
        };
        pass(&mut cursor, &mut self.skip)?;
        pass(&mut cursor, &mut self.head)?;
        if self.skip > 0 || self.head > 0 {
            return Ok(bytes.len());
        }
        if self.left.is_none() {
            match length::read(cursor.rest()) {
                Prefix::Short { .. } => return Ok(cursor.offset() as usize),
                _ => {
                    let items = cursor.len("value")?;
                    self.sum.expect(items);
                    self.left = Some(items);
                }
            }
        }
        while self.left.is_some_and(|left| left > 0) {
            if !self.part(&mut cursor)? {
                break;
            }
            self.at += 1;
            if self.at == self.item.len() {
                self.at = 0;
                self.sum.item();
                self.left = self.left.map(|left| left - 1);
            }
        }
        Ok(cursor.offset() as usize)
    }

    /// Passes the next part of an item. False: it is not here.
    #[inline]
    fn part(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, Damage> {
        match &self.item[self.at] {
            Shape::Text => self.text(cursor),
            Shape::Len => match length::read(cursor.rest()) {
                Prefix::Short { .. } => Ok(false),
                _ => {
                    cursor.len("value")?;
                    Ok(true)
                }
            },
            Shape::Raw(count) => {
                let count = usize::from(*count);
                let Some(raw) = cursor.rest().get(..count) else {
                    return Ok(false);
                };
                self.sum.raw(raw);
                cursor.take(count as u64, "value").map(|_| true)
            }
            Shape::DoubleText => {
                const ALONE: u8 = 253;
                let digits = match cursor.rest().first() {
                    None => return Ok(false),
                    Some(ALONE..) => 0,
                    Some(count) => usize::from(*count),
                };
                let Some(text) = cursor.rest().get(1..1 + digits) else {
                    return Ok(false);
                };
                let number = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.sum.score(number.unwrap_or(f64::INFINITY));
                cursor.take(1 + digits as u64, "value").map(|_| true)
            }
            // `begin` lets no other part in; a value of such a type is opaque.
            _ => Ok(false),
        }
    }

    /// A string: its length, and of a short one whether it is a number.
    #[inline]
    fn text(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, Damage> {
        let rest = cursor.rest();
        let (form, prefix) = match length::read(rest) {
            Prefix::Whole(form, prefix) => (form, prefix),
            Prefix::Short { .. } => return Ok(false),
            Prefix::Bad(_) => return cursor.len("value").map(|_| false),
        };
        match form {
            Length::Plain(len) if len <= LOOKED_AT => {
                let Some(text) = rest.get(prefix..prefix + len as usize) else {
                    return Ok(false);
                };
                let number = match text.first() {
                    Some(b'-' | b'0'..=b'9') => canonical_int(text),
                    _ => None,
                };
                self.sum.text(self.at, Text { len, number }, Some(text));
                cursor.take(prefix as u64 + len, "value")?;
            }
            Length::Plain(len) => {
                self.sum.text(self.at, Text::of_len(len), None);
                cursor.take(prefix as u64, "value")?;
                self.pass(cursor, len)?;
            }
            Length::Special(length::LZF) => {
                let mut ahead = cursor.clone();
                ahead.take(prefix as u64, "value")?;
                let (Some(packed), Some(len)) = (len_here(&mut ahead)?, len_here(&mut ahead)?)
                else {
                    return Ok(false);
                };
                self.sum.text(self.at, Text::of_len(len), None);
                *cursor = ahead;
                self.pass(cursor, packed)?;
            }
            Length::Special(form) => {
                let width = match form {
                    length::INT8 => 1,
                    length::INT16 => 2,
                    _ => 4,
                };
                let Some(raw) = rest.get(prefix..prefix + width) else {
                    return Ok(false);
                };
                let number = match *raw {
                    [a] => i64::from(a as i8),
                    [a, b] => i64::from(i16::from_le_bytes([a, b])),
                    [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                    _ => 0,
                };
                let len = model::digits(number);
                let number = Some(number);
                self.sum.text(self.at, Text { len, number }, None);
                cursor.take((prefix + width) as u64, "value")?;
            }
        }
        Ok(true)
    }

    fn pass(&mut self, cursor: &mut Cursor<'_>, len: u64) -> Result<(), Damage> {
        let here = len.min(cursor.left() as u64);
        self.skip = len - here;
        cursor.take(here, "value").map(|_| ())
    }
}

/// A length, if it is here.
fn len_here(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Damage> {
    match length::read(cursor.rest()) {
        Prefix::Short { .. } => Ok(None),
        _ => cursor.len("value").map(Some),
    }
}

/// Values of modules, documents, sketches: what they take in memory is known to who wrote them.
fn is_opaque(flavor: Flavor, code: u8) -> bool {
    code == type_code::MODULE_2
        || shape::of_value(flavor, code).is_none()
        || matches!(code, type_code::BLOOM..=type_code::CUCKOO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_to_the_same_as_the_whole() {
        let mut hash = vec![0x41, 0x00];
        for i in 0..256 {
            hash.extend_from_slice(&[4, b'f', b'a' + (i % 26) as u8, b'0', b'1']);
            hash.push(70);
            hash.extend_from_slice(&[b'v'; 70]);
        }
        let packed = [&[1, 0xC3, 4, 0x40, 100][..], b"abcd"].concat();
        let rows = [
            ("hash", type_code::HASH, hash),
            (
                "string",
                type_code::STRING,
                [&[0x40, 200][..], &[b'x'; 200]].concat(),
            ),
            ("packed node", type_code::LIST_QUICKLIST, packed),
            ("number", type_code::STRING, vec![0xC1, 0x10, 0x27]),
            ("zset", type_code::ZSET, b"\x01\x01a\x033.5".to_vec()),
        ];
        let mut meter = Meter::new();
        for (name, code, raw) in rows {
            let whole = meter.value(Flavor::Redis, code, &raw).unwrap();
            for size in [1, 2, 7, 100] {
                meter.begin(Flavor::Redis, code);
                raw.chunks(size)
                    .for_each(|piece| meter.feed(piece).unwrap());
                assert_eq!(meter.finish().unwrap(), whole, "{name} in pieces of {size}");
            }
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let mut meter = Meter::new();
        for code in 0..=40 {
            for byte in [0, 1, 0x3F, 0x7F, 0x80, 0x81, 0x83, 0xC3, 0xC4, 0xFF] {
                for len in 0..40 {
                    let _ = meter.value(Flavor::Redis, code, &vec![byte; len]);
                    let _ = meter.value(Flavor::Dragonfly, code, &vec![byte; len]);
                }
            }
        }
    }
}
