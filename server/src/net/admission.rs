//! What is asked of a request before it runs or is queued: does the command exist, may this client give it, and may it run now.
//!
//! `connection` asks once for each request, in Redis' order, so that of several reasons for a refusal the same one is told. What
//! a transaction asks again at EXEC, and a script for what it calls, is here too.

use std::sync::atomic::Ordering;

use super::connection::Connection;
use super::transaction::Transaction;
use crate::command::runner::{LOADING, MASTER_DOWN, READ_ONLY};
use crate::command::{Command, CommandError, Flags, Group, Run, Session, table};
use crate::command::{reference, script, slots};
use crate::world::World;

/// Why a request does not run.
pub(super) struct Refusal {
    /// The command, if there is one of that name.
    pub command: Option<&'static Command>,
    /// What the client is told.
    pub error: CommandError,
}

impl Connection {
    /// The command of a request, if it may run at all now.
    #[inline]
    pub(super) fn check(&mut self, words: &[&[u8]]) -> Result<&'static Command, Refusal> {
        let command = table::find(words[0]).ok_or_else(|| Refusal {
            command: None,
            error: unknown_command(words),
        })?;
        if command.flags.has(Flags::CONTAINER)
            && let Err(error) = reference::check_subcommand(command.name, words)
        {
            return Err(Refusal {
                command: None,
                error,
            });
        }
        match self.check_known(command, words) {
            Ok(()) => Ok(command),
            Err(error) => Err(Refusal {
                command: Some(command),
                error,
            }),
        }
    }

    #[inline]
    fn check_known(
        &mut self,
        command: &'static Command,
        words: &[&[u8]],
    ) -> Result<(), CommandError> {
        if !command.arity_fits(words.len()) {
            return Err(command.wrong_arity());
        }
        if !self.is_authenticated && !command.flags.has(Flags::NO_AUTH) {
            return Err(CommandError::text("NOAUTH Authentication required."));
        }
        if !command.flags.has(Flags::NO_AUTH) {
            self.check_user(command, words)?;
        }
        if let Some(text) = script::running::busy()
            && !is_allowed_when_busy(command, words)
        {
            return Err(CommandError::text(text));
        }
        let world = &self.thread.world;
        // On a replica, what is no write by its name is looked at too.
        if command.is_write()
            || world.is_replica.load(Ordering::Relaxed) && script::may_write(command, words)
        {
            self.check_write()?;
        }
        if world.is_stale.load(Ordering::Relaxed) && !script::allows_stale(command, words) {
            return Err(MASTER_DOWN);
        }
        if must_wait_for_load(world, command) {
            return Err(LOADING);
        }
        self.client
            .last_command
            .store(std::ptr::from_ref(command).addr(), Ordering::Relaxed);
        if self.is_cluster {
            slots::check(command, words)?;
        }
        if let Some(error) = self.refuses_in_subscriber_mode(command) {
            return Err(error);
        }
        if self.transaction.is_some() && Transaction::is_refused(command) {
            return Err(CommandError::new(
                "Command not allowed inside a transaction",
            ));
        }
        Ok(())
    }

    /// Whether a client may write now.
    pub(super) fn check_write(&self) -> Result<(), CommandError> {
        let world = &self.thread.world;
        if world.is_replica.load(Ordering::Relaxed) && world.config().replica_read_only {
            return Err(READ_ONLY);
        }
        if world.refuses_writes.load(Ordering::Relaxed) {
            return Err(MISCONF);
        }
        if world.lacks_replicas.load(Ordering::Relaxed) {
            return Err(NO_REPLICAS);
        }
        Ok(())
    }
}

/// Whether a dataset is loaded, and the command has to wait for it.
#[inline]
pub(super) fn must_wait_for_load(world: &World, command: &Command) -> bool {
    world.is_loading.load(Ordering::Relaxed) && !command.flags.has(Flags::LOADING)
        || command.flags.has(Flags::NO_ASYNC_LOADING)
            && world.is_loading_successor.load(Ordering::Relaxed)
}

/// Whether a dataset is loaded, in place of the one that is served or beside it.
pub(super) fn is_loading(world: &World) -> bool {
    world.is_loading.load(Ordering::Relaxed) || world.is_loading_successor.load(Ordering::Relaxed)
}

/// Whether a command may run while a script is overdue.
pub(super) fn is_allowed_when_busy(command: &Command, words: &[&[u8]]) -> bool {
    let word = words.get(1).copied().unwrap_or_default();
    match command.run {
        Run::Session(Session::Script) => word.eq_ignore_ascii_case(b"kill"),
        Run::Session(Session::Function) => {
            word.eq_ignore_ascii_case(b"kill") || word.eq_ignore_ascii_case(b"stats")
        }
        Run::Session(Session::Shutdown) => word.eq_ignore_ascii_case(b"nosave"),
        Run::Session(session) => matches!(
            session,
            Session::Auth
                | Session::Hello
                | Session::Reset
                | Session::Quit
                | Session::Multi
                | Session::Discard
                | Session::Watch
                | Session::Unwatch
                | Session::Replconf
        ),
        _ => false,
    }
}

/// Whether a command may have to wait for a key: XREAD and XREADGROUP only if they say so.
pub(super) fn may_block(command: &Command, words: &[&[u8]]) -> bool {
    command.flags.has(Flags::BLOCKING)
        && (command.group != Group::Stream
            || words.iter().any(|word| word.eq_ignore_ascii_case(b"block")))
}

/// The refusal of writes after a failed save.
pub const NO_REPLICAS: CommandError =
    CommandError::text("NOREPLICAS Not enough good replicas to write.");

/// What a write gets after a save failed.
pub const MISCONF: CommandError = CommandError::text(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may \
     modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
     snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.",
);

/// Redis' text for a command that it does not know: the name, and the first words up to 128 bytes.
fn unknown_command(words: &[&[u8]]) -> CommandError {
    let mut args = String::new();
    for word in &words[1..] {
        if args.len() >= 128 {
            break;
        }
        let room = 128 - args.len();
        let shown = String::from_utf8_lossy(&word[..word.len().min(room)]).into_owned();
        args.push_str(&format!("'{shown}' "));
    }
    let name = String::from_utf8_lossy(&words[0][..words[0].len().min(128)]);
    CommandError::new(format!(
        "unknown command '{name}', with args beginning with: {args}"
    ))
}
