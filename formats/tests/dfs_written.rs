//! What we write in DFS files comes back: every dump, also in pieces, and what Dragonfly could not hold is refused.
//!
//! Without the corpus (see `corpus.rs`) the tests that need it say so and pass.

mod support;

use dfsnap_formats::dataset::{Attributes, Entry, Item};
use dfsnap_formats::dfs::reader::{DfsReader, Options, Place};
use dfsnap_formats::dfs::writer::{self, Compression, RawEntry, ShardFile, WriteError};
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::loss::Loss;
use dfsnap_formats::rdb::reader::{Options as RdbOptions, RdbReader};
use dfsnap_formats::rdb::record::Record;
use dfsnap_formats::rdb::{type_code, writer as rdb};
use dfsnap_formats::value::{HashField, HashValue, ModuleValue, SetMember, SetValue, Value};
use support::Random;
use support::corpus::{corpus, rows_of};
use support::dfs::{
    as_dragonfly, difference, entries, found, identity, meaning, members, sets, write,
};

/// Entries of an RDB file, without those that are empty.
fn rdb_entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = RdbReader::new(bytes, RdbOptions::default());
    let mut entries = Vec::new();
    while let Some(record) = reader.next().ok()? {
        if let Some(Item::Entry(entry)) = Item::of_record(&record, &Default::default()).ok()? {
            entries.push(entry);
        }
    }
    Some(entries)
}

fn digest(entries: &[Entry]) -> String {
    let mut dataset = DatasetDigest::default();
    for entry in entries {
        let expires = entry.attributes.expire_at_ms.is_some();
        let key = key_digest(&entry.key, &entry.value, expires, ScoreForm::Short);
        dataset.add(entry.db, key);
    }
    dataset.finish().to_string()
}

fn sorted_meanings(entries: &[Entry]) -> Vec<String> {
    let mut meanings: Vec<String> = entries.iter().map(meaning).collect();
    meanings.sort();
    meanings
}

#[test]
fn every_dump_comes_back_from_a_set() {
    let Some(folder) = corpus() else { return };
    let mut random = Random(0xD_F5);
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd(2)];
    let mut entries_seen = 0;
    let mut rows = rows_of(&folder, "RDB");
    rows.extend(rows_of(&folder, "RDB by Dragonfly"));
    for (at, (row, bytes)) in rows.into_iter().enumerate() {
        let Some(all) = rdb_entries(&bytes) else {
            continue;
        };
        for turn in 0..3 {
            let options = writer::Options {
                compression: compressions[(at + turn) % 3],
                run_bytes: [300, 5000, 256 << 10][random.below(3)],
                ..Default::default()
            };
            let shards = 1 + random.below(4) as u16;
            let (files, refused) = write(&all, shards, options);
            for (at, error) in &refused {
                let entry = &all[*at];
                let fits = match error {
                    WriteError::Module { .. } => matches!(entry.value, Value::Module(_)),
                    WriteError::Encode { error, .. } => error.loss == Loss::Idempotence,
                    WriteError::Database { db, .. } => *db >= 16,
                    WriteError::MemberExpiry { at_ms, .. } => *at_ms > 5_970_000_000_000,
                    _ => false,
                };
                let key = dfsnap_formats::error::Shown(&entry.key).to_string();
                let text = error.to_string();
                assert!(fits && text.contains(&key), "{}: {text}", row["file"]);
            }
            let refused: Vec<usize> = refused.iter().map(|(at, _)| *at).collect();
            let kept = all
                .iter()
                .enumerate()
                .filter(|(at, _)| !refused.contains(at));
            let want: Vec<Entry> = kept.map(|(_, entry)| as_dragonfly(entry.clone())).collect();
            let got: Vec<Entry> = files
                .iter()
                .flat_map(|(name, bytes)| entries(bytes).unwrap_or_else(|e| panic!("{name}: {e}")))
                .collect();
            assert_eq!(digest(&got), digest(&want), "{}", row["file"]);
            let differ = difference(&sorted_meanings(&got), &sorted_meanings(&want));
            assert_eq!(differ, None, "{}", row["file"]);
            found("dump", &files).check().unwrap();
            entries_seen += got.len();
            if bytes.len() > 5_000 {
                break;
            }
        }
    }
    assert!(entries_seen > 10_000, "{entries_seen} entries");
}

#[test]
fn sets_of_dragonfly_come_back_from_a_set_of_ours() {
    let Some(folder) = corpus() else { return };
    for (row, files) in sets(&folder) {
        let all: Vec<Entry> = files
            .iter()
            .flat_map(|(_, bytes)| entries(bytes).unwrap())
            .collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd(2)] {
            let options = writer::Options {
                compression,
                run_bytes: 2000,
                ..Default::default()
            };
            let (ours, refused) = write(&all, 3, options);
            assert!(refused.is_empty(), "{}: {refused:?}", row["file"]);
            let got: Vec<Entry> = ours.iter().flat_map(|(_, b)| entries(b).unwrap()).collect();
            // A filter in one string comes back in chunks, which none of these is.
            let differ = difference(&sorted_meanings(&got), &sorted_meanings(&all));
            assert_eq!(differ, None, "{}", row["file"]);
        }
        // Record by record, as a converter without interest in values does it.
        let mut out = Vec::new();
        let mut shard = ShardFile::start(&identity(), 0, writer::Options::default(), &mut out);
        for (_, bytes) in &files {
            let mut reader = DfsReader::new(&bytes[..], Options::default());
            while let Some(placed) = reader.next().unwrap() {
                if let Record::Key(key) = placed.record {
                    shard
                        .key_record(&key, &Default::default(), &mut out)
                        .unwrap();
                }
            }
        }
        assert_eq!(shard.finish(&mut out), all.len() as u64);
        let got = entries(&out).unwrap();
        let differ = difference(&sorted_meanings(&got), &sorted_meanings(&all));
        assert_eq!(differ, None, "{}", row["file"]);
    }
}

#[test]
fn runs_are_blobs_of_whole_entries_that_choose_their_database() {
    let all: Vec<Entry> = (0..500u32)
        .map(|i| {
            Entry::new(
                i % 3,
                format!("key:{i}").as_bytes(),
                Value::String(vec![b'x'; 100]),
            )
        })
        .collect();
    for (compression, codec) in [(Compression::Lz4, 0xCA), (Compression::Zstd(2), 0xC9)] {
        let options = writer::Options {
            compression,
            run_bytes: 4096,
            ..Default::default()
        };
        let (files, _) = write(&all, 1, options);
        let mut reader = DfsReader::new(&files[0].1[..], Options::default());
        let mut blobs = std::collections::BTreeSet::new();
        let mut selected = None;
        while let Some(placed) = reader.next().unwrap() {
            if let Place::Blob { offset } = placed.place {
                if blobs.insert(offset) {
                    assert!(matches!(placed.record, Record::SelectDb(_)));
                    assert_eq!(files[0].1[offset as usize], codec);
                }
                match placed.record {
                    Record::SelectDb(db) => selected = Some(db),
                    Record::Key(key) => assert_eq!(selected, Some(key.db)),
                    _ => {}
                }
            }
        }
        assert!(blobs.len() > 10, "{} blobs", blobs.len());
    }
    // Too large to be compressed, as in Dragonfly, and the others are not held up by it.
    let large = Entry::new(0, b"large", Value::String(vec![b'x'; 2 << 20]));
    let all = [vec![large.clone()], all, vec![large]].concat();
    let (files, _) = write(&all, 1, writer::Options::default());
    assert!(files[0].1.len() > 4 << 20);
    assert_eq!(entries(&files[0].1), Ok(all));
}

#[test]
fn what_dragonfly_cannot_hold_is_refused_and_leaves_no_trace() {
    let foreign = dfsnap_formats::rdb::record::ModuleId::new(b"graphdata", 1);
    let mut raw = Vec::new();
    rdb::len(&mut raw, foreign.0);
    rdb::len(&mut raw, 0);
    let far = vec![HashField {
        field: b"f".to_vec(),
        value: b"v".to_vec(),
        expire_at_ms: Some(6_000_000_000_000),
    }];
    let module = Value::Module(ModuleValue { id: foreign, raw });
    let rows = [
        (
            "module",
            Entry::new(0, b"m", module),
            "key \"m\": a value of module graphdata",
        ),
        (
            "empty",
            Entry::new(0, b"e", Value::List(Vec::new())),
            "key \"e\": an empty collection",
        ),
        (
            "no text",
            Entry::new(0, b"j", Value::Json(b"{\"a\":".to_vec())),
            "key \"j\": no JSON for Dragonfly, at which it stops loading: offset 5: document: ",
        ),
        (
            "database",
            Entry::new(16, b"d", Value::String(Vec::new())),
            "key \"d\": database 16: the target has 16",
        ),
        (
            "far",
            Entry::new(0, b"h", Value::Hash(HashValue::Fields(far))),
            "key \"h\": \"f\" expires at 6000000000000 ms",
        ),
    ];
    let mut out = Vec::new();
    let mut shard = ShardFile::start(&identity(), 0, writer::Options::default(), &mut out);
    for (name, entry, want) in rows {
        let error = shard.entry(&entry, &mut out).expect_err(name).to_string();
        assert!(error.starts_with(want), "{name}: {error}");
    }
    let function = Item::Function {
        code: b"#!lua name=lib\nredis.call()".to_vec(),
    };
    let error = shard.item(&function, &mut out).unwrap_err().to_string();
    assert!(
        error.starts_with("function library \"#!lua name=lib\": "),
        "{error}"
    );
    let set = |type_code, value| RawEntry {
        db: 0,
        key: b"raw",
        attributes: Attributes::default(),
        type_code,
        value,
    };
    for code in (0..=255)
        .filter(|code| ![0, 2, 4, 5, 11, 16, 17, 18, 21, 30, 31, 32, 34, 35, 36, 37].contains(code))
    {
        assert!(
            shard.raw(set(code, b"\x01\x01a"), &mut out).is_err(),
            "{code}"
        );
    }
    assert!(shard.raw(set(2, b"\x00"), &mut out).is_err());
    shard.raw(set(2, b"\x01\x01a"), &mut out).unwrap();
    assert_eq!(shard.finish(&mut out), 1);
    assert_eq!(
        entries(&out),
        Ok(vec![Entry::new(0, b"raw", members(&["a"]))])
    );
}

#[test]
fn members_expire_at_whole_seconds_and_never_early() {
    let rows = [
        (Some(1_900_000_000_000), Some(1_900_000_000_000)),
        (Some(1_900_000_000_001), Some(1_900_000_001_000)),
        (Some(1_900_000_000_999), Some(1_900_000_001_000)),
        (Some(1), Some(1_675_209_600_000)),
        (Some(-5), Some(1_675_209_600_000)),
        (None, None),
    ];
    for (at_ms, want) in rows {
        let member = |member: &str, expire_at_ms| SetMember {
            member: member.into(),
            expire_at_ms,
        };
        let value = Value::Set(SetValue::Expiring(vec![member("m", at_ms)]));
        let (files, refused) = write(&[Entry::new(0, b"s", value)], 1, Default::default());
        assert!(refused.is_empty());
        let value = Value::Set(SetValue::Expiring(vec![member("m", want)]));
        let want = meaning(&Entry::new(0, b"s", value));
        let got = entries(&files[0].1).unwrap();
        assert_eq!(sorted_meanings(&got), [want], "{at_ms:?}");
    }
}

#[test]
fn a_filter_in_one_string_is_written_in_chunks() {
    let number = |number: f64| number.to_le_bytes().to_vec();
    let head = [&[0][..], &number(2.0), &number(0.01), &[0, 3, 9, 1, 5, 16]].concat();
    let bits: Vec<u8> = (0..16).collect();
    let stored = |code, raw: Vec<u8>| {
        Value::Sketch(dfsnap_formats::value::SketchValue {
            type_code: code,
            raw,
        })
    };
    let old = stored(type_code::BLOOM, [&head[..], &bits].concat());
    let new = stored(type_code::BLOOM_2, [&head[..], &[16], &bits].concat());
    let (files, refused) = write(&[Entry::new(0, b"b", old)], 1, Default::default());
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(entries(&files[0].1), Ok(vec![Entry::new(0, b"b", new)]));
}
