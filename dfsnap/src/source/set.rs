//! Whether the files of a set belong together and none is missing, by what they say of themselves in their first bytes.
//!
//! A verb that reads a set would otherwise take a part of it for the whole. `verify` looks deeper.

use super::files::open_file;
use crate::report::Failure;
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::reader::{DfsReader, Options};
use dfsnap_formats::dfs::set::Facts;
use dfsnap_formats::error::Shown;
use dfsnap_formats::rdb::record::Record;
use std::path::{Path, PathBuf};

/// `paths` are shards in order, then the summary.
pub(super) fn check(paths: &[PathBuf]) -> Result<(), Failure> {
    let Some((summary, shards)) = paths.split_last() else {
        return Ok(());
    };
    let member = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        Name::parse(name).map(|name| name.member)
    };
    if member(summary) != Some(Member::Summary) {
        return Err(failure(
            summary,
            "its set has no summary, which says how many files there must be".to_owned(),
        ));
    }
    let said = facts(summary)?;
    // Before Dragonfly 1.32 summaries do not say it.
    let count = said.shard_count.as_deref().and_then(|text| {
        let text = std::str::from_utf8(text).ok()?;
        text.parse::<usize>().ok()
    });
    if let Some(count) = count.filter(|count| *count != shards.len()) {
        return Err(failure(
            summary,
            format!("says {count} shards, but {} are there", shards.len()),
        ));
    }
    for path in shards {
        let found = facts(path)?.snapshot_id;
        if found != said.snapshot_id {
            let shown = |id: &Option<Vec<u8>>| match id {
                Some(id) => Shown(id).to_string(),
                None => "none".to_owned(),
            };
            return Err(failure(
                path,
                format!(
                    "snapshot id {}, but {} has {}",
                    shown(&found),
                    summary.display(),
                    shown(&said.snapshot_id)
                ),
            ));
        }
    }
    Ok(())
}

/// What stands before the keys of a file. Damage is told when the file is read.
fn facts(path: &Path) -> Result<Facts, Failure> {
    let (bytes, source_bytes) = open_file(path)?;
    let options = Options {
        source_bytes,
        ..Options::default()
    };
    let mut reader = DfsReader::new(bytes, options);
    let mut facts = Facts::default();
    while let Ok(Some(placed)) = reader.next() {
        match &placed.record {
            Record::Key(_) => break,
            record => facts.note(record),
        }
    }
    Ok(facts)
}

fn failure(path: &Path, what: String) -> Failure {
    Failure {
        message: format!("{}: {what}", path.display()),
        advice: format!(
            "dfsnap verify {} says what is wrong with the set; dfsnap salvage takes what is there",
            path.display()
        ),
    }
}
