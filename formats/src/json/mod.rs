//! JSON and NDJSON: any dump as text that people read, `jq` filters and other languages load, and back without loss.
//!
//! - [`Writer`]: items, or values in parts, to text in a [`Buffer`].
//! - [`JsonReader`]: text to items, one in memory at a time.
//!
//! ```text
//! {"db":0,"key":"user:17","type":"hash","expire_at_ms":1893456000000,"value":{"name":"Ann","age":"17"}}
//! {"db":0,"key":"queue","type":"list","value":["one","two"]}
//! {"db":0,"key":"tags","type":"set","value":["a",{"base64":"/wA="}]}
//! {"db":0,"key":"board","type":"zset","value":{"ann":17.5,"bob":"inf"}}
//! {"aux":"redis-ver","value":"7.0.15"}
//! ```
//! The whole shape is in `docs/formats/json.md`; `item` reads what `writer` writes, member by member.
//!
//! Why this shape
//! - A hash and a sorted set are objects, always: `.value.name` works in `jq`, and a value that arrives in parts needs
//!   no look ahead. Their fields and members are unique by nature, so no two names collide; an order they do not have
//!   cannot be lost by tools that do not keep it. Fields of a stream entry may repeat, so they are a flat array.
//! - Bytes that are text are plain strings. Others are `{"base64":"…"}` where a value stands, which no string can be
//!   mistaken for, and `"base64:…"` where a name stands; a name that is text but begins like that is written in base64
//!   too, so that each name has one reading.
//! - A field or member with an expiry is `{"value":…,"expire_at_ms":…}` in the place of its value.
//! - What is absent has its default, so that people can write `{"key":"a","type":"string","value":"x"}`.
//! - What is unknown is an error: a misspelt `expire_at` must not silently make a key last for ever.

pub(crate) mod base64;
mod buffer;
mod damage;
mod item;
mod item_stream;
mod members;
mod number;
mod parser;
mod piece;
mod reader;
mod source;
mod text;
mod writer;

pub use buffer::Buffer;
pub use damage::JsonError;
pub use reader::{JsonReader, Options};
pub use writer::{Form, Writer, WriterOptions};

pub(crate) use text::BASE64_PREFIX;
pub(crate) use {
    item::{Refused, item_of, value_of},
    item_stream::stream_id,
    members::{Style, entry_members, value_members},
    parser::{Parser, Token, check_document},
    text::{lone_name, lone_value, quoted},
};

/// The first two members of a document, which tell it from a line.
pub const FORMAT: &str = "dfsnap";
pub const VERSION: u64 = 1;

/// Brackets within brackets in one item. What is written needs 8; embedded documents need what they need.
pub const DEPTH_MAX: usize = 128;
