//! `Blob`: an immutable byte string in sixteen bytes.
//!
//! Keys, members, fields and string values are blobs. Up to fifteen bytes live inside; longer ones are one heap
//! allocation of exactly their length. The last byte is a tag with unused values, so that `Option<Blob>` and an
//! enum with a `Blob` in it take sixteen bytes as well.
//!
//! ```text
//!  byte   0 ........ 7   8 ......... 14   15
//!         inline bytes, the first `tag`   tag 0..=15
//!         pointer        length (56 bit)  tag 16
//! ```
//!
//! Invariants
//! - tag <= 15: the first `tag` bytes are initialized and are the content.
//! - tag 16: the pointer came from `Box<[u8]>` of that length, and this blob owns it.

use std::mem::MaybeUninit;
use std::ptr;

/// Content of at most this many bytes needs no allocation.
pub const INLINE_BYTES_MAX: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
#[expect(dead_code, reason = "the inline tags are made from a length, never named")]
enum Tag {
    L0, L1, L2, L3, L4, L5, L6, L7,
    L8, L9, L10, L11, L12, L13, L14, L15,
    Heap,
}

const HEAP: u8 = Tag::Heap as u8;

/// An immutable byte string; see the module documentation for the layout.
#[repr(C, align(8))]
pub struct Blob {
    bytes: [MaybeUninit<u8>; 15],
    tag: Tag,
}

const _: () = assert!(size_of::<Blob>() == 16 && size_of::<Option<Blob>>() == 16);

// SAFETY: a blob owns its bytes, shares nothing and has no interior mutability.
unsafe impl Send for Blob {}
// SAFETY: as above; `&Blob` only reads.
unsafe impl Sync for Blob {}

impl Blob {
    /// A blob holding a copy of `content`.
    pub fn new(content: &[u8]) -> Blob {
        if content.len() > INLINE_BYTES_MAX {
            return Blob::from_box(content.into());
        }
        let mut bytes = [MaybeUninit::uninit(); 15];
        for (to, from) in bytes.iter_mut().zip(content) {
            to.write(*from);
        }
        // SAFETY: the length is at most 15, and `Tag` has a variant for each of 0..=16.
        let tag = unsafe { std::mem::transmute::<u8, Tag>(content.len() as u8) };
        Blob { bytes, tag }
    }

    /// A blob owning `content`, without a copy if it is too long to be inline.
    pub fn from_box(content: Box<[u8]>) -> Blob {
        if content.len() <= INLINE_BYTES_MAX {
            return Blob::new(&content);
        }
        let length = content.len() as u64;
        assert!(length >> 56 == 0, "blob of {length} bytes");
        let pointer = Box::into_raw(content).cast::<u8>();
        let mut blob = Blob {
            bytes: [MaybeUninit::uninit(); 15],
            tag: Tag::Heap,
        };
        let base = blob.bytes.as_mut_ptr();
        // SAFETY: bytes 0..8 of the array are in bounds; an unaligned write keeps the pointer's provenance.
        unsafe { ptr::write_unaligned(base.cast::<*mut u8>(), pointer) };
        for (to, from) in blob.bytes[8..].iter_mut().zip(length.to_le_bytes()) {
            to.write(from);
        }
        blob
    }

    fn is_heap(&self) -> bool {
        self.tag as u8 == HEAP
    }

    /// Pointer and length of the heap content. Only for tag 16.
    fn heap_parts(&self) -> (*mut u8, usize) {
        debug_assert!(self.is_heap());
        // SAFETY: with tag 16 bytes 0..8 hold a pointer, by the invariant.
        let pointer = unsafe { ptr::read_unaligned(self.bytes.as_ptr().cast::<*mut u8>()) };
        // SAFETY: with tag 16 all sixteen bytes are initialized, and a blob is aligned to eight.
        let word = unsafe { ptr::from_ref(self).cast::<[u64; 2]>().read() }[1];
        (pointer, (u64::from_le(word) & ((1 << 56) - 1)) as usize)
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        if self.is_heap() {
            let (pointer, length) = self.heap_parts();
            // SAFETY: pointer and length are those of a `Box<[u8]>` that this blob owns and nobody changes.
            unsafe { std::slice::from_raw_parts(pointer, length) }
        } else {
            // SAFETY: the first `tag` bytes are initialized, by the invariant.
            unsafe {
                std::slice::from_raw_parts(self.bytes.as_ptr().cast::<u8>(), self.tag as usize)
            }
        }
    }

    /// Length of the content in bytes.
    pub fn len(&self) -> usize {
        if self.is_heap() {
            self.heap_parts().1
        } else {
            self.tag as usize
        }
    }

    /// Whether the content is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap memory this blob asked for; 0 if inline.
    pub fn heap_bytes(&self) -> usize {
        if self.is_heap() { self.len() } else { 0 }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.is_heap() {
            let (pointer, length) = self.heap_parts();
            // SAFETY: these are the parts of the `Box<[u8]>` taken apart in `from_box`; dropped once, here.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(pointer, length)) });
        }
    }
}

impl Clone for Blob {
    fn clone(&self) -> Blob {
        Blob::new(self.as_slice())
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<&[u8]> for Blob {
    fn from(content: &[u8]) -> Blob {
        Blob::new(content)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(content: Vec<u8>) -> Blob {
        Blob::from_box(content.into_boxed_slice())
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Blob {}

impl PartialOrd for Blob {
    fn partial_cmp(&self, other: &Blob) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Blob {
    fn cmp(&self, other: &Blob) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl std::hash::Hash for Blob {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl std::borrow::Borrow<[u8]> for Blob {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_around_the_inline_limit_round_trips() {
        for length in [0, 1, 7, 8, 14, 15, 16, 17, 255, 4096] {
            let content: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let blob = Blob::new(&content);
            assert_eq!(blob.as_slice(), content, "length {length}");
            assert_eq!(blob.clone(), blob, "length {length}");
            assert_eq!(Blob::from(content), blob, "length {length}");
            assert_eq!(
                blob.heap_bytes() == 0,
                length <= INLINE_BYTES_MAX,
                "length {length}"
            );
        }
    }
}
