//! INFO.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dfsnap_replica::Phase;

use crate::clock::now_ms;
use crate::config::REDIS_VERSION;
use crate::journal::Seq;
use crate::keyspace::{DbIndex, Keyspace, Stats};
use crate::pubsub::Kind;
use crate::shard::Shard;
use crate::snapshot::file;
use crate::stats::{CommandStats, ThreadReport};
use crate::world::World;

mod memory;

pub use memory::Memory;
use memory::Tables;

/// What the shards add up to.
#[derive(Clone, Debug, Default)]
struct Totals {
    /// Bytes in use before anything was added up: that takes memory too.
    used: u64,
    stats: Stats,
    /// Keys, keys with an expiry and their average time to live, by database.
    databases: Vec<(u64, u64, i64)>,
    /// What the tables of each database take.
    tables: Vec<Tables>,
    watched: u64,
    /// Bytes of memory of each shard's thread.
    memory: Vec<u64>,
    awaited: u64,
    parked: u64,
    queued: u64,
    commands: CommandStats,
}

/// Sections that only show when asked for.
const EXTRA: [&str; 2] = ["commandstats", "latencystats"];

/// Sections in their order.
const SECTIONS: [&str; 13] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "commandstats",
    "errorstats",
    "latencystats",
    "cluster",
    "keyspace",
];

/// The text of INFO with these section names; all default sections without any.
pub async fn info(world: &Arc<World>, names: &[&[u8]]) -> String {
    let totals = totals(world).await;
    // Whoever has written and asks finds the write in the offset: records reach the log a little after the reply to their command.
    let last = Seq(world.journal.peek().0 - 1);
    if world.journal.is_active() && !world.is_replica.load(Ordering::Relaxed) {
        let _ = tokio::time::timeout(LOG_WAIT, world.log.offset_after(last)).await;
    }
    text(world, names, &totals)
}

/// INFO does not wait for longer than this for records on their way to the log.
const LOG_WAIT: Duration = Duration::from_secs(1);

/// The same for a script or a transaction that has all keyspaces, and cannot wait for other threads: what these did is told as it was up
/// to a second ago.
pub fn info_within(world: &World, names: &[&[u8]], keyspaces: &[Box<Keyspace>]) -> String {
    let now = now_ms();
    let mut totals = Totals {
        used: crate::memory::used(),
        ..Totals::default()
    };
    keyspaces
        .iter()
        .for_each(|keyspace| totals.add(keyspace, now));
    let reports = world.reports.lock().unwrap_or_else(PoisonError::into_inner);
    reports.iter().for_each(|report| totals.add_thread(report));
    drop(reports);
    text(world, names, &totals)
}

/// What a shard's thread tells of itself.
fn report(shard: &Shard) -> ThreadReport {
    ThreadReport {
        memory: crate::memory::of_this_thread(),
        parked: shard.parked_len() as u64,
        queued: shard.queue_len() as u64,
        awaited: shard.waits.len() as u64,
        commands: shard.stats.clone(),
    }
}

/// Leaves a report of a shard's thread for those who cannot ask it.
pub fn leave_report(world: &World, shard: &Shard) {
    let report = report(shard);
    let mut reports = world.reports.lock().unwrap_or_else(PoisonError::into_inner);
    let len = reports.len().max(shard.index + 1);
    reports.resize(len, ThreadReport::default());
    reports[shard.index] = report;
}

fn text(world: &World, names: &[&[u8]], totals: &Totals) -> String {
    let names: Vec<String> = names
        .iter()
        .map(|name| String::from_utf8_lossy(name).to_lowercase())
        .collect();
    let wants_default = names.is_empty() || names.iter().any(|name| name == "default");
    let wants_all = names
        .iter()
        .any(|name| matches!(name.as_str(), "all" | "everything"));
    let mut text = String::with_capacity(4096);
    for section in SECTIONS {
        let is_wanted = wants_all
            || wants_default && !EXTRA.contains(&section)
            || names.iter().any(|name| name == section);
        if !is_wanted {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let mut title = section.to_owned();
        title[..1].make_ascii_uppercase();
        if section == "cpu" {
            title = "CPU".into();
        }
        let _ = write!(text, "# {title}\r\n");
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(text, "{name}:{value}\r\n");
        };
        match section {
            "server" => server(world, &mut put),
            "clients" => clients(world, totals, &mut put),
            "memory" => memory::section(world, totals, &mut put),
            "persistence" => persistence(world, totals, &mut put),
            "stats" => stats(world, totals, &mut put),
            "replication" => replication(world, &mut put),
            "cpu" => cpu(&mut put),
            "commandstats" => commandstats(totals, &mut put),
            "errorstats" => errorstats(totals, &mut put),
            "latencystats" => latencystats(world, totals, &mut put),
            "cluster" => put("cluster_enabled", &u8::from(world.config().cluster_enabled)),
            "keyspace" => keyspace(totals, &mut put),
            _ => {}
        }
    }
    text
}

type Put<'a> = dyn FnMut(&str, &dyn std::fmt::Display) + 'a;

async fn totals(world: &World) -> Totals {
    let now = now_ms();
    let used = crate::memory::used();
    let shards = world
        .links
        .look_at_all(move |shard| {
            let mut totals = Totals::default();
            if let Some(keyspace) = &shard.keyspace {
                totals.add(keyspace, now);
            }
            (totals, report(shard))
        })
        .await
        .unwrap_or_default();
    let mut sum = Totals {
        used,
        ..Totals::default()
    };
    for (totals, report) in shards {
        sum.merge(totals);
        sum.add_thread(&report);
    }
    sum
}

impl Totals {
    fn add(&mut self, keyspace: &Keyspace, now: i64) {
        let databases = (0..keyspace.database_count()).map(|db| keyspace.database(DbIndex(db)));
        let (tables, databases) = databases
            .map(|database| {
                let expiry = database.expiry();
                let counts = (
                    database.entries().len() as u64,
                    expiry.len() as u64,
                    expiry.average_ttl_ms(now),
                );
                (Tables::of(database), counts)
            })
            .unzip();
        self.merge(Totals {
            stats: keyspace.stats,
            watched: keyspace.watches.len() as u64,
            tables,
            databases,
            ..Totals::default()
        });
    }

    fn add_thread(&mut self, report: &ThreadReport) {
        self.memory.push(report.memory);
        self.awaited += report.awaited;
        self.parked += report.parked;
        self.queued += report.queued;
        self.commands.add(&report.commands);
    }

    /// Adds what keyspaces tell.
    fn merge(&mut self, other: Totals) {
        self.stats.hits += other.stats.hits;
        self.stats.misses += other.stats.misses;
        self.stats.expired += other.stats.expired;
        self.stats.expired_fields += other.stats.expired_fields;
        self.stats.evicted += other.stats.evicted;
        self.stats.changes += other.stats.changes;
        self.watched += other.watched;
        self.tables
            .resize(self.tables.len().max(other.tables.len()), Tables::default());
        for (known, tables) in self.tables.iter_mut().zip(other.tables) {
            known.add(tables);
        }
        self.databases
            .resize(self.databases.len().max(other.databases.len()), (0, 0, 0));
        for (known, (keys, expires, ttl)) in self.databases.iter_mut().zip(other.databases) {
            let weight = known.1 + expires;
            if weight > 0 {
                known.2 = ((known.2 as i128 * i128::from(known.1)
                    + ttl as i128 * i128::from(expires))
                    / i128::from(weight)) as i64;
            }
            known.0 += keys;
            known.1 += expires;
        }
    }
}

fn server(world: &World, put: &mut Put<'_>) {
    let uptime = world.started.elapsed().as_secs();
    let config = world.config();
    put("redis_version", &REDIS_VERSION);
    put("redis_git_sha1", &"00000000");
    put("redis_git_dirty", &0);
    put("redis_build_id", &env!("CARGO_PKG_VERSION"));
    let mode = if config.cluster_enabled {
        "cluster"
    } else {
        "standalone"
    };
    put("redis_mode", &mode);
    put("server_name", &"dfsnap");
    put("dfsnap_version", &env!("CARGO_PKG_VERSION"));
    let uname = rustix::system::uname();
    put(
        "os",
        &format!(
            "{} {} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy()
        ),
    );
    put("arch_bits", &64);
    put("multiplexing_api", &"epoll");
    put("process_id", &std::process::id());
    put("process_supervised", &"no");
    put("run_id", &world.run_id);
    put("tcp_port", &config.main_port());
    put("server_time_usec", &(now_ms() * 1000));
    put("uptime_in_seconds", &uptime);
    put("uptime_in_days", &(uptime / 86_400));
    if let Some(left_ms) = world.ending.left_ms(now_ms()) {
        put("shutdown_in_milliseconds", &left_ms);
    }
    put("hz", &config.hz);
    put("configured_hz", &config.hz);
    put("lru_clock", &((now_ms() / 1000) & 0xff_ffff));
    put(
        "executable",
        &std::env::current_exe().unwrap_or_default().display(),
    );
    put(
        "config_file",
        &world.config_path.clone().unwrap_or_default().display(),
    );
    put("io_threads_active", &0);
    put("shards", &world.links.shards());
    put("file_backend", &file::backend_in_use());
}

fn clients(world: &World, totals: &Totals, put: &mut Put<'_>) {
    let replicas = world.log.with(|log| log.replicas.len());
    put(
        "connected_clients",
        &world.client_count().saturating_sub(replicas),
    );
    put("cluster_connections", &0);
    put("maxclients", &world.config().maxclients);
    put("client_recent_max_input_buffer", &0);
    put("client_recent_max_output_buffer", &0);
    let blocked = world
        .clients()
        .iter()
        .filter(|client| client.is_blocked())
        .count();
    put("blocked_clients", &blocked);
    let (tracking, _, _, _) = world.hub.tracking.counts();
    put("tracking_clients", &tracking);
    let subscribers = world
        .clients()
        .iter()
        .filter(|client| client.is_subscriber())
        .count();
    put("pubsub_clients", &subscribers);
    put("total_watched_keys", &totals.watched);
    put("clients_in_timeout_table", &0);
    put("total_blocking_keys", &totals.awaited);
}

fn persistence(world: &World, totals: &Totals, put: &mut Put<'_>) {
    let state = world.persistence.state();
    let is_loading = world.is_loading.load(Ordering::Relaxed);
    put("loading", &u8::from(is_loading));
    let is_loading_successor = world.is_loading_successor.load(Ordering::Relaxed);
    put("async_loading", &u8::from(is_loading_successor));
    put("current_cow_peak", &0);
    put("current_cow_size", &0);
    put("current_cow_size_age", &0);
    let (keys, total, bytes) = state.current.as_ref().map_or((0, 0, 0), |progress| {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (
            load(&progress.keys),
            load(&progress.keys_total),
            load(&progress.bytes),
        )
    });
    put("current_fork_perc", &"0.00");
    put("current_save_keys_processed", &keys);
    put("current_save_keys_total", &total);
    put("current_save_bytes", &bytes);
    put(
        "current_save_perc",
        &format!("{:.2}", keys as f64 / total.max(1) as f64 * 100.0),
    );
    let current = state.current.as_ref();
    put(
        "current_save_eta_sec",
        &current.map_or(-1, |save| save.seconds_left()),
    );
    put("current_save_parked", &totals.parked);
    put("rdb_changes_since_last_save", &totals.stats.changes);
    // A snapshot for replicas is a save as well.
    let since = (state.current.iter().map(|progress| progress.started))
        .chain(world.payloads.oldest())
        .min();
    put("rdb_bgsave_in_progress", &u8::from(since.is_some()));
    put("rdb_last_save_time", &state.last_save_s);
    put(
        "rdb_last_bgsave_status",
        &if state.last_ok { "ok" } else { "err" },
    );
    put("rdb_last_bgsave_time_sec", &state.last_seconds);
    let seconds = since.map_or(-1, |since| since.elapsed().as_secs() as i64);
    put("rdb_current_bgsave_time_sec", &seconds);
    put("rdb_saves", &state.saves);
    put("rdb_last_save_bytes", &state.last_bytes);
    put(
        "rdb_last_save_error",
        &state
            .last_error
            .as_deref()
            .unwrap_or("")
            .replace(['\r', '\n'], " "),
    );
    put("rdb_last_cow_size", &0);
    put("rdb_last_load_keys_expired", &state.load_expired);
    put("rdb_last_load_keys_loaded", &state.load_keys);
    put("aof_enabled", &0);
    put("aof_rewrite_in_progress", &0);
    put("aof_rewrite_scheduled", &0);
    put("aof_last_bgrewrite_status", &"ok");
    put("aof_last_write_status", &"ok");
    if is_loading || is_loading_successor {
        let (total, read, left_s) = world.load_progress.state();
        put("loading_total_bytes", &total);
        put("loading_loaded_bytes", &read);
        // A payload that ends at a mark has no length.
        let part = match total {
            0 => 0.0,
            _ => read as f64 / total as f64 * 100.0,
        };
        put("loading_loaded_perc", &format!("{part:.2}"));
        put("loading_eta_seconds", &left_s);
    }
}

fn stats(world: &World, totals: &Totals, put: &mut Put<'_>) {
    let counters = &world.counters;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    put("total_connections_received", &load(&counters.connections));
    put("total_commands_processed", &load(&counters.commands));
    let rate = |rate: &std::sync::atomic::AtomicU64| rate.load(Ordering::Relaxed);
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    put("instantaneous_ops_per_sec", &rate(&world.rates.commands));
    let input = kilobytes(rate(&world.rates.input_bytes));
    put("instantaneous_input_kbps", &input);
    let output = kilobytes(rate(&world.rates.output_bytes));
    put("instantaneous_output_kbps", &output);
    put("total_reads_processed", &load(&counters.reads));
    put("total_writes_processed", &load(&counters.writes));
    put("total_net_input_bytes", &load(&counters.net_input));
    put("total_net_output_bytes", &load(&counters.net_output));
    put("rejected_connections", &load(&counters.rejected));
    let (full, partial_ok, partial_err) = world
        .log
        .with(|log| (log.sync_full, log.sync_partial_ok, log.sync_partial_err));
    put("sync_full", &full);
    put("sync_partial_ok", &partial_ok);
    put("sync_partial_err", &partial_err);
    let [auth, command, key, channel] = crate::command::acl::log::counters();
    put("acl_access_denied_auth", &auth);
    put("acl_access_denied_cmd", &command);
    put("acl_access_denied_key", &key);
    put("acl_access_denied_channel", &channel);
    put("expired_keys", &totals.stats.expired);
    put("expired_subkeys", &totals.stats.expired_fields);
    put("evicted_keys", &totals.stats.evicted);
    let evicted_clients = world.counters.evicted_clients.load(Ordering::Relaxed);
    put("evicted_clients", &evicted_clients);
    put("keyspace_hits", &totals.stats.hits);
    put("keyspace_misses", &totals.stats.misses);
    put("pubsub_channels", &world.hub.len(Kind::Channel));
    put("pubsub_patterns", &world.hub.len(Kind::Pattern));
    put("pubsubshard_channels", &world.hub.len(Kind::Shard));
    let (_, keys, items, prefixes) = world.hub.tracking.counts();
    put(
        "migrate_cached_sockets",
        &crate::world::MIGRATE_SOCKETS.load(Ordering::Relaxed),
    );
    put("tracking_total_keys", &keys);
    put("tracking_total_items", &items);
    put("tracking_total_prefixes", &prefixes);
    put("latest_fork_usec", &0);
    put("total_forks", &0);
    let errors: u64 = totals.commands.errors().values().sum();
    put("total_error_replies", &errors);
    put("transactions_queued", &totals.queued);
}

fn replication(world: &World, put: &mut Put<'_>) {
    let link = world.link(|link| {
        link.primary
            .clone()
            .map(|primary| (primary, link.state.clone()))
    });
    match link {
        None => put("role", &"master"),
        Some(((host, port), state)) => {
            let now = now_ms();
            let is_up = state.phase == Some(Phase::Stream);
            let is_syncing = matches!(
                state.phase,
                Some(Phase::AwaitPayload | Phase::Payload | Phase::Loading)
            );
            put("role", &"slave");
            put("master_host", &host);
            put("master_port", &port);
            put("master_link_status", &if is_up { "up" } else { "down" });
            let silence = if is_up {
                (now - state.heard_at_ms).max(0) / 1000
            } else {
                -1
            };
            put("master_last_io_seconds_ago", &silence);
            put("master_sync_in_progress", &u8::from(is_syncing));
            // While the link is down, what it had brought.
            let (end, applied) = world.log.with(|log| (log.offset(), log.applied));
            let offset = state.offset.or(applied).unwrap_or(1);
            put("slave_read_repl_offset", &if is_up { end } else { offset });
            put("slave_repl_offset", &offset);
            if is_syncing {
                let (total, read) = state.payload;
                put("master_sync_total_bytes", &total.unwrap_or(0));
                put("master_sync_read_bytes", &read);
                put(
                    "master_sync_left_bytes",
                    &total.map_or(0, |total| total.saturating_sub(read)),
                );
                put(
                    "master_sync_perc",
                    &format!(
                        "{:.2}",
                        total.map_or(0.0, |total| read as f64 / total.max(1) as f64 * 100.0)
                    ),
                );
                put(
                    "master_sync_last_io_seconds_ago",
                    &((now - state.heard_at_ms).max(0) / 1000),
                );
            }
            if !is_up {
                let down = if state.down_since_ms == 0 {
                    -1
                } else {
                    (now - state.down_since_ms) / 1000
                };
                put("master_link_down_since_seconds", &down);
            }
            let config = world.config();
            put("slave_priority", &config.replica_priority);
            put("slave_read_only", &u8::from(config.replica_read_only));
            put("replica_announced", &u8::from(config.replica_announced));
        }
    }
    world.log.with(|log| {
        put("connected_slaves", &log.replicas.len());
        for (i, replica) in log.replicas.values().enumerate() {
            let lag = if replica.state == "online" {
                replica.acked_at.elapsed().as_secs()
            } else {
                0
            };
            put(
                &format!("slave{i}"),
                &format!(
                    "ip={},port={},state={},offset={},lag={lag}",
                    replica.ip, replica.port, replica.state, replica.acked
                ),
            );
        }
        let config = world.config();
        if config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0 {
            let good = log.good_replicas(config.min_replicas_max_lag);
            put("min_slaves_good_slaves", &good);
        }
        put("master_failover_state", &world.failover().name());
        put("master_replid", &log.replid);
        put("master_replid2", &log.replid2);
        // Of a replica: what is applied, not what has arrived.
        put("master_repl_offset", &log.applied.unwrap_or(log.offset()));
        put("second_repl_offset", &log.second_offset);
        put("repl_backlog_active", &u8::from(log.backlog.is_some()));
        put("repl_backlog_size", &log.backlog_bytes);
        let (first, len) = log.backlog.as_ref().map_or((0, 0), |backlog| {
            let first = log.first().unwrap_or(backlog.start());
            (first + 1, backlog.end() - first)
        });
        put("repl_backlog_first_byte_offset", &first);
        put("repl_backlog_histlen", &len);
        let (bytes, limit, failure) = log.archive.describe();
        if limit > 0 {
            put("repl_backlog_disk_limit", &limit);
            put("repl_backlog_disk_bytes", &bytes);
            put("repl_backlog_disk_error", &failure.unwrap_or_default());
        }
    });
}

fn commandstats(totals: &Totals, put: &mut Put<'_>) {
    for (name, one) in totals.commands.commands() {
        let micros = one.nanos / 1000;
        let each = if one.calls == 0 {
            0.0
        } else {
            one.nanos as f64 / 1000.0 / one.calls as f64
        };
        put(
            &format!("cmdstat_{name}"),
            &format!(
                "calls={},usec={micros},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                one.calls, one.rejected, one.failed
            ),
        );
    }
}

fn errorstats(totals: &Totals, put: &mut Put<'_>) {
    for (code, count) in totals.commands.errors() {
        put(&format!("errorstat_{code}"), &format!("count={count}"));
    }
}

fn latencystats(world: &World, totals: &Totals, put: &mut Put<'_>) {
    let percentiles = world.config().latency_tracking_info_percentiles.clone();
    for (name, one) in totals.commands.commands() {
        if one.histogram.total() == 0 || percentiles.is_empty() {
            continue;
        }
        let told: Vec<String> = percentiles
            .iter()
            .map(|percent| format!("p{percent}={:.3}", one.histogram.percentile(*percent)))
            .collect();
        put(&format!("latency_percentiles_usec_{name}"), &told.join(","));
    }
}

fn cpu(put: &mut Put<'_>) {
    // Fields 14 and 15 behind the name in parentheses: user and system time in clock ticks.
    let times = std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|text| {
            let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
            Some((
                fields.next()?.parse::<f64>().ok()?,
                fields.next()?.parse::<f64>().ok()?,
            ))
        });
    let (user, system) = times.unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    put("used_cpu_sys", &format!("{:.6}", system / ticks));
    put("used_cpu_user", &format!("{:.6}", user / ticks));
    put("used_cpu_sys_children", &"0.000000");
    put("used_cpu_user_children", &"0.000000");
}

fn keyspace(totals: &Totals, put: &mut Put<'_>) {
    for (db, (keys, expires, ttl)) in totals
        .databases
        .iter()
        .enumerate()
        .filter(|(_, (keys, ..))| *keys > 0)
    {
        put(
            &format!("db{db}"),
            &format!("keys={keys},expires={expires},avg_ttl={ttl}"),
        );
    }
}
