//! What a save costs those who use the server meanwhile: memory, latency of somebody else, time, CPU; and how fast a server is back.
//!
//! The dataset is small entries, with 200 values of 10 MB and one of 500 MB beside them where it says so. Everybody is written to: small
//! entries at a bounded rate, the large ones ten times a second. An independent probe asks for one small key every millisecond.

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
const LARGE_VALUES: u32 = 200;
const LARGE_BYTES: usize = 10_000_000;
const HUGE_BYTES: usize = 500_000_000;
const LIMIT: Duration = Duration::from_secs(600);

/// A server and what it is told to save.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    kind: Kind,
    save: &'static [&'static str],
}

const SIDES: [Side; 4] = [
    Side {
        name: "ours, 1 thread, RDB",
        kind: Kind::Ours(1),
        save: &["BGSAVE"],
    },
    Side {
        name: "ours, 2 threads, RDB",
        kind: Kind::Ours(2),
        save: &["BGSAVE"],
    },
    Side {
        name: "ours, 2 threads, DFS",
        kind: Kind::Ours(2),
        save: &["BGSAVE", "DF"],
    },
    Side {
        name: "Redis",
        kind: Kind::Redis,
        save: &["BGSAVE"],
    },
];

#[derive(Default)]
struct Results {
    seconds: Samples,
    cpu: Samples,
    extra_percent: Samples,
    before_ms: Samples,
    during_ms: Samples,
    worst_ms: Samples,
    writes: Samples,
}

/// Prints the tables.
pub fn measure(plan: &Plan) -> anyhow::Result<()> {
    for has_large in [false, true] {
        during_a_save(plan, has_large)?;
    }
    restart(plan)
}

fn fill(server: &Server, entries: u64, has_large: bool) -> anyhow::Result<()> {
    let (count, size) = (entries.to_string(), VALUE_BYTES.to_string());
    server.run(&["DEBUG", "POPULATE", &count, "key", &size])?;
    if has_large {
        for number in 0..LARGE_VALUES {
            let last = (LARGE_BYTES - 1).to_string();
            server.run(&["SETRANGE", &format!("large:{number}"), &last, "x"])?;
        }
        server.run(&["SETRANGE", "huge", &(HUGE_BYTES - 1).to_string(), "x"])?;
    }
    Ok(())
}

fn during_a_save(plan: &Plan, has_large: bool) -> anyhow::Result<()> {
    let entries = plan.megabytes * 1_000_000 / ENTRY_BYTES;
    let rounds = plan.rounds.clamp(1, 3);
    let mut results = SIDES.map(|_| Results::default());
    for round in 0..rounds {
        for (side, results) in SIDES.iter().zip(&mut results) {
            eprintln!(
                "snapshot: {}, large {has_large}, round {}",
                side.name,
                round + 1
            );
            let server = Server::start(plan, side.kind, Place::Anywhere, None)?;
            fill(&server, entries, has_large)?;
            one_save(&server, side, entries, has_large, results)
                .with_context(|| side.name.to_owned())?;
        }
    }
    let large = match has_large {
        false => "",
        true => ", 200 values of 10 MB, one of 500 MB",
    };
    let title = format!("A save under 20 000 writes a second: {entries} entries{large}");
    let columns = [
        "server",
        "writes/s",
        "seconds",
        "CPU seconds",
        "extra memory at the peak, % of the data",
        "probe p99.9 before, ms",
        "during, ms",
        "ratio",
        "slowest, ms",
    ];
    let mut table = Table::new(&title, &columns);
    for (side, results) in SIDES.iter().zip(&results) {
        table.row(&[
            side.name.to_owned(),
            format!("{:.0}", results.writes.median()),
            format!("{:.2}", results.seconds.median()),
            format!("{:.2}", results.cpu.median()),
            format!("{:.1}", results.extra_percent.median()),
            format!("{:.2}", results.before_ms.median()),
            format!("{:.2}", results.during_ms.median()),
            Samples::ratio(&results.during_ms, &results.before_ms),
            format!("{:.1}", results.worst_ms.median()),
        ]);
    }
    table.print();
    Ok(())
}

fn one_save(
    server: &Server,
    side: &Side,
    entries: u64,
    has_large: bool,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (is_over, is_saving) = (AtomicBool::new(false), AtomicBool::new(false));
    let (peak, written) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(server, entries, &is_over, &written));
        let large = has_large.then(|| scope.spawn(|| write_large(server, &is_over)));
        let probe = scope.spawn(|| probe(server, &is_over, &is_saving));
        // Buffers of connections are there before the save begins, and the probe knows what is usual.
        std::thread::sleep(Duration::from_secs(3));
        let data = server.pss();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peak.fetch_max(server.pss(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let (cpu, before) = (
            server.cpu_seconds_with_children()?,
            written.load(Ordering::Relaxed),
        );
        is_saving.store(true, Ordering::Relaxed);
        let saved = save(server, side.save);
        is_saving.store(false, Ordering::Relaxed);
        let writes = written.load(Ordering::Relaxed) - before;
        let spent = server.cpu_seconds_with_children()? - cpu;
        is_over.store(true, Ordering::Relaxed);
        let seconds = saved?;
        results.seconds.push(seconds);
        results.cpu.push(spent);
        results.writes.push(writes as f64 / seconds.max(0.001));
        let extra = peak.load(Ordering::Relaxed).saturating_sub(data);
        results
            .extra_percent
            .push(extra as f64 / data as f64 * 100.0);
        if writer.join().is_err() || large.is_some_and(|thread| thread.join().is_err()) {
            bail!("a writer failed");
        }
        let Ok(Ok(mut latencies)) = probe.join() else {
            bail!("the probe failed");
        };
        for (list, sample) in [
            (&mut latencies.0, &mut results.before_ms),
            (&mut latencies.1, &mut results.during_ms),
        ] {
            list.sort();
            let at = list.len().saturating_sub(1) * 999 / 1000;
            sample.push(
                list.get(at)
                    .map_or(f64::NAN, |took| took.as_secs_f64() * 1e3),
            );
        }
        let worst = latencies
            .1
            .last()
            .map_or(f64::NAN, |took| took.as_secs_f64() * 1e3);
        results.worst_ms.push(worst);
        Ok(())
    })
}

fn save(server: &Server, words: &[&str]) -> anyhow::Result<f64> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(LIMIT))?;
    let started = Instant::now();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query::<redis::Value>(&mut connection)?;
    while server.info(&mut connection, "rdb_bgsave_in_progress")? != "0" {
        std::thread::sleep(Duration::from_millis(20));
        if started.elapsed() > LIMIT {
            bail!("no end within {LIMIT:?}");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    match server
        .info(&mut connection, "rdb_last_bgsave_status")?
        .as_str()
    {
        "ok" => Ok(seconds),
        status => bail!("the save ended with status {status}"),
    }
}

/// Overwrites small entries at a bounded rate.
fn write(
    server: &Server,
    entries: u64,
    is_over: &AtomicBool,
    written: &AtomicU64,
) -> anyhow::Result<()> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(LIMIT))?;
    let mut random = fastrand::Rng::with_seed(1);
    let value = "w".repeat(VALUE_BYTES);
    let pause = Duration::from_secs(1) * BATCH / WRITES_PER_SECOND;
    while !is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let mut pipe = redis::pipe();
        for _ in 0..BATCH {
            let key = format!("key:{}", random.u64(0..entries));
            pipe.cmd("SET").arg(key).arg(&value).ignore();
        }
        pipe.query::<()>(&mut connection)?;
        written.fetch_add(u64::from(BATCH), Ordering::Relaxed);
        std::thread::sleep(pause.saturating_sub(sent.elapsed()));
    }
    Ok(())
}

/// Changes a large value ten times a second, sometimes the huge one.
fn write_large(server: &Server, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(LIMIT))?;
    let mut random = fastrand::Rng::with_seed(2);
    while !is_over.load(Ordering::Relaxed) {
        let key = match random.u32(..20) {
            0 => "huge".to_owned(),
            _ => format!("large:{}", random.u32(..LARGE_VALUES)),
        };
        let at = random.usize(..LARGE_BYTES - 10);
        redis::cmd("SETRANGE")
            .arg(key)
            .arg(at)
            .arg("changed")
            .query::<redis::Value>(&mut connection)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Latencies before a save and during it.
type Latencies = (Vec<Duration>, Vec<Duration>);

fn probe(
    server: &Server,
    is_over: &AtomicBool,
    is_saving: &AtomicBool,
) -> anyhow::Result<Latencies> {
    let mut connection = server.connect()?;
    connection.set_read_timeout(Some(LIMIT))?;
    redis::cmd("SET")
        .arg("probe")
        .arg("1")
        .query::<()>(&mut connection)?;
    let mut latencies = Latencies::default();
    while !is_over.load(Ordering::Relaxed) {
        let during = is_saving.load(Ordering::Relaxed);
        let sent = Instant::now();
        redis::cmd("GET")
            .arg("probe")
            .query::<redis::Value>(&mut connection)?;
        let took = sent.elapsed();
        match during || is_saving.load(Ordering::Relaxed) {
            true => latencies.1.push(took),
            false => latencies.0.push(took),
        }
        std::thread::sleep(Duration::from_millis(1).saturating_sub(took));
    }
    Ok(latencies)
}

/// How long a server takes to have its data again, from each form that it saves.
fn restart(plan: &Plan) -> anyhow::Result<()> {
    let entries = plan.megabytes * 1_000_000 / ENTRY_BYTES;
    let rounds = plan.rounds.clamp(1, 3);
    let mut results = SIDES.map(|_| (Samples::default(), Samples::default(), Samples::default()));
    for (side, (wall, cpu, bytes)) in SIDES.iter().zip(&mut results) {
        let server = Server::start(plan, side.kind, Place::Anywhere, None)?;
        fill(&server, entries, false)?;
        save(&server, side.save).with_context(|| side.name.to_owned())?;
        for round in 0..rounds {
            eprintln!("restart: {}, round {}", side.name, round + 1);
            let mut size = 0;
            let copy = tempfile::tempdir()?;
            for file in std::fs::read_dir(server.dir())? {
                let file = file?;
                if file.file_name() != "log" {
                    size += std::fs::copy(file.path(), copy.path().join(file.file_name()))?;
                }
            }
            bytes.push(size as f64 / 1e6);
            let started = Instant::now();
            let back = Server::start_in(plan, side.kind, Place::Anywhere, copy)?;
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(back.cpu_seconds()?);
            let count: u64 = redis::cmd("DBSIZE").query(&mut back.connect()?)?;
            if count != entries {
                bail!("{} loaded {count} entries of {entries}", side.name);
            }
        }
    }
    let title = format!("Restart from what was saved: {entries} entries");
    let columns = ["server", "MB", "seconds", "ratio to Redis", "CPU seconds"];
    let mut table = Table::new(&title, &columns);
    for (side, (wall, cpu, bytes)) in SIDES.iter().zip(&results) {
        table.row(&[
            side.name.to_owned(),
            format!("{:.0}", bytes.median()),
            format!("{:.2}", wall.median()),
            Samples::ratio(wall, &results[SIDES.len() - 1].0),
            format!("{:.2}", cpu.median()),
        ]);
    }
    table.print();
    Ok(())
}
