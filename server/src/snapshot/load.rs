//! Loading: a reader finds the records, the shards decode and insert them. A set has several readers (`load_set`).
//!
//! Invariants
//! - At most `AHEAD` batches are on their way to a shard: memory does not grow with the file.
//! - After an error nothing more is inserted; what is there is for the caller to keep or drop.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use dfsnap_formats::error::{Damage, Problem, Shown};
use dfsnap_formats::input::Cursor;
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::rdb::decode::{DecodeLimits, decode};
use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged};
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::rdb::record::{Attributes, KeyRecord, RdbError};
use dfsnap_formats::rdb::type_code;

use super::serializer;
use crate::keyspace::entry::Access;
use crate::keyspace::value::Value;
use crate::keyspace::{DbIndex, Key, Keyspace, shard_of};
use crate::shard::link::Links;
use crate::shard::queue::Footprint;
use crate::shard::{After, Shard};

/// A batch travels when its values have this many bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// The same while clients are served meanwhile: what they wait for behind a batch stays below a tenth of a millisecond or so.
const SMALL_BATCH_BYTES: usize = 32 * 1024;
/// Batches on their way to one shard.
const AHEAD: usize = 4;
/// Keys whose places in the table are fetched into the cache together.
const WARM_KEYS: usize = 16;
/// For fewer the table is not made ready.
const KEYS_WORTH_EXPECTING: u64 = 1024;
/// So many keys are believed of a source whose size is not known, a payload that ends at a mark: a directory for them takes 2 MiB.
const KEYS_OF_UNKNOWN_MAX: u64 = 1 << 28;
/// No key takes fewer bytes in a file: a type, and lengths of the key and of the value.
const KEY_BYTES_MIN: u64 = 3;

/// What a load found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Keys that are there now.
    pub keys: u64,
    /// Keys whose time had come: left out, or deleted in the stream where a history goes on.
    pub expired: u64,
    /// Keys with nothing in them, left behind by old bugs.
    pub empty: u64,
    /// `repl-id`, `repl-offset` and `repl-stream-db`, if the file has them.
    pub replication: Option<(String, u64, u32)>,
    /// Bytes read.
    pub bytes: u64,
    /// Code of function libraries, for the caller to load.
    pub functions: Vec<Vec<u8>>,
    /// Keys and ranges that could not be read and were left out, which a lenient load alone does. Each is in the log.
    pub lost: u64,
}

/// What to do with keys.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Leave out keys that have expired: what a primary does with its own file.
    pub drops_expired: bool,
    /// Databases there are.
    pub databases: u32,
    /// Newest version under the magic REDIS that is taken.
    pub version_max: u16,
    /// Leave out what is damaged instead of giving up.
    pub lenient: bool,
    /// Keys that are there already are replaced; else they are an error.
    pub merges: bool,
    /// Keys go into `Shard::successor`, which the caller has put there; else into the dataset that is served.
    pub into_successor: bool,
}

/// Counters for INFO while loading.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Bytes of the file.
    pub total: AtomicU64,
    /// Bytes read.
    pub read: AtomicU64,
    /// When it began, Unix ms.
    pub started_ms: AtomicU64,
    /// `key-load-delay`: microseconds to wait behind each key of a file.
    pub key_delay_us: AtomicU64,
}

impl LoadProgress {
    /// No load yet; the next waits for so long behind each key.
    pub fn new(key_delay_us: i64) -> LoadProgress {
        let progress = LoadProgress::default();
        progress.set_key_delay_us(key_delay_us);
        progress
    }

    /// Changes `key-load-delay`, also of a load that runs.
    pub fn set_key_delay_us(&self, us: i64) {
        let us = u64::try_from(us).unwrap_or(0);
        self.key_delay_us.store(us, Ordering::Relaxed);
    }

    /// Waits behind a key, on a thread that may.
    fn delay(&self) {
        let us = self.key_delay_us.load(Ordering::Relaxed);
        if us > 0 {
            std::thread::sleep(Duration::from_micros(us));
        }
    }

    /// Notes that a load of this many bytes begins.
    pub fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        self.started_ms
            .store(crate::clock::now_ms() as u64, Ordering::Relaxed);
    }

    /// Bytes in all, bytes read, and the seconds left at the pace so far.
    pub fn state(&self) -> (u64, u64, u64) {
        let (total, read) = (
            self.total.load(Ordering::Relaxed),
            self.read.load(Ordering::Relaxed),
        );
        let passed_ms =
            (crate::clock::now_ms() as u64).saturating_sub(self.started_ms.load(Ordering::Relaxed));
        let left_ms = u128::from(passed_ms) * u128::from(total.saturating_sub(read))
            / u128::from(read.max(1));
        (
            total,
            read,
            u64::try_from(left_ms / 1000).unwrap_or(u64::MAX),
        )
    }
}

/// Why a load ended.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are not a good RDB.
    #[error("{0}")]
    Rdb(#[from] RdbError),
    /// A value this server cannot hold.
    #[error("offset {offset}: value of key {}: {problem}", Shown(.key))]
    Value {
        /// Where the record starts.
        offset: u64,
        /// Whose value.
        key: Vec<u8>,
        /// What is wrong.
        problem: String,
    },
    /// A database this server does not have.
    #[error("offset {offset}: key {} is in database {db}, but there are {databases}; raise `databases`", Shown(.key))]
    Database {
        /// Where the record starts.
        offset: u64,
        /// The key.
        key: Vec<u8>,
        /// Its database.
        db: u32,
        /// How many there are.
        databases: u32,
    },
    /// A set that is not whole.
    #[error("{0}")]
    Set(String),
    /// In a file of a set.
    #[error("{file}: {error}")]
    InFile {
        /// Its name.
        file: Arc<str>,
        /// What is wrong there.
        error: Box<LoadError>,
    },
}

impl LoadError {
    /// What is wrong, behind how Redis' log puts it: that is what people look for.
    pub fn in_words_of_redis(&self) -> String {
        match self {
            LoadError::Rdb(RdbError::Checksum { .. }) => {
                format!("Wrong RDB checksum (RDB CRC error), {self}")
            }
            LoadError::Rdb(RdbError::Value {
                type_code, damage, ..
            }) => {
                let what = damage_in_words_of_redis(*type_code, Some(damage));
                format!("Internal error in RDB reading {self}: {what}")
            }
            _ => format!("Internal error in RDB reading {self}"),
        }
    }

    /// The error with the file it came from.
    pub(super) fn in_file(self, file: Option<&Arc<str>>) -> LoadError {
        match file {
            None => self,
            Some(file) => LoadError::InFile {
                file: file.clone(),
                error: Box::new(self),
            },
        }
    }
}

/// The words that Redis' log has for a damaged value of this type.
pub fn damage_in_words_of_redis(code: u8, damage: Option<&Damage>) -> String {
    use type_code::*;
    if damage.is_some_and(|damage| {
        damage.reading == "stream consumers" && matches!(damage.problem, Problem::Duplicate(_))
    }) {
        return "Duplicate stream consumer detected".to_owned();
    }
    let what = match code {
        LIST_ZIPLIST | LIST_QUICKLIST => "Ziplist",
        LIST_QUICKLIST_2 => "Listpack",
        HASH_ZIPMAP => "Zipmap",
        HASH_ZIPLIST => "Hash ziplist",
        HASH_LISTPACK => "Hash listpack",
        ZSET_ZIPLIST => "Zset ziplist",
        ZSET_LISTPACK => "Zset listpack",
        SET_INTSET => "Intset",
        SET_LISTPACK => "Set listpack",
        STREAM | STREAM_2 | STREAM_3 => "Stream listpack",
        _ => "Value",
    };
    format!("{what} integrity check failed.")
}

/// Keys on their way to their shard, and the bytes of all of them.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    records: Vec<Raw>,
    /// The file of a set that they are from.
    file: Option<Arc<str>>,
}

/// A key of a batch: its bytes in `text`, and behind them those of its value.
struct Raw {
    at: usize,
    key_len: usize,
    value_len: usize,
    /// Of the key.
    hash: u64,
    db: DbIndex,
    attributes: Attributes,
    flavor: Flavor,
    type_code: u8,
    offset: u64,
    value_offset: u64,
}

impl Batch {
    fn push(&mut self, record: &KeyRecord<'_>, hash: u64) {
        let at = self.text.len();
        self.text.extend_from_slice(record.key);
        self.text.extend_from_slice(record.value);
        self.records.push(Raw {
            at,
            key_len: record.key.len(),
            value_len: record.value.len(),
            hash,
            db: DbIndex(record.db),
            attributes: record.attributes,
            flavor: record.flavor,
            type_code: record.type_code,
            offset: record.offset,
            value_offset: record.value_offset,
        });
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.records.len() * size_of::<Raw>()
    }

    fn key(&self, raw: &Raw) -> Key<'_> {
        Key {
            bytes: &self.text[raw.at..raw.at + raw.key_len],
            hash: raw.hash,
        }
    }

    fn value(&self, raw: &Raw) -> &[u8] {
        let start = raw.at + raw.key_len;
        &self.text[start..start + raw.value_len]
    }
}

/// What became of a batch.
struct Report {
    shard: usize,
    keys: u64,
    empty: u64,
    lost: u64,
    error: Option<LoadError>,
    /// The batch, to be filled again.
    batch: Batch,
}

/// Loads an RDB from `source`, on a thread that may block. The shards insert meanwhile; nothing else may write where they do.
pub fn load(
    source: impl Read,
    links: &Arc<Links>,
    options: LoadOptions,
    progress: &LoadProgress,
) -> Result<Loaded, LoadError> {
    let mut loader = Loader::new(links.clone(), options, progress);
    let reader = Options {
        check_crc: true,
        version_max: options.version_max,
        source_bytes: None,
    };
    let result = if options.lenient {
        let mut reader = LenientReader::new(source, reader);
        let result = salvage_all(&mut reader, &mut loader, progress);
        loader.loaded.bytes = reader.offset();
        result
    } else {
        let mut reader = RdbReader::new(source, reader);
        let result = read_all(&mut reader, &mut loader, progress);
        loader.loaded.bytes = reader.offset();
        result
    };
    // Whatever happened, the shards finish what they have before the caller goes on.
    let drained = loader.drain();
    result?;
    drained?;
    Ok(loader.loaded)
}

fn read_all<R: Read>(
    reader: &mut RdbReader<R>,
    loader: &mut Loader,
    progress: &LoadProgress,
) -> Result<(), LoadError> {
    let mut position = Position::default();
    let mut records = 0u64;
    loop {
        records += 1;
        if records.is_multiple_of(1024) {
            progress.read.store(reader.offset(), Ordering::Relaxed);
        }
        let offset = reader.offset();
        let Some(record) = reader.next()? else { break };
        position.note(&record);
        loader.has_position |= position.is_known();
        let is_key = matches!(record, Record::Key(_));
        loader.take(&record, offset, None)?;
        if is_key {
            progress.delay();
        }
    }
    loader.loaded.replication = position.known();
    Ok(())
}

fn salvage_all<R: Read>(
    reader: &mut LenientReader<R>,
    loader: &mut Loader,
    progress: &LoadProgress,
) -> Result<(), LoadError> {
    let mut position = Position::default();
    loop {
        let offset = reader.offset();
        progress.read.store(offset, Ordering::Relaxed);
        match reader.next()? {
            None => break,
            Some(Salvaged::Record(record)) => {
                position.note(&record);
                loader.take(&record, offset, None)?;
            }
            Some(Salvaged::Skipped(skipped)) => {
                tracing::warn!(
                    from = skipped.from,
                    to = skipped.to,
                    why = %skipped.why,
                    "lost bytes of the file"
                );
                loader.loaded.lost += 1;
            }
        }
    }
    // What is not whole is not the state at a position.
    if loader.loaded.lost == 0 {
        loader.loaded.replication = position.known();
    }
    Ok(())
}

/// `repl-id`, `repl-offset` and `repl-stream-db`, as they are found.
#[derive(Default)]
struct Position {
    id: Option<String>,
    offset: Option<u64>,
    db: u32,
}

impl Position {
    fn note(&mut self, record: &Record<'_>) {
        let Record::Aux { name, value } = record else {
            return;
        };
        let text = String::from_utf8_lossy(value);
        match &name[..] {
            b"repl-id" => self.id = Some(text.into_owned()),
            b"repl-offset" => self.offset = text.parse().ok(),
            b"repl-stream-db" => {
                self.db = text
                    .parse::<i64>()
                    .ok()
                    .and_then(|db| u32::try_from(db).ok())
                    .unwrap_or(0);
            }
            _ => {}
        }
    }

    fn is_known(&self) -> bool {
        self.id.is_some() && self.offset.is_some()
    }

    fn known(self) -> Option<(String, u64, u32)> {
        Some((self.id?, self.offset?, self.db))
    }
}

/// Batches for each shard, and what comes back of them.
pub(super) struct Loader {
    links: Arc<Links>,
    options: LoadOptions,
    /// When the load began: what has expired by then is left out.
    now_ms: i64,
    /// The dataset is a known place of a replication stream.
    pub(super) has_position: bool,
    batches: Vec<Batch>,
    in_flight: Vec<usize>,
    /// Batches that came back.
    spare: Vec<Batch>,
    /// Keys that the source can still announce: it has no room for more.
    keys_max: u64,
    /// The database selected last.
    db: DbIndex,
    reports: Receiver<Report>,
    report_to: Sender<Report>,
    /// What was found so far.
    pub(super) loaded: Loaded,
}

impl Loader {
    /// `progress` has begun: it knows the size of what is loaded.
    pub(super) fn new(links: Arc<Links>, options: LoadOptions, progress: &LoadProgress) -> Loader {
        let shards = links.shards();
        let (report_to, reports) = channel();
        Loader {
            links,
            options,
            now_ms: crate::clock::now_ms(),
            has_position: false,
            batches: (0..shards).map(|_| Batch::default()).collect(),
            in_flight: vec![0; shards],
            spare: Vec::new(),
            keys_max: match progress.total.load(Ordering::Relaxed) {
                0 => KEYS_OF_UNKNOWN_MAX,
                bytes => bytes / KEY_BYTES_MIN,
            },
            db: DbIndex(0),
            reports,
            report_to,
            loaded: Loaded::default(),
        }
    }

    /// Takes a record that was found at `offset`, of a file of a set if there is one: keys go to their shards.
    pub(super) fn take(
        &mut self,
        record: &Record<'_>,
        offset: u64,
        file: Option<&Arc<str>>,
    ) -> Result<(), LoadError> {
        let refused = match record {
            Record::Key(record) if record.db >= self.options.databases => LoadError::Database {
                offset: record.offset,
                key: record.key.to_vec(),
                db: record.db,
                databases: self.options.databases,
            },
            Record::Key(record) => {
                let expire_at_ms = record.attributes.expire_at_ms;
                if self.options.drops_expired && expire_at_ms.is_some_and(|at| at < self.now_ms) {
                    self.loaded.expired += 1;
                    // Where the history goes on, replicas have them too: their end must be in it.
                    if !self.has_position {
                        return Ok(());
                    }
                }
                return self.add(record, file);
            }
            Record::SelectDb(db) => {
                self.db = DbIndex(*db);
                return Ok(());
            }
            Record::ResizeDb { keys, .. } => {
                self.expect(*keys);
                return Ok(());
            }
            Record::Function { code } => {
                self.loaded.functions.push(code.to_vec());
                return Ok(());
            }
            Record::ModuleAux { module, .. } => LoadError::Value {
                offset,
                key: Vec::new(),
                problem: format!(
                    "data of module {}, which this server does not have",
                    module.name()
                ),
            },
            _ => return Ok(()),
        };
        let refused = refused.in_file(file);
        if !self.options.lenient {
            return Err(refused);
        }
        tracing::warn!(why = %refused, "lost");
        self.loaded.lost += 1;
        Ok(())
    }

    fn add(&mut self, record: &KeyRecord<'_>, file: Option<&Arc<str>>) -> Result<(), LoadError> {
        let batch_bytes = match self.options.into_successor {
            true => SMALL_BATCH_BYTES,
            false => BATCH_BYTES,
        };
        let hash = Key::new(record.key).hash;
        let shard = shard_of(hash, self.batches.len());
        let batch = &self.batches[shard];
        if !batch.records.is_empty() && batch.file.as_ref() != file {
            self.send(shard)?;
        }
        let batch = &mut self.batches[shard];
        if batch.records.is_empty() {
            batch.file = file.cloned();
            batch.text.reserve(batch_bytes);
        }
        batch.push(record, hash);
        if batch.bytes() >= batch_bytes {
            self.send(shard)
        } else {
            Ok(())
        }
    }

    fn send(&mut self, shard: usize) -> Result<(), LoadError> {
        while self.in_flight[shard] >= AHEAD {
            self.take_report()?;
        }
        let next = self.spare.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batches[shard], next);
        let report_to = self.report_to.clone();
        let options = self.options;
        self.in_flight[shard] += 1;
        self.run_on(shard, move |shard| {
            let _ = report_to.send(insert(shard, batch, options));
        });
        Ok(())
    }

    /// Has a shard do something with the keyspace that is loaded, after what it was sent before.
    fn run_on(&self, shard: usize, action: impl FnOnce(&mut Shard) + Send + 'static) {
        let into_successor = self.options.into_successor;
        self.links.send(
            shard,
            Box::new(move |shard| {
                if into_successor || shard.is_idle() {
                    return action(shard);
                }
                // INFO and DEBUG run while a dataset is loaded, and may hold the keyspace.
                let hop = move |shard: &mut Shard| {
                    action(shard);
                    After::Release
                };
                shard.enqueue(Footprint::All, Default::default(), Box::new(hop));
            }),
        );
    }

    /// `keys` more are coming into the selected database, the source says. It may be wrong.
    fn expect(&mut self, keys: u64) {
        let (db, keys) = (self.db, keys.min(self.keys_max));
        if db.0 >= self.options.databases || keys < KEYS_WORTH_EXPECTING {
            return;
        }
        // So a source that announces again and again costs neither messages nor memory beyond its own size.
        self.keys_max -= keys;
        let shards = self.batches.len();
        let each = keys / shards as u64;
        let each = usize::try_from(each).unwrap_or(usize::MAX);
        let into_successor = self.options.into_successor;
        for shard in 0..shards {
            self.run_on(shard, move |shard| {
                if let Some(keyspace) = loaded_into(shard, into_successor) {
                    keyspace.expect(db, each);
                }
            });
        }
    }

    fn take_report(&mut self) -> Result<(), LoadError> {
        let report = self.reports.recv().expect("a sender is kept here");
        self.spare.push(report.batch);
        self.in_flight[report.shard] -= 1;
        self.loaded.keys += report.keys;
        self.loaded.empty += report.empty;
        self.loaded.lost += report.lost;
        report.error.map_or(Ok(()), Err)
    }

    /// Waits until the shards have inserted everything.
    pub(super) fn drain(&mut self) -> Result<(), LoadError> {
        let mut result = Ok(());
        for shard in 0..self.batches.len() {
            if !self.batches[shard].records.is_empty() {
                result = result.and(self.send(shard));
            }
        }
        while self.in_flight.iter().any(|&batches| batches > 0) {
            let report = self.take_report();
            result = result.and(report);
        }
        result
    }
}

/// The keyspace that is loaded.
fn loaded_into(shard: &mut Shard, into_successor: bool) -> Option<&mut Keyspace> {
    match into_successor {
        true => shard.successor.as_deref_mut(),
        false => shard.keyspace.as_deref_mut(),
    }
}

/// Decodes and inserts a batch on its shard.
fn insert(shard: &mut Shard, mut batch: Batch, options: LoadOptions) -> Report {
    let mut report = Report {
        shard: shard.index,
        keys: 0,
        empty: 0,
        lost: 0,
        error: None,
        batch: Batch::default(),
    };
    let limits = DecodeLimits::default();
    let mut scratch = Vec::new();
    'batch: for group in batch.records.chunks(WARM_KEYS) {
        if let Some(keyspace) = loaded_into(shard, options.into_successor) {
            group.iter().for_each(|raw| keyspace.warm(raw.db, raw.hash));
        }
        for raw in group {
            let inserted = insert_one(shard, &batch, raw, &limits, options, &mut scratch);
            match inserted.map_err(|error| error.in_file(batch.file.as_ref())) {
                Ok(true) => report.keys += 1,
                Ok(false) => report.empty += 1,
                Err(why) if options.lenient => {
                    tracing::warn!(%why, "lost a key");
                    report.lost += 1;
                }
                Err(error) => {
                    report.error = Some(error);
                    break 'batch;
                }
            }
        }
    }
    batch.text.clear();
    batch.records.clear();
    // What one large value took is not kept for the rest of the load.
    batch.text.shrink_to(2 * BATCH_BYTES);
    report.batch = batch;
    report
}

fn insert_one(
    shard: &mut Shard,
    batch: &Batch,
    raw: &Raw,
    limits: &DecodeLimits,
    options: LoadOptions,
    scratch: &mut Vec<u8>,
) -> Result<bool, LoadError> {
    let key = batch.key(raw);
    let damaged = |damage| {
        let record = KeyRecord {
            db: raw.db.0,
            key: key.bytes,
            attributes: raw.attributes,
            flavor: raw.flavor,
            type_code: raw.type_code,
            offset: raw.offset,
            value_offset: raw.value_offset,
            value: &[],
        };
        LoadError::Rdb(record.damaged(damage))
    };
    let refused = |problem: String| LoadError::Value {
        offset: raw.offset,
        key: key.bytes.to_vec(),
        problem,
    };
    let stored = batch.value(raw);
    let value = if raw.type_code == type_code::STRING {
        // Most entries are strings: they need no value in between.
        string(stored, scratch).map_err(damaged)?
    } else {
        let value = decode(raw.flavor, raw.type_code, stored, limits).map_err(damaged)?;
        let Some(value) = value else {
            tracing::info!("skipping empty key: {}", key.bytes.escape_ascii());
            return Ok(false);
        };
        serializer::from_stored(value, &shard.settings.limits).map_err(refused)?
    };
    let now_ms = shard.now_ms;
    let access = match (raw.attributes.freq, raw.attributes.idle_s) {
        (Some(counter), _) if shard.settings.lfu => {
            Access(Access::new_lfu(now_ms).0 & !0xff | u32::from(counter))
        }
        _ if shard.settings.lfu => Access::new_lfu(now_ms),
        (_, idle_s) => Access::at(now_ms - 1000 * i64::try_from(idle_s.unwrap_or(0)).unwrap_or(0)),
    };
    let keyspace = loaded_into(shard, options.into_successor)
        .expect("nothing else takes the keyspace while a dataset is loaded");
    if options.merges
        && let Some(gone) = keyspace.remove(raw.db, key)
    {
        crate::keyspace::release::drop_entry(gone);
    }
    let Some(mut entry) = keyspace.insert_new(raw.db, key, value, access) else {
        return Err(refused(format!(
            "the key is there twice in database {}",
            raw.db.0
        )));
    };
    entry.set_expire_at_ms(raw.attributes.expire_at_ms);
    Ok(true)
}

/// A string value from its stored form.
fn string(stored: &[u8], scratch: &mut Vec<u8>) -> Result<Value, Damage> {
    let mut cursor = Cursor::new(stored);
    scratch.clear();
    cursor.string_into("string", scratch)?;
    cursor.finish("string")?;
    Ok(Value::string(scratch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload that ends at a mark has no size beforehand, and what it announced used to be taken for more than it can hold: tables
    /// grew while it was loaded.
    #[test]
    fn announced_keys_are_believed_as_far_as_the_source_can_hold_them() {
        let rows = [
            ("size unknown", 0, 1_000_000, true),
            ("it fits", 30_000_000, 1_000_000, true),
            ("more than it can hold", 30, 1_000_000, false),
            ("few", 0, 1000, false),
        ];
        for (name, total, keys, is_believed) in rows {
            let (links, mut inboxes) = Links::new(1);
            let progress = LoadProgress::default();
            progress.begin(total);
            let options = LoadOptions {
                drops_expired: false,
                databases: 16,
                version_max: 11,
                lenient: false,
                merges: false,
                into_successor: false,
            };
            let mut loader = Loader::new(Arc::new(links), options, &progress);
            let record = Record::ResizeDb { keys, expires: 0 };
            loader.take(&record, 9, None).expect("no key is in it");
            assert_eq!(inboxes[0].try_recv().is_ok(), is_believed, "{name}");
        }
    }
}
