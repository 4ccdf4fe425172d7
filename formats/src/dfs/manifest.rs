//! Our manifest: what must be in a set, written beside it when everything else is there.
//!
//! Dragonfly's own files carry no checksum at all. The manifest says of each file how long it is, how many keys it
//! has, its CRC-64/XZ, and the CRC-64/XZ of each of its blocks, so that damage can be placed.
//!
//! ```json
//! { "format": "dfsnap-set", "version": 1, "snapshot_id": "0e62…", "block_bytes": 1048576,
//!   "replication": { "id": "8371…", "offset": 4711, "db": 0 },
//!   "files": [ { "name": "dump-0000.dfs", "bytes": 184, "keys": 3, "crc": "99…", "blocks": ["99…"],
//!                "runs": [ { "from": 120, "bytes": 55, "keys": "AEgA…" } ] } ],
//!   "totals": { "files": 2, "bytes": 361, "keys": 3 } }
//! ```
//! Invariants
//! - Reading is total; memory is a small multiple of the text. Unknown fields are passed over, unknown versions refused.
//! - What was read is sound in itself: names belong to one set and differ, blocks fit sizes, runs follow each other inside their
//!   file, totals are sums.

use super::index::{Run, Sieve};
use super::names::{Member, Name, SnapshotId};
use crate::checksum::XzCrc;
use crate::json::base64;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// Bytes of a block unless told otherwise. The last block of a file may be shorter.
pub const BLOCK_BYTES: u64 = 1 << 20;
/// Longer texts are refused: this is enough for three million blocks.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

const FORMAT: &str = "dfsnap-set";
const VERSION: u64 = 1;

/// What a set consists of.
///
/// ```
/// use dfsnap_formats::dfs::manifest::{BLOCK_BYTES, FileEntry, Manifest, Sums};
/// use dfsnap_formats::dfs::names::SnapshotId;
/// let summary = b"REDIS0009\xff\0\0\0\0\0\0\0\0";
/// let manifest = Manifest {
///     snapshot_id: SnapshotId([7; 16]),
///     replication: None,
///     block_bytes: BLOCK_BYTES,
///     hash_seed: None,
///     files: vec![FileEntry {
///         name: "dump-summary.dfs".to_owned(),
///         keys: 0,
///         sums: Sums::of(summary, BLOCK_BYTES),
///         runs: Vec::new(),
///     }],
/// };
/// let text = manifest.to_json();
/// assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub snapshot_id: SnapshotId,
    /// Where the snapshot lies in a replication stream.
    pub replication: Option<Replication>,
    /// Bytes of a block, at least one.
    pub block_bytes: u64,
    /// What the writer's hash table was seeded with, whose order the keys are in: a server that takes it over at its start has
    /// every key come to the place beside the last. Of no meaning to others.
    pub hash_seed: Option<u64>,
    /// Shards in order, then the summary.
    pub files: Vec<FileEntry>,
}

/// A place in a replication stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    pub id: String,
    /// Bytes of the stream that the snapshot includes.
    pub offset: u64,
    /// The database selected there. None: not known, or none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<u32>,
}

/// What must be in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    pub name: String,
    pub keys: u64,
    pub sums: Sums,
    /// What stands between its header and its end, with which keys are where. Empty: not noted.
    pub runs: Vec<Run>,
}

/// Length and checksums of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    pub bytes: u64,
    /// CRC-64/XZ of all of them.
    pub crc: u64,
    /// CRC-64/XZ of each block.
    pub blocks: Vec<u64>,
}

impl Sums {
    pub fn of(bytes: &[u8], block_bytes: u64) -> Self {
        let mut summer = Summer::new(block_bytes);
        summer.update(bytes);
        summer.finish()
    }
}

/// Sums up the bytes of a file as they pass.
#[derive(Debug, Clone)]
pub struct Summer {
    block_bytes: u64,
    whole: XzCrc,
    block: XzCrc,
    /// Of the present block: 0 <= in_block < block_bytes.
    in_block: u64,
    bytes: u64,
    blocks: Vec<u64>,
}

impl Summer {
    /// A block has at least one byte.
    pub fn new(block_bytes: u64) -> Self {
        Summer {
            block_bytes: block_bytes.max(1),
            whole: XzCrc::new(),
            block: XzCrc::new(),
            in_block: 0,
            bytes: 0,
            blocks: Vec::new(),
        }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = usize::try_from(self.block_bytes - self.in_block).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            self.block.update(part);
            self.in_block += part.len() as u64;
            if self.in_block == self.block_bytes {
                self.end_block();
            }
            bytes = rest;
        }
    }

    pub fn finish(mut self) -> Sums {
        if self.in_block > 0 {
            self.end_block();
        }
        Sums {
            bytes: self.bytes,
            crc: self.whole.value(),
            blocks: self.blocks,
        }
    }

    fn end_block(&mut self) {
        self.blocks.push(self.block.value());
        self.block = XzCrc::new();
        self.in_block = 0;
    }
}

/// Sums up what is read through it.
#[derive(Debug)]
pub struct SummingReader<R> {
    pub source: R,
    pub summer: Summer,
}

impl<R: Read> Read for SummingReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(out)?;
        self.summer.update(&out[..count]);
        Ok(count)
    }
}

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest: {bytes} bytes: wanted at most {TEXT_BYTES_MAX}")]
    Large { bytes: usize },
    #[error("manifest: {0}")]
    Json(String),
    #[error("manifest: format {found:?}: wanted {FORMAT:?}")]
    Format { found: String },
    #[error("manifest: version {found}: wanted {VERSION}")]
    Version { found: u64 },
    #[error("manifest: {field}: wanted {wanted}, found {found}")]
    Field {
        field: String,
        wanted: String,
        found: String,
    },
}

impl Manifest {
    pub fn keys(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.keys))
    }

    pub fn bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.sums.bytes))
    }

    /// What all files of the set have in their names; None without files.
    pub fn base(&self) -> Option<&str> {
        Some(Name::parse(&self.files.first()?.name)?.base)
    }

    /// The text to be written, which `parse` reads.
    pub fn to_json(&self) -> String {
        let stored = Stored {
            format: FORMAT.to_owned(),
            version: VERSION,
            snapshot_id: self.snapshot_id.to_string(),
            block_bytes: self.block_bytes,
            replication: self.replication.clone(),
            hash_seed: self.hash_seed.map(|seed| format!("{seed:016x}")),
            files: self.files.iter().map(StoredFile::of).collect(),
            totals: Totals {
                files: self.files.len() as u64,
                bytes: self.bytes(),
                keys: self.keys(),
            },
        };
        let mut text = serde_json::to_string_pretty(&stored).expect("strings and numbers");
        text.push('\n');
        text
    }

    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        if text.len() > TEXT_BYTES_MAX {
            let bytes = text.len();
            return Err(ManifestError::Large { bytes });
        }
        let json = |error: serde_json::Error| ManifestError::Json(error.to_string());
        let kind: Kind = serde_json::from_slice(text).map_err(json)?;
        if kind.format != FORMAT {
            let found = kind.format;
            return Err(ManifestError::Format { found });
        }
        if kind.version != VERSION {
            let found = kind.version;
            return Err(ManifestError::Version { found });
        }
        let stored: Stored = serde_json::from_slice(text).map_err(json)?;
        stored.checked()
    }
}

/// What is read before anything else.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    version: u64,
    snapshot_id: String,
    block_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replication: Option<Replication>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash_seed: Option<String>,
    files: Vec<StoredFile>,
    totals: Totals,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    name: String,
    bytes: u64,
    keys: u64,
    crc: String,
    blocks: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<StoredRun>,
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    from: u64,
    bytes: u64,
    /// The sieve in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

impl StoredRun {
    fn of(run: &Run) -> Self {
        let text = |sieve: &Sieve| {
            let mut text = Vec::new();
            base64::encode(sieve.as_bytes(), &mut text);
            String::from_utf8(text).expect("digits of base64")
        };
        StoredRun {
            from: run.from,
            bytes: run.bytes,
            keys: run.keys.as_ref().map(text),
        }
    }

    /// None: the keys are none.
    fn checked(self) -> Option<Run> {
        let sieve = |text: String| Sieve::of_bytes(base64::decode(text.as_bytes())?);
        let keys = match self.keys {
            Some(text) => Some(sieve(text)?),
            None => None,
        };
        Some(Run {
            from: self.from,
            bytes: self.bytes,
            keys,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Totals {
    files: u64,
    bytes: u64,
    keys: u64,
}

impl Stored {
    fn checked(self) -> Result<Manifest, ManifestError> {
        let snapshot_id = SnapshotId::parse(&self.snapshot_id)
            .ok_or_else(|| field("snapshot_id", "32 hexadecimal digits", &self.snapshot_id))?;
        if self.block_bytes == 0 {
            return Err(field("block_bytes", "at least 1", 0));
        }
        let mut files: Vec<FileEntry> = Vec::with_capacity(self.files.len());
        let (mut bytes, mut keys) = (0u64, 0u64);
        for file in self.files {
            bytes = bytes.saturating_add(file.bytes);
            keys = keys.saturating_add(file.keys);
            files.push(file.checked(self.block_bytes)?);
        }
        let totals = [
            ("totals.files", files.len() as u64, self.totals.files),
            ("totals.bytes", bytes, self.totals.bytes),
            ("totals.keys", keys, self.totals.keys),
        ];
        for (name, wanted, found) in totals {
            if wanted != found {
                return Err(field(name, wanted, found));
            }
        }
        one_set(&files)?;
        let hash_seed = match &self.hash_seed {
            None => None,
            Some(text) => Some(
                hexadecimal(text)
                    .ok_or_else(|| field("hash_seed", "16 hexadecimal digits", text))?,
            ),
        };
        Ok(Manifest {
            snapshot_id,
            replication: self.replication,
            hash_seed,
            block_bytes: self.block_bytes,
            files,
        })
    }
}

/// A number of sixteen hexadecimal digits.
fn hexadecimal(text: &str) -> Option<u64> {
    let is_sound = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_sound)
}

/// Whether the names belong to one set, and none is there twice.
fn one_set(files: &[FileEntry]) -> Result<(), ManifestError> {
    let base = |file: &FileEntry| Name::parse(&file.name).map(|name| name.base.to_owned());
    let first = files.first().and_then(base);
    let mut names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(field(
            "files",
            "names that differ",
            format_args!("{:?} twice", twice[0]),
        ));
    }
    match files.iter().find(|file| base(file) != first) {
        None => Ok(()),
        Some(other) => Err(field(
            &format!("files: {}", other.name),
            format_args!("a name that starts with {:?}", first.unwrap_or_default()),
            "another",
        )),
    }
}

impl StoredFile {
    fn of(file: &FileEntry) -> Self {
        StoredFile {
            name: file.name.clone(),
            bytes: file.sums.bytes,
            keys: file.keys,
            crc: format!("{:016x}", file.sums.crc),
            blocks: file
                .sums
                .blocks
                .iter()
                .map(|crc| format!("{crc:016x}"))
                .collect(),
            runs: file.runs.iter().map(StoredRun::of).collect(),
        }
    }

    fn checked(self, block_bytes: u64) -> Result<FileEntry, ManifestError> {
        let of = |what: &str| format!("files: {}: {what}", self.name);
        let name = Name::parse(&self.name);
        if !name.is_some_and(|name| name.member != Member::Manifest && !name.is_temporary) {
            return Err(field(
                &of("name"),
                "that of a shard or a summary",
                "another",
            ));
        }
        let parsed = |text: &String| {
            hexadecimal(text).ok_or_else(|| field(&of("crc"), "16 hexadecimal digits", text))
        };
        let blocks = self
            .blocks
            .iter()
            .map(parsed)
            .collect::<Result<Vec<_>, _>>()?;
        let wanted = self.bytes.div_ceil(block_bytes);
        if blocks.len() as u64 != wanted {
            return Err(field(&of("blocks"), wanted, blocks.len()));
        }
        let sums = Sums {
            bytes: self.bytes,
            crc: parsed(&self.crc)?,
            blocks,
        };
        let runs: Option<Vec<Run>> = self.runs.into_iter().map(StoredRun::checked).collect();
        let runs =
            runs.ok_or_else(|| field(&format!("files: {}: runs", self.name), "base64", "others"))?;
        let mut end = 0;
        for run in &runs {
            if run.from < end || run.end() > self.bytes {
                let of = format!("files: {}: runs", self.name);
                let wanted = format!("one from {end} to {}", self.bytes);
                let found = format!("from {} to {}", run.from, run.end());
                return Err(field(&of, wanted, found));
            }
            end = run.end();
        }
        Ok(FileEntry {
            keys: self.keys,
            sums,
            runs,
            name: self.name,
        })
    }
}

fn field(
    name: &str,
    wanted: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> ManifestError {
    ManifestError::Field {
        field: name.to_owned(),
        wanted: wanted.to_string(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::xz_crc;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        let file = |name: &str, len: usize, keys| FileEntry {
            name: name.to_owned(),
            keys,
            sums: Sums::of(&vec![7; len], 1000),
            runs: Vec::new(),
        };
        let run = |from, keys| Run {
            from,
            bytes: 1000,
            keys,
        };
        let sieve = Sieve::of(&[1, 2, u64::MAX]);
        Manifest {
            snapshot_id: SnapshotId([0xAB; 16]),
            replication: Some(Replication {
                id: "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb".to_owned(),
                offset: 1 << 60,
                db: Some(3),
            }),
            block_bytes: 1000,
            hash_seed: Some(0x0123_4567_89ab_cdef),
            files: vec![
                FileEntry {
                    runs: vec![run(100, Some(sieve)), run(1200, None)],
                    ..file("dump-0000.dfs", 3500, 9)
                },
                file("dump-0001.dfs", 0, 0),
                file("dump-summary.dfs", 1000, 0),
            ],
        }
    }

    #[test]
    fn blocks_sum_what_is_in_them_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..2500u32).map(|i| (i * i / 8) as u8).collect();
        for step in [1, 7, 1000, 1001, 5000] {
            let mut summer = Summer::new(1000);
            bytes.chunks(step).for_each(|part| summer.update(part));
            let sums = summer.finish();
            assert_eq!((sums.bytes, sums.crc), (2500, xz_crc(&bytes)), "{step}");
            let blocks: Vec<u64> = bytes.chunks(1000).map(xz_crc).collect();
            assert_eq!(sums.blocks, blocks, "{step}");
        }
    }

    #[test]
    fn a_manifest_comes_back_and_unknown_fields_do_not_matter() {
        let manifest = sample();
        let text = manifest.to_json();
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest.clone()));
        let more = text.replacen('{', "{ \"later\": [{\"x\": null}],", 1);
        assert_eq!(Manifest::parse(more.as_bytes()), Ok(manifest.clone()));
        let more = text.replace("\"keys\": 9,", "\"keys\": 9, \"owner\": 1,");
        assert_eq!(Manifest::parse(more.as_bytes()), Ok(manifest));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = sample().to_json();
        let rows = [
            (
                "version",
                "\"version\": 1",
                "\"version\": 2",
                "manifest: version 2: wanted 1",
            ),
            (
                "format",
                "dfsnap-set",
                "other",
                "manifest: format \"other\": wanted \"dfsnap-set\"",
            ),
            (
                "id",
                "abab",
                "xyab",
                "manifest: snapshot_id: wanted 32 hexadecimal digits, found xyab",
            ),
            (
                "run before another",
                "\"from\": 1200",
                "\"from\": 1099",
                "manifest: files: dump-0000.dfs: runs: wanted one from 1100 to 3500, found from 1099 to 2099",
            ),
            (
                "run behind the end",
                "\"from\": 1200",
                "\"from\": 2501",
                "manifest: files: dump-0000.dfs: runs: wanted one from 1100 to 3500, found from 2501 to 3501",
            ),
            (
                "keys of a run",
                "\"keys\": \"",
                "\"keys\": \"!",
                "manifest: files: dump-0000.dfs: runs: wanted base64, found others",
            ),
            (
                "block",
                "\"block_bytes\": 1000",
                "\"block_bytes\": 0",
                "manifest: block_bytes: wanted at least 1, found 0",
            ),
            (
                "blocks",
                "\"bytes\": 3500",
                "\"bytes\": 4500",
                "manifest: files: dump-0000.dfs: blocks: wanted 5, found 4",
            ),
            (
                "keys",
                "\"keys\": 9,",
                "\"keys\": 8,",
                "manifest: totals.keys: wanted 8, found 9",
            ),
            (
                "names",
                "dump-0001",
                "dump-0000",
                "manifest: files: wanted names that differ, found \"dump-0000.dfs\" twice",
            ),
            (
                "sets",
                "dump-0001",
                "dumb-0001",
                "manifest: files: dumb-0001.dfs: wanted a name that starts with \"dump\", found another",
            ),
            (
                "outside",
                "dump-0001",
                "../dump-0001",
                "manifest: files: ../dump-0001.dfs: name: wanted that of a shard or a summary, found another",
            ),
            (
                "negative",
                "\"bytes\": 3500",
                "\"bytes\": -1",
                "manifest: invalid value",
            ),
        ];
        for (name, from, to, want) in rows {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{name}");
            let error = Manifest::parse(changed.as_bytes())
                .expect_err(name)
                .to_string();
            assert!(error.starts_with(want), "{name}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(Manifest::parse(deep.as_bytes()).is_err());
        for cut in 0..text.len() - 1 {
            let trimmed = text[..cut].trim_end();
            assert!(Manifest::parse(trimmed.as_bytes()).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(at in any::<usize>(), bytes in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut text = sample().to_json().into_bytes();
            let at = at % text.len();
            text.splice(at..(at + 1).min(text.len()), bytes);
            if let Ok(manifest) = Manifest::parse(&text) {
                prop_assert_eq!(Manifest::parse(manifest.to_json().as_bytes()), Ok(manifest));
            }
        }
    }
}
