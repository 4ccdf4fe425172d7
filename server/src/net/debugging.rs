//! SCRIPT DEBUG, and the connection of a client that debugs a script.
//!
//! From the EVAL on the connection carries bytes between the client and the thread of the script (`command/script/debugger`), until the script
//! has ended; then comes the reply to the EVAL, and the connection is closed.
//!
//! ```text
//!  client ─► socket ─► input ─► thread of the script: its keyspaces are ┬ SYNC: all shards', lent; whoever needs a key waits
//!     ▲                                     │                           └ YES: a copy, taken at a cut; dropped at the end
//!     └───── socket ◄─ output ◄─────────────┘
//! ```
//!
//! Invariants
//! - No shard waits for a developer: what waits at the prompt is a thread of its own.
//! - The session does not end with its connection: a task of its own sees to it that lent keyspaces come back.
//! - Of a session on a copy nothing is recorded, published, tracked, counted or noted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel, unbounded_channel};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::scripts;
use super::socket::Socket;
use super::thread::{Thread, client_actor};
use crate::command::call::Call;
use crate::command::exec::Actor;
use crate::command::script::debugger::Line;
use crate::command::script::debugger::run::{DebugEnd, DebugRun};
use crate::command::{Command, CommandError};
use crate::journal::Records;
use crate::keyspace::settings::Settings;
use crate::snapshot::copy::copy;
use crate::tx::Keyspaces;
use crate::world::World;

/// What becomes of the next EVAL of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Debugging {
    /// It runs.
    #[default]
    No,
    /// It is debugged on a copy of the dataset.
    Forked,
    /// It is debugged on the dataset.
    Sync,
}

/// Sessions on copies at one time: each has all of the dataset.
const FORKED_MAX: usize = 4;
static FORKED: AtomicUsize = AtomicUsize::new(0);

/// What is read at once: as much as one request of the debugger may well have.
const READ_BYTES: usize = 1024;
/// Pieces on their way to the script.
const PIECES: usize = 64;
/// A client that does not take what it is sent has gone.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// One of the sessions on copies.
struct Fork;

impl Fork {
    fn new() -> Result<Fork, String> {
        let is_free = |count| (count < FORKED_MAX).then_some(count + 1);
        match FORKED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free) {
            Ok(_) => Ok(Fork),
            Err(count) => Err(format!("{count} scripts are debugged already")),
        }
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        FORKED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// SCRIPT DEBUG.
    pub(super) fn script_debug(&mut self, mode: &[u8]) -> Result<(), CommandError> {
        if self.is_in_exec || !self.out.is_empty() {
            return Err(CommandError::new(
                "SCRIPT DEBUG must be called outside a pipeline",
            ));
        }
        self.debugging = match mode.to_ascii_lowercase().as_slice() {
            b"no" => Debugging::No,
            b"yes" => Debugging::Forked,
            b"sync" => Debugging::Sync,
            _ => return Err(CommandError::new("Use SCRIPT DEBUG YES/SYNC/NO")),
        };
        self.out.ok();
        Ok(())
    }

    /// Whether a request is a script to be debugged; an error if it is one that cannot be.
    #[inline]
    pub(super) fn is_debugged(
        &self,
        command: &Command,
        words: &[&[u8]],
    ) -> Result<bool, CommandError> {
        match self.debugging {
            Debugging::No => Ok(false),
            Debugging::Forked | Debugging::Sync => self.may_debug(command, words),
        }
    }

    #[cold]
    fn may_debug(&self, command: &Command, words: &[&[u8]]) -> Result<bool, CommandError> {
        if !command.name.starts_with("eval") {
            return Ok(false);
        }
        if command.name.starts_with("evalsha") {
            return match words[1].len() {
                40 => Err(CommandError::new(
                    "Please use EVAL instead of EVALSHA for debugging",
                )),
                _ => Ok(false),
            };
        }
        if self.transaction.is_some() {
            return Err(CommandError::new(
                "a script cannot be debugged inside a transaction",
            ));
        }
        Ok(true)
    }

    /// Serves the client until the script has ended. Its reply is in `out` then.
    pub(super) async fn debug_script(&mut self, socket: &mut Socket, call: Call) -> io::Result<()> {
        self.write(socket).await?;
        let (input, lines) = channel(PIECES);
        let (shown, output) = unbounded_channel();
        let line = Line {
            input: lines,
            output: shown,
        };
        let is_forked = self.debugging == Debugging::Forked;
        let run = DebugRun {
            call,
            keyspaces: Vec::new(),
            copy: None,
            settings: self.thread.world.block_context().settings,
            actor: client_actor(&self.thread.world),
            caller: self.caller.clone(),
            user: self.user.clone(),
            protocol: self.out.protocol(),
            is_journaling: false,
        };
        let thread = self.thread.clone();
        let task = tokio::task::spawn_local(async move {
            match is_forked {
                true => on_copy(&thread, run, line).await,
                false => on_dataset(&thread, run, line).await,
            }
        });
        let carried = carry(socket, input, output).await;
        self.is_closing = true;
        carried?;
        match task.await {
            Ok(Ok(reply)) => self.out.raw(&reply),
            Ok(Err(why)) => {
                let text = format!("ERR Fork() failed: can't run EVAL in debugging mode: {why}");
                self.out.error(&text);
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// Carries bytes both ways until the script has ended. An error: the client has gone.
async fn carry(
    socket: &mut Socket,
    input: Sender<Vec<u8>>,
    mut output: UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    let mut piece = vec![0; READ_BYTES];
    let mut input = Some(input);
    loop {
        let read = async {
            let Some(input) = &input else {
                return std::future::pending().await;
            };
            // What the script has no room for stays with the client.
            let Ok(room) = input.reserve().await else {
                return std::future::pending().await;
            };
            let read = socket.read(&mut piece).await?;
            if read > 0 {
                room.send(piece[..read].to_vec());
            }
            io::Result::Ok(read)
        };
        tokio::select! {
            biased;
            shown = output.recv() => {
                let Some(bytes) = shown else {
                    return Ok(());
                };
                let written = tokio::time::timeout(WRITE_TIME, async {
                    socket.write_all(&bytes).await?;
                    socket.flush().await
                });
                written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
            read = read => {
                if read? == 0 {
                    // It says no more, but may still listen.
                    input = None;
                }
            }
        }
    }
}

/// A thread for one script, which waits for it. Dropped before, it ends.
struct ScriptThread {
    start: oneshot::Sender<(DebugRun, Line)>,
    end: oneshot::Receiver<DebugEnd>,
}

impl ScriptThread {
    /// The error is for the client: the system may have no thread to give.
    fn start(world: &Arc<World>, is_forked: bool) -> Result<ScriptThread, String> {
        let (start, started) = oneshot::channel::<(DebugRun, Line)>();
        let (sender, end) = oneshot::channel();
        let world = world.clone();
        std::thread::Builder::new()
            .name("debugger".into())
            .stack_size(crate::shard::STACK_BYTES)
            .spawn(move || {
                crate::memory::count_this_thread();
                if let Ok((run, line)) = started.blocking_recv() {
                    scripts::enter(world, is_forked);
                    if is_forked {
                        // So that what it has is known.
                        crate::keyspace::release::drop_here();
                    }
                    let _ = sender.send(run.run(line));
                }
            })
            .map_err(|error| format!("no thread for the script: {error}"))?;
        Ok(ScriptThread { start, end })
    }

    async fn run(self, run: DebugRun, line: Line) -> DebugEnd {
        // It waits for this alone.
        let _ = self.start.send((run, line));
        self.end
            .await
            .expect("the thread answers, or the process has panicked")
    }
}

/// SCRIPT DEBUG YES. The script sees the dataset as it is now, whatever others do, and others nothing of it.
async fn on_copy(thread: &Thread, run: DebugRun, line: Line) -> Result<Vec<u8>, String> {
    let _fork = Fork::new()?;
    let world = &thread.world;
    tracing::warn!(client = run.caller.id, "Redis forked for debugging eval");
    let settings = Arc::new(Settings {
        shards: 1,
        // Nobody listens there.
        hub: Arc::default(),
        recorder: Arc::default(),
        save_after_flush: None,
        ..Settings::clone(&run.settings)
    });
    let copied = copy(&thread.coordinator, world.snapshot_plan(), settings.clone()).await?;
    if line.output.is_closed() {
        return Err("the client has gone".into());
    }
    let script = ScriptThread::start(world, true)?;
    let run = DebugRun {
        keyspaces: vec![copied.keyspace],
        copy: Some(copied.memory),
        settings,
        ..run
    };
    let end = script.run(run, line).await;
    crate::keyspace::release::drop_later((end.keyspaces, end.memory));
    tracing::warn!("Lua debugging session child exiting");
    Ok(end.reply)
}

/// SCRIPT DEBUG SYNC. The script has all shards, and what it does is done.
async fn on_dataset(thread: &Thread, run: DebugRun, line: Line) -> Result<Vec<u8>, String> {
    let world = &thread.world;
    // Before anything is taken from the shards.
    let script = ScriptThread::start(world, false)?;
    let coordinator = &thread.coordinator;
    let is_client = run.actor == Actor::Client;
    let (reply, stats) = coordinator
        .global_elsewhere(async |keyspaces: Keyspaces| {
            tracing::warn!(
                client = run.caller.id,
                "Redis synchronous debugging eval session started"
            );
            let run = DebugRun {
                keyspaces,
                is_journaling: is_client && world.journal.is_active(),
                ..run
            };
            let mut end = script.run(run, line).await;
            end.keyspaces[0].stats.changes += end.commit.changes;
            if !end.commit.effects.is_empty() {
                let seq = world.journal.next();
                let records = Records::of_effects(seq, &end.commit.effects);
                world.journal.post(records);
            }
            tracing::warn!("Redis synchronous debugging eval session ended");
            ((end.reply, end.stats), end.commit.touched, end.keyspaces)
        })
        .await;
    coordinator
        .here()
        .tell(0, move |shard| shard.stats.add(&stats));
    Ok(reply)
}
