//! Everything that talks to a live server: addresses, a client that asks, a replica that listens.
//!
//! - `url`: where a server is and who we are there.
//! - `tls`: whom we trust and who we are where the address says `rediss://`.
//! - `socket`: TCP, with TLS or without, or Unix, behind one type.
//! - `cluster`: the nodes of a cluster, and which has a key.
//! - `client`: commands and replies, pipelined.
//! - `feed`: a replication link driven by whoever reads from it.
//! - `following`: the stream of changes over links that are made again when they are lost.
//! - `snapshot`: the payload of a full resync as a stream of bytes, which is an RDB file.
//! - `server`: what a server is and what it understands.
//! - `stop`: whether the user has asked us to end.
//!
//! Invariants
//! - A password is in no message, no log and no `Debug` output.
//! - Nothing here waits without limit: silence beyond the timeout is an error, and a stop is seen within a second.

pub mod client;
pub mod cluster;
pub mod feed;
pub mod following;
pub mod server;
pub mod snapshot;
pub mod socket;
pub mod stop;
pub mod tls;
pub mod url;

pub use client::Client;
pub use feed::FeedError;
pub use snapshot::Snapshot;
pub use url::Url;
