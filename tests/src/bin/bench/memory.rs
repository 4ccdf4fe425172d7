//! Resident bytes per entry.

use anyhow::Context;

use crate::Plan;
use crate::servers::{Kind, Place, Server};
use crate::table::{Samples, Table};

/// A kind of data: its name, how many entries, and the command that makes the n-th.
type Shape = (&'static str, u64, fn(u64) -> redis::Cmd);

const SHAPES: [Shape; 3] = [
    ("string: key of 16 bytes, value of 10", 2_000_000, string),
    ("hash of 5 small fields", 200_000, hash),
    ("sorted set of 5 small members", 200_000, sorted_set),
];

fn string(n: u64) -> redis::Cmd {
    let mut command = redis::cmd("SET");
    command.arg(format!("key:{n:012}")).arg(format!("v:{n:08}"));
    command
}

fn hash(n: u64) -> redis::Cmd {
    let mut command = redis::cmd("HSET");
    command.arg(format!("hash:{n:08}"));
    for field in 0..5 {
        command
            .arg(format!("field{field}"))
            .arg(format!("value{}", n + field));
    }
    command
}

fn sorted_set(n: u64) -> redis::Cmd {
    let mut command = redis::cmd("ZADD");
    command.arg(format!("zset:{n:08}"));
    for member in 0..5 {
        command.arg(n + member).arg(format!("member{member}"));
    }
    command
}

/// Prints the table. A fresh process for each row and round: what an allocator keeps would blur the next.
pub fn measure(plan: &Plan) -> anyhow::Result<()> {
    let mut table = Table::new(
        "Memory",
        &["entries", "count", "bytes per entry", "Redis", "ratio"],
    );
    // The same data takes the same memory: little is gained by more rounds.
    let rounds = plan.rounds.min(2);
    for (name, count, command) in SHAPES {
        let count = if plan.is_quick { count / 2 } else { count };
        let mut sides = [Samples::default(), Samples::default()];
        for round in 0..rounds {
            eprintln!("memory: {name}, round {} of {rounds}", round + 1);
            for (kind, side) in [Kind::Ours(1), Kind::Redis].into_iter().zip(&mut sides) {
                let server = Server::start(plan, kind, Place::Anywhere, None)?;
                let before = server.rss()?;
                fill(&server, count, command).with_context(|| name.to_owned())?;
                let bytes = server.rss()?.saturating_sub(before);
                side.push(bytes as f64 / count as f64);
            }
        }
        let [ours, theirs] = &sides;
        table.row(&[
            name.to_owned(),
            count.to_string(),
            format!("{:.1}", ours.median()),
            format!("{:.1}", theirs.median()),
            Samples::ratio(ours, theirs),
        ]);
    }
    table.print();
    Ok(())
}

fn fill(server: &Server, count: u64, command: fn(u64) -> redis::Cmd) -> anyhow::Result<()> {
    let mut connection = server.connect()?;
    let mut next = 0;
    while next < count {
        let end = count.min(next + 1000);
        let mut pipe = redis::pipe();
        for n in next..end {
            pipe.add_command(command(n)).ignore();
        }
        pipe.query::<()>(&mut connection)?;
        next = end;
    }
    Ok(())
}
