//! From the queue of what a primary has sent to the shards, in its order.
//!
//! The receiver ([`super::follower`]) fills the queue; a task of the same thread empties it. What is at hand, up to a limit, is a *group*: one
//! transaction over the shards, each of which runs its commands in order. So the shards work side by side, the cost of a
//! transaction is shared by many units, and readers see the primary's states in its order, never half a unit.
//!
//! While one group runs the next has its place on the shards already ([`crate::tx`], in a row), so that no shard waits for this task. A unit
//! that needs several shards at once runs alone, when what came before it has run.
//!
//! Invariants
//! - `applied` is what all shards have applied.
//! - Groups end where units end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::batch::{self, Alone, Batch, warn_of_error};
use crate::clock::now_ms;
use crate::command::block::Block;
use crate::command::exec::Actor;
use crate::tx::{Armed, AskedInRow, ShardJob};
use crate::world::{Control, World};

/// Bytes of the stream that wait for the worker; beyond this the primary waits.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of the stream that are applied as one transaction, if there is more than one batch: bounds how long a reader waits for them.
const GROUP_BYTES_MAX: usize = 128 << 10;

/// What waits in the queue.
enum Arrived {
    Batch(Batch),
    Alone(Alone),
}

/// What has been received, on its way to the shards. Shared by the receiver and the worker.
#[derive(Default)]
pub struct Queue {
    arrived: RefCell<VecDeque<Arrived>>,
    /// Of the stream, in `arrived`.
    bytes: Cell<usize>,
    /// Offset behind the last unit that is applied.
    pub applied: Cell<u64>,
    /// The worker has taken something and not finished it.
    is_working: Cell<bool>,
    /// Somebody waits until all is applied, whoever is paused.
    is_draining: Cell<bool>,
    /// Something came.
    filled: Notify,
    /// Something was applied.
    pub emptied: Notify,
}

impl Queue {
    /// Adds units.
    pub fn push(&self, batch: Batch) {
        self.add(batch.bytes.len(), Arrived::Batch(batch));
    }

    /// Adds a unit that runs alone.
    pub fn push_alone(&self, unit: Alone) {
        self.add(unit.len, Arrived::Alone(unit));
    }

    fn add(&self, bytes: usize, arrived: Arrived) {
        self.bytes.set(self.bytes.get() + bytes);
        self.arrived.borrow_mut().push_back(arrived);
        self.filled.notify_one();
    }

    /// Bytes of the stream that wait.
    pub fn len(&self) -> usize {
        self.bytes.get()
    }

    /// Waits until so many bytes are left; 0: until all is applied.
    pub async fn shrunk_to(&self, bytes: usize) {
        loop {
            let emptied = self.emptied.notified();
            let is_done = self.arrived.borrow().is_empty() && !self.is_working.get();
            if is_done || bytes > 0 && self.bytes.get() <= bytes {
                self.is_draining.set(false);
                return;
            }
            if bytes == 0 && !self.is_draining.replace(true) {
                self.filled.notify_one();
            }
            emptied.await;
        }
    }

    /// The batches at hand, up to the limit; none if a unit that runs alone is next.
    fn take_group(&self) -> Vec<Batch> {
        let mut arrived = self.arrived.borrow_mut();
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(Arrived::Batch(batch)) = arrived.front() {
            bytes += batch.bytes.len();
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            self.bytes.set(self.bytes.get() - batch.bytes.len());
            if let Some(Arrived::Batch(batch)) = arrived.pop_front() {
                group.push(batch);
            }
        }
        self.is_working.set(!group.is_empty());
        group
    }

    fn take_alone(&self) -> Option<Alone> {
        let mut arrived = self.arrived.borrow_mut();
        match arrived.pop_front()? {
            Arrived::Alone(unit) => {
                self.bytes.set(self.bytes.get() - unit.len);
                self.is_working.set(true);
                Some(unit)
            }
            batch => {
                arrived.push_front(batch);
                None
            }
        }
    }
}

/// Applies what is in the queue, as long as the link lasts.
pub struct Worker {
    /// Its thread's way to everything.
    pub control: Rc<Control>,
    /// What to apply.
    pub queue: Rc<Queue>,
    /// Of the link: an earlier one's offset is not shown.
    pub generation: u64,
}

/// A group that has asked for its place.
struct Asked {
    place: AskedInRow,
    jobs: Vec<ShardJob>,
    end: u64,
}

/// A group that runs, or will when its turn comes.
struct Running {
    armed: Armed,
    end: u64,
}

impl Worker {
    /// Applies what is in the queue and what comes.
    pub async fn run(self) {
        loop {
            self.wait_paused().await;
            let filled = self.queue.filled.notified();
            let group = self.queue.take_group();
            if !group.is_empty() {
                self.run_groups(group).await;
            } else if let Some(unit) = self.queue.take_alone() {
                self.run_alone(unit).await;
            } else {
                self.queue.emptied.notify_waiters();
                filled.await;
            }
        }
    }

    /// Applies a group, and those behind it as long as there are any.
    async fn run_groups(&self, first: Vec<Batch>) {
        let coordinator = &self.control.coordinator;
        let end = end_of(&first);
        let mut jobs = batch::jobs(first);
        if jobs.len() <= 1 && self.queue.len() == 0 {
            if let Some(job) = jobs.pop() {
                coordinator.alone_in_row(job).await;
            }
            return self.note_applied(end);
        }
        let mut next = self.ask(jobs, end);
        let mut running: Option<Running> = None;
        loop {
            let placed = coordinator.placed_in_row(next.place).await;
            let following = self.following();
            let armed = coordinator.arm_in_row(placed, next.jobs);
            let behind = Running {
                armed,
                end: next.end,
            };
            if let Some(before) = running.replace(behind) {
                self.end(before).await;
            }
            match following {
                Some(asked) => next = asked,
                None => break,
            }
        }
        if let Some(last) = running {
            self.end(last).await;
        }
    }

    fn ask(&self, jobs: Vec<ShardJob>, end: u64) -> Asked {
        let shards: Vec<usize> = jobs.iter().map(|job| job.shard).collect();
        Asked {
            place: self.control.coordinator.ask_in_row(&shards),
            jobs,
            end,
        }
    }

    /// The group behind the one that has its place, if there is one.
    fn following(&self) -> Option<Asked> {
        if is_paused(&self.control.world, &self.queue).is_some() {
            return None;
        }
        let group = self.queue.take_group();
        // One before it is still at work.
        self.queue.is_working.set(true);
        (!group.is_empty()).then(|| {
            let end = end_of(&group);
            self.ask(batch::jobs(group), end)
        })
    }

    async fn end(&self, running: Running) {
        self.control.coordinator.ended_in_row(running.armed).await;
        self.note_applied(running.end);
    }

    async fn run_alone(&self, unit: Alone) {
        if !unit.calls.is_empty() {
            let commands: Vec<_> = unit.calls.iter().map(|call| call.command.name).collect();
            let block = Block::new(unit.calls, Actor::Link).to_place(unit.end);
            let context = self.control.world.block_context();
            let replies = block.run(&self.control.coordinator, context).await;
            for (command, reply) in commands.into_iter().zip(replies.into_iter().flatten()) {
                warn_of_error(command, &reply);
            }
        }
        self.note_applied(unit.end.offset);
    }

    fn note_applied(&self, offset: u64) {
        self.queue.applied.set(offset);
        self.queue.emptied.notify_waiters();
        let world = &self.control.world;
        world.log.with(|log| log.applied = Some(offset));
        world.link(|link| {
            if link.generation == self.generation && link.state.offset.is_some() {
                link.state.offset = Some(offset);
            }
        });
    }

    /// Waits while clients are paused: then the primary's writes wait as well, unless somebody must have them all.
    async fn wait_paused(&self) {
        let world = &self.control.world;
        loop {
            let changed = world.pause_changed.notified();
            let Some(until_ms) = is_paused(world, &self.queue) else {
                return;
            };
            let left = Duration::from_millis((until_ms - now_ms()).max(1) as u64);
            tokio::select! {
                () = changed => {}
                () = self.queue.filled.notified() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// Until when nothing of the primary is applied, if so.
fn is_paused(world: &World, queue: &Queue) -> Option<i64> {
    let pause = world.client_pause().filter(|_| !queue.is_draining.get());
    pause.map(|pause| pause.until_ms)
}

fn end_of(group: &[Batch]) -> u64 {
    group.last().map_or(0, |batch| batch.end.offset)
}
