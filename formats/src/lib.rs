//! Formats of the Redis family: bytes in, values out, and back.
//!
//! Nothing here touches a file, a socket, a clock or a thread. Every parser is total: bytes from outside
//! can only produce an error that tells the offset, what was being read, what was wanted and what was found.
#![forbid(unsafe_code)]

pub mod aof;
pub mod assemble;
pub mod checksum;
pub mod commands;
pub mod csv;
pub mod dataset;
pub mod dfs;
pub mod digest;
pub mod double;
pub mod encoding;
pub mod error;
pub mod geohash;
pub mod glob;
pub mod hyperloglog;
pub mod input;
pub mod json;
pub mod long_double;
pub mod lzf;
pub mod parts;
pub mod rdb;
pub mod resp;
pub mod serde_form;
pub mod slot;
pub mod value;
