//! Strings.

use std::borrow::Cow;

use super::words::{index_range, int, is};
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Merge,
};
use crate::keyspace::value::{Value, canonical_i64};
use dfsnap_formats::long_double::LongDouble;

const PAIRS: KeySpec = KeySpec::Range {
    first: 1,
    last: -1,
    step: 2,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("append", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, append)
        .about(Group::String, "2.0.0", "Adds bytes to the end of a string."),
    Command::keyed("decr", 2, Flags::WRITE_OOM_FAST, KeySpec::ONE, incr)
        .about(Group::String, "1.0.0", "Subtracts one from a number."),
    Command::keyed("decrby", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, incr)
        .about(Group::String, "1.0.0", "Subtracts from a number."),
    Command::keyed("get", 2, Flags::READ_FAST, KeySpec::ONE, get)
        .about(Group::String, "1.0.0", "The value of a string."),
    Command::keyed("getdel", 2, Flags::WRITE_FAST, KeySpec::ONE, getdel)
        .about(Group::String, "6.2.0", "The value of a string, which is removed."),
    Command::keyed("getex", -2, Flags::WRITE_FAST, KeySpec::ONE, getex)
        .about(Group::String, "6.2.0", "The value of a string, whose expiry is set or cleared."),
    Command::keyed("getrange", 4, Flags::READONLY, KeySpec::ONE, getrange)
        .about(Group::String, "2.4.0", "A part of a string."),
    Command::keyed("getset", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, getset)
        .about(Group::String, "1.0.0", "Sets a string and returns its old value."),
    Command::keyed("incr", 2, Flags::WRITE_OOM_FAST, KeySpec::ONE, incr)
        .about(Group::String, "1.0.0", "Adds one to a number."),
    Command::keyed("incrby", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, incr)
        .about(Group::String, "1.0.0", "Adds to a number."),
    Command::keyed("incrbyfloat", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, incrbyfloat)
        .about(Group::String, "2.6.0", "Adds to a number with a fraction."),
    Command::keyed("mget", -2, Flags::READ_FAST, KeySpec::ALL, mget).split(1, Merge::Elements)
        .about(Group::String, "1.0.0", "The values of several strings."),
    Command::keyed("mset", -3, Flags::WRITE_OOM, PAIRS, mset).split(2, Merge::Ok)
        .about(Group::String, "1.0.1", "Sets several strings at once."),
    Command::keyed("msetnx", -3, Flags::WRITE_OOM, PAIRS, msetnx)
        .about(Group::String, "1.0.1", "Sets several strings at once if none of the keys is there."),
    Command::keyed("psetex", 4, Flags::WRITE_OOM, KeySpec::ONE, setex)
        .about(Group::String, "2.6.0", "Sets a string that expires in milliseconds."),
    Command::keyed("set", -3, Flags::WRITE_OOM, KeySpec::ONE, set)
        .about(Group::String, "1.0.0", "Sets a string."),
    Command::keyed("setex", 4, Flags::WRITE_OOM, KeySpec::ONE, setex)
        .about(Group::String, "2.0.0", "Sets a string that expires in seconds."),
    Command::keyed("setnx", 3, Flags::WRITE_OOM_FAST, KeySpec::ONE, setnx)
        .about(Group::String, "1.0.0", "Sets a string if the key is not there."),
    Command::keyed("setrange", 4, Flags::WRITE_OOM, KeySpec::ONE, setrange)
        .about(Group::String, "2.2.0", "Overwrites a part of a string."),
    Command::keyed("strlen", 2, Flags::READ_FAST, KeySpec::ONE, strlen)
        .about(Group::String, "2.2.0", "The length of a string."),
    Command::keyed("substr", 4, Flags::READONLY, KeySpec::ONE, getrange)
        .about(Group::String, "1.0.0", "A part of a string (the older name of GETRANGE)."),
];

const TOO_LONG: CommandError =
    CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// The bytes of a string before it is written; an error if the key holds another type.
pub(super) fn peek_string<'e>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
) -> Result<Option<Cow<'e, [u8]>>, CommandError> {
    match exec.peek(key) {
        None => Ok(None),
        Some(entry) => entry
            .value()
            .as_string()
            .map(Some)
            .ok_or(CommandError::WRONG_TYPE),
    }
}

/// The bytes of a string, to change in place; an empty string if the key is missing. The type has been checked.
pub(super) fn string_mut<'e>(exec: &'e mut Exec<'_>, key: &[u8]) -> &'e mut Vec<u8> {
    let value = exec
        .update_or_insert(key, || Value::Raw(Box::default()))
        .into_value();
    if !matches!(value, Value::Raw(_)) {
        let bytes = value
            .as_string()
            .expect("a string that was just looked at")
            .into_owned();
        *value = Value::Raw(Box::new(bytes));
    }
    match value {
        Value::Raw(bytes) => bytes,
        _ => unreachable!("just made raw"),
    }
}

/// Writes the value of a string key, or nil.
fn reply_string(exec: &mut Exec<'_>, key: &[u8]) -> Result<bool, CommandError> {
    let (entry, reply) = exec.read_with_reply(key);
    match entry.map(|entry| entry.value()) {
        None => reply.null(),
        Some(Value::Int(number)) => reply.bulk_int(*number),
        Some(value) => reply.bulk(&value.as_string().ok_or(CommandError::WRONG_TYPE)?),
    }
    Ok(entry.is_some())
}

fn get(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_string(exec, args[1])?;
    Ok(Effect::None)
}

fn getdel(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if !reply_string(exec, args[1])? {
        return Ok(Effect::None);
    }
    exec.remove(args[1]);
    Ok(Effect::command(&[b"DEL", args[1]]))
}

fn mget(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    exec.reply.array(args.len() - 1);
    for key in &args[1..] {
        let (entry, reply) = exec.read_with_reply(key);
        match entry.map(|entry| entry.value()) {
            Some(Value::Int(number)) => reply.bulk_int(*number),
            Some(value) => match value.as_string() {
                Some(bytes) => reply.bulk(&bytes),
                None => reply.null(),
            },
            None => reply.null(),
        }
    }
    Ok(Effect::None)
}

fn mset(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("mset"));
    }
    for pair in args[1..].chunks_exact(2) {
        exec.set(pair[0], Value::string(pair[1]));
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

fn msetnx(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("msetnx"));
    }
    let is_free = args[1..]
        .chunks_exact(2)
        .all(|pair| exec.peek(pair[0]).is_none());
    if is_free {
        for pair in args[1..].chunks_exact(2) {
            exec.set(pair[0], Value::string(pair[1]));
        }
    }
    exec.reply.int(i64::from(is_free));
    Ok(Effect::verbatim_if(is_free))
}

/// How an option of SET or GETEX gives the expiry.
#[derive(Clone, Copy)]
pub(super) struct ExpiryForm {
    is_seconds: bool,
    is_relative: bool,
}

impl ExpiryForm {
    /// The form of EX, PX, EXAT or PXAT.
    fn of(word: &[u8]) -> Option<ExpiryForm> {
        [
            ("ex", true, true),
            ("px", false, true),
            ("exat", true, false),
            ("pxat", false, false),
        ]
        .into_iter()
        .find(|(name, ..)| is(word, name))
        .map(|(_, is_seconds, is_relative)| ExpiryForm {
            is_seconds,
            is_relative,
        })
    }

    /// The absolute time in Unix milliseconds. Zero and less are refused.
    fn at_ms(self, exec: &Exec<'_>, word: &[u8], command: &str) -> Result<i64, CommandError> {
        let number = int(word)?;
        let invalid = || CommandError::invalid_expire(command);
        if number <= 0 {
            return Err(invalid());
        }
        let ms = if self.is_seconds {
            number.checked_mul(1000).ok_or_else(invalid)?
        } else {
            number
        };
        if self.is_relative {
            ms.checked_add(exec.now_ms).ok_or_else(invalid)
        } else {
            Ok(ms)
        }
    }
}

#[derive(Default)]
struct SetOptions<'a> {
    expiry: Option<(ExpiryForm, &'a [u8])>,
    keep_ttl: bool,
    only_new: bool,
    only_old: bool,
    get: bool,
}

impl<'a> SetOptions<'a> {
    fn parse(words: Args<'a>) -> Result<SetOptions<'a>, CommandError> {
        let mut options = SetOptions::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let has_expiry = options.expiry.is_some() || options.keep_ttl;
            if is(word, "nx") && !options.only_old {
                options.only_new = true;
            } else if is(word, "xx") && !options.only_new {
                options.only_old = true;
            } else if is(word, "get") {
                options.get = true;
            } else if is(word, "keepttl") && !has_expiry {
                options.keep_ttl = true;
            } else if let Some(form) = ExpiryForm::of(word).filter(|_| !has_expiry) {
                options.expiry = Some((form, words.next().ok_or(CommandError::SYNTAX)?));
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

fn set(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, value) = (args[1], args[2]);
    if args.len() == 3 {
        exec.set(key, Value::string(value));
        exec.reply.ok();
        return Ok(Effect::Verbatim);
    }
    let options = SetOptions::parse(&args[3..])?;
    let expire_at_ms = match options.expiry {
        Some((form, word)) => Some(form.at_ms(exec, word, "set")?),
        None => None,
    };
    if options.get {
        reply_string(exec, key)?;
    }
    let is_there = exec.peek(key).is_some();
    if (options.only_new && is_there) || (options.only_old && !is_there) {
        if !options.get {
            exec.reply.null();
        }
        return Ok(Effect::None);
    }
    let kept = options
        .keep_ttl
        .then(|| exec.peek(key).and_then(|entry| entry.expire_at_ms()))
        .flatten();
    exec.set(key, Value::string(value))
        .set_expire_at_ms(expire_at_ms.or(kept));
    if !options.get {
        exec.reply.ok();
    }
    Ok(match expire_at_ms {
        Some(at) => Effect::command(&[b"SET", key, value, b"PXAT", at.to_string().as_bytes()]),
        None if options.get => {
            let words: Vec<&[u8]> = args
                .iter()
                .copied()
                .enumerate()
                .filter(|(at, word)| *at < 3 || !is(word, "get"))
                .map(|(_, word)| word)
                .collect();
            Effect::command(&words)
        }
        None => Effect::Verbatim,
    })
}

fn setnx(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let is_free = exec.peek(args[1]).is_none();
    if is_free {
        exec.set(args[1], Value::string(args[2]));
    }
    exec.reply.int(i64::from(is_free));
    Ok(Effect::verbatim_if(is_free))
}

fn setex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let is_seconds = is(args[0], "setex");
    let form = ExpiryForm {
        is_seconds,
        is_relative: true,
    };
    let at = form.at_ms(exec, args[2], if is_seconds { "setex" } else { "psetex" })?;
    exec.set(args[1], Value::string(args[3]))
        .set_expire_at_ms(Some(at));
    exec.reply.ok();
    Ok(Effect::command(&[
        b"SET",
        args[1],
        args[3],
        b"PXAT",
        at.to_string().as_bytes(),
    ]))
}

fn getset(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_string(exec, args[1])?;
    exec.set(args[1], Value::string(args[2]));
    Ok(Effect::command(&[b"SET", args[1], args[2]]))
}

fn getex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    let option = match &args[2..] {
        [] => None,
        [word] if is(word, "persist") => Some(None),
        [word, value] => {
            let form = ExpiryForm::of(word).ok_or(CommandError::SYNTAX)?;
            Some(Some((form, value)))
        }
        _ => return Err(CommandError::SYNTAX),
    };
    // Redis looks at the key before the number.
    if !reply_string(exec, key)? {
        return Ok(Effect::None);
    }
    let expire_at_ms = match option {
        None => None,
        Some(None) => Some(None),
        Some(Some((form, value))) => Some(Some(form.at_ms(exec, value, "getex")?)),
    };
    match expire_at_ms {
        None => Ok(Effect::None),
        Some(Some(at)) if at <= exec.now_ms => {
            exec.remove(key);
            Ok(exec.deletion(key))
        }
        Some(Some(at)) => {
            exec.update(key)
                .expect("it was just read")
                .set_expire_at_ms(Some(at));
            Ok(Effect::command(&[
                b"PEXPIREAT",
                key,
                at.to_string().as_bytes(),
            ]))
        }
        Some(None) => {
            if exec
                .peek(key)
                .and_then(|entry| entry.expire_at_ms())
                .is_none()
            {
                return Ok(Effect::None);
            }
            exec.update(key)
                .expect("it was just read")
                .set_expire_at_ms(None);
            Ok(Effect::command(&[b"PERSIST", key]))
        }
    }
}

fn strlen(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let len = exec.read_string(args[1])?.map_or(0, |bytes| bytes.len());
    exec.reply.int(len as i64);
    Ok(Effect::None)
}

fn getrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (start, stop) = (int(args[2])?, int(args[3])?);
    let (entry, reply) = exec.read_with_reply(args[1]);
    let bytes = match entry {
        None => Cow::Borrowed(&b""[..]),
        Some(entry) => entry.value().as_string().ok_or(CommandError::WRONG_TYPE)?,
    };
    // A range that ends before it starts is empty, even where clamping would make it one byte.
    let range = if start < 0 && stop < 0 && start > stop {
        0..0
    } else {
        index_range(start, stop.max(-(bytes.len() as i64)), bytes.len())
    };
    reply.bulk(&bytes[range]);
    Ok(Effect::None)
}

fn append(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, tail) = (args[1], args[2]);
    let Some(len) = peek_string(exec, key)?.map(|bytes| bytes.len()) else {
        exec.set(key, Value::string(tail));
        exec.reply.int(tail.len() as i64);
        return Ok(Effect::Verbatim);
    };
    check_len(exec, len, tail.len())?;
    // Appending nothing is still a write, as in Redis.
    string_mut(exec, key).extend_from_slice(tail);
    exec.reply.int((len + tail.len()) as i64);
    Ok(Effect::Verbatim)
}

fn check_len(exec: &Exec<'_>, start: usize, len: usize) -> Result<(), CommandError> {
    let end = (start as u64).checked_add(len as u64);
    if end.is_some_and(|end| end <= exec.settings.string_bytes_max) {
        Ok(())
    } else {
        Err(TOO_LONG)
    }
}

fn setrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, patch) = (args[1], args[3]);
    let offset = usize::try_from(int(args[2])?).map_err(|_| CommandError::OFFSET_OUT_OF_RANGE)?;
    let len = peek_string(exec, key)?.map_or(0, |bytes| bytes.len());
    if patch.is_empty() {
        exec.reply.int(len as i64);
        return Ok(Effect::None);
    }
    check_len(exec, offset, patch.len())?;
    let bytes = string_mut(exec, key);
    if bytes.len() < offset + patch.len() {
        bytes.resize(offset + patch.len(), 0);
    }
    bytes[offset..offset + patch.len()].copy_from_slice(patch);
    let len = bytes.len();
    exec.reply.int(len as i64);
    Ok(Effect::Verbatim)
}

/// INCR, INCRBY, DECR and DECRBY.
fn incr(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    let is_down = args[0][0].eq_ignore_ascii_case(&b'd');
    let mut step = args.get(2).map_or(Ok(1), |word| int(word))?;
    if is_down {
        step = step
            .checked_neg()
            .ok_or(CommandError::text("ERR decrement would overflow"))?;
    }
    let old = match exec.peek(key).map(|entry| entry.value()) {
        None => None,
        Some(Value::Int(number)) => Some(*number),
        Some(value) => {
            let bytes = value.as_string().ok_or(CommandError::WRONG_TYPE)?;
            Some(canonical_i64(&bytes).ok_or(CommandError::NOT_INTEGER)?)
        }
    };
    let new = old
        .unwrap_or(0)
        .checked_add(step)
        .ok_or(CommandError::OVERFLOW)?;
    match old {
        None => drop(exec.set(key, Value::Int(new))),
        Some(_) => *exec.update(key).expect("it was just looked at").value() = Value::Int(new),
    }
    exec.reply.int(new);
    Ok(Effect::Verbatim)
}

fn incrbyfloat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    let old = match peek_string(exec, key)? {
        None => LongDouble::ZERO,
        Some(bytes) => LongDouble::parse(&bytes).ok_or(CommandError::NOT_FLOAT)?,
    };
    let text = increment_text(old, args[2])?;
    match exec.update(key) {
        Some(mut entry) => drop(entry.replace_value(Value::Str(text.as_slice().into()))),
        None => drop(exec.set(key, Value::Str(text.as_slice().into()))),
    }
    exec.reply.bulk(&text);
    Ok(Effect::command(&[b"SET", key, &text, b"KEEPTTL"]))
}

/// The text of `old` plus the number in `word`, as INCRBYFLOAT and HINCRBYFLOAT store it.
pub(super) fn increment_text(old: LongDouble, word: &[u8]) -> Result<Vec<u8>, CommandError> {
    let step = LongDouble::parse(word).ok_or(CommandError::NOT_FLOAT)?;
    let sum = old.plus(step).filter(|sum| sum.is_finite());
    let sum = sum.ok_or(CommandError::text(
        "ERR increment would produce NaN or Infinity",
    ))?;
    Ok(sum.to_text().into_bytes())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET a 1
            GET a
            SET a 2 NX
            SET a 2 XX
            SET a 3 GET
            SET b 3 GET
            SET b 4 NX GET
            SET c 4 NX GET
            SET a 1 EX
            SET a 1 EX 0
            SET a 1 EX -1
            SET a 1 EX x
            SET a 1 PX 9223372036854775807
            SET a 1 EX 9223372036854775807
            SET a 1 NX XX
            SET a 1 EX 10 PX 10
            SET a 1 EX 10 KEEPTTL
            SET a 1 EX 100
            SET a 2 KEEPTTL
            SET a 1 FOO
            SETEX a 0 v
            SETEX a 100 v
            PSETEX a -1 v
            GETSET a 10
            GETDEL a
            GETDEL a
            GETEX none
            SET g 1
            GETEX g EX 0
            GETEX g EX 100
            GETEX g PERSIST
            GETEX g FOO
            GETEX g EX 1 PX 1
            INCR n
            INCRBY n 10
            DECR n
            DECRBY n 5
            DECRBY n -9223372036854775808
            INCRBY n 9223372036854775807
            INCRBY n 1.5
            SET t abc
            INCR t
            INCRBYFLOAT n 0.1
            INCRBYFLOAT n 5.0e3
            INCRBYFLOAT n abc
            INCRBYFLOAT n inf
            INCRBYFLOAT t 1
            GET n
            APPEND t def
            APPEND new xyz
            APPEND new ""
            STRLEN t
            STRLEN none
            GETRANGE t 0 2
            GETRANGE t -3 -1
            GETRANGE t -1 -3
            GETRANGE t 3 100
            GETRANGE t -100 1
            GETRANGE t -100 -50
            GETRANGE t 10 20
            GETRANGE none 0 -1
            SUBSTR t 1 2
            SETRANGE t 2 ZZ
            SETRANGE t 10 Q
            SETRANGE none 0 ""
            SETRANGE t -1 x
            SETRANGE t 536870912 x
            GET t
            MSET a 1 b
            MSET a 1 b 2
            MGET a b none
            MSETNX a 1 z 2
            MSETNX y 1 z 2
            MGET y z
            SETNX y 5
            SETNX yy 5
            SET num 10
            APPEND num 5
            INCR num
            SET neg -0
            INCR neg
            GET
            SET k
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("SET a 1", "SET a 1"),
            ("SET a 1 EX 10", "SET a 1 PXAT 1700000010000"),
            ("SET a 2 PX 500 XX GET", "SET a 2 PXAT 1700000000500"),
            ("SET a 3 KEEPTTL GET", "SET a 3 KEEPTTL"),
            ("SET a 3 NX", ""),
            ("SETEX a 1 v", "SET a v PXAT 1700000001000"),
            ("GETSET a w", "SET a w"),
            ("GETEX a EX 5", "PEXPIREAT a 1700000005000"),
            ("GETEX a PERSIST", "PERSIST a"),
            ("GETEX a PERSIST", ""),
            ("GETEX a PXAT 5", "DEL a"),
            ("INCRBYFLOAT f 0.5", "SET f 0.5 KEEPTTL"),
            ("INCR n", "INCR n"),
            ("GETDEL n", "DEL n"),
            ("GETDEL n", ""),
            ("MSETNX f 1 g 1", ""),
            ("SETRANGE f 0 \"\"", ""),
            ("SET e 1 PX 1", "SET e 1 PXAT 1700000000001"),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
        bench.now_ms += 2;
        assert_eq!(bench.effect("INCR e"), "DEL e; INCR e");
    }
}
