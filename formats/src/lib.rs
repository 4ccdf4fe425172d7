//! Formats of the Redis family: bytes in, values out, and back.
//!
//! Nothing here touches a file, a socket, a clock or a thread. Every parser is total: bytes from outside
//! can only produce an error that tells the offset, what was being read, what was wanted and what was found.
//!
//! | to | use |
//! | --- | --- |
//! | read an RDB file | [`rdb::reader`], fed: [`rdb::push`], behind damage: [`rdb::lenient`] |
//! | read a DFS set, an AOF, JSON | [`dfs`], [`aof`], [`json`] |
//! | look into a value | [`value`], or part by part: [`parts`], [`rdb::parts`] |
//! | write for a version or a product | [`rdb::file`] with a [`rdb::target`]; [`rdb::loss`] says what that loses |
//! | write anything else | [`dfs::writer`], [`aof::writer`], [`json`], [`csv`], [`commands`], any serde format: [`serde_form`] |
//! | make a value of elements | [`assemble`] |
//! | take a part of a stream of commands | [`command_keys`] |
//! | compare datasets | [`digest`] |
//!
//! From a dump of any Redis to lines of JSON:
//!
//! ```
//! use dfsnap_formats::dataset::Item;
//! use dfsnap_formats::json::{Buffer, Writer, WriterOptions};
//! use dfsnap_formats::rdb::reader::{Options, RdbError, RdbReader};
//!
//! fn to_json(dump: impl std::io::Read) -> Result<Vec<u8>, RdbError> {
//!     let mut reader = RdbReader::new(dump, Options::default());
//!     let mut writer = Writer::new(WriterOptions::default());
//!     let mut text = Buffer::new();
//!     while let Some(record) = reader.next()? {
//!         if let Some(item) = Item::of_record(&record, &Default::default())? {
//!             writer.item(&item, &mut text);
//!         }
//!     }
//!     writer.finish(&mut text);
//!     Ok(text.into())
//! }
//!
//! let dump = b"REDIS0003\xfe\x01\x00\x04name\x03ann\xff";
//! assert_eq!(to_json(&dump[..]).unwrap(), b"{\"db\":1,\"key\":\"name\",\"type\":\"string\",\"value\":\"ann\"}\n");
//! ```
#![forbid(unsafe_code)]

pub mod aof;
pub mod assemble;
pub mod checksum;
pub mod command_keys;
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
