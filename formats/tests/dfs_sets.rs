//! Sets of files: what is wrong with one is found and named, and no damage does harm.

mod support;

use dfsnap_formats::dataset::{Attributes, Entry};
use dfsnap_formats::dfs::manifest::Manifest;
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::reader::{DfsReader, Options};
use dfsnap_formats::dfs::set::{Complete, Finding};
use dfsnap_formats::dfs::writer::{self, Compression};
use dfsnap_formats::rdb::record::Record;
use dfsnap_formats::rdb::writer as rdb;
use dfsnap_formats::value::{SetValue, Value};
use std::collections::BTreeSet;
use support::Random;
use support::dfs::{BLOCK_BYTES, Files, entries, found, manifest, write};

/// Entries of several types, enough for blocks and blobs.
fn sample() -> Vec<Entry> {
    (0..300u32)
        .map(|i| {
            let key = format!("key:{i}");
            let members = (0..i % 17 + 1).map(|n| format!("member:{n}:{i}").into_bytes());
            let value = match i % 3 {
                0 => Value::String(format!("value {i} ").repeat(10).into_bytes()),
                1 => Value::Set(SetValue::Members(members.collect())),
                _ => Value::Json(format!("{{\"i\":{i}}}").into_bytes()),
            };
            Entry {
                attributes: Attributes {
                    expire_at_ms: (i % 5 == 0).then_some(1_900_000_000_000),
                    sticky: i % 7 == 0,
                    ..Default::default()
                },
                ..Entry::new(i % 4, key.as_bytes(), value)
            }
        })
        .collect()
}

fn written(compression: Compression) -> Files {
    let options = writer::Options {
        compression,
        run_bytes: 1500,
        ..Default::default()
    };
    let (files, refused) = write(&sample(), 3, options);
    assert!(refused.is_empty());
    files
}

fn check(files: &Files, manifest: Option<&Manifest>) -> Result<Complete, Vec<String>> {
    let mut found = found("dump", files);
    if let Some(manifest) = manifest {
        found.set_manifest(manifest.clone());
    }
    found
        .check()
        .map_err(|findings| findings.iter().map(Finding::to_string).collect())
}

#[test]
fn a_set_that_was_just_written_is_complete() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(2)] {
        let files = written(compression);
        let manifest = manifest(&files);
        let read = Manifest::parse(manifest.to_json().as_bytes()).unwrap();
        let complete = check(&files, Some(&read)).unwrap();
        assert_eq!((complete.shards(), complete.keys()), (3, 300));
        assert_eq!(complete.manifest(), Some(&manifest));
        assert_eq!(manifest.base(), Some("dump"));
    }
}

/// What is done to a set, and the start of a finding that must come of it, without a manifest and with one.
type Damage = (
    &'static str,
    fn(&mut Files),
    Option<&'static str>,
    &'static str,
);

fn other_snapshot() -> Files {
    let mut files = written(Compression::Lz4);
    for (_, bytes) in &mut files {
        let at = bytes
            .windows(32)
            .position(|window| window == [b'5', b'a'].repeat(16));
        bytes[at.unwrap()] = b'9';
    }
    files
}

fn damages() -> Vec<Damage> {
    vec![
        (
            "missing shard",
            |files| {
                files.remove(1);
            },
            Some("dump-0001.dfs: not there, but dump-summary.dfs says 3 shards"),
            "dump-0001.dfs: not there, but the manifest names it",
        ),
        (
            "missing last shard",
            |files| {
                files.remove(2);
            },
            Some("dump-0002.dfs: not there, but dump-summary.dfs says 3 shards"),
            "dump-0002.dfs: not there, but the manifest names it",
        ),
        (
            "missing summary",
            |files| {
                files.pop();
            },
            Some("dump-summary.dfs: not there, and only it says how many"),
            "dump-summary.dfs: not there, but the manifest names it",
        ),
        (
            "shard of another snapshot",
            |files| files[1] = other_snapshot().swap_remove(1),
            Some(
                "dump-0001.dfs: snapshot id \"9a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\", but dump-summary.dfs has \"5a5a",
            ),
            "dump-0001.dfs: checksum ",
        ),
        (
            "shard without an id",
            |files| {
                files[1].1 = b"REDIS0009\xfa\x08shard-id\xc0\x01\xff\0\0\0\0\0\0\0\0".to_vec();
            },
            Some("dump-0001.dfs: snapshot id none, but dump-summary.dfs has \"5a5a"),
            "dump-0001.dfs: 30 bytes, but the manifest has ",
        ),
        (
            "shard of another version",
            |files| {
                let mut aux = Vec::new();
                rdb::aux(&mut aux, b"df-ver", b"df-v1.39.0");
                let bytes = &mut files[2].1;
                bytes.splice(9..9, aux);
            },
            Some("dump-0002.dfs: version \"df-v1.39.0\", but dump-summary.dfs has none"),
            "dump-0002.dfs: ",
        ),
        (
            "torn",
            |files| {
                let bytes = &mut files[0].1;
                bytes.truncate(bytes.len() / 2);
            },
            Some("dump-0000.dfs: damaged: offset "),
            "dump-0000.dfs: ",
        ),
        (
            "torn at the end mark",
            |files| {
                files[0].1.pop();
            },
            Some("dump-0000.dfs: damaged: offset "),
            "dump-0000.dfs: ",
        ),
        (
            "swapped",
            |files| {
                let (a, b) = files.split_at_mut(1);
                std::mem::swap(&mut a[0].1, &mut b[0].1);
            },
            Some(
                "dump-0000.dfs: shard id \"1\" inside, but 0 in its name: it was renamed or swapped",
            ),
            "dump-0001.dfs: checksum ",
        ),
        (
            "renamed beyond the last",
            |files| files[1].0 = "dump-0007.dfs".to_owned(),
            Some("dump-0007.dfs: is there, but dump-summary.dfs says 3 shards"),
            "dump-0007.dfs: is there, but the manifest does not name it",
        ),
        (
            "renamed to another set",
            |files| files[1].0 = "dumb-0001.dfs".to_owned(),
            Some("dumb-0001.dfs: is not of this set"),
            "dump-0001.dfs: not there, but the manifest names it",
        ),
        (
            "one shard too many",
            |files| {
                let copy = files[2].1.clone();
                files.push(("dump-0003.dfs".to_owned(), copy));
            },
            Some("dump-0003.dfs: is there, but dump-summary.dfs says 3 shards"),
            "dump-0003.dfs: is there, but the manifest does not name it",
        ),
        (
            "a key altered, which Dragonfly would load",
            |files| {
                let bytes = &mut files[0].1;
                // The creation time in the header: any byte would do.
                let at = bytes
                    .windows(5)
                    .position(|window| window == b"ctime")
                    .unwrap();
                bytes[at + 6] ^= 1;
            },
            None,
            "dump-0000.dfs: checksum ",
        ),
        (
            "longer by padding",
            |files| files[2].1.extend_from_slice(&[0xAB; 700]),
            None,
            "dump-0002.dfs: ",
        ),
    ]
}

#[test]
fn every_damage_is_found_and_named() {
    let whole = written(Compression::Lz4);
    let manifest = manifest(&whole);
    for (name, damage, bare, with_manifest) in damages() {
        let mut files = whole.clone();
        damage(&mut files);
        match bare {
            Some(want) => {
                let findings = check(&files, None).expect_err(name);
                let named = findings.iter().any(|finding| finding.starts_with(want));
                assert!(named, "{name}: {findings:#?}");
            }
            None => assert!(check(&files, None).is_ok(), "{name}"),
        }
        let findings = check(&files, Some(&manifest)).expect_err(name);
        let named = findings
            .iter()
            .any(|finding| finding.starts_with(with_manifest));
        assert!(named, "{name}: {findings:#?}");
    }
}

#[test]
fn every_altered_byte_is_placed_by_the_manifest() {
    let whole = written(Compression::Zstd(2));
    let manifest = manifest(&whole);
    let mut random = Random(77);
    for _ in 0..60 {
        let mut files = whole.clone();
        let file = random.below(files.len());
        let at = random.below(files[file].1.len());
        files[file].1[at] ^= 1 << random.below(8);
        let findings = check(&files, Some(&manifest)).unwrap_err();
        let from = at as u64 / BLOCK_BYTES * BLOCK_BYTES;
        let placed = format!("over bytes {from} to ");
        let name = &files[file].0;
        let named = findings
            .iter()
            .any(|finding| finding.starts_with(name.as_str()) && finding.contains(&placed));
        assert!(named, "{name} at {at}: {findings:#?}");
    }
}

#[test]
fn a_set_of_old_needs_a_manifest_to_be_complete() {
    let bare = b"REDIS0009\xff\0\0\0\0\0\0\0\0".to_vec();
    let files: Files = vec![
        ("dump-0000.dfs".to_owned(), bare.clone()),
        ("dump-summary.dfs".to_owned(), bare),
    ];
    let findings = check(&files, None).unwrap_err();
    assert_eq!(
        findings,
        ["dump-summary.dfs: does not say how many shards the set has, nor does a manifest"]
    );
}

#[test]
fn leftovers_are_told_and_do_no_harm() {
    let mut found = found("dump", &written(Compression::Lz4));
    found.add_leftover("dump-0002.dfs.tmp");
    let complete = found.check().unwrap();
    assert_eq!(complete.leftovers(), ["dump-0002.dfs.tmp"]);
    let mut files = written(Compression::Lz4);
    files.remove(0);
    let mut found = support::dfs::found("dump", &files);
    found.add_leftover("dump-0000.dfs.tmp");
    let findings = found.check().unwrap_err();
    let leftover = "dump-0000.dfs.tmp: left over from a snapshot that was not finished";
    assert_eq!(findings.last().unwrap().to_string(), leftover);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(2)] {
        for (name, bytes) in written(compression) {
            let step = if compression == Compression::None {
                1
            } else {
                5
            };
            for cut in (0..bytes.len())
                .step_by(step)
                .chain(bytes.len() - 12..bytes.len())
            {
                assert!(entries(&bytes[..cut]).is_err(), "{name} cut at {cut}");
            }
        }
    }
}

// Lenient reading.

type Keys = BTreeSet<Vec<u8>>;

/// Keys that are read, what is passed over (offset, bytes, why), and whether the end was reached.
fn lenient(bytes: &[u8]) -> (Keys, Vec<(u64, u64, String)>, bool) {
    let options = Options {
        lenient: true,
        ..Options::default()
    };
    let mut reader = DfsReader::new(bytes, options);
    let (mut keys, mut ended) = (BTreeSet::new(), false);
    while let Some(placed) = reader.next().unwrap_or_else(|error| panic!("{error}")) {
        match placed.record {
            Record::Key(key) => {
                keys.insert(key.key.to_vec());
            }
            Record::End(_) => ended = true,
            _ => {}
        }
    }
    let skipped = reader.skipped().iter();
    let skipped = skipped.map(|it| (it.offset, it.bytes, it.why.to_string()));
    (keys, skipped.collect(), ended)
}

fn keys_of(bytes: &[u8]) -> Keys {
    entries(bytes)
        .unwrap()
        .into_iter()
        .map(|it| it.key)
        .collect()
}

/// Offset and keys of each blob of a file.
fn blobs_of(bytes: &[u8]) -> Vec<(u64, Keys)> {
    let mut reader = DfsReader::new(bytes, Options::default());
    let mut blobs: Vec<(u64, Keys)> = Vec::new();
    while let Some(placed) = reader.next().unwrap() {
        if let dfsnap_formats::dfs::reader::Place::Blob { offset } = placed.place {
            if blobs.last().is_none_or(|(last, _)| *last != offset) {
                blobs.push((offset, BTreeSet::new()));
            }
            if let (Record::Key(key), Some((_, keys))) = (placed.record, blobs.last_mut()) {
                keys.insert(key.key.to_vec());
            }
        }
    }
    blobs
}

#[test]
fn a_lenient_reader_loses_the_damaged_blob_alone() {
    for compression in [Compression::Lz4, Compression::Zstd(2)] {
        let (_, bytes) = written(compression).swap_remove(1);
        let all = keys_of(&bytes);
        let blobs = blobs_of(&bytes);
        assert!(blobs.len() > 4, "{} blobs", blobs.len());
        let (offset, keys) = &blobs[2];
        // Magic of the frame: it does not expand. Length of the blob: where it ends is not known.
        for (name, at) in [("frame", offset + 4), ("length", offset + 1)] {
            let mut damaged = bytes.clone();
            damaged[at as usize] ^= 0x11;
            assert!(entries(&damaged).is_err(), "{name}");
            let (got, skipped, ended) = lenient(&damaged);
            let lost: BTreeSet<_> = all.difference(&got).cloned().collect();
            assert_eq!(lost, *keys, "{name}: {skipped:?}");
            assert!(ended, "{name}");
            let bytes: u64 = skipped.iter().map(|(_, bytes, _)| bytes).sum();
            assert_eq!(skipped[0].0, *offset, "{name}");
            assert_eq!(bytes, blobs[3].0 - offset, "{name}: {skipped:?}");
        }
        let cut = blobs[3].0 as usize + 7;
        let (got, skipped, ended) = lenient(&bytes[..cut]);
        let want: BTreeSet<_> = blobs[..3]
            .iter()
            .flat_map(|(_, keys)| keys.clone())
            .collect();
        assert_eq!((got, ended), (want, false));
        assert_eq!(skipped[0].0 + skipped[0].1, cut as u64);
    }
}

#[test]
fn a_lenient_reader_loses_the_damaged_value_alone() {
    let piece = |id: u32, bytes: &[u8]| {
        let len = (bytes.len() as u32).to_le_bytes();
        [&[0xE0][..], &id.to_le_bytes(), &len, bytes].concat()
    };
    let file = |parts: &[Vec<u8>]| {
        [
            b"REDIS0009\xfe\x00",
            &parts.concat()[..],
            b"\xff\0\0\0\0\0\0\0\0",
        ]
        .concat()
    };
    let parts = [
        piece(1, b"\x02\x01s\x03\x01a"),
        piece(2, b"\x02\x01t\x02\x01a"),
        piece(1, b"\x05"),
        b"\x00\x01k\x01v".to_vec(),
        piece(2, b"\x01b"),
        piece(1, b"\x01c"),
        piece(3, b"\x02\x01u\x02\x01a"),
    ];
    let (keys, skipped, ended) = lenient(&file(&parts));
    assert_eq!(keys, [b"k".to_vec(), b"t".to_vec()].into());
    assert!(ended);
    let reasons: Vec<&str> = skipped.iter().map(|(_, _, why)| why.as_str()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons[0].contains("value 1: value of key \"s\" ends inside an element"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("value 3: value of key \"u\" is not finished"),
        "{reasons:?}"
    );
}

#[test]
fn after_a_loss_a_later_piece_is_not_taken_for_a_first_one() {
    let bad_blob = b"\xca\x05\x04\x22\x4d\x18\xff";
    // A field `k` of a hash whose first piece was in the blob reads like a set `k` would: type 1 to 7, key, value.
    let later = b"\xe0\x01\0\0\0\x05\0\0\0\x02\x01k\x01\x00";
    let file = [b"REDIS0009", &bad_blob[..], later, b"\xff\0\0\0\0\0\0\0\0"].concat();
    let (keys, skipped, ended) = lenient(&file);
    assert!(keys.is_empty() && ended, "{keys:?}");
    assert!(skipped[1].2.contains("may be a later one"), "{skipped:?}");
}

/// Peak memory of this process so far, in bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn damage_anywhere_never_panics_and_costs_no_memory() {
    let mut random = Random(0xDF5_0DF5);
    let mut files: Vec<Vec<u8>> = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(2)] {
        files.extend(written(compression).into_iter().map(|(_, bytes)| bytes));
    }
    if let Some(folder) = support::corpus::corpus() {
        for set in ["tiny-default", "tiny-nocompression", "tiny-lzf-single"] {
            for shard in [0, 1] {
                let name = Name::of("snap", Member::Shard(shard));
                files.push(std::fs::read(folder.join("dfs").join(set).join(name)).unwrap());
            }
        }
    }
    let before = peak();
    for turn in 0..1500 {
        let mut bytes = files[turn % files.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        let strict = entries(&bytes);
        if let Ok(entries) = &strict {
            let elements: usize = entries.iter().map(|entry| entry.value.count()).sum();
            std::hint::black_box(elements);
        }
        let options = Options {
            lenient: true,
            ..Options::default()
        };
        let mut reader = DfsReader::new(&bytes[..], options);
        let mut records = 0;
        while let Ok(Some(_)) = reader.next() {
            records += 1;
            assert!(records < 1_000_000, "turn {turn} does not end");
        }
    }
    if let (Some(before), Some(after)) = (before, peak()) {
        let grown = after - before;
        assert!(grown < 96 << 20, "{grown} bytes more at the peak");
    }
}

#[test]
fn a_blob_that_says_it_is_huge_is_refused_unread() {
    // One zstd frame of a gigabyte of zeros, some 30 KB long, and an LZ4 frame that only says so.
    let zeros = vec![0; 1 << 20];
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_pledged_src_size(Some(1 << 30)).unwrap();
    encoder.include_contentsize(true).unwrap();
    for _ in 0..1 << 10 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let mut lz4 = b"\x04\x22\x4d\x18\x68\x40".to_vec();
    lz4.extend_from_slice(&(1u64 << 40).to_le_bytes());
    lz4.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (code, frame) in [(0xC9, bomb), (0xCA, lz4)] {
        let mut file = b"REDIS0009".to_vec();
        file.push(code);
        rdb::raw_string(&mut file, &frame, None);
        file.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
        let error = entries(&file).unwrap_err();
        assert!(error.contains("wanted at most 16777216"), "{error}");
    }
}
