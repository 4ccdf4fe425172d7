//! COMMAND and CONFIG.

use dfsnap_formats::resp::Reply;

use super::connection::Connection;
use crate::command::{Command, CommandError, KeySpec, table};

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
        (b"list", []) => {
            let all: Vec<_> = table::all().collect();
            out.array(all.len());
            all.into_iter()
                .for_each(|command| out.bulk(command.name.as_bytes()));
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
        (b"count" | b"list" | b"getkeys", _) => {
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

fn get_keys(out: &mut Reply, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let command =
        table::find(name).ok_or_else(|| CommandError::new("Invalid command specified"))?;
    if !command.arity_fits(words.len()) {
        return Err(CommandError::new(
            "Invalid number of arguments specified for command",
        ));
    }
    let mut keys = Vec::new();
    command.keys.visit(words, |at| keys.push(words[at]));
    if keys.is_empty() {
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
    out.array(0);
    out.array(0);
}

/// CONFIG and its subcommands.
pub fn config(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
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
            let changed = world
                .change_config(|config| config.set(&pairs, is_local))
                .map_err(|text| CommandError(text.into()))?;
            if changed.contains(&"repl-backlog-size") {
                let bytes = world.config().repl_backlog_size;
                world.log.with(|log| log.backlog_bytes = bytes);
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
            connection.out.ok();
        }
        (b"rewrite", []) => {
            world.rewrite_config().map_err(CommandError::new)?;
            connection.out.ok();
        }
        (b"get" | b"set" | b"resetstat" | b"rewrite", _) => {
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
