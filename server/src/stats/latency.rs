//! The latency monitor: for each event the seconds in which it took longer than `latency-monitor-threshold`, and how long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::now_ms;

/// Seconds kept of each event.
const SAMPLES_MAX: usize = 160;

/// What is known of one event.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Unix seconds and the longest duration in each, milliseconds; oldest first.
    pub samples: VecDeque<(i64, u64)>,
    /// The longest of all, milliseconds.
    pub longest_ms: u64,
}

/// All events.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    /// `latency-monitor-threshold`, milliseconds; 0: off.
    pub threshold_ms: AtomicU64,
    series: Mutex<BTreeMap<&'static str, Series>>,
}

impl LatencyMonitor {
    fn with<R>(&self, look: impl FnOnce(&mut BTreeMap<&'static str, Series>) -> R) -> R {
        look(&mut self.series.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something took this long.
    #[inline]
    pub fn add(&self, event: &'static str, nanos: u64) {
        let threshold = self.threshold_ms.load(Ordering::Relaxed);
        if threshold > 0 && nanos >= threshold * 1_000_000 {
            self.note(event, now_ms() / 1000, nanos / 1_000_000);
        }
    }

    fn note(&self, event: &'static str, at_s: i64, ms: u64) {
        self.with(|all| {
            let series = all.entry(event).or_default();
            series.longest_ms = series.longest_ms.max(ms);
            match series.samples.back_mut() {
                Some((last_s, last_ms)) if *last_s == at_s => *last_ms = ms.max(*last_ms),
                _ => series.samples.push_back((at_s, ms)),
            }
            if series.samples.len() > SAMPLES_MAX {
                series.samples.pop_front();
            }
        });
    }

    /// Each event with what is known of it.
    pub fn all(&self) -> Vec<(&'static str, Series)> {
        self.with(|all| {
            all.iter()
                .map(|(name, series)| (*name, series.clone()))
                .collect()
        })
    }

    /// The samples of an event.
    pub fn samples(&self, event: &[u8]) -> Vec<(i64, u64)> {
        self.with(|all| {
            let known = all.iter().find(|(name, _)| name.as_bytes() == event);
            known.map_or(Vec::new(), |(_, series)| {
                series.samples.iter().copied().collect()
            })
        })
    }

    /// Forgets these events, or all; how many were known.
    pub fn reset(&self, events: &[&[u8]]) -> usize {
        self.with(|all| {
            let before = all.len();
            all.retain(|name, _| !events.is_empty() && !events.contains(&name.as_bytes()));
            before - all.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_keeps_its_longest() {
        let monitor = LatencyMonitor::default();
        monitor.add("command", u64::MAX);
        assert!(monitor.all().is_empty(), "it is off");
        for (at_s, ms) in [(1, 5), (1, 9), (1, 3), (2, 4)] {
            monitor.note("command", at_s, ms);
        }
        assert_eq!(monitor.samples(b"command"), [(1, 9), (2, 4)]);
        assert_eq!(monitor.all()[0].1.longest_ms, 9);
        assert_eq!(monitor.reset(&[b"other"]), 0);
        assert_eq!(monitor.reset(&[]), 1);
    }
}
