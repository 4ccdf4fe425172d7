//! Commands of connections where they stand in a script or a transaction.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::admission::{MISCONF, NO_REPLICAS};
use super::thread::current;
use crate::command::script::Within;
use crate::command::{Args, CommandError, Session};
use crate::world::World;

thread_local! {
    /// Of the thread of a debugged script: the world, and whether it works on a copy of the dataset.
    static DEBUGGED: OnceCell<(Arc<World>, bool)> = const { OnceCell::new() };
}

/// Says that this thread runs a debugged script.
pub fn enter(world: Arc<World>, is_forked: bool) {
    DEBUGGED.with(|slot| {
        slot.set((world, is_forked))
            .ok()
            .expect("one script for a thread")
    });
}

fn world() -> Arc<World> {
    let debugged = DEBUGGED.with(|slot| slot.get().map(|(world, _)| world.clone()));
    debugged.unwrap_or_else(|| current().world.clone())
}

/// What the script on this thread does must leave no trace.
fn is_on_copy() -> bool {
    DEBUGGED.with(|slot| slot.get().is_some_and(|(_, is_forked)| *is_forked))
}

/// Whether clients may write now, for the writes of their scripts.
pub fn check_write() -> Result<(), CommandError> {
    let world = world();
    if world.refuses_writes.load(Ordering::Relaxed) {
        return Err(MISCONF);
    }
    if world.lacks_replicas.load(Ordering::Relaxed) {
        return Err(NO_REPLICAS);
    }
    Ok(())
}

/// Whether the data of this replica is too old to be shown.
pub fn is_stale() -> bool {
    world().is_stale.load(Ordering::Relaxed)
}

/// Runs such a command, between others on entries: it waits for nothing and nobody.
pub fn run(session: Session, args: Args<'_>, within: Within<'_>) -> Result<(), CommandError> {
    let world = world();
    let reply = within.reply;
    let client = || world.client(within.client_id);
    match session {
        Session::Command => super::commands::command(reply, args),
        Session::Role => {
            super::replicas::role(&world, reply);
            Ok(())
        }
        Session::ClusterMode => super::cluster::mode(&world, reply),
        // A cluster's own commands wait for other threads.
        Session::Cluster if !world.config().cluster_enabled => Err(super::cluster::DISABLED),
        Session::Lastsave => {
            reply.int(world.persistence.state().last_save_s);
            Ok(())
        }
        Session::Info => {
            let text = crate::info::info_within(&world, &args[1..], within.keyspaces);
            reply.verbatim(b"txt", text.as_bytes());
            Ok(())
        }
        Session::Config | Session::Client | Session::Debug if is_on_copy() => Err(DENIED),
        Session::Config => {
            let is_local = client().is_some_and(|client| client.is_local());
            if let Some(set) = super::introspection::set_or_show(&world, is_local, args, reply)? {
                set.take_effect(&world);
                reply.ok();
            }
            Ok(())
        }
        Session::Client => client()
            .and_then(|client| super::client::of_any(&world, &client, args, reply))
            .unwrap_or(Err(DENIED)),
        Session::Debug => {
            super::debug::check_allowed(&world, client().is_some_and(|client| client.is_local()))?;
            super::debug::within(&world, args, within.keyspaces, reply)
        }
        _ => Err(DENIED),
    }
}

const DENIED: CommandError =
    CommandError::text("ERR This Redis command is not allowed from script");
