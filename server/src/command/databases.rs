//! Commands about whole databases.

use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Run};
use crate::keyspace::DbIndex;
use crate::keyspace::value::canonical_i64;

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "dbsize",
        arity: 1,
        flags: Flags::READONLY.with(Flags::FAST),
        keys: KeySpec::None,
        run: Run::Global(dbsize),
        group: Group::Server,
        since: "1.0.0",
        summary: "Number of keys of the selected database.",
    },
    Command {
        name: "flushall",
        arity: -1,
        flags: Flags::WRITE,
        keys: KeySpec::None,
        run: Run::Global(flushall),
        group: Group::Server,
        since: "1.0.0",
        summary: "Removes all keys of all databases.",
    },
    Command {
        name: "flushdb",
        arity: -1,
        flags: Flags::WRITE,
        keys: KeySpec::None,
        run: Run::Global(flushdb),
        group: Group::Server,
        since: "1.0.0",
        summary: "Removes all keys of the selected database.",
    },
    Command {
        name: "swapdb",
        arity: 3,
        flags: Flags::WRITE.with(Flags::FAST),
        keys: KeySpec::None,
        run: Run::Global(swapdb),
        group: Group::Server,
        since: "4.0.0",
        summary: "Exchanges two databases.",
    },
];

fn dbsize(exec: &mut Exec<'_>, _: Args<'_>) -> CommandResult {
    let db = exec.db;
    let size: usize = exec
        .keyspaces()
        .iter()
        .map(|keyspace| keyspace.database(db).entries().len())
        .sum();
    exec.reply.int(size as i64);
    Ok(Effect::None)
}

/// Refuses anything but SYNC or ASYNC after FLUSHALL and FLUSHDB. Both free off the shard's thread.
fn check_flush_words(args: Args<'_>) -> Result<(), CommandError> {
    match args {
        [_] => Ok(()),
        [_, word] if word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async") => {
            Ok(())
        }
        _ => Err(CommandError::SYNTAX),
    }
}

fn flushall(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    check_flush_words(args)?;
    for db in 0..exec.database_count() {
        exec.flush(DbIndex(db));
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

fn flushdb(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    check_flush_words(args)?;
    exec.flush(exec.db);
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

fn swapdb(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let count = exec.database_count();
    let index = |word: &[u8], what: &str| {
        let number = canonical_i64(word)
            .ok_or_else(|| CommandError::new(format!("invalid {what} DB index")))?;
        u32::try_from(number)
            .ok()
            .filter(|&n| n < count)
            .map(DbIndex)
            .ok_or(CommandError::DB_INDEX)
    };
    let (first, second) = (index(args[1], "first")?, index(args[2], "second")?);
    for keyspace in exec.keyspaces() {
        keyspace.swap(first, second);
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}
