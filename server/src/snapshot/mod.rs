//! Snapshots: the state at one point of the order of commits, while writes go on.
//!
//! ```text
//!  cut (global run): epoch += 1, the saver of each shard gets an `Active`
//!      │
//!      ├─ hook: before an entry changes, it is saved      ┐ per shard, into chunks    ┌ RDB file
//!      └─ traverser: walks the tables in hash order       ┘──────────────────► stream ┤
//!                                                                                     └ replica's socket
//! ```
//!
//! Invariants
//! - An entry is written once per snapshot: serialized for every cut that still needs it, then stamped.
//! - What is written is the entry as it was at the cut: nothing passes the door unsaved.
//! - A file appears under its name only when it is complete and durable.

pub mod catalog;
pub mod copy;
pub mod fault;
pub mod feed;
pub mod file;
pub mod hook;
pub mod large;
pub mod load;
pub mod load_set;
pub mod names;
mod pace;
mod priority;
pub mod save;
pub mod serializer;
pub mod set;
pub mod stream;
pub mod traverser;
pub mod walk;

/// Names a snapshot within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub u64);
