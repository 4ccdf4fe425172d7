//! Why a file of a DFS set cannot be read on.

use super::blob::{BlobError, Codec};
use super::chunk::ChunkError;
use crate::rdb::record::RdbError;

/// What is wrong, and where in the file it stands. Offsets inside a blob or inside pieces count from their start.
#[derive(Debug, thiserror::Error)]
pub enum DfsError {
    #[error("{0}")]
    File(RdbError),
    #[error("offset {offset}: {codec} blob: {error}")]
    Blob {
        offset: u64,
        codec: Codec,
        error: BlobError,
    },
    #[error("offset {offset}: inside the {codec} blob, expanded: {error}")]
    InBlob {
        offset: u64,
        codec: Codec,
        error: RdbError,
    },
    #[error("offset {offset}: {found} blob inside another blob")]
    Nested { offset: u64, found: Codec },
    #[error(
        "offset {offset}: {found} blob, but the first blob of the file is {first}: wanted one codec"
    )]
    CodecChanged {
        offset: u64,
        first: Codec,
        found: Codec,
    },
    #[error("offset {offset}: chunk of value {id}: {error}")]
    Chunk {
        offset: u64,
        id: u32,
        error: ChunkError,
    },
    #[error(
        "offset {offset}: opcode {code} ({name}): this is a replication capture of Dragonfly, not a file of a snapshot"
    )]
    Replication {
        offset: u64,
        code: u8,
        name: &'static str,
    },
    #[error("offset {offset}: the reader failed here before")]
    Failed { offset: u64 },
}
