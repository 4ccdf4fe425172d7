//! Text that grows at its end.
//!
//! Most pieces are a few bytes, and there are a hundred million in a gigabyte. Behind the text there are bytes already, so that
//! a piece takes a comparison and a few moves of a fixed size, which may put more than is meant: the next piece overwrites it. A
//! vector would have to grow by as much as there might be, and to shrink again.

/// How many bytes are made ready at once.
const READY_BYTES: usize = 4096;

/// What bytes can be put behind.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Put for Buffer {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What a `Writer` writes into. It is the bytes that are written.
#[derive(Debug, Default)]
pub struct Buffer {
    /// The text, and bytes that are none behind it.
    bytes: Vec<u8>,
    len: usize,
}

impl From<Vec<u8>> for Buffer {
    /// Writes behind what is there, in its memory as far as that goes.
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Buffer { bytes, len }
    }
}

impl From<Buffer> for Vec<u8> {
    fn from(buffer: Buffer) -> Vec<u8> {
        let Buffer { mut bytes, len } = buffer;
        bytes.truncate(len);
        bytes
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Buffer {
    pub fn new() -> Self {
        Buffer::default()
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// For who writes into vectors. No bytes are ready behind what they wrote.
    pub fn with_vec<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.bytes.truncate(self.len);
        let written = write(&mut self.bytes);
        self.len = self.bytes.len();
        written
    }

    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end + READY_BYTES, 0);
        }
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// The next `N` bytes, whatever is in them; `advance` says how many of them are text. None: there are not so many, until
    /// something else has been put.
    #[inline(always)]
    pub(super) fn ready<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        const { assert!(N <= READY_BYTES) };
        let behind = self.bytes.get_mut(self.len..);
        behind.and_then(|behind| behind.first_chunk_mut())
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, len: usize) {
        self.len += len;
    }

    /// Bytes of a length that is known when this is compiled.
    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        match self.ready() {
            Some(ready) => {
                *ready = bytes;
                self.advance(N);
            }
            None => self.extend_from_slice(&bytes),
        }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) {
        self.array([byte]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_any_way(pieces in proptest::collection::vec((0usize..6000, 0u8..4), 0..12)) {
            let mut want = b"kept".to_vec();
            let mut buffer = Buffer::from(want.clone());
            for (len, way) in pieces {
                let piece: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                match way {
                    0 => buffer.extend_from_slice(&piece),
                    1 => buffer.with_vec(|bytes| bytes.extend_from_slice(&piece)),
                    2 => piece.iter().for_each(|byte| buffer.push(*byte)),
                    _ => {
                        // More is moved than is meant.
                        for part in piece.chunks(8) {
                            let mut room = [0xFF; 8];
                            room[..part.len()].copy_from_slice(part);
                            match buffer.ready() {
                                Some(ready) => {
                                    *ready = room;
                                    buffer.advance(part.len());
                                }
                                None => buffer.extend_from_slice(part),
                            }
                        }
                    }
                }
                want.extend_from_slice(&piece);
                prop_assert_eq!(&buffer[..], &want[..]);
            }
            prop_assert_eq!(buffer.len(), want.len());
            prop_assert_eq!(Vec::from(buffer), want);
        }
    }
}
