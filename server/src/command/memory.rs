//! MEMORY: what a key costs.

use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Run};
use crate::keyspace::value::canonical_i64;

/// The rows.
pub const COMMANDS: &[Command] = &[Command {
    name: "memory",
    arity: -2,
    flags: Flags::READONLY.with(Flags::MOVABLEKEYS),
    keys: KeySpec::Custom(|args, positions| {
        if args.len() > 2 && args[1].eq_ignore_ascii_case(b"usage") {
            positions.push(2);
        }
    }),
    run: Run::Keys(memory),
    group: Group::Server,
    since: "4.0.0",
    summary: "Tells what memory is used for.",
}];

fn memory(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"usage", [key, options @ ..]) => {
            match options {
                [] => {}
                // Sizes here are kept, not sampled: the number changes nothing, but must be one.
                [name, count] if name.eq_ignore_ascii_case(b"samples") => {
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
        }
        (b"usage", _) => return Err(CommandError::wrong_arity("memory|usage")),
        _ => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try MEMORY HELP."
            )));
        }
    }
    Ok(Effect::None)
}
