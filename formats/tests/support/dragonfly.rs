//! Listings of what Dragonfly gave back after loading its own files, compared with what we read in them.

use super::Key;
use super::listing::{Line, listing};
use dfsnap_formats::value::{HashValue, Value};

/// What differs, a line each. Two things are not in these listings: when fields expire, and the times of consumers,
/// which Dragonfly makes up in part; the hash of a stream with consumers is therefore not compared.
pub fn differences(keys: &[Key], text: &str) -> Vec<String> {
    let keys: Vec<Key> = keys.iter().map(given_back).collect();
    let got = listing(&keys);
    let want: Vec<Line> = text.lines().map(Line::parse).collect();
    let mut findings = Vec::new();
    if got.len() != want.len() {
        findings.push(format!("{} keys, want {}", got.len(), want.len()));
    }
    for (got, mut want) in got.into_iter().zip(want) {
        let of_key = |key: &&Key| (key.db, &key.key) == (got.db, &got.key);
        if keys.iter().find(of_key).is_some_and(has_consumers) {
            want.sha256.clone_from(&got.sha256);
        }
        if got != want {
            findings.push(format!("got  {got:?}\n  want {want:?}"));
        }
    }
    findings
}

fn given_back(key: &Key) -> Key {
    let mut value = key.value.clone();
    if let Value::Hash(HashValue::Fields(fields)) = &mut value {
        fields
            .iter_mut()
            .for_each(|field| field.expire_at_ms = None);
    }
    Key {
        key: key.key.clone(),
        value,
        ..*key
    }
}

fn has_consumers(key: &Key) -> bool {
    match &key.value {
        Value::Stream(stream) => stream
            .groups
            .iter()
            .any(|group| !group.consumers.is_empty()),
        _ => false,
    }
}
