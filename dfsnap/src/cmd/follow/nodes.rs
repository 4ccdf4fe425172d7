//! The streams of all primaries of a cluster side by side: a thread and a link for each, and one that prints.
//!
//! Invariants
//! - A transaction is printed in one piece. Those of one node come in their order; between nodes there is none.
//! - When one node cannot be followed any more, all end, and the position of each is told.

use super::{FollowArgs, Printer, Start};
use crate::live::cluster::Nodes;
use crate::live::following::Following;
use crate::live::{Url, stop};
use crate::report::Failure;
use dfsnap_replica::Position;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Pieces of output that wait to be printed; who makes more waits.
const PIECES_MAX: usize = 64;

pub(super) fn follow(args: &FollowArgs, url: &Url) -> Result<(), Failure> {
    let nodes = Nodes::of(url)?;
    drop(nodes.connect()?);
    let from = positions(&args.from, &nodes.urls)?;
    let left = Arc::new(AtomicU64::new(args.count.unwrap_or(u64::MAX)));
    let (pieces, printed) = sync_channel::<Vec<u8>>(PIECES_MAX);
    let results: Vec<Ended> = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .urls
            .iter()
            .zip(from)
            .map(|(node, from)| {
                let (left, out) = (Arc::clone(&left), Pieces::new(pieces.clone()));
                scope.spawn(move || follow_node(args, node, from, out, left))
            })
            .collect();
        drop(pieces);
        let mut out = io::stdout().lock();
        for piece in printed {
            // Who does not read any more ends all of it; what comes until then goes nowhere.
            if out.write_all(&piece).and_then(|()| out.flush()).is_err() {
                left.store(0, Ordering::Relaxed);
            }
        }
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let positions: Vec<String> = results
        .iter()
        .filter_map(|end| Some(format!("{}={}", end.node, end.position?)))
        .collect();
    if !positions.is_empty() {
        eprintln!(
            "note: ended at {}; --from goes on there",
            positions.join(",")
        );
    }
    results.into_iter().try_for_each(|end| end.result)
}

/// How the stream of a node ended.
struct Ended {
    node: String,
    /// Where it goes on.
    position: Option<Position>,
    result: Result<(), Failure>,
}

/// In the order of the nodes.
fn positions(given: &[Start], nodes: &[Url]) -> Result<Vec<Option<Position>>, Failure> {
    let names: Vec<String> = nodes.iter().map(Url::to_string).collect();
    let mut found = vec![None; nodes.len()];
    for start in given {
        let at = start
            .node
            .as_ref()
            .and_then(|node| names.iter().position(|name| name == node));
        let Some(at) = at else {
            return Err(Failure {
                message: format!(
                    "--from: {} is none of the cluster's primaries",
                    start.node.as_deref().unwrap_or("a position without a node")
                ),
                advice: format!("NODE=ID:OFFSET:DB with a node of {}", names.join(", ")),
            });
        };
        found[at] = Some(start.position);
    }
    Ok(found)
}

fn follow_node(
    args: &FollowArgs,
    url: &Url,
    from: Option<Position>,
    out: Pieces,
    left: Arc<AtomicU64>,
) -> Ended {
    let mut printer = Printer::new(args, url, from, out, Arc::clone(&left));
    printer.is_node = true;
    let mut following = Following::new(url, from, args.attempts);
    let ended = printer.follow(&mut following);
    let flushed = printer.flush();
    if !stop::requested() {
        // By itself a node ends when all are to end: the last transaction was printed, or its link is gone for good.
        left.store(0, Ordering::Relaxed);
    }
    Ended {
        node: url.to_string(),
        position: following.position(),
        result: ended.and(flushed),
    }
}

/// Output on its way to the thread that prints: whole lines.
struct Pieces {
    to: SyncSender<Vec<u8>>,
    lines: Vec<u8>,
}

impl Pieces {
    fn new(to: SyncSender<Vec<u8>>) -> Self {
        Pieces {
            to,
            lines: Vec::new(),
        }
    }
}

/// What is collected before it goes on its way.
const PIECE_BYTES: usize = 64 << 10;

impl Write for Pieces {
    /// Whole transactions come, one with each call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(bytes);
        if self.lines.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.lines);
        let sent = self.to.send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
