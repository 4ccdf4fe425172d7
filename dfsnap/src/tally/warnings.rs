//! What whoever loads a dump should know.

use super::summary::{Summary, Warning};
use crate::report;
use dfsnap_formats::rdb::type_code::*;

/// A value that takes more blocks a server for long when it is deleted, moved or copied.
const HUGE_MEMORY: u64 = 64 << 20;
/// A collection with more elements makes commands over all of it slow.
const MANY_ELEMENTS: u64 = 1_000_000;
/// One key that takes such a part of a dump that is worth looking at.
const DOMINANT_PERCENT: u64 = 25;
const DOMINANT_MEMORY_MIN: u64 = 16 << 20;

/// First version under the magic REDIS whose writer knew a type. None: of any, or not of this family.
fn first_version(code: u8) -> Option<u16> {
    Some(match code {
        HASH_ZIPMAP | LIST_ZIPLIST | SET_INTSET | ZSET_ZIPLIST => 2,
        HASH_ZIPLIST => 4,
        LIST_QUICKLIST => 7,
        ZSET_2 | MODULE_2 => 8,
        STREAM => 9,
        HASH_LISTPACK | ZSET_LISTPACK | LIST_QUICKLIST_2 | STREAM_2 => 10,
        SET_LISTPACK | STREAM_3 => 11,
        HASH_METADATA | HASH_LISTPACK_EX => 12,
        STREAM_4 => 13,
        _ => return None,
    })
}

pub fn warnings(summary: &Summary) -> Vec<Warning> {
    let mut all = Vec::new();
    let mut add = |kind, message| all.push(Warning { kind, message });
    if summary.expiry.expired > 0 {
        let expired = summary.expiry.expired;
        add(
            "expired",
            format!("{expired} keys have expired: a primary drops them on loading"),
        );
    }
    for big in &summary.biggest {
        let name = &big.key;
        let elements = big.elements.filter(|_| big.kind != "string");
        if big.memory > HUGE_MEMORY {
            let memory = report::bytes(big.memory);
            add("huge", format!("{name} ({}) takes {memory}", big.kind));
        } else if let Some(count) = elements.filter(|count| *count > MANY_ELEMENTS) {
            add(
                "huge",
                format!("{name} ({}) has {count} elements", big.kind),
            );
        }
        let percent = big.memory.saturating_mul(100) / summary.memory.total.max(1);
        if percent >= DOMINANT_PERCENT && big.memory > DOMINANT_MEMORY_MIN {
            add(
                "dominant",
                format!("{name} takes {percent} % of all memory"),
            );
        }
    }
    if let (Some("REDIS"), Some(version)) = (summary.magic, summary.version) {
        for sum in &summary.types {
            if let Some(first) = first_version(sum.code).filter(|first| *first > version) {
                let (kind, encoding) = (&sum.kind, &sum.encoding);
                add(
                    "version",
                    format!(
                        "the file says version {version}, but {kind}, {encoding} is of version {first}"
                    ),
                );
            }
        }
    }
    if summary.checksum == Some("none") {
        add(
            "checksum",
            "no checksum is stored: damage can go unseen".to_owned(),
        );
    }
    if summary.bytes_after > 0 {
        let count = summary.bytes_after;
        add(
            "behind",
            format!("{count} bytes behind the end are no part of the dump"),
        );
    }
    all
}
