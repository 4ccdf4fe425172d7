//! This server as a replica: what comes from the primary goes to the shards.
//!
//! The link itself is `dfsnap_replica`; here is its receiving end. Commands of one shard each travel to it without
//! waiting; what needs several shards, and every MULTI block, waits until all before it are applied, runs as one unit, and
//! only then lets those behind it go. What is told to the primary is what all shards have applied.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfsnap_formats::resp::{Protocol, Reply};
use dfsnap_replica::{
    Apply, ApplyError, Auth, Disconnect, Follower, LinkConfig, PayloadStart, Phase, Position,
    ReplId, Status, Transaction,
};
use tokio::sync::Notify;

use crate::clock::{now_ms, random_hex_40};
use crate::command::block::Block;
use crate::command::call::{Call, Obstacle, Words, obstacle};
use crate::command::exec::Actor;
use crate::command::runner::{Runner, run_on_shard};
use crate::command::{Run, Session, table};
use crate::config::RDB_VERSION_MAX;
use crate::keyspace::{DbIndex, Key, shard_of};
use crate::loading::flush_all;
use crate::shard::{After, Shard};
use crate::snapshot::load::{self, LoadOptions};
use crate::world::{Control, FollowerState, World};

/// Units sent to shards and not known to be applied; beyond this the primary waits.
const PENDING_MAX: usize = 16 * 1024;

/// Starts following a primary, on the control thread. An earlier link ends.
pub fn start(control: &Rc<Control>, host: String, port: u16, position: Option<Position>) {
    let world = control.world.clone();
    let stop = Arc::new(Notify::new());
    let generation = world.link(|link| {
        if let Some(old) = link.stop.take() {
            old.notify_one();
        }
        link.primary = Some((host.clone(), port));
        link.state = FollowerState {
            down_since_ms: now_ms(),
            ..FollowerState::default()
        };
        link.stop = Some(stop.clone());
        link.generation += 1;
        link.generation
    });
    world.is_replica.store(true, Ordering::Relaxed);
    let control = control.clone();
    tokio::task::spawn_local(async move {
        let config = link_config(&world);
        let mut follower = Follower::new(host.clone(), port, config);
        follower.position = position;
        let mut receiver = Receiver::new(control, generation);
        tracing::info!(primary = %format!("{host}:{port}"), "Connecting to primary");
        match follower.follow(&mut receiver, stop.notified()).await {
            Ok(_) => tracing::info!(primary = %format!("{host}:{port}"), "replication link ended"),
            Err(error) => tracing::error!(%error, "replication stopped"),
        }
    });
}

fn link_config(world: &World) -> LinkConfig {
    let config = world.config();
    LinkConfig {
        auth: config.masterauth.as_ref().map(|password| Auth {
            user: config.masteruser.clone(),
            password: password.clone().into_bytes(),
        }),
        announce_ip: config.replica_announce_ip.clone(),
        listening_port: if config.replica_announce_port == 0 {
            config.port
        } else {
            config.replica_announce_port
        },
        timeout_ms: config.repl_timeout * 1000,
        databases: config.databases,
        ..LinkConfig::default()
    }
}

/// The receiving end of the link.
struct Receiver {
    control: Rc<Control>,
    generation: u64,
    spool: Option<(File, PathBuf)>,
    origin: Option<(String, u64)>,
    /// Commands sent to each shard, and how many of them are done.
    sent: Vec<u64>,
    done: Vec<Arc<AtomicU64>>,
    /// Ends of units that are on their way: offset, shard, its count.
    pending: VecDeque<(u64, usize, u64)>,
    applied: u64,
}

impl Receiver {
    fn new(control: Rc<Control>, generation: u64) -> Receiver {
        let shards = control.world.links.shards();
        Receiver {
            control,
            generation,
            spool: None,
            origin: None,
            sent: vec![0; shards],
            done: (0..shards).map(|_| Arc::default()).collect(),
            pending: VecDeque::new(),
            applied: 0,
        }
    }

    fn world(&self) -> &Arc<World> {
        &self.control.world
    }

    /// Looks which of the units on their way are applied.
    fn look(&mut self) {
        while let Some(&(offset, shard, count)) = self.pending.front() {
            if self.done[shard].load(Ordering::Acquire) < count {
                return;
            }
            self.applied = offset;
            self.pending.pop_front();
        }
    }

    /// Waits until everything sent is applied.
    async fn drain(&mut self) {
        loop {
            self.look();
            let Some(&(_, shard, _)) = self.pending.front() else {
                return;
            };
            // Behind what was sent; a command that waits for a key is behind a transaction that ends soon.
            self.world().links.call(shard, |_| ()).await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a command to the shard of its keys.
    fn send(&mut self, shard: usize, call: Call, end_offset: u64) {
        self.sent[shard] += 1;
        self.pending
            .push_back((end_offset, shard, self.sent[shard]));
        let done = self.done[shard].clone();
        self.world()
            .links
            .send(shard, Box::new(move |shard| apply(shard, call, done)));
    }

    /// Turns a command of the stream into one to run; `None` if there is nothing to run.
    fn call(&self, command: &dfsnap_replica::Command<'_>) -> Result<Option<Call>, ApplyError> {
        let stop = |text: String| ApplyError::Stop(std::io::Error::other(text));
        let Some(row) = table::find(command.name()) else {
            let name = String::from_utf8_lossy(command.name());
            if name.eq_ignore_ascii_case("publish") || name.eq_ignore_ascii_case("spublish") {
                return Ok(None);
            }
            return Err(stop(format!(
                "the primary sent {name}, which this server does not know; going on would make it differ"
            )));
        };
        match row.run {
            Run::Session(Session::Ping | Session::Replconf) => Ok(None),
            Run::Session(_) => Err(stop(format!(
                "the primary sent {}, which has no place in a stream",
                row.name
            ))),
            _ => Ok(Some(Call {
                command: row,
                db: DbIndex(command.db),
                words: Words::new(command.words()),
            })),
        }
    }

    async fn apply_unit(&mut self, unit: &Transaction<'_>) -> Result<(), ApplyError> {
        let mut calls = Vec::with_capacity(unit.commands().len());
        for command in unit.commands() {
            calls.extend(self.call(&command)?);
        }
        if calls.is_empty() {
            if self.pending.is_empty() {
                self.applied = unit.end_offset;
            } else if let Some(last) = self.pending.back_mut() {
                // Counts as applied with the one before it.
                last.0 = unit.end_offset;
            }
            return Ok(());
        }
        if let [call] = calls.as_slice() {
            let shards = self.sent.len();
            let mut homes = call
                .keys()
                .iter()
                .map(|(_, key)| shard_of(Key::new(key).hash, shards))
                .collect::<Vec<_>>();
            homes.dedup();
            let is_keyed = matches!(call.command.run, Run::Keys(_) | Run::Split { .. });
            if let (true, &[home]) = (is_keyed, homes.as_slice()) {
                let call = calls.pop().expect("there is one");
                self.send(home, call, unit.end_offset);
                self.look();
                if self.pending.len() > PENDING_MAX {
                    self.drain().await;
                }
                return Ok(());
            }
        }
        self.drain().await;
        let block = Block::new(calls, Actor::Link);
        let replies = block
            .run(&self.control.coordinator, self.world().block_context())
            .await;
        for reply in replies.into_iter().flatten() {
            warn_of_error(&reply);
        }
        self.applied = unit.end_offset;
        Ok(())
    }

    async fn load_spool(&mut self, path: PathBuf) -> Result<u32, ApplyError> {
        let world = self.world().clone();
        world.is_loading.store(true, Ordering::Relaxed);
        let result = self.try_load(path).await;
        world.is_loading.store(false, Ordering::Relaxed);
        result
    }

    async fn try_load(&mut self, path: PathBuf) -> Result<u32, ApplyError> {
        let world = self.world().clone();
        self.control
            .coordinator
            .global(Box::new(|keyspaces| (flush_all(keyspaces), Vec::new())))
            .await;
        let options = LoadOptions {
            drops_expired: false,
            databases: world.config().databases,
            version_max: RDB_VERSION_MAX,
        };
        let shared = world.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let file = File::open(&path)?;
            shared
                .load_progress
                .total
                .store(file.metadata()?.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(load::load(
                file,
                &shared.links,
                options,
                &shared.load_progress,
            ))
        })
        .await
        .expect("loading does not panic")
        .map_err(ApplyError::Stop)?;
        match loaded {
            Ok(loaded) => {
                tracing::info!(
                    keys = loaded.keys,
                    bytes = loaded.bytes,
                    "PRIMARY <-> REPLICA sync: Finished with success"
                );
                Ok(loaded.replication.map_or(0, |(_, _, db)| db))
            }
            Err(error) => {
                // Half a dataset is worse than none.
                self.control
                    .coordinator
                    .global(Box::new(|keyspaces| (flush_all(keyspaces), Vec::new())))
                    .await;
                Err(ApplyError::Resync(format!(
                    "the payload cannot be loaded: {error}"
                )))
            }
        }
    }
}

/// Runs a command of the stream on its shard, when its keys are free.
fn apply(shard: &mut Shard, call: Call, done: Arc<AtomicU64>) {
    // The stream does not wait for a snapshot's room: its order is given.
    let is_taken = call
        .words
        .with(|args| obstacle(shard, call.command, call.db, args))
        == Obstacle::Taken;
    if is_taken {
        let footprint = call.footprint();
        shard.enqueue(
            footprint,
            Default::default(),
            Box::new(move |shard| {
                run(shard, &call, &done);
                After::Release
            }),
        );
    } else {
        run(shard, &call, &done);
    }
}

fn run(shard: &mut Shard, call: &Call, done: &AtomicU64) {
    let mut reply = Reply::new(Protocol::Resp2);
    run_on_shard(shard, Actor::Link, |runner: &mut Runner<'_>, commit| {
        call.words
            .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
    });
    warn_of_error(reply.as_bytes());
    done.fetch_add(1, Ordering::Release);
}

/// A command that fails here although it worked on the primary is a sign that the two differ.
fn warn_of_error(reply: &[u8]) {
    if reply.first() == Some(&b'-') {
        let text = String::from_utf8_lossy(reply).trim_end().to_owned();
        tracing::error!(
            reply = text,
            "CRITICAL: a command of the primary failed here: this replica may differ from it"
        );
    }
}

impl Apply for Receiver {
    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        tracing::info!(?start, "PRIMARY <-> REPLICA sync: receiving the payload");
        self.origin = start
            .origin
            .map(|(replid, offset)| (replid.as_str().to_owned(), offset));
        let directory = self.world().config().dir.clone();
        let path = PathBuf::from(directory).join(format!("temp-sync-{}.rdb", std::process::id()));
        let file = File::create(&path)?;
        self.spool = Some((file, path));
        Ok(())
    }

    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let (file, _) = self
            .spool
            .as_mut()
            .expect("a payload begins before its bytes");
        file.write_all(bytes)?;
        Ok(())
    }

    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        let (file, path) = self.spool.take().expect("a payload begins before its end");
        drop(file);
        self.drain().await;
        let result = self.load_spool(path.clone()).await;
        let _ = std::fs::remove_file(&path);
        let db = result?;
        let offset = self.origin.as_ref().map_or(0, |(_, offset)| *offset);
        self.applied = offset;
        if let Some((replid, offset)) = self.origin.clone() {
            self.world().log.with(|log| log.adopt(&replid, offset, db));
        }
        Ok(db)
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        self.apply_unit(&unit).await?;
        self.world().log.with(|log| {
            log.push(unit.raw);
            log.db = Some(DbIndex(unit.db));
        });
        Ok(())
    }

    fn applied_offset(&mut self, _handed_offset: u64) -> u64 {
        self.look();
        self.applied
    }

    fn continued(&mut self, replid: ReplId, renamed_from: Option<ReplId>) {
        tracing::info!("Successful partial resynchronization with primary");
        if renamed_from.is_some() {
            self.world()
                .log
                .with(|log| log.rename(replid.as_str().to_owned()));
        }
    }

    fn observe(&mut self, status: &Status) {
        let generation = self.generation;
        let applied = self.applied_offset(0);
        self.world().link(|link| {
            if link.generation == generation {
                link.state.phase = Some(status.phase);
                link.state.offset = (status.phase == Phase::Stream).then_some(applied);
                link.state.payload = (status.payload_bytes_total, status.payload_bytes_read);
                link.state.heard_at_ms = now_ms();
            }
        });
    }

    fn disconnected(&mut self, why: &Disconnect) {
        tracing::warn!(%why, "Connection with primary lost");
        let generation = self.generation;
        self.world().link(|link| {
            if link.generation == generation {
                link.state.phase = None;
                link.state.down_since_ms = now_ms();
            }
        });
    }
}

/// REPLICAOF NO ONE, on the control thread: the link ends, and this server goes on as a primary with the data it has.
pub fn promote(control: &Rc<Control>) {
    let world = &control.world;
    world.link(|link| {
        if let Some(stop) = link.stop.take() {
            stop.notify_one();
        }
        link.primary = None;
        link.state = FollowerState::default();
        link.generation += 1;
    });
    world.log.with(|log| {
        if log.backlog.is_some() {
            log.rename(random_hex_40());
        }
    });
    world.is_replica.store(false, Ordering::Relaxed);
    tracing::info!("MASTER MODE enabled (user request)");
}
