//! The backlog in memory and on disk: a replica that was away for long goes on with what it lacks; files are bounded and leave nothing
//! behind; a disk that fails is done without.

use std::process::Command;
use std::time::Duration;

use dfsnap_tests::client::Client;
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

fn primary(args: &[&str]) -> Server {
    let own = [
        "--threads",
        "2",
        "--repl-ping-replica-period",
        "3600",
        "--repl-backlog-size",
        "64kb",
    ];
    Server::ours(&[&own, args].concat())
}

/// Writes so many keys of ten kilobytes.
fn write(client: &mut Client, from: usize, count: usize) {
    let value = "v".repeat(10_000);
    for i in from..from + count {
        client.call(&["SET", &format!("k{i}"), &value]);
    }
}

fn returns(server: &Server, replid: &str, offset: u64) -> RawReplica {
    let mut replica = RawReplica::connect(server.port).expect("a connection");
    replica
        .say(&["REPLCONF", "capa", "eof", "capa", "psync2"])
        .expect("sent");
    assert_eq!(replica.line().expect("a line"), "+OK");
    let wanted = (offset + 1).to_string();
    replica.sync(&["PSYNC", replid, &wanted]).expect("a sync");
    replica
}

fn is_alone(client: &mut Client) {
    wait_for("nobody is connected", LIMIT, || {
        (client.info("connected_slaves")? == "0").then_some(())
    });
}

fn number(client: &mut Client, name: &str) -> u64 {
    let text = client.info(name);
    let number = text.as_deref().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{name}: {text:?}"))
}

#[test]
fn who_was_away_for_long_goes_on_from_the_disk() {
    let server = primary(&["--repl-backlog-disk-limit", "100mb"]);
    let mut client = server.client();
    let mut replica = RawReplica::full(server.port).expect("a full sync");
    write(&mut client, 0, 10);
    assert_eq!(replica.command().expect("SELECT")[0], b"SELECT");
    for _ in 0..10 {
        replica.command().expect("SET");
    }
    let (replid, offset) = (replica.replid().to_owned(), replica.offset);
    drop(replica);
    is_alone(&mut client);
    write(&mut client, 10, 2_000);
    assert!(number(&mut client, "repl_backlog_disk_bytes") > 10_000_000);
    assert!(number(&mut client, "mem_replication_backlog") < 1_000_000);
    assert_eq!(number(&mut client, "repl_backlog_first_byte_offset"), 1);
    let mut replica = returns(&server, &replid, offset);
    assert!(
        replica.answer.starts_with("+CONTINUE"),
        "{}",
        replica.answer
    );
    // Writes go on while it reads from the disk.
    write(&mut client, 2_010, 500);
    for i in 10..2_510 {
        let words = replica.command().expect("a command");
        assert_eq!(words[1], format!("k{i}").into_bytes());
        assert_eq!(words[2].len(), 10_000);
    }
    assert_eq!(replica.offset, number(&mut client, "master_repl_offset"));
    let temporary = std::fs::read_dir(server.folder())
        .expect("its folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("temp-"))
        .count();
    assert_eq!(temporary, 0, "no file has a name");
}

/// A real replica, and one of ours, that stand still while much is written: both go on with a partial resync.
#[test]
fn an_outage_of_a_replica_is_a_partial_resync() {
    if !has_program("redis-server") {
        return;
    }
    for kind in [Kind::Redis, Kind::Ours] {
        let server = primary(&["--repl-backlog-disk-limit", "1gb", "--repl-timeout", "2"]);
        let address = format!("127.0.0.1 {}", server.port);
        let replica = Server::spawn(kind, &["--replicaof", &address]);
        replica.wait_until_ready();
        let mut client = server.client();
        wait_for("it is online", LIMIT, || {
            client.info("slave0")?.contains("online").then_some(())
        });
        let signal = |name: &str| {
            let sent = Command::new("kill")
                .args([name, &replica.pid().to_string()])
                .status();
            assert!(sent.is_ok_and(|status| status.success()));
        };
        signal("-STOP");
        write(&mut client, 0, 3_000);
        is_alone(&mut client);
        write(&mut client, 1_000, 1_000);
        signal("-CONT");
        wait_for("it is equal", LIMIT, || {
            let offset = replica.client().info("slave_repl_offset")?;
            let is_there = offset == client.info("master_repl_offset")?;
            (is_there && server.digest() == replica.digest()).then_some(())
        });
        assert_eq!(number(&mut client, "sync_full"), 1, "{kind:?}");
        assert_eq!(number(&mut client, "sync_partial_ok"), 1, "{kind:?}");
    }
}

/// A replica that is connected and slow takes no memory either.
#[test]
fn what_a_slow_replica_lacks_is_on_disk() {
    let server = primary(&[
        "--repl-backlog-disk-limit",
        "200mb",
        "--client-output-buffer-limit",
        "replica 1mb 0 0",
    ]);
    let mut client = server.client();
    let mut slow = RawReplica::full(server.port).expect("a full sync");
    write(&mut client, 0, 3_000);
    assert!(number(&mut client, "mem_replication_backlog") < 1_000_000);
    assert_eq!(
        number(&mut client, "connected_slaves"),
        1,
        "{}",
        server.log()
    );
    assert_eq!(slow.command().expect("SELECT")[0], b"SELECT");
    for i in 0..3_000 {
        let words = slow.command().expect("a command");
        assert_eq!(words[1], format!("k{i}").into_bytes());
    }
}

#[test]
fn files_stay_below_their_limit() {
    let server = primary(&["--repl-backlog-disk-limit", "4mb"]);
    let mut client = server.client();
    let replica = RawReplica::full(server.port).expect("a full sync");
    let (replid, offset) = (replica.replid().to_owned(), replica.offset);
    drop(replica);
    is_alone(&mut client);
    write(&mut client, 0, 2_000);
    wait_for("it is written", LIMIT, || {
        let bytes = number(&mut client, "repl_backlog_disk_bytes");
        assert!(bytes <= 5 << 20, "{bytes}");
        (bytes > 2 << 20).then_some(())
    });
    let replica = returns(&server, &replid, offset);
    assert!(
        replica.answer.starts_with("+FULLRESYNC"),
        "{}",
        replica.answer
    );
    let end = number(&mut client, "master_repl_offset");
    let replica = returns(&server, &replid, end - (2 << 20));
    assert!(
        replica.answer.starts_with("+CONTINUE"),
        "{}",
        replica.answer
    );
}

/// The folder is gone, as good as a full disk: memory must do, and INFO says why.
#[test]
fn a_disk_that_fails_is_done_without() {
    let server = primary(&["--repl-backlog-disk-limit", "100mb"]);
    let mut client = server.client();
    let replica = RawReplica::full(server.port).expect("a full sync");
    let replid = replica.replid().to_owned();
    drop(replica);
    is_alone(&mut client);
    std::fs::remove_dir_all(server.folder()).expect("removed");
    write(&mut client, 0, 100);
    wait_for("the failure is told", LIMIT, || {
        let error = client.info("repl_backlog_disk_error")?;
        write(&mut client, 0, 10);
        error.contains("cannot write").then_some(())
    });
    assert_eq!(number(&mut client, "repl_backlog_disk_bytes"), 0);
    let end = number(&mut client, "master_repl_offset");
    let replica = returns(&server, &replid, end - 20_000);
    assert!(
        replica.answer.starts_with("+CONTINUE"),
        "{}",
        replica.answer
    );
}

/// Without replicas for `repl-backlog-ttl` the log ends, and a later one has another name.
#[test]
fn a_backlog_that_nobody_asks_for_goes() {
    let server = primary(&["--repl-backlog-ttl", "1"]);
    let mut client = server.client();
    let replica = RawReplica::full(server.port).expect("a full sync");
    client.ask("SET k v");
    let replid = client.info("master_replid");
    drop(replica);
    wait_for("it is freed", LIMIT, || {
        (client.info("repl_backlog_active")? == "0").then_some(())
    });
    assert_ne!(client.info("master_replid"), replid);
    let offset = number(&mut client, "master_repl_offset");
    assert_eq!(offset, 50);
    client.ask("SET k w");
    assert_eq!(number(&mut client, "master_repl_offset"), offset);
    let mut replica = returns(&server, &replid.expect("an id"), offset);
    assert!(replica.answer.starts_with("+FULLRESYNC"));
    client.ask("SET k x");
    assert_eq!(replica.command().expect("SELECT")[0], b"SELECT");
    assert_eq!(replica.command().expect("SET")[2], b"x");
}
