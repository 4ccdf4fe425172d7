//! A DFS set: each file, then all of them against each other and against the manifest.

use super::keys::Keys;
use super::{Finding, Kind, Report, unreadable};
use crate::report::Failure;
use crate::source::progress::Progress;
use dfsnap_formats::dfs::DfsError;
use dfsnap_formats::dfs::blob::BlobError;
use dfsnap_formats::dfs::manifest::{BLOCK_BYTES, Manifest, Summer, SummingReader};
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::reader::{DfsReader, Options, Padding, Place};
use dfsnap_formats::dfs::set::{self, Facts, Found, FoundFile};
use dfsnap_formats::rdb::record::{RdbError, Record};
use std::io::{self, Read};
use std::path::Path;

/// Dragonfly fills its last block of so many bytes.
pub const PADDING_MAX: u64 = 4096;

/// All files of the set `base` in `folder`.
pub fn check(
    folder: &Path,
    base: &str,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut found = Found::new(base);
    let mut block_bytes = BLOCK_BYTES;
    let manifest = Name::of(base, Member::Manifest);
    match std::fs::read(folder.join(&manifest)) {
        Ok(text) => {
            report.files += 1;
            report.bytes += text.len() as u64;
            match Manifest::parse(&text) {
                Ok(parsed) => {
                    block_bytes = parsed.block_bytes;
                    found.set_manifest(parsed);
                }
                Err(error) => {
                    let message = error.to_string();
                    report.finding(Finding::new(&manifest, Kind::Manifest, None, message));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(&folder.join(&manifest), &error)),
    }
    let names = names(folder, base)?;
    let progress = Progress::of_files(names.iter().map(|(name, _)| folder.join(name)));
    for (name, is_temporary) in names {
        match is_temporary {
            true => found.add_leftover(&name),
            false => found.add(examine(
                (folder, &name),
                &progress,
                block_bytes,
                keys,
                report,
            )?),
        }
    }
    match found.check() {
        Ok(complete) => {
            for file in complete.leftovers() {
                let finding = set::Finding::Leftover { file: file.clone() };
                report.finding(of_set(&finding));
            }
        }
        Err(findings) => {
            for finding in &findings {
                report.complete &= !is_missing(finding);
                report.finding(of_set(finding));
            }
        }
    }
    Ok(())
}

/// The files of the set but its manifest, and whether each was never finished.
pub fn names(folder: &Path, base: &str) -> Result<Vec<(String, bool)>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_ours = |text: &str| Name::parse(text).is_some_and(|parsed| parsed.base == base);
        match Name::parse(&name) {
            Some(parsed) if parsed.base == base => {
                let is_temporary = parsed.is_temporary;
                if is_temporary || parsed.member != Member::Manifest {
                    names.push((name, is_temporary));
                }
            }
            _ if unfinished(&name).is_some_and(is_ours) => names.push((name, true)),
            _ => {}
        }
    }
    names.sort();
    Ok(names)
}

/// The name that a file of ours was to get that was never finished.
fn unfinished(name: &str) -> Option<&str> {
    Some(name.strip_prefix('.')?.rsplit_once(".tmp-")?.0)
}

fn is_missing(finding: &set::Finding) -> bool {
    matches!(
        finding,
        set::Finding::NoSummary { .. }
            | set::Finding::NoShard { .. }
            | set::Finding::Missing { .. }
    )
}

/// Reads one file to its last byte.
fn examine(
    (folder, name): (&Path, &str),
    progress: &Progress,
    block_bytes: u64,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<FoundFile, Failure> {
    let path = folder.join(name);
    let fail = |error: io::Error| unreadable(&path, &error);
    let file = std::fs::File::open(&path).map_err(fail)?;
    let source_bytes = Some(file.metadata().map_err(fail)?.len());
    let mut summing = SummingReader {
        source: progress.watch(Box::new(file)),
        summer: Summer::new(block_bytes),
    };
    let options = Options {
        source_bytes,
        lenient: true,
        ..Options::default()
    };
    let mut reader = DfsReader::new(&mut summing, options);
    let (mut facts, mut count, mut skipped) = (Facts::default(), 0, 0);
    loop {
        let placed = match reader.next() {
            Ok(Some(placed)) => placed,
            Ok(None) => break,
            Err(DfsError::File(RdbError::Io { source, .. })) => return Err(fail(source)),
            Err(DfsError::Failed { .. }) => break,
            Err(error) => {
                report.complete = false;
                report.finding(of_file(name, None, &error));
                break;
            }
        };
        facts.note(&placed.record);
        if let Record::Key(key) = placed.record {
            count += 1;
            let blob = match placed.place {
                Place::File => None,
                Place::Blob { offset } | Place::Chunks { offset } => Some(offset),
            };
            if keys.note(report, name, blob, &key) {
                keys.value(report, name, blob, &key);
            }
        }
        skipped = note_skipped(name, &reader, skipped, report);
    }
    keys.look_up(report, name);
    note_skipped(name, &reader, skipped, report);
    let end = reader.offset();
    let padding = match reader.padding() {
        Ok(padding) => padding,
        Err(DfsError::File(RdbError::Io { source, .. })) => return Err(fail(source)),
        Err(_) => Padding::default(),
    };
    if padding.bytes >= PADDING_MAX {
        let message = format!(
            "offset {end}: {} bytes behind the end of the file, more than the filling of a block",
            padding.bytes
        );
        let finding = Finding::new(name, Kind::TrailingBytes, Some(end), message);
        report.finding(finding);
    }
    drop(reader);
    let sums = summing.summer.finish();
    report.files += 1;
    report.bytes += sums.bytes;
    Ok(FoundFile {
        name: name.to_owned(),
        facts,
        keys: count,
        sums,
        block_bytes,
        padding,
        // Said already, with offsets.
        damage: None,
    })
}

/// Findings for what the reader passed over since it had passed over `before` ranges.
fn note_skipped<R: Read>(
    name: &str,
    reader: &DfsReader<R>,
    before: usize,
    report: &mut Report,
) -> usize {
    let skipped = reader.skipped();
    for range in &skipped[before..] {
        report.finding(of_file(name, Some((range.offset, range.bytes)), &range.why));
    }
    skipped.len()
}

fn of_file(name: &str, range: Option<(u64, u64)>, error: &DfsError) -> Finding {
    use dfsnap_formats::error::Problem;
    let kind = match error {
        DfsError::Blob {
            error: BlobError::Cut { .. },
            ..
        } => Kind::Cut,
        DfsError::File(RdbError::Record(damage)) => match damage.problem {
            Problem::Truncated { .. } => Kind::Cut,
            _ => Kind::Structure,
        },
        DfsError::File(RdbError::Value { damage, .. }) => match damage.problem {
            Problem::Truncated { .. } => Kind::Cut,
            _ => Kind::Value,
        },
        DfsError::InBlob {
            error: RdbError::Value { .. },
            ..
        } => Kind::Value,
        _ => Kind::Structure,
    };
    let (offset, message) = match range {
        None => (None, error.to_string()),
        Some((offset, 0)) => (Some(offset), error.to_string()),
        Some((offset, bytes)) => (Some(offset), format!("{error}; {bytes} bytes skipped")),
    };
    let finding = Finding::new(name, kind, offset, message);
    match error {
        DfsError::File(RdbError::Value { db, key, .. })
        | DfsError::InBlob {
            error: RdbError::Value { db, key, .. },
            ..
        } => finding.of_key(*db, key),
        _ => finding,
    }
}

fn of_set(finding: &set::Finding) -> Finding {
    use set::Finding as Found;
    let (file, kind) = match finding {
        Found::NoSummary { file } | Found::NoShard { file, .. } | Found::Missing { file } => {
            (file, Kind::MissingFile)
        }
        Found::ExtraShard { file, .. }
        | Found::Differs { file, .. }
        | Found::Stranger { file }
        | Found::NotInManifest { file } => (file, Kind::ForeignFile),
        Found::ShardId { file, .. } => (file, Kind::SwappedFile),
        Found::NoCount { file } | Found::Damaged { file, .. } => (file, Kind::Structure),
        Found::Leftover { file } => (file, Kind::Leftover),
        Found::Number { file, .. } => (file, Kind::Manifest),
        Found::Checksum { file, .. } => (file, Kind::Checksum),
    };
    let offset = match finding {
        Found::Checksum { from, .. } => Some(*from),
        _ => None,
    };
    let text = finding.to_string();
    // The file is said beside it.
    let message = match text.strip_prefix(&format!("{file}: ")) {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    Finding::new(file, kind, offset, message)
}
