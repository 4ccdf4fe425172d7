//! Writes an AOF: a base of entries, increments of commands, and the files of a directory.
//!
//! Bytes only: the caller makes the files, and puts the manifest in place last, by renaming, so that it never names a
//! file that is not there.
//!
//! ```text
//! base, RDB        REDISnnnn, aux aof-base 1, functions, entries, EOF, checksum
//! base, commands   SELECT where the database changes, and the commands of `commands`
//! increment        [#TS:seconds] [SELECT] command …
//! ```

use super::manifest::{BaseForm, Manifest, ManifestError, manifest_name};
use crate::commands::{Commands, CommandsError, Options};
use crate::dataset::Item;
use crate::rdb::encode::EncodeError;
use crate::rdb::file::RdbWriter;
use crate::rdb::target::{Feature, Target};
use crate::resp::encode_command;

/// How the entries of a base are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As an RDB file. Hints that the target has no place for are left out; data it cannot hold is an error.
    Rdb {
        target: Target,
        place: Place,
    },
    Commands(Options),
}

/// Where an RDB file stands in an AOF, which its aux fields tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file of its own (7.0 and later).
    Base,
    /// In front of the commands, in the only file (4.0 to 6.2).
    Preamble,
}

/// Why an item cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("{0}")]
    Commands(#[from] CommandsError),
    #[error("{0}")]
    Rdb(#[from] EncodeError),
    #[error("the manifest: {0}")]
    Manifest(#[from] ManifestError),
}

/// Writes a base, item by item: functions first, then entries, those of a database together.
///
/// ```
/// use dfsnap_formats::aof::writer::{BaseWriter, Form, Place};
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::rdb::target::Target;
/// use dfsnap_formats::value::Value;
/// let mut out = Vec::new();
/// let form = Form::Rdb { target: Target::by_name("redis-7.0").unwrap(), place: Place::Base };
/// let mut base = BaseWriter::new(form, &mut out);
/// base.item(&Item::Entry(Entry::new(0, b"k", Value::String(b"v".to_vec()))), &mut out).unwrap();
/// base.finish(&mut out);
/// assert!(out.starts_with(b"REDIS0010"));
/// ```
#[derive(Debug)]
pub struct BaseWriter {
    state: State,
}

#[derive(Debug)]
enum State {
    Rdb(Target, Box<RdbWriter>),
    Commands(Commands),
}

const PLACES: [(Place, &[u8]); 2] = [
    (Place::Base, b"aof-base"),
    (Place::Preamble, b"aof-preamble"),
];

impl BaseWriter {
    /// Appends what stands before the items to `out`.
    pub fn new(form: Form, out: &mut Vec<u8>) -> Self {
        let state = match form {
            Form::Commands(options) => State::Commands(Commands::new(options)),
            Form::Rdb { target, place } => {
                let mut writer = RdbWriter::new(target);
                for (_, name) in PLACES.iter().filter(|(known, _)| *known == place) {
                    writer.aux(name, b"1");
                }
                out.append(&mut writer.take());
                State::Rdb(target, Box::new(writer))
            }
        };
        BaseWriter { state }
    }

    /// Appends one item. After an error nothing of it was written, and the next one may follow.
    pub fn item(&mut self, item: &Item, out: &mut Vec<u8>) -> Result<(), WriteError> {
        match &mut self.state {
            State::Commands(commands) => {
                commands.item(item, &mut |words| encode_command(out, words))?;
            }
            State::Rdb(target, writer) => {
                if let Item::Aux { name, .. } = item
                    && (!target.knows(Feature::Aux)
                        || PLACES.iter().any(|(_, known)| known == name))
                {
                    return Ok(());
                }
                writer.item(item)?;
                out.append(&mut writer.take());
            }
        }
        Ok(())
    }

    /// Appends what stands behind the items.
    pub fn finish(self, out: &mut Vec<u8>) {
        if let State::Rdb(_, mut writer) = self.state {
            writer.finish();
            out.append(&mut writer.take());
        }
    }
}

/// Writes commands as they happen: increments, and the tail of a single file.
///
/// ```
/// use dfsnap_formats::aof::writer::Log;
/// let mut out = Vec::new();
/// let mut log = Log::default();
/// log.command(&mut out, 3, Some(1_700_000_000), &[b"INCR", b"n"]);
/// log.command(&mut out, 3, Some(1_700_000_000), &[b"INCR", b"n"]);
/// let text = String::from_utf8(out).unwrap();
/// assert!(text.starts_with("#TS:1700000000\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$4\r\nINCR"));
/// assert_eq!(text.matches("SELECT").count(), 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Log {
    db: Option<u32>,
    stamped_s: Option<i64>,
}

impl Log {
    /// Appends a command of database `db`, with SELECT and an annotation where they changed. `now_s`: Unix seconds; None
    /// leaves annotations out. MULTI and EXEC are commands like others.
    pub fn command(&mut self, out: &mut Vec<u8>, db: u32, now_s: Option<i64>, words: &[&[u8]]) {
        if now_s.is_some() && now_s != self.stamped_s {
            self.stamped_s = now_s;
            out.extend_from_slice(format!("#TS:{}\r\n", now_s.unwrap_or(0)).as_bytes());
        }
        if self.db != Some(db) {
            self.db = Some(db);
            encode_command(out, &[b"SELECT", db.to_string().as_bytes()]);
        }
        encode_command(out, words);
    }
}

/// A file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// The files of a directory that holds `items` and then `increments`; the manifest comes last, and is to be written last.
/// `prefix` is the server's `appendfilename`. Servers want at least one increment to go on with, so an empty one is made
/// where none is given.
pub fn directory<'i>(
    prefix: &[u8],
    form: Form,
    items: impl IntoIterator<Item = &'i Item>,
    increments: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<File>, WriteError> {
    let mut manifest = Manifest::default();
    let base_form = match form {
        Form::Rdb { .. } => BaseForm::Rdb,
        Form::Commands(_) => BaseForm::Commands,
    };
    let mut bytes = Vec::new();
    let mut base = BaseWriter::new(form, &mut bytes);
    for item in items {
        base.item(item, &mut bytes)?;
    }
    base.finish(&mut bytes);
    let name = manifest.begin_base(prefix, base_form);
    let mut files = vec![File { name, bytes }];
    for bytes in increments {
        let name = manifest.begin_increment(prefix);
        files.push(File { name, bytes });
    }
    if files.len() == 1 {
        let name = manifest.begin_increment(prefix);
        let bytes = Vec::new();
        files.push(File { name, bytes });
    }
    files.push(File {
        name: manifest_name(prefix),
        bytes: manifest.print()?,
    });
    Ok(files)
}
