//! Sorted sets: ranges by rank, by score and by name.

use super::store::{Data, ZSet};
use super::table::Command;
use super::words::{Reader, float, index_range, int};
use super::{Args, Done, Replay, SYNTAX, Stop};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("ZREMRANGEBYSCORE", 4, |replay, args| remove(replay, args[1], &Range::by_score(args[2], args[3])?)),
    Command::run("ZREMRANGEBYRANK", 4, |replay, args| remove(replay, args[1], &Range::by_rank(args[2], args[3])?)),
    Command::run("ZREMRANGEBYLEX", 4, |replay, args| remove(replay, args[1], &Range::by_name(args[2], args[3])?)),
    Command::run("ZRANGESTORE", -5, store),
];

/// A part of a sorted set.
enum Range<'a> {
    Rank(i64, i64),
    /// From and to; true: without that score itself.
    Score((f64, bool), (f64, bool)),
    Name(Bound<'a>, Bound<'a>),
}

enum Bound<'a> {
    Lowest,
    Highest,
    With(&'a [u8]),
    Without(&'a [u8]),
}

impl<'a> Range<'a> {
    fn by_rank(start: &[u8], stop: &[u8]) -> Result<Self, Stop> {
        Ok(Range::Rank(int(start)?, int(stop)?))
    }

    fn by_score(min: &[u8], max: &[u8]) -> Result<Self, Stop> {
        let bound = |word: &[u8]| {
            let (number, without) = match word {
                [b'(', rest @ ..] => (rest, true),
                all => (all, false),
            };
            // C reads nothing as zero, and servers look no closer here.
            let number = if number.is_empty() { b"0" } else { number };
            Ok((float(number)?, without))
        };
        Ok(Range::Score(bound(min)?, bound(max)?))
    }

    fn by_name(min: &'a [u8], max: &'a [u8]) -> Result<Self, Stop> {
        let bound = |word: &'a [u8]| match word {
            b"-" => Ok(Bound::Lowest),
            b"+" => Ok(Bound::Highest),
            [b'[', name @ ..] => Ok(Bound::With(name)),
            [b'(', name @ ..] => Ok(Bound::Without(name)),
            _ => Err(Stop::Refused("no bound of a range by name")),
        };
        Ok(Range::Name(bound(min)?, bound(max)?))
    }

    /// What lies in the range, in order. A rank counts from the end if `is_reverse`.
    fn of(&self, zset: &ZSet, is_reverse: bool) -> Vec<(Vec<u8>, f64)> {
        let own = |(member, score): (&[u8], f64)| (member.to_vec(), score);
        match self {
            Range::Rank(start, stop) => {
                let len = zset.len();
                let mut range = index_range(*start, *stop, len);
                if is_reverse {
                    range = len - range.end..len - range.start;
                }
                let from_end = len - range.end;
                if range.start <= from_end {
                    return zset
                        .iter()
                        .skip(range.start)
                        .take(range.len())
                        .map(own)
                        .collect();
                }
                let tail = zset.iter().rev().skip(from_end).take(range.len());
                let mut tail: Vec<_> = tail.map(own).collect();
                tail.reverse();
                tail
            }
            Range::Score((min, without_min), (max, without_max)) => zset
                .iter_from(*min)
                .skip_while(|(_, score)| *without_min && score == min)
                .take_while(|(_, score)| score < max || score == max && !without_max)
                .map(own)
                .collect(),
            // Servers look at both ends first, which shows where scores differ.
            Range::Name(min, max)
                if !{ zset.iter().next_back() }.is_some_and(|(last, _)| min.is_below(last))
                    || !{ zset.iter().next() }.is_some_and(|(first, _)| max.is_above(first)) =>
            {
                Vec::new()
            }
            Range::Name(min, max) => zset
                .iter()
                .skip_while(|(member, _)| !min.is_below(member))
                .take_while(|(member, _)| max.is_above(member))
                .map(own)
                .collect(),
        }
    }
}

impl Bound<'_> {
    fn is_below(&self, member: &[u8]) -> bool {
        match self {
            Bound::Lowest => true,
            Bound::Highest => false,
            Bound::With(name) => member >= *name,
            Bound::Without(name) => member > *name,
        }
    }

    fn is_above(&self, member: &[u8]) -> bool {
        match self {
            Bound::Lowest => false,
            Bound::Highest => true,
            Bound::With(name) => member <= *name,
            Bound::Without(name) => member < *name,
        }
    }
}

fn remove(replay: &mut Replay, key: &[u8], range: &Range<'_>) -> Done {
    if let Some(zset) = replay.get(key, Data::zset)? {
        for (member, _) in range.of(zset, false) {
            zset.remove(&member);
        }
        replay.drop_empty(key);
    }
    Ok(())
}

fn store(replay: &mut Replay, args: Args<'_>) -> Done {
    let (target, source, mut min, mut max) = (args[1], args[2], args[3], args[4]);
    let mut words = Reader::new(&args[5..]);
    let (mut by_score, mut by_name, mut is_reverse, mut limit) = (false, false, false, None);
    while !words.is_empty() {
        if words.skip("BYSCORE") {
            by_score = true;
        } else if words.skip("BYLEX") {
            by_name = true;
        } else if words.skip("REV") {
            is_reverse = true;
        } else if words.skip("LIMIT") {
            limit = Some((int(words.next()?)?, int(words.next()?)?));
        } else {
            return Err(SYNTAX);
        }
    }
    if by_score && by_name || limit.is_some() && !by_score && !by_name {
        return Err(SYNTAX);
    }
    if is_reverse && (by_score || by_name) {
        std::mem::swap(&mut min, &mut max);
    }
    let range = if by_score {
        Range::by_score(min, max)?
    } else if by_name {
        Range::by_name(min, max)?
    } else {
        Range::by_rank(min, max)?
    };
    let mut found = match replay.get(source, Data::zset)? {
        Some(zset) => range.of(zset, is_reverse),
        None => Vec::new(),
    };
    if is_reverse {
        found.reverse();
    }
    if let Some((offset, many)) = limit {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let many = usize::try_from(many).unwrap_or(usize::MAX);
        found = found.into_iter().skip(offset).take(many).collect();
    }
    let zset = found
        .iter()
        .map(|(member, score)| (&member[..], *score))
        .collect();
    replay.put(target, Data::ZSet(zset));
    Ok(())
}
