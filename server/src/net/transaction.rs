//! MULTI, EXEC and WATCH of a connection.

use std::sync::atomic::Ordering;

use super::admission::must_wait_for_load;
use super::connection::Connection;
use super::emergency::Multi;
use super::thread::client_actor;
use crate::command::block::{Block, Watch};
use crate::command::call::{Call, Words};
use crate::command::eviction;
use crate::command::runner::LOADING;
use crate::command::{Command, CommandError, Flags, Run, Session, inner, script};
use crate::keyspace::Key;
use crate::keyspace::blob::Blob;
use crate::keyspace::watch::Dirty;
use crate::shard::queue::Mode;
use crate::world::WriteHold;

/// Commands between MULTI and EXEC.
#[derive(Default)]
pub struct Transaction {
    calls: Vec<(&'static Command, Words)>,
    is_spoiled: bool,
    /// Of the words of `calls`.
    bytes: usize,
}

impl Transaction {
    /// Whether a command runs although a transaction is open.
    pub fn runs_at_once(command: &Command) -> bool {
        command.flags.has(Flags::NO_MULTI)
            || matches!(
                command.run,
                Run::Session(
                    Session::Exec
                        | Session::Discard
                        | Session::Multi
                        | Session::Watch
                        | Session::Quit
                        | Session::Reset
                )
            )
    }

    /// Whether a command has no place in a transaction. MULTI and WATCH say so in words of their own.
    pub fn is_refused(command: &Command) -> bool {
        command.flags.has(Flags::NO_MULTI)
            && !matches!(command.run, Run::Session(Session::Multi | Session::Watch))
    }

    /// Adds a command.
    pub fn queue(&mut self, command: &'static Command, words: &[&[u8]]) {
        self.bytes += words
            .iter()
            .map(|word| word.len() + WORD_BYTES)
            .sum::<usize>();
        self.calls
            .push((command, Words::new(words.iter().copied())));
    }

    /// EXEC will refuse.
    pub fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// Whether one of its commands may write or publish.
    pub fn may_replicate(&self) -> bool {
        self.calls
            .iter()
            .any(|(command, words)| words.with(|words| script::may_replicate(command, words)))
    }

    /// About the bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.calls.len()
    }
}

/// What a word takes beside its bytes.
pub(super) const WORD_BYTES: usize = 32;

/// EXEC of a transaction one of whose commands was refused.
pub(super) const SPOILED: CommandError =
    CommandError::text("EXECABORT Transaction discarded because of previous errors.");

/// Where the reply to a command of a transaction comes from.
enum Step {
    /// It ran with the others on entries.
    Ran,
    /// It waits for another server: those before it have run then, those behind it run next.
    Between(&'static Command, Session, Words),
    /// The connection runs it.
    Session(&'static Command, Session, Words),
    /// Its user may not run it any more.
    Refused(CommandError),
}

impl Connection {
    /// EXEC.
    pub(super) async fn exec(&mut self) -> Result<(), CommandError> {
        let Some(transaction) = self.transaction.take() else {
            return Err(CommandError::text("ERR EXEC without MULTI"));
        };
        self.client.multi.store(-1, Ordering::Relaxed);
        let watched = Some(self.watches());
        if transaction.is_spoiled {
            self.forget_watches();
            return Err(SPOILED);
        }
        let may_write = transaction.calls.iter().any(|(command, words)| {
            command.is_write() || words.with(|words| script::may_write(command, words))
        });
        let world = self.thread.world.clone();
        if may_write && world.is_replica.load(Ordering::Relaxed) && world.config().replica_read_only
        {
            self.forget_watches();
            return Err(CommandError::text(
                "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
            ));
        }
        let may_not_be_old = || {
            let mut calls = transaction.calls.iter();
            calls.any(|(command, words)| !words.with(|words| script::allows_stale(command, words)))
        };
        if world.is_stale.load(Ordering::Relaxed) && may_not_be_old() {
            self.forget_watches();
            return Err(CommandError::text(
                "EXECABORT Transaction discarded because of: MASTERDOWN Link with MASTER is down and \
                 replica-serve-stale-data is set to 'no'.",
            ));
        }
        if transaction
            .calls
            .iter()
            .any(|(command, _)| must_wait_for_load(&world, command))
        {
            self.forget_watches();
            let text = format!("EXECABORT Transaction discarded because of: {}", LOADING.0);
            return Err(CommandError(text.into()));
        }
        if may_write && world.lacks_replicas.load(Ordering::Relaxed) {
            self.forget_watches();
            return Err(CommandError::text(
                "EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.",
            ));
        }
        let needs_memory = transaction
            .calls
            .iter()
            .any(|(command, _)| command.flags.has(Flags::DENYOOM));
        let has_room = {
            let mut shard = self.thread.shard.borrow_mut();
            let has_room = eviction::make_room(&mut shard, client_actor(&world));
            shard.post_records();
            has_room
        };
        if needs_memory && !has_room {
            self.forget_watches();
            let text = format!(
                "EXECABORT Transaction discarded because of: {}",
                eviction::OUT_OF_MEMORY.0
            );
            return Err(CommandError(text.into()));
        }
        // The commands about the session run here, between those on entries; SELECT decides where later ones go.
        let mut calls = Vec::new();
        let mut parts = Vec::new();
        let mut plan = Vec::with_capacity(transaction.calls.len());
        let db_before = self.db;
        let has_monitors = world.hub.has_monitors();
        // What is asked about the server, and done to its clients, behind a change of its role is about the new one.
        let mut is_behind_role = false;
        for (command, words) in transaction.calls {
            if let Err(error) = words.with(|args| self.check_queued(command, args)) {
                plan.push(Step::Refused(error));
                continue;
            }
            if has_monitors {
                words.with(|words| self.show_to_monitors(command, words));
            }
            let is_later = is_behind_role && matches!(command.run, Run::Session(_));
            if !is_later && let Some(command) = words.with(|words| inner::row(command, words)) {
                calls.push(Call {
                    command,
                    db: self.db,
                    words,
                });
                plan.push(Step::Ran);
                continue;
            }
            match command.run {
                Run::Session(session @ Session::Migrate) => {
                    parts.push(std::mem::take(&mut calls));
                    plan.push(Step::Between(command, session, words));
                }
                Run::Session(session) => {
                    if session == Session::Select {
                        self.preview_select(&words);
                    }
                    is_behind_role |= session == Session::Replicaof;
                    plan.push(Step::Session(command, session, words));
                }
                _ => {
                    calls.push(Call {
                        command,
                        db: self.db,
                        words,
                    });
                    plan.push(Step::Ran);
                }
            }
        }
        self.db = db_before;
        parts.push(calls);
        if self.is_cluster {
            let keys: Vec<_> = parts.iter().flatten().flat_map(Call::keys).collect();
            let keys = keys.iter().map(|(_, key)| key.as_slice());
            if let Err(error) = super::cluster::check_all(keys) {
                self.forget_watches();
                return Err(error);
            }
        }
        let has_config = (parts.iter().flatten()).any(|call| call.command.name == "config");
        // Between the parts nobody else writes.
        let hold = match parts.len() {
            1 => None,
            _ => Some(WriteHold::begin(&world).await),
        };
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let ran = self.run_block(first, watched).await;
        self.forget_watches();
        let Some(replies) = ran else {
            self.out.null_array();
            return Ok(());
        };
        if has_config {
            // What was set holds on all threads before the reply says so.
            world.links.call_all(|_| ()).await;
        }
        self.is_closing |= self.client.must_end.load(Ordering::Relaxed);
        self.out.array(plan.len());
        let mut replies = replies.into_iter();
        for step in plan {
            match step {
                Step::Refused(error) => self.out.error(&error.0),
                Step::Ran => self
                    .out
                    .raw(&replies.next().expect("one reply for each command")),
                Step::Between(command, session, words) => {
                    Box::pin(self.run_session(command, session, words)).await;
                    let next = parts.next().unwrap_or_default();
                    let ran = self.run_block(next, None).await;
                    replies = ran.unwrap_or_default().into_iter();
                }
                Step::Session(command, session, words) => {
                    Box::pin(self.run_session(command, session, words)).await;
                }
            }
        }
        drop(hold);
        Ok(())
    }

    /// Takes over what became of the transaction while a script held the thread.
    pub(super) fn adopt_multi(&mut self, multi: Multi) {
        match multi {
            Multi::Untouched => {}
            Multi::Spoiled => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.spoil();
                }
            }
            Multi::Closed => {
                self.transaction = None;
                self.forget_watches();
            }
            Multi::Opened { is_spoiled, closes } => {
                if closes {
                    self.forget_watches();
                }
                self.transaction = Some(Transaction {
                    is_spoiled,
                    ..Transaction::default()
                });
            }
        }
    }

    pub(super) fn watches(&self) -> Vec<Watch> {
        self.watched
            .iter()
            .map(|(db, key, was_expired)| Watch {
                db: *db,
                key: key.clone(),
                was_expired: *was_expired,
            })
            .collect()
    }

    /// Runs commands as one unit and returns all their replies in one piece.
    pub(super) async fn run_everywhere(&mut self, calls: Vec<Call>) -> Vec<u8> {
        self.run_block(calls, None)
            .await
            .unwrap_or_default()
            .concat()
    }

    /// Runs commands as one unit, unless a key that is given to be watched has changed; those of the client's WATCH are for EXEC alone. Each
    /// reply by itself.
    pub(super) async fn run_block(
        &mut self,
        calls: Vec<Call>,
        watches: Option<Vec<Watch>>,
    ) -> Option<Vec<Vec<u8>>> {
        let dirty = match &watches {
            Some(_) => self.dirty.clone(),
            None => Dirty::default(),
        };
        let coordinator = self.thread.coordinator.clone();
        let actor = client_actor(&self.thread.world);
        let block = Block::new(calls, actor)
            .caller(self.caller.clone())
            .protocol(self.out.protocol())
            .watching(watches.unwrap_or_default(), dirty)
            .with_rights_of(self.user.clone());
        let block = {
            let mut shard = self.thread.shard.borrow_mut();
            shard.now_ms = crate::clock::now_ms();
            let ran = block.run_at_once(&mut shard, self.thread.world.links.shards());
            shard.post_records();
            match ran {
                Ok(replies) => return replies,
                Err(block) => block,
            }
        };
        let context = self.thread.world.block_context();
        // In a task of its own: what has been scheduled must finish, whatever becomes of the client.
        let task = tokio::task::spawn_local(async move { block.run(&coordinator, context).await });
        match task.await {
            Ok(replies) => replies,
            Err(_) => {
                self.is_closing = true;
                None
            }
        }
    }

    /// Watches keys of the selected database.
    pub(super) async fn watch(&mut self, words: Words) {
        if self.transaction.is_some() {
            self.out.error("ERR WATCH inside MULTI is not allowed");
            return;
        }
        let keys: Vec<Blob> = words.iter().skip(1).map(Blob::new).collect();
        self.watch_blobs(keys).await;
        self.out.ok();
    }

    /// Watches keys for a command of the server's own.
    pub(super) async fn watch_keys(&mut self, keys: &[&[u8]]) {
        let keys = keys.iter().map(|key| Blob::new(key)).collect();
        self.watch_blobs(keys).await;
    }

    async fn watch_blobs(&mut self, keys: Vec<Blob>) {
        for key in keys {
            let (db, dirty, watched) = (self.db, self.dirty.clone(), key.clone());
            let shard =
                crate::keyspace::shard_of(Key::new(&key).hash, self.thread.world.links.shards());
            let was_expired = self
                .thread
                .coordinator
                .single(
                    shard,
                    std::iter::once((db, key.clone())).collect(),
                    Mode::Shared,
                    move |shard| {
                        let now_ms = shard.now_ms;
                        let keyspace = shard
                            .keyspace
                            .as_mut()
                            .expect("a held key keeps the keyspace here");
                        let was_expired = keyspace
                            .get(db, Key::new(&watched))
                            .is_some_and(|entry| entry.is_expired(now_ms));
                        keyspace.watches.watch(db, &watched, &dirty, was_expired);
                        was_expired
                    },
                )
                .await;
            // Here and on the key's shard.
            self.watched_bytes += 2 * (key.len() + WORD_BYTES);
            self.watched.push((db, key, was_expired));
        }
    }

    /// UNWATCH, and what EXEC, DISCARD and the end of the connection do.
    pub(super) fn forget_watches(&mut self) {
        for (db, key, _) in std::mem::take(&mut self.watched) {
            let dirty = self.dirty.clone();
            let shard =
                crate::keyspace::shard_of(Key::new(&key).hash, self.thread.world.links.shards());
            let coordinator = self.thread.coordinator.clone();
            let keys = std::iter::once((db, key.clone())).collect();
            tokio::task::spawn_local(async move {
                coordinator
                    .single(shard, keys, Mode::Shared, move |shard| {
                        let keyspace = shard
                            .keyspace
                            .as_mut()
                            .expect("a held key keeps the keyspace here");
                        keyspace.watches.unwatch(db, &key, &dirty);
                    })
                    .await;
            });
        }
        self.watched_bytes = 0;
        // A fresh flag: marks of the old watches that are still on their way do not count any more.
        self.dirty = std::sync::Arc::default();
    }
}
