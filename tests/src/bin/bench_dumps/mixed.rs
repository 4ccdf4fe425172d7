//! Dumps of every type, as large as wanted, the same for the same size.
//!
//! `mixed` has small values and packs for two thirds of its bytes, large collections for the rest. `large` has collections of
//! a hundred thousand elements and no other values, as the dumps have with which the tools were compared that others wrote.

use std::io::{BufWriter, Write};
use std::path::Path;

use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::encoding::intset::Intset;
use dfsnap_formats::encoding::listpack::{Element, Listpack};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::value::{
    HashField, HashValue, ListNode, PendingEntry, SetValue, StreamConsumer, StreamGroup,
    StreamValue, Value, ZSetValue,
};

const WORDS: [&str; 16] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa",
];

/// Makes entries one after another.
pub struct Mixed {
    /// Large collections only.
    is_large: bool,
    random: fastrand::Rng,
    made: u64,
}

impl Mixed {
    pub fn new(is_large: bool) -> Self {
        Mixed {
            is_large,
            random: fastrand::Rng::with_seed(7),
            made: 0,
        }
    }

    fn text(&mut self, words: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..words {
            text.extend_from_slice(WORDS[self.random.usize(..WORDS.len())].as_bytes());
            text.push(b' ');
            text.extend_from_slice(self.random.u16(..).to_string().as_bytes());
        }
        text
    }

    fn number(&mut self) -> i64 {
        let bits = self.random.u32(1..40);
        self.random.i64(..) >> (63 - bits)
    }

    fn pack(&mut self, count: usize) -> Listpack {
        let mut pack = Listpack::new();
        for i in 0..count {
            match self.random.usize(..3) {
                0 => pack.push_back(Element::Int(i as i64 * 1000 + self.random.i64(0..1000))),
                _ => {
                    let text = [format!("{i}:").into_bytes(), self.text(1)].concat();
                    pack.push_back(Element::parse(&text));
                }
            }
        }
        pack
    }

    /// Small values, and now and then a large one: with the sizes below, large collections are a third of the bytes.
    fn value(&mut self) -> Value {
        if self.is_large || self.random.u32(..3000) == 0 {
            return self.large_value();
        }
        match self.random.u32(..100) {
            0..30 => Value::String(self.text(4)),
            30..36 => Value::String(self.number().to_string().into_bytes()),
            36..40 => Value::String(self.text(150)),
            40..58 => Value::Hash(HashValue::Listpack(self.pack(16))),
            58..60 => Value::Hash(HashValue::Fields(self.fields(600))),
            60..70 => {
                let nodes = (0..3).map(|_| ListNode::Packed(self.pack(120)));
                Value::List(nodes.collect())
            }
            70..76 => {
                let mut set = Intset::new();
                (0..100).for_each(|_| {
                    set.insert(i64::from(self.random.i32(..)));
                });
                Value::Set(SetValue::Intset(set))
            }
            76..80 => {
                let names = self.names(200);
                Value::Set(SetValue::Members(names))
            }
            80..90 => {
                let mut pack = Listpack::new();
                for i in 0..40 {
                    pack.push_back(Element::parse(format!("member:{i}").as_bytes()));
                    pack.push_back(Element::Int(i * 10));
                }
                Value::ZSet(ZSetValue::Listpack(pack))
            }
            90..96 => {
                let members = (0..300).map(|i| {
                    let name = [format!("{i}/").into_bytes(), self.text(1)].concat();
                    (name, self.random.f64() * 1e6)
                });
                Value::ZSet(ZSetValue::Members(members.collect()))
            }
            _ => Value::Stream(self.stream()),
        }
    }

    /// A hundred thousand elements.
    fn large_value(&mut self) -> Value {
        const COUNT: usize = 100_000;
        match self.random.u32(..4) {
            0 => Value::Hash(HashValue::Fields(self.fields(COUNT))),
            1 => Value::Set(SetValue::Members(self.names(COUNT))),
            2 => {
                let names = self.names(COUNT).into_iter();
                let scored = names.map(|name| (name, self.random.f64() * 1e6));
                Value::ZSet(ZSetValue::Members(scored.collect()))
            }
            _ => {
                let nodes = (0..COUNT / 500).map(|_| ListNode::Packed(self.pack(500)));
                Value::List(nodes.collect())
            }
        }
    }

    fn names(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|i| [format!("{i}/").into_bytes(), self.text(1)].concat())
            .collect()
    }

    fn fields(&mut self, count: usize) -> Vec<HashField> {
        (0..count)
            .map(|i| HashField {
                field: format!("field:{i}").into_bytes(),
                value: self.text(2),
                expire_at_ms: None,
            })
            .collect()
    }

    fn stream(&mut self) -> StreamValue {
        let mut nodes = Vec::new();
        for node in 0..3u64 {
            let mut pack = Listpack::new();
            for text in ["100", "0", "2", "sensor", "reading", "0"] {
                pack.push_back(Element::parse(text.as_bytes()));
            }
            for entry in 0..100 {
                for number in [2, entry, 0, i64::from(self.random.u8(..))] {
                    pack.push_back(Element::Int(number));
                }
                let text = self.text(1);
                pack.push_back(Element::Str(&text));
                pack.push_back(Element::Int(5));
            }
            nodes.push((StreamId::new(1_600_000_000_000 + node * 100, 0), pack));
        }
        let pending = (0..20).map(|i| PendingEntry {
            id: StreamId::new(1_600_000_000_000 + i, 0),
            delivered_at_ms: 1_600_000_100_000,
            deliveries: 1,
            consumer: 0,
        });
        let last_id = StreamId::new(1_600_000_000_299, 0);
        StreamValue {
            nodes,
            length: 300,
            last_id,
            first_id: StreamId::new(1_600_000_000_000, 0),
            entries_added: 300,
            groups: vec![StreamGroup {
                name: b"readers".to_vec(),
                last_id,
                entries_read: 300,
                pending: pending.collect(),
                consumers: vec![StreamConsumer {
                    name: b"worker".to_vec(),
                    seen_at_ms: 1_600_000_100_000,
                    active_at_ms: 1_600_000_100_000,
                }],
            }],
            ..StreamValue::default()
        }
    }
}

impl Iterator for Mixed {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.made += 1;
        let key = format!("{}:{}", WORDS[self.random.usize(..8)], self.made);
        let mut entry = Entry::new(0, key.as_bytes(), self.value());
        if self.random.u8(..) < 40 {
            // Far ahead: nothing expires while somebody measures.
            entry.attributes.expire_at_ms = Some(4_000_000_000_000 + self.random.i64(0..1 << 32));
        }
        Some(entry)
    }
}

/// Writes a file of about `megabytes` that Redis 7.0 loads; gives the number of keys.
pub fn make(path: &Path, megabytes: u64, is_large: bool) -> anyhow::Result<u64> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let mut writer = RdbWriter::new(Target::default());
    writer.aux(b"redis-ver", b"7.0.15");
    let mut bytes = 0;
    let mut keys = 0;
    for entry in Mixed::new(is_large) {
        writer.item(&Item::Entry(entry))?;
        keys += 1;
        if writer.pending() > 1 << 20 {
            bytes += writer.pending() as u64;
            writer.drain(|piece| file.write_all(piece))?;
            if bytes >= megabytes << 20 {
                break;
            }
        }
    }
    writer.finish();
    writer.drain(|piece| file.write_all(piece))?;
    file.into_inner().map_err(|error| error.into_error())?;
    Ok(keys)
}
