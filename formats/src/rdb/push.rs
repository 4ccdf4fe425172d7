//! The reader for those who are given bytes instead of fetching them: an event loop, a decompressor, a socket.

use super::large::Next;
use super::reader::{Options, RdbReader};
use super::record::RdbError;
use std::io::{self, Read};

/// Takes the bytes of an RDB file as they come.
///
/// ```
/// use dfsnap_formats::rdb::large::Next;
/// use dfsnap_formats::rdb::push::{PushReader, Pushed};
/// use dfsnap_formats::rdb::reader::{Options, Record};
/// let mut reader = PushReader::new(Options::default());
/// let mut keys = 0;
/// for piece in b"REDIS0003\x00\x01a\x01x\x00\x01b\x01y\xff".chunks(4) {
///     reader.feed(piece);
///     while let Pushed::Found(next) = reader.next(usize::MAX).unwrap() {
///         if let Next::Record(Record::Key(key)) = next {
///             keys += key.key.len();
///         }
///     }
/// }
/// assert_eq!(keys, 2);
/// reader.finish();
/// assert!(matches!(reader.next(usize::MAX), Ok(Pushed::End)));
/// ```
#[derive(Debug)]
pub struct PushReader {
    reader: RdbReader<Fed>,
}

/// What `next` comes to.
#[derive(Debug)]
pub enum Pushed<'a> {
    Found(Next<'a>),
    /// Nothing before more bytes are fed.
    Hungry,
    /// Behind the end of the file.
    End,
}

/// Bytes that were fed and not yet read.
#[derive(Debug, Default)]
struct Fed {
    bytes: Vec<u8>,
    /// 0 <= at <= bytes.len()
    at: usize,
    is_finished: bool,
}

impl Read for Fed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = &self.bytes[self.at..];
        if left.is_empty() && !self.is_finished {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = left.len().min(out.len());
        out[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

impl PushReader {
    pub fn new(options: Options) -> Self {
        PushReader {
            reader: RdbReader::new(Fed::default(), options),
        }
    }

    /// Adds the next bytes of the file. They are kept until `next` has read them.
    pub fn feed(&mut self, bytes: &[u8]) {
        let fed = self.reader.source_mut();
        fed.bytes.drain(..fed.at);
        fed.at = 0;
        fed.bytes.extend_from_slice(bytes);
    }

    /// No bytes will follow: what is not whole by now is an error.
    pub fn finish(&mut self) {
        self.reader.source_mut().is_finished = true;
    }

    /// The next record of the bytes that are here; see [`RdbReader::next_within`].
    pub fn next(&mut self, value_bytes_max: usize) -> Result<Pushed<'_>, RdbError> {
        match self.reader.next_within(value_bytes_max) {
            Ok(Some(next)) => Ok(Pushed::Found(next)),
            Ok(None) => Ok(Pushed::End),
            Err(RdbError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(Pushed::Hungry)
            }
            Err(error) => Err(error),
        }
    }

    /// For taking a large value in pieces: `large_bytes` and `large_parts` answer with an error of the kind
    /// `WouldBlock` when they need more bytes, and go on when they are called again.
    pub fn reader(&mut self) -> &mut RdbReader<impl Read> {
        &mut self.reader
    }

    /// Bytes that were fed and do not belong to the file.
    pub fn into_rest(self) -> Vec<u8> {
        let (mut rest, fed) = self.reader.into_parts();
        rest.extend_from_slice(&fed.bytes[fed.at..]);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::reader::Record;

    const FILE: &[u8] = b"REDIS0003\xfe\x01\x01\x01k\x02\x05first\x06second\xff*1\r\n";

    #[test]
    fn any_cut_gives_the_same_records() {
        for cut in 0..FILE.len() {
            let mut reader = PushReader::new(Options::default());
            let mut seen = Vec::new();
            for piece in [&FILE[..cut], &FILE[cut..]] {
                reader.feed(piece);
                while let Pushed::Found(next) = reader.next(usize::MAX).unwrap() {
                    if let Next::Record(Record::Key(key)) = next {
                        seen.push((key.db, key.value.to_vec()));
                    }
                }
            }
            assert_eq!(seen, [(1, b"\x02\x05first\x06second".to_vec())], "{cut}");
            assert!(matches!(reader.next(usize::MAX), Ok(Pushed::End)), "{cut}");
            assert_eq!(reader.into_rest(), b"*1\r\n", "{cut}");
        }
    }

    #[test]
    fn an_end_too_early_is_an_error_only_when_it_is_said() {
        let mut reader = PushReader::new(Options::default());
        reader.feed(&FILE[..16]);
        while let Pushed::Found(_) = reader.next(usize::MAX).unwrap() {}
        assert!(matches!(reader.next(usize::MAX), Ok(Pushed::Hungry)));
        reader.finish();
        let error = reader.next(usize::MAX).unwrap_err().to_string();
        assert!(
            error.starts_with("offset 15: value of key \"k\""),
            "{error}"
        );
    }
}
