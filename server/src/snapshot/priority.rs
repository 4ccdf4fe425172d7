//! The threads that write snapshots give way to those that answer clients.
//!
//! Called at the start of each such thread.

use rustix::process::{getpriority_process, setpriority_process};

/// Niceness of a thread that writes a snapshot: about a tenth of what a shard gets where both want the same processor. Not more: a
/// sink that never runs would fill the snapshot's buffer, and writes would wait for it.
const BACKGROUND: i32 = 10;

/// Puts the calling thread into the background. Where that is refused everything works, with longer waits.
pub fn background() {
    // On Linux niceness is a thread's own, and "no process" names the caller.
    let result = getpriority_process(None)
        .and_then(|niceness| setpriority_process(None, niceness.max(BACKGROUND)));
    if let Err(error) = result {
        tracing::warn!(%error, "a snapshot is written with the priority of a shard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_goes_into_the_background() {
        let niceness = || getpriority_process(None).expect("readable");
        let before = niceness();
        let inside = std::thread::spawn(move || {
            background();
            niceness()
        });
        assert_eq!(inside.join().expect("no panic"), BACKGROUND.max(before));
        assert_eq!(niceness(), before);
    }
}
