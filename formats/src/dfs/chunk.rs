//! Large values that come in pieces, between other records: the pieces of each are put together again by id.
//!
//! ```text
//! first piece  = attribute* | type | key | start of the value      in the database selected before it
//! later pieces = more of the value
//! ```
//! Pieces end between two elements. The database and the attributes of a first piece are kept with its id, and records
//! in between are not touched by them.
//!
//! Invariants
//! - An id lives from its first piece until its value is whole, and the last piece ends with the value.
//! - Memory is that of the pieces that are here; the number of ids that live at once is bounded.

use crate::error::Shown;
use crate::input::Input;
use crate::rdb::inside::{Context, Scope};
use crate::rdb::large::WholeBytes;
use crate::rdb::reader::{Found, Options, RdbReader};
use crate::rdb::record::{Attributes, RdbError};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

/// Values that may be in pieces at the same time. Dragonfly has a few at most: what its traverser and the writers of
/// the moment are at.
const LIVE_MAX: usize = 1024;

/// What is wrong with the pieces of a value.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    #[error("id 0 is never used")]
    ZeroId,
    #[error("a piece without bytes")]
    Empty,
    #[error(
        "{}ends inside an element: {bytes} bytes of its next part are here",
        of_key(key)
    )]
    Overrun { key: Option<Vec<u8>>, bytes: usize },
    #[error("{}is whole, but {bytes} bytes of the piece are left", of_key(key))]
    Underrun { key: Option<Vec<u8>>, bytes: usize },
    #[error(
        "{}is not finished: {bytes} bytes of it are here, and the file ends",
        of_key(key)
    )]
    Unfinished { key: Option<Vec<u8>>, bytes: u64 },
    #[error("no piece of it came before damage: this may be a later one, without type and key")]
    FirstLost,
    #[error("{LIVE_MAX} values are in pieces already")]
    TooMany,
    #[error("put together: {0}")]
    Value(RdbError),
}

fn of_key(key: &Option<Vec<u8>>) -> String {
    match key {
        Some(key) => format!("value of key {} ", Shown(key)),
        None => String::new(),
    }
}

/// Pieces that were not read yet. At its end there is no end: more may come.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// 0 <= at <= bytes.len()
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// A value that is being put together, or is whole.
#[derive(Debug)]
pub(super) struct Assembly {
    reader: RdbReader<Pieces>,
    /// Of the first piece in the file.
    pub(super) offset: u64,
    bytes: u64,
}

impl Assembly {
    pub(super) fn reader(&self) -> &RdbReader<Pieces> {
        &self.reader
    }

    /// None: more pieces are to come.
    fn take(&mut self, piece: &[u8]) -> Result<Option<Found>, ChunkError> {
        let source = self.reader.input_mut().source_mut();
        source.bytes.clear();
        source.bytes.extend_from_slice(piece);
        source.at = 0;
        self.bytes += piece.len() as u64;
        match self.reader.found(WholeBytes::ANY) {
            Ok(Some(found)) => match self.unread() {
                0 => Ok(Some(found)),
                bytes => {
                    let key = self.reader.report(found).ok().and_then(key_of);
                    Err(ChunkError::Underrun { key, bytes })
                }
            },
            Err(RdbError::Io { .. }) if self.reader.is_between_elements() => Ok(None),
            Ok(None) | Err(RdbError::Io { .. }) => Err(ChunkError::Overrun {
                key: self.reader.key_so_far(),
                bytes: self.unread(),
            }),
            Err(error) => Err(ChunkError::Value(error)),
        }
    }

    fn unread(&mut self) -> usize {
        let input = self.reader.input_mut();
        let ahead = input.ahead().len();
        let source = input.source_mut();
        ahead + source.bytes.len() - source.at
    }
}

fn key_of(record: crate::rdb::record::Record<'_>) -> Option<Vec<u8>> {
    match record {
        crate::rdb::record::Record::Key(key) => Some(key.key.to_vec()),
        _ => None,
    }
}

/// All values in pieces at a point of a file.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    live: HashMap<u32, Assembly>,
    /// Ids whose further pieces are passed over, because a piece was damaged.
    dropped: HashSet<u32>,
    /// Pieces may have been lost unseen.
    lossy: bool,
}

impl Chunks {
    /// Adds a piece that stands at `offset` of the file. When it is the last one, the whole value comes out.
    pub(super) fn add(
        &mut self,
        id: u32,
        piece: &[u8],
        offset: u64,
        options: Options,
        context: Context,
    ) -> Result<Option<(Assembly, Found)>, ChunkError> {
        if id == 0 {
            return Err(ChunkError::ZeroId);
        }
        if piece.is_empty() {
            return Err(ChunkError::Empty);
        }
        if self.dropped.contains(&id) {
            return Ok(None);
        }
        if !self.live.contains_key(&id) {
            if self.lossy {
                return Err(ChunkError::FirstLost);
            }
            if self.live.len() == LIVE_MAX {
                return Err(ChunkError::TooMany);
            }
        }
        let context = Context {
            attributes: Attributes::default(),
            ..context
        };
        let assembly = self.live.entry(id).or_insert_with(|| {
            let input = Input::sized(Pieces::default(), false, piece.len());
            Assembly {
                reader: RdbReader::inside(input, options, Scope::Value, context),
                offset,
                bytes: 0,
            }
        });
        let found = assembly.take(piece)?;
        Ok(found.and_then(|found| Some((self.live.remove(&id)?, found))))
    }

    /// Parts of the file are lost. A piece with a new id is then no longer known to be a first one, and what it says
    /// could be read as a key that never was.
    pub(super) fn expect_losses(&mut self) {
        self.lossy = true;
    }

    /// Forgets a value; its further pieces are passed over.
    pub(super) fn drop_value(&mut self, id: u32) {
        self.live.remove(&id);
        self.dropped.insert(id);
    }

    /// A value that is not whole, the one that began first.
    pub(super) fn take_unfinished(&mut self) -> Option<(u64, u32, ChunkError)> {
        let (id, _) = self
            .live
            .iter()
            .min_by_key(|(_, assembly)| assembly.offset)?;
        let id = *id;
        let assembly = self.live.remove(&id)?;
        let error = ChunkError::Unfinished {
            key: assembly.reader.key_so_far(),
            bytes: assembly.bytes,
        };
        Some((assembly.offset, id, error))
    }
}
