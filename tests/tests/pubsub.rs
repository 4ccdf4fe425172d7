//! Publish and subscribe, and keyspace events, compared with a real server.

use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(20);

/// Both servers, or none if there is no real one here.
fn both() -> Option<[Server; 2]> {
    has_program("redis-server").then(|| [Server::redis(&[]), Server::ours(&["--threads", "2"])])
}

/// Runs a story against both and compares what it tells.
fn compare(name: &str, servers: &[Server; 2], story: impl Fn(&Server) -> Vec<Reply>) {
    let [wanted, got] = servers.each_ref().map(|server| {
        server.client().ask("FLUSHALL");
        story(server)
    });
    for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        assert_eq!(got, wanted, "{name}: reply {i}");
    }
    assert_eq!(got.len(), wanted.len(), "{name}");
}

/// Sends a line and reads so many replies.
fn read(client: &mut Client, line: &str, replies: usize) -> Vec<Reply> {
    let words: Vec<&str> = line.split_whitespace().collect();
    client.send(&words).expect("a server that reads");
    (0..replies)
        .map(|_| {
            client
                .reply()
                .unwrap_or_else(|error| panic!("{line}: {error}"))
        })
        .collect()
}

#[test]
fn subscriptions_are_confirmed_and_messages_arrive() {
    let Some(servers) = both() else { return };
    for protocol in ["2", "3"] {
        compare(protocol, &servers, |server| {
            let mut publisher = server.client();
            let mut client = server.client();
            client.call(&["HELLO", protocol]);
            let mut told = Vec::new();
            told.extend(read(&mut client, "SUBSCRIBE a b a", 3));
            told.extend(read(&mut client, "PSUBSCRIBE a* [bc]", 2));
            told.extend(read(&mut client, "SSUBSCRIBE a", 1));
            for line in ["PUBLISH a x", "PUBLISH c y", "SPUBLISH a z", "PUBLISH d x"] {
                told.extend(read(&mut publisher, line, 1));
            }
            for _ in 0..4 {
                told.push(client.reply().expect("a message"));
            }
            for line in [
                "PUBSUB NUMSUB a b c",
                "PUBSUB NUMPAT",
                "PUBSUB SHARDNUMSUB a b",
                "PUBSUB SHARDCHANNELS",
                "PUBSUB CHANNELS b*",
            ] {
                told.extend(read(&mut publisher, line, 1));
            }
            told.extend(read(&mut client, "PING", 1));
            told.extend(read(&mut client, "PING x", 1));
            told.extend(read(&mut client, "GET a", 1));
            told.extend(read(&mut client, "UNSUBSCRIBE a z", 2));
            told.extend(read(&mut client, "PUNSUBSCRIBE a*", 1));
            told.extend(read(&mut client, "SUNSUBSCRIBE", 1));
            told.extend(read(&mut client, "SUNSUBSCRIBE", 1));
            told.extend(read(&mut client, "UNSUBSCRIBE", 1));
            told.extend(read(&mut client, "PUNSUBSCRIBE", 1));
            told.extend(read(&mut client, "UNSUBSCRIBE", 1));
            told.extend(read(&mut client, "GET a", 1));
            told.extend(read(&mut client, "SUBSCRIBE a", 1));
            told.extend(read(&mut client, "RESET", 1));
            told.extend(read(&mut publisher, "PUBLISH a x", 1));
            told.extend(read(&mut client, "GET a", 1));
            told.extend(read(&mut client, "MULTI", 1));
            told.extend(read(&mut client, "PUBLISH a x", 1));
            told.extend(read(&mut client, "EXEC", 1));
            told
        });
    }
}

#[test]
fn who_has_gone_gets_no_messages() {
    let server = Server::ours(&["--threads", "2"]);
    let mut publisher = server.client();
    for _ in 0..20 {
        let mut client = server.client();
        read(&mut client, "SUBSCRIBE a", 1);
        read(&mut client, "PSUBSCRIBE a", 1);
    }
    wait_for("no subscribers", LIMIT, || {
        (publisher.ask("PUBLISH a x") == Reply::Int(0)).then_some(())
    });
    assert_eq!(publisher.ask("PUBSUB NUMPAT"), Reply::Int(0));
}

#[test]
fn a_subscriber_that_does_not_read_is_ended() {
    let server = Server::ours(&["--threads", "2"]);
    let mut publisher = server.client();
    publisher.call(&[
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 100000 0 0",
    ]);
    let mut client = server.client();
    read(&mut client, "SUBSCRIBE a", 1);
    let payload = "x".repeat(50_000);
    wait_for("it is ended", LIMIT, || {
        (publisher.call(&["PUBLISH", "a", &payload]) == Reply::Int(0)).then_some(())
    });
}

#[test]
fn messages_reach_replicas_of_both_kinds() {
    let Some([redis, ours]) = both() else { return };
    for (primary, replica) in [(&ours, &redis), (&redis, &ours)] {
        let mut to_replica = replica.client();
        to_replica.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_for("the link", LIMIT, || {
            (to_replica.info("master_link_status")? == "up").then_some(())
        });
        let mut client = replica.client();
        read(&mut client, "SUBSCRIBE a", 1);
        read(&mut client, "SSUBSCRIBE b", 1);
        let mut publisher = primary.client();
        publisher.ask("PUBLISH a x");
        publisher.ask("SPUBLISH b y");
        let texts =
            |reply: Reply| -> Vec<String> { reply.items().iter().map(Reply::text).collect() };
        assert_eq!(texts(client.reply().unwrap()), ["message", "a", "x"]);
        assert_eq!(texts(client.reply().unwrap()), ["smessage", "b", "y"]);
        to_replica.ask("REPLICAOF NO ONE");
    }
}

/// Commands that change something, those that do not, and those that fail.
const EVENTS: &str = r#"
    SET s 1
    SET s 2 EX 100
    SET s 3 XX GET
    SET s 3 NX
    SETEX s 100 1
    PSETEX s 100000 1
    SETNX s2 1
    GETSET s 5
    MSET s 1 s2 2
    MSETNX s3 1 s4 1
    MSETNX s3 1 s5 1
    APPEND s x
    SETRANGE s 1 yy
    SET n 1
    INCR n
    DECRBY n 5
    INCRBYFLOAT n 1.5
    SETBIT b 7 1
    BITFIELD b SET u8 0 255
    BITOP AND b2 b s
    BITOP AND b2 none1 none2
    GETDEL s4
    GETEX s EX 100
    GETEX s PERSIST
    GETEX s EXAT 1
    DEL s3 none s2
    UNLINK b
    RPUSH l a b c d e f
    LPUSH l z
    LPUSHX none z
    LINSERT l BEFORE a y
    LSET l 0 x
    LREM l 1 x
    LTRIM l 0 3
    LMOVE l m LEFT RIGHT
    RPOPLPUSH m m
    LPOP l
    RPOP l 5
    LMPOP 2 none m LEFT
    SADD t a b c
    SADD t a
    SADD u c d
    SREM t a x
    SMOVE t u b
    SPOP u
    SINTERSTORE v t none
    SUNIONSTORE v t u
    SDIFFSTORE v none t
    SPOP t 5
    HSET h f 1 g 2
    HSETNX h f 1
    HINCRBY h f 1
    HINCRBYFLOAT h f 1.5
    HMSET h f 1
    HDEL h f x
    HDEL h g
    ZADD z 1 a 2 b 3 c 4 d
    ZADD z 1 a
    ZADD z INCR 1 a
    ZINCRBY z 1 b
    ZREM z a
    ZRANGESTORE y z 0 -1
    ZUNIONSTORE y 1 z
    ZINTERSTORE y 2 z none
    ZREMRANGEBYRANK z 0 0
    ZPOPMIN z
    ZPOPMAX z
    GEOADD g 13 38 a 15 37 b
    GEOSEARCHSTORE g2 g FROMLONLAT 14 37 BYRADIUS 500 km
    GEORADIUS g 14 37 1 m STORE g2
    PFADD p a b
    PFMERGE p2 p
    PFCOUNT p
    XADD x 1-1 f v
    XADD x MAXLEN 1 2-1 f v
    XTRIM x MAXLEN 0
    XADD x 3-1 f v
    XDEL x 3-1
    XSETID x 5-1
    XGROUP CREATE x g 0
    XGROUP CREATECONSUMER x g c
    XADD x 6-1 f v
    XREADGROUP GROUP g c STREAMS x >
    XACK x g 6-1
    XGROUP SETID x g 0
    XGROUP DELCONSUMER x g c
    XGROUP DESTROY x g
    EXPIRE x 100
    EXPIRE x 100 NX
    PERSIST x
    PERSIST x
    EXPIREAT x 1
    RENAME g g3
    RENAMENX g3 g4
    COPY g4 g5
    COPY g4 g6 DB 1
    MOVE g5 1
    RPUSH so 3 1 2
    SORT so STORE so2
    SORT none STORE so2
    GET none
    HGET none f
    LPUSH p x
    INCR so
    FLUSHDB
"#;

/// Commands that look for keys.
const MISSES: &str = r#"
    GET none
    SET none2 x NX
    HGET none f
    LRANGE none 0 -1
    MGET none none2 none3
    EXISTS none none2
    TTL none
    TYPE none
    STRLEN none
    OBJECT ENCODING none
    SMEMBERS none
    SINTER none none2
    ZRANGE none 0 -1
    XLEN none
    DUMP none
    LPOP none
    DEL none
"#;

#[test]
fn keyspace_events_have_the_names_of_redis() {
    if !has_program("redis-server") {
        return;
    }
    // With several threads the keys of one MSET or DEL may tell in another order.
    let servers = [Server::redis(&[]), Server::ours(&["--threads", "1"])];
    let rounds = [
        ("KEA", EVENTS),
        ("AKEn", EVENTS),
        ("Kg$", EVENTS),
        ("Elz", EVENTS),
        ("KEm", MISSES),
    ];
    for (classes, commands) in rounds {
        compare(classes, &servers, |server| {
            let mut client = server.client();
            client.call(&["CONFIG", "SET", "notify-keyspace-events", classes]);
            let mut listener = server.client();
            read(&mut listener, "PSUBSCRIBE __key*__:* end", 2);
            let mut told = Vec::new();
            for line in commands
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
            {
                let words: Vec<&str> = line.split_whitespace().collect();
                client.call(&words);
                // A line of its own, so that a difference names the command.
                client.call(&["PUBLISH", "end", line]);
                loop {
                    let message = listener.reply().expect("a message");
                    let is_end = message.items()[1].text() == "end";
                    told.push(message);
                    if is_end {
                        break;
                    }
                }
            }
            told
        });
    }
}

#[test]
fn an_expired_key_is_told_once() {
    let server = Server::ours(&["--threads", "2", "--notify-keyspace-events", "Ex"]);
    let mut client = server.client();
    let mut listener = server.client();
    read(&mut listener, "PSUBSCRIBE __keyevent@*__:* end", 2);
    client.ask("SET a 1 PX 20");
    let message = listener.reply().unwrap();
    assert_eq!(message.items()[2].text(), "__keyevent@0__:expired");
    assert_eq!(message.items()[3].text(), "a");
    client.ask("DEBUG SET-ACTIVE-EXPIRE 0");
    client.ask("SET b 1 PX 1");
    wait_for("it is expired", LIMIT, || {
        (client.call(&["GET", "b"]) == Reply::Nil).then_some(())
    });
    assert_eq!(listener.reply().unwrap().items()[3].text(), "b");
    client.ask("PUBLISH end x");
    assert_eq!(listener.reply().unwrap().items()[2].text(), "end");
}
