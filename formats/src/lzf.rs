//! LZF: the compression of strings inside RDB files.
//!
//! The writer of a dump keeps one `LzfEncoder` for all its strings; the reader expands each string as it is met.
//!
//! ```text
//! 000nnnnn                        copy the next n + 1 bytes
//! LLLooooo [length] oooooooo      copy L + 2 bytes from o + 1 bytes back; L = 7: the extra byte is added to L
//! ```
//! Source and destination of a reference may overlap: that is how runs are made.

/// Longest run of bytes copied from the input.
const LITERAL_MAX: usize = 32;
/// Shortest and longest reference.
const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = 7 + 255 + 2;
/// Farthest reference back.
const DISTANCE_MAX: usize = 1 << 13;
/// Slots of the table: 64 KB, which stays in the second-level cache.
const TABLE_BITS: u32 = 14;
/// Longer inputs are not worth positions of eight bytes; they are stored as they are.
const INPUT_MAX: usize = 1 << 30;

/// Compresses strings one after another. The table of places is kept between calls and never cleared: places of
/// earlier inputs lie below `base` and count for nothing.
///
/// ```
/// use dfsnap_formats::lzf::{LzfEncoder, expand};
/// let text = b"to be or not to be, that is the question: to be or not to be";
/// let mut packed = Vec::new();
/// assert!(LzfEncoder::new().compress(text, text.len() - 4, &mut packed));
/// let mut back = Vec::new();
/// expand(&packed, text.len(), &mut back).unwrap();
/// assert_eq!(back, text);
/// ```
#[derive(Clone)]
pub struct LzfEncoder {
    table: Box<[u32]>,
    /// What is added to a position of the current input. 1 <= base, so that 0 is "never".
    base: u32,
}

impl LzfEncoder {
    pub fn new() -> Self {
        LzfEncoder {
            table: vec![0; 1 << TABLE_BITS].into_boxed_slice(),
            base: 1,
        }
    }

    /// Appends the compressed form of `input` to `out` if that takes at most `limit` bytes. Otherwise `out` is as
    /// before and the answer is false.
    pub fn compress(&mut self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        if input.len() < MATCH_MIN + 1 || input.len() > INPUT_MAX {
            return false;
        }
        self.reserve_positions(input.len());
        let start = out.len();
        let fits = self.compress_within(input, start + limit, out);
        self.base += input.len() as u32;
        if !fits {
            out.truncate(start);
        }
        fits
    }

    fn reserve_positions(&mut self, len: usize) {
        if self.base.checked_add(len as u32).is_none() {
            self.table.fill(0);
            self.base = 1;
        }
    }

    /// `end_max`: length that `out` may reach.
    fn compress_within(&mut self, input: &[u8], end_max: usize, out: &mut Vec<u8>) -> bool {
        // The last three bytes start no reference, so that a window of four bytes is always there.
        let last = input.len() - MATCH_MIN;
        let mut literals = 0;
        let mut at = 0;
        while at < last {
            let Some(from) = self.candidate(input, at) else {
                // Input that does not compress is walked in growing steps.
                at += 1 + ((at - literals) >> 6);
                continue;
            };
            let len = match_len(input, from, at);
            put_literals(&input[literals..at], out);
            put_reference(at - from, len, out);
            if out.len() > end_max {
                return false;
            }
            let next = at + len;
            // Two places inside the reference are enough to find most repetitions of it.
            for inside in [at + 1, next - 1] {
                if inside < last {
                    self.remember(input, inside);
                }
            }
            at = next;
            literals = next;
        }
        put_literals(&input[literals..], out);
        out.len() <= end_max
    }

    /// An earlier place, near enough, with the same three bytes as `at`; `at` takes its slot.
    fn candidate(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let seen = self.remember(input, at);
        let from = seen.checked_sub(self.base)? as usize;
        let near = at - from <= DISTANCE_MAX;
        (near && input[from..from + MATCH_MIN] == input[at..at + MATCH_MIN]).then_some(from)
    }

    fn remember(&mut self, input: &[u8], at: usize) -> u32 {
        let window = [input[at], input[at + 1], input[at + 2], 0];
        let hash = u32::from_le_bytes(window).wrapping_mul(0x9E37_79B1) >> (32 - TABLE_BITS);
        std::mem::replace(&mut self.table[hash as usize], self.base + at as u32)
    }
}

impl Default for LzfEncoder {
    fn default() -> Self {
        LzfEncoder::new()
    }
}

impl std::fmt::Debug for LzfEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LzfEncoder").finish_non_exhaustive()
    }
}

fn match_len(input: &[u8], from: usize, at: usize) -> usize {
    let max = MATCH_MAX.min(input.len() - at);
    let (old, new) = (&input[from..from + max], &input[at..at + max]);
    let mut len = 0;
    for (a, b) in old.chunks_exact(8).zip(new.chunks_exact(8)) {
        let a = u64::from_le_bytes(a.try_into().expect("chunk of 8"));
        let b = u64::from_le_bytes(b.try_into().expect("chunk of 8"));
        if a != b {
            return len + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    while len < max && old[len] == new[len] {
        len += 1;
    }
    len
}

fn put_literals(bytes: &[u8], out: &mut Vec<u8>) {
    for run in bytes.chunks(LITERAL_MAX) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

fn put_reference(distance: usize, len: usize, out: &mut Vec<u8>) {
    let offset = distance - 1;
    let length = len - 2;
    let high = (offset >> 8) as u8;
    if length < 7 {
        out.push((length as u8) << 5 | high);
    } else {
        out.push(7 << 5 | high);
        out.push((length - 7) as u8);
    }
    out.push(offset as u8);
}

/// Why compressed bytes do not expand to what was announced. Offsets count from the start of the compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LzfError {
    #[error(
        "lzf: {announced} bytes announced, but {len} compressed bytes can give at most {possible}"
    )]
    Announced {
        announced: u64,
        len: usize,
        possible: u64,
    },
    #[error("lzf: offset {offset}: wanted {wanted} bytes, {left} left")]
    Truncated {
        offset: usize,
        wanted: usize,
        left: usize,
    },
    #[error(
        "lzf: offset {offset}: reference {distance} bytes back, but only {written} bytes are out"
    )]
    Reference {
        offset: usize,
        distance: usize,
        written: usize,
    },
    #[error("lzf: expands to {found} bytes, {announced} announced")]
    Length { announced: usize, found: usize },
}

/// Appends to `out` what `packed` expands to, which must be exactly `len` bytes. After an error `out` may hold some
/// of it.
pub fn expand(packed: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
    check_announced(packed, len)?;
    let start = out.len();
    out.resize(start + len, 0);
    let found = expand_into(packed, &mut out[start..])?;
    check_length(len, found)
}

/// Whether `expand` would succeed, and if not why. Costs a part of it, as nothing is copied.
///
/// ```
/// use dfsnap_formats::lzf::check;
/// let packed = [0, b'x', 0xE0, 3, 0]; // one x, then twelve from one byte back
/// assert_eq!(check(&packed, 13), Ok(()));
/// assert!(check(&packed, 12).is_err());
/// ```
pub fn check(packed: &[u8], len: usize) -> Result<(), LzfError> {
    check_announced(packed, len)?;
    let (mut at, mut done) = (0, 0);
    while let Some(&control) = packed.get(at) {
        let control = usize::from(control);
        at += 1;
        if control < LITERAL_MAX {
            let run = control + 1;
            if packed.len() - at < run {
                take(packed, at, run)?;
            }
            at += run;
            done += run;
        } else {
            let mut run = control >> 5;
            if run == 7 {
                run += usize::from(byte(packed, at, 2)?);
                at += 1;
            }
            let low = usize::from(byte(packed, at, 1)?);
            at += 1;
            check_distance(control, low, at, done)?;
            done += run + 2;
        }
        if done > len {
            break;
        }
    }
    check_length(len, done)
}

/// Fills `into` with what `packed` begins with. For bytes that `check` was pleased with; the answer is how many there were.
///
/// ```
/// use dfsnap_formats::lzf::expand_start;
/// let packed = [0, b'x', 0xE0, 3, 0]; // one x, then twelve from one byte back
/// let mut start = [0; 4];
/// assert_eq!(expand_start(&packed, &mut start), 4);
/// assert_eq!(start, *b"xxxx");
/// ```
pub fn expand_start(packed: &[u8], into: &mut [u8]) -> usize {
    let (mut at, mut done) = (0, 0);
    while done < into.len() {
        let Some(&control) = packed.get(at) else {
            break;
        };
        let size = match control {
            0..32 => 2 + usize::from(control),
            0xE0.. => 3,
            _ => 2,
        };
        let Some(unit) = packed.get(at..at + size) else {
            break;
        };
        at += size;
        if usize::from(control) < LITERAL_MAX {
            let (to, from) = (&mut into[done..], &unit[1..]);
            let count = from.len().min(to.len());
            to[..count].copy_from_slice(&from[..count]);
            done += count;
            continue;
        }
        let distance = (usize::from(control & 31) << 8 | usize::from(unit[size - 1])) + 1;
        let extra = if size == 3 { usize::from(unit[1]) } else { 0 };
        let end = (done + usize::from(control >> 5) + extra + 2).min(into.len());
        let Some(from) = done.checked_sub(distance) else {
            break;
        };
        for step in 0..end - done {
            into[done + step] = into[from + step];
        }
        done = end;
    }
    done
}

fn check_announced(packed: &[u8], len: usize) -> Result<(), LzfError> {
    // Three bytes give at most 264: an announced length beyond that is a lie, and must not reserve memory.
    let possible = packed.len() as u64 * 88 + 264;
    match len as u64 > possible {
        false => Ok(()),
        true => Err(LzfError::Announced {
            announced: len as u64,
            len: packed.len(),
            possible,
        }),
    }
}

fn check_length(announced: usize, found: usize) -> Result<(), LzfError> {
    match found == announced {
        true => Ok(()),
        false => Err(LzfError::Length { announced, found }),
    }
}

/// How far a reference goes back, which ends at `at` and stands behind `done` bytes.
#[inline]
fn check_distance(control: usize, low: usize, at: usize, done: usize) -> Result<usize, LzfError> {
    let distance = ((control & 31) << 8 | low) + 1;
    match distance > done {
        false => Ok(distance),
        true => Err(LzfError::Reference {
            offset: at - if control >> 5 == 7 { 3 } else { 2 },
            distance,
            written: done,
        }),
    }
}

/// Bytes that are copied at once, more than asked for where there is room: what is too much is written over later.
const STRIDE: usize = 16;

/// How many bytes `packed` expands to; more than `out` holds are counted as far as it was noticed.
fn expand_into(packed: &[u8], out: &mut [u8]) -> Result<usize, LzfError> {
    let (mut at, mut done) = (0, 0);
    while let Some(&control) = packed.get(at) {
        let mut control = usize::from(control);
        // Most steps are a run and a reference behind it, or a reference alone, and nobody guesses which: both are taken for a run, of no
        // bytes in the second case, where there is room for what is too much.
        if let (Some(from), Some(to)) = (
            packed.get(at + 1..at + 1 + LITERAL_MAX),
            out.get_mut(done..done + LITERAL_MAX),
        ) {
            to.copy_from_slice(from);
            let is_run = control < LITERAL_MAX;
            let run = if is_run { control + 1 } else { 0 };
            done += run;
            at += run + usize::from(is_run);
            let Some(&next) = packed.get(at) else { break };
            control = usize::from(next);
            if control < LITERAL_MAX {
                continue;
            }
            at += 1;
        } else {
            at += 1;
            if control < LITERAL_MAX {
                let run = control + 1;
                let from = take(packed, at, run)?;
                match out.get_mut(done..done + run) {
                    Some(to) => to.copy_from_slice(from),
                    None => return Ok(done + run),
                }
                at += run;
                done += run;
                continue;
            }
        }
        let mut len = control >> 5;
        if len == 7 {
            len += usize::from(byte(packed, at, 2)?);
            at += 1;
        }
        len += 2;
        let low = usize::from(byte(packed, at, 1)?);
        at += 1;
        let distance = check_distance(control, low, at, done)?;
        if done + len > out.len() {
            return Ok(done + len);
        }
        copy_back(out, done, distance, len);
        done += len;
    }
    Ok(done)
}

/// Copies `len` bytes to `to` from `distance` back; there is room for them. An overlap repeats the last bytes.
#[inline(always)]
fn copy_back(out: &mut [u8], to: usize, distance: usize, len: usize) {
    let from = to - distance;
    if distance >= STRIDE && to + len + STRIDE <= out.len() {
        copy_stride(out, from, to);
        if len > STRIDE {
            for step in (STRIDE..len).step_by(STRIDE) {
                copy_stride(out, from + step, to + step);
            }
        }
    } else {
        copy_near(out, to, distance, len);
    }
}

/// Copies a stride through a register: a copy within the slice would be a call.
#[inline(always)]
fn copy_stride(out: &mut [u8], from: usize, to: usize) {
    let Some(chunk) = out[from..].first_chunk() else {
        return;
    };
    let chunk = u128::from_ne_bytes(*chunk);
    if let Some(place) = out[to..].first_chunk_mut() {
        *place = chunk.to_ne_bytes();
    }
}

/// The same where the two are near each other, or near the end.
#[inline(never)]
fn copy_near(out: &mut [u8], to: usize, distance: usize, len: usize) {
    let from = to - distance;
    if distance >= len {
        out.copy_within(from..from + len, to);
    } else if distance == 1 {
        let byte = out[from];
        out[to..to + len].fill(byte);
    } else {
        // Each copy doubles what can be taken at once.
        let mut copied = 0;
        while copied < len {
            let piece = (distance + copied).min(len - copied);
            out.copy_within(from..from + piece, to + copied);
            copied += piece;
        }
    }
}

/// Expands a string that comes in pieces, for one that is not to be in memory as a whole.
///
/// ```
/// use dfsnap_formats::lzf::Expander;
/// let packed = [0, b'x', 0xE0, 3, 0]; // one x, then twelve from one byte back
/// let mut expander = Expander::new(packed.len() as u64, 13);
/// let mut out = Vec::new();
/// for piece in packed.chunks(2) {
///     out.extend_from_slice(expander.expand(piece).unwrap());
/// }
/// expander.finish().unwrap();
/// assert_eq!(out, [b'x'; 13]);
/// ```
#[derive(Debug, Clone)]
pub struct Expander {
    packed_len: u64,
    announced: u64,
    /// Bytes that were expanded before those in `out`.
    written: u64,
    /// The last bytes, as far back as a reference can reach, then those that were expanded last.
    out: Vec<u8>,
    /// A control byte and what follows it, of which not all has come yet.
    cut: Vec<u8>,
}

impl Expander {
    /// For a string stored in `packed_len` bytes that must expand to exactly `announced`.
    pub fn new(packed_len: u64, announced: u64) -> Self {
        Expander {
            packed_len,
            announced,
            written: 0,
            out: Vec::new(),
            cut: Vec::new(),
        }
    }

    /// What the next bytes expand to, together with what was left of those before.
    pub fn expand(&mut self, packed: &[u8]) -> Result<&[u8], LzfError> {
        if self.out.len() > DISTANCE_MAX {
            let gone = self.out.len() - DISTANCE_MAX;
            self.out.drain(..gone);
            self.written += gone as u64;
        }
        let start = self.out.len();
        let mut cut = std::mem::take(&mut self.cut);
        cut.extend_from_slice(packed);
        let mut at = 0;
        while let Some(&control) = cut.get(at) {
            let size = match control {
                0..32 => 2 + usize::from(control),
                0xE0.. => 3,
                _ => 2,
            };
            if cut.len() - at < size {
                break;
            }
            self.step(&cut[at..at + size])?;
            at += size;
        }
        cut.drain(..at);
        self.cut = cut;
        Ok(&self.out[start..])
    }

    /// One control byte with everything that belongs to it.
    fn step(&mut self, unit: &[u8]) -> Result<(), LzfError> {
        let control = usize::from(unit[0]);
        if control < LITERAL_MAX {
            self.out.extend_from_slice(&unit[1..]);
        } else {
            let extra = if unit.len() == 3 {
                usize::from(unit[1])
            } else {
                0
            };
            let low = usize::from(unit[unit.len() - 1]);
            let distance = ((control & 31) << 8 | low) + 1;
            if distance > self.out.len() {
                return Err(LzfError::Reference {
                    offset: 0,
                    distance,
                    written: self.out.len(),
                });
            }
            let (to, len) = (self.out.len(), (control >> 5) + extra + 2);
            self.out.resize(to + len, 0);
            copy_back(&mut self.out, to, distance, len);
        }
        match self.total() > self.announced {
            true => Err(self.wrong_length()),
            false => Ok(()),
        }
    }

    fn total(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    fn wrong_length(&self) -> LzfError {
        LzfError::Length {
            announced: usize::try_from(self.announced).unwrap_or(usize::MAX),
            found: usize::try_from(self.total()).unwrap_or(usize::MAX),
        }
    }

    /// The end of the packed bytes: nothing may be missing.
    pub fn finish(&self) -> Result<(), LzfError> {
        if !self.cut.is_empty() {
            return Err(LzfError::Truncated {
                offset: usize::try_from(self.packed_len).unwrap_or(usize::MAX),
                wanted: self.cut.len() + 1,
                left: self.cut.len(),
            });
        }
        match self.total() == self.announced {
            true => Ok(()),
            false => Err(self.wrong_length()),
        }
    }
}

/// The next byte, of which `wanted` are to come.
#[inline]
fn byte(packed: &[u8], offset: usize, wanted: usize) -> Result<u8, LzfError> {
    match packed.get(offset) {
        Some(byte) if wanted == 1 || offset + 1 < packed.len() => Ok(*byte),
        _ => take(packed, offset, wanted).map(|bytes| bytes[0]),
    }
}

#[inline(never)]
fn take(packed: &[u8], offset: usize, wanted: usize) -> Result<&[u8], LzfError> {
    packed
        .get(offset..offset + wanted)
        .ok_or(LzfError::Truncated {
            offset,
            wanted,
            left: packed.len() - offset,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(encoder: &mut LzfEncoder, input: &[u8]) -> Option<usize> {
        let mut packed = b"kept".to_vec();
        if !encoder.compress(input, input.len() * 2 + 16, &mut packed) {
            assert_eq!(packed, b"kept");
            return None;
        }
        let mut back = b"also".to_vec();
        expand(&packed[4..], input.len(), &mut back).unwrap();
        check(&packed[4..], input.len()).unwrap();
        for count in [0, 1, 10, 300, input.len()] {
            let mut start = vec![0; count.min(input.len())];
            assert_eq!(expand_start(&packed[4..], &mut start), start.len());
            assert_eq!(start, input[..start.len()], "{count}");
        }
        assert_eq!(&back[4..], input);
        Some(packed.len() - 4)
    }

    #[test]
    fn runs_and_repetitions_shrink() {
        let mut encoder = LzfEncoder::new();
        let rows: [(&str, Vec<u8>, usize); 4] = [
            ("one byte repeated", vec![b'a'; 10_000], 130),
            ("period of five", b"hello".repeat(2000), 140),
            (
                "far apart",
                [&[1; 40][..], &[2; 8000], &[1; 40]].concat(),
                120,
            ),
            ("long reference", [&[7; 264][..], &[7; 264]].concat(), 12),
        ];
        for (name, input, most) in rows {
            let packed = round_trip(&mut encoder, &input).unwrap();
            assert!(packed <= most, "{name}: {packed} bytes");
        }
    }

    #[test]
    fn what_does_not_fit_the_limit_leaves_the_output_alone() {
        let mut encoder = LzfEncoder::new();
        let input: Vec<u8> = (0..=255).collect();
        let mut out = vec![9];
        assert!(!encoder.compress(&input, input.len() - 4, &mut out));
        assert_eq!(out, [9]);
        assert!(!encoder.compress(b"abc", 100, &mut out));
    }

    #[test]
    fn places_of_earlier_inputs_are_never_followed() {
        let mut encoder = LzfEncoder::new();
        encoder.base = u32::MAX - 3000;
        for round in 0..20u8 {
            let input: Vec<u8> = (0..600u32).map(|i| (i / 7) as u8 ^ round).collect();
            round_trip(&mut encoder, &input).unwrap();
        }
    }

    #[test]
    fn literal_runs_and_overlapping_references_expand() {
        let rows: [(&str, &[u8], &[u8]); 4] = [
            ("literals", &[2, b'a', b'b', b'c'], b"abc"),
            ("overlap", &[0, b'x', 0x60, 0], b"xxxxxx"),
            ("overlap of two", &[1, b'a', b'b', 0x20, 1], b"ababa"),
            ("long length", &[0, b'y', 0xE0, 3, 0], &[b'y'; 13]),
        ];
        for (name, packed, want) in rows {
            let mut out = Vec::new();
            expand(packed, want.len(), &mut out).unwrap();
            assert_eq!(out, want, "{name}");
        }
    }

    #[test]
    fn damage_is_told_apart() {
        let truncated = |offset, wanted, left| LzfError::Truncated {
            offset,
            wanted,
            left,
        };
        let rows: [(&str, &[u8], usize, LzfError); 6] = [
            ("literal past the end", &[4, b'a'], 5, truncated(1, 5, 1)),
            ("reference cut", &[0, b'a', 0x20], 4, truncated(3, 1, 0)),
            ("long cut", &[0, b'a', 0xE0, 1], 4, truncated(3, 2, 1)),
            (
                "before the start",
                &[0, b'a', 0x20, 1],
                4,
                LzfError::Reference {
                    offset: 2,
                    distance: 2,
                    written: 1,
                },
            ),
            (
                "too short",
                &[0, b'a'],
                2,
                LzfError::Length {
                    announced: 2,
                    found: 1,
                },
            ),
            (
                "impossible",
                &[0, b'a'],
                1 << 40,
                LzfError::Announced {
                    announced: 1 << 40,
                    len: 2,
                    possible: 440,
                },
            ),
        ];
        for (name, packed, len, want) in rows {
            assert_eq!(check(packed, len), Err(want), "{name}");
            assert_eq!(expand(packed, len, &mut Vec::new()), Err(want), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_input_comes_back(words in prop::collection::vec((0u8..40, 1usize..60), 0..200)) {
            let input: Vec<u8> = words
                .iter()
                .flat_map(|&(word, len)| (0..len).map(move |i| word.wrapping_mul(i as u8 % 5)))
                .collect();
            round_trip(&mut LzfEncoder::new(), &input);
        }

        #[test]
        fn random_bytes_expand_or_fail(packed in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..5000) {
            let mut out = Vec::new();
            let expanded = expand(&packed, len, &mut out);
            if expanded.is_ok() {
                prop_assert_eq!(out.len(), len);
            }
            prop_assert_eq!(check(&packed, len), expanded);
        }
    }
}
