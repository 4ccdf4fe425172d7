//! Reads on after damage: what is sound of a broken file, and which ranges of it are not.
//!
//! Salvage and lenient loading use it. Damage inside a value costs that key. Where a record has no end that can be
//! trusted, the next place is looked for from which records follow each other again. A wrong checksum costs nothing, a
//! cut file what was cut.
//!
//! Invariants
//! - Every byte of the file is in a record that is handed out or in a range that is reported.
//! - What is handed out passed all checks of `parts`.
//! - A place to go on is only taken if `CHAIN_KEYS` different keys with sound values follow, or fewer up to the end.

use super::large::WholeBytes;
use super::length::Prefix;
use super::parts::PartWalk;
use super::reader::{Found, Options, RdbReader, State};
use super::record::{End, KeyRecord, RdbError, Record};
use super::shape::{self, Step, Walk};
use super::{Flavor, length, opcode};
use crate::error::Damage;
use crate::input::Cursor;
use std::io::Read;

/// A range of the file that says nothing any more.
#[derive(Debug)]
pub struct Skipped {
    /// Offset of its first byte, and of the first behind it.
    pub from: u64,
    pub to: u64,
    pub why: RdbError,
}

/// What comes next of a file that may be damaged.
#[derive(Debug)]
pub enum Salvaged<'a> {
    Record(Record<'a>),
    Skipped(Skipped),
}

/// Reads records, and ranges without any.
///
/// ```
/// use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged};
/// use dfsnap_formats::rdb::reader::{Options, Record};
/// // The second key has a type that nobody knows.
/// let file = b"REDIS0003\x00\x01a\x01x\x63\x01b\x01y\x00\x01c\x01z\xff";
/// let mut reader = LenientReader::new(&file[..], Options::default());
/// let (mut keys, mut lost) = (Vec::new(), Vec::new());
/// while let Some(next) = reader.next().unwrap() {
///     match next {
///         Salvaged::Record(Record::Key(key)) => keys.push(key.key.to_vec()),
///         Salvaged::Record(_) => {}
///         Salvaged::Skipped(skipped) => lost.push((skipped.from, skipped.to)),
///     }
/// }
/// assert_eq!(keys, [b"a", b"c"]);
/// assert_eq!(lost, [(14, 19)]);
/// ```
#[derive(Debug)]
pub struct LenientReader<R> {
    reader: RdbReader<R>,
    walk: PartWalk,
    /// The end of a file whose checksum was reported as wrong.
    end: Option<End>,
}

/// Keys that must follow each other for a place to go on.
const CHAIN_KEYS: usize = 3;
/// Bytes that are looked at behind such a place.
const LOOKAHEAD: usize = 1 << 20;
/// Places that are tried before more is read.
const STRIDE: usize = 256 << 10;
/// Bytes walked over for the places of one stride, on average of each: random bytes often look like a huge list, and
/// each place would be walked to the end of what is here.
const WALKED_A_PLACE: usize = 64;
/// What is looked at when that is spent.
const LOOKAHEAD_SPENT: usize = 2048;
/// A key that is longer is not believed where the file was damaged before.
const KEY_BYTES_MAX: usize = 4096;

impl<R: Read> LenientReader<R> {
    pub fn new(source: R, options: Options) -> Self {
        LenientReader {
            reader: RdbReader::new(source, options),
            walk: PartWalk::default(),
            end: None,
        }
    }

    /// The next record or skipped range; None after the end. Only the source can fail, or a file that does not begin
    /// like one.
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<Salvaged<'_>>, RdbError> {
        if let Some(end) = self.end.take() {
            return Ok(Some(Salvaged::Record(Record::End(end))));
        }
        let found = match self.reader.found(WholeBytes::ANY) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                return self
                    .go_on(error)
                    .map(|skipped| Some(Salvaged::Skipped(skipped)));
            }
        };
        if let Err(why) = self.check(found) {
            let from = self.reader.input.record_offset();
            let to = self.reader.input.offset();
            return Ok(Some(Salvaged::Skipped(Skipped { from, to, why })));
        }
        self.reader
            .report(found)
            .map(|record| Some(Salvaged::Record(record)))
    }

    /// Offset of the next byte that will be looked at.
    pub fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// What is wrong with a record whose structure is sound.
    fn check(&mut self, found: Found) -> Result<(), RdbError> {
        let Record::Key(key) = self.reader.report(found)? else {
            return Ok(());
        };
        sound(&mut self.walk, &key).map_err(|damage| key.damaged(damage))
    }

    /// After an error of the structure, behind which the next record has to be looked for.
    fn go_on(&mut self, why: RdbError) -> Result<Skipped, RdbError> {
        match why {
            RdbError::Io { .. }
            | RdbError::Magic { .. }
            | RdbError::Version { .. }
            | RdbError::Failed { .. } => Err(why),
            RdbError::Checksum { offset, stored, .. } => {
                let bytes = self.reader.offset();
                self.reader.state = State::Ended;
                self.end = Some(End {
                    crc: Some(stored),
                    bytes,
                });
                Ok(Skipped {
                    from: offset,
                    to: bytes,
                    why,
                })
            }
            why => {
                let (from, to) = self.reader.resume()?;
                Ok(Skipped { from, to, why })
            }
        }
    }
}

fn sound(walk: &mut PartWalk, key: &KeyRecord<'_>) -> Result<(), Damage> {
    walk.value(key.flavor, key.type_code, key.value, |_| Ok(()))
}

impl<R: Read> RdbReader<R> {
    /// Moves from a failed record to the next place from which records follow each other, or to the end of the source.
    /// Gives the range that was passed.
    fn resume(&mut self) -> Result<(u64, u64), RdbError> {
        let from = self.input.record_offset();
        let flavor = self.header.flavor;
        self.input.rewind(0);
        self.large = None;
        self.attributes = Default::default();
        let mut chain = Chain::default();
        loop {
            let is_more = self.read((STRIDE + LOOKAHEAD) as u64)?;
            let ahead = self.input.ahead();
            let places = match is_more {
                true => STRIDE,
                false => ahead.len(),
            };
            chain.budget = places * WALKED_A_PLACE;
            let place = (1..places).find(|at| chain.follows(flavor, &ahead[*at..], !is_more));
            self.input.pass(place.unwrap_or(places));
            let to = self.input.offset();
            self.input.begin_record();
            if place.is_some() {
                self.state = State::AwaitCode;
                return Ok((from, to));
            }
            if !is_more {
                self.state = State::Ended;
                return Ok((from, to));
            }
        }
    }
}

/// Looks whether records follow each other.
#[derive(Default)]
struct Chain {
    /// Bytes that may still be walked over at length.
    budget: usize,
    walk: Walk,
    parts: PartWalk,
}

impl Chain {
    /// Whether `bytes` start with a sound chain of records; they go up to the end of the file if `is_rest`.
    fn follows(&mut self, flavor: Flavor, bytes: &[u8], is_rest: bool) -> bool {
        let mut keys: Vec<&[u8]> = Vec::new();
        let mut at = 0;
        while keys.len() < CHAIN_KEYS {
            let Some(&code) = bytes.get(at) else {
                // The file was cut behind whole records.
                return is_rest && !keys.is_empty();
            };
            if code == opcode::EOF {
                let left = bytes.len() - at - 1;
                return is_rest
                    && (left == 0 || left >= 8)
                    && (at == 0 && left <= 8 || !keys.is_empty());
            }
            let Some(size) = self.record(flavor, &bytes[at..]) else {
                return is_rest && keys.len() > 1;
            };
            if shape::of_value(flavor, code).is_some() {
                match self.key(flavor, &bytes[at..at + size]) {
                    Some(key) if !keys.contains(&key) => keys.push(key),
                    _ => return false,
                }
            } else if keys.is_empty() && at > 0 && !is_attribute(code) {
                // Two records that are no keys say little.
                return false;
            }
            at += size;
        }
        true
    }

    /// Size of the record that `bytes` start with, if it is whole.
    fn record(&mut self, flavor: Flavor, bytes: &[u8]) -> Option<usize> {
        let code = *bytes.first()?;
        match shape::of_value(flavor, code) {
            Some(parts) => {
                self.walk.start(parts);
                self.walk.push(&[shape::Part::Text], 1);
            }
            None => self.walk.start(shape::of_opcode(flavor, code)?),
        }
        let window = match self.budget {
            0 => &bytes[..bytes.len().min(LOOKAHEAD_SPENT)],
            _ => bytes,
        };
        let mut at = 1;
        let step = self.walk.go_on(window, &mut at);
        self.budget = self.budget.saturating_sub(at);
        matches!(step, Ok(Step::Done)).then_some(at)
    }

    /// The key of a record, if it and its value can be believed.
    fn key<'b>(&mut self, flavor: Flavor, record: &'b [u8]) -> Option<&'b [u8]> {
        let code = *record.first()?;
        let mut cursor = Cursor::new(&record[1..]);
        let start = cursor.offset() as usize;
        let text = cursor.text("key").ok()?;
        let key = &record[1 + start..1 + cursor.offset() as usize];
        let is_plain = matches!(
            length::read(key),
            Prefix::Whole(length::Length::Plain(1..), _)
        );
        let is_int = matches!(text, crate::input::Text::Int(_));
        if key.len() > KEY_BYTES_MAX || !(is_plain || is_int) {
            return None;
        }
        let mut parts = 0;
        let opened = self.parts.value(flavor, code, cursor.rest(), |_| {
            parts += 1;
            Ok::<(), Damage>(())
        });
        (opened.is_ok() && parts > 0).then_some(key)
    }
}

/// What may stand before a key, and more than once.
fn is_attribute(code: u8) -> bool {
    matches!(
        code,
        opcode::EXPIRE_MS
            | opcode::EXPIRE_S
            | opcode::IDLE
            | opcode::FREQ
            | opcode::KEY_MASK
            | opcode::SELECT_DB
            | opcode::RESIZE_DB
            | opcode::SLOT_INFO
            | opcode::AUX
    )
}
