//! DEBUG DIGEST over the server's own structures.

use dfsnap_formats::digest::{DatasetDigest, Digest, ScoreForm, ValueDigest};
use dfsnap_formats::encoding::stream::StreamId as StoredId;
use dfsnap_formats::value::Kind;

use crate::keyspace::entry::Entry;
use crate::keyspace::value::{Type, Value};
use crate::keyspace::{DbIndex, Keyspace};

/// The digest of everything, expired entries left out, as 40 hex digits.
pub fn of_keyspaces(keyspaces: &[Box<Keyspace>], now_ms: i64, is_legacy: bool) -> String {
    let form = if is_legacy {
        ScoreForm::Legacy
    } else {
        ScoreForm::Short
    };
    let mut dataset = DatasetDigest::default();
    for keyspace in keyspaces {
        for db in (0..keyspace.database_count()).map(DbIndex) {
            for entry in keyspace
                .database(db)
                .entries()
                .iter()
                .filter(|entry| !entry.is_expired(now_ms))
            {
                dataset.add(db.0, of_entry(entry, form));
            }
        }
    }
    format!("{:?}", Hex(dataset.finish()))
}

struct Hex(Digest);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of one value, its key left out, as 40 hex digits.
pub fn of_value(entry: &Entry) -> String {
    of(entry, ScoreForm::Short, ValueDigest::new).to_string()
}

fn of_entry(entry: &Entry, form: ScoreForm) -> Digest {
    of(entry, form, |kind| ValueDigest::of_key(entry.key(), kind))
}

fn of(entry: &Entry, form: ScoreForm, begin: impl Fn(Kind) -> ValueDigest) -> Digest {
    let kind = match entry.value().kind() {
        Type::String => Kind::String,
        Type::List => Kind::List,
        Type::Set => Kind::Set,
        Type::ZSet => Kind::ZSet,
        Type::Hash => Kind::Hash,
        Type::Stream => Kind::Stream,
    };
    let mut digest = begin(kind);
    match entry.value() {
        Value::Int(_) | Value::Str(_) | Value::Raw(_) => {
            digest.string(&entry.value().as_string().expect("these are strings"));
        }
        Value::List(list) => list.iter().for_each(|element| digest.list_element(element)),
        Value::Set(set) => set.iter().for_each(|member| digest.set_member(member)),
        Value::ZSet(zset) => zset
            .iter()
            .for_each(|(member, score)| digest.zset_member(member, score, form)),
        Value::Hash(hash) => {
            hash.iter_timed()
                .for_each(|(field, value, at)| digest.hash_field(field, value, at.is_some()));
        }
        Value::Stream(stream) => {
            for node in stream.nodes() {
                for entry in node.range(
                    crate::keyspace::value::stream::StreamId::MIN,
                    crate::keyspace::value::stream::StreamId::MAX,
                ) {
                    digest.stream_id(StoredId {
                        ms: entry.id.ms,
                        seq: entry.id.seq,
                    });
                    entry
                        .fields()
                        .for_each(|(field, value)| digest.stream_pair(field, value));
                }
            }
        }
    }
    if entry.expire_at_ms().is_some() {
        digest.expires();
    }
    digest.finish()
}
