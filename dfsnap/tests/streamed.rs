//! Collections that are taken as they come are written like those that are in memory as a whole.

mod dumps;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::encoding::listpack::{Element, Listpack};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::value::{ListNode, StreamValue, Value};
use dumps::{dfsnap, hash, list, rdb, set, string, zset};
use tempfile::tempdir;

/// Texts of every length and form: short, beyond 64 bytes, numbers, what compresses, what is no text.
fn word(n: usize) -> String {
    match n % 7 {
        0 => format!("{n}"),
        1 => format!("{n}:{}", "long".repeat(n % 60)),
        2 => format!("\"{n}\\"),
        3 => format!("grün {n}"),
        _ => format!("element {n}"),
    }
}

fn packed(key: &str, nodes: usize) -> Entry {
    let node = |node: usize| {
        let mut pack = Listpack::new();
        for n in 0..200 {
            pack.push_back(Element::parse(word(node * 200 + n).as_bytes()));
        }
        ListNode::Packed(pack)
    };
    let value = Value::List((0..nodes).map(node).collect());
    Entry::new(0, key.as_bytes(), value)
}

fn stream(key: &str, nodes: u64) -> Entry {
    let node = |node: u64| {
        let mut pack = Listpack::new();
        for text in ["100", "0", "1", "field", "0"] {
            pack.push_back(Element::parse(text.as_bytes()));
        }
        for entry in 0..100 {
            for number in [2, entry, 0] {
                pack.push_back(Element::Int(number));
            }
            pack.push_back(Element::parse(word(entry as usize).as_bytes()));
            pack.push_back(Element::Int(4));
        }
        (StreamId::new(1000 + node * 100, 0), pack)
    };
    let last_id = StreamId::new(999 + nodes * 100, 0);
    let value = Value::Stream(StreamValue {
        nodes: (0..nodes).map(node).collect(),
        length: nodes * 100,
        last_id,
        first_id: StreamId::new(1000, 0),
        entries_added: nodes * 100,
        ..StreamValue::default()
    });
    Entry::new(0, key.as_bytes(), value)
}

/// Sizes on both sides of what is kept whole, of what is read at once, and of both together.
fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for count in [10, 1500, 4000, 12_000, 40_000] {
        let words: Vec<String> = (0..count).map(word).collect();
        let names: Vec<String> = (0..count).map(|n| format!("{n}/{}", word(n))).collect();
        let texts = |words: &'static str| format!("{words}:{count}");
        let refs: Vec<&str> = words.iter().map(String::as_str).collect();
        let members: Vec<&str> = names.iter().map(String::as_str).collect();
        let fields: Vec<(&str, &str)> = members.iter().copied().zip(refs.iter().copied()).collect();
        let scores: Vec<(&str, f64)> = members
            .iter()
            .enumerate()
            .map(|(n, member)| (*member, n as f64 / 3.0))
            .collect();
        entries.push(list(&texts("list"), &members));
        entries.push(string(&texts("between"), &"text ".repeat(count)));
        entries.push(set(&texts("set"), &members));
        entries.push(hash(&texts("hash"), &fields));
        entries.push(zset(&texts("zset"), &scores));
        entries.push(packed(&texts("packed"), count / 200 + 1));
        entries.push(stream(&texts("stream"), count as u64 / 100 + 1));
    }
    entries
}

#[test]
fn collections_that_are_streamed_are_written_like_whole_ones() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("dump.rdb"), rdb(&entries())).unwrap();
    for (form, edit) in [
        ("rdb", &[][..]),
        ("ndjson", &[]),
        ("json", &[]),
        ("rdb", &["--rename", "^=>x:", "--target", "redis-7.0"]),
    ] {
        let (streamed, whole) = (format!("streamed.{form}"), format!("whole.{form}"));
        let run = dfsnap(path, &[&["convert", "dump.rdb", &streamed], edit].concat());
        assert_eq!(run.code, Some(0), "{}", run.err);
        // To tell whether a value has less, it has to be there as a whole.
        let all = ["convert", "dump.rdb", &whole, "--size", "<100mb"];
        let run = dfsnap(path, &[&all[..], edit].concat());
        assert_eq!(run.code, Some(0), "{}", run.err);
        let read = |name: &str| std::fs::read(path.join(name)).unwrap();
        assert!(read(&streamed) == read(&whole), "{form} {edit:?}");
    }
    let digest = |name: &str| dfsnap(path, &["digest", name]).out;
    assert_eq!(digest("dump.rdb"), digest("streamed.ndjson"));
    assert_eq!(dfsnap(path, &["verify", "dump.rdb"]).code, Some(0));
}

/// The counts of compressed packs, of which only the first bytes are unpacked.
#[test]
fn elements_are_counted_as_they_are_there() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("dump.rdb"), rdb(&entries())).unwrap();
    let lines = dfsnap(path, &["ls", "dump.rdb", "--json"]);
    let mut seen = 0;
    for (line, entry) in lines.out.lines().zip(entries()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["key"], String::from_utf8_lossy(&entry.key).as_ref());
        assert_eq!(line["elements"], entry.value.count() as u64, "{line}");
        seen += 1;
    }
    assert_eq!(seen, entries().len());
}
