//! `dfsnap merge`: several dumps as one, by a stated rule, whole or not at all.

mod dumps;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::dfs::writer::Compression;
use dumps::*;
use std::path::Path;
use tempfile::tempdir;

const SOON: i64 = 4_000_000_000_000;

/// Three dumps: what each has alone, what all have alike, and what they do not agree on.
fn three(folder: &Path) {
    let alike = [string("same", "v"), hash("h0", &[("a", "1"), ("b", "2")])];
    let a = [
        string("a", "1"),
        string("text", "of a"),
        expiring(string("timed", "of a"), SOON + 5),
        set("s", &["1", "2"]),
        hash("h", &[("f", "of a"), ("g", "of a")]),
        zset("z", &[("m", 1.0)]),
    ];
    let b = [
        string("b", "1"),
        in_db(string("a", "in 1"), 1),
        string("text", "of b"),
        expiring(string("timed", "of b"), SOON + 9),
        set("s", &["2", "3"]),
        hash("h", &[("f", "of b"), ("h", "of b")]),
        zset("z", &[("m", 2.0), ("n", 3.0)]),
    ];
    let c = [string("c", "1"), expiring(string("timed", "of c"), SOON)];
    write(folder, "a.rdb", &rdb(&[&alike[..], &a].concat()));
    dfs(
        folder,
        "b",
        1,
        2,
        &[&alike[..], &b].concat(),
        Compression::Lz4,
    );
    aof(&folder.join("c"), &[&alike[..], &c].concat(), &[]);
}

/// Whether a dump holds exactly these keys.
fn holds(folder: &Path, path: &str, entries: &[Entry]) {
    write(folder, "want.rdb", &rdb(entries));
    let run = dfsnap(folder, &["diff", "want.rdb", path]);
    assert_eq!(run.code, Some(0), "{path}: {}{}", run.out, run.err);
    assert_eq!(dfsnap(folder, &["verify", path]).code, Some(0), "{path}");
}

fn merge(folder: &Path, options: &[&str]) -> serde_json::Value {
    let run = dfsnap(
        folder,
        &[
            &["merge", "a.rdb", "b", "c", "-o", "out.rdb", "--json"],
            options,
        ]
        .concat(),
    );
    assert_eq!(run.code, Some(0), "{options:?}: {}", run.err);
    run.json()
}

/// What is in the result whatever the rule.
fn undisputed() -> Vec<Entry> {
    vec![
        string("same", "v"),
        hash("h0", &[("a", "1"), ("b", "2")]),
        string("a", "1"),
        string("b", "1"),
        in_db(string("a", "in 1"), 1),
        string("c", "1"),
    ]
}

#[test]
fn conflicts_go_by_the_rule() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    three(folder);
    let of_a = [
        string("text", "of a"),
        set("s", &["1", "2"]),
        hash("h", &[("f", "of a"), ("g", "of a")]),
        zset("z", &[("m", 1.0)]),
    ];
    let of_b = [
        string("text", "of b"),
        set("s", &["2", "3"]),
        hash("h", &[("f", "of b"), ("h", "of b")]),
        zset("z", &[("m", 2.0), ("n", 3.0)]),
    ];
    let timed = |of: &str, at| vec![expiring(string("timed", of), at)];
    let rows = [
        ("first", &of_a, timed("of a", SOON + 5)),
        ("last", &of_b, timed("of c", SOON)),
        ("newest-expiry", &of_b, timed("of b", SOON + 9)),
    ];
    for (rule, disputed, timed) in rows {
        let report = merge(folder, &["--on-conflict", rule]);
        assert_eq!(
            (&report["conflicts"], &report["same"], &report["keys"]),
            (&5.into(), &2.into(), &11.into()),
            "{rule}: {report}"
        );
        holds(
            folder,
            "out.rdb",
            &[undisputed(), disputed.to_vec(), timed].concat(),
        );
    }
}

#[test]
fn without_a_rule_conflicts_are_listed_and_nothing_is_written() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    three(folder);
    let run = dfsnap(folder, &["merge", "a.rdb", "b", "c", "-o", "out.rdb"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.err.contains("5 keys have different contents"),
        "{}",
        run.err
    );
    assert!(
        run.err.contains("db 0, key timed: a.rdb, b, c"),
        "{}",
        run.err
    );
    assert!(run.err.contains("try: --on-conflict"), "{}", run.err);
    assert!(!folder.join("out.rdb").exists());
    // Nothing in conflict.
    let run = dfsnap(
        folder,
        &["merge", "a.rdb", "c", "-o", "out.rdb", "--match", "[ac]"],
    );
    assert_eq!(run.code, Some(0), "{}", run.err);
    holds(folder, "out.rdb", &[string("a", "1"), string("c", "1")]);
}

#[test]
fn collections_are_united_where_asked() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    three(folder);
    let report = merge(
        folder,
        &["--union", "set,hash,zset", "--on-conflict", "first"],
    );
    assert_eq!(
        (&report["conflicts"], &report["united"]),
        (&2.into(), &3.into()),
        "{report}"
    );
    let united = [
        string("text", "of a"),
        expiring(string("timed", "of a"), SOON + 5),
        set("s", &["1", "2", "3"]),
        hash("h", &[("f", "of a"), ("g", "of a"), ("h", "of b")]),
        zset("z", &[("m", 1.0), ("n", 3.0)]),
    ];
    holds(folder, "out.rdb", &[undisputed(), united.to_vec()].concat());
    merge(folder, &["--union", "hash", "--on-conflict", "last"]);
    let last = [
        string("text", "of b"),
        expiring(string("timed", "of c"), SOON),
        set("s", &["2", "3"]),
        hash("h", &[("f", "of b"), ("g", "of a"), ("h", "of b")]),
        zset("z", &[("m", 2.0), ("n", 3.0)]),
    ];
    holds(folder, "out.rdb", &[undisputed(), last.to_vec()].concat());
    let run = dfsnap(
        folder,
        &[
            "merge",
            "a.rdb",
            "b",
            "-o",
            "x.rdb",
            "--union",
            "set",
            "--on-conflict",
            "first",
            "--memory",
            "10",
        ],
    );
    assert_eq!(
        (run.code, folder.join("x.rdb").exists()),
        (Some(2), false),
        "{}",
        run.err
    );
}

#[test]
fn any_format_comes_out_and_servers_are_refused() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    three(folder);
    for out in ["out.ndjson", "out.dfs"] {
        let run = dfsnap(
            folder,
            &["merge", "a.rdb", "c", "-o", out, "--on-conflict", "last"],
        );
        assert_eq!(run.code, Some(0), "{out}: {}", run.err);
    }
    let same = dfsnap(folder, &["diff", "out.ndjson", "out-summary.dfs"]);
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);
    for once in ["-", "redis://localhost"] {
        let run = dfsnap(folder, &["merge", "a.rdb", once, "-o", "x.rdb"]);
        assert_eq!(run.code, Some(2));
        assert!(run.err.contains("is read twice"), "{}", run.err);
    }
    insta::assert_snapshot!("merge_help", dfsnap(folder, &["merge", "--help"]).out);
}

/// A dump that is merged with itself is itself, whatever is in it.
#[test]
fn corpus_stays_what_it_is() {
    let Some(corpus) = corpus::corpus() else {
        return;
    };
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.rdb");
    let out = out.to_str().unwrap();
    let rows = corpus::manifest(&corpus);
    let is_small = |row: &corpus::Row| row["bytes"].parse::<u64>().is_ok_and(|n| n < 200_000);
    let mut compared = 0;
    for row in rows.iter().filter(|row| is_small(row)) {
        let file = row["file"].as_str();
        let loads = row["format"] == "RDB" && row["expected"] == "loads";
        if !loads || dfsnap(&corpus, &["verify", file]).code != Some(0) {
            continue;
        }
        let run = dfsnap(&corpus, &["merge", file, file, "-o", out]);
        assert_eq!(run.code, Some(0), "{file}: {}", run.err);
        let run = dfsnap(&corpus, &["diff", file, out]);
        assert_eq!(run.code, Some(0), "{file}: {}{}", run.out, run.err);
        compared += 1;
    }
    assert!(compared > 180, "{compared}");
}
