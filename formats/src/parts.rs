//! Values in parts: the same sequence whether a value is in memory or goes by in a stream.
//!
//! Printers, digests and writers of commands take parts, so that a value larger than memory can pass through them.
//! `Value::for_each_part` gives those of a value that is here, `rdb::elements` those of a value that is being read.
//!
//! ```text
//! string   Bytes*                       one piece, or several of a string that is being read
//! list     ListElement*                 head to tail
//! set      SetMember*                   in stored order, as all that follow
//! hash     HashField*
//! zset     ZSetMember*
//! stream   StreamEntry*, StreamEnd      live entries by id
//! others   Whole
//! ```

use crate::dataset::Attributes;
use crate::encoding::listpack::Element;
use crate::encoding::stream::Entry;
use crate::rdb::record::KeyRecord;
use crate::rdb::type_code;
use crate::value::{FieldRef, Kind, SetValue, StreamValue, Value, list_elements};

/// What is known about a key before the parts of its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head<'a> {
    pub db: u32,
    pub key: &'a [u8],
    pub attributes: Attributes,
    pub kind: Kind,
}

impl<'a> Head<'a> {
    /// Of a key that a reader found, which therefore has a type that is known.
    pub fn of_key(record: &KeyRecord<'a>) -> Self {
        use type_code::*;
        let kind = match record.type_code {
            STRING => Kind::String,
            LIST | LIST_ZIPLIST | LIST_QUICKLIST | LIST_QUICKLIST_2 => Kind::List,
            SET | SET_INTSET | SET_LISTPACK | SET_EXPIRING => Kind::Set,
            ZSET | ZSET_2 | ZSET_ZIPLIST | ZSET_LISTPACK => Kind::ZSet,
            HASH | HASH_ZIPMAP | HASH_ZIPLIST | HASH_LISTPACK | HASH_22 => Kind::Hash,
            HASH_METADATA | HASH_LISTPACK_EX_PRE_GA | HASH_LISTPACK_EX | HASH_EXPIRING => {
                Kind::Hash
            }
            STREAM | STREAM_2 | STREAM_3 | STREAM_4 => Kind::Stream,
            // Of a module, or of Dragonfly's own.
            _ => Kind::Module,
        };
        Head {
            db: record.db,
            key: record.key,
            attributes: record.attributes,
            kind,
        }
    }
}

/// A piece of a value.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// The next bytes of a string.
    Bytes(&'a [u8]),
    ListElement(Element<'a>),
    SetMember {
        member: Element<'a>,
        /// Absolute Unix milliseconds.
        expire_at_ms: Option<i64>,
    },
    HashField(FieldRef<'a>),
    ZSetMember {
        member: Element<'a>,
        score: f64,
    },
    StreamEntry(Entry<'a>),
    /// Counters and groups of the stream; its nodes are not to be looked at.
    StreamEnd(&'a StreamValue),
    /// A value that has no parts: of a module, a document, a sketch.
    Whole(&'a Value),
}

impl Value {
    /// Gives all parts to `take`, until it fails.
    ///
    /// ```
    /// use dfsnap_formats::parts::Part;
    /// use dfsnap_formats::value::{SetValue, Value};
    /// let set = Value::Set(SetValue::Members(vec![b"a".to_vec(), b"7".to_vec()]));
    /// let mut members = Vec::new();
    /// set.for_each_part(|part| {
    ///     let Part::SetMember { member, .. } = part else { return Err("no member") };
    ///     members.push(member.to_vec());
    ///     Ok(())
    /// }).unwrap();
    /// assert_eq!(members, [b"a", b"7"]);
    /// ```
    pub fn for_each_part<E>(
        &self,
        mut take: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Value::String(bytes) => take(Part::Bytes(bytes)),
            Value::List(nodes) => list_elements(nodes)
                .map(Part::ListElement)
                .try_for_each(take),
            Value::Set(SetValue::Expiring(members)) => members
                .iter()
                .map(|member| Part::SetMember {
                    member: Element::Str(&member.member),
                    expire_at_ms: member.expire_at_ms,
                })
                .try_for_each(take),
            Value::Set(set) => set
                .members()
                .map(|member| Part::SetMember {
                    member,
                    expire_at_ms: None,
                })
                .try_for_each(take),
            Value::Hash(hash) => hash.fields().map(Part::HashField).try_for_each(take),
            Value::ZSet(zset) => zset
                .members()
                .map(|(member, score)| Part::ZSetMember { member, score })
                .try_for_each(take),
            Value::Stream(stream) => {
                stream
                    .entries()
                    .try_for_each(|entry| take(Part::StreamEntry(entry)))?;
                take(Part::StreamEnd(stream))
            }
            Value::Module(_) | Value::Json(_) | Value::Sketch(_) => take(Part::Whole(self)),
        }
    }
}
