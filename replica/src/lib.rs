//! The replica's side of Redis replication.
#![forbid(unsafe_code)]
