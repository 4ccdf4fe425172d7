//! Ranges of sorted sets: by rank, by score, by member.

use std::ops::Range;

use dfsnap_formats::double;
use dfsnap_formats::encoding::listpack::Element;

use super::collection::{peek, read, update};
use super::words::{index_range, int, is};
use super::zsets::{begin_members, member};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::Collection;
use crate::keyspace::value::zset::ZSet;

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("zcount", 4, Flags::READ_FAST, KeySpec::ONE, zcount)
        .about(Group::SortedSet, "2.0.0", "The number of members with scores in a range."),
    Command::keyed("zlexcount", 4, Flags::READ_FAST, KeySpec::ONE, zlexcount)
        .about(Group::SortedSet, "2.8.9", "The number of members in a range of members."),
    Command::keyed("zrange", -4, Flags::READONLY, KeySpec::ONE, zrange)
        .about(Group::SortedSet, "1.2.0", "A range of members."),
    Command::keyed("zrangebylex", -4, Flags::READONLY, KeySpec::ONE, zrangebylex)
        .about(Group::SortedSet, "2.8.9", "Members in a range of members."),
    Command::keyed("zrangebyscore", -4, Flags::READONLY, KeySpec::ONE, zrangebyscore)
        .about(Group::SortedSet, "1.0.5", "Members with scores in a range."),
    Command::keyed("zrangestore", -5, Flags::WRITE_OOM, KeySpec::TWO, zrangestore)
        .about(Group::SortedSet, "6.2.0", "Stores a range of members."),
    Command::keyed("zremrangebylex", 4, Flags::WRITE, KeySpec::ONE, zremrangebylex)
        .about(Group::SortedSet, "2.8.9", "Removes members in a range of members."),
    Command::keyed("zremrangebyrank", 4, Flags::WRITE, KeySpec::ONE, zremrangebyrank)
        .about(Group::SortedSet, "2.0.0", "Removes members in a range of places."),
    Command::keyed("zremrangebyscore", 4, Flags::WRITE, KeySpec::ONE, zremrangebyscore)
        .about(Group::SortedSet, "1.2.0", "Removes members with scores in a range."),
    Command::keyed("zrevrange", -4, Flags::READONLY, KeySpec::ONE, zrevrange)
        .about(Group::SortedSet, "1.2.0", "A range of members, highest score first."),
    Command::keyed("zrevrangebylex", -4, Flags::READONLY, KeySpec::ONE, zrevrangebylex)
        .about(Group::SortedSet, "2.8.9", "Members in a range of members, highest first."),
    Command::keyed("zrevrangebyscore", -4, Flags::READONLY, KeySpec::ONE, zrevrangebyscore)
        .about(Group::SortedSet, "2.2.0", "Members with scores in a range, highest first."),
];

/// A number as the C library reads one: blanks may stand before it, and nothing at all is 0.
fn c_double(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    double::parse(text.trim_ascii_start())
}

/// An end of a range of scores.
#[derive(Clone, Copy)]
struct ScoreBound {
    score: f64,
    is_exclusive: bool,
}

impl ScoreBound {
    fn parse(word: &[u8]) -> Result<ScoreBound, CommandError> {
        let (text, is_exclusive) = match word {
            [b'(', rest @ ..] => (rest, true),
            _ => (word, false),
        };
        match c_double(text).filter(|score| !score.is_nan()) {
            Some(score) => Ok(ScoreBound {
                score,
                is_exclusive,
            }),
            None => Err(CommandError::text("ERR min or max is not a float")),
        }
    }
}

/// An end of a range of members.
#[derive(Clone, Copy)]
enum LexBound<'a> {
    Lowest,
    Highest,
    At {
        member: &'a [u8],
        is_exclusive: bool,
    },
}

impl<'a> LexBound<'a> {
    fn parse(word: &'a [u8]) -> Result<LexBound<'a>, CommandError> {
        match word {
            b"-" => Ok(LexBound::Lowest),
            b"+" => Ok(LexBound::Highest),
            [b'[', member @ ..] => Ok(LexBound::At {
                member,
                is_exclusive: false,
            }),
            [b'(', member @ ..] => Ok(LexBound::At {
                member,
                is_exclusive: true,
            }),
            _ => Err(CommandError::text(
                "ERR min or max not valid string range item",
            )),
        }
    }

    /// Whether a member stands before a range that begins (or, for an end, goes on) here.
    fn is_above(self, member: Element<'_>, is_end: bool) -> bool {
        match self {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::At {
                member: bound,
                is_exclusive,
            } => {
                let mut buffer = itoa::Buffer::new();
                let member = member.text(&mut buffer);
                if is_exclusive != is_end {
                    member <= bound
                } else {
                    member < bound
                }
            }
        }
    }
}

/// What a range is of.
#[derive(Clone, Copy)]
enum Span<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

impl<'a> Span<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Span<'a>, CommandError> {
        Ok(match by {
            By::Rank => Span::Rank(int(min)?, int(max)?),
            By::Score => Span::Score(ScoreBound::parse(min)?, ScoreBound::parse(max)?),
            By::Lex => Span::Lex(LexBound::parse(min)?, LexBound::parse(max)?),
        })
    }

    /// The ranks in this span, counted from the lowest.
    fn ranks(self, set: &ZSet) -> Range<usize> {
        let (from, to) = match self {
            Span::Rank(start, stop) => return index_range(start, stop, set.len()),
            Span::Score(min, max) => (
                set.partition_point(|score, _| {
                    score < min.score || (min.is_exclusive && score == min.score)
                }),
                set.partition_point(|score, _| {
                    score < max.score || (!max.is_exclusive && score == max.score)
                }),
            ),
            Span::Lex(min, max) => (
                set.partition_point(|_, member| min.is_above(member, false)),
                set.partition_point(|_, member| max.is_above(member, true)),
            ),
        };
        from..to.max(from)
    }
}

/// A whole ZRANGE: what of, in which direction, how much of it.
struct Request<'a> {
    span: Span<'a>,
    is_reverse: bool,
    /// Members to skip (negative: all of them) and to take (negative: all that is left).
    limit: (i64, i64),
    with_scores: bool,
}

impl<'a> Request<'a> {
    /// Reads `min max options…`. A fixed `by` and direction leave only the options of the older commands.
    fn parse(
        words: Args<'a>,
        fixed: Option<(By, bool)>,
        is_store: bool,
    ) -> Result<Request<'a>, CommandError> {
        let (mut by, mut is_reverse) = fixed.unwrap_or((By::Rank, false));
        let (mut limit, mut with_scores) = (None, false);
        let mut options = words[2..].iter();
        while let Some(word) = options.next() {
            if is(word, "withscores") && !is_store {
                with_scores = true;
            } else if is(word, "limit") && options.len() >= 2 {
                let mut number = || {
                    options
                        .next()
                        .map_or(Err(CommandError::SYNTAX), |word| int(word))
                };
                limit = Some((number()?, number()?));
            } else if fixed.is_none() && is(word, "rev") {
                is_reverse = true;
            } else if fixed.is_none() && is(word, "bylex") {
                by = By::Lex;
            } else if fixed.is_none() && is(word, "byscore") {
                by = By::Score;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        if limit.is_some() && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = if is_reverse && by != By::Rank {
            (words[1], words[0])
        } else {
            (words[0], words[1])
        };
        Ok(Request {
            span: Span::parse(by, min, max)?,
            is_reverse,
            limit: limit.unwrap_or((0, -1)),
            with_scores,
        })
    }

    /// The ranks asked for, counted from the lowest.
    fn ranks(&self, set: &ZSet) -> Range<usize> {
        let mut ranks = match self.span {
            // Ranks count from the end that the reply begins with.
            Span::Rank(..) if self.is_reverse => {
                let ranks = self.span.ranks(set);
                let len = set.len();
                return len - ranks.end..len - ranks.start;
            }
            span => span.ranks(set),
        };
        let skip = usize::try_from(self.limit.0)
            .unwrap_or(usize::MAX)
            .min(ranks.len());
        let take = usize::try_from(self.limit.1)
            .unwrap_or(usize::MAX)
            .min(ranks.len() - skip);
        if self.is_reverse {
            ranks.end -= skip;
            ranks.start = ranks.end - take;
        } else {
            ranks.start += skip;
            ranks.end = ranks.start + take;
        }
        ranks
    }
}

fn reply_range(exec: &mut Exec<'_>, args: Args<'_>, fixed: Option<(By, bool)>) -> CommandResult {
    let request = Request::parse(&args[2..], fixed, false)?;
    let most = exec.most_elements;
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    let Some(set) = set else {
        reply.array(0);
        return Ok(Effect::None);
    };
    let ranks = request.ranks(set);
    if ranks.len() > most {
        return Ok(Effect::Aside);
    }
    begin_members(reply, ranks.len(), request.with_scores);
    let mut put = |(name, score)| member(reply, name, score, request.with_scores);
    match request.is_reverse {
        true => set.range(ranks).rev().for_each(&mut put),
        false => set.range(ranks).for_each(&mut put),
    }
    Ok(Effect::None)
}

fn zrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, None)
}

fn zrevrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, Some((By::Rank, true)))
}

fn zrangebyscore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, Some((By::Score, false)))
}

fn zrevrangebyscore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, Some((By::Score, true)))
}

fn zrangebylex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, Some((By::Lex, false)))
}

fn zrevrangebylex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, Some((By::Lex, true)))
}

fn zrangestore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(&args[3..], None, true)?;
    let (limits, most) = (&exec.settings.limits, exec.most_elements);
    let (set, _) = read::<ZSet>(exec, args[2])?;
    let mut result = ZSet::new();
    if let Some(set) = set {
        let ranks = request.ranks(set);
        if ranks.len() > most {
            return Ok(Effect::Aside);
        }
        for (member, score) in set.range(ranks) {
            result.insert(member.text(&mut itoa::Buffer::new()), score, limits);
        }
    }
    store(exec, args[1], result)
}

/// Puts a result in the place of whatever the destination holds; an empty one removes it.
pub(super) fn store(exec: &mut Exec<'_>, destination: &[u8], set: ZSet) -> CommandResult {
    exec.reply.int(set.len() as i64);
    let gone = exec
        .remove(destination)
        .map(crate::keyspace::release::drop_entry);
    if set.is_empty() {
        return Ok(Effect::verbatim_if(gone.is_some()));
    }
    exec.set(destination, set.into_value());
    Ok(Effect::Verbatim)
}

fn reply_count(exec: &mut Exec<'_>, args: Args<'_>, by: By) -> CommandResult {
    let span = Span::parse(by, args[2], args[3])?;
    let (set, reply) = read::<ZSet>(exec, args[1])?;
    reply.int(set.map_or(0, |set| span.ranks(set).len()) as i64);
    Ok(Effect::None)
}

fn zcount(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_count(exec, args, By::Score)
}

fn zlexcount(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_count(exec, args, By::Lex)
}

fn remove_range(exec: &mut Exec<'_>, args: Args<'_>, by: By) -> CommandResult {
    let span = Span::parse(by, args[2], args[3])?;
    let ranks = peek::<ZSet>(exec, args[1])?.map_or(0..0, |set| span.ranks(set));
    let removed = ranks.len();
    if exec.is_too_long(removed) {
        return Ok(Effect::Aside);
    }
    if removed > 0 {
        update::<ZSet>(exec, args[1]).remove_range(ranks);
        exec.remove_if_empty(args[1]);
    }
    exec.reply.int(removed as i64);
    Ok(Effect::verbatim_if(removed > 0))
}

fn zremrangebyrank(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    remove_range(exec, args, By::Rank)
}

fn zremrangebyscore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    remove_range(exec, args, By::Score)
}

fn zremrangebylex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    remove_range(exec, args, By::Lex)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    const SCRIPT: &str = r#"
        SET s v
        ZADD z 1 a 2 b 2 bb 3 c 4.5 d inf e
        ZADD l 0 a 0 aa 0 b 0 c 0 d 0 7
        ZRANGE z 0 -1
        ZRANGE z 0 -1 WITHSCORES
        ZRANGE z 0 -1 REV WITHSCORES
        ZRANGE z 1 2 REV
        ZRANGE z -2 -1
        ZRANGE z 5 1
        ZRANGE z 2 3 BYSCORE
        ZRANGE z (2 +inf BYSCORE WITHSCORES
        ZRANGE z +inf (2 BYSCORE REV
        ZRANGE z 2 3 BYSCORE REV
        ZRANGE z -inf inf BYSCORE LIMIT 1 2
        ZRANGE z -inf inf BYSCORE LIMIT -1 2
        ZRANGE z -inf inf BYSCORE LIMIT 2 -1
        ZRANGE z -inf inf BYSCORE LIMIT 99 1
        ZRANGE z inf -inf BYSCORE REV LIMIT 1 2
        ZRANGE z 0 1 LIMIT 0 1
        ZRANGE l - + BYLEX
        ZRANGE l [a (b BYLEX
        ZRANGE l (a + BYLEX LIMIT 1 2
        ZRANGE l + - BYLEX REV
        ZRANGE l [b [a BYLEX REV
        ZRANGE l + - BYLEX
        ZRANGE l a b BYLEX
        ZRANGE l - + BYLEX WITHSCORES
        ZRANGE z x 1
        ZRANGE z x 1 BYSCORE
        ZRANGE z 0 1 FOO
        ZRANGE z 0 1 LIMIT 1
        ZRANGE z 0 1 BYSCORE LIMIT x 1
        ZRANGE none 0 -1
        ZRANGE s 0 -1
        ZREVRANGE z 0 1
        ZREVRANGE z 0 1 WITHSCORES
        ZREVRANGE z 0 1 REV
        ZRANGEBYSCORE z 1 2
        ZRANGEBYSCORE z (1 (3 WITHSCORES
        ZRANGEBYSCORE z (1 (3 WITHSCORES LIMIT 0 1
        ZRANGEBYSCORE z 1 x
        ZRANGEBYSCORE z 3 1
        ZREVRANGEBYSCORE z 3 1
        ZREVRANGEBYSCORE z 3 (1 LIMIT 1 1
        ZRANGEBYLEX l - [b
        ZRANGEBYLEX l - (b LIMIT 0 2
        ZREVRANGEBYLEX l [c -
        ZRANGEBYLEX l - b
        ZRANGEBYLEX l - + WITHSCORES
        ZCOUNT z 1 2
        ZCOUNT z (1 (3
        ZCOUNT z -inf +inf
        ZCOUNT z 5 1
        ZCOUNT z x 1
        ZCOUNT none 1 2
        ZCOUNT s 1 2
        ZLEXCOUNT l - +
        ZLEXCOUNT l [aa [c
        ZLEXCOUNT l x y
        ZLEXCOUNT l + -
        ZRANGESTORE d z 1 2
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z (2 inf BYSCORE LIMIT 0 1
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 0 1 REV
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 0 1 WITHSCORES
        ZRANGESTORE d none 0 -1
        EXISTS d
        ZRANGESTORE d s 0 -1
        ZREMRANGEBYRANK z 0 0
        ZREMRANGEBYRANK z 99 100
        ZREMRANGEBYSCORE z (2 3
        ZREMRANGEBYSCORE z x 3
        ZREMRANGEBYLEX l [a [b
        ZREMRANGEBYLEX l a b
        ZREMRANGEBYRANK none 0 1
        ZREMRANGEBYRANK s 0 1
        ZRANGE z 0 -1
        ZRANGE l 0 -1
        ZREMRANGEBYSCORE z -inf inf
        EXISTS z
    "#;

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(SCRIPT);
    }

    #[test]
    fn large_sets_reply_like_small_ones() {
        let (mut small, mut large) = (Bench::new(), Bench::new());
        large.settings.limits.zset_listpack_entries = 0;
        for line in SCRIPT
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            assert_eq!(small.run(line), large.run(line), "{line}");
        }
    }
}
