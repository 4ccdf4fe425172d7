//! Keys as they go by: values are walked, not built, and which keys were there is remembered by hash.
//!
//! One `Keys` serves all files of a set, so that a key in two shards is found.

use super::{Finding, Kind, Report};
use crate::filter::Filter;
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::error::{Problem, Shown};
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::large::WholeBytes;
use dfsnap_formats::rdb::parts::{Counts, Duplicates, PartWalk};
use dfsnap_formats::rdb::record::{Attributes, Header, KeyRecord, RdbError};
use dfsnap_formats::rdb::{Flavor, type_code};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

/// Values beyond are walked in pieces.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Collections beyond. Those that come as a whole are walked twice where a member is there twice, to tell which.
const COLLECTION_BYTES_MAX: usize = 256 << 10;

/// Looks at keys.
pub struct Keys {
    seen: SeenKeys,
    /// Keys that are still to be looked up in `seen`, many at a time.
    waiting: Waiting,
    pub walk: PartWalk,
    /// Keys that do not pass are counted where the dump says how many there are, and nothing else.
    filter: Filter,
    now_ms: i64,
    databases: BTreeMap<u32, Database>,
    /// The present one, not yet in `databases`.
    db: u32,
    counted: Database,
    /// Highest version that a type belongs to, and the type.
    newest_type: Option<(u16, u8)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Database {
    keys: u64,
    expires: u64,
    hint: Option<(u64, u64)>,
}

/// Keys of one file.
#[derive(Default)]
struct Waiting {
    keys: Vec<WaitingKey>,
    names: Vec<u8>,
}

struct WaitingKey {
    hash: u64,
    offset: u64,
    in_blob: bool,
    db: u32,
    name: Range<usize>,
}

/// Keys that wait at most, and bytes of their names.
const WAITING_MAX: usize = 512;
const NAMES_MAX: usize = 64 << 10;

impl Waiting {
    /// True: there are enough.
    #[inline]
    fn push(&mut self, offset: u64, in_blob: bool, db: u32, key: &[u8]) -> bool {
        let start = self.names.len();
        self.names.extend_from_slice(key);
        self.keys.push(WaitingKey {
            hash: hash_of(db, key),
            offset,
            in_blob,
            db,
            name: start..self.names.len(),
        });
        self.keys.len() >= WAITING_MAX || self.names.len() >= NAMES_MAX
    }
}

impl Keys {
    pub fn new(now_ms: i64, filter: Filter) -> Self {
        Keys {
            seen: SeenKeys::default(),
            waiting: Waiting::default(),
            walk: PartWalk::new(Duplicates::Find),
            filter,
            now_ms,
            databases: BTreeMap::new(),
            db: 0,
            counted: Database::default(),
            newest_type: None,
        }
    }

    /// Up to where values are to be here as a whole.
    pub fn whole_bytes(&self) -> WholeBytes {
        WholeBytes {
            single: self.filter.whole_bytes(VALUE_BYTES_MAX),
            collection: self.filter.whole_bytes(COLLECTION_BYTES_MAX),
        }
    }

    /// Counts a key, and tells whether it was there before; `blob` as in `Finding::of_rdb`. False: its value is not to be looked at.
    #[inline]
    pub fn note(
        &mut self,
        report: &mut Report,
        file: &str,
        blob: Option<u64>,
        key: &KeyRecord<'_>,
    ) -> bool {
        let passes = self.filter.passes_record(key);
        self.note_passed(report, file, blob, key, passes)
    }

    /// The same for a key whose value is larger than `whole_bytes`.
    pub fn note_large(&mut self, report: &mut Report, file: &str, key: &KeyRecord<'_>) -> bool {
        let passes = self.filter.passes_large(key);
        self.note_passed(report, file, None, key, passes)
    }

    #[inline]
    fn note_passed(
        &mut self,
        report: &mut Report,
        file: &str,
        blob: Option<u64>,
        key: &KeyRecord<'_>,
        passes: bool,
    ) -> bool {
        let since = first_version(key.type_code);
        self.newest_type = self.newest_type.max(Some((since, key.type_code)));
        self.count(key.db, &key.attributes);
        if passes {
            let place = (blob.unwrap_or(key.offset), blob.is_some());
            self.note_key(report, file, place, (key.db, key.key), &key.attributes);
        }
        passes
    }

    /// An entry of a format that has no stored values.
    pub fn note_entry(&mut self, report: &mut Report, file: &str, offset: u64, entry: &Entry) {
        if self.filter.passes_entry(entry) {
            let key = (entry.db, &entry.key[..]);
            self.note_key(report, file, (offset, false), key, &entry.attributes);
        }
    }

    /// For what the dump says of its databases.
    #[inline]
    fn count(&mut self, db: u32, attributes: &Attributes) {
        if db != self.db {
            self.select(db);
        }
        self.counted.keys += 1;
        self.counted.expires += u64::from(attributes.expire_at_ms.is_some());
    }

    #[inline]
    fn note_key(
        &mut self,
        report: &mut Report,
        file: &str,
        (offset, in_blob): (u64, bool),
        (db, key): (u32, &[u8]),
        attributes: &Attributes,
    ) {
        report.keys += 1;
        if let Some(at_ms) = attributes.expire_at_ms {
            report.expired += u64::from(at_ms <= self.now_ms);
        }
        if self.waiting.push(offset, in_blob, db, key) {
            self.look_up(report, file);
        }
    }

    /// Tells of the keys that were there before; wanted at the end of each file.
    pub fn look_up(&mut self, report: &mut Report, file: &str) {
        let Keys { seen, waiting, .. } = self;
        // All places at once, so that the memory answers for many of them at a time.
        let touched = waiting.keys.iter().map(|key| seen.at_home(key.hash));
        std::hint::black_box(touched.fold(0, |sum, place| sum ^ place));
        for one in &waiting.keys {
            if seen.insert_hash(one.hash, ()) {
                continue;
            }
            let (offset, db) = (one.offset, one.db);
            let key = &waiting.names[one.name.clone()];
            let place = match one.in_blob {
                true => format!("offset {offset}: inside the blob"),
                false => format!("offset {offset}"),
            };
            let message = format!("{place}: key {} in db {db} is there twice", Shown(key));
            let finding = Finding::new(file, Kind::DuplicateKey, Some(offset), message);
            report.finding(finding.of_key(db, key));
        }
        waiting.keys.clear();
        waiting.names.clear();
    }

    /// Looks at a value that is here as a whole.
    pub fn value(
        &mut self,
        report: &mut Report,
        file: &str,
        blob: Option<u64>,
        key: &KeyRecord<'_>,
    ) {
        match self.walk.check(key.flavor, key.type_code, key.value) {
            Ok(counts) => {
                let place = (blob.unwrap_or(key.offset), key.db, key.key);
                self.walked(report, file, place, counts);
            }
            Err(damage) => {
                let error = match damage.problem {
                    // Decoding takes longer, and says which.
                    Problem::DuplicateAmong { .. } => key
                        .decode(&DecodeLimits::default())
                        .err()
                        .unwrap_or_else(|| key.damaged(damage)),
                    _ => key.damaged(damage),
                };
                report.finding(Finding::of_rdb(file, blob, &error));
            }
        }
    }

    /// What a value that was sound came to.
    pub fn walked(
        &mut self,
        report: &mut Report,
        file: &str,
        (offset, db, key): (u64, u32, &[u8]),
        walked: Counts,
    ) {
        report.empty_collections += u64::from(walked.parts == 0);
        let live = walked.stream_entries;
        if let Some(length) = walked.stream_length.filter(|length| *length != live) {
            let message = format!(
                "offset {offset}: stream {} in db {db}: length {length} is stored, but {live} entries are live",
                Shown(key)
            );
            let warning = Finding::new(file, Kind::Hint, Some(offset), message);
            report.warning(warning.of_key(db, key));
        }
    }

    /// What a file says about the database that it has selected.
    pub fn hint(&mut self, db: u32, keys: u64, expires: u64) {
        self.select(db);
        self.counted.hint = Some((keys, expires));
    }

    fn select(&mut self, db: u32) {
        if self.counted.keys > 0 || self.counted.hint.is_some() {
            self.databases.insert(self.db, self.counted);
        }
        self.db = db;
        self.counted = self.databases.get(&db).copied().unwrap_or_default();
    }

    /// Compares numbers that an RDB file says about itself, and that servers ignore, with what is in it.
    pub fn compare_hints(&mut self, report: &mut Report, file: &str, header: Header, whole: bool) {
        self.select(self.db);
        for (db, database) in &self.databases {
            let found = (database.keys, database.expires);
            let hint = database.hint.filter(|hint| *hint != found && whole);
            if let Some((keys, expires)) = hint {
                let message = format!(
                    "db {db}: {keys} keys and {expires} with expiry announced, {} and {} found",
                    found.0, found.1
                );
                report.warning(Finding::new(file, Kind::Hint, None, message));
            }
        }
        if let Some((since, code)) = self.newest_type
            && header.flavor == Flavor::Redis
            && since > header.version
        {
            let message = format!(
                "version {} is stored, but type {code} ({}) belongs to version {since}",
                header.version,
                type_code::name(code)
            );
            report.warning(Finding::new(file, Kind::Hint, None, message));
        }
    }
}

/// The version that brought a type.
fn first_version(code: u8) -> u16 {
    match code {
        0..=4 => 1,
        9..=12 => 2,
        13 => 4,
        14 => 7,
        5..=8 => 8,
        15 => 9,
        16..=19 => 10,
        20 | 21 => 11,
        _ => 12,
    }
}

/// The error of a large value whose structure or parts are damaged, or of the source.
pub fn is_of_the_source(error: &RdbError) -> bool {
    matches!(
        error,
        RdbError::Io { .. } | RdbError::Magic { .. } | RdbError::Version { .. }
    )
}

#[inline]
fn hash_of(db: u32, key: &[u8]) -> u64 {
    let mut hasher = foldhash::quality::FixedState::with_seed(u64::from(db)).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// Which keys were there, by 64-bit hashes at 10 to 15 bytes each: open addressing in order of the hash, so that growing is one pass.
///
/// Different keys have one hash with a chance of 1 in 2^64 a pair, or less by the bits of a tag `T`, which takes its own bytes.
#[derive(Debug)]
pub struct SeenKeys<T = ()> {
    /// By the highest bits, so that growing one does not take much at once.
    shards: Vec<Shard<T>>,
}

#[derive(Debug, Default, Clone)]
struct Shard<T> {
    /// 0 is a free place.
    places: Vec<u64>,
    tags: Vec<T>,
    count: usize,
}

const SHARD_BITS: u32 = 6;
const PLACES_MIN: usize = 64;

impl<T: Copy + Default + PartialEq> Default for SeenKeys<T> {
    fn default() -> Self {
        SeenKeys {
            shards: vec![Shard::default(); 1 << SHARD_BITS],
        }
    }
}

impl SeenKeys {
    /// False: it was there.
    #[inline]
    pub fn insert(&mut self, db: u32, key: &[u8]) -> bool {
        self.insert_hash(hash_of(db, key), ())
    }

    /// What is in the place where the hash belongs.
    #[inline]
    fn at_home(&self, hash: u64) -> u64 {
        let places = &self.shards[shard_of(hash)].places;
        let place = places.get(home(hash, places.len()));
        place.copied().unwrap_or_default()
    }
}

impl<T: Copy + Default + PartialEq> SeenKeys<T> {
    /// False: it was there.
    #[inline]
    pub fn insert_hash(&mut self, hash: u64, tag: T) -> bool {
        let hash = hash.max(1);
        self.shards[shard_of(hash)].insert(hash, tag)
    }
}

impl<T: Copy + Default + PartialEq> Shard<T> {
    #[inline]
    fn insert(&mut self, hash: u64, tag: T) -> bool {
        // At most four of five places are taken.
        if (self.count + 1) * 5 > self.places.len() * 4 {
            self.grow();
        }
        let mut at = home(hash, self.places.len());
        while self.places[at] != 0 {
            if self.places[at] == hash && self.tags[at] == tag {
                return false;
            }
            at += 1;
            if at == self.places.len() {
                at = 0;
            }
        }
        self.places[at] = hash;
        self.tags[at] = tag;
        self.count += 1;
        true
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.places.len() + self.places.len() / 2).max(PLACES_MIN);
        let old = std::mem::replace(&mut self.places, vec![0; size]);
        let tags = std::mem::replace(&mut self.tags, vec![T::default(); size]);
        for (hash, tag) in old.into_iter().zip(tags).filter(|(hash, _)| *hash != 0) {
            let mut at = home(hash, size);
            while self.places[at] != 0 {
                at = (at + 1) % size;
            }
            self.places[at] = hash;
            self.tags[at] = tag;
        }
    }
}

#[inline]
fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

/// Where a hash belongs among so many places: in proportion to the bits below those of the shard.
#[inline]
fn home(hash: u64, places: usize) -> usize {
    ((u128::from(hash << SHARD_BITS) * places as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_there_once_and_take_fifteen_bytes() {
        let mut set = SeenKeys::<()>::default();
        let hashes = || (0..200_000u32).map(|n| hash_of(n % 3, &n.to_le_bytes()));
        assert!(hashes().all(|hash| set.insert_hash(hash, ())));
        assert!(hashes().all(|hash| !set.insert_hash(hash, ())));
        let places: usize = set.shards.iter().map(|shard| shard.places.len()).sum();
        assert!(places * 8 <= 200_000 * 15, "{} bytes", places * 8);
        assert!(set.insert_hash(0, ()) && !set.insert_hash(0, ()));
        assert!(set.insert_hash(u64::MAX, ()) && !set.insert_hash(u64::MAX, ()));
    }

    #[test]
    fn hashes_that_share_a_home_find_places() {
        let mut set = SeenKeys::<u16>::default();
        // All at the end of the last shard, so that they go round.
        let hashes = || (0..1000u64).map(|n| u64::MAX - n);
        for tag in [7, 8] {
            assert!(hashes().all(|hash| set.insert_hash(hash, tag)));
            assert!(hashes().all(|hash| !set.insert_hash(hash, tag)));
        }
    }
}
