//! What commands of every family cost at several sizes, and what one long command does to everybody else.
//!
//! Two tables. In the first, CPU time of the server for a request, from `/proc`, over collections of 10, 1 000 and 100 000 elements: it
//! shows a command whose cost grows worse than it should. In the second one connection sends PING after PING while another runs one command over a
//! million elements: the longest of the PINGs is how long that command stops the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Plan;
use crate::servers::{Kind, Place, Server};
use crate::table::{Samples, Table};

const SIZES: [u64; 3] = [10, 1_000, 100_000];
/// CPU time that one measurement should take at least: the clock of the scheduler is finer than that by far.
const RUN: Duration = Duration::from_millis(150);
const BATCH: usize = 50;

/// What is filled before, and the command. `{n}` is a random number below the size.
const COMMANDS: &[(&str, &str)] = &[
    ("string", "GETRANGE s 0 9"),
    ("string", "SETRANGE s {n} x"),
    ("string", "BITCOUNT s"),
    ("string", "BITPOS s 1"),
    ("string", "BITOP OR so s s"),
    ("list", "LINDEX l {n}"),
    ("list", "LRANGE l 0 99"),
    ("list", "LMOVE l l LEFT RIGHT"),
    ("list", "LSET l {n} value"),
    ("list", "LPOS l v:{n}"),
    ("hash", "HGET h f:{n}"),
    ("hash", "HSET h f:{n} value"),
    ("hash", "HSCAN h 0"),
    ("hash", "HRANDFIELD h 5"),
    ("set", "SISMEMBER e m:{n}"),
    ("set", "SMOVE e e2 m:{n}"),
    ("set", "SRANDMEMBER e 10"),
    ("set", "SINTERCARD 2 e e3 LIMIT 5"),
    ("sorted set", "ZSCORE z m:{n}"),
    ("sorted set", "ZADD z {n} m:{n}"),
    ("sorted set", "ZRANK z m:{n}"),
    ("sorted set", "ZRANGEBYSCORE z {n} +inf LIMIT 0 10"),
    ("sorted set", "ZRANGE z {n} {n}"),
    ("stream", "XADD x MAXLEN ~ 200000 * f v"),
    ("stream", "XRANGE x - + COUNT 10"),
    ("geo", "GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 5 km"),
    ("HyperLogLog", "PFADD p {n}"),
    ("HyperLogLog", "PFCOUNT p"),
    (
        "script",
        "EVAL return^redis.call('hget',KEYS[1],ARGV[1]) 1 h f:{n}",
    ),
    (
        "script",
        "EVAL redis.call('exists',KEYS[1])^redis.call('hget',KEYS[1],ARGV[1])^return^1 1 h f:{n}",
    ),
    (
        "script",
        "EVALSHA b3f455de959aaeb1858edf85f5f5a2150d09ab86 1 h f:{n}",
    ),
    ("script", "FCALL hget 1 h f:{n}"),
    (
        "script",
        "EVAL return^redis.call('hmget',KEYS[1],'f:1','f:2','f:3','f:4','f:5','f:6','f:7','f:8') 1 h",
    ),
    ("whole collections", "SMEMBERS e"),
    ("whole collections", "HGETALL h"),
    ("whole collections", "ZRANGE z 0 -1 WITHSCORES"),
    ("whole collections", "LRANGE l 0 -1"),
    ("whole collections", "SORT l ALPHA LIMIT 0 1"),
    ("whole collections", "SUNIONSTORE d e e3"),
    ("whole collections", "ZUNIONSTORE dz 2 z z"),
];

/// What FCALL calls.
const LIBRARY: &str = "#!lua name=bench\n\
    redis.register_function('hget', function(keys, args) return redis.call('hget', keys[1], args[1]) end)";

/// What stops others, and how much is there of it. `|` stands between the commands of a transaction.
const LONG: &[(&str, &str)] = &[
    ("SMEMBERS e", "a set of a million"),
    ("HGETALL h", "a hash of a million"),
    ("LRANGE l 0 -1", "a list of a million"),
    ("ZRANGE z 0 -1", "a sorted set of a million"),
    ("SORT l ALPHA LIMIT 0 10", "a list of a million"),
    ("SUNIONSTORE d e e", "a set of a million"),
    (
        "SUNIONSTORE d e e|ZUNIONSTORE dz 2 z z",
        "a transaction over a million",
    ),
    ("BITCOUNT s", "a string of 400 MB"),
    ("BITPOS s 1", "a string of 400 MB"),
    ("BITOP OR so s s", "a string of 400 MB"),
    ("GET s", "a string of 400 MB"),
    ("SETRANGE s2 400000000 x", "a string of 400 MB"),
    ("APPEND s x", "a string of 400 MB"),
    ("DEL s", "a string of 400 MB"),
    ("DEL e", "a set of a million"),
    ("DEL z", "a sorted set of a million"),
    ("UNLINK h", "a hash of a million"),
    ("KEYS nothing*", "ten million keys"),
    ("FLUSHALL", "a million keys"),
];

fn words(line: &str, size: u64) -> Vec<String> {
    let number = fastrand::u64(0..size).to_string();
    line.split(' ')
        .map(|word| word.replace('^', " ").replace("{n}", &number))
        .collect()
}

fn send(connection: &mut redis::Connection, lines: &[Vec<String>]) -> anyhow::Result<()> {
    let mut pipe = redis::pipe();
    for words in lines {
        pipe.cmd(&words[0]).arg(&words[1..]).ignore();
    }
    pipe.query::<()>(connection).context("a batch")
}

/// One collection of each type with so many elements.
fn fill(server: &Server, size: u64) -> anyhow::Result<()> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    server.run(&["FLUSHALL"])?;
    server.run(&[
        "SCRIPT",
        "LOAD",
        "return redis.call('hget',KEYS[1],ARGV[1])",
    ])?;
    server.run(&["FUNCTION", "LOAD", "REPLACE", LIBRARY])?;
    server.run(&["SETRANGE", "s", &size.to_string(), "end"])?;
    let step = 1_000;
    let mut at = 0;
    while at < size {
        let numbers = || at..size.min(at + step);
        let list = |head: &[&str], each: &dyn Fn(u64) -> Vec<String>| -> Vec<String> {
            let head = head.iter().map(|word| (*word).to_owned());
            head.chain(numbers().flat_map(each)).collect()
        };
        let lines = [
            list(&["RPUSH", "l"], &|n| vec![format!("v:{n}")]),
            list(&["HSET", "h"], &|n| {
                vec![format!("f:{n}"), format!("value:{n}")]
            }),
            list(&["SADD", "e"], &|n| vec![format!("m:{n}")]),
            list(&["SADD", "e2"], &|n| vec![format!("o:{n}")]),
            list(&["SADD", "e3"], &|n| vec![format!("m:{}", n * 2)]),
            list(&["ZADD", "z"], &|n| vec![n.to_string(), format!("m:{n}")]),
            list(&["GEOADD", "g"], &|n| {
                let longitude = (n % 3_600) as f64 / 10.0 - 180.0;
                let latitude = (n / 3_600 % 1_600) as f64 / 10.0 - 80.0;
                vec![
                    longitude.to_string(),
                    latitude.to_string(),
                    format!("p:{n}"),
                ]
            }),
            list(&["PFADD", "p"], &|n| vec![n.to_string()]),
        ];
        send(&mut connection, &lines)?;
        let entries: Vec<_> = numbers()
            .map(|n| words(&format!("XADD x * f {n}"), 1))
            .collect();
        send(&mut connection, &entries)?;
        at += step;
    }
    Ok(())
}

/// Microseconds of CPU of the server for a request.
fn cost(server: &Server, line: &str, size: u64) -> anyhow::Result<f64> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let batch = if SIZES[1] * 10 <= size && is_whole(line) {
        1
    } else {
        BATCH
    };
    let (started, before) = (Instant::now(), server.cpu_seconds()?);
    let mut requests = 0;
    loop {
        let lines: Vec<_> = (0..batch).map(|_| words(line, size)).collect();
        send(&mut connection, &lines)?;
        requests += batch;
        let spent = server.cpu_seconds()? - before;
        if spent > RUN.as_secs_f64() || started.elapsed() > 8 * RUN && requests >= BATCH {
            return Ok(spent * 1e6 / requests as f64);
        }
    }
}

fn is_whole(line: &str) -> bool {
    COMMANDS
        .iter()
        .any(|(family, known)| *family == "whole collections" && *known == line)
}

/// Prints the first table.
pub fn costs(plan: &Plan) -> anyhow::Result<()> {
    let servers = [
        Server::start(plan, Kind::Ours(1), Place::Pinned(0), None)?,
        Server::start(plan, Kind::Redis, Place::Pinned(0), None)?,
    ];
    let mut table = Table::new(
        "Cost of a request, microseconds of CPU",
        &["command", "size", "ours", "Redis", "ratio"],
    );
    let rounds = plan.rounds.min(3);
    let mut rows: Vec<(&str, u64, [Samples; 2])> = COMMANDS
        .iter()
        .flat_map(|(_, line)| SIZES.map(|size| (*line, size, Default::default())))
        .collect();
    rows.retain(|(line, ..)| plan.wants_row(line));
    for size in SIZES {
        eprintln!("commands over {size} elements");
        for server in &servers {
            fill(server, size)?;
        }
        for (line, _, sides) in rows.iter_mut().filter(|(_, of, _)| *of == size) {
            for round in 0..rounds {
                for turn in 0..2 {
                    let which = (turn + round) % 2;
                    let cost = cost(&servers[which], line, size);
                    sides[which].push(cost.with_context(|| (*line).to_owned())?);
                }
            }
        }
    }
    for (line, size, [ours, theirs]) in rows {
        table.row(&[
            line.replace('^', " "),
            size.to_string(),
            format!("{:.2}", ours.median()),
            format!("{:.2}", theirs.median()),
            Samples::ratio(&ours, &theirs),
        ]);
    }
    table.print();
    Ok(())
}

/// PING after PING while one command runs: the 99.9th percentile and the longest, milliseconds; and how long the command took.
fn disturb(server: &Server, line: &str) -> anyhow::Result<(f64, f64, f64)> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pinger = scope.spawn(|| -> anyhow::Result<Vec<f64>> {
            let mut connection = server.connect()?;
            connection.set_read_timeout(Some(Duration::from_secs(60)))?;
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                redis::cmd("PING").query::<String>(&mut connection)?;
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(times)
        });
        std::thread::sleep(Duration::from_millis(100));
        let asker = scope.spawn(|| -> anyhow::Result<f64> {
            // Taking a million elements apart is work, on the processor of who sends PING: that one is not to wait for it.
            rustix::process::setpriority_process(None, 19)?;
            let mut connection = server.connect()?;
            connection.set_read_timeout(Some(Duration::from_secs(60)))?;
            let sent = Instant::now();
            let mut pipe = redis::pipe();
            if line.contains('|') {
                pipe.atomic();
            }
            for line in line.split('|') {
                let words = words(line, 1);
                pipe.cmd(&words[0]).arg(&words[1..]);
            }
            pipe.query::<redis::Value>(&mut connection)?;
            Ok(sent.elapsed().as_secs_f64() * 1000.0)
        });
        let took = asker.join().expect("the asker does not panic");
        std::thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::Relaxed);
        let mut times = pinger.join().expect("the pinger does not panic")?;
        let took = took.with_context(|| line.to_owned())?;
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        Ok((at(0.999), at(1.0), took))
    })
}

/// Prints the second table.
pub fn disturbances(plan: &Plan) -> anyhow::Result<()> {
    let size = if plan.is_quick { 200_000 } else { 1_000_000 };
    let mut table = Table::new(
        "PING while one long command runs, milliseconds",
        &[
            "command",
            "p99.9",
            "longest",
            "command took",
            "Redis: p99.9",
            "longest",
            "command took",
        ],
    );
    let servers = [
        Server::start(plan, Kind::Ours(1), Place::Pinned(0), None)?,
        Server::start(plan, Kind::Redis, Place::Pinned(0), None)?,
    ];
    for (line, what) in LONG.iter().filter(|(line, _)| plan.wants_row(line)) {
        eprintln!("PING beside {line}");
        let mut cells = vec![format!(
            "{line} ({})",
            if plan.is_quick { "a fifth of it" } else { what }
        )];
        for server in &servers {
            if what.ends_with("keys") {
                server.run(&["FLUSHALL"])?;
                let keys = if what.starts_with("ten") {
                    10 * size
                } else {
                    size
                };
                server.run(&["DEBUG", "POPULATE", &keys.to_string()])?;
            } else if what.starts_with("a string") {
                server.run(&["FLUSHALL"])?;
                server.run(&["SETRANGE", "s", &(400 * size).to_string(), "x"])?;
            } else {
                fill(server, size)?;
            }
            let (tail, longest, took) = disturb(server, line)?;
            cells.extend([tail, longest, took].map(|ms| format!("{ms:.1}")));
        }
        table.row(&cells);
    }
    table.print();
    Ok(())
}
