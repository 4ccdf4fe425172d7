//! Sessions that clients can resume, as `tls-session-cache-size` and `-timeout` bound them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::server::StoresServerSessions;

/// In memory; the oldest go first.
pub(crate) struct SessionStore {
    /// More are not kept; 0: without end.
    size: usize,
    timeout: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By id: until when, and the secrets.
    sessions: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// Ids in the order in which their time ends. May name some that are gone.
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl SessionStore {
    pub(crate) fn new(size: usize, timeout: Duration) -> SessionStore {
        SessionStore {
            size,
            timeout,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Lets go of those whose time is over, and of the oldest beyond `size`.
    fn trim(&mut self, now: Instant, size: usize) {
        while let Some((until, id)) = self.order.front() {
            let is_over = *until <= now || (size > 0 && self.order.len() > size);
            if !is_over {
                break;
            }
            // One that was stored again under the same id has a later time.
            if self
                .sessions
                .get(id)
                .is_some_and(|(known, _)| known == until)
            {
                self.sessions.remove(id);
            }
            self.order.pop_front();
        }
    }
}

impl StoresServerSessions for SessionStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let now = Instant::now();
        let until = now + self.timeout;
        let mut kept = self.kept();
        kept.sessions.insert(key.clone(), (until, value));
        kept.order.push_back((until, key));
        kept.trim(now, self.size);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept();
        let (until, value) = kept.sessions.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (until, value) = self.kept().sessions.remove(key)?;
        (until > Instant::now()).then_some(value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionStore of at most {}", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sessions_go_first() {
        let store = SessionStore::new(2, Duration::from_secs(60));
        for id in 1..=3u8 {
            assert!(store.put(vec![id], vec![id, id]));
        }
        assert_eq!(store.get(&[1]), None);
        assert_eq!(store.get(&[2]), Some(vec![2, 2]));
        assert_eq!(store.take(&[3]), Some(vec![3, 3]));
        assert_eq!(store.take(&[3]), None);
    }

    #[test]
    fn a_session_stored_again_is_as_new() {
        let store = SessionStore::new(2, Duration::from_secs(60));
        for id in [1, 2, 1] {
            store.put(vec![id], vec![id]);
        }
        assert_eq!(store.get(&[1]), Some(vec![1]));
    }

    #[test]
    fn no_session_outlives_its_time() {
        let store = SessionStore::new(0, Duration::ZERO);
        store.put(vec![1], vec![1]);
        assert_eq!(store.get(&[1]), None);
        assert_eq!(store.take(&[1]), None);
        store.put(vec![2], vec![2]);
        assert!(store.kept().sessions.is_empty());
    }
}
