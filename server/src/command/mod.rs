//! Commands: one row each, and plain functions that run them on entries.
//!
//! A row ([`Command`]) says everything there is to say about a command: name, arity, flags, where its keys are, how it spreads
//! over shards, and the function. COMMAND, the ACL categories and the reference page come from it.
//!
//! A handler is `fn(&mut Exec, Args) -> CommandResult`. It runs to completion on one thread, reads and changes entries through
//! [`Exec`], writes its reply into `exec.reply`, and returns the [`Effect`]: what happened, in the form that replicas get
//! (`redis-replication.md` §8). On an error nothing may have been changed, and whatever stands in the reply is dropped.
//!
//! How to add a command: write the handler in the file of its family, add a row to that file's `COMMANDS`, and a
//! table-driven test under it.

pub mod acl;
pub mod aside;
pub mod bits;
pub mod block;
pub mod blocking;
pub mod blocking_lists;
pub mod blocking_zsets;
pub mod call;
pub mod collection;
pub mod databases;
pub mod dump;
pub mod effect;
pub mod error;
pub mod events;
pub mod eviction;
pub mod exec;
pub mod expiry;
pub mod geo;
pub mod hash_expiry;
pub mod hashes;
pub mod hyperloglog;
pub mod inner;
pub mod key_places;
pub mod keys;
pub mod lcs;
pub mod lists;
pub mod lolwut;
pub mod memory;
pub mod pubsub;
#[cfg(test)]
mod random;
pub mod reference;
pub mod row;
pub mod runner;
pub mod script;
pub mod session;
pub mod sets;
pub mod slots;
pub mod sort;
pub mod stream_claims;
pub mod stream_groups;
pub mod stream_info;
pub mod streams;
pub mod strings;
pub mod table;
#[cfg(test)]
mod testing;
pub mod words;
pub mod zset_algebra;
pub mod zset_ranges;
pub mod zsets;

pub use effect::Effect;
pub use error::CommandError;
pub use exec::Exec;
pub use row::{Command, Flags, Group, KeySpec, Merge, Run, Session};

/// The words of a command, its name first.
pub type Args<'a> = &'a [&'a [u8]];

/// What a handler returns.
pub type CommandResult = Result<Effect, CommandError>;

/// A command's function; see the module documentation.
pub type Handler = fn(&mut Exec<'_>, Args<'_>) -> CommandResult;
