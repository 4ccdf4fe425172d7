//! Pulls units out of a stream that holds an AOF file: records of the preamble, commands, annotations, and the end.
//!
//! Converting, checking and salvaging start here; `replay::Replay` takes the units. `resp::RequestDecoder` is not used:
//! it takes inline commands and empty lines for commands and refuses words above a limit, while a server that loads an
//! AOF wants arrays only, takes a lone LF for a line's end, and looks at neither of the two bytes behind a word.
//!
//! Invariants
//! - Memory holds one command, and grows only with bytes that really arrived.
//! - Offsets count from the start of the file, the preamble included.
//! - The end is told apart from damage: a file that stops inside a command, or with a MULTI open, is cut; anything else
//!   that is no unit is an error, or a hole where the reader is lenient.
//! - After an error of the source `next` goes on where it stopped. After any other error it stays failed.

use crate::error::{Damage, Problem};
use crate::input::Input;
use crate::rdb::reader::{Options as RdbOptions, RdbReader};
use crate::rdb::record::Record;
use std::io::{self, Read};
use std::ops::Range;

pub use super::unit::{AofError, Command, CutPart, End, Unit, Words};

/// How a file is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// For the preamble.
    pub rdb: RdbOptions,
    /// Skip what is no command, up to the next one, instead of failing. The preamble is never skipped.
    pub lenient: bool,
}

/// Reads units one by one.
///
/// ```
/// use dfsnap_formats::aof::reader::{AofReader, End, Options, Unit};
/// let file = b"#TS:1700000000\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nIN";
/// let mut reader = AofReader::new(&file[..], Options::default());
/// let Some(Unit::Timestamp { unix_s, .. }) = reader.next().unwrap() else { panic!() };
/// assert_eq!(unix_s, 1_700_000_000);
/// let Some(Unit::Command(command)) = reader.next().unwrap() else { panic!() };
/// assert_eq!((command.offset, &command.words[0]), (16, &b"INCR"[..]));
/// let Some(Unit::End(End::Cut { good_bytes, .. })) = reader.next().unwrap() else { panic!() };
/// assert_eq!(good_bytes, 37);
/// assert!(reader.next().unwrap().is_none());
/// ```
#[derive(Debug)]
pub struct AofReader<R> {
    phase: Phase<R>,
    options: Options,
    /// Bytes of the preamble: what offsets of `Input` lack.
    base: u64,
    preamble_has_ended: bool,
    unit: Partial,
    /// Offset of the open MULTI.
    group: Option<u64>,
    /// Where the bytes being skipped began, and why.
    hole: Option<(u64, Damage)>,
}

#[derive(Debug)]
enum Phase<R> {
    /// The first bytes decide whether there is a preamble.
    Start(Ahead<R>),
    Preamble(Box<RdbReader<Ahead<R>>>),
    Units(Box<Input<Ahead<R>>>),
    Ended,
    Failed(u64),
}

/// How far the unit at hand was parsed; places count from its first byte.
#[derive(Debug, Default)]
struct Partial {
    words: Vec<Range<usize>>,
    /// Still to come; None: the first line is not parsed.
    words_left: Option<u64>,
    /// First byte not parsed.
    at: usize,
    /// No line end between `at` and here.
    scanned: usize,
}

/// What `parse` found.
enum Found {
    Command,
    Annotation,
}

/// Why `parse` found nothing.
enum Stop {
    Io(io::Error),
    /// The stream ends inside of a command or an annotation.
    Short(CutPart),
    /// The stream ends behind a unit.
    End,
    Bad(Damage),
}

/// Longest line with a number: servers read numbers of any size, but none has more digits.
const NUMBER_LINE_MAX: usize = 32;
/// Longest annotation that servers read, line end included.
const ANNOTATION_LINE_MAX: usize = 1023;
const WORDS_MAX: u64 = i32::MAX as u64;
/// What a reader keeps between commands.
const WORDS_KEPT: usize = 1024;

impl<R: Read> AofReader<R> {
    pub fn new(source: R, options: Options) -> Self {
        AofReader {
            phase: Phase::Start(Ahead {
                bytes: Vec::new(),
                at: 0,
                source,
            }),
            options,
            base: 0,
            preamble_has_ended: false,
            unit: Partial::default(),
            group: None,
            hole: None,
        }
    }

    /// The next unit; None after the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "a unit borrows from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<Unit<'_>>, AofError> {
        self.start()?;
        if self.pass_preamble()? {
            return self.preamble_record();
        }
        let result = self.advance();
        if let Err(error) = &result
            && !matches!(error, AofError::Io { .. })
        {
            self.phase = Phase::Failed(self.offset());
        }
        match result? {
            None => Ok(None),
            Some(Step::Skipped(range, why)) => Ok(Some(Unit::Skipped { range, why })),
            Some(Step::End(end)) => {
                self.phase = Phase::Ended;
                Ok(Some(Unit::End(end)))
            }
            Some(Step::Unit(found)) => Ok(Some(self.unit(found)?)),
        }
    }

    /// Offset of the next unit.
    pub fn offset(&self) -> u64 {
        match &self.phase {
            Phase::Start(_) | Phase::Ended => self.base,
            Phase::Preamble(reader) => reader.offset(),
            Phase::Units(input) => self.base + input.offset(),
            Phase::Failed(offset) => *offset,
        }
    }

    /// Looks at the first bytes.
    fn start(&mut self) -> Result<(), AofError> {
        let Phase::Start(ahead) = &mut self.phase else {
            return Ok(());
        };
        const MAGICS: [&[u8]; 2] = [b"REDIS", b"VALKEY"];
        while MAGICS
            .iter()
            .any(|magic| ahead.bytes.len() < magic.len() && magic.starts_with(&ahead.bytes))
        {
            if !ahead
                .peek()
                .map_err(|source| AofError::Io { offset: 0, source })?
            {
                break;
            }
        }
        let is_rdb = MAGICS.iter().any(|magic| ahead.bytes.starts_with(magic));
        let Phase::Start(ahead) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            unreachable!("the phase was looked at above");
        };
        self.phase = match is_rdb {
            true => Phase::Preamble(Box::new(RdbReader::new(ahead, self.options.rdb))),
            false => Phase::Units(Box::new(Input::new(ahead, false))),
        };
        Ok(())
    }

    /// Moves on from a preamble that has ended. True: it goes on.
    fn pass_preamble(&mut self) -> Result<bool, AofError> {
        let Phase::Preamble(reader) = &self.phase else {
            return Ok(false);
        };
        if !self.preamble_has_ended {
            return Ok(true);
        }
        let bytes = reader.offset();
        let Phase::Preamble(reader) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            unreachable!("the phase was looked at above");
        };
        let (mut rest, ahead) = reader.into_parts();
        rest.extend_from_slice(&ahead.bytes[ahead.at..]);
        self.base = bytes;
        let ahead = Ahead {
            bytes: rest,
            at: 0,
            source: ahead.source,
        };
        self.phase = Phase::Units(Box::new(Input::new(ahead, false)));
        Ok(false)
    }

    fn preamble_record(&mut self) -> Result<Option<Unit<'_>>, AofError> {
        let Phase::Preamble(reader) = &mut self.phase else {
            unreachable!("called in the preamble");
        };
        let record = reader.next()?;
        self.preamble_has_ended = matches!(record, None | Some(Record::End(_)));
        Ok(record.map(Unit::Preamble))
    }

    /// Finds the next thing to report.
    fn advance(&mut self) -> Result<Option<Step>, AofError> {
        let base = self.base;
        let input = match &mut self.phase {
            Phase::Units(input) => input,
            Phase::Failed(offset) => return Err(AofError::Failed { offset: *offset }),
            _ => return Ok(None),
        };
        loop {
            if let Some((from, why)) = &self.hole {
                if let Err(source) = resync(input) {
                    let offset = base + input.offset();
                    return Err(AofError::Io { offset, source });
                }
                let step = Step::Skipped(*from..base + input.offset(), why.clone());
                self.hole = None;
                return Ok(Some(step));
            }
            let stop = match self.unit.parse(input) {
                Ok(found) => return Ok(Some(Step::Unit(found))),
                Err(stop) => stop,
            };
            let offset = base + input.offset();
            match stop {
                Stop::Io(source) => return Err(AofError::Io { offset, source }),
                Stop::End => {
                    return Ok(Some(Step::End(match self.group {
                        None => End::Whole { bytes: offset },
                        Some(good_bytes) => cut(good_bytes, offset, CutPart::Group),
                    })));
                }
                Stop::Short(part) => {
                    let end = offset + input.ahead().len() as u64;
                    // A length that was damaged may reach over the end: what follows it is still there.
                    if self.options.lenient && next_command(input.ahead()).is_some() {
                        let left = input.ahead().len() as u64;
                        let wanted = left + 1;
                        let problem = Problem::Truncated { wanted, left };
                        self.hole = Some((offset, Damage::new(offset, "command", problem)));
                        self.unit.reset();
                        continue;
                    }
                    return Ok(Some(Step::End(match self.group {
                        None => cut(offset, end, part),
                        Some(good_bytes) => cut(good_bytes, end, CutPart::Group),
                    })));
                }
                Stop::Bad(damage) => {
                    let damage = damage.moved(offset);
                    if !self.options.lenient {
                        return Err(AofError::Format(damage));
                    }
                    self.hole = Some((offset, damage));
                    self.unit.reset();
                }
            }
        }
    }

    /// Hands out the unit that was parsed.
    fn unit(&mut self, found: Found) -> Result<Unit<'_>, AofError> {
        let Phase::Units(input) = &mut self.phase else {
            unreachable!("units are parsed in this phase");
        };
        let offset = self.base + input.offset();
        let size = self.unit.at;
        input.begin_record();
        input.pass(size);
        if self.unit.words.capacity() > WORDS_KEPT && self.unit.words.len() <= WORDS_KEPT {
            self.unit.words.shrink_to(WORDS_KEPT);
        }
        let bytes = input.record();
        match found {
            Found::Annotation => {
                self.unit.reset();
                let text = trimmed(&bytes[1..]);
                let stamp = text.strip_prefix(b"TS:");
                Ok(match stamp.and_then(crate::encoding::canonical_int) {
                    Some(unix_s) => Unit::Timestamp { offset, unix_s },
                    None => Unit::Annotation { offset, text },
                })
            }
            Found::Command => {
                self.unit.forget_all_but_words();
                let words = Words {
                    bytes,
                    ranges: &self.unit.words,
                };
                let name = words.first();
                if self.group.is_none() && name.eq_ignore_ascii_case(b"MULTI") {
                    self.group = Some(offset);
                }
                let group = self.group;
                if name.eq_ignore_ascii_case(b"EXEC") {
                    self.group = None;
                }
                let end = offset + size as u64;
                Ok(Unit::Command(Command {
                    offset,
                    end,
                    group,
                    words,
                }))
            }
        }
    }
}

/// What `advance` comes to.
enum Step {
    Unit(Found),
    Skipped(Range<u64>, Damage),
    End(End),
}

fn cut(good_bytes: u64, end: u64, what: CutPart) -> End {
    End::Cut {
        good_bytes,
        cut_bytes: end - good_bytes,
        what,
    }
}

impl Partial {
    fn reset(&mut self) {
        self.words.clear();
        self.forget_all_but_words();
    }

    fn forget_all_but_words(&mut self) {
        self.words_left = None;
        self.at = 0;
        self.scanned = 0;
    }

    /// Parses the unit at the start of what is ahead, and passes nothing. Damage counts from the start of the unit.
    fn parse<R: Read>(&mut self, input: &mut Input<R>) -> Result<Found, Stop> {
        if self.words_left.is_none() {
            self.words.clear();
            input.begin_record();
            if !input.need(1).map_err(Stop::Io)? {
                return Err(Stop::End);
            }
            match input.ahead()[0] {
                b'#' => {
                    self.line(
                        input,
                        ANNOTATION_LINE_MAX,
                        "annotation",
                        CutPart::Annotation,
                    )?;
                    return Ok(Found::Annotation);
                }
                b'*' => {}
                found => {
                    let wanted = "a command ('*') or an annotation ('#')";
                    return Err(bad(0, "command", Problem::Byte { wanted, found }));
                }
            }
            let count = self.number(input, "number of words", WORDS_MAX)?;
            if count == 0 {
                let wanted = "at least one word";
                let found = count;
                return Err(bad(1, "number of words", Problem::Number { wanted, found }));
            }
            self.words_left = Some(count);
        }
        while let Some(left) = self.words_left.filter(|left| *left > 0) {
            self.word(input)?;
            self.words_left = Some(left - 1);
        }
        Ok(Found::Command)
    }

    fn word<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), Stop> {
        let start = self.at;
        if !input.need(start as u64 + 1).map_err(Stop::Io)? {
            return Err(Stop::Short(CutPart::Command));
        }
        match input.ahead()[start] {
            b'$' => {}
            found => {
                let wanted = "a word ('$')";
                return Err(bad(start, "word", Problem::Byte { wanted, found }));
            }
        }
        let len = self.number(input, "length of a word", i64::MAX as u64)?;
        let from = self.at as u64;
        let wanted = from.saturating_add(len).saturating_add(2);
        let is_there = input.need(wanted).map_err(Stop::Io);
        match is_there {
            Ok(true) => {}
            // The line is parsed again, with the next bytes.
            Err(stop) => {
                self.at = start;
                self.scanned = start;
                return Err(stop);
            }
            Ok(false) => return Err(Stop::Short(CutPart::Command)),
        }
        let end = (from + len) as usize;
        self.words.push(from as usize..end);
        self.at = end + 2;
        self.scanned = self.at;
        Ok(())
    }

    /// The number in the line at `at`, behind its marker.
    fn number<R: Read>(
        &mut self,
        input: &mut Input<R>,
        reading: &'static str,
        most: u64,
    ) -> Result<u64, Stop> {
        let start = self.at;
        self.line(input, NUMBER_LINE_MAX, reading, CutPart::Command)?;
        let digits = trimmed(&input.ahead()[start + 1..self.at]);
        let number = digits.iter().try_fold(0u64, |sum, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        });
        match number.filter(|number| !digits.is_empty() && *number <= most) {
            Some(number) => Ok(number),
            None => {
                let wanted = "decimal digits and a line end";
                let found = digits.to_vec();
                Err(bad(start + 1, reading, Problem::Text { wanted, found }))
            }
        }
    }

    /// Moves `at` behind the line that starts there.
    fn line<R: Read>(
        &mut self,
        input: &mut Input<R>,
        most: usize,
        reading: &'static str,
        part: CutPart,
    ) -> Result<(), Stop> {
        let start = self.at;
        self.scanned = self.scanned.max(start);
        loop {
            let ahead = input.ahead();
            let end = ahead.len().min(start + most);
            let seen = ahead.get(self.scanned..end).unwrap_or_default();
            if let Some(found) = seen.iter().position(|byte| *byte == b'\n') {
                self.at = self.scanned + found + 1;
                self.scanned = self.at;
                return Ok(());
            }
            self.scanned = end;
            if end == start + most {
                let wanted = "a line end";
                let found = ahead[start..end].to_vec();
                return Err(bad(start, reading, Problem::Text { wanted, found }));
            }
            let wanted = ahead.len() as u64 + 1;
            if !input.need(wanted).map_err(Stop::Io)? {
                return Err(Stop::Short(part));
            }
        }
    }
}

fn bad(at: usize, reading: &'static str, problem: Problem) -> Stop {
    Stop::Bad(Damage::new(at as u64, reading, problem))
}

/// Without LF or CRLF at the end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Passes everything up to the next plausible command, or to the end.
fn resync<R: Read>(input: &mut Input<R>) -> io::Result<()> {
    loop {
        input.begin_record();
        if let Some(at) = next_command(input.ahead()) {
            input.pass(at);
            return Ok(());
        }
        // A command that begins in the bytes at hand may be completed by the next ones.
        let kept = input.ahead().len().min(PATTERN_MAX);
        input.pass(input.ahead().len() - kept);
        if !input.need(kept as u64 + 1)? {
            input.pass(kept);
            return Ok(());
        }
    }
}

/// `\r\n*`, digits, `\r\n$`.
const PATTERN_MAX: usize = 3 + 10 + 3;

/// Where behind the first byte a command seems to begin: its `*` follows a line end, and a word its first line.
fn next_command(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'*')?;
        let follows_line = at >= 2 && &bytes[at - 2..at] == b"\r\n";
        let rest = &bytes[at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if follows_line && (1..=10).contains(&digits) && rest[digits..].starts_with(b"\r\n$") {
            return Some(at);
        }
        at += 1;
    }
}

/// A source with bytes in front that were read from it before.
#[derive(Debug)]
struct Ahead<R> {
    bytes: Vec<u8>,
    /// First byte of `bytes` not given.
    at: usize,
    source: R,
}

impl<R: Read> Ahead<R> {
    /// Reads one byte more, to be given later. False: there is none.
    fn peek(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match self.source.read(&mut byte) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.bytes.push(byte[0]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for Ahead<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at < self.bytes.len() {
            let read = (&self.bytes[self.at..]).read(out)?;
            self.at += read;
            if self.at == self.bytes.len() {
                self.bytes = Vec::new();
                self.at = 0;
            }
            return Ok(read);
        }
        self.source.read(out)
    }
}

#[cfg(test)]
mod tests;
