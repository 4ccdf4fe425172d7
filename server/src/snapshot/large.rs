//! Large values: saved in slices by a snapshot's traverser, out of turn where a write waits for one.
//!
//! ```text
//! walk meets it ──► waiting ─┐
//!                            ├─► open: part, part, … last ──► saved ──► stamped when every snapshot that needs it has it
//! a write wants it ► wanted ─┘
//! ```
//! Each snapshot goes through a value at its own pace: one whose sink is slow holds up nobody but those who wait for the value.
//!
//! Invariants
//! - A value does not change while a snapshot that needs it has not saved it: `Observer::admits` keeps writes away. What comes in
//!   all the same (a transaction on everything) makes the hook write the rest at once.
//! - Parts have room of their own: a sink that waits for the next part of a value gets it, however full the rest is.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::SnapshotId;
use super::hook::{self, Active, Budget, CHUNK_BYTES, Chunk, Saver, Span, Takes};
use super::serializer;
use super::walk::ValueWalk;
use crate::keyspace::blob::Blob;
use crate::keyspace::entry::Entry;
use crate::keyspace::{DbIndex, Key, Keyspace, TableId};

/// Parts of one value on their way to a sink, in bytes.
pub const PARTS_BYTES: u64 = 4 * CHUNK_BYTES as u64;

/// A key of a table.
pub type Name = (TableId, Blob);

/// A value that is partly written.
struct Open {
    name: Name,
    db: DbIndex,
    walk: ValueWalk,
    has_begun: bool,
}

/// The large values of one snapshot on one shard.
pub struct Larges {
    waiting: VecDeque<Name>,
    /// Writes wait for these: they come first.
    wanted: RefCell<VecDeque<Name>>,
    open: Option<Open>,
    /// Saved here, and not stamped for another snapshot's sake.
    saved: HashSet<Name>,
    room: Arc<Budget>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no large value to save now.
    Idle,
    /// A part was saved.
    Part,
    /// The last part was saved: writes may wait for that.
    Saved,
    /// The sink must catch up, or a transaction must have had the keyspace.
    Wait,
}

impl Larges {
    /// None so far; `shard` is told of room.
    pub fn new(shard: usize) -> Larges {
        Larges {
            waiting: VecDeque::new(),
            wanted: RefCell::default(),
            open: None,
            saved: HashSet::new(),
            room: Arc::new(Budget::new(shard, PARTS_BYTES)),
        }
    }

    /// Whether a value is partly written.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether this snapshot has the value already.
    pub fn has(&self, table: TableId, entry: &Entry) -> bool {
        !self.saved.is_empty() && self.saved.contains(&(table, entry.key().clone()))
    }

    /// This snapshot has all it takes of the value.
    pub fn note_saved(&mut self, table: TableId, entry: &Entry) {
        self.saved.insert((table, entry.key().clone()));
    }

    /// The walk has met a large value.
    pub fn wait_for(&mut self, table: TableId, entry: &Entry) {
        self.waiting.push_back((table, entry.key().clone()));
    }

    /// A write waits for a large value.
    pub fn want(&self, table: TableId, entry: &Entry) {
        let name = (table, entry.key().clone());
        let mut wanted = self.wanted.borrow_mut();
        if !wanted.contains(&name) {
            wanted.push_back(name);
        }
    }

    /// The value that is open; else one that a write waits for; else the next that the walk met.
    fn next(&self) -> Option<Name> {
        self.open
            .as_ref()
            .map(|open| open.name.clone())
            .or_else(|| self.wanted.borrow().front().cloned())
            .or_else(|| self.waiting.front().cloned())
    }

    /// Takes a value off the lists: it is begun, or was saved in another way.
    fn forget(&mut self, name: &Name) {
        self.wanted.borrow_mut().retain(|wanted| wanted != name);
        self.waiting.retain(|waiting| waiting != name);
        if let Some(open) = &self.open {
            assert!(open.name != *name, "an open value went past the door");
        }
    }
}

impl Active {
    /// Writes all that is left of an open value. False: the entry is not the open one.
    pub(super) fn finish_open(
        &mut self,
        table: TableId,
        entry: &Entry,
        lzf: &mut dfsnap_formats::lzf::LzfEncoder,
    ) -> bool {
        let is_open = |open: &Open| open.name.0 == table && open.name.1 == *entry.key();
        let Some(open) = self.larges.open.take_if(|open| is_open(open)) else {
            return false;
        };
        self.write_part(open, entry, lzf, usize::MAX);
        true
    }

    /// Writes a part of an open value. True: it was the last.
    fn write_part(
        &mut self,
        mut open: Open,
        entry: &Entry,
        lzf: &mut dfsnap_formats::lzf::LzfEncoder,
        limit: usize,
    ) -> bool {
        let Takes::Records(format) = &self.takes else {
            unreachable!("names are never taken in parts");
        };
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        if !open.has_begun {
            serializer::entry_head(&mut bytes, entry, format, lzf);
        }
        let is_last = open
            .walk
            .step(entry.value(), &mut format.style(lzf), &mut bytes, limit);
        let span = match (open.has_begun, is_last) {
            (false, true) => Span::Whole,
            (false, false) => Span::First,
            (true, false) => Span::Middle,
            (true, true) => Span::Last,
        };
        let chunk = Chunk {
            db: open.db,
            bytes,
            span,
            keys: u64::from(is_last),
            budget: self.larges.room.clone(),
        };
        self.send(chunk);
        if is_last {
            self.larges.saved.insert(open.name);
        } else {
            open.has_begun = true;
            self.larges.open = Some(open);
        }
        is_last
    }
}

/// Saves a part of a large value for one snapshot, if there is one to save.
pub fn step(keyspace: &mut Keyspace, id: SnapshotId) -> Step {
    loop {
        let Some(active) = hook::of(keyspace).active_mut(id) else {
            return Step::Idle;
        };
        let is_full = active.larges.room.used() >= PARTS_BYTES;
        let is_open = active.larges.is_open();
        let Some((table, key)) = active.larges.next() else {
            return Step::Idle;
        };
        if is_full || (!is_open && hook::of(keyspace).is_leaving.get()) {
            return Step::Wait;
        }
        let step = hook::with_entry(keyspace, table, Key::new(&key), |saver, entry| {
            let step = saver.part_of(id, table, entry);
            if step == Some(Step::Saved) {
                saver.stamp_if_saved(table, entry);
            }
            step
        });
        if let Some(Some(step)) = step {
            return step;
        }
        // It has changed or gone, and was saved before.
        if let Some(active) = hook::of(keyspace).active_mut(id) {
            active.larges.forget(&(table, key));
        }
    }
}

impl Saver {
    /// Writes a part of an entry for one snapshot; `None` if the snapshot does not need it.
    fn part_of(&mut self, id: SnapshotId, table: TableId, entry: &Entry) -> Option<Step> {
        let lzf = &mut self.lzf;
        let active = self.active.iter_mut().find(|active| active.id == id)?;
        let db = active.needs(table, entry)?;
        let open = active.larges.open.take().unwrap_or_else(|| {
            let name = (table, entry.key().clone());
            active.larges.forget(&name);
            Open {
                name,
                db,
                walk: ValueWalk::default(),
                has_begun: false,
            }
        });
        match active.write_part(open, entry, lzf, CHUNK_BYTES) {
            true => Some(Step::Saved),
            false => Some(Step::Part),
        }
    }

    /// Whether no snapshot needs an entry any more. Then it is stamped, and found saved without a look at the lists.
    pub(super) fn is_saved(&mut self, table: TableId, entry: &Entry) -> bool {
        let mut active = self.active.iter();
        if active.any(|active| active.needs(table, entry).is_some()) {
            return false;
        }
        let name = (table, entry.key().clone());
        for active in &mut self.active {
            active.larges.saved.remove(&name);
        }
        true
    }

    fn stamp_if_saved(&mut self, table: TableId, entry: &mut Entry) {
        if self.is_saved(table, entry) {
            let cuts = self.active.iter().map(|active| active.cut);
            entry.mark_saved(cuts.max().unwrap_or(0).max(entry.version()));
        }
    }
}
