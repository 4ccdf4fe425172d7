//! Sets: integers in an intset, a few short members in a listpack, all others in a table.
//!
//! Invariants
//! - A compact form is left for a larger one, never the other way round.
//! - An intset holds only members that are canonical decimals of an i64.

use dfsnap_formats::encoding::intset::Intset;
use dfsnap_formats::encoding::listpack::{Element, Listpack};

use super::Limits;
use crate::keyspace::blob::Blob;
use crate::keyspace::hash;
use crate::keyspace::table::{Cursor, Keyed, Table};

/// A set of byte strings.
#[derive(Debug, Clone)]
pub enum Set {
    /// Integers only.
    Ints(Intset),
    /// A small set.
    Packed(Listpack),
    /// A large set.
    Large(Box<LargeSet>),
}

/// A set that outgrew its compact forms.
#[derive(Default)]
pub struct LargeSet {
    members: Table<Blob>,
    /// Heap bytes of the members.
    member_bytes: usize,
}

impl std::fmt::Debug for LargeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.members.iter()).finish()
    }
}

impl Keyed for Blob {
    fn key(&self) -> &[u8] {
        self
    }
}

impl Default for Set {
    fn default() -> Self {
        Set::new()
    }
}

impl Set {
    /// An empty set.
    pub fn new() -> Set {
        Set::Ints(Intset::new())
    }

    /// The set that a checked pack holds.
    pub fn from_pack(pack: Listpack, limits: &Limits) -> Set {
        let is_small = pack.len() <= limits.set_listpack_entries
            && pack
                .iter()
                .all(|member| member.text_len() <= limits.set_listpack_value);
        if is_small {
            Set::Packed(pack)
        } else {
            Set::Large(LargeSet::collect(pack.iter()))
        }
    }

    /// The set that a checked intset holds.
    pub fn from_ints(ints: Intset, limits: &Limits) -> Set {
        if ints.len() <= limits.set_intset_entries {
            Set::Ints(ints)
        } else {
            Set::Large(LargeSet::collect(ints.iter().map(Element::Int)))
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match self {
            Set::Ints(ints) => ints.len(),
            Set::Packed(pack) => pack.len(),
            Set::Large(large) => large.members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING replies.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Set::Ints(_) => "intset",
            Set::Packed(_) => "listpack",
            Set::Large(_) => "hashtable",
        }
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Set::Ints(ints) => ints.heap_bytes(),
            Set::Packed(pack) => pack.heap_bytes(),
            Set::Large(large) => {
                size_of::<LargeSet>() + large.members.heap_bytes() + large.member_bytes
            }
        }
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => Element::parse(member)
                .as_int()
                .is_some_and(|number| ints.contains(number)),
            Set::Packed(pack) => find(pack, member).is_some(),
            Set::Large(large) => large.members.find(hash::of(member), member).is_some(),
        }
    }

    /// Adds a member; false if it was there.
    pub fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        match self {
            Set::Ints(ints) => {
                if let Element::Int(number) = Element::parse(member) {
                    let is_new = ints.insert(number);
                    if ints.len() > limits.set_intset_entries {
                        *self = Set::Large(LargeSet::collect(ints.iter().map(Element::Int)));
                    }
                    return is_new;
                }
                // The longest texts are those of the two ends.
                let fits = [
                    ints.get(0),
                    ints.len().checked_sub(1).and_then(|last| ints.get(last)),
                ]
                .into_iter()
                .flatten()
                .all(|end| Element::Int(end).text_len() <= limits.set_listpack_value);
                if fits
                    && ints.len() < limits.set_listpack_entries
                    && member.len() <= limits.set_listpack_value
                {
                    let mut pack = Listpack::with_capacity(ints.as_bytes().len() * 2);
                    ints.iter()
                        .for_each(|number| pack.push_back(Element::Int(number)));
                    *self = Set::Packed(pack);
                } else {
                    *self = Set::Large(LargeSet::collect(ints.iter().map(Element::Int)));
                }
                self.insert(member, limits)
            }
            Set::Packed(pack) => {
                if find(pack, member).is_some() {
                    return false;
                }
                if pack.len() < limits.set_listpack_entries
                    && member.len() <= limits.set_listpack_value
                {
                    pack.push_back(Element::parse(member));
                    return true;
                }
                let mut large = LargeSet::collect(pack.iter());
                large.insert(member);
                *self = Set::Large(large);
                true
            }
            Set::Large(large) => large.insert(member),
        }
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => Element::parse(member)
                .as_int()
                .is_some_and(|number| ints.remove(number)),
            Set::Packed(pack) => match find(pack, member) {
                Some(place) => {
                    pack.delete(place);
                    true
                }
                None => false,
            },
            Set::Large(large) => match large.members.remove(hash::of(member), member) {
                Some(gone) => {
                    large.member_bytes -= gone.heap_bytes();
                    true
                }
                None => false,
            },
        }
    }

    /// All members, in no order that means anything.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Element<'_>> + '_> {
        match self {
            Set::Ints(ints) => Box::new(ints.iter().map(Element::Int)),
            Set::Packed(pack) => Box::new(pack.iter()),
            Set::Large(large) => Box::new(large.members.iter().map(|member| Element::Str(member))),
        }
    }

    /// A member chosen at random.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<Element<'_>> {
        match self {
            Set::Ints(ints) if !ints.is_empty() => {
                ints.get(random.usize(..ints.len())).map(Element::Int)
            }
            Set::Packed(pack) if !pack.is_empty() => pack.get(random.usize(..pack.len()) as i64),
            Set::Large(large) => large
                .members
                .random(|| random.u64(..))
                .map(|member| Element::Str(member)),
            Set::Ints(_) | Set::Packed(_) => None,
        }
    }

    /// One step of a walk that returns what stays throughout exactly once. A small set is walked in one step.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(Element<'_>)) -> Option<Cursor> {
        match self {
            Set::Large(large) => large
                .members
                .scan(cursor, |member| visit(Element::Str(member))),
            Set::Ints(_) | Set::Packed(_) => {
                self.iter().for_each(visit);
                None
            }
        }
    }
}

impl Clone for LargeSet {
    fn clone(&self) -> LargeSet {
        *LargeSet::collect(self.members.iter().map(|member| Element::Str(member)))
    }
}

impl LargeSet {
    fn collect<'a>(members: impl Iterator<Item = Element<'a>>) -> Box<LargeSet> {
        let mut large = Box::new(LargeSet::default());
        for member in members {
            large.insert(member.text(&mut itoa::Buffer::new()));
        }
        large
    }

    fn insert(&mut self, member: &[u8]) -> bool {
        let hash = hash::of(member);
        if self.members.find(hash, member).is_some() {
            return false;
        }
        let member = Blob::new(member);
        self.member_bytes += member.heap_bytes();
        self.members.insert(hash, member);
        true
    }
}

fn find(pack: &Listpack, member: &[u8]) -> Option<dfsnap_formats::encoding::listpack::Pos> {
    pack.find(pack.first()?, member, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn encoding_changes_as_in_redis() {
        let numbers = |count: usize| {
            (0..count)
                .map(|n| n.to_string().into_bytes())
                .collect::<Vec<_>>()
        };
        let words = |count: usize| {
            (0..count)
                .map(|n| format!("m{n}").into_bytes())
                .collect::<Vec<_>>()
        };
        let rows = [
            ("512 integers", numbers(512), "intset"),
            ("513 integers", numbers(513), "hashtable"),
            ("128 words", words(128), "listpack"),
            ("129 words", words(129), "hashtable"),
            (
                "127 integers and a word",
                [numbers(127), words(1)].concat(),
                "listpack",
            ),
            (
                "128 integers and a word",
                [numbers(128), words(1)].concat(),
                "hashtable",
            ),
            ("64 bytes", vec![vec![b'x'; 64]], "listpack"),
            ("65 bytes", vec![vec![b'x'; 65]], "hashtable"),
        ];
        for (name, members, want) in rows {
            let mut set = Set::new();
            for member in &members {
                assert!(set.insert(member, &Limits::default()), "{name}");
            }
            assert_eq!(
                (set.encoding_name(), set.len()),
                (want, members.len()),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_tree(
            ops in prop::collection::vec((any::<bool>(), 0i32..60, any::<bool>()), 0..300),
            words in any::<bool>(),
            entries in prop_oneof![Just(0usize), Just(16), Just(512)],
        ) {
            let limits = Limits { set_intset_entries: entries, set_listpack_entries: entries, ..Limits::default() };
            let (mut set, mut model) = (Set::new(), BTreeSet::new());
            for (add, n, is_word) in ops {
                let member = if words && is_word { format!("word {n}") } else { (n - 30).to_string() }.into_bytes();
                if add {
                    prop_assert_eq!(set.insert(&member, &limits), model.insert(member.clone()));
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
                prop_assert_eq!(set.contains(&member), add);
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.iter().map(Element::to_vec).collect::<BTreeSet<_>>(), model.clone());
            let random = set.random(&mut fastrand::Rng::with_seed(1)).map(Element::to_vec);
            prop_assert!(random.map_or(model.is_empty(), |member| model.contains(&member)));
            let (mut seen, mut cursor) = (Vec::new(), Some(Cursor::START));
            while let Some(at) = cursor {
                cursor = set.scan(at, |member| seen.push(member.to_vec()));
            }
            seen.sort();
            prop_assert!(seen.into_iter().eq(model));
        }
    }
}
