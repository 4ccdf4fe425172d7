//! What a dump says, whatever its format: the items that readers of all formats come to and writers of all start from.
//!
//! Converters, comparisons and reports work on these. What only one format has (hints about sizes, checksums, the
//! order of databases) stays in that format's own records.

use crate::parts::Head;
use crate::rdb::decode::DecodeLimits;
use crate::rdb::record::{KeyRecord, ModuleId, RdbError, Record};
use crate::value::Value;

pub use crate::rdb::record::Attributes;

/// One thing that a dump holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// What the writer said about itself or about the dataset, as in `redis-ver`.
    Aux {
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// A function library: its code, which starts with `#!lua name=…`.
    Function {
        code: Vec<u8>,
    },
    /// Data of a module beside the keys; `raw` is all of it, from the id on.
    ModuleAux {
        module: ModuleId,
        /// 1: before the keys, 2: after them.
        when: u64,
        raw: Vec<u8>,
    },
    Entry(Entry),
}

/// A key with its value and all that is known about it.
///
/// ```
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::rdb::reader::{Options, RdbReader};
/// use dfsnap_formats::value::Value;
/// let file = b"REDIS0003\xfe\x02\x00\x01k\xc0\x2a\xff";
/// let mut reader = RdbReader::new(&file[..], Options::default());
/// let mut entries = Vec::new();
/// while let Some(record) = reader.next().unwrap() {
///     if let Some(Item::Entry(entry)) = Item::of_record(&record, &Default::default()).unwrap() {
///         entries.push(entry);
///     }
/// }
/// assert_eq!(entries, [Entry::new(2, b"k", Value::String(b"42".to_vec()))]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub db: u32,
    pub key: Vec<u8>,
    pub attributes: Attributes,
    pub value: Value,
}

impl Entry {
    /// Without expiry or anything else.
    pub fn new(db: u32, key: &[u8], value: Value) -> Self {
        Entry {
            db,
            key: key.to_vec(),
            attributes: Attributes::default(),
            value,
        }
    }

    /// What is known before the value.
    pub fn head(&self) -> Head<'_> {
        Head {
            db: self.db,
            key: &self.key,
            attributes: self.attributes,
            kind: self.value.kind(),
        }
    }

    /// None: an empty collection, which servers skip.
    pub fn of_key(record: &KeyRecord<'_>, limits: &DecodeLimits) -> Result<Option<Self>, RdbError> {
        Ok(record.decode(limits)?.map(|value| Entry {
            db: record.db,
            key: record.key.to_vec(),
            attributes: record.attributes,
            value,
        }))
    }
}

impl Item {
    /// What a record of an RDB file says about the dataset. None: nothing, as with hints, ends and empty collections.
    pub fn of_record(record: &Record<'_>, limits: &DecodeLimits) -> Result<Option<Self>, RdbError> {
        Ok(match record {
            Record::Aux { name, value } => Some(Item::Aux {
                name: name.to_vec(),
                value: value.to_vec(),
            }),
            Record::Function { code } => Some(Item::Function {
                code: code.to_vec(),
            }),
            Record::FunctionPreGa {
                name, engine, code, ..
            } => Some(Item::Function {
                code: library(engine, name, code),
            }),
            Record::ModuleAux { module, when, raw } => Some(Item::ModuleAux {
                module: *module,
                when: *when,
                raw: raw.to_vec(),
            }),
            Record::Key(key) => Entry::of_key(key, limits)?.map(Item::Entry),
            Record::Header(_)
            | Record::SelectDb(_)
            | Record::ResizeDb { .. }
            | Record::SlotInfo { .. }
            | Record::SlotImport { .. }
            | Record::Enterprise { .. }
            | Record::End(_) => None,
        })
    }
}

/// A library of a 7.0 release candidate in today's form: engine and name were fields, now they are the first line.
fn library(engine: &[u8], name: &[u8], code: &[u8]) -> Vec<u8> {
    [
        b"#!",
        &engine.to_ascii_lowercase()[..],
        b" name=",
        name,
        b"\n",
        code,
    ]
    .concat()
}
