//! The names of many keys (KEYS) at a cut, collected while everybody else goes on.
//!
//! A snapshot that takes of each entry no more than its key: the same cut, the same hook before an entry changes, the same walk in
//! slices. So the reply holds exactly the keys of one moment, and nobody waits for it but the one who asked.

use std::sync::Arc;

use dfsnap_formats::glob;
use dfsnap_formats::resp::push_bulk;
use tokio::sync::mpsc::unbounded_channel;

use super::feed::{Aborted, Feed};
use super::hook::{self, Budget, Order, Takes};
use super::save::next_id;
use super::traverser::traverse;
use crate::keyspace::DbIndex;
use crate::keyspace::entry::Entry;
use crate::shard::Shard;
use crate::tx::Coordinator;

/// For fewer keys all shards stand still: that takes less than five milliseconds.
const MANY_KEYS: usize = 100_000;

/// Which keys are wanted.
#[derive(Debug)]
pub struct Wanted {
    /// Of this database.
    pub db: DbIndex,
    /// That match this.
    pub pattern: Vec<u8>,
    /// And whose time had not come, Unix milliseconds.
    pub now_ms: i64,
}

impl Wanted {
    /// Appends the key of an entry as a bulk string, if it is wanted.
    pub(super) fn take(&self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        let is_wanted = !entry.is_expired(self.now_ms) && glob::matches(&self.pattern, entry.key());
        if is_wanted {
            push_bulk(out, entry.key());
        }
        is_wanted
    }
}

/// Whether a database, judged by one shard of it, has so many keys that collecting their names is worth a cut. While a snapshot is written
/// it is not: the walk would wait for that one's sink.
#[cold]
pub fn is_worth_a_cut(shard: &Shard, db: DbIndex) -> bool {
    let keyspace = shard.keyspace.as_ref();
    keyspace.is_some_and(|keyspace| {
        let keys = keyspace.database(db).entries().len() * shard.settings.shards;
        keys > MANY_KEYS && keyspace.cut() == 0
    })
}

/// How many keys are wanted, and all of them as bulk strings.
pub async fn collect(
    coordinator: &Coordinator,
    wanted: Wanted,
) -> Result<(usize, Vec<u8>), Aborted> {
    let (id, shards) = (next_id(), coordinator.shards());
    let (sender, receiver) = unbounded_channel();
    let mut feed = Feed::new(receiver, coordinator.here().links.clone(), shards);
    let wanted = Arc::new(wanted);
    coordinator
        .global(Box::new(move |keyspaces| {
            for (shard, keyspace) in keyspaces.iter_mut().enumerate() {
                let order = Order {
                    id,
                    takes: Takes::Names(wanted.clone()),
                    // The client's reply grows anyway: nobody waits for room in it.
                    budget: Arc::new(Budget::new(shard, u64::MAX)),
                    sink: sender.clone(),
                };
                hook::cut(keyspace, order);
            }
            ((), Vec::new())
        }))
        .await;
    for shard in 0..shards {
        coordinator.here().tell(shard, move |_| {
            tokio::task::spawn_local(traverse(crate::shard::current(), id, false));
        });
    }
    let (mut count, mut names) = (0, Vec::new());
    while let Some(chunk) = feed.next().await? {
        count += chunk.keys as usize;
        names.extend_from_slice(&chunk.bytes);
    }
    Ok((count, names))
}
