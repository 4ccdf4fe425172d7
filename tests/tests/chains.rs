//! Replicas of replicas, real servers and ours at each level, and servers that start again: all hold the same, and go on with what they lack.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::load::{Load, contents, differences};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, seed, wait_for};
use std::sync::atomic::{AtomicBool, Ordering};

const LIMIT: Duration = Duration::from_secs(90);
const OURS: &[&str] = &["--threads", "2"];

fn start(kind: Kind, args: &[&str]) -> Server {
    let server = Server::spawn(kind, args);
    server.wait_until_ready();
    server
}

fn follows(server: &Server, primary: &Server) {
    let port = primary.port.to_string();
    server.client().call(&["REPLICAOF", "127.0.0.1", &port]);
}

fn is_up(server: &Server) {
    let mut client = server.client();
    wait_for("the link is up", LIMIT, || {
        (client.info("master_link_status")? == "up").then_some(())
    });
}

/// Waits until all hold what the first does, at its offset.
fn are_equal(servers: &[&Server], when: &str) {
    let offset = |client: &mut Client| client.info("master_repl_offset");
    let (first, rest) = servers.split_first().expect("a primary");
    let mut primary = first.client();
    for server in rest {
        let mut client = server.client();
        wait_for(
            &format!("{when}: port {} is equal", server.port),
            LIMIT,
            || {
                let is_up = client.info("master_link_status")? == "up";
                let is_there = is_up && offset(&mut primary) == offset(&mut client);
                if !is_there || first.digest() != server.digest() {
                    return None;
                }
                differences(&contents(&mut primary), &contents(&mut client))
                    .is_empty()
                    .then_some(())
            },
        );
        let log = server.log();
        let complaint = log.lines().find(|line| line.contains("CRITICAL"));
        assert_eq!(complaint, None, "{when}");
    }
}

fn under_load<R>(primary: &Server, load: &Load, seed: u64, meanwhile: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for w in 0..3 {
            let (mut load, is_over) = (load.fork(seed.wrapping_add(w)), &is_over);
            scope.spawn(move || {
                let mut client = primary.client();
                while !is_over.load(Ordering::Relaxed) {
                    load.step(&mut client);
                }
            });
        }
        let _over = SetOnDrop(&is_over);
        meanwhile()
    })
}

fn stat(server: &Server, name: &str) -> u64 {
    let value = server.client().info(name).unwrap_or_default();
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name}: {value:?}"))
}

/// A chain under load: each level attached while writes go on; then the middle is killed and comes back, and the last is pointed at the
/// first.
fn chain(kinds: [Kind; 3]) {
    if !has_program("redis-server") {
        return;
    }
    let name = format!("{kinds:?}");
    let seed = seed(&name);
    let args = |kind| if kind == Kind::Ours { OURS } else { &[] };
    let [first, mut middle, last] = kinds.map(|kind| start(kind, args(kind)));
    let load = Load::new(seed, &mut [first.client(), middle.client(), last.client()]);
    under_load(&first, &load, seed, || {
        follows(&middle, &first);
        is_up(&middle);
        follows(&last, &middle);
        is_up(&last);
    });
    are_equal(&[&first, &middle, &last], &format!("{name}: attached"));
    under_load(&first, &load, seed + 10, || {
        middle.kill();
        middle.restart();
        follows(&middle, &first);
        is_up(&middle);
        is_up(&last);
    });
    are_equal(
        &[&first, &middle, &last],
        &format!("{name}: the middle restarted"),
    );
    let partial = stat(&first, "sync_partial_ok");
    under_load(&first, &load, seed + 20, || {
        follows(&last, &first);
        is_up(&last);
    });
    are_equal(
        &[&first, &middle, &last],
        &format!("{name}: pointed at the first"),
    );
    assert_eq!(
        stat(&first, "sync_partial_ok"),
        partial + 1,
        "{name}: no full sync is needed to change the primary"
    );
}

#[test]
fn ours_between_real_servers() {
    chain([Kind::Redis, Kind::Ours, Kind::Redis]);
}

#[test]
fn a_real_server_between_ours() {
    chain([Kind::Ours, Kind::Redis, Kind::Ours]);
}

#[test]
fn ours_at_each_level() {
    chain([Kind::Ours, Kind::Ours, Kind::Ours]);
}

#[test]
fn ours_behind_two_real_servers_and_before_one() {
    chain([Kind::Redis, Kind::Redis, Kind::Ours]);
    chain([Kind::Ours, Kind::Ours, Kind::Redis]);
}

/// The middle becomes a primary; the others follow it without a full sync, and so does the old primary when it has nothing of its own.
#[test]
fn a_promoted_replica_is_followed_without_a_full_sync() {
    let [first, middle, last] = [OURS; 3].map(|args| start(Kind::Ours, args));
    follows(&middle, &first);
    is_up(&middle);
    follows(&last, &middle);
    is_up(&last);
    first.client().ask("SET before 1");
    are_equal(&[&first, &middle, &last], "before");
    middle.client().ask("REPLICAOF NO ONE");
    wait_for("a primary", LIMIT, || {
        (middle.client().info("role")? == "master").then_some(())
    });
    middle.client().ask("SET after 1");
    are_equal(&[&middle, &last], "promoted");
    follows(&first, &middle);
    is_up(&first);
    are_equal(&[&middle, &first, &last], "turned around");
    assert_eq!(stat(&middle, "sync_full"), 1, "that of the last, at first");
    assert_eq!(first.client().ask("GET after").text(), "1");
}

/// Both ends of a link are restarted in order: the files name the place, and the link goes on from there.
fn goes_on_after_restarts(primary: Kind, replica: Kind) {
    if !has_program("redis-server") {
        return;
    }
    let name = format!("{primary:?} -> {replica:?}");
    let save: &[&str] = &["--save", "3600 1"];
    let args = |kind| match kind {
        Kind::Ours => [OURS, save].concat(),
        Kind::Redis => save.to_vec(),
    };
    let mut primary = start(primary, &args(primary));
    let address = format!("127.0.0.1 {}", primary.port);
    let replica_args = [&args(replica)[..], &["--replicaof", &address]].concat();
    let mut replica = start(replica, &replica_args);
    is_up(&replica);
    let mut client = primary.client();
    for i in 0..100 {
        client.ask(&format!("SET key:{i} {i:0>200}"));
    }
    client.ask("SELECT 3");
    client.ask("SET soon v PX 300000");
    client.ask("SET short v PX 1500");
    are_equal(&[&primary, &replica], &format!("{name}: before"));
    assert_eq!(replica.terminate().code(), Some(0));
    client.ask("SET between 1");
    replica.restart();
    is_up(&replica);
    are_equal(
        &[&primary, &replica],
        &format!("{name}: the replica restarted"),
    );
    assert_eq!(stat(&primary, "sync_full"), 1, "{name}: {}", primary.log());
    drop(client);
    assert_eq!(primary.terminate().code(), Some(0));
    let full = replica.log().matches("Full resync from").count();
    primary.restart();
    primary.client().ask("SET after 1");
    is_up(&replica);
    are_equal(
        &[&primary, &replica],
        &format!("{name}: the primary restarted"),
    );
    assert_eq!(stat(&primary, "sync_full"), 0, "{name}: {}", primary.log());
    assert_eq!(
        replica.log().matches("Full resync from").count(),
        full,
        "{name}"
    );
    // What had expired meanwhile is gone on both sides.
    wait_for("the short one is gone", LIMIT, || {
        let mut client = replica.client();
        client.ask("SELECT 3");
        (client.ask("DBSIZE").number() == Some(2)).then_some(())
    });
}

#[test]
fn links_go_on_after_restarts() {
    goes_on_after_restarts(Kind::Ours, Kind::Ours);
    goes_on_after_restarts(Kind::Ours, Kind::Redis);
    goes_on_after_restarts(Kind::Redis, Kind::Ours);
}

/// What a client was told is written is in the file that the server leaves behind, whenever it is told to end.
#[test]
fn what_was_acknowledged_survives_a_shutdown() {
    for round in 0..5 {
        let mut server = start(Kind::Ours, &[OURS, &["--save", "3600 1"]].concat());
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let mut client = server.client();
                std::thread::spawn(move || {
                    let mut acked = 0;
                    for i in 1.. {
                        let count = i.to_string();
                        let key = format!("w{w}");
                        let words = ["MSET", &key, &count, &format!("{key}:copy"), &count];
                        match client.try_call(&words) {
                            Ok(_) => acked = i,
                            Err(_) => break,
                        }
                    }
                    acked
                })
            })
            .collect();
        let mut client = server.client();
        wait_for("some writes", LIMIT, || {
            (client.call(&["GET", "w3"]).number()? > 20 * round).then_some(())
        });
        assert_eq!(server.terminate().code(), Some(0));
        server.restart();
        for (w, writer) in writers.into_iter().enumerate() {
            let acked: i64 = writer.join().expect("a writer");
            let found = server.client().ask(&format!("GET w{w}")).number();
            assert!(
                found >= Some(acked),
                "round {round}: {found:?}, acknowledged {acked}"
            );
        }
    }
}

/// What a replica has not read is in memory: beyond the limit it is dropped, and the memory comes back.
#[test]
fn a_replica_that_reads_nothing_is_dropped_at_the_limit() {
    let server = start(Kind::Ours, OURS);
    let mut client = server.client();
    client.call(&[
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "slave 4mb 0 0",
    ]);
    let mut link = server.client();
    link.call(&["REPLCONF", "capa", "eof"]);
    link.send(&["PSYNC", "?", "-1"]).expect("sent");
    let mut head = || link.line().expect("a line");
    assert!(head().starts_with("+FULLRESYNC"));
    wait_for("the payload's end", LIMIT, || {
        // The mark comes twice: in front of the payload and behind it; the ACK lets the stream go on.
        link.send(&["REPLCONF", "ACK", "0"]).expect("sent");
        (client.info("slave0")?.contains("state=online")).then_some(())
    });
    let value = "v".repeat(100_000);
    for i in 0..400 {
        client.call(&["SET", &format!("k{}", i % 10), &value]);
    }
    wait_for("it is dropped", LIMIT, || {
        (client.info("connected_slaves")? == "0").then_some(())
    });
    assert!(
        server.log().contains("lags too far behind"),
        "{}",
        server.log()
    );
    client.call(&["SET", "k", "v"]);
    wait_for("its memory comes back", LIMIT, || {
        client.ask("SET k v");
        let bytes: u64 = client.info("mem_replication_backlog")?.parse().ok()?;
        (bytes < 3_000_000).then_some(())
    });
}

/// `min-replicas-to-write`: too few replicas that keep up stop writes, of clients, blocks and scripts alike, until one is back.
#[test]
fn writes_wait_for_enough_replicas() {
    let primary = start(
        Kind::Ours,
        &[OURS, &["--min-replicas-to-write", "1"]].concat(),
    );
    let mut client = primary.client();
    client.ask("MULTI");
    client.ask("GET k");
    let refused = |reply: &Reply| format!("{reply:?}").contains("NOREPLICAS");
    wait_for("writes are refused", LIMIT, || {
        refused(&primary.client().call(&["SET", "k", "v"])).then_some(())
    });
    assert!(refused(&client.call(&["SET", "k", "v"])));
    client.call(&["EXEC"]);
    assert!(refused(&client.call(&[
        "EVAL",
        "return redis.call('set', 'k', 'v')",
        "0"
    ])));
    assert_eq!(client.info("min_slaves_good_slaves").as_deref(), Some("0"));
    let mut replica = start(Kind::Ours, OURS);
    follows(&replica, &primary);
    wait_for("writes go on", LIMIT, || {
        (!client.call(&["SET", "k", "v"]).is_error()).then_some(())
    });
    assert_eq!(client.info("min_slaves_good_slaves").as_deref(), Some("1"));
    replica.kill();
    wait_for("and stop again", LIMIT, || {
        refused(&client.call(&["SET", "k", "v"])).then_some(())
    });
}

/// Who sees that there are enough replicas may write, who sees that there are too few is refused: there is no moment in between. From the
/// first command on.
#[test]
fn what_is_seen_of_replicas_holds_for_the_next_write() {
    let primary = start(
        Kind::Ours,
        &[OURS, &["--min-replicas-to-write", "1"]].concat(),
    );
    let mut client = primary.client();
    let refused = |reply: &Reply| format!("{reply:?}").contains("NOREPLICAS");
    assert!(refused(&client.call(&["SET", "k", "v"])), "at the start");
    for round in 0..10 {
        let mut link = TcpStream::connect(("127.0.0.1", primary.port)).expect("it listens");
        link.write_all(b"PSYNC ? -1\r\n").expect("it reads");
        let mut input = link.try_clone().expect("a socket");
        let reads = std::thread::spawn(move || std::io::copy(&mut input, &mut std::io::sink()));
        wait_for("the replica is online", LIMIT, || {
            let text = client.ask("INFO replication").text();
            text.contains("state=online").then_some(())
        });
        let reply = client.call(&["SET", "k", "v"]);
        assert!(!reply.is_error(), "round {round}: {reply:?}");
        link.shutdown(Shutdown::Both).expect("a socket");
        reads.join().expect("no panic").ok();
        wait_for("the replica is gone", LIMIT, || {
            (client.info("connected_slaves")? == "0").then_some(())
        });
        let reply = client.call(&["SET", "k", "v"]);
        assert!(refused(&reply), "round {round}: {reply:?}");
    }
}

/// `replica-serve-stale-data no`: while the link is down, only what is about the server itself is answered.
#[test]
fn stale_data_is_not_served_where_that_is_forbidden() {
    let mut primary = start(Kind::Ours, OURS);
    let replica = start(
        Kind::Ours,
        &[OURS, &["--replica-serve-stale-data", "no"]].concat(),
    );
    primary.client().ask("SET k v");
    follows(&replica, &primary);
    let mut client = replica.client();
    let is_down = |reply: &Reply| format!("{reply:?}").contains("MASTERDOWN");
    wait_for("the link is up", LIMIT, || {
        (client.call(&["GET", "k"]) == Reply::Text(b"v".to_vec())).then_some(())
    });
    primary.kill();
    wait_for("the link is down", LIMIT, || {
        is_down(&client.call(&["GET", "k"])).then_some(())
    });
    assert!(is_down(&client.call(&["PING"])));
    assert!(client.info("role").is_some());
    client.call(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    wait_for("old data is served", LIMIT, || {
        (client.call(&["GET", "k"]) == Reply::Text(b"v".to_vec())).then_some(())
    });
}

/// The same beside a real server, word by word: scripts that say what they do, and those that do not.
#[test]
fn what_may_be_asked_of_old_data_is_what_a_real_server_allows() {
    if !has_program("redis-server") {
        return;
    }
    const LIBRARY: &str = "#!lua name=l
        local get = function() return redis.call('get', 'k') end
        redis.register_function('plain', get)
        redis.register_function{function_name='reads', callback=get, flags={'no-writes'}}
        redis.register_function{function_name='stale', callback=get, flags={'no-writes', 'allow-stale'}}
        redis.register_function{function_name='seven', callback=function() return 7 end,
            flags={'no-writes', 'allow-stale'}}";
    let get = "return redis.call('get', 'k')";
    let flagged = |flags: &str, code: &str| format!("#!lua {flags}\n{code}");
    let scripts = [
        "return 1".to_owned(),
        get.to_owned(),
        "return redis.pcall('get', 'k')".to_owned(),
        "return redis.call('echo', 'k')".to_owned(),
        flagged("", "return 1"),
        flagged("flags=no-writes", get),
        flagged("flags=allow-stale", "return 1"),
        flagged("flags=allow-stale,no-writes", "return 1"),
        flagged("flags=allow-stale,no-writes", get),
        flagged(
            "flags=allow-stale,no-writes",
            "return redis.call('echo', 'k')",
        ),
    ];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for script in &scripts {
        for command in ["EVAL", "EVAL_RO"] {
            rows.push(vec![command.into(), script.clone(), "0".into()]);
        }
    }
    for command in ["FCALL", "FCALL_RO"] {
        for name in ["plain", "reads", "stale", "seven", "none"] {
            rows.push(vec![command.into(), name.into(), "0".into()]);
        }
    }
    let rest = [
        "EVALSHA 0000000000000000000000000000000000000000 0",
        "SCRIPT LOAD return(3)",
        "SCRIPT EXISTS a",
        "FUNCTION LOAD x",
        "FUNCTION LIST",
        "FUNCTION HELP",
        "OBJECT HELP",
        "OBJECT ENCODING k",
        "XINFO HELP",
        "XGROUP CREATE k g 0",
        "MEMORY USAGE k",
        "GET k",
        "SET k v",
        "PUBLISH a b",
        "PING",
    ];
    rows.extend(
        rest.iter()
            .map(|row| row.split(' ').map(str::to_owned).collect()),
    );
    let mut seen: Vec<Vec<String>> = Vec::new();
    for kind in [Kind::Redis, Kind::Ours] {
        let server = start(kind, &["--replica-serve-stale-data", "no"]);
        let mut client = server.client();
        client.ask("SET k v");
        assert!(!client.call(&["FUNCTION", "LOAD", LIBRARY]).is_error());
        client.ask("REPLICAOF 127.0.0.1 1");
        let mut replies = Vec::new();
        for row in &rows {
            for in_block in [false, true] {
                let mut client = server.client();
                let reply = if in_block {
                    client.ask("MULTI");
                    let queued = client.call(row);
                    Reply::Array(vec![queued, client.call(&["EXEC"])])
                } else {
                    client.call(row)
                };
                // What they say beside an error is not what this is about.
                let text = match &reply {
                    Reply::Error(_) | Reply::Int(_) => format!("{reply:?}"),
                    Reply::Array(items) if in_block => format!("{:?}", items),
                    _ => "fine".to_owned(),
                };
                let is_help = row.iter().any(|word| word == "HELP");
                let text = if is_help && !text.contains("Error") {
                    "fine"
                } else {
                    &text
                };
                replies.push(format!("{row:?} in a block {in_block}: {text}"));
            }
        }
        seen.push(replies);
    }
    for (theirs, ours) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(ours, theirs);
    }
}
