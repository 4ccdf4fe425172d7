//! The slow log: commands that took longer than `slowlog-log-slower-than`, newest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::now_ms;

/// So many words of a command are kept, the last of them to say how many more there were.
const WORDS_MAX: usize = 32;
/// So many bytes of a word are kept.
const WORD_BYTES_MAX: usize = 128;

/// A slow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 0 since the start.
    pub id: u64,
    /// When it ended, Unix seconds.
    pub at_s: i64,
    /// How long it took, microseconds.
    pub micros: u64,
    /// Its words, shortened.
    pub words: Vec<Vec<u8>>,
    /// The client's address.
    pub addr: String,
    /// The client's name.
    pub name: String,
}

/// The log.
#[derive(Debug)]
pub struct Slowlog {
    /// `slowlog-log-slower-than`, microseconds; negative: nothing is logged.
    pub threshold_us: AtomicI64,
    /// `slowlog-max-len`
    pub len_max: AtomicUsize,
    entries: Mutex<(u64, VecDeque<Entry>)>,
}

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog {
            threshold_us: AtomicI64::new(-1),
            len_max: AtomicUsize::new(128),
            entries: Mutex::default(),
        }
    }
}

impl Slowlog {
    fn with<R>(&self, look: impl FnOnce(&mut (u64, VecDeque<Entry>)) -> R) -> R {
        look(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a command of this duration belongs here.
    #[inline]
    pub fn is_slow(&self, nanos: u64) -> bool {
        let threshold = self.threshold_us.load(Ordering::Relaxed);
        threshold >= 0 && nanos / 1000 >= threshold as u64
    }

    /// Adds a command.
    pub fn push(&self, args: &[&[u8]], micros: u64, addr: String, name: String) {
        let words = shortened(args);
        let len_max = self.len_max.load(Ordering::Relaxed);
        self.with(|(next_id, entries)| {
            entries.push_front(Entry {
                id: *next_id,
                at_s: now_ms() / 1000,
                micros,
                words,
                addr,
                name,
            });
            *next_id += 1;
            entries.truncate(len_max);
        });
    }

    /// The newest `count` entries.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.with(|(_, entries)| entries.iter().take(count).cloned().collect())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.with(|(_, entries)| entries.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries.
    pub fn reset(&self) {
        self.with(|(_, entries)| entries.clear());
    }
}

fn shortened(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let kept = if args.len() > WORDS_MAX {
        WORDS_MAX - 1
    } else {
        args.len()
    };
    let short = |word: &&[u8]| match word.len().checked_sub(WORD_BYTES_MAX) {
        None | Some(0) => word.to_vec(),
        Some(more) => {
            let tail = format!("... ({more} more bytes)");
            [&word[..WORD_BYTES_MAX], tail.as_bytes()].concat()
        }
    };
    let mut words: Vec<Vec<u8>> = args[..kept].iter().map(short).collect();
    if kept < args.len() {
        words.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_shortened() {
        let word = vec![b'x'; 200];
        let words: Vec<&[u8]> = std::iter::repeat_n(word.as_slice(), 40).collect();
        let short = shortened(&words);
        assert_eq!(short.len(), 32);
        assert!(short[0].ends_with(b"x... (72 more bytes)"));
        assert_eq!(short[31], b"... (9 more arguments)");
        assert_eq!(shortened(&words[..32]).len(), 32);
    }
}
