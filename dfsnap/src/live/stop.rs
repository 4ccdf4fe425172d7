//! Whether the user has asked us to end, for verbs that have something to finish first.
//!
//! The thread that waits for signals asks here what to do with one. After `listen` the first signal is remembered, and
//! whoever works looks at `requested`; the second one ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

static LISTENING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on the first signal does not end the process.
pub fn listen() {
    LISTENING.store(true, Ordering::Relaxed);
}

/// A signal came. True: it was remembered, and somebody will act on it.
pub fn remember() -> bool {
    LISTENING.load(Ordering::Relaxed) && !REQUESTED.swap(true, Ordering::Relaxed)
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
