//! Items to text: one line each, or all in one document.
//!
//! Converters call it with whole items, or with a key and the parts of its value as they go by. Text is appended to a
//! buffer of the caller, who takes it out whenever that suits; nothing here waits for the end of a value, but for the
//! first piece of a string, which is held until it is known whether it is the only one.

use super::{FORMAT, VERSION, base64, number, parser, text};
use crate::assemble::Encoding;
use crate::dataset::{Attributes, Entry, Item};
use crate::encoding::listpack::Element;
use crate::encoding::stream::{self, StreamId};
use crate::parts::{Head, Part};
use crate::rdb::record::ModuleId;
use crate::rdb::type_code;
use crate::value::{Idempotence, Kind, ModuleValue, StreamGroup, StreamValue, Value};

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
/// use dfsnap_formats::json::{Writer, WriterOptions};
/// use dfsnap_formats::value::{SetValue, Value};
/// let set = Value::Set(SetValue::Members(vec![b"a".to_vec(), b"\xff".to_vec()]));
/// let mut writer = Writer::new(WriterOptions::default());
/// let mut out = Vec::new();
/// writer.item(&Item::Entry(Entry::new(0, b"tags", set)), &mut out);
/// writer.finish(&mut out);
/// assert_eq!(
///     String::from_utf8(out).unwrap(),
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
    head: Vec<u8>,
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
            head: Vec::new(),
            room: Vec::new(),
        }
    }

    pub fn item(&mut self, item: &Item, out: &mut Vec<u8>) {
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

    pub fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) {
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
    pub fn part(&mut self, part: &Part<'_>, out: &mut Vec<u8>) {
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
    fn lone_part(&mut self, is_first: bool, part: &Part<'_>, out: &mut Vec<u8>) {
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
    fn first_part(&mut self, out: &mut Vec<u8>) -> u8 {
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
    pub fn end(&mut self, out: &mut Vec<u8>) {
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
    pub fn abandon(&mut self, out: &mut Vec<u8>) {
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
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.options.form == Form::Document {
            if self.items == 0 {
                document_head(out);
            }
            out.extend_from_slice(b"\n]}\n");
        }
    }

    fn begin_item(&mut self, out: &mut Vec<u8>) {
        if self.options.form == Form::Document {
            match self.items {
                0 => document_head(out),
                _ => out.push(b','),
            }
            out.push(b'\n');
        }
        self.items += 1;
    }

    fn end_item(&self, out: &mut Vec<u8>) {
        out.push(b'}');
        if self.options.form == Form::Lines {
            out.push(b'\n');
        }
    }
}

fn document_head(out: &mut Vec<u8>) {
    let head = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"items\":[");
    out.extend_from_slice(head.as_bytes());
}

/// An opening bracket, database, key and attributes.
fn key(head: &Head<'_>, out: &mut Vec<u8>) {
    member("{\"db\":", head.db, out);
    out.extend_from_slice(b",\"key\"");
    text::value(b':', head.key, out);
    attributes(&head.attributes, out);
    out.push(b',');
}

fn attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    if let Some(at_ms) = attributes.expire_at_ms {
        member(",\"expire_at_ms\":", at_ms, out);
    }
    if let Some(seconds) = attributes.idle_s {
        member(",\"idle_s\":", seconds, out);
    }
    if let Some(counter) = attributes.freq {
        member(",\"freq\":", counter, out);
    }
    if attributes.sticky {
        out.extend_from_slice(b",\"sticky\":true");
    }
    if let Some(flags) = attributes.memcached_flags {
        member(",\"memcached_flags\":", flags, out);
    }
    if attributes.meta_classes > 0 {
        member(",\"meta_classes\":", attributes.meta_classes, out);
    }
}

/// What may differ in how a value is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) encodings: bool,
    /// Documents stand as JSON; otherwise their text is a string, which other writers and readers leave as it is.
    pub(crate) documents: bool,
}

/// An entry without its closing bracket.
pub(crate) fn entry_members(entry: &Entry, style: Style, out: &mut Vec<u8>) {
    key(&entry.head(), out);
    value_members(&entry.value, style, out);
}

// Values.

/// `"type":…,"value":…` and what else belongs to `value`.
pub(crate) fn value_members(value: &Value, style: Style, out: &mut Vec<u8>) {
    let kind = value.kind();
    match value {
        Value::Module(module) => module_members(module, style, out),
        Value::Json(document) => document_members(document, style, out),
        Value::Sketch(sketch) => {
            out.extend_from_slice(b"\"type\":\"sketch\",\"sketch\"");
            text::value(b':', type_code::name(sketch.type_code).as_bytes(), out);
            out.extend_from_slice(b",\"value\":");
            raw_value(&sketch.raw, out);
        }
        value => {
            let encoding = Encoding::of(value).filter(|_| style.encodings);
            type_and_value(kind.name(), encoding, out);
            if let Value::String(bytes) = value {
                return text::value(b':', bytes, out);
            }
            out.extend_from_slice(before_opening(kind));
            let (mut before, mut signed_zero) = (opening(kind), false);
            let parts = value.for_each_part(|part| {
                match part {
                    Part::StreamEnd(stream) => stream_end(before, stream, out),
                    part => {
                        signed_zero |= has_signed_zero(&part);
                        push_part(before, &part, out);
                    }
                }
                before = b',';
                Ok::<(), std::convert::Infallible>(())
            });
            let Ok(()) = parts;
            if before != b',' {
                out.push(before);
            }
            out.extend_from_slice(closing(kind));
            // Servers lose the sign when they pack a sorted set, not when it comes packed.
            if signed_zero && !style.encodings {
                let encoding = Encoding::of(value).map_or("", Encoding::name);
                out.extend_from_slice(b",\"encoding\"");
                text::quoted_plain(b':', encoding.as_bytes(), out);
            }
        }
    }
}

#[inline]
fn has_signed_zero(part: &Part<'_>) -> bool {
    matches!(part, Part::ZSetMember { score, .. } if score.to_bits() == (-0.0f64).to_bits())
}

fn type_and_value(name: &str, encoding: Option<Encoding>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"type\":\"");
    out.extend_from_slice(name.as_bytes());
    if let Some(encoding) = encoding {
        out.extend_from_slice(b"\",\"encoding\":\"");
        out.extend_from_slice(encoding.name().as_bytes());
    }
    out.extend_from_slice(b"\",\"value\"");
}

/// What stands before the first part of a value, but for the last byte of it, which `opening` gives: each part brings the
/// byte before it along.
fn before_opening(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::String | Kind::Module => b"",
        Kind::List | Kind::Set | Kind::Hash | Kind::ZSet => b":",
        Kind::Stream => b":{\"entries\":",
    }
}

fn opening(kind: Kind) -> u8 {
    match kind {
        Kind::String | Kind::Module => b':',
        Kind::List | Kind::Set | Kind::Stream => b'[',
        Kind::Hash | Kind::ZSet => b'{',
    }
}

/// `StreamEnd` closes a stream.
fn closing(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::String | Kind::Module | Kind::Stream => b"",
        Kind::List | Kind::Set => b"]",
        Kind::Hash | Kind::ZSet => b"}",
    }
}

/// A part that others stand beside, behind the comma or the bracket `before` it.
#[inline]
fn push_part(before: u8, part: &Part<'_>, out: &mut Vec<u8>) {
    match part {
        Part::ListElement(element) => text::element(before, *element, out),
        Part::SetMember {
            member,
            expire_at_ms,
        } => expiring(before, *member, *expire_at_ms, out),
        Part::HashField(field) => {
            text::name(before, field.field, out);
            expiring(b':', field.value, field.expire_at_ms, out);
        }
        Part::ZSetMember { member, score } => {
            // Digits first: to copy them at once would wait for their stores.
            let mut room = zmij::Buffer::new();
            let digits = digits_of(*score, &mut room);
            text::name(before, *member, out);
            push_score(*score, digits, out);
        }
        Part::StreamEntry(entry) => stream_entry(before, entry, out),
        Part::Bytes(_) | Part::StreamEnd(_) | Part::Whole(_) => {
            unreachable!("stands alone")
        }
    }
}

#[inline]
fn expiring(before: u8, element: Element<'_>, expire_at_ms: Option<i64>, out: &mut Vec<u8>) {
    let Some(at_ms) = expire_at_ms else {
        return text::element(before, element, out);
    };
    out.push(before);
    out.extend_from_slice(b"{\"value\"");
    text::element(b':', element, out);
    member(",\"expire_at_ms\":", at_ms, out);
    out.push(b'}');
}

/// The digits of a number with a fraction, or beyond what is exact; None: another.
///
/// The shortest digits that read back; those of the servers are not always the shortest, and take longer.
#[inline]
fn digits_of(score: f64, room: &mut zmij::Buffer) -> Option<&[u8]> {
    let is_whole = score as i64 as f64 == score && score.abs() <= EXACT;
    (!is_whole && score.is_finite()).then(|| room.format_finite(score).as_bytes())
}

/// Integers up to here are exact.
const EXACT: f64 = (1i64 << 53) as f64;

/// A colon, and a number where JSON has one for it, of which `digits` are those of `digits_of`. They always read back as the same double; `-0`
/// keeps its sign.
#[inline]
fn push_score(score: f64, digits: Option<&[u8]>, out: &mut Vec<u8>) {
    match digits {
        Some(digits) => number::append_digits(digits, out),
        None => push_other_score(score, out),
    }
}

/// A number without a fraction, or none.
#[inline(never)]
fn push_other_score(score: f64, out: &mut Vec<u8>) {
    if score.is_infinite() {
        return text::quoted_plain(b':', if score > 0.0 { b"inf" } else { b"-inf" }, out);
    }
    let whole = score as i64;
    match whole == 0 && score.is_sign_negative() {
        true => out.extend_from_slice(b":-0"),
        false => {
            out.push(b':');
            number::append_signed(whole, out);
        }
    }
}

fn stream_entry(before: u8, entry: &stream::Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[before, b'{', b'"', b'i', b'd', b'"', b':', b'"']);
    number::append_id(entry.id.ms, entry.id.seq, out);
    out.extend_from_slice(b",\"fields\":");
    let mut before = b'[';
    for (field, value) in entry.pairs() {
        text::element(before, field, out);
        text::element(b',', value, out);
        before = b',';
    }
    if before != b',' {
        out.push(before);
    }
    out.extend_from_slice(b"]}");
}

/// Closes the entries, then counters and groups.
fn stream_end(before: u8, stream: &StreamValue, out: &mut Vec<u8>) {
    if before != b',' {
        out.push(before);
    }
    member("],\"length\":", stream.length, out);
    id(",\"last_id\":\"", stream.last_id, out);
    id(",\"first_id\":\"", stream.first_id, out);
    id(",\"max_deleted_id\":\"", stream.max_deleted_id, out);
    member(",\"entries_added\":", stream.entries_added, out);
    if !stream.groups.is_empty() {
        out.extend_from_slice(b",\"groups\":");
        array(&stream.groups, out, stream_group);
    }
    if let Some(known) = &stream.idempotence {
        idempotence(known, out);
    }
    out.push(b'}');
}

fn idempotence(known: &Idempotence, out: &mut Vec<u8>) {
    member(",\"idempotence\":{\"duration_s\":", known.duration_s, out);
    member(",\"entries_max\":", known.entries_max, out);
    member(",\"added\":", known.added, out);
    member(",\"duplicates\":", known.duplicates, out);
    out.extend_from_slice(b",\"producers\":");
    array(&known.producers, out, |producer, out| {
        out.extend_from_slice(b"{\"id\"");
        text::value(b':', &producer.id, out);
        out.extend_from_slice(b",\"entries\":");
        array(&producer.entries, out, |(chosen, became), out| {
            text::value(b'[', chosen, out);
            id(",\"", *became, out);
            out.push(b']');
        });
        out.push(b'}');
    });
    out.push(b'}');
}

fn stream_group(group: &StreamGroup, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"name\"");
    text::value(b':', &group.name, out);
    id(",\"last_id\":\"", group.last_id, out);
    member(",\"entries_read\":", group.entries_read, out);
    out.extend_from_slice(b",\"consumers\":");
    array(&group.consumers, out, |consumer, out| {
        out.extend_from_slice(b"{\"name\"");
        text::value(b':', &consumer.name, out);
        member(",\"seen_at_ms\":", consumer.seen_at_ms, out);
        member(",\"active_at_ms\":", consumer.active_at_ms, out);
        out.push(b'}');
    });
    out.extend_from_slice(b",\"pending\":");
    array(&group.pending, out, |entry, out| {
        id("{\"id\":\"", entry.id, out);
        // Values keep the promise that each pending entry has a consumer.
        if let Some(consumer) = group.consumers.get(entry.consumer as usize) {
            out.extend_from_slice(b",\"consumer\"");
            text::value(b':', &consumer.name, out);
        }
        member(",\"delivered_at_ms\":", entry.delivered_at_ms, out);
        member(",\"deliveries\":", entry.deliveries, out);
        out.push(b'}');
    });
    out.push(b'}');
}

/// A document of RedisJSON stands as JSON; its stored bytes stand beside it unless they follow from it.
fn module_members(module: &ModuleValue, style: Style, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"type\":\"module\",\"module\"");
    module_id(module.id, out);
    let document = module.json();
    let document = document.filter(|text| style.documents && parser::is_document(text));
    if let Some(text) = &document {
        out.extend_from_slice(b",\"document\":");
        out.extend_from_slice(text);
    }
    if document.is_none_or(|text| ModuleValue::of_json(&text) != *module) {
        out.extend_from_slice(b",\"value\":");
        raw_value(&module.raw, out);
    }
}

/// A document of Dragonfly: as JSON if its text is sound and stands on one line, else as a string.
fn document_members(document: &[u8], style: Style, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"type\":\"json\",");
    if style.documents && parser::is_document(document) {
        out.extend_from_slice(b"\"document\":");
        out.extend_from_slice(document);
    } else {
        out.extend_from_slice(b"\"value\"");
        text::value(b':', document, out);
    }
}

/// A colon, name and encoding version.
fn module_id(module: ModuleId, out: &mut Vec<u8>) {
    text::quoted_plain(b':', module.name().as_bytes(), out);
    member(",\"version\":", module.encoding_version(), out);
}

const STYLE_OF_PARTS: Style = Style {
    encodings: false,
    documents: true,
};

// Strings in pieces.

impl Open {
    /// Takes the next piece of a string; what was held before is written, as it is now known not to be the last.
    fn hold(&mut self, is_first: bool, bytes: &[u8], out: &mut Vec<u8>) {
        if !is_first {
            let whole = whole_characters(&self.held);
            self.piece(whole, out);
            self.held.drain(..whole);
        }
        self.held.extend_from_slice(bytes);
    }

    fn piece(&mut self, len: usize, out: &mut Vec<u8>) {
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
    fn close(mut self, out: &mut Vec<u8>) -> Vec<u8> {
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

// Pieces of text.

fn array<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn member(before: &str, number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// `before` ends with a quote.
#[inline]
fn id(before: &str, id: StreamId, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    number::append_id(id.ms, id.seq, out);
}

/// Always base64: stored bytes are never text, even where they look like it.
fn raw_value(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"base64\":\"");
    base64::encode(bytes, out);
    out.extend_from_slice(b"\"}");
}
