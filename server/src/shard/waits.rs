//! Who waits for a key of this shard to be of use: blocked clients, in the order in which they came.
//!
//! A commit names the keys it changed ([`WaitTable::mark`]); before it lets go of them, [`serve`] offers each to those who wait
//! for it, first come first served. What a waiter then runs is a unit of its own behind the commit, and may make
//! further keys ready: those are served in the same go.
//!
//! Invariants
//! - A key is offered while the run that changed it still has it: nobody comes in between.
//! - A waiter that stands first and takes its element by a transaction of its own (`Verdict::Underway`) keeps those behind it
//!   waiting; when the transaction is over the key is offered again.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Shard;
use crate::keyspace::DbIndex;
use crate::keyspace::blob::Blob;

/// What kind of value a waiter has use for. A key has one type, so the kinds queue apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitKind {
    /// A list with an element: if one waiter has no use for it, none has.
    List,
    /// A sorted set with a member: likewise.
    SortedSet,
    /// A stream: each waiter looks for entries after an id of its own.
    Stream,
}

const KINDS: [WaitKind; 3] = [WaitKind::List, WaitKind::SortedSet, WaitKind::Stream];

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is of no use to it as it is.
    NotReady,
    /// It took what it wanted, or was told why it cannot.
    Served,
    /// It waits no more.
    Gone,
    /// It is about to take what it wants in a transaction of its own.
    Underway,
}

/// One who waits. Known to all shards of its keys; the first that serves it ends the wait.
pub trait Waiter: Send + Sync {
    /// Takes what it wants of a key that has changed. The run that calls holds the key.
    fn serve(&self, shard: &mut Shard, db: DbIndex, key: &Blob) -> Verdict;
}

/// The name of a queue.
type Place = (DbIndex, Blob, WaitKind);

/// The waiters of one shard.
#[derive(Default)]
pub struct WaitTable {
    queues: HashMap<Place, VecDeque<Arc<dyn Waiter>>>,
    /// Keys to offer, in the order in which they changed.
    ready: VecDeque<(DbIndex, Blob)>,
    is_serving: bool,
}

impl WaitTable {
    /// Whether nobody waits here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Number of keys that somebody waits for.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Puts a waiter at the end of a key's queue. Twice is once.
    pub fn add(&mut self, db: DbIndex, key: &Blob, kind: WaitKind, waiter: Arc<dyn Waiter>) {
        let queue = self.queues.entry((db, key.clone(), kind)).or_default();
        if !queue.iter().any(|other| is_same(other, &waiter)) {
            queue.push_back(waiter);
        }
    }

    /// Undoes [`WaitTable::add`].
    pub fn remove(&mut self, db: DbIndex, key: &Blob, kind: WaitKind, waiter: &Arc<dyn Waiter>) {
        let place = (db, key.clone(), kind);
        if let Some(queue) = self.queues.get_mut(&place) {
            if let Some(at) = queue.iter().position(|other| is_same(other, waiter)) {
                queue.remove(at);
            }
            if queue.is_empty() {
                self.queues.remove(&place);
            }
        }
    }

    /// These keys have changed: [`serve`] offers them to those who wait.
    pub fn mark(&mut self, touched: &[(DbIndex, Blob)]) {
        if self.queues.is_empty() {
            return;
        }
        for (db, key) in touched {
            let is_awaited = KINDS
                .iter()
                .any(|&kind| self.queues.contains_key(&(*db, key.clone(), kind)));
            if is_awaited {
                self.ready.push_back((*db, key.clone()));
            }
        }
    }

    /// Any key may have changed: databases were emptied or changed places.
    pub fn mark_all(&mut self) {
        let keys = self.queues.keys().map(|(db, key, _)| (*db, key.clone()));
        self.ready.extend(keys);
    }

    fn at(&self, place: &Place, index: usize) -> Option<Arc<dyn Waiter>> {
        self.queues.get(place)?.get(index).cloned()
    }
}

fn is_same(a: &Arc<dyn Waiter>, b: &Arc<dyn Waiter>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// Offers the keys that are marked, until none is left.
pub fn serve(shard: &mut Shard) {
    if (shard.keyspace.as_ref()).is_some_and(|keyspace| keyspace.is_closed) {
        // All keys are offered when the load is over.
        shard.waits.ready.clear();
        return;
    }
    if shard.waits.ready.is_empty() || std::mem::replace(&mut shard.waits.is_serving, true) {
        return;
    }
    // What is served is a unit of its own, with a time of its own: a key may have expired during a long run that filled it.
    shard.now_ms = crate::clock::now_ms();
    while let Some((db, key)) = shard.waits.ready.pop_front() {
        for kind in KINDS {
            serve_queue(shard, &(db, key.clone(), kind));
        }
    }
    shard.waits.is_serving = false;
}

fn serve_queue(shard: &mut Shard, place: &Place) {
    let mut index = 0;
    while let Some(waiter) = shard.waits.at(place, index) {
        match waiter.serve(shard, place.0, &place.1) {
            Verdict::Served | Verdict::Gone => {
                shard.waits.remove(place.0, &place.1, place.2, &waiter);
            }
            Verdict::NotReady if place.2 == WaitKind::Stream => index += 1,
            Verdict::NotReady | Verdict::Underway => return,
        }
    }
}
