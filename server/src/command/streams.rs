//! Streams: entries. Consumer groups are in `stream_groups`, XINFO in `stream_info`.

use dfsnap_formats::resp::{Protocol, Reply};

use super::blocking::{Wait, WaitKey, Wants};
use super::blocking_lists::owned;
use super::collection::{bulk, peek, read, update, update_or_insert};
use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::command::exec::Actor;
use crate::keyspace::blob::Blob;
use crate::keyspace::value::stream::{AddError, Entry, NewId, Stream, StreamId, Trim, id_part};

const STREAMS: KeySpec = KeySpec::Custom(stream_keys);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("xadd", -5, Flags::WRITE_OOM_FAST, KeySpec::ONE, xadd)
        .about(Group::Stream, "5.0.0", "Adds an entry."),
    Command::keyed("xdel", -3, Flags::WRITE_FAST, KeySpec::ONE, xdel)
        .about(Group::Stream, "5.0.0", "Removes entries."),
    Command::keyed("xlen", 2, Flags::READ_FAST, KeySpec::ONE, xlen)
        .about(Group::Stream, "5.0.0", "The number of entries."),
    Command::keyed("xrange", -4, Flags::READONLY, KeySpec::ONE, xrange)
        .about(Group::Stream, "5.0.0", "Entries in a range of ids."),
    Command::keyed("xread", -4, Flags::READONLY.with(Flags::BLOCKING).with(Flags::MOVABLEKEYS), STREAMS, xread)
        .about(Group::Stream, "5.0.0", "Entries after given ids of several streams."),
    Command::keyed("xrevrange", -4, Flags::READONLY, KeySpec::ONE, xrevrange)
        .about(Group::Stream, "5.0.0", "Entries in a range of ids, highest first."),
    Command::keyed("xsetid", -3, Flags::WRITE_OOM_FAST, KeySpec::ONE, xsetid)
        .about(Group::Stream, "5.0.0", "Sets the counters of a stream."),
    Command::keyed("xtrim", -4, Flags::WRITE, KeySpec::ONE, xtrim)
        .about(Group::Stream, "5.0.0", "Removes entries from the start of a stream."),
];

const INVALID_ID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");

/// Where the keys of XREAD and XREADGROUP are: the first half of the words after STREAMS.
pub(super) fn stream_keys(args: Args<'_>, positions: &mut Vec<usize>) {
    if let Some(at) = args.iter().position(|word| is(word, "streams")) {
        let count = (args.len() - at - 1) / 2;
        positions.extend(at + 1..at + 1 + count);
    }
}

/// A whole id, or its milliseconds with this second part. Not `-` or `+`.
pub(super) fn strict_id(word: &[u8], seq_default: u64) -> Result<StreamId, CommandError> {
    StreamId::parse(word, seq_default).ok_or(INVALID_ID)
}

/// The start of a range of ids.
pub(super) fn range_start(word: &[u8]) -> Result<StreamId, CommandError> {
    match word {
        [b'(', id @ ..] => strict_id(id, 0)?
            .next()
            .ok_or(CommandError::text("ERR invalid start ID for the interval")),
        _ => loose_id(word, 0),
    }
}

/// The end of a range of ids.
pub(super) fn range_end(word: &[u8]) -> Result<StreamId, CommandError> {
    match word {
        [b'(', id @ ..] => strict_id(id, u64::MAX)?
            .previous()
            .ok_or(CommandError::text("ERR invalid end ID for the interval")),
        _ => loose_id(word, u64::MAX),
    }
}

/// An id, or an end of all ids: `-` or `+`.
pub(super) fn loose_id(word: &[u8], seq_default: u64) -> Result<StreamId, CommandError> {
    match word {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict_id(word, seq_default),
    }
}

/// Replies an id.
pub(super) fn reply_id(reply: &mut Reply, id: StreamId) {
    reply.bulk(id.to_string().as_bytes());
}

/// Replies an entry: its id, and a flat array of fields and values.
pub(super) fn reply_entry(reply: &mut Reply, entry: &Entry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(entry.len() * 2);
    for (field, value) in entry.fields() {
        bulk(reply, field);
        bulk(reply, value);
    }
}

/// Replies up to `count` entries as an array, and says how many those were.
fn reply_entries<'a>(
    reply: &mut Reply,
    entries: impl Iterator<Item = Entry<'a>>,
    count: usize,
) -> usize {
    let mark = reply.begin_array();
    let mut replied = 0;
    for entry in entries.take(count) {
        reply_entry(reply, &entry);
        replied += 1;
    }
    reply.end_array(mark, replied);
    replied
}

// Adding and trimming.

/// The options of XADD and XTRIM, and what follows them.
struct TrimOptions {
    trim: Option<Trim>,
    approximately: bool,
    /// Position of `~` or `=` and the threshold after it, for the propagated form.
    threshold_at: usize,
    limit: Option<u64>,
    creates: bool,
    /// Position of the first word that is no option.
    rest: usize,
}

impl TrimOptions {
    fn parse(args: Args<'_>, is_add: bool) -> Result<TrimOptions, CommandError> {
        let mut options = TrimOptions {
            trim: None,
            approximately: false,
            threshold_at: 0,
            limit: None,
            creates: true,
            rest: args.len(),
        };
        let mut at = 2;
        while at < args.len() {
            let word = args[at];
            let has_more = at + 1 < args.len();
            if is_add && word == b"*" {
                break;
            } else if (is(word, "maxlen") || is(word, "minid")) && has_more {
                if options.trim.is_some() {
                    return Err(CommandError::text(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                at += 1;
                if matches!(args[at], b"~" | b"=") && at + 1 < args.len() {
                    options.approximately = args[at] == b"~";
                    at += 1;
                }
                options.threshold_at = at;
                options.trim =
                    Some(if is(word, "maxlen") {
                        let len = u64::try_from(int(args[at])?);
                        Trim::Len(len.map_err(|_| {
                            CommandError::text("ERR The MAXLEN argument must be >= 0.")
                        })?)
                    } else {
                        Trim::Id(strict_id(args[at], 0)?)
                    });
            } else if is(word, "limit") && has_more {
                at += 1;
                let limit = u64::try_from(int(args[at])?);
                options.limit = Some(
                    limit
                        .map_err(|_| CommandError::text("ERR The LIMIT argument must be >= 0."))?,
                );
            } else if is_add && is(word, "nomkstream") {
                options.creates = false;
            } else if is_add {
                break;
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        options.rest = at;
        Ok(options)
    }

    /// Checks what only a whole look at the options can tell.
    fn check(&self, is_add: bool, actor: Actor) -> Result<(), CommandError> {
        if self.limit.is_some() && self.trim.is_none() {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if !is_add && self.trim.is_none() {
            return Err(CommandError::text(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        // A primary sends `= n LIMIT m` for what was `~`.
        if self.limit.is_some() && !self.approximately && actor == Actor::Client {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        Ok(())
    }

    fn run(&self, stream: &mut Stream, node_entries: usize) -> u64 {
        let Some(trim) = self.trim else { return 0 };
        let limit = match self.limit {
            Some(limit) => limit,
            None if node_entries == 0 => 10_000,
            None => (100 * node_entries as u64).min(1_000_000),
        };
        stream.trim(
            trim,
            self.approximately,
            if self.approximately { limit } else { 0 },
        )
    }

    /// The words of the command with an approximate threshold made exact, from what the trim has left.
    fn exact_words(&self, args: Args<'_>, len: u64, first_id: StreamId) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = args.iter().map(|word| word.to_vec()).collect();
        if self.approximately {
            words[self.threshold_at - 1] = b"=".to_vec();
            words[self.threshold_at] = match self.trim {
                Some(Trim::Id(_)) if len == 0 => StreamId::MAX.to_string().into_bytes(),
                Some(Trim::Id(_)) => first_id.to_string().into_bytes(),
                _ => len.to_string().into_bytes(),
            };
        }
        words
    }
}

fn xadd(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = TrimOptions::parse(args, true)?;
    let id_at = options.rest;
    let wanted = match args.get(id_at) {
        None => return Err(CommandError::wrong_arity("xadd")),
        Some(&b"*") => NewId::Auto,
        Some(word) => match word.strip_suffix(b"-*") {
            Some(ms) => NewId::AutoSeq(id_part(ms).ok_or(INVALID_ID)?),
            None => NewId::Given(strict_id(word, 0)?),
        },
    };
    options.check(true, exec.actor)?;
    let words = &args[id_at + 1..];
    if words.is_empty() || words.len() % 2 == 1 {
        return Err(CommandError::wrong_arity("xadd"));
    }
    let refused = |error| match error {
        AddError::Zero => {
            CommandError::text("ERR The ID specified in XADD must be greater than 0-0")
        }
        AddError::TooSmall => CommandError::text(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ),
        AddError::Exhausted => CommandError::text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ),
    };
    if wanted == NewId::Given(StreamId::MIN) {
        return Err(refused(AddError::Zero));
    }
    let now_ms = exec.now_ms;
    let id = match peek::<Stream>(exec, args[1])? {
        Some(stream) => stream.next_id(wanted, now_ms),
        None if !options.creates => {
            exec.reply.null();
            return Ok(Effect::None);
        }
        None => Stream::new().next_id(wanted, now_ms),
    };
    let id = id.map_err(refused)?;
    let fields: Vec<(&[u8], &[u8])> = words
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    let limits = &exec.settings.limits;
    let stream: &mut Stream = update_or_insert(exec, args[1]);
    stream.add(id, &fields, limits);
    let trimmed = options.run(stream, limits.stream_node_entries);
    let mut words = options.exact_words(args, stream.len(), stream.first_id());
    if trimmed > 0 {
        exec.notify(b't', "xtrim", exec.db, args[1]);
    }
    words[id_at] = id.to_string().into_bytes();
    reply_id(exec.reply, id);
    Ok(Effect::Commands(vec![words]))
}

fn xtrim(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = TrimOptions::parse(args, false)?;
    options.check(false, exec.actor)?;
    let has_any = peek::<Stream>(exec, args[1])?.is_some_and(|stream| match options.trim {
        Some(Trim::Len(keep)) => stream.len() > keep,
        Some(Trim::Id(id)) => !stream.is_empty() && stream.first_id() < id,
        None => false,
    });
    if !has_any {
        exec.reply.int(0);
        return Ok(Effect::None);
    }
    let node_entries = exec.settings.limits.stream_node_entries;
    let stream: &mut Stream = update(exec, args[1]);
    let gone = options.run(stream, node_entries);
    let words = options.exact_words(args, stream.len(), stream.first_id());
    exec.reply.int(gone as i64);
    Ok(if gone > 0 {
        Effect::Commands(vec![words])
    } else {
        Effect::None
    })
}

fn xdel(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let Some(stream) = peek::<Stream>(exec, args[1])? else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    let ids = args[2..]
        .iter()
        .map(|word| strict_id(word, 0))
        .collect::<Result<Vec<_>, _>>()?;
    let mut gone = 0;
    if ids.iter().any(|id| stream.get(*id).is_some()) {
        let stream: &mut Stream = update(exec, args[1]);
        gone = ids.into_iter().filter(|id| stream.delete(*id)).count();
    }
    exec.reply.int(gone as i64);
    Ok(Effect::verbatim_if(gone > 0))
}

fn xsetid(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let id = strict_id(args[2], 0)?;
    let (mut entries_added, mut max_deleted) = (None, None);
    for pair in args[3..].chunks(2) {
        match pair {
            [word, number] if is(word, "entriesadded") => {
                let number = u64::try_from(int(number)?);
                entries_added = Some(
                    number.map_err(|_| CommandError::text("ERR entries_added must be positive"))?,
                );
            }
            [word, deleted] if is(word, "maxdeletedid") => {
                let deleted = strict_id(deleted, 0)?;
                if id < deleted {
                    return Err(CommandError::text(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
                max_deleted = Some(deleted);
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let stream = peek::<Stream>(exec, args[1])?.ok_or(CommandError::NO_SUCH_KEY)?;
    if id < stream.max_deleted_id {
        return Err(CommandError::text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    let top = stream.range_back(StreamId::MIN, StreamId::MAX).next();
    if top.is_some_and(|top| id < top.id) {
        return Err(CommandError::text(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if entries_added.is_some_and(|added| added < stream.len()) {
        return Err(CommandError::text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    let stream: &mut Stream = update(exec, args[1]);
    stream.set_last_id(id);
    if let Some(added) = entries_added {
        stream.entries_added = added;
    }
    if let Some(deleted) = max_deleted.filter(|id| *id > StreamId::MIN) {
        stream.max_deleted_id = deleted;
    }
    exec.reply.ok();
    Ok(Effect::Verbatim)
}

// Reading.

fn xlen(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (stream, reply) = read::<Stream>(exec, args[1])?;
    reply.int(stream.map_or(0, Stream::len) as i64);
    Ok(Effect::None)
}

fn xrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, args[2], args[3], false)
}

fn xrevrange(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    reply_range(exec, args, args[3], args[2], true)
}

fn reply_range(
    exec: &mut Exec<'_>,
    args: Args<'_>,
    start: &[u8],
    end: &[u8],
    is_reverse: bool,
) -> CommandResult {
    let (from, to) = (range_start(start)?, range_end(end)?);
    let mut count = None;
    for pair in args[4..].chunks(2) {
        match pair {
            [word, number] if is(word, "count") => {
                count = Some(usize::try_from(int(number)?.max(0)).unwrap_or(usize::MAX))
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let most = exec.most_elements;
    let (stream, reply) = read::<Stream>(exec, args[1])?;
    let Some(stream) = stream else {
        reply.array(0);
        return Ok(Effect::None);
    };
    // How many there are shows only on the way.
    let take = count.unwrap_or(usize::MAX).min(most.saturating_add(1));
    let replied = if take == 0 {
        reply.null_array();
        0
    } else if is_reverse {
        reply_entries(reply, stream.range_back(from, to), take)
    } else {
        reply_entries(reply, stream.range(from, to), take)
    };
    Ok(match replied > most {
        true => Effect::Aside,
        false => Effect::None,
    })
}

/// The options of XREAD and XREADGROUP.
pub(super) struct ReadOptions<'a> {
    /// At most this many entries of each stream.
    pub count: usize,
    /// GROUP: the group and the consumer.
    pub group: Option<(&'a [u8], &'a [u8])>,
    /// NOACK: entries do not become pending.
    pub no_ack: bool,
    /// BLOCK: how long to wait, 0 for ever.
    pub block_ms: Option<u64>,
    /// Position of the first key.
    pub keys_at: usize,
    pub keys: Args<'a>,
    pub ids: Args<'a>,
}

impl<'a> ReadOptions<'a> {
    pub(super) fn parse(args: Args<'a>) -> Result<ReadOptions<'a>, CommandError> {
        let name = if is(args[0], "xreadgroup") {
            "xreadgroup"
        } else {
            "xread"
        };
        let is_group = name == "xreadgroup";
        let only_group = |option: &str| {
            CommandError::new(format!(
                "The {option} option is only supported by XREADGROUP. You called XREAD instead."
            ))
        };
        let mut options = ReadOptions {
            count: usize::MAX,
            group: None,
            no_ack: false,
            block_ms: None,
            keys_at: args.len(),
            keys: &[],
            ids: &[],
        };
        let mut at = 1;
        while at < args.len() {
            let left = args.len() - at - 1;
            match args[at] {
                word if is(word, "block") && left > 0 => {
                    at += 1;
                    let timeout = int(args[at]).map_err(|_| {
                        CommandError::text("ERR timeout is not an integer or out of range")
                    })?;
                    if timeout < 0 {
                        return Err(CommandError::text("ERR timeout is negative"));
                    }
                    options.block_ms = Some(timeout as u64);
                }
                word if is(word, "count") && left > 0 => {
                    at += 1;
                    let count = usize::try_from(int(args[at])?).unwrap_or(0);
                    options.count = if count == 0 { usize::MAX } else { count };
                }
                word if is(word, "streams") && left > 0 => {
                    let rest = &args[at + 1..];
                    if rest.len() % 2 == 1 {
                        let special = if is_group { "'>'" } else { "'$'" };
                        let text = format!(
                            "Unbalanced '{name}' list of streams: for each stream key an ID or {special} must be specified."
                        );
                        return Err(CommandError::new(text));
                    }
                    options.keys_at = at + 1;
                    (options.keys, options.ids) = rest.split_at(rest.len() / 2);
                    break;
                }
                word if is(word, "group") && left >= 2 => {
                    if !is_group {
                        return Err(only_group("GROUP"));
                    }
                    options.group = Some((args[at + 1], args[at + 2]));
                    at += 2;
                }
                word if is(word, "noack") => {
                    if !is_group {
                        return Err(only_group("NOACK"));
                    }
                    options.no_ack = true;
                }
                _ => return Err(CommandError::SYNTAX),
            }
            at += 1;
        }
        if options.keys.is_empty() {
            return Err(CommandError::SYNTAX);
        }
        if is_group && options.group.is_none() {
            return Err(CommandError::text(
                "ERR Missing GROUP option for XREADGROUP",
            ));
        }
        Ok(options)
    }

    /// What the command waits for if it found nothing and may wait.
    pub(super) fn wait(
        &self,
        args: Args<'_>,
        after: impl Iterator<Item = StreamId>,
    ) -> Option<Box<Wait>> {
        let key = |(key, after_id): (&&[u8], StreamId)| WaitKey {
            key: Blob::new(key),
            after_id,
        };
        Some(Box::new(Wait {
            timeout_ms: self.block_ms?,
            wants: match self.group {
                Some((group, _)) => Wants::Group(group.to_vec()),
                None => Wants::Entries,
            },
            keys: self.keys.iter().zip(after).map(key).collect(),
            before: owned(&args[..self.keys_at]),
            after: Vec::new(),
        }))
    }
}

/// Replies what several streams gave: a map in RESP3, an array of pairs in RESP2, nil if nothing.
pub(super) fn reply_streams(reply: &mut Reply, streams: &[(&[u8], Vec<u8>)]) {
    if streams.is_empty() {
        reply.null_array();
        return;
    }
    let is_map = reply.protocol() == Protocol::Resp3;
    if is_map {
        reply.map(streams.len());
    } else {
        reply.array(streams.len());
    }
    for (key, entries) in streams {
        if !is_map {
            reply.array(2);
        }
        reply.bulk(key);
        reply.raw(entries);
    }
}

/// XREAD.
fn xread(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = ReadOptions::parse(args)?;
    let protocol = exec.reply.protocol();
    let mut after = Vec::with_capacity(options.ids.len());
    for (key, word) in options.keys.iter().zip(options.ids) {
        let stream = peek::<Stream>(exec, key)?;
        after.push(match *word {
            b"$" => stream.map_or(StreamId::MIN, Stream::last_id),
            b">" => {
                return Err(CommandError::text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            word => strict_id(word, 0)?,
        });
    }
    let mut streams: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for (key, after) in options.keys.iter().zip(after.iter()) {
        let (stream, _) = read::<Stream>(exec, key)?;
        let Some((stream, from)) = stream.zip(after.next()) else {
            continue;
        };
        let mut entries = Reply::new(protocol);
        if reply_entries(
            &mut entries,
            stream.range(from, StreamId::MAX),
            options.count,
        ) > 0
        {
            streams.push((key, entries.take()));
        }
    }
    reply_streams(exec.reply, &streams);
    if streams.is_empty() {
        exec.wait = options.wait(args, after.into_iter());
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
            SET s v
            XADD x 1-1 f v
            XADD x 1-1 f v
            XADD x 0-0 f v
            XADD x 1-* f v
            XADD x 2 f v
            XADD x 2-5 a 1 b 2
            XADD x abc f v
            XADD x 3-x f v
            XADD x 3-1 f
            XADD x 3-1 f v g
            XADD x *
            XADD s 1-1 f v
            XADD none NOMKSTREAM 1-1 f v
            XADD x MAXLEN -1 3-1 f v
            XADD x MAXLEN x 3-1 f v
            XADD x MAXLEN 2 MINID 1 3-1 f v
            XADD x LIMIT 5 3-1 f v
            XADD x MAXLEN 5 LIMIT 5 3-1 f v
            XADD x MAXLEN ~ 5 LIMIT -1 3-1 f v
            XADD x MAXLEN = 3 3-1 f v
            XADD y 0-* f v
            XADD y 0-* f v
            XLEN x
            XLEN none
            XLEN s
            XRANGE x - +
            XRANGE x 2 2
            XRANGE x (2-0 +
            XRANGE x - (3-1
            XRANGE x - + COUNT 1
            XRANGE x - + COUNT 0
            XRANGE x - + COUNT -1
            XRANGE x - + COUNT x
            XRANGE x - + FOO
            XRANGE x abc +
            XRANGE x (18446744073709551615-18446744073709551615 +
            XRANGE x - (0-0
            XRANGE none - +
            XRANGE s - +
            XREVRANGE x + -
            XREVRANGE x + - COUNT 1
            XREVRANGE x 2 1
            XREVRANGE none + -
            XDEL x 2-5 9-9
            XDEL x abc
            XDEL none 1-1
            XDEL s 1-1
            XRANGE x - +
            XTRIM x MAXLEN 1
            XTRIM x MAXLEN 1
            XTRIM x MINID 99
            XTRIM x
            XTRIM x FOO 1
            XTRIM x MAXLEN
            XTRIM x MAXLEN 1 LIMIT 1
            XTRIM x MAXLEN ~ 1 LIMIT 1
            XTRIM none MAXLEN 1
            XTRIM s MAXLEN 1
            XLEN x
            XADD x 5-1 f v
            XSETID x 4-1
            XSETID x 6-1
            XSETID x 6-1 ENTRIESADDED 0
            XSETID x 6-1 ENTRIESADDED -1
            XSETID x 6-1 ENTRIESADDED 9 MAXDELETEDID 7-1
            XSETID x 6-1 ENTRIESADDED 9 MAXDELETEDID 5-1
            XSETID x 5-1
            XSETID none 1-1
            XSETID x abc
            XSETID x 6-1 FOO 1
            XADD x 6-1 f v
            XADD x 6-2 f v
            XADD y 1-1 n 1
            XREAD STREAMS x y 0 0
            XREAD COUNT 1 STREAMS x y 0 0
            XREAD COUNT 0 STREAMS x 0
            XREAD STREAMS x $
            XREAD STREAMS x 99
            XREAD STREAMS none 0
            XREAD STREAMS s 0
            XREAD STREAMS x >
            XREAD STREAMS x abc
            XREAD STREAMS
            XREAD COUNT x STREAMS x 0
            XREAD BLOCK x STREAMS x 0
            XREAD BLOCK -1 STREAMS x 0
            XREAD GROUP g c STREAMS x 0
            XREAD NOACK STREAMS x 0
            XREAD FOO STREAMS x 0
            XADD max 18446744073709551615-18446744073709551615 f v
            XADD max * f v
            XADD max 1-1 f v
            XINFO STREAM max
            TYPE x
            COPY x x2
            XRANGE x2 - +
        "#
            // The number of radix tree nodes is Redis' own affair.
            .replace("            XINFO STREAM max\n", "")
            .as_str(),
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        bench.settings.limits.stream_node_entries = 2;
        let rows = [
            ("XADD x * f v", "XADD x 1700000000000-0 f v"),
            ("XADD x 1700000000000-* f v", "XADD x 1700000000000-1 f v"),
            (
                "XADD x MAXLEN ~ 2 1700000000005 f v",
                "XADD x MAXLEN = 3 1700000000005-0 f v",
            ),
            (
                "XADD x MAXLEN ~ 2 1700000000006 f v",
                "XADD x MAXLEN = 2 1700000000006-0 f v",
            ),
            (
                "XADD x MINID ~ 1700000000006 * f v",
                "XADD x MINID = 1700000000005-0 1700000000006-1 f v",
            ),
            ("XTRIM x MAXLEN ~ 9", ""),
            ("XTRIM x MAXLEN ~ 0 LIMIT 2", "XTRIM x MAXLEN = 1 LIMIT 2"),
            (
                "XTRIM x MINID ~ 1800000000000",
                "XTRIM x MINID = 18446744073709551615-18446744073709551615",
            ),
            ("XDEL x 1-1", ""),
            ("XADD none NOMKSTREAM * f v", ""),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
