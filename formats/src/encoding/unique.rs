//! Finding a member or a field that is there twice.
//!
//! Decoders ask it about every collection from outside: servers do not always notice, and then lose count later.
//!
//! Hashes are compared first, in a table, or sorted where someone chose members that make the table slow; only where two
//! are equal are the texts looked at.

use super::canonical_int;
use super::listpack::Element;
use foldhash::fast::FixedState;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

/// Up to here every pair is compared, which needs no memory.
const PAIRWISE_MAX: usize = 16;

/// The text that occurs a second time in `elements`, if any does. Integers equal their text.
pub fn first_duplicate<'a>(
    elements: impl Iterator<Item = Element<'a>> + Clone,
    count: usize,
) -> Option<Vec<u8>> {
    if count <= PAIRWISE_MAX {
        let mut later = elements.clone();
        for element in elements {
            later.next();
            let twice = later.clone().any(|other| same(element, other));
            if twice {
                return Some(element.to_vec());
            }
        }
        return None;
    }
    let mut hashes = Hashes::default();
    elements.clone().for_each(|element| hashes.add(element));
    if !hashes.repeat() {
        return None;
    }
    let mut numbers = BTreeSet::new();
    let mut texts = BTreeSet::new();
    elements.into_iter().find_map(|element| {
        let fresh = match canonical(element) {
            Element::Int(number) => numbers.insert(number),
            Element::Str(text) => texts.insert(text),
        };
        (!fresh).then(|| element.to_vec())
    })
}

/// The hashes of a collection's members, eight bytes each, for collections that go by and are not kept.
#[derive(Debug, Clone, Default)]
pub struct Hashes {
    hashes: Vec<u64>,
    /// Places by hash, 0 = free; kept for the next collection.
    table: Vec<u64>,
}

impl Hashes {
    #[inline]
    pub fn add(&mut self, element: Element<'_>) {
        const STATE: FixedState = FixedState::with_seed(0);
        let mut hasher = STATE.build_hasher();
        // Texts as they are, and few members are integers: that costs less than to look for integers among the texts.
        match element {
            Element::Str(text) => hasher.write(text),
            Element::Int(number) => hasher.write(itoa::Buffer::new().format(number).as_bytes()),
        }
        self.hashes.push(hasher.finish());
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub fn clear(&mut self) {
        self.hashes.clear();
    }

    /// Whether two hashes are equal, which they are for equal members; may sort them. Different members have equal
    /// hashes once in 2^64 pairs, unless someone made them so.
    pub fn repeat(&mut self) -> bool {
        match self.hashes.len() {
            ..=1 => false,
            2..=PAIRWISE_MAX => self.repeat_sorted(),
            _ => self
                .repeat_in_table()
                .unwrap_or_else(|| self.repeat_sorted()),
        }
    }

    fn repeat_sorted(&mut self) -> bool {
        self.hashes.sort_unstable();
        self.hashes.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// None: they fill the table so unevenly that someone must have chosen them.
    fn repeat_in_table(&mut self) -> Option<bool> {
        const STEPS_A_HASH: usize = 8;
        let slots = (self.hashes.len() * 2).next_power_of_two();
        self.table.clear();
        self.table.resize(slots, 0);
        let mut steps = self.hashes.len() * STEPS_A_HASH;
        for &hash in &self.hashes {
            let hash = hash.max(1);
            let mut at = hash as usize & (slots - 1);
            while self.table[at] != 0 {
                if self.table[at] == hash {
                    return Some(true);
                }
                at = (at + 1) & (slots - 1);
                steps = steps.checked_sub(1)?;
            }
            self.table[at] = hash;
        }
        Some(false)
    }
}

fn canonical(element: Element<'_>) -> Element<'_> {
    match element {
        Element::Str(text) => canonical_int(text).map_or(element, Element::Int),
        Element::Int(_) => element,
    }
}

fn same(a: Element<'_>, b: Element<'_>) -> bool {
    match (a, b) {
        (Element::Str(a), Element::Str(b)) => a == b,
        (Element::Int(a), Element::Int(b)) => a == b,
        (Element::Int(_), Element::Str(text)) => a.eq_bytes(text),
        (Element::Str(text), Element::Int(_)) => b.eq_bytes(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_in_small_and_large_and_across_forms() {
        for count in [0, 1, 2, 16, 17, 200] {
            let mut texts: Vec<Vec<u8>> = (0..count).map(|i| i.to_string().into_bytes()).collect();
            texts.push(b"text".to_vec());
            let check = |texts: &[Vec<u8>]| {
                // Every other integer stays text, as a foreign writer might leave it.
                let elements = texts.iter().enumerate().map(|(i, text)| match i % 2 {
                    0 => Element::Str(text),
                    _ => Element::parse(text),
                });
                first_duplicate(elements, texts.len())
            };
            assert_eq!(check(&texts), None, "{count}");
            for at in 0..texts.len() {
                let again = texts[at].clone();
                texts.push(again.clone());
                assert_eq!(check(&texts), Some(again), "{count}, {at}");
                texts.pop();
            }
        }
    }
}
