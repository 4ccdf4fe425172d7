//! An RDB file, or one with commands behind it.
//!
//! Damage inside a value costs only that key, and the check goes on behind it; damage in the structure ends it, because
//! no record says how long it is.

use super::keys::{Keys, is_of_the_source};
use super::{Counted, Finding, Kind, Report, aof};
use crate::report::Failure;
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::parts::Counts;
use dfsnap_formats::rdb::reader::{Header, Options, RdbError, RdbReader, Record};
use std::io::{Cursor, Read};
use std::path::Path;

/// What is read of a file.
pub struct File<'f> {
    /// For failures.
    pub path: &'f Path,
    /// For findings.
    pub name: &'f str,
    pub bytes: Option<u64>,
}

/// Reads all of it. A source that fails, and a file that is no dump we know, are failures.
pub fn check(
    file: &File<'_>,
    source: impl Read,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let options = Options {
        source_bytes: file.bytes,
        ..Options::default()
    };
    let mut reader = RdbReader::new(Counted::new(source), options);
    let mut header = Header {
        flavor: Flavor::Redis,
        version: 0,
    };
    let (mut db, mut whole) = (0, false);
    loop {
        let next = match reader.next_up_to(keys.whole_bytes()) {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(RdbError::Failed { .. }) => break,
            Err(error) if is_of_the_source(&error) => {
                return Err(Failure::read(file.path, &error));
            }
            Err(error) => {
                whole |= matches!(error, RdbError::Checksum { .. });
                report.finding(Finding::of_rdb(file.name, None, &error));
                continue;
            }
        };
        match next {
            Next::Large(key) => {
                if !keys.note_large(report, file.name, &key) {
                    continue;
                }
                let named = (key.offset, key.db, key.key.to_vec());
                large(file, &mut reader, named, keys, report)?;
            }
            Next::Record(Record::Key(key)) => {
                if keys.note(report, file.name, None, &key) {
                    keys.value(report, file.name, None, &key);
                }
            }
            Next::Record(record) => match &record {
                Record::Header(found) => header = *found,
                Record::SelectDb(selected) => db = *selected,
                Record::ResizeDb { keys: all, expires } => keys.hint(db, *all, *expires),
                Record::End(_) => whole = true,
                _ => {}
            },
        }
    }
    keys.look_up(report, file.name);
    report.complete &= whole;
    keys.compare_hints(report, file.name, header, whole);
    let offset = reader.offset();
    let is_dragonfly = reader.header().flavor == Flavor::Dragonfly;
    let (ahead, rest) = reader.into_parts();
    let filling = match is_dragonfly {
        true => super::dfs::PADDING_MAX,
        false => 1,
    };
    behind(file, (offset, filling), ahead, rest, whole, report)
}

/// Walks a value that is larger than what is to be in memory.
fn large(
    file: &File<'_>,
    reader: &mut RdbReader<impl Read>,
    (offset, db, key): (u64, u32, Vec<u8>),
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut walked = Counts::default();
    let result = reader.large_parts(&mut keys.walk, |part| {
        walked.take(&part);
        Ok::<_, RdbError>(())
    });
    match result {
        Ok(()) => keys.walked(report, file.name, (offset, db, &key), walked),
        Err(error) if is_of_the_source(&error) => return Err(Failure::read(file.path, &error)),
        Err(error) => report.finding(Finding::of_rdb(file.name, None, &error)),
    }
    Ok(())
}

/// What stands behind the end of the dump: commands, as in an append-only file, or what does not belong there.
fn behind(
    file: &File<'_>,
    (offset, filling): (u64, u64),
    ahead: Vec<u8>,
    mut rest: Counted<impl Read>,
    whole: bool,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut first = ahead;
    if first.is_empty() {
        let one = (&mut rest).take(1).read_to_end(&mut first);
        one.map_err(|error| super::unreadable(file.path, &error))?;
    }
    let read_before = rest.bytes - first.len() as u64;
    match first.first() {
        Some(b'*' | b'#') if whole => {
            report.format = "aof";
            let file = File {
                bytes: None,
                ..*file
            };
            let source = Cursor::new(first).chain(rest.source);
            report.bytes += read_before;
            let clock = &mut aof::Clock::default();
            aof::commands(&file, offset, true, source, clock, report)
        }
        found => {
            let any = found.is_some() && whole;
            let copied = std::io::copy(&mut rest, &mut std::io::sink());
            copied.map_err(|error| super::unreadable(file.path, &error))?;
            report.bytes += rest.bytes;
            // Dragonfly fills its last block.
            if any && rest.bytes - offset >= filling {
                let message = format!(
                    "offset {offset}: {} bytes behind the end of the dump",
                    rest.bytes - offset
                );
                let finding = Finding::new(file.name, Kind::TrailingBytes, Some(offset), message);
                report.finding(finding);
            }
            Ok(())
        }
    }
}
