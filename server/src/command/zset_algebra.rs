//! Unions, intersections and differences of sorted sets; plain sets count as sorted sets with scores of 1.

use std::collections::HashMap;

use super::words::{float, int, is};
use super::zset_ranges::store;
use super::zsets::{begin_members, member};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::Value;
use crate::keyspace::value::zset::ZSet;

const READ: KeySpec = KeySpec::Counted {
    dest: None,
    count: 1,
};
const STORE: KeySpec = KeySpec::Counted {
    dest: Some(1),
    count: 2,
};
const MOVABLE_READ: Flags = Flags::READONLY.with(Flags::MOVABLEKEYS);
const MOVABLE_WRITE: Flags = Flags::WRITE_OOM.with(Flags::MOVABLEKEYS);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("zdiff", -3, MOVABLE_READ, READ, zdiff)
        .about(Group::SortedSet, "6.2.0", "The members of a sorted set that are in no other."),
    Command::keyed("zdiffstore", -4, MOVABLE_WRITE, STORE, zdiffstore)
        .about(Group::SortedSet, "6.2.0", "Stores the members of a sorted set that are in no other."),
    Command::keyed("zinter", -3, MOVABLE_READ, READ, zinter)
        .about(Group::SortedSet, "6.2.0", "The members that all sorted sets have."),
    Command::keyed("zintercard", -3, MOVABLE_READ, READ, zintercard)
        .about(Group::SortedSet, "7.0.0", "The number of members that all sorted sets have."),
    Command::keyed("zinterstore", -4, MOVABLE_WRITE, STORE, zinterstore)
        .about(Group::SortedSet, "2.0.0", "Stores the members that all sorted sets have."),
    Command::keyed("zunion", -3, MOVABLE_READ, READ, zunion)
        .about(Group::SortedSet, "6.2.0", "The members of any of several sorted sets."),
    Command::keyed("zunionstore", -4, MOVABLE_WRITE, STORE, zunionstore)
        .about(Group::SortedSet, "2.0.0", "Stores the members of any of several sorted sets."),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            // Opposite infinities make 0.
            Aggregate::Sum => Some(a + b).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// What the words ask for.
struct Request<'a> {
    keys: Args<'a>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: usize,
}

/// Which options a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Options {
    /// Of the commands that reply members.
    Reply,
    /// Of the commands that store.
    Store,
    /// Of ZINTERCARD.
    Count,
}

impl<'a> Request<'a> {
    fn parse(
        exec: &mut Exec<'_>,
        args: Args<'a>,
        at: usize,
        operation: Operation,
        takes: Options,
        name: &str,
    ) -> Result<Request<'a>, CommandError> {
        let number = int(args[at])?;
        if number < 1 {
            return Err(CommandError::new(format!(
                "at least 1 input key is needed for '{name}' command"
            )));
        }
        let rest = &args[at + 1..];
        let number = usize::try_from(number)
            .ok()
            .filter(|number| *number <= rest.len())
            .ok_or(CommandError::SYNTAX)?;
        let (keys, mut words) = rest.split_at(number);
        for key in keys {
            len(exec, key)?;
        }
        let mut request = Request {
            keys,
            weights: vec![1.0; number],
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: 0,
        };
        let has_weights = takes != Options::Count && operation != Operation::Difference;
        loop {
            words = match words {
                [] => return Ok(request),
                [word, weights @ ..]
                    if has_weights && is(word, "weights") && weights.len() >= number =>
                {
                    for (weight, word) in request.weights.iter_mut().zip(weights) {
                        *weight = float(word)
                            .map_err(|_| CommandError::text("ERR weight value is not a float"))?;
                    }
                    &weights[number..]
                }
                [word, how, rest @ ..] if has_weights && is(word, "aggregate") => {
                    request.aggregate = match how {
                        how if is(how, "sum") => Aggregate::Sum,
                        how if is(how, "min") => Aggregate::Min,
                        how if is(how, "max") => Aggregate::Max,
                        _ => return Err(CommandError::SYNTAX),
                    };
                    rest
                }
                [word, rest @ ..] if takes == Options::Reply && is(word, "withscores") => {
                    request.with_scores = true;
                    rest
                }
                [word, limit, rest @ ..] if takes == Options::Count && is(word, "limit") => {
                    let limit = int(limit)
                        .ok()
                        .and_then(|limit| usize::try_from(limit).ok());
                    request.limit =
                        limit.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
                    rest
                }
                _ => return Err(CommandError::SYNTAX),
            };
        }
    }
}

/// The number of members of a set or sorted set; an error for other types.
fn len(exec: &mut Exec<'_>, key: &[u8]) -> Result<usize, CommandError> {
    match exec.peek(key).map(|entry| entry.value()) {
        None => Ok(0),
        Some(Value::Set(set)) => Ok(set.len()),
        Some(Value::ZSet(set)) => Ok(set.len()),
        Some(_) => Err(CommandError::WRONG_TYPE),
    }
}

/// All members of a key with their weighted scores.
fn members(exec: &mut Exec<'_>, key: &[u8], weight: f64) -> Vec<(Vec<u8>, f64)> {
    match exec.read(key).map(|entry| entry.value()) {
        Some(Value::Set(set)) => set
            .iter()
            .map(|member| (member.to_vec(), weighted(1.0, weight)))
            .collect(),
        Some(Value::ZSet(set)) => set
            .iter()
            .map(|(member, score)| (member.to_vec(), weighted(score, weight)))
            .collect(),
        _ => Vec::new(),
    }
}

/// The scores that a key gives these members.
fn scores(exec: &mut Exec<'_>, key: &[u8], members: &[(Vec<u8>, f64)]) -> Vec<Option<f64>> {
    let value = exec.read(key).map(|entry| entry.value());
    let score = |member: &[u8]| match value {
        Some(Value::Set(set)) => set.contains(member).then_some(1.0),
        Some(Value::ZSet(set)) => set.score(member),
        _ => None,
    };
    members.iter().map(|(member, _)| score(member)).collect()
}

/// Infinity times zero is zero.
fn weighted(score: f64, weight: f64) -> f64 {
    Some(score * weight)
        .filter(|score| !score.is_nan())
        .unwrap_or(0.0)
}

/// Whether the sets are too large to be worked on here.
fn is_long(exec: &mut Exec<'_>, request: &Request<'_>) -> Result<bool, CommandError> {
    let mut elements = 0;
    for key in request.keys {
        elements += len(exec, key)?;
    }
    Ok(exec.is_too_long(elements))
}

/// The result, in no order.
fn compute(
    exec: &mut Exec<'_>,
    operation: Operation,
    request: &Request<'_>,
) -> Result<Vec<(Vec<u8>, f64)>, CommandError> {
    let mut order = Vec::with_capacity(request.keys.len());
    for at in 0..request.keys.len() {
        order.push((len(exec, request.keys[at])?, at));
    }
    if operation != Operation::Difference {
        // The smallest first: it bounds an intersection.
        order.sort_by_key(|(len, _)| *len);
    }
    let (first, others) = order.split_first().expect("at least one key");
    let weight = |at: usize| request.weights[at];
    match operation {
        Operation::Union => {
            let mut all: HashMap<Vec<u8>, f64> = HashMap::new();
            for (_, at) in &order {
                for (member, score) in members(exec, request.keys[*at], weight(*at)) {
                    let place = all.entry(member);
                    place
                        .and_modify(|sum| *sum = request.aggregate.join(*sum, score))
                        .or_insert(score);
                }
            }
            Ok(all.into_iter().collect())
        }
        Operation::Intersection => {
            let mut result = members(exec, request.keys[first.1], weight(first.1));
            for (_, at) in others {
                let scores = scores(exec, request.keys[*at], &result);
                let mut scores = scores.into_iter();
                result.retain_mut(|(_, sum)| match scores.next().flatten() {
                    Some(score) => {
                        *sum = request.aggregate.join(*sum, weighted(score, weight(*at)));
                        true
                    }
                    None => false,
                });
            }
            Ok(result)
        }
        Operation::Difference => {
            let mut result = members(exec, request.keys[first.1], 1.0);
            for (_, at) in others {
                let scores = scores(exec, request.keys[*at], &result);
                let mut scores = scores.into_iter();
                result.retain(|_| scores.next().flatten().is_none());
            }
            Ok(result)
        }
    }
}

fn reply(exec: &mut Exec<'_>, args: Args<'_>, operation: Operation, name: &str) -> CommandResult {
    let request = Request::parse(exec, args, 1, operation, Options::Reply, name)?;
    if is_long(exec, &request)? {
        return Ok(Effect::Aside);
    }
    let result = compute(exec, operation, &request)?;
    let set = ZSet::from_members(result, &exec.settings.limits);
    begin_members(exec.reply, set.len(), request.with_scores);
    set.iter()
        .for_each(|(name, score)| member(exec.reply, name, score, request.with_scores));
    Ok(Effect::None)
}

fn store_result(
    exec: &mut Exec<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> CommandResult {
    let request = Request::parse(exec, args, 2, operation, Options::Store, name)?;
    if is_long(exec, &request)? {
        return Ok(Effect::Aside);
    }
    let result = compute(exec, operation, &request)?;
    let set = ZSet::from_members(result, &exec.settings.limits);
    store(exec, args[1], set)
}

fn zunion(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply(exec, args, Operation::Union, "zunion")
}

fn zinter(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply(exec, args, Operation::Intersection, "zinter")
}

fn zdiff(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply(exec, args, Operation::Difference, "zdiff")
}

fn zunionstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    store_result(exec, args, Operation::Union, "zunionstore")
}

fn zinterstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    store_result(exec, args, Operation::Intersection, "zinterstore")
}

fn zdiffstore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    store_result(exec, args, Operation::Difference, "zdiffstore")
}

fn zintercard(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let request = Request::parse(
        exec,
        args,
        1,
        Operation::Intersection,
        Options::Count,
        "zintercard",
    )?;
    if is_long(exec, &request)? {
        return Ok(Effect::Aside);
    }
    let size = compute(exec, Operation::Intersection, &request)?.len();
    exec.reply.int(if request.limit == 0 {
        size
    } else {
        size.min(request.limit)
    } as i64);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET str v
            ZADD a 1 x 2 y 3 z
            ZADD b 10 y 20 z 30 w
            ZADD i inf x -inf y
            ZADD j -inf x inf y
            SADD s y z 7
            ZUNION 2 a b
            ZUNION 2 a b WITHSCORES
            ZUNION 3 a b s WITHSCORES
            ZUNION 2 a b WEIGHTS 2 0.5 WITHSCORES
            ZUNION 2 a b AGGREGATE MIN WITHSCORES
            ZUNION 2 a b AGGREGATE max WITHSCORES
            ZUNION 2 i j WITHSCORES
            ZUNION 1 i WEIGHTS 0 WITHSCORES
            ZUNION 2 a none
            ZUNION 2 a str
            ZUNION 0 a
            ZUNION x a
            ZUNION 3 a b
            ZUNION 2 a b WEIGHTS 1
            ZUNION 2 a b WEIGHTS 1 x
            ZUNION 2 a b AGGREGATE foo
            ZUNION 2 a b FOO
            ZINTER 2 a b WITHSCORES
            ZINTER 2 a s WITHSCORES
            ZINTER 2 a b WEIGHTS 2 3 AGGREGATE MAX WITHSCORES
            ZINTER 2 a none
            ZINTER 0 a
            ZDIFF 2 a b WITHSCORES
            ZDIFF 2 a s
            ZDIFF 1 none
            ZDIFF 2 a b WEIGHTS 1 1
            ZDIFF 0 a
            ZUNIONSTORE d 2 a b
            ZRANGE d 0 -1 WITHSCORES
            ZINTERSTORE d 2 a b WEIGHTS 1 -1
            ZRANGE d 0 -1 WITHSCORES
            ZDIFFSTORE d 2 a b
            ZRANGE d 0 -1 WITHSCORES
            ZUNIONSTORE d 2 a b WITHSCORES
            ZUNIONSTORE d 0 a
            ZINTERSTORE d 2 a none
            EXISTS d
            ZUNIONSTORE a 2 a a
            ZRANGE a 0 -1 WITHSCORES
            ZINTERCARD 2 a b
            ZINTERCARD 2 a b LIMIT 1
            ZINTERCARD 2 a b LIMIT 0
            ZINTERCARD 2 a b LIMIT -1
            ZINTERCARD 0 a
            ZINTERCARD 2 a b FOO
            ZINTERCARD 2 a str
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        bench.run("ZADD a 1 x");
        let rows = [
            ("ZINTERSTORE d 2 a b", ""),
            ("ZUNIONSTORE d 2 a b", "ZUNIONSTORE d 2 a b"),
            ("ZINTERSTORE d 2 a b", "ZINTERSTORE d 2 a b"),
            ("ZINTERSTORE d 2 a b", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
