//! Items to text: one line each, or all in one document.
//!
//! Converters call it with whole items, or with a key and the parts of its value as they go by. Text is appended to a
//! buffer of the caller, who takes it out whenever that suits; nothing here waits for the end of a value, but for the
//! first piece of a string, which is held until it is known whether it is the only one.

use super::buffer::Buffer;
use super::members::{
    Style, before_opening, closing, entry_members, key, member, module_id, opening, push_part,
    raw_value, stream_end, type_and_value, value_members,
};
use super::{FORMAT, VERSION, text};
use crate::dataset::{Entry, Item};
use crate::parts::{Head, Part};
use crate::value::Kind;

/// How items stand beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// NDJSON: a line an item.
    #[default]
    Lines,
    /// One object, `{"format":"dfsnap","version":1,"items":[…]}`.
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterOptions {
    pub form: Form,
    /// Say how each value was stored, so that it is stored that way again. Values in parts do not tell.
    pub encodings: bool,
}

/// Turns items into text.
///
/// ```
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::json::{Buffer, Writer, WriterOptions};
/// use dfsnap_formats::value::{SetValue, Value};
/// let set = Value::Set(SetValue::Members(vec![b"a".to_vec(), b"\xff".to_vec()]));
/// let mut writer = Writer::new(WriterOptions::default());
/// let mut out = Buffer::new();
/// writer.item(&Item::Entry(Entry::new(0, b"tags", set)), &mut out);
/// writer.finish(&mut out);
/// assert_eq!(
///     str::from_utf8(&out).unwrap(),
///     "{\"db\":0,\"key\":\"tags\",\"type\":\"set\",\"value\":[\"a\",{\"base64\":\"/w==\"}]}\n",
/// );
/// ```
#[derive(Debug)]
pub struct Writer {
    options: WriterOptions,
    items: u64,
    value: Option<Open>,
    /// The byte that the next part of `value` brings along; 0 before the first.
    before: u8,
    /// What stands before the first part of `value`, until that comes.
    head: Buffer,
    /// Room for `Open::held`, kept from one string to the next.
    room: Vec<u8>,
}

/// A value whose parts are arriving.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Of a string: what is not written yet, and whether pieces were written before.
    held: Vec<u8>,
    in_pieces: bool,
    /// `StreamEnd` or `Whole` was there.
    closed: bool,
}

impl Writer {
    pub fn new(options: WriterOptions) -> Self {
        Writer {
            options,
            items: 0,
            value: None,
            before: 0,
            head: Buffer::new(),
            room: Vec::new(),
        }
    }

    pub fn item(&mut self, item: &Item, out: &mut Buffer) {
        match item {
            Item::Entry(entry) => return self.entry(entry, out),
            Item::Aux { name, value } => {
                self.begin_item(out);
                out.extend_from_slice(b"{\"aux\"");
                text::value(b':', name, out);
                out.extend_from_slice(b",\"value\"");
                text::value(b':', value, out);
            }
            Item::Function { code } => {
                self.begin_item(out);
                out.extend_from_slice(b"{\"function\"");
                text::value(b':', code, out);
            }
            Item::ModuleAux { module, when, raw } => {
                self.begin_item(out);
                out.extend_from_slice(b"{\"module_aux\"");
                module_id(*module, out);
                member(",\"when\":", *when, out);
                out.extend_from_slice(b",\"value\":");
                raw_value(raw, out);
            }
        }
        self.end_item(out);
    }

    pub fn entry(&mut self, entry: &Entry, out: &mut Buffer) {
        self.begin_item(out);
        let style = Style {
            encodings: self.options.encodings,
            documents: true,
        };
        entry_members(entry, style, out);
        self.end_item(out);
    }

    /// A key whose value comes in parts: `begin`, a `part` for each, `end`.
    pub fn begin(&mut self, head: &Head<'_>) {
        assert!(self.value.is_none(), "a value before is not ended");
        self.head.clear();
        key(head, &mut self.head);
        // What it is of a module shows in its part.
        if head.kind != Kind::Module {
            type_and_value(head.kind.name(), None, &mut self.head);
        }
        self.head.extend_from_slice(before_opening(head.kind));
        self.before = 0;
        self.value = Some(Open {
            kind: head.kind,
            held: std::mem::take(&mut self.room),
            in_pieces: false,
            closed: false,
        });
    }

    /// The next part, which must be one that values of this kind have. It stands between `begin` and `end`.
    #[inline]
    pub fn part(&mut self, part: &Part<'_>, out: &mut Buffer) {
        let is_first = self.before == 0;
        if is_first {
            self.before = self.first_part(out);
        }
        match part {
            Part::Bytes(_) | Part::StreamEnd(_) | Part::Whole(_) => {
                self.lone_part(is_first, part, out);
            }
            part => push_part(self.before, part, out),
        }
        self.before = b',';
    }

    /// A part that no comma parts from others.
    #[inline(never)]
    fn lone_part(&mut self, is_first: bool, part: &Part<'_>, out: &mut Buffer) {
        let Some(open) = &mut self.value else { return };
        match part {
            Part::Bytes(bytes) => open.hold(is_first, bytes, out),
            Part::StreamEnd(stream) => {
                stream_end(self.before, stream, out);
                open.closed = true;
            }
            Part::Whole(value) => {
                value_members(value, STYLE_OF_PARTS, out);
                open.closed = true;
            }
            part => push_part(self.before, part, out),
        }
    }

    /// Writes what stands before the first part; the answer is the byte that the part brings along.
    #[inline(never)]
    fn first_part(&mut self, out: &mut Buffer) -> u8 {
        self.begin_item(out);
        out.extend_from_slice(&self.head);
        let open = self.value.as_ref();
        opening(open.expect("a part stands between begin and end").kind)
    }

    /// Behind the last part. A string without parts is empty; anything else without parts was an empty collection, which
    /// servers skip: nothing is written.
    ///
    /// # Panics
    /// If the stream had parts but no `StreamEnd`.
    pub fn end(&mut self, out: &mut Buffer) {
        let open = self.value.as_ref();
        if open.is_some_and(|open| open.kind == Kind::String && self.before == 0) {
            self.part(&Part::Bytes(b""), out);
        }
        let open = self.value.take().expect("end stands behind begin");
        if std::mem::take(&mut self.before) == 0 {
            self.room = open.held;
            return;
        }
        let kind = open.kind;
        assert!(
            open.closed || kind != Kind::Stream,
            "a stream ended before its last part"
        );
        self.room = open.close(out);
        self.end_item(out);
    }

    /// Instead of `end`, where a value turned out to be damaged: what has been written of it becomes an item that says
    /// so, and that readers refuse.
    pub fn abandon(&mut self, out: &mut Buffer) {
        let open = self.value.take().expect("abandon stands behind begin");
        if std::mem::take(&mut self.before) == 0 {
            self.room = open.held;
            return;
        }
        if open.kind == Kind::Stream && !open.closed {
            out.extend_from_slice(b"]}");
        }
        self.room = open.close(out);
        out.extend_from_slice(b",\"damaged\":true");
        self.end_item(out);
    }

    /// What stands behind the last item, once.
    pub fn finish(&mut self, out: &mut Buffer) {
        if self.options.form == Form::Document {
            if self.items == 0 {
                document_head(out);
            }
            out.extend_from_slice(b"\n]}\n");
        }
    }

    fn begin_item(&mut self, out: &mut Buffer) {
        if self.options.form == Form::Document {
            match self.items {
                0 => document_head(out),
                _ => out.push(b','),
            }
            out.push(b'\n');
        }
        self.items += 1;
    }

    fn end_item(&self, out: &mut Buffer) {
        out.push(b'}');
        if self.options.form == Form::Lines {
            out.push(b'\n');
        }
    }
}

fn document_head(out: &mut Buffer) {
    let head = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"items\":[");
    out.extend_from_slice(head.as_bytes());
}

const STYLE_OF_PARTS: Style = Style {
    encodings: false,
    documents: true,
};

// Strings in pieces.

impl Open {
    /// Takes the next piece of a string; what was held before is written, as it is now known not to be the last.
    fn hold(&mut self, is_first: bool, bytes: &[u8], out: &mut Buffer) {
        if !is_first {
            let whole = whole_characters(&self.held);
            self.piece(whole, out);
            self.held.drain(..whole);
        }
        self.held.extend_from_slice(bytes);
    }

    fn piece(&mut self, len: usize, out: &mut Buffer) {
        let before = match self.in_pieces {
            true => b',',
            false => {
                out.extend_from_slice(b":{\"pieces\":");
                b'['
            }
        };
        self.in_pieces = true;
        text::value(before, &self.held[..len], out);
    }

    /// Writes what closes the value, and gives the room of `held` back.
    fn close(mut self, out: &mut Buffer) -> Vec<u8> {
        match self.kind {
            Kind::String if self.in_pieces => {
                self.piece(self.held.len(), out);
                out.extend_from_slice(b"]}");
            }
            Kind::String => text::value(b':', &self.held, out),
            kind => out.extend_from_slice(closing(kind)),
        }
        self.held.clear();
        self.held
    }
}

/// The length of `bytes` without a character that is cut at their end; all of it if it is no text anyway.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}
