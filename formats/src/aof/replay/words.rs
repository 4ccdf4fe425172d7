//! Words of commands as numbers, options and deadlines, read as servers read them.

use super::{Args, NOT_FLOAT, NOT_INT, OVERFLOW, Replay, SYNTAX, Stop};
use crate::double;
use crate::encoding::canonical_int;
use crate::encoding::stream::StreamId;

pub fn int(word: &[u8]) -> Result<i64, Stop> {
    canonical_int(word).ok_or(NOT_INT)
}

/// A number of things: not negative.
pub fn count(word: &[u8]) -> Result<usize, Stop> {
    usize::try_from(int(word)?).map_err(|_| Stop::Refused("a negative number"))
}

pub fn float(word: &[u8]) -> Result<f64, Stop> {
    double::parse(word).ok_or(NOT_FLOAT)
}

/// Whether `word` is this name, whatever its case.
pub fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Words one after another.
pub struct Reader<'a> {
    left: Args<'a>,
}

impl<'a> Reader<'a> {
    pub fn new(words: Args<'a>) -> Self {
        Reader { left: words }
    }

    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub fn left(&self) -> Args<'a> {
        self.left
    }

    pub fn next(&mut self) -> Result<&'a [u8], Stop> {
        let (word, left) = self.left.split_first().ok_or(SYNTAX)?;
        self.left = left;
        Ok(word)
    }

    /// The next `count` words.
    pub fn take(&mut self, count: usize) -> Result<Args<'a>, Stop> {
        let (words, left) = self.left.split_at_checked(count).ok_or(SYNTAX)?;
        self.left = left;
        Ok(words)
    }

    /// Passes the next word if it is this name.
    pub fn skip(&mut self, name: &str) -> bool {
        let is_next = self.left.first().is_some_and(|word| is(word, name));
        if is_next {
            self.left = &self.left[1..];
        }
        is_next
    }

    /// A number of keys, and as many keys.
    pub fn keys(&mut self) -> Result<Args<'a>, Stop> {
        let many = count(self.next()?)?;
        if many == 0 {
            return Err(Stop::Refused("no keys"));
        }
        self.take(many)
    }

    pub fn end(&self) -> Result<(), Stop> {
        match self.left {
            [] => Ok(()),
            _ => Err(SYNTAX),
        }
    }
}

/// When something is to expire, as a command says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub is_relative: bool,
    pub is_seconds: bool,
}

impl Deadline {
    /// The option that says so: EX, PX, EXAT or PXAT.
    pub fn of_option(word: &[u8]) -> Option<Deadline> {
        let names = [
            ("EX", true, true),
            ("PX", true, false),
            ("EXAT", false, true),
            ("PXAT", false, false),
        ];
        let (_, is_relative, is_seconds) = names.into_iter().find(|(name, ..)| is(word, name))?;
        Some(Deadline {
            is_relative,
            is_seconds,
        })
    }
}

impl Replay {
    /// Absolute Unix milliseconds of a deadline.
    pub(super) fn deadline_ms(&self, deadline: Deadline, number: i64) -> Result<i64, Stop> {
        let factor = if deadline.is_seconds { 1000 } else { 1 };
        let span = number.checked_mul(factor).ok_or(OVERFLOW)?;
        match deadline.is_relative {
            true => self.now_ms()?.checked_add(span).ok_or(OVERFLOW),
            false => Ok(span),
        }
    }

    /// The same for an option of SET and its kin, whose number must be above 0.
    pub(super) fn option_deadline_ms(&self, deadline: Deadline, word: &[u8]) -> Result<i64, Stop> {
        let number = int(word)?;
        if number <= 0 {
            return Err(Stop::Refused("a deadline that is not above 0"));
        }
        self.deadline_ms(deadline, number)
    }
}

/// A part of an id: digits of any number, as far as 64 bits go.
fn id_part(text: &[u8]) -> Option<u64> {
    let is_canonical = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_canonical)
}

/// `ms-seq`, or `ms` alone, whose sequence is then `seq`.
pub fn stream_id(word: &[u8], seq: u64) -> Result<StreamId, Stop> {
    let refused = Stop::Refused("no stream id");
    let mut parts = word.splitn(2, |byte| *byte == b'-');
    let ms = parts.next().and_then(id_part);
    let seq = parts.next().map_or(Some(seq), id_part);
    match (ms, seq) {
        (Some(ms), Some(seq)) => Ok(StreamId::new(ms, seq)),
        _ => Err(refused),
    }
}

/// Where a range given by two indexes lies in a sequence of `len`; negative ones count from the end.
pub fn index_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from_end = |index: i64| {
        if index < 0 {
            index.saturating_add(len)
        } else {
            index
        }
    };
    let start = from_end(start).max(0);
    let stop = from_end(stop).min(len - 1);
    if start > stop || start >= len {
        return 0..0;
    }
    start as usize..stop as usize + 1
}
