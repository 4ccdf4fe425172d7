//! Replies: the encoder of everything a server answers, in the protocol the connection speaks.
//!
//! Commands call the method that names what they mean (`null_array`, `map`, `double`); how that looks in
//! RESP2 and in RESP3 is decided here and nowhere else.
//!
//! Invariants
//! - `buf` is always whole elements, except between `begin_*` and its `end`.
//! - An error is one line: CR and LF in its text become blanks.

use super::{push_bulk, push_line};

/// What HELLO agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Encoded replies of one connection, in order.
///
/// ```
/// use dfsnap_formats::resp::{Protocol, Reply};
/// let mut reply = Reply::new(Protocol::Resp3);
/// reply.map(1);
/// reply.bulk(b"proto");
/// reply.int(3);
/// assert_eq!(reply.as_bytes(), b"%1\r\n$5\r\nproto\r\n:3\r\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    buf: Vec<u8>,
    protocol: Protocol,
}

/// A place where the header of an aggregate goes once its length is known.
/// Marks end in the reverse order of their beginning.
#[derive(Debug)]
#[must_use = "a begun aggregate needs its end"]
pub struct Mark {
    at: usize,
    marker: u8,
    /// Elements per counted item: 2 for a map written as a flat array.
    factor: usize,
}

/// Room for a header of one digit; longer ones move what follows.
const HEADER_PLACEHOLDER: &[u8; 4] = b"*0\r\n";

impl Reply {
    pub const OK: &[u8] = b"+OK\r\n";
    pub const QUEUED: &[u8] = b"+QUEUED\r\n";
    pub const PONG: &[u8] = b"+PONG\r\n";

    pub fn new(protocol: Protocol) -> Reply {
        Reply {
            buf: Vec::new(),
            protocol,
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// For what follows; bytes already encoded stay as they are.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    pub fn ok(&mut self) {
        self.raw(Reply::OK);
    }

    /// `text` has no line break: it is one of ours.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(
            !text.contains(['\r', '\n']),
            "status with a line break: {text:?}"
        );
        self.buf.push(b'+');
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
    }

    /// `text` begins with the error code and has no `-`: `ERR no such key`.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// Like [`Reply::error`] for a text that quotes a client's bytes.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.buf.push(b'-');
        self.buf.extend(
            text.iter()
                .map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }),
        );
        self.buf.extend_from_slice(b"\r\n");
    }

    #[inline]
    pub fn int(&mut self, n: i64) {
        push_line(&mut self.buf, b':', n);
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        push_bulk(&mut self.buf, bytes);
    }

    /// The decimal text of `n` as a bulk string.
    #[inline]
    pub fn bulk_int(&mut self, n: i64) {
        push_bulk(&mut self.buf, itoa::Buffer::new().format(n).as_bytes());
    }

    pub fn null(&mut self) {
        self.raw(if self.is_resp3() {
            b"_\r\n"
        } else {
            b"$-1\r\n"
        });
    }

    /// Where an array was due: an aborted EXEC, a blocking command that timed out.
    pub fn null_array(&mut self) {
        self.raw(if self.is_resp3() {
            b"_\r\n"
        } else {
            b"*-1\r\n"
        });
    }

    pub fn array(&mut self, len: usize) {
        push_line(&mut self.buf, b'*', len);
    }

    /// `pairs` keys, each followed by its value.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => push_line(&mut self.buf, b'*', pairs * 2),
            Protocol::Resp3 => push_line(&mut self.buf, b'%', pairs),
        }
    }

    pub fn set(&mut self, len: usize) {
        let marker = if self.is_resp3() { b'~' } else { b'*' };
        push_line(&mut self.buf, marker, len);
    }

    /// An out-of-band message: pub/sub, invalidation.
    pub fn push(&mut self, len: usize) {
        let marker = if self.is_resp3() { b'>' } else { b'*' };
        push_line(&mut self.buf, marker, len);
    }

    /// The shortest text that reads back as `x`.
    pub fn double(&mut self, x: f64) {
        let mut text = ShortestText::default();
        let text = text.format(x);
        if self.is_resp3() {
            self.buf.push(b',');
            self.buf.extend_from_slice(text);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            push_bulk(&mut self.buf, text);
        }
    }

    pub fn boolean(&mut self, is_true: bool) {
        self.raw(match (self.protocol, is_true) {
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
        });
    }

    /// Text for people; `ext` says its kind (`txt`, `mkd`).
    pub fn verbatim(&mut self, ext: &[u8; 3], bytes: &[u8]) {
        if self.is_resp3() {
            push_line(&mut self.buf, b'=', bytes.len() + 4);
            self.buf.extend_from_slice(ext);
            self.buf.push(b':');
            self.buf.extend_from_slice(bytes);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            push_bulk(&mut self.buf, bytes);
        }
    }

    /// `digits` is the decimal text of an integer of any size.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.is_resp3() {
            self.buf.push(b'(');
            self.buf.extend_from_slice(digits);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            push_bulk(&mut self.buf, digits);
        }
    }

    /// Bytes that are encoded already.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.buf.extend_from_slice(encoded);
    }

    /// An array whose length is known when its elements are written: [`Reply::end`].
    pub fn begin_array(&mut self) -> Mark {
        self.begin(b'*', 1)
    }

    /// As [`Reply::begin_array`]; `end` takes the number of pairs.
    pub fn begin_map(&mut self) -> Mark {
        match self.protocol {
            Protocol::Resp2 => self.begin(b'*', 2),
            Protocol::Resp3 => self.begin(b'%', 1),
        }
    }

    /// As [`Reply::begin_array`].
    pub fn begin_set(&mut self) -> Mark {
        self.begin(if self.is_resp3() { b'~' } else { b'*' }, 1)
    }

    fn begin(&mut self, marker: u8, factor: usize) -> Mark {
        let at = self.buf.len();
        self.buf.extend_from_slice(HEADER_PLACEHOLDER);
        Mark { at, marker, factor }
    }

    /// `n` items (pairs, for a map) were written since `mark`.
    pub fn end(&mut self, mark: Mark, n: usize) {
        let mut header = Vec::with_capacity(16);
        push_line(&mut header, mark.marker, n * mark.factor);
        if header.len() == HEADER_PLACEHOLDER.len() {
            self.buf[mark.at..mark.at + header.len()].copy_from_slice(&header);
        } else {
            self.buf
                .splice(mark.at..mark.at + HEADER_PLACEHOLDER.len(), header);
        }
    }

    /// [`Reply::end`] under the name that matches [`Reply::begin_array`].
    pub fn end_array(&mut self, mark: Mark, n: usize) {
        self.end(mark, n);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    pub fn len(&self) -> usize {
        self.buf.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Back to an earlier `len`: the command failed after it began to answer.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// The encoded bytes; the encoder is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buf)
    }

    /// Empty, memory kept.
    pub fn clear(&mut self) {
        self.buf.clear();
    }

    /// For writers that append whole encoded elements by other means.
    pub fn buf_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }
}

/// The text of a double as Redis 7.2 and later print it: integers plain, else the shortest digits that
/// read back, an exponent only where it saves much.
#[derive(Default)]
struct ShortestText {
    text: Vec<u8>,
}

/// Integers up to here print without exponent, whatever their trailing zeros.
const PLAIN_INTEGER_MAX: f64 = (1u64 << 52) as f64;

impl ShortestText {
    fn format(&mut self, x: f64) -> &[u8] {
        self.text.clear();
        if x.is_nan() {
            return b"nan";
        }
        if x.is_infinite() {
            return if x > 0.0 { b"inf" } else { b"-inf" };
        }
        if x == 0.0 {
            return if x.is_sign_negative() { b"-0" } else { b"0" };
        }
        if x.fract() == 0.0 && x.abs() < PLAIN_INTEGER_MAX {
            self.text
                .extend_from_slice(itoa::Buffer::new().format(x as i64).as_bytes());
            return &self.text;
        }
        if x < 0.0 {
            self.text.push(b'-');
        }
        let mut buffer = zmij::Buffer::new();
        let (digits, exponent) = digits_and_exponent(buffer.format_finite(x.abs()).as_bytes());
        self.digits(&digits, exponent);
        &self.text
    }

    /// `digits` without a leading or trailing zero, times ten to the power of `exponent`.
    fn digits(&mut self, digits: &[u8], exponent: i32) {
        let count = digits.len() as i32;
        let scientific = exponent + count - 1;
        if exponent >= 0 && scientific < count + 7 {
            self.text.extend_from_slice(digits);
            self.text
                .extend(std::iter::repeat_n(b'0', exponent as usize));
        } else if exponent < 0 && (exponent > -7 || scientific.abs() < 4) {
            let point = count + exponent;
            if point <= 0 {
                self.text.extend_from_slice(b"0.");
                self.text.extend(std::iter::repeat_n(b'0', -point as usize));
                self.text.extend_from_slice(digits);
            } else {
                self.text.extend_from_slice(&digits[..point as usize]);
                self.text.push(b'.');
                self.text.extend_from_slice(&digits[point as usize..]);
            }
        } else {
            self.text.push(digits[0]);
            if count > 1 {
                self.text.push(b'.');
                self.text.extend_from_slice(&digits[1..]);
            }
            self.text
                .extend_from_slice(if scientific < 0 { b"e-" } else { b"e+" });
            self.text.extend_from_slice(
                itoa::Buffer::new()
                    .format(scientific.unsigned_abs())
                    .as_bytes(),
            );
        }
    }
}

/// Takes `12.5`, `1e300`, `1.25e-7` apart: (`125`, -1), (`1`, 300), (`125`, -9).
fn digits_and_exponent(text: &[u8]) -> (Vec<u8>, i32) {
    let (mut digits, mut exponent, mut in_fraction) = (Vec::with_capacity(24), 0, false);
    for (i, &byte) in text.iter().enumerate() {
        match byte {
            b'.' => in_fraction = true,
            b'e' | b'E' => {
                let written = std::str::from_utf8(&text[i + 1..])
                    .ok()
                    .and_then(|t| t.parse::<i32>().ok());
                exponent += written.expect("a formatted double has a decimal exponent");
                break;
            }
            _ => {
                exponent -= i32::from(in_fraction);
                if byte != b'0' || !digits.is_empty() {
                    digits.push(byte);
                }
            }
        }
    }
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
        exponent += 1;
    }
    (digits, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(write: impl Fn(&mut Reply)) -> (String, String) {
        let text = |protocol| {
            let mut reply = Reply::new(protocol);
            write(&mut reply);
            String::from_utf8(reply.take()).unwrap()
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    #[test]
    fn elements_look_as_the_protocol_says() {
        type Row = (&'static str, fn(&mut Reply), &'static str, &'static str);
        let rows: &[Row] = &[
            ("simple", |r| r.simple("PONG"), "+PONG\r\n", "+PONG\r\n"),
            (
                "error",
                |r| r.error("ERR no\r\nsuch key"),
                "-ERR no  such key\r\n",
                "-ERR no  such key\r\n",
            ),
            (
                "int",
                |r| r.int(i64::MIN),
                ":-9223372036854775808\r\n",
                ":-9223372036854775808\r\n",
            ),
            (
                "bulk",
                |r| r.bulk(b"a\r\nb"),
                "$4\r\na\r\nb\r\n",
                "$4\r\na\r\nb\r\n",
            ),
            ("empty bulk", |r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (
                "bulk int",
                |r| r.bulk_int(-12),
                "$3\r\n-12\r\n",
                "$3\r\n-12\r\n",
            ),
            ("null", Reply::null, "$-1\r\n", "_\r\n"),
            ("null array", Reply::null_array, "*-1\r\n", "_\r\n"),
            ("array", |r| r.array(3), "*3\r\n", "*3\r\n"),
            ("map", |r| r.map(3), "*6\r\n", "%3\r\n"),
            ("set", |r| r.set(3), "*3\r\n", "~3\r\n"),
            ("push", |r| r.push(3), "*3\r\n", ">3\r\n"),
            ("double", |r| r.double(2.5), "$3\r\n2.5\r\n", ",2.5\r\n"),
            ("true", |r| r.boolean(true), ":1\r\n", "#t\r\n"),
            ("false", |r| r.boolean(false), ":0\r\n", "#f\r\n"),
            (
                "verbatim",
                |r| r.verbatim(b"txt", b"hi"),
                "$2\r\nhi\r\n",
                "=6\r\ntxt:hi\r\n",
            ),
            ("big", |r| r.big_number(b"123"), "$3\r\n123\r\n", "(123\r\n"),
        ];
        for (name, write, resp2, resp3) in rows {
            assert_eq!(
                both(write),
                (resp2.to_string(), resp3.to_string()),
                "{name}"
            );
        }
    }

    #[test]
    fn deferred_lengths_fit_any_number_of_digits() {
        for n in [0, 1, 9, 10, 12345] {
            let mut deferred = Reply::new(Protocol::Resp2);
            deferred.int(7);
            let outer = deferred.begin_array();
            let inner = deferred.begin_map();
            (0..n * 2).for_each(|i| deferred.int(i as i64));
            deferred.end(inner, n);
            deferred.end_array(outer, 1);
            let mut known = Reply::new(Protocol::Resp2);
            known.int(7);
            known.array(1);
            known.map(n);
            (0..n * 2).for_each(|i| known.int(i as i64));
            assert!(deferred == known, "{n} pairs");
        }
    }

    #[test]
    fn doubles_print_short() {
        let rows: &[(f64, &str)] = &[
            (0.1, "0.1"),
            (3.0, "3"),
            (-2.5, "-2.5"),
            (0.0, "0"),
            (-0.0, "-0"),
            (100_000.0, "100000"),
            (1e17, "1e+17"),
            (1e20, "1e+20"),
            (1e-5, "0.00001"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (123456789012345678.0, "123456789012345680"),
            (0.30000000000000004, "0.30000000000000004"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (x, want) in rows {
            assert_eq!(ShortestText::default().format(*x), want.as_bytes(), "{x:?}");
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back(bits: u64) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            let mut text = ShortestText::default();
            let back: f64 = std::str::from_utf8(text.format(x)).unwrap().parse().unwrap();
            prop_assert_eq!(back.to_bits(), bits);
        }
    }
}
