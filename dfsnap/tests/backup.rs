//! `dfsnap backup` against real servers: under writes, over a link that is cut, key by key, by the clock.

mod servers;

use servers::{Load, Proxy, Redis, command, dfsnap, err, fill, names, out, succeed, wait_for};

/// The digest of a dump in any format, as Redis 7.0 prints it.
fn digest(path: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let rdb = folder.path().join("dump.rdb");
    succeed(&["convert", path, rdb.to_str().unwrap()]);
    let text = succeed(&["digest", "--legacy", rdb.to_str().unwrap()]);
    text.trim().to_owned()
}

#[test]
fn backup_of_a_quiet_server_is_what_it_holds() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.rdb");
    let path = path.to_str().unwrap();
    let text = succeed(&["backup", &redis.url(), path]);
    assert!(
        text.contains("3027 keys") || text.contains("keys       30"),
        "{text}"
    );
    assert!(text.contains("functions  1 libraries"), "{text}");
    assert_eq!(digest(path), redis.digest());
    assert!(succeed(&["verify", path]).contains("0 findings, 0 warnings"));
    assert_eq!(names(folder.path()), ["b.rdb"]);
}

/// The strongest check there is: a server that is given the file goes on from its position by a partial resync, and
/// then holds what the primary holds. One key more, or one less, or one write twice, and the digests differ.
#[test]
fn backup_under_writes_is_the_state_at_its_offset() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.rdb");
    let load = Load::start(&redis, 3);
    let text = succeed(&["backup", &redis.url(), path.to_str().unwrap(), "--json"]);
    load.wait_for_more(100);
    load.stop();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(report["replication"]["offset"].is_u64(), "{text}");
    assert!(report["is_point_in_time"] == true, "{text}");
    assert!(text.contains(&redis.info("master_replid")), "{text}");

    let full_before = redis.info("sync_full");
    let primary = format!("127.0.0.1 {}", redis.port);
    let replica = Redis::start_in(folder, &["--replicaof", &primary]).unwrap();
    wait_for("replica to catch up", || {
        replica.info("master_link_status") == "up"
            && replica.info("master_repl_offset") == redis.info("master_repl_offset")
    });
    assert_eq!(redis.info("sync_full"), full_before, "no full resync");
    assert_eq!(redis.info("sync_partial_ok"), "1");
    // Short-lived keys go on both sides, but not at the same moment.
    wait_for("equal digests", || redis.digest() == replica.digest());
}

#[test]
fn backup_survives_ten_cuts_and_tells_of_each() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let proxy = Proxy::start(&redis, 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.rdb");
    let path = path.to_str().unwrap();
    let output = dfsnap(&["backup", &proxy.url(), path]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(
        err(&output).matches("starting over").count(),
        10,
        "{}",
        err(&output)
    );
    assert!(out(&output).contains("attempts   11"), "{}", out(&output));
    assert_eq!(digest(path), redis.digest());
    assert_eq!(names(folder.path()), ["b.rdb"]);
}

#[test]
fn backup_that_gives_up_leaves_the_old_file_alone() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let proxy = Proxy::start(&redis, 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.rdb");
    std::fs::write(&path, b"old").unwrap();
    let output = dfsnap(&[
        "backup",
        &proxy.url(),
        path.to_str().unwrap(),
        "--attempts",
        "3",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("gave up after 3 attempts"),
        "{}",
        err(&output)
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["b.rdb"]);
}

#[test]
fn backup_as_a_set_is_complete_and_knows_its_place() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    redis.call(&["FUNCTION", "FLUSH"]);
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("b");
    let base = base.to_str().unwrap();
    succeed(&[
        "backup",
        &redis.url(),
        base,
        "--format",
        "dfs",
        "--shards",
        "2",
    ]);
    let want = [
        "b-0000.dfs",
        "b-0001.dfs",
        "b-manifest.json",
        "b-summary.dfs",
    ];
    assert_eq!(names(folder.path()), want);
    assert_eq!(digest(base), redis.digest());
    let manifest = std::fs::read_to_string(format!("{base}-manifest.json")).unwrap();
    assert!(
        manifest.contains(&redis.info("master_replid")),
        "{manifest}"
    );
}

#[test]
fn functions_have_no_place_in_a_set_and_are_not_lost_silently() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("b");
    let args = [
        "backup",
        &redis.url(),
        base.to_str().unwrap(),
        "--format",
        "dfs",
    ];
    let output = dfsnap(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("function library"),
        "{}",
        err(&output)
    );
    assert_eq!(names(folder.path()), [""; 0]);
    succeed(&[&args[..], &["--allow-loss"]].concat());
}

#[test]
fn scan_reads_all_databases_or_one() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.rdb");
    let path = path.to_str().unwrap();
    let output = dfsnap(&["backup", &redis.url(), path, "--scan"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        err(&output).contains("no point in time"),
        "{}",
        err(&output)
    );
    assert!(
        out(&output).contains("functions  1 libraries"),
        "{}",
        out(&output)
    );
    assert_eq!(digest(path), redis.digest());
    let one = format!("{}?db=3", redis.url());
    assert!(succeed(&["backup", &one, path, "--scan"]).contains("keys       1,"));
    let output = dfsnap(&["backup", &one, path]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "replication is of all databases"
    );
    redis.call(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    let output = dfsnap(&["backup", &redis.url(), path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("--scan"), "{}", err(&output));
    succeed(&["backup", &redis.url(), path, "--scan"]);
}

#[test]
fn folder_keeps_so_many_and_loses_none_to_a_failure() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let old = ["dump-20200101T000000Z.rdb", "dump-20200102T000000Z.rdb"];
    for name in old {
        std::fs::write(folder.path().join(name), b"old").unwrap();
    }
    let dest = folder.path().to_str().unwrap();
    let output = dfsnap(&["backup", "unix:/nowhere", dest, "--keep", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(names(folder.path()), old);
    let text = succeed(&["backup", &redis.url(), dest, "--keep", "2"]);
    assert!(text.contains("removed    dump-20200101T000000Z"), "{text}");
    assert_eq!(names(folder.path())[0], old[1]);
    assert_eq!(names(folder.path()).len(), 2);
}

#[test]
fn backups_by_the_clock_end_with_a_signal_and_leave_nothing_half() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().to_str().unwrap();
    let args = ["backup", &redis.url(), dest, "--every", "1s", "--keep", "2"];
    let mut child = command(&args)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    wait_for("third backup", || {
        seen.extend(
            names(folder.path())
                .into_iter()
                .filter(|name| name.ends_with("Z.rdb")),
        );
        seen.len() >= 3
    });
    let kill = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    child.wait().unwrap();
    let left = names(folder.path());
    assert!(left.iter().all(|name| name.ends_with("Z.rdb")), "{left:?}");
    assert!((1..=3).contains(&left.len()), "{left:?}");
}

#[test]
fn password_comes_from_the_environment_or_a_file_and_is_not_shown() {
    let Some(redis) = Redis::start(&["--requirepass", "s3cret"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.rdb");
    let path = path.to_str().unwrap();
    let args = ["backup", &redis.url(), path];
    let output = dfsnap(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("DFSNAP_PASSWORD"), "{}", err(&output));
    let output = command(&args)
        .env("DFSNAP_PASSWORD", "s3cre")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        !err(&output).contains("s3cre") && err(&output).contains("WRONGPASS"),
        "{}",
        err(&output)
    );
    let output = command(&args)
        .env("DFSNAP_PASSWORD", "s3cret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    succeed(&[&args[..], &["--password-file", file.to_str().unwrap()]].concat());
    let output = dfsnap(&["backup", "redis://me:s3cret@127.0.0.1:1", path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!err(&output).contains("s3cret"), "{}", err(&output));
}

#[test]
fn filters_choose_keys_and_the_place_in_the_stream_goes() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let rows: [(&str, &[&str]); 3] = [
        ("part.rdb", &[]),
        ("scanned.rdb", &["--scan"]),
        ("part", &["--format", "dfs", "--allow-loss"]),
    ];
    succeed(&["backup", &redis.url(), &path("all.rdb")]);
    let filter = ["--match", "big-*", "--type", "hash,set"];
    let wanted = succeed(&[&["digest", &path("all.rdb")][..], &filter].concat());
    for (name, more) in rows {
        let (place, url) = (path(name), redis.url());
        let args = [&["backup", &url, &place, "--json"][..], &filter, more].concat();
        let report: serde_json::Value = serde_json::from_str(&succeed(&args)).unwrap();
        assert_eq!(report["keys"], 8, "{name}: {report}");
        assert_eq!(succeed(&["digest", &place]), wanted, "{name}");
        let inspected = succeed(&["inspect", &place, "--json"]);
        assert!(!inspected.contains("repl-id"), "{name}: {inspected}");
    }
    assert!(succeed(&["inspect", &path("all.rdb"), "--json"]).contains("repl-id"));
}

#[test]
fn progress_is_told_while_a_server_takes_long() {
    // Microseconds for each key.
    let Some(redis) = Redis::start(&["--rdb-key-save-delay", "700"]) else {
        return;
    };
    redis.call(&["DEBUG", "POPULATE", "4000", "k", "400"]);
    let folder = tempfile::tempdir().unwrap();
    let rows: [(&str, &[&str]); 2] = [("b.rdb", &[]), ("b", &["--format", "dfs"])];
    for (name, more) in rows {
        let path = folder.path().join(name).display().to_string();
        let url = redis.url();
        for (flags, is_told) in [(&[][..], false), (&["--progress"], true)] {
            let args = [&["backup", &url, &path][..], more, flags].concat();
            let output = dfsnap(&args);
            assert_eq!(output.status.code(), Some(0), "{}", err(&output));
            let rates = err(&output)
                .lines()
                .filter(|line| line.contains("B/s"))
                .count();
            assert_eq!(rates > 0, is_told, "{args:?}: {}", err(&output));
        }
    }
}
