//! The structure of records, as tables: what must be read to find where a record ends.
//!
//! The reader walks a record with it without looking at values, so that it can hand them out as they are stored.
//! A walk goes on where it stopped when bytes were missing.

use super::length::{self, Length, Prefix};
use super::{Flavor, opcode, type_code};
use crate::error::Problem;
use crate::input::{Cursor, Text as StoredText};

/// One step through a record.
#[derive(Debug)]
pub enum Part {
    /// A string in any form.
    Text,
    /// A plain length.
    Len,
    /// That many bytes.
    Raw(u8),
    /// A score of type 3: a length byte, 253 to 255 standing for themselves, and so many digits.
    DoubleText,
    /// A count, then so many times the parts.
    Repeat(&'static [Part]),
    /// A flag, then the parts if it is not zero.
    Optional(&'static [Part]),
    /// (op, data)* until op 0.
    ModuleOps,
    /// Dragonfly: u32 LE, and another one if it has `MASK_MEMCACHED`.
    KeyMask,
    /// Dragonfly: a number of bytes, then strings of at least one byte each until there are so many.
    Chunked,
    /// What `Chunked` becomes: the rounds of its frame are the bytes that are still to come.
    Chunk,
    /// Dragonfly: width, depth and a total, then width times depth numbers of eight bytes.
    Grid,
    /// A count as u32 LE and so many more, then so many times the parts.
    Repeat32(u64, &'static [Part]),
    /// Dragonfly: id and length of a piece as u32 LE, then the piece.
    Tagged,
}

/// Bits of a key mask.
pub const MASK_STICKY: u32 = 1;
pub const MASK_MEMCACHED: u32 = 2;

use Part::{
    Chunk, Chunked, DoubleText, Grid, KeyMask, Len, ModuleOps, Optional, Raw, Repeat, Repeat32,
    Tagged, Text,
};

const TEXTS: &[Part] = &[Repeat(&[Text])];
const PAIRS: &[Part] = &[Repeat(&[Text, Text])];
const BLOB: &[Part] = &[Text];
const NODES: Part = Repeat(&[Text, Text]);
/// Stream id raw, delivery time, delivery count.
const GROUP_PEL: Part = Repeat(&[Raw(24), Len]);
const CONSUMER_PEL: Part = Repeat(&[Raw(16)]);
const CONSUMERS: Part = Repeat(&[Text, Raw(8), CONSUMER_PEL]);
/// From version 3 on consumers have two times.
const CONSUMERS_3: Part = Repeat(&[Text, Raw(16), CONSUMER_PEL]);
const GROUPS_3: Part = Repeat(&[Text, Len, Len, Len, GROUP_PEL, CONSUMERS_3]);
/// Who adds entries under ids of their own, and those ids.
const PRODUCERS: Part = Repeat(&[Text, Repeat(&[Text, Len, Len])]);

/// The value of a type. None: no such type, or one whose end cannot be found.
pub fn of_value(flavor: Flavor, code: u8) -> Option<&'static [Part]> {
    Some(match code {
        type_code::STRING
        | type_code::HASH_ZIPMAP
        | type_code::LIST_ZIPLIST
        | type_code::SET_INTSET
        | type_code::ZSET_ZIPLIST
        | type_code::HASH_ZIPLIST
        | type_code::HASH_LISTPACK
        | type_code::ZSET_LISTPACK
        | type_code::SET_LISTPACK
        | type_code::HASH_LISTPACK_EX_PRE_GA => BLOB,
        type_code::LIST | type_code::SET | type_code::LIST_QUICKLIST => TEXTS,
        type_code::HASH => PAIRS,
        type_code::ZSET => &[Repeat(&[Text, DoubleText])],
        type_code::ZSET_2 => &[Repeat(&[Text, Raw(8)])],
        type_code::LIST_QUICKLIST_2 => &[Repeat(&[Len, Text])],
        type_code::MODULE_2 => &[Len, ModuleOps],
        type_code::STREAM => &[
            NODES,
            Len,
            Len,
            Len,
            Repeat(&[Text, Len, Len, GROUP_PEL, CONSUMERS]),
        ],
        type_code::STREAM_2 => &[
            NODES,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Repeat(&[Text, Len, Len, Len, GROUP_PEL, CONSUMERS]),
        ],
        type_code::STREAM_3 => &[NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_3],
        type_code::STREAM_4 => &[
            NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_3, Len, Len, PRODUCERS, Len, Len,
        ],
        type_code::HASH_22 => match flavor {
            Flavor::Redis | Flavor::Dragonfly => &[Repeat(&[Len, Text, Text])],
            Flavor::Valkey => &[Repeat(&[Text, Text, Raw(8)])],
        },
        type_code::HASH_METADATA => &[Raw(8), Repeat(&[Len, Text, Text])],
        type_code::HASH_LISTPACK_EX => &[Raw(8), Text],
        code if flavor == Flavor::Dragonfly => return of_dragonfly_value(code),
        _ => return None,
    })
}

fn of_dragonfly_value(code: u8) -> Option<&'static [Part]> {
    Some(match code {
        type_code::JSON => BLOB,
        type_code::HASH_EXPIRING => &[Repeat(&[Text, Text, Text])],
        type_code::SET_EXPIRING => PAIRS,
        type_code::BLOOM => &[Len, Raw(16), Len, Len, Len, Repeat(&[Len, Text])],
        type_code::BLOOM_2 => &[Len, Raw(16), Len, Len, Len, Repeat(&[Len, Chunked])],
        type_code::COUNT_MIN_SKETCH => &[Grid],
        type_code::TOP_K => &[Len, Len, Len, Len, Raw(8), Repeat(&[Text, Len]), Text],
        type_code::CUCKOO => &[Len, Len, Len, Len, Len, Len, Repeat(&[Chunked])],
        _ => return None,
    })
}

/// The body of a record that only files of a DFS set have: what holds other records, and search indices.
/// `old_index`: before 1.39 the entry point of a graph was not part of it.
pub(crate) fn of_dfs_opcode(code: u8, old_index: bool) -> Option<&'static [Part]> {
    /// Internal id, global id and level; for each level up to it, the neighbours.
    const GRAPH: Part = Repeat(&[Raw(12), Repeat32(1, &[Repeat32(0, &[Raw(4)])])]);
    Some(match code {
        opcode::ZSTD_BLOB | opcode::LZ4_BLOB => BLOB,
        opcode::TAGGED_CHUNK => &[Tagged],
        opcode::VECTOR_INDEX if old_index => &[Text, GRAPH],
        opcode::VECTOR_INDEX => &[Text, Len, GRAPH],
        opcode::SHARD_DOC_INDEX => &[Len, Text, Repeat(&[Text, Len])],
        _ => return None,
    })
}

/// The body of an opcode's record. None: no such opcode.
pub fn of_opcode(flavor: Flavor, code: u8) -> Option<&'static [Part]> {
    Some(match code {
        opcode::EOF => &[],
        opcode::SELECT_DB | opcode::IDLE | opcode::ENTERPRISE_RAM_LRU | opcode::ENTERPRISE_SLOT => {
            &[Len]
        }
        opcode::EXPIRE_S => &[Raw(4)],
        opcode::EXPIRE_MS => &[Raw(8)],
        opcode::RESIZE_DB => &[Len, Len],
        opcode::AUX => &[Text, Text],
        opcode::FREQ => &[Raw(1)],
        opcode::MODULE_AUX => &[Len, Len, Len, ModuleOps],
        opcode::FUNCTION_PRE_GA => &[Text, Text, Optional(BLOB), Text],
        opcode::FUNCTION2 => BLOB,
        opcode::SLOT_INFO => &[Len, Len, Len],
        opcode::KEY_MASK if flavor == Flavor::Dragonfly => &[KeyMask],
        opcode::SLOT_IMPORT if flavor == Flavor::Valkey => &[Text, Repeat(&[Len, Len])],
        opcode::KEY_META if flavor == Flavor::Redis => &[Repeat(&[Raw(4), ModuleOps])],
        _ => return None,
    })
}

/// How far a walk is.
#[derive(Debug, Default)]
pub struct Walk {
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    parts: &'static [Part],
    /// Index into `parts` of what comes next.
    next: usize,
    /// Rounds that follow the present one.
    rounds: u64,
}

impl Frame {
    /// Passes short plain strings, and what has a fixed size, as long as there is nothing else: most bytes of most dumps.
    /// Whatever is met that is not so simple is left to `go_on`.
    #[inline]
    fn pass_texts(&mut self, bytes: &[u8], at: &mut usize) {
        loop {
            while let Some(part) = self.parts.get(self.next) {
                let size = match (part, bytes.get(*at)) {
                    (Text, Some(len @ ..0x40)) => 1 + usize::from(*len),
                    (Raw(size), _) => usize::from(*size),
                    _ => return,
                };
                if bytes.len() - *at < size {
                    return;
                }
                *at += size;
                self.next += 1;
            }
            if self.rounds == 0 {
                return;
            }
            self.rounds -= 1;
            self.next = 0;
        }
    }
}

/// What a walk came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Done,
    /// Goes on when that many bytes are there, counted from where it stands.
    Need(u64),
}

impl Walk {
    /// Starts over with `parts`; memory is kept.
    pub fn start(&mut self, parts: &'static [Part]) {
        self.frames.clear();
        self.push(parts, 1);
    }

    /// Adds parts that come before all others.
    pub fn push(&mut self, parts: &'static [Part], rounds: u64) {
        if rounds > 0 && !parts.is_empty() {
            self.frames.push(Frame {
                parts,
                next: 0,
                rounds: rounds - 1,
            });
        }
    }

    /// Whether the walk stands before a further element of something repeated: a large value may be cut there.
    pub(crate) fn is_between_elements(&self) -> bool {
        let top = self.frames.last().is_some_and(|frame| frame.next == 0);
        top && self.frames.len() > 1
    }

    /// Walks over `bytes` from `at` on, and moves `at` behind every part that is whole.
    pub fn go_on(&mut self, bytes: &[u8], at: &mut usize) -> Result<Step, Problem> {
        while let Some(frame) = self.frames.last_mut() {
            frame.pass_texts(bytes, at);
            let Some(part) = frame.parts.get(frame.next) else {
                if frame.rounds == 0 {
                    self.frames.pop();
                } else {
                    frame.rounds -= 1;
                    frame.next = 0;
                }
                continue;
            };
            let rest = &bytes[*at..];
            let size = match part {
                Text => text_size(rest)?,
                Len => number(rest)?.map(|(_, size)| size as u64),
                Raw(size) => Size::Bytes(u64::from(*size)),
                DoubleText => double_text_size(rest),
                KeyMask => key_mask_size(rest),
                Grid => grid_size(rest)?,
                Tagged => tagged_size(rest),
                Repeat32(more, parts) => match rest.first_chunk::<4>() {
                    None => return Ok(Step::Need(4)),
                    Some(count) => {
                        frame.next += 1;
                        *at += count.len();
                        let count = u64::from(u32::from_le_bytes(*count)) + more;
                        self.push(parts, count);
                        continue;
                    }
                },
                Chunked => match number(rest)? {
                    Size::Short(wanted) => return Ok(Step::Need(wanted)),
                    Size::Bytes((total, size)) => {
                        frame.next += 1;
                        *at += size;
                        self.push(&[Chunk], total);
                        continue;
                    }
                },
                Chunk => match chunk_size(rest, frame.rounds + 1)? {
                    Size::Bytes((size, plain)) if size <= rest.len() as u64 => {
                        *at += size as usize;
                        // `chunk_size` lets none be longer than what is left.
                        let left = frame.rounds + 1 - plain;
                        frame.rounds = left.saturating_sub(1);
                        frame.next = usize::from(left == 0);
                        continue;
                    }
                    Size::Bytes((wanted, _)) | Size::Short(wanted) => {
                        return Ok(Step::Need(wanted));
                    }
                },
                Repeat(parts) | Optional(parts) => match number(rest)? {
                    Size::Short(wanted) => return Ok(Step::Need(wanted)),
                    Size::Bytes((count, size)) => {
                        frame.next += 1;
                        *at += size;
                        let once = matches!(part, Optional(_));
                        self.push(parts, if once { count.min(1) } else { count });
                        continue;
                    }
                },
                ModuleOps => match number(rest)? {
                    Size::Short(wanted) => return Ok(Step::Need(wanted)),
                    Size::Bytes((op, size)) => {
                        if op == 0 {
                            frame.next += 1;
                        } else {
                            let data = module_data(op)?;
                            self.push(data, 1);
                        }
                        *at += size;
                        continue;
                    }
                },
            };
            match size {
                Size::Bytes(size) if size <= rest.len() as u64 => {
                    frame.next += 1;
                    *at += size as usize;
                }
                Size::Bytes(wanted) | Size::Short(wanted) => return Ok(Step::Need(wanted)),
            }
        }
        Ok(Step::Done)
    }
}

fn module_data(op: u64) -> Result<&'static [Part], Problem> {
    Ok(match op {
        1 | 2 => &[Len],
        3 => &[Raw(4)],
        4 => &[Raw(8)],
        5 => BLOB,
        found => {
            let wanted = "a module opcode (0..5)";
            return Err(Problem::Number { wanted, found });
        }
    })
}

/// Something whose size is known, or that needs so many bytes to be known.
enum Size<T> {
    Bytes(T),
    Short(u64),
}

impl<T> Size<T> {
    fn map<U>(self, to: impl FnOnce(T) -> U) -> Size<U> {
        match self {
            Size::Bytes(value) => Size::Bytes(to(value)),
            Size::Short(wanted) => Size::Short(wanted),
        }
    }
}

/// A plain length and the bytes it takes.
fn number(bytes: &[u8]) -> Result<Size<(u64, usize)>, Problem> {
    match length::read(bytes) {
        Prefix::Whole(Length::Plain(value), size) => Ok(Size::Bytes((value, size))),
        Prefix::Short { wanted } => Ok(Size::Short(wanted as u64)),
        Prefix::Whole(Length::Special(form), _) => Err(not_a_length(0xC0 | form)),
        Prefix::Bad(found) => Err(not_a_length(found)),
    }
}

fn not_a_length(found: u8) -> Problem {
    let wanted = "a length";
    Problem::Byte { wanted, found }
}

#[inline]
fn text_size(bytes: &[u8]) -> Result<Size<u64>, Problem> {
    if let Some(len @ ..0x40) = bytes.first() {
        return Ok(Size::Bytes(1 + u64::from(*len)));
    }
    Ok(match length::read(bytes) {
        Prefix::Whole(Length::Plain(len), size) => Size::Bytes(len.saturating_add(size as u64)),
        Prefix::Whole(Length::Special(form), _) => match form {
            length::INT8 => Size::Bytes(2),
            length::INT16 => Size::Bytes(3),
            length::INT32 => Size::Bytes(5),
            length::LZF => return packed_size(bytes),
            _ => {
                let wanted = "a string form (0xc0..0xc3)";
                let found = 0xC0 | form;
                return Err(Problem::Byte { wanted, found });
            }
        },
        Prefix::Short { wanted } => Size::Short(wanted as u64),
        Prefix::Bad(found) => return Err(not_a_length(found)),
    })
}

fn packed_size(bytes: &[u8]) -> Result<Size<u64>, Problem> {
    let (packed, first) = match number(&bytes[1..])? {
        Size::Bytes(found) => found,
        Size::Short(wanted) => return Ok(Size::Short(1 + wanted)),
    };
    match number(&bytes[1 + first..])? {
        Size::Bytes((_, second)) => Ok(Size::Bytes(
            packed.saturating_add((1 + first + second) as u64),
        )),
        Size::Short(wanted) => Ok(Size::Short((1 + first) as u64 + wanted)),
    }
}

fn key_mask_size(bytes: &[u8]) -> Size<u64> {
    match bytes.first_chunk::<4>() {
        None => Size::Short(4),
        Some(mask) if u32::from_le_bytes(*mask) & MASK_MEMCACHED != 0 => Size::Bytes(8),
        Some(_) => Size::Bytes(4),
    }
}

fn grid_size(bytes: &[u8]) -> Result<Size<u64>, Problem> {
    let (mut at, mut cells) = (0, 1u64);
    for place in 0..3 {
        match number(&bytes[at..])? {
            Size::Short(wanted) => return Ok(Size::Short(at as u64 + wanted)),
            Size::Bytes((found, size)) => {
                at += size;
                // The third is the total, which says nothing about the size.
                if place < 2 {
                    cells = cells.saturating_mul(found);
                }
            }
        }
    }
    Ok(Size::Bytes(
        cells.saturating_mul(8).saturating_add(at as u64),
    ))
}

fn tagged_size(bytes: &[u8]) -> Size<u64> {
    match bytes.get(4..8) {
        None => Size::Short(8),
        Some(len) => {
            let len = u32::from_le_bytes(len.try_into().expect("4 bytes"));
            Size::Bytes(8 + u64::from(len))
        }
    }
}

/// Bytes that a chunk takes here, and those that it stands for: some versions passed chunks through the encoder for
/// strings, so that any form may be met.
fn chunk_size(bytes: &[u8], left: u64) -> Result<Size<(u64, u64)>, Problem> {
    let size = match text_size(bytes)? {
        Size::Short(wanted) => return Ok(Size::Short(wanted)),
        Size::Bytes(size) => size,
    };
    let plain = match length::read(bytes) {
        Prefix::Whole(Length::Plain(len), _) => len,
        Prefix::Whole(Length::Special(length::LZF), _) => match plain_len(bytes)? {
            Size::Short(wanted) => return Ok(Size::Short(wanted)),
            Size::Bytes(len) => len,
        },
        // Decimal digits: as many as the number takes.
        _ if size > bytes.len() as u64 => return Ok(Size::Short(size)),
        _ => match Cursor::new(bytes).text("chunk") {
            Ok(StoredText::Int(number)) => itoa::Buffer::new().format(number).len() as u64,
            _ => return Err(not_a_length(bytes[0])),
        },
    };
    match plain {
        0 => {
            let wanted = "a chunk of at least one byte";
            Err(Problem::Number { wanted, found: 0 })
        }
        plain if plain > left => Err(Problem::Differs {
            wanted: left,
            found: plain,
        }),
        plain => Ok(Size::Bytes((size, plain))),
    }
}

/// The length that a compressed string says it expands to.
fn plain_len(bytes: &[u8]) -> Result<Size<u64>, Problem> {
    let first = match number(&bytes[1..])? {
        Size::Bytes((_, size)) => 1 + size,
        Size::Short(wanted) => return Ok(Size::Short(1 + wanted)),
    };
    Ok(match number(&bytes[first..])? {
        Size::Bytes((len, _)) => Size::Bytes(len),
        Size::Short(wanted) => Size::Short(first as u64 + wanted),
    })
}

fn double_text_size(bytes: &[u8]) -> Size<u64> {
    match bytes.first() {
        None => Size::Short(1),
        Some(253..=255) => Size::Bytes(1),
        Some(digits) => Size::Bytes(1 + u64::from(*digits)),
    }
}
