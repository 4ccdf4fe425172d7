//! Bytes coming in: `Cursor` over bytes that are all here, `Input` over a stream that is read as far as needed.
//!
//! Decoders of values use `Cursor`. Readers of files use `Input`, which keeps the bytes of the present record together
//! so that a record can be handed out as slices, counts the offset and computes the checksum on the way.
//!
//! Invariants
//! - Memory grows only with bytes that really arrived: a length read from the bytes never sizes a buffer.
//! - Every error tells where, what was being read, how much was wanted and how much was there.

use crate::checksum::RedisCrc;
use crate::error::{Damage, Problem};
use crate::lzf;
use crate::rdb::length::{self, Length, Prefix};
use std::io::{self, Read};

/// A place in bytes that are all here.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    Plain(&'a [u8]),
    Int(i32),
    /// LZF, and the number of bytes it must expand to.
    Packed(&'a [u8], usize),
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// An error about what starts here.
    pub fn damage(&self, reading: &'static str, problem: Problem) -> Damage {
        Damage::new(self.offset(), reading, problem)
    }

    #[inline]
    pub fn take(&mut self, wanted: u64, reading: &'static str) -> Result<&'a [u8], Damage> {
        let left = self.left();
        if wanted > left as u64 {
            let left = left as u64;
            return Err(self.damage(reading, Problem::Truncated { wanted, left }));
        }
        let taken = &self.bytes[self.at..self.at + wanted as usize];
        self.at += wanted as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, reading: &'static str) -> Result<[u8; N], Damage> {
        let bytes = self.take(N as u64, reading)?;
        Ok(bytes.try_into().expect("as many as taken"))
    }

    pub fn u8(&mut self, reading: &'static str) -> Result<u8, Damage> {
        Ok(self.array::<1>(reading)?[0])
    }

    pub fn u32_le(&mut self, reading: &'static str) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array(reading)?))
    }

    pub fn i32_le(&mut self, reading: &'static str) -> Result<i32, Damage> {
        Ok(i32::from_le_bytes(self.array(reading)?))
    }

    pub fn i64_le(&mut self, reading: &'static str) -> Result<i64, Damage> {
        Ok(i64::from_le_bytes(self.array(reading)?))
    }

    pub fn u64_be(&mut self, reading: &'static str) -> Result<u64, Damage> {
        Ok(u64::from_be_bytes(self.array(reading)?))
    }

    pub fn f32_le(&mut self, reading: &'static str) -> Result<f32, Damage> {
        Ok(f32::from_le_bytes(self.array(reading)?))
    }

    pub fn f64_le(&mut self, reading: &'static str) -> Result<f64, Damage> {
        Ok(f64::from_le_bytes(self.array(reading)?))
    }

    fn prefix(&mut self, reading: &'static str) -> Result<Length, Damage> {
        match length::read(self.rest()) {
            Prefix::Whole(length, size) => {
                self.at += size;
                Ok(length)
            }
            Prefix::Short { wanted } => {
                let (wanted, left) = (wanted as u64, self.left() as u64);
                Err(self.damage(reading, Problem::Truncated { wanted, left }))
            }
            Prefix::Bad(found) => Err(self.damage(reading, bad_length(found))),
        }
    }

    /// A plain length, or a number stored like one.
    #[inline]
    pub fn len(&mut self, reading: &'static str) -> Result<u64, Damage> {
        let start = self.at;
        match self.prefix(reading)? {
            Length::Plain(value) => Ok(value),
            Length::Special(form) => {
                self.at = start;
                Err(self.damage(reading, bad_length(0xC0 | form)))
            }
        }
    }

    /// A number of items of at least `item_bytes` each: more than the bytes left can hold is a lie.
    pub fn count(&mut self, item_bytes: usize, reading: &'static str) -> Result<usize, Damage> {
        let start = self.clone();
        let count = self.len(reading)?;
        let wanted = count.saturating_mul(item_bytes as u64);
        let left = self.left() as u64;
        if wanted > left {
            return Err(start.damage(reading, Problem::Truncated { wanted, left }));
        }
        Ok(count as usize)
    }

    #[inline(always)]
    pub fn text(&mut self, reading: &'static str) -> Result<Text<'a>, Damage> {
        match self.short_text() {
            Some(bytes) => Ok(Text::Plain(bytes)),
            None => self.long_text(reading),
        }
    }

    /// A plain string of less than 64 bytes, as most are. None: something else is here, and nothing was read.
    #[inline(always)]
    pub fn short_text(&mut self) -> Option<&'a [u8]> {
        let [len @ ..0x40, rest @ ..] = self.rest() else {
            return None;
        };
        let bytes = rest.get(..usize::from(*len))?;
        self.at += 1 + bytes.len();
        Some(bytes)
    }

    /// A string of any form.
    fn long_text(&mut self, reading: &'static str) -> Result<Text<'a>, Damage> {
        let start = self.at;
        match self.prefix(reading)? {
            Length::Plain(len) => Ok(Text::Plain(self.take(len, reading)?)),
            Length::Special(length::INT8) => {
                let [byte] = self.array(reading)?;
                Ok(Text::Int(i32::from(byte as i8)))
            }
            Length::Special(length::INT16) => {
                let number = i16::from_le_bytes(self.array(reading)?);
                Ok(Text::Int(i32::from(number)))
            }
            Length::Special(length::INT32) => {
                let number = i32::from_le_bytes(self.array(reading)?);
                Ok(Text::Int(number))
            }
            Length::Special(length::LZF) => {
                let packed = self.len(reading)?;
                let len = self.len(reading)?;
                let bytes = self.take(packed, reading)?;
                // More than the address space holds is caught by `expand`, which knows what is possible.
                Ok(Text::Packed(
                    bytes,
                    usize::try_from(len).unwrap_or(usize::MAX),
                ))
            }
            Length::Special(form) => {
                self.at = start;
                Err(self.damage(reading, bad_length(0xC0 | form)))
            }
        }
    }

    /// A string of any form as bytes of its own.
    pub fn string(&mut self, reading: &'static str) -> Result<Vec<u8>, Damage> {
        let mut out = Vec::new();
        self.string_into(reading, &mut out)?;
        Ok(out)
    }

    /// [`Cursor::string`] behind what is in `out`.
    pub fn string_into(&mut self, reading: &'static str, out: &mut Vec<u8>) -> Result<(), Damage> {
        let start = self.at as u64;
        let text = self.text(reading)?;
        text.append_to(out)
            .map_err(|lzf| Damage::new(start, reading, Problem::Lzf(lzf)))
    }

    /// Nothing may follow.
    pub fn finish(&self, reading: &'static str) -> Result<(), Damage> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.damage(
                reading,
                Problem::Differs {
                    wanted: 0,
                    found: left as u64,
                },
            )),
        }
    }
}

fn bad_length(found: u8) -> Problem {
    let wanted = "a length (0x00..0x81) or a known string form (0xc0..0xc3)";
    Problem::Byte { wanted, found }
}

impl Text<'_> {
    /// The bytes that the stored form stands for.
    pub fn append_to(self, out: &mut Vec<u8>) -> Result<(), lzf::LzfError> {
        match self {
            Text::Plain(bytes) => out.extend_from_slice(bytes),
            Text::Int(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes())
            }
            Text::Packed(bytes, len) => lzf::expand(bytes, len, out)?,
        }
        Ok(())
    }
}

/// First size of the buffer, and the least that is asked of the source at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A stream of bytes, buffered from the start of the present record.
///
/// ```text
/// buffer:  | summed, gone at the next refill | present record ... | ... | read ahead | free | unused |
///          0                                 start               at   filled         room
/// ```
/// After a large record the buffer stays large, and only the start of it is used again: what is read should still be in a near cache when it
/// is looked at.
#[derive(Debug)]
pub struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    /// 0 <= summed <= start <= at <= filled <= room <= buffer.len()
    start: usize,
    at: usize,
    filled: usize,
    /// As far as the source is read into the buffer.
    room: usize,
    /// Everything before it is in `crc`.
    summed: usize,
    /// Distance of `buffer[0]` from the start of the stream.
    base: u64,
    crc: Option<RedisCrc>,
    /// First size of the buffer.
    first_bytes: usize,
}

impl Input<io::Empty> {
    /// Over bytes that are all here.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        let filled = bytes.len();
        Input {
            buffer: bytes,
            filled,
            room: filled,
            ..Input::sized(io::empty(), false, filled)
        }
    }
}

impl<R: Read> Input<R> {
    pub fn new(source: R, with_crc: bool) -> Self {
        Input::sized(source, with_crc, BUFFER_BYTES)
    }

    /// With a buffer that starts with `first_bytes` and doubles from there: for sources known to be small.
    pub fn sized(source: R, with_crc: bool, first_bytes: usize) -> Self {
        Input {
            source,
            buffer: Vec::new(),
            start: 0,
            at: 0,
            filled: 0,
            room: 0,
            summed: 0,
            base: 0,
            crc: with_crc.then(RedisCrc::new),
            first_bytes: first_bytes.max(1),
        }
    }

    /// Offset of the next byte to be parsed.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Offset of the first byte of the present record.
    pub fn record_offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The next record starts here; the bytes before may go.
    pub fn begin_record(&mut self) {
        self.start = self.at;
    }

    /// The present record, as far as it has been passed.
    pub fn record(&self) -> &[u8] {
        &self.buffer[self.start..self.at]
    }

    /// What has been read but not passed.
    pub fn ahead(&self) -> &[u8] {
        &self.buffer[self.at..self.filled]
    }

    /// Goes back to where `count` bytes of the present record had been passed.
    pub fn rewind(&mut self, count: usize) {
        let passed = self.at - self.start;
        assert!(count <= passed, "rewind to {count} of {passed} bytes");
        self.at = self.start + count;
    }

    /// Passes `count` bytes of what is `ahead`.
    pub fn pass(&mut self, count: usize) {
        assert!(
            count <= self.filled - self.at,
            "pass {count} of {} bytes",
            self.filled - self.at
        );
        self.at += count;
    }

    /// Reads until at least `wanted` bytes are ahead. False: the stream ended before.
    pub fn need(&mut self, wanted: u64) -> io::Result<bool> {
        while ((self.filled - self.at) as u64) < wanted {
            if self.filled == self.room {
                self.make_room();
            }
            match self.source.read(&mut self.buffer[self.filled..self.room]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Drops the bytes before the record. A record that fills half of the room doubles it: the bytes are all real.
    fn make_room(&mut self) {
        self.sum_to(self.start);
        let kept = self.start..self.filled;
        self.room = match kept.len() * 2 >= self.room {
            true => (self.room * 2).max(self.first_bytes),
            false => self.first_bytes.max(kept.len() * 2),
        };
        if self.room > self.buffer.len() {
            // Fresh zero pages cost nothing until they are read into; growing in place would write them.
            let mut larger = vec![0; self.room];
            larger[..kept.len()].copy_from_slice(&self.buffer[kept]);
            self.buffer = larger;
        } else {
            self.buffer.copy_within(kept, 0);
        }
        self.base += self.start as u64;
        self.at -= self.start;
        self.summed -= self.start;
        self.filled -= self.start;
        self.start = 0;
    }

    fn sum_to(&mut self, end: usize) {
        if let Some(crc) = &mut self.crc {
            crc.update(&self.buffer[self.summed..end]);
        }
        self.summed = end;
    }

    /// Checksum of everything passed so far, which is then final: no going back behind it.
    pub fn crc(&mut self) -> Option<u64> {
        self.sum_to(self.at);
        self.start = self.at;
        self.crc.as_ref().map(RedisCrc::value)
    }

    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The source, and what was read from it but not passed.
    pub fn into_parts(self) -> (Vec<u8>, R) {
        (self.buffer[self.at..self.filled].to_vec(), self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `step` bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let step = self.1.min(out.len());
            (&mut self.0).take(step as u64).read(out)
        }
    }

    #[test]
    fn input_keeps_the_record_together_and_sums_what_was_passed() {
        let bytes: Vec<u8> = (0..3_000_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        for step in [1000, 65_536, usize::MAX] {
            let mut input = Input::new(Drip(&bytes, step), true);
            let mut offset = 0;
            for record in [1, 70_000, 3, 900_000, 250_000, 10].into_iter().cycle() {
                input.begin_record();
                if !input.need(record as u64).unwrap() {
                    break;
                }
                input.pass(record);
                assert_eq!(input.record(), &bytes[offset..offset + record]);
                offset += record;
                assert_eq!(input.offset(), offset as u64);
            }
            assert_eq!(
                input.crc(),
                Some(crate::checksum::redis_crc(&bytes[..offset]))
            );
            let (mut rest, mut source) = input.into_parts();
            source.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, &bytes[offset..]);
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut input = Input::new(&b"short"[..], false);
        assert!(!input.need(u64::MAX).unwrap());
        assert!(input.buffer.len() <= BUFFER_BYTES);
        let mut cursor = Cursor::new(&[0x81, 0x40, 0, 0, 0, 0, 0, 0, 0, 1]);
        let damage = cursor.text("key").unwrap_err();
        assert_eq!(
            damage.problem,
            Problem::Truncated {
                wanted: 1 << 62,
                left: 1
            }
        );
        let mut cursor = Cursor::new(&[0x80, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2]);
        assert!(cursor.count(1, "set").is_err());
    }

    #[test]
    fn text_reads_each_form() {
        let rows: [(&str, &[u8], &[u8]); 5] = [
            ("plain", &[2, b'a', b'b'], b"ab"),
            ("int8", &[0xC0, 0xFF], b"-1"),
            ("int16", &[0xC1, 0, 1], b"256"),
            ("int32", &[0xC2, 0, 0, 1, 0], b"65536"),
            ("lzf", &[0xC3, 4, 7, 0, b'x', 0x80, 0], b"xxxxxxx"),
        ];
        for (name, bytes, want) in rows {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.string(name).unwrap(), want, "{name}");
            cursor.finish(name).unwrap();
            for cut in 0..bytes.len() {
                assert!(
                    Cursor::new(&bytes[..cut]).string(name).is_err(),
                    "{name} cut at {cut}"
                );
            }
        }
        for first in (0x82..0xC0).chain(0xC4..=0xFF) {
            assert!(
                Cursor::new(&[first, 0, 0, 0, 0]).string("bad").is_err(),
                "{first:#x}"
            );
        }
    }
}
