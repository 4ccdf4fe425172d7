//! Configuration: one table of directives, the values in force, and typed fields for the server to read.
//!
//! `main` loads it from a file and the command line ([`load`]); CONFIG GET, SET and REWRITE work on it. The
//! server reads fields: `config.port`, `config.maxmemory_policy`.
//!
//! Invariants
//! - The texts in `values` are canonical: what CONFIG GET prints and every row's kind accepts.
//! - A typed field is always its row's value: only [`Config`] itself writes either.
//! - CONFIG SET changes everything it was asked to, or nothing.

pub mod kind;
pub mod load;
mod rewrite;
pub mod rows;
pub mod sources;
mod tls;
pub mod words;

use std::collections::HashMap;
use std::sync::OnceLock;

use dfsnap_formats::glob;
use dfsnap_tls::ClientAuth;

/// The Redis version whose commands and replies these are.
pub const REDIS_VERSION: &str = "7.2.5";
/// The newest RDB version that this server loads.
pub const RDB_VERSION_MAX: u16 = 12;

pub use tls::TlsUnconfigured;

use rows::{Access, ROWS, Row};
use words::{
    AclPubsub, EventClasses, FromText, IoBackend, LogLevel, MaxmemoryPolicy, MemoryLimit,
    OomScoreAdj, OutputLimits, PrimaryAddress, Privilege, ReplDisklessLoad, SaveRule,
    ShutdownFlags, SnapshotCompression,
};

macro_rules! config {
    ($($field:ident : $type:ty = $name:literal;)*) => {
        /// The configuration in force. Fields are for reading; [`Config::set`] and [`Config::store`] write.
        #[derive(Debug, Clone)]
        pub struct Config {
            $(pub $field: $type,)*
            /// `rename-command` lines: old name, new name (empty: the command is gone).
            pub renamed_commands: Vec<(String, String)>,
            /// `user` lines, their words.
            pub users: Vec<Vec<String>>,
            /// `loadmodule` lines, their words.
            pub modules: Vec<Vec<String>>,
            /// Canonical texts, one a row.
            values: Vec<String>,
            /// What the configuration file says, includes and all: CONFIG REWRITE writes the difference.
            file_values: Vec<String>,
        }

        /// Rows that a field exists for; the others are read as texts, or accepted, kept and shown.
        static FIELDS: &[&str] = &[$($name),*];

        impl Config {
            fn from_values(values: Vec<String>) -> Config {
                Config {
                    $($field: typed(&values, $name),)*
                    renamed_commands: Vec::new(),
                    users: Vec::new(),
                    modules: Vec::new(),
                    file_values: values.clone(),
                    values,
                }
            }

            fn refresh(&mut self) {
                $(self.$field = typed(&self.values, $name);)*
            }
        }
    };
}

config! {
    threads: usize = "threads";
    io_backend: IoBackend = "io-backend";
    snapshot_buffer_limit: u64 = "snapshot-buffer-limit";
    snapshot_rate_limit: u64 = "snapshot-rate-limit";
    snapshot_cpu_share: u32 = "snapshot-cpu-share";
    rdb_key_save_delay: i64 = "rdb-key-save-delay";
    key_load_delay: i64 = "key-load-delay";
    snapshot_min_free: u64 = "snapshot-min-free";
    snapshot_compression: SnapshotCompression = "snapshot-compression";
    snapshot_cron: Option<String> = "snapshot-cron";
    snapshot_dirs: Vec<String> = "snapshot-dirs";
    snapshot_keep: usize = "snapshot-keep";
    snapshot_keep_seconds: u64 = "snapshot-keep-seconds";
    df_snapshot_format: bool = "df-snapshot-format";
    shutdown_save_timeout: u64 = "shutdown-save-timeout";
    load_lenient: bool = "load-lenient";
    strict_config: bool = "strict-config";

    bind: Vec<String> = "bind";
    bind_source_addr: Option<String> = "bind-source-addr";
    port: u16 = "port";
    unixsocket: Option<String> = "unixsocket";
    tcp_backlog: u32 = "tcp-backlog";
    tcp_keepalive: u64 = "tcp-keepalive";
    timeout: u64 = "timeout";
    maxclients: u32 = "maxclients";
    protected_mode: bool = "protected-mode";
    proto_max_bulk_len: usize = "proto-max-bulk-len";
    client_query_buffer_limit: usize = "client-query-buffer-limit";
    client_output_buffer_limit: OutputLimits = "client-output-buffer-limit";
    maxmemory_clients: MemoryLimit = "maxmemory-clients";

    daemonize: bool = "daemonize";
    pidfile: Option<String> = "pidfile";
    loglevel: LogLevel = "loglevel";
    logfile: Option<String> = "logfile";
    crash_log_enabled: bool = "crash-log-enabled";
    set_proc_title: bool = "set-proc-title";
    proc_title_template: String = "proc-title-template";
    oom_score_adj: OomScoreAdj = "oom-score-adj";
    oom_score_adj_values: [i64; 3] = "oom-score-adj-values";
    hz: u32 = "hz";
    shutdown_timeout: u64 = "shutdown-timeout";
    shutdown_on_sigint: ShutdownFlags = "shutdown-on-sigint";
    shutdown_on_sigterm: ShutdownFlags = "shutdown-on-sigterm";
    enable_protected_configs: Privilege = "enable-protected-configs";
    enable_debug_command: Privilege = "enable-debug-command";
    enable_module_command: Privilege = "enable-module-command";
    databases: u32 = "databases";

    requirepass: Option<String> = "requirepass";
    aclfile: Option<String> = "aclfile";
    acl_pubsub_default: AclPubsub = "acl-pubsub-default";
    acllog_max_len: usize = "acllog-max-len";

    maxmemory: u64 = "maxmemory";
    maxmemory_policy: MaxmemoryPolicy = "maxmemory-policy";
    maxmemory_samples: u32 = "maxmemory-samples";
    maxmemory_eviction_tenacity: u32 = "maxmemory-eviction-tenacity";
    lfu_log_factor: u32 = "lfu-log-factor";
    lfu_decay_time: u32 = "lfu-decay-time";
    lazyfree_lazy_eviction: bool = "lazyfree-lazy-eviction";
    lazyfree_lazy_expire: bool = "lazyfree-lazy-expire";
    tracking_table_max_keys: u64 = "tracking-table-max-keys";

    hash_max_listpack_entries: usize = "hash-max-listpack-entries";
    hash_max_listpack_value: usize = "hash-max-listpack-value";
    set_max_intset_entries: usize = "set-max-intset-entries";
    set_max_listpack_entries: usize = "set-max-listpack-entries";
    set_max_listpack_value: usize = "set-max-listpack-value";
    zset_max_listpack_entries: usize = "zset-max-listpack-entries";
    zset_max_listpack_value: usize = "zset-max-listpack-value";
    list_max_listpack_size: i32 = "list-max-listpack-size";
    stream_node_max_bytes: usize = "stream-node-max-bytes";
    stream_node_max_entries: usize = "stream-node-max-entries";
    hll_sparse_max_bytes: usize = "hll-sparse-max-bytes";

    save: Vec<SaveRule> = "save";
    dir: String = "dir";
    dbfilename: String = "dbfilename";
    rdbcompression: bool = "rdbcompression";
    rdbchecksum: bool = "rdbchecksum";
    stop_writes_on_bgsave_error: bool = "stop-writes-on-bgsave-error";


    replicaof: Option<PrimaryAddress> = "replicaof";
    masterauth: Option<String> = "masterauth";
    masteruser: Option<String> = "masteruser";
    replica_serve_stale_data: bool = "replica-serve-stale-data";
    replica_read_only: bool = "replica-read-only";
    replica_priority: u32 = "replica-priority";
    replica_announced: bool = "replica-announced";
    replica_announce_ip: Option<String> = "replica-announce-ip";
    replica_announce_port: u16 = "replica-announce-port";
    replica_ignore_maxmemory: bool = "replica-ignore-maxmemory";
    repl_diskless_sync: bool = "repl-diskless-sync";
    repl_diskless_sync_delay: u64 = "repl-diskless-sync-delay";
    repl_diskless_sync_max_replicas: u32 = "repl-diskless-sync-max-replicas";
    repl_diskless_load: ReplDisklessLoad = "repl-diskless-load";
    repl_ping_replica_period: u64 = "repl-ping-replica-period";
    repl_timeout: u64 = "repl-timeout";
    repl_backlog_size: u64 = "repl-backlog-size";
    repl_backlog_disk_limit: u64 = "repl-backlog-disk-limit";
    repl_backlog_ttl: u64 = "repl-backlog-ttl";
    min_replicas_to_write: u32 = "min-replicas-to-write";
    min_replicas_max_lag: u64 = "min-replicas-max-lag";

    cluster_enabled: bool = "cluster-enabled";

    tls_port: u16 = "tls-port";
    tls_cert_file: Option<String> = "tls-cert-file";
    tls_key_file: Option<String> = "tls-key-file";
    tls_key_file_pass: Option<String> = "tls-key-file-pass";
    tls_client_cert_file: Option<String> = "tls-client-cert-file";
    tls_client_key_file: Option<String> = "tls-client-key-file";
    tls_client_key_file_pass: Option<String> = "tls-client-key-file-pass";
    tls_ca_cert_file: Option<String> = "tls-ca-cert-file";
    tls_ca_cert_dir: Option<String> = "tls-ca-cert-dir";
    tls_auth_clients: ClientAuth = "tls-auth-clients";
    tls_replication: bool = "tls-replication";
    tls_cluster: bool = "tls-cluster";
    tls_protocols: String = "tls-protocols";
    tls_ciphers: String = "tls-ciphers";
    tls_ciphersuites: String = "tls-ciphersuites";
    tls_prefer_server_ciphers: bool = "tls-prefer-server-ciphers";
    tls_session_caching: bool = "tls-session-caching";
    tls_session_cache_size: usize = "tls-session-cache-size";
    tls_session_cache_timeout: u64 = "tls-session-cache-timeout";

    notify_keyspace_events: EventClasses = "notify-keyspace-events";
    slowlog_log_slower_than: i64 = "slowlog-log-slower-than";
    slowlog_max_len: usize = "slowlog-max-len";
    latency_monitor_threshold: u64 = "latency-monitor-threshold";
    latency_tracking: bool = "latency-tracking";
    latency_tracking_info_percentiles: Vec<f64> = "latency-tracking-info-percentiles";
    busy_reply_threshold: u64 = "busy-reply-threshold";
    watchdog_period: u64 = "watchdog-period";
}

/// Rows without a field that are read where they are needed, as texts.
const READ_AS_TEXTS: [&str; 10] = [
    "cluster-announce-bus-port",
    "cluster-announce-hostname",
    "cluster-announce-ip",
    "cluster-announce-port",
    "cluster-announce-tls-port",
    "cluster-config-file",
    "cluster-port",
    "cluster-preferred-endpoint-type",
    "supervised",
    "unixsocketperm",
];

/// Shown to those alone who know the name, as in Redis.
const HIDDEN: [&str; 4] = [
    "rdb-key-save-delay",
    "key-load-delay",
    "loading-process-events-interval-bytes",
    "watchdog-period",
];

/// The typed value of a row.
fn typed<T: FromText>(values: &[String], name: &str) -> T {
    let text =
        &values[row_index(name).unwrap_or_else(|| panic!("no row for the field of {name:?}"))];
    T::from_text(text)
        .unwrap_or_else(|| panic!("{name}: its kind accepted {text:?}, its field does not"))
}

/// The row of a name or an alias, in any case.
pub fn row_index(name: &str) -> Option<usize> {
    static NAMES: OnceLock<HashMap<&str, usize>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let rows = ROWS.iter().enumerate();
        rows.flat_map(|(at, row)| {
            [Some(row.name), row.alias]
                .into_iter()
                .flatten()
                .map(move |n| (n, at))
        })
        .collect()
    });
    match names.get(name) {
        Some(&at) => Some(at),
        None => names.get(name.to_ascii_lowercase().as_str()).copied(),
    }
}

impl Row {
    /// Does the server read it? If not it is accepted, kept and shown, and changes nothing.
    pub fn has_effect(&self) -> bool {
        FIELDS.contains(&self.name) || READ_AS_TEXTS.contains(&self.name)
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::from_values(ROWS.iter().map(|row| row.default.to_owned()).collect())
    }
}

impl Config {
    /// CONFIG GET: names and values that match any of the patterns, aliases too, each name once.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(&'static str, &str)> {
        let is_wanted = |name: &str| {
            patterns
                .iter()
                .any(|p| glob::matches_ignoring_case(p, name.as_bytes()))
        };
        self.to_pairs()
            .into_iter()
            .filter(|(name, _)| is_wanted(name))
            .filter(|(name, _)| {
                let is_named = |pattern: &&[u8]| pattern.eq_ignore_ascii_case(name.as_bytes());
                !HIDDEN.contains(name) || patterns.iter().any(is_named)
            })
            .collect()
    }

    /// Every name, aliases too, with its value.
    pub fn to_pairs(&self) -> Vec<(&'static str, &str)> {
        let rows = ROWS.iter().zip(&self.values);
        rows.flat_map(|(row, value)| {
            [Some(row.name), row.alias]
                .into_iter()
                .flatten()
                .map(move |name| (name, value.as_str()))
        })
        .collect()
    }

    /// The value of one directive.
    pub fn value(&self, name: &str) -> Option<&str> {
        row_index(name).map(|at| self.values[at].as_str())
    }

    /// CONFIG SET: all pairs or none. Returns the rows whose value changed, so that the server can act on them;
    /// when acting fails it goes back to a clone and answers with [`set_failed`]. The error is the whole reply,
    /// its code included. `is_local`: the client is on this machine.
    pub fn set(
        &mut self,
        pairs: &[(&str, &str)],
        is_local: bool,
    ) -> Result<Vec<&'static str>, String> {
        let rows = self.settable(pairs, is_local)?;
        let mut values = self.values.clone();
        for (&(name, value), at) in pairs.iter().zip(rows) {
            let kind = &ROWS[at].kind;
            let words: Vec<&str> = match kind.has_words() {
                true => value.split(' ').filter(|word| !word.is_empty()).collect(),
                false => vec![value],
            };
            values[at] = kind
                .canonical(&words, &values[at])
                .map_err(|reason| set_failed(name, &reason))?;
            if ROWS[at].access == Access::Kept && values[at] != self.values[at] {
                return Err(set_failed(name, IMMUTABLE));
            }
            if ROWS[at].name == "activedefrag" && values[at] == "yes" {
                return Err(set_failed(name, NO_DEFRAGMENTATION));
            }
        }
        let changed = (0..values.len())
            .filter(|&at| values[at] != self.values[at])
            .map(|at| ROWS[at].name)
            .collect();
        self.values = values;
        self.refresh();
        Ok(changed)
    }

    /// The rows of `pairs`, if a client may set them all.
    fn settable(&self, pairs: &[(&str, &str)], is_local: bool) -> Result<Vec<usize>, String> {
        let mut rows = Vec::with_capacity(pairs.len());
        for (i, &(name, _)) in pairs.iter().enumerate() {
            let Some(at) = row_index(name) else {
                return Err(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                ));
            };
            match ROWS[at].access {
                Access::Fixed => return Err(set_failed(name, IMMUTABLE)),
                Access::Guarded if !self.enable_protected_configs.allows(is_local) => {
                    return Err(set_failed(name, "can't set protected config"));
                }
                _ => {}
            }
            // A name and its alias are two names; the later one wins.
            if pairs[..i]
                .iter()
                .any(|(earlier, _)| earlier.eq_ignore_ascii_case(name))
            {
                return Err(set_failed(name, "duplicate parameter"));
            }
            rows.push(at);
        }
        Ok(rows)
    }

    /// Sets what the server itself decides (REPLICAOF, a folder made absolute), whoever may set it.
    pub fn store(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        let at = row_index(name).ok_or_else(|| format!("unknown directive {name:?}"))?;
        self.values[at] = ROWS[at].kind.canonical(words, &self.values[at])?;
        self.refresh();
        Ok(())
    }
}

/// Why a directive stays as it is.
const IMMUTABLE: &str = "can't set immutable config";

/// As Redis says it where its allocator is the system's, as Debian's is. A configuration file may ask for it: then nothing comes of it.
const NO_DEFRAGMENTATION: &str = "Active defragmentation cannot be enabled: it requires a Redis server compiled with a modified \
     Jemalloc like the one shipped by default with the Redis source distribution";

/// The reply to a CONFIG SET that failed because of one of its names.
pub fn set_failed(name: &str, reason: &str) -> String {
    let name = name.to_ascii_lowercase();
    format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
}

/// The list of directives for `--help`: name, default, what it is for.
pub fn help() -> String {
    let mut text = String::new();
    for row in ROWS {
        let default = kind::quoted(row.default);
        let note = if row.has_effect() { "" } else { " (no effect)" };
        text.push_str(&format!(
            "  --{} {default}\n        {}{note}\n",
            row.name, row.help
        ));
    }
    text
}

#[cfg(test)]
mod tests;
