//! The traverser: walks a shard's tables for one snapshot, in slices, between the commands.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::SnapshotId;
use super::hook::{self, CHUNK_BYTES};
use crate::keyspace::TableId;
use crate::keyspace::table::Cursor;
use crate::shard::Shard;

/// How long a slice may take: commands wait for no longer.
const SLICE: Duration = Duration::from_micros(200);

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
pub async fn traverse(shard: Rc<RefCell<Shard>>, id: SnapshotId) {
    let wake = shard.borrow().wake.clone();
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
            Ok(Some(table)) => walk(&shard, &wake, id, table).await,
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

async fn walk(shard: &RefCell<Shard>, wake: &tokio::sync::Notify, id: SnapshotId, table: TableId) {
    let mut cursor = Cursor::START;
    loop {
        let woken = wake.notified();
        let end = slice(&mut shard.borrow_mut(), id, table, cursor);
        match end {
            Slice::More(next) => {
                cursor = next;
                tokio::task::yield_now().await;
            }
            Slice::Wait(next) => {
                cursor = next;
                woken.await;
            }
            Slice::Done => return,
        }
    }
}

fn slice(shard: &mut Shard, id: SnapshotId, table: TableId, mut cursor: Cursor) -> Slice {
    let started = Instant::now();
    let Some(keyspace) = shard.keyspace.as_mut() else {
        return Slice::Wait(cursor);
    };
    loop {
        if hook::of(keyspace).is_full_for(id) {
            hook::of(keyspace).send_chunk(id);
            return Slice::Wait(cursor);
        }
        match hook::save_bucket(keyspace, table, cursor) {
            Some(next) => cursor = next,
            None => {
                hook::of(keyspace).table_walked(id, table);
                return Slice::Done;
            }
        }
        let saver = hook::of(keyspace);
        if saver.collected(id) >= CHUNK_BYTES {
            saver.send_chunk(id);
        }
        if started.elapsed() > SLICE {
            return Slice::More(cursor);
        }
    }
}
