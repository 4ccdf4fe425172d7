//! The golden dumps load to what they mean, or fail for the reason they were made for.

mod support;

#[path = "support/arbitrary.rs"]
mod arbitrary;

use dfsnap_formats::aof::replay;
use dfsnap_formats::dataset::Item;
use dfsnap_formats::digest::ScoreForm;
use dfsnap_formats::json::{JsonReader, Options as JsonOptions};
use dfsnap_formats::rdb::reader::{Options, RdbReader};
use std::path::{Path, PathBuf};
use support::listing::{Line, listing};

/// What the clock of the servers that gave the digests said: 2009-06-01.
const SERVER_CLOCK_MS: i64 = 1_243_814_400_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn listed(name: &str) -> Vec<Line> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.keys.jsonl"))).unwrap();
    text.lines().map(Line::parse).collect()
}

#[test]
fn a_set_of_dragonfly_means_what_it_meant() {
    let names = ["snap-0000.dfs", "snap-0001.dfs", "snap-summary.dfs"];
    let files = names.map(|name| {
        let bytes = std::fs::read(folder().join("dfs-tiny").join(name)).unwrap();
        (name.to_owned(), bytes)
    });
    let contents = support::dfs::contents(&files.to_vec()).unwrap();
    // Listings do not have when fields expire, so that the hash over this one cannot be theirs.
    let comparable = |mut lines: Vec<Line>| {
        lines.retain(|line| line.key != b"hashex");
        lines
    };
    let (got, want) = (listing(&contents.keys), listed("dfs-tiny"));
    assert_eq!(got.len(), want.len());
    assert_eq!(comparable(got), comparable(want));
}

#[test]
fn an_aof_in_parts_means_what_it_meant() {
    let path = folder().join("aof-two-increments");
    let loaded = support::aof::load(&path, replay::Options::default()).unwrap();
    let contents = support::aof::contents(&loaded.replay.into_items());
    let without_streams = |lines: Vec<Line>| -> Vec<Line> {
        // Servers list streams with the time at which they themselves saw the consumers.
        lines
            .into_iter()
            .filter(|line| line.kind != "stream")
            .collect()
    };
    assert_eq!(
        without_streams(listing(&contents.keys)),
        without_streams(listed("aof-two-increments"))
    );
}

#[test]
fn lines_of_json_mean_the_dump_they_were_made_of() {
    let mut compared = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "ndjson") {
            continue;
        }
        let bytes = std::fs::read(path.with_extension("rdb")).unwrap();
        let mut reader = RdbReader::new(&bytes[..], Options::default());
        let mut want = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            want.extend(Item::of_record(&record, &Default::default()).unwrap());
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut reader = JsonReader::new(&bytes[..], JsonOptions::default());
        let mut got = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            got.push(item);
        }
        // What a converter leaves out says something about the file that was read.
        let of_data = |item: &Item| !matches!(item, Item::Aux { .. });
        want.retain(of_data);
        got.retain(of_data);
        assert_eq!(got.len(), want.len(), "{}", path.display());
        for (got, want) in got.iter().zip(&want) {
            assert!(
                arbitrary::same(got, want),
                "{}: {got:?}, want {want:?}",
                path.display()
            );
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} items");
}

#[test]
fn golden_files_mean_what_they_meant() {
    let folder = folder();
    let table = std::fs::read_to_string(folder.join("golden.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in &rows[1..] {
        let [file, expected, db_sizes, legacy, digest, _made_by] = row[..] else {
            panic!("{} columns: {row:?}", row.len());
        };
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let result = support::read(&bytes[..]);
        if expected != "loads" {
            let error = result.err().unwrap_or_else(|| panic!("{file} loads"));
            assert!(error.contains(expected), "{file}: {error}");
            continue;
        }
        let mut contents = result.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(listing(&contents.keys), listed(file), "{file}");

        contents.expire(SERVER_CLOCK_MS);
        let got = [
            (db_sizes, contents.db_sizes()),
            (legacy, contents.digest(ScoreForm::Legacy)),
            (digest, contents.digest(ScoreForm::Short)),
        ];
        for (want, got) in got.iter().filter(|(want, _)| !want.is_empty()) {
            assert_eq!(got, want, "{file}");
        }
    }
}
