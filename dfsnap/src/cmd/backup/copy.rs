//! The payload of a full resync into an RDB file, byte for byte, with what Redis would have noted about its place.
//!
//! `Copy` sits between the link and the reader that checks: what the reader takes is written. Servers note their
//! replication id and offset in the dump themselves when they have a backlog; where they did not, the fields are put
//! in, and the checksum at the end is ours. It is ours too where the server computes none.
//!
//! Invariants
//! - The last eight bytes are written last, when the reader has found the payload sound.

use dfsnap_formats::checksum::RedisCrc;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::rdb::{VERSION_CRC, writer};
use dfsnap_replica::ReplId;
use std::io::{self, Read};

/// What a payload says about its place if nobody else did: the history and the offset at the cut.
pub type Origin = Option<(ReplId, u64)>;

/// `W` takes what is to be written.
pub struct Copy<R, W> {
    source: R,
    out: W,
    origin: Origin,
    /// The beginning, until it is known whether the fields are there.
    head: Option<Vec<u8>>,
    /// The last bytes, which may be the checksum.
    held: Vec<u8>,
    crc: RedisCrc,
    /// Bytes taken from the source.
    pub read: u64,
}

const CRC_BYTES: usize = 8;
const MAGIC_BYTES: usize = 9;
/// Servers write their fields first, in a few hundred bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const VERSION_AUX: u16 = 7;

impl<R: Read, W: FnMut(&[u8]) -> io::Result<()>> Copy<R, W> {
    pub fn new(source: R, out: W, origin: Origin) -> Self {
        Copy {
            source,
            out,
            origin,
            head: Some(Vec::new()),
            held: Vec::new(),
            crc: RedisCrc::new(),
            read: 0,
        }
    }

    /// The reader has found everything sound: writes what is held back.
    pub fn finish(mut self, version: u16) -> io::Result<()> {
        if let Some(head) = self.head.take() {
            let head = self.completed(head);
            self.write(&head)?;
        }
        match version >= VERSION_CRC && self.held.len() == CRC_BYTES {
            true => {
                let crc = self.crc.value();
                self.held.clear();
                writer::checksum(&mut self.held, crc);
                (self.out)(&self.held)?;
            }
            false => (self.out)(&self.held)?,
        }
        Ok(())
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(mut head) = self.head.take() else {
            return self.write(bytes);
        };
        head.extend_from_slice(bytes);
        if head.len() < HEAD_BYTES_MAX && head_of(&head) == Head::Short {
            self.head = Some(head);
            return Ok(());
        }
        let head = self.completed(head);
        self.write(&head)
    }

    /// The beginning with the fields about its place.
    fn completed(&self, head: Vec<u8>) -> Vec<u8> {
        let (Head::Unplaced, Some((replid, offset))) = (head_of(&head), self.origin) else {
            return head;
        };
        let mut out = head[..MAGIC_BYTES].to_vec();
        // The stream goes on with a SELECT behind a full resync, so that any number is right.
        writer::aux_int(&mut out, b"repl-stream-db", 0);
        writer::aux(&mut out, b"repl-id", replid.as_bytes());
        writer::aux(&mut out, b"repl-offset", offset.to_string().as_bytes());
        out.extend_from_slice(&head[MAGIC_BYTES..]);
        out
    }

    /// Writes all but the last eight bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let ready = (self.held.len() + bytes.len()).saturating_sub(CRC_BYTES);
        let from_held = ready.min(self.held.len());
        self.crc.update(&self.held[..from_held]);
        (self.out)(&self.held[..from_held])?;
        self.held.drain(..from_held);
        let (now, later) = bytes.split_at(ready - from_held);
        self.crc.update(now);
        (self.out)(now)?;
        self.held.extend_from_slice(later);
        Ok(())
    }
}

impl<R: Read, W: FnMut(&[u8]) -> io::Result<()>> Read for Copy<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        self.read += n as u64;
        self.pass(&buf[..n])?;
        Ok(n)
    }
}

/// What the beginning of a payload says about its place.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// Nothing yet; more bytes may.
    Short,
    /// It does.
    Placed,
    /// It does not, and may be told.
    Unplaced,
    /// Nothing can be said in this version.
    Dumb,
}

fn head_of(head: &[u8]) -> Head {
    let options = Options {
        check_crc: false,
        ..Options::default()
    };
    let mut reader = RdbReader::new(head, options);
    loop {
        match reader.next() {
            Ok(Some(Record::Header(header))) if header.version < VERSION_AUX => return Head::Dumb,
            Ok(Some(Record::Header(_))) => {}
            Ok(Some(Record::Aux { name, .. })) if name[..] == *b"repl-id" => return Head::Placed,
            Ok(Some(Record::Aux { .. })) => {}
            Ok(_) => return Head::Unplaced,
            Err(_) => return Head::Short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::rdb::file::RdbWriter;
    use dfsnap_formats::rdb::target::Target;

    fn dump(has_place: bool, has_checksum: bool) -> Vec<u8> {
        let mut writer = RdbWriter::new(Target::default()).checksum(has_checksum);
        writer.aux(b"redis-ver", b"7.0.15");
        if has_place {
            writer.aux(b"repl-id", &[b'a'; 40]);
        }
        writer.database(3, 0, 0);
        writer.finish();
        writer.take()
    }

    /// Copies in reads of so many bytes.
    fn copied(dump: &[u8], step: usize) -> Vec<u8> {
        let origin = Some((ReplId::parse(&[b'b'; 40]).unwrap(), 17));
        let mut out = Vec::new();
        let write = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        let mut copy = Copy::new(dump, write, origin);
        let mut buf = vec![0; step];
        while copy.read(&mut buf).unwrap() > 0 {}
        copy.finish(10).unwrap();
        out
    }

    fn place(dump: &[u8]) -> Vec<(String, String)> {
        let mut reader = RdbReader::new(dump, Options::default());
        let mut found = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            if let Record::Aux { name, value } = record
                && name.starts_with(b"repl-")
            {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((text(&name), text(&value)));
            }
        }
        found
    }

    #[test]
    fn dump_with_its_place_is_copied_as_it_is() {
        let dump = dump(true, true);
        for step in [1, 7, 1000] {
            assert_eq!(copied(&dump, step), dump, "reads of {step}");
        }
    }

    #[test]
    fn place_and_checksum_are_put_in_where_they_are_absent() {
        for step in [1, 7, 1000] {
            let copy = copied(&dump(false, false), step);
            let names: Vec<String> = place(&copy).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["repl-stream-db", "repl-id", "repl-offset"]);
            assert_eq!(place(&copy)[2].1, "17");
            assert_ne!(
                copy[copy.len() - 8..],
                [0; 8],
                "a checksum, and it is right"
            );
        }
    }
}
