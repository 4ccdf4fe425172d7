//! What holds clients' commands back: CLIENT PAUSE, a failover, and whoever must do something while nobody writes.
//!
//! Connections ask for [`World::pause`] before a command runs (`net::flow`), and wait until it has changed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{FailoverStage, World};
use crate::clock::now_ms;

/// CLIENT PAUSE.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Until when, Unix ms.
    pub until_ms: i64,
    /// All commands, not only those that write.
    pub is_all: bool,
}

impl World {
    /// Whether writes wait for an end that is not a time: of a failover, or of a [`WriteHold`].
    fn holds_writes(&self) -> bool {
        self.write_holds.load(Ordering::SeqCst) > 0 || self.failover() != FailoverStage::None
    }

    /// The pause that is on: of CLIENT PAUSE, of a failover, of somebody who holds writes.
    pub fn pause(&self) -> Option<Pause> {
        let is_held = self.holds_writes();
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.is_some_and(|pause| pause.until_ms <= now_ms()) {
            *pause = None;
            self.hub.is_paused.store(is_held, Ordering::Relaxed);
        }
        match *pause {
            pause if !is_held => pause,
            pause => Some(Pause {
                until_ms: i64::MAX,
                is_all: pause.is_some_and(|pause| pause.is_all),
            }),
        }
    }

    /// The pause of CLIENT PAUSE alone.
    pub fn client_pause(&self) -> Option<Pause> {
        if !self.hub.is_paused.load(Ordering::Relaxed) {
            return None;
        }
        let pause = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        pause.filter(|pause| pause.until_ms > now_ms())
    }

    /// Starts, changes or ends a pause.
    pub fn change_pause(&self, change: impl FnOnce(&mut Option<Pause>)) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pause);
        let is_paused = pause.is_some() || self.holds_writes();
        self.hub.is_paused.store(is_paused, Ordering::Relaxed);
        drop(pause);
        self.pause_changed.notify_waiters();
    }
}

/// While it lives, clients' writes wait, on all threads.
pub struct WriteHold(Arc<World>);

impl WriteHold {
    /// Begins once writes that were let through before have run.
    pub async fn begin(world: &Arc<World>) -> WriteHold {
        world.write_holds.fetch_add(1, Ordering::SeqCst);
        let hold = WriteHold(world.clone());
        world.change_pause(|_| ());
        world.links.settled().await;
        hold
    }
}

impl Drop for WriteHold {
    fn drop(&mut self) {
        self.0.write_holds.fetch_sub(1, Ordering::SeqCst);
        self.0.change_pause(|_| ());
    }
}
