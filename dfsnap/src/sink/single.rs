//! Formats that are one stream: RDB, append-only files, JSON, CSV, commands for a pipe.

use super::{Compression, Losses, Output, SinkOptions};
use crate::out::{MadeFolder, OutFile};
use crate::report::Failure;
use crate::source::Key;
use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::{manifest as aof_manifest, manifest::BaseForm};
use dfsnap_formats::commands::{Commands, Form as CommandForm, Options as CommandOptions};
use dfsnap_formats::csv::{self, Row};
use dfsnap_formats::dataset::Item;
use dfsnap_formats::json::{Buffer, Form as JsonForm, Writer, WriterOptions};
use dfsnap_formats::rdb::file::{OnLoss, RdbWriter};
use dfsnap_formats::rdb::loss::{self, Loss};
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::encode_command;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes that are kept before they go to the file, which gathers more: so many are still in a near cache when they are copied there.
const BUFFER_BYTES: usize = 64 << 10;
/// Values, and pieces of them, from where on they are put into the file by themselves.
const PASSED_BY_MIN: usize = 16 << 10;

pub(super) struct SingleSink {
    target: Target,
    /// Values that are copied are looked into.
    check: bool,
    /// JSON says how values are stored.
    encodings: bool,
    encoder: Encoder,
    text: Text,
    to: To,
    /// That went to standard output.
    bytes: u64,
}

/// What is written and not yet in the file, for all but RDB.
#[derive(Default)]
struct Text {
    bytes: Buffer,
    /// The length at which it goes there.
    full: usize,
    /// The memory is the file's.
    is_lent: bool,
}

enum Encoder {
    Rdb(Box<RdbWriter>),
    Json(Writer),
    Csv,
    Resp(Commands),
}

enum To {
    /// Standard output, without the library's buffer: that looks for ends of lines.
    Stdout(File),
    File(OutFile),
    /// The base of an append-only file in parts, and the folder of all.
    Base {
        base: OutFile,
        folder: MadeFolder,
        manifest: Manifest,
        prefix: Vec<u8>,
    },
}

/// What says something about the file that is read, and not about the one that is written.
const AUX_OF_THE_SOURCE: [&[u8]; 6] = [
    b"redis-bits",
    b"ctime",
    b"used-mem",
    b"aof-base",
    b"aof-preamble",
    b"df-ver",
];

impl SingleSink {
    pub(super) fn create(place: &Path, options: &SinkOptions) -> Result<Self, Failure> {
        let mut to = match options.output {
            Output::Aof => parts(place)?,
            _ if place.as_os_str() == "-" => {
                let file = io::stdout().as_fd().try_clone_to_owned();
                To::Stdout(file.map_err(|error| Failure::output(&error))?.into())
            }
            _ => To::File(OutFile::create(place)?),
        };
        let mut header = Vec::new();
        let encoder = match options.output {
            Output::Json | Output::Ndjson => Encoder::Json(Writer::new(WriterOptions {
                form: match options.output {
                    Output::Json => JsonForm::Document,
                    _ => JsonForm::Lines,
                },
                encodings: options.encodings,
            })),
            Output::Csv => {
                csv::header(&mut header);
                Encoder::Csv
            }
            Output::Resp => Encoder::Resp(Commands::new(CommandOptions {
                version: options.target.version(),
                replace: true,
                form: match options.use_restore {
                    true => CommandForm::Restore,
                    false => CommandForm::Native,
                },
                ..CommandOptions::default()
            })),
            Output::Rdb | Output::Aof | Output::Dfs => {
                let mut writer = RdbWriter::new(options.target)
                    .on_loss(OnLoss::Accept)
                    .compress(options.compression != Some(Compression::None));
                if options.output == Output::Aof {
                    writer.aux(b"aof-base", b"1");
                }
                Encoder::Rdb(Box::new(writer))
            }
        };
        let mut sink = SingleSink {
            target: options.target,
            check: options.check,
            encodings: options.encodings,
            text: match &encoder {
                Encoder::Rdb(_) => Text::default(),
                Encoder::Json(_) | Encoder::Csv | Encoder::Resp(_) => Text::on_the_way(&mut to),
            },
            encoder,
            to,
            bytes: 0,
        };
        sink.text.bytes.extend_from_slice(&header);
        Ok(sink)
    }

    pub(super) fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failure> {
        if AUX_OF_THE_SOURCE.contains(&name) {
            return Ok(());
        }
        match &mut self.encoder {
            Encoder::Rdb(writer) => writer.aux(name, value),
            Encoder::Json(writer) => {
                let (name, value) = (name.to_vec(), value.to_vec());
                writer.item(&Item::Aux { name, value }, &mut self.text.bytes);
            }
            Encoder::Csv | Encoder::Resp(_) => {}
        }
        self.drain_if_full()
    }

    pub(super) fn item(&mut self, item: &Item, losses: &mut Losses) -> Result<(), Failure> {
        match &mut self.encoder {
            Encoder::Rdb(writer) => {
                for loss in loss::of_item(item, self.target) {
                    losses.refuse_item("beside the keys", &loss.to_string());
                }
                // With losses accepted, nothing is left that could be refused.
                let _ = writer.item(item);
            }
            Encoder::Json(writer) => writer.item(item, &mut self.text.bytes),
            Encoder::Csv => {}
            Encoder::Resp(commands) => {
                let written = self
                    .text
                    .bytes
                    .with_vec(|out| commands.item(item, &mut |words| encode_command(out, words)));
                match (written, item) {
                    (Err(error), _) => {
                        losses.refuse_item("beside the keys", &error.to_string());
                    }
                    (Ok(()), Item::ModuleAux { .. }) => {
                        losses.refuse_item("beside the keys", &Loss::ModuleAux.to_string());
                    }
                    (Ok(()), _) => {}
                }
            }
        }
        self.drain_if_full()
    }

    pub(super) fn key(&mut self, key: Key<'_>, losses: &mut Losses) -> Result<(), Failure> {
        match &mut self.encoder {
            Encoder::Rdb(writer) => rdb(
                self.check,
                writer,
                self.target,
                key,
                losses,
                &mut self.to,
                &mut self.bytes,
            )?,
            Encoder::Json(writer) => {
                let out = (&mut self.text, &mut self.to, &mut self.bytes);
                json(writer, key, self.encodings, out)?;
            }
            Encoder::Csv => {
                let stored = key.record().map(|record| record.value.len() as u64);
                if let Some(entry) = key.entry()? {
                    let row = Row::of_entry(&entry, stored);
                    self.text.bytes.with_vec(|out| row.append_to(out));
                }
            }
            Encoder::Resp(commands) => {
                if let Some(entry) = key.entry()? {
                    for loss in loss::of_entry(&entry, self.target) {
                        if !matches!(loss, Loss::Key(_)) {
                            losses.note(entry.db, &entry.key, loss);
                        }
                    }
                    let Some(value) = loss::without(&entry.value, self.target) else {
                        losses.refuse(entry.db, &entry.key, "its type is not known there");
                        return Ok(());
                    };
                    let changed = match value {
                        Cow::Owned(value) => Some(value),
                        Cow::Borrowed(_) => None,
                    };
                    let mut entry = entry.into_owned();
                    if let Some(value) = changed {
                        entry.value = value;
                    }
                    let (db, name) = (entry.db, entry.key.clone());
                    let item = Item::Entry(entry);
                    let written = self.text.bytes.with_vec(|out| {
                        commands.item(&item, &mut |words| encode_command(out, words))
                    });
                    if let Err(error) = written {
                        losses.refuse(db, &name, &error.to_string());
                    }
                }
            }
        }
        self.drain_if_full()
    }

    fn drain_if_full(&mut self) -> Result<(), Failure> {
        let is_full = match &self.encoder {
            Encoder::Rdb(writer) => writer.pending() >= BUFFER_BYTES,
            _ => self.text.is_full(),
        };
        match is_full {
            true => self.drain(),
            false => Ok(()),
        }
    }

    pub(super) fn drain(&mut self) -> Result<(), Failure> {
        let (to, bytes) = (&mut self.to, &mut self.bytes);
        match &mut self.encoder {
            Encoder::Rdb(writer) => writer.drain(|piece| put(to, piece, bytes)),
            _ => self.text.drain(to, bytes),
        }
    }

    pub(super) fn finish(mut self) -> Result<(u64, Vec<PathBuf>), Failure> {
        match &mut self.encoder {
            Encoder::Rdb(writer) => writer.finish(),
            Encoder::Json(writer) => writer.finish(&mut self.text.bytes),
            Encoder::Csv | Encoder::Resp(_) => {}
        }
        self.drain()?;
        self.text.end(&mut self.to)?;
        let bytes = match &self.to {
            To::Stdout(_) => self.bytes,
            To::File(file) | To::Base { base: file, .. } => file.len(),
        };
        let places = match self.to {
            To::Stdout(_) => Vec::new(),
            To::File(file) => {
                let place = file.place().to_owned();
                file.commit()?;
                vec![place]
            }
            To::Base {
                base,
                folder,
                mut manifest,
                prefix,
            } => {
                let name = manifest.begin_increment(&prefix);
                let increment =
                    OutFile::create(&folder.path().join(std::ffi::OsStr::from_bytes(&name)))?;
                let name = aof_manifest::manifest_name(&prefix);
                let mut last =
                    OutFile::create(&folder.path().join(std::ffi::OsStr::from_bytes(&name)))?;
                let text = manifest.print().map_err(|error| Failure {
                    message: format!("{}: {error}", last.place().display()),
                    advice: "use a shorter name".to_owned(),
                })?;
                last.write(&text)?;
                let files = vec![base, increment, last];
                let places = files.iter().map(|file| file.place().to_owned()).collect();
                OutFile::commit_all(files)?;
                folder.keep();
                places
            }
        };
        Ok((bytes, places))
    }
}

/// An append-only file in parts: `place` is its folder.
fn parts(place: &Path) -> Result<To, Failure> {
    let prefix = b"appendonly.aof".to_vec();
    let folder = MadeFolder::at(place)?;
    let mut manifest = Manifest::default();
    let name = manifest.begin_base(&prefix, BaseForm::Rdb);
    Ok(To::Base {
        base: OutFile::create(&place.join(std::ffi::OsStr::from_bytes(&name)))?,
        folder,
        manifest,
        prefix,
    })
}

fn put(to: &mut To, piece: &[u8], bytes: &mut u64) -> Result<(), Failure> {
    match to {
        To::File(file) | To::Base { base: file, .. } => file.write(piece),
        To::Stdout(file) => {
            *bytes += piece.len() as u64;
            let written = file.write_all(piece);
            written.map_err(|error| Failure::output(&error))
        }
    }
}

impl Text {
    fn on_the_way(to: &mut To) -> Text {
        let lent = match to {
            To::File(file) | To::Base { base: file, .. } => file.lend(),
            To::Stdout(_) => None,
        };
        let is_lent = lent.is_some();
        let (bytes, full) = lent.unwrap_or((Vec::new(), BUFFER_BYTES));
        Text {
            bytes: bytes.into(),
            full,
            is_lent,
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.bytes.len() >= self.full
    }

    fn drain(&mut self, to: &mut To, bytes: &mut u64) -> Result<(), Failure> {
        if self.is_lent {
            self.end(to)?;
            *self = Text::on_the_way(to);
            return Ok(());
        }
        put(to, &self.bytes, bytes)?;
        self.bytes.clear();
        Ok(())
    }

    /// What the file has lent goes back there.
    fn end(&mut self, to: &mut To) -> Result<(), Failure> {
        match to {
            To::File(file) | To::Base { base: file, .. } if self.is_lent => {
                self.is_lent = false;
                file.give_back(std::mem::take(&mut self.bytes).into())
            }
            _ => Ok(()),
        }
    }
}

/// Bytes of a value behind what has been written; larger ones are not copied to where it is gathered first.
fn pass_by(
    writer: &mut RdbWriter,
    piece: &[u8],
    to: &mut To,
    bytes: &mut u64,
) -> Result<(), Failure> {
    if piece.len() < PASSED_BY_MIN {
        writer.large_bytes(piece);
        return match writer.pending() >= BUFFER_BYTES {
            true => writer.drain(|piece| put(to, piece, bytes)),
            false => Ok(()),
        };
    }
    writer.drain(|before| put(to, before, bytes))?;
    writer.passed_by(piece);
    put(to, piece, bytes)
}

fn rdb(
    check: bool,
    writer: &mut RdbWriter,
    target: Target,
    mut key: Key<'_>,
    losses: &mut Losses,
    to: &mut To,
    bytes: &mut u64,
) -> Result<(), Failure> {
    if check {
        key.check()?;
    }
    if let Some(record) = key.record() {
        if writer.copies(record) {
            if record.value.len() < PASSED_BY_MIN {
                writer.copy(record);
                return Ok(());
            }
            writer.large(record);
            return pass_by(writer, record.value, to, bytes);
        }
    } else if let Some(record) = key.large_record()
        && writer.copies(record)
        && !check
    {
        writer.large(record);
        return key.large_bytes(|piece| pass_by(writer, piece, to, bytes));
    }
    let Some(entry) = key.entry()? else {
        return Ok(());
    };
    for loss in loss::of_entry(&entry, target) {
        losses.note(entry.db, &entry.key, loss);
    }
    writer.entry(&entry).map(|_| ()).map_err(|error| Failure {
        message: format!("key {}: {error}", crate::report::key(&entry.key)),
        advice: "--allow-loss writes what is left".to_owned(),
    })
}

fn json(
    writer: &mut Writer,
    key: Key<'_>,
    encodings: bool,
    (text, to, bytes): (&mut Text, &mut To, &mut u64),
) -> Result<(), Failure> {
    // A value that goes by in parts does not tell how it is stored.
    if encodings || (key.large_record().is_none() && key.record().is_none()) {
        if let Some(entry) = key.entry()? {
            writer.entry(&entry, &mut text.bytes);
        }
        return Ok(());
    }
    writer.begin(&key.head);
    key.parts(|part| {
        writer.part(&part, &mut text.bytes);
        match text.is_full() {
            true => text.drain(to, bytes),
            false => Ok(()),
        }
    })?;
    writer.end(&mut text.bytes);
    Ok(())
}
