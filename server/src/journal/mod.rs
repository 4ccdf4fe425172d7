//! The journal: what committed, in one dense order.
//!
//! While anything listens, who commits takes the next number while it still holds its keys, and posts exactly one record
//! with it. Records reach the listener from several threads, a little out of order; since the numbers are dense, it emits the
//! next one as soon as it is there.
//!
//! Invariants
//! - Every number taken is posted once.
//! - Two records that touch the same key have their numbers in the order in which the key changed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::keyspace::DbIndex;

/// Place of a record in the order of commits. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// One committed unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// What it is.
    pub unit: Unit,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Effects in the form of the wire, one encoded command each. Two or more belong together.
    Effects(Vec<(DbIndex, Vec<u8>)>),
    /// A place in the order that somebody wants to find again: the cut of a snapshot.
    Mark(u64),
}

/// Numbers records and carries them to the one listener. Shared by all threads.
pub struct Journal {
    /// Changed only while all shards stand still, so that all of them see it at the same place of the order.
    is_active: AtomicBool,
    next: AtomicU64,
    sender: UnboundedSender<Vec<Record>>,
}

impl Journal {
    /// A journal that nobody listens to yet, and the end where its records arrive.
    pub fn new() -> (Journal, UnboundedReceiver<Vec<Record>>) {
        let (sender, receiver) = unbounded_channel();
        (
            Journal {
                is_active: AtomicBool::new(false),
                next: AtomicU64::new(1),
                sender,
            },
            receiver,
        )
    }

    /// Whether commits must be recorded.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    /// Starts or stops recording. Only in a run that holds all shards.
    pub fn set_active(&self, is_active: bool) {
        self.is_active.store(is_active, Ordering::Relaxed);
    }

    /// Takes the next number. The caller holds the keys of what it records.
    pub fn next(&self) -> Seq {
        Seq(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The number that will be taken next.
    pub fn peek(&self) -> Seq {
        Seq(self.next.load(Ordering::Relaxed))
    }

    /// Sends records on their way.
    pub fn post(&self, records: Vec<Record>) {
        if !records.is_empty() {
            // The listener ends with the process; then nobody needs the records.
            let _ = self.sender.send(records);
        }
    }
}
