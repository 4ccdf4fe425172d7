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
//! - With `repl-diskless-sync` it counts as one that goes on (INFO) until each of them has it or has gone.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

use super::payload::Payload;
use crate::saving;
use crate::snapshot::save::{self, Begun, Dump};
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

/// A full sync that has begun, for one replica.
pub struct Sync {
    /// The history.
    pub replid: String,
    /// Its offset at the cut.
    pub offset: u64,
    /// The bytes.
    pub payload: Arc<Payload>,
    /// The id of the replica's client.
    reader: u64,
}

impl Sync {
    /// The replica has all, or takes no more.
    pub fn leave(&self) {
        self.payload.leave(self.reader);
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        self.leave();
    }
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
    replid: String,
    offset: u64,
    payload: Arc<Payload>,
}

impl Running {
    fn sync_for(&self, reader: u64) -> Sync {
        Sync {
            replid: self.replid.clone(),
            offset: self.offset,
            payload: self.payload.clone(),
            reader,
        }
    }
}

#[derive(Default)]
struct Room {
    waiting: Vec<Group>,
    running: Vec<Running>,
    /// Of those whose snapshot begins: one after the other.
    turn: Arc<Mutex<()>>,
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
            let turn = ROOM.with_borrow(|room| room.turn.clone());
            let turn = turn.lock_owned().await;
            let group = ROOM.with_borrow_mut(|room| room.take(&control.world, filter));
            if let Some(group) = group {
                begin(control, group, turn).await;
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
            .find(|running| running.filter == ask.filter && running.payload.join(ask.id))?;
        let (sync, offset) = (running.sync_for(ask.id), running.offset);
        // Somebody of the group still keeps the log there, or all of it is gone on to replicas by now.
        let is_kept = world.log.with(|log| {
            let is_held = log.first().is_some_and(|first| first <= offset);
            if let Some(info) = log.replicas.get_mut(&ask.id).filter(|_| is_held) {
                info.sent = if ask.is_rdb_only { u64::MAX } else { offset };
            }
            is_held && log.replid == running.replid
        });
        is_kept.then_some(sync)
    }

    /// Those who wait, without those who can still join what has begun meanwhile.
    fn take(&mut self, world: &World, filter: Filter) -> Option<Group> {
        let at = self
            .waiting
            .iter()
            .position(|group| group.filter == filter)?;
        let mut group = self.waiting.remove(at);
        if !world.config().repl_diskless_sync {
            for ask in std::mem::take(&mut group.asks) {
                match self.running_for(world, &ask) {
                    // Who has gone meanwhile leaves when its connection ends.
                    Some(sync) => drop(ask.answer.send(sync)),
                    None => group.asks.push(ask),
                }
            }
        }
        Some(group)
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

/// Takes the cut for a group, and has a thread make the payload. The next group has its turn when others can join this one.
async fn begin(control: Rc<Control>, group: Group, turn: OwnedMutexGuard<()>) {
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
    let is_diskless = world.config().repl_diskless_sync;
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
    let running = Running {
        filter: group.filter,
        replid,
        offset,
        payload: payload.clone(),
    };
    let target = match is_diskless {
        true => "replicas sockets",
        false => "disk",
    };
    tracing::info!(
        replicas = asks.len(),
        offset,
        "Starting BGSAVE for SYNC with target: {target}"
    );
    for ask in asks {
        // Who has gone meanwhile leaves with this.
        let _ = ask.answer.send(running.sync_for(ask.id));
    }
    ROOM.with_borrow_mut(|room| room.running.push(running));
    drop(turn);
    let _in_progress = world.payloads.begin();
    // Not before: who comes meanwhile joins the snapshot.
    let dump = match group.filter {
        Filter::Everything if !is_diskless => saving::create_dump(&world).await,
        _ => None,
    };
    let made = match dump {
        Some(dump) => make_dump(&control, &payload, begun, dump).await,
        None => make(&control, &payload, begun).await,
    };
    if let Err(error) = &made {
        tracing::warn!("BGSAVE for SYNC given up: {error}");
    }
    let is_made = made.is_ok();
    payload.end(made);
    ROOM.with_borrow_mut(|room| {
        room.running
            .retain(|running| !Arc::ptr_eq(&running.payload, &payload));
    });
    match is_made {
        true if is_diskless => taken(&world, &payload).await,
        true => tracing::info!("Background saving terminated with success"),
        false => {}
    }
}

/// Waits until each replica has the payload or has gone, and tells how many of those who have it are there.
async fn taken(world: &World, payload: &Payload) {
    payload.unwanted().await;
    let served = payload.served();
    let up = (world.log).with(|log| {
        served
            .iter()
            .filter(|id| log.replicas.contains_key(id))
            .count()
    });
    tracing::info!("Diskless rdb transfer, done reading from pipe, {up} replicas still up.");
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

/// Nobody waits for it: the words for the log.
const UNWANTED: &str = "no replica waits for it any more";

/// Makes a payload that goes through no file unless it must, as long as somebody wants it.
async fn make(control: &Control, payload: &Arc<Payload>, begun: Begun) -> Result<(), String> {
    let id = begun.id;
    let made = {
        let mut taking = std::pin::pin!(take(payload.clone(), begun));
        tokio::select! {
            made = taking.as_mut() => made,
            () = payload.unwanted() => Err(UNWANTED.into()),
        }
    };
    if made.is_err() {
        save::abort(&control.coordinator, id).await;
    }
    made
}

/// Makes a payload of what is a save as well: with save rules somebody wants the file in any case.
async fn make_dump(
    control: &Control,
    payload: &Arc<Payload>,
    begun: Begun,
    dump: Dump,
) -> Result<(), String> {
    let (id, progress) = (begun.id, dump.progress().clone());
    let mut writing = std::pin::pin!(saving::write_dump(control, dump, begun));
    let written = tokio::select! {
        written = writing.as_mut() => written,
        () = unwanted_dump(&control.world, payload) => {
            progress.is_cancelled.store(true, Ordering::Relaxed);
            save::abort(&control.coordinator, id).await;
            let _ = writing.await; // its end, whatever it is
            return Err(UNWANTED.into());
        }
    };
    match written {
        Ok((file, bytes)) => payload.put_file(file, bytes),
        Err(error) => {
            save::abort(&control.coordinator, id).await;
            return Err(error);
        }
    }
    Ok(())
}

/// Waits until neither a replica nor a save rule wants the file.
async fn unwanted_dump(world: &World, payload: &Payload) {
    payload.unwanted().await;
    if !world.config().save.is_empty() {
        std::future::pending::<()>().await;
    }
}

/// Takes the snapshot's bytes as they come, on a thread that may wait for the disk.
async fn take(payload: Arc<Payload>, begun: Begun) -> Result<(), String> {
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
