//! Every AOF of the corpus means to us what it means to the servers, and every dump comes back from commands.
//!
//! The corpus lies beside the workspace (`../shared/corpus/rdb`); without it these tests say so and pass.

mod support;

use dfsnap_formats::aof::reader::{AofReader, CutPart, End, Options, Unit};
use dfsnap_formats::aof::replay::{self, Replay};
use dfsnap_formats::aof::writer::{BaseWriter, Form, Place};
use dfsnap_formats::commands::{self, Commands};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::digest::{ScoreForm, key_digest};
use dfsnap_formats::rdb::reader::{RdbReader, Record};
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::encode_command;
use dfsnap_formats::value::{StreamValue, Value, ZSetValue};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use support::aof::{contents, load, read_file};
use support::corpus::{Row, corpus, manifest};
use support::listing::{Line, listing};
use support::{Key, Random};

fn rows(folder: &Path, format: &str) -> Vec<Row> {
    let rows = manifest(folder).into_iter();
    rows.filter(|row: &Row| row["format"].starts_with(format))
        .collect()
}

/// What the clock of the servers that loaded the corpus said: 2009-06-01.
const SERVER_CLOCK_MS: i64 = 1_243_814_400_000;

/// Listings show when a server saw the consumers of a stream, which is when it loaded the file: some time after its clock
/// was set. It also takes deliveries that its clock has not come to for deliveries of the present.
fn is_as_seen_by_server(key: &Key, want: &Line) -> bool {
    let Value::Stream(stream) = &key.value else {
        return false;
    };
    (SERVER_CLOCK_MS..SERVER_CLOCK_MS + 5000).any(|now_ms| {
        let mut stream = stream.clone();
        for group in &mut stream.groups {
            for consumer in &mut group.consumers {
                consumer.seen_at_ms = now_ms;
            }
            for entry in &mut group.pending {
                entry.delivered_at_ms = entry.delivered_at_ms.min(now_ms);
            }
        }
        let key = Key {
            key: key.key.clone(),
            value: Value::Stream(stream),
            ..*key
        };
        Line::of(&key) == *want
    })
}

#[test]
fn every_file_loads_or_fails_as_expected() {
    let Some(folder) = corpus() else { return };
    let (mut findings, mut loaded) = (Vec::new(), 0);
    for row in rows(&folder, "AOF") {
        let file = row["file"].trim_end_matches('/');
        let result = load(&folder.join(file), replay::Options::default());
        let found = match &result {
            Ok(found) if matches!(found.end, End::Whole { .. }) => "loads",
            Ok(_) => "loads, tail cut",
            Err(_) => "corrupt",
        };
        if found != row["expected"] {
            let error = result.as_ref().err();
            findings.push(format!(
                "{file}: {found}, want {}: {error:?}",
                row["expected"]
            ));
        }
        let Ok(found) = result else { continue };
        loaded += 1;
        // FUNCTION RESTORE of a payload by a release candidate of 7.0, which servers refuse as well.
        let refused = 8 * u64::from(file.ends_with("appendonly-with-ts.aof"));
        if found.replay.refused() != refused {
            let (count, last) = (found.replay.refused(), found.replay.last_refusal());
            findings.push(format!(
                "{file}: refused: {count}, want {refused}: {last:?}"
            ));
        }
        let contents = contents(&found.replay.into_items());
        let mut check = |what: &str, got: String, want: &str| {
            if got != want {
                findings.push(format!("{file}: {what}: got {got}, want {want}"));
            }
        };
        for (column, form) in [
            ("digest_redis70", ScoreForm::Legacy),
            ("digest_redis_unstable", ScoreForm::Short),
        ] {
            if !row[column].is_empty() {
                check(column, contents.digest(form), &row[column]);
            }
        }
        check("dbsizes", contents.db_sizes(), &row["dbsizes"]);
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{file}.keys.jsonl"))) else {
            continue;
        };
        let want: Vec<Line> = text.lines().map(Line::parse).collect();
        let got = listing(&contents.keys);
        check(
            "keys listed",
            got.len().to_string(),
            &want.len().to_string(),
        );
        for ((got, want), key) in got.iter().zip(&want).zip(&contents.keys) {
            if got != want && !is_as_seen_by_server(key, want) {
                check("listing", format!("{got:?}"), &format!("{want:?}"));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(loaded > 20, "{loaded} files loaded");
}

/// All items of an RDB file; None where it does not read.
fn items_of_rdb(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut reader = RdbReader::new(bytes, Default::default());
    let mut items = Vec::new();
    while let Some(record) = reader.next().ok()? {
        items.extend(Item::of_record(&record, &Default::default()).ok()?);
    }
    Some(items)
}

/// Without what no command carries: when consumers were seen, what producers added, and hints about access.
fn sayable(items: Vec<Item>) -> Vec<Item> {
    let mut replay = Replay::new(replay::Options::default());
    items.into_iter().for_each(|item| replay.load(item));
    let mut items = replay.into_items();
    items.retain(|item| !matches!(item, Item::ModuleAux { .. }));
    for item in &mut items {
        let Item::Entry(entry) = item else { continue };
        let attributes = &mut entry.attributes;
        *attributes = Default::default();
        if let Value::Stream(stream) = &mut entry.value {
            forget_unsayable(stream);
        }
    }
    items
}

fn forget_unsayable(stream: &mut StreamValue) {
    stream.idempotence = None;
    for consumer in stream
        .groups
        .iter_mut()
        .flat_map(|group| &mut group.consumers)
    {
        consumer.seen_at_ms = 0;
        consumer.active_at_ms = -1;
    }
}

/// Servers keep -0 as it is only where a sorted set is large, or was packed long ago.
fn without_negative_zeros(items: &[Item]) -> Vec<Item> {
    let mut items = items.to_vec();
    for item in &mut items {
        if let Item::Entry(Entry {
            value: Value::ZSet(zset),
            ..
        }) = item
        {
            let members = zset
                .members()
                .map(|(member, score)| (member.to_vec(), score + 0.0));
            *zset = ZSetValue::Members(members.collect());
        }
    }
    items
}

/// Keys whose digests differ, and keys that only one side has.
fn differing_keys(a: &[Item], b: &[Item], form: ScoreForm) -> Vec<String> {
    let digests = |items: &[Item]| {
        let keys = contents(&without_negative_zeros(items)).keys.into_iter();
        let keys = keys.map(|key| {
            let digest = key_digest(&key.key, &key.value, key.expire_at_ms.is_some(), form);
            (
                (key.db, key.key.escape_ascii().to_string()),
                digest.to_string(),
            )
        });
        keys.collect::<BTreeSet<_>>()
    };
    let (a, b) = (digests(a), digests(b));
    let differing = a.symmetric_difference(&b);
    differing.map(|key| format!("{key:?}")).collect()
}

fn expiries(items: &[Item]) -> Vec<(u32, &[u8], Option<i64>)> {
    let entries = items.iter().filter_map(|item| match item {
        Item::Entry(entry) => Some(entry),
        _ => None,
    });
    let mut expiries: Vec<_> = entries
        .map(|entry| (entry.db, &entry.key[..], entry.attributes.expire_at_ms))
        .collect();
    expiries.sort();
    expiries
}

/// Reads `aof` and compares with what was written; returns the number of items.
fn compare(name: &str, aof: &[u8], written: Vec<Item>) -> usize {
    let mut replay = Replay::new(replay::Options::default());
    let end = read_file(&mut replay, aof, Options::default());
    let bytes = aof.len() as u64;
    assert_eq!(end, Ok(End::Whole { bytes }), "{name}");
    let refused = (replay.refused(), replay.last_refusal());
    assert_eq!(refused, (0, None), "{name}");
    let back = replay.into_items();
    for form in [ScoreForm::Short, ScoreForm::Legacy] {
        let differing = differing_keys(&back, &written, form);
        assert!(differing.is_empty(), "{name}: {differing:?}");
    }
    assert_eq!(expiries(&back), expiries(&written), "{name}");
    let (back, written) = (sayable(back), sayable(written));
    assert_eq!(back.len(), written.len(), "{name}");
    for (got, want) in back.iter().zip(&written) {
        assert_eq!(got, want, "{name}");
    }
    back.len()
}

#[test]
fn every_dump_comes_back_from_every_form_of_a_base() {
    let Some(folder) = corpus() else { return };
    let forms = [
        Form::Commands(Default::default()),
        Form::Commands(commands::Options {
            form: commands::Form::Restore,
            ..Default::default()
        }),
        Form::Rdb {
            target: Target::of_version(12).unwrap(),
            place: Place::Preamble,
        },
    ];
    let (mut files, mut entries, mut unsayable) = (0, 0, Vec::new());
    for row in rows(&folder, "RDB") {
        let file = &row["file"];
        let Some(items) = items_of_rdb(&std::fs::read(folder.join(file)).unwrap()) else {
            continue;
        };
        if row["expected"].contains("duplicate") {
            continue;
        }
        // The large files take their time.
        let forms = if items.len() > 5000 {
            &forms[..1]
        } else {
            &forms
        };
        for form in forms.iter().copied() {
            let mut aof = Vec::new();
            let mut base = BaseWriter::new(form, &mut aof);
            let mut written = Vec::new();
            for item in &items {
                // Other servers know documents as a module's values, which is what RESTORE and RDB files make of them.
                let is_document =
                    matches!(item, Item::Entry(entry) if matches!(entry.value, Value::Json(_)));
                if is_document && form != forms[0] {
                    continue;
                }
                match base.item(item, &mut aof) {
                    Ok(()) => written.push(item.clone()),
                    Err(error) => unsayable.push(format!("{file}: {error}")),
                }
            }
            base.finish(&mut aof);
            entries += compare(&format!("{file} as {form:?}"), &aof, written);
        }
        files += 1;
    }
    println!(
        "{files} files, {entries} entries; without commands: {}",
        unsayable.len()
    );
    // What only Dragonfly or only version 13 knows. The rest has a place in every form.
    const NEWER_OR_FOREIGN: [&str; 3] = [
        "dfs/dragonfly-",
        "collected/librdb__stream_v13",
        "crafted/key_meta_v13",
    ];
    unsayable.retain(|line| !NEWER_OR_FOREIGN.iter().any(|file| line.starts_with(file)));
    assert!(unsayable.is_empty(), "{unsayable:#?}");
    assert!(files > 150, "{files} files");
}

/// Everything of the corpus that is, or was meant to be, a file of commands.
fn files() -> Vec<(String, Vec<u8>)> {
    let Some(folder) = corpus() else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for row in rows(&folder, "AOF") {
        let path = folder.join(row["file"].trim_end_matches('/'));
        let paths: Vec<PathBuf> = match path.is_dir() {
            true => std::fs::read_dir(path)
                .unwrap()
                .map(|file| file.unwrap().path())
                .collect(),
            false => vec![path],
        };
        let paths = paths
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "aof"));
        files.extend(paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())));
    }
    files
}

/// Where a file can be kept up to: its start if commands stand there, the end of the preamble, and behind every unit
/// outside of groups. None: it does not read.
fn boundaries(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut reader = AofReader::new(bytes, Options::default());
    let mut boundaries = vec![0];
    loop {
        let (at, is_end) = match reader.next().ok()?? {
            Unit::Preamble(Record::End(end)) => {
                boundaries.clear();
                (Some(end.bytes), false)
            }
            Unit::Preamble(_) => (None, false),
            Unit::Command(command) => {
                let is_exec = command.words[0].eq_ignore_ascii_case(b"EXEC");
                (
                    Some(command.end).filter(|_| is_exec || command.group.is_none()),
                    false,
                )
            }
            Unit::End(_) => (None, true),
            unit => panic!("{unit:?}"),
        };
        boundaries.extend(at);
        if is_end {
            return Some(boundaries);
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_kept_up_to_its_last_whole_unit() {
    let mut cuts = 0;
    for (name, bytes) in files() {
        // Annotations have boundaries of their own; the reader's tests cut those.
        if bytes.len() > 9000 || bytes.windows(4).any(|window| window == b"#TS:") {
            continue;
        }
        let Some(boundaries) = boundaries(&bytes) else {
            continue;
        };
        for cut in 0..=bytes.len() {
            let mut reader = AofReader::new(&bytes[..cut], Options::default());
            let end = loop {
                match reader.next() {
                    Ok(Some(Unit::End(end))) => break Some(end),
                    Ok(_) => {}
                    Err(_) => break None,
                }
            };
            let good = boundaries.iter().rfind(|at| **at <= cut as u64);
            let want = match good {
                // In the preamble; a cut magic of less than five bytes reads like a bad command.
                None if cut > 0 => None,
                None => Some(End::Whole { bytes: 0 }),
                Some(good) if *good == cut as u64 => Some(End::Whole { bytes: *good }),
                Some(good) => {
                    let what = match &end {
                        Some(End::Cut { what, .. }) => *what,
                        end => panic!("{name} cut at {cut}: {end:?}"),
                    };
                    assert_ne!(what, CutPart::Annotation, "{name} cut at {cut}");
                    let cut_bytes = cut as u64 - good;
                    Some(End::Cut {
                        good_bytes: *good,
                        cut_bytes,
                        what,
                    })
                }
            };
            assert_eq!(end, want, "{name} cut at {cut}");
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn damage_anywhere_never_panics() {
    let mut random = Random(0xDA_4A6E);
    let options = replay::Options {
        now_ms: Some(1_700_000_000_000),
        string_bytes_max: 1 << 16,
        ..Default::default()
    };
    let (mut tries, mut refused, mut failed) = (0, 0, 0);
    for (_, bytes) in files() {
        let turns = if bytes.len() < 10_000 { 150 } else { 4 };
        for turn in 0..turns {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(4) {
                if damaged.is_empty() {
                    break;
                }
                let at = random.below(damaged.len());
                match random.below(3) {
                    0 => damaged[at] = random.below(256) as u8,
                    // A digit, a letter or a marker that is another one.
                    1 => damaged[at] = b"0123456789-+*$xXsS(["[random.below(20)],
                    _ => {
                        let other = random.below(damaged.len());
                        damaged.swap(at, other);
                    }
                }
            }
            let lenient = turn % 2 == 0;
            let options_of_file = Options {
                lenient,
                ..Options::default()
            };
            let mut reader = AofReader::new(&damaged[..], options_of_file);
            let mut replay = Replay::new(options);
            while let Ok(Some(unit)) = reader.next() {
                failed += u64::from(replay.unit(&unit).is_err());
            }
            refused += replay.refused();
            for item in replay.into_items() {
                // What came out can be written.
                let mut commands = 0;
                let mut sink = |_: &[&[u8]]| commands += 1;
                let _ = Commands::new(Default::default()).item(&item, &mut sink);
                std::hint::black_box(commands);
            }
            tries += 1;
        }
    }
    println!("{tries} files, {refused} commands refused, {failed} failed");
}

#[test]
fn words_of_any_kind_never_panic() {
    let mut commands = support::commands::Commands::new(0x0DD);
    let templates = support::commands::TEMPLATES;
    let rewritten = support::commands::REWRITTEN;
    let mut replay = Replay::new(replay::Options {
        now_ms: Some(1_700_000_000_000),
        string_bytes_max: 1 << 16,
        ..Default::default()
    });
    let odd: [&[u8]; 12] = [
        b"",
        b"-1",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"nan",
        b"inf",
        b"-inf",
        b"18446744073709551615-18446744073709551615",
        b"*",
        b"FIELDS",
        b"LIMIT",
        b"0x1p-1074",
    ];
    for turn in 0..60_000 {
        let mut words = commands.next(&[templates, rewritten]);
        match commands.random.below(4) {
            0 => words.truncate(1 + commands.random.below(words.len())),
            1 | 2 => {
                let at = commands.random.below(words.len());
                words[at] = odd[commands.random.below(odd.len())].to_vec();
            }
            _ => {}
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        // Errors are the answer to most of them.
        let _ = replay.at(turn).apply(&words);
    }
    println!(
        "{} keys, {} commands refused",
        replay.len(),
        replay.refused()
    );
    let mut out = Vec::new();
    let mut writer = Commands::new(Default::default());
    for item in replay.into_items() {
        writer
            .item(&item, &mut |words| encode_command(&mut out, words))
            .unwrap();
    }
}
