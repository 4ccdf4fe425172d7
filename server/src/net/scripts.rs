//! Commands of connections that scripts may run as well.

use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Reply;

use super::admission::{MISCONF, NO_REPLICAS};
use super::thread::current;
use crate::command::{Args, CommandError, Session};
use crate::keyspace::DbIndex;

/// Whether clients may write now, for the writes of their scripts.
pub fn check_write() -> Result<(), CommandError> {
    if current().world.refuses_writes.load(Ordering::Relaxed) {
        return Err(MISCONF);
    }
    if current().world.lacks_replicas.load(Ordering::Relaxed) {
        return Err(NO_REPLICAS);
    }
    Ok(())
}

/// Whether the data of this replica is too old to be shown.
pub fn is_stale() -> bool {
    current().world.is_stale.load(Ordering::Relaxed)
}

/// Runs such a command for a script. What it returns goes to replicas.
pub fn run(
    session: Session,
    args: Args<'_>,
    _db: DbIndex,
    reply: &mut Reply,
) -> Result<Option<Vec<u8>>, CommandError> {
    match session {
        Session::Command => super::commands::command(reply, args)?,
        Session::Role => super::replicas::role(&current().world, reply),
        Session::ClusterMode => super::cluster::mode(&current().world, reply)?,
        // A cluster's own commands wait for other threads.
        Session::Cluster if !current().world.config().cluster_enabled => {
            return Err(super::cluster::DISABLED);
        }
        Session::Lastsave => reply.int(current().world.persistence.state().last_save_s),
        _ => {
            return Err(CommandError::new(
                "This Redis command is not allowed from script",
            ));
        }
    }
    Ok(None)
}
