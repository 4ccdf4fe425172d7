//! HyperLogLogs: strings whose bytes come out as those of a server.

use super::store::Data;
use super::table::Command;
use super::words::is;
use super::{Args, Done, Replay, Stop};
use crate::hyperloglog::{self as hll, Damage, Registers};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("PFADD", -2, add),
    Command::run("PFCOUNT", -2, count),
    Command::run("PFMERGE", -2, merge),
    Command::run("PFDEBUG", 3, debug),
];

fn refused(damage: Damage) -> Stop {
    Stop::Refused(match damage {
        Damage::NotOne => "no HyperLogLog",
        Damage::Corrupt => "a HyperLogLog that is damaged",
    })
}

fn empty() -> Data {
    Data::String(hll::empty())
}

/// The HyperLogLog, if the key is there.
fn look<'r>(replay: &'r mut Replay, key: &[u8]) -> Result<Option<&'r mut Vec<u8>>, Stop> {
    let bytes = replay.get(key, Data::string)?;
    if let Some(bytes) = &bytes {
        hll::check(bytes).map_err(refused)?;
    }
    Ok(bytes)
}

fn add(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, elements) = (args[1], &args[2..]);
    let mut changes = look(replay, key)?.is_none();
    let bytes = replay.get_or_make(key, Data::string, empty)?;
    for element in elements {
        // Servers look no further than to the register, and only there may find damage, after other elements.
        changes |= hll::add(bytes, element, hll::SPARSE_BYTES_MAX).map_err(refused)?;
    }
    if changes {
        hll::invalidate(bytes);
    }
    Ok(())
}

/// Counting one key keeps the count in its value.
fn count(replay: &mut Replay, args: Args<'_>) -> Done {
    if let [_, key] = args
        && let Some(bytes) = look(replay, key)?
        && hll::cached_count(bytes).is_none()
    {
        let mut registers = Registers::default();
        registers.merge(bytes).map_err(refused)?;
        hll::set_cached_count(bytes, registers.count());
    }
    Ok(())
}

fn merge(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut registers = Registers::default();
    let mut is_dense = false;
    for key in &args[1..] {
        if let Some(bytes) = look(replay, key)? {
            is_dense |= hll::is_dense(bytes);
            registers.merge(bytes).map_err(refused)?;
        }
    }
    let bytes = replay.get_or_make(args[1], Data::string, empty)?;
    if is_dense {
        hll::make_dense(bytes).map_err(refused)?;
    }
    registers
        .store(bytes, hll::SPARSE_BYTES_MAX)
        .map_err(refused)?;
    hll::invalidate(bytes);
    Ok(())
}

/// GETREG and TODENSE change the form.
fn debug(replay: &mut Replay, args: Args<'_>) -> Done {
    let makes_dense = is(args[1], "GETREG") || is(args[1], "TODENSE");
    if let Some(bytes) = look(replay, args[2])?
        && makes_dense
    {
        hll::make_dense(bytes).map_err(refused)?;
    }
    Ok(())
}
