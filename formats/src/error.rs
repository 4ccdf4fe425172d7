//! What is wrong with bytes from outside: where, what was being read, and both numbers.
//!
//! Parsers of values return `Damage`; readers of files put the file's offset, the key and the type around it.

use crate::encoding::BlobError;
use crate::lzf::LzfError;

/// Bytes are not what the format demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {reading}: {problem}")]
pub struct Damage {
    /// Distance in bytes from the start of what was parsed: a value, a payload, a file.
    pub offset: u64,
    /// What was being read, as in "stream, consumer name".
    pub reading: &'static str,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("wanted {wanted} bytes, {left} left")]
    Truncated { wanted: u64, left: u64 },
    #[error("wanted {wanted}, found {found}")]
    Differs { wanted: u64, found: u64 },
    #[error("wanted {wanted}, found {found:#04x}")]
    Byte { wanted: &'static str, found: u8 },
    #[error("wanted {wanted}, found {found}")]
    Number { wanted: &'static str, found: u64 },
    #[error("wanted {wanted}, found {}", Shown(found))]
    Text {
        wanted: &'static str,
        found: Vec<u8>,
    },
    #[error("{} is there twice", Shown(.0))]
    Duplicate(Vec<u8>),
    /// Found by hash in a collection that was not kept.
    #[error("one of {count} is there twice")]
    DuplicateAmong { count: u64 },
    #[error("{0}")]
    Lzf(LzfError),
    #[error("in the blob: {0}")]
    Blob(BlobError),
}

impl Damage {
    pub(crate) fn new(offset: u64, reading: &'static str, problem: Problem) -> Self {
        Damage {
            offset,
            reading,
            problem,
        }
    }

    /// The same damage, seen from `base` bytes earlier.
    pub fn moved(mut self, base: u64) -> Self {
        self.offset += base;
        self
    }
}

/// Bytes for people: in quotes, with escapes, at most 64 of them.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

const SHOWN_MAX: usize = 64;

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = &self.0[..self.0.len().min(SHOWN_MAX)];
        write!(f, "\"{}\"", part.escape_ascii())?;
        if part.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_names_place_reading_and_numbers() {
        let truncated = Problem::Truncated {
            wanted: 96,
            left: 41,
        };
        let damage = Damage::new(7, "hash field", truncated).moved(4120);
        assert_eq!(
            damage.to_string(),
            "offset 4127: hash field: wanted 96 bytes, 41 left"
        );
        let twice = Damage::new(0, "set", Problem::Duplicate(b"a\"\n".to_vec()));
        assert_eq!(
            twice.to_string(),
            r#"offset 0: set: "a\"\n" is there twice"#
        );
        assert_eq!(
            Shown(&[b'x'; 70]).to_string(),
            format!("\"{}\"… (70 bytes)", "x".repeat(64))
        );
    }
}
