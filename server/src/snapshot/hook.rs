//! The saver of one shard: how a snapshot stays at its cut while writes go on.
//!
//! `Keyspace` calls it just before an entry changes or goes. It serializes the entry into the chunk of every snapshot whose cut is
//! above the entry's version; the door then stamps the entry, so that nobody saves it again.
//!
//! Invariants
//! - The hook never waits. A writer that must wait does so before its hop starts, when `admits` says so.
//! - Large values are saved in slices by `large`; the hook writes one whole only if it changes without having waited.
//! - A table that left the keyspace stays here until every snapshot that covers it has walked it.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfsnap_formats::lzf::LzfEncoder;
use tokio::sync::mpsc::UnboundedSender;

use super::SnapshotId;
use super::large::Larges;
use super::names::Wanted;
use super::serializer;
use super::walk::is_large;
use crate::keyspace::entry::{Entry, Version};
use crate::keyspace::table::{Cursor, Table};
use crate::keyspace::{DbIndex, Key, Keyspace, Observer, TableId};

/// A chunk travels when it has this many bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// What the bytes of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Whole entries.
    Whole,
    /// The first part of one entry. Nothing may stand between this and its last, save its parts.
    First,
    /// Another part.
    Middle,
    /// The last part.
    Last,
}

/// Entries of one database, serialized, on their way to the sink.
#[derive(Debug)]
pub struct Chunk {
    /// Their database.
    pub db: DbIndex,
    /// The records.
    pub bytes: Vec<u8>,
    /// Whole ones, or a part of one.
    pub span: Span,
    /// How many end here.
    pub keys: u64,
    /// What to give the room back to when they are written.
    pub budget: Arc<Budget>,
}

/// What a shard tells a snapshot's sink.
#[derive(Debug)]
pub enum Piece {
    /// More entries.
    Chunk(Chunk),
    /// This shard has sent everything.
    End,
}

/// Bytes that a shard may have on their way to one sink.
#[derive(Debug)]
pub struct Budget {
    /// The shard.
    pub shard: usize,
    /// The limit in bytes. One entry may exceed it.
    pub limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes for a shard.
    pub fn new(shard: usize, limit: u64) -> Budget {
        Budget {
            shard,
            limit,
            used: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        // Evicting keys would not make room: it makes more to save.
        crate::memory::do_not_count(bytes);
    }

    /// Gives room back. Returns whether somebody may be waiting for it.
    pub fn give_back(&self, bytes: u64) -> bool {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        crate::memory::count_again(bytes);
        // One who was refused saw at least the limit; wake at half of it, not at every chunk.
        before > self.limit / 2 && before - bytes <= self.limit / 2
    }

    /// Bytes on their way.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        // What an aborted snapshot never wrote.
        crate::memory::count_again(*self.used.get_mut());
    }
}

/// What a snapshot takes of entries.
#[derive(Clone, Debug)]
pub enum Takes {
    /// All there is, as records in this format.
    Records(serializer::Format),
    /// The names of some.
    Names(Arc<Wanted>),
}

/// A snapshot in progress on this shard.
pub(super) struct Active {
    pub(super) id: SnapshotId,
    pub(super) cut: Version,
    /// Tables that are not walked to their end, with the database they were at the cut.
    plan: Vec<(TableId, DbIndex)>,
    db: DbIndex,
    bytes: Vec<u8>,
    keys: u64,
    /// Keys saved since the cut.
    saved_keys: u64,
    pub(super) takes: Takes,
    budget: Arc<Budget>,
    sink: UnboundedSender<Piece>,
    pub(super) larges: Larges,
    /// Bytes sent.
    sent: u64,
}

impl Active {
    /// The database under which this snapshot has to save an entry, if it has to.
    pub(super) fn needs(&self, table: TableId, entry: &Entry) -> Option<DbIndex> {
        if entry.version() >= self.cut || self.larges.has(table, entry) {
            return None;
        }
        let planned = self.plan.iter().find(|(planned, _)| *planned == table);
        planned.map(|(_, db)| *db)
    }

    pub(super) fn send(&mut self, chunk: Chunk) {
        let bytes = chunk.bytes.len() as u64;
        self.sent += bytes;
        chunk.budget.take(bytes);
        // A sink that has gone aborts the snapshot on all shards; until then its chunks go nowhere.
        let _ = self.sink.send(Piece::Chunk(chunk));
    }

    fn send_chunk(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let chunk = Chunk {
            db: self.db,
            bytes: std::mem::replace(
                &mut self.bytes,
                Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
            ),
            span: Span::Whole,
            keys: std::mem::take(&mut self.keys),
            budget: self.budget.clone(),
        };
        self.send(chunk);
    }

    fn is_full(&self) -> bool {
        self.budget.used() + self.bytes.len() as u64 >= self.budget.limit
    }
}

/// The snapshots in progress on one shard.
#[derive(Default)]
pub struct Saver {
    pub(super) active: Vec<Active>,
    detached: Vec<(TableId, Table<Entry>)>,
    pub(super) lzf: LzfEncoder,
    /// The snapshot whose walk is at work.
    walking: Option<SnapshotId>,
    /// A transaction waits for the keyspace: no large value is begun before it has had it.
    pub(super) is_leaving: Cell<bool>,
}

/// What a shard needs to know to take part in a snapshot.
pub struct Order {
    /// Its name.
    pub id: SnapshotId,
    /// What is taken of entries.
    pub takes: Takes,
    /// Room for this shard's chunks.
    pub budget: Arc<Budget>,
    /// Where they go.
    pub sink: UnboundedSender<Piece>,
}

/// What a shard held at a cut.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Keys and keys with an expiry, of each database that has any.
    pub databases: Vec<(DbIndex, u64, u64)>,
}

/// Takes the cut on one shard. Part of a run that holds all shards.
pub fn cut(keyspace: &mut Keyspace, order: Order) -> Census {
    let cut = keyspace.advance_epoch();
    let mut plan = Vec::new();
    let mut census = Census::default();
    for db in (0..keyspace.database_count()).map(DbIndex) {
        let database = keyspace.database(db);
        let is_covered = match &order.takes {
            Takes::Records(_) => true,
            Takes::Names(wanted) => wanted.db == db,
        };
        if is_covered && !database.entries().is_empty() {
            plan.push((database.id(), db));
            census.databases.push((
                db,
                database.entries().len() as u64,
                database.expiry().len() as u64,
            ));
        }
    }
    let saver = of(keyspace);
    saver.active.push(Active {
        id: order.id,
        cut,
        plan,
        db: DbIndex(0),
        bytes: Vec::new(),
        keys: 0,
        saved_keys: 0,
        takes: order.takes,
        larges: Larges::new(order.budget.shard),
        budget: order.budget,
        sink: order.sink,
        sent: 0,
    });
    census
}

/// The saver of a keyspace.
pub fn of(keyspace: &mut Keyspace) -> &mut Saver {
    as_saver(keyspace.observer_mut())
}

fn as_saver(observer: &mut dyn Observer) -> &mut Saver {
    observer
        .as_any_mut()
        .downcast_mut()
        .expect("every keyspace is watched by a saver")
}

/// Ends a snapshot on one shard, finished or not: its chunks are sent, what it alone needed is dropped.
pub fn end(keyspace: &mut Keyspace, id: SnapshotId) {
    let saver = of(keyspace);
    if let Some(at) = saver.active.iter().position(|active| active.id == id) {
        let mut active = saver.active.remove(at);
        active.send_chunk();
        let _ = active.sink.send(Piece::End);
    }
    saver.drop_unneeded();
    let cut = saver
        .active
        .iter()
        .map(|active| active.cut)
        .max()
        .unwrap_or(0);
    keyspace.set_cut(cut);
}

/// One step of a walk for a snapshot: saves the next bucket of a table, wherever that table is now. Large values in it wait for
/// `large::step`.
pub fn save_bucket(
    keyspace: &mut Keyspace,
    id: SnapshotId,
    table: TableId,
    cursor: Cursor,
) -> Option<Cursor> {
    of(keyspace).walking = Some(id);
    if keyspace.has_table(table) {
        return keyspace.save_bucket(table, cursor);
    }
    let (epoch, cut) = (keyspace.epoch(), keyspace.cut());
    with_detached(of(keyspace), table, |saver, entries| {
        entries.scan_mut(cursor, |entry| {
            if entry.version() < cut && saver.meets(table, entry) {
                entry.mark_saved(epoch);
            }
        })
    })?
}

/// An entry of a table, wherever that is now, with the saver.
pub(super) fn with_entry<R>(
    keyspace: &mut Keyspace,
    table: TableId,
    key: Key<'_>,
    run: impl FnOnce(&mut Saver, &mut Entry) -> R,
) -> Option<R> {
    if keyspace.has_table(table) {
        let (observer, entry) = keyspace.entry_of(table, key)?;
        return Some(run(as_saver(observer), entry));
    }
    with_detached(of(keyspace), table, |saver, entries| {
        let entry = entries.find_mut(key.hash, key.bytes)?;
        Some(run(saver, entry))
    })?
}

/// A table that has left the keyspace, taken out of the saver for as long as `run` needs both.
fn with_detached<R>(
    saver: &mut Saver,
    table: TableId,
    run: impl FnOnce(&mut Saver, &mut Table<Entry>) -> R,
) -> Option<R> {
    let at = saver.detached.iter().position(|(id, _)| *id == table)?;
    let mut entries = std::mem::take(&mut saver.detached[at].1);
    let result = run(saver, &mut entries);
    saver.detached[at].1 = entries;
    Some(result)
}

impl Saver {
    /// The next table that a snapshot has to walk; `None` if it is through, or gone.
    pub fn next_table(&self, id: SnapshotId) -> Option<TableId> {
        self.active
            .iter()
            .find(|active| active.id == id)?
            .plan
            .first()
            .map(|(table, _)| *table)
    }

    /// A snapshot has walked a table to its end.
    pub fn table_walked(&mut self, id: SnapshotId, table: TableId) {
        if let Some(active) = self.active.iter_mut().find(|active| active.id == id) {
            active.plan.retain(|(planned, _)| *planned != table);
        }
        self.drop_unneeded();
    }

    /// Whether a snapshot goes on.
    pub fn is_active(&self, id: SnapshotId) -> bool {
        self.active.iter().any(|active| active.id == id)
    }

    /// Whether the walk of any snapshot must wait: what it meets is saved for all that need it.
    pub fn is_full(&self) -> bool {
        self.active.iter().any(Active::is_full)
    }

    /// A snapshot in progress.
    pub(super) fn active_mut(&mut self, id: SnapshotId) -> Option<&mut Active> {
        self.active.iter_mut().find(|active| active.id == id)
    }

    /// Bytes of a snapshot that this shard has sent.
    pub fn sent(&self, id: SnapshotId) -> u64 {
        self.active
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.sent)
    }

    /// Keys of a snapshot that this shard has saved.
    pub fn saved_keys(&self, id: SnapshotId) -> u64 {
        let active = self.active.iter().find(|active| active.id == id);
        active.map_or(0, |active| active.saved_keys)
    }

    /// Bytes collected for a snapshot and not sent.
    pub fn collected(&self, id: SnapshotId) -> usize {
        self.active
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.bytes.len())
    }

    /// Sends what is collected for a snapshot.
    pub fn send_chunk(&mut self, id: SnapshotId) {
        if let Some(active) = self.active.iter_mut().find(|active| active.id == id) {
            active.send_chunk();
        }
    }

    fn drop_unneeded(&mut self) {
        let active = &self.active;
        let is_needed = |table: TableId| {
            active
                .iter()
                .any(|active| active.plan.iter().any(|(planned, _)| *planned == table))
        };
        let (needed, unneeded) = std::mem::take(&mut self.detached)
            .into_iter()
            .partition(|(id, _)| is_needed(*id));
        self.detached = needed;
        let unneeded: Vec<(TableId, Table<Entry>)> = unneeded;
        if !unneeded.is_empty() {
            crate::keyspace::release::drop_later(unneeded);
        }
    }

    /// Writes a whole entry for every snapshot that still needs it.
    fn save(&mut self, table: TableId, entry: &Entry) {
        for active in &mut self.active {
            let Some(db) = active.needs(table, entry) else {
                continue;
            };
            if active.finish_open(table, entry, &mut self.lzf) {
                continue;
            }
            if active.db != db || active.bytes.len() >= CHUNK_BYTES {
                active.send_chunk();
                active.db = db;
            }
            let is_taken = match &active.takes {
                Takes::Records(format) => {
                    serializer::entry(&mut active.bytes, entry, format, &mut self.lzf);
                    true
                }
                Takes::Names(wanted) => wanted.take(entry, &mut active.bytes),
            };
            active.keys += u64::from(is_taken);
            active.saved_keys += 1;
        }
    }
}

impl Observer for Saver {
    fn before_update(&mut self, table: TableId, entry: &Entry) {
        self.save(table, entry);
    }

    fn meets(&mut self, table: TableId, entry: &Entry) -> bool {
        if !is_large(entry.value()) {
            self.save(table, entry);
            return true;
        }
        let id = self.walking.expect("a walk says whose it is");
        let Some(active) = self.active_mut(id) else {
            return false;
        };
        if active.needs(table, entry).is_none() {
            return false;
        }
        match &active.takes {
            Takes::Records(_) => active.larges.wait_for(table, entry),
            Takes::Names(wanted) => {
                active.keys += u64::from(wanted.take(entry, &mut active.bytes));
                active.larges.note_saved(table, entry);
            }
        }
        self.is_saved(table, entry)
    }

    fn detached(&mut self, table: TableId, entries: Table<Entry>) -> Option<Table<Entry>> {
        let is_needed = self
            .active
            .iter()
            .any(|active| active.plan.iter().any(|(planned, _)| *planned == table));
        if is_needed {
            self.detached.push((table, entries));
            None
        } else {
            Some(entries)
        }
    }

    fn admits(&self, table: TableId, entry: &Entry) -> bool {
        let is_large = is_large(entry.value());
        let mut is_admitted = true;
        for active in &self.active {
            let is_slow = is_large && matches!(active.takes, Takes::Records(_));
            if active.needs(table, entry).is_some() && (is_slow || active.is_full()) {
                is_admitted = false;
                if is_slow {
                    active.larges.want(table, entry);
                }
            }
        }
        is_admitted
    }

    fn may_leave(&self) -> bool {
        // 1. A sink has begun a value of this shard and takes nothing else before its end. 2. The keyspace leaves, and the walk
        // with it. 3. The transaction that has it waits for another shard, 4. where a write waits for a large value, 5. whose
        // parts wait for the sink.
        let is_between = self.active.iter().all(|active| !active.larges.is_open());
        self.is_leaving.set(!is_between);
        is_between
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
