//! Blocked clients: who is served, with what, in which order; compared with a real server, and nothing lost or taken twice under load.
//!
//! A scenario is a list of lines, each `client: command` (sent, and its reply read), `client! command` (sent; the client blocks),
//! `client~ command` (sent; it blocks for a moment), `client?` (its reply is read now) or `client.` (it goes).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs a scenario; what each reply was, with the line that read it.
fn play(server: &Server, scenario: &str) -> Vec<(String, Reply)> {
    let mut control = server.client();
    control.ask("FLUSHALL");
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut replies = Vec::new();
    let mut blocked = 0;
    for line in scenario
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let at = line
            .find([':', '!', '~', '?', '.'])
            .expect("a client's name");
        let (name, rest) = line.split_at(at);
        let (mark, command) = rest.split_at(1);
        let client = clients
            .entry(name.to_owned())
            .or_insert_with(|| server.client());
        let words: Vec<&str> = command.split_whitespace().collect();
        match mark {
            ":" => replies.push((line.to_owned(), client.call(&words))),
            "!" => {
                client.send(&words).expect("a server that reads");
                blocked += 1;
                let wanted = blocked.to_string();
                wait_for(line, LIMIT, || {
                    (control.info("blocked_clients")? == wanted).then_some(())
                });
            }
            // Its time may be over before anybody has looked.
            "~" => {
                client.send(&words).expect("a server that reads");
                blocked += 1;
            }
            "?" => {
                replies.push((line.to_owned(), client.reply().expect("a reply")));
                blocked -= 1;
            }
            _ => {
                clients.remove(name);
                blocked -= 1;
                let wanted = blocked.to_string();
                wait_for(line, LIMIT, || {
                    (control.info("blocked_clients")? == wanted).then_some(())
                });
            }
        }
    }
    replies
}

const SCENARIOS: &[(&str, &str)] = &[
    (
        "the oldest of a key's waiters is served first",
        "a! BLPOP k 0
         b! BRPOP k other 0
         c! BLMPOP 0 2 other k LEFT COUNT 2
         p: RPUSH k 1 2 3 4 5
         a?
         b?
         c?
         p: LRANGE k 0 -1",
    ),
    (
        "a client blocked on several keys is served once",
        "a! BLPOP k1 k2 k3 k4 k5 0
         p: RPUSH k4 x
         a?
         p: RPUSH k1 y
         p: RPUSH k5 z
         p: LRANGE k1 0 -1
         p: LRANGE k5 0 -1
         a: BLPOP k1 k2 k3 k4 k5 0
         a: BLPOP k1 k2 k3 k4 k5 0
         p: DBSIZE",
    ),
    (
        "a timeout ends the wait and later elements stay",
        "a~ BLPOP k1 k2 0.05
         a?
         b~ BZPOPMIN k1 k2 0.05
         b?
         c~ BLMOVE k1 k2 LEFT RIGHT 0.05
         c?
         d~ XREAD BLOCK 50 STREAMS k1 $
         d?
         p: RPUSH k1 x
         p: RPUSH k2 y
         p: LLEN k1
         p: LLEN k2",
    ),
    (
        "who has gone takes nothing",
        "a! BLPOP k1 k2 0
         b! BLMOVE k1 to RIGHT LEFT 0
         a.
         p: RPUSH k1 x
         b?
         p: RPUSH k2 y
         p: LRANGE k2 0 -1
         p: LRANGE to 0 -1",
    ),
    (
        "another type does not wake a waiter, the right one later does",
        "a! BLPOP k 0
         p: SADD k m
         p: DEL k
         p: ZADD k 1 m
         p: DEL k
         p: RPUSH k x
         a?
         b! BZPOPMAX k 0
         p: RPUSH k x
         p: DEL k
         p: ZADD k 1 m 2 n
         b?
         p: ZRANGE k 0 -1",
    ),
    (
        "a transaction is over before waiters are served",
        "a! BLPOP k 0
         p: MULTI
         p: RPUSH k 1
         p: LPOP k
         p: SADD k 2
         p: DEL k
         p: RPUSH k 3
         p: RPUSH k 4
         p: EXEC
         a?
         p: LRANGE k 0 -1",
    ),
    (
        "nothing blocks inside a transaction",
        "p: MULTI
         p: BLPOP k1 k2 0
         p: BLMOVE k1 k2 LEFT LEFT 0
         p: BRPOPLPUSH k1 k2 0
         p: BLMPOP 0 1 k1 LEFT
         p: BZPOPMIN k1 k2 0
         p: BZMPOP 0 1 k1 MIN
         p: XREAD BLOCK 0 STREAMS k1 $
         p: EXEC",
    ),
    (
        "moves go on along a chain",
        "a! BLMOVE k1 k2 LEFT RIGHT 0
         b! BLMOVE k2 k3 LEFT RIGHT 0
         c! BRPOPLPUSH k3 k4 0
         d! BLPOP k4 0
         p: RPUSH k1 x
         a?
         b?
         c?
         d?
         p: DBSIZE",
    ),
    (
        "a circle of moves turns once",
        "a! BRPOPLPUSH k1 k2 0
         b! BRPOPLPUSH k2 k1 0
         p: RPUSH k1 x
         a?
         b?
         p: LRANGE k1 0 -1
         p: LRANGE k2 0 -1",
    ),
    (
        "a list moved onto itself",
        "a! BRPOPLPUSH k k 0
         p: RPUSH k 1 2
         a?
         p: LRANGE k 0 -1",
    ),
    (
        "a move into another type fails, and the next waiter gets the element",
        "p: SET to x
         a! BLMOVE k to LEFT LEFT 0
         b! BLPOP k 0
         p: RPUSH k 1 2
         a?
         b?
         p: LRANGE k 0 -1",
    ),
    (
        "keys that come by other ways are ready too",
        "p: RPUSH src 1 2 3
         a! BLPOP k 0
         p: RENAME src k
         a?
         b! BLPOP k2 0
         p: COPY k k2
         b?
         c! BLPOP k3 0
         p: SORT k STORE k3
         c?
         q: SELECT 1
         q: RPUSH k4 y
         d! BLPOP k4 0
         q: MOVE k4 0
         d?
         e! BLPOP k5 0
         p: LMOVE k k5 LEFT LEFT
         e?
         p: ZADD z 1 a
         f! BZPOPMIN z2 0
         p: ZRANGESTORE z2 z 0 -1
         f?
         g! BZMPOP 0 2 z3 z4 MAX COUNT 2
         p: ZUNIONSTORE z3 2 z none
         g?",
    ),
    (
        "databases change places",
        "q: SELECT 1
         q: RPUSH k 1 2
         a! BLPOP none k 0
         b! BZPOPMIN k 0
         p: SWAPDB 0 1
         a?
         q: LRANGE k 0 -1
         p: LRANGE k 0 -1
         p: DEL k
         p: ZADD k 1 m
         b?",
    ),
    (
        "streams",
        "p: XADD s 1-1 f v
         a! XREAD BLOCK 0 COUNT 2 STREAMS s t $ $
         b! XREAD BLOCK 0 STREAMS t s 0 1-1
         c! XREAD BLOCK 0 STREAMS s 9-9
         p: XADD s 2-1 f v
         a?
         b?
         p: XADD s 10-0 f v
         c?
         d: XREAD BLOCK 0 STREAMS s t 5 0
         p: XGROUP CREATE s g $
         p: XGROUP CREATE t g $ MKSTREAM
         e! XREADGROUP GROUP g c BLOCK 0 STREAMS s t > >
         f! XREADGROUP GROUP g d BLOCK 0 STREAMS s t > >
         p: XADD t 1-1 f v
         e?
         p: XADD s 11-1 f v
         f?
         p: XPENDING s g
         p: XPENDING t g",
    ),
    (
        "several pushes in one transaction serve several",
        "a! BLPOP k1 0
         b! BLPOP k2 0
         c! BZPOPMIN k3 0
         p: MULTI
         p: RPUSH k2 y
         p: ZADD k3 1.5 z
         p: RPUSH k1 x
         p: EXEC
         a?
         b?
         c?
         p: DBSIZE",
    ),
    (
        "pipelined commands wait",
        "a! BLPOP k 0
         p: RPUSH k x
         a?
         a: LLEN k",
    ),
    // Who waited used to get what was in a key whose time had come meanwhile.
    (
        "a key that expires in the run that fills it",
        "p: DEBUG SET-ACTIVE-EXPIRE 0
         a! BLPOP k 0
         p: MULTI
         p: RPUSH k x
         p: PEXPIRE k 30
         p: DEBUG SLEEP 0.1
         p: EXEC
         p: RPUSH k y
         a?
         p: DEBUG SET-ACTIVE-EXPIRE 1",
    ),
];

#[test]
fn scenarios_go_as_with_redis() {
    if !has_program("redis-server") {
        return;
    }
    let redis = Server::redis(&[]);
    let wanted: Vec<_> = SCENARIOS
        .iter()
        .map(|(_, scenario)| play(&redis, scenario))
        .collect();
    for threads in ["1", "2", "4"] {
        let ours = Server::ours(&["--threads", threads]);
        for ((name, scenario), wanted) in SCENARIOS.iter().zip(&wanted) {
            let got = play(&ours, scenario);
            for (got, wanted) in got.iter().zip(wanted) {
                assert_eq!(got, wanted, "{name}, with {threads} threads");
            }
        }
    }
}

#[test]
fn client_unblock_ends_a_wait() {
    let server = Server::ours(&["--threads", "2"]);
    let mut control = server.client();
    let mut blocked = server.client();
    let id = blocked.ask("CLIENT ID").number().expect("an id");
    for (how, wanted) in [
        ("TIMEOUT", Reply::Nil),
        (
            "ERROR",
            Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
        ),
    ] {
        blocked.send(&["BLPOP", "k1", "k2", "k3", "0"]).unwrap();
        wait_for("blocked", LIMIT, || {
            (control.info("blocked_clients")? == "1").then_some(())
        });
        let reply = control.ask(&format!("CLIENT UNBLOCK {id} {how}"));
        assert_eq!(reply, Reply::Int(1), "{how}");
        assert_eq!(blocked.reply().unwrap(), wanted, "{how}");
        assert_eq!(control.ask(&format!("CLIENT UNBLOCK {id}")), Reply::Int(0));
        for key in ["k1", "k2", "k3"] {
            control.ask(&format!("RPUSH {key} x"));
            assert_eq!(control.ask(&format!("LPOP {key}")).text(), "x");
        }
    }
}

#[test]
fn a_stream_that_goes_ends_the_waits_of_its_groups() {
    let server = Server::ours(&["--threads", "2"]);
    let mut control = server.client();
    for (command, code) in [
        ("DEL s", "NOGROUP"),
        ("XGROUP DESTROY s g", "NOGROUP"),
        ("SET s x", "WRONGTYPE"),
        ("FLUSHALL", "NOGROUP"),
    ] {
        control.ask("DEL s");
        control.ask("XGROUP CREATE s g $ MKSTREAM");
        let mut blocked = server.client();
        blocked
            .send(&[
                "XREADGROUP",
                "GROUP",
                "g",
                "c",
                "BLOCK",
                "0",
                "STREAMS",
                "s",
                ">",
            ])
            .unwrap();
        wait_for("blocked", LIMIT, || {
            (control.info("blocked_clients")? == "1").then_some(())
        });
        control.ask(command);
        match blocked.reply().unwrap() {
            Reply::Error(text) => assert!(text.starts_with(code), "{command}: {text}"),
            other => panic!("{command}: {other:?}"),
        }
    }
}

/// Clients that wait for a moment only, on keys of several shards, while elements come and some clients go: every element is
/// where it belongs, once.
#[test]
fn nothing_is_lost_or_taken_twice() {
    let seed = seed("nothing_is_lost_or_taken_twice");
    let server = Server::ours(&["--threads", "4"]);
    let is_over = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    let taken: BTreeSet<u64> = std::thread::scope(|scope| {
        let stop = SetOnDrop(&is_over);
        let poppers: Vec<_> = (0..6)
            .map(|n| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || pop_for_a_moment(server, is_over, seed ^ n))
            })
            .collect();
        for n in 0..3 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || move_and_go(server, is_over, seed ^ n ^ 77));
        }
        let mut pusher = server.client();
        let mut random = fastrand::Rng::with_seed(seed);
        let deadline = Instant::now() + seconds(4);
        while Instant::now() < deadline {
            let value = next.fetch_add(1, Ordering::Relaxed);
            pusher.ask(&format!("RPUSH k{} {value}", random.u8(..6)));
            if random.u8(..4) == 0 {
                std::thread::sleep(Duration::from_micros(random.u64(..2000)));
            }
        }
        drop(stop);
        let mut taken = BTreeSet::new();
        for popper in poppers {
            for value in popper.join().expect("a popper") {
                assert!(taken.insert(value), "{value} was taken twice");
            }
        }
        taken
    });
    let mut client = server.client();
    let mut all = taken.clone();
    for key in ["k0", "k1", "k2", "k3", "k4", "k5", "moved"] {
        for item in client.ask(&format!("LRANGE {key} 0 -1")).items() {
            let value = item.number().expect("a number") as u64;
            assert!(all.insert(value), "{value} is in {key} and elsewhere");
        }
    }
    let pushed = next.load(Ordering::Relaxed);
    println!(
        "{pushed} elements, {} taken, {} left",
        taken.len(),
        all.len() - taken.len()
    );
    assert_eq!(all.len() as u64, pushed, "elements are missing");
    assert_eq!(client.info("blocked_clients").as_deref(), Some("0"));
    assert_eq!(client.info("total_blocking_keys").as_deref(), Some("0"));
}

fn pop_for_a_moment(server: &Server, is_over: &AtomicBool, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = server.client();
    let mut taken = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let (a, b) = (random.u8(..6), random.u8(..6));
        let timeout = random.u8(1..8);
        let reply = client.ask(&format!("BLPOP k{a} k{b} 0.00{timeout}"));
        if let Reply::Array(items) = reply {
            taken.push(items[1].number().expect("a number") as u64);
        }
    }
    taken
}

/// Moves elements to one list, and often goes while it waits.
fn move_and_go(server: &Server, is_over: &AtomicBool, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !is_over.load(Ordering::Relaxed) {
        let mut client = server.client();
        let command = format!("BLMOVE k{} moved LEFT RIGHT 0.01", random.u8(..6));
        let words: Vec<&str> = command.split_whitespace().collect();
        for _ in 0..3 {
            client.send(&words).expect("a server that reads");
            if random.bool() {
                std::thread::sleep(Duration::from_micros(random.u64(..3000)));
                break;
            }
            client.reply().expect("a reply");
        }
    }
}

/// Clients that wait for a move to another shard come and go at the head of the queue; those behind them get every element all the same.
#[test]
fn nobody_sleeps_beside_an_element() {
    let seed = seed("nobody_sleeps_beside_an_element");
    let server = Server::ours(&["--threads", "4"]);
    let (movers_over, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = (SetOnDrop(&movers_over), SetOnDrop(&is_over));
        let movers: Vec<_> = (0..3)
            .map(|n| {
                let (server, is_over) = (&server, &movers_over);
                scope.spawn(move || move_and_go(server, is_over, seed ^ n))
            })
            .collect();
        for n in 0..6 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut client = server.client();
                while !is_over.load(Ordering::Relaxed) {
                    client.call(&["BLPOP", &format!("k{n}"), "20"]);
                }
            });
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let mut client = server.client();
        let deadline = Instant::now() + seconds(3);
        while Instant::now() < deadline {
            let key = format!("k{}", random.u8(..6));
            client.ask(&format!("RPUSH {key} x"));
            // Well below the time after which its waiter would look by itself.
            wait_for("it is taken", Duration::from_secs(10), || {
                (client.call(&["LLEN", &key]) == Reply::Int(0)).then_some(())
            });
        }
        movers_over.store(true, Ordering::Relaxed);
        for mover in movers {
            mover.join().expect("a mover");
        }
        // Only those who pop are left: each is woken once.
        is_over.store(true, Ordering::Relaxed);
        for n in 0..6 {
            client.ask(&format!("RPUSH k{n} x"));
        }
    });
}

/// What was served reaches a replica as the commands that do not wait, behind what made the key ready.
#[test]
fn replicas_of_both_kinds_follow() {
    if !has_program("redis-server") {
        return;
    }
    let primary = Server::ours(&["--threads", "2"]);
    let replica = Server::redis(&[]);
    let mut to_replica = replica.client();
    to_replica.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("the link", LIMIT, || {
        (to_replica.info("master_link_status")? == "up").then_some(())
    });
    for (_, scenario) in SCENARIOS {
        play(&primary, scenario);
        let mut client = primary.client();
        client.ask("WAIT 1 20000");
        wait_for("the same offset", LIMIT, || {
            let ours = client.info("master_repl_offset")?;
            (to_replica.info("master_repl_offset")? == ours).then_some(())
        });
        assert_eq!(primary.digest(), replica.digest(), "after: {scenario}");
    }
}
