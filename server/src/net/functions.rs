//! FUNCTION: what only looks is done at once, what changes libraries runs with all shards.

use super::connection::Connection;
use super::thread::client_actor;
use crate::command::CommandError;
use crate::command::call::{Call, Words};
use crate::command::eviction;
use crate::command::script::functions;
use crate::command::words::is;

/// FUNCTION and its subcommands.
pub async fn function(connection: &mut Connection, words: Words) -> Result<(), CommandError> {
    if !words.with(functions::is_change) {
        let out = &mut connection.out;
        return words.with(|args| functions::look(args, out));
    }
    connection.check_write()?;
    let grows = words.with(|args| is(args[1], "load") || is(args[1], "restore"));
    if grows {
        let mut shard = connection.thread.shard.borrow_mut();
        let has_room = eviction::make_room(&mut shard, client_actor(&connection.thread.world));
        shard.post_records();
        if !has_room {
            return Err(eviction::OUT_OF_MEMORY);
        }
    }
    let call = Call {
        command: &functions::CHANGE,
        db: connection.db,
        words,
    };
    let reply = connection.run_everywhere(vec![call]).await;
    connection.out.raw(&reply);
    Ok(())
}
