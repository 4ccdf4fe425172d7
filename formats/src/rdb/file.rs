//! Writes a whole RDB file from items: header, aux fields, functions, keys, checksum.
//!
//! Converters use it. It appends to a buffer that the caller drains whenever it likes; the checksum is kept on the way.
//! The server writes its files with `writer` instead, from its own structures.

use super::encode::{EncodeError, encode};
use super::loss::{self, Loss};
use super::record::{Attributes, KeyRecord, RdbError};
use super::target::{Feature, Target};
use super::{Flavor, VERSION_CRC, type_code, writer};
use crate::checksum::RedisCrc;
use crate::dataset::{Entry, Item};
use crate::lzf::LzfEncoder;
use crate::value::Value;

/// What is done about losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// An item of which data would be lost is an error, and nothing of it is written.
    #[default]
    Refuse,
    /// What is left is written.
    Accept,
}

/// Writes a file for a target.
///
/// ```
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::rdb::{file::RdbWriter, target::Target};
/// use dfsnap_formats::value::Value;
/// let mut writer = RdbWriter::new(Target::by_name("redis-6.2").unwrap());
/// writer.aux(b"redis-ver", b"6.2.0");
/// let item = Item::Entry(Entry::new(0, b"greeting", Value::String(b"hello".to_vec())));
/// assert_eq!(writer.item(&item).unwrap(), []);
/// writer.finish();
/// let file = writer.take();
/// assert!(file.starts_with(b"REDIS0009"));
/// ```
#[derive(Debug)]
pub struct RdbWriter {
    target: Target,
    on_loss: OnLoss,
    lzf: Option<LzfEncoder>,
    out: Vec<u8>,
    /// Everything before it is in `crc`.
    summed: usize,
    crc: RedisCrc,
    has_checksum: bool,
    db: Option<u32>,
    /// Where values are encoded before their key is written.
    value: Vec<u8>,
}

/// Why an item is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// What is to be copied cannot be read.
    #[error(transparent)]
    Read(#[from] RdbError),
}

impl RdbWriter {
    /// Begins a file; strings are compressed.
    pub fn new(target: Target) -> Self {
        let mut out = Vec::new();
        writer::header_of(&mut out, target.flavor(), target.version());
        RdbWriter {
            target,
            on_loss: OnLoss::default(),
            lzf: Some(LzfEncoder::new()),
            out,
            summed: 0,
            crc: RedisCrc::new(),
            has_checksum: true,
            db: None,
            value: Vec::new(),
        }
    }

    pub fn on_loss(mut self, on_loss: OnLoss) -> Self {
        self.on_loss = on_loss;
        self
    }

    /// Whether strings of more than 20 bytes are compressed where that saves something.
    pub fn compress(mut self, compress: bool) -> Self {
        self.lzf = compress.then(LzfEncoder::new);
        self
    }

    /// Without it the file ends with zeros, which says that none was computed.
    pub fn checksum(mut self, checksum: bool) -> Self {
        self.has_checksum = checksum;
        self
    }

    /// A field about the file; versions before 7 have none.
    pub fn aux(&mut self, name: &[u8], value: &[u8]) {
        if self.target.knows(Feature::Aux) {
            writer::aux(&mut self.out, name, value);
        }
    }

    /// Hints for the database that is selected with it; versions before 7 have none.
    pub fn database(&mut self, db: u32, keys: u64, expires: u64) {
        self.select(db);
        if self.target.knows(Feature::Aux) {
            writer::resize_db(&mut self.out, keys, expires);
        }
    }

    /// A hint before the keys of a slot, which are to follow each other; versions before 12 have none.
    pub fn slot(&mut self, slot: u16, keys: u64, expires: u64) {
        if self.target.knows(Feature::SlotInfo) {
            writer::slot_info(&mut self.out, slot, keys, expires);
        }
    }

    /// An item of any kind, and what of it was lost. Functions and data of modules belong before the first key.
    pub fn item(&mut self, item: &Item) -> Result<Vec<Loss>, EncodeError> {
        if let Item::Entry(entry) = item {
            return self.entry(entry);
        }
        let losses = loss::of_item(item, self.target);
        if let Some(loss) = losses.first() {
            return self.lost(*loss).map(|()| losses);
        }
        match item {
            Item::Aux { name, value } => self.aux(name, value),
            Item::Function { code } => writer::function2(&mut self.out, code, self.lzf.as_mut()),
            Item::ModuleAux { raw, .. } => {
                self.out.push(super::opcode::MODULE_AUX);
                self.out.extend_from_slice(raw);
            }
            Item::Entry(_) => {}
        }
        Ok(losses)
    }

    /// An entry, and what of it was lost.
    pub fn entry(&mut self, entry: &Entry) -> Result<Vec<Loss>, EncodeError> {
        let losses = loss::of_entry(entry, self.target);
        if let Some(loss) = losses.iter().find(|loss| loss.is_data()) {
            self.lost(*loss)?;
        }
        let Some(value) = loss::without(&entry.value, self.target) else {
            return Ok(losses);
        };
        self.value(entry.db, &entry.key, &entry.attributes, &value)?;
        Ok(losses)
    }

    fn value(
        &mut self,
        db: u32,
        key: &[u8],
        attributes: &Attributes,
        value: &Value,
    ) -> Result<(), EncodeError> {
        self.value.clear();
        let code = encode(value, self.target, &mut self.value, self.lzf.as_mut())?;
        self.head(db, key, attributes, code);
        self.out.extend_from_slice(&self.value);
        Ok(())
    }

    /// A key as it was read, without looking at its value where the target stores it in the same way.
    pub fn record(&mut self, record: &KeyRecord<'_>) -> Result<Vec<Loss>, WriteError> {
        if self.copies(record) {
            self.copy(record);
            return Ok(Vec::new());
        }
        match Entry::of_key(record, &Default::default())? {
            Some(entry) => Ok(self.entry(&entry)?),
            None => Ok(Vec::new()),
        }
    }

    /// A key that `copies` says yes to.
    pub fn copy(&mut self, record: &KeyRecord<'_>) {
        self.head(record.db, record.key, &record.attributes, record.type_code);
        self.out.extend_from_slice(record.value);
    }

    /// Whether the stored value of a key is good for the target as it is, and nothing that stands before it would be lost.
    pub fn copies(&self, record: &KeyRecord<'_>) -> bool {
        let attributes = &record.attributes;
        let has_hints = attributes.idle_s.is_some() || attributes.freq.is_some();
        let is_plain = !attributes.sticky
            && attributes.memcached_flags.is_none()
            && attributes.meta_classes == 0
            && (!has_hints || self.target.knows(Feature::AccessHints));
        is_plain && is_known(record, self.target)
    }

    /// The key of a value that is too large to be in memory, and that `copies`; its stored bytes follow by `large_bytes`.
    pub fn large(&mut self, record: &KeyRecord<'_>) {
        self.head(record.db, record.key, &record.attributes, record.type_code);
    }

    pub fn large_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The same for bytes that do not go through the buffer: the caller writes them behind everything that was drained.
    ///
    /// # Panics
    /// If something was not.
    pub fn passed_by(&mut self, bytes: &[u8]) {
        assert!(self.out.is_empty(), "{} bytes come before", self.out.len());
        if self.has_checksum {
            self.crc.update(bytes);
        }
    }

    /// Everything that stands before a value.
    fn head(&mut self, db: u32, key: &[u8], attributes: &Attributes, code: u8) {
        self.select(db);
        if let Some(at_ms) = attributes.expire_at_ms {
            writer::expire_ms(&mut self.out, at_ms);
        }
        if self.target.knows(Feature::AccessHints) {
            if let Some(seconds) = attributes.idle_s {
                writer::idle(&mut self.out, seconds);
            }
            if let Some(counter) = attributes.freq {
                writer::freq(&mut self.out, counter);
            }
        }
        if self.target.flavor() == Flavor::Dragonfly {
            writer::key_mask(&mut self.out, attributes.sticky, attributes.memcached_flags);
        }
        writer::key(&mut self.out, code, key, self.lzf.as_mut());
    }

    fn select(&mut self, db: u32) {
        if self.db != Some(db) {
            writer::select_db(&mut self.out, db);
            self.db = Some(db);
        }
    }

    fn lost(&self, loss: Loss) -> Result<(), EncodeError> {
        let target = self.target;
        match self.on_loss {
            OnLoss::Refuse => Err(EncodeError { target, loss }),
            OnLoss::Accept => Ok(()),
        }
    }

    /// The end mark and the checksum.
    pub fn finish(&mut self) {
        writer::eof(&mut self.out);
        self.sum();
        if self.target.version() >= VERSION_CRC {
            let crc = if self.has_checksum {
                self.crc.value()
            } else {
                0
            };
            writer::checksum(&mut self.out, crc);
            self.summed = self.out.len();
        }
    }

    /// Bytes that have not been taken.
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    /// The bytes of the file since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        self.sum();
        self.summed = 0;
        std::mem::take(&mut self.out)
    }

    /// Gives the bytes since the last call to `to`, and keeps the memory.
    pub fn drain<E>(&mut self, to: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.sum();
        let result = to(&self.out);
        self.out.clear();
        self.summed = 0;
        result
    }

    fn sum(&mut self) {
        if self.has_checksum {
            self.crc.update(&self.out[self.summed..]);
        }
        self.summed = self.out.len();
    }
}

/// Whether servers of the target know the type of a stored value. Old types are known to all later servers, so that a
/// value may stay as it is when it goes to a newer one.
fn is_known(record: &KeyRecord<'_>, target: Target) -> bool {
    let code = record.type_code;
    match target.flavor() {
        Flavor::Dragonfly => match code {
            type_code::STRING
            | type_code::SET
            | type_code::HASH
            | type_code::ZSET_2
            | type_code::SET_INTSET
            | type_code::HASH_LISTPACK
            | type_code::ZSET_LISTPACK
            | type_code::LIST_QUICKLIST_2
            | type_code::STREAM_3 => true,
            _ => record.flavor == Flavor::Dragonfly && code >= type_code::JSON,
        },
        Flavor::Valkey => match code {
            type_code::HASH_22 => record.flavor == Flavor::Valkey,
            _ => first_version(code).is_some_and(|version| version <= VERSION_OF_VALKEY_TYPES),
        },
        Flavor::Redis => first_version(code).is_some_and(|version| version <= target.version()),
    }
}

/// Valkey went its own way behind this version.
const VERSION_OF_VALKEY_TYPES: u16 = 11;

/// The version that brought a type that Redis and Valkey write alike; none for those of development snapshots and others.
fn first_version(code: u8) -> Option<u16> {
    Some(match code {
        type_code::STRING..=type_code::HASH | type_code::HASH_ZIPMAP..=type_code::HASH_ZIPLIST => 6,
        type_code::LIST_QUICKLIST => 7,
        type_code::ZSET_2 | type_code::MODULE_2 => 8,
        type_code::STREAM => 9,
        type_code::HASH_LISTPACK..=type_code::STREAM_2 => 10,
        type_code::SET_LISTPACK | type_code::STREAM_3 => 11,
        type_code::HASH_METADATA | type_code::HASH_LISTPACK_EX => 12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::reader::{Options, RdbReader, Record};

    fn records(file: &[u8]) -> Vec<String> {
        let mut reader = RdbReader::new(file, Options::default());
        let mut records = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            records.push(match record {
                Record::Key(key) => format!("{} {:?}", key.key.escape_ascii(), key.attributes),
                record => format!("{record:?}"),
            });
        }
        records
    }

    fn written(version: u16, entry: &Entry) -> String {
        let mut writer = RdbWriter::new(Target::of_version(version).unwrap());
        writer.aux(b"redis-ver", b"1");
        writer.database(entry.db, 1, 0);
        writer.slot(7, 1, 0);
        let losses = writer.entry(entry).unwrap();
        writer.finish();
        format!("{losses:?}\n{}", records(&writer.take()).join("\n"))
    }

    #[test]
    fn hints_are_written_for_those_who_know_them() {
        let mut entry = Entry::new(2, b"k", Value::String(b"v".to_vec()));
        entry.attributes.idle_s = Some(9);
        let new = written(12, &entry);
        for wanted in ["[]", "SlotInfo", "ResizeDb", "Aux", "idle_s: Some(9)"] {
            assert!(new.contains(wanted), "{wanted}: {new}");
        }
        let old = written(6, &entry);
        assert!(old.starts_with("[AccessHint]"), "{old}");
        for unknown in ["SlotInfo", "ResizeDb", "Aux {", "Some(9)"] {
            assert!(!old.contains(unknown), "{unknown}: {old}");
        }
    }

    #[test]
    fn a_refused_entry_leaves_nothing_and_an_accepted_one_what_is_left() {
        let hash = crate::value::HashValue::Fields(vec![crate::value::HashField {
            field: b"f".to_vec(),
            value: b"v".to_vec(),
            expire_at_ms: Some(5),
        }]);
        let entry = Entry::new(0, b"h", Value::Hash(hash));
        let target = Target::of_version(11).unwrap();
        let mut strict = RdbWriter::new(target);
        let before = strict.pending();
        assert!(strict.entry(&entry).is_err());
        assert_eq!(strict.pending(), before);
        let mut lax = RdbWriter::new(target).on_loss(OnLoss::Accept);
        assert_eq!(lax.entry(&entry).unwrap(), [Loss::FieldExpiry]);
        lax.finish();
        assert_eq!(records(&lax.take()).len(), 4, "header, database, key, end");
    }

    #[test]
    fn the_checksum_is_that_of_the_file_however_it_is_drained() {
        let entry = Entry::new(0, b"k", Value::String(vec![b'v'; 100]));
        let mut whole = RdbWriter::new(Target::default());
        let mut pieces = RdbWriter::new(Target::default());
        let mut file = pieces.take();
        for _ in 0..3 {
            whole.entry(&entry).unwrap();
            pieces.entry(&entry).unwrap();
            let drained: Result<(), ()> = pieces.drain(|piece| {
                file.extend_from_slice(piece);
                Ok(())
            });
            drained.unwrap();
        }
        // One more, whose value does not go through the buffer.
        whole.entry(&entry).unwrap();
        let mut reader = RdbReader::new(&file[..], Options::default());
        let mut last = None;
        while let Ok(Some(record)) = reader.next() {
            if let Record::Key(key) = record {
                last = Some((key.key.to_vec(), key.value.to_vec(), key.type_code));
            }
        }
        let (key, value, type_code) = last.unwrap();
        pieces.large(&KeyRecord {
            db: 0,
            key: &key,
            attributes: Attributes::default(),
            flavor: Flavor::Redis,
            type_code,
            offset: 0,
            value_offset: 0,
            value: &[],
        });
        file.extend(pieces.take());
        file.extend_from_slice(&value);
        pieces.passed_by(&value);
        whole.finish();
        pieces.finish();
        file.extend(pieces.take());
        assert_eq!(whole.take(), file);
        assert_eq!(records(&file).len(), 7);
    }
}
