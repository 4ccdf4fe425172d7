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

/// A reply as a text, whatever it is.
fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => text.clone(),
        reply => reply
            .number()
            .map_or_else(|| reply.text(), |number| number.to_string()),
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

/// INFO, CONFIG, CLIENT and DEBUG used to run behind the writes of their transaction.
#[test]
fn commands_about_the_server_run_in_their_place_in_a_transaction() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        let id = client.ask("CLIENT ID").number();
        let words = |line: &str| line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
        let lines = [
            "MSET a 1 b 2 c 3 d 4",
            "INFO keyspace",
            "DEBUG DIGEST",
            "DEL b c d",
            "INFO keyspace",
            "CLIENT ID",
            "CLIENT SETNAME me",
            "CONFIG SET maxmemory-samples 7",
            "CONFIG GET maxmemory-samples",
            "DEBUG SLEEP 0.01",
            "CONFIG SET maxmemory-samples x",
            "FLUSHALL",
            "INFO keyspace",
            "DEBUG DIGEST",
            "CLIENT NOSUCH",
        ];
        let commands: Vec<Vec<Vec<u8>>> =
            lines[..lines.len() - 1].iter().map(|l| words(l)).collect();
        let replies = client.transaction(&commands).expect("a reply");
        let replies = replies.items();
        assert!(
            replies[1].text().contains("db0:keys=4,"),
            "{}",
            replies[1].text()
        );
        assert_ne!(replies[2].text(), "0".repeat(40));
        assert!(
            replies[4].text().contains("db0:keys=1,"),
            "{}",
            replies[4].text()
        );
        assert_eq!(replies[5].number(), id);
        assert_eq!(replies[8].items()[1].text(), "7");
        assert!(replies[10].is_error());
        assert_eq!(replies[12].text(), "# Keyspace\r\n");
        assert_eq!(replies[13].text(), "0".repeat(40));
        assert_eq!(client.ask("CLIENT GETNAME").text(), "me");
        assert_eq!(
            client.ask("CONFIG GET maxmemory-samples").items()[1].text(),
            "7"
        );
        // One that ends itself gets its replies first.
        let kill = format!("CLIENT KILL ID {} SKIPME no", id.expect("a number"));
        let replies = client
            .transaction(&[words(&kill), words("PING")])
            .expect("a reply");
        assert_eq!(replies.items()[0].number(), Some(1));
        assert!(client.try_call(&["PING"]).is_err());
    }
}

/// Who asked behind REPLICAOF was told of the role before it, and CLIENT KILL, which Sentinel sends in the same transaction, came too early.
#[test]
fn what_stands_behind_replicaof_in_a_transaction_meets_the_new_role() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        let commands: Vec<Vec<Vec<u8>>> = [
            "INFO replication",
            "REPLICAOF 127.0.0.1 1",
            "INFO replication",
            "ROLE",
            "CLIENT LIST TYPE replica",
            "PING",
        ]
        .iter()
        .map(|line| line.split(' ').map(|w| w.as_bytes().to_vec()).collect())
        .collect();
        let replies = client.transaction(&commands).expect("a reply");
        let replies = replies.items();
        assert!(replies[0].text().contains("role:master"));
        assert_eq!(replies[1].text(), "OK");
        let info = replies[2].text();
        assert!(info.contains("role:slave"), "{info}");
        assert!(info.contains("master_link_status:down"), "{info}");
        assert_eq!(replies[3].items()[0].text(), "slave");
        assert_eq!(replies[5].text(), "PONG");
    }
}

/// GETEX said that the expiry is none of a key that is not there, or holds something else.
#[test]
fn getex_looks_at_its_key_before_the_expiry() {
    let server = Server::ours(&[]);
    let mut client = server.client();
    client.ask("RPUSH list x");
    client.ask("SET string x");
    for expiry in ["PXAT -1", "EX x", "EXAT 99999999999999999999"] {
        assert_eq!(client.ask(&format!("GETEX none {expiry}")), Reply::Nil);
        let wrong = said(&mut client, &format!("GETEX list {expiry}"));
        assert!(wrong.starts_with("WRONGTYPE"), "{wrong}");
        let wrong = said(&mut client, &format!("GETEX string {expiry}"));
        assert!(wrong.starts_with("ERR "), "{wrong}");
    }
    assert_eq!(client.ask("TTL string").number(), Some(-1));
}

/// It used to send what the whole transaction had left, and to remove that.
#[test]
fn migrate_in_a_transaction_sends_what_was_there_in_its_place() {
    for threads in ["1", "3"] {
        let (ours, other) = (Server::ours(&["--threads", threads]), Server::ours(&[]));
        let (mut here, mut there) = (ours.client(), other.client());
        let migrate = format!("MIGRATE 127.0.0.1 {} k 0 1000", other.port);
        here.ask("MULTI");
        for line in [
            "SET k 1", "SET l 1", &migrate, "EXISTS k", "SET k 2", "INCR l",
        ] {
            assert_eq!(said(&mut here, line), "QUEUED");
        }
        let replies = here.ask("EXEC");
        let texts: Vec<String> = replies.items().iter().map(shown).collect();
        assert_eq!(texts, ["OK", "OK", "OK", "0", "OK", "2"]);
        assert_eq!(there.ask("GET k").text(), "1");
        assert_eq!(here.ask("GET k").text(), "2");
    }
}

#[test]
fn scripts_see_info_and_with_debug_also_what_is_not_for_them() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        client.ask("MSET a 1 b 2 c 3");
        let script = "redis.call('set', KEYS[1], 1) return redis.call('info', 'keyspace')";
        let text = client.call(&["EVAL", script, "1", "d"]).text();
        assert!(text.contains("db0:keys=4,"), "{text}");
        let listing = ["EVAL", "return redis.call('client', 'list')", "0"];
        let denied = client.call(&listing);
        assert!(
            shown(&denied).contains("not allowed from script"),
            "{denied:?}"
        );
        client.ask("DEBUG SET-DISABLE-DENY-SCRIPTS 1");
        assert!(client.call(&listing).text().starts_with("id="));
        let big = "return redis.call('debug', 'protocol', 'bignum')";
        let number = shown(&client.call(&["EVAL", big, "0"]));
        assert_eq!(number, "1234567999999999999999999999999999999");
        client.ask("DEBUG SET-DISABLE-DENY-SCRIPTS 0");
        assert!(client.call(&listing).is_error());
    }
}

#[test]
fn a_shutdown_can_be_given_up() {
    let server = Server::ours(&[]);
    let mut client = server.client();
    let none = "ERR No shutdown in progress.";
    assert_eq!(said(&mut client, "SHUTDOWN ABORT"), none);
    // Signals count when the server looks after itself.
    client.ask("DEBUG PAUSE-CRON 1");
    for _ in 0..2 {
        let pid = rustix::process::Pid::from_raw(server.pid() as i32).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        wait_for("the signal", Duration::from_secs(10), || {
            (said(&mut client, "SHUTDOWN ABORT") == "OK").then_some(())
        });
    }
    client.ask("DEBUG PAUSE-CRON 0");
    assert_eq!(said(&mut client, "SHUTDOWN ABORT"), none);
    assert_eq!(said(&mut client, "SET k v"), "OK");
}

/// With a replica that does not acknowledge: SHUTDOWN waits, and goes on as before when it is given up.
#[test]
fn a_shutdown_that_waits_for_a_replica_can_be_given_up() {
    let (server, replica) = (Server::ours(&[]), Server::ours(&[]));
    let mut client = server.client();
    replica
        .client()
        .ask(&format!("REPLICAOF 127.0.0.1 {}", server.port));
    wait_for("the replica", Duration::from_secs(20), || {
        client.info("slave0").filter(|line| line.contains("online"))
    });
    let stopped = rustix::process::Pid::from_raw(replica.pid() as i32).expect("a process");
    rustix::process::kill_process(stopped, rustix::process::Signal::STOP).expect("it runs");
    client.ask("SET k v");
    let mut ending = server.client();
    ending.send(&["SHUTDOWN"]).expect("sent");
    wait_for("the wait", Duration::from_secs(10), || {
        client.info("shutdown_in_milliseconds")
    });
    assert_eq!(client.info("blocked_clients").as_deref(), Some("1"));
    assert_eq!(said(&mut client, "SHUTDOWN ABORT"), "OK");
    let refused = ending.reply().expect("a reply");
    assert_eq!(
        shown(&refused),
        "ERR Errors trying to SHUTDOWN. Check logs."
    );
    assert_eq!(said(&mut client, "SET k w"), "OK");
    rustix::process::kill_process(stopped, rustix::process::Signal::CONT).expect("it runs");
}

#[test]
fn the_kernel_is_told_whom_to_end_first() {
    let server = Server::ours(&[]);
    let mut client = server.client();
    let path = format!("/proc/{}/oom_score_adj", server.pid());
    let read = || -> i64 {
        let text = std::fs::read_to_string(&path).expect("the process is there");
        text.trim().parse().expect("a number")
    };
    let base = read();
    client.call(&[
        "CONFIG",
        "SET",
        "oom-score-adj-values",
        "3 4 5",
        "oom-score-adj",
        "yes",
    ]);
    assert_eq!(read(), base + 3);
    client.ask("REPLICAOF 127.0.0.1 1");
    assert_eq!(read(), base + 4);
    client.ask("REPLICAOF NO ONE");
    assert_eq!(read(), base + 3);
    client.ask("CONFIG SET oom-score-adj no");
    assert_eq!(read(), base);
}

/// CLIENT PAUSE on a replica holds back what its primary sends as well, until it ends or the replica is promoted.
#[test]
fn a_paused_replica_reads_on_and_applies_later() {
    let (primary, replica) = (Server::ours(&[]), Server::ours(&[]));
    let (mut writer, mut reader) = (primary.client(), replica.client());
    reader.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    writer.ask("SET a 1");
    wait_for("the link", Duration::from_secs(20), || {
        reader
            .info("master_link_status")
            .filter(|status| status == "up")
    });
    wait_for("the first write", Duration::from_secs(20), || {
        (shown(&reader.ask("EXISTS a")) == "1").then_some(())
    });
    let paused = |reader: &mut Client, writer: &mut Client, key: &str| {
        reader.ask("CLIENT PAUSE 100000 WRITE");
        let before = reader.info("slave_repl_offset");
        writer.ask(&format!("SET {key} 1"));
        wait_for("the bytes", Duration::from_secs(20), || {
            let offset = writer.info("master_repl_offset");
            (reader.info("slave_read_repl_offset") == offset).then_some(())
        });
        assert_eq!(shown(&reader.ask(&format!("EXISTS {key}"))), "0");
        assert_eq!(reader.info("slave_repl_offset"), before);
    };
    paused(&mut reader, &mut writer, "b");
    reader.ask("CLIENT UNPAUSE");
    wait_for("the write", Duration::from_secs(20), || {
        (shown(&reader.ask("EXISTS b")) == "1").then_some(())
    });
    paused(&mut reader, &mut writer, "c");
    reader.ask("REPLICAOF NO ONE");
    wait_for("what was read before", Duration::from_secs(20), || {
        (shown(&reader.ask("EXISTS a b c")) == "3").then_some(())
    });
}
