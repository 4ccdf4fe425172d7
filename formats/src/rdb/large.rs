//! Values that are not to be in memory as a whole: the reader hands out their key, and then the value in pieces.
//!
//! `next_within` is `next` with a limit. Behind a key whose value is larger, the caller takes the value as bytes
//! (`large_bytes`) or as parts (`large_parts`), or leaves it: the next call passes over it. An element, a pack or a node
//! inside a value is still read as a whole; the bytes of a string come in pieces, also those of a packed one.

use super::length::{self, Length, Prefix};
use super::parts::PartWalk;
use super::reader::{Found, RdbReader, State};
use super::record::{Attributes, KeyRecord, RdbError, Record};
use super::shape::Step as WalkStep;
use super::stored::{Pieces, Step, has_items};
use super::{Flavor, type_code};
use crate::error::{Damage, Problem};
use crate::input::Cursor;
use crate::lzf::Expander;
use crate::parts::Part;
use std::io::Read;

/// What `next_within` comes to.
#[derive(Debug)]
pub enum Next<'a> {
    Record(Record<'a>),
    /// A key whose value is beyond the limit; `value` is empty.
    Large(KeyRecord<'a>),
}

/// Up to how many bytes values are handed out as a whole.
///
/// To have a collection as a whole its bytes are passed twice, the second time out of a slower cache; who takes its parts or stored bytes as
/// they come asks for none. A string in pieces is another thing to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeBytes {
    /// Of strings, and of all that has no elements one by one.
    pub single: usize,
    /// Of what is a number of elements, packs or nodes.
    pub collection: usize,
}

impl WholeBytes {
    /// All values.
    pub const ANY: WholeBytes = WholeBytes::of_all(usize::MAX);

    /// The same of all types.
    pub const fn of_all(bytes: usize) -> Self {
        WholeBytes {
            single: bytes,
            collection: bytes,
        }
    }

    pub(super) fn of(self, flavor: Flavor, code: u8) -> usize {
        match has_items(flavor, code) {
            true => self.collection,
            false => self.single,
        }
    }
}

/// A value that has not been passed.
#[derive(Debug, Clone)]
pub(super) struct Large {
    attributes: Attributes,
    code: u8,
    /// Offsets of the type byte and of the value in the file.
    offset: u64,
    value_offset: u64,
    /// Nothing was taken yet.
    is_fresh: bool,
    rest: Rest,
}

/// What is to come of a large value.
#[derive(Debug, Clone)]
enum Rest {
    Pieces(Pieces),
    /// Nothing but stored bytes: the reader's walk knows where it stands.
    Stored,
    /// A string whose length has not been read.
    String,
    /// Stored bytes of a string, and how a packed one is unpacked.
    StringBytes {
        left: u64,
        expander: Option<Expander>,
    },
}

/// Most bytes of a string that are handed out at once.
const PIECE_BYTES: u64 = 256 << 10;
/// The same for packed bytes, which can expand to 88 times as many.
const PACKED_PIECE_BYTES: u64 = 16 << 10;

impl<R: Read> RdbReader<R> {
    /// The next record, or a key whose value takes more than `value_bytes_max`; None after the end.
    ///
    /// ```
    /// use dfsnap_formats::parts::Part;
    /// use dfsnap_formats::rdb::large::Next;
    /// use dfsnap_formats::rdb::parts::PartWalk;
    /// use dfsnap_formats::rdb::reader::{Options, RdbError, RdbReader};
    /// let mut file = b"REDIS0003\x00\x01k\x80\x00\x10\x00\x00".to_vec(); // a string of a megabyte
    /// file.resize(file.len() + (1 << 20), b'x');
    /// file.push(255);
    /// let mut reader = RdbReader::new(&file[..], Options::default());
    /// let mut bytes = 0;
    /// while let Some(next) = reader.next_within(1000).unwrap() {
    ///     if let Next::Large(key) = next {
    ///         assert_eq!(key.key, b"k");
    ///         reader.large_parts(&mut PartWalk::default(), |part| {
    ///             if let Part::Bytes(piece) = part {
    ///                 bytes += piece.len();
    ///             }
    ///             Ok::<(), RdbError>(())
    ///         }).unwrap();
    ///     }
    /// }
    /// assert_eq!(bytes, 1 << 20);
    /// ```
    pub fn next_within(&mut self, value_bytes_max: usize) -> Result<Option<Next<'_>>, RdbError> {
        self.next_up_to(WholeBytes::of_all(value_bytes_max))
    }

    /// The same with limits for each kind. Whether a value between the least and `collection` comes as a whole depends on what has been read.
    pub fn next_up_to(&mut self, whole: WholeBytes) -> Result<Option<Next<'_>>, RdbError> {
        match self.found(whole)? {
            None => Ok(None),
            Some(Found::Large) => Ok(self.large_key().map(Next::Large)),
            Some(found) => self.report(found).map(|record| Some(Next::Record(record))),
        }
    }

    /// Turns the record in the buffer, whose value is not all there, into one that is handed out in pieces.
    pub(super) fn begin_large(&mut self, code: u8) -> Result<(), RdbError> {
        let code = self.type_of(code);
        let start = self.input.record_offset() + 1;
        let at_record = |damage: Damage| RdbError::Record(damage.moved(start));
        let mut cursor = Cursor::new(&self.input.record()[1..]);
        let key = cursor.string("key").map_err(at_record)?;
        let key_bytes = 1 + cursor.offset();
        let rest = match code {
            type_code::STRING => Rest::String,
            code => Rest::Pieces(Pieces::new(self.header.flavor, code).map_err(at_record)?),
        };
        self.large = Some(Box::new(Large {
            attributes: std::mem::take(&mut self.attributes),
            code,
            offset: start - 1,
            value_offset: start - 1 + key_bytes,
            is_fresh: true,
            rest,
        }));
        self.key = key;
        self.input.rewind(key_bytes as usize);
        self.input.begin_record();
        Ok(())
    }

    fn large_key(&self) -> Option<KeyRecord<'_>> {
        self.large.as_ref().map(|large| KeyRecord {
            db: self.db,
            key: &self.key,
            attributes: large.attributes,
            flavor: self.header.flavor,
            type_code: large.code,
            offset: large.offset,
            value_offset: large.value_offset,
            value: &[],
        })
    }

    /// The large value as it is stored, in pieces, as far as it has not been taken. A source without data interrupts as
    /// in `next`; after any other error the reader is failed.
    pub fn large_bytes<E: From<RdbError>>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(mut large) = self.large.take() {
            let done = self.bytes_step(&mut large);
            if !self.keep_large(large, &done) {
                return done.map(|_| ()).map_err(E::from);
            }
            let taken = match self.input.record() {
                [] => Ok(()),
                bytes => take(bytes),
            };
            self.input.begin_record();
            if taken.is_err() {
                self.state = State::Failed;
                return taken;
            }
        }
        Ok(())
    }

    /// The large value in parts, as far as it has not been taken. After `RdbError::Value` for a damaged part, or an
    /// error of `take`, `next_within` goes on behind the value; a source without data interrupts as in `next`.
    pub fn large_parts<E: From<RdbError>>(
        &mut self,
        walk: &mut PartWalk,
        mut take: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(mut large) = self.large.take() {
            if large.is_fresh {
                walk.opening.begin(self.header.flavor, large.code);
                walk.opening.only_checks = false;
                large.is_fresh = false;
            }
            if let Rest::Pieces(pieces) = &mut large.rest
                && pieces.is_at_item()
            {
                self.input.rewind(0);
                let (passed, opened) = self.open_items(large.code, pieces, walk, &mut take);
                self.input.pass(passed);
                self.input.begin_record();
                if opened.is_err() {
                    self.large = Some(large);
                    return opened;
                }
            }
            let read = match &mut large.rest {
                Rest::Pieces(pieces) => self.large_unit(large.code, pieces),
                Rest::Stored => self.walk_to_end(large.code),
                begin @ Rest::String => {
                    // The length is no part: the next piece is the first.
                    let begun = self.string_piece(begin);
                    if begun.is_ok() {
                        self.input.begin_record();
                        self.large = Some(large);
                        continue;
                    }
                    begun
                }
                bytes => self.string_piece(bytes).map(|_| false),
            };
            if read.is_err() {
                self.keep_large(large, &read);
                return read.map(|_| ()).map_err(E::from);
            }
            // The unit is in the buffer: whatever is wrong with it, its end is known.
            let done = self.open_unit(&mut large, walk, &mut take);
            self.input.begin_record();
            match done {
                Ok(true) => self.state = State::AwaitCode,
                Ok(false) => self.large = Some(large),
                Err(error) => {
                    self.large = Some(large);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// After a step that came to an end (true) or not. False: it failed.
    fn keep_large(&mut self, large: Box<Large>, done: &Result<bool, RdbError>) -> bool {
        match done {
            Ok(true) => self.state = State::AwaitCode,
            Ok(false) => self.large = Some(large),
            Err(RdbError::Io { .. }) => {
                self.large = Some(large);
                return false;
            }
            Err(_) => {
                self.state = State::Failed;
                return false;
            }
        }
        true
    }

    /// Moves over stored bytes, as far as they are here; true at the end of the value.
    fn bytes_step(&mut self, large: &mut Large) -> Result<bool, RdbError> {
        match &mut large.rest {
            Rest::Pieces(pieces) => {
                self.input.rewind(0);
                pieces.arm_rest(&mut self.walk);
                large.rest = Rest::Stored;
                Ok(false)
            }
            Rest::Stored => match self.walk_step(large.code)? {
                WalkStep::Done => Ok(true),
                // What was passed is handed out before more is read.
                WalkStep::Need(wanted) => {
                    if self.input.record().is_empty() {
                        self.read_or_break(large.code, wanted)?;
                    }
                    Ok(false)
                }
            },
            string => self.string_piece(string).map(|any| !any),
        }
    }

    fn walk_to_end(&mut self, code: u8) -> Result<bool, RdbError> {
        while let WalkStep::Need(wanted) = self.walk_step(code)? {
            self.input.begin_record();
            self.read_or_break(code, wanted)?;
        }
        Ok(true)
    }

    /// Reads the next piece of a value as a whole.
    fn large_unit(&mut self, code: u8, pieces: &Pieces) -> Result<bool, RdbError> {
        self.input.rewind(0);
        pieces.arm(&mut self.walk);
        while let WalkStep::Need(wanted) = self.walk_step(code)? {
            self.read_or_break(code, wanted)?;
        }
        Ok(false)
    }

    /// Takes the items that are in the buffer as a whole. It ends at the first that is not, or that is damaged: that one is read by itself, which
    /// tells the two apart. The answer is how many bytes were taken, also of an item that was the last because of its contents or its taker.
    fn open_items<E: From<RdbError>>(
        &self,
        code: u8,
        pieces: &mut Pieces,
        walk: &mut PartWalk,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> (usize, Result<(), E>) {
        let offset = self.input.offset();
        let damaged = |damage: Damage| {
            E::from(RdbError::Value {
                db: self.db,
                key: self.key.clone(),
                type_code: code,
                damage: damage.moved(offset),
            })
        };
        let PartWalk {
            scratch, opening, ..
        } = walk;
        let mut cursor = Cursor::new(self.input.ahead());
        let mut passed = 0;
        while pieces.is_at_item() {
            let (count, taken) = opening.short_items(&mut cursor, pieces.items_left(), take);
            pieces.pass_items(count);
            passed = cursor.offset() as usize;
            if taken.is_err() || !pieces.is_at_item() {
                return (passed, taken);
            }
            let before = pieces.clone();
            let Ok(Step::Piece(piece)) = pieces.step(&mut cursor, scratch) else {
                *pieces = before;
                break;
            };
            let start = passed as u64;
            passed = cursor.offset() as usize;
            if let Err(error) = opening.open(piece, start, take, damaged) {
                return (passed, Err(error));
            }
        }
        (passed, Ok(()))
    }

    /// Takes what is in the buffer; true after the last piece.
    fn open_unit<E: From<RdbError>>(
        &self,
        large: &mut Large,
        walk: &mut PartWalk,
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (db, code, offset) = (self.db, large.code, self.input.record_offset());
        let damaged = |damage: Damage| {
            E::from(RdbError::Value {
                db,
                key: self.key.clone(),
                type_code: code,
                damage: damage.moved(offset),
            })
        };
        let record = self.input.record();
        match &mut large.rest {
            Rest::Pieces(pieces) => {
                let mut cursor = Cursor::new(record);
                match pieces
                    .step(&mut cursor, &mut walk.scratch)
                    .map_err(damaged)?
                {
                    Step::Piece(piece) => walk.opening.open(piece, 0, take, damaged)?,
                    Step::Moved => {}
                    Step::Done => {
                        walk.opening.finish().map_err(damaged)?;
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Rest::Stored => Ok(true),
            Rest::String => Ok(false),
            Rest::StringBytes { left, expander } => {
                match expander {
                    None => take(Part::Bytes(record))?,
                    Some(expander) => {
                        let lzf = |lzf| damaged(Damage::new(0, "string", Problem::Lzf(lzf)));
                        let bytes = expander.expand(record).map_err(lzf)?;
                        take(Part::Bytes(bytes))?;
                        if *left == 0 {
                            expander.finish().map_err(lzf)?;
                        }
                    }
                }
                Ok(*left == 0)
            }
        }
    }

    /// Moves over the next piece of a string: first its length, then bytes. False: there was none left.
    fn string_piece(&mut self, rest: &mut Rest) -> Result<bool, RdbError> {
        if let Rest::StringBytes { left, expander } = rest {
            if *left == 0 {
                return Ok(false);
            }
            self.need(1, "string")?;
            let most = match expander {
                None => PIECE_BYTES,
                Some(_) => PACKED_PIECE_BYTES,
            };
            let here = (*left).min(most).min(self.input.ahead().len() as u64);
            self.input.pass(here as usize);
            *left -= here;
            return Ok(true);
        }
        self.input.rewind(0);
        let first = self.prefix("string")?;
        *rest = match first {
            Length::Plain(left) => Rest::StringBytes {
                left,
                expander: None,
            },
            Length::Special(length::LZF) => {
                let left = self.plain_length("string, packed bytes")?;
                let announced = self.plain_length("string, bytes")?;
                Rest::StringBytes {
                    left,
                    expander: Some(Expander::new(left, announced)),
                }
            }
            // An integer: nothing that comes in pieces.
            Length::Special(_) => {
                self.input.rewind(0);
                let pieces = Pieces::new(self.header.flavor, type_code::STRING);
                Rest::Pieces(pieces.map_err(RdbError::Record)?)
            }
        };
        Ok(true)
    }

    fn plain_length(&mut self, reading: &'static str) -> Result<u64, RdbError> {
        match self.prefix(reading)? {
            Length::Plain(value) => Ok(value),
            Length::Special(form) => {
                let (wanted, found) = ("a length", 0xC0 | form);
                let problem = Problem::Byte { wanted, found };
                Err(RdbError::Record(Damage::new(
                    self.input.offset(),
                    reading,
                    problem,
                )))
            }
        }
    }

    fn prefix(&mut self, reading: &'static str) -> Result<Length, RdbError> {
        loop {
            match length::read(self.input.ahead()) {
                Prefix::Whole(length, size) => {
                    self.input.pass(size);
                    return Ok(length);
                }
                Prefix::Short { wanted } => self.need(wanted as u64, reading)?,
                Prefix::Bad(found) => {
                    let wanted = "a length";
                    let problem = Problem::Byte { wanted, found };
                    let damage = Damage::new(self.input.offset(), reading, problem);
                    return Err(RdbError::Record(damage));
                }
            }
        }
    }
}
