//! DUMP and RESTORE: a value as bytes, and back.

use std::sync::atomic::{AtomicBool, Ordering};

use dfsnap_formats::error::Damage;
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::dump::{self, DumpError};
use dfsnap_formats::rdb::type_code;

use super::collection::elements;
use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::command::exec::Actor;
use crate::keyspace::entry::Access;
use crate::snapshot::load::damage_in_words_of_redis;
use crate::snapshot::serializer::{self, Dialect};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("dump", 2, Flags::READONLY, KeySpec::ONE, dump_value)
        .about(Group::Generic, "2.6.0", "A value in the form that RESTORE takes."),
    Command::keyed("restore", -4, Flags::WRITE_OOM, KeySpec::ONE, restore)
        .about(Group::Generic, "2.6.0", "Makes a key of what DUMP gave."),
    Command::keyed("restore-asking", -4, Flags::WRITE_OOM.with(Flags::ASKING), KeySpec::ONE, restore)
        .about(Group::Server, "3.0.0", "RESTORE for keys that move between nodes of a cluster."),
];

/// What Redis 7.0 reads, unless fields have an expiry of their own.
const VERSION: u16 = 10;
/// The newest version there is a reader for, and the one that fields with an expiry need.
const VERSION_MAX: u16 = 12;

/// Set by DEBUG SET-SKIP-CHECKSUM-VALIDATION.
static SKIPS_CHECKSUMS: AtomicBool = AtomicBool::new(false);

/// Whether RESTORE takes payloads with a wrong checksum: a test of what damage does.
pub fn skip_checksums(skips: bool) {
    SKIPS_CHECKSUMS.store(skips, Ordering::Relaxed);
}

fn dump_value(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let most = exec.most_elements;
    let (entry, reply) = exec.read_with_reply(args[1]);
    let Some(entry) = entry else {
        reply.null();
        return Ok(Effect::None);
    };
    if elements(entry.value()) > most {
        return Ok(Effect::Aside);
    }
    let code = serializer::type_code_of(entry.value(), Dialect::Rdb);
    let mut payload = vec![code];
    serializer::value(&mut payload, entry.value(), Dialect::Rdb, None);
    let version = if code == type_code::HASH_METADATA {
        VERSION_MAX
    } else {
        VERSION
    };
    dump::seal(&mut payload, version);
    reply.bulk(&payload);
    Ok(Effect::None)
}

#[derive(Default)]
struct Options {
    replaces: bool,
    is_absolute: bool,
    idle_s: Option<i64>,
    frequency: Option<u8>,
}

impl Options {
    fn parse(words: Args<'_>) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let has_more = words.len() > 0;
            let mut number = || {
                words
                    .next()
                    .map_or(Err(CommandError::SYNTAX), |word| int(word))
            };
            match word {
                word if is(word, "replace") => options.replaces = true,
                word if is(word, "absttl") => options.is_absolute = true,
                word if is(word, "idletime") && has_more && options.frequency.is_none() => {
                    let idle = Some(number()?).filter(|idle| *idle >= 0);
                    options.idle_s = Some(idle.ok_or(CommandError::text(
                        "ERR Invalid IDLETIME value, must be >= 0",
                    ))?);
                }
                word if is(word, "freq") && has_more && options.idle_s.is_none() => {
                    let frequency = u8::try_from(number()?);
                    options.frequency = Some(frequency.map_err(|_| {
                        CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255")
                    })?);
                }
                _ => return Err(CommandError::SYNTAX),
            }
        }
        Ok(options)
    }

    /// The use that the options tell of, if the policy counts such uses.
    fn access(&self, exec: &Exec<'_>) -> Option<Access> {
        match (self.idle_s, self.frequency) {
            (Some(idle_s), _) if !exec.settings.lfu => Some(Access::at(
                exec.now_ms
                    .saturating_sub(idle_s.saturating_mul(1000))
                    .max(0),
            )),
            (_, Some(frequency)) if exec.settings.lfu => Some(Access(
                Access::new_lfu(exec.now_ms).0 & !0xff | u32::from(frequency),
            )),
            _ => None,
        }
    }
}

fn restore(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, payload) = (args[1], args[3]);
    let options = Options::parse(&args[4..])?;
    let is_there = exec.peek(key).is_some();
    if is_there && !options.replaces {
        return Err(CommandError::text(
            "BUSYKEY Target key name already exists.",
        ));
    }
    let ttl = int(args[2])?;
    if ttl < 0 {
        return Err(CommandError::text("ERR Invalid TTL value, must be >= 0"));
    }
    let parse = if SKIPS_CHECKSUMS.load(Ordering::Relaxed) {
        dump::Payload::parse_unchecked
    } else {
        dump::Payload::parse
    };
    let payload = parse(payload, VERSION_MAX)
        .map_err(|_| CommandError::text("ERR DUMP payload version or checksum are wrong"))?;
    let refused = |error: &dyn std::fmt::Display, damage: Option<&Damage>| {
        let what = damage_in_words_of_redis(payload.type_code, damage);
        tracing::warn!("RESTORE: {error}: {what}");
        CommandError::text("ERR Bad data format")
    };
    let stored = payload.decode(&DecodeLimits::default());
    let stored = stored.map_err(|error| match &error {
        DumpError::Value(damage) => refused(&error, Some(damage)),
        _ => refused(&error, None),
    })?;
    let value = serializer::from_stored(stored, &exec.settings.limits);
    let value = value.map_err(|problem| refused(&problem, None))?;
    let expire_at_ms = match ttl {
        0 => None,
        at if options.is_absolute => Some(at),
        ttl => Some(ttl.saturating_add(exec.now_ms)),
    };
    if let Some(gone) = exec.remove(key) {
        crate::keyspace::release::drop_entry(gone);
    }
    exec.forget_removed();
    exec.reply.ok();
    if expire_at_ms.is_some_and(|at| at <= exec.now_ms) && exec.actor == Actor::Client {
        return Ok(if is_there {
            Effect::command(&[b"DEL", key])
        } else {
            Effect::None
        });
    }
    let access = options.access(exec);
    let mut entry = exec.set(key, value);
    entry.set_expire_at_ms(expire_at_ms);
    if let Some(access) = access {
        entry.set_access(access);
    }
    Ok(match expire_at_ms {
        Some(at) if !options.is_absolute => {
            let mut words: Vec<Vec<u8>> = args.iter().map(|word| word.to_vec()).collect();
            words[2] = at.to_string().into_bytes();
            words.push(b"ABSTTL".to_vec());
            Effect::Commands(vec![words])
        }
        _ => Effect::Verbatim,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{Bench, compare_with_redis, split};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET n 12345
            SET s "hello world"
            RPUSH l a b 3
            SADD ints 1 2 70000
            SADD word w
            ZADD z 1 a 2.5 b
            HSET h f v g 2
            XADD x 1-1 f v
            XADD x 1-2 f w
            XGROUP CREATE x g 1-1
            DUMP n
            DUMP s
            DUMP l
            DUMP ints
            DUMP word
            DUMP z
            DUMP h
            DUMP x
            DUMP none
            RESTORE new 0 "\x00\x03abc\x0a\x00\x0b\x4d\x59\xa2\x4a\x5e\x9a\xb6"
            RESTORE new -1 "abc"
            RESTORE new x "abc"
            RESTORE s 0 "abc"
            RESTORE new 0 "abc"
            RESTORE new 0 "abc" FOO
            RESTORE new 0 "abc" IDLETIME -1
            RESTORE new 0 "abc" FREQ 256
            RESTORE new 0 "abc" IDLETIME
        "#,
        );
    }

    #[test]
    fn every_type_comes_back_with_its_expiry() {
        let mut bench = Bench::new();
        for line in [
            "SET s text",
            "RPUSH l a b",
            "SADD t x y",
            "ZADD z 1 a",
            "HSET h f v",
            "XADD x 1-1 f v",
        ] {
            bench.run(line);
            let key = split(line)[1].clone();
            let dumped = bench.run_words(&[b"DUMP".to_vec(), key.clone()]).0;
            let start = dumped.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let payload = dumped[start..dumped.len() - 2].to_vec();
            let words = [
                b"RESTORE".to_vec(),
                b"copy".to_vec(),
                b"5000".to_vec(),
                payload,
                b"REPLACE".to_vec(),
            ];
            let (reply, effect) = bench.run_words(&words);
            assert_eq!(reply, b"+OK\r\n", "{line}");
            let Effect::Commands(commands) = effect else {
                panic!("{line}")
            };
            assert_eq!(
                (commands[0][2].as_slice(), commands[0][5].as_slice()),
                (&b"1700000005000"[..], &b"ABSTTL"[..])
            );
            let again = bench.run_words(&[b"DUMP".to_vec(), b"copy".to_vec()]).0;
            assert_eq!(again, dumped, "{line}");
            assert_eq!(bench.run("PTTL copy").0, ":5000\\r\\n");
        }
    }
}
