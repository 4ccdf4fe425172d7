//! Runs commands: calls the handler, and turns what it did into records and wake-ups.

use std::sync::Arc;
use std::time::Instant;

use dfsnap_formats::resp::{Reply, encode_command};
use smallvec::SmallVec;

use super::acl::User;
use super::events::{self, Event, Ran};
use super::{Args, Command, CommandError, Effect, Exec, Flags, Handler, Run};
use crate::command::blocking::Wait;
use crate::command::exec::Actor;
use crate::keyspace::blob::Blob;
use crate::keyspace::settings::Settings;
use crate::keyspace::{DbIndex, Key, Keyspace, shard_of};
use crate::pubsub::tracking::Caller;
use crate::shard::Shard;
use crate::stats::{CommandStats, activity, subcommand_name};

/// What a client gets that writes to a replica.
pub const READ_ONLY: CommandError =
    CommandError::text("READONLY You can't write against a read only replica.");

/// What a client gets while a dataset is loaded.
pub const LOADING: CommandError =
    CommandError::text("LOADING Redis is loading the dataset in memory");

/// What a client gets while the link to the primary is down and old data are not to be shown.
pub const MASTER_DOWN: CommandError = CommandError::text(
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
);

/// What commands did in one atomic run.
#[derive(Debug, Default)]
pub struct Commit {
    /// Effects for the journal, in order; empty if nobody listens.
    pub effects: SmallVec<[(DbIndex, Vec<u8>); 1]>,
    /// Keys that passed the door; empty if nobody watches.
    pub touched: Vec<(DbIndex, Blob)>,
    /// Commands that changed something.
    pub changes: u64,
    /// What the last command waits for, if it found nothing and may block.
    pub wait: Option<Box<Wait>>,
    /// A script must run again, with all shards: nothing was done.
    pub needs_everything: bool,
    /// A command that comes by keys it does not name (SCAN) met some whose time had come: their removals are no unit.
    pub are_unrelated: bool,
    /// The last command must run again, beside the shard: nothing was done, save that keys whose time had come are gone.
    pub runs_aside: bool,
}

impl Commit {
    /// Notes the removal of an expired key for replicas.
    pub fn expired(&mut self, db: DbIndex, key: &[u8], as_unlink: bool) {
        let name: &[u8] = if as_unlink { b"UNLINK" } else { b"DEL" };
        self.effects.push((db, encoded(&[name, key])));
    }

    /// Notes the removal of a field past its time for replicas.
    pub fn lapsed(&mut self, db: DbIndex, key: &[u8], field: &[u8]) {
        self.effects.push((db, encoded(&[b"HDEL", key, field])));
    }
}

/// Commands on keys that are counted by their subcommands.
const CONTAINERS: [&str; 7] = [
    "client", "config", "memory", "object", "pubsub", "xgroup", "xinfo",
];

/// Where commands run.
pub struct Runner<'a> {
    /// The shard of the keys, or all shards.
    pub keyspaces: &'a mut [Box<Keyspace>],
    /// Settings.
    pub settings: &'a Settings,
    /// Random numbers.
    pub random: &'a mut fastrand::Rng,
    /// The clock of this run.
    pub now_ms: i64,
    /// On whose behalf.
    pub actor: Actor,
    /// On whose behalf, for tracking and the slow log.
    pub caller: Caller,
    /// What is measured.
    pub stats: &'a mut CommandStats,
    /// When the command before ended, or the turn began: reading the clock once is enough.
    pub mark: &'a mut Instant,
    /// The command may wait for its keys: then it has not run.
    pub may_wait: bool,
    /// Over how many elements a command may run here.
    pub most_elements: usize,
    /// Whether effects are wanted.
    pub is_journaling: bool,
    /// Whether touched keys are wanted.
    pub is_watched: bool,
    /// Whose rights bound what scripts do; `None`: nobody's.
    pub user: Option<Arc<User>>,
}

impl Runner<'_> {
    /// Runs one command: its reply goes behind what stands in `reply`, what it did into `commit`.
    pub fn run(
        &mut self,
        command: &Command,
        db: DbIndex,
        args: Args<'_>,
        reply: &mut Reply,
        commit: &mut Commit,
    ) {
        let handler = handler(command).expect("a session command does not run on entries");
        let start = reply.len();
        let _doing = activity::begin(command.name);
        if self.actor == Actor::Client && self.keyspaces[0].is_follower {
            // The role has changed since the connection looked.
            self.actor = Actor::ReplicaClient;
        }
        if self.actor == Actor::ReplicaClient
            && let Some(refusal) = self.refusal(command)
        {
            reply.error(&refusal.0);
            self.stats.error(&refusal.0);
            self.stats.rejected(command.name);
            return;
        }
        let touched_before = commit.touched.len();
        let mut exec = Exec::new(
            self.keyspaces,
            db,
            self.now_ms,
            self.actor,
            self.settings,
            reply,
            self.random,
        );
        exec.is_journaling = self.is_journaling;
        exec.most_elements = self.most_elements;
        exec.client_id = self.caller.id;
        if let Run::Script(_) = command.run {
            exec.user = self.user.clone();
            exec.caller = self.caller.clone();
            exec.stats = Some(&mut *self.stats);
        }
        if self.is_watched {
            exec.touched = Some(std::mem::take(&mut commit.touched));
        }
        exec.is_no_touch = self.caller.is_no_touch && command.name != "touch";
        exec.notes_misses = command.flags.has(Flags::READONLY)
            && !matches!(command.name, "object" | "memory" | "scan");
        let result = handler(&mut exec, args);
        let (expired, touched) = (std::mem::take(&mut exec.expired), exec.touched.take());
        let mut noted = std::mem::take(&mut exec.events);
        let has_flushed = exec.has_flushed;
        let lapsed = std::mem::take(&mut exec.lapsed);
        if exec.needs_everything {
            commit.needs_everything = true;
            reply.truncate(start);
            return;
        }
        commit.runs_aside = matches!(result, Ok(Effect::Aside));
        if commit.runs_aside {
            // What it noted it will note again.
            noted.clear();
        }
        commit.are_unrelated = matches!(command.run, Run::Cursor(_)) || command.name == "randomkey";
        commit.touched = touched.unwrap_or_default();
        commit.wait = exec.wait.take();
        if self.is_journaling {
            for (db, key) in &expired {
                commit.expired(*db, key, self.settings.expire_as_unlink);
            }
            for (db, key, field) in &lapsed {
                commit.lapsed(*db, key, field);
            }
        }
        if self.is_watched && !matches!(&result, Ok(effect) if !effect.is_none()) {
            // It passed the door and then changed nothing: nobody need hear of it, save of keys that expired.
            commit.touched.truncate(touched_before);
            commit.touched.extend(expired.iter().cloned());
            let hashes = lapsed.iter().map(|(db, key, _)| (*db, key.clone()));
            commit.touched.extend(hashes);
        }
        if self.settings.hub.has_events() {
            let ran = Ran {
                command,
                args,
                db,
                touched: commit.touched.get(touched_before..).unwrap_or_default(),
            };
            self.publish_events(&ran, &expired, &lapsed, noted, result.as_ref().ok());
        }
        if self.settings.hub.tracking.is_active() || has_flushed {
            let touched = commit.touched.get(touched_before..).unwrap_or_default();
            self.track(command, args, touched, has_flushed);
        }
        if self.actor == Actor::ReplicaClient && command.is_write() && result.is_ok() {
            self.note_own_expiry(command, db, args);
        }
        let failed = result.as_ref().err().map(|error| error.0.clone());
        // A script's errors are in its reply, and counted.
        let has_failed = failed.is_some()
            || matches!(command.run, Run::Script(_)) && reply.as_bytes().get(start) == Some(&b'-');
        match result {
            Ok(Effect::None) => {}
            Ok(Effect::Aside) => reply.truncate(start),
            Ok(Effect::Unit { effects, changes }) => {
                commit.changes += changes;
                commit.effects.extend(effects);
            }
            Ok(Effect::Passed) => {
                if self.is_journaling {
                    commit.effects.push((db, encoded(args)));
                }
            }
            Ok(effect) => {
                commit.changes += 1;
                if self.is_journaling {
                    match effect {
                        Effect::None | Effect::Aside | Effect::Passed | Effect::Unit { .. } => {}
                        Effect::Verbatim => commit.effects.push((db, encoded(args))),
                        Effect::Commands(commands) => {
                            commit
                                .effects
                                .extend(commands.iter().map(|words| (db, encoded(words))));
                        }
                    }
                }
            }
            Err(error) => {
                reply.truncate(start);
                reply.error(&error.0);
            }
        }
        if let Some(error) = &failed {
            self.stats.error(error);
        }
        if self.may_wait && commit.wait.is_some() || commit.runs_aside {
            // It counts when it is served, or has run.
            return;
        }
        let now = Instant::now();
        let nanos = now.saturating_duration_since(*self.mark).as_nanos() as u64;
        *self.mark = now;
        let recorder = &self.settings.recorder;
        if !self.caller.is_inner {
            recorder.ran(args, nanos, self.caller.id, command.flags.has(Flags::FAST));
        }
        let is_tracked = recorder.tracks_latency();
        let name = match args.get(1) {
            Some(word) if CONTAINERS.contains(&command.name) => {
                let is_unknown = failed
                    .as_ref()
                    .is_some_and(|error| error.contains("unknown subcommand"));
                if is_unknown {
                    command.name
                } else {
                    subcommand_name(command.name, word)
                }
            }
            _ => command.name,
        };
        self.stats.ran(name, nanos, has_failed, is_tracked);
    }

    /// A client of a replica has written: keys that expire now are for this replica to remove.
    fn note_own_expiry(&mut self, command: &Command, db: DbIndex, args: Args<'_>) {
        let shards = self.keyspaces.len();
        command.keys.visit(args, |at| {
            let key = Key::new(args[at]);
            let home = if shards == 1 {
                0
            } else {
                shard_of(key.hash, shards)
            };
            let keyspace = &mut self.keyspaces[home];
            let entry = keyspace.get(db, key);
            if entry.is_some_and(|entry| entry.expire_at_ms().is_some()) {
                keyspace.own_expiring.insert((db, Blob::new(args[at])));
            }
        });
    }

    /// A run is over: who hears of all keys with a prefix hears of it in one message.
    pub fn finish(&self, commit: &Commit) {
        let hub = &self.settings.hub;
        if hub.tracking.is_active() && !commit.touched.is_empty() {
            let keys = commit.touched.iter().map(|(_, key)| key.as_slice());
            hub.tracking.broadcast(keys, self.caller.id, &hub.limits);
        }
    }

    /// Tells those who keep copies what has changed, and remembers what a client that keeps copies has read.
    fn track(
        &self,
        command: &Command,
        args: Args<'_>,
        touched: &[(DbIndex, Blob)],
        has_flushed: bool,
    ) {
        let hub = &self.settings.hub;
        if has_flushed {
            hub.tracking.invalidate_all(&hub.limits);
        }
        if !touched.is_empty() {
            let keys = touched.iter().map(|(_, key)| key.as_slice());
            hub.tracking.invalidate(keys, self.caller.id, &hub.limits);
        }
        if let Some(tracker) = &self.caller.reads_for
            && command.flags.has(Flags::READONLY)
        {
            command.keys.visit(args, |at| {
                hub.tracking.remember(args[at], tracker, &hub.limits)
            });
        }
    }
}

impl Runner<'_> {
    /// Why a command of a replica's client does not run. Its connection has looked before, but not at this moment.
    fn refusal(&self, command: &Command) -> Option<CommandError> {
        if command.is_write() && self.settings.replica_read_only {
            Some(READ_ONLY)
        } else if self.keyspaces[0].is_closed {
            Some(LOADING)
        } else {
            None
        }
    }
}

impl Runner<'_> {
    /// Publishes the keyspace events of a command that ran; `effect` is missing if it failed.
    fn publish_events(
        &self,
        ran: &Ran<'_>,
        expired: &[(DbIndex, Blob)],
        lapsed: &[(DbIndex, Blob, Blob)],
        noted: impl IntoIterator<Item = Event>,
        effect: Option<&Effect>,
    ) {
        let hub = &self.settings.hub;
        if hub.has_event(b'x') {
            for (db, key) in expired {
                hub.notify(db.0, "expired", key);
            }
        }
        for (i, (db, key, _)) in lapsed.iter().enumerate() {
            let is_told = lapsed[..i]
                .iter()
                .any(|(known_db, known, _)| known_db == db && known == key);
            if !is_told && hub.has_event(b'h') {
                hub.notify(db.0, "hexpired", key);
            }
        }
        let shards = self.keyspaces.len();
        let exists = |db: DbIndex, key: &[u8]| {
            let key = Key::new(key);
            let at = if shards == 1 {
                0
            } else {
                shard_of(key.hash, shards)
            };
            self.keyspaces[at].get(db, key).is_some()
        };
        let told = effect.map_or(Vec::new(), |effect| events::of(ran, effect, exists));
        let (before, behind): (Vec<_>, Vec<_>) =
            noted.into_iter().partition(|event| event.class != b't');
        let failed = effect.is_none();
        // MSET tells of each key by itself, all others of what is new first.
        let (mut told, mut before) = (told, before);
        if ran.command.name.starts_with("mset") {
            told.append(&mut before);
            told.sort_by_key(|event| {
                let at = ran.args.iter().position(|word| **word == *event.key);
                (at, event.class != b'n')
            });
        }
        for event in before.into_iter().chain(told).chain(behind) {
            if hub.has_event(event.class) && !(failed && event.class != b'm') {
                hub.notify(event.db.0, event.name, &event.key);
            }
        }
    }
}

/// A command as it stands in the stream.
pub fn encoded(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(
        16 + words
            .iter()
            .map(|word| word.as_ref().len() + 16)
            .sum::<usize>(),
    );
    encode_command(&mut bytes, words);
    bytes
}

/// The function of a command that runs on entries.
pub fn handler(command: &Command) -> Option<Handler> {
    match command.run {
        Run::Keys(handler)
        | Run::Split { handler, .. }
        | Run::Global(handler)
        | Run::Script(handler)
        | Run::Cursor(handler) => Some(handler),
        Run::Session(_) => None,
    }
}

/// Runs something on a shard's own entries and commits it there, as one unit.
pub fn run_on_shard<R>(
    shard: &mut Shard,
    actor: Actor,
    run: impl FnOnce(&mut Runner<'_>, &mut Commit) -> R,
) -> R {
    let mut commit = Commit::default();
    let result = run_uncommitted(shard, actor, &mut commit, run);
    if commit.are_unrelated && commit.effects.len() > 1 {
        for effect in std::mem::take(&mut commit.effects) {
            shard.record(&[effect]);
        }
    }
    commit_on_shard(shard, commit);
    result
}

/// Runs something on a shard's own entries; what it did is for the caller to commit.
pub fn run_uncommitted<R>(
    shard: &mut Shard,
    actor: Actor,
    commit: &mut Commit,
    run: impl FnOnce(&mut Runner<'_>, &mut Commit) -> R,
) -> R {
    with_runner(shard, actor, |runner| {
        let result = run(runner, commit);
        runner.finish(commit);
        result
    })
}

/// The same for a part of a run: what it did is for the caller to finish.
pub fn with_runner<R>(
    shard: &mut Shard,
    actor: Actor,
    run: impl FnOnce(&mut Runner<'_>) -> R,
) -> R {
    let is_journaling = shard.journal.is_active() && actor == Actor::Client;
    let is_watched = shard.is_watched();
    let caller = std::mem::take(&mut shard.caller);
    let keyspace = shard
        .keyspace
        .as_mut()
        .expect("whoever runs here has its keys");
    let mut runner = Runner {
        keyspaces: std::slice::from_mut(keyspace),
        settings: &shard.settings,
        random: &mut shard.random,
        now_ms: shard.now_ms,
        actor,
        caller,
        stats: &mut shard.stats,
        mark: &mut shard.mark,
        may_wait: false,
        most_elements: usize::MAX,
        is_journaling,
        is_watched,
        user: None,
    };
    run(&mut runner)
}

/// Records and announces what was done on a shard.
pub fn commit_on_shard(shard: &mut Shard, commit: Commit) {
    if commit.changes > 0 {
        let keyspace = shard
            .keyspace
            .as_mut()
            .expect("whoever runs here has its keys");
        keyspace.stats.changes += commit.changes;
    }
    shard.record(&commit.effects);
    shard.announce(&commit.touched);
}
