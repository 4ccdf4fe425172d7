//! FUNCTION: what only looks is done at once, what changes libraries runs with all shards.

use super::connection::Connection;
use crate::command::CommandError;
use crate::command::call::{Call, Words};
use crate::command::script::functions;

/// FUNCTION and its subcommands.
pub async fn function(connection: &mut Connection, words: Words) -> Result<(), CommandError> {
    if !words.with(functions::is_change) {
        let out = &mut connection.out;
        return words.with(|args| functions::look(args, out));
    }
    connection.check_write()?;
    let call = Call {
        command: &functions::CHANGE,
        db: connection.db,
        words,
    };
    let reply = connection.run_everywhere(vec![call]).await;
    connection.out.raw(&reply);
    Ok(())
}
