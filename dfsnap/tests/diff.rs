//! `dfsnap diff`: what differs between two dumps, whatever their formats and encodings.

mod dumps;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::dfs::writer::Compression;
use dumps::*;
use std::path::Path;
use tempfile::tempdir;

fn diff(folder: &Path, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let run = dfsnap(folder, &[&["diff", "--json"], args].concat());
    assert!(matches!(run.code, Some(0 | 1)), "{}{}", run.out, run.err);
    (run.code, run.json())
}

/// Two datasets with differences of every sort.
fn before_and_after() -> (Vec<Entry>, Vec<Entry>) {
    let same = mixed(50);
    let before = [
        string("gone", "v"),
        string("text", "hello"),
        expiring(string("session", "v"), 4_000_000_000_000),
        string("turned", "v"),
        hash("h", &[("kept", "1"), ("old", "2"), ("both", "3")]),
        zset("z", &[("m", 1.0), ("n", 2.0)]),
        set("s", &["a", "b"]),
        list("l", &["a", "b", "c"]),
        in_db(string("k", "1"), 3),
    ];
    let after = [
        string("new", "v"),
        string("text", "hello, world"),
        string("session", "v"),
        set("turned", &["v"]),
        hash("h", &[("both", "4"), ("kept", "1"), ("new", "5")]),
        zset("z", &[("n", 2.0), ("m", 1.5)]),
        set("s", &["c", "b"]),
        list("l", &["a", "x", "c", "d"]),
        in_db(string("k", "1"), 4),
    ];
    let mut turned = same.clone();
    turned.reverse();
    (
        [same, before.to_vec()].concat(),
        [turned, after.to_vec()].concat(),
    )
}

#[test]
fn formats_order_and_encodings_do_not_matter() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut entries = mixed(300);
    write(folder, "a.rdb", &rdb(&entries));
    dfs(folder, "set", 1, 3, &entries, Compression::Lz4);
    aof(&folder.join("aof"), &entries, &[]);
    entries.reverse();
    write(folder, "b.rdb", &rdb(&entries));
    assert_eq!(
        dfsnap(folder, &["convert", "a.rdb", "a.ndjson"]).code,
        Some(0)
    );
    for other in ["a.rdb", "b.rdb", "set", "aof", "a.ndjson"] {
        for args in [["a.rdb", other], [other, "a.rdb"]] {
            let (code, report) = diff(folder, &args);
            assert_eq!(
                (code, &report["same"]),
                (Some(0), &true.into()),
                "{other}: {report}"
            );
            assert_eq!(
                (&report["a"]["keys"], &report["b"]["keys"]),
                (&305.into(), &305.into())
            );
        }
    }
    let bytes = std::fs::read(folder.join("b.rdb")).unwrap();
    let run = piped(folder, &["diff", "a.rdb", "-"], &bytes);
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    assert_eq!(dfsnap(folder, &["diff", "-", "-"]).code, Some(2));
}

#[test]
fn every_sort_of_difference_is_told() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let (before, after) = before_and_after();
    write(folder, "a.rdb", &rdb(&before));
    dfs(folder, "b", 1, 2, &after, Compression::None);
    let (code, report) = diff(folder, &["a.rdb", "b"]);
    assert_eq!(code, Some(1));
    let keys = |list: &str| -> Vec<String> {
        let list = report[list].as_array().unwrap().iter();
        list.map(|one| format!("{}:{}", one["db"], one["key"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(keys("removed"), ["0:gone", "3:k"]);
    assert_eq!(keys("added"), ["0:new", "4:k"]);
    assert_eq!(
        keys("changed"),
        [
            "0:h",
            "0:l",
            "0:s",
            "0:session",
            "0:text",
            "0:turned",
            "0:z"
        ]
    );
    for (name, want) in [
        ("changed_count", 7),
        ("changed_type_count", 1),
        ("changed_value_count", 5),
        ("changed_expiry_count", 1),
    ] {
        assert_eq!(report[name], want, "{name}");
    }
    let hash = &report["changed"][0];
    assert_eq!(
        (&hash["type"], &hash["value"], &hash["expiry"]),
        (&"hash".into(), &true.into(), &false.into())
    );
    let elements = &hash["elements"];
    assert_eq!(
        (
            &elements["added"],
            &elements["removed"],
            &elements["changed"]
        ),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(
        elements["shown"][0],
        serde_json::json!({ "name": "both", "change": "changed", "before": "3", "after": "4" })
    );
    let session = &report["changed"][3];
    assert_eq!(
        (&session["expire_at_ms_before"], &session["expire_at_ms"]),
        (&4_000_000_000_000i64.into(), &serde_json::Value::Null)
    );
    assert_eq!(report["changed"][5]["type_before"], "string");
    let text = dfsnap(folder, &["diff", "a.rdb", "b"]);
    insta::assert_snapshot!("diff_text", text.out);
    insta::assert_snapshot!("diff_help", dfsnap(folder, &["diff", "--help"]).out);
}

#[test]
fn options_leave_out_what_they_say() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let (before, after) = before_and_after();
    write(folder, "a.rdb", &rdb(&before));
    write(folder, "b.rdb", &rdb(&after));
    let rows: [(&[&str], Option<i32>, u64); 6] = [
        (&["--match", "session"], Some(1), 1),
        (&["--match", "session", "--ignore-expiry"], Some(0), 0),
        (&["--match", "key:*"], Some(0), 0),
        (&["--type", "zset,list"], Some(1), 2),
        (&["--ignore-expiry", "--db", "0"], Some(1), 6),
        (&["--limit", "2"], Some(1), 7),
    ];
    for (options, code, changed) in rows {
        let (found, report) = diff(folder, &[&["a.rdb", "b.rdb"], options].concat());
        assert_eq!(
            (found, &report["changed_count"]),
            (code, &changed.into()),
            "{options:?}: {report}"
        );
    }
    let (_, report) = diff(folder, &["a.rdb", "b.rdb", "--limit", "2"]);
    assert_eq!(report["changed"].as_array().unwrap().len(), 2);
    let (_, report) = diff(folder, &["a.rdb", "b.rdb", "--elements", "0"]);
    assert!(report["changed"][0]["elements"].is_null());
}

#[test]
fn what_does_not_fit_into_memory_is_compared_all_the_same() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut entries: Vec<Entry> = (0..40_000)
        .map(|n| string(&format!("key:{n}"), "v"))
        .collect();
    let members: Vec<String> = (0..40_000).map(|n| format!("m{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    entries.push(set("big", &members));
    write(folder, "a.rdb", &rdb(&entries));
    entries[100] = string("key:100", "w");
    entries[101] = string("other", "v");
    *entries.last_mut().unwrap() = set("big", &members[1..]);
    write(folder, "b.rdb", &rdb(&entries));
    let (_, small) = diff(folder, &["a.rdb", "b.rdb", "--memory", "1"]);
    let (code, large) = diff(folder, &["a.rdb", "b.rdb", "--memory", "1gb"]);
    assert_eq!((code, &small), (Some(1), &large));
    assert_eq!(
        (
            &large["removed_count"],
            &large["added_count"],
            &large["changed_count"]
        ),
        (&1.into(), &1.into(), &2.into())
    );
    assert_eq!(
        large["changed"][0]["elements"]["shown"][0]["name"], "m0",
        "{large}"
    );
}

#[test]
fn functions_are_compared() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let path = golden("redis-7.0.15--functions.rdb");
    let path = path.to_str().unwrap();
    assert_eq!(diff(folder, &[path, path]).0, Some(0));
    write(folder, "none.rdb", &rdb(&[]));
    let text = dfsnap(folder, &["diff", path, "none.rdb"]).out;
    assert!(text.contains("- library "), "{text}");
}
