//! COMMAND and CONFIG.

use dfsnap_formats::glob;
use dfsnap_formats::resp::Reply;

use super::connection::Connection;
use crate::command::key_places::{self, Begin, Find, KeyPlace};
use crate::command::{Command, CommandError, KeySpec, Run, table};
use crate::config::set_failed;
use crate::keyspace::Stats;
use crate::stats::CommandStats;

/// COMMAND and its subcommands.
pub fn command(out: &mut Reply, args: &[&[u8]]) -> Result<(), CommandError> {
    let Some(subcommand) = args.get(1) else {
        let all: Vec<_> = table::all().collect();
        out.array(all.len());
        all.into_iter().for_each(|command| describe(out, command));
        return Ok(());
    };
    match (subcommand.to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"count", []) => out.int(table::all().count() as i64),
        (b"info", []) => {
            let all: Vec<_> = table::all().collect();
            out.array(all.len());
            all.into_iter().for_each(|command| describe(out, command));
        }
        (b"info", names) => {
            out.array(names.len());
            for name in names {
                match table::find(name) {
                    Some(command) => describe(out, command),
                    None => out.null_array(),
                }
            }
        }
        (b"list", filter) => {
            let chosen = filtered(filter)?;
            out.array(chosen.len());
            chosen
                .iter()
                .for_each(|command| out.bulk(command.name.as_bytes()));
        }
        (b"help", []) => {
            out.array(HELP.len());
            HELP.iter().for_each(|line| out.simple(line));
        }
        (b"docs", names) => {
            let chosen: Vec<_> = match names {
                [] => table::all().collect(),
                names => names.iter().filter_map(|name| table::find(name)).collect(),
            };
            out.map(chosen.len());
            for command in chosen {
                out.bulk(command.name.as_bytes());
                out.map(3);
                for (name, text) in [
                    ("summary", command.summary),
                    ("since", command.since),
                    ("group", group_name(command)),
                ] {
                    out.bulk(name.as_bytes());
                    out.bulk(text.as_bytes());
                }
            }
        }
        (b"getkeys", [name, ..]) => get_keys(out, name, &args[2..])?,
        (b"getkeysandflags", [name, ..]) => get_keys_and_flags(out, name, &args[2..])?,
        (b"count" | b"getkeys" | b"getkeysandflags" | b"help", _) => {
            let name = String::from_utf8_lossy(subcommand).to_lowercase();
            return Err(CommandError::wrong_arity(&format!("command|{name}")));
        }
        _ => {
            let name = String::from_utf8_lossy(subcommand);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try COMMAND HELP."
            )));
        }
    }
    Ok(())
}

/// What COMMAND HELP says.
const HELP: [&str; 17] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    All commands with their properties.",
    "COUNT",
    "    The number of commands.",
    "DOCS [<command-name> ...]",
    "    What commands do (default: all).",
    "GETKEYS <full-command>",
    "    The keys of a command with its arguments.",
    "GETKEYSANDFLAGS <full-command>",
    "    The keys of a command with its arguments, and what becomes of them.",
    "INFO [<command-name> ...]",
    "    Commands with their properties (default: all).",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    The names of commands.",
    "HELP",
    "    This text.",
];

/// The commands of COMMAND LIST with this filter.
fn filtered(filter: &[&[u8]]) -> Result<Vec<&'static Command>, CommandError> {
    let [word, kind, value] = filter else {
        return if filter.is_empty() {
            Ok(table::all().collect())
        } else {
            Err(CommandError::SYNTAX)
        };
    };
    if !word.eq_ignore_ascii_case(b"filterby") {
        return Err(CommandError::SYNTAX);
    }
    let chosen = table::all();
    Ok(match kind.to_ascii_lowercase().as_slice() {
        // Nothing here comes from a module.
        b"module" => Vec::new(),
        b"aclcat" => {
            let category = format!("@{}", String::from_utf8_lossy(value).to_lowercase());
            chosen
                .filter(|command| command.categories().contains(&category.as_str()))
                .collect()
        }
        b"pattern" => chosen
            .filter(|command| glob::matches_ignoring_case(value, command.name.as_bytes()))
            .collect(),
        _ => return Err(CommandError::SYNTAX),
    })
}

/// The command of COMMAND GETKEYS, which must fit its words.
fn named(name: &[u8], words: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let command =
        table::find(name).ok_or_else(|| CommandError::new("Invalid command specified"))?;
    if !command.arity_fits(words.len()) {
        return Err(CommandError::new(
            "Invalid number of arguments specified for command",
        ));
    }
    Ok(command)
}

/// Scripts may have no keys at all.
fn may_have_none(command: &Command) -> bool {
    matches!(command.run, Run::Script(_))
}

fn get_keys_and_flags(out: &mut Reply, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let command = named(name, words)?;
    let keys = key_places::keys(command.name, words);
    if keys.is_empty() && !may_have_none(command) {
        return Err(CommandError::new("The command has no key arguments"));
    }
    out.array(keys.len());
    for (key, flags) in keys {
        out.array(2);
        out.bulk(key);
        reply_flags(out, flags);
    }
    Ok(())
}

/// Flags of a key, in words.
fn reply_flags(out: &mut Reply, flags: &str) {
    out.set(flags.split_whitespace().count());
    flags.split_whitespace().for_each(|flag| out.simple(flag));
}

/// A place of keys, as COMMAND shows it.
fn reply_place(out: &mut Reply, place: &KeyPlace) {
    let pair = |out: &mut Reply, name: &str, value: i32| {
        out.bulk(name.as_bytes());
        out.int(i64::from(value));
    };
    out.map(3);
    out.bulk(b"flags");
    reply_flags(out, place.flags);
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    match place.begin {
        Begin::Index(index) => {
            out.bulk(b"index");
            out.bulk(b"spec");
            out.map(1);
            pair(out, "index", index);
        }
        Begin::Keyword(keyword, from) => {
            out.bulk(b"keyword");
            out.bulk(b"spec");
            out.map(2);
            out.bulk(b"keyword");
            out.bulk(keyword.as_bytes());
            pair(out, "startfrom", from);
        }
        Begin::Unknown => {
            out.bulk(b"unknown");
            out.bulk(b"spec");
            out.map(0);
        }
    }
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    match place.find {
        Find::Range { last, step, limit } => {
            out.bulk(b"range");
            out.bulk(b"spec");
            out.map(3);
            pair(out, "lastkey", last);
            pair(out, "keystep", step);
            pair(out, "limit", limit);
        }
        Find::Count => {
            out.bulk(b"keynum");
            out.bulk(b"spec");
            out.map(3);
            pair(out, "keynumidx", 0);
            pair(out, "firstkey", 1);
            pair(out, "keystep", 1);
        }
        Find::Unknown => {
            out.bulk(b"unknown");
            out.bulk(b"spec");
            out.map(0);
        }
    }
}

fn get_keys(out: &mut Reply, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let command = named(name, words)?;
    let mut keys = Vec::new();
    command.keys.visit(words, |at| keys.push(words[at]));
    if keys.is_empty() && !may_have_none(command) {
        return Err(CommandError::new("The command has no key arguments"));
    }
    out.array(keys.len());
    keys.into_iter().for_each(|key| out.bulk(key));
    Ok(())
}

fn group_name(command: &Command) -> &'static str {
    use crate::command::Group::*;
    match command.group {
        Generic => "generic",
        String => "string",
        List => "list",
        Set => "set",
        SortedSet => "sorted-set",
        Hash => "hash",
        Stream => "stream",
        Bitmap => "bitmap",
        HyperLogLog => "hyperloglog",
        Geo => "geo",
        PubSub => "pubsub",
        Transactions => "transactions",
        Scripting => "scripting",
        Connection => "connection",
        Server => "server",
        Cluster => "cluster",
    }
}

/// The ten elements that COMMAND shows of a command.
fn describe(out: &mut Reply, command: &Command) {
    out.array(10);
    out.bulk(command.name.as_bytes());
    out.int(i64::from(command.arity));
    let flags: Vec<_> = command.flags.names().collect();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.simple(flag));
    let (first, last, step) = match command.keys {
        KeySpec::Range { first, last, step } => (first as i64, last as i64, step as i64),
        KeySpec::Counted {
            dest: Some(dest), ..
        } => (dest as i64, dest as i64, 1),
        KeySpec::None | KeySpec::Counted { dest: None, .. } | KeySpec::Custom(_) => (0, 0, 0),
    };
    out.int(first);
    out.int(last);
    out.int(step);
    let categories = command.categories();
    out.set(categories.len());
    categories.iter().for_each(|category| out.simple(category));
    out.array(0);
    let places = key_places::of(command.name, None);
    out.array(places.len());
    places.iter().for_each(|place| reply_place(out, place));
    out.array(0);
}

/// What CONFIG HELP says.
const CONFIG_HELP: [&str; 11] = [
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern> [<pattern> ...]",
    "    Directives that match a pattern, with their values.",
    "SET <directive> <value> [<directive> <value> ...]",
    "    Sets directives, all or none.",
    "RESETSTAT",
    "    Sets the counters of INFO to zero.",
    "REWRITE",
    "    Writes the directives to the configuration file.",
    "HELP",
    "    This text.",
];

/// CONFIG and its subcommands.
pub async fn config(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let world = connection.thread.world.clone();
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"get", patterns @ [_, ..]) => {
            let config = world.config();
            let pairs = config.get(patterns);
            connection.out.map(pairs.len());
            for (name, value) in pairs {
                connection.out.bulk(name.as_bytes());
                connection.out.bulk(value.as_bytes());
            }
        }
        (b"set", words @ [_, _, ..]) => {
            if !words.len().is_multiple_of(2) {
                return Err(CommandError::wrong_arity("config|set"));
            }
            let words: Vec<String> = words.iter().map(|word| text(word)).collect();
            let pairs: Vec<(&str, &str)> = words
                .chunks_exact(2)
                .map(|pair| (&*pair[0], &*pair[1]))
                .collect();
            let is_local = connection.is_local();
            let before = world.config().clone();
            let changed = world
                .change_config(|config| config.set(&pairs, is_local))
                .map_err(|text| CommandError(text.into()))?;
            let moved = changed
                .iter()
                .find(|name| matches!(**name, "port" | "bind"));
            if let Some(name) = moved
                && let Err(error) = super::listener::change(&world, before).await
            {
                tracing::warn!(%error, "cannot listen there");
                let reason = if *name == "bind" {
                    "Failed to bind to specified addresses."
                } else {
                    "Unable to listen on this port. Check server logs."
                };
                return Err(CommandError(set_failed(name, reason).into()));
            }
            if changed.contains(&"repl-backlog-size") {
                let bytes = world.config().repl_backlog_size;
                world.log.with(|log| log.backlog_bytes = bytes);
            }
            if changed.contains(&"repl-backlog-disk-limit") {
                let bytes = world.config().repl_backlog_disk_limit;
                world.log.with(|log| log.archive.set_limit(bytes));
            }
            if changed.contains(&"requirepass") {
                let password = world.config().requirepass.clone();
                crate::command::acl::set_default_password(password.as_deref());
            }
            let limit = world.config().maxmemory;
            let used = crate::memory::used();
            if changed.contains(&"maxmemory") && limit > 0 && used > limit {
                tracing::warn!(
                    used,
                    limit,
                    "the new maxmemory is smaller than what is in use: keys are evicted or writes refused by the policy"
                );
            }
            connection.out.ok();
        }
        (b"resetstat", []) => {
            world.counters.reset();
            for shard in 0..world.links.shards() {
                world.links.send(
                    shard,
                    Box::new(|shard| {
                        shard.stats = CommandStats::default();
                        if let Some(keyspace) = &mut shard.keyspace {
                            // The changes since the last save are no statistics.
                            keyspace.stats = Stats {
                                changes: keyspace.stats.changes,
                                ..Stats::default()
                            };
                        }
                    }),
                );
            }
            connection.out.ok();
        }
        (b"rewrite", []) => {
            world.rewrite_config().map_err(CommandError::new)?;
            connection.out.ok();
        }
        (b"help", []) => {
            connection.out.array(CONFIG_HELP.len());
            CONFIG_HELP
                .iter()
                .for_each(|line| connection.out.simple(line));
        }
        (b"get" | b"set" | b"resetstat" | b"rewrite" | b"help", _) => {
            return Err(CommandError::wrong_arity(&format!(
                "config|{}",
                text(args[1]).to_lowercase()
            )));
        }
        _ => {
            return Err(CommandError::new(format!(
                "unknown subcommand '{}'. Try CONFIG HELP.",
                text(args[1])
            )));
        }
    }
    Ok(())
}
