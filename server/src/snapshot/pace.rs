//! How fast a walk goes: the traverser asks between its slices.
//!
//! Invariants
//! - While its shard has other work, the walk of a save takes no more than `snapshot-cpu-share` of the shard's time.
//! - Other threads that want the processor, clients on the same machine among them, get it after a slice, for as long as the walk
//!   itself has worked.
//! - On a shard that does nothing else, on a machine that does nothing else, it goes at full speed.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::SnapshotId;
use super::hook;
use crate::shard::Shard;

/// Work after which a walk looks whether its shard is busy.
const WORK: Duration = Duration::from_millis(1);
/// The shortest rest: what the timer can do.
const REST: Duration = Duration::from_millis(1);
/// A shard is busy when its other work takes a part of this size of the walk's time.
const BUSY_PART: u32 = 32;
/// How much of the processor a walk that nobody disturbed may owe to other threads.
const MOST_COURTESY: Duration = Duration::from_millis(1);
/// The longest rest: of a share of 1 percent.
const MOST_REST: Duration = Duration::from_millis(100);
/// What counts at most of what was paid too much.
const MOST_AHEAD: Duration = Duration::from_millis(100);
/// Of a busy shard's time, in percent, for a walk that somebody waits for: a replica that has nothing yet, a client that asked.
const AWAITED_SHARE: u32 = 80;

/// Of one walk.
pub(super) struct Pace {
    /// The walk of a save, which the settings hold back.
    is_limited: bool,
    began: Instant,
    /// When the last slice ended.
    stopped: Instant,
    /// Of the walk, and of everything else on the shard, since the last look.
    work: Duration,
    others: Duration,
    /// Towards the shard's other work.
    rest: Ledger,
    /// Towards other threads. A thread that walks all the time would keep the processor for as long as the system lets it, which is
    /// milliseconds; one that gave way after every slice would hardly walk beside a thread that never sleeps.
    courtesy: Ledger,
}

impl Pace {
    pub(super) fn new(is_limited: bool) -> Pace {
        let now = Instant::now();
        Pace {
            is_limited,
            began: now,
            stopped: now,
            work: Duration::ZERO,
            others: Duration::ZERO,
            rest: Ledger::new(MOST_REST),
            courtesy: Ledger::new(MOST_COURTESY),
        }
    }

    /// Lets others work, behind a slice that began at `started`.
    pub(super) async fn rest(&mut self, shard: &RefCell<Shard>, id: SnapshotId, started: Instant) {
        self.others += started.saturating_duration_since(self.stopped);
        let worked = started.elapsed();
        self.work += worked;
        if self.courtesy.owes(worked) {
            let started = Instant::now();
            std::thread::yield_now();
            self.courtesy.paid(started.elapsed());
        }
        self.stopped = Instant::now();
        let due = self.due(shard, id);
        if due.is_zero() {
            tokio::task::yield_now().await;
        } else {
            let started = Instant::now();
            tokio::time::sleep(due.clamp(REST, MOST_REST)).await;
            self.keep_behind(shard, id).await;
            self.rest.paid(started.elapsed());
            self.stopped = Instant::now();
        }
    }

    /// Waits while the walk is ahead of what the settings allow. They may change meanwhile, and the snapshot may end.
    pub(super) async fn keep_behind(&self, shard: &RefCell<Shard>, id: SnapshotId) {
        loop {
            let ahead = self.ahead(shard, id);
            if ahead.is_zero() {
                return;
            }
            tokio::time::sleep(ahead.clamp(REST, MOST_REST)).await;
        }
    }

    /// How long the walk rests now.
    fn due(&mut self, shard: &RefCell<Shard>, id: SnapshotId) -> Duration {
        let ahead = self.ahead(shard, id);
        if self.work < WORK {
            return ahead;
        }
        let share = match self.is_limited {
            true => shard.borrow().settings.snapshot_cpu_share,
            false => AWAITED_SHARE,
        };
        let is_owing = self.others > self.work / BUSY_PART
            && self.rest.owes(self.work * (100 - share) / share);
        self.work = Duration::ZERO;
        self.others = Duration::ZERO;
        match is_owing {
            true => ahead.max(self.rest.owed),
            false => ahead,
        }
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

/// What a walk owes to others, and what it has paid too much: who waits on a timer or for the system gets more than was asked for.
struct Ledger {
    owed: Duration,
    ahead: Duration,
    /// What nobody took is forgotten beyond this.
    most_owed: Duration,
}

impl Ledger {
    fn new(most_owed: Duration) -> Ledger {
        Ledger {
            owed: Duration::ZERO,
            ahead: Duration::ZERO,
            most_owed,
        }
    }

    /// Adds to what is owed, and says whether something is.
    fn owes(&mut self, more: Duration) -> bool {
        let rest = more.saturating_sub(self.ahead);
        self.ahead = self.ahead.saturating_sub(more);
        self.owed = (self.owed + rest).min(self.most_owed);
        !self.owed.is_zero()
    }

    fn paid(&mut self, time: Duration) {
        self.ahead = (self.ahead + time.saturating_sub(self.owed)).min(MOST_AHEAD);
        self.owed = self.owed.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::super::traverser::SLICE;
    use super::*;

    /// The share of the time that a walk in slices gets beside a thread that takes `turn` whenever it can.
    fn share_beside(turn: Duration) -> f64 {
        let mut courtesy = Ledger::new(MOST_COURTESY);
        let (mut worked, mut given) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..10_000 {
            worked += SLICE;
            if courtesy.owes(SLICE) {
                given += turn;
                courtesy.paid(turn);
            }
        }
        worked.as_secs_f64() / (worked + given).as_secs_f64()
    }

    #[test]
    fn a_walk_beside_a_thread_that_never_sleeps_gets_half_of_the_time() {
        let share = share_beside(Duration::from_millis(4));
        assert!((0.49..0.52).contains(&share), "{share}");
    }

    #[test]
    fn short_turns_come_after_every_slice() {
        let share = share_beside(Duration::from_micros(20));
        assert!((0.82..0.84).contains(&share), "{share}");
    }

    /// The share that a walk gets of a busy shard, under a timer that rounds up and is late.
    fn share_of_a_busy_shard(asked: u32) -> f64 {
        let mut rest = Ledger::new(MOST_REST);
        let (mut worked, mut rested) = (Duration::ZERO, Duration::ZERO);
        for round in 0..10_000 {
            worked += WORK;
            if rest.owes(WORK * (100 - asked) / asked) {
                let late = Duration::from_micros(200 + round % 7 * 300);
                let time = rest.owed.max(REST) + late;
                rested += time;
                rest.paid(time);
            }
        }
        worked.as_secs_f64() / (worked + rested).as_secs_f64()
    }

    #[test]
    fn a_late_timer_is_made_up_for() {
        for asked in [10, 33, 50, 80, 99] {
            let share = share_of_a_busy_shard(asked) * 100.0;
            assert!((share - f64::from(asked)).abs() < 2.0, "{share} of {asked}");
        }
        assert_eq!(share_of_a_busy_shard(100), 1.0);
    }
}
