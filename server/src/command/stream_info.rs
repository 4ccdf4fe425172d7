//! Streams: XINFO.

use dfsnap_formats::resp::Reply;

use super::collection::read;
use super::stream_groups::no_group;
use super::streams::{reply_entry, reply_id};
use super::words::{int, is};
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group as Family, KeySpec,
};
use crate::keyspace::value::stream::{Group, Stream, StreamId};

const SECOND: KeySpec = KeySpec::Range {
    first: 2,
    last: 2,
    step: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("xinfo", -2, Flags::READONLY.with(Flags::CONTAINER), SECOND, xinfo)
        .about(Family::Stream, "5.0.0", "Tells about a stream, its groups and their consumers."),
];

fn xinfo(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const SUBCOMMANDS: [(&str, i32); 4] =
        [("stream", -3), ("groups", 3), ("consumers", 4), ("help", 2)];
    let Some((name, arity)) = SUBCOMMANDS.into_iter().find(|(name, _)| is(args[1], name)) else {
        let given = String::from_utf8_lossy(args[1]);
        return Err(CommandError::new(format!(
            "unknown subcommand '{given}'. Try XINFO HELP."
        )));
    };
    let fits = if arity < 0 {
        args.len() >= arity.unsigned_abs() as usize
    } else {
        args.len() == arity as usize
    };
    if !fits {
        return Err(CommandError::wrong_arity(&format!("xinfo|{name}")));
    }
    if name == "help" {
        let lines = [
            "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "CONSUMERS <key> <groupname>",
            "    The consumers of a group.",
            "GROUPS <key>",
            "    The groups of a stream.",
            "STREAM <key> [FULL [COUNT <count>]]",
            "    The stream itself; with FULL its entries, groups and pending entries as well.",
            "HELP",
            "    This text.",
        ];
        exec.reply.array(lines.len());
        lines.iter().for_each(|line| exec.reply.simple(line));
        return Ok(Effect::None);
    }
    let now_ms = exec.now_ms;
    let (stream, reply) = read::<Stream>(exec, args[2])?;
    let stream = stream.ok_or(CommandError::NO_SUCH_KEY)?;
    match name {
        "groups" => {
            reply.array(stream.groups.len());
            for (name, group) in &stream.groups {
                reply.map(6);
                group_head(reply, name, group);
                group_counters(reply, stream, group);
            }
        }
        "consumers" => {
            let group = stream
                .groups
                .get(args[3])
                .ok_or_else(|| no_group(args[2], args[3]))?;
            reply.array(group.consumers().len());
            for consumer in group.consumers() {
                reply.map(4);
                reply.bulk(b"name");
                reply.bulk(consumer.name());
                pair(reply, "pending", consumer.pending().len() as i64);
                pair(reply, "idle", (now_ms - consumer.seen_at_ms).max(0));
                let inactive = if consumer.active_at_ms < 0 {
                    -1
                } else {
                    (now_ms - consumer.active_at_ms).max(0)
                };
                pair(reply, "inactive", inactive);
            }
        }
        _ => match &args[3..] {
            [] => reply_stream(reply, stream),
            [word] if is(word, "full") => reply_full(reply, stream, 10),
            [word, option, number] if is(word, "full") && is(option, "count") => {
                let count = usize::try_from(int(number)?).unwrap_or(0);
                reply_full(reply, stream, if count == 0 { usize::MAX } else { count });
            }
            _ => {
                return Err(CommandError::new(
                    "unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.",
                ));
            }
        },
    }
    Ok(Effect::None)
}

fn pair(reply: &mut Reply, name: &str, number: i64) {
    reply.bulk(name.as_bytes());
    reply.int(number);
}

fn id_pair(reply: &mut Reply, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    reply_id(reply, id);
}

fn number_or_null(reply: &mut Reply, name: &str, number: Option<i64>) {
    reply.bulk(name.as_bytes());
    match number {
        Some(number) => reply.int(number),
        None => reply.null(),
    }
}

/// The seven pairs that XINFO STREAM begins with. A node of the radix tree is one of our nodes here, and the root.
fn stream_head(reply: &mut Reply, stream: &Stream) {
    pair(reply, "length", stream.len() as i64);
    pair(reply, "radix-tree-keys", stream.nodes().len() as i64);
    pair(reply, "radix-tree-nodes", stream.nodes().len() as i64 + 1);
    id_pair(reply, "last-generated-id", stream.last_id());
    id_pair(reply, "max-deleted-entry-id", stream.max_deleted_id);
    pair(reply, "entries-added", stream.entries_added as i64);
    id_pair(reply, "recorded-first-entry-id", stream.first_id());
}

fn reply_stream(reply: &mut Reply, stream: &Stream) {
    reply.map(10);
    stream_head(reply, stream);
    pair(reply, "groups", stream.groups.len() as i64);
    let ends = [
        (
            "first-entry",
            stream.range(StreamId::MIN, StreamId::MAX).next(),
        ),
        (
            "last-entry",
            stream.range_back(StreamId::MIN, StreamId::MAX).next(),
        ),
    ];
    for (name, entry) in ends {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

fn group_head(reply: &mut Reply, name: &[u8], group: &Group) {
    reply.bulk(b"name");
    reply.bulk(name);
    pair(reply, "consumers", group.consumers().len() as i64);
    pair(reply, "pending", group.pending().len() as i64);
}

fn group_counters(reply: &mut Reply, stream: &Stream, group: &Group) {
    id_pair(reply, "last-delivered-id", group.last_id);
    let entries_read = group.entries_read.map(|read| read as i64);
    number_or_null(reply, "entries-read", entries_read);
    number_or_null(reply, "lag", stream.lag(group));
}

fn reply_full(reply: &mut Reply, stream: &Stream, count: usize) {
    reply.map(9);
    stream_head(reply, stream);
    reply.bulk(b"entries");
    let entries: Vec<_> = stream
        .range(StreamId::MIN, StreamId::MAX)
        .take(count)
        .collect();
    reply.array(entries.len());
    entries.iter().for_each(|entry| reply_entry(reply, entry));
    reply.bulk(b"groups");
    reply.array(stream.groups.len());
    for (name, group) in &stream.groups {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        group_counters(reply, stream, group);
        pair(reply, "pel-count", group.pending().len() as i64);
        reply.bulk(b"pending");
        reply.array(group.pending().len().min(count));
        for (id, pending) in group.pending().iter().take(count) {
            reply.array(4);
            reply_id(reply, *id);
            reply.bulk(group.consumer(pending.consumer).name());
            reply.int(pending.delivered_at_ms);
            reply.int(pending.delivery_count as i64);
        }
        reply.bulk(b"consumers");
        reply.array(group.consumers().len());
        for consumer in group.consumers() {
            reply.map(5);
            reply.bulk(b"name");
            reply.bulk(consumer.name());
            pair(reply, "seen-time", consumer.seen_at_ms);
            pair(reply, "active-time", consumer.active_at_ms);
            pair(reply, "pel-count", consumer.pending().len() as i64);
            reply.bulk(b"pending");
            reply.array(consumer.pending().len().min(count));
            for id in consumer.pending().iter().take(count) {
                let pending = group.pending()[id];
                reply.array(3);
                reply_id(reply, *id);
                reply.int(pending.delivered_at_ms);
                reply.int(pending.delivery_count as i64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        // One node makes one key and two nodes of the radix tree, there as here.
        compare_with_redis(
            r#"
            XADD x 1-1 a 1
            XADD x 2-1 b 2
            XINFO STREAM x
            XINFO STREAM x FULL
            XINFO STREAM x FULL COUNT 1
            XINFO STREAM x FOO
            XINFO STREAM x FULL COUNT x
            XINFO STREAM none
            XINFO STREAM
            XINFO
            XGROUP CREATE x g 0
            XINFO GROUPS x
            XINFO STREAM x FULL
            XDEL x 1-1
            XINFO STREAM x
            XINFO GROUPS x
        "#,
        );
    }

    #[test]
    fn full_view_has_groups_and_consumers() {
        let mut bench = Bench::new();
        bench.run("XADD x 1-1 a 1");
        bench.run("XGROUP CREATE x g 0");
        bench.run("XREADGROUP GROUP g c STREAMS x >");
        let full = bench.run("XINFO STREAM x FULL").0;
        assert!(
            full.contains("active-time\\r\\n:1700000000000\\r\\n"),
            "{full}"
        );
        let consumers = bench.run("XINFO CONSUMERS x g").0;
        assert!(consumers.ends_with("inactive\\r\\n:0\\r\\n"), "{consumers}");
    }
}
