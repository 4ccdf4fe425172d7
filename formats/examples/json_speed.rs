//! How fast items become text and text becomes items, over a dataset of small elements.
//!
//! ```text
//! cargo run --release -p dfsnap-formats --example json_speed [keys, default 200000]
//! ```

use dfsnap_formats::assemble;
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::error::Damage;
use dfsnap_formats::json::{Buffer, JsonReader, Options, Writer, WriterOptions};
use dfsnap_formats::parts::{Head, Part};
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::{Options as RdbOptions, RdbReader};
use dfsnap_formats::rdb::record::Record;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::rdb::{VERSION_DEFAULT, writer};
use dfsnap_formats::value::{HashField, SetMember, Value};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let keys = std::env::args()
        .nth(1)
        .map_or(200_000, |keys| keys.parse().expect("a number of keys"));
    for (name, value) in KINDS {
        run(name, keys, value);
    }
    run("mixed", keys, |i| KINDS[i as usize % KINDS.len()].1(i));
}

type Make = fn(u64) -> Value;

const KINDS: [(&str, Make); 6] = [
    ("strings", |i| {
        Value::String(format!("value:{i:012}").into())
    }),
    ("lists", |i| {
        let mut list = assemble::ListBuilder::default();
        (0..20).for_each(|n| list.push(format!("job:{}", i * n).as_bytes()));
        list.finish().expect("not empty")
    }),
    ("sets of integers", |i| {
        set((0..20).map(|n| (i * 7 + n * 1001).to_string()))
    }),
    ("sets of words", |i| {
        set((0..20).map(|n| format!("tag-{i}-{n}")))
    }),
    ("hashes", |i| {
        let fields = (0..20).map(|n| HashField {
            field: format!("field{n}").into(),
            value: format!("{}", i * n).into(),
            expire_at_ms: None,
        });
        Value::Hash(match assemble::hash(fields.collect(), None) {
            Ok(Value::Hash(hash)) => hash,
            other => panic!("{other:?}"),
        })
    }),
    ("sorted sets", |i| {
        let members = (0..20).map(|n| (format!("member:{n}").into(), (i * n) as f64 / 16.0));
        assemble::zset(members.collect(), None).expect("unique")
    }),
];

fn set(members: impl Iterator<Item = String>) -> Value {
    let members = members.map(|member| SetMember {
        member: member.into(),
        expire_at_ms: None,
    });
    assemble::set(members.collect(), None).expect("unique")
}

fn run(name: &str, keys: u64, value: impl Fn(u64) -> Value) {
    let items: Vec<Item> = (0..keys)
        .map(|i| Item::Entry(Entry::new(0, format!("key:{i}").as_bytes(), value(i))))
        .collect();
    let (mut file, mut elements) = (Vec::new(), 0);
    let target = Target::of_version(VERSION_DEFAULT).expect("a version that is written");
    writer::header(&mut file, VERSION_DEFAULT);
    for item in &items {
        let Item::Entry(entry) = item else { continue };
        let mut stored = Vec::new();
        let code = encode(&entry.value, target, &mut stored, None).expect("known to all");
        writer::key(&mut file, code, &entry.key, None);
        file.extend_from_slice(&stored);
        let mut count = 0;
        let _ = entry.value.for_each_part(|part| {
            count += if let Part::HashField(_) | Part::ZSetMember { .. } = part {
                2
            } else {
                1
            };
            Ok::<(), ()>(())
        });
        elements += count + 1;
    }
    writer::eof(&mut file);
    writer::checksum(&mut file, 0);

    let mut text = Buffer::new();
    let write = time(|| {
        text.clear();
        let mut json = Writer::new(WriterOptions::default());
        items.iter().for_each(|item| json.item(item, &mut text));
    });
    let convert = time(|| {
        let mut reader = RdbReader::new(&file[..], RdbOptions::default());
        let mut json = Writer::new(WriterOptions::default());
        let mut out = Buffer::new();
        while let Some(record) = reader.next().expect("own file") {
            if let Some(item) = Item::of_record(&record, &Default::default()).expect("sound") {
                json.item(&item, &mut out);
            }
            if out.len() > 1 << 20 {
                black_box(&*out);
                out.clear();
            }
        }
    });
    let walk = time(|| {
        let mut reader = RdbReader::new(&file[..], RdbOptions::default());
        let (mut json, mut parts) = (Writer::new(WriterOptions::default()), PartWalk::default());
        let mut out = Buffer::new();
        while let Some(record) = reader.next().expect("own file") {
            let Record::Key(key) = record else { continue };
            json.begin(&Head::of_key(&key));
            let walked = parts.value(key.flavor, key.type_code, key.value, |part| {
                json.part(&part, &mut out);
                Ok::<(), Damage>(())
            });
            walked.expect("sound");
            json.end(&mut out);
            if out.len() > 1 << 20 {
                black_box(&*out);
                out.clear();
            }
        }
    });
    let read = time(|| {
        let mut reader = JsonReader::new(&text[..], Options::default());
        while let Some(item) = reader.next().expect("own text") {
            black_box(item);
        }
    });
    let rate = |seconds: f64| {
        let megabytes = file.len() as f64 / 1e6 / seconds;
        let elements = elements as f64 / 1e6 / seconds;
        format!("{megabytes:6.0} MB/s of RDB, {elements:5.1} M elements/s")
    };
    println!(
        "{name}: {} MB of RDB, {} MB of text",
        file.len() / 1_000_000,
        text.len() / 1_000_000
    );
    println!("  items to text     {}", rate(write));
    println!("  RDB to text       {}", rate(convert));
    println!("  the same in parts {}", rate(walk));
    println!("  text to items     {}", rate(read));
}

/// Seconds of the best of three.
fn time(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}
