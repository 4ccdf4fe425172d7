//! Hashes.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::{Protocol, Reply};

use super::collection::{self, Sample, bulk, peek, read, update, update_or_insert};
use super::strings::increment_text;
use super::words::{ScanOptions, cursor, int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::hash::{Hash, View};
use dfsnap_formats::long_double::LongDouble;

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("hdel", -3, Flags::WRITE_FAST, KeySpec::ONE, hdel)
        .about(Group::Hash, "2.0.0", "Removes fields."),
    Command::keyed("hexists", 3, Flags::READ_FAST, KeySpec::ONE, hexists)
        .about(Group::Hash, "2.0.0", "Whether a field is there."),
    Command::keyed("hget", 3, Flags::READ_FAST, KeySpec::ONE, hget)
        .about(Group::Hash, "2.0.0", "The value of a field."),
    Command::keyed("hgetall", 2, Flags::READONLY, KeySpec::ONE, hgetall)
        .about(Group::Hash, "2.0.0", "All fields with their values."),
    Command::keyed("hincrby", 4, Flags::WRITE_OOM_FAST, KeySpec::ONE, hincrby)
        .about(Group::Hash, "2.0.0", "Adds to a number in a field."),
    Command::keyed("hincrbyfloat", 4, Flags::WRITE_OOM_FAST, KeySpec::ONE, hincrbyfloat)
        .about(Group::Hash, "2.6.0", "Adds to a number with a fraction in a field."),
    Command::keyed("hkeys", 2, Flags::READONLY, KeySpec::ONE, hkeys)
        .about(Group::Hash, "2.0.0", "All fields."),
    Command::keyed("hlen", 2, Flags::READ_FAST, KeySpec::ONE, hlen)
        .about(Group::Hash, "2.0.0", "The number of fields."),
    Command::keyed("hmget", -3, Flags::READ_FAST, KeySpec::ONE, hmget)
        .about(Group::Hash, "2.0.0", "The values of several fields."),
    Command::keyed("hmset", -4, Flags::WRITE_OOM_FAST, KeySpec::ONE, hset)
        .about(Group::Hash, "2.0.0", "Sets several fields."),
    Command::keyed("hrandfield", -2, Flags::READONLY, KeySpec::ONE, hrandfield)
        .about(Group::Hash, "6.2.0", "Fields chosen at random."),
    Command::keyed("hscan", -3, Flags::READONLY, KeySpec::ONE, hscan)
        .about(Group::Hash, "2.8.0", "Walks the fields, some at a time."),
    Command::keyed("hset", -4, Flags::WRITE_OOM_FAST, KeySpec::ONE, hset)
        .about(Group::Hash, "2.0.0", "Sets fields and says how many are new."),
    Command::keyed("hsetnx", 4, Flags::WRITE_OOM_FAST, KeySpec::ONE, hsetnx)
        .about(Group::Hash, "2.0.0", "Sets a field that is not there."),
    Command::keyed("hstrlen", 3, Flags::READ_FAST, KeySpec::ONE, hstrlen)
        .about(Group::Hash, "3.2.0", "The length of a field's value."),
    Command::keyed("hvals", 2, Flags::READONLY, KeySpec::ONE, hvals)
        .about(Group::Hash, "2.0.0", "All values."),
];

/// A hash to read, with the reply to write to. One whose fields are all past their time is not there.
pub(super) fn read_hash<'e>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
) -> Result<(Option<View<'e>>, &'e mut Reply), CommandError> {
    let clock = exec.field_clock();
    let (hash, reply) = read::<Hash>(exec, key)?;
    let view = hash.map(|hash| hash.at(clock));
    Ok((view.filter(|view| !view.is_empty()), reply))
}

/// A hash to look at before a write to these fields: those whose time is past have gone.
pub(super) fn peek_hash<'e>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
    fields: &[&[u8]],
) -> Result<Option<View<'e>>, CommandError> {
    peek::<Hash>(exec, key)?;
    exec.lapse_fields(key, fields);
    exec.remove_if_empty(key);
    let clock = exec.field_clock();
    Ok(peek::<Hash>(exec, key)?.map(|hash| hash.at(clock)))
}

/// HSET and HMSET.
fn hset(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let is_hmset = is(args[0], "hmset");
    if args.len() % 2 == 1 {
        return Err(CommandError::wrong_arity(if is_hmset {
            "hmset"
        } else {
            "hset"
        }));
    }
    let fields: Vec<&[u8]> = args[2..].iter().copied().step_by(2).collect();
    peek_hash(exec, args[1], &fields)?;
    let limits = &exec.settings.limits;
    let hash: &mut Hash = update_or_insert(exec, args[1]);
    let mut new = 0;
    for pair in args[2..].chunks_exact(2) {
        new += i64::from(hash.insert(pair[0], pair[1], limits));
        if hash.timed_len() > 0 {
            hash.set_expire_at_ms(pair[0], None);
        }
    }
    if is_hmset {
        exec.reply.ok();
    } else {
        exec.reply.int(new);
    }
    Ok(Effect::Verbatim)
}

fn hsetnx(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let is_there =
        peek_hash(exec, args[1], &args[2..3])?.is_some_and(|hash| hash.contains(args[2]));
    if !is_there {
        let limits = &exec.settings.limits;
        update_or_insert::<Hash>(exec, args[1]).insert(args[2], args[3], limits);
    }
    exec.reply.int(i64::from(!is_there));
    Ok(Effect::verbatim_if(!is_there))
}

fn hdel(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let has_any = peek_hash(exec, args[1], &args[2..])?
        .is_some_and(|hash| args[2..].iter().any(|field| hash.contains(field)));
    let mut removed = 0;
    if has_any {
        let hash: &mut Hash = update(exec, args[1]);
        removed = args[2..].iter().filter(|field| hash.remove(field)).count();
        exec.remove_if_empty(args[1]);
    }
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(has_any))
}

fn hget(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (hash, reply) = read_hash(exec, args[1])?;
    value_or_null(reply, hash.and_then(|hash| hash.get(args[2])));
    Ok(Effect::None)
}

fn value_or_null(reply: &mut Reply, value: Option<Element<'_>>) {
    match value {
        Some(value) => bulk(reply, value),
        None => reply.null(),
    }
}

fn hmget(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (hash, reply) = read_hash(exec, args[1])?;
    reply.array(args.len() - 2);
    args[2..]
        .iter()
        .for_each(|field| value_or_null(reply, hash.and_then(|hash| hash.get(field))));
    Ok(Effect::None)
}

fn hexists(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (hash, reply) = read_hash(exec, args[1])?;
    reply.int(i64::from(hash.is_some_and(|hash| hash.contains(args[2]))));
    Ok(Effect::None)
}

fn hlen(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (hash, reply) = read_hash(exec, args[1])?;
    reply.int(hash.map_or(0, |hash| hash.len()) as i64);
    Ok(Effect::None)
}

fn hstrlen(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (hash, reply) = read_hash(exec, args[1])?;
    reply.int(
        hash.and_then(|hash| hash.get(args[2]))
            .map_or(0, Element::text_len) as i64,
    );
    Ok(Effect::None)
}

fn hgetall(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let most = exec.most_elements;
    let (hash, reply) = read_hash(exec, args[1])?;
    if hash.as_ref().is_some_and(|hash| hash.len() > most) {
        return Ok(Effect::Aside);
    }
    reply.map(hash.map_or(0, |hash| hash.len()));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        bulk(reply, field);
        bulk(reply, value);
    }
    Ok(Effect::None)
}

fn hkeys(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let most = exec.most_elements;
    let (hash, reply) = read_hash(exec, args[1])?;
    if hash.as_ref().is_some_and(|hash| hash.len() > most) {
        return Ok(Effect::Aside);
    }
    reply.array(hash.map_or(0, |hash| hash.len()));
    hash.iter()
        .flat_map(|hash| hash.iter())
        .for_each(|(field, _)| bulk(reply, field));
    Ok(Effect::None)
}

fn hvals(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let most = exec.most_elements;
    let (hash, reply) = read_hash(exec, args[1])?;
    if hash.as_ref().is_some_and(|hash| hash.len() > most) {
        return Ok(Effect::Aside);
    }
    reply.array(hash.map_or(0, |hash| hash.len()));
    hash.iter()
        .flat_map(|hash| hash.iter())
        .for_each(|(_, value)| bulk(reply, value));
    Ok(Effect::None)
}

fn hincrby(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let step = int(args[3])?;
    let old = match peek_hash(exec, args[1], &args[2..3])?.and_then(|hash| hash.get(args[2])) {
        None => 0,
        Some(value) => value
            .as_int()
            .ok_or(CommandError::text("ERR hash value is not an integer"))?,
    };
    let new = old.checked_add(step).ok_or(CommandError::OVERFLOW)?;
    let limits = &exec.settings.limits;
    update_or_insert::<Hash>(exec, args[1]).insert(
        args[2],
        itoa::Buffer::new().format(new).as_bytes(),
        limits,
    );
    exec.reply.int(new);
    Ok(Effect::Verbatim)
}

fn hincrbyfloat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let step = LongDouble::parse(args[3]).ok_or(CommandError::NOT_FLOAT)?;
    if !step.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let old = match peek_hash(exec, args[1], &args[2..3])?.and_then(|hash| hash.get(args[2])) {
        None => LongDouble::ZERO,
        Some(value) => {
            let number = LongDouble::parse(value.text(&mut itoa::Buffer::new()));
            number.ok_or(CommandError::text("ERR hash value is not a float"))?
        }
    };
    let text = increment_text(old, args[3])?;
    let limits = &exec.settings.limits;
    let hash: &mut Hash = update_or_insert(exec, args[1]);
    hash.insert(args[2], &text, limits);
    let kept = hash.expire_at_ms(args[2]);
    exec.reply.bulk(&text);
    let mut commands = vec![owned(&[b"HSET", args[1], args[2], &text])];
    if let Some(at) = kept {
        // HSET clears the expiry of a field, HINCRBYFLOAT does not.
        let at = at.to_string();
        commands.push(owned(&[
            b"HPEXPIREAT",
            args[1],
            at.as_bytes(),
            b"FIELDS",
            b"1",
            args[2],
        ]));
    }
    Ok(Effect::Commands(commands))
}

/// The words of a command, to keep.
pub(super) fn owned(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

fn hrandfield(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut random = exec.random.fork();
    let Some(word) = args.get(2) else {
        let (hash, reply) = read_hash(exec, args[1])?;
        value_or_null(
            reply,
            hash.and_then(|hash| hash.random(&mut random))
                .map(|(field, _)| field),
        );
        return Ok(Effect::None);
    };
    let sample = Sample::parse(word)?;
    let with_values = match &args[3..] {
        [] => false,
        [word] if is(word, "withvalues") => true,
        _ => return Err(CommandError::SYNTAX),
    };
    if let Sample::Repeating(count) = sample
        && with_values
        && count > i64::MAX as usize / 2
    {
        return Err(CommandError::text("ERR value is out of range"));
    }
    if exec.is_too_long(sample.count()) {
        return Ok(Effect::Aside);
    }
    let reply_bytes_max = exec.settings.reply_bytes_max;
    let (hash, reply) = read_hash(exec, args[1])?;
    let Some(hash) = hash else {
        reply.array(0);
        return Ok(Effect::None);
    };
    match sample {
        Sample::Repeating(count) => {
            begin_pairs(reply, count, with_values);
            for _ in 0..count {
                if reply.len() > reply_bytes_max {
                    break;
                }
                let (field, value) = hash.random(&mut random).expect("a hash has a field");
                pair(reply, field, value, with_values);
            }
        }
        Sample::Distinct(count) => {
            let count = count.min(hash.len());
            begin_pairs(reply, count, with_values);
            if count == hash.len() {
                hash.iter()
                    .for_each(|(field, value)| pair(reply, field, value, with_values));
            } else {
                for (field, value) in choose(hash, count, &mut random) {
                    pair(reply, field, value, with_values);
                }
            }
        }
    }
    Ok(Effect::None)
}

/// `count` different fields, fewer than there are.
fn choose<'a>(
    hash: View<'a>,
    count: usize,
    random: &mut fastrand::Rng,
) -> Vec<(Element<'a>, Element<'a>)> {
    if hash.is_packed() || count * 3 >= hash.len() {
        let all: Vec<_> = hash.iter().collect();
        let indexes = collection::distinct_indexes(count, all.len(), random);
        return indexes.into_iter().map(|index| all[index]).collect();
    }
    let mut seen = std::collections::HashSet::new();
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let (field, value) = hash.random(random).expect("a hash has a field");
        if seen.insert(field.to_vec()) {
            chosen.push((field, value));
        }
    }
    chosen
}

fn begin_pairs(reply: &mut Reply, count: usize, with_values: bool) {
    let is_flat = with_values && reply.protocol() == Protocol::Resp2;
    reply.array(if is_flat { count * 2 } else { count });
}

fn pair(reply: &mut Reply, field: Element<'_>, value: Element<'_>, with_values: bool) {
    if with_values && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    bulk(reply, field);
    if with_values {
        bulk(reply, value);
    }
}

fn hscan(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let from = cursor(args[2])?;
    let options = ScanOptions::parse_for_fields(args, 3)?;
    let (hash, reply) = read_hash(exec, args[1])?;
    let mut found = Vec::new();
    let next = match hash {
        None => 0,
        Some(hash) => collection::scan(from, options.count, |place, seen| {
            hash.scan(place, |field, value| {
                *seen += 1;
                let field = field.to_vec();
                if options.fits(&field) {
                    found.push((field, value.to_vec()));
                }
            })
        }),
    };
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    let with_values = !options.is_without_values;
    reply.array(found.len() << u8::from(with_values));
    for (field, value) in &found {
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET s v
            HSET h a 1 b 2
            HSET h a 2 c 3
            HSET h a
            HSET h a 1 b
            HMSET h a 5 d 6
            HMSET h a 5 d
            HSET s a 1
            HGET h a
            HGET h none
            HGET none a
            HGET s a
            HMGET h a b none
            HMGET none a b
            HMGET s a
            HGETALL h
            HGETALL none
            HGETALL s
            HKEYS h
            HVALS h
            HKEYS none
            HLEN h
            HLEN none
            HSTRLEN h a
            HSTRLEN h none
            HSTRLEN none a
            HEXISTS h a
            HEXISTS h none
            HEXISTS none a
            HSETNX h a 9
            HSETNX h e 9
            HSETNX n e 9
            HINCRBY h a 10
            HINCRBY h new -5
            HINCRBY h a x
            HINCRBY h a 9223372036854775807
            HSET h t text
            HINCRBY h t 1
            HINCRBYFLOAT h t 1
            HINCRBYFLOAT h a 0.1
            HINCRBYFLOAT h fl 3.0e3
            HINCRBYFLOAT h fl x
            HINCRBYFLOAT h fl inf
            HINCRBYFLOAT h fl nan
            HINCRBY h fl 1
            HINCRBY s f 1
            HINCRBYFLOAT s f 1
            HDEL h a b none a
            HDEL h none
            HDEL none a
            HDEL s a
            HDEL n e
            EXISTS n
            HRANDFIELD none
            HRANDFIELD none 2
            HRANDFIELD none 2 WITHVALUES
            HSET one f v
            HRANDFIELD one
            HRANDFIELD one 5
            HRANDFIELD one -2
            HRANDFIELD one 0
            HRANDFIELD one 5 WITHVALUES
            HRANDFIELD one -2 WITHVALUES
            HRANDFIELD one x
            HRANDFIELD one 1 FOO
            HRANDFIELD one -9223372036854775808
            HRANDFIELD one -9223372036854775807 WITHVALUES
            HSCAN one 0
            HSCAN none 0
            HSCAN one x
            HSCAN one 0 MATCH z*
            HSCAN one 0 MATCH f* COUNT 10
            HSCAN one 0 COUNT 0
            HSCAN one 0 FOO
            HSCAN s 0
            HSET long f aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            OBJECT ENCODING long
            OBJECT ENCODING h
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("HSET h f 1", "HSET h f 1"),
            ("HINCRBY h f 2", "HINCRBY h f 2"),
            ("HINCRBYFLOAT h f 0.5", "HSET h f 3.5"),
            ("HSETNX h f 1", ""),
            ("HDEL h none", ""),
            ("HDEL h f", "HDEL h f"),
            ("HLEN h", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
