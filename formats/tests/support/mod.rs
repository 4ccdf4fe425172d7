//! What the corpus and the golden tests share: reading a whole file, its digest, and its listing.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod aof;
pub mod commands;
pub mod corpus;
pub mod dfs;
pub mod dragonfly;
pub mod listing;
pub mod server;
pub mod sha256;

use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::error::Shown;
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::value::Value;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A key with its value.
pub struct Key {
    pub db: u32,
    pub key: Vec<u8>,
    pub expire_at_ms: Option<i64>,
    pub value: Value,
}

/// All of a file: its keys without empty collections.
pub struct Contents {
    pub flavor: Flavor,
    pub keys: Vec<Key>,
    /// Bytes of the file itself.
    pub bytes: u64,
}

/// Reads everything; an error tells what a person would be told.
pub fn read(source: impl Read) -> Result<Contents, String> {
    let mut reader = RdbReader::new(source, Options::default());
    let limits = DecodeLimits::default();
    let mut keys = Vec::new();
    let mut names = HashSet::new();
    let mut bytes = 0;
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        match record {
            Record::End(end) => bytes = end.bytes,
            Record::Key(key) => {
                let value = key.decode(&limits).map_err(|error| error.to_string())?;
                let Some(value) = value else { continue };
                if !names.insert((key.db, key.key.to_vec())) {
                    let (offset, name) = (key.offset, Shown(key.key));
                    return Err(format!("offset {offset}: key {name}: is there twice"));
                }
                keys.push(Key {
                    db: key.db,
                    key: key.key.to_vec(),
                    expire_at_ms: key.attributes.expire_at_ms,
                    value,
                });
            }
            _ => {}
        }
    }
    let flavor = reader.header().flavor;
    Ok(Contents {
        flavor,
        keys,
        bytes,
    })
}

impl Contents {
    pub fn digest(&self, form: ScoreForm) -> String {
        let mut dataset = DatasetDigest::default();
        for key in &self.keys {
            let expires = key.expire_at_ms.is_some();
            dataset.add(key.db, key_digest(&key.key, &key.value, expires, form));
        }
        dataset.finish().to_string()
    }

    /// Leaves out what a server would have expired at this time.
    pub fn expire(&mut self, now_ms: i64) {
        self.keys
            .retain(|key| key.expire_at_ms.is_none_or(|at_ms| at_ms > now_ms));
    }

    /// As in the manifest: `db:keys` by database, or `none`.
    pub fn db_sizes(&self) -> String {
        let mut sizes = BTreeMap::new();
        for key in &self.keys {
            *sizes.entry(key.db).or_insert(0) += 1;
        }
        let sizes: Vec<_> = sizes.iter().map(|(db, n)| format!("{db}:{n}")).collect();
        match sizes.is_empty() {
            true => "none".to_owned(),
            false => sizes.join(" "),
        }
    }
}

/// A small generator: the same sequence for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// The dumps that the repository holds.
pub fn golden_dumps() -> Vec<PathBuf> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

/// The RDB files of the corpus, sound and damaged.
pub fn rdb_files(corpus: &Path) -> Vec<PathBuf> {
    ["collected", "crafted", "damaged", "generated"]
        .iter()
        .flat_map(|folder| files(&corpus.join(folder)))
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
        .collect();
    paths.sort();
    paths
}
