//! Commands about keys of any type.

use super::{Args, Command, CommandResult, Effect, Exec, Flags, Group, KeySpec, Merge, Run};

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: -2,
        flags: Flags::WRITE,
        keys: KeySpec::ALL,
        run: Run::Split {
            handler: del,
            stride: 1,
            merge: Merge::Sum,
        },
        group: Group::Generic,
        since: "1.0.0",
        summary: "Removes keys.",
    },
    Command {
        name: "rename",
        arity: 3,
        flags: Flags::WRITE,
        keys: KeySpec::TWO,
        run: Run::Keys(rename),
        group: Group::Generic,
        since: "1.0.0",
        summary: "Gives a key another name, replacing what has it.",
    },
];

fn del(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let removed = args[1..]
        .iter()
        .filter(|key| exec.remove(key).is_some())
        .count();
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(removed > 0))
}

fn rename(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    if exec.peek(from).is_none() {
        return Err(super::CommandError::NO_SUCH_KEY);
    }
    if from != to {
        let entry = exec.remove(from).expect("it is there");
        let expire_at_ms = entry.expire_at_ms();
        exec.set(to, entry.into_value())
            .set_expire_at_ms(expire_at_ms);
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}
