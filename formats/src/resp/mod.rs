//! The wire protocol of the Redis family (RESP 2 and 3), as bytes: requests in, replies out, and the
//! client's side of both.
//!
//! - [`RequestDecoder`]: what clients and primaries send; resumable, copies nothing.
//! - [`Reply`]: the encoder of answers in the protocol a connection speaks.
//! - [`FrameDecoder`] and [`Frame`]: answers read back by whoever sent the request.
//! - [`encode_command`]: a request as an array of bulk strings, the only form servers exchange.
//! - [`PipeWriter`]: items as requests without end, for `redis-cli --pipe`.
//! - [`split_words`]: the quoting rules of an inline request, shared with configuration files.
//!
//! Invariants
//! - Nothing is reserved from a declared length: memory grows with the bytes that arrived.
//! - A byte is parsed once, however the input is cut (a length line of at most 22 bytes may be looked at again).

mod frame;
mod inline;
mod pipe;
mod reply;
mod request;

pub use frame::{Frame, FrameDecoder, FrameError, FrameLimits};
pub use inline::{UnbalancedQuotes, split_words};
pub use pipe::{PipeError, PipeWriter};
pub use reply::{Mark, Protocol, Reply};
pub use request::{ProtocolError, RequestDecoder};

/// Appends `words` as an array of bulk strings: the form in which commands travel.
///
/// ```
/// let mut out = Vec::new();
/// dfsnap_formats::resp::encode_command(&mut out, &["SET", "x", "1"]);
/// assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\n1\r\n");
/// ```
pub fn encode_command(out: &mut Vec<u8>, words: &[impl AsRef<[u8]>]) {
    push_line(out, b'*', words.len());
    for word in words {
        push_bulk(out, word.as_ref());
    }
}

/// `<marker><n>\r\n`
#[inline]
fn push_line(out: &mut Vec<u8>, marker: u8, n: impl itoa::Integer) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    out.reserve(digits.len() + 3);
    out.push(marker);
    out.extend_from_slice(digits);
    out.extend_from_slice(b"\r\n");
}

/// Appends a bulk string: `$<length>\r\n<bytes>\r\n`.
#[inline]
pub fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    push_line(out, b'$', bytes.len());
    out.reserve(bytes.len() + 2);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A number between a marker and its line end.
#[derive(Debug, PartialEq, Eq)]
enum LengthLine {
    /// The value, and the offset of the byte after the line end.
    Value(i64, usize),
    /// The line has not ended within the bytes at hand.
    Short,
    /// Not a decimal integer in canonical form.
    Bad,
}

/// `i64::MIN` has 20 characters, then CR and LF.
const LENGTH_LINE_BYTES_MAX: usize = 22;

/// Reads the number at `at`, up to CR and the byte after it, which is taken for the LF unseen.
/// Canonical form only: no `+`, no leading zero, no blank, no `-0`.
#[inline]
fn length_line(buf: &[u8], at: usize) -> LengthLine {
    let line = &buf[at..];
    match *line {
        [a @ b'0'..=b'9', b'\r', _, ..] => LengthLine::Value(i64::from(a - b'0'), at + 3),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => {
            LengthLine::Value(i64::from(a - b'0') * 10 + i64::from(b - b'0'), at + 4)
        }
        _ => length_line_long(line, at),
    }
}

fn length_line_long(line: &[u8], at: usize) -> LengthLine {
    let head = &line[..line.len().min(LENGTH_LINE_BYTES_MAX)];
    let Some(end) = head.iter().position(|&b| b == b'\r') else {
        if head.len() == LENGTH_LINE_BYTES_MAX {
            return LengthLine::Bad;
        }
        return LengthLine::Short;
    };
    match canonical_i64(&line[..end]) {
        None => LengthLine::Bad,
        Some(_) if line.len() < end + 2 => LengthLine::Short,
        Some(value) => LengthLine::Value(value, at + end + 2),
    }
}

/// The integer whose canonical decimal text is `text`.
fn canonical_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_lines_are_canonical_integers() {
        use LengthLine::{Bad, Short, Value};
        let rows: &[(&str, &[u8], LengthLine)] = &[
            ("one digit", b"3\r\n", Value(3, 3)),
            ("two digits", b"42\r\nrest", Value(42, 4)),
            ("long", b"1234567\r\n", Value(1_234_567, 9)),
            ("negative", b"-1\r\n", Value(-1, 4)),
            ("least", b"-9223372036854775808\r\n", Value(i64::MIN, 22)),
            ("greatest", b"9223372036854775807\r\n", Value(i64::MAX, 21)),
            ("too great", b"9223372036854775808\r\n", Bad),
            ("leading zero", b"01\r\n", Bad),
            ("minus zero", b"-0\r\n", Bad),
            ("blank", b" 1\r\n", Bad),
            ("plus", b"+1\r\n", Bad),
            ("empty", b"\r\n", Bad),
            ("letters", b"abc\r\n", Bad),
            ("nothing yet", b"", Short),
            ("no line end yet", b"12", Short),
            ("CR only", b"1\r", Short),
            ("long, CR only", b"123\r", Short),
            ("never ends", b"1111111111111111111111", Bad),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(&length_line(bytes, 0), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn canonical_integers_read_back(n: i64) {
            prop_assert_eq!(canonical_i64(n.to_string().as_bytes()), Some(n));
        }
    }
}
