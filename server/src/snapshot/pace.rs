//! How fast a walk goes: the traverser asks between its slices.
//!
//! Invariants
//! - While its shard has other work, the walk of a save takes no more than `snapshot-cpu-share` of the shard's time.
//! - While a shard of the server has other work, walks of one save go on no more shards at a time than half of the processors: where
//!   there are more shards, they take turns. The other half is for the shards' own work, the file's threads and the clients.
//! - Other threads that want the processor, clients on the same machine among them, get it after a slice, for as long as the walk
//!   itself has worked.
//! - On a shard that does nothing else, on a machine that does nothing else, it goes at full speed.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// The turns that the walks of one save take.
pub(super) struct Turns {
    free: Arc<Semaphore>,
    /// Walks whose shards have other work.
    busy: AtomicUsize,
}

impl Turns {
    /// As this machine has processors.
    pub(super) fn new() -> Turns {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Turns::of(processors)
    }

    fn of(processors: usize) -> Turns {
        Turns {
            free: Arc::new(Semaphore::new((processors / 2).max(1))),
            busy: AtomicUsize::new(0),
        }
    }
}

/// One walk's part in the turns.
struct Turn {
    turns: Arc<Turns>,
    taken: Option<OwnedSemaphorePermit>,
    is_busy: bool,
}

impl Turn {
    fn of(turns: Arc<Turns>) -> Turn {
        Turn {
            turns,
            taken: None,
            is_busy: false,
        }
    }

    /// Notes whether this walk's shard has other work, and says whether any walk's has.
    fn note(&mut self, is_busy: bool) -> bool {
        if is_busy != self.is_busy {
            self.is_busy = is_busy;
            match is_busy {
                true => self.turns.busy.fetch_add(1, Ordering::Relaxed),
                false => self.turns.busy.fetch_sub(1, Ordering::Relaxed),
            };
        }
        self.turns.busy.load(Ordering::Relaxed) > 0
    }

    /// Passes the turn on, and waits for the next one if the server is busy.
    async fn pass(&mut self) {
        self.taken = None;
        if self.turns.busy.load(Ordering::Relaxed) > 0 {
            self.taken = self.turns.free.clone().acquire_owned().await.ok();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// Of one walk.
pub(super) struct Pace {
    /// Of the walk of a save, which the settings hold back.
    turn: Option<Turn>,
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
    /// Of a save's walk, which takes `turns` with those of other shards, or of one that somebody waits for.
    pub(super) fn new(turns: Option<Arc<Turns>>) -> Pace {
        let now = Instant::now();
        Pace {
            turn: turns.map(Turn::of),
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
        let is_over = self.work >= WORK;
        let owed = if is_over {
            self.owed(shard)
        } else {
            Duration::ZERO
        };
        self.stopped = Instant::now();
        if owed.is_zero() && self.ahead(shard, id).is_zero() {
            tokio::task::yield_now().await;
        } else {
            if !owed.is_zero() {
                tokio::time::sleep(owed.max(REST)).await;
            }
            self.keep_behind(shard, id).await;
            self.rest.paid(self.stopped.elapsed());
            self.stopped = Instant::now();
        }
        if let Some(turn) = self.turn.as_mut().filter(|_| is_over) {
            // The rest was part of the turn: one that came during it would leave none for the processor.
            turn.pass().await;
            self.stopped = Instant::now();
        }
    }

    /// Others may go: the walk has to wait for something else.
    pub(super) fn give_up_turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.taken = None;
        }
    }

    /// Waits while the walk is ahead of what the settings allow. They may change meanwhile, and the snapshot may end.
    pub(super) async fn keep_behind(&mut self, shard: &RefCell<Shard>, id: SnapshotId) {
        loop {
            let ahead = self.ahead(shard, id);
            if ahead.is_zero() {
                return;
            }
            self.give_up_turn();
            tokio::time::sleep(ahead.clamp(REST, MOST_REST)).await;
        }
    }

    /// How long the walk rests for what it has worked since the last look.
    fn owed(&mut self, shard: &RefCell<Shard>) -> Duration {
        let mut is_busy = self.others > self.work / BUSY_PART;
        let mut share = AWAITED_SHARE;
        if let Some(turn) = &mut self.turn {
            is_busy = turn.note(is_busy);
            share = shard.borrow().settings.snapshot_cpu_share;
        }
        let is_owing = is_busy && self.rest.owes(self.work * (100 - share) / share);
        self.work = Duration::ZERO;
        self.others = Duration::ZERO;
        match is_owing {
            true => self.rest.owed,
            false => Duration::ZERO,
        }
    }

    /// How long the walk must wait to keep to `snapshot-rate-limit` and `rdb-key-save-delay`.
    fn ahead(&self, shard: &RefCell<Shard>, id: SnapshotId) -> Duration {
        let mut shard = shard.borrow_mut();
        let rate = shard.settings.snapshot_rate / shard.settings.shards as u64;
        let delay_us = shard.settings.save_delay_us;
        if (self.turn.is_none() || rate == 0) && delay_us == 0 {
            return Duration::ZERO;
        }
        let Some(keyspace) = shard.keyspace.as_mut() else {
            return Duration::ZERO;
        };
        let saver = hook::of(keyspace);
        let mut due = Duration::from_micros(saver.saved_keys(id).saturating_mul(delay_us));
        if self.turn.is_some() && rate > 0 {
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

    fn is_ready(work: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        work.poll(&mut context).is_ready()
    }

    #[test]
    fn walks_take_turns_as_long_as_one_of_them_disturbs_somebody() {
        let turns = Arc::new(Turns::of(3));
        let [mut idle, mut busy] = [(), ()].map(|()| Turn::of(turns.clone()));
        assert!(is_ready(std::pin::pin!(idle.pass())));
        assert!(idle.taken.is_none(), "nobody is disturbed");

        assert!(busy.note(true));
        assert!(is_ready(std::pin::pin!(busy.pass())));
        assert!(idle.note(false), "what one disturbs, all heed");
        {
            let mut next = std::pin::pin!(idle.pass());
            assert!(!is_ready(next.as_mut()), "one processor of three");
            busy.taken = None;
            assert!(is_ready(next));
        }
        assert!(!is_ready(std::pin::pin!(busy.pass())));
        drop(idle);
        assert!(is_ready(std::pin::pin!(busy.pass())));

        drop(busy);
        let mut last = Turn::of(turns);
        assert!(is_ready(std::pin::pin!(last.pass())));
        assert!(last.taken.is_none(), "who is gone disturbs nobody");
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
