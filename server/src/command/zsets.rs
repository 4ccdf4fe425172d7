//! Sorted sets: members and scores. Ranges are in `zset_ranges`, unions and the like in `zset_algebra`.

use dfsnap_formats::double::DoubleText;
use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::{Protocol, Reply};

use super::collection::{self, Sample, bulk, peek, read, update, update_or_insert};
use super::words::{ScanOptions, count, counted_keys, cursor, float, int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::zset::ZSet;

const MPOP: KeySpec = KeySpec::Counted {
    dest: None,
    count: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("zadd", -4, Flags::WRITE_OOM_FAST, KeySpec::ONE, zadd)
        .about(Group::SortedSet, "1.2.0", "Adds members, or sets their scores."),
    Command::keyed("zcard", 2, Flags::READ_FAST, KeySpec::ONE, zcard)
        .about(Group::SortedSet, "1.2.0", "The number of members."),
    Command::keyed("zincrby", 4, Flags::WRITE_OOM_FAST, KeySpec::ONE, zincrby)
        .about(Group::SortedSet, "1.2.0", "Adds to the score of a member."),
    Command::keyed("zmpop", -4, Flags::WRITE.with(Flags::MOVABLEKEYS), MPOP, zmpop)
        .about(Group::SortedSet, "7.0.0", "Takes members from the first of several sorted sets that has any."),
    Command::keyed("zmscore", -3, Flags::READ_FAST, KeySpec::ONE, zmscore)
        .about(Group::SortedSet, "6.2.0", "The scores of several members."),
    Command::keyed("zpopmax", -2, Flags::WRITE_FAST, KeySpec::ONE, zpopmax)
        .about(Group::SortedSet, "5.0.0", "Takes members with the highest scores."),
    Command::keyed("zpopmin", -2, Flags::WRITE_FAST, KeySpec::ONE, zpopmin)
        .about(Group::SortedSet, "5.0.0", "Takes members with the lowest scores."),
    Command::keyed("zrandmember", -2, Flags::READONLY, KeySpec::ONE, zrandmember)
        .about(Group::SortedSet, "6.2.0", "Members chosen at random."),
    Command::keyed("zrank", -3, Flags::READ_FAST, KeySpec::ONE, zrank)
        .about(Group::SortedSet, "2.0.0", "The place of a member, counted from the lowest score."),
    Command::keyed("zrem", -3, Flags::WRITE_FAST, KeySpec::ONE, zrem)
        .about(Group::SortedSet, "1.2.0", "Removes members."),
    Command::keyed("zrevrank", -3, Flags::READ_FAST, KeySpec::ONE, zrevrank)
        .about(Group::SortedSet, "2.0.0", "The place of a member, counted from the highest score."),
    Command::keyed("zscan", -3, Flags::READONLY, KeySpec::ONE, zscan)
        .about(Group::SortedSet, "2.8.0", "Walks the members, some at a time."),
    Command::keyed("zscore", 3, Flags::READ_FAST, KeySpec::ONE, zscore)
        .about(Group::SortedSet, "1.2.0", "The score of a member."),
];

const NOT_A_NUMBER: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");

#[derive(Default)]
struct AddOptions {
    only_new: bool,
    only_old: bool,
    greater: bool,
    less: bool,
    changed: bool,
    increment: bool,
}

impl AddOptions {
    /// Reads the options and returns the words after them.
    fn parse<'a>(mut words: Args<'a>) -> Result<(AddOptions, Args<'a>), CommandError> {
        let mut options = AddOptions::default();
        while let [word, rest @ ..] = words {
            match word {
                word if is(word, "nx") => options.only_new = true,
                word if is(word, "xx") => options.only_old = true,
                word if is(word, "gt") => options.greater = true,
                word if is(word, "lt") => options.less = true,
                word if is(word, "ch") => options.changed = true,
                word if is(word, "incr") => options.increment = true,
                _ => break,
            }
            words = rest;
        }
        if words.is_empty() || words.len() % 2 == 1 {
            return Err(CommandError::SYNTAX);
        }
        if options.only_new && options.only_old {
            return Err(CommandError::text(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if (options.greater && (options.less || options.only_new))
            || (options.less && options.only_new)
        {
            return Err(CommandError::text(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if options.increment && words.len() > 2 {
            return Err(CommandError::text(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok((options, words))
    }

    /// The score that a member gets, if the options let it have another one.
    fn apply(&self, old: Option<f64>, wanted: f64) -> Result<Option<f64>, CommandError> {
        let Some(old) = old else {
            return Ok((!self.only_old).then_some(wanted));
        };
        if self.only_new {
            return Ok(None);
        }
        let new = if self.increment { old + wanted } else { wanted };
        if new.is_nan() {
            return Err(NOT_A_NUMBER);
        }
        let is_refused = (self.greater && new <= old) || (self.less && new >= old);
        Ok((!is_refused).then_some(new))
    }
}

pub(super) fn zadd(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (options, words) = AddOptions::parse(&args[2..])?;
    add(exec, args[1], &options, words)
}

fn zincrby(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = AddOptions {
        increment: true,
        ..AddOptions::default()
    };
    add(exec, args[1], &options, &args[2..])
}

fn add(exec: &mut Exec<'_>, key: &[u8], options: &AddOptions, words: Args<'_>) -> CommandResult {
    let mut pairs = Vec::with_capacity(words.len() / 2);
    for pair in words.chunks_exact(2) {
        pairs.push((float(pair[0])?, pair[1]));
    }
    // What would happen to each member as things are now: if nothing, the entry is left alone.
    let set = peek::<ZSet>(exec, key)?;
    let (mut changes, mut refused) = (false, false);
    for (wanted, member) in &pairs {
        let old = set.and_then(|set| set.score(member));
        let new = options.apply(old, *wanted)?;
        refused = new.is_none();
        changes |= new.is_some() && new != old;
    }
    if options.increment && refused {
        exec.reply.null();
        return Ok(Effect::None);
    }
    let (mut added, mut updated, mut last) = (0, 0, 0.0);
    if changes {
        let limits = &exec.settings.limits;
        let set: &mut ZSet = update_or_insert(exec, key);
        for (wanted, member) in &pairs {
            let old = set.score(member);
            let Some(new) = options.apply(old, *wanted)? else {
                continue;
            };
            set.insert(member, new, limits);
            last = new;
            added += i64::from(old.is_none());
            updated += i64::from(old.is_some_and(|old| old != new));
        }
    } else if options.increment {
        last = set.and_then(|set| set.score(pairs[0].1)).unwrap_or(0.0);
    }
    if options.increment {
        exec.reply.double(last);
    } else {
        exec.reply.int(if options.changed {
            added + updated
        } else {
            added
        });
    }
    Ok(Effect::verbatim_if(changes))
}

fn zrem(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let set = peek::<ZSet>(exec, args[1])?;
    let has_any = set.is_some_and(|set| args[2..].iter().any(|member| set.score(member).is_some()));
    let mut removed = 0;
    if has_any {
        let set: &mut ZSet = update(exec, args[1]);
        removed = args[2..]
            .iter()
            .filter(|member| set.remove(member).is_some())
            .count();
        exec.remove_if_empty(args[1]);
    }
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(has_any))
}

fn zcard(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    reply.int(set.map_or(0, ZSet::len) as i64);
    Ok(Effect::None)
}

fn score_or_null(reply: &mut Reply, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zscore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    score_or_null(reply, set.and_then(|set| set.score(args[2])));
    Ok(Effect::None)
}

fn zmscore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    reply.array(args.len() - 2);
    args[2..]
        .iter()
        .for_each(|member| score_or_null(reply, set.and_then(|set| set.score(member))));
    Ok(Effect::None)
}

fn zrank(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_rank(exec, args, "zrank", |rank, _| rank)
}

fn zrevrank(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_rank(exec, args, "zrevrank", |rank, len| len - 1 - rank)
}

fn reply_rank(
    exec: &mut Exec<'_>,
    args: Args<'_>,
    name: &str,
    form: fn(usize, usize) -> usize,
) -> CommandResult {
    let with_score = match &args[3..] {
        [] => false,
        [word] if is(word, "withscore") => true,
        [_] => return Err(CommandError::SYNTAX),
        _ => return Err(CommandError::wrong_arity(name)),
    };
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    match set.and_then(|set| Some((set.rank(args[2])?, set.len()))) {
        None if with_score => reply.null_array(),
        None => reply.null(),
        Some(((rank, score), len)) => {
            if with_score {
                reply.array(2);
            }
            reply.int(form(rank, len) as i64);
            if with_score {
                reply.double(score);
            }
        }
    }
    Ok(Effect::None)
}

/// The header of a reply of `count` members, as a flat array in RESP2 and as pairs in RESP3 if they have scores.
pub(super) fn begin_members(reply: &mut Reply, count: usize, with_scores: bool) {
    let is_flat = with_scores && reply.protocol() == Protocol::Resp2;
    reply.array(if is_flat { count * 2 } else { count });
}

/// A member of such a reply.
pub(super) fn member(reply: &mut Reply, member: Element<'_>, score: f64, with_scores: bool) {
    if with_scores && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    bulk(reply, member);
    if with_scores {
        reply.double(score);
    }
}

fn zpopmin(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    pop(exec, args, false)
}

fn zpopmax(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    pop(exec, args, true)
}

fn pop(exec: &mut Exec<'_>, args: Args<'_>, is_max: bool) -> CommandResult {
    let wanted = match &args[2..] {
        [] => None,
        [word] => Some(count(word)?),
        _ => return Err(CommandError::SYNTAX),
    };
    let len = peek::<ZSet>(exec, args[1])?.map_or(0, ZSet::len);
    let number = wanted.unwrap_or(1).min(len);
    if number == 0 {
        exec.reply.array(0);
        return Ok(Effect::None);
    }
    let taken = take(exec, args[1], number, is_max);
    match wanted {
        None => exec.reply.array(2),
        Some(_) => begin_members(exec.reply, taken.len(), true),
    }
    for (text, score) in &taken {
        match wanted {
            None => {
                exec.reply.bulk(text);
                exec.reply.double(*score);
            }
            Some(_) => member(exec.reply, Element::Str(text), *score, true),
        }
    }
    Ok(Effect::Verbatim)
}

/// Takes this many members, which are there, from one end.
pub(super) fn take(
    exec: &mut Exec<'_>,
    key: &[u8],
    number: usize,
    is_max: bool,
) -> Vec<(Vec<u8>, f64)> {
    let set: &mut ZSet = update(exec, key);
    let owned = |(member, score): (Element<'_>, f64)| (member.to_vec(), score);
    let len = set.len();
    let (taken, gone): (Vec<_>, _) = if is_max {
        (
            set.iter().rev().take(number).map(owned).collect(),
            len - number..len,
        )
    } else {
        (set.iter().take(number).map(owned).collect(), 0..number)
    };
    set.remove_range(gone);
    exec.remove_if_empty(key);
    taken
}

pub(super) fn zmpop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const TOO_FEW: &str = "numkeys should be greater than 0";
    int(args[1]).map_err(|_| CommandError::new(TOO_FEW))?;
    let (keys, options) = counted_keys(args, 1, TOO_FEW)?;
    let is_max = match options.first() {
        Some(word) if is(word, "min") => false,
        Some(word) if is(word, "max") => true,
        _ => return Err(CommandError::SYNTAX),
    };
    let wanted = match &options[1..] {
        [] => 1,
        [word, number] if is(word, "count") => {
            let number = int(number)
                .ok()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| *number > 0);
            number.ok_or(CommandError::text("ERR count should be greater than 0"))?
        }
        _ => return Err(CommandError::SYNTAX),
    };
    for key in keys {
        let Some(len) = peek::<ZSet>(exec, key)?.map(ZSet::len) else {
            continue;
        };
        let taken = take(exec, key, wanted.min(len), is_max);
        exec.reply.array(2);
        exec.reply.bulk(key);
        exec.reply.array(taken.len());
        for (member, score) in &taken {
            exec.reply.array(2);
            exec.reply.bulk(member);
            exec.reply.double(*score);
        }
        let name: &[u8] = if is_max { b"ZPOPMAX" } else { b"ZPOPMIN" };
        return Ok(Effect::command(&[
            name,
            key,
            taken.len().to_string().as_bytes(),
        ]));
    }
    exec.reply.null_array();
    Ok(Effect::None)
}

fn zrandmember(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut random = exec.random.fork();
    let Some(word) = args.get(2) else {
        let (set, reply) = read::<ZSet>(exec, args[1])?;
        match set.and_then(|set| set.nth(random.usize(..set.len()))) {
            Some((member, _)) => bulk(reply, member),
            None => reply.null(),
        }
        return Ok(Effect::None);
    };
    let sample = Sample::parse(word)?;
    let with_scores = match &args[3..] {
        [] => false,
        [word] if is(word, "withscores") => true,
        _ => return Err(CommandError::SYNTAX),
    };
    if let Sample::Repeating(count) = sample
        && with_scores
        && count > i64::MAX as usize / 2
    {
        return Err(CommandError::text("ERR value is out of range"));
    }
    if exec.is_too_long(sample.count()) {
        return Ok(Effect::Aside);
    }
    let reply_bytes_max = exec.settings.reply_bytes_max;
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    let Some(set) = set else {
        reply.array(0);
        return Ok(Effect::None);
    };
    let len = set.len();
    let at = |index| set.nth(index).expect("an index below the length");
    match sample {
        Sample::Repeating(count) => {
            begin_members(reply, count, with_scores);
            for _ in 0..count {
                if reply.len() > reply_bytes_max {
                    break;
                }
                let (name, score) = at(random.usize(..len));
                member(reply, name, score, with_scores);
            }
        }
        Sample::Distinct(count) if count >= len => {
            begin_members(reply, len, with_scores);
            set.iter()
                .for_each(|(name, score)| member(reply, name, score, with_scores));
        }
        Sample::Distinct(count) => {
            begin_members(reply, count, with_scores);
            for index in collection::distinct_indexes(count, len, &mut random) {
                let (name, score) = at(index);
                member(reply, name, score, with_scores);
            }
        }
    }
    Ok(Effect::None)
}

fn zscan(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let from = cursor(args[2])?;
    let options = ScanOptions::parse(args, 3)?;
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    let mut found = Vec::new();
    let next = match set {
        None => 0,
        Some(set) => collection::scan(from, options.count, |place, seen| {
            set.scan(place, |member, score| {
                *seen += 1;
                let member = member.to_vec();
                if options.fits(&member) {
                    found.push((member, score));
                }
            })
        }),
    };
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len() * 2);
    for (member, score) in &found {
        reply.bulk(member);
        reply.bulk(DoubleText::score(*score).as_bytes());
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
            ZADD z 1 a 2 b 3 c
            ZADD z 1 a 2.5 b
            ZADD z CH 1 a 3.5 b 4 d
            ZADD z NX 9 a 9 e
            ZADD z XX 9 zz 8 a
            ZADD z GT 1 a 9 b
            ZADD z LT CH 1 a 99 b
            ZADD z NX GT 1 a
            ZADD z NX XX 1 a
            ZADD z GT LT 1 a
            ZADD z INCR 1 a 2 b
            ZADD z INCR 1 a
            ZADD z NX INCR 1 a
            ZADD z XX INCR 1 nope
            ZADD z GT INCR -1 a
            ZADD z 1
            ZADD z x a
            ZADD z nan a
            ZADD z 1 a 2
            ZADD none XX 1 a
            ZADD none XX INCR 1 a
            ZADD s 1 a
            ZADD i +inf a -inf b inf c
            ZADD z INCR 0 a
            ZSCORE i a
            ZSCORE i b
            ZINCRBY i -inf a
            ZINCRBY z 1.5 a
            ZINCRBY z -1 new
            ZINCRBY z x a
            ZINCRBY s 1 a
            ZCARD z
            ZCARD none
            ZCARD s
            ZSCORE z a
            ZSCORE z nope
            ZSCORE none a
            ZMSCORE z a nope b
            ZMSCORE none a
            ZRANK z a
            ZRANK z nope
            ZRANK none a
            ZREVRANK z a
            ZRANGE z 0 -1 WITHSCORES
            ZREM z a nope
            ZREM z nope
            ZREM none a
            ZREM s a
            ZPOPMIN z
            ZPOPMIN z 0
            ZPOPMIN z -1
            ZPOPMIN z x
            ZPOPMIN z 1 2
            ZPOPMAX z 2
            ZPOPMAX z 100
            EXISTS z
            ZPOPMIN none
            ZPOPMIN none 2
            ZADD m 1 a 2 b 3 c
            ZMPOP 2 none m MIN
            ZMPOP 1 m MAX COUNT 5
            ZMPOP 1 m MIN
            ZMPOP 0 m MIN
            ZMPOP x m MIN
            ZMPOP 1 m FOO
            ZMPOP 1 m MIN COUNT 0
            ZMPOP 2 m MIN
            ZMPOP 1 s MIN
            ZADD one 1.5 a
            ZRANDMEMBER one
            ZRANDMEMBER none
            ZRANDMEMBER none 1
            ZRANDMEMBER one 5
            ZRANDMEMBER one -2 WITHSCORES
            ZRANDMEMBER one 5 WITHSCORES
            ZRANDMEMBER one 0
            ZRANDMEMBER one 1 FOO
            ZRANDMEMBER one -9223372036854775807 WITHSCORES
            ZSCAN one 0
            ZSCAN none 0
            ZSCAN one 0 MATCH b*
            ZADD big 9007199254740992 a 1e20 b 123456789 c 3.0 d
            ZRANGE big 0 -1 WITHSCORES
            OBJECT ENCODING one
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("ZADD z 1 a 2 b", "ZADD z 1 a 2 b"),
            ("ZADD z 1 a", ""),
            ("ZADD z NX 5 a", ""),
            ("ZADD z INCR 1 a", "ZADD z INCR 1 a"),
            ("ZINCRBY z 0 a", ""),
            ("ZMPOP 2 none z MAX COUNT 1", "ZPOPMAX z 1"),
            ("ZREM z none", ""),
            ("ZPOPMIN z 9", "ZPOPMIN z 9"),
            ("ZPOPMIN z", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
        bench.run("ZADD r 1 a 2 b");
        assert_eq!(
            bench.run("ZRANK r b WITHSCORE").0,
            "*2\\r\\n:1\\r\\n$1\\r\\n2\\r\\n"
        );
        assert_eq!(bench.run("ZRANK r c WITHSCORE").0, "*-1\\r\\n");
    }
}
