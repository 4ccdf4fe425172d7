//! Between JSON text of our own and the formats of others for people.
//!
//! The text is the one model of an item; here it is walked into a serializer, and written down from a deserializer.

use crate::double::DoubleText;
use crate::error::Damage;
use crate::json::{self, DEPTH_MAX, Parser, Token};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};
use std::fmt;

// Out.

/// Gives the one value that `text` is to `serializer`.
pub(super) fn serialize<S: Serializer>(text: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    Raw(text).serialize(serializer)
}

/// The text of a value.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const READING: &str = "own text";
        let mut parser = Parser::new(self.0);
        let own = |damage: Damage| S::Error::custom(damage);
        match parser.peek(READING).map_err(own)? {
            Token::Object => {
                let mut failed = None;
                let mut map = serializer.serialize_map(None)?;
                let walked = parser.members(READING, |parser, name| {
                    let value = Raw(parser.raw(READING)?);
                    if failed.is_none() {
                        failed = map.serialize_entry(&*name, &value).err();
                    }
                    Ok(())
                });
                walked.map_err(own)?;
                failed.map_or_else(|| map.end(), Err)
            }
            Token::Array => {
                let mut failed = None;
                let mut seq = serializer.serialize_seq(None)?;
                let walked = parser.elements(READING, |parser| {
                    let value = Raw(parser.raw(READING)?);
                    if failed.is_none() {
                        failed = seq.serialize_element(&value).err();
                    }
                    Ok(())
                });
                walked.map_err(own)?;
                failed.map_or_else(|| seq.end(), Err)
            }
            Token::String => serializer.serialize_str(&parser.string(READING).map_err(own)?),
            Token::Number => serialize_number(parser.number(READING).map_err(own)?, serializer),
            Token::True => serializer.serialize_bool(true),
            Token::False => serializer.serialize_bool(false),
            Token::Null => serializer.serialize_unit(),
        }
    }
}

/// As an integer where it is one; `-0` is none. Other numbers are scores.
fn serialize_number<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text != "-0" {
        if let Ok(number) = text.parse::<u64>() {
            return serializer.serialize_u64(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return serializer.serialize_i64(number);
        }
    }
    match text.parse() {
        Ok(number) if is_easy(text) => serializer.serialize_f64(number),
        _ => serializer.serialize_str(text),
    }
}

/// Whether parsers that round twice get the number right too: digits and power of ten are then exact as doubles.
fn is_easy(text: &str) -> bool {
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = digits
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len());
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    let power = power.parse::<i64>().ok();
    count <= 15 && power.is_some_and(|power| (power - fraction as i64).abs() <= 22)
}

// In.

/// Writes down whatever `deserializer` has, as JSON.
pub(super) fn transcribe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let mut out = Vec::new();
    let transcript = Transcript {
        out: &mut out,
        depth: 0,
    };
    deserializer.deserialize_any(transcript)?;
    Ok(out)
}

struct Transcript<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl Transcript<'_> {
    fn within<E: serde::de::Error>(&mut self) -> Result<Transcript<'_>, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom("item: wanted at most 128 levels, found more"));
        }
        Ok(Transcript {
            out: self.out,
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Transcript<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Transcript<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item, an entry or a value, as the JSON form has it")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        let text = DoubleText::short(value);
        match value.is_finite() {
            true => self.out.extend_from_slice(text.as_bytes()),
            false => json::quoted(text.as_bytes(), self.out),
        }
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        json::quoted(value.as_bytes(), self.out);
        Ok(())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        json::lone_value(value, self.out);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.within()?.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        mut self,
        deserializer: D,
    ) -> Result<(), D::Error> {
        self.within()?.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.out.push(b'[');
        let start = self.out.len();
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(b',');
            }
            if elements.next_element_seed(self.within()?)?.is_none() {
                self.out.truncate(before);
                self.out.push(b']');
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        let start = self.out.len();
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(b',');
            }
            if members.next_key_seed(NameTranscript(self.out))?.is_none() {
                self.out.truncate(before);
                self.out.push(b'}');
                return Ok(());
            }
            self.out.push(b':');
            members.next_value_seed(self.within()?)?;
        }
    }
}

/// A name of a member, which some formats take for a number where it looks like one.
struct NameTranscript<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for NameTranscript<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for NameTranscript<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        json::quoted(name.as_bytes(), self.0);
        Ok(())
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<(), E> {
        json::lone_name(name, self.0);
        Ok(())
    }

    fn visit_i64<E>(self, name: i64) -> Result<(), E> {
        json::lone_name(itoa::Buffer::new().format(name).as_bytes(), self.0);
        Ok(())
    }

    fn visit_u64<E>(self, name: u64) -> Result<(), E> {
        json::lone_name(itoa::Buffer::new().format(name).as_bytes(), self.0);
        Ok(())
    }
}
