//! The replica's side of Redis replication.
//!
//! [`Link`] is the protocol as a value: bytes in, bytes and events out, no socket, no clock. A server applies
//! its events to shards, a tool to files, a test to a model. [`driver`] is the one file with a socket and a
//! clock; it drives a [`Link`] for anything that implements [`Apply`]. `examples/follow.rs` prints the changes of any primary.
//!
//! Invariants
//! - A position moves over whole units only: a bare command, or everything from MULTI to EXEC.
//! - What is acknowledged was applied: the offset in an ACK is the one the caller reported.
#![forbid(unsafe_code)]

mod apply;
pub mod driver;
mod handshake;
mod link;
mod payload;
mod position;
mod stream;

pub use apply::{Apply, ApplyError};
pub use driver::{End, FollowError, Follower, LinkTls, TcpWire, resolve};
pub use handshake::{Auth, LinkConfig};
pub use link::{Disconnect, Event, Link, PayloadStart, Phase, Status, Step};
pub use payload::Form;
pub use position::{Position, ReplId};
pub use stream::{Command, Transaction};
