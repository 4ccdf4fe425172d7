//! One client's connection: reads requests, runs them here or sends them to their shards, writes replies in order.
//!
//! All requests that are in the buffer are worked off in one round. A command on this thread's shard whose keys are free runs at
//! once. Commands for other shards are collected, travel together at the end of the round, and their replies are put in place.
//! What needs more than one shard, or is about the session, first waits for all before it.
//!
//! Invariants
//! - Replies go out in the order of requests.
//! - Commands on the same key run in the order of requests: same key, same shard, same batch.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfsnap_formats::resp::{Protocol, Reply, RequestDecoder};
use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;

use super::admission::{Refusal, may_block};
use super::ahead::Ahead;
use super::emergency;
use super::flow::ReplyMode;
use super::reading::{SocketEvent, room_while_writing, write_reading};
use super::redaction::redacted;
use super::replicas::AckWait;
use super::round::{Round, Slot};
use super::socket::Socket;
use super::subscriptions::Subscriptions;
use super::thread::{Thread, client_actor};
use super::tracking::TrackingState;
use super::transaction::Transaction;
use crate::command::acl::{self, User};
use crate::command::aside::MOST_ELEMENTS;
use crate::command::blocking::Blocked;
use crate::command::call::{Call, Obstacle, Words, obstacle};
use crate::command::eviction;
use crate::command::runner::run_on_shard;
use crate::command::script;
use crate::command::sort;
use crate::command::{Command, CommandError, Flags, Merge, Run, Session};
use crate::config::Config;
use crate::keyspace::blob::Blob;
use crate::keyspace::release::drop_buffer;
use crate::keyspace::{DbIndex, Key, shard_of};
use crate::pubsub::tracking::Caller;
use crate::shard::Shard;
use crate::snapshot::names::is_worth_a_cut;
use crate::world::Client;

/// A connection that works off a deep pipeline lets others run after this long.
const SLICE: Duration = Duration::from_millis(1);
/// Read at most this much at once, and keep no larger buffer while idle.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// The buffer of a longer request is handed on, not copied, with whatever stands before it.
const LARGE_BYTES: usize = 1 << 20;
/// A query buffer ends here whatever the setting: the words of a command are counted in 32 bits.
const QUERY_BYTES_MAX: usize = u32::MAX as usize;
/// Write replies when they have grown to this, though the round is not over.
const WRITE_BYTES: usize = 256 * 1024;
/// So much of a buffer stays behind messages that a client did not ask for.
const PUSHES_KEPT_BYTES: usize = 16 * 1024;

/// State of one connection.
pub struct Connection {
    pub(super) thread: Rc<Thread>,
    pub(super) client: Arc<Client>,
    pub(super) db: DbIndex,
    pub(super) is_authenticated: bool,
    /// Whose rights it has.
    pub(super) user: Arc<User>,
    /// Of the users when `user` was looked up.
    pub(super) acl_generation: u64,
    pub(super) transaction: Option<Transaction>,
    pub(super) watched: Vec<(DbIndex, Blob, bool)>,
    /// Bytes of the names in `watched`.
    pub(super) watched_bytes: usize,
    pub(super) dirty: Arc<AtomicBool>,
    pub(super) out: Reply,
    pub(super) is_closing: bool,
    /// What the peer told about itself by REPLCONF.
    pub(super) peer: crate::replication::Peer,
    /// Set by PSYNC: the socket goes to replication.
    pub(super) takeover: Option<crate::replication::SyncRequest>,
    /// What came behind that.
    behind: Vec<u8>,
    pub(super) subscriptions: Subscriptions,
    /// How it is reached while a script holds the thread.
    door: Option<Rc<emergency::Door>>,
    pub(super) tracking: TrackingState,
    /// What shards are told about the client of a command.
    pub(super) caller: Caller,
    pub(super) reply_mode: ReplyMode,
    /// The reply to the current command is not written.
    pub(super) is_muted: bool,
    pub(super) is_monitor: bool,
    /// This server is a node of a cluster.
    pub(super) is_cluster: bool,
    /// The client speaks TLS.
    pub(super) is_tls: bool,
    /// Set by WAIT.
    pub(super) acks: Option<AckWait>,
    /// The commands of a transaction run: none of them waits.
    pub(super) is_in_exec: bool,
    /// Set by a command that must wait for a key.
    pub(super) blocked: Option<Blocked>,
    own: usize,
    shards: usize,
    pub(super) round: Round,
    /// The time slice is over, though there are more requests.
    must_pause: bool,
    /// The request that is looked at is not copied: see `take_large`.
    pub(super) is_large: bool,
}

/// What a command that could not run at once needs.
pub(super) struct Barrier {
    pub(super) command: &'static Command,
    pub(super) words: Words,
}

/// Serves a client until it goes.
pub async fn serve(thread: Rc<Thread>, mut socket: Socket, addr: String, laddr: String) {
    let client = thread.world.add_client(addr, laddr);
    let mut connection = Connection::new(thread.clone(), client.clone());
    let guard = emergency::enter(&socket, client.clone(), thread.world.clone());
    connection.door = Some(guard.0.clone());
    connection.is_tls = matches!(socket, Socket::Tls(_));
    let end = tokio::select! {
        end = connection.run(&mut socket) => end,
        () = client.outbox.kill.notified() => Ok(()),
    };
    if let Err(error) = end {
        tracing::debug!(client = client.id, %error, "connection ended");
    }
    drop(guard);
    connection.forget_watches();
    connection.forget_subscriptions();
    connection.stop_tracking();
    thread.world.hub.remove_monitor(&client.outbox);
    client.outbox.close();
    if let Some(request) = connection.takeover.take() {
        let peer = std::mem::take(&mut connection.peer);
        let behind = std::mem::take(&mut connection.behind);
        drop(connection);
        let _door = emergency::enter_replica(&socket, client.id, thread.world.clone());
        let request = (request, behind);
        crate::replication::serve_replica(&thread.world, socket, peer, request, client.clone())
            .await;
    }
    thread.world.remove_client(client.id);
}

impl Connection {
    fn new(thread: Rc<Thread>, client: Arc<Client>) -> Connection {
        let own = thread.shard.borrow().index;
        let shards = thread.world.links.shards();
        let acl_generation = acl::generation();
        let user = acl::default_user();
        let is_authenticated = user.is_on && user.is_nopass;
        client.change_texts(|texts| texts.user = "default".into());
        let is_cluster = thread.world.config().cluster_enabled;
        let caller = Caller {
            id: client.id,
            ..Caller::default()
        };
        Connection {
            thread,
            client,
            db: DbIndex(0),
            is_authenticated,
            user,
            acl_generation,
            transaction: None,
            watched: Vec::new(),
            watched_bytes: 0,
            dirty: Arc::default(),
            out: Reply::new(Protocol::Resp2),
            is_closing: false,
            peer: crate::replication::Peer::default(),
            takeover: None,
            behind: Vec::new(),
            subscriptions: Subscriptions::default(),
            door: None,
            tracking: TrackingState::default(),
            caller,
            reply_mode: ReplyMode::On,
            is_muted: false,
            is_monitor: false,
            is_cluster,
            is_tls: false,
            acks: None,
            is_in_exec: false,
            blocked: None,
            own,
            shards,
            round: Round::default(),
            must_pause: false,
            is_large: false,
        }
    }

    async fn run(&mut self, socket: &mut Socket) -> std::io::Result<()> {
        let limits = self.thread.world.config().proto_max_bulk_len;
        let mut decoder = RequestDecoder::new(limits);
        decoder.set_authenticated(self.is_authenticated);
        let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
        while !self.is_closing {
            let pending = decoder.pending_bulk();
            self.show_idle(buffer.is_empty());
            let event = self.next_event(socket, &mut buffer, pending).await;
            self.show_idle(false);
            if let Some(door) = &self.door {
                let (multi, protocol) = (door.multi.take(), door.protocol.take());
                self.adopt_multi(multi);
                if let Some(protocol) = protocol {
                    self.set_protocol(protocol);
                }
            }
            let read = match event? {
                SocketEvent::Read(0) => return Ok(()),
                SocketEvent::Read(read) => read,
                SocketEvent::Pushes => {
                    self.write_pushes(socket).await?;
                    continue;
                }
                SocketEvent::Idle => {
                    tracing::debug!(client = self.client.id, "Closing idle client");
                    return Ok(());
                }
            };
            self.client
                .active_ms
                .store(crate::clock::now_ms(), Ordering::Relaxed);
            self.thread
                .world
                .counters
                .net_input
                .fetch_add(read as u64, Ordering::Relaxed);
            let counters = &self.thread.world.counters;
            counters.reads.fetch_add(1, Ordering::Relaxed);
            if buffer.len() > query_limit(&self.thread.world.config()) {
                tracing::warn!(
                    client = self.client.id,
                    bytes = buffer.len(),
                    "closing client: query buffer limit"
                );
                return Ok(());
            }
            self.show_buffer(&buffer);
            if !self.note_memory() {
                return Ok(());
            }
            let mut at = 0;
            loop {
                let (next, barrier) = self.work_off(&mut decoder, &mut buffer, at);
                at = next;
                let is_done = barrier.is_none() && !self.must_pause;
                self.settle_round().await;
                if let Some(barrier) = barrier {
                    self.wait_paused(barrier.command, &barrier.words, socket, &mut buffer)
                        .await?;
                    let mut start = self.out.len();
                    let command = barrier.command;
                    let may_wait = command.flags.has(Flags::BLOCKING);
                    let words = may_wait.then(|| barrier.words.clone());
                    self.pass_barrier(barrier).await;
                    if let Some(blocked) = self.blocked.take() {
                        // What stands before the reply is written before the wait.
                        start = 0;
                        let words = words.unwrap_or_default();
                        self.wait_blocked(socket, &mut buffer, (command, &words), blocked)
                            .await?;
                    }
                    if let Some(acks) = self.acks.take() {
                        start = 0;
                        self.wait_acks(socket, &mut buffer, acks).await?;
                    }
                    if self.is_muted {
                        self.out.truncate(start);
                    }
                    decoder.set_authenticated(self.is_authenticated);
                }
                if !self.note_memory() {
                    return Ok(());
                }
                let mut has_more = false;
                if is_done
                    || self.is_closing
                    || self.takeover.is_some()
                    || self.out.len() >= WRITE_BYTES
                {
                    has_more = self.write_and_read(socket, &mut buffer).await?;
                }
                if is_done && !has_more || self.is_closing || self.takeover.is_some() {
                    break;
                }
                if at > buffer.len() / 2 {
                    buffer.drain(..at);
                    at = 0;
                }
                if has_more {
                    self.show_buffer(&buffer);
                }
                tokio::task::yield_now().await;
            }
            buffer.drain(..at);
            self.show_buffer(&buffer);
            if self.takeover.is_some() {
                self.behind = buffer;
                return Ok(());
            }
            if buffer.is_empty() && buffer.capacity() > 4 * READ_BYTES {
                drop_buffer(std::mem::replace(
                    &mut buffer,
                    Vec::with_capacity(READ_BYTES),
                ));
            }
        }
        Ok(())
    }

    /// Says whether it waits for a request, should a script hold the thread meanwhile.
    fn show_idle(&self, is_idle: bool) {
        if let Some(door) = &self.door {
            door.is_idle.set(is_idle);
            door.is_authenticated.set(self.is_authenticated);
        }
    }

    /// Whether the client is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.client.is_local()
    }

    /// Writes what came for the client without its asking.
    pub(super) async fn write_pushes(&mut self, socket: &mut Socket) -> std::io::Result<()> {
        let is_subscriber = !self.subscriptions.is_empty();
        let outbox = &self.client.outbox;
        outbox.drain(&mut self.out, WRITE_BYTES, is_subscriber);
        let result = self.write(socket).await;
        if self.out.buf_mut().capacity() > PUSHES_KEPT_BYTES {
            // Many clients may hear of the same: their buffers, kept, would be memory for which keys are evicted, of which they hear.
            drop_buffer(self.out.take());
        }
        result
    }

    pub(super) async fn write(&mut self, socket: &mut Socket) -> std::io::Result<()> {
        self.write_out(socket, None).await
    }

    /// With `incoming`, what comes meanwhile is added to that, up to the limit of a query buffer.
    pub(super) async fn write_out(
        &mut self,
        socket: &mut Socket,
        mut incoming: Option<&mut Vec<u8>>,
    ) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let (hard_limit, room) = {
            let config = self.thread.world.config();
            let limits = &config.client_output_buffer_limit;
            (limits.normal.hard_bytes, room_while_writing(&config))
        };
        if hard_limit > 0 && self.subscriptions.is_empty() && self.out.len() as u64 > hard_limit {
            tracing::warn!(
                client = self.client.id,
                bytes = self.out.len(),
                "closing client: output buffer limit"
            );
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        self.thread
            .world
            .counters
            .net_output
            .fetch_add(self.out.len() as u64, Ordering::Relaxed);
        let counters = &self.thread.world.counters;
        counters.writes.fetch_add(1, Ordering::Relaxed);
        let mut result = Ok(());
        let mut pieces = self.out.as_bytes().chunks(WRITE_BYTES).peekable();
        while let (Ok(()), Some(piece)) = (&result, pieces.next()) {
            result = match &mut incoming {
                None => socket.write_all(piece).await,
                Some(buffer) => write_reading(socket, piece, buffer, room).await,
            };
            if pieces.peek().is_some() {
                // A reader that keeps up would have all of a large reply in one go, and the others of this thread would wait.
                tokio::task::yield_now().await;
            }
        }
        if result.is_ok() {
            result = socket.flush().await;
        }
        if self.out.buf_mut().capacity() > 4 * WRITE_BYTES {
            drop_buffer(self.out.take());
        } else {
            self.out.clear();
        }
        result
    }

    /// Runs requests of `buffer` from `at` on until they end, one must wait for those before it, or the time slice is over. Returns up to
    /// where its bytes are used up.
    fn work_off(
        &mut self,
        decoder: &mut RequestDecoder,
        buffer: &mut Vec<u8>,
        mut at: usize,
    ) -> (usize, Option<Barrier>) {
        let started = Instant::now();
        self.must_pause = false;
        let thread = self.thread.clone();
        let mut shard = thread.shard.borrow_mut();
        shard.now_ms = crate::clock::now_ms();
        shard.mark = started;
        let mut commands = 0;
        let mut ahead = Ahead::default();
        let mut barrier = None;
        while barrier.is_none() && !self.is_closing {
            match decoder.decode(&buffer[at..]) {
                Ok(Some(consumed)) if consumed > LARGE_BYTES && !decoder.is_unquoted() => {
                    barrier = self.take_large(&mut shard, decoder, buffer, at..at + consumed);
                    at = 0;
                    ahead.restart();
                    commands += 1;
                }
                Ok(Some(consumed)) => {
                    let request = &buffer[at..];
                    let words: SmallVec<[&[u8]; 8]> = decoder.words(request).collect();
                    at += consumed;
                    ahead.look(&shard, self.db, buffer, at);
                    match words.first() {
                        // An empty request: nothing to do and nothing to say.
                        None => continue,
                        // Somebody's browser, led here by a page: nothing it sends may become a command.
                        Some(&b"POST" | &b"Host:") if decoder.is_inline() => self.is_closing = true,
                        Some(_) => barrier = self.take(&mut shard, &words),
                    }
                    commands += 1;
                    if commands % 64 == 0 && started.elapsed() > SLICE {
                        self.must_pause = true;
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.reply_here(|out| out.error(&format!("ERR {error}")));
                    self.is_closing = true;
                }
            }
        }
        shard.post_records();
        drop(shard);
        self.thread
            .world
            .counters
            .commands
            .fetch_add(commands, Ordering::Relaxed);
        (at, barrier)
    }

    /// Takes one request: runs it, puts it on its way, or says that it must wait for those before it.
    #[inline]
    pub(super) fn take(&mut self, shard: &mut Shard, words: &[&[u8]]) -> Option<Barrier> {
        self.begin_reply();
        if !self.is_muted {
            return self.take_any(shard, words);
        }
        let start = self.out.len();
        let barrier = self.take_any(shard, words);
        if barrier.is_none() {
            self.out.truncate(start);
            if let Some(Slot::Here(end)) = self.round.slots.last_mut() {
                *end = start;
            }
        }
        barrier
    }

    #[inline]
    fn take_any(&mut self, shard: &mut Shard, words: &[&[u8]]) -> Option<Barrier> {
        let command = match self.check(words) {
            Ok(command) => command,
            Err(Refusal { command, error }) => {
                self.refuse(shard, command, &error);
                return None;
            }
        };
        let actor = client_actor(&self.thread.world);
        if let Some(transaction) = &mut self.transaction
            && !Transaction::runs_at_once(command)
        {
            if let Err(error) = eviction::admit(shard, actor, command) {
                self.refuse(shard, Some(command), &error);
                return None;
            }
            transaction.queue(command, words);
            self.client
                .multi
                .store(transaction.len() as i64, Ordering::Relaxed);
            self.reply_here(|out| out.simple("QUEUED"));
            return None;
        }
        // EXEC is shown behind the commands that it runs.
        let is_exec = matches!(command.run, Run::Session(Session::Exec));
        if self.thread.world.hub.has_monitors() && !is_exec {
            self.show_to_monitors(command, words);
        }
        if self.is_muted || self.is_postponed(command, words) {
            return Some(Barrier {
                command,
                words: self.kept(words),
            });
        }
        let home = match command.run {
            Run::Session(session) => return self.take_session(shard, session, command, words),
            Run::Global(_) if sort::is_bound(command, words) => self.home(command, words),
            Run::Global(_) if self.shards > 1 => None,
            // The empty dataset may be saved before the reply.
            Run::Global(_) if command.name == "flushall" => None,
            Run::Global(_) if command.name == "keys" && is_worth_a_cut(shard, self.db) => None,
            // One shard is all shards, and nothing is lent while it is idle.
            Run::Global(_) => shard.is_idle().then_some(self.own),
            Run::Cursor(_) => Some(crate::command::databases::cursor_shard(words, self.shards)),
            Run::Keys(_) if may_block(command, words) => None,
            Run::Script(_) if self.shards > 1 && script::needs_everything(words) => None,
            // One that must start over waits here for those before it.
            Run::Script(_) => self.home(command, words).filter(|home| *home == self.own),
            Run::Keys(_) | Run::Split { .. } => self.home(command, words),
        };
        let Some(home) = home else {
            if let Err(error) = eviction::admit(shard, actor, command) {
                self.refuse(shard, Some(command), &error);
                return None;
            }
            return Some(Barrier {
                command,
                words: self.kept(words),
            });
        };
        let is_own = home == self.own && !self.must_leave(command, words);
        if is_own
            && !self.round.batches.iter().any(|(shard, _)| *shard == home)
            && obstacle(shard, command, self.db, words) == Obstacle::None
        {
            if let Err(error) = eviction::admit(shard, actor, command) {
                self.refuse(shard, Some(command), &error);
                return None;
            }
            if shard.settings.memory_max > 0 && !self.client.outbox.is_empty() {
                // What it tracks and has just been evicted: it hears of that before the reply.
                let is_subscriber = !self.subscriptions.is_empty();
                let outbox = &self.client.outbox;
                outbox.drain(&mut self.out, WRITE_BYTES, is_subscriber);
            }
            let (out, db) = (&mut self.out, self.db);
            let user = &self.user;
            shard.caller = self.caller.clone();
            let may_leave = !self.tracking.is_caching_set();
            let (must_start_over, runs_aside) = run_on_shard(shard, actor, |runner, commit| {
                if may_leave {
                    runner.most_elements = MOST_ELEMENTS;
                }
                if let Run::Script(_) = command.run {
                    runner.user = Some(user.clone());
                }
                runner.run(command, db, words, out, commit);
                (commit.needs_everything, commit.runs_aside)
            });
            if runs_aside {
                self.send_later(home, command, words);
                return None;
            }
            if must_start_over {
                return Some(Barrier {
                    command,
                    words: self.kept(words),
                });
            }
            self.close_slot();
            self.forget_caching();
        } else if self.tracking.is_caching_set() {
            // What it says holds for this command alone.
            return Some(Barrier {
                command,
                words: self.kept(words),
            });
        } else {
            self.send_later(home, command, words);
        }
        None
    }

    /// The one shard of a command's keys; `None` if there are several.
    #[inline]
    pub(super) fn home(&self, command: &Command, words: &[&[u8]]) -> Option<usize> {
        if self.shards == 1 {
            return Some(self.own);
        }
        let mut home = None;
        let mut is_one = true;
        command.keys.visit(words, |at| {
            let shard = shard_of(Key::new(words[at]).hash, self.shards);
            is_one &= *home.get_or_insert(shard) == shard;
        });
        is_one.then(|| home.unwrap_or(self.own))
    }

    /// Replies with an error; an open MULTI is spoiled by it.
    fn refuse(&mut self, shard: &mut Shard, command: Option<&Command>, error: &CommandError) {
        shard.stats.error(&error.0);
        if let Some(command) = command {
            shard.stats.rejected(command.name);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.spoil();
        }
        self.reply_here(|out| out.error(&error.0));
    }

    /// Session commands that need nobody else run at once; the others wait for those before them.
    fn take_session(
        &mut self,
        shard: &mut Shard,
        session: Session,
        command: &'static Command,
        words: &[&[u8]],
    ) -> Option<Barrier> {
        match session {
            Session::Ping if words.len() == 1 && !self.is_resp2_subscriber() => {
                self.reply_here(|out| out.simple("PONG"));
            }
            Session::Ping if words.len() == 2 && !self.is_resp2_subscriber() => {
                self.reply_here(|out| out.bulk(words[1]));
            }
            Session::Echo => self.reply_here(|out| out.bulk(words[1])),
            _ => {
                return Some(Barrier {
                    command,
                    words: self.kept(words),
                });
            }
        }
        let now = Instant::now();
        let nanos = now.saturating_duration_since(shard.mark).as_nanos() as u64;
        shard.mark = now;
        let recorder = &shard.settings.recorder;
        recorder.ran(words, nanos, self.client.id, command.flags.has(Flags::FAST));
        let is_tracked = recorder.tracks_latency();
        shard.stats.ran(command.name, nanos, false, is_tracked);
        None
    }

    /// Runs a command that had to wait for those before it.
    async fn pass_barrier(&mut self, barrier: Barrier) {
        let Barrier { command, words } = barrier;
        match command.run {
            Run::Session(session) => self.run_session(command, session, words).await,
            Run::Keys(_) if words.with(|words| may_block(command, words)) => {
                let call = Call {
                    command,
                    db: self.db,
                    words,
                };
                self.run_blocking(call).await;
            }
            Run::Global(_) if self.wants_many_names(command) => {
                self.collect_names(command, words).await;
            }
            Run::Global(_) | Run::Keys(_) | Run::Script(_) | Run::Cursor(_) => {
                let call = Call {
                    command,
                    db: self.db,
                    words,
                };
                let reply = self.run_everywhere(vec![call]).await;
                if command.name == "flushall" {
                    crate::saving::save_flushed(&self.thread.world).await;
                }
                self.put_reply(reply);
            }
            Run::Split { stride, merge, .. } => {
                let call = Call {
                    command,
                    db: self.db,
                    words,
                };
                self.run_split(call, stride, merge).await;
            }
        }
        if !matches!(command.run, Run::Session(Session::Client)) {
            self.forget_caching();
        }
    }

    /// MONITOR shows commands as they are about to run, without passwords.
    pub(super) fn show_to_monitors(&self, command: &Command, words: &[&[u8]]) {
        // A script stands before what it calls.
        let is_script = matches!(command.run, Run::Script(_));
        let is_skipped = command.flags.has(Flags::SKIP_MONITOR) && !is_script;
        if is_skipped || command.flags.has(Flags::ADMIN) {
            return;
        }
        let words = redacted(command, words);
        let unix = self.client.addr.strip_suffix(":0");
        let from = unix.map_or_else(|| self.client.addr.clone(), |path| format!("unix:{path}"));
        self.thread.world.hub.monitor(self.db.0, &from, &words);
    }

    /// Runs a command over several shards, each with its own keys.
    async fn run_split(&mut self, call: Call, stride: usize, merge: Merge) {
        let coordinator = self.thread.coordinator.clone();
        let actor = client_actor(&self.thread.world);
        let (protocol, caller) = (self.out.protocol(), self.caller.clone());
        let task = tokio::task::spawn_local(async move {
            crate::command::block::split(&coordinator, call, stride, merge, actor, caller, protocol)
                .await
        });
        match task.await {
            Ok(reply) => self.out.raw(&reply),
            Err(_) => self.is_closing = true,
        }
    }
}

/// A query buffer may hold this many bytes.
pub(super) fn query_limit(config: &Config) -> usize {
    config.client_query_buffer_limit.min(QUERY_BYTES_MAX)
}
