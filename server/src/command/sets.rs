//! Sets.

use std::collections::HashSet;

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::Reply;

use super::collection::{self, Sample, bulk, peek, read, update, update_or_insert};
use super::words::{ScanOptions, count, counted_keys, cursor, int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::Collection;
use crate::keyspace::value::set::Set;

const COUNTED: KeySpec = KeySpec::Counted {
    dest: None,
    count: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("sadd", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, sadd)
        .about(Group::Set, "1.0.0", "Adds members."),
    Command::keyed("scard", 2, Flags::READ_FAST, KeySpec::ONE, scard)
        .about(Group::Set, "1.0.0", "The number of members."),
    Command::keyed("sdiff", -2, Flags::READONLY, KeySpec::ALL, sdiff)
        .about(Group::Set, "1.0.0", "The members of a set that are in no other."),
    Command::keyed("sdiffstore", -3, Flags::WRITE_OOM, KeySpec::ALL, sdiffstore)
        .about(Group::Set, "1.0.0", "Stores the members of a set that are in no other."),
    Command::keyed("sinter", -2, Flags::READONLY, KeySpec::ALL, sinter)
        .about(Group::Set, "1.0.0", "The members that all sets have."),
    Command::keyed("sintercard", -3, Flags::READONLY.with(Flags::MOVABLEKEYS), COUNTED, sintercard)
        .about(Group::Set, "7.0.0", "The number of members that all sets have."),
    Command::keyed("sinterstore", -3, Flags::WRITE_OOM, KeySpec::ALL, sinterstore)
        .about(Group::Set, "1.0.0", "Stores the members that all sets have."),
    Command::keyed("sismember", 3, Flags::READ_FAST, KeySpec::ONE, sismember)
        .about(Group::Set, "1.0.0", "Whether something is a member."),
    Command::keyed("smembers", 2, Flags::READONLY, KeySpec::ONE, smembers)
        .about(Group::Set, "1.0.0", "All members."),
    Command::keyed("smismember", -3, Flags::READ_FAST, KeySpec::ONE, smismember)
        .about(Group::Set, "6.2.0", "Which of several are members."),
    Command::keyed("smove", 4, Flags::WRITE_FAST, KeySpec::TWO, smove)
        .about(Group::Set, "1.0.0", "Moves a member to another set."),
    Command::keyed("spop", -2, Flags::WRITE_FAST, KeySpec::ONE, spop)
        .about(Group::Set, "1.0.0", "Takes members at random."),
    Command::keyed("srandmember", -2, Flags::READONLY, KeySpec::ONE, srandmember)
        .about(Group::Set, "1.0.0", "Members chosen at random."),
    Command::keyed("srem", -3, Flags::WRITE_FAST, KeySpec::ONE, srem)
        .about(Group::Set, "1.0.0", "Removes members."),
    Command::keyed("sscan", -3, Flags::READONLY, KeySpec::ONE, sscan)
        .about(Group::Set, "2.8.0", "Walks the members, some at a time."),
    Command::keyed("sunion", -2, Flags::READONLY, KeySpec::ALL, sunion)
        .about(Group::Set, "1.0.0", "The members of any of several sets."),
    Command::keyed("sunionstore", -3, Flags::WRITE_OOM, KeySpec::ALL, sunionstore)
        .about(Group::Set, "1.0.0", "Stores the members of any of several sets."),
];

fn sadd(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let set = peek::<Set>(exec, args[1])?;
    let has_new = set.is_none_or(|set| args[2..].iter().any(|member| !set.contains(member)));
    let mut added = 0;
    if has_new {
        let limits = &exec.settings.limits;
        let set: &mut Set = update_or_insert(exec, args[1]);
        added = args[2..]
            .iter()
            .filter(|member| set.insert(member, limits))
            .count();
    }
    exec.reply.int(added as i64);
    Ok(Effect::verbatim_if(has_new))
}

fn srem(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let has_any = peek::<Set>(exec, args[1])?
        .is_some_and(|set| args[2..].iter().any(|member| set.contains(member)));
    let mut removed = 0;
    if has_any {
        let set: &mut Set = update(exec, args[1]);
        removed = args[2..].iter().filter(|member| set.remove(member)).count();
        exec.remove_if_empty(args[1]);
    }
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(has_any))
}

fn smove(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (source, destination, member) = (args[1], args[2], args[3]);
    let Some(set) = peek::<Set>(exec, source)? else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    let is_there = set.contains(member);
    peek::<Set>(exec, destination)?;
    let moves = is_there && source != destination;
    if moves {
        // Told here, since what is told depends on what was there.
        let db = exec.db;
        update::<Set>(exec, source).remove(member);
        exec.notify(b's', "srem", db, source);
        exec.remove_if_empty(source);
        if exec.peek(source).is_none() {
            exec.notify(b'g', "del", db, source);
        }
        // Who watches the other set hears of it only if it changes.
        let is_known = peek::<Set>(exec, destination)?.is_some_and(|set| set.contains(member));
        if !is_known {
            let limits = &exec.settings.limits;
            update_or_insert::<Set>(exec, destination).insert(member, limits);
            exec.notify(b's', "sadd", db, destination);
        }
    }
    exec.reply.int(i64::from(is_there));
    Ok(Effect::verbatim_if(moves))
}

fn scard(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<Set>(exec, args[1])?;
    reply.int(set.map_or(0, Set::len) as i64);
    Ok(Effect::None)
}

fn sismember(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<Set>(exec, args[1])?;
    reply.int(i64::from(set.is_some_and(|set| set.contains(args[2]))));
    Ok(Effect::None)
}

fn smismember(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<Set>(exec, args[1])?;
    reply.array(args.len() - 2);
    args[2..]
        .iter()
        .for_each(|member| reply.int(i64::from(set.is_some_and(|set| set.contains(member)))));
    Ok(Effect::None)
}

fn smembers(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let most = exec.most_elements;
    let (set, reply) = read::<Set>(exec, args[1])?;
    if set.is_some_and(|set| set.len() > most) {
        return Ok(Effect::Aside);
    }
    reply.set(set.map_or(0, Set::len));
    set.iter()
        .flat_map(|set| set.iter())
        .for_each(|member| bulk(reply, member));
    Ok(Effect::None)
}

fn spop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    /// Members in one SREM of what replicas get.
    const BATCH: usize = 1024;
    let key = args[1];
    let mut random = exec.random.fork();
    let wanted = match &args[2..] {
        [] => None,
        [word] => Some(count(word)?),
        _ => return Err(CommandError::SYNTAX),
    };
    let Some(set) = peek::<Set>(exec, key)? else {
        match wanted {
            None => exec.reply.null(),
            Some(_) => exec.reply.set(0),
        }
        return Ok(Effect::None);
    };
    let Some(wanted) = wanted else {
        let member = set
            .random(&mut random)
            .expect("a set has a member")
            .to_vec();
        update::<Set>(exec, key).remove(&member);
        exec.remove_if_empty(key);
        exec.reply.bulk(&member);
        return Ok(Effect::command(&[b"SREM", key, &member]));
    };
    if wanted == 0 {
        exec.reply.set(0);
        return Ok(Effect::None);
    }
    if wanted >= set.len() {
        let entry = exec.remove(key).expect("it was just looked at");
        let set = Set::of(entry.value()).expect("a set");
        exec.reply.set(set.len());
        set.iter().for_each(|member| bulk(exec.reply, member));
        crate::keyspace::release::drop_entry(entry);
        return Ok(Effect::command(&[b"DEL", key]));
    }
    let members: Vec<Vec<u8>> = choose(set, wanted, &mut random)
        .into_iter()
        .map(Element::to_vec)
        .collect();
    let set: &mut Set = update(exec, key);
    for member in &members {
        set.remove(member);
    }
    exec.reply.set(members.len());
    members.iter().for_each(|member| exec.reply.bulk(member));
    let commands = members.chunks(BATCH).map(|batch| {
        let mut words = vec![b"SREM".to_vec(), key.to_vec()];
        words.extend_from_slice(batch);
        words
    });
    Ok(Effect::Commands(commands.collect()))
}

/// `count` different members, fewer than there are.
fn choose<'a>(set: &'a Set, count: usize, random: &mut fastrand::Rng) -> Vec<Element<'a>> {
    if !matches!(set, Set::Large(_)) || count * 3 >= set.len() {
        let all: Vec<_> = set.iter().collect();
        let indexes = collection::distinct_indexes(count, all.len(), random);
        return indexes.into_iter().map(|index| all[index]).collect();
    }
    let mut seen = HashSet::new();
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let member = set.random(random).expect("a set has a member");
        if seen.insert(member.to_vec()) {
            chosen.push(member);
        }
    }
    chosen
}

fn srandmember(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut random = exec.random.fork();
    let sample = match &args[2..] {
        [] => None,
        [word] => Some(Sample::parse(word)?),
        _ => return Err(CommandError::SYNTAX),
    };
    if sample.is_some_and(|sample| exec.is_too_long(sample.count())) {
        return Ok(Effect::Aside);
    }
    let reply_bytes_max = exec.settings.reply_bytes_max;
    let (set, reply) = read::<Set>(exec, args[1])?;
    match (set, sample) {
        (None, None) => reply.null(),
        (None, Some(_)) => reply.array(0),
        (Some(set), None) => bulk(reply, set.random(&mut random).expect("a set has a member")),
        (Some(set), Some(Sample::Repeating(count))) => {
            reply.array(count);
            for _ in 0..count {
                if reply.len() > reply_bytes_max {
                    break;
                }
                bulk(reply, set.random(&mut random).expect("a set has a member"));
            }
        }
        (Some(set), Some(Sample::Distinct(count))) => {
            let count = count.min(set.len());
            reply.array(count);
            if count == set.len() {
                set.iter().for_each(|member| bulk(reply, member));
            } else {
                choose(set, count, &mut random)
                    .into_iter()
                    .for_each(|member| bulk(reply, member));
            }
        }
    }
    Ok(Effect::None)
}

fn sscan(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let from = cursor(args[2])?;
    let options = ScanOptions::parse(args, 3)?;
    let (set, reply) = read::<Set>(exec, args[1])?;
    let mut found = Vec::new();
    let next = match set {
        None => 0,
        Some(set) => collection::scan(from, options.count, |place, seen| {
            set.scan(place, |member| {
                *seen += 1;
                let member = member.to_vec();
                if options.fits(&member) {
                    found.push(member);
                }
            })
        }),
    };
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|member| reply.bulk(member));
    Ok(Effect::None)
}

// Several sets. Their keys may be borrowed one at a time only, so members are copied out of one and looked up in others.

/// Checks the types of all keys and returns the sizes of their sets.
fn sizes(exec: &mut Exec<'_>, keys: Args<'_>) -> Result<Vec<usize>, CommandError> {
    keys.iter()
        .map(|key| Ok(peek::<Set>(exec, key)?.map_or(0, Set::len)))
        .collect()
}

fn members_of(exec: &mut Exec<'_>, key: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let (set, _) = read::<Set>(exec, key)?;
    Ok(set
        .iter()
        .flat_map(|set| set.iter())
        .map(Element::to_vec)
        .collect())
}

/// At most `limit` members that all sets, of these sizes, have.
fn intersection(
    exec: &mut Exec<'_>,
    keys: Args<'_>,
    sizes: &[usize],
    limit: usize,
) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|at| sizes[*at]);
    if sizes[order[0]] == 0 {
        return Ok(Vec::new());
    }
    for at in &order {
        read::<Set>(exec, keys[*at])?;
    }
    let set = |at: &usize| {
        let entry = exec.found(keys[*at]).expect("no set is empty");
        Set::of(entry.value()).expect("a type that was just looked at")
    };
    let others: Vec<&Set> = order[1..].iter().map(set).collect();
    let mut number = itoa::Buffer::new();
    let in_all = set(&order[0]).iter().filter_map(|member| {
        let text = member.text(&mut number);
        let is_in_all = others.iter().all(|set| set.contains(text));
        is_in_all.then(|| text.to_vec())
    });
    Ok(in_all.take(limit).collect())
}

/// The types have been checked.
fn difference(exec: &mut Exec<'_>, keys: Args<'_>) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut members = members_of(exec, keys[0])?;
    for key in &keys[1..] {
        if members.is_empty() {
            break;
        }
        let (set, _) = read::<Set>(exec, key)?;
        members.retain(|member| !set.is_some_and(|set| set.contains(member)));
    }
    Ok(members)
}

/// The types have been checked.
fn union(exec: &mut Exec<'_>, keys: Args<'_>) -> Result<Set, CommandError> {
    let limits = &exec.settings.limits;
    let mut all = Set::new();
    for key in keys {
        let (set, _) = read::<Set>(exec, key)?;
        for member in set.iter().flat_map(|set| set.iter()) {
            all.insert(member.text(&mut itoa::Buffer::new()), limits);
        }
    }
    Ok(all)
}

fn collect(exec: &Exec<'_>, members: &[Vec<u8>]) -> Set {
    let mut set = Set::new();
    for member in members {
        set.insert(member, &exec.settings.limits);
    }
    set
}

fn reply_members(reply: &mut Reply, members: &[Vec<u8>]) -> CommandResult {
    reply.set(members.len());
    members.iter().for_each(|member| reply.bulk(member));
    Ok(Effect::None)
}

/// Puts a result in the place of whatever the destination holds; an empty one removes it.
fn store(exec: &mut Exec<'_>, destination: &[u8], set: Set) -> CommandResult {
    exec.reply.int(set.len() as i64);
    if set.is_empty() {
        return Ok(Effect::verbatim_if(
            exec.remove(destination)
                .map(crate::keyspace::release::drop_entry)
                .is_some(),
        ));
    }
    if let Some(gone) = exec.remove(destination) {
        crate::keyspace::release::drop_entry(gone);
    }
    exec.set(destination, set.into_value());
    Ok(Effect::Verbatim)
}

fn sinter(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let sizes = sizes(exec, &args[1..])?;
    if exec.is_too_long(sizes.iter().sum()) {
        return Ok(Effect::Aside);
    }
    let members = intersection(exec, &args[1..], &sizes, usize::MAX)?;
    reply_members(exec.reply, &members)
}

fn sinterstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let sizes = sizes(exec, &args[2..])?;
    if exec.is_too_long(sizes.iter().sum()) {
        return Ok(Effect::Aside);
    }
    let members = intersection(exec, &args[2..], &sizes, usize::MAX)?;
    let set = collect(exec, &members);
    store(exec, args[1], set)
}

fn sintercard(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const TOO_FEW: &str = "numkeys should be greater than 0";
    let number = int(args[1])
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| CommandError::new(TOO_FEW))?;
    if number as u64 > args.len() as u64 - 2 {
        return Err(CommandError::text(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let (keys, options) = counted_keys(args, 1, TOO_FEW)?;
    let mut limit = 0;
    for pair in options.chunks(2) {
        match pair {
            [word, number] if is(word, "limit") => {
                let number = int(number)
                    .ok()
                    .and_then(|number| usize::try_from(number).ok());
                limit = number.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    let sizes = sizes(exec, keys)?;
    if exec.is_too_long(limit) && exec.is_too_long(sizes.iter().sum()) {
        return Ok(Effect::Aside);
    }
    let size = intersection(exec, keys, &sizes, limit)?.len();
    exec.reply.int(size as i64);
    Ok(Effect::None)
}

fn sdiff(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let elements = sizes(exec, &args[1..])?.iter().sum();
    if exec.is_too_long(elements) {
        return Ok(Effect::Aside);
    }
    let members = difference(exec, &args[1..])?;
    reply_members(exec.reply, &members)
}

fn sdiffstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let elements = sizes(exec, &args[2..])?.iter().sum();
    if exec.is_too_long(elements) {
        return Ok(Effect::Aside);
    }
    let members = difference(exec, &args[2..])?;
    let set = collect(exec, &members);
    store(exec, args[1], set)
}

fn sunion(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let elements = sizes(exec, &args[1..])?.iter().sum();
    if exec.is_too_long(elements) {
        return Ok(Effect::Aside);
    }
    let set = union(exec, &args[1..])?;
    exec.reply.set(set.len());
    set.iter().for_each(|member| bulk(exec.reply, member));
    Ok(Effect::None)
}

fn sunionstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let elements = sizes(exec, &args[2..])?.iter().sum();
    if exec.is_too_long(elements) {
        return Ok(Effect::Aside);
    }
    let set = union(exec, &args[2..])?;
    store(exec, args[1], set)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET s v
            SADD a 1 2 3 4 5
            SADD a 3 6
            SADD a 3
            SADD b 4 5 6 7
            SADD c 5 6
            SADD s 1
            SADD w word
            SCARD a
            SCARD none
            SCARD s
            SMEMBERS a
            SMEMBERS none
            SMEMBERS s
            SISMEMBER a 3
            SISMEMBER a 99
            SISMEMBER none 3
            SMISMEMBER a 1 99 2
            SMISMEMBER none 1
            SINTER a b c
            SINTER a none
            SINTER a s
            SINTER none s
            SINTER a
            SUNION b c none
            SUNION none
            SDIFF a b
            SDIFF a b c none
            SDIFF none a
            SDIFF a s
            SINTERSTORE d a b
            SMEMBERS d
            SINTERSTORE d a none
            EXISTS d
            SUNIONSTORE d a b c
            SMEMBERS d
            SDIFFSTORE d a b
            SMEMBERS d
            SDIFFSTORE d none a
            SINTERSTORE s a b
            TYPE s
            SET s v
            SUNIONSTORE d a s
            SINTERCARD 2 a b
            SINTERCARD 2 a b LIMIT 1
            SINTERCARD 2 a b LIMIT 0
            SINTERCARD 2 a b LIMIT -1
            SINTERCARD 0 a
            SINTERCARD x a
            SINTERCARD 3 a b
            SINTERCARD 2 a b FOO
            SINTERCARD 2 a s
            SMOVE a z 1
            SMOVE a z 1
            SMOVE none z 1
            SMOVE a s 2
            SMOVE a a 2
            SMOVE a a 99
            SMEMBERS z
            SMOVE z a 1
            EXISTS z
            SREM a 1 99
            SREM a 99
            SREM none 1
            SREM s 1
            SPOP w
            SPOP w
            SPOP w 2
            SADD w word
            SPOP w 0
            SPOP w -1
            SPOP w 1 2
            SPOP w 5
            EXISTS w
            SADD w word
            SRANDMEMBER w
            SRANDMEMBER none
            SRANDMEMBER none 1
            SRANDMEMBER w 5
            SRANDMEMBER w -3
            SRANDMEMBER w 0
            SRANDMEMBER w x
            SRANDMEMBER w 1 2
            SRANDMEMBER w -9223372036854775808
            SSCAN a 0
            SSCAN none 0
            SSCAN a 0 MATCH 6
            SSCAN a 0 COUNT 1
            SSCAN s 0
            OBJECT ENCODING a
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("SADD a 1", "SADD a 1"),
            ("SADD a 1", ""),
            ("SPOP a", "SREM a 1"),
            ("SADD a 1 2", "SADD a 1 2"),
            ("SPOP a 5", "DEL a"),
            ("SPOP a 5", ""),
            ("SINTERSTORE d a b", ""),
            ("SADD d 7", "SADD d 7"),
            ("SINTERSTORE d a b", "SINTERSTORE d a b"),
            ("SREM a 1", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
        bench.run("SADD big 1 2 3");
        assert!(bench.effect("SPOP big 2").starts_with("SREM big "));
    }
}
