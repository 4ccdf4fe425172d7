//! What readers of a replica see is their primary's states in its order, over all shards, whatever is under way.
//!
//! A primary by hand sends more than the replica can apply at once, so that its groups follow each other as closely as they can. Whoever has
//! read something on one shard must find all that came before it on the others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfsnap_tests::client::frame;
use dfsnap_tests::primary::ScriptedPrimary;
use dfsnap_tests::process::Server;
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for};
use fastrand::Rng;

const KEYS: u64 = 8;
const READERS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);
const REPLID: &str = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";

fn set(out: &mut Vec<u8>, key: &str, value: u64) {
    let value = value.to_string();
    out.extend(frame(&[b"SET", key.as_bytes(), value.as_bytes()]));
}

/// A round of the stream: key after key gets the number of the round, then four keys get it at once; what lies between fills groups.
fn round(out: &mut Vec<u8>, number: u64, random: &mut Rng) {
    for key in 0..KEYS {
        set(out, &format!("key:{key}"), number);
        for _ in 0..random.u64(0..6) {
            set(out, &format!("filling:{}", random.u64(0..500)), number);
        }
        if random.u64(0..200) == 0 {
            // It needs several shards, and runs alone.
            let names = [random.u64(0..500), random.u64(0..500)];
            let [one, other] = names.map(|name| format!("filling:{name}"));
            out.extend(frame(&[b"SUNIONSTORE", b"union", b"no:1", b"no:2"]));
            out.extend(frame(&[
                b"MSET",
                one.as_bytes(),
                b"x",
                other.as_bytes(),
                b"y",
            ]));
        }
    }
    out.extend(frame(&[b"MULTI"]));
    for key in 0..4 {
        set(out, &format!("block:{key}"), number);
    }
    out.extend(frame(&[b"EXEC"]));
}

/// Reads keys one by one, and four at once, and checks that each look is at a state not before that of the look before.
fn read(replica: &Server, seed: u64, is_over: &AtomicBool) -> u64 {
    let mut client = replica.client();
    let mut random = Rng::with_seed(seed);
    // Writes of keys that this reader knows to have happened.
    let (mut floor, mut looks) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let key = random.u64(0..KEYS);
        let found = client.call(&["GET", &format!("key:{key}")]);
        let number = found.number().unwrap_or(0) as u64;
        // The last write of this key among the first `floor`.
        let least = (floor + KEYS - 1 - key) / KEYS;
        assert!(
            number >= least,
            "key:{key} is of round {number}, but {floor} writes were there: it was written in round {least}"
        );
        if number > 0 {
            floor = floor.max((number - 1) * KEYS + key + 1);
        }
        looks += 1;
        if looks % 5 == 0 {
            let found = client.call(&["MGET", "block:0", "block:1", "block:2", "block:3"]);
            let numbers: Vec<u64> = (found.items().iter())
                .map(|value| value.number().unwrap_or(0) as u64)
                .collect();
            assert!(
                numbers.iter().all(|number| *number == numbers[0]),
                "half a block: {numbers:?}"
            );
            let least = floor.saturating_sub(1) / KEYS;
            assert!(numbers[0] >= least, "block {}, not {least}", numbers[0]);
            floor = floor.max(numbers[0] * KEYS);
        }
    }
    looks
}

#[test]
fn who_has_read_a_write_finds_all_that_came_before_it_on_every_shard() {
    let seed = seed("replica_reads");
    let primary = ScriptedPrimary::start();
    for threads in ["2", "4"] {
        let replica = Server::ours(&["--threads", threads]);
        let mut client = replica.client();
        client.call(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        let mut link = primary.asked();
        link.full(REPLID, 0, b"REDIS0009\xff\0\0\0\0\0\0\0\0");
        // Nothing follows the mark before the first ACK.
        wait_for("the link is up", LIMIT, || {
            (client.info("master_link_status")? == "up").then_some(())
        });
        let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let (sent, is_over) = (&sent, &is_over);
        let replica = &replica;
        let (link, rounds) = std::thread::scope(|scope| {
            let readers = (0..READERS)
                .map(|n| scope.spawn(move || read(replica, seed.wrapping_add(n), is_over)));
            let readers: Vec<_> = readers.collect();
            let _over = SetOnDrop(is_over);
            let (began, mut random) = (Instant::now(), Rng::with_seed(seed));
            let (mut bytes, mut rounds) = (Vec::new(), 0);
            while began.elapsed() < seconds(4) && readers.iter().all(|r| !r.is_finished()) {
                bytes.clear();
                for _ in 0..random.u64(1..200) {
                    rounds += 1;
                    round(&mut bytes, rounds, &mut random);
                }
                assert!(link.send(&bytes), "the replica is there");
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            wait_for("all is applied", LIMIT, || {
                let all = sent.load(Ordering::Relaxed);
                (link.acked() == all || readers.iter().any(|r| r.is_finished())).then_some(())
            });
            is_over.store(true, Ordering::Relaxed);
            let looks: u64 = readers
                .into_iter()
                .map(|r| r.join().expect("a reader"))
                .sum();
            println!("{threads} threads: {rounds} rounds, {looks} looks");
            (link, rounds)
        });
        for key in 0..KEYS {
            let text = client.ask(&format!("GET key:{key}")).text();
            assert_eq!(text, rounds.to_string());
        }
        drop(link);
    }
}
