//! CONFIG.

use std::sync::Arc;

use dfsnap_formats::resp::Reply;

use super::admission::is_loading;
use super::connection::Connection;
use crate::command::runner::LOADING;
use crate::command::{CommandError, eviction};
use crate::config::{Config, set_failed};
use crate::keyspace::Stats;
use crate::proc_title;
use crate::shard::Shard;
use crate::stats::CommandStats;
use crate::world::World;

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
    let world = connection.thread.world.clone();
    let is_local = connection.is_local();
    if let Some(set) = set_or_show(&world, is_local, args, &mut connection.out)? {
        if let Err(error) = apply_listening(&world, &set).await {
            // All or none: what was told to the kernel is what is in force again.
            let _ = world.apply_oom_score();
            return Err(error);
        }
        set.take_effect(&world);
        connection.out.ok();
    }
    Ok(())
}

/// What CONFIG SET has set, for those who must wait for it to take effect.
pub struct WasSet {
    /// A directive about TLS, if there was one.
    about_tls: Option<String>,
    changed: Vec<&'static str>,
    before: Config,
}

impl WasSet {
    /// Tells whoever must know of what was set, but for those who listen.
    pub fn take_effect(&self, world: &Arc<World>) {
        let changed = &self.changed;
        if changed.iter().any(|name| name.starts_with("maxmemory")) {
            world.check_client_memory();
            // Keys begin to go at once, not with the next command that comes to their shard.
            let actor = super::thread::client_actor(world);
            for shard in 0..world.links.shards() {
                let round = move |shard: &mut Shard| {
                    eviction::round(shard, actor);
                };
                world.links.send(shard, Box::new(round));
            }
        }
        if changed.contains(&"tracking-table-max-keys") {
            world.hub.tracking.keep_limit(&world.hub.limits);
        }
        if changed.contains(&"repl-backlog-size") {
            let bytes = world.config().repl_backlog_size;
            world.log.with(|log| log.backlog_bytes = bytes);
        }
        if changed.contains(&"key-load-delay") {
            let delay_us = world.config().key_load_delay;
            world.load_progress.set_key_delay_us(delay_us);
        }
        if changed.contains(&"repl-backlog-disk-limit") {
            let bytes = world.config().repl_backlog_disk_limit;
            world.log.with(|log| log.archive.set_limit(bytes));
        }
        if changed
            .iter()
            .any(|name| name.starts_with("min-") || name.starts_with("replica-serve"))
        {
            world.judge_links();
        }
        if changed
            .iter()
            .any(|name| proc_title::DIRECTIVES.contains(name))
        {
            proc_title::apply(&world.config(), world.config_path.as_deref());
        }
        if changed.contains(&"loglevel") {
            crate::verbosity::set(world.config().loglevel);
        }
        if changed.contains(&"crash-log-enabled") {
            crate::crash::enable(world.config().crash_log_enabled);
        }
        if changed.contains(&"watchdog-period") {
            crate::watchdog::follow_config(world);
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
    }
}

/// All that CONFIG does without waiting. What it has set takes effect, and is replied to, when the caller says so.
pub fn set_or_show(
    world: &World,
    is_local: bool,
    args: &[&[u8]],
    out: &mut Reply,
) -> Result<Option<WasSet>, CommandError> {
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"get", patterns @ [_, ..]) => {
            let config = world.config();
            let pairs = config.get(patterns);
            out.map(pairs.len());
            for (name, value) in pairs {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
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
            let changes_load = |name: &str| {
                ["repl-diskless-load", "dir", "appendonly"]
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known))
            };
            if is_loading(world) && pairs.iter().any(|pair| changes_load(pair.0)) {
                return Err(LOADING);
            }
            let before = world.config().clone();
            let changed = world
                .change_config(|config| config.set(&pairs, is_local))
                .map_err(|text| CommandError(text.into()))?;
            if changed.iter().any(|name| name.starts_with("oom-score"))
                && world.apply_oom_score().is_err()
            {
                world.change_config(|config| *config = before);
                let names = pairs.iter().map(|pair| pair.0);
                let is_about_it = |name: &&str| name.to_ascii_lowercase().starts_with("oom-score");
                let name = names.rev().find(is_about_it).unwrap_or_default();
                let reason = "Failed to set current oom_score_adj. Check server logs.";
                return Err(CommandError(set_failed(name, reason).into()));
            }
            let names = pairs.iter().map(|pair| pair.0);
            let about_tls = names.into_iter().find(|name| is_about_tls(name));
            return Ok(Some(WasSet {
                about_tls: about_tls.map(str::to_owned),
                changed,
                before,
            }));
        }
        (b"resetstat", []) => {
            world.counters.reset();
            world.log.with(crate::log::LogState::reset_counters);
            crate::keyspace::release::reset_counters();
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
            out.ok();
        }
        (b"rewrite", []) => {
            world.rewrite_config(false).map_err(CommandError::new)?;
            out.ok();
        }
        (b"help", []) => {
            out.array(CONFIG_HELP.len());
            CONFIG_HELP.iter().for_each(|line| out.simple(line));
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
    Ok(None)
}

/// Those of TLS take effect also when they are set to what they were: the files that they name may be others.
fn is_about_tls(name: &str) -> bool {
    name.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("tls-"))
}

/// Has what was set about listening and TLS take effect; if it cannot, nothing is set.
async fn apply_listening(world: &Arc<World>, set: &WasSet) -> Result<(), CommandError> {
    let (about_tls, changed, before) = (&set.about_tls, &set.changed, set.before.clone());
    let failed = |name: &str, reason| Err(CommandError(set_failed(name, reason).into()));
    if let Some(name) = about_tls
        && let Err(error) = world.configure_tls()
    {
        tracing::warn!("{error}");
        world.change_config(|config| *config = before);
        return failed(
            name,
            "Unable to update TLS configuration. Check server logs.",
        );
    }
    let moved = changed
        .iter()
        .find(|name| matches!(**name, "port" | "tls-port" | "bind"));
    let Some(name) = moved else { return Ok(()) };
    let Err(error) = super::listener::change(world, before).await else {
        return Ok(());
    };
    tracing::warn!(%error, "cannot listen there");
    match *name {
        "bind" => failed(name, "Failed to bind to specified addresses."),
        _ => failed(name, "Unable to listen on this port. Check server logs."),
    }
}
