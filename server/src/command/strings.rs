//! Strings.

use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Merge, Run,
};
use crate::keyspace::value::Value;

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "get",
        arity: 2,
        flags: Flags::READONLY.with(Flags::FAST),
        keys: KeySpec::ONE,
        run: Run::Keys(get),
        group: Group::String,
        since: "1.0.0",
        summary: "The value of a string.",
    },
    Command {
        name: "mget",
        arity: -2,
        flags: Flags::READONLY.with(Flags::FAST),
        keys: KeySpec::ALL,
        run: Run::Split {
            handler: mget,
            stride: 1,
            merge: Merge::Elements,
        },
        group: Group::String,
        since: "1.0.0",
        summary: "The values of several strings.",
    },
    Command {
        name: "mset",
        arity: -3,
        flags: Flags::WRITE.with(Flags::DENYOOM),
        keys: KeySpec::Range {
            first: 1,
            last: -1,
            step: 2,
        },
        run: Run::Split {
            handler: mset,
            stride: 2,
            merge: Merge::Ok,
        },
        group: Group::String,
        since: "1.0.1",
        summary: "Sets several strings at once.",
    },
];

fn get(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (entry, reply) = exec.read_with_reply(args[1]);
    match entry.map(|entry| entry.value()) {
        None => reply.null(),
        Some(Value::Int(number)) => reply.bulk_int(*number),
        Some(value) => reply.bulk(&value.as_string().ok_or(CommandError::WRONG_TYPE)?),
    }
    Ok(Effect::None)
}

fn mget(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    exec.reply.array(args.len() - 1);
    for key in &args[1..] {
        match exec
            .read(key)
            .and_then(|entry| entry.value().as_string().map(|bytes| bytes.into_owned()))
        {
            Some(bytes) => exec.reply.bulk(&bytes),
            None => exec.reply.null(),
        }
    }
    Ok(Effect::None)
}

fn mset(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("mset"));
    }
    for pair in args[1..].chunks_exact(2) {
        exec.set(pair[0], Value::string(pair[1]));
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}
