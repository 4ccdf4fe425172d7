//! The corpus: where it is, and the rows of its manifest.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// None, and a line that says so: it is not beside the workspace.
pub fn corpus() -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above
        .map(|folder| folder.join("shared/corpus/rdb"))
        .find(|folder| folder.join("MANIFEST.tsv").exists());
    if found.is_none() {
        println!("skipped: no shared/corpus/rdb beside the workspace");
    }
    found
}

pub type Row = HashMap<String, String>;

pub fn manifest(folder: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split('\t').collect();
    lines
        .map(|line| {
            let values = line.split('\t').map(str::to_owned);
            names
                .iter()
                .map(|name| (*name).to_owned())
                .zip(values)
                .collect()
        })
        .collect()
}

pub fn rows_of(folder: &Path, format: &str) -> Vec<(Row, Vec<u8>)> {
    manifest(folder)
        .into_iter()
        .filter(|row| row["format"] == format)
        .map(|row| {
            let bytes = std::fs::read(folder.join(&row["file"])).unwrap();
            (row, bytes)
        })
        .collect()
}
