//! A copy of the dataset at a cut, in a keyspace of its own: what a forked process would have.
//!
//! A snapshot whose sink is memory: the same cut, the same hook before an entry changes, the same walk in slices; what comes of it is read
//! as a file is. So the copy is the dataset of one moment, and others go on. For the debugger of scripts.

use std::io::{self, Read};
use std::sync::Arc;

use dfsnap_formats::rdb::decode::{DecodeLimits, decode};
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::rdb::record::KeyRecord;
use tokio::sync::mpsc::unbounded_channel;

use super::feed::Feed;
use super::hook::{self, Budget, CHUNK_BYTES, Order, Takes};
use super::save::{Plan, abort, next_id};
use super::serializer;
use super::stream::RdbStream;
use super::traverser::traverse;
use crate::keyspace::entry::Access;
use crate::keyspace::settings::Settings;
use crate::keyspace::{DbIndex, Key, Keyspace};
use crate::memory::NotCounted;
use crate::threads;
use crate::tx::Coordinator;

/// A copy of the dataset.
pub struct DatasetCopy {
    /// All of it, in one keyspace.
    pub keyspace: Box<Keyspace>,
    /// Nobody's keys are evicted for what it takes.
    pub memory: NotCounted,
}

/// Copies the dataset as it is at one moment. The error is for the client and the log.
pub async fn copy(
    coordinator: &Coordinator,
    plan: Plan,
    settings: Arc<Settings>,
) -> Result<DatasetCopy, String> {
    // All in use is more than the dataset takes, and close to it where that matters.
    let wanted = crate::memory::used();
    let available = threads::run("snapshot", crate::memory::available)
        .await
        .map_err(|error| error.to_string())?;
    if wanted > available {
        return Err(format!(
            "a copy of the dataset takes up to {wanted} bytes, and {available} are available"
        ));
    }
    let (id, shards) = (next_id(), coordinator.shards());
    let (sender, receiver) = unbounded_channel();
    let feed = Feed::new(receiver, coordinator.here().links.clone(), shards);
    let share = (plan.buffer_bytes / shards as u64).max(CHUNK_BYTES as u64 * 2);
    let format = plan.format.clone();
    let (censuses, empty) = coordinator
        .global(Box::new(move |keyspaces| {
            let empty = keyspaces[0].beside();
            let mut censuses = Vec::with_capacity(keyspaces.len());
            for (shard, keyspace) in keyspaces.iter_mut().enumerate() {
                let order = Order {
                    id,
                    takes: Takes::Records(format.clone()),
                    budget: Arc::new(Budget::new(shard, share)),
                    sink: sender.clone(),
                };
                censuses.push(hook::cut(keyspace, order));
            }
            ((censuses, empty), Vec::new())
        }))
        .await;
    for shard in 0..shards {
        coordinator.here().tell(shard, move |_| {
            tokio::task::spawn_local(traverse(crate::shard::current(), id, false));
        });
    }
    let stream = RdbStream::new(feed, plan.preamble, &censuses, false);
    let copied = threads::run("snapshot", move || read(stream, empty, &settings))
        .await
        .unwrap_or_else(|error| Err(error.to_string()));
    if copied.is_err() {
        abort(coordinator, id).await;
    }
    copied
}

/// The bytes of a snapshot, as they come.
struct Bytes {
    stream: RdbStream,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Bytes {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.stream.blocking_next().map_err(io::Error::other)? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let len = room.len().min(self.piece.len() - self.at);
        room[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

fn read(
    stream: RdbStream,
    mut keyspace: Keyspace,
    settings: &Settings,
) -> Result<DatasetCopy, String> {
    let source = Bytes {
        stream,
        piece: Vec::new(),
        at: 0,
    };
    let options = Options {
        check_crc: false,
        ..Options::default()
    };
    let mut reader = RdbReader::new(source, options);
    let (mut memory, mut bytes) = (NotCounted::default(), 0);
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        if let Record::Key(record) = record {
            bytes += insert(&mut keyspace, &record, settings)?;
            // First that they are there, then that they do not count: else others would have so much more room.
            crate::memory::tell();
            memory.set(bytes);
        }
    }
    Ok(DatasetCopy {
        keyspace: Box::new(keyspace),
        memory,
    })
}

/// Inserts a key, and tells how many bytes it takes.
fn insert(
    keyspace: &mut Keyspace,
    record: &KeyRecord<'_>,
    settings: &Settings,
) -> Result<u64, String> {
    let (db, key) = (DbIndex(record.db), Key::new(record.key));
    let limits = DecodeLimits::default();
    let stored = decode(record.flavor, record.type_code, record.value, &limits)
        .map_err(|damage| record.damaged(damage).to_string())?;
    let Some(stored) = stored else {
        return Ok(0);
    };
    let value = serializer::from_stored(stored, &settings.limits)?;
    let now_ms = crate::clock::now_ms();
    let access = match (record.attributes.freq, record.attributes.idle_s) {
        (Some(counter), _) => Access(Access::new_lfu(now_ms).0 & !0xff | u32::from(counter)),
        (_, idle_s) => {
            let idle_s = i64::try_from(idle_s.unwrap_or(0)).unwrap_or(0);
            Access::at(now_ms.saturating_sub(idle_s.saturating_mul(1000)))
        }
    };
    let mut entry = keyspace.insert(db, key, value, access);
    entry.set_expire_at_ms(record.attributes.expire_at_ms);
    Ok(entry.entry().memory_bytes() as u64)
}
