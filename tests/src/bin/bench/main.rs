//! The benchmark: this server beside a real one, in alternating rounds on the same machine.
//!
//! Absolute numbers on a shared machine say little; ratios of neighbouring runs say more. So every measurement is made of
//! both servers in turn, many times, and what is printed is the median with the spread next to it. `docs/benchmarks.md`
//! says what each table means.

mod commands;
mod memory;
mod persistence;
mod replication;
mod servers;
mod snapshot;
mod table;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

const USAGE: &str = "\
usage: bench [--quick] [--only NAME,...] [--commands NAME,...] [--rows WORD,...] [--rounds N] [--mb N] [--server PATH] [--redis PATH]

  --quick           a tenth of the requests and data, fewer rounds
  --only NAME,...   of one-thread, two-threads, commands, pauses, memory, load, bgsave, sync, snapshot,
                    replication
  --commands NAME,... of set, get, incr, lpush, hset, zadd, mset
  --rows WORD,...   of the tables commands and pauses only the rows with one of these commands; of
                    snapshot: one, two, set (ours by threads and form), redis, and large for the second table
  --rounds N        how often each measurement is made (9, quick 5)
  --mb N            size of the RDB file to load, save and send (1000, quick 200)
  --server PATH     our server (dfsnap-server beside this program)
  --redis PATH      the other one (redis-server)

A Markdown document goes to standard output, progress to standard error.

examples
  bench --quick --only one-thread --commands set,get   one table in half a minute
  bench > numbers.md                                   everything, about an hour
";

/// What to measure, and how long.
pub struct Plan {
    /// Less of everything.
    is_quick: bool,
    /// Names of the tables wanted; empty means all.
    only: Vec<String>,
    /// Commands of the throughput tables.
    commands: Vec<String>,
    /// Rows of the tables of single commands, by command, and of those of a save; empty means all.
    rows: Vec<String>,
    /// How often each measurement is made.
    rounds: usize,
    /// Megabytes of the RDB file.
    megabytes: u64,
    /// Our server.
    server: PathBuf,
    /// The server to compare with.
    redis: PathBuf,
}

impl Plan {
    /// Whether a row that runs these commands is wanted.
    fn wants_row(&self, line: &str) -> bool {
        let mut names = line.split('|').filter_map(|line| line.split(' ').next());
        self.rows.is_empty() || names.any(|name| self.rows.contains(&name.to_lowercase()))
    }
}

const TABLES: [&str; 10] = [
    "one-thread",
    "two-threads",
    "commands",
    "pauses",
    "memory",
    "load",
    "bgsave",
    "sync",
    "snapshot",
    "replication",
];

fn plan() -> anyhow::Result<Plan> {
    let beside = std::env::current_exe()?.with_file_name("dfsnap-server");
    let mut plan = Plan {
        is_quick: false,
        only: Vec::new(),
        commands: throughput::COMMANDS.map(str::to_owned).to_vec(),
        rows: Vec::new(),
        rounds: 0,
        megabytes: 0,
        server: beside,
        redis: "redis-server".into(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--quick" {
            plan.is_quick = true;
            continue;
        }
        let value = args
            .next()
            .with_context(|| format!("{arg}: a value is missing, or unknown\n\n{USAGE}"))?;
        match arg.as_str() {
            "--only" => plan.only = names(&value, &TABLES)?,
            "--commands" => plan.commands = names(&value, &throughput::COMMANDS)?,
            "--rows" => plan.rows = value.split(',').map(str::to_lowercase).collect(),
            "--rounds" => plan.rounds = value.parse().context("--rounds")?,
            "--mb" => plan.megabytes = value.parse().context("--mb")?,
            "--server" => plan.server = value.into(),
            "--redis" => plan.redis = value.into(),
            _ => bail!("unknown option {arg}\n\n{USAGE}"),
        }
    }
    if plan.rounds == 0 {
        plan.rounds = if plan.is_quick { 5 } else { 9 };
    }
    if plan.megabytes == 0 {
        plan.megabytes = if plan.is_quick { 200 } else { 1000 };
    }
    Ok(plan)
}

fn names(list: &str, known: &[&str]) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = list.split(',').map(str::to_lowercase).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => bail!("unknown name {unknown}: there are {}", known.join(", ")),
        None => Ok(names),
    }
}

fn run() -> anyhow::Result<()> {
    if std::env::args().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(());
    }
    let plan = plan()?;
    print_conditions(&plan)?;
    let wants = |name: &str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
    if wants("one-thread") {
        throughput::measure(&plan, 1)?;
    }
    if wants("two-threads") {
        throughput::measure(&plan, 2)?;
    }
    if wants("commands") {
        commands::costs(&plan)?;
    }
    if wants("pauses") {
        commands::disturbances(&plan)?;
    }
    if wants("memory") {
        memory::measure(&plan)?;
    }
    if ["load", "bgsave", "sync"].into_iter().any(wants) {
        let data = persistence::Data::make(&plan)?;
        if wants("load") {
            persistence::load(&plan, &data)?;
        }
        if wants("bgsave") {
            persistence::bgsave(&plan, &data)?;
        }
        if wants("sync") {
            persistence::sync(&plan, &data)?;
        }
    }
    if wants("snapshot") {
        snapshot::measure(&plan)?;
    }
    if wants("replication") {
        replication::measure(&plan)?;
    }
    Ok(())
}

/// What the numbers were made with, and how busy the machine was with other things just before.
fn print_conditions(plan: &Plan) -> anyhow::Result<()> {
    let version = std::process::Command::new(&plan.redis)
        .arg("--version")
        .output()
        .with_context(|| format!("running {}", plan.redis.display()))?;
    let version = String::from_utf8_lossy(&version.stdout);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} processors, load average before the start {}; {}; {} rounds{}",
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or_default(),
        version.split(" sha").next().unwrap_or_default().trim(),
        plan.rounds,
        if plan.is_quick { ", quick" } else { "" }
    );
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
