//! `dfsnap restore` against real servers: what arrives, what is refused, what goes on after an interruption.

mod servers;

use dfsnap_formats::resp::Frame;
use servers::{Redis, command, dfsnap, err, fill, names, out, succeed, wait_for};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

/// A server with some of everything, its backup, and an empty server.
fn scene() -> Option<(Redis, TempDir, String, Redis)> {
    let source = Redis::start(&[])?;
    fill(&source);
    let folder = tempfile::tempdir().unwrap();
    let path = backup(&source, folder.path());
    Some((source, folder, path, Redis::start(&[])?))
}

fn backup(source: &Redis, folder: &Path) -> String {
    let path: PathBuf = folder.join("b.rdb");
    let path = path.to_str().unwrap().to_owned();
    succeed(&["backup", &source.url(), &path]);
    path
}

#[test]
fn restore_into_an_empty_server_gives_an_equal_digest() {
    let Some((source, folder, path, target)) = scene() else {
        return;
    };
    let text = succeed(&["restore", &path, &target.url(), "--verify"]);
    assert!(
        text.contains("of 3023 keys are equal") || text.contains("are equal"),
        "{text}"
    );
    assert_eq!(target.digest(), source.digest());
    assert_eq!(target.text(&["FCALL", "f", "0"]), "1");
    let pending = |redis: &Redis| redis.call(&["XPENDING", "stream", "group"]);
    assert_eq!(pending(&target), pending(&source));
    let expiry = |redis: &Redis| redis.text(&["PEXPIRETIME", "expiring"]);
    assert_eq!(expiry(&target), expiry(&source));
    assert_eq!(names(folder.path()), ["b.rdb"], "no checkpoint is left");
}

#[test]
fn server_to_server_and_set_to_server_work_alike() {
    let Some((source, folder, _, target)) = scene() else {
        return;
    };
    succeed(&["restore", &source.url(), &target.url()]);
    assert_eq!(target.digest(), source.digest());
    source.call(&["FUNCTION", "FLUSH"]);
    let base = folder.path().join("set");
    let base = base.to_str().unwrap();
    succeed(&["backup", &source.url(), base, "--format", "dfs"]);
    succeed(&["restore", base, &target.url(), "--flush", "--verify"]);
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn commands_of_each_type_carry_the_same_data() {
    let Some((source, _folder, path, target)) = scene() else {
        return;
    };
    succeed(&["restore", &path, &target.url(), "--commands", "--verify"]);
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn keys_that_are_there_decide_for_themselves_only_when_told() {
    let Some((source, folder, path, target)) = scene() else {
        return;
    };
    target.call(&["SET", "string", "other"]);
    target.call(&["SET", "mine", "1"]);
    let output = dfsnap(&["restore", &path, &target.url()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("holds 2 keys"), "{}", err(&output));
    assert_eq!(names(folder.path()), ["b.rdb"]);

    let output = dfsnap(&[
        "restore",
        &path,
        &target.url(),
        "--skip-existing",
        "--verify",
    ]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "one differs: {}",
        err(&output)
    );
    assert!(
        out(&output).contains("key string has another value"),
        "{}",
        out(&output)
    );
    assert!(
        out(&output).contains("skipped    1 keys"),
        "{}",
        out(&output)
    );
    assert_eq!(target.text(&["GET", "string"]), "other");

    succeed(&["restore", &path, &target.url(), "--replace", "--verify"]);
    assert_eq!(target.text(&["GET", "string"]), "value");
    assert_eq!(target.text(&["GET", "mine"]), "1");

    succeed(&["restore", &path, &target.url(), "--flush"]);
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn dry_run_changes_nothing_and_tells_what_would_be_refused() {
    let Some((_source, _folder, path, target)) = scene() else {
        return;
    };
    let output = dfsnap(&["restore", &path, &target.url(), "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(target.text(&["DBSIZE"]), "0");
    assert_eq!(target.digest(), "0".repeat(40));
    target.call(&["SET", "string", "other"]);
    let before = target.digest();
    let output = dfsnap(&["restore", &path, &target.url(), "--dry-run", "--json"]);
    assert_eq!(output.status.code(), Some(1), "a real one would be refused");
    let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(report["already_there"], 1);
    assert!(report["restored"].as_u64().unwrap() > 3000, "{report}");
    succeed(&["restore", &path, &target.url(), "--dry-run", "--flush"]);
    assert_eq!(target.digest(), before);
}

#[test]
fn large_values_travel_in_parts_and_appear_whole() {
    let Some(source) = Redis::start(&[]) else {
        return;
    };
    let rows = [
        "redis.call('RPUSH','list',redis.sha1hex(i))",
        "redis.call('SADD','set',redis.sha1hex(i))",
        "redis.call('HSET','hash',redis.sha1hex(i),i)",
        "redis.call('ZADD','zset',i/3,redis.sha1hex(i))",
        "redis.call('APPEND','string',redis.sha1hex(i))",
    ];
    for row in rows {
        let script = format!("for i=1,20000 do {row} end");
        source.call(&["EVAL", &script, "0"]);
    }
    source.call(&["EXPIRE", "hash", "10000"]);
    let folder = tempfile::tempdir().unwrap();
    let path = backup(&source, folder.path());
    let target = Redis::start(&[]).unwrap();
    let args = ["restore", &path, &target.url(), "--parts-over", "64kb"];
    let text = succeed(&[&args[..], &["--verify"]].concat());
    assert!(text.contains("in parts   5 large keys"), "{text}");
    assert_eq!(target.digest(), source.digest());
    assert_eq!(target.text(&["DBSIZE"]), "5", "no temporary name is left");
    let text = succeed(&[&args[..], &["--skip-existing"]].concat());
    assert!(text.contains("skipped    5 keys"), "{text}");
    // Also past what a reader holds in memory as a whole.
    source.call(&[
        "EVAL",
        "for i=1,300000 do redis.call('APPEND','huge',redis.sha1hex(i)) end",
        "0",
    ]);
    let path = backup(&source, folder.path());
    let text = succeed(&["restore", &path, &target.url(), "--flush", "--verify"]);
    assert!(text.contains("in parts   1 large keys"), "{text}");
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn interrupted_restore_goes_on_where_it_was() {
    let Some((source, folder, path, target)) = scene() else {
        return;
    };
    let slowly = ["restore", &path, &target.url(), "--rate", "500"];
    let child = command(&slowly)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("some keys", || {
        let keys = target.info("db9");
        keys.starts_with("keys=") && !keys.starts_with("keys=0")
    });
    let signalled = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signalled.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("goes on from there"),
        "{}",
        err(&output)
    );
    assert_eq!(names(folder.path()), ["b.rdb", "b.rdb.restoring"]);
    let other = Redis::start(&[]).unwrap();
    let output = dfsnap(&["restore", &path, &other.url()]);
    assert!(
        err(&output).contains("checkpoint of another server"),
        "{}",
        err(&output)
    );
    let output = dfsnap(&["restore", &path, &target.url(), "--rate", "500", "--json"]);
    // The rate is no part of what is restored.
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    let resumed = report["resumed_after"].as_u64().unwrap();
    assert!(resumed > 0, "{report}");
    assert!(
        report["restored"].as_u64().unwrap() < 3100 - resumed,
        "{report}"
    );
    assert_eq!(target.digest(), source.digest());
    assert_eq!(names(folder.path()), ["b.rdb"]);
}

#[test]
fn connections_that_are_cut_are_made_again() {
    let Some((source, _folder, path, target)) = scene() else {
        return;
    };
    let args = [
        "restore",
        &path,
        &target.url(),
        "--rate",
        "1500",
        "--connections",
        "2",
    ];
    let child = command(&args)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for step in 1..4 {
        wait_for("some keys", || {
            matches!(target.info("db9").split_once("keys="), Some((_, rest))
                if rest.split(',').next().unwrap().parse::<u32>().unwrap() > step * 400)
        });
        target.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(target.digest(), source.digest());
}

#[test]
fn what_the_server_cannot_hold_is_refused_by_name() {
    let Some(target) = Redis::start(&[]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("d.ndjson");
    let line = r#"{"db":0,"key":"h","type":"hash","value":{"f":{"value":"v","expire_at_ms":4102444800000}}}"#;
    std::fs::write(&json, format!("{line}\n")).unwrap();
    let path = json.to_str().unwrap();
    let probe = dfsnap(&["ls", path]);
    assert_eq!(probe.status.code(), Some(0), "{}", err(&probe));
    let output = dfsnap(&["restore", path, &target.url()]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(
        err(&output).contains("key h") && err(&output).contains("fields expire"),
        "{}",
        err(&output)
    );
    assert_eq!(target.text(&["DBSIZE"]), "0");
    std::fs::remove_file(folder.path().join("d.ndjson.restoring")).unwrap();
    let text = succeed(&["restore", path, &target.url(), "--allow-loss"]);
    assert!(text.contains("lost       1 times"), "{text}");
    assert_eq!(target.call(&["HGET", "h", "f"]), Frame::Bulk(b"v".to_vec()));
}
