//! A stream of bytes from which whole objects are taken.
//!
//! `reader` asks it for the next byte, or for the bytes of the object that begins there. It keeps that object and what
//! has been read ahead, nothing else, and grows only with bytes that came.

use super::{DEPTH_MAX, JsonError};
use crate::error::{Damage, Problem};
use std::io::{self, Read};

/// How much is asked for at a time, at least.
const CHUNK: usize = 64 << 10;

pub(super) struct Source<R> {
    source: R,
    /// `buffer[start..end]` is not consumed yet; what is behind it is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of `buffer[start]`.
    offset: u64,
    /// Line ends before `buffer[start]`.
    lines: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(source: R) -> Self {
        Source {
            source,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            lines: 0,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Counts from 1.
    pub(super) fn line(&self) -> u64 {
        self.lines + 1
    }

    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, len: usize) {
        let passed = &self.buffer[self.start..self.start + len];
        self.lines += line_ends(passed);
        self.start += len;
        self.offset += len as u64;
    }

    /// Reads more behind what is there. False: there is no more.
    pub(super) fn fill(&mut self) -> Result<bool, JsonError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            // Twice what came, so that a long item is not copied again and again.
            self.buffer.resize(self.end + self.end.max(CHUNK), 0);
        }
        let read = loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match read {
            Ok(count) => {
                self.end += count.min(self.buffer.len() - self.end);
                Ok(count > 0)
            }
            Err(source) => Err(JsonError::Io {
                line: self.line_at(self.end),
                offset: self.offset + self.end as u64,
                source,
            }),
        }
    }

    /// The next byte that is not blank; blanks are consumed. None: the end.
    pub(super) fn next_byte(&mut self) -> Result<Option<u8>, JsonError> {
        loop {
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            let blanks = self.ahead().iter().take_while(|byte| blank(byte)).count();
            self.consume(blanks);
            if let Some(byte) = self.ahead().first() {
                return Ok(Some(*byte));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Length of the object that begins at the next byte: up to the bracket that closes it.
    pub(super) fn object(&mut self, bytes_max: usize) -> Result<usize, JsonError> {
        let mut scan = Scan::default();
        let mut at = 0;
        loop {
            match scan.object(&self.ahead()[at..]) {
                Ok(Scanned::End(len)) => return Ok(at + len),
                Ok(Scanned::More) => at = self.ahead().len(),
                Err((len, problem)) => return Err(self.damage(at + len, "item", problem)),
            }
            if at > bytes_max {
                let wanted = "an item within the limit of bytes";
                let found = at as u64;
                return Err(self.damage(0, "item", Problem::Number { wanted, found }));
            }
            if !self.fill()? {
                let (wanted, left) = (at as u64 + 1, at as u64);
                return Err(self.damage(0, "item", Problem::Truncated { wanted, left }));
            }
        }
    }

    /// The error for the text, `at` bytes ahead.
    pub(super) fn damage(&self, at: usize, reading: &'static str, problem: Problem) -> JsonError {
        let damage = Damage::new(self.offset + at as u64, reading, problem);
        let line = self.line_at(at);
        JsonError::Text { line, damage }
    }

    pub(super) fn line_at(&self, at: usize) -> u64 {
        let ahead = self.ahead();
        self.line() + line_ends(&ahead[..at.min(ahead.len())])
    }

    /// The error for the next byte, which is not what was wanted.
    pub(super) fn unwanted(&self, reading: &'static str, wanted: &'static str) -> JsonError {
        let ahead = self.ahead();
        let problem = match ahead {
            [] => Problem::Truncated { wanted: 1, left: 0 },
            _ => {
                let found = ahead[..ahead.len().min(24)].to_vec();
                Problem::Text { wanted, found }
            }
        };
        self.damage(0, reading, problem)
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Finds the end of an object by its brackets, over any number of pieces. Whether it is sound shows later.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

enum Scanned {
    /// The object ends before this byte.
    End(usize),
    More,
}

impl Scan {
    fn object(&mut self, bytes: &[u8]) -> Result<Scanned, (usize, Problem)> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            if self.in_string {
                match *byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    found @ 0..0x20 => {
                        let wanted = "no control character within a string";
                        return Err((at - 1, Problem::Byte { wanted, found }));
                    }
                    _ => {
                        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
                        let rest = &bytes[at..];
                        at += rest.iter().position(special).unwrap_or(rest.len());
                    }
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        let wanted = "at most 128 brackets within brackets";
                        let found = self.depth as u64;
                        return Err((at - 1, Problem::Number { wanted, found }));
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Ok(Scanned::End(at));
                    }
                }
                _ => {}
            }
        }
        Ok(Scanned::More)
    }
}
