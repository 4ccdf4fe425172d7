//! SAVE, BGSAVE, LASTSAVE and SHUTDOWN.

use super::connection::Connection;
use crate::command::{CommandError, Session};
use crate::saving::{self, Started};

/// Runs one of these commands.
pub async fn run(
    connection: &mut Connection,
    session: Session,
    args: &[&[u8]],
) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    match session {
        Session::Lastsave => connection.out.int(world.persistence.state().last_save_s),
        Session::Save => {
            match saving::start(&world) {
                Started::Running { done, .. } => {
                    let result = done
                        .await
                        .unwrap_or_else(|_| Err("the server is going down".into()));
                    result.map_err(CommandError::new)?;
                }
                Started::Busy => {
                    return Err(CommandError::new("Background save already in progress"));
                }
            }
            connection.out.ok();
        }
        Session::Bgsave => {
            let is_scheduled = match args {
                [_] => false,
                [_, word] if word.eq_ignore_ascii_case(b"schedule") => true,
                _ => return Err(CommandError::SYNTAX),
            };
            match saving::start(&world) {
                Started::Running { progress, done } => {
                    // What is written after the reply is not in the file.
                    tokio::select! {
                        () = progress.cut.notified() => {}
                        result = done => {
                            let result = result.unwrap_or_else(|_| Err("the server is going down".into()));
                            result.map_err(CommandError::new)?;
                        }
                    }
                    connection.out.simple("Background saving started");
                }
                Started::Busy if is_scheduled => {
                    world.persistence.change(|state| state.is_scheduled = true);
                    connection.out.simple("Background saving scheduled");
                }
                Started::Busy => {
                    return Err(CommandError::new("Background save already in progress"));
                }
            }
        }
        Session::Shutdown => shutdown(connection, &args[1..]).await?,
        other => unreachable!("{other:?} is not about saving"),
    }
    Ok(())
}

async fn shutdown(connection: &mut Connection, words: &[&[u8]]) -> Result<(), CommandError> {
    let (mut save, mut force) = (None, false);
    for word in words {
        match word.to_ascii_lowercase().as_slice() {
            b"save" if save != Some(false) => save = Some(true),
            b"nosave" if save != Some(true) => save = Some(false),
            // Nothing here waits for replicas that lag.
            b"now" => {}
            b"force" => force = true,
            b"abort" if words.len() == 1 => {
                return Err(CommandError::new("No shutdown in progress."));
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    let world = connection.thread.world.clone();
    match saving::before_exit(&world, save).await {
        Ok(()) => {}
        Err(_) if force => {}
        Err(error) => {
            tracing::error!(%error, "Error trying to save the DB, can't exit");
            return Err(CommandError::new("Errors trying to SHUTDOWN. Check logs."));
        }
    }
    saving::exit();
}
