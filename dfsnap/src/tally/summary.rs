//! What a dump comes to: the numbers that `inspect` prints and `report` draws. `docs/cli.md` documents its JSON.

use super::prefixes::Prefix;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub file: String,
    /// `RDB`, `DFS set`, `AOF`, `JSON`.
    pub format: &'static str,
    /// `REDIS` or `VALKEY`; none of formats without.
    pub magic: Option<&'static str>,
    pub version: Option<u16>,
    /// Name and version of the server that wrote it, as far as it says so.
    pub writer: Option<String>,
    /// Files that tell a version: 1, or those of a set.
    pub files: u64,
    /// Bytes of the dump itself, where the format tells its end.
    pub bytes: u64,
    /// Bytes behind it, as of an append-only file.
    pub bytes_after: u64,
    /// `good`, `none` (a zero is stored) or `absent` (before version 5); none of formats without.
    pub checksum: Option<&'static str>,
    pub aux: BTreeMap<String, Aux>,
    pub keys: u64,
    /// Values were weighed of one key in so many.
    pub sample: u64,
    pub memory: Memory,
    pub databases: Vec<Database>,
    pub types: Vec<Type>,
    pub expiry: Expiry,
    pub sizes: Vec<SizeClass>,
    /// Keys with a stored access time or counter.
    pub idle: u64,
    pub freq: u64,
    pub functions: u64,
    pub module_aux: BTreeMap<String, u64>,
    pub prefixes: Vec<Prefix>,
    pub biggest: Vec<Big>,
    pub warnings: Vec<Warning>,
}

#[derive(Debug, Default, Serialize)]
pub struct Aux {
    /// The last one.
    pub value: String,
    pub times: u64,
}

/// What a server needs for it, estimated.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    /// All keys, each as MEMORY USAGE tells it.
    pub keys: u64,
    /// The tables of the databases, which no key's usage counts.
    pub tables: u64,
    pub total: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Database {
    pub db: u32,
    pub keys: u64,
    pub expires: u64,
    /// Key and value, as stored.
    pub bytes: u64,
    pub memory: u64,
}

/// Keys of one type in one encoding.
#[derive(Debug, Default, Serialize)]
pub struct Type {
    #[serde(rename = "type")]
    pub kind: String,
    pub encoding: String,
    pub code: u8,
    pub keys: u64,
    pub expires: u64,
    /// As stored: value and key.
    pub bytes: u64,
    pub memory: u64,
}

/// Keys that take from `from` to below `to` bytes of memory.
#[derive(Debug, Default, Clone, Serialize)]
pub struct SizeClass {
    pub from: u64,
    pub to: u64,
    pub keys: u64,
    pub memory: u64,
}

#[derive(Debug, Clone, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Big {
    pub memory: u64,
    /// Key and value, as stored.
    pub bytes: u64,
    pub db: u32,
    pub key: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub encoding: String,
    /// Of a string its bytes. None: only the packs of a large value know.
    pub elements: Option<u64>,
    pub expire_at_ms: Option<i64>,
}

/// Something that whoever loads the dump should know.
#[derive(Debug, Serialize)]
pub struct Warning {
    /// `expired`, `huge`, `dominant`, `version`, `checksum`, `behind`.
    pub kind: &'static str,
    pub message: String,
}

/// How long keys live from the time asked for.
#[derive(Debug, Default, Serialize)]
pub struct Expiry {
    pub at_ms: i64,
    pub never: u64,
    pub expired: u64,
    pub within_hour: u64,
    pub within_day: u64,
    pub within_week: u64,
    pub within_30_days: u64,
    pub within_year: u64,
    pub later: u64,
}

impl Expiry {
    pub fn take(&mut self, expire_at_ms: Option<i64>) {
        const HOUR: i64 = 3_600_000;
        const DAY: i64 = 24 * HOUR;
        let Some(at_ms) = expire_at_ms else {
            self.never += 1;
            return;
        };
        let left = at_ms.saturating_sub(self.at_ms);
        let bucket = match () {
            _ if left <= 0 => &mut self.expired,
            _ if left <= HOUR => &mut self.within_hour,
            _ if left <= DAY => &mut self.within_day,
            _ if left <= 7 * DAY => &mut self.within_week,
            _ if left <= 30 * DAY => &mut self.within_30_days,
            _ if left <= 365 * DAY => &mut self.within_year,
            _ => &mut self.later,
        };
        *bucket += 1;
    }

    /// Buckets that hold keys, the soonest first.
    pub fn buckets(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("never", self.never),
            ("expired", self.expired),
            ("within an hour", self.within_hour),
            ("within a day", self.within_day),
            ("within a week", self.within_week),
            ("within 30 days", self.within_30_days),
            ("within a year", self.within_year),
            ("later", self.later),
        ]
        .into_iter()
        .filter(|(_, keys)| *keys > 0)
    }
}
