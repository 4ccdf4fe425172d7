//! `maxmemory`, and fields that expire, as clients and replicas see them.

use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::Server;
use dfsnap_tests::wait_for;

/// A field of INFO as a number.
fn info(client: &mut Client, name: &str) -> u64 {
    let field = client.info(name).expect("a field of INFO");
    field.parse().expect("a number")
}

/// The text of a reply that may be an error.
fn said(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match client.call(&words) {
        Reply::Error(text) => text,
        reply => reply.text(),
    }
}

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

#[test]
fn every_policy_keeps_the_limit_and_what_it_may_not_take() {
    for threads in ["1", "2"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        for policy in [
            "allkeys-random",
            "allkeys-lru",
            "allkeys-lfu",
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
        ] {
            client.ask("CONFIG SET maxmemory 0");
            client.ask("FLUSHALL");
            client.ask(&format!("CONFIG SET maxmemory-policy {policy}"));
            let is_volatile = policy.starts_with("volatile");
            for n in 0..500 {
                client.ask(&format!("SET stays:{n} {}", "x".repeat(100)));
            }
            let limit = info(&mut client, "used_memory") + 2_000_000;
            client.ask(&format!("CONFIG SET maxmemory {limit}"));
            let before = info(&mut client, "evicted_keys");
            for n in 0..8_000 {
                let reply = client.ask(&format!("SET k:{n} {} EX 10000", "y".repeat(1000)));
                assert_eq!(reply.text(), "OK", "{policy} {n}");
            }
            wait_for("room", Duration::from_secs(10), || {
                let is_so = info(&mut client, "used_memory") < limit + 500_000;
                is_so.then_some(())
            });
            assert!(info(&mut client, "evicted_keys") > before, "{policy}");
            if is_volatile {
                for n in 0..500 {
                    let there = client.ask(&format!("EXISTS stays:{n}")).number();
                    assert_eq!(there, Some(1), "{policy} took a key that stays");
                }
            }
        }
    }
}

#[test]
fn without_eviction_writes_are_refused_and_reads_and_removals_are_not() {
    let server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    client.ask("SET k v");
    client.ask("MULTI");
    client.ask("SET k w");
    server.client().ask("CONFIG SET maxmemory 1");
    assert_eq!(
        said(&mut client, "EXEC"),
        format!("EXECABORT Transaction discarded because of: {OOM}")
    );
    assert_eq!(said(&mut client, "SET k w"), OOM);
    assert_eq!(said(&mut client, "MSET k 1 l 2 m 3"), OOM);
    assert_eq!(said(&mut client, "SINTERSTORE a b c d e"), OOM);
    assert_eq!(said(&mut client, "GET k"), "v");
    client.ask("MULTI");
    assert_eq!(said(&mut client, "LPUSH l 1"), OOM);
    assert_eq!(
        said(&mut client, "EXEC"),
        "EXECABORT Transaction discarded because of previous errors."
    );
    assert_eq!(client.ask("DEL k").number(), Some(1));
    client.ask("CONFIG SET maxmemory-policy volatile-lru");
    // Each shard has to look before all know that there is none.
    wait_for("no key may go", Duration::from_secs(10), || {
        (said(&mut client, "SET k w") == OOM).then_some(())
    });
    client.ask("CONFIG SET maxmemory 0");
    assert_eq!(said(&mut client, "SET k w"), "OK");
}

/// What waits for a replica that does not read used to count: keys went for it, and then writes were refused.
#[test]
fn what_waits_for_a_slow_replica_takes_no_keys() {
    let server = Server::ours(&["--threads", "1", "--repl-backlog-size", "16kb"]);
    let replica = Server::ours(&["--threads", "1"]);
    let mut client = server.client();
    let unlimited = [
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "replica 0 0 0",
    ];
    assert_eq!(client.call(&unlimited).text(), "OK");
    client.ask("CONFIG SET maxmemory-policy allkeys-random");
    for n in 0..100 {
        client.ask(&format!("SETRANGE key:{n} 100000 x"));
    }
    replica
        .client()
        .ask(&format!("REPLICAOF 127.0.0.1 {}", server.port));
    wait_for("the link", Duration::from_secs(20), || {
        let is_online = client
            .info("slave0")
            .is_some_and(|line| line.contains("state=online"));
        is_online.then_some(())
    });
    signal(&replica, "-STOP");
    let limit = info(&mut client, "used_memory") + 1_000_000;
    client.ask(&format!("CONFIG SET maxmemory {limit}"));
    let piece = "y".repeat(50_000);
    for _ in 0..400 {
        let reply = client.ask(&format!("SETRANGE key:0 0 {piece}"));
        assert_eq!(reply, Reply::Int(100_001));
    }
    assert!(info(&mut client, "mem_clients_slaves") > 5_000_000);
    assert!(info(&mut client, "mem_not_counted_for_evict") > 5_000_000);
    assert_eq!(client.ask("DBSIZE"), Reply::Int(100));
    client.ask("CLIENT KILL TYPE replica");
    wait_for("it is let go of", Duration::from_secs(20), || {
        (info(&mut client, "mem_total_replication_buffers") < 200_000).then_some(())
    });
    assert_eq!(info(&mut client, "mem_clients_slaves"), 0);
    signal(&replica, "-CONT");
}

fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    let status = std::process::Command::new("kill")
        .args([name, &pid])
        .status();
    assert!(status.expect("kill").success());
}

#[test]
fn a_replica_sees_what_was_evicted_and_which_fields_went() {
    for replica_is_redis in [false, true] {
        let primary = Server::ours(&["--threads", "2"]);
        let replica = if replica_is_redis {
            Server::redis(&[])
        } else {
            Server::ours(&["--threads", "2"])
        };
        let mut client = primary.client();
        let mut reader = replica.client();
        reader.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_for("the link", Duration::from_secs(20), || {
            let is_so = reader
                .ask("INFO replication")
                .text()
                .contains("master_link_status:up");
            is_so.then_some(())
        });
        if !replica_is_redis {
            client.ask("HSET h a 1 b 2");
            client.ask("HPEXPIRE h 40 FIELDS 1 a");
            client.ask("HSET gone a 1 b 2");
            client.ask("HPEXPIRE gone 40 FIELDS 2 a b");
            wait_for("the fields' end", Duration::from_secs(10), || {
                let is_so = client.ask("EXISTS gone").number() == Some(0);
                is_so.then_some(())
            });
            wait_for(
                "the fields' end on the replica",
                Duration::from_secs(10),
                || {
                    let is_so = reader.ask("EXISTS gone h").number() == Some(1)
                        && reader.ask("HLEN h").number() == Some(1);
                    is_so.then_some(())
                },
            );
        }
        let limit = info(&mut client, "used_memory") + 2_000_000;
        client.ask("CONFIG SET maxmemory-policy allkeys-lru");
        client.ask(&format!("CONFIG SET maxmemory {limit}"));
        for n in 0..6_000 {
            client.ask(&format!("SET k:{n} {}", "y".repeat(1000)));
        }
        client.ask("CONFIG SET maxmemory 0");
        assert!(info(&mut client, "evicted_keys") > 1000);
        wait_for("the same data", Duration::from_secs(20), || {
            let is_so = primary.digest() == replica.digest();
            is_so.then_some(())
        });
    }
}

/// Memory used to be what the allocator says, in which caches of threads count: within a hundred kilobytes of the limit writes were
/// refused though there was room, or not though there was none.
#[test]
fn memory_is_counted_to_the_byte() {
    for threads in ["1", "2"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        // Threads come and go, and some free what others have allocated.
        for n in 0..2_000 {
            client.ask(&format!("SET k:{n} {}", "x".repeat(1 + n % 700)));
        }
        client.ask("SAVE");
        client.ask("DEBUG RELOAD");
        client.ask("FLUSHALL");
        client.ask("SETRANGE big 300000 x");
        client.ask("DEL big");
        for room in [100_000u64, 400_000] {
            client.ask("CONFIG SET maxmemory 0");
            client.ask("FLUSHALL");
            wait_for("what was freed", Duration::from_secs(10), || {
                (info(&mut client, "lazyfree_pending_objects") == 0).then_some(())
            });
            let limit = info(&mut client, "used_memory") + room;
            client.ask(&format!("CONFIG SET maxmemory {limit}"));
            let mut written = 0;
            while said(&mut client, &format!("SET n:{written} {}", "y".repeat(900))) == "OK" {
                written += 1;
            }
            // The value lies in an allocation of 1024; its key and its place in the table take the rest.
            let bytes = written * 1_070;
            let range = room.saturating_sub(60_000)..room + 60_000;
            assert!(
                range.contains(&bytes),
                "room for {room}, {bytes} written, {threads} threads"
            );
        }
        client.ask("CONFIG SET maxmemory 0");
        let (ours, allocator) = (
            info(&mut client, "used_memory"),
            info(&mut client, "allocator_allocated"),
        );
        // What the allocator counts more is in caches of threads.
        assert!(
            ours <= allocator + 50_000 && allocator < ours + 4_000_000,
            "{ours} {allocator}"
        );
    }
}

/// A client whose unfinished request has so many bytes, with a name.
fn heavy(server: &Server, name: &str, bytes: usize) -> Client {
    let mut client = server.client();
    client.ask(&format!("CLIENT SETNAME {name}"));
    if name == "guarded" {
        client.ask("CLIENT NO-EVICT ON");
    }
    client
        .send_raw(format!("*2\r\n${bytes}\r\n").as_bytes())
        .expect("sent");
    client.send_raw(&vec![b'v'; bytes]).expect("sent");
    client
}

fn is_there(client: &mut Client, name: &str) -> bool {
    client
        .ask("CLIENT LIST")
        .text()
        .contains(&format!(" name={name} "))
}

#[test]
fn the_largest_clients_go_when_all_take_too_much() {
    for threads in ["1", "2"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        client.ask("CLIENT NO-EVICT ON");
        let mut heavies = Vec::new();
        for (name, bytes) in [
            ("small", 100_000),
            ("middle", 1_000_000),
            ("large", 4_000_000),
        ] {
            heavies.push(heavy(&server, name, bytes));
            wait_for(name, Duration::from_secs(10), || {
                let list = client.ask("CLIENT LIST").text();
                let line = list
                    .lines()
                    .find(|line| line.contains(&format!(" name={name} ")))?;
                let (_, qbuf) = line.split_once(" qbuf=")?;
                let qbuf: usize = qbuf.split(' ').next()?.parse().ok()?;
                (qbuf >= bytes).then_some(())
            });
        }
        client.ask("CONFIG SET maxmemory-clients 4mb");
        assert!(!is_there(&mut client, "large"));
        assert!(is_there(&mut client, "middle") && is_there(&mut client, "small"));
        // Of maxmemory, which is not reached.
        client.call(&[
            "CONFIG",
            "SET",
            "maxmemory",
            "100mb",
            "maxmemory-clients",
            "1%",
        ]);
        assert!(!is_there(&mut client, "middle") && is_there(&mut client, "small"));
        assert_eq!(info(&mut client, "evicted_clients"), 2);
        client.ask("CONFIG SET maxmemory 0");
        // Others grow while the limit stands, each in its way.
        client.ask("CONFIG SET maxmemory-clients 500000");
        type Grow = fn(usize) -> Vec<String>;
        let ways: [(&str, Grow); 5] = [
            ("watches", |n| {
                vec!["WATCH".into(), format!("key:{n}:{}", "k".repeat(200))]
            }),
            ("subscribes", |n| {
                vec![
                    "SUBSCRIBE".into(),
                    format!("channel:{n}:{}", "c".repeat(200)),
                ]
            }),
            ("tracks", |n| {
                let prefix = format!("{n:06}:{}", "p".repeat(200));
                ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", &prefix]
                    .map(str::to_owned)
                    .into()
            }),
            ("queues", |n| {
                vec![if n == 0 { "MULTI" } else { "PING" }.into(); 1 + n.min(1)]
            }),
            ("sends", |_| vec!["ECHO".into(), "x".repeat(600_000)]),
        ];
        for (name, words) in ways {
            let mut grower = server.client();
            grower.ask(&format!("CLIENT SETNAME {name}"));
            let mut n = 0;
            while grower.try_call(&words(n)).is_ok() {
                n += 1;
                assert!(n < 100_000, "{name} goes on");
            }
            assert!(!is_there(&mut client, name), "{name}");
        }
        assert!(is_there(&mut client, "small"));
        // One that does not read what it is sent.
        let mut deaf = server.client();
        deaf.ask("CLIENT SETNAME deaf");
        deaf.ask("SUBSCRIBE c");
        let message = "m".repeat(200_000);
        wait_for("its end", Duration::from_secs(30), || {
            client.call(&["PUBLISH", "c", &message]);
            (!is_there(&mut client, "deaf")).then_some(())
        });
        assert_eq!(info(&mut client, "evicted_clients"), 8);
        // One with NO-EVICT stays, and counts: the others go.
        let _guarded = heavy(&server, "guarded", 6_000_000);
        wait_for("the end of the others", Duration::from_secs(10), || {
            (!is_there(&mut client, "small")).then_some(())
        });
        assert!(is_there(&mut client, "guarded"));
    }
}

/// A lower limit used to count only when the next key was read, and for one key then.
#[test]
fn fewer_tracked_keys_are_kept_when_the_limit_is_lowered() {
    let server = Server::ours(&[]);
    let (mut client, mut control) = (server.client(), server.client());
    client.call(&["HELLO", "3"]);
    client.ask("CLIENT TRACKING ON");
    client.ask("MGET a b c d");
    let tracked = |control: &mut Client| info(control, "tracking_total_keys");
    assert_eq!(tracked(&mut control), 4);
    control.ask("CONFIG SET tracking-table-max-keys 1");
    assert_eq!(tracked(&mut control), 1);
}

/// Each evicted key makes messages for those who keep a copy of it, which take more memory than the key gave back until they are written. They used
/// to make more keys go in turn, down to the last one.
#[test]
fn messages_about_evicted_keys_do_not_empty_the_dataset() {
    let server = Server::ours(&["--threads", "1", "--latency-tracking", "no"]);
    let mut client = server.client();
    client.ask("CONFIG SET maxmemory-policy allkeys-lru maxmemory-eviction-tenacity 100");
    let mut copies: Vec<_> = (0..10).map(|_| server.client()).collect();
    for copy in &mut copies {
        copy.ask("HELLO 3");
        copy.ask("CLIENT TRACKING on");
    }
    let keys: Vec<String> = (0..300)
        .map(|n| format!("{n}{}", "x".repeat(1000)))
        .collect();
    for key in &keys {
        client.call(&["SET", key, "x"]);
        for copy in &mut copies {
            copy.call(&["GET", key]);
        }
    }
    let used = info(&mut client, "used_memory");
    let limit = (used - 40_000).to_string();
    client.call(&["CONFIG", "SET", "maxmemory", &limit]);
    // At once, not with the next command.
    let evicted = info(&mut client, "evicted_keys");
    assert!((10..100).contains(&evicted), "{evicted} evicted");
    let left = client.ask("DBSIZE").number().expect("a number");
    assert!(left > 200, "{left} keys left");
}
