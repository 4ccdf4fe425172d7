//! A key of any source, and its value in the form that a verb asks for.

use super::Bytes;
use crate::report::Failure;
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::error::Damage;
use dfsnap_formats::parts::{Head, Part};
use dfsnap_formats::rdb::count::element_count;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::RdbReader;
use dfsnap_formats::rdb::record::{KeyRecord, RdbError};
use dfsnap_formats::rdb::type_code;
use std::borrow::Cow;
use std::path::Path;

/// A key with its value, which can be taken once.
pub struct Key<'a> {
    pub head: Head<'a>,
    /// How the value is stored, where it is.
    pub type_code: Option<u8>,
    /// Where messages say that it is from.
    path: &'a Path,
    held: Held<'a>,
}

enum Held<'a> {
    Stored {
        record: &'a KeyRecord<'a>,
        walk: &'a mut PartWalk,
    },
    /// Still in the reader.
    Large {
        record: &'a KeyRecord<'a>,
        reader: &'a mut RdbReader<Bytes>,
        walk: &'a mut PartWalk,
    },
    Data(&'a Entry),
}

/// An error on the way of a part: of the dump, or of whoever takes the parts.
enum Stop {
    Damage(Damage),
    Read(RdbError),
    Taker(Failure),
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Self {
        Stop::Damage(damage)
    }
}

impl From<RdbError> for Stop {
    fn from(error: RdbError) -> Self {
        Stop::Read(error)
    }
}

impl<'a> Key<'a> {
    /// Of a stored value that is here as a whole; `path` is where messages say that it is from.
    pub fn stored(path: &'a Path, record: &'a KeyRecord<'a>, walk: &'a mut PartWalk) -> Self {
        Key {
            head: Head::of_key(record),
            type_code: Some(record.type_code),
            path,
            held: Held::Stored { record, walk },
        }
    }

    pub(super) fn large(
        path: &'a Path,
        record: &'a KeyRecord<'a>,
        reader: &'a mut RdbReader<Bytes>,
        walk: &'a mut PartWalk,
    ) -> Self {
        Key {
            head: Head::of_key(record),
            type_code: Some(record.type_code),
            path,
            held: Held::Large {
                record,
                reader,
                walk,
            },
        }
    }

    /// A value as data.
    pub fn data(path: &'a Path, entry: &'a Entry) -> Self {
        Key {
            head: entry.head(),
            type_code: None,
            path,
            held: Held::Data(entry),
        }
    }

    /// The stored value, where it is here as a whole.
    pub fn record(&self) -> Option<&KeyRecord<'a>> {
        match &self.held {
            Held::Stored { record, .. } => Some(record),
            _ => None,
        }
    }

    /// The key of a stored value that is too large to be here as a whole; `large_bytes` gives the value.
    pub fn large_record(&self) -> Option<&KeyRecord<'a>> {
        match &self.held {
            Held::Large { record, .. } => Some(record),
            _ => None,
        }
    }

    /// The stored bytes of a large value, in pieces.
    pub fn large_bytes(
        self,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Held::Large { reader, .. } = self.held else {
            return Ok(());
        };
        let path = self.path;
        reader
            .large_bytes(|bytes| take(bytes).map_err(Stop::Taker))
            .map_err(|stop| failure(path, None, stop))
    }

    /// Looks into a stored value that is here as a whole.
    pub fn check(&mut self) -> Result<(), Failure> {
        let Held::Stored { record, walk } = &mut self.held else {
            return Ok(());
        };
        walk.value(record.flavor, record.type_code, record.value, |_| Ok(()))
            .map_err(|damage: Damage| Failure::read(self.path, &record.damaged(damage)))
    }

    /// The value part by part.
    pub fn parts(
        self,
        mut take: impl FnMut(Part<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let path = self.path;
        match self.held {
            Held::Data(entry) => entry.value.for_each_part(take),
            Held::Stored { record, walk } => walk
                .value(record.flavor, record.type_code, record.value, |part| {
                    take(part).map_err(Stop::Taker)
                })
                .map_err(|stop| failure(path, Some(record), stop)),
            Held::Large { reader, walk, .. } => reader
                .large_parts(walk, |part| take(part).map_err(Stop::Taker))
                .map_err(|stop| failure(path, None, stop)),
        }
    }

    /// The whole entry in memory. None: an empty collection.
    pub fn entry(self) -> Result<Option<Cow<'a, Entry>>, Failure> {
        let path = self.path;
        let read = |error: RdbError| Failure::read(path, &error);
        match self.held {
            Held::Data(entry) => Ok(Some(Cow::Borrowed(entry))),
            Held::Stored { record, .. } => {
                let entry = Entry::of_key(record, &Default::default()).map_err(read)?;
                Ok(entry.map(Cow::Owned))
            }
            Held::Large { record, reader, .. } => {
                let mut value = Vec::new();
                reader
                    .large_bytes(|bytes| {
                        value.extend_from_slice(bytes);
                        Ok(())
                    })
                    .map_err(read)?;
                let whole = KeyRecord {
                    value: &value,
                    ..record.clone()
                };
                let entry = Entry::of_key(&whole, &Default::default()).map_err(read)?;
                Ok(entry.map(Cow::Owned))
            }
        }
    }
}

fn failure(path: &Path, record: Option<&KeyRecord<'_>>, stop: Stop) -> Failure {
    match (stop, record) {
        (Stop::Taker(failure), _) => failure,
        (Stop::Read(error), _) => Failure::read(path, &error),
        (Stop::Damage(damage), Some(record)) => Failure::read(path, &record.damaged(damage)),
        (Stop::Damage(damage), None) => Failure::read(path, &RdbError::Record(damage)),
    }
}

/// Whether a stored value is a collection without elements, which servers skip. Only small values can be.
pub fn is_empty(record: &KeyRecord<'_>) -> bool {
    const EMPTY_BYTES_MAX: usize = 64;
    record.type_code != type_code::STRING
        && record.value.len() <= EMPTY_BYTES_MAX
        && element_count(record.flavor, record.type_code, record.value) == Ok(0)
        && matches!(record.decode(&Default::default()), Ok(None))
}
