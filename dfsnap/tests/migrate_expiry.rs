//! Keys whose time ends while `dfsnap migrate` runs: TO is behind FROM, and must not let go by its own clock of what FROM still keeps.

mod servers;

use dfsnap_formats::resp::Frame;
use servers::{Connection, Redis, command, err, fill, out, succeed, wait_for};
use std::path::Path;
use std::process::{Child, Output, Stdio};

fn migrate(source: &Redis, target: &Redis, state: &Path, more: &[&str]) -> Child {
    let (from, to) = (source.url(), target.url());
    let args = ["migrate", &from, &to, "--state", state.to_str().unwrap()];
    let mut command = command(&[&args[..], more].concat());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: Child) -> Output {
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
    child.wait_with_output().unwrap()
}

/// Ends when TO has everything, and gives the keys there their expiries.
fn switch(source: &Redis, target: &Redis, state: &Path) -> serde_json::Value {
    let child = migrate(source, target, state, &["--until-caught-up", "--json"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    serde_json::from_str(&out(&output)).unwrap()
}

/// The next commands wait so long at the server; nobody waits for that here.
fn stand_still(redis: &Redis, seconds: &str) -> Connection {
    let mut connection = Connection::new(&redis.socket());
    connection.send(&["DEBUG", "SLEEP", seconds]);
    connection
}

/// Not before the target takes changes.
fn wait_for_changes(source: &Redis, target: &Redis) {
    wait_for("changes to be applied", || {
        source.call(&["INCR", "beat"]);
        matches!(target.call(&["GET", "dfsnap:position"]), Frame::Bulk(_))
    });
}

#[test]
fn keys_that_get_more_time_live_on_where_the_target_is_behind() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &[]);
    wait_for_changes(&source, &target);
    // 1. keys get three seconds to live, 2. they get more or other names, 3. all of that arrives when those are over.
    let mut slept = stand_still(&target, "4");
    for n in 0..100 {
        let key = |name: &str| format!("{name}:{n}");
        let rows: [&[&str]; 16] = [
            &["SET", &key("kept"), "v", "PX", "3000"],
            &["PERSIST", &key("kept")],
            &["SET", &key("longer"), "v", "EX", "3"],
            &["EXPIRE", &key("longer"), "5000", "GT"],
            &["SETEX", &key("read"), "3", "v"],
            &["GETEX", &key("read"), "EX", "5000"],
            &["RPUSH", &key("list"), "a", "b"],
            &["PEXPIRE", &key("list"), "3000"],
            &["LSET", &key("list"), "0", "c"],
            &["RENAME", &key("list"), &key("renamed")],
            &["PERSIST", &key("renamed")],
            &["SET", &key("copied"), "v", "PX", "3000"],
            &["COPY", &key("copied"), &key("copy")],
            &["EXPIREAT", &key("copy"), "4000000000"],
            &["SET", &key("counted"), "5", "PX", "3000"],
            &["INCRBY", &key("counted"), "2"],
        ];
        for row in rows {
            let reply = source.call(row);
            assert!(!matches!(reply, Frame::Error(_)), "{row:?}: {reply:?}");
        }
    }
    slept.reply();
    wait_for("keys to go", || source.info("db0").starts_with("keys=501,"));
    assert_eq!(interrupt(child).status.code(), Some(0));
    let report = switch(&source, &target, state.path());
    assert!(report["copied"].is_null(), "{report}");
    assert_eq!(report["released"], 300, "{report}");
    succeed(&["diff", &source.url(), &target.url()]);
}

#[test]
fn keys_that_end_during_the_copy_get_more_time_all_the_same() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    source.call(&["DEBUG", "POPULATE", "100000", "key", "10"]);
    for n in 0..500 {
        source.call(&["SET", &format!("session:{n}"), "v", "PX", "8000"]);
        source.call(&["SET", &format!("ends:{n}"), "v", "PX", "8000"]);
    }
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &[]);
    wait_for("the copy to be taken", || source.info("sync_full") == "1");
    let mut slept = stand_still(&target, "9");
    for n in 0..500 {
        source.call(&["EXPIRE", &format!("session:{n}"), "5000"]);
    }
    slept.reply();
    wait_for_changes(&source, &target);
    assert_eq!(interrupt(child).status.code(), Some(0));
    switch(&source, &target, state.path());
    let mut alive = 0;
    for n in 0..500 {
        if let Frame::Int(1) = source.call(&["EXISTS", &format!("session:{n}")]) {
            alive += 1;
        }
    }
    assert!(alive > 0, "no session was prolonged in time");
    succeed(&["diff", &source.url(), &target.url()]);
}

#[test]
fn writers_of_short_lived_keys_do_not_end_a_migration() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &[]);
    wait_for_changes(&source, &target);
    let mut connection = Connection::new(&source.socket());
    let mut slept = stand_still(&target, "0.3");
    for round in 0..3000 {
        let key = |name: &str| format!("{name}:{}", round % 20);
        let ms = (round % 40 + 1).to_string();
        let rows: [&[&str]; 12] = [
            &["RPUSH", &key("l"), "a"],
            &["PEXPIRE", &key("l"), &ms],
            &["LSET", &key("l"), "0", "b"],
            &["RENAME", &key("l"), &key("m")],
            &["SET", &key("s"), "1", "PX", &ms],
            &["INCR", &key("s")],
            &["PEXPIRE", &key("s"), "90", "LT"],
            &["XADD", &key("x"), "*", "f", "v"],
            &["PEXPIRE", &key("x"), &ms],
            &["XGROUP", "CREATE", &key("x"), &round.to_string(), "$"],
            &["SET", &key("p"), "1", "PX", &ms],
            &["PERSIST", &key("p")],
        ];
        rows.iter().for_each(|words| connection.send(words));
        // Some find their key gone already; what the stream says of the others is what counts.
        rows.iter().for_each(|_| drop(connection.reply()));
        if round % 500 == 499 {
            slept.reply();
            slept = stand_still(&target, "0.3");
        }
    }
    slept.reply();
    assert_eq!(interrupt(child).status.code(), Some(0));
    switch(&source, &target, state.path());
    // What still has some milliseconds goes on both sides.
    let same = || {
        servers::dfsnap(&["diff", &source.url(), &target.url()])
            .status
            .code()
            == Some(0)
    };
    wait_for("equal data", same);
}

#[test]
fn a_migration_that_is_given_up_gives_keys_their_expiries_without_the_source() {
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    source.call(&["SET", "late", "v", "PXAT", "4000000000000"]);
    source.call(&["SET", "very late", "v", "EX", "99999999999"]);
    source.call(&["SELECT", "3"]);
    source.call(&["SET", "soon", "v", "PX", "700"]);
    source.call(&["SELECT", "0"]);
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &[]);
    wait_for_changes(&source, &target);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("--finish"), "{}", out(&output));
    let url = source.url();
    let want = (
        source.text(&["PEXPIRETIME", "expiring"]),
        source.text(&["PEXPIRETIME", "very late"]),
    );
    drop(source);
    let (state, to) = (state.path().to_str().unwrap(), target.url());
    let text = succeed(&["migrate", &url, &to, "--state", state, "--finish"]);
    assert!(text.contains("released"), "{text}");
    assert_eq!(target.text(&["PEXPIRETIME", "expiring"]), want.0);
    assert_eq!(target.text(&["PEXPIRETIME", "late"]), "4000000000000");
    assert_eq!(target.text(&["PEXPIRETIME", "very late"]), want.1);
    assert_eq!(target.call(&["EXISTS", "dfsnap:position"]), Frame::Int(0));
    target.call(&["SELECT", "3"]);
    wait_for("its end", || {
        target.call(&["EXISTS", "soon"]) == Frame::Int(0)
    });
    // There is nothing to finish any more.
    let again = servers::dfsnap(&["migrate", &url, &to, "--state", state, "--finish"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("no migration"), "{}", err(&again));
}

/// A signal while `--finish` gives expiries back: it stops behind some of the keys, says so, and the same command goes on.
#[test]
fn a_signal_while_keys_get_their_expiries_back_leaves_the_rest_for_the_same_command() {
    const KEYS: usize = 20_000;
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    fill(&source);
    let mut connection = Connection::new(&source.socket());
    for n in 0..KEYS {
        connection.send(&["SET", &format!("session:{n}"), "v", "EX", "5000"]);
        connection.reply();
    }
    let state = tempfile::tempdir().unwrap();
    let child = migrate(&source, &target, state.path(), &[]);
    wait_for_changes(&source, &target);
    assert_eq!(interrupt(child).status.code(), Some(0));
    // The first expiries that are given back have to wait, so that the signal comes while others are still held.
    target.call(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    let child = migrate(&source, &target, state.path(), &["--finish"]);
    wait_for("expiries on their way", || {
        target.text(&["CLIENT", "LIST"]).contains("cmd=pexpireat")
    });
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
    target.call(&["CLIENT", "UNPAUSE"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    let text = err(&output);
    let count = text
        .split_once("stopped by a signal; ")
        .map(|(_, rest)| rest);
    let count = count.and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let stopped_at = count.unwrap_or_else(|| panic!("{text}"));
    assert!((1..KEYS).contains(&stopped_at), "{text}");
    // The position is still there: whoever comes next knows that this is not over.
    assert_eq!(target.call(&["EXISTS", "dfsnap:position"]), Frame::Int(1));
    let (url, to) = (source.url(), target.url());
    let state = state.path().to_str().unwrap();
    let args = ["migrate", &url, &to, "--state", state, "--finish", "--json"];
    let report: serde_json::Value = serde_json::from_str(&succeed(&args)).unwrap();
    // Besides the sessions one key of `fill` expires.
    assert_eq!(report["released"], KEYS + 1 - stopped_at, "{report}");
    assert_eq!(target.call(&["EXISTS", "dfsnap:position"]), Frame::Int(0));
    source.call(&["DEL", "beat"]);
    target.call(&["DEL", "beat"]);
    succeed(&["diff", &url, &to]);
}
