//! MODULE: there are none, and none can be loaded.

use super::connection::Connection;
use super::observation::{help, unknown, wrong_arity};
use crate::command::CommandError;

/// MODULE and its subcommands.
pub fn module(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let is_loading = |name: &[u8]| matches!(name, b"load" | b"loadex" | b"unload");
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"list", []) => connection.out.array(0),
        (name @ (b"load" | b"loadex"), [_, ..]) | (name @ b"unload", [_]) if is_loading(name) => {
            let allowed = (connection.thread.world.config().enable_module_command)
                .allows(connection.is_local());
            if !allowed {
                return Err(CommandError::new(
                    "MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it from a \
                     local connection, otherwise you need to set this option in the configuration file, and then restart the \
                     server.",
                ));
            }
            return Err(CommandError::new(if name == b"unload" {
                "Error unloading module: no such module with that name"
            } else {
                "Error loading the extension. Please check the server logs."
            }));
        }
        (b"help", []) => help(
            connection,
            &[
                "MODULE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "LIST",
                "    The modules that are loaded: none.",
                "HELP",
                "    This text.",
            ],
        ),
        (b"list" | b"load" | b"loadex" | b"unload" | b"help", _) => {
            return Err(wrong_arity("module", args[1]));
        }
        _ => return Err(unknown("MODULE", args[1])),
    }
    Ok(())
}
