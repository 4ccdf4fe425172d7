//! Bytes as JSON strings: what is text stands as text, what is not stands as base64 and says so.
//!
//! The writer calls it for every key, element and field, so runs that need no escape are found eight bytes at a time
//! and copied whole.

use super::base64;
use crate::encoding::listpack::Element;

/// Before a member's name that is base64. A name that is text but starts like this is written as base64 too, so that
/// no name has two readings.
pub(crate) const BASE64_PREFIX: &[u8] = b"base64:";

/// A string, or `{"base64":"…"}`.
#[inline]
pub(crate) fn value(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        quoted_plain(bytes, out);
    } else if std::str::from_utf8(bytes).is_ok() {
        quoted(bytes, out);
    } else {
        base64_value(bytes, out);
    }
}

#[inline]
pub(crate) fn element(element: Element<'_>, out: &mut Vec<u8>) {
    match element {
        Element::Str(bytes) => value(bytes, out),
        Element::Int(number) => quoted_plain(itoa::Buffer::new().format(number).as_bytes(), out),
    }
}

/// The name of a member, without the colon.
#[inline]
pub(crate) fn name(element: Element<'_>, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let bytes = element.text(&mut buffer);
    if bytes.starts_with(BASE64_PREFIX) {
        base64_name(bytes, out);
    } else if is_plain(bytes) {
        quoted_plain(bytes, out);
    } else if std::str::from_utf8(bytes).is_ok() {
        quoted(bytes, out);
    } else {
        base64_name(bytes, out);
    }
}

#[cold]
fn base64_value(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"base64\":\"");
    base64::encode(bytes, out);
    out.extend_from_slice(b"\"}");
}

#[cold]
fn base64_name(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64_PREFIX);
    base64::encode(bytes, out);
    out.push(b'"');
}

/// Bytes that stand for themselves. Few of them are copied by two moves of a fixed size that overlap, into room that is
/// quotes already: calls and checks of the capacity for so few would cost more than the moves.
#[inline]
pub(crate) fn quoted_plain(bytes: &[u8], out: &mut Vec<u8>) {
    let (start, len) = (out.len(), bytes.len());
    if let (Some(first), Some(last), 16..=32) =
        (bytes.first_chunk::<16>(), bytes.last_chunk::<16>(), len)
    {
        out.extend_from_slice(&[b'"'; 34]);
        overlapping(first, last, &mut out[start + 1..start + 1 + len]);
    } else if let (Some(first), Some(last), 8..=16) =
        (bytes.first_chunk::<8>(), bytes.last_chunk::<8>(), len)
    {
        out.extend_from_slice(&[b'"'; 18]);
        overlapping(first, last, &mut out[start + 1..start + 1 + len]);
    } else if let (Some(first), Some(last), 4..=8) =
        (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), len)
    {
        out.extend_from_slice(&[b'"'; 10]);
        overlapping(first, last, &mut out[start + 1..start + 1 + len]);
    } else if len < 4 {
        out.extend_from_slice(&[b'"'; 5]);
        for (to, from) in out[start + 1..].iter_mut().zip(bytes) {
            *to = *from;
        }
    } else {
        out.reserve(len + 2);
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    }
    out.truncate(start + len + 2);
}

#[inline]
fn overlapping<const N: usize>(first: &[u8; N], last: &[u8; N], to: &mut [u8]) {
    if let Some(to) = to.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
}

/// UTF-8 in quotes, with the escapes that JSON demands and no others.
pub(crate) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        out.extend_from_slice(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let digit = |bits: u8| b"0123456789abcdef"[usize::from(bits & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Whether all of it is ASCII that stands for itself between quotes.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|byte| plain(*byte));
    };
    // The last word overlaps the one before.
    let (words, _) = bytes.as_chunks::<8>();
    words
        .iter()
        .chain([last])
        .all(|word| plain_word(u64::from_le_bytes(*word)))
}

#[inline]
fn plain(byte: u8) -> bool {
    byte < 0x80 && !needs_escape(byte)
}

/// The top bit of each byte says: below 0x20, a quote, a backslash, or not ASCII. The sums stay within their bytes
/// because bytes with the top bit set are refused anyway.
#[inline]
fn plain_word(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    let low = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ QUOTES).wrapping_sub(ONES);
    let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES);
    (word | low | quote | backslash) & TOPS == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bytes_take_the_shortest_form_that_says_them() {
        let rows: [(&str, &[u8], &str, &str); 8] = [
            ("plain", b"abc", r#""abc""#, r#""abc""#),
            ("empty", b"", r#""""#, r#""""#),
            ("quotes", b"a\"b\\", r#""a\"b\\""#, r#""a\"b\\""#),
            (
                "control",
                b"\n\r\t\x08\x0c\x00\x1f",
                r#""\n\r\t\b\f\u0000\u001f""#,
                r#""\n\r\t\b\f\u0000\u001f""#,
            ),
            (
                "beyond ASCII",
                "grün, \u{2028}".as_bytes(),
                "\"grün, \u{2028}\"",
                "\"grün, \u{2028}\"",
            ),
            (
                "no text",
                b"\xff\x00",
                r#"{"base64":"/wA="}"#,
                r#""base64:/wA=""#,
            ),
            (
                "text like an escape",
                b"base64:",
                r#""base64:""#,
                r#""base64:YmFzZTY0Og==""#,
            ),
            ("delete stands for itself", b"\x7f", "\"\x7f\"", "\"\x7f\""),
        ];
        for (case, bytes, as_value, as_name) in rows {
            assert_eq!(written(|out| value(bytes, out)), as_value, "{case}");
            assert_eq!(
                written(|out| name(Element::Str(bytes), out)),
                as_name,
                "{case}"
            );
        }
        assert_eq!(written(|out| element(Element::Int(-7), out)), "\"-7\"");
        assert_eq!(written(|out| name(Element::Int(-7), out)), "\"-7\"");
    }

    #[test]
    fn plain_is_decided_alike_by_words_and_bytes() {
        for byte in 0..=255u8 {
            for at in 0..11 {
                let mut bytes = *b"abcdefghijk";
                bytes[at] = byte;
                assert_eq!(is_plain(&bytes), plain(byte), "{byte} at {at}");
                bytes[(at + 1) % 11] = 0x7F;
                assert_eq!(is_plain(&bytes), plain(byte), "{byte} at {at}, 0x7f behind");
            }
        }
    }

    proptest! {
        #[test]
        fn every_text_is_what_another_reader_takes_it_for(text in any::<String>()) {
            let json = written(|out| value(text.as_bytes(), out));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
