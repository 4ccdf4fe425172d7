//! The traverser: walks a shard's tables for one snapshot, in slices, between the commands.
//!
//! Invariants
//! - A slice holds up its shard for about `SLICE`, whatever it meets.
//! - While the shard has other work, the walk takes no more than a third of its time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::SnapshotId;
use super::hook::{self, CHUNK_BYTES};
use super::large::{self, Step};
use crate::keyspace::TableId;
use crate::keyspace::table::Cursor;
use crate::shard::Shard;

/// How long a slice may take: commands wait for no longer.
const SLICE: Duration = Duration::from_micros(100);
/// Work after which a walk on a busy shard rests.
const WORK: Duration = Duration::from_micros(500);
/// How long it rests: what the timer can do.
const REST: Duration = Duration::from_millis(1);

/// What a slice ended with.
enum Slice {
    /// There is more of the table.
    More(Cursor),
    /// The table is walked.
    Done,
    /// The sink must catch up, or the keyspace is lent.
    Wait(Cursor),
}

/// Walks everything the snapshot covers on this shard, then ends it here.
pub async fn traverse(shard: Rc<RefCell<Shard>>, id: SnapshotId, is_paced: bool) {
    let wake = shard.borrow().wake.clone();
    let mut pace = Pace::new(is_paced);
    loop {
        // Registered before the look: a wake in between is not lost.
        let woken = wake.notified();
        let table = {
            let mut shard = shard.borrow_mut();
            match shard.keyspace.as_mut() {
                None => Err(()),
                Some(keyspace) => Ok(hook::of(keyspace).next_table(id)),
            }
        };
        match table {
            Err(()) => woken.await,
            Ok(Some(table)) => walk(&shard, &wake, id, table, &mut pace).await,
            Ok(None) => break,
        }
    }
    loop {
        let woken = wake.notified();
        {
            let mut shard = shard.borrow_mut();
            if let Some(keyspace) = shard.keyspace.as_mut() {
                hook::end(keyspace, id);
                shard.unpark();
                return;
            }
        }
        woken.await;
    }
}

async fn walk(
    shard: &RefCell<Shard>,
    wake: &tokio::sync::Notify,
    id: SnapshotId,
    table: TableId,
    pace: &mut Pace,
) {
    let mut cursor = Cursor::START;
    loop {
        let woken = wake.notified();
        let started = Instant::now();
        let end = slice(&mut shard.borrow_mut(), id, table, cursor);
        match end {
            Slice::More(next) => {
                cursor = next;
                pace.rest(shard, id, started).await;
            }
            Slice::Wait(next) => {
                cursor = next;
                woken.await;
            }
            Slice::Done => return,
        }
    }
}

fn slice(shard: &mut Shard, id: SnapshotId, table: TableId, mut cursor: Cursor) -> Slice {
    let started = Instant::now();
    while started.elapsed() < SLICE {
        let Some(keyspace) = shard.keyspace.as_mut() else {
            return Slice::Wait(cursor);
        };
        match large::step(keyspace, id) {
            Step::Idle => {}
            Step::Part => continue,
            Step::Saved => {
                // Writes may have waited for just this value.
                shard.unpark();
                continue;
            }
            Step::Wait => {
                // What the keyspace's leaving waited for may have ended by itself.
                shard.settle();
                return Slice::Wait(cursor);
            }
        }
        if hook::of(keyspace).is_full() {
            hook::of(keyspace).send_chunk(id);
            return Slice::Wait(cursor);
        }
        if cursor == WALKED {
            hook::of(keyspace).table_walked(id, table);
            return Slice::Done;
        }
        // Large values of the last bucket are saved before the table counts as walked.
        cursor = hook::save_bucket(keyspace, id, table, cursor).unwrap_or(WALKED);
        let saver = hook::of(keyspace);
        if saver.collected(id) >= CHUNK_BYTES {
            saver.send_chunk(id);
        }
    }
    Slice::More(cursor)
}

/// Behind the last bucket. No bucket begins there: buckets are wider.
const WALKED: Cursor = Cursor(u64::MAX);

/// How a walk shares its thread: at full speed while there is nothing else to do.
struct Pace {
    is_limited: bool,
    began: Instant,
    /// When the last slice ended.
    stopped: Instant,
    /// Of the walk, and of everything else, since the last rest.
    work: Duration,
    others: Duration,
}

impl Pace {
    fn new(is_limited: bool) -> Pace {
        let now = Instant::now();
        Pace {
            is_limited,
            began: now,
            stopped: now,
            work: Duration::ZERO,
            others: Duration::ZERO,
        }
    }

    /// Lets others work, behind a slice that began at `started`.
    async fn rest(&mut self, shard: &RefCell<Shard>, id: SnapshotId, started: Instant) {
        self.others += started.saturating_duration_since(self.stopped);
        self.work += started.elapsed();
        self.stopped = Instant::now();
        let ahead = self.ahead(shard, id);
        if !ahead.is_zero() {
            tokio::time::sleep(ahead.max(REST)).await;
        } else if self.work < WORK {
            return tokio::task::yield_now().await;
        } else if self.others > self.work / 8 {
            tokio::time::sleep(REST).await;
        } else {
            tokio::task::yield_now().await;
        }
        self.stopped = Instant::now();
        self.work = Duration::ZERO;
        self.others = Duration::ZERO;
    }

    /// How long the walk must wait to keep to `snapshot-rate-limit` and `rdb-key-save-delay`.
    fn ahead(&self, shard: &RefCell<Shard>, id: SnapshotId) -> Duration {
        let mut shard = shard.borrow_mut();
        let rate = shard.settings.snapshot_rate / shard.settings.shards as u64;
        let delay_us = shard.settings.save_delay_us;
        if (!self.is_limited || rate == 0) && delay_us == 0 {
            return Duration::ZERO;
        }
        let Some(keyspace) = shard.keyspace.as_mut() else {
            return Duration::ZERO;
        };
        let saver = hook::of(keyspace);
        let mut due = Duration::from_micros(saver.saved_keys(id).saturating_mul(delay_us));
        if self.is_limited && rate > 0 {
            due = due.max(Duration::from_secs_f64(saver.sent(id) as f64 / rate as f64));
        }
        due.saturating_sub(self.began.elapsed())
    }
}
