//! What a cluster does not allow of commands: keys of several slots, and everything about databases other than the first.
//!
//! Connections look before a command runs, scripts before each that they call. Nobody is redirected: there is one node, which owns all slots.

use dfsnap_formats::slot::slot;

use super::{Command, CommandError, Run, Session};

/// What a client gets whose keys are in several slots.
pub const CROSS_SLOT: CommandError =
    CommandError::text("CROSSSLOT Keys in request don't hash to the same slot");

/// The slot of a command's keys, if it has any. An error is why a cluster does not allow the command.
pub fn check(command: &Command, words: &[&[u8]]) -> Result<Option<u16>, CommandError> {
    let mut home = None;
    let mut is_one = true;
    let mut visit = |key: &[u8]| {
        let slot = slot(key);
        is_one &= *home.get_or_insert(slot) == slot;
    };
    match command.run {
        Run::Session(Session::Ssubscribe | Session::Sunsubscribe) => {
            words[1..].iter().for_each(|channel| visit(channel));
        }
        _ => command.keys.visit(words, |at| visit(words[at])),
    }
    if !is_one {
        return Err(CROSS_SLOT);
    }
    let has = |option: &str| {
        words
            .iter()
            .skip(2)
            .position(|word| word.eq_ignore_ascii_case(option.as_bytes()))
            .map(|at| at + 2)
    };
    let refused = match command.name {
        "select" if words[1] != b"0" => "ERR SELECT is not allowed in cluster mode",
        "swapdb" => "ERR SWAPDB is not allowed in cluster mode",
        "move" => "ERR MOVE is not allowed in cluster mode",
        "copy" if has("db").is_some_and(|at| at > 2) => {
            "ERR Copying to another database is not allowed in cluster mode"
        }
        "replicaof" | "slaveof" => "ERR REPLICAOF not allowed in cluster mode.",
        "sort" | "sort_ro" => {
            let by = has("by").and_then(|at| words.get(at + 1));
            if by.is_some_and(|pattern| pattern.contains(&b'*')) {
                "ERR BY option of SORT denied in Cluster mode."
            } else if has("get").is_some() {
                "ERR GET option of SORT denied in Cluster mode."
            } else {
                return Ok(home);
            }
        }
        _ => return Ok(home),
    };
    Err(CommandError::text(refused))
}
