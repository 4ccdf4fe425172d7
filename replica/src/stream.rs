//! The command stream: whole units out of bytes, and the exact count of those bytes.
//!
//! A unit is what must be applied at once: a bare command, or everything from MULTI to EXEC. SELECT, PING,
//! `REPLCONF GETACK` and empty lines are bytes of the stream like any other (they count, and a replica of
//! ours gets them forwarded), but they are no commands to apply.
//!
//! Invariants
//! - `offset` moves over whole units, and by exactly the bytes of the unit.
//! - The database of a unit that is not complete is forgotten with it: a position's `db` is the one in force
//!   at its `offset`.

use std::ops::Range;

use dfsnap_formats::resp::RequestDecoder;
use smallvec::SmallVec;

use crate::handshake::LinkConfig;
use crate::link::Disconnect;

#[derive(Debug)]
pub(crate) struct Stream {
    decoder: RequestDecoder,
    /// Bytes of the history up to the last whole unit handed over.
    offset: u64,
    /// Selected at `offset`.
    db: u32,
    databases: u32,
    unit_bytes_max: usize,
    unit: Unit,
}

/// The unit being received.
#[derive(Debug, Default)]
struct Unit {
    /// Its bytes decoded so far.
    len: usize,
    in_multi: bool,
    db: u32,
    asks_ack: bool,
    commands: Commands,
    words: Ranges,
}

/// Nearly all units are one command of few words: those take no memory of their own.
type Commands = SmallVec<[CommandAt; 1]>;
type Ranges = SmallVec<[Range<usize>; 4]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CommandAt {
    db: u32,
    words_start: usize,
    words_end: usize,
}

/// A bare command or a MULTI block, complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Transaction<'b> {
    /// The bytes exactly as received, with the empty lines before them: what a replica of ours gets.
    pub raw: &'b [u8],
    /// Offset of the history after this unit.
    pub end_offset: u64,
    /// Selected after this unit; its commands carry their own.
    pub db: u32,
    pub(crate) asks_ack: bool,
    commands: Commands,
    words: Ranges,
}

/// One command to apply.
#[derive(Debug, Clone, Copy)]
pub struct Command<'t> {
    pub db: u32,
    raw: &'t [u8],
    words: &'t [Range<usize>],
}

impl<'b> Transaction<'b> {
    /// Offset of the history before this unit.
    pub fn start_offset(&self) -> u64 {
        self.end_offset - self.raw.len() as u64
    }

    /// The commands to apply, in order. None for a PING, a GETACK, a lone SELECT.
    pub fn commands(&self) -> impl ExactSizeIterator<Item = Command<'_>> {
        self.commands.iter().map(|at| Command {
            db: at.db,
            raw: self.raw,
            words: &self.words[at.words_start..at.words_end],
        })
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl<'t> Command<'t> {
    /// As typed by whoever sent it: compare without regard to case.
    pub fn name(&self) -> &'t [u8] {
        self.word(0)
    }

    pub fn word(&self, i: usize) -> &'t [u8] {
        &self.raw[self.words[i].clone()]
    }

    /// Name and arguments.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &'t [u8]> + use<'t> {
        let raw = self.raw;
        self.words.iter().map(move |at| &raw[at.clone()])
    }

    /// Where the words are in [`Transaction::raw`].
    pub fn word_places(&self) -> &'t [Range<usize>] {
        self.words
    }
}

/// What a request means to the stream itself.
enum Meaning {
    Select(Option<u32>),
    Multi,
    Exec,
    Discard,
    GetAck,
    Nothing,
    Command,
}

impl Stream {
    pub fn new(offset: u64, db: u32, config: &LinkConfig) -> Stream {
        Stream {
            decoder: RequestDecoder::new(config.unit_bytes_max),
            offset,
            db,
            databases: config.databases,
            unit_bytes_max: config.unit_bytes_max,
            unit: Unit {
                db,
                ..Unit::default()
            },
        }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn db(&self) -> u32 {
        self.db
    }

    /// What the next read should at least fit.
    pub fn pending_bulk(&self) -> Option<usize> {
        self.decoder.pending_bulk()
    }

    /// The next unit. `input` starts at its first byte and only grows until it is complete; the unit's bytes
    /// are then consumed.
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<Option<Transaction<'b>>, Disconnect> {
        loop {
            let rest = &input[self.unit.len..];
            let decoded = self
                .decoder
                .decode(rest)
                .map_err(|error| self.corrupt(error.to_string()))?;
            if self.decoder.is_inline() && !is_line_end_cut(rest) {
                let line = &rest[..rest.len().min(40)];
                return Err(self.corrupt(format!(
                    "a line instead of a command: {}",
                    line.escape_ascii()
                )));
            }
            let Some(consumed) = decoded else {
                return self.check_length(input.len()).map(|()| None);
            };
            let base = self.unit.len;
            self.unit.len += consumed;
            self.check_length(self.unit.len)?;
            if self.take_request(base, rest)? {
                return Ok(Some(self.complete(input)));
            }
        }
    }

    fn check_length(&self, len: usize) -> Result<(), Disconnect> {
        if len > self.unit_bytes_max && self.unit.len > 0 {
            return Err(self.corrupt(format!(
                "unit of {len} bytes, the limit is {}",
                self.unit_bytes_max
            )));
        }
        Ok(())
    }

    /// Adds the decoded request to the unit; true when that completes it.
    fn take_request(&mut self, base: usize, rest: &[u8]) -> Result<bool, Disconnect> {
        if self.decoder.args().is_empty() {
            return Ok(false); // empty lines belong to the unit that follows
        }
        match self.meaning(rest) {
            Meaning::Select(Some(db)) if db < self.databases => self.unit.db = db,
            Meaning::Select(Some(db)) => {
                return Err(Disconnect::DatabaseOutOfRange {
                    db,
                    databases: self.databases,
                });
            }
            Meaning::Select(None) => {
                return Err(self.corrupt("SELECT of something that is no database number".into()));
            }
            Meaning::Multi => self.unit.in_multi = true,
            Meaning::Exec => self.unit.in_multi = false,
            Meaning::Discard => {
                self.unit.in_multi = false;
                self.unit.commands.clear();
                self.unit.words.clear();
            }
            Meaning::GetAck => self.unit.asks_ack = true,
            Meaning::Nothing => {}
            Meaning::Command => {
                let words_start = self.unit.words.len();
                let words = self
                    .decoder
                    .args()
                    .iter()
                    .map(|at| base + at.start..base + at.end);
                self.unit.words.extend(words);
                self.unit.commands.push(CommandAt {
                    db: self.unit.db,
                    words_start,
                    words_end: self.unit.words.len(),
                });
            }
        }
        Ok(!self.unit.in_multi)
    }

    fn meaning(&self, rest: &[u8]) -> Meaning {
        let is = |i: usize, name: &[u8]| self.decoder.word(rest, i).eq_ignore_ascii_case(name);
        let count = self.decoder.args().len();
        // Lengths first: nearly all commands are none of these.
        match self.decoder.word(rest, 0).len() {
            6 if is(0, b"SELECT") => {
                let db = if count == 2 {
                    self.decoder.word(rest, 1)
                } else {
                    b""
                };
                Meaning::Select(
                    std::str::from_utf8(db)
                        .ok()
                        .and_then(|text| text.parse().ok()),
                )
            }
            5 if is(0, b"MULTI") => Meaning::Multi,
            4 if is(0, b"EXEC") => Meaning::Exec,
            4 if is(0, b"PING") => Meaning::Nothing,
            7 if is(0, b"DISCARD") => Meaning::Discard,
            8 if is(0, b"REPLCONF") && count >= 2 && is(1, b"GETACK") => Meaning::GetAck,
            8 if is(0, b"REPLCONF") => Meaning::Nothing,
            _ => Meaning::Command,
        }
    }

    fn complete<'b>(&mut self, input: &'b [u8]) -> Transaction<'b> {
        let db = self.unit.db;
        let unit = std::mem::replace(
            &mut self.unit,
            Unit {
                db,
                ..Unit::default()
            },
        );
        self.db = db;
        self.offset += unit.len as u64;
        Transaction {
            raw: &input[..unit.len],
            end_offset: self.offset,
            db,
            asks_ack: unit.asks_ack,
            commands: unit.commands,
            words: unit.words,
        }
    }

    fn corrupt(&self, reason: String) -> Disconnect {
        Disconnect::Corrupt {
            offset: self.offset + self.unit.len as u64,
            reason,
        }
    }
}

/// Empty lines and then the CR of one more: still nothing said.
fn is_line_end_cut(input: &[u8]) -> bool {
    input.ends_with(b"\r") && input.iter().all(|b| matches!(b, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::resp::encode_command;
    use proptest::prelude::*;

    fn stream() -> Stream {
        Stream::new(
            1000,
            0,
            &LinkConfig {
                databases: 16,
                ..LinkConfig::default()
            },
        )
    }

    /// What came out, as text: `end_offset db | db> words; …`, the input growing to each of `ends` in turn.
    fn units(bytes: &[u8], ends: &[usize]) -> Result<Vec<String>, Disconnect> {
        let (mut stream, mut start, mut found) = (stream(), 0, Vec::new());
        for &end in ends.iter().chain([&bytes.len()]) {
            while let Some(unit) = stream.next(&bytes[start..end])? {
                let commands: Vec<String> = unit
                    .commands()
                    .map(|c| {
                        let words: Vec<_> =
                            c.words().map(|w| w.escape_ascii().to_string()).collect();
                        format!("{}> {}", c.db, words.join(" "))
                    })
                    .collect();
                assert_eq!(unit.start_offset(), 1000 + start as u64);
                start += unit.raw.len();
                assert_eq!(unit.end_offset, 1000 + start as u64);
                found.push(format!(
                    "{} {} | {}",
                    unit.end_offset,
                    unit.db,
                    commands.join("; ")
                ));
            }
        }
        Ok(found)
    }

    fn encode(commands: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for command in commands {
            encode_command(&mut out, &command.split(' ').collect::<Vec<_>>());
        }
        out
    }

    #[test]
    fn offsets_count_every_byte_of_whole_units() {
        let mut bytes = encode(&["SELECT 0", "set x 1", "ping", "REPLCONF GETACK *"]);
        bytes.extend_from_slice(b"\n\r\n");
        bytes.extend(encode(&[
            "multi", "SET a 1", "select 3", "SET b 2", "EXEC", "SET c 3",
        ]));
        let want = [
            "1023 0 | ",
            "1050 0 | 0> set x 1",
            "1064 0 | ",
            "1101 0 | ",
            "1210 3 | 0> SET a 1; 3> SET b 2",
            "1237 3 | 3> SET c 3",
        ];
        for cut in 0..=bytes.len() {
            assert_eq!(units(&bytes, &[cut]).unwrap(), want, "cut at {cut}");
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(units(&bytes, &every).unwrap(), want, "byte by byte");
    }

    #[test]
    fn unit_cut_short_leaves_the_position_before_it() {
        let mut stream = stream();
        let bytes = encode(&["MULTI", "SELECT 5", "SET a 1"]);
        assert_eq!(stream.next(&bytes), Ok(None));
        assert_eq!((stream.offset(), stream.db()), (1000, 0));
    }

    #[test]
    fn broken_streams_are_corrupt() {
        let rows: &[(&str, &[u8], &str)] = &[
            ("inline", b"SET x 1\r\n", "a line instead of a command"),
            ("inline, not complete", b"SE", "a line instead of a command"),
            ("leading zero", b"*03\r\n", "invalid multibulk length"),
            ("no dollar", b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (
                "select of a word",
                b"*2\r\n$6\r\nSELECT\r\n$1\r\nx\r\n",
                "SELECT of something",
            ),
        ];
        for (name, bytes, want) in rows {
            let stream = [&encode(&["ping"])[..], bytes].concat();
            let error = units(&stream, &[]).unwrap_err();
            assert!(!error.keeps_position(), "{name}");
            assert!(error.to_string().contains(want), "{name}: {error}");
            assert!(
                error.to_string().contains("10"),
                "{name}: the offset is told: {error}"
            );
        }
    }

    #[test]
    fn select_beyond_our_databases_ends_the_link() {
        let error = units(&encode(&["SELECT 20"]), &[]).unwrap_err();
        assert_eq!(
            error,
            Disconnect::DatabaseOutOfRange {
                db: 20,
                databases: 16
            }
        );
    }

    #[test]
    fn endless_unit_is_refused() {
        let mut stream = Stream::new(
            0,
            0,
            &LinkConfig {
                unit_bytes_max: 100,
                ..LinkConfig::default()
            },
        );
        let mut bytes = encode(&["MULTI"]);
        for _ in 0..20 {
            bytes.extend(encode(&["SET a 1"]));
        }
        assert!(matches!(
            stream.next(&bytes),
            Err(Disconnect::Corrupt { .. })
        ));
    }

    #[test]
    fn getack_asks_for_an_ack_and_discard_drops_its_block() {
        let bytes = encode(&["MULTI", "SET a 1", "DISCARD"]);
        let mut first = stream();
        assert!(first.next(&bytes).unwrap().unwrap().is_empty());
        let bytes = encode(&["replconf getack *"]);
        assert!(stream().next(&bytes).unwrap().unwrap().asks_ack);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            bytes in prop::collection::vec(prop::sample::select(b"*$-012\r\nMULTIEXEC".to_vec()), 0..60),
        ) {
            let _ = units(&bytes, &[bytes.len() / 2]);
        }
    }
}
