//! Lists.

use super::store::Data;
use super::table::Command;
use super::words::{Reader, count, index_range, int, is};
use super::{Args, Done, NO_KEY, Replay, SYNTAX, Stop};
use std::collections::VecDeque;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("LPUSH", -3, |replay, args| push(replay, args, End::Left)),
    Command::run("RPUSH", -3, |replay, args| push(replay, args, End::Right)),
    Command::run("LPUSHX", -3, |replay, args| push_to_list(replay, args, End::Left)),
    Command::run("RPUSHX", -3, |replay, args| push_to_list(replay, args, End::Right)),
    Command::run("LINSERT", 5, insert),
    Command::run("LPOP", -2, |replay, args| pop(replay, args, End::Left)),
    Command::run("RPOP", -2, |replay, args| pop(replay, args, End::Right)),
    Command::run("BLPOP", -3, |replay, args| pop_first(replay, args, End::Left)),
    Command::run("BRPOP", -3, |replay, args| pop_first(replay, args, End::Right)),
    Command::run("LMPOP", -4, |replay, args| pop_many(replay, &args[1..])),
    Command::run("BLMPOP", -5, |replay, args| pop_many(replay, &args[2..])),
    Command::run("LSET", 4, set),
    Command::run("LREM", 4, remove),
    Command::run("LTRIM", 4, trim),
    Command::run("RPOPLPUSH", 3, |replay, args| shift(replay, args[1], args[2], End::Right, End::Left)),
    Command::run("BRPOPLPUSH", 4, |replay, args| shift(replay, args[1], args[2], End::Right, End::Left)),
    Command::run("LMOVE", 5, shift_between),
    Command::run("BLMOVE", 6, shift_between),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl End {
    fn parse(word: &[u8]) -> Result<End, Stop> {
        if is(word, "LEFT") {
            Ok(End::Left)
        } else if is(word, "RIGHT") {
            Ok(End::Right)
        } else {
            Err(SYNTAX)
        }
    }

    fn push(self, list: &mut VecDeque<Vec<u8>>, element: Vec<u8>) {
        match self {
            End::Left => list.push_front(element),
            End::Right => list.push_back(element),
        }
    }

    fn pop(self, list: &mut VecDeque<Vec<u8>>) -> Option<Vec<u8>> {
        match self {
            End::Left => list.pop_front(),
            End::Right => list.pop_back(),
        }
    }
}

fn empty() -> Data {
    Data::List(VecDeque::new())
}

fn push(replay: &mut Replay, args: Args<'_>, end: End) -> Done {
    let list = replay.get_or_make(args[1], Data::list, empty)?;
    for element in &args[2..] {
        end.push(list, element.to_vec());
    }
    Ok(())
}

fn push_to_list(replay: &mut Replay, args: Args<'_>, end: End) -> Done {
    match replay.get(args[1], Data::list)? {
        Some(_) => push(replay, args, end),
        None => Ok(()),
    }
}

fn insert(replay: &mut Replay, args: Args<'_>) -> Done {
    let behind = match args[2] {
        word if is(word, "BEFORE") => 0,
        word if is(word, "AFTER") => 1,
        _ => return Err(SYNTAX),
    };
    if let Some(list) = replay.get(args[1], Data::list)?
        && let Some(at) = list.iter().position(|element| element == args[3])
    {
        list.insert(at + behind, args[4].to_vec());
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
    if let Some(list) = replay.get(key, Data::list)? {
        for _ in 0..many.min(list.len()) {
            end.pop(list);
        }
        replay.drop_empty(key);
    }
    Ok(())
}

/// From the first of several lists that is there.
fn pop_first(replay: &mut Replay, args: Args<'_>, end: End) -> Done {
    for key in &args[1..args.len() - 1] {
        if replay.get(key, Data::list)?.is_some() {
            return pop_from(replay, key, end, 1);
        }
    }
    Ok(())
}

fn pop_many(replay: &mut Replay, words: Args<'_>) -> Done {
    let mut words = Reader::new(words);
    let keys = words.keys()?;
    let end = End::parse(words.next()?)?;
    let mut many = 1;
    if words.skip("COUNT") {
        many = count(words.next()?)?;
    }
    words.end()?;
    if many == 0 {
        return Err(Stop::Refused("a count that is not above 0"));
    }
    for key in keys {
        if replay.get(key, Data::list)?.is_some() {
            return pop_from(replay, key, end, many);
        }
    }
    Ok(())
}

fn set(replay: &mut Replay, args: Args<'_>) -> Done {
    let index = int(args[2])?;
    let list = replay.get(args[1], Data::list)?.ok_or(NO_KEY)?;
    let index = if index < 0 {
        index + list.len() as i64
    } else {
        index
    };
    let element = usize::try_from(index)
        .ok()
        .and_then(|index| list.get_mut(index));
    *element.ok_or(Stop::Refused("no element at this index"))? = args[3].to_vec();
    Ok(())
}

fn remove(replay: &mut Replay, args: Args<'_>) -> Done {
    let many = int(args[2])?;
    let Some(list) = replay.get(args[1], Data::list)? else {
        return Ok(());
    };
    let mut left = match many {
        0 => usize::MAX,
        many => usize::try_from(many.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let mut stays = |element: &Vec<u8>| {
        let goes = left > 0 && element == args[3];
        left -= usize::from(goes);
        !goes
    };
    if many >= 0 {
        list.retain(stays);
    } else {
        let mut kept: VecDeque<_> = list.drain(..).rev().filter(&mut stays).collect();
        kept.make_contiguous().reverse();
        *list = kept;
    }
    replay.drop_empty(args[1]);
    Ok(())
}

fn trim(replay: &mut Replay, args: Args<'_>) -> Done {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    if let Some(list) = replay.get(args[1], Data::list)? {
        let kept = index_range(start, stop, list.len());
        list.truncate(kept.end);
        list.drain(..kept.start);
        replay.drop_empty(args[1]);
    }
    Ok(())
}

fn shift(replay: &mut Replay, source: &[u8], target: &[u8], from: End, to: End) -> Done {
    if replay.get(source, Data::list)?.is_none() {
        return Ok(());
    }
    replay.get(target, Data::list)?;
    let element = replay
        .get(source, Data::list)?
        .and_then(|list| from.pop(list));
    if let Some(element) = element {
        to.push(replay.get_or_make(target, Data::list, empty)?, element);
    }
    replay.drop_empty(source);
    Ok(())
}

fn shift_between(replay: &mut Replay, args: Args<'_>) -> Done {
    let (from, to) = (End::parse(args[3])?, End::parse(args[4])?);
    shift(replay, args[1], args[2], from, to)
}
