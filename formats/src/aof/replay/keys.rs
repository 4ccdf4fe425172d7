//! Keys as such, whatever they hold, and databases.

use super::store::{Data, Slot};
use super::table::Command;
use super::words::{Deadline, Reader, int, is};
use super::{Args, Done, NO_KEY, Replay, SYNTAX, Stop};
use crate::dataset::Attributes;
use crate::rdb::dump::Payload;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("DEL", -2, del),
    Command::run("UNLINK", -2, del),
    Command::run("RENAME", 3, rename),
    Command::run("RENAMENX", 3, renamenx),
    Command::run("MOVE", 3, move_key),
    Command::run("COPY", -3, copy),
    Command::run("EXPIRE", -3, |replay, args| expire(replay, args, true, true)),
    Command::run("PEXPIRE", -3, |replay, args| expire(replay, args, true, false)),
    Command::run("EXPIREAT", -3, |replay, args| expire(replay, args, false, true)),
    Command::run("PEXPIREAT", -3, |replay, args| expire(replay, args, false, false)),
    Command::run("PERSIST", 2, persist),
    Command::run("RESTORE", -4, restore),
    Command::run("RESTORE-ASKING", -4, restore),
    Command::run("JSON.SET", -4, json_set),
    Command::run("SELECT", 2, select),
    Command::run("SWAPDB", 3, swapdb),
    Command::run("FLUSHDB", -1, flushdb),
    Command::run("FLUSHALL", -1, flushall),
    Command::run("MIGRATE", -6, migrate),
];

fn del(replay: &mut Replay, args: Args<'_>) -> Done {
    for key in &args[1..] {
        replay.remove(key);
    }
    Ok(())
}

fn rename(replay: &mut Replay, args: Args<'_>) -> Done {
    let slot = replay.remove(args[1]).ok_or(NO_KEY)?;
    replay.keys().insert(args[2].to_vec(), slot);
    Ok(())
}

fn renamenx(replay: &mut Replay, args: Args<'_>) -> Done {
    if !replay.has(args[1]) {
        return Err(NO_KEY);
    }
    match replay.has(args[2]) {
        true => Ok(()),
        false => rename(replay, args),
    }
}

impl Replay {
    fn db_of(&self, word: &[u8]) -> Result<u32, Stop> {
        let number = u32::try_from(int(word)?).ok();
        number
            .filter(|db| {
                self.options
                    .databases
                    .is_none_or(|databases| *db < databases)
            })
            .ok_or(Stop::Refused("no such database"))
    }

    pub(super) fn expire(&mut self, key: &[u8], at_ms: Option<i64>) {
        if let Some(slot) = self.keys().get_mut(key) {
            slot.attributes.expire_at_ms = at_ms;
        }
    }
}

fn select(replay: &mut Replay, args: Args<'_>) -> Done {
    replay.db = replay.db_of(args[1])?;
    Ok(())
}

fn move_key(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, target) = (args[1], replay.db_of(args[2])?);
    if target == replay.db {
        return Err(Stop::Refused("source and target are the same"));
    }
    let is_there = replay
        .dbs
        .get(&target)
        .is_some_and(|db| db.contains_key(key));
    if !is_there && let Some(slot) = replay.remove(key) {
        replay
            .dbs
            .entry(target)
            .or_default()
            .insert(key.to_vec(), slot);
    }
    Ok(())
}

fn copy(replay: &mut Replay, args: Args<'_>) -> Done {
    let (source, name) = (args[1], args[2]);
    let mut words = Reader::new(&args[3..]);
    let (mut target, mut replace) = (replay.db, false);
    while !words.is_empty() {
        if words.skip("REPLACE") {
            replace = true;
        } else if words.skip("DB") {
            target = replay.db_of(words.next()?)?;
        } else {
            return Err(SYNTAX);
        }
    }
    if target == replay.db && source == name {
        return Err(Stop::Refused("source and target are the same"));
    }
    let Some(slot) = replay.keys().get(source).cloned() else {
        return Ok(());
    };
    let slot = Slot {
        attributes: Attributes {
            expire_at_ms: slot.attributes.expire_at_ms,
            ..Attributes::default()
        },
        data: slot.data,
    };
    let keys = replay.dbs.entry(target).or_default();
    if replace || !keys.contains_key(name) {
        keys.insert(name.to_vec(), slot);
    }
    Ok(())
}

/// NX, XX, GT and LT of the expiry commands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    /// Takes the option if it is one.
    pub(super) fn take(&mut self, word: &[u8]) -> bool {
        let flag = if is(word, "NX") {
            &mut self.nx
        } else if is(word, "XX") {
            &mut self.xx
        } else if is(word, "GT") {
            &mut self.gt
        } else if is(word, "LT") {
            &mut self.lt
        } else {
            return false;
        };
        *flag = true;
        true
    }

    pub(super) fn is_sound(self) -> bool {
        !(self.nx && (self.xx || self.gt || self.lt) || self.gt && self.lt)
    }

    /// Whether `new` may take the place of `old`.
    pub(super) fn allows(self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire(replay: &mut Replay, args: Args<'_>, is_relative: bool, is_seconds: bool) -> Done {
    let mut condition = Condition::default();
    if !args[3..].iter().all(|word| condition.take(word)) || !condition.is_sound() {
        return Err(SYNTAX);
    }
    let deadline = Deadline {
        is_relative,
        is_seconds,
    };
    let at_ms = replay.deadline_ms(deadline, int(args[2])?)?;
    if let Some(slot) = replay.keys().get_mut(args[1])
        && condition.allows(slot.attributes.expire_at_ms, at_ms)
    {
        slot.attributes.expire_at_ms = Some(at_ms);
    }
    Ok(())
}

fn persist(replay: &mut Replay, args: Args<'_>) -> Done {
    replay.expire(args[1], None);
    Ok(())
}

fn restore(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, ttl, payload) = (args[1], args[2], args[3]);
    let mut words = Reader::new(&args[4..]);
    let (mut replace, mut is_relative) = (false, true);
    let mut attributes = Attributes::default();
    while !words.is_empty() {
        if words.skip("REPLACE") {
            replace = true;
        } else if words.skip("ABSTTL") {
            is_relative = false;
        } else if words.skip("IDLETIME") && attributes.freq.is_none() {
            let idle_s = u64::try_from(int(words.next()?)?);
            attributes.idle_s = Some(idle_s.map_err(|_| Stop::Refused("an idle time below 0"))?);
        } else if words.skip("FREQ") && attributes.idle_s.is_none() {
            let freq = u8::try_from(int(words.next()?)?);
            attributes.freq = Some(freq.map_err(|_| Stop::Refused("no LFU counter"))?);
        } else {
            return Err(SYNTAX);
        }
    }
    if !replace && replay.has(key) {
        return Err(Stop::Refused("the key is there already"));
    }
    attributes.expire_at_ms = match int(ttl)? {
        0 => None,
        ..0 => return Err(Stop::Refused("a TTL below 0")),
        number => {
            let deadline = Deadline {
                is_relative,
                is_seconds: false,
            };
            Some(replay.deadline_ms(deadline, number)?)
        }
    };
    let value = Payload::parse(payload, PAYLOAD_VERSION_MAX)
        .and_then(|payload| payload.decode(&replay.options.limits))
        .map_err(|_| Stop::Refused("a payload that is damaged or too new"))?;
    let data = Data::of_value(value);
    replay
        .keys()
        .insert(key.to_vec(), Slot { attributes, data });
    Ok(())
}

/// Newest RDB version of a payload that is taken.
const PAYLOAD_VERSION_MAX: u16 = 12;

/// A whole document, as `commands` writes those of Dragonfly; parts of documents are the module's business.
fn json_set(replay: &mut Replay, args: Args<'_>) -> Done {
    use super::Problem::Undetermined;
    if args.len() != 4 || !matches!(args[2], b"$" | b".") {
        let why = "changes a part of a document, which only the module can do";
        return Err(Stop::Failed(Undetermined(why)));
    }
    let value = crate::value::Value::Json(args[3].to_vec());
    match replay.data(args[1]) {
        None => replay.put(args[1], Data::Kept(value)),
        Some(Data::Kept(old)) if old.kind() == value.kind() => *old = value,
        Some(_) => return Err(super::WRONG_TYPE),
    }
    Ok(())
}

fn swapdb(replay: &mut Replay, args: Args<'_>) -> Done {
    let (a, b) = (replay.db_of(args[1])?, replay.db_of(args[2])?);
    let keys_of_a = replay.dbs.remove(&a).unwrap_or_default();
    if let Some(keys) = replay.dbs.insert(b, keys_of_a).filter(|_| a != b) {
        replay.dbs.insert(a, keys);
    }
    Ok(())
}

fn check_flush(args: Args<'_>) -> Done {
    match args {
        [_] => Ok(()),
        [_, word] if is(word, "SYNC") || is(word, "ASYNC") => Ok(()),
        _ => Err(SYNTAX),
    }
}

fn flushdb(replay: &mut Replay, args: Args<'_>) -> Done {
    check_flush(args)?;
    replay.keys().clear();
    Ok(())
}

fn flushall(replay: &mut Replay, args: Args<'_>) -> Done {
    check_flush(args)?;
    replay.dbs.clear();
    Ok(())
}

fn migrate(_: &mut Replay, _: Args<'_>) -> Done {
    let why = "sends keys to another server, and what it took is not in the file";
    Err(Stop::Failed(super::Problem::Undetermined(why)))
}
