//! What a command did to the dataset, in the words that replicas apply.

use crate::keyspace::DbIndex;

/// The effect of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed: nothing is journaled, no watcher hears of it.
    #[default]
    None,
    /// Replicas run the command as it was received.
    Verbatim,
    /// Nothing was done: it would hold up its shard ([`super::exec::Exec::most_elements`]), and is to run beside it.
    Aside,
    /// Nothing changed, and replicas run the command as it was received (PUBLISH).
    Passed,
    /// Replicas run these commands instead, as one unit.
    Commands(Vec<Vec<Vec<u8>>>),
    /// A unit of several commands that have run already: their effects, each with its database and as replicas get it.
    Unit {
        /// The effects in order; empty if nobody listens.
        effects: Vec<(DbIndex, Vec<u8>)>,
        /// How many of the commands changed something.
        changes: u64,
    },
}

impl Effect {
    /// One command in place of the one received.
    pub fn command<W: AsRef<[u8]>>(words: &[W]) -> Effect {
        Effect::Commands(vec![
            words.iter().map(|word| word.as_ref().to_vec()).collect(),
        ])
    }

    /// [`Effect::Verbatim`] if something changed.
    pub fn verbatim_if(changed: bool) -> Effect {
        if changed {
            Effect::Verbatim
        } else {
            Effect::None
        }
    }

    /// Whether nothing changed.
    pub fn is_none(&self) -> bool {
        matches!(self, Effect::None | Effect::Aside)
    }
}
