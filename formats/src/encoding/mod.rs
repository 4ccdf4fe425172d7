//! The packed blobs of the Redis family: whole collections in one run of bytes.
//!
//! A type here owns bytes that *are* the stored form, so that saving and loading are copies. Bytes from outside
//! come in through a deep check (`from_bytes`); from then on every operation relies on them being sound.

pub mod intset;
pub mod listpack;
pub mod stream;
pub mod unique;
pub mod ziplist;
pub mod zipmap;

/// Why a packed blob is not sound: where, what was being read, and both numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}: wanted {wanted}, found {found}")]
pub struct BlobError {
    /// Distance in bytes from the start of the blob.
    pub offset: usize,
    /// What was being read, as in "listpack backlen".
    pub what: &'static str,
    /// What a sound blob would hold, or the bytes needed.
    pub wanted: u64,
    /// What this one holds, or the bytes left.
    pub found: u64,
}

impl BlobError {
    pub(crate) fn new(offset: usize, what: &'static str, wanted: u64, found: u64) -> Self {
        BlobError {
            offset,
            what,
            wanted,
            found,
        }
    }
}

/// The integer that `text` is the canonical decimal of: no sign but `-`, no leading zero, no `-0`, within an i64.
pub fn canonical_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Most that begin like a number are no number.
    if digits.first_chunk().is_some_and(|word| !all_digits(word)) {
        return None;
    }
    let mut magnitude: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits stay below 10^19, which a u64 holds.
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

fn all_digits(word: &[u8; 8]) -> bool {
    const HIGHS: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const DIGITS: u64 = 0x3030_3030_3030_3030;
    const SIXES: u64 = 0x0606_0606_0606_0606;
    let word = u64::from_le_bytes(*word);
    // 0x30..=0x3F, and still that with six added.
    word & HIGHS == DIGITS && (word + SIXES) & HIGHS == DIGITS
}

/// The capacity to ask for when `bytes` are needed: the next size class of common allocators (16 bytes apart up to
/// 128, then four to a doubling), so that the slack is memory that the allocator would have spent anyway.
pub fn size_class(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16).max(16);
    }
    let step = (bytes - 1).ilog2() - 2;
    bytes.next_multiple_of(1 << step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_int_takes_only_the_text_that_printing_gives() {
        for number in [
            0,
            1,
            -1,
            10,
            -4096,
            i64::MAX,
            i64::MIN,
            999_999_999_999_999_999,
        ] {
            assert_eq!(
                canonical_int(number.to_string().as_bytes()),
                Some(number),
                "{number}"
            );
        }
        let refused = [
            "",
            "-",
            "-0",
            "+1",
            "01",
            "-01",
            " 1",
            "1 ",
            "1e3",
            "0x1",
            "9223372036854775808",
        ];
        for text in
            refused
                .into_iter()
                .chain(["-9223372036854775809", "99999999999999999999", "1a"])
        {
            assert_eq!(canonical_int(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn size_class_is_close_above() {
        for (bytes, want) in [
            (0, 16),
            (1, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (256, 256),
            (257, 320),
        ] {
            assert_eq!(size_class(bytes), want, "{bytes}");
        }
        for bytes in 1..100_000 {
            let class = size_class(bytes);
            assert!(
                class >= bytes && class <= bytes + bytes / 4 + 16,
                "{bytes} {class}"
            );
        }
    }
}
