//! The saver of one shard: how a snapshot stays at its cut while writes go on.
//!
//! `Keyspace` calls it just before an entry changes or goes. It serializes the entry into the chunk of every snapshot whose cut is
//! above the entry's version; the door then stamps the entry, so that nobody saves it again.
//!
//! Invariants
//! - The hook never waits. A writer that must wait does so before its hop starts, when `is_full` says so.
//! - A table that left the keyspace stays here until every snapshot that covers it has walked it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfsnap_formats::lzf::LzfEncoder;
use tokio::sync::mpsc::UnboundedSender;

use super::SnapshotId;
use super::serializer;
use crate::keyspace::entry::{Entry, Version};
use crate::keyspace::table::{Cursor, Table};
use crate::keyspace::{DbIndex, Keyspace, Observer, TableId};

/// A chunk travels when it has this many bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Whole entries of one database, serialized, on their way to the sink.
#[derive(Debug)]
pub struct Chunk {
    /// Their database.
    pub db: DbIndex,
    /// The records.
    pub bytes: Vec<u8>,
    /// How many.
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

/// A snapshot in progress on this shard.
struct Active {
    id: SnapshotId,
    cut: Version,
    /// Tables that are not walked to their end, with the database they were at the cut.
    plan: Vec<(TableId, DbIndex)>,
    db: DbIndex,
    bytes: Vec<u8>,
    keys: u64,
    format: serializer::Format,
    budget: Arc<Budget>,
    sink: UnboundedSender<Piece>,
}

impl Active {
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
            keys: std::mem::take(&mut self.keys),
            budget: self.budget.clone(),
        };
        self.budget.take(chunk.bytes.len() as u64);
        // A sink that has gone aborts the snapshot on all shards; until then its chunks go nowhere.
        let _ = self.sink.send(Piece::Chunk(chunk));
    }

    fn is_full(&self) -> bool {
        self.budget.used() + self.bytes.len() as u64 >= self.budget.limit
    }
}

/// The snapshots in progress on one shard.
#[derive(Default)]
pub struct Saver {
    active: Vec<Active>,
    detached: Vec<(TableId, Table<Entry>)>,
    lzf: LzfEncoder,
}

/// What a shard needs to know to take part in a snapshot.
pub struct Order {
    /// Its name.
    pub id: SnapshotId,
    /// How entries are written.
    pub format: serializer::Format,
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
        if !database.entries().is_empty() {
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
        format: order.format,
        budget: order.budget,
        sink: order.sink,
    });
    census
}

/// The saver of a keyspace.
pub fn of(keyspace: &mut Keyspace) -> &mut Saver {
    keyspace
        .observer_mut()
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

/// One step of a walk for a snapshot: saves the next bucket of a table, wherever that table is now.
pub fn save_bucket(keyspace: &mut Keyspace, table: TableId, cursor: Cursor) -> Option<Cursor> {
    if keyspace.has_table(table) {
        return keyspace.save_bucket(table, cursor);
    }
    let (epoch, cut) = (keyspace.epoch(), keyspace.cut());
    let saver = of(keyspace);
    let at = saver.detached.iter().position(|(id, _)| *id == table)?;
    let mut entries = std::mem::take(&mut saver.detached[at].1);
    let next = entries.scan_mut(cursor, |entry| {
        if entry.version() < cut {
            saver.save(table, entry);
            entry.mark_saved(epoch);
        }
    });
    saver.detached[at].1 = entries;
    next
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

    /// Whether a snapshot's chunks have used up its room.
    pub fn is_full_for(&self, id: SnapshotId) -> bool {
        self.active
            .iter()
            .any(|active| active.id == id && active.is_full())
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

    /// Writes an entry for every snapshot that still needs it.
    fn save(&mut self, table: TableId, entry: &Entry) {
        for active in &mut self.active {
            if entry.version() >= active.cut {
                continue;
            }
            let planned = active.plan.iter().find(|(planned, _)| *planned == table);
            let Some(db) = planned.map(|(_, db)| *db) else {
                continue;
            };
            if active.db != db || active.bytes.len() >= CHUNK_BYTES {
                active.send_chunk();
                active.db = db;
            }
            serializer::entry(&mut active.bytes, entry, &active.format, &mut self.lzf);
            active.keys += 1;
        }
    }
}

impl Observer for Saver {
    fn before_update(&mut self, table: TableId, entry: &Entry) {
        self.save(table, entry);
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

    fn is_full(&self) -> bool {
        self.active.iter().any(Active::is_full)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
