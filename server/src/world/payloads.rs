//! Snapshots that are being made for replicas. They are saves as well for whoever looks at INFO.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// When each of those began that go on.
#[derive(Debug, Default)]
pub struct Payloads(Mutex<Vec<Instant>>);

impl Payloads {
    fn began(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One begins. It ends when what is returned is dropped.
    pub fn begin(&self) -> PayloadMade<'_> {
        let began = Instant::now();
        self.began().push(began);
        PayloadMade {
            payloads: self,
            began,
        }
    }

    /// When the oldest that goes on began.
    pub fn oldest(&self) -> Option<Instant> {
        self.began().iter().min().copied()
    }
}

/// One snapshot for replicas.
#[derive(Debug)]
pub struct PayloadMade<'a> {
    payloads: &'a Payloads,
    began: Instant,
}

impl Drop for PayloadMade<'_> {
    fn drop(&mut self) {
        let mut all = self.payloads.began();
        if let Some(at) = all.iter().position(|began| *began == self.began) {
            all.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_goes_on_is_known() {
        let payloads = Payloads::default();
        assert_eq!(payloads.oldest(), None);
        let first = payloads.begin();
        let second = payloads.begin();
        assert_eq!(payloads.oldest(), Some(first.began));
        let began = second.began;
        drop(first);
        assert_eq!(payloads.oldest(), Some(began));
        drop(second);
        assert_eq!(payloads.oldest(), None);
    }
}
