//! What a dump holds, added up in one pass over its records.
//!
//! `inspect` prints the summary, `report` draws it. Values are not decoded: `memory` weighs their stored bytes.
//!
//! Invariant: everything kept is bounded, whatever the dump: databases, types, aux names, prefixes, biggest keys.

pub mod prefixes;
pub mod summary;
mod warnings;

use crate::memory::{self, Meter};
use crate::report::{self, Failure};
use crate::source::{Key, Record, Source};
use dfsnap_formats::parts::Head;
use dfsnap_formats::rdb::count::element_count;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::length::{Length, Prefix, read};
use dfsnap_formats::rdb::record::{End, Header, KeyRecord, ModuleId};
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::rdb::{Flavor, type_code};
use prefixes::Prefixes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::BuildHasher;
use summary::{Big, Database, SizeClass, Summary, Type};

/// Names beyond this are left out: some writers put one before every key.
const AUX_NAMES_MAX: usize = 64;
/// Longest aux value that is kept.
const AUX_VALUE_MAX: usize = 256;
/// Modules beyond this are summed up under one name.
const TYPES_MAX: usize = 1024;
/// Databases beyond this are summed up under the last.
const DATABASES_MAX: usize = 65_536;

/// What is to be kept.
#[derive(Debug, Clone)]
pub struct Options {
    pub top: usize,
    /// Expiries count from this time, in Unix milliseconds.
    pub at_ms: i64,
    pub prefix_depth: usize,
    pub prefixes: usize,
    /// Values are weighed of one key in so many; at least 1.
    pub sample: u64,
}

/// Adds up all that a source gives.
pub fn summarize(source: Source, file: String, options: &Options) -> Result<Summary, Failure> {
    let mut tally = Tally::new(options.clone());
    tally.summary.file = file;
    tally.summary.format = source.format();
    source.for_each(&mut |record| tally.take(record))?;
    Ok(tally.finish())
}

/// Powers of two that sizes are sorted by.
const SIZE_CLASSES: usize = 64;

struct Tally {
    options: Options,
    summary: Summary,
    has_crc: bool,
    databases: BTreeMap<u32, Database>,
    /// By type code and, where there is one, by module id.
    types: BTreeMap<(u8, Option<u64>), Type>,
    sizes: Vec<SizeClass>,
    prefixes: Prefixes,
    biggest: BinaryHeap<Reverse<Big>>,
    meter: Meter,
    sampling: foldhash::fast::FixedState,
    /// Where values that are not stored get the form in which they would be.
    encoded: Vec<u8>,
}

/// A value as far as it is counted.
struct Weighed {
    code: u8,
    module: Option<ModuleId>,
    /// As stored, without the key.
    bytes: u64,
    /// With the key. None: it is not in the sample.
    memory: Option<u64>,
}

impl Tally {
    fn new(options: Options) -> Self {
        let mut summary = Summary {
            sample: options.sample,
            ..Summary::default()
        };
        summary.expiry.at_ms = options.at_ms;
        Tally {
            prefixes: Prefixes::new(options.prefix_depth),
            options,
            summary,
            has_crc: false,
            databases: BTreeMap::new(),
            types: BTreeMap::new(),
            sizes: vec![SizeClass::default(); SIZE_CLASSES],
            biggest: BinaryHeap::new(),
            meter: Meter::new(),
            sampling: foldhash::fast::FixedState::default(),
            encoded: Vec::new(),
        }
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), Failure> {
        match record {
            Record::Header(header) => self.header(header),
            Record::Aux { name, value } => self.aux(name, value),
            Record::Function(_) => self.summary.functions += 1,
            Record::ModuleAux { module, .. } => {
                let seen = &mut self.summary.module_aux;
                if seen.len() < TYPES_MAX {
                    *seen.entry(module.name()).or_default() += 1;
                }
            }
            Record::Key(key) => self.key(key)?,
            Record::End(end) => self.end(end),
            Record::Behind(count) => self.summary.bytes_after = count,
        }
        Ok(())
    }

    fn header(&mut self, header: Header) {
        self.summary.files += 1;
        self.summary.version = Some(header.version);
        self.summary.magic = Some(match header.flavor {
            Flavor::Redis | Flavor::Dragonfly => "REDIS",
            Flavor::Valkey => "VALKEY",
        });
        self.has_crc = header.has_crc();
    }

    fn end(&mut self, end: End) {
        self.summary.bytes += end.bytes;
        let found = match (self.has_crc, end.crc) {
            (false, _) => "absent",
            (true, None) => "none",
            (true, Some(_)) => "good",
        };
        // Of the files of a set the worst counts.
        let worst = match (self.summary.checksum, found) {
            (None | Some("good"), found) => found,
            (Some(before), _) => before,
        };
        self.summary.checksum = Some(worst);
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let shown = report::key(&value[..value.len().min(AUX_VALUE_MAX)]);
        let server = match name {
            b"redis-ver" => Some("Redis"),
            b"valkey-ver" => Some("Valkey"),
            // Behind `redis-ver`, which Dragonfly writes too.
            b"df-ver" => Some("Dragonfly"),
            _ => None,
        };
        let is_dragonfly = |writer: &String| writer.starts_with("Dragonfly");
        if let Some(server) = server
            && (server != "Redis" || !self.summary.writer.as_ref().is_some_and(is_dragonfly))
        {
            self.summary.writer = Some(format!("{server} {shown}"));
        }
        let name = report::key(&name[..name.len().min(AUX_VALUE_MAX)]);
        let aux = &mut self.summary.aux;
        if aux.len() < AUX_NAMES_MAX || aux.contains_key(&name) {
            let aux = aux.entry(name).or_default();
            aux.value = shown;
            aux.times += 1;
        }
    }

    fn key(&mut self, key: Key<'_>) -> Result<(), Failure> {
        let head = key.head;
        let is_sampled = self.options.sample <= 1
            || self
                .sampling
                .hash_one(head.key)
                .is_multiple_of(self.options.sample);
        if let Some(record) = key.record() {
            let weighed = self.stored(record, is_sampled);
            self.count(&head, &weighed, || {
                element_count(record.flavor, record.type_code, record.value).ok()
            });
        } else if let Some(record) = key.large_record() {
            let (flavor, code) = (record.flavor, record.type_code);
            let weighed = self.large(key, flavor, code)?;
            let elements = self.meter.elements();
            self.count(&head, &weighed, || elements);
        } else if let Some(entry) = key.entry()? {
            let mut encoded = std::mem::take(&mut self.encoded);
            encoded.clear();
            // What no target can hold weighs nothing.
            if let Ok(code) = encode(&entry.value, Target::default(), &mut encoded, None) {
                let record = KeyRecord {
                    db: head.db,
                    key: head.key,
                    attributes: head.attributes,
                    flavor: Target::default().flavor(),
                    type_code: code,
                    offset: 0,
                    value_offset: 0,
                    value: &encoded,
                };
                let weighed = self.stored(&record, is_sampled);
                self.count(&head, &weighed, || Some(entry.value.count() as u64));
            }
            self.encoded = encoded;
        }
        Ok(())
    }

    fn stored(&mut self, record: &KeyRecord<'_>, is_sampled: bool) -> Weighed {
        let (flavor, code) = (record.flavor, record.type_code);
        let memory = is_sampled.then(|| {
            // A damaged value is for `verify` to find; here it counts with its stored size.
            let value = self.meter.value(flavor, code, record.value);
            value.unwrap_or(record.value.len() as u64) + memory::key_bytes(record.key.len())
        });
        Weighed {
            code,
            module: module_of(code, record.value),
            bytes: record.value.len() as u64,
            memory,
        }
    }

    /// Large values are few: all are in the sample.
    fn large(&mut self, key: Key<'_>, flavor: Flavor, code: u8) -> Result<Weighed, Failure> {
        let key_bytes = memory::key_bytes(key.head.key.len());
        self.meter.begin(flavor, code);
        let mut bytes = 0;
        let mut is_damaged = false;
        let mut module = None;
        let meter = &mut self.meter;
        key.large_bytes(|piece| {
            if bytes == 0 {
                module = module_of(code, piece);
            }
            bytes += piece.len() as u64;
            is_damaged = is_damaged || meter.feed(piece).is_err();
            Ok(())
        })?;
        let value = match is_damaged {
            true => bytes,
            false => self.meter.finish().unwrap_or(bytes),
        };
        let memory = Some(value + key_bytes);
        Ok(Weighed {
            code,
            module,
            bytes,
            memory,
        })
    }

    fn count(
        &mut self,
        head: &Head<'_>,
        weighed: &Weighed,
        elements: impl FnOnce() -> Option<u64>,
    ) {
        let attributes = &head.attributes;
        self.summary.keys += 1;
        self.summary.expiry.take(attributes.expire_at_ms);
        self.summary.idle += u64::from(attributes.idle_s.is_some());
        self.summary.freq += u64::from(attributes.freq.is_some());
        let expires = u64::from(attributes.expire_at_ms.is_some());
        let bytes = head.key.len() as u64 + weighed.bytes;
        let is_large = weighed.bytes > crate::source::VALUE_BYTES_MAX as u64;
        let weight = match is_large {
            true => 1,
            false => self.options.sample,
        };
        let memory = weighed
            .memory
            .map_or(0, |memory| memory.saturating_mul(weight));

        let database = self.database(head.db);
        database.keys += 1;
        database.expires += expires;
        database.bytes += bytes;
        database.memory += memory;
        let sum = self.type_of(head, weighed);
        sum.keys += 1;
        sum.expires += expires;
        sum.bytes += bytes;
        sum.memory += memory;
        if let Some(memory) = weighed.memory {
            self.weigh(head, weighed, memory, weight, elements);
        }
    }

    fn database(&mut self, db: u32) -> &mut Database {
        let db = match self.databases.len() < DATABASES_MAX {
            true => db,
            false => {
                let mut before = self.databases.range(..=db);
                before.next_back().map_or(0, |(db, _)| *db)
            }
        };
        self.databases.entry(db).or_insert_with(|| Database {
            db,
            ..Database::default()
        })
    }

    fn type_of(&mut self, head: &Head<'_>, weighed: &Weighed) -> &mut Type {
        let module = weighed.module.filter(|_| self.types.len() < TYPES_MAX);
        let code = weighed.code;
        self.types
            .entry((code, module.map(|id| id.0)))
            .or_insert_with(|| Type {
                kind: head.kind.name().to_owned(),
                encoding: module.map_or_else(|| encoding(code).to_owned(), ModuleId::name),
                code,
                ..Type::default()
            })
    }

    fn weigh(
        &mut self,
        head: &Head<'_>,
        weighed: &Weighed,
        memory: u64,
        weight: u64,
        elements: impl FnOnce() -> Option<u64>,
    ) {
        let bytes = head.key.len() as u64 + weighed.bytes;
        let class = &mut self.sizes[memory.max(1).ilog2() as usize];
        class.keys += weight;
        class.memory = class.memory.saturating_add(memory.saturating_mul(weight));
        self.prefixes.add(head.key, weight, bytes, memory);

        let is_full = self.biggest.len() >= self.options.top;
        let least = self.biggest.peek().map(|least| least.0.memory);
        if self.options.top == 0 || (is_full && least.is_some_and(|least| least >= memory)) {
            return;
        }
        if is_full {
            self.biggest.pop();
        }
        self.biggest.push(Reverse(Big {
            memory,
            bytes,
            db: head.db,
            key: report::key(head.key),
            kind: head.kind.name().to_owned(),
            encoding: weighed
                .module
                .map_or_else(|| encoding(weighed.code).to_owned(), ModuleId::name),
            elements: elements(),
            expire_at_ms: head.attributes.expire_at_ms,
        }));
    }

    fn finish(self) -> Summary {
        let mut summary = self.summary;
        let tables = |db: &Database| {
            memory::bucket_bytes(db.keys)
                + memory::bucket_bytes(db.expires)
                + db.expires * memory::EXPIRY_BYTES
        };
        summary.memory.tables = self.databases.values().map(tables).sum();
        summary.memory.keys = self.databases.values().map(|db| db.memory).sum();
        summary.memory.total = summary.memory.keys + summary.memory.tables;
        summary.databases = self.databases.into_values().collect();
        summary.types = self.types.into_values().collect();
        summary.types.sort_by_key(|sum| Reverse(sum.memory));
        summary.prefixes = self.prefixes.top(self.options.prefixes);
        summary.biggest = self.biggest.into_iter().map(|big| big.0).collect();
        summary.biggest.sort_by(|a, b| {
            let heavier = b.memory.cmp(&a.memory);
            heavier.then_with(|| (a.db, &a.key).cmp(&(b.db, &b.key)))
        });
        let classes = self.sizes.into_iter().zip(0_u32..);
        summary.sizes = classes
            .filter(|(class, _)| class.keys > 0)
            .map(|(class, power)| SizeClass {
                from: 1 << power,
                to: 1_u64.checked_shl(power + 1).unwrap_or(u64::MAX),
                ..class
            })
            .collect();
        summary.warnings = warnings::warnings(&summary);
        summary
    }
}

/// The id at the start of a module's value.
fn module_of(code: u8, value: &[u8]) -> Option<ModuleId> {
    match (code, read(value)) {
        (type_code::MODULE_2, Prefix::Whole(Length::Plain(id), _)) => Some(ModuleId(id)),
        _ => None,
    }
}

/// How a type is stored, without its name: `listpack` of `hash, listpack`.
fn encoding(code: u8) -> &'static str {
    let name = type_code::name(code);
    match name.split_once(", ") {
        Some((_, encoding)) => encoding,
        None => match code {
            type_code::ZSET_2 => "members, binary scores",
            type_code::ZSET => "members, text scores",
            type_code::STREAM => "version 1",
            type_code::STREAM_2 => "version 2",
            type_code::STREAM_3 => "version 3",
            type_code::HASH_METADATA => "fields with expiry",
            type_code::HASH => "fields",
            type_code::SET => "members",
            type_code::LIST => "elements",
            _ => "plain",
        },
    }
}
