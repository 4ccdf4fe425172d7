//! A command on its way: its words in one buffer, so that it can travel to another thread.

use dfsnap_formats::resp::Reply;
use smallvec::SmallVec;

use super::aside::{self, BYTES_OF_AN_ELEMENT, MOST_ELEMENTS};
use super::exec::Actor;
use super::runner::{Runner, run_on_shard};
use super::{Command, Flags, KeySpec, Run};
use crate::keyspace::blob::Blob;
use crate::keyspace::{DbIndex, Key};
use crate::pubsub::tracking::Caller;
use crate::shard::link::Answer;
use crate::shard::queue::{Footprint, Mode};
use crate::shard::{After, Shard, fingerprint};

/// Words of a command that does not borrow from the connection's buffer.
#[derive(Clone, Debug, Default)]
pub struct Words {
    bytes: Vec<u8>,
    /// Where each word begins and ends in `bytes`.
    places: Places,
}

/// Where words begin and end in a buffer of less than 4 GiB.
pub type Places = SmallVec<[(u32, u32); 6]>;

impl Words {
    /// A copy of these words. All together they must stay below 4 GiB.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Words {
        let mut copy = Words::default();
        let mut start = 0;
        for word in words {
            copy.bytes.extend_from_slice(word);
            let end = u32::try_from(copy.bytes.len())
                .expect("a command is shorter than the query buffer");
            copy.places.push((start, end));
            start = end;
        }
        copy
    }

    /// The words at these places of a buffer, which is not copied.
    pub fn within(bytes: Vec<u8>, places: Places) -> Words {
        Words { bytes, places }
    }

    /// The buffer that holds them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The words.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.places.iter();
        places.map(|&(start, end)| &self.bytes[start as usize..end as usize])
    }

    /// Calls `run` with the words as handlers want them.
    #[inline]
    pub fn with<R>(&self, run: impl FnOnce(&[&[u8]]) -> R) -> R {
        let words: SmallVec<[&[u8]; 8]> = self.iter().collect();
        run(&words)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of all words.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A command with all it needs to run anywhere.
#[derive(Clone)]
pub struct Call {
    /// Its row.
    pub command: &'static Command,
    /// The selected database.
    pub db: DbIndex,
    /// Its words.
    pub words: Words,
}

impl Call {
    /// A call of these words, which are copied.
    pub fn new(command: &'static Command, db: DbIndex, words: &[&[u8]]) -> Call {
        Call {
            command,
            db,
            words: Words::new(words.iter().copied()),
        }
    }

    /// What it wants of its keys.
    pub fn mode(&self) -> Mode {
        mode(self.command)
    }

    /// Whether its words alone are so many, or so long, that it has to run beside its shard.
    fn is_long(&self) -> bool {
        let bytes = self.words.byte_len() / BYTES_OF_AN_ELEMENT;
        self.words.len().max(bytes) > MOST_ELEMENTS && works_on_one_key(self.command)
    }

    /// Whether it needs all shards.
    pub fn needs_everything(&self) -> bool {
        match self.command.run {
            Run::Global(_) => self
                .words
                .with(|args| !super::sort::is_bound(self.command, args)),
            Run::Cursor(_) => true,
            Run::Script(_) => self.words.with(super::script::needs_everything),
            Run::Keys(_) | Run::Split { .. } | Run::Session(_) => false,
        }
    }

    /// Its keys, each with the database.
    pub fn keys(&self) -> SmallVec<[(DbIndex, Blob); 2]> {
        self.words.with(|args| {
            let mut keys = SmallVec::new();
            self.command
                .keys
                .visit(args, |at| keys.push((self.db, Blob::new(args[at]))));
            keys
        })
    }
}

impl Call {
    /// The intents it needs on the shard of its keys.
    pub fn footprint(&self) -> Footprint {
        match self.command.run {
            Run::Cursor(_) => Footprint::All,
            Run::Global(_) | Run::Script(_) if self.needs_everything() => Footprint::All,
            Run::Global(_)
            | Run::Keys(_)
            | Run::Script(_)
            | Run::Split { .. }
            | Run::Session(_) => {
                let mode = self.mode();
                let intents = self
                    .keys()
                    .into_iter()
                    .map(|(db, key)| (fingerprint(db, Key::new(&key).hash), mode));
                Footprint::Keys(intents.collect())
            }
        }
    }
}

/// Whether a command works on one key, which stands first, and never waits for it.
pub fn works_on_one_key(command: &Command) -> bool {
    matches!(command.run, Run::Keys(_))
        && matches!(
            command.keys,
            KeySpec::Range {
                first: 1,
                last: 1,
                ..
            }
        )
        && !command.flags.has(Flags::BLOCKING)
}

/// What a command wants of its keys.
pub fn mode(command: &Command) -> Mode {
    if command.is_write() || matches!(command.run, Run::Script(_)) {
        Mode::Exclusive
    } else {
        Mode::Shared
    }
}

/// What stands between a command and its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// None: it may run here and now.
    None,
    /// A transaction has a key.
    Taken,
    /// A snapshot has no room for what it would have to save first.
    Parked,
}

/// Whether a command may run on this shard at once. All its keys are this shard's.
#[inline]
pub fn obstacle(shard: &Shard, command: &Command, db: DbIndex, args: &[&[u8]]) -> Obstacle {
    let mode = mode(command);
    let is_idle = shard.is_idle();
    if let Run::Cursor(_) = command.run {
        // A walk must not miss entries that are lent.
        return if is_idle {
            Obstacle::None
        } else {
            Obstacle::Taken
        };
    }
    let Some(keyspace) = &shard.keyspace else {
        return Obstacle::Taken;
    };
    if is_idle && (mode == Mode::Shared || keyspace.cut() == 0) {
        return Obstacle::None;
    }
    let mut obstacle = Obstacle::None;
    command.keys.visit(args, |at| {
        let key = Key::new(args[at]);
        if !is_idle && !shard.is_key_free(db, key, mode) {
            obstacle = Obstacle::Taken;
        } else if obstacle == Obstacle::None
            && mode == Mode::Exclusive
            && !keyspace.admits_write(db, key)
        {
            obstacle = Obstacle::Parked;
        }
    });
    obstacle
}

/// Commands of one connection for one shard, in order: a piece of its pipeline.
pub struct Batch {
    calls: Vec<Call>,
    actor: Actor,
    caller: Caller,
    /// The next to run.
    next: usize,
    reply: Reply,
    /// Where each reply ends in `reply`.
    ends: Vec<usize>,
    done: Answer<BatchReplies>,
}

/// The replies of a batch.
pub struct BatchReplies {
    /// All of them, one behind the other.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
}

impl Batch {
    /// Calls to run in order; their replies arrive at `done`.
    pub fn new(
        calls: Vec<Call>,
        actor: Actor,
        caller: Caller,
        reply: Reply,
        done: Answer<BatchReplies>,
    ) -> Batch {
        let ends = Vec::with_capacity(calls.len());
        Batch {
            calls,
            actor,
            caller,
            next: 0,
            reply,
            ends,
            done,
        }
    }

    /// Runs the calls on their shard; where one must wait, the rest waits with it.
    pub fn run(mut self, shard: &mut Shard) {
        while let Some(call) = self.calls.get(self.next) {
            match call
                .words
                .with(|args| obstacle(shard, call.command, call.db, args))
            {
                Obstacle::None => {
                    if !self.run_short(shard) {
                        return self.run_aside(shard);
                    }
                }
                Obstacle::Taken => {
                    let footprint = call.footprint();
                    let writes = if call.mode() == Mode::Exclusive {
                        call.keys()
                    } else {
                        SmallVec::new()
                    };
                    shard.enqueue(
                        footprint,
                        writes,
                        Box::new(move |shard| {
                            let is_done = self.run_short(shard);
                            After::ReleaseThen(Box::new(move |shard| match is_done {
                                true => self.run(shard),
                                false => self.run_aside(shard),
                            }))
                        }),
                    );
                    return;
                }
                Obstacle::Parked => {
                    shard.park(Box::new(move |shard| self.run(shard)));
                    return;
                }
            }
        }
        // The connection may have gone; its commands ran all the same.
        self.done.give(
            shard,
            BatchReplies {
                bytes: self.reply.take(),
                ends: self.ends,
            },
        );
    }

    /// Runs the next call, unless it has to run beside the shard: then the answer is false.
    fn run_short(&mut self, shard: &mut Shard) -> bool {
        let call = &self.calls[self.next];
        if let Err(error) = super::eviction::admit(shard, self.actor, call.command) {
            self.reply.error(&error.0);
            shard.stats.error(&error.0);
            shard.stats.rejected(call.command.name);
            self.replied();
            return true;
        }
        !call.is_long() && self.run_next(shard, MOST_ELEMENTS)
    }

    /// Runs the next call. False: it is over more elements than `most`, and nothing was done.
    fn run_next(&mut self, shard: &mut Shard, most: usize) -> bool {
        let call = &self.calls[self.next];
        let reply = &mut self.reply;
        shard.caller = self.caller.clone();
        let runs_aside = run_on_shard(shard, self.actor, |runner: &mut Runner<'_>, commit| {
            runner.most_elements = most;
            call.words
                .with(|args| runner.run(call.command, call.db, args, reply, commit));
            commit.runs_aside
        });
        if !runs_aside {
            self.replied();
        }
        !runs_aside
    }

    fn run_aside(mut self, shard: &mut Shard) {
        let call = &mut self.calls[self.next];
        if call.mode() == Mode::Shared && !aside::may_lend(shard, call) {
            // Who only reads does not wait for a snapshot.
            self.run_next(shard, usize::MAX);
            return self.run(shard);
        }
        let call = Call {
            words: std::mem::take(&mut call.words),
            ..*call
        };
        let empty = Reply::new(self.reply.protocol());
        let reply = std::mem::replace(&mut self.reply, empty);
        aside::run(
            shard,
            call,
            (self.actor, self.caller.clone()),
            reply,
            |shard, reply| {
                self.reply = reply;
                self.replied();
                self.run(shard);
            },
        );
    }

    /// The reply of the next call is there.
    fn replied(&mut self) {
        self.ends.push(self.reply.len());
        self.next += 1;
    }
}
