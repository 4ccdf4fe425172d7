//! Names of the files of a set, and the id that all of them carry.
//!
//! Whoever lists a folder asks here which file belongs to which set; whoever writes a set asks for its names.
//!
//! ```text
//! <base>-0000.dfs … <base>-9999.dfs     shards, four digits
//! <base>-summary.dfs                    written last by Dragonfly
//! <base>-manifest.json                  ours, written after the summary
//! any of them with .tmp behind it       being written, or left over
//! ```

/// What a file is in its set. In the order in which files of a set are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// 0 to `SHARD_MAX`.
    Shard(u16),
    Summary,
    Manifest,
}

/// Four digits: Dragonfly looks for four characters.
pub const SHARD_MAX: u16 = 9999;

const SUMMARY: &str = "-summary.dfs";
const MANIFEST: &str = "-manifest.json";
const SHARD: &str = ".dfs";
const TEMPORARY: &str = ".tmp";

/// A file name that belongs to a set.
///
/// ```
/// use dfsnap_formats::dfs::names::{Member, Name};
/// let name = Name::parse("dump-0003.dfs.tmp").unwrap();
/// assert_eq!((name.base, name.member, name.is_temporary), ("dump", Member::Shard(3), true));
/// assert_eq!(Name::of("dump", Member::Summary), "dump-summary.dfs");
/// assert_eq!(Name::parse("dump.rdb"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// What all files of the set have in common.
    pub base: &'a str,
    pub member: Member,
    pub is_temporary: bool,
}

impl<'a> Name<'a> {
    /// None: no file of a set. `name` is without folders.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (name, is_temporary) = match name.strip_suffix(TEMPORARY) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (base, member) = if let Some(base) = name.strip_suffix(SUMMARY) {
            (base, Member::Summary)
        } else if let Some(base) = name.strip_suffix(MANIFEST) {
            (base, Member::Manifest)
        } else {
            let (base, digits) = name.strip_suffix(SHARD)?.rsplit_once('-')?;
            if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            (base, Member::Shard(digits.parse().ok()?))
        };
        let whole = !base.is_empty() && !base.contains('/');
        whole.then_some(Name {
            base,
            member,
            is_temporary,
        })
    }

    /// The final name of a member.
    pub fn of(base: &str, member: Member) -> String {
        match member {
            Member::Shard(id) => format!("{base}-{id:04}{SHARD}"),
            Member::Summary => format!("{base}{SUMMARY}"),
            Member::Manifest => format!("{base}{MANIFEST}"),
        }
    }
}

/// Why Dragonfly would not load a set of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    #[error("a set needs a name")]
    Empty,
    #[error("name of a set: {base:?} has {found:?} in it, which {why}")]
    Character {
        base: String,
        found: String,
        why: &'static str,
    },
}

/// Whether a set may be written under this name so that Dragonfly finds all of it.
pub fn check_base(base: &str) -> Result<(), BaseError> {
    if base.is_empty() {
        return Err(BaseError::Empty);
    }
    let rows = [
        ("/", "separates folders"),
        (".", "starts an extension, and the name of a set has none"),
        ("\"", "Dragonfly refuses"),
        ("%", "Dragonfly takes for a part of the date"),
        ("{", "Dragonfly takes for a part of the date"),
        ("*", "Dragonfly takes for any name"),
        ("?", "Dragonfly takes for any character"),
        ("[", "Dragonfly takes for a choice of characters"),
        ("summary", "Dragonfly replaces when it looks for the shards"),
    ];
    for (found, why) in rows {
        if base.contains(found) {
            let (base, found) = (base.to_owned(), found.to_owned());
            return Err(BaseError::Character { base, found, why });
        }
    }
    Ok(())
}

/// The id of a snapshot: 32 lower-case hexadecimal digits in files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub [u8; 16]);

impl SnapshotId {
    /// None: not 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u128::from_str_radix(digits.then_some(text)?, 16).ok()?;
        Some(SnapshotId(number.to_be_bytes()))
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others() {
        let rows = [
            ("dump-0000.dfs", Some(("dump", Member::Shard(0), false))),
            ("a-b-9999.dfs", Some(("a-b", Member::Shard(9999), false))),
            ("dump-summary.dfs", Some(("dump", Member::Summary, false))),
            (
                "dump-summary.dfs.tmp",
                Some(("dump", Member::Summary, true)),
            ),
            (
                "dump-manifest.json",
                Some(("dump", Member::Manifest, false)),
            ),
            (
                "dump-2026-11-26T10:00:00-0012.dfs",
                Some(("dump-2026-11-26T10:00:00", Member::Shard(12), false)),
            ),
            ("dump-000.dfs", None),
            ("dump-00000.dfs", None),
            ("dump-00a0.dfs", None),
            ("-0000.dfs", None),
            ("x/dump-0000.dfs", None),
            ("0000.dfs", None),
            ("dump.dfs", None),
            ("-summary.dfs", None),
            ("dump-\u{0661}\u{0661}.dfs", None),
            ("", None),
        ];
        for (text, want) in rows {
            let got = Name::parse(text);
            let found = got.map(|name| (name.base, name.member, name.is_temporary));
            assert_eq!(found, want, "{text}");
            if let Some(name) = got {
                let again = Name::of(name.base, name.member);
                assert_eq!(text.trim_end_matches(".tmp"), again, "{text}");
            }
        }
    }

    #[test]
    fn bases_that_dragonfly_would_not_find_are_refused() {
        for base in ["dump", "dump-2026-11-26T10:00:00", "d\u{e4}mp", "my dump"] {
            assert_eq!(check_base(base), Ok(()), "{base}");
        }
        for base in [
            "",
            "a.b",
            "a/b",
            "\"a",
            "a%d",
            "{Y}",
            "summary",
            "x-summary-y",
            "a*",
        ] {
            assert!(check_base(base).is_err(), "{base}");
        }
    }

    #[test]
    fn ids_are_32_digits() {
        let id = SnapshotId::parse("0e62c015f6540831d702fcb5355e03b8").unwrap();
        assert_eq!(id.to_string(), "0e62c015f6540831d702fcb5355e03b8");
        for text in [
            "",
            "0e62",
            &"+".repeat(32),
            &"0".repeat(33),
            &"\u{e4}".repeat(16),
        ] {
            assert_eq!(SnapshotId::parse(text), None, "{text}");
        }
    }
}
