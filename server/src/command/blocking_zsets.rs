//! Sorted set commands that wait for a member.

use super::blocking::{Wait, Wants, timeout_ms};
use super::blocking_lists::{owned, wait_keys};
use super::collection::peek;
use super::words::counted_keys;
use super::zsets::{take, zmpop};
use super::{Args, Command, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::zset::ZSet;

const ALL_BUT_LAST: KeySpec = KeySpec::Range {
    first: 1,
    last: -2,
    step: 1,
};
const MPOP: KeySpec = KeySpec::Counted {
    dest: None,
    count: 2,
};
const BLOCKING: Flags = Flags::WRITE.with(Flags::BLOCKING);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("bzmpop", -5, BLOCKING.with(Flags::MOVABLEKEYS), MPOP, bzmpop)
        .about(Group::SortedSet, "7.0.0", "ZMPOP that waits for a member."),
    Command::keyed("bzpopmax", -3, BLOCKING.with(Flags::FAST), ALL_BUT_LAST, bzpopmax)
        .about(Group::SortedSet, "5.0.0", "ZPOPMAX of the first of several sorted sets that has a member; waits for one."),
    Command::keyed("bzpopmin", -3, BLOCKING.with(Flags::FAST), ALL_BUT_LAST, bzpopmin)
        .about(Group::SortedSet, "5.0.0", "ZPOPMIN of the first of several sorted sets that has a member; waits for one."),
];

fn bzpopmin(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    bzpop(exec, args, false)
}

fn bzpopmax(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    bzpop(exec, args, true)
}

fn bzpop(exec: &mut Exec<'_>, args: Args<'_>, is_max: bool) -> CommandResult {
    let (timeout, keys) = args[1..].split_last().expect("checked by the arity");
    let timeout_ms = timeout_ms(timeout)?;
    for key in keys {
        if peek::<ZSet>(exec, key)?.is_none() {
            continue;
        }
        let taken = take(exec, key, 1, is_max);
        let (member, score) = taken.first().expect("a sorted set has a member");
        exec.reply.array(3);
        exec.reply.bulk(key);
        exec.reply.bulk(member);
        exec.reply.double(*score);
        let name: &[u8] = if is_max { b"ZPOPMAX" } else { b"ZPOPMIN" };
        return Ok(Effect::command(&[name, key]));
    }
    exec.reply.null_array();
    exec.wait = Some(Box::new(Wait {
        timeout_ms,
        wants: Wants::SortedSet,
        keys: wait_keys(keys),
        before: owned(&args[..1]),
        after: owned(&[timeout]),
    }));
    Ok(Effect::None)
}

fn bzmpop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let timeout_ms = timeout_ms(args[1])?;
    let rest = [&args[..1], &args[2..]].concat();
    let effect = zmpop(exec, &rest)?;
    if effect.is_none() {
        let (keys, options) = counted_keys(&rest, 1, "")?;
        exec.wait = Some(Box::new(Wait {
            timeout_ms,
            wants: Wants::SortedSet,
            keys: wait_keys(keys),
            before: owned(&[args[0], args[1], b"1"]),
            after: owned(options),
        }));
    }
    Ok(effect)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_in_transactions_are_those_of_redis() {
        compare_with_redis(
            r#"
            ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g
            SADD s a
            BZPOPMIN none z 0
            BZPOPMAX z none 1.5
            BZPOPMIN z -1
            BZPOPMIN z x
            BZPOPMIN s z 0
            BZMPOP 0 2 none z MIN
            BZMPOP 0 1 z MAX COUNT 2
            BZMPOP x 1 z MIN
            BZMPOP -1 1 z MIN
            BZMPOP 0 0 z MIN
            BZMPOP 0 x z MIN
            BZMPOP 0 1 z FOO
            BZMPOP 0 1 z MIN COUNT 0
            ZRANGE z 0 -1 WITHSCORES
        "#,
        );
    }

    #[test]
    fn effects_are_those_of_the_commands_that_do_not_wait() {
        let mut bench = Bench::new();
        bench.run("ZADD z 1 a 2 b 3 c 4 d 5 e");
        let rows = [
            ("BZPOPMIN none z 0", "ZPOPMIN z"),
            ("BZPOPMAX z 0", "ZPOPMAX z"),
            ("BZPOPMAX none 0", ""),
            ("BZMPOP 0 2 none z MIN COUNT 2", "ZPOPMIN z 2"),
            ("BZMPOP 0 2 none z MAX COUNT 9", "ZPOPMAX z 1"),
            ("BZMPOP 0 2 none z MAX COUNT 9", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
