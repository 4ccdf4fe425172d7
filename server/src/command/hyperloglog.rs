//! HyperLogLog.

use super::exec::Actor;
use super::strings::{peek_string, string_mut};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::Value;
use dfsnap_formats::hyperloglog::{self as hll, Damage, Registers};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("pfadd", -2, Flags::WRITE_OOM_FAST, KeySpec::ONE, pfadd)
        .about(Group::HyperLogLog, "2.8.9", "Counts elements."),
    Command::keyed("pfcount", -2, Flags::READONLY.with(Flags::MAY_REPLICATE), KeySpec::ALL, pfcount)
        .about(Group::HyperLogLog, "2.8.9", "About how many different elements were counted."),
    Command::keyed("pfmerge", -2, Flags::WRITE_OOM, KeySpec::ALL, pfmerge)
        .about(Group::HyperLogLog, "2.8.9", "Joins several HyperLogLogs."),
    Command::keyed("pfdebug", 3, Flags::WRITE_OOM.with(Flags::ADMIN), SECOND, pfdebug)
        .about(Group::HyperLogLog, "2.8.9", "Shows the inside of a HyperLogLog."),
    Command::keyed("pfselftest", 1, Flags::ADMIN, KeySpec::None, pfselftest)
        .about(Group::HyperLogLog, "2.8.9", "Counts elements and looks how far off the estimates are."),
];

const SECOND: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};

fn refused(damage: Damage) -> CommandError {
    match damage {
        Damage::NotOne => {
            CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.")
        }
        Damage::Corrupt => CommandError::text("INVALIDOBJ Corrupted HLL object detected"),
    }
}

/// The bytes of a HyperLogLog, if the key is there.
fn look<'e>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
) -> Result<Option<std::borrow::Cow<'e, [u8]>>, CommandError> {
    let bytes = peek_string(exec, key)?;
    if let Some(bytes) = &bytes {
        hll::check(bytes).map_err(refused)?;
    }
    Ok(bytes)
}

fn pfdebug(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[2];
    let Some(bytes) = look(exec, key)?.map(std::borrow::Cow::into_owned) else {
        return Err(CommandError::new("The specified key does not exist"));
    };
    let is_dense = hll::is_dense(&bytes);
    match args[1].to_ascii_lowercase().as_slice() {
        b"encoding" => exec.reply.simple(if is_dense { "dense" } else { "sparse" }),
        b"decode" if is_dense => return Err(CommandError::new("HLL encoding is not sparse")),
        b"decode" => {
            let runs = hll::describe_runs(&bytes).map_err(refused)?;
            exec.reply.bulk(runs.as_bytes());
        }
        b"todense" => {
            exec.reply.int(i64::from(!is_dense));
            if !is_dense {
                hll::make_dense(string_mut(exec, key)).map_err(refused)?;
                return Ok(Effect::Verbatim);
            }
        }
        b"getreg" => {
            let mut registers = Registers::default();
            registers.merge(&bytes).map_err(refused)?;
            exec.reply.array(registers.values().len());
            let values = registers.values().iter();
            values.for_each(|value| exec.reply.int(i64::from(*value)));
            if !is_dense {
                hll::make_dense(string_mut(exec, key)).map_err(refused)?;
                return Ok(Effect::Verbatim);
            }
        }
        _ => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "Unknown PFDEBUG subcommand '{name}'"
            )));
        }
    }
    Ok(Effect::None)
}

fn pfselftest(exec: &mut Exec<'_>, _args: Args<'_>) -> CommandResult {
    let mut bytes = hll::empty();
    let mut added = 0u64;
    for wanted in [1, 10, 100, 1_000, 10_000, 100_000] {
        while added < wanted {
            hll::add(&mut bytes, &added.to_le_bytes(), hll::SPARSE_BYTES_MAX).map_err(refused)?;
            added += 1;
        }
        let mut registers = Registers::default();
        registers.merge(&bytes).map_err(refused)?;
        let count = registers.count();
        // Six standard deviations.
        let error_max =
            (wanted as f64 * 6.0 * 1.04 / 128.0).ceil() as u64 + u64::from(wanted == 10);
        if count.abs_diff(wanted) > error_max {
            return Err(CommandError::text(
                "TESTFAILED the estimate is too far from the count",
            ));
        }
    }
    exec.reply.ok();
    Ok(Effect::None)
}

fn pfadd(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, elements) = (args[1], &args[2..]);
    let mut changes = true;
    if let Some(bytes) = look(exec, key)? {
        changes = false;
        for element in elements {
            changes |= hll::would_change(&bytes, element).map_err(refused)?;
        }
    } else {
        exec.set(key, Value::Raw(Box::new(hll::empty())));
    }
    if changes {
        let sparse_bytes_max = exec.settings.sparse_bytes_max;
        let bytes = string_mut(exec, key);
        let mut raised = false;
        for element in elements {
            raised |= hll::add(bytes, element, sparse_bytes_max).map_err(refused)?;
        }
        if raised || elements.is_empty() {
            hll::invalidate(bytes);
        }
    }
    exec.reply.int(i64::from(changes));
    Ok(Effect::verbatim_if(changes))
}

fn pfcount(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if let [_, key] = args {
        let known = match look(exec, key)? {
            None => Some(0),
            Some(bytes) => hll::cached_count(&bytes),
        };
        if let Some(count) = known {
            exec.reply.int(count as i64);
            return Ok(Effect::None);
        }
    }
    let mut registers = Registers::default();
    for key in &args[1..] {
        if let Some(bytes) = look(exec, key)? {
            registers.merge(&bytes).map_err(refused)?;
        }
    }
    let count = registers.count();
    exec.reply.int(count as i64);
    if args.len() > 2 {
        return Ok(Effect::None);
    }
    if exec.actor == Actor::ReplicaClient {
        // What a replica holds changes when its primary says so.
        return Ok(Effect::None);
    }
    // The count is kept in the value, where replicas must have it as well.
    hll::set_cached_count(string_mut(exec, args[1]), count);
    Ok(Effect::Verbatim)
}

fn pfmerge(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut registers = Registers::default();
    let mut is_dense = false;
    for key in &args[1..] {
        if let Some(bytes) = look(exec, key)? {
            is_dense |= hll::is_dense(&bytes);
            registers.merge(&bytes).map_err(refused)?;
        }
    }
    if exec.peek(args[1]).is_none() {
        exec.set(args[1], Value::Raw(Box::new(hll::empty())));
    }
    let sparse_bytes_max = exec.settings.sparse_bytes_max;
    let bytes = string_mut(exec, args[1]);
    if is_dense {
        hll::make_dense(bytes).map_err(refused)?;
    }
    registers.store(bytes, sparse_bytes_max).map_err(refused)?;
    hll::invalidate(bytes);
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use crate::command::testing::{Bench, compare_with_redis};

    /// The setting used to be taken and change nothing.
    #[test]
    fn a_sparse_one_grows_as_far_as_the_setting_says() {
        let mut bench = Bench::new();
        for (limit, encoding) in [(0, "dense"), (15, "dense"), (3000, "sparse")] {
            bench.settings.sparse_bytes_max = limit;
            bench.run("DEL h m");
            bench.run("PFADD h a");
            let told = bench.run("PFDEBUG ENCODING h").0;
            assert_eq!(told, format!("+{encoding}\\r\\n"), "PFADD, {limit}");
            bench.run("PFMERGE m h");
            let told = bench.run("PFDEBUG ENCODING m").0;
            assert_eq!(told, format!("+{encoding}\\r\\n"), "PFMERGE, {limit}");
        }
    }

    #[test]
    fn replies_and_bytes_are_those_of_redis() {
        let mut script = String::from(
            r#"
            SET s v
            SET short HYLL
            SET corrupt "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xf0"
            RPUSH l 1
            PFADD s a
            PFADD short a
            PFADD l a
            PFCOUNT s
            PFCOUNT l
            PFCOUNT corrupt
            PFCOUNT none
            PFCOUNT none none2
            PFADD e
            GET e
            PFADD e
            PFCOUNT e
            GET e
            PFADD a x y z
            PFADD a x
            GET a
            PFCOUNT a
            GET a
            PFADD a w
            PFADD b 1 2 3
            PFCOUNT a b
            PFMERGE m a b none
            GET m
            PFMERGE m s
            PFMERGE fresh
            GET fresh
            PFCOUNT m
        "#,
        );
        // Through the sparse form and into the dense one, with looks at the bytes on the way.
        for n in 0..2600 {
            writeln!(script, "PFADD big element:{n}").unwrap();
            if n % 25 == 0 {
                writeln!(script, "PFCOUNT big\nGET big").unwrap();
            }
        }
        script += "PFMERGE joined a big\nGET joined\nPFMERGE a big\nGET a\nPFCOUNT a big joined\nSTRLEN big\n";
        compare_with_redis(&script);
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("PFADD a x", "PFADD a x"),
            ("PFADD a x", ""),
            ("PFCOUNT a", "PFCOUNT a"),
            ("PFCOUNT a", ""),
            ("PFCOUNT a b", ""),
            ("PFMERGE b a", "PFMERGE b a"),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
