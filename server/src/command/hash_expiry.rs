//! Fields of hashes that expire on their own: the commands of Redis 7.4 and 8.0.
//!
//! A field whose time is past goes as a key does: a command that meets it takes it out, and so does the shard's own round
//! (`net::thread`). Replicas get `HDEL` of it. A hash that has lost its last field goes with it.

use super::collection::bulk;
use super::hashes::{owned, peek_hash, read_hash};
use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::command::exec::Actor;
use crate::keyspace::value::Value;
use crate::keyspace::value::hash::Hash;

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("hexpire", -6, Flags::WRITE_OOM_FAST, KeySpec::ONE, hexpire)
        .about(Group::Hash, "7.4.0", "Sets the seconds until fields expire."),
    Command::keyed("hexpireat", -6, Flags::WRITE_OOM_FAST, KeySpec::ONE, hexpireat)
        .about(Group::Hash, "7.4.0", "Sets the second when fields expire."),
    Command::keyed("hexpiretime", -5, Flags::READ_FAST, KeySpec::ONE, hexpiretime)
        .about(Group::Hash, "7.4.0", "The second when fields expire."),
    Command::keyed("hgetdel", -5, Flags::WRITE_FAST, KeySpec::ONE, hgetdel)
        .about(Group::Hash, "8.0.0", "The values of fields, which go."),
    Command::keyed("hgetex", -5, Flags::WRITE_FAST, KeySpec::ONE, hgetex)
        .about(Group::Hash, "8.0.0", "The values of fields, whose expiry changes."),
    Command::keyed("hpersist", -5, Flags::WRITE_FAST, KeySpec::ONE, hpersist)
        .about(Group::Hash, "7.4.0", "Makes fields stay."),
    Command::keyed("hpexpire", -6, Flags::WRITE_OOM_FAST, KeySpec::ONE, hpexpire)
        .about(Group::Hash, "7.4.0", "Sets the milliseconds until fields expire."),
    Command::keyed("hpexpireat", -6, Flags::WRITE_OOM_FAST, KeySpec::ONE, hpexpireat)
        .about(Group::Hash, "7.4.0", "Sets the millisecond when fields expire."),
    Command::keyed("hpexpiretime", -5, Flags::READ_FAST, KeySpec::ONE, hpexpiretime)
        .about(Group::Hash, "7.4.0", "The millisecond when fields expire."),
    Command::keyed("hpttl", -5, Flags::READ_FAST, KeySpec::ONE, hpttl)
        .about(Group::Hash, "7.4.0", "The milliseconds until fields expire."),
    Command::keyed("hsetex", -6, Flags::WRITE_OOM_FAST, KeySpec::ONE, hsetex)
        .about(Group::Hash, "8.0.0", "Sets fields with an expiry."),
    Command::keyed("httl", -5, Flags::READ_FAST, KeySpec::ONE, httl)
        .about(Group::Hash, "7.4.0", "The seconds until fields expire."),
];

/// An expiry of a field lies below this, Unix ms: 46 bits.
const EXPIRE_AT_MAX_MS: i64 = (1 << 46) - 1;

const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const GONE: i64 = 2;

/// The time that a word gives, as Unix ms. `base_ms` is what it counts from.
fn expire_at(
    word: &[u8],
    is_seconds: bool,
    base_ms: i64,
    command: &str,
) -> Result<i64, CommandError> {
    let number = int(word)?;
    if number < 0 {
        return Err(CommandError::text("ERR invalid expire time, must be >= 0"));
    }
    let ms = if is_seconds {
        number.checked_mul(1000)
    } else {
        Some(number)
    };
    ms.filter(|ms| *ms <= EXPIRE_AT_MAX_MS - base_ms)
        .map(|ms| ms + base_ms)
        .ok_or_else(|| CommandError::invalid_expire(command))
}

/// The fields behind `FIELDS n`, which stands at word `at`.
fn fields<'a, 'w>(
    args: &'a [&'w [u8]],
    at: usize,
    count_error: &'static str,
) -> Result<&'a [&'w [u8]], CommandError> {
    if !args.get(at).is_some_and(|word| is(word, "fields")) {
        return Err(CommandError::text(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = args
        .get(at + 1)
        .and_then(|word| int(word).ok())
        .filter(|count| *count > 0);
    let count = count.ok_or(CommandError::text(count_error))?;
    let fields = args.get(at + 2..).unwrap_or_default();
    if usize::try_from(count).ok() != Some(fields.len()) {
        return Err(CommandError::text(
            "ERR The `numfields` parameter must match the number of arguments",
        ));
    }
    Ok(fields)
}

const COUNT_POSITIVE: &str = "ERR Number of fields must be a positive integer";
const COUNT_ABOVE_ZERO: &str = "ERR Parameter `numFields` should be greater than 0";

/// When an HEXPIRE command applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    None,
    Some,
    Greater,
    Less,
}

impl Condition {
    fn parse(word: &[u8]) -> Condition {
        match word {
            word if is(word, "nx") => Condition::None,
            word if is(word, "xx") => Condition::Some,
            word if is(word, "gt") => Condition::Greater,
            word if is(word, "lt") => Condition::Less,
            _ => Condition::Always,
        }
    }

    /// A field without expiry counts as one that expires at the end of time.
    fn allows(self, old: Option<i64>, new: i64) -> bool {
        match self {
            Condition::Always => true,
            Condition::None => old.is_none(),
            Condition::Some => old.is_some(),
            Condition::Greater => old.is_some_and(|old| new > old),
            Condition::Less => old.is_none_or(|old| new < old),
        }
    }
}

fn hexpire(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let base_ms = exec.now_ms;
    set_expiry(exec, args, "hexpire", true, base_ms)
}

fn hpexpire(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let base_ms = exec.now_ms;
    set_expiry(exec, args, "hpexpire", false, base_ms)
}

fn hexpireat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(exec, args, "hexpireat", true, 0)
}

fn hpexpireat(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    set_expiry(exec, args, "hpexpireat", false, 0)
}

/// What a new expiry did to the fields of one command.
#[derive(Default)]
struct Change<'a> {
    /// They have a new expiry.
    set: Vec<&'a [u8]>,
    /// The time was past already: they are gone.
    gone: Vec<&'a [u8]>,
}

impl Change<'_> {
    /// `HDEL` of each field that is gone.
    fn removals(&self, key: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let gone = self.gone.iter();
        gone.map(|field| owned(&[b"HDEL", key, field])).collect()
    }
}

/// Gives a field that is there a new expiry, or removes it if that is past. What the primary decides, and what a file says, is
/// kept to the letter.
fn give_expiry<'a>(
    exec: &mut Exec<'_>,
    key: &[u8],
    field: &'a [u8],
    at: i64,
    change: &mut Change<'a>,
) {
    let is_past = at <= exec.now_ms && exec.actor == Actor::Client;
    let mut entry = exec.update(key).expect("it was just looked at");
    if is_past {
        if let Value::Hash(hash) = entry.value() {
            hash.remove(field);
        }
        change.gone.push(field);
    } else {
        crate::snapshot::serializer::note_field_expiry();
        entry.set_field_expire_at_ms(field, Some(at));
        change.set.push(field);
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
    peek_hash(exec, key, &[])?;
    let at = expire_at(args[2], is_seconds, base_ms, name)?;
    let condition = Condition::parse(args[3]);
    let fields_at = if condition == Condition::Always { 3 } else { 4 };
    let fields = fields(args, fields_at, COUNT_ABOVE_ZERO)?;
    peek_hash(exec, key, fields)?;
    let mut change = Change::default();
    exec.reply.array(fields.len());
    for field in fields {
        let old = match peek_hash(exec, key, &[])? {
            Some(hash) if hash.contains(field) => Some(hash.expire_at_ms(field)),
            _ => None,
        };
        let code = match old {
            None => NO_FIELD,
            Some(old) if !condition.allows(old, at) => NOT_MET,
            Some(_) => {
                let gone_before = change.gone.len();
                give_expiry(exec, key, field, at, &mut change);
                if change.gone.len() > gone_before {
                    GONE
                } else {
                    DONE
                }
            }
        };
        exec.reply.int(code);
    }
    exec.remove_if_empty(key);
    let mut commands = change.removals(key);
    if !change.set.is_empty() {
        let (at, count) = (at.to_string(), change.set.len().to_string());
        let mut words: Vec<&[u8]> = vec![b"HPEXPIREAT", key, at.as_bytes()];
        words.extend(&args[3..fields_at]);
        words.extend([&b"FIELDS"[..], count.as_bytes()]);
        words.extend(&change.set);
        commands.push(owned(&words));
    }
    Ok(effect(commands))
}

fn effect(commands: Vec<Vec<Vec<u8>>>) -> Effect {
    if commands.is_empty() {
        Effect::None
    } else {
        Effect::Commands(commands)
    }
}

fn hpersist(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    peek_hash(exec, key, &[])?;
    let fields = fields(args, 2, COUNT_POSITIVE)?;
    let codes: Vec<i64> = match peek_hash(exec, key, fields)? {
        None => vec![NO_FIELD; fields.len()],
        Some(hash) => fields
            .iter()
            .map(|field| match hash.expire_at_ms(field) {
                Some(_) => DONE,
                None if hash.contains(field) => NO_EXPIRY,
                None => NO_FIELD,
            })
            .collect(),
    };
    let has_any = codes.contains(&DONE);
    if has_any {
        let mut entry = exec.update(key).expect("it was just looked at");
        for field in fields {
            entry.set_field_expire_at_ms(field, None);
        }
    }
    exec.reply.array(codes.len());
    // A field named twice has nothing to lose the second time.
    let mut seen: Vec<&[u8]> = Vec::new();
    for (field, code) in fields.iter().zip(codes) {
        let is_repeated = code == DONE && seen.contains(field);
        seen.push(field);
        exec.reply.int(if is_repeated { NO_EXPIRY } else { code });
    }
    Ok(Effect::verbatim_if(has_any))
}

fn httl(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    reply_times(exec, args, |at| (at + 999 - now_ms) / 1000)
}

fn hpttl(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let now_ms = exec.now_ms;
    reply_times(exec, args, |at| at - now_ms)
}

fn hexpiretime(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_times(exec, args, |at| (at + 999) / 1000)
}

fn hpexpiretime(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_times(exec, args, |at| at)
}

fn reply_times(exec: &mut Exec<'_>, args: Args<'_>, form: impl Fn(i64) -> i64) -> CommandResult {
    // The type is told before the words are looked at.
    read_hash(exec, args[1])?;
    let fields = fields(args, 2, COUNT_POSITIVE)?;
    let clock = exec.field_clock();
    let hash = exec.peek(args[1]).and_then(|entry| match entry.value() {
        Value::Hash(hash) => Some(hash.at(clock)),
        _ => None,
    });
    let codes: Vec<i64> = fields
        .iter()
        .map(|field| match hash {
            Some(hash) if hash.contains(field) => hash.expire_at_ms(field).map_or(NO_EXPIRY, &form),
            _ => NO_FIELD,
        })
        .collect();
    exec.reply.array(codes.len());
    codes.into_iter().for_each(|code| exec.reply.int(code));
    Ok(Effect::None)
}

fn reply_values(exec: &mut Exec<'_>, key: &[u8], fields: &[&[u8]]) -> Result<(), CommandError> {
    let (hash, reply) = read_hash(exec, key)?;
    reply.array(fields.len());
    for field in fields {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => bulk(reply, value),
            None => reply.null(),
        }
    }
    Ok(())
}

fn hgetdel(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    peek_hash(exec, key, &[])?;
    let fields = fields(args, 2, COUNT_POSITIVE)?;
    peek_hash(exec, key, fields)?;
    // A field named twice is gone the second time.
    let (hash, reply) = read_hash(exec, key)?;
    reply.array(fields.len());
    let mut gone: Vec<&[u8]> = Vec::new();
    for field in fields {
        let value = hash.and_then(|hash| hash.get(field));
        match value.filter(|_| !gone.contains(field)) {
            Some(value) => {
                bulk(reply, value);
                gone.push(field);
            }
            None => reply.null(),
        }
    }
    if gone.is_empty() {
        return Ok(Effect::None);
    }
    let mut entry = exec.update(key).expect("it was just looked at");
    if let Value::Hash(hash) = entry.value() {
        for field in &gone {
            hash.remove(field);
        }
    }
    exec.remove_if_empty(key);
    let mut words: Vec<&[u8]> = vec![b"HDEL", key];
    words.extend(gone);
    Ok(Effect::command(&words))
}

/// The word that sets an expiry: in seconds or not, counted from now or not.
fn unit(word: &[u8]) -> Option<(bool, bool)> {
    match word {
        word if is(word, "ex") => Some((true, true)),
        word if is(word, "px") => Some((false, true)),
        word if is(word, "exat") => Some((true, false)),
        word if is(word, "pxat") => Some((false, false)),
        _ => None,
    }
}

fn hgetex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let key = args[1];
    peek_hash(exec, key, &[])?;
    let (mut at, mut persists, mut fields_at) = (None, false, 2);
    if is(args[2], "persist") {
        persists = true;
        fields_at = 3;
    } else if let Some((is_seconds, is_relative)) = unit(args[2]) {
        let base_ms = if is_relative { exec.now_ms } else { 0 };
        at = Some(expire_at(args[3], is_seconds, base_ms, "hgetex")?);
        fields_at = 4;
    }
    let fields = fields(args, fields_at, COUNT_POSITIVE)?;
    peek_hash(exec, key, fields)?;
    reply_values(exec, key, fields)?;
    let clock = exec.field_clock();
    let is_there = |exec: &mut Exec<'_>, field: &[u8]| {
        exec.peek(key).is_some_and(|entry| match entry.value() {
            Value::Hash(hash) => {
                let hash = hash.at(clock);
                hash.contains(field) && (!persists || hash.expire_at_ms(field).is_some())
            }
            _ => false,
        })
    };
    let mut change = Change::default();
    for &field in fields {
        if (persists || at.is_some()) && is_there(exec, field) {
            match at {
                Some(at) => give_expiry(exec, key, field, at, &mut change),
                None => {
                    let mut entry = exec.update(key).expect("it was just looked at");
                    entry.set_field_expire_at_ms(field, None);
                    change.set.push(field);
                }
            }
        }
    }
    exec.remove_if_empty(key);
    let mut commands = change.removals(key);
    if !change.set.is_empty() {
        let (time, count) = (at.map(|at| at.to_string()), change.set.len().to_string());
        let mut words: Vec<&[u8]> = match &time {
            Some(time) => vec![b"HPEXPIREAT", key, time.as_bytes()],
            None => vec![b"HPERSIST", key],
        };
        words.extend([&b"FIELDS"[..], count.as_bytes()]);
        words.extend(&change.set);
        commands.push(owned(&words));
    }
    Ok(effect(commands))
}

/// The options of HSETEX.
#[derive(Default)]
struct SetOptions {
    /// When the fields expire, Unix ms.
    at: Option<i64>,
    keeps: bool,
    /// All fields must be there, or none.
    condition: Option<bool>,
    /// Where the first field stands.
    pairs_at: usize,
}

impl SetOptions {
    fn parse(args: Args<'_>, now_ms: i64) -> Result<SetOptions, CommandError> {
        const EXPIRIES: CommandError = CommandError::text(
            "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
        );
        let arity = || CommandError::wrong_arity("hsetex");
        let mut set = SetOptions::default();
        let mut at = 2;
        while at < args.len() {
            let word = args[at];
            if is(word, "fields") {
                if at + 3 >= args.len() {
                    return Err(arity());
                }
                let count = int(args[at + 1])
                    .ok()
                    .filter(|count| (1..=i64::from(i32::MAX)).contains(count));
                let count = count.ok_or(CommandError::text("ERR invalid number of fields"))?;
                if (args.len() - at - 2) as i64 != count * 2 {
                    return Err(arity());
                }
                set.pairs_at = at + 2;
                return Ok(set);
            } else if let Some((is_seconds, is_relative)) = unit(word) {
                if set.at.is_some() || set.keeps {
                    return Err(EXPIRIES);
                }
                at += 1;
                let time = args
                    .get(at)
                    .ok_or(CommandError::text("ERR missing expire time"))?;
                let base_ms = if is_relative { now_ms } else { 0 };
                set.at = Some(expire_at(time, is_seconds, base_ms, "hsetex")?);
            } else if is(word, "keepttl") {
                if set.at.is_some() || set.keeps {
                    return Err(EXPIRIES);
                }
                set.keeps = true;
            } else if is(word, "fxx") || is(word, "fnx") {
                if set.condition.is_some() {
                    return Err(CommandError::text(
                        "ERR Only one of FXX or FNX arguments can be specified",
                    ));
                }
                set.condition = Some(is(word, "fxx"));
            } else {
                let word = String::from_utf8_lossy(word);
                return Err(CommandError::new(format!("unknown argument: {word}")));
            }
            at += 1;
        }
        Err(arity())
    }
}

fn hsetex(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = SetOptions::parse(args, exec.now_ms)?;
    let key = args[1];
    let pairs = &args[options.pairs_at..];
    let names: Vec<&[u8]> = pairs.iter().copied().step_by(2).collect();
    let hash = peek_hash(exec, key, &names)?;
    let has = |field: &&&[u8]| hash.is_some_and(|hash| hash.contains(field));
    // Those that are there already.
    let had: Vec<&[u8]> = names.iter().filter(has).copied().collect();
    let is_met = match options.condition {
        None => true,
        Some(true) => had.len() == names.len(),
        Some(false) => had.is_empty(),
    };
    exec.reply.int(i64::from(is_met));
    if !is_met {
        return Ok(Effect::None);
    }
    let is_past = options.at.is_some_and(|at| at <= exec.now_ms) && exec.actor == Actor::Client;
    if is_past {
        // Set and gone in the same moment: what was there before is gone.
        if had.is_empty() {
            return Ok(Effect::None);
        }
        let hash: &mut Hash = super::collection::update(exec, key);
        had.iter().for_each(|field| {
            hash.remove(field);
        });
        exec.remove_if_empty(key);
        let change = Change {
            gone: had,
            set: Vec::new(),
        };
        return Ok(effect(change.removals(key)));
    }
    let limits = &exec.settings.limits;
    let hash: &mut Hash = super::collection::update_or_insert(exec, key);
    for pair in pairs.chunks_exact(2) {
        hash.insert(pair[0], pair[1], limits);
        if !options.keeps && hash.timed_len() > 0 {
            hash.set_expire_at_ms(pair[0], None);
        }
    }
    let Some(at) = options.at else {
        return Ok(Effect::Verbatim);
    };
    crate::snapshot::serializer::note_field_expiry();
    let mut entry = exec.update(key).expect("it was just written");
    for field in &names {
        entry.set_field_expire_at_ms(field, Some(at));
    }
    let time = at.to_string();
    let mut words: Vec<&[u8]> = vec![b"HSETEX", key, b"PXAT", time.as_bytes()];
    words.extend(&args[options.pairs_at - 2..]);
    Ok(Effect::command(&words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn replies_are_those_of_redis_8() {
        let mut bench = Bench::new();
        let now_ms = bench.now_ms;
        let rows = [
            ("HSET h a 1 b 2 c 3", ":3\r\n"),
            ("HEXPIRE h 100 FIELDS 2 a x", "*2\r\n:1\r\n:-2\r\n"),
            ("HTTL h FIELDS 3 a b x", "*3\r\n:100\r\n:-1\r\n:-2\r\n"),
            ("HPTTL h FIELDS 1 a", "*1\r\n:100000\r\n"),
            ("HEXPIRE h 200 NX FIELDS 2 a b", "*2\r\n:0\r\n:1\r\n"),
            ("HEXPIRE h 50 GT FIELDS 1 a", "*1\r\n:0\r\n"),
            ("HEXPIRE h 50 LT FIELDS 2 a c", "*2\r\n:1\r\n:1\r\n"),
            ("HEXPIRE h 10 XX FIELDS 1 x", "*1\r\n:-2\r\n"),
            (
                "HPERSIST h FIELDS 4 a a x c",
                "*4\r\n:1\r\n:-1\r\n:-2\r\n:1\r\n",
            ),
            ("HPERSIST h FIELDS 1 a", "*1\r\n:-1\r\n"),
            ("HEXPIRE h 10 GT FIELDS 1 a", "*1\r\n:0\r\n"),
            ("HEXPIREAT h 1 FIELDS 1 a", "*1\r\n:2\r\n"),
            ("HLEN h", ":2\r\n"),
            ("HEXISTS h a", ":0\r\n"),
            ("HGETEX h PX 5000 FIELDS 2 b a", "*2\r\n$1\r\n2\r\n$-1\r\n"),
            ("HPTTL h FIELDS 1 b", "*1\r\n:5000\r\n"),
            ("HGETEX h PERSIST FIELDS 1 b", "*1\r\n$1\r\n2\r\n"),
            ("HTTL h FIELDS 1 b", "*1\r\n:-1\r\n"),
            ("HSETEX h FNX EX 10 FIELDS 1 b 9", ":0\r\n"),
            ("HSETEX h FXX EX 10 FIELDS 1 b 9", ":1\r\n"),
            ("HTTL h FIELDS 1 b", "*1\r\n:10\r\n"),
            ("HSETEX h KEEPTTL FIELDS 1 b 8", ":1\r\n"),
            ("HTTL h FIELDS 1 b", "*1\r\n:10\r\n"),
            ("HINCRBY h b 1", ":9\r\n"),
            ("HTTL h FIELDS 1 b", "*1\r\n:10\r\n"),
            ("HSET h b 7", ":0\r\n"),
            ("HTTL h FIELDS 1 b", "*1\r\n:-1\r\n"),
            (
                "HGETDEL h FIELDS 3 b b x",
                "*3\r\n$1\r\n7\r\n$-1\r\n$-1\r\n",
            ),
            ("HGETDEL h FIELDS 1 c", "*1\r\n$1\r\n3\r\n"),
            ("EXISTS h", ":0\r\n"),
            ("HTTL none FIELDS 1 a", "*1\r\n:-2\r\n"),
            ("HGETDEL none FIELDS 1 a", "*1\r\n$-1\r\n"),
            ("HSETEX n EXAT 1 FIELDS 1 a 1", ":1\r\n"),
            ("EXISTS n", ":0\r\n"),
        ];
        for (line, want) in rows {
            let got = bench.run(line).0.replace("\\r\\n", "\r\n");
            assert_eq!(got, want, "{line}");
            assert_eq!(bench.now_ms, now_ms);
        }
    }

    #[test]
    fn words_that_do_not_form_the_command_are_refused_as_in_redis() {
        let mut bench = Bench::new();
        bench.run("HSET h a 1");
        bench.run("SET s 1");
        let many = "HEXPIRE h 70368744177 FIELDS 1 a";
        let rows = [
            (
                "HEXPIRE s 1 FIELDS 1 a",
                "WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (
                "HEXPIRE h x FIELDS 1 a",
                "ERR value is not an integer or out of range",
            ),
            (
                "HEXPIRE h -1 FIELDS 1 a",
                "ERR invalid expire time, must be >= 0",
            ),
            (many, "ERR invalid expire time in 'hexpire' command"),
            (
                "HEXPIRE h 1 FOO 1 a",
                "ERR Mandatory argument FIELDS is missing or not at the right position",
            ),
            (
                "HEXPIRE h 1 FIELDS 0 a",
                "ERR Parameter `numFields` should be greater than 0",
            ),
            (
                "HEXPIRE h 1 FIELDS 2 a",
                "ERR The `numfields` parameter must match the number of arguments",
            ),
            (
                "HEXPIRE h 1 NX FIELDS 1",
                "ERR The `numfields` parameter must match the number of arguments",
            ),
            (
                "HTTL h FIELDS 0 a",
                "ERR Number of fields must be a positive integer",
            ),
            (
                "HTTL s FIELDS 0 a",
                "WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (
                "HSETEX h EX 1 PX 1 FIELDS 1 a 1",
                "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
            ),
            (
                "HSETEX h FNX FXX FIELDS 1 a 1",
                "ERR Only one of FXX or FNX arguments can be specified",
            ),
            ("HSETEX h BOGUS FIELDS 1 a 1", "ERR unknown argument: BOGUS"),
            (
                "HSETEX h FIELDS 2 a 1",
                "ERR wrong number of arguments for 'hsetex' command",
            ),
            ("HSETEX h FIELDS 0 a 1", "ERR invalid number of fields"),
            (
                "HGETEX h PERSIST 1 FIELDS 1 a",
                "ERR Mandatory argument FIELDS is missing or not at the right position",
            ),
            (
                "HGETEX h EX x FIELDS 1 a",
                "ERR value is not an integer or out of range",
            ),
        ];
        for (line, want) in rows {
            let want = format!("-{want}\\r\\n").replace('\'', "\\'");
            assert_eq!(bench.run(line).0, want, "{line}");
        }
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let now_ms = bench.now_ms;
        let at = |ms: i64| now_ms + ms;
        let rows = [
            (
                "HSET h a 1 b 2 c 3 d 1.5",
                "HSET h a 1 b 2 c 3 d 1.5".to_owned(),
            ),
            (
                "HEXPIRE h 1 FIELDS 3 a x b",
                format!("HPEXPIREAT h {} FIELDS 2 a b", at(1000)),
            ),
            ("HPEXPIRE h 5 GT FIELDS 1 a", String::new()),
            (
                "HPEXPIRE h 5000 GT FIELDS 1 a",
                format!("HPEXPIREAT h {} GT FIELDS 1 a", at(5000)),
            ),
            ("HEXPIREAT h 1 FIELDS 2 a b", "HDEL h a; HDEL h b".into()),
            ("HPERSIST h FIELDS 1 c", String::new()),
            (
                "HGETEX h EX 1 FIELDS 2 c x",
                format!("HPEXPIREAT h {} FIELDS 1 c", at(1000)),
            ),
            ("HGETEX h FIELDS 1 c", String::new()),
            (
                "HGETEX h PERSIST FIELDS 1 c",
                "HPERSIST h FIELDS 1 c".into(),
            ),
            (
                "HSETEX h EX 1 FIELDS 1 d 2.5",
                format!("HSETEX h PXAT {} FIELDS 1 d 2.5", at(1000)),
            ),
            (
                "HINCRBYFLOAT h d 1",
                format!("HSET h d 3.5; HPEXPIREAT h {} FIELDS 1 d", at(1000)),
            ),
            ("HGETDEL h FIELDS 2 c x", "HDEL h c".into()),
            ("HTTL h FIELDS 1 d", String::new()),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
        // Met after its time, the last field goes and the hash with it.
        bench.now_ms += 1001;
        assert_eq!(bench.run("HGET h d").0, "$-1\\r\\n");
        assert_eq!(bench.run("EXISTS h").0, ":0\\r\\n");
    }

    #[test]
    fn a_replica_hides_fields_and_the_primarys_word_counts() {
        let mut bench = Bench::new();
        bench.run("HSET h a 1 b 2");
        bench.run("HPEXPIRE h 10 FIELDS 1 a");
        bench.now_ms += 11;
        bench.actor = Actor::ReplicaClient;
        for (line, want) in [
            ("HGET h a", "$-1\\r\\n"),
            ("HLEN h", ":1\\r\\n"),
            ("HKEYS h", "*1\\r\\n$1\\r\\nb\\r\\n"),
            ("HRANDFIELD h 5", "*1\\r\\n$1\\r\\nb\\r\\n"),
            ("HTTL h FIELDS 1 a", "*1\\r\\n:-2\\r\\n"),
        ] {
            assert_eq!(bench.run(line).0, want, "{line}");
        }
        bench.actor = Actor::Link;
        assert_eq!(bench.run("HINCRBY h a 1").0, ":2\\r\\n");
        assert_eq!(bench.run("HDEL h a b").0, ":2\\r\\n");
        assert_eq!(bench.run("EXISTS h").0, ":0\\r\\n");
    }

    #[test]
    fn a_great_many_fields_go_in_parts_and_none_is_seen() {
        let mut bench = Bench::new();
        let names: Vec<String> = (0..3000).map(|n| format!("f{n}")).collect();
        for name in &names {
            bench.run(&format!("HSET h {name} 1"));
        }
        bench.run("HSET h stays 1");
        bench.run(&format!("HPEXPIRE h 10 FIELDS 3000 {}", names.join(" ")));
        bench.now_ms += 11;
        assert_eq!(bench.run("HLEN h").0, ":1\\r\\n");
        assert_eq!(bench.run("HSET h f2999 1").0, ":1\\r\\n", "it is new");
        assert_eq!(bench.run("HEXISTS h f2999").0, ":1\\r\\n");
    }
}
