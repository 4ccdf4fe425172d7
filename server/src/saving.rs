//! When the dataset is saved: on command, by the rules of the configuration, and at the end.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::now_ms;
use crate::config::words::IoBackend;
use crate::snapshot::file::Backend;
use crate::snapshot::save::{self, Plan, Progress, Target};
use crate::world::{Control, World};

/// Seconds until a save by the rules is tried again after one failed.
const RETRY_S: i64 = 5;

/// What became of the wish to save.
pub enum Started {
    /// It runs; its end comes from `done`.
    Running {
        progress: Arc<Progress>,
        done: oneshot::Receiver<Result<(), String>>,
    },
    /// Another one runs.
    Busy,
}

/// Starts a save to the RDB file.
pub fn start(world: &Arc<World>) -> Started {
    let Some(progress) = world.persistence.claim() else {
        return Started::Busy;
    };
    let (sender, done) = oneshot::channel();
    let watched = progress.clone();
    world.on_control(move |control| {
        tokio::task::spawn_local(async move {
            let result = run(&control, progress).await;
            // The one who asked may not wait for it.
            let _ = sender.send(result);
        });
    });
    Started::Running {
        progress: watched,
        done,
    }
}

async fn run(control: &Rc<Control>, progress: Arc<Progress>) -> Result<(), String> {
    let world = &control.world;
    let path = world.rdb_path();
    let backend = match world.config().io_backend {
        IoBackend::Auto => Backend::Auto,
        IoBackend::IoUring => Backend::Uring,
        IoBackend::Threads => Backend::Threads,
    };
    tracing::info!(file = %path.display(), "Background saving started");
    let started = std::time::Instant::now();
    let log = world.log.clone();
    let result = save::to_file(
        &control.coordinator,
        &world.journal,
        &world.persistence,
        progress,
        Target {
            path,
            backend,
            plan: Plan {
                is_paced: true,
                ..world.snapshot_plan()
            },
        },
        async move |mark| {
            let (offset, db) = log.mark(mark).await;
            (log.with(|log| log.replid.clone()), offset, db)
        },
    )
    .await;
    let stops = world.config().stop_writes_on_bgsave_error && !world.config().save.is_empty();
    match &result {
        Ok(bytes) => {
            world.refuses_writes.store(false, Ordering::Relaxed);
            tracing::info!(
                bytes,
                seconds = started.elapsed().as_secs_f64(),
                "DB saved on disk"
            );
        }
        Err(error) => {
            world.refuses_writes.store(stops, Ordering::Relaxed);
            tracing::error!(%error, "Background saving error");
        }
    }
    result.map(|_| ())
}

/// Changes since the last save, over all shards.
async fn changes(control: &Control) -> u64 {
    let changes = control
        .world
        .links
        .call_all(|shard| shard.keyspace.as_ref().map_or(0, |k| k.stats.changes))
        .await;
    changes.map_or(0, |changes| changes.iter().sum())
}

/// Saves when the rules say so, as long as the server runs.
pub async fn by_rules(control: Rc<Control>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let world = &control.world;
        if world.is_loading.load(Ordering::Relaxed) {
            continue;
        }
        let state = world.persistence.state();
        if state.current.is_some() {
            continue;
        }
        let now_s = now_ms() / 1000;
        let rules = world.config().save.clone();
        let may_retry = state.last_ok || now_s - state.last_try_s >= RETRY_S;
        let is_due = if state.is_scheduled {
            true
        } else if may_retry
            && rules
                .iter()
                .any(|rule| now_s - state.last_save_s >= rule.seconds as i64)
        {
            let changes = changes(&control).await;
            let due = rules.iter().find(|rule| {
                changes >= rule.changes && now_s - state.last_save_s >= rule.seconds as i64
            });
            if let Some(rule) = due {
                tracing::info!(
                    "{} changes in {} seconds. Saving...",
                    rule.changes,
                    rule.seconds
                );
            }
            due.is_some()
        } else {
            false
        };
        if is_due && matches!(start(world), Started::Running { .. }) {
            world.persistence.change(|state| state.is_scheduled = false);
        }
    }
}

/// What must be done before the process ends: `save` forces or forbids the save, else the rules decide.
pub async fn before_exit(world: &Arc<World>, save: Option<bool>) -> Result<(), String> {
    let wants_save = save.unwrap_or_else(|| !world.config().save.is_empty());
    if !wants_save || world.is_loading.load(Ordering::Relaxed) {
        return Ok(());
    }
    loop {
        match start(world) {
            Started::Running { done, .. } => {
                return done
                    .await
                    .unwrap_or_else(|_| Err("the control thread has gone".into()));
            }
            // The one that runs began before the last writes: wait for it, then save those too.
            Started::Busy => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Ends the process.
pub fn exit() -> ! {
    tracing::info!("dfsnap is now ready to exit, bye bye...");
    std::process::exit(0)
}
