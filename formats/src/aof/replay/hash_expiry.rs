//! Hashes whose fields expire: the commands of Redis 7.4 and 8.0.

use super::hashes::empty;
use super::keys::Condition;
use super::store::{Data, Field};
use super::table::Command;
use super::words::{Deadline, Reader, count, int};
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

/// `FIELDS n field …` at the end of a command.
fn fields<'a>(words: &mut Reader<'a>) -> Result<Args<'a>, Stop> {
    if !words.skip("FIELDS") {
        return Err(SYNTAX);
    }
    let many = count(words.next()?)?;
    let left = words.left();
    if many == 0 || many != left.len() {
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
    let names = fields(&mut words)?;
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
    let names = fields(&mut Reader::new(&args[2..]))?;
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

/// What stands around the fields of HSETEX and HGETEX; options may come before and behind them.
struct Around<'a> {
    /// None: not said.
    expiry: Option<Expiry>,
    /// Whether the fields must be there, or must not.
    if_there: Option<bool>,
    fields: Args<'a>,
}

impl<'a> Around<'a> {
    /// `other` is the word beside EX, PX, EXAT and PXAT, with its meaning; a field has `width` words.
    fn parse(
        replay: &Replay,
        words: Args<'a>,
        other: (&str, Expiry),
        width: usize,
    ) -> Result<Self, Stop> {
        let mut words = Reader::new(words);
        let mut around = Around {
            expiry: None,
            if_there: None,
            fields: &[],
        };
        while !words.is_empty() {
            if around.fields.is_empty() && words.skip("FIELDS") {
                let many = count(words.next()?)?.checked_mul(width).ok_or(SYNTAX)?;
                if many == 0 {
                    return Err(Stop::Refused("no fields"));
                }
                around.fields = words.take(many)?;
            } else if width == 2 && around.if_there.is_none() && words.skip("FNX") {
                around.if_there = Some(false);
            } else if width == 2 && around.if_there.is_none() && words.skip("FXX") {
                around.if_there = Some(true);
            } else if around.expiry.is_none() && words.skip(other.0) {
                around.expiry = Some(other.1);
            } else {
                let deadline = Deadline::of_option(words.next()?).ok_or(SYNTAX)?;
                let at_ms = replay.option_deadline_ms(deadline, words.next()?)?;
                if around.expiry.replace(Expiry::At(at_ms)).is_some() {
                    return Err(SYNTAX);
                }
            }
        }
        match around.fields {
            [] => Err(SYNTAX),
            _ => Ok(around),
        }
    }
}

fn setex(replay: &mut Replay, args: Args<'_>) -> Done {
    let around = Around::parse(replay, &args[2..], ("KEEPTTL", Expiry::Keep), 2)?;
    let pairs = around.fields.chunks_exact(2);
    let hash = replay.get(args[1], Data::hash)?;
    if let Some(wanted) = around.if_there {
        let is_there = |name: &[u8]| hash.as_ref().is_some_and(|hash| hash.contains_key(name));
        if !pairs.clone().all(|pair| is_there(pair[0]) == wanted) {
            return Ok(());
        }
    }
    let hash = replay.get_or_make(args[1], Data::hash, empty)?;
    for pair in pairs {
        let old = hash.get(pair[0]).and_then(|field| field.expire_at_ms);
        let field = Field {
            value: pair[1].to_vec(),
            expire_at_ms: match around.expiry.unwrap_or(Expiry::Clear) {
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
    let around = Around::parse(replay, &args[2..], ("PERSIST", Expiry::Clear), 1)?;
    let Some(hash) = replay.get(args[1], Data::hash)? else {
        return Ok(());
    };
    for name in around.fields {
        if let (Some(field), Some(expiry)) = (hash.get_mut(*name), around.expiry) {
            field.expire_at_ms = match expiry {
                Expiry::At(at_ms) => Some(at_ms),
                Expiry::Clear | Expiry::Keep => None,
            };
        }
    }
    Ok(())
}

fn getdel(replay: &mut Replay, args: Args<'_>) -> Done {
    let names = fields(&mut Reader::new(&args[2..]))?;
    if let Some(hash) = replay.get(args[1], Data::hash)? {
        for name in names {
            hash.remove(*name);
        }
        replay.drop_empty(args[1]);
    }
    Ok(())
}
