//! What can happen at the worst moment of a full sync: databases that change places or are emptied, a replica that dies again and again, with
//! saves of its own in between. At the end both are equal, at the same offset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, seed, wait_for};
use fastrand::Rng;

const LIMIT: Duration = Duration::from_secs(120);
const LOADS: [&str; 3] = ["disabled", "on-empty-db", "swapdb"];

fn start(kind: Kind, args: &[&str]) -> Server {
    let own: &[&str] = match kind {
        Kind::Ours => &["--threads", "2"],
        Kind::Redis => &[],
    };
    let server = Server::spawn(kind, &[own, args].concat());
    server.wait_until_ready();
    server
}

/// Blocks in which a counter of the whole goes with a key of a database that may be another by the time it is looked at.
fn swap_and_flush(mut client: Client, mut rng: Rng, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let (db, key) = (rng.u32(..3).to_string(), format!("k{}", rng.u32(..300)));
        let line = match rng.u32(..100) {
            0..4 => vec!["SWAPDB", "0", "1"],
            4..6 => vec!["SWAPDB", "1", "2"],
            6..8 => vec!["FLUSHDB"],
            8 => vec!["FLUSHALL"],
            9..60 => vec!["INCR", &key],
            _ => vec!["APPEND", &key, "x"],
        };
        let bytes = |words: &[&str]| -> Vec<Vec<u8>> {
            words.iter().map(|word| word.as_bytes().to_vec()).collect()
        };
        let block = [
            bytes(&["SELECT", &db]),
            bytes(&line),
            bytes(&["INCR", "count"]),
        ];
        client.transaction(&block).expect("a block");
    }
}

fn are_equal(primary: &Server, replica: &Server, name: &str) {
    wait_for(name, LIMIT, || {
        // It may have just begun to start.
        let (mut ours, mut theirs) = (primary.client(), Client::connect(replica.port).ok()?);
        let is_up = theirs.info("master_link_status")? == "up";
        let offsets = [
            ours.info("master_repl_offset")?,
            theirs.info("slave_repl_offset")?,
        ];
        (is_up && offsets[0] == offsets[1] && primary.digest() == replica.digest()).then_some(())
    });
    let log = replica.log();
    let complaint = log.lines().find(|line| line.contains("CRITICAL"));
    assert_eq!(complaint, None, "{name}");
}

fn syncs_again_and_again(primary_kind: Kind, replica_kind: Kind) {
    if !has_program("redis-server") {
        return;
    }
    let seed = seed("swaps and flushes");
    for (i, load) in LOADS.into_iter().enumerate() {
        let name = format!("{primary_kind:?} -> {replica_kind:?}, {load}");
        let primary = start(primary_kind, &["--repl-ping-replica-period", "1"]);
        let replica = start(replica_kind, &["--repl-diskless-load", load]);
        let port = primary.port.to_string();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&is_over);
            for w in 0..2 {
                let rng = Rng::with_seed(seed + 10 * i as u64 + w);
                let (client, is_over) = (primary.client(), &is_over);
                scope.spawn(move || swap_and_flush(client, rng, is_over));
            }
            for _ in 0..6 {
                // A history of its own: the next sync is a full one.
                let mut client = replica.client();
                client.ask("REPLICAOF NO ONE");
                client.ask("INCR own");
                client.call(&["REPLICAOF", "127.0.0.1", &port]);
                wait_for(&name, LIMIT, || {
                    let status = replica.client().call(&["INFO", "replication"]);
                    let Reply::Text(text) = status else {
                        return None;
                    };
                    let text = String::from_utf8_lossy(&text).into_owned();
                    text.contains("master_link_status:up").then_some(())
                });
            }
        });
        are_equal(&primary, &replica, &name);
    }
}

#[test]
fn databases_change_places_while_ours_syncs_from_ours() {
    syncs_again_and_again(Kind::Ours, Kind::Ours);
}

#[test]
fn databases_change_places_while_a_real_replica_syncs_from_ours() {
    syncs_again_and_again(Kind::Ours, Kind::Redis);
}

#[test]
fn databases_change_places_while_ours_syncs_from_a_real_primary() {
    syncs_again_and_again(Kind::Redis, Kind::Ours);
}

/// Whatever it was doing when it was killed, it goes on from what it had saved or gets all.
#[test]
fn a_replica_that_is_killed_again_and_again_is_equal_in_the_end() {
    let seed = seed("killed again and again");
    let mut rng = Rng::with_seed(seed);
    for load in LOADS {
        // So little that what it missed is often gone.
        let primary = start(Kind::Ours, &["--repl-backlog-size", "64kb"]);
        primary.client().ask("DEBUG POPULATE 20000 base 100");
        let port = primary.port;
        let args = [
            "--replicaof",
            &format!("127.0.0.1 {port}"),
            "--repl-diskless-load",
            load,
            "--save",
            "1 1",
        ];
        let mut replica = start(Kind::Ours, &args);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&is_over);
            let (client, is_over) = (primary.client(), &is_over);
            scope.spawn(move || {
                let mut client = client;
                for n in 0u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    client.ask(&format!("INCR n{}", n % 50));
                    client.ask(&format!("SETRANGE base:{} 3 {n}", n * 7 % 20_000));
                }
            });
            for _ in 0..8 {
                // The moment of the fault.
                std::thread::sleep(Duration::from_millis(rng.u64(..1_500)));
                replica.kill();
                replica.restart_soon();
            }
        });
        are_equal(&primary, &replica, load);
        let text = replica.log();
        assert!(!text.contains("panicked"), "{text}");
    }
}
