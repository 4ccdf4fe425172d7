//! Replication: those who replicate from this server, and the link to a primary.
//!
//! Invariants
//! - A replica gets a cut and then the log from exactly that place.
//! - A server that is itself a replica does not make a log: it keeps its primary's bytes.
//! - What is told to a primary is what all shards have applied.

mod batch;
pub mod failover;
mod follower;
mod intake;
mod payload;
mod primary;
#[cfg(test)]
mod simulation;
mod sync;
mod worker;

pub use follower::{promote, resume, start as follow};
pub use primary::{Peer, SyncRequest, serve_replica, watch_links};
pub use sync::Filter;
