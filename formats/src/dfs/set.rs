//! From files that are there to a set that is complete, or to everything that is wrong with it.
//!
//! `verify`, `restore` and the server's loader examine each file of a folder that belongs to a set, gather them in a
//! `Found`, and load only what its `check` makes of them. Dragonfly itself checks none of this: a shard that is
//! missing, or from another snapshot, is data lost without a word.
//!
//! Invariants
//! - A `Complete` comes out of `Found::check` alone, and only if every shard is there once, whole, of one snapshot and
//!   one version, and as the manifest says if there is one.
//! - A check does not stop at the first finding.

use super::aux;
use super::manifest::{Manifest, Summer, SummingReader, Sums};
use super::names::{Member, Name};
use super::reader::{DfsReader, Options, Padding};
use crate::error::Shown;
use crate::rdb::decode::DecodeLimits;
use crate::rdb::record::{RdbError, Record};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// What a file says about itself and its set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub snapshot_id: Option<Vec<u8>>,
    /// The Dragonfly that wrote it.
    pub writer_version: Option<Vec<u8>>,
    pub shard_id: Option<Vec<u8>>,
    /// In the summary.
    pub shard_count: Option<Vec<u8>>,
}

impl Facts {
    /// Takes what a record of the file tells. Of a field that is there twice, the first counts.
    pub fn note(&mut self, record: &Record<'_>) {
        let Record::Aux { name, value } = record else {
            return;
        };
        let fact = match &name[..] {
            aux::SNAPSHOT_ID => &mut self.snapshot_id,
            aux::WRITER_VERSION => &mut self.writer_version,
            aux::SHARD_ID => &mut self.shard_id,
            aux::SHARD_COUNT => &mut self.shard_count,
            _ => return,
        };
        fact.get_or_insert_with(|| value.to_vec());
    }
}

/// How much of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every record is found, whatever its value says.
    Records,
    /// Every value is decoded.
    Values,
}

/// A file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Without folders.
    pub name: String,
    pub facts: Facts,
    /// Keys before the end or the damage.
    pub keys: u64,
    pub sums: Sums,
    /// Bytes of a block in `sums`.
    pub block_bytes: u64,
    pub padding: Padding,
    /// Why it cannot be read on.
    pub damage: Option<String>,
}

impl FoundFile {
    /// Reads a shard file or a summary to the last byte. Damage is part of the answer; an error is one of the source.
    pub fn examine(
        name: &str,
        source: impl Read,
        block_bytes: u64,
        depth: Depth,
    ) -> io::Result<Self> {
        let mut summing = SummingReader {
            source,
            summer: Summer::new(block_bytes),
        };
        let mut facts = Facts::default();
        let mut keys = 0;
        let mut reader = DfsReader::new(&mut summing, Options::default());
        let damage = loop {
            let record = match reader.next() {
                Ok(Some(placed)) => placed.record,
                Ok(None) => break None,
                Err(super::DfsError::File(RdbError::Io { source, .. })) => return Err(source),
                Err(error) => break Some(error.to_string()),
            };
            facts.note(&record);
            if let Record::Key(key) = record {
                keys += 1;
                if depth == Depth::Values
                    && let Err(error) = key.decode(&DecodeLimits::default())
                {
                    break Some(error.to_string());
                }
            }
        };
        let padding = match reader.padding() {
            Ok(padding) => padding,
            Err(super::DfsError::File(RdbError::Io { source, .. })) => return Err(source),
            Err(_) => Padding::default(),
        };
        Ok(FoundFile {
            name: name.to_owned(),
            facts,
            keys,
            sums: summing.summer.finish(),
            block_bytes: block_bytes.max(1),
            padding,
            damage,
        })
    }
}

/// The files of a set that are there. Whether it is whole is not known.
///
/// ```
/// use dfsnap_formats::dfs::manifest::BLOCK_BYTES;
/// use dfsnap_formats::dfs::set::{Depth, Found, FoundFile};
/// let summary = b"REDIS0009\xfa\x0bshard-count\xc0\x02\xff\0\0\0\0\0\0\0\0";
/// let mut found = Found::new("dump");
/// found.add(FoundFile::examine("dump-summary.dfs", &summary[..], BLOCK_BYTES, Depth::Records).unwrap());
/// let findings = found.check().unwrap_err();
/// assert_eq!(findings[0].to_string(), "dump-0000.dfs: not there, but dump-summary.dfs says 2 shards");
/// ```
#[derive(Debug, Clone)]
pub struct Found {
    base: String,
    files: BTreeMap<Member, FoundFile>,
    strangers: Vec<String>,
    leftovers: Vec<String>,
    manifest: Option<Manifest>,
}

impl Found {
    pub fn new(base: &str) -> Self {
        Found {
            base: base.to_owned(),
            files: BTreeMap::new(),
            strangers: Vec::new(),
            leftovers: Vec::new(),
            manifest: None,
        }
    }

    /// Adds a file. One whose name is not of this set becomes a finding.
    pub fn add(&mut self, file: FoundFile) {
        match Name::parse(&file.name) {
            Some(name) if name.base == self.base && name.is_temporary => {
                self.leftovers.push(file.name);
            }
            Some(name) if name.base == self.base && name.member != Member::Manifest => {
                self.files.insert(name.member, file);
            }
            _ => self.strangers.push(file.name),
        }
    }

    /// Adds a file that was never finished: its name ends in `.tmp`.
    pub fn add_leftover(&mut self, name: &str) {
        self.leftovers.push(name.to_owned());
    }

    pub fn set_manifest(&mut self, manifest: Manifest) {
        self.manifest = Some(manifest);
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Shards in order, then the summary, as far as they are there.
    pub fn files(&self) -> impl Iterator<Item = &FoundFile> {
        self.files.values()
    }

    /// The set, if nothing is wrong with it; otherwise everything that is. Leftovers alone do not make a set wrong:
    /// see `Complete::leftovers`.
    pub fn check(self) -> Result<Complete, Vec<Finding>> {
        let mut check = Check {
            found: &self,
            findings: Vec::new(),
        };
        let count = check.run();
        let mut findings = check.findings;
        match count {
            Some(shards) if findings.is_empty() => Ok(Complete {
                shards,
                found: self,
            }),
            _ => {
                let leftovers = self.leftovers.into_iter();
                findings.extend(leftovers.map(|file| Finding::Leftover { file }));
                Err(findings)
            }
        }
    }
}

/// A set of which every file is there, whole and of one snapshot.
#[derive(Debug, Clone)]
pub struct Complete {
    found: Found,
    shards: u16,
}

impl Complete {
    pub fn base(&self) -> &str {
        &self.found.base
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Shards in order, then the summary.
    pub fn files(&self) -> impl Iterator<Item = &FoundFile> {
        self.found.files.values()
    }

    pub fn keys(&self) -> u64 {
        self.files().map(|file| file.keys).sum()
    }

    /// None: the set has no manifest, and altered bytes that still read as records would not be noticed.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.found.manifest.as_ref()
    }

    /// Names of files of another, unfinished snapshot under the same name.
    pub fn leftovers(&self) -> &[String] {
        &self.found.leftovers
    }
}

/// What is wrong with a set. Each names the file, what it says, and what says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("{file}: not there, and only it says how many shards the set has")]
    NoSummary { file: String },
    #[error("{file}: not there, but {by} says {count} shards")]
    NoShard {
        file: String,
        by: String,
        count: u64,
    },
    #[error("{file}: is there, but {by} says {count} shards")]
    ExtraShard {
        file: String,
        by: String,
        count: u64,
    },
    #[error("{file}: does not say how many shards the set has, nor does a manifest")]
    NoCount { file: String },
    #[error("{file}: {what} {}, but {by} has {}", shown(found), shown(wanted))]
    Differs {
        file: String,
        what: &'static str,
        found: Option<Vec<u8>>,
        by: String,
        wanted: Option<Vec<u8>>,
    },
    #[error(
        "{file}: shard id {} inside, but {by} in its name: it was renamed or swapped",
        Shown(found)
    )]
    ShardId {
        file: String,
        found: Vec<u8>,
        by: u16,
    },
    #[error("{file}: damaged: {why}")]
    Damaged { file: String, why: String },
    #[error("{file}: is not of this set")]
    Stranger { file: String },
    #[error("{file}: left over from a snapshot that was not finished")]
    Leftover { file: String },
    #[error("{file}: not there, but the manifest names it")]
    Missing { file: String },
    #[error("{file}: is there, but the manifest does not name it")]
    NotInManifest { file: String },
    #[error("{file}: {found} {what}, but the manifest has {wanted}")]
    Number {
        file: String,
        what: &'static str,
        found: u64,
        wanted: u64,
    },
    #[error(
        "{file}: checksum {found:016x} over bytes {from} to {to}, but the manifest has {wanted:016x}"
    )]
    Checksum {
        file: String,
        from: u64,
        /// The byte behind the last.
        to: u64,
        found: u64,
        wanted: u64,
    },
}

fn shown(text: &Option<Vec<u8>>) -> String {
    match text {
        Some(text) => Shown(text).to_string(),
        None => "none".to_owned(),
    }
}

struct Check<'f> {
    found: &'f Found,
    findings: Vec<Finding>,
}

const MANIFEST: &str = "the manifest";

impl Check<'_> {
    /// The number of shards, if that is known.
    fn run(&mut self) -> Option<u16> {
        let count = self.count();
        if let Some((count, by)) = &count {
            self.shards(*count, by);
        }
        self.facts();
        for file in self.found.files.values() {
            if let Some(why) = &file.damage {
                let (file, why) = (file.name.clone(), why.clone());
                self.findings.push(Finding::Damaged { file, why });
            }
        }
        for file in &self.found.strangers {
            let file = file.clone();
            self.findings.push(Finding::Stranger { file });
        }
        if let Some(manifest) = &self.found.manifest {
            self.manifest(manifest);
        }
        u16::try_from(count?.0).ok()
    }

    fn name(&self, member: Member) -> String {
        Name::of(&self.found.base, member)
    }

    /// How many shards there must be, and who says so.
    fn count(&mut self) -> Option<(u64, String)> {
        let file = self.name(Member::Summary);
        let listed = self.found.manifest.as_ref().map(|manifest| {
            let names = manifest.files.iter().map(|file| Name::parse(&file.name));
            names
                .filter(
                    |name| matches!(name, Some(name) if matches!(name.member, Member::Shard(_))),
                )
                .count() as u64
        });
        let Some(summary) = self.found.files.get(&Member::Summary) else {
            self.findings.push(Finding::NoSummary { file });
            return Some((listed?, MANIFEST.to_owned()));
        };
        let said = summary.facts.shard_count.as_deref();
        let number = said.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        match (number.filter(|count| *count > 0), listed) {
            (Some(count), Some(listed)) if count != listed => {
                self.findings.push(Finding::Number {
                    file: file.clone(),
                    what: "shards",
                    found: count,
                    wanted: listed,
                });
                Some((count, file))
            }
            (Some(count), _) => Some((count, file)),
            // Before 1.32 summaries do not say it.
            (None, Some(listed)) if said.is_none() => Some((listed, MANIFEST.to_owned())),
            (None, _) => {
                self.findings.push(Finding::NoCount { file });
                None
            }
        }
    }

    fn shards(&mut self, count: u64, by: &str) {
        /// A number that lies must not become a list as long.
        const NAMED_MAX: usize = 10_000;
        let there = |id: u64| {
            let member = u16::try_from(id).map(Member::Shard);
            member.is_ok_and(|member| self.found.files.contains_key(&member))
        };
        let missing: Vec<u64> = (0..count)
            .take(NAMED_MAX + 1)
            .filter(|id| !there(*id))
            .collect();
        for id in missing {
            let file = format!("{}-{id:04}.dfs", self.found.base);
            let by = by.to_owned();
            self.findings.push(Finding::NoShard { file, by, count });
        }
        for (member, file) in &self.found.files {
            if let Member::Shard(id) = member
                && u64::from(*id) >= count
            {
                let (file, by) = (file.name.clone(), by.to_owned());
                self.findings.push(Finding::ExtraShard { file, by, count });
            }
        }
    }

    /// What files say of the set must be the same everywhere.
    fn facts(&mut self) {
        let found = self.found;
        let summary = found.files.get(&Member::Summary);
        let Some(first) = summary.or_else(|| found.files.values().next()) else {
            return;
        };
        for (member, file) in &found.files {
            let facts = [
                (
                    "snapshot id",
                    &file.facts.snapshot_id,
                    &first.facts.snapshot_id,
                ),
                (
                    "version",
                    &file.facts.writer_version,
                    &first.facts.writer_version,
                ),
            ];
            for (what, found, wanted) in facts {
                if found != wanted {
                    self.findings.push(Finding::Differs {
                        file: file.name.clone(),
                        what,
                        found: found.clone(),
                        by: first.name.clone(),
                        wanted: wanted.clone(),
                    });
                }
            }
            if let (Member::Shard(id), Some(found)) = (member, &file.facts.shard_id)
                && *found != id.to_string().into_bytes()
            {
                self.findings.push(Finding::ShardId {
                    file: file.name.clone(),
                    found: found.clone(),
                    by: *id,
                });
            }
        }
    }

    fn manifest(&mut self, manifest: &Manifest) {
        let by_name = |name: &str| self.found.files.values().find(|file| file.name == name);
        for wanted in &manifest.files {
            let Some(file) = by_name(&wanted.name) else {
                let file = wanted.name.clone();
                self.findings.push(Finding::Missing { file });
                continue;
            };
            let numbers = [
                ("bytes", file.sums.bytes, wanted.sums.bytes),
                ("keys", file.keys, wanted.keys),
            ];
            for (what, found, wanted) in numbers {
                if found != wanted {
                    let file = file.name.clone();
                    self.findings.push(Finding::Number {
                        file,
                        what,
                        found,
                        wanted,
                    });
                }
            }
            self.findings
                .extend(altered(file, &wanted.sums, manifest.block_bytes));
        }
        let id = manifest.snapshot_id.to_string().into_bytes();
        for file in self.found.files.values() {
            if !manifest.files.iter().any(|wanted| wanted.name == file.name) {
                let file = file.name.clone();
                self.findings.push(Finding::NotInManifest { file });
            }
            if file.facts.snapshot_id.as_ref() != Some(&id) {
                self.findings.push(Finding::Differs {
                    file: file.name.clone(),
                    what: "snapshot id",
                    found: file.facts.snapshot_id.clone(),
                    by: MANIFEST.to_owned(),
                    wanted: Some(id.clone()),
                });
            }
        }
    }
}

/// The blocks that are not as the manifest says; the whole file if blocks cannot tell.
fn altered(file: &FoundFile, wanted: &Sums, block_bytes: u64) -> Vec<Finding> {
    if file.sums.crc == wanted.crc && file.sums.bytes == wanted.bytes {
        return Vec::new();
    }
    let finding = |from, to, found, wanted| Finding::Checksum {
        file: file.name.clone(),
        from,
        to,
        found,
        wanted,
    };
    let mut findings = Vec::new();
    if file.block_bytes == block_bytes {
        let blocks = file.sums.blocks.iter().zip(&wanted.blocks).enumerate();
        for (at, (found, wanted)) in blocks.filter(|(_, (found, wanted))| found != wanted) {
            let from = at as u64 * block_bytes;
            let to = (from + block_bytes).min(file.sums.bytes);
            findings.push(finding(from, to, *found, *wanted));
        }
    }
    if findings.is_empty() {
        findings.push(finding(0, file.sums.bytes, file.sums.crc, wanted.crc));
    }
    findings
}
