//! KEYS where there are many keys: their names at a cut, while everybody else goes on.

use std::time::Instant;

use super::connection::Connection;
use crate::clock::now_ms;
use crate::command::call::Words;
use crate::command::{Command, CommandError};
use crate::snapshot::names::{self, Wanted};

impl Connection {
    /// Whether this is KEYS, and there are so many that it had better hold up nobody.
    pub(super) fn wants_many_names(&self, command: &Command) -> bool {
        command.name == "keys" && names::is_worth_a_cut(&self.thread.shard.borrow(), self.db)
    }

    /// Replies with the keys that match. The walk goes on if the client leaves: a cut that was taken comes to its end.
    pub(super) async fn collect_names(&mut self, command: &'static Command, words: Words) {
        let started = Instant::now();
        let wanted = Wanted {
            db: self.db,
            pattern: words.iter().nth(1).unwrap_or_default().to_vec(),
            now_ms: now_ms(),
        };
        let coordinator = self.thread.coordinator.clone();
        let walk =
            tokio::task::spawn_local(async move { names::collect(&coordinator, wanted).await });
        let error = match walk.await {
            Ok(Ok((count, names))) => {
                self.out.array(count);
                self.out.raw(&names);
                None
            }
            Ok(Err(aborted)) => {
                let error = CommandError::new(aborted.to_string());
                self.out.error(&error.0);
                Some(error)
            }
            Err(_) => {
                self.is_closing = true;
                return;
            }
        };
        let nanos = started.elapsed().as_nanos() as u64;
        self.note_session(command, &words, nanos, error);
    }
}
