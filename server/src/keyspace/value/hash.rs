//! Hashes: a listpack of fields and values while small, a table when large.
//!
//! Fields may expire on their own. A hash with such a field is a table, whatever its size.
//!
//! Invariants
//! - A field is there once.
//! - A hash is told to be small (`listpackex`) from the first expiry of a field of a pack until it outgrows what a pack may be.
//! - `timed` is the number of fields with an expiry; a pack has none.
//! - `by_time` holds exactly the fields with an expiry, soonest first.
//! - A field is past its time when the clock is beyond it. It stays here until somebody takes it out with [`Hash::lapse`]; who
//!   reads meanwhile looks through a [`View`], which does not show it.

use std::collections::BTreeSet;

use dfsnap_formats::encoding::listpack::{self, Element, Listpack, Pos};

use super::Limits;
use crate::keyspace::blob::Blob;
use crate::keyspace::hash;
use crate::keyspace::table::{Cursor, Keyed, Table};

/// Fields with values.
#[derive(Debug, Clone)]
pub enum Hash {
    /// A small hash: field, value, field, value.
    Packed(Listpack),
    /// A large hash, or one with expiring fields.
    Large(Box<LargeHash>),
}

/// A hash that outgrew its pack.
#[derive(Default)]
pub struct LargeHash {
    fields: Table<Field>,
    /// Heap bytes of fields and values.
    field_bytes: usize,
    timed: usize,
    /// Redis would still keep it in a pack.
    is_small: bool,
    /// (when in Unix ms, hash of the field)
    by_time: BTreeSet<(i64, u64)>,
}

impl std::fmt::Debug for LargeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.fields.iter().map(|field| (&field.name, field.value())))
            .finish()
    }
}

/// A field of a large hash: 32 bytes in its table.
struct Field {
    name: Blob,
    value: FieldValue,
}

enum FieldValue {
    Plain(Blob),
    Timed(Box<Timed>),
}

struct Timed {
    value: Blob,
    expire_at_ms: i64,
}

const _: () = assert!(size_of::<Field>() == 32);

impl Keyed for Field {
    fn key(&self) -> &[u8] {
        &self.name
    }
}

impl Field {
    fn value(&self) -> &Blob {
        match &self.value {
            FieldValue::Plain(value) => value,
            FieldValue::Timed(timed) => &timed.value,
        }
    }

    fn pair(&self) -> (Element<'_>, Element<'_>) {
        (Element::Str(&self.name), Element::Str(self.value()))
    }

    fn expire_at_ms(&self) -> Option<i64> {
        match &self.value {
            FieldValue::Plain(_) => None,
            FieldValue::Timed(timed) => Some(timed.expire_at_ms),
        }
    }

    fn heap_bytes(&self) -> usize {
        let timed = match &self.value {
            FieldValue::Plain(_) => 0,
            FieldValue::Timed(_) => size_of::<Timed>(),
        };
        self.name.heap_bytes() + self.value().heap_bytes() + timed
    }
}

impl Default for Hash {
    fn default() -> Self {
        Hash::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Hash {
        Hash::Packed(Listpack::new())
    }

    /// The hash that a checked pack of fields and values holds.
    pub fn from_pack(pack: Listpack, limits: &Limits) -> Hash {
        let is_small = pack.len() / 2 <= limits.hash_listpack_entries
            && pack
                .iter()
                .all(|element| element.text_len() <= limits.hash_listpack_value);
        if is_small {
            Hash::Packed(pack)
        } else {
            Hash::Large(LargeHash::from_pack(&pack))
        }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match self {
            Hash::Packed(pack) => pack.len() / 2,
            Hash::Large(large) => large.fields.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING replies.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            Hash::Packed(_) => "listpack",
            Hash::Large(large) if large.is_small => "listpackex",
            Hash::Large(_) => "hashtable",
        }
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Hash::Packed(pack) => pack.heap_bytes(),
            Hash::Large(large) => {
                size_of::<LargeHash>()
                    + large.fields.heap_bytes()
                    + large.field_bytes
                    // A B-tree is about three quarters full.
                    + large.by_time.len() * (size_of::<(i64, u64)>() * 4 / 3)
            }
        }
    }

    /// The pack of a small hash, to save it.
    pub fn as_pack(&self) -> Option<&Listpack> {
        match self {
            Hash::Packed(pack) => Some(pack),
            Hash::Large(_) => None,
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match self {
            Hash::Packed(pack) => {
                let place = find(pack, field)?;
                pack.next(place).map(|place| pack.at(place))
            }
            Hash::Large(large) => large
                .fields
                .find(hash::of(field), field)
                .map(|field| Element::Str(field.value())),
        }
    }

    /// Whether the field is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        match self {
            Hash::Packed(pack) => find(pack, field).is_some(),
            Hash::Large(large) => large.fields.find(hash::of(field), field).is_some(),
        }
    }

    /// Sets a field to a value and keeps its expiry. True if the field is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        if let Hash::Packed(pack) = self {
            let is_short = field.len().max(value.len()) <= limits.hash_listpack_value;
            match find(pack, field) {
                Some(place) if is_short => {
                    let place = pack.next(place).expect("a value follows each field");
                    pack.replace(place, Element::parse(value));
                    return false;
                }
                None if is_short && pack.len() / 2 < limits.hash_listpack_entries => {
                    pack.push_back(Element::parse(field));
                    pack.push_back(Element::parse(value));
                    return true;
                }
                _ => {}
            }
        }
        let large = self.make_large();
        let is_new = large.insert(field, value);
        large.is_small &= large.fields.len() <= limits.hash_listpack_entries
            && field.len().max(value.len()) <= limits.hash_listpack_value;
        is_new
    }

    /// Removes a field; false if it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Hash::Packed(pack) => match find(pack, field) {
                Some(place) => {
                    pack.delete_at(place, 2);
                    true
                }
                None => false,
            },
            Hash::Large(large) => match large.fields.remove(hash::of(field), field) {
                Some(gone) => {
                    large.forget(&gone);
                    true
                }
                None => false,
            },
        }
    }

    /// Number of fields that have an expiry.
    pub fn timed_len(&self) -> usize {
        match self {
            Hash::Packed(_) => 0,
            Hash::Large(large) => large.timed,
        }
    }

    /// When a field expires, in Unix milliseconds.
    pub fn expire_at_ms(&self, field: &[u8]) -> Option<i64> {
        match self {
            Hash::Packed(_) => None,
            Hash::Large(large) => large.fields.find(hash::of(field), field)?.expire_at_ms(),
        }
    }

    /// Sets or clears the expiry of a field; false if there is no such field.
    pub fn set_expire_at_ms(&mut self, field: &[u8], expire_at_ms: Option<i64>) -> bool {
        if !self.contains(field) {
            return false;
        }
        if expire_at_ms.is_some() || self.timed_len() > 0 {
            let was_packed = matches!(self, Hash::Packed(_));
            let large = self.make_large();
            large.is_small |= was_packed;
            large.set_expire_at_ms(field, expire_at_ms);
        }
        true
    }

    /// When the first field expires, in Unix milliseconds.
    pub fn first_expiry_ms(&self) -> Option<i64> {
        match self {
            Hash::Packed(_) => None,
            Hash::Large(large) => large.by_time.first().map(|(at, _)| *at),
        }
    }

    /// Takes out up to `max` fields whose time is past at `now_ms`, and returns their names.
    pub fn lapse(&mut self, now_ms: i64, max: usize) -> Vec<Blob> {
        let Hash::Large(large) = self else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        while gone.len() < max
            && let Some(&(at, hash)) = large.by_time.first()
            && at < now_ms
        {
            let name = large
                .fields
                .find_by_hash(hash, |field| {
                    field.expire_at_ms() == Some(at) && hash::of(&field.name) == hash
                })
                .map(|field| field.name.clone());
            let removed = name.and_then(|name| large.fields.remove(hash, &name));
            let removed = removed.expect("the index names a field");
            large.forget(&removed);
            gone.push(removed.name);
        }
        gone
    }

    /// What is there at `now_ms`.
    pub fn at(&self, now_ms: i64) -> View<'_> {
        let hides = self.first_expiry_ms().is_some_and(|at| at < now_ms);
        View {
            hash: self,
            hides_before: hides.then_some(now_ms),
        }
    }

    /// All fields with their values.
    pub fn iter(&self) -> Iter<'_> {
        match self {
            Hash::Packed(pack) => Iter::Packed(pack.iter()),
            Hash::Large(large) => Iter::Large(Box::new(large.fields.iter().map(Field::pair))),
        }
    }

    /// All fields with their values and expiries.
    pub fn iter_timed(
        &self,
    ) -> Box<dyn Iterator<Item = (Element<'_>, Element<'_>, Option<i64>)> + '_> {
        match self {
            Hash::Packed(_) => Box::new(self.iter().map(|(field, value)| (field, value, None))),
            Hash::Large(large) => Box::new(large.fields.iter().map(|field| {
                (
                    Element::Str(&field.name),
                    Element::Str(field.value()),
                    field.expire_at_ms(),
                )
            })),
        }
    }

    /// A field chosen at random, with its value.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<(Element<'_>, Element<'_>)> {
        match self {
            Hash::Packed(pack) if !pack.is_empty() => {
                let place = pack.seek(random.usize(..pack.len() / 2) as i64 * 2)?;
                Some((pack.at(place), pack.at(pack.next(place)?)))
            }
            Hash::Packed(_) => None,
            Hash::Large(large) => large
                .fields
                .random(|| random.u64(..))
                .map(|field| (Element::Str(&field.name), Element::Str(field.value()))),
        }
    }

    /// One step of a walk that returns what stays throughout exactly once. A small hash is walked in one step.
    pub fn scan(
        &self,
        cursor: Cursor,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) -> Option<Cursor> {
        match self {
            Hash::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                None
            }
            Hash::Large(large) => large.fields.scan(cursor, |field| {
                visit(Element::Str(&field.name), Element::Str(field.value()))
            }),
        }
    }

    /// [`Hash::scan`] with the fields' expiries.
    pub fn scan_timed(
        &self,
        cursor: Cursor,
        mut visit: impl FnMut(Element<'_>, Element<'_>, Option<i64>),
    ) -> Option<Cursor> {
        match self {
            Hash::Packed(_) => {
                self.iter()
                    .for_each(|(field, value)| visit(field, value, None));
                None
            }
            Hash::Large(large) => large.fields.scan(cursor, |field| {
                visit(
                    Element::Str(&field.name),
                    Element::Str(field.value()),
                    field.expire_at_ms(),
                );
            }),
        }
    }

    fn make_large(&mut self) -> &mut LargeHash {
        if let Hash::Packed(pack) = self {
            *self = Hash::Large(LargeHash::from_pack(pack));
        }
        let Hash::Large(large) = self else {
            unreachable!("a hash that outgrew its pack is large")
        };
        large
    }
}

/// A hash without the fields whose time is past.
#[derive(Clone, Copy)]
pub struct View<'a> {
    hash: &'a Hash,
    /// The clock, if there are fields to hide.
    hides_before: Option<i64>,
}

impl<'a> View<'a> {
    fn shows(&self, at: Option<i64>) -> bool {
        match (self.hides_before, at) {
            (Some(now_ms), Some(at)) => at >= now_ms,
            _ => true,
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<Element<'a>> {
        if self.hides_before.is_some() && !self.shows(self.hash.expire_at_ms(field)) {
            return None;
        }
        self.hash.get(field)
    }

    /// Whether the field is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// When a field that is there expires, in Unix milliseconds.
    pub fn expire_at_ms(&self, field: &[u8]) -> Option<i64> {
        self.hash
            .expire_at_ms(field)
            .filter(|at| self.shows(Some(*at)))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match (self.hides_before, self.hash) {
            (Some(now_ms), Hash::Large(large)) => {
                large.fields.len() - large.by_time.range(..(now_ms, 0)).count()
            }
            _ => self.hash.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is one small block.
    pub fn is_packed(&self) -> bool {
        matches!(self.hash, Hash::Packed(_))
    }

    /// All fields with their values.
    pub fn iter(&self) -> Iter<'a> {
        match (self.hides_before, self.hash) {
            (Some(_), Hash::Large(large)) => {
                let view = *self;
                let shown = large
                    .fields
                    .iter()
                    .filter(move |field| view.shows(field.expire_at_ms()));
                Iter::Large(Box::new(shown.map(Field::pair)))
            }
            _ => self.hash.iter(),
        }
    }

    /// A field chosen at random, with its value.
    pub fn random(&self, random: &mut fastrand::Rng) -> Option<(Element<'a>, Element<'a>)> {
        if self.hides_before.is_none() {
            return self.hash.random(random);
        }
        // A few draws do if most fields are there; else the choice is made among those that are.
        for _ in 0..16 {
            let (field, value) = self.hash.random(random)?;
            let name = field.to_vec();
            if self.shows(self.hash.expire_at_ms(&name)) {
                return Some((field, value));
            }
        }
        let count = self.len();
        (count > 0).then(|| self.iter().nth(random.usize(..count)))?
    }

    /// [`Hash::scan`] over what is there.
    pub fn scan(
        &self,
        cursor: Cursor,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) -> Option<Cursor> {
        match self.hash {
            Hash::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                None
            }
            Hash::Large(large) => large.fields.scan(cursor, |field| {
                if self.shows(field.expire_at_ms()) {
                    visit(Element::Str(&field.name), Element::Str(field.value()));
                }
            }),
        }
    }
}

/// Fields with values.
pub enum Iter<'a> {
    /// Of a small hash.
    Packed(listpack::Iter<'a>),
    /// Of a large hash.
    Large(Box<dyn Iterator<Item = (Element<'a>, Element<'a>)> + 'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, Element<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Packed(iter) => Some((iter.next()?, iter.next()?)),
            Iter::Large(iter) => iter.next(),
        }
    }
}

impl Clone for LargeHash {
    fn clone(&self) -> LargeHash {
        let mut copy = LargeHash {
            is_small: self.is_small,
            ..LargeHash::default()
        };
        for field in self.fields.iter() {
            copy.insert(&field.name, field.value());
            if field.expire_at_ms().is_some() {
                copy.set_expire_at_ms(&field.name, field.expire_at_ms());
            }
        }
        copy
    }
}

impl LargeHash {
    fn from_pack(pack: &Listpack) -> Box<LargeHash> {
        let mut large = Box::new(LargeHash::default());
        for (field, value) in Iter::Packed(pack.iter()) {
            large.insert(
                field.text(&mut itoa::Buffer::new()),
                value.text(&mut itoa::Buffer::new()),
            );
        }
        large
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) -> bool {
        let hash = hash::of(name);
        let value = Blob::new(value);
        self.field_bytes += value.heap_bytes();
        if let Some(field) = self.fields.find_mut(hash, name) {
            let place = match &mut field.value {
                FieldValue::Plain(value) => value,
                FieldValue::Timed(timed) => &mut timed.value,
            };
            self.field_bytes -= std::mem::replace(place, value).heap_bytes();
            return false;
        }
        let name = Blob::new(name);
        self.field_bytes += name.heap_bytes();
        self.fields.insert(
            hash,
            Field {
                name,
                value: FieldValue::Plain(value),
            },
        );
        true
    }

    /// A field has been taken out of the table.
    fn forget(&mut self, gone: &Field) {
        self.field_bytes -= gone.heap_bytes();
        if let Some(at) = gone.expire_at_ms() {
            self.timed -= 1;
            self.by_time.remove(&(at, hash::of(&gone.name)));
        }
    }

    fn set_expire_at_ms(&mut self, name: &[u8], expire_at_ms: Option<i64>) {
        let hash = hash::of(name);
        let Some(field) = self.fields.find_mut(hash, name) else {
            return;
        };
        self.field_bytes -= field.heap_bytes();
        if let Some(old) = field.expire_at_ms() {
            self.timed -= 1;
            self.by_time.remove(&(old, hash));
        }
        self.by_time.extend(expire_at_ms.map(|at| (at, hash)));
        let place = match &mut field.value {
            FieldValue::Plain(value) => value,
            FieldValue::Timed(timed) => &mut timed.value,
        };
        let value = std::mem::replace(place, Blob::new(b""));
        field.value = match expire_at_ms {
            Some(expire_at_ms) => FieldValue::Timed(Box::new(Timed {
                value,
                expire_at_ms,
            })),
            None => FieldValue::Plain(value),
        };
        self.field_bytes += field.heap_bytes();
        self.timed += usize::from(expire_at_ms.is_some());
    }
}

fn find(pack: &Listpack, field: &[u8]) -> Option<Pos> {
    pack.find(pack.first()?, field, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn encoding_changes_as_in_redis() {
        let rows = [
            ("512 fields", 512, 1, 1, "listpack"),
            ("513 fields", 513, 1, 1, "hashtable"),
            ("value of 64 bytes", 1, 1, 64, "listpack"),
            ("value of 65 bytes", 1, 1, 65, "hashtable"),
            ("field of 65 bytes", 1, 65, 1, "hashtable"),
        ];
        for (name, count, field_len, value_len, want) in rows {
            let mut hash = Hash::new();
            for n in 0..count {
                assert!(hash.insert(
                    format!("{n:0field_len$}").as_bytes(),
                    &vec![b'v'; value_len],
                    &Limits::default()
                ));
            }
            assert_eq!((hash.encoding_name(), hash.len()), (want, count), "{name}");
        }
    }

    #[test]
    fn a_small_hash_with_expiries_is_called_small_until_it_outgrows_a_pack() {
        let limits = Limits {
            hash_listpack_entries: 3,
            hash_listpack_value: 4,
            ..Limits::default()
        };
        let small = || {
            let mut hash = Hash::new();
            hash.insert(b"a", b"1", &limits);
            hash.set_expire_at_ms(b"a", Some(5));
            hash
        };
        for (name, fields, value, want) in [
            ("three fields", &["b", "c"][..], "1", "listpackex"),
            ("four fields", &["b", "c", "d"][..], "1", "hashtable"),
            ("a long value", &["b"][..], "12345", "hashtable"),
            ("a long field", &["bcdef"][..], "1", "hashtable"),
        ] {
            let mut hash = small();
            for field in fields {
                hash.insert(field.as_bytes(), value.as_bytes(), &limits);
            }
            assert_eq!(hash.encoding_name(), want, "{name}");
            assert_eq!(hash.clone().encoding_name(), want, "{name}, a copy");
        }
        let mut hash = small();
        hash.set_expire_at_ms(b"a", None);
        assert_eq!(hash.encoding_name(), "listpackex", "no expiry any more");
        let mut hash = small();
        hash.insert(b"b", b"12345", &limits);
        hash.remove(b"b");
        hash.set_expire_at_ms(b"a", Some(6));
        assert_eq!(hash.encoding_name(), "hashtable", "it never goes back");
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_a_map(
            ops in prop::collection::vec((0u8..7, 0u32..60, prop::collection::vec(any::<u8>(), 0..40)), 0..300),
            entries in prop_oneof![Just(0usize), Just(16), Just(512)],
        ) {
            let limits = Limits { hash_listpack_entries: entries, ..Limits::default() };
            let (mut hash, mut model) = (Hash::new(), BTreeMap::new());
            for (kind, n, value) in ops {
                let field = format!("f{n}").into_bytes();
                match kind {
                    0..=2 => {
                        let old = model.get(&field).and_then(|(_, at): &(Vec<u8>, _)| *at);
                        prop_assert_eq!(hash.insert(&field, &value, &limits), model.insert(field, (value, old)).is_none());
                    }
                    3 => prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
                    4 => {
                        let at = value.first().map(|byte| i64::from(*byte));
                        let found = model.get_mut(&field).map(|(_, old)| *old = at);
                        prop_assert_eq!(hash.set_expire_at_ms(&field, at), found.is_some());
                    }
                    6 => {
                        let now = i64::from(n) * 4;
                        let is_past = |at: &Option<i64>| at.is_some_and(|at| at < now);
                        let mut past: Vec<_> = model.iter().filter(|(_, (_, at))| is_past(at)).map(|(f, _)| f.clone()).collect();
                        let view = hash.at(now);
                        prop_assert_eq!(view.len(), model.len() - past.len());
                        prop_assert_eq!(view.iter().count(), view.len());
                        prop_assert!(past.iter().all(|field| !view.contains(field)));
                        prop_assert_eq!(view.random(&mut fastrand::Rng::with_seed(1)).is_some(), !view.is_empty());
                        let mut gone: Vec<_> = hash.lapse(now, usize::MAX).iter().map(|f| f.to_vec()).collect();
                        gone.sort();
                        past.sort();
                        prop_assert_eq!(gone, past);
                        model.retain(|_, (_, at)| !is_past(at));
                    }
                    _ => {
                        prop_assert_eq!(hash.get(&field).map(Element::to_vec), model.get(&field).map(|(value, _)| value.clone()));
                        prop_assert_eq!(hash.expire_at_ms(&field), model.get(&field).and_then(|(_, at)| *at));
                    }
                }
            }
            let all: BTreeMap<_, _> = hash.iter_timed().map(|(f, v, at)| (f.to_vec(), (v.to_vec(), at))).collect();
            prop_assert_eq!(&all, &model);
            prop_assert_eq!(hash.iter().count(), model.len());
            prop_assert_eq!((hash.len(), hash.timed_len()), (model.len(), model.values().filter(|(_, at)| at.is_some()).count()));
            let (mut seen, mut cursor) = (Vec::new(), Some(Cursor::START));
            while let Some(at) = cursor {
                cursor = hash.scan(at, |field, _| seen.push(field.to_vec()));
            }
            seen.sort();
            prop_assert!(seen.iter().eq(model.keys()));
            if let Hash::Large(large) = &hash {
                prop_assert_eq!(large.field_bytes, large.fields.iter().map(Field::heap_bytes).sum::<usize>());
                prop_assert_eq!(large.by_time.len(), large.timed);
                let first = model.values().filter_map(|(_, at)| *at).min();
                prop_assert_eq!(hash.first_expiry_ms(), first);
            }
        }
    }
}
