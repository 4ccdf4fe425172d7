//! Primaries and replicas in all combinations of kind, payload, load and fault: at the end both hold the same, with as few full syncs
//! as the fault allows.
//!
//! Links go through a proxy that cuts them where the case says. A selection runs always; all of it with
//! `cargo test -p dfsnap-tests --test replication_matrix -- --ignored --nocapture`.

mod proxy;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::load::{Load, contents, differences};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, seed, wait_for};
use proxy::{Cut, Proxy};

const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    None,
    /// Commands of all families, in blocks too.
    Mixed,
    Scripts,
    Expiry,
    Eviction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Cut(Cut),
    ReplicaKilled,
    PrimaryRestarted,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    primary: Kind,
    replica: Kind,
    /// The primary sends the payload without a file.
    is_diskless: bool,
    /// The replica's `repl-diskless-load`.
    load: &'static str,
    writes: Writes,
    fault: Fault,
}

const KINDS: [(Kind, Kind); 4] = [
    (Kind::Ours, Kind::Ours),
    (Kind::Ours, Kind::Redis),
    (Kind::Redis, Kind::Ours),
    (Kind::Redis, Kind::Redis),
];
const WRITES: [Writes; 5] = [
    Writes::None,
    Writes::Mixed,
    Writes::Scripts,
    Writes::Expiry,
    Writes::Eviction,
];
const FAULTS: [Fault; 6] = [
    Fault::None,
    Fault::Cut(Cut::Handshake),
    Fault::Cut(Cut::Payload),
    Fault::Cut(Cut::Stream),
    Fault::ReplicaKilled,
    Fault::PrimaryRestarted,
];

const LOADS: [&str; 3] = ["disabled", "on-empty-db", "swapdb"];

/// All of it with payloads that go through a file of the replica; those that do not, where that may matter. Of two real servers, half: they
/// show what is to be expected of the rest.
fn all() -> impl Iterator<Item = Case> {
    let with = |(primary, replica), is_diskless, load, writes, fault| Case {
        primary,
        replica,
        is_diskless,
        load,
        writes,
        fault,
    };
    let mut cases = Vec::new();
    for (i, kinds) in KINDS.into_iter().enumerate() {
        let is_control = kinds == (Kind::Redis, Kind::Redis);
        for (j, writes) in WRITES.into_iter().enumerate() {
            for (k, fault) in FAULTS.into_iter().enumerate() {
                let is_diskless = (i + j + k) % 2 == 0;
                cases.push(with(kinds, is_diskless, LOADS[0], writes, fault));
                if is_control {
                    continue;
                }
                cases.push(with(kinds, !is_diskless, LOADS[0], writes, fault));
                let is_about_payload =
                    matches!(fault, Fault::None | Fault::Cut(Cut::Payload | Cut::Stream));
                for load in LOADS[1..].iter().filter(|_| is_about_payload) {
                    cases.push(with(kinds, is_diskless, load, writes, fault));
                }
            }
        }
    }
    cases.into_iter()
}

fn start(kind: Kind, args: &[&str]) -> Server {
    let own: &[&str] = match kind {
        Kind::Ours => &["--threads", "2"],
        Kind::Redis => &[],
    };
    let server = Server::spawn(kind, &[own, args].concat());
    server.wait_until_ready();
    server
}

/// Writes of one kind until told to stop.
fn write(primary: u16, case: Case, load: &mut Load, is_over: &AtomicBool) {
    let mut client = Client::connect(primary).ok();
    let mut count = 0u64;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        // The primary may be gone for a while.
        let Some(open) = &mut client else {
            client = Client::connect(primary).ok();
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let sent = match case.writes {
            Writes::None => return,
            Writes::Mixed => load.try_step(open),
            Writes::Scripts => {
                let keys = [format!("a{}", count % 7), format!("b{}", count % 5)];
                let text = "redis.call('incr', KEYS[1]) redis.call('rpush', KEYS[2], ARGV[1]) \
                            if #ARGV[1] > 2 then redis.call('ltrim', KEYS[2], -20, -1) end return 1";
                let number = count.to_string();
                open.try_call(&["EVAL", text, "2", &keys[0], &keys[1], &number])
                    .map(drop)
            }
            Writes::Expiry => {
                let key = format!("e{}", count % 300);
                let ms = (count * 7 % 90 + 1).to_string();
                open.try_call(&["SET", &key, "v", "PX", &ms]).map(drop)
            }
            Writes::Eviction => {
                let key = format!("v{}", count % 3_000);
                let value = "x".repeat(1_000);
                open.try_call(&["SET", &key, &value]).map(drop)
            }
        };
        if sent.is_err() {
            client = None;
        }
    }
}

fn run(case: Case, seed: u64) {
    let diskless = if case.is_diskless { "yes" } else { "no" };
    let mut primary_args = vec![
        "--repl-diskless-sync",
        diskless,
        "--repl-backlog-size",
        "64mb",
        "--repl-ping-replica-period",
        "1",
    ];
    if case.writes == Writes::Eviction {
        primary_args.extend(["--maxmemory-policy", "allkeys-random"]);
    }
    let mut primary = start(case.primary, &primary_args);
    let mut client = primary.client();
    client.ask("DEBUG POPULATE 4000 base 500");
    if case.writes == Writes::Eviction {
        let used = client
            .info("used_memory")
            .and_then(|text| text.parse::<u64>().ok());
        let limit = (used.expect("a number") + 300_000).to_string();
        client.call(&["CONFIG", "SET", "maxmemory", &limit]);
    }
    let replica_args = ["--repl-timeout", "10", "--repl-diskless-load", case.load];
    let mut replica = start(case.replica, &replica_args);
    let load = Load::new(seed, &mut [primary.client(), replica.client()]);
    let cut = match case.fault {
        Fault::Cut(cut) => Some(cut),
        _ => None,
    };
    let proxy = Proxy::start(primary.port, cut);
    let port = proxy.port.to_string();
    let is_over = AtomicBool::new(false);
    let at = primary.port;
    std::thread::scope(|scope| {
        for w in 0..2 {
            let (mut load, is_over) = (load.fork(seed + w), &is_over);
            scope.spawn(move || write(at, case, &mut load, is_over));
        }
        let _over = SetOnDrop(&is_over);
        replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        if cut.is_some() {
            wait_for("the proxy has cut", LIMIT, || proxy.has_cut().then_some(()));
        }
        is_up(&replica);
        match case.fault {
            Fault::None | Fault::Cut(_) => {}
            Fault::ReplicaKilled => {
                replica.kill();
                replica.restart();
                replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
            }
            Fault::PrimaryRestarted => {
                // Not from the start: see `a_real_primary_may_send_a_later_file`.
                let rule = ["CONFIG", "SET", "save", "3600 1000000000"];
                assert!(!primary.client().call(&rule).is_error());
                assert!(primary.terminate().success());
                primary.restart();
            }
        }
        is_up(&replica);
        std::thread::sleep(Duration::from_millis(200));
    });
    are_equal(&primary, &replica, case);
    // Neither cut in the stream nor restarts in order need all the data again; a replica without its memory does.
    let log = primary.log();
    // FLUSHALL kills the child of a real primary that saves for a replica. That asks again, unless it has got all before.
    let killed = log.matches("SYNC failed. BGSAVE child returned an error");
    let killed = killed.count() as u64;
    let full: u64 = stat(&primary, "sync_full");
    let wanted = match case.fault {
        Fault::None | Fault::Cut(Cut::Stream) => 1..=1,
        // A sync that was begun counts.
        Fault::Cut(Cut::Handshake) => 1..=2,
        Fault::Cut(Cut::Payload) | Fault::ReplicaKilled => 2..=2,
        Fault::PrimaryRestarted => 0..=0,
    };
    let wanted = *wanted.start()..=wanted.end() + killed;
    assert!(wanted.contains(&full), "{full} full syncs\n{log}");
}

fn stat(server: &Server, name: &str) -> u64 {
    let text = server.client().info(name);
    text.and_then(|text| text.parse().ok()).expect("a number")
}

fn is_up(replica: &Server) {
    wait_for("the link is up", LIMIT, || {
        let mut client = Client::connect(replica.port).ok()?;
        let Reply::Text(text) = client.try_call(&["INFO", "replication"]).ok()? else {
            return None;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains("master_link_status:up").then_some(())
    });
}

fn are_equal(primary: &Server, replica: &Server, case: Case) {
    let (mut ours, mut theirs) = (primary.client(), replica.client());
    wait_for("both are equal", LIMIT, || {
        let offsets = [
            ours.info("master_repl_offset")?,
            theirs.info("slave_repl_offset")?,
        ];
        let is_there = offsets[0] == offsets[1] && primary.digest() == replica.digest();
        if !is_there {
            return None;
        }
        if case.writes != Writes::Mixed {
            return Some(());
        }
        let (ours, theirs) = (contents(&mut ours), contents(&mut theirs));
        differences(&ours, &theirs).is_empty().then_some(())
    });
    let log = replica.log();
    let complaint = log.lines().find(|line| line.contains("CRITICAL"));
    assert_eq!(complaint, None);
}

fn run_all(cases: impl Iterator<Item = Case>) {
    if !has_program("redis-server") {
        return;
    }
    let seed = seed("matrix");
    let mut failed = Vec::new();
    for case in cases {
        let began = std::time::Instant::now();
        let result = std::panic::catch_unwind(|| run(case, seed));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{word} in {:.1} s: {case:?}", began.elapsed().as_secs_f64());
        if result.is_err() {
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Each kind of write and each fault with each pair in which one is ours, the rest in turn.
#[test]
fn a_selection_of_the_matrix() {
    let picked = KINDS[..3]
        .iter()
        .enumerate()
        .flat_map(|(i, &(primary, replica))| {
            FAULTS.into_iter().enumerate().map(move |(j, fault)| Case {
                primary,
                replica,
                is_diskless: (i + j) % 2 == 0,
                load: LOADS[(i + 2 * j) % LOADS.len()],
                writes: WRITES[(i + j) % WRITES.len()],
                fault,
            })
        });
    run_all(picked);
}

/// Why real primaries here have no rules for saving. Two real servers alone:
///
/// 1. The child has written the file for a replica and ended, and the primary does not know yet.
/// 2. FLUSHALL saves the empty dataset, as it does where there are rules, into the same file.
/// 3. The primary sends that file, and behind it the stream from where the child began.
///
/// So the replica meets commands whose keys it lacks, and complains, up to the FLUSHALL, which makes both equal again.
#[test]
fn a_real_primary_may_send_a_later_file() {
    if !has_program("redis-server") {
        return;
    }
    // The child takes half a second for the one key; FLUSHALL, with none to save, no time at all.
    let args = [
        "--repl-diskless-sync",
        "no",
        "--rdb-key-save-delay",
        "500000",
    ];
    let primary = Server::redis(&[&args[..], &["--save", "3600 1000000000"]].concat());
    let replica = Server::redis(&[]);
    let mut client = primary.client();
    client.ask("SET before 1");
    let port = primary.port.to_string();
    replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
    wait_for("the child", LIMIT, || {
        let text = client.ask("INFO replication").text();
        assert!(!text.contains("state=online"), "it was too fast to be seen");
        text.contains("state=wait_bgsave").then_some(())
    });
    let rows: [&[&[u8]]; 4] = [
        &[b"DEBUG", b"SLEEP", b"2"],
        &[b"RENAME", b"before", b"then"],
        &[b"FLUSHALL"],
        &[b"SET", b"after", b"1"],
    ];
    let bytes: Vec<u8> = rows.iter().flat_map(|words| frame(words)).collect();
    client.send_raw(&bytes).expect("sent");
    for _ in rows {
        assert!(!client.reply().expect("a reply").is_error());
    }
    is_up(&replica);
    wait_for("both are equal", LIMIT, || {
        (primary.digest() == replica.digest()).then_some(())
    });
    let log = replica.log();
    assert!(log.contains("keys loaded: 0"), "{log}");
    assert!(log.contains("CRITICAL"), "{log}");
}

#[test]
#[ignore = "takes half an hour"]
fn the_whole_matrix() {
    let part = std::env::var("DFSNAP_PART").ok();
    let part: Option<usize> = part.and_then(|text| text.parse().ok());
    let cases = all().enumerate();
    run_all(
        cases
            .filter(|(i, _)| part.is_none_or(|part| i % 10 == part))
            .map(|(_, case)| case),
    );
}
