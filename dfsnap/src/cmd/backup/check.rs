//! Looks at every record that goes into a backup, down to the last element, and counts.

use dfsnap_formats::error::Damage;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::{KeyRecord, RdbError, RdbReader, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;

/// Values that take more are looked at in pieces, and never in memory as a whole.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// What a backup holds.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts {
    pub keys: u64,
    pub expires: u64,
    pub functions: u64,
    pub databases: BTreeMap<u32, Database>,
    /// Databases in which the server announced another number of keys than it sent.
    pub warnings: Vec<String>,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Database {
    pub keys: u64,
    pub expires: u64,
    #[serde(skip)]
    announced: Option<u64>,
}

/// Checks values; its memory is kept from one to the next.
#[derive(Default)]
pub struct Check {
    walk: PartWalk,
    pub counts: Counts,
    db: u32,
}

impl Check {
    /// Reads all of a dump. Every value is taken apart, and so every element is seen.
    pub fn all(&mut self, reader: &mut RdbReader<impl Read>) -> Result<(), RdbError> {
        loop {
            let next = reader.next_within(VALUE_BYTES_MAX)?;
            match next {
                None => break,
                Some(Next::Record(Record::Key(key))) => self.key(&key)?,
                Some(Next::Record(record)) => self.record(&record),
                Some(Next::Large(key)) => {
                    self.counts.add(&key);
                    reader.large_parts(&mut self.walk, |_| Ok::<(), RdbError>(()))?;
                }
            }
        }
        self.counts.compare();
        Ok(())
    }

    pub fn key(&mut self, key: &KeyRecord<'_>) -> Result<(), RdbError> {
        self.counts.add(key);
        self.walk
            .value(key.flavor, key.type_code, key.value, |_| {
                Ok::<(), Damage>(())
            })
            .map_err(|damage| key.damaged(damage))
    }

    pub fn record(&mut self, record: &Record<'_>) {
        match record {
            Record::SelectDb(db) => self.db = *db,
            Record::ResizeDb { keys, .. } => {
                self.counts.databases.entry(self.db).or_default().announced = Some(*keys);
            }
            Record::Function { .. } | Record::FunctionPreGa { .. } => self.counts.functions += 1,
            _ => {}
        }
    }
}

impl Counts {
    fn add(&mut self, key: &KeyRecord<'_>) {
        let expires = u64::from(key.attributes.expire_at_ms.is_some());
        self.keys += 1;
        self.expires += expires;
        let database = self.databases.entry(key.db).or_default();
        database.keys += 1;
        database.expires += expires;
    }

    /// Servers announce the size of each database; it is a hint, but one that is right at a cut.
    fn compare(&mut self) {
        let differing = self.databases.iter().filter_map(|(db, database)| {
            let announced = database.announced?;
            (announced != database.keys).then(|| {
                let keys = database.keys;
                format!("db {db}: {announced} keys announced, {keys} sent")
            })
        });
        self.warnings.extend(differing);
    }
}
