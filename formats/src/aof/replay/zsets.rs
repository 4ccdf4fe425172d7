//! Sorted sets: members by name.

use super::store::{Data, ZSet};
use super::table::Command;
use super::words::{Reader, count, float, is};
use super::{Args, Done, Replay, SYNTAX, Stop};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("ZADD", -4, add),
    Command::run("ZINCRBY", 4, |replay, args| add_all(replay, args[1], &args[2..], Flags { incr: true, ..Flags::default() })),
    Command::run("ZREM", -3, remove),
    Command::run("ZPOPMIN", -2, |replay, args| pop(replay, args, End::Min)),
    Command::run("ZPOPMAX", -2, |replay, args| pop(replay, args, End::Max)),
    Command::run("BZPOPMIN", -3, |replay, args| pop_first(replay, args, End::Min)),
    Command::run("BZPOPMAX", -3, |replay, args| pop_first(replay, args, End::Max)),
    Command::run("ZMPOP", -4, |replay, args| pop_many(replay, &args[1..])),
    Command::run("BZMPOP", -5, |replay, args| pop_many(replay, &args[2..])),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

/// The options of ZADD that change what it does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    pub nx: bool,
    pub xx: bool,
    pub gt: bool,
    pub lt: bool,
    pub incr: bool,
}

pub(super) fn empty() -> Data {
    Data::ZSet(ZSet::default())
}

fn add(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut flags = Flags::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        if is(word, "NX") {
            flags.nx = true;
        } else if is(word, "XX") {
            flags.xx = true;
        } else if is(word, "GT") {
            flags.gt = true;
        } else if is(word, "LT") {
            flags.lt = true;
        } else if is(word, "INCR") {
            flags.incr = true;
        } else if !is(word, "CH") {
            break;
        }
        at += 1;
    }
    if flags.nx && (flags.xx || flags.gt || flags.lt) || flags.gt && flags.lt {
        return Err(SYNTAX);
    }
    add_all(replay, args[1], &args[at..], flags)
}

/// `pairs`: scores and members in turn.
pub(super) fn add_all(replay: &mut Replay, key: &[u8], pairs: Args<'_>, flags: Flags) -> Done {
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) || flags.incr && pairs.len() > 2 {
        return Err(SYNTAX);
    }
    let members = pairs
        .chunks_exact(2)
        .map(|pair| Ok((float(pair[0])?, pair[1])));
    let members = members.collect::<Result<Vec<_>, Stop>>()?;
    if replay.get(key, Data::zset)?.is_none() && flags.xx {
        return Ok(());
    }
    let zset = replay.get_or_make(key, Data::zset, empty)?;
    for (score, member) in members {
        let Some(old) = zset.score(member) else {
            if !flags.xx {
                zset.insert(member, score);
            }
            continue;
        };
        let score = if flags.incr { old + score } else { score };
        if score.is_nan() {
            return Err(Stop::Refused("the sum is no number"));
        }
        let is_kept = flags.nx || flags.gt && score <= old || flags.lt && score >= old;
        if !is_kept && score != old {
            zset.insert(member, score);
        }
    }
    Ok(())
}

fn remove(replay: &mut Replay, args: Args<'_>) -> Done {
    if let Some(zset) = replay.get(args[1], Data::zset)? {
        for member in &args[2..] {
            zset.remove(member);
        }
        replay.drop_empty(args[1]);
    }
    Ok(())
}

fn pop(replay: &mut Replay, args: Args<'_>, end: End) -> Done {
    let many = match &args[2..] {
        [] => 1,
        [many] => count(many)?,
        _ => return Err(SYNTAX),
    };
    pop_from(replay, args[1], end, many)
}

fn pop_from(replay: &mut Replay, key: &[u8], end: End, many: usize) -> Done {
    if let Some(zset) = replay.get(key, Data::zset)? {
        for _ in 0..many.min(zset.len()) {
            let next = match end {
                End::Min => zset.iter().next(),
                End::Max => zset.iter().next_back(),
            };
            if let Some(member) = next.map(|(member, _)| member.to_vec()) {
                zset.remove(&member);
            }
        }
        replay.drop_empty(key);
    }
    Ok(())
}

/// From the first of several sorted sets that is there.
fn pop_first(replay: &mut Replay, args: Args<'_>, end: End) -> Done {
    for key in &args[1..args.len() - 1] {
        if replay.get(key, Data::zset)?.is_some() {
            return pop_from(replay, key, end, 1);
        }
    }
    Ok(())
}

fn pop_many(replay: &mut Replay, words: Args<'_>) -> Done {
    let mut words = Reader::new(words);
    let keys = words.keys()?;
    let end = match words.next()? {
        word if is(word, "MIN") => End::Min,
        word if is(word, "MAX") => End::Max,
        _ => return Err(SYNTAX),
    };
    let mut many = 1;
    if words.skip("COUNT") {
        many = count(words.next()?)?;
    }
    words.end()?;
    if many == 0 {
        return Err(Stop::Refused("a count that is not above 0"));
    }
    for key in keys {
        if replay.get(key, Data::zset)?.is_some() {
            return pop_from(replay, key, end, many);
        }
    }
    Ok(())
}
