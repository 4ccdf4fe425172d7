//! Transactions over several shards.
//!
//! [`Coordinator`] runs on the thread of the connection that asks. A transaction goes through it in one of three ways:
//!
//! - **split**: each shard runs its part; all parts are one point of the order, since all intents are taken before the first part runs.
//! - **gathered**: the shards lend the entries of the keys to one of them, the home, which runs the whole job in one go and gives them back.
//!   Any command, script or MULTI block over any keys runs so, at the cost of moving sixteen-byte values.
//! - **global**: all shards lend their whole keyspace to one run.
//!
//! ```text
//!  coordinator        shard A (home)         shard B
//!      │── schedule ──────►│ intents, place      │
//!      │── schedule ──────────────────────────► │ intents, place
//!      │◄──── accepted ────│◄──── accepted ───── │        (refused anywhere: withdraw, new id, again)
//!      │── lend ──────────────────────────────► │ when its turn comes: entries out
//!      │◄───────────────────────── entries ──── │
//!      │── run(entries) ──►│ when its turn comes: entries in, job, entries out, release
//!      │◄── result, entries│                     │
//!      │── return ────────────────────────────► │ entries in, release
//! ```
//!
//! Invariants
//! - No shard runs anything of a transaction before all have accepted it.
//! - Who is accepted finishes: a coordinator whose client goes away goes on in a task of its own.
//! - A lent entry has been shown to the snapshots of its own shard, so its home's never need it.

mod coordinator;

pub use coordinator::{Coordinator, GatherJob, GlobalJob, Here, Part, PartEnd, ShardJob, Touched};
