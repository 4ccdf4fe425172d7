//! Hashes.

use super::store::{Data, Field};
use super::strings::float_sum;
use super::table::Command;
use super::words::int;
use super::{Args, Done, NOT_INT, OVERFLOW, Replay, Stop};
use crate::encoding::canonical_int;
use std::collections::BTreeMap;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("HSET", -4, set),
    Command::run("HMSET", -4, set),
    Command::run("HSETNX", 4, setnx),
    Command::run("HINCRBY", 4, incrby),
    Command::run("HINCRBYFLOAT", 4, incrbyfloat),
    Command::run("HDEL", -3, delete),
];

pub(super) fn empty() -> Data {
    Data::Hash(BTreeMap::new())
}

/// A new value takes the expiry away.
fn set(replay: &mut Replay, args: Args<'_>) -> Done {
    let pairs = args[2..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Stop::Refused("a field without a value"));
    }
    let hash = replay.get_or_make(args[1], Data::hash, empty)?;
    for pair in pairs {
        let field = Field {
            value: pair[1].to_vec(),
            expire_at_ms: None,
        };
        hash.insert(pair[0].to_vec(), field);
    }
    Ok(())
}

fn setnx(replay: &mut Replay, args: Args<'_>) -> Done {
    let hash = replay.get_or_make(args[1], Data::hash, empty)?;
    hash.entry(args[2].to_vec()).or_insert_with(|| Field {
        value: args[3].to_vec(),
        expire_at_ms: None,
    });
    Ok(())
}

/// The value of a field, if it is there.
fn look<'r>(replay: &'r mut Replay, args: Args<'_>) -> Result<Option<&'r [u8]>, Stop> {
    let field = replay
        .get(args[1], Data::hash)?
        .and_then(|hash| hash.get(args[2]));
    Ok(field.map(|field| &field.value[..]))
}

/// A sum keeps the expiry.
fn store(replay: &mut Replay, args: Args<'_>, value: Vec<u8>) -> Done {
    let hash = replay.get_or_make(args[1], Data::hash, empty)?;
    match hash.get_mut(args[2]) {
        Some(field) => field.value = value,
        None => {
            let expire_at_ms = None;
            hash.insert(
                args[2].to_vec(),
                Field {
                    value,
                    expire_at_ms,
                },
            );
        }
    }
    Ok(())
}

fn incrby(replay: &mut Replay, args: Args<'_>) -> Done {
    let by = int(args[3])?;
    let old = match look(replay, args)? {
        Some(text) => canonical_int(text).ok_or(NOT_INT)?,
        None => 0,
    };
    let sum = old.checked_add(by).ok_or(OVERFLOW)?;
    store(replay, args, sum.to_string().into_bytes())
}

fn incrbyfloat(replay: &mut Replay, args: Args<'_>) -> Done {
    let sum = float_sum(look(replay, args)?, args[3])?;
    store(replay, args, sum)
}

fn delete(replay: &mut Replay, args: Args<'_>) -> Done {
    if let Some(hash) = replay.get(args[1], Data::hash)? {
        for field in &args[2..] {
            hash.remove(*field);
        }
        replay.drop_empty(args[1]);
    }
    Ok(())
}
