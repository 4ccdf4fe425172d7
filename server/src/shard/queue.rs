//! The transaction queue of one shard: intents on keys, and an order by id (VLL: very lightweight locking).
//!
//! A command whose keys are free just runs and never comes here. A transaction over several shards first takes
//! intents and a place in the queue of each of them (`schedule`); only when all have accepted does its coordinator send something to
//! run (`arm`). A shard runs what is armed when it stands at the head, or at once if nothing conflicted with it when it was
//! scheduled (it is *granted*). The last hop releases.
//!
//! Invariants
//! - Two conflicting transactions run in the order of their ids on every shard where they meet.
//! - A place in the queue implies the intents, and the other way round: an empty queue means that every key is free.
//! - Who is accepted always finishes: nothing waits for a higher id.
//!
//! Why a late id must be refused, in three steps:
//! 1. T1 is scheduled on shard A, T2 behind it; on shard B T2 is alone, runs, and is released.
//! 2. T1, with the lower id, reaches B. B can no longer run it before T2.
//! 3. So B refuses every id below the highest that it has released, and every id that conflicts with somebody and
//!    is not the highest so far. The coordinator withdraws and tries again with a new id.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use smallvec::SmallVec;

/// The order of transactions: taken from one counter for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub u64);

/// What a transaction wants of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To read it: shared with other readers.
    Shared,
    /// To change it, or to take it away for a while.
    Exclusive,
}

/// Stands for a key of a database. Two keys may share one: then they conflict needlessly, nothing worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// What a transaction touches on one shard.
#[derive(Clone, Debug)]
pub enum Footprint {
    /// These keys. A key may stand in it more than once.
    Keys(SmallVec<[(Fingerprint, Mode); 2]>),
    /// Everything.
    All,
}

/// The id came too late for this shard; see the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

#[derive(Clone, Copy, Debug, Default)]
struct Intents {
    shared: u32,
    exclusive: u32,
}

struct Place<H> {
    footprint: Footprint,
    granted: bool,
    armed: Option<H>,
}

/// The queue; `H` is what a shard runs for a transaction.
pub struct TxQueue<H> {
    queue: BTreeMap<TxId, Place<H>>,
    intents: HashMap<Fingerprint, Intents>,
    /// How many places are `Footprint::All`.
    global: u32,
    /// Granted and armed, in the order of arming.
    ready: VecDeque<TxId>,
    highest_scheduled: TxId,
    highest_released: TxId,
}

impl<H> Default for TxQueue<H> {
    fn default() -> Self {
        TxQueue {
            queue: BTreeMap::new(),
            intents: HashMap::new(),
            global: 0,
            ready: VecDeque::new(),
            highest_scheduled: TxId(0),
            highest_released: TxId(0),
        }
    }
}

impl<H> TxQueue<H> {
    /// Whether nobody is scheduled here: then every key is free.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Number of transactions that have a place.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a command on this one key may run at once.
    #[inline]
    pub fn is_key_free(&self, key: Fingerprint, mode: Mode) -> bool {
        self.queue.is_empty() || (self.global == 0 && !self.conflicts(key, mode))
    }

    /// Whether nothing scheduled conflicts with this footprint.
    pub fn is_free(&self, footprint: &Footprint) -> bool {
        match footprint {
            Footprint::All => self.queue.is_empty(),
            Footprint::Keys(keys) => {
                self.global == 0 && !keys.iter().any(|&(key, mode)| self.conflicts(key, mode))
            }
        }
    }

    fn conflicts(&self, key: Fingerprint, mode: Mode) -> bool {
        self.intents
            .get(&key)
            .is_some_and(|held| held.exclusive > 0 || (mode == Mode::Exclusive && held.shared > 0))
    }

    /// Gives the transaction its intents and its place. Says whether it is granted: nobody here is in its way.
    pub fn schedule(&mut self, id: TxId, footprint: Footprint) -> Result<bool, Refused> {
        let granted = self.is_free(&footprint);
        if id < self.highest_scheduled && (!granted || id < self.highest_released) {
            return Err(Refused);
        }
        self.highest_scheduled = self.highest_scheduled.max(id);
        self.count(&footprint, true);
        let old = self.queue.insert(
            id,
            Place {
                footprint,
                granted,
                armed: None,
            },
        );
        assert!(old.is_none(), "{id:?} scheduled twice");
        Ok(granted)
    }

    fn count(&mut self, footprint: &Footprint, is_taking: bool) {
        let step = |count: &mut u32| *count = if is_taking { *count + 1 } else { *count - 1 };
        match footprint {
            Footprint::All => step(&mut self.global),
            Footprint::Keys(keys) => {
                for &(key, mode) in keys {
                    let held = self.intents.entry(key).or_default();
                    match mode {
                        Mode::Shared => step(&mut held.shared),
                        Mode::Exclusive => step(&mut held.exclusive),
                    }
                    if held.shared == 0 && held.exclusive == 0 {
                        self.intents.remove(&key);
                    }
                }
            }
        }
    }

    /// Says what to run for a scheduled transaction. It comes out of [`TxQueue::next`] when its time has come.
    pub fn arm(&mut self, id: TxId, hop: H) {
        let place = self
            .queue
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{id:?} armed without a place"));
        assert!(place.armed.is_none(), "{id:?} armed twice");
        place.armed = Some(hop);
        if place.granted {
            self.ready.push_back(id);
        }
    }

    /// What may run now. After it has run, the transaction is armed again or released.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: what comes next depends on what was done meanwhile"
    )]
    pub fn next(&mut self) -> Option<(TxId, H)> {
        if let Some(id) = self.ready.pop_front() {
            let place = self.queue.get_mut(&id).expect("who is ready has a place");
            return Some((id, place.armed.take().expect("who is ready is armed")));
        }
        let (&id, head) = self.queue.iter_mut().next()?;
        let hop = head.armed.take()?;
        head.granted = true;
        Some((id, hop))
    }

    /// Puts back what [`TxQueue::next`] gave, to be given again first: it must wait for something else.
    pub fn defer(&mut self, id: TxId, hop: H) {
        let place = self.queue.get_mut(&id).expect("it has just been here");
        place.armed = Some(hop);
        place.granted = true;
        self.ready.push_front(id);
    }

    /// Takes the transaction's intents and place away: it is done, or its coordinator withdraws it.
    pub fn release(&mut self, id: TxId) {
        let place = self
            .queue
            .remove(&id)
            .unwrap_or_else(|| panic!("{id:?} released without a place"));
        self.count(&place.footprint, false);
        self.highest_released = self.highest_released.max(id);
    }

    /// Takes a transaction away that ran nowhere: another shard refused it.
    pub fn withdraw(&mut self, id: TxId) {
        let place = self
            .queue
            .remove(&id)
            .unwrap_or_else(|| panic!("{id:?} withdrawn without a place"));
        assert!(place.armed.is_none(), "{id:?} withdrawn after it was armed");
        self.count(&place.footprint, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn write(key: u64) -> Footprint {
        Footprint::Keys(smallvec![(Fingerprint(key), Mode::Exclusive)])
    }

    fn read(key: u64) -> Footprint {
        Footprint::Keys(smallvec![(Fingerprint(key), Mode::Shared)])
    }

    #[test]
    fn conflicting_run_in_order_of_ids_and_others_pass() {
        let mut queue = TxQueue::default();
        queue.schedule(TxId(1), write(7)).unwrap();
        queue.schedule(TxId(2), write(7)).unwrap();
        queue.schedule(TxId(3), write(8)).unwrap();
        queue.arm(TxId(2), "two");
        assert_eq!(queue.next(), None, "two waits for one");
        queue.arm(TxId(3), "three");
        assert_eq!(
            queue.next(),
            Some((TxId(3), "three")),
            "three has nobody to wait for"
        );
        queue.release(TxId(3));
        queue.arm(TxId(1), "one");
        assert_eq!(queue.next(), Some((TxId(1), "one")));
        assert_eq!(queue.next(), None, "one is not released");
        queue.release(TxId(1));
        assert_eq!(queue.next(), Some((TxId(2), "two")));
        queue.release(TxId(2));
        assert!(queue.is_empty() && queue.intents.is_empty());
    }

    #[test]
    fn readers_share_and_late_ids_are_refused() {
        let mut queue = TxQueue::<()>::default();
        queue.schedule(TxId(5), read(1)).unwrap();
        assert_eq!(
            queue.schedule(TxId(3), read(1)),
            Ok(true),
            "readers do not conflict"
        );
        assert_eq!(
            queue.schedule(TxId(4), write(1)),
            Err(Refused),
            "late and in conflict"
        );
        assert_eq!(queue.schedule(TxId(6), write(1)), Ok(false), "not late");
        queue.withdraw(TxId(6));
        queue.release(TxId(5));
        assert_eq!(
            queue.schedule(TxId(4), write(9)),
            Err(Refused),
            "5 is released"
        );
        assert!(!queue.is_key_free(Fingerprint(1), Mode::Exclusive));
        assert!(queue.is_key_free(Fingerprint(1), Mode::Shared));
    }

    #[test]
    fn everything_conflicts_with_all() {
        let mut queue = TxQueue::<()>::default();
        queue.schedule(TxId(1), Footprint::All).unwrap();
        assert!(!queue.is_key_free(Fingerprint(1), Mode::Shared));
        queue.schedule(TxId(2), read(1)).unwrap();
        queue.arm(TxId(2), ());
        assert_eq!(queue.next(), None);
        queue.release(TxId(1));
        assert_eq!(queue.next(), Some((TxId(2), ())));
    }
}
