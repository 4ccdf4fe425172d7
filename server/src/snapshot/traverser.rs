//! The traverser: walks a shard's tables for one snapshot, in slices, between the commands.
//!
//! Invariants
//! - A slice holds up its shard for about `SLICE`, whatever it meets.
//! - While the shard has other work, the walk takes no more than a third of its time.
//! - Other threads that want the processor, clients on the same machine among them, get it after a slice, for as long as the walk
//!   itself has worked.

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
const WORK: Duration = Duration::from_millis(1);
/// How long it rests: what the timer can do.
const REST: Duration = Duration::from_millis(1);

/// How much of the processor a walk that nobody disturbed may owe to other threads.
const MOST_OWED: Duration = Duration::from_millis(1);

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
    courtesy: Courtesy,
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
            courtesy: Courtesy::default(),
        }
    }

    /// Lets others work, behind a slice that began at `started`.
    async fn rest(&mut self, shard: &RefCell<Shard>, id: SnapshotId, started: Instant) {
        self.others += started.saturating_duration_since(self.stopped);
        let worked = started.elapsed();
        self.work += worked;
        self.courtesy.give_way(worked);
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

/// Gives the processor to other threads between slices. A thread that walks all the time would otherwise keep it for as long as the
/// system lets it, which is milliseconds; one that gave way after every slice would hardly walk beside a thread that never sleeps.
#[derive(Default)]
struct Courtesy {
    /// What the walk has worked more than it has given.
    owed: Duration,
    /// What it has given more than it has worked.
    given: Duration,
}

impl Courtesy {
    fn give_way(&mut self, worked: Duration) {
        if self.has_worked(worked) {
            let started = Instant::now();
            std::thread::yield_now();
            self.has_given(started.elapsed());
        }
    }

    /// Counts a slice, and says whether it is time to give way.
    fn has_worked(&mut self, worked: Duration) -> bool {
        let more = worked.saturating_sub(self.given);
        self.given = self.given.saturating_sub(worked);
        self.owed = (self.owed + more).min(MOST_OWED);
        !self.owed.is_zero()
    }

    fn has_given(&mut self, given: Duration) {
        self.given += given.saturating_sub(self.owed);
        self.owed = self.owed.saturating_sub(given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of the time that a walk in slices gets beside a thread that takes `turn` whenever it can.
    fn share_of_the_walk(turn: Duration) -> f64 {
        let mut courtesy = Courtesy::default();
        let (mut worked, mut given) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..10_000 {
            worked += SLICE;
            if courtesy.has_worked(SLICE) {
                given += turn;
                courtesy.has_given(turn);
            }
        }
        worked.as_secs_f64() / (worked + given).as_secs_f64()
    }

    #[test]
    fn a_walk_beside_a_thread_that_never_sleeps_gets_half_of_the_time() {
        let share = share_of_the_walk(Duration::from_millis(4));
        assert!((0.49..0.52).contains(&share), "{share}");
    }

    #[test]
    fn short_turns_come_after_every_slice() {
        let share = share_of_the_walk(Duration::from_micros(20));
        assert!((0.82..0.84).contains(&share), "{share}");
    }
}
