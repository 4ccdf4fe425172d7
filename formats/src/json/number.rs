//! Whole numbers as digits, straight into the text.
//!
//! The writer has one or two for most elements. Digits are made in registers, eight at a time, and stored at once: a library
//! that stores them in pairs makes whoever copies them wait for its stores.

use super::buffer::Buffer;
use crate::encoding::stream::StreamId;

/// What eight digits can say.
const EIGHT: u64 = 100_000_000;

/// The digits of `number`.
#[inline]
pub(super) fn append(number: u64, out: &mut Buffer) {
    if number < EIGHT
        && let Some(room) = out.ready()
    {
        let (digits, len) = without_zeros(eight_digits(number));
        *room = digits;
        out.advance(len);
    } else {
        append_long(number, out);
    }
}

/// One that is long, or that finds no room.
#[inline(never)]
fn append_long(number: u64, out: &mut Buffer) {
    if (EIGHT..EIGHT * EIGHT).contains(&number)
        && let Some(room) = out.ready::<16>()
    {
        let (digits, len) = without_zeros(eight_digits(number / EIGHT));
        let last = (eight_digits(number % EIGHT) + ZEROS).to_le_bytes();
        put(room, 0, digits);
        put(room, len, last);
        out.advance(len + 8);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

/// Eight digits at `at`; what is too much of those before is overwritten.
#[inline(always)]
fn put<const N: usize>(room: &mut [u8; N], at: usize, digits: [u8; 8]) {
    if let Some(room) = room.get_mut(at..at + 8) {
        room.copy_from_slice(&digits);
    }
}

/// An id with a quote behind: the first number is a time and the second hardly ever more than eight digits.
#[inline(never)]
pub(super) fn append_id(id: StreamId, out: &mut Buffer) {
    let StreamId { ms, seq } = id;
    // Room for all digits that there can be.
    if (EIGHT..EIGHT * EIGHT).contains(&ms)
        && seq < EIGHT
        && let Some(room) = out.ready::<26>()
    {
        let (high, high_len) = without_zeros(eight_digits(ms / EIGHT));
        let low = (eight_digits(ms % EIGHT) + ZEROS).to_le_bytes();
        let (rest, rest_len) = without_zeros(eight_digits(seq));
        let dash = high_len + 8;
        let end = dash + 1 + rest_len;
        put(room, 0, high);
        put(room, high_len, low);
        put(room, dash + 1, rest);
        room[dash] = b'-';
        room[end] = b'"';
        out.advance(end + 1);
    } else {
        append(ms, out);
        out.push(b'-');
        append(seq, out);
        out.push(b'"');
    }
}

/// The same for numbers below zero too.
#[inline]
pub(super) fn append_signed(number: i64, out: &mut Buffer) {
    if number < 0 {
        out.push(b'-');
    }
    append(number.unsigned_abs(), out);
}

/// In quotes, behind the byte `before`.
#[inline(never)]
pub(super) fn append_quoted(before: u8, number: i64, out: &mut Buffer) {
    if (0..EIGHT as i64).contains(&number)
        && let Some(room) = out.ready::<11>()
    {
        let (digits, len) = without_zeros(eight_digits(number as u64));
        room[0] = before;
        room[1] = b'"';
        room[2..10].copy_from_slice(&digits);
        room[2 + len] = b'"';
        out.advance(3 + len);
    } else {
        append_long_quoted(before, number, out);
    }
}

#[inline(never)]
fn append_long_quoted(before: u8, number: i64, out: &mut Buffer) {
    out.array([before, b'"']);
    append_signed(number, out);
    out.push(b'"');
}

/// A colon and what a library has made of a number: most have sixteen characters and more, and are copied in two moves.
#[inline]
pub(super) fn append_digits(text: &[u8], out: &mut Buffer) {
    let len = text.len();
    if let (Some(first), Some(last), ..=32, Some(room)) = (
        text.first_chunk::<16>(),
        text.last_chunk::<16>(),
        len,
        out.ready::<33>(),
    ) {
        room[0] = b':';
        room[1..17].copy_from_slice(first);
        room[1 + len - 16..1 + len].copy_from_slice(last);
        out.advance(1 + len);
    } else {
        out.push(b':');
        out.extend_from_slice(text);
    }
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The values of the eight digits of `number`, which has no more, the first in the lowest byte.
#[inline]
fn eight_digits(number: u64) -> u64 {
    debug_assert!(number < EIGHT);
    // Each step splits every field in two, of half as many digits: the quotient stays, the rest goes above it. The products
    // are those that are exact for all fields of that many digits.
    let halves = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000F_000F_000F_000F;
    tens | (pairs - tens * 10) << 8
}

/// As text, without the zeros before the first other digit, and how many digits are left; one is left of 0.
#[inline]
fn without_zeros(digits: u64) -> ([u8; 8], usize) {
    // The last digit stays, whatever it is.
    let zeros = (digits | 1 << 63).trailing_zeros() / 8;
    let text = (digits + ZEROS) >> (8 * zeros);
    (text.to_le_bytes(), 8 - zeros as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Buffer)) -> String {
        let mut out = Buffer::from(b"kept".to_vec());
        write(&mut out);
        // Once more, where bytes are ready.
        let len = out.len();
        write(&mut out);
        assert_eq!(out[len..], out[b"kept".len()..len]);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn digits_are_those_of_printing() {
        let powers = (0..20).map(|power| 10u64.pow(power));
        let around = powers.flat_map(|power| [power - 1, power, power + 1, power / 3]);
        let scattered = (0..200_000u64).map(|i| {
            let mixed = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed >> (mixed & 63)
        });
        for number in (0..100_000)
            .chain(around)
            .chain(scattered)
            .chain([u64::MAX, u64::MAX - 1])
        {
            let found = written(|out| append(number, out));
            assert_eq!(found, format!("kept{number}"));
        }
    }

    #[test]
    fn ids_are_two_numbers_with_a_dash() {
        let numbers = [
            0,
            7,
            99_999_999,
            100_000_000,
            1_600_000_000_123,
            10_000_000_000_000,
            9_999_999_999_999_999,
            10_000_000_000_000_000,
            u64::MAX,
        ];
        for (ms, seq) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
            let found = written(|out| append_id(StreamId { ms, seq }, out));
            assert_eq!(found, format!("kept{ms}-{seq}\""));
        }
    }

    #[test]
    fn digits_of_any_length_are_copied() {
        let digits = b"0.123456789012345678901234567890123456789";
        for len in 0..digits.len() {
            let found = written(|out| append_digits(&digits[..len], out));
            assert_eq!(found.as_bytes(), [b"kept:", &digits[..len]].concat());
        }
    }

    #[test]
    fn every_field_of_eight_digits_is_split_exactly() {
        for number in 0..10_000u64 {
            for place in [number, number * 10_000] {
                let digits = eight_digits(place).to_le_bytes().map(|digit| digit + b'0');
                assert_eq!(digits.to_vec(), format!("{place:08}").into_bytes());
            }
        }
    }

    #[test]
    fn signs_stand_before_the_digits() {
        for number in [
            0,
            -1,
            1,
            99_999_999,
            100_000_000,
            -99_999_999,
            i64::MIN,
            i64::MAX,
        ] {
            let found = written(|out| append_signed(number, out));
            assert_eq!(found, format!("kept{number}"));
            let found = written(|out| append_quoted(b',', number, out));
            assert_eq!(found, format!("kept,\"{number}\""));
        }
    }
}
