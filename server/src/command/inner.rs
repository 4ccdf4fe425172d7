//! Commands of connections, where they stand in a transaction or in a script.
//!
//! By itself such a command is run by its connection, which may wait for other threads. Between the commands of a transaction
//! nothing waits: there it runs in its place, on the thread and with the clock of the whole. What cannot is left to the connection, which
//! runs it behind the writes.

use std::sync::LazyLock;

use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Run, Session};
use crate::command::script::functions;
use crate::command::words::is;

/// The row to run in place of a connection's command; `None` if only the connection can.
pub fn row(command: &'static Command, words: Args<'_>) -> Option<&'static Command> {
    let Run::Session(session) = command.run else {
        return None;
    };
    let word = words.get(1).copied().unwrap_or_default();
    match session {
        Session::Function if functions::is_change(words) => Some(&functions::CHANGE),
        Session::Memory if is(word, "usage") => Some(&super::memory::USAGE),
        Session::Script if !is(word, "kill") => IN_PLACE.get(session),
        Session::Command
        | Session::Echo
        | Session::Lastsave
        | Session::Role
        | Session::ClusterMode
        | Session::Time => IN_PLACE.get(session),
        _ => None,
    }
}

/// Rows of such commands, with the handler that runs them in their place.
struct Rows(Vec<(Session, Command)>);

impl Rows {
    fn get(&'static self, session: Session) -> Option<&'static Command> {
        let found = self.0.iter().find(|(known, _)| *known == session);
        found.map(|(_, row)| row)
    }
}

static IN_PLACE: LazyLock<Rows> = LazyLock::new(|| {
    let rows = super::session::COMMANDS.iter().filter_map(|row| {
        let Run::Session(session) = row.run else {
            return None;
        };
        let run = Run::Keys(run);
        Some((session, Command { run, ..*row }))
    });
    Rows(rows.collect())
});

fn run(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let row = super::table::find(args[0]);
    let Some(Run::Session(session)) = row.map(|row| row.run) else {
        return Err(CommandError::SYNTAX);
    };
    match session {
        Session::Echo => exec.reply.bulk(args[1]),
        Session::Time => {
            // As the clock stands for the transaction: it does not go on between two of its commands.
            let now_ms = exec.now_ms;
            exec.reply.array(2);
            exec.reply.bulk((now_ms / 1000).to_string().as_bytes());
            exec.reply
                .bulk((now_ms % 1000 * 1000).to_string().as_bytes());
        }
        Session::Script => super::script::script(args, exec.reply)?,
        session => {
            let runner = super::script::session_runner().ok_or(CommandError::SYNTAX)?;
            runner(session, args, exec.db, exec.reply)?;
        }
    }
    Ok(Effect::None)
}
