//! The payload of a full sync on its way into the keyspace.
//!
//! `follower` hands over the bytes as they come. By `repl-diskless-load` they go to a file that is loaded when it is complete, or to a thread
//! that loads them at once: into the empty keyspace, or into one beside it that takes its place when all is there.
//!
//! Invariants
//! - Until the old dataset goes, it is whole and at its place in its history: `keeps_data` says so.
//! - It goes in one run over all shards, with its libraries, its history and its place; what was loaded beside it comes in the same run.
//! - Of a payload that does not come to its end nothing stays.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_replica::{ApplyError, Form, PayloadStart};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::clock::random_hex_40;
use crate::command::script::functions::{self, Onto};
use crate::config::RDB_VERSION_MAX;
use crate::config::words::ReplDisklessLoad;
use crate::keyspace::release::drop_later;
use crate::keyspace::{DbIndex, Keyspace, NoObserver, StreamPlace, flush_all};
use crate::snapshot::catalog::PAYLOAD;
use crate::snapshot::fault;
use crate::snapshot::load::{self, LoadError, LoadOptions, Loaded};
use crate::threads::{self, Answer};
use crate::world::{Control, World};

/// What Redis' log says, and what people look for in it: loading has begun.
const LOADING: &str = "MASTER <-> REPLICA sync: Loading DB in memory";
/// Pieces between the link and the thread that loads: beyond this the primary waits.
const PIECES_MAX: usize = 16;

/// A payload that is coming.
pub(super) struct Intake {
    control: Rc<Control>,
    /// The history, and its offset at the cut; `None`: the primary told neither.
    origin: Option<(String, u64)>,
    way: Way,
}

enum Way {
    /// To a file, which is loaded when it is complete.
    File(File, PathBuf),
    /// To a thread that loads it.
    Loader(Loader),
}

struct Loader {
    pieces: Sender<Vec<u8>>,
    /// `None` once its end is known.
    thread: Option<Answer<Result<Loaded, LoadError>>>,
    into_successor: bool,
}

impl Intake {
    /// A payload begins. All that came before it is applied.
    pub async fn begin(control: Rc<Control>, start: &PayloadStart) -> Result<Intake, ApplyError> {
        let world = control.world.clone();
        let origin = start
            .origin
            .map(|(replid, offset)| (replid.as_str().to_owned(), offset));
        let bytes = match start.form {
            Form::Length(bytes) => Some(bytes),
            Form::Mark(_) => None,
        };
        let wanted = world.config().repl_diskless_load;
        let way = match wanted {
            ReplDisklessLoad::SwapDb => {
                let loader = Loader::start(&world, bytes, true)?;
                prepare_successor(&world, origin.as_ref()).await;
                Way::Loader(loader)
            }
            ReplDisklessLoad::OnEmptyDb if is_empty(&world).await => {
                let loader = Loader::start(&world, bytes, false)?;
                close(&control).await;
                Way::Loader(loader)
            }
            _ => {
                let directory = PathBuf::from(&world.config().dir);
                let path = directory.join(format!("temp-{}-{PAYLOAD}", std::process::id()));
                let file = fault::operation().and_then(|_| {
                    let mut options = OpenOptions::new();
                    let options = options.read(true).write(true);
                    options.create(true).truncate(true).open(&path)
                });
                Way::File(file.map_err(|error| unwritten(&path, &error))?, path)
            }
        };
        let to = way.name();
        match bytes {
            Some(bytes) => tracing::info!(
                "MASTER <-> REPLICA sync: receiving {bytes} bytes from master to {to}"
            ),
            None => tracing::info!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to {to}"
            ),
        }
        if matches!(way, Way::Loader(_)) {
            tracing::info!("{LOADING}");
        }
        Ok(Intake {
            control,
            origin,
            way,
        })
    }

    /// Whether the old dataset is still there.
    pub fn keeps_data(&self) -> bool {
        match &self.way {
            Way::File(..) => true,
            Way::Loader(loader) => loader.into_successor,
        }
    }

    /// Whether the old dataset is still there when [`Intake::finish`] has failed.
    pub fn has_successor(&self) -> bool {
        matches!(&self.way, Way::Loader(loader) if loader.into_successor)
    }

    /// The next bytes.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match &mut self.way {
            Way::File(file, path) => fault::operation()
                .and_then(|_| file.write_all(bytes))
                .map_err(|error| unwritten(path, &error)),
            Way::Loader(loader) => match loader.pieces.send(bytes.to_vec()).await {
                Ok(()) => Ok(()),
                Err(_) => Err(match loader.end().await {
                    Err(error) => unloaded(&error),
                    Ok(_) => ApplyError::Resync("the payload goes on behind its end".into()),
                }),
            },
        }
    }

    /// The payload is complete: it takes effect, or nothing of it stays. Its place in the stream.
    pub async fn finish(self) -> Result<StreamPlace, ApplyError> {
        let Intake {
            control,
            origin,
            way,
        } = self;
        let into_successor = matches!(&way, Way::Loader(loader) if loader.into_successor);
        let loaded = match way {
            Way::File(file, path) => {
                let _ = std::fs::remove_file(&path); // the next start removes it
                load_file(&control, file).await
            }
            Way::Loader(loader) => loader.ended().await.map_err(|error| unloaded(&error)),
        };
        let place = match loaded {
            Ok(loaded) => take_effect(&control, origin, loaded, into_successor).await,
            Err(error) => Err(error),
        };
        if place.is_err() {
            discard(&control, into_successor).await;
        }
        open(&control.world);
        place
    }

    /// The payload does not come to its end.
    pub async fn abandon(self) {
        match self.way {
            Way::File(_, path) => {
                let _ = std::fs::remove_file(&path); // the next start removes it
            }
            Way::Loader(loader) => {
                let into_successor = loader.into_successor;
                match loader.ended().await {
                    Err(error) => tracing::warn!(
                        "{}: the payload was cut, and what was loaded of it is dropped",
                        error.in_words_of_redis()
                    ),
                    // It has no end, or it would not have been given up.
                    Ok(_) => tracing::warn!("a payload that was cut is dropped"),
                }
                discard(&self.control, into_successor).await;
                open(&self.control.world);
            }
        }
    }
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Way::File(..) => "disk",
            Way::Loader(Loader {
                into_successor: true,
                ..
            }) => "parser, beside the dataset",
            Way::Loader(_) => "parser",
        }
    }
}

impl Loader {
    /// `bytes`: of the payload, if it is known.
    fn start(
        world: &Arc<World>,
        bytes: Option<u64>,
        into_successor: bool,
    ) -> Result<Loader, ApplyError> {
        let (pieces, incoming) = channel(PIECES_MAX);
        world.load_progress.begin(bytes.unwrap_or(0));
        let (options, shared) = (options(world, into_successor), world.clone());
        let thread = threads::start("load", move || {
            let mut incoming = Incoming {
                pieces: incoming,
                piece: Vec::new(),
                at: 0,
            };
            let loaded = load::load(&mut incoming, &shared.links, options, &shared.load_progress)?;
            // What stands behind the end of an RDB means nothing, as in a file.
            while incoming.pieces.blocking_recv().is_some() {}
            Ok(loaded)
        });
        let thread = thread.map_err(|error| {
            ApplyError::Resync(format!("the payload cannot be loaded: {error}"))
        })?;
        Ok(Loader {
            pieces,
            thread: Some(thread),
            into_successor,
        })
    }

    async fn end(&mut self) -> Result<Loaded, LoadError> {
        let thread = self.thread.take().expect("a load ends once");
        thread.wait().await
    }

    /// No more comes: what has become of it.
    async fn ended(self) -> Result<Loaded, LoadError> {
        let Loader { pieces, thread, .. } = self;
        drop(pieces);
        match thread {
            Some(thread) => thread.wait().await,
            // Its error has been told.
            None => Ok(Loaded::default()),
        }
    }
}

/// The bytes of a payload, for a thread that may block.
struct Incoming {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    /// How much of the piece is read.
    at: usize,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = (self.piece.len() - self.at).min(out.len());
        out[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn options(world: &World, into_successor: bool) -> LoadOptions {
    LoadOptions {
        drops_expired: false,
        databases: world.config().databases,
        version_max: RDB_VERSION_MAX,
        lenient: false,
        merges: false,
        into_successor,
    }
}

fn unloaded(error: &LoadError) -> ApplyError {
    ApplyError::Resync(format!(
        "the payload cannot be loaded: {}",
        error.in_words_of_redis()
    ))
}

/// The disk may have room again when the next link asks.
fn unwritten(path: &Path, error: &std::io::Error) -> ApplyError {
    ApplyError::Resync(format!(
        "the payload cannot be written to {}: {error}",
        path.display()
    ))
}

async fn load_file(control: &Rc<Control>, mut file: File) -> Result<Loaded, ApplyError> {
    let world = control.world.clone();
    tracing::info!("MASTER <-> REPLICA sync: Flushing old data");
    close(control).await;
    tracing::info!("{LOADING}");
    let options = options(&world, false);
    let load = move || {
        let bytes = file.stream_position()?;
        file.rewind()?;
        world.load_progress.begin(bytes);
        Ok(load::load(
            file,
            &world.links,
            options,
            &world.load_progress,
        ))
    };
    let loaded: std::io::Result<_> = threads::run("load", load).await.flatten();
    loaded
        .map_err(|error| ApplyError::Resync(format!("the payload cannot be read: {error}")))?
        .map_err(|error| unloaded(&error))
}

/// Whether there is no key.
async fn is_empty(world: &World) -> bool {
    let keys = world.links.look_at_all(|shard| {
        let keyspace = shard.keyspace.as_deref();
        keyspace.map_or(0, |keyspace| {
            let databases = (0..keyspace.database_count()).map(DbIndex);
            databases
                .map(|db| keyspace.database(db).entries().len())
                .sum()
        })
    });
    let keys: Option<Vec<usize>> = keys.await;
    keys.is_some_and(|keys| keys.iter().sum::<usize>() == 0)
}

/// Clients are refused from here on, and the dataset is empty.
async fn close(control: &Control) {
    control.world.is_loading.store(true, Ordering::Relaxed);
    empty(control, true).await;
}

/// Clients are let in again.
fn open(world: &World) {
    world.is_loading.store(false, Ordering::Relaxed);
    world.is_loading_successor.store(false, Ordering::Relaxed);
}

/// Makes an empty dataset beside the one that is served.
async fn prepare_successor(world: &World, origin: Option<&(String, u64)>) {
    // Data of the same history are only older than those that come: clients read on. Others are not shown.
    let is_same = world.log.with(|log| {
        let own = log.own_end().map(|(replid, _, _)| replid.to_owned());
        own.is_some() && own.as_ref() == origin.map(|(replid, _)| replid)
    });
    let flag = match is_same {
        true => &world.is_loading_successor,
        false => &world.is_loading,
    };
    flag.store(true, Ordering::Relaxed);
    let databases = world.config().databases;
    world
        .links
        .call_all(move |shard| {
            shard.successor = Some(Box::new(Keyspace::new(databases, Box::new(NoObserver))));
        })
        .await;
}

async fn take_successors(world: &World) -> Vec<Box<Keyspace>> {
    let successors = world.links.call_all(|shard| shard.successor.take()).await;
    successors
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect()
}

/// The old dataset ends, and with it what replicas of this server followed. `is_closed`: another is loaded in its place.
async fn empty(control: &Control, is_closed: bool) {
    let world = control.world.clone();
    control
        .coordinator
        .global(Box::new(move |keyspaces| {
            world.log.with(|log| log.forget(random_hex_40()));
            for keyspace in keyspaces.iter_mut() {
                keyspace.place = None;
                keyspace.is_closed = is_closed;
                keyspace.own_expiring.clear();
            }
            flush_all(keyspaces);
            functions::put(functions::Prepared::default());
            world.hub.tracking.invalidate_all(&world.hub.limits);
            ((), Vec::new())
        }))
        .await;
    disconnect_replicas(&control.world);
}

/// Drops what was loaded.
async fn discard(control: &Control, into_successor: bool) {
    if into_successor {
        drop_later(take_successors(&control.world).await);
    } else {
        // Half a dataset is worse than none.
        empty(control, false).await;
    }
}

/// What was loaded is the dataset from now on, with its history and its libraries.
async fn take_effect(
    control: &Control,
    origin: Option<(String, u64)>,
    loaded: Loaded,
    into_successor: bool,
) -> Result<StreamPlace, ApplyError> {
    let libraries = functions::prepare(loaded.functions, Onto::Nothing).map_err(|error| {
        ApplyError::Resync(format!(
            "a library of the payload cannot be loaded: {error}"
        ))
    })?;
    let db = loaded.replication.map_or(0, |(_, _, db)| db);
    let place = StreamPlace {
        offset: origin.as_ref().map_or(0, |(_, offset)| *offset),
        db: DbIndex(db),
    };
    let world = control.world.clone();
    let successors = match into_successor {
        true => take_successors(&world).await,
        false => Vec::new(),
    };
    control
        .coordinator
        .global(Box::new(move |keyspaces| {
            for (keyspace, new) in keyspaces.iter_mut().zip(successors) {
                drop_later(keyspace.take_over(*new));
            }
            for keyspace in keyspaces.iter_mut() {
                keyspace.place = Some(place);
                keyspace.is_closed = false;
                keyspace.note_moved();
            }
            // No file has what came.
            keyspaces[0].stats.changes += 1;
            functions::put(libraries);
            world.log.with(|log| match &origin {
                Some((replid, offset)) => log.adopt(replid, *offset, db),
                None => log.forget(random_hex_40()),
            });
            world.hub.tracking.invalidate_all(&world.hub.limits);
            ((), Vec::new())
        }))
        .await;
    disconnect_replicas(&control.world);
    tracing::info!(
        keys = loaded.keys,
        bytes = loaded.bytes,
        "MASTER <-> REPLICA sync: Finished with success"
    );
    Ok(place)
}

/// Ends the links to replicas of this server: what they follow has got another name, or has ended.
pub(super) fn disconnect_replicas(world: &World) {
    for client in world.clients() {
        if client.is_replica.load(Ordering::Relaxed) {
            client.outbox.kill.notify_one();
        }
    }
}
