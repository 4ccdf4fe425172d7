//! Append-only files: the commands of one, and the files of a directory.
//!
//! Commands are read, not applied: a server that loads them may still refuse one. Where a file ends inside a command,
//! or with a MULTI open, servers cut it if it is the last one and refuse the directory otherwise.

use super::keys::Keys;
use super::rdb::{self, File};
use super::{Counted, Finding, Kind, Report, unreadable};
use crate::report::Failure;
use crate::source::layout::number_in;
use crate::source::progress::Progress;
use dfsnap_formats::aof::manifest::{FileInfo, Manifest};
use dfsnap_formats::aof::reader::{AofError, AofReader, Command, End, Options, Unit};
use dfsnap_formats::aof::replay::is_known;
use dfsnap_formats::error::Shown;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// The last timestamp that went by, over all files.
#[derive(Debug, Default)]
pub struct Clock {
    last_s: Option<i64>,
    /// Since the present file began, none went by.
    is_first: bool,
}

/// Reads commands to the end; `base` bytes of the file stand before them.
pub fn commands(
    file: &File<'_>,
    base: u64,
    is_last: bool,
    source: impl Read,
    clock: &mut Clock,
    report: &mut Report,
) -> Result<(), Failure> {
    let options = Options {
        lenient: true,
        ..Options::default()
    };
    let mut counted = Counted::new(source);
    let mut reader = AofReader::new(&mut counted, options);
    let mut group = None;
    clock.is_first = true;
    loop {
        match reader.next() {
            Ok(None) => break,
            Ok(Some(unit)) => look(file, base, is_last, &unit, &mut group, clock, report),
            Err(AofError::Io { offset, source }) => {
                let offset = base + offset;
                let message = format!("offset {offset}: reading failed: {source}");
                return Err(Failure {
                    message: format!("{}: {message}", file.path.display()),
                    advice: "read the file again, or copy it from its source".to_owned(),
                });
            }
            Err(error) => {
                let message = error.to_string();
                report.finding(Finding::new(file.name, Kind::Structure, None, message));
                report.complete = false;
                break;
            }
        }
    }
    drop(reader);
    report.bytes += base + counted.bytes;
    Ok(())
}

fn look(
    file: &File<'_>,
    base: u64,
    is_last: bool,
    unit: &Unit<'_>,
    group: &mut Option<u64>,
    clock: &mut Clock,
    report: &mut Report,
) {
    match unit {
        Unit::Command(command) => {
            report.commands += 1;
            let offset = base + command.offset;
            let name = command.words.first();
            let found = |message| Finding::new(file.name, Kind::Command, Some(offset), message);
            if let Some(message) = misplaced(base, command, group) {
                report.finding(found(message));
            }
            if !is_known(name) {
                let message = format!("offset {offset}: no command {} is known", Shown(name));
                // A module may know it.
                match name.contains(&b'.') {
                    true => report.warning(found(message)),
                    false => report.finding(found(format!("{message}; servers refuse the file"))),
                }
            }
        }
        Unit::Timestamp { offset, unix_s } => {
            let offset = base + offset;
            if let Some(last) = clock.last_s.filter(|last| clock.is_first && unix_s < last) {
                let message = format!(
                    "offset {offset}: time {unix_s}, but the file before ends at {last}: they may be swapped"
                );
                let warning = Finding::new(file.name, Kind::SwappedFile, Some(offset), message);
                report.warning(warning);
            }
            clock.is_first = false;
            clock.last_s = Some(*unix_s);
        }
        Unit::Skipped { range, why } => {
            let from = base + range.start;
            let bytes = range.end - range.start;
            let message = format!("{}; {bytes} bytes skipped", why.clone().moved(base));
            report.finding(Finding::new(
                file.name,
                Kind::Structure,
                Some(from),
                message,
            ));
        }
        Unit::End(End::Cut {
            good_bytes,
            cut_bytes,
            what,
        }) => {
            let offset = base + good_bytes;
            let then = match is_last {
                true => "servers drop what is behind",
                false => "servers refuse it, as another file follows",
            };
            let message = format!(
                "offset {offset}: the file ends inside {what}, {cut_bytes} bytes behind this place; {then}"
            );
            report.finding(Finding::new(file.name, Kind::Cut, Some(offset), message));
        }
        Unit::End(End::Whole { .. }) | Unit::Annotation { .. } | Unit::Preamble(_) => {}
    }
}

/// MULTI and EXEC that do not fit together. `group` is the place of the open MULTI.
fn misplaced(base: u64, command: &Command<'_>, group: &mut Option<u64>) -> Option<String> {
    let offset = base + command.offset;
    let name = command.words.first();
    if name.eq_ignore_ascii_case(b"MULTI") {
        let open = group.replace(offset)?;
        return Some(format!(
            "offset {offset}: MULTI, but that at {open} has no EXEC"
        ));
    }
    if name.eq_ignore_ascii_case(b"EXEC") && group.take().is_none() {
        return Some(format!("offset {offset}: EXEC without MULTI"));
    }
    None
}

/// The files of a directory, by its manifest.
pub fn directory(
    folder: &Path,
    manifest_name: &str,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let path = folder.join(manifest_name);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report.complete = false;
            let message = "not there, and only it says which files are to be loaded".to_owned();
            report.finding(Finding::new(
                manifest_name,
                Kind::MissingFile,
                None,
                message,
            ));
            return Ok(());
        }
        text => text.map_err(|error| unreadable(&path, &error))?,
    };
    report.files += 1;
    report.bytes += text.len() as u64;
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(error) => {
            report.complete = false;
            let message = error.to_string();
            report.finding(Finding::new(manifest_name, Kind::Manifest, None, message));
            return Ok(());
        }
    };
    names(folder, manifest_name, &manifest, report)?;
    let files: Vec<&FileInfo> = manifest.files_to_load().collect();
    let names = files
        .iter()
        .map(|info| String::from_utf8_lossy(&info.name).into_owned());
    let progress = Progress::of_files(names.map(|name| folder.join(name)));
    let mut clock = Clock::default();
    for (at, info) in files.iter().enumerate() {
        let name = String::from_utf8_lossy(&info.name).into_owned();
        let path = folder.join(&name);
        let source = match std::fs::File::open(&path) {
            Ok(source) => source,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                report.complete = false;
                let message = format!("not there, but {manifest_name} names it");
                report.finding(Finding::new(&name, Kind::MissingFile, None, message));
                continue;
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        report.files += 1;
        let file = File {
            path: &path,
            name: &name,
            bytes: source.metadata().ok().map(|meta| meta.len()),
        };
        part(
            &file,
            progress.watch(Box::new(source)),
            at + 1 == files.len(),
            &mut clock,
            keys,
            report,
        )?;
    }
    Ok(())
}

/// One file of a directory: a dump or commands, by its first bytes.
fn part(
    file: &File<'_>,
    mut source: impl Read,
    is_last: bool,
    clock: &mut Clock,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut first = Vec::new();
    let read = (&mut source).take(6).read_to_end(&mut first);
    read.map_err(|error| unreadable(file.path, &error))?;
    let is_dump = first.starts_with(b"REDIS") || first == b"VALKEY";
    let source = std::io::Cursor::new(first).chain(source);
    match is_dump {
        true => rdb::check(file, source, keys, report),
        false => commands(file, 0, is_last, source, clock, report),
    }
}

/// What names say: numbers that differ from the manifest's, files that it does not name, and leftovers.
fn names(
    folder: &Path,
    manifest_name: &str,
    manifest: &Manifest,
    report: &mut Report,
) -> Result<(), Failure> {
    let listed = manifest.files_to_load().chain(&manifest.history);
    let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
    for info in listed {
        if let Some(found) = number_in(&info.name).filter(|found| *found != info.seq) {
            let message = format!(
                "{} has number {found} in its name, but seq {} here: it was renamed or swapped",
                Shown(&info.name),
                info.seq
            );
            report.finding(Finding::new(
                manifest_name,
                Kind::SwappedFile,
                None,
                message,
            ));
        }
        if !known.insert(info.name.clone()) {
            let message = format!("{} is named twice", Shown(&info.name));
            report.finding(Finding::new(manifest_name, Kind::Manifest, None, message));
        }
    }
    let prefix = manifest_name.trim_end_matches(".manifest");
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut found: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != manifest_name && !known.contains(name.as_bytes()))
        .collect();
    found.sort();
    for name in found {
        let is_leftover = name.starts_with("temp-") || name.ends_with(".tmp");
        let is_part = number_in(name.as_bytes()).is_some() && name.starts_with(prefix);
        if is_leftover {
            let message = "left over from a file that was not finished".to_owned();
            report.finding(Finding::new(&name, Kind::Leftover, None, message));
        } else if is_part {
            let message = format!("is there, but {manifest_name} does not name it");
            report.finding(Finding::new(&name, Kind::ForeignFile, None, message));
        }
    }
    Ok(())
}
