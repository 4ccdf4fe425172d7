//! Salvaging a DFS set: whatever files of it are there, each as far as its lenient reader gets.

use super::{Lost, Salvage};
use crate::check::{dfs, unreadable};
use crate::report::Failure;
use crate::source::progress::Progress;
use dfsnap_formats::dfs::DfsError;
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::reader::{DfsReader, Options, Place};
use dfsnap_formats::dfs::set::Facts;
use dfsnap_formats::error::Damage;
use dfsnap_formats::rdb::record::{RdbError, Record};
use std::path::Path;

/// More missing files are not named one by one.
const NAMED_MAX: u64 = 1000;

pub(super) fn salvage(salvage: &mut Salvage, folder: &Path, base: &str) -> Result<(), Failure> {
    let mut names: Vec<String> = dfs::names(folder, base)?
        .into_iter()
        .filter(|(_, is_temporary)| !is_temporary)
        .map(|(name, _)| name)
        .collect();
    names.sort();
    let progress = Progress::of_files(names.iter().map(|name| folder.join(name)));
    let (mut ids, mut count) = (Vec::new(), None);
    for name in &names {
        let facts = file(salvage, folder, name, &progress)?;
        let number = facts.shard_count.as_deref();
        let number = number.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        count = count.max(number);
        ids.push(facts.snapshot_id);
    }
    for (name, id) in names.iter().zip(&ids) {
        if *id != ids[0] {
            salvage.note(format!(
                "{name}: is of another snapshot than {}: its keys are from another moment",
                names[0]
            ));
        }
    }
    let Some(count) = count else {
        let name = Name::of(base, Member::Summary);
        let why = "not there or not readable; how many files the set had is not known".to_owned();
        salvage.lost(Lost::whole(&name, why));
        return Ok(());
    };
    for shard in 0..count.min(NAMED_MAX) {
        let name = format!("{base}-{shard:04}.dfs");
        if !names.contains(&name) {
            salvage.lost(Lost::whole(
                &name,
                "not there, with all of its keys".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Everything that can be read of one file.
fn file(
    salvage: &mut Salvage,
    folder: &Path,
    name: &str,
    progress: &Progress,
) -> Result<Facts, Failure> {
    let path = folder.join(name);
    let fail = |error: std::io::Error| unreadable(&path, &error);
    let source = std::fs::File::open(&path).map_err(fail)?;
    let bytes = source.metadata().map_err(fail)?.len();
    let options = Options {
        source_bytes: Some(bytes),
        lenient: true,
        ..Options::default()
    };
    let mut reader = DfsReader::new(progress.watch(Box::new(source)), options);
    let mut facts = Facts::default();
    loop {
        let placed = match reader.next() {
            Ok(Some(placed)) => placed,
            Ok(None) => break,
            Err(DfsError::File(RdbError::Io { source, .. })) => return Err(fail(source)),
            Err(error) => {
                salvage.lost(Lost::range(name, 0, bytes, error.to_string()));
                break;
            }
        };
        facts.note(&placed.record);
        if let Record::Key(key) = &placed.record {
            let walked =
                salvage.walk.value(
                    key.flavor,
                    key.type_code,
                    key.value,
                    |_| Ok::<_, Damage>(()),
                );
            if let Err(damage) = walked {
                let why = key.damaged(damage).to_string();
                let why = match placed.place {
                    Place::File => why,
                    Place::Blob { offset } | Place::Chunks { offset } => {
                        format!("inside the blob at {offset}, expanded: {why}")
                    }
                };
                let lost = Lost::whole(name, why);
                salvage.lost(lost.of_key(Some(key.db), key.key));
                continue;
            }
        }
        let is_placed = placed.place == Place::File;
        salvage.record(&path, name, is_placed, &placed.record)?;
    }
    for skipped in reader.skipped() {
        let to = skipped.offset + skipped.bytes;
        let lost = Lost::range(name, skipped.offset, to, skipped.why.to_string());
        salvage.lost(match &skipped.why {
            DfsError::File(RdbError::Value { db, key, .. })
            | DfsError::InBlob {
                error: RdbError::Value { db, key, .. },
                ..
            } => lost.of_key(Some(*db), key),
            _ => lost,
        });
    }
    Ok(facts)
}
