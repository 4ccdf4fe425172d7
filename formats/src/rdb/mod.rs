//! RDB: the dump format of Redis and Valkey, versions 1 to 12 and Valkey 80.
//!
//! ```text
//! file   = magic record* EOF [crc]        crc from version 5 on
//! magic  = "REDIS" 4 digits | "VALKEY" 3 digits
//! record = opcode body | attribute* type key value
//! ```
//! - `writer`: appends the parts of a file to a buffer; the server serializes its entries with it.
//! - `reader`: pulls records out of a stream of bytes; values stay as they are stored. `push`: the same for bytes that
//!   are fed. `large`: values that are not to be in memory as a whole.
//! - `stored`: the pieces of a stored value, packs closed. `parts`: with packs opened.
//! - `decode`, `encode`: between a stored value and `value::Value`.
//! - `lenient`: reads on after damage, and says what was skipped.
//! - `file`: writes a whole file for a `target`, and tells each `loss`.
//! - `dump`: the payloads of DUMP and RESTORE.

pub mod count;
pub mod decode;
pub(crate) mod decode_dragonfly;
mod decode_sketch;
mod decode_stream;
pub mod dump;
pub mod encode;
pub mod file;
pub(crate) mod inside;
pub mod large;
pub mod length;
pub mod lenient;
pub mod loss;
pub mod parts;
pub mod push;
pub mod reader;
pub mod record;
pub mod shape;
pub mod stored;
pub mod target;
pub mod writer;

/// Written where nothing says otherwise: Redis 7.0 and everything later reads it.
pub const VERSION_DEFAULT: u16 = 10;

/// The one version under the magic `VALKEY`, which is also that of Valkey 9's DUMP payloads.
pub const VERSION_VALKEY: u16 = 80;

/// First version with a checksum at the end.
pub const VERSION_CRC: u16 = 5;

/// Bytes that start a record that is not a key.
pub mod opcode {
    /// Dragonfly, replication only: the end of a full sync, a piece of the journal, a place in it.
    pub const FULL_SYNC_END: u8 = 200;
    pub const JOURNAL_BLOB: u8 = 210;
    pub const JOURNAL_OFFSET: u8 = 211;
    /// Dragonfly: a run of records compressed with zstd, or with LZ4; in its snapshots only.
    pub const ZSTD_BLOB: u8 = 201;
    pub const LZ4_BLOB: u8 = 202;
    /// Dragonfly: bits that say more about the next key.
    pub const KEY_MASK: u8 = 220;
    /// Dragonfly: search index data, which can be built again.
    pub const VECTOR_INDEX: u8 = 222;
    pub const SHARD_DOC_INDEX: u8 = 223;
    /// Dragonfly: a piece of a large value.
    pub const TAGGED_CHUNK: u8 = 224;
    /// Cluster mode, Valkey 80: slots on their way in.
    pub const SLOT_IMPORT: u8 = 243;
    /// Redis, version 13: what modules attached to the next key.
    pub const KEY_META: u8 = 243;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    /// Function library as the release candidates of 7.0 wrote it.
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE_DB: u8 = 251;
    pub const EXPIRE_MS: u8 = 252;
    pub const EXPIRE_S: u8 = 253;
    pub const SELECT_DB: u8 = 254;
    pub const EOF: u8 = 255;
    /// Redis Enterprise: a length of no meaning to others.
    pub const ENTERPRISE_RAM_LRU: u8 = 107;
    /// Redis Enterprise: a slot number.
    pub const ENTERPRISE_SLOT: u8 = 121;
}

/// Bytes that say how a value is stored.
pub mod type_code {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    /// Scores as text.
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    /// Scores as f64.
    pub const ZSET_2: u8 = 5;
    /// Module value of a release candidate of 4.0: its length is unknown.
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    /// Nodes are ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    /// Nodes are listpacks or single elements.
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_3: u8 = 21;
    /// Under the REDIS magic: hash with field expiry of a 7.4 release candidate. Under VALKEY: that of Valkey 9.
    pub const HASH_22: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub const HASH_METADATA: u8 = 24;
    pub const HASH_LISTPACK_EX: u8 = 25;
    /// Version 13: with ids that producers chose.
    pub const STREAM_4: u8 = 26;
    // Dragonfly's own. Redis' newest development versions use 29 to 33 for other things.
    pub const JSON: u8 = 30;
    /// Expiries in seconds since 2023-02-01.
    pub const HASH_EXPIRING: u8 = 31;
    pub const SET_EXPIRING: u8 = 32;
    pub const BLOOM: u8 = 33;
    /// Filters in chunks.
    pub const BLOOM_2: u8 = 34;
    pub const COUNT_MIN_SKETCH: u8 = 35;
    pub const TOP_K: u8 = 36;
    pub const CUCKOO: u8 = 37;

    /// The name used in messages and reports.
    pub fn name(code: u8) -> &'static str {
        match code {
            STRING => "string",
            LIST => "list",
            SET => "set",
            ZSET => "zset",
            HASH => "hash",
            ZSET_2 => "zset2",
            MODULE_PRE_GA => "module, pre-ga",
            MODULE_2 => "module",
            HASH_ZIPMAP => "hash, zipmap",
            LIST_ZIPLIST => "list, ziplist",
            SET_INTSET => "set, intset",
            ZSET_ZIPLIST => "zset, ziplist",
            HASH_ZIPLIST => "hash, ziplist",
            LIST_QUICKLIST => "list, quicklist",
            STREAM => "stream",
            HASH_LISTPACK => "hash, listpack",
            ZSET_LISTPACK => "zset, listpack",
            LIST_QUICKLIST_2 => "list, quicklist2",
            STREAM_2 => "stream2",
            SET_LISTPACK => "set, listpack",
            STREAM_3 => "stream3",
            HASH_22 => "hash, type 22",
            HASH_LISTPACK_EX_PRE_GA => "hash, listpack with expiry, pre-ga",
            HASH_METADATA => "hash with expiry",
            HASH_LISTPACK_EX => "hash, listpack with expiry",
            STREAM_4 => "stream4",
            JSON => "json",
            HASH_EXPIRING => "hash with expiry, dragonfly",
            SET_EXPIRING => "set with expiry, dragonfly",
            BLOOM => "bloom filter",
            BLOOM_2 => "bloom filter, chunked",
            COUNT_MIN_SKETCH => "count-min sketch",
            TOP_K => "top-k",
            CUCKOO => "cuckoo filter",
            _ => "unknown type",
        }
    }
}

/// Who defined the numbers in a file. Redis and Valkey agree on all but type 22 and opcode 243; Dragonfly adds types
/// 30 to 37 and opcodes 200 to 224 of its own, and had another type 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Magic `REDIS`: Redis, Valkey up to 8.x, KeyDB.
    Redis,
    /// Magic `VALKEY`: Valkey 9.
    Valkey,
    /// Magic `REDIS` and an aux field `df-ver`, or a file of a DFS set.
    Dragonfly,
}
