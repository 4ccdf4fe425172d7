//! A connection whose client is blocked: it waits for the end of the wait, for its time to be over, or for the client to go.
//!
//! What the client sends meanwhile is read and kept, so that its going is noticed; it runs when the wait is over.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use super::socket::Socket;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, query_limit};
use super::thread::client_actor;
use crate::command::blocking::{AfterError, Attempted, Blocked, End, attempt};
use crate::command::call::{Call, Obstacle, Words, obstacle};
use crate::command::{Command, CommandError, Flags};

/// Longer than any connection lives.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

impl Connection {
    /// Runs a command that may block. If it does, `self.blocked` is set.
    pub(super) async fn run_blocking(&mut self, call: Call) {
        let coordinator = self.thread.coordinator.clone();
        let actor = client_actor(&self.thread.world);
        let protocol = self.out.protocol();
        if self.is_at_hand(&call) {
            // It is done at once: nobody's command comes in between.
            let caller = self.caller.clone();
            match attempt(coordinator, call, actor, caller, protocol).await {
                Attempted::Replied(reply) => self.out.raw(&reply),
                Attempted::Waits(blocked) => self.blocked = Some(blocked),
            }
            return;
        }
        // In a task of its own: what has been scheduled must finish, whatever becomes of the client.
        let task = tokio::task::spawn_local(attempt(
            coordinator,
            call,
            actor,
            self.caller.clone(),
            protocol,
        ));
        match task.await {
            Ok(Attempted::Replied(reply)) => self.out.raw(&reply),
            Ok(Attempted::Waits(blocked)) => self.blocked = Some(blocked),
            Err(_) => self.is_closing = true,
        }
    }

    /// Whether all keys of a call are on this thread's shard, and free.
    fn is_at_hand(&self, call: &Call) -> bool {
        call.words.with(|words| {
            let shard = self.thread.shard.borrow();
            self.home(call.command, words) == Some(shard.index)
                && obstacle(&shard, call.command, call.db, words) == Obstacle::None
        })
    }

    /// Waits until the client is no longer blocked; its reply is in `out` then. What it sends meanwhile goes to `buffer`.
    pub(super) async fn wait_blocked(
        &mut self,
        socket: &mut Socket,
        buffer: &mut Vec<u8>,
        (command, words): (&'static Command, &Words),
        blocked: Blocked,
    ) -> io::Result<()> {
        self.write(socket).await?;
        let _registered = Registered::new(self, &blocked);
        let timeout = match blocked.timeout_ms {
            0 => FOR_EVER,
            ms => Duration::from_millis(ms).min(FOR_EVER),
        };
        let deadline = Instant::now() + timeout;
        let mut blocked = Some(blocked);
        while let Some(current) = &mut blocked {
            tokio::select! {
                biased;
                end = &mut current.end => match end {
                    Ok(End::Retry) => blocked = self.retry(blocked).await,
                    Ok(end) => {
                        self.reply_end(command, end);
                        self.log_wait(command, words);
                        return Ok(());
                    }
                    Err(_) => {
                        self.is_closing = true;
                        return Ok(());
                    }
                },
                () = sleep_until(deadline) => {
                    if current.cancel() {
                        self.time_out(command);
                        self.log_wait(command, words);
                        return Ok(());
                    }
                    // Served at the last moment: the answer is on its way.
                    if let Ok(end) = (&mut current.end).await {
                        match end {
                            End::Retry => blocked = self.retry(blocked).await,
                            end => {
                                self.reply_end(command, end);
                                self.log_wait(command, words);
                                return Ok(());
                            }
                        }
                    }
                }
                () = self.client.outbox.filled.notified() => self.write_pushes(socket).await?,
                read = socket.read_buf(buffer) => {
                    let is_too_much = buffer.len() > query_limit(&self.thread.world.config());
                    if read? == 0 || is_too_much {
                        self.is_closing = true;
                        return Ok(());
                    }
                }
            }
        }
        self.log_wait(command, words);
        Ok(())
    }

    /// Takes what is wanted by a transaction of its own; the wait, if it goes on.
    async fn retry(&mut self, blocked: Option<Blocked>) -> Option<Blocked> {
        let mut blocked = blocked?;
        let task = tokio::task::spawn_local(async move {
            let reply = blocked.retry().await;
            (reply, blocked)
        });
        match task.await {
            Ok((None, blocked)) => return Some(blocked),
            Ok((Some(reply), _)) => self.out.raw(&reply),
            Err(_) => self.is_closing = true,
        }
        None
    }

    /// The wait does not count as time that the command took, but it ran.
    fn log_wait(&self, command: &Command, words: &Words) {
        let recorder = self.thread.world.recorder.clone();
        let is_fast = command.flags.has(Flags::FAST);
        words.with(|words| recorder.ran(words, 0, self.client.id, is_fast));
    }

    /// Nothing came: that counts as a run too.
    fn time_out(&mut self, command: &Command) {
        let mut shard = self.thread.shard.borrow_mut();
        shard.stats.ran(command.name, 0, false, false);
        drop(shard);
        self.out.null_array();
    }

    fn reply_end(&mut self, command: &Command, end: End) {
        match end {
            End::Served(reply) => self.out.raw(&reply),
            End::TimedOut => self.time_out(command),
            End::Error(CommandError(text), after) => {
                let mut shard = self.thread.shard.borrow_mut();
                shard.stats.error(&text);
                shard.stats.ran(command.name, 0, true, false);
                drop(shard);
                self.out.error(&text);
                self.is_closing |= after == AfterError::Closes;
            }
            End::Retry => unreachable!("a retry is no end"),
        }
    }
}

/// Makes the wait known to CLIENT UNBLOCK and INFO while it lasts.
struct Registered {
    client: std::sync::Arc<crate::world::Client>,
}

impl Registered {
    fn new(connection: &Connection, blocked: &Blocked) -> Registered {
        let client = connection.client.clone();
        *client.waiter.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(blocked.waiter.clone());
        Registered { client }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        *self
            .client
            .waiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}
