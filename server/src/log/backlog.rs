//! The last bytes of the stream, in pieces that readers share.

use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes shared with other readers, and where in them to begin.
pub type Piece = (Arc<[u8]>, usize);

/// Bytes of the stream from some offset on.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Consecutive pieces, each with the offset before it. None is empty.
    pieces: VecDeque<(u64, Arc<[u8]>)>,
    /// Offset after which the first piece begins: bytes `start + 1 ..= start + len` are held.
    start: u64,
    len: u64,
}

impl Backlog {
    /// An empty backlog: the next byte is `offset + 1`.
    pub fn new(offset: u64) -> Backlog {
        Backlog {
            pieces: VecDeque::new(),
            start: offset,
            len: 0,
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

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: impl Into<Arc<[u8]>>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            let end = self.end();
            self.len += bytes.len() as u64;
            self.pieces.push_back((end, bytes));
        }
    }

    /// Lets go of what is older than `limit` bytes and before `needed`: each piece goes to `to`, with the offset before it. Whole pieces
    /// only: a reader may hold one.
    pub fn trim(&mut self, limit: u64, needed: u64, mut to: impl FnMut(u64, Arc<[u8]>)) {
        while let Some((_, first)) = self.pieces.front() {
            let bytes = first.len() as u64;
            if self.len - bytes < limit || self.start + bytes > needed {
                break;
            }
            if let Some((start, first)) = self.pieces.pop_front() {
                to(start, first);
            }
            self.start += bytes;
            self.len -= bytes;
        }
    }

    /// The bytes after `offset`, up to the end of the piece they are in; `None` if they are gone or not there yet.
    pub fn after(&self, offset: u64) -> Option<Piece> {
        if offset < self.start || offset >= self.end() {
            return None;
        }
        // One that has fallen behind has thousands of pieces before it, and those near the end few behind.
        let next = self.pieces.partition_point(|(start, _)| *start <= offset);
        let (start, piece) = self.pieces.get(next.checked_sub(1)?)?;
        Some((piece.clone(), (offset - start) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_find_every_byte_until_it_is_trimmed() {
        let mut backlog = Backlog::new(100);
        backlog.push(b"abc".as_slice());
        backlog.push(b"defgh".as_slice());
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
}
