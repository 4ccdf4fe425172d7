//! What a reader finds in an AOF: its units, its end, and why it cannot be read on.

use crate::error::Damage;
use crate::rdb::record::{RdbError, Record};
use std::io;
use std::ops::Range;

/// What a file holds, piece by piece.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit<'a> {
    /// A record of the RDB file that stands in front.
    Preamble(Record<'a>),
    Command(Command<'a>),
    /// When what follows was written.
    Timestamp {
        offset: u64,
        unix_s: i64,
    },
    /// Another annotation, without `#` and line end.
    Annotation {
        offset: u64,
        text: &'a [u8],
    },
    /// Bytes that a lenient reader could make nothing of; the next command starts at their end.
    Skipped {
        range: Range<u64>,
        why: Damage,
    },
    End(End),
}

/// A command as it was logged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Command<'a> {
    /// Of its `*`.
    pub offset: u64,
    /// Of the first byte behind it.
    pub end: u64,
    /// Offset of the MULTI that this command follows, before its EXEC. MULTI and EXEC have it as well.
    pub group: Option<u64>,
    pub words: Words<'a>,
}

/// The words of a command; at least one.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) ranges: &'a [Range<usize>],
}

/// How a file ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Behind a whole unit and outside of MULTI … EXEC.
    Whole { bytes: u64 },
    /// Inside of something; servers cut such a file to `good_bytes` if it is the last one.
    Cut {
        /// What can be kept: everything up to the last whole unit outside of an open MULTI.
        good_bytes: u64,
        /// From `good_bytes` to the end of the file.
        cut_bytes: u64,
        what: CutPart,
    },
}

/// What a file ends inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPart {
    Command,
    Annotation,
    /// The file ends between two units, or inside one, but after a MULTI without EXEC.
    Group,
}

impl std::fmt::Display for CutPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CutPart::Command => "a command",
            CutPart::Annotation => "an annotation",
            CutPart::Group => "a group of commands between MULTI and EXEC",
        })
    }
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum AofError {
    #[error("offset {offset}: reading failed: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("in the preamble: {0}")]
    Preamble(#[from] RdbError),
    #[error("{0}")]
    Format(Damage),
    #[error("offset {offset}: the reader failed here before")]
    Failed { offset: u64 },
}

impl<'a> Words<'a> {
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The command's name.
    pub fn first(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        Some(&self.bytes[self.ranges.get(index)?.clone()])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(move |range| &bytes[range.clone()])
    }
}

impl std::ops::Index<usize> for Words<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        &self.bytes[self.ranges[index].clone()]
    }
}

impl std::fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.iter().map(<[u8]>::escape_ascii);
        f.debug_list()
            .entries(words.map(|word| word.to_string()))
            .finish()
    }
}

impl PartialEq for Words<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
