//! The last bytes of the stream, in blocks that readers share.
//!
//! What is behind the limit of the backlog, for replicas that lag, does not count against `maxmemory`: keys must not go for it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::memory::{self, NotCounted};

/// Bytes shared with other readers, and where in them to begin.
pub type Piece = (Arc<[u8]>, usize);

/// The allocation of a full block, less what stands in front of shared bytes.
const BLOCK_BYTES: usize = (16 << 10) - SHARED_BYTES;
/// In front of shared bytes: two counts.
const SHARED_BYTES: usize = 16;

/// A full block, and the offset before its first byte.
#[derive(Debug)]
struct Block {
    start: u64,
    bytes: Arc<[u8]>,
}

impl Block {
    fn allocated(&self) -> u64 {
        memory::size_class(self.bytes.len() + SHARED_BYTES) as u64
    }
}

/// Bytes of the stream from some offset on.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Consecutive blocks. None is empty.
    blocks: VecDeque<Block>,
    /// What comes behind them, less than a block: readers get copies.
    tail: Vec<u8>,
    /// Offset after which the first block begins: bytes `start + 1 ..= start + len` are held.
    start: u64,
    len: u64,
    /// Bytes of memory that the blocks take.
    blocks_bytes: u64,
    not_counted: NotCounted,
}

impl Backlog {
    /// An empty backlog: the next byte is `offset + 1`.
    pub fn new(offset: u64) -> Backlog {
        Backlog {
            start: offset,
            ..Backlog::default()
        }
    }

    /// Offset of the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Offset before the first byte held.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes held.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no bytes are held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory it takes.
    pub fn allocated(&self) -> u64 {
        let list = self.blocks.capacity() * size_of::<Block>();
        self.blocks_bytes + (list + self.tail.capacity()) as u64
    }

    /// Adds bytes at the end. A backlog of `limit` bytes has sixteen blocks or more.
    /// Long ones become a block of their own as they are.
    pub fn push(&mut self, bytes: impl Into<Arc<[u8]>> + AsRef<[u8]>, limit: u64) {
        let len = bytes.as_ref().len();
        let block_bytes = usize::try_from(limit / 16)
            .unwrap_or(usize::MAX)
            .clamp(1, BLOCK_BYTES);
        if self.tail.len() + len > block_bytes {
            self.seal();
        }
        if len < block_bytes {
            self.tail.reserve_exact(block_bytes - self.tail.len());
            self.tail.extend_from_slice(bytes.as_ref());
            self.len += len as u64;
        } else {
            self.add(bytes.into());
        }
    }

    /// The tail becomes a block.
    fn seal(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let mut tail = std::mem::take(&mut self.tail);
        self.len -= tail.len() as u64;
        self.add(tail.as_slice().into());
        tail.clear();
        self.tail = tail;
    }

    fn add(&mut self, bytes: Arc<[u8]>) {
        if self.blocks.len() == self.blocks.capacity() {
            // Before the list is there twice, so that no key goes for it.
            let more = self.blocks.capacity().max(4);
            self.not_counted
                .set(self.not_counted.get() + (2 * more * size_of::<Block>()) as u64);
            self.blocks.reserve_exact(more);
        }
        let block = Block {
            start: self.end(),
            bytes,
        };
        self.len += block.bytes.len() as u64;
        self.blocks_bytes += block.allocated();
        self.blocks.push_back(block);
    }

    /// Lets go of what is older than `limit` bytes and before `needed`: each block goes to `to`, with the offset before it. Whole blocks
    /// only: a reader may hold one.
    pub fn trim(&mut self, limit: u64, needed: u64, mut to: impl FnMut(u64, Arc<[u8]>)) {
        while let Some(first) = self.blocks.pop_front() {
            let bytes = first.bytes.len() as u64;
            if self.len - bytes < limit || self.start + bytes > needed {
                self.blocks.push_front(first);
                break;
            }
            self.blocks_bytes -= first.allocated();
            to(self.start, first.bytes);
            self.start += bytes;
            self.len -= bytes;
        }
        self.not_counted.set(self.allocated().saturating_sub(limit));
    }

    /// The bytes after `offset`, up to the end of the block they are in; `None` if they are gone or not there yet.
    pub fn after(&self, offset: u64) -> Option<Piece> {
        if offset < self.start || offset >= self.end() {
            return None;
        }
        let tail_start = self.end() - self.tail.len() as u64;
        if offset >= tail_start {
            return Some((self.tail[(offset - tail_start) as usize..].into(), 0));
        }
        let behind = self.blocks.partition_point(|block| block.start <= offset);
        let block = &self.blocks[behind - 1];
        Some((block.bytes.clone(), (offset - block.start) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_find_every_byte_until_it_is_trimmed() {
        let mut backlog = Backlog::new(100);
        backlog.push(b"abc".as_slice(), 16);
        backlog.push(b"defgh".as_slice(), 16);
        assert_eq!((backlog.start(), backlog.end()), (100, 108));
        let read = |backlog: &Backlog, offset| {
            backlog
                .after(offset)
                .map(|(piece, at)| piece[at..].to_vec())
        };
        assert_eq!(read(&backlog, 100).unwrap(), b"abc");
        assert_eq!(read(&backlog, 102).unwrap(), b"c");
        assert_eq!(read(&backlog, 103).unwrap(), b"defgh");
        assert_eq!(read(&backlog, 108), None, "not there yet");
        backlog.trim(5, 102, |_, _| panic!("nothing may go"));
        assert_eq!(
            read(&backlog, 100).unwrap(),
            b"abc",
            "a reader still needs byte 103"
        );
        let mut gone = Vec::new();
        backlog.trim(5, 108, |start, piece| gone.push((start, piece)));
        assert_eq!(gone, [(100, b"abc".as_slice().into())]);
        assert_eq!(read(&backlog, 100), None, "gone");
        assert_eq!(read(&backlog, 105).unwrap(), b"fgh");
    }

    #[test]
    fn small_records_share_blocks_whose_memory_is_known() {
        let mut backlog = Backlog::new(7);
        let record = b"*1\r\n$4\r\nPING\r\n";
        let (count, limit) = (10_000, 1 << 20);
        for n in 0..count {
            assert_eq!(backlog.end(), 7 + n * record.len() as u64);
            backlog.push(record.as_slice(), limit);
            backlog.trim(limit, 7, |_, _| panic!("a reader needs it"));
        }
        assert!(backlog.blocks.len() < 10, "{}", backlog.blocks.len());
        assert!(backlog.allocated() >= backlog.len());
        assert!(backlog.allocated() < backlog.len() + backlog.len() / 10);
        let (mut at, mut read) = (7, Vec::new());
        while let Some((piece, from)) = backlog.after(at) {
            read.extend_from_slice(&piece[from..]);
            at += (piece.len() - from) as u64;
        }
        assert!(read.chunks(record.len()).all(|chunk| chunk == record));
        assert_eq!(read.len() as u64, backlog.len());
    }
}
