//! `dfsnap migrate` between real servers: under writes, over links that are lost, interrupted and started again.

mod servers;

use dfsnap_formats::resp::Frame;
use servers::{Connection, Load, Proxy, Redis, command, dfsnap, err, fill, out, succeed, wait_for};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn migrate(source: &str, target: &str, state: &Path, more: &[&str]) -> Child {
    let state = state.to_str().unwrap();
    let args = [&["migrate", source, target, "--state", state], more].concat();
    let mut command = command(&args);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The offset that the target remembers.
fn offset(target: &Redis) -> u64 {
    match target.call(&["GET", "dfsnap:position"]) {
        Frame::Bulk(text) => {
            let text = String::from_utf8(text).unwrap();
            text.split(':').nth(1).unwrap().parse().unwrap()
        }
        _ => 0,
    }
}

/// Makes a last write and waits until the target has it.
fn catch_up(source: &Redis, target: &Redis) {
    source.call(&["INCR", "last"]);
    let want: u64 = source.info("master_repl_offset").parse().unwrap();
    wait_for("target to catch up", || offset(target) >= want);
}

/// Changes are being applied, or it says why not.
fn begun(mut child: Child, target: &Redis) -> Child {
    let before = offset(target);
    let began = std::time::Instant::now();
    let mut has_ended = false;
    wait_for("changes to be applied", || {
        has_ended = child.try_wait().unwrap().is_some() || began.elapsed().as_secs() > 100;
        has_ended || offset(target) > before
    });
    if has_ended {
        let output = interrupt(child);
        panic!("{}{}", err(&output), out(&output));
    }
    child
}

fn interrupt(child: Child) -> std::process::Output {
    let pid = child.id().to_string();
    let signalled = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(signalled.unwrap().success());
    child.wait_with_output().unwrap()
}

/// Without what the target remembers.
fn assert_equal(source: &Redis, target: &Redis) {
    target.call(&["DEL", "dfsnap:position"]);
    // Short-lived keys go on both sides, but not at the same moment.
    wait_for("equal digests", || source.digest() == target.digest());
}

/// Looks at both halves of the transactions of a writer, at one moment, again and again.
struct Watch {
    stop: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn start(target: &Redis) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, socket) = (Arc::clone(&stop), target.socket());
        let watching = std::thread::spawn(move || {
            let mut connection = Connection::new(&socket);
            let mut looks = 0;
            while !until.load(Ordering::Relaxed) {
                let script = "local a = redis.call('GET', 'half:0:a') redis.call('SELECT', 5) return {a, redis.call('GET', 'half:0:b')}";
                let reply = connection.call(&["EVAL", script, "0"]);
                if let Some([Frame::Bulk(a), Frame::Bulk(b)]) = reply.as_slice() {
                    assert_eq!(a, b, "half a transaction");
                    looks += 1;
                }
            }
            looks
        });
        Watch { stop, watching }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().unwrap()
    }
}

#[test]
fn migration_under_writes_ends_equal_and_never_shows_half_a_transaction() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    let load = Load::start(&source, 3);
    let watch = Watch::start(&target);
    let state = tempfile::tempdir().unwrap();
    let child = begun(
        migrate(&source.url(), &target.url(), state.path(), &[]),
        &target,
    );
    load.wait_for_more(500);
    load.stop();
    // Expired keys are changes as well.
    wait_for("short-lived keys to go", || {
        source.info("db5").contains("expires=0")
    });
    catch_up(&source, &target);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("caught up  yes"), "{}", out(&output));
    assert!(watch.stop() > 20);
    let position = std::fs::read_to_string(state.path().join("position")).unwrap();
    let want = format!(
        "{}:{}",
        source.info("master_replid"),
        source.info("master_repl_offset")
    );
    assert!(position.starts_with(&want), "{position} and {want}");
    assert_equal(&source, &target);
}

#[test]
fn lost_links_on_both_sides_apply_every_change_once() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    let (from, to) = (Proxy::start(&source, 3), Proxy::start(&target, 0));
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&from.url(), &to.url(), state.path(), &[]);
    wait_for("the copy", || {
        offset(&target) > 0 || target.info("db9").starts_with("keys=3000")
    });
    let load = Load::start(&source, 2);
    from.cuts_left.store(4, Ordering::Relaxed);
    to.cuts_left.store(4, Ordering::Relaxed);
    wait_for("cuts", || {
        from.cuts_left.load(Ordering::Relaxed) == 0 && to.cuts_left.load(Ordering::Relaxed) == 0
    });
    load.stop();
    catch_up(&source, &target);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    // Counters and lists show whatever is applied twice.
    assert_equal(&source, &target);
}

#[test]
fn migration_that_was_ended_goes_on_without_another_copy() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    let state = tempfile::tempdir().unwrap();
    let load = Load::start(&source, 2);
    for round in 0..3 {
        let child = migrate(&source.url(), &target.url(), state.path(), &[]);
        let mut child = begun(child, &target);
        load.wait_for_more(100);
        match round {
            // The second one has no time to say anything.
            1 => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            _ => assert_eq!(interrupt(child).status.code(), Some(0)),
        }
    }
    load.stop();
    source.call(&["INCR", "last"]);
    let state = state.path().to_str().unwrap();
    let args = [
        "migrate",
        &source.url(),
        &target.url(),
        "--state",
        state,
        "--until-caught-up",
        "--json",
    ];
    let report: serde_json::Value = serde_json::from_str(&succeed(&args)).unwrap();
    assert_eq!(report["is_caught_up"], true);
    assert!(report["copied"].is_null(), "{report}");
    assert_eq!(source.info("sync_full"), "1");
    assert_eq!(target.call(&["EXISTS", "dfsnap:position"]), Frame::Int(0));
    wait_for("equal digests", || source.digest() == target.digest());
}

#[test]
fn target_with_keys_is_refused_and_a_lost_history_is_an_error() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    target.call(&["SET", "mine", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let (from, to) = (source.url(), target.url());
    let args = ["migrate", &from, &to, "--state", state, "--until-caught-up"];
    let output = dfsnap(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("holds 1 keys"), "{}", err(&output));
    assert_eq!(target.text(&["GET", "mine"]), "1");
    succeed(&[&args[..], &["--flush"]].concat());
    assert_equal(&source, &target);
    let foreign = format!("{}:5:0", "a".repeat(40));
    let output = dfsnap(&[&args[..], &["--from", &foreign]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("cannot go on from this position"),
        "{}",
        err(&output)
    );
    assert_equal(&source, &target);
}

#[test]
fn interrupted_copy_goes_on_with_what_was_fetched() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    source.call(&["DEBUG", "POPULATE", "300000", "key", "20"]);
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source.url(), &target.url(), state.path(), &[]);
    wait_for("part of the copy", || {
        target.info("db0").starts_with("keys=") && target.text(&["DBSIZE"]) != "0"
    });
    let output = interrupt(child);
    if output.status.code() == Some(2) {
        assert!(
            err(&output).contains("goes on from there"),
            "{}",
            err(&output)
        );
        assert!(state.path().join("copy.rdb").exists());
    }
    source.call(&["SET", "meanwhile", "1"]);
    let args = [
        "migrate",
        &source.url(),
        &target.url(),
        "--until-caught-up",
        "--state",
    ];
    succeed(&[&args[..], &[state.path().to_str().unwrap()]].concat());
    assert_eq!(
        source.info("sync_full"),
        "1",
        "one full resync for both runs"
    );
    assert_equal(&source, &target);
    assert_eq!(servers::names(state.path()), ["position"]);
}
