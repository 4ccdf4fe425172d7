//! Items, entries and values through any serde format.
//!
//! Formats for people (`is_human_readable`) get the shape of the module `json`, with documents as strings, so that a
//! format's own idea of numbers does not change them. Others get bytes as bytes, numbers as numbers, and the form that
//! each value was stored in. Both are read through `assemble` and checked like any text.
//!
//! Some parsers, serde_json's by default, miss the last bit of numbers with many digits. Scores that have so many are
//! strings here, which every reader of the shape takes too.
//!
//! ```
//! use dfsnap_formats::dataset::Entry;
//! use dfsnap_formats::value::Value;
//! let entry = Entry::new(0, b"greeting", Value::String(b"hello".to_vec()));
//! let text = serde_json::to_string(&entry).unwrap();
//! assert_eq!(text, r#"{"db":0,"key":"greeting","type":"string","encoding":"embstr","value":"hello"}"#);
//! assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
//! ```

mod binary;
mod human;

use crate::dataset::{Entry, Item};
use crate::encoding::stream::StreamId;
use crate::json::{self, Refused, Style};
use crate::value::Value;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// Encodings are told, as everything that is known.
const STYLE: Style = Style {
    encodings: true,
    documents: false,
};

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return binary::ItemForm::of(self).serialize(serializer);
        }
        if let Item::Entry(entry) = self {
            return entry.serialize(serializer);
        }
        let mut text = json::Buffer::new();
        json::Writer::new(json::WriterOptions::default()).item(self, &mut text);
        human::serialize(&text, serializer)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return binary::ItemForm::deserialize(deserializer)?
                .item()
                .map_err(binary::error);
        }
        let text = human::transcribe(deserializer)?;
        json::item_of(&text).map_err(refused)
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return binary::EntryForm::of(self).serialize(serializer);
        }
        let mut text = json::Buffer::new();
        json::entry_members(self, STYLE, &mut text);
        text.extend_from_slice(b"}");
        human::serialize(&text, serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return binary::EntryForm::deserialize(deserializer)?
                .entry()
                .map_err(binary::error);
        }
        let text = human::transcribe(deserializer)?;
        match json::item_of(&text).map_err(refused)? {
            Item::Entry(entry) => Ok(entry),
            _ => Err(D::Error::custom(
                "item: wanted an entry, found what has no key",
            )),
        }
    }
}

/// A value alone: type, encoding and value of an entry.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return binary::ValueForm::of(self).serialize(serializer);
        }
        let mut text = json::Buffer::from(vec![b'{']);
        json::value_members(self, STYLE, &mut text);
        text.extend_from_slice(b"}");
        human::serialize(&text, serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return binary::ValueForm::deserialize(deserializer)?
                .value()
                .map_err(binary::error);
        }
        let text = human::transcribe(deserializer)?;
        json::value_of(&text).map_err(|damage| refused(damage.into()))
    }
}

/// `"ms-seq"`, or two numbers.
impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => (self.ms, self.seq).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let (ms, seq) = Deserialize::deserialize(deserializer)?;
            return Ok(StreamId { ms, seq });
        }
        let text = human::transcribe(deserializer)?;
        json::stream_id(&text).map_err(|damage| refused(damage.into()))
    }
}

/// Offsets would be those of a text that nobody has seen.
fn refused<E: serde::de::Error>(Refused { key, damage }: Refused) -> E {
    let (reading, problem) = (damage.reading, damage.problem);
    match key {
        Some(key) => {
            let key = crate::error::Shown(&key);
            E::custom(format!("key {key}: {reading}: {problem}"))
        }
        None => E::custom(format!("{reading}: {problem}")),
    }
}
