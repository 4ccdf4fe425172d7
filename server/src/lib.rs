//! The server as a library, so that tests can reach its parts.

pub mod command;
pub mod keyspace;
pub mod tx;
