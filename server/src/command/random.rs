//! Random commands: a real server replies the same, and a replica that gets only the effects holds the same data.

use super::Effect;
use super::testing::{Bench, Oracle, split};
use crate::command::exec::Actor;

/// Templates of commands. `{t}` is a key of a string, `{l}` `{s}` `{h}` `{z}` `{x}` of the other types, `{k}` any key; `{i}` a
/// small integer, `{n}` a count, `{v}` a value, `{m}` a member, `{f}` a score, `{d}` the id of a stream entry.
const TEMPLATES: &[&str] = &[
    "SET {t} {v}",
    "SET {t} {v} XX GET",
    "SET {t} {v} NX",
    "SET {t} {v} KEEPTTL",
    "GETSET {t} {v}",
    "APPEND {t} {v}",
    "SETRANGE {t} {n} {v}",
    "GETRANGE {t} {i} {i}",
    "INCRBY {t} {i}",
    "INCRBYFLOAT {t} {f}",
    "STRLEN {t}",
    "GETDEL {t}",
    "SETBIT {t} {n} 1",
    "SETBIT {t} {n} 0",
    "BITCOUNT {t} {i} {i}",
    "BITPOS {t} 1 {i}",
    "BITFIELD {t} INCRBY i8 {n} {i} GET u4 {n}",
    "BITOP XOR {t} {t} {t}",
    "MSETNX {t} {v} {t} {v}",
    "LCS {t} {t} IDX",
    "MGET {k} {k} {k}",
    "RPUSH {l} {v} {v} {v}",
    "LPUSH {l} {v} {v}",
    "LPUSHX {l} {v}",
    "LPOP {l}",
    "RPOP {l} {n}",
    "LINSERT {l} BEFORE {v} {v}",
    "LINSERT {l} AFTER {v} {v}",
    "LSET {l} {i} {v}",
    "LREM {l} {i} {v}",
    "LTRIM {l} {i} {i}",
    "LRANGE {l} {i} {i}",
    "LINDEX {l} {i}",
    "LPOS {l} {v} COUNT 0 RANK -1",
    "LMOVE {l} {l} LEFT RIGHT",
    "LMOVE {l} {l} RIGHT RIGHT",
    "RPOPLPUSH {l} {l}",
    "LMPOP 2 {l} {l} LEFT COUNT {n}",
    "SORT {l} ALPHA DESC LIMIT 0 {n}",
    "SORT {l} ALPHA STORE {l}",
    "SADD {s} {m} {m} {m}",
    "SREM {s} {m} {m}",
    "SMOVE {s} {s} {m}",
    "SMEMBERS {s}",
    "SMISMEMBER {s} {m} {m}",
    "SINTER {s} {s}",
    "SUNION {s} {s}",
    "SDIFF {s} {s}",
    "SINTERSTORE {s} {s} {s}",
    "SUNIONSTORE {s} {s} {s}",
    "SDIFFSTORE {s} {s} {s}",
    "SINTERCARD 2 {s} {s} LIMIT {n}",
    "SCARD {s}",
    "SORT {s} DESC",
    "HSET {h} {m} {v} {m} {v}",
    "HSETNX {h} {m} {v}",
    "HDEL {h} {m} {m}",
    "HINCRBY {h} {m} {i}",
    "HINCRBYFLOAT {h} {m} {f}",
    "HGETALL {h}",
    "HMGET {h} {m} {m}",
    "HSTRLEN {h} {m}",
    "HKEYS {h}",
    "ZADD {z} {f} {m} {f} {m} {f} {m}",
    "ZADD {z} GT CH {f} {m} {f} {m}",
    "ZADD {z} XX LT {f} {m}",
    "ZADD {z} INCR {f} {m}",
    "ZINCRBY {z} {f} {m}",
    "ZREM {z} {m} {m}",
    "ZRANGE {z} {i} {i} WITHSCORES",
    "ZRANGE {z} {f} {f} BYSCORE LIMIT {i} {i}",
    "ZRANGE {z} ({f} +inf BYSCORE",
    "ZREVRANGEBYSCORE {z} +inf {f} WITHSCORES",
    "ZRANK {z} {m}",
    "ZREVRANK {z} {m}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} {n}",
    "ZREMRANGEBYRANK {z} {i} {i}",
    "ZREMRANGEBYSCORE {z} {f} {f}",
    "ZRANGESTORE {z} {z} {i} {i}",
    "ZUNIONSTORE {z} 2 {z} {s} WEIGHTS 2 {i}",
    "ZINTERSTORE {z} 2 {z} {z} AGGREGATE MAX",
    "ZDIFFSTORE {z} 2 {z} {s}",
    "ZMPOP 2 {z} {z} MAX COUNT {n}",
    "ZSCORE {z} {m}",
    "XADD {x} {d} f {v} g {v}",
    "XADD {x} MAXLEN {n} {d} f {v}",
    "XADD {x} {d} h {v}",
    "XDEL {x} {d} {d}",
    "XTRIM {x} MAXLEN {n}",
    "XTRIM {x} MINID {d}",
    "XRANGE {x} {d} {d}",
    "XREVRANGE {x} + {d} COUNT {n}",
    "XLEN {x}",
    "XREAD COUNT {n} STREAMS {x} {d}",
    "XGROUP CREATE {x} g {d}",
    "XGROUP SETID {x} g {d}",
    "XREADGROUP GROUP g c{n} COUNT {n} STREAMS {x} >",
    "XREADGROUP GROUP g c{n} NOACK COUNT 1 STREAMS {x} >",
    HISTORY,
    "XACK {x} g {d} {d}",
    "XCLAIM {x} g c{n} 0 {d} {d}",
    "XAUTOCLAIM {x} g c{n} 0 - COUNT {n}",
    "XPENDING {x} g",
    "XGROUP DELCONSUMER {x} g c{n}",
    "XGROUP DESTROY {x} g",
    "DEL {k}",
    "TYPE {k}",
    "EXISTS {k} {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k}",
    "PEXPIREAT {k} 4000000000000",
    "PEXPIREAT {k} 5000000000000 GT",
    "PERSIST {k}",
    "PEXPIRETIME {k}",
    "EXPIRE {k} -1",
];

/// Counts deliveries, of which Redis tells its replicas nothing, and neither do we.
const HISTORY: &str = "XREADGROUP GROUP g c{n} STREAMS {x} {d}";

fn fill(template: &str, random: &mut fastrand::Rng) -> String {
    let mut line = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        line.push_str(before);
        let (kind, after) = after.split_once('}').expect("a closed brace");
        let key = |kind: &str, random: &mut fastrand::Rng| format!("{kind}{}", random.u8(..3));
        line.push_str(&match kind {
            // Sometimes a key of another type.
            "t" | "l" | "s" | "h" | "z" | "x" if random.u8(..40) > 0 => key(kind, random),
            "i" => random.i32(-6..7).to_string(),
            "n" => random.u32(1..6).to_string(),
            "v" => match random.u8(..6) {
                0 => "x".repeat(random.usize(1..60)),
                1 => random.i64(..).to_string(),
                _ => random.u8(..12).to_string(),
            },
            "m" => random.i32(-20..20).to_string(),
            "f" => (f64::from(random.i32(-20..20)) / 2.0).to_string(),
            "d" => format!("{}-{}", random.u32(1..60), random.u32(..3)),
            _ => key(["t", "l", "s", "h", "z", "x"][random.usize(..6)], random),
        });
        rest = after;
    }
    line + rest
}

/// What a client can see of all keys.
fn view(bench: &mut Bench) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for kind in ["t", "l", "s", "h", "z", "x"] {
        for n in 0..3 {
            let key = format!("{kind}{n}");
            let mut seen = bench.run(&format!("PEXPIRETIME {key}")).0;
            seen += &match bench
                .run(&format!("TYPE {key}"))
                .0
                .trim_matches(['+', '\\', 'r', 'n'])
            {
                "string" => bench.run(&format!("GET {key}")).0,
                "list" => bench.run(&format!("LRANGE {key} 0 -1")).0,
                "set" => bench.run(&format!("SORT {key} ALPHA")).0,
                "hash" => {
                    let fields = bench.run(&format!("HGETALL {key}")).0;
                    let mut pairs: Vec<&str> = fields.split("$").collect();
                    pairs.sort();
                    pairs.join("$")
                }
                "zset" => bench.run(&format!("ZRANGE {key} 0 -1 WITHSCORES")).0,
                "stream" => stream_view(&bench.run(&format!("XINFO STREAM {key} FULL COUNT 0")).0),
                _ => String::new(),
            };
            all.push((key, seen));
        }
    }
    all
}

/// XINFO without what replicas need not share: how entries are cut into nodes, and when consumers were last seen.
fn stream_view(full: &str) -> String {
    let mut kept = String::new();
    let mut items = full.split("\\r\\n");
    while let Some(item) = items.next() {
        if matches!(
            item,
            "radix-tree-keys" | "radix-tree-nodes" | "seen-time" | "active-time"
        ) {
            items.next();
        } else {
            kept += item;
            kept += " ";
        }
    }
    kept
}

#[test]
fn random_commands_reply_like_redis() {
    let Some(mut oracle) = Oracle::start() else {
        println!("redis-server is not installed: nothing to compare with");
        return;
    };
    for seed in 1..=6 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        oracle.ask(&split("FLUSHALL"));
        let mut history = Vec::new();
        for _ in 0..2500 {
            let line = fill(random.choice(TEMPLATES).expect("a template"), &mut random);
            history.push(line.clone());
            let words = split(&line);
            let (ours, theirs) = (bench.run_words(&words).0, oracle.ask(&words));
            let touching = |line: &String| {
                words[1..]
                    .iter()
                    .any(|word| line.contains(&*String::from_utf8_lossy(word)))
            };
            let before = || {
                history
                    .iter()
                    .rev()
                    .filter(|line| touching(line))
                    .take(12)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                ours.escape_ascii().to_string(),
                theirs.escape_ascii().to_string(),
                "seed {seed}, {line}, after {:#?}",
                before()
            );
        }
    }
}

#[test]
fn replica_that_gets_the_effects_is_the_same() {
    for seed in 1..=12 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut primary, mut replica) = (Bench::new(), Bench::new());
        replica.actor = Actor::Link;
        if seed % 2 == 0 {
            // Large forms on one side must not make a difference.
            primary.settings.limits.zset_listpack_entries = 4;
            primary.settings.limits.hash_listpack_entries = 4;
            primary.settings.limits.set_intset_entries = 4;
            primary.settings.limits.list_listpack_size = 4;
            primary.settings.limits.stream_node_entries = 3;
        }
        let own = [
            "SPOP {s}",
            "SPOP {s} {n}",
            "XADD {x} * f {v}",
            "XADD {x} MAXLEN ~ {n} * f {v}",
            "XTRIM {x} MINID ~ {d}",
        ];
        for step in 0..2500 {
            let templates = if random.u8(..20) == 0 {
                &own[..]
            } else {
                TEMPLATES
            };
            let template = random.choice(templates).expect("a template");
            if *template == HISTORY {
                continue;
            }
            let line = fill(template, &mut random);
            let words = split(&line);
            let effect = primary.run_words(&words).1;
            let before = if effect.is_none() { None } else { Some(()) };
            match effect {
                Effect::None | Effect::Aside => {}
                Effect::Unit { .. } => unreachable!("no script among the templates"),
                Effect::Passed | Effect::Verbatim => drop(replica.run_words(&words)),
                Effect::Commands(commands) => {
                    for words in &commands {
                        let reply = replica.run_words(words).0;
                        assert_ne!(
                            reply[0],
                            b'-',
                            "seed {seed}, step {step}, {line}: {}",
                            reply.escape_ascii()
                        );
                    }
                }
            }
            if before.is_some() || step % 50 == 0 {
                let (ours, theirs) = (view(&mut primary), view(&mut replica));
                for ((key, ours), (_, theirs)) in ours.iter().zip(&theirs) {
                    assert_eq!(ours, theirs, "seed {seed}, step {step}, {line}: {key}");
                }
            }
        }
    }
}

/// Arity, flags and key positions of each command, as a real server tells them.
#[test]
fn rows_say_what_redis_says() {
    use crate::command::{Flags, KeySpec, Run, table};
    let Some(mut oracle) = Oracle::start() else {
        println!("redis-server is not installed: nothing to compare with");
        return;
    };
    // Containers are one row here and have a row for each subcommand there; the others have changed since 7.0.
    let different = [
        "object", "memory", "xinfo", "xgroup", "zrank", "zrevrank", "pfcount", "pubsub",
        // Its channel is shown where a key would be.
        "spublish",
    ];
    let is_compared = |name: &str| !different.contains(&name);
    let mut differences = Vec::new();
    let rows = table::all().filter(|command| !matches!(command.run, Run::Session(_)));
    for command in rows.filter(|command| is_compared(command.name)) {
        let reply = oracle.ask(&split(&format!("COMMAND INFO {}", command.name)));
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let mut items = reply
            .split("\r\n")
            .skip_while(|item| *item != command.name)
            .skip(1)
            .peekable();
        if items.peek().is_none() {
            println!("{} is unknown there", command.name);
            continue;
        }
        let number =
            |item: Option<&str>| item.and_then(|item| item.strip_prefix(':')?.parse::<i64>().ok());
        let arity = number(items.next());
        items.next();
        let mut theirs = Vec::new();
        while let Some(flag) = items.next_if(|item| item.starts_with('+')) {
            // Since 7.2 scripts may run commands that block elsewhere.
            if !(flag == "+noscript" && command.flags.has(Flags::BLOCKING)) {
                theirs.push(flag[1..].to_string());
            }
        }
        let keys = [
            number(items.next()),
            number(items.next()),
            number(items.next()),
        ]
        .map(Option::unwrap_or_default);
        let mut ours: Vec<String> = command.flags.names().map(String::from).collect();
        theirs.sort();
        ours.sort();
        let own_keys = match command.keys {
            KeySpec::Range { first, last, step } => [first as i64, last as i64, step as i64],
            KeySpec::Counted {
                dest: Some(dest), ..
            } => [dest as i64, dest as i64, 1],
            KeySpec::None | KeySpec::Counted { .. } | KeySpec::Custom(_) => [0, 0, 0],
        };
        if arity != Some(i64::from(command.arity)) {
            differences.push(format!(
                "{}: arity {}, there {arity:?}",
                command.name, command.arity
            ));
        }
        if ours != theirs {
            differences.push(format!(
                "{}: flags {ours:?}, there {theirs:?}",
                command.name
            ));
        }
        if keys != own_keys && !command.flags.has(Flags::MOVABLEKEYS) {
            differences.push(format!(
                "{}: keys {own_keys:?}, there {keys:?}",
                command.name
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
