//! Transactions over several shards.
//!
//! [`Coordinator`] runs on the thread of the connection that asks. A transaction goes through it in one of three ways:
//!
//! - **split**: each shard runs its part; all parts are one point of the order, since all intents are taken before the first part runs.
//! - **gathered**: the shards lend the entries of the keys to one of them, the home, which runs the whole job in one go and gives them back.
//!   Any command, script or MULTI block over any keys runs so, at the cost of moving sixteen-byte values.
//! - **global**: all shards lend their whole keyspace to one run.
//! - **in a row** ([`series`]): many transactions on whole shards, each of which takes its place while those before it still run.
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
//! - No shard lets go of a transaction before all its parts have run, unless nobody was in its way anywhere, or it has all of every shard.
//! - Who is accepted finishes: a coordinator whose client goes away goes on in a task of its own.
//! - A lent entry has been shown to the snapshots of its own shard, so its home's never need it.
//!
//! Why a part must not let go early, in five steps (T1 and T2 over two shards each, every other command on one):
//! 1. T1 has a place on C and its message to B is on the way; T2 is behind it on C and alone on A.
//! 2. T2 runs on A and lets go. A client reads there what T2 wrote.
//! 3. The same client writes on B a key of T1: nobody is in its way, it runs at once.
//! 4. T1 reaches B, and B has no reason to refuse: it runs behind that write, then on C, then T2 there.
//! 5. So the write comes before T1, T1 before T2, T2 before the read, and the read before the write. Had T2 kept A until it had run
//!    on C, the read would have come after T1 on every shard.
//!
//! A T2 that has a place with everything on every shard may let go early: in step 3 the write meets T2's place on B and waits behind it, and in
//! step 4 B refuses T1, which comes with the lower id.

mod coordinator;
mod series;

pub use coordinator::{
    AtHome, Coordinator, Effects, Finish, GatherEnd, GatherJob, GlobalJob, Here, Keys, Keyspaces,
    Part, PartEnd, Touched,
};
pub use series::{Armed, AskedInRow, Placed, ShardJob};
