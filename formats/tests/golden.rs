//! The golden dumps load to what they mean, or fail for the reason they were made for.

mod support;

use dfsnap_formats::digest::ScoreForm;
use std::path::Path;
use support::listing::{Line, listing};

/// What the clock of the servers that gave the digests said: 2009-06-01.
const SERVER_CLOCK_MS: i64 = 1_243_814_400_000;

#[test]
fn golden_files_mean_what_they_meant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
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
        let listed = std::fs::read_to_string(folder.join(format!("{file}.keys.jsonl"))).unwrap();
        let want: Vec<Line> = listed.lines().map(Line::parse).collect();
        assert_eq!(listing(&contents.keys), want, "{file}");

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
