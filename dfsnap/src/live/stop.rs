//! Whether the user has asked us to end: SIGINT or SIGTERM.
//!
//! The first signal is seen by whoever asks here, so that files are taken away and transactions finished; a second one
//! ends the process at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals are remembered instead of ending the process.
pub fn listen() {
    REQUESTED.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds the flag set by the first. Where the system refuses a handler, the
            // signal ends the process as it does without us.
            let ending = Arc::clone(&flag);
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, ending);
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    });
}

pub fn requested() -> bool {
    REQUESTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}
