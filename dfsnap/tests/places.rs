//! Odd places for results: devices, pipes, links, full disks, and files that may not grow. What is there stays, or is replaced by something whole.

mod dumps;
mod servers;

use dumps::{mixed, rdb, string, write};
use servers::{Redis, command, err, names, out};
use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::tempdir;

fn run(folder: &Path, args: &[&str]) -> Output {
    command(args).current_dir(folder).output().unwrap()
}

#[test]
fn output_that_nothing_takes_is_an_error() {
    let folder = tempdir().unwrap();
    write(folder.path(), "a.rdb", &rdb(&mixed(500)));
    let rows: [&[&str]; 10] = [
        &["ls", "a.rdb"],
        &["ls", "a.rdb", "--json"],
        &["ls", "a.rdb", "--csv"],
        &["get", "a.rdb", "key:1"],
        &["inspect", "a.rdb"],
        &["digest", "a.rdb"],
        &["verify", "a.rdb", "--json"],
        &["diff", "a.rdb", "a.rdb"],
        &["convert", "a.rdb", "-", "--to", "ndjson"],
        &["merge", "a.rdb", "a.rdb", "-o", "-", "--to", "rdb"],
    ];
    for args in rows {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let ran = command(args)
            .current_dir(folder.path())
            .stdout(full.unwrap())
            .output();
        let output = ran.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = err(&output);
        assert!(
            text.contains("standard output: No space"),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn pipes_and_folders_are_not_replaced() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(path, "a.rdb", &rdb(&mixed(50)));
    let made = Command::new("mkfifo").arg(path.join("pipe")).status();
    assert!(made.unwrap().success());
    std::fs::create_dir(path.join("folder")).unwrap();
    for place in ["pipe", "folder"] {
        let rows: [&[&str]; 4] = [
            &["convert", "a.rdb", place, "--to", "rdb"],
            &["merge", "a.rdb", "a.rdb", "-o", place, "--to", "rdb"],
            &["salvage", "a.rdb", "-o", place, "--to", "rdb"],
            &["report", "a.rdb", "-o", place],
        ];
        for args in rows {
            let output = run(path, args);
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert_eq!(names(path), ["a.rdb", "folder", "pipe"], "{args:?}");
        }
    }
    let pipe = path.join("pipe").metadata().unwrap();
    assert!(pipe.file_type().is_fifo());
}

#[test]
fn links_stay_links_and_files_keep_who_may_read_them() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(path, "a.rdb", &rdb(&mixed(50)));
    std::fs::create_dir(path.join("store")).unwrap();
    write(&path.join("store"), "old.rdb", b"old");
    let private = Permissions::from_mode(0o600);
    std::fs::set_permissions(path.join("store/old.rdb"), private).unwrap();
    for (link, to) in [("to-old", "store/old.rdb"), ("to-new", "store/new.rdb")] {
        std::os::unix::fs::symlink(to, path.join(link)).unwrap();
        let output = run(path, &["convert", "a.rdb", link, "--to", "rdb"]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(path.join(link).is_symlink());
        let digest = |name: &str| out(&run(path, &["digest", name]));
        assert_eq!(digest(to), digest("a.rdb"), "{link}");
    }
    let mode = path.join("store/old.rdb").metadata().unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(names(&path.join("store")), ["new.rdb", "old.rdb"]);
}

#[test]
fn a_dash_is_no_name_of_a_file() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(path, "a.rdb", &rdb(&mixed(50)));
    let rows: [&[&str]; 5] = [
        &["convert", "a.rdb", "-", "--to", "dfs"],
        &["convert", "a.rdb", "-", "--to", "aof"],
        &["split", "a.rdb", "--by", "db", "-o", "-"],
        &["report", "a.rdb", "-o", "-"],
        &["salvage", "a.rdb", "-o", "-", "--to", "dfs"],
    ];
    for args in rows {
        let output = run(path, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).contains("no single stream"), "{args:?}");
        assert_eq!(names(path), ["a.rdb"], "{args:?}");
    }
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let output = run(path, &["backup", &redis.url(), "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(names(path), ["a.rdb"]);
}

#[test]
fn files_that_may_not_grow_leave_nothing_half() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let text = "0123456789".repeat(50);
    let entries: Vec<_> = (0..4000)
        .map(|n| string(&format!("{n}:{text}"), &n.to_string()))
        .collect();
    write(path, "a.rdb", &rdb(&entries));
    let rows: [&[&str]; 9] = [
        &["convert", "a.rdb", "out.rdb"],
        &["convert", "a.rdb", "out.ndjson"],
        &["convert", "a.rdb", "out", "--to", "aof"],
        &[
            "convert",
            "a.rdb",
            "out",
            "--to",
            "dfs",
            "--compression",
            "none",
        ],
        &["split", "a.rdb", "--by", "db", "-o", "out"],
        &["merge", "a.rdb", "a.rdb", "-o", "out.rdb"],
        &["salvage", "a.rdb", "-o", "out.rdb"],
        &["diff", "a.rdb", "a.rdb", "--memory", "1mb"],
        &["convert", "a.rdb", "a.rdb"],
    ];
    let whole = std::fs::read(path.join("a.rdb")).unwrap();
    for args in rows {
        // In blocks of 512 or 1024 bytes: less than any of these needs.
        let ran = Command::new("sh")
            .args(["-c", "ulimit -f 100; exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_dfsnap"))
            .args(args)
            .current_dir(path)
            .output();
        let output = ran.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(
            err(&output).contains("File too large"),
            "{args:?}: {}",
            err(&output)
        );
        assert_eq!(names(path), ["a.rdb"], "{args:?}");
    }
    assert_eq!(std::fs::read(path.join("a.rdb")).unwrap(), whole);
}

#[test]
fn nothing_readable_is_an_error_and_no_empty_dump() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let sound = rdb(&mixed(50));
    write(path, "empty", b"");
    write(path, "text", b"hello\n");
    write(path, "cut", &sound[..7]);
    write(path, "cut.json", b"{\"a\":");
    let there = names(path);
    for (name, verdict) in [("empty", 1), ("text", 2), ("cut", 1), ("cut.json", 1)] {
        let output = run(path, &["salvage", name, "-o", "out.rdb"]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", out(&output));
        assert_eq!(names(path), there, "{name}");
        let output = run(path, &["verify", name]);
        assert_eq!(output.status.code(), Some(verdict), "{name}");
    }
    let output = run(path, &["inspect", "text"]);
    assert!(
        err(&output).contains("found \"hello\\n\""),
        "{}",
        err(&output)
    );
    // What a filter leaves out was read all the same.
    write(path, "damaged", &sound[..sound.len() - 30]);
    let args = ["salvage", "damaged", "-o", "out.rdb", "--match", "nobody"];
    assert_eq!(run(path, &args).status.code(), Some(1));
}

#[test]
fn a_server_is_not_copied_into_itself() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    servers::fill(&redis);
    let want = redis.digest();
    let folder = tempdir().unwrap();
    let (socket, port) = (redis.url(), format!("redis://127.0.0.1:{}", redis.port));
    let rows: [&[&str]; 3] = [
        &["restore", &socket, &port, "--flush"],
        &["migrate", &socket, &port, "--flush"],
        &["migrate", &port, &port, "--flush", "--until-caught-up"],
    ];
    for args in rows {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            err(&output).contains("is the source as well"),
            "{}",
            err(&output)
        );
        assert_eq!(redis.digest(), want, "{args:?}");
    }
}
