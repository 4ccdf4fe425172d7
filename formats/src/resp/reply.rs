//! Replies: the encoder of everything a server answers, in the protocol the connection speaks.
//!
//! Commands call the method that names what they mean (`null_array`, `map`, `double`); how that looks in
//! RESP2 and in RESP3 is decided here and nowhere else.
//!
//! Invariants
//! - `buf` is always whole elements, except between `begin_*` and its `end`.
//! - An error is one line: CR and LF in its text become blanks.

use super::{push_bulk, push_line};
use crate::double::DoubleText;

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

    /// As scores are printed: short, and read back as `x`.
    pub fn double(&mut self, x: f64) {
        let text = DoubleText::score(x);
        let text = text.as_bytes();
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
