//! The server as a library, so that tests can reach its parts.

pub mod clock;
pub mod command;
pub mod config;
pub mod crash;
pub mod digest;
pub mod info;
pub mod journal;
pub mod keyspace;
pub mod libraries;
pub mod loading;
pub mod log;
pub mod memory;
pub mod net;
pub mod oom_score;
pub mod proc_title;
pub mod pubsub;
pub mod replication;
pub mod saving;
pub mod server;
pub mod shard;
pub mod snapshot;
pub mod stats;
pub mod tx;
pub mod verbosity;
pub mod watchdog;
pub mod world;
