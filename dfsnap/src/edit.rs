//! What becomes of keys on their way to where they are written: other names, other databases, another expiry.
//!
//! Sources apply it behind the filter, so that verbs see keys as they will be; filters see them as they were.
//!
//! Invariant: no two keys become one. Where names or databases change, each key that was handed out is remembered by a hash.

use crate::filter::duration_ms;
use crate::report::{self, Failure};
use clap::Args;
use dfsnap_formats::dataset::{Attributes, Entry};
use dfsnap_formats::rdb::record::KeyRecord;
use foldhash::fast::FixedState;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;

/// What becomes of the keys that pass the filter
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Changes")]
pub struct EditArgs {
    /// Give keys in which REGEX matches another name: '^user:(\d+)=>account:$1'. The first that matches counts
    #[arg(long, value_name = "REGEX=>TEXT", value_parser = Rename::parse)]
    pub rename: Vec<Rename>,
    /// Let keys expire so long from now, as 90s, 15m, 2h or 7d; or none of them
    #[arg(long, value_name = "DURATION|none", value_parser = NewTtl::parse)]
    pub set_ttl: Option<NewTtl>,
    /// Move all keys to database N, or those of database FROM to database TO
    #[arg(long, value_name = "N|FROM=TO", value_delimiter = ',', value_parser = Move::parse)]
    pub to_db: Vec<Move>,
}

/// Another name for the keys in which an expression matches.
#[derive(Debug, Clone)]
pub struct Rename {
    from: Regex,
    /// With `$1` and `$name` for what groups matched.
    to: Vec<u8>,
}

impl Rename {
    fn parse(text: &str) -> Result<Self, String> {
        let (from, to) = text
            .split_once("=>")
            .ok_or("wanted REGEX=>TEXT, as in ^old:=>new:")?;
        Ok(Rename {
            from: Regex::new(from).map_err(|error| error.to_string())?,
            to: to.as_bytes().to_vec(),
        })
    }
}

impl EditArgs {
    /// `--rename` and `--to-db` as they are typed.
    pub fn names_as_typed(&self) -> Vec<String> {
        let renames = self.rename.iter().map(|rename| {
            let to = String::from_utf8_lossy(&rename.to);
            format!("--rename {}=>{to}", rename.from)
        });
        let moves = self.to_db.iter().map(|it| match it.from {
            Some(from) => format!("--to-db {from}={}", it.to),
            None => format!("--to-db {}", it.to),
        });
        renames.chain(moves).collect()
    }
}

/// What expiry keys get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTtl {
    None,
    /// Milliseconds from now.
    In(i64),
}

impl NewTtl {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(NewTtl::None),
            _ => match duration_ms(text)? {
                ms @ 1.. => Ok(NewTtl::In(ms)),
                _ => Err("wanted more than nothing; none lets keys live for ever".to_owned()),
            },
        }
    }
}

/// Where keys of a database go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// None: of any database.
    from: Option<u32>,
    to: u32,
}

impl Move {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let parsed = text.parse::<u32>();
            parsed.map_err(|_| format!("{text}: wanted the number of a database"))
        };
        Ok(match text.split_once('=') {
            Some((from, to)) => Move {
                from: Some(number(from)?),
                to: number(to)?,
            },
            None => Move {
                from: None,
                to: number(text)?,
            },
        })
    }
}

/// The changes, and what they have led to so far.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    args: EditArgs,
    now_ms: i64,
    /// What becomes of expiries, behind what the options say.
    expiry: Option<fn(i64) -> i64>,
    /// Hashes of databases and names that were handed out.
    seen: HashSet<u64, FixedState>,
}

impl Edit {
    pub fn new(args: &EditArgs, now_ms: i64) -> Self {
        Edit {
            args: args.clone(),
            now_ms,
            expiry: None,
            seen: HashSet::default(),
        }
    }

    /// Every expiry goes through `change`.
    pub fn with_expiries(self, change: fn(i64) -> i64) -> Self {
        Edit {
            expiry: Some(change),
            ..self
        }
    }

    /// Whether keys get other names, other databases.
    pub fn renames(&self) -> bool {
        !self.args.rename.is_empty()
    }

    pub fn moves(&self) -> bool {
        !self.args.to_db.is_empty()
    }

    /// Whether keys stay as they are.
    pub fn is_idle(&self) -> bool {
        let args = &self.args;
        let is_asked = args.set_ttl.is_some() || self.expiry.is_some();
        args.rename.is_empty() && !is_asked && args.to_db.is_empty()
    }

    /// Where keys of a database go.
    pub fn db(&self, db: u32) -> u32 {
        let mut moves = self.args.to_db.iter();
        let found = moves.find(|it| it.from.is_none_or(|from| from == db));
        found.map_or(db, |it| it.to)
    }

    /// The name that a key gets.
    pub fn name<'k>(&self, key: &'k [u8]) -> Cow<'k, [u8]> {
        let mut renames = self.args.rename.iter();
        match renames.find(|rename| rename.from.is_match(key)) {
            Some(rename) => rename.from.replacen(key, 1, rename.to.as_slice()),
            None => Cow::Borrowed(key),
        }
    }

    fn attributes(&self, attributes: Attributes) -> Attributes {
        let expire_at_ms = match self.args.set_ttl {
            None => attributes.expire_at_ms,
            Some(NewTtl::None) => None,
            Some(NewTtl::In(ms)) => Some(self.now_ms.saturating_add(ms)),
        };
        let expire_at_ms = match self.expiry {
            Some(change) => expire_at_ms.map(change),
            None => expire_at_ms,
        };
        Attributes {
            expire_at_ms,
            ..attributes
        }
    }

    /// The database and the name that a key gets, which no other may have got.
    fn place<'k>(&mut self, db: u32, key: &'k [u8]) -> Result<(u32, Cow<'k, [u8]>), Failure> {
        if self.args.rename.is_empty() && self.args.to_db.is_empty() {
            return Ok((db, Cow::Borrowed(key)));
        }
        let (new_db, name) = (self.db(db), self.name(key));
        let hash = FixedState::default().hash_one((new_db, &*name));
        if !self.seen.insert(hash) {
            return Err(Failure {
                message: format!(
                    "key {} of database {db} becomes {} in database {new_db}, and so does a key before it",
                    report::key(key),
                    report::key(&name)
                ),
                advice: "change --rename or --to-db so that each key gets a name of its own, or leave keys out with --match or --db"
                    .to_owned(),
            });
        }
        Ok((new_db, name))
    }

    /// Hands `record` to `take` as it is to be.
    pub fn record<T>(
        &mut self,
        record: &KeyRecord<'_>,
        take: impl FnOnce(&KeyRecord<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (db, key) = self.place(record.db, record.key)?;
        take(&KeyRecord {
            db,
            key: &key,
            attributes: self.attributes(record.attributes),
            ..record.clone()
        })
    }

    pub fn entry(&mut self, entry: &Entry) -> Result<Entry, Failure> {
        let (db, key) = self.place(entry.db, &entry.key)?;
        Ok(Entry {
            db,
            key: key.into_owned(),
            attributes: self.attributes(entry.attributes),
            value: entry.value.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::value::Value;

    fn edit(rename: &[&str], ttl: Option<&str>, to_db: &[&str]) -> Edit {
        let args = EditArgs {
            rename: rename.iter().map(|it| Rename::parse(it).unwrap()).collect(),
            set_ttl: ttl.map(|text| NewTtl::parse(text).unwrap()),
            to_db: to_db
                .iter()
                .map(|text| Move::parse(text).unwrap())
                .collect(),
        };
        Edit::new(&args, 1_000_000)
    }

    fn entry(db: u32, key: &str) -> Entry {
        let mut entry = Entry::new(db, key.as_bytes(), Value::String(b"v".to_vec()));
        entry.attributes.expire_at_ms = Some(5);
        entry
    }

    #[test]
    fn keys_get_names_databases_and_expiries() {
        let mut edit = edit(
            &[r"^user:(\d+)$=>account:$1", "^user:=>other:"],
            Some("2s"),
            &["1=5", "7"],
        );
        for (db, key, new_db, name) in [
            (0, "user:17", 7, "account:17"),
            (1, "user:x", 5, "other:x"),
            (1, "session", 5, "session"),
        ] {
            let got = edit.entry(&entry(db, key)).unwrap();
            assert_eq!((got.db, got.key.as_slice()), (new_db, name.as_bytes()));
            assert_eq!(got.attributes.expire_at_ms, Some(1_002_000));
        }
        let lasting = self::edit(&[], Some("none"), &[])
            .entry(&entry(0, "a"))
            .unwrap();
        assert_eq!(lasting.attributes.expire_at_ms, None);
    }

    #[test]
    fn two_keys_never_become_one() {
        let mut moved = edit(&[], None, &["0"]);
        moved.entry(&entry(0, "a")).unwrap();
        let error = moved.entry(&entry(1, "a")).unwrap_err();
        assert_eq!(
            error.message,
            "key a of database 1 becomes a in database 0, and so does a key before it"
        );
        let mut renamed = edit(&["^old:=>new:"], None, &[]);
        renamed.entry(&entry(0, "new:1")).unwrap();
        assert!(renamed.entry(&entry(0, "old:1")).is_err());
        renamed.entry(&entry(1, "old:1")).unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Rename::parse("a=b").is_err() && Rename::parse("(=>b").is_err());
        assert!(NewTtl::parse("0s").is_err() && NewTtl::parse("-5s").is_err());
        assert!(Move::parse("x").is_err() && Move::parse("1=").is_err());
    }
}
