//! A look ahead at a pipeline: the entries that its next requests are about come into the cache together, where the look-ups would wait
//! for memory one by one.
//!
//! Called by `Connection::work_off` between two requests. Nothing depends on what is found here: a request that is not understood, or not
//! there as a whole yet, ends the look, and a key that is on another shard costs the time of its hash.

use smallvec::SmallVec;

use crate::keyspace::{DbIndex, Key, shard_of};
use crate::shard::Shard;

/// Requests that one look is about.
const REQUESTS: usize = 16;
/// A table with fewer entries is in the cache without that.
const ENTRIES_MIN: usize = 16 * 1024;
/// Of a request with more words, or longer ones, the work is more than the waits.
const WORDS_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 64 * 1024;

/// How far a query buffer has been looked through.
#[derive(Default)]
pub(super) struct Ahead {
    until: usize,
}

impl Ahead {
    /// The buffer begins elsewhere now.
    pub(super) fn restart(&mut self) {
        self.until = 0;
    }

    /// Has the entries of the requests from `at` on in the cache, unless they are known to be.
    #[inline]
    pub(super) fn look(&mut self, shard: &Shard, db: DbIndex, buffer: &[u8], at: usize) {
        if at >= self.until && at < buffer.len() {
            self.until = warm(shard, db, buffer, at);
        }
    }
}

/// Returns up to where there is nothing left to look at.
fn warm(shard: &Shard, db: DbIndex, buffer: &[u8], mut at: usize) -> usize {
    let Some(keyspace) = &shard.keyspace else {
        return at;
    };
    if keyspace.database(db).entries().len() < ENTRIES_MIN {
        return buffer.len();
    }
    let shards = shard.links.shards();
    let mut hashes: SmallVec<[u64; REQUESTS]> = SmallVec::new();
    let mut is_whole = true;
    for _ in 0..REQUESTS {
        let Some((key, len)) = first_key(&buffer[at..]) else {
            is_whole = false;
            break;
        };
        at += len;
        let hash = key.map(|key| Key::new(key).hash);
        hashes.extend(hash.filter(|hash| shard_of(*hash, shards) == shard.index));
    }
    for hash in hashes {
        keyspace.warm_entry(db, hash);
    }
    if is_whole { at } else { buffer.len() }
}

/// The second word of the request that `bytes` begins with, if it has one, and the length of the request.
fn first_key(bytes: &[u8]) -> Option<(Option<&[u8]>, usize)> {
    let (words, mut at) = header(bytes, b'*')?;
    if words > WORDS_MAX {
        return None;
    }
    let mut key = None;
    for word in 0..words {
        let (len, header_len) = header(&bytes[at..], b'$')?;
        at += header_len;
        if len > WORD_BYTES_MAX || bytes.len() < at + len + 2 {
            return None;
        }
        if word == 1 {
            key = Some(&bytes[at..at + len]);
        }
        at += len + 2;
    }
    Some((key, at))
}

/// The number of a line such as `*3` or `$12`, and the line's length.
fn header(bytes: &[u8], mark: u8) -> Option<(usize, usize)> {
    if *bytes.first()? != mark {
        return None;
    }
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(6) {
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Some((number, at + 2)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_word_is_taken_for_the_key() {
        let get = b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!(first_key(get), Some((Some(&b"hello"[..]), 24)));
        assert_eq!(first_key(&get[24..]), Some((None, 14)));
    }

    #[test]
    fn what_is_cut_or_no_array_ends_the_look() {
        let get = b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n";
        for end in 0..get.len() {
            assert_eq!(first_key(&get[..end]), None, "cut at {end}");
        }
        for bytes in [
            &b"GET hello\r\n"[..],
            b"*-1\r\n",
            b"*99999999999999999999\r\n",
            b"*2\r\n+GET\r\n",
            b"*1\r\n$-1\r\n",
            b"*2\r\n$3\r\nGET\r\n$99999\r\n",
        ] {
            assert_eq!(first_key(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
