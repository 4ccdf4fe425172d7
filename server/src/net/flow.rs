//! What holds back a connection's commands or replies: CLIENT PAUSE, CLIENT REPLY.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::connection::{Connection, query_limit};
use super::socket::Socket;
use super::transaction::Transaction;
use crate::clock::now_ms;
use crate::command::call::Words;
use crate::command::script::may_replicate;
use crate::command::{Command, CommandError, Run, Session};
use crate::keyspace::value::canonical_i64;
use crate::world::{Pause, World};

/// Whether replies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// Not the reply to the next command.
    SkipsNext,
}

impl Connection {
    /// CLIENT REPLY.
    pub(super) fn set_reply_mode(&mut self, word: &[u8]) -> Result<(), CommandError> {
        match word.to_ascii_lowercase().as_slice() {
            b"on" => {
                self.reply_mode = ReplyMode::On;
                self.is_muted = false;
                self.out.ok();
            }
            b"off" => self.reply_mode = ReplyMode::Off,
            b"skip" => {
                if self.reply_mode == ReplyMode::On {
                    self.reply_mode = ReplyMode::SkipsNext;
                }
            }
            _ => return Err(CommandError::SYNTAX),
        }
        Ok(())
    }

    /// A command begins: whether its reply is written.
    pub(super) fn begin_reply(&mut self) {
        self.is_muted = self.reply_mode != ReplyMode::On;
        if self.reply_mode == ReplyMode::SkipsNext {
            self.reply_mode = ReplyMode::On;
        }
    }

    /// Whether a command must wait for the end of a pause.
    #[inline]
    pub(super) fn is_postponed(&self, command: &Command, words: &[&[u8]]) -> bool {
        let is_paused = self.thread.world.hub.is_paused.load(Ordering::Relaxed);
        is_paused && self.pause_for(command, words).is_some()
    }

    /// The pause that a command must wait for.
    fn pause_for(&self, command: &Command, words: &[&[u8]]) -> Option<Pause> {
        let pause = self.thread.world.pause()?;
        let is_writing = may_replicate(command, words)
            || matches!(command.run, Run::Session(Session::Exec))
                && (self.transaction.as_ref()).is_some_and(Transaction::may_replicate);
        (pause.is_all || is_writing).then_some(pause)
    }

    /// Waits until no pause is in a command's way. What the client sends meanwhile goes to `buffer`.
    pub(super) async fn wait_paused(
        &mut self,
        command: &'static Command,
        words: &Words,
        socket: &mut Socket,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let world = self.thread.world.clone();
        let words: Vec<&[u8]> = words.iter().collect();
        if self.pause_for(command, &words).is_none() {
            return Ok(());
        }
        self.write(socket).await?;
        self.client.is_postponed.store(true, Ordering::Relaxed);
        let postponed = Postponed(self.client.clone());
        loop {
            let changed = world.pause_changed.notified();
            let Some(pause) = self.pause_for(command, &words) else {
                break;
            };
            let left = Duration::from_millis((pause.until_ms - now_ms()).max(1) as u64);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left) => {}
                read = socket.read_buf(buffer) => {
                    if read? == 0 || buffer.len() > query_limit(&world.config()) {
                        self.is_closing = true;
                        break;
                    }
                }
            }
        }
        drop(postponed);
        Ok(())
    }
}

/// CLIENT PAUSE.
pub(super) fn pause_clients(world: &World, args: &[&[u8]]) -> Result<(), CommandError> {
    let is_all = match args.get(1) {
        None => true,
        Some(word) if word.eq_ignore_ascii_case(b"all") => true,
        Some(word) if word.eq_ignore_ascii_case(b"write") => false,
        Some(_) => {
            return Err(CommandError::text(
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ));
        }
    };
    let ms = canonical_i64(args[0]).ok_or(CommandError::text(
        "ERR timeout is not an integer or out of range",
    ))?;
    if ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    let until_ms = now_ms().saturating_add(ms);
    world.change_pause(|pause| {
        *pause = match *pause {
            // The longer and the stricter one counts.
            Some(old) if old.until_ms > now_ms() => Some(Pause {
                until_ms: old.until_ms.max(until_ms),
                is_all: is_all || old.is_all,
            }),
            _ => Some(Pause { until_ms, is_all }),
        }
    });
    Ok(())
}

/// Shown as blocked while it lasts.
struct Postponed(Arc<crate::world::Client>);

impl Drop for Postponed {
    fn drop(&mut self) {
        self.0.is_postponed.store(false, Ordering::Relaxed);
    }
}
