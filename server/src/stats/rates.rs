//! What happened in the last second and a half: commands and bytes a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Samples that count, one each tenth of a second.
const SAMPLES: usize = 16;

/// Rates a second, as of the last sample.
#[derive(Debug, Default)]
pub struct Rates {
    /// Commands.
    pub commands: AtomicU64,
    /// Bytes read from clients.
    pub input_bytes: AtomicU64,
    /// Bytes written to clients.
    pub output_bytes: AtomicU64,
}

/// Turns counters into rates. One for the process, beside [`Rates`].
#[derive(Debug, Default)]
pub struct Sampler {
    samples: VecDeque<(Instant, [u64; 3])>,
}

impl Sampler {
    /// Takes a sample: commands, bytes read and bytes written since the start.
    pub fn sample(&mut self, at: Instant, totals: [u64; 3], rates: &Rates) {
        self.samples.push_back((at, totals));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let (first_at, first) = self.samples[0];
        let seconds = at.saturating_duration_since(first_at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let targets = [&rates.commands, &rates.input_bytes, &rates.output_bytes];
        for ((target, now), before) in targets.into_iter().zip(totals).zip(first) {
            // A counter may have been set to zero meanwhile.
            let rate = now.saturating_sub(before) as f64 / seconds;
            target.store(rate as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_of_the_last_samples() {
        let (mut sampler, rates, start) = (Sampler::default(), Rates::default(), Instant::now());
        for n in 0..40u64 {
            let at = start + Duration::from_millis(100 * n);
            // Ten commands a tenth of a second, then none.
            sampler.sample(at, [10 * n.min(20), 0, 0], &rates);
            if n == 20 {
                assert_eq!(rates.commands.load(Ordering::Relaxed), 100);
            }
        }
        assert_eq!(rates.commands.load(Ordering::Relaxed), 0);
    }
}
