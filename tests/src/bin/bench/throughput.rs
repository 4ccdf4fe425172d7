//! Requests a second, latency, and what a request costs the server.
//!
//! With one thread, server and client each have a processor of their own. With two there are more threads than processors;
//! then only the CPU column says something about the server alone.

use std::process::Command;

use anyhow::{Context, bail};

use crate::Plan;
use crate::servers::{Kind, Place, Server};
use crate::table::{Samples, Table};

/// Tests of redis-benchmark, in the order in which they run: GET finds what SET left.
pub const COMMANDS: [&str; 7] = ["set", "get", "incr", "lpush", "hset", "zadd", "mset"];

/// Pipeline depth, and requests of a run.
const DEPTHS: [(u32, u64); 3] = [(1, 300_000), (16, 2_000_000), (64, 3_000_000)];

/// Keys, or members of the one collection.
const RANGE: &str = "100000";

/// What the runs of one server gave.
#[derive(Default)]
struct Side {
    rate: Samples,
    p99: Samples,
    cpu: Samples,
}

/// One row: ours and theirs.
type Row = [Side; 2];

/// Prints the table for our server with so many threads.
pub fn measure(plan: &Plan, threads: usize) -> anyhow::Result<()> {
    let (server_place, client_place) = match threads {
        1 => (Place::Pinned(0), Place::Pinned(1)),
        _ => (Place::Anywhere, Place::Anywhere),
    };
    let servers = [
        Server::start(plan, Kind::Ours(threads), server_place, None)?,
        Server::start(plan, Kind::Redis, server_place, None)?,
    ];
    let mut rows: Vec<(String, u32, Row)> = plan
        .commands
        .iter()
        .flat_map(|name| DEPTHS.map(|(depth, _)| (name.clone(), depth, Row::default())))
        .collect();
    for round in 0..plan.rounds {
        eprintln!(
            "{threads} thread(s): round {} of {}",
            round + 1,
            plan.rounds
        );
        for (name, depth, row) in &mut rows {
            let requests = DEPTHS.iter().find(|(known, _)| known == depth);
            let (_, requests) = requests.context("a row has a known depth")?;
            let requests = if plan.is_quick {
                requests / 10
            } else {
                *requests
            };
            let requests = if name == "mset" {
                requests / 4
            } else {
                requests
            };
            for turn in 0..2 {
                // Who is first changes from round to round.
                let which = (turn + round) % 2;
                let run = Run {
                    name,
                    depth: *depth,
                    requests,
                };
                run.measure(&servers[which], client_place, &mut row[which])
                    .with_context(|| format!("{name}, pipeline {depth}"))?;
            }
        }
    }
    let title = format!("Throughput, {threads} shard thread(s)");
    let mut table = Table::new(
        &title,
        &[
            "command",
            "pipeline",
            "k requests/s",
            "Redis",
            "ratio",
            "p99 ms",
            "Redis",
            "CPU s/M requests",
            "Redis",
            "ratio",
        ],
    );
    for (name, depth, [ours, theirs]) in &rows {
        table.row(&[
            name.to_uppercase(),
            depth.to_string(),
            format!("{:.0}", ours.rate.median() / 1e3),
            format!("{:.0}", theirs.rate.median() / 1e3),
            Samples::ratio(&ours.rate, &theirs.rate),
            format!("{:.2}", ours.p99.median()),
            format!("{:.2}", theirs.p99.median()),
            format!("{:.2}", ours.cpu.median()),
            format!("{:.2}", theirs.cpu.median()),
            Samples::ratio(&ours.cpu, &theirs.cpu),
        ]);
    }
    table.print();
    Ok(())
}

/// One run of redis-benchmark.
struct Run<'a> {
    name: &'a str,
    depth: u32,
    requests: u64,
}

impl Run<'_> {
    fn measure(&self, server: &Server, place: Place, side: &mut Side) -> anyhow::Result<()> {
        if self.name == "get" {
            self.benchmark(server, place, "set")?;
        } else {
            server.run(&["FLUSHALL"])?;
        }
        let before = server.cpu_seconds()?;
        let (rate, p99) = self.benchmark(server, place, self.name)?;
        let seconds = server.cpu_seconds()? - before;
        side.rate.push(rate);
        side.p99.push(p99);
        side.cpu.push(seconds / self.requests as f64 * 1e6);
        Ok(())
    }

    /// Requests a second, and p99 in milliseconds.
    fn benchmark(&self, server: &Server, place: Place, name: &str) -> anyhow::Result<(f64, f64)> {
        let mut command = match place {
            Place::Pinned(cpu) => {
                let mut command = Command::new("taskset");
                command
                    .arg("-c")
                    .arg(cpu.to_string())
                    .arg("redis-benchmark");
                command
            }
            Place::Anywhere => Command::new("redis-benchmark"),
        };
        let output = command
            .args(["-p", &server.port().to_string(), "-t", name, "-c", "50"])
            .args([
                "-n",
                &self.requests.to_string(),
                "-P",
                &self.depth.to_string(),
            ])
            .args(["-r", RANGE, "-d", "16", "--csv"])
            .output()
            .context("running redis-benchmark")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(line) = text.lines().nth(1) else {
            bail!(
                "redis-benchmark printed no result: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        // "test","rps","avg","min","p50","p95","p99","max"; the name of MSET contains no comma.
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim_matches('"')).collect();
        let number = |at: usize| -> anyhow::Result<f64> {
            let cell = cells
                .get(at)
                .with_context(|| format!("no column {at} in {line}"))?;
            cell.parse()
                .with_context(|| format!("column {at} of {line}"))
        };
        Ok((number(1)?, number(6)?))
    }
}
