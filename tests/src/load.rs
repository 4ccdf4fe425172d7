//! A mixed write load: every kind of write on a small set of keys, so that commands meet each other's results.
//!
//! A command is a line of words. In braces: `k` any key, `s l h e z x` a key of one type (string, list, hash, set, sorted
//! set, stream), `v` a value, `m` a member, `n` a small number, `f` a fraction, `at` a time in milliseconds, soon or far.

use std::collections::BTreeMap;
use std::io;

use fastrand::Rng;

use crate::client::{Client, Reply};

/// Lines of all families; errors are part of the load.
const LINES: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {v}",
    "SET {s} {v} PXAT {at}",
    "SET {s} {v} PX 40",
    "SET {s} {v} KEEPTTL GET",
    "SET {s} {v} NX EX 1000",
    "SETEX {s} 1000 {v}",
    "PSETEX {s} 30 {v}",
    "SETNX {s} {v}",
    "GETSET {s} {v}",
    "GETDEL {s}",
    "GETEX {s} PXAT {at}",
    "GETEX {s} PERSIST",
    "MSET {s} {v} {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "APPEND {s} {m}",
    "SETRANGE {s} {n} {m}",
    "SETBIT {s} {n} 1",
    "BITOP XOR {s} {s} {s}",
    "BITFIELD {s} INCRBY u8 {n} 7",
    "INCR {s}",
    "INCRBY {s} {n}",
    "DECRBY {s} {n}",
    "INCRBYFLOAT {s} {f}",
    "DEL {k}",
    "DEL {k} {k} {k}",
    "UNLINK {k} {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k} DB 1 REPLACE",
    "MOVE {k} 1",
    "EXPIRE {k} 1000",
    "PEXPIRE {k} 30",
    "PEXPIREAT {k} {at}",
    "EXPIREAT {k} 1 NX",
    "PERSIST {k}",
    "LPUSH {l} {v} {m}",
    "RPUSH {l} {m} {m} {v}",
    "RPUSHX {l} {m}",
    "LPOP {l}",
    "RPOP {l} 3",
    "LINSERT {l} BEFORE {m} {v}",
    "LSET {l} 1 {v}",
    "LREM {l} 1 {m}",
    "LTRIM {l} 0 40",
    "LMOVE {l} {l} LEFT RIGHT",
    "RPOPLPUSH {l} {l}",
    "LMPOP 2 {l} {l} RIGHT COUNT 2",
    "HSET {h} {m} {v} {m} {n}",
    "HSET {h} {m} {v}",
    "HSETNX {h} {m} {v}",
    "HMSET {h} {m} {v} {m} {v}",
    "HINCRBY {h} c{n} {n}",
    "HINCRBYFLOAT {h} f{n} {f}",
    "HDEL {h} {m} {m}",
    "SADD {e} {m} {m} {n}",
    "SADD {e} {n} {n}",
    "SREM {e} {m} {n}",
    "SPOP {e}",
    "SPOP {e} 3",
    "SMOVE {e} {e} {m}",
    "SUNIONSTORE {e} {e} {e}",
    "SINTERSTORE {e} {e} {e}",
    "SDIFFSTORE {e} {e} {e}",
    "ZADD {z} {f} {m} {n} {m}",
    "ZADD {z} GT CH {n} {m}",
    "ZADD {z} INCR {f} {m}",
    "ZINCRBY {z} {f} {m}",
    "ZREM {z} {m}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} 2",
    "ZMPOP 2 {z} {z} MIN COUNT 2",
    "ZRANGESTORE {z} {z} 0 20",
    "ZUNIONSTORE {z} 2 {z} {z} WEIGHTS 2 1",
    "ZINTERSTORE {z} 2 {z} {z} AGGREGATE MAX",
    "ZDIFFSTORE {z} 2 {z} {z}",
    "ZREMRANGEBYRANK {z} 30 40",
    "ZREMRANGEBYSCORE {z} 900 1000",
    "ZUNIONSTORE {z} 2 {e} {z}",
    "XADD {x} * {m} {v}",
    "XADD {x} MAXLEN ~ 200 * {m} {v} a {n}",
    "XADD {x} NOMKSTREAM * {m} {v}",
    "XTRIM {x} MAXLEN 100",
    "XGROUP CREATE {x} g $ MKSTREAM",
    "XGROUP CREATECONSUMER {x} g c{n}",
    "XGROUP SETID {x} g 0",
    "XREADGROUP GROUP g c1 COUNT 3 STREAMS {x} >",
    "XREADGROUP GROUP g c2 COUNT 2 NOACK STREAMS {x} >",
    "XAUTOCLAIM {x} g c3 0 0 COUNT 2",
    "SELECT 0",
    "SELECT 0",
    "SELECT 1",
    "SELECT 3",
];

/// Lines that only now and then come up.
const RARE: &[&str] = &["FLUSHDB", "SWAPDB 1 3", "FLUSHALL", "FLUSHDB ASYNC"];

/// A source of commands.
pub struct Load {
    rng: Rng,
    lines: Vec<&'static str>,
}

impl Load {
    /// Commands that all these servers know.
    pub fn new(seed: u64, servers: &mut [Client]) -> Load {
        let known = |line: &&&str| {
            let name = line.split(' ').next().unwrap_or_default();
            servers.iter_mut().all(|server| server.knows(name))
        };
        let lines = LINES.iter().filter(known).copied().collect();
        Load {
            rng: Rng::with_seed(seed),
            lines,
        }
    }

    /// The same commands in another order.
    pub fn fork(&self, seed: u64) -> Load {
        Load {
            rng: Rng::with_seed(seed),
            lines: self.lines.clone(),
        }
    }

    /// Lines that were left out because a server does not know them.
    pub fn missing(&self) -> Vec<&'static str> {
        let is_missing = |line: &&&str| !self.lines.contains(line);
        LINES.iter().filter(is_missing).copied().collect()
    }

    /// The next command.
    pub fn command(&mut self) -> Vec<Vec<u8>> {
        let line = match self.rng.u32(..1500) {
            0 => RARE[self.rng.usize(..RARE.len())],
            _ => self.lines[self.rng.usize(..self.lines.len())],
        };
        let words = line.split(' ');
        words.map(|word| self.fill(word).into_bytes()).collect()
    }

    fn fill(&mut self, word: &str) -> String {
        let Some((before, rest)) = word.split_once('{') else {
            return word.to_owned();
        };
        let name = rest.trim_end_matches('}');
        let rng = &mut self.rng;
        let filled = match name {
            "k" => {
                let kind = ["s", "l", "h", "e", "z", "x"][rng.usize(..6)];
                format!("{kind}:{}", rng.u32(..12))
            }
            "s" | "l" | "h" | "e" | "z" | "x" => format!("{name}:{}", rng.u32(..12)),
            "v" => match rng.u32(..10) {
                0 => "v".repeat(rng.usize(1..3_000)),
                1..6 => rng.i64(-1_000_000..1_000_000).to_string(),
                _ => format!("value-{}", rng.u32(..)),
            },
            "m" => format!("m{}", rng.u32(..300)),
            "n" => rng.u32(..1_000).to_string(),
            "f" => format!("{}.{}", rng.i32(-500..500), rng.u32(1..1000)),
            "at" => {
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
                let now_ms = now.expect("after 1970").as_millis() as u64;
                let later_ms = if rng.bool() {
                    rng.u64(1..200)
                } else {
                    3_600_000
                };
                (now_ms + later_ms).to_string()
            }
            other => panic!("{other:?} in {word:?}"),
        };
        format!("{before}{filled}")
    }

    /// One step: a command, or now and then a block.
    pub fn step(&mut self, client: &mut Client) {
        self.try_step(client).expect("a step");
    }

    /// One step with a server that may go.
    pub fn try_step(&mut self, client: &mut Client) -> io::Result<()> {
        if self.rng.u32(..8) > 0 {
            return client.try_call(&self.command()).map(drop);
        }
        let count = self.rng.usize(1..6);
        let block: Vec<_> = (0..count).map(|_| self.command()).collect();
        client.transaction(&block).map(drop)
    }
}

/// All that clients can see of the first databases, in words, for comparing servers. Scores are numbers, so that the form
/// in which servers print them does not matter.
pub fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for db in 0..4 {
        client.ask(&format!("SELECT {db}"));
        let keys = client.ask("KEYS *");
        for key in keys.items() {
            let key = key.text();
            let kind = client.call(&["TYPE", &key]).text();
            let expires = client.call(&["PEXPIRETIME", &key]);
            let value = value_of(client, &kind, &key);
            all.insert(format!("{db}:{key}"), format!("{kind} {expires:?} {value}"));
        }
    }
    all
}

fn value_of(client: &mut Client, kind: &str, key: &str) -> String {
    let sorted_pairs = |reply: &Reply| {
        let mut pairs: Vec<Vec<String>> = reply
            .items()
            .chunks(2)
            .map(|pair| pair.iter().map(Reply::text).collect())
            .collect();
        pairs.sort();
        pairs
    };
    match kind {
        "string" => format!("{:?}", text_of(&client.call(&["GET", key]))),
        "list" => format!("{:?}", client.call(&["LRANGE", key, "0", "-1"])),
        "hash" => format!("{:?}", sorted_pairs(&client.call(&["HGETALL", key]))),
        "set" => {
            let reply = client.call(&["SMEMBERS", key]);
            let mut members: Vec<String> = reply.items().iter().map(Reply::text).collect();
            members.sort();
            format!("{members:?}")
        }
        "zset" => {
            let reply = client.call(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
            let pairs = reply.items().chunks(2);
            let pairs = pairs.map(|pair| {
                let score: f64 = pair[1].text().parse().expect("a score");
                (pair[0].text(), score)
            });
            format!("{:?}", pairs.collect::<Vec<_>>())
        }
        "stream" => {
            let entries = client.call(&["XRANGE", key, "-", "+"]);
            let pending = client.call(&["XPENDING", key, "g"]);
            let each = client.call(&["XPENDING", key, "g", "-", "+", "1000"]);
            let each: Vec<_> = match &each {
                Reply::Array(items) => items
                    .iter()
                    .map(|item| {
                        (
                            item.items()[0].clone(),
                            item.items()[1].clone(),
                            item.items()[3].clone(),
                        )
                    })
                    .collect(),
                _ => Vec::new(),
            };
            let groups = client.call(&["XINFO", "GROUPS", key]);
            // It may be past its time by now: then there is an error in place of groups.
            let groups: Vec<_> = match &groups {
                Reply::Array(groups) => groups
                    .iter()
                    .map(|group| (group.items()[1].clone(), group.items()[7].clone()))
                    .collect(),
                _ => Vec::new(),
            };
            format!("{entries:?} {pending:?} {each:?} {groups:?}")
        }
        other => other.to_owned(),
    }
}

fn text_of(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// The first differences of two servers' contents, in words.
pub fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let names = a
        .keys()
        .chain(b.keys().filter(|name| !a.contains_key(*name)));
    let short = |value: Option<&String>| match value {
        None => "nothing".to_owned(),
        Some(text) if text.len() > 300 => format!(
            "{}… ({} bytes)",
            &text.chars().take(300).collect::<String>(),
            text.len()
        ),
        Some(text) => text.clone(),
    };
    names
        .filter(|name| a.get(*name) != b.get(*name))
        .map(|name| {
            format!(
                "{name}:\n  {}\n  {}",
                short(a.get(name)),
                short(b.get(name))
            )
        })
        .take(5)
        .collect()
}
