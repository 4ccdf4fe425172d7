//! Frames: replies as a client reads them back, RESP2 and RESP3.
//!
//! Used where this project is the client: tools that ask a live server, tests, the handshake of a replica.
//!
//! Invariants
//! - Depth, elements and bytes of one frame are limited; a declared length only says when to stop.
//! - Attributes (`|`) are read and dropped: they comment on the frame that follows.

use super::{LengthLine, canonical_i64, length_line};

/// One reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Simple(Vec<u8>),
    /// Without the leading `-`; a bulk error (`!`) looks the same.
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_`.
    Null,
    Array(Vec<Frame>),
    Map(Vec<(Frame, Frame)>),
    Set(Vec<Frame>),
    Push(Vec<Frame>),
    Double(f64),
    Boolean(bool),
    BigNumber(Vec<u8>),
    Verbatim {
        ext: [u8; 3],
        text: Vec<u8>,
    },
}

impl Frame {
    /// The bytes of a string of any kind, an error excepted.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Frame::Simple(bytes) | Frame::Bulk(bytes) | Frame::BigNumber(bytes) => Some(bytes),
            Frame::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push.
    pub fn as_slice(&self) -> Option<&[Frame]> {
        match self {
            Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => Some(items),
            _ => None,
        }
    }
}

/// Why a reply cannot be read. `offset` counts from the first byte of the frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("offset {offset}: reply type: found byte {found:#04x}, which no reply starts with")]
    UnknownType { offset: usize, found: u8 },
    #[error("offset {offset}: {what}: found {found:?}")]
    BadLine {
        offset: usize,
        what: &'static str,
        found: String,
    },
    #[error("offset {offset}: {what}: {found} exceeds the limit of {limit}")]
    TooBig {
        offset: usize,
        what: &'static str,
        found: u64,
        limit: u64,
    },
}

/// What one frame may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    pub depth_max: usize,
    /// All elements at all depths together.
    pub elements_max: usize,
    pub bulk_bytes_max: usize,
    /// A line: simple strings, errors, numbers.
    pub line_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits {
            depth_max: 32,
            elements_max: 1 << 28,
            bulk_bytes_max: 1 << 30,
            line_bytes_max: 1 << 20,
        }
    }
}

/// Resumable decoder of one connection's replies.
///
/// ```
/// use dfsnap_formats::resp::{Frame, FrameDecoder};
/// let mut decoder = FrameDecoder::default();
/// let bytes = b"*2\r\n:1\r\n$2\r\nab\r\n+OK\r\n";
/// assert_eq!(decoder.decode(&bytes[..10]).unwrap(), None);
/// let (frame, consumed) = decoder.decode(bytes).unwrap().unwrap();
/// assert_eq!(frame, Frame::Array(vec![Frame::Int(1), Frame::Bulk(b"ab".to_vec())]));
/// assert_eq!(&bytes[consumed..], b"+OK\r\n");
/// ```
#[derive(Debug, Default)]
pub struct FrameDecoder {
    limits: FrameLimits,
    /// Offset in the caller's buffer of the first element not parsed yet.
    at: usize,
    /// No CR before this offset in the line being received.
    scanned: usize,
    elements: usize,
    /// Aggregates begun and not complete, the outermost first.
    open: Vec<Aggregate>,
}

#[derive(Debug)]
struct Aggregate {
    kind: Kind,
    /// Counts keys and values of maps each.
    left: usize,
    items: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Array,
    Set,
    Push,
    Map,
    Attribute,
}

/// A parsed element.
enum Element {
    Value(Frame),
    /// An aggregate with this many elements to come.
    Begin(Kind, usize),
}

impl FrameDecoder {
    pub fn new(limits: FrameLimits) -> FrameDecoder {
        FrameDecoder {
            limits,
            ..FrameDecoder::default()
        }
    }

    /// Goes on where the last call stopped. `buf` starts at the first unconsumed byte and only grows until a
    /// frame is complete. After an error the connection is of no more use.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
        loop {
            let Some((element, next)) = self.element(buf)? else {
                return Ok(None);
            };
            self.at = next;
            self.scanned = next;
            self.elements += 1;
            self.limit(
                "elements of a reply",
                self.elements as u64,
                self.limits.elements_max as u64,
            )?;
            let complete = match element {
                Element::Begin(kind, left) => self.begin(kind, left)?,
                Element::Value(frame) => self.attach(frame),
            };
            if let Some(frame) = complete {
                let consumed = std::mem::take(&mut self.at);
                self.scanned = 0;
                self.elements = 0;
                return Ok(Some((frame, consumed)));
            }
        }
    }

    fn begin(&mut self, kind: Kind, left: usize) -> Result<Option<Frame>, FrameError> {
        if left > 0 {
            self.limit(
                "depth of a reply",
                self.open.len() as u64 + 1,
                self.limits.depth_max as u64,
            )?;
            self.open.push(Aggregate {
                kind,
                left,
                items: Vec::new(),
            });
            return Ok(None);
        }
        Ok(
            match (Aggregate {
                kind,
                left,
                items: Vec::new(),
            })
            .finish()
            {
                Some(frame) => self.attach(frame),
                None => None,
            },
        )
    }

    /// Puts a value where it belongs; returns the outermost frame when that completes it.
    fn attach(&mut self, mut frame: Frame) -> Option<Frame> {
        loop {
            let Some(aggregate) = self.open.last_mut() else {
                return Some(frame);
            };
            aggregate.items.push(frame);
            aggregate.left -= 1;
            if aggregate.left > 0 {
                return None;
            }
            frame = self.open.pop().and_then(Aggregate::finish)?;
        }
    }

    fn limit(&self, what: &'static str, found: u64, limit: u64) -> Result<(), FrameError> {
        if found > limit {
            return Err(FrameError::TooBig {
                offset: self.at,
                what,
                found,
                limit,
            });
        }
        Ok(())
    }

    /// The element at `at` and the offset after it; `None` when it has not arrived yet.
    fn element(&mut self, buf: &[u8]) -> Result<Option<(Element, usize)>, FrameError> {
        let Some(&marker) = buf.get(self.at) else {
            return Ok(None);
        };
        let (what, factor, kind) = match marker {
            b'$' | b'!' | b'=' => return self.bulk(marker, buf),
            b'*' => ("length of an array", 1, Kind::Array),
            b'~' => ("length of a set", 1, Kind::Set),
            b'>' => ("length of a push", 1, Kind::Push),
            b'%' => ("length of a map", 2, Kind::Map),
            b'|' => ("length of an attribute", 2, Kind::Attribute),
            _ => return self.line(marker, buf),
        };
        let Some((len, next)) = self.length(what, buf)? else {
            return Ok(None);
        };
        let Some(len) = len else {
            return Ok(Some((Element::Value(Frame::Null), next)));
        };
        let left = len.saturating_mul(factor);
        self.limit(what, left as u64, self.limits.elements_max as u64)?;
        Ok(Some((Element::Begin(kind, left), next)))
    }

    /// A length and the offset after its line; -1 is `None`.
    fn length(
        &self,
        what: &'static str,
        buf: &[u8],
    ) -> Result<Option<(Option<usize>, usize)>, FrameError> {
        match length_line(buf, self.at + 1) {
            LengthLine::Short => Ok(None),
            LengthLine::Value(-1, next) => Ok(Some((None, next))),
            LengthLine::Value(len, next) if len >= 0 => Ok(Some((Some(len as usize), next))),
            _ => Err(self.bad_line(what, &buf[self.at + 1..])),
        }
    }

    fn bad_line(&self, what: &'static str, line: &[u8]) -> FrameError {
        let line = line.split(|&b| b == b'\r').next().unwrap_or_default();
        let found = line[..line.len().min(32)].escape_ascii().to_string();
        FrameError::BadLine {
            offset: self.at,
            what,
            found,
        }
    }

    fn bulk(&self, marker: u8, buf: &[u8]) -> Result<Option<(Element, usize)>, FrameError> {
        let what = "length of a bulk string";
        let Some((len, start)) = self.length(what, buf)? else {
            return Ok(None);
        };
        let Some(len) = len else {
            return Ok(Some((Element::Value(Frame::Null), start)));
        };
        self.limit(what, len as u64, self.limits.bulk_bytes_max as u64)?;
        let Some(bytes) = buf.get(start..start.saturating_add(len).saturating_add(2)) else {
            return Ok(None);
        };
        let bytes = &bytes[..len];
        let frame = match marker {
            b'$' => Frame::Bulk(bytes.to_vec()),
            b'!' => Frame::Error(bytes.to_vec()),
            _ => match bytes {
                [a, b, c, b':', text @ ..] => Frame::Verbatim {
                    ext: [*a, *b, *c],
                    text: text.to_vec(),
                },
                _ => return Err(self.bad_line("kind of a verbatim string", bytes)),
            },
        };
        Ok(Some((Element::Value(frame), start + len + 2)))
    }

    fn line(&mut self, marker: u8, buf: &[u8]) -> Result<Option<(Element, usize)>, FrameError> {
        if !matches!(marker, b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') {
            return Err(FrameError::UnknownType {
                offset: self.at,
                found: marker,
            });
        }
        let start = self.at + 1;
        let from = self.scanned.max(start);
        let Some(end) = buf[from..]
            .iter()
            .position(|&b| b == b'\r')
            .map(|i| from + i)
        else {
            self.scanned = buf.len();
            self.limit(
                "bytes of a line",
                (buf.len() - start) as u64,
                self.limits.line_bytes_max as u64,
            )?;
            return Ok(None);
        };
        if buf.len() < end + 2 {
            self.scanned = end;
            return Ok(None);
        }
        let line = &buf[start..end];
        let frame = match marker {
            b'+' => Some(Frame::Simple(line.to_vec())),
            b'-' => Some(Frame::Error(line.to_vec())),
            b':' => canonical_i64(line).map(Frame::Int),
            b'_' => line.is_empty().then_some(Frame::Null),
            b',' => std::str::from_utf8(line)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Frame::Double),
            b'#' => matches!(line, b"t" | b"f").then(|| Frame::Boolean(line == b"t")),
            _ => Some(Frame::BigNumber(line.to_vec())),
        };
        match frame {
            Some(frame) => Ok(Some((Element::Value(frame), end + 2))),
            None => Err(self.bad_line("value of a reply", line)),
        }
    }
}

impl Aggregate {
    /// `None` for attributes.
    fn finish(self) -> Option<Frame> {
        Some(match self.kind {
            Kind::Array => Frame::Array(self.items),
            Kind::Set => Frame::Set(self.items),
            Kind::Push => Frame::Push(self.items),
            Kind::Attribute => return None,
            Kind::Map => {
                let mut pairs = Vec::with_capacity(self.items.len() / 2);
                let mut items = self.items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Frame::Map(pairs)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Protocol, Reply};
    use super::*;
    use proptest::prelude::*;

    fn frames(stream: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = FrameDecoder::new(FrameLimits {
            depth_max: 4,
            ..FrameLimits::default()
        });
        let (mut found, mut start) = (Vec::new(), 0);
        for end in cuts.iter().copied().chain([stream.len()]) {
            while let Some((frame, consumed)) = decoder.decode(&stream[start..end])? {
                found.push(frame);
                start += consumed;
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_are_the_same_for_every_cut() {
        let stream = b"+OK\r\n-ERR no\r\n:-12\r\n$3\r\nabc\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n%1\r\n+k\r\n~1\r\n:2\r\n\
            |1\r\n+a\r\n+b\r\n_\r\n,1.5\r\n,-inf\r\n#t\r\n#f\r\n(123456789012345678901\r\n=6\r\ntxt:hi\r\n!3\r\nbad\r\n>1\r\n|0\r\n:5\r\n";
        let want = vec![
            Frame::Simple(b"OK".to_vec()),
            Frame::Error(b"ERR no".to_vec()),
            Frame::Int(-12),
            Frame::Bulk(b"abc".to_vec()),
            Frame::Null,
            Frame::Null,
            Frame::Array(vec![]),
            Frame::Array(vec![
                Frame::Array(vec![Frame::Int(1)]),
                Frame::Map(vec![(
                    Frame::Simple(b"k".to_vec()),
                    Frame::Set(vec![Frame::Int(2)]),
                )]),
            ]),
            Frame::Null,
            Frame::Double(1.5),
            Frame::Double(f64::NEG_INFINITY),
            Frame::Boolean(true),
            Frame::Boolean(false),
            Frame::BigNumber(b"123456789012345678901".to_vec()),
            Frame::Verbatim {
                ext: *b"txt",
                text: b"hi".to_vec(),
            },
            Frame::Error(b"bad".to_vec()),
            Frame::Push(vec![Frame::Int(5)]),
        ];
        for a in 0..=stream.len() {
            assert_eq!(frames(stream, &[a]).unwrap(), want, "cut at {a}");
        }
        let every: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(frames(stream, &every).unwrap(), want, "byte by byte");
    }

    #[test]
    fn broken_replies_say_where_and_what() {
        let rows: &[(&str, &[u8], &str)] = &[
            (
                "type",
                b"?x\r\n",
                "offset 0: reply type: found byte 0x3f, which no reply starts with",
            ),
            (
                "integer",
                b"*1\r\n:1x\r\n",
                "offset 4: value of a reply: found \"1x\"",
            ),
            (
                "bulk length",
                b"$-2\r\n",
                "offset 0: length of a bulk string: found \"-2\"",
            ),
            (
                "huge bulk",
                b"$1073741825\r\n",
                "length of a bulk string: 1073741825 exceeds the limit of 1073741824",
            ),
            (
                "depth",
                b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
                "depth of a reply: 5 exceeds the limit of 4",
            ),
            (
                "elements",
                b"*268435457\r\n",
                "length of an array: 268435457 exceeds the limit of 268435456",
            ),
            (
                "verbatim",
                b"=2\r\nhi\r\n",
                "kind of a verbatim string: found \"hi\"",
            ),
        ];
        for (name, bytes, want) in rows {
            let error = frames(bytes, &[]).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    fn write(frame: &Frame, out: &mut Reply) {
        match frame {
            Frame::Simple(text) => out.simple(std::str::from_utf8(text).unwrap()),
            Frame::Error(text) => out.error_bytes(text),
            Frame::Int(n) => out.int(*n),
            Frame::Bulk(bytes) => out.bulk(bytes),
            Frame::Null => out.null(),
            Frame::Array(items) => {
                out.array(items.len());
                items.iter().for_each(|item| write(item, out));
            }
            Frame::Map(pairs) => {
                out.map(pairs.len());
                for (key, value) in pairs {
                    write(key, out);
                    write(value, out);
                }
            }
            Frame::Set(items) => {
                out.set(items.len());
                items.iter().for_each(|item| write(item, out));
            }
            Frame::Push(items) => {
                out.push(items.len());
                items.iter().for_each(|item| write(item, out));
            }
            Frame::Double(x) => out.double(*x),
            Frame::Boolean(b) => out.boolean(*b),
            Frame::BigNumber(digits) => out.big_number(digits),
            Frame::Verbatim { ext, text } => out.verbatim(ext, text),
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let leaf = prop_oneof![
            "[ -~]{0,8}".prop_map(|s| Frame::Simple(s.into_bytes())),
            "[ -~]{0,8}".prop_map(|s| Frame::Error(s.into_bytes())),
            any::<i64>().prop_map(Frame::Int),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Frame::Bulk),
            Just(Frame::Null),
            any::<i32>().prop_map(|n| Frame::Double(f64::from(n) / 8.0)),
            any::<bool>().prop_map(Frame::Boolean),
            "[1-9][0-9]{0,30}".prop_map(|s| Frame::BigNumber(s.into_bytes())),
            prop::collection::vec(any::<u8>(), 0..12)
                .prop_map(|text| Frame::Verbatim { ext: *b"mkd", text }),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Frame::Array),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Frame::Set),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Frame::Push),
                prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Frame::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn written_replies_read_back_however_cut(frame in any_frame(), cut in any::<prop::sample::Index>()) {
            let mut out = Reply::new(Protocol::Resp3);
            write(&frame, &mut out);
            let bytes = out.take();
            prop_assert_eq!(frames(&bytes, &[cut.index(bytes.len())]).unwrap(), vec![frame]);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop::sample::select(b"*$+-:_,#(=!~>%|012\r\nt".to_vec()), 0..60)) {
            let _ = frames(&bytes, &[bytes.len() / 2]);
        }
    }
}
