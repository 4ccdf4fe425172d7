//! Every RDB file and DUMP payload of the corpus means to us what it means to the servers.
//!
//! The corpus lies beside the workspace (`../shared/corpus/rdb`); without it these tests say so and pass. Its README
//! explains the manifest. Files that the repository may hold are in `golden/`, with a test of their own.

mod support;

use dfsnap_formats::digest::ScoreForm;
use dfsnap_formats::rdb::dump::Payload;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::rdb::{Flavor, decode, loss};
use std::path::Path;
use support::corpus::{Row, corpus, rows_of};
use support::listing::{Line, listing};
use support::{Contents, Key, Random, read, sha256};

/// Adds what differs to `findings`.
fn check(findings: &mut Vec<String>, row: &Row, what: &str, got: &str, want: &str) {
    if got != want {
        findings.push(format!("{}: {what}: got {got}, want {want}", row["file"]));
    }
}

#[test]
fn every_file_loads_or_fails_as_expected() {
    let Some(folder) = corpus() else { return };
    let mut findings = Vec::new();
    for (row, bytes) in rows_of(&folder, "RDB") {
        let result = read(&bytes[..]);
        let expected = row["expected"].as_str();
        let loads = matches!(
            expected,
            "loads" | "module" | "pre-ga" | "enterprise" | "newer"
        );
        match (&result, loads) {
            (Ok(_), true) => compare(&mut findings, &folder, &row, result.unwrap()),
            (Err(error), false) => {
                let words = match expected {
                    "corrupt, checksum" => "checksum",
                    "corrupt, duplicate keys" => "is there twice",
                    "module, pre-ga" => "release candidate",
                    "unsupported version" => "version",
                    _ => "",
                };
                let fits = error.contains(words) && error.contains("offset ");
                check(
                    &mut findings,
                    &row,
                    &format!("{expected}: {error}"),
                    &fits.to_string(),
                    "true",
                );
            }
            (Ok(_), false) => findings.push(format!("{}: loads, want {expected}", row["file"])),
            (Err(error), true) => findings.push(format!("{}: {error}", row["file"])),
        }
    }
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

/// What the clock of the servers that loaded the corpus said: 2009-06-01.
const SERVER_CLOCK_MS: i64 = 1_243_814_400_000;

/// Digests, sizes and listing. Servers drop expired keys; listings have them.
fn compare(findings: &mut Vec<String>, folder: &Path, row: &Row, mut contents: Contents) {
    let lines = listing(&contents.keys);
    contents.expire(SERVER_CLOCK_MS);
    let columns = [
        ("digest_redis70", ScoreForm::Legacy),
        ("digest_redis_unstable", ScoreForm::Short),
    ];
    for (column, form) in columns {
        if !row[column].is_empty() {
            check(findings, row, column, &contents.digest(form), &row[column]);
        }
    }
    let sizes = row["dbsizes"].trim_start_matches("(file) ");
    if !sizes.is_empty() {
        check(findings, row, "dbsizes", &contents.db_sizes(), sizes);
    }
    let path = |ending: &str| folder.join(format!("{}.{ending}", row["file"]));
    if let Ok(text) = std::fs::read_to_string(path("keys.jsonl")) {
        let want: Vec<Line> = text.lines().map(Line::parse).collect();
        compare_lines(findings, row, &lines, &want);
    } else if let Ok(text) = std::fs::read_to_string(path("keys-digest.json")) {
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all: String = lines.iter().map(Line::reduced).collect();
        let want = json["sha256_of_lines"].as_str().unwrap();
        check(
            findings,
            row,
            "hash of the listing",
            &sha256::hex(all.as_bytes()),
            want,
        );
    }
}

fn compare_lines(findings: &mut Vec<String>, row: &Row, got: &[Line], want: &[Line]) {
    check(
        findings,
        row,
        "keys listed",
        &got.len().to_string(),
        &want.len().to_string(),
    );
    let differing = got.iter().zip(want).filter(|(got, want)| got != want);
    for (got, want) in differing.take(3) {
        findings.push(format!("{}:\n  got  {got:?}\n  want {want:?}", row["file"]));
    }
}

#[test]
fn preambles_and_replication_payloads_end_where_the_commands_begin() {
    let Some(folder) = corpus() else { return };
    for (row, bytes) in rows_of(&folder, "AOF with RDB preamble") {
        let cut = row["file"].contains("cut-in-preamble");
        let contents = read(&bytes[..]);
        assert_eq!(contents.is_err(), cut, "{}", row["file"]);
        if let Ok(contents) = contents {
            let rest = &bytes[contents.bytes as usize..];
            assert!(rest.is_empty() || rest[0] == b'*', "{}", row["file"]);
        }
    }
    for (row, bytes) in rows_of(&folder, "replication stream") {
        let start = bytes
            .windows(5)
            .position(|window| window == b"REDIS")
            .unwrap();
        let contents = read(&bytes[start..]).unwrap_or_else(|e| panic!("{}: {e}", row["file"]));
        assert!(!contents.keys.is_empty(), "{}", row["file"]);
    }
}

#[test]
fn what_dragonfly_saved_as_rdb_loads() {
    let Some(folder) = corpus() else { return };
    let mut findings = Vec::new();
    for (row, bytes) in rows_of(&folder, "RDB by Dragonfly") {
        match read(&bytes[..]) {
            Ok(contents) => {
                let sizes = contents.db_sizes();
                check(&mut findings, &row, "dbsizes", &sizes, &row["dbsizes"]);
                let listed = folder.join(format!("{}.keys.jsonl", row["file"]));
                let listed = std::fs::read_to_string(listed).unwrap();
                let differ = support::dragonfly::differences(&contents.keys, &listed);
                findings.extend(differ.iter().map(|it| format!("{}: {it}", row["file"])));
            }
            Err(error) => findings.push(format!("{}: {error}", row["file"])),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn payloads_hold_the_same_values_on_every_server() {
    let Some(folder) = corpus() else { return };
    let mut payloads = 0;
    for (row, bytes) in rows_of(&folder, "DUMP payloads") {
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            let hex = json["payload_hex"].as_str();
            let Some(bytes) = hex.map(from_hex) else {
                continue;
            };
            let name = format!("{}: {}", row["file"], json["key"]);
            let payload = Payload::parse(&bytes, 12).unwrap_or_else(|e| panic!("{name}: {e}"));
            let value = payload
                .decode(&Default::default())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(
                value.kind().name(),
                json["type"].as_str().unwrap(),
                "{name}"
            );
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(
                    Payload::parse(&damaged, 12).is_err(),
                    "{name}: flipped at {at}"
                );
            }
            payloads += 1;
        }
    }
    assert!(payloads > 200, "{payloads} payloads");
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_value_comes_back_from_the_form_we_store_it_in() {
    let Some(folder) = corpus() else { return };
    let mut lzf = dfsnap_formats::lzf::LzfEncoder::new();
    for (row, bytes) in rows_of(&folder, "RDB") {
        let Ok(contents) = read(&bytes[..]) else {
            continue;
        };
        for key in contents.keys {
            for version in [10, 11, 12] {
                let target = Target::of_version(version).unwrap();
                let mut stored = Vec::new();
                let Some(kept) = loss::without(&key.value, target) else {
                    panic!("{}: nothing is left", row["file"]);
                };
                let code = encode(&kept, target, &mut stored, Some(&mut lzf)).unwrap();
                let value = decode::decode(Flavor::Redis, code, &stored, &Default::default());
                let value = value.unwrap().unwrap();
                if version == 12 {
                    let again = Key {
                        value,
                        key: key.key.clone(),
                        ..key
                    };
                    assert_eq!(Line::of(&again), Line::of(&key), "{}", row["file"]);
                }
            }
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let Some(folder) = corpus() else { return };
    let mut random = Random(0x5EED);
    for (row, bytes) in rows_of(&folder, "RDB") {
        let Ok(contents) = read(&bytes[..]) else {
            continue;
        };
        let end = contents.bytes as usize;
        let cuts: Vec<usize> = match end {
            0..=1500 => (0..end).collect(),
            1501..=20_000 => (0..5).map(|_| random.below(end)).collect(),
            _ => vec![random.below(end)],
        };
        for cut in cuts {
            assert!(read(&bytes[..cut]).is_err(), "{} cut at {cut}", row["file"]);
        }
    }
}

#[test]
fn damage_anywhere_never_panics() {
    let Some(folder) = corpus() else { return };
    let mut random = Random(0xDA_4A6E);
    for (_, mut bytes) in rows_of(&folder, "RDB") {
        // The checksum must not hide the damage from the parsers.
        let off = bytes.len().saturating_sub(8);
        bytes[off..].fill(0);
        let tries = match bytes.len() {
            0..=300 => bytes.len() * 3,
            301..=20_000 => 10,
            _ => usize::from(random.below(4) == 0),
        };
        for turn in 0..tries {
            let mut damaged = bytes.clone();
            let (at, byte) = match bytes.len() {
                0..=300 => (turn / 3, [0xFF, 0x80, 1][turn % 3] ^ bytes[turn / 3]),
                len => (random.below(len), random.below(256) as u8),
            };
            damaged[at] = byte;
            // What still reads can be walked.
            if let Ok(contents) = read(&damaged[..]) {
                let elements: usize = contents.keys.iter().map(|key| key.value.count()).sum();
                std::hint::black_box(elements);
            }
        }
    }
}
