//! `repl-diskless-load`: what a replica shows while a payload comes, what is left of one that is cut, and what all who look hear of it.
//!
//! The primary is one by hand. What is claimed of our server is asked of the machine's as well, unless a test says why not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::primary::{Asked, ScriptedPrimary};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";
const LOADING: &str = "LOADING Redis is loading the dataset in memory";

/// A dataset as a payload, and the server that has it.
struct Dataset {
    server: Server,
    payload: Vec<u8>,
}

/// Keys `p0` … `p99` hold `generation`; there is a stream with so many entries, and a library with a function of this name.
fn dataset(generation: &str, entries: u64, function: &str, ballast: &str) -> Dataset {
    let server = Server::ours(&["--threads", "2", "--rdbcompression", "no"]);
    let mut client = server.client();
    for n in 0..100 {
        client.ask(&format!("SET p{n} {generation}"));
    }
    client.ask(&format!("SET only:{generation} 1"));
    for n in 1..=entries {
        client.ask(&format!("XADD events {n}-1 a b"));
    }
    let library = format!(
        "#!lua name={function}\nredis.register_function{{function_name='{function}', \
         callback=function() return '{generation}' end, flags={{'no-writes'}}}}"
    );
    client.call(&["FUNCTION", "LOAD", &library]);
    client.call(&["DEBUG", "POPULATE", ballast, "ballast", "500"]);
    let payload = RawReplica::full(server.port).expect("a full sync").payload;
    Dataset { server, payload }
}

fn old() -> Dataset {
    dataset("old", 1, "before", "10")
}

fn new() -> Dataset {
    dataset("new", 9, "after", "8000")
}

fn kinds() -> Vec<Kind> {
    match has_program("redis-server") {
        true => vec![Kind::Ours, Kind::Redis],
        false => vec![Kind::Ours],
    }
}

fn replica_of(primary: &ScriptedPrimary, kind: Kind, mode: &str) -> Server {
    let own: &[&str] = match kind {
        Kind::Ours => &["--threads", "2"],
        // It answers clients after so many bytes.
        Kind::Redis => &["--loading-process-events-interval-bytes", "1024"],
    };
    let server = Server::spawn(kind, &[own, &["--repl-diskless-load", mode]].concat());
    server.wait_until_ready();
    let port = primary.port.to_string();
    let reply = server.client().call(&["REPLICAOF", "127.0.0.1", &port]);
    assert!(!reply.is_error(), "{reply:?}");
    server
}

fn is_up(replica: &Server) {
    wait_for("the link is up", LIMIT, || {
        let status = replica.client().info("master_link_status")?;
        (status == "up").then_some(())
    });
}

fn is_in_sync(replica: &Server) {
    wait_for("a payload is coming", LIMIT, || {
        let mut client = replica.client();
        let state = [
            client.info("loading")?,
            client.info("async_loading")?,
            client.info("master_sync_in_progress")?,
        ];
        (state[2] == "1" && (state[0] == "1" || state[1] == "1")).then_some(())
    });
}

/// What a client is told that asks for all of this, each time on a connection of its own.
fn look(replica: &Server, rows: &[(&str, &str)]) {
    for (command, want) in rows {
        let words: Vec<&str> = command.split(' ').collect();
        let reply = replica.client().call(&words);
        let text = match &reply {
            Reply::Error(text) => text.clone(),
            Reply::Nil => "nil".to_owned(),
            Reply::Int(number) => number.to_string(),
            other => other.text(),
        };
        assert_eq!(text, *want, "{:?}: {command}", replica.kind);
    }
}

/// A replica that has the old dataset, at offset 100 of the first history.
fn with_old(kind: Kind, mode: &str, old: &Dataset) -> (ScriptedPrimary, Server, Asked) {
    let primary = ScriptedPrimary::start();
    let replica = replica_of(&primary, kind, mode);
    let mut asked = primary.asked();
    asked.full(ONE, 100, &old.payload);
    is_up(&replica);
    (primary, replica, asked)
}

const OLD_SHOWN: &[(&str, &str)] = &[
    ("GET p1", "old"),
    ("GET only:new", "nil"),
    ("DBSIZE", "112"),
    ("FCALL_RO before 0", "old"),
    ("FCALL_RO after 0", "ERR Function not found"),
    ("XLEN events", "1"),
    ("PING", "PONG"),
];
const NEW_SHOWN: &[(&str, &str)] = &[
    ("GET p1", "new"),
    ("GET only:old", "nil"),
    ("DBSIZE", "8102"),
    ("FCALL_RO before 0", "ERR Function not found"),
    ("FCALL_RO after 0", "new"),
    ("XLEN events", "9"),
];
/// Whatever is shown, these wait for the end of the load.
const REFUSED: &[(&str, &str)] = &[
    ("BGSAVE", LOADING),
    ("SAVE", LOADING),
    ("REPLICAOF NO ONE", LOADING),
    ("REPLICAOF 127.0.0.1 1", LOADING),
    ("SLAVEOF NO ONE", LOADING),
    ("PSYNC ? -1", LOADING),
    ("CONFIG SET repl-diskless-load disabled", LOADING),
];
const NOT_SHOWN: &[(&str, &str)] = &[
    ("GET p1", LOADING),
    ("PING", LOADING),
    ("DBSIZE", LOADING),
    ("FCALL_RO before 0", LOADING),
    ("EVAL return(1) 0", LOADING),
    ("FAILOVER", LOADING),
    ("WAIT 0 0", LOADING),
];

fn state(replica: &Server) -> [Option<String>; 3] {
    let mut client = replica.client();
    ["loading", "async_loading", "slave_repl_offset"].map(|name| client.info(name))
}

fn texts(values: [&str; 3]) -> [Option<String>; 3] {
    values.map(|value| Some(value.to_owned()))
}

#[test]
fn data_of_the_same_history_are_shown_until_the_new_ones_are_there() {
    let (old, new) = (old(), new());
    for kind in kinds() {
        let (primary, replica, first) = with_old(kind, "swapdb", &old);
        let [mut of_old, mut of_new, mut of_none] = ["p1", "only:new", "never"].map(|key| {
            let mut client = replica.client();
            client.call(&["WATCH", key]);
            client
        });
        let mut tracker = replica.client();
        tracker.ask("HELLO 3");
        tracker.ask("CLIENT TRACKING ON");
        tracker.ask("GET p1");
        let mut waiter = replica.client();
        let words = ["XREAD", "BLOCK", "0", "STREAMS", "events", "5-1"];
        waiter.send(&words).expect("sent");
        let mut queued = replica.client();
        queued.ask("MULTI");
        queued.ask("BGSAVE");

        drop(first);
        for is_cut in [true, false] {
            let mut asked = primary.asked();
            assert_eq!(
                asked.request,
                [ONE, "101"],
                "{kind:?}: what it has is whole"
            );
            asked.begin_full(ONE, 5000);
            let payload = asked.trickle(new.payload.clone());
            is_in_sync(&replica);
            assert_eq!(state(&replica), texts(["0", "1", "100"]), "{kind:?}");
            look(&replica, OLD_SHOWN);
            look(&replica, REFUSED);
            let role = replica.client().ask("ROLE");
            assert_eq!(role.items()[3].text(), "sync");
            if is_cut {
                let reply = queued.call(&["EXEC"]);
                let Reply::Error(text) = reply else {
                    panic!("{reply:?}")
                };
                assert_eq!(
                    text,
                    format!("EXECABORT Transaction discarded because of: {LOADING}")
                );
                payload.cut();
                continue;
            }
            let asked = payload.finish();
            is_up(&replica);
            look(&replica, NEW_SHOWN);
            assert_eq!(state(&replica), texts(["0", "0", "5000"]), "{kind:?}");
            wait_for("the ACK", LIMIT, || (asked.acked() == 5000).then_some(()));
        }
        assert_eq!(replica.digest(), new.server.digest(), "{kind:?}");
        // Those who watch a key that was there or is there now, and no others, are told.
        for (client, want) in [
            (&mut of_old, true),
            (&mut of_new, true),
            (&mut of_none, false),
        ] {
            client.ask("MULTI");
            assert_eq!(client.call(&["EXEC"]) == Reply::Nil, want, "{kind:?}");
        }
        let push = tracker.reply().expect("a message");
        assert_eq!(push.items()[0].text(), "invalidate", "{kind:?}");
        assert_eq!(push.items()[1], Reply::Nil, "{kind:?}: all keys");
        let streams = waiter.reply().expect("entries");
        let entries = streams.items()[0].items()[1].items();
        assert_eq!(entries.len(), 4, "{kind:?}: behind 5-1");
    }
}

#[test]
fn data_of_another_history_are_not_shown_and_not_lost() {
    let (old, new) = (old(), new());
    for kind in kinds() {
        let (primary, replica, first) = with_old(kind, "swapdb", &old);
        drop(first);
        let mut asked = primary.asked();
        asked.begin_full(TWO, 5000);
        let payload = asked.trickle(new.payload.clone());
        is_in_sync(&replica);
        assert_eq!(state(&replica), texts(["1", "0", "100"]), "{kind:?}");
        look(&replica, NOT_SHOWN);
        look(&replica, REFUSED);
        payload.cut();
        let mut asked = primary.asked();
        assert_eq!(asked.request, [ONE, "101"], "{kind:?}");
        look(&replica, OLD_SHOWN);
        // What it has is good for the stream to go on.
        assert!(asked.send(b"+CONTINUE\r\n*3\r\n$3\r\nSET\r\n$2\r\np1\r\n$5\r\nnewer\r\n"));
        wait_for("the write", LIMIT, || {
            (replica.client().ask("GET p1").text() == "newer").then_some(())
        });
        drop(asked);
        let mut asked = primary.asked();
        assert_eq!(asked.request, [ONE, "133"], "{kind:?}");
        asked.full(TWO, 5000, &new.payload);
        is_up(&replica);
        look(&replica, NEW_SHOWN);
        assert_eq!(replica.digest(), new.server.digest(), "{kind:?}");
    }
}

#[test]
fn an_empty_dataset_is_loaded_from_the_socket_and_is_empty_after_a_cut() {
    let new = new();
    for kind in kinds() {
        let primary = ScriptedPrimary::start();
        let replica = replica_of(&primary, kind, "on-empty-db");
        let mut asked = primary.asked();
        asked.begin_full(ONE, 100);
        let payload = asked.trickle(new.payload.clone());
        is_in_sync(&replica);
        assert_eq!(replica.client().info("loading").as_deref(), Some("1"));
        look(&replica, NOT_SHOWN);
        look(&replica, REFUSED);
        payload.cut();
        let mut asked = primary.asked();
        assert_eq!(asked.request, ["?", "-1"], "{kind:?}");
        look(
            &replica,
            &[("DBSIZE", "0"), ("GET p1", "nil"), ("PING", "PONG")],
        );
        asked.full(ONE, 100, &new.payload);
        is_up(&replica);
        look(&replica, NEW_SHOWN);
        assert_eq!(replica.digest(), new.server.digest(), "{kind:?}");
        // It is not empty now: the next one comes by way of a file, and what is there is shown.
        drop(asked);
        let mut asked = primary.asked();
        assert_eq!(asked.request, [ONE, "101"], "{kind:?}");
        asked.begin_full(ONE, 9000);
        let payload = asked.trickle(new.payload.clone());
        wait_for("a payload is coming", LIMIT, || {
            (replica.client().info("master_sync_in_progress")? == "1").then_some(())
        });
        look(&replica, NEW_SHOWN);
        assert_eq!(state(&replica), texts(["0", "0", "100"]), "{kind:?}");
        payload.cut();
        let asked = primary.asked();
        assert_eq!(asked.request, [ONE, "101"], "{kind:?}");
        // While bytes go to a file, the role can change.
        look(
            &replica,
            &[("REPLICAOF NO ONE", "OK"), ("SET p1 mine", "OK")],
        );
    }
}

/// With several shards there would be a moment between one and the next. Only ours: the machine's has one thread.
#[test]
fn readers_see_all_of_the_old_or_all_of_the_new() {
    let (old, new) = (old(), new());
    let (primary, replica, mut asked) = with_old(Kind::Ours, "swapdb", &old);
    let keys: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    let words = [&["MGET".to_owned()][..], &keys].concat();
    let (is_over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = replica.client();
                while !is_over.load(Ordering::Relaxed) {
                    let reply = client.call(&words);
                    let first = &reply.items()[0];
                    assert_ne!(*first, Reply::Nil);
                    assert!(reply.items().iter().all(|item| item == first), "{reply:?}");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 1..=6u64 {
            drop(asked);
            asked = primary.asked();
            let payload = if round % 2 == 1 { &new } else { &old };
            asked.full(ONE, 100 + round, &payload.payload);
            wait_for("the ACK", LIMIT, || {
                (asked.acked() == 100 + round).then_some(())
            });
        }
    });
    assert!(looks.load(Ordering::Relaxed) > 20);
    assert_eq!(replica.digest(), old.server.digest());
}

/// A save that began before the swap is of the old dataset, whole.
#[test]
fn a_save_goes_on_over_the_swap() {
    let (old, new) = (old(), new());
    let (primary, replica, first) = with_old(Kind::Ours, "swapdb", &old);
    let mut client = replica.client();
    client.ask("CONFIG SET rdb-key-save-delay 200000");
    client.ask("BGSAVE");
    drop(first);
    let mut asked = primary.asked();
    asked.full(ONE, 5000, &new.payload);
    is_up(&replica);
    assert_eq!(client.info("rdb_bgsave_in_progress").as_deref(), Some("1"));
    look(&replica, NEW_SHOWN);
    client.ask("CONFIG SET rdb-key-save-delay 0");
    wait_for("the save", LIMIT, || {
        (client.info("rdb_bgsave_in_progress")? == "0").then_some(())
    });
    let saved = Server::spawn_in(Kind::Ours, copied(&replica), &["--threads", "1"]);
    saved.wait_until_ready();
    assert_eq!(saved.digest(), old.server.digest());
}

fn copied(server: &Server) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(server.dump(), folder.path().join("dump.rdb")).expect("the dump");
    folder
}

/// A full disk is no reason to give up: old data are shown, and it is tried again.
#[test]
fn a_payload_that_finds_no_room_on_disk_is_asked_for_again() {
    let (old, new) = (old(), new());
    let (primary, replica, first) = with_old(Kind::Ours, "disabled", &old);
    drop(first);
    for (failures, operation) in [1, 2, 5].into_iter().enumerate() {
        let mut asked = primary.asked();
        assert_eq!(asked.request, [ONE, "101"], "what it has is whole");
        let mut client = replica.client();
        client.call(&["DEBUG", "FILE-FAULT", &operation.to_string(), "enospc"]);
        asked.begin_full(ONE, 5000);
        // It ends the link by itself; how much of this arrives does not matter.
        let _ = asked.send(&new.payload);
        wait_for("the complaint", LIMIT, || {
            let count = replica.log().matches("No space left on device").count();
            (count > failures).then_some(())
        });
        look(&replica, OLD_SHOWN);
    }
    let mut asked = primary.asked();
    assert_eq!(asked.request, [ONE, "101"]);
    asked.full(ONE, 5000, &new.payload);
    is_up(&replica);
    look(&replica, NEW_SHOWN);
    let left = std::fs::read_dir(replica.folder()).expect("a folder");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("temp-")),
        "{left:?}"
    );
}

/// A payload with a flaw is as good as none.
#[test]
fn a_payload_that_cannot_be_loaded_changes_nothing() {
    let (old, new) = (old(), new());
    let (primary, replica, first) = with_old(Kind::Ours, "swapdb", &old);
    drop(first);
    let mut flawed = new.payload.clone();
    let middle = flawed.len() / 2;
    flawed[middle] ^= 1;
    for payload in [&flawed[..], b"nothing of the kind", b""] {
        let mut asked = primary.asked();
        assert_eq!(asked.request, [ONE, "101"]);
        asked.full(ONE, 5000, payload);
        let next = primary.asked();
        look(&replica, OLD_SHOWN);
        assert_eq!(state(&replica)[1].as_deref(), Some("0"));
        drop(next);
    }
    // Bytes behind the end mean nothing, as in a file.
    let mut asked = primary.asked();
    asked.full(ONE, 5000, &[&new.payload[..], b"and more"].concat());
    is_up(&replica);
    look(&replica, NEW_SHOWN);
}

/// What a link tells and asks for is what the configuration says when it begins, not what it said at REPLICAOF.
#[test]
fn a_password_set_later_is_used_by_the_next_link() {
    let primary = Server::ours(&["--threads", "1"]);
    primary.client().ask("CONFIG SET requirepass secret");
    for kind in kinds() {
        let replica = Server::spawn(kind, &[]);
        replica.wait_until_ready();
        let port = primary.port.to_string();
        replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        wait_for("a refusal", LIMIT, || {
            let log = replica.log();
            (log.contains("NOAUTH") || log.contains("MASTER aborted")).then_some(())
        });
        replica.client().ask("CONFIG SET masterauth secret");
        is_up(&replica);
    }
}

/// Clients that are let in see a dataset, whichever it is; only ours, for the machine's blocks while it loads.
#[test]
fn connections_that_come_and_go_during_loads_do_no_harm() {
    let (old, new) = (old(), new());
    let (primary, replica, mut asked) = with_old(Kind::Ours, "disabled", &old);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(replica.port).expect("a connection");
                    client.send(&["MULTI"]).expect("sent");
                    let _ = client.reply();
                    for n in 0..5 {
                        let _ = client.call(&["GET", &format!("p{n}")]);
                    }
                    match client.call(&["EXEC"]) {
                        Reply::Error(text) => assert!(text.contains("EXECABORT"), "{text}"),
                        reply => {
                            // Nobody may look into the moment between two datasets.
                            let first = &reply.items()[0];
                            assert_ne!(*first, Reply::Nil);
                            assert!(reply.items().iter().all(|item| item == first), "{reply:?}");
                        }
                    }
                }
            });
        }
        for round in 1..=6u64 {
            drop(asked);
            asked = primary.asked();
            let payload = if round % 2 == 1 { &new } else { &old };
            asked.full(ONE, 100 + round, &payload.payload);
            wait_for("the ACK", LIMIT, || {
                (asked.acked() == 100 + round).then_some(())
            });
        }
    });
}

/// Whatever moment the process ends at, it comes up with the dataset that it had saved, whole.
#[test]
fn a_replica_that_ends_amid_a_payload_comes_up_with_what_it_had_saved() {
    let (old, new) = (old(), new());
    for (mode, is_killed) in [
        ("disabled", true),
        ("on-empty-db", true),
        ("on-empty-db", false),
        ("swapdb", true),
        ("swapdb", false),
    ] {
        let name = format!("{mode}, killed: {is_killed}");
        let primary = ScriptedPrimary::start();
        // A rule that is always due.
        let own = [
            "--threads",
            "2",
            "--save",
            "1 1",
            "--repl-diskless-load",
            mode,
        ];
        let mut replica = Server::ours(&own);
        let empty = replica.digest();
        let port = primary.port.to_string();
        replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        let mut asked = primary.asked();
        if mode != "on-empty-db" {
            asked.full(ONE, 100, &old.payload);
            wait_for("a save", LIMIT, || {
                let mut client = replica.client();
                let saves: u64 = client.info("rdb_saves")?.parse().ok()?;
                (saves > 0 && client.info("master_link_status")? == "up").then_some(())
            });
            drop(asked);
            asked = primary.asked();
        }
        let saved = if mode == "on-empty-db" {
            empty
        } else {
            old.server.digest()
        };
        asked.begin_full(ONE, 5000);
        let payload = asked.trickle(new.payload.clone());
        wait_for("a payload is coming", LIMIT, || {
            (replica.client().info("master_sync_in_progress")? == "1").then_some(())
        });
        if is_killed {
            replica.kill();
        } else {
            assert!(replica.terminate().success(), "{name}");
        }
        payload.cut();
        replica.restart();
        assert_eq!(replica.digest(), saved, "{name}");
        let left = std::fs::read_dir(replica.folder()).expect("a folder");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        let is_temporary = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with("temp-");
        assert_eq!(left.iter().find(is_temporary), None, "{name}");
        replica.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        let mut asked = primary.asked();
        asked.full(ONE, 5000, &new.payload);
        is_up(&replica);
        assert_eq!(replica.digest(), new.server.digest(), "{name}");
    }
}

/// A replica's replica keeps what it has until the one above has something else, and then gets that.
#[test]
fn replicas_of_a_replica_that_loads_follow_when_it_is_done() {
    let (old, new) = (old(), new());
    for kind in kinds() {
        let (primary, middle, first) = with_old(Kind::Ours, "swapdb", &old);
        let last = Server::spawn(kind, &[]);
        last.wait_until_ready();
        let port = middle.port.to_string();
        last.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        is_up(&last);
        assert_eq!(last.digest(), old.server.digest(), "{kind:?}");
        drop(first);
        let mut asked = primary.asked();
        asked.begin_full(ONE, 5000);
        let payload = asked.trickle(new.payload.clone());
        is_in_sync(&middle);
        assert_eq!(
            middle.client().info("connected_slaves").as_deref(),
            Some("1")
        );
        // One that comes now has to wait.
        let late = Server::spawn(kind, &[]);
        late.wait_until_ready();
        late.client().call(&["REPLICAOF", "127.0.0.1", &port]);
        look(&last, OLD_SHOWN);
        let mut asked = payload.finish();
        assert!(asked.send(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"));
        for replica in [&last, &late] {
            wait_for("the new dataset", LIMIT, || {
                (replica.digest() == new.server.digest()).then_some(())
            });
        }
        let write = b"*3\r\n$3\r\nSET\r\n$2\r\np1\r\n$5\r\nafter\r\n";
        assert!(asked.send(write));
        for replica in [&middle, &last, &late] {
            wait_for("the write", LIMIT, || {
                (replica.client().ask("GET p1").text() == "after").then_some(())
            });
            // Told once all shards have said that they are done, which may be after a look at one.
            wait_for("its offset", LIMIT, || {
                let offset = replica.client().info("slave_repl_offset")?;
                (offset == "5055").then_some(())
            });
        }
    }
}
