//! What replication costs: a full sync and its memory, what a replica keeps up with, CPU of a replicated write, and what a replica that
//! stands still does to others. Pairs of ours beside pairs of real servers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Plan;
use crate::servers::{Kind, Place, Server};
use crate::table::{Samples, Table};

const VALUE_BYTES: usize = 64;
/// Of memory, with its key.
const ENTRY_BYTES: u64 = 110;
const WRITES_PER_SECOND: u32 = 20_000;
const BATCH: u32 = 20;
const LIMIT: Duration = Duration::from_secs(600);

/// Name, primary, replica.
const PAIRS: [(&str, Kind, Kind); 2] = [
    ("ours, 2 threads", Kind::Ours(2), Kind::Ours(2)),
    ("Redis", Kind::Redis, Kind::Redis),
];

#[derive(Default)]
struct Results {
    seconds: Samples,
    loaded_seconds: Samples,
    extra_percent: Samples,
    applied: Samples,
    applied_cpu_us: Samples,
    cpu_alone_us: Samples,
    cpu_us: Samples,
    before_ms: Samples,
    stopped_ms: Samples,
}

/// Prints the tables.
pub fn measure(plan: &Plan) -> anyhow::Result<()> {
    let entries = plan.megabytes * 1_000_000 / ENTRY_BYTES;
    let mut results = PAIRS.map(|_| Results::default());
    for round in 0..plan.rounds.clamp(1, 3) {
        for (&(name, primary, replica), results) in PAIRS.iter().zip(&mut results) {
            eprintln!("replication: {name}, round {}", round + 1);
            for is_writing in [false, true] {
                full_sync(plan, (primary, replica), entries, is_writing, results)
                    .with_context(|| format!("{name}: full sync"))?;
            }
            stream(plan, (primary, replica), results).with_context(|| format!("{name}: stream"))?;
            stopped(plan, (primary, replica), results)
                .with_context(|| format!("{name}: stopped replica"))?;
        }
    }
    print(entries, &results);
    Ok(())
}

fn print(entries: u64, results: &[Results; 2]) {
    let columns = [
        "pair",
        "full sync idle, s",
        "ratio",
        "under 20 000 writes/s, s",
        "ratio",
        "primary's extra memory, % of the data",
        "replica applies, writes/s",
        "ratio",
        "its CPU of a write, all threads, µs",
        "ratio",
    ];
    let mut table = Table::new(&format!("Replication: {entries} entries"), &columns);
    let theirs = &results[1];
    for ((name, ..), ours) in PAIRS.iter().zip(results) {
        table.row(&[
            (*name).to_owned(),
            format!("{:.2}", ours.seconds.median()),
            Samples::ratio(&ours.seconds, &theirs.seconds),
            format!("{:.2}", ours.loaded_seconds.median()),
            Samples::ratio(&ours.loaded_seconds, &theirs.loaded_seconds),
            format!("{:.1}", ours.extra_percent.median()),
            format!("{:.0}", ours.applied.median()),
            Samples::ratio(&ours.applied, &theirs.applied),
            format!("{:.2}", ours.applied_cpu_us.median()),
            Samples::ratio(&ours.applied_cpu_us, &theirs.applied_cpu_us),
        ]);
    }
    table.print();
    let columns = [
        "pair",
        "primary's CPU of a write, no replica, µs",
        "with a replica, µs",
        "probe p99.9, replica up, ms",
        "replica stopped, ms",
        "ratio",
    ];
    let mut table = Table::new("What a replica costs its primary", &columns);
    for ((name, ..), ours) in PAIRS.iter().zip(results) {
        table.row(&[
            (*name).to_owned(),
            format!("{:.2}", ours.cpu_alone_us.median()),
            format!("{:.2}", ours.cpu_us.median()),
            format!("{:.2}", ours.before_ms.median()),
            format!("{:.2}", ours.stopped_ms.median()),
            Samples::ratio(&ours.stopped_ms, &ours.before_ms),
        ]);
    }
    table.print();
}

/// A primary with so many entries.
fn filled(plan: &Plan, kind: Kind, entries: u64) -> anyhow::Result<Server> {
    let server = Server::start(plan, kind, Place::Anywhere, None)?;
    let (count, size) = (entries.to_string(), VALUE_BYTES.to_string());
    server.run(&["DEBUG", "POPULATE", &count, "key", &size])?;
    server.run(&[
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "replica 0 0 0",
    ])?;
    Ok(server)
}

fn follow(primary: &Server, replica: &Server) -> anyhow::Result<()> {
    replica.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
    until(|| {
        let mut connection = replica.connect()?;
        Ok(replica.info(&mut connection, "master_link_status")? == "up")
    })
}

fn until(mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    while !is_so()? {
        std::thread::sleep(Duration::from_millis(2));
        if started.elapsed() > LIMIT {
            bail!("not within {LIMIT:?}");
        }
    }
    Ok(())
}

/// Waits until the replica has all that the primary has sent.
fn catch_up(primary: &Server, replica: &Server) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (primary.connect()?, replica.connect()?);
    until(|| {
        let sent = primary.info(&mut ours, "master_repl_offset")?;
        Ok(sent == replica.info(&mut theirs, "slave_repl_offset")?)
    })
}

fn full_sync(
    plan: &Plan,
    (primary, replica): (Kind, Kind),
    entries: u64,
    is_writing: bool,
    results: &mut Results,
) -> anyhow::Result<()> {
    let primary = filled(plan, primary, entries)?;
    let replica = Server::start(plan, replica, Place::Anywhere, None)?;
    let (is_over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, own) = (primary.pss(), primary.rss()?);
    let seconds = std::thread::scope(|scope| {
        if is_writing {
            scope.spawn(|| write_until(&primary, entries, &is_over));
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peak.fetch_max(primary.pss(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let started = Instant::now();
        let result = follow(&primary, &replica);
        let seconds = started.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        result.map(|()| seconds)
    })?;
    if is_writing {
        results.loaded_seconds.push(seconds);
        let extra = peak.load(Ordering::Relaxed).saturating_sub(before);
        results
            .extra_percent
            .push(extra as f64 / own as f64 * 100.0);
    } else {
        results.seconds.push(seconds);
    }
    catch_up(&primary, &replica)
}

/// Overwrites entries at a bounded rate.
fn write_until(server: &Server, entries: u64, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut connection = server.connect()?;
    let mut random = fastrand::Rng::with_seed(1);
    let pause = Duration::from_secs(1) * BATCH / WRITES_PER_SECOND;
    while !is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        write(&mut connection, &mut random, entries, BATCH)?;
        std::thread::sleep(pause.saturating_sub(sent.elapsed()));
    }
    Ok(())
}

fn write(
    connection: &mut redis::Connection,
    random: &mut fastrand::Rng,
    entries: u64,
    count: u32,
) -> anyhow::Result<()> {
    let value = "w".repeat(VALUE_BYTES);
    let mut pipe = redis::pipe();
    for _ in 0..count {
        let key = format!("key:{}", random.u64(0..entries));
        pipe.cmd("SET").arg(key).arg(&value).ignore();
    }
    Ok(pipe.query::<()>(connection)?)
}

/// What a write costs the primary with and without a replica, and how fast a replica works off what it has missed.
fn stream(
    plan: &Plan,
    (primary, replica): (Kind, Kind),
    results: &mut Results,
) -> anyhow::Result<()> {
    const ENTRIES: u64 = 100_000;
    let writes: u32 = if plan.is_quick { 200_000 } else { 1_000_000 };
    let primary = filled(plan, primary, ENTRIES)?;
    let mut connection = primary.connect()?;
    let mut random = fastrand::Rng::with_seed(2);
    let mut cost = |samples: &mut Samples| -> anyhow::Result<()> {
        let before = primary.cpu_seconds()?;
        for _ in 0..writes / 1_000 {
            write(&mut connection, &mut random, ENTRIES, 1_000)?;
        }
        let seconds = primary.cpu_seconds()? - before;
        samples.push(seconds * 1e6 / f64::from(writes));
        Ok(())
    };
    cost(&mut results.cpu_alone_us)?;
    let replica = Server::start(plan, replica, Place::Anywhere, None)?;
    follow(&primary, &replica)?;
    cost(&mut results.cpu_us)?;
    catch_up(&primary, &replica)?;
    replica.signal("-STOP")?;
    cost(&mut Samples::default())?;
    let (started, before) = (Instant::now(), replica.cpu_seconds()?);
    replica.signal("-CONT")?;
    catch_up(&primary, &replica)?;
    results
        .applied
        .push(f64::from(writes) / started.elapsed().as_secs_f64());
    let cpu = replica.cpu_seconds()? - before;
    results.applied_cpu_us.push(cpu * 1e6 / f64::from(writes));
    Ok(())
}

/// The latency of somebody else while writes go on, with a replica that keeps up and with one that is stopped.
fn stopped(
    plan: &Plan,
    (primary, replica): (Kind, Kind),
    results: &mut Results,
) -> anyhow::Result<()> {
    const ENTRIES: u64 = 100_000;
    let length = Duration::from_secs(if plan.is_quick { 3 } else { 10 });
    let primary = filled(plan, primary, ENTRIES)?;
    let replica = Server::start(plan, replica, Place::Anywhere, None)?;
    follow(&primary, &replica)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write_until(&primary, ENTRIES, &is_over));
        let measured = (|| {
            results.before_ms.push(probe(&primary, length)?);
            replica.signal("-STOP")?;
            results.stopped_ms.push(probe(&primary, length)?);
            replica.signal("-CONT")
        })();
        is_over.store(true, Ordering::Relaxed);
        measured
    })
}

/// Asks for one key every millisecond; the 99.9th percentile in milliseconds.
fn probe(server: &Server, length: Duration) -> anyhow::Result<f64> {
    let mut connection = server.connect()?;
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < length {
        let sent = Instant::now();
        redis::cmd("GET")
            .arg("probe")
            .query::<redis::Value>(&mut connection)?;
        took.push(sent.elapsed());
        std::thread::sleep(Duration::from_millis(1).saturating_sub(sent.elapsed()));
    }
    took.sort();
    Ok(took[(took.len() - 1) * 999 / 1000].as_secs_f64() * 1e3)
}
