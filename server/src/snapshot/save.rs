//! Saving: the cut, the walk, the file, and what INFO tells of it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;

use super::SnapshotId;
use super::feed::Feed;
use super::file::{Backend, FileWriter};
use super::hook::{self, Budget, Census, Order, Takes};
use super::priority;
use super::serializer::Format;
use super::set;
use super::stream::{Preamble, RdbStream};
use super::traverser::traverse;
use crate::journal::{Journal, Records};
use crate::keyspace::{DbIndex, Keyspace, StreamPlace};
use crate::libraries::Codes;
use crate::shard::queue::Mode;
use crate::threads;
use crate::tx::Coordinator;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The name of the next snapshot.
pub(super) fn next_id() -> SnapshotId {
    SnapshotId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
}

/// What a snapshot is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How entries are written.
    pub format: Format,
    /// AUX fields, without those about replication.
    pub preamble: Preamble,
    /// Room in bytes for what is on its way to the sink, for all shards together.
    pub buffer_bytes: u64,
    /// Whether the stream carries a checksum.
    pub has_checksum: bool,
    /// Whether `snapshot-rate-limit` counts.
    pub is_paced: bool,
}

/// A snapshot whose cut has been taken.
pub struct Begun {
    /// Its name.
    pub id: SnapshotId,
    /// Its bytes.
    pub stream: RdbStream,
    /// Its place in the journal is marked with its id.
    pub is_marked: bool,
    /// Of a replica: its place in the primary's stream.
    pub place: Option<StreamPlace>,
    /// Changes before the cut that it saves, over all shards.
    pub changes: u64,
}

/// Takes a cut for one stream. See [`cut`].
pub async fn begin(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    plan: Plan,
    at_cut: impl FnOnce(&mut [Box<Keyspace>], &Journal),
) -> Begun {
    let mut taken = cut(coordinator, journal, &plan, Sinks::One, at_cut).await;
    let feed = taken.feeds.pop().expect("one sink has one feed");
    let mut preamble = plan.preamble;
    preamble.libraries = taken.libraries;
    Begun {
        id: taken.id,
        stream: RdbStream::new(feed, preamble, &taken.censuses, plan.has_checksum),
        is_marked: taken.is_marked,
        place: taken.place,
        changes: taken.changes,
    }
}

/// A cut that saves no key, for a replica that wants to know of the rest only.
pub async fn begin_without_keys(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    plan: Plan,
    has_libraries: bool,
    at_cut: impl FnOnce(&mut [Box<Keyspace>], &Journal),
) -> Begun {
    let id = next_id();
    let shared = journal.clone();
    let (is_marked, place, libraries) = coordinator
        .global(Box::new(move |keyspaces| {
            at_cut(keyspaces, &shared);
            let is_marked = mark(&shared, id, true);
            let places = keyspaces.iter().filter_map(|keyspace| keyspace.place);
            (
                (is_marked, places.max(), crate::libraries::all()),
                Vec::new(),
            )
        }))
        .await;
    let mut preamble = plan.preamble;
    if has_libraries {
        preamble.libraries = libraries;
    }
    let (_, nothing) = unbounded_channel();
    let feed = Feed::new(nothing, coordinator.here().links.clone(), 0);
    Begun {
        id,
        stream: RdbStream::new(feed, preamble, &[], plan.has_checksum),
        is_marked,
        place,
        changes: 0,
    }
}

/// Marks the place of a cut in the journal, if anybody listens to it. For a replica a stream begins there.
fn mark(journal: &Journal, id: SnapshotId, is_for_replica: bool) -> bool {
    let is_active = journal.is_active();
    if is_active {
        let seq = journal.next();
        journal.post(match is_for_replica {
            true => Records::of_mark(seq, id.0),
            false => Records::of_place(seq, id.0),
        });
    }
    is_active
}

/// How the place of a cut in a replication stream is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The journal is marked with this.
    Mark(u64),
    /// This server is a replica, and had this much of the stream.
    Replica(StreamPlace),
}

impl Place {
    /// The place of a cut, if there is a stream.
    fn of(id: SnapshotId, is_marked: bool, place: Option<StreamPlace>) -> Option<Place> {
        match is_marked {
            true => Some(Place::Mark(id.0)),
            false => place.map(Place::Replica),
        }
    }
}

/// How many sinks a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sinks {
    /// One for all shards.
    One,
    /// One for each shard.
    PerShard,
}

/// A cut that has been taken.
pub struct Cut {
    /// The snapshot's name.
    pub id: SnapshotId,
    /// What goes to each sink.
    pub feeds: Vec<Feed>,
    /// What each shard holds.
    pub censuses: Vec<Census>,
    /// Its place in the journal is marked with its id.
    pub is_marked: bool,
    /// Of a replica: its place in the primary's stream.
    pub place: Option<StreamPlace>,
    /// Changes before the cut that it saves, over all shards.
    pub changes: u64,
    /// Libraries of functions.
    pub libraries: Arc<Codes>,
}

impl Cut {
    /// Where the cut is in a replication stream, if there is one.
    pub fn known_place(&self) -> Option<Place> {
        Place::of(self.id, self.is_marked, self.place)
    }
}

/// Takes a cut and starts the walks. `at_cut` runs inside the cut, with all shards standing still: what replication has
/// to note there.
pub async fn cut(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    plan: &Plan,
    sinks: Sinks,
    at_cut: impl FnOnce(&mut [Box<Keyspace>], &Journal),
) -> Cut {
    let id = next_id();
    let shards = coordinator.shards();
    let links = coordinator.here().links.clone();
    let mut senders = Vec::with_capacity(shards);
    let mut feeds = Vec::new();
    match sinks {
        Sinks::One => {
            let (sender, receiver) = unbounded_channel();
            feeds.push(Feed::new(receiver, links, shards));
            senders.resize(shards, sender);
        }
        Sinks::PerShard => {
            for _ in 0..shards {
                let (sender, receiver) = unbounded_channel();
                feeds.push(Feed::new(receiver, links.clone(), 1));
                senders.push(sender);
            }
        }
    }
    let share = (plan.buffer_bytes / shards as u64).max(hook::CHUNK_BYTES as u64 * 2);
    let format = plan.format.clone();
    let journal = journal.clone();
    // Only saves are paced.
    let is_for_replica = !plan.is_paced;
    let (censuses, changes, is_marked, place, libraries) = coordinator
        .global(Box::new(move |keyspaces| {
            let mut changes = 0;
            let mut censuses: Vec<Census> = Vec::with_capacity(keyspaces.len());
            for ((shard, keyspace), sink) in keyspaces.iter_mut().enumerate().zip(senders) {
                let budget = Arc::new(Budget::new(shard, share));
                let order = Order {
                    id,
                    takes: Takes::Records(format.clone()),
                    budget,
                    sink,
                };
                censuses.push(hook::cut(keyspace, order));
                changes += keyspace.stats.changes;
            }
            at_cut(keyspaces, &journal);
            let is_marked = mark(&journal, id, is_for_replica);
            let places = keyspaces.iter().filter_map(|keyspace| keyspace.place);
            let libraries = crate::libraries::all();
            (
                (censuses, changes, is_marked, places.max(), libraries),
                Vec::new(),
            )
        }))
        .await;
    let is_paced = plan.is_paced;
    for shard in 0..shards {
        coordinator.here().tell(shard, move |_| {
            tokio::task::spawn_local(traverse(crate::shard::current(), id, is_paced));
        });
    }
    Cut {
        id,
        feeds,
        censuses,
        is_marked,
        place,
        changes,
        libraries,
    }
}

/// Ends a snapshot before it is complete, on all shards: its sink has failed.
pub async fn abort(coordinator: &Coordinator, id: SnapshotId) {
    for shard in 0..coordinator.shards() {
        coordinator
            .single(shard, Default::default(), Mode::Shared, move |shard| {
                let keyspace = shard
                    .keyspace
                    .as_mut()
                    .expect("nobody has it while this runs");
                hook::end(keyspace, id);
                shard.room_made();
            })
            .await;
    }
}

/// A save in progress, as INFO shows it.
#[derive(Debug)]
pub struct Progress {
    /// When it began.
    pub started: Instant,
    /// Keys written.
    pub keys: AtomicU64,
    /// Keys in all.
    pub keys_total: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Told to stop.
    pub is_cancelled: AtomicBool,
    /// Told once the cut has been taken; one may wait for it.
    pub cut: Notify,
}

impl Progress {
    /// Seconds that the rest takes at the pace so far.
    pub fn seconds_left(&self) -> i64 {
        let done = self.keys.load(Ordering::Relaxed);
        let left = self.keys_total.load(Ordering::Relaxed).saturating_sub(done);
        let passed = self.started.elapsed().as_secs_f64();
        (passed * left as f64 / done.max(1) as f64).ceil() as i64
    }
}

/// What is known of saves.
#[derive(Debug)]
pub struct Persistence {
    state: Mutex<State>,
}

/// Parts of INFO persistence.
#[derive(Clone, Debug)]
pub struct State {
    /// The save in progress.
    pub current: Option<Arc<Progress>>,
    /// Unix seconds of the last good save, or of the start.
    pub last_save_s: i64,
    /// Whether the last save was good.
    pub last_ok: bool,
    /// Unix seconds of the last try.
    pub last_try_s: i64,
    /// Seconds that the last save took; -1 before the first.
    pub last_seconds: i64,
    /// Good saves so far.
    pub saves: u64,
    /// Bytes of the last good save; 0 before the first.
    pub last_bytes: u64,
    /// Why the last save failed, if it did.
    pub last_error: Option<String>,
    /// One more save is wanted when this one is done.
    pub is_scheduled: bool,
    /// Keys that the last load dropped as expired, and that it kept.
    pub load_expired: u64,
    /// Keys that the last load kept.
    pub load_keys: u64,
}

impl Default for Persistence {
    fn default() -> Persistence {
        let now_s = crate::clock::now_ms() / 1000;
        Persistence {
            state: Mutex::new(State {
                current: None,
                last_save_s: now_s,
                last_ok: true,
                last_try_s: now_s,
                last_seconds: -1,
                saves: 0,
                last_bytes: 0,
                last_error: None,
                is_scheduled: false,
                load_expired: 0,
                load_keys: 0,
            }),
        }
    }
}

impl Persistence {
    /// A copy of what is known.
    pub fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes what is known.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Claims the one save to a file that may run; `None` if one is running.
    pub fn claim(&self) -> Option<Arc<Progress>> {
        self.change(|state| {
            if state.current.is_some() {
                return None;
            }
            let progress = Arc::new(Progress {
                started: Instant::now(),
                keys: AtomicU64::new(0),
                keys_total: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                is_cancelled: AtomicBool::new(false),
                cut: Notify::new(),
            });
            state.current = Some(progress.clone());
            Some(progress)
        })
    }

    /// A save that was given up on purpose says nothing about the disk.
    fn finished(&self, result: &Result<u64, String>, is_cancelled: bool) {
        let now_s = crate::clock::now_ms() / 1000;
        self.change(|state| {
            let Some(progress) = state.current.take() else {
                return;
            };
            if result.is_err() && is_cancelled {
                return;
            }
            state.last_ok = result.is_ok();
            state.last_try_s = now_s;
            state.last_seconds = progress.started.elapsed().as_secs() as i64;
            match result {
                Ok(bytes) => {
                    state.last_save_s = now_s;
                    state.last_bytes = *bytes;
                    state.saves += 1;
                    state.last_error = None;
                }
                Err(error) => state.last_error = Some(error.clone()),
            }
        });
    }
}

/// Where a save to one file goes and how.
pub struct Target {
    /// The file, under its final name.
    pub path: PathBuf,
    /// How it is written.
    pub backend: Backend,
    /// How entries are written.
    pub plan: Plan,
    /// Room on the device.
    pub space: Space,
}

/// What a save makes.
pub enum Destination {
    /// An RDB file.
    File(Target),
    /// A DFS set.
    Set(set::Target),
}

/// What a save needs of the device.
#[derive(Clone, Debug)]
pub struct Space {
    /// The directory.
    pub directory: PathBuf,
    /// Bytes that the save will take, as far as is known.
    pub wanted: u64,
    /// Bytes that must stay free: `snapshot-min-free`.
    pub kept: u64,
}

/// Bytes written between two looks at the free space.
const LOOK_EVERY_BYTES: u64 = 64 << 20;

impl Space {
    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Before a save: whether there is room for it.
    pub fn check(&self) -> io::Result<()> {
        let (free, wanted) = (self.free()?, self.wanted.saturating_add(self.kept));
        if free >= wanted {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} has {free} bytes free, and the save needs about {} with {} to stay free (snapshot-min-free)",
            self.directory.display(),
            self.wanted,
            self.kept
        )))
    }

    /// During a save that had `before` bytes and has `more` now: gives up before the device is full for everybody.
    pub fn check_on_the_way(&self, before: u64, more: u64) -> io::Result<()> {
        if self.kept == 0 || before / LOOK_EVERY_BYTES == (before + more) / LOOK_EVERY_BYTES {
            return Ok(());
        }
        let free = self.free()?;
        if free >= self.kept {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} has {free} bytes free, and {} must stay free (snapshot-min-free)",
            self.directory.display(),
            self.kept
        )))
    }
}

/// Saves, for a caller that has claimed the right to. Errors are for the caller to log. `at_cut` runs inside the cut; `place` finds the
/// place of the cut in the replication stream, if there is one.
pub async fn save(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    persistence: &Persistence,
    progress: Arc<Progress>,
    destination: Destination,
    at_cut: impl FnOnce(),
    place: impl AsyncFnOnce(Place) -> (String, u64, Option<DbIndex>),
) -> Result<u64, String> {
    let cancelled = progress.clone();
    let is_cancelled = &cancelled.is_cancelled;
    let saved = match destination {
        Destination::File(target) => {
            to_file(coordinator, journal, progress, target, at_cut, place).await
        }
        Destination::Set(target) => {
            set::save(coordinator, journal, progress, target, at_cut, place).await
        }
    };
    if let Ok((_, changes)) = saved {
        forget_changes(coordinator, changes).await;
    }
    let result = saved.map(|(bytes, _)| bytes);
    persistence.finished(&result, is_cancelled.load(Ordering::Relaxed));
    result
}

/// The answer is the bytes of the file and the changes that it saves.
async fn to_file(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    progress: Arc<Progress>,
    target: Target,
    at_cut: impl FnOnce(),
    place: impl AsyncFnOnce(Place) -> (String, u64, Option<DbIndex>),
) -> Result<(u64, u64), String> {
    let Target {
        path,
        backend,
        plan,
        space,
    } = target;
    let failed = {
        let path = path.display().to_string();
        move |what: &str, error: &dyn std::fmt::Display| format!("{path}: {what}: {error}")
    };
    // The file is there before the cut: a full disk or a missing directory costs no walk.
    let created = {
        let space = space.clone();
        on_thread(move || {
            space
                .check()
                .and_then(|()| FileWriter::create(&path, backend))
        })
        .await
        .flatten()
    };
    let writer = created.map_err(|error| failed("cannot create the temporary file", &error))?;
    let begun = begin(coordinator, journal, plan, |_, _| at_cut()).await;
    progress
        .keys_total
        .store(begun.stream.keys_total, Ordering::Relaxed);
    progress.cut.notify_one();
    let (id, changes, mut stream) = (begun.id, begun.changes, begun.stream);
    if let Some(known) = Place::of(id, begun.is_marked, begun.place) {
        let (replid, offset, db) = place(known).await;
        stream.add_aux("repl-stream-db", db.map_or(0, |db| db.0).to_string());
        stream.add_aux("repl-id", replid);
        stream.add_aux("repl-offset", offset.to_string());
    }
    let write = move || write(writer, &mut stream, &progress, &space);
    let written = on_thread(write).await.flatten();
    match written {
        Ok(bytes) => Ok((bytes, changes)),
        Err(error) => {
            abort(coordinator, id).await;
            Err(failed("cannot write", &error))
        }
    }
}

/// Writes a snapshot to its file, which gets its name at the end. Runs on a thread that may wait for the disk.
fn write(
    mut writer: FileWriter,
    stream: &mut RdbStream,
    progress: &Progress,
    space: &Space,
) -> io::Result<u64> {
    while let Some(bytes) = stream.blocking_next().map_err(io::Error::other)? {
        if progress.is_cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let before = writer.len();
        writer.append(&bytes)?;
        progress.keys.store(stream.keys, Ordering::Relaxed);
        progress.bytes.store(writer.len(), Ordering::Relaxed);
        space.check_on_the_way(before, bytes.len() as u64)?;
    }
    writer.finish()
}

/// A file that a snapshot for replicas goes to, as a save.
pub struct Dump {
    progress: Arc<Progress>,
    path: PathBuf,
    space: Space,
    writer: FileWriter,
}

impl Dump {
    /// Creates it, for a caller that has claimed the right to save.
    pub async fn create(
        persistence: &Persistence,
        progress: Arc<Progress>,
        target: Target,
    ) -> Result<Dump, String> {
        let Target {
            path,
            backend,
            space,
            ..
        } = target;
        let (room, to) = (space.clone(), path.clone());
        let create = move || room.check().and_then(|()| FileWriter::create(&to, backend));
        let created = on_thread(create).await.flatten();
        match created {
            Ok(writer) => Ok(Dump {
                progress,
                path,
                space,
                writer,
            }),
            Err(error) => {
                let what = "cannot create the temporary file";
                let error = format!("{}: {what}: {error}", path.display());
                persistence.finished(&Err(error.clone()), false);
                Err(error)
            }
        }
    }

    /// Its progress, by which it can be cancelled.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Takes the snapshot. It must be aborted after an error.
    pub async fn write(
        self,
        coordinator: &Coordinator,
        persistence: &Persistence,
        begun: Begun,
    ) -> Result<(File, u64), String> {
        let Dump {
            progress,
            path,
            space,
            writer,
        } = self;
        let (changes, mut stream) = (begun.changes, begun.stream);
        progress
            .keys_total
            .store(stream.keys_total, Ordering::Relaxed);
        let (shared, to) = (progress.clone(), path.clone());
        let write = move || {
            let bytes = write(writer, &mut stream, &shared, &space)?;
            Ok((File::open(to)?, bytes))
        };
        let written = threads::run("snapshot", write).await.flatten();
        if written.is_ok() {
            forget_changes(coordinator, changes).await;
        }
        let written = written
            .map_err(|error: io::Error| format!("{}: cannot write: {error}", path.display()));
        let result = written.as_ref().map(|(_, bytes)| *bytes);
        persistence.finished(
            &result.map_err(String::clone),
            progress.is_cancelled.load(Ordering::Relaxed),
        );
        written
    }
}

/// Takes the saved changes off the counters that decide when to save next.
async fn forget_changes(coordinator: &Coordinator, mut changes: u64) {
    for shard in 0..coordinator.shards() {
        changes = coordinator
            .single(shard, Default::default(), Mode::Shared, move |shard| {
                let keyspace = shard
                    .keyspace
                    .as_mut()
                    .expect("nobody has it while this runs");
                let forgotten = changes.min(keyspace.stats.changes);
                keyspace.stats.changes -= forgotten;
                changes - forgotten
            })
            .await;
    }
}

/// Runs something that waits for the disk on a thread of its own. An error: the system has no thread to give.
pub(super) async fn on_thread<R: Send + 'static>(
    run: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    threads::run("snapshot", || {
        priority::background();
        run()
    })
    .await
}
