//! DEBUG DIGEST over the server's own structures.

use dfsnap_formats::digest::{DatasetDigest, Digest, ScoreForm, ValueDigest};
use dfsnap_formats::encoding::stream::StreamId as StoredId;
use dfsnap_formats::value::Kind;

use crate::keyspace::entry::Entry;
use crate::keyspace::value::{Type, Value};
use crate::keyspace::{DbIndex, Keyspace};

/// The digest of everything, expired entries and fields left out, as 40 hex digits.
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
                let begin = |kind| ValueDigest::of_key(entry.key(), kind);
                if let Some(digest) = of(entry, form, now_ms, begin) {
                    dataset.add(db.0, digest);
                }
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
    let digest = of(entry, ScoreForm::Short, i64::MIN, ValueDigest::new);
    digest.expect("nothing had expired then").to_string()
}

/// `None`: a hash of which every field has expired.
fn of(
    entry: &Entry,
    form: ScoreForm,
    now_ms: i64,
    begin: impl Fn(Kind) -> ValueDigest,
) -> Option<Digest> {
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
            let mut left = 0;
            for (field, value, at_ms) in hash.iter_timed() {
                if at_ms.is_none_or(|at_ms| at_ms >= now_ms) {
                    digest.hash_field(field, value, at_ms.is_some());
                    left += 1;
                }
            }
            if left == 0 {
                return None;
            }
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
    Some(digest.finish())
}
