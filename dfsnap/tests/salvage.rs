//! `dfsnap salvage`: what is readable of damaged dumps is in a sound one, and the rest is listed.

mod dumps;

use dfsnap_formats::dfs::writer::Compression;
use dumps::*;
use std::path::Path;
use tempfile::tempdir;

/// Salvages `path` into `out.rdb`, which must be sound then, and gives the exit code and the report.
fn salvage(folder: &Path, path: &str) -> (Option<i32>, serde_json::Value) {
    let run = dfsnap(folder, &["salvage", path, "-o", "out.rdb", "--json"]);
    assert!(matches!(run.code, Some(0 | 1)), "{}{}", run.out, run.err);
    let report = run.json();
    let check = dfsnap(folder, &["verify", "out.rdb", "--json"]);
    assert_eq!(check.code, Some(0), "{path}: {}", check.out);
    assert_eq!(check.json()["keys"], report["keys"], "{report}");
    (run.code, report)
}

fn digest(folder: &Path, path: &str) -> String {
    dfsnap(folder, &["digest", path]).out
}

#[test]
fn sound_dumps_lose_nothing() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let entries = mixed(100);
    write(folder, "dump.rdb", &rdb(&entries));
    dfs(folder, "set", 1, 3, &entries, Compression::Lz4);
    aof(&folder.join("aof"), &entries, &[]);
    let want = digest(folder, "dump.rdb");
    for path in ["dump.rdb", "set", "aof"] {
        let (code, report) = salvage(folder, path);
        assert_eq!(
            (code, &report["whole"]),
            (Some(0), &true.into()),
            "{path}: {report}"
        );
        assert_eq!(digest(folder, "out.rdb"), want, "{path}");
    }
}

#[test]
fn a_wrong_checksum_costs_nothing() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let bytes = rdb(&mixed(10));
    write(folder, "sound.rdb", &bytes);
    let path = write(folder, "dump.rdb", &bytes);
    flip(&path, bytes.len() - 3);
    let (code, report) = salvage(folder, "dump.rdb");
    assert_eq!(
        (code, &report["lost_count"], &report["keys"]),
        (Some(0), &0.into(), &15.into())
    );
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains("nothing is lost"),
        "{report}"
    );
    assert_eq!(digest(folder, "out.rdb"), digest(folder, "sound.rdb"));
}

#[test]
fn a_damaged_header_costs_nothing() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let path = write(folder, "dump.rdb", &rdb(&mixed(10)));
    for at in 0..9 {
        flip(&path, at);
        let (code, report) = salvage(folder, "dump.rdb");
        assert_eq!(
            (code, &report["keys"]),
            (Some(0), &15.into()),
            "{at}: {report}"
        );
        assert!(
            report["notes"].to_string().contains("was read as"),
            "{at}: {report}"
        );
        flip(&path, at);
    }
}

#[test]
fn damage_costs_what_it_hits_and_is_listed() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let bytes = rdb(&mixed(300));
    let path = write(folder, "dump.rdb", &bytes);
    // The type of one key, which then has no length that anybody knows.
    flip(&path, find(&path, b"\x07key:150") - 1);
    let (code, report) = salvage(folder, "dump.rdb");
    assert_eq!(
        (code, &report["keys"], &report["lost_count"]),
        (Some(1), &304.into(), &1.into()),
        "{report}"
    );
    let lost = &report["lost"][0];
    let (from, to) = (
        lost["from"].as_u64().unwrap() as usize,
        lost["to"].as_u64().unwrap() as usize,
    );
    let range = bytes[from..to]
        .windows(7)
        .filter(|w| w.starts_with(b"key:150"));
    assert_eq!((range.count(), &lost["file"]), (1, &"dump.rdb".into()));
    assert!(
        !std::fs::read(folder.join("out.rdb"))
            .unwrap()
            .windows(7)
            .any(|w| w == b"key:150")
    );

    let path = write(folder, "cut.rdb", &bytes);
    cut(&path, bytes.len() / 2);
    let (code, report) = salvage(folder, "cut.rdb");
    let keys = report["keys"].as_u64().unwrap();
    assert!(code == Some(1) && keys > 100 && keys < 200, "{report}");
    assert!(
        report["lost"][0]["key"]
            .as_str()
            .unwrap()
            .starts_with("key:"),
        "{report}"
    );
}

#[test]
fn keys_with_damaged_values_are_named() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    std::fs::copy(golden("listpack_entry_overruns.rdb"), folder.join("a.rdb")).unwrap();
    let (code, report) = salvage(folder, "a.rdb");
    assert_eq!(
        (code, &report["lost"][0]["db"]),
        (Some(1), &0.into()),
        "{report}"
    );
    assert!(report["lost"][0]["key"].is_string());
    let twice = [string("k", "first"), string("k", "second")];
    write(folder, "b.rdb", &rdb(&twice));
    let (code, report) = salvage(folder, "b.rdb");
    assert_eq!(
        (code, &report["keys"], &report["lost"][0]["key"]),
        (Some(1), &1.into(), &"k".into())
    );
    write(folder, "first.rdb", &rdb(&twice[..1]));
    assert_eq!(digest(folder, "out.rdb"), digest(folder, "first.rdb"));
}

#[test]
fn what_is_there_of_a_set_is_kept() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    dfs(folder, "set", 1, 3, &mixed(295), Compression::Lz4);
    std::fs::remove_file(folder.join("set-0001.dfs")).unwrap();
    let (code, report) = salvage(folder, "set");
    assert_eq!(
        (code, &report["keys"], &report["lost"][0]["file"]),
        (Some(1), &200.into(), &"set-0001.dfs".into())
    );
    // A blob of another shard: what else is in that file stays.
    let path = folder.join("set-0002.dfs");
    let middle = std::fs::read(&path).unwrap().len() / 2;
    flip(&path, middle);
    let (code, report) = salvage(folder, "set-summary.dfs");
    let keys = report["keys"].as_u64().unwrap();
    assert!(code == Some(1) && keys > 100 && keys < 200, "{report}");
    assert_eq!(report["lost_count"], 2, "{report}");
    std::fs::remove_file(folder.join("set-summary.dfs")).unwrap();
    let (_, report) = salvage(folder, "set");
    assert!(
        report["lost"].to_string().contains("set-summary.dfs"),
        "{report}"
    );
}

#[test]
fn commands_behind_damage_are_applied() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let log = [
        commands(&[
            &["SELECT", "0"],
            &["SET", "a", "1"],
            &["SET", "b", "2"],
            &["SET", "c", "3"],
        ]),
        commands(&[&["SELECT", "0"], &["INCR", "a"], &["MULTI"], &["INCR", "a"]]),
    ];
    aof(&folder.join("aof"), &[string("old", "v")], &log);
    let path = folder.join("aof/a.aof.1.incr.aof");
    flip(&path, find(&path, b"*3\r\n$3\r\nSET\r\n$1\r\nb"));
    let (code, report) = salvage(folder, "aof");
    assert_eq!(
        (code, &report["keys"], &report["lost_count"]),
        (Some(1), &3.into(), &2.into()),
        "{report}"
    );
    write(
        folder,
        "want.rdb",
        &rdb(&[string("old", "v"), string("a", "2"), string("c", "3")]),
    );
    assert_eq!(digest(folder, "out.rdb"), digest(folder, "want.rdb"));
    // Without a manifest that can be read, the numbers in the names tell the order.
    write(folder, "aof/a.aof.manifest", b"nonsense");
    let (_, report) = salvage(folder, "aof");
    assert_eq!(report["keys"], 3, "{report}");
    std::fs::remove_file(folder.join("aof/a.aof.manifest")).unwrap();
    let (_, report) = salvage(folder, "aof");
    assert_eq!(report["keys"], 3, "{report}");
    // One file with a dump in front.
    write(
        folder,
        "one.aof",
        &[
            rdb(&[string("old", "v")]),
            log[0].clone(),
            b"*1\r\n$4\r\nPI".to_vec(),
        ]
        .concat(),
    );
    let (code, report) = salvage(folder, "one.aof");
    assert_eq!((code, &report["keys"]), (Some(1), &4.into()), "{report}");
}

#[test]
fn items_of_json_that_are_sound_are_kept() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let text = "{\"key\":\"a\",\"type\":\"string\",\"value\":\"x\"}\n{\"key\":\"b\",\"type\":\"set\",\"value\":[\"y\",\"y\"]}\n{\"key\":\"c\",\"type\":\"string\",\"value\":\"x\"}\n{\"key\":";
    write(folder, "dump.ndjson", text.as_bytes());
    let (code, report) = salvage(folder, "dump.ndjson");
    assert_eq!(
        (code, &report["keys"], &report["lost"][0]["key"]),
        (Some(1), &2.into(), &"b".into()),
        "{report}"
    );
    assert_eq!(report["lost"][1]["to"], text.len(), "{report}");
}

#[test]
fn keys_are_chosen_and_changed_on_the_way() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    write(folder, "dump.rdb", &rdb(&mixed(20)));
    dfs(folder, "set", 1, 3, &mixed(20), Compression::Lz4);
    for path in ["dump.rdb", "set"] {
        let args = [
            "salvage", path, "-o", "out.rdb", "--match", "key:1*", "--rename", "^key=>k",
            "--to-db", "4",
        ];
        let run = dfsnap(folder, &args);
        assert_eq!(run.code, Some(0), "{}", run.err);
        let listed = dfsnap(folder, &["ls", "out.rdb"]).out;
        let rows: Vec<&str> = listed.lines().skip(1).collect();
        assert_eq!(rows.len(), 11, "{listed}");
        let is_moved = |row: &&str| row.trim_start().starts_with("4 ") && row.contains("\"k:1");
        assert!(rows.iter().all(is_moved), "{listed}");
    }
}

#[test]
fn nothing_appears_where_nothing_can_be_read() {
    let folder = tempdir().unwrap();
    write(folder.path(), "text.rdb", b"no dump at all");
    let run = dfsnap(folder.path(), &["salvage", "text.rdb", "-o", "out.rdb"]);
    assert_eq!(run.code, Some(2), "{}{}", run.out, run.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn text_for_people_reads_well() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "dump.rdb", &rdb(&mixed(30)));
    flip(&path, find(&path, b"\x06key:15") - 1);
    let run = dfsnap(folder.path(), &["salvage", "dump.rdb", "-o", "out.rdb"]);
    insta::assert_snapshot!("salvage_text", run.out);
    insta::assert_snapshot!(
        "salvage_help",
        dfsnap(folder.path(), &["salvage", "--help"]).out
    );
}

/// Of everything in the corpus that can be read at all a sound dump is made, and nothing is lost of what is sound.
#[test]
fn corpus_becomes_sound() {
    let Some(corpus) = corpus::corpus() else {
        return;
    };
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.rdb");
    let out = out.to_str().unwrap();
    let formats = [
        "RDB",
        "DFS",
        "AOF",
        "AOF with RDB preamble",
        "AOF multi-part",
    ];
    let rows = corpus::manifest(&corpus);
    // Searching large files for the next record takes long without optimization.
    let is_small = |row: &corpus::Row| row["bytes"].parse::<u64>().is_ok_and(|n| n < 100_000);
    let (mut whole, mut lossy) = (0, 0);
    for row in rows.iter().filter(|row| is_small(row)) {
        let file = row["file"].as_str();
        if !formats.contains(&&*row["format"]) {
            continue;
        }
        let run = dfsnap(
            &corpus,
            &["salvage", file, "-o", out, "--allow-loss", "--json"],
        );
        if run.code == Some(2) {
            continue;
        }
        let sound = dfsnap(&corpus, &["verify", out]);
        assert_eq!(sound.code, Some(0), "{file}: {}{}", sound.out, run.out);
        let was_sound = dfsnap(&corpus, &["verify", file]).code == Some(0);
        // Scripts can be read, but not replayed.
        if was_sound && !run.out.contains("a script") {
            assert_eq!(run.code, Some(0), "{file}: {}", run.out);
        }
        whole += usize::from(run.code == Some(0));
        lossy += usize::from(run.code == Some(1));
    }
    assert!(whole > 250 && lossy > 60, "{whole} {lossy}");
}
