//! Which changes of a stream pass the filter, and what becomes of them under other names and in other databases.
//!
//! `follow` asks what is to be printed, `migrate` what is to be sent. A stream has commands and no values: what cannot be told from a command
//! is refused, with what can be done about it.
//!
//! Invariants
//! - Whoever applies what passes, to what passed of the data before, has what passes of the data behind.
//! - No two keys become one (`names`).

pub mod names;

use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure};
use dfsnap_formats::command_keys::{Reach, reach};
use names::Names;
use std::borrow::Cow;
use std::ops::Range;

/// Options that no stream can answer.
pub fn check(filter: &FilterArgs) -> Result<(), Failure> {
    match filter.needs_values().as_slice() {
        [] => Ok(()),
        options => Err(Failure {
            message: format!(
                "{}: a change does not tell what its key holds or when it expires",
                options.join(", ")
            ),
            advice: "--db, --match, --regex and --slot, which go by names; dfsnap restore FROM TO copies what passes any filter, without following".to_owned(),
        }),
    }
}

/// What passes.
pub struct Passage {
    filter: Filter,
    edit: Edit,
    /// Where keys may become one.
    pub names: Option<Names>,
    /// The options, as they are typed.
    typed: String,
}

/// A command as it is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent<'c> {
    pub db: u32,
    pub words: Vec<Cow<'c, [u8]>>,
}

/// A database of the target, and a name there.
type Placed<'k> = (u32, Cow<'k, [u8]>);

/// Why a command can neither be sent nor left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: String,
    pub advice: &'static str,
}

/// Databases that are looked through for one that goes to the same place as another.
const DATABASES_MAX: u32 = 1 << 14;

const OTHER_FILTER: &str =
    "a filter that both names pass, or none; or another copy, once such commands are over: --flush";
const WITHOUT_FILTER: &str =
    "without filter and changes of names all commands are taken as they come";

impl Passage {
    pub fn new(filter: &FilterArgs, edit: &EditArgs) -> Self {
        let moved = Edit::new(edit, 0);
        let has_names = moved.renames() || moved.moves();
        let typed = [filter.names_as_typed(), edit.names_as_typed()].concat();
        Passage {
            filter: Filter::new(filter, 0),
            names: has_names.then(|| Names::new(moved.moves())),
            edit: moved,
            typed: typed.join(" "),
        }
    }

    /// Everything passes as it is.
    pub fn is_open(&self) -> bool {
        self.filter.is_open() && self.names.is_none()
    }

    /// The options, as they are typed; empty: everything passes.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Whether a command may concern a key that passes. Left out is only what certainly does not.
    pub fn concerns(&self, db: u32, words: &[&[u8]]) -> bool {
        if self.filter.is_open() {
            return true;
        }
        let passes = |at: usize| self.filter.passes_name(db, words[at]);
        let elsewhere = |at: usize, db_word: Option<usize>| {
            let other = db_word.map_or(Some(db), |at| number(words[at]));
            other.is_none_or(|db| self.filter.passes_name(db, words[at]))
        };
        match reach(words) {
            None | Some(Reach::All | Reach::Script { .. }) => true,
            Some(Reach::Nothing) => false,
            Some(Reach::Key(at)) => passes(at),
            Some(Reach::Each { first, step }) => (first..words.len()).step_by(step).any(passes),
            Some(Reach::Store {
                to,
                mut from,
                to_db,
                has_patterns,
            }) => {
                elsewhere(to, to_db)
                    || from.any(passes)
                    || has_patterns && self.filter.passes_db(db)
            }
            Some(Reach::Move { from, to, to_db }) => passes(from) || elsewhere(to, to_db),
            Some(Reach::Database) => self.filter.passes_db(db),
            Some(Reach::Swap(a, b)) => [a, b]
                .into_iter()
                .any(|at| number(words[at]).is_none_or(|db| self.filter.passes_db(db))),
        }
    }

    /// What is to be sent for a command; None: nothing.
    pub fn command<'c>(
        &mut self,
        db: u32,
        words: &[&'c [u8]],
    ) -> Result<Option<Sent<'c>>, Refused> {
        let as_it_is = |db| Sent {
            db,
            words: words.iter().copied().map(Cow::Borrowed).collect(),
        };
        if self.is_open() {
            return Ok(Some(as_it_is(db)));
        }
        let Some(found) = reach(words) else {
            let why = "it is not known which keys it changes".to_owned();
            return Err(refused(why, WITHOUT_FILTER));
        };
        match found {
            Reach::Nothing => Ok(Some(as_it_is(0))),
            Reach::Key(at) => {
                let Some((db, name)) = self.place(db, words[at])? else {
                    return Ok(None);
                };
                let mut sent = as_it_is(db);
                sent.words[at] = name;
                Ok(Some(sent))
            }
            Reach::Each { first, step } => self.each(db, words, first, step),
            Reach::Store {
                to,
                from,
                to_db,
                has_patterns,
            } => {
                let Some(sent) = self.store(db, words, (to, to_db), from)? else {
                    return Ok(None);
                };
                if has_patterns && (self.filter.asks_for_names() || self.edit.renames()) {
                    let why = "it reads keys whose names come of patterns".to_owned();
                    return Err(refused(why, OTHER_FILTER));
                }
                Ok(Some(sent))
            }
            Reach::Move { from, to, to_db } => self.moved(db, words, from, (to, to_db)),
            Reach::Database => self.database(db, as_it_is),
            Reach::All => {
                if let Some(names) = &mut self.names {
                    names.clear();
                }
                Ok(Some(as_it_is(0)))
            }
            Reach::Swap(a, b) => self.swap(number_of(words, a)?, number_of(words, b)?, as_it_is),
            Reach::Script { .. } => {
                let why =
                    "a script that is sent as one may change keys that it does not name".to_owned();
                Err(refused(why, WITHOUT_FILTER))
            }
        }
    }

    /// A key that is there at the source, whatever the stream says of it.
    pub fn is_there(&mut self, db: u32, key: &[u8]) -> Result<(), Refused> {
        self.place(db, key).map(drop)
    }

    /// Where a key goes, if it passes.
    fn place<'k>(&mut self, db: u32, key: &'k [u8]) -> Result<Option<Placed<'k>>, Refused> {
        if !self.filter.passes_name(db, key) {
            return Ok(None);
        }
        let (new_db, name) = (self.edit.db(db), self.edit.name(key));
        if let Some(names) = &mut self.names
            && !names.take((db, key), (new_db, &name))
        {
            let why = format!(
                "key {} of database {db} becomes {} in database {new_db}, and so did another key",
                report::key(key),
                report::key(&name)
            );
            let advice = "change --rename or --to-db so that each key gets a name of its own, and begin again: --flush";
            return Err(refused(why, advice));
        }
        Ok(Some((new_db, name)))
    }

    /// DEL and the like: with those of its keys that pass.
    fn each<'c>(
        &mut self,
        db: u32,
        words: &[&'c [u8]],
        first: usize,
        step: usize,
    ) -> Result<Option<Sent<'c>>, Refused> {
        let is_removal = [&b"DEL"[..], b"UNLINK"]
            .iter()
            .any(|name| words[0].eq_ignore_ascii_case(name));
        let mut sent = Sent {
            db: self.edit.db(db),
            words: words[..first].iter().copied().map(Cow::Borrowed).collect(),
        };
        for group in words[first..].chunks_exact(step) {
            let Some((new_db, name)) = self.place(db, group[0])? else {
                continue;
            };
            if let (true, Some(names)) = (is_removal, &mut self.names) {
                names.forget(new_db, &name);
            }
            sent.words.push(name);
            sent.words
                .extend(group[1..].iter().copied().map(Cow::Borrowed));
        }
        Ok((sent.words.len() > first).then_some(sent))
    }

    fn store<'c>(
        &mut self,
        db: u32,
        words: &[&'c [u8]],
        to: (usize, Option<usize>),
        from: Range<usize>,
    ) -> Result<Option<Sent<'c>>, Refused> {
        let to_db = to.1.map_or(Ok(db), |at| number_of(words, at))?;
        let Some((new_db, name)) = self.place(to_db, words[to.0])? else {
            return Ok(None);
        };
        let mut sent = Sent {
            db: self.edit.db(db),
            words: words.iter().copied().map(Cow::Borrowed).collect(),
        };
        sent.words[to.0] = name;
        if let Some(at) = to.1 {
            sent.words[at] = Cow::Owned(new_db.to_string().into_bytes());
        }
        for at in from {
            let Some((_, name)) = self.place(db, words[at])? else {
                return Err(unknown_value((to_db, words[to.0]), (db, words[at])));
            };
            sent.words[at] = name;
        }
        Ok(Some(sent))
    }

    fn moved<'c>(
        &mut self,
        db: u32,
        words: &[&'c [u8]],
        from: usize,
        to: (usize, Option<usize>),
    ) -> Result<Option<Sent<'c>>, Refused> {
        let to_db = to.1.map_or(Ok(db), |at| number_of(words, at))?;
        let name = words[0].to_ascii_uppercase();
        let is_whole = matches!(&name[..], b"RENAME" | b"RENAMENX" | b"MOVE");
        let placed = (
            self.place(db, words[from])?,
            self.place(to_db, words[to.0])?,
        );
        if let (true, (Some((db, key)), _), Some(names)) = (is_whole, &placed, &mut self.names) {
            names.forget(*db, key);
        }
        let sent = |db: u32, words: Vec<Cow<'c, [u8]>>| Ok(Some(Sent { db, words }));
        let borrowed = |word: &'static str| Cow::Borrowed(word.as_bytes());
        match placed {
            (None, None) => Ok(None),
            (Some((db, from_name)), Some((new_db, to_name))) => {
                let mut words: Vec<_> = words.iter().copied().map(Cow::Borrowed).collect();
                words[from] = from_name;
                match to.1 {
                    Some(at) => words[at] = Cow::Owned(new_db.to_string().into_bytes()),
                    None => words[to.0] = to_name,
                }
                sent(db, words)
            }
            // What leaves is gone.
            (Some((db, key)), None) => match &name[..] {
                b"SMOVE" if words.len() == 4 => {
                    sent(db, vec![borrowed("SREM"), key, Cow::Borrowed(words[3])])
                }
                b"RPOPLPUSH" => sent(db, vec![borrowed("RPOP"), key]),
                b"LMOVE" if words.len() == 5 => {
                    let is_left = words[3].eq_ignore_ascii_case(b"LEFT");
                    let pop = if is_left { "LPOP" } else { "RPOP" };
                    sent(db, vec![borrowed(pop), key])
                }
                _ if is_whole => sent(db, vec![borrowed("DEL"), key]),
                _ => {
                    let why = "it is cut, or longer than it should be".to_owned();
                    Err(refused(why, WITHOUT_FILTER))
                }
            },
            (None, Some((db, key))) => match &name[..] {
                b"SMOVE" if words.len() == 4 => {
                    sent(db, vec![borrowed("SADD"), key, Cow::Borrowed(words[3])])
                }
                _ => Err(unknown_value((to_db, words[to.0]), (db, words[from]))),
            },
        }
    }

    fn database<'c>(
        &mut self,
        db: u32,
        as_it_is: impl Fn(u32) -> Sent<'c>,
    ) -> Result<Option<Sent<'c>>, Refused> {
        if !self.filter.passes_db(db) {
            return Ok(None);
        }
        let new_db = self.edit.db(db);
        let mut others = (0..DATABASES_MAX).filter(|other| *other != db);
        let goes_there = |other: u32| self.filter.passes_db(other) && self.edit.db(other) == new_db;
        if let Some(other) = others.find(|other| goes_there(*other)) {
            let why = format!("keys of database {other} are in database {new_db} as well");
            let advice = "--db with one database for each that --to-db names; or begin again with another copy: --flush";
            return Err(refused(why, advice));
        }
        if let Some(names) = &mut self.names {
            names.clear_db(new_db);
        }
        Ok(Some(as_it_is(new_db)))
    }

    fn swap<'c>(
        &mut self,
        a: u32,
        b: u32,
        as_it_is: impl Fn(u32) -> Sent<'c>,
    ) -> Result<Option<Sent<'c>>, Refused> {
        match (self.filter.passes_db(a), self.filter.passes_db(b)) {
            (false, false) => Ok(None),
            (true, true) if !self.edit.moves() => {
                if let Some(names) = &mut self.names {
                    names.swap(a, b);
                }
                Ok(Some(as_it_is(0)))
            }
            _ => {
                let why = format!("databases {a} and {b} do not pass alike");
                let advice = "--db with both databases or neither, and no --to-db; or begin again with another copy: --flush";
                Err(refused(why, advice))
            }
        }
    }
}

fn refused(why: String, advice: &'static str) -> Refused {
    Refused { why, advice }
}

/// What is stored in a key that passes comes from one that does not.
fn unknown_value(to: (u32, &[u8]), from: (u32, &[u8])) -> Refused {
    let why = format!(
        "key {} of database {} passes and gets what is in {} of database {}, which does not",
        report::key(to.1),
        to.0,
        report::key(from.1),
        from.0
    );
    refused(why, OTHER_FILTER)
}

fn number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn number_of(words: &[&[u8]], at: usize) -> Result<u32, Refused> {
    number(words[at]).ok_or_else(|| {
        let why = format!("{} is no database", report::key(words[at]));
        refused(why, WITHOUT_FILTER)
    })
}

#[cfg(test)]
mod tests;
