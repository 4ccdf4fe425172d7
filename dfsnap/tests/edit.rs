//! `--rename`, `--set-ttl` and `--to-db` where something is written: files, sets, several files, a live server.

mod dumps;
mod servers;

use dumps::{dfsnap, expiring, hash, in_db, list, rdb, set, string, write, zset};
use servers::Redis;
use std::path::Path;

/// Database, name and expiry of each key, as `ls` tells them.
fn keys(folder: &Path, dump: &str) -> Vec<(u64, String, Option<i64>)> {
    let run = dfsnap(folder, &["ls", dump, "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let mut keys: Vec<_> = run
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|key| {
            let name = key["key"].as_str().unwrap().to_owned();
            (
                key["db"].as_u64().unwrap(),
                name,
                key["expire_at_ms"].as_i64(),
            )
        })
        .collect();
    keys.sort();
    keys
}

/// A folder with a dump of two databases, one value of which is too large to be in memory as a whole.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(300);
    let members: Vec<String> = (0..20_000).map(|i| format!("{i}:{long}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let entries = [
        string("user:1", "ann"),
        expiring(hash("user:2", &[("name", "bob")]), 4_000_000_000_000),
        in_db(list("user:3", &["a", "b"]), 2),
        in_db(zset("board", &[("ann", 1.5)]), 2),
        set("large", &members),
    ];
    write(folder.path(), "dump.rdb", &rdb(&entries));
    folder
}

const FAR: Option<i64> = Some(4_000_000_000_000);

#[test]
fn every_form_takes_other_names_and_databases() {
    let folder = scene();
    let want = [
        (0, "account:1".to_owned(), None),
        (0, "account:2".to_owned(), FAR),
        (0, "large".to_owned(), None),
        (5, "account:3".to_owned(), None),
        (5, "board".to_owned(), None),
    ];
    for target in ["out.rdb", "out.ndjson", "set-summary.dfs", "appendonlydir"] {
        let to = match target {
            "appendonlydir" => "aof",
            "set-summary.dfs" => "dfs",
            "out.rdb" => "rdb",
            _ => "ndjson",
        };
        let run = dfsnap(
            folder.path(),
            &[
                "convert",
                "dump.rdb",
                target,
                "--to",
                to,
                "--rename",
                "^user:=>account:",
                "--to-db",
                "2=5",
            ],
        );
        assert_eq!(run.code, Some(0), "{target}: {}", run.err);
        assert_eq!(keys(folder.path(), target), want, "{target}");
        // And from that form to an RDB file, back again.
        let back = [
            "convert",
            target,
            "back.rdb",
            "--rename",
            "^account:=>user:",
            "--to-db",
            "5=2",
        ];
        let run = dfsnap(folder.path(), &back);
        assert_eq!(run.code, Some(0), "{target}: {}", run.err);
        let run = dfsnap(folder.path(), &["diff", "dump.rdb", "back.rdb"]);
        assert_eq!(run.code, Some(0), "{target}: {}", run.out);
    }
}

#[test]
fn expiries_are_set_and_taken_away() {
    let folder = scene();
    let convert = |args: &[&str]| {
        let run = dfsnap(
            folder.path(),
            &[&["convert", "dump.rdb", "out.rdb"], args].concat(),
        );
        assert_eq!(run.code, Some(0), "{}", run.err);
        keys(folder.path(), "out.rdb")
    };
    let lasting = convert(&["--set-ttl", "none"]);
    assert!(lasting.len() == 5 && lasting.iter().all(|key| key.2.is_none()));
    let soon = convert(&["--set-ttl", "7d", "--match", "user:*"]);
    let first = soon[0].2.unwrap();
    assert!(soon.len() == 3 && soon.iter().all(|key| key.2 == Some(first)));
    let before = convert(&["--set-ttl", "1s"])[0].2.unwrap();
    assert!((6 * 86_400_000..=7 * 86_400_000).contains(&(first - before)));
}

#[test]
fn keys_that_would_become_one_are_an_error_and_nothing_appears() {
    let folder = scene();
    for (args, message) in [
        (
            ["--rename", "^user:.*=>user"],
            "key user:2 of database 0 becomes user in database 0, and so does a key before it",
        ),
        (
            ["--rename", "^user:1$=>large"],
            "key large of database 0 becomes large",
        ),
    ] {
        let run = dfsnap(
            folder.path(),
            &[&["convert", "dump.rdb", "out.rdb"][..], &args].concat(),
        );
        assert_eq!(run.code, Some(2));
        assert!(
            run.err.contains(message) && run.err.contains("try: "),
            "{}",
            run.err
        );
        assert!(!folder.path().join("out.rdb").exists());
    }
    let run = dfsnap(
        folder.path(),
        &["convert", "dump.rdb", "out.rdb", "--rename", "user"],
    );
    assert!(
        run.code == Some(2) && run.err.contains("wanted REGEX=>TEXT"),
        "{}",
        run.err
    );
}

#[test]
fn parts_and_merged_dumps_go_by_the_new_names() {
    let folder = scene();
    let split = [
        "split",
        "dump.rdb",
        "--by",
        "prefix",
        "-o",
        "parts",
        "--rename",
        "^user:=>account:",
    ];
    assert_eq!(dfsnap(folder.path(), &split).code, Some(0));
    assert_eq!(keys(folder.path(), "parts/prefix-account.rdb").len(), 3);
    let merge = [
        "merge",
        "dump.rdb",
        "dump.rdb",
        "-o",
        "all.rdb",
        "--to-db",
        "0=1",
        "--rename",
        "^(user:\\d)$=>$1:old",
    ];
    let run = dfsnap(folder.path(), &merge);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let names: Vec<_> = keys(folder.path(), "all.rdb")
        .into_iter()
        .map(|key| (key.0, key.1))
        .collect();
    let want = [
        (1, "large"),
        (1, "user:1:old"),
        (1, "user:2:old"),
        (2, "board"),
        (2, "user:3:old"),
    ];
    assert_eq!(names, want.map(|(db, name)| (db, name.to_owned())));
}

#[test]
fn a_server_gets_the_new_names_and_is_verified_by_them() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let folder = scene();
    let run = dfsnap(
        folder.path(),
        &[
            "restore",
            "dump.rdb",
            &redis.url(),
            "--verify",
            "--rename",
            "^user:=>account:",
            "--to-db",
            "7",
            "--set-ttl",
            "1h",
            "--parts-over",
            "64kb",
        ],
    );
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    let mut connection = servers::Connection::new(&redis.socket());
    let mut ask = |words: &[&str]| format!("{:?}", connection.call(words));
    ask(&["SELECT", "7"]);
    for key in ["account:1", "account:2", "account:3", "board", "large"] {
        let left = ask(&["TTL", key]);
        assert!(
            ["3600", "359", "358"].iter().any(|ttl| left.contains(ttl)),
            "{key}: {left}"
        );
    }
    assert!(ask(&["DBSIZE"]).contains('5'));
}
