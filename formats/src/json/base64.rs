//! Base64 with the standard alphabet and padding: how bytes that are no text go into text.

use super::buffer::Put;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// In the table of values: not a digit.
const NONE: u8 = 0xFF;

const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

pub(crate) fn encode(bytes: &[u8], out: &mut impl Put) {
    let digit = |bits: u32| ALPHABET[(bits & 63) as usize];
    let mut triples = bytes.chunks_exact(3);
    for triple in &mut triples {
        let bits = u32::from_be_bytes([0, triple[0], triple[1], triple[2]]);
        out.put(&[
            digit(bits >> 18),
            digit(bits >> 12),
            digit(bits >> 6),
            digit(bits),
        ]);
    }
    match *triples.remainder() {
        [a] => {
            let bits = u32::from(a) << 16;
            out.put(&[digit(bits >> 18), digit(bits >> 12), b'=', b'=']);
        }
        [a, b] => {
            let bits = u32::from(a) << 16 | u32::from(b) << 8;
            let digits = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), b'='];
            out.put(&digits);
        }
        _ => {}
    }
}

/// None: not what `encode` writes for any bytes. One text for the same bytes, so that equal texts are equal bytes.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = match text {
        [rest @ .., b'=', b'='] => rest,
        [rest @ .., b'='] => rest,
        _ => text,
    };
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for quad in digits.chunks(4) {
        let mut bits = 0u32;
        for byte in quad {
            let value = VALUES[usize::from(*byte)];
            if value == NONE {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        // Bits of the last digit that stand for no byte must be zero.
        match quad.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 if bits & 0b11 == 0 => out.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
            2 if bits & 0b1111 == 0 => out.extend_from_slice(&(bits << 12).to_be_bytes()[1..2]),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_texts_of_known_bytes() {
        let rows: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b"f", b"Zg=="),
            (b"fo", b"Zm8="),
            (b"foo", b"Zm9v"),
            (b"foobar", b"Zm9vYmFy"),
            (&[0xFF, 0xFE, 0xFB], b"//77"),
        ];
        for (bytes, text) in rows {
            let mut out = Vec::new();
            encode(bytes, &mut out);
            assert_eq!(out, text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zm 9", "Zg==Zg==", "Zm9\n",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn a_text_that_decodes_is_the_only_one(text in "[A-Z+/=]{0,12}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                let mut again = Vec::new();
                encode(&bytes, &mut again);
                prop_assert_eq!(again, text.into_bytes());
            }
        }
    }
}
