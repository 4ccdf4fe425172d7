//! FAILOVER: a primary hands over to a replica, real servers and ours in both places; no acknowledged write is lost, no full sync is needed,
//! and whatever goes wrong leaves a primary.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

fn start(kind: Kind, args: &[&str]) -> Server {
    let own: &[&str] = match kind {
        Kind::Ours => &["--threads", "2"],
        Kind::Redis => &[],
    };
    let server = Server::spawn(kind, &[own, args].concat());
    server.wait_until_ready();
    server
}

fn following(kind: Kind, primary: &Server) -> Server {
    let server = start(
        kind,
        &["--replicaof", &format!("127.0.0.1 {}", primary.port)],
    );
    is_up(&server);
    server
}

fn is_up(server: &Server) {
    let mut client = server.client();
    wait_for("the link is up", LIMIT, || {
        (client.info("master_link_status")? == "up").then_some(())
    });
}

fn is(server: &Server, field: &str, wanted: &str) {
    let mut client = server.client();
    wait_for(&format!("{field} is {wanted}"), LIMIT, || {
        (client.info(field)? == wanted).then_some(())
    });
}

fn is_online(primary: &Server, replicas: usize) {
    let mut client = primary.client();
    wait_for("replicas are online", LIMIT, || {
        let text = client.ask("INFO replication").text();
        (text.matches("state=online").count() == replicas).then_some(())
    });
}

fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill")
        .args([name, &server.pid().to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {name}");
}

/// Writes numbers, one after the other, until the server is no primary any more: the last one that was acknowledged.
fn write_until_refused(mut client: Client, key: String) -> i64 {
    for i in 1.. {
        let reply = client.call(&["SET", &key, &i.to_string()]);
        if let Reply::Error(text) = reply {
            assert!(text.starts_with("READONLY"), "{text}");
            return i - 1;
        }
    }
    unreachable!()
}

fn hands_over(from: Kind, to: Kind, other: Kind) {
    if !has_program("redis-server") {
        return;
    }
    let name = format!("{from:?} -> {to:?}, beside {other:?}");
    let primary = start(from, &[]);
    let target = following(to, &primary);
    let third = following(other, &primary);
    is_online(&primary, 2);
    let replid = primary.client().info("master_replid");
    let writers: Vec<_> = (0..3)
        .map(|w| {
            let client = primary.client();
            std::thread::spawn(move || write_until_refused(client, format!("w{w}")))
        })
        .collect();
    let mut client = primary.client();
    wait_for("writes", LIMIT, || {
        (client.call(&["GET", "w2"]).number()? > 100).then_some(())
    });
    let port = target.port.to_string();
    let reply = client.call(&["FAILOVER", "TO", "127.0.0.1", &port, "TIMEOUT", "30000"]);
    assert_eq!(reply, Reply::Text(b"OK".to_vec()), "{name}");
    let acked: Vec<i64> = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .collect();
    is(&target, "role", "master");
    is(&primary, "role", "slave");
    is(&primary, "master_failover_state", "no-failover");
    is_up(&primary);
    let mut client = target.client();
    for (w, acked) in acked.iter().enumerate() {
        let found = client.ask(&format!("GET w{w}")).number();
        assert_eq!(found, Some(*acked), "{name}: w{w}");
    }
    assert_eq!(client.info("master_replid2"), replid, "{name}");
    let port = target.port.to_string();
    third.client().call(&["REPLICAOF", "127.0.0.1", &port]);
    is_up(&third);
    client.ask("SET after 1");
    for server in [&primary, &third] {
        wait_for(&format!("{name}: equal"), LIMIT, || {
            let offsets = [
                client.info("master_repl_offset"),
                server.client().info("slave_repl_offset"),
            ];
            (offsets[0] == offsets[1] && server.digest() == target.digest()).then_some(())
        });
    }
    assert_eq!(client.info("sync_full").as_deref(), Some("0"), "{name}");
}

#[test]
fn a_primary_of_ours_hands_over() {
    hands_over(Kind::Ours, Kind::Ours, Kind::Ours);
    hands_over(Kind::Ours, Kind::Redis, Kind::Ours);
}

#[test]
fn a_real_primary_hands_over_to_ours() {
    hands_over(Kind::Redis, Kind::Ours, Kind::Redis);
}

#[test]
fn any_replica_will_do() {
    let primary = start(Kind::Ours, &[]);
    let replica = following(Kind::Ours, &primary);
    is_online(&primary, 1);
    primary.client().ask("SET k v");
    primary.client().ask("FAILOVER");
    is(&replica, "role", "master");
    is_up(&primary);
    // And back again.
    is_online(&replica, 1);
    replica.client().ask("FAILOVER");
    is(&primary, "role", "master");
    is_up(&replica);
    assert_eq!(primary.client().ask("GET k").text(), "v");
    assert_eq!(replica.client().info("sync_full").as_deref(), Some("0"));
}

/// A target that does not catch up in time: writes wait meanwhile, reads do not, and then they go on.
#[test]
fn a_target_that_stands_still_is_not_waited_for_longer_than_said() {
    let primary = start(Kind::Ours, &[]);
    let replica = following(Kind::Ours, &primary);
    is_online(&primary, 1);
    let replid = primary.client().info("master_replid");
    signal(&replica, "-STOP");
    let mut client = primary.client();
    client.ask("SET k 1");
    client.ask("FAILOVER TIMEOUT 400");
    assert_eq!(
        client.info("master_failover_state").as_deref(),
        Some("waiting-for-sync")
    );
    let again = client.call(&["FAILOVER"]);
    assert_eq!(
        again,
        Reply::Error("ERR FAILOVER already in progress.".into())
    );
    let replicaof = client.call(&["REPLICAOF", "NO", "ONE"]);
    let text = "ERR REPLICAOF not allowed while failing over.";
    assert_eq!(replicaof, Reply::Error(text.into()));
    let began = Instant::now();
    assert_eq!(client.ask("GET k").text(), "1");
    client.ask("SET k 2");
    assert!(
        began.elapsed() > Duration::from_millis(200),
        "the write waited"
    );
    is(&primary, "master_failover_state", "no-failover");
    assert_eq!(client.info("role").as_deref(), Some("master"));
    assert_eq!(client.info("master_replid"), replid, "nothing has happened");
    // Given up by hand.
    client.ask("FAILOVER");
    let mut paused = primary.client();
    paused.send(&["SET", "k", "3"]).expect("sent");
    client.ask("FAILOVER ABORT");
    assert_eq!(
        paused.reply().expect("a reply"),
        Reply::Text(b"OK".to_vec())
    );
    signal(&replica, "-CONT");
    wait_for("it catches up", LIMIT, || {
        (replica.client().ask("GET k") == Reply::Text(b"3".to_vec())).then_some(())
    });
}

/// FORCE: the target is asked though it has not caught up; it does not answer, the failover is given up, and the old primary goes on with
/// a new name for its history.
#[test]
fn a_forced_failover_can_be_given_up() {
    let primary = start(Kind::Ours, &[]);
    let replica = following(Kind::Ours, &primary);
    is_online(&primary, 1);
    let mut client = primary.client();
    let replid = client.info("master_replid");
    signal(&replica, "-STOP");
    client.ask("SET k 1");
    let port = replica.port.to_string();
    client.call(&[
        "FAILOVER",
        "TO",
        "127.0.0.1",
        &port,
        "FORCE",
        "TIMEOUT",
        "500",
    ]);
    let mut paused = primary.client();
    paused.send(&["SET", "k", "2"]).expect("sent");
    is(&primary, "master_failover_state", "failover-in-progress");
    assert_eq!(client.info("role").as_deref(), Some("slave"));
    let mut link = RawReplica::connect(primary.port).expect("a connection");
    link.say(&["PSYNC", "?", "-1"]).expect("sent");
    let text = "-NOMASTERLINK Can't SYNC while failing over";
    assert_eq!(link.line().expect("a line"), text);
    client.ask("FAILOVER ABORT");
    assert_eq!(
        paused.reply().expect("a reply"),
        Reply::Text(b"OK".to_vec())
    );
    is(&primary, "role", "master");
    is(&primary, "master_failover_state", "no-failover");
    assert_eq!(client.info("master_replid2"), replid);
    assert_ne!(client.info("master_replid"), replid);
    signal(&replica, "-CONT");
    wait_for("it comes back", LIMIT, || {
        (replica.client().ask("GET k") == Reply::Text(b"2".to_vec())).then_some(())
    });
    assert_eq!(client.info("sync_full").as_deref(), Some("1"));
}

/// Who is asked to take over and refuses leaves the old primary in its place.
#[test]
fn a_target_that_refuses_leaves_a_primary() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener
        .local_addr()
        .expect("its address")
        .port()
        .to_string();
    let primary = start(Kind::Ours, &[]);
    let mut link = RawReplica::connect(primary.port).expect("a connection");
    link.say(&["REPLCONF", "listening-port", &port, "capa", "eof"])
        .expect("sent");
    assert_eq!(link.line().expect("a line"), "+OK");
    link.sync(&["PSYNC", "?", "-1"]).expect("a full sync");
    is_online(&primary, 1);
    let asked = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the old primary");
        let mut writer = socket.try_clone().expect("a socket");
        let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
        let mut words = Vec::new();
        while let Some(line) = lines.next() {
            if line.starts_with(['*', '$']) {
                continue;
            }
            let reply = match line.as_str() {
                "PING" => "+PONG\r\n",
                "REPLCONF" => "+OK\r\n",
                "PSYNC" => {
                    let words_left: Vec<_> = lines.by_ref().take(6).collect();
                    words.extend(words_left.into_iter().filter(|word| !word.starts_with('$')));
                    "-ERR PSYNC FAILOVER replid must match my replid.\r\n"
                }
                _ => continue,
            };
            writer.write_all(reply.as_bytes()).expect("sent");
            if !words.is_empty() {
                break;
            }
        }
        words
    });
    let mut client = primary.client();
    let (replid, offset) = (
        client.info("master_replid"),
        client.info("master_repl_offset"),
    );
    client.call(&["FAILOVER", "TO", "127.0.0.1", &port]);
    let words = asked.join().expect("the words of PSYNC");
    let next = offset
        .and_then(|offset| offset.parse::<u64>().ok())
        .map(|offset| offset + 1);
    assert_eq!(
        words[1..],
        [next.expect("an offset").to_string(), "FAILOVER".into()]
    );
    assert_eq!(Some(words[0].clone()), replid);
    is(&primary, "role", "master");
    is(&primary, "master_failover_state", "no-failover");
    assert_eq!(client.info("master_replid2"), replid);
    client.ask("SET k v");
    assert!(
        primary.log().contains("replid must match"),
        "{}",
        primary.log()
    );
}

/// A connection of the old primary to the target: answers up to PSYNC, and returns the words of that; `None` if it closes before.
fn asked(socket: &TcpStream) -> Option<Vec<String>> {
    let mut writer = socket;
    let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
    let mut count = 0;
    loop {
        let line = lines.next()?;
        if let Some(words) = line.strip_prefix('*') {
            count = words.parse().ok()?;
        }
        let reply = match line.as_str() {
            "PING" => "+PONG\r\n",
            "REPLCONF" => "+OK\r\n",
            "PSYNC" => break,
            _ => continue,
        };
        writer.write_all(reply.as_bytes()).ok()?;
    }
    let words = lines.filter(|line| !line.starts_with('$'));
    Some(words.take(count - 1).collect())
}

/// A primary with a replica by hand that says it listens on a port of ours.
fn with_target(listener: &TcpListener, args: &[&str]) -> (Server, RawReplica, String) {
    let port = listener.local_addr().expect("its address").port();
    let port = port.to_string();
    let primary = start(Kind::Ours, args);
    let mut link = RawReplica::connect(primary.port).expect("a connection");
    link.say(&["REPLCONF", "listening-port", &port, "capa", "eof"])
        .expect("sent");
    assert_eq!(link.line().expect("a line"), "+OK");
    link.sync(&["PSYNC", "?", "-1"]).expect("a full sync");
    is_online(&primary, 1);
    (primary, link, port)
}

/// A target behind a link that swallows everything used to keep a primary's writes waiting for ever: it took the connection and never
/// answered.
#[test]
fn a_target_that_never_answers_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    // Connections are made by the kernel, and nobody takes them.
    let (primary, _link, port) = with_target(&listener, &["--repl-timeout", "3"]);
    let mut client = primary.client();
    let replid = client.info("master_replid");
    // The write comes before the role changes, and waits.
    let failover = frame(&[b"FAILOVER", b"TO", b"127.0.0.1", port.as_bytes()]);
    let both = [failover, frame(&[b"SET", b"k", b"v"])].concat();
    client.send_raw(&both).expect("sent");
    for what in ["FAILOVER", "SET"] {
        let reply = client.reply().expect(what);
        assert_eq!(reply, Reply::Text(b"OK".to_vec()), "{what}");
    }
    is(&primary, "role", "master");
    is(&primary, "master_failover_state", "no-failover");
    assert_eq!(client.info("master_replid2"), replid);
    let log = primary.log();
    assert!(log.contains("has not answered for 3 s"), "{log}");
}

/// A target that took over while its answer was lost, and refused the question when it came again, used to leave two primaries.
#[test]
fn a_target_whose_answer_was_lost_is_followed() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let (primary, _link, port) = with_target(&listener, &[]);
    let mut client = primary.client();
    let replid = client.info("master_replid").expect("a name");
    client.call(&["FAILOVER", "TO", "127.0.0.1", &port]);
    let next = || listener.accept().expect("the old primary").0;
    let first = next();
    let words = asked(&first).expect("a question");
    assert_eq!(words[2..], ["FAILOVER"]);
    // It takes over, and the link breaks.
    drop(first);
    let second = next();
    assert_eq!(asked(&second).expect("a question")[2..], ["FAILOVER"]);
    let refusal = b"-ERR PSYNC FAILOVER can't be sent to a master.\r\n";
    (&second).write_all(refusal).expect("sent");
    let third = next();
    let again = asked(&third).expect("a question");
    assert_eq!(again, words[..2], "as any replica");
    let new = "f".repeat(40);
    let answer = format!("+CONTINUE {new}\r\n");
    (&third).write_all(answer.as_bytes()).expect("sent");
    is_up(&primary);
    is(&primary, "master_failover_state", "no-failover");
    assert_eq!(client.info("master_replid"), Some(new));
    assert_eq!(client.info("master_replid2"), Some(replid));
    let refused = client.call(&["SET", "k", "v"]);
    assert!(refused.is_error(), "{refused:?}");
}

/// Refusals, word by word beside a real server.
#[test]
fn what_cannot_be_is_refused_as_a_real_server_does() {
    if !has_program("redis-server") {
        return;
    }
    let mut seen = Vec::new();
    for kind in [Kind::Redis, Kind::Ours] {
        let primary = start(kind, &[]);
        let mut replies = Vec::new();
        let mut ask = |server: &Server, command: &str| {
            let words: Vec<&str> = command.split(' ').collect();
            let reply = server.client().call(&words);
            replies.push(format!("{command}: {reply:?}"));
        };
        let rows = [
            "FAILOVER",
            "FAILOVER ABORT",
            "FAILOVER ABORT TIMEOUT 100",
            "FAILOVER TIMEOUT 0",
            "FAILOVER TIMEOUT x",
            "FAILOVER TIMEOUT",
            "FAILOVER TO 127.0.0.1",
            "FAILOVER TO 127.0.0.1 x",
            "FAILOVER TO 127.0.0.1 1 FORCE FORCE",
            "FAILOVER TO 127.0.0.1 1 TO 127.0.0.1 1",
            "FAILOVER NOW",
            "FAILOVER FORCE",
            "FAILOVER TO 127.0.0.1 1",
            "FAILOVER TO 127.0.0.1 1 FORCE TIMEOUT 100",
        ];
        for row in rows {
            ask(&primary, row);
        }
        let replica = following(kind, &primary);
        is_online(&primary, 1);
        for row in rows.iter().filter(|row| **row != "FAILOVER") {
            ask(&primary, row);
        }
        ask(&replica, "FAILOVER");
        ask(&replica, "FAILOVER TO 127.0.0.1 1");
        ask(&replica, "FAILOVER ABORT");
        ask(&primary, "PSYNC ? -1 FAILOVER");
        ask(&replica, "PSYNC ? -1 FAILOVER");
        seen.push(replies);
    }
    assert_eq!(seen[1], seen[0]);
}
