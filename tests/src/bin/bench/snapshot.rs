//! What a save costs those who use the server meanwhile: memory, latency of somebody else, time, CPU; and how fast a server is back.
//!
//! The dataset is small entries, with 200 values of 10 MB and one of 500 MB beside them where it says so. Everybody is written to: small
//! entries at a bounded rate, the large ones ten times a second. An independent probe asks for one small key every millisecond; a
//! second one asks an idle Redis that nobody else uses: what that one waits for is the machine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Plan;
use crate::servers::{Kind, Place, Seen, Server};
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
/// For how long the probes ask before the save: about as long as it takes.
const BEFORE: Duration = Duration::from_secs(8);
/// How often it is looked whether the save goes on.
const LOOK: Duration = Duration::from_millis(50);

/// A server and what it is told to save.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    /// What `--rows` calls it.
    row: &'static str,
    kind: Kind,
    save: &'static [&'static str],
}

const SIDES: [Side; 4] = [
    Side {
        name: "ours, 1 thread, RDB",
        row: "one",
        kind: Kind::Ours(1),
        save: &["BGSAVE"],
    },
    Side {
        name: "ours, 2 threads, RDB",
        row: "two",
        kind: Kind::Ours(2),
        save: &["BGSAVE"],
    },
    Side {
        name: "ours, 2 threads, DFS",
        row: "set",
        kind: Kind::Ours(2),
        save: &["BGSAVE", "DF"],
    },
    Side {
        name: "Redis",
        row: "redis",
        kind: Kind::Redis,
        save: &["BGSAVE"],
    },
];

#[derive(Default)]
struct Results {
    seconds: Samples,
    cpu: Samples,
    extra_percent: Samples,
    /// Of the server that saves, and of the idle one.
    probe: Probed,
    machine: Probed,
    writes: Samples,
}

/// What a probe waited, in milliseconds, of each round.
#[derive(Default)]
struct Probed {
    /// 99 and 99.9 of 100 were answered within this time before the save.
    before: [Samples; 2],
    /// And during it.
    during: [Samples; 2],
    worst: Samples,
}

impl Probed {
    fn push(&mut self, latencies: Latencies) {
        let worst = latencies.1.iter().max();
        self.worst
            .push(worst.map_or(f64::NAN, |took| took.as_secs_f64() * 1e3));
        for (list, samples) in [
            (latencies.0, &mut self.before),
            (latencies.1, &mut self.during),
        ] {
            let mut list = list;
            list.sort();
            let at = |thousandths: usize| {
                let place = list.len().saturating_sub(1) * thousandths / 1000;
                list.get(place)
                    .map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
            };
            samples[0].push(at(990));
            samples[1].push(at(999));
        }
    }
}

/// Prints the tables. With `--rows`, only these servers, and `large` for the second table.
pub fn measure(plan: &Plan) -> anyhow::Result<()> {
    let wants = |row: &str| plan.rows.is_empty() || plan.rows.iter().any(|wanted| wanted == row);
    let sides: Vec<Side> = SIDES.into_iter().filter(|side| wants(side.row)).collect();
    for has_large in [false, true] {
        if !has_large || wants("large") {
            during_a_save(plan, &sides, has_large)?;
        }
    }
    if plan.rows.is_empty() {
        restart(plan)?;
    }
    Ok(())
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

fn during_a_save(plan: &Plan, sides: &[Side], has_large: bool) -> anyhow::Result<()> {
    let entries = plan.megabytes * 1_000_000 / ENTRY_BYTES;
    let rounds = plan.rounds;
    let mut results: Vec<Results> = sides.iter().map(|_| Results::default()).collect();
    for round in 0..rounds {
        for (side, results) in sides.iter().zip(&mut results) {
            eprintln!(
                "snapshot: {}, large {has_large}, round {}",
                side.name,
                round + 1
            );
            let server = Server::start(plan, side.kind, Place::Anywhere, None)?;
            fill(&server, entries, has_large)?;
            let idle = Server::start(plan, Kind::Redis, Place::Anywhere, None)?;
            for seen in [Seen::Memory, Seen::Time] {
                one_save(&server, &idle, side, entries, has_large, seen, results)
                    .with_context(|| side.name.to_owned())?;
            }
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
        "probe p99 before, ms",
        "during",
        "p99.9 before, ms",
        "during",
        "ratio",
        "idle server's p99.9 before, ms",
        "during",
        "slowest, ms",
        "idle server's",
    ];
    let mut table = Table::new(&title, &columns);
    for (side, results) in sides.iter().zip(&results) {
        let ([before_99, before], [during_99, during]) =
            (&results.probe.before, &results.probe.during);
        let hundredths = |samples: &Samples| format!("{:.2}", samples.median());
        table.row(&[
            side.name.to_owned(),
            format!("{:.0}", results.writes.median()),
            hundredths(&results.seconds),
            hundredths(&results.cpu),
            format!("{:.1}", results.extra_percent.median()),
            hundredths(before_99),
            hundredths(during_99),
            hundredths(before),
            hundredths(during),
            Samples::ratio(during, before),
            hundredths(&results.machine.before[1]),
            hundredths(&results.machine.during[1]),
            hundredths(&results.probe.worst),
            hundredths(&results.machine.worst),
        ]);
    }
    table.print();
    Ok(())
}

fn one_save(
    server: &Server,
    idle: &Server,
    side: &Side,
    entries: u64,
    has_large: bool,
    seen: Seen,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (is_over, is_saving) = (AtomicBool::new(false), AtomicBool::new(false));
    let (peak, written) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(server, entries, &is_over, &written));
        let large = has_large.then(|| scope.spawn(|| write_large(server, &is_over)));
        let control = scope.spawn(|| probe(idle, &is_over, &is_saving));
        let probe = scope.spawn(|| probe(server, &is_over, &is_saving));
        // Buffers of connections are there before the save begins, and the probe knows what is usual, with the looks whether a save goes on.
        let mut looker = server.connect()?;
        let begun = Instant::now();
        while begun.elapsed() < BEFORE {
            is_in_progress(server, &mut looker)?;
            std::thread::sleep(LOOK);
        }
        let data = server.pss();
        scope.spawn(|| {
            while seen == Seen::Memory && !is_over.load(Ordering::Relaxed) {
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
        if writer.join().is_err() || large.is_some_and(|thread| thread.join().is_err()) {
            bail!("a writer failed");
        }
        let (Ok(Ok(asked)), Ok(Ok(machine))) = (probe.join(), control.join()) else {
            bail!("a probe failed");
        };
        if seen == Seen::Memory {
            let extra = peak.load(Ordering::Relaxed).saturating_sub(data);
            results
                .extra_percent
                .push(extra as f64 / data as f64 * 100.0);
            return Ok(());
        }
        results.seconds.push(seconds);
        results.cpu.push(spent);
        results.writes.push(writes as f64 / seconds.max(0.001));
        results.probe.push(asked);
        results.machine.push(machine);
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
    while is_in_progress(server, &mut connection)? {
        std::thread::sleep(LOOK);
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

fn is_in_progress(server: &Server, connection: &mut redis::Connection) -> anyhow::Result<bool> {
    Ok(server.info_of("persistence", connection, "rdb_bgsave_in_progress")? != "0")
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
