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
use crate::memory::{self, NotCounted};

/// Place of a record in the order of commits. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// What a turn is expected to commit at most.
const ENTRIES_EXPECTED_MAX: usize = 1024;
const BYTES_EXPECTED_MAX: usize = 128 << 10;

/// Records on their way, in the order of their numbers: what one thread has committed in a turn. Their effects stand one behind the other
/// in one buffer, so that a record costs no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// A mark, or one effect. Effects of one record stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    seq: Seq,
    /// Where its bytes end; they begin where those of the entry before end.
    end: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Effect(DbIndex),
    Mark(u64),
    Place(u64),
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'r> {
    /// Two or more effects belong together.
    Effects(Effects<'r>),
    /// A place in the order that somebody wants to find again, where a stream begins: the cut of a snapshot for replicas.
    Mark(u64),
    /// A place that somebody only wants to know: the cut of a save.
    Place(u64),
}

/// Effects of one record: commands in the form of the wire, each with its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effects<'r> {
    entries: &'r [Entry],
    bytes: &'r [u8],
    start: usize,
}

impl Records {
    /// One record of effects, which must be some.
    pub fn of_effects(seq: Seq, effects: &[(DbIndex, Vec<u8>)]) -> Records {
        let mut records = Records::default();
        records.push_effects(seq, effects);
        records
    }

    /// One record of a mark.
    pub fn of_mark(seq: Seq, mark: u64) -> Records {
        Records::of(seq, What::Mark(mark))
    }

    /// One record of a place.
    pub fn of_place(seq: Seq, mark: u64) -> Records {
        Records::of(seq, What::Place(mark))
    }

    fn of(seq: Seq, what: What) -> Records {
        Records {
            entries: vec![Entry { seq, end: 0, what }],
            bytes: Vec::new(),
        }
    }

    /// All of them; what is left has room for as many, within reason: one turn is like the turn before.
    pub fn take(&mut self) -> Records {
        let next = Records {
            entries: Vec::with_capacity(self.entries.len().min(ENTRIES_EXPECTED_MAX)),
            bytes: Vec::with_capacity(self.bytes.len().min(BYTES_EXPECTED_MAX)),
        };
        std::mem::replace(self, next)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that they take.
    fn allocated(&self) -> u64 {
        let entries = self.entries.capacity() * size_of::<Entry>();
        (memory::size_class(entries) + memory::size_class(self.bytes.capacity())) as u64
    }

    /// Adds a record, whose number is above those that are in.
    pub fn push_effects(&mut self, seq: Seq, effects: &[(DbIndex, Vec<u8>)]) {
        for (db, effect) in effects {
            self.bytes.extend_from_slice(effect);
            self.entries.push(Entry {
                seq,
                end: self.bytes.len(),
                what: What::Effect(*db),
            });
        }
    }

    /// The number of the record that begins at an entry; `None` behind the last.
    pub fn seq_at(&self, at: usize) -> Option<Seq> {
        self.entries.get(at).map(|entry| entry.seq)
    }

    /// The record that begins at an entry, and the entry behind it.
    pub fn unit_at(&self, at: usize) -> (Unit<'_>, usize) {
        let first = self.entries[at];
        match first.what {
            What::Mark(mark) => return (Unit::Mark(mark), at + 1),
            What::Place(mark) => return (Unit::Place(mark), at + 1),
            What::Effect(_) => {}
        }
        let rest = &self.entries[at + 1..];
        let more = rest.iter().take_while(|entry| entry.seq == first.seq);
        let end = at + 1 + more.count();
        let effects = Effects {
            entries: &self.entries[at..end],
            bytes: &self.bytes,
            start: at
                .checked_sub(1)
                .map_or(0, |before| self.entries[before].end),
        };
        (Unit::Effects(effects), end)
    }
}

impl<'r> Effects<'r> {
    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each, with its database.
    pub fn iter(&self) -> impl Iterator<Item = (DbIndex, &'r [u8])> {
        let (bytes, mut start) = (self.bytes, self.start);
        self.entries.iter().filter_map(move |entry| {
            let effect = &bytes[start..entry.end];
            start = entry.end;
            match entry.what {
                What::Effect(db) => Some((db, effect)),
                What::Mark(_) | What::Place(_) => None,
            }
        })
    }
}

/// Numbers records and carries them to the one listener. Shared by all threads.
pub struct Journal {
    /// Changed only while all shards stand still, so that all of them see it at the same place of the order.
    is_active: AtomicBool,
    next: AtomicU64,
    sender: UnboundedSender<Posted>,
}

/// Records on the way to the listener. Their memory does not count against `maxmemory`: keys must not go because the listener lags.
pub struct Posted {
    /// They.
    pub records: Records,
    _not_counted: NotCounted,
}

impl Journal {
    /// A journal that nobody listens to yet, and the end where its records arrive.
    pub fn new() -> (Journal, UnboundedReceiver<Posted>) {
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
    pub fn post(&self, records: Records) {
        if !records.is_empty() {
            let mut not_counted = NotCounted::default();
            not_counted.set(records.allocated());
            // The listener ends with the process; then nobody needs the records.
            let _ = self.sender.send(Posted {
                records,
                _not_counted: not_counted,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let effect = |db, text: &str| (DbIndex(db), text.as_bytes().to_vec());
        let mut records = Records::of_mark(Seq(3), 7);
        records.push_effects(Seq(4), &[effect(0, "a"), effect(2, "bc")]);
        records.push_effects(Seq(9), &[effect(1, "def")]);
        let (mut at, mut seen) = (0, Vec::new());
        while let Some(seq) = records.seq_at(at) {
            let (unit, next) = records.unit_at(at);
            seen.push(match unit {
                Unit::Mark(mark) => format!("{}: mark {mark}", seq.0),
                Unit::Place(mark) => format!("{}: place {mark}", seq.0),
                Unit::Effects(effects) => {
                    let effects = effects.iter().map(|(db, effect)| {
                        format!("{}>{}", db.0, String::from_utf8_lossy(effect))
                    });
                    format!("{}: {}", seq.0, effects.collect::<Vec<_>>().join(" "))
                }
            });
            at = next;
        }
        assert_eq!(seen, ["3: mark 7", "4: 0>a 2>bc", "9: 1>def"]);
    }
}
