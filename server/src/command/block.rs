//! Several commands as one unit: MULTI blocks, units of a replication stream, and single commands over several shards.
//!
//! A block whose keys are on one shard runs there in one go; over several shards their entries are gathered on one; with a
//! command about everything in it, it runs with all keyspaces. In each case it is one run, one clock and one record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::{Protocol, Reply};

use super::acl::User;
use super::aside::{self, MOST_ELEMENTS};
use super::call::{Call, Obstacle, Words, obstacle};
use super::exec::Actor;
use super::runner::{Commit, Runner, commit_on_shard, encoded, run_uncommitted, with_runner};
use super::{CommandError, Flags, Merge, Run};
use crate::journal::{Journal, Records};
use crate::keyspace::blob::Blob;
use crate::keyspace::settings::Settings;
use crate::keyspace::watch::Dirty;
use crate::keyspace::{DbIndex, Key, StreamPlace, shard_of};
use crate::pubsub::tracking::Caller;
use crate::shard::Shard;
use crate::shard::queue::Mode;
use crate::stats::CommandStats;
use crate::tx::{Coordinator, Effects, Finish, GatherEnd, Part, PartEnd};

/// A watched key: is it still as it was?
#[derive(Clone)]
pub struct Watch {
    /// Its database.
    pub db: DbIndex,
    /// The key.
    pub key: Blob,
    /// Its time had come when it was watched: then its going changes nothing.
    pub was_expired: bool,
}

/// Commands to run as one unit.
#[derive(Clone)]
pub struct Block {
    place: Option<StreamPlace>,
    calls: Vec<Call>,
    watches: Vec<Watch>,
    dirty: Dirty,
    actor: Actor,
    caller: Caller,
    protocol: Protocol,
    user: Option<Arc<User>>,
    /// Of the commands that have run. The others are to run yet.
    replies: Vec<Vec<u8>>,
    /// A watched key has changed: none of them runs.
    is_off: bool,
}

/// What became of a block.
struct Ran {
    /// `None` if a watched key has changed.
    replies: Option<Vec<Vec<u8>>>,
    /// Its one script must run again, with all shards; nothing was done.
    needs_everything: bool,
}

/// What a block needs when it runs on no shard's thread.
#[derive(Clone)]
pub struct Context {
    /// Settings.
    pub settings: Arc<Settings>,
    /// Where it records.
    pub journal: Arc<Journal>,
}

impl Block {
    /// These commands, on behalf of `actor`.
    pub fn new(calls: Vec<Call>, actor: Actor) -> Block {
        Block {
            calls,
            watches: Vec::new(),
            dirty: Dirty::default(),
            actor,
            caller: Caller::default(),
            place: None,
            protocol: Protocol::Resp2,
            user: None,
            replies: Vec::new(),
            is_off: false,
        }
    }

    /// Scripts among the commands have the rights of this user.
    pub fn with_rights_of(self, user: Arc<User>) -> Block {
        Block {
            user: Some(user),
            ..self
        }
    }

    /// Takes the data of a replica to this place of its primary's stream.
    pub fn to_place(self, place: StreamPlace) -> Block {
        Block {
            place: Some(place),
            ..self
        }
    }

    /// For this client.
    pub fn caller(self, caller: Caller) -> Block {
        Block { caller, ..self }
    }

    /// Replies in this protocol.
    pub fn protocol(self, protocol: Protocol) -> Block {
        Block { protocol, ..self }
    }

    /// Runs only if these keys are as they were, and `dirty` is not set.
    pub fn watching(self, watches: Vec<Watch>, dirty: Dirty) -> Block {
        Block {
            watches,
            dirty,
            ..self
        }
    }

    /// Runs the commands and returns their replies; `None` if a watched key has changed.
    pub async fn run(self, coordinator: &Coordinator, context: Context) -> Option<Vec<Vec<u8>>> {
        let is_script = |call: &Call| matches!(call.command.run, Run::Script(_));
        let has_script = coordinator.shards() > 1 && self.calls.iter().any(is_script);
        // Behind other commands it could not start over.
        let is_global =
            has_script && self.calls.len() > 1 || self.calls.iter().any(Call::needs_everything);
        if !has_script || is_global {
            return self.run_once(coordinator, context, is_global).await.replies;
        }
        let again = (self.clone(), context.clone());
        let ran = self.run_once(coordinator, context, false).await;
        if !ran.needs_everything {
            return ran.replies;
        }
        again.0.run_once(coordinator, again.1, true).await.replies
    }

    /// Runs the commands now, on a shard that has all their keys free; gives them back if it cannot.
    pub fn run_at_once(
        mut self,
        shard: &mut Shard,
        shards: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Box<Block>> {
        let is_at_hand = |db: DbIndex, key: &[u8]| {
            let key = Key::new(key);
            (shards == 1 || shard_of(key.hash, shards) == shard.index)
                && shard.is_key_free(db, key, Mode::Exclusive)
        };
        let is_free = self.calls.iter().all(|call| {
            let is_keyed = matches!(call.command.run, Run::Keys(_) | Run::Split { .. });
            let keys = call.keys();
            // Without keys a command may be about anything: how many there are, or one at random.
            let has_place =
                shards == 1 || !keys.is_empty() || !call.command.flags.has(Flags::READONLY);
            is_keyed
                && has_place
                && keys.iter().all(|(db, key)| is_at_hand(*db, key))
                && call
                    .words
                    .with(|words| obstacle(shard, call.command, call.db, words))
                    == Obstacle::None
        });
        let are_watched_here = self
            .watches
            .iter()
            .all(|watch| is_at_hand(watch.db, &watch.key));
        if !is_free || !are_watched_here || self.may_be_long(shard) {
            return Err(Box::new(self));
        }
        let mut commit = Commit::default();
        assert!(
            self.begin(shard, &mut commit, usize::MAX),
            "it has no limit"
        );
        let end = self.end(shard, commit);
        shard.announce(&end.touched);
        Ok(end.result.replies)
    }

    /// Whether a command may have so much to do that it had better run beside the shard: what it is to work on is large.
    fn may_be_long(&self, shard: &Shard) -> bool {
        let Some(keyspace) = &shard.keyspace else {
            return true;
        };
        self.calls.iter().any(|call| {
            let mut elements = 0;
            if !call.command.flags.has(Flags::FAST) {
                call.words.with(|args| {
                    call.command.keys.visit(args, |at| {
                        let entry = keyspace.get(call.db, Key::new(args[at]));
                        elements += entry.map_or(0, |entry| aside::weight(entry.value()));
                    });
                });
            }
            elements > MOST_ELEMENTS
        })
    }

    /// Whether all it works on are keys that it names: then it can do that elsewhere.
    fn may_leave(&self) -> bool {
        let is_bound = |call: &Call| {
            call.words.with(|args| {
                let mut has_keys = false;
                call.command.keys.visit(args, |_| has_keys = true);
                has_keys
                    && match call.command.run {
                        Run::Keys(_) | Run::Split { .. } => true,
                        Run::Global(_) => super::sort::is_bound(call.command, args),
                        Run::Script(_) | Run::Cursor(_) | Run::Session(_) => false,
                    }
            })
        };
        self.actor != Actor::Link && self.calls.iter().all(is_bound)
    }

    async fn run_once(
        mut self,
        coordinator: &Coordinator,
        context: Context,
        is_global: bool,
    ) -> Ran {
        if is_global {
            let (ran, stats) = coordinator
                .global(Box::new(move |keyspaces| {
                    let mut stats = CommandStats::default();
                    let mut mark = std::time::Instant::now();
                    let mut random = fastrand::Rng::new();
                    let mut commit = Commit::default();
                    super::eviction::make_room_everywhere(
                        keyspaces,
                        &context.settings,
                        &context.journal,
                        self.actor,
                    );
                    let mut runner = Runner {
                        keyspaces,
                        settings: &context.settings,
                        random: &mut random,
                        now_ms: crate::clock::now_ms(),
                        actor: self.actor,
                        caller: self.caller.clone(),
                        stats: &mut stats,
                        mark: &mut mark,
                        may_wait: false,
                        most_elements: usize::MAX,
                        is_journaling: context.journal.is_active() && self.actor == Actor::Client,
                        is_watched: true,
                        user: None,
                    };
                    self.check_watches(&runner);
                    self.go_on(&mut runner, &mut commit);
                    if self.place.is_some() && !self.is_off {
                        runner.keyspaces[0].place = self.place;
                    }
                    runner.finish(&commit);
                    let ran = self.ran(&commit);
                    keyspaces[0].stats.changes += commit.changes;
                    if !commit.effects.is_empty() {
                        let seq = context.journal.next();
                        let records = Records::of_effects(seq, &commit.effects);
                        context.journal.post(records);
                    }
                    ((ran, stats), commit.touched)
                }))
                .await;
            coordinator
                .here()
                .tell(0, move |shard| shard.stats.add(&stats));
            return ran;
        }
        let keys: Vec<(DbIndex, Blob)> = self
            .calls
            .iter()
            .flat_map(|call| call.keys())
            .chain(
                self.watches
                    .iter()
                    .map(|watch| (watch.db, watch.key.clone())),
            )
            .collect();
        let mut places = coordinator.by_shard(keys.iter().map(|(db, key)| (*db, key.as_slice())));
        match places.len() {
            0 | 1 => {
                let (shard, keys) = places.pop().unwrap_or_default();
                coordinator
                    .single_held(shard, keys, move |shard, finish: Finish<Ran>| {
                        self.run_on_home(
                            shard,
                            Box::new(move |shard, end| {
                                shard.announce(&end.touched);
                                finish(shard, end.result);
                            }),
                        );
                    })
                    .await
            }
            _ => {
                let job = move |shard: &mut Shard, finish| self.run_on_home(shard, finish);
                coordinator.gathered(places, Box::new(job)).await
            }
        }
    }

    /// Runs on one shard, which has all the entries. From the first command that is too long for its thread it goes on beside it.
    fn run_on_home(mut self, shard: &mut Shard, finish: Finish<GatherEnd<Ran>>) {
        let most_elements = if self.may_leave() {
            MOST_ELEMENTS
        } else {
            usize::MAX
        };
        let mut commit = Commit::default();
        if self.begin(shard, &mut commit, most_elements) {
            let end = self.end(shard, commit);
            return finish(shard, end);
        }
        let watched = self.watches.iter();
        let watched = watched.map(|watch| (watch.db, watch.key.clone()));
        let keys = self.calls.iter().flat_map(Call::keys).chain(watched);
        let (keys, on_behalf) = (keys.collect(), (self.actor, self.caller.clone()));
        let work = move |runner: &mut Runner<'_>, commit: &mut Commit| {
            self.go_on(runner, commit);
            self
        };
        let then = move |shard: &mut Shard, commit, block: Block| {
            let end = block.end(shard, commit);
            finish(shard, end);
        };
        aside::go_on(shard, keys, on_behalf, commit, work, then);
    }

    /// Runs what is not too long for a shard's thread. False if something is left.
    fn begin(&mut self, shard: &mut Shard, commit: &mut Commit, most_elements: usize) -> bool {
        super::eviction::make_room(shard, self.actor);
        shard.caller = self.caller.clone();
        shard.mark = std::time::Instant::now();
        with_runner(shard, self.actor, |runner| {
            // Watchers may sit on the shards that lent.
            runner.is_watched = true;
            runner.most_elements = most_elements;
            self.check_watches(runner);
            let is_done = self.go_on(runner, commit);
            if is_done {
                runner.finish(commit);
            }
            is_done
        })
    }

    /// Commits on the shard what was done.
    fn end(self, shard: &mut Shard, mut commit: Commit) -> GatherEnd<Ran> {
        if let Some(keyspace) = &mut shard.keyspace
            && self.place.is_some()
            && !self.is_off
        {
            keyspace.place = self.place;
        }
        let ran = self.ran(&commit);
        let touched = std::mem::take(&mut commit.touched);
        commit_on_shard(shard, commit);
        GatherEnd {
            result: ran,
            touched,
            at_home: None,
        }
    }

    fn ran(self, commit: &Commit) -> Ran {
        Ran {
            replies: (!self.is_off).then_some(self.replies),
            needs_everything: commit.needs_everything,
        }
    }

    /// Looks whether a watched key has changed.
    fn check_watches(&mut self, runner: &Runner<'_>) {
        let shards = runner.keyspaces.len();
        self.is_off = self.dirty.load(Ordering::Acquire)
            || self.watches.iter().any(|watch| {
                let key = Key::new(&watch.key);
                let at = if shards == 1 {
                    0
                } else {
                    shard_of(key.hash, shards)
                };
                let keyspace = &runner.keyspaces[at];
                let is_expired = keyspace
                    .get(watch.db, key)
                    .is_some_and(|entry| entry.is_expired(runner.now_ms));
                // A lent key is watched at its home: then what was known when it was watched must do.
                is_expired
                    && !keyspace
                        .watches
                        .was_expired(watch.db, &watch.key, &self.dirty)
                        .unwrap_or(watch.was_expired)
            });
    }

    /// Runs the commands that have not run yet. False if one of them is too long for here.
    fn go_on(&mut self, runner: &mut Runner<'_>, commit: &mut Commit) -> bool {
        if self.is_off {
            return true;
        }
        runner.user = self.user.clone();
        for call in &self.calls[self.replies.len()..] {
            let mut reply = Reply::new(self.protocol);
            call.words
                .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
            if commit.runs_aside {
                return false;
            }
            self.replies.push(reply.take());
        }
        true
    }
}

/// A split command as one command for each shard of its keys, with that shard's keys only; `stride` words go with each
/// key. The word count must fit.
fn parts_of(call: &Call, stride: usize, shards: usize) -> Vec<(usize, Call)> {
    let words: Vec<&[u8]> = call.words.iter().collect();
    let mut parts: Vec<(usize, Vec<&[u8]>)> = Vec::new();
    for group in words[1..].chunks(stride) {
        let shard = shard_of(Key::new(group[0]).hash, shards);
        match parts.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, part)) => part.extend_from_slice(group),
            None => parts.push((shard, [&words[..1], group].concat())),
        }
    }
    let part = |words: Vec<&[u8]>| Call {
        command: call.command,
        db: call.db,
        words: Words::new(words),
    };
    parts
        .into_iter()
        .map(|(shard, words)| (shard, part(words)))
        .collect()
}

/// Runs a command on each shard with that shard's keys, at one point of the order, and merges the replies.
pub async fn split(
    coordinator: &Coordinator,
    call: Call,
    stride: usize,
    merge: Merge,
    actor: Actor,
    caller: Caller,
    protocol: Protocol,
) -> Vec<u8> {
    let words: Vec<&[u8]> = call.words.iter().collect();
    if !(words.len() - 1).is_multiple_of(stride) {
        let mut reply = Reply::new(protocol);
        reply.error(&CommandError::wrong_arity(call.command.name).0);
        return reply.take();
    }
    let shards = coordinator.shards();
    // Which group of words went where, in the order of the command.
    let owners: Vec<usize> = words[1..]
        .chunks(stride)
        .map(|group| shard_of(Key::new(group[0]).hash, shards))
        .collect();
    let mode = super::call::mode(call.command);
    let parts = parts_of(&call, stride, shards);
    let order: Vec<usize> = parts.iter().map(|(shard, _)| *shard).collect();
    let parts = parts
        .into_iter()
        .map(|(shard, part)| {
            let caller = caller.clone();
            Part {
                shard,
                keys: part.keys(),
                run: Box::new(move |shard| {
                    shard.caller = caller;
                    run_part(shard, &part, actor, protocol)
                }),
            }
        })
        .collect();
    let replies = coordinator
        .split(parts, mode, |effects| joined(effects, &call))
        .await;
    merged(merge, &owners, &order, &replies, protocol)
}

/// What replicas get of a split command: what else its parts did (keys that had expired), then the command as it was received if any
/// part did what it says. An effect without bytes stands for the part itself.
fn joined(effects: Vec<Effects>, call: &Call) -> Effects {
    let all = effects.into_iter().flatten();
    let (mut joined, own): (Effects, Effects) = all.partition(|(_, bytes)| !bytes.is_empty());
    if !own.is_empty() {
        let words: Vec<&[u8]> = call.words.iter().collect();
        joined.push((call.db, encoded(&words)));
    }
    joined
}

fn run_part(shard: &mut Shard, part: &Call, actor: Actor, protocol: Protocol) -> PartEnd<Vec<u8>> {
    super::eviction::make_room(shard, actor);
    let mut commit = Commit::default();
    let mut reply = Reply::new(protocol);
    run_uncommitted(shard, actor, &mut commit, |runner, commit| {
        part.words
            .with(|args| runner.run(part.command, part.db, args, &mut reply, commit));
    });
    let mut effects = std::mem::take(&mut commit.effects).into_vec();
    let is_own = |bytes: &Vec<u8>| part.words.with(|args| *bytes == encoded(args));
    if let Some((_, bytes)) = effects.last_mut().filter(|(_, bytes)| is_own(bytes)) {
        bytes.clear();
    }
    commit_on_shard(shard, commit);
    PartEnd {
        result: reply.take(),
        effects,
    }
}

/// Makes one reply of the parts'. `owners[i]` is the shard of the i-th key, `order[j]` that of the j-th reply.
fn merged(
    merge: Merge,
    owners: &[usize],
    order: &[usize],
    replies: &[Vec<u8>],
    protocol: Protocol,
) -> Vec<u8> {
    if let Some(error) = replies.iter().find(|reply| reply.first() == Some(&b'-')) {
        return error.clone();
    }
    let mut reply = Reply::new(protocol);
    match merge {
        Merge::Ok => reply.ok(),
        Merge::Sum => {
            let sum = replies
                .iter()
                .filter_map(|reply| {
                    std::str::from_utf8(&reply[1..reply.len() - 2])
                        .ok()?
                        .parse::<i64>()
                        .ok()
                })
                .sum();
            reply.int(sum);
        }
        Merge::Elements => {
            let mut rest: Vec<&[u8]> = replies
                .iter()
                .map(|reply| {
                    &reply[reply
                        .iter()
                        .position(|&byte| byte == b'\n')
                        .map_or(0, |end| end + 1)..]
                })
                .collect();
            reply.array(owners.len());
            for owner in owners {
                let at = order
                    .iter()
                    .position(|shard| shard == owner)
                    .expect("each owner has a part");
                let (element, tail) = rest[at].split_at(string_len(rest[at]));
                reply.raw(element);
                rest[at] = tail;
            }
        }
    }
    reply.take()
}

/// Bytes of the string or null that `encoded` starts with.
fn string_len(encoded: &[u8]) -> usize {
    let line = encoded
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(encoded.len(), |end| end + 1);
    let is_bulk = encoded.first() == Some(&b'$');
    let len = std::str::from_utf8(&encoded[1..line.saturating_sub(2).max(1)])
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match len {
        Some(len) if is_bulk && len >= 0 => line + len as usize + 2,
        _ => line,
    }
}
