//! Full syncs: replicas that arrive together share one snapshot.
//!
//! A replica's connection (`replication::primary`) comes here on the control thread and waits; the snapshot begins when the first of those
//! that want the same has waited for `repl-diskless-sync-delay`, or when there are `repl-diskless-sync-max-replicas` of them. Each of them
//! gets the same history, offset and bytes. Without `repl-diskless-sync`, nobody waits, and who comes while the
//! payload is still whole joins in.
//!
//! Invariants
//! - From the cut on, the log keeps what the replicas of a group will need.
//! - A snapshot that nobody wants any more is given up.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::payload::Payload;
use crate::snapshot::save::{self, Begun};
use crate::world::{Control, World};

/// What of the dataset a replica wants (`rdb-filter-only`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All of it.
    #[default]
    Everything,
    /// Libraries of functions.
    Functions,
    /// Nothing: a payload without keys.
    Nothing,
}

/// A replica that wants a full sync.
pub struct Ask {
    /// The id of its client.
    pub id: u64,
    /// What it wants.
    pub filter: Filter,
    /// It takes a payload whose length is not known.
    pub takes_mark: bool,
    /// It wants nothing behind the payload.
    pub is_rdb_only: bool,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Sync>,
}

/// A full sync that has begun.
#[derive(Clone)]
pub struct Sync {
    /// The history.
    pub replid: String,
    /// Its offset at the cut.
    pub offset: u64,
    /// The bytes.
    pub payload: Arc<Payload>,
}

/// Those who wait for one snapshot.
struct Group {
    filter: Filter,
    since: Instant,
    asks: Vec<Ask>,
    /// Told when somebody joins.
    grown: Rc<Notify>,
}

/// A snapshot on its way.
struct Running {
    filter: Filter,
    sync: Sync,
}

#[derive(Default)]
struct Room {
    waiting: Vec<Group>,
    running: Vec<Running>,
}

thread_local! {
    /// Of the control thread.
    static ROOM: RefCell<Room> = RefCell::default();
}

/// A replica comes, on the control thread.
pub fn join(control: &Rc<Control>, ask: Ask) {
    let is_diskless = control.world.config().repl_diskless_sync;
    ROOM.with_borrow_mut(|room| {
        if !is_diskless && let Some(sync) = room.running_for(&control.world, &ask) {
            // Who has gone meanwhile leaves when its connection ends.
            let _ = ask.answer.send(sync);
            return;
        }
        if let Some(group) = room.waiting.iter_mut().find(|g| g.filter == ask.filter) {
            group.asks.push(ask);
            group.grown.notify_one();
            return;
        }
        let (filter, grown) = (ask.filter, Rc::new(Notify::new()));
        room.waiting.push(Group {
            filter,
            since: Instant::now(),
            asks: vec![ask],
            grown: grown.clone(),
        });
        let control = control.clone();
        tokio::task::spawn_local(async move {
            wait(&control.world, filter, &grown).await;
            let group = ROOM.with_borrow_mut(|room| room.take(filter));
            if let Some(group) = group {
                begin(control, group).await;
            }
        });
    });
}

impl Room {
    /// A snapshot on its way that this replica can still join.
    fn running_for(&self, world: &World, ask: &Ask) -> Option<Sync> {
        let running = self
            .running
            .iter()
            .find(|running| running.filter == ask.filter && running.sync.payload.join(ask.id))?;
        let offset = running.sync.offset;
        // Somebody of the group still keeps the log there, or all of it is gone on to replicas by now.
        let is_kept = world.log.with(|log| {
            let is_held = log.first().is_some_and(|first| first <= offset);
            if let Some(info) = log.replicas.get_mut(&ask.id).filter(|_| is_held) {
                info.sent = if ask.is_rdb_only { u64::MAX } else { offset };
            }
            is_held && log.replid == running.sync.replid
        });
        if !is_kept {
            running.sync.payload.leave(ask.id);
            return None;
        }
        Some(running.sync.clone())
    }

    fn take(&mut self, filter: Filter) -> Option<Group> {
        let at = self
            .waiting
            .iter()
            .position(|group| group.filter == filter)?;
        Some(self.waiting.remove(at))
    }
}

/// Waits as long as more replicas may come.
async fn wait(world: &World, filter: Filter, grown: &Notify) {
    loop {
        let (is_diskless, delay_s, most) = {
            let config = world.config();
            (
                config.repl_diskless_sync,
                config.repl_diskless_sync_delay,
                config.repl_diskless_sync_max_replicas as usize,
            )
        };
        let left = ROOM.with_borrow(|room| {
            let group = room.waiting.iter().find(|group| group.filter == filter)?;
            let waits = group.asks.iter().filter(|ask| !ask.answer.is_closed());
            let (count, all_take_mark) = waits.fold((0, true), |(count, all), ask| {
                (count + 1, all && ask.takes_mark)
            });
            let is_enough = count == 0 || most > 0 && count >= most;
            if !is_diskless || !all_take_mark || is_enough {
                return None;
            }
            Duration::from_secs(delay_s).checked_sub(group.since.elapsed())
        });
        let Some(left) = left.filter(|left| !left.is_zero()) else {
            return;
        };
        // The settings may change meanwhile.
        let left = left.min(Duration::from_millis(500));
        let _ = tokio::time::timeout(left, grown.notified()).await;
    }
}

/// Takes the cut for a group, and has a thread make the payload.
async fn begin(control: Rc<Control>, group: Group) {
    let world = control.world.clone();
    let asks: Vec<Ask> = group
        .asks
        .into_iter()
        .filter(|ask| !ask.answer.is_closed())
        .collect();
    if asks.is_empty() {
        return;
    }
    let wants: Vec<(u64, bool)> = asks.iter().map(|ask| (ask.id, ask.is_rdb_only)).collect();
    let (mut begun, replid) = cut(&control, group.filter, wants).await;
    let Some(replid) = replid else {
        // Those who wait hear that there is none when their answers go, and come again.
        save::abort(&control.coordinator, begun.id).await;
        return;
    };
    // A stream begins without a database, and its first command selects one. That of a primary's stream, which goes on, does not.
    let (offset, db) = match begun.place {
        Some(place) if !begun.is_marked => (place.offset, place.db.0),
        _ => (world.log.mark(begun.id.0).await.0, 0),
    };
    world.log.with(|log| {
        for ask in asks.iter().filter(|ask| !ask.is_rdb_only) {
            if let Some(info) = log.replicas.get_mut(&ask.id) {
                info.sent = offset;
            }
        }
    });
    begun.stream.add_aux("repl-stream-db", db.to_string());
    begun.stream.add_aux("repl-id", replid.clone());
    begun.stream.add_aux("repl-offset", offset.to_string());
    let directory = world.config().dir.clone();
    let readers = asks.iter().map(|ask| ask.id);
    let payload = Arc::new(Payload::new(Path::new(&directory), readers));
    let sync = Sync {
        replid,
        offset,
        payload: payload.clone(),
    };
    let target = match world.config().repl_diskless_sync {
        true => "replicas sockets",
        false => "disk",
    };
    tracing::info!(
        replicas = asks.len(),
        offset,
        "Starting BGSAVE for SYNC with target: {target}"
    );
    for ask in asks {
        let id = ask.id;
        if ask.answer.send(sync.clone()).is_err() {
            payload.leave(id);
        }
    }
    ROOM.with_borrow_mut(|room| {
        room.running.push(Running {
            filter: group.filter,
            sync,
        });
    });
    let id = begun.id;
    let in_progress = world.payloads.begin();
    let made = {
        let mut making = std::pin::pin!(make(payload.clone(), begun));
        tokio::select! {
            made = making.as_mut() => made,
            () = payload.unwanted() => Err("no replica waits for it any more".into()),
        }
    };
    match &made {
        Ok(()) if target == "disk" => tracing::info!("Background saving terminated with success"),
        Ok(()) => tracing::info!(
            "Diskless rdb transfer, done reading from pipe, {} replicas still up.",
            payload.readers()
        ),
        Err(error) => {
            tracing::warn!("BGSAVE for SYNC given up: {error}");
            save::abort(&control.coordinator, id).await;
        }
    }
    drop(in_progress);
    payload.end(made);
    ROOM.with_borrow_mut(|room| {
        room.running
            .retain(|running| !Arc::ptr_eq(&running.sync.payload, &payload));
    });
}

/// The cut: inside it, recording starts, and the log keeps what follows. With it comes the name of the history that it is a place of;
/// `None`: this server is a replica, and the dataset that it had has just gone.
async fn cut(
    control: &Control,
    filter: Filter,
    wants: Vec<(u64, bool)>,
) -> (Begun, Option<String>) {
    let world = control.world.clone();
    let plan = world.snapshot_plan();
    let shared = world.clone();
    let mut replid = None;
    let at_cut = |keyspaces: &mut [Box<crate::keyspace::Keyspace>],
                  journal: &crate::journal::Journal| {
        let place = keyspaces.iter().filter_map(|keyspace| keyspace.place).max();
        let is_replica = shared.is_replica.load(Ordering::Relaxed);
        if is_replica && place.is_none() {
            return;
        }
        if !is_replica {
            journal.set_active(true);
        }
        replid = shared.log.with(|log| {
            log.open(crate::clock::random_hex_40());
            // From here on nothing may be let go of that these replicas need.
            let offset = place.map_or(log.offset(), |place| place.offset);
            for (id, is_rdb_only) in wants {
                if let Some(info) = log.replicas.get_mut(&id) {
                    info.sent = if is_rdb_only { u64::MAX } else { offset };
                }
            }
            Some(log.replid.clone())
        });
    };
    let (coordinator, journal) = (&control.coordinator, &world.journal);
    let begun = match filter {
        Filter::Everything => save::begin(coordinator, journal, plan, at_cut).await,
        Filter::Functions | Filter::Nothing => {
            let has_libraries = filter == Filter::Functions;
            save::begin_without_keys(coordinator, journal, plan, has_libraries, at_cut).await
        }
    };
    (begun, replid)
}

/// Takes the snapshot's bytes as they come, on a thread that may wait for the disk.
async fn make(payload: Arc<Payload>, begun: Begun) -> Result<(), String> {
    let (sender, made) = oneshot::channel();
    let mut stream = begun.stream;
    let spawned = std::thread::Builder::new()
        .name("full-sync".into())
        .spawn(move || {
            crate::memory::count_this_thread();
            let result = loop {
                match stream.blocking_next() {
                    Ok(Some(bytes)) => {
                        if let Err(error) = payload.push(bytes) {
                            break Err(error.to_string());
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(aborted) => break Err(aborted.to_string()),
                }
            };
            // The one who waits ends with the process.
            let _ = sender.send(result);
        });
    match spawned {
        Ok(_) => made
            .await
            .unwrap_or_else(|_| Err("the thread that makes the payload has ended".into())),
        Err(error) => Err(format!("no thread for the payload: {error}")),
    }
}
