//! What a follower does with what it receives: the other half of [`crate::Follower`].

use std::io;

use crate::handshake::LinkConfig;
use crate::link::{Disconnect, PayloadStart, Status};
use crate::position::ReplId;
use crate::stream::Transaction;

/// Why a step could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The data cannot be used or have become useless; a full resync may help.
    #[error("{0}")]
    Resync(String),
    /// Trying again would not help: the disk is full, the caller is shutting down.
    #[error(transparent)]
    Stop(#[from] io::Error),
}

/// The receiving end. Calls come one at a time and in order; while one runs the socket is not read, so a slow
/// receiver slows its primary's sending and nothing piles up here. The link is kept alive meanwhile.
#[expect(
    async_fn_in_trait,
    reason = "drivers run on the thread that owns the data; no Send is needed"
)]
pub trait Apply {
    /// A link is about to begin: the place to change what it asks for and tells about itself.
    fn configure(&mut self, config: &mut LinkConfig) {
        let _ = config;
    }

    /// A full resync begins. Data held so far may be kept until `end_payload`.
    async fn begin_payload(&mut self, start: PayloadStart) -> Result<(), ApplyError>;

    /// The next bytes of the RDB.
    async fn payload(&mut self, bytes: &[u8]) -> Result<(), ApplyError>;

    /// The RDB is complete: load it, or make its file durable. Returns its `repl-stream-db`, 0 without one.
    async fn end_payload(&mut self) -> Result<u32, ApplyError>;

    /// Whether a payload has begun that did not come to its end, and what was held before it is still whole: then the next link asks to
    /// go on from where the one before was.
    fn keeps_data(&self) -> bool {
        false
    }

    /// A unit of the stream that is taken at once, to be applied with others: for those that apply after the call has returned, and that
    /// see thousands of units in one read. False: it is not taken, and given to [`Apply::transaction`].
    fn gather(&mut self, unit: &Transaction<'_>) -> Result<bool, ApplyError> {
        let _ = unit;
        Ok(false)
    }

    /// All units that have arrived were handed over, and more may take a while: what was gathered goes on its way.
    async fn gathered(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }

    /// A unit of the stream: apply all of it or nothing.
    async fn transaction(&mut self, unit: Transaction<'_>) -> Result<(), ApplyError>;

    /// How much is applied, when units are applied after `transaction` returned; `handed_offset` is the end of
    /// the last one given. What this says is what the primary is told.
    fn applied_offset(&mut self, handed_offset: u64) -> u64 {
        handed_offset
    }

    /// Waits until more is applied than [`Apply::applied_offset`] said last: the primary may be waiting for it. For those that apply after
    /// `transaction` has returned.
    async fn progress(&self) {
        std::future::pending().await
    }

    /// The stream goes on after a lost link. A new name must reach our own replicas.
    fn continued(&mut self, replid: ReplId, renamed_from: Option<ReplId>) {
        let _ = (replid, renamed_from);
    }

    /// Every second, whenever the phase of the link changes, and when it has ended.
    fn observe(&mut self, status: &Status) {
        let _ = status;
    }

    /// The link ended; another attempt follows.
    fn disconnected(&mut self, why: &Disconnect) {
        let _ = why;
    }
}
