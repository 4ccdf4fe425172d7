//! How many elements stored values have, as they say themselves.
//!
//! Lists of keys and reports ask for every key, so nothing is opened: packs tell how many they hold, and are believed. Of a compressed one
//! all is checked, but only its first bytes are unpacked.

use super::stored::{Encoding, Stored, container, encoding_of, for_each_stored, node_id};
use super::{Flavor, shape, type_code};
use crate::encoding::listpack;
use crate::encoding::ziplist::Ziplist;
use crate::encoding::zipmap::Zipmap;
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Text};
use crate::lzf;
use shape::Part as Shape;

/// How many elements a stored value has, as `Value::count`, without opening its packs. Of a string its bytes; of what has no elements 1.
///
/// ```
/// use dfsnap_formats::rdb::{Flavor, count::element_count, type_code};
/// assert_eq!(element_count(Flavor::Redis, type_code::SET, b"\x02\x01a\x01b"), Ok(2));
/// ```
pub fn element_count(flavor: Flavor, code: u8, raw: &[u8]) -> Result<u64, Damage> {
    let mut cursor = Cursor::new(raw);
    let name = type_code::name(code);
    let count = match code {
        type_code::STRING => in_text(&mut cursor, "string", |text| Ok(text_bytes(text)))?,
        type_code::LIST_QUICKLIST => {
            let mut count = 0;
            for _ in 0..cursor.len(name)? {
                count += in_pack(&mut cursor, Encoding::Ziplist, "list, ziplist")?;
            }
            count
        }
        type_code::LIST_QUICKLIST_2 => {
            let mut count = 0;
            for _ in 0..cursor.len(name)? {
                let encoding = container(&mut cursor)?;
                count += in_pack(&mut cursor, encoding, "list, node")?;
            }
            count
        }
        type_code::STREAM | type_code::STREAM_2 | type_code::STREAM_3 | type_code::STREAM_4 => {
            let mut scratch = Vec::new();
            for _ in 0..cursor.len(name)? {
                node_id(&mut cursor, &mut scratch)?;
                in_text(&mut cursor, "stream node", |_| Ok(()))?;
            }
            // Counters and groups follow.
            return cursor.len("stream, length");
        }
        code => match (encoding_of(code), shape::of_value(flavor, code)) {
            (Some(encoding), _) => in_pack(&mut cursor, encoding, name)? / group_size(code),
            (None, Some([Shape::Repeat([Shape::Text, ..])])) => return cursor.len(name),
            _ => return in_pieces(flavor, code, raw),
        },
    };
    cursor.finish("bytes behind the value")?;
    Ok(count)
}

/// Types that few values have.
fn in_pieces(flavor: Flavor, code: u8, raw: &[u8]) -> Result<u64, Damage> {
    let mut count = 0;
    for_each_stored(flavor, code, raw, |piece| {
        count += match piece {
            Stored::Pack { encoding, bytes } => packed_count(encoding, bytes) / group_size(code),
            _ => 1,
        };
        Ok::<(), Damage>(())
    })?;
    Ok(count)
}

/// Passes a string, which is checked, and asks `found` what it comes to.
#[inline]
fn in_text<T>(
    cursor: &mut Cursor<'_>,
    reading: &'static str,
    found: impl FnOnce(Text<'_>) -> Result<T, lzf::LzfError>,
) -> Result<T, Damage> {
    let start = cursor.clone();
    let text = cursor.text(reading)?;
    let checked = match text {
        Text::Packed(packed, len) => lzf::check(packed, len),
        Text::Plain(_) | Text::Int(_) => Ok(()),
    };
    let told = checked.and_then(|()| found(text));
    told.map_err(|error| start.damage(reading, Problem::Lzf(error)))
}

fn text_bytes(text: Text<'_>) -> u64 {
    match text {
        Text::Plain(bytes) => bytes.len() as u64,
        Text::Int(number) => itoa::Buffer::new().format(number).len() as u64,
        Text::Packed(_, len) => len as u64,
    }
}

fn in_pack(
    cursor: &mut Cursor<'_>,
    encoding: Encoding,
    reading: &'static str,
) -> Result<u64, Damage> {
    in_text(cursor, reading, |text| {
        if let Text::Packed(packed, len) = text {
            let mut header = [0; HEADER_BYTES_MAX];
            let header = &mut header[..len.min(HEADER_BYTES_MAX)];
            lzf::expand_start(packed, header);
            if let Some(count) = told(encoding, header) {
                return Ok(count);
            }
        }
        match text {
            Text::Plain(bytes) => Ok(packed_count(encoding, bytes)),
            text => {
                let mut bytes = Vec::new();
                text.append_to(&mut bytes)?;
                Ok(packed_count(encoding, &bytes))
            }
        }
    })
}

/// Elements of a pack for one of the collection.
fn group_size(code: u8) -> u64 {
    match code {
        type_code::HASH_LISTPACK_EX | type_code::HASH_LISTPACK_EX_PRE_GA => 3,
        type_code::ZSET_ZIPLIST
        | type_code::ZSET_LISTPACK
        | type_code::HASH_ZIPLIST
        | type_code::HASH_LISTPACK => 2,
        _ => 1,
    }
}

/// As far as the number of elements stands from the start of a pack.
const HEADER_BYTES_MAX: usize = 10;

/// The number of elements that a pack says it has; none where it does not say it.
fn told(encoding: Encoding, bytes: &[u8]) -> Option<u64> {
    const UNKNOWN: u16 = u16::MAX;
    const UNKNOWN_IN_ZIPMAP: u8 = 254;
    let field = |at: usize| {
        let raw = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_le_bytes(raw))
    };
    match encoding {
        Encoding::Plain => Some(1),
        Encoding::Intset => {
            let raw = bytes.get(4..8).and_then(|raw| raw.try_into().ok());
            raw.map(|raw| u64::from(u32::from_le_bytes(raw)))
        }
        Encoding::Listpack => field(4).filter(|count| *count != UNKNOWN).map(u64::from),
        Encoding::Ziplist => field(8).filter(|count| *count != UNKNOWN).map(u64::from),
        Encoding::Zipmap => {
            let first = bytes.first().filter(|count| **count < UNKNOWN_IN_ZIPMAP);
            first.map(|count| u64::from(*count))
        }
    }
}

/// The same; where it does not say it, they are counted as far as it is sound.
fn packed_count(encoding: Encoding, bytes: &[u8]) -> u64 {
    told(encoding, bytes).unwrap_or_else(|| match encoding {
        Encoding::Ziplist => Ziplist::new(bytes).map_or(0, |list| list.len() as u64),
        Encoding::Zipmap => Zipmap::new(bytes).map_or(0, |map| map.len() as u64),
        _ => listpack::check(bytes).map_or(0, |count| count as u64),
    })
}
