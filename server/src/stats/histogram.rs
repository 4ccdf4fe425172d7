//! A histogram of durations: sixteen steps for each doubling, so that a value read back is less than seven percent off.

/// Steps for each doubling: 2 to this power.
const STEP_BITS: u32 = 4;
const STEPS: usize = 1 << STEP_BITS;
/// Doublings from one microsecond on; what lasts longer than a second is counted as a second, as Redis does.
const DOUBLINGS: usize = 20;
const LONGEST_NANOS: u64 = 1_000_000_000;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// As far as the longest that was added: most commands are short, and there is one histogram for each command and thread.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Adds a duration. Shorter than a microsecond is a microsecond.
    pub fn add(&mut self, nanos: u64) {
        let place = place(nanos);
        self.make_room(place + 1);
        self.counts[place] += 1;
        self.total += 1;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Histogram) {
        self.make_room(other.counts.len());
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.total += other.total;
    }

    /// Has room for counts at so many places, in whole doublings.
    #[inline]
    fn make_room(&mut self, places: usize) {
        if places > self.counts.len() {
            let len = places.next_multiple_of(STEPS);
            self.counts.reserve_exact(len - self.counts.len());
            self.counts.resize(len, 0);
        }
    }

    /// Number of durations.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration, in microseconds, that this share (in percent) of all does not exceed.
    pub fn percentile(&self, percent: f64) -> f64 {
        let wanted = (percent / 100.0 * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_micros(place);
            }
        }
        0.0
    }

    /// For each power of two of microseconds up to the longest: how many did not last longer. Only those that add something.
    pub fn doublings(&self) -> Vec<(u64, u64)> {
        let mut doublings = Vec::new();
        let (mut seen, mut place, mut told) = (0, 0, 0);
        for power in 0..=DOUBLINGS {
            let limit = (1u64 << power) as f64;
            while place < self.counts.len() && upper_micros(place) <= limit * 1.000_001 {
                seen += self.counts[place];
                place += 1;
            }
            if seen > told {
                doublings.push((1 << power, seen));
                told = seen;
            }
        }
        doublings
    }
}

fn place(nanos: u64) -> usize {
    // In units of 1/16 microsecond: the first octave is 16..32 of them.
    let units = (nanos.min(LONGEST_NANOS) * STEPS as u64)
        .div_ceil(1000)
        .max(STEPS as u64 + 1)
        - 1;
    let octave = units.ilog2() - STEP_BITS;
    let step = (units >> octave) as usize - STEPS;
    octave as usize * STEPS + step
}

/// The longest duration that is counted here, in microseconds.
fn upper_micros(place: usize) -> f64 {
    let (octave, step) = (place / STEPS, place % STEPS);
    ((STEPS + step + 1) << octave) as f64 / STEPS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_close() {
        for nanos in [
            1,
            999,
            1000,
            1001,
            1500,
            2000,
            2001,
            123_456,
            999_999_999,
            5_000_000_000,
        ] {
            let mut histogram = Histogram::default();
            histogram.add(nanos);
            let wanted = (nanos.min(LONGEST_NANOS) as f64 / 1000.0).max(1.0);
            let got = histogram.percentile(99.0);
            assert!(
                got >= wanted * 0.999 && got <= wanted * 1.07,
                "{nanos}: {got}"
            );
        }
    }

    #[test]
    fn doublings_add_up() {
        let mut histogram = Histogram::default();
        for micros in [1, 2, 3, 5, 100] {
            histogram.add(micros * 1000);
        }
        assert_eq!(histogram.total(), 5);
        let last = histogram.doublings().last().copied();
        assert_eq!(last, Some((128, 5)));
    }
}
