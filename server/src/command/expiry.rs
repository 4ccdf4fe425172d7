//! Commands about when keys expire.

use super::runner::{Commit, commit_on_shard};
use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::blob::Blob;
use crate::keyspace::release::drop_entry;
use crate::keyspace::{DbIndex, Key};
use crate::shard::Shard;

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("expire", -3, Flags::WRITE_FAST, KeySpec::ONE, expire)
        .about(Group::Generic, "1.0.0", "Sets the seconds until a key expires."),
    Command::keyed("expireat", -3, Flags::WRITE_FAST, KeySpec::ONE, expireat)
        .about(Group::Generic, "1.2.0", "Sets the second when a key expires."),
    Command::keyed("expiretime", 2, Flags::READ_FAST, KeySpec::ONE, expiretime)
        .about(Group::Generic, "7.0.0", "The second when a key expires."),
    Command::keyed("persist", 2, Flags::WRITE_FAST, KeySpec::ONE, persist)
        .about(Group::Generic, "2.2.0", "Makes a key stay."),
    Command::keyed("pexpire", -3, Flags::WRITE_FAST, KeySpec::ONE, pexpire)
        .about(Group::Generic, "2.6.0", "Sets the milliseconds until a key expires."),
    Command::keyed("pexpireat", -3, Flags::WRITE_FAST, KeySpec::ONE, pexpireat)
        .about(Group::Generic, "2.6.0", "Sets the millisecond when a key expires."),
    Command::keyed("pexpiretime", 2, Flags::READ_FAST, KeySpec::ONE, pexpiretime)
        .about(Group::Generic, "7.0.0", "The millisecond when a key expires."),
    Command::keyed("pttl", 2, Flags::READ_FAST, KeySpec::ONE, pttl)
        .about(Group::Generic, "2.6.0", "The milliseconds until a key expires."),
    Command::keyed("ttl", 2, Flags::READ_FAST, KeySpec::ONE, ttl)
        .about(Group::Generic, "1.0.0", "The seconds until a key expires."),
];

fn expire(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    set_expiry(exec, args, "expire", true, now_ms)
}

fn pexpire(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    set_expiry(exec, args, "pexpire", false, now_ms)
}

fn expireat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(exec, args, "expireat", true, 0)
}

fn pexpireat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(exec, args, "pexpireat", false, 0)
}

/// When an EXPIRE command with options applies.
#[derive(Default)]
struct Conditions {
    none: bool,
    some: bool,
    greater: bool,
    less: bool,
}

impl Conditions {
    fn parse(words: Args<'_>) -> Result<Conditions, CommandError> {
        let mut set = Conditions::default();
        for word in words {
            match word {
                word if is(word, "nx") => set.none = true,
                word if is(word, "xx") => set.some = true,
                word if is(word, "gt") => set.greater = true,
                word if is(word, "lt") => set.less = true,
                _ => {
                    return Err(CommandError::new(format!(
                        "Unsupported option {}",
                        String::from_utf8_lossy(word)
                    )));
                }
            }
        }
        if set.none && (set.some || set.greater || set.less) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if set.greater && set.less {
            return Err(CommandError::text(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(set)
    }

    /// A key without expiry counts as one that expires at the end of time.
    fn allow(&self, old: Option<i64>, new: i64) -> bool {
        !(self.none && old.is_some()
            || self.some && old.is_none()
            || self.greater && old.is_none_or(|old| new <= old)
            || self.less && old.is_some_and(|old| new >= old))
    }
}

fn set_expiry(
    exec: &mut Exec<'_>,
    args: Args<'_>,
    name: &str,
    is_seconds: bool,
    base_ms: i64,
) -> CommandResult {
    let key = args[1];
    let conditions = Conditions::parse(&args[3..])?;
    let number = int(args[2])?;
    let ms = if is_seconds {
        number.checked_mul(1000)
    } else {
        Some(number)
    };
    let at = ms
        .and_then(|ms| ms.checked_add(base_ms))
        .ok_or_else(|| CommandError::invalid_expire(name))?;
    let old = exec.peek(key).map(|entry| entry.expire_at_ms());
    if !old.is_some_and(|old| conditions.allow(old, at)) {
        exec.reply.int(0);
        return Ok(Effect::None);
    }
    exec.reply.int(1);
    // What the primary decides, and what a file says, is kept to the letter.
    if at <= exec.now_ms && exec.actor == super::exec::Actor::Client {
        if let Some(entry) = exec.remove(key) {
            drop_entry(entry);
        }
        return Ok(exec.deletion(key));
    }
    exec.update(key)
        .expect("it was just looked at")
        .set_expire_at_ms(Some(at));
    let text = at.to_string();
    let mut words: Vec<&[u8]> = vec![b"PEXPIREAT", key, text.as_bytes()];
    words.extend(&args[3..]);
    Ok(Effect::command(&words))
}

fn persist(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let is_timed = exec
        .peek(args[1])
        .is_some_and(|entry| entry.expire_at_ms().is_some());
    if is_timed {
        exec.update(args[1])
            .expect("it was just looked at")
            .set_expire_at_ms(None);
    }
    exec.reply.int(i64::from(is_timed));
    Ok(Effect::verbatim_if(is_timed))
}

fn ttl(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    reply_time(exec, args[1], |at| ((at - now_ms).max(0) + 500) / 1000)
}

fn pttl(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    reply_time(exec, args[1], |at| (at - now_ms).max(0))
}

fn expiretime(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_time(exec, args[1], |at| at.saturating_add(500) / 1000)
}

fn pexpiretime(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_time(exec, args[1], |at| at)
}

/// -2 for a missing key, -1 for one that stays.
fn reply_time(exec: &mut Exec<'_>, key: &[u8], form: impl Fn(i64) -> i64) -> CommandResult {
    let number = match exec.peek(key).map(|entry| entry.expire_at_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => form(at),
    };
    exec.reply.int(number);
    Ok(Effect::None)
}
/// Takes a key out whose time has come, as a unit of its own. The caller holds the key, or it is free.
pub fn remove_expired(shard: &mut Shard, db: DbIndex, key: &Blob) {
    let known = Key::new(key);
    let keyspace = shard.keyspace.as_mut().expect("free keys are here");
    if let Some(entry) = keyspace.remove(db, known) {
        drop_entry(entry);
    }
    keyspace.stats.expired += 1;
    let hub = &shard.settings.hub;
    if hub.has_event(b'x') {
        hub.notify(db.0, "expired", key);
    }
    if hub.tracking.is_active() {
        let keys = std::iter::once(key.as_slice());
        hub.tracking.invalidate(keys.clone(), 0, &hub.limits);
        hub.tracking.broadcast(keys, 0, &hub.limits);
    }
    let mut commit = Commit {
        touched: vec![(db, key.clone())],
        ..Commit::default()
    };
    if shard.journal.is_active() {
        commit.expired(db, key, shard.settings.expire_as_unlink);
    }
    commit_on_shard(shard, commit);
}
