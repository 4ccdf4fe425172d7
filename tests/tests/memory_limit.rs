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
