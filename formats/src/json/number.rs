//! Whole numbers as digits, straight into the text.
//!
//! The writer has one or two for most elements. Digits are made in registers, eight at a time, and stored at once: a library
//! that stores them in pairs makes whoever copies them wait for its stores.

/// What eight digits can say.
const EIGHT: u64 = 100_000_000;

/// Appends the digits of `number`.
#[inline]
pub(super) fn append(number: u64, out: &mut Vec<u8>) {
    if number >= EIGHT {
        return append_long(number, out);
    }
    let (start, (digits, len)) = (out.len(), without_zeros(eight_digits(number)));
    out.extend_from_slice(&digits);
    out.truncate(start + len);
}

#[inline(never)]
fn append_long(number: u64, out: &mut Vec<u8>) {
    if number >= EIGHT * EIGHT {
        return out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
    let (start, (digits, len)) = (out.len(), without_zeros(eight_digits(number / EIGHT)));
    let last = (eight_digits(number % EIGHT) + ZEROS).to_le_bytes();
    // Room for both, as if all digits of the first half were there.
    out.extend_from_slice(&[0; 16]);
    if let Some(room) = out[start..].first_chunk_mut() {
        *room = digits;
    }
    if let Some(room) = out[start + len..].first_chunk_mut() {
        *room = last;
    }
    out.truncate(start + len + 8);
}

/// Two numbers with a dash between them and a quote behind: the id of an entry, of which the first is a time and the second hardly ever more than
/// eight digits.
#[inline]
pub(super) fn append_id(first: u64, second: u64, out: &mut Vec<u8>) {
    if !(EIGHT..EIGHT * EIGHT).contains(&first) || second >= EIGHT {
        append(first, out);
        out.push(b'-');
        append(second, out);
        return out.push(b'"');
    }
    let start = out.len();
    let (high, high_len) = without_zeros(eight_digits(first / EIGHT));
    let low = (eight_digits(first % EIGHT) + ZEROS).to_le_bytes();
    let (rest, rest_len) = without_zeros(eight_digits(second));
    // Room for all digits that there can be; each move overwrites what is too much of the one before.
    out.extend_from_slice(&[b'"'; 26]);
    let mut put = |at: usize, digits: [u8; 8]| {
        if let Some(room) = out[at..].first_chunk_mut() {
            *room = digits;
        }
        at + 8
    };
    put(start, high);
    let dash = put(start + high_len, low);
    put(dash + 1, rest);
    let end = dash + 1 + rest_len;
    out[dash] = b'-';
    out[end] = b'"';
    out.truncate(end + 1);
}

/// The same for numbers below zero too.
#[inline]
pub(super) fn append_signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    append(number.unsigned_abs(), out);
}

/// In quotes, behind the byte `before`.
#[inline]
pub(super) fn append_quoted(before: u8, number: i64, out: &mut Vec<u8>) {
    if let Ok(number) = u64::try_from(number)
        && number < EIGHT
    {
        let (start, (digits, len)) = (out.len(), without_zeros(eight_digits(number)));
        out.extend_from_slice(&[b'"'; 11]);
        if let Some(room) = out[start..].first_chunk_mut::<11>() {
            room[0] = before;
            room[2..10].copy_from_slice(&digits);
            room[2 + len] = b'"';
        }
        out.truncate(start + 3 + len);
    } else {
        out.extend_from_slice(&[before, b'"']);
        append_signed(number, out);
        out.push(b'"');
    }
}

/// Appends a colon and what a library has made of a number: most have sixteen characters and more, and are copied in two moves.
#[inline]
pub(super) fn append_digits(text: &[u8], out: &mut Vec<u8>) {
    let (start, len) = (out.len() + 1, text.len());
    if let (Some(first), Some(last), ..=32) =
        (text.first_chunk::<16>(), text.last_chunk::<16>(), len)
    {
        out.extend_from_slice(&[b':'; 33]);
        let to = &mut out[start..start + len];
        if let Some(to) = to.last_chunk_mut() {
            *to = *last;
        }
        if let Some(to) = to.first_chunk_mut() {
            *to = *first;
        }
        out.truncate(start + len);
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
            let mut out = b"kept".to_vec();
            append(number, &mut out);
            assert_eq!(out, format!("kept{number}").as_bytes(), "{number}");
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
        for (first, second) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
            let mut out = b"kept".to_vec();
            append_id(first, second, &mut out);
            let want = format!("kept{first}-{second}\"");
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn digits_of_any_length_are_copied() {
        let digits = b"0.123456789012345678901234567890123456789";
        for len in 0..digits.len() {
            let mut out = b"kept".to_vec();
            append_digits(&digits[..len], &mut out);
            assert_eq!(out, [b"kept:", &digits[..len]].concat());
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
            let mut out = Vec::new();
            append_signed(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
            out.clear();
            append_quoted(b',', number, &mut out);
            assert_eq!(out, format!(",\"{number}\"").as_bytes());
        }
    }
}
