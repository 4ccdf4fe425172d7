//! Why text cannot be read on, or one item of it not.

use crate::error::{Damage, Shown};
use std::io;

/// Lines count from 1. Offsets count bytes from the start of the text.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("line {line}, offset {offset}: reading failed: {source}")]
    Io {
        line: u64,
        offset: u64,
        source: io::Error,
    },
    /// Where items begin and end is not known any more.
    #[error("line {line}, {damage}")]
    Text { line: u64, damage: Damage },
    /// One item is not what it should be; those behind it can be read.
    #[error("line {line}, offset {}:{} {}: {}", damage.offset, of_key(key), damage.reading, damage.problem)]
    Item {
        line: u64,
        /// As far as it was read.
        key: Option<Vec<u8>>,
        damage: Damage,
    },
    #[error("offset {offset}: the reader failed here before")]
    Failed { offset: u64 },
}

fn of_key(key: &Option<Vec<u8>>) -> String {
    key.as_ref()
        .map_or(String::new(), |key| format!(" key {}:", Shown(key)))
}
