//! The listing of a dataset: a line a key, with a hash over the canonical form of its value.

use super::{Key, sha256};
use dfsnap_formats::rdb::record::ModuleId;
use dfsnap_formats::rdb::type_code;
use dfsnap_formats::value::{Kind, ModuleOp, StreamValue, Value, list_elements};
use std::fmt::Write;

/// What a listing says about a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub db: u32,
    pub key: Vec<u8>,
    pub kind: &'static str,
    pub expire_ms: Option<i64>,
    pub n: u64,
    pub sha256: String,
}

impl Line {
    pub fn of(key: &Key) -> Line {
        let n = match &key.value {
            Value::Module(module) => module.ops().unwrap().len(),
            Value::Sketch(_) => 0,
            value => value.count(),
        };
        Line {
            db: key.db,
            key: key.key.clone(),
            kind: key.value.kind().name(),
            expire_ms: key.expire_at_ms,
            n: n as u64,
            sha256: sha256::hex(canonical(&key.value).as_bytes()),
        }
    }

    /// A line of a `.keys.jsonl` file.
    pub fn parse(text: &str) -> Line {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let kind = json["type"].as_str().unwrap();
        let kinds = [
            Kind::String,
            Kind::List,
            Kind::Set,
            Kind::ZSet,
            Kind::Hash,
            Kind::Module,
            Kind::Stream,
        ];
        Line {
            db: json["db"].as_u64().unwrap() as u32,
            key: json["key"]
                .as_str()
                .unwrap()
                .chars()
                .map(|c| c as u8)
                .collect(),
            kind: kinds
                .iter()
                .map(|kind| kind.name())
                .find(|name| *name == kind)
                .unwrap(),
            expire_ms: json["expire_ms"].as_i64(),
            n: json["n"].as_u64().unwrap(),
            sha256: json["sha256"].as_str().unwrap().to_owned(),
        }
    }

    /// The line as it goes into the hash over a whole listing.
    pub fn reduced(&self) -> String {
        let expire = match self.expire_ms {
            Some(at_ms) => at_ms.to_string(),
            None => "null".to_owned(),
        };
        format!(
            "{{\"db\":{},\"key\":{},\"type\":\"{}\",\"expire_ms\":{expire},\"n\":{},\"sha256\":\"{}\"}}\n",
            self.db,
            text(&self.key),
            self.kind,
            self.n,
            self.sha256
        )
    }
}

/// The lines of all keys, sorted.
pub fn listing(keys: &[Key]) -> Vec<Line> {
    let mut lines: Vec<Line> = keys.iter().map(Line::of).collect();
    lines.sort();
    lines
}

fn text(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(char::from(*byte)),
            byte => write!(out, "\\u{byte:04x}").unwrap(),
        }
    }
    out.push('"');
    out
}

fn array(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

fn canonical(value: &Value) -> String {
    match value {
        Value::String(bytes) => text(bytes),
        Value::List(nodes) => array(list_elements(nodes).map(|element| text(&element.to_vec()))),
        Value::Set(set) => {
            let mut members: Vec<_> = set.members().map(|member| member.to_vec()).collect();
            members.sort();
            array(members.iter().map(|member| text(member)))
        }
        Value::Hash(hash) => {
            let mut fields: Vec<_> = hash
                .fields()
                .map(|f| (f.field.to_vec(), f.value.to_vec(), f.expire_at_ms))
                .collect();
            fields.sort();
            array(fields.iter().map(|(field, value, at_ms)| {
                let at_ms = at_ms.map_or("null".to_owned(), |at_ms| at_ms.to_string());
                array([text(field), text(value), at_ms])
            }))
        }
        Value::ZSet(zset) => {
            let mut members: Vec<_> = zset
                .members()
                .map(|(member, score)| (score + 0.0, member.to_vec()))
                .collect();
            members.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
            array(members.iter().map(|(score, member)| {
                array([text(member), format!("\"{:016x}\"", score.to_bits())])
            }))
        }
        Value::Stream(stream) => canonical_stream(stream),
        Value::Json(document) => foreign(
            &ModuleId::REJSON_3.name(),
            &array([text(b"string"), text(document)]),
        ),
        Value::Sketch(sketch) => foreign(sketch_module(sketch.type_code), ""),
        Value::Module(module) => {
            let ops = module.ops().unwrap();
            let ops = ops.iter().map(|op| {
                let (name, value) = match op {
                    ModuleOp::SignedInt(number) => ("int", number.to_string()),
                    ModuleOp::UnsignedInt(number) => ("uint", number.to_string()),
                    ModuleOp::Float(number) => ("float", format!("\"{:?}\"", f64::from(*number))),
                    ModuleOp::Double(number) => ("double", format!("\"{number:?}\"")),
                    ModuleOp::String(bytes) => ("string", text(bytes)),
                };
                array([text(name.as_bytes()), value])
            });
            format!(
                "{{\"module\":{},\"encver\":{},\"body\":{}}}",
                text(module.id.name().as_bytes()),
                module.id.encoding_version(),
                array(ops)
            )
        }
    }
}

/// A type of Dragonfly's own: listings call it by the name that TYPE gives, with what can be read of it.
fn foreign(name: &str, body: &str) -> String {
    format!("{{\"module\":\"{name}\",\"encver\":0,\"body\":[{body}]}}")
}

fn sketch_module(code: u8) -> &'static str {
    match code {
        type_code::BLOOM | type_code::BLOOM_2 => "MBbloom--",
        type_code::COUNT_MIN_SKETCH => "CMSk-TYPE",
        type_code::TOP_K => "TopK-TYPE",
        type_code::CUCKOO => "MBbloomCF",
        code => panic!("type {code} is no sketch"),
    }
}

fn canonical_stream(stream: &StreamValue) -> String {
    let entries = stream.entries().map(|entry| {
        let pairs = entry.pairs();
        let texts = pairs.flat_map(|(field, value)| [text(&field.to_vec()), text(&value.to_vec())]);
        array([format!("\"{}\"", entry.id), array(texts)])
    });
    let mut groups: Vec<_> = stream.groups.iter().collect();
    groups.sort_by_key(|group| &group.name);
    let groups = groups.iter().map(|group| {
        let mut consumers: Vec<_> = group.consumers.iter().collect();
        consumers.sort_by_key(|consumer| &consumer.name);
        let consumers = consumers
            .iter()
            .map(|consumer| array([text(&consumer.name), consumer.seen_at_ms.to_string()]));
        let pending = group.pending.iter().map(|entry| {
            array([
                format!("\"{}\"", entry.id),
                text(&group.consumers[entry.consumer as usize].name),
                entry.delivered_at_ms.to_string(),
                entry.deliveries.to_string(),
            ])
        });
        format!(
            "{{\"name\":{},\"last_id\":\"{}\",\"consumers\":{},\"pel\":{}}}",
            text(&group.name),
            group.last_id,
            array(consumers),
            array(pending)
        )
    });
    format!(
        "{{\"entries\":{},\"last_id\":\"{}\",\"groups\":{}}}",
        array(entries),
        stream.last_id,
        array(groups)
    )
}
