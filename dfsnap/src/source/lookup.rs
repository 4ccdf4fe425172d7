//! Where in a set to look first for one key: the manifest tells which runs may have it, or, of a set that our server wrote, which file.
//!
//! What cannot have the key by the manifest is read last, in case that the manifest is wrong: whoever wants the key stops when it is found.

use dfsnap_formats::dfs::index::Run;
use dfsnap_formats::dfs::manifest::{FileEntry, Manifest};
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::placement::Placement;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is read of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub path: PathBuf,
    /// None: all of it.
    pub ranges: Option<Vec<Range<u64>>>,
}

impl Stretch {
    fn whole(path: &Path) -> Self {
        Stretch {
            path: path.to_owned(),
            ranges: None,
        }
    }

    /// The bytes, and how many they are.
    pub fn open(&self) -> io::Result<(Ranges, u64)> {
        let file = File::open(&self.path)?;
        let ranges = match &self.ranges {
            Some(ranges) => ranges.clone(),
            None => std::iter::once(0..file.metadata()?.len()).collect(),
        };
        let bytes = ranges.iter().map(|range| range.end - range.start).sum();
        Ok((Ranges::new(file, ranges)?, bytes))
    }
}

/// The files of a set, shards in order and the summary last, in the order in which they are to be read for a key.
pub(super) fn order(paths: &[PathBuf], key: &[u8]) -> Vec<Stretch> {
    let all = || paths.iter().map(|path| Stretch::whole(path));
    let Some(manifest) = manifest_of(paths) else {
        return all().collect();
    };
    let first = match manifest.files.iter().any(|file| !file.runs.is_empty()) {
        true => by_runs(paths, &manifest, key),
        false => by_hash(paths, &manifest, key),
    };
    let is_read = |path: &Path| {
        let mut read = first.iter();
        read.any(|stretch| stretch.path == path && stretch.ranges.is_none())
    };
    let rest: Vec<Stretch> = all().filter(|stretch| !is_read(&stretch.path)).collect();
    first.into_iter().chain(rest).collect()
}

/// None: there is none, or it is of other files.
fn manifest_of(paths: &[PathBuf]) -> Option<Manifest> {
    let summary = paths.last()?;
    let base = Name::parse(summary.file_name()?.to_str()?)?.base;
    let path = summary.with_file_name(Name::of(base, Member::Manifest));
    let manifest = Manifest::parse(&std::fs::read(path).ok()?).ok()?;
    let is_of = |path: &PathBuf| {
        let bytes = path.metadata().ok()?.len();
        Some(entry_of(&manifest, path)?.sums.bytes == bytes)
    };
    let are_all = paths.iter().all(|path| is_of(path) == Some(true));
    are_all.then_some(manifest)
}

fn entry_of<'m>(manifest: &'m Manifest, path: &Path) -> Option<&'m FileEntry> {
    let name = path.file_name()?.to_str()?;
    manifest.files.iter().find(|file| file.name == name)
}

/// Of each file that may have the key its header, the runs that may, and its end.
fn by_runs(paths: &[PathBuf], manifest: &Manifest, key: &[u8]) -> Vec<Stretch> {
    let of = |path: &PathBuf| {
        let file = entry_of(manifest, path)?;
        let (first, last) = (file.runs.first()?, file.runs.last()?);
        let found: Vec<&Run> = file.runs.iter().filter(|run| run.may_have(key)).collect();
        if found.is_empty() {
            return None;
        }
        let (head, end) = (0..first.from, last.end()..file.sums.bytes);
        let runs = found.iter().map(|run| run.from..run.end());
        let ranges = std::iter::once(head).chain(runs).chain([end]);
        Some(Stretch {
            path: path.clone(),
            ranges: Some(ranges.collect()),
        })
    };
    paths.iter().filter_map(of).collect()
}

/// The file of the shard that had the key.
fn by_hash(paths: &[PathBuf], manifest: &Manifest, key: &[u8]) -> Vec<Stretch> {
    let shards = paths.len().saturating_sub(1);
    let shard = manifest
        .hash_seed
        .map(|seed| Placement::new(seed, shards).shard_of(key));
    let path = shard.and_then(|shard| paths[..shards].get(shard));
    path.map(|path| Stretch::whole(path)).into_iter().collect()
}

/// Stretches of a file as if there was nothing between them.
#[derive(Debug)]
pub(super) struct Ranges {
    file: File,
    /// What is left of the present one, and those behind it in reverse.
    left: u64,
    later: Vec<Range<u64>>,
}

impl Ranges {
    fn new(file: File, ranges: Vec<Range<u64>>) -> io::Result<Self> {
        let mut ranges = Ranges {
            file,
            left: 0,
            later: ranges.into_iter().rev().collect(),
        };
        ranges.go_on()?;
        Ok(ranges)
    }

    /// To the next one with bytes, if there is any.
    fn go_on(&mut self) -> io::Result<()> {
        while self.left == 0 {
            let Some(next) = self.later.pop() else {
                return Ok(());
            };
            self.left = next.end.saturating_sub(next.start);
            self.file.seek(SeekFrom::Start(next.start))?;
        }
        Ok(())
    }
}

impl Read for Ranges {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut into[..most])?;
        self.left -= count as u64;
        // A file that became shorter ends here, whatever was to follow.
        if count > 0 {
            self.go_on()?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_one_stream() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..=255).collect();
        std::fs::write(&path, &bytes).unwrap();
        let stretch = Stretch {
            path,
            ranges: Some(vec![0..0, 3..10, 10..10, 250..256]),
        };
        let (mut ranges, count) = stretch.open().unwrap();
        let mut read = Vec::new();
        ranges.read_to_end(&mut read).unwrap();
        assert_eq!(read, [&bytes[3..10], &bytes[250..]].concat());
        assert_eq!(count, 13);
    }
}
