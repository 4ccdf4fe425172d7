//! Runs of commands that would hold up their shard: on a thread beside it, on entries that it lends.
//!
//! A shard runs one command after the other, so one that walks a million elements stops everybody. Such a command finds out when it has
//! looked up what it works on, does nothing, and says so ([`Effect::Aside`]); [`Batch`] calls [`run`] for it. It gets a
//! place in the shard's queue with all its keys for itself. When it is there, the entries go to the thread beside the shard, in a keyspace of
//! their own, and come back with the reply. Meanwhile who wants these keys waits; everybody else goes on.
//!
//! Invariants
//! - The run is one point of the order: its keys are its own from before the entries leave until what it did is recorded and announced.
//! - A cut cannot fall between: it waits for everybody's place, so the epoch at home is that of the run.
//!
//! [`Effect::Aside`]: super::Effect::Aside
//! [`Batch`]: super::call::Batch

use std::time::Instant;

use dfsnap_formats::resp::Reply;
use smallvec::SmallVec;

use super::call::Call;
use super::collection::elements;
use super::exec::Actor;
use super::runner::{Commit, Runner, commit_on_shard};
use crate::keyspace::value::Value;
use crate::keyspace::{DbIndex, Key, blob::Blob};
use crate::pubsub::tracking::Caller;
use crate::shard::queue::{Footprint, Mode};
use crate::shard::{After, Intent, Shard, fingerprint};
use crate::stats::CommandStats;

/// Over how many elements a command runs on its shard's thread: about a millisecond.
pub const MOST_ELEMENTS: usize = 16_384;

/// So many bytes of a string take as long as an element of a collection: 2 MiB are the most that run on a shard's thread.
pub const BYTES_OF_AN_ELEMENT: usize = 128;

/// How many elements a value counts for.
pub fn weight(value: &Value) -> usize {
    match value {
        Value::Int(_) | Value::Str(_) | Value::Raw(_) => value.heap_bytes() / BYTES_OF_AN_ELEMENT,
        value => elements(value),
    }
}

/// Whether no snapshot has to see the entries of a command first.
pub fn may_lend(shard: &Shard, call: &Call) -> bool {
    let mut keys = call.keys().into_iter();
    keys.all(|(db, key)| shard.admits_write(db, Key::new(&key)))
}

/// Runs a command beside the shard of its keys. `then` gets its reply, behind what stood in `reply`, on the shard's thread.
pub fn run(
    shard: &mut Shard,
    call: Call,
    on_behalf: (Actor, Caller),
    mut reply: Reply,
    then: impl FnOnce(&mut Shard, Reply) + Send + 'static,
) {
    let keys = call.keys();
    let intents = keys
        .iter()
        .map(|(db, key)| (fingerprint(*db, Key::new(key).hash), Mode::Exclusive));
    let id = shard.links.next_tx_id();
    assert!(
        shard
            .schedule(id, Footprint::Keys(intents.collect()))
            .is_ok(),
        "an id taken here and now is not late"
    );
    let writes = keys.clone();
    let hop = move |shard: &mut Shard| {
        let work = move |runner: &mut Runner<'_>, commit: &mut Commit| {
            call.words
                .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
            reply
        };
        let back = move |shard: &mut Shard, commit: Commit, reply: Reply| {
            commit_on_shard(shard, commit);
            shard.release(id);
            then(shard, reply);
        };
        go_on(shard, keys, on_behalf, Commit::default(), work, back);
        After::Hold
    };
    shard.arm(id, Intent::Write(writes), Box::new(hop));
}

/// Goes on with a run beside its shard, on the entries of these keys, which the run holds for itself. `then` gets what it did and what it
/// made, on the shard's thread, when the entries are back.
pub fn go_on<T: Send + 'static>(
    shard: &mut Shard,
    keys: SmallVec<[(DbIndex, Blob); 2]>,
    (actor, caller): (Actor, Caller),
    mut commit: Commit,
    work: impl FnOnce(&mut Runner<'_>, &mut Commit) -> T + Send + 'static,
    then: impl FnOnce(&mut Shard, Commit, T) + Send + 'static,
) {
    let keyspace = shard
        .keyspace
        .as_mut()
        .expect("a held key keeps the keyspace here");
    let mut lent = Box::new(keyspace.beside());
    lent.take_back(keyspace.lend(&keys));
    let is_journaling = shard.journal.is_active() && actor == Actor::Client;
    let (settings, now_ms, mut random) =
        (shard.settings.clone(), shard.now_ms, shard.random.fork());
    let (links, home) = (shard.links.clone(), shard.index);
    shard.beside.run(move || {
        let mut stats = CommandStats::default();
        let mut runner = Runner {
            keyspaces: std::slice::from_mut(&mut lent),
            settings: &settings,
            random: &mut random,
            now_ms,
            actor,
            caller,
            stats: &mut stats,
            mark: &mut Instant::now(),
            may_wait: false,
            most_elements: usize::MAX,
            is_journaling,
            // Somebody may begin to watch meanwhile.
            is_watched: true,
            user: None,
        };
        let made = work(&mut runner, &mut commit);
        runner.finish(&commit);
        let entries = lent.take_out(&keys);
        let back = move |shard: &mut Shard| {
            let keyspace = shard
                .keyspace
                .as_mut()
                .expect("a held key keeps the keyspace here");
            keyspace.take_back(entries);
            keyspace.adopt_notes(&mut lent);
            shard.stats.add(&stats);
            then(shard, commit, made);
        };
        links.send(home, Box::new(back));
    });
}
