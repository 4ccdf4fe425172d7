//! Is a dump sound? Every check of every format, and what came of it.
//!
//! `cmd::verify` asks and prints. `rdb`, `dfs`, `aof` and `text` read one format each and hand their keys to `keys`,
//! which looks at the values and remembers which keys were there. All of them write into one `Report`.
//!
//! Invariants
//! - A finding names its file, and its offset wherever there is one.
//! - Checking goes on behind a finding as far as the format allows.
//! - Memory: about 12 bytes a key, 8 bytes for each member of the largest collection, and the largest element.

pub mod aof;
pub mod dfs;
pub mod keys;
pub mod rdb;
pub mod text;

use crate::report::{self, Failure};
use dfsnap_formats::rdb::record::RdbError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What sort of thing is wrong. Programs tell findings apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Records do not follow each other as the format wants it.
    Structure,
    /// The file ends too early.
    Cut,
    Checksum,
    /// The value of one key.
    Value,
    /// A key that was there before.
    DuplicateKey,
    Manifest,
    MissingFile,
    /// A file that does not belong to the set.
    ForeignFile,
    /// A file in the place of another one.
    SwappedFile,
    /// A file that was being written and never finished.
    Leftover,
    TrailingBytes,
    /// A command that cannot be applied.
    Command,
    /// What the dump says about itself and servers do not care about; no damage.
    Hint,
}

/// One thing that is wrong, or odd.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub file: String,
    /// In the file; of what is inside a compressed blob: of the blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<u32>,
    /// With escapes for what cannot be printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub message: String,
}

impl Finding {
    pub fn new(file: &str, kind: Kind, offset: Option<u64>, message: String) -> Self {
        Finding {
            file: file.to_owned(),
            offset,
            kind,
            db: None,
            key: None,
            message,
        }
    }

    pub fn of_key(mut self, db: u32, key: &[u8]) -> Self {
        self.db = Some(db);
        self.key = Some(report::key(key));
        self
    }

    /// What a reader of RDB records came to, in a file or in a blob that stands at `blob`.
    pub fn of_rdb(file: &str, blob: Option<u64>, error: &RdbError) -> Self {
        let (kind, offset) = kind_of(error);
        let message = match blob {
            None => error.to_string(),
            Some(blob) => format!("offset {blob}: inside the blob, expanded: {error}"),
        };
        let finding = Finding::new(file, kind, blob.or(offset), message);
        match error {
            RdbError::Value { db, key, .. } => finding.of_key(*db, key),
            _ => finding,
        }
    }
}

fn kind_of(error: &RdbError) -> (Kind, Option<u64>) {
    use dfsnap_formats::error::Problem;
    match error {
        RdbError::Io { offset, .. }
        | RdbError::Version { offset, .. }
        | RdbError::UnknownCode { offset, .. }
        | RdbError::ModulePreGa { offset, .. }
        | RdbError::Failed { offset } => (Kind::Structure, Some(*offset)),
        RdbError::Magic { .. } => (Kind::Structure, Some(0)),
        RdbError::Checksum { offset, .. } => (Kind::Checksum, Some(*offset)),
        RdbError::Record(damage) => match damage.problem {
            Problem::Truncated { .. } => (Kind::Cut, Some(damage.offset)),
            _ => (Kind::Structure, Some(damage.offset)),
        },
        RdbError::Value { damage, .. } => match (damage.reading, &damage.problem) {
            ("structure", Problem::Truncated { .. }) => (Kind::Cut, Some(damage.offset)),
            _ => (Kind::Value, Some(damage.offset)),
        },
    }
}

/// What was looked at and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub path: String,
    /// `rdb`, `dfs`, `aof` or `json`.
    pub format: &'static str,
    /// Nothing was found.
    pub sound: bool,
    /// Every file was read to its end.
    pub complete: bool,
    pub files: u64,
    pub bytes: u64,
    pub keys: u64,
    /// Of append-only files.
    pub commands: u64,
    pub empty_collections: u64,
    /// By now.
    pub expired: u64,
    pub finding_count: u64,
    pub warning_count: u64,
    /// The first of each kind.
    pub findings: Vec<Finding>,
    pub warnings: Vec<Finding>,
    /// Most findings of a kind, and most warnings, that are kept.
    #[serde(skip)]
    limit: usize,
    /// Findings of each kind so far.
    #[serde(skip)]
    shown: BTreeMap<Kind, usize>,
}

impl Report {
    pub fn new(path: &Path, limit: usize) -> Self {
        Report {
            path: path.display().to_string(),
            complete: true,
            limit,
            ..Report::default()
        }
    }

    pub fn finding(&mut self, finding: Finding) {
        self.finding_count += 1;
        let shown = self.shown.entry(finding.kind).or_default();
        *shown += 1;
        if *shown <= self.limit {
            self.findings.push(finding);
        }
    }

    pub fn warning(&mut self, warning: Finding) {
        self.warning_count += 1;
        if self.warnings.len() < self.limit {
            self.warnings.push(warning);
        }
    }
}

/// A file that is there and cannot be read: the check could not run.
pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure {
        message: format!("{}: {error}", path.display()),
        advice: "check the path and its permissions, or read it from another copy".to_owned(),
    }
}

/// Counts the bytes that are read.
pub struct Counted<R> {
    pub source: R,
    pub bytes: u64,
}

impl<R: io::Read> Counted<R> {
    pub fn new(source: R) -> Self {
        Counted { source, bytes: 0 }
    }
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(out)?;
        self.bytes += count as u64;
        Ok(count)
    }
}
