//! List commands that wait for an element.

use super::blocking::{Wait, WaitKey, Wants, timeout_ms};
use super::lists::{end_of, end_word, lmpop, move_element, take};
use super::{Args, Command, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::blob::Blob;
use crate::keyspace::value::list::{End, List};
use crate::keyspace::value::stream::StreamId;

use super::collection::peek;
use super::words::counted_keys;

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
    Command::keyed("blmove", 6, BLOCKING.with(Flags::DENYOOM), KeySpec::TWO, blmove)
        .about(Group::List, "6.2.0", "LMOVE that waits for an element."),
    Command::keyed("blmpop", -5, BLOCKING.with(Flags::MOVABLEKEYS), MPOP, blmpop)
        .about(Group::List, "7.0.0", "LMPOP that waits for an element."),
    Command::keyed("blpop", -3, BLOCKING, ALL_BUT_LAST, bpop)
        .about(Group::List, "2.0.0", "LPOP of the first of several lists that has an element; waits for one."),
    Command::keyed("brpop", -3, BLOCKING, ALL_BUT_LAST, bpop)
        .about(Group::List, "2.0.0", "RPOP of the first of several lists that has an element; waits for one."),
    Command::keyed("brpoplpush", 4, BLOCKING.with(Flags::DENYOOM), KeySpec::TWO, brpoplpush)
        .about(Group::List, "2.2.0", "RPOPLPUSH that waits for an element."),
];

pub(super) fn owned(words: Args<'_>) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Keys to wait for that have no words of their own.
pub(super) fn wait_keys(keys: Args<'_>) -> Vec<WaitKey> {
    let key = |key: &&[u8]| WaitKey {
        key: Blob::new(key),
        after_id: StreamId::MIN,
    };
    keys.iter().map(key).collect()
}

/// BLPOP and BRPOP.
fn bpop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let end = end_of(&args[0][1..]);
    let (timeout, keys) = args[1..].split_last().expect("checked by the arity");
    let timeout_ms = timeout_ms(timeout)?;
    for key in keys {
        if peek::<List>(exec, key)?.is_none() {
            continue;
        }
        let element = take(exec, key, end);
        exec.reply.array(2);
        exec.reply.bulk(key);
        exec.reply.bulk(&element);
        let name: &[u8] = if end == End::Left { b"LPOP" } else { b"RPOP" };
        return Ok(Effect::command(&[name, key]));
    }
    exec.reply.null_array();
    exec.wait = Some(Box::new(Wait {
        timeout_ms,
        wants: Wants::List,
        keys: wait_keys(keys),
        before: owned(&args[..1]),
        after: owned(&[timeout]),
    }));
    Ok(Effect::None)
}

fn blmpop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let timeout_ms = timeout_ms(args[1])?;
    let rest = [&args[..1], &args[2..]].concat();
    let effect = lmpop(exec, &rest)?;
    if effect.is_none() {
        let (keys, options) = counted_keys(&rest, 1, "")?;
        exec.wait = Some(Box::new(Wait {
            timeout_ms,
            wants: Wants::List,
            keys: wait_keys(keys),
            before: owned(&[args[0], args[1], b"1"]),
            after: owned(options),
        }));
    }
    Ok(effect)
}

fn blmove(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (end_word(args[3])?, end_word(args[4])?);
    let effect = wait_or_move(exec, args, from, to)?;
    Ok(match effect {
        Effect::None => Effect::None,
        _ => Effect::command(&[b"LMOVE", args[1], args[2], args[3], args[4]]),
    })
}

fn brpoplpush(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let effect = wait_or_move(exec, args, End::Right, End::Left)?;
    Ok(match effect {
        Effect::None => Effect::None,
        _ => Effect::command(&[b"RPOPLPUSH", args[1], args[2]]),
    })
}

fn wait_or_move(exec: &mut Exec<'_>, args: Args<'_>, from: End, to: End) -> CommandResult {
    let timeout_ms = timeout_ms(args[args.len() - 1])?;
    let effect = move_element(exec, args[1], args[2], from, to)?;
    if effect.is_none() {
        exec.wait = Some(Box::new(Wait {
            timeout_ms,
            wants: Wants::List,
            keys: wait_keys(&args[1..2]),
            before: owned(&args[..1]),
            after: owned(&args[2..]),
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
            RPUSH l 1 2 3 4 5 6 7 8 9
            SADD s a
            BLPOP none l 0
            BRPOP l none 1.5
            BLPOP l -1
            BLPOP l x
            BLPOP s l 0
            BLPOP l s 0
            BLPOP l
            BLMOVE l m LEFT RIGHT 0
            BLMOVE l m FOO RIGHT 0
            BLMOVE l m LEFT RIGHT x
            BLMOVE s m LEFT RIGHT 0
            BLMOVE l s LEFT RIGHT 0
            BLMOVE l l LEFT RIGHT 0
            BRPOPLPUSH l m 0
            BRPOPLPUSH l m -1
            BRPOPLPUSH s m 0
            LRANGE m 0 -1
            BLMPOP 0 2 none l LEFT
            BLMPOP 0 1 l RIGHT COUNT 2
            BLMPOP x 1 l LEFT
            BLMPOP -1 1 l LEFT
            BLMPOP 0 0 l LEFT
            BLMPOP 0 x l LEFT
            BLMPOP 0 1 l FOO
            BLMPOP 0 1 l LEFT COUNT 0
            BLMPOP 0 2 l LEFT
            LRANGE l 0 -1
        "#,
        );
    }

    #[test]
    fn effects_are_those_of_the_commands_that_do_not_wait() {
        let mut bench = Bench::new();
        bench.run("RPUSH l 1 2 3 4 5 6 7 8 9");
        let rows = [
            ("BLPOP none l 0", "LPOP l"),
            ("BRPOP l 0", "RPOP l"),
            ("BLPOP none 0", ""),
            ("BLMOVE l m LEFT RIGHT 0", "LMOVE l m LEFT RIGHT"),
            ("BLMOVE none m LEFT RIGHT 0", ""),
            ("BRPOPLPUSH l m 0", "RPOPLPUSH l m"),
            ("BLMPOP 0 2 none l LEFT COUNT 99", "LPOP l 5"),
            ("BLMPOP 0 2 none l LEFT COUNT 99", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
