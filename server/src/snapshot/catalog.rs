//! The snapshots in the data directory: what they are called, which is the newest, which may go.
//!
//! `dbfilename` names them. A set of DFS files always has the time in its name, an RDB file where the setting says `{timestamp}`:
//! then each save makes a new one, and the one before stays untouched whatever happens.
//!
//! ```text
//! dump.rdb               an RDB file dump.rdb, and sets dump-2026-11-27T02-05-42-123-0000.dfs …
//! dump-{timestamp}.rdb   RDB files dump-2026-11-27T02-05-42-123.rdb, and sets as above
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, NaiveDateTime};
use dfsnap_formats::dfs::manifest::Manifest;
use dfsnap_formats::dfs::names::{Member, Name};

use super::fault;
use super::file;

/// Stands for the time of the save.
pub const TIMESTAMP: &str = "{timestamp}";
/// UTC, to the second; milliseconds follow behind a dash.
const TIME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S";
const RDB: &str = ".rdb";
/// What a replica writes of its primary's payload, behind the temporary prefix. It never gets this name.
pub const PAYLOAD: &str = "sync.rdb";

/// How snapshots are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Of RDB files, with `{timestamp}` or without.
    rdb: String,
    /// What names of sets start with, in front of the time, and end with.
    set: (String, String),
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file.
    Rdb,
    /// Files of this base name.
    Set(String),
}

/// A snapshot in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Unix ms: from its name, else when its last file was written.
    pub taken_ms: i64,
    /// Whether the time is in its name: then it is one of many.
    pub is_timed: bool,
    /// What it is.
    pub kind: Kind,
    /// The RDB file, or the directory of the set.
    pub path: PathBuf,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Rdb => write!(f, "{}", self.path.display()),
            Kind::Set(base) => write!(f, "{}", self.path.join(base).display()),
        }
    }
}

/// The text of a time in names.
fn timestamp(at_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
    format!("{}-{:03}", time.format(TIME_FORMAT), at_ms.rem_euclid(1000))
}

fn parse_timestamp(text: &str) -> Option<i64> {
    let (time, millis) = text
        .rsplit_once('-')
        .filter(|(_, millis)| millis.len() == 3)?;
    let time = NaiveDateTime::parse_from_str(time, TIME_FORMAT).ok()?;
    Some(time.and_utc().timestamp_millis() + millis.parse::<i64>().ok()?)
}

impl Naming {
    /// The naming that `dbfilename` asks for.
    pub fn new(dbfilename: &str) -> Naming {
        let stem = dbfilename.strip_suffix(RDB).unwrap_or(dbfilename);
        let set = match stem.split_once(TIMESTAMP) {
            Some((before, after)) => (before.to_owned(), after.to_owned()),
            None => (format!("{stem}-"), String::new()),
        };
        Naming {
            rdb: dbfilename.to_owned(),
            set,
        }
    }

    /// The name of an RDB file saved now.
    pub fn rdb(&self, now_ms: i64) -> String {
        self.rdb.replace(TIMESTAMP, &timestamp(now_ms))
    }

    /// The base name of a set saved now.
    pub fn set(&self, now_ms: i64) -> String {
        format!("{}{}{}", self.set.0, timestamp(now_ms), self.set.1)
    }

    /// When an RDB file of this name was saved, if the time is in it; `None` if it is no snapshot of this naming.
    fn of_rdb(&self, name: &str) -> Option<Option<i64>> {
        match self.rdb.split_once(TIMESTAMP) {
            None => (name == self.rdb).then_some(None),
            Some((before, after)) => {
                let time = name.strip_prefix(before)?.strip_suffix(after)?;
                parse_timestamp(time).map(Some)
            }
        }
    }

    /// When a set of this base was saved, if the time is in it as we write it. Dragonfly has other forms.
    fn of_set(&self, base: &str) -> Option<Option<i64>> {
        let rest = base.strip_prefix(&self.set.0);
        let time = rest.and_then(|rest| rest.strip_suffix(&self.set.1[..]));
        match time {
            Some(time) => Some(parse_timestamp(time)),
            // A set that was saved without a time.
            None => (base == self.set.0.trim_end_matches('-')).then_some(None),
        }
    }

    /// Snapshots in a directory, newest first.
    pub fn list(&self, directory: &Path) -> io::Result<Vec<Found>> {
        let mut found: Vec<Found> = Vec::new();
        fault::operation()?;
        for file in std::fs::read_dir(directory)? {
            let file = file?;
            let Some(name) = file.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let (timed_ms, kind, path) = if let Some(timed_ms) = self.of_rdb(&name) {
                (timed_ms, Kind::Rdb, file.path())
            } else if let Some(member) = Name::parse(&name).filter(|name| !name.is_temporary)
                && let Some(timed_ms) = self.of_set(member.base)
            {
                (
                    timed_ms,
                    Kind::Set(member.base.to_owned()),
                    directory.to_owned(),
                )
            } else {
                continue;
            };
            let modified = file.metadata()?.modified()?.duration_since(UNIX_EPOCH);
            let modified_ms = modified.map_or(0, |passed| passed.as_millis() as i64);
            let taken_ms = timed_ms.unwrap_or(modified_ms);
            match found
                .iter_mut()
                .find(|other| other.kind == kind && other.path == path)
            {
                Some(other) => other.taken_ms = other.taken_ms.max(taken_ms),
                None => found.push(Found {
                    taken_ms,
                    is_timed: timed_ms.is_some(),
                    kind,
                    path,
                }),
            }
        }
        found.sort_by(|a, b| (b.taken_ms, &b.path).cmp(&(a.taken_ms, &a.path)));
        Ok(found)
    }

    /// Removes what saves left behind whose process has gone, in the data directory and in those that files of sets go to.
    pub fn remove_leftovers(&self, directory: &Path, others: &[PathBuf]) {
        for folder in std::iter::once(directory).chain(others.iter().map(PathBuf::as_path)) {
            self.remove_leftovers_in(folder, others);
        }
    }

    /// Removes what this process was writing, at its end: RDB files and payloads. Of a set the next start finds out what may go.
    pub fn remove_own(&self, directory: &Path) {
        let Ok(files) = std::fs::read_dir(directory) else {
            return;
        };
        for file in files.flatten() {
            let temporary = file.file_name().to_string_lossy().into_owned();
            let is_ours = file::own(&temporary)
                .is_some_and(|name| name == PAYLOAD || self.of_rdb(name).is_some());
            if is_ours {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    fn remove_leftovers_in(&self, directory: &Path, others: &[PathBuf]) {
        let Ok(files) = std::fs::read_dir(directory) else {
            return;
        };
        for file in files.flatten() {
            let temporary = file.file_name().to_string_lossy().into_owned();
            let Some(name) = file::abandoned(&temporary) else {
                continue;
            };
            let member = Name::parse(name).filter(|name| self.of_set(name.base).is_some());
            if member.is_none() && self.of_rdb(name).is_none() && name != PAYLOAD {
                continue;
            }
            tracing::info!(file = %file.path().display(), "removing what an interrupted save left behind");
            if member.is_some_and(|member| member.member == Member::Manifest) {
                remove_unfinished(directory, others, name, &file.path());
            }
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Removes the files of a set that had got their names when its manifest had not. The manifest under its temporary name says which.
fn remove_unfinished(directory: &Path, others: &[PathBuf], name: &str, manifest: &Path) {
    if directory.join(name).exists() {
        return;
    }
    let Ok(text) = std::fs::read(manifest) else {
        return;
    };
    // Cut off: then no file of the set had its name yet.
    let Ok(manifest) = Manifest::parse(&text) else {
        return;
    };
    for listed in &manifest.files {
        // Links in the directory before what they point to: a link alone would be taken for a file of another set.
        for folder in std::iter::once(directory).chain(others.iter().map(PathBuf::as_path)) {
            let path = folder.join(&listed.name);
            if std::fs::metadata(&path).is_ok_and(|file| file.len() == listed.sums.bytes) {
                tracing::info!(file = %path.display(), "removing a file of a set that was not finished");
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// How many snapshots stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many; 0 = all.
    pub count: usize,
    /// Not older than this, in seconds; 0 = whatever their age.
    pub age_s: u64,
}

impl Retention {
    /// Those that may go, of a list that is newest first. The newest never goes, nor what has no time in its name.
    pub fn excess<'a>(&self, found: &'a [Found], now_ms: i64) -> Vec<&'a Found> {
        let oldest_ms = now_ms.saturating_sub_unsigned(self.age_s.saturating_mul(1000));
        let timed = found.iter().filter(|found| found.is_timed).enumerate();
        timed
            .skip(1)
            .filter(|(at, found)| {
                let is_beyond = self.count > 0 && *at >= self.count;
                let is_old = self.age_s > 0 && found.taken_ms < oldest_ms;
                is_beyond || is_old
            })
            .map(|(_, found)| found)
            .collect()
    }
}

/// Removes a snapshot: of a set, the manifest first, so that what is left of it is never taken for whole. Of a file in another directory,
/// what the link points to and then the link: without it nobody would find the file.
pub fn remove(found: &Found) -> io::Result<()> {
    let Kind::Set(base) = &found.kind else {
        fault::operation()?;
        return std::fs::remove_file(&found.path);
    };
    let mut members = Vec::new();
    for file in std::fs::read_dir(&found.path)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if let Some(parsed) = Name::parse(&name).filter(|parsed| parsed.base == base) {
            members.push((parsed.member, name.clone()));
        }
    }
    members.sort_by(|a, b| b.cmp(a));
    for (_, name) in members {
        let path = found.path.join(&name);
        if let Some(file) = linked(&path, &name) {
            fault::operation()?;
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fault::operation()?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The file that a link of ours stands for: it has the same name, in another directory.
fn linked(path: &Path, name: &str) -> Option<PathBuf> {
    let file = std::fs::read_link(path).ok()?;
    (file.is_absolute() && file.file_name()? == name).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MS: i64 = 1_795_745_142_123;

    #[test]
    fn names_of_both_forms_are_found_again() {
        let rows = [
            ("dump.rdb", "dump.rdb", "dump-2026-11-27T02-05-42-123"),
            ("x", "x", "x-2026-11-27T02-05-42-123"),
            (
                "a-{timestamp}.rdb",
                "a-2026-11-27T02-05-42-123.rdb",
                "a-2026-11-27T02-05-42-123",
            ),
            (
                "{timestamp}-b.rdb",
                "2026-11-27T02-05-42-123-b.rdb",
                "2026-11-27T02-05-42-123-b",
            ),
        ];
        for (setting, rdb, set) in rows {
            let naming = Naming::new(setting);
            assert_eq!(naming.rdb(AT_MS), rdb, "{setting}");
            assert_eq!(naming.set(AT_MS), set, "{setting}");
            let timed = setting.contains(TIMESTAMP).then_some(AT_MS);
            assert_eq!(naming.of_rdb(rdb), Some(timed), "{setting}");
            assert_eq!(naming.of_set(set), Some(Some(AT_MS)), "{setting}");
            assert_eq!(naming.of_rdb("other.rdb"), None, "{setting}");
            assert_eq!(naming.of_set("other"), None, "{setting}");
        }
        // As Dragonfly names its own.
        let naming = Naming::new("dump.rdb");
        assert_eq!(naming.of_set("dump-2024-05-01T10:00:00"), Some(None));
        assert_eq!(naming.of_set("dump"), Some(None));
    }

    #[test]
    fn the_newest_snapshot_stays_whatever_the_retention() {
        let found = |taken_ms, is_timed| Found {
            taken_ms,
            is_timed,
            kind: Kind::Rdb,
            path: PathBuf::from(format!("{taken_ms}")),
        };
        let list = [
            found(9_000, true),
            found(8_000, false),
            found(7_000, true),
            found(6_000, true),
        ];
        let rows: [(usize, u64, &[i64]); 5] = [
            (0, 0, &[]),
            (1, 0, &[7_000, 6_000]),
            (2, 0, &[6_000]),
            (0, 3, &[6_000]),
            (5, 1, &[7_000, 6_000]),
        ];
        for (count, age_s, want) in rows {
            let excess = Retention { count, age_s }.excess(&list, 9_500 + 500);
            let gone: Vec<i64> = excess.iter().map(|found| found.taken_ms).collect();
            assert_eq!(gone, want, "{count} {age_s}");
        }
    }
}
