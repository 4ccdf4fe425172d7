//! Primaries, replicas, chains and clients in one process, on a simulated network and clock.
//!
//! The protocol is the real one: [`dfsnap_replica::Link`] on the replica's side, [`crate::log::LogState`] on the primary's, and the bytes
//! between them. What is simulated is what carries them: sockets that deliver late, in pieces or not at all, connections that
//! break at both ends or at one, servers that end and start again, disks that are full, and a clock. One seed is one run.
//!
//! Checked from outside, after every step:
//! - a replica's data are what its primary had at that offset of that history: nothing is lost, doubled or out of order, and no
//!   transaction is half there;
//! - no primary believes that a replica has more than it has;
//! - a planned failover loses no write that was acknowledged by WAIT;
//!
//! and at the end, when nothing breaks any more: all that follow a primary become equal to it.

mod model;
mod network;
mod node;

use model::{Cluster, Fault};

/// Runs one seed; the trace of what happened on an error.
fn run(seed: u64, steps: usize) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(seed);
    let checked = (0..steps)
        .try_for_each(|_| cluster.step())
        .and_then(|()| cluster.settle());
    match checked {
        Ok(()) => Ok(cluster),
        Err(error) => Err(format!(
            "seed {seed}: {error}\n{}",
            cluster.trace.join("\n")
        )),
    }
}

fn seeds() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("DFSNAP_SEED") {
        Some(seed) => (seed, 1),
        None => (
            fastrand::u64(..1 << 40),
            number("DFSNAP_RUNS").unwrap_or(1_000),
        ),
    }
}

#[test]
fn replicas_are_prefixes_of_their_primaries_whatever_breaks() {
    let (first, runs) = seeds();
    println!("DFSNAP_SEED={first}, {runs} runs");
    let mut seen = [0u64; model::COUNTERS.len()];
    for seed in first..first + runs {
        match run(seed, 400) {
            Ok(cluster) => {
                for (sum, count) in seen.iter_mut().zip(cluster.counters) {
                    *sum += count;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    // A simulation in which nothing happens proves nothing.
    for (name, count) in model::COUNTERS.iter().zip(seen) {
        println!("{name}: {count}");
        assert!(runs < 500 || count > 0, "{name} never happened");
    }
}

/// The checkers see what they are there for: each fault of the protocol code, put in on purpose, is found.
#[test]
fn checkers_find_faults_that_are_put_in() {
    for fault in Fault::ALL {
        let found = (0..500).any(|seed| {
            let mut cluster = Cluster::new(seed);
            cluster.fault = Some(fault);
            let mut steps = (0..400).map(|_| cluster.step());
            let is_found = steps.any(|step| step.is_err());
            is_found || cluster.settle().is_err()
        });
        assert!(found, "{fault:?} was not found");
    }
}
