//! The digest of one key, with no more of its value in memory than a part where it is large: for `digest`, and for `restore --verify`.
//!
//! Values up to some size are decoded, because what a server does with small ones when it loads them shows in the digest
//! (`formats::digest`); larger ones go by part by part.

use crate::report::Failure;
use crate::source::Key;
use dfsnap_formats::digest::{Digest, ScoreForm, ValueDigest, key_digest};
use dfsnap_formats::error::Damage;
use dfsnap_formats::parts::{Head, Part};
use dfsnap_formats::rdb::dump::Payload;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::record::{Attributes, KeyRecord};
use dfsnap_formats::value::Kind;
use std::path::Path;

/// No server packs a sorted set of so many stored bytes, which would cost zero its sign.
const DECODED_BYTES_MAX: usize = 64 << 10;

/// None: an empty collection.
pub fn of_key(key: Key<'_>, form: ScoreForm) -> Result<Option<Digest>, Failure> {
    let head = key.head;
    let expires = head.attributes.expire_at_ms.is_some();
    if !is_walked(&key) {
        let entry = key.entry()?;
        return Ok(entry.map(|entry| key_digest(&entry.key, &entry.value, expires, form)));
    }
    let mut digest = ValueDigest::of_key(head.key, head.kind);
    key.parts(|part| {
        add(&mut digest, &part, form);
        Ok(())
    })?;
    Ok(Some(finish(digest, expires)))
}

/// Whether the value goes by in parts. A string is hashed as a whole, as what modules store.
pub fn is_walked(key: &Key<'_>) -> bool {
    let is_whole = matches!(key.head.kind, Kind::String | Kind::Module);
    let is_large = match key.record() {
        Some(record) => record.value.len() > DECODED_BYTES_MAX,
        None => key.large_record().is_some(),
    };
    is_large && !is_whole
}

/// The digest of `key` with the value in a payload of DUMP. None: the payload cannot be read.
pub fn of_payload(
    key: &[u8],
    payload: &[u8],
    expires: bool,
    form: ScoreForm,
    walk: &mut PartWalk,
) -> Option<Digest> {
    let parsed = Payload::parse(payload, u16::MAX).ok()?;
    let record = KeyRecord {
        db: 0,
        key,
        attributes: Attributes::default(),
        flavor: parsed.flavor(),
        type_code: parsed.type_code,
        offset: 0,
        value_offset: 1,
        value: parsed.value,
    };
    if !is_walked(&Key::stored(Path::new(""), &record, walk)) {
        let value = parsed.decode(&Default::default()).ok()?;
        return Some(key_digest(key, &value, expires, form));
    }
    let mut digest = ValueDigest::of_key(key, Head::of_key(&record).kind);
    let walked = walk.value(record.flavor, record.type_code, record.value, |part| {
        add(&mut digest, &part, form);
        Ok::<(), Damage>(())
    });
    walked.ok()?;
    Some(finish(digest, expires))
}

fn add(digest: &mut ValueDigest, part: &Part<'_>, form: ScoreForm) {
    match part {
        Part::ListElement(element) => digest.list_element(*element),
        Part::SetMember { member, .. } => digest.set_member(*member),
        Part::HashField(field) => {
            digest.hash_field(field.field, field.value, field.expire_at_ms.is_some());
        }
        Part::ZSetMember { member, score } => digest.zset_member(*member, *score, form),
        Part::StreamEntry(entry) => digest.stream_entry(entry),
        Part::Bytes(_) | Part::StreamEnd(_) | Part::Whole(_) => {}
    }
}

fn finish(mut digest: ValueDigest, expires: bool) -> Digest {
    if expires {
        digest.expires();
    }
    digest.finish()
}
