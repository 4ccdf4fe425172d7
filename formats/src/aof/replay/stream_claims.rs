//! Streams: pending entries that change hands, which is also how servers log what a consumer read.

use super::store::Data;
use super::stream_groups::NO_GROUP;
use super::streams::Pending;
use super::table::Command;
use super::words::{Reader, int, stream_id};
use super::{Args, Done, Problem, Replay, SYNTAX, Stop};
use crate::encoding::stream::StreamId;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("XCLAIM", -6, claim),
    Command::run("XAUTOCLAIM", -6, autoclaim),
];

/// What XCLAIM says besides the ids.
#[derive(Debug, Default)]
struct Options {
    /// Absolute Unix milliseconds.
    delivered_at_ms: Option<i64>,
    deliveries: Option<u64>,
    force: bool,
    /// Deliveries stay as they are.
    just_id: bool,
    last_id: Option<StreamId>,
}

impl Options {
    fn parse(replay: &Replay, words: Args<'_>) -> Result<Options, Stop> {
        let mut options = Options::default();
        let mut words = Reader::new(words);
        while !words.is_empty() {
            if words.skip("FORCE") {
                options.force = true;
            } else if words.skip("JUSTID") {
                options.just_id = true;
            } else if words.skip("IDLE") {
                let idle_ms = int(words.next()?)?;
                options.delivered_at_ms = Some(replay.now_ms()?.saturating_sub(idle_ms));
            } else if words.skip("TIME") {
                options.delivered_at_ms = Some(int(words.next()?)?);
            } else if words.skip("RETRYCOUNT") {
                options.deliveries = u64::try_from(int(words.next()?)?).ok();
            } else if words.skip("LASTID") {
                options.last_id = Some(stream_id(words.next()?, 0)?);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(options)
    }
}

/// `XCLAIM key group consumer min-idle id … option …`
fn claim(replay: &mut Replay, args: Args<'_>) -> Done {
    let (key, name, consumer) = (args[1], args[2], args[3]);
    replay.group(key, name)?;
    let min_idle_ms = int(args[4])?.max(0);
    let mut ids = Vec::new();
    let mut words = &args[5..];
    while let [word, rest @ ..] = words
        && let Ok(id) = stream_id(word, 0)
    {
        ids.push(id);
        words = rest;
    }
    let options = Options::parse(replay, words)?;
    let delivered_at_ms = match (options.delivered_at_ms, replay.now_ms) {
        (Some(at_ms), Some(now_ms)) if at_ms < 0 || at_ms > now_ms => now_ms,
        (Some(at_ms), _) => at_ms,
        (None, _) => replay.now_ms()?,
    };
    let idle_before_ms = match min_idle_ms {
        0 => None,
        least => Some(replay.now_ms()?.saturating_sub(least)),
    };
    let fresh = replay.consumer();
    let stream = replay.get(key, Data::stream)?.ok_or(NO_GROUP)?;
    let group = stream.groups.get_mut(name).ok_or(NO_GROUP)?;
    group.last_id = group.last_id.max(options.last_id.unwrap_or(StreamId::MIN));
    for id in ids {
        if !stream.entries.contains_key(&id) {
            group.pending.remove(&id);
            continue;
        }
        let is_new = !group.pending.contains_key(&id);
        if is_new && !options.force {
            continue;
        }
        let entry = group.pending.entry(id).or_insert_with(|| Pending {
            consumer: consumer.to_vec(),
            delivered_at_ms,
            deliveries: 1,
        });
        if !is_new && idle_before_ms.is_some_and(|before_ms| entry.delivered_at_ms > before_ms) {
            continue;
        }
        entry.consumer = consumer.to_vec();
        entry.delivered_at_ms = delivered_at_ms;
        match options.deliveries {
            Some(deliveries) => entry.deliveries = deliveries,
            None if !options.just_id => entry.deliveries = entry.deliveries.saturating_add(1),
            None => {}
        }
        group
            .consumers
            .entry(consumer.to_vec())
            .or_insert(fresh)
            .active_at_ms = fresh.seen_at_ms;
    }
    Ok(())
}

fn autoclaim(_: &mut Replay, _: Args<'_>) -> Done {
    let why = "claims what it finds; servers log each claim, not the search";
    Err(Stop::Failed(Problem::Undetermined(why)))
}
