//! Histories of single commands, MSET, MGET, MULTI, RENAME and FLUSHALL from many connections are strictly serializable.
//!
//! Few keys and many connections, so that commands meet; short rounds, so that the search for an order stays small.

use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::Server;
use dfsnap_tests::serial::{Action, Step, check, words};
use dfsnap_tests::{seconds, seed, words};
use fastrand::Rng;

const KEYS: usize = 5;
const CONNECTIONS: u64 = 6;
const STEPS: usize = 60;

/// Some of the keys, in any order, each once.
fn some_keys(rng: &mut Rng) -> Vec<usize> {
    let mut keys: Vec<usize> = (0..KEYS).collect();
    rng.shuffle(&mut keys);
    keys.truncate(rng.usize(1..=KEYS));
    keys
}

fn action(rng: &mut Rng, value: &mut i64) -> Action {
    *value += 1;
    let value = *value;
    let key = rng.usize(..KEYS);
    match rng.u32(..40) {
        0..6 => Action::Get(key),
        6..10 => Action::Set(key, value),
        10..13 => Action::GetSet(key, value),
        13..18 => Action::Incr(key),
        18..20 => Action::Del(some_keys(rng)),
        20..28 => Action::Mget(some_keys(rng)),
        28..35 => Action::Mset(some_keys(rng).into_iter().map(|key| (key, value)).collect()),
        35..39 => Action::Rename(key, (key + 1) % KEYS),
        _ => Action::FlushAll,
    }
}

/// One connection's part of a round. Values are its own: no other writes them, and INCR seldom comes to them.
fn run(port: u16, mut rng: Rng, connection: u64) -> Vec<Step> {
    let mut client = Client::connect(port).expect("a connection");
    let mut value = (connection as i64 + 1) * 1_000_000;
    let mut steps = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        let count = if rng.u32(..3) == 0 {
            rng.usize(2..5)
        } else {
            1
        };
        let actions: Vec<Action> = (0..count).map(|_| action(&mut rng, &mut value)).collect();
        let commands: Vec<_> = actions.iter().map(words).collect();
        let sent = Instant::now();
        let replies = match commands.as_slice() {
            [command] => vec![client.call(command)],
            block => client.transaction(block).expect("EXEC").items().to_vec(),
        };
        let acked = Instant::now();
        steps.push(Step {
            sent,
            acked,
            actions,
            replies,
        });
    }
    steps
}

fn is_serializable(threads: &str) {
    let name = format!("serializability, {threads} threads");
    let mut rng = Rng::with_seed(seed(&name));
    let server = Server::ours(&["--threads", threads]);
    let port = server.port;
    let end = Instant::now() + seconds(6);
    let (mut rounds, mut steps) = (0, 0);
    while Instant::now() < end {
        server.client().ask("FLUSHALL");
        // Every other round with a log that follows the writes, which takes other paths.
        let _replica = (rounds % 2 == 1).then(|| start_log(&server));
        let history: Vec<Vec<Step>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|connection| {
                    let rng = rng.fork();
                    scope.spawn(move || run(port, rng, connection))
                })
                .collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().expect("a connection"));
            joined.collect()
        });
        steps += history.iter().map(Vec::len).sum::<usize>();
        check(KEYS, &history).unwrap_or_else(|error| panic!("round {rounds}: {error}"));
        rounds += 1;
    }
    println!("{name}: {rounds} rounds, {steps} transactions");
}

/// Asks for the stream, as a replica does.
fn start_log(server: &Server) -> Client {
    let mut client = server.client();
    client.send(&["PSYNC", "?", "-1"]).expect("PSYNC");
    let line = client.line().expect("a line");
    assert!(line.starts_with("+FULLRESYNC "), "{line}");
    client
}

#[test]
fn histories_with_two_threads_are_strictly_serializable() {
    is_serializable("2");
}

#[test]
fn histories_with_four_threads_are_strictly_serializable() {
    is_serializable("4");
}

#[test]
fn a_watched_counter_loses_no_update() {
    let server = Server::ours(&["--threads", "3"]);
    let end = Instant::now() + Duration::from_secs(2);
    let done: i64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut done) = (server.client(), 0);
                    while Instant::now() < end {
                        client.ask("WATCH counter other");
                        let count = client.ask("GET counter").number().unwrap_or(0);
                        let block = [words!["SET", "counter", count + 1], words!["INCR", "also"]];
                        let reply = client.transaction(&block).expect("EXEC");
                        done += i64::from(reply != Reply::Nil);
                    }
                    done
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .sum()
    });
    let mut client = server.client();
    assert_eq!(client.ask("GET counter").number(), Some(done));
    assert_eq!(client.ask("GET also").number(), Some(done));
    println!("{done} blocks ran");
    assert!(done > 0);
}
