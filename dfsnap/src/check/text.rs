//! JSON and NDJSON: every item is read as it would be for writing it elsewhere.

use super::keys::Keys;
use super::rdb::File;
use super::{Counted, Finding, Kind, Report};
use crate::report::Failure;
use dfsnap_formats::dataset::Item;
use dfsnap_formats::error::Problem;
use dfsnap_formats::json::{JsonError, JsonReader, Options};
use std::io::Read;

pub fn check(
    file: &File<'_>,
    source: impl Read,
    keys: &mut Keys,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut counted = Counted::new(source);
    let mut reader = JsonReader::new(&mut counted, Options::default());
    loop {
        // Of the first byte that may belong to the item.
        let offset = reader.offset();
        match reader.next() {
            Ok(None) => break,
            Ok(Some(Item::Entry(entry))) => {
                keys.note_entry(report, file.name, offset, &entry);
            }
            Ok(Some(_)) => {}
            Err(JsonError::Io { source, .. }) => {
                return Err(super::unreadable(file.path, &source));
            }
            Err(error) => {
                report.finding(finding(file.name, &error));
                if !matches!(error, JsonError::Item { .. }) {
                    report.complete = false;
                    break;
                }
            }
        }
    }
    drop(reader);
    keys.look_up(report, file.name);
    report.bytes += counted.bytes;
    Ok(())
}

fn finding(name: &str, error: &JsonError) -> Finding {
    let message = error.to_string();
    match error {
        JsonError::Text { damage, .. } => {
            let kind = match damage.problem {
                Problem::Truncated { .. } => Kind::Cut,
                _ => Kind::Structure,
            };
            Finding::new(name, kind, Some(damage.offset), message)
        }
        JsonError::Item { key, damage, .. } => {
            let finding = Finding::new(name, Kind::Value, Some(damage.offset), message);
            match key {
                Some(key) => Finding {
                    key: Some(crate::report::key(key)),
                    ..finding
                },
                None => finding,
            }
        }
        JsonError::Io { offset, .. } | JsonError::Failed { offset } => {
            Finding::new(name, Kind::Structure, Some(*offset), message)
        }
    }
}
