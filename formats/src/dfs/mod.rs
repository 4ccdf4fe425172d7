//! DFS: the snapshots of Dragonfly, a file for each shard and one that sums them up.
//!
//! ```text
//! set    = <base>-0000.dfs … <base>-NNNN.dfs, <base>-summary.dfs, and our <base>-manifest.json
//! file   = "REDIS" 4 digits | aux* | (record | blob | chunk)* | EOF | 8 bytes of zero | padding of any bytes
//! record = those of RDB, with Dragonfly's types and key mask
//! blob   = 201 (zstd) or 202 (LZ4) | one frame with its content size, as a string; it holds records and chunks
//! chunk  = 224 | id u32 LE | length u32 LE | a part of a key with a large value
//! ```
//! - `names`: which file belongs to which set, and what it is in there.
//! - `reader`: records of one file, whatever they were wrapped in. `blob`, `chunk` are its parts.
//! - `writer`: shard files and the summary, as Dragonfly loads them.
//! - `manifest`: what we write beside a set, last: sizes, counts and checksums.
//! - `index`, `placement`: which run, which file has a key, for whoever wants one of them.
//! - `set`: from files that are there to a set that is complete, or to what is wrong with it.

pub mod blob;
mod chunk;
mod error;
pub mod index;
pub mod manifest;
pub mod names;
pub mod placement;
pub mod reader;
pub mod set;
pub mod writer;

pub use chunk::ChunkError;
pub use error::DfsError;

/// Aux fields by which the files of a set know each other, and those that a restore needs.
pub mod aux {
    /// 32 hexadecimal digits, equal in all files of a set; the first field. From 1.32 on.
    pub const SNAPSHOT_ID: &[u8] = b"snapshot-id";
    pub const SERVER_VERSION: &[u8] = b"redis-ver";
    /// The Dragonfly that wrote the file.
    pub const WRITER_VERSION: &[u8] = b"df-ver";
    pub const BITS: &[u8] = b"redis-bits";
    /// Unix seconds.
    pub const CREATED: &[u8] = b"ctime";
    /// Bytes. Dragonfly refuses a set whose number is above its own limit.
    pub const USED_MEMORY: &[u8] = b"used-mem";
    pub const AOF_PREAMBLE: &[u8] = b"aof-preamble";
    pub const SHARD_ID: &[u8] = b"shard-id";
    /// In the summary alone.
    pub const SHARD_COUNT: &[u8] = b"shard-count";
    pub const TABLE_MEMORY: &[u8] = b"table-mem";
    /// The text of a script.
    pub const LUA: &[u8] = b"lua";
    /// The arguments of FT.CREATE, by which an index is built again.
    pub const SEARCH_INDEX: &[u8] = b"search-index";
    /// The arguments of FT.SYNUPDATE.
    pub const SEARCH_SYNONYMS: &[u8] = b"search-synonyms";
}
