//! Sorted sets: unions, intersections and differences. Sums of doubles depend on their order, so it is that of servers.

use super::store::{Data, ZSet};
use super::table::Command;
use super::words::{Reader, float, is};
use super::{Args, Done, Replay, SYNTAX, Stop, WRONG_TYPE};
use std::collections::BTreeMap;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("ZUNIONSTORE", -4, |replay, args| store(replay, args, Operation::Union)),
    Command::run("ZINTERSTORE", -4, |replay, args| store(replay, args, Operation::Intersection)),
    Command::run("ZDIFFSTORE", -4, |replay, args| store(replay, args, Operation::Difference)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => number(a + b),
            Aggregate::Min if b < a => b,
            Aggregate::Max if b > a => b,
            _ => a,
        }
    }
}

/// What is no number counts as 0.
fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

struct Source {
    members: BTreeMap<Vec<u8>, f64>,
    weight: f64,
}

fn store(replay: &mut Replay, args: Args<'_>, operation: Operation) -> Done {
    let mut words = Reader::new(&args[2..]);
    let mut sources = Vec::new();
    for key in words.keys()? {
        let members = members(replay, key)?;
        sources.push(Source {
            members,
            weight: 1.0,
        });
    }
    let mut aggregate = Aggregate::Sum;
    while !words.is_empty() {
        if operation == Operation::Difference {
            return Err(SYNTAX);
        }
        if words.skip("WEIGHTS") {
            for source in &mut sources {
                source.weight = float(words.next()?)?;
            }
        } else if words.skip("AGGREGATE") {
            aggregate = match words.next()? {
                word if is(word, "SUM") => Aggregate::Sum,
                word if is(word, "MIN") => Aggregate::Min,
                word if is(word, "MAX") => Aggregate::Max,
                _ => return Err(SYNTAX),
            };
        } else {
            return Err(SYNTAX);
        }
    }
    if operation != Operation::Difference {
        sources.sort_by_key(|source| source.members.len());
    }
    let result = match operation {
        Operation::Union => union(&sources, aggregate),
        Operation::Intersection => intersection(&sources, aggregate),
        Operation::Difference => difference(&sources),
    };
    let zset: ZSet = result
        .iter()
        .map(|(member, score)| (&member[..], *score))
        .collect();
    replay.put(args[1], Data::ZSet(zset));
    Ok(())
}

/// Members of a set have the score 1.
fn members(replay: &mut Replay, key: &[u8]) -> Result<BTreeMap<Vec<u8>, f64>, Stop> {
    Ok(match replay.data(key) {
        None => BTreeMap::new(),
        Some(Data::Set(set)) => set.iter().map(|member| (member.clone(), 1.0)).collect(),
        Some(Data::ZSet(zset)) => zset
            .iter()
            .map(|(member, score)| (member.to_vec(), score))
            .collect(),
        Some(_) => return Err(WRONG_TYPE),
    })
}

fn union(sources: &[Source], aggregate: Aggregate) -> BTreeMap<Vec<u8>, f64> {
    let mut result: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
    for source in sources {
        for (member, score) in &source.members {
            let score = number(source.weight * score);
            match result.get_mut(member) {
                Some(sum) => *sum = aggregate.join(*sum, score),
                None => {
                    result.insert(member.clone(), score);
                }
            }
        }
    }
    result
}

fn intersection(sources: &[Source], aggregate: Aggregate) -> BTreeMap<Vec<u8>, f64> {
    let Some((first, others)) = sources.split_first() else {
        return BTreeMap::new();
    };
    let joined = first.members.iter().filter_map(|(member, score)| {
        let mut sum = number(first.weight * score);
        for other in others {
            sum = aggregate.join(sum, other.members.get(member)? * other.weight);
        }
        Some((member.clone(), sum))
    });
    joined.collect()
}

fn difference(sources: &[Source]) -> BTreeMap<Vec<u8>, f64> {
    let Some((first, others)) = sources.split_first() else {
        return BTreeMap::new();
    };
    let is_left = |member: &Vec<u8>| {
        !others
            .iter()
            .any(|other| other.members.contains_key(member))
    };
    let left = first.members.iter().filter(|(member, _)| is_left(member));
    left.map(|(member, score)| (member.clone(), *score))
        .collect()
}
