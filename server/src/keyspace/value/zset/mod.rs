//! Sorted sets: a listpack of members and scores while small, slots with an index and an order when large.
//!
//! Every range, by score, by member or by rank, is a range of ranks: [`ZSet::partition_point`] finds its ends.
//!
//! Invariants
//! - Members are ordered by score, those of equal score by their bytes; no score is NaN.
//! - In a pack a member is followed by its score, an integer if the score is one.

mod members;
mod order;

use std::cmp::Ordering;
use std::ops::Range;

use dfsnap_formats::double::{self, DoubleText};
use dfsnap_formats::encoding::listpack::{self, Element, Listpack, Pos};

use super::Limits;
use crate::keyspace::table::Cursor;
use members::{Members, SlotId};
use order::Order;

pub use order::Rank;

/// Members ordered by score.
#[derive(Debug, Clone)]
pub enum ZSet {
    /// A small set: member, score, member, score, in order.
    Packed(Listpack),
    /// A large set.
    Large(Box<Large>),
}

/// A sorted set that outgrew its pack.
#[derive(Debug, Clone, Default)]
pub struct Large {
    members: Members,
    order: Order,
}

impl Default for ZSet {
    fn default() -> Self {
        ZSet::new()
    }
}

impl ZSet {
    /// An empty set.
    pub fn new() -> ZSet {
        ZSet::Packed(Listpack::new())
    }

    /// The set of these members, none of which is there twice, with scores that are numbers. They are put in order once, where
    /// [`ZSet::insert`] looks for the place of each.
    pub fn from_members(mut members: Vec<(Vec<u8>, f64)>, limits: &Limits) -> ZSet {
        members.sort_unstable_by(|(a, x), (b, y)| {
            let by_score = x.partial_cmp(y).expect("a score that is no number");
            by_score.then_with(|| a.cmp(b))
        });
        let is_small = members.len() <= limits.zset_listpack_entries
            && members
                .iter()
                .all(|(member, _)| member.len() <= limits.zset_listpack_value);
        if is_small {
            let mut pack = Listpack::new();
            for (member, score) in members {
                let end = pack.end();
                insert_pair(&mut pack, end, &member, score);
            }
            return ZSet::Packed(pack);
        }
        let mut large = Large::default();
        for (member, score) in members {
            large.push(&member, score);
        }
        ZSet::Large(Box::new(large))
    }

    /// The set that a checked pack of members and scores holds, whatever its order and size.
    pub fn from_pack(pack: Listpack, limits: &Limits) -> ZSet {
        let is_small = pack.len() / 2 <= limits.zset_listpack_entries
            && pack
                .iter()
                .step_by(2)
                .all(|member| member.text_len() <= limits.zset_listpack_value);
        let is_ordered = || {
            let pairs = || PackIter {
                pack: &pack,
                iter: pack.iter(),
            };
            pairs()
                .zip(pairs().skip(1))
                .all(|((a, a_score), (b, b_score))| {
                    compare(a_score, a, b_score, &b.to_vec()) == Ordering::Less
                })
        };
        if is_small && is_ordered() {
            return ZSet::Packed(pack);
        }
        let mut set = ZSet::new();
        for (member, score) in (PackIter {
            pack: &pack,
            iter: pack.iter(),
        }) {
            set.insert(&member.to_vec(), score, limits);
        }
        set
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match self {
            ZSet::Packed(pack) => pack.len() / 2,
            ZSet::Large(large) => large.members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING replies.
    pub fn encoding_name(&self) -> &'static str {
        match self {
            ZSet::Packed(_) => "listpack",
            ZSet::Large(_) => "skiplist",
        }
    }

    /// Bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            ZSet::Packed(pack) => pack.heap_bytes(),
            ZSet::Large(large) => {
                size_of::<Large>() + large.members.heap_bytes() + large.order.heap_bytes()
            }
        }
    }

    /// The pack of a small set, to save it.
    pub fn as_pack(&self) -> Option<&Listpack> {
        match self {
            ZSet::Packed(pack) => Some(pack),
            ZSet::Large(_) => None,
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            ZSet::Packed(pack) => find(pack, member).map(|(_, score)| score),
            ZSet::Large(large) => large.members.find(member).map(|id| large.members.score(id)),
        }
    }

    /// Gives a member this score, adding it if it is new. Returns the score it had.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        assert!(!score.is_nan(), "a score that is no number");
        if let ZSet::Packed(pack) = self {
            if let Some((place, old)) = find(pack, member) {
                if old != score {
                    pack.delete_at(place, 2);
                    insert_in_order(pack, member, score);
                }
                return Some(old);
            }
            if pack.len() / 2 < limits.zset_listpack_entries
                && member.len() <= limits.zset_listpack_value
            {
                insert_in_order(pack, member, score);
                return None;
            }
            let pack = std::mem::take(pack);
            let mut large = Large::default();
            for (member, score) in (PackIter {
                pack: &pack,
                iter: pack.iter(),
            }) {
                large.insert(&member.to_vec(), score);
            }
            *self = ZSet::Large(Box::new(large));
        }
        let ZSet::Large(large) = self else {
            unreachable!("a set that outgrew its pack is large")
        };
        large.insert(member, score)
    }

    /// Removes a member and returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self {
            ZSet::Packed(pack) => {
                let (place, score) = find(pack, member)?;
                pack.delete_at(place, 2);
                Some(score)
            }
            ZSet::Large(large) => {
                let id = large.members.find(member)?;
                let score = large.members.score(id);
                large.remove(id);
                Some(score)
            }
        }
    }

    /// The rank and the score of a member.
    pub fn rank(&self, member: &[u8]) -> Option<(Rank, f64)> {
        match self {
            ZSet::Packed(pack) => {
                let at = PackIter {
                    pack,
                    iter: pack.iter(),
                }
                .position(|(other, _)| other.eq_bytes(member))?;
                Some((at, self.score(member)?))
            }
            ZSet::Large(large) => {
                let id = large.members.find(member)?;
                Some((
                    large.order.rank(&large.members, id),
                    large.members.score(id),
                ))
            }
        }
    }

    /// How many members `is_below` accepts, which must be the lowest ones.
    pub fn partition_point(&self, is_below: impl Fn(f64, Element<'_>) -> bool) -> Rank {
        match self {
            ZSet::Packed(pack) => PackIter {
                pack,
                iter: pack.iter(),
            }
            .take_while(|&(member, score)| is_below(score, member))
            .count(),
            ZSet::Large(large) => {
                let members = &large.members;
                large.order.partition_point(members, |score, id| {
                    is_below(score, Element::Str(members.member(id)))
                })
            }
        }
    }

    /// Where a score stands: the members around it, and those from there on.
    pub fn seek(&self, score: f64) -> Gap<'_> {
        let (rank, front, before, behind) = match self {
            ZSet::Packed(pack) => {
                let (mut rank, mut before) = (0, None);
                let mut place = pack.first();
                let mut behind = None;
                while let Some(member) = place {
                    let at_score = pack.next(member).expect("a score follows each member");
                    let its = score_of(pack.at(at_score));
                    if its >= score {
                        behind = Some(its);
                        break;
                    }
                    (rank, before) = (rank + 1, Some(its));
                    place = pack.next(at_score);
                }
                let rest = pack.iter_from(place.unwrap_or(pack.end()));
                (rank, Walk::Pack(rest), before, behind)
            }
            ZSet::Large(large) => {
                let is_below = |its: f64, _| its < score;
                let seat = large.order.seek(&large.members, is_below);
                let front = Walk::Leaf(seat.behind);
                (seat.rank, front, seat.score_before, seat.score_behind)
            }
        };
        Gap {
            before: before.unwrap_or(f64::NEG_INFINITY),
            behind: behind.unwrap_or(f64::INFINITY),
            rest: Iter {
                front,
                ..self.range(rank..self.len())
            },
        }
    }

    /// The members of these ranks with their scores, lowest first; can be walked from either end.
    pub fn range(&self, ranks: Range<Rank>) -> Iter<'_> {
        let end = ranks.end.min(self.len());
        Iter {
            set: self,
            next: ranks.start.min(end),
            end,
            front: Walk::None,
            back: Walk::None,
        }
    }

    /// All members with their scores.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// Removes the members of these ranks.
    pub fn remove_range(&mut self, ranks: Range<Rank>) {
        let end = ranks.end.min(self.len());
        let count = end.saturating_sub(ranks.start);
        match self {
            ZSet::Packed(pack) => pack.delete_range(ranks.start as i64 * 2, count * 2),
            ZSet::Large(large) => {
                for _ in 0..count {
                    let id = large
                        .order
                        .get(ranks.start)
                        .expect("a rank below the length");
                    large.remove(id);
                }
            }
        }
    }

    /// Member number `index` in an order of its own: a random index gives a random member, quickly.
    pub fn nth(&self, index: usize) -> Option<(Element<'_>, f64)> {
        match self {
            ZSet::Packed(_) => self.range(index..index + 1).next(),
            ZSet::Large(large) if index < large.members.len() => {
                let id = index as SlotId;
                Some((
                    Element::Str(large.members.member(id)),
                    large.members.score(id),
                ))
            }
            ZSet::Large(_) => None,
        }
    }

    /// One step of a walk that returns what stays throughout exactly once. A small set is walked in one step.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(Element<'_>, f64)) -> Option<Cursor> {
        match self {
            ZSet::Packed(pack) => {
                PackIter {
                    pack,
                    iter: pack.iter(),
                }
                .for_each(|(member, score)| visit(member, score));
                None
            }
            ZSet::Large(large) => large
                .members
                .scan(cursor, |member, score| visit(Element::Str(member), score)),
        }
    }
}

impl Large {
    fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let Some(id) = self.members.find(member) else {
            self.push(member, score);
            return None;
        };
        let old = self.members.score(id);
        if old != score {
            self.order.remove(&self.members, id);
            self.members.set_score(id, score);
            self.order.insert(&self.members, id);
        }
        Some(old)
    }

    /// Adds a member that is not there.
    fn push(&mut self, member: &[u8], score: f64) {
        let id = self.members.push(member, score);
        self.order.insert(&self.members, id);
    }

    fn remove(&mut self, id: SlotId) {
        self.order.remove(&self.members, id);
        let last = (self.members.len() - 1) as SlotId;
        if id != last {
            self.order.rename(&self.members, last, id);
        }
        self.members.swap_remove(id);
    }
}

/// A place between two members.
pub struct Gap<'a> {
    /// The score of the last member before it; minus infinity if there is none.
    pub before: f64,
    /// The score of the first member behind it; infinity if there is none.
    pub behind: f64,
    /// The members behind it.
    pub rest: Iter<'a>,
}

/// Members of a range of ranks with their scores.
pub struct Iter<'a> {
    set: &'a ZSet,
    next: Rank,
    end: Rank,
    front: Walk<'a>,
    back: Walk<'a>,
}

/// Where one end of an iterator stands.
enum Walk<'a> {
    /// Not begun, or at the end of a leaf.
    None,
    Pack(listpack::Iter<'a>),
    Leaf(&'a [SlotId]),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, f64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let rank = self.next;
        self.next += 1;
        match self.set {
            ZSet::Packed(pack) => {
                if let Walk::None = self.front {
                    let place = pack.seek(rank as i64 * 2).unwrap_or(pack.end());
                    self.front = Walk::Pack(pack.iter_from(place));
                }
                let Walk::Pack(iter) = &mut self.front else {
                    unreachable!("a pack is walked by its iterator")
                };
                Some((iter.next()?, score_of(iter.next()?)))
            }
            ZSet::Large(large) => {
                let ids = match self.front {
                    Walk::Leaf(ids) if !ids.is_empty() => ids,
                    _ => large.order.leaf(rank).map(|(ids, at)| &ids[at..])?,
                };
                let (&id, rest) = ids.split_first()?;
                self.front = Walk::Leaf(rest);
                Some((
                    Element::Str(large.members.member(id)),
                    large.members.score(id),
                ))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        self.end -= 1;
        let rank = self.end;
        match self.set {
            ZSet::Packed(pack) => {
                if let Walk::None = self.back {
                    let behind = (pack.len() / 2 - rank - 1) * 2;
                    let mut iter = pack.iter();
                    let _ = behind
                        .checked_sub(1)
                        .and_then(|skipped| iter.nth_back(skipped));
                    self.back = Walk::Pack(iter);
                }
                let Walk::Pack(iter) = &mut self.back else {
                    unreachable!("a pack is walked by its iterator")
                };
                let score = score_of(iter.next_back()?);
                Some((iter.next_back()?, score))
            }
            ZSet::Large(large) => {
                let ids = match self.back {
                    Walk::Leaf(ids) if !ids.is_empty() => ids,
                    _ => large.order.leaf(rank).map(|(ids, at)| &ids[..=at])?,
                };
                let (&id, rest) = ids.split_last()?;
                self.back = Walk::Leaf(rest);
                Some((
                    Element::Str(large.members.member(id)),
                    large.members.score(id),
                ))
            }
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// The pairs of a pack.
struct PackIter<'a> {
    pack: &'a Listpack,
    iter: listpack::Iter<'a>,
}

impl<'a> Iterator for PackIter<'a> {
    type Item = (Element<'a>, f64);

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.iter.next()?;
        let score = self.iter.next();
        debug_assert!(
            score.is_some(),
            "{} bytes of pack end with a member without score",
            self.pack.byte_len()
        );
        Some((member, score_of(score?)))
    }
}

/// A score as it is stored. What is no number was refused when the pack was read.
fn score_of(element: Element) -> f64 {
    match element {
        Element::Int(number) => number as f64,
        Element::Str(text) => double::parse(text).unwrap_or(0.0),
    }
}

fn find(pack: &Listpack, member: &[u8]) -> Option<(Pos, f64)> {
    let place = pack.find(pack.first()?, member, 2)?;
    let score = pack.next(place)?;
    Some((place, score_of(pack.at(score))))
}

fn compare(score: f64, member: Element, other_score: f64, other: &[u8]) -> Ordering {
    score
        .partial_cmp(&other_score)
        .expect("scores are numbers")
        .then_with(|| member.text(&mut itoa::Buffer::new()).cmp(other))
}

/// Puts a member that is not there in its place.
fn insert_in_order(pack: &mut Listpack, member: &[u8], score: f64) {
    let mut place = pack.first().unwrap_or(pack.end());
    while place != pack.end() {
        let at_score = pack.next(place).expect("a score follows each member");
        if compare(score_of(pack.at(at_score)), pack.at(place), score, member) == Ordering::Greater
        {
            break;
        }
        place = pack.next(at_score).unwrap_or(pack.end());
    }
    insert_pair(pack, place, member, score);
}

/// Puts a member and its score before a place.
fn insert_pair(pack: &mut Listpack, place: Pos, member: &[u8], score: f64) {
    // Zero has no sign in a pack, as in Redis.
    let text = DoubleText::score(if score == 0.0 { 0.0 } else { score });
    pack.insert(place, Element::parse(text.as_bytes()));
    pack.insert(place, Element::parse(member));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-3i32..3).prop_map(f64::from),
            2 => any::<f64>().prop_filter("a number", |score| !score.is_nan()),
            1 => Just(f64::INFINITY),
            1 => Just(-0.0),
        ]
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => (0u32..150).prop_map(|n| n.to_string().into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 0..3),
        ]
    }

    fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
        let mut pairs: Vec<_> = model
            .iter()
            .map(|(member, score)| (member.clone(), *score))
            .collect();
        pairs.sort_by(|(a, x), (b, y)| x.partial_cmp(y).unwrap().then_with(|| a.cmp(b)));
        pairs
    }

    fn owned((member, score): (Element, f64)) -> (Vec<u8>, f64) {
        (member.to_vec(), score)
    }

    proptest! {
        #[test]
        fn members_put_in_order_at_once_are_those_inserted_one_by_one(
            members in prop::collection::btree_map(member(), score(), 0..300),
            entries in prop_oneof![Just(0usize), Just(20), Just(1000)],
        ) {
            let limits = Limits { zset_listpack_entries: entries, ..Limits::default() };
            let members: Vec<_> = members.into_iter().collect();
            let mut one_by_one = ZSet::new();
            for (member, score) in &members {
                one_by_one.insert(member, *score, &limits);
            }
            let at_once = ZSet::from_members(members, &limits);
            prop_assert_eq!(at_once.encoding_name(), one_by_one.encoding_name());
            let listed = |set: &ZSet| set.iter().map(owned).collect::<Vec<_>>();
            prop_assert_eq!(listed(&at_once), listed(&one_by_one));
            for (member, score) in listed(&one_by_one) {
                prop_assert_eq!(at_once.score(&member), Some(score));
                prop_assert_eq!(at_once.rank(&member), one_by_one.rank(&member));
            }
        }

        #[test]
        fn any_operations_agree_with_a_map(
            ops in prop::collection::vec((0u8..6, member(), score(), any::<u16>()), 0..400),
            entries in prop_oneof![Just(0usize), Just(20), Just(1000)],
        ) {
            let limits = Limits { zset_listpack_entries: entries, ..Limits::default() };
            let mut set = ZSet::new();
            let mut model = BTreeMap::new();
            for (kind, member, score, at) in ops {
                match kind {
                    0..=3 => prop_assert_eq!(set.insert(&member, score, &limits), model.insert(member, score)),
                    4 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    _ => {
                        let start = at as usize % (model.len() + 1);
                        for (member, _) in sorted(&model).drain(start..model.len().min(start + 3)) {
                            model.remove(&member);
                        }
                        set.remove_range(start..start + 3);
                    }
                }
                prop_assert_eq!(set.len(), model.len());
            }
            let want = sorted(&model);
            prop_assert_eq!(set.iter().map(owned).collect::<Vec<_>>(), want.clone());
            let mut backwards: Vec<_> = set.iter().rev().map(owned).collect();
            backwards.reverse();
            prop_assert_eq!(backwards, want.clone());
            for (rank, (member, score)) in want.iter().enumerate() {
                prop_assert_eq!(set.rank(member), Some((rank, *score)));
                prop_assert_eq!(set.partition_point(|x, m| compare(x, m, *score, member) == Ordering::Less), rank);
            }
            let scores: Vec<f64> = want.iter().map(|(_, score)| *score).collect();
            for bound in scores.iter().copied().chain([-1.0, 0.5, f64::INFINITY]) {
                let gap = set.seek(bound);
                let rank = scores.partition_point(|score| *score < bound);
                let before = rank.checked_sub(1).map(|last| scores[last]);
                prop_assert_eq!(gap.before, before.unwrap_or(f64::NEG_INFINITY));
                prop_assert_eq!(gap.behind, scores.get(rank).copied().unwrap_or(f64::INFINITY));
                prop_assert_eq!(gap.rest.map(owned).collect::<Vec<_>>(), want[rank..].to_vec());
            }
            let half = want.len() / 2;
            let mut both = set.range(half / 2..half + 1);
            let (first, last) = (both.next().map(owned), both.next_back().map(owned));
            prop_assert_eq!(first, want.get(half / 2).cloned());
            prop_assert_eq!(last, want.get(half).filter(|_| half > half / 2).cloned());
            let mut seen = Vec::new();
            let mut cursor = Some(Cursor::START);
            while let Some(at) = cursor {
                cursor = set.scan(at, |member, _| seen.push(member.to_vec()));
            }
            seen.sort();
            prop_assert!(seen.iter().eq(model.keys()));
            let nth: BTreeMap<_, _> = (0..want.len()).filter_map(|n| set.nth(n)).map(owned).collect();
            prop_assert_eq!(nth, model);
        }
    }

    #[test]
    fn pack_has_the_bytes_that_redis_writes() {
        let mut set = ZSet::new();
        for (member, score) in [("b", 2.0), ("a", 1.5), ("7", 2.0), ("c", f64::INFINITY)] {
            set.insert(member.as_bytes(), score, &Limits::default());
        }
        let want: Listpack = [&b"a"[..], b"1.5", b"7", b"2", b"b", b"2", b"c", b"inf"]
            .into_iter()
            .collect();
        assert_eq!(set.as_pack(), Some(&want));
    }

    #[test]
    fn a_pack_out_of_order_is_put_in_order() {
        let pack: Listpack = [&b"b"[..], b"2", b"a", b"1"].into_iter().collect();
        let set = ZSet::from_pack(pack, &Limits::default());
        assert_eq!(
            set.iter().map(owned).collect::<Vec<_>>(),
            [(b"a".to_vec(), 1.0), (b"b".to_vec(), 2.0)]
        );
    }

    #[test]
    fn a_member_of_a_large_set_takes_less_than_forty_five_bytes() {
        let (mut set, mut random) = (ZSet::new(), fastrand::Rng::with_seed(3));
        let limits = Limits::default();
        for n in 0..100_000u32 {
            set.insert(format!("member:{n}").as_bytes(), random.f64(), &limits);
        }
        let per_member = set.heap_bytes() as f64 / 100_000.0;
        println!("{per_member} bytes a member");
        assert!(per_member < 45.0, "{per_member} bytes");
        set.remove_range(10..100_000);
        assert_eq!(
            (set.len(), set.heap_bytes() < 8000),
            (10, true),
            "{} bytes left",
            set.heap_bytes()
        );
    }
}
