//! The command line tool with our server beside a real one: backup, restore, comparison, and migrations both ways under writes.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::load::{Load, contents, differences};
use dfsnap_tests::process::{Server, has_program, our_tool};
use dfsnap_tests::{SetOnDrop, seed, wait_for};

fn url(server: &Server) -> String {
    format!("redis://127.0.0.1:{}", server.port)
}

fn tool(args: &[&str]) -> Output {
    let mut command = Command::new(our_tool());
    command.args(args).env_remove("DFSNAP_PASSWORD");
    command.output().expect("the tool runs")
}

/// Must succeed; what it said.
fn succeed(args: &[&str]) -> String {
    let output = tool(args);
    let (out, err) = (&output.stdout, &output.stderr);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}{}",
        text(out),
        text(err)
    );
    text(out)
}

/// What is written while nobody follows has to stay in the backlog.
const BACKLOG: [&str; 2] = ["--repl-backlog-size", "64mb"];

fn ours() -> Server {
    Server::ours(&[&["--threads", "2"], &BACKLOG[..]].concat())
}

fn redis() -> Server {
    Server::redis(&BACKLOG)
}

/// Without expiries, so that two looks at different moments show the same.
fn lasting(load: &mut Load) -> Vec<Vec<u8>> {
    loop {
        let command = load.command();
        let expires = command.iter().any(|word| {
            let word = word.to_ascii_uppercase();
            [&b"PX"[..], b"EX", b"PXAT"].contains(&&word[..])
                || word.windows(6).any(|part| part == b"EXPIRE")
                || word.ends_with(b"SETEX")
        });
        if !expires {
            return command;
        }
    }
}

/// Writes a mixed load until it is told to stop, with keys that live for 30 ms among them.
fn write(server: &Server, load: &mut Load, stop: &AtomicBool) {
    let mut client = server.client();
    let mut turn = 0u32;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        if turn.is_multiple_of(8) {
            let block: Vec<_> = (0..3).map(|_| load.command()).collect();
            client.transaction(&block).expect("a block");
        } else {
            client.try_call(&load.command()).expect("a reply");
        }
    }
}

fn fill(server: &Server, seed: u64) {
    let mut client = server.client();
    let mut load = Load::new(seed, &mut [server.client()]);
    for _ in 0..4000 {
        client.try_call(&lasting(&mut load)).expect("a reply");
    }
    client.ask("SELECT 0");
    client.ask("MSET some 1 more 2");
}

#[test]
fn what_is_restored_into_either_server_is_what_was_backed_up() {
    if !has_program("redis-server") {
        return;
    }
    let number = seed("restored");
    let servers = [redis(), ours()];
    let folder = tempfile::tempdir().expect("a folder");
    for (at, source) in servers.iter().enumerate() {
        source.client().ask("FLUSHALL");
        fill(source, number + at as u64);
        let want = source.digest();
        for (format, name) in [("rdb", "backup.rdb"), ("dfs", "backup")] {
            let path = folder.path().join(format!("{at}-{name}"));
            let path = path.to_str().expect("text");
            succeed(&["backup", &url(source), path, "--format", format]);
            succeed(&["verify", path]);
            assert_eq!(
                succeed(&["digest", "--legacy", path]).trim(),
                want,
                "{path}"
            );
            for target in [redis(), ours()] {
                succeed(&["restore", path, &url(&target), "--verify"]);
                assert_eq!(target.digest(), want, "{path} into {:?}", target.kind);
                succeed(&["diff", &url(source), &url(&target)]);
                succeed(&["diff", path, &url(&target)]);
                target.client().ask("APPEND some x");
                let differs = tool(&["diff", path, &url(&target)]);
                assert_eq!(differs.status.code(), Some(1));
                let listed = succeed(&["ls", &url(&target), "--json"]);
                assert!(listed.contains("\"some\""), "{listed}");
            }
        }
    }
}

/// Migrates under writes, ends it when they have ended, and compares what clients see.
fn migrate_under_writes(
    (source, target): (&Server, &Server),
    more: &[&str],
    expected: impl Fn(BTreeMap<String, String>) -> BTreeMap<String, String>,
) {
    let number = seed("migrate");
    fill(source, number);
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (url(source), url(target));
    let state = folder.path().to_str().expect("text").to_owned();
    let args = ["migrate", &from, &to, "--state", &state];
    let args = [&args[..], more].concat();
    let stop = AtomicBool::new(false);
    let load = Load::new(number, &mut [source.client(), target.client()]);
    std::thread::scope(|scope| {
        let stops = SetOnDrop(&stop);
        for writer in 0..2 {
            let (mut load, stop) = (load.fork(number + writer), &stop);
            scope.spawn(move || write(source, &mut load, stop));
        }
        let mut command = Command::new(our_tool());
        command.args(&args).env_remove("DFSNAP_PASSWORD");
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the tool runs");
        let offset = |client: &mut Client| match client.ask("GET dfsnap:position") {
            Reply::Text(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                text.split(':').nth(1)?.parse::<u64>().ok()
            }
            _ => None,
        };
        let mut client = target.client();
        let limit = Duration::from_secs(120);
        let mut advance = |by: u64| {
            let before = offset(&mut client).unwrap_or(0);
            wait_for("changes", limit, || {
                let ended = child.try_wait().expect("its state").is_some();
                (ended || offset(&mut client).is_some_and(|now| now > before + by)).then_some(())
            });
        };
        advance(0);
        advance(200_000);
        drop(stops);
        let killed = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(killed.is_ok());
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    });
    source.client().ask("SET s:0 last");
    succeed(&[&args[..], &["--until-caught-up"]].concat());
    // A key whose time ends between the two looks is a difference in one round only.
    let until = Instant::now() + Duration::from_secs(10);
    let want = loop {
        let want = expected(contents(&mut source.client()));
        let found = contents(&mut target.client());
        let differences = differences(&want, &found);
        if differences.is_empty() {
            break want;
        }
        assert!(Instant::now() < until, "{args:?}: {differences:?}");
    };
    assert!(
        want.values().any(|value| value.contains("last")),
        "{want:?}"
    );
}

#[test]
fn a_migration_either_way_brings_all_of_it() {
    if !has_program("redis-server") {
        return;
    }
    migrate_under_writes((&redis(), &ours()), &[], |all| all);
    migrate_under_writes((&ours(), &redis()), &[], |all| all);
}

#[test]
fn a_migration_of_one_database_under_other_names_brings_that_and_nothing_else() {
    if !has_program("redis-server") {
        return;
    }
    let chosen = ["--db", "0", "--to-db", "2", "--rename", "^([slhezx]):=>$1/"];
    let expected = |all: BTreeMap<String, String>| {
        let of_db = all.into_iter().filter_map(|(name, value)| {
            let key = name.strip_prefix("0:")?;
            // Errors in place of groups name the key.
            let value = ["s", "l", "h", "e", "z", "x"]
                .iter()
                .fold(value, |value, kind| {
                    value.replace(&format!("key '{kind}:"), &format!("key '{kind}/"))
                });
            Some((format!("2:{}", key.replacen(':', "/", 1)), value))
        });
        of_db.collect()
    };
    migrate_under_writes((&redis(), &ours()), &chosen, expected);
    migrate_under_writes((&ours(), &redis()), &chosen, expected);
}
