//! Ziplist: the packed list of Redis up to 6.2. What is read of it becomes a listpack; it is written for old versions.
//!
//! ```text
//! total u32 LE | offset of the last entry u32 LE | count u16 LE, 65535 = unknown | entry* | 0xFF
//! entry = size of the entry before (1 byte, or 0xFE + u32 LE) | header | data
//! 00nnnnnn                string of n bytes          C0 D0 E0        i16, i32, i64 LE
//! 01nnnnnn + 1 byte       string, 14 bit BE          F0 FE           i24 LE, i8
//! 80 + u32 BE             string                     F1..FD          0..12
//! ```

use super::listpack::Element;
use super::{BlobError, canonical_int};

const HEADER: usize = 10;
const END: u8 = 0xFF;
const WIDE: u8 = 0xFE;
const COUNT_UNKNOWN: usize = 0xFFFF;

/// A sound ziplist in bytes of someone else.
///
/// ```
/// use dfsnap_formats::encoding::ziplist::Ziplist;
/// let bytes = b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff";
/// let list = Ziplist::new(bytes).unwrap();
/// assert_eq!((list.len(), list.iter().last().unwrap().as_int()), (2, Some(2)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Ziplist<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Ziplist<'a> {
    /// Checks all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BlobError> {
        let short = (HEADER + 1) as u64;
        let size = bytes.len() as u64;
        if size < short {
            return Err(BlobError::new(0, "ziplist header", short, size));
        }
        let field = |at: usize| {
            u64::from(u32::from_le_bytes(
                bytes[at..at + 4].try_into().expect("4 bytes"),
            ))
        };
        if field(0) != size {
            return Err(BlobError::new(0, "ziplist total bytes", size, field(0)));
        }
        let end = bytes.len() - 1;
        if bytes[end] != END {
            let found = u64::from(bytes[end]);
            return Err(BlobError::new(end, "ziplist end mark", 0xFF, found));
        }
        let (mut at, mut last, mut len, mut before) = (HEADER, HEADER, 0, 0);
        while at < end {
            let entry = entry(&bytes[..end], at)?;
            if entry.before != before {
                let (wanted, found) = (before as u64, entry.before as u64);
                return Err(BlobError::new(at, "ziplist previous size", wanted, found));
            }
            before = entry.next - at;
            last = at;
            at = entry.next;
            len += 1;
        }
        if field(4) != last as u64 {
            let wanted = last as u64;
            return Err(BlobError::new(4, "ziplist last offset", wanted, field(4)));
        }
        let count = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        if count != COUNT_UNKNOWN && count != len {
            return Err(BlobError::new(8, "ziplist count", len as u64, count as u64));
        }
        Ok(Ziplist { bytes, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> Iter<'a> {
        Iter {
            bytes: &self.bytes[..self.bytes.len() - 1],
            at: HEADER,
        }
    }
}

/// The ziplist of these elements, in the forms that Redis writes since 2.6.
///
/// ```
/// use dfsnap_formats::encoding::listpack::Element;
/// use dfsnap_formats::encoding::ziplist::{Ziplist, pack};
/// let bytes = pack([Element::Str(b"a"), Element::Int(2)]);
/// assert_eq!(bytes, b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff");
/// ```
///
/// # Panics
/// If the elements take more than 4 GB.
pub fn pack<'a>(elements: impl IntoIterator<Item = Element<'a>>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let (mut last, mut count) = (HEADER, 0usize);
    for element in elements {
        let before = if count == 0 { 0 } else { bytes.len() - last };
        last = bytes.len();
        count += 1;
        match u8::try_from(before) {
            Ok(size) if size < WIDE => bytes.push(size),
            _ => {
                bytes.push(WIDE);
                bytes.extend_from_slice(&(before as u32).to_le_bytes());
            }
        }
        match element {
            Element::Str(text) => match canonical_int(text) {
                Some(number) => put_int(&mut bytes, number),
                None => put_text(&mut bytes, text),
            },
            Element::Int(number) => put_int(&mut bytes, number),
        }
    }
    bytes.push(END);
    let total = u32::try_from(bytes.len()).expect("a ziplist is smaller than 4 GB");
    bytes[..4].copy_from_slice(&total.to_le_bytes());
    bytes[4..8].copy_from_slice(&(last as u32).to_le_bytes());
    let count = count.min(COUNT_UNKNOWN) as u16;
    bytes[8..10].copy_from_slice(&count.to_le_bytes());
    bytes
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let len = text.len();
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]),
        _ => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    let (header, size) = match number {
        0..=12 => return out.push(0xF1 + number as u8),
        -0x80..=0x7F => (0xFE, 1),
        -0x8000..=0x7FFF => (0xC0, 2),
        -0x80_0000..=0x7F_FFFF => (0xF0, 3),
        -0x8000_0000..=0x7FFF_FFFF => (0xD0, 4),
        _ => (0xE0, 8),
    };
    out.push(header);
    out.extend_from_slice(&number.to_le_bytes()[..size]);
}

/// The elements, first to last.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.at == self.bytes.len() {
            return None;
        }
        let entry = entry(self.bytes, self.at).expect("checked when the list was made");
        self.at = entry.next;
        Some(entry.element)
    }
}

struct Entry<'a> {
    /// Size of the entry before, as this one says.
    before: usize,
    element: Element<'a>,
    /// Offset of the next entry.
    next: usize,
}

/// `bytes` ends before the end mark.
fn entry(bytes: &[u8], start: usize) -> Result<Entry<'_>, BlobError> {
    let (before, at) = match bytes[start] {
        END => {
            let what = "ziplist previous size";
            return Err(BlobError::new(start, what, 254, 255));
        }
        WIDE => {
            let size = take(bytes, start + 1, 4, "ziplist previous size")?;
            let size = u32::from_le_bytes(size.try_into().expect("4 bytes"));
            (size as usize, start + 5)
        }
        size => (usize::from(size), start + 1),
    };
    let first = take(bytes, at, 1, "ziplist entry header")?[0];
    let string = |header: usize, len: usize| {
        let data = take(bytes, at + header, len, "ziplist string")?;
        Ok((Element::Str(data), at + header + len))
    };
    let number = |size: usize| {
        let data = take(bytes, at + 1, size, "ziplist integer")?;
        // Sign-extended from the top byte.
        let mut wide = [if data[size - 1] >= 0x80 { 0xFF } else { 0 }; 8];
        wide[..size].copy_from_slice(data);
        Ok((Element::Int(i64::from_le_bytes(wide)), at + 1 + size))
    };
    let (element, next) = match first {
        0x00..=0x3F => string(1, usize::from(first))?,
        0x40..=0x7F => {
            let low = take(bytes, at + 1, 1, "ziplist string length")?[0];
            string(2, usize::from(first & 0x3F) << 8 | usize::from(low))?
        }
        0x80 => {
            let len = take(bytes, at + 1, 4, "ziplist string length")?;
            let len = u32::from_be_bytes(len.try_into().expect("4 bytes"));
            string(5, len as usize)?
        }
        0xC0 => number(2)?,
        0xD0 => number(4)?,
        0xE0 => number(8)?,
        0xF0 => number(3)?,
        0xFE => number(1)?,
        0xF1..=0xFD => (Element::Int(i64::from(first & 0x0F) - 1), at + 1),
        _ => {
            let what = "ziplist entry header";
            return Err(BlobError::new(at, what, 0xFE, u64::from(first)));
        }
    };
    Ok(Entry {
        before,
        element,
        next,
    })
}

fn take<'a>(
    bytes: &'a [u8],
    at: usize,
    wanted: usize,
    what: &'static str,
) -> Result<&'a [u8], BlobError> {
    let left = bytes.len().saturating_sub(at);
    bytes
        .get(at..at.saturating_add(wanted))
        .ok_or(BlobError::new(at, what, wanted as u64, left as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ziplist around entries given without their first part.
    fn list(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let (mut before, mut last) = (0usize, HEADER);
        for entry in entries {
            last = bytes.len();
            match u8::try_from(before) {
                Ok(size) if size < WIDE => bytes.push(size),
                _ => {
                    bytes.push(WIDE);
                    bytes.extend_from_slice(&(before as u32).to_le_bytes());
                }
            }
            bytes.extend_from_slice(entry);
            before = bytes.len() - last;
        }
        bytes.push(END);
        let total = (bytes.len() as u32).to_le_bytes();
        bytes[..4].copy_from_slice(&total);
        bytes[4..8].copy_from_slice(&(last as u32).to_le_bytes());
        bytes[8..10].copy_from_slice(&(entries.len() as u16).to_le_bytes());
        bytes
    }

    #[test]
    fn every_header_reads() {
        let long = [&[0x40 | 1, 44][..], &[b'x'; 300]].concat();
        let huge = [&[0x80, 0, 0, 0x40, 0][..], &[b'y'; 16384]].concat();
        let bytes = list(&[
            &[2, b'a', b'b'],
            &long,
            &huge,
            &[0xC0, 0xFE, 0xFF],
            &[0xD0, 0, 0, 1, 0],
            &[0xE0, 0, 0, 0, 0, 0, 0, 0, 0x80],
            &[0xF0, 0, 0, 0x80],
            &[0xFE, 0x80],
            &[0xF1],
            &[0xFD],
            &[0],
        ]);
        let got: Vec<_> = Ziplist::new(&bytes).unwrap().iter().collect();
        let want = [
            Element::Str(b"ab"),
            Element::Str(&[b'x'; 300]),
            Element::Str(&[b'y'; 16384]),
            Element::Int(-2),
            Element::Int(65536),
            Element::Int(i64::MIN),
            Element::Int(-8_388_608),
            Element::Int(-128),
            Element::Int(0),
            Element::Int(12),
            Element::Str(b""),
        ];
        assert_eq!(got, want);
        let mut unknown = bytes.clone();
        unknown[8..10].fill(0xFF);
        assert_eq!(Ziplist::new(&unknown).unwrap().len(), 11);
        assert!(Ziplist::new(&list(&[])).unwrap().is_empty());
    }

    #[test]
    fn damage_is_refused_wherever_it_is() {
        let bytes = list(&[&[2, b'a', b'b'], &[0xC0, 1, 0], &[0x40, 3, 1, 2, 3]]);
        Ziplist::new(&bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(Ziplist::new(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let rows = [
            (0, "total"),
            (4, "last offset"),
            (8, "count"),
            (10, "first previous size"),
            (11, "string longer"),
            (14, "previous size"),
            (bytes.len() - 1, "end mark"),
        ];
        for (at, name) in rows {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Ziplist::new(&damaged).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_reads_back(texts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            (-300i64..300).prop_map(|number| number.to_string().into_bytes()),
            (0u8..4, 16_300usize..16_500).prop_map(|(byte, len)| vec![byte; len]),
        ], 0..30)) {
            let bytes = pack(texts.iter().map(|text| Element::Str(text)));
            let list = Ziplist::new(&bytes).unwrap();
            let back: Vec<_> = list.iter().map(Element::to_vec).collect();
            prop_assert_eq!(back, texts);
        }
    }
}
