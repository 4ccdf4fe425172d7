//! `inspect` on every format, its filters, samples, warnings, and progress while it reads.

use assert_cmd::Command;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden")
}

/// In the folder of the golden dumps, so that names are short and the same everywhere.
fn dfsnap(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("dfsnap").unwrap();
    command
        .current_dir(golden())
        .env("COLUMNS", "100")
        .args(args);
    command
}

fn out(args: &[&str]) -> String {
    let output = dfsnap(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&out(args)).unwrap()
}

const AT: [&str; 2] = ["--at", "1243814400000"];

#[test]
fn text_is_for_people() {
    let file = "redis-7.0.15--tiny.rdb";
    insta::assert_snapshot!(out(&["inspect", file, "--top", "4", AT[0], AT[1]]));
}

#[test]
fn help_comes_in_two_lengths() {
    insta::assert_snapshot!("inspect_short_help", out(&["inspect", "-h"]));
    insta::assert_snapshot!("inspect_long_help", out(&["inspect", "--help"]));
}

#[test]
fn formats_come_to_the_same_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let file = "redis-7.0.15--multidb.rdb";
    let want = json(&["inspect", "--json", file]);
    for (name, format) in [("a.json", "JSON"), ("b.aof", "AOF"), ("c", "DFS set")] {
        let to = match format {
            "JSON" => "json",
            "AOF" => "aof",
            _ => "dfs",
        };
        dfsnap(&["convert", file, &path(name), "--to", to])
            .assert()
            .success();
        let found = json(&["inspect", "--json", &path(name)]);
        assert_eq!(found["format"], format);
        assert_eq!(found["keys"], want["keys"], "{format}");
        let memory = |report: &serde_json::Value| report["memory"]["keys"].as_f64().unwrap();
        let difference = (memory(&found) - memory(&want)).abs() / memory(&want);
        assert!(
            difference < 0.1,
            "{format}: {} and {}",
            memory(&found),
            memory(&want)
        );
    }
}

#[test]
fn filters_and_samples_say_what_they_left_out() {
    let file = "redis-7.0.15--multidb.rdb";
    let whole = json(&["inspect", "--json", file]);
    let one = json(&["inspect", "--json", "--db", "0", file]);
    assert_eq!(one["databases"].as_array().unwrap().len(), 1);
    assert!(one["keys"].as_u64() < whole["keys"].as_u64());
    let sampled = json(&["inspect", "--json", "--sample", "1/4", file]);
    assert_eq!(sampled["sample"], 4);
    assert_eq!(sampled["keys"], whole["keys"]);
    let weighed = sampled["memory"]["keys"].as_u64().unwrap();
    assert!(weighed.is_multiple_of(4), "{weighed}");
    dfsnap(&["inspect", "--sample", "0", file]).assert().code(2);
}

#[test]
fn warnings_tell_what_to_know_before_loading() {
    let expired = json(&[
        "inspect",
        "--json",
        "--at",
        "9000000000000",
        "redis-7.0.15--expiry.rdb",
    ]);
    assert_eq!(expired["warnings"][0]["kind"], "expired");
    // Version 10 with a set in a listpack, which came with version 11; no checksum; two bytes behind the end.
    let mut bytes = b"REDIS0010\xFE\0\x14\x01k\x09".to_vec();
    bytes.extend_from_slice(&[9, 0, 0, 0, 1, 0, 1, 1, 0xFF]);
    bytes.extend_from_slice(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 0, b'x', b'y']);
    let output = dfsnap(&["inspect", "--json", "-"])
        .write_stdin(bytes)
        .assert()
        .success();
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let warnings = report["warnings"].as_array().unwrap();
    let kinds: Vec<_> = warnings
        .iter()
        .map(|w| w["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["version", "checksum", "behind"], "{report}");
}

/// More than a second of reading: a pipe whose writer waits until the first line has come.
#[test]
fn progress_is_shown_when_asked_for_and_quiet_otherwise() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let start = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_dfsnap"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut child = start(&["inspect", "--progress", "-"]);
    let mut stdin = child.stdin.take().unwrap();
    let shown = std::thread::spawn({
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        move || lines.next().unwrap().unwrap()
    });
    stdin.write_all(b"REDIS0010").unwrap();
    // Keys without end, until the line has come: a deadline is the test runner's.
    let mut number = 0_u64;
    while !shown.is_finished() {
        let key = format!("\0\x14{number:020}\x01v");
        stdin.write_all(&key.as_bytes().repeat(100)).unwrap();
        number += 1;
    }
    let line = shown.join().unwrap();
    assert!(line.contains("B/s"), "{line}");
    drop(stdin);
    child.wait().unwrap();

    let output = dfsnap(&["inspect", "redis-7.0.15--tiny.rdb"])
        .assert()
        .success();
    assert!(output.get_output().stderr.is_empty());
}

/// The files of a set and of an append-only directory are counted too: pipes under their names, whose writers wait for the line.
#[test]
fn progress_of_verify_and_salvage_covers_all_files() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let header = b"REDIS0009".as_slice();
    let keys = |number: u64| format!("\0\x14{number:020}\x01v").into_bytes().repeat(100);
    let commands = |_| b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n".repeat(100);
    let manifest = "file a.aof.1.incr.aof seq 1 type i\n";
    type Bytes<'b> = &'b dyn Fn(u64) -> Vec<u8>;
    let rows: [(&str, &str, &[u8], Bytes<'_>); 3] = [
        ("verify", "s-0000.dfs", header, &keys),
        ("salvage", "s-0000.dfs", header, &keys),
        ("verify", "a.aof.1.incr.aof", b"", &commands),
    ];
    for (verb, name, first, more) in rows {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join(name);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        if name.ends_with(".aof") {
            std::fs::write(folder.path().join("a.aof.manifest"), manifest).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_dfsnap"));
        command.args(["--progress", verb]).arg(folder.path());
        if verb == "salvage" {
            command.arg("-o").arg(folder.path().join("out.rdb"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let shown = std::thread::spawn(move || lines.next().unwrap().unwrap());
        let mut writer = std::fs::File::options().write(true).open(&pipe).unwrap();
        writer.write_all(first).unwrap();
        let mut number = 0;
        while !shown.is_finished() {
            writer.write_all(&more(number)).unwrap();
            number += 1;
        }
        let line = shown.join().unwrap();
        assert!(line.contains("B/s"), "{verb} {name}: {line}");
        drop(writer);
        child.wait().unwrap();
    }
}
