//! Streams: consumer groups.

use std::ops::Bound::{Included, Unbounded};

use dfsnap_formats::resp::Reply;

use super::collection::{peek, read, update, update_or_insert};
use super::streams::{
    ReadOptions, loose_id, range_end, range_start, reply_entry, reply_id, reply_streams,
    stream_keys, strict_id,
};
use super::words::{int, is};
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group as Family, KeySpec,
};
use crate::keyspace::value::stream::{ConsumerId, Group, Pending, Stream, StreamId};

const SECOND: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};
const STREAMS: KeySpec = KeySpec::Custom(stream_keys);
const READ_GROUP: Flags = Flags::WRITE.with(Flags::BLOCKING).with(Flags::MOVABLEKEYS);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("xack", -4, Flags::WRITE_FAST, KeySpec::ONE, xack)
        .about(Family::Stream, "5.0.0", "Acknowledges entries of a consumer group."),
    Command::keyed("xgroup", -2, Flags::WRITE_OOM.with(Flags::CONTAINER), SECOND, xgroup)
        .about(Family::Stream, "5.0.0", "Creates, changes and removes consumer groups."),
    Command::keyed("xpending", -3, Flags::READONLY, KeySpec::ONE, xpending)
        .about(Family::Stream, "5.0.0", "Entries that are not acknowledged yet."),
    Command::keyed("xreadgroup", -7, READ_GROUP, STREAMS, xreadgroup)
        .about(Family::Stream, "5.0.0", "New or pending entries for a consumer of a group."),
];

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    CommandError(
        format!(
            "NOGROUP No such consumer group '{}' for key name '{}'",
            text(group),
            text(key)
        )
        .into(),
    )
}

pub(super) fn no_key_or_group(key: &[u8], group: &[u8], tail: &str) -> CommandError {
    CommandError(
        format!(
            "NOGROUP No such key '{}' or consumer group '{}'{tail}",
            text(key),
            text(group)
        )
        .into(),
    )
}

/// A group to look at before a write.
pub(super) fn peek_group<'e>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
    group: &[u8],
) -> Result<Option<(&'e Stream, &'e Group)>, CommandError> {
    let stream = peek::<Stream>(exec, key)?;
    Ok(stream.and_then(|stream| Some((stream, stream.groups.get(group)?))))
}

/// The door to a group that was just looked at.
fn update_group<'e>(exec: &'e mut Exec<'_>, key: &[u8], group: &[u8]) -> &'e mut Group {
    update::<Stream>(exec, key)
        .groups
        .get_mut(group)
        .expect("a group that was just looked at")
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// What replicas get when an entry was delivered or claimed.
pub(super) fn claim_words(
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
    id: StreamId,
    pending: &Pending,
    last_id: StreamId,
) -> Vec<Vec<u8>> {
    words(&[
        b"XCLAIM",
        key,
        group,
        consumer,
        b"0",
        id.to_string().as_bytes(),
        b"TIME",
        pending.delivered_at_ms.to_string().as_bytes(),
        b"RETRYCOUNT",
        pending.delivery_count.to_string().as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        last_id.to_string().as_bytes(),
    ])
}

/// What replicas get when the last delivered id moved.
pub(super) fn set_id_words(key: &[u8], name: &[u8], group: &Group) -> Vec<Vec<u8>> {
    let read = group
        .entries_read
        .map_or("-1".to_string(), |read| read.to_string());
    words(&[
        b"XGROUP",
        b"SETID",
        key,
        name,
        group.last_id.to_string().as_bytes(),
        b"ENTRIESREAD",
        read.as_bytes(),
    ])
}

// XGROUP.

fn xgroup(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const SUBCOMMANDS: [(&str, i32); 6] = [
        ("create", -5),
        ("setid", -5),
        ("destroy", 4),
        ("createconsumer", 5),
        ("delconsumer", 5),
        ("help", 2),
    ];
    let Some((name, arity)) = SUBCOMMANDS.into_iter().find(|(name, _)| is(args[1], name)) else {
        return Err(CommandError::new(format!(
            "unknown subcommand '{}'. Try XGROUP HELP.",
            text(args[1])
        )));
    };
    let fits = if arity < 0 {
        args.len() >= arity.unsigned_abs() as usize
    } else {
        args.len() == arity as usize
    };
    if !fits {
        return Err(CommandError::wrong_arity(&format!("xgroup|{name}")));
    }
    if name == "help" {
        reply_help(exec.reply);
        return Ok(Effect::None);
    }
    let (creates, read) = group_options(args, name)?;
    let (key, group) = (args[2], args[3]);
    let stream = peek::<Stream>(exec, key)?;
    if stream.is_none() && !creates {
        return Err(CommandError::text(
            "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
        ));
    }
    let is_there = stream.is_some_and(|stream| stream.groups.contains_key(group));
    if !is_there && matches!(name, "setid" | "createconsumer" | "delconsumer") {
        return Err(no_group(key, group));
    }
    let last_id = stream.map_or(StreamId::MIN, Stream::last_id);
    let given_id = || {
        if args[4] == b"$" {
            Ok(last_id)
        } else {
            strict_id(args[4], 0)
        }
    };
    match name {
        "create" => {
            let id = given_id()?;
            if is_there {
                return Err(CommandError::text(
                    "BUSYGROUP Consumer Group name already exists",
                ));
            }
            let stream: &mut Stream = update_or_insert(exec, key);
            stream.groups.insert(group.into(), Group::new(id, read));
            exec.reply.ok();
            Ok(Effect::Verbatim)
        }
        "setid" => {
            // Unlike CREATE it takes the ends of a range as well.
            let id = match args[4] {
                b"$" => last_id,
                word => loose_id(word, 0)?,
            };
            let group = update_group(exec, key, group);
            (group.last_id, group.entries_read) = (id, read);
            exec.reply.ok();
            Ok(Effect::Verbatim)
        }
        "destroy" => {
            if is_there {
                update::<Stream>(exec, key).groups.remove(group);
            }
            exec.reply.int(i64::from(is_there));
            Ok(Effect::verbatim_if(is_there))
        }
        "createconsumer" => {
            let now_ms = exec.now_ms;
            let is_new = peek_group(exec, key, group)?
                .is_some_and(|(_, group)| group.find(args[4]).is_none());
            if is_new {
                update_group(exec, key, group).create(args[4], now_ms);
            }
            exec.reply.int(i64::from(is_new));
            Ok(Effect::verbatim_if(is_new))
        }
        _ => {
            let is_consumer = peek_group(exec, key, group)?
                .is_some_and(|(_, group)| group.find(args[4]).is_some());
            let pending = if is_consumer {
                update_group(exec, key, group).remove(args[4])
            } else {
                None
            };
            exec.reply.int(pending.unwrap_or(0) as i64);
            Ok(Effect::verbatim_if(is_consumer))
        }
    }
}

/// MKSTREAM and ENTRIESREAD of XGROUP CREATE and SETID.
fn group_options(args: Args<'_>, name: &str) -> Result<(bool, Option<u64>), CommandError> {
    let (mut creates, mut read) = (false, None);
    if !matches!(name, "create" | "setid") {
        return Ok((creates, read));
    }
    let mut options = args[5..].iter();
    while let Some(word) = options.next() {
        if is(word, "mkstream") && name == "create" {
            creates = true;
        } else if is(word, "entriesread") && options.len() > 0 {
            let number = options
                .next()
                .map_or(Err(CommandError::SYNTAX), |word| int(word))?;
            if number < -1 {
                return Err(CommandError::text(
                    "ERR value for ENTRIESREAD must be positive or -1",
                ));
            }
            read = u64::try_from(number).ok();
        } else {
            return Err(CommandError::new(format!(
                "unknown subcommand or wrong number of arguments for '{}'. Try XGROUP HELP.",
                text(args[1])
            )));
        }
    }
    Ok((creates, read))
}

fn reply_help(reply: &mut Reply) {
    let lines = [
        "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CREATE <key> <groupname> <id|$> [MKSTREAM] [ENTRIESREAD entries_read]",
        "    Adds a group that has got all entries up to the id.",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Adds a consumer.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Removes a consumer with its pending entries.",
        "DESTROY <key> <groupname>",
        "    Removes a group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Sets the id of the entry delivered last.",
        "HELP",
        "    This text.",
    ];
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
}

fn xack(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let Some((_, group)) = peek_group(exec, args[1], args[2])? else {
        exec.reply.int(0);
        return Ok(Effect::None);
    };
    let ids = args[3..]
        .iter()
        .map(|word| strict_id(word, 0))
        .collect::<Result<Vec<_>, _>>()?;
    let mut count = 0;
    if ids.iter().any(|id| group.pending().contains_key(id)) {
        let group = update_group(exec, args[1], args[2]);
        count = ids
            .into_iter()
            .filter(|id| group.acknowledge(*id).is_some())
            .count();
    }
    exec.reply.int(count as i64);
    Ok(Effect::verbatim_if(count > 0))
}

// XREADGROUP.

/// XREADGROUP.
fn xreadgroup(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let options = ReadOptions::parse(args)?;
    let (group, consumer) = options.group.expect("checked by the parser");
    let protocol = exec.reply.protocol();
    let mut after = Vec::with_capacity(options.keys.len());
    for (key, word) in options.keys.iter().zip(options.ids) {
        if peek_group(exec, key, group)?.is_none() {
            return Err(no_key_or_group(
                key,
                group,
                " in XREADGROUP with GROUP option",
            ));
        }
        after.push(match *word {
            b"$" => {
                return Err(CommandError::text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
                ));
            }
            b">" => None,
            word => Some(strict_id(word, 0)?),
        });
    }
    let mut streams: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let mut effects = Vec::new();
    for (key, after) in options.keys.iter().zip(after) {
        let now_ms = exec.now_ms;
        let mut reply = Reply::new(protocol);
        let stream: &mut Stream = update(exec, key);
        let mut delivery = Delivery {
            key,
            name: group,
            consumer,
            now_ms,
            effects: &mut effects,
        };
        match after {
            Some(after) => {
                delivery.history(stream, after, options.count, &mut reply);
                streams.push((key, reply.take()));
            }
            None => {
                if delivery.new_entries(stream, options.count, options.no_ack, &mut reply) > 0 {
                    streams.push((key, reply.take()));
                }
            }
        }
    }
    reply_streams(exec.reply, &streams);
    if streams.is_empty() {
        exec.wait = options.wait(args, std::iter::repeat(StreamId::MIN));
    }
    Ok(if effects.is_empty() {
        Effect::None
    } else {
        Effect::Commands(effects)
    })
}

/// Handing entries of one stream to one consumer.
struct Delivery<'a> {
    key: &'a [u8],
    name: &'a [u8],
    consumer: &'a [u8],
    now_ms: i64,
    effects: &'a mut Vec<Vec<Vec<u8>>>,
}

impl Delivery<'_> {
    /// The consumer, which is created if it is new.
    fn consumer(&mut self, group: &mut Group) -> ConsumerId {
        let id = match group.find(self.consumer) {
            Some(id) => id,
            None => {
                self.effects.push(words(&[
                    b"XGROUP",
                    b"CREATECONSUMER",
                    self.key,
                    self.name,
                    self.consumer,
                ]));
                group
                    .create(self.consumer, self.now_ms)
                    .expect("a name that is free")
            }
        };
        group.consumer_mut(id).seen_at_ms = self.now_ms;
        id
    }

    /// Replies entries that nobody of the group has got, makes them pending, and says how many those are.
    fn new_entries(
        &mut self,
        stream: &mut Stream,
        count: usize,
        no_ack: bool,
        reply: &mut Reply,
    ) -> usize {
        let mut group = std::mem::take(
            stream
                .groups
                .get_mut(self.name)
                .expect("a group that was just looked at"),
        );
        let consumer = self.consumer(&mut group);
        let mut delivered = 0;
        let mark = reply.begin_array();
        let from = group.last_id.next();
        for entry in from
            .into_iter()
            .flat_map(|from| stream.range(from, StreamId::MAX))
            .take(count)
        {
            group.entries_read = match group.entries_read {
                Some(read) if !stream.has_gap_after(entry.id) => Some(read + 1),
                _ => stream.entries_up_to(entry.id),
            };
            group.last_id = entry.id;
            reply_entry(reply, &entry);
            delivered += 1;
            if !no_ack {
                let pending = Pending {
                    consumer,
                    delivered_at_ms: self.now_ms,
                    delivery_count: 1,
                };
                group.assign(entry.id, pending);
                self.effects.push(claim_words(
                    self.key,
                    self.name,
                    self.consumer,
                    entry.id,
                    &pending,
                    entry.id,
                ));
            }
        }
        reply.end_array(mark, delivered);
        if delivered > 0 {
            group.consumer_mut(consumer).active_at_ms = self.now_ms;
            self.effects.push(set_id_words(self.key, self.name, &group));
        }
        *stream
            .groups
            .get_mut(self.name)
            .expect("a group that was just looked at") = group;
        delivered
    }

    /// Replies entries that the consumer got before and has not acknowledged, and counts the delivery.
    fn history(&mut self, stream: &mut Stream, after: StreamId, count: usize, reply: &mut Reply) {
        let mut group = std::mem::take(
            stream
                .groups
                .get_mut(self.name)
                .expect("a group that was just looked at"),
        );
        let consumer = self.consumer(&mut group);
        let mine = group.consumer(consumer).pending();
        let ids: Vec<StreamId> = match after.next() {
            Some(from) => mine.range(from..).take(count).copied().collect(),
            None => Vec::new(),
        };
        reply.array(ids.len());
        for id in ids {
            match stream.get(id) {
                Some(entry) => {
                    reply_entry(reply, &entry);
                    let old = group.pending()[&id];
                    let delivery_count = old.delivery_count + 1;
                    group.assign(
                        id,
                        Pending {
                            delivered_at_ms: self.now_ms,
                            delivery_count,
                            ..old
                        },
                    );
                }
                None => {
                    reply.array(2);
                    reply_id(reply, id);
                    reply.null_array();
                }
            }
        }
        *stream
            .groups
            .get_mut(self.name)
            .expect("a group that was just looked at") = group;
    }
}

// XPENDING.

fn xpending(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    if args.len() != 3 && !(6..=9).contains(&args.len()) {
        return Err(CommandError::SYNTAX);
    }
    let (key, name, now_ms) = (args[1], args[2], exec.now_ms);
    let mut rest = &args[3..];
    let mut idle_ms_min = 0;
    if let [word, number, tail @ ..] = rest
        && is(word, "idle")
    {
        idle_ms_min = int(number)?;
        if tail.len() < 3 {
            return Err(CommandError::SYNTAX);
        }
        rest = tail;
    }
    let request = match rest {
        [] => None,
        [start, end, count, consumer @ ..] => {
            let count = usize::try_from(int(count)?).unwrap_or(0);
            Some((
                range_start(start)?,
                range_end(end)?,
                count,
                consumer.first(),
            ))
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let (stream, reply) = read::<Stream>(exec, key)?;
    let group = stream
        .and_then(|stream| stream.groups.get(name))
        .ok_or_else(|| no_key_or_group(key, name, ""))?;
    let Some((from, to, count, consumer)) = request else {
        reply_summary(reply, group);
        return Ok(Effect::None);
    };
    let consumer = match consumer.map(|consumer| group.find(consumer)) {
        Some(None) => {
            reply.array(0);
            return Ok(Effect::None);
        }
        found => found.flatten(),
    };
    let in_range = from <= to;
    let pending = group.pending().range((
        Included(from),
        if in_range { Included(to) } else { Unbounded },
    ));
    let found: Vec<_> = pending
        .filter(|(_, pending)| {
            in_range && consumer.is_none_or(|consumer| pending.consumer == consumer)
        })
        .filter(|(_, pending)| now_ms - pending.delivered_at_ms >= idle_ms_min)
        .take(count)
        .collect();
    reply.array(found.len());
    for (id, pending) in found {
        reply.array(4);
        reply_id(reply, *id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.int((now_ms - pending.delivered_at_ms).max(0));
        reply.int(pending.delivery_count as i64);
    }
    Ok(Effect::None)
}

fn reply_summary(reply: &mut Reply, group: &Group) {
    reply.array(4);
    reply.int(group.pending().len() as i64);
    let ends = group
        .pending()
        .first_key_value()
        .zip(group.pending().last_key_value());
    let Some(((first, _), (last, _))) = ends else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(reply, *first);
    reply_id(reply, *last);
    let busy = || {
        group
            .consumers()
            .filter(|consumer| !consumer.pending().is_empty())
    };
    reply.array(busy().count());
    for consumer in busy() {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk(consumer.pending().len().to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET s v
            XADD x 1-1 a 1
            XADD x 2-1 b 2
            XADD x 3-1 c 3
            XADD x 4-1 d 4
            XGROUP CREATE x g 0
            XGROUP CREATE x g 0
            XGROUP CREATE x h $
            XGROUP CREATE x e 0 ENTRIESREAD 0
            XGROUP CREATE x e2 0 ENTRIESREAD -5
            XGROUP CREATE x e2 abc
            XGROUP CREATE x e2 0 FOO
            XGROUP CREATE none g 0
            XGROUP CREATE new g 0 MKSTREAM
            XGROUP CREATE s g 0
            XGROUP CREATE x
            XGROUP FOO x g
            XGROUP
            XGROUP SETID x nope 0
            XGROUP SETID x h 2-1
            XGROUP SETID x h $ ENTRIESREAD 4
            XGROUP CREATECONSUMER x g c1
            XGROUP CREATECONSUMER x g c1
            XGROUP CREATECONSUMER x nope c1
            XGROUP CREATECONSUMER none g c1
            XREADGROUP GROUP g c1 COUNT 2 STREAMS x >
            XREADGROUP GROUP g c2 STREAMS x >
            XREADGROUP GROUP g c2 STREAMS x >
            XREADGROUP GROUP g c1 STREAMS x 0
            XREADGROUP GROUP g c1 COUNT 1 STREAMS x 0
            XREADGROUP GROUP g c1 STREAMS x 2
            XREADGROUP GROUP g c3 STREAMS x 0
            XREADGROUP GROUP g c1 STREAMS x $
            XREADGROUP GROUP nope c1 STREAMS x >
            XREADGROUP GROUP g c1 STREAMS none >
            XREADGROUP GROUP g c1 STREAMS s >
            XREADGROUP GROUP g c1 STREAMS x
            XREADGROUP STREAMS x > y z w v
            XREADGROUP GROUP g c1 NOACK STREAMS x > 
            XREADGROUP GROUP e c NOACK COUNT 1 STREAMS x >
            XPENDING x g
            XPENDING x e
            XPENDING x nope
            XPENDING none g
            XPENDING x g - + 10 c3
            XPENDING x g - + 10 nope
            XPENDING x g - +
            XPENDING x g - + x
            XPENDING x g IDLE 100000 - + 10
            XPENDING x g IDLE x - + 10
            XPENDING x g IDLE 1 - +
            XACK x g 1-1 9-9
            XACK x g 1-1
            XACK x nope 1-1
            XACK none g 1-1
            XACK x g abc
            XACK s g 1-1
            XDEL x 3-1
            XREADGROUP GROUP g c2 STREAMS x 0
            XCLAIM x g c1 0 2-1 3-1 4-1
            XCLAIM x g c1 0 2-1 JUSTID
            XCLAIM x g c1 100000 2-1
            XCLAIM x g c4 0 1-1
            XCLAIM x g c4 0 1-1 FORCE JUSTID
            XACK x g 1-1
            XCLAIM x g c4 0 1-1 FORCE
            XINFO CONSUMERS new g
            XCLAIM x g c4 x 1-1
            XCLAIM x g c4 0 1-1 FOO
            XCLAIM x g c4 0 1-1 IDLE x
            XCLAIM x g c4 0 1-1 RETRYCOUNT -1
            XCLAIM x g c4 0 1-1 LASTID abc
            XCLAIM x nope c4 0 1-1
            XCLAIM none g c4 0 1-1
            XAUTOCLAIM x g c5 0 0 COUNT 1
            XAUTOCLAIM x g c5 0 2-1 COUNT 10 JUSTID
            XAUTOCLAIM x g c5 0 (9-1
            XAUTOCLAIM x g c5 100000 0
            XAUTOCLAIM x g c5 x 0
            XAUTOCLAIM x g c5 0 abc
            XAUTOCLAIM x g c5 0 0 COUNT 0
            XAUTOCLAIM x g c5 0 0 FOO
            XAUTOCLAIM x nope c5 0 0
            XDEL x 4-1
            XAUTOCLAIM x g c6 0 0
            XPENDING x g
            XINFO GROUPS x
            XGROUP DELCONSUMER x g c6
            XGROUP DELCONSUMER x g c6
            XGROUP DELCONSUMER x g nope
            XINFO GROUPS x
            XINFO GROUPS none
            XINFO GROUPS s
            XINFO FOO x
            XINFO CONSUMERS x nope
            XINFO CONSUMERS none g
            XINFO CONSUMERS new g
            XGROUP DESTROY x h
            XGROUP DESTROY x h
            XGROUP DESTROY none h
            COPY x x2
            XPENDING x2 g
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        bench.run("XADD x 1-1 f v");
        bench.run("XADD x 2-1 f v");
        bench.run("XGROUP CREATE x g 0");
        let claim = |consumer, id, count, last| {
            format!(
                "XCLAIM x g {consumer} 0 {id} TIME 1700000000000 RETRYCOUNT {count} FORCE JUSTID LASTID {last}"
            )
        };
        let rows = [
            (
                "XREADGROUP GROUP g c STREAMS x 0",
                "XGROUP CREATECONSUMER x g c".to_string(),
            ),
            ("XREADGROUP GROUP g c STREAMS x 0", String::new()),
            (
                "XREADGROUP GROUP g c COUNT 1 STREAMS x >",
                format!(
                    "{}; XGROUP SETID x g 1-1 ENTRIESREAD 1",
                    claim("c", "1-1", 1, "1-1")
                ),
            ),
            (
                "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS x >",
                "XGROUP SETID x g 2-1 ENTRIESREAD 2".to_string(),
            ),
            ("XREADGROUP GROUP g c STREAMS x >", String::new()),
            ("XCLAIM x g d 0 1-1", claim("d", "1-1", 2, "2-1")),
            ("XCLAIM x g d 0 9-9", String::new()),
            (
                "XCLAIM x g d 0 9-9 LASTID 5-5",
                "XGROUP SETID x g 5-5 ENTRIESREAD 2".to_string(),
            ),
            ("XAUTOCLAIM x g e 0 0", claim("e", "1-1", 3, "5-5")),
            ("XDEL x 1-1", "XDEL x 1-1".to_string()),
            ("XAUTOCLAIM x g f 0 0", claim("e", "1-1", 3, "5-5")),
            ("XACK x g 1-1", String::new()),
            ("XGROUP DELCONSUMER x g nope", String::new()),
            (
                "XGROUP DELCONSUMER x g d",
                "XGROUP DELCONSUMER x g d".to_string(),
            ),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
