//! Values: what a key holds.

pub mod hash;
pub mod list;
pub mod set;
pub mod stream;
pub mod zset;

use std::borrow::Cow;

use super::blob::Blob;
use hash::Hash;
use list::List;
use set::Set;
use stream::Stream;
use zset::ZSet;

/// Thresholds of the compact encodings, by Redis' configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `hash-max-listpack-entries`
    pub hash_listpack_entries: usize,
    /// `hash-max-listpack-value`, bytes
    pub hash_listpack_value: usize,
    /// `set-max-intset-entries`
    pub set_intset_entries: usize,
    /// `set-max-listpack-entries`
    pub set_listpack_entries: usize,
    /// `set-max-listpack-value`, bytes
    pub set_listpack_value: usize,
    /// `zset-max-listpack-entries`
    pub zset_listpack_entries: usize,
    /// `zset-max-listpack-value`, bytes
    pub zset_listpack_value: usize,
    /// `list-max-listpack-size`: elements of a node if positive; -1..=-5 = 4, 8, 16, 32, 64 KiB of a node
    pub list_listpack_size: i64,
    /// `stream-node-max-bytes`, 0 = no limit
    pub stream_node_bytes: usize,
    /// `stream-node-max-entries`, 0 = no limit
    pub stream_node_entries: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            hash_listpack_entries: 512,
            hash_listpack_value: 64,
            set_intset_entries: 512,
            set_listpack_entries: 128,
            set_listpack_value: 64,
            zset_listpack_entries: 128,
            zset_listpack_value: 64,
            list_listpack_size: -2,
            stream_node_bytes: 4096,
            stream_node_entries: 100,
        }
    }
}

/// The value of an entry, in sixteen bytes plus what it owns.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string that is the canonical text of this number.
    Int(i64),
    /// A string.
    Str(Blob),
    /// A string that was changed in place (APPEND, SETRANGE, SETBIT) and has room to grow.
    Raw(Box<Vec<u8>>),
    /// A list.
    List(Box<List>),
    /// A set.
    Set(Box<Set>),
    /// A sorted set.
    ZSet(Box<ZSet>),
    /// A hash.
    Hash(Box<Hash>),
    /// A stream.
    Stream(Box<Stream>),
}

/// A type of value that is not a string.
pub trait Collection: Default + Send + 'static {
    /// The collection, if the value is one of this type.
    fn of(value: &Value) -> Option<&Self>;
    /// The collection, to change.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// The value that holds this collection.
    fn into_value(self) -> Value;
}

macro_rules! collection {
    ($($name:ident),*) => {$(
        impl Collection for $name {
            fn of(value: &Value) -> Option<&$name> {
                match value {
                    Value::$name(inner) => Some(inner),
                    _ => None,
                }
            }

            fn of_mut(value: &mut Value) -> Option<&mut $name> {
                match value {
                    Value::$name(inner) => Some(inner),
                    _ => None,
                }
            }

            fn into_value(self) -> Value {
                Value::$name(Box::new(self))
            }
        }
    )*};
}

collection!(List, Set, ZSet, Hash, Stream);

const _: () = assert!(size_of::<Value>() == 16);

/// The type of a value. The numbers are those that DEBUG DIGEST mixes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Type {
    /// Bytes or a number.
    String = 0,
    /// A list of elements.
    List = 1,
    /// A set of members.
    Set = 2,
    /// Members ordered by score.
    ZSet = 3,
    /// Fields with values.
    Hash = 4,
    /// Entries ordered by id, with consumer groups.
    Stream = 6,
}

impl Type {
    /// The name that TYPE replies.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::ZSet => "zset",
            Type::Hash => "hash",
            Type::Stream => "stream",
        }
    }
}

impl Value {
    /// A string value: a number if `bytes` is the canonical text of one.
    pub fn string(bytes: &[u8]) -> Value {
        match canonical_i64(bytes) {
            Some(number) => Value::Int(number),
            None => Value::Str(Blob::new(bytes)),
        }
    }

    /// The type.
    pub fn kind(&self) -> Type {
        match self {
            Value::Int(_) | Value::Str(_) | Value::Raw(_) => Type::String,
            Value::List(_) => Type::List,
            Value::Set(_) => Type::Set,
            Value::ZSet(_) => Type::ZSet,
            Value::Hash(_) => Type::Hash,
            Value::Stream(_) => Type::Stream,
        }
    }

    /// The bytes, if this is a string.
    pub fn as_string(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Value::Int(number) => Some(Cow::Owned(number.to_string().into_bytes())),
            Value::Str(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Raw(bytes) => Some(Cow::Borrowed(bytes)),
            _ => None,
        }
    }

    /// The name that OBJECT ENCODING replies.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Value::Int(_) => "int",
            Value::Str(bytes) if bytes.len() <= 44 => "embstr",
            Value::Str(_) | Value::Raw(_) => "raw",
            Value::List(list) => list.encoding_name(),
            Value::Set(set) => set.encoding_name(),
            Value::ZSet(zset) => zset.encoding_name(),
            Value::Hash(hash) => hash.encoding_name(),
            Value::Stream(_) => "stream",
        }
    }

    /// Whether this is a collection without elements, whose key must go. Streams stay when empty.
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Value::Int(_) | Value::Str(_) | Value::Raw(_) | Value::Stream(_) => false,
            Value::List(list) => list.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::ZSet(zset) => zset.is_empty(),
            Value::Hash(hash) => hash.is_empty(),
        }
    }

    /// Bytes of heap memory that the value owns.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Int(_) => 0,
            Value::Str(bytes) => bytes.heap_bytes(),
            Value::Raw(bytes) => bytes.capacity() + size_of::<Vec<u8>>(),
            Value::List(list) => size_of::<List>() + list.heap_bytes(),
            Value::Set(set) => size_of::<Set>() + set.heap_bytes(),
            Value::ZSet(zset) => size_of::<ZSet>() + zset.heap_bytes(),
            Value::Hash(hash) => size_of::<Hash>() + hash.heap_bytes(),
            Value::Stream(stream) => size_of::<Stream>() + stream.heap_bytes(),
        }
    }
}

/// The number whose canonical decimal text `bytes` is: no `+`, no leading zeros, no `-0`, the full range of i64.
#[inline]
pub fn canonical_i64(bytes: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut number: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Nineteen digits stay below 10^19 < 2^64.
        number = number * 10 + u64::from(digit - b'0');
    }
    if is_negative {
        (number <= 1 << 63).then(|| (number as i64).wrapping_neg())
    } else {
        i64::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_texts_are_numbers() {
        for (text, want) in [
            ("0", Some(0)),
            ("-0", None),
            ("01", None),
            ("+1", None),
            ("", None),
            ("-", None),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("1 ", None),
        ] {
            assert_eq!(canonical_i64(text.as_bytes()), want, "{text}");
        }
    }
}
