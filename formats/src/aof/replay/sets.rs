//! Sets.

use super::store::Data;
use super::table::Command;
use super::words::count;
use super::{Args, Done, Problem, Replay, Stop};
use std::collections::BTreeSet;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("SADD", -3, add),
    Command::run("SREM", -3, remove),
    Command::run("SMOVE", 4, shift),
    Command::run("SPOP", -2, pop),
    Command::run("SUNIONSTORE", -3, |replay, args| store(replay, args, union)),
    Command::run("SINTERSTORE", -3, |replay, args| store(replay, args, intersection)),
    Command::run("SDIFFSTORE", -3, |replay, args| store(replay, args, difference)),
];

type Members = BTreeSet<Vec<u8>>;

fn empty() -> Data {
    Data::Set(BTreeSet::new())
}

fn add(replay: &mut Replay, args: Args<'_>) -> Done {
    let set = replay.get_or_make(args[1], Data::set, empty)?;
    set.extend(args[2..].iter().map(|member| member.to_vec()));
    Ok(())
}

fn remove(replay: &mut Replay, args: Args<'_>) -> Done {
    if let Some(set) = replay.get(args[1], Data::set)? {
        for member in &args[2..] {
            set.remove(*member);
        }
        replay.drop_empty(args[1]);
    }
    Ok(())
}

fn shift(replay: &mut Replay, args: Args<'_>) -> Done {
    let (source, target, member) = (args[1], args[2], args[3]);
    let Some(set) = replay.get(source, Data::set)? else {
        return Ok(());
    };
    let is_there = set.contains(member);
    replay.get(target, Data::set)?;
    if is_there && source != target {
        if let Some(set) = replay.get(source, Data::set)? {
            set.remove(member);
        }
        replay.drop_empty(source);
        replay
            .get_or_make(target, Data::set, empty)?
            .insert(member.to_vec());
    }
    Ok(())
}

/// Servers log which members went; only a set that goes as a whole needs no more than the command.
fn pop(replay: &mut Replay, args: Args<'_>) -> Done {
    let many = match &args[2..] {
        [] => 1,
        [many] => count(many)?,
        _ => return Err(super::SYNTAX),
    };
    match replay.get(args[1], Data::set)?.map(|set| set.len()) {
        None => Ok(()),
        Some(_) if many == 0 => Ok(()),
        Some(len) if len <= many => {
            replay.remove(args[1]);
            Ok(())
        }
        Some(_) => {
            let why = "which members go is left to chance";
            Err(Stop::Failed(Problem::Undetermined(why)))
        }
    }
}

/// `target`, then the sources.
fn store(replay: &mut Replay, args: Args<'_>, join: fn(Vec<Members>) -> Members) -> Done {
    let mut sources = Vec::with_capacity(args.len() - 2);
    for key in &args[2..] {
        sources.push(replay.get(key, Data::set)?.cloned().unwrap_or_default());
    }
    replay.put(args[1], Data::Set(join(sources)));
    Ok(())
}

fn union(sources: Vec<Members>) -> Members {
    sources.into_iter().flatten().collect()
}

fn intersection(mut sources: Vec<Members>) -> Members {
    sources.sort_by_key(Members::len);
    let (first, others) = match sources.split_first_mut() {
        Some((first, others)) => (std::mem::take(first), others),
        None => return Members::new(),
    };
    let is_common = |member: &Vec<u8>| others.iter().all(|other| other.contains(member));
    first.into_iter().filter(is_common).collect()
}

fn difference(mut sources: Vec<Members>) -> Members {
    let (first, others) = match sources.split_first_mut() {
        Some((first, others)) => (std::mem::take(first), others),
        None => return Members::new(),
    };
    let is_left = |member: &Vec<u8>| !others.iter().any(|other| other.contains(member));
    first.into_iter().filter(is_left).collect()
}
