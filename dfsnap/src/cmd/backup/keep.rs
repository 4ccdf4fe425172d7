//! Backups by the clock: their names, and which of them may go.
//!
//! Invariants
//! - Only complete backups that were named here are counted and removed, and never the last one.

use crate::report::Failure;
use dfsnap_formats::dfs::names::{Member, Name};
use std::path::{Path, PathBuf};

const PREFIX: &str = "dump-";
const RDB: &str = ".rdb";
/// `20261126T233217Z`
const TIME_LEN: usize = 16;

/// The path of a backup made at this time; of a set without what its files end with.
pub fn path_at(folder: &Path, unix_s: i64, is_set: bool) -> PathBuf {
    let suffix = if is_set { "" } else { RDB };
    folder.join(format!("{PREFIX}{}{suffix}", compact_utc(unix_s)))
}

/// Removes all but the newest `keep` backups; the answer is the names that went.
pub fn trim(folder: &Path, keep: usize) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| Failure::write(folder, &error);
    let mut names = Vec::new();
    for item in std::fs::read_dir(folder).map_err(failed)? {
        names.extend(item.map_err(failed)?.file_name().into_string());
    }
    let mut complete: Vec<&str> = names.iter().filter_map(|name| complete(name)).collect();
    complete.sort_unstable();
    let keep = keep.max(1);
    let going = complete.len().saturating_sub(keep);
    let mut gone = Vec::new();
    for base in &complete[..going] {
        let mut files: Vec<&String> = names.iter().filter(|name| belongs(name, base)).collect();
        // What makes a set complete goes first: what is left of it is never taken for one.
        files.sort_by_key(
            |name| !matches!(Name::parse(name), Some(name) if name.member == Member::Manifest),
        );
        for file in files {
            std::fs::remove_file(folder.join(file)).map_err(failed)?;
        }
        gone.push((*base).to_owned());
    }
    Ok(gone)
}

/// What is common to the files of a complete backup, by the file that appears last.
fn complete(name: &str) -> Option<&str> {
    let base = match Name::parse(name) {
        Some(set) if set.member == Member::Manifest && !set.is_temporary => set.base,
        Some(_) => return None,
        None => name.strip_suffix(RDB)?,
    };
    let time = base.strip_prefix(PREFIX)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == TIME_LEN
        && time.is_ascii()
        && digits(&time[..8])
        && &time[8..9] == "T"
        && digits(&time[9..15])
        && time.ends_with('Z');
    is_time.then_some(base)
}

fn belongs(name: &str, base: &str) -> bool {
    match Name::parse(name) {
        Some(set) => set.base == base,
        None => name.strip_suffix(RDB) == Some(base),
    }
}

/// `20261126T233217Z`
fn compact_utc(unix_s: i64) -> String {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01. Years begin in March here, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let rows = [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_795_735_937, "20261126T233217Z"),
        ];
        for (unix_s, want) in rows {
            assert_eq!(compact_utc(unix_s), want);
        }
    }

    #[test]
    fn only_complete_backups_of_ours_go_and_never_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(folder.path().join(name), b"").unwrap();
        let others = [
            "dump.rdb",
            "dump-1.rdb",
            "dump-20260101T000009Z.rdb.tmp",
            "x-manifest.json",
        ];
        others.iter().for_each(|name| touch(name));
        touch("dump-20260101T000000Z.rdb");
        touch("dump-20260101T000001Z-0000.dfs");
        touch("dump-20260101T000001Z-summary.dfs");
        touch("dump-20260101T000001Z-manifest.json");
        touch("dump-20260101T000002Z.rdb");
        touch("dump-20260101T000003Z-0000.dfs"); // not complete
        assert_eq!(trim(folder.path(), 2).unwrap(), ["dump-20260101T000000Z"]);
        assert_eq!(trim(folder.path(), 0).unwrap(), ["dump-20260101T000001Z"]);
        assert_eq!(trim(folder.path(), 1).unwrap(), [""; 0]);
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, others.len() + 2);
    }
}
