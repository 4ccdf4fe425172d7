//! `dfsnap verify`: sound dumps pass, and each planted damage is found and named.

mod dumps;

use dfsnap_formats::dfs::writer::Compression;
use dumps::*;
use std::path::Path;
use tempfile::tempdir;

/// A damage: its name, what is verified, how a folder with sound dumps is damaged, and the finding that must come.
struct Planted {
    name: &'static str,
    path: &'static str,
    plant: fn(&Path),
    kind: &'static str,
    file: &'static str,
    words: &'static str,
}

const fn row(
    (name, path): (&'static str, &'static str),
    plant: fn(&Path),
    (kind, file, words): (&'static str, &'static str, &'static str),
) -> Planted {
    Planted {
        name,
        path,
        plant,
        kind,
        file,
        words,
    }
}

/// A sound dump of each format.
fn sound(folder: &Path) {
    let entries = mixed(200);
    write(folder, "dump.rdb", &rdb(&entries));
    dfs(folder, "set", 1, 3, &entries, Compression::Lz4);
    dfs(folder, "plain", 2, 2, &entries, Compression::None);
    let log = [
        commands(&[&["SELECT", "0"], &["SET", "a", "1"]]),
        commands(&[
            &["SELECT", "0"],
            &["MULTI"],
            &["INCR", "a"],
            &["EXEC"],
            &["INCR", "b"],
        ]),
    ];
    aof(&folder.join("aof"), &entries, &log);
    write(
        folder,
        "single.aof",
        &[rdb(&entries), log[1].clone()].concat(),
    );
    let text = "{\"key\":\"a\",\"type\":\"string\",\"value\":\"x\"}\n{\"key\":\"b\",\"type\":\"set\",\"value\":[\"y\"]}\n";
    write(folder, "dump.ndjson", text.as_bytes());
}

const TABLE: [Planted; 37] = [
    row(
        ("rdb: a byte of a string", "dump.rdb"),
        |f| flip(&f.join("dump.rdb"), find(&f.join("dump.rdb"), b"value 7 ")),
        ("checksum", "dump.rdb", "computed over the bytes before"),
    ),
    row(
        ("rdb: a byte of a type", "dump.rdb"),
        |f| {
            flip(
                &f.join("dump.rdb"),
                find(&f.join("dump.rdb"), b"\x05key:7") - 1,
            )
        },
        ("structure", "dump.rdb", "neither a type nor an opcode"),
    ),
    row(
        ("rdb: cut", "dump.rdb"),
        |f| cut(&f.join("dump.rdb"), 100),
        ("cut", "dump.rdb", " left"),
    ),
    row(
        ("rdb: cut inside the checksum", "dump.rdb"),
        |f| cut(&f.join("dump.rdb"), 3),
        ("cut", "dump.rdb", "wanted 8 bytes, 5 left"),
    ),
    row(
        ("rdb: wrong checksum", "dump.rdb"),
        |f| {
            let path = f.join("dump.rdb");
            flip(&path, std::fs::metadata(&path).unwrap().len() as usize - 2)
        },
        ("checksum", "dump.rdb", "is stored"),
    ),
    row(
        ("rdb: bytes behind the end", "dump.rdb"),
        |f| {
            let bytes = [std::fs::read(f.join("dump.rdb")).unwrap(), b"junk".to_vec()].concat();
            write(f, "dump.rdb", &bytes);
        },
        (
            "trailing_bytes",
            "dump.rdb",
            "4 bytes behind the end of the dump",
        ),
    ),
    row(
        ("rdb: a key twice", "dump.rdb"),
        |f| {
            drop(write(
                f,
                "dump.rdb",
                &rdb(&[
                    string("k", "1"),
                    in_db(string("k", "2"), 1),
                    in_db(string("k", "3"), 1),
                ]),
            ))
        },
        (
            "duplicate_key",
            "dump.rdb",
            "key \"k\" in db 1 is there twice",
        ),
    ),
    row(
        ("rdb: a damaged pack", "x.rdb"),
        |f| copy(&golden("listpack_entry_overruns.rdb"), &f.join("x.rdb")),
        ("value", "x.rdb", "in the blob"),
    ),
    row(
        ("rdb: a consumer that is not there", "x.rdb"),
        |f| copy(&golden("stream_consumer_pel_unknown.rdb"), &f.join("x.rdb")),
        ("value", "x.rdb", "pending"),
    ),
    row(
        ("dfs: a byte inside a blob", "set"),
        |f| flip(&f.join("set-0001.dfs"), 300),
        ("checksum", "set-0001.dfs", "but the manifest has"),
    ),
    row(
        ("dfs: a byte of a string", "plain-summary.dfs"),
        |f| {
            flip(
                &f.join("plain-0001.dfs"),
                find(&f.join("plain-0001.dfs"), b"value 7 "),
            )
        },
        ("checksum", "plain-0001.dfs", "checksum"),
    ),
    row(
        ("dfs: cut", "set"),
        |f| cut(&f.join("set-0002.dfs"), 20),
        ("manifest", "set-0002.dfs", "bytes, but the manifest has"),
    ),
    row(
        ("dfs: cut, without manifest", "set"),
        |f| {
            std::fs::remove_file(f.join("set-manifest.json")).unwrap();
            cut(&f.join("set-0002.dfs"), 20)
        },
        ("cut", "set-0002.dfs", " left"),
    ),
    row(
        ("dfs: a shard missing", "set-0000.dfs"),
        |f| std::fs::remove_file(f.join("set-0001.dfs")).unwrap(),
        ("missing_file", "set-0001.dfs", "not there"),
    ),
    row(
        ("dfs: the summary missing", "set"),
        |f| std::fs::remove_file(f.join("set-summary.dfs")).unwrap(),
        ("missing_file", "set-summary.dfs", "not there"),
    ),
    row(
        ("dfs: two shards swapped", "set"),
        |f| {
            std::fs::rename(f.join("set-0000.dfs"), f.join("x")).unwrap();
            std::fs::rename(f.join("set-0001.dfs"), f.join("set-0000.dfs")).unwrap();
            std::fs::rename(f.join("x"), f.join("set-0001.dfs")).unwrap();
        },
        ("swapped_file", "set-0000.dfs", "it was renamed or swapped"),
    ),
    row(
        ("dfs: a shard of another snapshot", "set"),
        |f| copy(&f.join("plain-0001.dfs"), &f.join("set-0001.dfs")),
        ("foreign_file", "set-0001.dfs", "snapshot id"),
    ),
    row(
        ("dfs: one shard too many", "set"),
        |f| copy(&f.join("set-0001.dfs"), &f.join("set-0003.dfs")),
        (
            "foreign_file",
            "set-0003.dfs",
            "is there, but set-summary.dfs says 3 shards",
        ),
    ),
    row(
        ("dfs: a key in two shards", "two"),
        |f| {
            dfs(
                f,
                "two",
                3,
                2,
                &[string("k", "1"), string("k", "2")],
                Compression::Lz4,
            );
        },
        (
            "duplicate_key",
            "two-0001.dfs",
            "key \"k\" in db 0 is there twice",
        ),
    ),
    row(
        ("dfs: altered manifest", "set"),
        |f| replace(&f.join("set-manifest.json"), "\"keys\": 69", "\"keys\": 68"),
        ("manifest", "set-manifest.json", "totals.keys"),
    ),
    row(
        ("dfs: no manifest but some text", "set"),
        |f| drop(write(f, "set-manifest.json", b"{")),
        ("manifest", "set-manifest.json", "manifest: "),
    ),
    row(
        ("dfs: the manifest of another set", "set"),
        |f| {
            let text = std::fs::read_to_string(f.join("plain-manifest.json")).unwrap();
            write(
                f,
                "set-manifest.json",
                text.replace("plain-", "set-").as_bytes(),
            );
        },
        ("foreign_file", "set-0000.dfs", "snapshot id"),
    ),
    row(
        ("dfs: left over", "set"),
        |f| drop(write(f, "set-0000.dfs.tmp", b"REDIS0009")),
        (
            "leftover",
            "set-0000.dfs.tmp",
            "left over from a snapshot that was not finished",
        ),
    ),
    row(
        ("dfs: much behind the end", "set"),
        |f| {
            std::fs::remove_file(f.join("set-manifest.json")).unwrap();
            let bytes = [
                std::fs::read(f.join("set-0000.dfs")).unwrap(),
                vec![7; 5000],
            ]
            .concat();
            write(f, "set-0000.dfs", &bytes);
        },
        (
            "trailing_bytes",
            "set-0000.dfs",
            "5000 bytes behind the end",
        ),
    ),
    row(
        ("aof: cut in a command", "aof"),
        |f| cut(&f.join("aof/a.aof.2.incr.aof"), 4),
        ("cut", "a.aof.2.incr.aof", "ends inside a command"),
    ),
    row(
        ("aof: cut in a MULTI", "aof"),
        |f| cut(&f.join("aof/a.aof.2.incr.aof"), 44),
        ("cut", "a.aof.2.incr.aof", "between MULTI and EXEC"),
    ),
    row(
        (
            "aof: cut in a file that is not the last",
            "aof/a.aof.manifest",
        ),
        |f| cut(&f.join("aof/a.aof.1.incr.aof"), 4),
        ("cut", "a.aof.1.incr.aof", "another file follows"),
    ),
    row(
        ("aof: a byte of a length", "aof"),
        |f| flip(&f.join("aof/a.aof.1.incr.aof"), 1),
        ("structure", "a.aof.1.incr.aof", "bytes skipped"),
    ),
    row(
        ("aof: EXEC without MULTI", "single.aof"),
        |f| {
            write(f, "single.aof", &commands(&[&["SET", "a", "1"], &["EXEC"]]));
        },
        ("command", "single.aof", "EXEC without MULTI"),
    ),
    row(
        ("aof: a byte of a command's name", "single.aof"),
        |f| flip(&f.join("single.aof"), find(&f.join("single.aof"), b"INCR")),
        ("command", "single.aof", "servers refuse the file"),
    ),
    row(
        ("aof: the first byte", "aof/a.aof.1.incr.aof"),
        |f| flip(&f.join("aof/a.aof.1.incr.aof"), 0),
        ("structure", "aof/a.aof.1.incr.aof", "bytes skipped"),
    ),
    row(
        ("aof: cut behind a preamble", "single.aof"),
        |f| cut(&f.join("single.aof"), 1),
        ("cut", "single.aof", "ends inside a command"),
    ),
    row(
        ("aof: a bad line in the manifest", "aof"),
        |f| replace(&f.join("aof/a.aof.manifest"), "seq 2", "seq x"),
        ("manifest", "a.aof.manifest", "line 3: seq"),
    ),
    row(
        ("aof: the manifest missing", "aof"),
        |f| std::fs::remove_file(f.join("aof/a.aof.manifest")).unwrap(),
        ("missing_file", "a.aof.manifest", "only it says"),
    ),
    row(
        ("aof: a file missing", "aof"),
        |f| std::fs::remove_file(f.join("aof/a.aof.1.base.rdb")).unwrap(),
        (
            "missing_file",
            "a.aof.1.base.rdb",
            "not there, but a.aof.manifest names it",
        ),
    ),
    row(
        ("aof: a file that is not named, and one left over", "aof"),
        |f| {
            write(f, "aof/a.aof.3.incr.aof", b"");
            write(f, "aof/temp-rewriteaof-7.aof", b"");
        },
        ("foreign_file", "a.aof.3.incr.aof", "does not name it"),
    ),
    row(
        ("ndjson: cut", "dump.ndjson"),
        |f| cut(&f.join("dump.ndjson"), 5),
        ("cut", "dump.ndjson", "line 2"),
    ),
];

#[test]
fn sound_dumps_pass() {
    let folder = tempdir().unwrap();
    sound(folder.path());
    for path in [
        "dump.rdb",
        "set",
        "set-0001.dfs",
        "plain-summary.dfs",
        "aof",
        "aof/a.aof.manifest",
        "single.aof",
        "dump.ndjson",
    ] {
        let run = dfsnap(folder.path(), &["verify", path]);
        assert_eq!(run.code, Some(0), "{path}: {}{}", run.out, run.err);
        assert!(run.out.contains("sound; "), "{path}: {}", run.out);
    }
    let report = dfsnap(folder.path(), &["verify", "--json", "aof"]).json();
    assert_eq!(
        (&report["keys"], &report["commands"], &report["files"]),
        (&205.into(), &7.into(), &4.into())
    );
}

#[test]
fn planted_damages_are_found_and_named() {
    for planted in TABLE {
        let folder = tempdir().unwrap();
        sound(folder.path());
        (planted.plant)(folder.path());
        let name = planted.name;
        let run = dfsnap(folder.path(), &["verify", "--json", planted.path]);
        assert_eq!(run.code, Some(1), "{name}: {}{}", run.out, run.err);
        let report = run.json();
        assert_eq!(report["sound"], false, "{name}");
        let findings = report["findings"].as_array().unwrap();
        let is_it = |finding: &&serde_json::Value| {
            finding["kind"] == planted.kind
                && finding["file"] == planted.file
                && finding["message"].as_str().unwrap().contains(planted.words)
        };
        assert!(
            findings.iter().any(|finding| is_it(&finding)),
            "{name}: {}",
            run.out
        );
        let text = dfsnap(folder.path(), &["verify", planted.path]).out;
        assert!(
            text.contains(&format!("damage: {}: ", planted.file)),
            "{name}: {text}"
        );
    }
}

#[test]
fn golden_dumps_are_what_the_servers_say() {
    let folder = tempdir().unwrap();
    let rows = [
        ("redis-7.4.1--tiny.rdb", 0, "sound"),
        ("valkey80_hash_2.rdb", 0, "sound"),
        ("duplicate_key.rdb", 1, "is there twice"),
        ("checksum_wrong.rdb", 1, "checksum"),
        ("ziplist_bad_prevlen.rdb", 1, "ziplist previous size"),
        ("unknown_opcode_200.rdb", 1, "not readable to its end"),
    ];
    for (file, code, words) in rows {
        let path = golden(file);
        let run = dfsnap(folder.path(), &["verify", path.to_str().unwrap()]);
        assert_eq!(run.code, Some(code), "{file}: {}", run.out);
        assert!(run.out.contains(words), "{file}: {}", run.out);
    }
}

#[test]
fn checks_go_on_behind_a_damaged_value() {
    let mut bytes = std::fs::read(golden("listpack_entry_overruns.rdb")).unwrap();
    // A second key with the same damage, before the end mark and the checksum.
    let end = bytes.len() - 9;
    let start = bytes.iter().position(|byte| *byte == 16).unwrap();
    let mut second = bytes[start..end].to_vec();
    second[2] ^= 1;
    bytes.splice(
        end..,
        [&second[..], &[0xFF, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
    );
    let report = piped(Path::new("."), &["verify", "--json", "-"], &bytes).json();
    assert_eq!(
        (&report["keys"], &report["finding_count"]),
        (&2.into(), &2.into()),
        "{report}"
    );
    assert_eq!(report["complete"], true);
    assert_eq!(report["findings"][0]["db"], 0);
    assert!(report["findings"][0]["key"].is_string() && report["findings"][0]["offset"].is_u64());
}

#[test]
fn values_larger_than_memory_should_be_are_checked_in_pieces() {
    let members: Vec<String> = (0..150_000).map(|n| format!("member {n}")).collect();
    let mut members: Vec<&str> = members.iter().map(String::as_str).collect();
    let large = [
        string("s", &"text ".repeat(400_000)),
        set("big", &members),
        string("behind", "v"),
    ];
    let run = piped(Path::new("."), &["verify", "--json", "-"], &rdb(&large));
    assert_eq!(run.code, Some(0), "{}", run.out);
    assert_eq!(run.json()["keys"], 3);
    members.push("member 0");
    let run = piped(
        Path::new("."),
        &["verify", "--json", "-"],
        &rdb(&[set("big", &members), string("behind", "v")]),
    );
    let report = run.json();
    assert_eq!(
        (run.code, &report["keys"], &report["findings"][0]["key"]),
        (Some(1), &2.into(), &"big".into()),
        "{report}"
    );
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let folder = tempdir().unwrap();
    write(folder.path(), "text", b"hello, world");
    write(folder.path(), "newer.rdb", b"REDIS0099");
    for (path, words) in [
        ("text", "no RDB file"),
        ("newer.rdb", "version 99"),
        ("absent", "absent"),
        ("gone-summary.dfs", "No such file"),
        (".", "folder"),
    ] {
        let run = dfsnap(folder.path(), &["verify", path]);
        assert_eq!(run.code, Some(2), "{path}: {}", run.out);
        assert!(
            run.err.contains(words) && run.err.contains("\ntry: "),
            "{path}: {}",
            run.err
        );
    }
}

#[test]
fn text_for_people_reads_well() {
    let folder = tempdir().unwrap();
    sound(folder.path());
    std::fs::remove_file(folder.path().join("set-0001.dfs")).unwrap();
    write(folder.path(), "set-0000.dfs.tmp", b"");
    let run = dfsnap(folder.path(), &["verify", "set"]);
    insta::assert_snapshot!(run.out);
    insta::assert_snapshot!("help", dfsnap(folder.path(), &["verify", "--help"]).out);
}

/// What servers load with every check on is sound, and what they refuse is not.
#[test]
fn corpus_gets_the_verdicts_of_the_servers() {
    let Some(folder) = corpus::corpus() else {
        return;
    };
    // A newline that an editor left behind; servers do not look there.
    let trailing = ["collected/rdb-rs__sorted_set_as_ziplist.rdb"];
    let (mut sound, mut damaged) = (0, 0);
    for row in corpus::manifest(&folder) {
        let file = row["file"].as_str();
        let loads = row["expected"] == "loads" && row["oracle_strict"] == "loads";
        let is_corrupt = row["expected"].starts_with("corrupt");
        if !(loads || is_corrupt) || trailing.contains(&file) {
            continue;
        }
        let run = dfsnap(&folder, &["verify", file]);
        let text = format!("{file}: {}{}", run.out, run.err);
        match loads {
            true => assert_eq!(run.code, Some(0), "{text}"),
            false => assert!(matches!(run.code, Some(1 | 2)), "{text}"),
        }
        sound += usize::from(loads);
        damaged += usize::from(is_corrupt);
    }
    assert!(sound > 200 && damaged > 70, "{sound} {damaged}");
}
