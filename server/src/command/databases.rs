//! Commands about whole databases.

use std::sync::atomic::Ordering;

use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Run};
use crate::keyspace::DbIndex;
use crate::keyspace::table::Cursor;
use crate::keyspace::value::canonical_i64;
use dfsnap_formats::glob;

/// The rows.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "dbsize",
        arity: 1,
        flags: Flags::READONLY.with(Flags::FAST),
        keys: KeySpec::None,
        run: Run::Global(dbsize),
        group: Group::Server,
        since: "1.0.0",
        summary: "Number of keys of the selected database.",
    },
    Command {
        name: "flushall",
        arity: -1,
        flags: Flags::WRITE,
        keys: KeySpec::None,
        run: Run::Global(flushall),
        group: Group::Server,
        since: "1.0.0",
        summary: "Removes all keys of all databases.",
    },
    Command {
        name: "flushdb",
        arity: -1,
        flags: Flags::WRITE,
        keys: KeySpec::None,
        run: Run::Global(flushdb),
        group: Group::Server,
        since: "1.0.0",
        summary: "Removes all keys of the selected database.",
    },
    Command {
        name: "swapdb",
        arity: 3,
        flags: Flags::WRITE.with(Flags::FAST),
        keys: KeySpec::None,
        run: Run::Global(swapdb),
        group: Group::Server,
        since: "4.0.0",
        summary: "Exchanges two databases.",
    },
    Command {
        name: "scan",
        arity: -2,
        flags: Flags::READONLY,
        keys: KeySpec::None,
        run: Run::Cursor(scan),
        group: Group::Generic,
        since: "2.8.0",
        summary: "Walks the keys of the selected database.",
    },
    Command {
        name: "keys",
        arity: 2,
        flags: Flags::READONLY,
        keys: KeySpec::None,
        run: Run::Global(keys),
        group: Group::Generic,
        since: "1.0.0",
        summary: "All keys that match a pattern.",
    },
    Command {
        name: "randomkey",
        arity: 1,
        flags: Flags::READONLY,
        keys: KeySpec::None,
        run: Run::Global(randomkey),
        group: Group::Generic,
        since: "1.0.0",
        summary: "A key chosen at random.",
    },
];

fn dbsize(exec: &mut Exec<'_>, _: Args<'_>) -> CommandResult {
    let db = exec.db;
    let size: usize = exec
        .keyspaces()
        .iter()
        .map(|keyspace| keyspace.database(db).entries().len())
        .sum();
    exec.reply.int(size as i64);
    Ok(Effect::None)
}

/// Refuses anything but SYNC or ASYNC after FLUSHALL and FLUSHDB. Both free off the shard's thread.
fn check_flush_words(args: Args<'_>) -> Result<(), CommandError> {
    match args {
        [_] => Ok(()),
        [_, word] if word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async") => {
            Ok(())
        }
        _ => Err(CommandError::SYNTAX),
    }
}

fn flushall(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    check_flush_words(args)?;
    for db in 0..exec.database_count() {
        exec.flush(DbIndex(db));
    }
    exec.reply.ok();
    let Some(wish) = exec.settings.save_after_flush.clone() else {
        return Ok(Effect::Verbatim);
    };
    // The empty dataset is saved at once: there are no changes that a later save would have to count.
    wish.store(true, Ordering::Relaxed);
    for keyspace in exec.keyspaces() {
        keyspace.stats.changes = 0;
    }
    Ok(Effect::Passed)
}

fn flushdb(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    check_flush_words(args)?;
    exec.flush(exec.db);
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

fn swapdb(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let count = exec.database_count();
    let index = |word: &[u8], what: &str| {
        let number = canonical_i64(word)
            .ok_or_else(|| CommandError::new(format!("invalid {what} DB index")))?;
        u32::try_from(number)
            .ok()
            .filter(|&n| n < count)
            .map(DbIndex)
            .ok_or(CommandError::DB_INDEX)
    };
    let (first, second) = (index(args[1], "first")?, index(args[2], "second")?);
    for keyspace in exec.keyspaces() {
        keyspace.swap(first, second);
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

/// The shard that a SCAN's cursor names. A word that is no cursor names the first; the command then refuses it.
pub fn cursor_shard(args: Args<'_>, shards: usize) -> usize {
    args.get(1)
        .and_then(|word| ScanCursor::parse(word))
        .map_or(0, |cursor| cursor.shard as usize % shards)
}

/// A place in the walk over all shards, as a decimal number for clients: below 2^53, so that those who keep numbers as
/// doubles do not break it.
///
/// ```text
///  bits 52..44  shard          bits 43..0  first 44 bits of the hash where the walk stands
/// ```
///
/// 0 is both the start and the end of a walk. Place 0 of a later shard is told apart by its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScanCursor {
    shard: u64,
    place: u64,
}

const PLACE_BITS: u32 = 44;

impl ScanCursor {
    fn parse(word: &[u8]) -> Option<ScanCursor> {
        let number: u64 = std::str::from_utf8(word).ok()?.parse().ok()?;
        Some(ScanCursor {
            shard: number >> PLACE_BITS,
            place: number & ((1 << PLACE_BITS) - 1),
        })
    }

    fn number(self) -> u64 {
        self.shard << PLACE_BITS | self.place
    }

    fn table(self) -> Cursor {
        Cursor(self.place << (64 - PLACE_BITS))
    }
}

fn scan(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let cursor = ScanCursor::parse(args[1]).ok_or(CommandError::INVALID_CURSOR)?;
    let (mut count, mut pattern, mut kind) = (10usize, None, None);
    let mut options = args[2..].chunks(2);
    for option in &mut options {
        let [name, value] = option else {
            return Err(CommandError::SYNTAX);
        };
        match name.to_ascii_lowercase().as_slice() {
            b"count" => {
                let number = canonical_i64(value).ok_or(CommandError::NOT_INTEGER)?;
                count = usize::try_from(number)
                    .ok()
                    .filter(|&n| n > 0)
                    .ok_or(CommandError::SYNTAX)?;
            }
            b"match" => pattern = Some(*value),
            b"type" => kind = Some(value.to_ascii_lowercase()),
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let db = exec.db;
    let shards = exec.shards();
    let (is_client, now_ms) = (exec.actor != super::exec::Actor::Link, exec.now_ms);
    let shard = cursor.shard as usize;
    let (mut found, mut expired) = (Vec::new(), Vec::new());
    let mut visited = 0;
    let mut place = (shard < shards).then(|| cursor.table());
    while let Some(at) = place {
        let keyspace = exec.keyspace_of_shard(shard);
        place = keyspace.scan(db, at, |entry| {
            visited += 1;
            if is_client && entry.is_expired(now_ms) {
                expired.push(entry.key().clone());
            } else if pattern.is_none_or(|pattern| glob::matches(pattern, entry.key()))
                && kind
                    .as_ref()
                    .is_none_or(|kind| entry.value().kind().name().as_bytes() == kind)
            {
                found.push(entry.key().clone());
            }
        });
        if visited >= count {
            break;
        }
    }
    for key in expired {
        // Met on the way and past its time: a look removes it.
        exec.peek(&key);
    }
    let next = match place {
        // Buckets are wider than the bits the cursor drops, so no place is rounded.
        Some(place) => ScanCursor {
            shard: cursor.shard,
            place: place.0 >> (64 - PLACE_BITS),
        }
        .number(),
        None if shard + 1 < shards => ScanCursor {
            shard: cursor.shard + 1,
            place: 0,
        }
        .number(),
        None => 0,
    };
    exec.reply.array(2);
    exec.reply.bulk(next.to_string().as_bytes());
    exec.reply.array(found.len());
    found.iter().for_each(|key| exec.reply.bulk(key));
    Ok(Effect::None)
}

fn keys(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (db, now_ms, pattern) = (exec.db, exec.now_ms, args[1]);
    let mark = exec.reply.begin_array();
    let mut count = 0;
    let (keyspaces, reply) = exec.keyspaces_with_reply();
    for keyspace in keyspaces.iter() {
        for entry in keyspace.database(db).entries().iter() {
            if !entry.is_expired(now_ms) && glob::matches(pattern, entry.key()) {
                reply.bulk(entry.key());
                count += 1;
            }
        }
    }
    exec.reply.end_array(mark, count);
    Ok(Effect::None)
}

fn randomkey(exec: &mut Exec<'_>, _: Args<'_>) -> CommandResult {
    let db = exec.db;
    // A key that turns out to be expired goes, and another is drawn; on a replica it cannot go, so not for ever.
    for _ in 0..100 {
        let sizes: Vec<usize> = exec
            .keyspaces()
            .iter()
            .map(|keyspace| keyspace.database(db).entries().len())
            .collect();
        let total: usize = sizes.iter().sum();
        if total == 0 {
            break;
        }
        let mut drawn = exec.random.usize(..total);
        let shard = sizes.iter().position(|&size| {
            let is_here = drawn < size;
            drawn = drawn.saturating_sub(size);
            is_here
        });
        let mut random = exec.random.clone();
        let keyspace = &exec.keyspaces()[shard.expect("the sizes add up to the total")];
        let key = keyspace
            .database(db)
            .entries()
            .random(|| random.u64(..))
            .expect("not empty")
            .key()
            .clone();
        *exec.random = random;
        if exec.peek(&key).is_some() {
            exec.reply.bulk(&key);
            return Ok(Effect::None);
        }
    }
    exec.reply.null();
    Ok(Effect::None)
}
