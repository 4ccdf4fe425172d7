//! Settings that run-time code of a shard needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::value::Limits;
use crate::config::words::MaxmemoryPolicy;
use crate::pubsub::Hub;
use crate::stats::Recorder;

/// What commands need to know of the configuration. A copy is kept on each shard and replaced by CONFIG SET.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of shards.
    pub shards: usize,
    /// Thresholds of the compact encodings.
    pub limits: Limits,
    /// `proto-max-bulk-len`: the longest string.
    pub string_bytes_max: u64,
    /// `hll-sparse-max-bytes`
    pub sparse_bytes_max: usize,
    /// `lazyfree-lazy-expire`: expired keys go to replicas as UNLINK.
    pub expire_as_unlink: bool,
    /// `maxmemory`, bytes; 0 for none.
    pub memory_max: u64,
    /// `maxmemory-policy`
    pub eviction_policy: MaxmemoryPolicy,
    /// `maxmemory-samples`
    pub eviction_samples: usize,
    /// `maxmemory-eviction-tenacity`
    pub eviction_tenacity: u32,
    /// `lazyfree-lazy-eviction`: evicted keys go to replicas as UNLINK.
    pub evict_as_unlink: bool,
    /// `replica-read-only`
    pub replica_read_only: bool,
    /// `replica-ignore-maxmemory`: a replica leaves eviction to its primary.
    pub replica_ignores_memory: bool,
    /// An LFU policy is selected.
    pub lfu: bool,
    /// `lfu-log-factor`.
    pub lfu_log_factor: u32,
    /// `lfu-decay-time`, minutes.
    pub lfu_decay_time: u32,
    /// Set by FLUSHALL, if there are rules for saving: it asks for a save.
    pub save_after_flush: Option<Arc<AtomicBool>>,
    /// `rdb-key-save-delay`: microseconds that a save takes for each key at least.
    pub save_delay_us: u64,
    /// `snapshot-rate-limit`: bytes a second that all shards together add to a file; 0 = no limit.
    pub snapshot_rate: u64,
    /// `snapshot-cpu-share`: percent of a busy shard's time that the walk of a save takes at most, 1 to 100.
    pub snapshot_cpu_share: u32,
    /// `client-output-buffer-limit normal`, hard: who gets a longer reply is ended, so a command may stop there.
    pub reply_bytes_max: usize,
    /// Where messages and keyspace events are published.
    pub hub: Arc<Hub>,
    /// Where slow commands are noted.
    pub recorder: Arc<Recorder>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            shards: 1,
            limits: Limits::default(),
            string_bytes_max: 512 << 20,
            sparse_bytes_max: 3000,
            expire_as_unlink: false,
            memory_max: 0,
            eviction_policy: MaxmemoryPolicy::NoEviction,
            eviction_samples: 5,
            eviction_tenacity: 10,
            evict_as_unlink: false,
            replica_read_only: true,
            replica_ignores_memory: true,
            lfu: false,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
            save_after_flush: None,
            save_delay_us: 0,
            snapshot_rate: 0,
            snapshot_cpu_share: 50,
            reply_bytes_max: usize::MAX,
            hub: Arc::default(),
            recorder: Arc::default(),
        }
    }
}
