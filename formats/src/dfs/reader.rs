//! Pulls records out of a stream that holds one file of a DFS set: a shard file or the summary.
//!
//! Loading, converting and checking start here. Records come as from `rdb::reader`, whole, wherever they stood: in the
//! file itself, in a compressed blob, or in pieces between other records.
//!
//! Invariants
//! - Memory holds one record, one expanded blob, and the values that are in pieces; each grows only with bytes that
//!   really arrived, a blob at most to `Options::blob_bytes_max`.
//! - A file without its end mark is an error, also when every record in it is sound.
//! - Damage ends the reading unless it is lenient; then every byte that was passed over is in a `Skipped`.

use super::blob::{Codec, Expander, PLAIN_BYTES_MAX};
use super::chunk::{Assembly, ChunkError, Chunks};
use super::error::DfsError;
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Input, Text};
use crate::rdb::inside::Scope;
use crate::rdb::large::WholeBytes;
use crate::rdb::length::{self, Length, Prefix};
use crate::rdb::opcode;
use crate::rdb::reader::{self as rdb, Found, RdbReader};
use crate::rdb::record::{Header, RdbError, Record};
use std::borrow::Cow;
use std::io::{self, Read};

/// What a reader takes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes that a blob may expand to.
    pub blob_bytes_max: usize,
    /// Size of the source, where it is known: a length that points beyond is refused without reading that far.
    pub source_bytes: Option<u64>,
    /// Go on behind damage where the format tells where that is, and keep account of it.
    pub lenient: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            blob_bytes_max: PLAIN_BYTES_MAX,
            source_bytes: None,
            lenient: false,
        }
    }
}

/// A record, and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<'a> {
    pub place: Place,
    pub record: Record<'a>,
}

/// What the offsets of a record count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The start of the file.
    File,
    /// The start of what this blob expands to.
    Blob { offset: u64 },
    /// The start of the pieces put together; the first of them stands at this offset.
    Chunks { offset: u64 },
}

/// Bytes that a lenient reader passed over.
#[derive(Debug)]
pub struct Skipped {
    /// In the file.
    pub offset: u64,
    /// Of the file. Of a value in pieces: those of its first piece or of the one that was damaged.
    pub bytes: u64,
    pub why: DfsError,
}

/// What follows the end of a file. Dragonfly writes whole blocks of 4096 bytes and leaves in the last what was in its
/// buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    pub bytes: u64,
    /// Those of them that are not zero.
    pub not_zero: u64,
}

/// Reads records one by one.
///
/// ```
/// use dfsnap_formats::dfs::reader::{DfsReader, Options};
/// use dfsnap_formats::rdb::record::Record;
/// let mut file = b"REDIS0009\xfe\x00".to_vec();
/// // A set of three members in two pieces.
/// file.extend_from_slice(b"\xe0\x07\0\0\0\x08\0\0\0\x02\x01s\x03\x01x\x01y");
/// file.extend_from_slice(b"\xe0\x07\0\0\0\x02\0\0\0\x01z");
/// file.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
/// let mut reader = DfsReader::new(&file[..], Options::default());
/// while let Some(found) = reader.next().unwrap() {
///     if let Record::Key(key) = found.record {
///         assert_eq!((key.key, key.value), (&b"s"[..], &b"\x03\x01x\x01y\x01z"[..]));
///     }
/// }
/// ```
#[derive(Debug)]
pub struct DfsReader<R> {
    file: RdbReader<R>,
    options: Options,
    blob: Option<OpenBlob>,
    chunks: Chunks,
    /// The value that was put together last.
    whole: Option<Assembly>,
    /// That of the first blob.
    codec: Option<Codec>,
    expander: Expander,
    skipped: Vec<Skipped>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// A lenient reader found no more, and no end mark.
    Lost,
    Failed,
}

#[derive(Debug)]
struct OpenBlob {
    /// Of the opcode in the file.
    offset: u64,
    /// In the file.
    bytes: u64,
    codec: Codec,
    reader: RdbReader<io::Empty>,
}

/// Which reader holds the record that was found.
#[derive(Debug, Clone, Copy)]
enum Level {
    File,
    Blob,
    Whole,
}

impl<R: Read> DfsReader<R> {
    pub fn new(source: R, options: Options) -> Self {
        DfsReader {
            file: RdbReader::of_dfs(source, rdb_options(options.source_bytes)),
            options,
            blob: None,
            chunks: Chunks::default(),
            whole: None,
            codec: None,
            expander: Expander::default(),
            skipped: Vec::new(),
            state: State::Reading,
        }
    }

    /// The next record; None after the end. Search index data, which Dragonfly builds again, is passed over.
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<Placed<'_>>, DfsError> {
        let lenient = self.options.lenient;
        let (level, found) = loop {
            match self.state {
                State::Reading => {}
                State::Lost => return Ok(None),
                State::Failed => {
                    let offset = self.file.offset();
                    return Err(DfsError::Failed { offset });
                }
            }
            match self.advance() {
                Ok(None) => return Ok(None),
                Ok(Some((level, found))) if lenient => match self.placed(level, found) {
                    Ok(_) => break (level, found),
                    Err(why) => self.skip_record(level, why),
                },
                Ok(Some(hit)) => break hit,
                Err(error @ DfsError::File(RdbError::Io { .. })) => return Err(error),
                Err(error) if lenient => self.forgive(error)?,
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
            }
        };
        self.placed(level, found).map(Some)
    }

    /// Magic and version; known once the header record was returned.
    pub fn header(&self) -> Header {
        self.file.header()
    }

    /// Offset in the file of the next byte that will be looked at.
    pub fn offset(&self) -> u64 {
        self.file.offset()
    }

    /// How blobs are compressed; None before the first.
    pub fn codec(&self) -> Option<Codec> {
        self.codec
    }

    /// What a lenient reader passed over so far. A file whose end mark is missing ends in one of these.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Reads what follows the end, to the last byte of the source. Wanted after `next` returned None.
    pub fn padding(&mut self) -> Result<Padding, DfsError> {
        let mut padding = Padding::default();
        let offset = self.file.offset();
        let input = self.file.input_mut();
        loop {
            let more = input.need(1).map_err(|source| {
                let offset = offset + padding.bytes;
                DfsError::File(RdbError::Io { offset, source })
            })?;
            if !more {
                return Ok(padding);
            }
            let ahead = input.ahead();
            let count = ahead.len();
            padding.bytes += count as u64;
            padding.not_zero += ahead.iter().filter(|byte| **byte != 0).count() as u64;
            input.pass(count);
            input.begin_record();
        }
    }

    fn placed(&self, level: Level, found: Found) -> Result<Placed<'_>, DfsError> {
        let (place, record) = match (level, &self.blob, &self.whole) {
            (Level::Blob, Some(blob), _) => {
                let offset = blob.offset;
                (Place::Blob { offset }, blob.reader.report(found))
            }
            (Level::Whole, _, Some(whole)) => {
                let offset = whole.offset;
                (Place::Chunks { offset }, whole.reader().report(found))
            }
            _ => (Place::File, self.file.report(found)),
        };
        let record = record.map_err(|error| self.located(level, error))?;
        Ok(Placed { place, record })
    }

    fn located(&self, level: Level, error: RdbError) -> DfsError {
        match (level, &self.blob) {
            (Level::Blob, Some(blob)) => DfsError::InBlob {
                offset: blob.offset,
                codec: blob.codec,
                error,
            },
            _ => not_of_a_snapshot(error),
        }
    }

    /// Moves to the next record that is to be reported.
    fn advance(&mut self) -> Result<Option<(Level, Found)>, DfsError> {
        self.whole = None;
        loop {
            let hit = match self.blob {
                Some(_) => self.step_in_blob()?,
                None => match self.step_in_file()? {
                    Step::Ended => return Ok(None),
                    Step::GoOn => None,
                    Step::Hit(level, found) => Some((level, found)),
                },
            };
            if hit.is_some() {
                return Ok(hit);
            }
        }
    }

    fn step_in_file(&mut self) -> Result<Step, DfsError> {
        let found = self
            .file
            .found(WholeBytes::ANY)
            .map_err(not_of_a_snapshot)?;
        let Some(found) = found else {
            return Ok(Step::Ended);
        };
        match found {
            Found::Whole(opcode::VECTOR_INDEX | opcode::SHARD_DOC_INDEX, _) => Ok(Step::GoOn),
            Found::Whole(opcode::TAGGED_CHUNK, _) => {
                let (body_offset, body) = self.file.body();
                let (id, piece) = tagged(body);
                let offset = body_offset - 1;
                let expanded = match piece.first().copied().and_then(Codec::of_opcode) {
                    None => None,
                    Some(codec) => {
                        let max = self.options.blob_bytes_max;
                        let expander = &mut self.expander;
                        let blob = (codec, &piece[1..], offset);
                        let plain = expand(expander, &mut self.codec, blob, max);
                        // Without this piece the others are no value.
                        Some(plain.inspect_err(|_| self.chunks.drop_value(id))?)
                    }
                };
                let piece = expanded.as_deref().unwrap_or(piece);
                let context = self.file.context();
                let whole = self
                    .chunks
                    .add(id, piece, offset, rdb_options(None), context);
                let whole = whole.map_err(|error| DfsError::Chunk { offset, id, error })?;
                Ok(match whole {
                    None => Step::GoOn,
                    Some((assembly, found)) => {
                        self.whole = Some(assembly);
                        Step::Hit(Level::Whole, found)
                    }
                })
            }
            Found::Whole(code, _) if Codec::of_opcode(code).is_some() => {
                self.open_blob(code)?;
                Ok(Step::GoOn)
            }
            Found::End(_) => {
                if let Some((offset, id, error)) = self.chunks.take_unfinished() {
                    let why = DfsError::Chunk { offset, id, error };
                    if !self.options.lenient {
                        return Err(why);
                    }
                    self.note_unfinished(offset, why);
                }
                Ok(Step::Hit(Level::File, found))
            }
            found => Ok(Step::Hit(Level::File, found)),
        }
    }

    fn open_blob(&mut self, code: u8) -> Result<(), DfsError> {
        let (body_offset, body) = self.file.body();
        let offset = body_offset - 1;
        let codec = match code {
            opcode::ZSTD_BLOB => Codec::Zstd,
            _ => Codec::Lz4,
        };
        let max = self.options.blob_bytes_max;
        let blob = (codec, body, offset);
        let plain = expand(&mut self.expander, &mut self.codec, blob, max)?;
        let bytes = 1 + body.len() as u64;
        let options = rdb_options(Some(plain.len() as u64));
        let input = Input::of_bytes(plain);
        let reader = RdbReader::inside(input, options, Scope::Records, self.file.context());
        self.blob = Some(OpenBlob {
            offset,
            bytes,
            codec,
            reader,
        });
        Ok(())
    }

    /// None: nothing to report yet, or the blob is over.
    fn step_in_blob(&mut self) -> Result<Option<(Level, Found)>, DfsError> {
        let Some(blob) = &mut self.blob else {
            return Ok(None);
        };
        let offset = blob.offset;
        let found = match blob.reader.found(WholeBytes::ANY) {
            Ok(found) => found,
            Err(error) => {
                return Err(match not_of_a_snapshot(error) {
                    DfsError::File(error) => DfsError::InBlob {
                        offset,
                        codec: blob.codec,
                        error,
                    },
                    other => other,
                });
            }
        };
        match found {
            None => {
                self.file.set_context(blob.reader.context());
                self.blob = None;
                Ok(None)
            }
            Some(Found::Whole(opcode::VECTOR_INDEX | opcode::SHARD_DOC_INDEX, _)) => Ok(None),
            Some(Found::Whole(opcode::TAGGED_CHUNK, _)) => {
                let (id, piece) = tagged(blob.reader.body().1);
                if let Some(found) = piece.first().copied().and_then(Codec::of_opcode) {
                    return Err(DfsError::Nested { offset, found });
                }
                let context = blob.reader.context();
                let whole = self
                    .chunks
                    .add(id, piece, offset, rdb_options(None), context);
                let whole = whole.map_err(|error| DfsError::Chunk { offset, id, error })?;
                Ok(whole.map(|(assembly, found)| {
                    self.whole = Some(assembly);
                    (Level::Whole, found)
                }))
            }
            Some(Found::Whole(code, _)) if Codec::of_opcode(code).is_some() => {
                let found = match code {
                    opcode::ZSTD_BLOB => Codec::Zstd,
                    _ => Codec::Lz4,
                };
                Err(DfsError::Nested { offset, found })
            }
            Some(found) => Ok(Some((Level::Blob, found))),
        }
    }

    // What a lenient reader does.

    fn note_unfinished(&mut self, offset: u64, why: DfsError) {
        let mut next = Some((offset, why));
        while let Some((offset, why)) = next {
            let bytes = match &why {
                DfsError::Chunk {
                    error: ChunkError::Unfinished { bytes, .. },
                    ..
                } => *bytes,
                _ => 0,
            };
            self.skipped.push(Skipped { offset, bytes, why });
            let more = self.chunks.take_unfinished();
            next = more.map(|(offset, id, error)| (offset, DfsError::Chunk { offset, id, error }));
        }
    }

    /// A record whose end is known, but not what it says: it is passed over alone.
    fn skip_record(&mut self, level: Level, why: DfsError) {
        let (offset, bytes) = match (level, &self.blob, &self.whole) {
            (Level::Blob, Some(blob), _) => (blob.offset, 1 + blob.reader.body().1.len() as u64),
            (Level::Whole, _, Some(whole)) => (whole.offset, whole.reader().body().1.len() as u64),
            _ => {
                let (offset, body) = self.file.body();
                (offset - 1, 1 + body.len() as u64)
            }
        };
        self.skipped.push(Skipped { offset, bytes, why });
    }

    /// Finds the place where reading can go on, or the end of the source.
    fn forgive(&mut self, why: DfsError) -> Result<(), DfsError> {
        if !matches!(why, DfsError::Chunk { .. }) {
            self.chunks.expect_losses();
        }
        match &why {
            // The rest of the blob is lost; the file goes on behind it.
            DfsError::InBlob { .. } | DfsError::Nested { .. } => {
                if let Some(blob) = self.blob.take() {
                    let (offset, bytes) = (blob.offset, blob.bytes);
                    self.skipped.push(Skipped { offset, bytes, why });
                    return Ok(());
                }
            }
            DfsError::Chunk { id, offset, .. } => {
                self.chunks.drop_value(*id);
                let (_, body) = match &self.blob {
                    Some(blob) => blob.reader.body(),
                    None => self.file.body(),
                };
                let (offset, bytes) = (*offset, 1 + body.len() as u64);
                self.skipped.push(Skipped { offset, bytes, why });
                return Ok(());
            }
            DfsError::Blob { .. } | DfsError::CodecChanged { .. } => {
                let (offset, body) = self.file.body();
                let (offset, bytes) = (offset - 1, 1 + body.len() as u64);
                self.skipped.push(Skipped { offset, bytes, why });
                return Ok(());
            }
            DfsError::File(RdbError::Magic { .. } | RdbError::Version { .. }) => {
                self.state = State::Failed;
                return Err(why);
            }
            _ => {}
        }
        self.find_blob(why)
    }

    /// Looks for the next blob: its opcode, a length and the magic of a frame are ten bytes that do not come about by
    /// chance, and a blob of Dragonfly's begins with the choice of its database.
    fn find_blob(&mut self, why: DfsError) -> Result<(), DfsError> {
        let blob_bytes_max = self.options.blob_bytes_max as u64;
        let codec = self.codec;
        let input = self.file.input_mut();
        input.rewind(0);
        let start = input.offset();
        let io_error = |offset| move |source| DfsError::File(RdbError::Io { offset, source });
        if input.need(1).map_err(io_error(start))? {
            input.pass(1);
        }
        let found = loop {
            input.begin_record();
            let offset = input.offset();
            let whole = input.need(LOOK_BYTES).map_err(io_error(offset))?;
            let ahead = input.ahead();
            let last = match whole {
                true => ahead.len() - (LOOK_BYTES as usize - 1),
                false => ahead.len(),
            };
            let at = ahead[..last].iter().enumerate().find_map(|(at, byte)| {
                let found = Codec::of_opcode(*byte)?;
                let fits = codec.is_none_or(|codec| codec == found);
                (fits && starts_blob(&ahead[at..], found, blob_bytes_max)).then_some(at)
            });
            match at {
                Some(at) => {
                    input.pass(at);
                    break true;
                }
                None => input.pass(last),
            }
            if at.is_none() && !whole {
                break false;
            }
        };
        let bytes = input.offset() - start;
        let offset = start;
        self.skipped.push(Skipped { offset, bytes, why });
        if found {
            self.file.forget_error();
        } else {
            self.state = State::Lost;
            if let Some((offset, id, error)) = self.chunks.take_unfinished() {
                self.note_unfinished(offset, DfsError::Chunk { offset, id, error });
            }
        }
        Ok(())
    }
}

enum Step {
    Ended,
    GoOn,
    Hit(Level, Found),
}

/// Opcode, the longest length, magic.
const LOOK_BYTES: u64 = 1 + length::LEN_MAX as u64 + 4;

fn starts_blob(bytes: &[u8], codec: Codec, bytes_max: u64) -> bool {
    match length::read(&bytes[1..]) {
        Prefix::Whole(Length::Plain(len), size) => {
            let sized = len > 0 && len <= bytes_max;
            sized && bytes[1 + size..].starts_with(&codec.magic())
        }
        _ => false,
    }
}

/// Newest version that Dragonfly itself takes; it writes 9.
const VERSION_MAX: u16 = 12;

/// Files of a set carry no checksum.
fn rdb_options(source_bytes: Option<u64>) -> rdb::Options {
    rdb::Options {
        check_crc: false,
        version_max: VERSION_MAX,
        source_bytes,
    }
}

/// Id and payload of a piece, whose lengths were walked.
fn tagged(body: &[u8]) -> (u32, &[u8]) {
    match body.split_first_chunk::<4>() {
        Some((id, rest)) => (u32::from_le_bytes(*id), rest.get(4..).unwrap_or_default()),
        None => (0, &[]),
    }
}

/// The contents of a blob: codec, the frame as a string, and the offset of the opcode. `first` is the codec of the
/// blobs before it.
fn expand(
    expander: &mut Expander,
    first: &mut Option<Codec>,
    (codec, stored, offset): (Codec, &[u8], u64),
    bytes_max: usize,
) -> Result<Vec<u8>, DfsError> {
    if let Some(first) = *first
        && first != codec
    {
        let found = codec;
        return Err(DfsError::CodecChanged {
            offset,
            first,
            found,
        });
    }
    let in_file = |damage: Damage| DfsError::File(RdbError::Record(damage.moved(offset + 1)));
    let mut cursor = Cursor::new(stored);
    let text = cursor.text("blob").map_err(in_file)?;
    cursor.finish("blob").map_err(in_file)?;
    let packed = match text {
        Text::Plain(bytes) => Cow::Borrowed(bytes),
        text => {
            let mut bytes = Vec::new();
            text.append_to(&mut bytes)
                .map_err(|lzf| in_file(Damage::new(0, "blob", Problem::Lzf(lzf))))?;
            Cow::Owned(bytes)
        }
    };
    let plain = expander.expand(codec, &packed, bytes_max);
    let plain = plain.map_err(|error| DfsError::Blob {
        offset,
        codec,
        error,
    })?;
    *first = Some(codec);
    Ok(plain)
}

/// Opcodes of Dragonfly's replication get an error of their own.
fn not_of_a_snapshot(error: RdbError) -> DfsError {
    let RdbError::UnknownCode { offset, code, .. } = error else {
        return DfsError::File(error);
    };
    let name = match code {
        opcode::FULL_SYNC_END => "end of a full sync",
        opcode::JOURNAL_BLOB => "journal",
        opcode::JOURNAL_OFFSET => "journal offset",
        _ => return DfsError::File(error),
    };
    DfsError::Replication { offset, code, name }
}
