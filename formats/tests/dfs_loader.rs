//! What we write holds every condition under which Dragonfly's loader is known to take a file; docs/formats/dfs.md lists them.
//!
//! The walk below knows nothing of our reader: it goes through the bytes as that loader does, with the same demands, and
//! expands blobs with the tools that zstd and LZ4 come with, where they are installed.

#[path = "support/arbitrary.rs"]
mod arbitrary;
mod support;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::dfs::blob::{Codec, Expander};
use dfsnap_formats::dfs::writer::{self, Compression, ShardFile};
use dfsnap_formats::value::{ListNode, SketchValue, StreamGroup, StreamValue, Value};
use proptest::prelude::*;
use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};
use support::dfs::{identity, write};

/// Bytes on their way through the loader.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Behind a length there must be eight more bytes, unless it stands in a blob.
    in_blob: bool,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    /// A length, or the form of a string.
    fn prefix(&mut self) -> Result<u64, u8> {
        assert!(
            self.in_blob || self.bytes.len() - self.at >= 9,
            "length at the end"
        );
        let first = self.byte();
        match first {
            0..0x40 => Ok(u64::from(first)),
            0x40..0x80 => Ok(u64::from(first & 0x3F) << 8 | u64::from(self.byte())),
            0x80 => Ok(u64::from(u32::from_be_bytes(self.array()))),
            0x81 => Ok(u64::from_be_bytes(self.array())),
            0xC0.. => Err(first & 0x3F),
            _ => panic!("length byte {first:#x}"),
        }
    }

    fn len(&mut self) -> u64 {
        self.prefix().expect("a length")
    }

    /// A string as text. Packed ones are legal, and none is written.
    fn text(&mut self) -> Vec<u8> {
        match self.prefix() {
            Ok(len) => self.take(len as usize).to_vec(),
            Err(0) => (self.byte() as i8).to_string().into_bytes(),
            Err(1) => i16::from_le_bytes(self.array()).to_string().into_bytes(),
            Err(2) => i32::from_le_bytes(self.array()).to_string().into_bytes(),
            Err(form) => panic!("string form {form}"),
        }
    }

    fn not_empty(&mut self) -> Vec<u8> {
        let text = self.text();
        assert!(!text.is_empty(), "an empty blob");
        text
    }

    fn listpack(&mut self) {
        let pack = self.not_empty();
        let total = u32::from_le_bytes(pack[..4].try_into().unwrap());
        assert_eq!((total as usize, pack.last()), (pack.len(), Some(&0xFF)));
        assert!(pack.len() > 7, "a listpack without elements");
    }

    fn double(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }

    /// Strings of which the loader takes none twice.
    fn members(&mut self, mut rest: impl FnMut(&mut Self)) {
        let count = self.len();
        assert!(count > 0, "an empty collection");
        let mut seen = HashSet::new();
        for _ in 0..count {
            let member = self.text();
            rest(self);
            assert!(seen.insert(member), "a member twice");
        }
    }

    /// Seconds since 2023-02-01 in 32 bits, of which the last says that there is none, or -1.
    fn member_expiry(&mut self) {
        let seconds: i64 = String::from_utf8(self.text()).unwrap().parse().unwrap();
        assert!((-1..i64::from(u32::MAX)).contains(&seconds), "{seconds}");
    }

    fn chunked(&mut self) -> u64 {
        let total = self.len();
        let mut left = total;
        while left > 0 {
            let len = self.len();
            assert!(
                (1..=left).contains(&len),
                "a chunk of {len} where {left} are left"
            );
            self.take(len as usize);
            left -= len;
        }
        total
    }

    fn value(&mut self, code: u8) {
        match code {
            0 => drop(self.text()),
            2 => self.members(|_| ()),
            4 => self.members(|walk| drop(walk.text())),
            5 => self.members(|walk| assert!(!walk.double().is_nan())),
            11 => {
                let set = self.not_empty();
                let number = |at| u32::from_le_bytes(set[at..at + 4].try_into().unwrap());
                let (width, count) = (number(0), number(4));
                assert!([2, 4, 8].contains(&width) && count > 0);
                assert_eq!(set.len() as u32, 8 + width * count);
            }
            16 | 17 => self.listpack(),
            18 => {
                let nodes = self.len();
                assert!(nodes > 0);
                for _ in 0..nodes {
                    match self.len() {
                        1 => drop(self.not_empty()),
                        2 => self.listpack(),
                        container => panic!("container {container}"),
                    }
                }
            }
            21 => self.stream(),
            30 => drop(self.not_empty()),
            31 => self.members(|walk| {
                walk.text();
                walk.member_expiry();
            }),
            32 => self.members(|walk| walk.member_expiry()),
            34 => {
                assert_eq!(self.len(), 0);
                let growth = self.double();
                assert!(growth.is_finite() && growth >= 1.0);
                let error_rate = self.double();
                let sizes = [self.len(), self.len(), self.len()];
                let filters = self.len();
                match filters {
                    0 => assert!(error_rate == 0.0 && sizes == [0; 3]),
                    _ => assert!(error_rate > 0.0 && error_rate <= 0.5),
                }
                for _ in 0..filters {
                    self.len();
                    assert!(self.chunked().is_power_of_two());
                }
            }
            35 => {
                let cells = self.size() * self.size();
                self.len();
                self.take(8 * cells as usize);
            }
            36 => {
                assert_eq!(self.len(), 0);
                let (k, cells) = (self.size(), self.size() * self.size());
                let decay = self.double();
                assert!((0.0..=1.0).contains(&decay));
                let items = self.len();
                assert!(items <= k);
                for _ in 0..items {
                    self.text();
                    assert!(self.len() <= u64::from(u32::MAX));
                }
                assert_eq!(self.text().len() as u64, 4 * cells);
            }
            37 => {
                let slots = self.len();
                assert!((1..=255).contains(&slots) && (1..=65535).contains(&self.len()));
                let expansion = self.len();
                assert!(expansion == 0 || expansion.is_power_of_two() && expansion <= 65535);
                assert!(self.len().is_power_of_two());
                let [_items, _deletions, filters] = [self.len(), self.len(), self.len()];
                assert!(filters > 0);
                for _ in 0..filters {
                    let bytes = self.chunked();
                    assert!(bytes > 0 && bytes.is_multiple_of(slots));
                }
            }
            code => panic!("type {code}"),
        }
    }

    fn lens(&mut self, count: usize) {
        for _ in 0..count {
            self.len();
        }
    }

    fn size(&mut self) -> u64 {
        let size = self.len();
        assert!((1..1 << 32).contains(&size), "{size}");
        size
    }

    fn stream(&mut self) {
        let mut nodes = HashSet::new();
        for _ in 0..self.len() {
            let id = self.text();
            assert_eq!(id.len(), 16);
            assert!(nodes.insert(id), "a node twice");
            self.listpack();
        }
        self.lens(8);
        let mut groups = HashSet::new();
        for _ in 0..self.len() {
            assert!(groups.insert(self.text()), "a group twice");
            self.lens(3);
            let mut pending = HashSet::new();
            for _ in 0..self.len() {
                assert!(pending.insert(self.array::<16>()), "pending twice");
                self.take(8);
                self.len();
            }
            let mut consumers = HashSet::new();
            for _ in 0..self.len() {
                assert!(consumers.insert(self.text()), "a consumer twice");
                self.take(16);
                for _ in 0..self.len() {
                    assert!(pending.remove(&self.array::<16>()), "nobody's, or twice");
                }
            }
            assert!(pending.is_empty(), "pending entries without a consumer");
        }
    }

    /// Up to the end of the file or of the blob; the keys and the names of the aux fields.
    fn records(&mut self, codec: &mut Option<u8>) -> (u64, Vec<Vec<u8>>) {
        let (mut keys, mut names) = (0, Vec::new());
        // Blobs of one file may come in any order to whoever reads them: each chooses its database.
        let mut has_db = false;
        while self.at < self.bytes.len() {
            match self.byte() {
                250 => {
                    assert!(!self.in_blob && keys == 0);
                    names.push(self.text());
                    self.text();
                }
                254 => {
                    assert!(self.len() <= 15);
                    has_db = true;
                }
                252 => drop(self.array::<8>()),
                220 => {
                    let mask = u32::from_le_bytes(self.array());
                    assert!((1..=3).contains(&mask));
                    if mask & 2 != 0 {
                        self.take(4);
                    }
                }
                code @ (201 | 202) => {
                    assert!(!self.in_blob, "a blob in a blob");
                    assert_eq!(*codec.get_or_insert(code), code, "two codecs in a file");
                    let len = self.len();
                    let plain = expanded(code, self.take(len as usize));
                    assert!((256..=1 << 20).contains(&plain.len()));
                    let mut inner = Walk {
                        bytes: &plain,
                        at: 0,
                        in_blob: true,
                    };
                    let (inside, _) = inner.records(codec);
                    assert_eq!(inner.at, plain.len());
                    assert!(inside > 0);
                    keys += inside;
                }
                255 => {
                    assert!(!self.in_blob);
                    assert_eq!(self.array::<8>(), [0; 8]);
                    assert_eq!(self.at, self.bytes.len());
                    return (keys, names);
                }
                code => {
                    assert!(has_db, "a key before a database");
                    self.text();
                    self.value(code);
                    keys += 1;
                }
            }
        }
        assert!(self.in_blob, "no end mark");
        (keys, names)
    }
}

/// Whether the tools of both codecs are installed.
fn has_tools() -> bool {
    ["zstd", "lz4"].iter().all(|tool| {
        let mut asked = Command::new(tool);
        let asked = asked.arg("--version").stdout(Stdio::null());
        asked.stderr(Stdio::null()).status().is_ok()
    })
}

/// The contents of a frame, which says how long they are.
fn expanded(code: u8, frame: &[u8]) -> Vec<u8> {
    let codec = Codec::of_opcode(code).unwrap();
    let plain = Expander::default().expand(codec, frame, 1 << 20).unwrap();
    if codec == Codec::Lz4 {
        const SIZE_AND_VERSION_WITHOUT_DICTIONARY: u8 = 0x48;
        assert_eq!(frame[4] & 0xC9, SIZE_AND_VERSION_WITHOUT_DICTIONARY);
        assert_eq!(frame[6..14], (plain.len() as u64).to_le_bytes());
    }
    plain
}

/// The names of the aux fields of a file that the loader would take, and its keys.
fn loaded(file: &[u8]) -> (u64, Vec<Vec<u8>>) {
    assert_eq!(file[..9], *b"REDIS0009");
    let mut walk = Walk {
        bytes: file,
        at: 9,
        in_blob: false,
    };
    walk.records(&mut None)
}

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd(2)];

fn options(compression: Compression, run_bytes: usize) -> writer::Options {
    writer::Options {
        compression,
        run_bytes,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_loader_takes_whatever_is_written(
        entries in proptest::collection::vec(arbitrary::entry(), 1..12),
        compression in 0usize..3,
        run_bytes in 1usize..4000,
    ) {
        let options = options(COMPRESSIONS[compression], run_bytes);
        let (files, refused) = write(&entries, 2, options);
        let keys: u64 = files.iter().map(|(_, bytes)| loaded(bytes).0).sum();
        prop_assert_eq!(keys, (entries.len() - refused.len()) as u64);
    }
}

#[test]
fn the_snapshot_id_comes_first_in_each_file_and_the_summary_tells_the_shards() {
    let entry = Entry::new(3, b"k", Value::String(b"v".to_vec()));
    let (files, _) = write(&[entry], 2, Default::default());
    for (name, bytes) in &files {
        let (_, names) = loaded(bytes);
        assert_eq!(names[0], b"snapshot-id", "{name}");
        let is_summary = name.ends_with("summary.dfs");
        let asked: &[u8] = if is_summary {
            b"shard-count"
        } else {
            b"shard-id"
        };
        assert!(names.iter().any(|name| name == asked), "{name}: {names:?}");
    }
}

#[test]
fn large_values_and_streams_hold_its_conditions_too() {
    let texts = |count: usize| (0..count).map(|i| format!("{i}:").repeat(40).into_bytes());
    let mut entries = vec![
        Entry::new(0, b"text", Value::String(vec![b'x'; 3 << 20])),
        Entry::new(
            15,
            b"list",
            Value::List(texts(3000).map(ListNode::Plain).collect()),
        ),
        Entry::new(
            1,
            b"empty stream",
            Value::Stream(StreamValue {
                groups: vec![StreamGroup {
                    name: b"g".to_vec(),
                    last_id: Default::default(),
                    entries_read: 0,
                    pending: Vec::new(),
                    consumers: Vec::new(),
                }],
                ..Default::default()
            }),
        ),
    ];
    entries.extend(
        (0..300).map(|i| Entry::new(i % 16, &i.to_le_bytes(), Value::String(vec![b'y'; 900]))),
    );
    for compression in COMPRESSIONS {
        let (files, refused) = write(&entries, 1, options(compression, 256 << 10));
        assert!(refused.is_empty());
        assert_eq!(loaded(&files[0].1).0, entries.len() as u64);
    }
}

#[test]
fn blobs_are_frames_that_the_tools_of_their_codecs_expand() {
    if !has_tools() {
        eprintln!("zstd and lz4 are not installed: not checked");
        return;
    }
    let entries: Vec<_> = (0..4000u32)
        .map(|i| {
            Entry::new(
                0,
                format!("key:{i}").as_bytes(),
                Value::String(vec![b'z'; 200]),
            )
        })
        .collect();
    for (compression, code, tool) in [
        (Compression::Lz4, 202, "lz4"),
        (Compression::Zstd(2), 201, "zstd"),
    ] {
        let (files, _) = write(&entries, 1, options(compression, 256 << 10));
        let file = &files[0].1;
        let mut walk = Walk {
            bytes: file,
            at: 9,
            in_blob: false,
        };
        let mut blobs = 0;
        loop {
            match walk.byte() {
                250 => drop((walk.text(), walk.text())),
                255 => break,
                found => {
                    assert_eq!(found, code);
                    let len = walk.len();
                    let frame = walk.take(len as usize);
                    let mut child = Command::new(tool)
                        .args(["-d", "-c"])
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .spawn()
                        .unwrap();
                    let mut stdin = child.stdin.take().unwrap();
                    let frame = frame.to_vec();
                    let fed = std::thread::spawn(move || stdin.write_all(&frame));
                    let out = child.wait_with_output().unwrap();
                    fed.join().unwrap().unwrap();
                    assert!(out.status.success());
                    let whole = expanded(code, &file[walk.at - len as usize..walk.at]);
                    assert!(out.stdout == whole, "{tool} expands it otherwise");
                    blobs += 1;
                }
            }
        }
        assert!(blobs > 2, "{tool}: {blobs} blobs");
    }
}

#[test]
fn documents_that_its_parser_refuses_are_refused() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let rows: [(&str, Vec<u8>, bool); 10] = [
        ("64 deep", nested(64), true),
        ("65 deep", nested(65), false),
        ("far too deep", nested(100_000), false),
        (
            "half a character in an escape",
            br#""\ud800""#.to_vec(),
            false,
        ),
        (
            "a character in two escapes",
            br#""\ud83d\ude00""#.to_vec(),
            true,
        ),
        ("no UTF-8", b"\"\xff\"".to_vec(), false),
        ("a control character", b"\"\x01\"".to_vec(), false),
        ("blanks around it", b" [1, 2.5e3]\n".to_vec(), true),
        ("nothing", Vec::new(), false),
        ("two values", b"1 2".to_vec(), false),
    ];
    for (name, text, is_taken) in rows {
        let mut out = Vec::new();
        let mut shard = ShardFile::start(&identity(), 0, Default::default(), &mut out);
        let taken = shard.entry(&Entry::new(0, b"j", Value::Json(text)), &mut out);
        assert_eq!(taken.is_ok(), is_taken, "{name}: {taken:?}");
    }
}

#[test]
fn sketches_that_it_refuses_are_damaged_to_us_as_well() {
    let double = |number: f64| number.to_le_bytes().to_vec();
    let top_k = |k: u8, width: u8, depth: u8| {
        let cells = width * depth * 4;
        let head = [&[0, k, width, depth][..], &double(0.9), &[0, cells]].concat();
        [head, vec![0; cells.into()]].concat()
    };
    let cuckoo = |total: u8| {
        [
            &[2, 20, 0, 4, 1, 0, 1, total, total][..],
            &vec![7; total.into()],
        ]
        .concat()
    };
    let bloom = |growth| {
        [
            &[0][..],
            &double(growth),
            &double(0.01),
            &[0, 1, 9, 1, 5, 1, 1, 0],
        ]
        .concat()
    };
    let rows: [(&str, u8, Vec<u8>, bool); 9] = [
        ("bloom", 34, bloom(2.0), true),
        (
            "bloom that grows without bound",
            34,
            bloom(f64::INFINITY),
            false,
        ),
        ("count-min", 35, [&[1, 1, 0][..], &[0; 8]].concat(), true),
        ("count-min without width", 35, vec![0, 1, 0], false),
        ("count-min without depth", 35, vec![1, 0, 0], false),
        ("top-k", 36, top_k(3, 2, 2), true),
        ("top-k of none", 36, top_k(0, 2, 2), false),
        ("top-k without width", 36, top_k(3, 0, 2), false),
        ("cuckoo", 37, cuckoo(8), true),
    ];
    for (name, type_code, raw, is_taken) in rows {
        use dfsnap_formats::rdb::{Flavor, decode::decode};
        let decoded = decode(Flavor::Dragonfly, type_code, &raw, &Default::default());
        assert_eq!(decoded.is_ok(), is_taken, "{name}: {decoded:?}");
        if is_taken {
            let value = Value::Sketch(SketchValue { type_code, raw });
            let (files, refused) = write(&[Entry::new(0, b"s", value)], 1, Default::default());
            assert!(refused.is_empty());
            loaded(&files[0].1);
        }
    }
}
