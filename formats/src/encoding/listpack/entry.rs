//! The bytes of single entries: reading, writing and checking them.
//!
//! Reading and writing rely on sound bytes: an index out of range is a bug of ours. `check` is what makes bytes from
//! outside sound.

use super::{COUNT_UNKNOWN, END, Element, HEADER, Listpack};
use crate::encoding::BlobError;

/// The element at `offset` and the size of its whole entry.
#[inline]
pub(super) fn decode(bytes: &[u8], offset: usize) -> (Element<'_>, usize) {
    let first = bytes[offset];
    let (element, size) = match first {
        0..=0x7F => return (Element::Int(i64::from(first)), 2),
        0x80..=0xBF => {
            let len = usize::from(first & 0x3F);
            return (Element::Str(&bytes[offset + 1..offset + 1 + len]), len + 2);
        }
        0xC0..=0xDF => {
            let raw = i64::from(first & 0x1F) << 8 | i64::from(bytes[offset + 1]);
            (Element::Int(if raw >= 4096 { raw - 8192 } else { raw }), 2)
        }
        0xE0..=0xEF => {
            let len = usize::from(first & 0x0F) << 8 | usize::from(bytes[offset + 1]);
            (Element::Str(&bytes[offset + 2..offset + 2 + len]), 2 + len)
        }
        0xF0 => {
            let len = u32::from_le_bytes(array(bytes, offset + 1)) as usize;
            (Element::Str(&bytes[offset + 5..offset + 5 + len]), 5 + len)
        }
        0xF1 => (
            Element::Int(i64::from(i16::from_le_bytes(array(bytes, offset + 1)))),
            3,
        ),
        0xF2 => {
            let [a, b, c] = array(bytes, offset + 1);
            (
                Element::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)),
                4,
            )
        }
        0xF3 => (
            Element::Int(i64::from(i32::from_le_bytes(array(bytes, offset + 1)))),
            5,
        ),
        0xF4 => (
            Element::Int(i64::from_le_bytes(array(bytes, offset + 1))),
            9,
        ),
        0xF5..=0xFF => panic!("listpack byte {first:#x} at {offset} starts no element"),
    };
    (element, size + backlen_width(size))
}

/// The integer that `bytes` begin with, if it takes more than one byte and all of it is there, and its size without the backlen.
#[inline]
pub(super) fn long_int(bytes: &[u8]) -> Option<(i64, usize)> {
    Some(match *bytes {
        [first @ 0xC0..0xE0, low, ..] => {
            // Thirteen bits, the highest for the sign.
            let raw = i16::from_be_bytes([first, low]) << 3;
            (i64::from(raw >> 3), 2)
        }
        [0xF1, a, b, ..] => (i64::from(i16::from_le_bytes([a, b])), 3),
        [0xF2, a, b, c, ..] => (i64::from(i32::from_le_bytes([0, a, b, c]) >> 8), 4),
        [0xF3, a, b, c, d, ..] => (i64::from(i32::from_le_bytes([a, b, c, d])), 5),
        [0xF4, a, b, c, d, e, f, g, h, ..] => (i64::from_le_bytes([a, b, c, d, e, f, g, h]), 9),
        _ => return None,
    })
}

pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N]
        .try_into()
        .expect("a slice of N bytes")
}

/// Start of the entry that ends at `end`.
pub(super) fn entry_before(bytes: &[u8], end: usize) -> usize {
    let mut size = 0usize;
    let mut at = end;
    let mut shift = 0;
    loop {
        at -= 1;
        size |= usize::from(bytes[at] & 0x7F) << shift;
        if bytes[at] & 0x80 == 0 {
            return at - size;
        }
        shift += 7;
    }
}

/// Bytes that the backlen of an entry of `size` bytes takes. The limits are strict on purpose: an entry of exactly
/// 16383 bytes has three.
fn backlen_width(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..16383 => 2,
        16383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

fn encoded_len(element: Element) -> usize {
    match element {
        Element::Str(bytes) => {
            bytes.len()
                + match bytes.len() {
                    0..64 => 1,
                    64..4096 => 2,
                    _ => 5,
                }
        }
        Element::Int(number) => match number {
            0..=127 => 1,
            -4096..=4095 => 2,
            -0x8000..=0x7FFF => 3,
            -0x80_0000..=0x7F_FFFF => 4,
            -0x8000_0000..=0x7FFF_FFFF => 5,
            _ => 9,
        },
    }
}

pub(super) fn entry_len(element: Element) -> usize {
    let size = encoded_len(element);
    size + backlen_width(size)
}

/// Writes the entry into `into`, which has exactly its size.
pub(super) fn encode(into: &mut [u8], element: Element) {
    let size = encoded_len(element);
    let (data, backlen) = into.split_at_mut(size);
    match element {
        Element::Str(bytes) => {
            let len = bytes.len();
            match len {
                0..64 => data[0] = 0x80 | len as u8,
                64..4096 => data[..2].copy_from_slice(&(0xE000 | len as u16).to_be_bytes()),
                _ => {
                    data[0] = 0xF0;
                    data[1..5].copy_from_slice(&(len as u32).to_le_bytes());
                }
            }
            data[size - len..].copy_from_slice(bytes);
        }
        Element::Int(number) => match size {
            1 => data[0] = number as u8,
            2 => data.copy_from_slice(&(0xC000 | (number as u16 & 0x1FFF)).to_be_bytes()),
            _ => {
                data[0] = match size {
                    3 => 0xF1,
                    4 => 0xF2,
                    5 => 0xF3,
                    _ => 0xF4,
                };
                data[1..].copy_from_slice(&number.to_le_bytes()[..size - 1]);
            }
        },
    }
    let mut rest = size;
    for byte in backlen.iter_mut().rev() {
        *byte = (rest & 0x7F) as u8 | 0x80;
        rest >>= 7;
    }
    backlen[0] &= 0x7F;
}

/// Checks every byte of a listpack from outside and counts its elements.
pub fn check(bytes: &[u8]) -> Result<usize, BlobError> {
    check_frame(bytes)?;
    let end = bytes.len() - 1;
    let mut offset = HEADER;
    let mut count = 0usize;
    while offset < end {
        offset += check_entry(bytes, offset, end)?;
        count += 1;
    }
    check_count(bytes, count)?;
    Ok(count)
}

/// Checks the sizes and the end mark around the entries.
pub(super) fn check_frame(bytes: &[u8]) -> Result<(), BlobError> {
    let len = bytes.len() as u64;
    let short = Listpack::EMPTY_BYTES as u64;
    if len < short {
        return Err(BlobError::new(0, "listpack header", short, len));
    }
    let total = u64::from(u32::from_le_bytes(array(bytes, 0)));
    if total != len {
        return Err(BlobError::new(0, "listpack total bytes", len, total));
    }
    let end = bytes.len() - 1;
    if bytes[end] != END {
        let found = u64::from(bytes[end]);
        return Err(BlobError::new(
            end,
            "listpack end byte",
            u64::from(END),
            found,
        ));
    }
    Ok(())
}

/// Checks the stored number of elements.
pub(super) fn check_count(bytes: &[u8], count: usize) -> Result<(), BlobError> {
    let stored = u16::from_le_bytes(array(bytes, 4));
    if stored != COUNT_UNKNOWN && usize::from(stored) != count {
        let found = u64::from(stored);
        return Err(BlobError::new(4, "listpack count", count as u64, found));
    }
    Ok(())
}

/// Checks the entry at `offset`, which must end before `end`, and returns its size.
pub(super) fn check_entry(bytes: &[u8], offset: usize, end: usize) -> Result<usize, BlobError> {
    let left = end - offset;
    let first = bytes[offset];
    let prefix = match first {
        0..=0xBF => 1,
        0xC0..=0xEF => 2,
        0xF0 | 0xF3 => 5,
        0xF1 => 3,
        0xF2 => 4,
        0xF4 => 9,
        0xF5..=0xFF => {
            return Err(BlobError::new(
                offset,
                "listpack encoding byte, at most",
                0xF4,
                u64::from(first),
            ));
        }
    };
    if prefix > left {
        return Err(BlobError::new(
            offset,
            "listpack element bytes",
            prefix as u64,
            left as u64,
        ));
    }
    let data = match first {
        0x80..=0xBF => usize::from(first & 0x3F),
        0xE0..=0xEF => usize::from(first & 0x0F) << 8 | usize::from(bytes[offset + 1]),
        0xF0 => u32::from_le_bytes(array(bytes, offset + 1)) as usize,
        _ => 0,
    };
    let size = prefix + data;
    let width = backlen_width(size);
    if size + width > left {
        return Err(BlobError::new(
            offset,
            "listpack element bytes",
            (size + width) as u64,
            left as u64,
        ));
    }
    let mut backlen = 0u64;
    for (index, byte) in bytes[offset + size..offset + size + width]
        .iter()
        .enumerate()
    {
        backlen = backlen << 7 | u64::from(byte & 0x7F);
        if (byte & 0x80 != 0) != (index > 0) {
            let wanted = if index > 0 { byte | 0x80 } else { byte & 0x7F };
            let at = offset + size + index;
            return Err(BlobError::new(
                at,
                "listpack backlen byte",
                u64::from(wanted),
                u64::from(*byte),
            ));
        }
    }
    if backlen != size as u64 {
        return Err(BlobError::new(
            offset + size,
            "listpack backlen",
            size as u64,
            backlen,
        ));
    }
    Ok(size + width)
}
