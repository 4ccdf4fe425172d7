//! Pulls records out of a stream that holds an RDB file.
//!
//! Loading, inspecting, converting and following all start here. Values come as they are stored; `decode` turns them
//! into data where someone wants to look.
//!
//! Invariants
//! - Memory holds one record, not the file, and grows only with bytes that really arrived.
//! - No byte behind the checksum is consumed: a replication stream or an AOF tail may follow there.
//! - After an error of the source (a socket without data, say) `next` goes on where it stopped. After damage inside
//!   a string of sound length it goes on behind that record. After any other error it stays failed: no record says how
//!   long it is.

use super::inside::Scope;
use super::large::{Large, WholeBytes};
use super::shape::{self, Step, Walk};
use super::{Flavor, VERSION_CRC, VERSION_VALKEY, opcode, type_code};
use crate::error::{Damage, Problem};
use crate::input::{Cursor, Input, Text};
use std::borrow::Cow;
use std::io::Read;

pub use super::record::{Attributes, End, Header, KeyRecord, ModuleId, RdbError, Record};

/// What a reader checks.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Compute the checksum and compare it with the one at the end.
    pub check_crc: bool,
    /// Newest version under the magic `REDIS` that is taken.
    pub version_max: u16,
    /// Size of the source, where it is known: a length that points beyond is refused without reading that far.
    pub source_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            check_crc: true,
            version_max: VERSION_MAX,
            source_bytes: None,
        }
    }
}

/// Newest version whose types are all known here.
const VERSION_MAX: u16 = 13;
/// What is read all the same of a source that ends before what is wanted.
const READ_IN_VAIN_MAX: u64 = 4 << 20;
const MAGIC_BYTES: usize = 9;
const CRC_BYTES: usize = 8;

/// Reads records one by one.
///
/// ```
/// use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
/// let file = b"REDIS0003\xfe\x00\x00\x01k\xc0\x2a\xff";
/// let mut reader = RdbReader::new(&file[..], Options::default());
/// while let Some(record) = reader.next().unwrap() {
///     if let Record::Key(key) = record {
///         assert_eq!((key.db, key.key, key.type_code), (0, &b"k"[..], 0));
///         assert_eq!(key.value, [0xc0, 0x2a]);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct RdbReader<R> {
    pub(super) input: Input<R>,
    options: Options,
    pub(super) scope: Scope,
    pub(super) state: State,
    pub(super) walk: Walk,
    pub(super) header: Header,
    pub(super) db: u32,
    pub(super) attributes: Attributes,
    /// The key, where it is not stored as plain bytes, or its value is large.
    pub(super) key: Vec<u8>,
    /// A value that is handed out in pieces, as far as it has not been taken.
    pub(super) large: Option<Box<Large>>,
    /// Written by a Dragonfly before 1.39: see `shape::of_dfs_opcode`.
    pub(super) old_index: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    AwaitMagic,
    AwaitCode,
    /// Inside the record that starts with this byte.
    AwaitRecord(u8),
    /// Behind the key of a large value.
    InLarge,
    AwaitCrc,
    Ended,
    Failed,
}

/// What `found` came to, to be turned into a `Record` that borrows from the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Header,
    /// A whole record is in the buffer; this byte started it.
    Whole(u8, Attributes),
    End(End),
    /// A key whose value is not read.
    Large,
}

impl<R: Read> RdbReader<R> {
    pub fn new(source: R, options: Options) -> Self {
        let input = Input::new(source, options.check_crc);
        RdbReader::over(input, options, Scope::File)
    }

    pub(super) fn over(input: Input<R>, options: Options, scope: Scope) -> Self {
        RdbReader {
            input,
            options,
            scope,
            state: State::AwaitMagic,
            walk: Walk::default(),
            header: Header {
                flavor: Flavor::Redis,
                version: 0,
            },
            db: 0,
            attributes: Attributes::default(),
            key: Vec::new(),
            large: None,
            old_index: false,
        }
    }

    /// The next record; None after the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, RdbError> {
        match self.found(WholeBytes::ANY)? {
            Some(found) => self.report(found).map(Some),
            None => Ok(None),
        }
    }

    /// Moves to the next record that is to be reported, and remembers a failure.
    pub(crate) fn found(&mut self, whole: WholeBytes) -> Result<Option<Found>, RdbError> {
        let found = self.advance(whole);
        if found
            .as_ref()
            .is_err_and(|error| !matches!(error, RdbError::Io { .. }))
        {
            self.state = State::Failed;
        }
        found
    }

    /// What was found, with what the buffer holds of it.
    pub(crate) fn report(&self, found: Found) -> Result<Record<'_>, RdbError> {
        let start = self.input.record_offset() + 1;
        match found {
            Found::Header | Found::Large => Ok(Record::Header(self.header)),
            Found::End(end) => Ok(Record::End(end)),
            Found::Whole(code, attributes) => self
                .record(code, attributes)
                .map_err(|damage| RdbError::Record(damage.moved(start))),
        }
    }

    /// Flavor and version; known once the header record was returned.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Offset of the next byte that will be looked at.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    pub(super) fn source_mut(&mut self) -> &mut R {
        self.input.source_mut()
    }

    /// The source, and the bytes that were read from it but belong to what follows.
    pub fn into_parts(self) -> (Vec<u8>, R) {
        self.input.into_parts()
    }

    fn advance(&mut self, whole: WholeBytes) -> Result<Option<Found>, RdbError> {
        loop {
            match self.state {
                State::AwaitMagic => {
                    self.need(MAGIC_BYTES as u64, "magic")
                        .map_err(|error| self.short_magic(error))?;
                    self.header = self.parse_magic()?;
                    self.input.pass(MAGIC_BYTES);
                    self.state = State::AwaitCode;
                    return Ok(Some(Found::Header));
                }
                State::AwaitCode => {
                    self.input.begin_record();
                    if self.scope == Scope::Records && !self.read(1)? {
                        self.state = State::Ended;
                        return Ok(None);
                    }
                    self.need(1, "type or opcode")?;
                    let code = self.input.ahead()[0];
                    self.start_walk(code)?;
                    self.input.pass(1);
                    self.state = State::AwaitRecord(code);
                }
                State::AwaitRecord(code) => {
                    if !self.walk(code, whole)? {
                        self.begin_large(code)?;
                        self.state = State::InLarge;
                        return Ok(Some(Found::Large));
                    }
                    self.state = if code == opcode::EOF {
                        State::AwaitCrc
                    } else {
                        State::AwaitCode
                    };
                    if code != opcode::EOF && !self.take_attribute(code)? {
                        if code == opcode::AUX {
                            self.note_writer();
                        }
                        let attributes = match is_key(self.header.flavor, code) {
                            true => std::mem::take(&mut self.attributes),
                            false => Attributes::default(),
                        };
                        return Ok(Some(Found::Whole(code, attributes)));
                    }
                }
                State::AwaitCrc => {
                    let end = self.finish()?;
                    self.state = State::Ended;
                    return Ok(Some(Found::End(end)));
                }
                State::InLarge => self.large_bytes(|_| Ok::<(), RdbError>(()))?,
                State::Ended => return Ok(None),
                State::Failed => {
                    let offset = self.input.offset();
                    return Err(RdbError::Failed { offset });
                }
            }
        }
    }

    /// A file that ends within the magic is cut if that is how one begins, and no RDB file if not.
    fn short_magic(&self, error: RdbError) -> RdbError {
        let found = self.input.ahead();
        let is_begun = [&b"REDIS"[..], b"VALKEY"].iter().any(|magic| {
            found
                .iter()
                .zip(*magic)
                .all(|(found, wanted)| found == wanted)
        });
        match error {
            RdbError::Record(_) if !is_begun => RdbError::Magic {
                found: found.to_vec(),
            },
            error => error,
        }
    }

    fn parse_magic(&self) -> Result<Header, RdbError> {
        let magic = &self.input.ahead()[..MAGIC_BYTES];
        let (flavor, digits) = if let Some(digits) = magic.strip_prefix(b"REDIS") {
            (Flavor::Redis, digits)
        } else if let Some(digits) = magic.strip_prefix(b"VALKEY") {
            (Flavor::Valkey, digits)
        } else {
            (Flavor::Redis, &b"none"[..])
        };
        let found = magic.to_vec();
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(RdbError::Magic { found });
        }
        let version = digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        let known = match flavor {
            Flavor::Redis | Flavor::Dragonfly => (1..=self.options.version_max).contains(&version),
            Flavor::Valkey => version == VERSION_VALKEY,
        };
        if !known {
            return Err(RdbError::Version {
                offset: (MAGIC_BYTES - digits.len()) as u64,
                version,
                newest: self.options.version_max,
            });
        }
        let flavor = match (self.scope, flavor) {
            (Scope::DfsFile, Flavor::Redis) if version >= VERSION_CRC => Flavor::Dragonfly,
            (Scope::DfsFile, _) => return Err(RdbError::Magic { found }),
            (_, flavor) => flavor,
        };
        Ok(Header { flavor, version })
    }

    fn start_walk(&mut self, code: u8) -> Result<(), RdbError> {
        let flavor = self.header.flavor;
        if let Some(parts) = shape::of_value(flavor, code) {
            self.walk.start(parts);
            self.walk.push(&[shape::Part::Text], 1);
        } else if let Some(parts) = self.opcode_parts(code) {
            self.walk.start(parts);
        } else if code == type_code::MODULE_PRE_GA {
            self.walk.start(&[shape::Part::Text, shape::Part::Len]);
        } else {
            return Err(RdbError::UnknownCode {
                offset: self.input.offset(),
                code,
                newest: self.options.version_max,
            });
        }
        Ok(())
    }

    /// Passes the whole record, reading as much as it takes. False: its value is larger than `whole` has it.
    fn walk(&mut self, code: u8, whole: WholeBytes) -> Result<bool, RdbError> {
        loop {
            let wanted = match self.walk_step(code)? {
                Step::Done => return Ok(true),
                Step::Need(wanted) => wanted,
            };
            let bytes = wanted.saturating_add(self.input.record().len() as u64);
            let value_bytes_max = whole.of(self.header.flavor, code);
            if bytes > value_bytes_max as u64 && is_key(self.header.flavor, code) {
                let mut record = Cursor::new(&self.input.record()[1..]);
                let behind_key = record.text("key").map(|_| 1 + record.offset());
                if behind_key.is_ok_and(|key| bytes > key.saturating_add(value_bytes_max as u64)) {
                    return Ok(false);
                }
            }
            self.read_or_break(code, wanted)?;
        }
    }

    /// Goes on with the present walk as far as the buffer reaches.
    pub(super) fn walk_step(&mut self, code: u8) -> Result<Step, RdbError> {
        let mut at = 0;
        let step = self.walk.go_on(self.input.ahead(), &mut at);
        self.input.pass(at);
        step.map_err(|problem| self.broken(code, problem))
    }

    /// Reads until `wanted` bytes are ahead, which the record of this code needs.
    pub(super) fn read_or_break(&mut self, code: u8, wanted: u64) -> Result<(), RdbError> {
        if self.read(wanted)? {
            return Ok(());
        }
        let left = self.input.ahead().len() as u64;
        Err(self.broken(code, Problem::Truncated { wanted, left }))
    }

    /// The error for a record that cannot be passed; says whose value it is if the key is there.
    fn broken(&self, code: u8, problem: Problem) -> RdbError {
        let damage = Damage::new(self.input.offset(), record_name(code), problem);
        if !is_key(self.header.flavor, code) {
            return RdbError::Record(damage);
        }
        let record = self.input.record().get(1..).unwrap_or_default();
        let key = match self.state {
            State::AwaitRecord(_) => Cursor::new(record).string("key"),
            _ => Ok(self.key.clone()),
        };
        match key {
            Ok(key) => RdbError::Value {
                db: self.db,
                key,
                type_code: code,
                damage: Damage {
                    reading: "structure",
                    ..damage
                },
            },
            Err(_) => RdbError::Record(Damage {
                reading: "key",
                ..damage
            }),
        }
    }

    /// Takes records that only say something about what follows. False: the record is to be reported.
    fn take_attribute(&mut self, code: u8) -> Result<bool, RdbError> {
        let start = self.input.record_offset() + 1;
        let body = &self.input.record()[1..];
        let mut cursor = Cursor::new(body);
        let record = |damage: Damage| RdbError::Record(damage.moved(start));
        let name = record_name(code);
        let attributes = &mut self.attributes;
        match code {
            opcode::EXPIRE_S => {
                let seconds = cursor.i32_le(name).map_err(record)?;
                attributes.expire_at_ms = Some(i64::from(seconds) * 1000);
            }
            opcode::EXPIRE_MS => {
                attributes.expire_at_ms = Some(cursor.i64_le(name).map_err(record)?);
            }
            opcode::IDLE => attributes.idle_s = Some(cursor.len(name).map_err(record)?),
            opcode::KEY_META if self.header.flavor == Flavor::Redis => {
                let classes = cursor.len(name).map_err(record)?;
                attributes.meta_classes = u32::try_from(classes).unwrap_or(u32::MAX);
            }
            opcode::FREQ => attributes.freq = Some(cursor.u8(name).map_err(record)?),
            opcode::KEY_MASK => {
                let mask = cursor.u32_le(name).map_err(record)?;
                attributes.sticky = mask & shape::MASK_STICKY != 0;
                if mask & shape::MASK_MEMCACHED != 0 {
                    attributes.memcached_flags = Some(cursor.u32_le(name).map_err(record)?);
                }
            }
            opcode::SELECT_DB => {
                let found = cursor.len(name).map_err(record)?;
                let wanted = "a database below 2^32";
                self.db = u32::try_from(found)
                    .map_err(|_| record(Damage::new(0, name, Problem::Number { wanted, found })))?;
                return Ok(false);
            }
            type_code::MODULE_PRE_GA => {
                let key = cursor.string("key").map_err(record)?;
                let id = cursor.len("module id").map_err(record)?;
                return Err(RdbError::ModulePreGa {
                    offset: start - 1,
                    key,
                    module: ModuleId(id).name(),
                });
            }
            code if is_key(self.header.flavor, code) => self.take_key()?,
            _ => return Ok(false),
        }
        Ok(!is_key(self.header.flavor, code))
    }

    /// Prepares the key of the record in the buffer where it is not stored as plain bytes.
    fn take_key(&mut self) -> Result<(), RdbError> {
        let start = self.input.record_offset() + 1;
        self.key.clear();
        let text = Cursor::new(&self.input.record()[1..]).text("key");
        let text = text.map_err(|damage| RdbError::Record(damage.moved(start)))?;
        if matches!(text, Text::Plain(_)) {
            return Ok(());
        }
        text.append_to(&mut self.key)
            .map_err(|lzf| RdbError::Record(Damage::new(start, "key", Problem::Lzf(lzf))))
    }

    /// Codes of records that only `dfs::reader` knows what to do with do not come here.
    fn record(&self, code: u8, attributes: Attributes) -> Result<Record<'_>, Damage> {
        let body = &self.input.record()[1..];
        let mut cursor = Cursor::new(body);
        let name = record_name(code);
        let record = match code {
            opcode::AUX => Record::Aux {
                name: string(&mut cursor, "aux name")?,
                value: string(&mut cursor, "aux value")?,
            },
            opcode::SELECT_DB => Record::SelectDb(self.db),
            opcode::RESIZE_DB => Record::ResizeDb {
                keys: cursor.len(name)?,
                expires: cursor.len(name)?,
            },
            opcode::SLOT_INFO => Record::SlotInfo {
                slot: cursor.len(name)?,
                keys: cursor.len(name)?,
                expires: cursor.len(name)?,
            },
            opcode::SLOT_IMPORT => {
                let job = string(&mut cursor, name)?;
                let slots = (0..cursor.count(2, name)?)
                    .map(|_| Ok((cursor.len(name)?, cursor.len(name)?)))
                    .collect::<Result<_, Damage>>()?;
                Record::SlotImport { job, slots }
            }
            opcode::FUNCTION2 => Record::Function {
                code: string(&mut cursor, name)?,
            },
            opcode::FUNCTION_PRE_GA => Record::FunctionPreGa {
                name: string(&mut cursor, "function library")?,
                engine: string(&mut cursor, "function engine")?,
                description: match cursor.len(name)? {
                    0 => None,
                    _ => Some(string(&mut cursor, "function description")?),
                },
                code: string(&mut cursor, "function code")?,
            },
            opcode::MODULE_AUX => {
                let module = ModuleId(cursor.len(name)?);
                let op = cursor.len(name)?;
                if op != 2 {
                    let wanted = "op 2 before the time";
                    return Err(cursor.damage(name, Problem::Number { wanted, found: op }));
                }
                Record::ModuleAux {
                    module,
                    when: cursor.len(name)?,
                    raw: body,
                }
            }
            opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT => Record::Enterprise {
                code,
                number: cursor.len(name)?,
            },
            type_code => {
                let key = match cursor.text("key")? {
                    Text::Plain(bytes) => bytes,
                    Text::Int(_) | Text::Packed(..) => &self.key,
                };
                let offset = self.input.record_offset();
                Record::Key(KeyRecord {
                    db: self.db,
                    key,
                    attributes,
                    flavor: self.header.flavor,
                    type_code: self.type_of(type_code),
                    offset,
                    value_offset: offset + 1 + cursor.offset(),
                    value: cursor.rest(),
                })
            }
        };
        Ok(record)
    }

    /// Reads and compares the checksum.
    fn finish(&mut self) -> Result<End, RdbError> {
        if !self.header.has_crc() {
            let bytes = self.input.offset();
            return Ok(End { crc: None, bytes });
        }
        self.need(CRC_BYTES as u64, "checksum")?;
        let stored = self.input.ahead()[..CRC_BYTES]
            .try_into()
            .map(u64::from_le_bytes)
            .expect("8 bytes");
        let offset = self.input.offset();
        let computed = self.input.crc();
        self.input.pass(CRC_BYTES);
        if let Some(computed) = computed
            && stored != 0
            && stored != computed
        {
            return Err(RdbError::Checksum {
                offset,
                stored,
                computed,
            });
        }
        Ok(End {
            crc: (stored != 0).then_some(stored),
            bytes: offset + CRC_BYTES as u64,
        })
    }

    /// Reads until at least `wanted` bytes are ahead. False: the source ends before.
    pub(super) fn read(&mut self, wanted: u64) -> Result<bool, RdbError> {
        let offset = self.input.offset() + self.input.ahead().len() as u64;
        let source_bytes = self.options.source_bytes.unwrap_or(u64::MAX);
        let start = self.input.offset();
        if start.saturating_add(wanted) > source_bytes {
            // Nothing is read for a length that cannot be true; the rest may still be needed.
            let rest = source_bytes.saturating_sub(start).min(READ_IN_VAIN_MAX);
            self.input
                .need(rest)
                .map_err(|source| RdbError::Io { offset, source })?;
            return Ok(false);
        }
        self.input
            .need(wanted)
            .map_err(|source| RdbError::Io { offset, source })
    }

    pub(super) fn need(&mut self, wanted: u64, reading: &'static str) -> Result<(), RdbError> {
        if self.read(wanted)? {
            return Ok(());
        }
        let left = self.input.ahead().len() as u64;
        let problem = Problem::Truncated { wanted, left };
        Err(RdbError::Record(Damage::new(
            self.input.offset(),
            reading,
            problem,
        )))
    }
}

fn string<'a>(cursor: &mut Cursor<'a>, reading: &'static str) -> Result<Cow<'a, [u8]>, Damage> {
    let start = cursor.offset();
    match cursor.text(reading)? {
        Text::Plain(bytes) => Ok(Cow::Borrowed(bytes)),
        text => {
            let mut out = Vec::new();
            text.append_to(&mut out)
                .map_err(|lzf| Damage::new(start, reading, Problem::Lzf(lzf)))?;
            Ok(Cow::Owned(out))
        }
    }
}

pub(super) fn is_key(flavor: Flavor, code: u8) -> bool {
    shape::of_value(flavor, code).is_some()
}

fn record_name(code: u8) -> &'static str {
    match code {
        opcode::EOF => "end",
        opcode::SELECT_DB => "select db",
        opcode::EXPIRE_S => "expiry in seconds",
        opcode::EXPIRE_MS => "expiry in milliseconds",
        opcode::RESIZE_DB => "resize db",
        opcode::AUX => "aux",
        opcode::FREQ => "freq",
        opcode::IDLE => "idle",
        opcode::MODULE_AUX => "module aux",
        opcode::FUNCTION_PRE_GA => "function, pre-ga",
        opcode::FUNCTION2 => "function",
        opcode::SLOT_INFO => "slot info",
        opcode::SLOT_IMPORT => "slot import or key metadata",
        opcode::KEY_MASK => "key mask",
        opcode::ZSTD_BLOB => "zstd blob",
        opcode::LZ4_BLOB => "lz4 blob",
        opcode::TAGGED_CHUNK => "tagged chunk",
        opcode::VECTOR_INDEX => "vector index",
        opcode::SHARD_DOC_INDEX => "shard document index",
        opcode::ENTERPRISE_RAM_LRU => "enterprise, opcode 107",
        opcode::ENTERPRISE_SLOT => "enterprise, opcode 121",
        type_code => type_code::name(type_code),
    }
}

#[cfg(test)]
mod tests;
