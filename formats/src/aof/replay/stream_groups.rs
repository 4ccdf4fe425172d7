//! Streams: groups and consumers.

use super::store::Data;
use super::streams::{Consumer, Group, Stream, empty};
use super::table::Command;
use super::words::{Reader, int, is, stream_id};
use super::{Args, Done, Problem, Replay, SYNTAX, Stop};
use crate::encoding::stream::StreamId;
use std::collections::BTreeMap;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("XGROUP", -2, group),
    Command::run("XACK", -4, ack),
    Command::run("XREADGROUP", -7, read),
];

pub(super) const NO_GROUP: Stop = Stop::Refused("no such key or group");

fn group(replay: &mut Replay, args: Args<'_>) -> Done {
    let (name, words) = (args[1], &args[2..]);
    match words.len() {
        3.. if is(name, "CREATE") => create(replay, words),
        3.. if is(name, "SETID") => setid(replay, words),
        2 if is(name, "DESTROY") => destroy(replay, words),
        3 if is(name, "CREATECONSUMER") => create_consumer(replay, words),
        3 if is(name, "DELCONSUMER") => delete_consumer(replay, words),
        0 if is(name, "HELP") => Ok(()),
        _ if [
            "CREATE",
            "SETID",
            "DESTROY",
            "CREATECONSUMER",
            "DELCONSUMER",
            "HELP",
        ]
        .into_iter()
        .any(|known| is(name, known)) =>
        {
            Err(Stop::Refused("wrong number of words"))
        }
        _ => Err(Stop::Failed(Problem::Unknown)),
    }
}

impl Replay {
    /// The group of a stream, both of which must be there.
    pub(super) fn group(&mut self, key: &[u8], name: &[u8]) -> Result<&mut Group, Stop> {
        let stream = self.get(key, Data::stream)?.ok_or(NO_GROUP)?;
        stream.groups.get_mut(name).ok_or(NO_GROUP)
    }

    /// A consumer seen now, as far as the time is known.
    pub(super) fn consumer(&self) -> Consumer {
        Consumer {
            seen_at_ms: self.now_ms.unwrap_or(0),
            active_at_ms: -1,
        }
    }
}

/// Where a group is to stand: an id, or `$` for the end of the stream.
fn position(word: &[u8], stream: Option<&Stream>) -> Result<StreamId, Stop> {
    match word {
        b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.last_id)),
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        word => stream_id(word, 0),
    }
}

fn entries_read(word: &[u8]) -> Result<i64, Stop> {
    match int(word)? {
        read @ -1.. => Ok(read),
        _ => Err(Stop::Refused("a counter below -1")),
    }
}

/// `key group id [MKSTREAM] [ENTRIESREAD n]`
fn create(replay: &mut Replay, words: Args<'_>) -> Done {
    let (key, name) = (words[0], words[1]);
    let mut options = Reader::new(&words[3..]);
    let (mut make, mut read) = (false, -1);
    while !options.is_empty() {
        if options.skip("MKSTREAM") {
            make = true;
        } else if options.skip("ENTRIESREAD") {
            read = entries_read(options.next()?)?;
        } else {
            return Err(SYNTAX);
        }
    }
    let stream = replay.get(key, Data::stream)?;
    if stream.is_none() && !make {
        return Err(NO_GROUP);
    }
    let last_id = position(words[2], stream.as_deref())?;
    if stream.is_some_and(|stream| stream.groups.contains_key(name)) {
        return Err(Stop::Refused("the group is there already"));
    }
    let group = Group {
        last_id,
        entries_read: read,
        pending: BTreeMap::new(),
        consumers: BTreeMap::new(),
    };
    let stream = replay.get_or_make(key, Data::stream, empty)?;
    stream.groups.insert(name.to_vec(), group);
    Ok(())
}

/// `key group id [ENTRIESREAD n]`
fn setid(replay: &mut Replay, words: Args<'_>) -> Done {
    let mut options = Reader::new(&words[3..]);
    let mut read = -1;
    while !options.is_empty() {
        if !options.skip("ENTRIESREAD") {
            return Err(SYNTAX);
        }
        read = entries_read(options.next()?)?;
    }
    let stream = replay.get(words[0], Data::stream)?;
    let last_id = position(words[2], stream.as_deref())?;
    let group = replay.group(words[0], words[1])?;
    group.last_id = last_id;
    group.entries_read = read;
    Ok(())
}

fn destroy(replay: &mut Replay, words: Args<'_>) -> Done {
    let stream = replay.get(words[0], Data::stream)?.ok_or(NO_GROUP)?;
    stream.groups.remove(words[1]);
    Ok(())
}

fn create_consumer(replay: &mut Replay, words: Args<'_>) -> Done {
    let consumer = replay.consumer();
    let group = replay.group(words[0], words[1])?;
    group.consumers.entry(words[2].to_vec()).or_insert(consumer);
    Ok(())
}

fn delete_consumer(replay: &mut Replay, words: Args<'_>) -> Done {
    let group = replay.group(words[0], words[1])?;
    if group.consumers.remove(words[2]).is_some() {
        group.pending.retain(|_, entry| entry.consumer != words[2]);
    }
    Ok(())
}

fn ack(replay: &mut Replay, args: Args<'_>) -> Done {
    let ids = args[3..].iter().map(|word| stream_id(word, 0));
    let ids = ids.collect::<Result<Vec<_>, Stop>>()?;
    if let Some(stream) = replay.get(args[1], Data::stream)?
        && let Some(group) = stream.groups.get_mut(args[2])
    {
        for id in ids {
            group.pending.remove(&id);
        }
    }
    Ok(())
}

fn read(_: &mut Replay, _: Args<'_>) -> Done {
    let why = "reads for a consumer; servers log the claims that it comes to, not the reading";
    Err(Stop::Failed(Problem::Undetermined(why)))
}
