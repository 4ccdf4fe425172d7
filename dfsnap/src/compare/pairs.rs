//! Brings together what has the same name in several sources, in bounded memory.
//!
//! Notes about names are spread over partitions by the hash of the name. Beyond the memory that is granted they go to a
//! temporary file without a name, which is gone when the process is. Then each partition is read back and sorted; one
//! that is still too large is spread again.
//!
//! ```text
//! note = side u8, group u32, kind u8, expiry flag u8, expiry i64, digest u128, name length u32, shown length u8, name, shown
//! ```

use crate::report::Failure;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;

/// Which of the sources that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side(pub u8);

impl Side {
    pub const A: Side = Side(0);
    pub const B: Side = Side(1);
}

/// What is known of a name on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    pub side: Side,
    /// Names are compared within a group: a database, or a key.
    pub group: u32,
    pub kind: u8,
    pub expire_at_ms: Option<i64>,
    pub digest: u128,
    pub name: &'a [u8],
    /// Whatever else is to be remembered, as text for people; at most 255 bytes.
    pub shown: &'a [u8],
}

const HEAD_BYTES: usize = 1 + 4 + 1 + 1 + 8 + 16 + 4 + 1;
const PARTITIONS: usize = 64;
/// Spreading again does not help if notes have the same name.
const LEVEL_MAX: u64 = 4;

/// Who gets what is known of a name on either side.
pub type Take<'t> = dyn FnMut(Option<Note<'_>>, Option<Note<'_>>) -> Result<(), Failure> + 't;

/// Who gets all that is known of a name.
pub type TakeAll<'t> = dyn FnMut(&[Note<'_>]) -> Result<(), Failure> + 't;

/// Notes about all sides, until they are joined.
pub struct Pairs {
    /// Bytes of notes that may be in memory.
    bytes_max: usize,
    level: u64,
    held: usize,
    partitions: Vec<Partition>,
    spilled: Option<File>,
    spilled_bytes: u64,
}

#[derive(Default)]
struct Partition {
    held: Vec<u8>,
    /// Offset and length in the temporary file.
    pieces: Vec<(u64, usize)>,
    bytes: u64,
}

impl Pairs {
    /// `memory` is what all of it may take.
    pub fn new(memory: u64) -> Self {
        // Buffers grow by doubling, and notes that are sorted take three times their bytes.
        const SHARE: u64 = 8;
        const BYTES_MIN: u64 = 64 << 10;
        let bytes_max = (memory / SHARE).max(BYTES_MIN);
        Pairs::at_level(usize::try_from(bytes_max).unwrap_or(usize::MAX), 0)
    }

    fn at_level(bytes_max: usize, level: u64) -> Self {
        Pairs {
            bytes_max,
            level,
            held: 0,
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            spilled: None,
            spilled_bytes: 0,
        }
    }

    pub fn push(&mut self, note: &Note<'_>) -> Result<(), Failure> {
        let mut hasher = foldhash::quality::FixedState::with_seed(self.level).build_hasher();
        hasher.write_u32(note.group);
        hasher.write(note.name);
        let partition = &mut self.partitions[hasher.finish() as usize % PARTITIONS];
        let before = partition.held.len();
        note.append_to(&mut partition.held);
        self.held += partition.held.len() - before;
        match self.held > self.bytes_max {
            true => self.spill().map_err(|error| failure(&error)),
            false => Ok(()),
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match self.spilled.take() {
            Some(file) => file,
            None => tempfile::tempfile()?,
        };
        for partition in self.partitions.iter_mut().filter(|p| !p.held.is_empty()) {
            let len = partition.held.len();
            file.write_all_at(&partition.held, self.spilled_bytes)?;
            partition.pieces.push((self.spilled_bytes, len));
            partition.bytes += len as u64;
            self.spilled_bytes += len as u64;
            partition.held.clear();
        }
        self.held = 0;
        self.spilled = Some(file);
        Ok(())
    }

    /// Gives every name with what is known of it on either side. Of a name that is there twice on a side, the last
    /// counts.
    pub fn join(self, take: &mut Take<'_>) -> Result<(), Failure> {
        self.join_all(&mut |same| {
            let last = |side| same.iter().rev().find(|note| note.side == side).copied();
            take(last(Side::A), last(Side::B))
        })
    }

    /// Gives everything that is known of each name, in the order in which it came.
    pub fn join_all(mut self, take: &mut TakeAll<'_>) -> Result<(), Failure> {
        let any_spilled = self.spilled.is_some();
        if any_spilled {
            self.spill().map_err(|error| failure(&error))?;
        }
        let mut bytes = Vec::new();
        for partition in std::mem::take(&mut self.partitions) {
            let Some(file) = &self.spilled else {
                join_notes(&partition.held, take)?;
                continue;
            };
            if partition.bytes > self.bytes_max as u64 && self.level < LEVEL_MAX {
                let mut finer = Pairs::at_level(self.bytes_max, self.level + 1);
                for piece in &partition.pieces {
                    bytes.clear();
                    read(file, *piece, &mut bytes)?;
                    notes(&bytes).try_for_each(|note| finer.push(&note))?;
                }
                finer.join_all(take)?;
                continue;
            }
            bytes.clear();
            for piece in &partition.pieces {
                read(file, *piece, &mut bytes)?;
            }
            join_notes(&bytes, take)?;
        }
        Ok(())
    }
}

/// Appends a piece of the temporary file.
fn read(file: &File, (offset, len): (u64, usize), out: &mut Vec<u8>) -> Result<(), Failure> {
    let start = out.len();
    out.resize(start + len, 0);
    file.read_exact_at(&mut out[start..], offset)
        .map_err(|error| failure(&error))
}

fn failure(error: &io::Error) -> Failure {
    Failure {
        message: format!("{}: {error}", std::env::temp_dir().display()),
        advice:
            "TMPDIR chooses another folder for what does not fit into memory; or raise --memory"
                .to_owned(),
    }
}

fn join_notes(bytes: &[u8], take: &mut TakeAll<'_>) -> Result<(), Failure> {
    let mut sorted: Vec<Note<'_>> = notes(bytes).collect();
    // Stable: what came last stays last.
    sorted.sort_by(|x, y| (x.group, x.name).cmp(&(y.group, y.name)));
    for same in sorted.chunk_by(|x, y| (x.group, x.name) == (y.group, y.name)) {
        take(same)?;
    }
    Ok(())
}

impl Note<'_> {
    fn append_to(&self, out: &mut Vec<u8>) {
        out.push(self.side.0);
        out.extend_from_slice(&self.group.to_be_bytes());
        out.push(self.kind);
        out.push(u8::from(self.expire_at_ms.is_some()));
        out.extend_from_slice(&self.expire_at_ms.unwrap_or_default().to_be_bytes());
        out.extend_from_slice(&self.digest.to_be_bytes());
        out.extend_from_slice(&(self.name.len() as u32).to_be_bytes());
        let shown = &self.shown[..self.shown.len().min(255)];
        out.push(shown.len() as u8);
        out.extend_from_slice(self.name);
        out.extend_from_slice(shown);
    }
}

/// The notes in bytes that `append_to` wrote.
fn notes(mut bytes: &[u8]) -> impl Iterator<Item = Note<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let array = |at: usize| <[u8; 4]>::try_from(&head[at..at + 4]).unwrap_or_default();
        let (name_len, shown_len) = (
            u32::from_be_bytes(array(31)) as usize,
            usize::from(head[35]),
        );
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (shown, rest) = rest.split_at_checked(shown_len)?;
        bytes = rest;
        let at_ms = i64::from_be_bytes(head[7..15].try_into().ok()?);
        Some(Note {
            side: Side(head[0]),
            group: u32::from_be_bytes(array(1)),
            kind: head[5],
            expire_at_ms: (head[6] == 1).then_some(at_ms),
            digest: u128::from_be_bytes(head[15..31].try_into().ok()?),
            name,
            shown,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn note<'n>(side: Side, group: u32, name: &'n [u8], digest: u128) -> Note<'n> {
        Note {
            side,
            group,
            kind: 1,
            expire_at_ms: (digest % 2 == 1).then_some(-5),
            digest,
            name,
            shown: &name[..1],
        }
    }

    /// Each name, and on which sides it is.
    type Found = BTreeMap<(u32, Vec<u8>), (bool, bool)>;

    /// Names of A count by 3, those of B by 2, in five groups.
    fn joined(memory: u64, count: u32) -> (Found, u64) {
        let mut pairs = Pairs::new(memory);
        for n in 0..count {
            let name = format!("name {n}");
            let name = name.as_bytes();
            for (side, step) in [(Side::A, 3), (Side::B, 2)] {
                if n % step == 0 {
                    pairs.push(&note(side, n % 5, name, u128::from(n))).unwrap();
                }
            }
        }
        let spilled = pairs.spilled_bytes;
        let mut found = BTreeMap::new();
        let result = pairs.join(&mut |a, b| {
            let one = a.or(b).unwrap();
            assert_eq!(one, note(one.side, one.group, one.name, one.digest));
            let names = (one.group, one.name.to_vec());
            assert!(found.insert(names, (a.is_some(), b.is_some())).is_none());
            Ok(())
        });
        result.unwrap();
        (found, spilled)
    }

    #[test]
    fn memory_does_not_change_the_result() {
        let (want, spilled) = joined(1 << 30, 30_000);
        assert_eq!((want.len(), spilled), (20_000, 0));
        let both = want.values().filter(|sides| **sides == (true, true));
        assert_eq!(both.count(), 5000);
        // Spread twice: 1 MB of notes, 64 KiB in memory, 64 partitions.
        let (found, spilled) = joined(0, 30_000);
        assert!(spilled > 1 << 20, "{spilled}");
        assert_eq!(found, want);
    }

    #[test]
    fn a_partition_that_is_too_large_is_spread_again() {
        let mut pairs = Pairs::at_level(100, 0);
        for n in 0..2000u32 {
            pairs.push(&note(Side::A, 0, &n.to_be_bytes(), 2)).unwrap();
        }
        let mut count = 0;
        let result = pairs.join(&mut |a, b| {
            assert!(a.is_some() && b.is_none());
            count += 1;
            Ok(())
        });
        result.unwrap();
        assert_eq!(count, 2000);
    }

    #[test]
    fn of_names_that_are_there_twice_the_last_counts() {
        let mut pairs = Pairs::new(1 << 20);
        for digest in [1, 2, 3] {
            pairs.push(&note(Side::B, 7, b"k", digest)).unwrap();
        }
        let result = pairs.join(&mut |a, b| {
            assert_eq!((a, b.map(|note| note.digest)), (None, Some(3)));
            Ok(())
        });
        result.unwrap();
    }
}
