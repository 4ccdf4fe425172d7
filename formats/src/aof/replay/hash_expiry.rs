//! Hashes whose fields expire: the commands of Redis 7.4 and 8.0.

use super::hashes::empty;
use super::keys::Condition;
use super::store::{Data, Field};
use super::table::Command;
use super::words::{Deadline, Reader, count, int, is};
use super::{Args, Done, Replay, SYNTAX, Stop};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("HEXPIRE", -6, |replay, args| expire(replay, args, true, true)),
    Command::run("HPEXPIRE", -6, |replay, args| expire(replay, args, true, false)),
    Command::run("HEXPIREAT", -6, |replay, args| expire(replay, args, false, true)),
    Command::run("HPEXPIREAT", -6, |replay, args| expire(replay, args, false, false)),
    Command::run("HPERSIST", -5, persist),
    Command::run("HSETEX", -6, setex),
    Command::run("HGETEX", -5, getex),
    Command::run("HGETDEL", -5, getdel),
];

/// `FIELDS n word …` with `width` words a field, at the end of the command.
fn fields<'a>(words: &mut Reader<'a>, width: usize) -> Result<Args<'a>, Stop> {
    if !words.skip("FIELDS") {
        return Err(SYNTAX);
    }
    let many = count(words.next()?)?;
    let left = words.left();
    if many == 0 || many.checked_mul(width) != Some(left.len()) {
        return Err(Stop::Refused("another number of fields than was said"));
    }
    Ok(left)
}

fn expire(replay: &mut Replay, args: Args<'_>, is_relative: bool, is_seconds: bool) -> Done {
    let number = int(args[2])?;
    if number < 0 {
        return Err(Stop::Refused("a deadline below 0"));
    }
    let mut words = Reader::new(&args[3..]);
    let mut condition = Condition::default();
    if words
        .left()
        .first()
        .is_some_and(|word| condition.take(word))
    {
        words.next()?;
    }
    let names = fields(&mut words, 1)?;
    let deadline = Deadline {
        is_relative,
        is_seconds,
    };
    let at_ms = replay.deadline_ms(deadline, number)?;
    if let Some(hash) = replay.get(args[1], Data::hash)? {
        for name in names {
            if let Some(field) = hash.get_mut(*name)
                && condition.allows(field.expire_at_ms, at_ms)
            {
                field.expire_at_ms = Some(at_ms);
            }
        }
    }
    Ok(())
}

fn persist(replay: &mut Replay, args: Args<'_>) -> Done {
    let names = fields(&mut Reader::new(&args[2..]), 1)?;
    if let Some(hash) = replay.get(args[1], Data::hash)? {
        for name in names {
            if let Some(field) = hash.get_mut(*name) {
                field.expire_at_ms = None;
            }
        }
    }
    Ok(())
}

/// What becomes of the expiry of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Keep,
    Clear,
    At(i64),
}

/// Takes one of EX, PX, EXAT and PXAT, or the word that `other` stands for. None: the next word is another one.
fn take_expiry(
    replay: &Replay,
    words: &mut Reader<'_>,
    other: (&str, Expiry),
) -> Result<Option<Expiry>, Stop> {
    let Some(word) = words.left().first() else {
        return Err(SYNTAX);
    };
    if is(word, other.0) {
        words.next()?;
        return Ok(Some(other.1));
    }
    let Some(deadline) = Deadline::of_option(word) else {
        return Ok(None);
    };
    words.next()?;
    Ok(Some(Expiry::At(
        replay.option_deadline_ms(deadline, words.next()?)?,
    )))
}

fn setex(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut words = Reader::new(&args[2..]);
    let (mut expiry, mut if_there) = (None, None);
    while !words.left().first().is_some_and(|word| is(word, "FIELDS")) {
        if if_there.is_none() && words.skip("FNX") {
            if_there = Some(false);
        } else if if_there.is_none() && words.skip("FXX") {
            if_there = Some(true);
        } else {
            let found = take_expiry(replay, &mut words, ("KEEPTTL", Expiry::Keep))?;
            if found.is_none() || expiry.is_some() {
                return Err(SYNTAX);
            }
            expiry = found;
        }
    }
    let pairs = fields(&mut words, 2)?;
    let mut names = pairs.chunks_exact(2).map(|pair| pair[0]);
    let hash = replay.get(args[1], Data::hash)?;
    if let Some(wanted) = if_there {
        let is_there = |name: &[u8]| hash.as_ref().is_some_and(|hash| hash.contains_key(name));
        if !names.all(|name| is_there(name) == wanted) {
            return Ok(());
        }
    }
    let hash = replay.get_or_make(args[1], Data::hash, empty)?;
    for pair in pairs.chunks_exact(2) {
        let old = hash.get(pair[0]).and_then(|field| field.expire_at_ms);
        let field = Field {
            value: pair[1].to_vec(),
            expire_at_ms: match expiry.unwrap_or(Expiry::Clear) {
                Expiry::Keep => old,
                Expiry::Clear => None,
                Expiry::At(at_ms) => Some(at_ms),
            },
        };
        hash.insert(pair[0].to_vec(), field);
    }
    Ok(())
}

fn getex(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut words = Reader::new(&args[2..]);
    let expiry = take_expiry(replay, &mut words, ("PERSIST", Expiry::Clear))?;
    let names = fields(&mut words, 1)?;
    let Some(hash) = replay.get(args[1], Data::hash)? else {
        return Ok(());
    };
    for name in names {
        if let (Some(field), Some(expiry)) = (hash.get_mut(*name), expiry) {
            field.expire_at_ms = match expiry {
                Expiry::At(at_ms) => Some(at_ms),
                Expiry::Clear | Expiry::Keep => None,
            };
        }
    }
    Ok(())
}

fn getdel(replay: &mut Replay, args: Args<'_>) -> Done {
    let names = fields(&mut Reader::new(&args[2..]), 1)?;
    if let Some(hash) = replay.get(args[1], Data::hash)? {
        for name in names {
            hash.remove(*name);
        }
        replay.drop_empty(args[1]);
    }
    Ok(())
}
