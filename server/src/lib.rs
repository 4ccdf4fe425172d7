//! The server as a library, so that tests can reach its parts.

pub mod command;
pub mod config;
pub mod journal;
pub mod keyspace;
pub mod shard;
pub mod tx;
