//! Replicas of real servers and real servers' replicas hold the same as their primary, whatever is written meanwhile.
//!
//! Each row starts a primary with data and a mixed load, attaches a replica under it, stops the load and compares; then
//! kills the replica, writes on, starts it again and compares once more. What is compared: offsets, DEBUG DIGEST, and all
//! that clients can see (expiries, groups and pending entries of streams).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfsnap_tests::load::{Load, contents, differences};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for};

const WRITERS: u64 = 4;
/// How long a replica may stand still; one that is slower than its primary needs longer than that in all.
const CATCH_UP: Duration = Duration::from_secs(30);
const CATCH_UP_IN_ALL: Duration = Duration::from_secs(300);

/// Runs the load from several connections for `length`, and `meanwhile` with it.
fn under_load<R>(
    primary: &Server,
    load: &Load,
    seed: u64,
    length: Duration,
    meanwhile: impl FnOnce() -> R,
) -> R {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for w in 0..WRITERS {
            let (mut load, is_over) = (load.fork(seed.wrapping_add(w)), &is_over);
            scope.spawn(move || {
                let mut client = primary.client();
                while !is_over.load(Ordering::Relaxed) {
                    load.step(&mut client);
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        let result = meanwhile();
        std::thread::sleep(length);
        result
    })
}

/// Waits until the replica has all of the primary's stream and holds the same.
fn are_equal(primary: &Server, replica: &Server, when: &str) {
    let (mut ours, mut theirs) = (primary.client(), replica.client());
    // Again and again: keys that expire between two looks are a difference, but not for long.
    let mut progress = (String::new(), Instant::now());
    let what = "offsets, digests and contents are equal";
    let keys = wait_for(what, CATCH_UP_IN_ALL, || {
        let up = theirs.info("master_link_status")?;
        let offsets = (
            ours.info("master_repl_offset")?,
            theirs.info("slave_repl_offset")?,
        );
        if progress.0 != offsets.1 {
            progress = (offsets.1.clone(), Instant::now());
        }
        let stands_ms = progress.1.elapsed().as_millis();
        assert!(
            stands_ms < CATCH_UP.as_millis(),
            "{when}: the replica has stood at {} for {stands_ms} ms, the primary is at {}",
            progress.0,
            offsets.0
        );
        if up != "up" || offsets.0 != offsets.1 || primary.digest() != replica.digest() {
            return None;
        }
        let (ours, theirs) = (contents(&mut ours), contents(&mut theirs));
        differences(&ours, &theirs).is_empty().then_some(ours.len())
    });
    println!("{when}: {keys} keys, equal");
    // Both kinds of server log so when a command from the primary fails.
    let log = replica.log();
    let complaint = log.lines().find(|line| line.contains("CRITICAL"));
    assert_eq!(complaint, None, "{when}");
}

/// As [`are_equal`], but a failure to become equal shows what differs.
fn catches_up(primary: &Server, replica: &Server, when: &str) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        are_equal(primary, replica, when)
    }));
    if let Err(cause) = result {
        let (mut ours, mut theirs) = (primary.client(), replica.client());
        for name in [
            "master_link_status",
            "slave_repl_offset",
            "master_repl_offset",
        ] {
            println!(
                "{name}: primary {:?}, replica {:?}",
                ours.info(name),
                theirs.info(name)
            );
        }
        let differences = differences(&contents(&mut ours), &contents(&mut theirs));
        println!("{when}: primary, then replica:\n{}", differences.join("\n"));
        std::panic::resume_unwind(cause);
    }
}

fn start(kind: Kind, args: &[&str]) -> Server {
    let server = Server::spawn(kind, args);
    server.wait_until_ready();
    server
}

fn follows(primary: (Kind, &[&str]), replica: (Kind, &[&str])) {
    if !has_program("redis-server") {
        return;
    }
    let name = format!("{primary:?} -> {replica:?}");
    let seed = seed(&name);
    let primary = start(primary.0, primary.1);
    let address = format!("127.0.0.1 {}", primary.port);
    let args = [&["--replicaof", &address], replica.1].concat();
    let probe = start(replica.0, replica.1);
    let load = Load::new(seed, &mut [primary.client(), probe.client()]);
    drop(probe);
    if !load.missing().is_empty() {
        println!("left out: {:?}", load.missing());
    }
    let length = seconds(2);
    under_load(&primary, &load, seed, length / 4, || ());
    let mut replica = under_load(&primary, &load, seed + 100, length, || {
        start(replica.0, &args)
    });
    catches_up(&primary, &replica, "after the load");
    replica.kill();
    under_load(&primary, &load, seed + 200, length / 2, || {
        replica.restart()
    });
    catches_up(&primary, &replica, "after the restart");
}

#[test]
fn ours_follows_redis_over_a_file() {
    follows(
        (Kind::Redis, &["--repl-diskless-sync", "no"]),
        (Kind::Ours, &["--threads", "2"]),
    );
}

#[test]
fn ours_follows_redis_without_a_file() {
    follows(
        (Kind::Redis, &["--repl-diskless-sync", "yes"]),
        (Kind::Ours, &["--threads", "3"]),
    );
}

#[test]
fn redis_follows_ours_over_a_file() {
    follows(
        (
            Kind::Ours,
            &["--threads", "2", "--repl-diskless-sync", "no"],
        ),
        (Kind::Redis, &[]),
    );
}

#[test]
fn redis_follows_ours_without_a_file() {
    follows(
        (
            Kind::Ours,
            &["--threads", "3", "--repl-diskless-sync", "yes"],
        ),
        (Kind::Redis, &["--repl-diskless-load", "disabled"]),
    );
}

#[test]
fn redis_that_swaps_the_new_set_in_follows_ours() {
    follows(
        (Kind::Ours, &["--threads", "1"]),
        (Kind::Redis, &["--repl-diskless-load", "swapdb"]),
    );
}

#[test]
fn ours_follows_ours() {
    follows(
        (Kind::Ours, &["--threads", "3"]),
        (Kind::Ours, &["--threads", "2"]),
    );
}

/// Breaks the link again and again under load, from the side of the real server; each time the stream must go on where it
/// was, and at the end both hold the same.
fn goes_on(primary: (Kind, &[&str]), replica: (Kind, &[&str]), breaker: &str) {
    if !has_program("redis-server") {
        return;
    }
    let name = format!("{primary:?} -> {replica:?}, broken");
    let seed = seed(&name);
    let primary = start(primary.0, primary.1);
    let address = format!("127.0.0.1 {}", primary.port);
    let replica = start(replica.0, &[&["--replicaof", &address], replica.1].concat());
    let load = Load::new(seed, &mut [primary.client(), replica.client()]);
    let real = match primary.kind {
        Kind::Redis => &primary,
        Kind::Ours => &replica,
    };
    let is_up = || {
        wait_for("the link is up", CATCH_UP, || {
            (replica.client().info("master_link_status")? == "up").then_some(())
        });
    };
    is_up();
    let full = primary.client().info("sync_full");
    under_load(&primary, &load, seed, seconds(1), || {
        for _ in 0..4 {
            // Until the replica is back, there is nothing to kill.
            wait_for(breaker, CATCH_UP, || {
                let killed = real.client().ask(breaker).number();
                (killed == Some(1)).then_some(())
            });
        }
    });
    catches_up(&primary, &replica, "after broken links");
    let mut client = primary.client();
    assert_eq!(client.info("sync_full"), full, "no full copy was needed");
    let partial = client.info("sync_partial_ok");
    let partial: i64 = partial
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(partial >= 4, "{partial} partial syncs");
}

#[test]
fn ours_goes_on_after_redis_broke_the_link() {
    goes_on(
        (Kind::Redis, &["--repl-backlog-size", "64mb"]),
        (Kind::Ours, &["--threads", "2"]),
        "CLIENT KILL TYPE replica",
    );
}

#[test]
fn redis_goes_on_after_it_broke_the_link_to_ours() {
    goes_on(
        (
            Kind::Ours,
            &["--threads", "2", "--repl-backlog-size", "64mb"],
        ),
        (Kind::Redis, &[]),
        "CLIENT KILL TYPE master",
    );
}

/// A peer that did not announce `capa eof` (some tools) must know the length first; the stream follows without a mark.
#[test]
fn a_peer_without_the_mark_gets_length_payload_and_stream() {
    let server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    for i in 0..500 {
        client.ask(&format!("SET key:{i} {i}"));
    }
    let mut peer = server.client();
    peer.send(&["PSYNC", "?", "-1"]).expect("PSYNC");
    assert!(peer.line().expect("a line").starts_with("+FULLRESYNC "));
    let length = loop {
        // Empty lines keep the link alive while the payload is made.
        let line = peer.line().expect("a line");
        if let Some(length) = line.strip_prefix('$') {
            break length.parse::<usize>().expect("a length, not a mark");
        }
        assert_eq!(line, "", "before the length");
    };
    let mut payload = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let read = peer
            .read(&mut payload[filled..])
            .expect("more of the payload");
        assert!(read > 0, "{filled} of {length} bytes");
        filled += read;
    }
    assert!(payload.starts_with(b"REDIS0010"));
    assert_eq!(
        payload[length - 9],
        0xff,
        "the end mark before the checksum"
    );
    client.ask("SET after 1");
    let words = |reply: dfsnap_tests::client::Reply| -> Vec<String> {
        reply.items().iter().map(|word| word.text()).collect()
    };
    assert_eq!(words(peer.reply().expect("a command")), ["SELECT", "0"]);
    assert_eq!(
        words(peer.reply().expect("a command")),
        ["SET", "after", "1"]
    );
}

/// WAIT used to wait for the replica's next second: what asked it for an ACK was answered when units were handed over, not when they were
/// applied, and nobody looked again before the clock.
#[test]
fn wait_is_answered_as_soon_as_a_replica_has_applied_what_it_asks_for() {
    for kind in [Kind::Ours, Kind::Redis] {
        if kind == Kind::Redis && !has_program("redis-server") {
            continue;
        }
        let primary = start(kind, &[]);
        let port = primary.port.to_string();
        let replica = start(Kind::Ours, &["--threads", "2"]);
        replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        let mut client = primary.client();
        wait_for("the replica is online", CATCH_UP, || {
            let text = client.ask("INFO replication").text();
            text.contains("state=online").then_some(())
        });
        let began = Instant::now();
        for n in 0..40 {
            client.ask(&format!("SET k {n}"));
            assert_eq!(client.ask("WAIT 1 20000").number(), Some(1));
        }
        let passed = began.elapsed();
        assert!(passed < Duration::from_secs(20), "{kind:?}: {passed:?}");
    }
}

#[test]
fn a_link_comes_from_the_address_it_is_bound_to() {
    let primary = start(Kind::Ours, &[]);
    let address = format!("127.0.0.1 {}", primary.port);
    let replica = start(
        Kind::Ours,
        &["--replicaof", &address, "--bind-source-addr", "127.0.0.2"],
    );
    let seen = wait_for("the replica is online", CATCH_UP, || {
        let text = primary.client().ask("INFO replication").text();
        let line = text.lines().find(|line| line.starts_with("slave0:"))?;
        line.contains("state=online").then(|| line.to_owned())
    });
    assert!(seen.starts_with("slave0:ip=127.0.0.2,"), "{seen}");
    drop(replica);
}
