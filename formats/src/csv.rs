//! CSV of what is known about keys: a row a key, for spreadsheets and databases that find the large, the old and the odd.
//!
//! Values are not in it; `json` has those. Rows are as RFC 4180 has them: fields with a comma, a quote or a line end are
//! quoted, lines end with CR LF. A key that is no text is `base64:…`, and so is one that begins like that, so that each
//! key has one reading. A field that is not known, or not set, is empty.
//!
//! Spreadsheets may take a key that begins with `=`, `+`, `-` or `@` for a formula: keys are written as they are.

use crate::assemble::Encoding;
use crate::dataset::{Attributes, Entry};
use crate::json::{BASE64_PREFIX, base64};
use crate::rdb::decode::DecodeLimits;
use crate::rdb::record::{KeyRecord, RdbError};
use crate::value::Value;

/// The first row.
pub const COLUMNS: [&str; 11] = [
    "db",
    "key",
    "type",
    "encoding",
    "elements",
    "stored_bytes",
    "expire_at_ms",
    "idle_s",
    "freq",
    "sticky",
    "memcached_flags",
];

/// What is known about a key.
///
/// ```
/// use dfsnap_formats::csv::{self, Row};
/// use dfsnap_formats::dataset::Entry;
/// use dfsnap_formats::value::Value;
/// let mut entry = Entry::new(3, b"say, \"hi\"", Value::String(b"12".to_vec()));
/// entry.attributes.freq = Some(5);
/// let mut out = Vec::new();
/// csv::header(&mut out);
/// Row::of_entry(&entry, Some(2)).append_to(&mut out);
/// assert_eq!(
///     String::from_utf8(out).unwrap(),
///     "db,key,type,encoding,elements,stored_bytes,expire_at_ms,idle_s,freq,sticky,memcached_flags\r\n\
///      3,\"say, \"\"hi\"\"\",string,int,2,2,,,5,false,\r\n",
/// );
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    pub db: u32,
    pub key: &'a [u8],
    pub attributes: Attributes,
    /// As the JSON form says it.
    pub type_name: &'static str,
    /// None: a form without a name.
    pub encoding: Option<Encoding>,
    /// As `Value::count`: of a string its bytes, of a stream its live entries, of a module 1.
    pub elements: u64,
    /// Bytes of the value in the dump. None: it did not come from one.
    pub stored_bytes: Option<u64>,
}

impl<'a> Row<'a> {
    pub fn of_entry(entry: &'a Entry, stored_bytes: Option<u64>) -> Self {
        Row {
            db: entry.db,
            key: &entry.key,
            attributes: entry.attributes,
            type_name: type_name(&entry.value),
            encoding: Encoding::of(&entry.value),
            elements: entry.value.count() as u64,
            stored_bytes,
        }
    }

    /// None: an empty collection, which servers skip.
    pub fn of_key(record: &KeyRecord<'a>, limits: &DecodeLimits) -> Result<Option<Self>, RdbError> {
        Ok(record.decode(limits)?.map(|value| Row {
            db: record.db,
            key: record.key,
            attributes: record.attributes,
            type_name: type_name(&value),
            encoding: Encoding::of(&value),
            elements: value.count() as u64,
            stored_bytes: Some(record.value.len() as u64),
        }))
    }

    /// The fields in the order of `COLUMNS`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let known = &self.attributes;
        number(Some(self.db), out);
        out.push(b',');
        key(self.key, out);
        out.push(b',');
        out.extend_from_slice(self.type_name.as_bytes());
        out.push(b',');
        out.extend_from_slice(self.encoding.map_or("", Encoding::name).as_bytes());
        out.push(b',');
        number(Some(self.elements), out);
        out.push(b',');
        number(self.stored_bytes, out);
        out.push(b',');
        number(known.expire_at_ms, out);
        out.push(b',');
        number(known.idle_s, out);
        out.push(b',');
        number(known.freq, out);
        out.push(b',');
        out.extend_from_slice(if known.sticky { b"true" } else { b"false" });
        out.push(b',');
        number(known.memcached_flags, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The row with the names of the columns.
pub fn header(out: &mut Vec<u8>) {
    out.extend_from_slice(COLUMNS.join(",").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Json(_) => "json",
        Value::Sketch(_) => "sketch",
        value => value.kind().name(),
    }
}

fn number(number: Option<impl itoa::Integer>, out: &mut Vec<u8>) {
    if let Some(number) = number {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

fn key(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.starts_with(BASE64_PREFIX) || std::str::from_utf8(bytes).is_err() {
        out.extend_from_slice(BASE64_PREFIX);
        return base64::encode(bytes, out);
    }
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\r' | b'\n');
    // Readers may drop blanks around a field, and take an empty one for none.
    let blank = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    if !bytes.iter().any(special) && !blank(bytes.first()) && !blank(bytes.last()) {
        return out.extend_from_slice(bytes);
    }
    out.push(b'"');
    for (index, piece) in bytes.split(|byte| *byte == b'"').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(piece);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        key(bytes, &mut out);
        out
    }

    #[test]
    fn keys_are_quoted_where_they_must_be() {
        let rows: [(&[u8], &str); 8] = [
            (b"user:17", "user:17"),
            (b"", "\"\""),
            (b" a", "\" a\""),
            (b"a,b", "\"a,b\""),
            (b"a\"b", "\"a\"\"b\""),
            (b"a\nb", "\"a\nb\""),
            (b"\xff", "base64:/w=="),
            (b"base64:x", "base64:YmFzZTY0Ong="),
        ];
        for (bytes, text) in rows {
            assert_eq!(written(bytes), text.as_bytes(), "{}", bytes.escape_ascii());
        }
    }

    /// Fields of one line, by the rules of RFC 4180.
    fn fields(line: &[u8]) -> Vec<Vec<u8>> {
        let (mut fields, mut quoted) = (vec![Vec::new()], false);
        let mut bytes = line.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' if quoted && bytes.next_if_eq(&b'"').is_some() => {
                    fields.last_mut().unwrap().push(b'"');
                }
                b'"' => quoted = !quoted,
                b',' if !quoted => fields.push(Vec::new()),
                byte => fields.last_mut().unwrap().push(byte),
            }
        }
        assert!(!quoted);
        fields
    }

    fn key_of(field: &[u8]) -> Vec<u8> {
        match field.strip_prefix(BASE64_PREFIX) {
            Some(text) => base64::decode(text).unwrap(),
            None => field.to_vec(),
        }
    }

    proptest! {
        #[test]
        fn any_key_is_one_field_and_reads_back(bytes in prop_oneof![
            any::<Vec<u8>>(),
            "[a,\"\r\n ]{0,8}".prop_map(String::into_bytes),
            "base64:[a-z=]{0,4}".prop_map(String::into_bytes),
        ]) {
            let mut entry = Entry::new(7, &bytes, Value::String(b"v".to_vec()));
            entry.attributes.expire_at_ms = Some(-5);
            let mut out = Vec::new();
            Row::of_entry(&entry, None).append_to(&mut out);
            let line = out.strip_suffix(b"\r\n").unwrap();
            let fields = fields(line);
            prop_assert_eq!(fields.len(), COLUMNS.len());
            prop_assert_eq!(key_of(&fields[1]), bytes);
            prop_assert_eq!(&fields[5..8], [b"".to_vec(), b"-5".to_vec(), b"".to_vec()]);
        }
    }
}
