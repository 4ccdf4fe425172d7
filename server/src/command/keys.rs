//! Commands about keys of any type.

use super::collection::elements;
use super::words::{int, is};
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Merge,
};
use crate::keyspace::DbIndex;
use crate::keyspace::release::drop_entry;

const OBJECT: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    // COPY and MOVE touch a key of another database as well, which no key specification names: they run alone.
    Command::keyed("copy", -3, Flags::WRITE_OOM, KeySpec::TWO, copy).everywhere()
        .about(Group::Generic, "6.2.0", "Copies a value to another key."),
    Command::keyed("del", -2, Flags::WRITE, KeySpec::ALL, del).split(1, Merge::Sum)
        .about(Group::Generic, "1.0.0", "Removes keys."),
    Command::keyed("exists", -2, Flags::READ_FAST, KeySpec::ALL, exists).split(1, Merge::Sum)
        .about(Group::Generic, "1.0.0", "How many of these keys are there."),
    Command::keyed("move", 3, Flags::WRITE_FAST, KeySpec::ONE, move_key).everywhere()
        .about(Group::Generic, "1.0.0", "Moves a key to another database."),
    Command::keyed("object", -2, Flags::READONLY.with(Flags::CONTAINER), OBJECT, object)
        .about(Group::Generic, "2.2.3", "How a value is stored and when it was used."),
    Command::keyed("rename", 3, Flags::WRITE, KeySpec::TWO, rename)
        .about(Group::Generic, "1.0.0", "Gives a key another name, replacing what has it."),
    Command::keyed("renamenx", 3, Flags::WRITE_FAST, KeySpec::TWO, renamenx)
        .about(Group::Generic, "1.0.0", "Gives a key another name if that is free."),
    Command::keyed("touch", -2, Flags::READ_FAST, KeySpec::ALL, touch).split(1, Merge::Sum)
        .about(Group::Generic, "3.2.1", "Notes a use of keys."),
    Command::keyed("type", 2, Flags::READ_FAST, KeySpec::ONE, type_of)
        .about(Group::Generic, "1.0.0", "The type of a value."),
    Command::keyed("unlink", -2, Flags::WRITE_FAST, KeySpec::ALL, del).split(1, Merge::Sum)
        .about(Group::Generic, "4.0.0", "Removes keys; the memory is freed elsewhere."),
];

fn del(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut removed = 0;
    for key in &args[1..] {
        if let Some(entry) = exec.remove(key) {
            removed += 1;
            drop_entry(entry);
        }
    }
    exec.reply.int(removed);
    Ok(Effect::verbatim_if(removed > 0))
}

fn exists(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let there = args[1..]
        .iter()
        .filter(|key| exec.peek(key).is_some())
        .count();
    exec.reply.int(there as i64);
    Ok(Effect::None)
}

fn touch(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let there = args[1..]
        .iter()
        .filter(|key| exec.read(key).is_some())
        .count();
    exec.reply.int(there as i64);
    Ok(Effect::None)
}

fn type_of(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let name = exec.kind(args[1]).map_or("none", |kind| kind.name());
    exec.reply.simple(name);
    Ok(Effect::None)
}

fn rename(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if exec.peek(args[1]).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    let moves = args[1] != args[2];
    if moves {
        move_entry(exec, args[1], args[2]);
    }
    exec.reply.ok();
    Ok(Effect::verbatim_if(moves))
}

fn renamenx(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if exec.peek(args[1]).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    let is_free = exec.peek(args[2]).is_none();
    if is_free {
        move_entry(exec, args[1], args[2]);
    }
    exec.reply.int(i64::from(is_free));
    Ok(Effect::verbatim_if(is_free))
}

/// Moves what `from` holds to another key, with its expiry.
fn move_entry(exec: &mut Exec<'_>, from: &[u8], to: &[u8]) {
    let entry = exec.remove(from).expect("it was just looked at");
    let expire_at_ms = entry.expire_at_ms();
    if let Some(gone) = exec.remove(to) {
        drop_entry(gone);
    }
    exec.forget_removed();
    exec.set(to, entry.into_value())
        .set_expire_at_ms(expire_at_ms);
}

/// The database that a word names.
fn database(exec: &Exec<'_>, word: &[u8]) -> Result<DbIndex, CommandError> {
    let number = int(word)?;
    match u32::try_from(number) {
        Ok(number) if number < exec.database_count() => Ok(DbIndex(number)),
        _ => Err(CommandError::DB_INDEX),
    }
}

const SAME_OBJECTS: CommandError =
    CommandError::text("ERR source and destination objects are the same");

fn move_key(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, from) = (args[1], exec.db);
    let to = database(exec, args[2])?;
    if from == to {
        return Err(SAME_OBJECTS);
    }
    let moves = exec.peek(key).is_some() && exec.peek_in(to, key).is_none();
    if moves {
        let entry = exec.remove(key).expect("it was just looked at");
        let expire_at_ms = entry.expire_at_ms();
        exec.set_in(to, key, entry.into_value())
            .set_expire_at_ms(expire_at_ms);
    }
    exec.reply.int(i64::from(moves));
    Ok(Effect::verbatim_if(moves))
}

fn copy(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    let (mut to_db, mut replaces) = (exec.db, false);
    let mut words = args[3..].iter();
    while let Some(word) = words.next() {
        if is(word, "replace") {
            replaces = true;
        } else if is(word, "db") {
            to_db = database(exec, words.next().ok_or(CommandError::SYNTAX)?)?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    if from == to && to_db == exec.db {
        return Err(SAME_OBJECTS);
    }
    let len = exec.peek(from).map(|entry| elements(entry.value()));
    // Only keys of the selected database can be lent.
    if to_db == exec.db && exec.is_too_long(len.unwrap_or(0)) {
        return Ok(Effect::Aside);
    }
    let is_free = exec.peek_in(to_db, to).is_none();
    let source = exec
        .peek(from)
        .map(|entry| (entry.value().clone(), entry.expire_at_ms()));
    let Some((value, expire_at_ms)) = source.filter(|_| is_free || replaces) else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    if let Some(gone) = exec.remove_in(to_db, to) {
        drop_entry(gone);
    }
    exec.forget_removed();
    exec.set_in(to_db, to, value).set_expire_at_ms(expire_at_ms);
    exec.reply.int(1);
    Ok(Effect::Verbatim)
}

fn object(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const LFU_OFF: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    const LFU_ON: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    let (has_limit, policy) = (exec.settings.memory_max > 0, exec.settings.eviction_policy);
    let (lfu, now_ms, decay) = (exec.settings.lfu, exec.now_ms, exec.settings.lfu_decay_time);
    let unknown = || {
        let name = String::from_utf8_lossy(args[1]).into_owned();
        CommandError::new(format!(
            "unknown subcommand or wrong number of arguments for '{name}'. Try OBJECT HELP."
        ))
    };
    if args.len() == 2 && is(args[1], "help") {
        let lines = [
            "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "ENCODING <key>",
            "    How the value is stored.",
            "FREQ <key>",
            "    How often the key was used, a logarithmic count.",
            "HELP",
            "    This text.",
            "IDLETIME <key>",
            "    Seconds since the key was used.",
            "REFCOUNT <key>",
            "    Number of references to the value.",
        ];
        exec.reply.array(lines.len());
        lines.iter().for_each(|line| exec.reply.simple(line));
        return Ok(Effect::None);
    }
    let &[_, subcommand, key] = args else {
        return Err(unknown());
    };
    let Some(entry) = exec.peek(key) else {
        if !["encoding", "freq", "idletime", "refcount"]
            .iter()
            .any(|name| is(subcommand, name))
        {
            return Err(unknown());
        }
        exec.reply.null();
        return Ok(Effect::None);
    };
    let (access, encoding) = (entry.access(), entry.value().encoding_name());
    // Each number needs access bits of its own where these choose who is evicted.
    let shares = !(has_limit && policy.uses_access());
    let is_shared =
        shares && matches!(entry.value(), crate::keyspace::value::Value::Int(0..10_000));
    match subcommand {
        word if is(word, "encoding") => exec.reply.bulk(encoding.as_bytes()),
        word if is(word, "refcount") => {
            exec.reply
                .int(if is_shared { i64::from(i32::MAX) } else { 1 })
        }
        word if is(word, "freq") && lfu => {
            exec.reply.int(i64::from(access.lfu_counter(now_ms, decay)))
        }
        word if is(word, "freq") => return Err(LFU_OFF),
        word if is(word, "idletime") && lfu => return Err(LFU_ON),
        word if is(word, "idletime") => exec.reply.int(i64::from(access.idle_s(now_ms))),
        _ => return Err(unknown()),
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET a 1
            RPUSH l 1 2
            SADD s a b
            HSET h f v
            ZADD z 1 m
            XADD x 1-1 f v
            TYPE x
            COPY x x2
            XRANGE x2 - +
            TYPE a
            TYPE l
            TYPE s
            TYPE h
            TYPE z
            TYPE none
            EXISTS a a none l
            TOUCH a none
            DEL a none a
            UNLINK none
            RENAME none b
            RENAME l m
            RENAME m m
            RENAME none none
            RENAMENX m s
            RENAMENX m l
            RENAMENX none l
            RENAMENX l l
            COPY l l2
            COPY l l2
            COPY l l2 REPLACE
            COPY none l2
            COPY l l
            COPY l l DB 1
            COPY l l DB 99
            COPY l l FOO
            COPY s s2
            COPY h h2
            COPY z z2
            HGETALL h2
            ZRANGE z2 0 -1
            MOVE l 1
            MOVE h 1
            MOVE h 1
            MOVE h 0
            MOVE s 99
            MOVE s x
            OBJECT ENCODING none
            OBJECT ENCODING h2
            OBJECT ENCODING z
            OBJECT REFCOUNT z
            OBJECT FREQ z
            OBJECT IDLETIME z
            KEYS z
            KEYS nope*
            SCAN 0 COUNT 0
            SCAN x
            SCAN 0 COUNT
            SCAN 0 FOO 1
            SCAN 0 MATCH z COUNT 100
            SCAN 0 MATCH nope COUNT 1000
            SCAN 0 TYPE nosuch COUNT 1000
            EXPIRE z 100
            TTL z
            EXPIRE none 100
            EXPIRE z 100 NX
            EXPIRE z 50 GT
            EXPIRE z 200 GT
            EXPIRE z 300 LT
            EXPIRE z 100 XX
            EXPIRE s2 100 XX
            EXPIRE s2 100 GT
            EXPIRE s2 100 LT
            EXPIRE s2 100 NX XX
            EXPIRE s2 100 GT LT
            EXPIRE s2 100 FOO
            EXPIRE s2 x
            EXPIRE s2 9223372036854775807
            PEXPIRE s2 9223372036854775807
            EXPIREAT s2 9223372036854775807
            PERSIST z
            PERSIST z
            PERSIST none
            TTL z
            PTTL z
            TTL none
            PTTL none
            EXPIREAT z 4000000000
            EXPIRETIME z
            PEXPIRETIME z
            PEXPIREAT z 4000000000123
            EXPIRETIME z
            PEXPIRETIME z
            PEXPIRETIME none
            EXPIRETIME s
            EXPIRE z 0
            EXISTS z
            EXPIRE s2 -1
            EXISTS s2
            PEXPIREAT s 1
            EXISTS s
            RANDOMKEY
            FLUSHALL
            RANDOMKEY
            KEYS *
            SCAN 0
        "#
            .replace(
                "            RANDOMKEY\n            FLUSHALL",
                "            FLUSHALL",
            )
            .as_str(),
        );
    }

    #[test]
    fn scan_returns_every_key_once() {
        let mut bench = Bench::new();
        for n in 0..3000 {
            bench.run(&format!("SET key:{n} v"));
        }
        let (mut cursor, mut seen) = ("0".to_string(), Vec::new());
        loop {
            let (reply, _) = bench.run_words(&crate::command::testing::split(&format!(
                "SCAN {cursor} COUNT 50"
            )));
            let text = String::from_utf8(reply).unwrap();
            let lines: Vec<&str> = text
                .split("\r\n")
                .filter(|line| !line.starts_with(['*', '$']))
                .collect();
            cursor = lines[0].to_string();
            seen.extend(
                lines[1..]
                    .iter()
                    .filter(|line| !line.is_empty())
                    .map(|line| line.to_string()),
            );
            if cursor == "0" {
                break;
            }
        }
        let total = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((total, seen.len()), (3000, 3000));
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        bench.run("SET a 1");
        let rows = [
            ("EXPIRE a 10", "PEXPIREAT a 1700000010000"),
            ("EXPIRE a 5 LT", "PEXPIREAT a 1700000005000 LT"),
            ("EXPIRE a 50 LT", ""),
            ("EXPIREAT a 1800000000 GT", "PEXPIREAT a 1800000000000 GT"),
            ("PERSIST a", "PERSIST a"),
            ("PERSIST a", ""),
            ("RENAMENX a b", "RENAMENX a b"),
            ("COPY b c", "COPY b c"),
            ("COPY b c", ""),
            ("PEXPIRE c -5", "DEL c"),
            ("MOVE b 1", "MOVE b 1"),
            ("DEL b", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
