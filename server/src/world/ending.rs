//! Attempts to end the process, while they can still be given up: SHUTDOWN and signals wait for replicas first.
//!
//! There may be several at a time. SHUTDOWN ABORT gives up all of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The attempts under way.
#[derive(Debug, Default)]
pub struct Ending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that go on.
    attempts: u32,
    /// How often attempts were given up.
    aborts: u64,
    /// Until when replicas are waited for, Unix ms; 0: they are not.
    until_ms: i64,
}

impl Ending {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt begins.
    pub fn begin(&self) -> Attempt<'_> {
        let mut state = self.state();
        state.attempts += 1;
        Attempt {
            ending: self,
            aborts: state.aborts,
        }
    }

    /// Gives up all attempts under way; false if there are none.
    pub fn abort(&self) -> bool {
        let mut state = self.state();
        let has_any = state.attempts > 0;
        state.aborts += u64::from(has_any);
        state.attempts = 0;
        state.until_ms = 0;
        has_any
    }

    /// How often attempts were given up.
    pub fn aborts(&self) -> u64 {
        self.state().aborts
    }

    /// How long replicas are still waited for, in ms.
    pub fn left_ms(&self, now_ms: i64) -> Option<i64> {
        let until_ms = self.state().until_ms;
        (until_ms > 0).then(|| (until_ms - now_ms).max(0))
    }
}

/// One attempt, until it is dropped.
#[derive(Debug)]
pub struct Attempt<'a> {
    ending: &'a Ending,
    /// As many as there were when it began.
    aborts: u64,
}

impl Attempt<'_> {
    /// Whether it was given up.
    pub fn is_aborted(&self) -> bool {
        self.ending.state().aborts != self.aborts
    }

    /// Replicas are waited for until then, Unix ms.
    pub fn waits_until(&self, until_ms: i64) {
        self.ending.state().until_ms = until_ms;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.ending.state();
        if state.aborts != self.aborts {
            // It counts no more.
            return;
        }
        state.attempts -= 1;
        if state.attempts == 0 {
            state.until_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_gives_up_the_attempts_under_way_and_no_later_one() {
        let ending = Ending::default();
        assert!(!ending.abort());
        let (first, second) = (ending.begin(), ending.begin());
        first.waits_until(1_500);
        assert_eq!(ending.left_ms(1_000), Some(500));
        assert_eq!(ending.left_ms(2_000), Some(0));
        assert!(!first.is_aborted());
        assert!(ending.abort());
        assert!(first.is_aborted() && second.is_aborted());
        assert!(!ending.abort(), "given up already");
        drop(first);
        let third = ending.begin();
        assert!(!third.is_aborted());
        drop((second, third));
        assert_eq!(ending.left_ms(1_000), None);
        assert!(!ending.abort());
    }
}
