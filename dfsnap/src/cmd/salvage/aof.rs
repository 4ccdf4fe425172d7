//! Salvaging append-only files: commands that can be read are applied to a dataset in memory.

use super::{Lost, Salvage};
use crate::check::unreadable;
use crate::report::{self, Failure};
use crate::source::layout::number_in;
use crate::source::progress::Progress;
use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::reader::{AofError, AofReader, Command, End, Options, Unit};
use dfsnap_formats::aof::replay::{self, Replay};
use dfsnap_formats::dataset::Item;
use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged};
use dfsnap_formats::rdb::reader::Options as RdbOptions;
use dfsnap_formats::rdb::record::RdbError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The files that a manifest names, or, where it is damaged, those whose names say what they are.
pub(super) fn directory(
    salvage: &mut Salvage,
    folder: &Path,
    manifest_name: &str,
) -> Result<(), Failure> {
    let path = folder.join(manifest_name);
    let parsed = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("not there".to_owned()),
        Err(error) => return Err(unreadable(&path, &error)),
        Ok(text) => Manifest::parse(&text).map_err(|error| error.to_string()),
    };
    let names: Vec<String> = match parsed {
        Ok(manifest) => manifest
            .files_to_load()
            .map(|file| String::from_utf8_lossy(&file.name).into_owned())
            .collect(),
        Err(error) => {
            salvage.note(format!(
                "{manifest_name}: {error}; the files were taken in order of their numbers"
            ));
            by_number(folder, manifest_name.trim_end_matches(".manifest"))?
        }
    };
    let mut paths = Vec::new();
    for name in names {
        let path = folder.join(&name);
        match path.exists() {
            true => paths.push(path),
            false => {
                let why = format!("not there, but {manifest_name} names it");
                salvage.lost(Lost::whole(&name, why));
            }
        }
    }
    files(salvage, &paths)
}

/// The newest base, and the increments in order.
fn by_number(folder: &Path, prefix: &str) -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut parts: Vec<(bool, i64, String)> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .filter_map(|name| {
            let number = number_in(name.as_bytes())?;
            Some((name.ends_with(".incr.aof"), number, name))
        })
        .collect();
    parts.sort();
    let bases = parts.iter().filter(|(is_increment, ..)| !is_increment);
    let skip = bases.count().saturating_sub(1);
    Ok(parts
        .into_iter()
        .skip(skip)
        .map(|(.., name)| name)
        .collect())
}

/// Reads files one after another, and hands out what their commands come to.
pub(super) fn files(salvage: &mut Salvage, paths: &[PathBuf]) -> Result<(), Failure> {
    let mut replay = Replay::new(replay::Options {
        now_ms: Some(report::now_ms()),
        ..replay::Options::default()
    });
    let progress = Progress::of_files(paths.iter().cloned());
    for path in paths {
        file(salvage, path, &progress, &mut replay)?;
    }
    if replay.refused() > 0 {
        salvage.note(format!(
            "{} commands do not fit the keys that are there and were passed over",
            replay.refused()
        ));
    }
    for item in replay.into_items() {
        salvage.item("replayed", &item)?;
    }
    Ok(())
}

fn file(
    salvage: &mut Salvage,
    path: &Path,
    progress: &Progress,
    replay: &mut Replay,
) -> Result<(), Failure> {
    let name = path.display().to_string();
    let fail = |error: std::io::Error| unreadable(path, &error);
    let mut source = File::open(path).map_err(fail)?;
    let bytes = source.metadata().map_err(fail)?.len();
    let mut first = Vec::new();
    (&mut source)
        .take(6)
        .read_to_end(&mut first)
        .map_err(fail)?;
    source.seek(SeekFrom::Start(0)).map_err(fail)?;
    let base = match first.starts_with(b"REDIS") || first == b"VALKEY" {
        true => {
            let source = progress.watch(Box::new(&source));
            preamble(salvage, path, source, bytes, replay)?
        }
        false => 0,
    };
    source.seek(SeekFrom::Start(base)).map_err(fail)?;
    let options = Options {
        lenient: true,
        ..Options::default()
    };
    let mut reader = AofReader::new(progress.watch(Box::new(source)), options);
    loop {
        let unit = match reader.next() {
            Ok(Some(unit)) => unit,
            Ok(None) => return Ok(()),
            Err(AofError::Io { source, .. }) => return Err(fail(source)),
            Err(error) => {
                salvage.lost(Lost::range(&name, base, bytes, error.to_string()));
                return Ok(());
            }
        };
        match &unit {
            Unit::Skipped { range, why } => {
                let why = why.clone().moved(base).to_string();
                salvage.lost(Lost::range(
                    &name,
                    base + range.start,
                    base + range.end,
                    why,
                ));
            }
            Unit::End(End::Cut {
                good_bytes,
                cut_bytes,
                what,
            }) => {
                let from = base + good_bytes;
                let why = format!("the file ends inside {what}");
                salvage.lost(Lost::range(&name, from, from + cut_bytes, why));
            }
            _ => {}
        }
        let (unit, range) = match unit {
            Unit::Command(command) => {
                let (offset, end) = (base + command.offset, base + command.end);
                let moved = Command {
                    offset,
                    end,
                    ..command
                };
                (Unit::Command(moved), Some((offset, end)))
            }
            unit => (unit, None),
        };
        if let Err(error) = replay.unit(&unit) {
            let why = error.to_string();
            salvage.lost(match range {
                Some((from, to)) => Lost::range(&name, from, to, why),
                None => Lost::whole(&name, why),
            });
        }
    }
}

/// The dump in front of the commands. Gives the offset at which they begin.
fn preamble(
    salvage: &mut Salvage,
    path: &Path,
    source: impl Read,
    bytes: u64,
    replay: &mut Replay,
) -> Result<u64, Failure> {
    let name = path.display().to_string();
    let options = RdbOptions {
        source_bytes: Some(bytes),
        ..RdbOptions::default()
    };
    let mut reader = LenientReader::new(source, options);
    let fail = |error: RdbError| Failure::read(path, &error);
    while let Some(next) = reader.next().map_err(fail)? {
        match next {
            Salvaged::Record(record) => match Item::of_record(&record, &Default::default()) {
                Ok(Some(item)) => replay.load(item),
                Ok(None) => {}
                Err(error) => salvage.lost(Lost::whole(&name, error.to_string())),
            },
            Salvaged::Skipped(skipped) => salvage.skipped(&name, &skipped),
        }
    }
    Ok(reader.offset())
}
