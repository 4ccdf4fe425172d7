//! Intset: a set of integers in one sorted run of bytes.
//!
//! The keyspace keeps small sets of integers in it; the readers and writers of dumps copy it whole.
//!
//! ```text
//! width u32 LE: 2, 4 or 8 | n u32 LE | n integers of that width, LE, ascending
//! ```
//! Invariants
//! - Members ascend strictly, and `8 + width * n` is the length.
//! - The width only grows; it may be larger than the members need.

use super::{BlobError, size_class};

const HEADER: usize = 8;

/// A set of integers whose bytes are the stored form.
///
/// ```
/// use dfsnap_formats::encoding::intset::Intset;
/// let mut set = Intset::new();
/// assert!(set.insert(5) && set.insert(-70_000) && !set.insert(5));
/// assert_eq!(set.iter().collect::<Vec<_>>(), [-70_000, 5]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intset {
    bytes: Vec<u8>,
}

impl Default for Intset {
    fn default() -> Self {
        Intset::new()
    }
}

impl Intset {
    pub fn new() -> Self {
        Intset {
            bytes: vec![2, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// Takes bytes from outside after checking all of them. A stored intset is never empty.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BlobError> {
        check(&bytes)?;
        Ok(Intset { bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn len(&self) -> usize {
        u32::from_le_bytes(self.bytes[4..8].try_into().expect("4 bytes")) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    /// Bytes a member takes: 2, 4 or 8.
    pub fn width(&self) -> usize {
        usize::from(self.bytes[0])
    }

    /// The member at `index` in ascending order.
    pub fn get(&self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| self.member(index))
    }

    pub fn contains(&self, number: i64) -> bool {
        self.search(number).is_ok()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + '_ {
        (0..self.len()).map(|index| self.member(index))
    }

    /// Adds `number`; false if it was there.
    pub fn insert(&mut self, number: i64) -> bool {
        if width_of(number) > self.width() {
            self.widen(width_of(number));
        }
        let Err(index) = self.search(number) else {
            return false;
        };
        let (width, len) = (self.width(), self.bytes.len());
        if len + width > self.bytes.capacity() {
            self.bytes.reserve_exact(size_class(len + width) - len);
        }
        let at = HEADER + index * width;
        self.bytes.resize(len + width, 0);
        self.bytes.copy_within(at..len, at + width);
        self.bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        self.write_len();
        true
    }

    /// Removes `number`; false if it was not there.
    pub fn remove(&mut self, number: i64) -> bool {
        let Ok(index) = self.search(number) else {
            return false;
        };
        let width = self.width();
        let at = HEADER + index * width;
        self.bytes.copy_within(at + width.., at);
        self.bytes.truncate(self.bytes.len() - width);
        if self.bytes.len() * 2 < self.bytes.capacity() {
            self.bytes
                .shrink_to(size_class(self.bytes.len()).min(self.bytes.capacity()));
        }
        self.write_len();
        true
    }

    fn member(&self, index: usize) -> i64 {
        member(&self.bytes, self.width(), index)
    }

    /// Where `number` is, or where it belongs.
    fn search(&self, number: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.member(middle).cmp(&number) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn widen(&mut self, width: usize) {
        let mut wide = Vec::with_capacity(size_class(HEADER + (self.len() + 1) * width));
        wide.extend_from_slice(&(width as u32).to_le_bytes());
        wide.extend_from_slice(&self.bytes[4..8]);
        for number in self.iter() {
            wide.extend_from_slice(&number.to_le_bytes()[..width]);
        }
        self.bytes = wide;
    }

    fn write_len(&mut self) {
        let len = u32::try_from((self.bytes.len() - HEADER) / self.width())
            .expect("an intset has fewer than 2^32 members");
        self.bytes[4..8].copy_from_slice(&len.to_le_bytes());
    }
}

fn width_of(number: i64) -> usize {
    if i16::try_from(number).is_ok() {
        2
    } else if i32::try_from(number).is_ok() {
        4
    } else {
        8
    }
}

fn member(bytes: &[u8], width: usize, index: usize) -> i64 {
    let at = HEADER + index * width;
    let raw = &bytes[at..at + width];
    match width {
        2 => i64::from(i16::from_le_bytes(raw.try_into().expect("2 bytes"))),
        4 => i64::from(i32::from_le_bytes(raw.try_into().expect("4 bytes"))),
        _ => i64::from_le_bytes(raw.try_into().expect("8 bytes")),
    }
}

/// The members of an intset in bytes of someone else, after checking all of them.
pub fn members(bytes: &[u8]) -> Result<impl ExactSizeIterator<Item = i64> + Clone, BlobError> {
    let len = check(bytes)?;
    let width = (bytes.len() - HEADER) / len.max(1);
    Ok((0..len).map(move |index| member(bytes, width, index)))
}

/// Checks every byte of an intset from outside and counts its members.
pub fn check(bytes: &[u8]) -> Result<usize, BlobError> {
    let Some((header, members)) = bytes.split_at_checked(HEADER) else {
        return Err(BlobError::new(
            0,
            "intset header",
            HEADER as u64,
            bytes.len() as u64,
        ));
    };
    let width = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
    if !matches!(width, 2 | 4 | 8) {
        return Err(BlobError::new(
            0,
            "intset width of 2, 4 or 8, at most",
            8,
            u64::from(width),
        ));
    }
    let len = u32::from_le_bytes(header[4..].try_into().expect("4 bytes"));
    let wanted = u64::from(len) * u64::from(width);
    if wanted != members.len() as u64 {
        return Err(BlobError::new(
            4,
            "intset member bytes",
            wanted,
            members.len() as u64,
        ));
    }
    if len == 0 {
        return Err(BlobError::new(4, "intset members, at least", 1, 0));
    }
    let (width, len) = (width as usize, len as usize);
    for index in 1..len {
        let (before, number) = (member(bytes, width, index - 1), member(bytes, width, index));
        if number <= before {
            let at = HEADER + index * width;
            return Err(BlobError::new(
                at,
                "intset member (two's complement) above",
                before as u64,
                number as u64,
            ));
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn members_have_the_bytes_that_redis_writes() {
        let mut set = Intset::new();
        for number in [3, 1, -2] {
            assert!(set.insert(number));
        }
        assert_eq!(
            set.as_bytes(),
            [2, 0, 0, 0, 3, 0, 0, 0, 0xFE, 0xFF, 1, 0, 3, 0]
        );
        assert!(set.insert(40_000));
        assert_eq!((set.width(), set.as_bytes().len()), (4, 24));
        assert!(set.remove(40_000));
        assert_eq!(set.width(), 4, "a width never shrinks");
    }

    #[test]
    fn damage_is_an_error_with_both_numbers() {
        let rows: &[(&str, &[u8], &str)] = &[
            (
                "short",
                &[2, 0, 0],
                "offset 0: intset header: wanted 8, found 3",
            ),
            (
                "width",
                &[3, 0, 0, 0, 0, 0, 0, 0],
                "offset 0: intset width of 2, 4 or 8, at most: wanted 8, found 3",
            ),
            (
                "empty",
                &[2, 0, 0, 0, 0, 0, 0, 0],
                "offset 4: intset members, at least: wanted 1, found 0",
            ),
            (
                "cut",
                &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
                "offset 4: intset member bytes: wanted 4, found 2",
            ),
            (
                "huge",
                &[8, 0, 0, 0, 255, 255, 255, 255],
                "offset 4: intset member bytes: wanted 34359738360, found 0",
            ),
            (
                "repeat",
                &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
                "offset 10: intset member (two's complement) above: wanted 1, found 1",
            ),
        ];
        for (name, bytes, message) in rows {
            assert_eq!(
                Intset::from_bytes(bytes.to_vec()).unwrap_err().to_string(),
                *message,
                "{name}"
            );
        }
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            -20i64..20,
            (any::<i64>(), 0u32..63).prop_map(|(number, shift)| number >> shift)
        ]
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_tree(ops in prop::collection::vec((any::<bool>(), number()), 0..200)) {
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            for (add, number) in ops {
                if add {
                    prop_assert_eq!(set.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(set.remove(number), model.remove(&number));
                }
                prop_assert_eq!(set.contains(number), add);
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.get(model.len()), None);
            if !model.is_empty() {
                prop_assert_eq!(Intset::from_bytes(set.as_bytes().to_vec()), Ok(set));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_readable(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(set) = Intset::from_bytes(bytes) {
                prop_assert_eq!(set.iter().count(), set.len());
            }
        }
    }
}
