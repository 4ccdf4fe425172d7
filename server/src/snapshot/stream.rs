//! A snapshot as the bytes of an RDB file, in order: header, databases, end mark and checksum.

use dfsnap_formats::checksum::RedisCrc;
use dfsnap_formats::rdb::writer;

use std::sync::Arc;

use super::feed::{Aborted, Feed};
use super::hook::{Census, Chunk, Span};
use crate::keyspace::DbIndex;
use crate::libraries::Codes;

/// What stands in front of the keys.
#[derive(Clone, Debug, Default)]
pub struct Preamble {
    /// RDB version.
    pub version: u16,
    /// AUX fields.
    pub aux: Vec<(&'static str, String)>,
    /// Libraries of functions.
    pub libraries: Arc<Codes>,
}

/// Keys and expiring keys of a database at a cut.
type Size = (DbIndex, u64, u64);

/// Bytes of a snapshot, one piece after the other.
pub struct RdbStream {
    feed: Feed,
    preamble: Option<Preamble>,
    sizes: Vec<Size>,
    /// Databases whose sizes are written.
    announced: Vec<DbIndex>,
    db: Option<DbIndex>,
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
        feed: Feed,
        preamble: Preamble,
        censuses: &[Census],
        has_checksum: bool,
    ) -> RdbStream {
        let mut sizes: Vec<Size> = Vec::new();
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
            feed,
            preamble: Some(preamble),
            sizes,
            announced: Vec::new(),
            db: None,
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
        if let Some(bytes) = self.head() {
            return Ok(Some(bytes));
        }
        let chunk = self.feed.next().await?;
        Ok(self.framed(chunk))
    }

    /// [`RdbStream::next`] on a thread that may block.
    pub fn blocking_next(&mut self) -> Result<Option<Vec<u8>>, Aborted> {
        if let Some(bytes) = self.head() {
            return Ok(Some(bytes));
        }
        let chunk = self.feed.blocking_next()?;
        Ok(self.framed(chunk))
    }

    fn head(&mut self) -> Option<Vec<u8>> {
        let preamble = self.preamble.take()?;
        let mut bytes = Vec::new();
        writer::header(&mut bytes, preamble.version);
        for (name, value) in &preamble.aux {
            writer::aux(&mut bytes, name.as_bytes(), value.as_bytes());
        }
        for code in preamble.libraries.values() {
            writer::function2(&mut bytes, code, None);
        }
        Some(self.counted(bytes))
    }

    /// A chunk in its place; behind the last, the end; then nothing.
    fn framed(&mut self, chunk: Option<Chunk>) -> Option<Vec<u8>> {
        match chunk {
            Some(chunk) => Some(self.placed(chunk)),
            None if self.is_ended => None,
            None => {
                self.is_ended = true;
                let mut bytes = Vec::new();
                writer::eof(&mut bytes);
                let mut bytes = self.counted(bytes);
                writer::checksum(&mut bytes, self.crc.as_ref().map_or(0, RedisCrc::value));
                Some(bytes)
            }
        }
    }

    fn placed(&mut self, chunk: Chunk) -> Vec<u8> {
        self.keys += chunk.keys;
        let mut bytes = chunk.bytes;
        if self.db != Some(chunk.db) {
            assert!(
                matches!(chunk.span, Span::Whole | Span::First),
                "an entry began in another database"
            );
            self.db = Some(chunk.db);
            let mut framed = Vec::with_capacity(bytes.len() + 32);
            writer::select_db(&mut framed, chunk.db.0);
            if !self.announced.contains(&chunk.db) {
                self.announced.push(chunk.db);
                if let Some((_, keys, expires)) = self.sizes.iter().find(|(db, ..)| *db == chunk.db)
                {
                    writer::resize_db(&mut framed, *keys, *expires);
                }
            }
            framed.append(&mut bytes);
            bytes = framed;
        }
        self.counted(bytes)
    }

    fn counted(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if let Some(crc) = &mut self.crc {
            crc.update(&bytes);
        }
        bytes
    }
}
