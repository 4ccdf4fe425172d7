//! The length prefix, which every string, count and number of an RDB file starts with.
//!
//! ```text
//! 00xxxxxx               6 bits             10000000 + u32 BE
//! 01xxxxxx + 1 byte      14 bits, BE        10000001 + u64 BE
//! 11xxxxxx               no length: a string in special form x
//! ```
//! Readers take forms longer than necessary; `put` writes the shortest.

/// What a length prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Plain(u64),
    /// The low six bits: 0, 1, 2 are integers of 1, 2, 4 bytes, 3 is LZF, the rest is unknown.
    Special(u8),
}

/// The special forms of strings.
pub const INT8: u8 = 0;
pub const INT16: u8 = 1;
pub const INT32: u8 = 2;
pub const LZF: u8 = 3;

/// Longest prefix in bytes.
pub const LEN_MAX: usize = 9;

/// What the start of some bytes holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// A prefix of that many bytes.
    Whole(Length, usize),
    /// It takes that many bytes, and they are not all here.
    Short { wanted: usize },
    /// No prefix starts with this byte.
    Bad(u8),
}

/// Reads the prefix that `bytes` starts with.
///
/// ```
/// use dfsnap_formats::rdb::length::{Length, Prefix, read};
/// assert_eq!(read(&[0x41, 0x00]), Prefix::Whole(Length::Plain(256), 2));
/// assert_eq!(read(&[0x80, 0, 0]), Prefix::Short { wanted: 5 });
/// ```
#[inline]
pub fn read(bytes: &[u8]) -> Prefix {
    let Some(&first) = bytes.first() else {
        return Prefix::Short { wanted: 1 };
    };
    match first >> 6 {
        0 => Prefix::Whole(Length::Plain(u64::from(first)), 1),
        1 => match bytes.get(1) {
            Some(&low) => {
                let value = u64::from(first & 0x3F) << 8 | u64::from(low);
                Prefix::Whole(Length::Plain(value), 2)
            }
            None => Prefix::Short { wanted: 2 },
        },
        3 => Prefix::Whole(Length::Special(first & 0x3F), 1),
        _ => read_wide(first, bytes),
    }
}

fn read_wide(first: u8, bytes: &[u8]) -> Prefix {
    match first {
        0x80 => match bytes.get(1..5) {
            Some(value) => {
                let value = u32::from_be_bytes(value.try_into().expect("4 bytes"));
                Prefix::Whole(Length::Plain(u64::from(value)), 5)
            }
            None => Prefix::Short { wanted: 5 },
        },
        0x81 => match bytes.get(1..9) {
            Some(value) => {
                let value = u64::from_be_bytes(value.try_into().expect("8 bytes"));
                Prefix::Whole(Length::Plain(value), 9)
            }
            None => Prefix::Short { wanted: 9 },
        },
        bad => Prefix::Bad(bad),
    }
}

/// Appends `value` in its shortest form.
#[inline]
pub fn put(out: &mut Vec<u8>, value: u64) {
    if value < 1 << 6 {
        out.push(value as u8);
    } else if value < 1 << 14 {
        out.extend_from_slice(&[0x40 | (value >> 8) as u8, value as u8]);
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0x80);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0x81);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Bytes that `put` takes for `value`.
pub fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..=0xFFFF_FFFF => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_reads_each_form() {
        let rows: [(&str, &[u8], Prefix); 9] = [
            ("6 bit", &[0x3F], Prefix::Whole(Length::Plain(63), 1)),
            (
                "14 bit",
                &[0x7F, 0xFF],
                Prefix::Whole(Length::Plain(16383), 2),
            ),
            (
                "14 bit, longer than necessary",
                &[0x40, 5],
                Prefix::Whole(Length::Plain(5), 2),
            ),
            (
                "32 bit is big endian",
                &[0x80, 0, 0, 1, 0],
                Prefix::Whole(Length::Plain(256), 5),
            ),
            (
                "64 bit",
                &[0x81, 0, 0, 0, 1, 0, 0, 0, 0],
                Prefix::Whole(Length::Plain(1 << 32), 9),
            ),
            ("special", &[0xC3], Prefix::Whole(Length::Special(3), 1)),
            ("14 bit, short", &[0x40], Prefix::Short { wanted: 2 }),
            (
                "64 bit, short",
                &[0x81, 1, 2, 3],
                Prefix::Short { wanted: 9 },
            ),
            ("unknown", &[0x82, 0, 0, 0, 0], Prefix::Bad(0x82)),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(read(bytes), want, "{name}");
        }
        assert_eq!(read(&[]), Prefix::Short { wanted: 1 });
    }

    #[test]
    fn length_comes_back_in_its_shortest_form() {
        let edges = [
            0,
            63,
            64,
            16383,
            16384,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ];
        for (value, bytes) in edges.into_iter().zip([1, 1, 2, 2, 5, 5, 9, 9]) {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(read(&out), Prefix::Whole(Length::Plain(value), bytes));
            assert_eq!((out.len(), size(value)), (bytes, bytes), "{value}");
            for cut in 0..out.len() {
                assert!(
                    matches!(read(&out[..cut]), Prefix::Short { .. }),
                    "{value} cut at {cut}"
                );
            }
        }
    }
}
