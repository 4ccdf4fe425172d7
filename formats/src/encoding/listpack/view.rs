//! Listpacks in bytes of someone else: one that was checked, and one that is checked while it is walked.
//!
//! Readers of dumps use them where a pack is looked into and not kept.

use super::entry::{self, decode};
use super::{Element, HEADER, Iter};
use crate::encoding::BlobError;

/// A sound listpack in bytes of someone else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a> {
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Checks all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BlobError> {
        entry::check(bytes)?;
        Ok(Packed { bytes })
    }

    /// For bytes that are known to be one.
    pub(super) fn of_checked(bytes: &'a [u8]) -> Self {
        Packed { bytes }
    }

    pub fn iter(&self) -> Iter<'a> {
        Iter {
            bytes: self.bytes,
            front: HEADER,
            back: self.bytes.len() - 1,
        }
    }
}

/// The elements of a listpack in bytes from outside, each checked as it comes, in one pass. `finish` tells whether the
/// last one was the end, or damage.
#[derive(Debug, Clone)]
pub struct Checking<'a> {
    bytes: &'a [u8],
    at: usize,
    count: usize,
    damage: Option<BlobError>,
}

impl<'a> Checking<'a> {
    /// Checks header and end mark.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BlobError> {
        entry::check_frame(bytes)?;
        Ok(Checking {
            bytes,
            at: HEADER,
            count: 0,
            damage: None,
        })
    }

    /// Whether the elements ended where the pack does, and were as many as it says.
    pub fn finish(self) -> Result<(), BlobError> {
        match self.damage {
            Some(damage) => Err(damage),
            None => entry::check_count(self.bytes, self.count),
        }
    }

    /// The elements from here on as they are, for those that this has passed by the time they are asked for.
    #[inline]
    pub(crate) fn unchecked(&self) -> Iter<'a> {
        Iter {
            bytes: self.bytes,
            front: self.at,
            back: self.bytes.len() - 1,
        }
    }

    /// The next element, if it begins like a text. What it returns fits in registers, as that of `next_long_int`: elements
    /// that come by way of memory are waited for.
    #[inline(never)]
    fn next_long_text(&mut self) -> Option<&'a [u8]> {
        match self.next_of_any_form()? {
            Element::Str(text) => Some(text),
            Element::Int(_) => unreachable!("an integer begins otherwise"),
        }
    }

    #[inline(never)]
    fn next_long_int(&mut self) -> Option<i64> {
        let rest = self.bytes.get(self.at..self.bytes.len() - 1)?;
        if let Some((number, size)) = entry::long_int(rest)
            && rest.get(size).copied() == Some(size as u8)
        {
            self.at += size + 1;
            self.count += 1;
            return Some(number);
        }
        match self.next_of_any_form()? {
            Element::Int(number) => Some(number),
            Element::Str(_) => unreachable!("a text begins otherwise"),
        }
    }

    fn next_of_any_form(&mut self) -> Option<Element<'a>> {
        let end = self.bytes.len() - 1;
        if self.at >= end || self.damage.is_some() {
            return None;
        }
        if let Err(damage) = entry::check_entry(self.bytes, self.at, end) {
            self.damage = Some(damage);
            return None;
        }
        let (element, size) = decode(self.bytes, self.at);
        self.at += size;
        self.count += 1;
        Some(element)
    }
}

impl<'a> Iterator for Checking<'a> {
    type Item = Element<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Element<'a>> {
        // Small integers and strings below 64 bytes are most of what there is.
        let rest = self.bytes.get(self.at..self.bytes.len() - 1)?;
        if let [first @ 0..0xC0, data @ ..] = rest {
            let len = match first {
                0x80.. => usize::from(first & 0x3F),
                _ => 0,
            };
            if let Some(&backlen) = data.get(len)
                && usize::from(backlen) == len + 1
            {
                self.at += len + 2;
                self.count += 1;
                return Some(match first {
                    0x80.. => Element::Str(&data[..len]),
                    number => Element::Int(i64::from(*number)),
                });
            }
        }
        match rest.first()? {
            0x80..0xC0 | 0xE0..=0xF0 => self.next_long_text().map(Element::Str),
            _ => self.next_long_int().map(Element::Int),
        }
    }
}
