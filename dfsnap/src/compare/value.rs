//! Digests of values that do not depend on encodings, on the order of members, or on the pieces a value comes in.
//!
//! ```text
//! string  two 64-bit hashes of its bytes
//! others  sum over the elements of hash(name, hash of the rest)
//!         list: name = position · set: member · hash: field · zset: member · stream: id
//! ```
//! Not compared, since formats and versions differ in it: counters of streams and groups, and when consumers were last
//! seen.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::parts::Part;
use dfsnap_formats::value::{StreamGroup, StreamValue, Value};
use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// An element of a value: what it is called, the hash of what belongs to it, and that for people.
pub struct Named<'a> {
    pub name: &'a [u8],
    pub hash: u128,
    /// The first bytes; empty unless asked for.
    pub shown: &'a [u8],
}

/// Bytes of a value that are kept for people.
pub const SHOWN_MAX: usize = 64;

/// Walks over the parts of one value.
pub struct Elements {
    /// Of the next element of a list.
    index: u64,
    with_text: bool,
    name: Vec<u8>,
    rest: Vec<u8>,
    /// Of a string: its hashes, length, and beginning.
    text: Option<(DefaultHasher, DefaultHasher)>,
    text_bytes: u64,
    digest: u128,
}

impl Elements {
    /// `with_text`: elements come with text for people.
    pub fn new(with_text: bool) -> Self {
        Elements {
            index: 0,
            with_text,
            name: Vec::new(),
            rest: Vec::new(),
            text: None,
            text_bytes: 0,
            digest: 0,
        }
    }

    pub fn begin(&mut self) {
        self.index = 0;
        self.text = None;
        self.text_bytes = 0;
        self.rest.clear();
        self.digest = 0;
    }

    /// Takes a part, and gives the element that it is. A string is one element, which `finish` gives.
    pub fn take(&mut self, part: &Part<'_>) -> Option<Named<'_>> {
        self.name.clear();
        if !matches!(part, Part::Bytes(_)) {
            self.rest.clear();
        }
        let mut shown = 0;
        match part {
            Part::Bytes(bytes) => {
                self.bytes(bytes);
                return None;
            }
            Part::ListElement(element) => {
                self.name.extend_from_slice(&self.index.to_be_bytes());
                self.index += 1;
                put(&mut self.rest, *element);
                shown = self.rest.len();
            }
            Part::SetMember {
                member,
                expire_at_ms,
            } => {
                put(&mut self.name, *member);
                put_expiry(&mut self.rest, *expire_at_ms);
            }
            Part::HashField(field) => {
                put(&mut self.name, field.field);
                put(&mut self.rest, field.value);
                shown = self.rest.len();
                put_expiry(&mut self.rest, field.expire_at_ms);
            }
            Part::ZSetMember { member, score } => {
                put(&mut self.name, *member);
                // Servers that pack a sorted set lose the sign of zero.
                let score = if *score == 0.0 { 0.0 } else { *score };
                match self.with_text {
                    true => self.rest.extend_from_slice(score.to_string().as_bytes()),
                    false => self.rest.extend_from_slice(&score.to_bits().to_be_bytes()),
                }
                shown = self.rest.len();
            }
            Part::StreamEntry(entry) => {
                self.name
                    .extend_from_slice(format!("{}-{}", entry.id.ms, entry.id.seq).as_bytes());
                for (field, value) in entry.pairs() {
                    put(&mut self.rest, field);
                    self.rest.push(0);
                    put(&mut self.rest, value);
                    self.rest.push(0);
                }
            }
            Part::StreamEnd(stream) => {
                self.name.extend_from_slice(b"last id and groups");
                put_groups(&mut self.rest, stream);
            }
            Part::Whole(value) => whole(&mut self.rest, value),
        }
        let named = Named {
            name: &self.name,
            hash: hash(&[&self.rest]),
            shown: match self.with_text {
                true => &self.rest[..shown.min(SHOWN_MAX)],
                false => &[],
            },
        };
        let both = hash(&[named.name, &named.hash.to_be_bytes()]);
        self.digest = self.digest.wrapping_add(both);
        Some(named)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (first, second) = self.text.get_or_insert_with(|| {
            let mut second = DefaultHasher::new();
            second.write(b"second");
            (DefaultHasher::new(), second)
        });
        // These hashers do not care how bytes are cut.
        first.write(bytes);
        second.write(bytes);
        self.text_bytes += bytes.len() as u64;
        let room = SHOWN_MAX.saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The digest of all that was taken.
    pub fn digest(&self) -> u128 {
        match &self.text {
            None => self.digest,
            Some((first, second)) => {
                let halves = u128::from(first.finish()) << 64 | u128::from(second.finish());
                halves ^ u128::from(self.text_bytes)
            }
        }
    }

    /// The string that was taken, as an element without name. None: it was no string.
    pub fn string(&self) -> Option<Named<'_>> {
        self.text.as_ref().map(|_| Named {
            name: b"",
            hash: self.digest(),
            shown: &self.rest,
        })
    }
}

/// The hash of several texts, none of which runs into the next.
fn hash(texts: &[&[u8]]) -> u128 {
    let half = |seed| {
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        for text in texts {
            hasher.write_u64(text.len() as u64);
            hasher.write(text);
        }
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn put(out: &mut Vec<u8>, element: Element<'_>) {
    match element {
        Element::Str(text) => out.extend_from_slice(text),
        Element::Int(number) => {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes())
        }
    }
}

fn put_expiry(out: &mut Vec<u8>, expire_at_ms: Option<i64>) {
    if let Some(at_ms) = expire_at_ms {
        out.push(0);
        out.extend_from_slice(&at_ms.to_be_bytes());
    }
}

fn put_groups(out: &mut Vec<u8>, stream: &StreamValue) {
    out.extend_from_slice(format!("{}-{}", stream.last_id.ms, stream.last_id.seq).as_bytes());
    let mut groups: Vec<&StreamGroup> = stream.groups.iter().collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for group in groups {
        out.push(0);
        out.extend_from_slice(&group.name);
        out.extend_from_slice(&group.last_id.ms.to_be_bytes());
        out.extend_from_slice(&group.last_id.seq.to_be_bytes());
        for pending in &group.pending {
            out.extend_from_slice(&pending.id.ms.to_be_bytes());
            out.extend_from_slice(&pending.id.seq.to_be_bytes());
            out.extend_from_slice(&pending.deliveries.to_be_bytes());
            let consumer = group.consumers.get(pending.consumer as usize);
            out.extend(consumer.iter().flat_map(|consumer| &consumer.name));
            out.push(0);
        }
        let mut names: Vec<&[u8]> = group.consumers.iter().map(|c| &c.name[..]).collect();
        names.sort_unstable();
        for name in names {
            out.push(0);
            out.extend_from_slice(name);
        }
    }
}

/// A document is the same whether Dragonfly or a module keeps it.
fn whole(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Module(module) => match module.json() {
            Some(text) => out.extend_from_slice(&text),
            None => out.extend_from_slice(&module.raw),
        },
        Value::Json(text) => out.extend_from_slice(text),
        Value::Sketch(sketch) => {
            out.push(sketch.type_code);
            out.extend_from_slice(&sketch.raw);
        }
        // Those come in parts.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::encoding::intset::Intset;
    use dfsnap_formats::value::{ListNode, SetValue};

    fn digest(value: &Value) -> u128 {
        let mut elements = Elements::new(false);
        elements.begin();
        value
            .for_each_part(|part| {
                elements.take(&part);
                Ok::<_, ()>(())
            })
            .unwrap();
        elements.digest()
    }

    #[test]
    fn order_and_encoding_of_sets_do_not_matter() {
        let members = |list: &[&str]| {
            let members = list.iter().map(|text| text.as_bytes().to_vec());
            Value::Set(SetValue::Members(members.collect()))
        };
        let mut packed = Intset::new();
        assert!([3, 1, 2].into_iter().all(|number| packed.insert(number)));
        let want = digest(&members(&["1", "2", "3"]));
        assert_eq!(digest(&members(&["3", "1", "2"])), want);
        assert_eq!(digest(&Value::Set(SetValue::Intset(packed))), want);
        assert_ne!(digest(&members(&["1", "2", "4"])), want);
        assert_ne!(digest(&members(&["12", "3"])), want);
    }

    #[test]
    fn order_of_lists_and_bytes_of_strings_matter_but_pieces_do_not() {
        let list = |list: &[&str]| {
            let nodes = list
                .iter()
                .map(|text| ListNode::Plain(text.as_bytes().to_vec()));
            digest(&Value::List(nodes.collect()))
        };
        assert_ne!(list(&["a", "b"]), list(&["b", "a"]));
        assert_ne!(list(&["ab"]), list(&["a", "b"]));
        let pieces = |pieces: &[&str]| {
            let mut elements = Elements::new(false);
            elements.begin();
            for piece in pieces {
                elements.take(&Part::Bytes(piece.as_bytes()));
            }
            elements.digest()
        };
        assert_eq!(
            pieces(&["hello ", "world, how", "", " are you"]),
            pieces(&["hello world, how are you"])
        );
        assert_ne!(pieces(&["hello"]), pieces(&["hellp"]));
        assert_ne!(pieces(&[""]), digest(&Value::List(Vec::new())));
    }
}
