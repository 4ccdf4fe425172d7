//! Requests: what a client sends to a server, and what a primary sends down a replication link.
//!
//! The connection owns the read buffer; the decoder only remembers how far it came and where the words
//! are. A whole request is handed over as ranges, so a word is copied when somebody keeps it, not before.
//!
//! Invariants
//! - `words` lie inside the bytes already seen, in order, none overlapping.
//! - After an error the decoder stays failed: the connection answers with the text and closes.

use std::ops::Range;

use super::{LengthLine, inline, length_line};

/// Why a connection must be closed. The text is what clients expect after `-ERR `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number after `*` is no canonical integer or above 2147483647.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The number after `$` is no canonical integer, negative or above the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// Something else than `$` where a word should start.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// See [`super::UnbalancedQuotes`].
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// 64 KB without a line end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// More than 10 words before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// A word above 16384 bytes before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitRequest,
    /// A line without `*`; no line end before offset `scanned`.
    AwaitInlineEnd {
        scanned: usize,
    },
    AwaitBulkLength {
        words_left: usize,
    },
    AwaitBulk {
        words_left: usize,
        len: usize,
    },
    Complete,
    Failed(ProtocolError),
}

/// Resumable decoder of one connection's requests.
///
/// ```
/// use dfsnap_formats::resp::RequestDecoder;
/// let mut decoder = RequestDecoder::new(512 << 20);
/// let buf = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
/// assert_eq!(decoder.decode(&buf[..9]), Ok(None)); // more to come
/// let consumed = decoder.decode(buf).unwrap().unwrap();
/// assert_eq!(decoder.words(buf).collect::<Vec<_>>(), [&b"GET"[..], b"k"]);
/// let rest = &buf[consumed..];
/// assert_eq!(decoder.decode(rest), Ok(Some(6)));
/// assert_eq!(decoder.word(rest, 0), b"PING");
/// ```
#[derive(Debug)]
pub struct RequestDecoder {
    state: State,
    /// Offset in the caller's buffer of the first byte not parsed yet.
    at: usize,
    words: Vec<Range<usize>>,
    /// Words of an inline request that had quotes; `words` then point here.
    unquoted: Vec<u8>,
    is_unquoted: bool,
    is_inline: bool,
    /// Bytes of the current bulk, line end included, that had not arrived at the last call.
    bulk_missing: usize,
    bulk_bytes_max: usize,
    is_authenticated: bool,
}

const INLINE_BYTES_MAX: usize = 64 * 1024;
const WORDS_MAX: i64 = i32::MAX as i64;
const WORDS_MAX_UNAUTHENTICATED: i64 = 10;
const BULK_BYTES_MAX_UNAUTHENTICATED: i64 = 16384;
/// What a decoder keeps between requests; one huge request must not pin its memory for the connection's life.
const WORDS_KEPT: usize = 1024;

impl RequestDecoder {
    /// `bulk_bytes_max`: the longest word accepted (`proto-max-bulk-len`; a link to a primary has no limit).
    pub fn new(bulk_bytes_max: usize) -> RequestDecoder {
        RequestDecoder {
            state: State::AwaitRequest,
            at: 0,
            words: Vec::new(),
            unquoted: Vec::new(),
            is_unquoted: false,
            is_inline: false,
            bulk_missing: 0,
            bulk_bytes_max,
            is_authenticated: true,
        }
    }

    /// Takes effect with the next length that is read.
    pub fn set_bulk_bytes_max(&mut self, bytes: usize) {
        self.bulk_bytes_max = bytes;
    }

    /// A connection that still has to authenticate gets 10 words of 16384 bytes.
    pub fn set_authenticated(&mut self, is_authenticated: bool) {
        self.is_authenticated = is_authenticated;
    }

    /// Goes on where the last call stopped. `buf` starts at the connection's first unconsumed byte and only
    /// grows until a request is complete.
    ///
    /// `Some(consumed)`: a request is there and the caller drops that many bytes when done with its words.
    /// The request has no words when nothing but empty lines, `*0` or `*-1` arrived: consume and go on.
    #[inline]
    pub fn decode(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.state == State::Complete {
            self.forget_request();
        }
        match self.advance(buf) {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.state = State::Complete;
                Ok(Some(self.at))
            }
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Where the words of the complete request are: in the buffer given to `decode`, except after an inline
    /// request with quotes. [`RequestDecoder::word`] knows the difference.
    #[inline]
    pub fn args(&self) -> &[Range<usize>] {
        &self.words
    }

    /// Word `i` of the complete request; `buf` is what `decode` was given. Valid until the next `decode`.
    #[inline]
    pub fn word<'a>(&'a self, buf: &'a [u8], i: usize) -> &'a [u8] {
        let text = if self.is_unquoted {
            &self.unquoted
        } else {
            buf
        };
        &text[self.words[i].clone()]
    }

    /// All words of the complete request.
    #[inline]
    pub fn words<'a>(&'a self, buf: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let text = if self.is_unquoted {
            &self.unquoted
        } else {
            buf
        };
        self.words.iter().map(move |at| &text[at.clone()])
    }

    /// True when the words of the complete request are not in the connection's buffer.
    pub fn is_unquoted(&self) -> bool {
        self.is_unquoted
    }

    /// True when the request, complete or not, is a line and not an array.
    pub fn is_inline(&self) -> bool {
        self.is_inline
    }

    /// Bytes still missing of the word being received, its line end included: what the next read should fit.
    /// A peer only claims this number; a reader reserves it in steps.
    pub fn pending_bulk(&self) -> Option<usize> {
        match self.state {
            State::AwaitBulk { .. } => Some(self.bulk_missing),
            _ => None,
        }
    }

    /// True between requests: no byte of the next one has been seen.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Complete) || (self.state == State::AwaitRequest && self.at == 0)
    }

    #[inline]
    fn forget_request(&mut self) {
        self.state = State::AwaitRequest;
        self.at = 0;
        if self.words.capacity() > WORDS_KEPT {
            self.words = Vec::new();
        }
        self.words.clear();
        if self.is_inline {
            self.unquoted = Vec::new();
            self.is_unquoted = false;
            self.is_inline = false;
        }
    }

    /// True when a request is complete.
    #[inline]
    fn advance(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        loop {
            match self.state {
                State::AwaitRequest => match buf.get(self.at) {
                    // Empty lines are handed over alone, so that they cannot pile up in the buffer.
                    None => return Ok(self.at > 0),
                    Some(b'*') => match length_line(buf, self.at + 1) {
                        LengthLine::Short => return Ok(false),
                        LengthLine::Bad => return Err(ProtocolError::InvalidMultibulkLength),
                        LengthLine::Value(words_left, next) => {
                            self.begin_words(words_left, next)?
                        }
                    },
                    Some(_) => self.state = State::AwaitInlineEnd { scanned: self.at },
                },
                State::AwaitInlineEnd { scanned } => match self.inline(buf, scanned)? {
                    InlineStep::Short => return Ok(false),
                    InlineStep::Empty => self.state = State::AwaitRequest,
                    InlineStep::Words => return Ok(true),
                },
                State::AwaitBulkLength { words_left } => match buf.get(self.at) {
                    None => return Ok(false),
                    Some(b'$') => match length_line(buf, self.at + 1) {
                        LengthLine::Short => return Ok(false),
                        LengthLine::Bad => return Err(ProtocolError::InvalidBulkLength),
                        LengthLine::Value(len, next) => {
                            let len = self.checked_bulk_length(len)?;
                            self.at = next;
                            self.state = State::AwaitBulk { words_left, len };
                        }
                    },
                    Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
                },
                State::AwaitBulk { words_left, len } => {
                    let here = buf.len() - self.at;
                    let wanted = len.saturating_add(2);
                    if here < wanted {
                        self.bulk_missing = wanted - here;
                        return Ok(false);
                    }
                    self.words.push(self.at..self.at + len);
                    self.at += wanted;
                    if words_left == 1 {
                        return Ok(true);
                    }
                    self.state = State::AwaitBulkLength {
                        words_left: words_left - 1,
                    };
                }
                State::Complete => unreachable!("decode leaves Complete before advancing"),
                State::Failed(error) => return Err(error),
            }
        }
    }

    #[inline]
    fn begin_words(&mut self, words: i64, next: usize) -> Result<(), ProtocolError> {
        if words > WORDS_MAX {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if words > WORDS_MAX_UNAUTHENTICATED && !self.is_authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.at = next;
        if words > 0 {
            self.state = State::AwaitBulkLength {
                words_left: words as usize,
            };
        }
        Ok(())
    }

    #[inline]
    fn checked_bulk_length(&self, len: i64) -> Result<usize, ProtocolError> {
        let bytes = usize::try_from(len).map_err(|_| ProtocolError::InvalidBulkLength)?;
        if bytes > self.bulk_bytes_max {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if len > BULK_BYTES_MAX_UNAUTHENTICATED && !self.is_authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        Ok(bytes)
    }

    fn inline(&mut self, buf: &[u8], scanned: usize) -> Result<InlineStep, ProtocolError> {
        let Some(end) = buf[scanned..].iter().position(|&b| b == b'\n') else {
            if buf.len() - self.at > INLINE_BYTES_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            self.is_inline = true;
            self.state = State::AwaitInlineEnd { scanned: buf.len() };
            return Ok(InlineStep::Short);
        };
        let (start, end) = (self.at, scanned + end);
        if end - start > INLINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        self.at = end + 1;
        let line = &buf[start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.is_unquoted = line.iter().any(|b| matches!(b, b'"' | b'\''));
        if self.is_unquoted {
            inline::split_words(line, &mut self.unquoted, &mut self.words)
                .map_err(|_| ProtocolError::UnbalancedQuotes)?;
        } else {
            self.plain_words(line, start);
        }
        self.is_inline = !self.words.is_empty();
        self.is_unquoted &= self.is_inline;
        Ok(if self.is_inline {
            InlineStep::Words
        } else {
            InlineStep::Empty
        })
    }

    /// The words of a line without quotes stay where they are, `start` bytes into the buffer.
    fn plain_words(&mut self, line: &[u8], start: usize) {
        let line = line.split(|&b| b == 0).next().unwrap_or_default();
        let mut at = 0;
        for piece in line.split(|&b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            // Vertical tab and form feed are blanks before a word and bytes like any other inside.
            let skipped = piece.iter().take_while(|&&b| matches!(b, 11 | 12)).count();
            if skipped < piece.len() {
                self.words
                    .push(start + at + skipped..start + at + piece.len());
            }
            at += piece.len() + 1;
        }
    }
}

enum InlineStep {
    Short,
    Empty,
    Words,
}

#[cfg(test)]
mod tests {
    use super::super::encode_command;
    use super::*;
    use proptest::prelude::*;

    /// Every request of `stream`, which arrives in pieces ending at `cuts`.
    fn requests(stream: &[u8], cuts: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut decoder = RequestDecoder::new(512 << 20);
        let (mut found, mut start) = (Vec::new(), 0);
        for end in cuts.iter().copied().chain([stream.len()]) {
            while let Some(consumed) = decoder.decode(&stream[start..end])? {
                let words: Vec<Vec<u8>> = decoder
                    .words(&stream[start..end])
                    .map(<[u8]>::to_vec)
                    .collect();
                if !words.is_empty() {
                    found.push(words);
                }
                start += consumed;
            }
        }
        Ok(found)
    }

    fn words(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|w| w.as_bytes().to_vec()).collect()
    }

    #[test]
    fn requests_are_the_same_for_every_cut() {
        let stream = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n\n*0\r\n*-1\r\nPING\r\n  set \"a b\" 'c'\n*1\r\n$0\r\n\r\n*-7\r\n";
        let want = [
            words(&["GET", "k"]),
            words(&["PING"]),
            words(&["set", "a b", "c"]),
            words(&[""]),
        ];
        for a in 0..=stream.len() {
            for b in a..=stream.len() {
                assert_eq!(
                    requests(stream, &[a, b]).unwrap(),
                    want,
                    "cut at {a} and {b}"
                );
            }
        }
        let every: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(requests(stream, &every).unwrap(), want, "byte by byte");
    }

    #[test]
    fn broken_requests_get_the_text_clients_know() {
        let rows: &[(&str, &[u8], &str)] = &[
            ("letters", b"*a\r\n", "invalid multibulk length"),
            ("leading zero", b"*01\r\n", "invalid multibulk length"),
            ("blank", b"* 1\r\n", "invalid multibulk length"),
            ("no number", b"*\r\n", "invalid multibulk length"),
            (
                "too many words",
                b"*2147483648\r\n",
                "invalid multibulk length",
            ),
            ("bulk letters", b"*1\r\n$abc\r\n", "invalid bulk length"),
            ("bulk negative", b"*1\r\n$-1\r\n", "invalid bulk length"),
            (
                "bulk too long",
                b"*1\r\n$536870913\r\n",
                "invalid bulk length",
            ),
            ("no dollar", b"*1\r\n+OK\r\n", "expected '$', got '+'"),
            ("open quote", b"set \"k\r\n", "unbalanced quotes in request"),
            (
                "endless line",
                &[b'a'; 64 * 1024 + 1],
                "too big inline request",
            ),
        ];
        for (name, bytes, want) in rows {
            let error = requests(bytes, &[]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("Protocol error: {want}"),
                "{name}"
            );
            assert_eq!(
                requests(bytes, &[1]).unwrap_err(),
                error,
                "{name}, in two pieces"
            );
        }
    }

    #[test]
    fn before_authentication_requests_are_small() {
        type Row = (&'static [u8], Result<Option<usize>, ProtocolError>);
        let rows: &[Row] = &[
            (b"*10\r\n", Ok(None)),
            (
                b"*11\r\n",
                Err(ProtocolError::UnauthenticatedMultibulkLength),
            ),
            (b"*1\r\n$16384\r\n", Ok(None)),
            (
                b"*1\r\n$16385\r\n",
                Err(ProtocolError::UnauthenticatedBulkLength),
            ),
        ];
        for (bytes, want) in rows {
            let mut decoder = RequestDecoder::new(512 << 20);
            decoder.set_authenticated(false);
            assert_eq!(&decoder.decode(bytes), want, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn failed_decoder_stays_failed() {
        let mut decoder = RequestDecoder::new(10);
        assert!(decoder.decode(b"*a\r\n").is_err());
        assert_eq!(
            decoder.decode(b"PING\r\n"),
            Err(ProtocolError::InvalidMultibulkLength)
        );
    }

    #[test]
    fn pending_bulk_counts_the_line_end() {
        let mut decoder = RequestDecoder::new(1 << 20);
        assert_eq!(decoder.decode(b"*1\r\n$1000\r\nabc"), Ok(None));
        assert_eq!(decoder.pending_bulk(), Some(999));
        let mut decoder = RequestDecoder::new(1 << 20);
        assert_eq!(decoder.decode(b"*1\r\n$10"), Ok(None));
        assert_eq!(decoder.pending_bulk(), None);
    }

    #[test]
    fn empty_lines_do_not_pile_up() {
        let mut decoder = RequestDecoder::new(10);
        assert_eq!(decoder.decode(b"\n\r\n*0\r\n"), Ok(Some(7)));
        assert!(decoder.args().is_empty());
        assert_eq!(decoder.decode(b""), Ok(None));
    }

    #[test]
    fn declared_words_reserve_nothing() {
        let mut decoder = RequestDecoder::new(usize::MAX);
        assert_eq!(
            decoder.decode(b"*2147483647\r\n$9223372036854775807\r\nx"),
            Ok(None)
        );
        assert_eq!(decoder.words.capacity(), 0);
    }

    proptest! {
        #[test]
        fn encoded_commands_read_back_however_cut(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut stream = Vec::new();
            for command in &commands {
                encode_command(&mut stream, command);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(requests(&stream, &cuts).unwrap(), commands);
        }

        #[test]
        fn lines_without_quotes_split_like_lines_with(
            line in prop::collection::vec(prop::sample::select(b"ab \t\x0b\x0c\r\0*".to_vec()), 1..20),
        ) {
            prop_assume!(line[0] != b'*' && line.last() != Some(&b'\r'));
            let (mut text, mut ranges) = (Vec::new(), Vec::new());
            inline::split_words(&line, &mut text, &mut ranges).unwrap();
            let want: Vec<&[u8]> = ranges.into_iter().map(|at| &text[at]).collect();
            let mut decoder = RequestDecoder::new(100);
            let stream = [&line[..], b"\n"].concat();
            prop_assert_eq!(decoder.decode(&stream), Ok(Some(stream.len())));
            prop_assert_eq!(decoder.words(&stream).collect::<Vec<_>>(), want);
        }

        #[test]
        fn garbage_gives_the_same_however_cut(
            bytes in prop::collection::vec(prop::sample::select(b"*$-0123\r\n\"'\\x aZ\0".to_vec()), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            // A cut stream may report requests before the error; whole or cut, the end is the same.
            prop_assert_eq!(requests(&bytes, &[cut]), requests(&bytes, &[]));
        }
    }
}
