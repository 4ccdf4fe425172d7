//! Items as a stream of requests: what `redis-cli --pipe` takes, or any client that does not wait for replies.
//!
//! Converters call it with items. `commands` says which commands they are; here they become arrays of bulk strings and
//! go out in pieces, so that a key with millions of elements needs no memory of its own.

use super::{push_bulk, push_line};
use crate::commands::{Commands, CommandsError, Options};
use crate::dataset::Item;
use std::io::{self, Write};

/// Bytes that are collected before they go out.
const BUFFER_BYTES: usize = 64 << 10;

/// Turns items into requests.
///
/// ```
/// use dfsnap_formats::commands::Options;
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::resp::PipeWriter;
/// use dfsnap_formats::value::Value;
/// let mut pipe = PipeWriter::new(Vec::new(), Options::default());
/// pipe.item(&Item::Entry(Entry::new(0, b"k", Value::String(b"v".to_vec())))).unwrap();
/// assert_eq!(pipe.requests(), 2);
/// let out = pipe.finish().unwrap();
/// assert_eq!(out, b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
/// ```
#[derive(Debug)]
pub struct PipeWriter<W> {
    commands: Commands,
    out: Out<W>,
}

#[derive(Debug)]
struct Out<W> {
    target: W,
    buffer: Vec<u8>,
    requests: u64,
    /// After the first failure nothing more goes out: half a request may have.
    failed: Option<io::Error>,
}

#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// Nothing of the item has gone out, and others may follow.
    #[error("{0}")]
    Item(#[from] CommandsError),
    #[error("writing failed: {0}")]
    Io(#[from] io::Error),
}

impl<W: Write> PipeWriter<W> {
    pub fn new(target: W, options: Options) -> Self {
        PipeWriter {
            commands: Commands::new(options),
            out: Out {
                target,
                buffer: Vec::new(),
                requests: 0,
                failed: None,
            },
        }
    }

    /// Aux fields and data of modules beside the keys have no commands, and leave nothing.
    pub fn item(&mut self, item: &Item) -> Result<(), PipeError> {
        let out = &mut self.out;
        self.commands.item(item, &mut |words| out.request(words))?;
        Ok(out.check()?)
    }

    /// As many replies will come.
    pub fn requests(&self) -> u64 {
        self.out.requests
    }

    /// Writes what is left and gives the target back.
    pub fn finish(mut self) -> Result<W, PipeError> {
        self.out.flush();
        self.out.check()?;
        self.out.target.flush()?;
        Ok(self.out.target)
    }
}

impl<W: Write> Out<W> {
    fn request(&mut self, words: &[&[u8]]) {
        push_line(&mut self.buffer, b'*', words.len());
        for word in words {
            if word.len() < BUFFER_BYTES {
                push_bulk(&mut self.buffer, word);
            } else {
                push_line(&mut self.buffer, b'$', word.len());
                self.flush();
                self.write(word);
                self.buffer.extend_from_slice(b"\r\n");
            }
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
        }
        self.requests += 1;
    }

    fn flush(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.target.write_all(bytes).err();
        }
    }

    /// The first failure is told as it came, later calls get its kind.
    fn check(&mut self) -> io::Result<()> {
        let Some(error) = self.failed.take() else {
            return Ok(());
        };
        self.failed = Some(io::Error::from(error.kind()));
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::ListBuilder;
    use crate::dataset::Entry;
    use crate::resp::RequestDecoder;
    use crate::value::Value;

    /// Remembers its largest write, and fails after so many bytes.
    struct Target {
        bytes: Vec<u8>,
        largest: usize,
        room: usize,
    }

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.bytes.len() + bytes.len() > self.room {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.largest = self.largest.max(bytes.len());
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn list(count: usize) -> Item {
        let mut list = ListBuilder::default();
        (0..count).for_each(|i| list.push(i.to_string().as_bytes()));
        Item::Entry(Entry::new(0, b"list", list.finish().unwrap()))
    }

    fn pipe(room: usize) -> PipeWriter<Target> {
        let target = Target {
            bytes: Vec::new(),
            largest: 0,
            room,
        };
        PipeWriter::new(target, Options::default())
    }

    #[test]
    fn long_values_go_out_in_pieces_and_every_request_is_whole() {
        let mut pipe = pipe(usize::MAX);
        pipe.item(&list(100_000)).unwrap();
        let long = Value::String(vec![b'x'; 3 * BUFFER_BYTES]);
        pipe.item(&Item::Entry(Entry::new(0, b"long", long)))
            .unwrap();
        let requests = pipe.requests();
        let Target { bytes, largest, .. } = pipe.finish().unwrap();
        assert_eq!(
            largest,
            3 * BUFFER_BYTES,
            "the long word, and nothing beyond it"
        );
        let mut decoder = RequestDecoder::new(1 << 30);
        let (mut at, mut found) = (0, 0);
        while at < bytes.len() {
            let used = decoder
                .decode(&bytes[at..])
                .unwrap()
                .expect("a whole request");
            (at, found) = (at + used, found + 1);
        }
        assert_eq!(found, requests);
    }

    #[test]
    fn a_failed_write_stays_failed() {
        let mut pipe = pipe(100_000);
        assert!(matches!(pipe.item(&list(100_000)), Err(PipeError::Io(_))));
        assert!(matches!(pipe.item(&list(1)), Err(PipeError::Io(_))));
        let Err(PipeError::Io(error)) = pipe.finish() else {
            panic!("finished");
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
