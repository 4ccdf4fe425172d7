//! The traverser: walks a shard's tables for one snapshot, in slices, between the commands.
//!
//! Invariants
//! - A slice holds up its shard for about `SLICE`, whatever it meets.
//! - Between slices it keeps to its [`Pace`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::SnapshotId;
use super::hook::{self, CHUNK_BYTES};
use super::large::{self, Step};
use super::pace::Pace;
use crate::keyspace::TableId;
use crate::keyspace::table::Cursor;
use crate::shard::Shard;

/// How long a slice may take: commands wait for no longer.
pub(super) const SLICE: Duration = Duration::from_micros(100);

/// What a slice ended with.
enum Slice {
    /// There is more of the table.
    More(Cursor),
    /// The table is walked.
    Done,
    /// The sink must catch up, or the keyspace is lent.
    Wait(Cursor),
}

/// Walks everything the snapshot covers on this shard, then ends it here.
pub async fn traverse(shard: Rc<RefCell<Shard>>, id: SnapshotId, is_paced: bool) {
    let wake = shard.borrow().wake.clone();
    let mut pace = Pace::new(is_paced);
    loop {
        // Registered before the look: a wake in between is not lost.
        let woken = wake.notified();
        let table = {
            let mut shard = shard.borrow_mut();
            match shard.keyspace.as_mut() {
                None => Err(()),
                Some(keyspace) => Ok(hook::of(keyspace).next_table(id)),
            }
        };
        match table {
            Err(()) => woken.await,
            Ok(Some(table)) => walk(&shard, &wake, id, table, &mut pace).await,
            Ok(None) => break,
        }
    }
    loop {
        let woken = wake.notified();
        {
            let mut shard = shard.borrow_mut();
            if let Some(keyspace) = shard.keyspace.as_mut() {
                hook::end(keyspace, id);
                shard.unpark();
                return;
            }
        }
        woken.await;
    }
}

async fn walk(
    shard: &RefCell<Shard>,
    wake: &tokio::sync::Notify,
    id: SnapshotId,
    table: TableId,
    pace: &mut Pace,
) {
    let mut cursor = Cursor::START;
    loop {
        let woken = wake.notified();
        let started = Instant::now();
        let end = slice(&mut shard.borrow_mut(), id, table, cursor);
        match end {
            Slice::More(next) => {
                cursor = next;
                pace.rest(shard, id, started).await;
            }
            Slice::Wait(next) => {
                cursor = next;
                woken.await;
            }
            // A save of few keys lasts as long as it should as well.
            Slice::Done => return pace.keep_behind(shard, id).await,
        }
    }
}

fn slice(shard: &mut Shard, id: SnapshotId, table: TableId, mut cursor: Cursor) -> Slice {
    let started = Instant::now();
    while started.elapsed() < SLICE {
        let Some(keyspace) = shard.keyspace.as_mut() else {
            return Slice::Wait(cursor);
        };
        match large::step(keyspace, id) {
            Step::Idle => {}
            Step::Part => continue,
            Step::Saved => {
                // Writes may have waited for just this value.
                shard.unpark();
                continue;
            }
            Step::Wait => {
                // What the keyspace's leaving waited for may have ended by itself.
                shard.settle();
                return Slice::Wait(cursor);
            }
        }
        if hook::of(keyspace).is_full() {
            hook::of(keyspace).send_chunk(id);
            return Slice::Wait(cursor);
        }
        if cursor == WALKED {
            hook::of(keyspace).table_walked(id, table);
            return Slice::Done;
        }
        // Large values of the last bucket are saved before the table counts as walked.
        cursor = hook::save_bucket(keyspace, id, table, cursor).unwrap_or(WALKED);
        let saver = hook::of(keyspace);
        if saver.collected(id) >= CHUNK_BYTES {
            saver.send_chunk(id);
        }
    }
    Slice::More(cursor)
}

/// Behind the last bucket. No bucket begins there: buckets are wider.
const WALKED: Cursor = Cursor(u64::MAX);
