//! FAILOVER: this primary hands its role to one of its replicas, and no write is lost or refused without need.
//!
//! `net::replicas` starts it on the control thread, and so does who aborts it.
//!
//! 1. Writes wait, reads go on; nothing expires, no PING enters the stream.
//! 2. The target (or any replica) acknowledges all there is.
//! 3. This server becomes its replica, and asks for the stream with the word FAILOVER: the target promotes itself before it answers.
//! 4. Once it has answered, the writes that waited are refused as on any replica. If its answer is lost it is asked again, and "I am a primary"
//!    is an answer too; if it could not be asked for `repl-timeout`, this server is a primary again.
//!
//! Invariants
//! - While a failover goes on, this server commits no write.
//! - Whatever ends it before step 4 leaves a primary: the old one with its history before step 3, with a new name of it behind.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::follower;
use crate::world::{Control, FailoverStage, World};

/// What FAILOVER asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The replica that is to take over; `None`: the first that has everything.
    pub target: Option<(String, u16)>,
    /// How long the target may take to catch up.
    pub timeout: Option<Duration>,
    /// It takes over even if it has not caught up in time.
    pub is_forced: bool,
}

/// Goes through a failover whose stage is [`FailoverStage::WaitingForSync`], on the control thread.
pub fn start(control: &Rc<Control>, wish: Wish) {
    let target = shown(wish.target.as_ref());
    tracing::info!(target, "FAILOVER requested");
    let control = control.clone();
    tokio::task::spawn_local(async move {
        let world = control.world.clone();
        // Writes that were let through before are on their way.
        world.links.settled().await;
        let target = match caught_up(&world, &wish).await {
            Ok(target) => target,
            Err(why) => {
                if world.change_failover(FailoverStage::WaitingForSync, FailoverStage::None) {
                    tracing::warn!(why, "FAILOVER aborted");
                }
                return;
            }
        };
        if !world.change_failover(FailoverStage::WaitingForSync, FailoverStage::InProgress) {
            return;
        }
        tracing::info!(
            target = shown(Some(&target)),
            "Failover target is synced, failing over"
        );
        let (host, port) = target;
        let text = port.to_string();
        let stored = world.change_config(|config| config.store("replicaof", &[&host, &text]));
        if let Err(error) = stored {
            tracing::error!(%error, "the new primary is not in the configuration");
        }
        follower::start(&control, host, port, None);
    });
}

/// FAILOVER ABORT, and a target that refuses.
pub fn abort(control: &Rc<Control>, why: &str) {
    let world = &control.world;
    if world.change_failover(FailoverStage::WaitingForSync, FailoverStage::None) {
        tracing::warn!(why, "FAILOVER aborted");
    } else if world.failover() == FailoverStage::InProgress {
        tracing::warn!(why, "FAILOVER aborted: this server is a primary again");
        if let Err(error) = world.change_config(|config| config.store("replicaof", &[])) {
            tracing::error!(%error, "the old primary is still in the configuration");
        }
        // The failover ends when the role has changed back.
        follower::promote(control);
    }
}

/// Waits until a replica that may take over has all there is; which one.
async fn caught_up(world: &World, wish: &Wish) -> Result<(String, u16), &'static str> {
    let deadline = wish.timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let grown = world.log.grown.notified();
        let changed = world.failover_changed.notified();
        if world.failover() != FailoverStage::WaitingForSync {
            return Err("manually aborted");
        }
        let found = world.log.with(|log| {
            let end = log.offset();
            let is_target = |ip: &str, port: u16| {
                (wish.target.as_ref()).is_none_or(|(host, wanted)| host == ip && *wanted == port)
            };
            log.replicas
                .values()
                .find(|replica| {
                    replica.state == "online"
                        && replica.acked == end
                        && is_target(&replica.ip, replica.port)
                })
                .map(|replica| (replica.ip.clone(), replica.port))
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let timeout = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = grown => {}
            () = changed => {}
            () = timeout => {
                return match &wish.target {
                    Some(target) if wish.is_forced => {
                        tracing::warn!(
                            "Failover to {} time out exceeded, failing over.",
                            shown(Some(target))
                        );
                        Ok(target.clone())
                    }
                    _ => Err("Replica never caught up before timeout"),
                };
            }
        }
    }
}

fn shown(target: Option<&(String, u16)>) -> String {
    target.map_or("any replica".to_owned(), |(host, port)| {
        format!("{host}:{port}")
    })
}
