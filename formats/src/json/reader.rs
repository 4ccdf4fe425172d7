//! Text to items: lines, a document, or a plain array of items, whichever it is.
//!
//! Converters pull items from it. It holds the text of one item at a time and checks everything that `value` promises.
//!
//! An item that is not what it should be is an error, and the next call goes on behind it; once brackets or quotes do
//! not add up, every further call fails.

use super::item::{Refused, item_of};
use super::parser::Parser;
use super::source::Source;
use super::{FORMAT, JsonError, VERSION};
use crate::dataset::Item;
use std::io::Read;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Text of one item beyond which it is an error.
    pub item_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            item_bytes_max: 4 << 30,
        }
    }
}

/// Pulls items out of text.
///
/// ```
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::json::{JsonReader, Options};
/// use dfsnap_formats::value::Value;
/// let text = br#"{"key":"a","type":"string","value":"x"}
///     {"key":"b","type":"set","value":["y","y"]}
///     {"key":"c","type":"string","value":{"base64":"/w=="},"db":3}"#;
/// let mut reader = JsonReader::new(&text[..], Options::default());
/// let a = Entry::new(0, b"a", Value::String(b"x".to_vec()));
/// assert_eq!(reader.next().unwrap(), Some(Item::Entry(a)));
/// assert_eq!(
///     reader.next().unwrap_err().to_string(),
///     r#"line 2, offset 76: key "b": set: "y" is there twice"#,
/// );
/// let c = Entry::new(3, b"c", Value::String(b"\xff".to_vec()));
/// assert_eq!(reader.next().unwrap(), Some(Item::Entry(c)));
/// assert_eq!(reader.next().unwrap(), None);
/// ```
pub struct JsonReader<R> {
    source: Source<R>,
    options: Options,
    place: Place,
}

/// What is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// An item, or the end.
    Line,
    /// In an array, which is all there is or stands in a document: an item or the closing bracket.
    First {
        in_document: bool,
    },
    /// A comma and an item, or the closing bracket.
    Next {
        in_document: bool,
    },
    /// Nothing but blanks.
    End,
    Failed,
}

impl<R: Read> JsonReader<R> {
    pub fn new(source: R, options: Options) -> Self {
        JsonReader {
            source: Source::new(source),
            options,
            place: Place::Start,
        }
    }

    /// Bytes of text that are read.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next item. None: the text ended where it may.
    #[expect(
        clippy::should_implement_trait,
        reason = "it can fail, and be asked again then"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, JsonError> {
        let found = self.advance();
        match &found {
            Ok(_) | Err(JsonError::Item { .. }) => {}
            Err(_) => self.place = Place::Failed,
        }
        found
    }

    fn advance(&mut self) -> Result<Option<Item>, JsonError> {
        loop {
            self.place = match self.place {
                Place::Start => self.start()?,
                Place::Line => match self.source.next_byte()? {
                    None => Place::End,
                    Some(_) => return self.item(Place::Line),
                },
                Place::First { in_document } => match self.source.next_byte()? {
                    Some(b']') => self.array_end(in_document)?,
                    _ => return self.item(Place::Next { in_document }),
                },
                Place::Next { in_document } => match self.source.next_byte()? {
                    Some(b']') => self.array_end(in_document)?,
                    Some(b',') => {
                        self.source.consume(1);
                        return self.item(self.place);
                    }
                    _ => return Err(self.unwanted("items", "a comma or a closing bracket")),
                },
                Place::End => match self.source.next_byte()? {
                    None => return Ok(None),
                    Some(_) => return Err(self.unwanted("end", "the end of the text")),
                },
                Place::Failed => {
                    let offset = self.source.offset();
                    return Err(JsonError::Failed { offset });
                }
            };
        }
    }

    fn unwanted(&self, reading: &'static str, wanted: &'static str) -> JsonError {
        self.source.unwanted(reading, wanted)
    }

    /// The item at the next byte; `behind` is awaited after it, whether it is sound or not.
    fn item(&mut self, behind: Place) -> Result<Option<Item>, JsonError> {
        if self.source.next_byte()? != Some(b'{') {
            return Err(self.unwanted("item", "an object"));
        }
        let len = self.source.object(self.options.item_bytes_max)?;
        let found = item_of(&self.source.ahead()[..len]).map_err(|Refused { key, damage }| {
            JsonError::Item {
                line: self.source.line_at(damage.offset as usize),
                key,
                damage: damage.moved(self.source.offset()),
            }
        });
        self.source.consume(len);
        self.place = behind;
        found.map(Some)
    }

    // What stands around items.

    /// Tells lines from a document, whose first member is `"format"`.
    fn start(&mut self) -> Result<Place, JsonError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        while self.source.ahead().len() < BYTE_ORDER_MARK.len() && self.source.fill()? {}
        if self.source.ahead().starts_with(BYTE_ORDER_MARK) {
            self.source.consume(BYTE_ORDER_MARK.len());
        }
        match self.source.next_byte()? {
            Some(b'[') => {
                self.source.consume(1);
                Ok(Place::First { in_document: false })
            }
            Some(b'{') if self.begins_document()? => {
                self.source.consume(1);
                self.document_members(false)
            }
            _ => Ok(Place::Line),
        }
    }

    fn begins_document(&mut self) -> Result<bool, JsonError> {
        let name: &[u8] = b"\"format\"";
        loop {
            let inside = self.source.ahead()[1..].trim_ascii_start();
            if inside.len() >= name.len() {
                return Ok(inside.starts_with(name));
            }
            if !name.starts_with(inside) || !self.source.fill()? {
                return Ok(false);
            }
        }
    }

    /// The members before `"items"`, or, behind them, up to the end. Those of other names are for people.
    fn document_members(&mut self, after_items: bool) -> Result<Place, JsonError> {
        let mut first = !after_items;
        loop {
            match self.source.next_byte()? {
                Some(b'}') => {
                    if !after_items {
                        return Err(self.unwanted("document", "a member \"items\""));
                    }
                    self.source.consume(1);
                    return Ok(Place::End);
                }
                Some(b',') if !first => self.source.consume(1),
                _ if first => {}
                _ => return Err(self.unwanted("document", "a comma or a closing brace")),
            }
            first = false;
            let name = self.scalar()?;
            if self.source.next_byte()? != Some(b':') {
                return Err(self.unwanted("document", "a colon"));
            }
            self.source.consume(1);
            if name == b"\"items\"" {
                if after_items || self.source.next_byte()? != Some(b'[') {
                    return Err(self.unwanted("document", "one array of items"));
                }
                self.source.consume(1);
                return Ok(Place::First { in_document: true });
            }
            self.source.next_byte()?;
            let here = self.unwanted("document", "format \"dfsnap\", version 1");
            let value = self.scalar()?;
            let wrong = match &name[..] {
                b"\"format\"" => value != format!("\"{FORMAT}\"").as_bytes(),
                b"\"version\"" => value != VERSION.to_string().as_bytes(),
                _ => false,
            };
            if wrong {
                return Err(here);
            }
        }
    }

    fn array_end(&mut self, in_document: bool) -> Result<Place, JsonError> {
        self.source.consume(1);
        match in_document {
            true => self.document_members(true),
            false => Ok(Place::End),
        }
    }

    /// A string, number or word of a document, at most 4 KB long.
    fn scalar(&mut self) -> Result<Vec<u8>, JsonError> {
        const BYTES_MAX: usize = 4096;
        self.source.next_byte()?;
        loop {
            let ahead = self.source.ahead();
            let mut parser = Parser::new(ahead);
            let scalar = !matches!(ahead.first(), Some(b'{' | b'['));
            let skipped = parser.skip("document");
            let len = parser.offset() as usize;
            // A number may go on where the bytes end.
            if scalar && skipped.is_ok() && len < ahead.len() {
                let text = ahead[..len].to_vec();
                self.source.consume(len);
                return Ok(text);
            }
            if !scalar || ahead.len() > BYTES_MAX || !self.source.fill()? {
                return Err(self.unwanted("document", "a name, a string or a number"));
            }
        }
    }
}
