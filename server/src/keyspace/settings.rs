//! Settings that run-time code of a shard needs.

use std::sync::Arc;

use super::value::Limits;
use crate::pubsub::Hub;

/// What commands need to know of the configuration. A copy is kept on each shard and replaced by CONFIG SET.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of shards.
    pub shards: usize,
    /// Thresholds of the compact encodings.
    pub limits: Limits,
    /// `proto-max-bulk-len`: the longest string.
    pub string_bytes_max: u64,
    /// `lazyfree-lazy-expire`: expired keys go to replicas as UNLINK.
    pub expire_as_unlink: bool,
    /// An LFU policy is selected.
    pub lfu: bool,
    /// `lfu-log-factor`.
    pub lfu_log_factor: u32,
    /// `lfu-decay-time`, minutes.
    pub lfu_decay_time: u32,
    /// `snapshot-rate-limit`: bytes a second that all shards together add to a file; 0 = no limit.
    pub snapshot_rate: u64,
    /// Where messages and keyspace events are published.
    pub hub: Arc<Hub>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            shards: 1,
            limits: Limits::default(),
            string_bytes_max: 512 << 20,
            expire_as_unlink: false,
            lfu: false,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
            snapshot_rate: 0,
            hub: Arc::default(),
        }
    }
}
