//! DFS files mean to us what they mean to Dragonfly, and what we write in them comes back.
//!
//! The corpus holds snapshots of Dragonfly 1.40.1 with every kind of compression, and what it gave back after loading
//! them; without it (see `corpus.rs`) those tests say so and pass.

mod support;

use dfsnap_formats::dataset::{Attributes, Entry};
use dfsnap_formats::dfs::blob::{Codec, Packer};
use dfsnap_formats::dfs::reader::{DfsReader, Options, Padding, Place};
use dfsnap_formats::dfs::writer::{self, Compression, ShardFile};
use dfsnap_formats::rdb::record::Record;
use dfsnap_formats::rdb::{type_code, writer as rdb};
use dfsnap_formats::value::{HashField, HashValue, SetMember, SetValue, Value};
use support::corpus::corpus;
use support::dfs::{contents, entries, found, identity, members, sets};
use support::dragonfly;

#[test]
fn every_set_of_dragonfly_means_what_it_gave_back() {
    let Some(folder) = corpus() else { return };
    let mut findings = Vec::new();
    let sets = sets(&folder);
    assert!(sets.len() >= 8, "{} sets", sets.len());
    for (row, files) in &sets {
        let name = row["file"].trim_end_matches('/');
        let contents = contents(files).unwrap_or_else(|error| panic!("{name}: {error}"));
        if contents.db_sizes() != row["dbsizes"] {
            findings.push(format!("{name}: {} keys", contents.db_sizes()));
        }
        let listed = std::fs::read_to_string(folder.join(format!("{name}.keys.jsonl"))).unwrap();
        let differ = dragonfly::differences(&contents.keys, &listed);
        findings.extend(differ.iter().map(|it| format!("{name}: {it}")));

        let complete = found("snap", files).check();
        let complete = complete.unwrap_or_else(|findings| panic!("{name}: {findings:?}"));
        assert_eq!(usize::from(complete.shards()) + 1, files.len(), "{name}");
        assert_eq!(complete.keys(), contents.keys.len() as u64, "{name}");
        for file in complete.files() {
            assert!(
                file.padding.bytes < 4096 && file.sums.bytes % 4096 == 0,
                "{name}"
            );
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn the_corpus_has_every_kind_of_compression() {
    let Some(folder) = corpus() else { return };
    let mut codecs = Vec::new();
    for (_, files) in sets(&folder) {
        for (_, bytes) in files {
            let mut reader = DfsReader::new(&bytes[..], Options::default());
            while reader.next().unwrap().is_some() {}
            codecs.push(reader.codec());
        }
    }
    for codec in [None, Some(Codec::Lz4), Some(Codec::Zstd)] {
        assert!(codecs.contains(&codec), "{codec:?}");
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const MAGIC: &str = "52 45 44 49 53 30 30 30 39";
const END: &str = "ff 00 00 00 00 00 00 00 00";

fn file(records: &[&[u8]]) -> Vec<u8> {
    [&from_hex(MAGIC)[..], &records.concat(), &from_hex(END)].concat()
}

fn with(db: u32, key: &str, attributes: Attributes, value: Value) -> Entry {
    Entry {
        attributes,
        ..Entry::new(db, key.as_bytes(), value)
    }
}

/// Bytes by hand, what they mean, and whether our writer gives the same.
fn vectors() -> Vec<(&'static str, &'static str, Entry, bool)> {
    const AT_MS: i64 = (1_675_209_600 + 109_790_400) * 1000;
    let plain = Attributes::default();
    let text = |text: &str| Value::String(text.as_bytes().to_vec());
    let field = |field: &str, value: &str, expire_at_ms| HashField {
        field: field.into(),
        value: value.into(),
        expire_at_ms,
    };
    let member = |member: &str, expire_at_ms| SetMember {
        member: member.into(),
        expire_at_ms,
    };
    vec![
        (
            "integer",
            "00 01 61 c0 01",
            with(0, "a", plain, text("1")),
            true,
        ),
        (
            "sticky with expiry",
            "fc 7b 7a 4a 9a 9f 01 00 00 dc 01 00 00 00 00 01 6b 05 68 65 6c 6c 6f",
            with(
                0,
                "k",
                Attributes {
                    expire_at_ms: Some(1_785_000_000_123),
                    sticky: true,
                    ..plain
                },
                text("hello"),
            ),
            true,
        ),
        (
            "memcached flags",
            "dc 02 00 00 00 2a 00 00 00 00 02 6d 63 01 76",
            with(
                0,
                "mc",
                Attributes {
                    memcached_flags: Some(42),
                    ..plain
                },
                text("v"),
            ),
            true,
        ),
        (
            "hash with expiry",
            "1f 01 68 02 02 66 31 02 76 31 c0 ff 02 66 32 02 76 32 c2 c0 44 8b 06",
            with(
                0,
                "h",
                plain,
                Value::Hash(HashValue::Fields(vec![
                    field("f1", "v1", None),
                    field("f2", "v2", Some(AT_MS)),
                ])),
            ),
            true,
        ),
        (
            "set with expiry",
            "20 01 73 02 02 6d 31 c0 ff 02 6d 32 c2 c0 44 8b 06",
            with(
                0,
                "s",
                plain,
                Value::Set(SetValue::Expiring(vec![
                    member("m1", None),
                    member("m2", Some(AT_MS)),
                ])),
            ),
            true,
        ),
        (
            "sorted set",
            "05 01 7a 02 01 61 00 00 00 00 00 00 f0 3f 01 62 00 00 00 00 00 00 04 40",
            with(
                0,
                "z",
                plain,
                Value::ZSet(dfsnap_formats::value::ZSetValue::Members(vec![
                    (b"a".to_vec(), 1.0),
                    (b"b".to_vec(), 2.5),
                ])),
            ),
            true,
        ),
        (
            "document",
            "1e 01 6a 07 7b 22 61 22 3a 31 7d",
            with(0, "j", plain, Value::Json(b"{\"a\":1}".to_vec())),
            true,
        ),
        (
            "document of old",
            "14 01 6a 07 7b 22 61 22 3a 31 7d",
            with(0, "j", plain, Value::Json(b"{\"a\":1}".to_vec())),
            false,
        ),
        (
            "set in two pieces",
            "e0 07 00 00 00 09 00 00 00 02 02 73 32 03 01 78 01 79 e0 07 00 00 00 02 00 00 00 01 7a",
            with(0, "s2", plain, members(&["x", "y", "z"])),
            false,
        ),
    ]
}

#[test]
fn vectors_read_and_write_as_told() {
    for (name, hex, want, written) in vectors() {
        let bytes = file(&[&[0xFE, 0], &from_hex(hex)]);
        assert_eq!(entries(&bytes), Ok(vec![want.clone()]), "{name}");
        let mut out = Vec::new();
        let options = writer::Options {
            compression: Compression::None,
            ..Default::default()
        };
        let mut shard = ShardFile::start(&identity(), 0, options, &mut out);
        let header = out.len();
        shard.entry(&want, &mut out).unwrap();
        shard.finish(&mut out);
        if written {
            let want = [&[0xFE, 0], &from_hex(hex)[..], &from_hex(END)].concat();
            assert_eq!(out[header..], want, "{name}");
        }
    }
    let header = [
        from_hex(MAGIC),
        from_hex("fa 0a 72 65 64 69 73 2d 62 69 74 73 c0 40"),
        from_hex("fa 05 63 74 69 6d 65 c2 40 f0 64 6a"),
    ];
    let mut out = Vec::new();
    let _ = ShardFile::start(&identity(), 0, writer::Options::default(), &mut out);
    for part in header {
        assert!(out.windows(part.len()).any(|window| window == part));
    }
}

#[test]
fn what_only_replication_has_is_named() {
    let rows = [
        (
            "d2 01 0f 06 00 0a 00 01 03 05 03 53 45 54 01 61 01 32",
            "opcode 210 (journal)",
        ),
        ("d3 d2 04 00 00 00 00 00 00", "opcode 211 (journal offset)"),
        (
            "c8 00 00 00 00 00 00 00 00",
            "opcode 200 (end of a full sync)",
        ),
    ];
    for (hex, want) in rows {
        let error = entries(&file(&[&from_hex(hex)])).unwrap_err();
        assert!(
            error.starts_with("offset 9: ") && error.contains(want),
            "{error}"
        );
        let plain = [&from_hex("fe 00")[..], &from_hex(hex)].concat();
        let error = entries(&file(&[&blob(Codec::Lz4, &plain)])).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

fn blob(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let packed = Packer::new(codec, 1).pack(plain).unwrap();
    let mut out = vec![codec.opcode()];
    rdb::raw_string(&mut out, &packed, None);
    out
}

fn piece(id: u32, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    [&[0xE0][..], &id.to_le_bytes(), &len.to_le_bytes(), bytes].concat()
}

/// A set and a hash in three pieces each, interleaved with an entry of another database; and what it all means.
fn interleaved() -> (Vec<Vec<u8>>, Vec<Entry>) {
    let mut attributed = Vec::new();
    rdb::expire_ms(&mut attributed, 1_900_000_000_000);
    attributed.extend_from_slice(b"\xdc\x01\0\0\0");
    let parts = vec![
        b"\xfe\x03".to_vec(),
        piece(4, &[&attributed[..], b"\x02\x01s\x05\x01a\x01b"].concat()),
        b"\xfe\x05".to_vec(),
        piece(9, b"\x04\x01h\x03\x02f1\x02v1"),
        b"\x00\x01k\x01v".to_vec(),
        piece(4, b"\x01c\x01d"),
        b"\xfe\x00".to_vec(),
        piece(9, b"\x02f2\x02v2"),
        piece(4, b"\x01e"),
        b"\x00\x01l\x01w".to_vec(),
        piece(9, b"\x02f3\xc0\x07"),
    ];
    let field = |field: &str, value: &str| HashField {
        field: field.into(),
        value: value.into(),
        expire_at_ms: None,
    };
    let attributes = Attributes {
        expire_at_ms: Some(1_900_000_000_000),
        sticky: true,
        ..Default::default()
    };
    let fields = vec![field("f1", "v1"), field("f2", "v2"), field("f3", "7")];
    let meaning = vec![
        Entry::new(5, b"k", Value::String(b"v".to_vec())),
        with(3, "s", attributes, members(&["a", "b", "c", "d", "e"])),
        Entry::new(0, b"l", Value::String(b"w".to_vec())),
        Entry::new(5, b"h", Value::Hash(HashValue::Fields(fields))),
    ];
    (parts, meaning)
}

#[test]
fn pieces_of_several_values_come_together() {
    let (parts, want) = interleaved();
    assert_eq!(
        entries(&file(&[&parts.concat()])),
        Ok(want.clone()),
        "plain"
    );
    for codec in [Codec::Lz4, Codec::Zstd] {
        assert_eq!(
            entries(&file(&[&blob(codec, &parts.concat())])),
            Ok(want.clone()),
            "{codec}"
        );
        let blobs: Vec<u8> = parts.iter().flat_map(|part| blob(codec, part)).collect();
        assert_eq!(
            entries(&file(&[&blobs])),
            Ok(want.clone()),
            "{codec}, a blob each"
        );
        // A piece whose payload is a blob.
        let wrapped: Vec<u8> = parts
            .iter()
            .flat_map(|part| match part[0] {
                0xE0 => {
                    let id = u32::from_le_bytes(part[1..5].try_into().unwrap());
                    piece(id, &blob(codec, &part[9..]))
                }
                _ => part.clone(),
            })
            .collect();
        assert_eq!(
            entries(&file(&[&wrapped])),
            Ok(want.clone()),
            "{codec} in pieces"
        );
    }
}

#[test]
fn a_whole_value_is_found_where_it_stood() {
    let (parts, _) = interleaved();
    let bytes = file(&[
        &parts[..5].concat(),
        &blob(Codec::Lz4, &parts[5..].concat()),
    ]);
    let mut reader = DfsReader::new(&bytes[..], Options::default());
    let mut places = Vec::new();
    while let Some(placed) = reader.next().unwrap() {
        if let Record::Key(key) = placed.record {
            places.push((key.key.to_vec(), placed.place));
        }
    }
    let blob = 9 + parts[..5].concat().len() as u64;
    let want = [
        (b"k".to_vec(), Place::File),
        (b"s".to_vec(), Place::Chunks { offset: 11 }),
        (b"l".to_vec(), Place::Blob { offset: blob }),
        (
            b"h".to_vec(),
            Place::Chunks {
                offset: 9 + parts[..3].concat().len() as u64,
            },
        ),
    ];
    assert_eq!(places, want);
}

#[test]
fn every_large_value_can_be_cut_between_its_elements_and_nowhere_else() {
    let Some(folder) = corpus() else { return };
    let mut cuts_seen = std::collections::BTreeMap::new();
    for (_, files) in sets(&folder) {
        for (_, bytes) in files {
            let mut reader = DfsReader::new(&bytes[..], Options::default());
            while let Some(placed) = reader.next().unwrap() {
                let Record::Key(key) = placed.record else {
                    continue;
                };
                if key.value.len() > 3000 || key.type_code == type_code::STRING {
                    continue;
                }
                let mut whole = vec![key.type_code];
                rdb::string(&mut whole, key.key, None);
                let value_at = whole.len();
                whole.extend_from_slice(key.value);
                let mut cuts = 0;
                for cut in value_at..whole.len() {
                    let (head, tail) = whole.split_at(cut);
                    let bytes = file(&[&piece(1, head), &piece(1, tail)]);
                    match entries(&bytes) {
                        Ok(found) => {
                            let want = entries(&file(&[&whole])).unwrap();
                            assert_eq!(found, want);
                            cuts += 1;
                        }
                        Err(error) => assert!(error.contains("chunk of value 1"), "{error}"),
                    }
                }
                *cuts_seen.entry(key.type_code).or_insert(0) += cuts;
            }
        }
    }
    use type_code::*;
    for code in [
        SET,
        HASH,
        ZSET_2,
        LIST_QUICKLIST_2,
        STREAM_3,
        HASH_EXPIRING,
        SET_EXPIRING,
    ] {
        assert!(
            cuts_seen.get(&code).is_some_and(|cuts| *cuts > 0),
            "{code}: {cuts_seen:?}"
        );
    }
    for code in [
        JSON,
        SET_INTSET,
        HASH_LISTPACK,
        ZSET_LISTPACK,
        COUNT_MIN_SKETCH,
    ] {
        assert!(
            cuts_seen.get(&code).is_none_or(|cuts| *cuts == 0),
            "{code}: {cuts_seen:?}"
        );
    }
}

#[test]
fn pieces_that_do_not_fit_are_named_with_id_and_numbers() {
    let head = b"\x02\x01s\x03\x01a";
    let rows = [
        (
            "overrun",
            vec![piece(7, b"\x02\x01s\x03\x05ab")],
            "offset 9: chunk of value 7: value of key \"s\" ends inside an element: 3 bytes",
        ),
        (
            "overrun in the key",
            vec![piece(7, b"\x02\x05s")],
            "offset 9: chunk of value 7: ends inside an element",
        ),
        (
            "underrun",
            vec![piece(7, head), piece(7, b"\x01b\x01c\x01d")],
            "offset 24: chunk of value 7: value of key \"s\" is whole, but 2 bytes of the piece are left",
        ),
        (
            "unfinished",
            vec![piece(7, head)],
            "offset 9: chunk of value 7: value of key \"s\" is not finished: 6 bytes of it are here, and the file ends",
        ),
        (
            "id",
            vec![piece(0, head)],
            "offset 9: chunk of value 0: id 0 is never used",
        ),
        (
            "empty",
            vec![piece(7, b"")],
            "offset 9: chunk of value 7: a piece without bytes",
        ),
        (
            "opcode",
            vec![piece(7, b"\xfe\x00\x02\x01s")],
            "offset 9: chunk of value 7: put together: offset 0: 254 is neither",
        ),
        (
            "blob in a blob",
            vec![blob(Codec::Lz4, &blob(Codec::Lz4, b"\xfe\x00"))],
            "offset 9: lz4 blob inside another blob",
        ),
        (
            "blob in a piece in a blob",
            vec![blob(Codec::Lz4, &piece(7, &blob(Codec::Lz4, head)))],
            "offset 9: lz4 blob inside another blob",
        ),
        (
            "end in a blob",
            vec![blob(Codec::Lz4, &from_hex(END))],
            "offset 9: inside the lz4 blob, expanded: offset 0: 255 is neither",
        ),
        (
            "record cut in a blob",
            vec![blob(Codec::Lz4, b"\x00\x05abc")],
            "offset 9: inside the lz4 blob, expanded: offset 1: key: wanted 6 bytes, 4 left",
        ),
    ];
    for (name, records, want) in rows {
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let error = entries(&file(&records)).expect_err(name);
        assert!(error.starts_with(want), "{name}: {error}");
    }
    let two = [
        blob(Codec::Lz4, b"\xfe\x00"),
        blob(Codec::Zstd, b"\xfe\x01"),
    ]
    .concat();
    let error = entries(&file(&[&two])).unwrap_err();
    assert!(
        error.contains("zstd blob, but the first blob of the file is lz4"),
        "{error}"
    );
    let many: Vec<u8> = (1..2000).flat_map(|id| piece(id, head)).collect();
    let error = entries(&file(&[&many])).unwrap_err();
    assert!(
        error.contains("1024 values are in pieces already"),
        "{error}"
    );
}

#[test]
fn search_indices_are_passed_over_in_both_forms() {
    let u32s =
        |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
    // One node: internal id, global id, level 1; two neighbours at level 0, none at level 1.
    let node = u32s(&[0, 9, 0, 1, 2, 5, 6, 0]);
    let new = [b"\xde\x03i:f\x00\x01", &node[..]].concat();
    let old = [b"\xde\x03i:f\x01", &node[..]].concat();
    let documents = b"\xdf\x00\x01i\x02\x01a\x00\x01b\x01";
    let entry = b"\xfe\x00\x00\x01k\x01v";
    let version = |text: &[u8]| {
        let mut out = Vec::new();
        rdb::aux(&mut out, b"df-ver", text);
        out
    };
    let rows = [
        ("no version", file(&[&new, documents, entry])),
        (
            "1.40",
            file(&[&version(b"df-v1.40.1"), &new, documents, entry]),
        ),
        (
            "1.38",
            file(&[&version(b"df-v1.38.2"), &old, documents, entry]),
        ),
        (
            "in a blob",
            file(&[
                &version(b"df-v1.38.2"),
                &blob(Codec::Zstd, &[&old, &documents[..], entry].concat()),
            ]),
        ),
    ];
    for (name, bytes) in rows {
        let want = vec![Entry::new(0, b"k", Value::String(b"v".to_vec()))];
        assert_eq!(entries(&bytes), Ok(want), "{name}");
    }
}

#[test]
fn what_follows_the_end_is_counted() {
    let mut bytes = file(&[]);
    bytes.extend_from_slice(&[0; 100]);
    bytes.extend_from_slice(&[0xAB; 4000]);
    let mut reader = DfsReader::new(&bytes[..], Options::default());
    while reader.next().unwrap().is_some() {}
    let padding = Padding {
        bytes: 4100,
        not_zero: 4000,
    };
    assert_eq!(reader.padding().unwrap(), padding);
}
