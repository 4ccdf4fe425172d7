//! Finding a member or a field that is there twice.
//!
//! Decoders ask it about every collection from outside: servers do not always notice, and then lose count later.
//!
//! Hashes are compared first: most of them set a bit of their own, and only those that find theirs set are looked at again. Only where two
//! hashes are equal are the texts looked at.

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
    /// Kept for the next collection, as the one below.
    bits: Bits,
    suspects: Vec<u64>,
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

    /// Whether two hashes are equal, which they are for equal members. Different members have equal hashes once in 2^64 pairs, unless
    /// someone made them so.
    ///
    /// 1. Each sets a bit. Of two that are equal the second finds it set and is a suspect, as are one to four in a hundred of the others.
    /// 2. All that agree with a suspect in other bits are put together: the suspects, what is equal to them, and few others.
    /// 3. These are sorted. All of them are, where someone chose members that are all suspects.
    pub fn repeat(&mut self) -> bool {
        let Hashes {
            hashes,
            bits,
            suspects,
        } = self;
        if hashes.len() < 2 {
            return false;
        }
        suspects.clear();
        bits.clear_for(hashes.len());
        for &hash in &*hashes {
            if bits.set(hash) {
                suspects.push(hash);
            }
        }
        if suspects.is_empty() {
            return false;
        }
        let turned = |hash: u64| hash.rotate_right(32);
        bits.clear_for(suspects.len() * 4);
        for &hash in &*suspects {
            bits.set(turned(hash));
        }
        suspects.clear();
        suspects.extend(hashes.iter().filter(|hash| bits.has(turned(**hash))));
        suspects.sort_unstable();
        suspects.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// A bit for each of some hashes.
#[derive(Debug, Clone, Default)]
struct Bits {
    /// A power of two of them, or none.
    words: Vec<u64>,
}

impl Bits {
    /// No bit is set, and there are sixty-four or more for each of so many; where that would be more than a near cache holds, sixteen or more.
    fn clear_for(&mut self, count: usize) {
        const NEAR_WORDS: usize = 1 << 13;
        let words = count.next_power_of_two();
        self.words.clear();
        self.words.resize(words.min(NEAR_WORDS).max(words / 4), 0);
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u64) {
        let word = (hash >> 6) as usize & (self.words.len() - 1);
        (word, 1 << (hash & 63))
    }

    /// True: it was set.
    #[inline]
    fn set(&mut self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        let was = self.words[word];
        self.words[word] = was | bit;
        was & bit != 0
    }

    #[inline]
    fn has(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        self.words[word] & bit != 0
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
    fn equal_hashes_are_found_wherever_they_stand_and_chosen_ones_too() {
        let mixed = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ n << 40;
        let chosen = |n: u64| n << 40;
        let forms: [fn(u64) -> u64; 2] = [mixed, chosen];
        for (form, count) in forms
            .into_iter()
            .flat_map(|form| [2, 3, 16, 17, 1000, 70_000].map(|count| (form, count)))
        {
            let mut hashes = Hashes::default();
            hashes.hashes.extend((0..count).map(form));
            assert!(!hashes.repeat(), "{count}");
            for (at, of) in [(0, count - 1), (count - 1, 0), (count / 2, count / 2 - 1)] {
                let kept = hashes.hashes[at as usize];
                hashes.hashes[at as usize] = form(of);
                assert!(hashes.repeat(), "{count}, {at}");
                hashes.hashes[at as usize] = kept;
            }
        }
    }

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
