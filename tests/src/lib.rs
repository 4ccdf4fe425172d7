//! What the end-to-end tests share: starting servers on free ports, a synchronous client, and reading dump files.
//!
//! The server under test is the binary that `DFSNAP_SERVER` names, else `dfsnap-server` in the target folder of the running
//! test. Real servers are those of the machine; a test that needs one and does not find it says `skipped:` and passes.

pub mod client;
pub mod dump;
pub mod link;
pub mod load;
pub mod pki;
pub mod point;
pub mod primary;
pub mod process;
pub mod serial;
pub mod tunnel;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks again and again until `probe` says something; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Sets a flag when it goes, by a panic too: threads that run until the flag is set would keep a scope from ending.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The seed of a randomised test: `DFSNAP_SEED`, else one from the clock. It is printed, so that a failure can be replayed.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("DFSNAP_SEED") {
        Ok(text) => text.parse().expect("DFSNAP_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("{test}: DFSNAP_SEED={seed}");
    seed
}

/// How long a randomised test goes on: `DFSNAP_SECONDS`, else `default`.
pub fn seconds(default: u64) -> Duration {
    let seconds = std::env::var("DFSNAP_SECONDS").map_or(default, |text| {
        text.parse().expect("DFSNAP_SECONDS is a number")
    });
    Duration::from_secs(seconds)
}
