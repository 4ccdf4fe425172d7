//! MEMORY USAGE: what a key costs. The other subcommands are about the server: `net::memory`.

use super::words::is;
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Run, Session,
};
use crate::keyspace::value::canonical_i64;

const KEY_OF_USAGE: KeySpec = KeySpec::Custom(|args, positions| {
    if args.len() > 2 && is(args[1], "usage") {
        positions.push(2);
    }
});

/// The rows.
pub const COMMANDS: &[Command] = &[Command {
    name: "memory",
    arity: -2,
    flags: Flags::CONTAINER,
    keys: KEY_OF_USAGE,
    run: Run::Session(Session::Memory),
    group: Group::Server,
    since: "4.0.0",
    summary: "Tells what memory is used for.",
}];

/// Runs MEMORY USAGE where the key is.
pub static USAGE: Command = Command {
    flags: Flags::READONLY,
    run: Run::Keys(usage),
    ..COMMANDS[0]
};

fn usage(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let [_, _, key, options @ ..] = args else {
        return Err(CommandError::wrong_arity("memory|usage"));
    };
    match options {
        [] => {}
        // Sizes here are kept, not sampled: the number changes nothing, but must be one.
        [name, count] if is(name, "samples") => {
            if canonical_i64(count).ok_or(CommandError::NOT_INTEGER)? < 0 {
                return Err(CommandError::SYNTAX);
            }
        }
        _ => return Err(CommandError::SYNTAX),
    }
    match exec.peek(key).map(|entry| entry.memory_bytes()) {
        Some(bytes) => exec.reply.int(bytes as i64),
        None => exec.reply.null(),
    }
    Ok(Effect::None)
}
