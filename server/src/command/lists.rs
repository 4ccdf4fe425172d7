//! Lists.

use super::collection::{bulk, peek, read, update, update_or_insert};
use super::words::{count, counted_keys, index_range, int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::list::{End, List};

const MPOP: KeySpec = KeySpec::Counted {
    dest: None,
    count: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("lindex", 3, Flags::READONLY, KeySpec::ONE, lindex)
        .about(Group::List, "1.0.0", "An element by its index."),
    Command::keyed("linsert", 5, Flags::WRITE_OOM, KeySpec::ONE, linsert)
        .about(Group::List, "2.2.0", "Puts an element before or after another one."),
    Command::keyed("llen", 2, Flags::READ_FAST, KeySpec::ONE, llen)
        .about(Group::List, "1.0.0", "The length of a list."),
    Command::keyed("lmove", 5, Flags::WRITE_OOM, KeySpec::TWO, lmove)
        .about(Group::List, "6.2.0", "Moves an element from an end of a list to an end of another."),
    Command::keyed("lmpop", -4, Flags::WRITE.with(Flags::MOVABLEKEYS), MPOP, lmpop)
        .about(Group::List, "7.0.0", "Takes elements from the first of several lists that has any."),
    Command::keyed("lpop", -2, Flags::WRITE_FAST, KeySpec::ONE, pop)
        .about(Group::List, "1.0.0", "Takes elements from the head of a list."),
    Command::keyed("lpos", -3, Flags::READONLY, KeySpec::ONE, lpos)
        .about(Group::List, "6.0.6", "The index of elements that are equal to a given one."),
    Command::keyed("lpush", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, push)
        .about(Group::List, "1.0.0", "Adds elements at the head of a list."),
    Command::keyed("lpushx", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, pushx)
        .about(Group::List, "2.2.0", "Adds elements at the head of a list that is there."),
    Command::keyed("lrange", 4, Flags::READONLY, KeySpec::ONE, lrange)
        .about(Group::List, "1.0.0", "A range of elements."),
    Command::keyed("lrem", 4, Flags::WRITE, KeySpec::ONE, lrem)
        .about(Group::List, "1.0.0", "Removes elements that are equal to a given one."),
    Command::keyed("lset", 4, Flags::WRITE_OOM, KeySpec::ONE, lset)
        .about(Group::List, "1.0.0", "Sets an element by its index."),
    Command::keyed("ltrim", 4, Flags::WRITE, KeySpec::ONE, ltrim)
        .about(Group::List, "1.0.0", "Keeps a range of elements."),
    Command::keyed("rpop", -2, Flags::WRITE_FAST, KeySpec::ONE, pop)
        .about(Group::List, "1.0.0", "Takes elements from the tail of a list."),
    Command::keyed("rpoplpush", 3, Flags::WRITE_OOM, KeySpec::TWO, rpoplpush)
        .about(Group::List, "1.2.0", "Moves the last element of a list to the head of another."),
    Command::keyed("rpush", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, push)
        .about(Group::List, "1.0.0", "Adds elements at the tail of a list."),
    Command::keyed("rpushx", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, pushx)
        .about(Group::List, "2.2.0", "Adds elements at the tail of a list that is there."),
];

/// The end that a command's first letter names.
pub(super) fn end_of(name: &[u8]) -> End {
    if name[0].eq_ignore_ascii_case(&b'l') {
        End::Left
    } else {
        End::Right
    }
}

/// The end that LEFT or RIGHT names.
pub(super) fn end_word(word: &[u8]) -> Result<End, CommandError> {
    if is(word, "left") {
        Ok(End::Left)
    } else if is(word, "right") {
        Ok(End::Right)
    } else {
        Err(CommandError::SYNTAX)
    }
}

fn push(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    peek::<List>(exec, args[1])?;
    let limits = &exec.settings.limits;
    let list: &mut List = update_or_insert(exec, args[1]);
    for element in &args[2..] {
        list.push(end_of(args[0]), element, limits);
    }
    let len = list.len();
    exec.reply.int(len as i64);
    Ok(Effect::Verbatim)
}

fn pushx(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if peek::<List>(exec, args[1])?.is_none() {
        exec.reply.int(0);
        return Ok(Effect::None);
    }
    push(exec, args)
}

/// LPOP and RPOP.
fn pop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, end) = (args[1], end_of(args[0]));
    if args.len() > 3 {
        return Err(CommandError::wrong_arity(if end == End::Left {
            "lpop"
        } else {
            "rpop"
        }));
    }
    let wanted = args.get(2).map(|word| count(word)).transpose()?;
    let Some(len) = peek::<List>(exec, key)?.map(List::len) else {
        match wanted {
            None => exec.reply.null(),
            Some(_) => exec.reply.null_array(),
        }
        return Ok(Effect::None);
    };
    match wanted {
        None => {
            let element = take(exec, key, end);
            exec.reply.bulk(&element);
        }
        Some(0) => {
            exec.reply.array(0);
            return Ok(Effect::None);
        }
        Some(wanted) => take_several(exec, key, end, wanted.min(len)),
    }
    Ok(Effect::Verbatim)
}

/// Takes an element of a list that has one; an empty list goes.
pub(super) fn take(exec: &mut Exec<'_>, key: &[u8], end: End) -> Vec<u8> {
    let limits = &exec.settings.limits;
    let list: &mut List = update(exec, key);
    let element = list.pop(end, limits).expect("a list has an element");
    let is_empty = list.is_empty();
    if is_empty {
        exec.remove(key);
    }
    element
}

/// Takes this many elements, which are there, and replies an array of them.
fn take_several(exec: &mut Exec<'_>, key: &[u8], end: End, number: usize) {
    let limits = &exec.settings.limits;
    let list: &mut List = update(exec, key);
    let elements: Vec<_> = (0..number).map_while(|_| list.pop(end, limits)).collect();
    let is_empty = list.is_empty();
    if is_empty {
        exec.remove(key);
    }
    exec.reply.array(elements.len());
    elements.iter().for_each(|element| exec.reply.bulk(element));
}

pub(super) fn lmpop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (keys, options) =
        counted_keys(args, 1, "numkeys should be greater than 0").map_err(|error| {
            if error == CommandError::NOT_INTEGER {
                CommandError::new("numkeys should be greater than 0")
            } else {
                error
            }
        })?;
    let end = end_word(options.first().ok_or(CommandError::SYNTAX)?)?;
    let wanted = match &options[1..] {
        [] => 1,
        [word, number] if is(word, "count") => int(number)
            .ok()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or(CommandError::text("ERR count should be greater than 0"))?,
        _ => return Err(CommandError::SYNTAX),
    };
    for key in keys {
        let Some(len) = peek::<List>(exec, key)?.map(List::len) else {
            continue;
        };
        let number = wanted.min(len);
        exec.reply.array(2);
        exec.reply.bulk(key);
        take_several(exec, key, end, number);
        let name: &[u8] = if end == End::Left { b"LPOP" } else { b"RPOP" };
        return Ok(Effect::command(&[name, key, number.to_string().as_bytes()]));
    }
    exec.reply.null_array();
    Ok(Effect::None)
}

fn llen(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (list, reply) = read::<List>(exec, args[1])?;
    reply.int(list.map_or(0, List::len) as i64);
    Ok(Effect::None)
}

fn lindex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (list, reply) = read::<List>(exec, args[1])?;
    let Some(list) = list else {
        reply.null();
        return Ok(Effect::None);
    };
    match list.get(int(args[2])?) {
        Some(element) => bulk(reply, element),
        None => reply.null(),
    }
    Ok(Effect::None)
}

fn lset(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let list = peek::<List>(exec, args[1])?.ok_or(CommandError::NO_SUCH_KEY)?;
    let index = int(args[2])?;
    let len = list.len() as i64;
    if index >= len || index < -len {
        return Err(CommandError::INDEX_OUT_OF_RANGE);
    }
    let limits = &exec.settings.limits;
    update::<List>(exec, args[1]).set(index, args[3], limits);
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

fn lrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let most = exec.most_elements;
    let (list, reply) = read::<List>(exec, args[1])?;
    let Some(list) = list else {
        reply.array(0);
        return Ok(Effect::None);
    };
    let range = index_range(start, stop, list.len());
    if range.len() > most {
        return Ok(Effect::Aside);
    }
    reply.array(range.len());
    list.iter_from(range.start)
        .take(range.len())
        .for_each(|element| bulk(reply, element));
    Ok(Effect::None)
}

fn ltrim(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let len = peek::<List>(exec, args[1])?.map_or(0, List::len);
    let range = index_range(start, stop, len);
    if exec.is_too_long(len - range.len()) {
        return Ok(Effect::Aside);
    }
    if range.is_empty() {
        exec.remove(args[1]);
    } else if range.len() < len {
        let limits = &exec.settings.limits;
        let list: &mut List = update(exec, args[1]);
        list.remove_range(range.end, len - range.end, limits);
        list.remove_range(0, range.start, limits);
    } else if len > 0 {
        // It is told though nothing was cut off.
        exec.notify(b'l', "ltrim", exec.db, args[1]);
    }
    exec.reply.ok();
    Ok(Effect::verbatim_if(range.len() < len))
}

fn lrem(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, number, element) = (args[1], int(args[2])?, args[3]);
    let most = exec.most_elements;
    let Some(list) = peek::<List>(exec, key)? else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    if list.len() > most {
        return Ok(Effect::Aside);
    }
    let mut removed = 0;
    if list.iter().any(|other| other.eq_bytes(element)) {
        let from = if number < 0 { End::Right } else { End::Left };
        let limit = match number {
            0 => usize::MAX,
            number => usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX),
        };
        let limits = &exec.settings.limits;
        removed = update::<List>(exec, key).remove_equal(element, from, limit, limits);
        exec.remove_if_empty(key);
    }
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(removed > 0))
}

fn linsert(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, pivot, element) = (args[1], args[3], args[4]);
    let after = match args[2] {
        word if is(word, "after") => 1,
        word if is(word, "before") => 0,
        _ => return Err(CommandError::SYNTAX),
    };
    let Some(list) = peek::<List>(exec, key)? else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    let Some(index) = list.iter().position(|other| other.eq_bytes(pivot)) else {
        exec.reply.int(-1);
        return Ok(Effect::None);
    };
    let limits = &exec.settings.limits;
    let list: &mut List = update(exec, key);
    list.insert(index + after, element, limits);
    let len = list.len();
    exec.reply.int(len as i64);
    Ok(Effect::Verbatim)
}

fn lpos(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (mut rank, mut wanted, mut most) = (1i64, None, 0usize);
    for pair in args[3..].chunks(2) {
        let [word, value] = pair else {
            return Err(CommandError::SYNTAX);
        };
        if is(word, "rank") {
            rank = int(value)?;
            if rank == 0 {
                return Err(CommandError::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
            if rank == i64::MIN {
                return Err(CommandError::text(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                ));
            }
        } else if is(word, "count") {
            let number = int(value)
                .ok()
                .and_then(|number| usize::try_from(number).ok());
            wanted = Some(number.ok_or(CommandError::text("ERR COUNT can't be negative"))?);
        } else if is(word, "maxlen") {
            let number = int(value)
                .ok()
                .and_then(|number| usize::try_from(number).ok());
            most = number.ok_or(CommandError::text("ERR MAXLEN can't be negative"))?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let most_here = exec.most_elements;
    let (list, reply) = read::<List>(exec, args[1])?;
    let Some(list) = list else {
        match wanted {
            Some(_) => reply.array(0),
            None => reply.null(),
        }
        return Ok(Effect::None);
    };
    if list.len() > most_here && !(1..=most_here).contains(&most) {
        return Ok(Effect::Aside);
    }
    let len = list.len();
    let most = if most == 0 { len } else { most.min(len) };
    let take = match wanted {
        None => 1,
        Some(0) => usize::MAX,
        Some(number) => number,
    };
    let skip = (rank.unsigned_abs() - 1) as usize;
    let found: Vec<usize> = if rank > 0 {
        let hits = list
            .iter()
            .take(most)
            .enumerate()
            .filter(|(_, element)| element.eq_bytes(args[2]));
        hits.map(|(at, _)| at).skip(skip).take(take).collect()
    } else {
        let hits = list
            .iter()
            .rev()
            .take(most)
            .enumerate()
            .filter(|(_, element)| element.eq_bytes(args[2]));
        hits.map(|(at, _)| len - 1 - at)
            .skip(skip)
            .take(take)
            .collect()
    };
    match wanted {
        Some(_) => {
            reply.array(found.len());
            found.iter().for_each(|at| reply.int(*at as i64));
        }
        None => match found.first() {
            Some(at) => reply.int(*at as i64),
            None => reply.null(),
        },
    }
    Ok(Effect::None)
}

fn lmove(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (end_word(args[3])?, end_word(args[4])?);
    move_element(exec, args[1], args[2], from, to)
}

fn rpoplpush(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    move_element(exec, args[1], args[2], End::Right, End::Left)
}

pub(super) fn move_element(
    exec: &mut Exec<'_>,
    source: &[u8],
    destination: &[u8],
    from: End,
    to: End,
) -> CommandResult {
    if peek::<List>(exec, source)?.is_none() {
        exec.reply.null();
        return Ok(Effect::None);
    }
    peek::<List>(exec, destination)?;
    let limits = &exec.settings.limits;
    let element = if source == destination {
        // The key must stay, whatever its length: a rotation keeps its expiry.
        let list: &mut List = update(exec, source);
        let element = list.pop(from, limits).expect("a list has an element");
        list.push(to, &element, limits);
        element
    } else {
        let element = take(exec, source, from);
        update_or_insert::<List>(exec, destination).push(to, &element, limits);
        element
    };
    exec.reply.bulk(&element);
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET s v
            RPUSH s 1
            LPUSH l a b c
            RPUSH l 1 2 3 a
            LRANGE l 0 -1
            LRANGE l 2 100
            LRANGE l 3 1
            LRANGE none 0 -1
            LRANGE s 0 -1
            LRANGE l x 1
            LLEN l
            LLEN none
            LLEN s
            LINDEX l 0
            LINDEX l -1
            LINDEX l 99
            LINDEX none 0
            LINDEX l x
            LINDEX none x
            LSET l 0 zero
            LSET l -1 last
            LSET l 99 x
            LSET none 0 x
            LSET s 0 x
            LSET l x y
            LINSERT l BEFORE 1 one
            LINSERT l AFTER 1 two
            LINSERT l BEFORE nope x
            LINSERT none BEFORE a b
            LINSERT l FOO a b
            RPUSH d a b a c a d a
            LREM d 2 a
            LREM d -1 a
            LREM d 0 zzz
            LREM d 0 a
            LREM none 0 a
            LREM d x a
            LRANGE d 0 -1
            LTRIM d 1 1
            LRANGE d 0 -1
            LTRIM d 5 9
            EXISTS d
            LTRIM none 0 1
            LPOP none
            LPOP none 2
            LPOP l 0
            LPOP none 0
            LPOP l -1
            LPOP l x
            LPOP l 1 2
            LPOP l
            LPOP l 2
            RPOP l
            RPOP l 100
            EXISTS l
            LPUSHX l a
            RPUSHX l a
            RPUSH p a b c 1 2 3 c c
            LPUSHX p z
            LPOS p c
            LPOS p c RANK 2
            LPOS p c RANK -1
            LPOS p c COUNT 0
            LPOS p c COUNT 2 RANK 2
            LPOS p c COUNT 0 MAXLEN 4
            LPOS p c RANK 0
            LPOS p c COUNT -1
            LPOS p c MAXLEN -1
            LPOS p nope
            LPOS p nope COUNT 1
            LPOS none a
            LPOS none a COUNT 1
            LPOS p c RANK
            LPOS p c FOO 1
            LMOVE p q LEFT RIGHT
            LMOVE p q RIGHT LEFT
            LMOVE p p LEFT RIGHT
            LMOVE none q LEFT LEFT
            LMOVE p s LEFT LEFT
            LMOVE p q UP LEFT
            RPOPLPUSH p q
            RPOPLPUSH none q
            RPOPLPUSH q q
            LRANGE p 0 -1
            LRANGE q 0 -1
            LMPOP 2 none p LEFT
            LMPOP 1 p RIGHT COUNT 2
            LMPOP 1 none LEFT
            LMPOP 0 p LEFT
            LMPOP x p LEFT
            LMPOP 1 p LEFT COUNT 0
            LMPOP 3 p LEFT
            LMPOP 1 p FOO
            LMPOP 2 s p LEFT
            LMPOP 1 p LEFT COUNT 1 COUNT 2
            DEL p
            EXISTS q
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("RPUSH l a b c d e", "RPUSH l a b c d e"),
            ("LPUSHX none a", ""),
            ("LPOP l 0", ""),
            ("LMPOP 2 none l LEFT COUNT 2", "LPOP l 2"),
            ("LTRIM l 0 -1", ""),
            ("LREM l 0 zzz", ""),
            ("LMOVE l m LEFT RIGHT", "LMOVE l m LEFT RIGHT"),
            ("LMPOP 1 l RIGHT COUNT 9", "RPOP l 2"),
            ("LPOP l", ""),
            ("LLEN m", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
