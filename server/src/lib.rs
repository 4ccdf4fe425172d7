//! The server as a library, so that tests can reach its parts.

pub mod clock;
pub mod command;
pub mod config;
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
pub mod pubsub;
pub mod replication;
pub mod saving;
pub mod server;
pub mod shard;
pub mod snapshot;
pub mod stats;
pub mod tx;
pub mod world;
