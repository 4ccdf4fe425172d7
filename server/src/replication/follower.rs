//! This server as a replica: what comes from the primary goes to the shards.
//!
//! The link itself is `dfsnap_replica`; here is its receiving end, and the changes of this server's role. Units of the stream are
//! gathered ([`super::batch`]) and go into the log and into a queue, which [`super::worker`] empties. What is told to the primary is what
//! all shards have applied.
//!
//! Invariants
//! - What the link's position says has come is in the log and in the queue before anybody asks.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dfsnap_replica::{
    Apply, ApplyError, Auth, Disconnect, Follower, LinkConfig, PayloadStart, Phase, Position,
    ReplId, Status, Transaction,
};
use tokio::sync::Notify;

use super::batch::{self, Gathered, Gathering};
use super::failover;
use super::intake::{Intake, disconnect_replicas};
use super::worker::{QUEUE_BYTES_MAX, Queue, Worker};
use crate::clock::{now_ms, random_hex_40};
use crate::command::CommandError;
use crate::command::blocking::{AfterError, End};
use crate::journal::Seq;
use crate::keyspace::{DbIndex, StreamPlace};
use crate::world::{Client, Control, FailoverStage, FollowerState, World};

/// Bytes that are passed on together at most, save that a unit stays whole.
const BATCH_BYTES: usize = 64 << 10;

/// What a primary answers to PSYNC … FAILOVER.
const IS_PRIMARY: &str = "PSYNC FAILOVER can't be sent to a master";

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
    follower.source = source(&world);
    follower.position = match position {
        Some(position) => Some(position),
        None => own_position(&world).await,
    };
    if let Some(position) = &follower.position {
        tracing::info!("Trying a partial resynchronization (request {position})");
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
    tracing::info!("Connecting to MASTER {host}:{port}");
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
        tracing::warn!("Connection with master lost: killed by CLIENT KILL");
        receiver.link_lost();
    };
    receiver.link_lost();
    receiver.abandoned().await;
    match ended {
        Ok(_) => tracing::info!("Replication from {host}:{port} ended"),
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
    /// Units that have come and are not in the queue yet: the link's place is behind them.
    gathering: Gathering,
    queue: Rc<Queue>,
    worker: tokio::task::JoinHandle<()>,
    link_client: LinkClient,
    /// When the first link was tried.
    began: Instant,
    /// The link that ended last has sent PSYNC.
    has_asked: bool,
    handing_over: HandingOver,
}

/// What is known of the target of a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandingOver {
    /// It was not asked to take over: it is a replica still.
    Unasked,
    /// It was asked, and the link broke before it answered.
    Unanswered,
    /// It has taken over, as it turned out.
    Done,
}

impl Receiver {
    fn new(control: Rc<Control>, generation: u64) -> Receiver {
        let queue = Rc::new(Queue::default());
        let worker = Worker {
            control: control.clone(),
            queue: queue.clone(),
            generation,
        };
        let worker = tokio::task::spawn_local(worker.run());
        Receiver {
            gathering: Gathering::new(control.world.links.shards()),
            control,
            generation,
            intake: None,
            abandoned: None,
            keeps_data: false,
            queue,
            worker,
            link_client: LinkClient::default(),
            began: Instant::now(),
            has_asked: false,
            handing_over: HandingOver::Unasked,
        }
    }

    fn world(&self) -> &Arc<World> {
        &self.control.world
    }
}

impl Apply for Receiver {
    fn configure(&mut self, config: &mut LinkConfig) {
        // Passwords and limits may have been set since the last link.
        *config = LinkConfig {
            failover: config.failover && self.handing_over != HandingOver::Done,
            ..link_config(self.world())
        };
        self.has_asked = false;
    }

    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError> {
        self.abandoned().await;
        self.queue.shrunk_to(0).await;
        if let Some((replid, offset)) = &start.origin {
            tracing::info!("Full resync from master: {replid}:{offset}");
        }
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

    fn gather(&mut self, unit: &Transaction<'_>) -> Result<bool, ApplyError> {
        if self.abandoned.is_some() {
            // It has to wait.
            return Ok(false);
        }
        match self.gathering.add(unit)? {
            Gathered::Taken if self.gathering.len() < BATCH_BYTES => {}
            Gathered::Taken => self.pass_on(),
            Gathered::IsAlone => {
                let alone = batch::alone(unit)?;
                self.pass_on();
                self.forward(unit.raw.into(), unit.db);
                self.queue.push_alone(alone);
            }
        }
        Ok(true)
    }

    async fn gathered(&mut self) -> Result<(), ApplyError> {
        self.pass_on();
        if self.queue.len() >= QUEUE_BYTES_MAX {
            self.queue.shrunk_to(QUEUE_BYTES_MAX / 2).await;
        } else if self.queue.len() > 0 {
            // More may be there to read already: the worker has its turn before that.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError> {
        self.abandoned().await;
        self.gather(&unit).map(|_| ())
    }

    fn applied_offset(&mut self, _handed_offset: u64) -> u64 {
        self.queue.applied.get()
    }

    async fn progress(&self) {
        self.queue.emptied.notified().await;
    }

    fn continued(&mut self, replid: ReplId, renamed_from: Option<ReplId>) {
        self.keeps_data = false;
        tracing::info!("Successful partial resynchronization with master.");
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
        self.has_asked = status.has_asked;
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
        let phase = self.world().link(|link| link.state.phase);
        tracing::warn!("{}: {why}", in_words_of_redis(why, phase));
        if self.world().failover() == FailoverStage::InProgress {
            self.not_handed_over(why);
        }
        self.link_lost();
    }
}

impl Receiver {
    /// What has been gathered goes into the log and the queue.
    fn pass_on(&mut self) {
        if let Some(batch) = self.gathering.take() {
            self.forward(batch.bytes.clone(), batch.end.db.0);
            self.queue.push(batch);
        }
    }

    /// Replicas of this server get the bytes as they came.
    fn forward(&self, bytes: Arc<[u8]>, db: u32) {
        let log = &self.world().log;
        log.with(|log| log.forward(bytes, db));
        log.grown.notify_waiters();
    }

    /// A link to the target of a failover has ended without an answer to PSYNC, or with a refusal.
    fn not_handed_over(&mut self, why: &Disconnect) {
        let limit = Duration::from_secs(self.world().config().repl_timeout);
        let has_asked = std::mem::take(&mut self.has_asked);
        let reason = match (why, self.handing_over) {
            // The answer to the question before was lost: nobody else writes here meanwhile, so it is to be followed like any primary.
            (Disconnect::FailoverRefused { reply }, HandingOver::Unanswered)
                if reply.contains(IS_PRIMARY) =>
            {
                tracing::info!("Failover target has taken over already");
                self.handing_over = HandingOver::Done;
                return;
            }
            (Disconnect::FailoverRefused { reply }, _) => {
                format!("Failover target rejected psync request: {reply}")
            }
            (_, HandingOver::Unasked) if !has_asked => {
                if self.began.elapsed() < limit {
                    return;
                }
                let seconds = limit.as_secs();
                format!("Failover target has not answered for {seconds} s (repl-timeout): {why}")
            }
            (_, HandingOver::Unasked) => {
                // To be a primary again could make two of them: it is asked until it answers, or somebody says ABORT.
                self.handing_over = HandingOver::Unanswered;
                return;
            }
            (_, HandingOver::Unanswered | HandingOver::Done) => return,
        };
        self.world()
            .on_control(move |control| failover::abort(&control, &reason));
    }

    fn link_lost(&mut self) {
        let world = self.control.world.clone();
        // The next link asks for what is behind it.
        self.pass_on();
        if let Some(intake) = self.intake.take() {
            self.abandoned = Some(tokio::task::spawn_local(intake.abandon()));
        }
        let generation = self.generation;
        world.link(|link| {
            if link.generation == generation {
                link.state.phase = None;
                link.state.down_since_ms = now_ms();
            }
        });
        world.judge_links();
        // Who has killed it sees the link down.
        self.link_client.leave(&world);
    }

    /// Waits until nothing is left of a payload that was cut.
    async fn abandoned(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            // A task of this thread ends with the process.
            let _ = abandoned.await;
        }
    }
}

/// `bind-source-addr`.
fn source(world: &World) -> Option<IpAddr> {
    let text = world.config().bind_source_addr.clone()?;
    let source = text.parse().ok();
    if source.is_none() {
        tracing::warn!("bind-source-addr {text}: not an IP address; links come from any");
    }
    source
}

/// How Redis' log puts the end of a link: that is what people look for.
fn in_words_of_redis(why: &Disconnect, phase: Option<Phase>) -> &'static str {
    match (why, phase) {
        (Disconnect::Timeout { .. }, Some(Phase::Stream)) => {
            "MASTER timeout: no data nor PING received..."
        }
        (Disconnect::Timeout { .. }, Some(Phase::AwaitPayload | Phase::Payload)) => {
            "Timeout receiving bulk data from MASTER... If the problem persists try to set the 'repl-timeout' parameter to a \
             larger value"
        }
        (Disconnect::Timeout { .. }, _) => "Timeout connecting to the MASTER...",
        (Disconnect::Refused { step, .. }, _) if *step == "reply to AUTH" => {
            "Unable to AUTH to MASTER"
        }
        (Disconnect::NotReady { .. }, _) => "Error reply to PING from master",
        (Disconnect::SyncFailed { .. }, _) => "MASTER aborted replication with an error",
        (Disconnect::NotApplied(_), Some(Phase::Payload | Phase::Loading)) => {
            "Failed trying to load the MASTER synchronization DB"
        }
        (_, Some(Phase::Stream)) => "Connection with master lost",
        _ => "Error condition on socket for SYNC",
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
