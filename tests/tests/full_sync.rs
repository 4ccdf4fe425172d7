//! Full syncs as their takers see them: shared by those that come together, filtered, in both forms, and at each one's pace.

use std::process::Command;
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(60);
const LIBRARY: &str = "#!lua name=mine\nredis.register_function('f', function() return 1 end)";

/// Our server with so many keys of a kilobyte.
fn filled(keys: usize, args: &[&str]) -> Server {
    let own = ["--threads", "2", "--repl-ping-replica-period", "3600"];
    let server = Server::ours(&[&own, args].concat());
    let mut client = server.client();
    let count = keys.to_string();
    client.call(&["DEBUG", "POPULATE", &count, "key", "1000"]);
    client.call(&["FUNCTION", "LOAD", LIBRARY]);
    server
}

fn syncs_begun(server: &Server) -> usize {
    server.log().matches("Starting BGSAVE for SYNC").count()
}

/// So many replicas at once; what each got.
fn together(server: &Server, count: usize) -> Vec<RawReplica> {
    let port = server.port;
    let asking: Vec<_> = (0..count)
        .map(|_| std::thread::spawn(move || RawReplica::full(port).expect("a full sync")))
        .collect();
    asking
        .into_iter()
        .map(|replica| replica.join().expect("a replica"))
        .collect()
}

/// All got the same bytes, and go on from the same place.
fn are_one(server: &Server, mut replicas: Vec<RawReplica>) {
    let answer = replicas[0].answer.clone();
    let payload = replicas[0].payload.clone();
    assert!(payload.starts_with(b"REDIS") && payload.len() > 1000);
    for replica in &replicas {
        assert_eq!(replica.answer, answer);
        assert!(replica.payload == payload, "the same payload");
    }
    server.client().ask("SET after 1");
    for replica in &mut replicas {
        assert_eq!(replica.command().expect("SELECT")[0], b"SELECT");
        assert_eq!(replica.command().expect("SET")[1], b"after");
    }
}

#[test]
fn replicas_that_come_within_the_delay_share_a_snapshot() {
    let server = filled(2_000, &["--repl-diskless-sync-delay", "1"]);
    let began = Instant::now();
    let replicas = together(&server, 4);
    assert!(began.elapsed() >= Duration::from_secs(1), "it was waited");
    assert_eq!(syncs_begun(&server), 1, "{}", server.log());
    are_one(&server, replicas);
    let mut client = server.client();
    assert_eq!(client.info("sync_full").as_deref(), Some("4"));
}

#[test]
fn enough_replicas_end_the_delay() {
    let server = filled(
        2_000,
        &[
            "--repl-diskless-sync-delay",
            "600",
            "--repl-diskless-sync-max-replicas",
            "3",
        ],
    );
    let replicas = together(&server, 3);
    assert_eq!(syncs_begun(&server), 1);
    are_one(&server, replicas);
}

/// Who goes while it waits is not waited for, and who waits is told so by empty lines.
#[test]
fn those_who_wait_are_kept_and_those_who_go_are_forgotten() {
    let server = filled(10, &["--repl-diskless-sync-delay", "600"]);
    let mut client = server.client();
    let ask = || {
        let mut replica = RawReplica::connect(server.port).expect("a connection");
        replica.say(&["REPLCONF", "capa", "eof"]).expect("sent");
        assert_eq!(replica.line().expect("a line"), "+OK");
        replica.say(&["PSYNC", "?", "-1"]).expect("sent");
        replica
    };
    let gone = ask();
    let mut waiting = ask();
    wait_for("both wait", LIMIT, || {
        let text = client.ask("INFO replication").text();
        (text.matches("state=wait_bgsave").count() == 2).then_some(())
    });
    drop(gone);
    wait_for("one is forgotten", LIMIT, || {
        (client.info("connected_slaves")? == "1").then_some(())
    });
    assert_eq!(waiting.line().expect("a sign of life"), "");
    client.ask("CONFIG SET repl-diskless-sync-delay 0");
    let line = wait_for("its sync", LIMIT, || {
        let line = waiting.line().expect("a line");
        (!line.is_empty()).then_some(line)
    });
    assert!(line.starts_with("+FULLRESYNC"), "{line}");
}

/// One that reads nothing holds up neither the snapshot nor the others; what it has not read is in no memory.
#[test]
fn a_replica_that_stands_still_holds_nobody_up() {
    let server = filled(40_000, &["--repl-diskless-sync-delay", "1"]);
    let before = resident(&server);
    let mut slow = RawReplica::connect(server.port).expect("a connection");
    slow.say(&["REPLCONF", "capa", "eof", "capa", "psync2"])
        .expect("sent");
    assert_eq!(slow.line().expect("a line"), "+OK");
    slow.say(&["PSYNC", "?", "-1"]).expect("sent");
    let fast = together(&server, 2);
    assert_eq!(syncs_begun(&server), 1);
    let grown = resident(&server).saturating_sub(before);
    assert!(
        grown < 30_000_000,
        "{grown} bytes more for 40 MB of payload"
    );
    let mut client = server.client();
    client.ask("SET while 1");
    let line = slow.full_line().expect("a line");
    assert_eq!(line, fast[0].answer);
    slow.read_payload().expect("the payload");
    assert!(slow.payload == fast[0].payload);
    slow.offset = fast[0].offset;
    assert_eq!(slow.command().expect("SELECT")[0], b"SELECT");
    assert_eq!(slow.command().expect("SET")[1], b"while");
}

fn resident(server: &Server) -> u64 {
    let path = format!("/proc/{}/statm", server.pid());
    let text = std::fs::read_to_string(path).expect("its memory");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096
}

/// `redis-cli --functions-rdb` and `--rdb`.
#[test]
fn redis_cli_gets_what_it_asks_for() {
    if !has_program("redis-cli") {
        return;
    }
    let server = filled(100, &[]);
    for (option, has_keys) in [("--functions-rdb", false), ("--rdb", true)] {
        let path = server.folder().join("taken.rdb");
        let status = Command::new("redis-cli")
            .args(["-p", &server.port.to_string(), option])
            .arg(&path)
            .output()
            .expect("redis-cli runs");
        assert!(status.status.success(), "{option}: {status:?}");
        let bytes = std::fs::read(&path).expect("a file");
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        assert!(has(b"register_function"), "{option}");
        assert_eq!(has(b"key:7"), has_keys, "{option}");
        if has_program("redis-check-rdb") {
            let check = Command::new("redis-check-rdb").arg(&path).output();
            assert!(check.is_ok_and(|check| check.status.success()), "{option}");
        }
        std::fs::remove_file(&path).expect("removed");
    }
    wait_for("nobody is left", LIMIT, || {
        (server.client().info("connected_slaves")? == "0").then_some(())
    });
}

/// An empty filter lets nothing through but the stream behind it.
#[test]
fn a_filtered_replica_gets_the_stream_too() {
    let server = filled(100, &[]);
    let mut replica = RawReplica::connect(server.port).expect("a connection");
    for words in [["capa", "eof"], ["rdb-filter-only", ""]] {
        replica
            .say(&["REPLCONF", words[0], words[1]])
            .expect("sent");
        assert_eq!(replica.line().expect("a line"), "+OK");
    }
    replica.sync(&["PSYNC", "?", "-1"]).expect("a full sync");
    let has = |needle: &[u8]| replica.payload.windows(needle.len()).any(|w| w == needle);
    assert!(!has(b"register_function") && !has(b"key:7"));
    server.client().ask("SET after 1");
    assert_eq!(replica.command().expect("SELECT")[0], b"SELECT");
    assert_eq!(replica.command().expect("SET")[1], b"after");
}

/// REPLCONF and the refusals of PSYNC, word by word beside a real server.
#[test]
fn replconf_is_understood_as_a_real_server_does() {
    if !has_program("redis-server") {
        return;
    }
    let long = "x".repeat(256);
    let sessions: &[&[&[&str]]] = &[
        &[&["REPLCONF"]],
        &[&["REPLCONF", "capa"]],
        &[&["REPLCONF", "listening-port", "x"]],
        &[&["REPLCONF", "listening-port", "6380"]],
        &[&["REPLCONF", "ip-address", &long]],
        &[&[
            "REPLCONF",
            "ip-address",
            "10.0.0.1",
            "capa",
            "unknown",
            "capa",
            "eof",
        ]],
        &[&["REPLCONF", "rdb-only", "2"]],
        &[&["REPLCONF", "rdb-only", "x"]],
        &[&["REPLCONF", "rdb-only", "1"]],
        &[&["REPLCONF", "rdb-filter-only", "foo"]],
        &[&["REPLCONF", "rdb-filter-only", "\"functions"]],
        &[&["REPLCONF", "rdb-filter-only", "functions"]],
        &[
            &["REPLCONF", "rdb-filter-only", "'functions' FUNCTIONS"],
            &["PSYNC", "?", "-1"],
        ],
        &[&["REPLCONF", "rdb-filter-only", ""], &["SYNC"]],
        &[&["REPLCONF", "version", "8.0.0"]],
        &[&["REPLCONF", "nonsense", "1"]],
        &[&["REPLCONF", "capa", "eof", "nonsense", "1"]],
        &[&["REPLCONF", "ack", "1"], &["PING"]],
        &[&["REPLCONF", "getack", "*"], &["PING"]],
        &[&["PSYNC", "?", "x"]],
        &[&["PSYNC", "?"]],
        &[&["MULTI"], &["PSYNC", "?", "-1"], &["SYNC"], &["DISCARD"]],
    ];
    let mut seen = Vec::new();
    for kind in [Kind::Redis, Kind::Ours] {
        let server = Server::spawn(kind, &[]);
        server.wait_until_ready();
        let mut replies = Vec::new();
        for session in sessions {
            let mut client = Client::connect(server.port).expect("a connection");
            for words in *session {
                client.send(words).expect("sent");
                let is_silent = words[0] == "REPLCONF"
                    && words
                        .get(1)
                        .is_some_and(|word| matches!(*word, "ack" | "getack"));
                if !is_silent {
                    replies.push((words.join(" "), client.reply().expect("a reply")));
                }
            }
        }
        seen.push(replies);
    }
    assert_eq!(seen[1], seen[0]);
    assert!(matches!(seen[0][0].1, Reply::Text(_)));
}

/// The log says why a replica did not just get what it lacked, with the numbers of both sides.
#[test]
fn the_log_says_why_a_full_sync_was_needed() {
    let server = filled(10, &["--repl-backlog-size", "16kb"]);
    let mut client = server.client();
    let first = RawReplica::full(server.port).expect("a full sync");
    let replid = first.replid().to_owned();
    drop(first);
    let ask = |replid: &str, offset: u64| {
        let mut replica = RawReplica::connect(server.port).expect("a connection");
        replica
            .say(&["REPLCONF", "capa", "eof", "capa", "psync2"])
            .expect("sent");
        assert_eq!(replica.line().expect("a line"), "+OK");
        replica
            .sync(&["PSYNC", replid, &offset.to_string()])
            .expect("a sync");
        replica.answer
    };
    assert!(
        ask(&replid, 1).starts_with("+CONTINUE"),
        "nothing is missing"
    );
    assert!(ask(&replid.to_uppercase(), 1).starts_with("+CONTINUE"));
    let other = "0123456789".repeat(4);
    assert!(ask(&other, 1).starts_with("+FULLRESYNC"));
    assert!(ask(&replid, 500).starts_with("+FULLRESYNC"));
    wait_for("nobody holds the backlog", LIMIT, || {
        (client.info("connected_slaves")? == "0").then_some(())
    });
    for i in 0..40 {
        client.call(&["SET", &format!("k{i}"), &"v".repeat(1000)]);
    }
    assert!(ask(&replid, 1).starts_with("+FULLRESYNC"));
    let log = server.log();
    for text in [
        format!("it asked for {other}, ours are {replid} and"),
        "it asked for offset 500, and 1 to 1 are at hand".into(),
        "it asked for offset 1, and ".into(),
    ] {
        assert!(log.contains(&text), "{text:?} in\n{log}");
    }
    assert_eq!(client.info("sync_partial_err").as_deref(), Some("3"));
    assert_eq!(client.info("sync_partial_ok").as_deref(), Some("2"));
}

/// A snapshot for replicas did not show in INFO as a save, one of few keys was over at once whatever `rdb-key-save-delay` said, and one that
/// nobody waited for any more went on until it had more to send.
#[test]
fn a_snapshot_for_replicas_shows_as_a_save_and_ends_when_nobody_wants_it() {
    for is_diskless in ["yes", "no"] {
        let args = [
            "--repl-diskless-sync",
            is_diskless,
            "--repl-diskless-sync-delay",
            "0",
            "--rdb-key-save-delay",
            "2000000",
        ];
        let server = filled(20, &args);
        let mut client = server.client();
        let in_progress = "rdb_bgsave_in_progress";
        assert_eq!(client.info(in_progress).as_deref(), Some("0"));
        let replica = asking(&server);
        wait_for("a save", LIMIT, || {
            (client.info(in_progress)? == "1").then_some(())
        });
        let text = client.ask("INFO replication").text();
        assert!(text.contains("state=wait_bgsave"), "{text}");
        drop(replica);
        wait_for("its end", Duration::from_secs(10), || {
            (client.info(in_progress)? == "0").then_some(())
        });
        assert_eq!(
            client.info("rdb_last_bgsave_status").as_deref(),
            Some("ok"),
            "it says nothing about the disk"
        );
        client.ask("CONFIG SET rdb-key-save-delay 0");
        let replica = RawReplica::full(server.port).expect("a full sync");
        let is_in = |key: &[u8]| replica.payload.windows(key.len()).any(|bytes| bytes == key);
        assert!(is_in(b"key:0") && is_in(b"key:19"));
        client.ask("SET k v");
    }
}

/// The reply to a command of a replica would stand amid the stream. What came right behind SYNC used to be lost.
#[test]
fn a_replica_that_gives_commands_is_let_go_and_the_log_names_them() {
    let server = filled(10, &["--repl-diskless-sync-delay", "0"]);
    let rows: [(&[&str], &[&str]); 3] = [
        (&["PING"], &["a reply to command 'ping'"]),
        (&["XINFO", "HELP"], &["a reply to command 'xinfo|help'"]),
        (
            &["GET", "key:1"],
            &[
                "a reply to command 'get'",
                "== CRITICAL == This master is sending an error to its replica",
                "Replica can't interact with the keyspace",
            ],
        ),
    ];
    for (command, said) in rows {
        let mut client = server.client();
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        let both = [
            dfsnap_tests::client::frame(&[b"SYNC"]),
            dfsnap_tests::client::frame(&words),
        ];
        client.send_raw(&both.concat()).expect("sent");
        let rest = client.rest().expect("its end");
        assert!(rest.is_empty() || rest.starts_with(b"$"), "{command:?}");
        wait_for("the log", LIMIT, || {
            let log = server.log();
            said.iter().all(|text| log.contains(text)).then_some(())
        });
    }
    let log = server.log();
    assert_eq!(
        log.matches("Replica generated a reply to command").count(),
        3,
        "{log}"
    );
}

/// A replica that has announced what it can and asked; its answer is read.
fn asking(server: &Server) -> RawReplica {
    let mut replica = RawReplica::connect(server.port).expect("a connection");
    replica.say(&["REPLCONF", "capa", "eof"]).expect("sent");
    assert_eq!(replica.line().expect("a line"), "+OK");
    replica.say(&["PSYNC", "?", "-1"]).expect("sent");
    let answer = replica.full_line().expect("a line");
    assert!(answer.starts_with("+FULLRESYNC"), "{answer}");
    replica
}

/// The log told how many replicas had the payload when the snapshot was made, before a slow one had taken a tenth of it; and one that was killed
/// amid its payload was waited for as long as the server ran.
#[test]
fn a_full_sync_without_disk_lasts_until_each_replica_has_it_or_is_gone() {
    // More than sockets hold.
    let args = ["--repl-diskless-sync-delay", "0", "--rdbcompression", "no"];
    let server = filled(40_000, &args);
    let mut client = server.client();
    let is_in_progress =
        |client: &mut Client| client.info("rdb_bgsave_in_progress").expect("a field") == "1";
    for is_killed in [true, false] {
        let replica = asking(&server);
        assert!(is_in_progress(&mut client));
        if is_killed {
            client.ask("CLIENT KILL TYPE replica");
        } else {
            drop(replica);
        }
        wait_for("its end", LIMIT, || {
            (!is_in_progress(&mut client)).then_some(())
        });
    }
    let mut slow = asking(&server);
    // The same snapshot again, whole.
    let _fast = RawReplica::full(server.port).expect("a full sync");
    assert!(is_in_progress(&mut client), "the first has not read yet");
    let text = "Diskless rdb transfer, done reading from pipe, 1 replicas still up.";
    wait_for("the line for the fast one", LIMIT, || {
        (server.log().matches(text).count() == 1).then_some(())
    });
    slow.read_payload().expect("its payload");
    wait_for("its end", LIMIT, || {
        (!is_in_progress(&mut client)).then_some(())
    });
    assert_eq!(server.log().matches(text).count(), 2, "{}", server.log());
}

/// With `repl-diskless-sync no` the payload was in a file without a name: Redis users find it as their dump.
#[test]
fn a_full_sync_by_disk_is_a_save() {
    // Long enough for the second one to come while it goes on.
    let args = ["--repl-diskless-sync", "no", "--rdb-key-save-delay", "2000"];
    let server = filled(500, &args);
    let mut client = server.client();
    client.ask("SET k v");
    let file = server.folder().join("dump.rdb");
    assert!(!file.exists());
    let replicas = together(&server, 2);
    let saved = std::fs::read(&file).expect("the dump");
    for replica in &replicas {
        assert!(replica.payload == saved, "the file is what they got");
    }
    assert_eq!(client.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
    let length = saved.len().to_string();
    assert_eq!(client.info("rdb_last_save_bytes"), Some(length));
    assert_eq!(
        client.info("rdb_changes_since_last_save").as_deref(),
        Some("0")
    );
    // While another save runs, replicas need not wait for it.
    client.ask("CONFIG SET rdb-key-save-delay 20000000");
    client.ask("BGSAVE");
    client.ask("CONFIG SET rdb-key-save-delay 0");
    client.ask("SET later v");
    let replica = RawReplica::full(server.port).expect("a full sync");
    let is_in = |key: &[u8]| replica.payload.windows(key.len()).any(|bytes| bytes == key);
    assert!(is_in(b"later"));
    assert!(std::fs::read(&file).expect("the dump") == saved);
}

/// Redis goes on with the file when replicas have gone, if there are rules by which it would save.
#[test]
fn a_full_sync_by_disk_outlives_its_replicas_if_there_are_save_rules() {
    for rules in ["", "900 1"] {
        let args = ["--repl-diskless-sync", "no", "--save", rules];
        let args = [&args[..], &["--rdb-key-save-delay", "2000000"]].concat();
        let server = filled(20, &args);
        let mut client = server.client();
        let is_in_progress =
            |client: &mut Client| client.info("rdb_bgsave_in_progress").expect("a field") == "1";
        let replica = asking(&server);
        assert!(is_in_progress(&mut client));
        drop(replica);
        wait_for("the end of the link", LIMIT, || {
            (client.info("connected_slaves")? == "0").then_some(())
        });
        if rules.is_empty() {
            wait_for("its end", LIMIT, || {
                (!is_in_progress(&mut client)).then_some(())
            });
            assert!(!server.folder().join("dump.rdb").exists());
            assert_eq!(client.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
            continue;
        }
        assert!(is_in_progress(&mut client));
        client.ask("CONFIG SET rdb-key-save-delay 0");
        wait_for("the dump", LIMIT, || {
            (client.info("rdb_saves")? == "1").then_some(())
        });
        assert!(server.folder().join("dump.rdb").exists());
    }
}
