//! What an entry is made of, as members of an object: key and attributes, values, and the parts of a value.

use super::buffer::Buffer;
use super::{base64, number, parser, text};
use crate::assemble::Encoding;
use crate::dataset::{Attributes, Entry};
use crate::encoding::listpack::Element;
use crate::encoding::stream::{self, StreamId};
use crate::parts::{Head, Part};
use crate::rdb::record::ModuleId;
use crate::rdb::type_code;
use crate::value::{Idempotence, Kind, ModuleValue, StreamGroup, StreamValue, Value};

/// An opening bracket, database, key and attributes.
pub(super) fn key(head: &Head<'_>, out: &mut Buffer) {
    member("{\"db\":", head.db, out);
    out.extend_from_slice(b",\"key\"");
    text::value(b':', head.key, out);
    attributes(&head.attributes, out);
    out.push(b',');
}

fn attributes(attributes: &Attributes, out: &mut Buffer) {
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
pub(crate) fn entry_members(entry: &Entry, style: Style, out: &mut Buffer) {
    key(&entry.head(), out);
    value_members(&entry.value, style, out);
}

/// `"type":…,"value":…` and what else belongs to `value`.
pub(crate) fn value_members(value: &Value, style: Style, out: &mut Buffer) {
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
                text::value(b':', encoding.as_bytes(), out);
            }
        }
    }
}

#[inline]
fn has_signed_zero(part: &Part<'_>) -> bool {
    matches!(part, Part::ZSetMember { score, .. } if score.to_bits() == (-0.0f64).to_bits())
}

pub(super) fn type_and_value(name: &str, encoding: Option<Encoding>, out: &mut Buffer) {
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
pub(super) fn before_opening(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::String | Kind::Module => b"",
        Kind::List | Kind::Set | Kind::Hash | Kind::ZSet => b":",
        Kind::Stream => b":{\"entries\":",
    }
}

pub(super) fn opening(kind: Kind) -> u8 {
    match kind {
        Kind::String | Kind::Module => b':',
        Kind::List | Kind::Set | Kind::Stream => b'[',
        Kind::Hash | Kind::ZSet => b'{',
    }
}

/// `StreamEnd` closes a stream.
pub(super) fn closing(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::String | Kind::Module | Kind::Stream => b"",
        Kind::List | Kind::Set => b"]",
        Kind::Hash | Kind::ZSet => b"}",
    }
}

/// A part that others stand beside, behind the comma or the bracket `before` it.
#[inline]
pub(super) fn push_part(before: u8, part: &Part<'_>, out: &mut Buffer) {
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
            let (member, score) = (*member, *score);
            if score as i64 as f64 == score && score.abs() <= EXACT {
                text::name(before, member, out);
                push_whole_score(score, out);
            } else {
                push_with_fraction(before, member, score, out);
            }
        }
        Part::StreamEntry(entry) => stream_entry(before, entry, out),
        Part::Bytes(_) | Part::StreamEnd(_) | Part::Whole(_) => {
            unreachable!("stands alone")
        }
    }
}

#[inline]
fn expiring(before: u8, element: Element<'_>, expire_at_ms: Option<i64>, out: &mut Buffer) {
    match expire_at_ms {
        None => text::element(before, element, out),
        Some(at_ms) => with_expiry(before, element, at_ms, out),
    }
}

#[inline(never)]
fn with_expiry(before: u8, element: Element<'_>, at_ms: i64, out: &mut Buffer) {
    out.push(before);
    out.extend_from_slice(b"{\"value\"");
    text::element(b':', element, out);
    member(",\"expire_at_ms\":", at_ms, out);
    out.push(b'}');
}

/// Integers up to here are exact.
const EXACT: f64 = (1i64 << 53) as f64;

/// A member whose score has a fraction, or is beyond what is exact, or no number.
///
/// The shortest digits that read back as the same double; those of the servers are not always the shortest, and take longer.
#[inline(never)]
fn push_with_fraction(before: u8, member: Element<'_>, score: f64, out: &mut Buffer) {
    if score.is_infinite() {
        text::name(before, member, out);
        return text::value(b':', if score > 0.0 { b"inf" } else { b"-inf" }, out);
    }
    // Digits first: to copy them at once would wait for their stores.
    let mut room = zmij::Buffer::new();
    let digits = room.format_finite(score);
    text::name(before, member, out);
    number::append_digits(digits.as_bytes(), out);
}

/// A colon and a score without a fraction; `-0` keeps its sign.
#[inline(never)]
fn push_whole_score(score: f64, out: &mut Buffer) {
    let whole = score as i64;
    match whole == 0 && score.is_sign_negative() {
        true => out.extend_from_slice(b":-0"),
        false => {
            out.push(b':');
            number::append_signed(whole, out);
        }
    }
}

fn stream_entry(before: u8, entry: &stream::Entry<'_>, out: &mut Buffer) {
    out.array([before, b'{', b'"', b'i', b'd', b'"', b':', b'"']);
    number::append_id(entry.id, out);
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
pub(super) fn stream_end(before: u8, stream: &StreamValue, out: &mut Buffer) {
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

fn idempotence(known: &Idempotence, out: &mut Buffer) {
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

fn stream_group(group: &StreamGroup, out: &mut Buffer) {
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
fn module_members(module: &ModuleValue, style: Style, out: &mut Buffer) {
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
fn document_members(document: &[u8], style: Style, out: &mut Buffer) {
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
pub(super) fn module_id(module: ModuleId, out: &mut Buffer) {
    text::value(b':', module.name().as_bytes(), out);
    member(",\"version\":", module.encoding_version(), out);
}

fn array<T>(items: &[T], out: &mut Buffer, write: impl Fn(&T, &mut Buffer)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

pub(super) fn member(before: &str, number: impl itoa::Integer, out: &mut Buffer) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// `before` ends with a quote.
#[inline]
fn id(before: &str, id: StreamId, out: &mut Buffer) {
    out.extend_from_slice(before.as_bytes());
    number::append_id(id, out);
}

/// Always base64: stored bytes are never text, even where they look like it.
pub(super) fn raw_value(bytes: &[u8], out: &mut Buffer) {
    out.extend_from_slice(b"{\"base64\":\"");
    base64::encode(bytes, out);
    out.extend_from_slice(b"\"}");
}
