//! A snapshot as the bytes of an RDB file, in order: header, databases, end mark and checksum.

use dfsnap_formats::checksum::RedisCrc;
use dfsnap_formats::rdb::writer;
use tokio::sync::mpsc::UnboundedReceiver;

use super::hook::{Census, Piece};
use crate::keyspace::DbIndex;
use crate::shard::link::Links;
use std::sync::Arc;

/// What stands in front of the keys.
#[derive(Clone, Debug, Default)]
pub struct Preamble {
    /// RDB version.
    pub version: u16,
    /// AUX fields.
    pub aux: Vec<(&'static str, String)>,
}

/// Bytes of a snapshot, one piece after the other.
pub struct RdbStream {
    receiver: UnboundedReceiver<Piece>,
    links: Arc<Links>,
    preamble: Option<Preamble>,
    /// Keys and expiring keys of each database at the cut.
    sizes: Vec<(DbIndex, u64, u64)>,
    /// Databases whose sizes are written.
    announced: Vec<DbIndex>,
    db: Option<DbIndex>,
    /// Shards that have more to send.
    shards_left: usize,
    is_ended: bool,
    crc: Option<RedisCrc>,
    /// Keys so far.
    pub keys: u64,
    /// Keys in all.
    pub keys_total: u64,
}

impl RdbStream {
    /// The stream of a snapshot whose cut has just been taken. `censuses` are the shards'.
    pub fn new(
        receiver: UnboundedReceiver<Piece>,
        links: Arc<Links>,
        preamble: Preamble,
        censuses: &[Census],
        has_checksum: bool,
    ) -> RdbStream {
        let mut sizes: Vec<(DbIndex, u64, u64)> = Vec::new();
        for (db, keys, expires) in censuses
            .iter()
            .flat_map(|census| census.databases.iter().copied())
        {
            match sizes.iter_mut().find(|(known, ..)| *known == db) {
                Some(known) => {
                    known.1 += keys;
                    known.2 += expires;
                }
                None => sizes.push((db, keys, expires)),
            }
        }
        let keys_total = sizes.iter().map(|(_, keys, _)| keys).sum();
        RdbStream {
            receiver,
            links,
            preamble: Some(preamble),
            sizes,
            announced: Vec::new(),
            db: None,
            shards_left: censuses.len(),
            is_ended: false,
            crc: has_checksum.then(RedisCrc::new),
            keys: 0,
            keys_total,
        }
    }

    /// Adds an AUX field. Only before the first bytes are taken.
    pub fn add_aux(&mut self, name: &'static str, value: String) {
        self.preamble
            .as_mut()
            .expect("nothing is taken yet")
            .aux
            .push((name, value));
    }

    /// The next bytes, waiting for them; `None` at the end. `Err` if the snapshot was aborted.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Aborted> {
        loop {
            match self.ready() {
                Ready::Bytes(bytes) => return Ok(Some(bytes)),
                Ready::End => return Ok(None),
                Ready::Wait => {}
            }
            let piece = self.receiver.recv().await.ok_or(Aborted)?;
            if let Some(bytes) = self.take(piece) {
                return Ok(Some(bytes));
            }
        }
    }

    /// [`RdbStream::next`] on a thread that may block.
    pub fn blocking_next(&mut self) -> Result<Option<Vec<u8>>, Aborted> {
        loop {
            match self.ready() {
                Ready::Bytes(bytes) => return Ok(Some(bytes)),
                Ready::End => return Ok(None),
                Ready::Wait => {}
            }
            let piece = self.receiver.blocking_recv().ok_or(Aborted)?;
            if let Some(bytes) = self.take(piece) {
                return Ok(Some(bytes));
            }
        }
    }

    fn ready(&mut self) -> Ready {
        if let Some(preamble) = self.preamble.take() {
            let mut bytes = Vec::new();
            writer::header(&mut bytes, preamble.version);
            for (name, value) in &preamble.aux {
                writer::aux(&mut bytes, name.as_bytes(), value.as_bytes());
            }
            return Ready::Bytes(self.counted(bytes));
        }
        if self.shards_left > 0 {
            return Ready::Wait;
        }
        if self.is_ended {
            return Ready::End;
        }
        self.is_ended = true;
        let mut bytes = Vec::new();
        writer::eof(&mut bytes);
        let mut bytes = self.counted(bytes);
        writer::checksum(&mut bytes, self.crc.as_ref().map_or(0, RedisCrc::value));
        Ready::Bytes(bytes)
    }

    fn counted(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if let Some(crc) = &mut self.crc {
            crc.update(&bytes);
        }
        bytes
    }

    fn take(&mut self, piece: Piece) -> Option<Vec<u8>> {
        match piece {
            Piece::End => {
                self.shards_left -= 1;
                None
            }
            Piece::Chunk(chunk) => {
                self.keys += chunk.keys;
                let len = chunk.bytes.len() as u64;
                let mut bytes = chunk.bytes;
                if self.db != Some(chunk.db) {
                    self.db = Some(chunk.db);
                    let mut framed = Vec::with_capacity(bytes.len() + 32);
                    writer::select_db(&mut framed, chunk.db.0);
                    if !self.announced.contains(&chunk.db) {
                        self.announced.push(chunk.db);
                        if let Some((_, keys, expires)) =
                            self.sizes.iter().find(|(db, ..)| *db == chunk.db)
                        {
                            writer::resize_db(&mut framed, *keys, *expires);
                        }
                    }
                    framed.append(&mut bytes);
                    bytes = framed;
                }
                if chunk.budget.give_back(len) {
                    self.links
                        .send(chunk.budget.shard, Box::new(|shard| shard.room_made()));
                }
                Some(self.counted(bytes))
            }
        }
    }
}

enum Ready {
    Bytes(Vec<u8>),
    End,
    Wait,
}

/// The snapshot ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot was aborted")]
pub struct Aborted;
