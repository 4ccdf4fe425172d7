//! The command line as users and scripts see it: exit codes, text, JSON.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../formats/tests/golden")
        .join(name)
}

fn dfsnap(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(args)
        .arg(file)
        .output()
        .unwrap()
}

/// Runs with `input` on standard input and `-` as the file.
fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(args)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn inspect_counts_what_the_file_holds() {
    let file = golden("redis-7.0.15--tiny.rdb");
    let output = dfsnap(
        &["inspect", "--json", "--at", "1243814400000", "--top", "3"],
        &file,
    );
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let report = json(&output);
    assert_eq!(report["format"], "RDB");
    assert_eq!(report["magic"], "REDIS");
    assert_eq!(report["version"], 10);
    assert_eq!(report["writer"], "Redis 7.0.15");
    assert_eq!(report["bytes"], 1858);
    assert_eq!(report["bytes_after"], 0);
    assert_eq!(report["checksum"], "good");
    assert_eq!(report["aux"]["redis-bits"]["value"], "64");
    assert_eq!(report["databases"][0]["keys"], 15);
    let types = report["types"].as_array().unwrap();
    let keys: u64 = types.iter().map(|sum| sum["keys"].as_u64().unwrap()).sum();
    assert_eq!(keys, 15);
    assert!(
        types
            .iter()
            .any(|sum| sum["type"] == "hash" && sum["encoding"] == "listpack")
    );
    let biggest = report["biggest"].as_array().unwrap();
    assert_eq!(biggest.len(), 3);
    assert!(biggest[0]["memory"].as_u64() >= biggest[1]["memory"].as_u64());
}

#[test]
fn inspect_tells_text_readers_the_same() {
    let output = dfsnap(&["inspect"], &golden("redis-7.0.15--multidb.rdb"));
    assert_eq!(output.status.code(), Some(0));
    for words in [
        "RDB, REDIS version 10",
        "Redis 7.0.15",
        "Databases",
        "Types",
        "Biggest keys",
    ] {
        assert!(out(&output).contains(words), "{words}:\n{}", out(&output));
    }
}

#[test]
fn inspect_names_modules_and_what_follows_the_dump() {
    let mut bytes = std::fs::read(golden("module_value_all_opcodes.rdb")).unwrap();
    bytes.extend_from_slice(b"*1\r\n");
    let report = json(&piped(&["inspect", "--json"], &bytes));
    assert_eq!(report["bytes_after"], 4);
    let types = report["types"].as_array().unwrap();
    assert!(
        types
            .iter()
            .any(|sum| sum["type"] == "module" && sum["encoding"] == "testtype1")
    );
}

#[test]
fn inspect_sorts_expiries_by_the_time_asked_for() {
    let file = golden("redis-7.0.15--expiry.rdb");
    let at =
        |time: &str| json(&dfsnap(&["inspect", "--json", "--at", time], &file))["expiry"].clone();
    let (early, late) = (at("0"), at("9223372036854775807"));
    assert_eq!(early["never"], late["never"]);
    assert_eq!(early["expired"], 0);
    assert!(late["expired"].as_u64().unwrap() > 0);
    assert_eq!(late["later"], 0);
}

#[test]
fn digest_is_that_of_the_servers() {
    let table = std::fs::read_to_string(golden("golden.tsv")).unwrap();
    let mut compared = 0;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [file, "loads", _, legacy, short, _] = columns[..] else {
            continue;
        };
        let rows = [
            (legacy, &["digest", "--legacy"][..]),
            (short, &["digest"][..]),
        ];
        for (want, args) in rows.into_iter().filter(|(want, _)| !want.is_empty()) {
            let args = [args, &["--expired-at", "1243814400000"]].concat();
            let output = dfsnap(&args, &golden(file));
            assert_eq!(output.status.code(), Some(0), "{file}: {}", err(&output));
            assert_eq!(out(&output).trim_end(), want, "{file}");
            let bytes = std::fs::read(golden(file)).unwrap();
            assert_eq!(out(&piped(&args, &bytes)).trim_end(), want, "{file}, piped");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn digest_notes_keys_that_a_server_would_drop() {
    let file = b"REDIS0003\xfc\xe8\x03\0\0\0\0\0\0\0\x01k\x01v\xff";
    let output = piped(&["digest"], file);
    assert!(
        err(&output).contains("have expired by now"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("try: --expired-at "));
    let without = piped(&["digest", "--expired-at", "1000"], file);
    assert_eq!(out(&without).trim_end(), "0".repeat(40));
    assert_eq!(err(&without), "");
}

#[test]
fn errors_say_where_what_and_what_to_try() {
    let cut = std::fs::read(golden("redis-7.0.15--tiny.rdb")).unwrap();
    let rows: [(&str, &[u8], &str, &str); 4] = [
        ("cut", &cut[..400], "offset ", " left"),
        ("no dump", b"*1\r\n$4\r\nPING\r\n", "append-only", "try: "),
        (
            "newer",
            b"REDIS0099",
            "offset 5: version 99",
            "try: a newer dfsnap",
        ),
        (
            "empty",
            b"",
            "offset 0: magic: wanted 9 bytes, 0 left",
            "try: ",
        ),
    ];
    for (name, input, first, second) in rows {
        for verb in ["inspect", "digest"] {
            let output = piped(&[verb], input);
            assert_eq!(output.status.code(), Some(2), "{name}, {verb}");
            let text = err(&output);
            assert!(text.starts_with("error: -: "), "{name}, {verb}: {text}");
            assert!(
                text.contains(first) && text.contains(second),
                "{name}, {verb}: {text}"
            );
            assert!(text.contains("\ntry: "), "{name}, {verb}: {text}");
            assert_eq!(out(&output), "", "{name}, {verb}");
        }
    }
    let output = dfsnap(&["inspect"], Path::new("/no/such/file.rdb"));
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("/no/such/file.rdb"));
    let output = dfsnap(&["inspect"], Path::new("/"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_has_examples_for_every_verb() {
    for verb in [
        "inspect", "digest", "verify", "salvage", "diff", "merge", "split",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_dfsnap"))
            .args([verb, "--help"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("Examples:"), "{verb}");
        assert!(out(&output).contains(&format!("dfsnap {verb}")), "{verb}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(out(&output).contains("Exit code: 0 fine, 1 a finding, 2 an error."));
}
