//! This server as a replica: what comes from the primary goes to the shards.
//!
//! The link itself is `dfsnap_replica`; here is its receiving end. Units of the stream wait in a queue; a worker takes as many
//! as there are, up to a limit, and applies them as one transaction over the shards, each shard its commands in order. So
//! the shards work side by side, the cost of a transaction is shared by many units, and readers see the primary's
//! states in its order, never half a unit. What is told to the primary is what all shards have applied.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfsnap_formats::resp::{Protocol, Reply};
use dfsnap_replica::{
    Apply, ApplyError, Auth, Disconnect, Follower, LinkConfig, PayloadStart, Phase, Position,
    ReplId, Status, Transaction,
};
use tokio::sync::Notify;

use super::failover;
use super::intake::{Intake, disconnect_replicas};
use crate::clock::{now_ms, random_hex_40};
use crate::command::block::{Block, parts_of};
use crate::command::blocking::{AfterError, End};
use crate::command::call::{Call, Words};
use crate::command::exec::Actor;
use crate::command::runner::{Runner, run_on_shard};
use crate::command::script::functions;
use crate::command::{CommandError, Run, Session, table};
use crate::journal::Seq;
use crate::keyspace::{DbIndex, Key, StreamPlace, shard_of};
use crate::shard::Shard;
use crate::tx::{Keys, ShardJob};
use crate::world::{Client, Control, FailoverStage, FollowerState, World};

/// Units that wait for the worker; beyond this the primary waits.
const QUEUE_MAX: usize = 16 * 1024;
/// Units applied as one transaction: bounds how long a reader waits for them.
const GROUP_MAX: usize = 512;

const INSTANCE_CHANGED: CommandError = CommandError::text(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
);

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
    if !world.is_replica.swap(true, Ordering::Relaxed) {
        for client in world.clients() {
            client.unblock(End::Error(INSTANCE_CHANGED, AfterError::Closes));
        }
    }
    world.judge_links();
    // It goes on with the score it had if that cannot be written.
    let _ = world.apply_oom_score();
    let before = control.follower.take();
    let shared = control.clone();
    let task = tokio::task::spawn_local(async move {
        // What an earlier link has received is applied before anything of this one.
        if let Some(before) = before {
            let _ = before.await;
        }
        follow(shared, host, port, position, stop, generation).await;
    });
    control.follower.replace(Some(task));
}

/// Follows one primary until told to stop; then everything received is applied.
async fn follow(
    control: Rc<Control>,
    host: String,
    port: u16,
    position: Option<Position>,
    stop: Arc<Notify>,
    generation: u64,
) {
    let world = control.world.clone();
    let journal = world.journal.clone();
    // From here on the log is the primary's.
    control
        .coordinator
        .global(Box::new(move |keyspaces| {
            for keyspace in keyspaces {
                keyspace.is_follower = true;
            }
            (journal.set_active(false), Vec::new())
        }))
        .await;
    let mut follower = Follower::new(host.clone(), port, link_config(&world));
    follower.tls = world.link_tls.clone();
    follower.source = (world.config().bind_source_addr.as_ref()).and_then(|text| text.parse().ok());
    follower.position = match position {
        Some(position) => Some(position),
        None => own_position(&world).await,
    };
    if let Some(position) = &follower.position {
        tracing::info!(%position, "asking to go on from what is here");
        // All of it is applied: an earlier link has ended, or this server made it.
        let place = StreamPlace {
            offset: position.offset,
            db: DbIndex(position.db),
        };
        set_place(&control, Some(place)).await;
    }
    let mut receiver = Receiver::new(control.clone(), generation);
    if let Some(position) = &follower.position {
        receiver.queue.applied.set(position.offset);
        world.log.with(|log| log.applied = Some(position.offset));
    }
    tracing::info!(primary = %format!("{host}:{port}"), "Connecting to primary");
    let killed = receiver.link_client.killed.clone();
    let ended = loop {
        let is_killed = Cell::new(false);
        let end = async {
            tokio::select! {
                () = stop.notified() => {}
                () = killed.notified() => is_killed.set(true),
            }
        };
        let ended = follower.follow(&mut receiver, end).await;
        if !is_killed.get() || ended.is_err() {
            break ended;
        }
        tracing::warn!("Connection with primary killed by CLIENT KILL");
        receiver.link_lost();
    };
    receiver.link_lost();
    receiver.abandoned().await;
    match ended {
        Ok(_) => tracing::info!(primary = %format!("{host}:{port}"), "replication link ended"),
        Err(error) => {
            tracing::error!(%error, "replication stopped; REPLICAOF starts it again, REPLICAOF NO ONE makes this a primary");
            stop.notified().await;
        }
    }
    receiver.queue.shrunk_to(0).await;
    receiver.worker.abort();
    let is_promoted = world.link(|link| link.generation == generation && link.primary.is_none());
    if is_promoted {
        become_primary(&control, generation).await;
    }
}

fn link_config(world: &World) -> LinkConfig {
    let config = world.config();
    LinkConfig {
        auth: config.masterauth.as_ref().map(|password| Auth {
            user: config.masteruser.clone(),
            password: password.clone().into_bytes(),
        }),
        announce_ip: config.replica_announce_ip.clone(),
        listening_port: config.announced_port(),
        timeout_ms: config.repl_timeout * 1000,
        databases: config.databases,
        failover: world.failover() == FailoverStage::InProgress,
        ..LinkConfig::default()
    }
}

/// A unit of the stream: what it runs, and the place behind it.
struct UnitCalls {
    calls: Vec<Call>,
    end: StreamPlace,
}

/// Units on their way from the link to the shards. Shared by the receiver and the worker.
#[derive(Default)]
struct Queue {
    units: RefCell<VecDeque<UnitCalls>>,
    /// Of the last unit that is applied.
    applied: Cell<u64>,
    /// The worker has taken units and not finished them.
    is_working: Cell<bool>,
    /// Somebody waits until all are applied, whoever is paused.
    is_draining: Cell<bool>,
    /// Units came.
    filled: Notify,
    /// Units were applied.
    emptied: Notify,
}

impl Queue {
    async fn shrunk_to(&self, len: usize) {
        loop {
            let emptied = self.emptied.notified();
            if self.units.borrow().len() <= len && (len > 0 || !self.is_working.get()) {
                self.is_draining.set(false);
                return;
            }
            if len == 0 && !self.is_draining.replace(true) {
                self.filled.notify_one();
            }
            emptied.await;
        }
    }
}

/// The receiving end of the link.
struct Receiver {
    control: Rc<Control>,
    generation: u64,
    /// The payload that is coming.
    intake: Option<Intake>,
    /// One that was cut, while what there is of it goes.
    abandoned: Option<tokio::task::JoinHandle<()>>,
    /// See [`Apply::keeps_data`].
    keeps_data: bool,
    queue: Rc<Queue>,
    worker: tokio::task::JoinHandle<()>,
    link_client: LinkClient,
}

impl Receiver {
    fn new(control: Rc<Control>, generation: u64) -> Receiver {
        let queue = Rc::new(Queue::default());
        let worker = tokio::task::spawn_local(work(control.clone(), queue.clone(), generation));
        Receiver {
            control,
            generation,
            intake: None,
            abandoned: None,
            keeps_data: false,
            queue,
            worker,
            link_client: LinkClient::default(),
        }
    }

    fn world(&self) -> &Arc<World> {
        &self.control.world
    }

    /// Turns a command of the stream into one to run; `None` if there is nothing to run.
    fn call(&self, command: &dfsnap_replica::Command<'_>) -> Result<Option<Call>, ApplyError> {
        let stop = |text: String| ApplyError::Stop(std::io::Error::other(text));
        // A primary sends names as its clients gave them; one of another configuration has others.
        let row = table::find(command.name()).or_else(|| table::own(command.name()));
        let Some(row) = row else {
            let name = String::from_utf8_lossy(command.name());
            return Err(stop(format!(
                "the primary sent {name}, which this server does not know; going on would make it differ"
            )));
        };
        let count = command.words().len();
        let is_whole = match row.run {
            Run::Split { stride, .. } => (count - 1).is_multiple_of(stride),
            _ => true,
        };
        if !row.arity_fits(count) || !is_whole {
            // Handlers take it that this was looked at.
            return Err(ApplyError::Resync(format!(
                "the primary sent {} with {count} words",
                row.name
            )));
        }
        match row.run {
            Run::Session(Session::Ping | Session::Replconf) => Ok(None),
            Run::Session(Session::Function) => Ok(Some(Call {
                command: &functions::CHANGE,
                db: DbIndex(command.db),
                words: Words::new(command.words()),
            })),
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
}

/// Applies what is in the queue, as long as the link lasts.
async fn work(control: Rc<Control>, queue: Rc<Queue>, generation: u64) {
    loop {
        wait_paused(&control.world, &queue).await;
        let filled = queue.filled.notified();
        let (group, barrier) = take_group(&queue, control.world.links.shards());
        if group.is_empty() && barrier.is_none() {
            queue.is_working.set(false);
            queue.emptied.notify_waiters();
            filled.await;
            continue;
        }
        if let Some(last) = group.end {
            control.coordinator.on_shards(group.jobs(last)).await;
            queue.applied.set(last.offset);
        }
        if let Some(unit) = barrier {
            if !unit.calls.is_empty() {
                let block = Block::new(unit.calls, Actor::Link).to_place(unit.end);
                let replies = block
                    .run(&control.coordinator, control.world.block_context())
                    .await;
                replies
                    .into_iter()
                    .flatten()
                    .for_each(|reply| warn_of_error(&reply));
            }
            queue.applied.set(unit.end.offset);
        }
        queue.emptied.notify_waiters();
        control
            .world
            .log
            .with(|log| log.applied = Some(queue.applied.get()));
        control.world.link(|link| {
            if link.generation == generation && link.state.offset.is_some() {
                link.state.offset = Some(queue.applied.get());
            }
        });
    }
}

/// Waits while clients are paused: then the primary's writes wait as well, unless somebody must have them all.
async fn wait_paused(world: &World, queue: &Queue) {
    loop {
        let changed = world.pause_changed.notified();
        let Some(pause) = world.client_pause().filter(|_| !queue.is_draining.get()) else {
            return;
        };
        let left = Duration::from_millis((pause.until_ms - now_ms()).max(1) as u64);
        tokio::select! {
            () = changed => {}
            () = queue.filled.notified() => {}
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// Commands that run as one transaction, each shard its own in order.
#[derive(Default)]
struct Group {
    by_shard: Vec<(usize, Vec<Call>)>,
    end: Option<StreamPlace>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.end.is_none()
    }

    fn push(&mut self, shard: usize, call: Call) {
        match self.by_shard.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, calls)) => calls.push(call),
            None => self.by_shard.push((shard, vec![call])),
        }
    }

    fn jobs(self, end: StreamPlace) -> Vec<(usize, Keys, ShardJob)> {
        self.by_shard
            .into_iter()
            .map(|(shard, calls)| -> (usize, Keys, ShardJob) {
                // A snapshot may have to save them first.
                let keys = calls.iter().flat_map(Call::keys).collect();
                (shard, keys, Box::new(move |shard| run(shard, &calls, end)))
            })
            .collect()
    }
}

/// Takes units off the queue: those that can run side by side, up to the limit, or else one that cannot.
fn take_group(queue: &Queue, shards: usize) -> (Group, Option<UnitCalls>) {
    let mut units = queue.units.borrow_mut();
    let mut group = Group::default();
    for _ in 0..GROUP_MAX {
        let Some(unit) = units.pop_front() else { break };
        let Some(placed) = placed(&unit.calls, shards) else {
            queue.is_working.set(true);
            return (group, Some(unit));
        };
        for (shard, call) in placed {
            group.push(shard, call);
        }
        group.end = Some(unit.end);
    }
    queue.is_working.set(!group.is_empty());
    (group, None)
}

/// Which shard runs which part of a unit; `None` if one of its commands needs several shards at once.
fn placed(calls: &[Call], shards: usize) -> Option<Vec<(usize, Call)>> {
    let mut placed = Vec::with_capacity(calls.len());
    for call in calls {
        match call.command.run {
            Run::Split { stride, .. } => placed.extend(parts_of(call, stride, shards)),
            Run::Keys(_) => {
                let mut homes = call
                    .keys()
                    .into_iter()
                    .map(|(_, key)| shard_of(Key::new(&key).hash, shards));
                let home = homes.next()?;
                if !homes.all(|other| other == home) {
                    return None;
                }
                placed.push((home, call.clone()));
            }
            Run::Global(_) | Run::Cursor(_) | Run::Script(_) | Run::Session(_) => return None,
        }
    }
    Some(placed)
}

fn run(shard: &mut Shard, calls: &[Call], end: StreamPlace) {
    let mut reply = Reply::new(Protocol::Resp2);
    run_on_shard(shard, Actor::Link, |runner: &mut Runner<'_>, commit| {
        for call in calls {
            call.words
                .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
            warn_of_error(reply.as_bytes());
            reply.clear();
        }
    });
    if let Some(keyspace) = &mut shard.keyspace {
        keyspace.place = Some(end);
    }
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
    fn configure(&mut self, config: &mut LinkConfig) {
        // Passwords and limits may have been set since the last link.
        *config = LinkConfig {
            failover: config.failover,
            ..link_config(self.world())
        };
    }

    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        self.abandoned().await;
        self.queue.shrunk_to(0).await;
        self.keeps_data = true;
        let intake = Intake::begin(self.control.clone(), &start).await?;
        self.keeps_data = intake.keeps_data();
        self.intake = Some(intake);
        Ok(())
    }

    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let intake = self.intake.as_mut();
        let intake = intake.expect("a payload begins before its bytes");
        intake.push(bytes).await
    }

    async fn end_payload(&mut self) -> Result<u32, ApplyError> {
        let intake = self.intake.take();
        let intake = intake.expect("a payload begins before its end");
        self.keeps_data = intake.has_successor();
        let place = intake.finish().await?;
        self.keeps_data = false;
        self.queue.applied.set(place.offset);
        Ok(place.db.0)
    }

    fn keeps_data(&self) -> bool {
        self.keeps_data
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        self.abandoned().await;
        let mut calls = Vec::with_capacity(unit.commands().len());
        for command in unit.commands() {
            calls.extend(self.call(&command)?);
        }
        self.queue.units.borrow_mut().push_back(UnitCalls {
            calls,
            end: StreamPlace {
                offset: unit.end_offset,
                db: DbIndex(unit.db),
            },
        });
        self.queue.filled.notify_one();
        self.world().log.with(|log| log.forward(unit.raw, unit.db));
        self.world().log.grown.notify_waiters();
        if self.queue.units.borrow().len() >= QUEUE_MAX {
            self.queue.shrunk_to(QUEUE_MAX / 2).await;
        }
        Ok(())
    }

    fn applied_offset(&mut self, _handed_offset: u64) -> u64 {
        self.queue.applied.get()
    }

    async fn progress(&self) {
        self.queue.emptied.notified().await;
    }

    fn continued(&mut self, replid: ReplId, renamed_from: Option<ReplId>) {
        self.keeps_data = false;
        tracing::info!("Successful partial resynchronization with primary");
        if renamed_from.is_some() {
            self.world()
                .log
                .with(|log| log.continue_as(replid.as_str().to_owned()));
            // They learn the new name when they come back.
            disconnect_replicas(self.world());
        }
    }

    fn observe(&mut self, status: &Status) {
        if status.phase != Phase::Handshake
            && self
                .world()
                .change_failover(FailoverStage::InProgress, FailoverStage::None)
        {
            tracing::info!("Failover completed: the target has taken over");
        }
        let generation = self.generation;
        let applied = self.queue.applied.get();
        self.world().link(|link| {
            if link.generation == generation {
                link.state.phase = Some(status.phase);
                link.state.offset = (status.phase == Phase::Stream).then_some(applied);
                link.state.payload = (status.payload_bytes_total, status.payload_bytes_read);
                link.state.heard_at_ms = now_ms();
            }
        });
        if status.phase == Phase::Stream {
            let world = self.control.world.clone();
            self.link_client.enter(&world);
        }
        self.world().judge_links();
    }

    fn disconnected(&mut self, why: &Disconnect) {
        tracing::warn!(%why, "Connection with primary lost");
        if let Disconnect::FailoverRefused { reply } = why {
            let reply = reply.clone();
            self.world().on_control(move |control| {
                failover::abort(
                    &control,
                    &format!("Failover target rejected psync request: {reply}"),
                );
            });
        }
        self.link_lost();
    }
}

impl Receiver {
    fn link_lost(&mut self) {
        let world = self.control.world.clone();
        if let Some(intake) = self.intake.take() {
            self.abandoned = Some(tokio::task::spawn_local(intake.abandon()));
        }
        self.link_client.leave(&world);
        let generation = self.generation;
        world.link(|link| {
            if link.generation == generation {
                link.state.phase = None;
                link.state.down_since_ms = now_ms();
            }
        });
        world.judge_links();
    }

    /// Waits until nothing is left of a payload that was cut.
    async fn abandoned(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            // A task of this thread ends with the process.
            let _ = abandoned.await;
        }
    }
}

/// The link to the primary as one of the clients: CLIENT LIST shows it and CLIENT KILL ends it.
#[derive(Default)]
struct LinkClient {
    client: Option<Arc<Client>>,
    watcher: Option<tokio::task::JoinHandle<()>>,
    /// CLIENT KILL has named it.
    killed: Rc<Notify>,
}

impl LinkClient {
    fn enter(&mut self, world: &World) {
        let primary = world.link(|link| link.primary.clone());
        let (None, Some((host, port))) = (&self.client, primary) else {
            return;
        };
        let host = if host == "localhost" {
            "127.0.0.1".to_owned()
        } else {
            host
        };
        let client = world.add_client(format!("{host}:{port}"), String::new());
        client.is_primary.store(true, Ordering::Relaxed);
        let (killed, watched) = (self.killed.clone(), client.clone());
        self.watcher = Some(tokio::task::spawn_local(async move {
            watched.outbox.kill.notified().await;
            killed.notify_one();
        }));
        self.client = Some(client);
    }

    fn leave(&mut self, world: &World) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        if let Some(client) = self.client.take() {
            client.outbox.close();
            world.remove_client(client.id);
        }
    }
}

/// REPLICAOF NO ONE, on the control thread: the link ends, what it brought is applied, and this server goes on as a
/// primary.
pub fn promote(control: &Rc<Control>) {
    control.world.link(|link| {
        link.primary = None;
        link.state = FollowerState::default();
        if let Some(stop) = link.stop.take() {
            stop.notify_one();
        }
    });
}

/// Goes on with the history of the dataset that was loaded: as a replica under its name, so that the primary may send what is missing;
/// as a primary under a new one, so that replicas may go on.
pub async fn resume(control: &Control, (replid, offset, db): (String, u64, u32), is_replica: bool) {
    if is_replica {
        let db_index = DbIndex(db);
        let place = StreamPlace {
            offset,
            db: db_index,
        };
        set_place(control, Some(place)).await;
        control.world.log.with(|log| log.adopt(&replid, offset, db));
        return;
    }
    let world = control.world.clone();
    control
        .coordinator
        .global(Box::new(move |_| {
            world
                .log
                .with(|log| log.resume(random_hex_40(), &replid, offset));
            world.journal.set_active(true);
            ((), Vec::new())
        }))
        .await;
}

/// Notes what of a primary's stream is applied, on all shards.
async fn set_place(control: &Control, place: Option<StreamPlace>) {
    control
        .coordinator
        .global(Box::new(move |keyspaces| {
            for keyspace in keyspaces {
                keyspace.place = place;
            }
            ((), Vec::new())
        }))
        .await;
}

/// The place where a link can try to go on: the end of what this server has of its history, as replica or as primary.
async fn own_position(world: &World) -> Option<Position> {
    // What committed before this server became a replica is in the log first.
    let last = world.journal.peek().0.saturating_sub(1);
    world.log.offset_after(Seq(last)).await;
    world.log.with(|log| {
        let (replid, offset, db) = log.own_end()?;
        Some(Position {
            replid: ReplId::parse(replid.as_bytes())?,
            offset,
            db,
        })
    })
}

async fn become_primary(control: &Control, generation: u64) {
    let world = control.world.clone();
    control
        .coordinator
        .global(Box::new(move |keyspaces| {
            // While this waited for the shards another REPLICAOF may have come.
            let is_still_wanted =
                world.link(|link| link.generation == generation && link.primary.is_none());
            if !is_still_wanted {
                return ((), Vec::new());
            }
            for keyspace in keyspaces {
                keyspace.place = None;
                keyspace.is_follower = false;
            }
            let has_backlog = world.log.with(|log| {
                log.promote(random_hex_40());
                log.backlog.is_some()
            });
            world.journal.set_active(has_backlog);
            world.is_replica.store(false, Ordering::Relaxed);
            ((), Vec::new())
        }))
        .await;
    disconnect_replicas(&control.world);
    tracing::info!("MASTER MODE enabled");
    // One that was given up leaves a primary, whose writes go on now.
    control
        .world
        .change_failover(FailoverStage::InProgress, FailoverStage::None);
    control.world.judge_links();
    let _ = control.world.apply_oom_score();
    control.world.promoted.notify_waiters();
}
