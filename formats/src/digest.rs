//! DEBUG DIGEST: one 160-bit value for a whole dataset, the same on every server that holds the same data.
//!
//! The server computes it over its own structures, tools over decoded values; both feed the parts of a value to the
//! builders here. It does not see exact expiry times, stream groups, LRU and LFU, functions, or encodings.
//!
//! ```text
//! xor(d, x): d ^= SHA1(x)             mix(d, x): d ^= SHA1(x), then d = SHA1(d)
//! dataset = for each database in ascending order that has keys: mix(db number, 4 bytes BE),
//!           then for each of its keys, in any order: xor(digest of the key)
//! ```

use crate::double::DoubleText;
use crate::encoding::listpack::Element;
use crate::encoding::stream::{Entry, StreamId};
use crate::value::{HashValue, Kind, ModuleValue, StreamValue, Value, ZSetValue, list_elements};
use sha1::{Digest as _, Sha1};

const BYTES: usize = 20;

/// How scores are printed before they are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScoreForm {
    /// Redis 7.2 and later, Valkey.
    #[default]
    Short,
    /// Up to Redis 7.0: `%.17g`.
    Legacy,
}

impl ScoreForm {
    fn text(self, score: f64) -> DoubleText {
        match self {
            ScoreForm::Short => DoubleText::short(score),
            ScoreForm::Legacy => DoubleText::full(score),
        }
    }
}

/// 160 bits. Shown as 40 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(pub [u8; BYTES]);

impl Digest {
    pub const ZERO: Digest = Digest([0; BYTES]);

    /// d ^= SHA1(bytes): the order of calls does not matter.
    pub fn xor(&mut self, bytes: &[u8]) {
        let hash: [u8; BYTES] = Sha1::digest(bytes).into();
        for (byte, other) in self.0.iter_mut().zip(hash) {
            *byte ^= other;
        }
    }

    /// d = SHA1(d ^ SHA1(bytes)): the order of calls matters.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_element(&mut self, element: Element<'_>) {
        self.mix(element.text(&mut itoa::Buffer::new()));
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The digest of one value, built from its parts. Ordered types take them in order, others in any.
///
/// ```
/// use dfsnap_formats::{digest::ValueDigest, value::Kind};
/// use dfsnap_formats::encoding::listpack::Element;
/// let mut set = ValueDigest::new(Kind::Set);
/// set.set_member(Element::Str(b"one"));
/// set.set_member(Element::Int(2));
/// let mut turned = ValueDigest::new(Kind::Set);
/// turned.set_member(Element::Str(b"2"));
/// turned.set_member(Element::Str(b"one"));
/// assert_eq!(set.finish(), turned.finish());
/// ```
#[derive(Debug, Clone)]
pub struct ValueDigest {
    digest: Digest,
}

impl ValueDigest {
    /// For DEBUG DIGEST-VALUE, which leaves the key out.
    pub fn new(kind: Kind) -> Self {
        ValueDigest::over(Digest::ZERO, kind)
    }

    /// For a dataset: the key comes first.
    pub fn of_key(key: &[u8], kind: Kind) -> Self {
        let mut digest = Digest::ZERO;
        digest.mix(key);
        ValueDigest::over(digest, kind)
    }

    fn over(mut digest: Digest, kind: Kind) -> Self {
        digest.mix(&(kind as u32).to_be_bytes());
        ValueDigest { digest }
    }

    /// The bytes of a string; integers as their decimal text.
    pub fn string(&mut self, bytes: &[u8]) {
        self.digest.mix(bytes);
    }

    /// The next element of a list, from the head on.
    pub fn list_element(&mut self, element: Element<'_>) {
        self.digest.mix_element(element);
    }

    pub fn set_member(&mut self, member: Element<'_>) {
        self.digest.xor(member.text(&mut itoa::Buffer::new()));
    }

    pub fn zset_member(&mut self, member: Element<'_>, score: f64, form: ScoreForm) {
        let mut part = Digest::ZERO;
        part.mix_element(member);
        part.mix(form.text(score).as_bytes());
        self.digest.xor(&part.0);
    }

    pub fn hash_field(&mut self, field: Element<'_>, value: Element<'_>, expires: bool) {
        let mut part = Digest::ZERO;
        part.mix_element(field);
        part.mix_element(value);
        if expires {
            part.xor(b"!!hexpire!!");
        }
        self.digest.xor(&part.0);
    }

    /// The next entry of a stream: its id, then its fields by `stream_pair`.
    pub fn stream_id(&mut self, id: StreamId) {
        self.digest.mix(format!("{}.{}", id.ms, id.seq).as_bytes());
    }

    pub fn stream_pair(&mut self, field: Element<'_>, value: Element<'_>) {
        self.digest.mix_element(field);
        self.digest.mix_element(value);
    }

    pub fn stream_entry(&mut self, entry: &Entry<'_>) {
        self.stream_id(entry.id);
        for (field, value) in entry.pairs() {
            self.stream_pair(field, value);
        }
    }

    /// A module's value. Servers hash what the module chooses to; without the module that is its stored bytes.
    pub fn module(&mut self, value: &ModuleValue) {
        self.digest.mix(&value.raw);
    }

    /// The key has an expiry, whatever its time.
    pub fn expires(&mut self) {
        self.digest.xor(b"!!expire!!");
    }

    pub fn finish(self) -> Digest {
        self.digest
    }

    /// All parts of `value`, which must be of the kind that this digest was begun for.
    pub fn add(&mut self, value: &Value, form: ScoreForm) {
        match value {
            Value::String(bytes) => self.string(bytes),
            Value::List(nodes) => list_elements(nodes).for_each(|e| self.list_element(e)),
            Value::Set(set) => set.members().for_each(|member| self.set_member(member)),
            Value::ZSet(zset) => self.add_zset(zset, form),
            Value::Hash(hash) => self.add_hash(hash),
            Value::Stream(stream) => self.add_stream(stream),
            Value::Module(module) => self.module(module),
            Value::Json(text) => self.string(text),
            Value::Sketch(sketch) => self.string(&sketch.raw),
        }
    }

    fn add_zset(&mut self, zset: &ZSetValue, form: ScoreForm) {
        let packed = servers_pack(zset);
        for (member, score) in zset.members() {
            let score = if packed && score == 0.0 { 0.0 } else { score };
            self.zset_member(member, score, form);
        }
    }

    fn add_hash(&mut self, hash: &HashValue) {
        for field in hash.fields() {
            self.hash_field(field.field, field.value, field.expire_at_ms.is_some());
        }
    }

    fn add_stream(&mut self, stream: &StreamValue) {
        stream.entries().for_each(|entry| self.stream_entry(&entry));
    }
}

/// Whether a server with default settings packs `zset` when it loads it, and thereby turns -0 into 0.
fn servers_pack(zset: &ZSetValue) -> bool {
    const ENTRIES_MAX: usize = 128;
    const MEMBER_BYTES_MAX: usize = 64;
    match zset {
        ZSetValue::Listpack(_) => false,
        ZSetValue::Members(members) => {
            let small = |(member, _): &(Vec<u8>, f64)| member.len() <= MEMBER_BYTES_MAX;
            members.len() <= ENTRIES_MAX && members.iter().all(small)
        }
    }
}

/// The digest of a key as it goes into that of a dataset.
pub fn key_digest(key: &[u8], value: &Value, expires: bool, form: ScoreForm) -> Digest {
    let mut digest = ValueDigest::of_key(key, value.kind());
    digest.add(value, form);
    if expires {
        digest.expires();
    }
    digest.finish()
}

/// The digest of a dataset. Keys may come in any order, also with their databases mixed.
///
/// ```
/// use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
/// use dfsnap_formats::value::Value;
/// let value = Value::String(b"v".to_vec());
/// let mut dataset = DatasetDigest::default();
/// assert_eq!(dataset.finish().to_string(), "0".repeat(40));
/// dataset.add(0, key_digest(b"k", &value, false, ScoreForm::Short));
/// assert_eq!(dataset.finish().to_string(), "264ccf65edec66bccfa7cc659414ccca432057d2");
/// ```
#[derive(Debug, Clone, Default)]
pub struct DatasetDigest {
    /// For each database with keys: all of them, each hashed, xored.
    databases: std::collections::BTreeMap<u32, Digest>,
}

impl DatasetDigest {
    pub fn add(&mut self, db: u32, key: Digest) {
        self.databases.entry(db).or_default().xor(&key.0);
    }

    /// Adds what another part of the same dataset, a shard say, came to.
    pub fn merge(&mut self, other: &DatasetDigest) {
        for (db, part) in &other.databases {
            let sum = self.databases.entry(*db).or_default();
            for (byte, other) in sum.0.iter_mut().zip(part.0) {
                *byte ^= other;
            }
        }
    }

    pub fn finish(&self) -> Digest {
        let mut dataset = Digest::ZERO;
        for (db, keys) in &self.databases {
            dataset.mix(&db.to_be_bytes());
            for (byte, other) in dataset.0.iter_mut().zip(keys.0) {
                *byte ^= other;
            }
        }
        dataset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_merge_to_the_dataset_and_order_does_not_matter() {
        let keys: Vec<(u32, Digest)> = (0..40u32)
            .map(|i| {
                let value = Value::String(i.to_string().into_bytes());
                let key = format!("key:{i}");
                (
                    i % 3,
                    key_digest(key.as_bytes(), &value, i % 2 == 0, ScoreForm::Short),
                )
            })
            .collect();
        let mut whole = DatasetDigest::default();
        keys.iter().for_each(|(db, key)| whole.add(*db, *key));
        let mut shards = vec![DatasetDigest::default(); 4];
        for (i, (db, key)) in keys.iter().rev().enumerate() {
            shards[i % 4].add(*db, *key);
        }
        let mut merged = DatasetDigest::default();
        shards.iter().for_each(|shard| merged.merge(shard));
        assert_eq!(merged.finish(), whole.finish());
        assert_ne!(whole.finish(), Digest::ZERO);
    }

    #[test]
    fn expiry_shows_and_its_time_does_not() {
        let value = Value::String(b"v".to_vec());
        let lasting = key_digest(b"k", &value, false, ScoreForm::Short);
        let expiring = key_digest(b"k", &value, true, ScoreForm::Short);
        assert_ne!(lasting, expiring);
    }
}
