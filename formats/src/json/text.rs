//! Bytes as JSON strings: what is text stands as text, what is not stands as base64 and says so.
//!
//! The writer calls it for every key, element and field, so each brings the byte before it along, is looked at in words and
//! copied in a few moves.

use super::buffer::{Buffer, Put};
use super::{base64, number};
use crate::encoding::listpack::Element;
use wide::i8x16;

/// Before a member's name that is base64. A name that is text but starts like this is written as base64 too, so that
/// no name has two readings.
pub(crate) const BASE64_PREFIX: &[u8] = b"base64:";

/// A string, or `{"base64":"…"}`, behind `before`: the colon, comma or bracket that it follows.
#[inline(never)]
pub(super) fn value(before: u8, bytes: &[u8], out: &mut Buffer) {
    if !short_quoted(before, bytes, out) {
        long_value(before, bytes, out);
    }
}

#[inline(never)]
fn long_value(before: u8, bytes: &[u8], out: &mut Buffer) {
    if !quoted_if_plain(before, bytes, out) {
        out.push(before);
        lone_value(bytes, out);
    }
}

#[inline]
pub(super) fn element(before: u8, element: Element<'_>, out: &mut Buffer) {
    match element {
        Element::Str(bytes) => value(before, bytes, out),
        Element::Int(int) => number::append_quoted(before, int, out),
    }
}

/// The name of a member, without the colon.
#[inline]
pub(super) fn name(before: u8, element: Element<'_>, out: &mut Buffer) {
    match element {
        Element::Str(bytes) => name_of_text(before, bytes, out),
        Element::Int(int) => number::append_quoted(before, int, out),
    }
}

#[inline(never)]
fn name_of_text(before: u8, bytes: &[u8], out: &mut Buffer) {
    if bytes.starts_with(BASE64_PREFIX) || !short_quoted(before, bytes, out) {
        long_name(before, bytes, out);
    }
}

#[inline(never)]
fn long_name(before: u8, bytes: &[u8], out: &mut Buffer) {
    if bytes.starts_with(BASE64_PREFIX) || !quoted_if_plain(before, bytes, out) {
        out.push(before);
        lone_name(bytes, out);
    }
}

/// `value` with nothing before it.
#[inline(never)]
pub(crate) fn lone_value(bytes: &[u8], out: &mut impl Put) {
    if std::str::from_utf8(bytes).is_ok() {
        quoted(bytes, out);
    } else {
        out.put(b"{\"base64\":\"");
        base64::encode(bytes, out);
        out.put(b"\"}");
    }
}

/// `name` with nothing before it.
#[inline(never)]
pub(crate) fn lone_name(bytes: &[u8], out: &mut impl Put) {
    if !bytes.starts_with(BASE64_PREFIX) && std::str::from_utf8(bytes).is_ok() {
        quoted(bytes, out);
    } else {
        out.put(b"\"");
        out.put(BASE64_PREFIX);
        base64::encode(bytes, out);
        out.put(b"\"");
    }
}

/// What a text of at most 32 bytes takes.
const SHORT_ROOM: usize = 35;

/// Writes `before` and then at most 32 bytes that stand for themselves, in quotes. False: some do not, or are too many, or find no room; nothing was
/// written.
///
/// They are looked at, and copied, as two words of a fixed size that overlap: loops and calls for so few would cost more than the moves.
#[inline(always)]
fn short_quoted(before: u8, bytes: &[u8], out: &mut Buffer) -> bool {
    let len = bytes.len();
    let (..=32, Some(room)) = (len, out.ready::<SHORT_ROOM>()) else {
        return false;
    };
    room[0] = before;
    room[1] = b'"';
    if let (17.., Some(first), Some(last)) =
        (len, bytes.first_chunk::<16>(), bytes.last_chunk::<16>())
    {
        if (unusual(first) | unusual(last)).any() {
            return false;
        }
        room[2..18].copy_from_slice(first);
        room[2 + len - 16..2 + len].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let (one, two) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        let both = u128::from(one) | u128::from(two) << 64;
        if unusual(&both.to_le_bytes()).any() {
            return false;
        }
        room[2..10].copy_from_slice(first);
        room[2 + len - 8..2 + len].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (one, two) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        let both = u128::from(one) | u128::from(two) << 32;
        if unusual(&(both | both << 64).to_le_bytes()).any() {
            return false;
        }
        room[2..6].copy_from_slice(first);
        room[2 + len - 4..2 + len].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        let middle = &bytes[len / 2];
        if !plain(*first) || !plain(*middle) || !plain(*last) {
            return false;
        }
        room[2] = *first;
        room[2 + len / 2] = *middle;
        room[1 + len] = *last;
    }
    room[2 + len] = b'"';
    out.advance(len + 3);
    true
}

/// The same for any length and wherever there is room.
fn quoted_if_plain(before: u8, bytes: &[u8], out: &mut Buffer) -> bool {
    if !is_plain(bytes) {
        return false;
    }
    out.array([before, b'"']);
    out.extend_from_slice(bytes);
    out.push(b'"');
    true
}

/// UTF-8 in quotes, with the escapes that JSON demands and no others.
pub(crate) fn quoted(text: &[u8], out: &mut impl Put) {
    out.put(b"\"");
    let mut rest = text;
    while let Some(at) = next_escape(rest) {
        out.put(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.put(rest);
    out.put(b"\"");
}

/// Where the first byte is that cannot stand for itself.
fn next_escape(text: &[u8]) -> Option<usize> {
    let (chunks, rest) = text.as_chunks::<16>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = i8x16::new(chunk.map(|byte| byte as i8));
        // What is below zero is not ASCII, and stands for itself.
        let found = unusual(chunk) & !bytes.simd_lt(i8x16::splat(0));
        if found.any() {
            return Some(index * 16 + found.to_bitmask().trailing_zeros() as usize);
        }
    }
    let at = rest.iter().position(|byte| needs_escape(*byte))?;
    Some(chunks.len() * 16 + at)
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8, out: &mut impl Put) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let digit = |bits: u8| b"0123456789abcdef"[usize::from(bits & 15)];
            out.put(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.put(&[b'\\', short]);
}

/// Whether all of it is ASCII that stands for itself between quotes.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<16>() else {
        return bytes.iter().all(|byte| plain(*byte));
    };
    // The last chunk overlaps the one before. Four at a time: most are plain to their end.
    let (chunks, _) = bytes.as_chunks::<16>();
    let (fours, rest) = chunks.as_chunks::<4>();
    !fours.iter().any(|[a, b, c, d]| {
        let found = unusual(a) | unusual(b) | unusual(c) | unusual(d);
        found.any()
    }) && !rest.iter().any(|chunk| unusual(chunk).any())
        && !unusual(last).any()
}

#[inline]
fn plain(byte: u8) -> bool {
    byte < 0x80 && !needs_escape(byte)
}

/// Which bytes are below 0x20, a quote, a backslash, or not ASCII.
#[inline(always)]
fn unusual(chunk: &[u8; 16]) -> i8x16 {
    let bytes = i8x16::new(chunk.map(|byte| byte as i8));
    // What is not ASCII is below zero.
    bytes.simd_lt(i8x16::splat(0x20))
        | bytes.simd_eq(i8x16::splat(b'"' as i8))
        | bytes.simd_eq(i8x16::splat(b'\\' as i8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl Fn(&mut Buffer)) -> String {
        let mut out = Buffer::new();
        write(&mut out);
        // Once more, where bytes are ready.
        let len = out.len();
        write(&mut out);
        assert_eq!(out[len..], out[..len]);
        String::from_utf8(out[..len].to_vec()).unwrap()
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
            let as_element = Element::Str(bytes);
            let (as_value, as_name) = (format!(":{as_value}"), format!(",{as_name}"));
            assert_eq!(written(|out| value(b':', bytes, out)), as_value, "{case}");
            assert_eq!(
                written(|out| name(b',', as_element, out)),
                as_name,
                "{case}"
            );
        }
        let number = Element::Int(-7);
        assert_eq!(written(|out| element(b'[', number, out)), "[\"-7\"");
        assert_eq!(written(|out| name(b'{', number, out)), "{\"-7\"");
    }

    #[test]
    fn plain_is_decided_alike_by_words_and_bytes() {
        for byte in 0..=255u8 {
            for (len, at) in (1..70).flat_map(|len| (0..len).map(move |at| (len, at))) {
                let mut bytes = vec![b'a'; len];
                bytes[at] = byte;
                let case = format!("{byte} at {at} of {len}");
                assert_eq!(is_plain(&bytes), plain(byte), "{case}");
                let found = written(|out| {
                    assert_eq!(quoted_if_plain(b':', &bytes, out), plain(byte), "{case}");
                });
                assert_eq!(found.len(), if plain(byte) { len + 3 } else { 0 }, "{case}");
                let escape = needs_escape(byte).then_some(at);
                assert_eq!(next_escape(&bytes), escape, "{case}");
                if len > 1 {
                    bytes[(at + 1) % len] = 0x7F;
                    assert_eq!(is_plain(&bytes), plain(byte), "{case}, 0x7f behind");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_text_is_what_another_reader_takes_it_for(text in any::<String>()) {
            let json = written(|out| value(b':', text.as_bytes(), out));
            prop_assert_eq!(serde_json::from_str::<String>(&json[1..]).unwrap(), text);
        }

        #[test]
        fn every_length_of_plain_text_and_of_text_with_escapes_is_written_whole(
            text in "[a-z]{0,80}", at in 0usize..80, mark in "[\"\\\\\n\u{e4}]",
        ) {
            let json = written(|out| value(b':', text.as_bytes(), out));
            prop_assert_eq!(&json[1..], format!("\"{text}\""));
            let mut marked = text.clone();
            marked.insert_str(at.min(text.len()), &mark);
            let json = written(|out| value(b',', marked.as_bytes(), out));
            prop_assert_eq!(serde_json::from_str::<String>(&json[1..]).unwrap(), marked);
        }
    }
}
