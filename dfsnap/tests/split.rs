//! `dfsnap split`: every key in one part, and the folder whole or not at all.

mod dumps;

use dumps::*;
use std::path::Path;
use tempfile::tempdir;

/// Splits `dump.rdb` into `parts`, and gives the names of the files with their keys.
fn split(folder: &Path, options: &[&str]) -> Vec<(String, u64)> {
    let run = dfsnap(
        folder,
        &[&["split", "dump.rdb", "-o", "parts", "--json"], options].concat(),
    );
    assert_eq!(run.code, Some(0), "{options:?}: {}", run.err);
    let report = run.json();
    let parts = report["parts"].as_array().unwrap().iter();
    parts
        .map(|part| {
            (
                part["file"].as_str().unwrap().to_owned(),
                part["keys"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn parts_together_are_the_whole() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut entries = mixed(500);
    entries.push(in_db(string("user:7:name", "v"), 2));
    entries.push(string("user:8:name", "v"));
    write(folder, "dump.rdb", &rdb(&entries));
    let rows: [(&[&str], usize); 6] = [
        (&["--by", "slot", "-n", "3"], 3),
        (&["--by", "shards", "-n", "7"], 7),
        (&["--by", "db"], 2),
        (&["--by", "prefix"], 3),
        (&["--by", "shards", "-n", "2", "--to", "dfs"], 2),
        (&["--by", "db", "--to", "ndjson"], 2),
    ];
    for (options, count) in rows {
        let parts = split(folder, options);
        assert_eq!(parts.len(), count, "{options:?}: {parts:?}");
        assert_eq!(
            parts.iter().map(|(_, keys)| keys).sum::<u64>(),
            507,
            "{options:?}"
        );
        let paths: Vec<String> = parts
            .iter()
            .map(|(file, _)| format!("parts/{file}"))
            .collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let run = dfsnap(
            folder,
            &[&["merge"], &paths[..], &["-o", "back.rdb"]].concat(),
        );
        assert_eq!(run.code, Some(0), "{options:?}: {}", run.err);
        let run = dfsnap(folder, &["diff", "dump.rdb", "back.rdb"]);
        assert_eq!(run.code, Some(0), "{options:?}: {}", run.out);
        std::fs::remove_dir_all(folder.join("parts")).unwrap();
    }
}

#[test]
fn keys_go_where_they_belong() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    // Slots 12182, 5061, 866; 0 and 16383 are the ends.
    let keys = ["foo", "bar", "hello", "{06S}x", "{6ZJ}x"];
    let entries: Vec<_> = keys.iter().map(|key| string(key, "v")).collect();
    write(folder, "dump.rdb", &rdb(&entries));
    let parts = split(folder, &["--by", "slot", "-n", "3"]);
    let names: Vec<&str> = parts.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(
        names,
        [
            "slots-00000-05460.rdb",
            "slots-05461-10922.rdb",
            "slots-10923-16383.rdb"
        ]
    );
    for (file, _) in &parts {
        let range = file
            .trim_start_matches("slots-")
            .trim_end_matches(".rdb")
            .split_once('-')
            .unwrap();
        let range = format!(
            "{}-{}",
            range.0.parse::<u16>().unwrap(),
            range.1.parse::<u16>().unwrap()
        );
        let path = format!("parts/{file}");
        let all = dfsnap(folder, &["digest", "--json", &path]).json();
        let within = dfsnap(folder, &["digest", "--json", &path, "--slot", &range]).json();
        assert_eq!(all, within, "{file}");
    }
    let entries = [
        string("user:1:a", ""),
        string("user:1:b", ""),
        string("user:2:a", ""),
        string("plain", ""),
        string("a b:c", ""),
    ];
    write(folder, "dump.rdb", &rdb(&entries));
    std::fs::remove_dir_all(folder.join("parts")).unwrap();
    let want = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        list.iter().map(|(f, k)| ((*f).to_owned(), *k)).collect()
    };
    assert_eq!(
        split(folder, &["--by", "prefix"]),
        want(&[
            ("prefix-%none.rdb", 1),
            ("prefix-a%20b.rdb", 1),
            ("prefix-user.rdb", 3)
        ])
    );
    std::fs::remove_dir_all(folder.join("parts")).unwrap();
    assert_eq!(
        split(folder, &["--by", "prefix", "--prefix-depth", "2"]),
        want(&[
            ("prefix-%none.rdb", 2),
            ("prefix-user%3a1.rdb", 2),
            ("prefix-user%3a2.rdb", 1)
        ])
    );
}

#[test]
fn functions_are_in_every_part() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    copy(
        &golden("redis-7.0.15--functions.rdb"),
        &folder.join("dump.rdb"),
    );
    let parts = split(folder, &["--by", "shards", "-n", "2"]);
    for (file, _) in parts {
        let run = dfsnap(folder, &["diff", "dump.rdb", &format!("parts/{file}")]);
        assert!(!run.out.contains("library"), "{file}: {}", run.out);
    }
}

#[test]
fn nothing_is_left_where_something_fails() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let bytes = rdb(&mixed(300));
    write(folder, "dump.rdb", &bytes[..bytes.len() - 50]);
    let run = dfsnap(folder, &["split", "dump.rdb", "--by", "db", "-o", "parts"]);
    assert_eq!(run.code, Some(2), "{}", run.out);
    let many: Vec<_> = (0..300).map(|n| string(&format!("p{n}:k"), "v")).collect();
    write(folder, "many.rdb", &rdb(&many));
    let run = dfsnap(
        folder,
        &["split", "many.rdb", "--by", "prefix", "-o", "parts"],
    );
    assert_eq!(run.code, Some(2), "{}", run.out);
    assert!(run.err.contains("more than 256 parts"), "{}", run.err);
    std::fs::create_dir(folder.join("full")).unwrap();
    write(folder, "full/file", b"");
    let run = dfsnap(folder, &["split", "many.rdb", "--by", "db", "-o", "full"]);
    assert_eq!(run.code, Some(2));
    assert!(run.err.contains("not empty"), "{}", run.err);
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["dump.rdb", "full", "many.rdb"]);
    insta::assert_snapshot!("split_help", dfsnap(folder, &["split", "--help"]).out);
}

#[test]
fn an_interrupt_leaves_nothing_half() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let folder = tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(["split", "-", "--by", "shards", "-o", "parts"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Half a dump, and no end of it while the pipe is open.
    let bytes = rdb(&mixed(300));
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(30);
    while names() == 0 {
        assert!(Instant::now() < deadline, "nothing was begun");
        std::thread::yield_now();
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(names(), 0);
    drop(pipe);
}
