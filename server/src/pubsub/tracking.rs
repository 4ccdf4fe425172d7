//! Which clients keep copies of which keys, and who is told when a key changes (CLIENT TRACKING).
//!
//! A client that tracks is known by its [`Tracker`]. Keys that it reads are remembered until they change once (the default), or it hears
//! of all keys with given prefixes (BCAST).
//!
//! Invariants
//! - A key is remembered by the run that reads it, so that no change comes in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::outbox::{Limits, Outbox, Push};

/// How a client wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Of all keys with its prefixes, read or not.
    pub is_broadcast: bool,
    /// Only of keys read by a command behind CLIENT CACHING YES.
    pub opts_in: bool,
    /// Of all keys it reads but those of a command behind CLIENT CACHING NO.
    pub opts_out: bool,
    /// Not of its own changes.
    pub is_no_loop: bool,
}

/// One client that tracks.
#[derive(Debug)]
pub struct Tracker {
    /// Its outbox.
    pub outbox: Arc<Outbox>,
    /// The outbox of the client that gets its messages, if that is another.
    pub redirect: Option<Arc<Outbox>>,
    /// How it wants to hear.
    pub options: Options,
    /// Prefixes of a broadcasting client; empty: all keys.
    pub prefixes: Vec<Vec<u8>>,
    /// The client that got its messages has gone.
    pub is_broken: AtomicBool,
    is_over: AtomicBool,
}

impl Tracker {
    /// A client that begins to track.
    pub fn new(
        outbox: Arc<Outbox>,
        redirect: Option<Arc<Outbox>>,
        options: Options,
        prefixes: Vec<Vec<u8>>,
    ) -> Tracker {
        Tracker {
            outbox,
            redirect,
            options,
            prefixes,
            is_broken: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn send(&self, keys: Option<Vec<Vec<u8>>>, limits: &Limits) {
        let invalidation = |is_redirected| Push::Invalidate {
            keys,
            is_redirected,
        };
        match &self.redirect {
            None => self.outbox.push(invalidation(false), limits),
            Some(target) if target.is_open() => target.push(invalidation(true), limits),
            Some(target) => {
                self.is_broken.store(true, Ordering::Relaxed);
                self.outbox
                    .push(Push::RedirectionBroken(target.client_id), limits);
            }
        }
    }
}

/// On whose behalf a command runs, as far as tracking and the slow log want to know.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The client's id; 0: none.
    pub id: u64,
    /// Its looks at keys are no use of them (CLIENT NO-TOUCH).
    pub is_no_touch: bool,
    /// The command is part of another, which is logged as one.
    pub is_inner: bool,
    /// Set if the keys that the command reads are to be remembered for the client.
    pub reads_for: Option<Arc<Tracker>>,
}

/// All that is tracked.
#[derive(Debug, Default)]
pub struct Tracking {
    /// Clients that track.
    clients: AtomicUsize,
    keys: Mutex<HashMap<Vec<u8>, Vec<Arc<Tracker>>>>,
    broadcast: Mutex<BTreeMap<Vec<u8>, Vec<Arc<Tracker>>>>,
    all: Mutex<Vec<Arc<Tracker>>>,
    /// `tracking-table-max-keys`; 0: no limit.
    pub keys_max: AtomicUsize,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracking {
    /// Whether any client tracks.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// Clients that track; keys, pairs of key and client, and prefixes that are remembered.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let keys = locked(&self.keys);
        (
            self.clients.load(Ordering::Relaxed),
            keys.len(),
            keys.values()
                .flatten()
                .filter(|tracker| !tracker.has_ended())
                .count(),
            locked(&self.broadcast).len(),
        )
    }

    /// A client begins to track.
    pub fn start(&self, tracker: &Arc<Tracker>) {
        locked(&self.all).push(tracker.clone());
        self.clients.fetch_add(1, Ordering::Relaxed);
        if tracker.options.is_broadcast {
            let mut broadcast = locked(&self.broadcast);
            let everything = [Vec::new()];
            let prefixes = if tracker.prefixes.is_empty() {
                everything.as_slice()
            } else {
                &tracker.prefixes
            };
            for prefix in prefixes {
                broadcast
                    .entry(prefix.clone())
                    .or_default()
                    .push(tracker.clone());
            }
        }
    }

    /// A client tracks no more. What is remembered for it goes when it is met.
    pub fn stop(&self, tracker: &Arc<Tracker>) {
        if tracker.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        self.clients.fetch_sub(1, Ordering::Relaxed);
        locked(&self.all).retain(|other| !Arc::ptr_eq(other, tracker));
        locked(&self.broadcast).retain(|_, trackers| {
            trackers.retain(|other| !Arc::ptr_eq(other, tracker));
            !trackers.is_empty()
        });
    }

    /// A client reads a key.
    pub fn remember(&self, key: &[u8], tracker: &Arc<Tracker>, limits: &Limits) {
        let mut keys = locked(&self.keys);
        let trackers = match keys.get_mut(key) {
            Some(trackers) => trackers,
            None => keys.entry(key.to_vec()).or_default(),
        };
        if !trackers.iter().any(|other| Arc::ptr_eq(other, tracker)) {
            trackers.push(tracker.clone());
        }
        let keys_max = self.keys_max.load(Ordering::Relaxed);
        if keys_max > 0 && keys.len() > keys_max {
            // Some other key makes room: whoever keeps it is told to forget it.
            let other = keys.keys().find(|other| *other != key).cloned();
            if let Some(other) = other {
                let trackers = keys.remove(&other).unwrap_or_default();
                drop(keys);
                tell(&trackers, &other, 0, limits);
            }
        }
    }

    /// The limit on keys has changed: those above it are forgotten, and whoever keeps them is told.
    pub fn keep_limit(&self, limits: &Limits) {
        loop {
            let keys_max = self.keys_max.load(Ordering::Relaxed);
            let mut keys = locked(&self.keys);
            if keys_max == 0 || keys.len() <= keys_max {
                return;
            }
            let Some(key) = keys.keys().next().cloned() else {
                return;
            };
            let trackers = keys.remove(&key).unwrap_or_default();
            drop(keys);
            tell(&trackers, &key, 0, limits);
        }
    }

    /// These keys have changed, by this client (0: by none). Who broadcasts hears by [`Tracking::broadcast`].
    pub fn invalidate<'k>(
        &self,
        changed: impl Iterator<Item = &'k [u8]>,
        by: u64,
        limits: &Limits,
    ) {
        for key in changed {
            tell(&self.forget(key), key, by, limits);
        }
    }

    /// A key changes: who has read it, which is remembered no longer. They are still to be [told](tell).
    pub fn forget(&self, key: &[u8]) -> Vec<Arc<Tracker>> {
        locked(&self.keys).remove(key).unwrap_or_default()
    }

    /// Keys that a run has changed, by this client: one message for each prefix.
    pub fn broadcast<'k>(
        &self,
        changed: impl Iterator<Item = &'k [u8]> + Clone,
        by: u64,
        limits: &Limits,
    ) {
        let broadcast = locked(&self.broadcast);
        for (prefix, trackers) in broadcast.iter() {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for key in changed.clone().filter(|key| key.starts_with(prefix)) {
                if !keys.iter().any(|known| known == key) {
                    keys.push(key.to_vec());
                }
            }
            if keys.is_empty() {
                continue;
            }
            for tracker in trackers {
                if !(tracker.options.is_no_loop && tracker.outbox.client_id == by) {
                    tracker.send(Some(keys.clone()), limits);
                }
            }
        }
    }

    /// All keys have changed or gone. What is remembered goes although nobody tracks now.
    pub fn invalidate_all(&self, limits: &Limits) {
        locked(&self.keys).clear();
        for tracker in locked(&self.all).iter() {
            tracker.send(None, limits);
        }
    }
}

/// Tells these clients that a key has changed.
pub fn tell(trackers: &[Arc<Tracker>], key: &[u8], by: u64, limits: &Limits) {
    for tracker in trackers {
        let is_own = tracker.options.is_no_loop && tracker.outbox.client_id == by;
        if !is_own && !tracker.is_over.load(Ordering::Relaxed) {
            tracker.send(Some(vec![key.to_vec()]), limits);
        }
    }
}
