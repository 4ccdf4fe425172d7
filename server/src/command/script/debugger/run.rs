//! One debugged script, from its first stop to its end, on a thread that may wait: what it gets, and what it leaves.
//!
//! Called by `net/debugging`, with keyspaces that are the script's alone as long as it runs: those of all shards (SCRIPT DEBUG SYNC), or a copy
//! of the dataset (SCRIPT DEBUG YES). The script is run as any other; that it is debugged its interpreter finds out by itself.

use std::sync::Arc;
use std::time::Instant;

use dfsnap_formats::resp::{Protocol, Reply};

use super::{Line, OwnMemory};
use crate::command::acl::User;
use crate::command::call::Call;
use crate::command::exec::Actor;
use crate::command::runner::{Commit, Runner};
use crate::command::script;
use crate::keyspace::settings::Settings;
use crate::memory::NotCounted;
use crate::pubsub::tracking::Caller;
use crate::stats::CommandStats;
use crate::tx::Keyspaces;

/// What it runs on, and with.
pub struct DebugRun {
    /// EVAL, or its form that only reads.
    pub call: Call,
    /// All keys there are.
    pub keyspaces: Keyspaces,
    /// The keyspaces are a copy, which takes this memory.
    pub copy: Option<NotCounted>,
    /// Settings that go with the keyspaces.
    pub settings: Arc<Settings>,
    /// On whose behalf.
    pub actor: Actor,
    /// On whose behalf, for tracking and the slow log.
    pub caller: Caller,
    /// Whose rights it has.
    pub user: Arc<User>,
    /// Of the reply.
    pub protocol: Protocol,
    /// Whether effects are wanted.
    pub is_journaling: bool,
}

/// What is left of it.
pub struct DebugEnd {
    /// The reply to the command.
    pub reply: Vec<u8>,
    /// Given back.
    pub keyspaces: Keyspaces,
    /// Of a copy, to be dropped behind it.
    pub memory: NotCounted,
    /// What it did.
    pub commit: Commit,
    /// What was measured.
    pub stats: CommandStats,
}

impl DebugRun {
    /// Runs it on this thread, which no other script uses before or after.
    pub fn run(mut self, line: Line) -> DebugEnd {
        let text = self.call.words.iter().nth(1).unwrap_or_default();
        let memory = self.copy.map(OwnMemory::of_copy).unwrap_or_default();
        super::begin(line, text, memory);
        let mut stats = CommandStats::default();
        let mut commit = Commit::default();
        let mut reply = Reply::new(self.protocol);
        let mut runner = Runner {
            keyspaces: &mut self.keyspaces,
            settings: &self.settings,
            random: &mut fastrand::Rng::new(),
            now_ms: crate::clock::now_ms(),
            actor: self.actor,
            caller: self.caller,
            stats: &mut stats,
            mark: &mut Instant::now(),
            may_wait: false,
            most_elements: usize::MAX,
            is_journaling: self.is_journaling,
            is_watched: true,
            user: Some(self.user),
        };
        let call = &self.call;
        call.words
            .with(|args| runner.run(call.command, call.db, args, &mut reply, &mut commit));
        runner.finish(&commit);
        let memory = super::end();
        script::leave_thread();
        DebugEnd {
            reply: reply.take(),
            keyspaces: self.keyspaces,
            memory: memory.into_not_counted(),
            commit,
            stats,
        }
    }
}
