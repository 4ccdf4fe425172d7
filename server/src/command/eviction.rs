//! Making room: keys go when memory is short, before the command that would need more.
//!
//! Each shard evicts its own keys, just before a command runs on it, and in a round of its own (`net::thread`) when nobody sends
//! it commands. All of them look at one figure, so together they stop when there is room. A shard without keys to give
//! asks the others; only when no shard has any is memory exhausted, and commands that need more are refused.
//!
//! Invariants
//! - An evicted key goes through the door, and replicas get its removal as a unit of its own, before whatever runs next.
//! - A key that a transaction holds stays.
//! - What it takes to tell others of evicted keys makes no more keys go in the same round: else a few clients who keep copies of them, and
//!   have not heard yet, would empty the dataset.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::exec::Actor;
use super::runner::Commit;
use super::{Command, CommandError, Flags};
use crate::config::words::MaxmemoryPolicy;
use crate::journal::{Journal, Records};
use crate::keyspace::settings::Settings;
use crate::keyspace::{DbIndex, Key, Keyspace};
use crate::memory;
use crate::pubsub::tracking;
use crate::shard::Shard;
use crate::shard::queue::Mode;

/// What other threads may have allocated and not told.
const NEAR_BYTES: u64 = 256 << 10;

thread_local! {
    /// When this thread's shard last asked the others for room, Unix ms.
    static ASKED_MS: Cell<i64> = const { Cell::new(0) };
}

/// The refusal of a command that needs memory.
pub const OUT_OF_MEMORY: CommandError =
    CommandError::text("OOM command not allowed when used memory > 'maxmemory'.");

/// Whether there is less memory in use than allowed.
fn has_room(settings: &Settings) -> bool {
    memory::counted() <= settings.memory_max
}

/// Whether this server evicts on behalf of whom it runs commands for.
fn is_on_duty(settings: &Settings, actor: Actor) -> bool {
    settings.memory_max > 0 && (actor == Actor::Client || !settings.replica_ignores_memory)
}

/// Whether commands that need memory are refused, by what was seen last.
pub fn is_out_of_memory(settings: &Settings, actor: Actor) -> bool {
    is_on_duty(settings, actor) && !has_room(settings)
}

/// How long one round may take. Tenacity 0 to 10: up to 500 µs; 100: until it is done.
fn time_limit(tenacity: u32) -> Duration {
    match tenacity {
        0..=10 => Duration::from_micros(50 * u64::from(tenacity.max(1))),
        11..=99 => {
            // 15 per cent more for each step: about two minutes at 99.
            Duration::from_micros((500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64)
        }
        _ => Duration::MAX,
    }
}

/// Evicts keys of this shard until there is room, or time is up. False if memory is short and no key may go anywhere.
#[inline]
pub fn make_room(shard: &mut Shard, actor: Actor) -> bool {
    !is_on_duty(&shard.settings, actor) || make_room_now(shard)
}

fn make_room_now(shard: &mut Shard) -> bool {
    if is_enough(&shard.settings) {
        shard.links.set_exhausted(shard.index, false);
        return true;
    }
    if shard.settings.eviction_policy == MaxmemoryPolicy::NoEviction {
        return false;
    }
    let settings = shard.settings.clone();
    let started = Instant::now();
    let limit = time_limit(settings.eviction_tenacity);
    let (mut evicted, mut telling_bytes) = (0u32, 0);
    while memory::counted().saturating_sub(telling_bytes) > settings.memory_max {
        let Some(bytes) = evict_one(shard, &settings) else {
            return ask_others(shard);
        };
        telling_bytes += bytes;
        evicted += 1;
        if evicted.is_multiple_of(16) && started.elapsed() > limit {
            // The rest goes before later commands, and in the shard's own rounds.
            break;
        }
    }
    shard.links.set_exhausted(shard.index, false);
    true
}

/// A round of a shard that evicts by itself. Returns whether there is more to do.
pub fn round(shard: &mut Shard, actor: Actor) -> bool {
    is_on_duty(&shard.settings, actor) && make_room_now(shard) && !has_room(&shard.settings)
}

/// Whether there is room. Near the limit all threads are looked at: the figure is exact.
fn is_enough(settings: &Settings) -> bool {
    memory::tell();
    if memory::counted().saturating_add(NEAR_BYTES) > settings.memory_max {
        memory::look();
    }
    has_room(settings)
}

/// No key may go here. The others look for some; whether they had any when they last looked is the answer.
fn ask_others(shard: &mut Shard) -> bool {
    shard.links.set_exhausted(shard.index, true);
    // Once in a millisecond is enough.
    if ASKED_MS.replace(shard.now_ms) == shard.now_ms {
        return !shard.links.is_exhausted();
    }
    for other in (0..shard.links.shards()).filter(|other| *other != shard.index) {
        let look = |shard: &mut Shard| {
            // One that was asked does not ask back.
            let settings = shard.settings.clone();
            let has_evicted = has_room(&settings) || evict_one(shard, &settings).is_some();
            shard.links.set_exhausted(shard.index, !has_evicted);
        };
        shard.links.send(other, Box::new(look));
    }
    !shard.links.is_exhausted()
}

/// Evicts one key of a shard; `None` if none may go. The answer is how many bytes it has taken to tell others: they go as those hear of it.
fn evict_one(shard: &mut Shard, settings: &Settings) -> Option<u64> {
    // A transaction on everything may have it, and will give it back soon.
    let mut keyspace = shard.keyspace.take()?;
    let mut random = shard.random.fork();
    let victim =
        keyspace.choose_victim(settings, shard.now_ms, &mut random, |keyspace, db, key| {
            shard.is_key_free(db, key, Mode::Exclusive) && keyspace.admits_write(db, key)
        });
    shard.keyspace = Some(keyspace);
    let (db, key) = victim?;
    let keyspace = shard.keyspace.as_mut().expect("it is back");
    let removal = evict(keyspace, db, &key, settings);
    let hub = &shard.settings.hub;
    let trackers = hub.tracking.forget(&key);
    let before = memory::of_this_thread();
    if hub.has_event(b'e') {
        hub.notify(db.0, "evicted", &key);
    }
    if hub.tracking.is_active() {
        tracking::tell(&trackers, &key, 0, &hub.limits);
        hub.tracking
            .broadcast(std::iter::once(key.as_slice()), 0, &hub.limits);
    }
    if shard.journal.is_active() {
        shard.record(&[(db, removal)]);
    }
    let touched = [(db, key)];
    shard.announce(&touched);
    let after = memory::of_this_thread();
    // These were there before as well.
    drop((touched, trackers));
    memory::tell();
    Some(after.saturating_sub(before))
}

/// Takes a key out, and returns its removal as replicas get it.
fn evict(keyspace: &mut Keyspace, db: DbIndex, key: &[u8], settings: &Settings) -> Vec<u8> {
    let entry = keyspace
        .remove(db, Key::new(key))
        .expect("it was just chosen");
    keyspace.stats.evicted += 1;
    crate::keyspace::release::drop_entry(entry);
    memory::tell();
    let mut commit = Commit::default();
    commit.expired(db, key, settings.evict_as_unlink);
    commit.effects.remove(0).1
}

/// [`make_room`] for a run that holds all keyspaces. Their keys are nobody else's.
pub fn make_room_everywhere(
    keyspaces: &mut [Box<Keyspace>],
    settings: &Settings,
    journal: &Journal,
    actor: Actor,
) -> bool {
    let now_ms = crate::clock::now_ms();
    if !is_on_duty(settings, actor) || is_enough(settings) {
        return true;
    }
    let mut random = fastrand::Rng::new();
    let started = Instant::now();
    let limit = time_limit(settings.eviction_tenacity);
    while !has_room(settings) && started.elapsed() <= limit {
        let mut has_evicted = false;
        for keyspace in keyspaces.iter_mut() {
            let victim = keyspace.choose_victim(settings, now_ms, &mut random, |_, _, _| true);
            let Some((db, key)) = victim else { continue };
            let removal = evict(keyspace, db, &key, settings);
            keyspace.mark_touched(&[(db, key)]);
            has_evicted = true;
            if journal.is_active() {
                let records = Records::of_effects(journal.next(), &[(db, removal)]);
                journal.post(records);
            }
        }
        if !has_evicted {
            return false;
        }
    }
    true
}

/// Makes room on a shard for a command, which is refused if it needs memory and there is none.
#[inline]
pub fn admit(shard: &mut Shard, actor: Actor, command: &Command) -> Result<(), CommandError> {
    if shard.settings.memory_max == 0 {
        return Ok(());
    }
    if !make_room(shard, actor) && command.flags.has(Flags::DENYOOM) && actor != Actor::Link {
        return Err(OUT_OF_MEMORY);
    }
    Ok(())
}
