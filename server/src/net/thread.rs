//! One shard's thread: its runtime, its inbox, its clock and its connections.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};

use crate::clock::now_ms;
use crate::command::eviction;
use crate::command::exec::Actor;
use crate::command::expiry::remove_expired;
use crate::command::runner::{Commit, commit_on_shard};
use crate::keyspace::blob::Blob;
use crate::keyspace::{DbIndex, Key};
use crate::shard::Shard;
use crate::shard::link::{Inbox, collect_messages};
use crate::shard::queue::Mode;
use crate::tx::{Coordinator, Here};
use crate::world::World;

/// What runs on a shard's thread shares this.
pub struct Thread {
    /// The shard.
    pub shard: Rc<RefCell<Shard>>,
    /// Transactions over several shards.
    pub coordinator: Coordinator,
    /// What all threads share.
    pub world: Arc<World>,
}

thread_local! {
    static THREAD: OnceCell<Rc<Thread>> = const { OnceCell::new() };
}

/// This thread's shard and what goes with it. Panics on a thread without a shard.
pub fn current() -> Rc<Thread> {
    THREAD.with(|thread| thread.get().expect("a shard's thread").clone())
}

/// Bundles of messages taken in one turn, so that connections have theirs.
const BUNDLES_PER_TURN: usize = 16;

/// Runs a shard until the process ends. `make` builds the shard on its own thread, `tell` hears whether that runs.
pub fn run(
    world: Arc<World>,
    mut inbox: Inbox,
    make: impl FnOnce() -> Shard,
    tell: impl FnOnce(std::io::Result<()>),
) {
    crate::memory::count_this_thread();
    crate::crash::take_stack();
    let runtime = Builder::new_current_thread()
        .on_thread_start(crate::memory::count_this_thread)
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tell(Err(error)),
    };
    tell(Ok(()));
    let shard = Rc::new(RefCell::new(make()));
    shard.borrow_mut().now_ms = now_ms();
    let index = shard.borrow().index;
    crate::stats::activity::take_place(index);
    let here = Here {
        shard: Some(shard.clone()),
        links: world.links.clone(),
    };
    let thread = Rc::new(Thread {
        shard: shard.clone(),
        coordinator: Coordinator::new(here),
        world,
    });
    crate::shard::install(shard.clone());
    THREAD.with(|slot| {
        slot.set(thread.clone())
            .ok()
            .expect("one shard for a thread")
    });
    runtime.block_on(async move {
        tokio::task::spawn_local(collect_messages(thread.world.links.clone(), index));
        tokio::task::spawn_local(expire(thread.clone()));
        let mut bundles = Vec::with_capacity(BUNDLES_PER_TURN);
        while inbox.recv_many(&mut bundles, BUNDLES_PER_TURN).await > 0 {
            {
                let mut shard = shard.borrow_mut();
                shard.now_ms = now_ms();
                shard.mark = std::time::Instant::now();
                for message in bundles.drain(..).flatten() {
                    message(&mut shard);
                }
                shard.post_records();
            }
            tokio::task::yield_now().await;
        }
    });
}

/// Ten times a second, removes entries whose time has come, for at most a tenth of the thread's time, and makes room if memory
/// is short.
async fn expire(thread: Rc<Thread>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0u64.. {
        tick.tick().await;
        if count.is_multiple_of(10) {
            crate::info::leave_report(&thread.world, &thread.shard.borrow());
        }
        if thread.world.is_cron_paused.load(Ordering::Relaxed) {
            continue;
        }
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(10) && expire_slice(&thread) {
            tokio::task::yield_now().await;
        }
    }
}

/// A slice of the removal of entries. Returns whether there may be more to remove now.
fn expire_slice(thread: &Thread) -> bool {
    let is_primary = !thread.world.is_replica.load(Ordering::Relaxed);
    let is_loading = thread.world.is_loading.load(Ordering::Relaxed);
    let is_paused = thread.world.hub.is_paused.load(Ordering::Relaxed);
    let mut shard = thread.shard.borrow_mut();
    shard.now_ms = now_ms();
    let started = std::time::Instant::now();
    let mut has_more =
        !is_paused && is_primary && !is_loading && shard.is_expiring && expire_some(&mut shard);
    if !is_primary && !is_loading && shard.is_expiring {
        expire_own(&mut shard);
    }
    let latency = &thread.world.recorder.latency;
    latency.add("expire-cycle", started.elapsed().as_nanos() as u64);
    if !is_loading && !is_paused {
        has_more |= eviction::round(&mut shard, client_actor(&thread.world));
    }
    shard.post_records();
    has_more
}

/// Removes up to a hundred expired entries. Returns whether there may be more to remove now.
fn expire_some(shard: &mut Shard) -> bool {
    let Some(keyspace) = &shard.keyspace else {
        return false;
    };
    let databases = keyspace.database_count();
    let now_ms = shard.now_ms;
    let mut removed = 0;
    for db in (0..databases).map(DbIndex) {
        while removed < 100 {
            let Some(keyspace) = shard.keyspace.as_mut() else {
                return false;
            };
            let Some(key) = keyspace.first_expired(db, now_ms) else {
                break;
            };
            if !expire_one(shard, db, &key) {
                // Taken or parked: a later tick finds it.
                return false;
            }
            removed += 1;
        }
    }
    removed == 100 || lapse_some(shard)
}

/// On a replica: removes what its own clients have made and given a time, of which the primary knows nothing.
fn expire_own(shard: &mut Shard) {
    let now_ms = shard.now_ms;
    let Some(keyspace) = &mut shard.keyspace else {
        return;
    };
    if keyspace.own_expiring.is_empty() {
        return;
    }
    let mut expired = Vec::new();
    let mut own = std::mem::take(&mut keyspace.own_expiring);
    own.retain(|(db, key)| {
        let entry = keyspace.get(*db, Key::new(key));
        if entry.is_some_and(|entry| entry.is_expired(now_ms)) {
            expired.push((*db, key.clone()));
        }
        entry.is_some_and(|entry| entry.expire_at_ms().is_some())
    });
    keyspace.own_expiring = own;
    for (db, key) in expired {
        // One that is taken or parked is found by a later tick.
        expire_one(shard, db, &key);
    }
}

/// Removes up to a hundred fields whose time is past. Returns whether there may be more to remove now.
fn lapse_some(shard: &mut Shard) -> bool {
    let databases = shard.keyspace.as_ref().map_or(0, |k| k.database_count());
    for db in (0..databases).map(DbIndex) {
        let now_ms = shard.now_ms;
        let Some(keyspace) = shard.keyspace.as_mut() else {
            return false;
        };
        if let Some(key) = keyspace.first_lapsed(db, now_ms) {
            return lapse_one(shard, db, &key);
        }
    }
    false
}

/// Removes fields of one hash. Returns whether it could.
fn lapse_one(shard: &mut Shard, db: DbIndex, key: &Blob) -> bool {
    let known = Key::new(key);
    if !shard.is_key_free(db, known, Mode::Exclusive) || !shard.admits_write(db, known) {
        return false;
    }
    let now_ms = shard.now_ms;
    let keyspace = shard.keyspace.as_mut().expect("free keys are here");
    let Some(place) = keyspace.locate(db, known) else {
        return false;
    };
    let gone = keyspace.lapse_at(db, place, known.hash, now_ms, 100);
    let is_empty = keyspace.at(db, place).value().is_empty_collection();
    if is_empty {
        keyspace.remove(db, known);
    }
    let hub = &shard.settings.hub;
    if hub.has_event(b'h') {
        hub.notify(db.0, "hexpired", key);
    }
    if is_empty && hub.has_event(b'g') {
        hub.notify(db.0, "del", key);
    }
    if shard.journal.is_active() {
        for field in gone {
            // Each by itself, as Redis does: none of them needs another.
            let mut commit = Commit::default();
            commit.lapsed(db, key, &field);
            commit_on_shard(shard, commit);
        }
    }
    shard.announce(&[(db, key.clone())]);
    true
}

fn expire_one(shard: &mut Shard, db: DbIndex, key: &Blob) -> bool {
    let known = Key::new(key);
    if !shard.is_key_free(db, known, Mode::Exclusive) || !shard.admits_write(db, known) {
        return false;
    }
    remove_expired(shard, db, key);
    true
}

/// On whose behalf clients' commands run.
pub fn client_actor(world: &World) -> Actor {
    if world.is_replica.load(Ordering::Relaxed) {
        Actor::ReplicaClient
    } else {
        Actor::Client
    }
}
