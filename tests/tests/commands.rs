//! Commands over several servers or connections, each a story that once went wrong or could: MIGRATE, WATCH, MULTI beside a script, keys of a
//! writable replica.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::{SetOnDrop, wait_for};

fn said(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match client.call(&words) {
        Reply::Error(text) => text,
        other => other.text(),
    }
}

#[test]
fn keys_of_every_type_migrate_to_a_real_server() {
    if !has_program("redis-server") {
        return;
    }
    let (ours, redis) = (Server::ours(&["--threads", "2"]), Server::redis(&[]));
    let (mut here, mut there) = (ours.client(), redis.client());
    for line in [
        "SET s text",
        "RPUSH l a b",
        "HSET h f v",
        "SADD e 1 2 3",
        "ZADD z 1.5 m",
        "XADD x 1-1 f v",
        "EXPIRE s 1000",
    ] {
        here.ask(line);
    }
    let target = format!("MIGRATE 127.0.0.1 {}", redis.port);
    assert_eq!(said(&mut here, &format!("{target} none 0 1000")), "NOKEY");
    assert_eq!(said(&mut here, &format!("{target} l 0 1000 COPY")), "OK");
    assert_eq!(here.ask("LLEN l").number(), Some(2));
    assert_eq!(
        said(&mut here, &format!("{target} l 0 1000")),
        "ERR Target instance replied with error: BUSYKEY Target key name already exists."
    );
    let words = [
        "MIGRATE",
        "127.0.0.1",
        &redis.port.to_string(),
        "",
        "0",
        "1000",
        "REPLACE",
        "KEYS",
        "s",
        "l",
        "h",
        "e",
        "z",
        "x",
        "none",
    ];
    assert_eq!(here.call(&words).text(), "OK");
    assert_eq!(here.ask("DBSIZE").number(), Some(0));
    assert_eq!(there.ask("DBSIZE").number(), Some(6));
    assert_eq!(there.ask("LRANGE l 0 -1").items().len(), 2);
    assert_eq!(there.ask("XLEN x").number(), Some(1));
    let ttl = there.ask("TTL s").number().unwrap_or_default();
    assert!((990..=1000).contains(&ttl), "{ttl}");
}

/// A value that changes while it travels would be lost if the key were removed then.
#[test]
fn no_write_is_lost_while_its_key_migrates() {
    let (from, to) = (Server::ours(&["--threads", "2"]), Server::ours(&[]));
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = from.client();
            let mut written = 0;
            while !is_over.load(Ordering::Relaxed) {
                client.ask("RPUSH list one");
                written += 1;
            }
            written
        });
        let guard = SetOnDrop(&is_over);
        let (mut client, mut target) = (from.client(), to.client());
        for n in 0..40 {
            let line = format!("MIGRATE 127.0.0.1 {} list 0 5000", to.port);
            let reply = said(&mut client, &line);
            assert!(["OK", "NOKEY"].contains(&reply.as_str()), "{reply}");
            target.call(&["RENAMENX", "list", &format!("part:{n}")]);
        }
        drop(guard);
        writer.join().expect("the writer")
    });
    let mut sum = from.client().ask("LLEN list").number().unwrap_or_default();
    let mut target = to.client();
    for key in target.ask("KEYS *").items() {
        sum += target
            .call(&["LLEN", &key.text()])
            .number()
            .unwrap_or_default();
    }
    assert_eq!(sum, written);
}

/// It used to be that once a watched key had changed, a command over several shards got no reply.
#[test]
fn a_watched_key_that_changed_says_nothing_about_commands_outside_a_transaction() {
    let server = Server::ours(&["--threads", "4"]);
    let (mut client, mut other) = (server.client(), server.client());
    for n in 0..20 {
        other.ask(&format!("SET k:{n} {n}"));
        client.ask(&format!("WATCH k:{n}"));
        other.ask(&format!("INCR k:{n}"));
        client.ask(&format!("RENAME k:{n} moved:{n}"));
        assert_eq!(client.ask("DBSIZE").number(), Some(n + 1));
        client.ask(&format!("COPY moved:{n} copy REPLACE"));
        client.ask("DEL copy");
        client.ask("MULTI");
        client.ask("PING");
        assert_eq!(client.ask("EXEC"), Reply::Nil);
    }
}

/// A script that does not end held the only thread, and a client that sent MULTI first could not go on to SCRIPT KILL.
#[test]
fn multi_is_answered_beside_a_script_that_does_not_end() {
    let server = Server::ours(&["--threads", "1", "--busy-reply-threshold", "10"]);
    let [mut script, mut client, mut queued] = std::array::from_fn(|_| server.client());
    client.ask("SET n 1");
    queued.ask("MULTI");
    queued.ask("INCR n");
    script
        .send(&["EVAL", "while true do end", "0"])
        .expect("a socket");
    wait_for("BUSY", Duration::from_secs(10), || {
        said(&mut client, "GET n").starts_with("BUSY").then_some(())
    });
    assert_eq!(said(&mut client, "MULTI"), "OK");
    assert!(said(&mut client, "INCR n").starts_with("BUSY"));
    assert!(
        said(&mut queued, "EXEC").starts_with("EXECABORT Transaction discarded because of: BUSY")
    );
    assert_eq!(said(&mut queued, "SCRIPT KILL"), "OK");
    script.reply().expect("the script's end");
    assert_eq!(client.ask("INCR n").text(), "QUEUED");
    assert!(said(&mut client, "EXEC").starts_with("EXECABORT"));
    assert_eq!(client.ask("GET n").text(), "1");
    assert_eq!(queued.ask("GET n").text(), "1", "its transaction is gone");
}

#[test]
fn a_writable_replica_removes_what_its_own_clients_made_expire() {
    let primary = Server::ours(&[]);
    let port = primary.port.to_string();
    let replica = Server::ours(&[
        "--replicaof",
        "127.0.0.1",
        &port,
        "--replica-read-only",
        "no",
    ]);
    let mut client = replica.client();
    wait_for("the link", Duration::from_secs(20), || {
        (client.info("master_link_status")? == "up").then_some(())
    });
    client.ask("SET mine 1 PX 50");
    client.ask("SET kept 1");
    client.ask("PEXPIRE kept 50");
    client.ask("PERSIST kept");
    wait_for("the key's removal", Duration::from_secs(20), || {
        (client.ask("DBSIZE").number()? == 1).then_some(())
    });
    assert_eq!(client.ask("GET kept").text(), "1");
    let link = client.ask("CLIENT LIST TYPE master").text();
    assert!(link.contains("flags=M"), "{link}");
}
