//! SAVE, BGSAVE, LASTSAVE and SHUTDOWN, and what BGREWRITEAOF is told.

use std::sync::atomic::Ordering;

use super::connection::Connection;
use crate::command::script::running;
use crate::command::{CommandError, Session};
use crate::saving::{self, Started, Wish};

/// Runs one of these commands.
pub async fn run(
    connection: &mut Connection,
    session: Session,
    args: &[&[u8]],
) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    match session {
        Session::Bgrewriteaof => {
            tracing::warn!(
                "BGREWRITEAOF: this server has no append-only files; BGSAVE writes the dataset to {}",
                world.config().dbfilename
            );
            return Err(CommandError::new(
                "Can't execute an AOF background rewriting. Please check the server logs for more information.",
            ));
        }
        Session::Lastsave => connection.out.int(world.persistence.state().last_save_s),
        Session::Save => {
            let wish = wish(&args[1..])?;
            match saving::start(&world, wish) {
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
        Session::Bgsave => match args {
            [_, word] if word.eq_ignore_ascii_case(b"cancel") => {
                if !saving::cancel(&world) {
                    return Err(CommandError::new("No background save in progress"));
                }
                connection.out.simple("Background saving cancelled");
            }
            [_, word] if word.eq_ignore_ascii_case(b"schedule") => {
                bgsave(connection, Wish::default(), true).await?
            }
            _ => {
                let wish = wish(&args[1..])?;
                bgsave(connection, wish, false).await?;
            }
        },
        Session::Shutdown => shutdown(connection, &args[1..]).await?,
        other => unreachable!("{other:?} is not about saving"),
    }
    Ok(())
}

async fn bgsave(
    connection: &mut Connection,
    wish: Wish,
    may_wait: bool,
) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    match saving::start(&world, wish) {
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
        Started::Busy if may_wait => {
            world.persistence.change(|state| state.is_scheduled = true);
            connection.out.simple("Background saving scheduled");
        }
        Started::Busy => {
            return Err(CommandError::new("Background save already in progress"));
        }
    }
    Ok(())
}

/// `[DF | RDB] [name]`, as in Dragonfly.
fn wish(words: &[&[u8]]) -> Result<Wish, CommandError> {
    let mut words = words.iter().peekable();
    let mut wish = Wish::default();
    for (word, is_set) in [(&b"df"[..], true), (b"rdb", false)] {
        if words
            .next_if(|next| next.eq_ignore_ascii_case(word))
            .is_some()
        {
            wish.is_set = Some(is_set);
        }
    }
    if let Some(name) = words.next() {
        let name = std::str::from_utf8(name).unwrap_or_default();
        let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if wish.is_set.is_none() || !is_plain {
            return Err(CommandError::SYNTAX);
        }
        wish.name = Some(name.to_owned());
    }
    match words.next() {
        None => Ok(wish),
        Some(_) => Err(CommandError::SYNTAX),
    }
}

async fn shutdown(connection: &mut Connection, words: &[&[u8]]) -> Result<(), CommandError> {
    let (mut save, mut force, mut now) = (None, false, false);
    for word in words {
        match word.to_ascii_lowercase().as_slice() {
            b"save" if save != Some(false) => save = Some(true),
            b"nosave" if save != Some(true) => save = Some(false),
            b"now" => now = true,
            b"force" => force = true,
            b"abort" if words.len() == 1 => {
                if !connection.thread.world.ending.abort() {
                    return Err(CommandError::new("No shutdown in progress."));
                }
                tracing::warn!("Shutdown manually aborted");
                connection.out.ok();
                return Ok(());
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if save == Some(false) && running::busy().is_some() {
        // Nothing can be waited for: a script holds a shard. Whoever says this now knows what is lost.
        tracing::warn!("SHUTDOWN NOSAVE while a script is overdue: ending at once");
        super::listener::stop(&connection.thread.world);
        saving::exit(&connection.thread.world);
    }
    let world = connection.thread.world.clone();
    connection
        .client
        .is_postponed
        .store(true, Ordering::Relaxed);
    let ready = saving::before_exit(&world, save, now).await;
    connection
        .client
        .is_postponed
        .store(false, Ordering::Relaxed);
    match ready {
        Ok(_) => {}
        Err(_) if force => {}
        Err(error) => {
            tracing::error!(
                %error,
                "Errors trying to shut down the server. Check the logs for more information."
            );
            return Err(CommandError::new("Errors trying to SHUTDOWN. Check logs."));
        }
    }
    super::listener::stop(&world);
    saving::exit(&world);
}
