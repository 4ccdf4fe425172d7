//! Ctrl-C: whatever a verb was writing, nothing half is left.

mod dumps;
mod servers;

use dumps::{mixed, rdb, string};
use servers::{Redis, command, names};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

fn interrupt(child: Child) -> Output {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    child.wait_with_output().unwrap()
}

/// More than a pipe takes, so that who has written it knows that the reader is at work.
fn dump() -> Vec<u8> {
    let mut entries = mixed(300);
    // Of digits that no compression makes much less of.
    let mut number = 1u64;
    let mut digits = || {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{:016x}", number ^ number >> 29)
    };
    let mut text = || (0..60).map(|_| digits()).collect::<String>();
    entries.extend((0..400).map(|n| string(&format!("long:{n}"), &text())));
    rdb(&entries)
}

#[test]
fn verbs_that_read_a_pipe_leave_nothing_half() {
    let bytes = dump();
    let rows: [&[&str]; 12] = [
        &["convert", "-", "out.rdb"],
        &["convert", "-", "out", "--to", "dfs"],
        &["convert", "-", "out", "--to", "aof"],
        &["convert", "-", "new/and/deep", "--to", "aof"],
        &["convert", "-", "out.json"],
        &["convert", "-", "out.ndjson"],
        &["convert", "-", "out.csv"],
        &["convert", "-", "out.resp"],
        &["salvage", "-", "-o", "out.rdb"],
        &["salvage", "-", "-o", "out", "--to", "dfs"],
        &["split", "-", "--by", "prefix", "-o", "out"],
        &["report", "-", "-o", "out.html"],
    ];
    for args in rows {
        let folder = tempdir().unwrap();
        std::fs::write(folder.path().join("other"), b"stays").unwrap();
        let mut child = command(args)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        assert!(bytes.len() > 300_000, "{} bytes", bytes.len());
        pipe.write_all(&bytes[..bytes.len() / 3 * 2]).unwrap();
        let output = interrupt(child);
        assert_eq!(output.status.code(), Some(130), "{args:?}");
        assert_eq!(names(folder.path()), ["other"], "{args:?}");
        drop(pipe);
    }
}

/// Sends the signal as soon as the first file is begun. The answer is whether that was in time; if not, `whole` is there.
fn once(folder: &Path, args: &[&str], kept: &[&str], whole: &[&str]) -> bool {
    let mut child = command(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while names(folder).len() == kept.len() && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "{args:?}: nothing is begun");
        std::thread::yield_now();
    }
    let output = interrupt(child);
    let is_stopped = output.status.code() == Some(130);
    let mut wanted: Vec<&str> = kept.to_vec();
    if !is_stopped {
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        wanted.extend(whole);
    }
    wanted.sort_unstable();
    assert_eq!(names(folder), wanted, "{args:?}");
    is_stopped
}

/// A signal that comes too late finds the work done; one of some attempts comes in time.
fn some_time(name: &str, attempt: impl Fn() -> bool) {
    assert!((0..20).any(|_| attempt()), "{name}: never in time");
}

#[test]
fn merge_and_backup_leave_nothing_half() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let entries = |n: usize| -> Vec<_> {
        let text = "x".repeat(500);
        (0..20_000)
            .map(|k| string(&format!("{n}:{k}"), &text))
            .collect()
    };
    std::fs::write(path.join("a.rdb"), rdb(&entries(1))).unwrap();
    std::fs::write(path.join("b.rdb"), rdb(&entries(2))).unwrap();
    let kept = ["a.rdb", "b.rdb"];
    some_time("merge", || {
        let _ = std::fs::remove_file(path.join("c.rdb"));
        once(
            path,
            &["merge", "a.rdb", "b.rdb", "-o", "c.rdb"],
            &kept,
            &["c.rdb"],
        )
    });
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    redis.call(&["DEBUG", "POPULATE", "100000", "many", "400"]);
    let set: Vec<String> = (0..4).map(|n| format!("c-000{n}.dfs")).collect();
    let mut set: Vec<&str> = set.iter().map(String::as_str).collect();
    set.extend(["c-summary.dfs", "c-manifest.json"]);
    let url = redis.url();
    let rows: [(&[&str], &[&str]); 3] = [
        (&["backup", &url, "c.rdb"], &["c.rdb"]),
        (&["backup", &url, "c.rdb", "--scan"], &["c.rdb"]),
        (&["backup", &url, "c", "--format", "dfs"], &set),
    ];
    for (args, whole) in rows {
        some_time(&args.join(" "), || {
            for name in whole {
                let _ = std::fs::remove_file(path.join(name));
            }
            once(path, args, &kept, whole)
        });
        for name in whole {
            let _ = std::fs::remove_file(path.join(name));
        }
    }
}
