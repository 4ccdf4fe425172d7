//! The watchdog (`watchdog-period`): tells in the log of a shard's thread that does one thing for so long that nobody else is served.
//!
//! A thread of its own sends each shard a message, and looks how long it takes to be read: whatever holds the thread, a command, a script or
//! the machine, holds up the message too. What runs meanwhile the thread has said itself ([`activity`]). While the period is 0 there is no
//! such thread, and nothing is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::command::table;
use crate::shard::link::Links;
use crate::stats::activity;
use crate::world::World;

/// The thread that watches, as long as there is one.
static WATCHER: Mutex<Option<Thread>> = Mutex::new(None);

/// How many times in a period it is looked: a wait is noticed so much of a period late at most.
const LOOKS: u32 = 8;

/// Has the watchdog do as the configuration says now.
pub fn follow_config(world: &Arc<World>) {
    let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = &*watcher {
        return thread.unpark();
    }
    if period(world).is_none() {
        return;
    }
    let world = world.clone();
    let spawned = std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || watch(&world));
    match spawned {
        Ok(handle) => *watcher = Some(handle.thread().clone()),
        Err(error) => tracing::warn!(%error, "there is no watchdog"),
    }
}

fn period(world: &World) -> Option<Duration> {
    let period_ms = world.config().watchdog_period;
    (period_ms > 0).then(|| Duration::from_millis(period_ms))
}

fn watch(world: &World) {
    let shards = world.links.shards();
    let mut watched: Vec<Watched> = (0..shards).map(|_| Watched::default()).collect();
    loop {
        let period = {
            let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(period) = period(world) else {
                // Whoever sets another period from now on finds no watcher.
                *watcher = None;
                return;
            };
            period
        };
        let now = Instant::now();
        for (shard, watched) in watched.iter_mut().enumerate() {
            watched.look(&world.links, shard, period, now);
        }
        std::thread::park_timeout((period / LOOKS).max(Duration::from_millis(1)));
    }
}

/// A shard, as it is watched.
#[derive(Default)]
struct Watched {
    /// The message that is under way to it.
    asked: Option<Asked>,
    /// It has been told of.
    is_told: bool,
}

struct Asked {
    since: Instant,
    is_read: Arc<AtomicBool>,
}

impl Watched {
    fn look(&mut self, links: &Links, shard: usize, period: Duration, now: Instant) {
        if let Some(asked) = &self.asked {
            let waited_ms = now.saturating_duration_since(asked.since).as_millis();
            if !asked.is_read.load(Ordering::Acquire) {
                if waited_ms >= period.as_millis() && !std::mem::replace(&mut self.is_told, true) {
                    tracing::warn!(
                        "--- WATCHDOG TIMER EXPIRED --- shard {shard} has not come to anything else for {waited_ms} ms: {}",
                        what_runs(shard)
                    );
                }
                return;
            }
            if std::mem::take(&mut self.is_told) {
                tracing::warn!("Watchdog: shard {shard} goes on, after {waited_ms} ms");
            }
        }
        let is_read = Arc::new(AtomicBool::new(false));
        self.asked = Some(Asked {
            since: now,
            is_read: is_read.clone(),
        });
        let message = move |_: &mut _| is_read.store(true, Ordering::Release);
        links.send(shard, Box::new(message));
    }
}

/// What a shard's thread runs, in words.
fn what_runs(shard: usize) -> String {
    let Some(address) = activity::of_shard(shard) else {
        return "it runs no command".to_owned();
    };
    let known = table::all().find(|command| command.name.as_ptr().addr() == address);
    known.map_or("it runs a command".to_owned(), |command| {
        format!("it runs the command '{}'", command.name)
    })
}
