//! Filters where they are not simply about which keys are written: `verify`, `get`, and the streams of `follow` and `migrate`.

mod dumps;
mod servers;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::value::Value;
use dumps::{expiring, in_db, mixed, rdb, set, string, write};
use servers::{Load, Redis, command, err, out, wait_for};
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::tempdir;

fn run(folder: &Path, args: &[&str]) -> dumps::Run {
    dumps::dfsnap(folder, args)
}

/// Bytes that no method makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// Once, values that are read in pieces counted as if they had no bytes.
#[test]
fn values_that_are_read_in_pieces_have_their_size() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let large = Entry::new(0, b"large", Value::String(noise(5 << 20)));
    write(folder, "dump.rdb", &rdb(&[string("small", "x"), large]));
    let rows = [
        (">1mb", "large"),
        (">5119kb", "large"),
        (">6mb", ""),
        ("<6mb", "small large"),
        ("<5mb", "small"),
        ("<100", "small"),
    ];
    for (size, want) in rows {
        let listed = run(folder, &["ls", "dump.rdb", "--json", "--size", size]);
        let names: Vec<String> = listed
            .out
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].to_string())
            .collect();
        assert_eq!(names.join(" ").replace('"', ""), want, "{size}");
        let checked = run(folder, &["verify", "dump.rdb", "--json", "--size", size]);
        let count = want.split_whitespace().count();
        assert_eq!(checked.json()["keys"], count, "{size}");
    }
}

#[test]
fn verify_looks_into_keys_that_pass_and_at_everything_else() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut entries = mixed(20);
    entries.push(set("twice", &["same-one", "same-two"]));
    entries.push(in_db(string("again", "1"), 2));
    entries.push(in_db(string("again", "2"), 2));
    entries.push(expiring(string("gone", "x"), 1));
    let dump = write(folder, "dump.rdb", &rdb(&entries));
    let mut bytes = std::fs::read(&dump).unwrap();
    let at = bytes
        .windows(8)
        .position(|text| text == b"same-two")
        .unwrap();
    bytes[at..at + 8].copy_from_slice(b"same-one");
    write(folder, "dump.rdb", &bytes);
    let kinds = |args: &[&str]| {
        let checked = run(folder, &[&["verify", "dump.rdb", "--json"], args].concat());
        assert_eq!(checked.code, Some(1));
        let report = checked.json();
        let findings = report["findings"].as_array().unwrap().clone();
        let kinds: Vec<String> = findings
            .iter()
            .map(|finding| finding["kind"].as_str().unwrap().to_owned())
            .collect();
        let counts =
            ["keys", "expired", "warning_count"].map(|field| report[field].as_u64().unwrap());
        (kinds.join(" "), counts)
    };
    let all = entries.len() as u64;
    let rows: [(&[&str], &str, [u64; 3]); 6] = [
        (&[], "value checksum duplicate_key", [all, 1, 0]),
        (&["--match", "key:*"], "checksum", [20, 0, 0]),
        (&["--match", "twice"], "value checksum", [1, 0, 0]),
        (&["--db", "2"], "checksum duplicate_key", [2, 0, 0]),
        (&["--ttl", "expired"], "checksum", [1, 1, 0]),
        (
            &["--type", "set", "--regex", "^t"],
            "value checksum",
            [1, 0, 0],
        ),
    ];
    for (args, want, counts) in rows {
        assert_eq!(kinds(args), (want.to_owned(), counts), "{args:?}");
    }
}

#[test]
fn get_prints_one_key_if_it_passes_or_all_that_do() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let entries = [
        string("user:1", "ann"),
        expiring(string("user:2", "bob"), 4_000_000_000_000),
        in_db(string("user:1", "other ann"), 3),
        string("board", "x"),
    ];
    write(folder, "dump.rdb", &rdb(&entries));
    assert_eq!(
        run(folder, &["convert", "dump.rdb", "set", "--to", "dfs"]).code,
        Some(0)
    );
    for dump in ["dump.rdb", "set"] {
        let get = |args: &[&str]| run(folder, &[&["get", dump], args].concat());
        let one = get(&["user:1", "--as", "raw"]);
        assert_eq!((one.code, one.out.as_str()), (Some(0), "ann"), "{dump}");
        let other = get(&["user:1", "--db", "3", "--as", "raw"]);
        assert_eq!(other.out, "other ann", "{dump}");
        let none = get(&["user:1", "--ttl", "any"]);
        assert_eq!(none.code, Some(2), "{dump}");
        assert!(none.err.contains("no key \"user:1\""), "{}", none.err);
        let several = get(&["--match", "user:*", "--ttl", "none", "--as", "json"]);
        let mut lines: Vec<&str> = several.out.lines().collect();
        lines.sort();
        assert_eq!(lines.len(), 2, "{dump}: {}", several.out);
        assert!(lines[0].contains("\"db\":0") && lines[1].contains("other ann"));
        let shown = get(&["--regex", "^board$"]);
        assert_eq!(shown.out, "\"board\" in db 0: string\n  \"x\"\n", "{dump}");
        let refused: [(&[&str], &str); 4] = [
            (&[], "neither a key nor a filter"),
            (&["--match", "*", "--as", "raw"], "run into each other"),
            (&["--match", "*", "--as", "dump"], "run into each other"),
            (&["--match", "nothing"], "no key passes"),
        ];
        for (args, words) in refused {
            let failed = get(args);
            assert_eq!(failed.code, Some(2), "{args:?}");
            assert!(
                failed.err.contains(words) && failed.err.contains("try: "),
                "{}",
                failed.err
            );
        }
    }
}

#[test]
fn streams_refuse_what_no_change_tells() {
    for verb in [
        &["follow", "unix:/nowhere"][..],
        &["migrate", "unix:/nowhere", "unix:/nowhere"],
    ] {
        for option in [["--type", "set"], ["--ttl", "any"], ["--size", ">1"]] {
            let failed = servers::dfsnap(&[verb, &option[..]].concat());
            assert_eq!(failed.status.code(), Some(2));
            let text = err(&failed);
            assert!(
                text.contains(&format!("{}: a change does not tell", option[0])),
                "{text}"
            );
            assert!(text.contains("try: --db, --match"), "{text}");
        }
    }
    let failed = servers::dfsnap(&[
        "migrate",
        "unix:/nowhere",
        "unix:/nowhere",
        "--set-ttl",
        "1d",
    ]);
    assert!(
        err(&failed).contains("--set-ttl: FROM sends"),
        "{}",
        err(&failed)
    );
}

#[test]
fn follow_prints_what_may_concern_a_key_that_passes() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let url = redis.url();
    let args = [
        "follow", &url, "--json", "--match", "user:*", "--db", "0,1", "--count", "4",
    ];
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("replica", || redis.info("slave0").contains("state=online"));
    let rows: &[&[&str]] = &[
        &["SET", "other", "1"],
        &["SET", "user:1", "1"],
        &["MULTI"],
        &["SET", "other", "2"],
        &["INCR", "user:1"],
        &["SELECT", "3"],
        &["SET", "user:1", "3"],
        &["EXEC"],
        &["FLUSHDB"],
        &["SELECT", "0"],
        &["RENAME", "user:1", "other"],
        &["FLUSHALL"],
    ];
    for row in rows {
        redis.call(row);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let printed: Vec<serde_json::Value> = out(&output)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["commands"].clone())
        .collect();
    let want = serde_json::json!([
        [{"db": 0, "words": ["SET", "user:1", "1"]}],
        [{"db": 0, "words": ["INCR", "user:1"]}],
        [{"db": 0, "words": ["RENAME", "user:1", "other"]}],
        [{"db": 0, "words": ["FLUSHALL"]}],
    ]);
    assert_eq!(serde_json::Value::from(printed), want);
}

/// Which keys, and what becomes of them.
const CHOSEN: [&str; 6] = [
    "--regex",
    "^(half|count|set|short|hash):|^big-",
    "--rename",
    "^half:=>whole:",
    "--to-db",
    "5=6",
];

fn migrate(source: &Redis, target: &Redis, state: &Path, more: &[&str]) -> Child {
    let (from, to) = (source.url(), target.url());
    let args = ["migrate", &from, &to, "--state", state.to_str().unwrap()];
    let args = [&args[..], more].concat();
    let mut command = command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn position(target: &Redis) -> String {
    let reply = target.call(&["GET", "dfsnap:position"]);
    String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned()
}

#[test]
fn migration_with_a_filter_ends_with_what_a_restore_with_it_brings() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    servers::fill(&source);
    let state = tempdir().unwrap();
    let load = Load::start(&source, 2);
    let mut child = migrate(&source, &target, state.path(), &CHOSEN);
    let first = position(&target);
    wait_for("changes to be applied", || {
        let now = position(&target);
        child.try_wait().unwrap().is_some() || !now.is_empty() && now != first
    });
    load.wait_for_more(200);
    // Killed, and begun again with other options: they are another migration.
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let before = position(&target);
    assert!(before.contains("\n--regex"), "{before}: {}", err(&output));
    let other = migrate(&source, &target, state.path(), &["--match", "half:*"]);
    let other = other.wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(
        err(&other).contains("this migration began with \"--regex"),
        "{}",
        err(&other)
    );
    let child = migrate(&source, &target, state.path(), &CHOSEN);
    load.wait_for_more(200);
    load.stop();
    wait_for("short-lived keys to go", || {
        source.info("db5").contains("expires=0")
    });
    // The position goes on with changes that do not pass.
    source.call(&["SET", "not chosen", "x"]);
    let offset: u64 = source.info("master_repl_offset").parse().unwrap();
    wait_for("the position of the last change", || {
        let has = position(&target);
        let has = has.split(':').nth(1).and_then(|text| text.parse().ok());
        has.unwrap_or(0u64) >= offset
    });
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    target.call(&["DEL", "dfsnap:position"]);

    let folder = tempdir().unwrap();
    let want = folder.path().join("want.rdb");
    let want = want.to_str().unwrap();
    let url = source.url();
    servers::succeed(&[&["convert", url.as_str(), want][..], &CHOSEN].concat());
    let diff = servers::dfsnap(&["diff", want, &target.url()]);
    assert_eq!(diff.status.code(), Some(0), "{}", out(&diff));
    assert_eq!(target.text(&["EXISTS", "list:0:1"]), "0");
    assert_eq!(target.text(&["EXISTS", "whole:0:a"]), "1");
}

#[test]
fn a_change_that_cannot_be_cut_ends_the_migration_behind_what_came_before() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    source.call(&["MSET", "user:1", "1", "other", "2"]);
    let state = tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &["--match", "user:*"]);
    wait_for("the copy", || !position(&target).is_empty());
    source.call(&["SET", "user:2", "1"]);
    source.call(&["RENAME", "user:1", "away"]);
    wait_for("changes", || target.text(&["EXISTS", "user:1"]) == "0");
    source.call(&["RENAME", "other", "user:3"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = err(&output);
    assert!(text.contains("RENAME in database 0: key user:3"), "{text}");
    assert!(
        text.contains("try: a filter that both names pass"),
        "{text}"
    );
    assert_eq!(target.text(&["GET", "user:2"]), "1");
    assert_eq!(target.text(&["EXISTS", "user:3", "other", "away"]), "0");
}

#[test]
fn keys_that_would_become_one_end_the_migration() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    source.call(&["SET", "old:1", "1"]);
    let state = tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &["--rename", "^old:=>new:"]);
    wait_for("the copy", || !position(&target).is_empty());
    source.call(&["SET", "old:2", "1"]);
    wait_for("changes", || target.text(&["EXISTS", "new:2"]) == "1");
    // What was there before the stream began counts as well.
    source.call(&["SET", "new:1", "2"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("becomes new:1 in database 0"),
        "{}",
        err(&output)
    );
    assert_eq!(target.text(&["GET", "new:1"]), "1");
}
