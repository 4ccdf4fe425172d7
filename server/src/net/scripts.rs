//! Commands of connections that scripts may run as well.

use dfsnap_formats::resp::Reply;

use super::thread::current;
use crate::command::{Args, CommandError, Session};
use crate::keyspace::DbIndex;

/// Runs such a command for a script. What it returns goes to replicas.
pub fn run(
    session: Session,
    args: Args<'_>,
    _db: DbIndex,
    reply: &mut Reply,
) -> Result<Option<Vec<u8>>, CommandError> {
    match session {
        Session::Command => super::introspection::command(reply, args)?,
        Session::Lastsave => reply.int(current().world.persistence.state().last_save_s),
        _ => {
            return Err(CommandError::new(
                "This Redis command is not allowed from script",
            ));
        }
    }
    Ok(None)
}
