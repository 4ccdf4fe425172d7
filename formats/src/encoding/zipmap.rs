//! Zipmap: the packed hash of Redis up to 2.4. It is only read.
//!
//! ```text
//! count u8, 254 = unknown | (length, field, length, free u8, value, free bytes of nothing)* | 0xFF
//! length: 0..253, or 254 + u32 LE; 255 = end of the map
//! ```

use super::BlobError;

const END: u8 = 0xFF;
const WIDE: u8 = 0xFE;
const COUNT_UNKNOWN: usize = 0xFE;

/// A sound zipmap in bytes of someone else. It is never empty.
///
/// ```
/// use dfsnap_formats::encoding::zipmap::Zipmap;
/// let map = Zipmap::new(b"\x01\x01f\x03\x00one\xff").unwrap();
/// assert_eq!(map.iter().next(), Some((&b"f"[..], &b"one"[..])));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Zipmap<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Zipmap<'a> {
    /// Checks all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BlobError> {
        let (Some(&count), Some(&last)) = (bytes.first(), bytes.get(1..).and_then(<[u8]>::last))
        else {
            return Err(BlobError::new(0, "zipmap", 2, bytes.len() as u64));
        };
        let end = bytes.len() - 1;
        if last != END {
            return Err(BlobError::new(
                end,
                "zipmap end mark",
                0xFF,
                u64::from(last),
            ));
        }
        let (mut at, mut len) = (1, 0);
        while at < end {
            at = pair(&bytes[..end], at)?.2;
            len += 1;
        }
        let count = usize::from(count);
        if len == 0 || count != COUNT_UNKNOWN && count != len {
            let wanted = len.max(1) as u64;
            return Err(BlobError::new(0, "zipmap count", wanted, count as u64));
        }
        Ok(Zipmap { bytes, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fields and values, in order.
    pub fn iter(&self) -> Iter<'a> {
        Iter {
            bytes: &self.bytes[..self.bytes.len() - 1],
            at: 1,
        }
    }
}

/// Fields and values, in order.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let (field, value, next) =
            pair(self.bytes, self.at).expect("checked when the map was made");
        self.at = next;
        Some((field, value))
    }
}

/// Field, value, and the offset of what follows. `bytes` ends before the end mark.
fn pair(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8], usize), BlobError> {
    let (len, at) = length(bytes, at)?;
    let field = take(bytes, at, len, "zipmap field")?;
    let (len, at) = length(bytes, at + len)?;
    let free = usize::from(take(bytes, at, 1, "zipmap free")?[0]);
    let value = take(bytes, at + 1, len, "zipmap value")?;
    take(bytes, at + 1 + len, free, "zipmap free")?;
    Ok((field, value, at + 1 + len + free))
}

fn length(bytes: &[u8], at: usize) -> Result<(usize, usize), BlobError> {
    match take(bytes, at, 1, "zipmap length")?[0] {
        END => Err(BlobError::new(at, "zipmap length", 254, 255)),
        WIDE => {
            let len = take(bytes, at + 1, 4, "zipmap length")?;
            let len = u32::from_le_bytes(len.try_into().expect("4 bytes"));
            Ok((len as usize, at + 5))
        }
        len => Ok((usize::from(len), at + 1)),
    }
}

fn take<'a>(
    bytes: &'a [u8],
    at: usize,
    wanted: usize,
    what: &'static str,
) -> Result<&'a [u8], BlobError> {
    let left = bytes.len().saturating_sub(at);
    bytes
        .get(at..at.saturating_add(wanted))
        .ok_or(BlobError::new(at, what, wanted as u64, left as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_read_with_free_bytes_and_wide_lengths() {
        let long = [b'v'; 300];
        let wide = [&[WIDE, 44, 1, 0, 0, 0][..], &long].concat();
        let bytes = [&b"\x02\x03key\x02\x03okxxx\x01k"[..], &wide, &[END]].concat();
        let map = Zipmap::new(&bytes).unwrap();
        let pairs: Vec<_> = map.iter().collect();
        assert_eq!(pairs, [(&b"key"[..], &b"ok"[..]), (&b"k"[..], &long[..])]);
        let mut unknown = bytes.clone();
        unknown[0] = WIDE;
        assert_eq!(Zipmap::new(&unknown).unwrap().len(), 2);
        for cut in 0..bytes.len() {
            assert!(Zipmap::new(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn wrong_counts_and_empty_maps_are_refused() {
        let rows: [(&str, &[u8]); 4] = [
            ("empty", b"\x00\xff"),
            ("unknown and empty", b"\xfe\xff"),
            ("count", b"\x02\x01f\x01\x00v\xff"),
            ("count 255", b"\xff\x01f\x01\x00v\xff"),
        ];
        for (name, bytes) in rows {
            assert!(Zipmap::new(bytes).is_err(), "{name}");
        }
    }
}
