//! Writes the files of a set as Dragonfly loads them.
//!
//! Converters start from `dataset::Entry`, the server from values that it has encoded already. Bytes are appended to a
//! buffer of the caller's, who writes it out, sums it up and syncs it.
//!
//! ```text
//! shard file = header | (blob | plain run)* | EOF | 8 bytes of zero        blob, run = (select db | entry)*
//! summary    = header | scripts | indices | shard count | EOF | 8 bytes of zero
//! ```
//! Invariants
//! - Entries are never split, and each blob or run starts with the choice of its database.
//! - An entry that cannot be written leaves no trace: after an error the file goes on as if it had not come.
//! - A run is compressed only where Dragonfly would do it: 256 bytes to 1 MiB, and when that saves a twentieth.

use super::aux;
use super::blob::{Codec, Packer};
use super::index::{Run, Sieve, key_hash};
use super::names::SnapshotId;
use crate::dataset::{Attributes, Entry, Item};
use crate::error::Shown;
use crate::input::Cursor;
use crate::json;
use crate::rdb::decode::DecodeLimits;
use crate::rdb::decode_dragonfly::EXPIRY_EPOCH_S;
use crate::rdb::encode::{EncodeError, encode};
use crate::rdb::record::{KeyRecord, RdbError};
use crate::rdb::target::Target;
use crate::rdb::{Flavor, opcode, shape, type_code, writer};
use crate::value::{SetValue, SketchValue, Value};

/// The version that all files of Dragonfly name, whatever they hold.
const VERSION: u16 = 9;
/// What Dragonfly says of the server that it is compatible with.
const SERVER_VERSION: &[u8] = b"6.2.11";
/// A run of entries is compressed from this many bytes on, up to this many.
const PACKED_MIN: usize = 256;
const PACKED_MAX: usize = 1 << 20;
/// Last expiry of a field or member: 32 bits of seconds, of which the last stands for none.
const EXPIRY_MAX_MS: i64 = (EXPIRY_EPOCH_S + (1 << 32) - 2) * 1000;
/// Brackets within brackets in a document, as many as the loader takes.
const JSON_DEPTH_MAX: usize = 64;
/// Filters are written in chunks of at most so many bytes.
const CHUNK_BYTES: usize = 1 << 26;

/// How runs of entries are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Lz4,
    /// With the level of zstd.
    Zstd(i32),
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub compression: Compression,
    /// A run of entries ends when it has this many bytes. At most 1 MiB, since more is not compressed.
    pub run_bytes: usize,
    /// Databases that the target has; the flag `dbnum` of Dragonfly.
    pub databases: u32,
    /// Bytes of notes about which run has which keys; runs beyond have none.
    pub index_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            compression: Compression::Lz4,
            run_bytes: 256 << 10,
            databases: 16,
            index_bytes_max: 1 << 20,
        }
    }
}

/// What all files of a set say about it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub snapshot_id: SnapshotId,
    /// Unix seconds.
    pub created_at_s: i64,
    /// Bytes. A target whose limit is lower refuses the set; 0 passes everywhere.
    pub used_memory: u64,
    /// As in `df-v1.40.1`. None: a set that no Dragonfly wrote.
    pub writer_version: Option<Vec<u8>>,
}

/// A value as it is stored, in a type that Dragonfly loads.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    pub db: u32,
    pub key: &'a [u8],
    pub attributes: Attributes,
    pub type_code: u8,
    /// Trusted: Dragonfly gives up on the whole set where a value is damaged or has a member twice.
    pub value: &'a [u8],
}

/// What Dragonfly cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(
        "key {}: an empty collection, at which Dragonfly stops loading",
        Shown(key)
    )]
    Empty { key: Vec<u8> },
    #[error("key {}: database {db}: the target has {databases}", Shown(key))]
    Database {
        key: Vec<u8>,
        db: u32,
        databases: u32,
    },
    #[error(
        "key {}: a value of module {module}: Dragonfly knows ReJSON-RL of version 3 only",
        Shown(key)
    )]
    Module { key: Vec<u8>, module: String },
    #[error(
        "key {}: {} expires at {at_ms} ms: Dragonfly counts seconds from 2023 in 32 bits, up to 2159",
        Shown(key),
        Shown(member)
    )]
    MemberExpiry {
        key: Vec<u8>,
        member: Vec<u8>,
        at_ms: i64,
    },
    #[error(
        "key {}: no JSON for Dragonfly, at which it stops loading: {error}",
        Shown(key)
    )]
    Json { key: Vec<u8>, error: String },
    #[error("key {}: type {code} ({}) is not loaded by Dragonfly as it is", Shown(key), type_code::name(*code))]
    Type { key: Vec<u8>, code: u8 },
    #[error("key {}: {error}", Shown(key))]
    Encode { key: Vec<u8>, error: EncodeError },
    #[error("{0}")]
    Damaged(RdbError),
    #[error(
        "function library {}: Dragonfly has no functions, and stops loading at one",
        Shown(first_line(code))
    )]
    Function { code: Vec<u8> },
    #[error("data of module {module} beside the keys: Dragonfly has no modules")]
    ModuleAux { module: String },
}

fn first_line(code: &[u8]) -> &[u8] {
    code.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Writes one shard file.
///
/// ```
/// use dfsnap_formats::dataset::Entry;
/// use dfsnap_formats::dfs::names::SnapshotId;
/// use dfsnap_formats::dfs::reader::{self, DfsReader};
/// use dfsnap_formats::dfs::writer::{Identity, Options, ShardFile};
/// use dfsnap_formats::value::Value;
/// let identity = Identity {
///     snapshot_id: SnapshotId([7; 16]),
///     created_at_s: 1_785_000_000,
///     used_memory: 0,
///     writer_version: None,
/// };
/// let mut file = Vec::new();
/// let mut shard = ShardFile::start(&identity, 0, Options::default(), &mut file);
/// shard.entry(&Entry::new(0, b"k", Value::String(b"v".to_vec())), &mut file).unwrap();
/// assert_eq!(shard.finish(&mut file), 1);
/// let mut reader = DfsReader::new(&file[..], reader::Options::default());
/// while reader.next().unwrap().is_some() {}
/// ```
#[derive(Debug)]
pub struct ShardFile {
    options: Options,
    packer: Option<Packer>,
    /// The present run.
    run: Vec<u8>,
    /// That of the last entry of the run.
    db: Option<u32>,
    /// The entry that is being written.
    entry: Vec<u8>,
    keys: u64,
    index: Index,
}

/// Which run has which keys.
#[derive(Debug)]
struct Index {
    /// Bytes of the file that were appended to the caller's buffer.
    at: u64,
    /// Keys of the present run.
    hashes: Vec<u64>,
    /// There are records in it whose keys are not known here.
    has_others: bool,
    /// A value that is not whole: where its run began, and its sieve.
    open: Option<(u64, Option<Sieve>)>,
    runs: Vec<Run>,
    bytes_left: usize,
}

impl Index {
    /// A sieve for the keys that were noted, where there is room for it.
    fn sieve(&mut self) -> Option<Sieve> {
        let bytes = Sieve::bytes_for(self.hashes.len());
        let is_noted = !self.has_others && bytes <= self.bytes_left;
        let sieve = is_noted.then(|| Sieve::of(&self.hashes));
        if is_noted {
            self.bytes_left -= bytes;
        }
        self.hashes.clear();
        self.has_others = false;
        sieve
    }

    fn add(&mut self, from: u64, keys: Option<Sieve>) {
        let bytes = self.at - from;
        self.runs.push(Run { from, bytes, keys });
    }
}

impl ShardFile {
    /// Appends the header.
    pub fn start(identity: &Identity, shard: u16, options: Options, out: &mut Vec<u8>) -> Self {
        let before = out.len();
        header(identity, out);
        writer::aux_int(out, aux::SHARD_ID, i64::from(shard));
        let packer = match options.compression {
            Compression::None => None,
            Compression::Lz4 => Some(Packer::new(Codec::Lz4, 0)),
            Compression::Zstd(level) => Some(Packer::new(Codec::Zstd, level)),
        };
        ShardFile {
            options: Options {
                run_bytes: options.run_bytes.min(PACKED_MAX),
                ..options
            },
            packer,
            run: Vec::new(),
            db: None,
            entry: Vec::new(),
            keys: 0,
            index: Index {
                at: (out.len() - before) as u64,
                hashes: Vec::new(),
                has_others: false,
                open: None,
                runs: Vec::new(),
                bytes_left: options.index_bytes_max,
            },
        }
    }

    /// Adds an entry. Expiries of fields and members become whole seconds, rounded up; those before 2023 stay past.
    /// What Dragonfly does not keep is left out: hints for LRU and LFU, metadata of modules at the key. `rdb::loss` tells
    /// of it.
    pub fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.begin(entry.db, &entry.key, &entry.attributes)?;
        let at = self.entry.len();
        self.entry.push(0);
        writer::string(&mut self.entry, &entry.key, None);
        self.entry[at] = put_value(&entry.key, &entry.value, &mut self.entry)?;
        self.take_entry(entry.db, &entry.key, out);
        Ok(())
    }

    /// Adds a value that is encoded already.
    pub fn raw(&mut self, raw: RawEntry<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let key = || raw.key.to_vec();
        if !is_loaded(raw.type_code) {
            let code = raw.type_code;
            return Err(WriteError::Type { key: key(), code });
        }
        if is_counted(raw.type_code) && raw.value.first() == Some(&0) {
            return Err(WriteError::Empty { key: key() });
        }
        self.begin(raw.db, raw.key, &raw.attributes)?;
        writer::key(&mut self.entry, raw.type_code, raw.key, None);
        self.entry.extend_from_slice(raw.value);
        self.take_entry(raw.db, raw.key, out);
        Ok(())
    }

    /// Adds a key as it was read: its bytes where Dragonfly loads them, what they decode to otherwise.
    pub fn key_record(
        &mut self,
        record: &KeyRecord<'_>,
        limits: &DecodeLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if is_copied(record) {
            let raw = RawEntry {
                db: record.db,
                key: record.key,
                attributes: record.attributes,
                type_code: record.type_code,
                value: record.value,
            };
            return self.raw(raw, out);
        }
        match Entry::of_key(record, limits).map_err(WriteError::Damaged)? {
            Some(entry) => self.entry(&entry, out),
            None => Err(WriteError::Empty {
                key: record.key.to_vec(),
            }),
        }
    }

    /// Adds the head of a key as it was read whose value is too large to be here: its stored bytes follow by [`ShardFile::part`], to
    /// the last. False: Dragonfly does not load them as they are, and nothing was added.
    pub fn large_record(
        &mut self,
        record: &KeyRecord<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, WriteError> {
        if !is_copied(record) {
            return Ok(false);
        }
        self.begin(record.db, record.key, &record.attributes)?;
        let mut head = std::mem::take(&mut self.entry);
        writer::key(&mut head, record.type_code, record.key, None);
        self.begin_parts(record.db, &head, out);
        self.index.hashes.push(key_hash(record.key));
        let sieve = self.index.sieve();
        if let Some((_, keys)) = &mut self.index.open {
            *keys = sieve;
        }
        self.entry = head;
        Ok(true)
    }

    /// Says how many keys of a database are in this file, and how many of them expire, for a loader that makes room for them.
    pub fn announce(&mut self, db: u32, keys: u64, expires: u64) {
        writer::select_db(&mut self.run, db);
        writer::resize_db(&mut self.run, keys, expires);
        self.db = Some(db);
    }

    /// Adds whole records of one database that are encoded already, as many as `keys` says. Trusted, like [`RawEntry::value`].
    pub fn records(&mut self, db: u32, records: &[u8], keys: u64, out: &mut Vec<u8>) {
        if self.run.len() + records.len() > PACKED_MAX {
            self.end_run(out);
        }
        if self.db != Some(db) {
            writer::select_db(&mut self.run, db);
            self.db = Some(db);
        }
        self.run.extend_from_slice(records);
        self.index.has_others = true;
        self.keys += keys;
        if self.run.len() >= self.options.run_bytes {
            self.end_run(out);
        }
    }

    /// Adds the first part of a record that is encoded already. Only [`ShardFile::part`] may follow, to the record's end. It
    /// is not compressed.
    pub fn first_part(&mut self, db: u32, part: &[u8], out: &mut Vec<u8>) {
        self.begin_parts(db, part, out);
    }

    /// A run of its own, with any key.
    fn begin_parts(&mut self, db: u32, part: &[u8], out: &mut Vec<u8>) {
        self.end_run(out);
        self.index.open = Some((self.index.at, None));
        let before = out.len();
        writer::select_db(out, db);
        self.index.at += (out.len() - before) as u64;
        self.part(part, out);
        self.keys += 1;
    }

    /// Adds another part of a record.
    pub fn part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(part);
        self.index.at += part.len() as u64;
    }

    /// Adds an entry, and refuses what has no place in a shard file; aux fields are for `Summary::note`.
    pub fn item(&mut self, item: &Item, out: &mut Vec<u8>) -> Result<(), WriteError> {
        match item {
            Item::Entry(entry) => self.entry(entry, out),
            Item::Aux { .. } => Ok(()),
            Item::Function { code } => Err(WriteError::Function { code: code.clone() }),
            Item::ModuleAux { module, .. } => Err(WriteError::ModuleAux {
                module: module.name(),
            }),
        }
    }

    /// Keys so far.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Appends the last run and the end. The answer is the number of keys.
    pub fn finish(self, out: &mut Vec<u8>) -> u64 {
        self.finish_indexed(out).0
    }

    /// As `finish`, with the runs of the file for its manifest; none where nothing is known of their keys.
    pub fn finish_indexed(mut self, out: &mut Vec<u8>) -> (u64, Vec<Run>) {
        self.end_run(out);
        end(out);
        let mut runs = self.index.runs;
        if runs.iter().all(|run| run.keys.is_none()) {
            runs.clear();
        }
        (self.keys, runs)
    }

    /// Starts an entry with what stands before its type.
    fn begin(&mut self, db: u32, key: &[u8], attributes: &Attributes) -> Result<(), WriteError> {
        let databases = self.options.databases;
        if db >= databases {
            let key = key.to_vec();
            return Err(WriteError::Database { key, db, databases });
        }
        self.entry.clear();
        if let Some(at_ms) = attributes.expire_at_ms {
            writer::expire_ms(&mut self.entry, at_ms);
        }
        let mut mask = 0;
        if attributes.sticky {
            mask |= shape::MASK_STICKY;
        }
        if attributes.memcached_flags.is_some() {
            mask |= shape::MASK_MEMCACHED;
        }
        if mask != 0 {
            self.entry.push(opcode::KEY_MASK);
            self.entry.extend_from_slice(&mask.to_le_bytes());
        }
        if let Some(flags) = attributes.memcached_flags {
            self.entry.extend_from_slice(&flags.to_le_bytes());
        }
        Ok(())
    }

    /// Moves the entry into the run.
    fn take_entry(&mut self, db: u32, key: &[u8], out: &mut Vec<u8>) {
        if self.run.len() + self.entry.len() > PACKED_MAX {
            self.end_run(out);
        }
        if self.db != Some(db) {
            writer::select_db(&mut self.run, db);
            self.db = Some(db);
        }
        self.run.extend_from_slice(&self.entry);
        self.index.hashes.push(key_hash(key));
        self.keys += 1;
        if self.run.len() >= self.options.run_bytes {
            self.end_run(out);
        }
    }

    fn end_run(&mut self, out: &mut Vec<u8>) {
        if let Some((from, keys)) = self.index.open.take() {
            self.index.add(from, keys);
        }
        let len = self.run.len();
        if len == 0 {
            return;
        }
        let (from, before) = (self.index.at, out.len());
        let packed = match &mut self.packer {
            Some(packer) if (PACKED_MIN..=PACKED_MAX).contains(&len) => packer
                .pack(&self.run)
                .filter(|packed| packed.len() <= len / 20 * 19)
                .map(|packed| (packer.codec(), packed)),
            _ => None,
        };
        match packed {
            Some((codec, packed)) => {
                out.push(codec.opcode());
                writer::raw_string(out, &packed, None);
            }
            None => out.extend_from_slice(&self.run),
        }
        self.index.at += (out.len() - before) as u64;
        let keys = self.index.sieve();
        self.index.add(from, keys);
        self.run.clear();
        self.db = None;
        // One huge entry must not hold its memory for the rest of the file.
        self.run.shrink_to(PACKED_MAX);
        self.entry.shrink_to(PACKED_MAX);
    }
}

/// Whether Dragonfly loads the stored bytes as they are.
fn is_copied(record: &KeyRecord<'_>) -> bool {
    let foreign = record.flavor != Flavor::Dragonfly && record.type_code >= type_code::HASH_22;
    let sketch = (type_code::BLOOM..=type_code::CUCKOO).contains(&record.type_code);
    is_loaded(record.type_code) && !foreign && !sketch
}

/// What only the summary tells.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Texts of Lua scripts.
    pub scripts: Vec<Vec<u8>>,
    /// Arguments of FT.CREATE, joined by blanks.
    pub search_indices: Vec<Vec<u8>>,
    /// Arguments of FT.SYNUPDATE, likewise.
    pub search_synonyms: Vec<Vec<u8>>,
}

impl Summary {
    /// Takes an aux field of another dump if it belongs here.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        let field = match name {
            aux::LUA => &mut self.scripts,
            aux::SEARCH_INDEX => &mut self.search_indices,
            aux::SEARCH_SYNONYMS => &mut self.search_synonyms,
            _ => return,
        };
        if !field.iter().any(|known| known == value) {
            field.push(value.to_vec());
        }
    }

    /// Appends the whole summary file of a set with this many shards.
    pub fn write(&self, identity: &Identity, shards: u16, out: &mut Vec<u8>) {
        header(identity, out);
        let repeated = [
            (aux::LUA, &self.scripts),
            (aux::SEARCH_INDEX, &self.search_indices),
            (aux::SEARCH_SYNONYMS, &self.search_synonyms),
        ];
        for (name, values) in repeated {
            values
                .iter()
                .for_each(|value| writer::aux(out, name, value));
        }
        writer::aux_int(out, aux::SHARD_COUNT, i64::from(shards));
        writer::aux_int(out, aux::TABLE_MEMORY, 0);
        end(out);
    }
}

fn header(identity: &Identity, out: &mut Vec<u8>) {
    writer::header_of(out, Flavor::Dragonfly, VERSION);
    let id = identity.snapshot_id.to_string();
    writer::aux(out, aux::SNAPSHOT_ID, id.as_bytes());
    writer::aux(out, aux::SERVER_VERSION, SERVER_VERSION);
    if let Some(version) = &identity.writer_version {
        writer::aux(out, aux::WRITER_VERSION, version);
    }
    writer::aux_int(out, aux::BITS, 64);
    writer::aux_int(out, aux::CREATED, identity.created_at_s);
    let used = i64::try_from(identity.used_memory).unwrap_or(i64::MAX);
    writer::aux_int(out, aux::USED_MEMORY, used);
    writer::aux_int(out, aux::AOF_PREAMBLE, 0);
}

/// The loader wants eight bytes behind the mark, and looks at none of them.
fn end(out: &mut Vec<u8>) {
    writer::eof(out);
    writer::checksum(out, 0);
}

/// Types that are written. 20 would be taken for a document, since the files name version 9.
fn is_loaded(code: u8) -> bool {
    use type_code::*;
    matches!(
        code,
        STRING
            | SET
            | HASH
            | ZSET_2
            | SET_INTSET
            | HASH_LISTPACK
            | ZSET_LISTPACK
            | LIST_QUICKLIST_2
            | STREAM_3
            | JSON
            | HASH_EXPIRING
            | SET_EXPIRING
            | BLOOM_2
            | COUNT_MIN_SKETCH
            | TOP_K
            | CUCKOO
    )
}

/// Whether values of this type start with the number of their elements.
fn is_counted(code: u8) -> bool {
    use type_code::*;
    matches!(
        code,
        SET | HASH | ZSET_2 | LIST_QUICKLIST_2 | HASH_EXPIRING | SET_EXPIRING
    )
}

/// Appends a value; the answer is its type.
fn put_value(key: &[u8], value: &Value, out: &mut Vec<u8>) -> Result<u8, WriteError> {
    let is_collection = matches!(
        value,
        Value::List(_) | Value::Set(_) | Value::ZSet(_) | Value::Hash(_)
    );
    if is_collection && value.count() == 0 {
        return Err(WriteError::Empty { key: key.to_vec() });
    }
    let code = match value {
        Value::Json(text) => put_json(key, text, out)?,
        Value::Module(module) => match module.json() {
            Some(text) => put_json(key, &text, out)?,
            None => {
                let (key, module) = (key.to_vec(), module.id.name());
                return Err(WriteError::Module { key, module });
            }
        },
        Value::Sketch(sketch) => put_sketch(key, sketch, out)?,
        value => {
            check_expiries(key, value)?;
            encode(value, Target::DRAGONFLY, out, None).map_err(|error| {
                let key = key.to_vec();
                WriteError::Encode { key, error }
            })?
        }
    };
    match is_loaded(code) {
        true => Ok(code),
        false => Err(WriteError::Type {
            key: key.to_vec(),
            code,
        }),
    }
}

fn put_json(key: &[u8], text: &[u8], out: &mut Vec<u8>) -> Result<u8, WriteError> {
    if let Err(damage) = json::check_document(text, JSON_DEPTH_MAX) {
        let (key, error) = (key.to_vec(), damage.to_string());
        return Err(WriteError::Json { key, error });
    }
    writer::raw_string(out, text, None);
    Ok(type_code::JSON)
}

/// Expiries of fields and members must be within reach; the encoder rounds them up to seconds.
fn check_expiries(key: &[u8], value: &Value) -> Result<(), WriteError> {
    let too_far = |at_ms: Option<i64>| at_ms.filter(|at_ms| *at_ms > EXPIRY_MAX_MS);
    let found = match value {
        Value::Hash(hash) => hash
            .fields()
            .find_map(|field| Some((field.field.to_vec(), too_far(field.expire_at_ms)?))),
        Value::Set(SetValue::Expiring(members)) => members
            .iter()
            .find_map(|member| Some((member.member.clone(), too_far(member.expire_at_ms)?))),
        _ => None,
    };
    match found {
        None => Ok(()),
        Some((member, at_ms)) => Err(WriteError::MemberExpiry {
            key: key.to_vec(),
            member,
            at_ms,
        }),
    }
}

/// Filters of type 33 are written in chunks, as type 34; all others as they are.
fn put_sketch(key: &[u8], sketch: &SketchValue, out: &mut Vec<u8>) -> Result<u8, WriteError> {
    if sketch.type_code != type_code::BLOOM {
        out.extend_from_slice(&sketch.raw);
        return Ok(sketch.type_code);
    }
    let start = out.len();
    put_bloom(&sketch.raw, out).map_err(|damage| {
        out.truncate(start);
        WriteError::Damaged(RdbError::Value {
            db: 0,
            key: key.to_vec(),
            type_code: sketch.type_code,
            damage,
        })
    })?;
    Ok(type_code::BLOOM_2)
}

fn put_bloom(raw: &[u8], out: &mut Vec<u8>) -> Result<(), crate::error::Damage> {
    let mut cursor = Cursor::new(raw);
    cursor.len("bloom, options")?;
    cursor.take(16, "bloom, growth and error rate")?;
    for reading in ["bloom, previous size", "bloom, size", "bloom, capacity"] {
        cursor.len(reading)?;
    }
    let filters = cursor.count(2, "bloom, filters")?;
    out.extend_from_slice(&raw[..cursor.offset() as usize]);
    for _ in 0..filters {
        writer::len(out, cursor.len("bloom, hashes")?);
        let bits = cursor.string("bloom, bits")?;
        writer::len(out, bits.len() as u64);
        for chunk in bits.chunks(CHUNK_BYTES) {
            writer::raw_string(out, chunk, None);
        }
    }
    cursor.finish("bloom")
}
