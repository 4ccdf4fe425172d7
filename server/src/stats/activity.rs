//! What each shard's thread runs right now: for the watchdog, and for the last words of a process that crashes.
//!
//! A thread says so itself, with a store before each command and one behind it. Others only look, and may do so at any moment, also in a
//! signal handler: nothing here waits or takes memory.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that have a place. Those beyond say nothing.
pub const PLACES_MAX: usize = 1024;

/// What stands in a place while its thread runs no command.
const NOTHING: usize = 0;

/// One thread's own line of memory, so that nobody waits for the stores of another. The address of the name of what it runs.
#[repr(align(64))]
struct Place(AtomicUsize);

static PLACES: [Place; PLACES_MAX] = [const { Place(AtomicUsize::new(NOTHING)) }; PLACES_MAX];

thread_local! {
    static MINE: Cell<Option<&'static Place>> = const { Cell::new(None) };
}

/// This thread is a shard's from now on.
pub fn take_place(shard: usize) {
    MINE.set(PLACES.get(shard));
}

/// The command of this name runs on this thread until the answer is dropped; then what ran around it is said again.
#[inline]
#[must_use]
pub fn begin(name: &'static str) -> Doing {
    let Some(place) = MINE.get() else {
        return Doing(None);
    };
    let around = place.0.load(Ordering::Relaxed);
    place.0.store(name.as_ptr().addr(), Ordering::Relaxed);
    Doing(Some((place, around)))
}

/// A command runs.
pub struct Doing(Option<(&'static Place, usize)>);

impl Drop for Doing {
    #[inline]
    fn drop(&mut self) {
        if let Some((place, around)) = self.0 {
            place.0.store(around, Ordering::Relaxed);
        }
    }
}

/// What a shard's thread runs: the address of the name of a command. `None`: no command.
pub fn of_shard(shard: usize) -> Option<usize> {
    let name = PLACES.get(shard)?.0.load(Ordering::Relaxed);
    (name != NOTHING).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_says_what_it_runs_the_innermost_first_and_others_read_it() {
        const SHARD: usize = PLACES_MAX - 1;
        let (outer, inner) = ("outer", "inner");
        let at = |name: &'static str| Some(name.as_ptr().addr());
        let told = || {
            std::thread::spawn(|| of_shard(SHARD))
                .join()
                .expect("a look")
        };
        drop(begin(outer));
        assert_eq!(told(), None, "a thread without a place says nothing");
        take_place(SHARD);
        let running = begin(outer);
        assert_eq!(told(), at(outer));
        let nested = begin(inner);
        assert_eq!(told(), at(inner));
        drop(nested);
        assert_eq!(told(), at(outer));
        drop(running);
        assert_eq!(told(), None);
        assert_eq!(of_shard(PLACES_MAX), None);
    }
}
