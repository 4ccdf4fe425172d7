//! Streams: pending entries that go from one consumer to another.

use dfsnap_formats::resp::Reply;

use super::collection::update;
use super::stream_groups::{claim_words, no_key_or_group, peek_group, set_id_words, text};
use super::streams::{range_start, reply_entry, reply_id, strict_id};
use super::words::{int, is};
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group as Family, KeySpec,
};
use crate::keyspace::value::stream::{Group, Pending, Stream, StreamId};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("xautoclaim", -6, Flags::WRITE_FAST, KeySpec::ONE, xautoclaim)
        .about(Family::Stream, "6.2.0", "Takes over pending entries that have been idle for some time."),
    Command::keyed("xclaim", -6, Flags::WRITE_FAST, KeySpec::ONE, xclaim)
        .about(Family::Stream, "5.0.0", "Takes over pending entries."),
];

struct ClaimOptions {
    just_id: bool,
    force: bool,
    delivered_at_ms: i64,
    delivery_count: Option<u64>,
    last_id: Option<StreamId>,
}

impl ClaimOptions {
    fn parse(options: Args<'_>, now_ms: i64) -> Result<ClaimOptions, CommandError> {
        let invalid =
            |name: &str| CommandError::new(format!("Invalid {name} option argument for XCLAIM"));
        let mut parsed = ClaimOptions {
            just_id: false,
            force: false,
            delivered_at_ms: now_ms,
            delivery_count: None,
            last_id: None,
        };
        let mut left = options.iter();
        while let Some(word) = left.next() {
            let has_more = left.len() > 0;
            let mut number = |name: &str| {
                left.next()
                    .and_then(|word| int(word).ok())
                    .ok_or_else(|| invalid(name))
            };
            match word {
                word if is(word, "force") => parsed.force = true,
                word if is(word, "justid") => parsed.just_id = true,
                word if is(word, "idle") && has_more => {
                    parsed.delivered_at_ms = now_ms.saturating_sub(number("IDLE")?)
                }
                word if is(word, "time") && has_more => parsed.delivered_at_ms = number("TIME")?,
                word if is(word, "retrycount") && has_more => {
                    // A negative count stands for none, as in Redis.
                    parsed.delivery_count = u64::try_from(number("RETRYCOUNT")?).ok();
                }
                word if is(word, "lastid") && has_more => {
                    parsed.last_id = left.next().map(|word| strict_id(word, 0)).transpose()?;
                }
                word => {
                    return Err(CommandError::new(format!(
                        "Unrecognized XCLAIM option '{}'",
                        text(word)
                    )));
                }
            }
        }
        if parsed.delivered_at_ms < 0 || parsed.delivered_at_ms > now_ms {
            parsed.delivered_at_ms = now_ms;
        }
        Ok(parsed)
    }
}

/// A consumer that takes entries over, and what replicas get for it.
struct Claim<'a> {
    key: &'a [u8],
    name: &'a [u8],
    consumer: &'a [u8],
    now_ms: i64,
    idle_ms_min: i64,
    /// The consumer was new.
    has_created: bool,
    effects: Vec<Vec<Vec<u8>>>,
}

impl Claim<'_> {
    /// Takes one entry that is in the stream; false if the group does not let it go.
    fn take(&mut self, group: &mut Group, id: StreamId, options: &ClaimOptions) -> bool {
        let old = group.pending().get(&id).copied();
        match old {
            None if !options.force => return false,
            Some(old)
                if self.idle_ms_min > 0 && self.now_ms - old.delivered_at_ms < self.idle_ms_min =>
            {
                return false;
            }
            _ => {}
        }
        let consumer = match group.find(self.consumer) {
            Some(consumer) => consumer,
            None => {
                self.has_created = true;
                group
                    .create(self.consumer, self.now_ms)
                    .expect("a name that is free")
            }
        };
        let times = group.consumer_mut(consumer);
        (times.seen_at_ms, times.active_at_ms) = (self.now_ms, self.now_ms);
        // An entry that is forced in counts as delivered once before.
        let before = old.map_or(1, |old| old.delivery_count);
        let delivery_count = match options.delivery_count {
            Some(count) => count,
            None if options.just_id => before,
            None => before + 1,
        };
        let pending = Pending {
            consumer,
            delivered_at_ms: options.delivered_at_ms,
            delivery_count,
        };
        group.assign(id, pending);
        self.effects.push(claim_words(
            self.key,
            self.name,
            self.consumer,
            id,
            &pending,
            group.last_id,
        ));
        true
    }

    /// Forgets a pending entry that is no longer in the stream. Replicas drop it when they are told to claim it.
    fn drop_gone(&mut self, group: &mut Group, id: StreamId) -> bool {
        let Some(gone) = group.acknowledge(id) else {
            return false;
        };
        let owner = group.consumer(gone.consumer).name().to_vec();
        self.effects.push(claim_words(
            self.key,
            self.name,
            &owner,
            id,
            &gone,
            group.last_id,
        ));
        true
    }

    fn effect(self) -> Effect {
        if self.effects.is_empty() {
            Effect::None
        } else {
            Effect::Commands(self.effects)
        }
    }
}

fn xclaim(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (key, name, now_ms) = (args[1], args[2], exec.now_ms);
    if peek_group(exec, key, name)?.is_none() {
        return Err(no_key_or_group(key, name, ""));
    }
    let idle = int(args[4])
        .map_err(|_| CommandError::text("ERR Invalid min-idle-time argument for XCLAIM"))?;
    let count = args[5..]
        .iter()
        .take_while(|word| StreamId::parse(word, 0).is_some())
        .count();
    let (ids, options) = args[5..].split_at(count);
    let ids: Vec<StreamId> = ids
        .iter()
        .filter_map(|word| StreamId::parse(word, 0))
        .collect();
    let options = ClaimOptions::parse(options, now_ms)?;
    let protocol = exec.reply.protocol();
    let stream: &mut Stream = update(exec, key);
    let mut group = std::mem::take(
        stream
            .groups
            .get_mut(name)
            .expect("a group that was just looked at"),
    );
    let mut claim = Claim {
        key,
        name,
        consumer: args[3],
        now_ms,
        idle_ms_min: idle.max(0),
        has_created: false,
        effects: Vec::new(),
    };
    let moved = options.last_id.filter(|id| *id > group.last_id);
    group.last_id = moved.unwrap_or(group.last_id);
    let mut reply = Reply::new(protocol);
    let mark = reply.begin_array();
    let mut claimed = 0;
    for id in ids {
        let Some(entry) = stream.get(id) else {
            claim.drop_gone(&mut group, id);
            continue;
        };
        if claim.take(&mut group, id, &options) {
            claimed += 1;
            match options.just_id {
                true => reply_id(&mut reply, id),
                false => reply_entry(&mut reply, &entry),
            }
        }
    }
    reply.end_array(mark, claimed);
    if moved.is_some() && claim.effects.is_empty() {
        claim.effects.push(set_id_words(key, name, &group));
    }
    *stream
        .groups
        .get_mut(name)
        .expect("a group that was just looked at") = group;
    exec.reply.raw(reply.as_bytes());
    if claim.has_created {
        exec.notify(b't', "xgroup-createconsumer", exec.db, key);
    }
    Ok(claim.effect())
}

fn xautoclaim(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    /// Pending entries looked at for each one wanted.
    const ATTEMPTS: usize = 10;
    let (key, name, now_ms) = (args[1], args[2], exec.now_ms);
    let idle = int(args[4])
        .map_err(|_| CommandError::text("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?;
    let start = range_start(args[5])?;
    let (mut count, mut just_id) = (100usize, false);
    let mut left = args[6..].iter();
    while let Some(word) = left.next() {
        if is(word, "count") && left.len() > 0 {
            let number = left
                .next()
                .map_or(Err(CommandError::SYNTAX), |word| int(word));
            let number = number.ok().and_then(|number| usize::try_from(number).ok());
            count = number
                .filter(|number| *number > 0 && *number <= usize::MAX / 32)
                .ok_or(CommandError::text("ERR COUNT must be > 0"))?;
        } else if is(word, "justid") {
            just_id = true;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    if peek_group(exec, key, name)?.is_none() {
        return Err(no_key_or_group(key, name, ""));
    }
    let options = ClaimOptions {
        just_id,
        force: false,
        delivered_at_ms: now_ms,
        delivery_count: None,
        last_id: None,
    };
    let protocol = exec.reply.protocol();
    let stream: &mut Stream = update(exec, key);
    let mut group = std::mem::take(
        stream
            .groups
            .get_mut(name)
            .expect("a group that was just looked at"),
    );
    let mut claim = Claim {
        key,
        name,
        consumer: args[3],
        now_ms,
        idle_ms_min: idle.max(0),
        has_created: false,
        effects: Vec::new(),
    };
    let seen: Vec<StreamId> = group
        .pending()
        .range(start..)
        .take(count.saturating_mul(ATTEMPTS).saturating_add(1))
        .map(|(id, _)| *id)
        .collect();
    let mut reply = Reply::new(protocol);
    let mark = reply.begin_array();
    let (mut claimed, mut gone, mut done) = (0, Vec::new(), 0);
    while done < seen.len() && done < count.saturating_mul(ATTEMPTS) && claimed + gone.len() < count
    {
        let id = seen[done];
        done += 1;
        let Some(entry) = stream.get(id) else {
            claim.drop_gone(&mut group, id);
            gone.push(id);
            continue;
        };
        if claim.take(&mut group, id, &options) {
            claimed += 1;
            match just_id {
                true => reply_id(&mut reply, id),
                false => reply_entry(&mut reply, &entry),
            }
        }
    }
    reply.end_array(mark, claimed);
    let next = seen.get(done).copied().unwrap_or(StreamId::MIN);
    *stream
        .groups
        .get_mut(name)
        .expect("a group that was just looked at") = group;
    exec.reply.array(3);
    reply_id(exec.reply, next);
    exec.reply.raw(reply.as_bytes());
    exec.reply.array(gone.len());
    gone.iter().for_each(|id| reply_id(exec.reply, *id));
    if claim.has_created {
        exec.notify(b't', "xgroup-createconsumer", exec.db, key);
    }
    Ok(claim.effect())
}
