//! What was received of a primary's stream at one go, sorted by the shards that run it.
//!
//! The receiver ([`super::follower`]) puts unit after unit into a [`Gathering`]; what it takes out of it is a [`Batch`]: the bytes as they
//! came, which the backlog shares, and for each shard its commands as places in these bytes. No word is copied, and no command has
//! memory of its own. [`super::worker`] makes one transaction of the batches at hand.
//!
//! Invariants
//! - A batch ends where a unit ends.
//! - On every shard the commands of a batch stand in the order of the stream.

use std::ops::Range;
use std::sync::Arc;

use dfsnap_formats::resp::{Protocol, Reply};
use dfsnap_replica::{ApplyError, Transaction};
use smallvec::SmallVec;

use crate::command::call::{Call, Words};
use crate::command::exec::Actor;
use crate::command::runner::{Runner, run_on_shard};
use crate::command::script::functions;
use crate::command::{Command, Run, Session, table};
use crate::keyspace::{DbIndex, Key, StreamPlace, shard_of};
use crate::shard::Shard;
use crate::tx::ShardJob;

/// So many entries are brought into the cache together before their commands run.
const WARMED: usize = 16;

/// Units that are being received.
pub struct Gathering {
    bytes: Vec<u8>,
    /// One for each shard.
    parts: Vec<Part>,
    /// Behind the last unit; `None`: there is none.
    end: Option<StreamPlace>,
}

/// Whole units, of which no command needs several shards at once.
pub struct Batch {
    /// As they came.
    pub bytes: Arc<[u8]>,
    /// Behind the last of them.
    pub end: StreamPlace,
    /// One for each shard.
    parts: Vec<Part>,
}

/// A unit with a command that needs several shards at once.
pub struct Alone {
    /// What it runs.
    pub calls: Vec<Call>,
    /// Behind it.
    pub end: StreamPlace,
    /// Bytes of the stream.
    pub len: usize,
}

/// What one shard runs of a batch.
#[derive(Default)]
struct Part {
    calls: Vec<CallAt>,
    words: Vec<WordAt>,
}

/// A command whose words are in the bytes of a batch.
struct CallAt {
    command: &'static Command,
    db: DbIndex,
    /// Where its words end among those of its part; they begin where those of the command before it end.
    words_end: u32,
    /// Of its first key.
    hash: u64,
}

/// Bytes that the room for the next batch has at most.
const KEPT_BYTES: usize = 256 << 10;
/// Bytes of a batch at most: places in it have 32 bits.
const BYTES_MAX: usize = u32::MAX as usize;

/// A word's place in the bytes of a batch.
#[derive(Clone, Copy)]
struct WordAt {
    start: u32,
    len: u32,
}

/// Where a command of a unit runs.
enum Route {
    /// Nowhere: it is not about the dataset.
    Nowhere,
    /// On this shard; with the hash of its first key.
    Home(usize, u64),
    /// On each shard with its keys, each of which has so many words with it.
    Split(usize),
}

/// What became of a unit.
#[derive(Debug, PartialEq, Eq)]
pub enum Gathered {
    /// It is in.
    Taken,
    /// One of its commands needs several shards at once, or it is longer than a batch may be: see [`alone`].
    IsAlone,
}

impl Gathering {
    /// Nothing yet, for so many shards.
    pub fn new(shards: usize) -> Gathering {
        Gathering {
            bytes: Vec::new(),
            parts: (0..shards).map(|_| Part::default()).collect(),
            end: None,
        }
    }

    /// Bytes of the units that are in.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a unit, all of it or nothing.
    pub fn add(&mut self, unit: &Transaction<'_>) -> Result<Gathered, ApplyError> {
        let shards = self.parts.len();
        if unit.raw.len() > BYTES_MAX - self.bytes.len() {
            return Ok(Gathered::IsAlone);
        }
        let mut routes: SmallVec<[_; 1]> = SmallVec::new();
        for command in unit.commands() {
            let words: SmallVec<[&[u8]; 8]> = command.words().collect();
            let row = row_of(&words)?;
            let Some(route) = route(row, &words, shards) else {
                return Ok(Gathered::IsAlone);
            };
            routes.push((row, route));
        }
        let base = self.bytes.len();
        self.bytes.extend_from_slice(unit.raw);
        for (command, (row, route)) in unit.commands().zip(routes) {
            let (db, places) = (DbIndex(command.db), command.word_places());
            match (row, route) {
                (None, _) | (_, Route::Nowhere) => {}
                (Some(row), Route::Home(shard, hash)) => {
                    self.parts[shard].push(base, places);
                    self.parts[shard].end_call(row, db, hash);
                }
                (Some(row), Route::Split(stride)) => {
                    self.add_split(row, db, stride, (base, unit.raw, places));
                }
            }
        }
        self.end = Some(StreamPlace {
            offset: unit.end_offset,
            db: DbIndex(unit.db),
        });
        Ok(Gathered::Taken)
    }

    /// Each shard gets the command with its own keys and what stands with them.
    fn add_split(
        &mut self,
        row: &'static Command,
        db: DbIndex,
        stride: usize,
        (base, raw, places): (usize, &[u8], &[Range<usize>]),
    ) {
        let shards = self.parts.len();
        let hashes: SmallVec<[u64; 8]> = places[1..]
            .chunks(stride)
            .map(|group| Key::new(&raw[group[0].clone()]).hash)
            .collect();
        for shard in 0..shards {
            let mut first = None;
            for (group, &hash) in places[1..].chunks(stride).zip(&hashes) {
                if shard_of(hash, shards) != shard {
                    continue;
                }
                if first.is_none() {
                    self.parts[shard].push(base, &places[..1]);
                    first = Some(hash);
                }
                self.parts[shard].push(base, group);
            }
            if let Some(hash) = first {
                self.parts[shard].end_call(row, db, hash);
            }
        }
    }

    /// What is in, which is out then; `None`: nothing.
    pub fn take(&mut self) -> Option<Batch> {
        let end = self.end.take()?;
        let bytes = Arc::from(self.bytes.as_slice());
        self.bytes.clear();
        // What one long unit took is not kept.
        self.bytes.shrink_to(KEPT_BYTES);
        let parts = self.parts.iter_mut().map(|part| {
            // The next will probably be as long.
            let next = Part {
                calls: Vec::with_capacity(part.calls.len()),
                words: Vec::with_capacity(part.words.len()),
            };
            std::mem::replace(part, next)
        });
        Some(Batch {
            bytes,
            end,
            parts: parts.collect(),
        })
    }
}

impl Part {
    fn push(&mut self, base: usize, places: &[Range<usize>]) {
        let number = |n: usize| u32::try_from(n).expect("`add` looks at the length");
        self.words.extend(places.iter().map(|at| WordAt {
            start: number(base + at.start),
            len: number(at.len()),
        }));
    }

    /// The words behind those of the call before are a call.
    fn end_call(&mut self, command: &'static Command, db: DbIndex, hash: u64) {
        self.calls.push(CallAt {
            command,
            db,
            words_end: u32::try_from(self.words.len()).expect("words of at most 4 GiB"),
            hash,
        });
    }

    /// Calls `visit` with each call and its words.
    fn visit<'p>(&'p self, bytes: &'p [u8], mut visit: impl FnMut(&'p CallAt, &[&'p [u8]])) {
        let mut words: SmallVec<[&[u8]; 8]> = SmallVec::new();
        let mut start = 0;
        for call in &self.calls {
            let end = call.words_end as usize;
            words.clear();
            words.extend(self.words[start..end].iter().map(|word| {
                let start = word.start as usize;
                &bytes[start..start + word.len as usize]
            }));
            visit(call, &words);
            start = end;
        }
    }
}

/// What one shard has to do of some batches.
struct Work {
    parts: Vec<(Arc<[u8]>, Part)>,
    end: StreamPlace,
}

impl Work {
    /// Whether no snapshot has to save one of the keys first and has no room for it.
    fn is_admitted(&self, shard: &Shard) -> bool {
        if (shard.keyspace.as_ref()).is_some_and(|keyspace| keyspace.cut() == 0) {
            return true;
        }
        let mut is_admitted = true;
        for (bytes, part) in &self.parts {
            part.visit(bytes, |call, words| {
                call.command.keys.visit(words, |at| {
                    is_admitted &= shard.admits_write(call.db, Key::new(words[at]));
                });
            });
        }
        is_admitted
    }

    fn run(&self, shard: &mut Shard) {
        let mut reply = Reply::new(Protocol::Resp2);
        run_on_shard(shard, Actor::Link, |runner: &mut Runner<'_>, commit| {
            for (bytes, part) in &self.parts {
                let mut next = 0;
                part.visit(bytes, |call, words| {
                    if next % WARMED == 0 {
                        for call in part.calls[next..].iter().take(WARMED) {
                            runner.keyspaces[0].warm_entry(call.db, call.hash);
                        }
                    }
                    next += 1;
                    runner.run(call.command, call.db, words, &mut reply, commit);
                    warn_of_error(call.command.name, reply.as_bytes());
                    reply.clear();
                });
            }
        });
        if let Some(keyspace) = &mut shard.keyspace {
            keyspace.place = Some(self.end);
        }
    }
}

/// What each shard that is concerned does of these batches, which follow each other.
pub fn jobs(batches: Vec<Batch>) -> Vec<ShardJob> {
    let Some(end) = batches.last().map(|batch| batch.end) else {
        return Vec::new();
    };
    let mut by_shard: Vec<Vec<(Arc<[u8]>, Part)>> = Vec::new();
    for batch in batches {
        by_shard.resize_with(batch.parts.len(), Vec::new);
        for (parts, part) in by_shard.iter_mut().zip(batch.parts) {
            if !part.calls.is_empty() {
                parts.push((batch.bytes.clone(), part));
            }
        }
    }
    let concerned = by_shard.into_iter().enumerate();
    let concerned = concerned.filter(|(_, parts)| !parts.is_empty());
    let job = |(shard, parts)| {
        let work = Arc::new(Work { parts, end });
        let admitted = work.clone();
        ShardJob {
            shard,
            admission: Box::new(move |shard| admitted.is_admitted(shard)),
            run: Box::new(move |shard| work.run(shard)),
        }
    };
    concerned.map(job).collect()
}

/// The same as commands that run one behind the other, each with all the shards it needs.
pub fn alone(unit: &Transaction<'_>) -> Result<Alone, ApplyError> {
    let mut calls = Vec::with_capacity(unit.commands().len());
    for command in unit.commands() {
        let words: SmallVec<[&[u8]; 8]> = command.words().collect();
        let row = row_of(&words)?;
        calls.extend(row.map(|row| Call {
            command: row,
            db: DbIndex(command.db),
            words: Words::new(words),
        }));
    }
    Ok(Alone {
        calls,
        end: StreamPlace {
            offset: unit.end_offset,
            db: DbIndex(unit.db),
        },
        len: unit.raw.len(),
    })
}

/// The row of a command of the stream; `None` if there is nothing to run.
fn row_of(words: &[&[u8]]) -> Result<Option<&'static Command>, ApplyError> {
    let stop = |text: String| ApplyError::Stop(std::io::Error::other(text));
    // A primary sends names as its clients gave them; one of another configuration has others.
    let row = table::find(words[0]).or_else(|| table::own(words[0]));
    let Some(row) = row else {
        let name = String::from_utf8_lossy(words[0]);
        return Err(stop(format!(
            "the primary sent {name}, which this server does not know; going on would make it differ"
        )));
    };
    let count = words.len();
    let is_whole = match row.run {
        Run::Split { stride, .. } => (count - 1).is_multiple_of(stride),
        _ => true,
    };
    if !row.arity_fits(count) || !is_whole {
        // Handlers take it that this was looked at.
        return Err(ApplyError::Resync(format!(
            "the primary sent {} with {count} words",
            row.name
        )));
    }
    match row.run {
        Run::Session(Session::Ping | Session::Replconf) => Ok(None),
        Run::Session(Session::Function) => Ok(Some(&functions::CHANGE)),
        Run::Session(_) => Err(stop(format!(
            "the primary sent {}, which has no place in a stream",
            row.name
        ))),
        _ => Ok(Some(row)),
    }
}

/// Where a command runs; `None` if it needs several shards at once.
fn route(row: Option<&Command>, words: &[&[u8]], shards: usize) -> Option<Route> {
    let Some(row) = row else {
        return Some(Route::Nowhere);
    };
    let home = |hash: u64| shard_of(hash, shards);
    match row.run {
        Run::Split { stride, .. } if words.len() == 1 + stride => {
            let hash = Key::new(words[1]).hash;
            Some(Route::Home(home(hash), hash))
        }
        Run::Split { stride, .. } => Some(Route::Split(stride)),
        Run::Keys(_) => {
            let (mut first, mut is_one) = (None, true);
            row.keys.visit(words, |at| {
                let hash = Key::new(words[at]).hash;
                let (known, _) = *first.get_or_insert((home(hash), hash));
                is_one &= known == home(hash);
            });
            // Without keys (PUBLISH) any will do, and always the same keeps their order.
            let (home, hash) = first.unwrap_or_default();
            is_one.then_some(Route::Home(home, hash))
        }
        Run::Global(_) | Run::Cursor(_) | Run::Script(_) | Run::Session(_) => None,
    }
}

/// A command that fails here although it worked on the primary is a sign that the two differ.
pub fn warn_of_error(command: &str, reply: &[u8]) {
    if reply.first() == Some(&b'-') {
        let text = String::from_utf8_lossy(reply).trim_end().to_owned();
        tracing::error!(
            "== CRITICAL == This replica is sending an error to its master: '{text}' after processing the command '{command}': \
             it may differ from it"
        );
    }
}

#[cfg(test)]
mod tests;
