//! When the dataset is saved: on command, by the rules of the configuration, and at the end.

use std::cell::RefCell;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Local};
use dfsnap_formats::dfs::writer::Compression;
use tokio::sync::oneshot;

use crate::clock::now_ms;
use crate::config::words::{IoBackend, SnapshotCompression};
use crate::snapshot::catalog::{self, Naming, Retention};
use crate::snapshot::file::Backend;
use crate::snapshot::save::{self, Begun, Destination, Dump, Place, Plan, Progress, Space, Target};
use crate::snapshot::serializer::{Dialect, Format, Usage};
use crate::snapshot::set;
use crate::threads;
use crate::world::{Attempt, Control, World, WriteHold, save_after_flush};

/// Seconds until a save by the rules is tried again after one failed.
const RETRY_S: i64 = 5;
/// That of Dragonfly.
const ZSTD_LEVEL: i32 = 2;

/// What is to be saved, and under which name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// A DFS set, or an RDB file; `None`: what the configuration says.
    pub is_set: Option<bool>,
    /// The file, or the base of the set, in place of the one that the configuration names.
    pub name: Option<String>,
}

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

/// Starts a save.
pub fn start(world: &Arc<World>, wish: Wish) -> Started {
    let Some(progress) = world.persistence.claim() else {
        return Started::Busy;
    };
    let (sender, done) = oneshot::channel();
    let watched = progress.clone();
    world.on_control(move |control| {
        tokio::task::spawn_local(async move {
            let result = run(&control, progress, wish).await;
            // The one who asked may not wait for it.
            let _ = sender.send(result);
        });
    });
    Started::Running {
        progress: watched,
        done,
    }
}

/// Gives up the save that runs. False: none does.
pub fn cancel(world: &World) -> bool {
    let current = world.persistence.state().current;
    if let Some(progress) = &current {
        progress.is_cancelled.store(true, Ordering::Relaxed);
    }
    current.is_some()
}

/// Where a save goes now, and its name for the log.
fn destination(world: &World, wish: Wish) -> (Destination, String) {
    let plan = Plan {
        is_paced: true,
        ..world.snapshot_plan()
    };
    let last_bytes = world.persistence.state().last_bytes;
    let config = world.config();
    let directory = PathBuf::from(&config.dir);
    let backend = match config.io_backend {
        IoBackend::Auto => Backend::Auto,
        IoBackend::IoUring => Backend::Uring,
        IoBackend::Threads => Backend::Threads,
    };
    let space = Space {
        directory: directory.clone(),
        wanted: last_bytes,
        kept: config.snapshot_min_free,
    };
    let naming = Naming::new(&config.dbfilename);
    if !wish.is_set.unwrap_or(config.df_snapshot_format) {
        let name = wish.name.unwrap_or_else(|| naming.rdb(now_ms()));
        let path = directory.join(name);
        let shown = path.display().to_string();
        let target = Target {
            path,
            backend,
            plan,
            space,
        };
        return (Destination::File(target), shown);
    }
    let base = wish.name.unwrap_or_else(|| naming.set(now_ms()));
    let shown = directory.join(&base).display().to_string();
    let target = set::Target {
        directory,
        others: config.snapshot_dirs.iter().map(PathBuf::from).collect(),
        base,
        backend,
        compression: match config.snapshot_compression {
            SnapshotCompression::None => Compression::None,
            SnapshotCompression::Lz4 => Compression::Lz4,
            SnapshotCompression::Zstd => Compression::Zstd(ZSTD_LEVEL),
        },
        databases: config.databases,
        plan: Plan {
            format: Format {
                dialect: Dialect::Dragonfly,
                // Blobs are compressed as a whole, and Dragonfly keeps no use.
                compresses: false,
                usage: Usage::None,
            },
            ..plan
        },
        space,
    };
    (Destination::Set(target), shown)
}

async fn run(control: &Rc<Control>, progress: Arc<Progress>, wish: Wish) -> Result<(), String> {
    let world = &control.world;
    let (destination, name) = destination(world, wish);
    tracing::info!(file = name, "Background saving started");
    let started = std::time::Instant::now();
    let log = world.log.clone();
    // The history is that of the cut: a moment later a full sync may have put another in its place.
    let replid = Rc::new(RefCell::new(String::new()));
    let (noted, shared) = (replid.clone(), log.clone());
    let at_cut = move || *noted.borrow_mut() = shared.with(|log| log.replid.clone());
    let is_cancelled = {
        let progress = progress.clone();
        move || progress.is_cancelled.load(Ordering::Relaxed)
    };
    let result = save::save(
        &control.coordinator,
        &world.journal,
        &world.persistence,
        progress,
        destination,
        at_cut,
        async move |place| {
            let (offset, db) = match place {
                Place::Mark(mark) => log.mark(mark).await,
                Place::Replica(place) => (place.offset, Some(place.db)),
            };
            (replid.take(), offset, db)
        },
    )
    .await;
    ended(world, &result, started, is_cancelled()).await;
    result.map(|_| ())
}

/// What a save's end means for writes and for older snapshots, and a line in the log.
async fn ended(
    world: &World,
    result: &Result<u64, String>,
    started: std::time::Instant,
    is_cancelled: bool,
) {
    let stops = world.config().stop_writes_on_bgsave_error && !world.config().save.is_empty();
    match result {
        Ok(bytes) => {
            world.refuses_writes.store(false, Ordering::Relaxed);
            tracing::info!(
                bytes,
                seconds = started.elapsed().as_secs_f64(),
                "DB saved on disk"
            );
            retain(world).await;
        }
        Err(_) if is_cancelled => tracing::info!("Background saving cancelled"),
        Err(error) => {
            world.refuses_writes.store(stops, Ordering::Relaxed);
            tracing::error!(%error, "Background saving error");
        }
    }
}

/// The file of a snapshot for replicas that is a save as well (`repl-diskless-sync no`). `None`: another save runs, or saves are DFS sets, or
/// there is no room for the file.
pub async fn create_dump(world: &World) -> Option<Dump> {
    if world.config().df_snapshot_format {
        return None;
    }
    let progress = world.persistence.claim()?;
    let started = progress.started;
    let wish = Wish {
        is_set: Some(false),
        name: None,
    };
    let (Destination::File(target), _) = destination(world, wish) else {
        unreachable!("an RDB file is wanted");
    };
    match Dump::create(&world.persistence, progress, target).await {
        Ok(dump) => Some(dump),
        Err(error) => {
            ended(world, &Err(error), started, false).await;
            None
        }
    }
}

/// Writes a snapshot for replicas to its file.
pub async fn write_dump(
    control: &Control,
    dump: Dump,
    begun: Begun,
) -> Result<(File, u64), String> {
    let (world, progress) = (&control.world, dump.progress().clone());
    let written = dump
        .write(&control.coordinator, &world.persistence, begun)
        .await;
    let result = written.as_ref().map(|(_, bytes)| *bytes);
    let is_cancelled = progress.is_cancelled.load(Ordering::Relaxed);
    ended(
        world,
        &result.map_err(String::clone),
        progress.started,
        is_cancelled,
    )
    .await;
    written
}

/// Removes the snapshots that the configuration lets go. Never fails a save: what cannot be removed is logged.
async fn retain(world: &World) {
    let (directory, naming, retention) = {
        let config = world.config();
        let retention = Retention {
            count: config.snapshot_keep,
            age_s: config.snapshot_keep_seconds,
        };
        let directory = PathBuf::from(&config.dir);
        (directory, Naming::new(&config.dbfilename), retention)
    };
    if retention.count == 0 && retention.age_s == 0 {
        return;
    }
    let remove = move || -> std::io::Result<()> {
        let found = naming.list(&directory)?;
        for excess in retention.excess(&found, now_ms()) {
            tracing::info!(snapshot = %excess, "removing a snapshot: snapshot-keep");
            catalog::remove(excess)?;
        }
        Ok(())
    };
    if let Err(error) = threads::run("snapshot-keep", remove).await.flatten() {
        tracing::error!(%error, "cannot remove old snapshots");
    }
}

/// Changes since the last save, over all shards.
async fn changes(control: &Control) -> u64 {
    let changes = control
        .world
        .links
        .look_at_all(|shard| shard.keyspace.as_ref().map_or(0, |k| k.stats.changes))
        .await;
    changes.map_or(0, |changes| changes.iter().sum())
}

/// Saves when the rules say so, as long as the server runs.
pub async fn by_rules(control: Rc<Control>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut schedule = Schedule::default();
    loop {
        tick.tick().await;
        let world = &control.world;
        if world.is_cron_paused.load(Ordering::Relaxed) {
            continue;
        }
        let is_time = schedule.is_time(world.config().snapshot_cron.as_deref(), Local::now());
        if is_time {
            tracing::info!("Saving: snapshot-cron");
            world.persistence.change(|state| state.is_scheduled = true);
        }
        if save_after_flush().swap(false, Ordering::Relaxed) {
            world.persistence.change(|state| state.is_scheduled = true);
        }
        if world.is_loading.load(Ordering::Relaxed)
            || world.is_loading_successor.load(Ordering::Relaxed)
        {
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
        if is_due && matches!(start(world, Wish::default()), Started::Running { .. }) {
            world.persistence.change(|state| state.is_scheduled = false);
        }
    }
}

/// `snapshot-cron`, and when it is due next.
#[derive(Default)]
struct Schedule {
    pattern: String,
    next: Option<DateTime<Local>>,
}

impl Schedule {
    /// Whether the pattern's time has come since the last look.
    fn is_time(&mut self, pattern: Option<&str>, now: DateTime<Local>) -> bool {
        let pattern = pattern.unwrap_or_default();
        let is_due = self.pattern == pattern && self.next.is_some_and(|next| next <= now);
        if is_due || self.pattern != pattern {
            self.pattern = pattern.to_owned();
            // Checked when it was set.
            let cron = croner::Cron::from_str(pattern).ok();
            self.next = cron.and_then(|cron| cron.find_next_occurrence(&now, false).ok());
        }
        is_due
    }
}

/// What must be done before the process ends: replicas get what they lack, unless it must end `now`, and the dataset is saved: `save`
/// forces or forbids it, else the rules decide. Writes wait meanwhile, and as long as the caller keeps what it gets: what was
/// acknowledged is in the file. They go on after an error.
pub async fn before_exit(
    world: &Arc<World>,
    save: Option<bool>,
    now: bool,
) -> Result<Option<WriteHold>, String> {
    if world.is_loading.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let attempt = world.ending.begin();
    let hold = WriteHold::begin(world).await;
    if !now {
        replicas_caught_up(world, &attempt).await?;
    }
    drop(attempt);
    save_before_exit(world, save).await?;
    Ok(Some(hold))
}

/// Waits until replicas have acknowledged all there is, for at most `shutdown-timeout`, or until somebody gives up.
async fn replicas_caught_up(world: &World, attempt: &Attempt<'_>) -> Result<(), String> {
    if world.is_replica.load(Ordering::Relaxed) {
        return Ok(());
    }
    let limit_s = world.config().shutdown_timeout;
    // Address, bytes that it lacks, state.
    let lagging = || {
        world.log.with(|log| {
            let end = log.offset();
            let replicas = log.replicas.values();
            let lagging = replicas.filter(|replica| replica.acked < end);
            let lagging = lagging.map(|replica| {
                let address = format!("{}:{}", replica.ip, replica.port);
                (address, end - replica.acked, replica.state == "online")
            });
            lagging.collect::<Vec<_>>()
        })
    };
    let has_lagging = || lagging().iter().any(|(_, _, is_online)| *is_online);
    let until_ms = now_ms() + limit_s.saturating_mul(1000).min(i64::MAX as u64 / 2) as i64;
    if limit_s > 0 && has_lagging() {
        tracing::info!("Waiting for replicas before shutting down.");
        attempt.waits_until(until_ms);
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while has_lagging() && now_ms() < until_ms {
            tick.tick().await;
            if attempt.is_aborted() {
                return Err(ABORTED.to_owned());
            }
        }
    }
    let (lagging, count) = (lagging(), world.log.with(|log| log.replicas.len()));
    for (address, bytes, _) in &lagging {
        tracing::warn!("Lagging replica {address} reported offset {bytes} behind master");
    }
    if count > 0 {
        let in_sync = count - lagging.len();
        tracing::info!("{in_sync} of {count} replicas are in sync when shutting down.");
    }
    Ok(())
}

/// The error of an attempt to end that was given up.
pub const ABORTED: &str = "Shutdown manually aborted";

async fn save_before_exit(world: &Arc<World>, save: Option<bool>) -> Result<(), String> {
    let wants_save = save.unwrap_or_else(|| !world.config().save.is_empty());
    if !wants_save {
        return Ok(());
    }
    let limit_s = world.config().shutdown_save_timeout;
    if limit_s == 0 {
        return last_save(world).await;
    }
    match tokio::time::timeout(Duration::from_secs(limit_s), last_save(world)).await {
        Ok(result) => result,
        Err(_) => {
            cancel(world);
            Err(format!(
                "the last save took longer than {limit_s} seconds (shutdown-save-timeout) and was given up"
            ))
        }
    }
}

async fn last_save(world: &Arc<World>) -> Result<(), String> {
    loop {
        match start(world, Wish::default()) {
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

/// A client has emptied the dataset: saves it, if that is wanted and nothing else is being saved, before the client is told so.
pub async fn save_flushed(world: &Arc<World>) {
    if !save_after_flush().swap(false, Ordering::Relaxed) {
        return;
    }
    match start(world, Wish::default()) {
        // That it has failed is in the log.
        Started::Running { done, .. } => drop(done.await),
        // It is done by the rules, later.
        Started::Busy => save_after_flush().store(true, Ordering::Relaxed),
    }
}

/// Ends the process.
pub fn exit(world: &World) -> ! {
    remove_unfinished(world);
    {
        let config = world.config();
        crate::service::tell(&config, "STOPPING=1");
        crate::service::remove_pidfile(&config);
    }
    tracing::info!("dfsnap is now ready to exit, bye bye...");
    std::process::exit(0)
}

/// What a save that goes on has written until now is of no use any more.
pub fn remove_unfinished(world: &World) {
    let (naming, directory) = {
        let config = world.config();
        (Naming::new(&config.dbfilename), config.dir.clone())
    };
    naming.remove_own(std::path::Path::new(&directory));
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn a_schedule_is_due_once_at_each_of_its_times_and_not_when_it_is_set() {
        let at = |hour, minute, second| {
            Local
                .with_ymd_and_hms(2026, 11, 27, hour, minute, second)
                .unwrap()
        };
        let mut schedule = Schedule::default();
        let hourly = Some("30 * * * *");
        assert!(!schedule.is_time(hourly, at(2, 30, 0)));
        assert!(!schedule.is_time(hourly, at(3, 29, 59)));
        assert!(schedule.is_time(hourly, at(3, 30, 0)));
        assert!(!schedule.is_time(hourly, at(3, 30, 1)));
        // Several times that were missed are one save.
        assert!(schedule.is_time(hourly, at(7, 0, 0)));
        assert!(!schedule.is_time(hourly, at(7, 0, 1)));
        assert!(!schedule.is_time(None, at(7, 30, 0)));
        assert!(!schedule.is_time(None, at(8, 30, 0)));
    }
}
