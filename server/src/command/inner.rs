//! Commands of connections, where they stand in a transaction or in a script.
//!
//! By itself such a command is run by its connection, which may wait for other threads. Between the commands of a transaction
//! nothing waits: there it runs in its place, on the thread and with the clock of the whole. What cannot is left to the connection, which
//! runs it behind the writes.

use std::sync::LazyLock;

use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Run, Session};
use crate::command::script::{Within, functions};
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
        Session::Info => WITH_EVERYTHING.get(session),
        Session::Debug if is(word, "sleep") || is(word, "digest") => WITH_EVERYTHING.get(session),
        Session::Debug if is(word, "protocol") || is(word, "error") => IN_PLACE.get(session),
        Session::Config if is_plain_config(words) => IN_PLACE.get(session),
        Session::Client if CLIENT_IN_PLACE.iter().any(|name| is(word, name)) => {
            IN_PLACE.get(session)
        }
        Session::Command
        | Session::Echo
        | Session::Lastsave
        | Session::Role
        | Session::ClusterMode
        | Session::Time => IN_PLACE.get(session),
        _ => None,
    }
}

/// Subcommands of CLIENT that need neither the connection nor another thread.
const CLIENT_IN_PLACE: [&str; 11] = [
    "getname", "help", "id", "info", "kill", "list", "no-evict", "pause", "setinfo", "setname",
    "unblock",
];

/// Settings that take effect by waiting for something, and those whose values must not be seen.
const CONFIG_BEHIND: [&str; 8] = [
    "aclfile",
    "bind",
    "dir",
    "masterauth",
    "masteruser",
    "port",
    "requirepass",
    "unixsocket",
];

/// Whether a CONFIG neither waits nor has anything to hide.
fn is_plain_config(words: Args<'_>) -> bool {
    let name = |word: &[u8]| String::from_utf8_lossy(word).to_lowercase();
    let is_plain = |word: &[u8]| {
        let name = name(word);
        !name.starts_with("tls-") && !CONFIG_BEHIND.contains(&name.as_str())
    };
    match name(words.get(1).copied().unwrap_or_default()).as_str() {
        "get" | "help" | "resetstat" => true,
        "set" => words[2..].iter().step_by(2).all(|word| is_plain(word)),
        _ => false,
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

/// On the shard where the others run.
static IN_PLACE: LazyLock<Rows> = LazyLock::new(|| rows(Run::Keys(run)));

/// With the keyspaces of all shards.
static WITH_EVERYTHING: LazyLock<Rows> = LazyLock::new(|| rows(Run::Global(run)));

fn rows(run: Run) -> Rows {
    let rows = super::session::COMMANDS.iter().filter_map(|row| {
        let Run::Session(session) = row.run else {
            return None;
        };
        Some((session, Command { run, ..*row }))
    });
    Rows(rows.collect())
}

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
            let client_id = exec.client_id;
            let (keyspaces, reply) = exec.parts();
            let within = Within {
                client_id,
                keyspaces,
                reply,
            };
            runner(session, args, within)?;
        }
    }
    Ok(Effect::None)
}
