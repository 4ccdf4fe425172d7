//! `dfsnap digest`: the same for every format that holds the same data.

mod dumps;

use dfsnap_formats::dfs::writer::Compression;
use dumps::*;
use tempfile::tempdir;

#[test]
fn every_format_has_the_digest_of_its_data() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut entries = mixed(100);
    let members: Vec<String> = (0..400_000).map(|n| format!("member {n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    // More than is read at once.
    entries.push(set("big", &members));
    write(folder, "a.rdb", &rdb(&entries));
    dfs(folder, "set", 1, 3, &entries, Compression::Zstd(1));
    aof(&folder.join("aof"), &entries, &[]);
    assert_eq!(
        dfsnap(folder, &["convert", "a.rdb", "a.ndjson"]).code,
        Some(0)
    );
    let want = dfsnap(folder, &["digest", "a.rdb"]).out;
    assert_eq!(want.trim_end().len(), 40);
    for path in ["set", "set-0002.dfs", "aof", "a.ndjson"] {
        let run = dfsnap(folder, &["digest", path]);
        assert_eq!(
            (run.code, &run.out),
            (Some(0), &want),
            "{path}: {}",
            run.err
        );
    }
    let report = dfsnap(folder, &["digest", "--json", "set"]).json();
    assert_eq!(
        (report["digest"].as_str(), &report["keys"]),
        (Some(want.trim_end()), &106.into())
    );
    let some = dfsnap(folder, &["digest", "--json", "a.rdb", "--match", "key:1*"]).json();
    assert_eq!(some["keys"], 11);
    insta::assert_snapshot!("digest_help", dfsnap(folder, &["digest", "--help"]).out);
}

#[test]
fn a_part_of_a_set_is_not_taken_for_the_whole() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    type Damage = fn(&std::path::Path);
    let rows: [(&str, Damage, &str); 3] = [
        (
            "a shard missing",
            |f| std::fs::remove_file(f.join("set-0001.dfs")).unwrap(),
            "says 3 shards, but 2 are there",
        ),
        (
            "the summary missing",
            |f| std::fs::remove_file(f.join("set-summary.dfs")).unwrap(),
            "no summary",
        ),
        (
            "a shard of another set",
            |f| copy(&f.join("other-0001.dfs"), &f.join("set-0001.dfs")),
            "snapshot id",
        ),
    ];
    for (name, damage, words) in rows {
        dfs(folder, "set", 1, 3, &mixed(50), Compression::Lz4);
        dfs(folder, "other", 2, 3, &mixed(50), Compression::Lz4);
        // One that was never finished is no shard.
        write(folder, "set-0007.dfs.tmp", b"");
        assert_eq!(dfsnap(folder, &["digest", "set"]).code, Some(0), "{name}");
        damage(folder);
        for args in [&["digest", "set"][..], &["merge", "set", "-o", "out.rdb"]] {
            let run = dfsnap(folder, args);
            assert_eq!(run.code, Some(2), "{name}: {}", run.out);
            assert!(
                run.err.contains(words) && run.err.contains("try: dfsnap verify"),
                "{name}: {}",
                run.err
            );
        }
        assert!(!folder.join("out.rdb").exists(), "{name}");
    }
}
