//! Loading, saving and sending one dataset.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::Plan;
use crate::servers::{Kind, Place, Seen, Server};
use crate::table::{Samples, Table};

/// Bytes of a value; with its key an entry takes about 80 bytes of an RDB file.
const VALUE_BYTES: usize = 64;
const ENTRY_BYTES: u64 = 80;

/// Writes a second of the load during a save, in batches.
const WRITES_PER_SECOND: u32 = 20_000;
const BATCH: u32 = 40;

/// An RDB file that a real server wrote.
pub struct Data {
    dir: TempDir,
    entries: u64,
    bytes: u64,
}

impl Data {
    /// Makes it.
    pub fn make(plan: &Plan) -> anyhow::Result<Data> {
        let entries = plan.megabytes * 1_000_000 / ENTRY_BYTES;
        eprintln!("making an RDB file of {entries} entries");
        let server = Server::start(plan, Kind::Redis, Place::Anywhere, None)?;
        let (count, size) = (entries.to_string(), VALUE_BYTES.to_string());
        server.run(&["DEBUG", "POPULATE", &count, "key", &size])?;
        server.run(&["SAVE"])?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("data.rdb");
        std::fs::copy(server.dir().join("dump.rdb"), &path)?;
        let bytes = path.metadata()?.len();
        Ok(Data {
            dir,
            entries,
            bytes,
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data.rdb")
    }

    fn title(&self, what: &str) -> String {
        format!(
            "{what}: {} entries, RDB file of {} MB",
            self.entries,
            self.bytes / 1_000_000
        )
    }
}

fn kinds() -> [(&'static str, Kind); 3] {
    [
        ("ours, 1 thread", Kind::Ours(1)),
        ("ours, 2 threads", Kind::Ours(2)),
        ("Redis", Kind::Redis),
    ]
}

/// Fewer rounds than for throughput: each takes seconds by itself.
fn rounds(plan: &Plan) -> usize {
    plan.rounds.clamp(1, 3)
}

/// Prints how long a start with an RDB file takes.
pub fn load(plan: &Plan, data: &Data) -> anyhow::Result<()> {
    let mut sides = [(); 3].map(|()| (Samples::default(), Samples::default()));
    for round in 0..rounds(plan) {
        for ((name, kind), (wall, cpu)) in kinds().into_iter().zip(&mut sides) {
            eprintln!("load: {name}, round {}", round + 1);
            let started = Instant::now();
            let server = Server::start(plan, kind, Place::Anywhere, Some(&data.path()))?;
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(server.cpu_seconds()?);
            let count: u64 = redis::cmd("DBSIZE").query(&mut server.connect()?)?;
            if count != data.entries {
                bail!("{name} loaded {count} entries of {}", data.entries);
            }
        }
    }
    let title = data.title("Load");
    let columns = ["server", "seconds", "ratio to Redis", "MB/s", "CPU seconds"];
    let mut table = Table::new(&title, &columns);
    for ((name, _), (wall, cpu)) in kinds().into_iter().zip(&sides) {
        table.row(&[
            name.to_owned(),
            format!("{:.2}", wall.median()),
            Samples::ratio(wall, &sides[2].0),
            format!("{:.0}", data.bytes as f64 / 1e6 / wall.median()),
            format!("{:.2}", cpu.median()),
        ]);
    }
    table.print();
    Ok(())
}

/// What one save gave.
#[derive(Default)]
struct Save {
    seconds: Samples,
    extra_mb: Samples,
    writes_per_second: Samples,
    slowest_ms: Samples,
    p99_ms: Samples,
}

/// Prints how long BGSAVE takes, how much more memory it needs, and what writers notice of it.
pub fn bgsave(plan: &Plan, data: &Data) -> anyhow::Result<()> {
    let title = data.title("BGSAVE");
    let columns = [
        "server",
        "writes/s meanwhile",
        "seconds",
        "ratio to Redis",
        "peak extra MB",
        "p99 of a batch of 40 writes, ms",
        "slowest batch, ms",
    ];
    let mut table = Table::new(&title, &columns);
    for is_writing in [false, true] {
        let mut sides = [(); 3].map(|()| Save::default());
        for round in 0..rounds(plan) {
            for ((name, kind), side) in kinds().into_iter().zip(&mut sides) {
                eprintln!("bgsave: {name}, writes {is_writing}, round {}", round + 1);
                let server = Server::start(plan, kind, Place::Anywhere, Some(&data.path()))?;
                for seen in [Seen::Memory, Seen::Time] {
                    save_once(&server, data.entries, is_writing, seen, side)
                        .with_context(|| name.to_owned())?;
                }
            }
        }
        for ((name, _), side) in kinds().into_iter().zip(&sides) {
            let if_writing = |text: String| if is_writing { text } else { "–".to_owned() };
            table.row(&[
                name.to_owned(),
                if_writing(format!("{:.0}", side.writes_per_second.median())),
                format!("{:.2}", side.seconds.median()),
                Samples::ratio(&side.seconds, &sides[2].seconds),
                format!("{:.0}", side.extra_mb.median()),
                if_writing(format!("{:.2}", side.p99_ms.median())),
                if_writing(format!("{:.1}", side.slowest_ms.median())),
            ]);
        }
    }
    table.print();
    Ok(())
}

fn save_once(
    server: &Server,
    entries: u64,
    is_writing: bool,
    seen: Seen,
    side: &mut Save,
) -> anyhow::Result<()> {
    let is_over = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = is_writing.then(|| scope.spawn(|| write_until(server, entries, &is_over)));
        // Buffers of the writer's connection and the first writes are there before the save begins.
        std::thread::sleep(Duration::from_millis(300));
        let before = server.pss();
        scope.spawn(|| {
            while seen == Seen::Memory && !is_over.load(Ordering::Relaxed) {
                peak.fetch_max(server.pss(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let seconds = timed_save(server);
        is_over.store(true, Ordering::Relaxed);
        let seconds = seconds?;
        if seen == Seen::Memory {
            let extra = peak.load(Ordering::Relaxed).saturating_sub(before);
            side.extra_mb.push(extra as f64 / 1e6);
            return Ok(());
        }
        side.seconds.push(seconds);
        if let Some(writer) = writer {
            let Ok(batches) = writer.join() else {
                bail!("the writer failed");
            };
            judge_writes(batches?, side);
        }
        Ok(())
    })
}

fn timed_save(server: &Server) -> anyhow::Result<f64> {
    let mut connection = server.connect()?;
    let started = Instant::now();
    redis::cmd("BGSAVE").query::<redis::Value>(&mut connection)?;
    while server.info(&mut connection, "rdb_bgsave_in_progress")? != "0" {
        std::thread::sleep(Duration::from_millis(5));
        if started.elapsed() > Duration::from_secs(600) {
            bail!("BGSAVE did not end within 600 s");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let status = server.info(&mut connection, "rdb_last_bgsave_status")?;
    if status != "ok" {
        bail!("BGSAVE ended with status {status}");
    }
    Ok(seconds)
}

/// When each batch of writes was sent, counted from the first, and how long its replies took.
type Batches = Vec<(Duration, Duration)>;

/// Overwrites entries at a bounded rate. A batch that comes late does not make the next ones hurry.
fn write_until(server: &Server, entries: u64, is_over: &AtomicBool) -> anyhow::Result<Batches> {
    let mut connection = server.connect()?;
    let mut random = fastrand::Rng::with_seed(1);
    let value = "w".repeat(VALUE_BYTES);
    let pause = Duration::from_secs(1) * BATCH / WRITES_PER_SECOND;
    let started = Instant::now();
    let mut batches = Batches::new();
    while !is_over.load(Ordering::Relaxed) {
        let mut pipe = redis::pipe();
        for _ in 0..BATCH {
            let key = format!("key:{}", random.u64(0..entries));
            pipe.cmd("SET").arg(key).arg(&value).ignore();
        }
        let sent = Instant::now();
        pipe.query::<()>(&mut connection)?;
        let took = sent.elapsed();
        batches.push((sent - started, took));
        std::thread::sleep(pause.saturating_sub(took));
    }
    Ok(batches)
}

fn judge_writes(batches: Batches, side: &mut Save) {
    let Some((last, _)) = batches.last() else {
        return;
    };
    let seconds = last.as_secs_f64().max(0.001);
    let writes = batches.len() as f64 * f64::from(BATCH);
    let mut took: Vec<Duration> = batches.iter().map(|(_, took)| *took).collect();
    took.sort();
    let milliseconds = |at: usize| took[at].as_secs_f64() * 1e3;
    side.writes_per_second.push(writes / seconds);
    side.p99_ms.push(milliseconds((took.len() - 1) * 99 / 100));
    side.slowest_ms.push(milliseconds(took.len() - 1));
}

/// Prints how long a fresh, real replica needs until it has everything.
pub fn sync(plan: &Plan, data: &Data) -> anyhow::Result<()> {
    let mut sides = [(); 3].map(|()| (Samples::default(), Samples::default()));
    for round in 0..rounds(plan) {
        for ((name, kind), (wall, cpu)) in kinds().into_iter().zip(&mut sides) {
            eprintln!("sync: {name}, round {}", round + 1);
            let primary = Server::start(plan, kind, Place::Anywhere, Some(&data.path()))?;
            let before = primary.cpu_seconds()?;
            let seconds =
                sync_once(plan, &primary, data.entries).with_context(|| name.to_owned())?;
            wall.push(seconds);
            cpu.push(primary.cpu_seconds()? - before);
        }
    }
    let title = data.title("Full sync of a fresh Redis replica");
    let columns = [
        "primary",
        "seconds",
        "ratio to Redis",
        "CPU seconds of the primary's process",
    ];
    let mut table = Table::new(&title, &columns);
    for ((name, _), (wall, cpu)) in kinds().into_iter().zip(&sides) {
        table.row(&[
            name.to_owned(),
            format!("{:.2}", wall.median()),
            Samples::ratio(wall, &sides[2].0),
            format!("{:.2}", cpu.median()),
        ]);
    }
    table.print();
    Ok(())
}

fn sync_once(plan: &Plan, primary: &Server, entries: u64) -> anyhow::Result<f64> {
    let replica = Server::start(plan, Kind::Redis, Place::Anywhere, None)?;
    let started = Instant::now();
    replica.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
    let mut connection = replica.connect()?;
    while replica.info(&mut connection, "master_link_status")? != "up" {
        std::thread::sleep(Duration::from_millis(10));
        if started.elapsed() > Duration::from_secs(600) {
            bail!("no full sync within 600 s");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let count: u64 = redis::cmd("DBSIZE").query(&mut connection)?;
    if count != entries {
        bail!("the replica has {count} entries of {entries}");
    }
    Ok(seconds)
}
