//! Where the verbs put their data: a dump in any format, whole or not at all.
//!
//! A key is copied as it is stored where the target stores it in the same way, and otherwise goes through its data.
//!
//! Invariants
//! - Nothing appears before `finish`, which puts the file that says that all are there in place last.
//! - What the target cannot hold is counted by kind, and refused unless losses were allowed; then no file appears.

mod losses;
mod set;
mod single;

pub use losses::Losses;

use crate::out::refuse_dash;
use crate::report::Failure;
use crate::source::{Key, Record};
use clap::ValueEnum;
use dfsnap_formats::dataset::Item;
use dfsnap_formats::rdb::target::Target;
use set::SetSink;
use single::SingleSink;
use std::path::{Path, PathBuf};

/// What a dump can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Rdb,
    Dfs,
    Aof,
    Json,
    Ndjson,
    Csv,
    Resp,
}

/// How strings and runs of entries are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    /// Each string by itself: RDB and AOF
    Lzf,
    /// Runs of entries: DFS
    Lz4,
    /// Runs of entries: DFS
    Zstd,
}

/// How a dump is written.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    pub output: Output,
    pub target: Target,
    /// None: what the format's own servers do.
    pub compression: Option<Compression>,
    pub allow_loss: bool,
    /// Files of a set.
    pub shards: u16,
    /// RESTORE instead of the commands of each type.
    pub use_restore: bool,
    /// Look into values that are copied.
    pub check: bool,
    /// JSON: say how each value is stored, so that it is stored that way again.
    pub encodings: bool,
}

impl SinkOptions {
    /// Whether most collections are taken as they come, in parts or in stored bytes.
    pub fn takes_pieces(&self) -> bool {
        match self.output {
            Output::Rdb | Output::Aof => !self.check,
            Output::Json | Output::Ndjson => !self.encodings,
            Output::Dfs | Output::Csv | Output::Resp => false,
        }
    }
}

impl Output {
    /// By the ending of a name; None: it says nothing.
    pub fn of_name(path: &Path) -> Option<Output> {
        match path.extension()?.to_str()? {
            "rdb" => Some(Output::Rdb),
            "dfs" => Some(Output::Dfs),
            "aof" | "manifest" => Some(Output::Aof),
            "json" => Some(Output::Json),
            "ndjson" | "jsonl" => Some(Output::Ndjson),
            "csv" => Some(Output::Csv),
            "resp" => Some(Output::Resp),
            _ => None,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Written {
    pub keys: u64,
    pub functions: u64,
    pub bytes: u64,
    pub files: Vec<PathBuf>,
}

/// A dump being written.
pub struct Sink {
    form: Form,
    losses: Losses,
    keys: u64,
    functions: u64,
}

enum Form {
    Single(Box<SingleSink>),
    Set(Box<SetSink>),
}

impl Sink {
    /// Begins a dump at `place`; `-` is standard output, for what is one stream.
    pub fn create(place: &Path, options: &SinkOptions) -> Result<Sink, Failure> {
        if let Output::Dfs | Output::Aof = options.output {
            refuse_dash(place)?;
        }
        let form = match options.output {
            Output::Dfs => Form::Set(Box::new(SetSink::create(place, options)?)),
            _ => Form::Single(Box::new(SingleSink::create(place, options)?)),
        };
        Ok(Sink {
            form,
            losses: Losses::new(options.allow_loss),
            keys: 0,
            functions: 0,
        })
    }

    /// Takes a record of a source.
    pub fn record(&mut self, record: Record<'_>) -> Result<(), Failure> {
        match record {
            Record::Aux { name, value } => self.aux(name, value),
            Record::Function(code) => self.item(&Item::Function {
                code: code.to_vec(),
            }),
            Record::ModuleAux { module, when, raw } => self.item(&Item::ModuleAux {
                module,
                when,
                raw: raw.to_vec(),
            }),
            Record::Key(key) => self.key(key),
            Record::Header(_) | Record::End(_) | Record::Behind(_) => Ok(()),
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failure> {
        match &mut self.form {
            Form::Single(single) => single.aux(name, value),
            Form::Set(set) => {
                set.aux(name, value);
                Ok(())
            }
        }
    }

    fn key(&mut self, key: Key<'_>) -> Result<(), Failure> {
        self.keys += 1;
        match &mut self.form {
            Form::Single(single) => single.key(key, &mut self.losses),
            Form::Set(set) => set.key(key, &mut self.losses),
        }
    }

    fn item(&mut self, item: &Item) -> Result<(), Failure> {
        self.functions += u64::from(matches!(item, Item::Function { .. }));
        match &mut self.form {
            Form::Single(single) => single.item(item, &mut self.losses),
            Form::Set(set) => {
                set.item(item, &mut self.losses);
                Ok(())
            }
        }
    }

    /// Hands on what is held in memory.
    pub fn relieve(&mut self) -> Result<(), Failure> {
        match &mut self.form {
            Form::Single(single) => single.drain(),
            Form::Set(set) => set.drain(),
        }
    }

    /// An error if something would be lost that may not be; `finish` would fail with it.
    pub fn check(&self) -> Result<(), Failure> {
        self.losses.check()
    }

    /// Makes the dump appear, unless something would be lost that may not be.
    pub fn finish(self) -> Result<(Written, Losses), Failure> {
        self.losses.check()?;
        let (bytes, files) = match self.form {
            Form::Single(single) => single.finish()?,
            Form::Set(set) => set.finish()?,
        };
        let written = Written {
            keys: self.keys - self.losses.keys(),
            functions: self.functions,
            bytes,
            files,
        };
        Ok((written, self.losses))
    }
}
