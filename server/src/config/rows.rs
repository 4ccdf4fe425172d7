//! The table of directives: every name of Redis 7.2 and our own.
//!
//! One row says it all: may CONFIG SET change it, its names, its kind with limits, its default as CONFIG GET
//! prints it, and what it is for. `--help`, CONFIG and the parser of configuration files read it from here.

use super::kind::Kind;
use super::words::{
    AclPubsub, AppendFsync, IoBackend, LogLevel, MaxmemoryPolicy, OomScoreAdj, Privilege,
    PropagationErrors, ReplDisklessLoad, SanitizeDump, SnapshotCompression,
};

/// Who may change a directive while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// CONFIG SET.
    Set,
    /// The configuration file and the command line only.
    Fixed,
    /// As `Fixed`, but CONFIG SET takes the value that is there. A directive of ours: who puts back all that CONFIG GET shows leaves out
    /// what Redis cannot set, and does not know these.
    Kept,
    /// As `Set`, if `enable-protected-configs` allows it.
    Guarded,
}

/// One directive.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// An older or a newer name; CONFIG GET with a pattern shows both.
    pub alias: Option<&'static str>,
    pub access: Access,
    pub kind: Kind,
    /// In the form CONFIG GET prints.
    pub default: &'static str,
    pub help: &'static str,
}

macro_rules! rows {
    ($($access:ident $name:literal $(| $alias:literal)? : $kind:expr, $default:literal, $help:literal;)*) => {
        &[$(Row {
            name: $name,
            alias: rows!(@alias $($alias)?),
            access: Access::$access,
            kind: $kind,
            default: $default,
            help: $help,
        }),*]
    };
    (@alias) => { None };
    (@alias $alias:literal) => { Some($alias) };
}

const YES_NO: Kind = Kind::Bool;
const TEXT: Kind = Kind::Text;
const PORT: Kind = Kind::Int { min: 0, max: 65535 };
const INT: Kind = Kind::Int {
    min: 0,
    max: i32::MAX as i64,
};
const INT_FROM_1: Kind = Kind::Int {
    min: 1,
    max: i32::MAX as i64,
};
const LONG: Kind = Kind::Int {
    min: 0,
    max: i64::MAX,
};
const BYTES: Kind = Kind::Memory { min: 0 };
const SIGNAL: Kind = Kind::Flags(&["default", "save", "nosave", "now", "force"]);

/// All directives, by subject.
#[rustfmt::skip]
pub static ROWS: &[Row] = rows! {
    // Ours
    Kept "threads": Kind::Int { min: 0, max: 1024 }, "0", "shard threads; 0 means one per core";
    Set "io-backend": Kind::Enum(IoBackend::NAMES), "auto", "how files are read and written: io_uring, blocking threads, or the better one that works here; the next save follows a change";
    Set "snapshot-buffer-limit": Kind::Memory { min: 64 << 10 }, "67108864", "bytes a snapshot may hold in memory, per shard; writes to entries not saved yet wait beyond it";
    Set "rdb-key-save-delay": Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 }, "0", "microseconds that a save takes for each key at least, for tests of slow saves";
    Set "key-load-delay": Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 }, "0", "microseconds that a load waits behind each key, for tests of slow loads";
    Set "loading-process-events-interval-bytes": Kind::Int { min: 1024, max: i32::MAX as i64 }, "2097152", "accepted for tests of Redis; clients are served all the time here";
    Set "snapshot-rate-limit": BYTES, "0", "bytes a second that a save adds to its files, all shards together; 0 means no limit";
    Set "snapshot-cpu-share": Kind::Int { min: 1, max: 100 }, "50", "percent of a busy shard's time that the walk of a save takes at most; on an idle shard it takes all";
    Set "snapshot-min-free": BYTES, "0", "bytes that a save leaves free on its device; it is not begun, or is given up, where that cannot be";
    Set "snapshot-compression": Kind::Enum(SnapshotCompression::NAMES), "lz4", "how blobs of DFS files are compressed";
    Set "snapshot-cron": Kind::Cron, "", "when to save, as in crontab with local time: minute hour day month weekday; empty means never";
    Kept "snapshot-dirs": Kind::Directories, "", "directories that the shards' files of DFS sets go to in turn, so that several devices share the writing; empty means `dir`";
    Set "snapshot-keep": INT, "0", "snapshots with the time in their name that stay, the newest; 0 means all";
    Set "snapshot-keep-seconds": LONG, "0", "age beyond which such a snapshot is removed after a good save; 0 means none";
    Set "df-snapshot-format": YES_NO, "no", "save DFS sets, a file for each shard, where SAVE and BGSAVE do not say which";
    Set "shutdown-save-timeout": INT, "0", "seconds that ending the server may take to save; beyond that it goes on running; 0 means any";
    Kept "load-lenient": YES_NO, "no", "load what can be read of a damaged or incomplete snapshot, and log what was lost";
    Kept "strict-config": YES_NO, "no", "refuse to start on an unknown directive instead of warning";

    // Network
    Set "bind": Kind::Bind, "* -::*", "addresses to listen on; one with a leading `-` may be missing on this machine";
    Set "bind-source-addr": TEXT, "", "address that outgoing connections come from";
    Set "port": PORT, "6379", "port to listen on; 0 listens on none";
    Fixed "unixsocket": TEXT, "", "path of a Unix socket to listen on as well";
    Fixed "unixsocketperm": Kind::Octal { max: 0o777 }, "0", "permissions of the Unix socket, octal; 0 leaves them to the umask";
    Fixed "tcp-backlog": INT, "511", "connections that may wait to be accepted";
    Set "tcp-keepalive": INT, "300", "seconds between probes of silent connections; 0 sends none";
    Set "timeout": INT, "0", "seconds after which an idle client is disconnected; 0 means never";
    Set "maxclients": Kind::Int { min: 1, max: u32::MAX as i64 }, "10000", "client connections at a time";
    Set "protected-mode": YES_NO, "yes", "without a password, accept connections from this machine only";
    Fixed "socket-mark-id": Kind::Int { min: 0, max: u32::MAX as i64 }, "0", "mark put on listening sockets for the packet filter; 0 puts none";
    Set "proto-max-bulk-len": Kind::Memory { min: 1 << 20 }, "536870912", "longest single word of a request, and longest string";
    Set "client-query-buffer-limit": Kind::Memory { min: 1 << 20 }, "1073741824", "bytes of an unfinished request before its client is disconnected";
    Set "client-output-buffer-limit": Kind::OutputLimits, "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", "class, hard limit, soft limit, seconds: unsent bytes before a client is disconnected";
    Set "maxmemory-clients": Kind::MemoryOrPercent, "0", "memory of all clients together before the largest are disconnected; 0 means no limit";
    Fixed "io-threads": Kind::Int { min: 1, max: 128 }, "1", "accepted for compatibility; see `threads`";
    Fixed "io-threads-do-reads": YES_NO, "no", "accepted for compatibility; shard threads read their connections";

    // Process
    Fixed "daemonize": YES_NO, "no", "run in the background";
    Fixed "supervised": Kind::Enum(&["upstart", "systemd", "auto", "no"]), "no", "tell this supervisor when the server is ready";
    Fixed "pidfile": TEXT, "", "file that holds the process id while the server runs";
    Set "loglevel": Kind::Enum(LogLevel::NAMES), "notice", "least severe lines that are logged";
    Fixed "logfile": TEXT, "", "file to log to; empty logs to standard output";
    Fixed "syslog-enabled": YES_NO, "no", "log to syslog as well";
    Fixed "syslog-ident": TEXT, "redis", "name in syslog lines";
    Fixed "syslog-facility": Kind::Enum(&["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"]), "local0", "syslog facility";
    Set "crash-log-enabled": YES_NO, "yes", "log what a crash was doing";
    Set "crash-memcheck-enabled": YES_NO, "yes", "test memory after a crash";
    Fixed "always-show-logo": YES_NO, "no", "print a logo at start";
    Fixed "set-proc-title": YES_NO, "yes", "change the process title to show role and port";
    Set "proc-title-template": Kind::Title, "{title} {listen-addr} {server-mode}", "what the process title says";
    Set "locale-collate": TEXT, "", "locale whose order SORT uses for text; empty takes it from the environment";
    Fixed "disable-thp": YES_NO, "yes", "turn transparent huge pages off for this process";
    Set "oom-score-adj": Kind::Enum(OomScoreAdj::NAMES), "no", "tell the kernel whom to kill first when memory runs out";
    Set "oom-score-adj-values": Kind::ScoreAdjustments, "0 200 800", "score adjustment of primary, replica, background work";
    Fixed "server-cpulist" | "server_cpulist": TEXT, "", "CPUs of the serving threads";
    Fixed "bio-cpulist" | "bio_cpulist": TEXT, "", "CPUs of background threads";
    Fixed "aof-rewrite-cpulist" | "aof_rewrite_cpulist": TEXT, "", "CPUs of the rewrite of append-only files";
    Fixed "bgsave-cpulist" | "bgsave_cpulist": TEXT, "", "CPUs of background saves";
    Set "ignore-warnings": TEXT, "", "kernel warnings that do not stop the start";
    Set "hz": Kind::Rounds, "10", "rounds of background work a second, 1 to 500";
    Set "dynamic-hz": YES_NO, "yes", "more rounds when there are many clients";
    Set "shutdown-timeout": INT, "10", "seconds that a shutdown waits for replicas to catch up";
    Set "shutdown-on-sigint": SIGNAL, "default", "what SIGINT does, in words of the SHUTDOWN command";
    Set "shutdown-on-sigterm": SIGNAL, "default", "what SIGTERM does, in words of the SHUTDOWN command";
    Fixed "enable-protected-configs": Kind::Enum(Privilege::NAMES), "no", "may CONFIG SET change dir and dbfilename: no, yes, or from this machine";
    Fixed "enable-debug-command": Kind::Enum(Privilege::NAMES), "no", "is DEBUG allowed: no, yes, or from this machine";
    Fixed "enable-module-command": Kind::Enum(Privilege::NAMES), "no", "is MODULE allowed: no, yes, or from this machine";
    Fixed "databases": INT_FROM_1, "16", "number of databases for SELECT";

    // Access
    Set "requirepass": TEXT, "", "password of the default user; empty asks for none";
    Fixed "aclfile": TEXT, "", "file with the users";
    Set "acl-pubsub-default": Kind::Enum(AclPubsub::NAMES), "resetchannels", "channels a new user may use";
    Set "acllog-max-len": LONG, "128", "entries that ACL LOG keeps";

    // Memory
    Set "maxmemory": BYTES, "0", "bytes of data before keys are evicted or writes refused; 0 means no limit";
    Set "maxmemory-policy": Kind::Enum(MaxmemoryPolicy::NAMES), "noeviction", "which keys go when memory is full";
    Set "maxmemory-samples": INT_FROM_1, "5", "keys looked at for each eviction";
    Set "maxmemory-eviction-tenacity": Kind::Int { min: 0, max: 100 }, "10", "how long one round of eviction may take; 100 means until it is done";
    Set "lfu-log-factor": INT, "10", "how slowly the access counter grows";
    Set "lfu-decay-time": INT, "1", "minutes after which the access counter loses one; 0 means never";
    Set "active-expire-effort": Kind::Int { min: 1, max: 10 }, "1", "how much work goes into finding expired keys";
    Set "lazyfree-lazy-eviction": YES_NO, "no", "propagate evictions as UNLINK and free in the background";
    Set "lazyfree-lazy-expire": YES_NO, "no", "propagate expiry as UNLINK and free in the background";
    Set "lazyfree-lazy-server-del": YES_NO, "no", "free in the background what commands replace";
    Set "lazyfree-lazy-user-del": YES_NO, "no", "let DEL free in the background";
    Set "lazyfree-lazy-user-flush": YES_NO, "no", "let FLUSHALL and FLUSHDB without an option free in the background";
    Set "tracking-table-max-keys": LONG, "1000000", "keys remembered for client-side caches";
    Set "activerehashing": YES_NO, "yes", "accepted for compatibility; tables here never rehash as a whole";
    Set "activedefrag": YES_NO, "no", "move values to give fragmented memory back";
    Set "active-defrag-ignore-bytes": Kind::Memory { min: 1 }, "104857600", "fragmentation that starts no defragmentation";
    Set "active-defrag-threshold-lower": Kind::Int { min: 0, max: 1000 }, "10", "percent of fragmentation that starts it";
    Set "active-defrag-threshold-upper": Kind::Int { min: 0, max: 1000 }, "100", "percent of fragmentation that gets full effort";
    Set "active-defrag-cycle-min": Kind::Int { min: 1, max: 99 }, "1", "percent of CPU at the lower threshold";
    Set "active-defrag-cycle-max": Kind::Int { min: 1, max: 99 }, "25", "percent of CPU at the upper threshold";
    Set "active-defrag-max-scan-fields": Kind::Int { min: 1, max: i64::MAX }, "1000", "elements of a collection above which it is done in parts";
    Set "jemalloc-bg-thread": YES_NO, "yes", "let the allocator give memory back in the background";

    // Encodings
    Set "hash-max-listpack-entries" | "hash-max-ziplist-entries": LONG, "512", "fields of a hash that stays one block";
    Set "hash-max-listpack-value" | "hash-max-ziplist-value": BYTES, "64", "longest field or value of a hash that stays one block";
    Set "set-max-intset-entries": LONG, "512", "members of a set of integers that stays one array";
    Set "set-max-listpack-entries": LONG, "128", "members of a set that stays one block";
    Set "set-max-listpack-value": BYTES, "64", "longest member of a set that stays one block";
    Set "zset-max-listpack-entries" | "zset-max-ziplist-entries": LONG, "128", "members of a sorted set that stays one block";
    Set "zset-max-listpack-value" | "zset-max-ziplist-value": BYTES, "64", "longest member of a sorted set that stays one block";
    Set "list-max-listpack-size" | "list-max-ziplist-size": Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 }, "-2", "elements in a block of a list; -1 to -5 mean 4, 8, 16, 32, 64 KB";
    Set "list-compress-depth": INT, "0", "blocks at each end of a list that are not compressed; 0 compresses none";
    Set "stream-node-max-bytes": BYTES, "4096", "bytes of a block of a stream; 0 means no limit";
    Set "stream-node-max-entries": LONG, "100", "entries of a block of a stream; 0 means no limit";
    Set "hll-sparse-max-bytes": BYTES, "3000", "bytes of a sparse HyperLogLog before it becomes dense";

    // Snapshots
    Set "save": Kind::Save, "3600 1 300 100 60 10000", "seconds and changes after which a snapshot is taken; empty takes none";
    Guarded "dir": TEXT, ".", "folder of all files that are written";
    Guarded "dbfilename": Kind::FileName, "dump.rdb", "name of the snapshot file";
    Set "rdbcompression": YES_NO, "yes", "compress strings in snapshots";
    Fixed "rdbchecksum": YES_NO, "yes", "write and verify the checksum of snapshots";
    Set "sanitize-dump-payload": Kind::Enum(SanitizeDump::NAMES), "no", "check every element of loaded values: no, yes, or those that clients restore";
    Set "rdb-del-sync-files": YES_NO, "no", "remove files made for full resyncs when nothing else needs them";
    Set "rdb-save-incremental-fsync": YES_NO, "yes", "sync a snapshot as it grows";
    Set "stop-writes-on-bgsave-error": YES_NO, "yes", "refuse writes while the last snapshot failed";

    // Append-only files
    Set "appendonly": YES_NO, "no", "log every write to append-only files";
    Fixed "appendfilename": Kind::FileName, "appendonly.aof", "base name of append-only files";
    Fixed "appenddirname": Kind::FileName, "appendonlydir", "folder of append-only files";
    Set "appendfsync": Kind::Enum(AppendFsync::NAMES), "everysec", "when append-only files are synced";
    Set "no-appendfsync-on-rewrite": YES_NO, "no", "do not sync while a snapshot or rewrite is written";
    Set "auto-aof-rewrite-percentage": INT, "100", "growth in percent that starts a rewrite; 0 starts none";
    Set "auto-aof-rewrite-min-size": BYTES, "67108864", "size below which no rewrite starts by itself";
    Set "aof-load-truncated": YES_NO, "yes", "load append-only files that end in the middle of a command";
    Set "aof-use-rdb-preamble": YES_NO, "yes", "rewrite to the snapshot format";
    Set "aof-timestamp-enabled": YES_NO, "no", "write the time into append-only files";
    Set "aof-rewrite-incremental-fsync": YES_NO, "yes", "sync a rewrite as it grows";
    Set "aof-disable-auto-gc": YES_NO, "no", "keep old append-only files";

    // Replication
    Fixed "replicaof" | "slaveof": Kind::ReplicaOf, "", "host and port of the primary to follow";
    Set "masterauth": TEXT, "", "password for the primary";
    Set "masteruser": TEXT, "", "user for the primary; empty means the default user";
    Set "replica-serve-stale-data" | "slave-serve-stale-data": YES_NO, "yes", "answer from old data while the link to the primary is down";
    Set "replica-read-only" | "slave-read-only": YES_NO, "yes", "refuse writes of clients on a replica";
    Set "replica-lazy-flush" | "slave-lazy-flush": YES_NO, "no", "free old data in the background in a full resync";
    Set "replica-priority" | "slave-priority": INT, "100", "Sentinel promotes the lowest first; 0 is never promoted";
    Set "replica-announced": YES_NO, "yes", "shown to clients by Sentinel";
    Set "replica-announce-ip" | "slave-announce-ip": TEXT, "", "address told to the primary instead of the real one";
    Set "replica-announce-port" | "slave-announce-port": PORT, "0", "port told to the primary instead of the real one";
    Set "replica-ignore-maxmemory" | "slave-ignore-maxmemory": YES_NO, "yes", "leave eviction to the primary";
    Set "replica-ignore-disk-write-errors": YES_NO, "no", "go on following although the disk cannot be written";
    Set "repl-diskless-sync": YES_NO, "yes", "stream snapshots to replicas instead of sending a file";
    Set "repl-diskless-sync-delay": INT, "5", "seconds to wait for more replicas before a snapshot is streamed";
    Set "repl-diskless-sync-max-replicas": INT, "0", "replicas that end the wait; 0 means wait all the time";
    Set "repl-diskless-load": Kind::Enum(ReplDisklessLoad::NAMES), "disabled", "load a full resync from the socket: never, when empty, or beside the old data";
    Set "repl-ping-replica-period" | "repl-ping-slave-period": INT_FROM_1, "10", "seconds between pings to replicas";
    Set "repl-timeout": INT_FROM_1, "60", "seconds of silence that end a replication link";
    Set "repl-disable-tcp-nodelay": YES_NO, "no", "let the kernel gather small packets to replicas";
    Set "repl-backlog-size": Kind::Backlog, "1048576", "bytes of the stream kept for replicas that come back";
    Set "repl-backlog-disk-limit": BYTES, "0", "bytes of files for what does not fit into repl-backlog-size; 0 means none";
    Set "repl-backlog-ttl": LONG, "3600", "seconds without replicas after which the backlog goes; 0 keeps it";
    Set "min-replicas-to-write" | "min-slaves-to-write": INT, "0", "replicas that must be near before writes are accepted";
    Set "min-replicas-max-lag" | "min-slaves-max-lag": INT, "10", "seconds since its last acknowledgement that make a replica near";
    Set "propagation-error-behavior": Kind::Enum(PropagationErrors::NAMES), "ignore", "what a command that fails in the stream does";
    Set "close-on-replica-write": YES_NO, "yes", "disconnect a replica whose socket cannot be written";

    // Observing
    Set "notify-keyspace-events": Kind::Events, "", "classes of keyspace events that are published";
    Set "slowlog-log-slower-than": Kind::Int { min: -1, max: i64::MAX }, "10000", "microseconds that make a command slow; -1 logs none, 0 all";
    Set "slowlog-max-len": LONG, "128", "entries that SLOWLOG keeps";
    Set "latency-monitor-threshold": LONG, "0", "milliseconds that make an event worth keeping; 0 keeps none";
    Set "latency-tracking": YES_NO, "yes", "measure the latency of each command";
    Set "latency-tracking-info-percentiles": Kind::Percentiles, "50 99 99.9", "percentiles shown in INFO";
    Set "busy-reply-threshold" | "lua-time-limit": LONG, "5000", "milliseconds after which a script may be interrupted";
    Set "watchdog-period": INT, "0", "milliseconds for which a shard may be held up before the log tells by what; 0 watches none";

    // Cluster
    Fixed "cluster-enabled": YES_NO, "no", "be a node of a cluster";
    Fixed "cluster-config-file": Kind::FileName, "nodes.conf", "file with the state of the cluster";
    Set "cluster-node-timeout": LONG, "15000", "milliseconds after which a silent node counts as failed";
    Fixed "cluster-port": PORT, "0", "port of the cluster bus; 0 means port + 10000";
    Set "cluster-announce-ip": TEXT, "", "address told to other nodes";
    Set "cluster-announce-port": PORT, "0", "port told to other nodes";
    Set "cluster-announce-tls-port": PORT, "0", "TLS port told to other nodes";
    Set "cluster-announce-bus-port": PORT, "0", "bus port told to other nodes";
    Set "cluster-announce-hostname": Kind::HostName, "", "host name told to other nodes";
    Set "cluster-announce-human-nodename": Kind::HostName, "", "name of this node in logs";
    Set "cluster-preferred-endpoint-type": Kind::Enum(&["ip", "hostname", "unknown-endpoint"]), "ip", "how redirections name a node";
    Set "cluster-migration-barrier": INT, "1", "replicas that a primary keeps when one moves away";
    Set "cluster-allow-replica-migration": YES_NO, "yes", "let replicas move to primaries without one";
    Set "cluster-replica-validity-factor" | "cluster-slave-validity-factor": INT, "10", "how old a replica's data may be for a failover";
    Set "cluster-replica-no-failover" | "cluster-slave-no-failover": YES_NO, "no", "never start a failover here";
    Set "cluster-require-full-coverage": YES_NO, "yes", "stop serving when slots are not covered";
    Set "cluster-allow-reads-when-down": YES_NO, "no", "serve reads while the cluster is down";
    Set "cluster-allow-pubsubshard-when-down": YES_NO, "yes", "serve shard channels while the cluster is down";
    Set "cluster-link-sendbuf-limit": BYTES, "0", "unsent bytes to a node before the link is dropped; 0 means no limit";

    // TLS
    Set "tls-port": PORT, "0", "port for TLS connections; 0 listens on none";
    Set "tls-cert-file": TEXT, "", "certificate";
    Set "tls-key-file": TEXT, "", "key of the certificate";
    Set "tls-key-file-pass": TEXT, "", "password of the key";
    Set "tls-client-cert-file": TEXT, "", "certificate for outgoing connections";
    Set "tls-client-key-file": TEXT, "", "key for outgoing connections";
    Set "tls-client-key-file-pass": TEXT, "", "password of the key for outgoing connections";
    Set "tls-dh-params-file": TEXT, "", "Diffie-Hellman parameters";
    Set "tls-ca-cert-file": TEXT, "", "certificates that are trusted";
    Set "tls-ca-cert-dir": TEXT, "", "folder of certificates that are trusted";
    Set "tls-auth-clients": Kind::Enum(&["no", "yes", "optional"]), "yes", "must clients show a certificate";
    Set "tls-replication": YES_NO, "no", "TLS on links to primaries";
    Set "tls-cluster": YES_NO, "no", "TLS on the cluster bus";
    Set "tls-protocols": TEXT, "", "versions of TLS that are accepted";
    Set "tls-ciphers": TEXT, "", "ciphers up to TLS 1.2";
    Set "tls-ciphersuites": TEXT, "", "ciphers of TLS 1.3";
    Set "tls-prefer-server-ciphers": YES_NO, "no", "the server's order of ciphers decides";
    Set "tls-session-caching": YES_NO, "yes", "let clients resume sessions";
    Set "tls-session-cache-size": INT, "20480", "sessions that can be resumed; 0 means no limit";
    Set "tls-session-cache-timeout": INT, "300", "seconds for which a session can be resumed";
};
