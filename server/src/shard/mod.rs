//! One shard: a keyspace, the queue of those who want it, and the thread that owns both.
//!
//! A shard runs hops: plain functions that get the shard, run to completion and never wait. What must wait does so before:
//! in the queue (its keys are taken), or parked (a snapshot has no room for what the write would have to save).
//!
//! Invariants
//! - `keyspace` is `None` only while a transaction on everything has it; then the queue is not empty.
//! - After anything that may have made something runnable, `settle` has run.

pub mod beside;
pub mod link;
pub mod queue;
pub mod waits;

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::journal::{Journal, Records};
use crate::keyspace::blob::Blob;
use crate::keyspace::settings::Settings;
use crate::keyspace::{DbIndex, Key, Keyspace};
use crate::pubsub::tracking::Caller;
use crate::stats::CommandStats;
use beside::Beside;
use link::{Links, Message};
use queue::{Fingerprint, Footprint, Mode, Refused, TxId, TxQueue};
use waits::WaitTable;

/// Of a thread that runs commands and scripts.
pub const STACK_BYTES: usize = 16 << 20;

/// Runs on a shard's thread with the shard, and never waits.
pub type Hop = Box<dyn FnOnce(&mut Shard) -> After + Send>;

/// What becomes of a transaction's place after a hop.
pub enum After {
    /// It is done here.
    Release,
    /// It keeps its intents until told otherwise.
    Hold,
    /// It is done here, and this runs next, outside of the queue.
    ReleaseThen(Message),
}

/// What a hop does to a keyspace, for the question whether it must wait for a snapshot.
pub enum Intent {
    /// It may write these keys.
    Write(SmallVec<[(DbIndex, Blob); 2]>),
    /// It writes many keys, and this says whether none of them must wait.
    WriteMany(Admission),
    /// It takes the whole keyspace away for a while.
    Take,
}

/// Whether writes may begin on a shard, as snapshots are concerned.
pub type Admission = Box<dyn Fn(&Shard) -> bool + Send>;

struct Waiting {
    intent: Intent,
    hop: Hop,
}

/// What a shard's thread owns.
pub struct Shard {
    /// Which one it is, from 0.
    pub index: usize,
    /// The entries; `None` while a transaction on everything has them.
    pub keyspace: Option<Box<Keyspace>>,
    /// A dataset that is loaded beside the one that is served, until it takes its place.
    pub successor: Option<Box<Keyspace>>,
    /// Settings, replaced as a whole.
    pub settings: Arc<Settings>,
    /// The clock, Unix milliseconds. It moves between turns only.
    pub now_ms: i64,
    /// Random numbers.
    pub random: fastrand::Rng,
    /// Whether the shard removes expired entries by itself (DEBUG SET-ACTIVE-EXPIRE).
    pub is_expiring: bool,
    /// The way to all shards.
    pub links: Arc<Links>,
    /// The thread for what would hold up this one.
    pub beside: Beside,
    /// Where commits are recorded.
    pub journal: Arc<Journal>,
    /// On whose behalf the next run is; it takes it.
    pub caller: Caller,
    /// When the last command ended, or this turn began.
    pub mark: Instant,
    /// What is measured of commands that this thread ran.
    pub stats: CommandStats,
    /// Who waits for keys of this shard.
    pub waits: WaitTable,
    queue: TxQueue<Waiting>,
    parked: VecDeque<Message>,
    records: Records,
    /// `settle` is at work further up the stack.
    is_settling: bool,
    /// Woken when the keyspace comes back or a sink has room: traversers wait for it.
    pub wake: std::rc::Rc<tokio::sync::Notify>,
}

impl Shard {
    /// A shard over `keyspace`.
    pub fn new(
        index: usize,
        beside: Beside,
        keyspace: Box<Keyspace>,
        settings: Arc<Settings>,
        links: Arc<Links>,
        journal: Arc<Journal>,
    ) -> Shard {
        Shard {
            index,
            keyspace: Some(keyspace),
            successor: None,
            settings,
            now_ms: 0,
            random: fastrand::Rng::new(),
            is_expiring: true,
            links,
            beside,
            journal,
            caller: Caller::default(),
            mark: Instant::now(),
            stats: CommandStats::default(),
            waits: WaitTable::default(),
            queue: TxQueue::default(),
            parked: VecDeque::new(),
            records: Records::default(),
            is_settling: false,
            wake: std::rc::Rc::default(),
        }
    }

    /// Whether nobody is scheduled here.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Number of transactions that have a place here.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a run on these keys needs no queue.
    pub fn is_free(&self, footprint: &Footprint) -> bool {
        self.queue.is_empty() || self.queue.is_free(footprint)
    }

    /// Whether a run on one key needs no queue.
    #[inline]
    pub fn is_key_free(&self, db: DbIndex, key: Key<'_>, mode: Mode) -> bool {
        self.queue.is_key_free(fingerprint(db, key.hash), mode)
    }

    /// Whether a write to this key need not wait for a snapshot.
    #[inline]
    pub fn admits_write(&self, db: DbIndex, key: Key<'_>) -> bool {
        self.keyspace
            .as_ref()
            .is_some_and(|keyspace| keyspace.admits_write(db, key))
    }

    /// Gives a transaction its place, and says whether nobody here is in its way.
    pub fn schedule(&mut self, id: TxId, footprint: Footprint) -> Result<bool, Refused> {
        self.queue.schedule(id, footprint)
    }

    /// Takes back a place where nothing ran.
    pub fn withdraw(&mut self, id: TxId) {
        self.queue.withdraw(id);
        self.settle();
    }

    /// Says what to run for a scheduled transaction, and what that does to the keyspace.
    pub fn arm(&mut self, id: TxId, intent: Intent, hop: Hop) {
        self.queue.arm(id, Waiting { intent, hop });
        self.settle();
    }

    /// Ends a transaction that held its place.
    pub fn release(&mut self, id: TxId) {
        self.queue.release(id);
        self.settle();
    }

    /// Queues something for one shard only: it runs once, when its keys are free.
    pub fn enqueue(
        &mut self,
        footprint: Footprint,
        writes: SmallVec<[(DbIndex, Blob); 2]>,
        hop: Hop,
    ) {
        self.enqueue_with(footprint, Intent::Write(writes), hop);
    }

    /// [`Shard::enqueue`] with any intent.
    pub fn enqueue_with(&mut self, footprint: Footprint, intent: Intent, hop: Hop) {
        let id = self.links.next_tx_id();
        assert!(
            self.schedule(id, footprint).is_ok(),
            "an id taken here and now is not late"
        );
        self.arm(id, intent, hop);
    }

    /// Runs something at once, or when the keyspace is back.
    pub fn when_here(&mut self, run: Message) {
        if self.keyspace.is_some() {
            return run(self);
        }
        let hop = move |shard: &mut Shard| {
            run(shard);
            After::Release
        };
        self.enqueue(Footprint::All, SmallVec::new(), Box::new(hop));
    }

    /// Keeps something for later: it is tried again whenever a snapshot has made room.
    pub fn park(&mut self, retry: Message) {
        self.parked.push_back(retry);
    }

    /// Number of parked pieces of work.
    pub fn parked_len(&self) -> usize {
        self.parked.len()
    }

    /// Tries again what is parked: a snapshot has made room, or ended.
    pub fn unpark(&mut self) {
        for retry in std::mem::take(&mut self.parked) {
            retry(self);
        }
        self.settle();
    }

    /// Whether a run here should note which keys it changes.
    pub fn is_watched(&self) -> bool {
        !self.waits.is_empty()
            || self.settings.hub.wants_touched()
            || self
                .keyspace
                .as_ref()
                .is_some_and(|keyspace| !keyspace.watches.is_empty())
    }

    /// Those who watch these keys hear that they have changed, and those who wait for them are served. The caller has
    /// recorded what it did and still holds the keys.
    pub fn announce(&mut self, touched: &[(DbIndex, Blob)]) {
        let Some(keyspace) = &mut self.keyspace else {
            return;
        };
        keyspace.mark_touched(touched);
        let has_moved = keyspace.take_moved();
        self.waits.mark(touched);
        if has_moved {
            self.waits.mark_all();
        }
        waits::serve(self);
    }

    /// A snapshot's sink has room again.
    pub fn room_made(&mut self) {
        self.wake.notify_waiters();
        self.unpark();
    }

    /// Gives the keyspace back after a transaction on everything, which changed these keys.
    pub fn return_keyspace(
        &mut self,
        id: TxId,
        keyspace: Box<Keyspace>,
        touched: &[(DbIndex, Blob)],
    ) {
        assert!(
            self.keyspace.is_none(),
            "shard {} has two keyspaces",
            self.index
        );
        self.keyspace = Some(keyspace);
        self.announce(touched);
        self.queue.release(id);
        self.wake.notify_waiters();
        self.unpark();
    }

    /// Runs whatever may run, until nothing is left to run.
    pub fn settle(&mut self) {
        if self.is_settling {
            return;
        }
        self.is_settling = true;
        let mut deferred: SmallVec<[_; 2]> = SmallVec::new();
        while let Some((id, waiting)) = self.queue.next() {
            if !self.admits(&waiting.intent) {
                // Those behind it that need none of its keys go on.
                deferred.push((id, waiting));
                continue;
            }
            match (waiting.hop)(self) {
                After::Release => self.queue.release(id),
                After::Hold => {}
                After::ReleaseThen(next) => {
                    self.queue.release(id);
                    next(self);
                }
            }
        }
        for (id, waiting) in deferred.into_iter().rev() {
            self.queue.defer(id, waiting);
        }
        self.is_settling = false;
    }

    /// Whether no snapshot stands against it.
    fn admits(&self, intent: &Intent) -> bool {
        match (intent, &self.keyspace) {
            (Intent::Write(keys), _) => keys
                .iter()
                .all(|(db, key)| self.admits_write(*db, Key::new(key))),
            (Intent::WriteMany(is_admitted), _) => is_admitted(self),
            (Intent::Take, Some(keyspace)) => keyspace.observer().may_leave(),
            (Intent::Take, None) => false,
        }
    }

    /// Records effects that have just been committed here. The caller still holds their keys.
    pub fn record(&mut self, effects: &[(DbIndex, Vec<u8>)]) {
        if !effects.is_empty() {
            self.records.push_effects(self.journal.next(), effects);
        }
    }

    /// Sends what was recorded in this turn.
    #[inline]
    pub fn post_records(&mut self) {
        if !self.records.is_empty() {
            self.journal.post(self.records.take());
        }
    }
}

thread_local! {
    static CURRENT: OnceCell<Rc<RefCell<Shard>>> = const { OnceCell::new() };
}

/// Makes a shard this thread's own.
pub fn install(shard: Rc<RefCell<Shard>>) {
    CURRENT.with(|slot| slot.set(shard).ok().expect("one shard for a thread"));
}

/// This thread's shard. Panics on a thread without one.
pub fn current() -> Rc<RefCell<Shard>> {
    CURRENT.with(|shard| shard.get().expect("a shard's thread").clone())
}

/// The intent's name of a key of a database.
#[inline]
pub fn fingerprint(db: DbIndex, hash: u64) -> Fingerprint {
    Fingerprint(hash ^ u64::from(db.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
