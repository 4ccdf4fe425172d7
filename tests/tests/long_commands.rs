//! Commands over large collections run beside their shard: their replies are Redis', each is one point of the order, and others go on.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
/// Beyond what a command does on its shard's thread.
const ELEMENTS: usize = 20_000;

/// Fills collections of every type, all in one slot; the same in every server.
fn fill(client: &mut Client) {
    for from in (0..ELEMENTS).step_by(1000) {
        let numbers = || from..from + 1000;
        let with = |head: &[&str], each: &dyn Fn(usize) -> Vec<String>| -> Vec<String> {
            let head = head.iter().map(|word| (*word).to_owned());
            head.chain(numbers().flat_map(each)).collect()
        };
        let commands = [
            with(&["SADD", "{t}a"], &|n| vec![format!("m{n}")]),
            with(&["SADD", "{t}b"], &|n| vec![format!("m{}", n * 2)]),
            with(&["HSET", "{t}h"], &|n| {
                vec![format!("f{n}"), format!("v{n}")]
            }),
            with(&["RPUSH", "{t}l"], &|n| {
                vec![(n * 7919 % ELEMENTS).to_string()]
            }),
            with(&["ZADD", "{t}z"], &|n| {
                vec![(n % 1000).to_string(), format!("m{n}")]
            }),
        ];
        for words in commands {
            assert!(!client.call(&words).is_error());
        }
        for n in numbers() {
            let id = format!("1-{}", n + 1);
            client
                .send(&["XADD", "{t}x", &id, "f", "v"])
                .expect("a server that reads");
        }
        for _ in numbers() {
            assert!(!client.reply().expect("a reply").is_error());
        }
    }
}

const COMMANDS: &[&str] = &[
    "SMEMBERS {t}a",
    "SUNION {t}a {t}b",
    "SINTER {t}a {t}b",
    "SDIFF {t}a {t}b",
    "SUNIONSTORE {t}d {t}a {t}b",
    "SCARD {t}d",
    "SINTERSTORE {t}d {t}a {t}b",
    "SCARD {t}d",
    "SDIFFSTORE {t}a {t}a {t}b",
    "SCARD {t}a",
    "HGETALL {t}h",
    "HKEYS {t}h",
    "HVALS {t}h",
    "LRANGE {t}l 0 -1",
    "LRANGE {t}l 100 17000",
    "LPOS {t}l 1234",
    "SORT {t}l",
    "SORT {t}l LIMIT 5 10 DESC",
    "SORT {t}l STORE {t}sorted",
    "LLEN {t}sorted",
    "SORT_RO {t}l ALPHA LIMIT 0 17000",
    "SORT {t}h",
    "ZRANGE {t}z 0 -1",
    "ZRANGE {t}z 0 -1 REV WITHSCORES",
    "ZRANGEBYSCORE {t}z 10 990",
    "ZRANGESTORE {t}zd {t}z 0 18000",
    "ZCARD {t}zd",
    "ZUNION 2 {t}z {t}b WITHSCORES",
    "ZINTERSTORE {t}zd 2 {t}z {t}b WEIGHTS 2 3",
    "ZRANGE {t}zd 0 -1 WITHSCORES",
    "ZDIFF 2 {t}z {t}b",
    "ZINTERCARD 2 {t}z {t}b",
    "XRANGE {t}x - +",
    "XREVRANGE {t}x + - COUNT 18000",
    "XRANGE {t}x 1-5 1-9",
    "SMEMBERS {t}l",
    "TTL {t}d",
    "OBJECT ENCODING {t}sorted",
    "COPY {t}z {t}copy",
    "ZCARD {t}copy",
    "COPY {t}z {t}copy DB 1",
    "COPY {t}z {t}copy DB 1 REPLACE",
    "ZREMRANGEBYRANK {t}copy 100 17000",
    "ZRANGE {t}copy 90 110",
    "LREM {t}l 0 1234",
    "LTRIM {t}l 18000 18100",
    "LRANGE {t}l 0 5",
    "RESTORE {t}sorted 0 nonsense",
    "SETRANGE {t}s 3000000 x",
    "BITCOUNT {t}s",
    "BITPOS {t}s 1",
    "BITPOS {t}s 0",
    "BITPOS {t}s 1 0 2999999",
    "BITOP OR {t}o {t}s {t}s {t}none",
    "BITCOUNT {t}o",
    "BITOP XOR {t}o {t}s {t}s",
    "BITCOUNT {t}o",
    "BITOP AND {t}o {t}s {t}none",
    "BITCOUNT {t}o",
    "BITOP NOT {t}o {t}s",
    "BITCOUNT {t}o",
    "BITPOS {t}o 0",
    "SET {t}short abc",
    "BITOP AND {t}and {t}o {t}short",
    "BITCOUNT {t}and",
    "BITOP OR {t}or {t}short {t}s",
    "GETRANGE {t}or 0 2500000",
    "GET {t}or",
    "GETRANGE {t}s 2999990 -1",
    "APPEND {t}s yz",
    "SETBIT {t}s 40000000 1",
    "BITCOUNT {t}s 5 39000000 BIT",
    "BITFIELD {t}s SET u8 41000000 255 GET u8 41000000",
    "STRLEN {t}s",
    "BITCOUNT {t}l",
    "GET {t}l",
    "MULTI",
    "INCR {t}i",
    "SORT {t}b ALPHA LIMIT 0 5",
    "INCR {t}i",
    "BITCOUNT {t}s",
    "ZUNIONSTORE {t}zu 2 {t}z {t}zd",
    "GET {t}i",
    "LPOP {t}b",
    "EXEC",
    "GET {t}i",
];

/// Sets and hashes have no order of their own.
fn comparable(command: &str, reply: Reply) -> Reply {
    let has_no_order = [
        "SMEMBERS", "SUNION ", "SINTER ", "SDIFF ", "HGETALL", "HKEYS", "HVALS",
    ];
    let Reply::Array(mut items) = reply else {
        return reply;
    };
    if has_no_order.iter().any(|name| command.starts_with(name)) {
        items.sort_by_cached_key(|item| format!("{item:?}"));
    }
    Reply::Array(items)
}

#[test]
fn replies_and_results_are_those_of_redis() {
    assert!(has_program("redis-server"), "install redis-server");
    let redis = Server::redis(&[]);
    let mut theirs = redis.client();
    fill(&mut theirs);
    let expected: Vec<Reply> = COMMANDS
        .iter()
        .map(|command| {
            let words: Vec<&str> = command.split(' ').collect();
            comparable(command, theirs.call(&words))
        })
        .collect();
    for threads in ["1", "3"] {
        let ours = Server::ours(&["--threads", threads]);
        let mut client = ours.client();
        fill(&mut client);
        // One behind the other in one go: each waits for those before it.
        for command in COMMANDS {
            let words: Vec<&str> = command.split(' ').collect();
            client.send(&words).expect("a server that reads");
        }
        for (command, expected) in COMMANDS.iter().zip(&expected) {
            let reply = comparable(command, client.reply().expect("a reply"));
            assert!(
                reply == *expected,
                "{threads} threads: {command}: {:.200} instead of {:.200}",
                format!("{reply:?}"),
                format!("{expected:?}")
            );
        }
        assert_eq!(ours.digest(), redis.digest(), "{threads} threads");
        for command in [
            "SRANDMEMBER {t}b 17000",
            "HRANDFIELD {t}h -17000",
            "ZRANDMEMBER {t}z 17000",
        ] {
            assert_eq!(client.ask(command).items().len(), 17_000, "{command}");
        }
        let stats = client.ask("INFO commandstats").text();
        assert!(stats.contains("cmdstat_smembers:calls=2,"), "{stats}");
        assert!(stats.contains("cmdstat_sort:calls=5,"), "{stats}");
    }
}

/// Members move between two sets one by one and two by two, while others read both at once, save, and follow.
#[test]
fn a_long_command_sees_one_point_of_the_order() {
    let seed = seed("long_commands");
    for threads in ["1", "2"] {
        let primary = Server::ours(&["--threads", threads, "--enable-debug-command", "yes"]);
        let mut client = primary.client();
        fill(&mut client);
        client.ask("DEL {t}b");
        let replica = Server::ours(&["--threads", "2"]);
        let port = primary.port.to_string();
        replica.client().ask(&format!("REPLICAOF 127.0.0.1 {port}"));
        let is_over = AtomicBool::new(false);
        let until = Instant::now() + seconds(4);
        std::thread::scope(|scope| {
            let _end = SetOnDrop(&is_over);
            for mover in 0..2u64 {
                let (primary, is_over) = (&primary, &is_over);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ mover);
                    let mut client = primary.client();
                    while !is_over.load(Ordering::Relaxed) {
                        let member = format!("m{}", random.usize(..ELEMENTS));
                        let (from, to) = match random.bool() {
                            true => ("{t}a", "{t}b"),
                            false => ("{t}b", "{t}a"),
                        };
                        client.call(&["SMOVE", from, to, &member]);
                    }
                });
            }
            let (primary, is_over) = (&primary, &is_over);
            scope.spawn(move || {
                let mut client = primary.client();
                while !is_over.load(Ordering::Relaxed) {
                    client.ask("SUNIONSTORE {t}all {t}a {t}b");
                    // One may be at work.
                    client.call(&["BGSAVE"]);
                }
            });
            while Instant::now() < until {
                let reply = client.ask("SUNION {t}a {t}b");
                assert_eq!(reply.items().len(), ELEMENTS);
                // What is too long for the shard's thread stands between what is not.
                let both = client
                    .transaction(&[
                        vec![b"SCARD".to_vec(), b"{t}a".to_vec()],
                        vec![b"SUNION".to_vec(), b"{t}a".to_vec(), b"{t}b".to_vec()],
                        vec![b"SCARD".to_vec(), b"{t}b".to_vec()],
                    ])
                    .expect("an answer");
                let cards: i64 = both.items().iter().filter_map(Reply::number).sum();
                assert_eq!(cards as usize, ELEMENTS);
                assert_eq!(both.items()[1].items().len(), ELEMENTS);
                // What is lent for a while is still there.
                let keys = client.ask("DBSIZE").number();
                assert!(keys >= Some(6), "{keys:?} keys");
            }
        });
        wait_for("the replica has it all", LIMIT, || {
            let offset = |server: &Server, name| server.client().info(name);
            (offset(&primary, "master_repl_offset")? == offset(&replica, "slave_repl_offset")?)
                .then_some(())
        });
        assert_eq!(primary.digest(), replica.digest(), "{threads} threads");
    }
}

/// Requests of megabytes, and of thousands of words, between small ones of the same pipeline.
#[test]
fn long_requests_are_answered_in_their_place() {
    let big = |letter: u8, len: usize| vec![letter; len];
    let members = |head: &[&str], count: usize| -> Vec<Vec<u8>> {
        let head = head.iter().map(|word| word.as_bytes().to_vec());
        head.chain((0..count).map(|n| n.to_string().into_bytes()))
            .collect()
    };
    let small = |line: &str| -> Vec<Vec<u8>> {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    let with = |line: &str, value: Vec<u8>| [small(line), vec![value]].concat();
    let requests = [
        small("SET a 1"),
        with("SET big", big(b'x', 5 << 20)),
        small("INCR a"),
        with("APPEND big", big(b'y', 3 << 20)),
        with("SET other", big(b'z', 3 << 19)),
        members(&["RPUSH", "l"], 40_000),
        members(&["SADD", "s"], 40_000),
        with("RPUSH big", big(b'w', 3 << 20)),
        small("LLEN l"),
        small("MULTI"),
        with("GETSET big", big(b'v', 3 << 20)),
        members(&["SREM", "s"], 20_000),
        small("EXEC"),
        small("SCARD s"),
        with("SET big", big(b'u', 3 << 20)),
        with("ECHO", big(b't', 3 << 20)),
        with("PING", big(b's', 3 << 20)),
        with("SETEX c 1000", big(b'r', 3 << 20)),
        with("NOSUCH", big(b'q', 3 << 20)),
        small("STRLEN big"),
        small("GET a"),
    ];
    let bytes: Vec<u8> = requests
        .iter()
        .flat_map(|words| frame(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()))
        .collect();
    let ask = |server: &Server| -> Vec<Reply> {
        let mut client = server.client();
        let mut writer = client.stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).expect("a server that reads"));
            let mut reply = |_| client.reply().expect("a reply");
            requests.iter().map(&mut reply).collect()
        })
    };
    let redis = Server::redis(&[]);
    let expected = ask(&redis);
    for threads in ["1", "3"] {
        let ours = Server::ours(&["--threads", threads]);
        let replies = ask(&ours);
        for ((request, reply), expected) in requests.iter().zip(&replies).zip(&expected) {
            let name = String::from_utf8_lossy(&request[0]);
            assert!(
                reply == expected,
                "{threads} threads: {name}: {:.200} instead of {:.200}",
                format!("{reply:?}"),
                format!("{expected:?}")
            );
        }
        assert_eq!(ours.digest(), redis.digest(), "{threads} threads");
    }
}

/// How many PINGs were answered between the sending of a command and its reply.
fn pongs_beside(server: &Server, before: &[&str], command: &str) -> usize {
    let (mut client, mut pinger) = (server.client(), server.client());
    for command in before {
        client.ask(command);
    }
    let words: Vec<&str> = command.split(' ').collect();
    client.send(&words).expect("a server that reads");
    client
        .stream
        .set_nonblocking(true)
        .expect("a socket of ours");
    let mut pongs = 0;
    while client.stream.peek(&mut [0]).is_err() {
        pinger.ask("PING");
        pongs += 1;
    }
    client
        .stream
        .set_nonblocking(false)
        .expect("a socket of ours");
    assert!(!client.reply().expect("a reply").is_error(), "{command}");
    pongs
}

/// Who holds the thread answers no more PINGs than those that come just before and just behind.
#[test]
fn others_go_on_beside_strings_transactions_and_keys_of_several_shards() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads]);
        let mut client = server.client();
        fill(&mut client);
        client.ask("SETRANGE {t}s 40000000 x");
        for name in ["{1}c", "{2}c", "{3}c", "{4}c"] {
            client.ask(&format!("SUNIONSTORE {name} {{t}}a {{t}}b"));
        }
        let rows: &[(&[&str], &str)] = &[
            (&[], "BITCOUNT {t}s"),
            (&[], "BITOP OR {t}o {t}s {t}s"),
            (&[], "BITPOS {t}s 1"),
            (&["MULTI", "INCR {t}i", "SORT {t}l ALPHA"], "EXEC"),
            (&["MULTI", "ZUNIONSTORE {t}zu 2 {t}z {t}a"], "EXEC"),
            (&[], "SUNIONSTORE {5}d {1}c {2}c {3}c {4}c"),
            (&["MULTI", "SCARD {1}c", "SINTER {1}c {2}c {3}c"], "EXEC"),
        ];
        for (before, command) in rows {
            wait_for(
                &format!("{threads} threads: PINGs beside {before:?} {command}"),
                LIMIT,
                || (pongs_beside(&server, before, command) > 10).then_some(()),
            );
        }
    }
}

#[test]
fn a_watched_key_that_a_long_command_writes_has_changed() {
    let server = Server::ours(&["--threads", "2"]);
    let (mut writer, mut watcher) = (server.client(), server.client());
    fill(&mut writer);
    writer.ask("SET {t}d old");
    watcher.ask("WATCH {t}d");
    writer.ask("SUNIONSTORE {t}d {t}a {t}b");
    watcher.ask("MULTI");
    watcher.ask("TYPE {t}d");
    assert_eq!(watcher.ask("EXEC"), Reply::Nil);
    // One that only read has changed nothing.
    watcher.ask("WATCH {t}a");
    writer.ask("SMEMBERS {t}a");
    watcher.ask("MULTI");
    watcher.ask("TYPE {t}a");
    assert_eq!(watcher.ask("EXEC").items().len(), 1);
}

/// A save that must not write more than a little takes minutes; who reads what it has not saved yet does not wait for it.
#[test]
fn reading_a_large_collection_does_not_wait_for_a_save() {
    let server = Server::ours(&["--threads", "1", "--rdbcompression", "no"]);
    let mut client = server.client();
    fill(&mut client);
    client.ask("CONFIG SET snapshot-rate-limit 10000");
    client.ask("BGSAVE");
    assert_eq!(client.ask("SMEMBERS {t}a").items().len(), ELEMENTS);
    assert_eq!(client.ask("LRANGE {t}l 0 -1").items().len(), ELEMENTS);
    assert_eq!(client.ask("HGETALL {t}h").items().len(), 2 * ELEMENTS);
    assert_eq!(client.info("rdb_bgsave_in_progress").as_deref(), Some("1"));
    client.ask("BGSAVE CANCEL");
}

const TOKENS: usize = 2_000;

/// Every token has one of two names, and changes it all the time; a database comes and goes whole. KEYS sees one moment of it.
#[test]
fn the_names_of_many_keys_are_those_of_one_moment() {
    let seed = seed("names");
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads, "--enable-debug-command", "yes"]);
        let mut client = server.client();
        client.ask("DEBUG POPULATE 200000");
        for token in 0..TOKENS {
            client.ask(&format!("SET token:{token}:a {token}"));
        }
        // Large ones are saved in parts, and have a name all the same.
        fill(&mut client);
        client.ask("SET gone x PX 1");
        client.ask("SET stays x EX 1000");
        wait_for("a key expires", LIMIT, || {
            (client.ask("EXISTS gone").number()? == 0).then_some(())
        });
        let is_over = AtomicBool::new(false);
        let until = Instant::now() + seconds(5);
        std::thread::scope(|scope| {
            let _end = SetOnDrop(&is_over);
            for mover in 0..2usize {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ mover as u64);
                    let mut client = server.client();
                    let mut is_b = vec![false; TOKENS];
                    while !is_over.load(Ordering::Relaxed) {
                        let token = random.usize(..TOKENS / 2) * 2 + mover;
                        let (from, to) = match is_b[token] {
                            true => ("b", "a"),
                            false => ("a", "b"),
                        };
                        is_b[token] = !is_b[token];
                        client.ask(&format!("RENAME token:{token}:{from} token:{token}:{to}"));
                    }
                });
            }
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut client = server.client();
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // Under a save the walk is another one.
                    if round % 3000 == 0 {
                        client.call(&["BGSAVE"]);
                    }
                    round += 1;
                    client.ask("SADD {t}a new");
                    client.ask("SREM {t}a new");
                }
            });
            while Instant::now() < until {
                let mut names: Vec<_> = client
                    .ask("KEYS token:*")
                    .items()
                    .iter()
                    .map(|name| name.text().rsplit_once(':').expect("a token").0.to_owned())
                    .collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), TOKENS);
                assert_eq!(client.ask("KEYS {t}?").items().len(), 6);
                assert_eq!(client.ask("KEYS *s").items().len(), 1);
            }
        });
        // All or nothing, whatever becomes of the database.
        let all = client.ask("DBSIZE").number().expect("a number") as usize;
        std::thread::scope(|scope| {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for _ in 0..20 {
                    client.ask("SWAPDB 0 1");
                }
                client.ask("FLUSHALL");
            });
            loop {
                let seen = client.ask("KEYS *").items().len();
                assert!([0, all].contains(&seen), "{seen} of {all}");
                if client.ask("DBSIZE").number() == Some(0) && seen == 0 {
                    let mut other = server.client();
                    other.ask("SELECT 1");
                    if other.ask("DBSIZE").number() == Some(0) {
                        break;
                    }
                }
            }
        });
    }
}
