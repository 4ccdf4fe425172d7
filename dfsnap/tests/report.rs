//! The page of `report`: whole, without anything from elsewhere, and with the numbers of `inspect` in a real browser.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../formats/tests/golden")
        .join(name)
}

fn dfsnap(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("dfsnap").unwrap();
    command.env("COLUMNS", "100").args(args);
    command
}

/// A page in a folder of its own, and what `inspect` says of the same dump.
fn page() -> (tempfile::TempDir, PathBuf, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let file = golden("redis-7.0.15--multidb.rdb");
    dfsnap(&["report", "-o"])
        .arg(&path)
        .arg(&file)
        .assert()
        .success();
    let output = dfsnap(&["inspect", "--json", "--top", "1000"])
        .arg(&file)
        .assert()
        .success();
    let report = serde_json::from_slice(&output.get_output().stdout).unwrap();
    (folder, path, report)
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (folder, path, _) = page();
    let page = std::fs::read_to_string(&path).unwrap();
    for foreign in ["src=", "href=", "@import", "url(", "fetch(", "https:"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn help_comes_in_two_lengths() {
    for (name, flag) in [("report_short_help", "-h"), ("report_long_help", "--help")] {
        let output = dfsnap(&["report", flag]).assert().success();
        insta::assert_snapshot!(name, String::from_utf8_lossy(&output.get_output().stdout));
    }
}

#[test]
fn a_failed_report_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let damaged = golden("unknown_opcode_200.rdb");
    dfsnap(&["report", "-o"])
        .arg(&path)
        .arg(&damaged)
        .assert()
        .code(2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_browser_shows_the_numbers_of_inspect() {
    let (folder, path, report) = page();
    let output = std::process::Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg("--dump-dom")
        .arg(format!("file://{}", path.display()))
        .output();
    let Ok(output) = output else {
        println!("skipped: no chromium");
        return;
    };
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(
        dom.contains(&format!("<b id=\"keys\">{}</b>", report["keys"])),
        "{dom}"
    );
    for sum in report["types"].as_array().unwrap() {
        let (keys, memory) = (&sum["keys"], &sum["memory"]);
        let row = format!("data-keys=\"{keys}\" data-memory=\"{memory}\"");
        assert!(dom.contains(&row), "{row}");
    }
    // Made by the page's own script: the rows of the list, and the tiles.
    let biggest = report["biggest"].as_array().unwrap();
    for big in biggest {
        let row = format!("<td class=\"key\">{}</td>", big["key"].as_str().unwrap());
        assert!(dom.contains(&row), "{row}");
        let memory = format!("title=\"{} bytes\"", big["memory"]);
        assert!(dom.contains(&memory), "{memory}");
    }
    let count = biggest.len();
    assert!(dom.contains(&format!("{count} of {count} keys shown")));
    for prefix in report["prefixes"].as_array().unwrap() {
        let tile = format!("data-prefix=\"{}\"", prefix["prefix"].as_str().unwrap());
        assert!(dom.contains(&tile), "{tile}");
    }
}
