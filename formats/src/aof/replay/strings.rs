//! Strings.

use super::store::Data;
use super::table::Command;
use super::words::{Deadline, Reader, int, is};
use super::{Args, Done, NOT_FLOAT, NOT_INT, OVERFLOW, Replay, SYNTAX, Stop};
use crate::encoding::canonical_int;
use crate::long_double::LongDouble;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("SET", -3, set),
    Command::run("SETNX", 3, setnx),
    Command::run("SETEX", 4, |replay, args| set_until(replay, args, true)),
    Command::run("PSETEX", 4, |replay, args| set_until(replay, args, false)),
    Command::run("GETSET", 3, getset),
    Command::run("GETDEL", 2, getdel),
    Command::run("GETEX", -2, getex),
    Command::run("APPEND", 3, append),
    Command::run("SETRANGE", 4, setrange),
    Command::run("INCR", 2, |replay, args| step(replay, args[1], 1)),
    Command::run("DECR", 2, |replay, args| step(replay, args[1], -1)),
    Command::run("INCRBY", 3, |replay, args| step(replay, args[1], int(args[2])?)),
    Command::run("DECRBY", 3, decrby),
    Command::run("INCRBYFLOAT", 3, incrbyfloat),
    Command::run("MSET", -3, mset),
    Command::run("MSETNX", -3, msetnx),
];

fn set(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, value) = (args[1], args[2]);
    let mut words = Reader::new(&args[3..]);
    let (mut expiry, mut keep, mut get, mut if_there) = (None, false, false, None);
    while !words.is_empty() {
        let word = words.next()?;
        if is(word, "NX") && if_there != Some(true) {
            if_there = Some(false);
        } else if is(word, "XX") && if_there != Some(false) {
            if_there = Some(true);
        } else if is(word, "GET") {
            get = true;
        } else if is(word, "KEEPTTL") && expiry.is_none() {
            keep = true;
        } else if let Some(deadline) =
            Deadline::of_option(word).filter(|_| !keep && expiry.is_none())
        {
            expiry = Some((deadline, words.next()?));
        } else {
            return Err(SYNTAX);
        }
    }
    let at_ms = match expiry {
        Some((deadline, word)) => Some(replay.option_deadline_ms(deadline, word)?),
        None => None,
    };
    if get {
        replay.get(key, Data::string)?;
    }
    if if_there.is_some_and(|wanted| replay.has(key) != wanted) {
        return Ok(());
    }
    let kept = replay
        .keys()
        .get(key)
        .and_then(|slot| slot.attributes.expire_at_ms);
    replay.put(key, Data::String(value.to_vec()));
    replay.expire(key, if keep { kept } else { at_ms });
    Ok(())
}

fn setnx(replay: &mut Replay, args: Args<'_>) -> Done {
    if !replay.has(args[1]) {
        replay.put(args[1], Data::String(args[2].to_vec()));
    }
    Ok(())
}

fn set_until(replay: &mut Replay, args: Args<'_>, is_seconds: bool) -> Done {
    let deadline = Deadline {
        is_relative: true,
        is_seconds,
    };
    let at_ms = replay.option_deadline_ms(deadline, args[2])?;
    replay.put(args[1], Data::String(args[3].to_vec()));
    replay.expire(args[1], Some(at_ms));
    Ok(())
}

fn getset(replay: &mut Replay, args: Args<'_>) -> Done {
    replay.get(args[1], Data::string)?;
    replay.put(args[1], Data::String(args[2].to_vec()));
    Ok(())
}

fn getdel(replay: &mut Replay, args: Args<'_>) -> Done {
    if replay.get(args[1], Data::string)?.is_some() {
        replay.remove(args[1]);
    }
    Ok(())
}

fn getex(replay: &mut Replay, args: Args<'_>) -> Done {
    let at_ms = match &args[2..] {
        [] => None,
        [word] if is(word, "PERSIST") => Some(None),
        [word, number] => match Deadline::of_option(word) {
            Some(deadline) => Some(Some((deadline, *number))),
            None => return Err(SYNTAX),
        },
        _ => return Err(SYNTAX),
    };
    let at_ms = match at_ms {
        Some(Some((deadline, word))) => Some(Some(replay.option_deadline_ms(deadline, word)?)),
        Some(None) => Some(None),
        None => None,
    };
    if let (Some(_), Some(at_ms)) = (replay.get(args[1], Data::string)?, at_ms) {
        replay.expire(args[1], at_ms);
    }
    Ok(())
}

pub(super) fn empty() -> Data {
    Data::String(Vec::new())
}

fn append(replay: &mut Replay, args: Args<'_>) -> Done {
    let bytes = replay.get_or_make(args[1], Data::string, empty)?;
    bytes.extend_from_slice(args[2]);
    Ok(())
}

fn setrange(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, offset, value) = (args[1], int(args[2])?, args[3]);
    let offset = u64::try_from(offset).map_err(|_| Stop::Refused("an offset below 0"))?;
    let old = replay
        .get(key, Data::string)?
        .map_or(0, |bytes| bytes.len());
    if value.is_empty() {
        return Ok(());
    }
    let end = offset.saturating_add(value.len() as u64);
    if end > old as u64 {
        replay.check_length(end)?;
    }
    let (from, end) = (offset as usize, end as usize);
    let bytes = replay.get_or_make(key, Data::string, empty)?;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[from..end].copy_from_slice(value);
    Ok(())
}

fn step(replay: &mut Replay, key: &[u8], by: i64) -> Done {
    let old = match replay.get(key, Data::string)? {
        Some(bytes) => canonical_int(bytes).ok_or(NOT_INT)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    *replay.get_or_make(key, Data::string, empty)? = new.to_string().into_bytes();
    Ok(())
}

fn decrby(replay: &mut Replay, args: Args<'_>) -> Done {
    step(
        replay,
        args[1],
        int(args[2])?.checked_neg().ok_or(OVERFLOW)?,
    )
}

fn incrbyfloat(replay: &mut Replay, args: Args<'_>) -> Done {
    let old = replay.get(args[1], Data::string)?.map(|bytes| &bytes[..]);
    let new = float_sum(old, args[2])?;
    *replay.get_or_make(args[1], Data::string, empty)? = new;
    Ok(())
}

/// The text of a sum as INCRBYFLOAT and HINCRBYFLOAT store it.
pub(super) fn float_sum(old: Option<&[u8]>, by: &[u8]) -> Result<Vec<u8>, Stop> {
    let old = match old {
        Some(text) => LongDouble::parse(text).ok_or(NOT_FLOAT)?,
        None => LongDouble::ZERO,
    };
    let by = LongDouble::parse(by).ok_or(NOT_FLOAT)?;
    let sum = old.plus(by).filter(|sum| sum.is_finite()).ok_or(OVERFLOW)?;
    Ok(sum.to_text().into_bytes())
}

fn pairs<'a>(args: Args<'a>) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a>, Stop> {
    let pairs = args[1..].chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Stop::Refused("a key without a value"));
    }
    Ok(pairs.map(|pair| (pair[0], pair[1])))
}

fn mset(replay: &mut Replay, args: Args<'_>) -> Done {
    for (key, value) in pairs(args)? {
        replay.put(key, Data::String(value.to_vec()));
    }
    Ok(())
}

fn msetnx(replay: &mut Replay, args: Args<'_>) -> Done {
    if pairs(args)?.any(|(key, _)| replay.has(key)) {
        return Ok(());
    }
    mset(replay, args)
}
