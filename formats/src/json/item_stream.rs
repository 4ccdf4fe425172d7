//! Streams in text: entries, counters, groups with consumers and pending entries, producers.
//!
//! A part of `item`.

use super::item::refused;
use super::parser::Parser;
use super::piece::{bytes, millis};
use crate::assemble::{Refusal, StreamBuilder, StreamCounters};
use crate::encoding::stream::StreamId;
use crate::error::{Damage, Problem};
use crate::value::{Idempotence, PendingEntry, StreamConsumer, StreamGroup, StreamProducer, Value};
use std::borrow::Cow;
use std::collections::HashMap;

pub(super) fn stream(parser: &mut Parser<'_>) -> Result<Result<Value, Refusal>, Damage> {
    const READING: &str = "stream";
    const NAMES: [&str; 8] = [
        "entries",
        "length",
        "last_id",
        "first_id",
        "max_deleted_id",
        "entries_added",
        "groups",
        "idempotence",
    ];
    let mut stream = StreamBuilder::default();
    let mut counters = StreamCounters::default();
    let mut groups = Vec::new();
    let mut known = None;
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => parser.elements("stream entries", |parser| stream_entry(parser, &mut stream))?,
            1 => counters.length = Some(parser.integer(READING, "a number")?),
            2 => counters.last_id = Some(id(parser)?),
            3 => counters.first_id = Some(id(parser)?),
            4 => counters.max_deleted_id = Some(id(parser)?),
            5 => counters.entries_added = Some(parser.integer(READING, "a number")?),
            6 => parser.elements("stream groups", |parser| {
                groups.push(stream_group(parser)?);
                Ok(())
            })?,
            _ => known = Some(Box::new(idempotence(parser)?)),
        }
        Ok(())
    })?;
    Ok(stream.finish(&counters, groups, known))
}

fn idempotence(parser: &mut Parser<'_>) -> Result<Idempotence, Damage> {
    const READING: &str = "stream, idempotence";
    const NAMES: [&str; 5] = [
        "duration_s",
        "entries_max",
        "added",
        "duplicates",
        "producers",
    ];
    let mut known = Idempotence::default();
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => known.duration_s = parser.integer(READING, "seconds")?,
            1 => known.entries_max = parser.integer(READING, "a number")?,
            2 => known.added = parser.integer(READING, "a number")?,
            3 => known.duplicates = parser.integer(READING, "a number")?,
            _ => parser.elements("stream producers", |parser| {
                known.producers.push(producer(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    Ok(known)
}

fn producer(parser: &mut Parser<'_>) -> Result<StreamProducer, Damage> {
    const READING: &str = "stream producer";
    parser.blank();
    let start = parser.clone();
    let (mut name, mut entries) = (None, Vec::new());
    parser.object(READING, &["id", "entries"], |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, producer id")?.into_owned()),
            _ => parser.elements("stream producer, entries", |parser| {
                entries.push(producer_entry(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    let id = name.ok_or_else(|| start.unwanted(READING, "a member id"))?;
    Ok(StreamProducer { id, entries })
}

/// The id that was chosen, and that of the entry.
fn producer_entry(parser: &mut Parser<'_>) -> Result<(Vec<u8>, StreamId), Damage> {
    const READING: &str = "stream producer, entry";
    parser.blank();
    let start = parser.clone();
    let (mut chosen, mut became, mut count) = (None, None, 0);
    parser.elements(READING, |parser| {
        count += 1;
        match count {
            1 => chosen = Some(bytes(parser, READING)?.into_owned()),
            2 => became = Some(id(parser)?),
            _ => return Err(parser.unwanted(READING, "an id and that of the entry, no more")),
        }
        Ok(())
    })?;
    chosen
        .zip(became)
        .ok_or_else(|| start.unwanted(READING, "an id and that of the entry"))
}

fn stream_entry(parser: &mut Parser<'_>, stream: &mut StreamBuilder) -> Result<(), Damage> {
    const READING: &str = "stream entry";
    parser.blank();
    let start = parser.clone();
    let (mut at, mut texts) = (None, None);
    parser.object(READING, &["id", "fields"], |parser, index| {
        match index {
            0 => at = Some(id(parser)?),
            _ => {
                let mut found = Vec::new();
                parser.elements("stream entry, fields", |parser| {
                    found.push(bytes(parser, "stream entry, field or value")?);
                    Ok(())
                })?;
                texts = Some(found);
            }
        }
        Ok(())
    })?;
    let (Some(id), Some(texts)) = (at, texts) else {
        return Err(start.unwanted(READING, "an id and fields"));
    };
    let pushed = stream.push(id, &texts);
    pushed.map_err(|refusal| refused(start.offset(), refusal))
}

fn stream_group(parser: &mut Parser<'_>) -> Result<StreamGroup, Damage> {
    const READING: &str = "stream group";
    const NAMES: [&str; 5] = ["name", "last_id", "entries_read", "consumers", "pending"];
    const UNKNOWN: i64 = -1;
    parser.blank();
    let start = parser.clone();
    let mut name = None;
    let mut group = StreamGroup {
        name: Vec::new(),
        last_id: StreamId::MIN,
        entries_read: UNKNOWN,
        pending: Vec::new(),
        consumers: Vec::new(),
    };
    // Pending entries may come before the consumers that they name.
    let mut pending = Vec::new();
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, group name")?.into_owned()),
            1 => group.last_id = id(parser)?,
            2 => group.entries_read = parser.integer(READING, "a number, -1 = unknown")?,
            3 => parser.elements("stream consumers", |parser| {
                group.consumers.push(consumer(parser)?);
                Ok(())
            })?,
            _ => parser.elements("stream group, pending entries", |parser| {
                pending.push(pending_entry(parser)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    group.name = name.ok_or_else(|| start.unwanted(READING, "a member name"))?;
    let consumers: HashMap<&[u8], u32> = (0..)
        .zip(&group.consumers)
        .map(|(index, consumer)| (&consumer.name[..], index))
        .collect();
    group.pending.reserve(pending.len());
    for (at, owner, mut entry) in pending {
        let owner = consumers.get(&owner[..]).copied();
        entry.consumer = owner.ok_or_else(|| {
            let wanted = "a consumer of the group that owns it";
            let found = entry.id.to_string().into_bytes();
            let problem = Problem::Text { wanted, found };
            Damage::new(at, "stream group, pending entry", problem)
        })?;
        group.pending.push(entry);
    }
    Ok(group)
}

fn consumer(parser: &mut Parser<'_>) -> Result<StreamConsumer, Damage> {
    const READING: &str = "stream consumer";
    const NEVER: i64 = -1;
    parser.blank();
    let start = parser.clone();
    let (mut name, mut seen_at_ms, mut active_at_ms) = (None, 0, NEVER);
    let names = ["name", "seen_at_ms", "active_at_ms"];
    parser.object(READING, &names, |parser, index| {
        match index {
            0 => name = Some(bytes(parser, "stream, consumer name")?.into_owned()),
            1 => seen_at_ms = millis(parser, READING)?,
            _ => active_at_ms = millis(parser, READING)?,
        }
        Ok(())
    })?;
    Ok(StreamConsumer {
        name: name.ok_or_else(|| start.unwanted(READING, "a member name"))?,
        seen_at_ms,
        active_at_ms,
    })
}

/// Where it begins, its consumer's name, and the entry, nobody's yet.
fn pending_entry<'a>(
    parser: &mut Parser<'a>,
) -> Result<(u64, Cow<'a, [u8]>, PendingEntry), Damage> {
    const READING: &str = "stream group, pending entry";
    const NAMES: [&str; 4] = ["id", "consumer", "delivered_at_ms", "deliveries"];
    parser.blank();
    let start = parser.clone();
    let (mut at, mut owner, mut delivered_at_ms, mut deliveries) = (None, None, 0, 1);
    parser.object(READING, &NAMES, |parser, index| {
        match index {
            0 => at = Some(id(parser)?),
            1 => owner = Some(bytes(parser, "stream, consumer name")?),
            2 => delivered_at_ms = millis(parser, READING)?,
            _ => deliveries = parser.integer(READING, "a number")?,
        }
        Ok(())
    })?;
    let (Some(id), Some(owner)) = (at, owner) else {
        return Err(start.unwanted(READING, "an id and a consumer"));
    };
    let entry = PendingEntry {
        id,
        delivered_at_ms,
        deliveries,
        consumer: u32::MAX,
    };
    Ok((start.offset(), owner, entry))
}

/// The id that `text` is, in quotes.
pub(crate) fn stream_id(text: &[u8]) -> Result<StreamId, Damage> {
    let mut parser = Parser::new(text);
    let id = id(&mut parser)?;
    parser.finish("stream id")?;
    Ok(id)
}

/// `ms-seq`
fn id(parser: &mut Parser<'_>) -> Result<StreamId, Damage> {
    parser.blank();
    let start = parser.clone();
    let text = parser.string("stream id")?;
    let number = |text: &str| -> Option<u64> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let parsed = text.split_once('-').and_then(|(ms, seq)| {
        let (ms, seq) = (number(ms)?, number(seq)?);
        Some(StreamId { ms, seq })
    });
    parsed.ok_or_else(|| start.unwanted("stream id", "two numbers, as in \"1700000000000-0\""))
}
