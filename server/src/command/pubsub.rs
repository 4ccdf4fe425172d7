//! PUBLISH, SPUBLISH and PUBSUB. Subscribing is about the connection: `net::subscriptions`.

use std::sync::atomic::Ordering;

use super::words::is;
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::pubsub::Kind;

const PUBLISH: Flags = Flags::PUBSUB
    .with(Flags::LOADING)
    .with(Flags::STALE)
    .with(Flags::FAST)
    .with(Flags::MAY_REPLICATE);
const LSTALE: Flags = Flags::PUBSUB.with(Flags::LOADING).with(Flags::STALE);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("publish", 3, PUBLISH, KeySpec::None, publish)
        .about(Group::PubSub, "2.0.0", "Sends a message to a channel."),
    Command::keyed("pubsub", -2, LSTALE.with(Flags::CONTAINER), KeySpec::None, pubsub)
        .about(Group::PubSub, "2.8.0", "Tells about channels and their subscribers."),
    Command::keyed("spublish", 3, PUBLISH, KeySpec::None, spublish)
        .about(Group::PubSub, "7.0.0", "Sends a message to a shard channel."),
];

fn publish(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let receivers = exec.settings.hub.publish(args[1], args[2]);
    exec.reply.int(receivers as i64);
    Ok(replicated(exec))
}

fn spublish(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let receivers = exec.settings.hub.publish_to_shard(args[1], args[2]);
    exec.reply.int(receivers as i64);
    Ok(replicated(exec))
}

/// The nodes of a cluster pass messages on among themselves.
fn replicated(exec: &Exec<'_>) -> Effect {
    if exec.settings.hub.is_cluster.load(Ordering::Relaxed) {
        Effect::None
    } else {
        Effect::Passed
    }
}

fn pubsub(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let hub = exec.settings.hub.clone();
    let reply = &mut *exec.reply;
    match &args[1..] {
        [word] if is(word, "help") => reply_help(exec),
        [word, pattern @ ..] if is(word, "channels") && pattern.len() <= 1 => {
            names(exec, Kind::Channel, pattern)
        }
        [word, pattern @ ..] if is(word, "shardchannels") && pattern.len() <= 1 => {
            names(exec, Kind::Shard, pattern)
        }
        [word] if is(word, "numpat") => reply.int(hub.len(Kind::Pattern) as i64),
        [word, channels @ ..] if is(word, "numsub") => counts(exec, Kind::Channel, channels),
        [word, channels @ ..] if is(word, "shardnumsub") => counts(exec, Kind::Shard, channels),
        [word, ..] if is(word, "help") || is(word, "numpat") => return Err(wrong_arity(word)),
        [word, ..] if is(word, "channels") || is(word, "shardchannels") => {
            return Err(CommandError::new(format!(
                "unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
                String::from_utf8_lossy(word)
            )));
        }
        words => {
            let name = String::from_utf8_lossy(words[0]);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try PUBSUB HELP."
            )));
        }
    }
    Ok(Effect::None)
}

fn wrong_arity(subcommand: &[u8]) -> CommandError {
    let name = String::from_utf8_lossy(subcommand).to_lowercase();
    CommandError::wrong_arity(&format!("pubsub|{name}"))
}

fn names(exec: &mut Exec<'_>, kind: Kind, pattern: Args<'_>) {
    let names = exec.settings.hub.names(kind, pattern.first().copied());
    exec.reply.array(names.len());
    names.iter().for_each(|name| exec.reply.bulk(name));
}

fn counts(exec: &mut Exec<'_>, kind: Kind, channels: Args<'_>) {
    exec.reply.array(channels.len() * 2);
    for channel in channels {
        exec.reply.bulk(channel);
        let count = exec.settings.hub.subscribers(kind, channel);
        exec.reply.int(count as i64);
    }
}

fn reply_help(exec: &mut Exec<'_>) {
    let lines = [
        "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CHANNELS [<pattern>]",
        "    Channels with subscribers that match the pattern (default: '*').",
        "NUMPAT",
        "    Number of patterns with subscribers.",
        "NUMSUB [<channel> ...]",
        "    Number of subscribers of each channel, patterns apart.",
        "SHARDCHANNELS [<pattern>]",
        "    Shard channels with subscribers that match the pattern (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Number of subscribers of each shard channel.",
        "HELP",
        "    This text.",
    ];
    exec.reply.array(lines.len());
    lines.iter().for_each(|line| exec.reply.simple(line));
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_without_subscribers_are_those_of_redis() {
        compare_with_redis(
            r#"
            PUBLISH c x
            SPUBLISH c x
            PUBLISH c
            PUBSUB CHANNELS
            PUBSUB CHANNELS a*
            PUBSUB SHARDCHANNELS
            PUBSUB NUMPAT
            PUBSUB NUMPAT x
            PUBSUB NUMSUB
            PUBSUB NUMSUB a b
            PUBSUB SHARDNUMSUB a
            PUBSUB FOO
            PUBSUB
        "#,
        );
    }

    #[test]
    fn messages_go_to_replicas_though_nothing_changed() {
        let mut bench = Bench::new();
        for line in ["PUBLISH c x", "SPUBLISH c x"] {
            assert_eq!(bench.effect(line), line);
        }
    }
}
